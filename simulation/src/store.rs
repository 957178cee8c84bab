//! The ledger's table in the world, behind a door that knows which invocation goes through it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use shared::aws_error::{AwsError, Kind};
use shared::ledger::LedgerError;
use shared::ledger::store::{Change, Item, Key, Store, Transacted, Write};

use crate::fate::Fate;
use crate::world::World;

/// How long a transaction goes on whose answer was given up on.
const LATER: Duration = Duration::from_secs(4);

/// The door through which one function instance reaches the world.
#[derive(Debug, Clone)]
pub struct Door {
    /// The world.
    pub world: World,
    invocation: Arc<AtomicU64>,
}

impl Door {
    /// A door that nobody goes through yet.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            world,
            invocation: Arc::default(),
        }
    }

    /// From now on this invocation goes through it.
    pub fn opens_for(&self, invocation: u64) {
        self.invocation.store(invocation, Ordering::Relaxed);
    }

    /// Who goes through it.
    #[must_use]
    pub fn invocation(&self) -> u64 {
        self.invocation.load(Ordering::Relaxed)
    }

    /// Makes a call with an effect, and lets its fate decide what becomes of both.
    pub async fn call<T>(
        &self,
        operation: &'static str,
        subject: &str,
        effect: impl FnOnce(&World) -> T,
    ) -> Result<T, AwsError> {
        let invocation = self.invocation();
        let (name, fate, takes) = self.world.fate(invocation, operation, subject);
        let failed = |kind, code: &str| {
            Err(AwsError {
                operation,
                subject: subject.to_owned(),
                kind,
                code: Some(code.to_owned()),
                message: String::new(),
            })
        };
        if fate != Fate::Answered {
            self.world
                .tell(|| format!("#{invocation} {name} {subject}: {}", fate.name()));
        }
        self.world.call_begins(operation);
        // The effect comes at some time of the call.
        tokio::time::sleep(takes / 2).await;
        if fate != Fate::Answered {
            self.world.call_ends();
        }
        match fate {
            Fate::DiesBefore => self.world.die(invocation).await,
            // A call whose effect cannot land later has none.
            Fate::Failed | Fate::LandsLater => return failed(Kind::Unknown, "InternalError"),
            Fate::Conflict => return failed(Kind::Conflict, "ConflictException"),
            Fate::Throttled => return failed(Kind::Throttled, "ThrottlingException"),
            Fate::Answered | Fate::Late | Fate::AnswerLost | Fate::DiesAfter => {}
        }
        let done = effect(&self.world);
        match fate {
            Fate::DiesAfter => self.world.die(invocation).await,
            _ => tokio::time::sleep(takes / 2).await,
        }
        if fate == Fate::Answered {
            self.world.call_ends();
        }
        match fate {
            Fate::AnswerLost => failed(Kind::Unknown, "RequestTimeout"),
            _ => Ok(done),
        }
    }
}

#[async_trait]
impl Store for Door {
    async fn get(&self, keys: &[Key]) -> Result<BTreeMap<Key, Item>, LedgerError> {
        // A batch is read item by item: what lies between two items may be changed meanwhile.
        let (first, rest) = keys.split_at(keys.len() / 2);
        let read = |keys: &[Key], world: &World| -> Vec<(Key, Item)> {
            let inner = world.inner();
            let found = keys.iter();
            found
                .filter_map(|key| Some((key.clone(), inner.table.get(key)?.clone())))
                .collect()
        };
        let mut found = read(first, &self.world);
        let more = self
            .call("BatchGetItem", "the ledger", |world| read(rest, world))
            .await
            .map_err(LedgerError::Call)?;
        found.extend(more);
        Ok(found.into_iter().collect())
    }

    async fn query(&self, pk: &str) -> Result<Vec<(Key, Item)>, LedgerError> {
        self.call("Query", pk, |world| {
            let inner = world.inner();
            let from = Key::new(pk, "");
            let found = inner.table.range(from..);
            found
                .take_while(|(key, _)| key.pk == pk)
                .map(|(key, item)| (key.clone(), item.clone()))
                .collect()
        })
        .await
        .map_err(LedgerError::Call)
    }

    async fn transact(&self, writes: &[Write], token: &str) -> Result<Transacted, AwsError> {
        self.world.asks(self.invocation(), writes);
        let invocation = self.invocation();
        if self.world.lands_later(invocation) {
            // Whoever asks gives up; the table is still at it.
            let (world, writes, token) = (self.world.clone(), writes.to_vec(), token.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(LATER).await;
                let made = world.transact(&writes, &token);
                world.tell(|| format!("#{invocation} wrote {}: {made:?}", told(&writes)));
            });
            tokio::time::sleep(LATER / 2).await;
            return Err(AwsError {
                operation: "TransactWriteItems",
                subject: "the ledger".to_owned(),
                kind: Kind::Unknown,
                code: Some("RequestTimeout".to_owned()),
                message: String::new(),
            });
        }
        let made = self
            .call("TransactWriteItems", "the ledger", |world| {
                let made = world.transact(writes, token);
                world.tell(|| format!("#{invocation} writes {}: {made:?}", told(writes)));
                made
            })
            .await;
        match made {
            Err(error) if error.kind == Kind::Conflict => Ok(Transacted::Conflicted),
            other => other,
        }
    }
}

/// A transaction in one line.
fn told(writes: &[Write]) -> String {
    let parts = writes.iter().filter_map(|write| {
        let sk = &write.key.sk;
        if sk.starts_with("at#") {
            let Change::Put(item) = &write.change else {
                return None;
            };
            let kind = item.columns.get("kind")?;
            let summary = item.columns.get("summary")?;
            return Some(format!("\"{kind}: {summary}\""));
        }
        let token = |item: &Item| {
            let marks = item.marks.iter();
            let marks = marks.map(|(name, mark)| format!("{name} {mark}"));
            let columns = item.columns.values().cloned();
            marks.chain(columns).collect::<Vec<_>>().join(" ")
        };
        Some(match &write.change {
            Change::Put(item) => format!("{sk}({})", token(item)),
            Change::Delete => format!("-{sk}"),
            Change::Check => format!("?{sk}"),
        })
    });
    parts.collect::<Vec<_>>().join(", ")
}
