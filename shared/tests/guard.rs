//! The guard's decisions: a table of every rule, and properties that hold for any history.

// Clippy takes helpers outside of a #[test] for production code; the table of rules is long by nature.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines)]

use std::num::NonZeroU32;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::json;
use shared::alarm::{self, AlarmEvent, State};
use shared::guard::{
    Action, AlarmState, Engaged, Facts, Heartbeat, History, Lease, LiveAlarm, OpenBreaker,
    Question, Record, Status, Verdict, decide,
};
use shared::outcome::{Outcome, Report, Rule};
use shared::policy::{Breaker, Budget, Flap, Limits};

const ALARM: &str = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:IngestionDlqDepthHigh";

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn event(state: &str, second: i64) -> AlarmEvent {
    let stamp = at(second).format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string();
    alarm::parse(&json!({
        "version": "0",
        "id": "c4c1c1c9-6542-e61b-6ef0-8c4d36933a92",
        "detail-type": "CloudWatch Alarm State Change",
        "source": "aws.cloudwatch",
        "account": "123456789012",
        "time": "2027-01-15T08:00:00Z",
        "region": "eu-west-1",
        "resources": [ALARM],
        "detail": {
            "alarmName": "IngestionDlqDepthHigh",
            "state": {"value": state, "timestamp": stamp},
        },
    }))
    .unwrap()
}

fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).unwrap()
}

fn limits() -> Limits {
    Limits {
        max_event_age_seconds: number(900),
        budget: Budget {
            actions: number(3),
            window_seconds: number(3_600),
        },
        cooldown_seconds: 60,
        flap: Flap {
            transitions: number(4),
            window_seconds: number(1_800),
        },
        breaker: Breaker {
            refires: number(2),
            window_seconds: number(300),
            open_seconds: number(3_600),
        },
    }
}

const LIVE: LiveAlarm = LiveAlarm::Found {
    state: State::Alarm,
    actions_enabled: true,
};

fn ask(
    event: &AlarmEvent,
    live: LiveAlarm,
    facts: &Facts,
    round: Option<u32>,
    now: i64,
) -> Verdict {
    decide(&Question {
        event,
        live,
        facts,
        limits: &limits(),
        request_id: "req-me",
        run_id: "run-me",
        round,
        now: at(now),
    })
}

fn rule(verdict: &Verdict) -> Option<Rule> {
    match verdict {
        Verdict::Refuse(refusal) => match &refusal.outcome {
            Outcome::Skipped { rule, .. } | Outcome::Escalated { rule, .. } => Some(*rule),
            other => panic!("{other:?}"),
        },
        Verdict::Proceed(_) | Verdict::Repeat(_) => None,
    }
}

fn action(run: &str, started: i64, finished: i64, refires: u32) -> Action {
    Action {
        run_id: run.into(),
        alarm_arn: ALARM.into(),
        started_at: at(started),
        finished_at: at(finished),
        refires,
    }
}

fn record(status: Status, request: &str, claimed_until: i64, round: u32) -> Record {
    Record {
        status,
        request_id: request.into(),
        token: 7,
        run_id: "run-me".into(),
        round,
        attempt: 1,
        started_at: at(0),
        claimed_until: at(claimed_until),
        incident_id: "inc-1".into(),
        plan: None,
        progress: Some(json!({"done": 3})),
        report: None,
    }
}

#[test]
fn a_fresh_alarm_with_nothing_against_it_proceeds() {
    let verdict = ask(&event("ALARM", 0), LIVE, &Facts::default(), None, 10);
    let Verdict::Proceed(grounds) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!((grounds.round, grounds.attempt, grounds.refires), (1, 1, 0));
}

#[test]
fn every_rule_refuses_by_its_name() {
    let switch = |rule| Facts {
        switch: Some(Engaged {
            rule,
            reason: Some("maintenance".into()),
        }),
        ..Facts::default()
    };
    let history = |actions: Vec<Action>| Facts {
        history: History {
            version: 1,
            actions,
            ..History::default()
        },
        ..Facts::default()
    };
    let disabled = LiveAlarm::Found {
        state: State::Alarm,
        actions_enabled: false,
    };
    let ok = LiveAlarm::Found {
        state: State::Ok,
        actions_enabled: true,
    };
    let lease = Lease {
        token: 1,
        run_id: "run-other".into(),
        held_until: at(100),
    };
    let flaps = AlarmState {
        transitions: (1..=4).map(|n| at(-n * 60)).collect(),
        ..AlarmState::default()
    };
    let open = OpenBreaker {
        until: at(100),
        reason: "it came back".into(),
    };
    let cases: Vec<(&str, Facts, LiveAlarm, i64, Rule)> = vec![
        (
            "ALARM",
            switch(Rule::KillSwitchGlobal),
            LIVE,
            10,
            Rule::KillSwitchGlobal,
        ),
        (
            "ALARM",
            switch(Rule::KillSwitchTarget),
            LIVE,
            10,
            Rule::KillSwitchTarget,
        ),
        ("ALARM", Facts::default(), LIVE, 901, Rule::StaleEvent),
        ("ALARM", Facts::default(), LIVE, -301, Rule::StaleEvent),
        ("ALARM", Facts::default(), ok, 10, Rule::AlarmRecovered),
        (
            "ALARM",
            Facts::default(),
            LiveAlarm::Gone,
            10,
            Rule::AlarmRecovered,
        ),
        (
            "ALARM",
            Facts::default(),
            disabled,
            10,
            Rule::AlarmActionsDisabled,
        ),
        (
            "INSUFFICIENT_DATA",
            Facts::default(),
            LIVE,
            10,
            Rule::StateWithoutAction,
        ),
        (
            "ALARM",
            Facts {
                lease: Some(lease),
                ..Facts::default()
            },
            LIVE,
            10,
            Rule::LeaseHeld,
        ),
        (
            "ALARM",
            Facts {
                alarm: flaps,
                ..Facts::default()
            },
            LIVE,
            10,
            Rule::Flapping,
        ),
        (
            "ALARM",
            Facts {
                history: History {
                    breaker: Some(open),
                    ..History::default()
                },
                ..Facts::default()
            },
            LIVE,
            10,
            Rule::Breaker,
        ),
        (
            "ALARM",
            history(vec![action("run-a", -30, -20, 0)]),
            LIVE,
            10,
            Rule::Cooldown,
        ),
        (
            "ALARM",
            history(vec![
                action("run-a", -3_000, -2_900, 0),
                action("run-b", -2_000, -1_900, 0),
                action("run-c", -1_000, -900, 0),
            ]),
            LIVE,
            10,
            Rule::Budget,
        ),
        (
            "ALARM",
            history(vec![action("run-a", -200, -100, 1)]),
            LIVE,
            10,
            Rule::Breaker,
        ),
        (
            "ALARM",
            Facts {
                record: Some(record(Status::InProgress, "req-other", 100, 1)),
                ..Facts::default()
            },
            LIVE,
            10,
            Rule::InProgress,
        ),
    ];
    for (state, facts, live, now, expected) in cases {
        let verdict = ask(&event(state, 0), live, &facts, None, now);
        assert_eq!(rule(&verdict), Some(expected), "{verdict:?}");
    }
}

#[test]
fn an_opened_breaker_is_to_be_kept() {
    let facts = Facts {
        history: History {
            version: 1,
            actions: vec![action("run-a", -200, -100, 1)],
            ..History::default()
        },
        ..Facts::default()
    };
    let Verdict::Refuse(refusal) = ask(&event("ALARM", 0), LIVE, &facts, None, 10) else {
        panic!()
    };
    assert_eq!(refusal.breaker.unwrap().until, at(10 + 3_600));
}

#[test]
fn a_return_to_ok_is_no_alarm_and_no_breaker_keeps_it_off() {
    let breaker = OpenBreaker {
        until: at(100),
        reason: "it came back".into(),
    };
    let facts = Facts {
        history: History {
            actions: vec![action("run-a", -200, -100, 1)],
            breaker: Some(breaker),
            ..History::default()
        },
        ..Facts::default()
    };
    let ok = LiveAlarm::Found {
        state: State::Ok,
        actions_enabled: true,
    };
    let Verdict::Proceed(grounds) = ask(&event("OK", 0), ok, &facts, None, 10) else {
        panic!()
    };
    assert_eq!(grounds.refires, 1);
}

#[test]
fn an_alarm_of_another_kind_is_not_put_down_to_us() {
    let mut other = action("run-a", -200, -100, 1);
    other.alarm_arn = format!("{ALARM}2");
    let facts = Facts {
        history: History {
            version: 1,
            actions: vec![other],
            ..History::default()
        },
        ..Facts::default()
    };
    assert!(matches!(
        ask(&event("ALARM", 0), LIVE, &facts, None, 10),
        Verdict::Proceed(_)
    ));
}

#[test]
fn a_dead_attempt_is_taken_over_and_a_live_one_is_left_alone() {
    let cases = [
        // A retry of the same request takes over once nothing was heard for a while, ...
        (
            record(Status::InProgress, "req-me", 100, 1),
            None,
            55,
            Some((1, 2)),
        ),
        // ... and not a second delivery while the first is at work.
        (record(Status::InProgress, "req-me", 100, 1), None, 54, None),
        (
            record(Status::InProgress, "req-me", 100, 3),
            Some(3),
            54,
            None,
        ),
        (
            record(Status::InProgress, "req-other", 100, 1),
            None,
            10,
            None,
        ),
        (
            record(Status::InProgress, "req-other", 100, 1),
            None,
            101,
            Some((1, 2)),
        ),
        (
            record(Status::Failed, "req-other", 5, 1),
            None,
            10,
            Some((1, 2)),
        ),
        (
            record(Status::Continuing, "req-other", 100, 1),
            Some(2),
            10,
            Some((2, 1)),
        ),
        (
            record(Status::Continuing, "req-other", 100, 2),
            Some(2),
            10,
            None,
        ),
        (
            record(Status::Continuing, "req-other", 100, 1),
            None,
            10,
            None,
        ),
        (
            record(Status::Continuing, "req-other", 100, 1),
            None,
            101,
            Some((2, 1)),
        ),
        (
            record(Status::InProgress, "req-me", 100, 3),
            Some(3),
            55,
            Some((3, 2)),
        ),
        (
            record(Status::InProgress, "req-other", 100, 3),
            Some(3),
            10,
            None,
        ),
        (
            record(Status::Failed, "req-other", 5, 3),
            Some(3),
            10,
            Some((3, 2)),
        ),
    ];
    for (record, round, now, expected) in cases {
        let facts = Facts {
            record: Some(record.clone()),
            heartbeat: Some(Heartbeat {
                token: record.token,
                at: at(5),
            }),
            ..Facts::default()
        };
        let verdict = ask(&event("ALARM", 0), LIVE, &facts, round, now);
        let resumed = match &verdict {
            Verdict::Proceed(grounds) => {
                assert_eq!(grounds.progress, record.progress);
                assert_eq!(grounds.started_at, at(0));
                assert_eq!(grounds.follows_a_death, record.status == Status::InProgress);
                Some((grounds.round, grounds.attempt))
            }
            _ => None,
        };
        assert_eq!(resumed, expected, "{record:?} {round:?} {now}");
    }
}

#[test]
fn a_second_delivery_of_one_request_is_told_to_come_again() {
    let facts = Facts {
        record: Some(record(Status::InProgress, "req-me", 100, 1)),
        heartbeat: Some(Heartbeat {
            token: 7,
            at: at(5),
        }),
        ..Facts::default()
    };
    let Verdict::Refuse(refusal) = ask(&event("ALARM", 0), LIVE, &facts, None, 10) else {
        panic!()
    };
    let Outcome::Failed { error, retryable } = refusal.outcome else {
        panic!("{:?}", refusal.outcome)
    };
    assert!(retryable);
    assert!(
        error.contains("req-me, was at work on the transition 5 s ago"),
        "{error}"
    );
}

#[test]
fn a_worker_that_lost_the_lease_is_dead_to_its_retry() {
    let facts = Facts {
        record: Some(record(Status::InProgress, "req-me", 100, 1)),
        heartbeat: Some(Heartbeat {
            token: 8,
            at: at(9),
        }),
        ..Facts::default()
    };
    let verdict = ask(&event("ALARM", 0), LIVE, &facts, None, 10);
    assert!(matches!(verdict, Verdict::Proceed(_)), "{verdict:?}");
}

#[test]
fn a_retry_is_not_charged_to_the_budget_or_held_by_the_cooldown() {
    let facts = Facts {
        record: Some(record(Status::Failed, "req-me", 5, 1)),
        history: History {
            version: 1,
            actions: vec![action("run-me", 0, 5, 0)],
            ..History::default()
        },
        ..Facts::default()
    };
    assert!(matches!(
        ask(&event("ALARM", 0), LIVE, &facts, None, 10),
        Verdict::Proceed(_)
    ));
}

#[test]
fn a_continuation_that_nobody_asked_for_does_nothing() {
    let verdict = ask(&event("ALARM", 0), LIVE, &Facts::default(), Some(2), 10);
    assert_eq!(rule(&verdict), Some(Rule::Duplicate));
}

#[test]
fn a_continuation_goes_on_although_the_alarm_recovered_but_not_against_the_kill_switch() {
    let mut facts = Facts {
        record: Some(record(Status::Continuing, "req-other", 100, 1)),
        ..Facts::default()
    };
    let ok = LiveAlarm::Found {
        state: State::Ok,
        actions_enabled: true,
    };
    assert!(matches!(
        ask(&event("ALARM", 0), ok, &facts, Some(2), 5_000),
        Verdict::Proceed(_)
    ));
    facts.switch = Some(Engaged {
        rule: Rule::KillSwitchGlobal,
        reason: None,
    });
    let verdict = ask(&event("ALARM", 0), ok, &facts, Some(2), 5_000);
    assert_eq!(rule(&verdict), Some(Rule::KillSwitchGlobal));
}

#[test]
fn a_completed_transition_repeats_its_report_even_while_the_kill_switch_is_on() {
    let report = Report {
        remediation: "dlq-replay".into(),
        target: "t".into(),
        resource: "r".into(),
        incident_id: None,
        causation_id: None,
        outcome: Outcome::Applied {
            summary: "done".into(),
        },
        duplicate: false,
        plan: None,
        evidence: None,
        notes: vec![],
        steps: vec![],
    };
    let facts = Facts {
        switch: Some(Engaged {
            rule: Rule::KillSwitchGlobal,
            reason: None,
        }),
        record: Some(Record {
            report: Some(report.clone()),
            ..record(Status::Completed, "req-other", 5, 1)
        }),
        ..Facts::default()
    };
    let verdict = ask(&event("ALARM", 0), LIVE, &facts, None, 10);
    assert_eq!(verdict, Verdict::Repeat(Box::new(report)));
}

fn histories() -> impl Strategy<Value = History> {
    prop::collection::vec((-4_000_i64..0, 0_i64..300, 0_u32..3), 0..8).prop_map(|actions| History {
        version: 1,
        actions: actions
            .into_iter()
            .enumerate()
            .map(|(n, (start, length, refires))| {
                action(&format!("run-{n}"), start, start + length, refires)
            })
            .collect(),
        ..History::default()
    })
}

/// The human's time to decide is no age of the alarm's, which is read again.
#[test]
fn an_approved_plan_outlives_the_age_of_the_event() {
    let mut approved = event("ALARM", 0);
    approved.approved_plan = Some("0123".into());
    let verdict = ask(&approved, LIVE, &Facts::default(), None, 2_000);
    assert!(matches!(verdict, Verdict::Proceed(_)), "{verdict:?}");
    let recovered = LiveAlarm::Found {
        state: State::Ok,
        actions_enabled: true,
    };
    let verdict = ask(&approved, recovered, &Facts::default(), None, 2_000);
    assert_eq!(rule(&verdict), Some(Rule::AlarmRecovered));
}

#[test]
fn what_a_dead_attempt_began_may_be_concluded_after_the_alarm_recovered() {
    let recovered = LiveAlarm::Found {
        state: State::Ok,
        actions_enabled: true,
    };
    let begun = |plan| Facts {
        record: Some(Record {
            plan,
            ..record(Status::InProgress, "req-dead", 60, 1)
        }),
        ..Facts::default()
    };
    let facts = begun(Some(json!({"to": 3})));
    let verdict = ask(&event("ALARM", 0), recovered, &facts, None, 90);
    let Verdict::Proceed(grounds) = verdict else {
        panic!("{verdict:?}")
    };
    let too_late = grounds.too_late.unwrap().outcome;
    assert!(
        matches!(
            too_late,
            Outcome::Skipped {
                rule: Rule::AlarmRecovered,
                ..
            }
        ),
        "{too_late:?}"
    );
    let verdict = ask(&event("ALARM", 0), recovered, &begun(None), None, 90);
    assert_eq!(rule(&verdict), Some(Rule::AlarmRecovered));
}

proptest! {
    /// Whatever happened before: no run proceeds beyond the budget, within the cooldown, or on stale news.
    #[test]
    fn no_history_lets_a_run_exceed_its_bounds(history in histories(), now in 0_i64..2_000) {
        let facts = Facts { history: history.clone(), ..Facts::default() };
        if let Verdict::Proceed(_) = ask(&event("ALARM", 0), LIVE, &facts, None, now) {
            let spent = history.actions.iter().filter(|a| a.started_at > at(now - 3_600)).count();
            prop_assert!(spent < 3);
            if let Some(last) = history.actions.last() {
                prop_assert!(last.finished_at + TimeDelta::seconds(60) <= at(now));
            }
            prop_assert!(now <= 900);
        }
    }

    /// A kill switch stops every run that has not ended yet.
    #[test]
    fn nothing_passes_a_kill_switch(
        history in histories(),
        status in prop::sample::select(vec![Status::InProgress, Status::Continuing, Status::Failed]),
        round in prop::option::of(1_u32..4),
        now in 0_i64..2_000,
    ) {
        let facts = Facts {
            switch: Some(Engaged { rule: Rule::KillSwitchGlobal, reason: None }),
            record: Some(record(status, "req-me", 100, 1)),
            history,
            ..Facts::default()
        };
        let verdict = ask(&event("ALARM", 0), LIVE, &facts, round, now);
        prop_assert_eq!(rule(&verdict), Some(Rule::KillSwitchGlobal));
    }
}
