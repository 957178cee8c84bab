//! How fast a replay goes: a rate limit, and a concurrency that grows while all is well and halves when it is not.

use std::time::Duration;

/// Spaces messages out so that no more than `per_second` go in any second.
#[derive(Debug, Clone)]
pub struct RateLimit {
    interval: Duration,
    /// When the next message may go, since the start.
    next: Duration,
    burst: Duration,
}

impl RateLimit {
    /// A limit of `per_second` messages a second, of which up to one batch may go at once.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self {
            interval,
            next: Duration::ZERO,
            burst: interval * 10,
        }
    }

    /// Reserves room for `messages` at `now` (since the start) and says how long to wait for it.
    pub fn reserve(&mut self, messages: u32, now: Duration) -> Duration {
        self.next = self.next.max(now.saturating_sub(self.burst)) + self.interval * messages;
        self.next.saturating_sub(now + self.burst)
    }

    /// Gives back room that was reserved and not used.
    pub fn refund(&mut self, messages: u32) {
        self.next = self.next.saturating_sub(self.interval * messages);
    }
}

/// News from the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feedback {
    /// A batch went through.
    Delivered,
    /// A service asked to slow down.
    Throttled,
    /// A batch failed.
    Failed,
    /// A destination's backlog or its consumer's errors grow.
    Pressure,
    /// A destination's backlog has reached its bound.
    Full,
    /// The backlog has room again.
    Relieved,
}

/// How many batches may be on their way: additive growth after a fast start, multiplicative decrease.
#[derive(Debug, Clone)]
pub struct Concurrency {
    allowed: f64,
    fast: bool,
    paused: bool,
    max: f64,
}

impl Concurrency {
    /// Begins with one batch at a time.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self {
            allowed: 1.0,
            fast: true,
            paused: false,
            max: f64::from(max.max(1)),
        }
    }

    /// How many batches may be on their way now. Zero while paused.
    #[must_use]
    pub fn allowed(&self) -> usize {
        if self.paused {
            return 0;
        }
        // Between 1 and 64 by construction.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let whole = self.allowed as usize;
        whole.max(1)
    }

    /// Takes in news.
    pub fn learn(&mut self, feedback: Feedback) {
        match feedback {
            Feedback::Delivered if self.fast => self.allowed += 1.0,
            Feedback::Delivered => self.allowed += 1.0 / self.allowed,
            Feedback::Throttled | Feedback::Failed | Feedback::Pressure => {
                self.allowed /= 2.0;
                self.fast = false;
            }
            Feedback::Full => self.paused = true,
            Feedback::Relieved => {
                if self.paused {
                    self.allowed = 1.0;
                }
                self.paused = false;
            }
        }
        self.allowed = self.allowed.clamp(1.0, self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn concurrency_doubles_each_round_trip_until_the_first_trouble() {
        let mut pace = Concurrency::new(16);
        pace.learn(Feedback::Delivered);
        assert_eq!(pace.allowed(), 2);
        for _ in 0..20 {
            pace.learn(Feedback::Delivered);
        }
        assert_eq!(pace.allowed(), 16);
        pace.learn(Feedback::Throttled);
        assert_eq!(pace.allowed(), 8);
        for _ in 0..8 {
            pace.learn(Feedback::Delivered);
        }
        assert_eq!(pace.allowed(), 8);
        pace.learn(Feedback::Delivered);
        assert_eq!(pace.allowed(), 9);
    }

    #[test]
    fn a_full_backlog_pauses_and_relief_begins_again_with_one() {
        let mut pace = Concurrency::new(16);
        for _ in 0..20 {
            pace.learn(Feedback::Delivered);
        }
        pace.learn(Feedback::Full);
        assert_eq!(pace.allowed(), 0);
        pace.learn(Feedback::Relieved);
        assert_eq!(pace.allowed(), 1);
    }

    proptest! {
        #[test]
        fn the_rate_never_exceeds_its_limit(per_second in 1_u32..5_000, batches in prop::collection::vec((1_u32..=10, 0_u64..50), 1..200)) {
            let mut limit = RateLimit::new(per_second);
            let mut now = Duration::ZERO;
            let mut sent: u64 = 0;
            for (messages, idle) in batches {
                now += Duration::from_millis(idle);
                now += limit.reserve(messages, now);
                sent += u64::from(messages);
                let most = f64::from(per_second) * now.as_secs_f64() + 10.0 + 1e-3;
                #[allow(clippy::cast_precision_loss)]
                let sent = sent as f64;
                prop_assert!(sent <= most + 10.0, "{sent} after {now:?}");
            }
        }

        #[test]
        fn concurrency_stays_within_its_bounds(max in 1_u32..=64, news in prop::collection::vec(0_u8..6, 0..500)) {
            let mut pace = Concurrency::new(max);
            for news in news {
                pace.learn(match news {
                    0 => Feedback::Delivered,
                    1 => Feedback::Throttled,
                    2 => Feedback::Failed,
                    3 => Feedback::Pressure,
                    4 => Feedback::Full,
                    _ => Feedback::Relieved,
                });
                prop_assert!(pace.allowed() <= max as usize);
            }
        }
    }
}
