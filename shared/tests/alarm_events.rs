//! Every event in `events/` is read as its name says, and what is wrong with a wrong one is said in one line.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use chrono::{DateTime, Utc};
    use serde_json::{Value, json};
    use shared::alarm::{
        self, AlarmError, AlarmEvent, AlarmKind, Metric, PreviousState, State, Suppression,
    };

    fn events() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../events")
    }

    /// Every event file below `events/`, by its path from there.
    fn files() -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for folder in std::fs::read_dir(events())
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            if !folder.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
            {
                let name = file
                    .strip_prefix(events())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.insert(name, std::fs::read(&file).unwrap());
            }
        }
        found
    }

    fn event(file: &str) -> AlarmEvent {
        alarm::parse_slice(&std::fs::read(events().join(file)).unwrap()).unwrap()
    }

    fn json(file: &str) -> Value {
        serde_json::from_slice(&std::fs::read(events().join(file)).unwrap()).unwrap()
    }

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The event that the tables below change.
    fn base() -> Value {
        json("dlq-replay/IngestionErrorRateHigh.alarm.json")
    }

    /// The base event with the value at a JSON pointer replaced, or removed where `None` is given;
    /// in a list, `null` takes its place.
    fn with(pointer: &str, value: Option<Value>) -> Value {
        let mut event = base();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = event.pointer_mut(parent).unwrap();
        match (parent, value) {
            (Value::Object(object), Some(value)) => _ = object.insert(key.to_owned(), value),
            (Value::Object(object), None) => _ = object.remove(key),
            (Value::Array(list), value) => {
                list[key.parse::<usize>().unwrap()] = value.unwrap_or_default();
            }
            (other, _) => panic!("{pointer} does not lead through {other}"),
        }
        event
    }

    #[test]
    fn every_event_file_is_read_as_its_name_says() {
        let files = files();
        assert!(files.len() >= 26, "{:?}", files.keys());
        for (file, bytes) in files {
            let (folder, name) = file.split_once('/').unwrap();
            let parts: Vec<&str> = name.split('.').collect();
            let [alarm, state, variant @ .., "json"] = parts.as_slice() else {
                panic!("{file} is not named <AlarmName>.<state>[.<variant>].json");
            };
            match alarm::parse_slice(&bytes) {
                Ok(event) => {
                    assert!(
                        !variant.contains(&"refused"),
                        "{file} was accepted: {event:?}"
                    );
                    let state = state.to_uppercase().replace('-', "_");
                    assert_eq!(event.state.as_str(), state, "{file}");
                    if folder != "_shapes" {
                        assert_eq!(event.alarm_name, *alarm, "{file}");
                        assert!(event.previous_state.is_some(), "{file}");
                        assert!(
                            event.reason_data.is_some_and(|data| data.is_object()),
                            "{file}"
                        );
                        assert!(!event.kind.metrics().is_empty(), "{file}");
                        assert!(!event.dry_run, "{file}");
                    }
                }
                Err(error) => assert!(variant.contains(&"refused"), "{file}: {error}"),
            }
        }
    }

    /// What is read from each file of `events/_shapes`, in the words of [`summary`].
    const SHAPES: [(&str, &str); 20] = [
        (
            "IngestTableWritesStopped.alarm.contributor-action.refused.json",
            "the event is about one contributor (\"6d442278dba546f6\") of the alarm \
             \"IngestTableWritesStopped\", and remediations answer the alarm as a whole: \
             use a rule whose \"detail-type\" is [\"CloudWatch Alarm State Change\"]",
        ),
        (
            "IngestTableWritesStopped.alarm.contributor.refused.json",
            "the event is about one contributor (\"6d442278dba546f6\") of the alarm \
             \"IngestTableWritesStopped\", and remediations answer the alarm as a whole: \
             use a rule whose \"detail-type\" is [\"CloudWatch Alarm State Change\"]",
        ),
        (
            "IngestTableWritesStopped.alarm.metrics-insights.json",
            "INSUFFICIENT_DATA -> ALARM, metrics_insights, event_bridge",
        ),
        (
            "IngestionDegraded.alarm.alarm-action-composite.json",
            "ALARM (suppressed by WaitPeriod (Actions suppressed by WaitPeriod)) -> ALARM, composite, alarm_action",
        ),
        (
            "IngestionDegraded.alarm.composite-suppressed.json",
            "OK -> ALARM (suppressed by WaitPeriod (Actions suppressed by WaitPeriod)), composite, event_bridge",
        ),
        (
            "IngestionDegraded.alarm.composite-suppression-ended.json",
            "ALARM (suppressed by WaitPeriod (Actions suppressed by WaitPeriod)) -> ALARM, composite, event_bridge",
        ),
        (
            "IngestionDegraded.alarm.composite.json",
            "OK -> ALARM, composite, event_bridge",
        ),
        (
            "IngestionDlqDepthHigh.alarm.alarm-action.json",
            "OK -> ALARM, metric, alarm_action",
        ),
        (
            "IngestionDlqDepthHigh.alarm.dry-run.json",
            "OK -> ALARM, metric, event_bridge, dry run",
        ),
        (
            "IngestionDlqDepthHigh.alarm.playbook-alarm-action-dry-run.json",
            "OK -> ALARM, metric, playbook, dry run",
        ),
        (
            "IngestionDlqDepthHigh.alarm.playbook.json",
            "OK -> ALARM, metric, playbook",
        ),
        (
            "IngestionErrorRateHigh.alarm.foreign-source.refused.json",
            "$.source is \"com.example.orders\", and remediations answer \"aws.cloudwatch\" only: \
             narrow the rule's \"source\" to [\"aws.cloudwatch\"]",
        ),
        (
            "IngestionErrorRateHigh.alarm.muted.json",
            "OK -> ALARM (suppressed by the mute rule \
             arn:aws:cloudwatch:eu-west-1:123456789012:alarm-mute-rule:Mo… \
             until 2026-11-02T10:00:00Z), metric, event_bridge",
        ),
        (
            "IngestionErrorRateHigh.alarm.no-previous-state.json",
            "? -> ALARM, metric, event_bridge",
        ),
        (
            "IngestionErrorRateHigh.alarm.no-resources.json",
            "? -> ALARM, metric, event_bridge",
        ),
        (
            "IngestionErrorRateHigh.ok.configuration-change.refused.json",
            "\"CloudWatch Alarm Configuration Change\" says that the alarm \"IngestionErrorRateHigh\" was edited \
             (operation \"update\"), not that its state changed: \
             narrow the rule's \"detail-type\" to [\"CloudWatch Alarm State Change\"]",
        ),
        (
            "IngestionFailureShareHigh.alarm.metric-math.json",
            "INSUFFICIENT_DATA -> ALARM, metric_math, event_bridge",
        ),
        (
            "IngestionFehlgeschlagen.alarm.awkward-name.json",
            "OK -> ALARM, metric, event_bridge",
        ),
        (
            "IngestionLatencyAnomaly.alarm.anomaly-detection.json",
            "OK -> ALARM, anomaly_detection, event_bridge",
        ),
        (
            "NightlyExportMissing.alarm.daily-period.json",
            "OK -> ALARM, metric, event_bridge",
        ),
    ];

    fn summary(event: &AlarmEvent) -> String {
        let tag = |value: Value| value["type"].as_str().unwrap().to_owned();
        let held = |by: Option<&Suppression>| {
            by.map(|by| format!(" (suppressed by {by})"))
                .unwrap_or_default()
        };
        let before = event.previous_state.as_ref();
        format!(
            "{}{} -> {}{}, {}, {}{}",
            before
                .and_then(|before| before.state)
                .map_or("?", State::as_str),
            held(before.and_then(|before| before.suppressed_by.as_ref())),
            event.state,
            held(event.suppressed_by.as_ref()),
            tag(serde_json::to_value(&event.kind).unwrap()),
            tag(serde_json::to_value(&event.path).unwrap()),
            if event.dry_run { ", dry run" } else { "" },
        )
    }

    #[test]
    fn every_shape_is_told_from_the_others() {
        let mut expected: BTreeMap<String, &str> = SHAPES
            .map(|(file, summary)| (format!("_shapes/{file}"), summary))
            .into();
        for (file, bytes) in files() {
            if !file.starts_with("_shapes/") {
                continue;
            }
            let read = match alarm::parse_slice(&bytes) {
                Ok(event) => summary(&event),
                Err(error) => error.to_string(),
            };
            assert_eq!(Some(read.as_str()), expected.remove(&file), "{file}");
        }
        assert!(expected.is_empty(), "no such files: {expected:?}");
    }

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
    fn a_playbook_step_says_which_execution_it_belongs_to() {
        let step = || json("_shapes/IngestionDlqDepthHigh.alarm.playbook.json");
        let alarm::Path::Playbook { execution, name } = alarm::parse(&step()).unwrap().path else {
            panic!("not a playbook");
        };
        assert!(
            execution
                .starts_with("arn:aws:states:eu-west-1:123456789012:execution:IngestionFailures:")
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
}
