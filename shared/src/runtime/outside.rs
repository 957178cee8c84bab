//! What a run asks of AWS besides the ledger and the target: the policy, the alarms' states, the event bus.

use std::fmt::Debug;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::aws_error::AwsError;
use crate::guard::LiveAlarm;
use crate::guard::effect::Told;
use crate::policy::PolicyError;

/// The most alarms that one call names (Amazon `CloudWatch` API Reference, "`DescribeAlarms`").
pub const ALARMS: usize = 100;

/// A policy document as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyText {
    /// The document.
    pub text: String,
    /// Raised with each change.
    pub version: i64,
}

/// An alarm as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The alarm's ARN.
    pub arn: String,
    /// How it is.
    pub live: LiveAlarm,
}

/// An outcome on its way to the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeEvent {
    /// The ARNs of the alarm and the target.
    pub resources: Vec<String>,
    /// The report, as JSON.
    pub detail: String,
}

/// The outside. Two implementations exist: AWS and the world of the simulation.
#[async_trait]
pub trait Outside: Debug + Send + Sync {
    /// Reads a policy document.
    async fn policy(&self, parameter: &str) -> Result<PolicyText, PolicyError>;

    /// Reads the alarms of a region, at most [`ALARMS`] of them, by name. Those that do not exist are not in the
    /// answer.
    async fn alarms(&self, region: &str, names: &[String]) -> Result<Vec<Described>, AwsError>;

    /// Reads how the metric of an alarm of a region went, from before `since` until now.
    async fn course(
        &self,
        region: &str,
        name: &str,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Told, AwsError>;

    /// Puts outcomes on the bus.
    async fn publish(&self, bus: &str, outcomes: &[OutcomeEvent]) -> Result<(), AwsError>;
}
