//! Reading all that a decision rests on, asking the guard and the plan, and writing what they refuse.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::alarm::State;
use crate::backoff;
use crate::guard::approval::{approved, ends_at};
use crate::guard::decide::time;
use crate::guard::duty::{self, Alarms, Duty, Recovery, Terms};
use crate::guard::next;
use crate::guard::{self, Grounds, LiveAlarm, Occasion, Question, Verdict};
use crate::ledger::items::{Engaged, Facts, History};
use crate::outcome::{Outcome, Rule, StepName};
use crate::policy::Predecessor;
use crate::remediation::{
    Failure, Learning as _, Planned, PlannedBy, Remediation, Verified, value,
};
use crate::runtime::alarms::Live;
use crate::runtime::engine::Runtime;
use crate::runtime::job::{Agreed, Decided, Run};
use crate::runtime::plan::{Before, memory, plan, plan_hash};
use crate::runtime::reads::Reads;
use crate::runtime::refuse::Refusing;
use crate::runtime::steps::Steps;

/// When the schedule comes for what could not be decided yet, at the latest.
pub(super) const UNDECIDED_FOR: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

/// How often a look at what was done is tried again.
const READ_BACKS: u32 = 3;

/// What was read for one decision.
struct Read<'a, R: Remediation> {
    facts: Facts,
    predecessors: Vec<(&'a Predecessor, History)>,
    live: LiveAlarm,
    alarms: Alarms,
    switch: Option<Engaged>,
    observed: Option<Result<R::Observed, R::Error>>,
}

impl<R: Remediation> Runtime<R> {
    /// Reads the ledger, the alarm, the target and, when it is due, the policy, all at once; then decides.
    pub(super) async fn decide(
        &self,
        run: &Run<'_, R>,
        reads: &Reads<'_, R::Action>,
        steps: &mut Steps,
    ) -> Decided<R> {
        let read = match self.read(run, reads).await {
            Ok(read) => read,
            Err(decided) => return decided,
        };
        let clock = &self.suite.clock;
        steps.end(StepName::Observe, clock.now());
        let now = clock.now();
        let run_id = run.place.run_id();
        let verdict = guard::decide(&Question {
            event: run.place.event,
            live: read.live,
            facts: &read.facts,
            switch: read.switch.as_ref(),
            limits: &run.target.guard,
            predecessors: &read.predecessors,
            target: run.place.target,
            request_id: &run.invocation.request_id,
            run_id: &run_id,
            round: run.round,
            occasion: run.occasion,
            listed: run.may_act(),
            outlasts_alarm: R::OUTLASTS_ALARM,
            half_done: is_half_done::<R>(&read.facts),
            now,
        });
        let grounds = match verdict {
            Verdict::Leave => {
                self.waits_no_more(run, &read.facts).await;
                return Decided::Left;
            }
            Verdict::Repeat(stored) => return self.repeat(run, &read.facts, *stored).await,
            // What passes by itself need not be said again of a run whose alarm is not in ALARM.
            Verdict::Refuse(refusal)
                if run.occasion == Occasion::Due
                    && refusal.look_at.is_some()
                    && read.live.state() != Some(State::Alarm) =>
            {
                return Decided::Left;
            }
            Verdict::Refuse(refusal) => {
                let refusing = Refusing {
                    ok_since: read.live.ok_since(),
                    ..Refusing::from(*refusal)
                };
                return self.refuse(run, &read.facts, refusing).await;
            }
            Verdict::Proceed(grounds) => *grounds,
        };
        if run.occasion == Occasion::Restoring {
            return self.restoring(run, read, grounds).await;
        }
        if grounds.settling && !run.dry_run {
            return self.settling(run, read.facts, grounds).await;
        }
        if run.place.event.state != State::Alarm {
            return self.recovered(run, read).await;
        }
        self.alarmed(run, read, grounds, steps).await
    }

    async fn read<'a>(
        &self,
        run: &Run<'a, R>,
        reads: &Reads<'_, R::Action>,
    ) -> Result<Read<'a, R>, Decided<R>> {
        let event = run.place.event;
        let clock = &self.suite.clock;
        let restoring = run.occasion == Occasion::Restoring;
        let learns = R::Learning::observes() && run.occasion == Occasion::Delivered;
        let looks = !restoring && (event.state == State::Alarm || learns);
        // Whose turn it is matters to nothing else than acting on an alarm.
        let before = if event.state == State::Alarm && !restoring {
            run.target.after.as_slice()
        } else {
            &[]
        };
        let (facts, predecessors, live, switches, observed, policy) = tokio::join!(
            self.suite.ledger.facts(&run.place),
            self.suite.ledger.histories(before),
            reads.live(),
            reads.switches(),
            async {
                if looks {
                    let action = &run.target.action;
                    Some(
                        self.remediation
                            .observe(action, Some(event), clock.now())
                            .await,
                    )
                } else {
                    None
                }
            },
            async {
                if run.occasion == Occasion::Delivered {
                    Some(reads.policy().await)
                } else {
                    None
                }
            },
        );
        let failed =
            |error: &dyn std::fmt::Display, retryable| Decided::Over(run.failed(error, retryable));
        match policy {
            Some(Err(error)) => return Err(failed(&error, error.is_transient())),
            Some(Ok(current)) if current.version != reads.known.version => {
                return Err(Decided::PolicyChanged(current));
            }
            None | Some(Ok(_)) => {}
        }
        let facts = facts.map_err(|error| failed(&error, error.is_transient()))?;
        let predecessors = predecessors.map_err(|error| failed(&error, error.is_transient()))?;
        // What has a term ends with it, whether or not the alarms can be read.
        let unknown = Live::new();
        let live = match live {
            Err(error) if restoring => {
                tracing::warn!(%error, "the alarms cannot be read");
                &unknown
            }
            live => live.map_err(|error| failed(&error, error.is_transient()))?,
        };
        let switches = switches.map_err(|error| failed(&error, error.is_transient()))?;
        Ok(Read {
            alarms: alarms_of(run, live, &facts, clock.now()),
            live: match live.get(&event.alarm_arn) {
                Some(live) => *live,
                None if restoring => LiveAlarm::Gone,
                None => {
                    let unread = format!("{} could not be read", event.alarm_arn);
                    return Err(failed(&unread, true));
                }
            },
            switch: switches.engaged(R::NAME, run.place.resource),
            facts,
            predecessors,
            observed,
        })
    }

    /// The alarm is in ALARM, and the guard lets the run go on: plan.
    async fn alarmed(
        &self,
        run: &Run<'_, R>,
        read: Read<'_, R>,
        grounds: Grounds,
        steps: &mut Steps,
    ) -> Decided<R> {
        let Read {
            facts, observed, ..
        } = read;
        if let Some(refusal) = &grounds.too_late {
            // As for what was never begun.
            if run.occasion == Occasion::Due && refusal.look_at.is_some() && grounds.recovered {
                return Decided::Left;
            }
            match self.carried_out(&grounds).await {
                Ok(true) => {}
                Ok(false) => {
                    let refusing = Refusing::from((**refusal).clone());
                    return self.refuse(run, &facts, refusing).await;
                }
                // What cannot be seen now is looked at again, not given up.
                Err(error) => return Decided::Over(run.failed(&error, true)),
            }
        }
        let observed = match observed {
            Some(Ok(observed)) => observed,
            Some(Err(error)) => return Decided::Over(run.failed(&error, error.is_transient())),
            None => return Decided::Again,
        };
        let known = memory::<R>(&facts);
        let action = &run.target.action;
        let looked = self
            .remediation
            .observe_remembered(observed, action, known.as_ref());
        let observed = match looked.await {
            Ok(observed) => observed,
            Err(error) => return Decided::Over(run.failed(&error, error.is_transient())),
        };
        let incident_id = next::incident_of(&facts, &run.place, false);
        let now = self.suite.clock.now();
        let planned = plan::<R>(
            run,
            &facts,
            &grounds,
            (&incident_id, Before::None),
            &observed,
            now,
        );
        steps.end(StepName::Plan, self.suite.clock.now());
        let observed = match value("what was observed", &observed) {
            Ok(observed) => observed,
            Err(error) => return Decided::Over(run.failed(&error, false)),
        };
        if let (Some(refusal), Ok(Planned::Act { plan, .. })) = (&grounds.too_late, &planned)
            && is_another::<R>(plan, &grounds)
        {
            let refusing = Refusing::from((**refusal).clone());
            return self.refuse(run, &facts, refusing).await;
        }
        match planned {
            Ok(planned) => self.agreed(run, facts, grounds, observed, planned).await,
            Err(error) => Decided::Over(run.failed(&error, false)),
        }
    }

    /// Whether the target is as the plan of an attempt that died or failed leaves it; an error where another look may
    /// tell.
    async fn carried_out(&self, grounds: &Grounds) -> Result<bool, R::Error> {
        let begun = grounds.begun.clone();
        let Some(plan) = begun.and_then(|begun| serde_json::from_value::<R::Plan>(begun).ok())
        else {
            return Ok(false);
        };
        match self.remediation.verify(&plan, None).await {
            Ok(verified) => {
                tracing::info!(holds = verified.holds, "{}", verified.summary);
                Ok(verified.holds)
            }
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "whether it was carried out cannot be told");
                Ok(false)
            }
        }
    }

    /// Looks at the target; what cannot be looked at does not hold.
    pub(super) async fn read_back(
        &self,
        plan: &R::Plan,
        evidence: Option<&R::Evidence>,
    ) -> Verified {
        let looked = patiently("read back", || self.remediation.verify(plan, evidence)).await;
        looked.unwrap_or_else(|error| Verified {
            holds: false,
            summary: format!("what was done could not be read back: {error}"),
        })
    }

    /// A target that takes its time is looked at, unless what the run put in place is not there any more.
    async fn settling(&self, run: &Run<'_, R>, facts: Facts, grounds: Grounds) -> Decided<R> {
        if facts.settling(&run.place.run_id()).is_some() {
            return Decided::Settle(Box::new((facts, grounds)));
        }
        let outcome = Outcome::Skipped {
            rule: Rule::NothingToDo,
            reason: "what the run put in place was taken back, or another run took the target in hand, before it had settled".to_owned(),
        };
        self.refuse(run, &facts, Refusing::new(outcome)).await
    }

    /// What is in place is taken back, if that still falls due.
    async fn restoring(&self, run: &Run<'_, R>, read: Read<'_, R>, grounds: Grounds) -> Decided<R> {
        let terms = Terms {
            temporary: run.temporary(),
            listed: run.listed,
        };
        let now = self.suite.clock.now();
        let own_lease = read
            .facts
            .lease
            .as_ref()
            .is_some_and(|lease| lease.run_id == run.place.run_id());
        let free = Facts {
            lease: read.facts.lease.clone().filter(|_| !own_lease),
            ..read.facts.clone()
        };
        let Duty::Restore(_) = duty::duty(&free, &read.alarms, terms, now) else {
            return Decided::Left;
        };
        if run.dry_run {
            let outcome = Outcome::Skipped {
                rule: Rule::DryRun,
                reason: "a dry run ends with its plan; nothing was restored".to_owned(),
            };
            let state = read.facts.snapshot().map(|snapshot| &snapshot.state);
            let plan = Some(json!({"restore": state}));
            let refusing = Refusing {
                plan,
                ..Refusing::new(outcome)
            };
            return self.refuse(run, &read.facts, refusing).await;
        }
        let in_alarm = read.alarms.in_alarm.iter();
        let mut against: Vec<String> = in_alarm
            .map(|alarm| format!("{alarm} is still in ALARM"))
            .collect();
        if duty::is_asked_whether_it_may_stay(&read.facts, &read.alarms, terms)
            && let Some(reason) = self.not_yet(run, &read.facts).await
        {
            match duty::may_stay_until(&read.facts, terms, now) {
                Some(end) => return self.stays(run, &read.facts, &reason, end).await,
                None => against.push(reason),
            }
        }
        Decided::Restore(Box::new((read.facts, grounds, against)))
    }

    /// The alarm is back to OK: the incident is closed, and what is temporary taken back once that has held.
    async fn recovered(&self, run: &Run<'_, R>, read: Read<'_, R>) -> Decided<R> {
        let now = self.suite.clock.now();
        let terms = Terms {
            temporary: run.temporary(),
            listed: run.listed,
        };
        let facts = &read.facts;
        let skipped = |rule, reason: String| Refusing::new(Outcome::Skipped { rule, reason });
        let pending = |reason: String, check_again_at| {
            Refusing::new(Outcome::Pending {
                reason,
                check_again_at,
                continuation: None,
            })
        };
        let refusing = match duty::recovery(facts, read.live, &read.alarms, terms, now) {
            Recovery::Nothing => return self.learned(run, read, now).await,
            Recovery::BackInAlarm => skipped(
                Rule::StaleEvent,
                "the alarm, read again, is in ALARM; what is in place stays".to_owned(),
            ),
            Recovery::OtherAlarm(alarm) => skipped(
                Rule::OtherAlarm,
                format!("{alarm} is still in ALARM; what is in place stays"),
            ),
            Recovery::NotKnown => skipped(
                Rule::OtherAlarm,
                "not every alarm of the target is known to be at OK; what is in place stays until it expires"
                    .to_owned(),
            ),
            Recovery::Later(at) => pending(
                format!(
                    "the alarm is back to OK; what is in place is taken back if that still holds at {}",
                    time(at)
                ),
                at,
            ),
            Recovery::Now => {
                let reason = "the alarm is back to OK; what is in place is due to be taken back";
                let taken_back = facts.snapshot().cloned();
                let noted = Refusing {
                    goes_on: true,
                    ..pending(reason.to_owned(), now)
                };
                let decided = self.refuse(run, facts, noted).await;
                return match (decided, taken_back) {
                    (Decided::Over(_), Some(snapshot)) => Decided::TakeBack(Box::new(snapshot)),
                    (other, _) => other,
                };
            }
        };
        self.refuse(run, facts, refusing).await
    }

    async fn learned(&self, run: &Run<'_, R>, read: Read<'_, R>, now: DateTime<Utc>) -> Decided<R> {
        let observed = read.observed.and_then(|observed| {
            observed
                .inspect_err(|error| tracing::warn!(%error, "nothing was learned"))
                .ok()
        });
        let known = memory::<R>(&read.facts);
        // A run that did not end has done what nothing remembers yet.
        let told = read.facts.standing.is_none();
        let lesson = observed.filter(|_| told).and_then(|observed| {
            R::Learning::learn(&observed, &run.target.action, known.as_ref(), now)
        });
        let learned = lesson
            .as_ref()
            .map(|lesson| format!("; {}", lesson.summary))
            .unwrap_or_default();
        let outcome = Outcome::AlreadyInPlace {
            reason: format!("the alarm is back to OK, and nothing temporary is in place{learned}"),
        };
        let refusing = Refusing {
            memory: lesson.map(|lesson| lesson.memory),
            ..Refusing::new(outcome)
        };
        self.refuse(run, &read.facts, refusing).await
    }

    /// What the plan comes to: an act, if nothing speaks against it.
    async fn agreed(
        &self,
        run: &Run<'_, R>,
        facts: Facts,
        grounds: Grounds,
        observed: Value,
        planned: PlannedBy<R>,
    ) -> Decided<R> {
        let now = self.suite.clock.now();
        let mut refusing = match planned {
            Planned::Nothing { reason } => Refusing::new(Outcome::Skipped {
                rule: Rule::NothingToDo,
                reason,
            }),
            Planned::InPlace { reason } => {
                let kept = run.temporary();
                let snapshot = facts.snapshot();
                Refusing {
                    renewed: snapshot.and_then(|found| next::renewed(found, kept, now)),
                    ..Refusing::new(Outcome::AlreadyInPlace { reason })
                }
            }
            Planned::Undecided { reason } => Refusing {
                waits: Some((Rule::Undecided, now)),
                ..Refusing::new(Outcome::Pending {
                    reason,
                    check_again_at: now + UNDECIDED_FOR,
                    continuation: run.is_a_step().then(|| run.continuation(None)),
                })
            },
            Planned::Escalate { rule, reason } => {
                Refusing::new(Outcome::Escalated { rule, reason })
            }
            Planned::Act { plan, snapshot } => {
                let plan_value = match value("the plan", &plan) {
                    Ok(plan) => plan,
                    Err(error) => return Decided::Over(run.failed(&error, false)),
                };
                if run.dry_run {
                    return self
                        .rehearse(run, &facts, &plan, (observed, plan_value))
                        .await;
                }
                match approval(run, &grounds, &plan_value, now) {
                    Ok(approved_by) => {
                        return Decided::Act(Box::new(Agreed {
                            facts,
                            grounds,
                            observed,
                            plan,
                            plan_value,
                            snapshot,
                            approved_by,
                        }));
                    }
                    Err(reason) => Refusing {
                        plan: Some(plan_value),
                        ..Refusing::new(Outcome::Escalated {
                            rule: Rule::ApprovalRequired,
                            reason,
                        })
                    },
                }
            }
        };
        refusing.observed = observed;
        self.refuse(run, &facts, refusing).await
    }

    async fn rehearse(
        &self,
        run: &Run<'_, R>,
        facts: &Facts,
        plan: &R::Plan,
        (observed, plan_value): (Value, Value),
    ) -> Decided<R> {
        let now = self.suite.clock.now();
        let action = &run.target.action;
        match self.remediation.rehearse(plan, action, now).await {
            Err(error) => Decided::Over(run.failed(&error, error.is_transient())),
            Ok(notes) => {
                let refusing = Refusing {
                    observed,
                    plan: Some(plan_value),
                    notes,
                    ..Refusing::new(Outcome::Skipped {
                        rule: Rule::DryRun,
                        reason: "a dry run ends with its plan; nothing was changed".to_owned(),
                    })
                };
                self.refuse(run, facts, refusing).await
            }
        }
    }
}

/// Looks, and again after a pause: a look that fails for a moment must not make an outage of a cure.
pub(super) async fn patiently<E, F>(seed: &str, look: impl Fn() -> F) -> Result<Verified, E>
where
    E: Failure,
    F: Future<Output = Result<Verified, E>>,
{
    let mut attempt = 0;
    loop {
        match look().await {
            Err(error) if error.is_transient() && attempt < READ_BACKS => {
                tracing::warn!(%error, "reading back again");
                tokio::time::sleep(backoff::pause(attempt + 3, seed)).await;
                attempt += 1;
            }
            looked => return looked,
        }
    }
}

/// Whether the run has begun what it ends whatever becomes of its alarm.
fn is_half_done<R: Remediation>(facts: &Facts) -> bool {
    let record = facts.record.as_ref();
    R::ENDS_WHAT_IT_BEGAN && record.is_some_and(|record| record.progress.is_some())
}

/// The target's alarms, as far as they were read.
fn alarms_of<R: Remediation>(
    run: &Run<'_, R>,
    live: &Live,
    facts: &Facts,
    now: DateTime<Utc>,
) -> Alarms {
    let fallback = facts.snapshot().map_or(now, |snapshot| snapshot.taken_at);
    let alarms = run.alarms.iter();
    Alarms::of(
        alarms.map(|arn| (arn.as_str(), live.get(arn).copied())),
        fallback,
    )
}

/// Who has approved the plan, where the policy wants that; or what is to be approved.
pub(super) fn approval<R: Remediation>(
    run: &Run<'_, R>,
    grounds: &Grounds,
    plan: &Value,
    now: DateTime<Utc>,
) -> Result<Option<String>, String> {
    let event = run.place.event;
    let hash = plan_hash::<R>(plan);
    // What was begun was approved; another plan than that was not.
    let begun = grounds.begun.as_ref().map(plan_hash::<R>);
    if begun.as_ref() == Some(&hash) || !R::needs_approval(&run.target.action) {
        return Ok(None);
    }
    let subject = (run.place.target, event.transition_key());
    let lasts = run.target.guard.approval_lasts();
    let approval = approved(&event.approvals, (subject.0, &subject.1, &hash), lasts, now)?;
    Ok(Some(format!(
        "{} at {}, until {}",
        approval.by,
        time(approval.at),
        time(ends_at(approval, lasts))
    )))
}

/// Whether a plan is another than the one that an attempt had begun, which alone may be concluded when it is too late.
fn is_another<R: Remediation>(plan: &R::Plan, grounds: &Grounds) -> bool {
    let hash = value("the plan", plan).map(|plan| plan_hash::<R>(&plan));
    hash.ok() != grounds.begun.as_ref().map(plan_hash::<R>)
}
