//! Taking back what is due, and telling a human where that cannot be.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::guard::{duty, next};
use crate::ledger::difference::Commit;
use crate::ledger::items::{self, Facts, Place, Snapshot, Standing};
use crate::ledger::timeline::{Entry, Kind};
use crate::outcome::{Outcome, Report, Rule};
use crate::policy::Action as _;
use crate::remediation::Remediation;
use crate::runtime::engine::Runtime;
use crate::runtime::invocation::Invocation;
use crate::runtime::job::{Ran, Run};
use crate::runtime::look::{Look, Tended};

impl<R: Remediation> Runtime<R> {
    /// Takes back what is due; where that cannot be, a human is told.
    pub(super) async fn take_back_due(
        &self,
        look: &Look<'_, R::Action>,
        tended: &Tended<R::Action>,
        facts: &Facts,
        due_at: DateTime<Utc>,
    ) -> Option<Report> {
        let snapshot = facts.snapshot()?.clone();
        let switches = match self.suite.ledger.switches().await {
            Ok(switches) => switches,
            Err(error) => return Some(Self::target_failed(tended, &error, error.is_transient())),
        };
        let resource = tended.target.action.resource();
        let hindrance = match switches.engaged(R::NAME, resource) {
            Some(engaged) => Some(format!(
                "a kill switch forbids it{}",
                engaged
                    .reason
                    .map(|why| format!(": {why}"))
                    .unwrap_or_default()
            )),
            None if self.suite.settings.dry_run => {
                Some("the function takes nothing back while DryRun is on".to_owned())
            }
            None => None,
        };
        if let Some(hindrance) = hindrance {
            let hindrance = format!("was not: {hindrance}");
            return self
                .overdue(look, tended, facts, (&snapshot, due_at), &hindrance)
                .await;
        }
        let run = self.behalf(
            look,
            tended,
            &snapshot.event,
            items::transition(&snapshot.event),
        );
        let reads = self.reads_of(look, &run, &tended.alarms);
        let told = match Box::pin(self.take_back(&run, &snapshot, &reads)).await {
            Ran::Reported(told) => told,
            Ran::Left | Ran::PolicyChanged(_) => return None,
        };
        self.tell(&told, &snapshot.event.alarm_arn).await;
        if let Outcome::Failed { error, .. } = &told.report.outcome {
            // It may be taken back although that could not be read, or not be written down.
            let hindrance = format!("is not known to be taken back: {error}");
            if let Ok(facts) = self.suite.ledger.look(R::NAME, resource).await {
                self.overdue(look, tended, &facts, (&snapshot, due_at), &hindrance)
                    .await;
            }
        }
        Some(told.report)
    }

    /// Tells a human that what fell due stands, once and then every hour.
    async fn overdue(
        &self,
        look: &Look<'_, R::Action>,
        tended: &Tended<R::Action>,
        facts: &Facts,
        (snapshot, due_at): (&Snapshot, DateTime<Utc>),
        hindrance: &str,
    ) -> Option<Report> {
        let now = self.suite.clock.now();
        let same = |found: &Snapshot| found.taken_at == snapshot.taken_at;
        // Whoever holds the target by now looks after it.
        if duty::is_held(facts, now)
            || !facts.snapshot().is_some_and(same)
            || !duty::is_to_be_told(facts, now)
        {
            return None;
        }
        let place = self.behalf(look, tended, &snapshot.event, items::restoration(snapshot));
        let reason = format!(
            "the change of {} to {} was to be taken back at {}, and {hindrance}",
            snapshot.run_id,
            tended.target.action.resource(),
            crate::guard::decide::time(due_at)
        );
        let report = Report {
            incident_id: Some(snapshot.incident_id.clone()),
            ..place.report(Outcome::Escalated {
                rule: Rule::Overdue,
                reason,
            })
        };
        let after = next::told(facts, now);
        self.tell_of(tended, (facts, &after), &place, report).await
    }

    /// Tells humans, once for each end, that what is in place ends although the alarm stays.
    pub(super) async fn forewarn(
        &self,
        look: &Look<'_, R::Action>,
        tended: &Tended<R::Action>,
        facts: &Facts,
        (end, in_alarm): (DateTime<Utc>, &[String]),
    ) -> Option<Report> {
        let snapshot = facts.snapshot()?;
        let run = self.behalf(look, tended, &snapshot.event, items::restoration(snapshot));
        let remedy = if snapshot.ends_by_itself_at.is_some() {
            "it ends by itself then, whatever the policy says by now"
        } else {
            "or let the policy keep it longer"
        };
        let reason = format!(
            "what {} put in place on {} is taken back at {}, and {} is still in ALARM: mend the cause, {remedy}",
            snapshot.run_id,
            tended.target.action.resource(),
            crate::guard::decide::time(end),
            in_alarm.join(", ")
        );
        let report = Report {
            incident_id: Some(snapshot.incident_id.clone()),
            ..run.report(Outcome::Escalated {
                rule: Rule::TermEndsSoon,
                reason,
            })
        };
        let mut after = facts.clone();
        if let Some(standing) = &mut after.standing
            && let Some(snapshot) = &mut standing.snapshot
        {
            standing.version += 1;
            snapshot.forewarned = Some(end);
        }
        self.tell_of(tended, (facts, &after), &run, report).await
    }

    /// Writes an escalation about what is in place, and tells it; whoever was first looks after it.
    async fn tell_of(
        &self,
        tended: &Tended<R::Action>,
        (before, after): (&Facts, &Facts),
        run: &Run<'_, R>,
        report: Report,
    ) -> Option<Report> {
        let entry = Entry {
            kind: Kind::Escalated,
            summary: report.outcome.reason().to_owned(),
            detail: Value::Null,
        };
        let commit = Commit {
            place: &run.place,
            before,
            after,
            incident_id: report.incident_id.as_deref().unwrap_or_default(),
            entries: std::slice::from_ref(&entry),
            told: Some(&report),
            watch: None,
        };
        let told = self.write_and_tell(&commit).await;
        told.unwrap_or_else(|error| Some(Self::target_failed(tended, &error, error.is_transient())))
    }

    /// What stands on a target that this release cannot read is told, and left to the release that wrote it.
    pub(super) async fn unreadable_target(
        &self,
        standing: &Standing,
        invocation: &Invocation,
    ) -> Option<Report> {
        let Some(snapshot) = &standing.snapshot else {
            return None;
        };
        let now = self.suite.clock.now();
        let facts = self
            .suite
            .ledger
            .look(R::NAME, &standing.resource)
            .await
            .ok()?;
        if duty::is_held(&facts, now) || !duty::is_to_be_told(&facts, now) {
            return None;
        }
        let place = Place {
            remediation: R::NAME,
            target: &standing.target,
            resource: &standing.resource,
            event: &snapshot.event,
            transition: items::restoration(snapshot),
            request_id: &invocation.request_id,
        };
        let outcome = Outcome::Escalated {
            rule: Rule::Overdue,
            reason: format!(
                "what {} put in place on {} cannot be looked after: the ledger keeps its target in a form that this release does not read; take it back by hand, or with the release that wrote it",
                snapshot.run_id, standing.resource
            ),
        };
        let report = Report {
            incident_id: Some(snapshot.incident_id.clone()),
            causation_id: Some(place.run_id()),
            ..Report::new(R::NAME, &standing.target, &standing.resource, outcome)
        };
        let after = next::told(&facts, now);
        let commit = Commit {
            place: &place,
            before: &facts,
            after: &after,
            incident_id: &snapshot.incident_id,
            entries: &[],
            told: Some(&report),
            watch: None,
        };
        self.write_and_tell(&commit).await.ok()?
    }
}
