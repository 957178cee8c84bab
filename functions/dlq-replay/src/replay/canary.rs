//! The canary: the first messages of a run, and whether they were consumed, as the destinations' counts tell.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Counts of a queue are right again after so long (Amazon SQS API Reference, `GetQueueAttributes`).
const COUNTED_WITHIN: TimeDelta = TimeDelta::minutes(1);

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
    /// Whether what it holds shows that as much was consumed as it got: it was seen to rise and is back to where it was,
    /// or has fallen by as much, as a busy queue has that never comes back to where it was. A count that has not risen
    /// may be one from before, until it `can_be_trusted`.
    fn is_consumed(self, total: u64, can_be_trusted: bool) -> bool {
        let rose = self.peak > self.before;
        (total <= self.before && (rose || can_be_trusted)) || total + self.sent <= self.peak
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
                let peak = before;
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
        now: DateTime<Utc>,
    ) -> Option<String> {
        let can_be_trusted = now - self.sent_at >= COUNTED_WITHIN;
        let mut totals = totals;
        let (arn, total, watched) = totals.find_map(|(arn, total)| {
            let watched = self.watched.get(arn)?;
            (!watched.is_consumed(total, can_be_trusted)).then_some((arn, total, watched))
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

    /// What is left of a canary of ten after looks at what its destination holds, the last of them at a second.
    fn left(before: u64, seen: &[u64], second: i64) -> Option<String> {
        let mut canary = sent(before, 10);
        for total in seen {
            canary.look([("q", *total)].into_iter());
        }
        let last = seen[seen.len() - 1];
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        canary.unconsumed([("q", last)].into_iter(), now)
    }

    #[test]
    fn a_canary_is_consumed_when_its_destination_falls_by_as_much_as_it_got() {
        // What the queue held before, what it is seen to hold look by look, and whether that is consumption.
        for (before, seen, consumed) in [
            // It may be a count from before the canary.
            (0, vec![0, 0], false),
            (0, vec![10], false),
            (0, vec![10, 3], false),
            (0, vec![10, 0], true),
            // A dead consumer before a backlog.
            (500, vec![510], false),
            // More comes in than goes out.
            (500, vec![520, 530, 540], false),
            // A backlog that is worked on.
            (500, vec![510, 505, 499], true),
            (500, vec![490], true),
            (500, vec![540, 530], true),
            (500, vec![540, 531], false),
        ] {
            let left = left(before, &seen, 59);
            assert_eq!(left.is_none(), consumed, "{before}, {seen:?}: {left:?}");
        }
    }

    #[test]
    fn a_count_that_never_rose_is_believed_after_a_minute() {
        assert!(left(0, &[0], 59).is_some());
        assert_eq!(left(0, &[0], 60), None);
        assert!(left(0, &[1], 60).is_some());
    }

    #[test]
    fn what_got_nothing_or_cannot_be_counted_is_not_waited_for() {
        let canary = SentCanary::new(DateTime::UNIX_EPOCH, [("q", 0, 3), ("f", 4, 0)].into_iter());
        assert_eq!(canary.messages(), 4);
        let held = [("q", 900)].into_iter();
        assert_eq!(canary.unconsumed(held, DateTime::UNIX_EPOCH), None);
    }
}
