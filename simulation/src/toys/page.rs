//! A toy that puts something in place for a while: at once, or settling, or with a human's approval.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use shared::alarm::AlarmEvent;
use shared::outcome::Rule;
use shared::policy::Temporary;
use shared::remediation::{
    Done, End, InPlace, Moment, Never, OneRound, Planned, PlannedBy, Remediation, Reversal,
    Reverted, Unlearning, Verified, Work,
};

use super::{Seen, Signed, Toy, ToyError, look, put};
use crate::store::Door;
use crate::world::OURS;

/// How long what settles takes.
const SETTLES: u64 = 150;
/// How often taking it back starts over because something else changed.
const ATTEMPTS: usize = 3;

/// The toy.
#[derive(Debug)]
pub struct Page<const SETTLING: bool, const APPROVED: bool> {
    /// Its way into the world.
    pub door: Door,
}

/// What it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    resource: String,
    revision: u64,
    before: String,
}

/// The state to go back to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    value: String,
}

impl<const SETTLING: bool, const APPROVED: bool> Remediation for Page<SETTLING, APPROVED> {
    const NAME: &'static str = match (SETTLING, APPROVED) {
        (true, _) => "toy-cache",
        (false, true) => "toy-approved",
        (false, false) => "toy-page",
    };
    type Action = Toy;
    type Observed = Seen;
    type Plan = Plan;
    type Evidence = Seen;
    type Memory = Never;
    type Reversal = Self;
    type Learning = Unlearning;
    type Rounds = OneRound;
    type Error = ToyError;

    const MOMENTARY: &'static [&'static str] = &["revision"];

    fn needs_approval(_action: &Toy) -> bool {
        APPROVED
    }

    async fn observe(
        &self,
        action: &Toy,
        _event: Option<&AlarmEvent>,
        _now: DateTime<Utc>,
    ) -> Result<Seen, ToyError> {
        look(&self.door, &action.resource).await
    }

    fn plan(seen: &Seen, action: &Toy, moment: &Moment<'_, Self>) -> PlannedBy<Self> {
        let act = |plan: Plan| Planned::Act {
            snapshot: Some(Before {
                value: plan.before.clone(),
            }),
            plan,
        };
        if seen.value == OURS {
            return match (moment.begun, moment.in_place) {
                // The attempt before had put it there, and said nothing of it.
                (Some(begun), Some(_)) => act(Plan {
                    revision: seen.revision,
                    ..begun.clone()
                }),
                (_, Some(_)) => Planned::InPlace {
                    reason: "it is in place".to_owned(),
                },
                (_, None) => Planned::Escalate {
                    rule: Rule::Unsafe,
                    reason: "it is in place, and nobody knows the way back".to_owned(),
                },
            };
        }
        if moment.resuming
            && moment
                .begun
                .is_some_and(|begun| begun.revision != seen.revision)
        {
            return Planned::Nothing {
                reason: format!("a human has made it {} since", seen.value),
            };
        }
        let known = moment.in_place.map(|held| &held.snapshot.value);
        if known.is_some_and(|before| *before != seen.value) {
            return Planned::Nothing {
                reason: format!("a human has made it {}", seen.value),
            };
        }
        act(Plan {
            resource: action.resource.clone(),
            revision: seen.revision,
            before: seen.value.clone(),
        })
    }

    async fn apply(
        &self,
        plan: &Plan,
        _action: &Toy,
        work: &Work<'_, Self>,
    ) -> Result<Done<Self>, ToyError> {
        let clearance = work.clear("put it in place")?;
        let signed = signed::<Self>(work, false);
        let settles = if SETTLING { SETTLES } else { 0 };
        let change = (plan.resource.as_str(), plan.revision, OURS);
        if !put(&self.door, clearance, signed, change, settles).await? {
            let reason = format!("{} was changed by another hand", plan.resource);
            return Ok(Done::new(End::Overtaken { reason }, "nothing was changed"));
        }
        let end = if SETTLING {
            End::Settling {
                reason: "it takes its time".to_owned(),
                check_again_at: work.now() + TimeDelta::minutes(2),
            }
        } else {
            End::Finished
        };
        Ok(Done::new(end, "it was put in place"))
    }

    async fn verify(&self, plan: &Plan, _evidence: Option<&Seen>) -> Result<Verified, ToyError> {
        let seen = look(&self.door, &plan.resource).await?;
        Ok(Verified {
            holds: seen.value == OURS && seen.ready,
            summary: format!("read back: {} (ready: {})", seen.value, seen.ready),
        })
    }
}

impl<const SETTLING: bool, const APPROVED: bool> Reversal<Self> for Page<SETTLING, APPROVED> {
    type Snapshot = Before;

    fn term(action: &Toy) -> Option<Temporary> {
        let seconds = |seconds: u32| TimeDelta::seconds(i64::from(seconds));
        Some(Temporary {
            stabilisation: seconds(action.stabilisation_seconds),
            expires_after: seconds(action.expires_after_seconds),
            at_most: seconds(action.at_most_seconds),
        })
    }

    const FOLLOWS_ITS_POLICY: bool = true;

    async fn update(
        toy: &Self,
        _in_place: &InPlace<Before>,
        (before, action): (&Toy, &Toy),
        work: &Work<'_, Self>,
    ) -> Result<Option<String>, ToyError> {
        let seen = look(&toy.door, &action.resource).await?;
        if seen.value != OURS || before.at_most_seconds == action.at_most_seconds {
            return Ok(None);
        }
        let clearance = work.clear("bring it up to date")?;
        let change = (action.resource.as_str(), seen.revision, OURS);
        if put(&toy.door, clearance, signed::<Self>(work, false), change, 0).await? {
            Ok(Some("it was brought up to date".to_owned()))
        } else {
            Err(ToyError::Contended(action.resource.clone()))
        }
    }

    async fn revert(
        toy: &Self,
        before: &Before,
        action: &Toy,
        work: &Work<'_, Self>,
    ) -> Result<Reverted<Seen>, ToyError> {
        for _ in 0..ATTEMPTS {
            let seen = look(&toy.door, &action.resource).await?;
            if seen.value != OURS {
                return Ok(Reverted {
                    summary: format!("left alone: it is {}", seen.value),
                    evidence: Some(seen),
                });
            }
            let clearance = work.clear("take it back")?;
            let change = (
                action.resource.as_str(),
                seen.revision,
                before.value.as_str(),
            );
            if put(&toy.door, clearance, signed::<Self>(work, true), change, 0).await? {
                return Ok(Reverted {
                    summary: "it was taken back".to_owned(),
                    evidence: Some(seen),
                });
            }
        }
        Err(ToyError::Contended(action.resource.clone()))
    }

    async fn reverted(toy: &Self, _before: &Before, action: &Toy) -> Result<Verified, ToyError> {
        let seen = look(&toy.door, &action.resource).await?;
        Ok(Verified {
            holds: seen.value != OURS,
            summary: format!("read back: {}", seen.value),
        })
    }
}

/// How a toy signs its changes.
pub(super) fn signed<'a, R: Remediation>(work: &'a Work<'_, R>, reverts: bool) -> Signed<'a> {
    Signed {
        remediation: R::NAME,
        run_id: work.run_id(),
        token: work.token(),
        reverts,
    }
}
