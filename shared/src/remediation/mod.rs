//! What a remediation is: observe, plan, apply, verify, revert, always in this order and under the guard's permit.
//!
//! What a remediation can do is a type of its own, and so is what it cannot: [`Lasting`] has nothing to take back,
//! [`Unlearning`] learns nothing between incidents, [`OneRound`] ends with its invocation. Their snapshots and
//! progress are [`Never`], of which no value exists, so that nothing of the kind can be written by mistake.

mod work;

use std::error::Error as StdError;
use std::future::Future;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::alarm::AlarmEvent;
use crate::ledger::LedgerError;
use crate::ledger::items::OpenBreaker;
use crate::ledger::timeline::Entry;
use crate::outcome::Rule;
use crate::policy::{self, Temporary};
use crate::telemetry::Metric;

pub use work::{Clearance, Work};

/// An error that knows whether another attempt can succeed.
pub trait Failure: StdError + From<OutOfTime> + Send + Sync + 'static {
    /// Whether another attempt can succeed without anyone changing anything.
    fn is_transient(&self) -> bool;

    /// Whether the service refused because another change was being made, and nothing was changed: a new look and a
    /// new plan may succeed within the run.
    fn is_conflict(&self) -> bool {
        false
    }
}

/// A call that was not made, because the lease or the time was over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no time was left to {to_do} in; nothing was changed by it")]
pub struct OutOfTime {
    /// What was to be done.
    pub to_do: &'static str,
}

/// What never exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Never {}

/// What a remediation remembers of a target.
pub type MemoryOf<R> = <R as Remediation>::Memory;
/// The state that a remediation goes back to.
pub type SnapshotOf<R> = <<R as Remediation>::Reversal as Reversal<R>>::Snapshot;
/// What a round leaves for the next.
pub type ProgressOf<R> = <<R as Remediation>::Rounds as Rounds<R>>::Progress;

/// When a plan is made, and what the ledger knows besides what was observed.
pub struct Moment<'a, R: Remediation> {
    /// Now.
    pub now: DateTime<Utc>,
    /// Whether an earlier round or attempt of the same run has already begun the work.
    pub resuming: bool,
    /// The event that asks for the plan.
    pub event: &'a AlarmEvent,
    /// The incident that the run belongs to.
    pub incident_id: &'a str,
    /// What earlier runs of this remediation on this target left to remember.
    pub memory: Option<&'a MemoryOf<R>>,
    /// The plan that an earlier round or attempt has begun to carry out. Where the target already is as that
    /// plan leaves it, giving the same plan again lets the run conclude what it did.
    pub begun: Option<&'a R::Plan>,
    /// What earlier rounds or attempts saved.
    pub progress: Option<&'a ProgressOf<R>>,
    /// The plan that this attempt had made, where another hand changed the target before it was carried out.
    pub overtaken: Option<&'a R::Plan>,
    /// What the remediation has in place on the target, and the state to go back to.
    pub in_place: Option<&'a InPlace<SnapshotOf<R>>>,
    /// Whether the alarm, read again, is not in ALARM any more: what was begun is ended, and nothing new begun for it.
    pub recovered: bool,
}

/// What a remediation has put in place and not taken back.
#[derive(Debug, Clone, PartialEq)]
pub struct InPlace<S> {
    /// The run that put it there.
    pub run_id: String,
    /// The incident.
    pub incident_id: String,
    /// When the state before was taken.
    pub taken_at: DateTime<Utc>,
    /// When it ends, unless it is renewed.
    pub expires_at: Option<DateTime<Utc>>,
    /// The state to go back to.
    pub snapshot: S,
}

/// A plan, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Planned<P, S> {
    /// Carry this out.
    Act {
        /// The plan, complete: `apply` makes no choice of its own.
        plan: P,
        /// The state to go back to, for what is temporary, with what the plan puts in its place, so that a
        /// later restoration can tell the plan's own changes from a human's. Kept from the first plan on: a
        /// target that is mitigated already never replaces it.
        snapshot: Option<S>,
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
    /// It is too early to tell. The schedule plans anew at its next looks, while the alarm stays in ALARM.
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

/// A plan of a remediation, or why there is none.
pub type PlannedBy<R> = Planned<<R as Remediation>::Plan, SnapshotOf<R>>;

/// A value as the ledger keeps it.
pub(crate) fn value<T: Serialize>(what: &str, value: &T) -> Result<serde_json::Value, LedgerError> {
    serde_json::to_value(value).map_err(|error| LedgerError::Unwritable {
        what: what.to_owned(),
        problem: error.to_string(),
    })
}

/// How the work of a round ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End<P> {
    /// It is done.
    Finished,
    /// There is more to do than this round had time for. The next one starts from this progress.
    Unfinished(P),
    /// There is more to do, and now is not the time for it. The schedule begins the next round.
    Resting {
        /// What it waits for, in one sentence.
        reason: String,
        /// When to go on.
        until: DateTime<Utc>,
        /// What the next round starts from.
        progress: P,
    },
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
        /// What the next attempt starts from.
        progress: Option<P>,
    },
}

/// What a round did.
pub struct Done<R: Remediation> {
    /// How it ended.
    pub end: End<ProgressOf<R>>,
    /// What was done, in one sentence.
    pub summary: String,
    /// What was done, counted.
    pub evidence: Option<R::Evidence>,
    /// What later runs on the target should remember.
    pub memory: Option<MemoryOf<R>>,
    /// A breaker that the work found reason to open.
    pub breaker: Option<OpenBreaker>,
    /// Lines for the timeline, besides those that the runtime writes.
    pub entries: Vec<Entry>,
    /// What a reader should know besides.
    pub notes: Vec<String>,
    /// Numbers to be counted.
    pub metrics: Vec<Metric>,
}

impl<R: Remediation> Done<R> {
    /// A round that ended so, with nothing else to tell.
    #[must_use]
    pub fn new(end: End<ProgressOf<R>>, summary: impl Into<String>) -> Self {
        Self {
            end,
            summary: summary.into(),
            evidence: None,
            memory: None,
            breaker: None,
            entries: Vec::new(),
            notes: Vec::new(),
            metrics: Vec::new(),
        }
    }
}

/// What was read back after the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whether the world is as it was meant to be.
    pub holds: bool,
    /// What was found, in one sentence.
    pub summary: String,
}

/// How a restoration ended.
#[derive(Debug, Clone)]
pub struct Reverted<E> {
    /// What was restored, and what was left alone because someone changed it since, in one sentence.
    pub summary: String,
    /// What was done, counted.
    pub evidence: Option<E>,
}

/// What a look at the target taught.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson<M> {
    /// What later runs on the target should remember, in the place of what was remembered before.
    pub memory: M,
    /// What is new, in one sentence.
    pub summary: String,
}

/// One remediation.
///
/// The runtime walks along it: `observe`, `plan`, then, under a permit that it alone can get, `apply`; `verify` reads
/// the world back. Any step can die, and any can be asked for again by another attempt:
///
/// - `observe` and `verify` change nothing.
/// - `apply` asks [`Work::clear`] before each call that changes something, and is right when it is begun anew after
///   it died at any point.
/// - `plan` makes no choice that `apply` would have to know.
pub trait Remediation: Sized + Send + Sync + 'static {
    /// Its name: kebab-case, the same for folder, package, binary and events.
    const NAME: &'static str;
    /// Fields of its plan, as paths of names joined by dots, that only say at which moment the target was seen. What differs
    /// in them alone is the plan that a human has approved, or that an attempt has begun.
    const MOMENTARY: &'static [&'static str] = &[];
    /// Whether what an alarm asked for is still to be done once the alarm is back at OK, such as bringing back what
    /// failed meanwhile. The schedule does then what was begun, or refused for a reason that passes, for as long as it
    /// takes up what waits.
    const OUTLASTS_ALARM: bool = false;
    /// Whether a run that has saved progress is carried on whatever becomes of its alarm, since what it did so far must not
    /// be left half done; where the policy lets it do no more, it ends `Escalated`.
    const ENDS_WHAT_IT_BEGAN: bool = false;
    /// Its part of the policy.
    type Action: policy::Action;
    /// What it observes. Kept with each decision.
    type Observed: Serialize + Send + Sync;
    /// Its plan.
    type Plan: Serialize + DeserializeOwned + Send + Sync;
    /// What it counts of its work.
    type Evidence: Serialize + Send + Sync;
    /// What it remembers of a target from one run to the next; [`Never`] where it remembers nothing.
    type Memory: Serialize + DeserializeOwned + Send + Sync;
    /// How it takes back what it put in place: itself, or [`Lasting`].
    type Reversal: Reversal<Self>;
    /// How it learns while nothing happens: itself, or [`Unlearning`].
    type Learning: Learning<Self>;
    /// How it carries on beyond one invocation: itself, or [`OneRound`].
    type Rounds: Rounds<Self>;
    /// Its errors.
    type Error: Failure;

    /// Whether the policy wants a human to approve the plan before it is carried out.
    fn needs_approval(action: &Self::Action) -> bool {
        let _ = action;
        false
    }

    /// Reads the target. Changes nothing. `event` is absent when the schedule asks, which leads to
    /// [`Learning::learn`] only.
    fn observe(
        &self,
        action: &Self::Action,
        event: Option<&AlarmEvent>,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Self::Observed, Self::Error>> + Send;

    /// Reads besides what only the memory names, before it is planned for an alarm. Changes nothing.
    fn observe_remembered(
        &self,
        observed: Self::Observed,
        action: &Self::Action,
        memory: Option<&Self::Memory>,
    ) -> impl Future<Output = Result<Self::Observed, Self::Error>> + Send {
        let _ = (action, memory);
        async { Ok(observed) }
    }

    /// Decides. Pure.
    fn plan(
        observed: &Self::Observed,
        action: &Self::Action,
        moment: &Moment<'_, Self>,
    ) -> PlannedBy<Self>;

    /// What a dry run can find out besides the plan; leaves everything as it was.
    fn rehearse(
        &self,
        plan: &Self::Plan,
        action: &Self::Action,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Vec<String>, Self::Error>> + Send {
        let _ = (plan, action, now);
        async { Ok(Vec::new()) }
    }

    /// Carries the plan out.
    fn apply(
        &self,
        plan: &Self::Plan,
        action: &Self::Action,
        work: &Work<'_, Self>,
    ) -> impl Future<Output = Result<Done<Self>, Self::Error>> + Send;

    /// What is left to do once a target that took its time is as the plan leaves it, such as to try it. Asked once.
    fn settled(
        &self,
        plan: &Self::Plan,
        action: &Self::Action,
        work: &Work<'_, Self>,
    ) -> impl Future<Output = End<ProgressOf<Self>>> + Send {
        let _ = (plan, action, work);
        async { End::Finished }
    }

    /// Reads the target again. `evidence` is that of the work, where this attempt did it; without it, whether an
    /// earlier attempt, which died, has carried the plan out.
    fn verify(
        &self,
        plan: &Self::Plan,
        evidence: Option<&Self::Evidence>,
    ) -> impl Future<Output = Result<Verified, Self::Error>> + Send;
}

/// Taking back what a remediation put in place.
pub trait Reversal<R: Remediation>: 'static {
    /// The state to go back to.
    type Snapshot: Serialize + DeserializeOwned + Clone + Send + Sync;

    /// How long what `apply` puts in place stays; `None` for what stays until the alarm is back at OK.
    fn term(action: &R::Action) -> Option<Temporary>;

    /// Whether what `apply` puts in place ends by itself, after the longest term that the policy gave it then: a policy
    /// that gives more by now does not keep it longer.
    #[must_use]
    fn ends_by_itself(action: &R::Action) -> bool {
        let _ = action;
        false
    }

    /// Why what is in place should stay for now although its alarms have been at OK for long enough, such as that the
    /// alarm cannot see what it hides; `None` for no reason. Asked before it is begun to take it back, and again at each
    /// look of the schedule. It never stays beyond the most that its term allows, nor where the policy names the target
    /// no more. An error that passes counts as a reason, another as none.
    fn not_yet(
        remediation: &R,
        snapshot: &Self::Snapshot,
        action: &R::Action,
        now: DateTime<Utc>,
    ) -> impl Future<Output = Result<Option<String>, R::Error>> + Send {
        let _ = (remediation, snapshot, action, now);
        async { Ok(None) }
    }

    /// Whether what is in place follows an edit of the policy while it stays, by [`Reversal::update`].
    const FOLLOWS_ITS_POLICY: bool = false;

    /// Brings what is in place from what the policy had `before` to what it has `now`, such as the words of a page; says in
    /// one sentence that it is as the policy has it now, or `None` where the edit changes nothing of it, or another hand has.
    /// Right when it is begun anew after it died at any point.
    fn update(
        remediation: &R,
        in_place: &InPlace<Self::Snapshot>,
        (before, now): (&R::Action, &R::Action),
        work: &Work<'_, R>,
    ) -> impl Future<Output = Result<Option<String>, R::Error>> + Send {
        let _ = (remediation, in_place, before, now, work);
        async { Ok(None) }
    }

    /// Restores what `snapshot` holds, leaving alone what someone changed since. Right when it is begun anew after
    /// it died at any point.
    fn revert(
        remediation: &R,
        snapshot: &Self::Snapshot,
        action: &R::Action,
        work: &Work<'_, R>,
    ) -> impl Future<Output = Result<Reverted<R::Evidence>, R::Error>> + Send;

    /// Why a human has to look although nothing is left to take back, such as that someone else holds it by now. The
    /// run then ends `Escalated`, never `Applied`, and the snapshot goes.
    fn handed_over(reverted: &Reverted<R::Evidence>) -> Option<String> {
        let _ = reverted;
        None
    }

    /// Reads the target again: whether nothing of what was put in place is left. The snapshot is kept until then.
    fn reverted(
        remediation: &R,
        snapshot: &Self::Snapshot,
        action: &R::Action,
    ) -> impl Future<Output = Result<Verified, R::Error>> + Send;
}

/// What a remediation does stays.
#[derive(Debug, Clone, Copy)]
pub enum Lasting {}

impl<R: Remediation> Reversal<R> for Lasting {
    type Snapshot = Never;

    fn term(_action: &R::Action) -> Option<Temporary> {
        None
    }

    async fn revert(
        _remediation: &R,
        snapshot: &Never,
        _action: &R::Action,
        _work: &Work<'_, R>,
    ) -> Result<Reverted<R::Evidence>, R::Error> {
        match *snapshot {}
    }

    async fn reverted(
        _remediation: &R,
        snapshot: &Never,
        _action: &R::Action,
    ) -> Result<Verified, R::Error> {
        match *snapshot {}
    }
}

/// Learning from looks at the target while nothing happens.
pub trait Learning<R: Remediation>: 'static {
    /// Whether there is anything to learn; where not, targets are not observed for it.
    #[must_use]
    fn observes() -> bool {
        true
    }

    /// Learns from a look at the target on the schedule and when the alarm is back to OK. Pure; `None` when
    /// there is nothing new to remember.
    fn learn(
        observed: &R::Observed,
        action: &R::Action,
        memory: Option<&MemoryOf<R>>,
        now: DateTime<Utc>,
    ) -> Option<Lesson<MemoryOf<R>>>;
}

/// A remediation learns nothing between incidents.
#[derive(Debug, Clone, Copy)]
pub enum Unlearning {}

impl<R: Remediation> Learning<R> for Unlearning {
    fn observes() -> bool {
        false
    }

    fn learn(
        _observed: &R::Observed,
        _action: &R::Action,
        _memory: Option<&MemoryOf<R>>,
        _now: DateTime<Utc>,
    ) -> Option<Lesson<MemoryOf<R>>> {
        None
    }
}

/// Carrying on beyond one invocation.
pub trait Rounds<R: Remediation>: 'static {
    /// What a round leaves for the next.
    type Progress: Serialize + DeserializeOwned + Send + Sync;

    /// How many rounds a run may take in a row; the schedule begins the next row.
    fn at_most(action: &R::Action) -> u32;

    /// What later runs have to remember of a run that ends without another word, from what it had saved, if it had
    /// saved anything.
    fn remembered(
        progress: Option<&Self::Progress>,
        memory: Option<&MemoryOf<R>>,
        now: DateTime<Utc>,
    ) -> Option<MemoryOf<R>>;

    /// Asks for the round that starts from `progress` by invoking the function again, asynchronously, with `payload`.
    fn carry_on(
        remediation: &R,
        progress: &Self::Progress,
        function_arn: &str,
        payload: &serde_json::Value,
    ) -> impl Future<Output = Result<(), R::Error>> + Send;
}

/// A remediation ends with its invocation.
#[derive(Debug, Clone, Copy)]
pub enum OneRound {}

impl<R: Remediation> Rounds<R> for OneRound {
    type Progress = Never;

    fn at_most(_action: &R::Action) -> u32 {
        1
    }

    fn remembered(
        _progress: Option<&Never>,
        _memory: Option<&MemoryOf<R>>,
        _now: DateTime<Utc>,
    ) -> Option<MemoryOf<R>> {
        None
    }

    async fn carry_on(
        _remediation: &R,
        progress: &Never,
        _function_arn: &str,
        _payload: &serde_json::Value,
    ) -> Result<(), R::Error> {
        match *progress {}
    }
}
