//! The scenes that the contenders play in: what a function's AWS holds, its policy, its alarm, and the event of it.

use crate::cloud::{KEY_VALUE_STORES, key_value_stores_at};
use std::fs;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::BenchError;
use super::json;
use crate::workspace::root;

const REGION: &str = "eu-west-1";
const BODY_BYTES: u32 = 512;
/// What the dead-letter queue holds where nothing else is asked for: one batch.
const BATCH: u32 = 10;
/// What stands in a policy for the load server's endpoint, where the function reaches beyond AWS.
const ENDPOINT: &str = "{endpoint}";
/// The outcomes that say that the mitigation was applied; `Pending` where AWS still works on it.
const ACTED: [&str; 2] = ["Applied", "Pending"];

/// What a function acts on: `bench/scenes/<function>.json`, with the event of its alarm from `events/`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Play {
    /// The alarm, by name.
    alarm: String,
    /// The call that applies the mitigation, as `service.Operation`.
    pub(super) mutation: String,
    /// What the policy says of the target; `{endpoint}` stands for the load server's.
    action: Value,
    /// What the load server answers to the calls that it does not speak itself; `bench/load-server/src/canned.rs`
    /// says how.
    #[serde(default)]
    answers: Vec<Value>,
    #[serde(skip)]
    event: Value,
}

impl Play {
    /// The names of the functions that have one, in order.
    pub(super) fn names() -> Result<Vec<String>, BenchError> {
        let path = root().join("bench/scenes");
        let read = |source| BenchError::Read {
            path: path.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(read)? {
            let file = entry.map_err(read)?.file_name();
            names.extend(
                file.to_string_lossy()
                    .strip_suffix(".json")
                    .map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }

    /// The play of a function.
    pub(super) fn of(function: &str) -> Result<Self, BenchError> {
        let path = root().join(format!("bench/scenes/{function}.json"));
        let play: Self = json::parse("a scene", &text(&path)?)?;
        let alarm = &play.alarm;
        let path = root().join(format!("events/{function}/{alarm}.alarm.json"));
        Ok(Self {
            event: json::parse("an event", &text(&path)?)?,
            ..play
        })
    }

    /// A scene with one batch in the dead-letter queue, if there is one.
    pub(super) fn scene(&self) -> Scene<'_> {
        self.scene_of(BATCH)
    }

    /// A scene with `messages` messages in the dead-letter queue, whose alarm was raised a second ago.
    pub(super) fn scene_of(&self, messages: u32) -> Scene<'_> {
        Scene {
            play: self,
            messages,
            latency: Duration::ZERO,
            log: false,
            raised_at: now() - TimeDelta::seconds(1),
        }
    }

    /// The URL at `endpoint` of the queue that the policy names so.
    pub(super) fn queue_url(&self, endpoint: &str, name: &str) -> String {
        let mut parts = self.queue(name).rsplit(':');
        let (queue, account) = (parts.next(), parts.next());
        format!(
            "{endpoint}/{}/{}",
            account.unwrap_or_default(),
            queue.unwrap_or_default()
        )
    }

    fn queue(&self, name: &str) -> &str {
        self.action[name].as_str().unwrap_or_default()
    }
}

/// One scene, with the alarm that it raised.
#[derive(Debug, Clone)]
pub(super) struct Scene<'a> {
    /// What it is a scene of.
    pub(super) play: &'a Play,
    messages: u32,
    latency: Duration,
    log: bool,
    raised_at: DateTime<Utc>,
}

impl Scene<'_> {
    /// The same, with each AWS answer held back and each request logged.
    pub(super) fn logged(self, latency: Duration) -> Self {
        Self {
            latency,
            log: true,
            ..self
        }
    }

    /// What the load server at `endpoint` is seeded with.
    pub(super) fn setup(&self, endpoint: &str) -> Value {
        let (play, source) = (self.play, self.play.queue("source"));
        let arn = &play.event["resources"][0];
        let policy = json!({
            "version": 1,
            "targets": [{ "name": "bench", "alarms": [arn], "action": play.action }],
        });
        json!({
            "messages": if source.is_empty() { 0 } else { self.messages },
            "body_bytes": BODY_BYTES,
            // An hour in the queue: before any run begins, within any retention.
            "sent_at_ms": (self.raised_at - TimeDelta::hours(1)).timestamp_millis(),
            "source_arn": source,
            "destination_arn": play.queue("default_destination"),
            "policy": policy.to_string().replace(ENDPOINT, endpoint),
            "alarm": {
                "name": play.alarm,
                "arn": arn,
                "state_updated_at_ms": self.raised_at.timestamp_millis(),
            },
            "answers": play.answers,
            "latency_ms": self.latency.as_millis(),
            "log": self.log,
        })
    }

    /// The event that `EventBridge` delivers for the alarm.
    pub(super) fn event(&self) -> Value {
        let exact = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S%.3f%z").to_string();
        let seconds = self.raised_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let before = exact(self.raised_at - TimeDelta::minutes(20));
        let mut event = self.play.event.clone();
        for (place, time) in [
            ("/time", seconds),
            ("/detail/state/timestamp", exact(self.raised_at)),
            ("/detail/previousState/timestamp", before),
        ] {
            if let Some(value) = event.pointer_mut(place) {
                *value = time.into();
            }
        }
        event
    }
}

/// Fails unless a function of the suite answers that it applied the mitigation.
pub(super) fn acted(function: &str, answer: &Value) -> Result<(), BenchError> {
    if ACTED.iter().any(|outcome| answer["overall"] == *outcome) {
        return Ok(());
    }
    Err(BenchError::NotApplied {
        function: function.to_owned(),
        answer: answer.to_string(),
    })
}

/// The variables that every contender is started with, and nothing else but `PATH`.
pub(super) fn environment(endpoint: &str) -> Vec<(&'static str, String)> {
    // The SDK puts the account before the host of a key-value store, which makes a name only where the host has one.
    let stores = key_value_stores_at(endpoint);
    [
        ("AWS_ENDPOINT_URL", endpoint),
        (KEY_VALUE_STORES, &stores),
        ("AWS_REGION", REGION),
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "bench"),
        ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
        ("AWS_SAM_LOCAL", "true"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ("AWS_LAMBDA_FUNCTION_TIMEOUT", "900"),
        ("FORGEGUARD_LEDGER_TABLE", "forgeguard-ledger"),
        ("FORGEGUARD_POLICY_PARAMETER", "/forgeguard/bench/policy"),
        ("FORGEGUARD_EVENT_BUS", "default"),
        ("FORGEGUARD_DRY_RUN", "false"),
        ("FORGEGUARD_LOG", "info"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

/// The guard refuses stale news, so the event must bear the time of day.
#[allow(clippy::disallowed_methods)] // Nothing here is decided by it.
fn now() -> DateTime<Utc> {
    Utc::now()
}

fn text(path: &Path) -> Result<String, BenchError> {
    fs::read_to_string(path).map_err(|source| BenchError::Read {
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_play_has_an_event_that_the_suite_acts_on() {
        let names = Play::names().unwrap();
        assert!(names.iter().any(|name| name == "dlq-replay"), "{names:?}");
        for name in names {
            let play = Play::of(&name).unwrap();
            let scene = play.scene();
            let event = shared::alarm::parse(&scene.event()).unwrap();
            assert_eq!(event.alarm_name, play.alarm, "{name}");
            assert_eq!(event.state, shared::alarm::State::Alarm, "{name}");
            assert_eq!(
                event.changed_at.timestamp_millis(),
                scene.raised_at.timestamp_millis(),
                "{name}"
            );
        }
    }

    #[test]
    fn only_a_play_of_a_queue_has_messages() {
        for (name, messages) in [("dlq-replay", BATCH), ("alias-rollback", 0)] {
            let play = Play::of(name).unwrap();
            assert_eq!(play.scene().setup("")["messages"], messages, "{name}");
        }
    }

    #[test]
    fn a_policy_may_name_the_load_server() {
        let play = Play {
            action: json!({ "url": "{endpoint}/page" }),
            ..Play::of("dlq-replay").unwrap()
        };
        let setup = play.scene().setup("http://127.0.0.1:1");
        let policy = setup["policy"].as_str().unwrap();
        assert!(policy.contains(r#""http://127.0.0.1:1/page""#), "{policy}");
    }

    #[test]
    fn a_run_that_decided_not_to_act_is_no_measurement() {
        for (overall, counts) in [("Applied", true), ("Pending", true), ("Skipped", false)] {
            let answer = json!({ "overall": overall });
            assert_eq!(acted("f", &answer).is_ok(), counts, "{overall}");
        }
        assert!(acted("f", &Value::Null).is_err());
    }
}
