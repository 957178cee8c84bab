//! Asking a remediation for its plan, with what the ledger knows in the remediation's own types.

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::guard::Grounds;
use crate::guard::decide::time;
use crate::ledger::items::Facts;
use crate::remediation::{InPlace, MemoryOf, Moment, PlannedBy, Remediation, SnapshotOf};
use crate::runtime::job::Run;

/// What the remediation remembers; nothing, when another release wrote it.
pub(super) fn memory<R: Remediation>(facts: &Facts) -> Option<MemoryOf<R>> {
    read_as(facts.history.memory.as_ref(), "what is remembered")
}

fn read_as<T: DeserializeOwned>(value: Option<&Value>, what: &str) -> Option<T> {
    serde_json::from_value(value?.clone())
        .inspect_err(|error| tracing::warn!(%error, "{what} was written by another release"))
        .ok()
}

/// What a human approves: the hash of the plan, but for the moment at which it was made.
pub(super) fn plan_hash<R: Remediation>(plan: &Value) -> String {
    let mut plan = plan.clone();
    for path in R::MOMENTARY {
        forget(&mut plan, path);
    }
    crate::ids::plan_hash(&plan)
}

/// Takes a field away, which a path of names joined by dots leads to, through each item of a list on the way.
fn forget(value: &mut Value, path: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| forget(item, path)),
        Value::Object(fields) => match path.split_once('.') {
            None => drop(fields.remove(path)),
            Some((name, rest)) => {
                if let Some(inner) = fields.get_mut(name) {
                    forget(inner, rest);
                }
            }
        },
        _ => {}
    }
}

/// The plan that this attempt had made before.
pub(super) enum Before<'a, R: Remediation> {
    /// There was none.
    None,
    /// Nothing of it was done, because another hand had changed the target.
    Overtaken(&'a R::Plan),
    /// Some of it may be done: a call of it met another change.
    Conflict(&'a R::Plan),
}

/// Asks the remediation for its plan.
pub(super) fn plan<R: Remediation>(
    run: &Run<'_, R>,
    facts: &Facts,
    grounds: &Grounds,
    (incident_id, before): (&str, Before<'_, R>),
    observed: &R::Observed,
    now: DateTime<Utc>,
) -> Result<PlannedBy<R>, Unreadable> {
    let memory = memory::<R>(facts);
    let read = read_as(grounds.begun.as_ref(), "the plan that was begun");
    let (begun, overtaken, conflict) = match before {
        Before::None => (read.as_ref(), None, false),
        Before::Overtaken(plan) => (read.as_ref(), Some(plan), false),
        Before::Conflict(plan) => (Some(plan), None, true),
    };
    let in_place = in_place::<R>(facts)?;
    let progress = read_as(grounds.progress.as_ref(), "the progress");
    let moment = Moment {
        now,
        resuming: conflict || grounds.round > 1 || grounds.attempt > 1,
        event: run.place.event,
        incident_id,
        memory: memory.as_ref(),
        begun,
        progress: progress.as_ref(),
        overtaken,
        in_place: in_place.as_ref(),
        recovered: grounds.recovered,
    };
    Ok(R::plan(observed, &run.target.action, &moment))
}

/// A snapshot that this release cannot read: nothing is planned over it, since it would be lost.
#[derive(Debug, thiserror::Error)]
#[error(
    "the snapshot of {resource}, taken at {taken_at}, cannot be read: {problem}; it was written by another release, which has to take it back"
)]
pub(super) struct Unreadable {
    resource: String,
    taken_at: String,
    problem: serde_json::Error,
}

pub(super) fn in_place<R: Remediation>(
    facts: &Facts,
) -> Result<Option<InPlace<SnapshotOf<R>>>, Unreadable> {
    let Some(found) = facts.snapshot() else {
        return Ok(None);
    };
    let snapshot = serde_json::from_value(found.state.clone()).map_err(|problem| Unreadable {
        resource: facts
            .standing
            .as_ref()
            .map(|standing| standing.resource.clone())
            .unwrap_or_default(),
        taken_at: time(found.taken_at),
        problem,
    })?;
    Ok(Some(InPlace {
        run_id: found.run_id.clone(),
        incident_id: found.incident_id.clone(),
        taken_at: found.taken_at,
        expires_at: found.expires_at,
        snapshot,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_momentary_is_forgotten_wherever_it_is() {
        let mut plan = json!({"expected": 3, "routes": [{"arn": "a", "backlog": 1}, {"backlog": 2}], "backlog": 9});
        for path in ["expected", "routes.backlog", "nothing.here"] {
            forget(&mut plan, path);
        }
        assert_eq!(plan, json!({"routes": [{"arn": "a"}, {}], "backlog": 9}));
    }
}
