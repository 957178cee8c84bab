//! Which service and operation an HTTP request means, in each of the protocols that AWS SDKs speak.

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use serde_json::Value;

/// The shape in which a request's errors are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// AWS JSON 1.0 or 1.1: the operation is in `X-Amz-Target`.
    Json,
    /// Smithy RPC v2 CBOR: the operation is in the path.
    Cbor,
    /// AWS Query: the operation is the form's `Action`.
    Query,
    /// REST with JSON bodies: the operation is the method and the path.
    Rest,
}

/// A request to AWS.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its place among all requests that reached the proxy, from one.
    pub number: usize,
    /// The service by its IAM prefix, such as `sqs`.
    pub service: &'static str,
    /// The operation as the API reference names it, such as `SendMessageBatch`.
    pub operation: String,
    /// How it is spoken.
    pub protocol: Protocol,
    /// What it is about, where one name says so: the queue, function, parameter or table.
    pub subject: String,
    /// The HTTP method.
    pub method: Method,
    /// The path and query.
    pub path: String,
    /// The headers, as signed.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// IAM prefixes by the names that requests are signed for or targeted at.
const SERVICES: [(&str, &str); 22] = [
    ("AmazonSQS", "sqs"),
    ("sqs", "sqs"),
    ("DynamoDB_20120810", "dynamodb"),
    ("dynamodb", "dynamodb"),
    ("AmazonSSM", "ssm"),
    ("ssm", "ssm"),
    ("AWSEvents", "events"),
    ("events", "events"),
    ("GraniteServiceVersion20100801", "cloudwatch"),
    ("monitoring", "cloudwatch"),
    ("CodeDeploy_20141006", "codedeploy"),
    ("lambda", "lambda"),
    ("apigateway", "apigateway"),
    ("cloudfront-keyvaluestore", "cloudfront-keyvaluestore"),
    ("Logs_20140328", "logs"),
    ("logs", "logs"),
    ("cloudformation", "cloudformation"),
    ("iam", "iam"),
    ("sts", "sts"),
    ("AWSStepFunctions", "states"),
    ("states", "states"),
    ("s3", "s3"),
];

fn service(name: &str) -> &'static str {
    SERVICES
        .iter()
        .find(|(known, _)| *known == name)
        .map_or("unknown", |(_, prefix)| *prefix)
}

impl Call {
    /// Reads a request.
    #[must_use]
    pub fn read(parts: &Parts, body: Bytes) -> Self {
        let text = |name: &str| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        let path = parts.uri.path();
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (service, operation, protocol) =
            if let Some((target, operation)) = text("x-amz-target").rsplit_once('.') {
                (service(target), operation.to_owned(), Protocol::Json)
            } else if let ["service", target, "operation", operation] = segments[..] {
                (service(target), operation.to_owned(), Protocol::Cbor)
            } else {
                // Credential=<key>/<date>/<region>/<service>/aws4_request, without the region where it is for all
                let authorization = text("authorization");
                let nth = if authorization.starts_with("AWS4-ECDSA") {
                    2
                } else {
                    3
                };
                let scope = authorization.split('/').nth(nth).unwrap_or_default();
                match form_value(&body, "Action") {
                    Some(action) => (service(scope), action, Protocol::Query),
                    None => (
                        service(scope),
                        rest_operation(&parts.method, &segments),
                        Protocol::Rest,
                    ),
                }
            };
        let mut call = Self {
            number: 0,
            service,
            operation,
            protocol,
            subject: String::new(),
            method: parts.method.clone(),
            path: parts
                .uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            headers: parts.headers.clone(),
            body,
        };
        call.subject = call.find_subject(&segments);
        call
    }

    fn find_subject(&self, segments: &[&str]) -> String {
        if let [_, "functions", function, ..] = segments {
            return (*function).to_owned();
        }
        let request = self.json();
        ["QueueUrl", "TableName", "Name"]
            .iter()
            .find_map(|field| request[field].as_str())
            .map(|name| match name.rsplit_once('/') {
                Some((_, last)) if self.service == "sqs" => last.to_owned(),
                _ => name.to_owned(),
            })
            .unwrap_or_default()
    }

    /// Service and operation, such as `sqs:SendMessageBatch`.
    #[must_use]
    pub fn action(&self) -> String {
        format!("{}:{}", self.service, self.operation)
    }

    /// The id under which an answer that the proxy makes up tells of it. A record of an asynchronous invocation that failed
    /// has the id that `Invoke` answered (AWS Lambda Developer Guide, "Retaining records of asynchronous invocations").
    #[must_use]
    pub fn request_id(&self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.number)
    }

    /// Whether `pattern` names it: an action such as `sqs:SendMessage`, or the start of one and `*`.
    #[must_use]
    pub fn is(&self, pattern: &str) -> bool {
        let action = self.action();
        match pattern.strip_suffix('*') {
            Some(start) => action.starts_with(start),
            None => action == pattern,
        }
    }

    /// The body as JSON; null when it is something else.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A batch's entries; none when it is no batch.
    #[must_use]
    pub fn entries(&self) -> Vec<Value> {
        match self.json()["Entries"].take() {
            Value::Array(entries) => entries,
            _ => Vec::new(),
        }
    }

    /// How many messages it sends or deletes.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.entries().len().max(1)
    }

    pub(super) fn host(&self) -> &str {
        self.headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default()
    }
}

fn rest_operation(method: &Method, segments: &[&str]) -> String {
    match (method.as_str(), segments) {
        ("POST", [_, "functions", _, "invocations"]) => "Invoke".to_owned(),
        ("GET", [_, "functions", _]) => "GetFunction".to_owned(),
        ("GET", [_, "functions", _, "configuration"]) => "GetFunctionConfiguration".to_owned(),
        ("GET", [_, "functions", _, "aliases", _]) => "GetAlias".to_owned(),
        ("PUT", [_, "functions", _, "aliases", _]) => "UpdateAlias".to_owned(),
        ("GET", [_, "functions", _, "versions"]) => "ListVersionsByFunction".to_owned(),
        ("GET", [_, "functions", _, "policy"]) => "GetPolicy".to_owned(),
        ("GET", [_, "functions", _, "provisioned-concurrency"]) => {
            "GetProvisionedConcurrencyConfig".to_owned()
        }
        ("GET", [_, "event-source-mappings"]) => "ListEventSourceMappings".to_owned(),
        ("GET", [_, "tags", ..]) => "ListTags".to_owned(),
        ("GET", ["key-value-stores", _]) => "DescribeKeyValueStore".to_owned(),
        ("GET", ["key-value-stores", _, "keys", _]) => "GetKey".to_owned(),
        ("PUT", ["key-value-stores", _, "keys", _]) => "PutKey".to_owned(),
        ("DELETE", ["key-value-stores", _, "keys", _]) => "DeleteKey".to_owned(),
        ("GET", ["domainnames", _]) => "GetDomainName".to_owned(),
        ("GET", ["domainnames", _, "basepathmappings", _]) => "GetBasePathMapping".to_owned(),
        ("PATCH", ["domainnames", _, "basepathmappings", _]) => "UpdateBasePathMapping".to_owned(),
        ("GET", ["restapis", _]) => "GetRestApi".to_owned(),
        ("GET", ["restapis", _, "resources"]) => "GetResources".to_owned(),
        ("GET", ["restapis", _, "stages", _, "exports", _]) => "GetExport".to_owned(),
        ("GET", ["restapis", _, "stages", _]) => "GetStage".to_owned(),
        ("PATCH", ["restapis", _, "stages", _]) => "UpdateStage".to_owned(),
        _ => format!("{method} /{}", segments.join("/")),
    }
}

/// A value of a form that needs no decoding: action names are plain letters.
fn form_value(body: &[u8], name: &str) -> Option<String> {
    std::str::from_utf8(body).ok()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name && value.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            .then(|| value.to_owned())
    })
}
