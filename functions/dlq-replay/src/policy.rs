//! What the policy says of a replay: from which dead-letter queue, to where, and how far it may go.

use std::num::NonZeroU32;

use chrono::TimeDelta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::arn::Arn;
use shared::policy::Action;

use crate::judge::Poison;

/// One dead-letter queue and how it is replayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// The dead-letter queue, standard or FIFO.
    pub source: Arn,
    /// Where messages may go: SQS queues of the source's kind, or Lambda functions. A message goes to the destination
    /// that it was for, as its envelope says: the queue that it came from, the function or the rule's target.
    pub destinations: Vec<Destination>,
    /// Where messages go that do not say whom they were for, such as those sent straight to the dead-letter queue. One of
    /// `destinations`.
    #[serde(default)]
    pub default_destination: Option<Arn>,
    /// The queue for messages that must not be replayed again.
    pub quarantine: Arn,
    /// How far a replay may go.
    #[serde(default)]
    pub limits: Limits,
    /// The first messages, replayed and watched before the rest.
    #[serde(default)]
    pub canary: Canary,
    /// Which messages are replayed; all, when absent. What does not match stays in the dead-letter queue.
    #[serde(default)]
    pub filter: Filter,
    /// A JSON Schema that a body must fit; what does not fit is quarantined.
    #[serde(default)]
    pub body_schema: Option<Value>,
    /// The S3 buckets in which payloads are looked up that messages only point to, by name. There a pointer to nothing is
    /// quarantined, and `body_schema` and `filter.body` look into the objects, up to 1 MiB each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payload_buckets: Vec<String>,
    /// Lets messages out of a quarantine, which is both `source` and `quarantine` then: where they had come from, as if
    /// they had never been replayed. A human approves each run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// How many messages a dry run looks at. Looking hides them for a moment and raises their receive
    /// count; 0 looks at none.
    #[serde(default = "default_sample")]
    pub dry_run_sample: u8,
}

/// Which quarantined messages are let out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Those that were quarantined for one of these reasons, such as `undecodable` once the schema is mended. The others
    /// stay, and so do those that are still unfit.
    pub reasons: Vec<String>,
}

fn default_sample() -> u8 {
    10
}

/// Where messages may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// An SQS queue or a Lambda function, by ARN.
    pub arn: Arn,
    /// The Lambda function that consumes the queue, by name, or that is the destination itself. Nothing is replayed while
    /// it fails, is throttled, leaves what it receives, or while its event source mapping is off.
    #[serde(default)]
    pub consumer_function: Option<String>,
    /// What else it serves, by ARN: queues that have given way to it, functions under another version or alias, topics,
    /// subscriptions, rules, schedules, pipes and state machines whose failed messages are for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<Arn>,
}

impl Destination {
    /// Whether the policy says that it serves whom a message was for.
    #[must_use]
    pub fn serves(&self, name: &str) -> bool {
        self.serves.iter().any(|served| served.as_str() == name)
    }

    /// Whether it is whom a message was for.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.arn.as_str() == name
    }

    /// Whether it is the function that a message was for, under another version.
    #[must_use]
    pub fn is_one_with(&self, name: &str) -> bool {
        self.is_function() && is_one_function(self.arn.as_str(), name)
    }

    /// Whether it is a Lambda function, whose original event is invoked again.
    #[must_use]
    pub fn is_function(&self) -> bool {
        self.arn.service() == "lambda"
    }
}

/// Whether a function's ARN names the same function as the policy's. A version stands for whatever of the function the
/// policy names: who has mended it has published another one. An alias is only itself.
#[must_use]
pub fn is_one_function(ours: &str, name: &str) -> bool {
    let split = |arn: &str| {
        let parts: Vec<&str> = arn.splitn(8, ':').collect();
        (parts.len() >= 7).then(|| {
            (
                parts[..7].join(":"),
                parts.get(7).map(|it| (*it).to_owned()),
            )
        })
    };
    let (Some((ours, our_qualifier)), Some((theirs, qualifier))) = (split(ours), split(name))
    else {
        return false;
    };
    let is_version = |qualifier: &str| qualifier.bytes().all(|byte| byte.is_ascii_digit());
    ours == theirs
        && match (our_qualifier.as_deref(), qualifier.as_deref()) {
            (None | Some("$LATEST"), None | Some("$LATEST")) => true,
            (_, Some(version)) => is_version(version),
            (Some(_), None) => false,
        }
}

/// How far a replay may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How many messages a run may take out of the queue. Without a filter, a queue that holds more is left alone and
    /// escalated.
    pub max_messages: NonZeroU32,
    /// A message that was replayed so often already is quarantined.
    pub max_replays_per_message: NonZeroU32,
    /// The highest rate.
    pub messages_per_second: NonZeroU32,
    /// Batches on their way at the same time, at most 64.
    pub max_concurrency: NonZeroU32,
    /// Invocations of one run in a row, at most 12: Lambda stops a function that calls itself about 16 times. The
    /// schedule begins the next row.
    pub max_rounds: NonZeroU32,
    /// How many messages a destination's backlog may grow by, over the whole run, before the replay pauses. Half of it
    /// is what the replay aims at.
    pub max_backlog: NonZeroU32,
    /// Whether the rate follows what the destinations' consumers are seen to take, below the highest rate.
    pub paced_by_consumer: bool,
    /// The share of its work, in percent, that a consumer may fail at, or be throttled at, and still count as well: 1 to
    /// 100. Nothing is replayed to a consumer that is not well.
    pub max_consumer_failure_percent: NonZeroU32,
    /// How long received messages stay hidden, 30 to 43,200 s.
    pub visibility_seconds: NonZeroU32,
}

const fn number(value: u32) -> NonZeroU32 {
    match NonZeroU32::new(value) {
        Some(value) => value,
        None => NonZeroU32::MIN,
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_messages: number(1_000_000),
            max_replays_per_message: number(3),
            messages_per_second: number(500),
            max_concurrency: number(16),
            max_rounds: number(10),
            max_backlog: number(10_000),
            paced_by_consumer: true,
            max_consumer_failure_percent: number(20),
            visibility_seconds: number(120),
        }
    }
}

/// The first messages, replayed and watched before the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Canary {
    /// How many, 1 to 10.
    pub messages: NonZeroU32,
    /// For how long at least they are watched, at most 60 s, before the rest follows, which waits until they are consumed.
    /// With 0 they are not watched, and the rest follows at once.
    pub settle_seconds: u32,
}

impl Default for Canary {
    fn default() -> Self {
        Self {
            messages: number(10),
            settle_seconds: 5,
        }
    }
}

impl Canary {
    /// Whether the rest waits for it.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.settle_seconds > 0
    }
}

/// Which messages are replayed. Conditions are joined by "and"; the values of one condition by "or".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Only messages sent at least so long ago.
    pub min_age_seconds: Option<u32>,
    /// Only messages sent at most so long ago.
    pub max_age_seconds: Option<u32>,
    /// Only messages with these message attributes.
    pub attributes: Vec<AttributeIs>,
    /// Only messages whose JSON body has these values.
    pub body: Vec<BodyIs>,
    /// Only messages that were for these, or came through them, as their envelopes say: queues, functions, topics, rules.
    pub source_arns: Vec<Arn>,
    /// Only messages that failed with one of these error types or codes, as their envelopes say.
    pub causes: Vec<String>,
}

impl Filter {
    /// The age limits as lengths of time.
    #[must_use]
    pub fn ages(&self) -> (Option<TimeDelta>, Option<TimeDelta>) {
        let age =
            |seconds: Option<u32>| seconds.map(|seconds| TimeDelta::seconds(i64::from(seconds)));
        (age(self.min_age_seconds), age(self.max_age_seconds))
    }

    /// Whether it selects every message.
    #[must_use]
    pub fn selects_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the body has to be read as JSON.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        !self.body.is_empty()
    }
}

/// A message attribute that has one of these values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttributeIs {
    /// The attribute's name.
    pub name: String,
    /// Its values, as strings.
    pub any_of: Vec<String>,
}

/// A place in the JSON body that has one of these values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BodyIs {
    /// The place, as a JSON pointer (RFC 6901).
    pub pointer: String,
    /// Its values.
    pub any_of: Vec<Value>,
}

/// Whether a queue's ARN names a FIFO queue. SQS wants the suffix of every FIFO queue's name.
#[must_use]
pub fn is_fifo(queue: &Arn) -> bool {
    queue.resource().strip_suffix(".fifo").is_some()
}

/// Whether a text can be the name of a bucket or the alias of an access point (Amazon S3 User Guide, "General purpose
/// bucket naming rules").
fn is_bucket(name: &str) -> bool {
    let is_taken =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    (3..=63).contains(&name.len()) && name.bytes().all(is_taken)
}

impl Action for Replay {
    fn resource(&self) -> &str {
        self.source.as_str()
    }

    fn check(&self) -> Result<(), String> {
        self.check_queues()?;
        self.check_limits()?;
        self.check_filter()?;
        if let Some(bucket) = self.payload_buckets.iter().find(|name| !is_bucket(name)) {
            return Err(format!(
                "payload_buckets has {bucket:?}; it takes names of buckets, without \"s3://\" or a path"
            ));
        }
        if let Some(schema) = &self.body_schema {
            jsonschema::validator_for(schema)
                .map_err(|error| format!("body_schema is no JSON Schema: {error}"))?;
        }
        Ok(())
    }
}

impl Replay {
    fn check_queues(&self) -> Result<(), String> {
        let queue = |field: &str, arn: &Arn| {
            arn.queue_url()
                .map(|_| ())
                .ok_or_else(|| format!("{field} is {arn}; it must be the ARN of an SQS queue"))
        };
        queue("source", &self.source)?;
        queue("quarantine", &self.quarantine)?;
        if self.destinations.is_empty() {
            return Err("destinations is empty; name at least one queue or function".to_owned());
        }
        let fifo = is_fifo(&self.source);
        for Destination { arn, serves, .. } in &self.destinations {
            match arn.service() {
                "lambda" if fifo => {
                    return Err(format!(
                        "destination {arn} is a function, which cannot keep the order of the FIFO queue {}",
                        self.source
                    ));
                }
                "lambda" if arn.resource().starts_with("function:") => {}
                "sqs" => {
                    queue("a destination", arn)?;
                    if is_fifo(arn) != fifo {
                        return Err(format!(
                            "destination {arn} and source {} must both be FIFO or both be standard",
                            self.source
                        ));
                    }
                }
                _ => {
                    return Err(format!(
                        "destination {arn} must be the ARN of an SQS queue or of a Lambda function"
                    ));
                }
            }
            for served in serves {
                let others = self.destinations.iter().filter(|other| other.arn != *arn);
                let names = |other: &Destination| {
                    other.is(served.as_str()) || other.serves(served.as_str())
                };
                if others.clone().any(names) {
                    return Err(format!(
                        "destination {arn} serves {served}, which another destination is or serves; say which of them gets its messages"
                    ));
                }
            }
            if *arn == self.source {
                return Err(format!(
                    "destination {arn} is the source itself; a replay would never end"
                ));
            }
            if *arn == self.quarantine {
                return Err(format!(
                    "destination {arn} is the quarantine; name another queue"
                ));
            }
        }
        match &self.release {
            None if self.quarantine == self.source => {
                return Err(format!(
                    "quarantine {} is the source; name another queue, or the reasons of what is to be let out of it in release.reasons",
                    self.quarantine
                ));
            }
            Some(_) if self.quarantine != self.source => {
                return Err(format!(
                    "release lets messages out of a quarantine: name it as source and as quarantine, and not {} and {}",
                    self.source, self.quarantine
                ));
            }
            _ => {}
        }
        for reason in self.release.iter().flat_map(|release| &release.reasons) {
            if !Poison::NAMES.contains(&reason.as_str()) {
                return Err(format!(
                    "release.reasons has {reason:?}; a message is quarantined as {}",
                    Poison::NAMES.join(", ")
                ));
            }
        }
        if self
            .release
            .as_ref()
            .is_some_and(|release| release.reasons.is_empty())
        {
            return Err("release.reasons is empty; name what is to be let out".to_owned());
        }
        match &self.default_destination {
            Some(default) if self.destinations.iter().all(|known| known.arn != *default) => {
                Err(format!(
                    "default_destination {default} is not among the destinations; add it there"
                ))
            }
            _ => Ok(()),
        }
    }

    fn check_limits(&self) -> Result<(), String> {
        let within = |field: &str, value: u32, low: u32, high: u32| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(format!("{field} is {value}; it must be {low} to {high}"))
            }
        };
        let Limits {
            max_concurrency,
            max_rounds,
            visibility_seconds,
            max_consumer_failure_percent,
            ..
        } = self.limits;
        within("limits.max_concurrency", max_concurrency.get(), 1, 64)?;
        within("limits.max_rounds", max_rounds.get(), 1, 12)?;
        within(
            "limits.visibility_seconds",
            visibility_seconds.get(),
            30,
            43_200,
        )?;
        within(
            "limits.max_consumer_failure_percent",
            max_consumer_failure_percent.get(),
            1,
            100,
        )?;
        within("canary.messages", self.canary.messages.get(), 1, 10)?;
        within("canary.settle_seconds", self.canary.settle_seconds, 0, 60)?;
        within("dry_run_sample", u32::from(self.dry_run_sample), 0, 10)
    }

    fn check_filter(&self) -> Result<(), String> {
        let filter = &self.filter;
        if let (Some(min), Some(max)) = (filter.min_age_seconds, filter.max_age_seconds)
            && min > max
        {
            return Err(format!(
                "filter.min_age_seconds {min} is above filter.max_age_seconds {max}; no message can match"
            ));
        }
        for AttributeIs { name, any_of } in &filter.attributes {
            if name.is_empty() || any_of.is_empty() {
                return Err(
                    "a filter.attributes condition needs a name and at least one value".to_owned(),
                );
            }
        }
        for BodyIs { pointer, any_of } in &filter.body {
            if !(pointer.is_empty() || pointer.starts_with('/')) {
                return Err(format!(
                    "filter.body pointer {pointer:?} is no JSON pointer; it begins with a slash, as in \"/order/id\""
                ));
            }
            if any_of.is_empty() {
                return Err(format!(
                    "filter.body condition on {pointer:?} needs at least one value"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn replay(change: impl FnOnce(&mut Value)) -> Result<(), String> {
        let mut value = json!({
            "source": "arn:aws:sqs:eu-west-1:123456789012:dlq",
            "destinations": [{"arn": "arn:aws:sqs:eu-west-1:123456789012:orders"}],
            "quarantine": "arn:aws:sqs:eu-west-1:123456789012:quarantine",
        });
        change(&mut value);
        serde_json::from_value::<Replay>(value)
            .map_err(|error| error.to_string())?
            .check()
    }

    #[test]
    fn the_smallest_policy_is_sound() {
        replay(|_| ()).unwrap();
    }

    #[test]
    fn unsound_policies_say_what_would_be_right() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 15] = [
            (
                |v| v["payload_buckets"] = json!(["s3://payloads"]),
                "takes names of buckets",
            ),
            (|v| v["source"] = json!("dlq"), "is not an ARN"),
            (
                |v| v["source"] = json!("arn:aws:sns:eu-west-1:1:t"),
                "must be the ARN of an SQS queue",
            ),
            (
                |v| v["destinations"] = json!([]),
                "name at least one queue or function",
            ),
            (
                |v| v["destinations"][0]["arn"] = v["source"].clone(),
                "would never end",
            ),
            (
                |v| v["destinations"][0]["arn"] = v["quarantine"].clone(),
                "is the quarantine",
            ),
            (
                |v| {
                    v["destinations"][0]["arn"] =
                        json!("arn:aws:sqs:eu-west-1:123456789012:orders.fifo");
                },
                "must both be FIFO or both be standard",
            ),
            (
                |v| {
                    v["source"] = json!("arn:aws:sqs:eu-west-1:123456789012:dlq.fifo");
                    v["destinations"][0]["arn"] =
                        json!("arn:aws:lambda:eu-west-1:123456789012:function:f");
                },
                "cannot keep the order",
            ),
            (
                |v| v["default_destination"] = json!("arn:aws:sqs:eu-west-1:123456789012:other"),
                "is not among the destinations",
            ),
            (
                |v| {
                    let topic = "arn:aws:sns:eu-west-1:123456789012:shop";
                    v["destinations"] = json!([
                        {"arn": "arn:aws:sqs:eu-west-1:123456789012:orders", "serves": [topic]},
                        {"arn": "arn:aws:sqs:eu-west-1:123456789012:bills", "serves": [topic]},
                    ]);
                },
                "say which of them gets its messages",
            ),
            (
                |v| v["limits"] = json!({"max_rounds": 16}),
                "limits.max_rounds is 16; it must be 1 to 12",
            ),
            (
                |v| v["filter"] = json!({"body": [{"pointer": "id", "any_of": [1]}]}),
                "is no JSON pointer",
            ),
            (
                |v| v["filter"] = json!({"min_age_seconds": 10, "max_age_seconds": 5}),
                "no message can match",
            ),
            (
                |v| v["body_schema"] = json!({"type": "objekt"}),
                "body_schema is no JSON Schema",
            ),
            (|v| v["limit"] = json!({}), "unknown field `limit`"),
        ];
        for (change, words) in cases {
            let error = replay(change).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
