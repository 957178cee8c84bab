//! Breaker, flapping, cooldown and budget: what spends them, what feeds them, and what passes them by.

use chrono::TimeDelta;
use shared::alarm::State;
use shared::guard::Occasion;
use shared::ledger::items::{AlarmState, Facts};
use shared::outcome::Rule;
use shared::policy::{Flap, Limits};

use crate::case::{ALARM, Case, acted, action, at, event, limits, live, number, revert, rule};

#[test]
fn an_opened_breaker_is_to_be_kept() {
    let refired = acted(vec![action("run-a", -200, -100, 1)]);
    let refusal = Case::of(refired).refused_at(10);
    let breaker = refusal.breaker.unwrap();
    assert_eq!(breaker.until, at(10 + 3_600));
    assert!(
        breaker.reason.contains("come back 2 times in a row"),
        "{breaker:?}"
    );
}

#[test]
fn an_alarm_of_another_kind_is_not_put_down_to_us() {
    let mut facts = acted(vec![action("run-a", -200, -100, 1)]);
    facts.history.actions[0].alarm_arn = format!("{ALARM}2");
    assert_eq!(Case::of(facts).proceeds_at(10).refires, 0);
}

#[test]
fn an_alarm_that_came_long_after_our_action_or_before_it_is_not_put_down_to_it() {
    for (started, finished, refires) in
        [(-400, -301, 0), (-400, -300, 2), (-100, -70, 2), (0, 0, 0)]
    {
        let limits = Limits {
            cooldown_seconds: 0,
            ..limits()
        };
        let mut case = Case {
            limits,
            ..Case::of(acted(vec![action("run-a", started, finished, 1)]))
        };
        case.limits.breaker.refires = number(9);
        assert_eq!(
            case.proceeds_at(10).refires,
            refires,
            "{started} {finished}"
        );
    }
}

#[test]
fn what_takes_back_spends_neither_cooldown_nor_budget() {
    let facts = acted(vec![
        revert("run-a", -3_000, -2_900, 0),
        revert("run-b", -2_000, -1_900, 0),
        revert("run-c", -1_000, -900, 0),
        revert("run-d", -5, 5, 0),
    ]);
    assert_eq!(Case::of(facts.clone()).proceeds_at(10).attempt, 1);
    let mut rests = facts;
    rests
        .history
        .actions
        .insert(3, action("run-e", -100, -30, 0));
    assert_eq!(Case::of(rests).refused_at(10).look_at, Some(at(30)));
}

#[test]
fn an_alarm_that_follows_what_took_back_is_put_down_to_us() {
    let facts = acted(vec![
        action("run-a", -500, -400, 0),
        revert("run-b", -100, -50, 1),
    ]);
    let refusal = Case::of(facts).refused_at(10);
    assert_eq!(refusal.outcome.rule(), Some(Rule::Breaker));
}

/// A restoration is asked for under the time at which the snapshot was taken, which is before the action that took it.
#[test]
fn what_takes_back_passes_the_count_of_alarms_in_a_row_on() {
    for taken_at in [-201, -200] {
        let case = Case {
            event: event(State::Ok, taken_at),
            live: live(State::Ok),
            occasion: Occasion::Restoring,
            ..Case::of(acted(vec![action("run-a", -200, -100, 1)]))
        };
        for now in [10, 5_000] {
            assert_eq!(case.proceeds_at(now).refires, 1, "{taken_at} {now}");
        }
    }
}

#[test]
fn taking_back_is_bound_by_nothing_but_switches_and_leases() {
    let mut facts = acted((0..9).map(|n| action("run-a", -n, -n, 9)).collect());
    facts.history.breaker = Some(shared::ledger::items::OpenBreaker {
        until: at(100),
        reason: "it came back".into(),
    });
    let mut case = Case {
        event: event(State::Ok, -9_000),
        occasion: Occasion::Restoring,
        ..Case::of(facts)
    };
    assert_eq!(case.proceeds_at(10).attempt, 1);
    case.facts.lease = Some(crate::case::lease("run-other", 100));
    assert_eq!(rule(&case.asked_at(10)), Some(Rule::LeaseHeld));
    let off = case.switched(Rule::KillSwitchTarget);
    assert_eq!(rule(&off.asked_at(10)), Some(Rule::KillSwitchTarget));
}

fn flapped(seconds: impl Iterator<Item = i64>) -> Facts {
    Facts {
        alarm: AlarmState {
            transitions: seconds.map(at).collect(),
            ..AlarmState::default()
        },
        ..Facts::default()
    }
}

#[test]
fn the_event_itself_is_counted_once_whether_or_not_it_was_noted() {
    let before = [-180, -120, -60];
    assert_eq!(
        Case::of(flapped(before.into_iter()))
            .proceeds_at(10)
            .attempt,
        1
    );
    let noted = flapped(before.into_iter().chain([0]));
    assert_eq!(Case::of(noted).proceeds_at(10).attempt, 1);
    let more = flapped(before.into_iter().chain([-30, 0]));
    assert_eq!(rule(&Case::of(more).asked_at(10)), Some(Rule::Flapping));
}

#[test]
fn targets_of_one_alarm_each_see_their_own_window() {
    let hourly = flapped((1..=24).map(|hour| -hour * 3_600));
    let within = |transitions, hours: u32| {
        let mut case = Case::of(hourly.clone());
        case.limits.flap = Flap {
            transitions: number(transitions),
            window_seconds: number(hours * 3_600 + 30),
        };
        rule(&case.asked_at(10))
    };
    assert_eq!(within(2, 1), None);
    assert_eq!(within(1, 1), Some(Rule::Flapping));
    assert_eq!(within(25, 24), None);
    assert_eq!(within(24, 24), Some(Rule::Flapping));
}

#[test]
fn a_budget_is_a_sliding_window_over_when_actions_began() {
    let facts = acted(vec![
        action("run-a", -3_590, -100, 0),
        action("run-b", -2_000, -90, 0),
        action("run-c", -1_000, -80, 0),
    ]);
    let mut case = Case::of(facts);
    case.limits.breaker.window_seconds = number(1);
    assert_eq!(rule(&case.asked_at(9)), Some(Rule::Budget));
    assert_eq!(case.proceeds_at(10).attempt, 1);
    let next = at(9) + TimeDelta::seconds(1);
    assert_eq!(case.refused_at(9).look_at, Some(next));
}
