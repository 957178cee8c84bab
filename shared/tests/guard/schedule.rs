//! What the schedule leaves alone, and what it takes up.

use shared::alarm::State;
use shared::guard::{Occasion, Verdict};
use shared::ledger::items::{Facts, Status};
use shared::outcome::Rule;

use crate::case::{Case, answered_beside, live, record, rule, waiting};

fn due(facts: Facts) -> Case {
    Case {
        occasion: Occasion::Due,
        ..Case::of(facts)
    }
}

#[test]
fn an_event_that_may_be_on_its_way_is_left_to_come() {
    let case = due(Facts::default());
    assert_eq!(case.asked_at(299), Verdict::Leave);
    assert_eq!(case.proceeds_at(300).attempt, 1);
}

#[test]
fn what_was_answered_is_left_alone_under_either_of_its_times() {
    for millis in [-50, 0, 50] {
        let case = due(answered_beside(millis));
        assert_eq!(case.asked_at(600), Verdict::Leave, "{millis}");
    }
    assert_eq!(due(answered_beside(-51)).proceeds_at(600).attempt, 1);
}

#[test]
fn what_waits_is_taken_up_when_its_time_has_come_however_old_it_is() {
    let case = due(waiting(0, 5_000));
    assert_eq!(case.asked_at(4_999), Verdict::Leave);
    assert_eq!(case.proceeds_at(5_000).attempt, 1);
    let early = due(waiting(0, 20));
    assert_eq!(early.asked_at(19), Verdict::Leave);
    assert_eq!(early.proceeds_at(20).attempt, 1);
}

#[test]
fn what_waits_for_another_change_of_the_alarm_says_nothing_of_this_one() {
    let case = due(waiting(-600, 0));
    assert_eq!(case.asked_at(299), Verdict::Leave);
    assert_eq!(case.proceeds_at(300).attempt, 1);
    assert_eq!(rule(&case.asked_at(901)), Some(Rule::StaleEvent));
}

#[test]
fn an_alarm_that_is_not_in_alarm_any_more_ends_what_waits() {
    let case = Case {
        live: live(State::Ok),
        ..due(waiting(0, 20))
    };
    let refusal = case.refused_at(30);
    assert_eq!(refusal.outcome.rule(), Some(Rule::AlarmRecovered));
    assert_eq!(refusal.look_at, None);
}

#[test]
fn a_run_that_did_not_end_is_taken_up_without_waiting_for_events() {
    for status in [Status::Failed, Status::InProgress, Status::Settling] {
        let facts = Facts {
            record: Some(record(status, "req-other", 5, 1)),
            ..Facts::default()
        };
        assert_eq!(due(facts).proceeds_at(10).round, 1, "{status:?}");
    }
}
