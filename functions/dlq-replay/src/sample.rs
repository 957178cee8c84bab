//! A plan and a message that tests start from, each changing what it is about.

use std::collections::HashMap;

use aws_sdk_sqs::types::MessageAttributeValue;
use chrono::DateTime;
use serde_json::{Value, json};
use shared::remediation::Planned;

use crate::envelope::Envelope;
use crate::message::InHand;
use crate::plan::{Observed, Plan, Queue, Reached};
use crate::policy::Replay;

pub(crate) const ORDERS: &str = "arn:aws:sqs:eu-west-1:123456789012:orders";
pub(crate) const INGEST: &str = "arn:aws:lambda:eu-west-1:123456789012:function:ingest";

/// A plan with a queue and a function to go to, by a policy that `change` changes first.
pub(crate) fn plan(change: impl FnOnce(&mut Value)) -> Plan {
    let mut value = json!({
        "source": "arn:aws:sqs:eu-west-1:123456789012:dlq",
        "destinations": [{"arn": ORDERS}, {"arn": INGEST}],
        "default_destination": ORDERS,
        "quarantine": "arn:aws:sqs:eu-west-1:123456789012:quarantine",
    });
    change(&mut value);
    let policy: Replay = serde_json::from_value(value).unwrap();
    let queue = Queue {
        visible: 10,
        in_flight: 0,
        delayed: 0,
        max_message_bytes: 1_048_576,
    };
    let observed = Observed {
        source: queue,
        destinations: vec![Reached::Queue(queue), Reached::Function],
        quarantine: Reached::Queue(queue),
        consumer_errors: vec![None, None],
    };
    match crate::plan::plan(&observed, &policy, false) {
        Planned::Act { plan, .. } => plan,
        other => panic!("{other:?}"),
    }
}

/// A string attribute.
pub(crate) fn string(value: &str) -> MessageAttributeValue {
    MessageAttributeValue::builder()
        .data_type("String")
        .string_value(value)
        .build()
        .unwrap()
}

/// A message that came from the queue `ORDERS`.
pub(crate) fn message(body: &str) -> InHand {
    InHand {
        id: "4f7c2a".into(),
        receipt: "r".into(),
        body: body.into(),
        attributes: HashMap::new(),
        sent_at: DateTime::from_timestamp(1_000, 0),
        receive_count: 1,
        origin: Some(ORDERS.into()),
        group: None,
        trace_root: None,
        envelope: Envelope::of(body, &HashMap::new(), Some(ORDERS), false),
    }
}

/// The message, changed, with its envelope opened anew.
pub(crate) fn opened(message: InHand) -> InHand {
    let origin = message.origin.as_deref();
    let envelope = Envelope::of(&message.body, &message.attributes, origin, false);
    InHand {
        envelope,
        ..message
    }
}

/// A message that came from nowhere that it says.
pub(crate) fn straight(body: &str) -> InHand {
    opened(InHand {
        origin: None,
        ..message(body)
    })
}

/// The message of this id.
pub(crate) fn named(id: &str) -> InHand {
    InHand {
        id: id.into(),
        ..message("{}")
    }
}
