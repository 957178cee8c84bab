//! What can keep a replay from its work.

use shared::aws_error::AwsError;
use shared::ledger::LedgerError;
use shared::remediation::{Failure, OutOfTime};
use thiserror::Error;

/// An error of a replay.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// An AWS call failed.
    #[error("{0}")]
    Aws(AwsError),
    /// The ledger did not answer as it should.
    #[error("{0}")]
    Ledger(LedgerError),
    /// A queue's attributes do not say what SQS always says.
    #[error("sqs:GetQueueAttributes on {queue} gave {name} as {value:?}, which is no number")]
    Attribute {
        /// The queue.
        queue: String,
        /// The attribute.
        name: &'static str,
        /// What it held.
        value: Option<String>,
    },
    /// `CloudWatch` gave a part of a consumer's numbers, from which nothing follows.
    #[error(
        "cloudwatch:GetMetricData of {function} gave only a part of its numbers ({part}); it is safe to try again later"
    )]
    Partial {
        /// The consumer.
        function: String,
        /// What was incomplete.
        part: String,
    },
    /// The policy's schema does not compile, although it did when the policy was read.
    #[error("body_schema is no JSON Schema: {0}")]
    Schema(String),
    /// The continuation cannot be written as JSON.
    #[error("the next round's input cannot be written: {0}")]
    Continuation(serde_json::Error),
    /// A call was not made, because the time was up.
    #[error(transparent)]
    OutOfTime(#[from] OutOfTime),
}

impl Failure for ReplayError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Aws(error) => error.is_transient(),
            Self::Ledger(error) => error.is_transient(),
            Self::Attribute { .. } | Self::Partial { .. } | Self::OutOfTime(_) => true,
            Self::Schema(_) | Self::Continuation(_) => false,
        }
    }

    fn is_conflict(&self) -> bool {
        matches!(self, Self::Aws(error) if error.is_conflict())
    }
}
