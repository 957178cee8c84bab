//! Writing what was refused: its line in the timeline, what the guard learned, and what waits.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::alarm::State;
use crate::guard::next::{self, Refused};
use crate::guard::{Occasion, Refusal};
use crate::ledger::difference::Commit;
use crate::ledger::items::{Facts, OpenBreaker, Status};
use crate::ledger::timeline::{Entry, Kind};
use crate::outcome::{Outcome, Report, Rule};
use crate::remediation::{MemoryOf, Remediation, Rounds as _, value};
use crate::runtime::engine::Runtime;
use crate::runtime::job::{Decided, Run, Told};
use crate::runtime::plan::{memory, plan_hash};

/// A run that does nothing to its target, and what it leaves in the ledger.
pub(super) struct Refusing<R: Remediation> {
    pub(super) outcome: Outcome,
    pub(super) breaker: Option<OpenBreaker>,
    pub(super) memory: Option<MemoryOf<R>>,
    /// Until when what is in place stays.
    pub(super) renewed: Option<DateTime<Utc>>,
    /// What keeps the run from acting, where time alone can lift it, and when to look again.
    pub(super) waits: Option<(Rule, DateTime<Utc>)>,
    /// Since when the alarm, read again, is at OK.
    pub(super) ok_since: Option<DateTime<Utc>>,
    pub(super) observed: Value,
    pub(super) plan: Option<Value>,
    pub(super) notes: Vec<String>,
    /// Whether the run goes on by itself, so that its end is what is told.
    pub(super) goes_on: bool,
}

impl<R: Remediation> Refusing<R> {
    pub(super) fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            breaker: None,
            memory: None,
            renewed: None,
            waits: None,
            ok_since: None,
            observed: Value::Null,
            plan: None,
            notes: Vec::new(),
            goes_on: false,
        }
    }
}

impl<R: Remediation> From<Refusal> for Refusing<R> {
    fn from(refusal: Refusal) -> Self {
        let rule = refusal.outcome.rule().unwrap_or(Rule::InProgress);
        Self {
            breaker: refusal.breaker,
            waits: refusal.look_at.map(|at| (rule, at)),
            ..Self::new(refusal.outcome)
        }
    }
}

impl<R: Remediation> Runtime<R> {
    pub(super) async fn repeat(
        &self,
        run: &Run<'_, R>,
        facts: &Facts,
        stored: Report,
    ) -> Decided<R> {
        let note = format!(
            "this transition was worked on already by {}; this delivery (request {}) did nothing",
            stored.causation_id.as_deref().unwrap_or("an earlier run"),
            run.invocation.request_id
        );
        let entry = Entry {
            kind: Kind::Duplicate,
            summary: note.clone(),
            detail: json!({"outcome": stored.outcome.name()}),
        };
        let now = self.suite.clock.now();
        let noted = Refused {
            tells: true,
            dry_run: true,
            ..Refused::default()
        };
        let after = next::refused(facts, &run.place, &noted, now);
        let commit = Commit {
            place: &run.place,
            before: facts,
            after: &after,
            incident_id: &next::incident_of(facts, &run.place, false),
            entries: std::slice::from_ref(&entry),
            told: None,
            watch: None,
        };
        match self.suite.ledger.commit(&commit, now).await {
            Ok(Some(_)) => {}
            Ok(None) => return Decided::Again,
            // The stored report is the truth whether or not this line could be written.
            Err(error) => tracing::warn!(%error, "the timeline does not show this delivery"),
        }
        Decided::Over(Box::new(Told::new(Report {
            duplicate: true,
            notes: vec![note],
            steps: Vec::new(),
            ..stored
        })))
    }

    /// Writes a refusal to the timeline, and what the guard learned from the event.
    pub(super) async fn refuse(
        &self,
        run: &Run<'_, R>,
        facts: &Facts,
        refusing: Refusing<R>,
    ) -> Decided<R> {
        let now = self.suite.clock.now();
        let restores = run.occasion == Occasion::Restoring;
        let goes_on = refusing.goes_on;
        let incident_id = next::incident_of(facts, &run.place, restores);
        let memory = match refusing
            .memory
            .or_else(|| left::<R>(facts, refusing.waits.is_some(), now))
            .map(|memory| value("memory", &memory))
        {
            None => None,
            Some(Ok(memory)) => Some(memory),
            Some(Err(error)) => return Decided::Over(run.failed(&error, false)),
        };
        let report = Report {
            incident_id: Some(incident_id.clone()),
            plan_hash: refusing.plan.as_ref().map(plan_hash::<R>),
            plan: refusing.plan,
            notes: refusing.notes,
            ..run.report(refusing.outcome)
        };
        let refused = Refused {
            report: Some(&report),
            breaker: refusing.breaker,
            memory,
            renewed: refusing.renewed,
            waits: refusing.waits,
            ok_since: refusing.ok_since,
            // A rehearsed event says nothing of the alarm.
            tells: !restores && !run.place.event.dry_run,
            dry_run: run.dry_run,
            outlasts_alarm: R::OUTLASTS_ALARM,
        };
        let after = next::refused(facts, &run.place, &refused, now);
        let again = run.occasion != Occasion::Delivered
            && refusing.waits.is_some()
            && after.waiting.as_ref().map(|waiting| waiting.rule)
                == facts.waiting.as_ref().map(|waiting| waiting.rule);
        if again && after == *facts {
            return Decided::Left;
        }
        let entry = Entry {
            kind: kind_of(&report.outcome, run.place.event.state),
            summary: report.outcome.reason().to_owned(),
            detail: json!({
                "outcome": report.outcome,
                "plan": report.plan,
                "notes": report.notes,
                "observed": refusing.observed,
                "request_id": run.invocation.request_id,
                "event": run.place.event_detail(),
            }),
        };
        let entries = std::slice::from_ref(&entry);
        let commit = Commit {
            place: &run.place,
            before: facts,
            after: &after,
            incident_id: &incident_id,
            entries: if again { &[] } else { entries },
            told: (!again && !goes_on && is_told(&report.outcome)).then_some(&report),
            watch: None,
        };
        match self.suite.ledger.commit(&commit, now).await {
            Ok(None) => Decided::Again,
            Ok(Some(_)) if again => Decided::Left,
            Ok(Some(untold)) => Decided::Over(Box::new(Told {
                untold,
                ..Told::new(report)
            })),
            Err(error) => Decided::Over(run.failed(&error, error.is_transient())),
        }
    }
}

/// What is to be remembered of a run that ends here without another word.
pub(super) fn left<R: Remediation>(
    facts: &Facts,
    passes: bool,
    now: DateTime<Utc>,
) -> Option<MemoryOf<R>> {
    let record = facts.record.as_ref()?;
    if passes || record.status == Status::Completed {
        return None;
    }
    let progress = record.progress.clone();
    let progress = progress.and_then(|progress| serde_json::from_value(progress).ok());
    R::Rounds::remembered(progress.as_ref(), memory::<R>(facts).as_ref(), now)
}

/// Whether an outcome must reach the bus even when the function dies before it is told.
fn is_told(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Skipped { .. })
}

fn kind_of(outcome: &Outcome, state: State) -> Kind {
    match outcome {
        Outcome::Escalated { .. } => Kind::Escalated,
        Outcome::AlreadyInPlace { .. } if state == State::Alarm => Kind::InPlace,
        Outcome::AlreadyInPlace { .. } => Kind::Recovered,
        Outcome::Pending { .. } => Kind::Pending,
        Outcome::Failed { .. } => Kind::Failed,
        Outcome::Skipped {
            rule: Rule::DryRun, ..
        } => Kind::DryRun,
        Outcome::Skipped { .. } | Outcome::Applied { .. } => Kind::Skipped,
    }
}
