//! Writing the ledger, each time in one transaction: claims, ends, and what is found without either.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::backoff;
use crate::ledger::difference::{
    CHANGED_AT, Commit, Hand, TOKEN, UntoldKey, alarm_writes, heartbeat_write, held_record,
    history_write, lease_condition, millis, record_write, token, writes,
};
use crate::ledger::error::LedgerError;
use crate::ledger::items::{self, AlarmState, Facts, Heartbeat, Place};
use crate::ledger::permit::{Claimed, Permit};
use crate::ledger::read::Ledger;
use crate::ledger::store::{Change, Condition, TRANSACTION, Transacted, Write};
use crate::ledger::timeline::{Author, Entry, lines};

/// How often a transaction is tried that met another one, or whose answer was lost.
const TRIES: u32 = 9;

/// The end of a claim: the permit, or the news that another run was first.
pub(crate) enum Claim {
    Granted(Box<Permit>),
    Overtaken,
}

impl Ledger {
    /// Claims the target: the facts after hold the new lease and the record in progress.
    pub(crate) async fn claim(
        &self,
        commit: &Commit<'_>,
        follows_a_death: bool,
        held_until: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Claim, LedgerError> {
        let place = commit.place;
        let lease = commit.after.lease.as_ref();
        let token = lease.map_or(0, |lease| lease.token);
        let permit = Permit::new(Claimed {
            remediation: place.remediation,
            resource: place.resource.to_owned(),
            record_key: items::record_key(place),
            run_id: place.run_id(),
            incident_id: commit.incident_id.to_owned(),
            token,
            follows_a_death,
            facts: commit.after.clone(),
            held_until,
            at: now,
        });
        let author = Author::run(&permit.run_id, token, 0);
        let (writes, _) = writes(commit, &Hand::Free, &author, now)?;
        Ok(if self.write(writes, place.resource, now).await? {
            Claim::Granted(Box::new(permit))
        } else {
            Claim::Overtaken
        })
    }

    /// Writes what a run that holds nothing found and decided; `None` when the ledger has changed since the facts
    /// were read. Gives the key under which the outcome is kept until it is told.
    pub(crate) async fn commit(
        &self,
        commit: &Commit<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<Option<UntoldKey>>, LedgerError> {
        let author = Author::delivery(commit.place, now);
        let (writes, untold) = writes(commit, &Hand::Free, &author, now)?;
        let written = writes.is_empty() || self.write(writes, commit.place.resource, now).await?;
        Ok(written.then_some(untold))
    }

    /// Ends a round under the permit.
    pub(crate) async fn finish(
        &self,
        permit: &Permit,
        commit: &Commit<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<UntoldKey>, LedgerError> {
        let mut after = commit.after.clone();
        if let Some(record) = &mut after.record {
            record.sequence = permit.next_sequence();
        }
        let commit = Commit {
            after: &after,
            ..*commit
        };
        let author = Author::run(&permit.run_id, permit.token, 500);
        let (writes, untold) = writes(&commit, &Hand::Holds(permit), &author, now)?;
        self.fenced(permit, writes, now).await?;
        Ok(untold)
    }

    /// Changes what stands, under the permit, before the round has ended.
    pub(crate) async fn amend(
        &self,
        permit: &Permit,
        commit: &Commit<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), LedgerError> {
        let author = Author::run(&permit.run_id, permit.token, 100);
        let (writes, _) = writes(commit, &Hand::Holds(permit), &author, now)?;
        self.fenced(permit, writes, now).await?;
        permit.wrote(commit.after.clone());
        Ok(())
    }

    /// Writes what a remediation should remember of a target; `false` when the ledger has changed since the facts
    /// were read.
    pub(crate) async fn remember(
        &self,
        remediation: &str,
        resource: &str,
        facts: &Facts,
        memory: Value,
        now: DateTime<Utc>,
    ) -> Result<bool, LedgerError> {
        let mut history = facts.history.clone();
        history.version += 1;
        history.memory = Some(memory);
        let write = history_write((remediation, resource), &facts.history, &history, now)?;
        let free = Write {
            key: items::lease_key(resource),
            condition: lease_condition(facts.lease.as_ref()),
            change: Change::Check,
        };
        self.write(vec![write, free], resource, now).await
    }

    /// Says that the permit's holder is alive.
    pub(crate) async fn beat(
        &self,
        permit: &Permit,
        now: DateTime<Utc>,
    ) -> Result<(), LedgerError> {
        let heartbeat = Heartbeat {
            token: permit.token,
            at: now,
        };
        let write = heartbeat_write(&permit.resource, heartbeat, now)?;
        self.fenced(permit, vec![write], now).await
    }

    /// Saves progress under the permit.
    pub(crate) async fn checkpoint(
        &self,
        permit: &Permit,
        progress: Value,
        now: DateTime<Utc>,
    ) -> Result<(), LedgerError> {
        let _one_at_a_time = permit.saving.lock().await;
        let mut facts = permit.facts();
        let Some(record) = &mut facts.record else {
            return Ok(());
        };
        record.progress = Some(progress);
        record.sequence = permit.next_sequence();
        let condition = held_record(permit, record.sequence);
        let write = record_write(permit.record_key.clone(), record, condition, now)?;
        self.fenced(permit, vec![write, permit.still_held()], now)
            .await?;
        permit.wrote(facts);
        Ok(())
    }

    /// Writes what a look at the live alarm taught; `false` when another was first.
    pub(crate) async fn reconcile(
        &self,
        place: &Place<'_>,
        (before, after): (&AlarmState, &AlarmState),
        entries: &[Entry],
        now: DateTime<Utc>,
    ) -> Result<bool, LedgerError> {
        let incident_id = after.incident_id.as_deref().unwrap_or_default();
        let mut writes = alarm_writes(place, before, after, now)?;
        let author = Author::delivery(place, now);
        let who = (place.remediation, place.target);
        writes.extend(lines(who, incident_id, &author, entries, now)?);
        self.write(writes, &place.event.alarm_arn, now).await
    }

    /// Forgets an outcome that has reached the bus.
    pub(crate) async fn told(
        &self,
        keys: Vec<UntoldKey>,
        now: DateTime<Utc>,
    ) -> Result<(), LedgerError> {
        for keys in keys.chunks(TRANSACTION) {
            let writes = keys.iter().cloned().map(|key| Write {
                key,
                condition: Condition::Always,
                change: Change::Delete,
            });
            self.write(writes.collect(), "outcomes", now).await?;
        }
        Ok(())
    }

    /// Removes a transition that waits no longer, unless a newer one waits by now.
    pub(crate) async fn waits_no_more(
        &self,
        place: &Place<'_>,
        now: DateTime<Utc>,
    ) -> Result<bool, LedgerError> {
        let key = items::waiting_key(place.remediation, place.resource, &place.event.alarm_arn);
        let write = Write {
            key,
            condition: Condition::AbsentOrAtMost(CHANGED_AT, millis(place.event.changed_at)),
            change: Change::Delete,
        };
        self.write(vec![write], place.resource, now).await
    }

    pub(super) async fn fenced(
        &self,
        permit: &Permit,
        writes: Vec<Write>,
        now: DateTime<Utc>,
    ) -> Result<(), LedgerError> {
        if self.write(writes, &permit.run_id, now).await? {
            Ok(())
        } else {
            Err(LedgerError::Fenced {
                resource: permit.resource.clone(),
                run_id: permit.run_id.clone(),
            })
        }
    }

    /// Whether the writes were made; `false` when a condition did not hold.
    ///
    /// One token for all tries: a try whose answer was lost is not made twice.
    async fn write(
        &self,
        writes: Vec<Write>,
        subject: &str,
        now: DateTime<Utc>,
    ) -> Result<bool, LedgerError> {
        let token = token(&writes, now);
        for attempt in 0..TRIES {
            match self.store.transact(&writes, &token).await {
                Ok(Transacted::Written) => return Ok(true),
                Ok(Transacted::Refused) => return Ok(false),
                Ok(Transacted::Conflicted) => {}
                Err(error) if error.is_transient() && attempt + 1 < TRIES => {}
                Err(error) => return Err(LedgerError::Call(error)),
            }
            if attempt + 1 < TRIES {
                tokio::time::sleep(backoff::pause(attempt, &token)).await;
            }
        }
        Err(LedgerError::Contended {
            subject: subject.to_owned(),
        })
    }
}

impl Permit {
    /// The condition that the permit's lease is still the newest.
    pub(super) fn still_held(&self) -> Write {
        Write {
            key: items::lease_key(&self.resource),
            condition: Condition::Are(vec![(TOKEN, self.token)]),
            change: Change::Check,
        }
    }
}
