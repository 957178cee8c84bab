//! A plan and a message that tests start from, each changing what it is about.

use std::collections::HashMap;

use aws_sdk_sqs::types::MessageAttributeValue;
use chrono::DateTime;
use serde_json::{Value, json};
use shared::remediation::{Moment, Planned, PlannedBy};

use crate::DlqReplay;
use crate::envelope::Envelope;
use crate::message::InHand;
use crate::plan::{Observed, Plan, Queue, Reached};
use crate::policy::Replay;
use crate::replay::Progress;

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
        retention_seconds: 1_209_600,
    };
    let observed = Observed {
        source: queue,
        destinations: vec![Reached::Queue(queue), Reached::Function],
        quarantine: Reached::Queue(queue),
        consumers: vec![None, None],
    };
    match decide(&observed, &policy, None) {
        Planned::Act { plan, .. } => plan,
        other => panic!("{other:?}"),
    }
}

/// Decides on an alarm in ALARM, by what earlier rounds saved.
pub(crate) fn decide(
    observed: &Observed,
    policy: &Replay,
    progress: Option<&Progress>,
) -> PlannedBy<DlqReplay> {
    let event = shared::alarm::parse(&json!({
        "source": "aws.cloudwatch",
        "detail-type": "CloudWatch Alarm State Change",
        "account": "123456789012",
        "region": "eu-west-1",
        "time": "2026-01-01T00:00:00Z",
        "resources": ["arn:aws:cloudwatch:eu-west-1:123456789012:alarm:Depth"],
        "detail": {
            "alarmName": "Depth",
            "state": {"value": "ALARM", "timestamp": "2026-01-01T00:00:00.000+0000"},
        },
    }))
    .unwrap();
    crate::plan::plan(
        observed,
        policy,
        &Moment {
            now: DateTime::UNIX_EPOCH,
            resuming: progress.is_some(),
            event: &event,
            incident_id: "inc-1",
            memory: None,
            begun: None,
            progress,
            overtaken: None,
            in_place: None,
            recovered: false,
        },
    )
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
        quarantined_as: None,
        object: None,
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
