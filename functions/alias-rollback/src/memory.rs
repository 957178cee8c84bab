//! What is remembered of an alias: which version serves since when, which are good, which are bad, what was rolled back.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use shared::remediation::Lesson;

use crate::blame::{is_slower, lately};
use crate::observed::{Observed, Traffic};
use crate::policy::Rollback;

/// How long an attestation stands before it is written anew.
const FRESH: TimeDelta = TimeDelta::hours(1);
/// Versions remembered of each kind.
const REMEMBERED: usize = 50;

/// What is remembered of an alias.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The version that had all the traffic when last looked at.
    pub serving: Option<Serving>,
    /// Versions that served well, by number.
    pub good: BTreeMap<u64, Attested>,
    /// Versions that were rolled back from, by number. Not chosen, until another hand gives one the traffic once more.
    pub bad: BTreeMap<u64, Condemned>,
    /// The last rollback.
    pub last: Option<RolledBack>,
    /// A way back in steps that is under way.
    pub shifting: Option<RolledBack>,
}

/// A version with all the traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Serving {
    /// Its number.
    pub version: u64,
    /// Since when at the latest.
    pub since: DateTime<Utc>,
    /// The version that had it before.
    #[serde(default)]
    pub before: Option<u64>,
}

/// A version that served well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attested {
    /// When.
    pub at: DateTime<Utc>,
    /// What it served.
    pub traffic: Traffic,
}

/// A version that was rolled back from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Condemned {
    /// When.
    pub at: DateTime<Utc>,
    /// The incident; none where someone went back to an earlier version by hand.
    pub incident_id: Option<String>,
}

/// A rollback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The incident.
    pub incident_id: String,
    /// From which version.
    pub from: u64,
    /// To which.
    pub to: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// How far it went. An earlier release said whether it was undone.
    #[serde(default, alias = "undone", deserialize_with = "went")]
    pub went: Went,
}

fn went<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Went, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Bool(true) => Ok(Went::AndCameBack),
        Value::Bool(false) => Ok(Went::AllTheWay),
        other => serde_json::from_value(other).map_err(D::Error::custom),
    }
}

/// How far a rollback went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Went {
    /// The version that it goes to was given all the traffic.
    #[default]
    AllTheWay,
    /// That version was given a share, and the run ended with it.
    HalfWay,
    /// That version was given a share, did no better, and has none again.
    AndCameBack,
}

impl Memory {
    /// With a way back in steps that is under way.
    #[must_use]
    pub fn shifting(mut self, shifting: RolledBack) -> Self {
        self.shifting = Some(shifting);
        self
    }

    /// With the way back in steps that was under way noted as ended before its end: neither version is known to be worse.
    #[must_use]
    pub fn broken_off(mut self, went: Went) -> Self {
        if let Some(shifting) = self.shifting.take() {
            self.last = Some(RolledBack { went, ..shifting });
        }
        self
    }

    /// With a rollback noted.
    #[must_use]
    pub fn with(mut self, rolled_back: RolledBack) -> Self {
        let RolledBack {
            incident_id,
            from,
            at,
            ..
        } = rolled_back.clone();
        self.condemn(from, at, Some(incident_id));
        self.last = Some(rolled_back);
        self.shifting = None;
        self
    }

    /// Whether a version has the traffic again that was rolled back from, with no look at the alias between.
    fn was_brought_back(&self, version: u64) -> bool {
        let serving = self.serving.as_ref();
        self.last.as_ref().is_some_and(|last| {
            last.from == version
                && self.bad.contains_key(&version)
                && serving.is_some_and(|serving| serving.since <= last.at)
        })
    }

    fn condemn(&mut self, version: u64, at: DateTime<Utc>, incident_id: Option<String>) {
        self.good.remove(&version);
        self.bad.insert(version, Condemned { at, incident_id });
        while self.bad.len() > REMEMBERED {
            self.bad.pop_first();
        }
    }

    /// Notes that another version has all the traffic now; gives what is to be told.
    fn taken_over(&mut self, version: u64, now: DateTime<Utc>) -> Vec<String> {
        let mut news = vec![format!("version {version} has all the traffic")];
        let before = self.serving.as_ref().map(|serving| serving.version);
        let ours = |before| {
            let last = self.last.as_ref();
            last.is_some_and(|last| {
                last.from == before && last.to == version && last.went == Went::AllTheWay
            })
        };
        if let Some(before) = before.filter(|before| *before > version && !ours(*before)) {
            news.push(format!("someone went back from version {before} by hand"));
            if !self.bad.contains_key(&before) {
                self.condemn(before, now, None);
            }
        }
        // No rollback goes to such a version: whoever brought it back has thought better of it.
        if self.bad.remove(&version).is_some() {
            news.push(format!(
                "version {version} was brought back after it was gone back from, and may prove itself anew"
            ));
        }
        self.serving = Some(Serving {
            version,
            since: now,
            before,
        });
        news
    }
}

/// What a look at the alias teaches: who serves since when, and whether it does so well.
#[must_use]
pub fn learn(
    observed: &Observed,
    policy: &Rollback,
    memory: Option<&Memory>,
    now: DateTime<Utc>,
) -> Option<Lesson<Memory>> {
    let mut known = memory.cloned().unwrap_or_default();
    // A canary, a deployment in flight, or weights that Lambda moves by itself blur who served what.
    let moving = observed.deployment.is_some() || observed.is_allocating();
    if !observed.alias.weights.is_empty() || moving {
        return None;
    }
    let version = observed.alias.version;
    let mut news = Vec::new();
    let served = known.serving.as_ref().map(|serving| serving.version);
    if served != Some(version) || known.was_brought_back(version) {
        news = known.taken_over(version, now);
    }
    let since = known.serving.as_ref().map_or(now, |serving| serving.since);
    let traffic = lately(observed, policy, (since, now));
    // What it served has to be its own.
    let alone = now - since >= TimeDelta::seconds(i64::from(policy.blame.window_seconds.get()));
    let well = traffic.invocations >= u64::from(policy.attestation.min_invocations.get())
        && traffic.error_percent() < policy.attestation.error_percent.max(f64::MIN_POSITIVE);
    let stale = known
        .good
        .get(&version)
        .is_none_or(|attested| now - attested.at >= FRESH);
    // Where an alarm's recovery asks, another alarm may still be in ALARM, and what failed is still in the figures.
    let slow = is_slower(observed, policy, &known, now);
    let calm = observed.scheduled && answers_well(observed, policy, now) && !slow;
    if alone && well && stale && calm && !known.bad.contains_key(&version) {
        news.push(format!("version {version} serves well: {traffic}"));
        known.good.insert(version, Attested { at: now, traffic });
        while known.good.len() > REMEMBERED {
            known.good.pop_first();
        }
    }
    if news.is_empty() {
        return None;
    }
    Some(Lesson {
        memory: known,
        summary: news.join("; "),
    })
}

/// Whether the API, where the policy names one, and the event sources tell of no more failures than a good version may have.
fn answers_well(observed: &Observed, policy: &Rollback, now: DateTime<Utc>) -> bool {
    let window = TimeDelta::seconds(i64::from(policy.blame.window_seconds.get()));
    let signals = observed.minutes.event_sources.values();
    signals.chain([&observed.minutes.api]).all(|minutes| {
        let lately = minutes.range(now - window..).map(|(_, traffic)| *traffic);
        let lately: Traffic = lately.sum();
        lately.errors == 0 || lately.error_percent() < policy.attestation.error_percent
    })
}
