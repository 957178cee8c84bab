//! What must hold in every world, while it goes on and when it has come to rest.

use std::collections::BTreeMap;

use shared::alarm::State;
use shared::ledger::items::{AlarmState, History, Record, Standing, Status, Waiting};
use shared::outcome::Rule;

use crate::toys::rollback::Memory;
use crate::world::{Inner, OURS, World, alarm_arn, parsed};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// At most one effective action for each transition and step, remediation and target.
    OneAction,
    /// Nothing is changed under a fencing token that another claim has superseded.
    NoSupersededEffect,
    /// A snapshot is there before anything is put in place, and until nothing of it is left.
    SnapshotFirst,
    /// At rest, an incident is open exactly while its alarm is in ALARM.
    IncidentFollowsAlarm,
    /// At rest, nothing temporary is in place where the alarms are at OK, whatever happened to the policy.
    NothingLeft,
    /// At rest, a target in ALARM was acted on, or a lasting reason stands in the ledger.
    ActedOrReason,
    /// Nothing is taken back while an alarm of its target is seen to be in ALARM, before its longest term is over.
    RestoreInTime,
    /// A report says what the world shows.
    HonestReport,
    /// A kill switch that was thrown before the claim is obeyed.
    KillSwitch,
    /// At rest, no run is left open, and every end was told.
    EndIsTold,
    /// What is remembered is so.
    TrueMemory,
    /// A message that was delivered twice was counted as a possible duplicate.
    CountedDuplicates,
}

impl Invariant {
    /// Its name, as documents and histories give it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OneAction => "one-action",
            Self::NoSupersededEffect => "no-superseded-effect",
            Self::SnapshotFirst => "snapshot-first",
            Self::IncidentFollowsAlarm => "incident-follows-alarm",
            Self::NothingLeft => "nothing-left",
            Self::ActedOrReason => "acted-or-reason",
            Self::RestoreInTime => "restore-in-time",
            Self::HonestReport => "honest-report",
            Self::KillSwitch => "kill-switch",
            Self::EndIsTold => "end-is-told",
            Self::TrueMemory => "true-memory",
            Self::CountedDuplicates => "counted-duplicates",
        }
    }
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was found.
    pub what: String,
}

/// A target of the world's policies, as it was when the world came to rest.
#[derive(Debug, Clone)]
pub struct Target {
    /// The remediation.
    pub remediation: &'static str,
    /// The thing.
    pub resource: String,
    /// The names of its alarms.
    pub alarms: Vec<String>,
    /// Whether the policy still names it.
    pub listed: bool,
}

/// Checks a world that has come to rest.
pub fn at_rest(world: &World, targets: &[Target]) {
    let inner = world.inner();
    let mut found = Vec::new();
    incidents(&inner, targets, &mut found);
    for target in targets {
        nothing_left(&inner, target, &mut found);
        acted(&inner, target, &mut found);
        memory(&inner, target, &mut found);
    }
    one_action(&inner, &mut found);
    duplicates(&inner, &mut found);
    ends(&inner, targets, &mut found);
    drop(inner);
    for (invariant, what) in found {
        world.violated(invariant, what);
    }
}

type Found = Vec<(Invariant, String)>;

fn incidents(inner: &Inner, targets: &[Target], found: &mut Found) {
    for (arn, alarm) in &inner.alarms {
        // An alarm that concerns nobody has no incident.
        let concerns = |target: &Target| {
            let mut alarms = target.alarms.iter();
            target.listed && alarms.any(|alarm| alarm_arn(alarm) == *arn)
        };
        let known: Option<AlarmState> = inner
            .table
            .iter()
            .find(|(key, _)| key.pk == format!("alarm#{arn}") && key.sk == "state")
            .and_then(|(_, item)| parsed(item));
        let open = known.as_ref().is_some_and(|known| known.open);
        let told = known.is_some();
        let wrong = match alarm.state {
            State::Alarm => told && !open && targets.iter().any(concerns),
            State::Ok => open,
            State::InsufficientData => false,
        };
        if wrong {
            found.push((
                Invariant::IncidentFollowsAlarm,
                format!("{arn} is in {}, and the ledger has {known:?}", alarm.state),
            ));
        }
    }
}

fn standing(inner: &Inner, target: &Target) -> Option<Standing> {
    let pk = format!("due#{}#", target.remediation);
    let sk = format!("standing#{}", target.resource);
    let mut items = inner.table.iter();
    items
        .find(|(key, _)| key.pk.starts_with(&pk) && key.sk == sk)
        .and_then(|(_, item)| parsed(item))
}

fn is_off(inner: &Inner, target: &Target) -> bool {
    let scopes = [
        "global".to_owned(),
        format!("remediation#{}", target.remediation),
        format!("target#{}", target.resource),
    ];
    let mut thrown = inner.thrown.iter();
    thrown.any(|thrown| thrown.to.is_none() && scopes.contains(&thrown.scope))
}

fn state(inner: &Inner, alarm: &str) -> State {
    let alarm = inner.alarms.get(&alarm_arn(alarm));
    alarm.map_or(State::Ok, |alarm| alarm.state)
}

fn nothing_left(inner: &Inner, target: &Target, found: &mut Found) {
    let all_ok = target
        .alarms
        .iter()
        .all(|alarm| state(inner, alarm) == State::Ok);
    if !all_ok {
        return;
    }
    let value = inner.things.get(&target.resource).map(|thing| &thing.value);
    let stands = standing(inner, target);
    let snapshot = stands.as_ref().is_some_and(|it| it.snapshot.is_some());
    let in_place = value.is_some_and(|value| value == OURS);
    if !snapshot && !in_place {
        return;
    }
    if is_off(inner, target) {
        // Then at least a human was told.
        let overdue = inner
            .published
            .iter()
            .any(|outcome| outcome["rule"] == "overdue" && outcome["resource"] == target.resource);
        if overdue || !in_place {
            return;
        }
    }
    found.push((
        Invariant::NothingLeft,
        format!(
            "{} on {} (listed: {}): all alarms are at OK, the thing is {value:?}, and the ledger has {stands:?}",
            target.remediation, target.resource, target.listed
        ),
    ));
}

fn acted(inner: &Inner, target: &Target, found: &mut Found) {
    // What is done about an alarm with a playbook is the playbook's to say.
    if !target.listed || target.remediation == "toy-approved" {
        return;
    }
    let history = history(inner, target);
    for alarm in &target.alarms {
        let arn = alarm_arn(alarm);
        let Some(now) = inner.alarms.get(&arn) else {
            continue;
        };
        if now.state != State::Alarm {
            continue;
        }
        let answered = history.as_ref().and_then(|history| {
            let answer = history.answers.get(&arn)?;
            let of_this = answer.changed_at >= now.since - chrono::TimeDelta::seconds(2);
            let lasts = answer.rule.is_none_or(|rule| !rule.passes());
            (of_this && lasts).then_some(answer)
        });
        let waiting: Option<Waiting> = inner
            .table
            .iter()
            .filter(|(key, _)| key.pk.starts_with(&format!("due#{}#", target.remediation)))
            .find(|(key, _)| key.sk == format!("waiting#{}#{arn}", target.resource))
            .and_then(|(_, item)| parsed(item));
        let passes = waiting.as_ref().is_some_and(|waiting| match waiting.rule {
            Rule::KillSwitchGlobal | Rule::KillSwitchRemediation | Rule::KillSwitchTarget => {
                is_off(inner, target)
            }
            // The kernel says when, and that is after the world's end.
            Rule::Breaker | Rule::Budget | Rule::Flapping | Rule::Cooldown => true,
            _ => false,
        });
        let under_way = standing(inner, target)
            .is_some_and(|stands| !stands.settling.is_empty() || !stands.runs.is_empty());
        if answered.is_none() && !passes && !under_way {
            found.push((
                Invariant::ActedOrReason,
                format!(
                    "{} on {}: {alarm} is in ALARM since {}, nothing answers it, and this waits: {waiting:?}",
                    target.remediation, target.resource, now.since
                ),
            ));
        }
    }
}

fn history(inner: &Inner, target: &Target) -> Option<History> {
    let pk = format!("target#{}", target.resource);
    let sk = format!("history#{}", target.remediation);
    let mut items = inner.table.iter();
    items
        .find(|(key, _)| key.pk == pk && key.sk == sk)
        .and_then(|(_, item)| parsed(item))
}

fn memory(inner: &Inner, target: &Target, found: &mut Found) {
    if target.remediation != "toy-rollback" {
        return;
    }
    let memory: Option<Memory> = history(inner, target)
        .and_then(|history| history.memory)
        .and_then(|memory| serde_json::from_value(memory).ok());
    let (Some(memory), Some(thing)) = (memory, inner.things.get(&target.resource)) else {
        return;
    };
    for version in &memory.by_hand {
        if !thing.gone_back_from.contains(version) {
            found.push((
                Invariant::TrueMemory,
                format!(
                    "someone is held to have gone back from v{version} of {} by hand, and nobody did",
                    target.resource
                ),
            ));
        }
    }
}

fn one_action(inner: &Inner, found: &mut Found) {
    let mut acts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let mut restored: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for effect in &inner.effects {
        // What is put in place again may be taken back again.
        if effect.reverts {
            *restored
                .entry((&effect.run_id, &effect.resource))
                .or_default() += 1;
            continue;
        }
        restored.retain(|(_, resource), _| *resource != effect.resource);
        // Each message of a replay is an effect of its own.
        if effect.remediation == "toy-replay" {
            continue;
        }
        *acts.entry((&effect.run_id, &effect.resource)).or_default() += 1;
    }
    for ((run_id, resource), times) in acts.into_iter().chain(restored) {
        if times > 1 {
            found.push((
                Invariant::OneAction,
                format!("{run_id} changed {resource} {times} times"),
            ));
        }
    }
}

fn duplicates(inner: &Inner, found: &mut Found) {
    for (resource, thing) in &inner.things {
        let twice = thing.delivered.iter().filter(|(_, times)| **times > 1);
        for (message, times) in twice.filter(|(message, _)| !thing.counted.contains(message)) {
            found.push((
                Invariant::CountedDuplicates,
                format!("message {message} of {resource} was delivered {times} times, and nobody counted that"),
            ));
        }
    }
}

fn ends(inner: &Inner, targets: &[Target], found: &mut Found) {
    for (key, item) in &inner.table {
        if key.sk.starts_with("untold#") {
            found.push((
                Invariant::EndIsTold,
                format!("{} was not told: {:?}", key.sk, item.body),
            ));
        }
        if key.sk.starts_with("standing#")
            && let Some(stands) = parsed::<Standing>(item)
            && let Some(run) = stands
                .runs
                .iter()
                .find(|run| !run.transition.starts_with("restore|"))
            && !targets
                .iter()
                .any(|target| target.resource == stands.resource && is_off(inner, target))
        {
            found.push((
                Invariant::EndIsTold,
                format!("{} on {} has not ended", run.run_id, stands.resource),
            ));
        }
        if key.sk != "record" {
            continue;
        }
        let Some(record) = parsed::<Record>(item) else {
            continue;
        };
        let of_target = |target: &&Target| key.pk.contains(&format!("#{}#", target.resource));
        let off = targets
            .iter()
            .find(of_target)
            .is_some_and(|target| is_off(inner, target));
        if record.status != Status::Completed && !key.pk.contains("#restore|") && !off {
            found.push((
                Invariant::EndIsTold,
                format!("{} has not ended: {}", key.pk, record.status.as_str()),
            ));
        }
        let Some(report) = record.report.filter(|_| record.status == Status::Completed) else {
            continue;
        };
        let told = inner.published.iter().any(|outcome| {
            outcome["causation_id"].as_str() == Some(&record.run_id)
                && outcome["outcome"].as_str() == Some(report.outcome.name())
        });
        let silent = report.outcome.name() == "Skipped";
        if !told && !silent {
            found.push((
                Invariant::EndIsTold,
                format!(
                    "{} ended as {}, and nobody was told",
                    record.run_id,
                    report.outcome.name()
                ),
            ));
        }
    }
}
