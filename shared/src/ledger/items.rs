//! What the table holds, and under which keys.
//!
//! | `pk` | `sk` | what | who writes it |
//! |---|---|---|---|
//! | `switch` | `global`, `remediation#<name>`, `target#<arn>` | a kill switch; on while the item is there, unless its `engaged` is false | the operator |
//! | `transition#<remediation>#<arn>#<transition>` | `record` | the idempotency record of one alarm transition, or of one step of a playbook for it, or of one restoration, on one target | the run that claimed it |
//! | `target#<arn>` | `lease` | the one hand on the target, with its fencing token | the run that claims it |
//! | `target#<arn>` | `heartbeat` | the sign of life of the lease's holder | the holder of the lease |
//! | `target#<arn>` | `history#<remediation>` | actions, breaker, answers to transitions, the remediation's memory | the holder of the lease, or any run while nobody holds it |
//! | `due#<remediation>#<shard>` | `standing#<arn>` | what stands on the target until it is concluded: a run, a snapshot, a plan that settles; with the target as the policy had it | the same |
//! | `due#<remediation>#<shard>` | `waiting#<arn>#<alarm>` | a transition that could not be acted on yet | any run |
//! | `due#<remediation>#<shard>` | `watch#<run>` | a mitigation whose effect is still to be seen | the run that had it, and whoever saw it |
//! | `due#<remediation>#<shard>` | `untold#<run>#<n>` | an outcome until it is on the bus | the run that had it |
//! | `alarm#<arn>` | `state` | the alarm's latest known change, its incident, its latest transitions | any run, by optimistic locking |
//! | `open` | `<alarm arn>` | the index of alarms with an open incident | with the alarm's state |
//! | `incident#<id>` | `incident` | the incident | with the alarm's state |
//! | `incident#<id>` | `at#<time>#<run>#<n>` | one line of the timeline | any run |
//! | `<remediation>#<key>` | `item` | what a remediation counts for itself | the holder of the lease |
//!
//! What stands on a target and what is open has no `expires_at`; everything else but the kill switches has.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::alarm::{AlarmEvent, State};
use crate::ledger::store::{Item, Key};
use crate::outcome::{Report, Rule};

/// How long incidents, timelines and histories are kept.
pub(crate) const KEPT: TimeDelta = TimeDelta::days(400);
/// How long idempotency records are kept: `EventBridge` and Lambda deliver for a day at most.
pub(crate) const RECORD_KEPT: TimeDelta = TimeDelta::days(14);
/// How long a remediation's own items are kept: as long as SQS can keep a message.
pub(crate) const ITEM_KEPT: TimeDelta = TimeDelta::days(30);
/// Over how many partitions what is due is spread, so that many targets at once do not meet in one.
pub(crate) const SHARDS: u8 = 8;

pub(crate) const SWITCHES: &str = "switch";
pub(crate) const OPEN: &str = "open";

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
    /// Raised by every write, so that a write that was held up never undoes a later one.
    #[serde(default)]
    pub sequence: u64,
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

/// What a remediation has done to a target lately, and what it remembers of it.
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
    /// The last answer to each alarm, by its ARN.
    #[serde(default)]
    pub answers: BTreeMap<String, Answer>,
}

/// The last word on a transition: what was done, or the lasting reason for which nothing was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// When the alarm changed.
    pub changed_at: DateTime<Utc>,
    /// The outcome's name.
    pub outcome: String,
    /// The rule that decided, where one did.
    #[serde(default)]
    pub rule: Option<Rule>,
    /// Why, in one sentence.
    pub reason: String,
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
    /// Whether it took back what was in place, which spends neither cooldown nor budget.
    #[serde(default)]
    pub reverts: bool,
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
    /// The latest change that is known, by the alarm's own time.
    #[serde(default)]
    pub latest: Option<Change>,
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

/// A change of an alarm's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The state that it came into.
    pub state: State,
    /// When.
    pub at: DateTime<Utc>,
}

/// A kill switch that is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engaged {
    /// Which: global, remediation or target.
    pub rule: Rule,
    /// Why, in the words of who turned it on.
    pub reason: Option<String>,
}

/// The kill switches that are on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switches(pub(crate) Vec<(String, Option<String>)>);

impl Switches {
    /// The widest switch that is on for a remediation on a target.
    #[must_use]
    pub fn engaged(&self, remediation: &str, resource: &str) -> Option<Engaged> {
        let scopes = [
            ("global".to_owned(), Rule::KillSwitchGlobal),
            (
                format!("remediation#{remediation}"),
                Rule::KillSwitchRemediation,
            ),
            (format!("target#{resource}"), Rule::KillSwitchTarget),
        ];
        scopes.into_iter().find_map(|(scope, rule)| {
            let (_, reason) = self.0.iter().find(|(on, _)| *on == scope)?;
            Some(Engaged {
                rule,
                reason: reason.clone(),
            })
        })
    }
}

/// What stands on a target until it is concluded; the index that the schedule goes by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Raised by every write, for optimistic locking, and never used twice for one target.
    pub version: u64,
    /// The target's name in the policy.
    pub target: String,
    /// The ARN of what is changed.
    pub resource: String,
    /// The target as the policy had it, so that it can be looked after when the policy does not name it any more.
    pub policy: Value,
    /// The runs that have claimed the target and have not ended, the oldest first.
    #[serde(default, alias = "run", deserialize_with = "several")]
    pub runs: Vec<OpenRun>,
    /// The state to go back to.
    #[serde(default)]
    pub snapshot: Option<Snapshot>,
    /// Plans whose calls were all made, the oldest first.
    #[serde(default, deserialize_with = "several")]
    pub settling: Vec<Settling>,
    /// When a human was last told that it stands for too long.
    #[serde(default)]
    pub told_at: Option<DateTime<Utc>>,
}

/// Reads what an earlier release kept one of, or none.
fn several<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kept<T> {
        Several(Vec<T>),
        One(T),
    }
    Ok(match Option::<Kept<T>>::deserialize(from)? {
        None => Vec::new(),
        Some(Kept::Several(all)) => all,
        Some(Kept::One(one)) => vec![one],
    })
}

impl Standing {
    /// Whether anything stands.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.runs.is_empty() && self.snapshot.is_none() && self.settling.is_empty()
    }
}

/// A run that has claimed its target and has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenRun {
    /// The run.
    pub run_id: String,
    /// What it answers: the transition, with the playbook's step, or the restoration.
    pub transition: String,
    /// The alarm's change that led to it.
    pub event: AlarmEvent,
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
    /// When what is in place was put there: when the calls of the first run that put it were all made.
    #[serde(default)]
    pub in_place_since: Option<DateTime<Utc>>,
    /// When what is in place ends unless it is renewed; `None` when it stays until the alarm is back at OK.
    pub expires_at: Option<DateTime<Utc>>,
    /// When what is in place ends by itself, whatever the policy says by then.
    #[serde(default)]
    pub ends_by_itself_at: Option<DateTime<Utc>>,
    /// The end that humans were told of ahead, because the alarm was still in ALARM.
    #[serde(default)]
    pub forewarned: Option<DateTime<Utc>>,
    /// When it was found that the alarm is worse off with it: it ends then.
    #[serde(default)]
    pub cut_short: Option<DateTime<Utc>>,
    /// The state, in the remediation's own form.
    pub state: Value,
}

impl Snapshot {
    /// The latest end of what stays `at_most` so long: its term counts from when it was in place, unless it was given an
    /// end with which it was put there.
    #[must_use]
    pub fn ends_by(&self, at_most: TimeDelta) -> DateTime<Utc> {
        let end = self.in_place_since.unwrap_or(self.taken_at) + at_most;
        self.ends_by_itself_at.map_or(end, |own| own.min(end))
    }
}

/// A change whose calls were all made, while the target takes its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settling {
    /// The run that made the calls.
    pub run_id: String,
    /// What it answers.
    pub transition: String,
    /// The alarm's change that led to it.
    pub event: AlarmEvent,
    /// Since when.
    pub since: DateTime<Utc>,
    /// The plan that was carried out, to be verified.
    pub plan: Value,
}

/// A transition that could not be acted on yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// The ARN of what would be changed.
    pub resource: String,
    /// The alarm's change.
    pub event: AlarmEvent,
    /// What kept the run from acting.
    pub rule: Rule,
    /// Why, in one sentence.
    pub reason: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// When it is worth another look.
    pub look_at: DateTime<Utc>,
}

/// A mitigation whose effect on its alarm is still to be seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// The run.
    pub run_id: String,
    /// The incident.
    pub incident_id: String,
    /// The target's name in the policy.
    pub target: String,
    /// The ARN of what was changed.
    pub resource: String,
    /// The alarm's change that led to it.
    pub event: AlarmEvent,
    /// When the run began.
    pub started_at: DateTime<Utc>,
    /// When it was done.
    pub done_at: DateTime<Utc>,
}

/// An outcome that may not have reached the bus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Untold {
    /// The alarm.
    pub alarm_arn: String,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// The report.
    pub report: Report,
}

/// What was read from the ledger for one target, in one round trip.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
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
    /// What stands on the target.
    pub standing: Option<Standing>,
    /// The alarm's transition that could not be acted on yet.
    pub waiting: Option<Waiting>,
}

impl Facts {
    /// The target's snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.standing.as_ref()?.snapshot.as_ref()
    }

    /// The change of a run that the target has not settled into yet.
    #[must_use]
    pub fn settling(&self, run_id: &str) -> Option<&Settling> {
        let mut settling = self.standing.as_ref()?.settling.iter();
        settling.find(|settling| settling.run_id == run_id)
    }

    /// The runs besides this one that have claimed the target and have not ended.
    pub fn other_runs(&self, run_id: &str) -> impl Iterator<Item = &OpenRun> {
        let runs = self.standing.iter().flat_map(|standing| &standing.runs);
        runs.filter(move |run| run.run_id != run_id)
    }

    /// A fencing token that nobody had before, even where the table has lost the lease or its holder's heartbeat.
    #[must_use]
    pub fn next_token(&self) -> u64 {
        let lease = self.lease.as_ref().map(|lease| lease.token);
        let heartbeat = self.heartbeat.map(|heartbeat| heartbeat.token);
        let record = self.record.as_ref().map(|record| record.token);
        let most = lease.into_iter().chain(heartbeat).chain(record).max();
        most.unwrap_or(0) + 1
    }
}

/// Where a run stands in the ledger.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// The remediation.
    pub remediation: &'static str,
    /// The target's name in the policy.
    pub target: &'a str,
    /// The ARN of what is changed.
    pub resource: &'a str,
    /// The event.
    pub event: &'a AlarmEvent,
    /// What is answered: the event's transition and the playbook's step, or a restoration.
    pub transition: String,
    /// The Lambda request.
    pub request_id: &'a str,
}

impl Place<'_> {
    /// The run that answers.
    #[must_use]
    pub fn run_id(&self) -> String {
        crate::ids::run_id(self.remediation, self.resource, &self.transition)
    }

    /// What the timeline tells of the event.
    #[must_use]
    pub fn event_detail(&self) -> Value {
        serde_json::json!({
            "alarm": self.event.alarm_name,
            "state": self.event.state,
            "changed_at": self.event.changed_at,
            "reason": self.event.reason,
        })
    }
}

/// What is answered when an event asks.
#[must_use]
pub fn transition(event: &AlarmEvent) -> String {
    let key = event.transition_key();
    match event.step() {
        Some(step) => format!("{key}|step={step}"),
        None => key,
    }
}

/// Whether a run's transition is that of a restoration.
pub(crate) fn restores(transition: &str) -> bool {
    transition.starts_with("restore|")
}

/// What is answered when a snapshot is restored: one restoration for each snapshot, whoever begins it.
#[must_use]
pub fn restoration(snapshot: &Snapshot) -> String {
    let taken_at = snapshot.taken_at.timestamp_millis();
    format!("restore|{}|{taken_at}", snapshot.run_id)
}

/// What is answered when what is in place is brought up to date with a version of the policy's parameter.
pub(crate) fn update(snapshot: &Snapshot, version: i64) -> String {
    format!("update|{}|{version}", snapshot.run_id)
}

pub(crate) fn record_key(place: &Place<'_>) -> Key {
    let Place {
        remediation,
        resource,
        transition,
        ..
    } = place;
    Key::new(
        format!("transition#{remediation}#{resource}#{transition}"),
        "record",
    )
}

pub(crate) fn lease_key(resource: &str) -> Key {
    Key::new(format!("target#{resource}"), "lease")
}

pub(crate) fn heartbeat_key(resource: &str) -> Key {
    Key::new(format!("target#{resource}"), "heartbeat")
}

pub(crate) fn history_key(remediation: &str, resource: &str) -> Key {
    Key::new(
        format!("target#{resource}"),
        format!("history#{remediation}"),
    )
}

pub(crate) fn due_pk(remediation: &str, shard: u8) -> String {
    format!("due#{remediation}#{shard}")
}

/// The partition that holds what is due for a target.
pub(crate) fn due_of(remediation: &str, resource: &str) -> String {
    let digest = crate::ids::digest(&[resource], 1);
    let shard = u8::from_str_radix(&digest, 16).unwrap_or(0) % SHARDS;
    due_pk(remediation, shard)
}

pub(crate) const STANDING: &str = "standing#";
pub(crate) const WAITING: &str = "waiting#";
pub(crate) const UNTOLD: &str = "untold#";
pub(crate) const WATCH: &str = "watch#";

pub(crate) fn standing_key(remediation: &str, resource: &str) -> Key {
    Key::new(
        due_of(remediation, resource),
        format!("{STANDING}{resource}"),
    )
}

pub(crate) fn waiting_key(remediation: &str, resource: &str, alarm_arn: &str) -> Key {
    Key::new(
        due_of(remediation, resource),
        format!("{WAITING}{resource}#{alarm_arn}"),
    )
}

pub(crate) fn watch_key(remediation: &str, watch: &Watch) -> Key {
    let Watch {
        resource, run_id, ..
    } = watch;
    Key::new(due_of(remediation, resource), format!("{WATCH}{run_id}"))
}

pub(crate) fn untold_key(remediation: &str, resource: &str, id: &str) -> Key {
    Key::new(due_of(remediation, resource), format!("{UNTOLD}{id}"))
}

pub(crate) fn alarm_key(alarm_arn: &str) -> Key {
    Key::new(format!("alarm#{alarm_arn}"), "state")
}

pub(crate) fn open_key(alarm_arn: &str) -> Key {
    Key::new(OPEN, alarm_arn)
}

pub(crate) fn incident_key(id: &str) -> Key {
    Key::new(format!("incident#{id}"), "incident")
}

pub(crate) fn note_key(remediation: &str, key: &str) -> Key {
    Key::new(format!("{remediation}#{key}"), "item")
}

/// An item of JSON.
pub(crate) fn item(body: String, expires_at: Option<DateTime<Utc>>) -> Item {
    Item {
        body: Some(body),
        expires_at: expires_at.map(|at| at.timestamp()),
        ..Item::default()
    }
}
