//! Replays a dead-letter queue: every message goes back to where it came from, to the quarantine, or stays.
//!
//! The story of a run: [`aws`] observes the queues, [`plan`] decides, [`replay`] carries the plan out
//! under the guard's permit, message by message as [`envelope`] opens and [`judge`] judges them, as fast as [`pace`]
//! allows, and [`account`] shows that nothing was lost.

pub mod account;
pub mod aws;
pub mod consumer;
pub mod envelope;
pub mod error;
pub mod judge;
pub mod message;
pub mod object;
pub mod pace;
pub mod plan;
pub mod policy;
pub mod replay;
#[cfg(test)]
mod sample;

use aws_config::SdkConfig;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::alarm::AlarmEvent;
use shared::remediation::{
    Done, Lasting, Moment, PlannedBy, Remediation, Rounds, Unlearning, Verified, Work,
};

use crate::account::Account;
use crate::aws::Aws;
use crate::error::ReplayError;
use crate::plan::{Observed, Plan};
use crate::policy::Replay;
use crate::replay::{Groups, Memory, Progress};

/// The remediation's name.
pub const NAME: &str = "dlq-replay";

/// The remediation.
#[derive(Debug)]
pub struct DlqReplay {
    aws: Aws,
}

impl DlqReplay {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            aws: Aws::new(config),
        }
    }
}

/// What a replay did so far, over all its rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// Where the messages went.
    pub account: Account,
    /// Why the messages had failed, and whom they were for.
    pub groups: Groups,
    /// When the round ended.
    pub ended_at: DateTime<Utc>,
}

impl Remediation for DlqReplay {
    const NAME: &'static str = NAME;
    /// A replay is best made when the consumer is well again.
    const OUTLASTS_ALARM: bool = true;
    const MOMENTARY: &'static [&'static str] = &["expected", "retention_seconds", "routes.backlog"];
    type Action = Replay;
    type Observed = Observed;
    type Plan = Plan;
    type Evidence = Evidence;
    type Memory = Memory;
    /// Replayed messages are not taken back.
    type Reversal = Lasting;
    type Learning = Unlearning;
    type Rounds = Self;
    type Error = ReplayError;

    /// What was quarantined was found unfit: a human says when it is fit.
    fn needs_approval(action: &Replay) -> bool {
        action.release.is_some()
    }

    async fn observe(
        &self,
        action: &Replay,
        _event: Option<&AlarmEvent>,
        now: DateTime<Utc>,
    ) -> Result<Observed, ReplayError> {
        self.aws.observe(action, now).await
    }

    fn plan(observed: &Observed, action: &Replay, moment: &Moment<'_, Self>) -> PlannedBy<Self> {
        plan::plan(observed, action, moment)
    }

    async fn rehearse(
        &self,
        plan: &Plan,
        action: &Replay,
        now: DateTime<Utc>,
    ) -> Result<Vec<String>, ReplayError> {
        let schema = action.body_schema.as_ref();
        replay::rehearse(&self.aws, plan, schema, action.dry_run_sample, now).await
    }

    async fn apply(
        &self,
        plan: &Plan,
        action: &Replay,
        work: &Work<'_, Self>,
    ) -> Result<Done<Self>, ReplayError> {
        let round = replay::Round::new(&self.aws, plan, action.body_schema.as_ref(), work)?;
        Ok(round.run().await)
    }

    /// What an attempt that died has delivered shows nowhere, so that without an account nothing holds.
    async fn verify(
        &self,
        plan: &Plan,
        evidence: Option<&Evidence>,
    ) -> Result<Verified, ReplayError> {
        let left = self.aws.queue(&plan.source).await?;
        Ok(Verified {
            holds: evidence.is_some_and(|evidence| evidence.account.balance().is_ok()),
            summary: format!(
                "read back: {} messages visible in the dead-letter queue, {} in flight",
                left.visible, left.in_flight
            ),
        })
    }
}

impl Rounds<Self> for DlqReplay {
    type Progress = Progress;

    fn at_most(action: &Replay) -> u32 {
        action.limits.max_rounds.get()
    }

    fn remembered(
        progress: Option<&Progress>,
        memory: Option<&Memory>,
        now: DateTime<Utc>,
    ) -> Option<Memory> {
        let progress = progress.cloned().unwrap_or_default();
        Some(progress.remembered(memory, now))
    }

    async fn carry_on(
        remediation: &Self,
        _progress: &Progress,
        function_arn: &str,
        payload: &Value,
    ) -> Result<(), ReplayError> {
        let payload = serde_json::to_string(payload).map_err(ReplayError::Continuation)?;
        remediation
            .aws
            .invoke_surely(function_arn, payload)
            .await
            .map_err(ReplayError::Aws)
    }
}
