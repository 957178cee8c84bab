//! What is seen of an alias: its versions, what each of them served, and what is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// An alias as it was observed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alias {
    /// The version that has what the weights leave.
    pub version: u64,
    /// Other versions, with their share of the traffic.
    pub weights: BTreeMap<u64, f64>,
    /// Changes with every change of the alias.
    pub revision_id: String,
}

impl Alias {
    /// Whether it was pointed to a version, and only Lambda itself keeps a share at the one before.
    #[must_use]
    pub fn is_leaving(&self, from: u64, to: u64) -> bool {
        self.version == to && self.weights.keys().all(|version| *version == from)
    }

    /// Whether it gives that share of the traffic of one version to another, in percent, and no other anything.
    #[must_use]
    pub fn gives(&self, (from, to): (u64, u64), percent: u8) -> bool {
        match percent {
            0 => self.points_alone_to(from),
            100 => self.points_alone_to(to),
            _ => {
                let share = f64::from(percent) / 100.0;
                let given = |(version, weight): (&u64, &f64)| {
                    *version == to && (weight - share).abs() < 0.005
                };
                self.version == from && self.weights.len() == 1 && self.weights.iter().all(given)
            }
        }
    }

    /// Whether a version has all the traffic.
    #[must_use]
    pub fn points_alone_to(&self, version: u64) -> bool {
        self.version == version && self.weights.is_empty()
    }
}

/// A published version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Its number.
    pub number: u64,
    /// SHA-256 of its code.
    pub code_sha256: String,
    /// A digest of all else that was published with it: settings, variables, layers.
    pub configuration: String,
    /// A digest of what two versions have to have in common for an alias to point to both: their role and their dead-letter
    /// queue (AWS Lambda Developer Guide, "Create a routing configuration for a Lambda alias").
    pub in_common: String,
    /// When it was published.
    pub published_at: Option<DateTime<Utc>>,
    /// Whether it can be invoked; `None` where that was not read, as of all that are no way back.
    pub state: Option<State>,
}

/// Whether a version can be invoked (AWS Lambda Developer Guide, "Lambda function states" and "Lambda `SnapStart` and
/// function states").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// It can.
    Active,
    /// Its resources are being made, or made anew.
    Pending,
    /// Nobody invoked it for so long that its resources were reclaimed. The next invocation fails, and makes it pending.
    Asleep,
    /// It cannot, and no invocation changes that.
    Unable {
        /// Its state, and why.
        reason: String,
    },
}

/// What a version served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Invocations.
    pub invocations: u64,
    /// Invocations that ended in an error.
    pub errors: u64,
}

impl Traffic {
    /// Errors among the invocations, in percent.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // Invocations in an hour are far below 2^52.
    pub fn error_percent(self) -> f64 {
        if self.invocations == 0 {
            0.0
        } else {
            100.0 * self.errors as f64 / self.invocations as f64
        }
    }
}

impl Traffic {
    /// What is left without a part of it.
    #[must_use]
    pub fn less(self, part: Self) -> Self {
        Self {
            invocations: self.invocations.saturating_sub(part.invocations),
            errors: self.errors.saturating_sub(part.errors),
        }
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            invocations: self.invocations + other.invocations,
            errors: self.errors + other.errors,
        }
    }
}

impl Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// What was served, by the minute in which it was begun.
pub type Minutes = BTreeMap<DateTime<Utc>, Traffic>;

/// How long the invocations that began in a minute took together, in milliseconds.
pub type Durations = BTreeMap<DateTime<Utc>, u64>;

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            invocations,
            errors,
        } = self;
        write!(
            f,
            "{errors} errors in {invocations} invocations ({:.1} %)",
            self.error_percent()
        )
    }
}

/// A `CodeDeploy` deployment in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deployment {
    /// Its id.
    pub id: String,
    /// Whether it takes back another, as `CodeDeploy` or `CloudFormation` begins it by itself.
    pub rolls_back: bool,
    /// The version that it brings, where its `AppSpec` can be read.
    pub target: Option<u64>,
}

/// What was served minute by minute.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Served {
    /// By the alias: invocations, and those that ended in an error.
    pub alias: Minutes,
    /// The same by version, where Lambda counts by version.
    pub by_version: BTreeMap<u64, Minutes>,
    /// Attempts to invoke the alias, and those that were throttled, where the policy has them counted.
    pub throttled: Minutes,
    /// Events with which an event source mapping invoked the alias, and those that it could not have processed, by the
    /// source's ARN, where the policy has them counted.
    pub event_sources: BTreeMap<String, Minutes>,
    /// How long the alias's invocations took, where the policy has that counted.
    pub durations: Durations,
    /// The same by version.
    pub durations_by_version: BTreeMap<u64, Durations>,
    /// Requests to the API, and those that ended in a server error, where the policy names it.
    pub api: Minutes,
    /// By other functions, as the policy names them.
    pub peers: BTreeMap<String, Minutes>,
}

/// How it stands with provisioned concurrency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Provisioned {
    /// There is none.
    None,
    /// It is there.
    Ready,
    /// It is being allocated: until it is, Lambda moves the alias's weights by itself.
    Allocating,
}

/// All that was observed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observed {
    /// The alias.
    pub alias: Alias,
    /// The published versions, by number.
    pub versions: BTreeMap<u64, Version>,
    /// Whether there are more of them than were read.
    pub more_versions: bool,
    /// Versions that were asked for by number and are not there.
    pub deleted: BTreeSet<u64>,
    /// What each version of the alias served in the window, where Lambda counts by version.
    pub by_version: BTreeMap<u64, Traffic>,
    /// What the alias served in the window.
    pub total: Traffic,
    /// What was served minute by minute, as far back as onsets are looked for. Too long to be kept with a decision.
    #[serde(skip)]
    pub minutes: Served,
    /// Whether the schedule looks, and no alarm.
    #[serde(skip)]
    pub scheduled: bool,
    /// The `CodeDeploy` deployment in flight.
    pub deployment: Option<Deployment>,
    /// How it stands with the alias's provisioned concurrency.
    pub provisioned: Provisioned,
    /// Event source mappings and permissions that name the alias.
    pub used_by: Vec<String>,
    /// Event sources whose failed events the policy has counted, and of which that is not done: they have no metrics, or
    /// there are too many.
    pub uncounted: Vec<String>,
    /// The stack that owns the function, from its tags.
    pub stack: Option<String>,
}

impl Observed {
    /// What a version served. Lambda counts by version only while an alias has two of them.
    #[must_use]
    pub fn traffic_of(&self, version: u64) -> Traffic {
        if self.alias.weights.is_empty() && version == self.alias.version {
            return self.total;
        }
        self.by_version.get(&version).copied().unwrap_or_default()
    }

    /// Whether Lambda moves the alias's weights by itself.
    #[must_use]
    pub fn is_allocating(&self) -> bool {
        self.provisioned == Provisioned::Allocating
    }

    /// What the policy asks for, and cannot be seen.
    #[must_use]
    pub fn unseen(&self) -> Option<String> {
        (!self.uncounted.is_empty()).then(|| {
            format!(
                "events that failed are not counted of every event source: {}",
                self.uncounted.join(", ")
            )
        })
    }
}
