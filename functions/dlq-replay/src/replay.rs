//! The replay itself: receive, send, remove; canary first, then as fast as the destination bears, until the queue is dry.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shared::aws_error::{AwsError, Kind, kind_of_code};
use shared::guard::{OpenBreaker, Permit};
use shared::ledger::Entry;
use shared::outcome::Rule;
use shared::remediation::{Done, End, Failure as _, Work};
use shared::telemetry::{Metric, Unit};
use tokio::time::Instant;

use crate::NAME;
use crate::account::{Account, count};
use crate::aws::Aws;
use crate::error::ReplayError;
use crate::message::{self, Fate, InHand, Judge, Kept, Outgoing, Poison};
use crate::pace::{Concurrency, Feedback, RateLimit};
use crate::plan::Plan;
use crate::policy::is_fifo;

/// A batch request's longest payload (Amazon SQS Developer Guide, "Message quotas").
const MAX_BATCH_BYTES: usize = 1_048_576;
/// How often a message is sent before it is given back.
const SENDS: u32 = 4;
/// This many batches in a row that could not be delivered end the round.
const TROUBLES: u32 = 3;
/// Empty long polls that say that a queue is dry. A long poll asks all of a queue's servers.
const DRY: u32 = 2;
/// How often the destinations are looked at and the progress is saved.
const TICK: Duration = Duration::from_secs(5);
/// How long a breaker stays open that the canary found reason to open.
const BREAKER_OPEN: TimeDelta = TimeDelta::hours(1);
/// Failures named in the timeline at most.
const FAILURES_TOLD: usize = 20;
/// Undeleted messages remembered at most.
const REMEMBERED: usize = 2_000;

/// What a round leaves for the next.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Progress {
    account: Account,
    canary_passed: bool,
    /// Messages that this run delivered and could not remove yet.
    #[serde(default)]
    unremoved: BTreeSet<String>,
    /// An attempt died: what it had in hand may have been delivered.
    died: bool,
    /// Receives whose answer may have been lost, with messages that nobody holds now.
    #[serde(default)]
    lost_receives: u64,
    failures: BTreeMap<String, Failures>,
}

/// What a replay remembers of a queue from one run to the next.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Memory {
    /// Messages delivered whose removal failed.
    #[serde(default)]
    delivered: BTreeSet<String>,
}

/// Asynchronous invocations that failed in the same way.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Failures {
    count: u64,
    /// The first requests, to look them up in the function's log.
    request_ids: Vec<String>,
}

/// Why a round stops before the queue is dry.
#[derive(Debug, Clone)]
enum Stop {
    OutOfTime,
    Escalate {
        rule: Rule,
        reason: String,
        breaker: Option<OpenBreaker>,
    },
    Fail {
        error: String,
        retryable: bool,
    },
}

struct State {
    /// Whether the dead-letter queue keeps the order within groups.
    fifo: bool,
    progress: Progress,
    /// What earlier rounds and attempts of the run had counted.
    before: Account,
    memory: Memory,
    /// Delivered and removed, or to be removed when seen again.
    settled: HashSet<String>,
    /// Being worked on by a batch.
    in_hand: HashSet<String>,
    /// Kept hidden until the round ends, so that they are not received again and again.
    held: HashMap<String, String>,
    stopped_groups: HashSet<String>,
    limit: RateLimit,
    pace: Concurrency,
    stop: Option<Stop>,
    troubles: u32,
    last_trouble: String,
    notes: BTreeSet<String>,
    backlogs: Vec<u64>,
}

/// What a batch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Batch {
    Empty,
    Worked,
    Troubled,
    Idle,
}

/// How a message fared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fared {
    NotDelivered,
    /// Delivered, as the new message of this id or by the invocation of this request id.
    Delivered(Option<String>),
}

/// One message's delivery.
struct Delivery {
    message: InHand,
    fared: Fared,
    /// How many answers were lost on the way: each may stand for a copy that arrived.
    lost_answers: u64,
    told_in_ledger: bool,
}

/// A round of a replay.
pub struct Round<'a> {
    aws: &'a Aws,
    plan: &'a Plan,
    schema: Option<jsonschema::Validator>,
    permit: &'a Permit,
    work: &'a Work<'a>,
    began: Instant,
    margin: TimeDelta,
    state: Mutex<State>,
}

impl<'a> Round<'a> {
    /// Takes up where earlier rounds and attempts stopped.
    pub fn new(
        aws: &'a Aws,
        plan: &'a Plan,
        schema: Option<&Value>,
        permit: &'a Permit,
        work: &'a Work<'a>,
    ) -> Result<Self, ReplayError> {
        let schema = compiled(schema)?;
        let mut progress: Progress = permit
            .progress()
            .and_then(|progress| serde_json::from_value(progress.clone()).ok())
            .unwrap_or_default();
        // What a dead attempt had in hand is received anew.
        progress.account.returned.clear();
        progress.account.received = progress.account.replayed() + progress.account.quarantined();
        progress.died |= permit.follows_a_death();
        let memory: Memory = permit
            .memory()
            .and_then(|memory| serde_json::from_value(memory.clone()).ok())
            .unwrap_or_default();
        let mut notes = BTreeSet::new();
        if progress.died {
            notes.insert(
                "an earlier attempt died; what it did after its last saved progress is not in this account, and \
                 messages received before may have been delivered twice"
                    .to_owned(),
            );
        }
        let given = work.deadline - work.clock.now();
        let margin = (given / 4).clamp(TimeDelta::seconds(1), TimeDelta::seconds(10));
        let state = State {
            fifo: is_fifo(&plan.source),
            before: progress.account.clone(),
            progress,
            memory,
            settled: HashSet::new(),
            in_hand: HashSet::new(),
            held: HashMap::new(),
            stopped_groups: HashSet::new(),
            limit: RateLimit::new(plan.limits.messages_per_second.get()),
            pace: Concurrency::new(plan.limits.max_concurrency.get()),
            stop: None,
            troubles: 0,
            last_trouble: String::new(),
            notes,
            backlogs: plan.routes.iter().map(|route| route.backlog).collect(),
        };
        Ok(Self {
            aws,
            plan,
            schema,
            permit,
            work,
            began: Instant::now(),
            margin,
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, stop: Stop) {
        self.state().stop.get_or_insert(stop);
    }

    fn stop_on(&self, error: &ReplayError) {
        self.stop(Stop::Fail {
            error: error.to_string(),
            retryable: error.is_transient(),
        });
    }

    fn is_stopped(&self) -> bool {
        let now = self.work.clock.now();
        if now + self.margin >= self.work.deadline.min(self.permit.held_until()) {
            self.stop(Stop::OutOfTime);
        }
        self.state().stop.is_some()
    }

    /// Works until the queue is dry, the time is up, or something stops it; gives back what it holds.
    pub async fn run(self) -> Done {
        let max = self.plan.limits.max_concurrency.get() as usize;
        let mut dry = 0;
        if !self.state().progress.canary_passed {
            dry = self.canary().await;
        }
        if !self.is_stopped() && dry < DRY {
            self.ramp(max, dry).await;
        }
        self.give_back().await;
        self.look_for_hidden().await;
        self.done()
    }

    /// A lost answer to a receive, or an attempt that ended badly, leaves messages hidden in nobody's hand: a
    /// queue that looks dry then is none. The next attempt takes them when they show again.
    async fn look_for_hidden(&self) {
        let suspect = {
            let state = self.state();
            state.stop.is_none() && (state.progress.lost_receives > 0 || self.permit.attempt() > 1)
        };
        if !suspect {
            return;
        }
        match self.aws.queue(&self.plan.source).await {
            Ok(queue) if queue.in_flight == 0 => self.state().progress.lost_receives = 0,
            Ok(queue) => self.stop(Stop::Fail {
                error: format!(
                    "{} messages of {} are hidden after a lost answer or an attempt that ended badly; they show again within {} s, and the next attempt takes them",
                    queue.in_flight, self.plan.source, self.plan.limits.visibility_seconds
                ),
                retryable: true,
            }),
            Err(error) => self.stop_on(&error),
        }
    }

    /// Replays the first messages and watches what becomes of them. Returns the empty polls seen.
    async fn canary(&self) -> u32 {
        let canary = self.plan.canary;
        let mut dry = 0;
        while dry < DRY && !self.is_stopped() {
            match self.batch(canary.messages.get(), true).await {
                Batch::Empty => dry += 1,
                Batch::Idle => {}
                Batch::Troubled => {
                    let mut state = self.state();
                    let error =
                        format!("the canary could not be delivered: {}", state.last_trouble);
                    state.stop.get_or_insert(Stop::Fail {
                        error,
                        retryable: true,
                    });
                }
                Batch::Worked => break,
            }
        }
        let more = self.plan.expected > u64::from(canary.messages.get());
        if dry == 0 && more && canary.settle_seconds > 0 && !self.is_stopped() {
            tokio::time::sleep(Duration::from_secs(u64::from(canary.settle_seconds))).await;
            self.look().await;
        }
        if !self.is_stopped() {
            self.state().progress.canary_passed = true;
        }
        dry
    }

    async fn ramp(&self, max: usize, mut dry: u32) {
        enum News {
            Batch(Batch),
            Looked,
        }
        let mut flying: FuturesUnordered<BoxFuture<'_, News>> = FuturesUnordered::new();
        let mut batches = 0_usize;
        let mut looking = false;
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        loop {
            if !self.is_stopped() && dry < DRY {
                // Two polls at once are enough to tell that a queue is dry.
                let bound = if dry > 0 { DRY as usize } else { max };
                let allowed = self.state().pace.allowed().min(bound);
                while batches < allowed {
                    batches += 1;
                    flying.push(Box::pin(async { News::Batch(self.batch(10, false).await) }));
                }
            } else if batches == 0 {
                break;
            }
            tokio::select! {
                Some(news) = flying.next(), if !flying.is_empty() => match news {
                    News::Looked => looking = false,
                    News::Batch(batch) => {
                        batches -= 1;
                        match batch {
                            Batch::Empty => dry += 1,
                            Batch::Worked | Batch::Troubled => dry = 0,
                            Batch::Idle => {}
                        }
                    }
                },
                _ = tick.tick() => {
                    if !looking {
                        looking = true;
                        flying.push(Box::pin(async {
                            self.look().await;
                            self.save().await;
                            News::Looked
                        }));
                    }
                }
            }
        }
    }

    /// Looks at the destinations and learns from what it sees.
    async fn look(&self) {
        let now = self.work.clock.now();
        let seen = join_all(self.plan.routes.iter().map(|route| async move {
            let backlog = if route.destination.is_function() {
                None
            } else {
                self.aws
                    .queue(&route.destination.arn)
                    .await
                    .ok()
                    .map(|queue| queue.visible)
            };
            let errors = match &route.destination.consumer_function {
                Some(function) => self.aws.consumer_errors(function, now).await.ok(),
                None => None,
            };
            (backlog, errors)
        }))
        .await;
        let bound = u64::from(self.plan.limits.max_backlog.get());
        let mut feedback = Feedback::Relieved;
        let mut state = self.state();
        for (at, (backlog, errors)) in seen.into_iter().enumerate() {
            let route = &self.plan.routes[at];
            if let Some(backlog) = backlog {
                let grown = backlog.saturating_sub(route.backlog);
                let growing = backlog > state.backlogs[at];
                state.backlogs[at] = backlog;
                if grown >= bound {
                    feedback = Feedback::Full;
                    state.notes.insert(format!(
                        "paused while the backlog of {} was {bound} messages above where it began",
                        route.destination.arn
                    ));
                } else if growing && grown >= bound / 2 && feedback != Feedback::Full {
                    feedback = Feedback::Pressure;
                }
            }
            if let (Some(before), Some(now)) = (route.consumer_errors, errors)
                && now > before
                && feedback != Feedback::Full
            {
                feedback = Feedback::Pressure;
                state.notes.insert(format!(
                    "slowed down while {} had more errors than before",
                    route
                        .destination
                        .consumer_function
                        .as_deref()
                        .unwrap_or_default()
                ));
            }
        }
        state.pace.learn(feedback);
    }

    async fn save(&self) {
        let progress = json!(self.state().progress);
        if let Err(error) = self.work.checkpoint(self.permit, &progress).await {
            self.stop_on(&ReplayError::Ledger(error));
        }
    }

    /// Receives one batch and sees every message of it through.
    async fn batch(&self, max: u32, canary: bool) -> Batch {
        let wait = self.state().limit.reserve(max, self.began.elapsed());
        // Even an empty sleep waits for the timer's next tick.
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if self.is_stopped() {
            return Batch::Idle;
        }
        let visibility = self.plan.limits.visibility_seconds.get();
        let received = match self
            .aws
            .receive(&self.plan.source, max, 1, visibility)
            .await
        {
            Ok(received) => received,
            Err(error) if error.is_transient() => {
                if error.may_have_taken_effect() {
                    self.state().progress.lost_receives += 1;
                }
                self.trouble(&error);
                return Batch::Idle;
            }
            Err(error) => {
                self.stop_on(&ReplayError::Aws(error));
                return Batch::Idle;
            }
        };
        let got = u32::try_from(received.len()).unwrap_or(max);
        self.state().limit.refund(max.saturating_sub(got));
        if received.is_empty() {
            return Batch::Empty;
        }
        let (fresh, leftovers) = self.admit(received);
        if !leftovers.is_empty() {
            self.remove(leftovers, true).await;
        }
        if canary && self.came_back(&fresh) {
            self.keep_all(fresh, Kept::Stopped);
            return Batch::Worked;
        }
        if self.state().stop.is_some() {
            self.keep_all(fresh, Kept::Stopped);
            return Batch::Idle;
        }
        self.see_through(fresh).await
    }

    fn trouble(&self, error: &AwsError) {
        let feedback = if error.kind == Kind::Throttled {
            Feedback::Throttled
        } else {
            Feedback::Failed
        };
        let mut state = self.state();
        state.last_trouble = error.to_string();
        state.trouble(feedback, "failed");
    }

    /// Counts what is new; gives what was delivered before and only has to be removed.
    fn admit(&self, received: Vec<InHand>) -> (Vec<InHand>, Vec<InHand>) {
        let mut state = self.state();
        let mut fresh = Vec::with_capacity(received.len());
        let mut leftovers = Vec::new();
        for message in received {
            if state.settled.contains(&message.id) || state.memory.delivered.contains(&message.id) {
                leftovers.push(message);
            } else if let Some(receipt) = state.held.get_mut(&message.id) {
                *receipt = message.receipt;
            } else if state.in_hand.insert(message.id.clone()) {
                state.progress.account.received += 1;
                fresh.push(message);
            }
        }
        let cap = u64::from(self.plan.limits.max_messages.get());
        if state.progress.account.received > cap {
            let reason = format!(
                "{} held more than the {cap} messages that the policy allows, although SQS had counted fewer; the replay stopped",
                self.plan.source
            );
            state.stop.get_or_insert(Stop::Escalate {
                rule: Rule::BlastCap,
                reason,
                breaker: None,
            });
        }
        (fresh, leftovers)
    }

    /// Whether the messages are those that the previous run replayed, back again.
    fn came_back(&self, messages: &[InHand]) -> bool {
        let Some(previous) = self.permit.previous_run() else {
            return false;
        };
        let back = messages
            .iter()
            .filter(|message| {
                message
                    .mark()
                    .is_some_and(|(count, run)| count >= 2 && run == previous)
            })
            .count();
        if messages.is_empty() || back * 2 < messages.len() {
            return false;
        }
        let reason = format!(
            "{back} of the first {} messages are those that {previous} replayed, back for the second time: the consumer still fails",
            messages.len()
        );
        let until = self.work.clock.now() + BREAKER_OPEN;
        let breaker = Some(OpenBreaker {
            until,
            reason: reason.clone(),
        });
        self.stop(Stop::Escalate {
            rule: Rule::Breaker,
            reason,
            breaker,
        });
        true
    }

    fn keep_all(&self, messages: Vec<InHand>, why: Kept) {
        let mut state = self.state();
        for message in messages {
            state.keep(message, why);
        }
    }

    /// Delivers or keeps every message; for FIFO, one message of each group at a time.
    async fn see_through(&self, messages: Vec<InHand>) -> Batch {
        let counts = match self.ledger_counts(&messages).await {
            Ok(counts) => counts,
            Err(error) => {
                self.stop_on(&error);
                self.keep_all(messages, Kept::Undelivered);
                return Batch::Idle;
            }
        };
        let mut clean = true;
        for wave in waves(messages, is_fifo(&self.plan.source)) {
            clean &= self.wave(wave, &counts).await;
        }
        let mut state = self.state();
        if clean {
            state.troubles = 0;
            state.pace.learn(Feedback::Delivered);
            Batch::Worked
        } else {
            state.trouble(Feedback::Failed, "could not be delivered in full");
            Batch::Troubled
        }
    }

    /// How often messages were replayed that cannot tell so themselves.
    async fn ledger_counts(
        &self,
        messages: &[InHand],
    ) -> Result<HashMap<String, u32>, ReplayError> {
        let run_id = self.permit.run_id();
        let keys: Vec<String> = messages
            .iter()
            .filter_map(|message| match message.failed_request() {
                Some(request) => Some(request.to_owned()),
                None => self
                    .plan
                    .routes
                    .iter()
                    .any(|route| message.is_counted_in_ledger(route.max_message_bytes, run_id))
                    .then(|| message.id.clone()),
            })
            .collect();
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        self.work
            .ledger
            .load(NAME, &keys)
            .await
            .map_err(ReplayError::Ledger)
    }

    /// Sees one wave through; whether every message of it got where it belongs.
    async fn wave(&self, wave: Vec<InHand>, counts: &HashMap<String, u32>) -> bool {
        let judge = Judge {
            plan: self.plan,
            schema: self.schema.as_ref(),
            began: self.permit.started_at(),
            now: self.work.clock.now(),
        };
        let mut to_routes: Vec<Vec<(InHand, u32)>> =
            self.plan.routes.iter().map(|_| Vec::new()).collect();
        let mut to_quarantine = Vec::new();
        for message in wave {
            let behind = message
                .group
                .as_ref()
                .is_some_and(|group| self.state().stopped_groups.contains(group));
            if behind {
                self.state().keep(message, Kept::BehindInGroup);
                continue;
            }
            let replays = message.mark().map(|(count, _)| count).or_else(|| {
                counts
                    .get(message.failed_request().unwrap_or(&message.id))
                    .copied()
            });
            let replays = replays.unwrap_or(0);
            self.note_failure(&message);
            match judge.fate(&message, replays) {
                Fate::Replay(at) => to_routes[at].push((message, replays)),
                Fate::Quarantine(poison, why) => to_quarantine.push((message, poison, why)),
                Fate::Keep(why) => self.state().keep(message, why),
            }
        }
        let replays = join_all(
            to_routes
                .into_iter()
                .enumerate()
                .filter(|(_, messages)| !messages.is_empty())
                .map(|(at, messages)| async move { self.replay(at, messages).await }),
        );
        let (replayed, quarantined) = tokio::join!(replays, self.quarantine(to_quarantine));
        replayed.into_iter().all(|clean| clean) && quarantined
    }

    /// After an attempt died, whatever was received before may be on its second way: counted, and saved,
    /// before it is sent, so that another death does not forget it.
    async fn foresee<'m>(&self, messages: impl Iterator<Item = &'m InHand>, to: &shared::arn::Arn) {
        let again = messages.filter(|message| message.receive_count > 1).count() as u64;
        {
            let mut state = self.state();
            if !state.progress.died || again == 0 || is_fifo(to) {
                return;
            }
            state.progress.account.possible_duplicates += again;
        }
        self.save().await;
    }

    fn note_failure(&self, message: &InHand) {
        let Some(request) = message.failed_request() else {
            return;
        };
        let code = message.text("ErrorCode").unwrap_or("?");
        let words = message.text("ErrorMessage").unwrap_or_default();
        let key: String = format!("{code} {words}").chars().take(200).collect();
        let mut state = self.state();
        let known = state.progress.failures.len();
        let key = if known >= FAILURES_TOLD && !state.progress.failures.contains_key(&key) {
            "others".to_owned()
        } else {
            key
        };
        let failures = state.progress.failures.entry(key).or_default();
        failures.count += 1;
        if failures.request_ids.len() < FAILURES_TOLD {
            failures.request_ids.push(request.to_owned());
        }
    }

    async fn replay(&self, at: usize, messages: Vec<(InHand, u32)>) -> bool {
        let route = &self.plan.routes[at];
        let run_id = self.permit.run_id();
        let arn = &route.destination.arn;
        let fifo = is_fifo(arn);
        let counts: HashMap<String, u32> = messages
            .iter()
            .map(|(message, replays)| (message.id.clone(), replays + 1))
            .collect();
        self.foresee(messages.iter().map(|(message, _)| message), arn)
            .await;
        let deliveries = if route.destination.is_function() {
            join_all(
                messages
                    .into_iter()
                    .map(|(message, _)| self.invoke(arn, message)),
            )
            .await
        } else {
            let ready = messages
                .into_iter()
                .enumerate()
                .filter_map(|(index, (message, replays))| {
                    let out = message::outgoing(index, &message, route, replays, run_id);
                    self.ready(message, out)
                })
                .collect();
            self.send_all(arn, ready).await
        };
        self.conclude(deliveries, fifo, |account, message, new_id| {
            count(&mut account.replayed, arn.as_str());
            Some((new_id?, counts.get(&message.id).copied().unwrap_or(1)))
        })
        .await
    }

    /// Accounts for deliveries, removes what arrived, and keeps what did not; whether all arrived.
    ///
    /// `tell` counts a delivered message, and gives what the ledger keeps of one that has no room for it:
    /// the id is that of the new message.
    async fn conclude<T: Serialize>(
        &self,
        deliveries: Vec<Delivery>,
        fifo: bool,
        mut tell: impl FnMut(&mut Account, &InHand, Option<String>) -> Option<(String, T)>,
    ) -> bool {
        let mut to_remove = Vec::new();
        let mut to_keep = Vec::new();
        let mut clean = true;
        {
            let mut state = self.state();
            for delivery in deliveries {
                let Delivery {
                    message,
                    fared,
                    lost_answers,
                    told_in_ledger,
                } = delivery;
                if !fifo {
                    state.progress.account.possible_duplicates += lost_answers;
                }
                let Fared::Delivered(new_id) = fared else {
                    clean = false;
                    state.keep(message, Kept::Undelivered);
                    continue;
                };
                let kept = tell(&mut state.progress.account, &message, new_id);
                to_keep.extend(kept.filter(|_| told_in_ledger));
                state.settle(&message);
                to_remove.push(message);
            }
        }
        tokio::join!(self.store(to_keep), self.remove(to_remove, false));
        clean
    }

    /// Writes counts or reasons that did not fit in the messages.
    async fn store<T: Serialize>(&self, items: Vec<(String, T)>) {
        if let Err(error) = self
            .work
            .ledger
            .store(self.permit, &items, self.work.clock.now())
            .await
        {
            self.state().notes.insert(format!(
                "what did not fit in {} messages could not be kept in the ledger either: {error}",
                items.len()
            ));
        }
    }

    async fn quarantine(&self, messages: Vec<(InHand, Poison, String)>) -> bool {
        if messages.is_empty() {
            return true;
        }
        self.foresee(
            messages.iter().map(|(message, ..)| message),
            &self.plan.quarantine,
        )
        .await;
        let run_id = self.permit.run_id();
        let reasons: HashMap<String, (Poison, Value)> = messages
            .iter()
            .map(|(message, poison, why)| {
                let reason = message::reason(message, self.plan, *poison, why, run_id);
                (message.id.clone(), (*poison, reason))
            })
            .collect();
        let ready = messages
            .into_iter()
            .enumerate()
            .filter_map(|(index, (message, ..))| {
                let (_, reason) = &reasons[&message.id];
                let out = message::quarantined(index, &message, self.plan, reason, run_id);
                self.ready(message, out)
            })
            .collect();
        let deliveries = self.send_all(&self.plan.quarantine, ready).await;
        let fifo = is_fifo(&self.plan.quarantine);
        self.conclude(deliveries, fifo, |account, message, new_id| {
            let (poison, reason) = &reasons[&message.id];
            count(&mut account.quarantined, poison.name());
            Some((format!("quarantined#{}", new_id?), reason.clone()))
        })
        .await
    }

    /// A message with its entry, or none when the entry could not be built; it is kept then.
    fn ready(&self, message: InHand, out: Option<Outgoing>) -> Option<(InHand, Outgoing)> {
        if let Some(out) = out {
            return Some((message, out));
        }
        self.state().keep(message, Kept::Undelivered);
        None
    }

    async fn send_all(
        &self,
        queue: &shared::arn::Arn,
        ready: Vec<(InHand, Outgoing)>,
    ) -> Vec<Delivery> {
        let sized = ready
            .into_iter()
            .map(|(message, out)| {
                let bytes = out.bytes;
                ((message, out), bytes)
            })
            .collect();
        let mut all = Vec::new();
        for batch in message::batches(sized, MAX_BATCH_BYTES) {
            all.extend(self.send(queue, batch).await);
        }
        all
    }

    /// Sends one batch, and again what was not taken, telling lost answers from refusals.
    async fn send(
        &self,
        queue: &shared::arn::Arn,
        batch: Vec<(InHand, Outgoing)>,
    ) -> Vec<Delivery> {
        let entries: Vec<_> = batch.iter().map(|(_, out)| out.entry.clone()).collect();
        let mut deliveries: Vec<Delivery> = batch
            .into_iter()
            .map(|(message, out)| Delivery {
                message,
                fared: Fared::NotDelivered,
                lost_answers: 0,
                told_in_ledger: out.told_in_ledger,
            })
            .collect();
        let mut left: Vec<usize> = (0..entries.len()).collect();
        for attempt in 0..SENDS {
            let now = left.iter().map(|at| entries[*at].clone()).collect();
            match self.aws.send(queue, now).await {
                Ok(answer) => {
                    for taken in answer.successful() {
                        if let Some(at) = left
                            .iter()
                            .copied()
                            .find(|at| entries[*at].id() == taken.id())
                        {
                            deliveries[at].fared =
                                Fared::Delivered(Some(taken.message_id().to_owned()));
                        }
                    }
                    left.retain(|at| deliveries[*at].fared == Fared::NotDelivered);
                    for refused in answer.failed() {
                        let kind = kind_of_code(refused.code());
                        let mut state = self.state();
                        state.last_trouble = format!(
                            "{queue} refused a message with {}: {}",
                            refused.code(),
                            refused.message().unwrap_or_default()
                        );
                        if kind == Kind::Throttled {
                            state.pace.learn(Feedback::Throttled);
                        }
                        if matches!(kind, Kind::Rejected | Kind::Denied | Kind::NotFound) {
                            left.retain(|at| entries[*at].id() != refused.id());
                        }
                    }
                }
                Err(error) => {
                    self.state().last_trouble = error.to_string();
                    match error.kind {
                        Kind::Throttled => self.state().pace.learn(Feedback::Throttled),
                        Kind::Unknown | Kind::Conflict => {
                            for at in &left {
                                deliveries[*at].lost_answers += 1;
                            }
                        }
                        Kind::Denied | Kind::NotFound | Kind::Rejected => {
                            self.stop_on(&ReplayError::Aws(error));
                            break;
                        }
                    }
                }
            }
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(shared::backoff::pause(attempt, self.permit.run_id())).await;
        }
        deliveries
    }

    /// Invokes a function again with the event that failed.
    async fn invoke(&self, function: &shared::arn::Arn, message: InHand) -> Delivery {
        let payload = message::original_event(&message.body);
        // A function's event has no place for a count: the ledger counts by the invocation's request.
        let mut delivery = Delivery {
            message,
            fared: Fared::NotDelivered,
            lost_answers: 0,
            told_in_ledger: true,
        };
        for attempt in 0..SENDS {
            match self.aws.invoke(function.as_str(), payload.clone()).await {
                Ok(request_id) => {
                    delivery.fared = Fared::Delivered(request_id);
                    break;
                }
                Err(error) => {
                    self.state().last_trouble = error.to_string();
                    match error.kind {
                        Kind::Throttled => self.state().pace.learn(Feedback::Throttled),
                        Kind::Unknown | Kind::Conflict => delivery.lost_answers += 1,
                        Kind::Rejected => break,
                        Kind::Denied | Kind::NotFound => {
                            self.stop_on(&ReplayError::Aws(error));
                            break;
                        }
                    }
                }
            }
            tokio::time::sleep(shared::backoff::pause(attempt, &delivery.message.id)).await;
        }
        delivery
    }

    /// Removes delivered messages from the dead-letter queue; remembers those that stay.
    async fn remove(&self, messages: Vec<InHand>, earlier: bool) {
        for messages in messages.chunks(10) {
            let receipts: Vec<&str> = messages
                .iter()
                .map(|message| message.receipt.as_str())
                .collect();
            let answer = self
                .aws
                .remove(&self.plan.source, &receipts, self.permit.run_id())
                .await;
            let left = match answer {
                Ok(left) => left,
                Err(error) => {
                    let fatal = !error.is_transient();
                    self.state()
                        .notes
                        .insert(format!("delivered messages could not be removed: {error}"));
                    if fatal {
                        self.stop_on(&ReplayError::Aws(error));
                    }
                    (0..messages.len()).collect()
                }
            };
            let mut state = self.state();
            for (at, message) in messages.iter().enumerate() {
                if !left.contains(&at) {
                    state.memory.delivered.remove(&message.id);
                    state.progress.unremoved.remove(&message.id);
                    if earlier {
                        state.progress.account.removed_after_earlier_delivery += 1;
                    }
                } else if !earlier {
                    state.progress.unremoved.insert(message.id.clone());
                    state.memory.delivered.insert(message.id.clone());
                }
            }
            state.progress.account.delivered_but_not_removed =
                state.progress.unremoved.len() as u64;
            while state.memory.delivered.len() > REMEMBERED {
                state.memory.delivered.pop_first();
            }
        }
    }

    /// Makes what is held visible again.
    async fn give_back(&self) {
        let held: Vec<String> = self
            .state()
            .held
            .drain()
            .map(|(_, receipt)| receipt)
            .collect();
        if held.is_empty() {
            return;
        }
        match self.aws.release(&self.plan.source, &held).await {
            Ok(released) if released == held.len() => {}
            Ok(released) => {
                let late = held.len() - released;
                self.note_late(late, "their receipts have expired");
            }
            Err(error) => self.note_late(held.len(), &error.to_string()),
        }
    }

    fn note_late(&self, messages: usize, why: &str) {
        let visibility = self.plan.limits.visibility_seconds;
        self.state().notes.insert(format!(
            "{messages} returned messages show again within {visibility} s rather than at once: {why}"
        ));
    }

    fn done(self) -> Done {
        let now = self.work.clock.now();
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let Progress {
            account, failures, ..
        } = &state.progress;
        let undelivered = account
            .returned
            .get(Kept::Undelivered.name())
            .copied()
            .unwrap_or(0);
        let mut breaker = None;
        let end = match (account.balance(), state.stop) {
            (Err(imbalance), _) => End::Failed {
                error: format!(
                    "the account does not balance: {} received, {} accounted for",
                    imbalance.received, imbalance.accounted
                ),
                retryable: false,
            },
            (_, Some(Stop::Fail { error, retryable })) => End::Failed { error, retryable },
            (
                _,
                Some(Stop::Escalate {
                    rule,
                    reason,
                    breaker: open,
                }),
            ) => {
                breaker = open;
                End::Escalated { rule, reason }
            }
            (_, Some(Stop::OutOfTime)) => End::Unfinished,
            (_, None) if undelivered > 0 => End::Failed {
                error: format!(
                    "{undelivered} messages could not be delivered and are back in the dead-letter queue: {}",
                    state.last_trouble
                ),
                retryable: true,
            },
            (_, None) if account.delivered_but_not_removed > 0 => End::Failed {
                error: format!(
                    "{} delivered messages could not be removed from the dead-letter queue; the next attempt removes them without sending them again",
                    account.delivered_but_not_removed
                ),
                retryable: true,
            },
            (_, None) => End::Finished,
        };
        let mut entries = vec![Entry {
            kind: "account",
            summary: account.summary(),
            detail: json!(account),
        }];
        if !failures.is_empty() {
            entries.push(Entry {
                kind: "failures",
                summary: format!(
                    "why the invocations had failed: {}",
                    failures
                        .iter()
                        .map(|(what, failures)| format!("{} times {what}", failures.count))
                        .collect::<Vec<_>>()
                        .join("; ")
                ),
                detail: json!(failures),
            });
        }
        let metrics = metrics(account, &state.before);
        let evidence = json!({"account": account, "failures": failures, "ended_at": now});
        let summary = account.summary();
        let mut progress = state.progress;
        // Messages given back are received anew by whoever comes next.
        let given_back: u64 = progress.account.returned.values().sum();
        progress.account.received -= given_back.min(progress.account.received);
        progress.account.returned.clear();
        Done {
            end,
            summary,
            evidence,
            progress: Some(json!(progress)),
            memory: Some(json!(state.memory)),
            breaker,
            entries,
            notes: state.notes.into_iter().collect(),
            metrics,
        }
    }
}

/// What this round counted, where the account counts the whole run.
fn metrics(account: &Account, before: &Account) -> Vec<Metric> {
    [
        ("MessagesReplayed", account.replayed() - before.replayed()),
        (
            "MessagesQuarantined",
            account.quarantined() - before.quarantined(),
        ),
        ("MessagesReturned", account.returned()),
        (
            "PossibleDuplicates",
            account.possible_duplicates - before.possible_duplicates,
        ),
    ]
    .map(|(name, value)| {
        #[allow(clippy::cast_precision_loss)] // Message counts are far below 2^52.
        let value = value as f64;
        Metric {
            name,
            unit: Unit::Count,
            value,
        }
    })
    .into()
}

impl State {
    /// Slows down, and stops when too many batches in a row met trouble; `how` tells what became of them.
    fn trouble(&mut self, feedback: Feedback, how: &str) {
        self.pace.learn(feedback);
        self.troubles += 1;
        if self.troubles >= TROUBLES {
            let error = format!(
                "{TROUBLES} batches in a row {how}, the last with: {}",
                self.last_trouble
            );
            self.stop.get_or_insert(Stop::Fail {
                error,
                retryable: true,
            });
        }
    }

    fn settle(&mut self, message: &InHand) {
        self.in_hand.remove(&message.id);
        self.settled.insert(message.id.clone());
    }

    /// Keeps a message hidden until the round ends; a kept message stops its FIFO group.
    fn keep(&mut self, message: InHand, why: Kept) {
        count(&mut self.progress.account.returned, why.name());
        self.in_hand.remove(&message.id);
        if self.fifo
            && let Some(group) = message.group
        {
            self.stopped_groups.insert(group);
        }
        self.held.insert(message.id, message.receipt);
    }
}

/// Standard messages all at once; of FIFO messages, the first of each group, then the second, …
fn waves(messages: Vec<InHand>, fifo: bool) -> Vec<Vec<InHand>> {
    if !fifo {
        return vec![messages];
    }
    let mut waves: Vec<Vec<InHand>> = Vec::new();
    let mut seen: HashMap<Option<String>, usize> = HashMap::new();
    for message in messages {
        let turn = seen.entry(message.group.clone()).or_default();
        if waves.len() <= *turn {
            waves.push(Vec::new());
        }
        waves[*turn].push(message);
        *turn += 1;
    }
    waves
}

fn compiled(schema: Option<&Value>) -> Result<Option<jsonschema::Validator>, ReplayError> {
    schema
        .map(jsonschema::validator_for)
        .transpose()
        .map_err(|error| ReplayError::Schema(error.to_string()))
}

/// What the policy would make of a few messages, which are given back at once.
pub async fn rehearse(
    aws: &Aws,
    plan: &Plan,
    schema: Option<&Value>,
    sample: u8,
    now: DateTime<Utc>,
) -> Result<Vec<String>, ReplayError> {
    const HIDDEN_SECONDS: u32 = 10;
    if sample == 0 {
        return Ok(vec![
            "no message was looked at, since dry_run_sample is 0".to_owned(),
        ]);
    }
    let schema = compiled(schema)?;
    let messages = aws
        .receive(&plan.source, u32::from(sample), 0, HIDDEN_SECONDS)
        .await
        .map_err(ReplayError::Aws)?;
    let judge = Judge {
        plan,
        schema: schema.as_ref(),
        began: now,
        now,
    };
    let mut notes = vec![format!(
        "looking at {} messages hid them for up to {HIDDEN_SECONDS} s and raised their receive count by one",
        messages.len()
    )];
    for message in &messages {
        let replays = message.mark().map_or(0, |(count, _)| count);
        notes.push(match judge.fate(message, replays) {
            Fate::Replay(at) => format!(
                "{} would go to {}",
                message.id, plan.routes[at].destination.arn
            ),
            Fate::Quarantine(poison, why) => {
                format!(
                    "{} would be quarantined as {}: {why}",
                    message.id,
                    poison.name()
                )
            }
            Fate::Keep(why) => format!("{} would stay: {}", message.id, why.name()),
        });
    }
    let receipts: Vec<String> = messages
        .into_iter()
        .map(|message| message.receipt)
        .collect();
    aws.release(&plan.source, &receipts)
        .await
        .map_err(ReplayError::Aws)?;
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(id: &str, group: &str) -> InHand {
        InHand {
            id: id.into(),
            receipt: id.into(),
            body: String::new(),
            attributes: HashMap::new(),
            sent_at: None,
            receive_count: 1,
            origin: None,
            group: Some(group.into()),
            trace_root: None,
        }
    }

    #[test]
    fn a_wave_holds_one_message_of_each_group_in_order() {
        let messages = ["a1", "a2", "b1", "a3", "b2"]
            .map(|id| grouped(id, &id[..1]))
            .to_vec();
        let ids: Vec<Vec<String>> = waves(messages, true)
            .into_iter()
            .map(|wave| wave.into_iter().map(|message| message.id).collect())
            .collect();
        assert_eq!(ids, [vec!["a1", "b1"], vec!["a2", "b2"], vec!["a3"]]);
    }
}
