//! Whether a version is to blame, and what is done about it. Pure.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use shared::outcome::Rule;
use shared::remediation::{Moment, Planned, PlannedBy};

use crate::AliasRollback;
use crate::blame::{Blamed, Unblamed, hours, promoted};
use crate::canary::canary;
use crate::memory::{Memory, Went};
use crate::observed::{Observed, State, Traffic, Version};
use crate::policy::{CodeDeploy, DeploymentGroup, Rollback, Shift};
use crate::shift;

/// Versions that are told of, with what speaks against each, where there is none to go back to.
const TOLD: usize = 20;

/// How long after the alarm figures that do not show what it tells are waited for: those of an invocation come when it
/// has ended, under the minute in which it began.
const UNSEEN_FOR: TimeDelta = TimeDelta::minutes(10);

/// By then a way back in steps has ended, or its run is dead: longer than the longest that a policy can have.
const SHIFTS_WITHIN: TimeDelta = TimeDelta::hours(24);

/// What is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Step {
    /// All traffic goes to `to`, and no other version has a weight.
    Point {
        /// The version.
        to: u64,
        /// The alias's revision that this rests on.
        revision_id: String,
        /// Whether the alias is at that version already, and only another's weight goes.
        #[serde(default)]
        drops_weight: bool,
        /// Whether that version sleeps, and is woken before the alias moves.
        #[serde(default, skip_serializing_if = "is_not")]
        wakes: bool,
    },
    /// A share of the traffic goes to `to`, and the rest stays for now.
    Shift {
        /// The version.
        to: u64,
        /// Its share, in percent.
        percent: u8,
        /// The alias's revision that this rests on.
        revision_id: String,
        /// Whether that version sleeps, and is woken before.
        #[serde(default, skip_serializing_if = "is_not")]
        wakes: bool,
    },
    /// `to` keeps the share that it has, until there is enough to compare.
    Watch {
        /// The version.
        to: u64,
        /// Its share, in percent.
        percent: u8,
        /// Since when it has that.
        since: DateTime<Utc>,
        /// When to look again.
        until: DateTime<Utc>,
        /// What was compared.
        reason: String,
    },
    /// The share of `to` is taken away again, since it does no better, and a human has to decide.
    Unshift {
        /// The version.
        to: u64,
        /// The alias's revision that this rests on.
        revision_id: String,
        /// What was compared.
        reason: String,
    },
    /// The deployment is stopped, and rolls back by its own means.
    StopDeployment {
        /// Its id.
        deployment: String,
        /// Of which group.
        group: DeploymentGroup,
        /// The version that it leaves the alias at.
        to: u64,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form.
fn is_not(it: &bool) -> bool {
    !it
}

/// A rollback, complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The function's ARN.
    pub function: String,
    /// The alias's name.
    pub alias: String,
    /// The version that is to blame.
    pub from: u64,
    /// What is done.
    pub step: Step,
    /// Why: the versions' figures side by side, and the age of the deployment.
    pub why: String,
    /// Who will disagree with the alias from now on.
    pub drift: String,
    /// Newer versions that it does not go back to, each with the reason.
    #[serde(default)]
    pub skipped: Vec<String>,
    /// What the policy asks for, and is not so: what could not be seen, or not be done in steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Whether the alias is invoked once afterwards.
    pub smoke_test: bool,
}

impl Plan {
    /// The version that has all the traffic in the end.
    #[must_use]
    pub fn to(&self) -> u64 {
        match &self.step {
            Step::Unshift { .. } => self.from,
            other => other.to(),
        }
    }
}

impl Step {
    /// The version that is gone back to.
    #[must_use]
    pub fn to(&self) -> u64 {
        match self {
            Self::Point { to, .. }
            | Self::Shift { to, .. }
            | Self::Watch { to, .. }
            | Self::Unshift { to, .. }
            | Self::StopDeployment { to, .. } => *to,
        }
    }
}

/// Decides.
#[must_use]
pub fn plan(
    observed: &Observed,
    policy: &Rollback,
    moment: &Moment<'_, AliasRollback>,
) -> PlannedBy<AliasRollback> {
    let unknown = Memory::default();
    let memory = moment.memory.unwrap_or(&unknown);
    let in_steps = moment.progress.and_then(|progress| {
        shift::carry_on(observed, policy, (progress, moment.begun), moment.now)
    });
    if let Some(planned) = in_steps.or_else(|| begun(observed, policy, moment)) {
        return planned;
    }
    if moment.recovered && moment.progress.is_some() {
        return Planned::Nothing {
            reason: format!(
                "the alarm, read again, is not in ALARM any more, and {} was given no share yet; it is left as it is",
                policy.alias
            ),
        };
    }
    if let Some(left) = left_alone(observed, policy, memory, moment) {
        return left;
    }
    let times = (moment.event.changed_at, moment.now);
    let blamed = if observed.alias.weights.is_empty() {
        promoted(observed, policy, memory, times)
    } else {
        canary(observed, &policy.blame, times)
    };
    let blamed = match blamed {
        Ok(blamed) => blamed,
        Err(Unblamed::ByNoMeans(reason)) => return Planned::Nothing { reason },
        Err(Unblamed::TooEarly(reason)) => return Planned::Undecided { reason },
        Err(Unblamed::Unseen(reason)) if moment.now - moment.event.changed_at < UNSEEN_FOR => {
            return Planned::Undecided { reason };
        }
        Err(Unblamed::Unseen(reason)) => {
            let since = hours(moment.now - moment.event.changed_at);
            return unsafe_to(format!(
                "{reason}; the alarm is in ALARM for {since} all the same"
            ));
        }
        Err(Unblamed::Unsure(reason)) => return unsafe_to(reason),
    };
    match step(observed, policy, memory, (&blamed, moment.now)) {
        Ok((step, skipped, at_once)) => Planned::Act {
            plan: Plan {
                function: policy.function_arn().to_owned(),
                alias: policy.name().to_owned(),
                from: blamed.from,
                drift: drift(observed, policy, (&step, blamed.from)),
                step,
                why: blamed.why,
                skipped,
                notes: observed.unseen().into_iter().chain(at_once).collect(),
                smoke_test: policy.smoke_test.is_some(),
            },
            snapshot: None,
        },
        Err(planned) => *planned,
    }
}

pub(crate) fn unsafe_to(reason: String) -> PlannedBy<AliasRollback> {
    Planned::Escalate {
        rule: Rule::Unsafe,
        reason,
    }
}

/// A step, the versions that were passed over for it, and why it is not the first of several where the policy wants them.
type Chosen = (Step, Vec<String>, Option<String>);

/// How the traffic is taken away from the version that is to blame.
fn step(
    observed: &Observed,
    policy: &Rollback,
    memory: &Memory,
    (blamed, now): (&Blamed, DateTime<Utc>),
) -> Result<Chosen, Box<PlannedBy<AliasRollback>>> {
    let Blamed {
        from, beside, why, ..
    } = blamed;
    let main = observed.alias.version;
    let is_canary = *from != main;
    if let Some(deployment) = &observed.deployment {
        let id = &deployment.id;
        if deployment.rolls_back {
            let reason =
                format!("{why}; deployment {id} takes the alias back already, and is left to it");
            return Err(Box::new(Planned::InPlace { reason }));
        }
        if !is_canary && deployment.target != Some(*from) {
            return Err(Box::new(unsafe_to(format!(
                "{why}; deployment {id} is in flight and may bring the mended version: it is left alone, and so is the alias"
            ))));
        }
    }
    let sharing = if is_canary { Some(main) } else { *beside };
    let way = match sharing {
        Some(to) if memory.bad.contains_key(&to) => {
            return Err(Box::new(unsafe_to(format!(
                "{why}; version {to}, which has the rest of the traffic, was rolled back from itself: choose a version by hand"
            ))));
        }
        Some(to) => Way {
            to,
            wakes: false,
            skipped: Vec::new(),
        },
        None => way_back(observed, policy, memory, (blamed, now))?,
    };
    let Way { to, wakes, skipped } = way;
    if sharing.is_none()
        && let Some(shift) = &policy.shift
    {
        let (step, at_once) = first_step(observed, shift, blamed, (to, wakes));
        return Ok((step, skipped, at_once));
    }
    let step = match (&observed.deployment, &policy.codedeploy) {
        (Some(deployment), Some(CodeDeploy::Group(group))) => Step::StopDeployment {
            deployment: deployment.id.clone(),
            group: group.clone(),
            to,
        },
        _ => Step::Point {
            to,
            revision_id: observed.alias.revision_id.clone(),
            drops_weight: is_canary,
            wakes,
        },
    };
    Ok((step, skipped, None))
}

/// The first of several steps back, or all of them at once, and why.
fn first_step(
    observed: &Observed,
    shift: &Shift,
    blamed: &Blamed,
    (to, wakes): (u64, bool),
) -> (Step, Option<String>) {
    let revision_id = observed.alias.revision_id.clone();
    let obstacle = shift::obstacle(observed, (blamed.from, to), blamed.counted);
    let first = shift.percents.first().copied().unwrap_or(100);
    if obstacle.is_none() && first < 100 {
        let step = Step::Shift {
            to,
            percent: first,
            revision_id,
            wakes,
        };
        return (step, None);
    }
    let step = Step::Point {
        to,
        revision_id,
        drops_weight: false,
        wakes,
    };
    let at_once =
        obstacle.map(|why| format!("the alias is pointed at once, and not in steps: {why}"));
    (step, at_once)
}

/// Why the alias is left alone, whoever is to blame.
fn left_alone(
    observed: &Observed,
    policy: &Rollback,
    memory: &Memory,
    moment: &Moment<'_, AliasRollback>,
) -> Option<PlannedBy<AliasRollback>> {
    let alias = &policy.alias;
    let nothing = |reason: String| Planned::Nothing { reason };
    if let Some(last) = &memory.last
        && last.incident_id == moment.incident_id
        && !moment.resuming
    {
        let (from, to) = (last.from, last.to);
        let before = match last.went {
            Went::AllTheWay => format!("was rolled back from version {from} to {to}"),
            Went::HalfWay => {
                format!("was on its way back from version {from} to {to}, and left there,")
            }
            Went::AndCameBack => {
                format!("was rolled back from version {from} to {to}, which was undone,")
            }
        };
        return Some(nothing(format!(
            "{alias} {before} in this incident already; a second rollback would be a guess"
        )));
    }
    if let Some(shifting) = &memory.shifting
        && moment.progress.is_none()
        && moment.now - shifting.at < SHIFTS_WITHIN
    {
        return Some(Planned::Undecided {
            reason: format!(
                "{alias} goes back from version {} to {} in steps already, for {}",
                shifting.from, shifting.to, shifting.incident_id
            ),
        });
    }
    let served = |traffic: &Traffic| traffic.invocations > 0;
    let invoked = served(&observed.total) || observed.by_version.values().any(served);
    if observed.used_by.is_empty() && !invoked {
        return Some(nothing(format!(
            "nothing invokes {alias}: it has no event source mapping, no permission and no invocation in the window; rolling it back would change nothing"
        )));
    }
    if let Some(elsewhere) = pointed_elsewhere(observed, moment) {
        return Some(nothing(elsewhere));
    }
    if observed.is_allocating() {
        return Some(Planned::Undecided {
            reason: format!(
                "provisioned concurrency of {alias} is being allocated, which moves the alias's weights by itself"
            ),
        });
    }
    None
}

/// What becomes of the plan of an earlier attempt that did not live to say what it did; `None` where it did nothing.
fn begun(
    observed: &Observed,
    policy: &Rollback,
    moment: &Moment<'_, AliasRollback>,
) -> Option<PlannedBy<AliasRollback>> {
    let plan = moment.begun?;
    let alias = &observed.alias;
    match &plan.step {
        // Progress is saved before a share is given, so that none was.
        Step::Shift { revision_id, .. } if *revision_id == alias.revision_id => return None,
        Step::Shift { .. } | Step::Watch { .. } | Step::Unshift { .. } => {
            return Some(changed_since(policy, plan));
        }
        _ if alias.points_alone_to(plan.to()) => {}
        // Whether another hand or Lambda itself moves it is to be seen when that is over.
        _ if observed.is_allocating() => return None,
        // What was to be stopped has ended before it was.
        Step::StopDeployment { .. }
            if moment.overtaken.is_some() || alias.points_alone_to(plan.from) =>
        {
            return None;
        }
        // Once the deployment was stopped, the one in flight is its rollback, which has to go on. Stopping the first
        // again changes nothing.
        Step::StopDeployment { .. } => {}
        Step::Point { revision_id, .. } if *revision_id == alias.revision_id => return None,
        // It may have been moved, and back since: once more would be the second time in the incident.
        Step::Point { .. } => return Some(changed_since(policy, plan)),
    }
    Some(Planned::Act {
        plan: plan.clone(),
        snapshot: None,
    })
}

fn changed_since(policy: &Rollback, plan: &Plan) -> PlannedBy<AliasRollback> {
    unsafe_to(format!(
        "an earlier attempt was to point {} to version {} and did not live to tell; another hand has changed the alias since, and it is left as it is",
        policy.alias,
        plan.step.to()
    ))
}

/// Another hand was quicker, and pointed the alias to a version that the plan did not know: what that serves is still
/// to be seen, and the figures are of those before it.
fn pointed_elsewhere(observed: &Observed, moment: &Moment<'_, AliasRollback>) -> Option<String> {
    let plan = moment.overtaken?;
    let alias = &observed.alias;
    let known = alias.version == plan.from || alias.version == plan.to();
    (alias.weights.is_empty() && !known).then(|| {
        format!(
            "another hand pointed the alias to version {} while a rollback from version {} was planned; it is left there",
            alias.version, plan.from
        )
    })
}

/// Where to go back to.
struct Way {
    to: u64,
    /// Whether it has to be woken first.
    wakes: bool,
    /// Newer versions, and why they will not do.
    skipped: Vec<String>,
}

/// The newest earlier version that served well, is within reach, still there, can be invoked or woken, and is not the
/// bad one under another number.
fn way_back(
    observed: &Observed,
    policy: &Rollback,
    memory: &Memory,
    (blamed, now): (&Blamed, DateTime<Utc>),
) -> Result<Way, Box<PlannedBy<AliasRollback>>> {
    let from = blamed.from;
    let earlier = memory.good.range(..from).map(|(number, _)| *number);
    let earlier = earlier.chain(memory.bad.range(..from).map(|(number, _)| *number));
    let published = observed.versions.range(..from).map(|(number, _)| *number);
    let candidates: BTreeSet<u64> = earlier.chain(published).collect();
    let mut skipped = Vec::new();
    for number in candidates.into_iter().rev() {
        let why = unfit(observed, memory, (from, number))
            .map(str::to_owned)
            .or_else(|| too_far(policy, memory, (from, number, now)));
        let why = match why {
            None => readiness(observed, policy, number),
            Some(why) => Readiness::Not(why),
        };
        let wakes = match why {
            Readiness::Ready => false,
            Readiness::Wakes => true,
            Readiness::Coming => {
                let reason = format!(
                    "{}; version {number}, to go back to, is Pending: the alias stays until it is Active",
                    blamed.why
                );
                return Err(Box::new(Planned::Undecided { reason }));
            }
            Readiness::Not(why) => {
                skipped.push(format!("version {number} {why}"));
                continue;
            }
        };
        return Ok(Way {
            to: number,
            wakes,
            skipped,
        });
    }
    let refused = if memory.good.range(..from).next().is_none() {
        let others = if skipped.is_empty() { "" } else { ": " };
        let known = "no earlier version has been seen to serve well";
        format!("{known}{others}{}", told(&skipped))
    } else {
        told(&skipped)
    };
    Err(Box::new(unsafe_to(format!(
        "{}; there is no version to go back to: {refused}; choose one by hand",
        blamed.why
    ))))
}

/// Whether a version can take the traffic.
enum Readiness {
    Ready,
    Wakes,
    Coming,
    Not(String),
}

fn readiness(observed: &Observed, policy: &Rollback, number: u64) -> Readiness {
    let state = observed.versions.get(&number).map(|version| &version.state);
    match state.and_then(Option::as_ref) {
        Some(State::Active) => Readiness::Ready,
        Some(State::Pending) => Readiness::Coming,
        Some(State::Asleep) if observed.deployment.is_some() => Readiness::Not(
            "sleeps (Inactive), and is not woken while a deployment is in flight".to_owned(),
        ),
        Some(State::Asleep) if policy.smoke_test.is_none() => Readiness::Not(
            "sleeps (Inactive): it fails until it was invoked once, and the policy has no smoke_test to wake it with"
                .to_owned(),
        ),
        Some(State::Asleep) => Readiness::Wakes,
        Some(State::Unable { reason }) => Readiness::Not(format!("is {reason}")),
        None => Readiness::Not("is in a state that was not read".to_owned()),
    }
}

/// The versions of which the state is read for a plan: those that may be chosen, and the one that they are compared
/// with. None where the alias has weights, since the way back is then the version beside.
#[must_use]
pub fn to_look_up(observed: &Observed, policy: &Rollback, memory: &Memory) -> BTreeSet<u64> {
    let from = observed.alias.version;
    if !observed.alias.weights.is_empty() {
        return BTreeSet::new();
    }
    let most = policy.way_back.max_versions.get() as usize;
    let newest = memory.good.range(..from).rev().take(most);
    let before =
        before(memory, from).filter(|before| memory.good.contains_key(before) && *before < from);
    let mut numbers: BTreeSet<u64> = newest.map(|(number, _)| *number).chain(before).collect();
    numbers.insert(from);
    // An alias of `$LATEST`.
    numbers.remove(&0);
    numbers
}

/// A function may have thousands of versions, and a reader has little time.
fn told(skipped: &[String]) -> String {
    match skipped.len().checked_sub(TOLD) {
        None | Some(0) => skipped.join(", "),
        Some(more) => format!("{}, and {more} older ones", skipped[..TOLD].join(", ")),
    }
}

/// What speaks against a version by itself.
fn unfit(observed: &Observed, memory: &Memory, (from, number): (u64, u64)) -> Option<&'static str> {
    let published =
        |version: &Version| (version.code_sha256.clone(), version.configuration.clone());
    let bad = observed.versions.get(&from).map(published);
    match observed.versions.get(&number) {
        None if observed.more_versions && !observed.deleted.contains(&number) => {
            Some("is not among the versions that were read")
        }
        None => Some("was deleted"),
        Some(version) if Some(published(version)) == bad => {
            Some("has the same code and configuration")
        }
        Some(_) if memory.bad.contains_key(&number) => Some("was rolled back from"),
        Some(_) if !memory.good.contains_key(&number) => Some("was not seen to serve well"),
        Some(_) => None,
    }
}

/// Whether a version is farther back than the policy goes. The one that served just before is not, however long ago it
/// was attested.
fn too_far(
    policy: &Rollback,
    memory: &Memory,
    (from, number, now): (u64, u64, DateTime<Utc>),
) -> Option<String> {
    if before(memory, from) == Some(number) {
        return None;
    }
    let newer = memory.good.range(number + 1..from).count();
    let most = policy.way_back.max_versions.get();
    if newer >= most as usize {
        return Some(format!("is farther back than way_back.max_versions {most}"));
    }
    let age = now - memory.good.get(&number)?.at;
    let oldest = policy.way_back.max_age_seconds.get();
    (age > TimeDelta::seconds(i64::from(oldest))).then(|| {
        format!(
            "was seen to serve well {} ago, longer than way_back.max_age_seconds {oldest}",
            hours(age)
        )
    })
}

/// The version that served before another.
fn before(memory: &Memory, from: u64) -> Option<u64> {
    let serving = memory.serving.as_ref()?;
    match serving.version {
        version if version == from => serving.before,
        // It took over since the last look.
        version => Some(version),
    }
}

/// Who will disagree with the alias, and how to deploy again.
fn drift(observed: &Observed, policy: &Rollback, (step, from): (&Step, u64)) -> String {
    let owner = match &observed.stack {
        Some(stack) => format!("stack {stack}"),
        None => "whatever deploys the function".to_owned(),
    };
    let drift = format!(
        "{owner} still takes version {from} for the right one: deploy a mended version, since deploying again as it is brings version {from} back"
    );
    let to = step.to();
    match &policy.codedeploy {
        Some(CodeDeploy::Group(_)) if to != observed.alias.version => format!(
            "{drift}; CodeDeploy deploys from the version that the alias points to: the next AppSpec needs CurrentVersion: {to}"
        ),
        Some(_) => drift,
        None => format!(
            "{drift}; whether a CodeDeploy deployment is in flight was not looked at: give the policy codedeploy.application and codedeploy.group, or \"codedeploy\": \"none\""
        ),
    }
}
