//! What a remediation counts for itself: items of its own, written under its permit.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ledger::difference::json;
use crate::ledger::error::LedgerError;
use crate::ledger::items::{self, ITEM_KEPT};
use crate::ledger::permit::Permit;
use crate::ledger::read::{Ledger, body};
use crate::ledger::store::{Change, Condition, Key, TRANSACTION, Write};

impl Ledger {
    /// Reads a remediation's own items. Absent keys are absent from the answer.
    pub(crate) async fn notes<T: DeserializeOwned>(
        &self,
        permit: &Permit,
        keys: &[String],
    ) -> Result<HashMap<String, T>, LedgerError> {
        let named: Vec<Key> = keys
            .iter()
            .map(|key| items::note_key(permit.remediation, key))
            .collect();
        let items = self.store.get(&named).await?;
        let mut found = HashMap::new();
        for (key, named) in keys.iter().zip(&named) {
            if let Some(value) = body(&items, named)? {
                found.insert(key.clone(), value);
            }
        }
        Ok(found)
    }

    /// Writes a remediation's own items, replacing what was there, while the permit's lease is held.
    pub(crate) async fn note<T: Serialize>(
        &self,
        permit: &Permit,
        notes: &[(String, T)],
        now: DateTime<Utc>,
    ) -> Result<(), LedgerError> {
        for notes in notes.chunks(TRANSACTION - 1) {
            let mut writes = notes
                .iter()
                .map(|(key, value)| {
                    let item = items::item(json("a note", value)?, Some(now + ITEM_KEPT));
                    Ok(Write {
                        key: items::note_key(permit.remediation, key),
                        condition: Condition::Always,
                        change: Change::Put(item),
                    })
                })
                .collect::<Result<Vec<_>, LedgerError>>()?;
            writes.push(permit.still_held());
            self.fenced(permit, writes, now).await?;
        }
        Ok(())
    }
}
