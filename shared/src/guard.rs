//! The guard: whether a run may act, decided purely from what was read, and the permit that only it can issue.
//!
//! A remediation's `apply` takes a [`Permit`], which cannot be made outside this crate:
//!
//! ```compile_fail
//! let permit = shared::guard::Permit {
//!     remediation: "dlq-replay",
//!     run_id: "run-1".into(),
//! };
//! ```

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::alarm::{AlarmEvent, State};
use crate::outcome::{Outcome, Report, Rule};
use crate::policy::Limits;
use crate::remediation::Temporary;

/// How far an event may be ahead of this function's clock.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);
/// A run that could not say for this long that it is alive starts nothing more.
const UNHEARD: TimeDelta = TimeDelta::seconds(20);
/// A run that has not been heard of for this long is dead to a retry of its own request: what it started
/// last is over by then, since no call outlives the SDK's operation timeout of 25 s. Lambda waits a minute
/// before its first retry, so that a retry never comes too early.
const SILENCE: TimeDelta = TimeDelta::seconds(50);

/// The right to change one target, issued by the guard after its claim was written to the ledger.
///
/// It is neither `Clone` nor constructible elsewhere; a run that holds it holds the target's lease.
#[derive(Debug)]
pub struct Permit {
    pub(crate) remediation: &'static str,
    pub(crate) target: String,
    pub(crate) resource: String,
    pub(crate) run_id: String,
    pub(crate) incident_id: String,
    pub(crate) token: u64,
    pub(crate) round: u32,
    pub(crate) attempt: u32,
    pub(crate) follows_a_death: bool,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) held_until: DateTime<Utc>,
    /// When the ledger last took a heartbeat, in epoch milliseconds.
    pub(crate) heard_at: AtomicI64,
    /// Whether the ledger holds a plan that the target has not settled into.
    pub(crate) settling: bool,
    pub(crate) history: History,
    pub(crate) record_key: String,
    pub(crate) plan: Option<Value>,
    pub(crate) request_id: String,
    pub(crate) progress: Option<Value>,
}

impl Permit {
    /// The run, the same over all its attempts and rounds; also its causation id.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The incident that the run belongs to.
    #[must_use]
    pub fn incident_id(&self) -> &str {
        &self.incident_id
    }

    /// The fencing token: greater than that of every earlier holder of the target's lease.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Which round of the run this is, from 1.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.round
    }

    /// Which attempt of this round this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the attempt before this one died without a word, so that its last deeds are in no report.
    #[must_use]
    pub fn follows_a_death(&self) -> bool {
        self.follows_a_death
    }

    /// When the run's first attempt began.
    #[must_use]
    pub fn started_at(&self) -> DateTime<Utc> {
        self.started_at
    }

    /// Until when the lease is held. Nothing may be changed after. It moves on with every heartbeat, and
    /// comes to lie in the past when another run has taken the lease over.
    #[must_use]
    pub fn held_until(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.heard_at.load(Ordering::Relaxed))
            .unwrap_or_default()
            .checked_add_signed(UNHEARD)
            .map_or(self.held_until, |until| until.min(self.held_until))
    }

    pub(crate) fn heard(&self, at: DateTime<Utc>) {
        self.heard_at
            .store(at.timestamp_millis(), Ordering::Relaxed);
    }

    pub(crate) fn lost(&self) {
        self.heard_at.store(0, Ordering::Relaxed);
    }

    /// What earlier rounds or attempts saved.
    #[must_use]
    pub fn progress(&self) -> Option<&Value> {
        self.progress.as_ref()
    }

    /// What earlier runs of this remediation on this target left to remember.
    #[must_use]
    pub fn memory(&self) -> Option<&Value> {
        self.history.memory.as_ref()
    }

    /// The run that last acted on the target before this one, if any.
    #[must_use]
    pub fn previous_run(&self) -> Option<&str> {
        self.history
            .actions
            .iter()
            .rev()
            .find(|action| action.run_id != self.run_id)
            .map(|action| action.run_id.as_str())
    }
}

/// What the ledger holds of one transition on one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// How far the transition is.
    pub status: Status,
    /// The Lambda request that works on it. Lambda keeps the id over its own retries of an
    /// asynchronous invocation, and can deliver one request twice at a time.
    pub request_id: String,
    /// The fencing token of the lease it was claimed under.
    pub token: u64,
    /// The run.
    pub run_id: String,
    /// The round, from 1.
    pub round: u32,
    /// The attempt at this round, from 1.
    pub attempt: u32,
    /// When the first attempt began.
    pub started_at: DateTime<Utc>,
    /// When the worker is dead for certain, because Lambda has ended it.
    pub claimed_until: DateTime<Utc>,
    /// The incident.
    pub incident_id: String,
    /// The plan that was begun, or would be.
    #[serde(default)]
    pub plan: Option<Value>,
    /// What was saved on the way.
    #[serde(default)]
    pub progress: Option<Value>,
    /// How it ended.
    #[serde(default)]
    pub report: Option<Report>,
}

/// How far a transition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A run works on it.
    InProgress,
    /// A round has ended and the next was asked for.
    Continuing,
    /// All calls were made, and the target takes its time.
    Settling,
    /// It ended; its report stands.
    Completed,
    /// It failed in a way that another attempt can mend.
    Failed,
}

impl Status {
    /// The status as the ledger writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Continuing => "continuing",
            Self::Settling => "settling",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// The one hand on a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The fencing token, raised by every claim.
    pub token: u64,
    /// The run that holds or held it.
    pub run_id: String,
    /// Until when; in the past when it was given back.
    pub held_until: DateTime<Utc>,
}

/// The sign of life of the lease's holder: written with the claim, and every few seconds while it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The fencing token of the lease that it was given under.
    pub token: u64,
    /// When.
    pub at: DateTime<Utc>,
}

/// What a remediation has done to a target lately. Written only by the holder of the lease.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Raised by every write, for optimistic locking.
    pub version: u64,
    /// Actions, oldest first.
    #[serde(default)]
    pub actions: Vec<Action>,
    /// The breaker, when it was opened.
    #[serde(default)]
    pub breaker: Option<OpenBreaker>,
    /// What the remediation itself wants to remember.
    #[serde(default)]
    pub memory: Option<Value>,
    /// The alarm's change that it was too early to decide on.
    #[serde(default)]
    pub undecided: Option<Box<AlarmEvent>>,
}

/// One action on a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// The run.
    pub run_id: String,
    /// The alarm that asked for it.
    pub alarm_arn: String,
    /// When it was claimed.
    pub started_at: DateTime<Utc>,
    /// When it ended; the time of the claim until then.
    pub finished_at: DateTime<Utc>,
    /// How many alarms in a row, this one included, came on the heels of our own action.
    pub refires: u32,
}

/// A breaker that keeps a remediation off a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBreaker {
    /// Until when.
    pub until: DateTime<Utc>,
    /// What opened it.
    pub reason: String,
}

/// What the ledger holds of an alarm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmState {
    /// Raised by every write, for optimistic locking.
    pub version: u64,
    /// The incident that is open, or was last.
    pub incident_id: Option<String>,
    /// Whether that incident is open.
    #[serde(default)]
    pub open: bool,
    /// When it opened.
    #[serde(default)]
    pub opened_at: Option<DateTime<Utc>>,
    /// Changes to ALARM, oldest first, each once however often it was delivered.
    #[serde(default)]
    pub transitions: Vec<DateTime<Utc>>,
}

/// A kill switch that is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engaged {
    /// Which: global, remediation or target.
    pub rule: Rule,
    /// Why, in the words of who turned it on.
    pub reason: Option<String>,
}

/// The state of a target before it was changed, kept until it is restored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The run that changed it.
    pub run_id: String,
    /// The incident.
    pub incident_id: String,
    /// The alarm's change that led to it.
    pub event: AlarmEvent,
    /// When it was taken.
    pub taken_at: DateTime<Utc>,
    /// When what is in place ends unless it is renewed; `None` when it stays until the alarm is back at OK.
    pub expires_at: Option<DateTime<Utc>>,
    /// When the target is to be restored, once the alarm was back at OK.
    pub restore_at: Option<DateTime<Utc>>,
    /// Raised by every write, for optimistic locking.
    pub version: u64,
    /// The state, in the remediation's own form.
    pub state: Value,
}

impl Snapshot {
    /// What is in place stays longer, because the alarm is in ALARM.
    #[must_use]
    pub(crate) fn renewed(&self, temporary: Option<Temporary>, now: DateTime<Utc>) -> Self {
        Self {
            expires_at: temporary
                .map(|kept| (now + kept.expires_after).min(self.taken_at + kept.at_most)),
            restore_at: None,
            version: self.version + 1,
            ..self.clone()
        }
    }

    /// What is in place ends at `restore_at`, because the alarm is back at OK.
    #[must_use]
    pub(crate) fn ending(&self, restore_at: DateTime<Utc>) -> Self {
        Self {
            restore_at: Some(restore_at),
            version: self.version + 1,
            ..self.clone()
        }
    }
}

/// A change whose calls were all made, while the target takes its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settling {
    /// The run that made the calls.
    pub run_id: String,
    /// The incident.
    pub incident_id: String,
    /// The alarm's change that led to it.
    pub event: AlarmEvent,
    /// Since when.
    pub since: DateTime<Utc>,
    /// The plan that was carried out, to be verified.
    pub plan: Value,
}

/// What was read from the ledger for one target, in one round trip.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The first kill switch that is on, from the widest to the narrowest.
    pub switch: Option<Engaged>,
    /// The transition's record.
    pub record: Option<Record>,
    /// The target's lease.
    pub lease: Option<Lease>,
    /// The last sign of life of the lease's holder.
    pub heartbeat: Option<Heartbeat>,
    /// The remediation's history on the target.
    pub history: History,
    /// The alarm's state.
    pub alarm: AlarmState,
    /// The target's snapshot.
    pub snapshot: Option<Snapshot>,
    /// The change that the target has not settled into yet.
    pub settling: Option<Settling>,
}

/// The alarm as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveAlarm {
    /// It exists.
    Found {
        /// Its state.
        state: State,
        /// Whether its actions are enabled.
        actions_enabled: bool,
    },
    /// It was deleted.
    Gone,
}

impl Facts {
    /// When the run that works on the record was last heard of; `None` when it has lost the lease.
    fn heard_at(&self, record: &Record) -> Option<DateTime<Utc>> {
        self.heartbeat
            .filter(|heartbeat| heartbeat.token == record.token)
            .map(|heartbeat| heartbeat.at)
    }
}

/// All that a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The event.
    pub event: &'a AlarmEvent,
    /// The alarm as it is now.
    pub live: LiveAlarm,
    /// The ledger's word.
    pub facts: &'a Facts,
    /// The policy's bounds.
    pub limits: &'a Limits,
    /// The Lambda request.
    pub request_id: &'a str,
    /// The run that this event belongs to.
    pub run_id: &'a str,
    /// The round that a continuation asks for; `None` for an event.
    pub round: Option<u32>,
    /// Now.
    pub now: DateTime<Utc>,
}

/// The guard's decision.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Observe, plan and claim.
    Proceed(Box<Grounds>),
    /// An earlier delivery ended; this is its report.
    Repeat(Box<Report>),
    /// Do nothing, and say why.
    Refuse(Box<Refusal>),
}

/// Why a run does nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// How the run ends.
    pub outcome: Outcome,
    /// A breaker that opens with it.
    pub breaker: Option<OpenBreaker>,
}

/// On what grounds a run may proceed.
#[derive(Debug, Clone, PartialEq)]
pub struct Grounds {
    /// The round, from 1.
    pub round: u32,
    /// The attempt at the round, from 1.
    pub attempt: u32,
    /// Whether the attempt before died without a word.
    pub follows_a_death: bool,
    /// When the run's first attempt began.
    pub started_at: DateTime<Utc>,
    /// Alarms in a row that followed our own action.
    pub refires: u32,
    /// The plan that an earlier round or attempt has begun.
    pub begun: Option<Value>,
    /// What earlier rounds or attempts saved.
    pub progress: Option<Value>,
    /// Whether all calls were made, and it remains to see whether the target has settled.
    pub settling: bool,
    /// Why nothing may be begun any more. What an attempt that died had done may still be concluded.
    pub too_late: Option<Box<Refusal>>,
}

fn skip(rule: Rule, reason: String) -> Verdict {
    Verdict::Refuse(Box::new(Refusal {
        outcome: Outcome::Skipped { rule, reason },
        breaker: None,
    }))
}

fn escalate(rule: Rule, reason: String) -> Verdict {
    Verdict::Refuse(Box::new(Refusal {
        outcome: Outcome::Escalated { rule, reason },
        breaker: None,
    }))
}

/// Decides whether a run may act.
#[must_use]
pub fn decide(question: &Question<'_>) -> Verdict {
    let Question { facts, now, .. } = *question;
    if let Some(record) = &facts.record
        && record.status == Status::Completed
        && let Some(report) = &record.report
    {
        return Verdict::Repeat(Box::new(report.clone()));
    }
    if let Some(engaged) = &facts.switch {
        let which = match engaged.rule {
            Rule::KillSwitchRemediation => "for this remediation",
            Rule::KillSwitchTarget => "for this target",
            _ => "for everything",
        };
        let why = engaged
            .reason
            .as_deref()
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        return skip(engaged.rule, format!("the kill switch {which} is on{why}"));
    }
    let mut grounds = match begin(question) {
        Ok(grounds) => grounds,
        Err(verdict) => return verdict,
    };
    if question.round.is_none()
        && !grounds.settling
        && let Some(refusal) = stale(question)
    {
        if !grounds.follows_a_death || grounds.begun.is_none() {
            return Verdict::Refuse(Box::new(refusal));
        }
        grounds.too_late = Some(Box::new(refusal));
    }
    if let Some(lease) = &facts.lease
        && lease.run_id != question.run_id
        && lease.held_until > now
    {
        return skip(
            Rule::LeaseHeld,
            format!(
                "{} holds the target until {}",
                lease.run_id,
                time(lease.held_until)
            ),
        );
    }
    // Taking back what is in place feeds no alarm.
    if let Some(breaker) = &facts.history.breaker
        && breaker.until > now
        && question.event.state != State::Ok
    {
        return escalate(
            Rule::Breaker,
            format!(
                "the breaker is open until {}: {}",
                time(breaker.until),
                breaker.reason
            ),
        );
    }
    if facts.record.is_none()
        && let Err(verdict) = bounds(question, grounds.refires)
    {
        return verdict;
    }
    Verdict::Proceed(Box::new(grounds))
}

/// Where the run stands: its first attempt, a retry of a dead one, or its next round.
fn begin(question: &Question<'_>) -> Result<Grounds, Verdict> {
    let Question {
        facts, now, round, ..
    } = *question;
    let Some(record) = &facts.record else {
        if round.is_some() {
            return Err(skip(
                Rule::Duplicate,
                "the ledger holds nothing of the run that this continuation belongs to".to_owned(),
            ));
        }
        return Ok(Grounds {
            round: 1,
            attempt: 1,
            follows_a_death: false,
            started_at: now,
            refires: refires(question),
            begun: None,
            progress: None,
            settling: false,
            too_late: None,
        });
    };
    let resumed = |round, attempt| Grounds {
        round,
        attempt,
        follows_a_death: record.status == Status::InProgress,
        started_at: record.started_at,
        refires: 0,
        begun: record.plan.clone(),
        progress: record.progress.clone(),
        settling: record.status == Status::Settling,
        too_late: None,
    };
    let same_request = record.request_id == question.request_id;
    let ended_by_lambda = record.claimed_until <= now;
    let heard_at = facts.heard_at(record);
    let silent = heard_at.is_none_or(|heard_at| heard_at + SILENCE <= now);
    let dead = ended_by_lambda || (same_request && silent);
    match (record.status, round) {
        (Status::Settling, _) => Ok(resumed(record.round, record.attempt)),
        (Status::Failed, None) => Ok(resumed(record.round, record.attempt + 1)),
        (Status::Failed, Some(round)) if round == record.round => {
            Ok(resumed(round, record.attempt + 1))
        }
        (Status::Continuing, Some(round)) if round == record.round + 1 => Ok(resumed(round, 1)),
        (Status::InProgress, Some(round)) if round == record.round && dead => {
            Ok(resumed(round, record.attempt + 1))
        }
        (Status::InProgress, None) if dead => Ok(resumed(record.round, record.attempt + 1)),
        // The invocation that was to carry on could not be asked for, or never came.
        (Status::Continuing, None) if ended_by_lambda || same_request => {
            Ok(resumed(record.round + 1, 1))
        }
        // Either this is a retry of a worker that died a moment ago, or Lambda delivered one request
        // twice. Failing brings the event back, and by then it is plain which.
        (Status::InProgress, _) if same_request => Err(come_again(record, heard_at, now)),
        (_, Some(round)) => Err(skip(
            Rule::Duplicate,
            format!(
                "round {round} was delivered already; the run is at round {}",
                record.round
            ),
        )),
        (_, None) => Err(skip(
            Rule::InProgress,
            format!(
                "request {} works on this transition until {} at the latest",
                record.request_id,
                time(record.claimed_until)
            ),
        )),
    }
}

fn come_again(record: &Record, heard_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Verdict {
    let ago = heard_at.map_or(0, |heard_at| (now - heard_at).num_seconds());
    Verdict::Refuse(Box::new(Refusal {
        outcome: Outcome::Failed {
            error: format!(
                "an earlier delivery of this request, {}, was at work on the transition {ago} s ago; after {} s of silence another takes over: deliver the event again",
                record.request_id,
                SILENCE.num_seconds()
            ),
            retryable: true,
        },
        breaker: None,
    }))
}

fn stale(question: &Question<'_>) -> Option<Refusal> {
    let skip = |rule, reason| {
        Some(Refusal {
            outcome: Outcome::Skipped { rule, reason },
            breaker: None,
        })
    };
    let Question {
        event,
        live,
        limits,
        now,
        ..
    } = *question;
    match event.state {
        State::Alarm => {}
        State::Ok => return None,
        State::InsufficientData => {
            return skip(
                Rule::StateWithoutAction,
                "INSUFFICIENT_DATA says that nothing is known, and never leads to an action"
                    .to_owned(),
            );
        }
    }
    if let Some(by) = &event.suppressed_by {
        return skip(
            Rule::AlarmSuppressed,
            format!("the alarm's actions are suppressed by {by}"),
        );
    }
    let age = now - event.changed_at;
    let limit = TimeDelta::seconds(i64::from(limits.max_event_age_seconds.get()));
    // Who approves reads the plan, and the plan is made anew: it is the alarm that has to hold still.
    if age > limit && event.approved_plan.is_none() {
        return skip(
            Rule::StaleEvent,
            format!(
                "the alarm changed {} s ago, and the policy acts on nothing older than {} s",
                age.num_seconds(),
                limit.num_seconds()
            ),
        );
    }
    if age < -CLOCK_SKEW {
        return skip(
            Rule::StaleEvent,
            format!(
                "the alarm's change is dated {} s ahead of this function's clock",
                -age.num_seconds()
            ),
        );
    }
    match live {
        LiveAlarm::Gone => skip(
            Rule::AlarmRecovered,
            "the alarm does not exist any more".to_owned(),
        ),
        LiveAlarm::Found { state, .. } if state != State::Alarm => skip(
            Rule::AlarmRecovered,
            format!("the alarm, read again, is in {}", state.as_str()),
        ),
        LiveAlarm::Found {
            actions_enabled: false,
            ..
        } => skip(
            Rule::AlarmActionsDisabled,
            "the alarm's actions are disabled; someone works on it by hand".to_owned(),
        ),
        LiveAlarm::Found { .. } => None,
    }
}

/// How many alarms in a row, with this one, came on the heels of our own action. A return to OK is none, and what it
/// leads to passes the count on.
fn refires(question: &Question<'_>) -> u32 {
    let window = TimeDelta::seconds(i64::from(question.limits.breaker.window_seconds.get()));
    let event = question.event;
    question
        .facts
        .history
        .actions
        .iter()
        .rev()
        .find(|action| action.alarm_arn == event.alarm_arn)
        .filter(|action| {
            event.changed_at > action.started_at && event.changed_at - action.finished_at <= window
        })
        .map_or(0, |action| {
            action.refires + u32::from(event.state != State::Ok)
        })
}

fn bounds(question: &Question<'_>, refires: u32) -> Result<(), Verdict> {
    let Question {
        facts,
        limits,
        now,
        event,
        ..
    } = *question;
    if event.state != State::Alarm {
        return Ok(());
    }
    if refires >= limits.breaker.refires.get() {
        let reason = format!(
            "{} has come back {refires} times in a row within {} s of our own action: acting again would feed it",
            event.alarm_name, limits.breaker.window_seconds
        );
        let until = now + TimeDelta::seconds(i64::from(limits.breaker.open_seconds.get()));
        return Err(Verdict::Refuse(Box::new(Refusal {
            outcome: Outcome::Escalated {
                rule: Rule::Breaker,
                reason: format!("{reason}; the breaker is open until {}", time(until)),
            },
            breaker: Some(OpenBreaker { until, reason }),
        })));
    }
    let since = now - TimeDelta::seconds(i64::from(limits.flap.window_seconds.get()));
    let transitions = facts
        .alarm
        .transitions
        .iter()
        .filter(|at| **at > since && **at != event.changed_at)
        .count()
        + 1;
    if transitions > limits.flap.transitions.get() as usize {
        return Err(escalate(
            Rule::Flapping,
            format!(
                "{} went to ALARM {transitions} times in {} s, and {} is the most that is taken for separate troubles",
                event.alarm_name, limits.flap.window_seconds, limits.flap.transitions
            ),
        ));
    }
    if let Some(last) = facts.history.actions.last() {
        let rested = last.finished_at + TimeDelta::seconds(i64::from(limits.cooldown_seconds));
        if rested > now {
            return Err(skip(
                Rule::Cooldown,
                format!(
                    "{} acted on the target a moment ago; it rests until {}",
                    last.run_id,
                    time(rested)
                ),
            ));
        }
    }
    let since = now - TimeDelta::seconds(i64::from(limits.budget.window_seconds.get()));
    let spent = facts
        .history
        .actions
        .iter()
        .filter(|action| action.started_at > since)
        .count();
    if spent >= limits.budget.actions.get() as usize {
        return Err(escalate(
            Rule::Budget,
            format!(
                "{spent} actions in {} s have used up the budget of {}",
                limits.budget.window_seconds, limits.budget.actions
            ),
        ));
    }
    Ok(())
}

/// The history with a new action of the run, kept short.
#[must_use]
pub(crate) fn acted(history: &History, limits: &Limits, action: Action) -> History {
    let keep = TimeDelta::seconds(i64::from(
        limits
            .budget
            .window_seconds
            .max(limits.breaker.window_seconds)
            .max(limits.breaker.open_seconds)
            .get()
            .max(limits.cooldown_seconds),
    ));
    let since = action.started_at - keep;
    let mut next = history.clone();
    next.version += 1;
    match next
        .actions
        .iter_mut()
        .find(|known| known.run_id == action.run_id)
    {
        Some(known) => known.finished_at = action.finished_at,
        None => next.actions.push(action),
    }
    next.actions.retain(|known| known.finished_at > since);
    next.breaker = next.breaker.filter(|breaker| breaker.until > since);
    next.undecided = None;
    next
}

/// The alarm's state with this transition noted once, and the incident that it belongs to.
#[must_use]
pub(crate) fn noted(alarm: &AlarmState, event: &AlarmEvent, limits: &Limits) -> AlarmState {
    const KEPT: usize = 200;
    let mut next = alarm.clone();
    next.version += 1;
    match event.state {
        State::Alarm => {
            if !next.open {
                next.incident_id =
                    Some(crate::ids::incident_id(&event.alarm_arn, event.changed_at));
                next.opened_at = Some(event.changed_at);
                next.open = true;
            }
            if !next.transitions.contains(&event.changed_at) {
                next.transitions.push(event.changed_at);
                next.transitions.sort_unstable();
            }
            let window = TimeDelta::seconds(i64::from(limits.flap.window_seconds.get()));
            next.transitions
                .retain(|at| *at > event.changed_at - window);
            let excess = next.transitions.len().saturating_sub(KEPT);
            next.transitions.drain(..excess);
        }
        State::Ok => next.open = false,
        State::InsufficientData => {}
    }
    next
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_from_heartbeat_to_heartbeat_and_never_beyond_its_end() {
        let at = |second| DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        let permit = Permit {
            remediation: "dlq-replay",
            target: String::new(),
            resource: String::new(),
            run_id: String::new(),
            incident_id: String::new(),
            token: 1,
            round: 1,
            attempt: 1,
            follows_a_death: false,
            started_at: at(100),
            held_until: at(140),
            heard_at: at(100).timestamp_millis().into(),
            settling: false,
            history: History::default(),
            record_key: String::new(),
            plan: None,
            request_id: String::new(),
            progress: None,
        };
        assert_eq!(permit.held_until(), at(120));
        permit.heard(at(110));
        assert_eq!(permit.held_until(), at(130));
        permit.heard(at(130));
        assert_eq!(permit.held_until(), at(140));
        permit.lost();
        assert!(permit.held_until() < at(100));
    }
}
