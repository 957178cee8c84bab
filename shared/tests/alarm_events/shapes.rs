//! Every event file is read as its name says.

use std::collections::BTreeMap;

use serde_json::Value;
use shared::alarm::{self, AlarmEvent, State, Suppression};

use crate::files::files;

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
