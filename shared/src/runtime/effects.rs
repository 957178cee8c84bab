//! Looking again at what was done: whether its alarm is better off, and taking back what made it worse.

use chrono::{DateTime, Utc};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;

use crate::alarm::{AlarmEvent, State};
use crate::guard::duty;
use crate::guard::effect::{self, Effect, Told as Measured};
use crate::ledger::LedgerError;
use crate::ledger::difference::{Commit, Watching};
use crate::ledger::items::{self, Facts, Place, Watch};
use crate::ledger::permit::Permit;
use crate::ledger::timeline::{Entry, Kind};
use crate::outcome::{Outcome, Report, Rule};
use crate::policy::Action as _;
use crate::remediation::Remediation;
use crate::runtime::engine::Runtime;
use crate::runtime::job::{Run, SIDE_BY_SIDE};
use crate::runtime::look::Look;

/// The watch that begins where a mitigation for an alarm is in place.
pub(super) fn begins<R: Remediation>(
    run: &Run<'_, R>,
    permit: &Permit,
    report: &Report,
    now: DateTime<Utc>,
) -> Option<Watch> {
    let applied = matches!(report.outcome, Outcome::Applied { .. });
    let record = permit.facts().record;
    (applied && run.place.event.state == State::Alarm).then(|| Watch {
        run_id: permit.run_id.clone(),
        incident_id: permit.incident_id.clone(),
        target: run.place.target.to_owned(),
        resource: run.place.resource.to_owned(),
        event: run.place.event.clone(),
        started_at: record.map_or(run.began, |record| record.started_at),
        done_at: now,
    })
}

impl<R: Remediation> Runtime<R> {
    /// Looks at the effects that are still to be seen; gives how many looks failed, and what people are told.
    pub(super) async fn look_at_effects(
        &self,
        look: &Look<'_, R::Action>,
        watches: &[Watch],
        last_start: DateTime<Utc>,
    ) -> (usize, Vec<Report>) {
        let mut left = watches.iter();
        let mut running = FuturesUnordered::new();
        let mut failures = 0;
        let mut reports = Vec::new();
        loop {
            while running.len() < SIDE_BY_SIDE
                && self.suite.clock.now() < last_start
                && let Some(watch) = left.next()
            {
                running.push(Box::pin(self.look_at_effect(look, watch)));
            }
            match running.next().await {
                None => return (failures, reports),
                Some(Ok(report)) => reports.extend(report),
                Some(Err(error)) => {
                    failures += 1;
                    tracing::error!(%error, "whether what was done helped was not written down");
                }
            }
        }
    }

    async fn look_at_effect(
        &self,
        look: &Look<'_, R::Action>,
        watch: &Watch,
    ) -> Result<Option<Report>, LedgerError> {
        let now = self.suite.clock.now();
        let live = look.live.get(&watch.event.alarm_arn).copied();
        let effect = match effect::by_state(watch, live, now) {
            Effect::Measure => match self.measured(watch, now).await {
                Some(measured) => effect::by_metric(watch, &measured, now),
                None => Effect::Early,
            },
            effect => effect,
        };
        let effect = if R::Action::TURNS_REQUESTS_AWAY {
            effect.of_few_requests()
        } else {
            effect
        };
        match effect {
            Effect::Early | Effect::Measure => Ok(None),
            Effect::Unasked => {
                let nothing = Facts::default();
                self.seen(look, watch, (&nothing, &nothing), &[], None)
                    .await
            }
            Effect::Known {
                kind: Kind::Worse,
                reason,
            } => self.worse(look, watch, reason).await,
            Effect::Known { kind, reason } => {
                let nothing = Facts::default();
                let told = line(kind, &reason);
                self.seen(look, watch, (&nothing, &nothing), &[told], None)
                    .await
            }
        }
    }

    /// How the alarm's metric went; `None` where another look may tell.
    async fn measured(&self, watch: &Watch, now: DateTime<Utc>) -> Option<Measured> {
        let AlarmEvent {
            region, alarm_name, ..
        } = &watch.event;
        let outside = &self.suite.outside;
        let since = watch.started_at;
        match outside.course(region, alarm_name, since, now).await {
            Ok(measured) => Some(measured),
            Err(error) if error.is_transient() && !effect::is_late(watch, now) => {
                tracing::warn!(%error, "the alarm's metric is read at the next look");
                None
            }
            Err(error) => Some(Measured::Nothing(format!(
                "its metric cannot be read: {error}"
            ))),
        }
    }

    /// Tells people that the alarm is worse off, and lets what is in place end where the policy wants that.
    async fn worse(
        &self,
        look: &Look<'_, R::Action>,
        watch: &Watch,
        why: String,
    ) -> Result<Option<Report>, LedgerError> {
        let now = self.suite.clock.now();
        let facts = self.suite.ledger.look(R::NAME, &watch.resource).await?;
        // Whoever holds the target is about to change what is judged here.
        if duty::is_held(&facts, now) {
            return Ok(None);
        }
        // Whether it is to be taken back, the policy tells.
        let policy = look.policy.as_ref();
        if policy.is_none() && !effect::is_late(watch, now) {
            return Ok(None);
        }
        let target = policy.and_then(|policy| {
            let mut targets = policy.document.targets.iter();
            targets.find(|target| target.action.resource() == watch.resource)
        });
        let undo = target.is_some_and(|target| target.guard.undo_if_worse);
        let mut after = facts.clone();
        let own = after.standing.as_mut().filter(|standing| {
            let snapshot = standing.snapshot.as_ref();
            undo && snapshot.is_some_and(|snapshot| snapshot.run_id == watch.run_id)
        });
        let undone = own.is_some();
        if let Some(standing) = own {
            standing.version += 1;
            if let Some(snapshot) = &mut standing.snapshot {
                snapshot.cut_short = Some(now);
            }
        }
        let remedy = match facts.snapshot() {
            Some(_) if undone => "what is in place is taken back",
            Some(snapshot) if snapshot.run_id != watch.run_id => {
                "another run has it by now: take it back by hand if it is the cause"
            }
            Some(_) if policy.is_none() => {
                "what is in place stays, since the policy cannot be read: take it back by hand if it is the cause"
            }
            Some(_) if target.is_none() => {
                "what is in place stays for its term, since the policy names it no more: take it back by hand if it is the cause"
            }
            Some(_) => {
                "what is in place stays, as guard.undo_if_worse says: take it back by hand if it is the cause"
            }
            None if R::Action::TEMPORARY => "it is taken back already",
            None => "what was done stays: undo it by hand if it is the cause",
        };
        let reason = format!(
            "since {} acted on {}, {why}; {remedy}",
            watch.run_id, watch.resource
        );
        let entries = [line(Kind::Worse, &why), line(Kind::Escalated, &reason)];
        let rule = Rule::MadeWorse;
        let report = Report {
            incident_id: Some(watch.incident_id.clone()),
            causation_id: Some(watch.run_id.clone()),
            ..Report::new(
                R::NAME,
                &watch.target,
                &watch.resource,
                Outcome::Escalated { rule, reason },
            )
        };
        self.seen(look, watch, (&facts, &after), &entries, Some(report))
            .await
    }

    /// Ends a watch with what was seen; whoever was first says it.
    async fn seen(
        &self,
        look: &Look<'_, R::Action>,
        watch: &Watch,
        (before, after): (&Facts, &Facts),
        entries: &[Entry],
        report: Option<Report>,
    ) -> Result<Option<Report>, LedgerError> {
        let place = Place {
            remediation: R::NAME,
            target: &watch.target,
            resource: &watch.resource,
            event: &watch.event,
            transition: items::transition(&watch.event),
            request_id: &look.invocation.request_id,
        };
        let commit = Commit {
            place: &place,
            before,
            after,
            incident_id: &watch.incident_id,
            entries,
            told: report.as_ref(),
            watch: Some(Watching::Ends(watch)),
        };
        self.write_and_tell(&commit).await
    }
}

fn line(kind: Kind, summary: &str) -> Entry {
    Entry {
        kind,
        summary: summary.to_owned(),
        detail: Value::Null,
    }
}
