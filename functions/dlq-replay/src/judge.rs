//! What is to become of a message: replayed by a route, quarantined with a reason, or kept.

use chrono::{DateTime, Utc};
use serde_json::Value;
use shared::arn::Arn;

use crate::envelope::{Envelope, Payload, Place};
use crate::error::ReplayError;
use crate::message::InHand;
use crate::object::Object;
use crate::plan::{Plan, Route};
use crate::policy::{Destination, Filter, is_one_function};

/// Why a message is quarantined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Poison {
    /// It was replayed as often as the policy allows, and came back.
    ReplayedTooOften,
    /// Its body is not what the destination reads.
    Undecodable,
    /// It was for somebody who is no destination of the policy.
    Unroutable,
    /// It is longer than its destination takes.
    TooLarge,
    /// It only tells of a payload that is not there.
    NoPayload,
    /// It points to an object in S3 that is not there.
    DanglingPointer,
    /// Only the beginning of its payload is there.
    CutShort,
    /// It tells of what has not failed.
    NotFailed,
}

impl Poison {
    /// All reasons, as accounts and attributes name them.
    pub const NAMES: [&'static str; 8] = [
        Self::ReplayedTooOften.name(),
        Self::Undecodable.name(),
        Self::Unroutable.name(),
        Self::TooLarge.name(),
        Self::NoPayload.name(),
        Self::DanglingPointer.name(),
        Self::CutShort.name(),
        Self::NotFailed.name(),
    ];

    /// The reason as accounts and attributes name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReplayedTooOften => "replayed_too_often",
            Self::Undecodable => "undecodable",
            Self::Unroutable => "unroutable",
            Self::TooLarge => "too_large",
            Self::NoPayload => "no_payload",
            Self::DanglingPointer => "dangling_pointer",
            Self::CutShort => "cut_short",
            Self::NotFailed => "not_failed",
        }
    }
}

/// Why a message stays in the dead-letter queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kept {
    /// The policy's filter does not select it.
    Filtered,
    /// It was sent after the run began.
    ArrivedLater,
    /// It is in quarantine, and the reasons to let a message out do not name its own, or it is still unfit.
    Quarantined,
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
            Self::Quarantined => "quarantined",
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
        let Some(release) = &self.plan.release else {
            return self.fate_outside(message, replays);
        };
        let was = message.quarantined_as.as_ref();
        if !was.is_some_and(|was| release.reasons.contains(was)) {
            return Fate::Keep(Kept::Quarantined);
        }
        // Its replays count from its release on.
        match self.fate_outside(message, 0) {
            Fate::Quarantine(..) => Fate::Keep(Kept::Quarantined),
            fate => fate,
        }
    }

    fn fate_outside(&self, message: &InHand, replays: u32) -> Fate {
        // SQS stamps with its own clock, to the millisecond.
        if message.sent_at.is_some_and(|sent_at| sent_at > self.began) {
            return Fate::Keep(Kept::ArrivedLater);
        }
        let filter = &self.plan.filter;
        // What it holds decides, and another attempt may tell.
        if message.is_unanswered(self.plan) && self.selects(filter, message) {
            return Fate::Keep(Kept::Undelivered);
        }
        let readable = message.is_looked_into();
        let needs_json = readable && (self.schema.is_some() || filter.reads_body());
        let body: Option<Result<Value, serde_json::Error>> =
            needs_json.then(|| serde_json::from_str(message.judged()));
        let json = body.as_ref().and_then(|body| body.as_ref().ok());
        if !self.selects(filter, message) || (readable && !has_values(filter, json)) {
            return Fate::Keep(Kept::Filtered);
        }
        if let Some(Object::Gone(place)) = &message.object {
            let why = format!("it points to {place}, where there is no object");
            return Fate::Quarantine(Poison::DanglingPointer, shorten(why));
        }
        if let Some((poison, why)) = absent(&message.envelope.payload) {
            return Fate::Quarantine(poison, shorten(why));
        }
        let allowed = self.plan.limits.max_replays_per_message.get();
        if replays >= allowed {
            let why = format!("it was replayed {replays} times and came back each time");
            return Fate::Quarantine(Poison::ReplayedTooOften, why);
        }
        if let Some(why) = body.and_then(|body| self.misfit(body)) {
            return Fate::Quarantine(Poison::Undecodable, shorten(why));
        }
        match self.route(message) {
            Ok(at) => fits(message, at, &self.plan.routes[at]),
            Err(why) => Fate::Quarantine(Poison::Unroutable, shorten(why)),
        }
    }

    /// Why a body does not fit the schema, where there is one.
    fn misfit(&self, body: Result<Value, serde_json::Error>) -> Option<String> {
        let schema = self.schema?;
        match body {
            Err(error) => Some(format!("its body is no JSON: {error}")),
            Ok(json) => schema.validate(&json).err().map(|error| {
                format!(
                    "its body does not fit the schema at {:?}: {error}",
                    error.instance_path().to_string()
                )
            }),
        }
    }

    /// The route of whom the message was for; of one that does not say, the default.
    fn route(&self, message: &InHand) -> Result<usize, String> {
        let routes = &self.plan.routes;
        let names = &message.envelope.names;
        let Some(first) = names.first() else {
            let default = self.plan.default_destination.as_ref();
            return default
                .and_then(|default| routes.iter().position(|route| route.destination.arn == *default))
                .ok_or_else(|| "it does not say where it came from, and the policy names no default destination".to_owned());
        };
        let at = |serves: fn(&Destination, &str) -> bool| {
            names.iter().find_map(|name| {
                let mut routes = routes.iter();
                routes.position(|route| serves(&route.destination, name))
            })
        };
        // What the policy says in so many words comes first.
        let serving = at(Destination::serves).or_else(|| at(Destination::is));
        let serving = serving.or_else(|| {
            names.iter().find_map(|name| {
                let same = |(_, route): &(usize, &Route)| route.destination.is_one_with(name);
                let mut alike = routes.iter().enumerate().filter(same);
                let (only, _) = alike.next()?;
                // Of two versions or aliases of a function the message does not say which.
                alike.next().is_none().then_some(only)
            })
        });
        serving.ok_or_else(|| {
            let through = names[1..].join(", through ");
            let through = if through.is_empty() {
                through
            } else {
                format!(", through {through}")
            };
            format!(
                "it was for {first}{through}, and no destination of the policy is or serves that"
            )
        })
    }

    fn selects(&self, filter: &Filter, message: &InHand) -> bool {
        let (min, max) = filter.ages();
        let age = message.sent_at.map(|sent_at| self.now - sent_at);
        let old_enough = min.is_none_or(|min| age.is_some_and(|age| age >= min));
        let young_enough = max.is_none_or(|max| age.is_some_and(|age| age <= max));
        let attributes = filter.attributes.iter().all(|wanted| {
            message
                .text(&wanted.name)
                .is_some_and(|value| wanted.any_of.iter().any(|one| one == value))
        });
        let mut names = message.envelope.names.iter();
        let is =
            |arn: &Arn, name: &str| arn.as_str() == name || is_one_function(arn.as_str(), name);
        let origin = filter.source_arns.is_empty()
            || names.any(|name| filter.source_arns.iter().any(|arn| is(arn, name)));
        let cause = message.envelope.cause.as_ref();
        let cause = filter.causes.is_empty()
            || cause.is_some_and(|cause| filter.causes.contains(&cause.code));
        old_enough && young_enough && attributes && origin && cause
    }
}

/// Whether a body has the values that a filter wants.
fn has_values(filter: &Filter, json: Option<&Value>) -> bool {
    filter.body.iter().all(|wanted| {
        json.and_then(|json| json.pointer(&wanted.pointer))
            .is_some_and(|value| wanted.any_of.contains(value))
    })
}

/// Why there is nothing to deliver.
fn absent(payload: &Payload) -> Option<(Poison, String)> {
    match payload {
        Payload::Missing { what, .. } => Some((Poison::NoPayload, what.clone())),
        Payload::CutShort(what) => Some((Poison::CutShort, what.clone())),
        Payload::Unreadable(why) => Some((Poison::Undecodable, why.clone())),
        Payload::NotFailed => {
            let what = "it tells of what has not failed: a success, or what is still under way";
            Some((Poison::NotFailed, what.to_owned()))
        }
        Payload::Body | Payload::Inside(_) | Payload::Notified { .. } => None,
    }
}

/// Whether the destination takes the message.
fn fits(message: &InHand, at: usize, route: &Route) -> Fate {
    let Destination { arn, .. } = &route.destination;
    let bytes = if route.destination.is_function() {
        let event = message.envelope.to_function(&message.body);
        if serde_json::from_str::<serde::de::IgnoredAny>(event).is_err() {
            let why = "its body is no JSON, which a function's event must be".to_owned();
            return Fate::Quarantine(Poison::Undecodable, why);
        }
        event.len()
    } else {
        message.envelope.to_queue(&message.body).len() + message.attribute_bytes()
    };
    if bytes > route.max_message_bytes {
        let why = format!(
            "it has {bytes} bytes, and {arn} takes {}",
            route.max_message_bytes
        );
        return Fate::Quarantine(Poison::TooLarge, why);
    }
    Fate::Replay(at)
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

/// Why a message is quarantined, and what it was, for whoever mends it.
#[must_use]
pub fn reason(message: &InHand, plan: &Plan, poison: Poison, why: &str, run_id: &str) -> Value {
    let Envelope {
        kind,
        payload,
        names,
        request,
        cause,
    } = &message.envelope;
    let lost = match (payload, &message.object) {
        (Payload::Missing { lost, .. }, _) => Some(lost.clone()),
        (_, Some(Object::Gone(Place { bucket, key }))) => {
            Some(serde_json::json!({"bucket": bucket, "key": key}))
        }
        _ => None,
    };
    let cause = cause
        .as_ref()
        .map(|cause| serde_json::json!({"code": shorten(cause.code.clone()), "message": shorten(cause.words.clone())}));
    let mut reason = serde_json::json!({
        "reason": poison.name(),
        "why": why,
        "source": plan.source,
        "envelope": kind.name(),
        "origin": message.origin,
        "names": names,
        "request_id": request,
        "cause": cause,
        "lost": lost,
        "group": message.group,
        "message_id": message.id,
        "run_id": run_id,
    });
    if let Value::Object(fields) = &mut reason {
        fields.retain(|_, value| !value.is_null());
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Cause;
    use crate::message::{QUARANTINED, acceptable, quarantined};
    use crate::sample::{INGEST, ORDERS, message, opened, plan, straight, string};
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::HashMap;

    #[test]
    fn of_a_quarantine_only_what_a_reason_names_and_what_is_fit_by_now_is_let_out() {
        let plan = plan(|policy| {
            policy["source"] = policy["quarantine"].clone();
            policy["release"] = json!({"reasons": ["undecodable", "replayed_too_often"]});
            policy["body_schema"] = json!({"type": "object"});
        });
        let of = |body: &str, was: Option<&str>| {
            let quarantined_as = was.map(str::to_owned);
            let held = InHand {
                quarantined_as,
                ..message(body)
            };
            fate(&plan, &held, 7)
        };
        // However often it was replayed before.
        assert_eq!(of("{}", Some("undecodable")), Fate::Replay(0));
        assert_eq!(of("{}", Some("replayed_too_often")), Fate::Replay(0));
        let stays = Fate::Keep(Kept::Quarantined);
        assert_eq!(of("{}", Some("too_large")), stays);
        assert_eq!(of("{}", None), stays);
        // Still unfit, it goes in no circle.
        assert_eq!(of("[]", Some("undecodable")), stays);
    }

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
        assert_eq!(fate(&plan, &straight("x"), 0), Fate::Replay(0));
        let invoked = opened(InHand {
            origin: Some(INGEST.into()),
            ..message("{}")
        });
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
        let stranger = opened(InHand {
            origin: Some("arn:aws:sqs:eu-west-1:1:other".into()),
            ..message("{}")
        });
        assert_eq!(reason(&stranger, 0), "unroutable");
        let garbage = opened(InHand {
            origin: Some(INGEST.into()),
            ..message("{")
        });
        assert_eq!(reason(&garbage, 0), "undecodable");
    }

    #[test]
    fn a_message_without_origin_or_default_is_unroutable() {
        let plan = plan(|v| v["default_destination"] = Value::Null);
        assert!(matches!(
            fate(&plan, &straight("x"), 0),
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
                &opened(InHand {
                    origin: None,
                    ..matching.clone()
                }),
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

    fn poison(fate: Fate) -> (&'static str, String) {
        match fate {
            Fate::Quarantine(poison, why) => (poison.name(), why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn whom_a_message_was_for_decides_and_the_default_serves_who_says_nothing() {
        let invoices = "arn:aws:lambda:eu-west-1:123456789012:function:invoices";
        let topic = "arn:aws:sns:eu-west-1:123456789012:shop";
        let machine = "arn:aws:states:eu-west-1:123456789012:stateMachine:bill";
        let plan = plan(|policy| {
            policy["destinations"] =
                json!([{"arn": INGEST}, {"arn": invoices, "serves": [topic, machine]}]);
            policy["default_destination"] = json!(INGEST);
        });
        let of_schedule = |target: &str| {
            let mut event = straight(r#"{"daily": true}"#);
            let schedule = "arn:aws:scheduler:eu-west-1:123456789012:schedule/g/s";
            for (name, value) in [("SCHEDULE_ARN", schedule), ("TARGET_ARN", target)] {
                event.attributes.insert(name.into(), string(value));
            }
            opened(event)
        };
        let execution = straight(
            &json!({
                "source": "aws.states",
                "detail-type": "Step Functions Execution Status Change",
                "detail": {
                    "stateMachineArn": machine,
                    "executionArn": "e-1",
                    "status": "FAILED",
                    "input": "{}",
                    "inputDetails": {"included": true},
                },
            })
            .to_string(),
        );
        let failed = |function: &str| {
            straight(&json!({
                "version": "1.0",
                "requestContext": {"functionArn": function, "condition": "RetriesExhausted", "requestId": "r"},
                "requestPayload": {"id": 7},
            }).to_string())
        };
        let of_rule = |target: &str| {
            let mut event = straight(r#"{"detail": {}}"#);
            for (name, value) in [
                ("RULE_ARN", "arn:aws:events:eu-west-1:123456789012:rule/r"),
                ("TARGET_ARN", target),
            ] {
                event.attributes.insert(name.into(), string(value));
            }
            opened(event)
        };
        let notified = straight(
            &json!({"Type": "Notification", "TopicArn": topic, "Message": "{}"}).to_string(),
        );
        for (message, at) in [
            (straight("{}"), 0),
            (failed(&format!("{INGEST}:$LATEST")), 0),
            (failed(&format!("{invoices}:7")), 1),
            (of_rule(invoices), 1),
            (notified, 1),
            (of_schedule(invoices), 1),
            (of_schedule(INGEST), 0),
            (execution, 1),
        ] {
            assert_eq!(fate(&plan, &message, 0), Fate::Replay(at), "{message:?}");
        }
        for named in [
            "arn:aws:lambda:eu-west-1:123456789012:function:refunds",
            &format!("{INGEST}:live"),
        ] {
            for message in [failed(named), of_rule(named), of_schedule(named)] {
                let (reason, why) = poison(fate(&plan, &message, 0));
                assert_eq!(reason, "unroutable");
                assert!(why.contains(named), "{why}");
            }
        }
    }

    #[test]
    fn of_several_destinations_of_one_function_the_policy_says_which() {
        let rule = "arn:aws:events:eu-west-1:123456789012:rule/r";
        let (staging, live) = (format!("{INGEST}:staging"), format!("{INGEST}:live"));
        let of_rule = |target: &str| {
            let mut event = straight("{}");
            for (name, value) in [("RULE_ARN", rule), ("TARGET_ARN", target)] {
                event.attributes.insert(name.into(), string(value));
            }
            opened(event)
        };
        let two = |serves: Value| {
            plan(|policy| {
                policy["destinations"] = json!([{"arn": staging}, {"arn": live, "serves": serves}]);
                policy["default_destination"] = json!(staging);
            })
        };
        let seven = of_rule(&format!("{INGEST}:7"));
        assert_eq!(poison(fate(&two(json!([])), &seven, 0)).0, "unroutable");
        let said = two(json!([format!("{INGEST}:7")]));
        assert_eq!(fate(&said, &seven, 0), Fate::Replay(1));
        assert_eq!(fate(&said, &of_rule(&staging), 0), Fate::Replay(0));
        // What is said of a rule comes before the rule's target.
        assert_eq!(
            fate(&two(json!([rule])), &of_rule(&staging), 0),
            Fate::Replay(1)
        );
    }

    #[test]
    fn a_filter_by_function_takes_its_failures_under_any_version() {
        let plan = plan(|policy| policy["filter"] = json!({"source_arns": [INGEST]}));
        let failed = |name: &str| {
            let mut failed = straight("{}");
            failed.envelope.names = vec![name.to_owned()];
            failed
        };
        assert_eq!(
            fate(&plan, &failed(&format!("{INGEST}:$LATEST")), 0),
            Fate::Replay(1)
        );
        assert_eq!(fate(&plan, &failed(ORDERS), 0), Fate::Keep(Kept::Filtered));
    }

    #[test]
    fn what_has_no_payload_is_quarantined_with_what_was_lost_and_never_replayed() {
        let plan = plan(|policy| policy["default_destination"] = json!(INGEST));
        let batch = straight(&json!({
            "requestContext": {"functionArn": INGEST, "condition": "RetryAttemptsExhausted"},
            "KafkaBatchInfo": {
                "eventSourceArn": "arn:aws:kafka:eu-west-1:123456789012:cluster/c/0-1",
                "recordsInfo": {"read-ings-0": {"firstRecordOffset": "4711", "lastRecordOffset": "5210"}},
            },
        }).to_string());
        let (name, why) = poison(fate(&plan, &batch, 0));
        assert_eq!(name, "no_payload");
        assert!(
            why.contains("topic read-ings, partition 0, offsets 4711 to 5210"),
            "{why}"
        );
        let told = reason(&batch, &plan, Poison::NoPayload, &why, "run-1");
        let range = json!([{"topic": "read-ings", "partition": "0", "firstRecordOffset": "4711", "lastRecordOffset": "5210"}]);
        assert_eq!(told["lost"]["ranges"], range);
        let out = quarantined(0, &batch, &plan, &told, "run-1").unwrap();
        assert_eq!(out.entry.message_body(), batch.body);
    }

    #[test]
    fn a_payload_in_s3_is_replayed_as_it_is_and_judged_by_nobody() {
        let plan = plan(|policy| {
            policy["body_schema"] = json!({"type": "object"});
            policy["filter"] = json!({"body": [{"pointer": "/tenant", "any_of": [7]}]});
        });
        for class in [
            "com.amazon.sqs.javamessaging.MessageS3Pointer",
            "software.amazon.payloadoffloading.PayloadS3Pointer",
        ] {
            let pointer = message(&json!([class, {"s3BucketName": "b", "s3Key": "k"}]).to_string());
            assert!(!pointer.is_looked_into());
            assert_eq!(fate(&plan, &pointer, 0), Fate::Replay(0));
        }
        let other = message(r#"["a", {"s3Key": "k"}]"#);
        assert_eq!(fate(&plan, &other, 0), Fate::Keep(Kept::Filtered));
        // Whatever is around it, what is judged is the pointer inside.
        let pointer = json!(["x.S3Pointer", {"s3BucketName": "b", "s3Key": "k"}]);
        let topic = "arn:aws:sns:eu-west-1:123456789012:shop";
        for around in [
            json!({"Type": "Notification", "TopicArn": topic, "Message": pointer.to_string()}),
            json!({
                "version": "1.0",
                "requestContext": {"functionArn": INGEST, "condition": "RetriesExhausted", "requestId": "r"},
                "requestPayload": pointer,
            }),
        ] {
            let around = straight(&around.to_string());
            let place = around.place_elsewhere().unwrap();
            assert_eq!(place.to_string(), "s3://b/k");
            assert!(!around.is_looked_into(), "{around:?}");
        }
    }

    #[test]
    fn a_payload_in_s3_that_was_looked_up_is_judged_and_one_that_is_gone_is_quarantined() {
        let plan = plan(|policy| {
            policy["body_schema"] = json!({"type": "object", "required": ["id"]});
            policy["filter"] = json!({"body": [{"pointer": "/tenant", "any_of": [7]}]});
            policy["payload_buckets"] = json!(["payloads"]);
        });
        let pointing = |bucket: &str| {
            message(&json!(["x.S3Pointer", {"s3BucketName": bucket, "s3Key": "a/b"}]).to_string())
        };
        let pointer = pointing("payloads");
        let place = plan.place_to_look_up(&pointer).unwrap();
        assert_eq!(place.to_string(), "s3://payloads/a/b");
        assert_eq!(plan.place_to_look_up(&pointing("others")), None);
        let holding = |object: Object| InHand {
            object: Some(object),
            ..pointer.clone()
        };
        let read = |text: &str| holding(Object::Read(text.into()));
        assert_eq!(fate(&plan, &read(r#"{"tenant":7}"#), 0), Fate::Replay(0));
        assert_eq!(
            fate(&plan, &read(r#"{"tenant":8}"#), 0),
            Fate::Keep(Kept::Filtered)
        );
        assert_eq!(fate(&plan, &holding(Object::There), 0), Fate::Replay(0));
        assert!(!holding(Object::There).is_looked_into());
        // What could not be told for a moment passes no filter unseen.
        let unanswered = holding(Object::Unanswered);
        let stays = Fate::Keep(Kept::Undelivered);
        assert_eq!(fate(&plan, &unanswered, 0), stays);
        let mut unread = plan.clone();
        unread.filter = Filter::default();
        unread.checks_bodies = false;
        assert_eq!(fate(&unread, &unanswered, 0), Fate::Replay(0));
        // What is sent on is the pointer.
        let sent = read(r#"{"tenant":7}"#);
        assert_eq!(sent.envelope.to_queue(&sent.body), pointer.body);

        let gone = holding(Object::Gone(place));
        let (name, why) = poison(fate(&plan, &gone, 0));
        assert_eq!(name, "dangling_pointer");
        assert!(why.contains("s3://payloads/a/b"), "{why}");
        let told = reason(&gone, &plan, Poison::DanglingPointer, &why, "run-1");
        assert_eq!(told["lost"], json!({"bucket": "payloads", "key": "a/b"}));
    }

    #[test]
    fn only_chosen_causes_are_replayed() {
        let plan = plan(|policy| policy["filter"] = json!({"causes": ["Timeout"]}));
        let failed = |code: &str| {
            let mut failed = message("{}");
            failed.envelope.cause = Some(Cause {
                code: code.into(),
                words: String::new(),
            });
            failed
        };
        assert_eq!(fate(&plan, &failed("Timeout"), 0), Fate::Replay(0));
        for other in [failed("ValueError"), message("{}")] {
            assert_eq!(fate(&plan, &other, 0), Fate::Keep(Kept::Filtered));
        }
    }

    proptest! {
        #[test]
        fn whatever_a_message_holds_what_is_written_of_it_is_acceptable(
            body in prop_oneof![any::<String>(), wild().prop_map(|value| value.to_string())],
            texts in prop::collection::hash_map("RequestID|ErrorCode|ErrorMessage|RULE_ARN|TARGET_ARN|SCHEDULE_ARN|[a-z]", any::<String>(), 0..6),
            origin in prop::option::of(any::<String>()),
        ) {
            let plan = plan(|policy| policy["body_schema"] = json!({"type": "object"}));
            let mut held = straight(&body);
            held.origin = origin;
            for (name, text) in &texts {
                held.attributes.insert(name.clone(), string(text));
            }
            let held = opened(held);
            let told = match fate(&plan, &held, 0) {
                Fate::Quarantine(poison, why) => reason(&held, &plan, poison, &why, "run-1"),
                _ => reason(&held, &plan, Poison::Unroutable, &body, "run-1"),
            };
            let out = quarantined(0, &held, &plan, &told, "run-1").unwrap();
            let label = out.entry.message_attributes().unwrap()[QUARANTINED].string_value().unwrap();
            prop_assert_eq!(acceptable(label), label);
            prop_assert!(serde_json::from_str::<Value>(label).is_ok());
            prop_assert!(held.ledger_key().len() <= 100);
            prop_assert_eq!(out.entry.message_body(), body);
        }
    }

    fn wild() -> impl Strategy<Value = Value> {
        let name = "requestContext|requestPayload|functionArn|condition|KafkaBatchInfo|recordsInfo|Type|TopicArn|Message|[a-z]{1,3}";
        let leaf = prop_oneof![
            Just(json!(INGEST)),
            Just(json!("Notification")),
            Just(json!("arn:aws:sns:eu-west-1:123456789012:t")),
            any::<String>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(name, inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }
}
