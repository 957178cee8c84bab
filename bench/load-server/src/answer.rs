//! Answers and refusals, independent of the HTTP library.

use std::collections::BTreeMap;

use serde_json::json;

/// An answer to be written to the client.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// What the body is.
    pub content_type: &'static str,
    /// Headers besides.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The answer to what cannot even be read.
    #[must_use]
    pub fn unknown() -> Self {
        Refusal::unknown().into_answer()
    }

    /// The form of SQS and `DynamoDB`.
    pub(crate) fn json_1_0(body: String) -> Self {
        Self {
            status: 200,
            content_type: "application/x-amz-json-1.0",
            headers: BTreeMap::new(),
            body: body.into_bytes(),
        }
    }

    /// The form of `EventBridge` and SSM.
    pub(crate) fn json_1_1(body: String) -> Self {
        Self {
            content_type: "application/x-amz-json-1.1",
            ..Self::json_1_0(body)
        }
    }

    /// The form of `CloudWatch`.
    pub(crate) fn cbor(body: Vec<u8>) -> Self {
        Self {
            body,
            content_type: "application/cbor",
            ..Self::json_1_0(String::new())
        }
    }

    /// The form of the REST services and of the control endpoints.
    pub(crate) fn control(body: String) -> Self {
        Self {
            content_type: "application/json",
            ..Self::json_1_0(body)
        }
    }
}

/// A call that cannot be answered.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: &'static str,
    message: String,
}

impl Refusal {
    /// The operation is none that is spoken here, and the scene has no answer to it.
    pub(crate) fn unknown() -> Self {
        Self {
            code: "UnknownOperationException",
            message: "the load server does not speak this operation".to_owned(),
        }
    }

    /// The body is not what the operation takes.
    pub(crate) fn malformed(error: &serde_json::Error) -> Self {
        Self {
            code: "SerializationException",
            message: error.to_string(),
        }
    }

    /// A batch is empty or holds more than ten entries.
    pub(crate) fn batch_size() -> Self {
        Self {
            code: "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            message: "a batch holds one to ten entries".to_owned(),
        }
    }

    /// The refusal as AWS's JSON protocols word it.
    pub(crate) fn into_answer(self) -> Answer {
        Answer {
            status: 400,
            ..Answer::json_1_0(json!({ "__type": self.code, "message": self.message }).to_string())
        }
    }
}
