//! What a round knows, and what follows from it: pure, so that every decision can be tested without a call.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use shared::aws_error::{AwsError, Kind};
use shared::ledger::items::OpenBreaker;
use shared::outcome::Rule;

use super::custody::Custody;
use super::returns::Returns;
use super::saved::{Memory, Notes, Progress, REMEMBERED};
use crate::account::{Account, count};
use crate::judge::Kept;
use crate::message::InHand;
use crate::pace::{Concurrency, Drain, Feedback, RateLimit};
use crate::plan::{Plan, Route};
use crate::policy::is_fifo;

/// This many batches in a row that could not be delivered end the round.
const TROUBLES: u32 = 3;
/// Passes through the queue after the first: what comes meanwhile may be the consumer's failure, which no replay cures.
pub(super) const PASSES: u32 = 5;
/// How long a rest lasts: the schedule's next look ends it.
const REST: TimeDelta = TimeDelta::seconds(45);
/// How long a breaker stays open that a replay finds reason to open.
pub(super) const BREAKER_OPEN: TimeDelta = TimeDelta::hours(1);
/// Messages of the run that are back from which on they say something.
pub(super) const BACK_AT_LEAST: usize = 5;
/// Messages held back at most. SQS lets a queue have 120,000 in flight (Amazon SQS Developer Guide, "Standard queue
/// quotas"), and each takes some of the function's memory.
const HELD: usize = 50_000;
/// Messages that one receive gives at most (Amazon SQS API Reference, `ReceiveMessage`).
pub(super) const BATCH: u32 = 10;
/// This many messages turned away for want of room end the round: it holds them all, and has to give them back
/// before its time is up.
const TURNED_AWAY: u64 = 1_000;

/// Why a round stops before the queue is dry.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stop {
    OutOfTime,
    /// Now is not the time to go on; the schedule does.
    Rest {
        reason: String,
        until: DateTime<Utc>,
    },
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

impl Stop {
    /// The consumer fails: nothing more is replayed to it for a while.
    pub(super) fn breaks(reason: String, now: DateTime<Utc>) -> Self {
        let breaker = OpenBreaker {
            until: now + BREAKER_OPEN,
            reason: reason.clone(),
        };
        Self::Escalate {
            rule: Rule::Breaker,
            reason,
            breaker: Some(breaker),
        }
    }
}

/// What a round knows.
pub(super) struct State {
    pub(super) progress: Progress,
    /// What earlier rounds and attempts of the run had counted.
    pub(super) before: Account,
    pub(super) memory: Memory,
    pub(super) custody: Custody,
    pub(super) limit: RateLimit,
    pub(super) pace: Concurrency,
    /// What each destination is seen to take, in the plan's order.
    pub(super) drains: Vec<Drain>,
    /// What each destination had got when they were last looked at.
    pub(super) sent_before: Vec<u64>,
    /// Since when the replay is paused, since the round began.
    pub(super) paused_since: Option<Duration>,
    pub(super) returns: Returns,
    /// Messages seen that this run replayed, and that are back.
    back: u64,
    /// What was sent before this, the queue drops within the hour.
    pub(super) drops_sent_before: Option<DateTime<Utc>>,
    /// When the oldest message seen was sent.
    pub(super) oldest: Option<DateTime<Utc>>,
    /// What the dead-letter queue holds when the round ends before it is dry.
    pub(super) left: Option<u64>,
    pub(super) notes: Notes,
    pub(super) last_trouble: String,
    troubles: u32,
    /// Messages kept because nothing more could be remembered.
    turned_away: u64,
    stop: Option<Stop>,
}

/// What was received, told apart.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Admitted {
    /// New to this round.
    pub(super) fresh: Vec<InHand>,
    /// Delivered before; they only have to be removed.
    pub(super) leftovers: Vec<InHand>,
    /// Whether others were kept because nothing more could be remembered.
    pub(super) turned_away: bool,
}

impl State {
    /// What a round knows at its beginning.
    pub(super) fn new(plan: &Plan, progress: Progress, memory: Memory) -> Self {
        let mut notes = Notes::default();
        if progress.died {
            notes.note(
                "an earlier attempt died; what it did after its last saved progress is not in this account, and \
                 messages received before may have been delivered twice",
            );
        }
        let bound = plan.limits.max_backlog.get();
        let drains = plan
            .routes
            .iter()
            .map(|route| Drain::new(progress.baseline(route), bound, route.backlog));
        let drains = drains.collect();
        let mut state = Self {
            before: progress.account.clone(),
            progress,
            memory,
            custody: Custody::new(is_fifo(&plan.source)),
            limit: RateLimit::new(plan.limits.messages_per_second.get()),
            pace: Concurrency::new(plan.limits.max_concurrency.get()),
            drains,
            sent_before: Vec::new(),
            paused_since: None,
            returns: Returns::default(),
            back: 0,
            drops_sent_before: None,
            oldest: None,
            left: None,
            notes,
            last_trouble: String::new(),
            troubles: 0,
            turned_away: 0,
            stop: None,
        };
        state.sent_before = state.sent_to(&plan.routes);
        state
    }

    /// What each destination got of this run.
    pub(super) fn sent_to(&self, routes: &[Route]) -> Vec<u64> {
        let replayed = &self.progress.account.replayed;
        let sent = |route: &Route| replayed.get(route.destination.arn.as_str()).copied();
        routes
            .iter()
            .map(|route| sent(route).unwrap_or(0))
            .collect()
    }

    /// Goes on as fast as destinations bear that were not looked at yet.
    pub(super) fn set_out(&mut self, plan: &Plan) {
        if plan.limits.paced_by_consumer {
            let ceiling = f64::from(plan.limits.messages_per_second.get());
            let bears = self.drains.iter().map(Drain::first_rate);
            self.limit.set(bears.fold(ceiling, f64::min).max(1.0));
        }
        let bound = u64::from(plan.limits.max_backlog.get());
        let is_full = |route: &Route| {
            let baseline = self.progress.baseline(route);
            route.backlog.saturating_sub(baseline) >= bound
        };
        if plan.routes.iter().any(is_full) {
            self.pace.learn(Feedback::Full);
        }
    }

    /// Stops the round until the schedule goes on, with a few messages again.
    pub(super) fn rest(&mut self, reason: String, now: DateTime<Utc>) {
        self.progress.canary_passed = false;
        let until = now + REST;
        self.stop(Stop::Rest { reason, until });
    }

    /// Takes in that a message is back that this run has replayed, and stops when many are.
    pub(super) fn note_back(&mut self, now: DateTime<Utc>) {
        self.back += 1;
        let replayed = self.progress.account.replayed();
        if self.back < BACK_AT_LEAST as u64 || self.back * 4 < replayed {
            return;
        }
        let reason = format!(
            "{} of the {replayed} messages that the run replayed are back already: the consumer fails",
            self.back
        );
        self.stop(Stop::breaks(reason, now));
    }

    /// Stops the round, unless it was stopped before: the first reason is the one that is told.
    pub(super) fn stop(&mut self, stop: Stop) {
        self.stop.get_or_insert(stop);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_some()
    }

    /// Rests for another pass where the queue holds clearly more than the round keeps, and than what was delivered and
    /// could not be removed. SQS counts roughly.
    pub(super) fn look_for_unseen(&mut self, total: u64, now: DateTime<Utc>) {
        let held = (self.custody.held() + self.memory.len()) as u64;
        let unseen = total.saturating_sub(held);
        let few = unseen <= (held / 20).max(10);
        if few || self.progress.passes >= PASSES || self.shortage().is_some() {
            return;
        }
        self.progress.passes += 1;
        self.stop(Stop::Rest {
            reason: format!(
                "{unseen} messages were not seen among the {held} that stay, and are looked for in another pass"
            ),
            until: now + REST,
        });
    }

    /// Whether another round goes on where this one stops.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self.stop, Some(Stop::OutOfTime | Stop::Rest { .. }))
    }

    pub(super) fn take_stop(&mut self) -> Option<Stop> {
        self.stop.take()
    }

    /// How many batches may be on their way: as many as the pace allows and the memory has room for, and one
    /// that finds what is to be removed when it has none.
    pub(super) fn allowed(&self) -> usize {
        let room = self.memory.room() / BATCH as usize;
        self.pace.allowed().min(room.max(1))
    }

    /// Whether one message more could be remembered, should every removal fail of what is in hand.
    fn has_room(&self) -> bool {
        self.memory.room() > self.custody.in_hand()
    }

    /// Why the round has failed when messages were turned away for want of room.
    pub(super) fn shortage(&self) -> Option<Stop> {
        (self.turned_away > 0).then(|| Stop::Fail {
            error: format!(
                "{} messages were not delivered, because up to {REMEMBERED} delivered ones could not be removed from the dead-letter queue yet and no more can be remembered; the next attempt removes those without sending them again, and goes on as they go",
                self.turned_away
            ),
            retryable: true,
        })
    }

    /// Counts what is new, and tells it from what was delivered before. New messages that could not be
    /// remembered, should their removal fail, are kept: one that is forgotten would be delivered twice.
    pub(super) fn admit(&mut self, received: Vec<InHand>, plan: &Plan) -> Admitted {
        let mut admitted = Admitted::default();
        for message in received {
            self.oldest = match (self.oldest, message.sent_at) {
                (Some(oldest), Some(sent_at)) => Some(oldest.min(sent_at)),
                (oldest, sent_at) => oldest.or(sent_at),
            };
            if self.custody.has_settled(&message.id) || self.memory.knows(&message.id) {
                admitted.leftovers.push(message);
            } else if !self.custody.recognises(&message) {
                self.progress.account.received += 1;
                if self.has_room() {
                    self.custody.take_up(&message.id);
                    admitted.fresh.push(message);
                } else {
                    self.turned_away += 1;
                    admitted.turned_away = true;
                    self.keep(message, Kept::Stopped);
                }
            }
        }
        let cap = plan.limits.max_messages.get();
        let account = &self.progress.account;
        let taken = account.replayed() + account.quarantined() + self.custody.in_hand() as u64;
        if taken > u64::from(cap) {
            self.stop(Stop::Escalate {
                rule: Rule::BlastCap,
                reason: format!(
                    "{} held more than the {cap} messages that the policy allows, although SQS had counted fewer; the replay stopped",
                    plan.source
                ),
                breaker: None,
            });
        }
        if self.turned_away >= TURNED_AWAY
            && let Some(shortage) = self.shortage()
        {
            self.stop(shortage);
        }
        admitted
    }

    /// Keeps a message hidden until the round ends.
    pub(super) fn keep(&mut self, message: InHand, why: Kept) {
        count(&mut self.progress.account.returned, why.name());
        if let (Some(sent_at), Some(dropped)) = (message.sent_at, self.drops_sent_before)
            && sent_at < dropped
        {
            self.progress.account.expire_within_an_hour += 1;
        }
        self.custody.hold(message);
        if self.custody.held() >= HELD {
            self.stop(Stop::Escalate {
                rule: Rule::BlastCap,
                reason: format!(
                    "{HELD} messages stay in the dead-letter queue and hide the rest of it: SQS gives no more out than 120,000 at a time; replay those of another filter first, or move these elsewhere"
                ),
                breaker: None,
            });
        }
    }

    /// After an attempt died, whatever was received before may be on its second way, unless the destination
    /// suppresses a second copy. Whether there is anything to save before it is sent.
    pub(super) fn foresee(&mut self, received_before: u64, to_fifo: bool) -> bool {
        if !self.progress.died || received_before == 0 || to_fifo {
            return false;
        }
        self.progress.account.possible_duplicates += received_before;
        true
    }

    /// Takes in what became of the removal of delivered messages: `left` are the positions of those that stay.
    /// `earlier`: they had been delivered before they were received this time.
    pub(super) fn conclude_removal(&mut self, messages: &[InHand], left: &[usize], earlier: bool) {
        for (at, InHand { id, .. }) in messages.iter().enumerate() {
            if !earlier {
                self.custody.put_down(id);
            }
            if !left.contains(&at) {
                self.memory.forget(id);
                self.progress.unremoved.remove(id);
                if earlier {
                    self.progress.account.removed_after_earlier_delivery += 1;
                }
            } else if !earlier {
                self.progress.unremoved.insert(id.clone());
                self.memory.remember(id);
            }
        }
        self.progress.account.delivered_but_not_removed = self.progress.unremoved.len() as u64;
    }

    /// Takes in that a batch could not be received.
    pub(super) fn receive_failed(&mut self, error: &AwsError) {
        if error.may_have_taken_effect() {
            self.progress.lost_receives += 1;
        }
        self.last_trouble = error.to_string();
        let feedback = if error.kind == Kind::Throttled {
            Feedback::Throttled
        } else {
            Feedback::Failed
        };
        self.trouble(feedback, "failed");
    }

    /// Takes in whether every message of a batch got where it belongs.
    pub(super) fn batch_ended(&mut self, clean: bool) {
        if clean {
            self.troubles = 0;
            self.pace.learn(Feedback::Delivered);
        } else {
            self.trouble(Feedback::Failed, "could not be delivered in full");
        }
    }

    /// Slows down, and stops when too many batches in a row met trouble; `how` tells what became of them.
    fn trouble(&mut self, feedback: Feedback, how: &str) {
        self.pace.learn(feedback);
        self.troubles += 1;
        if self.troubles >= TROUBLES {
            self.stop(Stop::Fail {
                error: format!(
                    "{TROUBLES} batches in a row {how}, the last with: {}",
                    self.last_trouble
                ),
                retryable: true,
            });
        }
    }

    /// Whether messages may be hidden in nobody's hand, so that a queue that looks dry is none.
    pub(super) fn suspects_hidden(&self, attempt: u32) -> bool {
        !self.is_stopped() && (self.progress.lost_receives > 0 || attempt > 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use chrono::DateTime;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::sample::{named, plan};

    fn ids(range: std::ops::Range<usize>) -> Vec<InHand> {
        range.map(|n| named(&format!("m{n}"))).collect()
    }

    fn state(remembered: usize) -> State {
        let mut memory = Memory::default();
        for message in ids(0..remembered) {
            memory.remember(&message.id);
        }
        State::new(&plan(|_| ()), Progress::default(), memory)
    }

    /// Delivers messages whose removal fails for the first `left` of them.
    fn deliver(state: &mut State, messages: &[InHand], left: usize) {
        for message in messages {
            count(&mut state.progress.account.replayed, "q");
            state.custody.settle(&message.id);
        }
        let left: Vec<usize> = (0..left.min(messages.len())).collect();
        state.conclude_removal(messages, &left, false);
    }

    #[test]
    fn each_message_is_fresh_once_and_a_leftover_once_delivered() {
        let plan = plan(|_| ());
        let mut state = state(1);
        let admitted = state.admit(ids(0..3), &plan);
        assert_eq!(admitted.leftovers, ids(0..1));
        assert_eq!(admitted.fresh, ids(1..3));
        assert_eq!(state.admit(ids(1..3), &plan), Admitted::default());
        deliver(&mut state, &ids(1..2), 0);
        state.keep(named("m2"), Kept::Undelivered);
        let again = InHand {
            receipt: "a later one".into(),
            ..named("m2")
        };
        let admitted = state.admit(vec![named("m1"), again], &plan);
        assert_eq!(admitted.leftovers, ids(1..2));
        assert_eq!(admitted.fresh, []);
        assert_eq!(state.custody.let_go(), ["a later one"]);
        assert_eq!(state.progress.account.received, 2);
        assert_eq!(state.progress.account.balance(), Ok(()));
    }

    #[test]
    fn more_messages_than_the_policy_allows_stop_the_round() {
        let plan = plan(|policy| policy["limits"] = json!({"max_messages": 10}));
        let mut state = State::new(&plan, Progress::default(), Memory::default());
        state.admit(ids(0..10), &plan);
        assert!(!state.is_stopped());
        state.admit(ids(10..11), &plan);
        assert!(matches!(
            state.take_stop(),
            Some(Stop::Escalate {
                rule: Rule::BlastCap,
                breaker: None,
                ..
            })
        ));
    }

    #[test]
    fn what_is_only_kept_does_not_count_against_the_cap() {
        let plan = plan(|policy| policy["limits"] = json!({"max_messages": 10}));
        let mut state = State::new(&plan, Progress::default(), Memory::default());
        for message in ids(0..50) {
            let admitted = state.admit(vec![message], &plan);
            for message in admitted.fresh {
                state.keep(message, Kept::Filtered);
            }
        }
        assert!(!state.is_stopped());
        assert_eq!(state.progress.account.returned["filtered"], 50);
    }

    #[test]
    fn the_returned_that_expire_within_the_hour_are_counted() {
        let mut state = state(0);
        state.drops_sent_before = DateTime::from_timestamp(1_001, 0);
        state.keep(named("sent at 1,000 s"), Kept::Filtered);
        let later = InHand {
            sent_at: DateTime::from_timestamp(1_001, 0),
            ..named("later")
        };
        state.keep(later, Kept::Filtered);
        assert_eq!(state.progress.account.expire_within_an_hour, 1);
    }

    #[test]
    fn what_never_showed_among_what_stays_gets_so_many_passes_more() {
        let now = DateTime::UNIX_EPOCH;
        for (total, kept, unremoved, again) in [
            (1_000, 1_000, 0, false),
            (1_050, 1_000, 0, false),
            (1_051, 1_000, 0, true),
            (15, 5, 0, false),
            (16, 5, 0, true),
            // What was delivered and is still there has been seen.
            (27, 3, 24, false),
        ] {
            let mut state = state(unremoved);
            for message in ids(5_000..5_000 + kept) {
                state.keep(message, Kept::Filtered);
            }
            state.look_for_unseen(total, now);
            assert_eq!(state.goes_on(), again, "{kept} and {unremoved} of {total}");
        }
        let mut state = state(0);
        state.progress.passes = PASSES;
        state.look_for_unseen(5_000, now);
        assert!(!state.is_stopped());
    }

    #[test]
    fn a_round_that_rests_begins_with_a_few_again() {
        let mut state = state(0);
        state.progress.canary_passed = true;
        state.rest("it is not well".to_owned(), DateTime::UNIX_EPOCH);
        assert!(!state.progress.canary_passed);
    }

    #[test]
    fn a_run_stops_when_what_it_replayed_is_back_in_number() {
        for (replayed, back, stops) in [
            (10, 4, false),
            (10, 5, true),
            (40, 9, false),
            (40, 10, true),
        ] {
            let mut state = state(0);
            for _ in 0..replayed {
                count(&mut state.progress.account.replayed, "q");
            }
            for _ in 0..back {
                state.note_back(DateTime::UNIX_EPOCH);
            }
            let stop = state.take_stop();
            assert_eq!(
                matches!(
                    stop,
                    Some(Stop::Escalate {
                        rule: Rule::Breaker,
                        breaker: Some(_),
                        ..
                    })
                ),
                stops,
                "{back} of {replayed}: {stop:?}"
            );
        }
    }

    #[test]
    fn what_could_not_be_remembered_is_not_delivered_and_the_round_says_so() {
        let plan = plan(|_| ());
        let mut state = state(REMEMBERED - 5);
        assert_eq!(state.allowed(), 1);
        let batch = REMEMBERED..REMEMBERED + 8;
        let admitted = state.admit(ids(batch), &plan);
        assert_eq!(admitted.fresh.len(), 5);
        assert!(admitted.turned_away);
        assert_eq!(state.progress.account.returned["stopped"], 3);
        deliver(&mut state, &admitted.fresh, 5);
        let delivered = state.admit(admitted.fresh, &plan);
        assert_eq!(delivered.leftovers.len(), 5);
        assert_eq!(state.progress.account.balance(), Ok(()));
        let Some(Stop::Fail { error, retryable }) = state.shortage() else {
            panic!("no shortage");
        };
        assert!(retryable);
        assert!(
            error.starts_with("3 messages were not delivered"),
            "{error}"
        );
    }

    #[test]
    fn room_comes_back_as_soon_as_something_is_removed() {
        let plan = plan(|_| ());
        let mut state = state(REMEMBERED);
        state.conclude_removal(&ids(0..10), &[], true);
        let new = REMEMBERED..REMEMBERED + 10;
        for range in [new, REMEMBERED + 10..REMEMBERED + 20] {
            let admitted = state.admit(ids(range), &plan);
            assert_eq!(admitted.fresh.len(), 10);
            deliver(&mut state, &admitted.fresh, 0);
        }
        assert_eq!(state.shortage(), None);
    }

    #[test]
    fn a_round_turns_no_more_away_than_it_can_give_back() {
        let plan = plan(|_| ());
        let mut state = state(REMEMBERED);
        let mut turned_away = 0;
        while !state.is_stopped() {
            let admitted = state.admit(
                ids(REMEMBERED + turned_away..REMEMBERED + turned_away + 10),
                &plan,
            );
            assert_eq!(admitted.fresh, []);
            turned_away += 10;
        }
        assert_eq!(turned_away as u64, TURNED_AWAY);
        assert_eq!(state.take_stop(), state.shortage());
    }

    #[test]
    fn trouble_stops_only_in_a_row() {
        let mut state = state(0);
        for clean in [false, false, true, false, false] {
            state.batch_ended(clean);
            assert!(!state.is_stopped());
        }
        state.last_trouble = "no answer".to_owned();
        state.batch_ended(false);
        let Some(Stop::Fail { error, .. }) = state.take_stop() else {
            panic!("not stopped");
        };
        assert_eq!(
            error,
            "3 batches in a row could not be delivered in full, the last with: no answer"
        );
    }

    #[test]
    fn only_a_lost_answer_to_a_receive_leaves_messages_hidden() {
        for (kind, hidden) in [(Kind::Throttled, false), (Kind::Unknown, true)] {
            let mut state = state(0);
            state.receive_failed(&AwsError {
                operation: "sqs:ReceiveMessage",
                subject: "dlq".into(),
                kind,
                code: None,
                message: String::new(),
            });
            assert_eq!(state.suspects_hidden(1), hidden, "{kind:?}");
            assert!(state.suspects_hidden(2));
            state.stop(Stop::OutOfTime);
            assert!(!state.suspects_hidden(2));
        }
    }

    #[test]
    fn a_second_way_is_foreseen_only_after_a_death_and_where_it_leads_to_a_second_copy() {
        for (died, received_before, to_fifo, foreseen) in [
            (true, 2, false, 2),
            (true, 0, false, 0),
            (true, 2, true, 0),
            (false, 2, false, 0),
        ] {
            let mut state = state(0);
            state.progress.died = died;
            assert_eq!(state.foresee(received_before, to_fifo), foreseen > 0);
            assert_eq!(state.progress.account.possible_duplicates, foreseen);
        }
    }

    /// What may happen next to a queue that is nearly all delivered and not removed.
    #[derive(Debug, Clone)]
    enum Event {
        Received(Vec<usize>),
        /// The oldest batch arrived, and the removal failed for so many.
        Arrived(usize),
        /// The oldest batch could not be sent.
        Undelivered,
        Ended,
        /// Killed after the progress was saved, with undelivered batches in hand.
        Died,
    }

    fn event() -> impl Strategy<Value = Event> {
        let received = prop::collection::vec(REMEMBERED - 60..REMEMBERED + 200, 1..=10);
        prop_oneof![
            6 => received.prop_map(Event::Received),
            6 => (0_usize..=10).prop_map(Event::Arrived),
            1 => Just(Event::Undelivered),
            1 => Just(Event::Ended),
            1 => Just(Event::Died),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_delivered_is_fresh_again_and_what_is_saved_stays_within_its_bound(
            events in prop::collection::vec(event(), 1..120),
        ) {
            let plan = plan(|_| ());
            let known = REMEMBERED - 30;
            let mut state = state(known);
            let mut kept_memory = state.memory.clone();
            let mut delivered: HashSet<String> = ids(0..known).into_iter().map(|message| message.id).collect();
            let mut bound = REMEMBERED;
            let mut gone: HashSet<String> = HashSet::new();
            let mut flying: VecDeque<Vec<InHand>> = VecDeque::new();
            for event in events {
                match event {
                    Event::Received(which) => {
                        let mut received: Vec<_> = which.into_iter().flat_map(|n| ids(n..n + 1)).collect();
                        received.retain(|message| !gone.contains(&message.id));
                        let admitted = state.admit(received, &plan);
                        for message in &admitted.fresh {
                            prop_assert!(!delivered.contains(&message.id), "{} twice", message.id);
                        }
                        let (removed, _) = admitted.leftovers.split_at(admitted.leftovers.len() / 2);
                        state.conclude_removal(removed, &[], true);
                        gone.extend(removed.iter().map(|message| message.id.clone()));
                        flying.push_back(admitted.fresh);
                    }
                    Event::Arrived(left) => {
                        if let Some(batch) = flying.pop_front() {
                            delivered.extend(batch.iter().map(|message| message.id.clone()));
                            let stays = left.min(batch.len());
                            gone.extend(batch[stays..].iter().map(|message| message.id.clone()));
                            deliver(&mut state, &batch, left);
                        }
                    }
                    Event::Undelivered => {
                        for message in flying.pop_front().into_iter().flatten() {
                            state.keep(message, Kept::Undelivered);
                        }
                    }
                    Event::Ended | Event::Died => {
                        let died = matches!(event, Event::Died);
                        if !died {
                            kept_memory = state.memory.clone();
                        }
                        flying.clear();
                        let progress = Progress::resumed(Some(&state.progress), died);
                        let now = DateTime::UNIX_EPOCH;
                        let memory = Memory::recalled(Some(&kept_memory), &progress.unremoved, now);
                        // What a dead attempt left comes on top of what its memory had held, once.
                        bound = REMEMBERED.max(memory.len());
                        state = State::new(&plan, progress, memory);
                    }
                }
                prop_assert!(state.memory.len() <= bound, "{} remembered", state.memory.len());
                prop_assert!(state.progress.unremoved.iter().all(|id| state.memory.knows(id)));
            }
        }
    }
}
