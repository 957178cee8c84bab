//! Which of the versions that share an alias is to blame, if one is. Pure.
//!
//! Lambda counts each apart while they do. What is not counted by version, an API's server errors, is put down to the newer
//! one only where they began as its share did, and are no more than what it served.

use chrono::{DateTime, Utc};

use crate::blame::{BEFORE, Blamed, EXACT, Unblamed, enough, fails, seconds, shared_cause, time};
use crate::duration::Took;
use crate::observed::{Minutes, Observed, Served, Traffic};
use crate::onset::{Onset, between, minute_of, onset};
use crate::policy::{Api, Blame};

/// By how much a version is worse than another beside it, and what shows that.
struct Worse {
    by: f64,
    why: String,
}

/// Which of the versions that share the alias is to blame: the one that fails more than the other, takes longer, or with
/// whose share an API's server errors began.
pub(crate) fn canary(
    observed: &Observed,
    blame: &Blame,
    (alarmed_at, now): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Blamed, Unblamed> {
    let told = side_by_side(observed);
    let failing = |one: u64, other: u64| {
        let traffic = worse(observed, blame, (one, other))?;
        Some(Worse {
            by: traffic.error_percent(),
            why: since_onset(&told, one, traffic, observed),
        })
    };
    if let Some(found) = culprit(observed, "fails more", failing) {
        return found;
    }
    let unseen = match no_canary(observed, blame, &told) {
        Unblamed::Unseen(reason) => reason,
        other => return Err(other),
    };
    let lagging = |one: u64, other: u64| slower(observed, blame, (one, other), now);
    if let Some(found) = culprit(observed, "takes longer", lagging) {
        let (from, onset) = (now - BEFORE, None);
        if let Ok(Blamed {
            from: version, why, ..
        }) = &found
        {
            shared_cause(observed, blame, (from, onset), (*version, why))?;
        }
        return found;
    }
    let Some(api) = &blame.api else {
        return Err(Unblamed::Unseen(unseen));
    };
    match with_its_share(observed, (blame, api), alarmed_at) {
        Ok((canary, onset, why)) => {
            let from = onset.at - BEFORE;
            shared_cause(observed, blame, (from, Some(onset)), (canary, &why))?;
            Ok(Blamed {
                from: canary,
                beside: None,
                counted: false,
                why: format!("{told}; {why}"),
            })
        }
        Err(why) => Err(Unblamed::Unseen(format!(
            "{unseen}; what API {} counts is not put down to the new version: {why}",
            api.name
        ))),
    }
}

/// Of the versions that share the alias the one that is worse, where it is the newer one; `None` where none is.
fn culprit(
    observed: &Observed,
    how: &str,
    compared: impl Fn(u64, u64) -> Option<Worse>,
) -> Option<Result<Blamed, Unblamed>> {
    let main = observed.alias.version;
    let others: Vec<u64> = observed.alias.weights.keys().copied().collect();
    let worst = others
        .iter()
        .filter_map(|other| Some((*other, compared(*other, main)?)))
        .max_by(|(_, one), (_, other)| one.by.total_cmp(&other.by));
    if let Some((from, Worse { why, .. })) = worst {
        return Some(if from < main {
            Err(Unblamed::Unsure(format!(
                "version {from}, which has a weight, is the older one and {how} than the newer version {main}: to give version {main} all the traffic is for a human to do, since nothing is rolled forward: {why}"
            )))
        } else {
            Ok(Blamed {
                from,
                beside: None,
                counted: true,
                why,
            })
        });
    }
    let [other] = others[..] else {
        return None;
    };
    let Worse { why, .. } = compared(main, other)?;
    Some(if main < other {
        Err(Unblamed::Unsure(format!(
            "version {main}, which has the rest of the traffic, {how} than the new version {other}, which may be the cure: {why}"
        )))
    } else {
        Ok(Blamed {
            from: main,
            beside: Some(other),
            counted: true,
            why,
        })
    })
}

/// Why neither of the versions that share the alias is to blame.
fn no_canary(observed: &Observed, blame: &Blame, told: &str) -> Unblamed {
    let traffic = |version: u64| observed.traffic_of(version);
    let main = traffic(observed.alias.version);
    let others = || observed.alias.weights.keys().map(|other| traffic(*other));
    let errors = main.errors > 0 || others().any(|other| other.errors > 0);
    if fails(main, blame) && others().all(|other| fails(other, blame)) {
        return Unblamed::Unsure(format!(
            "the errors are not the new version's: both versions fail alike, as what both depend on would make them: {told}"
        ));
    }
    if !errors {
        return Unblamed::Unseen(format!(
            "no version of the alias fails by Lambda's figures: {told}"
        ));
    }
    if !enough(main, blame) {
        return Unblamed::TooEarly(format!(
            "the version beside the new one served too little to compare with: {told}"
        ));
    }
    if others().any(|other| !enough(other, blame)) {
        return Unblamed::TooEarly(format!(
            "the new version served too little to conclude anything: {told}"
        ));
    }
    Unblamed::Unseen(format!("the errors are not the new version's: {told}"))
}

/// What a version served, where it fails and is worse than another beside it: in the window, or since its errors began.
fn worse(observed: &Observed, blame: &Blame, (one, other): (u64, u64)) -> Option<Traffic> {
    let is_worse = |traffic: Traffic, beside: Traffic| {
        fails(traffic, blame)
            && enough(beside, blame)
            && traffic.error_percent() >= beside.error_percent() + blame.margin_percent
    };
    let (traffic, beside) = (observed.traffic_of(one), observed.traffic_of(other));
    if is_worse(traffic, beside) {
        return Some(traffic);
    }
    let minutes = |version: u64| observed.minutes.by_version.get(&version);
    let began = onset(minutes(one)?, DateTime::<Utc>::MIN_UTC)?;
    let meanwhile: Traffic = minutes(other)?.range(began.at..).map(|(_, t)| *t).sum();
    is_worse(began.since, meanwhile).then_some(began.since)
}

/// By how much the one takes longer than the other, in the window.
fn slower(
    observed: &Observed,
    blame: &Blame,
    (one, other): (u64, u64),
    now: DateTime<Utc>,
) -> Option<Worse> {
    let slowness = blame.duration.as_ref()?;
    let Served {
        by_version,
        durations_by_version,
        ..
    } = &observed.minutes;
    let from = minute_of(now - seconds(blame.window_seconds));
    let took = |version: u64| {
        let figures = (
            by_version.get(&version)?,
            durations_by_version.get(&version)?,
        );
        Some(Took::between(figures, from, DateTime::<Utc>::MAX_UTC))
    };
    let (own, beside) = (took(one)?, took(other)?);
    own.is_slower(beside, slowness, blame).then(|| Worse {
        by: own.times(beside),
        why: format!(
            "version {one}: {own} invocations, {:.1} times as long as version {other} ({beside})",
            own.times(beside)
        ),
    })
}

fn since_onset(told: &str, version: u64, traffic: Traffic, observed: &Observed) -> String {
    if traffic == observed.traffic_of(version) {
        told.to_owned()
    } else {
        format!("{told}; version {version} since its errors began: {traffic}")
    }
}

fn side_by_side(observed: &Observed) -> String {
    let others = observed.alias.weights.iter().map(|(version, weight)| {
        format!(
            "version {version} ({:.0} % of the traffic): {}",
            weight * 100.0,
            observed.traffic_of(*version)
        )
    });
    let main = observed.alias.version;
    let own = format!("version {main}: {}", observed.traffic_of(main));
    others.chain([own]).collect::<Vec<_>>().join("; ")
}

/// The newer version with a weight, where an API's server errors began as its share did and are no more than what it
/// served; else what speaks against that.
fn with_its_share(
    observed: &Observed,
    (blame, api): (&Blame, &Api),
    alarmed_at: DateTime<Utc>,
) -> Result<(u64, Onset, String), String> {
    let main = observed.alias.version;
    let canary = observed.alias.weights.keys().copied().max();
    let canary = canary.filter(|canary| *canary > main).ok_or_else(|| {
        format!("version {main}, which has the rest of the traffic, is the newer one")
    })?;
    let counted = observed.minutes.by_version.get(&canary);
    let counted = counted.and_then(|counted| Some((counted, share_began(observed, counted)?)));
    let (counted, began) =
        counted.ok_or_else(|| format!("nothing is counted of version {canary}"))?;
    let onset = began_with(&observed.minutes.api, (canary, began, alarmed_at), blame)?;
    let Onset { before, since, .. } = onset;
    let served = between(counted, onset.at - EXACT, DateTime::<Utc>::MAX_UTC);
    let times = served.invocations;
    let failed = share_of(since, before, served);
    if !enough(served, blame) || failed < blame.error_percent {
        return Err(format!(
            "they would be {failed:.1} % of what version {canary} served since, which is {times} invocations"
        ));
    }
    let (errors, from) = (since.errors, time(onset.at));
    if failed > 100.0 + blame.margin_percent {
        return Err(format!(
            "there are more than version {canary} can have caused: {errors} since {from}, and it was invoked {times} times"
        ));
    }
    let why = format!(
        "{errors} server errors in {} requests to API {} since {from}, as the share of version {canary} began ({}), which was invoked {times} times since; before: {} in {}",
        since.invocations,
        api.name,
        time(began),
        before.errors,
        before.invocations
    );
    Ok((canary, onset, why))
}

/// When an API's server errors began, where that was as a version's share did, after it had answered well.
fn began_with(
    api: &Minutes,
    (version, began, alarmed_at): (u64, DateTime<Utc>, DateTime<Utc>),
    blame: &Blame,
) -> Result<Onset, String> {
    let at = time(began);
    if began > alarmed_at {
        return Err(format!(
            "the share of version {version} began after the alarm, at {at}"
        ));
    }
    let onset = onset(api, began - BEFORE)
        .ok_or_else(|| "when its server errors began cannot be seen".to_owned())?;
    if onset.at < began - EXACT || onset.at > began + seconds(blame.onset_seconds) {
        return Err(format!(
            "its server errors began at {}, and the share of version {version} at {at}",
            time(onset.at)
        ));
    }
    let before = onset.before;
    if !enough(before, blame) || fails(before, blame) {
        return Err(format!(
            "it was not seen to answer well before: {} server errors in {} requests",
            before.errors, before.invocations
        ));
    }
    Ok(onset)
}

/// Since when a version is counted beside another: Lambda counts by version only while an alias has weights, so that its
/// share began after the last minute in which the alias served and no version of it was counted.
fn share_began(observed: &Observed, counted: &Minutes) -> Option<DateTime<Utc>> {
    let minutes = &observed.minutes;
    let by_version = |at: &DateTime<Utc>| {
        let mut versions = minutes.by_version.values();
        versions.any(|minutes| minutes.contains_key(at))
    };
    // What the newest minutes hold may not all be there yet.
    let (last, _) = counted.last_key_value()?;
    let alone = minutes.alias.range(..last).rev();
    let mut alone = alone.filter(|(_, traffic)| traffic.invocations > 0);
    let alone = alone.find(|(at, _)| !by_version(at));
    let from = alone.map_or(DateTime::<Utc>::MIN_UTC, |(at, _)| *at);
    let mut since = counted.range(from..);
    let first = since.find(|(_, traffic)| traffic.invocations > 0);
    first.map(|(at, _)| *at)
}

/// What an API failed more than before, in percent of what a version served.
#[allow(clippy::cast_precision_loss)] // Requests in a day are far below 2^52.
fn share_of(since: Traffic, before: Traffic, served: Traffic) -> f64 {
    let expected = before.error_percent() / 100.0 * since.invocations as f64;
    let more = (since.errors as f64 - expected).max(0.0);
    100.0 * more / served.invocations.max(1) as f64
}
