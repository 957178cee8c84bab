//! Turns the cache of a REST API's stage on for chosen methods, to take load off a backend that fails in part, and
//! puts the stage back as it was afterwards.
//!
//! The story of a run: [`aws`] observes the stage, its methods and what it served, [`plan`] decides whether caching
//! is safe and of use, [`aws`] sends the changes in one call, and [`plan::restoration`] says what is put back.

pub mod aws;
pub mod error;
pub mod plan;
pub mod policy;
pub mod template;

use aws_config::SdkConfig;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use shared::alarm::AlarmEvent;
use shared::guard::Permit;
use shared::remediation::{
    Done, End, Moment, Planned, Remediation, Reverted, Temporary, Verified, Work,
};

use crate::aws::Aws;
use crate::error::CacheError;
use crate::plan::{Observed, Plan, in_place};
use crate::policy::Cache;

/// The remediation's name.
pub const NAME: &str = "cache-fallback";

/// A cache cluster takes up to four minutes.
const CLUSTER_COMES_WITHIN: TimeDelta = TimeDelta::minutes(4);

/// The remediation.
#[derive(Debug)]
pub struct CacheFallback {
    aws: Aws,
}

impl CacheFallback {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            aws: Aws::new(config),
        }
    }
}

impl Remediation for CacheFallback {
    const NAME: &'static str = NAME;
    type Action = Cache;
    type Observed = Observed;
    type Plan = Plan;
    type Error = CacheError;

    fn temporary(action: &Cache) -> Option<Temporary> {
        Some(action.term.temporary())
    }

    async fn observe(
        &self,
        action: &Cache,
        _event: Option<&AlarmEvent>,
        now: DateTime<Utc>,
    ) -> Result<Observed, CacheError> {
        Box::pin(self.aws.observe(action, now)).await
    }

    fn plan(observed: &Observed, action: &Cache, moment: &Moment<'_>) -> Planned<Plan> {
        plan::plan(observed, action, moment)
    }

    async fn apply(
        &self,
        permit: &Permit,
        plan: &Plan,
        _action: &Cache,
        work: &Work<'_>,
    ) -> Result<Done, CacheError> {
        let now = work.clock.now();
        if let Some(too_late) = work.too_late(permit, "turn the cache on") {
            return Ok(too_late);
        }
        // The patches say what shall be, so that sending them again changes nothing.
        self.aws
            .patch(&plan.rest_api, &plan.stage, &plan.patches)
            .await?;
        let methods = plan::named(&plan.put.methods);
        let end = End::Settling {
            reason: "the cache cluster is being made".to_owned(),
            check_again_at: now + CLUSTER_COMES_WITHIN,
        };
        Ok(Done {
            evidence: json!({"cached": plan.put.methods, "cluster_gb": plan.put.cluster, "why": plan.why}),
            notes: vec![format!(
                "the cache cluster of {} GB costs by the hour until it is taken away",
                plan.put.cluster
            )],
            ..Done::new(end, format!("caching was turned on for {methods}"))
        })
    }

    async fn verify(&self, plan: &Plan, _done: &Done) -> Result<Verified, CacheError> {
        let stage = self.aws.stage(&plan.rest_api, &plan.stage).await?;
        let there = in_place(&stage, &plan.put);
        let summary = match (there, stage.available) {
            (true, true) => format!("read back, cached: {}", plan::named(&plan.put.methods)),
            (true, false) => "read back: the cache cluster does not serve yet".to_owned(),
            (false, _) => "read back: the stage is not as it was put".to_owned(),
        };
        Ok(Verified {
            holds: there && stage.available,
            summary,
        })
    }

    async fn revert(
        &self,
        _permit: &Permit,
        snapshot: &Value,
        action: &Cache,
        _work: &Work<'_>,
    ) -> Result<Reverted, CacheError> {
        let Some(snapshot) = plan::snapshot(snapshot) else {
            return Err(CacheError::Unreadable {
                stage: action.stage.to_string(),
            });
        };
        let stage = self.aws.stage(action.rest_api(), action.name()).await?;
        let restoration = plan::restoration(&stage, &snapshot);
        if !restoration.patches.is_empty() {
            self.aws
                .patch(action.rest_api(), action.name(), &restoration.patches)
                .await?;
        }
        let restored = match restoration.patches.len() {
            0 => "the stage was as before already".to_owned(),
            changes => format!("the stage is as before, by {changes} changes"),
        };
        let left = if restoration.left_alone.is_empty() {
            String::new()
        } else {
            format!("; left alone: {}", restoration.left_alone.join(", "))
        };
        Ok(Reverted {
            summary: format!("{restored}{left}"),
            evidence: json!({
                "changes": restoration.patches,
                "left_alone": restoration.left_alone,
            }),
        })
    }
}
