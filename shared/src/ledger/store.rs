//! The narrow door to the ledger's table: read some items, read a partition, write some items or none.
//!
//! Two implementations exist: the `DynamoDB` table and the world of the simulation. Whatever the guard relies on is
//! said here, so that both keep it.

use std::collections::BTreeMap;
use std::fmt::Debug;

use async_trait::async_trait;

use crate::aws_error::AwsError;
use crate::ledger::error::LedgerError;

/// What identifies an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The partition key.
    pub pk: String,
    /// The sort key.
    pub sk: String,
}

impl Key {
    /// The key of these two parts.
    #[must_use]
    pub fn new(pk: impl Into<String>, sk: impl Into<String>) -> Self {
        Self {
            pk: pk.into(),
            sk: sk.into(),
        }
    }
}

/// An item without its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// The content, as JSON. A kill switch has none.
    pub body: Option<String>,
    /// Numbers that conditions compare.
    pub marks: BTreeMap<String, u64>,
    /// Plain text, for those who read the table.
    pub columns: BTreeMap<String, String>,
    /// A kill switch's position, where it is given.
    pub engaged: Option<bool>,
    /// When the table may delete the item, in epoch seconds; `None` for what stays.
    pub expires_at: Option<i64>,
}

/// What must hold of an item for a transaction to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// The item is not there.
    Absent,
    /// Its marks have these values.
    Are(Vec<(&'static str, u64)>),
    /// The first mark has its value and the second is below its own.
    IsAndBelow((&'static str, u64), (&'static str, u64)),
    /// The item is not there, or its mark is at most this.
    AbsentOrAtMost(&'static str, u64),
}

impl Condition {
    /// Whether it holds of an item, or of its absence.
    #[must_use]
    pub fn holds(&self, item: Option<&Item>) -> bool {
        let mark = |name: &str| item.and_then(|item| item.marks.get(name)).copied();
        match self {
            Self::Always => true,
            Self::Absent => item.is_none(),
            Self::Are(marks) => marks.iter().all(|(name, is)| mark(name) == Some(*is)),
            Self::IsAndBelow((name, is), (other, below)) => {
                mark(name) == Some(*is) && mark(other).is_some_and(|found| found < *below)
            }
            Self::AbsentOrAtMost(name, most) => {
                item.is_none() || mark(name).is_some_and(|found| found <= *most)
            }
        }
    }
}

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is replaced.
    Put(Item),
    /// It is removed.
    Delete,
    /// It stays; only the condition counts.
    Check,
}

/// One part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which item.
    pub key: Key,
    /// What must hold of it.
    pub condition: Condition,
    /// What becomes of it.
    pub change: Change,
}

/// How a transaction ended that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transacted {
    /// All of it was made.
    Written,
    /// A condition did not hold, and nothing was made.
    Refused,
    /// Another transaction was at work on one of the items, and nothing was made.
    Conflicted,
}

/// The most items that one transaction takes (Amazon `DynamoDB` API Reference, "`TransactWriteItems`").
pub const TRANSACTION: usize = 100;

/// A table.
#[async_trait]
pub trait Store: Debug + Send + Sync {
    /// Reads items, each as it is at some moment of the call. What is not there is not in the answer; an item that
    /// could not be read is an error.
    async fn get(&self, keys: &[Key]) -> Result<BTreeMap<Key, Item>, LedgerError>;

    /// Reads a partition, in the order of its sort keys.
    async fn query(&self, pk: &str) -> Result<Vec<(Key, Item)>, LedgerError>;

    /// Makes all of the writes or none. A call with the token of an earlier one that was made is answered with
    /// `Written` and changes nothing.
    async fn transact(&self, writes: &[Write], token: &str) -> Result<Transacted, AwsError>;
}
