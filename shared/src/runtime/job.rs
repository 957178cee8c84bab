//! One run on one target: what it is asked, what it may come to, and what is told of it.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::guard::{Grounds, Occasion};
use crate::ledger::items::{Facts, Place, Snapshot};
use crate::ledger::store::Key;
use crate::outcome::{Outcome, Report};
use crate::policy::{Loaded, Target, Temporary};
use crate::remediation::{Remediation, Reversal as _, SnapshotOf};
use crate::runtime::invocation::Invocation;
use crate::telemetry::Metric;

/// What is kept of Lambda's time for the report.
pub(super) const RESERVE: TimeDelta = TimeDelta::seconds(5);
/// Targets that are worked on side by side.
pub(super) const SIDE_BY_SIDE: usize = 8;
/// A target that is begun has at least this long.
pub(super) const LEAST: TimeDelta = TimeDelta::seconds(10);
/// How long after Lambda's deadline a worker is taken to be dead, whichever clock is ahead.
const GRACE: TimeDelta = TimeDelta::seconds(10);

/// What carries a run on: in its next round, or in a playbook's next call for one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Continuation {
    /// The target's name in the policy.
    pub(super) target: String,
    /// The round that is asked for; none where the target is looked at again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) round: Option<u32>,
    /// The event that began it all.
    pub(super) trigger: Value,
}

/// One run on one target.
#[allow(clippy::struct_field_names)] // A dry run is called a dry run everywhere.
pub(super) struct Run<'a, R: Remediation> {
    pub(super) place: Place<'a>,
    pub(super) target: &'a Target<R::Action>,
    /// The ARNs of the target's alarms.
    pub(super) alarms: Vec<String>,
    pub(super) invocation: &'a Invocation,
    pub(super) trigger: Value,
    pub(super) occasion: Occasion,
    /// Whether the policy names the target.
    pub(super) listed: bool,
    pub(super) round: Option<u32>,
    pub(super) dry_run: bool,
    pub(super) began: DateTime<Utc>,
}

/// The end of a run, or the news that the policy changed before anything was done.
pub(super) enum Ran<A> {
    Reported(Box<Told>),
    /// There was nothing to do and nothing new to say.
    Left,
    PolicyChanged(Arc<Loaded<A>>),
}

/// A report on its way to the outside.
pub(super) struct Told {
    pub(super) report: Report,
    pub(super) metrics: Vec<Metric>,
    /// Where the ledger keeps the report until it is told.
    pub(super) untold: Option<Key>,
}

impl Told {
    pub(super) fn new(report: Report) -> Self {
        Self {
            report,
            metrics: Vec::new(),
            untold: None,
        }
    }
}

/// What a run needs to act, once the guard and the plan agree.
pub(super) struct Agreed<R: Remediation> {
    pub(super) facts: Facts,
    pub(super) grounds: Grounds,
    pub(super) observed: Value,
    pub(super) plan: R::Plan,
    pub(super) plan_value: Value,
    pub(super) snapshot: Option<SnapshotOf<R>>,
    pub(super) approved_by: Option<String>,
}

impl<R: Remediation> Run<'_, R> {
    /// The last moment at which this invocation may be alive.
    pub(super) fn held_until(&self) -> DateTime<Utc> {
        self.invocation.deadline + GRACE
    }

    /// Whether the policy lets the event's alarm act on the target.
    pub(super) fn may_act(&self) -> bool {
        self.occasion != Occasion::Due
            || (self.listed && self.alarms.contains(&self.place.event.alarm_arn))
    }

    pub(super) fn temporary(&self) -> Option<Temporary> {
        R::Reversal::term(&self.target.action)
    }

    pub(super) fn report(&self, outcome: Outcome) -> Report {
        let place = &self.place;
        Report {
            causation_id: Some(place.run_id()),
            transition: Some(place.transition.clone()),
            ..Report::new(R::NAME, place.target, place.resource, outcome)
        }
    }

    pub(super) fn failed(&self, error: &dyn std::fmt::Display, retryable: bool) -> Box<Told> {
        Box::new(Told::new(self.report(Outcome::failed(error, retryable))))
    }

    /// The input with which a playbook asks again, for this target alone.
    pub(super) fn continuation(&self, round: Option<u32>) -> Value {
        let continuation = Continuation {
            target: self.target.name.clone(),
            round,
            trigger: self.trigger.clone(),
        };
        serde_json::json!({ "continuation": continuation })
    }

    /// Whether a playbook waits for the answer, and carries on by itself.
    pub(super) fn is_a_step(&self) -> bool {
        let step = matches!(self.place.event.path, crate::alarm::Path::Playbook { .. });
        step && self.occasion == Occasion::Delivered
    }
}

/// What was decided about a target.
pub(super) enum Decided<R: Remediation> {
    Act(Box<Agreed<R>>),
    Settle(Box<(Facts, Grounds)>),
    /// What is in place is taken back, with the ARNs of the target's alarms that are in ALARM all the same.
    Restore(Box<(Facts, Grounds, Vec<String>)>),
    /// What is in place falls due with this event.
    TakeBack(Box<Snapshot>),
    Over(Box<Told>),
    Left,
    Again,
    PolicyChanged(Arc<Loaded<R::Action>>),
}
