//! A toy whose work takes many rounds: it delivers messages one by one, some in each round.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::alarm::AlarmEvent;
use shared::remediation::{
    Clearance, Done, End, Lasting, Moment, Never, Planned, PlannedBy, Remediation, Rounds,
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
    delivered: BTreeSet<u32>,
}

impl Replay {
    /// Delivers one message; gives its number, or none when the queue is dry.
    async fn deliver(
        &self,
        _clearance: &Clearance<'_>,
        signed: Signed<'_>,
        resource: &str,
    ) -> Result<Option<u32>, ToyError> {
        let invocation = self.door.invocation();
        let delivered = self.door.call("Deliver", resource, |world| {
            let message = {
                let mut inner = world.inner();
                let thing = inner.things.get_mut(resource)?;
                let message = thing.waiting.pop_first()?;
                *thing.delivered.entry(message).or_default() += 1;
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
}

impl Remediation for Replay {
    const NAME: &'static str = "toy-replay";
    type Action = Toy;
    type Observed = Seen;
    type Plan = Plan;
    type Evidence = Seen;
    type Memory = Never;
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
        let mut progress = work.progress().cloned().unwrap_or_default();
        for _ in 0..A_ROUND {
            let clearance = work.clear("deliver a message")?;
            let signed = signed(work, false);
            match self.deliver(&clearance, signed, &plan.resource).await? {
                None => return Ok(Done::new(End::Finished, "the queue is dry")),
                Some(message) => {
                    progress.delivered.insert(message);
                }
            }
            if work.checkpoint(&progress).await.is_err() {
                break;
            }
        }
        let summary = format!("{} messages were delivered", progress.delivered.len());
        Ok(Done::new(End::Unfinished(progress), summary))
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
