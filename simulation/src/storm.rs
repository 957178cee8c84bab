//! Storms: one alarm on a thousand targets, a thousand targets in one look of the schedule, a hundred alarms at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use shared::alarm::State;
use tokio::task::JoinSet;

use crate::driver::paused;
use crate::error::Error;
use crate::fate::Fates;
use crate::invariants::Target;
use crate::script::Script;
use crate::stage::{REMEDIATION, Stage};
use crate::world::{AlarmNow, OURS, World, alarm_arn, alarm_event};

/// What a storm came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weathered {
    /// Targets.
    pub targets: usize,
    /// Those that were acted on when the first invocation ended.
    pub at_once: usize,
    /// Those that the ledger keeps as due then.
    pub due: usize,
    /// Looks of the schedule until all were acted on.
    pub looks: usize,
    /// Invocations that failed.
    pub failures: usize,
    /// Calls at once, at most.
    pub most_flying: u64,
    /// Calls in one second at most, by operation.
    pub most_a_second: BTreeMap<&'static str, u64>,
    /// How long the first invocation took, in milliseconds.
    pub took_ms: i64,
}

impl Weathered {
    /// In one line.
    #[must_use]
    pub fn told(&self, what: &str) -> String {
        let rates = self.most_a_second.iter();
        let rates: Vec<String> = rates
            .map(|(operation, most)| format!("{operation} {most}"))
            .collect();
        format!(
            "storm: {what}: {} targets, {} acted on at once in {} ms, {} due, {} looks to the rest, {} failures, at most {} calls in flight, in one second at most: {}",
            self.targets,
            self.at_once,
            self.took_ms,
            self.due,
            self.looks,
            self.failures,
            self.most_flying,
            rates.join(", ")
        )
    }
}

/// One alarm on so many targets: what is not acted on in the first invocation's time is due, and none is lost.
pub fn one_alarm(targets: usize) -> Result<Weathered, Error> {
    paused(async move {
        let storm = Storm::new(targets, 1);
        storm.alarm("a1");
        let payload = alarm_event("a1", State::Alarm, storm.world.now(), "event-1");
        let began = storm.world.now();
        let failed = storm.invoke(payload, "request-1").await;
        let took_ms = (storm.world.now() - began).num_milliseconds();
        storm.to_the_end(usize::from(failed), took_ms).await
    })
}

/// So many alarms within half a second, each on a target of its own: `DescribeAlarms` allows nine calls a second.
pub fn many_alarms(alarms: usize) -> Result<Weathered, Error> {
    paused(async move {
        let storm = Arc::new(Storm::new(alarms, alarms));
        let began = storm.world.now();
        let mut flying = JoinSet::new();
        for nth in 1..=alarms {
            let name = format!("a{nth}");
            storm.alarm(&name);
            let payload = alarm_event(&name, State::Alarm, storm.world.now(), &name);
            let storm = Arc::clone(&storm);
            flying.spawn(async move { storm.invoke(payload, &format!("request-{nth}")).await });
            tokio::time::sleep(std::time::Duration::from_millis(
                500 / u64::try_from(alarms).unwrap_or(1),
            ))
            .await;
        }
        let mut failures = 0;
        while let Some(failed) = flying.join_next().await {
            failures += usize::from(failed.unwrap_or(true));
        }
        let took_ms = (storm.world.now() - began).num_milliseconds();
        storm.to_the_end(failures, took_ms).await
    })
}

/// So many targets whose alarm's event was lost, in one look of the schedule.
pub fn one_look(targets: usize) -> Result<Weathered, Error> {
    paused(async move {
        let storm = Storm::new(targets, 1);
        storm.alarm("a1");
        // By then the event of the change is not on its way any more.
        tokio::time::sleep(std::time::Duration::from_mins(6)).await;
        let began = storm.world.now();
        let failed = storm.invoke(look(), "look-0").await;
        let took_ms = (storm.world.now() - began).num_milliseconds();
        storm.to_the_end(usize::from(failed), took_ms).await
    })
}

fn look() -> Value {
    json!({"source": "aws.events", "detail-type": "Scheduled Event"})
}

struct Storm {
    world: World,
    targets: usize,
}

impl Storm {
    fn new(targets: usize, alarms: usize) -> Self {
        let world = World::new(Fates::new(0, std::collections::BTreeSet::new()), false);
        world.inner().rough = false;
        let all: Vec<Target> = (1..=targets)
            .map(|nth| Target {
                remediation: REMEDIATION,
                resource: format!("{REMEDIATION}-{nth}"),
                alarms: vec![format!("a{}", (nth - 1) % alarms + 1)],
                listed: true,
            })
            .collect();
        for target in &all {
            world.create(&target.resource, "normal", 0);
        }
        let policy = Script::policy(&all, REMEDIATION).to_string();
        world.publish(REMEDIATION, policy);
        Self { world, targets }
    }

    fn alarm(&self, name: &str) {
        let now = AlarmNow {
            state: State::Alarm,
            since: self.world.now(),
        };
        self.world.inner().alarms.insert(alarm_arn(name), now);
    }

    /// Whether the invocation failed.
    async fn invoke(&self, payload: Value, request: &str) -> bool {
        Stage::new(&self.world, false)
            .send(payload, request)
            .await
            .is_err()
    }

    fn acted_on(&self) -> usize {
        let inner = self.world.inner();
        let things = inner.things.values();
        things.filter(|thing| thing.value == OURS).count()
    }

    fn waiting(&self) -> usize {
        let inner = self.world.inner();
        let keys = inner.table.keys();
        keys.filter(|key| key.sk.starts_with("waiting#")).count()
    }

    /// Lets the schedule look until every target was acted on, an hour at most.
    async fn to_the_end(&self, mut failures: usize, took_ms: i64) -> Weathered {
        let (at_once, due) = (self.acted_on(), self.waiting());
        let mut looks = 0;
        while self.acted_on() < self.targets && looks < 12 {
            tokio::time::sleep(std::time::Duration::from_mins(5)).await;
            looks += 1;
            failures += usize::from(self.invoke(look(), &format!("look-{looks}")).await);
        }
        let load = self.world.inner().load.clone();
        Weathered {
            targets: self.targets,
            at_once,
            due,
            looks,
            failures,
            most_flying: load.most_flying,
            most_a_second: load.most_a_second,
            took_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_a_thousand_targets_of_one_alarm_is_acted_on_or_due() {
        let weathered = one_alarm(1_000).unwrap();
        assert_eq!(weathered.at_once + weathered.due, 1_000, "{weathered:?}");
        assert_eq!(weathered.failures, 0, "{weathered:?}");
        assert!(weathered.looks < 12, "{weathered:?}");
        assert!(weathered.most_flying <= 64, "{weathered:?}");
    }

    #[test]
    fn what_does_not_fit_in_the_time_is_due_and_taken_up() {
        let weathered = one_alarm(3_000).unwrap();
        assert_eq!(weathered.at_once + weathered.due, 3_000, "{weathered:?}");
        assert!(weathered.due > 100, "{weathered:?}");
        assert_eq!(weathered.failures, 0, "{weathered:?}");
        assert!((1..12).contains(&weathered.looks), "{weathered:?}");
    }

    #[test]
    fn a_thousand_targets_in_one_look_are_looked_at_eight_at_a_time() {
        let weathered = one_look(1_000).unwrap();
        assert_eq!(weathered.failures, 0, "{weathered:?}");
        assert!(weathered.looks < 12, "{weathered:?}");
        assert!(weathered.most_flying <= 64, "{weathered:?}");
    }

    #[test]
    fn a_hundred_alarms_in_half_a_second_wait_their_turn_and_none_fails() {
        let weathered = many_alarms(100).unwrap();
        assert_eq!(
            (weathered.at_once, weathered.failures),
            (100, 0),
            "{weathered:?}"
        );
    }
}
