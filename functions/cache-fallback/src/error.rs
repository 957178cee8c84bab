//! What can keep the cache from being turned on or off.

use shared::aws_error::AwsError;
use shared::remediation::{Failure, OutOfTime};
use thiserror::Error;

/// An error of a fallback to caching.
#[derive(Debug, Error)]
pub enum CacheError {
    /// An AWS call failed.
    #[error("{0}")]
    Aws(AwsError),
    /// Something is being done to the cache cluster, and until that is over, the stage is left alone.
    #[error("the cache cluster of {stage} is being {what}; look again when that is over")]
    Busy {
        /// The stage.
        stage: String,
        /// What is being done.
        what: &'static str,
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
    /// What the stage serves cannot be told.
    #[error(
        "the export of {stage} cannot be used: {problem}; whether a cache would be safe cannot be told"
    )]
    Export {
        /// The stage.
        stage: String,
        /// What is the matter with it.
        problem: String,
    },
    /// The API has more resources than are read.
    #[error(
        "REST API {rest_api} has more than {read} resources, and no more are read: whether a cache would be safe cannot be told"
    )]
    TooManyResources {
        /// The API.
        rest_api: String,
        /// How many were read.
        read: usize,
    },
    /// A call was not made, because the time was up.
    #[error(transparent)]
    OutOfTime(#[from] OutOfTime),
}

impl Failure for CacheError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Aws(error) => error.is_transient(),
            Self::Export { .. } | Self::TooManyResources { .. } => false,
            Self::Busy { .. } | Self::Partial { .. } | Self::OutOfTime(_) => true,
        }
    }

    fn is_conflict(&self) -> bool {
        matches!(self, Self::Aws(error) if error.is_conflict())
    }
}
