//! A playbook step's input: its execution, its step, what humans have approved, and dry runs.

use serde_json::{Value, json};
use shared::alarm::{self, AlarmError, AlarmEvent, Approval};

use crate::files::{base, json, time};

#[test]
fn a_playbook_step_says_which_execution_it_belongs_to() {
    let step = || json("_shapes/IngestionDlqDepthHigh.alarm.playbook.json");
    let alarm::Path::Playbook {
        execution,
        name,
        step: None,
    } = alarm::parse(&step()).unwrap().path
    else {
        panic!("not a playbook");
    };
    assert!(
        execution.starts_with("arn:aws:states:eu-west-1:123456789012:execution:IngestionFailures:")
    );
    assert_eq!(name.as_deref(), Some("IngestionFailures"));

    let mut broken = step();
    broken["playbook"] = json!({});
    assert_eq!(
        alarm::parse(&broken).unwrap_err().to_string(),
        "$.playbook.execution is missing: it should be \
         arn:<partition>:states:<region>:<account>:execution:<state machine>:<execution>"
    );
    let mut broken = step();
    broken["playbook"]["execution"] = json!("arn:aws:states:eu-west-1:123456789012:execution:");
    let error = alarm::parse(&broken).unwrap_err();
    assert!(
        matches!(&error, AlarmError::MalformedField { path, .. } if path == "$.playbook.execution"),
        "{error}"
    );
    let mut broken = step();
    broken["alarm"]["detail"]["state"]["value"] = json!("FIRING");
    assert_eq!(
        alarm::parse(&broken).unwrap_err().to_string(),
        "$.alarm.detail.state.value is \"FIRING\": it should be \"OK\", \"ALARM\" or \"INSUFFICIENT_DATA\""
    );
    let mut nested = step();
    nested["alarm"] = step();
    let error = alarm::parse(&nested).unwrap_err();
    assert!(
        matches!(&error, AlarmError::NestedPlaybook { path } if path == "$.alarm"),
        "{error}"
    );
    let error = alarm::parse(&json!({"playbook": step()["playbook"]})).unwrap_err();
    assert!(
        matches!(&error, AlarmError::MissingField { path, .. } if path == "$.alarm"),
        "{error}"
    );
}

#[test]
fn a_dry_run_can_be_asked_for_around_or_inside_the_event() {
    for (around, inside, expected) in [
        (json!(true), json!(false), true),
        (json!(false), json!("true"), true),
        (json!("true"), json!(null), true),
        (json!("false"), json!(null), false),
    ] {
        let mut alarm = base();
        alarm["dry_run"] = inside;
        let event = alarm::parse(&json!({"alarm": alarm, "dry_run": around})).unwrap();
        assert_eq!(event.dry_run, expected);
        assert_eq!(event.path, alarm::Path::EventBridge);
    }
}

/// The input of a playbook's step, with this in the place of a member of `playbook`, or at the top.
fn input(pointer: &str, value: Value) -> Value {
    let mut input = json("_shapes/IngestionDlqDepthHigh.alarm.playbook.json");
    match pointer.split_once('/') {
        Some((parent, key)) => input[parent][key] = value,
        None => input[pointer] = value,
    }
    input
}

#[test]
fn two_steps_of_one_playbook_are_told_apart_and_answer_one_transition() {
    let asked = |step: &str| alarm::parse(&input("playbook/step", json!(step))).unwrap();
    let (plan, act) = (asked("plan"), asked("look-again_1.b"));
    assert_eq!(
        (plan.step(), act.step()),
        (Some("plan"), Some("look-again_1.b"))
    );
    assert_eq!(plan.transition_key(), act.transition_key());
    let unnamed = alarm::parse(&input("playbook/step", Value::Null)).unwrap();
    assert_eq!(unnamed.step(), None);
}

#[test]
fn a_step_of_another_form_is_refused() {
    for step in [
        json!(""),
        json!("a b"),
        json!("plan|act"),
        json!("plan\n"),
        json!("prüfen"),
        json!("x".repeat(81)),
        json!(1),
        json!(["plan"]),
    ] {
        let error = alarm::parse(&input("playbook/step", step.clone())).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("$.playbook.step is "), "{step}: {text}");
        let form = ": it should be 1 to 80 letters, digits, '-', '_' or '.'";
        assert!(text.ends_with(form), "{step}: {text}");
    }
}

fn approval() -> Value {
    json!({
        "target": "orders",
        "plan_hash": "0123456789abcdef0123456789abcdef",
        "transition": "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:A|ALARM|1793611692144",
        "by": "mo",
        "at": "2026-11-02T09:30:00Z",
        "expires_at": "2026-11-02T10:30:00.500+0000",
    })
}

fn approved(approvals: Value) -> Result<AlarmEvent, AlarmError> {
    alarm::parse(&input("approvals", approvals))
}

#[test]
fn approvals_are_read_in_full() {
    let mut second = approval();
    second["target"] = json!("returns");
    let read = approved(json!([approval(), second])).unwrap().approvals;
    let first = Approval {
        target: "orders".to_owned(),
        plan_hash: "0123456789abcdef0123456789abcdef".to_owned(),
        transition: "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:A|ALARM|1793611692144"
            .to_owned(),
        by: "mo".to_owned(),
        at: time("2026-11-02T09:30:00Z"),
        expires_at: time("2026-11-02T10:30:00.500Z"),
    };
    let second = Approval {
        target: "returns".to_owned(),
        ..first.clone()
    };
    assert_eq!(read, [first, second]);
    assert_eq!(approved(json!([])).unwrap().approvals, []);
    assert_eq!(approved(Value::Null).unwrap().approvals, []);
}

#[test]
fn an_approval_that_cannot_be_read_refuses_the_whole_input() {
    let list = "$.approvals is \"yes\": it should be a list of approvals, each an object";
    assert_eq!(approved(json!("yes")).unwrap_err().to_string(), list);
    let one = "$.approvals[1] is true: it should be a list of approvals, each an object";
    let error = approved(json!([approval(), true])).unwrap_err();
    assert_eq!(error.to_string(), one);
    for (member, wrong) in [
        ("target", json!("")),
        ("plan_hash", json!("0123")),
        ("plan_hash", json!("x".repeat(32))),
        ("transition", json!(7)),
        ("by", json!("")),
        ("at", json!("yesterday")),
        ("expires_at", json!(1_793_611_613_589_u64)),
    ] {
        let mut broken = approval();
        broken[member] = wrong;
        let error = approved(json!([broken])).unwrap_err().to_string();
        let start = format!("$.approvals[0].{member} is ");
        assert!(error.starts_with(&start), "{error}");
        let mut lacking = approval();
        lacking[member] = Value::Null;
        let error = approved(json!([lacking])).unwrap_err().to_string();
        let start = format!("$.approvals[0].{member} is missing: it should be ");
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn what_an_alarm_says_of_approvals_and_steps_itself_counts_for_nothing() {
    let mut alarm = base();
    alarm["approvals"] = json!([approval()]);
    alarm["step"] = json!("act");
    for event in [alarm.clone(), json!({ "alarm": alarm })] {
        let event = alarm::parse(&event).unwrap();
        assert_eq!((event.approvals.len(), event.step()), (0, None));
    }
}
