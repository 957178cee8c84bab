//! A toy that goes back to a version that it has seen to serve well, and learns which those are.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shared::alarm::AlarmEvent;
use shared::remediation::{
    Done, End, Lasting, Learning, Lesson, Moment, OneRound, Planned, PlannedBy, Remediation,
    Verified, Work,
};

use super::page::signed;
use super::{Seen, Toy, ToyError, look, put};
use crate::store::Door;

/// The toy.
#[derive(Debug)]
pub struct Rollback {
    /// Its way into the world.
    pub door: Door,
}

/// What it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    resource: String,
    revision: u64,
    from: u64,
    to: u64,
}

/// What it remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The version that serves.
    pub serving: Option<u64>,
    /// Versions that served well.
    pub good: BTreeSet<u64>,
    /// Versions that it went back from.
    pub bad: BTreeSet<u64>,
    /// Versions that someone is held to have gone back from by hand.
    pub by_hand: BTreeSet<u64>,
    /// Its own moves.
    pub moves: BTreeSet<(u64, u64)>,
}

fn version(seen: &Seen) -> u64 {
    seen.value.trim_start_matches('v').parse().unwrap_or(0)
}

impl Remediation for Rollback {
    const NAME: &'static str = "toy-rollback";
    const MOMENTARY: &'static [&'static str] = &["revision"];
    type Action = Toy;
    type Observed = Seen;
    type Plan = Plan;
    type Evidence = Seen;
    type Memory = Memory;
    type Reversal = Lasting;
    type Learning = Self;
    type Rounds = OneRound;
    type Error = ToyError;

    async fn observe(
        &self,
        action: &Toy,
        _event: Option<&AlarmEvent>,
        _now: DateTime<Utc>,
    ) -> Result<Seen, ToyError> {
        look(&self.door, &action.resource).await
    }

    fn plan(seen: &Seen, action: &Toy, moment: &Moment<'_, Self>) -> PlannedBy<Self> {
        let now = version(seen);
        if let Some(begun) = moment.begun.filter(|begun| begun.to == now) {
            return Planned::Act {
                plan: Plan {
                    revision: seen.revision,
                    ..begun.clone()
                },
                snapshot: None,
            };
        }
        if moment.resuming
            && moment
                .begun
                .is_some_and(|begun| begun.revision != seen.revision)
        {
            return Planned::Nothing {
                reason: format!("someone has gone to v{now}"),
            };
        }
        let memory = moment.memory.cloned().unwrap_or_default();
        let good = memory.good.iter().rev();
        let to = good
            .copied()
            .find(|good| *good < now && !memory.bad.contains(good));
        match to {
            Some(to) => Planned::Act {
                plan: Plan {
                    resource: action.resource.clone(),
                    revision: seen.revision,
                    from: now,
                    to,
                },
                snapshot: None,
            },
            None => Planned::Nothing {
                reason: "no earlier version was seen to serve well".to_owned(),
            },
        }
    }

    async fn apply(
        &self,
        plan: &Plan,
        _action: &Toy,
        work: &Work<'_, Self>,
    ) -> Result<Done<Self>, ToyError> {
        let clearance = work.clear("go back")?;
        let value = format!("v{}", plan.to);
        let change = (plan.resource.as_str(), plan.revision, value.as_str());
        if !put(&self.door, clearance, signed(work, false), change, 0).await? {
            let reason = format!("{} was changed by another hand", plan.resource);
            return Ok(Done::new(End::Overtaken { reason }, "nothing was changed"));
        }
        let mut memory = work.memory().cloned().unwrap_or_default();
        memory.moves.insert((plan.from, plan.to));
        memory.serving = Some(plan.to);
        memory.bad.insert(plan.from);
        memory.good.remove(&plan.from);
        Ok(Done {
            memory: Some(memory),
            ..Done::new(End::Finished, format!("went back to {value}"))
        })
    }

    async fn verify(&self, plan: &Plan, _evidence: Option<&Seen>) -> Result<Verified, ToyError> {
        let seen = look(&self.door, &plan.resource).await?;
        Ok(Verified {
            holds: version(&seen) == plan.to,
            summary: format!("read back: {}", seen.value),
        })
    }
}

impl Learning<Self> for Rollback {
    fn learn(
        seen: &Seen,
        _action: &Toy,
        memory: Option<&Memory>,
        _now: DateTime<Utc>,
    ) -> Option<Lesson<Memory>> {
        let known = memory.cloned().unwrap_or_default();
        let now = version(seen);
        let mut next = known.clone();
        if let Some(before) = known.serving.filter(|before| *before > now)
            && !known.moves.contains(&(before, now))
        {
            next.by_hand.insert(before);
        }
        next.serving = Some(now);
        if !next.bad.contains(&now) {
            next.good.insert(now);
        }
        (next != known).then(|| Lesson {
            memory: next,
            summary: format!("v{now} serves"),
        })
    }
}
