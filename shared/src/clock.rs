//! The one place where the time of day comes from, so that decisions can be given any time in tests.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

/// A source of the current time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

impl Clock {
    /// The system's clock.
    #[must_use]
    #[allow(clippy::disallowed_methods)] // The one allowed reading of the system clock.
    pub fn system() -> Self {
        Self(Arc::new(Utc::now))
    }

    /// The system's clock, moved by `offset`: lets a test stand after a lease has expired without waiting.
    #[must_use]
    pub fn offset(offset: TimeDelta) -> Self {
        let system = Self::system();
        Self(Arc::new(move || system.now() + offset))
    }

    /// A clock that tells what `reading` does.
    #[must_use]
    pub fn reading(reading: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(reading))
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }
}
