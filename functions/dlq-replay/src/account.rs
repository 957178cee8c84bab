//! The account of a replay: every message received is replayed, quarantined or returned, and the sums agree.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Where the messages of one dead-letter queue went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Messages taken from the dead-letter queue, each counted once.
    pub received: u64,
    /// Messages delivered, by destination.
    pub replayed: BTreeMap<String, u64>,
    /// Messages quarantined, by reason.
    pub quarantined: BTreeMap<String, u64>,
    /// Messages left in the dead-letter queue, by reason.
    pub returned: BTreeMap<String, u64>,
    /// Messages that may have been delivered twice, because an answer was lost or an earlier attempt
    /// died with them in hand. At most; the true number may be lower.
    pub possible_duplicates: u64,
    /// Messages delivered before that were still in the dead-letter queue and were only removed. Not
    /// among the received.
    pub removed_after_earlier_delivery: u64,
    /// Messages delivered whose removal failed. They are removed when they are seen again.
    pub delivered_but_not_removed: u64,
    /// Messages to be delivered of which only a pointer to S3 was seen: neither schema nor filter looked into them.
    #[serde(default)]
    pub not_looked_into: u64,
    /// Of the returned, those that the dead-letter queue drops within the hour.
    #[serde(default)]
    pub expire_within_an_hour: u64,
}

/// An account whose sums differ: a defect of this program, never of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imbalance {
    /// Messages received.
    pub received: u64,
    /// Messages accounted for.
    pub accounted: u64,
}

impl Account {
    /// The sum of the replayed.
    #[must_use]
    pub fn replayed(&self) -> u64 {
        self.replayed.values().sum()
    }

    /// The sum of the quarantined.
    #[must_use]
    pub fn quarantined(&self) -> u64 {
        self.quarantined.values().sum()
    }

    /// The sum of the returned.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.returned.values().sum()
    }

    /// How many of this run's messages left the dead-letter queue.
    #[must_use]
    pub fn removed(&self) -> u64 {
        let delivered = self.replayed() + self.quarantined();
        delivered.saturating_sub(self.delivered_but_not_removed)
    }

    /// Checks that received = replayed + quarantined + returned.
    pub fn balance(&self) -> Result<(), Imbalance> {
        let accounted = self.replayed() + self.quarantined() + self.returned();
        if accounted == self.received {
            Ok(())
        } else {
            Err(Imbalance {
                received: self.received,
                accounted,
            })
        }
    }

    /// One sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!(
            "received {}: replayed {}, quarantined {}, returned {}",
            self.received,
            self.replayed(),
            self.quarantined(),
            self.returned()
        );
        if self.possible_duplicates > 0 {
            let _ = write!(
                text,
                ", of which {} may have been delivered twice",
                self.possible_duplicates
            );
        }
        if self.not_looked_into > 0 {
            let _ = write!(
                text,
                "; {} point to payloads in S3 that were not looked into",
                self.not_looked_into
            );
        }
        if self.expire_within_an_hour > 0 {
            let _ = write!(
                text,
                "; {} of the returned expire within the hour",
                self.expire_within_an_hour
            );
        }
        text
    }
}

/// Adds one under `key`.
pub fn count(map: &mut BTreeMap<String, u64>, key: &str) {
    match map.get_mut(key) {
        Some(number) => *number += 1,
        None => {
            map.insert(key.to_owned(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_balances_or_names_the_difference() {
        let mut account = Account {
            received: 3,
            ..Account::default()
        };
        count(&mut account.replayed, "q");
        count(&mut account.replayed, "q");
        assert_eq!(
            account.balance(),
            Err(Imbalance {
                received: 3,
                accounted: 2
            })
        );
        count(&mut account.returned, "filtered");
        assert_eq!(account.balance(), Ok(()));
        assert_eq!(
            account.summary(),
            "received 3: replayed 2, quarantined 0, returned 1"
        );
    }
}
