//! What a look of the schedule goes by: the targets, as the policy has them or as the ledger keeps them, and runs on
//! their behalf.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::alarm::{self, AlarmEvent, AlarmKind, State};
use crate::guard::Occasion;
use crate::ledger::items::{AlarmState, Place, Standing, Waiting};
use crate::outcome::{Outcome, Report};
use crate::policy::{Action as _, Home, Loaded, Target};
use crate::remediation::Remediation;
use crate::runtime::alarms::{Live, Recent};
use crate::runtime::engine::Runtime;
use crate::runtime::invocation::Invocation;
use crate::runtime::job::{LEAST, RESERVE, Ran, Run};
use crate::runtime::reads::Reads;

/// A target to look at, as the policy has it or, where it has it no more, as the ledger keeps it.
pub(super) struct Tended<A> {
    pub(super) target: Target<A>,
    pub(super) alarms: Vec<String>,
    pub(super) listed: bool,
    pub(super) standing: bool,
    pub(super) waiting: Vec<Waiting>,
}

/// What one look rests on.
pub(super) struct Look<'a, A> {
    pub(super) invocation: &'a Invocation,
    pub(super) home: &'a Home,
    pub(super) policy: Option<Arc<Loaded<A>>>,
    pub(super) live: Live,
    /// The alarms that were read lately.
    pub(super) recent: Recent,
    /// What the ledger knows of the alarms that are in ALARM.
    pub(super) told: BTreeMap<String, AlarmState>,
}

impl<R: Remediation> Runtime<R> {
    /// Runs on a target as if `event` had been delivered now; `None` when there is nothing new to tell.
    pub(super) async fn on_behalf(
        &self,
        look: &Look<'_, R::Action>,
        tended: &Tended<R::Action>,
        event: &AlarmEvent,
        transition: String,
    ) -> Option<Report> {
        let run = self.behalf(look, tended, event, transition);
        let wanted = vec![event.alarm_arn.clone()];
        let reads = self.reads_of(look, &run, &wanted);
        match Box::pin(self.quietly(&run, &reads)).await {
            Ran::Reported(told) => Some(told.report),
            Ran::Left | Ran::PolicyChanged(_) => None,
        }
    }

    /// Runs, and tells the outcome unless it only says that there is still something to wait for.
    async fn quietly(&self, run: &Run<'_, R>, reads: &Reads<'_, R::Action>) -> Ran<R::Action> {
        let ran = self.decided(run, reads).await;
        if let Ran::Reported(told) = &ran {
            let still =
                matches!(told.report.outcome, Outcome::Pending { .. }) && told.untold.is_none();
            if !still {
                self.tell(told, &run.place.event.alarm_arn).await;
            }
        }
        ran
    }

    pub(super) fn behalf<'a>(
        &self,
        look: &Look<'a, R::Action>,
        tended: &'a Tended<R::Action>,
        event: &'a AlarmEvent,
        transition: String,
    ) -> Run<'a, R> {
        Run {
            place: Place {
                remediation: R::NAME,
                target: &tended.target.name,
                resource: tended.target.action.resource(),
                event,
                transition,
                request_id: &look.invocation.request_id,
            },
            target: &tended.target,
            alarms: tended.alarms.clone(),
            invocation: look.invocation,
            trigger: event.as_payload(),
            occasion: Occasion::Due,
            listed: tended.listed,
            round: None,
            dry_run: self.suite.settings.dry_run,
            began: self.suite.clock.now(),
        }
    }

    /// What a run of the schedule reads anew: alarms and switches may have changed since the look began.
    pub(super) fn reads_of<'a>(
        &'a self,
        look: &'a Look<'_, R::Action>,
        run: &Run<'_, R>,
        alarms: &[String],
    ) -> Reads<'a, R::Action> {
        let known = look.policy.clone().unwrap_or_else(|| {
            Arc::new(Loaded {
                document: crate::policy::Document {
                    version: 1,
                    targets: Vec::new(),
                },
                version: 0,
                read_at: run.began,
            })
        });
        let until = run.invocation.deadline - RESERVE - LEAST;
        Reads::new(
            (&self.suite, look.home, &self.policies),
            known,
            run.place.event.changed_at,
            alarms.iter().cloned().collect(),
            (until, &run.invocation.request_id),
        )
        .beside(&look.recent)
    }

    pub(super) fn target_failed(
        tended: &Tended<R::Action>,
        error: &dyn std::fmt::Display,
        retryable: bool,
    ) -> Report {
        tracing::error!(target = %tended.target.name, %error, "the target was not looked after");
        let outcome = Outcome::failed(error, retryable);
        let resource = tended.target.action.resource();
        Report::new(R::NAME, &tended.target.name, resource, outcome)
    }
}

/// The targets to look at, and what stands on targets that this release cannot read.
pub(super) fn tended<A: crate::policy::Action>(
    policy: Option<&Loaded<A>>,
    standing: &[Standing],
    waiting: Vec<Waiting>,
    home: &Home,
) -> (Vec<Tended<A>>, Vec<Standing>, Vec<Waiting>) {
    let mut all: BTreeMap<String, Tended<A>> = BTreeMap::new();
    let listed = policy.map(|policy| policy.document.targets.as_slice());
    for target in listed.unwrap_or_default() {
        let resource = target.action.resource().to_owned();
        all.insert(
            resource,
            Tended {
                alarms: target.alarm_arns(home),
                target: target.clone(),
                listed: true,
                standing: false,
                waiting: Vec::new(),
            },
        );
    }
    let mut strangers = Vec::new();
    for stands in standing {
        if let Some(known) = all.get_mut(&stands.resource) {
            known.standing = true;
            continue;
        }
        match serde_json::from_value::<Target<A>>(stands.policy.clone()) {
            Ok(target) => {
                let tended = Tended {
                    alarms: target.alarm_arns(home),
                    target,
                    // A policy that cannot be read says nothing of what it lists.
                    listed: policy.is_none(),
                    standing: true,
                    waiting: Vec::new(),
                };
                all.insert(stands.resource.clone(), tended);
            }
            Err(_) => strangers.push(stands.clone()),
        }
    }
    let mut orphans = Vec::new();
    for waiting in waiting {
        match all.get_mut(&waiting.resource) {
            Some(known) => known.waiting.push(waiting),
            None => orphans.push(waiting),
        }
    }
    (all.into_values().collect(), strangers, orphans)
}

/// The targets in an order that differs from look to look, so that where time is short none is always the last; those
/// for which something is known to be due come first.
pub(super) fn in_turn<A: crate::policy::Action>(
    mut tended: Vec<Tended<A>>,
    seed: &str,
) -> Vec<Tended<A>> {
    tended.sort_by_cached_key(|tended| {
        let turn = crate::ids::digest(&[seed, tended.target.action.resource()], 8);
        (tended.waiting.is_empty(), !tended.standing, turn)
    });
    tended
}

/// An alarm's change as the alarm itself tells it.
pub(super) fn seen(arn: &str, at: DateTime<Utc>) -> AlarmEvent {
    let part = |nth| arn.split(':').nth(nth).unwrap_or_default().to_owned();
    AlarmEvent {
        alarm_name: arn
            .split_once(":alarm:")
            .map_or(arn, |(_, name)| name)
            .to_owned(),
        alarm_arn: arn.to_owned(),
        account: part(4),
        region: part(3),
        state: State::Alarm,
        reason: Some("read from the alarm itself".to_owned()),
        reason_data: None,
        changed_at: at,
        previous_state: None,
        suppressed_by: None,
        kind: AlarmKind::Unknown,
        path: alarm::Path::EventBridge,
        event_id: None,
        description: None,
        dry_run: false,
        approvals: Vec::new(),
    }
}
