//! What happens in a world, written down before it is played: alarms, deliveries, policy edits, kill switches, humans.

use serde_json::{Value, json};
use shared::alarm::State;

use crate::fate::{at, draw};
use crate::invariants::Target;

/// The remediations of the simulation.
pub const REMEDIATIONS: [&str; 5] = [
    "toy-page",
    "toy-cache",
    "toy-approved",
    "toy-rollback",
    "toy-replay",
];

/// Something that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// An alarm changes; its event is delivered to each remediation after so many seconds, none where it is lost.
    Flips {
        /// The alarm's name.
        alarm: String,
        /// The state that it comes into.
        state: State,
        /// By remediation: after how many seconds its deliveries come.
        deliveries: Vec<(&'static str, Vec<u64>)>,
    },
    /// A target is taken out of a policy, or put back in.
    Edits {
        /// The remediation.
        remediation: &'static str,
        /// The thing.
        resource: String,
        /// Whether the policy names it from now on.
        listed: bool,
    },
    /// A policy becomes unreadable, or readable again.
    Breaks {
        /// The remediation.
        remediation: &'static str,
        /// Whether it is unreadable from now on.
        broken: bool,
    },
    /// A kill switch is thrown or lifted.
    Switches {
        /// Its sort key.
        scope: String,
        /// Whether it is on from now on.
        on: bool,
    },
    /// A human changes a thing.
    Human {
        /// The thing.
        resource: String,
        /// What it is like from now on; for a version, whether it goes up or back.
        value: HumanTouch,
    },
    /// The table deletes what it may.
    Expires,
}

/// What a human does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HumanTouch {
    /// Makes it like this.
    Value(String),
    /// Deploys the next version.
    Deploys,
    /// Goes back a version.
    GoesBack,
}

/// A world's story.
#[derive(Debug, Clone)]
pub struct Script {
    /// The remediations that take part.
    pub remediations: Vec<&'static str>,
    /// The alarms' names.
    pub alarms: Vec<String>,
    /// The targets.
    pub targets: Vec<Target>,
    /// How often the schedule looks, in seconds.
    pub look_every: u64,
    /// When the world comes to rest, in seconds.
    pub ends_at: u64,
    /// What the metrics of alarms that have one are, minute by minute; above [`THRESHOLD`] is bad.
    pub metrics: Vec<(String, Vec<f64>)>,
    /// What happens, at which second.
    pub happenings: Vec<(u64, Happening)>,
}

/// From which value on a metric is bad.
pub const THRESHOLD: f64 = 5.0;

/// Dice of one script.
struct Dice {
    seed: u64,
    throws: u64,
}

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.throws += 1;
        draw(self.seed, &["script", &self.throws.to_string()], below)
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from)
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let many = u64::try_from(all.len()).unwrap_or(1);
        let one = self.below(many);
        all.get(at(one))
    }
}

impl Script {
    /// The story of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice { seed, throws: 0 };
        let mut remediations: Vec<&'static str> = REMEDIATIONS.to_vec();
        while remediations.len() > 2 || (remediations.len() == 2 && dice.one_in(2)) {
            let out = dice.below(u64::try_from(remediations.len()).unwrap_or(1));
            remediations.remove(at(out));
        }
        let alarms: Vec<String> = (1..=dice.between(1, 4)).map(|n| format!("a{n}")).collect();
        let mut targets = Vec::new();
        for remediation in &remediations {
            for n in 1..=dice.between(1, 3) {
                let mut of_target: Vec<String> = alarms.clone();
                of_target.retain(|_| dice.one_in(2));
                if of_target.is_empty() {
                    of_target.extend(dice.one_of(&alarms).cloned());
                }
                targets.push(Target {
                    remediation,
                    resource: format!("{remediation}-{n}"),
                    alarms: of_target,
                    listed: true,
                });
            }
        }
        let ends_at = 60 * dice.between(12, 50);
        let mut script = Self {
            look_every: [90, 200, 300][at(dice.below(3))],
            remediations,
            alarms,
            targets,
            ends_at,
            metrics: Vec::new(),
            happenings: Vec::new(),
        };
        script.flips(&mut dice);
        script.humans(&mut dice);
        script.edits(&mut dice);
        script.switches(&mut dice);
        script.measures(&mut dice);
        script.happenings.sort_by_key(|(second, _)| *second);
        script
    }

    fn flips(&mut self, dice: &mut Dice) {
        for alarm in self.alarms.clone() {
            let mut second = dice.between(10, 400);
            let mut state = State::Ok;
            // Some alarms flap.
            let longest = if dice.one_in(4) { 120 } else { 1_200 };
            while second < self.ends_at {
                state = match state {
                    State::Alarm if dice.one_in(12) => State::InsufficientData,
                    State::Alarm => State::Ok,
                    _ => State::Alarm,
                };
                let deliveries = self.remediations.clone();
                let deliveries = deliveries
                    .into_iter()
                    .map(|remediation| (remediation, deliveries_of(dice)))
                    .collect();
                self.happenings.push((
                    second,
                    Happening::Flips {
                        alarm: alarm.clone(),
                        state,
                        deliveries,
                    },
                ));
                second += dice.between(15, longest);
            }
        }
    }

    fn measures(&mut self, dice: &mut Dice) {
        for alarm in self.alarms.clone() {
            if dice.one_in(3) {
                continue;
            }
            let minutes = self.ends_at / 60 + 90;
            let values = (0..minutes).map(|_| [2.0, 6.0, 9.0, 14.0][at(dice.below(4))]);
            self.metrics.push((alarm, values.collect()));
        }
    }

    fn humans(&mut self, dice: &mut Dice) {
        for target in self.targets.clone() {
            let resource = target.resource;
            if target.remediation == "toy-rollback" {
                for _ in 0..dice.between(1, 5) {
                    let value = if dice.one_in(4) {
                        HumanTouch::GoesBack
                    } else {
                        HumanTouch::Deploys
                    };
                    let second = dice.below(self.ends_at);
                    let resource = resource.clone();
                    self.happenings
                        .push((second, Happening::Human { resource, value }));
                }
            } else if target.remediation != "toy-replay" && dice.one_in(4) {
                let value = if dice.one_in(2) { "normal" } else { "human" };
                let value = HumanTouch::Value(value.to_owned());
                let second = dice.below(self.ends_at);
                self.happenings
                    .push((second, Happening::Human { resource, value }));
            }
        }
    }

    fn edits(&mut self, dice: &mut Dice) {
        for target in self.targets.clone() {
            if !dice.one_in(4) {
                continue;
            }
            let edit = |listed| Happening::Edits {
                remediation: target.remediation,
                resource: target.resource.clone(),
                listed,
            };
            let second = dice.below(self.ends_at);
            // Some are new rather than gone.
            let first = dice.one_in(3);
            self.happenings
                .push((if first { 0 } else { second }, edit(false)));
            if first || dice.one_in(2) {
                self.happenings
                    .push((second + dice.between(30, 900), edit(true)));
            }
        }
        if dice.one_in(10)
            && let Some(remediation) = dice.one_of(&self.remediations).copied()
        {
            let second = dice.below(self.ends_at);
            let breaks = |broken| Happening::Breaks {
                remediation,
                broken,
            };
            self.happenings.push((second, breaks(true)));
            self.happenings
                .push((second + dice.between(60, 900), breaks(false)));
        }
        if dice.one_in(3) {
            for _ in 0..dice.between(1, 4) {
                self.happenings
                    .push((dice.below(self.ends_at), Happening::Expires));
            }
        }
    }

    fn switches(&mut self, dice: &mut Dice) {
        if !dice.one_in(3) {
            return;
        }
        for _ in 0..dice.between(1, 3) {
            let Some(target) = dice.one_of(&self.targets).cloned() else {
                return;
            };
            let scope = match dice.below(3) {
                0 => "global".to_owned(),
                1 => format!("remediation#{}", target.remediation),
                _ => format!("target#{}", target.resource),
            };
            // Often just when something is going on.
            let flips: Vec<u64> = self
                .happenings
                .iter()
                .filter(|(_, happening)| matches!(happening, Happening::Flips { .. }))
                .map(|(second, _)| *second)
                .collect();
            let second = match dice.one_of(&flips) {
                Some(flip) if dice.one_in(2) => flip + dice.below(8),
                _ => dice.below(self.ends_at),
            };
            let switch = |on| Happening::Switches {
                scope: scope.clone(),
                on,
            };
            self.happenings.push((second, switch(true)));
            if !dice.one_in(4) {
                self.happenings
                    .push((second + dice.between(20, 1_500), switch(false)));
            }
        }
    }

    /// The policy document of a remediation, with the targets that are listed.
    #[must_use]
    pub fn policy(targets: &[Target], remediation: &str) -> Value {
        let listed: Vec<Value> = targets
            .iter()
            .filter(|target| target.remediation == remediation && target.listed)
            .map(|target| {
                json!({
                    "name": target.resource,
                    "alarms": target.alarms,
                    "guard": {
                        "max_event_age_seconds": 900,
                        "budget": {"actions": 5, "window_seconds": 1200},
                        "cooldown_seconds": 60,
                        "flap": {"transitions": 6, "window_seconds": 900},
                        "breaker": {"refires": 2, "window_seconds": 200, "open_seconds": 600},
                        "undo_if_worse": target.resource.ends_with('1'),
                    },
                    "action": {
                        "resource": target.resource,
                        "stabilisation_seconds": 120,
                        "expires_after_seconds": 900,
                        "at_most_seconds": 2400,
                    },
                })
            })
            .collect();
        // A document names at least one target; one that nobody's alarm reaches stands for none.
        let none = json!({
            "name": "none",
            "alarms": ["none"],
            "action": {
                "resource": format!("{remediation}-none"),
                "stabilisation_seconds": 60,
                "expires_after_seconds": 600,
                "at_most_seconds": 600,
            },
        });
        let targets = if listed.is_empty() {
            vec![none]
        } else {
            listed
        };
        json!({"version": 1, "targets": targets})
    }
}

/// When the deliveries of one event come: most at once, some late, some twice, some hours later, some never.
fn deliveries_of(dice: &mut Dice) -> Vec<u64> {
    let first = match dice.below(40) {
        0 => return Vec::new(),
        1..4 => dice.between(60, 900),
        4 => dice.between(900, 5_400),
        _ => dice.between(1, 5),
    };
    let mut all = vec![first];
    if dice.one_in(7) {
        all.push(match dice.below(4) {
            0 => first,
            1 => first + dice.between(1, 20),
            2 => first + dice.between(20, 600),
            _ => first + dice.between(600, 7_200),
        });
    }
    all
}
