//! One run's world: what was seeded, what the guard is told, and what happened since.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::arrivals::{Account, Arrivals};
use crate::canned::{Asked, Canned};
use crate::destination::Destination;
use crate::messages::{self, Message};
use crate::queue::SourceQueue;

/// What a run starts from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setup {
    /// How many messages the dead-letter queue holds.
    #[serde(default)]
    pub(crate) messages: u32,
    /// Approximate length of each body.
    #[serde(default = "default_body_bytes")]
    pub(crate) body_bytes: usize,
    /// When the messages were sent, in milliseconds of the epoch.
    #[serde(default)]
    pub(crate) sent_at_ms: u64,
    /// The dead-letter queue that is replayed.
    #[serde(default)]
    pub(crate) source_arn: String,
    /// The queue that every message must reach.
    #[serde(default)]
    pub(crate) destination_arn: String,
    /// How many messages a second the destination's consumer takes; it keeps up with everything unless this says so.
    #[serde(default)]
    pub(crate) consumed_per_second: Option<f64>,
    /// The document that the policy parameter holds.
    pub(crate) policy: String,
    /// The alarm that `DescribeAlarms` reports as being in `ALARM`.
    pub(crate) alarm: Alarm,
    /// What calls that are not spoken here are answered; the first that fits is taken.
    #[serde(default)]
    pub(crate) answers: Vec<Canned>,
    /// How long each answer is held back.
    #[serde(default)]
    pub(crate) latency_ms: u64,
    /// Whether each request is kept in the log.
    #[serde(default)]
    pub(crate) log: bool,
}

fn default_body_bytes() -> usize {
    512
}

/// The alarm behind the event.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alarm {
    /// Its name.
    pub(crate) name: String,
    /// Its ARN.
    pub(crate) arn: String,
    /// When it went into `ALARM`, in milliseconds of the epoch.
    pub(crate) state_updated_at_ms: i64,
}

/// One request as it was answered; times in microseconds since the run began.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    /// The service's endpoint prefix, such as `sqs`.
    pub(crate) service: String,
    /// The operation, such as `SendMessageBatch`.
    pub(crate) operation: String,
    /// When its headers had arrived.
    pub(crate) start_us: u64,
    /// When its answer was ready to be written.
    pub(crate) end_us: u64,
}

/// The world of one run.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) setup: Setup,
    pub(crate) corpus: Vec<Message>,
    began: Instant,
    queue: Mutex<SourceQueue>,
    /// Wakes receivers that wait when a message came back or the last one left.
    pub(crate) changed: Notify,
    arrivals: Mutex<Arrivals>,
    destination: Mutex<Destination>,
    tallies: Mutex<Tallies>,
}

#[derive(Debug, Default)]
struct Tallies {
    elsewhere: u64,
    calls: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    log: Vec<Entry>,
    incident: String,
}

/// What `GET /_bench/account` answers.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    account: Account,
    /// Messages that the destination holds.
    backlog: u64,
    /// The most that it held.
    peak_backlog: u64,
    /// Calls per `service.operation`.
    calls: BTreeMap<String, u64>,
    /// Calls that this server does not know and refused.
    refused: BTreeMap<String, u64>,
}

impl Scenario {
    /// Seeds a new world.
    pub(crate) fn new(setup: Setup) -> Self {
        let corpus = messages::corpus(setup.messages, setup.body_bytes);
        Self {
            queue: Mutex::new(SourceQueue::filled(setup.messages)),
            arrivals: Mutex::new(Arrivals::none(corpus.len())),
            destination: Mutex::new(Destination::new(setup.consumed_per_second)),
            tallies: Mutex::default(),
            changed: Notify::new(),
            began: Instant::now(),
            corpus,
            setup,
        }
    }

    /// The dead-letter queue.
    pub(crate) fn queue(&self) -> MutexGuard<'_, SourceQueue> {
        held(&self.queue)
    }

    /// What arrived at the destination.
    pub(crate) fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        held(&self.arrivals)
    }

    /// What the destination holds.
    pub(crate) fn destination(&self) -> MutexGuard<'_, Destination> {
        held(&self.destination)
    }

    /// Notes messages sent to a queue other than the destination.
    pub(crate) fn note_elsewhere(&self, messages: u64) {
        held(&self.tallies).elsewhere += messages;
    }

    /// Notes the incident that a write to the ledger names.
    pub(crate) fn note_incident(&self, write: &[u8]) {
        let named = std::str::from_utf8(write)
            .ok()
            .and_then(|write| write.split_once("\"incident#"))
            .and_then(|(_, rest)| rest.split_once('"'));
        if let Some((incident, _)) = named {
            incident.clone_into(&mut held(&self.tallies).incident);
        }
    }

    /// The incident that the ledger was told of last.
    pub(crate) fn incident(&self) -> String {
        held(&self.tallies).incident.clone()
    }

    /// How long every answer is held back.
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_millis(self.setup.latency_ms)
    }

    /// The scene's own answer to a request.
    pub(crate) fn canned(&self, asked: Asked<'_>) -> Option<&Canned> {
        let fits = |canned: &&Canned| {
            canned.answers(asked)
                && canned
                    .after
                    .as_ref()
                    .is_none_or(|call| held(&self.tallies).calls.contains_key(call))
        };
        self.setup.answers.iter().find(fits)
    }

    /// Counts an answered request, and logs it when this run keeps a log.
    pub(crate) fn note_call(&self, service: &str, operation: &str, refused: bool, start: Instant) {
        let end = Instant::now();
        let mut tallies = held(&self.tallies);
        let name = format!("{service}.{operation}");
        if refused {
            *tallies.refused.entry(name.clone()).or_default() += 1;
        }
        *tallies.calls.entry(name).or_default() += 1;
        if self.setup.log {
            tallies.log.push(Entry {
                service: service.to_owned(),
                operation: operation.to_owned(),
                start_us: self.since_start_us(start),
                end_us: self.since_start_us(end),
            });
        }
    }

    /// The requests so far, in the order in which they were answered.
    pub(crate) fn log(&self) -> Vec<Entry> {
        held(&self.tallies).log.clone()
    }

    /// The account so far.
    pub(crate) fn report(&self) -> Report {
        let left = {
            let queue = self.queue();
            (queue.visible() + queue.in_flight()) as u64
        };
        let (backlog, peak_backlog) = {
            let mut destination = self.destination();
            (destination.held(Instant::now()), destination.peak())
        };
        let tallies = held(&self.tallies);
        Report {
            backlog,
            peak_backlog,
            account: self.arrivals().account(tallies.elsewhere, left),
            calls: tallies.calls.clone(),
            refused: tallies.refused.clone(),
        }
    }

    fn since_start_us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Locks, whether or not another thread panicked while it held the lock: every section leaves whole values behind.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_incident_is_the_one_that_the_ledger_holds() {
        let scenario = Scenario::new(Setup::default());
        scenario.note_incident(br#"{"pk":{"S":"incident#inc-1"},"sk":{"S":"incident"}}"#);
        scenario.note_incident(br#"{"pk":{"S":"target#t"}}"#);
        assert_eq!(scenario.incident(), "inc-1");
    }

    #[test]
    fn an_answer_may_wait_for_a_change() {
        let answer = |after: Option<&str>| json!({"call": "a.Get", "method": "GET", "path": "/a", "after": after});
        let setup = json!({
            "policy": "",
            "alarm": {"name": "", "arn": "", "state_updated_at_ms": 0},
            "answers": [answer(Some("a.Put")), answer(None)],
        });
        let scenario = Scenario::new(serde_json::from_value(setup).unwrap());
        let asked = Asked {
            method: "GET",
            path: "/a",
            query: "",
            body: b"",
        };
        let waits = || scenario.canned(asked).unwrap().after.is_some();
        assert!(!waits());
        scenario.note_call("a", "Put", false, Instant::now());
        assert!(waits());
    }
}
