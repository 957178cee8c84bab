//! Reading the ledger: all that a decision rests on in one round trip, and what the schedule goes by.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use futures_util::future::try_join_all;
use serde::de::DeserializeOwned;

use crate::ledger::error::LedgerError;
use crate::ledger::items::{
    self, AlarmState, Facts, History, Place, Record, SHARDS, STANDING, Standing, Switches, UNTOLD,
    Untold, WAITING, WATCH, Waiting, Watch,
};
use crate::ledger::store::{Item, Key, Store};
use crate::ledger::table::Table;
use crate::policy::Predecessor;

/// The ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(super) store: Arc<dyn Store>,
}

/// What the schedule finds due for one remediation.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) standing: Vec<Standing>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) untold: Vec<(Key, Untold)>,
    pub(crate) watches: Vec<Watch>,
    /// What another release or a hand wrote; the rest is looked after all the same.
    pub(crate) unreadable: Vec<LedgerError>,
}

impl Ledger {
    /// A ledger behind `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// A ledger in a `DynamoDB` table.
    #[must_use]
    pub fn in_table(client: Client, table: String) -> Self {
        Self::new(Arc::new(Table::new(client, table)))
    }

    /// Reads all that the guard decides from, in one round trip.
    pub(crate) async fn facts(&self, place: &Place<'_>) -> Result<Facts, LedgerError> {
        let Place {
            remediation,
            resource,
            event,
            ..
        } = place;
        let keys = [
            items::record_key(place),
            items::lease_key(resource),
            items::heartbeat_key(resource),
            items::history_key(remediation, resource),
            items::alarm_key(&event.alarm_arn),
            items::standing_key(remediation, resource),
            items::waiting_key(remediation, resource, &event.alarm_arn),
        ];
        let found = self.store.get(&keys).await?;
        let [record, lease, heartbeat, history, alarm, standing, waiting] = &keys;
        Ok(Facts {
            record: body(&found, record)?,
            lease: body(&found, lease)?,
            heartbeat: body(&found, heartbeat)?,
            history: body(&found, history)?.unwrap_or_default(),
            alarm: body(&found, alarm)?.unwrap_or_default(),
            standing: body(&found, standing)?,
            waiting: body(&found, waiting)?,
        })
    }

    /// Reads what other remediations did, each to what it acts on. What another release has written there and this one
    /// cannot read is as good as nothing: whose turn it is has its own limit in time.
    pub(crate) async fn histories<'a>(
        &self,
        of: &'a [Predecessor],
    ) -> Result<Vec<(&'a Predecessor, History)>, LedgerError> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let key = |it: &Predecessor| items::history_key(&it.remediation, &it.resource);
        let mut keys: Vec<Key> = of.iter().map(key).collect();
        // DynamoDB refuses a key that is asked for twice.
        keys.sort_unstable();
        keys.dedup();
        let found = self.store.get(&keys).await?;
        let histories = of.iter().map(|it| {
            let history = body(&found, &key(it)).unwrap_or_else(|error| {
                tracing::warn!(%error, remediation = it.remediation, "what it did cannot be read");
                None
            });
            (it, history.unwrap_or_default())
        });
        Ok(histories.collect())
    }

    /// Reads the record of a transition.
    pub(crate) async fn record(&self, place: &Place<'_>) -> Result<Option<Record>, LedgerError> {
        let key = items::record_key(place);
        let found = self.store.get(std::slice::from_ref(&key)).await?;
        body(&found, &key)
    }

    /// Reads what there is to know of a target whatever its alarms do.
    pub(crate) async fn look(
        &self,
        remediation: &str,
        resource: &str,
    ) -> Result<Facts, LedgerError> {
        let keys = [
            items::lease_key(resource),
            items::heartbeat_key(resource),
            items::history_key(remediation, resource),
            items::standing_key(remediation, resource),
        ];
        let found = self.store.get(&keys).await?;
        let [lease, heartbeat, history, standing] = &keys;
        Ok(Facts {
            lease: body(&found, lease)?,
            heartbeat: body(&found, heartbeat)?,
            history: body(&found, history)?.unwrap_or_default(),
            standing: body(&found, standing)?,
            ..Facts::default()
        })
    }

    /// Reads the kill switches that are on: all of them, in one round trip.
    pub(crate) async fn switches(&self) -> Result<Switches, LedgerError> {
        let found = self.store.query(items::SWITCHES).await?;
        let on = found
            .into_iter()
            .filter(|(_, item)| item.engaged != Some(false));
        Ok(Switches(
            on.map(|(key, mut item)| (key.sk, item.columns.remove("reason")))
                .collect(),
        ))
    }

    /// Reads the index of what is due for a remediation.
    pub(crate) async fn due(&self, remediation: &str) -> Result<Due, LedgerError> {
        let shards = (0..SHARDS).map(|shard| items::due_pk(remediation, shard));
        let shards: Vec<String> = shards.collect();
        let found = try_join_all(shards.iter().map(|pk| self.store.query(pk))).await?;
        let mut due = Due::default();
        for (key, item) in found.into_iter().flatten() {
            let read = if key.sk.starts_with(STANDING) {
                parse(&key, &item).map(|standing| due.standing.push(standing))
            } else if key.sk.starts_with(WAITING) {
                parse(&key, &item).map(|waiting| due.waiting.push(waiting))
            } else if key.sk.starts_with(UNTOLD) {
                parse(&key, &item).map(|untold| due.untold.push((key.clone(), untold)))
            } else if key.sk.starts_with(WATCH) {
                parse(&key, &item).map(|watch| due.watches.push(watch))
            } else {
                Ok(())
            };
            if let Err(error) = read {
                due.unreadable.push(error);
            }
        }
        Ok(due)
    }

    /// Reads which alarms have an open incident.
    pub(crate) async fn open_alarms(&self) -> Result<Vec<String>, LedgerError> {
        let found = self.store.query(items::OPEN).await?;
        Ok(found.into_iter().map(|(key, _)| key.sk).collect())
    }

    /// Reads what is known of an alarm.
    pub(crate) async fn alarm(&self, alarm_arn: &str) -> Result<AlarmState, LedgerError> {
        let key = items::alarm_key(alarm_arn);
        let found = self.store.get(std::slice::from_ref(&key)).await?;
        Ok(body(&found, &key)?.unwrap_or_default())
    }
}

pub(super) fn body<T: DeserializeOwned>(
    found: &BTreeMap<Key, Item>,
    key: &Key,
) -> Result<Option<T>, LedgerError> {
    found.get(key).map(|item| parse(key, item)).transpose()
}

fn parse<T: DeserializeOwned>(key: &Key, item: &Item) -> Result<T, LedgerError> {
    let unreadable = |problem: String| LedgerError::Unreadable {
        key: format!("{} {}", key.pk, key.sk),
        problem,
    };
    let body = item.body.as_deref();
    let body = body.ok_or_else(|| unreadable("it has no body".to_owned()))?;
    serde_json::from_str(body).map_err(|error| unreadable(error.to_string()))
}
