//! The canary: the first messages of a run, and whether they were consumed, as the destinations' counts tell.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// The first messages of a run, on their way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentCanary {
    sent_at: DateTime<Utc>,
    /// By the destination's ARN.
    watched: BTreeMap<String, Watched>,
}

/// What a destination got of the canary, and what it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    before: u64,
    sent: u64,
    /// The most that it was seen to hold since.
    peak: u64,
}

impl Watched {
    /// Whether what it holds shows that as much was consumed as it got: it is back to where it was, or has fallen by
    /// as much, as a busy queue has that never comes back to where it was.
    fn is_consumed(self, total: u64) -> bool {
        total <= self.before || total + self.sent <= self.peak.max(total)
    }
}

impl SentCanary {
    /// A canary sent at a time: to each destination so many messages, beside what it held before.
    pub(super) fn new<'a>(
        sent_at: DateTime<Utc>,
        sent: impl Iterator<Item = (&'a str, u64, u64)>,
    ) -> Self {
        let watched = sent
            .filter(|(_, sent, _)| *sent > 0)
            .map(|(arn, sent, before)| {
                let peak = before + sent;
                (arn.to_owned(), Watched { before, sent, peak })
            });
        Self {
            sent_at,
            watched: watched.collect(),
        }
    }

    /// How many messages it has.
    pub(super) fn messages(&self) -> u64 {
        self.watched.values().map(|watched| watched.sent).sum()
    }

    /// Takes in what the destinations hold now.
    pub(super) fn look<'a>(&mut self, totals: impl Iterator<Item = (&'a str, u64)>) {
        for (arn, total) in totals {
            if let Some(watched) = self.watched.get_mut(arn) {
                watched.peak = watched.peak.max(total);
            }
        }
    }

    /// What is not consumed of it, by what the destinations hold now; `None` where all is. A destination that is not
    /// named has nothing that can be counted.
    pub(crate) fn unconsumed<'a>(
        &self,
        totals: impl Iterator<Item = (&'a str, u64)>,
    ) -> Option<String> {
        let mut totals = totals;
        let (arn, total, watched) = totals.find_map(|(arn, total)| {
            let watched = self.watched.get(arn)?;
            (!watched.is_consumed(total)).then_some((arn, total, watched))
        })?;
        Some(format!(
            "the canary of {} messages, sent at {}, is not consumed: {arn} held {} before, got {}, and holds {total}",
            self.messages(),
            self.sent_at.to_rfc3339_opts(SecondsFormat::Secs, true),
            watched.before,
            watched.sent,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(before: u64, sent: u64) -> SentCanary {
        SentCanary::new(DateTime::UNIX_EPOCH, [("q", sent, before)].into_iter())
    }

    #[test]
    fn a_canary_is_consumed_when_its_destination_falls_by_as_much_as_it_got() {
        // What the queue held before, what it is seen to hold look by look, and whether that is consumption.
        for (before, seen, consumed) in [
            (0, vec![0], true),
            (0, vec![10], false),
            (0, vec![10, 3], false),
            (0, vec![10, 0], true),
            // A dead consumer before a backlog.
            (500, vec![510], false),
            // More comes in than goes out.
            (500, vec![520, 530, 540], false),
            // A backlog that is worked on.
            (500, vec![510, 505, 499], true),
            (500, vec![540, 529], true),
            (500, vec![540, 531], false),
        ] {
            let mut canary = sent(before, 10);
            let last = *seen.last().unwrap();
            for total in &seen {
                canary.look([("q", *total)].into_iter());
            }
            let left = canary.unconsumed([("q", last)].into_iter());
            assert_eq!(left.is_none(), consumed, "{before}, {seen:?}: {left:?}");
        }
    }

    #[test]
    fn what_got_nothing_or_cannot_be_counted_is_not_waited_for() {
        let canary = SentCanary::new(DateTime::UNIX_EPOCH, [("q", 0, 3), ("f", 4, 0)].into_iter());
        assert_eq!(canary.messages(), 4);
        assert_eq!(canary.unconsumed([("q", 900)].into_iter()), None);
    }
}
