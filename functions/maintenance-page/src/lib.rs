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
use crate::probe::Probe;

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

    /// Whether clients see the page of the incident in time.
    async fn shows(&self, plan: &Plan, work: &Work<'_>) -> bool {
        let until = (work.clock.now() + SHOWS_WITHIN).min(work.deadline);
        loop {
            match self.probe.fetch(&plan.url).await {
                Ok(seen) if seen.is_page_of(&plan.notice.incident) => return true,
                Ok(seen) => tracing::info!(?seen, "the page does not show yet"),
                Err(error) => tracing::info!(%error, "the page does not show yet"),
            }
            if work.clock.now() >= until {
                return false;
            }
            tokio::time::sleep(LOOKS_EVERY).await;
        }
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
        let now = work.clock.now();
        if now >= work.deadline.min(permit.held_until()) {
            let end = End::Failed {
                error: "no time was left to put the page up in".to_owned(),
                retryable: true,
            };
            return Ok(Done::new(end, "nothing was changed"));
        }
        if Box::pin(self.aws.raise(action, plan)).await? == Moved::Overtaken {
            let reason = format!("{} was changed by another hand", action.resource());
            return Ok(Done::new(End::Overtaken { reason }, "nothing was changed"));
        }
        let end = if self.shows(plan, work).await {
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

impl MaintenancePage {
    /// What clients see once the page is down.
    async fn service_again(&self, action: &Page, work: &Work<'_>) -> String {
        let until = (work.clock.now() + SHOWS_WITHIN).min(work.deadline);
        loop {
            let told = match self.probe.fetch(&action.url).await {
                Ok(seen) if seen.incident.is_none() => {
                    return format!("the page is down; {} answers {}", action.url, seen.status);
                }
                Ok(_) => format!("{} still shows it", action.url),
                Err(error) => error.to_string(),
            };
            if work.clock.now() >= until {
                return format!("the page was taken down, and {told}");
            }
            tokio::time::sleep(LOOKS_EVERY).await;
        }
    }
}
