//! A table in memory that answers as it is told to, and what the tests do with the ledger on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::aws_error::{AwsError, Kind};
use crate::guard::next::{self, End, Refused};
use crate::guard::scene::{self, Claiming, at};
use crate::ledger::difference::{Commit, UntoldKey};
use crate::ledger::items::{Facts, Place};
use crate::ledger::permit::Permit;
use crate::ledger::store::{Change, Item, Key, Store, TRANSACTION, Transacted, Write};
use crate::ledger::timeline::{self, Entry};
use crate::ledger::write::Claim;
use crate::ledger::{Ledger, LedgerError};
use crate::outcome::Report;

/// How a transaction is answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// The table asks to slow down, and makes nothing.
    Throttled,
    /// Another transaction is at work on an item.
    Conflicted,
    /// It is made, and the answer is lost.
    Lost,
    /// The role may not write.
    Denied,
    /// It is held up for so long on its way.
    Late(Duration),
}

#[derive(Debug, Default)]
struct Held {
    items: BTreeMap<Key, Item>,
    /// The tokens of what was made.
    made: BTreeSet<String>,
    /// How the next transactions are answered; after these, at once.
    answers: VecDeque<Answer>,
    /// The tokens of all calls.
    calls: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Held>);

impl Memory {
    fn held<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next transactions are answered so.
    pub(super) fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.held(|held| held.answers = answers.into_iter().collect());
    }

    pub(super) fn items(&self) -> BTreeMap<Key, Item> {
        self.held(|held| held.items.clone())
    }

    pub(super) fn put(&self, key: Key, item: Item) {
        self.held(|held| held.items.insert(key, item));
    }

    pub(super) fn lose(&self, key: &Key) {
        self.held(|held| held.items.remove(key)).unwrap();
    }

    /// How many transactions were made.
    pub(super) fn made(&self) -> usize {
        self.held(|held| held.made.len())
    }

    /// The tokens of the calls since the last time.
    pub(super) fn calls(&self) -> Vec<String> {
        self.held(|held| std::mem::take(&mut held.calls))
    }

    /// The keys below a partition.
    pub(super) fn below(&self, pk: &str) -> Vec<String> {
        let of = |(key, _): (Key, Item)| (key.pk == pk).then_some(key.sk);
        self.items().into_iter().filter_map(of).collect()
    }

    fn make(&self, writes: &[Write], token: &str) -> Transacted {
        self.held(|held| {
            if held.made.contains(token) {
                return Transacted::Written;
            }
            let holds = |write: &Write| write.condition.holds(held.items.get(&write.key));
            if !writes.iter().all(holds) {
                return Transacted::Refused;
            }
            for write in writes {
                match &write.change {
                    Change::Put(item) => {
                        held.items.insert(write.key.clone(), item.clone());
                    }
                    Change::Delete => {
                        held.items.remove(&write.key);
                    }
                    Change::Check => {}
                }
            }
            held.made.insert(token.to_owned());
            Transacted::Written
        })
    }
}

#[async_trait]
impl Store for Memory {
    async fn get(&self, keys: &[Key]) -> Result<BTreeMap<Key, Item>, LedgerError> {
        let items = self.items();
        let found = keys.iter().filter_map(|key| items.get_key_value(key));
        Ok(found
            .map(|(key, item)| (key.clone(), item.clone()))
            .collect())
    }

    async fn query(&self, pk: &str) -> Result<Vec<(Key, Item)>, LedgerError> {
        let items = self.items().into_iter();
        Ok(items.filter(|(key, _)| key.pk == pk).collect())
    }

    async fn transact(&self, writes: &[Write], token: &str) -> Result<Transacted, AwsError> {
        // What the table itself refuses.
        let keys: BTreeSet<&Key> = writes.iter().map(|write| &write.key).collect();
        assert_eq!(
            keys.len(),
            writes.len(),
            "an item is written twice: {writes:?}"
        );
        assert!(
            (1..=TRANSACTION).contains(&writes.len()),
            "{}",
            writes.len()
        );
        assert!((1..=36).contains(&token.len()), "{token}");
        let answer = self.held(|held| {
            held.calls.push(token.to_owned());
            held.answers.pop_front()
        });
        let failed = |kind| AwsError {
            operation: "dynamodb:PutItem",
            subject: "ledger".to_owned(),
            kind,
            code: None,
            message: String::new(),
        };
        match answer {
            Some(Answer::Throttled) => return Err(failed(Kind::Throttled)),
            Some(Answer::Denied) => return Err(failed(Kind::Denied)),
            Some(Answer::Conflicted) => return Ok(Transacted::Conflicted),
            Some(Answer::Lost) => {
                self.make(writes, token);
                return Err(failed(Kind::Unknown));
            }
            Some(Answer::Late(pause)) => tokio::time::sleep(pause).await,
            None => {}
        }
        Ok(self.make(writes, token))
    }
}

/// A ledger on an empty table.
pub(super) fn ledger() -> (Ledger, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    (Ledger::new(memory.clone()), memory)
}

pub(super) fn entry(kind: timeline::Kind, summary: &str) -> Entry {
    Entry {
        kind,
        summary: summary.to_owned(),
        detail: Value::Null,
    }
}

/// The incident that all lines of these tests go to.
pub(super) const INCIDENT: &str = "inc-1";

fn commit<'a>(
    place: &'a Place<'_>,
    before: &'a Facts,
    after: &'a Facts,
    entries: &'a [Entry],
    told: Option<&'a Report>,
) -> Commit<'a> {
    Commit {
        place,
        before,
        after,
        incident_id: INCIDENT,
        entries,
        told,
        watch: None,
    }
}

/// Asks for a claim on these facts; `None` when another was first.
pub(super) async fn claim_on(
    ledger: &Ledger,
    facts: &Facts,
    place: &Place<'_>,
    claiming: &Claiming<'_>,
    second: i64,
) -> Result<Option<Box<Permit>>, LedgerError> {
    let after = scene::claimed(facts, place, claiming, second);
    let entries = [entry(timeline::Kind::Claimed, "claimed")];
    let commit = commit(place, facts, &after, &entries, None);
    let held_until = at(second + 60);
    match ledger.claim(&commit, false, held_until, at(second)).await? {
        Claim::Granted(permit) => Ok(Some(permit)),
        Claim::Overtaken => Ok(None),
    }
}

/// Reads the facts and claims.
pub(super) async fn claim(ledger: &Ledger, place: &Place<'_>, second: i64) -> Box<Permit> {
    let facts = ledger.facts(place).await.unwrap();
    let claimed = claim_on(ledger, &facts, place, &Claiming::default(), second).await;
    claimed.unwrap().unwrap()
}

/// Ends the permit's round.
pub(super) async fn finish(
    ledger: &Ledger,
    permit: &Permit,
    place: &Place<'_>,
    end: &End<'_>,
    second: i64,
) -> Result<Option<UntoldKey>, LedgerError> {
    let before = permit.facts();
    let after = next::finished(&before, place.event, end, at(second));
    let entries = [entry(timeline::Kind::Applied, "done")];
    let commit = commit(place, &before, &after, &entries, Some(end.report));
    ledger.finish(permit, &commit, at(second)).await
}

/// Gives the permit's claim back.
pub(super) async fn withdraw(
    ledger: &Ledger,
    permit: &Permit,
    place: &Place<'_>,
    before: &Facts,
    second: i64,
) -> Result<Option<UntoldKey>, LedgerError> {
    let claimed = permit.facts();
    let after = next::withdrawn(&claimed, before, at(second));
    let commit = commit(place, &claimed, &after, &[], None);
    ledger.finish(permit, &commit, at(second)).await
}

/// Writes a refusal that was decided on these facts; `None` when the ledger has changed since.
pub(super) async fn refuse_on(
    ledger: &Ledger,
    facts: &Facts,
    place: &Place<'_>,
    why: &Refused<'_>,
    second: i64,
) -> Result<Option<Option<UntoldKey>>, LedgerError> {
    let after = next::refused(facts, place, why, at(second));
    let entries = [entry(timeline::Kind::Skipped, "refused")];
    let commit = commit(place, facts, &after, &entries, None);
    ledger.commit(&commit, at(second)).await
}
