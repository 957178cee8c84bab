//! A target, its alarms and its runs, for the tests of what the ledger holds after each step.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::alarm::{AlarmEvent, AlarmKind, Path, State};
use crate::guard::next::{self, End, Intent, Purpose, Refused};
use crate::guard::question::Grounds;
use crate::ledger::items::{self, Facts, Place, Settling, Snapshot, Status};
use crate::outcome::{Outcome, Report, Rule};
use crate::policy::Limits;

pub(crate) const RESOURCE: &str = "arn:aws:sqs:eu-west-1:123456789012:orders-dlq";

pub(crate) fn at(second: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(second)
}

pub(crate) fn arn(alarm: &str) -> String {
    format!("arn:aws:cloudwatch:eu-west-1:123456789012:alarm:{alarm}")
}

/// The alarm's change to a state at a second.
pub(crate) fn event(alarm: &str, state: State, second: i64) -> AlarmEvent {
    AlarmEvent {
        alarm_name: alarm.to_owned(),
        alarm_arn: arn(alarm),
        account: "123456789012".to_owned(),
        region: "eu-west-1".to_owned(),
        state,
        reason: None,
        reason_data: None,
        changed_at: at(second),
        previous_state: None,
        suppressed_by: None,
        kind: AlarmKind::Unknown,
        path: Path::EventBridge,
        event_id: None,
        description: None,
        dry_run: false,
        approvals: Vec::new(),
    }
}

pub(crate) fn place<'a>(event: &'a AlarmEvent, request_id: &'a str) -> Place<'a> {
    Place {
        remediation: "dlq-replay",
        target: "orders",
        resource: RESOURCE,
        event,
        transition: items::transition(event),
        request_id,
    }
}

pub(crate) fn grounds() -> Grounds {
    Grounds::first(at(0))
}

pub(crate) fn snapshot(event: &AlarmEvent, second: i64) -> Snapshot {
    Snapshot {
        run_id: "run-1".to_owned(),
        incident_id: "inc-1".to_owned(),
        event: event.clone(),
        taken_at: at(second),
        expires_at: Some(at(second + 3_600)),
        in_place_since: None,
        ends_by_itself_at: None,
        forewarned: None,
        cut_short: None,
        state: json!({"page": false}),
    }
}

/// What a claim is made with, besides its place.
pub(crate) struct Claiming<'a> {
    pub(crate) grounds: Grounds,
    pub(crate) limits: Limits,
    pub(crate) snapshot: Option<&'a Snapshot>,
    pub(crate) reverts: bool,
}

impl Default for Claiming<'_> {
    fn default() -> Self {
        Self {
            grounds: grounds(),
            limits: Limits::default(),
            snapshot: None,
            reverts: false,
        }
    }
}

/// The facts after a claim that may last for a minute.
pub(crate) fn claimed(
    facts: &Facts,
    place: &Place<'_>,
    claiming: &Claiming<'_>,
    second: i64,
) -> Facts {
    let intent = Intent {
        place,
        grounds: &claiming.grounds,
        limits: &claiming.limits,
        policy: &json!({"name": "orders"}),
        plan: &json!({"to": 3}),
        snapshot: claiming.snapshot,
        incident_id: &next::incident_of(facts, place, claiming.reverts),
        purpose: if claiming.reverts {
            Purpose::TakesBack
        } else {
            Purpose::Acts
        },
        held_until: at(second + 60),
    };
    next::claimed(facts, &intent, at(second))
}

pub(crate) fn report(outcome: Outcome) -> Report {
    Report::new("dlq-replay", "orders", RESOURCE, outcome)
}

pub(crate) fn applied() -> Report {
    report(Outcome::Applied {
        summary: "done".to_owned(),
    })
}

pub(crate) fn skipped(rule: Rule) -> Report {
    report(Outcome::Skipped {
        rule,
        reason: "it cannot be".to_owned(),
    })
}

/// The end of a round that says nothing but its status.
pub(crate) fn end(status: Status, report: &Report) -> End<'_> {
    End::of(status, report)
}

pub(crate) fn settling(place: &Place<'_>, second: i64) -> Settling {
    Settling {
        run_id: place.run_id(),
        transition: place.transition.clone(),
        event: place.event.clone(),
        since: at(second),
        plan: json!({"to": 3}),
    }
}

/// A refusal for good.
pub(crate) fn lasting(report: &Report) -> Refused<'_> {
    Refused {
        report: Some(report),
        tells: true,
        ..Refused::default()
    }
}

/// A refusal that time alone can lift.
pub(crate) fn passing(report: &Report, rule: Rule, look_at: i64) -> Refused<'_> {
    Refused {
        waits: Some((rule, at(look_at))),
        ..lasting(report)
    }
}

pub(crate) fn memory(count: u32) -> Value {
    json!({ "seen": count })
}
