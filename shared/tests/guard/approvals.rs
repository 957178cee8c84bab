//! A human's approval: of this plan, on this target, in answer to this change, in time.

use chrono::TimeDelta;
use shared::alarm::{Approval, State};
use shared::guard::approval::approved;
use shared::outcome::Rule;

use crate::case::{Case, at, event, live, rule};

const HOUR: TimeDelta = TimeDelta::hours(1);

fn approval(approved_at: i64, expires_at: i64) -> Approval {
    Approval {
        target: "orders".into(),
        plan_hash: "0123".into(),
        transition: "A|ALARM|1".into(),
        by: "mo".into(),
        at: at(approved_at),
        expires_at: at(expires_at),
    }
}

#[test]
fn an_approval_holds_for_this_plan_on_this_target_in_answer_to_this_change() {
    let good = approval(0, 100);
    let other = |change: fn(&mut Approval)| {
        let mut other = good.clone();
        change(&mut other);
        other
    };
    let cases = [
        (vec![], "the policy wants a human to approve the plan first"),
        (
            vec![other(|it| it.target = "returns".into())],
            "the policy wants a human to approve the plan first",
        ),
        (
            vec![other(|it| it.transition = "A|ALARM|2".into())],
            "mo approved a plan for another change of the alarm",
        ),
        (
            vec![other(|it| it.plan_hash = "4567".into())],
            "mo approved plan 4567, and by now the plan is another",
        ),
        (
            vec![approval(0, 10)],
            "mo's approval expired at 2027-01-15T08:00:10Z",
        ),
        (
            vec![approval(311, 900)],
            "mo's approval is dated 2027-01-15T08:05:11Z, ahead of now",
        ),
    ];
    for (approvals, words) in cases {
        let why = approved(&approvals, ("orders", "A|ALARM|1", "0123"), HOUR, at(10)).unwrap_err();
        assert_eq!(why, format!("{words}: approve plan 0123"));
    }
    let wrong = other(|it| it.plan_hash = "4567".into());
    let all = [wrong, good.clone()];
    let found = approved(&all, ("orders", "A|ALARM|1", "0123"), HOUR, at(10));
    assert_eq!(found, Ok(&good));
}

#[test]
fn an_approval_ends_with_the_policys_time_however_long_its_giver_let_it_last() {
    let forever = [approval(0, i64::from(u32::MAX))];
    let ask = |now| approved(&forever, ("orders", "A|ALARM|1", "0123"), HOUR, at(now));
    assert_eq!(ask(3_599), Ok(&forever[0]));
    let why = "mo's approval expired at 2027-01-15T09:00:00Z: approve plan 0123";
    assert_eq!(ask(3_600), Err(why.to_owned()));
    // Nor does it keep an old event alive.
    let mut event = event(State::Alarm, 0);
    event.approvals = vec![approval(1_000, i64::from(u32::MAX))];
    let case = Case {
        event,
        ..Case::default()
    };
    assert_eq!(case.proceeds_at(4_599).attempt, 1);
    assert_eq!(rule(&case.asked_at(4_600)), Some(Rule::StaleEvent));
}

/// The human's time to decide is no age of the alarm's, which is read again.
#[test]
fn an_approval_outlives_the_age_of_the_event() {
    let mut event = event(State::Alarm, 0);
    event.approvals = vec![approval(1_000, 3_000)];
    let case = Case {
        event,
        ..Case::default()
    };
    assert_eq!(case.proceeds_at(2_000).attempt, 1);
    // It has expired.
    assert_eq!(rule(&case.asked_at(3_000)), Some(Rule::StaleEvent));
    let recovered = Case {
        live: live(State::Ok),
        ..case.clone()
    };
    assert_eq!(rule(&recovered.asked_at(2_000)), Some(Rule::AlarmRecovered));
    let mut elsewhere = case;
    elsewhere.event.approvals[0].target = "returns".into();
    assert_eq!(rule(&elsewhere.asked_at(2_000)), Some(Rule::StaleEvent));
}
