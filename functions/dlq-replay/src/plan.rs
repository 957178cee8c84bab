//! Decides, from what was observed and the policy alone, whether and how a dead-letter queue is replayed.

use serde::{Deserialize, Serialize};
use shared::arn::Arn;
use shared::outcome::Rule;
use shared::remediation::{Moment, Planned, PlannedBy};

use crate::DlqReplay;
use crate::consumer::{Consumer, first_trouble};
use crate::envelope::Place;
use crate::message::InHand;
use crate::policy::{Canary, Destination, Filter, Limits, Release, Replay};
use crate::replay::Progress;

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
    /// How long the queue keeps a message.
    pub retention_seconds: u64,
}

impl Queue {
    /// All that is in it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.visible + self.in_flight + self.delayed
    }
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
    /// How the destinations' consumers have fared in the last minutes, in the policy's order.
    pub consumers: Vec<Option<Consumer>>,
}

/// A destination with what was observed of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The queue or function.
    #[serde(flatten)]
    pub destination: Destination,
    /// The longest message that it takes.
    pub max_message_bytes: usize,
    /// All that it held before the replay.
    pub backlog: u64,
}

/// A replay, complete: the work makes no choice of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The dead-letter queue.
    pub source: Arn,
    /// How many messages it holds, approximately.
    pub expected: u64,
    /// How long it keeps a message.
    #[serde(default)]
    pub retention_seconds: u64,
    /// Where messages go.
    pub routes: Vec<Route>,
    /// Where messages without an origin go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_destination: Option<Arn>,
    /// Where messages go that must not be replayed.
    pub quarantine: Arn,
    /// The longest message that the quarantine takes.
    pub quarantine_max_message_bytes: usize,
    /// Which messages of a quarantine are let out, where the source is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// Which messages are replayed.
    pub filter: Filter,
    /// Whether bodies are checked against the policy's schema.
    pub checks_bodies: bool,
    /// The buckets in which payloads are looked up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payload_buckets: Vec<String>,
    /// How far the replay may go.
    pub limits: Limits,
    /// The first messages.
    pub canary: Canary,
}

impl Plan {
    /// Where a message's payload is to be looked up, if it is.
    #[must_use]
    pub fn place_to_look_up(&self, message: &InHand) -> Option<Place> {
        let place = message.place_elsewhere()?;
        self.payload_buckets
            .contains(&place.bucket)
            .then_some(place)
    }

    /// Whether anything asks what a payload holds.
    #[must_use]
    pub fn reads_payloads(&self) -> bool {
        self.checks_bodies || self.filter.reads_body()
    }
}

/// The longest payload of an asynchronous invocation (AWS Lambda Developer Guide, "Lambda quotas").
const MAX_ASYNC_PAYLOAD_BYTES: usize = 1_048_576;

/// Decides.
#[must_use]
pub fn plan(
    observed: &Observed,
    policy: &Replay,
    moment: &Moment<'_, DlqReplay>,
) -> PlannedBy<DlqReplay> {
    let Queue {
        visible, in_flight, ..
    } = observed.source;
    // By the time that an alarm fires on a metric, the counts behind it have long settled; an empty
    // queue is believed. A run that resumes still has to conclude.
    if observed.source.total() == 0 && !moment.resuming {
        return Planned::Nothing {
            reason: format!("{} is empty", policy.source),
        };
    }
    if visible == 0 && observed.source.delayed == 0 && !moment.resuming {
        return Planned::Undecided {
            reason: format!(
                "all {in_flight} messages of {} are in some consumer's hand",
                policy.source
            ),
        };
    }
    let cap = u64::from(policy.limits.max_messages.get());
    if visible > cap && policy.filter.selects_all() && !moment.resuming {
        return Planned::Escalate {
            rule: Rule::BlastCap,
            reason: format!(
                "{} holds {visible} messages, and the policy replays at most {cap}; raise limits.max_messages or replay by hand",
                policy.source
            ),
        };
    }
    let mut routes = Vec::with_capacity(policy.destinations.len());
    for (destination, reached) in policy.destinations.iter().zip(&observed.destinations) {
        let (max_message_bytes, backlog) = match reached {
            Reached::Queue(queue) => (queue.max_message_bytes, queue.total()),
            Reached::Function => (MAX_ASYNC_PAYLOAD_BYTES, 0),
            Reached::Gone => return gone("destination", &destination.arn),
        };
        routes.push(Route {
            destination: destination.clone(),
            max_message_bytes,
            backlog,
        });
    }
    let Reached::Queue(quarantine) = &observed.quarantine else {
        return gone("quarantine", &policy.quarantine);
    };
    if let Some(reason) = not_yet(&routes, observed, policy, moment) {
        return Planned::Undecided { reason };
    }
    Planned::Act {
        plan: Plan {
            source: policy.source.clone(),
            expected: observed.source.total(),
            retention_seconds: observed.source.retention_seconds,
            routes,
            default_destination: policy.default_destination.clone(),
            quarantine: policy.quarantine.clone(),
            quarantine_max_message_bytes: quarantine.max_message_bytes,
            release: policy.release.clone(),
            filter: policy.filter.clone(),
            checks_bodies: policy.body_schema.is_some(),
            payload_buckets: policy.payload_buckets.clone(),
            limits: policy.limits,
            canary: policy.canary,
        },
        // A replay is not temporary: there is no state to go back to.
        snapshot: None,
    }
}

/// Why nothing more is sent for now: a consumer is not well, or has not consumed what it was given.
fn not_yet(
    routes: &[Route],
    observed: &Observed,
    policy: &Replay,
    moment: &Moment<'_, DlqReplay>,
) -> Option<String> {
    let percent = policy.limits.max_consumer_failure_percent.get();
    let consumers = observed.consumers.iter().zip(&observed.destinations);
    let consumers = consumers.map(|(consumer, reached)| {
        let in_flight = match reached {
            Reached::Queue(queue) => queue.in_flight,
            Reached::Function | Reached::Gone => 0,
        };
        (consumer.as_ref(), in_flight)
    });
    if let Some(trouble) = first_trouble(consumers, percent) {
        return Some(format!(
            "{trouble}; {} messages stay in {} until it is well",
            observed.source.total(),
            policy.source
        ));
    }
    let totals = routes
        .iter()
        .map(|route| (route.destination.arn.as_str(), route.backlog));
    let canary = moment
        .progress
        .and_then(Progress::unconsumed_canary)
        .filter(|_| policy.canary.is_watched())?;
    canary.unconsumed(totals, moment.now).map(|left| {
        format!(
            "{left}; {} messages stay in {} until it is consumed",
            observed.source.total(),
            policy.source
        )
    })
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
    use crate::sample::decide;
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
            retention_seconds: 1_209_600,
        }
    }

    fn observed(visible: u64) -> Observed {
        Observed {
            source: queue(visible),
            destinations: vec![Reached::Queue(queue(7)), Reached::Function],
            quarantine: Reached::Queue(queue(0)),
            consumers: vec![None, None],
        }
    }

    #[test]
    fn a_full_plan_leaves_no_choice() {
        let Planned::Act { plan, snapshot } = decide(&observed(500), &policy(), None) else {
            panic!("no plan");
        };
        assert_eq!(snapshot, None);
        insta::assert_json_snapshot!(plan);
    }

    #[test]
    fn an_empty_queue_is_left_alone_unless_a_run_resumes() {
        assert!(matches!(
            decide(&observed(0), &policy(), None),
            Planned::Nothing { .. }
        ));
        assert!(matches!(
            decide(&observed(0), &policy(), Some(&Progress::default())),
            Planned::Act { .. }
        ));
    }

    #[test]
    fn messages_in_somebodys_hand_are_waited_for() {
        let mut observed = observed(0);
        observed.source.in_flight = 3;
        let Planned::Undecided { reason } = decide(&observed, &policy(), None) else {
            panic!()
        };
        assert!(reason.contains("all 3 messages"), "{reason}");
    }

    #[test]
    fn the_cap_aborts_and_never_truncates() {
        assert!(matches!(
            decide(&observed(1_000), &policy(), None),
            Planned::Act { .. }
        ));
        let Planned::Escalate { rule, reason } = decide(&observed(1_001), &policy(), None) else {
            panic!()
        };
        assert_eq!(rule, Rule::BlastCap);
        assert!(reason.contains("holds 1001 messages"), "{reason}");
    }

    #[test]
    fn a_cap_binds_what_is_replayed_and_not_what_a_filter_leaves() {
        let mut policy = policy();
        policy.filter.causes = vec!["Timeout".to_owned()];
        assert!(matches!(
            decide(&observed(1_001), &policy, None),
            Planned::Act { .. }
        ));
    }

    fn undecided(observed: &Observed, progress: Option<&Progress>) -> String {
        match decide(observed, &policy(), progress) {
            Planned::Undecided { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_sent_to_a_consumer_that_is_not_well() {
        let failing = Consumer {
            function: "orders".into(),
            invocations: 10,
            errors: 10,
            ..Consumer::default()
        };
        let observed = Observed {
            consumers: vec![Some(failing), None],
            ..observed(500)
        };
        let reason = undecided(&observed, None);
        assert_eq!(
            reason,
            "10 of 10 invocations of orders failed; 500 messages stay in arn:aws:sqs:eu-west-1:123456789012:dlq until it is well"
        );
        assert_eq!(undecided(&observed, Some(&Progress::default())), reason);
    }

    #[test]
    fn nothing_follows_a_canary_that_is_not_consumed() {
        let progress: Progress = serde_json::from_value(json!({
            "account": crate::account::Account::default(),
            "canary_passed": false,
            "died": false,
            "canary": {
                "sent_at": "2026-01-01T00:00:00Z",
                "watched": {
                    "arn:aws:sqs:eu-west-1:123456789012:orders": {"before": 2, "sent": 5, "peak": 7},
                },
            },
        }))
        .unwrap();
        // It holds what it got, and another hand has some of it.
        let mut held = observed(500);
        held.destinations[0] = Reached::Queue(Queue {
            in_flight: 3,
            delayed: 1,
            ..queue(3)
        });
        let reason = undecided(&held, Some(&progress));
        assert!(
            reason.contains("the canary of 5 messages") && reason.contains("holds 7"),
            "{reason}"
        );
        held.destinations[0] = Reached::Queue(queue(2));
        assert!(matches!(
            decide(&held, &policy(), Some(&progress)),
            Planned::Act { .. }
        ));
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
            let Planned::Escalate { rule, reason } = decide(&observed, &policy(), None) else {
                panic!()
            };
            assert_eq!(rule, Rule::Unsafe);
            assert!(reason.contains("does not exist"), "{reason}");
        }
    }
}
