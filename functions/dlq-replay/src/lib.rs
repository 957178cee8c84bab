//! Replays a dead-letter queue: every message goes back to where it came from, to the quarantine, or stays.
//!
//! The story of a run: [`aws`] observes the queues, [`plan`] decides, [`replay`] carries the plan out
//! under the guard's permit, message by message as [`message`] judges them, as fast as [`pace`] allows,
//! and [`account`] shows that nothing was lost.

pub mod account;
pub mod aws;
pub mod error;
pub mod message;
pub mod pace;
pub mod plan;
pub mod policy;
pub mod replay;

use aws_config::SdkConfig;
use chrono::{DateTime, Utc};
use serde_json::Value;
use shared::alarm::AlarmEvent;
use shared::clock::Clock;
use shared::guard::Permit;
use shared::remediation::{Done, Moment, Planned, Remediation, Reverted, Verified, Work};

use crate::account::Account;
use crate::aws::Aws;
use crate::error::ReplayError;
use crate::plan::{Observed, Plan};
use crate::policy::Replay;

/// The remediation's name.
pub const NAME: &str = "dlq-replay";

/// The remediation.
#[derive(Debug)]
pub struct DlqReplay {
    aws: Aws,
    clock: Clock,
}

impl DlqReplay {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            aws: Aws::new(config),
            clock: Clock::system(),
        }
    }
}

impl Remediation for DlqReplay {
    const NAME: &'static str = NAME;
    type Action = Replay;
    type Observed = Observed;
    type Plan = Plan;
    type Error = ReplayError;

    fn max_rounds(action: &Replay) -> u32 {
        action.limits.max_rounds.get()
    }

    async fn observe(
        &self,
        action: &Replay,
        _event: Option<&AlarmEvent>,
        now: DateTime<Utc>,
    ) -> Result<Observed, ReplayError> {
        self.aws.observe(action, now).await
    }

    fn plan(observed: &Observed, action: &Replay, moment: &Moment<'_>) -> Planned<Plan> {
        plan::plan(observed, action, moment.resuming)
    }

    async fn rehearse(&self, plan: &Plan, action: &Replay) -> Result<Vec<String>, ReplayError> {
        let schema = action.body_schema.as_ref();
        replay::rehearse(
            &self.aws,
            plan,
            schema,
            action.dry_run_sample,
            self.clock.now(),
        )
        .await
    }

    async fn apply(
        &self,
        permit: &Permit,
        plan: &Plan,
        action: &Replay,
        work: &Work<'_>,
    ) -> Result<Done, ReplayError> {
        let round = replay::Round::new(&self.aws, plan, action.body_schema.as_ref(), permit, work)?;
        Ok(round.run().await)
    }

    async fn verify(&self, plan: &Plan, done: &Done) -> Result<Verified, ReplayError> {
        let left = self.aws.queue(&plan.source).await?;
        let account: Option<Account> = done
            .evidence
            .get("account")
            .and_then(|account| serde_json::from_value(account.clone()).ok());
        Ok(Verified {
            holds: account.is_some_and(|account| account.balance().is_ok()),
            summary: format!(
                "read back: {} messages visible in the dead-letter queue, {} in flight",
                left.visible, left.in_flight
            ),
        })
    }

    /// A replay leaves nothing in place that could be taken back: no plan of it carries a snapshot.
    async fn revert(
        &self,
        _permit: &Permit,
        _snapshot: &Value,
        _action: &Replay,
        _work: &Work<'_>,
    ) -> Result<Reverted, ReplayError> {
        Ok(Reverted {
            summary: "replayed messages are not taken back".to_owned(),
            evidence: Value::Null,
        })
    }

    async fn carry_on(&self, function_arn: &str, payload: &Value) -> Result<(), ReplayError> {
        let payload = serde_json::to_string(payload).map_err(ReplayError::Continuation)?;
        self.aws
            .invoke_surely(function_arn, payload)
            .await
            .map_err(ReplayError::Aws)
    }
}
