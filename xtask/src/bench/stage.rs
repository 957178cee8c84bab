//! The scene that every contender plays in: queues, policy, alarm, and the event that starts it.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

const REGION: &str = "eu-west-1";
const ACCOUNT: &str = "123456789012";
const ALARM: &str = "IngestionDlqDepthHigh";
const SOURCE: &str = "ingestion-dlq";
const DESTINATION: &str = "ingestion";
const QUARANTINE: &str = "ingestion-quarantine";
const BODY_BYTES: u32 = 512;

/// One filling of the dead-letter queue, with the alarm that it raised.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    messages: u32,
    latency: Duration,
    log: bool,
    raised_at: DateTime<Utc>,
}

impl Scene {
    /// A dead-letter queue with `messages` messages whose alarm was raised a second ago.
    pub(super) fn with(messages: u32) -> Self {
        Self {
            messages,
            latency: Duration::ZERO,
            log: false,
            raised_at: now() - TimeDelta::seconds(1),
        }
    }

    /// The same, with each AWS answer held back and each request logged.
    pub(super) fn logged(self, latency: Duration) -> Self {
        Self {
            latency,
            log: true,
            ..self
        }
    }

    /// What the load server is seeded with.
    pub(super) fn setup(&self) -> Value {
        json!({
            "messages": self.messages,
            "body_bytes": BODY_BYTES,
            // An hour in the queue: before any run begins, within any retention.
            "sent_at_ms": (self.raised_at - TimeDelta::hours(1)).timestamp_millis(),
            "source_arn": queue_arn(SOURCE),
            "destination_arn": queue_arn(DESTINATION),
            "policy": policy().to_string(),
            "alarm": {
                "name": ALARM,
                "arn": alarm_arn(),
                "state_updated_at_ms": self.raised_at.timestamp_millis(),
            },
            "latency_ms": self.latency.as_millis(),
            "log": self.log,
        })
    }

    /// The event that `EventBridge` delivers for the alarm.
    pub(super) fn event(&self) -> Value {
        let changed = self
            .raised_at
            .to_rfc3339_opts(SecondsFormat::Millis, false)
            .replace("+00:00", "+0000");
        let before = (self.raised_at - TimeDelta::minutes(20))
            .to_rfc3339_opts(SecondsFormat::Millis, false)
            .replace("+00:00", "+0000");
        json!({
            "version": "0",
            "id": "c4c1c1c9-6542-e61b-6ef0-8c4d36933a92",
            "detail-type": "CloudWatch Alarm State Change",
            "source": "aws.cloudwatch",
            "account": ACCOUNT,
            "time": self.raised_at.to_rfc3339_opts(SecondsFormat::Secs, true),
            "region": REGION,
            "resources": [alarm_arn()],
            "detail": {
                "alarmName": ALARM,
                "configuration": {
                    "description": "Messages wait in the dead-letter queue of ingestion.",
                    "metrics": [{
                        "id": "depth",
                        "metricStat": {
                            "metric": {
                                "namespace": "AWS/SQS",
                                "name": "ApproximateNumberOfMessagesVisible",
                                "dimensions": { "QueueName": SOURCE },
                            },
                            "period": 60,
                            "stat": "Maximum",
                        },
                        "returnData": true,
                    }],
                },
                "previousState": {
                    "reason": "Threshold Crossed: no datapoints were received.",
                    "timestamp": before,
                    "value": "OK",
                },
                "state": {
                    "reason": "Threshold Crossed: 1 datapoint was greater than the threshold (1.0).",
                    "reasonData": "{\"version\":\"1.0\",\"statistic\":\"Maximum\",\"period\":60,\"threshold\":1.0}",
                    "timestamp": changed,
                    "value": "ALARM",
                },
            },
        })
    }
}

/// The variables that every contender is started with, and nothing else but `PATH`.
pub(super) fn environment(endpoint: &str) -> Vec<(&'static str, String)> {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_REGION", REGION),
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "bench"),
        ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "900"),
        ("FORGEGUARD_LEDGER_TABLE", "forgeguard-ledger"),
        (
            "FORGEGUARD_POLICY_PARAMETER",
            "/forgeguard/dlq-replay/policy",
        ),
        ("FORGEGUARD_EVENT_BUS", "default"),
        ("FORGEGUARD_DRY_RUN", "false"),
        ("FORGEGUARD_LOG", "info"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

/// The URL of the dead-letter queue at `endpoint`.
pub(super) fn source_url(endpoint: &str) -> String {
    format!("{endpoint}/{ACCOUNT}/{SOURCE}")
}

/// The URL of the destination at `endpoint`.
pub(super) fn destination_url(endpoint: &str) -> String {
    format!("{endpoint}/{ACCOUNT}/{DESTINATION}")
}

/// The guard refuses stale news, so the event must bear the time of day.
#[allow(clippy::disallowed_methods)] // Nothing here is decided by it.
fn now() -> DateTime<Utc> {
    Utc::now()
}

fn queue_arn(name: &str) -> String {
    format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
}

fn alarm_arn() -> String {
    format!("arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{ALARM}")
}

/// A policy whose rate limit is out of the way, so that the speed is the function's own.
fn policy() -> Value {
    json!({
        "version": 1,
        "targets": [{
            "name": SOURCE,
            "alarms": [alarm_arn()],
            "action": {
                "source": queue_arn(SOURCE),
                "destinations": [{ "arn": queue_arn(DESTINATION) }],
                "default_destination": queue_arn(DESTINATION),
                "quarantine": queue_arn(QUARANTINE),
                "limits": {
                    "max_messages": 1_000_000,
                    "max_replays_per_message": 3,
                    "messages_per_second": 1_000_000,
                    "max_concurrency": 16,
                    "max_rounds": 10,
                },
                "canary": { "messages": 10, "settle_seconds": 0 },
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_is_one_that_the_suite_acts_on() {
        let event = shared::alarm::parse(&Scene::with(1).event()).unwrap();
        assert_eq!(event.alarm_arn, alarm_arn());
        assert_eq!(event.state, shared::alarm::State::Alarm);
    }
}
