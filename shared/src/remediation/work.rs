//! What a remediation works with under its permit.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::ledger::permit::Permit;
use crate::ledger::{Ledger, LedgerError};
use crate::remediation::{MemoryOf, OutOfTime, ProgressOf, Remediation, value};

/// The right to make one call that changes the target, given while the lease is held and time is left.
///
/// Whatever changes a target asks for one, so that no call is made that nobody checked.
#[derive(Debug)]
pub struct Clearance<'a> {
    _permit: &'a Permit,
}

/// What a run works with: its permit, its time, and what it may keep in the ledger.
pub struct Work<'a, R: Remediation> {
    pub(crate) permit: &'a Permit,
    pub(crate) clock: &'a Clock,
    pub(crate) deadline: DateTime<Utc>,
    pub(crate) ledger: &'a Ledger,
    pub(crate) memory: Option<MemoryOf<R>>,
    pub(crate) progress: Option<ProgressOf<R>>,
    pub(crate) unfinished: Vec<Option<ProgressOf<R>>>,
    pub(crate) round: u32,
    pub(crate) attempt: u32,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) previous_run: Option<String>,
}

impl<R: Remediation> Work<'_, R> {
    /// Now.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// When the work has to be over: Lambda's deadline less what the report needs, or the end of the lease. It moves
    /// on with every heartbeat, and comes to lie in the past when another run has taken the lease over.
    #[must_use]
    pub fn until(&self) -> DateTime<Utc> {
        self.deadline.min(self.permit.held_until())
    }

    /// The right to make the next call that changes the target.
    pub fn clear(&self, to_do: &'static str) -> Result<Clearance<'_>, OutOfTime> {
        if self.now() < self.until() {
            Ok(Clearance {
                _permit: self.permit,
            })
        } else {
            Err(OutOfTime { to_do })
        }
    }

    /// The run, the same over all its attempts and rounds; also its causation id.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.permit.run_id
    }

    /// The incident that the run belongs to.
    #[must_use]
    pub fn incident_id(&self) -> &str {
        &self.permit.incident_id
    }

    /// The fencing token: greater than that of every earlier holder of the target's lease.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.permit.token
    }

    /// Which round of the run this is, from 1.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.round
    }

    /// Which attempt of this round this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the attempt before this one died without a word, so that its last deeds are in no report.
    #[must_use]
    pub fn follows_a_death(&self) -> bool {
        self.permit.follows_a_death
    }

    /// When the run's first attempt began.
    #[must_use]
    pub fn started_at(&self) -> DateTime<Utc> {
        self.started_at
    }

    /// The run that last acted on the target before this one, if any.
    #[must_use]
    pub fn previous_run(&self) -> Option<&str> {
        self.previous_run.as_deref()
    }

    /// What earlier runs of this remediation on this target left to remember.
    #[must_use]
    pub fn memory(&self) -> Option<&MemoryOf<R>> {
        self.memory.as_ref()
    }

    /// What earlier rounds or attempts saved.
    #[must_use]
    pub fn progress(&self) -> Option<&ProgressOf<R>> {
        self.progress.as_ref()
    }

    /// What other runs on the target saved that have not ended, and may never: what each did after that is known to
    /// nobody. `None` for one that saved nothing.
    #[must_use]
    pub fn unfinished(&self) -> &[Option<ProgressOf<R>>] {
        &self.unfinished
    }

    /// Saves progress, for an attempt that follows a death.
    pub async fn checkpoint(&self, progress: &ProgressOf<R>) -> Result<(), LedgerError> {
        let progress = value("progress", progress)?;
        self.ledger
            .checkpoint(self.permit, progress, self.now())
            .await
    }

    /// Reads the remediation's own items. Absent keys are absent from the answer.
    pub async fn load<T: DeserializeOwned>(
        &self,
        keys: &[String],
    ) -> Result<HashMap<String, T>, LedgerError> {
        self.ledger.notes(self.permit, keys).await
    }

    /// Writes the remediation's own items, replacing what was there, while the lease is held.
    pub async fn store<T: Serialize>(&self, items: &[(String, T)]) -> Result<(), LedgerError> {
        self.ledger.note(self.permit, items, self.now()).await
    }
}
