//! Answers that the proxy makes up, in the form that the request's protocol gives them.

use aws_smithy_cbor::Encoder;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::Answer;
use super::call::{Call, Protocol};

/// An answer made up by the proxy.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A success with this body.
    Success {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: Bytes,
    },
    /// An error in the service's form.
    Error {
        /// The HTTP status.
        status: u16,
        /// The error's code.
        code: String,
        /// The error's words.
        message: String,
    },
    /// The service failed: a 5xx under the name that the called service gives it.
    InternalError,
    /// The service asks to slow down, under the name that the called service gives it.
    Throttled,
    /// The caller may not do this.
    Denied,
}

impl Reply {
    /// A success.
    pub fn success(status: u16, body: impl Into<Bytes>) -> Self {
        Self::Success {
            status,
            body: body.into(),
        }
    }

    /// An error.
    pub fn error(status: u16, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Error {
            status,
            code: code.into(),
            message: message.into(),
        }
    }

    pub(super) fn answer(&self, call: &Call) -> Answer {
        let (status, code, message) = match self {
            Self::Success { status, body } => return success(*status, body.clone(), call),
            Self::Error {
                status,
                code,
                message,
            } => (*status, code.as_str(), message.as_str()),
            Self::InternalError => {
                let code = match call.service {
                    "dynamodb" | "ssm" => "InternalServerError",
                    "events" => "InternalException",
                    "cloudwatch" => "InternalServiceFault",
                    "lambda" => "ServiceException",
                    _ => "InternalError",
                };
                (500, code, "injected failure of the service")
            }
            Self::Throttled => {
                let (status, code) = match call.service {
                    "sqs" => (400, "RequestThrottled"),
                    "lambda" => (429, "TooManyRequestsException"),
                    "cloudwatch" => (400, "Throttling"),
                    _ => (400, "ThrottlingException"),
                };
                (status, code, "injected throttling")
            }
            Self::Denied => {
                let (status, code) = match call.service {
                    "dynamodb" | "ssm" | "events" => (400, "AccessDeniedException"),
                    "lambda" => (403, "AccessDeniedException"),
                    _ => (403, "AccessDenied"),
                };
                (status, code, "injected denial")
            }
        };
        error(status, code, message, call)
    }
}

fn success(status: u16, body: Bytes, call: &Call) -> Answer {
    let mut headers = HeaderMap::new();
    put(&mut headers, "content-type", content_type(call));
    put(&mut headers, "x-amzn-requestid", &call.request_id());
    Answer {
        status: status_code(status),
        headers,
        body,
    }
}

fn error(status: u16, code: &str, message: &str, call: &Call) -> Answer {
    let fault = if status < 500 { "Sender" } else { "Receiver" };
    let mut headers = HeaderMap::new();
    put(&mut headers, "content-type", content_type(call));
    let body = match call.protocol {
        Protocol::Json => {
            put(&mut headers, "x-amzn-query-error", &format!("{code};{fault}"));
            json!({"__type": code, "message": message}).to_string().into_bytes()
        }
        Protocol::Rest => {
            put(&mut headers, "x-amzn-errortype", code);
            json!({"Type": fault, "Message": message}).to_string().into_bytes()
        }
        Protocol::Cbor => {
            put(&mut headers, "smithy-protocol", "rpc-v2-cbor");
            put(&mut headers, "x-amzn-query-error", &format!("{code};{fault}"));
            let mut encoder = Encoder::new(Vec::new());
            encoder.begin_map();
            encoder.str("__type").str(code).str("message").str(message);
            encoder.end();
            encoder.into_writer()
        }
        Protocol::Query => format!(
            "<ErrorResponse><Error><Type>{fault}</Type><Code>{code}</Code><Message>{message}</Message></Error>\
             <RequestId>injected</RequestId></ErrorResponse>"
        )
        .into_bytes(),
    };
    Answer {
        status: status_code(status),
        headers,
        body: body.into(),
    }
}

fn content_type(call: &Call) -> &'static str {
    match call.protocol {
        Protocol::Json => "application/x-amz-json-1.0",
        Protocol::Cbor => "application/cbor",
        Protocol::Query => "text/xml",
        Protocol::Rest => "application/json",
    }
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
