//! How an invocation and a function fail, under the names that a playbook's `Retry` and `Catch` use.

use std::sync::Arc;

use lambda_runtime::Diagnostic;
use thiserror::Error;

use crate::alarm::AlarmError;
use crate::ledger::LedgerError;
use crate::outcome::Response;
use crate::policy::PolicyError;
use crate::settings::SettingsError;

/// A run that cannot be called a success. Lambda delivers the event again, and keeps it in the end.
#[derive(Debug, Error)]
pub enum RunError {
    /// The event is none that this function can act on.
    #[error("{0}")]
    Event(#[from] AlarmError),
    /// A continuation that this release did not write.
    #[error("the continuation cannot be read: {0}; start again from the alarm event")]
    Continuation(serde_json::Error),
    /// Lambda gave a function ARN that is none.
    #[error(
        "the function's ARN is {arn:?}, which says neither account nor region; invoke it by its name or ARN"
    )]
    Home {
        /// The ARN.
        arn: String,
    },
    /// The policy cannot be used.
    #[error("{0}")]
    Policy(#[from] Arc<PolicyError>),
    /// The ledger does not say what is due.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// At least one target failed. The message holds the whole response.
    #[error("{}", serde_json::to_string(.response).unwrap_or_default())]
    Failed {
        /// The reports.
        response: Box<Response>,
        /// Whether another attempt can succeed without anyone changing anything.
        retryable: bool,
    },
}

impl RunError {
    /// Whether another attempt can succeed without anyone changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Event(_) | Self::Continuation(_) | Self::Home { .. } => false,
            Self::Policy(error) => error.is_transient(),
            Self::Ledger(error) => error.is_transient(),
            Self::Failed { retryable, .. } => *retryable,
        }
    }
}

/// The names that a playbook's `Retry` and `Catch` use.
impl From<RunError> for Diagnostic {
    fn from(error: RunError) -> Self {
        let error_type = match &error {
            RunError::Event(_) | RunError::Continuation(_) => "UnusableEvent",
            RunError::Policy(_) if !error.is_transient() => "UnusablePolicy",
            _ if error.is_transient() => "Retryable",
            _ => "NonRetryable",
        };
        Self {
            error_type: error_type.to_owned(),
            error_message: error.to_string(),
        }
    }
}

/// A function that could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting is missing or malformed.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// The runtime's own error.
    #[error("the Lambda runtime stopped: {0}")]
    Runtime(lambda_runtime::Error),
}
