//! Taking back what is in place, unless there is a reason to keep it for now: claim, revert, read back; the snapshot goes
//! only when nothing of it is left.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::backoff;
use crate::guard::Grounds;
use crate::guard::decide::time;
use crate::guard::duty;
use crate::guard::next::{self, Purpose};
use crate::ledger::difference::Commit;
use crate::ledger::items::{Facts, Snapshot, Status};
use crate::ledger::permit::Permit;
use crate::ledger::timeline::{Entry, Kind};
use crate::outcome::{Outcome, Report, Rule, StepName};
use crate::remediation::{Failure as _, Remediation, Reversal, Reverted, Verified, value};
use crate::runtime::claim::{Claimed, Claiming};
use crate::runtime::conclude::unwritten;
use crate::runtime::decide::{UNDECIDED_FOR, patiently};
use crate::runtime::engine::Runtime;
use crate::runtime::job::{Decided, Run, Told};
use crate::runtime::plan::in_place;
use crate::runtime::reads::Reads;
use crate::runtime::steps::Steps;

/// How often a restoration is begun anew because the target was being changed.
const ATTEMPTS: u32 = 4;

/// How a restoration went.
struct Restored {
    outcome: Outcome,
    evidence: Option<Value>,
}

impl<R: Remediation> Runtime<R> {
    /// Restores a snapshot under a permit; `None` when another run was first. Where an alarm of the target is in ALARM,
    /// the term is over all the same, and the end is no success.
    pub(super) async fn restore(
        &self,
        run: &Run<'_, R>,
        facts: &Facts,
        (grounds, against): (&Grounds, &[String]),
        reads: &Reads<'_, R::Action>,
        mut steps: Steps,
    ) -> Option<Told> {
        let clock = &self.suite.clock;
        let snapshot = facts.snapshot()?.clone();
        let plan = json!({"restore": snapshot.state, "taken_at": snapshot.taken_at});
        let claiming = Claiming {
            purpose: Purpose::TakesBack,
            ..Claiming::of(facts, grounds, &plan)
        };
        let permit = match self.claim(run, &claiming, reads).await {
            Claimed::Granted(permit) => permit,
            Claimed::Overtaken => return None,
            Claimed::Over(told) => return Some(*told),
        };
        steps.end(StepName::Claim, clock.now());
        let restored = self
            .while_beating(&permit, self.restored(run, &permit, facts))
            .await;
        steps.end(StepName::Revert, clock.now());
        let restored = restored.although(against, snapshot.cut_short.is_some());
        let report = Report {
            incident_id: Some(permit.incident_id.clone()),
            plan_hash: Some(crate::ids::plan_hash(&plan)),
            plan: Some(plan),
            evidence: restored.evidence,
            steps: steps.taken,
            ..run.report(restored.outcome)
        };
        Some(
            self.end_of_restoration(run, &permit, &snapshot, report)
                .await,
        )
    }

    /// Why what is in place stays although it is due. One call that failed is no reason to take it away.
    pub(super) async fn not_yet(&self, run: &Run<'_, R>, facts: &Facts) -> Option<String> {
        let found = in_place::<R>(facts).ok()??.snapshot;
        let now = self.suite.clock.now();
        let action = &run.target.action;
        match <R::Reversal as Reversal<R>>::not_yet(&self.remediation, &found, action, now).await {
            Ok(reason) => reason,
            Err(error) if error.is_transient() => Some(format!(
                "whether it is still needed cannot be told for now: {error}"
            )),
            Err(error) => {
                tracing::warn!(%error, "whether it is still needed cannot be told");
                None
            }
        }
    }

    /// Tells that what is due stays for now, once and then every hour.
    pub(super) async fn stays(
        &self,
        run: &Run<'_, R>,
        facts: &Facts,
        reason: &str,
        end: DateTime<Utc>,
    ) -> Decided<R> {
        let now = self.suite.clock.now();
        if !duty::is_to_be_told(facts, now) {
            return Decided::Left;
        }
        let incident_id = next::incident_of(facts, &run.place, true);
        let report = Report {
            incident_id: Some(incident_id.clone()),
            ..run.report(Outcome::Pending {
                reason: format!(
                    "what is in place stays although the alarm is back to OK: {reason}; it is taken back by {} at the latest",
                    time(end)
                ),
                check_again_at: now + UNDECIDED_FOR,
                continuation: None,
            })
        };
        let after = next::told(facts, now);
        let entry = Entry {
            kind: Kind::Pending,
            summary: report.outcome.reason().to_owned(),
            detail: Value::Null,
        };
        let commit = Commit {
            place: &run.place,
            before: facts,
            after: &after,
            incident_id: &incident_id,
            entries: std::slice::from_ref(&entry),
            watch: None,
            told: Some(&report),
        };
        match self.suite.ledger.commit(&commit, now).await {
            Ok(Some(untold)) => Decided::Over(Box::new(Told {
                untold,
                ..Told::new(report)
            })),
            Ok(None) => Decided::Again,
            Err(error) => Decided::Over(run.failed(&error, error.is_transient())),
        }
    }

    /// Reverts, and reads back that nothing of what was put in place is left.
    async fn restored(&self, run: &Run<'_, R>, permit: &Permit, facts: &Facts) -> Restored {
        let found = match in_place::<R>(facts) {
            Ok(Some(found)) => found.snapshot,
            Ok(None) => return Restored::failed(&"there is no snapshot", false),
            Err(error) => return Restored::failed(&error, false),
        };
        let work = self.work(run, permit, Vec::new());
        let action = &run.target.action;
        let mut attempt = 0;
        let reverted = loop {
            let reverted =
                <R::Reversal as Reversal<R>>::revert(&self.remediation, &found, action, &work);
            match reverted.await {
                Err(error) if error.is_conflict() && attempt < ATTEMPTS => {
                    tokio::time::sleep(backoff::pause(attempt + 4, &permit.run_id)).await;
                    attempt += 1;
                }
                Err(error) => return Restored::failed(&error, error.is_transient()),
                Ok(reverted) => break reverted,
            }
        };
        let verified = patiently(&permit.run_id, || {
            <R::Reversal as Reversal<R>>::reverted(&self.remediation, &found, action)
        })
        .await;
        match verified {
            Ok(verified) => Restored::of::<R>(&reverted, &verified),
            Err(error) => Restored::failed(
                &format!("what was taken back could not be read back: {error}"),
                error.is_transient(),
            ),
        }
    }

    async fn end_of_restoration(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        snapshot: &Snapshot,
        report: Report,
    ) -> Told {
        let (kinds, holds): (&[Kind], bool) = match report.outcome {
            Outcome::Applied { .. } => (&[Kind::Reverted], true),
            Outcome::Escalated {
                rule: Rule::TermEnded | Rule::MadeWorse,
                ..
            } => (&[Kind::Reverted, Kind::Escalated], true),
            Outcome::Escalated { .. } => (&[Kind::Escalated], true),
            _ => (&[Kind::Failed], false),
        };
        let line = |kind: &Kind| Entry {
            kind: *kind,
            summary: report.outcome.reason().to_owned(),
            detail: json!({"evidence": report.evidence, "taken_at": snapshot.taken_at}),
        };
        let entries: Vec<Entry> = kinds.iter().map(line).collect();
        let status = if holds {
            Status::Completed
        } else {
            Status::Failed
        };
        let end = next::End {
            restored: holds,
            ..next::End::of(status, &report)
        };
        let written = self.finish(run, permit, &end, &entries).await;
        match written {
            Ok(untold) => Told {
                untold,
                ..Told::new(report)
            },
            Err(error) => Told::new(unwritten(report, &error)),
        }
    }
}

impl Restored {
    fn failed(error: &dyn std::fmt::Display, retryable: bool) -> Self {
        Self {
            outcome: Outcome::failed(error, retryable),
            evidence: None,
        }
    }

    /// What was taken back against these reasons leaves the target without what was to help it: nobody may read that as
    /// a success.
    fn although(self, against: &[String], cut_short: bool) -> Self {
        let (rule, why) = if cut_short {
            (Rule::MadeWorse, "the alarm was worse off with it")
        } else {
            (Rule::TermEnded, "its term was over")
        };
        match self.outcome {
            Outcome::Applied { summary } if !against.is_empty() => Self {
                outcome: Outcome::Escalated {
                    rule,
                    reason: format!(
                        "{summary}; {why}, and {}: the target is without it from now on",
                        against.join(", ")
                    ),
                },
                ..self
            },
            _ => self,
        }
    }

    fn of<R: Remediation>(reverted: &Reverted<R::Evidence>, verified: &Verified) -> Self {
        let evidence = reverted.evidence.as_ref();
        let evidence = evidence.and_then(|evidence| value("the evidence", evidence).ok());
        if !verified.holds {
            let error = format!("{}, but {}", reverted.summary, verified.summary);
            return Self {
                evidence,
                ..Self::failed(&error, true)
            };
        }
        let outcome = match <R::Reversal as Reversal<R>>::handed_over(reverted) {
            None => Outcome::Applied {
                summary: format!("{}; {}", reverted.summary, verified.summary),
            },
            Some(reason) => Outcome::Escalated {
                rule: Rule::Unsafe,
                reason,
            },
        };
        Self { outcome, evidence }
    }
}
