//! What a decision rests on, and what it can come to.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::alarm::{AlarmEvent, State};
use crate::ledger::items::{Engaged, Facts, History, OpenBreaker};
use crate::outcome::{Outcome, Report};
use crate::policy::{Limits, Predecessor};

/// The alarm as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveAlarm {
    /// It exists.
    Found {
        /// Its state.
        state: State,
        /// Whether its actions are enabled.
        actions_enabled: bool,
        /// Since when it is in that state.
        since: Option<DateTime<Utc>>,
    },
    /// It was deleted.
    Gone,
    /// It belongs to another account, which this function does not read.
    Foreign,
}

impl LiveAlarm {
    /// Since when it is at OK, where it is and says so.
    #[must_use]
    pub fn ok_since(self) -> Option<DateTime<Utc>> {
        match self {
            Self::Found {
                state: State::Ok,
                since,
                ..
            } => since,
            _ => None,
        }
    }

    /// Its state, where it exists.
    #[must_use]
    pub fn state(self) -> Option<State> {
        match self {
            Self::Found { state, .. } => Some(state),
            Self::Gone | Self::Foreign => None,
        }
    }
}

/// Why a target is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// An event was delivered, or a round asks for the next.
    Delivered,
    /// The schedule found the alarm in ALARM, or a run that did not end.
    Due,
    /// What is in place is to be taken back.
    Restoring,
}

/// All that a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The event.
    pub event: &'a AlarmEvent,
    /// The alarm as it is now.
    pub live: LiveAlarm,
    /// The ledger's word.
    pub facts: &'a Facts,
    /// The kill switch that is on for the target, if one is.
    pub switch: Option<&'a Engaged>,
    /// The policy's bounds.
    pub limits: &'a Limits,
    /// The remediations that have the first word on the alarm, each with its history on what it acts on.
    pub predecessors: &'a [(&'a Predecessor, History)],
    /// The target's name in the policy.
    pub target: &'a str,
    /// The Lambda request.
    pub request_id: &'a str,
    /// The run that this event belongs to.
    pub run_id: &'a str,
    /// The round that a continuation asks for; `None` for an event.
    pub round: Option<u32>,
    /// Why the target is looked at.
    pub occasion: Occasion,
    /// Whether the policy lets the alarm act on the target, as far as it is known.
    pub listed: bool,
    /// Whether what was begun, or refused for a reason that passes, is still to be done when the alarm is back at OK.
    pub outlasts_alarm: bool,
    /// Whether the run has begun what must not be left half done, and is carried on whatever becomes of its alarm.
    pub half_done: bool,
    /// Now.
    pub now: DateTime<Utc>,
}

/// The guard's decision.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Plan and claim.
    Proceed(Box<Grounds>),
    /// An earlier delivery ended; this is its report.
    Repeat(Box<Report>),
    /// Do nothing, and say why.
    Refuse(Box<Refusal>),
    /// There is nothing to do and nothing new to say.
    Leave,
}

/// Why a run does nothing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Refusal {
    /// How the run ends.
    pub outcome: Outcome,
    /// A breaker that opens with it.
    pub breaker: Option<OpenBreaker>,
    /// When it is worth another look, where time alone can lift what holds the run back.
    pub look_at: Option<DateTime<Utc>>,
}

impl Refusal {
    /// A refusal for good.
    #[must_use]
    pub fn lasting(outcome: Outcome) -> Self {
        Self {
            outcome,
            breaker: None,
            look_at: None,
        }
    }

    /// A refusal that time alone can lift.
    #[must_use]
    pub fn passing(outcome: Outcome, look_at: DateTime<Utc>) -> Self {
        Self {
            outcome,
            breaker: None,
            look_at: Some(look_at),
        }
    }
}

/// On what grounds a run may proceed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Grounds {
    /// The round, from 1.
    pub round: u32,
    /// The attempt at the round, from 1.
    pub attempt: u32,
    /// Whether the attempt before died without a word.
    pub follows_a_death: bool,
    /// When the run's first attempt began.
    pub started_at: DateTime<Utc>,
    /// Alarms in a row that followed our own action.
    pub refires: u32,
    /// The plan that an earlier round or attempt has begun.
    pub begun: Option<Value>,
    /// What earlier rounds or attempts saved.
    pub progress: Option<Value>,
    /// Whether all calls were made, and it remains to see whether the target has settled.
    pub settling: bool,
    /// Why nothing may be begun any more, although the attempt before may have carried its plan out.
    pub too_late: Option<Box<Refusal>>,
    /// Whether the alarm, read again, is not in ALARM any more.
    pub recovered: bool,
}

impl Grounds {
    /// Those of a run's first attempt at its first round.
    pub(crate) fn first(now: DateTime<Utc>) -> Self {
        Self {
            round: 1,
            attempt: 1,
            follows_a_death: false,
            started_at: now,
            refires: 0,
            begun: None,
            progress: None,
            settling: false,
            too_late: None,
            recovered: false,
        }
    }
}
