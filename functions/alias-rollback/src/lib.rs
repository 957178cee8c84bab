//! Takes the traffic away from a bad version of a Lambda function: off the canary, back to the newest version that
//! was seen to serve well, or by stopping the deployment that brings it.
//!
//! The story of a run: [`aws`] reads what is [`observed`] of the alias, its versions and what each of them served,
//! [`plan`] decides who is to blame, with [`onset`], and where to go, with [`shift`] where it goes in steps, [`aws`] moves the alias under the revision that was observed, and
//! [`memory`] keeps which versions are good, which are bad, and what was rolled back.

pub mod aws;
mod blame;
mod canary;
mod duration;
pub mod error;
pub mod memory;
pub mod observed;
pub mod onset;
pub mod plan;
pub mod policy;
pub mod shift;
mod steps;

use aws_config::SdkConfig;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use shared::alarm::AlarmEvent;
use shared::backoff;
use shared::ledger::timeline::{Entry, Kind};
use shared::outcome::Rule;
use shared::remediation::{
    Done, End, Lasting, Learning, Lesson, Moment, PlannedBy, Remediation, Rounds, Verified, Work,
};

use crate::aws::{Aws, Moved};
use crate::error::RollbackError;
use crate::memory::{Memory, RolledBack, Went};
use crate::observed::{Observed, Provisioned, State};
use crate::plan::{Plan, Step};
use crate::policy::Rollback;
use crate::shift::Progress;

/// The remediation's name.
pub const NAME: &str = "alias-rollback";

/// `CodeDeploy` takes about as long to shift the traffic back.
const DEPLOYMENT_STOPS_WITHIN: TimeDelta = TimeDelta::minutes(1);

/// Provisioned concurrency takes minutes.
const CONCURRENCY_COMES_WITHIN: TimeDelta = TimeDelta::minutes(2);

/// A version that sleeps takes minutes to wake: the pauses between looks begin above a second.
const WAKES_SLOWLY: u32 = 5;

/// The remediation.
#[derive(Debug)]
pub struct AliasRollback {
    aws: Aws,
}

impl AliasRollback {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            aws: Aws::new(config),
        }
    }
}

/// What a rollback did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The version that is to blame.
    pub from: u64,
    /// The version that has all the traffic afterwards.
    pub to: u64,
    /// Why.
    pub why: String,
}

impl Remediation for AliasRollback {
    const NAME: &'static str = NAME;
    /// A way back in steps goes by what the versions serve, and is not left half done.
    const ENDS_WHAT_IT_BEGAN: bool = true;
    type Action = Rollback;
    type Observed = Observed;
    type Plan = Plan;
    type Evidence = Evidence;
    type Memory = Memory;
    /// A rollback is not rolled forward: a mended version is deployed.
    type Reversal = Lasting;
    type Learning = Self;
    /// A way back in steps is one round each.
    type Rounds = Self;
    type Error = RollbackError;

    async fn observe(
        &self,
        action: &Rollback,
        event: Option<&AlarmEvent>,
        now: DateTime<Utc>,
    ) -> Result<Observed, RollbackError> {
        Box::pin(self.aws.observe(action, event.is_none(), now)).await
    }

    async fn observe_remembered(
        &self,
        observed: Observed,
        action: &Rollback,
        memory: Option<&Memory>,
    ) -> Result<Observed, RollbackError> {
        let unknown = Memory::default();
        let numbers = plan::to_look_up(&observed, action, memory.unwrap_or(&unknown));
        self.aws.look_up(action, numbers, observed).await
    }

    fn plan(observed: &Observed, action: &Rollback, moment: &Moment<'_, Self>) -> PlannedBy<Self> {
        plan::plan(observed, action, moment)
    }

    async fn apply(
        &self,
        plan: &Plan,
        action: &Rollback,
        work: &Work<'_, Self>,
    ) -> Result<Done<Self>, RollbackError> {
        if let Some(end) = self.awake(plan, action, work).await? {
            return Ok(Done::new(end, "the alias was not moved"));
        }
        let overtaken =
            |reason: String| Done::new(End::Overtaken { reason }, "nothing was changed");
        let changed = format!("{} was changed by another hand", action.alias);
        let (end, summary) = match &plan.step {
            Step::Shift { .. } | Step::Watch { .. } | Step::Unshift { .. } => {
                let stepped = self.stepped(plan, action, work).await?;
                return Ok(stepped.unwrap_or_else(|| overtaken(changed)));
            }
            Step::Point {
                to,
                revision_id,
                drops_weight,
                ..
            } => {
                self.about_to_give(100, work).await?;
                let clearance = work.clear("move the alias")?;
                let versions = ((!drops_weight).then_some(plan.from), *to);
                let moved = self
                    .aws
                    .point(action, versions, revision_id, clearance)
                    .await?;
                match moved {
                    Moved::There => self.moved(plan, action, work).await,
                    Moved::Overtaken => return Ok(overtaken(changed)),
                }
            }
            Step::StopDeployment { deployment, .. } => {
                let clearance = work.clear("stop the deployment")?;
                if let Some(status) = self.aws.stop(deployment, clearance).await? {
                    let ended = format!("deployment {deployment} has ended: {status}");
                    return Ok(overtaken(ended));
                }
                let end = End::Settling {
                    reason: format!("{deployment} takes its time to roll back"),
                    check_again_at: work.now() + DEPLOYMENT_STOPS_WITHIN,
                };
                (
                    end,
                    format!("deployment {deployment} was told to stop and to roll back"),
                )
            }
        };
        let memory = work.memory().cloned().unwrap_or_default();
        let blamed = work.progress().is_none();
        Ok(Done {
            memory: Some(memory.with(rolled_back(plan, work))),
            ..told(plan, Done::new(end, summary), blamed)
        })
    }

    async fn settled(
        &self,
        plan: &Plan,
        action: &Rollback,
        work: &Work<'_, Self>,
    ) -> End<Progress> {
        match plan.step {
            Step::StopDeployment { .. } => self.pointed_back(plan, action, work).await,
            _ => self.smoke_test(action, plan.to(), work).await,
        }
    }

    async fn verify(
        &self,
        plan: &Plan,
        _evidence: Option<&Evidence>,
    ) -> Result<Verified, RollbackError> {
        let mut alias = self.aws.alias(&plan.function, &plan.alias).await?;
        if let Step::StopDeployment { deployment, to, .. } = &plan.step
            && !alias.points_alone_to(*to)
            && let Some(status) = self.aws.ended(deployment).await?
        {
            // It may have ended, and taken the alias back, since the alias was read.
            alias = self.aws.alias(&plan.function, &plan.alias).await?;
            if !alias.points_alone_to(*to) {
                let summary = format!(
                    "deployment {deployment} has ended ({status}) and left the alias at version {}; the schedule points it to version {to} alone",
                    alias.version
                );
                return Ok(Verified {
                    holds: true,
                    summary,
                });
            }
        }
        let weights = if alias.weights.is_empty() {
            "no other version has a weight".to_owned()
        } else {
            format!("weights are {:?}", alias.weights)
        };
        Ok(Verified {
            holds: alias.points_alone_to(plan.to()),
            summary: format!("read back: version {}, {weights}", alias.version),
        })
    }
}

/// What is told of a rollback, and, the first time, who is to blame.
fn told(plan: &Plan, done: Done<AliasRollback>, blamed: bool) -> Done<AliasRollback> {
    let entry = Entry {
        kind: Kind::Blamed,
        summary: plan.why.clone(),
        detail: Value::Null,
    };
    Done {
        evidence: Some(Evidence {
            from: plan.from,
            to: plan.step.to(),
            why: plan.why.clone(),
        }),
        entries: blamed.then_some(entry).into_iter().collect(),
        notes: [plan.drift.clone()]
            .into_iter()
            .chain(plan.notes.clone())
            .collect(),
        ..done
    }
}

fn rolled_back(plan: &Plan, work: &Work<'_, AliasRollback>) -> RolledBack {
    RolledBack {
        incident_id: work.incident_id().to_owned(),
        from: plan.from,
        to: plan.step.to(),
        at: work.now(),
        went: Went::AllTheWay,
    }
}

impl Learning<Self> for AliasRollback {
    fn learn(
        observed: &Observed,
        action: &Rollback,
        memory: Option<&Memory>,
        now: DateTime<Utc>,
    ) -> Option<Lesson<Memory>> {
        memory::learn(observed, action, memory, now)
    }
}

impl Rounds<Self> for AliasRollback {
    type Progress = Progress;

    fn at_most(action: &Rollback) -> u32 {
        let shift = action.shift.as_ref();
        let steps = shift.map_or(1, |shift| shift.percents.len());
        u32::try_from(steps).unwrap_or(u32::MAX)
    }

    fn remembered(
        _progress: Option<&Progress>,
        memory: Option<&Memory>,
        _now: DateTime<Utc>,
    ) -> Option<Memory> {
        let memory = memory.filter(|memory| memory.shifting.is_some());
        memory
            .cloned()
            .map(|memory| memory.broken_off(Went::HalfWay))
    }

    /// No round asks for the next at once: the schedule begins it when the share was served for a while.
    async fn carry_on(
        _remediation: &Self,
        _progress: &Progress,
        _function_arn: &str,
        _payload: &Value,
    ) -> Result<(), RollbackError> {
        Ok(())
    }
}

impl AliasRollback {
    /// Wakes the version that the plan goes back to, where it sleeps, and waits until it is active or the time is up;
    /// gives how the run ends if it is not. The invocation that wakes it fails without running it; an attempt that follows
    /// a death finds it asleep, pending or active, and goes on from there.
    async fn awake(
        &self,
        plan: &Plan,
        action: &Rollback,
        work: &Work<'_, Self>,
    ) -> Result<Option<End<Progress>>, RollbackError> {
        let (
            Step::Point {
                to, wakes: true, ..
            }
            | Step::Shift {
                to, wakes: true, ..
            },
            Some(test),
        ) = (&plan.step, &action.smoke_test)
        else {
            return Ok(None);
        };
        let mut refused = None;
        let mut woken = false;
        for attempt in 0.. {
            let version = self.aws.version(&plan.function, *to).await?;
            match version.and_then(|version| version.state) {
                Some(State::Active) => return Ok(None),
                Some(State::Asleep) if !woken => {
                    let clearance = work.clear("wake the version")?;
                    refused = self.aws.wake(action, (test, *to), clearance).await;
                    woken = true;
                    continue;
                }
                Some(State::Pending | State::Asleep) => {}
                None | Some(State::Unable { .. }) => {
                    let reason = format!("version {to} did not wake");
                    return Ok(Some(End::Overtaken { reason }));
                }
            }
            let pause = backoff::pause(attempt + WAKES_SLOWLY, work.run_id());
            if work.now() + TimeDelta::from_std(pause).unwrap_or_default() >= work.until() {
                let told = refused
                    .map(|error| format!(": {error}"))
                    .unwrap_or_default();
                return Ok(Some(End::Failed {
                    error: format!(
                        "version {to} slept, was woken, and is not Active yet; the next attempt looks again{told}"
                    ),
                    retryable: true,
                    progress: None,
                }));
            }
            tokio::time::sleep(pause).await;
        }
        Ok(None)
    }

    /// What becomes of an alias that was moved: Lambda itself leaves the traffic where it was until provisioned
    /// concurrency is allocated for the new version (AWS Lambda Developer Guide, "Configuring provisioned concurrency for
    /// a function").
    async fn moved(
        &self,
        plan: &Plan,
        action: &Rollback,
        work: &Work<'_, Self>,
    ) -> (End<Progress>, String) {
        let (from, to) = (plan.from, plan.to());
        let alone = format!("{} points to version {to} alone", action.alias);
        let dropped = matches!(
            plan.step,
            Step::Point {
                drops_weight: true,
                ..
            }
        );
        // Nothing is to be waited for, and the verification looks anyway.
        if dropped && action.smoke_test.is_none() {
            return (End::Finished, alone);
        }
        let alias = match self.aws.alias(action.function_arn(), action.name()).await {
            Ok(alias) => alias,
            Err(error) => {
                let reason = format!("the alias was moved, and could not be read back: {error}");
                return (
                    End::Escalated {
                        rule: Rule::Unsafe,
                        reason,
                    },
                    alone,
                );
            }
        };
        if alias.points_alone_to(to) {
            return (self.smoke_test(action, to, work).await, alone);
        }
        let provisioned = self.aws.allocating(action).await;
        if !dropped && alias.is_leaving(from, to) && !matches!(provisioned, Ok(Provisioned::None)) {
            let share = alias.weights.get(&from).copied().unwrap_or_default() * 100.0;
            let end = End::Settling {
                reason: format!(
                    "Lambda keeps {share:.0} % of the traffic at version {from} until the provisioned concurrency of version {to} is allocated"
                ),
                check_again_at: work.now() + CONCURRENCY_COMES_WITHIN,
            };
            return (end, format!("{} was pointed to version {to}", action.alias));
        }
        // What is not as it was put is told by the verification, and trying it would prove nothing.
        (End::Finished, alone)
    }

    /// What is left to do once a deployment has ended: one that has no rollback configured, or had shifted nothing that
    /// `CodeDeploy` would take back, leaves the alias as it was when it was stopped (AWS `CodeDeploy` User Guide,
    /// "Troubleshoot AWS Lambda deployment issues").
    async fn pointed_back(
        &self,
        plan: &Plan,
        action: &Rollback,
        work: &Work<'_, Self>,
    ) -> End<Progress> {
        let (from, to) = (plan.from, plan.to());
        let left = |reason: String| End::Escalated {
            rule: Rule::Unsafe,
            reason: format!("the deployment was stopped, and {reason}"),
        };
        let alias = match self.aws.alias(&plan.function, &plan.alias).await {
            Ok(alias) => alias,
            Err(error) => return left(format!("the alias could not be read: {error}")),
        };
        if alias.points_alone_to(to) {
            return self.smoke_test(action, to, work).await;
        }
        let known = |version: &u64| [from, to].contains(version);
        if !known(&alias.version) || !alias.weights.keys().all(known) {
            return left(format!(
                "another hand pointed {} to version {}; it is left there",
                action.alias, alias.version
            ));
        }
        let moved = match work.clear("move the alias") {
            Ok(clearance) => {
                let versions = (None, to);
                let revision = &alias.revision_id;
                self.aws.point(action, versions, revision, clearance).await
            }
            Err(error) => Err(error.into()),
        };
        match moved {
            Ok(Moved::There) => self.smoke_test(action, to, work).await,
            Ok(Moved::Overtaken) => left(format!("{} was changed by another hand", action.alias)),
            Err(error) => left(format!(
                "the alias was not pointed to version {to}: {error}"
            )),
        }
    }

    /// The end of a rollback: what the alias answers now.
    async fn smoke_test(&self, action: &Rollback, to: u64, work: &Work<'_, Self>) -> End<Progress> {
        let Some(test) = &action.smoke_test else {
            return End::Finished;
        };
        let alias = action.alias.as_str();
        let tried = match work.clear("try the alias") {
            Ok(clearance) => self.aws.smoke_test(alias, (test, to), clearance).await,
            Err(error) => Err(error.into()),
        };
        match tried {
            Ok(None) => End::Finished,
            Ok(Some(error)) => End::Escalated {
                rule: Rule::Unsafe,
                reason: format!(
                    "{} was rolled back, and its smoke test still fails: {error}",
                    action.alias
                ),
            },
            Err(error) => End::Escalated {
                rule: Rule::Unsafe,
                reason: format!("the rollback stands, and could not be tried: {error}"),
            },
        }
    }
}
