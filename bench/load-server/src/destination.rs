//! The queue that messages are replayed to, with a consumer that takes so many a second.

use tokio::time::Instant;

/// What the destination holds, as its consumer takes from it.
#[derive(Debug)]
pub(crate) struct Destination {
    /// Messages a second; without it the consumer keeps up with everything.
    consumed_per_second: Option<f64>,
    held: f64,
    peak: f64,
    at: Instant,
}

impl Destination {
    /// An empty one.
    pub(crate) fn new(consumed_per_second: Option<f64>) -> Self {
        Self {
            consumed_per_second,
            held: 0.0,
            peak: 0.0,
            at: Instant::now(),
        }
    }

    /// Takes in messages.
    pub(crate) fn arrive(&mut self, messages: usize, now: Instant) {
        self.consume(now);
        if self.consumed_per_second.is_some() {
            #[allow(clippy::cast_precision_loss)] // Message counts are far below 2^52.
            let messages = messages as f64;
            self.held += messages;
            self.peak = self.peak.max(self.held);
        }
    }

    /// How many messages it holds.
    pub(crate) fn held(&mut self, now: Instant) -> u64 {
        self.consume(now);
        whole(self.held)
    }

    /// The most that it held.
    pub(crate) fn peak(&self) -> u64 {
        whole(self.peak)
    }

    fn consume(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        let taken = self.consumed_per_second.unwrap_or(0.0) * seconds;
        self.held = (self.held - taken).max(0.0);
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A count.
fn whole(messages: f64) -> u64 {
    messages.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_consumer_takes_as_many_as_its_time_allows_and_no_more_than_there_are() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut destination = Destination::new(Some(10.0));
        destination.arrive(100, start);
        assert_eq!(destination.held(after(3)), 70);
        destination.arrive(50, after(3));
        assert_eq!(destination.held(after(60)), 0);
        assert_eq!(destination.peak(), 120);
        let mut keeps_up = Destination::new(None);
        keeps_up.arrive(100, start);
        assert_eq!((keeps_up.held(start), keeps_up.peak()), (0, 0));
    }
}
