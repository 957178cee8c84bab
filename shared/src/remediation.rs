//! What a remediation is: observe, plan, apply, verify, revert, always in this order and under the guard's permit.

use std::error::Error as StdError;
use std::future::Future;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::clock::Clock;
use crate::guard::{OpenBreaker, Permit};
use crate::ledger::{Entry, Ledger, LedgerError};
use crate::outcome::Rule;
use crate::policy;
use crate::telemetry::Metric;

/// An error that knows whether another attempt can succeed.
pub trait Failure: StdError + Send + Sync + 'static {
    /// Whether another attempt can succeed without anyone changing anything.
    fn is_transient(&self) -> bool;
}

/// When and how a plan is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Now.
    pub now: DateTime<Utc>,
    /// Whether an earlier round or attempt of the same run has already begun the work.
    pub resuming: bool,
}

/// A plan, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Planned<P> {
    /// Carry this out.
    Act {
        /// The plan, complete: `apply` makes no choice of its own.
        plan: P,
        /// The state to go back to, for what is temporary.
        snapshot: Option<Value>,
    },
    /// There is nothing to do.
    Nothing {
        /// Why, in one sentence.
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

/// One remediation.
pub trait Remediation: Send + Sync + 'static {
    /// Its name: kebab-case, the same for folder, package, binary and events.
    const NAME: &'static str;
    /// Its part of the policy.
    type Action: policy::Action;
    /// What it observes.
    type Observed: Send + Sync;
    /// Its plan.
    type Plan: Serialize + Send + Sync;
    /// Its errors.
    type Error: Failure;

    /// How many rounds a run may take.
    fn max_rounds(action: &Self::Action) -> u32;

    /// Reads the target. Changes nothing.
    fn observe(
        &self,
        action: &Self::Action,
    ) -> impl Future<Output = Result<Self::Observed, Self::Error>> + Send;

    /// Decides. Pure.
    fn plan(
        observed: &Self::Observed,
        action: &Self::Action,
        moment: Moment,
    ) -> Planned<Self::Plan>;

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

    /// Asks for the next round by invoking the function again, asynchronously, with `payload`.
    fn carry_on(
        &self,
        function_arn: &str,
        payload: &Value,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
