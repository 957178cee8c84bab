//! What can keep a rollback from its work.

use shared::aws_error::AwsError;
use shared::ledger::LedgerError;
use shared::remediation::{Failure, OutOfTime};
use thiserror::Error;

/// An error of a rollback.
#[derive(Debug, Error)]
pub enum RollbackError {
    /// An AWS call failed.
    #[error("{0}")]
    Aws(AwsError),
    /// `CloudWatch` answered with a part of the figures.
    #[error("cloudwatch:GetMetricData gave only a part of what {alias} served; ask again")]
    Partial {
        /// The alias.
        alias: String,
    },
    /// Progress could not be saved, so that nothing was changed.
    #[error("{0}")]
    Ledger(LedgerError),
    /// A call was not made, because the time was up.
    #[error(transparent)]
    OutOfTime(#[from] OutOfTime),
}

impl Failure for RollbackError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Aws(error) => error.is_transient(),
            Self::Ledger(error) => error.is_transient(),
            Self::Partial { .. } | Self::OutOfTime(_) => true,
        }
    }

    fn is_conflict(&self) -> bool {
        matches!(self, Self::Aws(error) if error.is_conflict())
    }
}
