//! What comes back: whether a dead-letter queue falls by what leaves it.

use std::collections::VecDeque;
use std::time::Duration;

/// Counts of a queue are right again after so long (Amazon SQS API Reference, `GetQueueAttributes`).
const COUNTED_WITHIN: Duration = Duration::from_mins(1);
/// Messages removed from which on what came back can be told from what SQS counts roughly.
const REMOVED_AT_LEAST: u64 = 20;

/// What comes back to the dead-letter queue, as its counts tell: it should fall by what was removed.
#[derive(Debug, Clone, Default)]
pub(super) struct Returns {
    /// What it held when it was first looked at, and what had been removed by then.
    first: Option<(u64, u64)>,
    removed: VecDeque<(Duration, u64)>,
}

impl Returns {
    /// Takes in that the queue holds so many, after so many were removed; how many of the removed must be back, and of
    /// how many. Only what was removed so long ago that the counts show it is told of.
    pub(super) fn look(&mut self, total: u64, removed: u64, at: Duration) -> Option<(u64, u64)> {
        let (held, already) = *self.first.get_or_insert((total, removed));
        self.removed.push_back((at, removed));
        let mut shown = None;
        while let Some((then, removed)) = self.removed.front().copied() {
            if then + COUNTED_WITHIN > at {
                break;
            }
            shown = Some(removed);
            self.removed.pop_front();
        }
        let shown = shown?;
        // The last one that the counts show is kept for the next look.
        self.removed
            .push_front((at.saturating_sub(COUNTED_WITHIN), shown));
        let shown = shown.saturating_sub(already);
        let back = (total + shown).saturating_sub(held).min(shown);
        (shown >= REMOVED_AT_LEAST.max(held / 20)).then_some((back, shown))
    }
}
