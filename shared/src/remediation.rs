//! What a remediation is: observe, plan, apply, verify, revert, always in this order and under the guard's permit.

use std::error::Error as StdError;
use std::future::{self, Future};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::alarm::AlarmEvent;
use crate::clock::Clock;
use crate::guard::{OpenBreaker, Permit, Snapshot};
use crate::ledger::{Entry, Ledger, LedgerError};
use crate::outcome::Rule;
use crate::policy;
use crate::telemetry::Metric;

/// An error that knows whether another attempt can succeed.
pub trait Failure: StdError + Send + Sync + 'static {
    /// Whether another attempt can succeed without anyone changing anything.
    fn is_transient(&self) -> bool;
}

/// When a plan is made, and what the ledger knows besides what was observed.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Now.
    pub now: DateTime<Utc>,
    /// Whether an earlier round or attempt of the same run has already begun the work.
    pub resuming: bool,
    /// The event that asks for the plan.
    pub event: &'a AlarmEvent,
    /// The incident that the run belongs to.
    pub incident_id: &'a str,
    /// What earlier runs of this remediation on this target left to remember.
    pub memory: Option<&'a Value>,
    /// The plan that an earlier round or attempt has begun to carry out. Where the target already is as that
    /// plan leaves it, giving the same plan again lets the run conclude what it did.
    pub begun: Option<&'a Value>,
    /// The plan that this attempt had made, where another hand changed the target before it was carried out.
    pub overtaken: Option<&'a Value>,
    /// What the remediation has in place on the target, and the state to go back to.
    pub snapshot: Option<&'a Snapshot>,
}

impl Moment<'_> {
    /// The plan in `begun`, as far as this release reads it.
    #[must_use]
    pub fn begun_plan<P: DeserializeOwned>(&self) -> Option<P> {
        read(self.begun)
    }

    /// The plan in `overtaken`.
    #[must_use]
    pub fn overtaken_plan<P: DeserializeOwned>(&self) -> Option<P> {
        read(self.overtaken)
    }
}

fn read<P: DeserializeOwned>(plan: Option<&Value>) -> Option<P> {
    serde_json::from_value(plan?.clone()).ok()
}

/// A plan, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Planned<P> {
    /// Carry this out.
    Act {
        /// The plan, complete: `apply` makes no choice of its own.
        plan: P,
        /// The state to go back to, for what is temporary, with what the plan puts in its place, so that a
        /// later restoration can tell the plan's own changes from a human's. Kept from the first plan on: a
        /// target that is mitigated already never replaces it.
        snapshot: Option<Value>,
    },
    /// The target is already as a plan would leave it. What this remediation put there itself is kept longer.
    InPlace {
        /// What was found, in one sentence.
        reason: String,
    },
    /// There is nothing to do.
    Nothing {
        /// Why, in one sentence.
        reason: String,
    },
    /// It is too early to tell. The schedule plans anew at its next looks, while the alarm stays in ALARM and
    /// its change is not stale; only for a remediation that has a schedule.
    Undecided {
        /// What is not known yet, in one sentence.
        reason: String,
    },
    /// A human has to decide.
    Escalate {
        /// The rule that decided.
        rule: Rule,
        /// Why, in one sentence.
        reason: String,
    },
}

/// What a run works with.
#[derive(Debug)]
pub struct Work<'a> {
    /// The time.
    pub clock: &'a Clock,
    /// When the work has to be over: Lambda's deadline, less what the report needs.
    pub deadline: DateTime<Utc>,
    /// The ledger, for progress and for what the remediation counts.
    pub ledger: &'a Ledger,
}

impl Work<'_> {
    /// The end of a round that has no time left `to_do` anything; `None` while there is some.
    #[must_use]
    pub fn too_late(&self, permit: &Permit, to_do: &str) -> Option<Done> {
        if self.clock.now() < self.deadline.min(permit.held_until()) {
            return None;
        }
        let end = End::Failed {
            error: format!("no time was left to {to_do} in"),
            retryable: true,
        };
        Some(Done::new(end, "nothing was changed"))
    }

    /// Saves progress under the permit.
    pub async fn checkpoint(&self, permit: &Permit, progress: &Value) -> Result<(), LedgerError> {
        self.ledger
            .checkpoint(permit, progress, self.clock.now())
            .await
    }
}

/// How the work of a round ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// It is done.
    Finished,
    /// There is more to do than this round had time for.
    Unfinished,
    /// All calls were made, and the target takes its time. `verify` tells when it is done.
    Settling {
        /// What is still to come, in one sentence.
        reason: String,
        /// When to look again.
        check_again_at: DateTime<Utc>,
    },
    /// The target is not as it was observed, and nothing was changed: observe and plan anew.
    Overtaken {
        /// What had changed, in one sentence.
        reason: String,
    },
    /// There is nothing to do after all, and nothing was changed.
    Nothing {
        /// Why, in one sentence.
        reason: String,
    },
    /// It stopped itself.
    Escalated {
        /// The rule that decided.
        rule: Rule,
        /// Why, in one sentence.
        reason: String,
    },
    /// It failed on the way; what was done is in the evidence.
    Failed {
        /// What failed and the remedy.
        error: String,
        /// Whether another attempt can succeed without anyone changing anything.
        retryable: bool,
    },
}

/// What a round did.
#[derive(Debug, Clone)]
pub struct Done {
    /// How it ended.
    pub end: End,
    /// What was done, in one sentence.
    pub summary: String,
    /// What was done, counted.
    pub evidence: Value,
    /// What the next round or attempt starts from.
    pub progress: Option<Value>,
    /// What later runs on the target should remember.
    pub memory: Option<Value>,
    /// A breaker that the work found reason to open.
    pub breaker: Option<OpenBreaker>,
    /// Lines for the timeline, besides those that the runtime writes.
    pub entries: Vec<Entry>,
    /// What a reader should know besides.
    pub notes: Vec<String>,
    /// Numbers to be counted.
    pub metrics: Vec<Metric>,
}

impl Done {
    /// A round that ended so, with nothing else to tell.
    #[must_use]
    pub fn new(end: End, summary: impl Into<String>) -> Self {
        Self {
            end,
            summary: summary.into(),
            evidence: Value::Null,
            progress: None,
            memory: None,
            breaker: None,
            entries: Vec::new(),
            notes: Vec::new(),
            metrics: Vec::new(),
        }
    }
}

/// What was read back after the work.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Whether the world is as the plan meant it to be.
    pub holds: bool,
    /// What was found, in one sentence.
    pub summary: String,
}

/// How a restoration ended.
#[derive(Debug, Clone)]
pub struct Reverted {
    /// What was restored, and what was left alone because someone changed it since, in one sentence.
    pub summary: String,
    /// What was done, counted.
    pub evidence: Value,
}

/// How long something temporary stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Temporary {
    /// How long the alarm has to be back at OK before the target is restored.
    pub stabilisation: TimeDelta,
    /// How long it stays without a sign that the alarm is still in ALARM.
    pub expires_after: TimeDelta,
    /// How long it stays at most, whatever the alarm says.
    pub at_most: TimeDelta,
}

/// What a look at the target taught.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// What later runs on the target should remember, in the place of what was remembered before.
    pub memory: Value,
    /// What is new, in one sentence.
    pub summary: String,
}

/// One remediation.
pub trait Remediation: Send + Sync + 'static {
    /// Its name: kebab-case, the same for folder, package, binary and events.
    const NAME: &'static str;
    /// Whether [`Remediation::learn`] has anything to learn; without it, targets are not observed for it.
    const LEARNS: bool = false;
    /// Whether [`Remediation::verify`] tells that an attempt which died had carried its plan out. If so, a retry
    /// concludes it even when nothing may be begun any more, as after the alarm's return to OK.
    const CONCLUDES: bool = false;
    /// Its part of the policy.
    type Action: policy::Action;
    /// What it observes.
    type Observed: Send + Sync;
    /// Its plan.
    type Plan: Serialize + DeserializeOwned + Send + Sync;
    /// Its errors.
    type Error: Failure;

    /// How many rounds a run may take. With more than one, [`Remediation::carry_on`] asks for the next.
    fn max_rounds(action: &Self::Action) -> u32 {
        let _ = action;
        1
    }

    /// How long what `apply` puts in place stays; `None` for what is not taken back.
    fn temporary(action: &Self::Action) -> Option<Temporary> {
        let _ = action;
        None
    }

    /// Whether a human has to approve the plan before it is carried out.
    fn needs_approval(action: &Self::Action) -> bool {
        let _ = action;
        false
    }

    /// Reads the target. Changes nothing. `event` is absent when the schedule asks, which leads to
    /// [`Remediation::learn`] only.
    fn observe(
        &self,
        action: &Self::Action,
        event: Option<&AlarmEvent>,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Self::Observed, Self::Error>> + Send;

    /// Decides. Pure.
    fn plan(
        observed: &Self::Observed,
        action: &Self::Action,
        moment: &Moment<'_>,
    ) -> Planned<Self::Plan>;

    /// Learns from a look at the target on the schedule and when the alarm is back to OK. Pure; `None` when
    /// there is nothing new to remember.
    fn learn(
        observed: &Self::Observed,
        action: &Self::Action,
        memory: Option<&Value>,
        now: DateTime<Utc>,
    ) -> Option<Lesson> {
        let _ = (observed, action, memory, now);
        None
    }

    /// What a dry run can find out besides the plan; leaves everything as it was.
    fn rehearse(
        &self,
        plan: &Self::Plan,
        action: &Self::Action,
    ) -> impl Future<Output = Result<Vec<String>, Self::Error>> + Send {
        let _ = (plan, action);
        async { Ok(Vec::new()) }
    }

    /// Carries the plan out.
    fn apply(
        &self,
        permit: &Permit,
        plan: &Self::Plan,
        action: &Self::Action,
        work: &Work<'_>,
    ) -> impl Future<Output = Result<Done, Self::Error>> + Send;

    /// Reads the target again.
    fn verify(
        &self,
        plan: &Self::Plan,
        done: &Done,
    ) -> impl Future<Output = Result<Verified, Self::Error>> + Send;

    /// Restores what `snapshot` holds, leaving alone what someone changed since.
    fn revert(
        &self,
        permit: &Permit,
        snapshot: &Value,
        action: &Self::Action,
        work: &Work<'_>,
    ) -> impl Future<Output = Result<Reverted, Self::Error>> + Send;

    /// Asks for the next round by invoking the function again, asynchronously, with `payload`. Never called
    /// while `max_rounds` is 1.
    fn carry_on(
        &self,
        function_arn: &str,
        payload: &Value,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = (function_arn, payload);
        future::ready(Ok(()))
    }
}
