//! What the schedule owes a target: a table of every duty, and what a target's alarms come to together.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::json;
use shared::alarm::State;
use shared::guard::LiveAlarm;
use shared::guard::duty::{
    Alarms, Duty, Terms, duty, is_asked_whether_it_may_stay, is_to_be_told, may_stay_until,
};
use shared::ledger::items::{Facts, OpenRun, Settling, Snapshot, Standing, Status};
use shared::policy::Temporary;

use crate::case::{ALARM, event, lease, record};

fn at(minute: i64) -> DateTime<Utc> {
    crate::case::at(minute * 60)
}

/// In place since minute 100, to stay an hour without a sign of the alarm and two hours at most.
const TEMPORARY: Temporary = Temporary {
    stabilisation: TimeDelta::minutes(10),
    expires_after: TimeDelta::minutes(60),
    at_most: TimeDelta::minutes(120),
};

const LISTED: Terms = Terms {
    temporary: Some(TEMPORARY),
    listed: true,
};

fn snapshot(expires_at: Option<i64>) -> Snapshot {
    Snapshot {
        run_id: "run-1".into(),
        incident_id: "inc-1".into(),
        event: event(State::Alarm, 0),
        taken_at: at(100),
        expires_at: expires_at.map(at),
        in_place_since: None,
        ends_by_itself_at: None,
        forewarned: None,
        cut_short: None,
        state: json!({"page": false}),
    }
}

fn standing() -> Standing {
    Standing {
        version: 1,
        target: "orders".into(),
        resource: "arn:aws:apigateway:eu-west-1::/domainnames/orders".into(),
        policy: json!({}),
        runs: Vec::new(),
        snapshot: None,
        settling: Vec::new(),
        told_at: None,
    }
}

fn stands(standing: Standing) -> Facts {
    Facts {
        standing: Some(standing),
        ..Facts::default()
    }
}

fn in_place(expires_at: i64) -> Facts {
    stands(Standing {
        snapshot: Some(snapshot(Some(expires_at))),
        ..standing()
    })
}

fn settling() -> Settling {
    Settling {
        run_id: "run-1".into(),
        transition: "A|ALARM|1".into(),
        event: event(State::Alarm, 0),
        since: at(100),
        plan: json!({"to": 3}),
    }
}

fn run(transition: &str) -> OpenRun {
    OpenRun {
        run_id: "run-1".into(),
        transition: transition.into(),
        event: event(State::Alarm, 0),
    }
}

fn alarming() -> Alarms {
    Alarms {
        in_alarm: vec![ALARM.to_owned()],
        ok_since: None,
    }
}

fn ok_since(minute: i64) -> Alarms {
    Alarms {
        in_alarm: Vec::new(),
        ok_since: Some(at(minute)),
    }
}

#[test]
fn the_longest_term_counts_from_when_it_was_in_place() {
    let mut facts = in_place(160);
    if let Some(snapshot) = facts.standing.as_mut().and_then(|it| it.snapshot.as_mut()) {
        snapshot.in_place_since = Some(at(130));
    }
    // Taken at 100, it would end at 220.
    for (minute, due) in [(225, Duty::Renew(at(250))), (250, Duty::Restore(at(160)))] {
        assert_eq!(duty(&facts, &alarming(), LISTED, at(minute)), due);
    }
}

/// What a remediation has a reason to keep.
#[test]
fn what_fell_due_may_stay_within_its_term_while_no_alarm_is_in_alarm() {
    let unlisted = Terms {
        listed: false,
        ..LISTED
    };
    let lasting = Terms {
        temporary: None,
        ..LISTED
    };
    // An alarm that says nothing, or could not be read, is no reason to take it away unasked.
    let unknown = Alarms::default();
    let cases = [
        (ok_since(105), LISTED, true),
        (unknown, LISTED, true),
        (ok_since(105), unlisted, false),
        (ok_since(105), lasting, false),
        (alarming(), LISTED, false),
    ];
    for (alarms, terms, may) in cases {
        let asked = is_asked_whether_it_may_stay(&in_place(160), &alarms, terms);
        assert_eq!(asked, may, "{alarms:?} {terms:?}");
    }
    let nothing = Facts::default();
    assert!(!is_asked_whether_it_may_stay(
        &nothing,
        &ok_since(105),
        LISTED
    ));
    // What was begun is ended.
    let begun = Facts {
        record: Some(record(Status::InProgress, "request-1", 0, 1)),
        ..in_place(160)
    };
    assert!(!is_asked_whether_it_may_stay(
        &begun,
        &ok_since(105),
        LISTED
    ));
    for (minute, until) in [(115, Some(at(220))), (219, Some(at(220))), (220, None)] {
        assert_eq!(may_stay_until(&in_place(160), LISTED, at(minute)), until);
    }
}

#[test]
fn each_duty_falls_due_in_its_time() {
    let unknown = Alarms::default;
    let restore = |minute| Duty::Restore(at(minute));
    let renew = |minute| Duty::Renew(at(minute));
    let forewarn = |minute| Duty::Forewarn(at(minute));
    let cases = [
        // While the alarm stays, what is in place is renewed from its half-life on, up to the most.
        (alarming(), 160, 130, Duty::Wait),
        (alarming(), 160, 131, renew(191)),
        (alarming(), 200, 190, renew(220)),
        // Before it ends all the same, humans are told.
        (alarming(), 220, 189, Duty::Wait),
        (alarming(), 220, 190, forewarn(220)),
        (alarming(), 220, 219, forewarn(220)),
        (alarming(), 220, 220, restore(220)),
        // A look that came late does not end it while the alarm stays, ...
        (alarming(), 160, 170, renew(220)),
        (alarming(), 160, 219, renew(220)),
        // ... unless it has stayed for as long as it may; it fell due when it expired.
        (alarming(), 160, 220, restore(160)),
        (alarming(), 220, 300, restore(220)),
        // Back at OK: once that has held, and not before.
        (ok_since(105), 160, 114, Duty::Wait),
        (ok_since(105), 160, 115, restore(115)),
        (ok_since(105), 160, 130, restore(115)),
        (ok_since(105), 160, 170, restore(115)),
        // It expires although the return to OK has not held yet.
        (ok_since(155), 160, 159, Duty::Wait),
        (ok_since(155), 160, 160, restore(160)),
        (ok_since(155), 160, 165, restore(165)),
        // An alarm that was at OK before anything was put in place.
        (ok_since(50), 160, 100, restore(60)),
        // Nothing is known of the alarm: it stays until it expires.
        (unknown(), 160, 159, Duty::Wait),
        (unknown(), 160, 160, restore(160)),
        (unknown(), 160, 300, restore(160)),
    ];
    for (alarms, expires_at, now, expected) in cases {
        let found = duty(&in_place(expires_at), &alarms, LISTED, at(now));
        assert_eq!(found, expected, "{alarms:?} expires {expires_at} now {now}");
    }
}

#[test]
fn what_ends_by_itself_is_not_kept_longer_by_a_policy_that_says_so_later() {
    let ending = stands(Standing {
        snapshot: Some(Snapshot {
            ends_by_itself_at: Some(at(150)),
            ..snapshot(Some(160))
        }),
        ..standing()
    });
    let found = |minute| duty(&ending, &alarming(), LISTED, at(minute));
    assert_eq!(found(149), Duty::Forewarn(at(150)));
    assert_eq!(found(150), Duty::Restore(at(150)));
    assert_eq!(may_stay_until(&ending, LISTED, at(149)), Some(at(150)));
    assert_eq!(may_stay_until(&ending, LISTED, at(150)), None);
}

#[test]
fn of_each_end_humans_are_told_once_and_of_a_later_one_anew() {
    let told_of = |end: i64| {
        stands(Standing {
            snapshot: Some(Snapshot {
                forewarned: Some(at(end)),
                ..snapshot(Some(220))
            }),
            ..standing()
        })
    };
    let found = |facts: &Facts| duty(facts, &alarming(), LISTED, at(200));
    assert_eq!(found(&told_of(220)), Duty::Wait);
    // The policy let it stay less long then.
    assert_eq!(found(&told_of(210)), Duty::Forewarn(at(220)));
    // Where the alarm is not in ALARM, its end needs no word.
    let unknown = Alarms::default();
    assert_eq!(duty(&in_place(220), &unknown, LISTED, at(200)), Duty::Wait);
}

#[test]
fn a_target_that_the_policy_names_no_more_is_never_renewed_and_ends_when_it_expires() {
    let unlisted = Terms {
        listed: false,
        ..LISTED
    };
    let forewarn = |minute| Duty::Forewarn(at(minute));
    let restore = |minute| Duty::Restore(at(minute));
    for (alarms, expires_at, now, expected) in [
        (alarming(), 160, 129, Duty::Wait),
        (alarming(), 160, 131, forewarn(160)),
        (alarming(), 160, 159, forewarn(160)),
        (alarming(), 160, 160, restore(160)),
        (alarming(), 160, 230, restore(160)),
        (ok_since(105), 160, 114, Duty::Wait),
        (ok_since(105), 160, 115, restore(115)),
        (Alarms::default(), 160, 159, Duty::Wait),
        (Alarms::default(), 160, 160, restore(160)),
    ] {
        let found = duty(&in_place(expires_at), &alarms, unlisted, at(now));
        assert_eq!(found, expected, "{alarms:?} now {now}");
    }
}

#[test]
fn what_has_no_term_stays_until_the_alarm_is_back_at_ok() {
    let facts = stands(Standing {
        snapshot: Some(snapshot(None)),
        ..standing()
    });
    for listed in [true, false] {
        let terms = Terms {
            temporary: None,
            listed,
        };
        let found = |alarms: &Alarms| duty(&facts, alarms, terms, at(100_000));
        assert_eq!(found(&alarming()), Duty::Wait);
        assert_eq!(found(&Alarms::default()), Duty::Wait);
        assert_eq!(found(&ok_since(99_999)), Duty::Restore(at(99_999)));
    }
}

#[test]
fn what_lost_its_term_by_a_new_policy_still_ends_when_it_expires() {
    let terms = Terms {
        temporary: None,
        listed: true,
    };
    let found = |now| duty(&in_place(160), &alarming(), terms, at(now));
    assert_eq!(found(159), Duty::Wait);
    assert_eq!(found(160), Duty::Restore(at(160)));
}

#[test]
fn whoever_holds_the_target_looks_after_it() {
    let all = Standing {
        runs: vec![run("A|ALARM|1")],
        snapshot: Some(snapshot(Some(160))),
        settling: vec![settling()],
        ..standing()
    };
    for one in [
        all.clone(),
        Standing {
            snapshot: None,
            ..all.clone()
        },
        Standing {
            snapshot: None,
            settling: Vec::new(),
            ..all
        },
    ] {
        let held = Facts {
            lease: Some(lease("run-1", 300 * 60)),
            ..stands(one)
        };
        let found = |now| duty(&held, &ok_since(105), LISTED, at(now));
        assert_eq!(found(299), Duty::Wait);
        assert_ne!(found(300), Duty::Wait);
    }
}

#[test]
fn what_falls_due_comes_before_what_settles_and_what_settles_before_a_run_that_did_not_end() {
    let all = Standing {
        runs: vec![run("A|ALARM|1")],
        snapshot: Some(snapshot(Some(160))),
        settling: vec![settling()],
        ..standing()
    };
    let found =
        |standing: &Standing, now| duty(&stands(standing.clone()), &ok_since(105), LISTED, at(now));
    assert_eq!(found(&all, 115), Duty::Restore(at(115)));
    let settles = Duty::Settle(Box::new(settling()));
    assert_eq!(found(&all, 114), settles);
    let settled = Standing {
        settling: Vec::new(),
        ..all
    };
    let resumes = Duty::Resume(Box::new(run("A|ALARM|1")));
    assert_eq!(found(&settled, 114), resumes);
    let alone = Standing {
        snapshot: None,
        ..settled
    };
    assert_eq!(found(&alone, 115), resumes);
    // A restoration is taken up as long as its snapshot is there, and not for its own sake.
    let restoration = Standing {
        runs: vec![run("restore|run-1|1")],
        ..standing()
    };
    assert_eq!(found(&restoration, 115), Duty::Wait);
    assert_eq!(found(&standing(), 115), Duty::Wait);
    assert_eq!(
        duty(&Facts::default(), &ok_since(105), LISTED, at(115)),
        Duty::Wait
    );
}

const FALLBACK: i64 = 90;

fn found(state: State, since: Option<i64>) -> LiveAlarm {
    LiveAlarm::Found {
        state,
        actions_enabled: true,
        since: since.map(at),
    }
}

fn together(alarms: &[Option<LiveAlarm>]) -> Alarms {
    let arns = ["a", "b", "c", "d"];
    Alarms::of(arns.into_iter().zip(alarms.iter().copied()), at(FALLBACK))
}

#[test]
fn alarms_are_at_ok_together_since_the_last_of_them_is() {
    let ok = |since| Some(found(State::Ok, Some(since)));
    let gone = Some(LiveAlarm::Gone);
    let foreign = Some(LiveAlarm::Foreign);
    let unknown = Some(found(State::InsufficientData, Some(80)));
    let cases: [(&[Option<LiveAlarm>], Option<i64>); 12] = [
        (&[ok(100)], Some(100)),
        (&[ok(100), ok(140), ok(120)], Some(140)),
        // What was deleted says nothing, ...
        (&[ok(100), gone], Some(100)),
        (&[gone, ok(100), gone], Some(100)),
        // ... and where nothing else is, nothing is known.
        (&[gone], None),
        (&[gone, gone], None),
        (&[], None),
        // What cannot be read, or is not known, is not at OK.
        (&[ok(100), foreign], None),
        (&[ok(100), unknown], None),
        (&[ok(100), None], None),
        // An alarm that does not say since when was at OK since what is in place was put there.
        (&[Some(found(State::Ok, None))], Some(FALLBACK)),
        (&[Some(found(State::Ok, None)), ok(100)], Some(100)),
    ];
    for (alarms, since) in cases {
        let all = together(alarms);
        assert_eq!(all.ok_since, since.map(at), "{alarms:?}");
        assert!(all.in_alarm.is_empty(), "{alarms:?}");
    }
}

#[test]
fn one_alarm_of_several_keeps_what_is_in_place() {
    let ok = Some(found(State::Ok, Some(100)));
    let alarm = Some(found(State::Alarm, Some(100)));
    for (others, in_alarm) in [
        (vec![ok, alarm], vec!["b"]),
        (
            vec![alarm, Some(LiveAlarm::Gone), None, alarm],
            vec!["a", "d"],
        ),
        (
            vec![alarm, Some(found(State::InsufficientData, None))],
            vec!["a"],
        ),
    ] {
        let all = together(&others);
        assert_eq!(all.in_alarm, in_alarm);
        assert_eq!(all.ok_since, None);
        assert_eq!(
            duty(&in_place(160), &all, LISTED, at(159)),
            Duty::Renew(at(219))
        );
    }
}

#[test]
fn another_alarms_return_to_ok_has_to_hold_as_well() {
    let both = together(&[
        Some(found(State::Ok, Some(100))),
        Some(found(State::Ok, Some(140))),
    ]);
    let due = |now| duty(&in_place(200), &both, LISTED, at(now));
    assert_eq!(due(149), Duty::Wait);
    assert_eq!(due(150), Duty::Restore(at(150)));
}

#[test]
fn an_alarm_that_is_not_known_leaves_what_is_in_place_to_its_term() {
    for other in [
        Some(LiveAlarm::Foreign),
        Some(found(State::InsufficientData, Some(100))),
        None,
    ] {
        let all = together(&[Some(found(State::Ok, Some(100))), other]);
        let due = |now| duty(&in_place(160), &all, LISTED, at(now));
        assert_eq!(due(159), Duty::Wait, "{other:?}");
        assert_eq!(due(160), Duty::Restore(at(160)), "{other:?}");
    }
    let gone = together(&[Some(LiveAlarm::Gone)]);
    assert_eq!(duty(&in_place(160), &gone, LISTED, at(159)), Duty::Wait);
    assert_eq!(
        duty(&in_place(160), &gone, LISTED, at(160)),
        Duty::Restore(at(160))
    );
}

#[test]
fn a_human_is_told_once_an_hour() {
    let told = |told_at: Option<i64>| {
        stands(Standing {
            told_at: told_at.map(at),
            ..standing()
        })
    };
    assert!(is_to_be_told(&told(None), at(100)));
    assert!(!is_to_be_told(&told(Some(100)), at(159)));
    assert!(is_to_be_told(&told(Some(100)), at(160)));
    assert!(is_to_be_told(&Facts::default(), at(100)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_024) })]

    /// Whatever the alarms say and however late a look comes: nothing outlasts the most, or is renewed beyond it.
    #[test]
    fn nothing_stays_for_longer_than_it_may(
        expires_at in 100_i64..220,
        now in 100_i64..400,
        states in prop::collection::vec(
            (prop::sample::select(vec![State::Ok, State::Alarm, State::InsufficientData]), 0_i64..400),
            0..4,
        ),
        listed in any::<bool>(),
    ) {
        let alarms: Vec<_> = states.iter().map(|(state, since)| Some(found(*state, Some(*since)))).collect();
        let terms = Terms { listed, ..LISTED };
        let due = duty(&in_place(expires_at), &together(&alarms), terms, at(now));
        if now >= 220 {
            prop_assert!(matches!(due, Duty::Restore(_)), "{:?}", due);
        }
        match due {
            Duty::Renew(until) => {
                prop_assert!(listed);
                prop_assert!(until > at(expires_at) && until > at(now) && until <= at(220));
            }
            Duty::Restore(due_at) => prop_assert!(due_at <= at(now)),
            Duty::Wait => prop_assert!(now < 220),
            Duty::Forewarn(end) => prop_assert!(end > at(now) && end - at(now) <= TimeDelta::minutes(30)),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
