//! Writing the end of a round to the ledger, then asking for the next one where there is one.

use serde_json::{Value, json};

use crate::guard::next;
use crate::ledger::LedgerError;
use crate::ledger::difference::{Commit, Watching};
use crate::ledger::items::{Facts, Settling, Status};
use crate::ledger::permit::Permit;
use crate::ledger::store::Key;
use crate::ledger::timeline::{Entry, Kind};
use crate::outcome::{Outcome, Report};
use crate::remediation::{Done, ProgressOf, Remediation, Rounds as _, Verified, value};
use crate::runtime::effects;
use crate::runtime::engine::Runtime;
use crate::runtime::job::{Run, Told};
use crate::runtime::judge::Judged;

impl<R: Remediation> Runtime<R> {
    /// Writes the end of a round, and asks for the next.
    pub(super) async fn conclude(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        (done, verified): (Done<R>, Option<Verified>),
        judged: Judged<ProgressOf<R>>,
        report: Report,
    ) -> Told {
        let memory = done.memory.as_ref().map(|memory| value("memory", memory));
        let progress = judged.progress.as_ref();
        let progress = progress.map(|progress| value("progress", progress));
        let (memory, progress) = match (memory.transpose(), progress.transpose()) {
            (Ok(memory), Ok(progress)) => (memory, progress),
            (Err(error), _) | (_, Err(error)) => return Told::new(unwritten(report, &error)),
        };
        let settles = judged.status == Status::Settling;
        let applied = matches!(report.outcome, Outcome::Applied { .. });
        let end = next::End {
            status: judged.status,
            report: &report,
            progress: progress.or_else(|| saved(permit)),
            memory,
            breaker: done.breaker.clone(),
            continues_by: judged.continues_by,
            restored: judged.spare_snapshot,
            put_in_place: run.temporary().filter(|_| settles || applied),
            settling: settles.then(|| Settling {
                run_id: permit.run_id.clone(),
                transition: run.place.transition.clone(),
                event: run.place.event.clone(),
                since: self.suite.clock.now(),
                plan: report.plan.clone().unwrap_or(Value::Null),
            }),
        };
        let entries = entries(&done, verified, &report);
        let untold = match self.finish(run, permit, &end, &entries).await {
            Ok(untold) => untold,
            Err(error) => return Told::new(unwritten(report, &error)),
        };
        let told = Told {
            untold,
            ..Told::new(report)
        };
        match judged.progress {
            Some(progress) if judged.carries_on => {
                self.carry_on(run, permit, &progress, told).await
            }
            _ => told,
        }
    }

    pub(super) async fn finish(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        end: &next::End<'_>,
        entries: &[Entry],
    ) -> Result<Option<Key>, LedgerError> {
        let now = self.suite.clock.now();
        let watch = effects::begins(run, permit, end.report, now);
        let before: Facts = permit.facts();
        let after = next::finished(&before, run.place.event, end, now);
        let commit = Commit {
            place: &run.place,
            before: &before,
            after: &after,
            incident_id: &permit.incident_id,
            entries,
            told: Some(end.report),
            watch: watch
                .as_ref()
                .filter(|_| !end.restored)
                .map(Watching::Begins),
        };
        self.suite.ledger.finish(permit, &commit, now).await
    }

    async fn carry_on(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        progress: &ProgressOf<R>,
        told: Told,
    ) -> Told {
        let round = permit.facts().record.map_or(1, |record| record.round);
        let payload = run.continuation(Some(round + 1));
        let function = &run.invocation.function_arn;
        let asked = R::Rounds::carry_on(&self.remediation, progress, function, &payload).await;
        let Err(error) = asked else { return told };
        // The record says where to go on: Lambda delivers the event again, and else the schedule takes it up.
        let outcome = Outcome::failed(
            &format!("the next round could not be asked for: {error}"),
            true,
        );
        let report = Report {
            outcome,
            ..told.report
        };
        Told { report, ..told }
    }
}

/// What the last attempt saved on its way.
fn saved(permit: &Permit) -> Option<Value> {
    permit.facts().record.and_then(|record| record.progress)
}

fn entries<R: Remediation>(
    done: &Done<R>,
    verified: Option<Verified>,
    report: &Report,
) -> Vec<Entry> {
    let kind = match &report.outcome {
        Outcome::Applied { .. } => Kind::Applied,
        Outcome::Pending { .. } => Kind::Pending,
        Outcome::Escalated { .. } => Kind::Escalated,
        Outcome::Skipped { .. } => Kind::Skipped,
        Outcome::AlreadyInPlace { .. } | Outcome::Failed { .. } => Kind::Failed,
    };
    let mut entries = done.entries.clone();
    entries.push(Entry {
        kind,
        summary: report.outcome.reason().to_owned(),
        detail: json!({
            "evidence": report.evidence,
            "notes": done.notes,
            "steps": report.steps,
        }),
    });
    entries.extend(verified.map(|verified| Entry {
        kind: if verified.holds {
            Kind::Verified
        } else {
            Kind::NotVerified
        },
        summary: verified.summary,
        detail: Value::Null,
    }));
    entries
}

/// A report that did not reach the ledger is told in full in the log and in the error.
pub(super) fn unwritten(report: Report, error: &LedgerError) -> Report {
    let told = serde_json::to_string(&report).unwrap_or_default();
    tracing::error!(%error, report = %told, "the ledger does not hold this report");
    let reason = format!(
        "{} ({}), but the ledger does not hold it: {error}",
        report.outcome.name(),
        report.outcome.reason()
    );
    Report {
        outcome: Outcome::failed(&reason, error.is_transient()),
        ..report
    }
}
