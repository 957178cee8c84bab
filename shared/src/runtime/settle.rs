//! Looking whether a target has settled into a plan whose calls were all made.

use chrono::TimeDelta;
use serde_json::Value;

use crate::guard::Grounds;
use crate::guard::next;
use crate::ledger::items::{Facts, Status};
use crate::outcome::{Outcome, Report, Rule, StepName};
use crate::remediation::{Done, End, Remediation, Verified};
use crate::runtime::claim::{Claimed, Claiming};
use crate::runtime::engine::Runtime;
use crate::runtime::job::{Run, Told};
use crate::runtime::judge::Judged;
use crate::runtime::plan::plan_hash;
use crate::runtime::reads::Reads;
use crate::runtime::steps::Steps;

/// When to look again at a target that takes its time.
const LATER: TimeDelta = TimeDelta::minutes(1);
/// A target that has not settled by then is a human's business.
const WITHIN: TimeDelta = TimeDelta::minutes(20);

impl<R: Remediation> Runtime<R> {
    /// Looks at the target; `None` when another run was first.
    pub(super) async fn settle(
        &self,
        run: &Run<'_, R>,
        facts: &Facts,
        grounds: &Grounds,
        reads: &Reads<'_, R::Action>,
        mut steps: Steps,
    ) -> Option<Told> {
        let clock = &self.suite.clock;
        let plan = facts.settling(&run.place.run_id()).and_then(|settling| {
            serde_json::from_value::<R::Plan>(settling.plan.clone())
                .ok()
                .map(|plan| (settling, plan))
        });
        let verified = match &plan {
            Some((_, plan)) => self.read_back(plan, None).await,
            None => Verified {
                holds: false,
                summary: "the ledger does not hold the plan in a form that this release reads"
                    .to_owned(),
            },
        };
        steps.end(StepName::Verify, clock.now());
        let now = clock.now();
        let in_time = plan
            .as_ref()
            .is_some_and(|(settling, _)| now - settling.since < WITHIN);
        if !verified.holds && in_time {
            let outcome = Outcome::Pending {
                reason: verified.summary,
                check_again_at: now + LATER,
                continuation: run.is_a_step().then(|| run.continuation(None)),
            };
            let report = Report {
                incident_id: Some(next::incident_of(facts, &run.place, false)),
                ..run.report(outcome)
            };
            return Some(Told::new(report));
        }
        let (value, plan) = match plan {
            Some((settling, plan)) => (settling.plan.clone(), Some(plan)),
            None => (Value::Null, None),
        };
        let claiming = Claiming::of(facts, grounds, &value);
        let permit = match self.claim(run, &claiming, reads).await {
            Claimed::Granted(permit) => permit,
            Claimed::Overtaken => return None,
            Claimed::Over(told) => return Some(*told),
        };
        steps.end(StepName::Claim, clock.now());
        let outcome = match plan.filter(|_| verified.holds) {
            Some(plan) => {
                let work = self.work(run, &permit, Vec::new());
                let action = &run.target.action;
                let settled = self.remediation.settled(&plan, action, &work);
                match self.while_beating(&permit, settled).await {
                    End::Escalated { rule, reason } => Outcome::Escalated { rule, reason },
                    _ => settled_as(&verified),
                }
            }
            None => settled_as(&verified),
        };
        let report = Report {
            incident_id: Some(permit.incident_id.clone()),
            plan_hash: (!value.is_null()).then(|| plan_hash::<R>(&value)),
            plan: Some(value),
            steps: steps.taken,
            ..run.report(outcome.clone())
        };
        let judged = Judged {
            outcome,
            status: Status::Completed,
            continues_by: None,
            carries_on: false,
            progress: None,
            spare_snapshot: false,
        };
        let done = Done::new(End::Finished, "the calls were made before");
        Some(
            self.conclude(run, &permit, (done, Some(verified)), judged, report)
                .await,
        )
    }
}

fn settled_as(verified: &Verified) -> Outcome {
    if verified.holds {
        return Outcome::Applied {
            summary: verified.summary.clone(),
        };
    }
    Outcome::Escalated {
        rule: Rule::NotSettled,
        reason: format!(
            "{}, and {} minutes are more than it should take",
            verified.summary,
            WITHIN.num_minutes()
        ),
    }
}
