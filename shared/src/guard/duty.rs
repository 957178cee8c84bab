//! What the schedule owes a target on which something stands.

use chrono::{DateTime, TimeDelta, Utc};

use crate::alarm::State;
use crate::guard::question::LiveAlarm;
use crate::ledger::items::{self, Facts, OpenRun, Settling, Snapshot};
use crate::policy::Temporary;

/// How often a human is told again that something stands for too long.
const TOLD_AGAIN: TimeDelta = TimeDelta::hours(1);

/// How long before its end humans are told of it, at most; of a short term, a quarter.
const TOLD_AHEAD: TimeDelta = TimeDelta::minutes(30);

/// How far apart looks are at least, in seconds.
const LOOKS_APART: i64 = 60;

/// A target's alarms as they are now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Alarms {
    /// The ARNs of those in ALARM.
    pub in_alarm: Vec<String>,
    /// Since when all of them that still exist are at OK; `None` while one is not, or none exists.
    pub ok_since: Option<DateTime<Utc>>,
}

impl Alarms {
    /// Puts the alarms of a target together. An alarm that cannot be read is `None`, and says nothing.
    #[must_use]
    pub fn of<'a>(
        alarms: impl Iterator<Item = (&'a str, Option<LiveAlarm>)>,
        fallback: DateTime<Utc>,
    ) -> Self {
        let mut all = Self::default();
        let mut ok_since = None;
        let mut all_ok = true;
        for (arn, live) in alarms {
            match live {
                Some(LiveAlarm::Gone) => {}
                Some(LiveAlarm::Found {
                    state: State::Ok,
                    since,
                    ..
                }) => ok_since = ok_since.max(Some(since.unwrap_or(fallback))),
                Some(LiveAlarm::Found {
                    state: State::Alarm,
                    ..
                }) => all.in_alarm.push(arn.to_owned()),
                _ => all_ok = false,
            }
        }
        all.ok_since = ok_since.filter(|_| all_ok && all.in_alarm.is_empty());
        all
    }
}

/// What is due for a target.
#[derive(Debug, Clone, PartialEq)]
pub enum Duty {
    /// Nothing yet.
    Wait,
    /// What is in place is taken back. The time is that at which it fell due.
    Restore(DateTime<Utc>),
    /// What is in place stays until then, because the alarm is in ALARM.
    Renew(DateTime<Utc>),
    /// Humans are told that what is in place ends then, although the alarm is in ALARM.
    Forewarn(DateTime<Utc>),
    /// A plan whose calls were all made is looked at.
    Settle(Box<Settling>),
    /// A run that did not end is taken up, or ended.
    Resume(Box<OpenRun>),
}

/// How a target is to be looked after.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long what is in place stays; `None` where it has no term.
    pub temporary: Option<Temporary>,
    /// Whether the policy still names the target. What it does not name is not kept any longer.
    pub listed: bool,
}

/// Decides what is due.
#[must_use]
pub fn duty(facts: &Facts, alarms: &Alarms, terms: Terms, now: DateTime<Utc>) -> Duty {
    let Some(standing) = &facts.standing else {
        return Duty::Wait;
    };
    // Whoever holds the target looks after it.
    if is_held(facts, now) {
        return Duty::Wait;
    }
    if let Some(snapshot) = &standing.snapshot {
        match term(snapshot, alarms, terms, now) {
            Duty::Wait => {}
            due => return due,
        }
    }
    if let Some(settling) = in_turn(standing.settling.iter(), now) {
        return Duty::Settle(Box::new(settling.clone()));
    }
    let runs = standing.runs.iter();
    let open = in_turn(runs.filter(|run| !items::restores(&run.transition)), now);
    open.map_or(Duty::Wait, |run| Duty::Resume(Box::new(run.clone())))
}

/// One of several, another at each look: none is held up by one that cannot be ended yet.
fn in_turn<'a, T>(all: impl Iterator<Item = &'a T>, now: DateTime<Utc>) -> Option<&'a T> {
    let all: Vec<&T> = all.collect();
    let looks = usize::try_from(now.timestamp() / LOOKS_APART).unwrap_or(0);
    all.get(looks % all.len().max(1)).copied()
}

/// What follows from an alarm's return to OK, for what is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing is in place.
    Nothing,
    /// The alarm, read again, is in ALARM: the news is old.
    BackInAlarm,
    /// Another alarm of the target, with this ARN, is in ALARM.
    OtherAlarm(String),
    /// Not every alarm of the target is known to be at OK.
    NotKnown,
    /// It is taken back if all alarms are still at OK then.
    Later(DateTime<Utc>),
    /// It is taken back.
    Now,
}

/// Decides what follows from an alarm's return to OK.
#[must_use]
pub fn recovery(
    facts: &Facts,
    live: LiveAlarm,
    alarms: &Alarms,
    terms: Terms,
    now: DateTime<Utc>,
) -> Recovery {
    if live.state() == Some(State::Alarm) {
        return Recovery::BackInAlarm;
    }
    if facts.snapshot().is_none() {
        return Recovery::Nothing;
    }
    if let Some(alarm) = alarms.in_alarm.first() {
        return Recovery::OtherAlarm(alarm.clone());
    }
    if let Duty::Restore(_) = duty(facts, alarms, terms, now) {
        return Recovery::Now;
    }
    let stabilisation = terms
        .temporary
        .map_or(TimeDelta::zero(), |temporary| temporary.stabilisation);
    alarms.ok_since.map_or(Recovery::NotKnown, |since| {
        Recovery::Later(since + stabilisation)
    })
}

/// Whether a run holds the target.
#[must_use]
pub fn is_held(facts: &Facts, now: DateTime<Utc>) -> bool {
    let lease = facts.lease.as_ref();
    lease.is_some_and(|lease| lease.held_until > now)
}

fn term(snapshot: &Snapshot, alarms: &Alarms, terms: Terms, now: DateTime<Utc>) -> Duty {
    if let Some(at) = snapshot.cut_short {
        return Duty::Restore(at);
    }
    let Terms { temporary, listed } = terms;
    let alarmed = !alarms.in_alarm.is_empty();
    let expired = snapshot.expires_at.filter(|expires_at| *expires_at <= now);
    if !alarmed {
        let stabilisation =
            temporary.map_or(TimeDelta::zero(), |temporary| temporary.stabilisation);
        let calm = alarms.ok_since.map(|since| since + stabilisation);
        let due = calm.filter(|at| *at <= now).or(expired);
        return due.map_or(Duty::Wait, Duty::Restore);
    }
    let (Some(expires_at), Some(temporary)) = (snapshot.expires_at, temporary) else {
        return expired.map_or(Duty::Wait, Duty::Restore);
    };
    let at_most = snapshot.ends_by(temporary.at_most);
    if at_most <= now || (!listed && expires_at <= now) {
        return Duty::Restore(expires_at.min(at_most));
    }
    let wanes = expires_at - now < temporary.expires_after / 2;
    if listed && wanes && expires_at < at_most {
        return Duty::Renew((now + temporary.expires_after).min(at_most));
    }
    let end = if listed {
        at_most
    } else {
        expires_at.min(at_most)
    };
    let ahead = TOLD_AHEAD.min(temporary.at_most / 4);
    if end - now <= ahead && snapshot.forewarned != Some(end) {
        return Duty::Forewarn(end);
    }
    Duty::Wait
}

/// Whether the remediation is asked if what fell due should stay: only while no alarm is in ALARM, where it has a term
/// and a policy that names it, is not taken back for another reason, and where nobody has begun to.
#[must_use]
pub fn is_asked_whether_it_may_stay(facts: &Facts, alarms: &Alarms, terms: Terms) -> bool {
    let snapshot = facts.snapshot();
    terms.listed
        && terms.temporary.is_some()
        && snapshot.is_some_and(|snapshot| snapshot.cut_short.is_none())
        && alarms.in_alarm.is_empty()
        && facts.record.is_none()
}

/// Until when what fell due may stay, if the remediation has a reason for it; `None` once its longest term is over.
#[must_use]
pub fn may_stay_until(facts: &Facts, terms: Terms, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let end = facts.snapshot()?.ends_by(terms.temporary?.at_most);
    (now < end).then_some(end)
}

/// Whether a human is to be told that what fell due is not taken back.
#[must_use]
pub fn is_to_be_told(facts: &Facts, now: DateTime<Utc>) -> bool {
    let told_at = facts
        .standing
        .as_ref()
        .and_then(|standing| standing.told_at);
    told_at.is_none_or(|told_at| now - told_at >= TOLD_AGAIN)
}
