//! One line per step, with the time it took.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;

use tokio::time::Instant;

use crate::Result;

/// Tells on standard error what a task is doing.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    task: &'static str,
}

impl Progress {
    /// For the task of this name.
    #[must_use]
    pub fn new(task: &'static str) -> Self {
        Self { task }
    }

    /// Says something about the task.
    pub fn say(self, text: impl Display) {
        eprintln!("{}: {text}", self.task);
    }

    /// Runs a step and says how long it took.
    pub fn step<'a, T: 'a>(
        self,
        what: impl Display + 'a,
        step: impl Future<Output = Result<T>> + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T>> + 'a>> {
        Box::pin(async move {
            let start = Instant::now();
            let result = step.await;
            let mark = if result.is_ok() { "" } else { "FAILED: " };
            self.say(format_args!(
                "{mark}{what} ({:.1} s)",
                start.elapsed().as_secs_f64()
            ));
            result
        })
    }

    /// Runs a step that takes its time: also says when it starts.
    pub fn long_step<'a, T: 'a>(
        self,
        what: impl Display + 'a,
        step: impl Future<Output = Result<T>> + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T>> + 'a>> {
        self.say(format_args!("{what} ..."));
        self.step(what, step)
    }
}
