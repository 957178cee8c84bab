//! One reading of every AWS error: what happened, whether it may have taken effect, whether to try again, what to do.

use std::error::Error as StdError;
use std::fmt;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::SdkError;
use aws_smithy_runtime_api::client::result::{ConnectorError, DispatchFailure};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::ErrorKind;

/// What kind of failure an AWS call ended in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The service asked to slow down and did nothing, or the call was held back here and not sent.
    Throttled,
    /// The caller may not do this; nothing was done.
    Denied,
    /// What the call names is not there; nothing was done.
    NotFound,
    /// Another change was under way, or had come first so that a condition did not hold; nothing was done.
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
            _ if self.is_of_key() => f.write_str(OF_KEY),
            Kind::Denied => {
                let action = denied_action(message).unwrap_or(operation);
                write!(f, "; grant {action} on it to the function's role")
            }
            Kind::NotFound => write!(f, "; check the name in the policy or the settings"),
            Kind::Throttled | Kind::Conflict => write!(f, "; it is safe to try again later"),
            Kind::Rejected | Kind::Unknown => Ok(()),
        }
    }
}

/// The remedy where a key is in the way. A sender needs both permissions, a receiver the first (Amazon SQS Developer
/// Guide, "Key management").
const OF_KEY: &str = "; it is encrypted under a customer's key: that has to be enabled, its policy has to let this account use it, and the function's role needs kms:Decrypt and kms:GenerateDataKey on it (the stack's parameter KmsKeyArns)";

/// The action that a refusal names, which may be another than the call's.
fn denied_action(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("not authorized to perform: ")?;
    let action = rest.split_whitespace().next()?;
    action.contains(':').then_some(action)
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
            SdkError::DispatchFailure(failure) if was_held_back(failure) => {
                (Kind::Throttled, None, sources(error))
            }
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

    /// Whether the key that the call's subject is encrypted under was in the way.
    fn is_of_key(&self) -> bool {
        let lasting = matches!(
            self.kind,
            Kind::Denied | Kind::NotFound | Kind::Rejected | Kind::Conflict
        );
        let named = self.code.as_deref().is_some_and(|code| {
            let code = code.rsplit('#').next().unwrap_or(code);
            code.get(..3)
                .is_some_and(|start| start.eq_ignore_ascii_case("kms"))
        });
        lasting && (named || denied_action(&self.message).is_some_and(|it| it.starts_with("kms:")))
    }

    /// Whether a later attempt at the same call can succeed without anyone changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Throttled | Kind::Conflict | Kind::Unknown)
    }

    /// Whether another change was in the way. Nothing was done; but where the SDK had tried before, that change may be this
    /// call's own, and a new look tells.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.kind == Kind::Conflict
    }

    /// Whether the call may have taken effect although it failed.
    #[must_use]
    pub fn may_have_taken_effect(&self) -> bool {
        self.kind == Kind::Unknown
    }
}

/// Whether the call waited for its turn too long, and was not sent.
fn was_held_back(failure: &DispatchFailure) -> bool {
    let kind = failure
        .as_connector_error()
        .and_then(ConnectorError::as_other);
    kind == Some(ErrorKind::ThrottlingError)
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
/// `AWS.SimpleQueueService.` prefix of its query protocol. Where services mean different things by one code, it is read as
/// the services mean it that remediations call: to API Gateway, `LimitExceededException` is a matter of time.
#[must_use]
pub fn kind_of_code(code: &str) -> Kind {
    match code.rsplit(['.', '#']).next().unwrap_or(code) {
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "PriorRequestNotComplete"
        | "EC2ThrottledException"
        | "TooManyRequestsException"
        | "ProvisionedThroughputExceededException"
        | "BandwidthLimitExceeded"
        | "LimitExceededException"
        | "ExecutionLimitExceeded"
        | "OverLimit"
        | "SlowDown"
        | "KmsThrottled" => Kind::Throttled,
        "AccessDenied"
        | "AccessDeniedException"
        | "NotAuthorized"
        | "UnauthorizedException"
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
        | "ParameterVersionNotFound"
        | "ApplicationDoesNotExistException"
        | "DeploymentGroupDoesNotExistException"
        | "DeploymentDoesNotExistException"
        | "StateMachineDoesNotExist"
        | "KmsNotFound"
        | "NotFound"
        | "NotFoundException" => Kind::NotFound,
        "ConditionalCheckFailedException"
        | "TransactionCanceledException"
        | "TransactionConflictException"
        | "TransactionInProgressException"
        | "ReplicatedWriteConflictException"
        | "ConflictException"
        | "ResourceConflictException"
        | "ResourceInUseException"
        | "ConcurrentModificationException"
        | "ConcurrentOperationException"
        | "ConcurrentUpdateException"
        | "OperationAborted"
        | "OperationAbortedException"
        | "OperationInProgressException"
        | "UpdateInProgressException"
        | "SnapStartNotReadyException"
        | "TooManyUpdates"
        | "PreconditionFailed"
        | "PreconditionFailedException" => Kind::Conflict,
        "InternalError"
        | "InternalException"
        | "InternalFailure"
        | "InternalServerError"
        | "InternalServerException"
        | "InternalServiceError"
        | "InternalServiceFault"
        | "ServiceException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "RequestTimeoutException" => Kind::Unknown,
        _ => Kind::Rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_permission_that_is_missing() {
        let told = |code: &str, message: &str| {
            let error = AwsError {
                operation: "sqs:ReceiveMessage",
                subject: "the queue".to_owned(),
                kind: kind_of_code(code),
                code: Some(code.to_owned()),
                message: message.to_owned(),
            };
            error.to_string()
        };
        let of_another = "User: arn:aws:sts::1:assumed-role/r/f is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:eu-west-1:1:key/k";
        for (code, message, remedy) in [
            ("AccessDenied", "", "grant sqs:ReceiveMessage on it"),
            (
                "AccessDenied",
                "User: u is not authorized to perform: sqs:DeleteMessage on resource: q",
                "grant sqs:DeleteMessage on it",
            ),
            (
                "AccessDeniedException",
                of_another,
                "needs kms:Decrypt and kms:GenerateDataKey",
            ),
            (
                "KmsAccessDenied",
                "",
                "needs kms:Decrypt and kms:GenerateDataKey",
            ),
            ("com.amazonaws.sqs#KmsAccessDenied", "", "KmsKeyArns"),
            ("KMS.DisabledException", "", "that has to be enabled"),
            ("KmsNotFound", "", "that has to be enabled"),
        ] {
            let told = told(code, message);
            assert!(told.contains(remedy), "{told}");
        }
        assert!(!told("KmsThrottled", "").contains("customer's key"));
    }

    #[test]
    fn a_code_is_read_as_the_service_means_it() {
        let cases = [
            // Amazon SQS, in the words of its query protocol and in its own.
            ("AWS.SimpleQueueService.NonExistentQueue", Kind::NotFound),
            ("com.amazonaws.sqs#QueueDoesNotExist", Kind::NotFound),
            ("KMS.ThrottlingException", Kind::Throttled),
            ("KmsThrottled", Kind::Throttled),
            ("KMS.AccessDeniedException", Kind::Denied),
            ("KMS.NotFoundException", Kind::NotFound),
            ("KMS.DisabledException", Kind::Rejected),
            ("OverLimit", Kind::Throttled),
            ("InvalidMessageContents", Kind::Rejected),
            ("InternalError", Kind::Unknown),
            // AWS Lambda: "another operation is in progress", a revision that is not the latest, a mapping that is
            // being created, a snapshot that is being made.
            ("ResourceConflictException", Kind::Conflict),
            ("PreconditionFailedException", Kind::Conflict),
            ("ResourceInUseException", Kind::Conflict),
            ("SnapStartNotReadyException", Kind::Conflict),
            ("TooManyRequestsException", Kind::Throttled),
            ("EC2ThrottledException", Kind::Throttled),
            ("ServiceQuotaExceededException", Kind::Rejected),
            ("InvalidParameterValueException", Kind::Rejected),
            ("ServiceException", Kind::Unknown),
            // Amazon API Gateway: "unable to complete operation due to concurrent modification".
            ("ConflictException", Kind::Conflict),
            ("LimitExceededException", Kind::Throttled),
            ("NotFoundException", Kind::NotFound),
            ("UnauthorizedException", Kind::Denied),
            ("BadRequestException", Kind::Rejected),
            ("ServiceUnavailableException", Kind::Unknown),
            // Amazon CloudFront: a version that is not the latest, and its store's data plane.
            ("PreconditionFailed", Kind::Conflict),
            ("InternalServerException", Kind::Unknown),
            // AWS CodeDeploy.
            ("DeploymentGroupDoesNotExistException", Kind::NotFound),
            ("DeploymentDoesNotExistException", Kind::NotFound),
            ("DeploymentAlreadyCompletedException", Kind::Rejected),
            // Amazon DynamoDB.
            ("ConditionalCheckFailedException", Kind::Conflict),
            ("TransactionConflictException", Kind::Conflict),
            ("ReplicatedWriteConflictException", Kind::Conflict),
            ("ProvisionedThroughputExceededException", Kind::Throttled),
            ("ValidationException", Kind::Rejected),
            // Amazon CloudWatch, Amazon EventBridge, AWS Systems Manager, and others that are changed one at a time.
            ("ConcurrentModificationException", Kind::Conflict),
            ("InternalServiceFault", Kind::Unknown),
            ("InternalException", Kind::Unknown),
            ("TooManyUpdates", Kind::Conflict),
            ("ParameterVersionNotFound", Kind::NotFound),
            ("OperationAbortedException", Kind::Conflict),
        ];
        for (code, kind) in cases {
            assert_eq!(kind_of_code(code), kind, "{code}");
        }
    }

    #[test]
    fn a_conflict_is_tried_again_and_did_nothing() {
        let error = AwsError {
            operation: "lambda:UpdateAlias",
            subject: "arn:aws:lambda:eu-west-1:123456789012:function:orders:live".into(),
            kind: kind_of_code("ResourceConflictException"),
            code: Some("ResourceConflictException".into()),
            message: "An update is in progress for resource".into(),
        };
        assert!(error.is_conflict() && error.is_transient());
        assert!(!error.may_have_taken_effect());
        assert!(error.to_string().ends_with("it is safe to try again later"));
    }

    #[test]
    fn what_was_held_back_here_was_not_sent() {
        use aws_sdk_dynamodb::operation::get_item::GetItemError;

        for (kind, expected) in [
            (Some(ErrorKind::ThrottlingError), Kind::Throttled),
            (None, Kind::Unknown),
        ] {
            let held = ConnectorError::other("held back".into(), kind);
            let error: SdkError<GetItemError, _> = SdkError::dispatch_failure(held);
            let error = AwsError::new("dynamodb:GetItem", "ledger", &error);
            assert_eq!(error.kind, expected, "{error}");
            assert!(error.is_transient());
        }
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
