//! Bringing what is in place up to date with a policy that was edited meanwhile.

use serde_json::{Value, json};

use crate::guard::Grounds;
use crate::guard::next::{self, Purpose};
use crate::ledger::LedgerError;
use crate::ledger::difference::Commit;
use crate::ledger::items::{self, Facts, Status};
use crate::ledger::permit::Permit;
use crate::ledger::store::Key;
use crate::ledger::timeline::{Entry, Kind};
use crate::outcome::{Outcome, Report, Rule, StepName};
use crate::policy::{Action as _, Target};
use crate::remediation::{Failure as _, Remediation, Reversal, value};
use crate::runtime::claim::{Claimed, Claiming};
use crate::runtime::conclude::unwritten;
use crate::runtime::engine::Runtime;
use crate::runtime::job::{Run, Told};
use crate::runtime::look::{Look, Tended};
use crate::runtime::plan::in_place;
use crate::runtime::steps::Steps;

/// How often it is tried to follow one edit.
const ATTEMPTS: u32 = 6;

impl<R: Remediation> Runtime<R> {
    /// Has what is in place follow the policy, where that is another than at the last claim; `None` where there is nothing
    /// to tell.
    pub(super) async fn follow_policy(
        &self,
        look: &Look<'_, R::Action>,
        tended: &Tended<R::Action>,
        facts: &Facts,
    ) -> Option<Report> {
        if !<R::Reversal as Reversal<R>>::FOLLOWS_ITS_POLICY || !tended.listed {
            return None;
        }
        let version = look.policy.as_ref()?.version;
        let standing = facts.standing.as_ref()?;
        let snapshot = standing.snapshot.as_ref()?;
        let policy = value("the policy", &tended.target).ok()?;
        if standing.policy == policy {
            return None;
        }
        let before = serde_json::from_value::<Target<R::Action>>(standing.policy.clone());
        let transition = items::update(snapshot, version);
        let run = self.behalf(look, tended, &snapshot.event, transition);
        let reads = self.reads_of(look, &run, &tended.alarms);
        let read = tokio::join!(
            self.suite.ledger.facts(&run.place),
            self.suite.ledger.switches(),
            self.current_policy(look.home, self.suite.clock.now()),
        );
        let failed = |error: &dyn std::fmt::Display, retryable| {
            Some(Self::target_failed(tended, error, retryable))
        };
        let (facts, switches, current) = match read {
            (Ok(facts), Ok(switches), Ok(current)) => (facts, switches, current),
            (Err(error), _, _) | (_, Err(error), _) => {
                return failed(&error, error.is_transient());
            }
            (_, _, Err(error)) => return failed(&error, error.is_transient()),
        };
        let resource = tended.target.action.resource();
        let read_again = facts.standing.as_ref();
        let overtaken = read_again.is_none_or(|it| it.policy != standing.policy);
        // A look that took its time would bring an older policy back.
        let outdated = overtaken || current.version != version;
        if outdated || switches.engaged(R::NAME, resource).is_some() {
            return None;
        }
        let attempt = match facts.record.as_ref() {
            Some(record) if record.status == Status::Completed => return None,
            record => record.map_or(1, |record| record.attempt + 1),
        };
        let now = self.suite.clock.now();
        let plan = json!({ "update": policy });
        let grounds = Grounds {
            attempt,
            ..Grounds::first(now)
        };
        let claiming = Claiming {
            purpose: Purpose::Updates,
            ..Claiming::of(&facts, &grounds, &plan)
        };
        let mut steps = Steps::new(now);
        let permit = match self.claim(&run, &claiming, &reads).await {
            Claimed::Granted(permit) => permit,
            Claimed::Overtaken => return None,
            Claimed::Over(told) => return Some(told.report),
        };
        steps.end(StepName::Claim, self.suite.clock.now());
        let outcome = match before {
            _ if attempt > ATTEMPTS => died(),
            Ok(before) => {
                let updated = self.updated(&run, &permit, (&facts, &before.action));
                self.while_beating(&permit, updated).await
            }
            // Another release wrote it: what it said is not known, and what is said now may be anybody's.
            Err(_) => nothing(),
        };
        steps.end(StepName::Apply, self.suite.clock.now());
        let report = Report {
            incident_id: Some(permit.incident_id.clone()),
            plan: Some(plan),
            steps: steps.taken,
            ..run.report(last(outcome, attempt))
        };
        let told = match self.end_of_update(&run, &permit, &policy, &report).await {
            Ok(untold) => Told {
                untold,
                ..Told::new(report)
            },
            Err(error) => Told::new(unwritten(report, &error)),
        };
        match &told.report.outcome {
            Outcome::Skipped { .. } => return None,
            Outcome::Failed {
                retryable: true, ..
            } => {}
            _ => self.tell(&told, &snapshot.event.alarm_arn).await,
        }
        Some(told.report)
    }

    async fn updated(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        (facts, before): (&Facts, &R::Action),
    ) -> Outcome {
        let found = match in_place::<R>(facts) {
            Ok(Some(found)) => found,
            Ok(None) => return Outcome::failed(&"there is no snapshot", false),
            Err(error) => return Outcome::failed(&error, false),
        };
        let work = self.work(run, permit, Vec::new());
        let edited = (before, &run.target.action);
        let updated =
            <R::Reversal as Reversal<R>>::update(&self.remediation, &found, edited, &work);
        match updated.await {
            Ok(Some(summary)) => Outcome::Applied { summary },
            Ok(None) => nothing(),
            Err(error) => Outcome::failed(
                &format!("what is in place does not follow the policy: {error}"),
                error.is_transient(),
            ),
        }
    }

    /// Ends the run. What failed for a moment is tried again at the next look, and what failed for good, once the policy
    /// is edited again.
    async fn end_of_update(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        policy: &Value,
        report: &Report,
    ) -> Result<Option<Key>, LedgerError> {
        let kind = match report.outcome {
            Outcome::Applied { .. } => Kind::Updated,
            Outcome::Skipped { .. } => Kind::Skipped,
            _ => Kind::Failed,
        };
        let again = matches!(
            report.outcome,
            Outcome::Failed {
                retryable: true,
                ..
            }
        );
        let entry = Entry {
            kind,
            summary: report.outcome.reason().to_owned(),
            detail: Value::Null,
        };
        let status = if again {
            Status::Failed
        } else {
            Status::Completed
        };
        let end = next::End::of(status, report);
        let now = self.suite.clock.now();
        let before = permit.facts();
        let mut after = next::finished(&before, run.place.event, &end, now);
        // The alarm's change was answered when it was put in place.
        after.history.answers.clone_from(&before.history.answers);
        if let Some(standing) = after.standing.as_mut().filter(|_| !again) {
            standing.policy = policy.clone();
        }
        let commit = Commit {
            place: &run.place,
            before: &before,
            after: &after,
            incident_id: &permit.incident_id,
            entries: std::slice::from_ref(&entry),
            told: (kind != Kind::Skipped && !again).then_some(report),
            watch: None,
        };
        self.suite.ledger.finish(permit, &commit, now).await
    }
}

fn nothing() -> Outcome {
    Outcome::Skipped {
        rule: Rule::NothingToDo,
        reason: "the policy was edited, and nothing of what is in place changes with it".to_owned(),
    }
}

fn died() -> Outcome {
    let error = format!(
        "what is in place does not follow the policy: {ATTEMPTS} attempts have died or failed; look at the function's log, and edit the policy once more"
    );
    Outcome::failed(&error, false)
}

/// What the last attempt came to is not tried again.
fn last(outcome: Outcome, attempt: u32) -> Outcome {
    match outcome {
        Outcome::Failed { error, .. } if attempt >= ATTEMPTS => Outcome::Failed {
            error: format!("{error}; edit the policy once more when that is mended"),
            retryable: false,
        },
        other => other,
    }
}
