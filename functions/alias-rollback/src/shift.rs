//! What follows at each look at a way back in steps: the next share, more time, or its end. Pure.
//!
//! While an alias has weights, Lambda counts what each version serves, so that two versions are compared under the same
//! traffic. Whether the alarm is still in ALARM says less than that: the good version's share alone may have brought it
//! below its threshold, while the bad one still serves the rest.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use shared::remediation::{Planned, PlannedBy};

use crate::AliasRollback;
use crate::blame::{enough, fails, seconds, time};
use crate::observed::{Alias, Observed, Provisioned, Traffic};
use crate::onset::{between, whole_minute};
use crate::plan::{Plan, Step, unsafe_to};
use crate::policy::{Rollback, Shift};

/// How many times as long as a step has to last it may last, until there is enough to compare.
const PATIENCE: u32 = 3;

/// Where a way back in steps stands. Saved before each change of the alias, so that what a dead attempt did can be told,
/// and after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The version that is to blame.
    pub from: u64,
    /// The version to go back to.
    pub to: u64,
    /// Its share of the traffic, in percent.
    pub percent: u8,
    /// Since when it has that.
    pub since: DateTime<Utc>,
    /// The share that it is being given.
    pub putting: Option<u8>,
}

/// How long a step lasts at least; no time where the policy wants no more steps.
pub(crate) fn lasts(policy: &Rollback) -> TimeDelta {
    let shift = policy.shift.as_ref();
    shift.map_or(TimeDelta::zero(), |shift| seconds(shift.step_seconds))
}

/// How long a step may last at most, in seconds.
#[must_use]
pub fn patience(shift: &Shift) -> u32 {
    shift.step_seconds.get().saturating_mul(PATIENCE)
}

/// Why the alias is pointed at once although the policy wants steps.
pub(crate) fn obstacle(
    observed: &Observed,
    (from, to): (u64, u64),
    counted: bool,
) -> Option<&'static str> {
    let in_common = |version: u64| observed.versions.get(&version).map(|v| &v.in_common);
    if observed.provisioned != Provisioned::None {
        Some("the alias has provisioned concurrency, with which it takes no weights")
    } else if in_common(from) != in_common(to) {
        Some(
            "the versions differ in their role or dead-letter queue, and an alias takes no two such",
        )
    } else if !counted {
        Some(
            "what the version is blamed for is not counted by version, so that no step could be judged",
        )
    } else {
        None
    }
}

/// What the share of a version comes to.
enum Verdict {
    /// It does better: it gets the next share.
    Better,
    /// It does no better: it gets none.
    Worse(String),
    /// It is too early to tell.
    Open(String),
}

/// Goes on from where a way back in steps stands; `None` where nothing of it was begun.
pub(crate) fn carry_on(
    observed: &Observed,
    policy: &Rollback,
    (progress, begun): (&Progress, Option<&Plan>),
    now: DateTime<Utc>,
) -> Option<PlannedBy<AliasRollback>> {
    let Progress { from, to, .. } = *progress;
    let alias = &observed.alias;
    let Some((percent, since)) = stands(alias, progress, now) else {
        return Some(unsafe_to(format!(
            "another hand changed {} while version {to} was to take over from version {from} in steps and had {} % of the traffic; it is left as it is, at {}",
            policy.alias,
            progress.percent,
            told(alias)
        )));
    };
    let Some(begun) = begun else {
        return Some(unsafe_to(format!(
            "version {to} has {percent} % of the traffic of {}, and the ledger does not hold the plan of that in a form that this release reads: choose a version by hand",
            policy.alias
        )));
    };
    let step = follows(observed, policy, progress, (percent, since, now))?;
    let plan = Plan {
        step,
        ..begun.clone()
    };
    Some(Planned::Act {
        plan,
        snapshot: None,
    })
}

/// What follows where a version has a share since a time; `None` where it has none, and is not to give one back.
fn follows(
    observed: &Observed,
    policy: &Rollback,
    progress: &Progress,
    (percent, since, now): (u8, DateTime<Utc>, DateTime<Utc>),
) -> Option<Step> {
    let to = progress.to;
    let revision_id = observed.alias.revision_id.clone();
    let unshift = |revision_id, reason| Step::Unshift {
        to,
        revision_id,
        reason,
    };
    if percent == 0 {
        // The first share was not given, or the last one was taken away before that could be told.
        let taken_away = progress.putting == Some(0);
        let reason = format!(
            "version {to} had {} % of the traffic and has none again, since it did no better: choose a version by hand",
            progress.percent
        );
        return taken_away.then(|| unshift(revision_id, reason));
    }
    let shift = policy.shift.as_ref();
    let lasts = lasts(policy);
    if percent == 100 {
        return Some(next(shift, (to, percent), revision_id));
    }
    let share = (to, percent, since);
    Some(
        match verdict(observed, policy, (progress, percent, since), now) {
            Verdict::Better if now - since >= lasts => next(shift, (to, percent), revision_id),
            Verdict::Worse(reason) => unshift(revision_id, reason),
            Verdict::Better => {
                let reason = format!("version {to} has {percent} % of the traffic and does better");
                watch(share, since + lasts, reason)
            }
            Verdict::Open(reason) => {
                let until = (since + lasts).max(now + TimeDelta::minutes(1));
                watch(share, until, reason)
            }
        },
    )
}

/// The next share of a version; all of it where the policy wants no more steps.
fn next(shift: Option<&Shift>, (to, percent): (u64, u8), revision_id: String) -> Step {
    let percents = shift.map(|shift| shift.percents.as_slice());
    let mut percents = percents.unwrap_or_default().iter().copied();
    let percent = percents.find(|next| *next > percent).unwrap_or(100);
    if percent == 100 {
        Step::Point {
            to,
            revision_id,
            drops_weight: false,
            wakes: false,
        }
    } else {
        Step::Shift {
            to,
            percent,
            revision_id,
            wakes: false,
        }
    }
}

fn watch(
    (to, percent, since): (u64, u8, DateTime<Utc>),
    until: DateTime<Utc>,
    reason: String,
) -> Step {
    Step::Watch {
        to,
        percent,
        since,
        until,
        reason,
    }
}

/// The share that the alias gives and since when, where nobody else has changed it. When an attempt that died gave it is
/// not known, so that it counts from now.
fn stands(alias: &Alias, progress: &Progress, now: DateTime<Utc>) -> Option<(u8, DateTime<Utc>)> {
    let versions = (progress.from, progress.to);
    let put = progress.putting.filter(|put| alias.gives(versions, *put));
    let put = put.map(|put| (put, now));
    let before = (progress.percent, progress.since);
    put.or_else(|| alias.gives(versions, progress.percent).then_some(before))
}

/// What both versions served since the share was given.
fn verdict(
    observed: &Observed,
    policy: &Rollback,
    (progress, percent, since): (&Progress, u8, DateTime<Utc>),
    now: DateTime<Utc>,
) -> Verdict {
    let blame = &policy.blame;
    let Progress { from, to, .. } = *progress;
    let served = |version: u64| -> Traffic {
        let minutes = observed.minutes.by_version.get(&version);
        let end = DateTime::<Utc>::MAX_UTC;
        minutes.map_or_else(Traffic::default, |minutes| {
            between(minutes, whole_minute(since), end)
        })
    };
    let (bad, good) = (served(from), served(to));
    let told = format!(
        "version {to} with {percent} % of the traffic since {}: {good}; version {from}: {bad}",
        time(since)
    );
    let comparable = enough(bad, blame) && enough(good, blame);
    let better = bad.error_percent() >= good.error_percent() + blame.margin_percent;
    if comparable && fails(bad, blame) && better {
        return Verdict::Better;
    }
    let end = "its share is taken away again: choose a version by hand";
    if comparable && fails(good, blame) {
        return Verdict::Worse(format!("{told}; it does no better, and {end}"));
    }
    let patience = policy.shift.as_ref().map_or(0, patience);
    if now - since >= TimeDelta::seconds(i64::from(patience)) {
        let why = if comparable {
            "neither fails, so that what failed has passed without the change"
        } else {
            "that is too little to compare"
        };
        return Verdict::Worse(format!("{told}; {why}, and {end}"));
    }
    let open = if comparable {
        "neither fails"
    } else {
        "that is too little to compare yet"
    };
    Verdict::Open(format!("{told}; {open}"))
}

fn told(alias: &Alias) -> String {
    let weights = alias.weights.iter();
    let weights = weights.map(|(version, weight)| {
        format!(
            ", with {:.0} % of the traffic at version {version}",
            weight * 100.0
        )
    });
    format!("version {}{}", alias.version, weights.collect::<String>())
}
