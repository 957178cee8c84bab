//! What every part of a round works with: the clients, the plan, the run's work, and the one state under its lock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::remediation::{Clearance, Failure as _, Work};
use tokio::time::Instant;

use super::saved::{Memory, Progress};
use super::state::{State, Stop};
use crate::DlqReplay;
use crate::aws::Aws;
use crate::error::ReplayError;
use crate::judge::{self, Judge, Kept};
use crate::message::{InHand, Replays};
use crate::plan::Plan;

/// What every part of a round works with.
///
/// Architecture invariant: nothing else in a round asks for clearance, or touches the ledger or the clock.
pub(super) struct Context<'a> {
    pub(super) aws: &'a Aws,
    pub(super) plan: &'a Plan,
    schema: Option<jsonschema::Validator>,
    work: &'a Work<'a, DlqReplay>,
    began: Instant,
    margin: TimeDelta,
    state: Mutex<State>,
}

/// How long the dead-letter queue keeps a message, as far as it is known.
pub(super) fn retention(plan: &Plan) -> Option<TimeDelta> {
    let seconds = i64::try_from(plan.retention_seconds).ok()?;
    (seconds > 0).then(|| TimeDelta::seconds(seconds))
}

impl<'a> Context<'a> {
    /// Takes up where earlier rounds and attempts stopped.
    pub(super) fn new(
        aws: &'a Aws,
        plan: &'a Plan,
        schema: Option<&Value>,
        work: &'a Work<'a, DlqReplay>,
    ) -> Result<Self, ReplayError> {
        let schema = judge::compiled(schema)?;
        let unfinished = work.unfinished();
        let mut progress = Progress::resumed(work.progress(), work.follows_a_death())
            .after(unfinished, work.memory());
        for route in &plan.routes {
            let arn = route.destination.arn.as_str();
            if !progress.baselines.contains_key(arn) {
                progress.baselines.insert(arn.to_owned(), route.backlog);
            }
        }
        let now = work.now();
        let mut memory = Memory::recalled(work.memory(), &progress.unremoved, now);
        for other in unfinished.iter().flatten() {
            memory = other.remembered(Some(&memory), now);
        }
        let given = work.until() - now;
        let mut state = State::new(plan, progress, memory);
        state.drops_sent_before = retention(plan).map(|kept| now + TimeDelta::hours(1) - kept);
        Ok(Self {
            aws,
            plan,
            schema,
            work,
            began: Instant::now(),
            margin: (given / 4).clamp(TimeDelta::seconds(1), TimeDelta::seconds(10)),
            state: Mutex::new(state),
        })
    }

    /// The state, locked. Never held over an await.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_state(self) -> State {
        self.state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.work.now()
    }

    /// How long the round has been working.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn run_id(&self) -> &'a str {
        self.work.run_id()
    }

    pub(super) fn previous_run(&self) -> Option<&'a str> {
        self.work.previous_run()
    }

    /// Which attempt of the round this is, from 1.
    pub(super) fn attempt(&self) -> u32 {
        self.work.attempt()
    }

    pub(super) fn judge(&self) -> Judge<'_> {
        Judge {
            plan: self.plan,
            schema: self.schema.as_ref(),
            began: self
                .state()
                .progress
                .pass_began
                .unwrap_or_else(|| self.work.started_at()),
            now: self.now(),
        }
    }

    pub(super) fn stop(&self, stop: Stop) {
        self.state().stop(stop);
    }

    pub(super) fn stop_on(&self, error: &ReplayError) {
        self.stop(Stop::Fail {
            error: error.to_string(),
            retryable: error.is_transient(),
        });
    }

    /// Whether nothing more is to be begun; stops the round when its time is up.
    pub(super) fn is_stopped(&self) -> bool {
        if self.now() + self.margin >= self.work.until() {
            self.stop(Stop::OutOfTime);
        }
        self.state().is_stopped()
    }

    /// The right to make the next call that changes a queue or invokes a function; without one, the round's time
    /// is up, and it stops.
    pub(super) fn clear(&self, to_do: &'static str) -> Option<Clearance<'_>> {
        match self.work.clear(to_do) {
            Ok(clearance) => Some(clearance),
            Err(error) => {
                tracing::warn!(%error, "the round stops");
                self.stop(Stop::OutOfTime);
                None
            }
        }
    }

    pub(super) fn keep_all(&self, messages: Vec<InHand>, why: Kept) {
        let mut state = self.state();
        for message in messages {
            state.keep(message, why);
        }
    }

    /// Saves the progress in the ledger.
    pub(super) async fn save(&self) {
        let progress = self.state().progress.clone();
        if let Err(error) = self.work.checkpoint(&progress).await {
            self.stop_on(&ReplayError::Ledger(error));
        }
    }

    /// Reads from the ledger how often messages were replayed that cannot tell so themselves.
    pub(super) async fn counts(
        &self,
        keys: &[String],
    ) -> Result<HashMap<String, Replays>, ReplayError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        self.work.load(keys).await.map_err(ReplayError::Ledger)
    }

    /// Writes counts or reasons to the ledger that did not fit in the messages.
    pub(super) async fn store<T: Serialize>(&self, items: Vec<(String, T)>) {
        if let Err(error) = self.work.store(&items).await {
            self.state().notes.note(format!(
                "what did not fit in {} messages could not be kept in the ledger either: {error}",
                items.len()
            ));
        }
    }
}
