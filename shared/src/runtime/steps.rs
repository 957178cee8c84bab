//! How long each step of a run took.

use chrono::{DateTime, Utc};

use crate::outcome::{Step, StepName};

/// The lengths of a run's steps.
pub(super) struct Steps {
    began: DateTime<Utc>,
    last: DateTime<Utc>,
    pub(super) taken: Vec<Step>,
}

impl Steps {
    pub(super) fn new(began: DateTime<Utc>) -> Self {
        Self {
            began,
            last: began,
            taken: Vec::new(),
        }
    }

    pub(super) fn end(&mut self, name: StepName, now: DateTime<Utc>) {
        let millis = |from: DateTime<Utc>, to: DateTime<Utc>| {
            u64::try_from((to - from).num_milliseconds()).unwrap_or(0)
        };
        self.taken.push(Step {
            name,
            started_ms: millis(self.began, self.last),
            took_ms: millis(self.last, now),
        });
        self.last = now;
    }
}
