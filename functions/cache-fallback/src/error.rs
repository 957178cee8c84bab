//! What can keep the cache from being turned on or off.

use shared::aws_error::AwsError;
use shared::remediation::Failure;
use thiserror::Error;

/// An error of a fallback to caching.
#[derive(Debug, Error)]
pub enum CacheError {
    /// An AWS call failed.
    #[error("{0}")]
    Aws(AwsError),
    /// The cache cluster is between two states, and takes no change.
    #[error("the cache cluster of {stage} is {status}; look again when that is over")]
    Busy {
        /// The stage.
        stage: String,
        /// The cluster's status.
        status: String,
    },
    /// `CloudWatch` gave a part of the numbers only.
    #[error(
        "cloudwatch:GetMetricData on {stage} answered in part only ({part}); it is safe to try again later"
    )]
    Partial {
        /// The stage.
        stage: String,
        /// Which part is missing, in `CloudWatch`'s words.
        part: String,
    },
    /// The ledger's snapshot was written by another release.
    #[error(
        "what is to be put back on {stage} is not in a form that this release reads; restore the stage by hand from the ledger's snapshot, and delete it"
    )]
    Unreadable {
        /// The stage.
        stage: String,
    },
}

impl Failure for CacheError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Aws(error) => error.is_transient(),
            Self::Busy { .. } | Self::Partial { .. } => true,
            Self::Unreadable { .. } => false,
        }
    }
}
