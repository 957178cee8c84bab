//! Small remediations with every capability that the kernel knows: temporary, settling, approved, learning, many
//! rounds.

pub mod page;
pub mod replay;
pub mod rollback;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::aws_error::{AwsError, Kind};
use shared::remediation::{Clearance, Failure, OutOfTime};
use thiserror::Error;

use crate::store::Door;
use crate::world::Effect;

/// What a toy may act on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Toy {
    /// The thing.
    pub resource: String,
    /// How long the alarm has to be back at OK.
    pub stabilisation_seconds: u32,
    /// How long what is in place stays without a sign of the alarm.
    pub expires_after_seconds: u32,
    /// How long it stays at most.
    pub at_most_seconds: u32,
}

impl shared::policy::Action for Toy {
    const TEMPORARY: bool = true;

    fn resource(&self) -> &str {
        &self.resource
    }

    fn check(&self) -> Result<(), String> {
        if self.resource.is_empty() {
            return Err("resource is empty; name a thing".to_owned());
        }
        Ok(())
    }

    fn check_reach(&self, home: &shared::policy::Home) -> Result<(), String> {
        match self.resource.split_once('@') {
            Some((_, region)) if region != home.region => Err(format!(
                "{} is not in {}; name a thing of this region",
                self.resource, home.region
            )),
            _ => Ok(()),
        }
    }
}

/// An error of a toy.
#[derive(Debug, Error)]
pub enum ToyError {
    /// A call failed.
    #[error("{0}")]
    Call(AwsError),
    /// There was no time for a call.
    #[error(transparent)]
    OutOfTime(#[from] OutOfTime),
    /// The thing changed at every attempt.
    #[error("{0} was changed by another hand at every attempt")]
    Contended(String),
}

impl Failure for ToyError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Call(error) => error.is_transient(),
            Self::OutOfTime(_) | Self::Contended(_) => true,
        }
    }

    fn is_conflict(&self) -> bool {
        matches!(self, Self::Call(error) if error.kind == Kind::Conflict)
    }
}

/// A thing as it was read.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    /// What it is like.
    pub value: String,
    /// Its revision.
    pub revision: u64,
    /// Whether what was put there is in force.
    pub ready: bool,
    /// Messages that wait in it.
    pub waiting: usize,
}

/// How a change is signed.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// The remediation.
    pub remediation: &'static str,
    /// The run.
    pub run_id: &'a str,
    /// The fencing token.
    pub token: u64,
    /// Whether it takes something back.
    pub reverts: bool,
}

/// Reads a thing.
pub async fn look(door: &Door, resource: &str) -> Result<Seen, ToyError> {
    let seen = door.call("Look", resource, |world| {
        let now = world.now();
        let inner = world.inner();
        inner.things.get(resource).map(|thing| Seen {
            value: thing.value.clone(),
            revision: thing.revision,
            ready: thing.ready_at <= now,
            waiting: thing.waiting.len(),
        })
    });
    let seen = seen.await.map_err(ToyError::Call)?;
    seen.ok_or_else(|| {
        ToyError::Call(AwsError {
            operation: "Look",
            subject: resource.to_owned(),
            kind: Kind::NotFound,
            code: None,
            message: String::new(),
        })
    })
}

/// Changes a thing under a clearance; `false` when it is not at that revision any more.
pub async fn put(
    door: &Door,
    _clearance: Clearance<'_>,
    signed: Signed<'_>,
    (resource, revision, value): (&str, u64, &str),
    settles: u64,
) -> Result<bool, ToyError> {
    let invocation = door.invocation();
    let changed = door.call("Put", resource, |world| {
        let before = world
            .inner()
            .things
            .get(resource)
            .map(|thing| thing.value.clone());
        let made = world.change(resource, Some(revision), value, settles);
        world.tell(|| {
            format!(
                "#{invocation} {} puts {value} on {resource}: {}",
                signed.run_id,
                if made { "done" } else { "overtaken" }
            )
        });
        if made && before.as_deref() != Some(value) {
            let effect = Effect {
                remediation: signed.remediation,
                run_id: signed.run_id.to_owned(),
                invocation,
                resource: resource.to_owned(),
                reverts: signed.reverts,
            };
            world.lands(effect, signed.token);
        }
        made
    });
    changed.await.map_err(ToyError::Call)
}
