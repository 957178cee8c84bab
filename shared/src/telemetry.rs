//! What a run tells the outside while it works: JSON log lines and `CloudWatch` metrics in the embedded metric format.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::outcome::Report;

/// The metrics' namespace.
pub const NAMESPACE: &str = "Forgeguard";

/// The unit of a metric, by `CloudWatch`'s name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// A length of time.
    Milliseconds,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Milliseconds => "Milliseconds",
        }
    }
}

/// One number to be counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Its value.
    pub value: f64,
}

/// Starts logging: one JSON object a line on standard output, spans' fields included.
pub fn start(level: tracing::Level) {
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(level)
        .with_current_span(true)
        .with_span_list(false)
        .flatten_event(true)
        .with_target(false)
        .finish();
    // A second start in one process, as in tests, keeps the first subscriber.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// The embedded metric format of a report: runs and their length, by remediation, target and outcome.
///
/// `CloudWatch` extracts metrics from such a log line (Amazon `CloudWatch` User Guide,
/// "Specification: Embedded metric format"), without a call that could fail.
#[must_use]
pub fn metrics(report: &Report, took_ms: f64, more: &[Metric], now: DateTime<Utc>) -> Value {
    let mut all = vec![
        Metric {
            name: "Runs",
            unit: Unit::Count,
            value: 1.0,
        },
        Metric {
            name: "Duration",
            unit: Unit::Milliseconds,
            value: took_ms,
        },
    ];
    all.extend_from_slice(more);
    let definitions: Vec<Value> = all
        .iter()
        .map(|metric| json!({"Name": metric.name, "Unit": metric.unit.name()}))
        .collect();
    let mut line = Map::from_iter([
        (
            "_aws".to_owned(),
            json!({
                "Timestamp": now.timestamp_millis(),
                "CloudWatchMetrics": [{
                    "Namespace": NAMESPACE,
                    "Dimensions": [["Remediation", "Outcome"], ["Remediation", "Target", "Outcome"]],
                    "Metrics": definitions,
                }],
            }),
        ),
        ("Remediation".to_owned(), json!(report.remediation)),
        ("Target".to_owned(), json!(report.target)),
        ("Outcome".to_owned(), json!(report.outcome.name())),
        ("incident_id".to_owned(), json!(report.incident_id)),
        ("causation_id".to_owned(), json!(report.causation_id)),
    ]);
    for metric in &all {
        line.insert(metric.name.to_owned(), json!(metric.value));
    }
    Value::Object(line)
}

/// The embedded metric format of a look of the schedule: what it could not look after.
#[must_use]
pub fn sweep(remediation: &str, failures: usize, now: DateTime<Utc>) -> Value {
    json!({
        "_aws": {
            "Timestamp": now.timestamp_millis(),
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                "Dimensions": [["Remediation"]],
                "Metrics": [{"Name": "SweepFailures", "Unit": Unit::Count.name()}],
            }],
        },
        "Remediation": remediation,
        "SweepFailures": failures,
    })
}

/// Writes a metric line to standard output, from where Lambda takes it into the log. A process that has started no
/// logging, as a simulation, has nobody to read it.
pub fn print(line: &Value) {
    if tracing::enabled!(tracing::Level::ERROR) {
        println!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn every_metric_has_a_definition_and_a_value() {
        let applied = Outcome::Applied {
            summary: "done".into(),
        };
        let report = Report::new("dlq-replay", "ingestion", "arn:q", applied);
        let replayed = Metric {
            name: "MessagesReplayed",
            unit: Unit::Count,
            value: 42.0,
        };
        let line = metrics(&report, 12.5, &[replayed], DateTime::UNIX_EPOCH);
        let names = line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
            .as_array()
            .unwrap();
        assert_eq!(names.len(), 3);
        for name in names {
            assert!(line[name["Name"].as_str().unwrap()].is_number());
        }
        assert_eq!(line["Outcome"], "Applied");
        assert_eq!(line["MessagesReplayed"], 42.0);
    }
}
