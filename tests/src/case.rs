//! A replay ready to be run: queues, an alarm in ALARM, a policy, the alarm's event, and what is found afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aws_sdk_sqs::types::MessageSystemAttributeName;
use chrono::{DateTime, TimeDelta, Utc};
use dlq_replay::account::Account as Told;
use serde_json::{Value, json};
use shared::clock::Clock;

use crate::failure::{During, Failure, Result};
use crate::message::{Account, Received, Seed};
use crate::proxy::{Fault, Proxy, Reply, Rule};
use crate::replay::{Ended, Run};
use crate::world::{Alarm, Ingestion, Kind, World, alarm_event};

/// What the function's ARN ends in when [`crate::replay`] runs it.
pub const FUNCTION: &str = "run-once";

/// How far a retry is in time from a run that died: further than any claim and any lease lasts.
pub const AFTER_A_DEATH: TimeDelta = TimeDelta::minutes(5);

/// A replay ready to be run.
#[derive(Debug)]
pub struct Case<'a> {
    /// Where it takes place.
    pub world: &'a World,
    /// The queues.
    pub ingestion: Ingestion,
    /// The alarm.
    pub alarm: Alarm,
    /// The alarm's change to ALARM.
    pub event: Value,
    /// The policy that was put last.
    pub policy: Value,
    binary: PathBuf,
}

/// What the queues of a case held when it was over, taken out of them.
#[derive(Debug)]
pub struct Found {
    /// In the source queue, where messages are replayed to.
    pub replayed: Vec<Received>,
    /// In the quarantine.
    pub quarantined: Vec<Received>,
    /// In the dead-letter queue.
    pub left: Vec<Received>,
}

impl<'a> Case<'a> {
    /// A case whose only destination is the source queue, run by `binary`.
    pub async fn new(world: &'a World, kind: Kind, binary: &str) -> Result<Self> {
        let ingestion = world.ingestion(kind).await?;
        let alarm = world.alarm("DlqDepthHigh").await?;
        let event = alarm_event(&alarm, "OK", "ALARM", Clock::system().now());
        let policy = json!({
            "version": 1,
            "targets": [{
                "name": "ingestion",
                "alarms": [alarm.arn],
                "guard": {
                    "max_event_age_seconds": 86_400,
                    "cooldown_seconds": 0,
                    "budget": {"actions": 1_000, "window_seconds": 60},
                    "flap": {"transitions": 1_000, "window_seconds": 60},
                    "breaker": {"refires": 1_000, "window_seconds": 60, "open_seconds": 60},
                },
                "action": {
                    "source": ingestion.dlq.arn,
                    "destinations": [{"arn": ingestion.source.arn}],
                    "default_destination": ingestion.source.arn,
                    "quarantine": ingestion.quarantine.arn,
                    "limits": {"messages_per_second": 10_000},
                    "canary": {"messages": 10, "settle_seconds": 0},
                },
            }],
        });
        world.put_policy(&policy).await?;
        Ok(Self {
            world,
            ingestion,
            alarm,
            event,
            policy,
            binary: binary.into(),
        })
    }

    /// Changes what the policy says of the replay.
    pub async fn set(&mut self, field: &str, value: Value) -> Result {
        self.policy["targets"][0]["action"][field] = value;
        self.world.put_policy(&self.policy).await
    }

    /// A proxy that takes the function's invocations of itself, for [`Case::to_the_end`] to carry out.
    pub async fn proxy(&self) -> Result<Proxy> {
        let proxy = Proxy::start(&self.world.cloud).await?;
        self.take_continuations(&proxy);
        Ok(proxy)
    }

    /// Lays the rule for continuations again after [`Proxy::heal`].
    pub fn take_continuations(&self, proxy: &Proxy) {
        proxy.inject(
            Rule::new("lambda:Invoke", Fault::Reply(Reply::success(202, "")))
                .when(|call| call.subject.ends_with(FUNCTION)),
        );
    }

    /// A run on the alarm's event.
    #[must_use]
    pub fn run(&self, proxy: &Proxy) -> Run {
        Run::new(&self.binary, self.world, proxy, &self.event)
    }

    /// A run on another change of the alarm to ALARM.
    #[must_use]
    pub fn run_at(&self, proxy: &Proxy, at: DateTime<Utc>) -> Run {
        let event = alarm_event(&self.alarm, "OK", "ALARM", at);
        Run::new(&self.binary, self.world, proxy, &event)
    }

    /// The payloads with which the function has asked to be invoked again, in their order.
    #[must_use]
    pub fn continuations(&self, proxy: &Proxy) -> Vec<Value> {
        let mut calls = proxy.calls("lambda:Invoke");
        calls.retain(|entry| entry.call.subject.ends_with(FUNCTION));
        calls.iter().map(|entry| entry.call.json()).collect()
    }

    /// Runs, and carries on for as long as the function asks to be invoked again.
    ///
    /// Returns how each round ended.
    pub async fn to_the_end(&self, proxy: &Proxy, run: Run) -> Result<Vec<Ended>> {
        const ROUNDS: usize = 20;
        let mut done = self.continuations(proxy).len();
        let mut ended = vec![run.clone().finish().await?];
        while let Some(payload) = self.continuations(proxy).get(done) {
            done += 1;
            if ended.len() == ROUNDS {
                return Err(Failure::new(format!(
                    "still going on after {ROUNDS} rounds"
                )));
            }
            ended.push(run.clone().on(payload).finish().await?);
        }
        Ok(ended)
    }

    /// Takes all messages out of the case's queues.
    pub async fn found(&self) -> Result<Found> {
        Ok(Found {
            replayed: self.world.drain(&self.ingestion.source).await?,
            quarantined: self.world.drain(&self.ingestion.quarantine).await?,
            left: self.world.drain(&self.ingestion.dlq).await?,
        })
    }
}

impl Found {
    /// All messages, wherever they were.
    pub fn all(&self) -> impl Iterator<Item = &Received> {
        self.replayed
            .iter()
            .chain(&self.quarantined)
            .chain(&self.left)
    }

    /// What was lost and what is there twice, over all queues.
    #[must_use]
    pub fn account(&self, seeds: &[Seed]) -> Account {
        Account::of(
            bodies_of(seeds),
            self.all().map(|message| message.body.as_str()),
        )
    }

    /// The same, taking only what was replayed.
    #[must_use]
    pub fn replayed(&self, seeds: &[Seed]) -> Account {
        Account::of(
            bodies_of(seeds),
            self.replayed.iter().map(|message| message.body.as_str()),
        )
    }

    /// The same, taking only what was quarantined.
    #[must_use]
    pub fn quarantined(&self, seeds: &[Seed]) -> Account {
        Account::of(
            bodies_of(seeds),
            self.quarantined.iter().map(|message| message.body.as_str()),
        )
    }
}

fn bodies_of(seeds: &[Seed]) -> impl Iterator<Item = &str> {
    seeds.iter().map(|seed| seed.body.as_str())
}

/// The account in a report's evidence, which has to balance.
pub fn told(report: &Value) -> Result<Told> {
    let evidence = &report["evidence"]["account"];
    let told: Told =
        serde_json::from_value(evidence.clone()).during(&format!("the account in {report}"))?;
    told.balance()
        .map_err(|imbalance| Failure::new(format!("{imbalance:?} in {report}")))?;
    Ok(told)
}

/// Checks that within each FIFO group the bodies' numbers rise in the order in which they arrived.
pub fn assert_in_order(messages: &[Received]) -> Result {
    let mut last: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
    let mut sorted: Vec<(&str, &Received)> = Vec::new();
    for message in messages {
        let number = message.system(&MessageSystemAttributeName::SequenceNumber);
        sorted.push((number.during("the sequence number")?, message));
    }
    sorted.sort_by_key(|(number, _)| *number);
    for (_, message) in sorted {
        let group = message
            .system(&MessageSystemAttributeName::MessageGroupId)
            .during("the group")?;
        let digits: String = message.body.chars().filter(char::is_ascii_digit).collect();
        let number = digits.parse().during(&message.body)?;
        if let Some((body, earlier)) = last.insert(group, (&message.body, number))
            && earlier > number
        {
            return Err(Failure::new(format!(
                "{group}: {} after {body}",
                message.body
            )));
        }
    }
    Ok(())
}
