//! What is read from a good event.

use serde_json::{Value, json};
use shared::alarm::{self, AlarmKind, Metric, PreviousState, State};

use crate::files::{event, time, with};

#[test]
fn a_metric_alarm_is_read_in_full() {
    let event = event("dlq-replay/IngestionDlqDepthHigh.alarm.json");
    assert_eq!(event.alarm_name, "IngestionDlqDepthHigh");
    assert_eq!(
        event.alarm_arn,
        "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:IngestionDlqDepthHigh"
    );
    assert_eq!(
        (event.account.as_str(), event.region.as_str()),
        ("123456789012", "eu-west-1")
    );
    assert_eq!(event.state, State::Alarm);
    assert_eq!(event.changed_at, time("2026-11-02T09:28:12.144Z"));
    assert!(
        event
            .reason
            .as_ref()
            .unwrap()
            .starts_with("Threshold Crossed: 1 out of the last 1")
    );
    assert_eq!(
        event.reason_data.as_ref().unwrap()["recentDatapoints"],
        json!([412.0])
    );
    let PreviousState {
        state,
        reason,
        changed_at,
        suppressed_by,
    } = event.previous_state.unwrap();
    assert_eq!((state, suppressed_by), (Some(State::Ok), None));
    assert_eq!(changed_at, Some(time("2026-11-02T08:30:12.140Z")));
    assert!(reason.unwrap().contains("was not greater"));
    assert_eq!(event.suppressed_by, None);
    assert_eq!(event.path, alarm::Path::EventBridge);
    assert_eq!(
        event.event_id.as_deref(),
        Some("f2f1b7c8-0a44-4b0e-8b74-3d1a9c2f6e55")
    );
    assert!(event.description.unwrap().contains("dead-letter queue"));
    let metric = Metric {
        id: Some("9d0c1f6b-3a86-4f0e-8d1c-61c5b0b6f2a7".to_owned()),
        namespace: Some("AWS/SQS".to_owned()),
        name: Some("ApproximateNumberOfMessagesVisible".to_owned()),
        dimensions: [(
            "QueueName".to_owned(),
            "forgeguard-IngestionDlq-1QZ8TX2V9K3M".to_owned(),
        )]
        .into(),
        stat: Some("Maximum".to_owned()),
        period_seconds: Some(60),
    };
    assert_eq!(
        event.kind,
        AlarmKind::Metric {
            metrics: vec![metric]
        }
    );
}

#[test]
fn each_kind_keeps_what_it_watches() {
    let AlarmKind::MetricMath {
        expressions,
        metrics,
    } = event("_shapes/IngestionFailureShareHigh.alarm.metric-math.json").kind
    else {
        panic!("not metric math");
    };
    assert_eq!(expressions, ["100 * errors / MAX([errors, invocations])"]);
    assert_eq!(metrics.len(), 2);
    assert_eq!(metrics[0].dimensions["Resource"], "ingest:live");

    let AlarmKind::AnomalyDetection { band, metrics } =
        event("_shapes/IngestionLatencyAnomaly.alarm.anomaly-detection.json").kind
    else {
        panic!("not anomaly detection");
    };
    assert_eq!(
        (band.as_str(), metrics.len()),
        ("ANOMALY_DETECTION_BAND(m1, 2)", 1)
    );

    let AlarmKind::Composite { rule, suppressor } =
        event("_shapes/IngestionDegraded.alarm.composite-suppressed.json").kind
    else {
        panic!("not composite");
    };
    assert_eq!(
        rule,
        r#"ALARM("IngestionErrorRateHigh") OR ALARM("IngestionDlqDepthHigh")"#
    );
    assert_eq!(suppressor.as_deref(), Some("IngestionMaintenance"));

    let daily = event("_shapes/NightlyExportMissing.alarm.daily-period.json");
    assert_eq!(daily.kind.metrics()[0].period_seconds, Some(86_400));
}

#[test]
fn names_with_spaces_and_other_scripts_are_kept() {
    let name = "Ingestion «fehlgeschlagen»: \"orders\" / 100% – дежурный";
    let event = event("_shapes/IngestionFehlgeschlagen.alarm.awkward-name.json");
    assert_eq!(event.alarm_name, name);
    assert_eq!(
        event.alarm_arn,
        format!("arn:aws:cloudwatch:eu-west-1:123456789012:alarm:{name}")
    );
}

#[test]
fn an_alarm_without_an_arn_is_named_by_account_region_and_name() {
    let event = event("_shapes/IngestionErrorRateHigh.alarm.no-resources.json");
    assert_eq!(
        event.alarm_arn,
        "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:IngestionErrorRateHigh"
    );
    for (region, partition) in [
        ("us-east-1", "aws"),
        ("cn-northwest-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eusc-de-east-1", "aws-eusc"),
    ] {
        let mut event = with("/resources", Some(json!([])));
        event["region"] = json!(region);
        let start = format!("arn:{partition}:cloudwatch:{region}:123456789012:alarm:");
        assert!(
            alarm::parse(&event).unwrap().alarm_arn.starts_with(&start),
            "{region}"
        );
    }
}

#[test]
fn one_transition_has_one_key_whichever_way_it_comes() {
    let direct = event("dlq-replay/IngestionDlqDepthHigh.alarm.json").transition_key();
    assert_eq!(
        direct,
        "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:IngestionDlqDepthHigh|ALARM|1793611692144"
    );
    for file in [
        "_shapes/IngestionDlqDepthHigh.alarm.alarm-action.json",
        "_shapes/IngestionDlqDepthHigh.alarm.playbook.json",
        "_shapes/IngestionDlqDepthHigh.alarm.playbook-alarm-action-dry-run.json",
    ] {
        assert_eq!(event(file).transition_key(), direct, "{file}");
    }
    assert_ne!(
        event("dlq-replay/IngestionDlqDepthHigh.ok.json").transition_key(),
        direct
    );
}

#[test]
fn what_was_suppressed_is_no_duplicate_of_what_comes_when_suppression_ends() {
    let keys = [
        "_shapes/IngestionDegraded.alarm.composite-suppressed.json",
        "_shapes/IngestionDegraded.alarm.composite-suppression-ended.json",
        "_shapes/IngestionDegraded.alarm.composite.json",
    ]
    .map(|file| event(file).transition_key());
    assert!(
        keys[0].ends_with("|ALARM|1793611614101|suppressed"),
        "{}",
        keys[0]
    );
    assert!(keys[1].ends_with("|ALARM|1793611734101"), "{}", keys[1]);
    assert!(keys[2].ends_with("|ALARM|1793611614101"), "{}", keys[2]);
    assert_ne!(
        event("_shapes/IngestionErrorRateHigh.alarm.muted.json").transition_key(),
        event("dlq-replay/IngestionErrorRateHigh.alarm.json").transition_key()
    );
}

#[test]
fn a_suppression_that_says_none_is_none_and_one_of_an_unknown_form_counts() {
    let suppressed = |by: Value| {
        alarm::parse(&with("/detail/state/actionsSuppressedBy", Some(by)))
            .unwrap()
            .suppressed_by
    };
    for none in [
        json!(null),
        json!(""),
        json!(" "),
        json!("None"),
        json!("NONE"),
        json!(false),
    ] {
        assert_eq!(suppressed(none.clone()), None, "{none}");
    }
    for (by, shown) in [
        (json!("Alarm"), "Alarm"),
        (json!("ExtensionPeriod"), "ExtensionPeriod"),
        (json!("SomethingNew"), "SomethingNew"),
        (json!(true), "true"),
        (json!({"alarm": "x"}), "an object of 1 members"),
    ] {
        assert_eq!(suppressed(by).unwrap().to_string(), shown);
    }
    let muted = with("/detail/muteDetail", Some(json!({})));
    assert_eq!(
        alarm::parse(&muted)
            .unwrap()
            .suppressed_by
            .unwrap()
            .to_string(),
        "a mute rule"
    );
}

#[test]
fn times_are_read_in_every_form_that_aws_writes() {
    for text in [
        "2026-11-02T09:26:53.589+0000",
        "2026-11-02T09:26:53.589+00:00",
        "2026-11-02T09:26:53.589Z",
        "2026-11-02T10:26:53.589+0100",
        "2026-11-02T04:56:53.589-0430",
    ] {
        let event = with("/detail/state/timestamp", Some(json!(text)));
        assert_eq!(
            alarm::parse(&event).unwrap().changed_at,
            time("2026-11-02T09:26:53.589Z"),
            "{text}"
        );
    }
    for text in ["2026-11-02T09:26:53+0000", "2026-11-02T09:26:53Z"] {
        let event = with("/detail/state/timestamp", Some(json!(text)));
        assert_eq!(
            alarm::parse(&event).unwrap().changed_at,
            time("2026-11-02T09:26:53Z"),
            "{text}"
        );
    }
}

#[test]
fn optional_fields_of_any_type_never_fail_the_event() {
    let odd = [
        json!(null),
        json!(7),
        json!("text"),
        json!([1]),
        json!({"a": 1}),
        json!(true),
    ];
    for pointer in [
        "/version",
        "/id",
        "/time",
        "/account",
        "/region",
        "/detail/configuration",
        "/detail/configuration/description",
        "/detail/configuration/metrics",
        "/detail/configuration/metrics/0",
        "/detail/configuration/metrics/0/metricStat",
        "/detail/configuration/metrics/0/metricStat/metric",
        "/detail/configuration/metrics/0/metricStat/metric/dimensions",
        "/detail/configuration/metrics/0/metricStat/period",
        "/detail/configuration/alarmRule",
        "/detail/previousState",
        "/detail/previousState/value",
        "/detail/previousState/timestamp",
        "/detail/muteDetail",
        "/detail/alarmTags",
        "/detail/state/reason",
        "/detail/state/reasonData",
        "/detail/state/actionsSuppressedReason",
    ] {
        for value in &odd {
            let event = alarm::parse(&with(pointer, Some(value.clone())));
            assert!(event.is_ok(), "{pointer} = {value}: {}", event.unwrap_err());
        }
        assert!(alarm::parse(&with(pointer, None)).is_ok(), "{pointer}");
    }
}

#[test]
fn reason_data_that_is_not_json_stays_a_text() {
    let event = with("/detail/state/reasonData", Some(json!("{not json")));
    assert_eq!(
        alarm::parse(&event).unwrap().reason_data,
        Some(json!("{not json"))
    );
    let deep = "[".repeat(100_000);
    let event = with("/detail/state/reasonData", Some(json!(deep)));
    assert_eq!(alarm::parse(&event).unwrap().reason_data, Some(json!(deep)));
}
