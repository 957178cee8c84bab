//! A ledger that did not answer as it should; the run stops where it is.

use thiserror::Error;

use crate::aws_error::AwsError;

/// A ledger that did not answer as it should; the run stops where it is.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// A call failed.
    #[error("{0}")]
    Call(AwsError),
    /// An item holds something else than this release writes.
    #[error(
        "ledger item {key} cannot be read: {problem}; it was written by another release or by hand"
    )]
    Unreadable {
        /// The item's `pk` and `sk`.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value has no form that the table could hold.
    #[error("{what} cannot be written to the ledger: {problem}")]
    Unwritable {
        /// What was to be written.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The table did not answer for every item, so that what is missing may be the one that forbids.
    #[error(
        "table {table} left {missing} items unread; nothing is done while one of them may forbid it"
    )]
    Incomplete {
        /// The table.
        table: String,
        /// How many items.
        missing: usize,
    },
    /// Others wrote the same items at every attempt.
    #[error(
        "the ledger's items for {subject} were being written by others at every attempt; it is safe to try again later"
    )]
    Contended {
        /// The target or the alarm.
        subject: String,
    },
    /// Another run took the target's lease over.
    #[error(
        "the lease of {resource} has passed to another run; this one ({run_id}) stops and changes nothing more"
    )]
    Fenced {
        /// The target.
        resource: String,
        /// The run that lost the lease.
        run_id: String,
    },
}

impl LedgerError {
    /// Whether another attempt can succeed without anyone changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Call(error) => error.is_transient(),
            Self::Incomplete { .. } | Self::Contended { .. } => true,
            Self::Unreadable { .. } | Self::Unwritable { .. } | Self::Fenced { .. } => false,
        }
    }
}
