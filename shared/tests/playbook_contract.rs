//! The examples of the contract with playbooks are what the code reads and writes.

use serde_json::Value;
use shared::alarm::{self, Path};
use shared::ledger::items::transition;
use shared::outcome::{Outcome, Response};

const CONTRACT: &str = include_str!("../../docs/playbook-contract.md");

/// The examples of a kind.
#[allow(clippy::unwrap_used)] // A page that cannot be read fails the test.
fn examples(kind: &str) -> Vec<Value> {
    let fence = format!("```json {kind}\n");
    let examples = CONTRACT.split(&fence).skip(1);
    examples
        .map(|rest| {
            let text = rest.split("```").next().unwrap();
            serde_json::from_str(text).unwrap()
        })
        .collect()
}

#[test]
fn a_steps_input_is_read_with_its_step_and_its_approvals() {
    let [example] = &examples("step")[..] else {
        panic!("one example of a step");
    };
    let event = alarm::parse(example).unwrap();
    assert_eq!(event.step(), Some("page-act"));
    assert!(matches!(event.path, Path::Playbook { .. }));
    let [approval] = &event.approvals[..] else {
        panic!("one approval");
    };
    assert_eq!(approval.target, "dashboard");
    // What is approved is the transition, whichever step carries it out.
    assert_eq!(approval.transition, event.transition_key());
    assert_eq!(
        transition(&event),
        format!("{}|step=page-act", approval.transition)
    );
}

#[test]
fn answers_are_what_the_code_writes() {
    let answers = examples("answer");
    assert_eq!(answers.len(), 2);
    for example in answers {
        let response: Response = serde_json::from_value(example.clone()).unwrap();
        assert_eq!(serde_json::to_value(&response).unwrap(), example);
        let kinds = response.reports.iter().map(|report| report.outcome.kind());
        assert_eq!(kinds.min(), Some(response.overall));
    }
}

#[test]
fn a_continuation_holds_a_trigger_that_can_be_read() {
    let answers = examples("answer");
    let pending: Response = serde_json::from_value(answers[1].clone()).unwrap();
    let Outcome::Pending { continuation, .. } = &pending.reports[0].outcome else {
        panic!("{:?}", pending.reports[0].outcome);
    };
    let trigger = &continuation.as_ref().unwrap()["continuation"]["trigger"];
    assert_eq!(alarm::parse(trigger).unwrap().step(), Some("replay"));
}

#[test]
fn an_approval_that_is_malformed_fails_the_call() {
    let example = &examples("step")[0];
    for (field, value) in [
        ("plan_hash", Value::from("yes")),
        ("expires_at", Value::from("tomorrow")),
        ("by", Value::from("")),
        ("transition", Value::Null),
    ] {
        let mut broken = example.clone();
        broken["approvals"][0][field] = value;
        let error = alarm::parse(&broken).unwrap_err().to_string();
        assert!(error.contains(&format!("approvals[0].{field}")), "{error}");
    }
}
