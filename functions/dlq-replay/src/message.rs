//! One message: what it is, where it belongs, and how it is sent on unchanged.

use std::collections::HashMap;

use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName as System,
    MessageSystemAttributeNameForSends, MessageSystemAttributeValue, SendMessageBatchRequestEntry,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::arn::Arn;

use crate::envelope::{self, Envelope, Place};
use crate::object::Object;
use crate::plan::{Plan, Route};
use crate::policy::is_fifo;

/// The message attribute that tells how often a message was replayed, and by which run last:
/// a decimal count, a space, and the run's id.
pub const MARK: &str = "ForgeguardReplay";
/// The message attribute that tells why a message is in the quarantine: a JSON object.
pub const QUARANTINED: &str = "ForgeguardQuarantine";
/// SQS takes at most ten attributes a message (Amazon SQS Developer Guide, "Message quotas").
pub const MAX_ATTRIBUTES: usize = 10;

/// How often a message was replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replays {
    /// How often.
    pub count: u32,
    /// By which run last.
    pub run: String,
}

/// What a message's label in a quarantine tells of it.
#[derive(Deserialize)]
struct Label {
    reason: String,
    #[serde(default)]
    origin: Option<String>,
}

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
    /// What AWS put around its payload.
    pub envelope: Envelope,
    /// Why it was quarantined, of one that is to be let out.
    pub quarantined_as: Option<String>,
    /// The object that it points to, where that was looked up.
    pub object: Option<Object>,
}

impl InHand {
    /// Takes a message received from a queue, which is `fifo` or not; `None` for one without id, receipt or body, which
    /// SQS does not send.
    #[must_use]
    pub fn from_sqs(message: Message, fifo: bool) -> Option<Self> {
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
        let body = message.body?;
        let attributes = message.message_attributes.unwrap_or_default();
        let envelope = Envelope::of(&body, &attributes, origin.as_deref(), fifo);
        Some(Self {
            id: message.message_id?,
            receipt: message.receipt_handle?,
            body,
            attributes,
            sent_at,
            receive_count,
            origin,
            group,
            trace_root,
            envelope,
            quarantined_as: None,
            object: None,
        })
    }

    /// The message as it was before it was quarantined: from where it had come, without label and mark, so that its
    /// replays count anew. One without a label stays as it is.
    #[must_use]
    pub fn released(mut self, fifo: bool) -> Self {
        let label = self.text(QUARANTINED).map(serde_json::from_str);
        let Some(Ok(Label { reason, origin })) = label else {
            return self;
        };
        self.attributes.remove(QUARANTINED);
        self.attributes.remove(MARK);
        self.envelope = Envelope::of(&self.body, &self.attributes, origin.as_deref(), fifo);
        self.origin = origin;
        self.quarantined_as = Some(reason);
        self
    }

    /// How often it was replayed, and by which run last, as its mark tells.
    #[must_use]
    pub fn mark(&self) -> Option<Replays> {
        let (count, run) = self.attributes.get(MARK)?.string_value()?.split_once(' ')?;
        Some(Replays {
            count: count.parse().ok()?,
            run: run.to_owned(),
        })
    }

    /// The key under which the ledger counts its replays, where it does: what followed the message through its last
    /// replay, which is the request of an invocation or the id of a message.
    #[must_use]
    pub fn ledger_key(&self) -> &str {
        self.envelope.request.as_deref().unwrap_or(&self.id)
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
        self.body.len() + self.attribute_bytes()
    }

    pub(crate) fn attribute_bytes(&self) -> usize {
        self.attributes
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

    /// The text that a schema or a filter is about.
    #[must_use]
    pub fn judged(&self) -> &str {
        match &self.object {
            Some(Object::Read(text)) => text,
            _ => self.envelope.judged(&self.body),
        }
    }

    /// Where its payload lies, if it only points to it.
    #[must_use]
    pub fn place_elsewhere(&self) -> Option<Place> {
        envelope::place_elsewhere(self.envelope.judged(&self.body))
    }

    /// Whether its payload would decide, and could not be looked up for a moment.
    #[must_use]
    pub fn is_unanswered(&self, plan: &Plan) -> bool {
        self.object == Some(Object::Unanswered) && plan.reads_payloads()
    }

    /// Whether its payload is there to be looked into: not missing, nor in S3 unread.
    #[must_use]
    pub fn is_looked_into(&self) -> bool {
        let is_read = matches!(self.object, Some(Object::Read(_)));
        self.envelope.holds_payload() && (is_read || self.place_elsewhere().is_none())
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
        message.envelope.to_queue(&message.body),
        &route.destination.arn,
        mark,
        run_id,
        told_in_ledger,
    )
}

/// A text as SQS takes it: without the characters that are none of XML 1.0's (Amazon SQS API Reference, `SendMessage`).
#[must_use]
pub fn acceptable(text: &str) -> String {
    let is_taken = |char: char| matches!(char, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars()
        .map(|char| {
            if is_taken(char) {
                char
            } else {
                char::REPLACEMENT_CHARACTER
            }
        })
        .collect()
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
    let reason = acceptable(&reason.to_string());
    let room = message.has_room(QUARANTINED, &reason, plan.quarantine_max_message_bytes);
    let label = room.then_some((QUARANTINED, reason));
    // It stays as it came, with its envelope.
    build(
        index,
        message,
        &message.body,
        &plan.quarantine,
        label,
        run_id,
        !room,
    )
}

fn build(
    index: usize,
    message: &InHand,
    body: &str,
    queue: &Arn,
    label: Option<(&str, String)>,
    run_id: &str,
    told_in_ledger: bool,
) -> Option<Outgoing> {
    let mut attributes = message.attributes.clone();
    let mut bytes = body.len() + message.attribute_bytes();
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
        .message_body(body)
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

#[cfg(test)]
mod released {
    use super::*;
    use crate::sample::{INGEST, ORDERS, message, plan, straight, string};
    use serde_json::json;

    #[test]
    fn a_released_message_is_what_it_was_before_it_was_quarantined() {
        let mut before = message("{}");
        before.attributes.insert("colour".into(), string("red"));
        let mut worn = before.clone();
        worn.attributes.insert(MARK.into(), string("3 run-1"));
        let plan = plan(|_| ());
        let poison = crate::judge::Poison::ReplayedTooOften;
        let reason = crate::judge::reason(&worn, &plan, poison, "it came back", "run-2");
        let sent = quarantined(0, &worn, &plan, &reason, "run-2")
            .unwrap()
            .entry;
        // As it is received from the quarantine, which knows no origin.
        let held = InHand {
            attributes: sent.message_attributes.clone().unwrap(),
            ..straight(sent.message_body())
        };
        let released = held.released(false);
        assert_eq!(
            released.quarantined_as.as_deref(),
            Some("replayed_too_often")
        );
        assert_eq!(released.attributes, before.attributes);
        assert_eq!(released.origin.as_deref(), Some(ORDERS));
        assert_eq!(released.envelope, before.envelope);
        assert_eq!(released.mark(), None);
    }

    #[test]
    fn a_failure_record_is_opened_anew() {
        let record = json!({
            "version": "1.0",
            "requestContext": {"requestId": "r-1", "functionArn": INGEST, "condition": "RetriesExhausted"},
            "requestPayload": {"n": 1},
        });
        let mut held = straight(&record.to_string());
        let names = held.envelope.names.clone();
        let label = json!({"reason": "undecodable", "why": "its body does not fit"}).to_string();
        held.attributes.insert(QUARANTINED.into(), string(&label));
        let released = held.released(false);
        assert_eq!(released.envelope.names, names);
        assert_eq!(released.quarantined_as.as_deref(), Some("undecodable"));
    }

    #[test]
    fn what_says_nothing_of_a_quarantine_stays_as_it_is() {
        for label in [None, Some("no JSON"), Some("{}")] {
            let mut held = straight("{}");
            held.attributes
                .extend(label.map(|label| (QUARANTINED.to_owned(), string(label))));
            assert_eq!(held.clone().released(false), held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{ORDERS, message, plan, string};
    use aws_sdk_sqs::primitives::Blob;
    use proptest::prelude::*;

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
