//! What can keep the page from going up or coming down.

use shared::aws_error::AwsError;
use shared::remediation::Failure;
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
    /// What is in front of the service changed at every attempt.
    #[error("{subject} was changed by another hand at every attempt to take the page down")]
    Contended {
        /// The key-value store or mapping.
        subject: String,
    },
    /// The ledger's snapshot was written by another release.
    #[error(
        "what is to be put back for {subject} is not in a form that this release reads; take the page down by hand, and delete the ledger's snapshot"
    )]
    Unreadable {
        /// The key-value store or mapping.
        subject: String,
    },
}

impl Failure for PageError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Aws(error) => error.is_transient(),
            Self::Unreachable { .. } | Self::Contended { .. } => true,
            Self::Unreadable { .. } => false,
        }
    }
}
