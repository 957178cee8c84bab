//! The policy that a function has read, and when it is read again.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

use crate::policy::{Action, Document, Home, Loaded, PolicyError};
use crate::runtime::suite::Suite;
use crate::settings::Settings;

/// A policy older than this is read again, beside the guard's own reading.
const FRESH: TimeDelta = TimeDelta::seconds(60);
/// A policy that cannot be read again is used for this long after it was read.
const USABLE: TimeDelta = TimeDelta::minutes(15);
/// How far the alarm's clock and the function's may be apart.
const SKEW: TimeDelta = TimeDelta::seconds(5);

/// The policy that was read last.
pub(super) struct Policies<A>(Mutex<Option<Arc<Loaded<A>>>>);

type Read<A> = Result<Arc<Loaded<A>>, Arc<PolicyError>>;

impl<A: Action> Policies<A> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn held(&self) -> Option<Arc<Loaded<A>>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the policy before anyone asks for it, and before it is known where the function runs.
    pub(super) async fn warm_up(&self, suite: &Suite) {
        let _ = self.unchecked(suite).await;
    }

    /// The policy, read if it never was, or if what was read names a target that is out of reach: it may have been
    /// mended since.
    pub(super) async fn known(&self, suite: &Suite, home: &Home) -> Read<A> {
        if let Some(policy) = self.held()
            && let Ok(policy) = within_reach(suite, home, policy)
        {
            return Ok(policy);
        }
        self.read(suite, home).await
    }

    pub(super) async fn read(&self, suite: &Suite, home: &Home) -> Read<A> {
        within_reach(suite, home, self.unchecked(suite).await?)
    }

    async fn unchecked(&self, suite: &Suite) -> Read<A> {
        let parameter = &suite.settings.policy_parameter;
        // What is changed while it is being read may not be in it.
        let read_at = suite.clock.now();
        let found = suite.outside.policy(parameter).await?;
        let loaded = Arc::new(Loaded {
            document: Document::parse(parameter, &found.text)?,
            version: found.version,
            read_at,
        });
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = held
            .as_ref()
            .is_none_or(|held| held.read_at <= loaded.read_at);
        if newer {
            *held = Some(Arc::clone(&loaded));
        }
        Ok(loaded)
    }

    /// The policy for an event of this time, read again if that is due. While SSM does not answer, a policy read
    /// lately still serves.
    pub(super) async fn refreshed(
        &self,
        (suite, home): (&Suite, &Home),
        known: &Arc<Loaded<A>>,
        event_at: DateTime<Utc>,
    ) -> Read<A> {
        let now = suite.clock.now();
        if !is_due(known.read_at, event_at, now) {
            return Ok(Arc::clone(known));
        }
        match self.read(suite, home).await {
            Err(error) if error.is_transient() && !known.is_older_than(USABLE, now) => {
                tracing::warn!(%error, read_at = %known.read_at, "using the policy read before");
                Ok(Arc::clone(known))
            }
            answer => answer,
        }
    }
}

/// A policy of which every target can be reached from `home`.
fn within_reach<A: Action>(suite: &Suite, home: &Home, policy: Arc<Loaded<A>>) -> Read<A> {
    let Settings {
        policy_parameter,
        local,
        ..
    } = &suite.settings;
    // Under `sam local invoke` the function's own ARN names an account that is nobody's.
    if !local {
        policy.document.check_reach(policy_parameter, home)?;
    }
    Ok(policy)
}

/// Whether a policy is read again for an event: it may have been changed before the alarm did.
fn is_due(read_at: DateTime<Utc>, event_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    read_at <= event_at || now - read_at >= FRESH
}

/// Whether a policy that lists nothing for an event may still be judged by: it was read after the event for certain,
/// whichever clock is ahead.
pub(super) fn suffices(read_at: DateTime<Utc>, event_at: DateTime<Utc>) -> bool {
    read_at > event_at + SKEW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_again_when_it_may_be_older_than_the_event_or_is_old() {
        let at = |second| DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        let cases = [
            (at(10), at(5), at(11), false),
            (at(10), at(10), at(11), true),
            (at(10), at(12), at(13), true),
            (at(10), at(5), at(69), false),
            (at(10), at(5), at(70), true),
        ];
        for (read_at, event_at, now, due) in cases {
            assert_eq!(
                is_due(read_at, event_at, now),
                due,
                "{read_at} {event_at} {now}"
            );
        }
        assert!(!suffices(at(10), at(12)) && !suffices(at(10), at(5)) && suffices(at(11), at(5)));
    }
}
