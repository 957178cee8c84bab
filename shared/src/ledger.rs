//! The ledger: incidents, timelines, claims, leases, snapshots and kill switches in one `DynamoDB` table.
//!
//! | `pk` | `sk` | what | who writes it |
//! |---|---|---|---|
//! | `switch` | `global`, `remediation#<name>`, `target#<arn>` | a kill switch; on while the item is there, unless its `engaged` is false | the operator |
//! | `transition#<remediation>#<arn>#<transition>` | `record` | the idempotency record of one alarm transition on one target | the run that claimed it |
//! | `target#<arn>` | `lease` | the one hand on the target, with its fencing token | the run that claimed it |
//! | `target#<arn>` | `heartbeat` | the sign of life of the lease's holder | the holder of the lease |
//! | `target#<arn>` | `history#<remediation>` | actions, breaker, the remediation's memory | the holder of the lease |
//! | `target#<arn>` | `snapshot#<remediation>` | the state before, until it is restored, and for how long | the holder of the lease; any run, by optimistic locking, for how long |
//! | `target#<arn>` | `settling#<remediation>` | a plan whose calls were made, until it is verified | the holder of the lease |
//! | `alarm#<arn>` | `state` | the open incident and the latest transitions | any run, by optimistic locking |
//! | `incident#<id>` | `incident` | the incident | the run that opens or closes it |
//! | `incident#<id>` | `at#<time>#<run>#<n>` | one line of the timeline | any run |
//! | `<remediation>#<key>` | `item` | what a remediation counts for itself | that remediation |
//!
//! Every item but the kill switches carries `expires_at` (epoch seconds), the table's TTL attribute.
//! Reads are strongly consistent. A claim is one `TransactWriteItems` call whose conditions are exactly
//! what was read, so that of any number of concurrent deliveries one succeeds.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, Put, TransactWriteItem};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::alarm::{AlarmEvent, State};
use crate::aws_error::AwsError;
use crate::guard::{
    self, Action, Engaged, Facts, Grounds, Heartbeat, History, Lease, OpenBreaker, Permit, Record,
    Settling, Snapshot, Status,
};
use crate::outcome::{Report, Rule};
use crate::policy::Limits;

type Item = HashMap<String, AttributeValue>;

/// How long incidents, timelines and histories are kept.
const KEPT: TimeDelta = TimeDelta::days(400);
/// How long idempotency records are kept: `EventBridge` and Lambda deliver for a day at most.
const RECORD_KEPT: TimeDelta = TimeDelta::days(14);
/// How long a remediation's own items are kept: as long as SQS can keep a message.
const ITEM_KEPT: TimeDelta = TimeDelta::days(30);
/// Lines of the timeline that one claim can write; keeps lines of one millisecond in their order.
const ORDERS: u64 = 10_000;
/// A worker is dead for certain this long after Lambda's deadline.
const GRACE: TimeDelta = TimeDelta::seconds(2);
/// `BatchGetItem` answers at most this many items.
const BATCH_GET: usize = 100;
/// `TransactWriteItems` takes at most this many items.
const TRANSACTION: usize = 100;

/// The ledger's table.
#[derive(Debug, Clone)]
pub struct Ledger {
    client: Client,
    table: String,
}

/// A ledger that did not answer as it should; the run stops where it is.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// A call failed.
    #[error("{0}")]
    Call(AwsError),
    /// An item holds something else than this release writes.
    #[error(
        "ledger item {key} cannot be read: {problem}; it was written by another release or by hand"
    )]
    Unreadable {
        /// The item's `pk` and `sk`.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The table did not answer for every item, so a kill switch may be among the missing.
    #[error(
        "table {table} left {missing} items unread; nothing is done while a kill switch may be among them"
    )]
    Incomplete {
        /// The table.
        table: String,
        /// How many items.
        missing: usize,
    },
    /// Another run took the target's lease over.
    #[error(
        "the lease of {resource} has passed to another run; this one ({run_id}) stops and changes nothing more"
    )]
    Fenced {
        /// The target.
        resource: String,
        /// The run that lost the lease.
        run_id: String,
    },
}

impl LedgerError {
    /// Whether another attempt can succeed without anyone changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Call(error) => error.is_transient(),
            Self::Incomplete { .. } => true,
            Self::Unreadable { .. } | Self::Fenced { .. } => false,
        }
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
    /// The policy's bounds.
    pub limits: &'a Limits,
    /// The Lambda request.
    pub request_id: &'a str,
    /// Whether the event was delivered. The schedule starts runs in the name of events that were not, and
    /// that tell nothing new of the alarm.
    pub delivered: bool,
}

impl Place<'_> {
    fn record_key(&self) -> String {
        format!(
            "transition#{}#{}#{}",
            self.remediation,
            self.resource,
            self.event.transition_key()
        )
    }

    /// The incident of the record, or else the alarm's open one, or else the one that this event opens.
    fn incident_id(&self, facts: &Facts, alarm: &guard::AlarmState) -> String {
        facts
            .record
            .as_ref()
            .map(|record| record.incident_id.clone())
            .or_else(|| {
                let snapshot = facts.snapshot.as_ref().filter(|_| !self.delivered);
                snapshot.map(|snapshot| snapshot.incident_id.clone())
            })
            .or_else(|| alarm.incident_id.clone())
            .unwrap_or_else(|| {
                crate::ids::incident_id(&self.event.alarm_arn, self.event.changed_at)
            })
    }

    /// The incident that a run on these facts belongs to.
    #[must_use]
    pub fn incident_of(&self, facts: &Facts) -> String {
        let alarm = guard::noted(&facts.alarm, self.event, self.limits);
        self.incident_id(facts, &alarm)
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

    /// The run that answers this transition.
    #[must_use]
    pub fn run_id(&self) -> String {
        crate::ids::run_id(
            self.remediation,
            self.resource,
            &self.event.transition_key(),
        )
    }
}

/// What a run means to do, on what grounds.
#[derive(Debug, Clone, Copy)]
pub struct Intent<'a> {
    /// What was read.
    pub facts: &'a Facts,
    /// The guard's grounds.
    pub grounds: &'a Grounds,
    /// The plan, for the timeline.
    pub plan: &'a Value,
    /// The state to go back to, new or kept longer.
    pub snapshot: Option<&'a Snapshot>,
}

/// What a run that changes nothing on the target has to write all the same.
#[derive(Debug, Clone, Default)]
pub struct Amendment {
    /// A breaker that opens.
    pub breaker: Option<OpenBreaker>,
    /// What later runs on the target should remember.
    pub memory: Option<Value>,
    /// Whether the schedule is to plan for the alarm's change anew.
    pub undecided: bool,
    /// How long what is in place stays.
    pub snapshot: Option<Snapshot>,
}

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it tells of: `refused`, `claimed`, `applied`, …
    pub kind: &'static str,
    /// One sentence for the reader.
    pub summary: String,
    /// What bears it out.
    pub detail: Value,
}

/// The end of a claim: the permit, or the news that another run was first.
#[derive(Debug)]
pub enum Claim {
    /// The run may act.
    Granted(Box<Permit>),
    /// What was read is not so any more; read again and decide again.
    Overtaken,
}

/// How a round ends.
#[derive(Debug, Clone)]
pub struct End<'a> {
    /// The record's new status.
    pub status: Status,
    /// What is stored for later deliveries.
    pub report: &'a Report,
    /// What the next round or attempt starts from.
    pub progress: Option<Value>,
    /// What the remediation wants to remember of the target.
    pub memory: Option<Value>,
    /// A breaker that the remediation found reason to open.
    pub breaker: Option<OpenBreaker>,
    /// Lines for the timeline.
    pub entries: Vec<Entry>,
    /// When the next round's invocation would be dead for certain, had it come.
    pub continues_by: Option<DateTime<Utc>>,
    /// Whether the target's snapshot has been restored and can go.
    pub restored: bool,
    /// A plan whose calls were all made, to be verified later.
    pub settling: Option<Settling>,
}

impl Ledger {
    /// A ledger in `table`.
    #[must_use]
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// Reads all that the guard decides from, in one round trip.
    pub async fn read(&self, place: &Place<'_>) -> Result<Facts, LedgerError> {
        let of_event = [
            (place.record_key(), "record"),
            (format!("alarm#{}", place.event.alarm_arn), "state"),
        ];
        self.facts(place.remediation, place.resource, Some(of_event))
            .await
    }

    /// Reads what there is to know of a target without an event: neither a record nor an alarm's state.
    pub async fn look(
        &self,
        remediation: &'static str,
        resource: &str,
    ) -> Result<Facts, LedgerError> {
        self.facts(remediation, resource, None).await
    }

    async fn facts(
        &self,
        remediation: &'static str,
        resource: &str,
        of_event: Option<[(String, &'static str); 2]>,
    ) -> Result<Facts, LedgerError> {
        let target = format!("target#{resource}");
        let history = format!("history#{remediation}");
        let snapshot = format!("snapshot#{remediation}");
        let settling = format!("settling#{remediation}");
        let switch_remediation = format!("remediation#{remediation}");
        let switches = [
            ("global", Rule::KillSwitchGlobal),
            (switch_remediation.as_str(), Rule::KillSwitchRemediation),
            (target.as_str(), Rule::KillSwitchTarget),
        ];
        let mut keys: Vec<(&str, &str)> = switches.iter().map(|(sk, _)| ("switch", *sk)).collect();
        keys.extend([
            (target.as_str(), "lease"),
            (target.as_str(), "heartbeat"),
            (target.as_str(), history.as_str()),
            (target.as_str(), snapshot.as_str()),
            (target.as_str(), settling.as_str()),
        ]);
        keys.extend(of_event.iter().flatten().map(|(pk, sk)| (pk.as_str(), *sk)));
        let items = self.get(&keys).await?;
        let find = |pk: &str, sk: &str| items.get(&(pk.to_owned(), sk.to_owned()));
        let found = |at: usize| {
            let (pk, sk) = &of_event.as_ref()?[at];
            find(pk, sk)
        };
        Ok(Facts {
            switch: switches
                .iter()
                .find_map(|(sk, rule)| engaged(find("switch", sk)?, *rule)),
            record: body(found(0))?,
            lease: body(find(&target, "lease"))?,
            heartbeat: body(find(&target, "heartbeat"))?,
            history: body(find(&target, &history))?.unwrap_or_default(),
            alarm: body(found(1))?.unwrap_or_default(),
            snapshot: body(find(&target, &snapshot))?,
            settling: body(find(&target, &settling))?,
        })
    }

    /// Claims the target for the run: record, lease, history, incident and the first line of the
    /// timeline in one transaction that holds only if nothing has changed since the facts were read.
    pub async fn claim(
        &self,
        place: &Place<'_>,
        intent: &Intent<'_>,
        now: DateTime<Utc>,
        deadline: DateTime<Utc>,
    ) -> Result<Claim, LedgerError> {
        let Intent { facts, grounds, .. } = *intent;
        let alarm = guard::noted(&facts.alarm, place.event, place.limits);
        let run_id = place.run_id();
        let action = Action {
            run_id: run_id.clone(),
            alarm_arn: place.event.alarm_arn.clone(),
            started_at: now,
            finished_at: now,
            refires: grounds.refires,
        };
        let permit = Permit {
            remediation: place.remediation,
            target: place.target.to_owned(),
            resource: place.resource.to_owned(),
            run_id,
            incident_id: place.incident_id(facts, &alarm),
            token: facts.lease.as_ref().map_or(0, |lease| lease.token) + 1,
            round: grounds.round,
            attempt: grounds.attempt,
            follows_a_death: grounds.follows_a_death,
            started_at: grounds.started_at,
            heard_at: now.timestamp_millis().into(),
            settling: facts.settling.is_some(),
            held_until: deadline + GRACE,
            history: guard::acted(&facts.history, place.limits, action),
            record_key: place.record_key(),
            plan: Some(intent.plan.clone()),
            request_id: place.request_id.to_owned(),
            progress: grounds.progress.clone(),
        };
        let writes = self.claim_writes(place, intent, &alarm, &permit, now)?;
        Ok(if self.transact(writes, &permit.run_id).await? {
            Claim::Granted(Box::new(permit))
        } else {
            Claim::Overtaken
        })
    }

    fn claim_writes(
        &self,
        place: &Place<'_>,
        intent: &Intent<'_>,
        alarm: &guard::AlarmState,
        permit: &Permit,
        now: DateTime<Utc>,
    ) -> Result<Vec<TransactWriteItem>, LedgerError> {
        let Intent {
            facts,
            grounds,
            plan,
            snapshot,
        } = *intent;
        let record = permit.record(
            Status::InProgress,
            grounds.progress.clone(),
            None,
            permit.held_until,
        );
        let lease = permit.lease(permit.held_until);
        let target = permit.target_key();
        let mut writes = vec![
            self.put(
                permit
                    .record_item(&record, now)
                    .only_if_record_is(facts.record.as_ref()),
            )?,
            self.put(
                Written::new(&target, "lease", &lease, now + KEPT)
                    .mark("token", permit.token)
                    .only_if("token", facts.lease.as_ref().map(|lease| lease.token)),
            )?,
            self.heartbeat(permit, now)?,
            self.put(history_item(
                &target,
                place.remediation,
                &permit.history,
                now,
            ))?,
        ];
        if let Some(snapshot) = snapshot {
            writes.push(self.snapshot(place, facts, snapshot, now)?);
        }
        writes.extend(self.alarm_writes(place, facts, alarm, &permit.incident_id, now)?);
        let entry = Entry {
            kind: "claimed",
            summary: format!(
                "{} took {} in hand (round {}, attempt {})",
                place.remediation, place.target, grounds.round, grounds.attempt
            ),
            detail: serde_json::json!({
                "run_id": permit.run_id,
                "token": permit.token,
                "plan": plan,
                "event": place.event_detail(),
            }),
        };
        writes.extend(self.lines(permit, std::slice::from_ref(&entry), 0, now)?);
        Ok(writes)
    }

    /// Writes a refusal to the timeline, and what the guard learned from the event.
    ///
    /// Returns the incident, or `None` when the ledger has changed since `facts` was read.
    pub async fn refuse(
        &self,
        place: &Place<'_>,
        facts: &Facts,
        entry: &Entry,
        amendment: Amendment,
        now: DateTime<Utc>,
    ) -> Result<Option<String>, LedgerError> {
        let alarm = guard::noted(&facts.alarm, place.event, place.limits);
        let incident_id = place.incident_id(facts, &alarm);
        let mut writes = self.alarm_writes(place, facts, &alarm, &incident_id, now)?;
        let Amendment {
            breaker,
            memory,
            undecided,
            snapshot,
        } = amendment;
        let waits = facts.history.undecided.as_ref().is_some_and(|held| {
            held.alarm_arn == place.event.alarm_arn && held.changed_at == place.event.changed_at
        });
        if breaker.is_some() || memory.is_some() || undecided != waits {
            let mut history = facts.history.clone();
            history.version += 1;
            history.breaker = breaker.or(history.breaker);
            history.memory = memory.or(history.memory);
            if undecided {
                history.undecided = Some(Box::new(place.event.clone()));
            } else if waits {
                history.undecided = None;
            }
            let target = format!("target#{}", place.resource);
            writes.push(self.put(history_item(&target, place.remediation, &history, now))?);
        }
        if let Some(snapshot) = &snapshot {
            writes.push(self.snapshot(place, facts, snapshot, now)?);
        }
        let who = crate::ids::digest(&[place.request_id, &now.timestamp_micros().to_string()], 6);
        let who = format!("req-{who}");
        writes.push(self.put(timeline(
            place.remediation,
            place.target,
            &incident_id,
            &who,
            0,
            entry,
            now,
        ))?);
        Ok(self
            .transact(writes, &incident_id)
            .await?
            .then_some(incident_id))
    }

    /// Writes what the remediation should remember of a target; `false` when the ledger has changed since
    /// `facts` were read.
    pub async fn remember(
        &self,
        remediation: &'static str,
        resource: &str,
        facts: &Facts,
        memory: Value,
        now: DateTime<Utc>,
    ) -> Result<bool, LedgerError> {
        let mut history = facts.history.clone();
        history.version += 1;
        history.memory = Some(memory);
        let target = format!("target#{resource}");
        let write = self.put(history_item(&target, remediation, &history, now))?;
        self.transact(vec![write], resource).await
    }

    fn snapshot(
        &self,
        place: &Place<'_>,
        facts: &Facts,
        snapshot: &Snapshot,
        now: DateTime<Utc>,
    ) -> Result<TransactWriteItem, LedgerError> {
        let before = facts.snapshot.as_ref().map(|snapshot| snapshot.version);
        let target = format!("target#{}", place.resource);
        self.snapshot_item(&target, place.remediation, snapshot, before, now)
    }

    fn snapshot_item(
        &self,
        target: &str,
        remediation: &str,
        snapshot: &Snapshot,
        before: Option<u64>,
        now: DateTime<Utc>,
    ) -> Result<TransactWriteItem, LedgerError> {
        self.put(
            Written::new(
                target,
                &format!("snapshot#{remediation}"),
                snapshot,
                now + KEPT,
            )
            .mark("version", snapshot.version)
            .only_if("version", before),
        )
    }

    /// Says that the permit's holder is alive.
    pub async fn beat(&self, permit: &Permit, now: DateTime<Utc>) -> Result<(), LedgerError> {
        let write = self.heartbeat(permit, now)?;
        self.fenced(permit, vec![write]).await
    }

    fn heartbeat(
        &self,
        permit: &Permit,
        now: DateTime<Utc>,
    ) -> Result<TransactWriteItem, LedgerError> {
        let heartbeat = Heartbeat {
            token: permit.token,
            at: now,
        };
        let target = permit.target_key();
        self.put(
            Written::new(&target, "heartbeat", &heartbeat, now + KEPT)
                .mark("token", permit.token)
                .unless_after("token", permit.token),
        )
    }

    /// Saves progress under the permit's fencing token.
    pub async fn checkpoint(
        &self,
        permit: &Permit,
        progress: &Value,
        now: DateTime<Utc>,
    ) -> Result<(), LedgerError> {
        let record = permit.record(
            Status::InProgress,
            Some(progress.clone()),
            None,
            permit.held_until,
        );
        let write = self.put(permit.record_item(&record, now))?;
        self.fenced(permit, vec![write]).await
    }

    /// Ends a round: record, lease, history and timeline in one transaction under the fencing token.
    pub async fn finish(
        &self,
        permit: &Permit,
        end: End<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), LedgerError> {
        let claimed_until = end.continues_by.unwrap_or(now);
        let record = permit.record(
            end.status,
            end.progress,
            Some(end.report.clone()),
            claimed_until,
        );
        // Between rounds the target stays in the run's hand.
        let held_until = end.continues_by.unwrap_or(now);
        let lease = permit.lease(held_until);
        let mut history = permit.history.clone();
        if let Some(action) = history
            .actions
            .iter_mut()
            .find(|action| action.run_id == permit.run_id)
        {
            action.finished_at = now;
        }
        history.version += 1;
        history.memory = end.memory.or(history.memory);
        history.breaker = end.breaker.or(history.breaker);
        let target = permit.target_key();
        let mut writes = vec![
            self.put(permit.record_item(&record, now))?,
            self.put(
                Written::new(&target, "lease", &lease, now + KEPT)
                    .mark("token", permit.token)
                    .only_if("token", Some(permit.token)),
            )?,
            self.put(history_item(&target, permit.remediation, &history, now))?,
        ];
        if end.restored {
            writes.push(self.delete(&target, &format!("snapshot#{}", permit.remediation))?);
        }
        let settling = format!("settling#{}", permit.remediation);
        if let Some(plan) = &end.settling {
            writes.push(self.put(Written::new(&target, &settling, plan, now + KEPT))?);
        } else if permit.settling {
            writes.push(self.delete(&target, &settling)?);
        }
        writes.extend(self.lines(permit, &end.entries, 500, now)?);
        self.fenced(permit, writes).await
    }

    /// Writes for how long what is in place stays; `false` when another run has written so since.
    pub async fn amend(
        &self,
        remediation: &'static str,
        resource: &str,
        snapshot: &Snapshot,
        now: DateTime<Utc>,
    ) -> Result<bool, LedgerError> {
        let target = format!("target#{resource}");
        let write = self.snapshot_item(
            &target,
            remediation,
            snapshot,
            snapshot.version.checked_sub(1),
            now,
        )?;
        self.transact(vec![write], resource).await
    }

    /// Replaces the snapshot that this permit's claim took, before anything was changed.
    pub async fn retake(
        &self,
        permit: &Permit,
        snapshot: &Snapshot,
        now: DateTime<Utc>,
    ) -> Result<(), LedgerError> {
        let target = permit.target_key();
        let before = snapshot.version.checked_sub(1);
        let write = self.snapshot_item(&target, permit.remediation, snapshot, before, now)?;
        self.fenced(permit, vec![write]).await
    }

    /// Reads a remediation's own items. Absent keys are absent from the answer.
    pub async fn load<T: DeserializeOwned>(
        &self,
        remediation: &str,
        keys: &[String],
    ) -> Result<HashMap<String, T>, LedgerError> {
        let mut found = HashMap::new();
        for keys in keys.chunks(BATCH_GET) {
            let named: Vec<(String, &String)> = keys
                .iter()
                .map(|key| (format!("{remediation}#{key}"), key))
                .collect();
            let wanted: Vec<(&str, &str)> =
                named.iter().map(|(pk, _)| (pk.as_str(), "item")).collect();
            let items = self.get(&wanted).await?;
            for (pk, key) in &named {
                if let Some(value) = body(items.get(&(pk.clone(), "item".to_owned())))? {
                    found.insert((*key).clone(), value);
                }
            }
        }
        Ok(found)
    }

    /// Writes a remediation's own items, replacing what was there.
    pub async fn store<T: Serialize>(
        &self,
        permit: &Permit,
        items: &[(String, T)],
        now: DateTime<Utc>,
    ) -> Result<(), LedgerError> {
        for items in items.chunks(TRANSACTION) {
            let writes = items
                .iter()
                .map(|(key, value)| {
                    let pk = format!("{}#{key}", permit.remediation);
                    self.put(Written::new(&pk, "item", value, now + ITEM_KEPT))
                })
                .collect::<Result<Vec<_>, _>>()?;
            self.fenced(permit, writes).await?;
        }
        Ok(())
    }

    fn alarm_writes(
        &self,
        place: &Place<'_>,
        facts: &Facts,
        alarm: &guard::AlarmState,
        incident_id: &str,
        now: DateTime<Utc>,
    ) -> Result<Vec<TransactWriteItem>, LedgerError> {
        let known = alarm.open == facts.alarm.open && alarm.transitions == facts.alarm.transitions;
        if known || !place.delivered {
            return Ok(Vec::new());
        }
        let key = format!("alarm#{}", place.event.alarm_arn);
        let before = (facts.alarm.version > 0).then_some(facts.alarm.version);
        let mut writes = vec![
            self.put(
                Written::new(&key, "state", alarm, now + KEPT)
                    .mark("version", alarm.version)
                    .only_if("version", before),
            )?,
        ];
        if alarm.open != facts.alarm.open {
            let incident = serde_json::json!({
                "incident_id": incident_id,
                "alarm_arn": place.event.alarm_arn,
                "alarm_name": place.event.alarm_name,
                "status": if alarm.open { "open" } else { "resolved" },
                "opened_at": alarm.opened_at,
                "resolved_at": (place.event.state == State::Ok).then_some(place.event.changed_at),
                "reason": place.event.reason,
            });
            let pk = format!("incident#{incident_id}");
            writes.push(self.put(Written::new(&pk, "incident", &incident, now + KEPT))?);
        }
        Ok(writes)
    }

    fn lines(
        &self,
        permit: &Permit,
        entries: &[Entry],
        from: u64,
        now: DateTime<Utc>,
    ) -> Result<Vec<TransactWriteItem>, LedgerError> {
        entries
            .iter()
            .zip(permit.token * ORDERS + from..)
            .map(|(entry, order)| {
                self.put(timeline(
                    permit.remediation,
                    &permit.target,
                    &permit.incident_id,
                    &permit.run_id,
                    order,
                    entry,
                    now,
                ))
            })
            .collect()
    }

    async fn get(
        &self,
        keys: &[(&str, &str)],
    ) -> Result<HashMap<(String, String), Item>, LedgerError> {
        let mut wanted: Vec<Item> = keys
            .iter()
            .map(|(pk, sk)| {
                HashMap::from([
                    ("pk".to_owned(), AttributeValue::S((*pk).to_owned())),
                    ("sk".to_owned(), AttributeValue::S((*sk).to_owned())),
                ])
            })
            .collect();
        let mut found = HashMap::new();
        // `UnprocessedKeys` is the table's way to answer in part; two more helpings, then give up.
        for _ in 0..3 {
            let request = KeysAndAttributes::builder()
                .set_keys(Some(wanted))
                .consistent_read(true)
                .build()
                .map_err(|error| self.unbuildable("dynamodb:BatchGetItem", &error))?;
            let answer = self
                .client
                .batch_get_item()
                .request_items(&self.table, request)
                .send()
                .await
                .map_err(|error| {
                    LedgerError::Call(AwsError::new("dynamodb:BatchGetItem", &self.table, &error))
                })?;
            for item in answer.responses.unwrap_or_default().into_values().flatten() {
                if let (Some(pk), Some(sk)) = (text(&item, "pk"), text(&item, "sk")) {
                    found.insert((pk.to_owned(), sk.to_owned()), item);
                }
            }
            wanted = answer
                .unprocessed_keys
                .unwrap_or_default()
                .into_values()
                .flat_map(|left| left.keys)
                .collect();
            if wanted.is_empty() {
                return Ok(found);
            }
        }
        Err(LedgerError::Incomplete {
            table: self.table.clone(),
            missing: wanted.len(),
        })
    }

    fn put<T: Serialize>(&self, written: Written<'_, T>) -> Result<TransactWriteItem, LedgerError> {
        let Written {
            pk,
            sk,
            value,
            expires_at,
            marks,
            condition,
            columns,
        } = written;
        let body = serde_json::to_string(value).map_err(|error| LedgerError::Unreadable {
            key: format!("{pk} {sk}"),
            problem: error.to_string(),
        })?;
        let mut put = Put::builder()
            .table_name(&self.table)
            .item("pk", AttributeValue::S(pk))
            .item("sk", AttributeValue::S(sk))
            .item("body", AttributeValue::S(body))
            .item(
                "expires_at",
                AttributeValue::N(expires_at.timestamp().to_string()),
            );
        for (name, number) in marks {
            put = put.item(name, AttributeValue::N(number.to_string()));
        }
        for (name, text) in columns {
            put = put.item(name, AttributeValue::S(text));
        }
        put = match condition {
            Condition::Always => put,
            Condition::Absent => put.condition_expression("attribute_not_exists(pk)"),
            Condition::NotAfter(name, number) => put
                .condition_expression("attribute_not_exists(pk) OR #m <= :m")
                .expression_attribute_names("#m", name)
                .expression_attribute_values(":m", AttributeValue::N(number.to_string())),
            Condition::Holds(name, number, None) => put
                .condition_expression("#m = :m")
                .expression_attribute_names("#m", name)
                .expression_attribute_values(":m", AttributeValue::N(number.to_string())),
            Condition::Holds(name, number, Some(status)) => put
                .condition_expression("#m = :m AND #s = :s")
                .expression_attribute_names("#m", name)
                .expression_attribute_names("#s", "status")
                .expression_attribute_values(":m", AttributeValue::N(number.to_string()))
                .expression_attribute_values(":s", AttributeValue::S(status.as_str().to_owned())),
        };
        let put = put
            .build()
            .map_err(|error| self.unbuildable("dynamodb:PutItem", &error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    fn delete(&self, pk: &str, sk: &str) -> Result<TransactWriteItem, LedgerError> {
        let delete = aws_sdk_dynamodb::types::Delete::builder()
            .table_name(&self.table)
            .key("pk", AttributeValue::S(pk.to_owned()))
            .key("sk", AttributeValue::S(sk.to_owned()))
            .build()
            .map_err(|error| self.unbuildable("dynamodb:DeleteItem", &error))?;
        Ok(TransactWriteItem::builder().delete(delete).build())
    }

    fn unbuildable(
        &self,
        operation: &'static str,
        error: &aws_sdk_dynamodb::error::BuildError,
    ) -> LedgerError {
        LedgerError::Call(AwsError {
            operation,
            subject: self.table.clone(),
            kind: crate::aws_error::Kind::Rejected,
            code: None,
            message: error.to_string(),
        })
    }

    async fn fenced(
        &self,
        permit: &Permit,
        writes: Vec<TransactWriteItem>,
    ) -> Result<(), LedgerError> {
        if writes.is_empty() || self.transact(writes, &permit.run_id).await? {
            Ok(())
        } else {
            Err(LedgerError::Fenced {
                resource: permit.resource.clone(),
                run_id: permit.run_id.clone(),
            })
        }
    }

    /// Whether the writes were made; `false` when a condition did not hold.
    async fn transact(
        &self,
        writes: Vec<TransactWriteItem>,
        seed: &str,
    ) -> Result<bool, LedgerError> {
        // Two transactions on one item at the same time cancel each other although both conditions hold.
        for attempt in 0_u32..6 {
            let answer = self
                .client
                .transact_write_items()
                .set_transact_items(Some(writes.clone()))
                .send()
                .await;
            let Err(error) = answer else { return Ok(true) };
            match cancellation(&error) {
                Some(Cancelled::ByCondition) => return Ok(false),
                Some(Cancelled::ByConflict) => {
                    tokio::time::sleep(crate::backoff::pause(attempt, seed)).await;
                }
                None => {
                    return Err(LedgerError::Call(AwsError::new(
                        "dynamodb:PutItem",
                        &self.table,
                        &error,
                    )));
                }
            }
        }
        Ok(false)
    }
}

enum Cancelled {
    ByCondition,
    ByConflict,
}

fn cancellation<R>(error: &SdkError<TransactWriteItemsError, R>) -> Option<Cancelled> {
    match error.as_service_error()? {
        TransactWriteItemsError::TransactionCanceledException(cancelled) => {
            let codes = || {
                cancelled
                    .cancellation_reasons()
                    .iter()
                    .filter_map(|reason| reason.code())
            };
            if codes().any(|code| code == "ConditionalCheckFailed") {
                Some(Cancelled::ByCondition)
            } else if codes().any(|code| code == "TransactionConflict") {
                Some(Cancelled::ByConflict)
            } else {
                None
            }
        }
        TransactWriteItemsError::TransactionInProgressException(_) => Some(Cancelled::ByConflict),
        _ => None,
    }
}

fn history_item<'a>(
    target: &str,
    remediation: &str,
    history: &'a History,
    now: DateTime<Utc>,
) -> Written<'a, History> {
    let before = (history.version > 1).then_some(history.version - 1);
    let sk = format!("history#{remediation}");
    Written::new(target, &sk, history, now + KEPT)
        .mark("version", history.version)
        .only_if("version", before)
}

/// An item on its way to the table.
struct Written<'a, T> {
    pk: String,
    sk: String,
    value: &'a T,
    expires_at: DateTime<Utc>,
    marks: Vec<(&'static str, u64)>,
    columns: Vec<(&'static str, String)>,
    condition: Condition,
}

/// What must hold for an item to be written.
enum Condition {
    Always,
    Absent,
    /// The item's number of this name is not greater than this, if the item is there at all.
    NotAfter(&'static str, u64),
    /// The item's number of this name is this, and, where given, so is its status.
    Holds(&'static str, u64, Option<Status>),
}

impl<'a, T> Written<'a, T> {
    fn new(pk: &str, sk: &str, value: &'a T, expires_at: DateTime<Utc>) -> Self {
        Self {
            pk: pk.to_owned(),
            sk: sk.to_owned(),
            value,
            expires_at,
            marks: Vec::new(),
            columns: Vec::new(),
            condition: Condition::Always,
        }
    }

    fn mark(mut self, name: &'static str, number: u64) -> Self {
        self.marks.push((name, number));
        self
    }

    fn column(mut self, name: &'static str, text: String) -> Self {
        self.columns.push((name, text));
        self
    }

    /// Writes only while `name` holds `number`, or, with `None`, while the item is not there.
    fn only_if(mut self, name: &'static str, number: Option<u64>) -> Self {
        self.condition = number.map_or(Condition::Absent, |number| {
            Condition::Holds(name, number, None)
        });
        self
    }

    /// Writes unless `name` holds a greater number already.
    fn unless_after(mut self, name: &'static str, number: u64) -> Self {
        self.condition = Condition::NotAfter(name, number);
        self
    }

    /// Writes only while the record is as it was read: the token alone would not tell a run that has
    /// just ended from one that died.
    fn only_if_record_is(mut self, seen: Option<&Record>) -> Self {
        self.condition = seen.map_or(Condition::Absent, |record| {
            Condition::Holds("token", record.token, Some(record.status))
        });
        self
    }
}

fn timeline<'a>(
    remediation: &str,
    target: &str,
    incident_id: &str,
    run_id: &str,
    order: u64,
    entry: &'a Entry,
    now: DateTime<Utc>,
) -> Written<'a, Value> {
    let at = now.to_rfc3339_opts(SecondsFormat::Millis, true);
    let sk = format!("at#{at}#{run_id}#{order:012}");
    Written::new(
        &format!("incident#{incident_id}"),
        &sk,
        &entry.detail,
        now + KEPT,
    )
    .column("at", at)
    .column("kind", entry.kind.to_owned())
    .column("summary", entry.summary.clone())
    .column("remediation", remediation.to_owned())
    .column("target", target.to_owned())
}

fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)
        .and_then(|value| value.as_s().ok())
        .map(String::as_str)
}

fn engaged(item: &Item, rule: Rule) -> Option<Engaged> {
    let released = matches!(item.get("engaged"), Some(AttributeValue::Bool(false)));
    (!released).then(|| Engaged {
        rule,
        reason: text(item, "reason").map(str::to_owned),
    })
}

fn body<T: DeserializeOwned>(item: Option<&Item>) -> Result<Option<T>, LedgerError> {
    let Some(item) = item else { return Ok(None) };
    let unreadable = |problem: String| LedgerError::Unreadable {
        key: format!(
            "{} {}",
            text(item, "pk").unwrap_or("?"),
            text(item, "sk").unwrap_or("?")
        ),
        problem,
    };
    let body = text(item, "body").ok_or_else(|| unreadable("it has no body".to_owned()))?;
    serde_json::from_str(body)
        .map(Some)
        .map_err(|error| unreadable(error.to_string()))
}

impl Permit {
    fn target_key(&self) -> String {
        format!("target#{}", self.resource)
    }

    fn lease(&self, held_until: DateTime<Utc>) -> Lease {
        Lease {
            token: self.token,
            run_id: self.run_id.clone(),
            held_until,
        }
    }

    fn record_item<'a>(&self, record: &'a Record, now: DateTime<Utc>) -> Written<'a, Record> {
        Written::new(&self.record_key, "record", record, now + RECORD_KEPT)
            .mark("token", self.token)
            .column("status", record.status.as_str().to_owned())
            .only_if("token", Some(self.token))
    }

    fn record(
        &self,
        status: Status,
        progress: Option<Value>,
        report: Option<Report>,
        claimed_until: DateTime<Utc>,
    ) -> Record {
        Record {
            status,
            request_id: self.request_id.clone(),
            token: self.token,
            run_id: self.run_id.clone(),
            round: self.round,
            attempt: self.attempt,
            started_at: self.started_at,
            claimed_until,
            incident_id: self.incident_id.clone(),
            plan: self.plan.clone(),
            progress,
            report,
        }
    }
}
