//! Puts a maintenance page before a service while an outage lasts, and takes it down afterwards.
//!
//! The story of a run: [`aws`] looks at what is in front of the service, [`in_force`] tells whether a page there would be
//! seen, [`plan`] decides whether one goes up and what it says, [`aws`] puts it up, [`probe`] sees it as a client does,
//! and [`plan::lowering`] says what comes down.

pub mod aws;
pub mod error;
pub mod in_force;
pub mod plan;
pub mod policy;
pub mod probe;
pub mod wording;

use std::time::Duration;

use aws_config::SdkConfig;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use shared::alarm::AlarmEvent;
use shared::policy::{Action as _, Temporary};
use shared::remediation::{
    Done, End, InPlace, Moment, Never, OneRound, PlannedBy, Remediation, Reversal, Reverted,
    Unlearning, Verified, Work,
};

use crate::aws::{Aws, Moved};
use crate::error::PageError;
use crate::plan::{Lowering, Notice, Observed, Plan, Route, Routes, Snapshot};
use crate::policy::{Front, Page, Raise};
use crate::probe::{Probe, Seen};

/// The remediation's name.
pub const NAME: &str = "maintenance-page";

/// A change reaches the edge within seconds; what takes longer is looked at on the schedule.
const SHOWS_WITHIN: TimeDelta = TimeDelta::seconds(15);
const LOOKS_EVERY: Duration = Duration::from_secs(1);

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

    /// Fetches an address until a client sees there what is `wanted`, or time is up; gives the last answer. What cannot be
    /// seen from here is looked for once.
    async fn last_seen(
        &self,
        url: &str,
        unseen: Option<&str>,
        work: &Work<'_, Self>,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Result<Seen, PageError> {
        let patience = unseen.map_or(SHOWS_WITHIN, |_| TimeDelta::zero());
        let by = work.now() + patience;
        loop {
            let seen = self.probe.fetch(url).await;
            if seen.as_ref().is_ok_and(&wanted) || work.now() >= by.min(work.until()) {
                return seen;
            }
            tracing::info!(?seen, "not yet as it was put");
            tokio::time::sleep(LOOKS_EVERY).await;
        }
    }

    /// What clients see once the page is down.
    async fn service_again(
        &self,
        action: &Page,
        unseen: Option<&str>,
        work: &Work<'_, Self>,
    ) -> String {
        let url = &action.url;
        let is_service = |seen: &Seen| seen.incident.is_none();
        let told = match self.last_seen(url, unseen, work, is_service).await {
            Ok(seen) if is_service(&seen) => {
                return match unseen {
                    None => format!("the page is down; {}", seen.of_the_service(url)),
                    Some(why) => format!(
                        "the page is down; what {url} answers to its clients cannot be seen from here: {why} (it answers this function {})",
                        seen.status
                    ),
                };
            }
            Ok(_) => format!("{url} still shows it"),
            Err(error) => match unseen {
                None => error.to_string(),
                Some(why) => format!(
                    "what {url} answers to its clients cannot be seen from here: {why} ({error})"
                ),
            },
        };
        format!("the page was taken down, and {told}")
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Evidence {
    /// The page was put up.
    Up {
        /// What it says.
        notice: Notice,
        /// Where the domain leads before, and with the page; `None` for a distribution.
        routes: Option<Routes>,
    },
    /// The page was to be taken down.
    Down {
        /// The page that was up, if one was.
        notice: Option<Notice>,
        /// Where the domain led then; `None` for a distribution.
        route: Option<Route>,
        /// What is in another hand, and was left alone.
        #[serde(skip_serializing_if = "Option::is_none")]
        left_alone: Option<String>,
    },
}

impl Remediation for MaintenancePage {
    const NAME: &'static str = NAME;
    type Action = Page;
    type Observed = Observed;
    type Plan = Plan;
    type Evidence = Evidence;
    type Memory = Never;
    type Reversal = Self;
    type Learning = Unlearning;
    type Rounds = OneRound;
    type Error = PageError;

    const MOMENTARY: &'static [&'static str] =
        &["version", "until", "estimated_end", "unseen", "notes"];

    fn needs_approval(action: &Page) -> bool {
        action.raise == Raise::WithApproval
    }

    async fn observe(
        &self,
        action: &Page,
        _event: Option<&AlarmEvent>,
        now: DateTime<Utc>,
    ) -> Result<Observed, PageError> {
        let observed = Box::pin(self.aws.survey(action)).await?;
        Ok(observed.at(now))
    }

    fn plan(observed: &Observed, action: &Page, moment: &Moment<'_, Self>) -> PlannedBy<Self> {
        plan::plan(observed, action, moment)
    }

    async fn apply(
        &self,
        plan: &Plan,
        action: &Page,
        work: &Work<'_, Self>,
    ) -> Result<Done<Self>, PageError> {
        if Box::pin(self.aws.raise(action, plan, work)).await? == Moved::Overtaken {
            let reason = format!("{} was changed by another hand", action.resource());
            return Ok(Done::new(End::Overtaken { reason }, "nothing was changed"));
        }
        let is_up = |seen: &Seen| plan.is_shown(seen);
        let settling = |reason| End::Settling {
            reason,
            check_again_at: work.now() + TimeDelta::minutes(1),
        };
        let unseen = plan.unseen.as_deref();
        let end = match self.last_seen(&plan.url, unseen, work, is_up).await {
            Ok(seen) if is_up(&seen) => End::Finished,
            Ok(seen) => settling(plan.instead(&seen)),
            Err(error) => settling(plan.out_of_sight(&error)),
        };
        Ok(Done {
            evidence: Some(Evidence::Up {
                notice: plan.announced(),
                routes: plan.routes.clone(),
            }),
            notes: plan.notes.clone(),
            ..Done::new(end, plan.summary())
        })
    }

    async fn verify(
        &self,
        plan: &Plan,
        _evidence: Option<&Evidence>,
    ) -> Result<Verified, PageError> {
        let seen = match self.probe.fetch(&plan.url).await {
            Ok(seen) => seen,
            Err(error) if plan.unseen.is_some() => {
                return Ok(Verified {
                    holds: false,
                    summary: plan.out_of_sight(&error),
                });
            }
            Err(error) => return Err(error),
        };
        let holds = plan.is_shown(&seen);
        let summary = if holds {
            format!("{} answers {} with the page", plan.url, seen.status)
        } else {
            plan.instead(&seen)
        };
        Ok(Verified { holds, summary })
    }
}

impl Reversal<Self> for MaintenancePage {
    type Snapshot = Snapshot;

    fn term(action: &Page) -> Option<Temporary> {
        Some(action.term.temporary())
    }

    fn ends_by_itself(action: &Page) -> bool {
        match &action.front {
            Front::Cloudfront(_) => true,
            Front::ApiGateway(mapping) => mapping.end_machine.is_some(),
        }
    }

    const FOLLOWS_ITS_POLICY: bool = true;

    async fn update(
        remediation: &Self,
        in_place: &InPlace<Snapshot>,
        (before, now): (&Page, &Page),
        work: &Work<'_, Self>,
    ) -> Result<Option<String>, PageError> {
        let aws = &remediation.aws;
        let action = &in_place.snapshot.put_under(now);
        let observed = Box::pin(aws.look(action)).await?;
        let Some(notice) = observed.notice.as_ref().filter(|it| it.by == plan::BY) else {
            return Ok(None);
        };
        let Some(wanted) = plan::reworded(notice, (before, now), in_place.taken_at) else {
            return Ok(None);
        };
        let reworded = wanted != *notice;
        if reworded {
            let contended = || PageError::Contended {
                subject: action.resource().to_owned(),
            };
            if Box::pin(aws.reword(action, &observed, &wanted, work)).await? == Moved::Overtaken {
                return Err(contended());
            }
            let read_back = Box::pin(aws.look(action)).await?;
            if read_back.notice.as_ref() != Some(&wanted) {
                return Err(contended());
            }
        }
        let told = match (plan::says(&wanted, now), reworded) {
            (true, _) => "the page says what the policy has it say by now; read back",
            (false, true) => {
                "the page says what the policy has it say by now, but for what was changed by hand; read back"
            }
            (false, false) => return Ok(None),
        };
        Ok(Some(told.to_owned()))
    }

    async fn revert(
        remediation: &Self,
        snapshot: &Snapshot,
        action: &Page,
        work: &Work<'_, Self>,
    ) -> Result<Reverted<Evidence>, PageError> {
        let aws = &remediation.aws;
        let action = &snapshot.put_under(action);
        let observed = Box::pin(aws.look(action)).await?;
        let mut left_alone = None;
        let summary = match plan::lowering(&observed, snapshot) {
            Lowering::Down => {
                aws.forget(action, work).await?;
                "the page was down already".to_owned()
            }
            Lowering::LeftAlone(what) => {
                let summary = format!("left alone: {what}");
                left_alone = Some(what);
                summary
            }
            Lowering::TakeDown => {
                match Box::pin(aws.lower(action, &observed, snapshot, work)).await? {
                    Moved::There => {
                        let unseen = snapshot.unseen.as_deref();
                        remediation.service_again(action, unseen, work).await
                    }
                    Moved::Overtaken => {
                        return Err(PageError::Contended {
                            subject: action.resource().to_owned(),
                        });
                    }
                }
            }
        };
        Ok(Reverted {
            evidence: Some(Evidence::Down {
                notice: observed.notice,
                route: observed.route,
                left_alone,
            }),
            summary,
        })
    }

    fn handed_over(reverted: &Reverted<Evidence>) -> Option<String> {
        match &reverted.evidence {
            Some(Evidence::Down {
                left_alone: Some(what),
                ..
            }) => Some(format!(
                "left alone: {what}; it was not taken down, and nothing here takes it down any more"
            )),
            _ => None,
        }
    }

    async fn reverted(
        remediation: &Self,
        snapshot: &Snapshot,
        action: &Page,
    ) -> Result<Verified, PageError> {
        let action = &snapshot.put_under(action);
        let observed = Box::pin(remediation.aws.look(action)).await?;
        let (holds, summary) = match plan::lowering(&observed, snapshot) {
            Lowering::Down => (true, "read back: the page is down".to_owned()),
            Lowering::LeftAlone(what) => (true, format!("read back: not ours is {what}")),
            Lowering::TakeDown => (false, "read back: the page is still up".to_owned()),
        };
        Ok(Verified { holds, summary })
    }
}
