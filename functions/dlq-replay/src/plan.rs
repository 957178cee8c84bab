//! Decides, from what was observed and the policy alone, whether and how a dead-letter queue is replayed.

use serde::{Deserialize, Serialize};
use shared::arn::Arn;
use shared::outcome::Rule;
use shared::remediation::{Planned, PlannedBy};

use crate::DlqReplay;
use crate::policy::{Canary, Destination, Filter, Limits, Replay};

/// A queue as it was observed. SQS counts approximately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Messages that can be received.
    pub visible: u64,
    /// Messages that some consumer has in hand.
    pub in_flight: u64,
    /// Messages whose delay has not passed.
    pub delayed: u64,
    /// The longest message that the queue takes, attributes included.
    pub max_message_bytes: usize,
}

/// A destination as it was observed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// A queue that is there.
    Queue(Queue),
    /// A function. Whether it is there shows with the first invocation, whose refusal changes nothing.
    Function,
    /// A queue that does not exist.
    Gone,
}

/// All that was observed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observed {
    /// The dead-letter queue.
    pub source: Queue,
    /// The destinations, in the policy's order.
    pub destinations: Vec<Reached>,
    /// The quarantine.
    pub quarantine: Reached,
    /// Errors of the destinations' consumers in the last minutes, in the policy's order.
    pub consumer_errors: Vec<Option<f64>>,
}

/// A destination with what was observed of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The queue or function.
    #[serde(flatten)]
    pub destination: Destination,
    /// The longest message that it takes.
    pub max_message_bytes: usize,
    /// Its backlog before the replay.
    pub backlog: u64,
    /// Errors of its consumer in the minutes before the replay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_errors: Option<f64>,
}

/// A replay, complete: the work makes no choice of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The dead-letter queue.
    pub source: Arn,
    /// How many messages it holds, approximately.
    pub expected: u64,
    /// Where messages go.
    pub routes: Vec<Route>,
    /// Where messages without an origin go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_destination: Option<Arn>,
    /// Where messages go that must not be replayed.
    pub quarantine: Arn,
    /// The longest message that the quarantine takes.
    pub quarantine_max_message_bytes: usize,
    /// Which messages are replayed.
    pub filter: Filter,
    /// Whether bodies are checked against the policy's schema.
    pub checks_bodies: bool,
    /// How far the replay may go.
    pub limits: Limits,
    /// The first messages.
    pub canary: Canary,
}

/// The longest payload of an asynchronous invocation (AWS Lambda Developer Guide, "Lambda quotas").
const MAX_ASYNC_PAYLOAD_BYTES: usize = 1_048_576;

/// Decides. `resuming`: an earlier round or attempt of the same run has already begun the work.
#[must_use]
pub fn plan(observed: &Observed, policy: &Replay, resuming: bool) -> PlannedBy<DlqReplay> {
    let Queue {
        visible,
        in_flight,
        delayed,
        ..
    } = observed.source;
    // By the time that an alarm fires on a metric, the counts behind it have long settled; an empty
    // queue is believed. A run that resumes still has to conclude.
    if visible == 0 && delayed == 0 && !resuming {
        let reason = if in_flight == 0 {
            format!("{} is empty", policy.source)
        } else {
            format!(
                "all {in_flight} messages of {} are in some consumer's hand",
                policy.source
            )
        };
        return Planned::Nothing { reason };
    }
    let cap = u64::from(policy.limits.max_messages.get());
    if visible > cap {
        return Planned::Escalate {
            rule: Rule::BlastCap,
            reason: format!(
                "{} holds {visible} messages, and the policy replays at most {cap}; raise limits.max_messages or replay by hand",
                policy.source
            ),
        };
    }
    let mut routes = Vec::with_capacity(policy.destinations.len());
    for ((destination, reached), errors) in policy
        .destinations
        .iter()
        .zip(&observed.destinations)
        .zip(&observed.consumer_errors)
    {
        let (max_message_bytes, backlog) = match reached {
            Reached::Queue(queue) => (queue.max_message_bytes, queue.visible),
            Reached::Function => (MAX_ASYNC_PAYLOAD_BYTES, 0),
            Reached::Gone => return gone("destination", &destination.arn),
        };
        routes.push(Route {
            destination: destination.clone(),
            max_message_bytes,
            backlog,
            consumer_errors: *errors,
        });
    }
    let Reached::Queue(quarantine) = &observed.quarantine else {
        return gone("quarantine", &policy.quarantine);
    };
    Planned::Act {
        plan: Plan {
            source: policy.source.clone(),
            expected: visible,
            routes,
            default_destination: policy.default_destination.clone(),
            quarantine: policy.quarantine.clone(),
            quarantine_max_message_bytes: quarantine.max_message_bytes,
            filter: policy.filter.clone(),
            checks_bodies: policy.body_schema.is_some(),
            limits: policy.limits,
            canary: policy.canary,
        },
        // A replay is not temporary: there is no state to go back to.
        snapshot: None,
    }
}

fn gone(role: &str, arn: &Arn) -> PlannedBy<DlqReplay> {
    Planned::Escalate {
        rule: Rule::Unsafe,
        reason: format!(
            "the {role} {arn} does not exist; create it or correct the policy. No message was touched"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy() -> Replay {
        serde_json::from_value(json!({
            "source": "arn:aws:sqs:eu-west-1:123456789012:dlq",
            "destinations": [
                {"arn": "arn:aws:sqs:eu-west-1:123456789012:orders", "consumer_function": "orders"},
                {"arn": "arn:aws:lambda:eu-west-1:123456789012:function:ingest"},
            ],
            "default_destination": "arn:aws:sqs:eu-west-1:123456789012:orders",
            "quarantine": "arn:aws:sqs:eu-west-1:123456789012:quarantine",
            "limits": {"max_messages": 1000},
        }))
        .unwrap()
    }

    fn queue(visible: u64) -> Queue {
        Queue {
            visible,
            in_flight: 0,
            delayed: 0,
            max_message_bytes: 262_144,
        }
    }

    fn observed(visible: u64) -> Observed {
        Observed {
            source: queue(visible),
            destinations: vec![Reached::Queue(queue(7)), Reached::Function],
            quarantine: Reached::Queue(queue(0)),
            consumer_errors: vec![Some(2.0), None],
        }
    }

    #[test]
    fn a_full_plan_leaves_no_choice() {
        let Planned::Act { plan, snapshot } = plan(&observed(500), &policy(), false) else {
            panic!("no plan");
        };
        assert_eq!(snapshot, None);
        insta::assert_json_snapshot!(plan);
    }

    #[test]
    fn an_empty_queue_is_left_alone_unless_a_run_resumes() {
        assert!(matches!(
            plan(&observed(0), &policy(), false),
            Planned::Nothing { .. }
        ));
        assert!(matches!(
            plan(&observed(0), &policy(), true),
            Planned::Act { .. }
        ));
    }

    #[test]
    fn messages_in_flight_are_named() {
        let mut observed = observed(0);
        observed.source.in_flight = 3;
        let Planned::Nothing { reason } = plan(&observed, &policy(), false) else {
            panic!()
        };
        assert!(reason.contains("all 3 messages"), "{reason}");
    }

    #[test]
    fn the_cap_aborts_and_never_truncates() {
        assert!(matches!(
            plan(&observed(1_000), &policy(), false),
            Planned::Act { .. }
        ));
        let Planned::Escalate { rule, reason } = plan(&observed(1_001), &policy(), false) else {
            panic!()
        };
        assert_eq!(rule, Rule::BlastCap);
        assert!(reason.contains("holds 1001 messages"), "{reason}");
    }

    #[test]
    fn a_queue_that_is_gone_stops_everything_by_name() {
        for at in 0..2 {
            let mut observed = observed(5);
            if at == 0 {
                observed.destinations[0] = Reached::Gone;
            } else {
                observed.quarantine = Reached::Gone;
            }
            let Planned::Escalate { rule, reason } = plan(&observed, &policy(), false) else {
                panic!()
            };
            assert_eq!(rule, Rule::Unsafe);
            assert!(reason.contains("does not exist"), "{reason}");
        }
    }
}
