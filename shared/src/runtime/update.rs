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
use crate::policy::Action as _;
use crate::remediation::{Failure as _, Remediation, Reversal, value};
use crate::runtime::claim::{Claimed, Claiming};
use crate::runtime::conclude::unwritten;
use crate::runtime::engine::Runtime;
use crate::runtime::job::{Run, Told};
use crate::runtime::look::{Look, Tended};
use crate::runtime::plan::in_place;
use crate::runtime::steps::Steps;

impl<R: Remediation> Runtime<R> {
    /// Has what is in place follow the policy, where that is another than at the last claim; `None` where there is nothing
    /// to tell.
    pub(super) async fn follow_policy(
        &self,
        look: &Look<'_, R::Action>,
        tended: &Tended<R::Action>,
        facts: &Facts,
    ) -> Option<Report> {
        let standing = facts.standing.as_ref()?;
        let snapshot = standing.snapshot.as_ref()?;
        let policy = value("the policy", &tended.target).ok()?;
        let follows = <R::Reversal as Reversal<R>>::FOLLOWS_ITS_POLICY;
        if !follows || !tended.listed || look.policy.is_none() || standing.policy == policy {
            return None;
        }
        let switches = match self.suite.ledger.switches().await {
            Ok(switches) => switches,
            Err(error) => return Some(Self::target_failed(tended, &error, error.is_transient())),
        };
        let resource = tended.target.action.resource();
        if switches.engaged(R::NAME, resource).is_some() {
            return None;
        }
        let now = self.suite.clock.now();
        let transition = items::update(snapshot, now);
        let run = self.behalf(look, tended, &snapshot.event, transition);
        let reads = self.reads_of(look, &run, &tended.alarms);
        let plan = json!({ "update": policy });
        let grounds = Grounds::first(now);
        let claiming = Claiming {
            purpose: Purpose::Updates,
            ..Claiming::of(facts, &grounds, &plan)
        };
        let mut steps = Steps::new(now);
        let permit = match self.claim(&run, &claiming, &reads).await {
            Claimed::Granted(permit) => permit,
            Claimed::Overtaken => return None,
            Claimed::Over(told) => return Some(told.report),
        };
        steps.end(StepName::Claim, self.suite.clock.now());
        let outcome = self
            .while_beating(&permit, self.updated(&run, &permit, facts))
            .await;
        steps.end(StepName::Apply, self.suite.clock.now());
        let report = Report {
            incident_id: Some(permit.incident_id.clone()),
            plan: Some(plan),
            steps: steps.taken,
            ..run.report(outcome)
        };
        let told = match self.end_of_update(&run, &permit, &policy, &report).await {
            Ok(untold) => Told {
                untold,
                ..Told::new(report)
            },
            Err(error) => Told::new(unwritten(report, &error)),
        };
        if matches!(told.report.outcome, Outcome::Skipped { .. }) {
            return None;
        }
        self.tell(&told, &snapshot.event.alarm_arn).await;
        Some(told.report)
    }

    async fn updated(&self, run: &Run<'_, R>, permit: &Permit, facts: &Facts) -> Outcome {
        let found = match in_place::<R>(facts) {
            Ok(Some(found)) => found,
            Ok(None) => return Outcome::failed(&"there is no snapshot", false),
            Err(error) => return Outcome::failed(&error, false),
        };
        let work = self.work(run, permit, Vec::new());
        let action = &run.target.action;
        let updated =
            <R::Reversal as Reversal<R>>::update(&self.remediation, &found, action, &work);
        match updated.await {
            Ok(Some(summary)) => Outcome::Applied { summary },
            Ok(None) => Outcome::Skipped {
                rule: Rule::NothingToDo,
                reason: "the policy was edited, and nothing of what is in place changes with it"
                    .to_owned(),
            },
            Err(error) => Outcome::failed(
                &format!("what is in place does not follow the policy: {error}"),
                error.is_transient(),
            ),
        }
    }

    /// Ends the run. What failed for a moment is tried again at the next look; what failed for good, once the policy is
    /// edited again.
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
        let end = next::End {
            status: Status::Completed,
            report,
            progress: None,
            memory: None,
            breaker: None,
            continues_by: None,
            restored: false,
            settling: None,
            put_in_place: None,
        };
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
            told: (kind != Kind::Skipped).then_some(report),
            watch: None,
        };
        self.suite.ledger.finish(permit, &commit, now).await
    }
}
