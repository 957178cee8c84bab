//! A toy whose work takes many rounds: it delivers messages one by one, some in each round, and removes each after.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::alarm::AlarmEvent;
use shared::remediation::{
    Clearance, Done, End, Failure as _, Lasting, Moment, Planned, PlannedBy, Remediation, Rounds,
    Unlearning, Verified, Work,
};

use super::page::signed;
use super::{Seen, Signed, Toy, ToyError, look};
use crate::store::Door;
use crate::world::Effect;

/// Messages of one round.
const A_ROUND: usize = 4;

/// The toy.
#[derive(Debug)]
pub struct Replay {
    /// Its way into the world.
    pub door: Door,
}

/// What it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    resource: String,
    waiting: usize,
}

/// What a round leaves for the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Messages that were delivered and are still to be removed.
    delivered: BTreeSet<u32>,
    /// Whether one more may have been delivered, of which nobody knows.
    unsure: bool,
}

/// What later runs must not deliver again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory(Progress);

impl Progress {
    fn with(mut self, other: &Self) -> Self {
        self.delivered.extend(&other.delivered);
        self.unsure |= other.unsure;
        self
    }
}

impl Replay {
    /// Delivers the first message that is not known to be delivered; gives its number, or none when the queue is dry.
    async fn deliver(
        &self,
        _clearance: Clearance<'_>,
        signed: Signed<'_>,
        resource: &str,
        progress: &Progress,
    ) -> Result<Option<u32>, ToyError> {
        let invocation = self.door.invocation();
        let delivered = self.door.call("Deliver", resource, |world| {
            let message = {
                let mut inner = world.inner();
                let thing = inner.things.get_mut(resource)?;
                let mut waiting = thing.waiting.iter().copied();
                let message = waiting.find(|message| !progress.delivered.contains(message))?;
                *thing.delivered.entry(message).or_default() += 1;
                if progress.unsure {
                    thing.counted.insert(message);
                }
                message
            };
            world.tell(|| format!("#{invocation} {} delivers {message}", signed.run_id));
            let effect = Effect {
                remediation: signed.remediation,
                run_id: signed.run_id.to_owned(),
                invocation,
                resource: resource.to_owned(),
                reverts: false,
            };
            world.lands(effect, signed.token);
            Some(message)
        });
        delivered.await.map_err(ToyError::Call)
    }

    /// Removes a message that was delivered.
    async fn remove(
        &self,
        _clearance: Clearance<'_>,
        resource: &str,
        message: u32,
    ) -> Result<(), ToyError> {
        let removed = self.door.call("Remove", resource, |world| {
            if let Some(thing) = world.inner().things.get_mut(resource) {
                thing.waiting.remove(&message);
            }
        });
        removed.await.map_err(ToyError::Call)
    }

    /// Delivers some messages and removes them; whether the queue is dry.
    async fn round(
        &self,
        plan: &Plan,
        work: &Work<'_, Self>,
        progress: &mut Progress,
    ) -> Result<bool, ToyError> {
        let resource = plan.resource.as_str();
        for _ in 0..A_ROUND {
            while let Some(message) = progress.delivered.first().copied() {
                let clearance = work.clear("remove a message")?;
                self.remove(clearance, resource, message).await?;
                progress.delivered.remove(&message);
            }
            let clearance = work.clear("deliver a message")?;
            let signed = signed(work, false);
            let delivered = self.deliver(clearance, signed, resource, progress).await;
            progress.unsure |= delivered.is_err();
            let Some(message) = delivered? else {
                return Ok(true);
            };
            progress.delivered.insert(message);
            if work.checkpoint(progress).await.is_err() {
                break;
            }
        }
        Ok(false)
    }
}

impl Remediation for Replay {
    const NAME: &'static str = "toy-replay";
    type Action = Toy;
    type Observed = Seen;
    type Plan = Plan;
    type Evidence = Seen;
    type Memory = Memory;
    type Reversal = Lasting;
    type Learning = Unlearning;
    type Rounds = Self;
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
        if seen.waiting == 0 && !moment.resuming {
            return Planned::Nothing {
                reason: "no message waits".to_owned(),
            };
        }
        Planned::Act {
            plan: Plan {
                resource: action.resource.clone(),
                waiting: seen.waiting,
            },
            snapshot: None,
        }
    }

    async fn apply(
        &self,
        plan: &Plan,
        _action: &Toy,
        work: &Work<'_, Self>,
    ) -> Result<Done<Self>, ToyError> {
        let unfinished = work.unfinished();
        let mut progress = work.progress().cloned().unwrap_or_default();
        progress.unsure |= work.follows_a_death() || !unfinished.is_empty();
        let remembered = work.memory().map(|memory| &memory.0);
        for other in unfinished.iter().flatten().chain(remembered) {
            progress = progress.with(other);
        }
        let ended = self.round(plan, work, &mut progress).await;
        let summary = "messages were delivered";
        let dry = matches!(ended, Ok(true));
        let unsure = progress.unsure && !dry;
        let memory = Memory(Progress {
            unsure,
            ..progress.clone()
        });
        let end = match ended {
            Ok(true) => End::Finished,
            Ok(false) => End::Unfinished(progress),
            Err(error) => End::Failed {
                error: error.to_string(),
                retryable: error.is_transient(),
                progress: Some(progress),
            },
        };
        Ok(Done {
            memory: Some(memory),
            ..Done::new(end, summary)
        })
    }

    async fn verify(&self, plan: &Plan, _evidence: Option<&Seen>) -> Result<Verified, ToyError> {
        let seen = look(&self.door, &plan.resource).await?;
        Ok(Verified {
            holds: seen.waiting == 0,
            summary: format!("{} messages wait", seen.waiting),
        })
    }
}

impl Rounds<Self> for Replay {
    type Progress = Progress;

    fn at_most(_action: &Toy) -> u32 {
        5
    }

    fn remembered(
        progress: Option<&Progress>,
        memory: Option<&Memory>,
        _now: DateTime<Utc>,
    ) -> Option<Memory> {
        let ended = Progress {
            unsure: true,
            ..progress.cloned().unwrap_or_default()
        };
        Some(Memory(match memory {
            Some(memory) => ended.with(&memory.0),
            None => ended,
        }))
    }

    async fn carry_on(
        toy: &Self,
        _progress: &Progress,
        _function_arn: &str,
        payload: &Value,
    ) -> Result<(), ToyError> {
        let asked = toy.door.call("Invoke", "itself", |world| {
            let asked = (Self::NAME, payload.clone());
            world.inner().asked_for.push(asked);
        });
        asked.await.map_err(ToyError::Call)
    }
}
