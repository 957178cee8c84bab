//! Where a run stands: retries of dead attempts, rounds, duplicates, and what comes too late.

use serde_json::json;
use shared::alarm::State;
use shared::guard::{Occasion, Verdict};
use shared::ledger::items::{Facts, Heartbeat, Record, Status};
use shared::outcome::{Outcome, Rule};

use crate::case::{Case, acted, action, at, heard, live, record, rule};

/// Whether and as what an attempt goes on: the record, the round that is asked for, when, and the round and attempt
/// that it becomes.
type Row = (Record, Option<u32>, i64, Option<(u32, u32)>);

#[test]
fn a_dead_attempt_is_taken_over_and_a_live_one_is_left_alone() {
    let in_progress = |request, round| record(Status::InProgress, request, 100, round);
    let continuing = |request, round| record(Status::Continuing, request, 100, round);
    let failed = |round| record(Status::Failed, "req-other", 5, round);
    let settling = |round| record(Status::Settling, "req-other", 5, round);
    let rows: [Row; 18] = [
        // A retry of the same request takes over once nothing was heard for a while, ...
        (in_progress("req-me", 1), None, 55, Some((1, 2))),
        // ... and not a second delivery while the first is at work.
        (in_progress("req-me", 1), None, 54, None),
        (in_progress("req-me", 3), Some(3), 54, None),
        (in_progress("req-me", 3), Some(3), 55, Some((3, 2))),
        // Another request waits until Lambda has ended the first for certain.
        (in_progress("req-other", 1), None, 99, None),
        (in_progress("req-other", 1), None, 100, Some((1, 2))),
        (in_progress("req-other", 3), Some(3), 99, None),
        (in_progress("req-other", 3), Some(3), 100, Some((3, 2))),
        (failed(1), None, 10, Some((1, 2))),
        (failed(3), Some(3), 10, Some((3, 2))),
        (failed(3), Some(2), 10, None),
        (continuing("req-other", 1), Some(2), 10, Some((2, 1))),
        (continuing("req-other", 2), Some(2), 10, None),
        // The invocation that was to carry on may be on its way, unless this is the retry of the one that asked.
        (continuing("req-other", 1), None, 99, None),
        (continuing("req-other", 1), None, 100, Some((2, 1))),
        (continuing("req-me", 1), None, 10, Some((2, 1))),
        (settling(2), None, 10, Some((2, 1))),
        (settling(2), Some(2), 10, Some((2, 1))),
    ];
    for (record, round, now, expected) in rows {
        let case = Case {
            round,
            ..Case::of(heard(record.clone(), 5))
        };
        let verdict = case.asked_at(now);
        let resumed = match &verdict {
            Verdict::Proceed(grounds) => {
                assert_eq!(grounds.progress, record.progress);
                assert_eq!(grounds.started_at, at(0));
                assert_eq!(grounds.follows_a_death, record.status == Status::InProgress);
                assert_eq!(grounds.settling, record.status == Status::Settling);
                Some((grounds.round, grounds.attempt))
            }
            _ => None,
        };
        assert_eq!(resumed, expected, "{record:?} {round:?} {now}");
    }
}

#[test]
fn a_second_delivery_of_one_request_is_told_to_come_again() {
    let facts = heard(record(Status::InProgress, "req-me", 100, 1), 5);
    let refusal = Case::of(facts).refused_at(10);
    assert_eq!(refusal.look_at, Some(at(105)));
    let Outcome::Failed { error, retryable } = refusal.outcome else {
        panic!("{:?}", refusal.outcome)
    };
    assert!(retryable);
    let words = "req-me, was at work on the transition 5 s ago";
    assert!(error.contains(words), "{error}");
}

#[test]
fn another_delivery_while_a_run_is_at_work_is_neither_a_success_nor_an_end() {
    let facts = heard(record(Status::InProgress, "req-other", 100, 1), 5);
    let refusal = Case::of(facts).refused_at(10);
    // A reader whose clock is ahead must not look before the claim has run out.
    assert_eq!(refusal.look_at, Some(at(105)));
    let Outcome::Pending {
        check_again_at,
        continuation,
        ..
    } = refusal.outcome
    else {
        panic!("{:?}", refusal.outcome)
    };
    assert_eq!((check_again_at, continuation), (at(100), None));
}

#[test]
fn the_schedule_leaves_a_live_run_alone_and_takes_up_a_dead_one() {
    let case = Case {
        occasion: Occasion::Due,
        ..Case::of(heard(record(Status::InProgress, "req-other", 100, 1), 5))
    };
    assert_eq!(case.asked_at(99), Verdict::Leave);
    assert_eq!(case.proceeds_at(100).attempt, 2);
}

#[test]
fn a_worker_that_lost_the_lease_is_dead_to_its_retry() {
    let facts = Facts {
        heartbeat: Some(Heartbeat {
            token: 8,
            at: at(9),
        }),
        ..heard(record(Status::InProgress, "req-me", 100, 1), 9)
    };
    assert_eq!(Case::of(facts).proceeds_at(10).attempt, 2);
}

#[test]
fn a_retry_is_not_charged_to_the_budget_or_held_by_the_cooldown() {
    let mut facts = acted(vec![
        action("run-a", -900, -800, 0),
        action("run-b", -800, -700, 0),
        action("run-me", 0, 5, 0),
    ]);
    facts.record = Some(record(Status::Failed, "req-me", 5, 1));
    assert_eq!(Case::of(facts).proceeds_at(10).attempt, 2);
}

#[test]
fn a_continuation_that_nobody_asked_for_does_nothing() {
    let case = Case {
        round: Some(2),
        ..Case::default()
    };
    assert_eq!(rule(&case.asked_at(10)), Some(Rule::Duplicate));
}

#[test]
fn a_continuation_goes_on_although_the_alarm_recovered_but_not_against_the_kill_switch() {
    let facts = Facts {
        record: Some(record(Status::Continuing, "req-other", 100, 1)),
        ..Facts::default()
    };
    let case = Case {
        round: Some(2),
        live: live(State::Ok),
        ..Case::of(facts)
    };
    assert_eq!(case.proceeds_at(5_000).round, 2);
    let off = case.switched(Rule::KillSwitchGlobal);
    assert_eq!(rule(&off.asked_at(5_000)), Some(Rule::KillSwitchGlobal));
}

#[test]
fn a_target_that_settles_is_looked_at_whatever_the_alarm_does() {
    let facts = Facts {
        record: Some(record(Status::Settling, "req-other", 5, 1)),
        ..Facts::default()
    };
    let case = Case {
        live: live(State::Ok),
        occasion: Occasion::Due,
        ..Case::of(facts)
    };
    assert!(case.proceeds_at(5_000).settling);
}

#[test]
fn what_a_dead_attempt_began_may_be_concluded_after_the_alarm_recovered() {
    let begun = |plan| Case {
        live: live(State::Ok),
        ..Case::of(Facts {
            record: Some(Record {
                plan,
                ..record(Status::InProgress, "req-dead", 60, 1)
            }),
            ..Facts::default()
        })
    };
    let grounds = begun(Some(json!({"to": 3}))).proceeds_at(90);
    assert_eq!(grounds.begun, Some(json!({"to": 3})));
    let too_late = grounds.too_late.unwrap().outcome;
    assert_eq!(too_late.rule(), Some(Rule::AlarmRecovered));
    let unplanned = begun(None).asked_at(90);
    assert_eq!(rule(&unplanned), Some(Rule::AlarmRecovered));
}

#[test]
fn what_was_begun_is_not_too_old_for_its_retry() {
    let facts = Facts {
        record: Some(record(Status::Failed, "req-other", 5, 1)),
        ..Facts::default()
    };
    assert_eq!(Case::of(facts).proceeds_at(5_000).attempt, 2);
}

#[test]
fn a_round_has_so_many_attempts_and_then_a_human_looks() {
    let case = |attempt, occasion| Case {
        occasion,
        ..Case::of(Facts {
            record: Some(Record {
                attempt,
                ..record(Status::Failed, "req-other", 5, 2)
            }),
            ..Facts::default()
        })
    };
    let delivered = Occasion::Delivered;
    assert_eq!(case(5, delivered).proceeds_at(10).attempt, 6);
    // The last of them may have done its work: that is looked for, and nothing else is done.
    let refusal = case(6, delivered).proceeds_at(10).too_late.unwrap();
    assert_eq!(refusal.outcome.rule(), Some(Rule::AttemptsUsedUp));
    assert_eq!(refusal.look_at, None);
    // What is in place is taken back however often that failed.
    assert_eq!(case(6, Occasion::Restoring).proceeds_at(10).attempt, 7);
}
