//! What holds for any history.

use chrono::TimeDelta;
use proptest::prelude::*;
use shared::alarm::State;
use shared::guard::{LiveAlarm, Occasion, Verdict};
use shared::ledger::items::{AlarmState, Facts, History, OpenBreaker, Status};
use shared::outcome::{Outcome, Rule};

use crate::case::{Case, action, at, event, lease, live, record, revert, rule};

fn histories() -> impl Strategy<Value = History> {
    let one = (-4_000_i64..0, 0_i64..300, 0_u32..3, any::<bool>());
    prop::collection::vec(one, 0..8).prop_map(|mut all| {
        all.sort_unstable();
        let actions = all
            .into_iter()
            .enumerate()
            .map(|(n, (start, length, refires, reverts))| {
                let made = if reverts { revert } else { action };
                made(&format!("run-{n}"), start, start + length, refires)
            })
            .collect();
        History {
            version: 1,
            actions,
            ..History::default()
        }
    })
}

fn states() -> impl Strategy<Value = State> {
    prop::sample::select(vec![State::Ok, State::Alarm, State::InsufficientData])
}

fn lives() -> impl Strategy<Value = LiveAlarm> {
    prop_oneof![
        4 => Just(live(State::Alarm)),
        1 => states().prop_map(live),
        1 => Just(LiveAlarm::Gone),
        1 => Just(LiveAlarm::Foreign),
    ]
}

fn facts() -> impl Strategy<Value = Facts> {
    let statuses = vec![
        Status::InProgress,
        Status::Continuing,
        Status::Settling,
        Status::Failed,
    ];
    let records = (
        prop::sample::select(statuses),
        prop::sample::select(vec!["req-me", "req-other"]),
        0_i64..400,
        1_u32..4,
    )
        .prop_map(|(status, request, until, round)| record(status, request, until, round));
    let leases = (
        prop::sample::select(vec!["run-me", "run-other"]),
        -100_i64..400,
    )
        .prop_map(|(run, until)| lease(run, until));
    (
        histories(),
        prop::option::weighted(0.3, records),
        prop::option::of(leases),
        prop::option::weighted(0.3, -100_i64..400),
        prop::collection::vec(-4_000_i64..0, 0..7),
    )
        .prop_map(|(mut history, record, lease, breaker, flaps)| {
            history.breaker = breaker.map(|until| OpenBreaker {
                until: at(until),
                reason: "it came back".into(),
            });
            Facts {
                history,
                record,
                lease,
                alarm: AlarmState {
                    transitions: flaps.into_iter().map(at).collect(),
                    ..AlarmState::default()
                },
                ..Facts::default()
            }
        })
}

fn occasions() -> impl Strategy<Value = Occasion> {
    prop::sample::select(vec![
        Occasion::Delivered,
        Occasion::Due,
        Occasion::Restoring,
    ])
}

fn cases() -> impl Strategy<Value = Case> {
    let rounds = prop::option::weighted(0.2, 1_u32..5);
    (states(), lives(), facts(), rounds, occasions()).prop_map(
        |(state, live, facts, round, occasion)| Case {
            event: event(state, 0),
            live,
            round,
            occasion,
            ..Case::of(facts)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_024) })]

    /// Whatever happened before: no run begins beyond the budget, within the cooldown, or on stale news.
    #[test]
    fn no_history_lets_a_run_exceed_its_bounds(history in histories(), now in 0_i64..2_000) {
        let facts = Facts { history: history.clone(), ..Facts::default() };
        if let Verdict::Proceed(_) = Case::of(facts).asked_at(now) {
            let actions = || history.actions.iter().filter(|action| !action.reverts);
            let spent = actions().filter(|a| a.started_at > at(now - 3_600)).count();
            prop_assert!(spent < 3);
            if let Some(last) = actions().next_back() {
                prop_assert!(last.finished_at + TimeDelta::seconds(60) <= at(now));
            }
            prop_assert!(now <= 900);
        }
    }

    /// A kill switch stops every run that has not ended yet.
    #[test]
    fn nothing_passes_a_kill_switch(case in cases(), now in 0_i64..2_000) {
        let verdict = case.switched(Rule::KillSwitchGlobal).asked_at(now);
        let stopped = verdict == Verdict::Leave || rule(&verdict) == Some(Rule::KillSwitchGlobal);
        prop_assert!(stopped, "{:?}", verdict);
    }

    /// Nobody touches a target in another run's hand.
    #[test]
    fn nothing_passes_another_runs_lease(case in cases(), now in 0_i64..400) {
        if let Verdict::Proceed(_) = case.asked_at(now) {
            let held = case.facts.lease.as_ref().is_some_and(|lease| {
                lease.run_id != "run-me" && lease.held_until > at(now)
            });
            prop_assert!(!held);
        }
    }

    /// An alarm leads to a first attempt only while it is in ALARM, for certain, and its breaker is closed.
    #[test]
    fn nothing_is_begun_for_an_alarm_that_is_not_in_alarm(case in cases(), now in 0_i64..400) {
        if let Verdict::Proceed(grounds) = case.asked_at(now)
            && case.event.state == State::Alarm
            && case.facts.record.is_none()
            && case.occasion != Occasion::Restoring
        {
            prop_assert!(grounds.too_late.is_none());
            prop_assert_eq!(case.live.state(), Some(State::Alarm));
            let open = case.facts.history.breaker.as_ref().is_some_and(|open| open.until > at(now));
            prop_assert!(!open);
        }
    }

    /// What time alone lifts comes with the time of the next look, and nothing else does.
    #[test]
    fn a_refusal_has_a_next_look_exactly_where_its_rule_passes(case in cases(), now in 0_i64..2_000) {
        if let Verdict::Refuse(refusal) = case.asked_at(now) {
            let passes = match (&refusal.outcome, refusal.outcome.rule()) {
                (_, Some(rule)) => rule.passes(),
                (Outcome::Pending { .. } | Outcome::Failed { retryable: true, .. }, None) => true,
                (other, None) => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert_eq!(refusal.look_at.is_some(), passes, "{:?}", refusal);
            if refusal.outcome.rule().is_some() {
                prop_assert!(refusal.look_at.is_none_or(|look_at| look_at >= at(now)));
            }
        }
    }

    /// The schedule answers nothing that is not due, and the same question is always answered in the same way.
    #[test]
    fn a_decision_follows_from_its_question(case in cases(), now in 0_i64..2_000) {
        prop_assert_eq!(case.asked_at(now), case.asked_at(now));
        if case.occasion == Occasion::Due && case.facts.record.is_none() && now < 300 {
            prop_assert_eq!(case.asked_at(now), Verdict::Leave);
        }
    }
}
