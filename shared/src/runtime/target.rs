//! One run on one target: decided, carried out, and decided anew where the ledger changed under it.

use crate::alarm::{AlarmEvent, State};
use crate::guard::Occasion;
use crate::guard::next::{self, Refused};
use crate::ledger::difference::Commit;
use crate::ledger::items::{self, Facts, Place, Snapshot, Status};
use crate::outcome::{Outcome, Report, Rule};
use crate::remediation::Remediation;
use crate::runtime::engine::Runtime;
use crate::runtime::job::{Decided, Ran, Run};
use crate::runtime::reads::Reads;
use crate::runtime::refuse::Refusing;
use crate::runtime::steps::Steps;

/// How often a decision is made anew because the ledger changed under it.
const DECISIONS: usize = 6;
impl<R: Remediation> Runtime<R> {
    /// Runs on a target and tells the outcome.
    pub(super) async fn on_target(
        &self,
        run: &Run<'_, R>,
        reads: &Reads<'_, R::Action>,
    ) -> Ran<R::Action> {
        let ran = self.decided(run, reads).await;
        if let Ran::Reported(told) = &ran {
            self.tell(told, &run.place.event.alarm_arn).await;
        }
        ran
    }

    pub(super) async fn decided(
        &self,
        run: &Run<'_, R>,
        reads: &Reads<'_, R::Action>,
    ) -> Ran<R::Action> {
        for _ in 0..DECISIONS {
            let mut steps = Steps::new(run.began);
            let told = match self.decide(run, reads, &mut steps).await {
                Decided::PolicyChanged(changed) => return Ran::PolicyChanged(changed),
                Decided::Left => return Ran::Left,
                Decided::Over(told) => Some(*told),
                Decided::Again => None,
                Decided::Act(agreed) => Box::pin(self.act(run, *agreed, reads, steps)).await,
                Decided::Settle(settle) => {
                    let (facts, grounds) = *settle;
                    Box::pin(self.settle(run, &facts, &grounds, reads, steps)).await
                }
                Decided::Restore(restore) => {
                    let (facts, grounds, against) = *restore;
                    let why = (&grounds, against.as_slice());
                    Box::pin(self.restore(run, &facts, why, reads, steps)).await
                }
                Decided::TakeBack(snapshot) => {
                    return Box::pin(self.take_back(run, &snapshot, reads)).await;
                }
            };
            if let Some(told) = told {
                if matches!(told.report.outcome, Outcome::Failed { .. }) {
                    self.leave_waiting(run, &told.report).await;
                }
                return Ran::Reported(Box::new(told));
            }
        }
        let contended = format!(
            "the ledger's items for {} changed at every attempt to write them",
            run.place.resource
        );
        Ran::Reported(run.failed(&contended, true))
    }

    /// Takes back what is in place: a run of its own, the same whoever begins it.
    pub(super) async fn take_back(
        &self,
        run: &Run<'_, R>,
        snapshot: &Snapshot,
        reads: &Reads<'_, R::Action>,
    ) -> Ran<R::Action> {
        let event = AlarmEvent {
            state: State::Ok,
            changed_at: snapshot.taken_at,
            approvals: Vec::new(),
            ..snapshot.event.clone()
        };
        let restoring = Run {
            place: Place {
                event: &event,
                transition: items::restoration(snapshot),
                ..run.place.clone()
            },
            target: run.target,
            alarms: run.alarms.clone(),
            invocation: run.invocation,
            trigger: run.trigger.clone(),
            occasion: Occasion::Restoring,
            listed: run.listed,
            round: None,
            dry_run: run.dry_run,
            began: run.began,
        };
        self.decided(&restoring, reads).await
    }

    /// Leaves a transition that could not even be decided to the schedule, as long as its alarm is in ALARM. A run that
    /// has claimed its target is open, and needs no such word.
    async fn leave_waiting(&self, run: &Run<'_, R>, report: &Report) {
        if run.place.event.state != State::Alarm || run.dry_run || !run.may_act() {
            return;
        }
        let facts = match self.suite.ledger.facts(&run.place).await {
            Ok(facts) if facts.record.is_none() => facts,
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "the schedule is not told of what failed");
                return;
            }
        };
        let now = self.suite.clock.now();
        let refused = Refused {
            report: Some(report),
            waits: Some((Rule::Undecided, now)),
            tells: !run.place.event.dry_run,
            ..Refused::default()
        };
        let after = next::refused(&facts, &run.place, &refused, now);
        let commit = Commit {
            place: &run.place,
            before: &facts,
            after: &after,
            incident_id: &next::incident_of(&facts, &run.place, false),
            entries: &[],
            told: None,
            watch: None,
        };
        if let Err(error) = self.suite.ledger.commit(&commit, now).await {
            tracing::warn!(%error, "the schedule is not told of what failed");
        }
    }

    /// Forgets a transition that waits although a run has ended it since.
    pub(super) async fn waits_no_more(&self, run: &Run<'_, R>, facts: &Facts) {
        let waits = facts
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.event.changed_at <= run.place.event.changed_at);
        let ended = facts
            .record
            .as_ref()
            .is_some_and(|record| record.status == Status::Completed);
        if !waits || !ended {
            return;
        }
        let now = self.suite.clock.now();
        if let Err(error) = self.suite.ledger.waits_no_more(&run.place, now).await {
            tracing::warn!(%error, "what waits for nothing was not removed");
        }
    }

    /// Leaves a target, for which no time is left, to the schedule.
    pub(super) async fn defer(&self, run: &Run<'_, R>) -> Ran<R::Action> {
        let now = self.suite.clock.now();
        let outcome = Outcome::Pending {
            reason: "this invocation had no time left for the target; the schedule takes it up"
                .to_owned(),
            check_again_at: now,
            continuation: None,
        };
        let facts = match self.suite.ledger.facts(&run.place).await {
            Ok(facts) => facts,
            Err(error) => return Ran::Reported(run.failed(&error, error.is_transient())),
        };
        let refusing = Refusing {
            waits: Some((Rule::NoTimeLeft, now)),
            ..Refusing::new(outcome)
        };
        match self.refuse(run, &facts, refusing).await {
            Decided::Over(told) => {
                self.tell(&told, &run.place.event.alarm_arn).await;
                Ran::Reported(told)
            }
            _ => Ran::Left,
        }
    }
}
