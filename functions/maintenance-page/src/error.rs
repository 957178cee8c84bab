//! What can keep the page from going up or coming down.

use shared::aws_error::AwsError;
use shared::remediation::{Failure, OutOfTime};
use thiserror::Error;

/// An error of the maintenance page.
#[derive(Debug, Error)]
pub enum PageError {
    /// An AWS call failed.
    #[error("{0}")]
    Aws(AwsError),
    /// The URL gave no answer.
    #[error("{url} does not answer: {why}")]
    Unreachable {
        /// The URL.
        url: String,
        /// What happened.
        why: String,
    },
    /// What is in front of the service changed since it was looked at, and was left as it is.
    #[error("{subject} was changed by another hand while the page was to be changed")]
    Contended {
        /// The key-value store or mapping.
        subject: String,
    },
    /// What is to be put back says nothing of where the domain led.
    #[error(
        "the ledger does not say where {subject} led before the page; map it to the service by hand, and delete the ledger's snapshot"
    )]
    NoWayBack {
        /// The mapping.
        subject: String,
    },
    /// A call was not made, because the time was up.
    #[error(transparent)]
    OutOfTime(#[from] OutOfTime),
}

impl Failure for PageError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Aws(error) => error.is_transient(),
            Self::Unreachable { .. } | Self::Contended { .. } | Self::OutOfTime(_) => true,
            Self::NoWayBack { .. } => false,
        }
    }

    fn is_conflict(&self) -> bool {
        match self {
            Self::Aws(error) => error.is_conflict(),
            Self::Contended { .. } => true,
            Self::Unreachable { .. } | Self::NoWayBack { .. } | Self::OutOfTime(_) => false,
        }
    }
}
