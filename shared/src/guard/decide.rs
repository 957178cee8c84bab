//! Whether a run may act, decided from what was read in one go.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use crate::alarm::{AlarmEvent, Path, State};
use crate::guard::approval::ends_at;
use crate::guard::question::{Grounds, LiveAlarm, Occasion, Question, Refusal, Verdict};
use crate::ledger::items::{Facts, History, OpenBreaker, Record, Status};
use crate::outcome::{Outcome, Overall, Rule};
use crate::policy::Predecessor;

/// How far an event may be ahead of this function's clock.
pub(crate) const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);
/// A run unheard of for so long is dead to a retry of its own request: no call outlives the SDK's operation timeout of
/// 25 s, and Lambda waits a minute before its first retry.
const SILENCE: TimeDelta = TimeDelta::seconds(50);
/// Two changes to one state that lie closer are one: the event and the alarm, read again, may differ by a
/// millisecond, since the SDK cuts the one's time off and the other's is rounded.
pub(crate) const SAME: TimeDelta = TimeDelta::milliseconds(50);
/// By then a change has been delivered, retries of the function included; what was not is lost.
const DELIVERED_WITHIN: TimeDelta = TimeDelta::minutes(5);
/// What was begun, or refused for the moment, is taken up for so long, as long as the alarm stays in ALARM.
const KEPT_UP: TimeDelta = TimeDelta::hours(24);
/// Attempts at one round: Lambda's three, and as many by the schedule.
const ATTEMPTS: u32 = 6;
/// How often it is asked whether another remediation has said its word.
const LOOK_AFTER_ANOTHER: TimeDelta = TimeDelta::minutes(1);
/// What stays of a lease or a claim that a reader's clock, some seconds ahead, may not see any more.
const LOOK_AFTER: TimeDelta = TimeDelta::seconds(5);

fn skip(rule: Rule, reason: String) -> Refusal {
    Refusal::lasting(Outcome::Skipped { rule, reason })
}

fn escalated(rule: Rule, reason: String) -> Outcome {
    Outcome::Escalated { rule, reason }
}

fn refuse(refusal: Refusal) -> Verdict {
    Verdict::Refuse(Box::new(refusal))
}

/// Decides whether a run may act.
#[must_use]
pub fn decide(question: &Question<'_>) -> Verdict {
    let Question {
        facts,
        now,
        occasion,
        ..
    } = *question;
    let completed = facts
        .record
        .as_ref()
        .filter(|record| record.status == Status::Completed);
    if let Some(report) = completed.and_then(|record| record.report.as_ref()) {
        return match occasion {
            Occasion::Delivered => Verdict::Repeat(Box::new(report.clone())),
            Occasion::Due | Occasion::Restoring => Verdict::Leave,
        };
    }
    if occasion == Occasion::Due && rests(question) {
        return Verdict::Leave;
    }
    if let Some(refusal) = switched_off(question) {
        return refuse(refusal);
    }
    let mut grounds = match begin(question) {
        Ok(grounds) => grounds,
        Err(verdict) => return verdict,
    };
    grounds.recovered = question.live.state() != Some(State::Alarm);
    if question.round.is_none()
        && !grounds.settling
        && occasion != Occasion::Restoring
        && let Some(refusal) = unlisted(question).or_else(|| stale(question))
    {
        // What an attempt that died or failed had begun may be done all the same.
        if grounds.begun.is_none() {
            return refuse(refusal);
        }
        grounds.too_late = Some(Box::new(refusal));
    }
    if let Some(refusal) = held_by_another(question) {
        return refuse(refusal);
    }
    // Taking back what is in place feeds no alarm.
    if let Some(breaker) = &facts.history.breaker
        && breaker.until > now
        && question.event.state != State::Ok
        && occasion != Occasion::Restoring
    {
        let reason = format!(
            "the breaker is open until {}: {}",
            time(breaker.until),
            breaker.reason
        );
        return refuse(Refusal::passing(
            escalated(Rule::Breaker, reason),
            breaker.until,
        ));
    }
    if facts.record.is_none()
        && let Some(refusal) = comes_after(question)
    {
        return refuse(refusal);
    }
    if facts.record.is_none()
        && let Err(refusal) = bounds(question, grounds.refires)
    {
        return refuse(*refusal);
    }
    Verdict::Proceed(Box::new(grounds))
}

/// Whether the schedule has nothing to do about the alarm's change: it was answered, it waits for a later look, or
/// its event is still on its way.
fn rests(question: &Question<'_>) -> bool {
    let Question {
        facts, event, now, ..
    } = *question;
    if facts.record.is_some() {
        return false;
    }
    if let Some(waiting) = waiting(facts, event.changed_at) {
        return waiting.look_at > now;
    }
    let answered = facts.history.answers.get(&event.alarm_arn);
    // An alarm that was read as recovered, and is in ALARM by the same change, was read too early.
    answered.is_some_and(|answer| {
        same(answer.changed_at, event.changed_at) && answer.rule != Some(Rule::AlarmRecovered)
    }) || now - event.changed_at < DELIVERED_WITHIN
}

pub(crate) fn same(one: DateTime<Utc>, other: DateTime<Utc>) -> bool {
    (one - other).abs() <= SAME
}

fn waiting(facts: &Facts, changed_at: DateTime<Utc>) -> Option<&crate::ledger::items::Waiting> {
    let waiting = facts.waiting.as_ref();
    waiting.filter(|waiting| waiting.event.changed_at == changed_at)
}

fn switched_off(question: &Question<'_>) -> Option<Refusal> {
    let engaged = question.switch?;
    let which = match engaged.rule {
        Rule::KillSwitchRemediation => "for this remediation",
        Rule::KillSwitchTarget => "for this target",
        _ => "for everything",
    };
    let why = engaged
        .reason
        .as_deref()
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    let outcome = Outcome::Skipped {
        rule: engaged.rule,
        reason: format!("the kill switch {which} is on{why}"),
    };
    Some(Refusal::passing(outcome, question.now))
}

/// Another run's lease.
fn held_by_another(question: &Question<'_>) -> Option<Refusal> {
    let lease = question.facts.lease.as_ref()?;
    if lease.run_id == question.run_id || lease.held_until <= question.now {
        return None;
    }
    let outcome = Outcome::Skipped {
        rule: Rule::LeaseHeld,
        reason: format!(
            "{} holds the target until {} at the latest",
            lease.run_id,
            time(lease.held_until)
        ),
    };
    // It is given back as soon as the work is done.
    Some(Refusal::passing(outcome, question.now))
}

/// Where the run stands: its first attempt, a retry of a dead one, or its next round.
fn begin(question: &Question<'_>) -> Result<Grounds, Verdict> {
    let Question {
        facts, now, round, ..
    } = *question;
    let duplicate = |reason: String| Err(refuse(skip(Rule::Duplicate, reason)));
    let Some(record) = &facts.record else {
        if round.is_some() {
            return duplicate(
                "the ledger holds nothing of the run that this continuation belongs to".to_owned(),
            );
        }
        return Ok(Grounds {
            refires: refires(question),
            ..Grounds::first(now)
        });
    };
    let resumed = |round, attempt| Ok(resumed(question, record, round, attempt));
    let same_request = record.request_id == question.request_id;
    let ended_by_lambda = record.claimed_until <= now;
    let heard_at = heard_at(facts, record);
    let silent = heard_at.is_none_or(|heard_at| heard_at + SILENCE <= now);
    let dead = ended_by_lambda || (same_request && silent);
    match (record.status, round) {
        (Status::Settling, _) => resumed(record.round, record.attempt),
        (Status::Failed, None) => resumed(record.round, record.attempt + 1),
        (Status::Failed, Some(round)) if round == record.round => {
            resumed(round, record.attempt + 1)
        }
        (Status::Continuing, Some(round)) if round == record.round + 1 => resumed(round, 1),
        (Status::InProgress, Some(round)) if round == record.round && dead => {
            resumed(round, record.attempt + 1)
        }
        (Status::InProgress, None) if dead => resumed(record.round, record.attempt + 1),
        // The invocation that was to carry on could not be asked for, or never came.
        (Status::Continuing, None) if ended_by_lambda || same_request => {
            resumed(record.round + 1, 1)
        }
        // Either this is a retry of a worker that died a moment ago, or Lambda delivered one request
        // twice. Failing brings the event back, and by then it is plain which.
        (Status::InProgress, _) if same_request => Err(refuse(come_again(record, heard_at, now))),
        (_, Some(round)) => duplicate(format!(
            "round {round} was delivered already; the run is at round {}",
            record.round
        )),
        (_, None) if question.occasion != Occasion::Delivered => Err(Verdict::Leave),
        (_, None) => Err(refuse(at_work(record))),
    }
}

fn resumed(question: &Question<'_>, record: &Record, round: u32, attempt: u32) -> Grounds {
    let follows_a_death = record.status == Status::InProgress;
    let mut too_late = None;
    if attempt > ATTEMPTS && question.occasion != Occasion::Restoring {
        let reason = format!(
            "{ATTEMPTS} attempts at round {round} have died or failed, and what they did may be half done: look at the target and at the last error"
        );
        // The last of them may have done its work all the same.
        let refusal = Refusal::lasting(escalated(Rule::AttemptsUsedUp, reason));
        too_late = Some(Box::new(refusal));
    }
    Grounds {
        round,
        attempt,
        follows_a_death,
        started_at: record.started_at,
        refires: 0,
        begun: record.plan.clone(),
        progress: record.progress.clone(),
        settling: record.status == Status::Settling,
        too_late,
        recovered: false,
    }
}

/// When the run that works on the record was last heard of; `None` when it has lost the lease.
fn heard_at(facts: &Facts, record: &Record) -> Option<DateTime<Utc>> {
    let heartbeat = facts.heartbeat;
    heartbeat
        .filter(|heartbeat| heartbeat.token == record.token)
        .map(|heartbeat| heartbeat.at)
}

/// Another attempt is at work. It is no success, and no end: whoever asked looks again when the claim has run out.
fn at_work(record: &Record) -> Refusal {
    let outcome = Outcome::Pending {
        reason: format!(
            "request {} works on this transition until {} at the latest",
            record.request_id,
            time(record.claimed_until)
        ),
        check_again_at: record.claimed_until,
        continuation: None,
    };
    Refusal::passing(outcome, record.claimed_until + LOOK_AFTER)
}

fn come_again(record: &Record, heard_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Refusal {
    let ago = heard_at.map_or(0, |heard_at| (now - heard_at).num_seconds());
    let outcome = Outcome::Failed {
        error: format!(
            "an earlier delivery of this request, {}, was at work on the transition {ago} s ago; after {} s of silence another takes over: deliver the event again",
            record.request_id,
            SILENCE.num_seconds()
        ),
        retryable: true,
    };
    Refusal::passing(outcome, record.claimed_until + LOOK_AFTER)
}

/// Whether the run is one that the alarm's return to OK does not end: it is half done, was begun, or held back for a while.
fn outlasts(question: &Question<'_>) -> bool {
    let Question { facts, event, .. } = *question;
    question.half_done
        || question.outlasts_alarm
            && (facts.record.is_some() || waiting(facts, event.changed_at).is_some())
}

/// Why nothing may be begun that the policy does not name any more.
fn unlisted(question: &Question<'_>) -> Option<Refusal> {
    if question.listed || question.event.state != State::Alarm {
        return None;
    }
    let reason = format!(
        "the policy does not let {} act on {} any more",
        question.event.alarm_name, question.target
    );
    Some(if question.half_done {
        let reason =
            format!("{reason}, and what was begun on it is left half done: look at the target");
        Refusal::lasting(escalated(Rule::NoTarget, reason))
    } else {
        skip(Rule::NoTarget, reason)
    })
}

/// Why the news is too old, or no news that leads to an action.
fn stale(question: &Question<'_>) -> Option<Refusal> {
    let Question { event, facts, .. } = *question;
    match event.state {
        State::Alarm => {}
        State::Ok => return None,
        State::InsufficientData => {
            return Some(skip(
                Rule::StateWithoutAction,
                "INSUFFICIENT_DATA says that nothing is known, and never leads to an action"
                    .to_owned(),
            ));
        }
    }
    if let Some(by) = &event.suppressed_by {
        return Some(skip(
            Rule::AlarmSuppressed,
            format!("the alarm's actions are suppressed by {by}"),
        ));
    }
    if let Some(latest) = facts.alarm.latest
        && !outlasts(question)
        && latest.at > event.changed_at
        && !(latest.state == State::Alarm && same(latest.at, event.changed_at))
    {
        return Some(skip(
            Rule::Superseded,
            format!(
                "the alarm changed to {} at {}, after this change",
                latest.state,
                time(latest.at)
            ),
        ));
    }
    // The schedule may have answered the change before its event came, under the time that the alarm itself tells.
    if facts.record.is_none()
        && let Some(answer) = facts.history.answers.get(&event.alarm_arn)
        && answer.changed_at != event.changed_at
        && answer.rule != Some(Rule::AlarmRecovered)
        && same(answer.changed_at, event.changed_at)
    {
        return Some(skip(
            Rule::Duplicate,
            format!(
                "this change was answered already, as that of {}: {}",
                time(answer.changed_at),
                answer.reason
            ),
        ));
    }
    aged(question).or_else(|| not_in_alarm(question))
}

fn aged(question: &Question<'_>) -> Option<Refusal> {
    let Question {
        event,
        facts,
        limits,
        now,
        target,
        ..
    } = *question;
    let age = now - event.changed_at;
    let limit = TimeDelta::seconds(i64::from(limits.max_event_age_seconds.get()));
    // What was begun, or refused for the moment, was news when it came. Who approves reads the plan, and the plan
    // is made anew. In each case it is the alarm that has to hold still.
    let taken_up =
        age <= KEPT_UP && (facts.record.is_some() || waiting(facts, event.changed_at).is_some());
    let approved = event.approvals.iter().any(|approval| {
        approval.target == target
            && ends_at(approval, limits.approval_lasts()) > now
            && approval.at <= now + CLOCK_SKEW
    });
    if age > KEPT_UP && outlasts(question) && !approved {
        let reason = format!(
            "what was asked for {} h ago is not done yet, and is not tried any longer: look at the target and at the last reason",
            age.num_hours()
        );
        return Some(Refusal::lasting(escalated(Rule::StaleEvent, reason)));
    }
    if age > limit && !taken_up && !approved {
        return Some(skip(
            Rule::StaleEvent,
            format!(
                "the alarm changed {} s ago, and the policy acts on nothing older than {} s",
                age.num_seconds(),
                limit.num_seconds()
            ),
        ));
    }
    (age < -CLOCK_SKEW).then(|| {
        skip(
            Rule::StaleEvent,
            format!(
                "the alarm's change is dated {} s ahead of this function's clock",
                -age.num_seconds()
            ),
        )
    })
}

fn not_in_alarm(question: &Question<'_>) -> Option<Refusal> {
    match question.live {
        LiveAlarm::Foreign => Some(Refusal::lasting(escalated(
            Rule::ForeignAccount,
            format!(
                "{} belongs to account {}, where this function cannot read it again: install the suite there, or name an alarm of this account",
                question.event.alarm_arn, question.event.account
            ),
        ))),
        LiveAlarm::Gone if question.half_done => None,
        LiveAlarm::Gone => Some(skip(
            Rule::AlarmRecovered,
            "the alarm does not exist any more".to_owned(),
        )),
        LiveAlarm::Found {
            state: State::Ok,
            actions_enabled: true,
            ..
        } if outlasts(question) => None,
        LiveAlarm::Found {
            actions_enabled: true,
            ..
        } if question.half_done => None,
        LiveAlarm::Found {
            state,
            actions_enabled: true,
            ..
        } if state != State::Alarm && outlasts(question) => Some(Refusal::passing(
            Outcome::Skipped {
                rule: Rule::AlarmRecovered,
                reason: format!(
                    "the alarm, read again, is in {}, which says nothing; what is left to do waits for OK",
                    state.as_str()
                ),
            },
            question.now,
        )),
        LiveAlarm::Found { state, .. } if state != State::Alarm && !outlasts(question) => {
            Some(skip(
                Rule::AlarmRecovered,
                format!("the alarm, read again, is in {}", state.as_str()),
            ))
        }
        // Enabling them again changes no state of the alarm, so that nothing would say so.
        LiveAlarm::Found {
            actions_enabled: false,
            ..
        } => Some(Refusal::passing(
            Outcome::Skipped {
                rule: Rule::AlarmActionsDisabled,
                reason:
                    "the alarm's actions are disabled or suppressed; someone works on it by hand"
                        .to_owned(),
            },
            question.now,
        )),
        LiveAlarm::Found { .. } => None,
    }
}

/// Why it is another remediation's turn: it has not answered the alarm's change yet, or what it did may still help.
fn comes_after(question: &Question<'_>) -> Option<Refusal> {
    let Question { event, now, .. } = *question;
    // A playbook's ladder says what comes after what.
    if event.state != State::Alarm || matches!(event.path, Path::Playbook { .. }) {
        return None;
    }
    let turns = question.predecessors.iter();
    turns
        .filter_map(|(predecessor, history)| turn(event, predecessor, history))
        .filter(|(until, _)| *until > now)
        .max_by_key(|(until, _)| *until)
        .map(|(until, reason)| {
            let rule = Rule::AfterAnother;
            let reason = format!(
                "{reason}; it is waited for until {} at the latest",
                time(until)
            );
            let outcome = Outcome::Skipped { rule, reason };
            Refusal::passing(outcome, until.min(now + LOOK_AFTER_ANOTHER))
        })
}

/// Until when it is that remediation's turn, and why; `None` where it has said that it does nothing, and what it did, for
/// whatever alarm, has had its time to help.
fn turn(
    event: &AlarmEvent,
    predecessor: &Predecessor,
    history: &History,
) -> Option<(DateTime<Utc>, String)> {
    let Predecessor {
        remediation,
        resource,
        ..
    } = predecessor;
    let mut actions = history.actions.iter().rev();
    let acted = actions
        .find(|action| !action.reverts)
        .map(|action| action.finished_at)
        .filter(|at| *at + predecessor.wait() > event.changed_at);
    let answer = history.answers.get(&event.alarm_arn);
    let answer = answer.filter(|answer| answer.changed_at >= event.changed_at - SAME);
    let (from, reason) = match (answer, acted) {
        (None, acted) => (
            acted.map_or(event.changed_at, |at| at.max(event.changed_at)),
            format!(
                "{remediation} has the first word on {}, and has not answered for {resource} yet",
                event.alarm_name
            ),
        ),
        (Some(answer), _) if answer.outcome == Overall::Applied.name() => {
            let at = acted.unwrap_or(answer.changed_at);
            let why = &answer.reason;
            (
                at,
                format!("{remediation} acted on {resource} at {}: {why}", time(at)),
            )
        }
        (Some(_), Some(at)) => (
            at,
            format!(
                "{remediation} acted on {resource} at {}, for another alarm",
                time(at)
            ),
        ),
        (Some(_), None) => return None,
    };
    Some((from + predecessor.wait(), reason))
}

/// How many alarms in a row, with this one, came on the heels of our own action. A return to OK is none, and what takes
/// back what is in place passes the count on, whenever that falls due.
fn refires(question: &Question<'_>) -> u32 {
    let restores = question.occasion == Occasion::Restoring;
    let window = TimeDelta::seconds(i64::from(question.limits.breaker.window_seconds.get()));
    let event = question.event;
    question
        .facts
        .history
        .actions
        .iter()
        .rev()
        .find(|action| action.alarm_arn == event.alarm_arn)
        .filter(|action| {
            restores
                || event.changed_at > action.started_at
                    && event.changed_at - action.finished_at <= window
        })
        .map_or(0, |action| {
            action.refires + u32::from(event.state != State::Ok)
        })
}

fn bounds(question: &Question<'_>, refires: u32) -> Result<(), Box<Refusal>> {
    if question.event.state != State::Alarm || question.occasion == Occasion::Restoring {
        return Ok(());
    }
    breaks(question, refires)?;
    flaps(question)?;
    rests_after_acting(question)?;
    within_budget(question)
}

fn breaks(question: &Question<'_>, refires: u32) -> Result<(), Box<Refusal>> {
    let Question {
        limits, now, event, ..
    } = *question;
    // A change that has waited for the breaker to close has served its time: it is acted on once, and what comes on
    // its heels opens the breaker again.
    let served = waiting(question.facts, event.changed_at)
        .is_some_and(|waiting| waiting.rule == Rule::Breaker && waiting.look_at <= now);
    if refires < limits.breaker.refires.get() || served {
        return Ok(());
    }
    let reason = format!(
        "{} has come back {refires} times in a row within {} s of our own action: acting again would feed it",
        event.alarm_name, limits.breaker.window_seconds
    );
    let until = now + TimeDelta::seconds(i64::from(limits.breaker.open_seconds.get()));
    let told = format!("{reason}; the breaker is open until {}", time(until));
    Err(Box::new(Refusal {
        breaker: Some(OpenBreaker { until, reason }),
        ..Refusal::passing(escalated(Rule::Breaker, told), until)
    }))
}

fn flaps(question: &Question<'_>) -> Result<(), Box<Refusal>> {
    let Question {
        facts,
        limits,
        now,
        event,
        ..
    } = *question;
    let window = TimeDelta::seconds(i64::from(limits.flap.window_seconds.get()));
    let others: Vec<_> = facts
        .alarm
        .transitions
        .iter()
        .filter(|at| **at > now - window && !same(**at, event.changed_at))
        .collect();
    let transitions = others.len() + 1;
    if transitions <= limits.flap.transitions.get() as usize {
        return Ok(());
    }
    let reason = format!(
        "{} went to ALARM {transitions} times in {} s, and {} is the most that is taken for separate troubles",
        event.alarm_name, limits.flap.window_seconds, limits.flap.transitions
    );
    let calm_at = others.iter().min().map_or(now, |at| **at + window);
    Err(Box::new(Refusal::passing(
        escalated(Rule::Flapping, reason),
        calm_at,
    )))
}

fn rests_after_acting(question: &Question<'_>) -> Result<(), Box<Refusal>> {
    let Question {
        facts, limits, now, ..
    } = *question;
    let mut actions = facts.history.actions.iter().rev();
    let Some(last) = actions.find(|action| !action.reverts) else {
        return Ok(());
    };
    let rested = last.finished_at + TimeDelta::seconds(i64::from(limits.cooldown_seconds));
    if rested <= now {
        return Ok(());
    }
    let outcome = Outcome::Skipped {
        rule: Rule::Cooldown,
        reason: format!(
            "{} acted on the target a moment ago; it rests until {}",
            last.run_id,
            time(rested)
        ),
    };
    Err(Box::new(Refusal::passing(outcome, rested)))
}

fn within_budget(question: &Question<'_>) -> Result<(), Box<Refusal>> {
    let Question {
        facts, limits, now, ..
    } = *question;
    let window = TimeDelta::seconds(i64::from(limits.budget.window_seconds.get()));
    let spent: Vec<_> = facts
        .history
        .actions
        .iter()
        .filter(|action| !action.reverts && action.started_at > now - window)
        .collect();
    if spent.len() < limits.budget.actions.get() as usize {
        return Ok(());
    }
    let reason = format!(
        "{} actions in {} s have used up the budget of {}",
        spent.len(),
        limits.budget.window_seconds,
        limits.budget.actions
    );
    let first = spent.iter().map(|action| action.started_at).min();
    Err(Box::new(Refusal::passing(
        escalated(Rule::Budget, reason),
        first.map_or(now, |first| first + window),
    )))
}

/// A time, to the second.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
