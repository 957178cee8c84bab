//! Two remediations on one alarm: the one that comes second waits for the other's word, and for what it did to help.

use shared::alarm::{Path, State};
use shared::ledger::items::{Action, Answer, History};
use shared::outcome::{Outcome, Rule};
use shared::policy::Predecessor;

use crate::case::{ALARM, Case, action, at, event, number, revert, rule};

const ALIAS: &str = "arn:aws:lambda:eu-west-1:123456789012:function:api:live";

fn predecessor(seconds: u32) -> Predecessor {
    Predecessor {
        remediation: "alias-rollback".into(),
        resource: ALIAS.into(),
        seconds: number(seconds),
    }
}

fn answered(outcome: &str, second: i64) -> History {
    let answer = Answer {
        changed_at: at(second),
        outcome: outcome.into(),
        rule: None,
        reason: "the alias points to version 4".into(),
    };
    History {
        answers: [(ALARM.to_owned(), answer)].into(),
        ..History::default()
    }
}

fn after(history: History) -> Case {
    Case {
        predecessors: vec![(predecessor(600), history)],
        ..Case::default()
    }
}

#[test]
fn the_other_remediations_word_is_waited_for_and_not_for_ever() {
    let case = after(History::default());
    let refusal = case.refused_at(10);
    assert_eq!(refusal.outcome.rule(), Some(Rule::AfterAnother));
    assert_eq!(
        refusal.outcome.reason(),
        format!(
            "alias-rollback has the first word on IngestionDlqDepthHigh, and has not answered for {ALIAS} yet; it is waited for until 2027-01-15T08:10:00Z at the latest"
        )
    );
    // It is asked for again each minute, and the schedule takes it up.
    assert_eq!(refusal.look_at, Some(at(70)));
    assert_eq!(case.refused_at(590).look_at, Some(at(600)));
    assert_eq!(case.proceeds_at(600).attempt, 1);
    // What it said to an earlier change is no answer to this one.
    let earlier = after(answered("Escalated", -300));
    assert_eq!(rule(&earlier.asked_at(10)), Some(Rule::AfterAnother));
}

#[test]
fn a_word_that_changes_nothing_is_waited_for_no_longer() {
    for outcome in ["Skipped", "Escalated", "AlreadyInPlace", "Failed"] {
        assert_eq!(after(answered(outcome, 0)).proceeds_at(10).attempt, 1);
    }
    // A change that came later was answered as well.
    assert_eq!(after(answered("Skipped", 5)).proceeds_at(10).attempt, 1);
}

#[test]
fn what_the_other_did_has_time_to_help() {
    let mut acted = answered("Applied", 0);
    acted.actions = vec![
        action("run-0", -900, -880, 0),
        action("run-1", 20, 45, 0),
        revert("run-2", 400, 500, 0),
    ];
    let case = after(acted);
    let refusal = case.refused_at(100);
    assert_eq!(
        refusal.outcome.reason(),
        format!(
            "alias-rollback acted on {ALIAS} at 2027-01-15T08:00:45Z: the alias points to version 4; it is waited for until 2027-01-15T08:10:45Z at the latest"
        )
    );
    assert_eq!(rule(&case.asked_at(644)), Some(Rule::AfterAnother));
    assert_eq!(case.proceeds_at(645).attempt, 1);
}

#[test]
fn what_the_other_did_for_another_alarm_has_time_to_help_as_well() {
    let mut acted = answered("Skipped", 0);
    acted.actions = vec![Action {
        alarm_arn: "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:FunctionErrors".into(),
        ..action("run-1", 20, 45, 0)
    }];
    let case = after(acted.clone());
    let refusal = case.refused_at(100);
    let reason = refusal.outcome.reason();
    assert!(reason.contains("for another alarm"), "{reason}");
    assert_eq!(case.refused_at(644).look_at, Some(at(645)));
    assert_eq!(case.proceeds_at(645).attempt, 1);
    // Long before this change it is no reason.
    acted.actions[0].finished_at = at(-600);
    assert_eq!(after(acted).proceeds_at(10).attempt, 1);
}

#[test]
fn the_last_of_several_is_waited_for() {
    let mut case = after(answered("Skipped", 0));
    case.predecessors
        .push((predecessor(300), History::default()));
    assert_eq!(rule(&case.asked_at(299)), Some(Rule::AfterAnother));
    assert_eq!(case.proceeds_at(300).attempt, 1);
}

#[test]
fn neither_a_playbooks_step_nor_a_return_to_ok_waits_for_another() {
    let mut case = after(History::default());
    case.event.path = Path::Playbook {
        execution: "arn:aws:states:eu-west-1:123456789012:execution:api-outage:1".into(),
        name: None,
        step: None,
    };
    assert_eq!(case.proceeds_at(10).attempt, 1);
    let recovered = Case {
        event: event(State::Ok, 0),
        ..after(History::default())
    };
    assert_eq!(rule(&recovered.asked_at(10)), None);
    let Outcome::Skipped { .. } = after(History::default()).refused_at(10).outcome else {
        panic!("it is no failure");
    };
}
