//! Each rule by its name, and whether time alone can lift it.

use chrono::TimeDelta;
use shared::alarm::{State, Suppression};
use shared::guard::{LiveAlarm, Occasion, Verdict};
use shared::ledger::items::{AlarmState, Change, Facts, History, OpenBreaker, Record, Status};
use shared::outcome::{Outcome, Rule};

use crate::case::{
    Case, acted, action, answered, answered_beside, at, event, lease, live, record, report, rule,
    waiting,
};

#[test]
fn a_fresh_alarm_with_nothing_against_it_proceeds() {
    let grounds = Case::default().proceeds_at(10);
    assert_eq!((grounds.round, grounds.attempt, grounds.refires), (1, 1, 0));
    assert_eq!(grounds.started_at, at(10));
    assert!(!grounds.follows_a_death && !grounds.settling && grounds.too_late.is_none());
}

fn changed(state: State, second: i64) -> Facts {
    Facts {
        alarm: AlarmState {
            latest: Some(Change {
                state,
                at: at(second),
            }),
            ..AlarmState::default()
        },
        ..Facts::default()
    }
}

#[test]
fn each_lasting_rule_refuses_by_its_name_and_for_good() {
    let of = Case::of;
    let seen = |live| Case {
        live,
        ..Case::default()
    };
    let mut suppressed = Case::default();
    suppressed.event.suppressed_by = Some(Suppression::MuteRule {
        arn: None,
        until: None,
    });
    let unknown = Case {
        event: event(State::InsufficientData, 0),
        ..Case::default()
    };
    let nobodys = Case {
        round: Some(2),
        ..Case::default()
    };
    let cases = vec![
        (Case::default(), 901, Rule::StaleEvent),
        (Case::default(), -301, Rule::StaleEvent),
        (seen(live(State::Ok)), 10, Rule::AlarmRecovered),
        (
            seen(live(State::InsufficientData)),
            10,
            Rule::AlarmRecovered,
        ),
        (seen(LiveAlarm::Gone), 10, Rule::AlarmRecovered),
        (seen(LiveAlarm::Foreign), 10, Rule::ForeignAccount),
        (unknown, 10, Rule::StateWithoutAction),
        (suppressed, 10, Rule::AlarmSuppressed),
        (of(changed(State::Ok, 1)), 10, Rule::Superseded),
        (of(changed(State::Alarm, 3)), 10, Rule::Superseded),
        (of(answered_beside(1)), 10, Rule::Duplicate),
        (nobodys, 10, Rule::Duplicate),
    ];
    for (case, now, expected) in cases {
        let refusal = case.refused_at(now);
        assert_eq!(refusal.outcome.rule(), Some(expected), "{case:?}");
        assert_eq!((refusal.look_at, refusal.breaker), (None, None), "{case:?}");
        assert!(!expected.passes(), "{expected:?}");
    }
}

#[test]
fn each_passing_rule_says_when_to_look_again() {
    let held = Facts {
        lease: Some(lease("run-other", 100)),
        ..Facts::default()
    };
    let flapping = Facts {
        alarm: AlarmState {
            transitions: (1..=4).map(|n| at(-n * 60)).collect(),
            ..AlarmState::default()
        },
        ..Facts::default()
    };
    let broken = Facts {
        history: History {
            breaker: Some(OpenBreaker {
                until: at(100),
                reason: "it came back".into(),
            }),
            ..History::default()
        },
        ..Facts::default()
    };
    let resting = acted(vec![action("run-a", -30, -20, 0)]);
    let spent = acted(vec![
        action("run-a", -3_000, -2_900, 0),
        action("run-b", -2_000, -1_900, 0),
        action("run-c", -1_000, -900, 0),
    ]);
    let refired = acted(vec![action("run-a", -200, -100, 1)]);
    let off = |rule| Case::default().switched(rule);
    let disabled = LiveAlarm::Found {
        state: State::Alarm,
        actions_enabled: false,
        since: None,
    };
    let disabled = Case {
        live: disabled,
        ..Case::default()
    };
    let cases = vec![
        (disabled, Rule::AlarmActionsDisabled, 10),
        (off(Rule::KillSwitchGlobal), Rule::KillSwitchGlobal, 10),
        (
            off(Rule::KillSwitchRemediation),
            Rule::KillSwitchRemediation,
            10,
        ),
        (off(Rule::KillSwitchTarget), Rule::KillSwitchTarget, 10),
        (Case::of(held), Rule::LeaseHeld, 10),
        (Case::of(flapping), Rule::Flapping, 1_800 - 240),
        (Case::of(broken), Rule::Breaker, 100),
        (Case::of(refired), Rule::Breaker, 10 + 3_600),
        (Case::of(resting), Rule::Cooldown, 40),
        (Case::of(spent), Rule::Budget, 600),
    ];
    for (case, expected, look_at) in cases {
        let refusal = case.refused_at(10);
        assert_eq!(refusal.outcome.rule(), Some(expected), "{case:?}");
        assert_eq!(refusal.look_at, Some(at(look_at)), "{case:?}");
        assert!(expected.passes(), "{expected:?}");
    }
}

#[test]
fn what_could_not_be_acted_on_is_acted_on_once_its_time_has_come() {
    let resting = acted(vec![action("run-a", -400, -20, 0)]);
    assert_eq!(
        Case::of(resting.clone()).refused_at(39).look_at,
        Some(at(40))
    );
    assert_eq!(Case::of(resting).proceeds_at(40).attempt, 1);
    let flapping = Facts {
        alarm: AlarmState {
            transitions: (1..=4).map(|n| at(-n * 60)).collect(),
            ..AlarmState::default()
        },
        ..waiting(0, 0)
    };
    assert_eq!(
        Case::of(flapping.clone()).refused_at(1_559).look_at,
        Some(at(1_560))
    );
    assert_eq!(Case::of(flapping).proceeds_at(1_560).attempt, 1);
}

#[test]
fn the_kill_switch_is_told_with_its_scope_and_its_reason() {
    for (rule, words) in [
        (
            Rule::KillSwitchGlobal,
            "the kill switch for everything is on: maintenance",
        ),
        (
            Rule::KillSwitchRemediation,
            "the kill switch for this remediation is on: maintenance",
        ),
        (
            Rule::KillSwitchTarget,
            "the kill switch for this target is on: maintenance",
        ),
    ] {
        let refusal = Case::default().switched(rule).refused_at(10);
        assert_eq!(refusal.outcome.reason(), words);
    }
}

#[test]
fn one_change_that_the_event_and_the_alarm_date_otherwise_is_one() {
    for millis in [-50, 0, 1, 50] {
        let mut facts = changed(State::Alarm, 0);
        if let Some(latest) = &mut facts.alarm.latest {
            latest.at += TimeDelta::milliseconds(millis);
        }
        assert_eq!(Case::of(facts).proceeds_at(10).attempt, 1, "{millis}");
    }
    // Answered under exactly this time it has a record, which alone tells of duplicates.
    assert_eq!(Case::of(answered(0)).proceeds_at(10).attempt, 1);
    assert_eq!(Case::of(answered_beside(-51)).proceeds_at(10).attempt, 1);
    let refusal = Case::of(answered_beside(-50)).refused_at(10);
    assert_eq!(refusal.outcome.rule(), Some(Rule::Duplicate));
}

#[test]
fn an_older_change_of_the_alarm_supersedes_nothing() {
    for state in [State::Ok, State::Alarm, State::InsufficientData] {
        assert_eq!(Case::of(changed(state, -1)).proceeds_at(10).attempt, 1);
    }
}

#[test]
fn a_lease_that_has_run_out_or_is_ones_own_holds_nobody_back() {
    for (run, held_until) in [("run-other", 10), ("run-other", -5), ("run-me", 100)] {
        let facts = Facts {
            lease: Some(lease(run, held_until)),
            ..Facts::default()
        };
        assert_eq!(Case::of(facts).proceeds_at(10).attempt, 1, "{run}");
    }
}

#[test]
fn a_return_to_ok_is_no_alarm_and_no_bound_keeps_it_off() {
    let mut facts = acted(vec![action("run-a", -200, -100, 1)]);
    facts.history.breaker = Some(OpenBreaker {
        until: at(100),
        reason: "it came back".into(),
    });
    facts.alarm.transitions = (0..9).map(|n| at(-n * 60)).collect();
    let case = Case {
        event: event(State::Ok, 0),
        live: live(State::Ok),
        facts,
        ..Case::default()
    };
    assert_eq!(case.proceeds_at(10).refires, 1);
}

#[test]
fn a_completed_transition_repeats_its_report_even_while_the_kill_switch_is_on() {
    let facts = Facts {
        record: Some(Record {
            report: Some(report()),
            ..record(Status::Completed, "req-other", 5, 1)
        }),
        ..Facts::default()
    };
    let case = Case::of(facts).switched(Rule::KillSwitchGlobal);
    let verdict = case.asked_at(10);
    assert_eq!(verdict, Verdict::Repeat(Box::new(report())));
    assert_eq!(rule(&verdict), None);
    for occasion in [Occasion::Due, Occasion::Restoring] {
        let again = Case {
            occasion,
            ..case.clone()
        };
        assert_eq!(again.asked_at(10), Verdict::Leave);
    }
}

#[test]
fn a_foreign_alarm_is_a_humans_business() {
    let case = Case {
        live: LiveAlarm::Foreign,
        ..Case::default()
    };
    let Outcome::Escalated { reason, .. } = case.refused_at(10).outcome else {
        panic!()
    };
    assert!(
        reason.contains("belongs to account 123456789012"),
        "{reason}"
    );
}
