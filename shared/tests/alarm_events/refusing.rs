//! What is wrong with a wrong event is said in one line, with the place, the value and the form.

use serde_json::{Value, json};
use shared::alarm::{self, AlarmError};

use crate::files::{json, with};

const ARN: &str = "arn:<partition>:cloudwatch:<region>:<12-digit account>:alarm:<name>";
const NAME: &str = "a string of 1 to 255 characters without control characters";
const BODY: &str = "an object with \"alarmName\" and \"state\"";
const STATE: &str = "\"OK\", \"ALARM\" or \"INSUFFICIENT_DATA\"";
const TIME: &str = "a time of the years 2009 to 2199 such as 2026-03-02T09:26:53.589+0000";

/// Checks that the base event, with one value changed, is refused for the reason given, and that
/// the form given is what it should have.
fn refused(table: &[(&str, Option<Value>, &str, &str)]) {
    for (pointer, value, reason, form) in table {
        let error = alarm::parse(&with(pointer, value.clone())).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{reason}: it should be {form}"),
            "{pointer} = {value:?}"
        );
    }
}

#[test]
fn an_alarm_that_cannot_be_known_is_refused_with_the_place_the_value_and_the_form() {
    let long = "x".repeat(1_000_000);
    let long_shown = format!("$.detail.alarmName is \"{}…\"", "x".repeat(60));
    let mute_rule = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm-mute-rule:x";
    let mute_rule_shown = format!("$.resources[0] is \"{mute_rule}\"");
    refused(&[
        ("/source", None, "$.source is missing", "\"aws.cloudwatch\""),
        (
            "/source",
            Some(json!(7)),
            "$.source is 7",
            "\"aws.cloudwatch\"",
        ),
        (
            "/detail-type",
            None,
            "$.detail-type is missing",
            "\"CloudWatch Alarm State Change\"",
        ),
        ("/detail", None, "$.detail is missing", BODY),
        (
            "/detail",
            Some(json!([1, 2])),
            "$.detail is a list of 2",
            BODY,
        ),
        (
            "/resources",
            Some(json!("x")),
            "$.resources is \"x\"",
            "a list whose first element is the alarm's ARN",
        ),
        ("/resources/0", None, "$.resources[0] is null", ARN),
        (
            "/resources/0",
            Some(json!("arn:aws:sqs:eu-west-1:123456789012:orders")),
            "$.resources[0] is \"arn:aws:sqs:eu-west-1:123456789012:orders\"",
            ARN,
        ),
        (
            "/resources/0",
            Some(json!(mute_rule)),
            &mute_rule_shown,
            ARN,
        ),
        (
            "/resources/0",
            Some(json!("arn:aws:cloudwatch:eu-west-1:12345:alarm:x")),
            "$.resources[0] is \"arn:aws:cloudwatch:eu-west-1:12345:alarm:x\"",
            ARN,
        ),
        (
            "/detail/alarmName",
            Some(json!(5)),
            "$.detail.alarmName is 5",
            NAME,
        ),
        (
            "/detail/alarmName",
            Some(json!("")),
            "$.detail.alarmName is \"\"",
            NAME,
        ),
        (
            "/resources/0",
            Some(json!("arn:aws:budgets:eu-west-1:123456789012:alarm:x")),
            "$.resources[0] is \"arn:aws:budgets:eu-west-1:123456789012:alarm:x\"",
            ARN,
        ),
        (
            "/detail/alarmName",
            Some(json!("x".repeat(256))),
            &long_shown,
            NAME,
        ),
        (
            "/detail/alarmName",
            Some(json!("a\u{7}\u{202e}\nb")),
            "$.detail.alarmName is \"a\\u{7}\\u{202e}\\nb\"",
            NAME,
        ),
        ("/detail/alarmName", Some(json!(long)), &long_shown, NAME),
    ]);
}

#[test]
fn a_change_that_cannot_be_known_is_refused_with_the_place_the_value_and_the_form() {
    refused(&[
        (
            "/detail/state",
            None,
            "$.detail.state is missing",
            "an object with \"value\" and \"timestamp\"",
        ),
        (
            "/detail/state/value",
            None,
            "$.detail.state.value is missing",
            STATE,
        ),
        (
            "/detail/state/value",
            Some(json!("alarm")),
            "$.detail.state.value is \"alarm\"",
            STATE,
        ),
        (
            "/detail/state/timestamp",
            None,
            "$.detail.state.timestamp is missing",
            TIME,
        ),
        (
            "/detail/state/timestamp",
            Some(json!("yesterday")),
            "$.detail.state.timestamp is \"yesterday\"",
            TIME,
        ),
        (
            "/detail/state/timestamp",
            Some(json!("2026-11-02 09:26")),
            "$.detail.state.timestamp is \"2026-11-02 09:26\"",
            TIME,
        ),
        (
            "/detail/state/timestamp",
            Some(json!(1_793_611_613_589_u64)),
            "$.detail.state.timestamp is 1793611613589",
            TIME,
        ),
        (
            "/detail/state/timestamp",
            Some(json!("9999-12-31T23:59:59.999+0000")),
            "$.detail.state.timestamp is \"9999-12-31T23:59:59.999+0000\"",
            TIME,
        ),
        (
            "/detail/state/timestamp",
            Some(json!("1970-01-01T00:00:00Z")),
            "$.detail.state.timestamp is \"1970-01-01T00:00:00Z\"",
            TIME,
        ),
        (
            "/dry_run",
            Some(json!("yes")),
            "$.dry_run is \"yes\"",
            "true or false",
        ),
    ]);
}

#[test]
fn an_event_that_contradicts_itself_about_its_alarm_is_refused() {
    let another = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:Another";
    let error = alarm::parse(&with("/resources/0", Some(json!(another)))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "$.detail.alarmName is \"IngestionErrorRateHigh\" but $.resources[0] names the alarm \
         \"Another\": both should name one alarm; \
         send the event as EventBridge or CloudWatch wrote it"
    );
}

#[test]
fn another_detail_type_is_refused_with_the_pattern_that_the_rule_should_have() {
    let error = alarm::parse(&with("/detail-type", Some(json!("A\nB")))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "$.detail-type is \"A\\nB\": \
         narrow the rule's \"detail-type\" to [\"CloudWatch Alarm State Change\"]"
    );
}

#[test]
fn an_alarm_that_cannot_be_named_at_all_is_refused() {
    let mut event = with("/resources", None);
    event["account"] = Value::Null;
    let error = alarm::parse(&event).unwrap_err();
    assert!(
        matches!(&error, AlarmError::MissingField { path, .. } if path == "$.resources[0]"),
        "{error}"
    );
    event["account"] = json!(123_456_789_012_u64);
    assert_eq!(
        alarm::parse(&event).unwrap_err().to_string(),
        "$.account is 123456789012: it should be a string of 12 digits"
    );

    let mut action = json("_shapes/IngestionDlqDepthHigh.alarm.alarm-action.json");
    action["alarmArn"] = Value::Null;
    assert!(alarm::parse(&action).is_ok());
    action["region"] = Value::Null;
    let error = alarm::parse(&action).unwrap_err();
    assert!(
        matches!(&error, AlarmError::MissingField { path, .. } if path == "$.alarmArn"),
        "{error}"
    );
}

#[test]
fn what_is_no_event_at_all_is_told_what_would_be_one() {
    for (text, start) in [
        ("", "the event is not JSON (line 1, column 0): "),
        ("{\"a\":", "the event is not JSON (line 1, column 5): "),
        ("[]", "the event is a list of 0: send an EventBridge event"),
        ("\"OK\"", "the event is \"OK\": send an EventBridge event"),
        (
            "{}",
            "the event, with the keys (none), has no shape that is known: send an EventBridge event",
        ),
        (
            "{\"Records\":[]}",
            "the event, with the keys Records, has no shape that is known: send ",
        ),
    ] {
        let error = alarm::parse_slice(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(start), "{text}: {error}");
    }
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(matches!(
        alarm::parse_slice(deep.as_bytes()),
        Err(AlarmError::NotJson { .. })
    ));
    assert!(matches!(
        alarm::parse_slice(b"{\"a\":\"\xff\"}"),
        Err(AlarmError::NotJson { .. })
    ));
}
