//! Puts a maintenance page before a service while an outage lasts, and takes it down afterwards.
//!
//! The story of a run: [`aws`] looks at what is in front of the service, [`plan`] decides whether a page goes up and
//! what it says, [`aws`] puts it up, [`probe`] sees it as a client does, and [`plan::lowering`] says what comes down.

pub mod aws;
pub mod error;
pub mod plan;
pub mod policy;
pub mod probe;

use std::time::Duration;

use aws_config::SdkConfig;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use shared::alarm::AlarmEvent;
use shared::guard::Permit;
use shared::policy::Action as _;
use shared::remediation::{
    Done, End, Moment, Planned, Remediation, Reverted, Temporary, Verified, Work,
};

use crate::aws::{Aws, Moved};
use crate::error::PageError;
use crate::plan::{Lowering, Observed, Plan};
use crate::policy::{Page, Raise};
use crate::probe::{Probe, Seen};

/// The remediation's name.
pub const NAME: &str = "maintenance-page";

/// A change reaches the edge within seconds; what takes longer is looked at on the schedule.
const SHOWS_WITHIN: TimeDelta = TimeDelta::seconds(15);
const LOOKS_EVERY: Duration = Duration::from_secs(1);
/// How often taking the page down starts over because something else changed.
const ATTEMPTS: usize = 3;

/// The remediation.
#[derive(Debug)]
pub struct MaintenancePage {
    aws: Aws,
    probe: Probe,
}

impl MaintenancePage {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            aws: Aws::new(config),
            probe: Probe::default(),
        }
    }

    /// Fetches an address until a client sees there what is `wanted`, or time is up; gives the last answer.
    async fn last_seen(
        &self,
        url: &str,
        work: &Work<'_>,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Result<Seen, PageError> {
        let until = (work.clock.now() + SHOWS_WITHIN).min(work.deadline);
        loop {
            let seen = self.probe.fetch(url).await;
            if seen.as_ref().is_ok_and(&wanted) || work.clock.now() >= until {
                return seen;
            }
            tracing::info!(?seen, "not yet as it was put");
            tokio::time::sleep(LOOKS_EVERY).await;
        }
    }

    /// What clients see once the page is down.
    async fn service_again(&self, action: &Page, work: &Work<'_>) -> String {
        let url = &action.url;
        let is_service = |seen: &Seen| seen.incident.is_none();
        let told = match self.last_seen(url, work, is_service).await {
            Ok(seen) if is_service(&seen) => {
                return format!("the page is down; {url} answers {}", seen.status);
            }
            Ok(_) => format!("{url} still shows it"),
            Err(error) => error.to_string(),
        };
        format!("the page was taken down, and {told}")
    }
}

impl Remediation for MaintenancePage {
    const NAME: &'static str = NAME;
    type Action = Page;
    type Observed = Observed;
    type Plan = Plan;
    type Error = PageError;

    fn temporary(action: &Page) -> Option<Temporary> {
        Some(action.term.temporary())
    }

    fn needs_approval(action: &Page) -> bool {
        action.raise == Raise::WithApproval
    }

    async fn observe(
        &self,
        action: &Page,
        _event: Option<&AlarmEvent>,
        now: DateTime<Utc>,
    ) -> Result<Observed, PageError> {
        let observed = Box::pin(self.aws.look(action)).await?;
        Ok(observed.at(now))
    }

    fn plan(observed: &Observed, action: &Page, moment: &Moment<'_>) -> Planned<Plan> {
        plan::plan(observed, action, moment)
    }

    async fn apply(
        &self,
        permit: &Permit,
        plan: &Plan,
        action: &Page,
        work: &Work<'_>,
    ) -> Result<Done, PageError> {
        if let Some(too_late) = work.too_late(permit, "put the page up") {
            return Ok(too_late);
        }
        if Box::pin(self.aws.raise(action, plan)).await? == Moved::Overtaken {
            let reason = format!("{} was changed by another hand", action.resource());
            return Ok(Done::new(End::Overtaken { reason }, "nothing was changed"));
        }
        let is_up = |seen: &Seen| seen.is_page_of(&plan.notice.incident);
        let seen = self.last_seen(&plan.url, work, is_up).await;
        let end = if seen.is_ok_and(|seen| is_up(&seen)) {
            End::Finished
        } else {
            End::Settling {
                reason: format!("{} does not show it yet", plan.url),
                check_again_at: work.clock.now() + TimeDelta::minutes(1),
            }
        };
        Ok(Done {
            evidence: json!({"notice": plan.notice, "routes": plan.routes}),
            ..Done::new(end, format!("the page is up for {}", plan.notice.incident))
        })
    }

    async fn verify(&self, plan: &Plan, _done: &Done) -> Result<Verified, PageError> {
        let seen = self.probe.fetch(&plan.url).await?;
        let holds = seen.is_page_of(&plan.notice.incident);
        let shown = if holds {
            "the page"
        } else {
            "and not with the page"
        };
        Ok(Verified {
            holds,
            summary: format!("{} answers {} with {shown}", plan.url, seen.status),
        })
    }

    async fn revert(
        &self,
        _permit: &Permit,
        snapshot: &Value,
        action: &Page,
        work: &Work<'_>,
    ) -> Result<Reverted, PageError> {
        let unreadable = || PageError::Unreadable {
            subject: action.resource().to_owned(),
        };
        let snapshot = plan::snapshot(snapshot).ok_or_else(unreadable)?;
        let action = &snapshot.put_under(action);
        for _ in 0..ATTEMPTS {
            let observed = Box::pin(self.aws.look(action)).await?;
            let summary = match plan::lowering(&observed, &snapshot) {
                Lowering::Down => "the page was down already".to_owned(),
                Lowering::LeftAlone(what) => format!("left alone: {what}"),
                Lowering::TakeDown => {
                    match Box::pin(self.aws.lower(action, &observed, &snapshot)).await? {
                        Moved::There => self.service_again(action, work).await,
                        Moved::Overtaken => continue,
                    }
                }
            };
            return Ok(Reverted {
                evidence: json!({"notice": observed.notice, "route": observed.route}),
                summary,
            });
        }
        Err(PageError::Contended {
            subject: action.resource().to_owned(),
        })
    }
}
