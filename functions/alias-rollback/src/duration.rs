//! Whether a version takes longer than another did. Pure.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::observed::{Durations, Minutes};
use crate::policy::{Blame, Slowness};

/// Invocations, and how long they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Took {
    invocations: u64,
    milliseconds: u64,
}

impl Took {
    /// Those that began from one minute on, up to another, which is left out. A minute of which only one of the two
    /// figures is there tells nothing.
    pub(crate) fn between(
        (minutes, durations): (&Minutes, &Durations),
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Self {
        if from >= to {
            return Self::default();
        }
        let both = durations.range(from..to);
        let both = both.filter_map(|(at, took)| Some((minutes.get(at)?.invocations, *took)));
        both.fold(Self::default(), |sum, (invocations, milliseconds)| Self {
            invocations: sum.invocations + invocations,
            milliseconds: sum.milliseconds + milliseconds,
        })
    }

    #[allow(clippy::cast_precision_loss)] // A day's milliseconds are far below 2^52.
    fn average(self) -> f64 {
        self.milliseconds as f64 / self.invocations.max(1) as f64
    }

    /// Whether there were enough invocations to tell.
    pub(crate) fn is_enough(self, blame: &Blame) -> bool {
        self.invocations >= u64::from(blame.min_invocations.get())
    }

    /// Whether these took so much longer than others that they are too slow.
    pub(crate) fn is_slower(self, than: Self, slowness: &Slowness, blame: &Blame) -> bool {
        let average = self.average();
        self.is_enough(blame)
            && than.is_enough(blame)
            && average >= f64::from(slowness.from_milliseconds.get())
            && average >= slowness.times * than.average()
    }

    /// By how much these took longer than others.
    pub(crate) fn times(self, than: Self) -> f64 {
        self.average() / than.average().max(f64::MIN_POSITIVE)
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let average = self.average();
        write!(f, "{average:.0} ms on average of {}", self.invocations)
    }
}
