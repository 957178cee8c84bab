//! One reading of every AWS error: what happened, whether it may have taken effect, whether to try again, what to do.

use std::error::Error as StdError;
use std::fmt;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// What kind of failure an AWS call ended in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The service asked to slow down and did nothing.
    Throttled,
    /// The caller may not do this; nothing was done.
    Denied,
    /// What the call names is not there; nothing was done.
    NotFound,
    /// A condition of a write did not hold; nothing was done.
    Conflict,
    /// The service refused the request as it stands; nothing was done.
    Rejected,
    /// The service failed, or its answer never came: the effect may have happened.
    Unknown,
}

/// A failed AWS call, told in one line.
#[derive(Debug)]
pub struct AwsError {
    /// The call, such as `sqs:ReceiveMessage`.
    pub operation: &'static str,
    /// What it was made on: a queue, a table, an alarm.
    pub subject: String,
    /// The kind of failure.
    pub kind: Kind,
    /// The service's error code, where it gave one.
    pub code: Option<String>,
    /// The service's words, or the connector's.
    pub message: String,
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            subject,
            code,
            message,
            ..
        } = self;
        write!(f, "{operation} on {subject} failed")?;
        if let Some(code) = code {
            write!(f, " with {code}")?;
        }
        if !message.is_empty() {
            write!(f, ": {message}")?;
        }
        match self.kind {
            Kind::Denied => write!(f, "; grant {operation} on it to the function's role"),
            Kind::NotFound => write!(f, "; check the name in the policy or the settings"),
            Kind::Throttled => write!(f, "; it is safe to try again later"),
            Kind::Conflict | Kind::Rejected | Kind::Unknown => Ok(()),
        }
    }
}

impl StdError for AwsError {}

impl AwsError {
    /// Reads an SDK error.
    ///
    /// `operation` is the IAM action, `subject` what the call was made on.
    pub fn new<E>(
        operation: &'static str,
        subject: impl Into<String>,
        error: &SdkError<E, HttpResponse>,
    ) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let (kind, code, message) = match error {
            SdkError::ServiceError(service) => {
                let inner = service.err();
                let code = inner.code().map(str::to_owned);
                let kind = match code.as_deref().map_or(Kind::Unknown, kind_of_code) {
                    Kind::Rejected if service.raw().status().is_server_error() => Kind::Unknown,
                    kind => kind,
                };
                (kind, code, inner.message().unwrap_or_default().to_owned())
            }
            SdkError::ConstructionFailure(_) => (Kind::Rejected, None, sources(error)),
            _ => (Kind::Unknown, None, sources(error)),
        };
        Self {
            operation,
            subject: subject.into(),
            kind,
            code,
            message,
        }
    }

    /// Whether a later attempt at the same call can succeed without anyone changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Throttled | Kind::Conflict | Kind::Unknown)
    }

    /// Whether the call may have taken effect although it failed.
    #[must_use]
    pub fn may_have_taken_effect(&self) -> bool {
        self.kind == Kind::Unknown
    }
}

fn sources(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let words = source.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = source.source();
    }
    text
}

/// Reads a service's error code; also used for the `Code` of a failed batch entry.
///
/// Codes are those of the services' API references; SQS still answers some with the
/// `AWS.SimpleQueueService.` prefix of its query protocol.
#[must_use]
pub fn kind_of_code(code: &str) -> Kind {
    match code.rsplit(['.', '#']).next().unwrap_or(code) {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "ProvisionedThroughputExceededException"
        | "BandwidthLimitExceeded"
        | "LimitExceededException"
        | "OverLimit"
        | "SlowDown"
        | "KmsThrottled" => Kind::Throttled,
        "AccessDenied"
        | "AccessDeniedException"
        | "UnauthorizedOperation"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "KmsAccessDenied"
        | "InvalidSecurity" => Kind::Denied,
        "QueueDoesNotExist"
        | "NonExistentQueue"
        | "ResourceNotFoundException"
        | "ResourceNotFound"
        | "ParameterNotFound"
        | "KmsNotFound"
        | "NotFound" => Kind::NotFound,
        "ConditionalCheckFailedException"
        | "TransactionCanceledException"
        | "TransactionConflictException"
        | "TransactionInProgressException" => Kind::Conflict,
        "InternalError"
        | "InternalFailure"
        | "InternalServerError"
        | "InternalServiceError"
        | "ServiceException"
        | "ServiceUnavailable"
        | "RequestTimeout" => Kind::Unknown,
        _ => Kind::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_with_and_without_the_query_prefix_read_the_same() {
        assert_eq!(
            kind_of_code("AWS.SimpleQueueService.NonExistentQueue"),
            Kind::NotFound
        );
        assert_eq!(
            kind_of_code("com.amazonaws.sqs#QueueDoesNotExist"),
            Kind::NotFound
        );
        assert_eq!(kind_of_code("InternalError"), Kind::Unknown);
        assert_eq!(kind_of_code("InvalidMessageContents"), Kind::Rejected);
    }

    #[test]
    fn a_denial_names_the_action_to_grant() {
        let error = AwsError {
            operation: "sqs:ReceiveMessage",
            subject: "arn:aws:sqs:eu-west-1:123456789012:dlq".into(),
            kind: Kind::Denied,
            code: Some("AccessDenied".into()),
            message: "no".into(),
        };
        assert_eq!(
            error.to_string(),
            "sqs:ReceiveMessage on arn:aws:sqs:eu-west-1:123456789012:dlq failed with AccessDenied: \
             no; grant sqs:ReceiveMessage on it to the function's role"
        );
    }
}
