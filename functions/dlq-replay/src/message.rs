//! One message: what it is, where it belongs, and how it is sent on unchanged.

use std::collections::HashMap;

use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName as System,
    MessageSystemAttributeNameForSends, MessageSystemAttributeValue, SendMessageBatchRequestEntry,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use shared::arn::Arn;

use crate::error::ReplayError;
use crate::plan::{Plan, Route};
use crate::policy::{Filter, is_fifo};

/// The message attribute that tells how often a message was replayed, and by which run last:
/// a decimal count, a space, and the run's id.
pub const MARK: &str = "ForgeguardReplay";
/// The message attribute that tells why a message is in the quarantine: a JSON object.
pub const QUARANTINED: &str = "ForgeguardQuarantine";
/// SQS takes at most ten attributes a message (Amazon SQS Developer Guide, "Message quotas").
pub const MAX_ATTRIBUTES: usize = 10;

/// A message in hand.
#[derive(Debug, Clone, PartialEq)]
pub struct InHand {
    /// Its id in the dead-letter queue.
    pub id: String,
    /// The handle of its latest receipt.
    pub receipt: String,
    /// Its body.
    pub body: String,
    /// Its message attributes, without lists, which SQS reserves.
    pub attributes: HashMap<String, MessageAttributeValue>,
    /// When it was first sent. A standard queue keeps this time when it moves a message to its
    /// dead-letter queue; a FIFO queue sets it anew.
    pub sent_at: Option<DateTime<Utc>>,
    /// How often it was received.
    pub receive_count: u32,
    /// The queue that it came from.
    pub origin: Option<String>,
    /// Its FIFO group.
    pub group: Option<String>,
    /// The root of its X-Ray trace. The lineage after it would make Lambda count our replay as a loop.
    pub trace_root: Option<String>,
}

impl InHand {
    /// Takes a received message; `None` for one without id, receipt or body, which SQS does not send.
    #[must_use]
    pub fn from_sqs(message: Message) -> Option<Self> {
        let system = |name: System| message.attributes().and_then(|all| all.get(&name)).cloned();
        let sent_at = system(System::SentTimestamp)
            .and_then(|millis| millis.parse().ok())
            .and_then(DateTime::from_timestamp_millis);
        let receive_count = system(System::ApproximateReceiveCount)
            .and_then(|count| count.parse().ok())
            .unwrap_or(0);
        let origin = system(System::DeadLetterQueueSourceArn);
        let group = system(System::MessageGroupId);
        let trace_root = system(System::AwsTraceHeader)
            .as_deref()
            .and_then(trace_root);
        Some(Self {
            id: message.message_id?,
            receipt: message.receipt_handle?,
            body: message.body?,
            attributes: message.message_attributes.unwrap_or_default(),
            sent_at,
            receive_count,
            origin,
            group,
            trace_root,
        })
    }

    /// How often it was replayed, and by which run last, as its mark tells.
    #[must_use]
    pub fn mark(&self) -> Option<(u32, &str)> {
        let (count, run) = self.attributes.get(MARK)?.string_value()?.split_once(' ')?;
        Some((count.parse().ok()?, run))
    }

    /// The request that failed, when a function's asynchronous invocation put the message here.
    #[must_use]
    pub fn failed_request(&self) -> Option<&str> {
        self.text("RequestID")
    }

    /// The key under which the ledger counts its replays, where it does.
    #[must_use]
    pub fn ledger_key(&self) -> &str {
        self.failed_request().unwrap_or(&self.id)
    }

    /// The text of a message attribute.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.attributes
            .get(name)
            .and_then(MessageAttributeValue::string_value)
    }

    /// Its size as SQS counts it: body, and each attribute's name, type and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.body.len()
            + self
                .attributes
                .iter()
                .map(|(name, value)| attribute_bytes(name, value))
                .sum::<usize>()
    }

    /// Whether its attributes have room for one more of this size.
    fn has_room(&self, name: &str, value: &str, max_bytes: usize) -> bool {
        if let Some(present) = self.attributes.get(name) {
            return self.bytes() - attribute_bytes(name, present)
                + name.len()
                + "String".len()
                + value.len()
                <= max_bytes;
        }
        self.attributes.len() < MAX_ATTRIBUTES
            && self.bytes() + name.len() + "String".len() + value.len() <= max_bytes
    }

    /// Whether the ledger, not the message, counts its replays: it has no mark and no room for one.
    #[must_use]
    pub fn is_counted_in_ledger(&self, max_bytes: usize, run_id: &str) -> bool {
        self.mark().is_none() && !self.has_room(MARK, &mark(u32::MAX, run_id), max_bytes)
    }
}

fn attribute_bytes(name: &str, value: &MessageAttributeValue) -> usize {
    let held = value.string_value().map_or(0, str::len)
        + value.binary_value().map_or(0, |blob| blob.as_ref().len());
    name.len() + value.data_type().len() + held
}

fn mark(count: u32, run_id: &str) -> String {
    format!("{count} {run_id}")
}

/// The `Root` field of an X-Ray tracing header.
fn trace_root(header: &str) -> Option<String> {
    header
        .split(';')
        .map(str::trim)
        .find(|field| field.starts_with("Root="))
        .map(str::to_owned)
}

/// Why a message is quarantined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Poison {
    /// It was replayed as often as the policy allows, and came back.
    ReplayedTooOften,
    /// Its body is not what the destination reads.
    Undecodable,
    /// It came from a queue that is no destination of the policy.
    Unroutable,
    /// It is longer than its destination takes.
    TooLarge,
}

impl Poison {
    /// The reason as accounts and attributes name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ReplayedTooOften => "replayed_too_often",
            Self::Undecodable => "undecodable",
            Self::Unroutable => "unroutable",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why a message stays in the dead-letter queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kept {
    /// The policy's filter does not select it.
    Filtered,
    /// It arrived after the run began.
    ArrivedLater,
    /// It could not be delivered.
    Undelivered,
    /// An earlier message of its FIFO group stays, and the order within a group is kept.
    BehindInGroup,
    /// The run stopped.
    Stopped,
}

impl Kept {
    /// The reason as accounts name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::ArrivedLater => "arrived_later",
            Self::Undelivered => "undelivered",
            Self::BehindInGroup => "behind_in_group",
            Self::Stopped => "stopped",
        }
    }
}

/// What is to become of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// To the route of this index.
    Replay(usize),
    /// To the quarantine.
    Quarantine(Poison, String),
    /// It stays.
    Keep(Kept),
}

/// Compiles the policy's schema, as a [`Judge`] wants it.
pub fn compiled(schema: Option<&Value>) -> Result<Option<jsonschema::Validator>, ReplayError> {
    schema
        .map(jsonschema::validator_for)
        .transpose()
        .map_err(|error| ReplayError::Schema(error.to_string()))
}

/// What a message's fate depends on besides the message.
pub struct Judge<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The policy's schema, compiled.
    pub schema: Option<&'a jsonschema::Validator>,
    /// When the run began.
    pub began: DateTime<Utc>,
    /// Now.
    pub now: DateTime<Utc>,
}

impl Judge<'_> {
    /// Decides a message's fate. `replays` is how often it was replayed before.
    #[must_use]
    pub fn fate(&self, message: &InHand, replays: u32) -> Fate {
        // SQS stamps with its own clock, to the millisecond.
        if message.sent_at.is_some_and(|sent_at| sent_at > self.began) {
            return Fate::Keep(Kept::ArrivedLater);
        }
        let filter = &self.plan.filter;
        let needs_json = self.schema.is_some() || filter.reads_body();
        let body: Option<Result<Value, serde_json::Error>> =
            needs_json.then(|| serde_json::from_str(&message.body));
        let json = body.as_ref().and_then(|body| body.as_ref().ok());
        if !self.selects(filter, message, json) {
            return Fate::Keep(Kept::Filtered);
        }
        let allowed = self.plan.limits.max_replays_per_message.get();
        if replays >= allowed {
            let why = format!("it was replayed {replays} times and came back each time");
            return Fate::Quarantine(Poison::ReplayedTooOften, why);
        }
        if let Some(schema) = self.schema {
            match (&body, json) {
                (Some(Err(error)), _) => {
                    return Fate::Quarantine(
                        Poison::Undecodable,
                        format!("its body is no JSON: {error}"),
                    );
                }
                (_, Some(json)) => {
                    if let Err(error) = schema.validate(json) {
                        let why = format!(
                            "its body does not fit the schema at {:?}: {error}",
                            error.instance_path().to_string()
                        );
                        return Fate::Quarantine(Poison::Undecodable, shorten(why));
                    }
                }
                _ => {}
            }
        }
        let wanted = message.origin.as_deref().or(self
            .plan
            .default_destination
            .as_ref()
            .map(Arn::as_str));
        let Some(wanted) = wanted else {
            let why = "it has no origin, and the policy names no default destination".to_owned();
            return Fate::Quarantine(Poison::Unroutable, why);
        };
        let Some(at) = self
            .plan
            .routes
            .iter()
            .position(|route| route.destination.arn.as_str() == wanted)
        else {
            let why = format!("it came from {wanted}, which is no destination of the policy");
            return Fate::Quarantine(Poison::Unroutable, shorten(why));
        };
        let route = &self.plan.routes[at];
        if route.destination.is_function()
            && serde_json::from_str::<serde::de::IgnoredAny>(&message.body).is_err()
        {
            let why = "its body is no JSON, which a function's event must be".to_owned();
            return Fate::Quarantine(Poison::Undecodable, why);
        }
        let bytes = if route.destination.is_function() {
            message.body.len()
        } else {
            message.bytes()
        };
        if bytes > route.max_message_bytes {
            let why = format!(
                "it has {bytes} bytes, and {wanted} takes {}",
                route.max_message_bytes
            );
            return Fate::Quarantine(Poison::TooLarge, why);
        }
        Fate::Replay(at)
    }

    fn selects(&self, filter: &Filter, message: &InHand, json: Option<&Value>) -> bool {
        let (min, max) = filter.ages();
        let age = message.sent_at.map(|sent_at| self.now - sent_at);
        let old_enough = min.is_none_or(|min| age.is_some_and(|age| age >= min));
        let young_enough = max.is_none_or(|max| age.is_some_and(|age| age <= max));
        let attributes = filter.attributes.iter().all(|wanted| {
            message
                .text(&wanted.name)
                .is_some_and(|value| wanted.any_of.iter().any(|one| one == value))
        });
        let body = filter.body.iter().all(|wanted| {
            json.and_then(|json| json.pointer(&wanted.pointer))
                .is_some_and(|value| wanted.any_of.contains(value))
        });
        let origin = filter.source_arns.is_empty()
            || message
                .origin
                .as_deref()
                .is_some_and(|origin| filter.source_arns.iter().any(|arn| arn.as_str() == origin));
        old_enough && young_enough && attributes && body && origin
    }
}

fn shorten(mut text: String) -> String {
    const MAX: usize = 300;
    if text.len() > MAX {
        let end = (0..=MAX)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A message made ready to be sent.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The entry, whose id is the message's position in its batch.
    pub entry: SendMessageBatchRequestEntry,
    /// Its size as SQS counts it.
    pub bytes: usize,
    /// Whether its count or its reason did not fit and belongs in the ledger.
    pub told_in_ledger: bool,
}

/// The deduplication id of a message in a run: a crashed attempt and its retry agree on it, so that the
/// second sending is suppressed; another run has another one, so that an intended second replay is not.
#[must_use]
pub fn deduplication_id(message_id: &str, run_id: &str) -> String {
    shared::ids::digest(&[message_id, run_id], 32)
}

/// Makes a message ready for its destination: everything as it was, with its mark raised.
#[must_use]
pub fn outgoing(
    index: usize,
    message: &InHand,
    route: &Route,
    replays: u32,
    run_id: &str,
) -> Option<Outgoing> {
    let told_in_ledger = message.is_counted_in_ledger(route.max_message_bytes, run_id);
    let mark = (!told_in_ledger).then(|| (MARK, mark(replays + 1, run_id)));
    build(
        index,
        message,
        &route.destination.arn,
        mark,
        run_id,
        told_in_ledger,
    )
}

/// Why a message is quarantined, and what it was, for whoever mends it.
#[must_use]
pub fn reason(message: &InHand, plan: &Plan, poison: Poison, why: &str, run_id: &str) -> Value {
    serde_json::json!({
        "reason": poison.name(),
        "why": why,
        "source": plan.source,
        "origin": message.origin,
        "group": message.group,
        "message_id": message.id,
        "run_id": run_id,
    })
}

/// Makes a message ready for the quarantine, with the reason beside it.
#[must_use]
pub fn quarantined(
    index: usize,
    message: &InHand,
    plan: &Plan,
    reason: &Value,
    run_id: &str,
) -> Option<Outgoing> {
    let reason = reason.to_string();
    let room = message.has_room(QUARANTINED, &reason, plan.quarantine_max_message_bytes);
    let label = room.then_some((QUARANTINED, reason));
    build(index, message, &plan.quarantine, label, run_id, !room)
}

fn build(
    index: usize,
    message: &InHand,
    queue: &Arn,
    label: Option<(&str, String)>,
    run_id: &str,
    told_in_ledger: bool,
) -> Option<Outgoing> {
    let mut attributes = message.attributes.clone();
    let mut bytes = message.bytes();
    if let Some((name, value)) = label {
        if let Some(present) = attributes.get(name) {
            bytes -= attribute_bytes(name, present);
        }
        let value = MessageAttributeValue::builder()
            .data_type("String")
            .string_value(value)
            .build()
            .ok()?;
        bytes += attribute_bytes(name, &value);
        attributes.insert(name.to_owned(), value);
    }
    let trace = message.trace_root.as_ref().and_then(|root| {
        MessageSystemAttributeValue::builder()
            .data_type("String")
            .string_value(root)
            .build()
            .ok()
    });
    let fifo = is_fifo(queue);
    let entry = SendMessageBatchRequestEntry::builder()
        .id(index.to_string())
        .message_body(&message.body)
        .set_message_attributes((!attributes.is_empty()).then_some(attributes))
        .set_message_system_attributes(trace.map(|trace| {
            HashMap::from([(MessageSystemAttributeNameForSends::AwsTraceHeader, trace)])
        }))
        // A standard message in a FIFO quarantine is a group of its own; in a standard queue, a group
        // is a tenant whose share is kept fair.
        .set_message_group_id(
            message
                .group
                .clone()
                .or_else(|| fifo.then(|| message.id.clone())),
        )
        .set_message_deduplication_id(fifo.then(|| deduplication_id(&message.id, run_id)))
        .build()
        .ok()?;
    Some(Outgoing {
        entry,
        bytes,
        told_in_ledger,
    })
}

/// Splits messages into batches that SQS takes: at most ten, and at most `max_bytes` together.
#[must_use]
pub fn batches<T>(items: Vec<(T, usize)>, max_bytes: usize) -> Vec<Vec<T>> {
    const MAX_ENTRIES: usize = 10;
    let mut all = Vec::new();
    let mut batch = Vec::new();
    let mut held = 0;
    for (item, bytes) in items {
        if !batch.is_empty() && (batch.len() == MAX_ENTRIES || held + bytes > max_bytes) {
            all.push(std::mem::take(&mut batch));
            held = 0;
        }
        held += bytes;
        batch.push(item);
    }
    if !batch.is_empty() {
        all.push(batch);
    }
    all
}

/// The event that a function's failed asynchronous invocation was called with.
///
/// A dead-letter queue holds the event itself; an on-failure destination holds a record around it
/// (AWS Lambda Developer Guide, "Retaining records of asynchronous invocations").
#[must_use]
pub fn original_event(body: &str) -> String {
    let record: Option<Value> = serde_json::from_str(body).ok();
    let payload = record.as_ref().and_then(|record| {
        let context = record.get("requestContext")?;
        context.get("functionArn")?;
        context.get("condition")?;
        record.get("requestPayload")
    });
    payload.map_or_else(|| body.to_owned(), Value::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{INGEST, ORDERS, message, plan, string};
    use aws_sdk_sqs::primitives::Blob;
    use proptest::prelude::*;
    use serde_json::json;

    fn fate(plan: &Plan, message: &InHand, replays: u32) -> Fate {
        let schema = plan
            .checks_bodies
            .then(|| jsonschema::validator_for(&json!({"type": "object"})).unwrap());
        Judge {
            plan,
            schema: schema.as_ref(),
            began: DateTime::from_timestamp(2_000, 0).unwrap(),
            now: DateTime::from_timestamp(2_010, 0).unwrap(),
        }
        .fate(message, replays)
    }

    #[test]
    fn a_message_goes_back_to_its_origin_and_one_without_goes_to_the_default() {
        let plan = plan(|_| ());
        assert_eq!(fate(&plan, &message("x"), 0), Fate::Replay(0));
        let straight = InHand {
            origin: None,
            ..message("x")
        };
        assert_eq!(fate(&plan, &straight, 0), Fate::Replay(0));
        let invoked = InHand {
            origin: Some(INGEST.into()),
            ..message("{}")
        };
        assert_eq!(fate(&plan, &invoked, 0), Fate::Replay(1));
    }

    #[test]
    fn poison_is_quarantined_with_its_reason() {
        let plan = plan(|v| v["body_schema"] = json!({"type": "object"}));
        let reason = |message: &InHand, replays| match fate(&plan, message, replays) {
            Fate::Quarantine(poison, _) => poison.name(),
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(&message("not json"), 0), "undecodable");
        assert_eq!(reason(&message("[1]"), 0), "undecodable");
        assert_eq!(reason(&message("{}"), 3), "replayed_too_often");
        let stranger = InHand {
            origin: Some("arn:aws:sqs:eu-west-1:1:other".into()),
            ..message("{}")
        };
        assert_eq!(reason(&stranger, 0), "unroutable");
        let garbage = InHand {
            origin: Some(INGEST.into()),
            ..message("{")
        };
        assert_eq!(reason(&garbage, 0), "undecodable");
    }

    #[test]
    fn a_message_without_origin_or_default_is_unroutable() {
        let plan = plan(|v| v["default_destination"] = Value::Null);
        let straight = InHand {
            origin: None,
            ..message("x")
        };
        assert!(matches!(
            fate(&plan, &straight, 0),
            Fate::Quarantine(Poison::Unroutable, _)
        ));
    }

    #[test]
    fn messages_that_came_later_or_do_not_match_stay() {
        let plan = plan(|v| {
            v["filter"] = json!({
                "min_age_seconds": 60,
                "attributes": [{"name": "kind", "any_of": ["order", "refund"]}],
                "body": [{"pointer": "/tenant/id", "any_of": [7, "seven"]}],
                "source_arns": [ORDERS],
            });
        });
        let mut matching = message(r#"{"tenant":{"id":7}}"#);
        matching.attributes.insert("kind".into(), string("refund"));
        assert_eq!(fate(&plan, &matching, 0), Fate::Replay(0));
        let kept = Fate::Keep(Kept::Filtered);
        let young = InHand {
            sent_at: DateTime::from_timestamp(1_990, 0),
            ..matching.clone()
        };
        assert_eq!(fate(&plan, &young, 0), kept);
        assert_eq!(
            fate(
                &plan,
                &InHand {
                    origin: None,
                    ..matching.clone()
                },
                0
            ),
            kept
        );
        assert_eq!(
            fate(
                &plan,
                &InHand {
                    attributes: HashMap::new(),
                    ..matching.clone()
                },
                0
            ),
            kept
        );
        assert_eq!(
            fate(
                &plan,
                &InHand {
                    body: r#"{"tenant":{"id":8}}"#.into(),
                    ..matching.clone()
                },
                0
            ),
            kept
        );
        let late = InHand {
            sent_at: DateTime::from_timestamp(2_001, 0),
            ..matching
        };
        assert_eq!(fate(&plan, &late, 0), Fate::Keep(Kept::ArrivedLater));
    }

    #[test]
    fn every_attribute_and_the_trace_root_survive_and_the_mark_is_raised() {
        let plan = plan(|_| ());
        let mut sent = message("body");
        sent.trace_root =
            trace_root("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53;Sampled=1;Lineage=a:0");
        sent.attributes.insert(MARK.into(), string("1 run-old"));
        for (name, kind) in [("n", "Number"), ("i", "Number.int"), ("j", "String.json")] {
            let value = MessageAttributeValue::builder()
                .data_type(kind)
                .string_value("12")
                .build()
                .unwrap();
            sent.attributes.insert(name.into(), value);
        }
        let blob = MessageAttributeValue::builder()
            .data_type("Binary.png")
            .binary_value(Blob::new([0_u8, 255, 7]))
            .build()
            .unwrap();
        sent.attributes.insert("b".into(), blob);
        let out = outgoing(0, &sent, &plan.routes[0], 1, "run-new").unwrap();
        let attributes = out.entry.message_attributes().unwrap();
        assert_eq!(attributes[MARK].string_value(), Some("2 run-new"));
        for name in ["n", "i", "j", "b"] {
            assert_eq!(attributes[name], sent.attributes[name]);
        }
        assert!(!out.told_in_ledger);
        let system = out.entry.message_system_attributes().unwrap();
        let trace = &system[&MessageSystemAttributeNameForSends::AwsTraceHeader];
        assert_eq!(
            trace.string_value(),
            Some("Root=1-5759e988-bd862e3fe1be46a994272793")
        );
        assert_eq!(out.entry.message_group_id(), None);
    }

    #[test]
    fn ten_attributes_or_a_full_body_leave_the_count_to_the_ledger() {
        let plan = plan(|_| ());
        let mut full = message("x");
        for n in 0..MAX_ATTRIBUTES {
            full.attributes.insert(format!("a{n}"), string("v"));
        }
        let out = outgoing(0, &full, &plan.routes[0], 0, "run-1").unwrap();
        assert!(out.told_in_ledger);
        assert_eq!(
            out.entry.message_attributes().unwrap().len(),
            MAX_ATTRIBUTES
        );
        let long = message(&"x".repeat(1_048_576));
        let out = outgoing(0, &long, &plan.routes[0], 0, "run-1").unwrap();
        assert!(out.told_in_ledger);
        assert_eq!(out.bytes, 1_048_576);
    }

    #[test]
    fn fifo_messages_keep_their_group_and_deduplicate_by_run() {
        let mut plan = plan(|_| ());
        plan.routes[0].destination.arn = format!("{ORDERS}.fifo").parse().unwrap();
        let grouped = InHand {
            group: Some("g".into()),
            ..message("x")
        };
        let send = |run: &str| {
            outgoing(0, &grouped, &plan.routes[0], 0, run)
                .unwrap()
                .entry
        };
        let first = send("run-1");
        assert_eq!(first.message_group_id(), Some("g"));
        assert_eq!(
            first.message_deduplication_id(),
            send("run-1").message_deduplication_id()
        );
        assert_ne!(
            first.message_deduplication_id(),
            send("run-2").message_deduplication_id()
        );
    }

    #[test]
    fn a_failure_record_gives_the_event_inside_and_an_event_gives_itself() {
        let record = json!({
            "version": "1.0",
            "requestContext": {"functionArn": INGEST, "condition": "RetriesExhausted", "requestId": "r"},
            "requestPayload": {"id": 7},
            "responsePayload": {"errorMessage": "no"},
        });
        assert_eq!(original_event(&record.to_string()), r#"{"id":7}"#);
        assert_eq!(
            original_event(r#"{"requestPayload": 1}"#),
            r#"{"requestPayload": 1}"#
        );
        assert_eq!(original_event("[1, 2]"), "[1, 2]");
    }

    proptest! {
        #[test]
        fn batches_keep_order_and_limits(sizes in prop::collection::vec(0_usize..400, 0..60)) {
            let items: Vec<(usize, usize)> = sizes.iter().copied().enumerate().collect();
            let all = batches(items, 1_000);
            prop_assert_eq!(all.concat(), (0..sizes.len()).collect::<Vec<_>>());
            for batch in all {
                prop_assert!(!batch.is_empty() && batch.len() <= 10);
                let bytes: usize = batch.iter().map(|index| sizes[*index]).sum();
                prop_assert!(bytes <= 1_000);
            }
        }

        #[test]
        fn the_size_is_the_sum_of_all_that_is_sent(body in ".{0,50}", names in prop::collection::hash_set("[a-z]{1,8}", 0..9)) {
            let plan = plan(|_| ());
            let mut sent = message(&body);
            for name in &names {
                sent.attributes.insert(name.clone(), string("value"));
            }
            let out = outgoing(0, &sent, &plan.routes[0], 0, "run-1").unwrap();
            let attributes = out.entry.message_attributes().cloned().unwrap_or_default();
            let sum: usize = attributes.iter().map(|(name, value)| attribute_bytes(name, value)).sum();
            prop_assert_eq!(out.bytes, sum + body.len());
            prop_assert!(attributes.len() <= MAX_ATTRIBUTES);
        }
    }
}
