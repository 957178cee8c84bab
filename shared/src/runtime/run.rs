//! One invocation: the event is read, its targets are found and worked on a few at a time, and one answer is given.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::Value;
use tracing::Instrument as _;

use crate::alarm::{self, AlarmEvent, State};
use crate::guard::Occasion;
use crate::ledger::items::{self, Place};
use crate::outcome::{Outcome, Report, Response, Rule};
use crate::policy::{Action as _, Home, Loaded, Target};
use crate::remediation::Remediation;
use crate::runtime::engine::Runtime;
use crate::runtime::error::RunError;
use crate::runtime::invocation::Invocation;
use crate::runtime::job::{Continuation, LEAST, RESERVE, Ran, Run, SIDE_BY_SIDE, Told};
use crate::runtime::policies;
use crate::runtime::reads::Reads;
use crate::runtime::sweep;

/// After so long, targets that are begun read the alarm, the switches and the policy anew.
const READ_AGAIN: TimeDelta = TimeDelta::seconds(20);
/// How long an invocation waits for its turn at reading the alarm, at most.
const PATIENCE: TimeDelta = TimeDelta::seconds(40);
/// From so many targets on, an answer holds outcomes only; the ledger holds the rest.
const TOLD_IN_FULL: usize = 50;

/// What an invocation was asked.
pub(super) struct Asked<'a> {
    pub(super) invocation: &'a Invocation,
    pub(super) home: Home,
    pub(super) trigger: Value,
    pub(super) event: AlarmEvent,
    continuation: Option<Continuation>,
}

impl<R: Remediation> Runtime<R> {
    /// Answers one event.
    pub async fn handle(&self, invocation: Invocation) -> Result<Response, RunError> {
        let span = tracing::info_span!(
            "run",
            remediation = R::NAME,
            request_id = %invocation.request_id,
            trace_id = invocation.trace_id.as_deref().unwrap_or_default(),
        );
        let answer = self.answer(&invocation).instrument(span.clone()).await;
        span.in_scope(|| match &answer {
            Ok(response) if response.reports.iter().all(is_nobodys) => {
                tracing::debug!(overall = response.overall.name(), "answered");
            }
            Ok(response) => tracing::info!(overall = response.overall.name(), "answered"),
            Err(error) => tracing::error!(%error, retryable = error.is_transient(), "failed"),
        });
        answer
    }

    async fn answer(&self, invocation: &Invocation) -> Result<Response, RunError> {
        let arn = &invocation.function_arn;
        let home = Home::of_function(arn).ok_or_else(|| RunError::Home { arn: arn.clone() })?;
        if sweep::is_schedule(&invocation.payload) {
            return self.sweep(invocation, &home).await;
        }
        let (trigger, continuation) = match invocation.payload.get("continuation") {
            Some(continuation) => {
                let continuation: Continuation =
                    serde_json::from_value(continuation.clone()).map_err(RunError::Continuation)?;
                (continuation.trigger.clone(), Some(continuation))
            }
            None => (invocation.payload.clone(), None),
        };
        let event = alarm::parse(&trigger)?;
        // The emulator gives each function the ARN of an account that is nobody's: there, it is at home with its alarm.
        let home = Some(&event.alarm_arn)
            .filter(|_| self.suite.settings.local)
            .and_then(|arn| Home::of_function(arn))
            .unwrap_or(home);
        let asked = Asked {
            invocation,
            home,
            trigger,
            event,
            continuation,
        };
        let mut policy = self.policies.known(&self.suite, &asked.home).await?;
        let mut read_here = false;
        let reports = loop {
            if Self::targets(&asked, &policy).is_empty() {
                let enough = policies::suffices(policy.read_at, asked.event.changed_at);
                if !enough && !read_here {
                    read_here = true;
                    policy = self.policies.read(&self.suite, &asked.home).await?;
                    continue;
                }
                break vec![self.nobodys(&asked)];
            }
            match self.on_targets(&asked, &policy).await {
                Ok(reports) => break reports,
                Err(changed) => policy = changed,
            }
        };
        concluded(Response::new(
            asked.event.alarm_arn.clone(),
            asked.event.state.as_str().to_owned(),
            shortened(reports),
        ))
    }

    fn targets<'a>(
        asked: &Asked<'_>,
        policy: &'a Arc<Loaded<R::Action>>,
    ) -> Vec<&'a Target<R::Action>> {
        let wanted = asked.continuation.as_ref();
        policy
            .document
            .targets_of(&asked.event.alarm_arn, &asked.home)
            .into_iter()
            .filter(|target| wanted.is_none_or(|wanted| wanted.target == target.name))
            .collect()
    }

    /// The report of an event that concerns nobody.
    fn nobodys(&self, asked: &Asked<'_>) -> Report {
        let outcome = Outcome::Skipped {
            rule: Rule::NoTarget,
            reason: format!(
                "no target in {} lists {}; a bare name there means an alarm of account {} in {}",
                self.suite.settings.policy_parameter,
                asked.event.alarm_arn,
                asked.home.account,
                asked.home.region,
            ),
        };
        Report::new(R::NAME, "", "", outcome)
    }

    /// Runs on every target that the policy gives the alarm, a few at a time; `Err` when the policy changed before
    /// anything was done. What does not fit in the time is left for the schedule.
    async fn on_targets(
        &self,
        asked: &Asked<'_>,
        policy: &Arc<Loaded<R::Action>>,
    ) -> Result<Vec<Report>, Arc<Loaded<R::Action>>> {
        let targets = Self::targets(asked, policy);
        let mut wanted = BTreeSet::from([asked.event.alarm_arn.clone()]);
        if asked.event.state == State::Ok {
            wanted.extend(
                targets
                    .iter()
                    .flat_map(|target| target.alarm_arns(&asked.home)),
            );
        }
        let last_start = asked.invocation.deadline - RESERVE - LEAST;
        let mut reads = self.reads_for(asked, policy, &wanted, last_start);
        let mut read_at = self.suite.clock.now();
        let mut targets = targets.into_iter().enumerate();
        let mut running = FuturesUnordered::new();
        let mut reports = Vec::new();
        let mut changed = None;
        loop {
            while changed.is_none()
                && running.len() < SIDE_BY_SIDE
                && let Some((at, target)) = targets.next()
            {
                let now = self.suite.clock.now();
                if now - read_at >= READ_AGAIN {
                    reads = self.reads_for(asked, policy, &wanted, last_start);
                    read_at = now;
                }
                // The first are always begun: an invocation that had no time at all would do nothing for ever.
                let in_time = at < SIDE_BY_SIDE || now < last_start;
                let reads = Arc::clone(&reads);
                running.push(self.begun(asked, (at, target), reads, in_time));
            }
            match running.next().await {
                None => break,
                // What is at work already comes to its end first, and is a duplicate then.
                Some((_, Ran::PolicyChanged(now))) => changed = Some(now),
                Some((_, Ran::Left)) => {}
                Some((at, Ran::Reported(told))) => {
                    let Told { report, .. } = *told;
                    reports.push((at, report));
                }
            }
        }
        if let Some(changed) = changed {
            return Err(changed);
        }
        reports.sort_by_key(|(at, _)| *at);
        Ok(reports.into_iter().map(|(_, report)| report).collect())
    }

    /// What the targets that are begun from now on read together.
    fn reads_for<'a>(
        &'a self,
        asked: &'a Asked<'_>,
        policy: &Arc<Loaded<R::Action>>,
        wanted: &BTreeSet<String>,
        last_start: DateTime<Utc>,
    ) -> Arc<Reads<'a, R::Action>> {
        let patience = (self.suite.clock.now() + PATIENCE).min(last_start);
        Arc::new(Reads::new(
            (&self.suite, &asked.home, &self.policies),
            Arc::clone(policy),
            asked.event.changed_at,
            wanted.clone(),
            (patience, &asked.invocation.request_id),
        ))
    }

    async fn begun(
        &self,
        asked: &Asked<'_>,
        (at, target): (usize, &Target<R::Action>),
        reads: Arc<Reads<'_, R::Action>>,
        in_time: bool,
    ) -> (usize, Ran<R::Action>) {
        let run = self.run_of(asked, target);
        if !in_time {
            return (at, self.defer(&run).await);
        }
        let causation_id = run.place.run_id();
        let span = tracing::info_span!("target", target = %target.name, %causation_id);
        let ran = Box::pin(self.on_target(&run, &reads)).instrument(span);
        (at, ran.await)
    }

    fn run_of<'a>(&self, asked: &'a Asked<'_>, target: &'a Target<R::Action>) -> Run<'a, R> {
        Run {
            place: Place {
                remediation: R::NAME,
                target: &target.name,
                resource: target.action.resource(),
                event: &asked.event,
                transition: items::transition(&asked.event),
                request_id: &asked.invocation.request_id,
            },
            target,
            alarms: target.alarm_arns(&asked.home),
            invocation: asked.invocation,
            trigger: asked.trigger.clone(),
            occasion: Occasion::Delivered,
            listed: true,
            round: asked
                .continuation
                .as_ref()
                .and_then(|continuation| continuation.round),
            dry_run: self.suite.settings.dry_run || asked.event.dry_run,
            began: self.suite.clock.now(),
        }
    }
}

fn is_nobodys(report: &Report) -> bool {
    report.outcome.rule() == Some(Rule::NoTarget)
}

/// Reports that an answer can hold, however many they are.
fn shortened(reports: Vec<Report>) -> Vec<Report> {
    if reports.len() <= TOLD_IN_FULL {
        return reports;
    }
    let outcomes = reports.into_iter().map(|report| Report {
        plan: None,
        evidence: None,
        notes: Vec::new(),
        steps: Vec::new(),
        ..report
    });
    outcomes.collect()
}

/// The response, as an error where a target failed.
fn concluded(response: Response) -> Result<Response, RunError> {
    let failures = || {
        response
            .reports
            .iter()
            .filter_map(|report| match &report.outcome {
                Outcome::Failed { retryable, .. } => Some(*retryable),
                _ => None,
            })
    };
    if failures().next().is_none() {
        return Ok(response);
    }
    let retryable = failures().any(|retryable| retryable);
    Err(RunError::Failed {
        response: Box::new(response),
        retryable,
    })
}
