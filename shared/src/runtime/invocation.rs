//! What starts a run: the payload and what Lambda says of it.

use chrono::{DateTime, Utc};
use lambda_runtime::LambdaEvent;
use serde_json::Value;

/// What starts a run: the payload and what Lambda says of it.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The event.
    pub payload: Value,
    /// Lambda's request id, the same over its own retries.
    pub request_id: String,
    /// When Lambda ends the invocation.
    pub deadline: DateTime<Utc>,
    /// The function, with its version or alias.
    pub function_arn: String,
    /// The X-Ray trace.
    pub trace_id: Option<String>,
}

impl From<LambdaEvent<Value>> for Invocation {
    fn from(event: LambdaEvent<Value>) -> Self {
        let deadline = i64::try_from(event.context.deadline)
            .ok()
            .and_then(DateTime::from_timestamp_millis)
            .unwrap_or(DateTime::UNIX_EPOCH);
        Self {
            payload: event.payload,
            request_id: event.context.request_id,
            deadline,
            function_arn: event.context.invoked_function_arn,
            trace_id: event.context.xray_trace_id,
        }
    }
}
