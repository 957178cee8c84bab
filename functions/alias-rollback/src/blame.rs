//! Whether the version that has all the traffic of an alias is to blame. Pure.
//!
//! Three things have to agree: a version fails, the errors began as it took over, and nothing else began to fail then.

use chrono::{DateTime, TimeDelta, Utc};

use crate::duration::Took;
use crate::memory::{Memory, Went};
use crate::observed::{Minutes, Observed, Served, Traffic};
use crate::onset::{Onset, between, latest, minute_of, onset, whole_minute};
use crate::policy::{Blame, Rollback};

/// How far before a take-over errors are looked for that were there already.
pub(crate) const BEFORE: TimeDelta = TimeDelta::hours(1);
/// The schedule looks every five minutes, and may miss a look: a version took over that long before it was seen.
const SEEN_WITHIN: TimeDelta = TimeDelta::minutes(10);
/// Figures are counted by the minute in which an invocation began: an onset is as exact as that.
pub(crate) const EXACT: TimeDelta = TimeDelta::minutes(1);

/// A version that is to blame, and why.
pub(crate) struct Blamed {
    pub(crate) from: u64,
    /// The version beside it, where it has a weight and is the way back.
    pub(crate) beside: Option<u64>,
    /// Whether what it is blamed for is counted of each version, where an alias has two.
    pub(crate) counted: bool,
    pub(crate) why: String,
}

/// Why no version is to blame.
#[derive(Debug)]
pub(crate) enum Unblamed {
    /// The errors are not its.
    ByNoMeans(String),
    /// It served too little to tell.
    TooEarly(String),
    /// The figures do not show what the alarm does. They may come late; if they do not come, a human has to look.
    Unseen(String),
    /// They may be.
    Unsure(String),
}

/// When a version took over: not before the one, and by the other at the latest.
#[derive(Debug, Clone, Copy)]
struct TakeOver {
    earliest: DateTime<Utc>,
    latest: DateTime<Utc>,
    before: Option<u64>,
}

/// What speaks against a version.
struct Charge {
    /// What was counted.
    traffic: Traffic,
    /// In words.
    told: String,
    /// When it began, where that can be seen.
    onset: Option<Onset>,
    kind: Kind,
}

/// What a charge rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// They are the errors of the version's invocations.
    Errors,
    /// It is counted by the alias that the version has alone.
    Own,
    /// It is counted of an API that may have other parts.
    Api,
    /// It is compared with the hour before the take-over from the take-over on, and needs no onset.
    Compared,
}

pub(crate) fn enough(traffic: Traffic, blame: &Blame) -> bool {
    traffic.invocations >= u64::from(blame.min_invocations.get())
}

pub(crate) fn fails(traffic: Traffic, blame: &Blame) -> bool {
    enough(traffic, blame) && traffic.error_percent() >= blame.error_percent
}

pub(crate) fn seconds(value: std::num::NonZeroU32) -> TimeDelta {
    TimeDelta::seconds(i64::from(value.get()))
}

/// Whether the version that has all the traffic is to blame.
pub(crate) fn promoted(
    observed: &Observed,
    policy: &Rollback,
    memory: &Memory,
    (alarmed_at, now): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Blamed, Unblamed> {
    let blame = &policy.blame;
    let version = observed.alias.version;
    let traffic = observed.traffic_of(version);
    let not = |reason| Err(Unblamed::ByNoMeans(reason));
    if let Some(last) = &memory.last
        && last.to == version
        && last.went == Went::AllTheWay
    {
        return not(format!(
            "version {version} serves since the rollback from version {}, not by a deployment, so that the errors have another cause: {traffic}",
            last.from
        ));
    }
    let Some(took_over) = took_over(observed, memory, now) else {
        return not(format!(
            "version {version} is not among the published versions, so that its age is unknown"
        ));
    };
    let age = now - took_over.latest;
    if age > seconds(blame.recency_seconds) {
        return not(format!(
            "version {version} has served for {}, longer than a deployment is to blame: {traffic}",
            hours(age)
        ));
    }
    by_hand(observed, memory, (took_over, alarmed_at))?;
    let charge = charge(observed, blame, took_over)?;
    // The errors for which someone went back are those of the version before, for as long as they may have begun with it.
    if took_over.before.is_some_and(|before| before > version)
        && charge
            .onset
            .is_none_or(|onset| onset.at <= took_over.latest)
    {
        return Err(Unblamed::Unsure(format!(
            "someone went back to version {version} by hand, by {} at the latest, and nothing shows that the errors began after that: {}",
            time(took_over.latest),
            charge.told
        )));
    }
    its_own(observed, memory, (took_over, &charge, now), blame)?;
    let began = (took_over.earliest - BEFORE, charge.onset);
    shared_cause(observed, blame, began, (version, &charge.told))?;
    let better = memory
        .good
        .iter()
        .rev()
        .find(|(good, _)| **good != version)
        .map(|(good, attested)| format!("; version {good} before: {}", attested.traffic))
        .unwrap_or_default();
    let began = match charge.onset {
        Some(onset) => format!(", since {}", time(onset.at)),
        None => String::new(),
    };
    Ok(Blamed {
        from: version,
        beside: None,
        counted: charge.kind == Kind::Errors,
        why: format!(
            "version {version}, serving for {}: {}{began}{better}",
            hours(age),
            charge.told
        ),
    })
}

/// Whoever pointed the alias since the alarm, or back to an earlier version, is mending what it tells of.
fn by_hand(
    observed: &Observed,
    memory: &Memory,
    (took_over, alarmed_at): (TakeOver, DateTime<Utc>),
) -> Result<(), Unblamed> {
    let version = observed.alias.version;
    if took_over.earliest > alarmed_at {
        return Err(Unblamed::Unseen(format!(
            "version {version} took over after the alarm, at {} at the earliest, and may be its cure",
            time(took_over.earliest)
        )));
    }
    let since_the_last_look = memory
        .serving
        .as_ref()
        .is_some_and(|serving| serving.version != version);
    match took_over.before {
        Some(before) if before > version && since_the_last_look => Err(Unblamed::Unseen(format!(
            "someone went back from version {before} to version {version} since the last look, by hand: what it serves is still to be seen"
        ))),
        _ => Ok(()),
    }
}

/// What speaks against the version, by the signals that the policy chose: the first by which it fails.
fn charge(observed: &Observed, blame: &Blame, took_over: TakeOver) -> Result<Charge, Unblamed> {
    let version = observed.alias.version;
    let window = observed.traffic_of(version);
    let errors = counted(&observed.minutes.alias, took_over, window, blame);
    let told = errors.traffic.to_string();
    if fails(errors.traffic, blame) {
        let kind = Kind::Errors;
        return Ok(Charge {
            told,
            kind,
            ..errors
        });
    }
    let failing = |minutes: &Minutes| {
        let charge = counted(minutes, took_over, Traffic::default(), blame);
        let Traffic {
            invocations,
            errors,
        } = charge.traffic;
        fails(charge.traffic, blame).then_some((charge, invocations, errors))
    };
    if blame.throttles
        && let Some((charge, attempts, throttled)) = failing(&observed.minutes.throttled)
    {
        let told = format!("{throttled} of {attempts} attempts to invoke it were throttled");
        return Ok(Charge { told, ..charge });
    }
    let mut sources = observed.minutes.event_sources.iter();
    let failing_source = |(source, minutes)| Some((source, failing(minutes)?));
    if let Some((source, (charge, events, failed))) = sources.find_map(failing_source) {
        let told = format!("{failed} of {events} events of {source} were not processed");
        return Ok(Charge { told, ..charge });
    }
    if let Some(api) = &blame.api
        && let Some((charge, requests, errors)) = failing(&observed.minutes.api)
    {
        let name = &api.name;
        let told = format!("{errors} server errors in {requests} requests to API {name}");
        let kind = Kind::Api;
        return Ok(Charge {
            told,
            kind,
            ..charge
        });
    }
    if let Some(told) = slowed(observed, blame, took_over) {
        return Ok(Charge {
            traffic: errors.traffic,
            told,
            onset: None,
            kind: Kind::Compared,
        });
    }
    Err(if errors.traffic.errors == 0 {
        let unseen = observed.unseen().map(|unseen| format!("; {unseen}"));
        let unseen = unseen.unwrap_or_default();
        Unblamed::Unseen(format!(
            "version {version} does not fail by Lambda's figures: {told}; an answer that only says that something failed, such as an API's 5xx, is not counted as an error of the function{unseen}"
        ))
    } else if enough(errors.traffic, blame) {
        Unblamed::Unseen(format!(
            "the errors are not those of version {version}: {told}"
        ))
    } else {
        Unblamed::TooEarly(format!(
            "version {version} served too little to conclude anything: {told}"
        ))
    })
}

/// What was counted since it began, where that can be seen and is enough; else in the window.
fn counted(minutes: &Minutes, took_over: TakeOver, window: Traffic, blame: &Blame) -> Charge {
    let onset = onset(minutes, took_over.earliest - BEFORE);
    let traffic = match &onset {
        // What another version served is none of its doing.
        Some(onset) => between(
            minutes,
            onset.at.max(took_over.earliest),
            DateTime::<Utc>::MAX_UTC,
        ),
        None => window,
    };
    let traffic = if enough(traffic, blame) {
        traffic
    } else {
        window
    };
    Charge {
        traffic,
        told: String::new(),
        onset,
        kind: Kind::Own,
    }
}

/// Whether the version's invocations take longer than those of the hour before it took over, from the first on.
fn slowed(observed: &Observed, blame: &Blame, took_over: TakeOver) -> Option<String> {
    let slowness = blame.duration.as_ref()?;
    let took = |from, to| {
        let Served {
            alias, durations, ..
        } = &observed.minutes;
        Took::between((alias, durations), from, to)
    };
    let end = DateTime::<Utc>::MAX_UTC;
    // What is surely its own, or, with little of it, what may be in part another's.
    let own = whole_minute(took_over.latest);
    let from = if took(own, end).is_enough(blame) {
        own
    } else {
        minute_of(took_over.earliest)
    };
    let earliest = minute_of(took_over.earliest);
    let (since, before) = (took(from, end), took(earliest - BEFORE, earliest));
    let first = took(from, from + seconds(blame.onset_seconds));
    let from_the_first = !first.is_enough(blame) || first.is_slower(before, slowness, blame);
    (since.is_slower(before, slowness, blame) && from_the_first).then(|| {
        format!(
            "{since} invocations, {:.1} times as long as in the hour before it took over ({before})",
            since.times(before)
        )
    })
}

/// The same of a version that an alarm does not ask for.
pub(crate) fn is_slower(
    observed: &Observed,
    policy: &Rollback,
    memory: &Memory,
    now: DateTime<Utc>,
) -> bool {
    let took_over = took_over(observed, memory, now);
    took_over.is_some_and(|took_over| slowed(observed, &policy.blame, took_over).is_some())
}

/// Whether the errors began as the version took over.
fn its_own(
    observed: &Observed,
    memory: &Memory,
    (took_over, charge, now): (TakeOver, &Charge, DateTime<Utc>),
    blame: &Blame,
) -> Result<(), Unblamed> {
    let version = observed.alias.version;
    let told = &charge.told;
    let unsure = |reason: String| Err(Unblamed::Unsure(reason));
    if let Some(attested) = memory.good.get(&version)
        && attested.at > took_over.latest
    {
        return unsure(format!(
            "version {version} served well at {}, after it took over ({}), so that what fails now began later, and is no likelier to be the version than what it depends on: {told}",
            time(attested.at),
            attested.traffic
        ));
    }
    if charge.kind == Kind::Compared {
        return Ok(());
    }
    let minutes = &observed.minutes.alias;
    let before = between(
        minutes,
        took_over.earliest - BEFORE,
        took_over.earliest - EXACT,
    );
    let Some(onset) = &charge.onset else {
        if charge.kind == Kind::Api {
            return unsure(format!(
                "when the errors began cannot be seen, and they are not counted by version: {told}"
            ));
        }
        if fails(before, blame) {
            return unsure(format!(
                "the errors were there before version {version} took over ({before}): {told}"
            ));
        }
        return may_be_of_the_one_before(observed, memory, (took_over, charge, now), blame);
    };
    if onset.at < minute_of(took_over.earliest) - EXACT {
        return unsure(format!(
            "the errors began at {}, before version {version} took over at {} at the earliest: {told}",
            time(onset.at),
            time(took_over.earliest)
        ));
    }
    let healthy = between(minutes, took_over.latest, onset.at);
    if onset.at > took_over.latest + seconds(blame.onset_seconds) && enough(healthy, blame) {
        return unsure(format!(
            "the errors began at {}, {} after version {version} took over, which served well until then ({healthy}); what began later is no likelier to be the version than what it depends on: {told}",
            time(onset.at),
            hours(onset.at - took_over.latest)
        ));
    }
    // They rose as it took over, from what the one before served well.
    if enough(before, blame) && !fails(before, blame) {
        return Ok(());
    }
    if charge.kind == Kind::Api {
        return unsure(format!(
            "too little was served before version {version} took over to tell that the errors began with it, and they are not counted by version: {told}"
        ));
    }
    may_be_of_the_one_before(observed, memory, (took_over, charge, now), blame)
}

/// What the alias served is not counted by version, and the window may hold what another served.
fn may_be_of_the_one_before(
    observed: &Observed,
    memory: &Memory,
    (took_over, charge, now): (TakeOver, &Charge, DateTime<Utc>),
    blame: &Blame,
) -> Result<(), Unblamed> {
    let version = observed.alias.version;
    match took_over.before {
        Some(before)
            if now - took_over.latest < seconds(blame.window_seconds)
                && !memory.good.contains_key(&before) =>
        {
            Err(Unblamed::Unsure(format!(
                "version {version} took over from version {before} within the window, and version {before} was not seen to serve well: the errors may be those of either: {}",
                charge.told
            )))
        }
        _ => Ok(()),
    }
}

/// Whether others, which were not deployed, began to fail at the same time, from `from` on.
pub(crate) fn shared_cause(
    observed: &Observed,
    blame: &Blame,
    (from, onset): (DateTime<Utc>, Option<Onset>),
    (version, told): (u64, &str),
) -> Result<(), Unblamed> {
    let failing = observed.minutes.peers.iter().filter_map(|(peer, minutes)| {
        let began = crate::onset::onset(minutes, from)?;
        let with_it = onset.is_none_or(|onset| (began.at - onset.at).abs() <= EXACT * 2);
        (with_it && fails(began.since, blame))
            .then(|| format!("{peer} since {} ({})", time(began.at), began.since))
    });
    let failing: Vec<String> = failing.collect();
    if failing.is_empty() {
        return Ok(());
    }
    Err(Unblamed::Unsure(format!(
        "others began to fail at the same time, so that what they share is to blame, and no version: {}; version {version}: {told}",
        failing.join(", "),
    )))
}

/// When the alias's version took over, and which had the traffic before.
fn took_over(observed: &Observed, memory: &Memory, now: DateTime<Utc>) -> Option<TakeOver> {
    let version = observed.alias.version;
    let published = observed.versions.get(&version).and_then(|v| v.published_at);
    let (latest, before, seen) = match &memory.serving {
        Some(serving) if serving.version == version => (
            serving.since,
            serving.before,
            Some(serving.since - SEEN_WITHIN),
        ),
        // Since the last look.
        Some(serving) => (now, Some(serving.version), Some(serving.since)),
        None => (published?, None, None),
    };
    // No version serves before it is published, and none that had a share by weight began later than that.
    let earliest = published.max(seen).unwrap_or(latest).min(latest);
    let shared = observed.minutes.by_version.get(&version);
    let shared = shared.and_then(latest_stretch);
    Some(TakeOver {
        earliest: shared.map_or(earliest, |shared| shared.min(earliest)),
        latest,
        before,
    })
}

/// When the last stretch of minutes in which something was served began: a share that it had on another day, and lost, is
/// not how it took over.
fn latest_stretch(minutes: &Minutes) -> Option<DateTime<Utc>> {
    let mut began = None;
    for at in minutes.keys().rev() {
        if began.is_some_and(|began: DateTime<Utc>| began - *at > SEEN_WITHIN) {
            break;
        }
        began = Some(*at);
    }
    began
}

/// What a version with all the traffic since `since` served of late: in the window, or as far back as the policy lets it
/// look until it is enough.
pub(crate) fn lately(
    observed: &Observed,
    policy: &Rollback,
    (since, now): (DateTime<Utc>, DateTime<Utc>),
) -> Traffic {
    let attestation = &policy.attestation;
    let wanted = u64::from(attestation.min_invocations.get());
    let window = observed.traffic_of(observed.alias.version);
    if window.invocations >= wanted {
        return window;
    }
    let from = whole_minute(since).max(now - seconds(attestation.max_window_seconds));
    let longer = latest(&observed.minutes.alias, from, wanted);
    if longer.invocations > window.invocations {
        longer
    } else {
        window
    }
}

pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

pub(crate) fn hours(age: TimeDelta) -> String {
    let minutes = age.num_minutes();
    if minutes < 120 {
        format!("{minutes} min")
    } else {
        format!("{} h", age.num_hours())
    }
}
