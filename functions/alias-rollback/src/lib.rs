//! Takes the traffic away from a bad version of a Lambda function: off the canary, back to the newest version that
//! was seen to serve well, or by stopping the deployment that brings it.
//!
//! The story of a run: [`aws`] observes the alias, its versions and what each of them served, [`plan`] decides who is
//! to blame and where to go, [`aws`] moves the alias under the revision that was observed, and [`memory`] keeps which
//! versions are good, which are bad, and what was rolled back.

pub mod aws;
pub mod error;
pub mod memory;
pub mod plan;
pub mod policy;

use aws_config::SdkConfig;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use shared::alarm::AlarmEvent;
use shared::guard::Permit;
use shared::ledger::Entry;
use shared::outcome::Rule;
use shared::remediation::{
    Done, End, Lesson, Moment, Planned, Remediation, Reverted, Verified, Work,
};

use crate::aws::{Aws, Moved};
use crate::error::RollbackError;
use crate::memory::{Memory, RolledBack};
use crate::plan::{Observed, Plan, Step};
use crate::policy::Rollback;

/// The remediation's name.
pub const NAME: &str = "alias-rollback";

/// `CodeDeploy` takes about as long to shift the traffic back.
const DEPLOYMENT_STOPS_WITHIN: TimeDelta = TimeDelta::minutes(1);

/// The remediation.
#[derive(Debug)]
pub struct AliasRollback {
    aws: Aws,
}

impl AliasRollback {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            aws: Aws::new(config),
        }
    }
}

impl Remediation for AliasRollback {
    const NAME: &'static str = NAME;
    const LEARNS: bool = true;
    const CONCLUDES: bool = true;
    type Action = Rollback;
    type Observed = Observed;
    type Plan = Plan;
    type Error = RollbackError;

    async fn observe(
        &self,
        action: &Rollback,
        _event: Option<&AlarmEvent>,
        now: DateTime<Utc>,
    ) -> Result<Observed, RollbackError> {
        Box::pin(self.aws.observe(action, now)).await
    }

    fn plan(observed: &Observed, action: &Rollback, moment: &Moment<'_>) -> Planned<Plan> {
        plan::plan(observed, action, moment)
    }

    fn learn(
        observed: &Observed,
        action: &Rollback,
        memory: Option<&Value>,
        now: DateTime<Utc>,
    ) -> Option<Lesson> {
        memory::learn(observed, action, memory, now)
    }

    async fn apply(
        &self,
        permit: &Permit,
        plan: &Plan,
        action: &Rollback,
        work: &Work<'_>,
    ) -> Result<Done, RollbackError> {
        let now = work.clock.now();
        if let Some(too_late) = work.too_late(permit, "move the alias") {
            return Ok(too_late);
        }
        let (end, summary) = match &plan.step {
            Step::Point { to, revision_id } => {
                match self.aws.point(action, *to, revision_id).await? {
                    Moved::There => {
                        let summary = format!("{} points to version {to} alone", action.alias);
                        (self.smoke_test(action, *to).await, summary)
                    }
                    Moved::Overtaken => {
                        let reason = format!("{} was changed by another hand", action.alias);
                        return Ok(Done::new(End::Overtaken { reason }, "nothing was changed"));
                    }
                }
            }
            Step::StopDeployment { deployment, .. } => {
                if let Some(status) = self.aws.stop(deployment).await? {
                    let reason = format!("deployment {deployment} has ended: {status}");
                    return Ok(Done::new(End::Overtaken { reason }, "nothing was changed"));
                }
                let end = End::Settling {
                    reason: format!("{deployment} takes its time to roll back"),
                    check_again_at: now + DEPLOYMENT_STOPS_WITHIN,
                };
                (
                    end,
                    format!("deployment {deployment} was told to stop and to roll back"),
                )
            }
        };
        let memory = Memory::read(permit.memory()).with(RolledBack {
            incident_id: permit.incident_id().to_owned(),
            from: plan.from,
            to: plan.to(),
            at: now,
        });
        Ok(Done {
            evidence: json!({"from": plan.from, "to": plan.to(), "why": plan.why}),
            memory: Some(json!(memory)),
            entries: vec![Entry {
                kind: "blamed",
                summary: plan.why.clone(),
                detail: Value::Null,
            }],
            notes: vec![plan.drift.clone()],
            ..Done::new(end, summary)
        })
    }

    async fn verify(&self, plan: &Plan, _done: &Done) -> Result<Verified, RollbackError> {
        let alias = self.aws.alias(&plan.function, &plan.alias).await?;
        let weights = if alias.weights.is_empty() {
            "no other version has a weight".to_owned()
        } else {
            format!("weights are {:?}", alias.weights)
        };
        Ok(Verified {
            holds: alias.points_alone_to(plan.to()),
            summary: format!("read back: version {}, {weights}", alias.version),
        })
    }

    /// A rollback is never rolled forward: no plan of it carries a snapshot.
    async fn revert(
        &self,
        _permit: &Permit,
        _snapshot: &Value,
        _action: &Rollback,
        _work: &Work<'_>,
    ) -> Result<Reverted, RollbackError> {
        Ok(Reverted {
            summary: "a rollback is not rolled forward; deploy a mended version".to_owned(),
            evidence: Value::Null,
        })
    }
}

impl AliasRollback {
    /// The end of a rollback: what the alias, read back, answers now.
    async fn smoke_test(&self, action: &Rollback, to: u64) -> End {
        let Some(test) = &action.smoke_test else {
            return End::Finished;
        };
        match self.aws.alias(action.function(), action.name()).await {
            Ok(alias) if alias.points_alone_to(to) => {}
            // What is not as it was put is told by the verification, and trying it would prove nothing.
            Ok(_) => return End::Finished,
            Err(error) => {
                return End::Escalated {
                    rule: Rule::Unsafe,
                    reason: format!("the alias was moved, and could not be read back: {error}"),
                };
            }
        }
        match self.aws.smoke_test(action, &test.payload).await {
            Ok(None) => End::Finished,
            Ok(Some(error)) => End::Escalated {
                rule: Rule::Unsafe,
                reason: format!(
                    "{} was rolled back, and its smoke test still fails: {error}",
                    action.alias
                ),
            },
            Err(error) => End::Escalated {
                rule: Rule::Unsafe,
                reason: format!("the rollback stands, and could not be tried: {error}"),
            },
        }
    }
}
