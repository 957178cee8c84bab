//! Carrying a plan out: claim, apply, verify, and planning anew where another hand was quicker.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::time::Instant;

use crate::backoff;
use crate::guard::Grounds;
use crate::guard::next::{self, Purpose};
use crate::ledger::LedgerError;
use crate::ledger::difference::Commit;
use crate::ledger::items::{Facts, Place, Snapshot};
use crate::ledger::permit::Permit;
use crate::ledger::timeline::{Entry, Kind};
use crate::outcome::{Report, Rule, StepName};
use crate::remediation::{
    Done, End, Failure as _, Planned, ProgressOf, Remediation, Reversal, Rounds as _, Verified,
    Work, value,
};
use crate::runtime::claim::{Claimed, Claiming};
use crate::runtime::decide::approval;
use crate::runtime::engine::Runtime;
use crate::runtime::job::{Agreed, RESERVE, Run, Told};
use crate::runtime::judge::{Course, Judged, judge};
use crate::runtime::plan::{self, Before};
use crate::runtime::reads::Reads;
use crate::runtime::refuse::left;
use crate::runtime::steps::Steps;

/// How often a run in its work says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often a plan is made anew because the target was not as observed, or was being changed.
const REPLANS: u32 = 4;

impl<R: Remediation> Runtime<R> {
    /// Claims, applies, verifies and reports; `None` when another run was first.
    pub(super) async fn act(
        &self,
        run: &Run<'_, R>,
        agreed: Agreed<R>,
        reads: &Reads<'_, R::Action>,
        mut steps: Steps,
    ) -> Option<Told> {
        let clock = &self.suite.clock;
        let snapshot = match new_snapshot(run, &agreed, clock.now()) {
            Ok(snapshot) => snapshot,
            Err(error) => return Some(*run.failed(&error, false)),
        };
        let claiming = Claiming {
            facts: &agreed.facts,
            grounds: &agreed.grounds,
            plan: &agreed.plan_value,
            observed: &agreed.observed,
            snapshot: snapshot.as_ref(),
            purpose: Purpose::Acts,
            approved_by: agreed.approved_by.as_deref(),
        };
        let permit = match self.claim(run, &claiming, reads).await {
            Claimed::Granted(permit) => permit,
            Claimed::Overtaken => return None,
            Claimed::Over(told) => return Some(*told),
        };
        steps.end(StepName::Claim, clock.now());
        let anew = snapshot.is_some()
            && agreed.facts.snapshot().is_none()
            && agreed.grounds.begun.is_none();
        let (plan, mut done, conflicts) = self
            .while_beating(&permit, self.applied(run, &permit, agreed))
            .await;
        steps.end(StepName::Apply, clock.now());
        let verified = self.verified(&plan, &done, &mut steps).await;
        let end = std::mem::replace(&mut done.end, End::Finished);
        let course = course(run, &permit);
        // Nothing was put in place, now or before: there is nothing to take back.
        let spare = anew && !conflicts && matches!(end, End::Nothing { .. });
        let judged = Judged {
            spare_snapshot: spare,
            ..judge(end, &done.summary, verified.as_ref(), course, clock.now())
        };
        let metrics = std::mem::take(&mut done.metrics);
        let told = self
            .concluded(run, &permit, (plan, done, verified), judged, steps)
            .await;
        Some(Told { metrics, ..told })
    }

    /// Carries the plan out, and plans anew where the target was not as observed; with whether a conflict may hide an
    /// effect.
    async fn applied(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        agreed: Agreed<R>,
    ) -> (R::Plan, Done<R>, bool) {
        let unfinished = match self.unfinished(run, permit).await {
            Ok(unfinished) => unfinished,
            Err(error) => return (agreed.plan, failed(&error, error.is_transient()), false),
        };
        let work = self.work(run, permit, unfinished);
        let action = &run.target.action;
        let Agreed {
            facts,
            grounds,
            mut plan,
            ..
        } = agreed;
        let mut replans = Vec::new();
        let mut conflicts = false;
        let done = loop {
            let applied = self.remediation.apply(&plan, action, &work).await;
            let (reason, conflict) = match overtaken(applied) {
                Ok(done) => break done,
                Err(overtaken) => overtaken,
            };
            let tried = u32::try_from(replans.len()).unwrap_or(REPLANS);
            if tried >= REPLANS || work.clear("plan anew").is_err() {
                let error = format!("{reason}, and so it was after every new look at it");
                break failed(&error, true);
            }
            if conflict {
                tokio::time::sleep(backoff::pause(tried + 4, &permit.run_id)).await;
            }
            // After one, earlier calls of the plan may have had their effect.
            conflicts |= conflict;
            let claimed = permit.facts();
            let known = if conflicts { &claimed } else { &facts };
            match self
                .replanned(run, permit, (known, &grounds), &plan, conflicts)
                .await
            {
                Ok(anew) => plan = anew,
                Err(Stop::End(end)) => {
                    let memory = left::<R>(&permit.facts(), false, self.suite.clock.now());
                    break Done {
                        memory,
                        ..Done::new(end, reason)
                    };
                }
                Err(Stop::Failed(done)) => break *done,
            }
            replans.push(Entry {
                kind: Kind::Replanned,
                summary: reason,
                detail: value("the plan", &plan).unwrap_or_default(),
            });
        };
        let entries = replans.into_iter().chain(done.entries).collect();
        (plan, Done { entries, ..done }, conflicts)
    }

    async fn replanned(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        (facts, grounds): (&Facts, &Grounds),
        overtaken: &R::Plan,
        conflict: bool,
    ) -> Result<R::Plan, Stop<R>> {
        let clock = &self.suite.clock;
        let action = &run.target.action;
        let event = Some(run.place.event);
        let observed = self
            .remediation
            .observe(action, event, clock.now())
            .await
            .map_err(|error| Stop::failed(&error, error.is_transient()))?;
        let memory = plan::memory::<R>(facts);
        let observed = self
            .remediation
            .observe_remembered(observed, action, memory.as_ref())
            .await
            .map_err(|error| Stop::failed(&error, error.is_transient()))?;
        let before = if conflict {
            Before::Conflict(overtaken)
        } else {
            Before::Overtaken(overtaken)
        };
        let planned = plan::plan::<R>(
            run,
            facts,
            grounds,
            (&permit.incident_id, before),
            &observed,
            clock.now(),
        )
        .map_err(|error| Stop::failed(&error, false))?;
        let (anew, state) = match planned {
            Planned::Act { plan, snapshot } => (plan, snapshot),
            Planned::Nothing { reason } | Planned::InPlace { reason } => {
                return Err(Stop::End(End::Nothing { reason }));
            }
            // It is begun, and looked at again.
            Planned::Undecided { reason } => return Err(Stop::failed(&reason, true)),
            Planned::Escalate { rule, reason } => {
                return Err(Stop::End(End::Escalated { rule, reason }));
            }
        };
        let value_anew = value("the plan", &anew).map_err(|error| Stop::failed(&error, false))?;
        if let Err(reason) = approval(run, grounds, &value_anew, clock.now()) {
            let rule = Rule::ApprovalRequired;
            return Err(Stop::End(End::Escalated { rule, reason }));
        }
        // Nothing was changed yet, so what was observed now is the state to go back to. A conflict may have come
        // after the first of several calls: then the state before them stays.
        if !conflict
            && facts.snapshot().is_none()
            && let Some(state) = state
        {
            let state =
                value("the snapshot", &state).map_err(|error| Stop::failed(&error, false))?;
            self.retake(run, permit, state)
                .await
                .map_err(|error| Stop::failed(&error, error.is_transient()))?;
        }
        Ok(anew)
    }

    /// Replaces the snapshot that the claim took, before anything was changed.
    async fn retake(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        state: Value,
    ) -> Result<(), LedgerError> {
        let now = self.suite.clock.now();
        let before = permit.facts();
        let mut after = before.clone();
        if let Some(standing) = &mut after.standing
            && let Some(snapshot) = &mut standing.snapshot
        {
            standing.version += 1;
            snapshot.state = state;
        }
        let commit = Commit {
            place: &run.place,
            before: &before,
            after: &after,
            incident_id: &permit.incident_id,
            entries: &[],
            told: None,
            watch: None,
        };
        self.suite.ledger.amend(permit, &commit, now).await
    }

    /// What other runs on the target saved that have not ended. Since the claim, none of them can save more.
    async fn unfinished(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
    ) -> Result<Vec<Option<ProgressOf<R>>>, LedgerError> {
        let mut saved = Vec::new();
        if R::Rounds::at_most(&run.target.action) < 2 {
            return Ok(saved);
        }
        let facts = permit.facts();
        for open in facts.other_runs(&permit.run_id) {
            let place = Place {
                transition: open.transition.clone(),
                event: &open.event,
                ..run.place.clone()
            };
            let record = self.suite.ledger.record(&place).await?;
            let progress = record.and_then(|record| record.progress);
            saved.push(progress.and_then(|progress| serde_json::from_value(progress).ok()));
        }
        Ok(saved)
    }

    pub(super) fn work<'a>(
        &'a self,
        run: &Run<'_, R>,
        permit: &'a Permit,
        unfinished: Vec<Option<ProgressOf<R>>>,
    ) -> Work<'a, R> {
        let facts = permit.facts();
        let record = facts.record.as_ref();
        let actions = facts.history.actions.iter().rev();
        let mut others = actions.filter(|action| action.run_id != permit.run_id);
        Work {
            permit,
            clock: &self.suite.clock,
            deadline: run.invocation.deadline - RESERVE,
            ledger: &self.suite.ledger,
            memory: plan::memory::<R>(&facts),
            progress: record
                .and_then(|record| record.progress.clone())
                .and_then(|progress| serde_json::from_value(progress).ok()),
            unfinished,
            round: record.map_or(1, |record| record.round),
            attempt: record.map_or(1, |record| record.attempt),
            started_at: record.map_or(run.began, |record| record.started_at),
            previous_run: others.next().map(|action| action.run_id.clone()),
        }
    }

    /// Does the work, and tells the ledger all the while that it is being done.
    pub(super) async fn while_beating<T>(
        &self,
        permit: &Permit,
        work: impl Future<Output = T>,
    ) -> T {
        tokio::select! {
            biased;
            worked = work => worked,
            never = self.beat_on(permit) => match never {},
        }
    }

    async fn beat_on(&self, permit: &Permit) -> Infallible {
        let mut ticks = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.suite.clock.now();
            match self.suite.ledger.beat(permit, now).await {
                Ok(()) => permit.heard(now),
                Err(error @ LedgerError::Fenced { .. }) => {
                    tracing::error!(%error, "another run has taken over");
                    permit.lost();
                }
                Err(error) => tracing::warn!(%error, "the ledger missed a heartbeat"),
            }
        }
    }

    async fn verified(
        &self,
        plan: &R::Plan,
        done: &Done<R>,
        steps: &mut Steps,
    ) -> Option<Verified> {
        if !matches!(done.end, End::Finished) {
            return None;
        }
        let verified = self.read_back(plan, done.evidence.as_ref()).await;
        steps.end(StepName::Verify, self.suite.clock.now());
        Some(verified)
    }

    async fn concluded(
        &self,
        run: &Run<'_, R>,
        permit: &Permit,
        (plan, done, verified): (R::Plan, Done<R>, Option<Verified>),
        judged: Judged<ProgressOf<R>>,
        steps: Steps,
    ) -> Told {
        let plan = told("the plan", &plan);
        let evidence = done.evidence.as_ref();
        let evidence = evidence.and_then(|evidence| told("the evidence", evidence));
        let report = Report {
            incident_id: Some(permit.incident_id.clone()),
            plan_hash: plan.as_ref().map(plan::plan_hash::<R>),
            plan,
            evidence,
            notes: done.notes.clone(),
            steps: steps.taken,
            ..run.report(judged.outcome.clone())
        };
        self.conclude(run, permit, (done, verified), judged, report)
            .await
    }
}

/// Why a plan is not made anew.
enum Stop<R: Remediation> {
    End(End<ProgressOf<R>>),
    Failed(Box<Done<R>>),
}

impl<R: Remediation> Stop<R> {
    fn failed(error: &dyn std::fmt::Display, retryable: bool) -> Self {
        Self::Failed(Box::new(failed(error, retryable)))
    }
}

/// What the work came to, or why the target has to be looked at anew: another hand was quicker, or is at work, which
/// a pause may outlast.
fn overtaken<R: Remediation>(
    applied: Result<Done<R>, R::Error>,
) -> Result<Done<R>, (String, bool)> {
    match applied {
        Ok(done) => match done.end {
            End::Overtaken { reason } => Err((reason, false)),
            _ => Ok(done),
        },
        Err(error) if error.is_conflict() => Err((error.to_string(), true)),
        Err(error) => Ok(failed(&error, error.is_transient())),
    }
}

/// A round that failed on the way; what was saved before stays.
fn failed<R: Remediation>(error: &dyn std::fmt::Display, retryable: bool) -> Done<R> {
    let error = error.to_string();
    let end = End::Failed {
        error: error.clone(),
        retryable,
        progress: None,
    };
    Done::new(end, error)
}

/// A part of a report; none where it cannot be written, which is better than a wrong one.
fn told<T: serde::Serialize>(what: &str, part: &T) -> Option<Value> {
    value(what, part)
        .inspect_err(|error| tracing::error!(%error, "the report is told without it"))
        .ok()
}

/// How the run may go on beyond this round.
fn course<R: Remediation>(run: &Run<'_, R>, permit: &Permit) -> Course {
    let record = permit.facts().record;
    let round = record.map_or(1, |record| record.round);
    Course {
        round,
        in_a_row: R::Rounds::at_most(&run.target.action),
        step: run.is_a_step().then(|| {
            let carry_on = run.continuation(Some(round + 1));
            (carry_on, run.continuation(None))
        }),
    }
}

/// The snapshot to write with the claim: that of the first plan, kept from then on.
fn new_snapshot<R: Remediation>(
    run: &Run<'_, R>,
    agreed: &Agreed<R>,
    now: DateTime<Utc>,
) -> Result<Option<Snapshot>, LedgerError> {
    let temporary = run.temporary();
    if let Some(found) = agreed.facts.snapshot() {
        return Ok(Some(Snapshot {
            // Whoever takes it back takes back what this run puts there.
            run_id: run.place.run_id(),
            expires_at: next::renewed(found, temporary, now),
            ..found.clone()
        }));
    }
    let Some(state) = &agreed.snapshot else {
        return Ok(None);
    };
    Ok(Some(Snapshot {
        run_id: run.place.run_id(),
        incident_id: next::incident_of(&agreed.facts, &run.place, false),
        event: run.place.event.clone(),
        taken_at: now,
        in_place_since: None,
        ends_by_itself_at: temporary
            .filter(|_| <R::Reversal as Reversal<R>>::ends_by_itself(&run.target.action))
            .map(|kept| now + kept.at_most),
        expires_at: temporary.map(|kept| now + kept.expires_after.min(kept.at_most)),
        forewarned: None,
        cut_short: None,
        state: value("the snapshot", state)?,
    }))
}
