//! What can keep a rollback from its work.

use shared::aws_error::AwsError;
use shared::remediation::Failure;
use thiserror::Error;

/// An error of a rollback.
#[derive(Debug, Error)]
pub enum RollbackError {
    /// An AWS call failed.
    #[error("{0}")]
    Aws(AwsError),
    /// Provisioned concurrency is being allocated, and moves the alias's weights by itself until it is.
    #[error(
        "provisioned concurrency of {alias} is being allocated, which moves the alias's weights by itself; look again when that is over"
    )]
    Allocating {
        /// The alias.
        alias: String,
    },
    /// `CloudWatch` answered with a part of the figures.
    #[error("cloudwatch:GetMetricData gave only a part of what {alias} served; ask again")]
    Partial {
        /// The alias.
        alias: String,
    },
}

impl Failure for RollbackError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Aws(error) => error.is_transient(),
            Self::Allocating { .. } | Self::Partial { .. } => true,
        }
    }
}
