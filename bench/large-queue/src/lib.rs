//! A queue of a million dead letters and a consumer that takes a hundred a second: the replay in simulated time.
//!
//! Function, guard and ledger are the real code. The load server stands for SQS; the ledger's table, the alarm, the
//! policy and the time are the simulation's. Lambda's part is played here: an invocation ends at the function's time
//! limit, invokes itself, or is followed by the schedule's next look.

mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use chrono::{DateTime, TimeDelta, Utc};
use dlq_replay::DlqReplay;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::alarm::State;
use shared::clock::Clock;
use shared::ledger::Ledger;
use shared::outcome::{Outcome, Response};
use shared::remediation::Remediation as _;
use shared::runtime::{Invocation, RunError, Runtime, Suite};
use shared::settings::Settings;
use simulation::fate::Fates;
use simulation::store::Door;
use simulation::world::{AlarmNow, World, alarm_arn, alarm_event};
use thiserror::Error;

use crate::wire::Wire;

/// The function's time limit, as the template has it.
const TIMEOUT: TimeDelta = TimeDelta::seconds(300);
/// How often the schedule looks, as the template has it.
const SCHEDULE: Duration = Duration::from_mins(1);
/// Rounds that no replay of the sizes played here needs.
const ROUNDS: u32 = 2_000;

const ALARM: &str = "DlqDepthHigh";
const SOURCE: &str = "arn:aws:sqs:eu-west-1:123456789012:ingestion-dlq";
const DESTINATION: &str = "arn:aws:sqs:eu-west-1:123456789012:ingestion";
const QUARANTINE: &str = "arn:aws:sqs:eu-west-1:123456789012:quarantine";
const FUNCTION: &str = "arn:aws:lambda:eu-west-1:123456789012:function:dlq-replay";

/// What is to be played.
#[derive(Debug, Clone, Copy)]
pub struct Play {
    /// Messages in the dead-letter queue.
    pub messages: u32,
    /// Messages a second that the consumer takes.
    pub consumed_per_second: f64,
    /// By how many messages the policy lets the backlog grow.
    pub max_backlog: u32,
}

/// Why a play did not come to its end.
#[derive(Debug, Error)]
pub enum PlayError {
    /// The function answered with an error.
    #[error("round {round} failed")]
    Failed {
        /// Which round.
        round: u32,
        /// The function's error.
        #[source]
        source: Box<RunError>,
    },
    /// The function ended its run otherwise than by having replayed.
    #[error("round {round} ended with {outcome}")]
    Ended {
        /// Which round.
        round: u32,
        /// How.
        outcome: String,
    },
    /// It went on and on.
    #[error("{ROUNDS} rounds were not enough")]
    Unending,
    /// The load server's account has another form.
    #[error("the load server's account cannot be read")]
    Account(#[source] serde_json::Error),
    /// Tokio's runtime could not be built.
    #[error("building the runtime")]
    Runtime(#[source] std::io::Error),
}

/// How the queues stood at the end of a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Simulated seconds since the alarm.
    pub seconds: f64,
    /// Messages in the dead-letter queue.
    pub left: u64,
    /// Messages in the destination.
    pub backlog: u64,
}

/// What a play came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Played {
    /// Invocations that did a part of the replay.
    pub rounds: u32,
    /// Messages that arrived exactly once.
    pub once: u64,
    /// Messages that never arrived.
    pub lost: u64,
    /// Messages that arrived more than once.
    pub repeated: u64,
    /// The most that the destination held.
    pub peak_backlog: u64,
    /// The queues after each round.
    pub samples: Vec<Sample>,
    /// What the timeline told at the end of each round.
    pub told: Vec<String>,
}

/// The load server's word.
#[derive(Debug, Deserialize)]
struct Account {
    once: u64,
    missing: u64,
    repeated: u64,
    left: u64,
    backlog: u64,
    peak_backlog: u64,
}

/// Plays a replay to its end.
pub fn play(play: Play) -> Result<Played, PlayError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(PlayError::Runtime)?;
    // The world is made inside: its time is the runtime's.
    runtime.block_on(async { Theatre::new(play).await.run().await })
}

struct Theatre {
    world: World,
    door: Door,
    wire: Wire,
    clock: Clock,
    runtime: Runtime<DlqReplay>,
    began: DateTime<Utc>,
}

impl Theatre {
    async fn new(play: Play) -> Self {
        let world = World::new(Fates::new(0, BTreeSet::new()), false);
        world.inner().rough = false;
        let began = world.now();
        let since = began;
        let state = State::Alarm;
        let alarm = AlarmNow { state, since };
        world.inner().alarms.insert(alarm_arn(ALARM), alarm);
        world.publish(DlqReplay::NAME, policy(play).to_string());
        let wire = Wire::default();
        let seed = json!({
            "messages": play.messages,
            "body_bytes": 64,
            "sent_at_ms": began.timestamp_millis() - 3_600_000,
            "source_arn": SOURCE,
            "destination_arn": DESTINATION,
            "consumed_per_second": play.consumed_per_second,
            "policy": "",
            "alarm": {"name": ALARM, "arn": alarm_arn(ALARM), "state_updated_at_ms": 0},
        });
        wire.control("POST", "/_bench/seed", seed.to_string().as_bytes())
            .await;
        let door = Door::new(world.clone());
        let told = world.clone();
        let clock = Clock::reading(move || told.now());
        let ledger = Ledger::new(Arc::new(door.clone()));
        let outside = Arc::new(door.clone());
        let suite = Suite::of(settings(), clock.clone(), ledger, outside);
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .endpoint_url("http://localhost")
            .credentials_provider(SharedCredentialsProvider::new(Credentials::for_tests()))
            .sleep_impl(aws_sdk_sqs::config::SharedAsyncSleep::new(TokioSleep))
            .http_client(wire.clone())
            .build();
        Self {
            runtime: Runtime::new(suite, DlqReplay::new(&config)),
            world,
            door,
            wire,
            clock,
            began,
        }
    }

    async fn run(self) -> Result<Played, PlayError> {
        let mut samples = Vec::new();
        let mut told = Vec::new();
        let mut rounds = 0;
        let mut payload = alarm_event(ALARM, State::Alarm, self.began, "event-1");
        while rounds < ROUNDS {
            let answer = self.invoke(payload, rounds).await;
            let answer = answer.map_err(|source| PlayError::Failed {
                round: rounds,
                source: Box::new(source),
            })?;
            let account = self.account().await?;
            samples.push(Sample {
                seconds: (self.world.now() - self.began).as_seconds_f64(),
                left: account.left,
                backlog: account.backlog,
            });
            rounds += u32::from(!answer.reports.is_empty());
            for report in &answer.reports {
                told.push(report.outcome.reason().to_owned());
                match &report.outcome {
                    Outcome::Pending { .. } => {}
                    Outcome::Applied { .. } => {
                        return Ok(Played {
                            rounds,
                            once: account.once,
                            lost: account.missing,
                            repeated: account.repeated,
                            peak_backlog: account.peak_backlog,
                            samples,
                            told,
                        });
                    }
                    other => {
                        return Err(PlayError::Ended {
                            round: rounds,
                            outcome: format!("{}: {}", other.name(), other.reason()),
                        });
                    }
                }
            }
            payload = if let Some(continuation) = self.wire.continuations().pop() {
                continuation
            } else {
                tokio::time::sleep(SCHEDULE).await;
                json!({"source": "aws.events", "detail-type": "Scheduled Event"})
            };
        }
        Err(PlayError::Unending)
    }

    async fn invoke(&self, payload: Value, nth: u32) -> Result<Response, RunError> {
        let (number, _) = self.world.begins("dlq-replay");
        self.door.opens_for(number);
        let invocation = Invocation {
            payload,
            request_id: format!("request-{nth}-{number}"),
            deadline: self.clock.now() + TIMEOUT,
            function_arn: FUNCTION.to_owned(),
            trace_id: None,
        };
        let answer = Box::pin(self.runtime.handle(invocation)).await;
        self.world.ends(number);
        answer
    }

    async fn account(&self) -> Result<Account, PlayError> {
        let account = self.wire.control("GET", "/_bench/account", b"").await;
        serde_json::from_slice(&account).map_err(PlayError::Account)
    }
}

/// The SDK's sleep, in tokio's time.
#[derive(Debug)]
struct TokioSleep;

impl aws_sdk_sqs::config::AsyncSleep for TokioSleep {
    fn sleep(&self, duration: Duration) -> aws_sdk_sqs::config::Sleep {
        aws_sdk_sqs::config::Sleep::new(tokio::time::sleep(duration))
    }
}

fn settings() -> Settings {
    Settings {
        ledger_table: "ledger".to_owned(),
        policy_parameter: DlqReplay::NAME.to_owned(),
        event_bus: "default".to_owned(),
        orchestrated: false,
        dry_run: false,
        local: false,
        log: tracing::Level::ERROR,
    }
}

fn policy(play: Play) -> Value {
    json!({
        "version": 1,
        "targets": [{
            "name": "ingestion",
            "alarms": [alarm_arn(ALARM)],
            "action": {
                "source": SOURCE,
                "destinations": [{"arn": DESTINATION}],
                "quarantine": QUARANTINE,
                "limits": {"max_messages": play.messages, "max_backlog": play.max_backlog},
            },
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_queue_is_replayed_as_fast_as_its_consumer_takes_it_and_nothing_is_lost() {
        let played = play(Play {
            messages: 20_000,
            consumed_per_second: 100.0,
            max_backlog: 2_000,
        })
        .unwrap();
        assert_eq!((played.once, played.lost, played.repeated), (20_000, 0, 0));
        assert!(played.peak_backlog <= 2_000, "{}", played.peak_backlog);
        // Beside what the consumer still has, it has worked all the time.
        let took = played.samples.last().unwrap().seconds;
        assert!(took < 20_000.0 / 100.0 * 1.3, "{took} s");
    }
}
