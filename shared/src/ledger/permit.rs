//! The right to change one target: issued with a claim that was written to the ledger, and lost with its lease.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use crate::ledger::items::Facts;

/// A run that could not say for this long that it is alive starts nothing more.
const UNHEARD: TimeDelta = TimeDelta::seconds(20);

/// The right to change one target.
///
/// It is neither `Clone` nor constructible outside the ledger; a run that holds it holds the target's lease.
#[derive(Debug)]
pub(crate) struct Permit {
    pub(super) remediation: &'static str,
    pub(super) resource: String,
    pub(super) record_key: crate::ledger::store::Key,
    pub(crate) run_id: String,
    pub(crate) incident_id: String,
    pub(crate) token: u64,
    pub(crate) follows_a_death: bool,
    /// What the ledger holds since the claim.
    facts: Mutex<Facts>,
    /// The last moment at which the run may be alive.
    held_until: DateTime<Utc>,
    /// When the ledger last took a heartbeat, in epoch milliseconds.
    heard_at: AtomicI64,
    sequence: AtomicU64,
    /// One save at a time: a later one that lands first would make the earlier one look like a lost lease.
    pub(super) saving: tokio::sync::Mutex<()>,
}

/// What a permit is made of, besides what it counts for itself.
pub(super) struct Claimed {
    pub(super) remediation: &'static str,
    pub(super) resource: String,
    pub(super) record_key: crate::ledger::store::Key,
    pub(super) run_id: String,
    pub(super) incident_id: String,
    pub(super) token: u64,
    pub(super) follows_a_death: bool,
    pub(super) facts: Facts,
    pub(super) held_until: DateTime<Utc>,
    pub(super) at: DateTime<Utc>,
}

impl Permit {
    pub(super) fn new(claimed: Claimed) -> Self {
        let record = claimed.facts.record.as_ref();
        Self {
            sequence: record.map_or(0, |record| record.sequence).into(),
            heard_at: claimed.at.timestamp_millis().into(),
            saving: tokio::sync::Mutex::new(()),
            remediation: claimed.remediation,
            resource: claimed.resource,
            record_key: claimed.record_key,
            run_id: claimed.run_id,
            incident_id: claimed.incident_id,
            token: claimed.token,
            follows_a_death: claimed.follows_a_death,
            facts: Mutex::new(claimed.facts),
            held_until: claimed.held_until,
        }
    }

    /// Until when the lease is held. Nothing may be changed after. It moves on with every heartbeat, and
    /// comes to lie in the past when another run has taken the lease over.
    pub(crate) fn held_until(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.heard_at.load(Ordering::Relaxed))
            .unwrap_or_default()
            .checked_add_signed(UNHEARD)
            .map_or(self.held_until, |until| until.min(self.held_until))
    }

    pub(crate) fn heard(&self, at: DateTime<Utc>) {
        self.heard_at
            .store(at.timestamp_millis(), Ordering::Relaxed);
    }

    pub(crate) fn lost(&self) {
        self.heard_at.store(0, Ordering::Relaxed);
    }

    /// What the ledger holds since the permit's last writing.
    pub(crate) fn facts(&self) -> Facts {
        self.facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn wrote(&self, facts: Facts) {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = facts;
    }

    /// The number of the record's next writing.
    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::store::Key;

    #[test]
    fn a_lease_is_held_from_heartbeat_to_heartbeat_and_never_beyond_its_end() {
        let at = |second| DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        let permit = Permit::new(Claimed {
            remediation: "dlq-replay",
            resource: String::new(),
            record_key: Key::new("", ""),
            run_id: String::new(),
            incident_id: String::new(),
            token: 1,
            follows_a_death: false,
            facts: Facts::default(),
            held_until: at(140),
            at: at(100),
        });
        assert_eq!(permit.held_until(), at(120));
        permit.heard(at(110));
        assert_eq!(permit.held_until(), at(130));
        permit.heard(at(130));
        assert_eq!(permit.held_until(), at(140));
        permit.lost();
        assert!(permit.held_until() < at(100));
        assert_eq!((permit.next_sequence(), permit.next_sequence()), (1, 2));
    }
}
