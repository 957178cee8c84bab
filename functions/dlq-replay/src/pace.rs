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

    /// Goes on with another rate, of at least one message in ten seconds. What is reserved stays reserved.
    pub fn set(&mut self, per_second: f64) {
        let burst = self.burst;
        self.interval = Duration::from_secs_f64(1.0 / per_second.max(0.1));
        self.burst = self.interval * 10;
        // What may go at once is counted from `next` on: as much of it as was left stays so.
        self.next = (self.next + self.burst).saturating_sub(burst);
    }

    /// Reserves room for `messages` at `now` (since the start) and says how long to wait for it; `None` where that is
    /// longer than `patience`: nothing is reserved then, so that another rate can be kept at once.
    pub fn reserve(
        &mut self,
        messages: u32,
        now: Duration,
        patience: Duration,
    ) -> Option<Duration> {
        let next = self.next.max(now.saturating_sub(self.burst)) + self.interval * messages;
        let wait = next.saturating_sub(now + self.burst);
        (wait <= patience).then(|| {
            self.next = next;
            wait
        })
    }

    /// Gives back room that was reserved and not used.
    pub fn refund(&mut self, messages: u32) {
        self.next = self.next.saturating_sub(self.interval * messages);
    }
}

/// What a destination is seen to take, and the rate that leads its backlog to half of its bound.
///
/// What others send to the destination is taken off: it is what the destination takes beside them.
#[derive(Debug, Clone)]
pub struct Drain {
    baseline: f64,
    aim: f64,
    /// Messages a second.
    drained: f64,
    last: (Duration, f64),
    sent: f64,
}

/// In how many seconds the backlog is led to its aim. Counts are some seconds old, and what corrects faster than they
/// are told swings.
const HORIZON: f64 = 20.0;

#[allow(clippy::cast_precision_loss)] // Message counts are far below 2^52.
impl Drain {
    /// A destination that held `baseline` messages before the run, may hold `max_backlog` more, and holds `total` now.
    #[must_use]
    pub fn new(baseline: u64, max_backlog: u32, total: u64) -> Self {
        Self {
            baseline: baseline as f64,
            aim: f64::from(max_backlog) / 2.0,
            drained: 0.0,
            last: (Duration::ZERO, total as f64),
            sent: 0.0,
        }
    }

    /// Takes in that it was sent so many messages.
    pub fn sent(&mut self, messages: u64) {
        self.sent += messages as f64;
    }

    /// Takes in what it holds at `now` (since the start), and gives how many messages a second it should get.
    pub fn look(&mut self, total: u64, now: Duration) -> f64 {
        let total = total as f64;
        let (at, before) = self.last;
        if now > at {
            let seconds = now.saturating_sub(at).as_secs_f64();
            let drained = ((self.sent - (total - before)) / seconds).max(0.0);
            self.drained = if self.drained > 0.0 {
                f64::midpoint(self.drained, drained)
            } else {
                drained
            };
        }
        self.last = (now, total);
        self.sent = 0.0;
        self.rate(total)
    }

    /// How many messages a second it should get while it holds so many.
    fn rate(&self, total: f64) -> f64 {
        let room = self.aim - (total - self.baseline);
        (self.drained + room / HORIZON).max(0.0)
    }

    /// How many messages a second it should get before it was looked at.
    #[must_use]
    pub fn first_rate(&self) -> f64 {
        self.rate(self.last.1)
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

    /// A queue that `takes` messages a second, looked at every five seconds for an hour; the most that it held, and what
    /// it took in the second half hour.
    fn an_hour(drains: f64, baseline: u64, max_backlog: u32, ceiling: f64) -> (f64, f64) {
        #[allow(clippy::cast_precision_loss)]
        let (mut held, mut most, mut taken) = (baseline as f64, 0.0_f64, 0.0);
        let mut drain = Drain::new(baseline, max_backlog, baseline);
        let mut rate = drain.first_rate().min(ceiling);
        for tick in 0..720 {
            let sent = rate * 5.0;
            let out = (held + sent).min(drains * 5.0);
            held += sent - out;
            most = most.max(held);
            taken += if tick >= 360 { out } else { 0.0 };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let (seen, told) = (held.round() as u64, sent.round() as u64);
            drain.sent(told);
            rate = drain
                .look(seen, Duration::from_secs(5 * (tick + 1)))
                .min(ceiling);
        }
        (most, taken)
    }

    proptest! {
        #[test]
        fn a_destination_gets_what_it_takes_and_its_backlog_stays_bounded(takes in 1.0_f64..2_000.0, baseline in 0_u64..50_000, max_backlog in 2_000_u32..20_000, ceiling in 1.0_f64..1_000.0) {
            let (most, taken) = an_hour(takes, baseline, max_backlog, ceiling);
            #[allow(clippy::cast_precision_loss)]
            let bound = baseline as f64 + f64::from(max_backlog);
            prop_assert!(most <= bound, "{most} of {bound}");
            let due = takes.min(ceiling) * 1_800.0;
            prop_assert!(taken >= due * 0.95, "{taken} of {due}");
        }

        #[test]
        fn who_takes_nothing_gets_half_of_its_bound(baseline in 0_u64..50_000, max_backlog in 100_u32..20_000) {
            let (most, _) = an_hour(0.0, baseline, max_backlog, 1_000.0);
            #[allow(clippy::cast_precision_loss)]
            let bound = baseline as f64 + f64::from(max_backlog) / 2.0;
            prop_assert!(most <= bound + 1.0, "{most} of {bound}");
        }

        #[test]
        fn the_rate_never_exceeds_its_limit(per_second in 1_u32..5_000, batches in prop::collection::vec((1_u32..=10, 0_u64..50), 1..200)) {
            let mut limit = RateLimit::new(per_second);
            let mut now = Duration::ZERO;
            let mut sent: u64 = 0;
            for (messages, idle) in batches {
                now += Duration::from_millis(idle);
                let Some(wait) = limit.reserve(messages, now, Duration::from_secs(1)) else {
                    now += Duration::from_secs(1);
                    continue;
                };
                now += wait;
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
