//! Turns the cache of a REST API's stage on for chosen methods, or lowers the limits on their requests, to take load off
//! a backend that fails in part, and puts the stage back as it was afterwards.
//!
//! The story of a run: [`aws`] observes the stage, [`export`] reads the methods that it serves, [`plan`] decides
//! whether caching is safe and of use, [`aws`] sends the changes in as many calls as it takes, and
//! [`plan::restoration`] says what is put back.

pub mod aws;
pub mod error;
pub mod export;
pub mod method;
pub mod plan;
pub mod policy;
pub mod template;
pub mod throttle;

use std::collections::BTreeMap;

use aws_config::SdkConfig;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use shared::alarm::AlarmEvent;
use shared::policy::Temporary;
use shared::remediation::{
    Done, End, Moment, Never, OneRound, PlannedBy, Remediation, Reversal, Reverted, Unlearning,
    Verified, Work,
};

use crate::aws::Aws;
use crate::error::CacheError;
use crate::plan::{Observed, Patch, Plan, Put, Snapshot, Status, in_place};
use crate::policy::Cache;
use crate::throttle::Lowered;

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

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Evidence {
    /// Caching was turned on.
    Cached {
        /// The methods, by [`plan::key`].
        cached: Vec<String>,
        /// The size of the cache cluster.
        cluster_gb: String,
        /// Why.
        why: String,
    },
    /// Limits were lowered.
    Throttled {
        /// The settings, by [`plan::key`].
        throttled: BTreeMap<String, Lowered>,
        /// Why, and why nothing is cached.
        why: String,
    },
    /// The stage was put back.
    PutBack {
        /// The changes.
        changes: Vec<Patch>,
        /// What was left alone because someone changed it meanwhile.
        left_alone: Vec<String>,
    },
}

impl Remediation for CacheFallback {
    const NAME: &'static str = NAME;
    type Action = Cache;
    type Observed = Observed;
    type Plan = Plan;
    type Evidence = Evidence;
    type Memory = Never;
    type Reversal = Self;
    type Learning = Unlearning;
    type Rounds = OneRound;
    type Error = CacheError;

    async fn observe(
        &self,
        action: &Cache,
        _event: Option<&AlarmEvent>,
        now: DateTime<Utc>,
    ) -> Result<Observed, CacheError> {
        Box::pin(self.aws.observe(action, now)).await
    }

    fn plan(observed: &Observed, action: &Cache, moment: &Moment<'_, Self>) -> PlannedBy<Self> {
        plan::plan(observed, action, moment)
    }

    async fn apply(
        &self,
        plan: &Plan,
        _action: &Cache,
        work: &Work<'_, Self>,
    ) -> Result<Done<Self>, CacheError> {
        // The patches say what shall be, so that sending them again changes nothing.
        for patches in plan::calls(&plan.patches) {
            let clearance = work.clear("change the stage")?;
            self.aws
                .patch(&plan.rest_api, &plan.stage, patches, clearance)
                .await?;
        }
        let put = match &plan.put {
            Put::Cache(put) => put,
            Put::Throttle(put) => {
                let evidence = Evidence::Throttled {
                    throttled: put.lowered.clone(),
                    why: plan.why.clone(),
                };
                return Ok(Done {
                    evidence: Some(evidence),
                    ..Done::new(End::Finished, plan.put.told())
                });
            }
        };
        let end = End::Settling {
            reason: "the cache cluster is being made".to_owned(),
            check_again_at: work.now() + CLUSTER_COMES_WITHIN,
        };
        let methods = plan::named(&put.methods);
        Ok(Done {
            evidence: Some(Evidence::Cached {
                cached: put.methods.clone(),
                cluster_gb: put.cluster.clone(),
                why: plan.why.clone(),
            }),
            notes: vec![format!(
                "the cache cluster of {} GB costs by the hour until it is taken away",
                put.cluster
            )],
            ..Done::new(end, format!("caching was turned on for {methods}"))
        })
    }

    async fn verify(
        &self,
        plan: &Plan,
        _evidence: Option<&Evidence>,
    ) -> Result<Verified, CacheError> {
        let stage = self.aws.stage(&plan.rest_api, &plan.stage).await?;
        let there = in_place(&stage, &plan.put);
        let serves = matches!(plan.put, Put::Throttle(_)) || stage.status == Status::Available;
        let summary = match (there, serves) {
            (true, true) => format!("read back, {}", plan.put.told()),
            (true, false) => "read back: the cache cluster does not serve yet".to_owned(),
            (false, _) => "read back: the stage is not as it was put".to_owned(),
        };
        Ok(Verified {
            holds: there && serves,
            summary,
        })
    }
}

impl Reversal<Self> for CacheFallback {
    type Snapshot = Snapshot;

    fn term(action: &Cache) -> Option<Temporary> {
        Some(action.term.temporary())
    }

    async fn not_yet(
        remediation: &Self,
        snapshot: &Snapshot,
        action: &Cache,
        now: DateTime<Utc>,
    ) -> Result<Option<String>, CacheError> {
        let (stage, served) = remediation.aws.fares(action, now).await?;
        Ok(plan::not_yet(&stage, snapshot, served, action))
    }

    async fn revert(
        remediation: &Self,
        snapshot: &Snapshot,
        action: &Cache,
        work: &Work<'_, Self>,
    ) -> Result<Reverted<Evidence>, CacheError> {
        let aws = &remediation.aws;
        let stage = aws.stage(action.rest_api(), action.name()).await?;
        let restoration = plan::restoration(&stage, snapshot);
        if !restoration.patches.is_empty() {
            if let Some(what) = stage.status.underway() {
                let stage = action.stage.to_string();
                return Err(CacheError::Busy { stage, what });
            }
            for patches in plan::calls(&restoration.patches) {
                let clearance = work.clear("put the stage back")?;
                aws.patch(action.rest_api(), action.name(), patches, clearance)
                    .await?;
            }
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
            evidence: Some(Evidence::PutBack {
                changes: restoration.patches,
                left_alone: restoration.left_alone,
            }),
        })
    }

    async fn reverted(
        remediation: &Self,
        snapshot: &Snapshot,
        action: &Cache,
    ) -> Result<Verified, CacheError> {
        let aws = &remediation.aws;
        let stage = aws.stage(action.rest_api(), action.name()).await?;
        let left = plan::restoration(&stage, snapshot).patches.len();
        let summary = match left {
            0 => "read back: nothing of the fallback is left".to_owned(),
            left => format!("read back: {left} changes to the stage are still to be taken back"),
        };
        Ok(Verified {
            holds: left == 0,
            summary,
        })
    }
}
