//! What the ledger holds after each step of a run: pure steps from the facts before to the facts after.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::alarm::{AlarmEvent, Path, State};
use crate::guard::decide::same;
use crate::guard::question::Grounds;
use crate::ids;
use crate::ledger::items::{
    self, Action, AlarmState, Answer, Change, Facts, Heartbeat, History, Lease, OpenBreaker,
    OpenRun, Place, Record, Settling, Snapshot, Standing, Status, Waiting,
};
use crate::outcome::{Report, Rule};
use crate::policy::{FLAPS_KEPT, Limits, Temporary};

/// Versions of what stands that one claim can write; keeps a number from ever being used twice.
const VERSIONS: u64 = 10_000;
/// Runs of a target that have not ended at most: with their events, a part of what an item holds.
const OPEN_RUNS: usize = 30;
/// Answers remembered of a target; more alarms than a target has.
const ANSWERS: usize = 100;

/// What a run takes a target in hand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What its alarm asks for.
    Acts,
    /// To take back what is in place.
    TakesBack,
    /// To bring what is in place up to date with the policy.
    Updates,
}

/// What a run means to do.
pub(crate) struct Intent<'a> {
    pub(crate) place: &'a Place<'a>,
    pub(crate) grounds: &'a Grounds,
    pub(crate) limits: &'a Limits,
    /// The target as the policy has it.
    pub(crate) policy: &'a Value,
    pub(crate) plan: &'a Value,
    /// The state to go back to, new or kept longer.
    pub(crate) snapshot: Option<&'a Snapshot>,
    pub(crate) incident_id: &'a str,
    pub(crate) purpose: Purpose,
    /// The last moment at which the run may be alive.
    pub(crate) held_until: DateTime<Utc>,
}

/// After a claim.
pub(crate) fn claimed(facts: &Facts, intent: &Intent<'_>, now: DateTime<Utc>) -> Facts {
    let Intent { place, grounds, .. } = *intent;
    let run_id = place.run_id();
    let token = facts.next_token();
    let sequence = facts.record.as_ref().map_or(0, |record| record.sequence) + 1;
    let action = Action {
        run_id: run_id.clone(),
        alarm_arn: place.event.alarm_arn.clone(),
        started_at: now,
        finished_at: now,
        refires: grounds.refires,
        reverts: intent.purpose == Purpose::TakesBack,
    };
    let standing = facts.standing.as_ref();
    let version = standing.map_or(0, |standing| standing.version);
    let acts = intent.purpose == Purpose::Acts;
    let alarm = if acts {
        noted_event(&facts.alarm, place.event)
    } else {
        facts.alarm.clone()
    };
    let open = OpenRun {
        run_id: run_id.clone(),
        transition: place.transition.clone(),
        event: place.event.clone(),
    };
    // What only follows the policy is none of the actions that are counted, and nobody takes it up as one.
    let (history, runs) = if intent.purpose == Purpose::Updates {
        let runs = standing.map_or(Vec::new(), |standing| standing.runs.clone());
        (facts.history.clone(), runs)
    } else {
        let history = acted(&facts.history, intent.limits, action);
        (history, opened(standing, open))
    };
    Facts {
        record: Some(Record {
            status: Status::InProgress,
            request_id: place.request_id.to_owned(),
            token,
            sequence,
            run_id: run_id.clone(),
            round: grounds.round,
            attempt: grounds.attempt,
            started_at: grounds.started_at,
            claimed_until: intent.held_until,
            incident_id: intent.incident_id.to_owned(),
            plan: Some(intent.plan.clone()),
            progress: grounds.progress.clone(),
            report: None,
        }),
        lease: Some(Lease {
            token,
            run_id: run_id.clone(),
            held_until: intent.held_until,
        }),
        heartbeat: Some(Heartbeat { token, at: now }),
        history,
        alarm,
        standing: Some(Standing {
            version: version.max(token * VERSIONS) + 1,
            target: place.target.to_owned(),
            resource: place.resource.to_owned(),
            policy: intent.policy.clone(),
            runs,
            snapshot: intent.snapshot.or_else(|| facts.snapshot()).cloned(),
            settling: standing.map_or(Vec::new(), |standing| standing.settling.clone()),
            told_at: standing.and_then(|standing| standing.told_at),
        }),
        waiting: still_waiting(facts.waiting.as_ref(), place.event),
    }
}

/// The open runs with one more: those before it that have not ended stay to be ended.
fn opened(standing: Option<&Standing>, run: OpenRun) -> Vec<OpenRun> {
    let known = standing.iter().flat_map(|standing| &standing.runs);
    let others = known.filter(|known| known.run_id != run.run_id).cloned();
    let mut runs: Vec<OpenRun> = others.collect();
    runs.push(run);
    let excess = runs.len().saturating_sub(OPEN_RUNS);
    runs.drain(..excess);
    runs
}

/// What waits after a word on the event: nothing that is as old.
fn still_waiting(waiting: Option<&Waiting>, event: &AlarmEvent) -> Option<Waiting> {
    waiting
        .filter(|waiting| waiting.event.changed_at > event.changed_at)
        .cloned()
}

/// How a round ends.
pub(crate) struct End<'a> {
    pub(crate) status: Status,
    pub(crate) report: &'a Report,
    pub(crate) progress: Option<Value>,
    pub(crate) memory: Option<Value>,
    pub(crate) breaker: Option<OpenBreaker>,
    /// When the next round's invocation would be dead for certain, had it come.
    pub(crate) continues_by: Option<DateTime<Utc>>,
    /// Whether the target's snapshot has been restored and can go.
    pub(crate) restored: bool,
    /// A plan whose calls were all made, to be verified later.
    pub(crate) settling: Option<Settling>,
    /// How long what the run has put in place stays, where all calls for it were made.
    pub(crate) put_in_place: Option<Temporary>,
}

impl<'a> End<'a> {
    /// An end that leaves nothing else behind.
    pub(crate) fn of(status: Status, report: &'a Report) -> Self {
        Self {
            status,
            report,
            progress: None,
            memory: None,
            breaker: None,
            continues_by: None,
            restored: false,
            settling: None,
            put_in_place: None,
        }
    }
}

/// After a round.
pub(crate) fn finished(
    facts: &Facts,
    event: &AlarmEvent,
    end: &End<'_>,
    now: DateTime<Utc>,
) -> Facts {
    let mut next = facts.clone();
    let free_at = end.continues_by.unwrap_or(now);
    if let Some(record) = &mut next.record {
        record.status = end.status;
        record.progress.clone_from(&end.progress);
        record.report = Some(end.report.clone());
        record.claimed_until = free_at;
    }
    if let Some(lease) = &mut next.lease {
        // Between rounds the target stays in the run's hand.
        lease.held_until = free_at;
    }
    let run_id = next.record.as_ref().map(|record| record.run_id.clone());
    let history = &mut next.history;
    history.version += 1;
    let mut actions = history.actions.iter_mut();
    if let Some(action) = actions.find(|action| Some(&action.run_id) == run_id.as_ref()) {
        action.finished_at = now;
    }
    history.memory = end.memory.clone().or(history.memory.take());
    history.breaker = end.breaker.clone().or(history.breaker.take());
    if end.status == Status::Completed {
        answer(history, event, end.report);
    }
    if let Some(standing) = &mut next.standing {
        standing.version += 1;
        let own = |of: &str| Some(of) == run_id.as_deref();
        standing.settling.retain(|settling| !own(&settling.run_id));
        // What another run waits to see stays; what was taken back will not be seen, and that run is still to be ended.
        if end.restored {
            let given_up = standing.settling.drain(..).map(|settling| OpenRun {
                run_id: settling.run_id,
                transition: settling.transition,
                event: settling.event,
            });
            standing.runs.extend(given_up);
        }
        standing.settling.extend(end.settling.clone());
        if !matches!(end.status, Status::Continuing | Status::Failed) {
            standing.runs.retain(|run| !own(&run.run_id));
        }
        if let Some(kept) = end.put_in_place
            && let Some(snapshot) = &mut standing.snapshot
            && own(&snapshot.run_id)
            && snapshot.in_place_since.is_none()
        {
            snapshot.in_place_since = Some(now);
            snapshot.expires_at = renewed(snapshot, Some(kept), now);
        }
        if end.restored {
            // Nothing is left to take back for whoever began to.
            standing
                .runs
                .retain(|run| !items::restores(&run.transition));
            standing.snapshot = None;
            standing.told_at = None;
        }
    }
    cleared(next)
}

fn cleared(mut facts: Facts) -> Facts {
    facts.standing = facts.standing.filter(|standing| !standing.is_over());
    facts
}

/// After a claim that is given back before anything was done.
pub(crate) fn withdrawn(facts: &Facts, before: &Facts, now: DateTime<Utc>) -> Facts {
    let mut next = facts.clone();
    let token = facts.lease.as_ref().map_or(0, |lease| lease.token);
    next.record = before.record.clone().map(|record| Record {
        token,
        claimed_until: now,
        ..record
    });
    if let Some(lease) = &mut next.lease {
        lease.held_until = now;
    }
    next.history = History {
        version: facts.history.version + 1,
        ..before.history.clone()
    };
    let version = facts
        .standing
        .as_ref()
        .map_or(0, |standing| standing.version);
    next.standing = before.standing.clone().map(|standing| Standing {
        version: version + 1,
        ..standing
    });
    next.waiting.clone_from(&before.waiting);
    next
}

/// What a run that changes nothing on the target has found.
#[derive(Default)]
pub(crate) struct Refused<'a> {
    /// How it ended.
    pub(crate) report: Option<&'a Report>,
    /// A breaker that opens.
    pub(crate) breaker: Option<OpenBreaker>,
    /// What later runs on the target should remember.
    pub(crate) memory: Option<Value>,
    /// Until when what is in place stays.
    pub(crate) renewed: Option<DateTime<Utc>>,
    /// What keeps the run from acting, where time alone can lift it, and when it is worth another look; `None` for a
    /// lasting reason.
    pub(crate) waits: Option<(Rule, DateTime<Utc>)>,
    /// Whether the event says something of the alarm.
    pub(crate) tells: bool,
    /// Since when the alarm, read again, is at OK: then what the event opens is over already.
    pub(crate) ok_since: Option<DateTime<Utc>>,
    /// Whether the run was asked for its plan only, and may leave no trace but its line.
    pub(crate) dry_run: bool,
    /// Whether what waits is still to be done when the alarm is back at OK.
    pub(crate) outlasts_alarm: bool,
}

/// After a run that changed nothing on the target.
pub(crate) fn refused(
    facts: &Facts,
    place: &Place<'_>,
    refused: &Refused<'_>,
    now: DateTime<Utc>,
) -> Facts {
    let mut next = facts.clone();
    let event = place.event;
    if refused.tells {
        next.alarm = noted_event(&facts.alarm, event);
        if let Some(since) = refused.ok_since {
            next.alarm = noted(&next.alarm, &event.alarm_arn, State::Ok, since);
        }
    }
    let rule = refused.report.and_then(|report| report.outcome.rule());
    // A duplicate says nothing of how its run has ended, or will: it may be at work.
    if refused.dry_run {
        return next;
    }
    next.waiting = waits(facts, place, refused, now);
    if rule == Some(Rule::Duplicate) {
        return next;
    }
    let run_id = place.run_id();
    let held_by_another = facts
        .lease
        .as_ref()
        .is_some_and(|lease| lease.held_until > now && lease.run_id != run_id);
    // What the holder owns is the holder's; what is left out now is said at the schedule's next look.
    if held_by_another {
        return next;
    }
    let mut history = facts.history.clone();
    history.breaker = refused.breaker.clone().or(history.breaker);
    history.memory = refused.memory.clone().or(history.memory);
    let lasting = refused.waits.is_none();
    if let Some(report) = refused.report.filter(|_| lasting) {
        if event.state == State::Alarm {
            answer(&mut history, event, report);
        }
        close(&mut next, report, &run_id, now);
    }
    if history != facts.history {
        history.version += 1;
        next.history = history;
    }
    if let Some(expires_at) = refused.renewed
        && let Some(standing) = &mut next.standing
        && let Some(snapshot) = &mut standing.snapshot
    {
        snapshot.expires_at = Some(expires_at);
        standing.version += 1;
    }
    cleared(next)
}

/// Ends a record that an earlier attempt left open, and gives back what that attempt held.
fn close(next: &mut Facts, report: &Report, run_id: &str, now: DateTime<Utc>) {
    if let Some(record) = &mut next.record {
        if record.status == Status::Completed {
            return;
        }
        record.status = Status::Completed;
        record.report = Some(report.clone());
        record.sequence += 1;
        record.claimed_until = now;
    }
    if let Some(lease) = &mut next.lease
        && lease.run_id == run_id
        && lease.held_until > now
    {
        lease.held_until = now;
    }
    if let Some(standing) = &mut next.standing {
        let before = (standing.runs.len(), standing.settling.len());
        standing.runs.retain(|run| run.run_id != run_id);
        standing
            .settling
            .retain(|settling| settling.run_id != run_id);
        if before != (standing.runs.len(), standing.settling.len()) {
            standing.version += 1;
        }
    }
}

fn waits(
    facts: &Facts,
    place: &Place<'_>,
    refused: &Refused<'_>,
    now: DateTime<Utc>,
) -> Option<Waiting> {
    let event = place.event;
    let before = facts.waiting.as_ref();
    let (Some((rule, look_at)), Some(report)) = (refused.waits, refused.report) else {
        return match event.state {
            State::Ok if refused.outlasts_alarm => before.cloned(),
            State::Alarm | State::Ok => still_waiting(before, event),
            State::InsufficientData => before.cloned(),
        };
    };
    let newer = before.is_some_and(|waiting| waiting.event.changed_at > event.changed_at);
    // A playbook asks again by itself.
    let asks_again = matches!(event.path, Path::Playbook { .. });
    if event.state != State::Alarm || newer || !refused.tells || asks_again {
        return before.cloned();
    }
    let known = before.filter(|waiting| waiting.event.changed_at == event.changed_at);
    // What still waits for the same thing, and was due before, is due.
    if let Some(known) = known
        && known.rule == rule
        && known.look_at <= now
        && look_at <= now
    {
        return before.cloned();
    }
    Some(Waiting {
        resource: place.resource.to_owned(),
        event: event.clone(),
        rule,
        since: known.map_or(now, |known| known.since),
        reason: report.outcome.reason().to_owned(),
        look_at,
    })
}

fn answer(history: &mut History, event: &AlarmEvent, report: &Report) {
    if event.state != State::Alarm {
        return;
    }
    let known = history.answers.get(&event.alarm_arn);
    if known.is_some_and(|known| known.changed_at > event.changed_at) {
        return;
    }
    if known.is_none() && history.answers.len() >= ANSWERS {
        let oldest = history.answers.iter().min_by_key(|(_, it)| it.changed_at);
        if let Some(arn) = oldest.map(|(arn, _)| arn.clone()) {
            history.answers.remove(&arn);
        }
    }
    history.answers.insert(
        event.alarm_arn.clone(),
        Answer {
            changed_at: event.changed_at,
            outcome: report.outcome.name().to_owned(),
            rule: report.outcome.rule(),
            reason: report.outcome.reason().chars().take(500).collect(),
        },
    );
}

/// The history with a new action of the run, kept short.
fn acted(history: &History, limits: &Limits, action: Action) -> History {
    let keep = TimeDelta::seconds(i64::from(
        limits
            .budget
            .window_seconds
            .max(limits.breaker.window_seconds)
            .max(limits.breaker.open_seconds)
            .get()
            .max(limits.cooldown_seconds),
    ));
    let since = action.started_at - keep;
    let mut next = history.clone();
    next.version += 1;
    match next
        .actions
        .iter_mut()
        .find(|known| known.run_id == action.run_id)
    {
        Some(known) => known.finished_at = action.finished_at,
        None => next.actions.push(action),
    }
    next.actions.retain(|known| known.finished_at > since);
    next.breaker = next.breaker.filter(|breaker| breaker.until > since);
    next
}

/// The alarm's state with an event noted once.
pub(crate) fn noted_event(alarm: &AlarmState, event: &AlarmEvent) -> AlarmState {
    noted(alarm, &event.alarm_arn, event.state, event.changed_at)
}

/// The alarm's state with a change noted once, and the incident that it opens or closes. The alarm's own time says
/// which, whatever order the changes come to be known in. `INSUFFICIENT_DATA` says nothing of either.
pub(crate) fn noted(alarm: &AlarmState, arn: &str, state: State, at: DateTime<Utc>) -> AlarmState {
    let mut next = alarm.clone();
    if state == State::InsufficientData {
        return next;
    }
    let known = alarm
        .latest
        .is_some_and(|latest| latest.state == state && same(latest.at, at));
    if state == State::Alarm && !next.transitions.iter().any(|other| same(*other, at)) {
        next.transitions.push(at);
        next.transitions.sort_unstable();
        let excess = next.transitions.len().saturating_sub(FLAPS_KEPT as usize);
        next.transitions.drain(..excess);
    }
    if !known && alarm.latest.is_none_or(|latest| at > latest.at) {
        next.latest = Some(Change { state, at });
        match state {
            State::Alarm if !next.open => opens(&mut next, arn, at),
            State::Alarm | State::InsufficientData => {}
            State::Ok => next.open = false,
        }
    } else if state == State::Ok && next.open && next.opened_at.is_some_and(|opened| opened < at) {
        // The alarm was at OK in between: what is open now began after that.
        let since = next.transitions.iter().copied().find(|other| *other > at);
        if let Some(since) = since {
            opens(&mut next, arn, since);
        }
    }
    if next != *alarm {
        next.version += 1;
    }
    next
}

fn opens(alarm: &mut AlarmState, arn: &str, at: DateTime<Utc>) {
    alarm.incident_id = Some(ids::incident_id(arn, at));
    alarm.opened_at = Some(at);
    alarm.open = true;
}

/// The incident of the record, or of what is taken back, or else the alarm's open or last one, or else the one that
/// this event opens.
pub(crate) fn incident_of(facts: &Facts, place: &Place<'_>, restores: bool) -> String {
    if let Some(record) = &facts.record {
        return record.incident_id.clone();
    }
    if let Some(snapshot) = facts.snapshot().filter(|_| restores) {
        return snapshot.incident_id.clone();
    }
    let alarm = noted_event(&facts.alarm, place.event);
    alarm
        .incident_id
        .unwrap_or_else(|| ids::incident_id(&place.event.alarm_arn, place.event.changed_at))
}

/// After humans were told of what stands.
pub(crate) fn told(facts: &Facts, now: DateTime<Utc>) -> Facts {
    let mut next = facts.clone();
    if let Some(standing) = &mut next.standing {
        standing.told_at = Some(now);
        standing.version += 1;
    }
    next
}

/// The end of what is renewed now.
pub(crate) fn renewed(
    snapshot: &Snapshot,
    temporary: Option<Temporary>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    temporary.map(|kept| (now + kept.expires_after).min(snapshot.ends_by(kept.at_most)))
}

#[cfg(test)]
mod tests;
