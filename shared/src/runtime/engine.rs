//! A remediation with all that it needs to answer events. What it does stands in the rooms around: `run` answers an
//! event, `sweep` the schedule.

use crate::remediation::Remediation;
use crate::runtime::policies::Policies;
use crate::runtime::suite::Suite;

/// A remediation with all that it needs to answer events.
pub struct Runtime<R: Remediation> {
    pub(super) suite: Suite,
    pub(super) remediation: R,
    pub(super) policies: Policies<R::Action>,
}

impl<R: Remediation> Runtime<R> {
    /// A runtime for `remediation`.
    #[must_use]
    pub fn new(suite: Suite, remediation: R) -> Self {
        Self {
            suite,
            remediation,
            policies: Policies::new(),
        }
    }

    /// Reads the policy, which puts the one cold round trip before the first event. What fails here is told when an
    /// event comes, so that the event is kept.
    pub async fn warm_up(&self) {
        self.policies.warm_up(&self.suite).await;
    }
}
