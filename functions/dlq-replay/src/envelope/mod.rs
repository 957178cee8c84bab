//! What AWS puts around a payload on its way into a failure queue, opened: the payload, who it was for, which request
//! failed and why.
//!
//! | envelope | told by | source |
//! |---|---|---|
//! | redriven | the system attribute `DeadLetterQueueSourceArn` | Amazon SQS API Reference, "`ReceiveMessage`" |
//! | a function's dead letter | the attributes `RequestID`, `ErrorCode`, `ErrorMessage` | AWS Lambda Developer Guide, "Capturing records of Lambda asynchronous invocations" |
//! | a function's failure record | a body with `requestContext` and `requestPayload` | the same |
//! | an event source's batch | a body with `KinesisBatchInfo`, `DDBStreamBatchInfo` or `KafkaBatchInfo` | the same guide's pages on failure destinations of Kinesis, `DynamoDB` and Kafka event sources |
//! | a pipe's batch | such a body with `context.partnerResourceArn` | Amazon `EventBridge` User Guide, "Amazon `EventBridge` Pipes error handling" |
//! | a topic's notification | a body of `Type` `Notification` with a `TopicArn` | Amazon SNS Developer Guide, "Amazon SNS dead-letter queues" |
//! | a rule's event | the attributes `RULE_ARN` and `TARGET_ARN` | Amazon `EventBridge` User Guide, "Using dead-letter queues to process undelivered events" |
//! | a subscriber's event | a body with `busArn`, `subscriberArn` and `failedMessages` | the same guide, on custom event buses |
//! | a schedule's input | the attributes `SCHEDULE_ARN` and `TARGET_ARN` | Amazon `EventBridge` Scheduler User Guide, "Configuring a dead-letter queue" |
//! | an execution's input | an event `Step Functions Execution Status Change` | AWS Step Functions Developer Guide, "Automating Step Functions event delivery with `EventBridge`" |
//!
//! Whatever a sender can write himself counts as AWS's only where AWS writes it: never in a message that a redrive
//! policy moved, which is what its sender made it, and in a FIFO queue only what a FIFO queue can be the target of.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use aws_sdk_sqs::types::MessageAttributeValue;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use shared::arn::Arn;

/// A message's envelope, opened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Envelope {
    /// What it is, for accounts and reasons.
    pub kind: Kind,
    /// What was to be delivered.
    pub payload: Payload,
    /// Whom it was for, and through what it came: the most telling first. Empty where the message does not say.
    pub names: Vec<String>,
    /// The request of the invocation that failed.
    pub request: Option<String>,
    /// Why it failed.
    pub cause: Option<Cause>,
}

/// The kinds of envelopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// None: the body is the payload, and nothing says where it came from.
    #[default]
    Plain,
    /// Moved by a queue's redrive policy.
    Redriven,
    /// An event of a function's asynchronous dead-letter queue.
    DeadLetter,
    /// A record of a function's on-failure destination.
    FailureRecord,
    /// A record of an event source mapping's on-failure destination.
    SourceBatch,
    /// A record of a pipe's dead-letter queue.
    PipeBatch,
    /// A notification that a subscription did not take.
    Notification,
    /// An event that a rule's target did not take.
    RuleEvent,
    /// A record of events that a custom event bus's subscriber did not take.
    SubscriberRecord,
    /// The input of a schedule whose target did not take it.
    ScheduleInput,
    /// An execution that did not succeed.
    Execution,
}

impl Kind {
    /// The kind as accounts and reasons name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Redriven => "redriven",
            Self::DeadLetter => "lambda_dead_letter",
            Self::FailureRecord => "lambda_failure_record",
            Self::SourceBatch => "event_source_batch",
            Self::PipeBatch => "pipe_batch",
            Self::Notification => "sns_notification",
            Self::RuleEvent => "eventbridge_rule_event",
            Self::SubscriberRecord => "eventbridge_subscriber_record",
            Self::ScheduleInput => "schedule_input",
            Self::Execution => "step_functions_execution",
        }
    }
}

/// What was to be delivered.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Payload {
    /// The body, as it is.
    #[default]
    Body,
    /// This part of the body, byte for byte.
    Inside(String),
    /// A notification: queues take the body, functions an event around it, and consumers mean the `Message` inside.
    Notified {
        /// The `Message`.
        message: String,
        /// The event that Lambda makes of it.
        event: String,
    },
    /// It is not there. `lost` names it for a backfill, `what` for a reader.
    Missing {
        /// One sentence.
        what: String,
        /// Topics, partitions and offsets; shards and sequence numbers; or what else there is to find it by.
        lost: Value,
    },
    /// Only its beginning is there.
    CutShort(String),
    /// It is there, and a replay would carry a part of it, or the wrong thing.
    Unreadable(String),
    /// It is of what has not failed: a success, or what is still under way.
    NotFailed,
}

/// Why it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The error's type or code.
    pub code: String,
    /// Its message.
    pub words: String,
}

/// The parts of a JSON object, each as it is written.
type Parts<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// What a body must contain to be worth parsing: one of these stands in every record that AWS writes.
const MARKS: [&str; 6] = [
    "\"requestContext\"",
    "BatchInfo\"",
    "\"TopicArn\"",
    "\"subscriberArn\"",
    "\"aws.states\"",
    "\"partnerResourceArn\"",
];
/// Ranges of records, or events, that one reason names at most.
const NAMED: usize = 200;

impl Envelope {
    /// Opens a message. `origin` is the queue that a redrive policy moved it from, `fifo` the kind of the queue that
    /// it is in.
    #[must_use]
    pub fn of(
        body: &str,
        attributes: &HashMap<String, MessageAttributeValue>,
        origin: Option<&str>,
        fifo: bool,
    ) -> Self {
        if let Some(origin) = origin {
            return Self {
                kind: Kind::Redriven,
                names: vec![origin.to_owned()],
                ..Self::default()
            };
        }
        let text = |name: &str| {
            let value = attributes.get(name);
            value.and_then(MessageAttributeValue::string_value)
        };
        // None of these services sends to a FIFO queue.
        let by_attributes = (!fifo)
            .then(|| {
                rule_event(text)
                    .or_else(|| schedule_input(body, text))
                    .or_else(|| dead_letter(text))
            })
            .flatten();
        by_attributes
            .or_else(|| record(body, fifo))
            .unwrap_or_default()
    }

    /// Whether there is something to be delivered.
    #[must_use]
    pub fn holds_payload(&self) -> bool {
        matches!(
            self.payload,
            Payload::Body | Payload::Inside(_) | Payload::Notified { .. }
        )
    }

    /// The text that a schema or a filter is about.
    #[must_use]
    pub fn judged<'a>(&'a self, body: &'a str) -> &'a str {
        match &self.payload {
            Payload::Inside(text) | Payload::Notified { message: text, .. } => text,
            _ => body,
        }
    }

    /// What a queue is sent.
    #[must_use]
    pub fn to_queue<'a>(&'a self, body: &'a str) -> &'a str {
        match &self.payload {
            Payload::Inside(text) => text,
            _ => body,
        }
    }

    /// The event that a function is invoked with.
    #[must_use]
    pub fn to_function<'a>(&'a self, body: &'a str) -> &'a str {
        match &self.payload {
            Payload::Notified { event: text, .. } | Payload::Inside(text) => text,
            _ => body,
        }
    }
}

/// Where a payload lies in S3.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Place {
    /// The bucket's name.
    #[serde(rename = "s3BucketName")]
    pub bucket: String,
    /// The object's key.
    #[serde(rename = "s3Key")]
    pub key: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// Where a payload lies to which the text only points (the Amazon SQS Extended Client Libraries for Java and Python, and
/// SNS's): a list of a class's name and an object's place, in the words of the clients of every age.
#[must_use]
pub fn place_elsewhere(text: &str) -> Option<Place> {
    let begins = text.trim_start().starts_with('[');
    if !begins || !text.contains("S3Pointer\"") {
        return None;
    }
    let (class, place) = serde_json::from_str::<(String, Place)>(text).ok()?;
    class.ends_with("S3Pointer").then_some(place)
}

fn arn_of(text: Option<&str>, service: &str) -> Option<String> {
    let arn: Arn = text?.parse().ok()?;
    (service.is_empty() || arn.service() == service).then(|| arn.as_str().to_owned())
}

/// Lambda's and `EventBridge`'s ids of requests.
fn is_request_id(text: &str) -> bool {
    let mut parts = text.split('-').map(str::len);
    [8, 4, 4, 4, 12]
        .iter()
        .all(|wanted| parts.next() == Some(*wanted))
        && parts.next().is_none()
        && text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn rule_event<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Option<Envelope> {
    let rule = arn_of(text("RULE_ARN"), "events")?;
    let target = arn_of(text("TARGET_ARN"), "")?;
    Some(Envelope {
        kind: Kind::RuleEvent,
        names: vec![target, rule],
        cause: cause(text("ERROR_CODE"), text("ERROR_MESSAGE")),
        ..Envelope::default()
    })
}

fn schedule_input<'a>(body: &str, text: impl Fn(&str) -> Option<&'a str>) -> Option<Envelope> {
    let schedule = arn_of(text("SCHEDULE_ARN"), "scheduler")?;
    let target = arn_of(text("TARGET_ARN"), "")?;
    let cut = text("IS_PAYLOAD_TRUNCATED").is_some_and(|cut| cut.eq_ignore_ascii_case("true"));
    let mut envelope = Envelope {
        kind: Kind::ScheduleInput,
        names: vec![target.clone(), schedule.clone()],
        cause: cause(text("ERROR_CODE"), text("ERROR_MESSAGE")),
        ..Envelope::default()
    };
    if cut {
        envelope.payload = Payload::CutShort(format!(
            "EventBridge Scheduler kept only the beginning of the input of {schedule}"
        ));
    } else if let Some((_, api)) = target.split_once(":aws-sdk:") {
        match universal(api, &schedule, body) {
            Ok((to, input)) => {
                envelope.payload = Payload::Inside(input);
                envelope.names.insert(0, to);
            }
            Err(why) => envelope.payload = Payload::Unreadable(why),
        }
    }
    Some(envelope)
}

/// A universal target's input is a request to an API: whom that is for, and with what; or why it cannot be replayed.
fn universal(api: &str, schedule: &str, body: &str) -> Result<(String, String), String> {
    let request: BTreeMap<String, Value> = serde_json::from_str(body).map_err(|error| {
        format!("the request to {api} that {schedule} was to make is no JSON: {error}")
    })?;
    let field = |name: &str| request.get(name).and_then(Value::as_str);
    let (opened, read): (_, &[&str]) = match api {
        "sqs:sendMessage" => {
            let queue = field("QueueUrl").and_then(queue_arn);
            (
                queue.zip(field("MessageBody")),
                &["QueueUrl", "MessageBody"],
            )
        }
        "lambda:invoke" => {
            let qualifier = field("Qualifier").map(|qualifier| format!(":{qualifier}"));
            let function = field("FunctionName").and_then(|name| function_arn(name, schedule));
            let function = function.map(|function| function + &qualifier.unwrap_or_default());
            let read: &[&str] = &["FunctionName", "Qualifier", "Payload", "InvocationType"];
            (function.zip(field("Payload")), read)
        }
        _ => (None, &[]),
    };
    let more: Vec<&str> = request
        .keys()
        .map(String::as_str)
        .filter(|name| !read.contains(name))
        .collect();
    match opened {
        Some((to, input)) if more.is_empty() => Ok((to, input.to_owned())),
        Some(_) => Err(format!(
            "the request to {api} that {schedule} was to make says more than a replay would carry: {}",
            more.join(", ")
        )),
        None => Err(format!(
            "{schedule} was to make a request to {api}, which is not replayed: make it by hand"
        )),
    }
}

/// A function by its ARN, or by its name in the schedule's region and account.
fn function_arn(name: &str, schedule: &str) -> Option<String> {
    if let Some(arn) = arn_of(Some(name), "lambda") {
        return Some(arn);
    }
    let schedule: Arn = schedule.parse().ok()?;
    let (partition, region, account) =
        (schedule.partition(), schedule.region(), schedule.account());
    (!name.contains(':'))
        .then(|| format!("arn:{partition}:lambda:{region}:{account}:function:{name}"))
}

/// The ARN of the queue with this URL.
fn queue_arn(url: &str) -> Option<String> {
    let rest = url.strip_prefix("https://sqs.")?;
    let (host, path) = rest.split_once('/')?;
    let (region, domain) = host.split_once('.')?;
    let (account, name) = path.split_once('/')?;
    let partition = match domain {
        "amazonaws.com" if region.starts_with("us-gov-") => "aws-us-gov",
        "amazonaws.com" => "aws",
        "amazonaws.com.cn" => "aws-cn",
        _ => return None,
    };
    Some(format!("arn:{partition}:sqs:{region}:{account}:{name}"))
}

fn dead_letter<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Option<Envelope> {
    let request = text("RequestID").filter(|id| is_request_id(id))?;
    let code = text("ErrorCode");
    let is_code = |code: &str| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    if !code.is_none_or(is_code) || (code.is_none() && text("ErrorMessage").is_none()) {
        return None;
    }
    Some(Envelope {
        kind: Kind::DeadLetter,
        request: Some(request.to_owned()),
        cause: cause(code, text("ErrorMessage")),
        ..Envelope::default()
    })
}

fn cause(code: Option<&str>, words: Option<&str>) -> Option<Cause> {
    (code.is_some() || words.is_some()).then(|| Cause {
        code: code.unwrap_or("?").to_owned(),
        words: words.unwrap_or_default().to_owned(),
    })
}

/// Opens a body that AWS wrote.
fn record(body: &str, fifo: bool) -> Option<Envelope> {
    let inside = body.trim_start();
    if !inside.starts_with('{') || !MARKS.iter().any(|mark| inside.contains(mark)) {
        return None;
    }
    let Ok(parts) = serde_json::from_str::<Parts<'_>>(body) else {
        return cut_record(inside).filter(|_| !fifo);
    };
    notification(&parts, fifo)
        .or_else(|| subscriber_record(&parts))
        .or_else(|| if fifo { None } else { batch(&parts) })
        .or_else(|| if fifo { None } else { failure_record(&parts) })
        .or_else(|| execution(&parts))
}

fn part<T: serde::de::DeserializeOwned>(parts: &Parts<'_>, name: &str) -> Option<T> {
    serde_json::from_str(parts.get(name)?.get()).ok()
}

fn string(parts: &Parts<'_>, name: &str) -> Option<String> {
    part(parts, name)
}

/// A record that ends before its end.
fn cut_record(body: &str) -> Option<Envelope> {
    let is_one = body.contains("\"requestContext\"") && body.contains("\"functionArn\"");
    // Anything else that is no JSON is judged as what it is.
    (is_one
        && serde_json::from_str::<serde::de::IgnoredAny>(body).is_err_and(|error| error.is_eof()))
    .then(|| Envelope {
        kind: Kind::FailureRecord,
        payload: Payload::CutShort(
            "the record of a failed invocation ends in the middle".to_owned(),
        ),
        ..Envelope::default()
    })
}

fn failure_record(parts: &Parts<'_>) -> Option<Envelope> {
    let context: Value = part(parts, "requestContext")?;
    let function = arn_of(context["functionArn"].as_str(), "lambda")?;
    let condition = context["condition"].as_str()?;
    if ![
        "requestPayload",
        "responseContext",
        "responsePayload",
        "version",
    ]
    .iter()
    .any(|name| parts.contains_key(*name))
    {
        return None;
    }
    let request = context["requestId"].as_str().unwrap_or_default().to_owned();
    let response: Value = part(parts, "responsePayload").unwrap_or_default();
    let code = response["errorType"].as_str().unwrap_or(condition);
    let payload = parts.get("requestPayload").map(|payload| payload.get());
    Some(Envelope {
        kind: Kind::FailureRecord,
        payload: match payload {
            _ if condition == "Success" => Payload::NotFailed,
            Some(text) if text != "null" => Payload::Inside(text.to_owned()),
            _ => Payload::Missing {
                what: format!(
                    "the record of request {request} of {function} is without the event that it failed with"
                ),
                lost: json!({"function": function, "request_id": request, "timestamp": string(parts, "timestamp")}),
            },
        },
        cause: cause(Some(code), response["errorMessage"].as_str()),
        request: is_request_id(&request).then_some(request),
        names: vec![function],
    })
}

/// A batch of a stream, of which the record tells where it is.
fn batch(parts: &Parts<'_>) -> Option<Envelope> {
    let (_, info) = parts.iter().find(|(name, _)| name.ends_with("BatchInfo"))?;
    let info: Value = serde_json::from_str(info.get()).ok()?;
    let request: Value = part(parts, "requestContext").unwrap_or_default();
    let pipe: Value = part(parts, "context").unwrap_or_default();
    let function = arn_of(request["functionArn"].as_str(), "lambda");
    let through = arn_of(pipe["partnerResourceArn"].as_str(), "");
    let condition = request["condition"].as_str().or(pipe["condition"].as_str());
    let source = ["eventSourceArn", "streamArn"]
        .iter()
        .find_map(|name| info[*name].as_str());
    let (kind, whose) = match (&function, &through) {
        (Some(function), _) => (Kind::SourceBatch, function.clone()),
        (None, Some(pipe)) => (Kind::PipeBatch, pipe.clone()),
        (None, None) => return None,
    };
    let names = [function, through, source.map(str::to_owned)];
    let payload = parts
        .get("payload")
        .and_then(|payload| whole(payload.get()));
    Some(Envelope {
        kind,
        payload: payload.map_or_else(
            || {
                let ranges = ranges(&info);
                let source = source.unwrap_or("its event source");
                Payload::Missing {
                    what: format!("the record holds none of the records of {source} that {whose} did not take: {}", told(&ranges)),
                    lost: json!({"source": source, "batch_size": info["batchSize"], "ranges": ranges}),
                }
            },
            Payload::Inside,
        ),
        cause: cause(condition, None),
        request: None,
        names: names.into_iter().flatten().collect(),
    })
}

/// A batch that stands in the record after all: as an object, or as a text that holds one.
fn whole(payload: &str) -> Option<String> {
    let object =
        |text: &str| serde_json::from_str::<Parts<'_>>(text).is_ok_and(|parts| !parts.is_empty());
    if object(payload) {
        return Some(payload.to_owned());
    }
    let text: String = serde_json::from_str(payload).ok()?;
    object(&text).then_some(text)
}

/// Where the lost records are: of Kafka by topic and partition, of a stream by shard.
fn ranges(info: &Value) -> Vec<Value> {
    let Some(of_topics) = info["recordsInfo"].as_object() else {
        let names = [
            "shardId",
            "startSequenceNumber",
            "endSequenceNumber",
            "approximateArrivalOfFirstRecord",
            "approximateArrivalOfLastRecord",
        ];
        let found = names.iter().filter(|name| !info[**name].is_null());
        let range: serde_json::Map<String, Value> = found
            .map(|name| ((*name).to_owned(), info[*name].clone()))
            .collect();
        return vec![Value::Object(range)];
    };
    let ranges = of_topics.iter().map(|(key, range)| {
        // A topic's name may hold hyphens as well.
        let (topic, partition) = key.rsplit_once('-').unwrap_or((key, "?"));
        let mut named = json!({"topic": topic, "partition": partition});
        for name in [
            "firstRecordOffset",
            "lastRecordOffset",
            "firstRecordTimestamp",
            "lastRecordTimestamp",
        ] {
            if !range[name].is_null() {
                named[name] = range[name].clone();
            }
        }
        named
    });
    ranges.take(NAMED).collect()
}

fn told(ranges: &[Value]) -> String {
    let word = |range: &Value, name: &str| range[name].as_str().unwrap_or("?").to_owned();
    let one = |range: &Value| {
        if range["topic"].is_null() {
            format!(
                "shard {}, sequence numbers {} to {}",
                word(range, "shardId"),
                word(range, "startSequenceNumber"),
                word(range, "endSequenceNumber")
            )
        } else {
            format!(
                "topic {}, partition {}, offsets {} to {}",
                word(range, "topic"),
                word(range, "partition"),
                word(range, "firstRecordOffset"),
                word(range, "lastRecordOffset")
            )
        }
    };
    ranges.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn notification(parts: &Parts<'_>, fifo: bool) -> Option<Envelope> {
    if string(parts, "Type")? != "Notification" {
        return None;
    }
    let topic = arn_of(string(parts, "TopicArn").as_deref(), "sns")?;
    let message = string(parts, "Message")?;
    // A topic may be the failure destination that the queue hears of.
    if let Some(inner) = record(&message, fifo) {
        return Some(inner);
    }
    let subscription = string(parts, "UnsubscribeURL").and_then(|url| {
        let (_, arn) = url.split_once("SubscriptionArn=")?;
        arn_of(arn.split('&').next(), "sns")
    });
    let event = notified(parts, subscription.as_deref())?;
    Some(Envelope {
        kind: Kind::Notification,
        payload: Payload::Notified { message, event },
        names: subscription.into_iter().chain([topic]).collect(),
        ..Envelope::default()
    })
}

/// The event that Lambda makes of a notification (AWS Lambda Developer Guide, "Invoking Lambda functions with Amazon SNS
/// notifications").
fn notified(parts: &Parts<'_>, subscription: Option<&str>) -> Option<String> {
    let mut sns = serde_json::Map::new();
    for (name, value) in parts {
        let name = match name.as_ref() {
            "SigningCertURL" => "SigningCertUrl",
            "UnsubscribeURL" => "UnsubscribeUrl",
            name => name,
        };
        sns.insert(name.to_owned(), serde_json::from_str(value.get()).ok()?);
    }
    for absent in ["Subject", "MessageAttributes"] {
        let empty = if absent == "Subject" {
            Value::Null
        } else {
            json!({})
        };
        sns.entry(absent).or_insert(empty);
    }
    let record = json!({
        "EventVersion": "1.0",
        "EventSubscriptionArn": subscription,
        "EventSource": "aws:sns",
        "Sns": sns,
    });
    Some(json!({"Records": [record]}).to_string())
}

fn subscriber_record(parts: &Parts<'_>) -> Option<Envelope> {
    let bus = arn_of(string(parts, "busArn").as_deref(), "events")?;
    let subscriber = arn_of(string(parts, "subscriberArn").as_deref(), "events")?;
    let failed: Vec<Value> = part(parts, "failedMessages")?;
    let target = arn_of(string(parts, "targetArn").as_deref(), "");
    let ids: Vec<&str> = failed
        .iter()
        .filter_map(|failed| failed["eventId"].as_str())
        .take(NAMED)
        .collect();
    Some(Envelope {
        kind: Kind::SubscriberRecord,
        payload: Payload::Missing {
            what: format!(
                "the record holds none of the {} events of {bus} that {subscriber} did not deliver: {}",
                failed.len(),
                ids.join(", ")
            ),
            lost: json!({"bus": bus, "events": failed.iter().take(NAMED).collect::<Vec<_>>()}),
        },
        cause: cause(
            string(parts, "errorCode").as_deref(),
            string(parts, "errorMessage").as_deref(),
        ),
        request: None,
        names: target.into_iter().chain([subscriber]).collect(),
    })
}

fn execution(parts: &Parts<'_>) -> Option<Envelope> {
    if string(parts, "source")? != "aws.states"
        || string(parts, "detail-type")? != "Step Functions Execution Status Change"
    {
        return None;
    }
    let detail: Value = part(parts, "detail")?;
    let machine = arn_of(detail["stateMachineArn"].as_str(), "states")?;
    let execution = detail["executionArn"].as_str().unwrap_or_default();
    // A rule may pass on every change: what runs is not to be begun again.
    let failed = ["FAILED", "TIMED_OUT", "ABORTED"]
        .iter()
        .any(|status| detail["status"] == *status);
    let included = detail["inputDetails"]["included"] != json!(false);
    let input = detail["input"].as_str().filter(|_| included);
    Some(Envelope {
        kind: Kind::Execution,
        payload: match input {
            _ if !failed => Payload::NotFailed,
            Some(input) => Payload::Inside(input.to_owned()),
            None => Payload::Missing {
                what: format!(
                    "the event is without the input of {execution}, which DescribeExecution gives"
                ),
                lost: json!({"execution": execution, "state_machine": machine}),
            },
        },
        cause: cause(
            detail["error"].as_str().or(detail["status"].as_str()),
            detail["cause"].as_str(),
        ),
        request: None,
        names: vec![machine],
    })
}

#[cfg(test)]
mod tests;
