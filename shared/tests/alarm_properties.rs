//! What holds for every event, good, damaged or hostile.

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::LazyLock;

    use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
    use proptest::prelude::*;
    use proptest::sample::Index;
    use serde_json::{Map, Value, json};
    use shared::alarm::{
        self, AlarmError, AlarmEvent, AlarmKind, Approval, Metric, PreviousState, State,
        Suppression,
    };

    /// What must be true of the answer to any event.
    fn check(answer: &Result<AlarmEvent, AlarmError>) {
        match answer {
            Err(error) => {
                let text = error.to_string();
                assert!(
                    !text.is_empty() && text.chars().count() <= 400,
                    "{} characters: {text}",
                    text.len()
                );
                assert!(!text.chars().any(char::is_control), "{text:?}");
            }
            Ok(event) => {
                let AlarmEvent {
                    alarm_arn,
                    account,
                    region,
                    alarm_name,
                    ..
                } = event;
                assert!(alarm_arn.starts_with("arn:aws"), "{alarm_arn}");
                assert!(
                    alarm_arn.ends_with(&format!(
                        ":cloudwatch:{region}:{account}:alarm:{alarm_name}"
                    )),
                    "{alarm_arn}"
                );
                assert!(
                    event
                        .transition_key()
                        .starts_with(&format!("{alarm_arn}|{}|", event.state))
                );
                if let Some(by) = &event.suppressed_by {
                    assert!(!by.to_string().chars().any(char::is_control), "{by}");
                }
                let kept = serde_json::to_value(event).unwrap();
                assert_eq!(&serde_json::from_value::<AlarmEvent>(kept).unwrap(), event);
            }
        }
    }

    static FIXTURES: LazyLock<Vec<Value>> = LazyLock::new(|| {
        let events = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events");
        let mut files: Vec<_> = ["dlq-replay", "_shapes"]
            .into_iter()
            .flat_map(|folder| std::fs::read_dir(events.join(folder)).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
            .iter()
            .map(|file| serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())
            .collect()
    });

    /// A text: often one that means something in an event, else anything.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec![
                "aws.cloudwatch",
                "CloudWatch Alarm State Change",
                "CloudWatch Alarm Configuration Change",
                "CloudWatch Alarm Contributor State Change",
                "ALARM",
                "OK",
                "2026-11-02T09:26:53.589+0000",
                "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:A",
                "A",
                "123456789012",
                "eu-west-1",
            ])
            .prop_map(str::to_owned),
            any::<String>(),
            "[\\x00-\\x7f]{0,300}",
        ]
    }

    fn key() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => prop::sample::select(vec![
                "source", "detail-type", "detail", "resources", "account", "accountId", "region", "id", "time",
                "alarmArn", "alarmData", "alarmName", "alarm", "playbook", "execution", "dry_run", "state",
                "previousState", "configuration", "approvals", "step", "plan_hash", "value", "timestamp", "reason", "reasonData",
                "actionsSuppressedBy", "muteDetail", "mutedByArn", "muteWindowEnd", "metrics", "metricStat",
                "metric", "dimensions", "period", "expression", "alarmRule", "alarmContributor",
            ])
            .prop_map(str::to_owned),
            1 => any::<String>(),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|number| json!(number)),
            any::<f64>().prop_map(|number| json!(number)),
            text().prop_map(Value::String),
        ];
        leaf.prop_recursive(5, 60, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec((key(), inner), 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    /// Every place in a document.
    fn places(value: &Value, here: &str, found: &mut Vec<String>) {
        found.push(here.to_owned());
        let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
        match value {
            Value::Object(object) => {
                for (key, inner) in object {
                    places(inner, &format!("{here}/{}", escaped(key)), found);
                }
            }
            Value::Array(list) => {
                for (index, inner) in list.iter().enumerate() {
                    places(inner, &format!("{here}/{index}"), found);
                }
            }
            _ => {}
        }
    }

    fn time() -> impl Strategy<Value = DateTime<Utc>> {
        // 2009-01-01 to 2199-12-31, in milliseconds.
        (1_230_768_000_000_i64..7_258_118_400_000)
            .prop_map(|millis| DateTime::from_timestamp_millis(millis).unwrap())
    }

    fn state() -> impl Strategy<Value = State> {
        prop::sample::select(vec![State::Ok, State::Alarm, State::InsufficientData])
    }

    fn suppressor() -> impl Strategy<Value = Option<Suppression>> {
        let by = prop::sample::select(vec!["WaitPeriod", "ExtensionPeriod", "Alarm"]);
        prop::option::of(
            (by, prop::option::of(any::<String>())).prop_map(|(by, reason)| {
                Suppression::Suppressor {
                    by: by.to_owned(),
                    reason,
                }
            }),
        )
    }

    fn suppression() -> impl Strategy<Value = Option<Suppression>> {
        let rule = (prop::option::of(any::<String>()), prop::option::of(time()))
            .prop_map(|(arn, until)| Some(Suppression::MuteRule { arn, until }));
        prop_oneof![suppressor(), rule]
    }

    fn metrics() -> impl Strategy<Value = Vec<Metric>> {
        let optional = || prop::option::of(any::<String>());
        let metric = (
            optional(),
            optional(),
            optional(),
            prop::collection::btree_map(any::<String>(), any::<String>(), 0..3),
            optional(),
            prop::option::of(any::<u64>()),
        )
            .prop_map(
                |(id, namespace, name, dimensions, stat, period_seconds)| Metric {
                    id,
                    namespace,
                    name,
                    dimensions,
                    stat,
                    period_seconds,
                },
            );
        prop::collection::vec(metric, 1..4)
    }

    fn kind() -> impl Strategy<Value = AlarmKind> {
        prop_oneof![
            metrics().prop_map(|metrics| AlarmKind::Metric { metrics }),
            (
                prop::collection::vec("[A-Z]{1,8}\\(m[0-9]\\) / [0-9]{1,3}", 1..3),
                metrics()
            )
                .prop_map(|(expressions, metrics)| AlarmKind::MetricMath {
                    expressions,
                    metrics
                }),
            ("ANOMALY_DETECTION_BAND\\(m1, [0-9]\\)", metrics())
                .prop_map(|(band, metrics)| AlarmKind::AnomalyDetection { band, metrics }),
            "SELECT [A-Z]{3}\\([a-z]{1,9}\\) FROM [a-z]{1,9}"
                .prop_map(|query| AlarmKind::MetricsInsights { query }),
            (any::<String>(), prop::option::of(any::<String>()))
                .prop_map(|(rule, suppressor)| AlarmKind::Composite { rule, suppressor }),
            Just(AlarmKind::Unknown),
        ]
    }

    fn path() -> impl Strategy<Value = alarm::Path> {
        prop_oneof![
            Just(alarm::Path::EventBridge),
            Just(alarm::Path::AlarmAction),
            (
                "[A-Za-z0-9-]{1,40}",
                "[A-Za-z0-9-]{1,40}",
                any::<bool>(),
                prop::option::of("[A-Za-z0-9._-]{1,80}"),
            )
                .prop_map(|(machine, run, named, step)| {
                    alarm::Path::Playbook {
                        execution: format!(
                            "arn:aws:states:eu-west-1:123456789012:execution:{machine}:{run}"
                        ),
                        name: named.then_some(machine),
                        step,
                    }
                }),
        ]
    }

    fn approvals() -> impl Strategy<Value = Vec<Approval>> {
        let text = || "[^\\x00]{1,40}";
        let approval = (text(), "[0-9a-f]{32}", text(), text(), time(), time()).prop_map(
            |(target, plan_hash, transition, by, at, expires_at)| Approval {
                target,
                plan_hash,
                transition,
                by,
                at,
                expires_at,
            },
        );
        prop::collection::vec(approval, 0..3)
    }

    fn event() -> impl Strategy<Value = AlarmEvent> {
        let optional = || prop::option::of(any::<String>());
        // A text that is JSON itself would be read as what it says.
        let reason_data = prop_oneof![
            Just(None),
            prop::collection::btree_map("[a-z]{1,9}", any::<i64>(), 0..3)
                .prop_map(|data| Some(json!(data))),
            "[<-~][ -~]{0,40}".prop_filter_map("JSON", |text| {
                serde_json::from_str::<Value>(&text)
                    .is_err()
                    .then_some(Some(Value::String(text)))
            }),
        ];
        let previous = (
            prop::option::of(state()),
            optional(),
            prop::option::of(time()),
            suppressor(),
        )
            .prop_map(|(state, reason, changed_at, suppressed_by)| PreviousState {
                state,
                reason,
                changed_at,
                suppressed_by,
            });
        let identity = (
            "[^\\x00-\\x1f\\x7f]{1,255}",
            "[0-9]{12}",
            "[a-z]{2}-[a-z]{4,9}-[1-9]",
        );
        (
            (identity, state(), time(), path(), any::<bool>()),
            (
                optional(),
                reason_data,
                prop::option::of(previous),
                suppression(),
                kind(),
                optional(),
                optional(),
                approvals(),
            ),
        )
            .prop_map(
                |(
                    ((alarm_name, account, region), state, changed_at, path, dry_run),
                    (
                        reason,
                        reason_data,
                        previous_state,
                        suppressed_by,
                        kind,
                        event_id,
                        description,
                        approvals,
                    ),
                )| AlarmEvent {
                    alarm_arn: format!("arn:aws:cloudwatch:{region}:{account}:alarm:{alarm_name}"),
                    event_id: event_id.filter(|_| path != alarm::Path::AlarmAction),
                    alarm_name,
                    account,
                    region,
                    state,
                    reason,
                    reason_data,
                    changed_at,
                    previous_state,
                    suppressed_by,
                    kind,
                    description,
                    dry_run,
                    // Only a step's input carries them.
                    approvals: match path {
                        alarm::Path::Playbook { .. } => approvals,
                        _ => Vec::new(),
                    },
                    path,
                },
            )
    }

    fn written(time: DateTime<Utc>) -> String {
        time.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string()
    }

    fn approved(approval: &Approval) -> Value {
        json!({
            "target": approval.target,
            "plan_hash": approval.plan_hash,
            "transition": approval.transition,
            "by": approval.by,
            "at": written(approval.at),
            "expires_at": written(approval.expires_at),
        })
    }

    fn state_of(value: Option<State>, reason: Option<&String>, by: Option<&Suppression>) -> Value {
        let mut state = json!({"value": value.map(State::as_str), "reason": reason});
        if let Some(Suppression::Suppressor { by, reason }) = by {
            state["actionsSuppressedBy"] = json!(by);
            state["actionsSuppressedReason"] = json!(reason);
        }
        state
    }

    /// The event as AWS writes it.
    fn rendered(event: &AlarmEvent) -> Value {
        let mut state = state_of(
            Some(event.state),
            event.reason.as_ref(),
            event.suppressed_by.as_ref(),
        );
        state["timestamp"] = json!(written(event.changed_at));
        state["reasonData"] = match &event.reason_data {
            None => Value::Null,
            Some(Value::String(text)) => json!(text),
            Some(data) => json!(data.to_string()),
        };
        let queries = |metrics: &[Metric], expressions: &[String]| {
            let expressions = expressions
                .iter()
                .map(|text| json!({"id": "e1", "expression": text}));
            let metrics = metrics.iter().map(|metric| {
                let Metric {
                    id,
                    namespace,
                    name,
                    dimensions,
                    stat,
                    period_seconds,
                } = metric;
                json!({"id": id, "metricStat": {
                    "metric": {"namespace": namespace, "name": name, "dimensions": dimensions},
                    "period": period_seconds, "stat": stat,
                }})
            });
            Value::Array(expressions.chain(metrics).collect())
        };
        let mut configuration = match &event.kind {
            AlarmKind::Metric { metrics } => json!({"metrics": queries(metrics, &[])}),
            AlarmKind::MetricMath {
                expressions,
                metrics,
            } => json!({"metrics": queries(metrics, expressions)}),
            AlarmKind::AnomalyDetection { band, metrics } => {
                json!({"metrics": queries(metrics, std::slice::from_ref(band))})
            }
            AlarmKind::MetricsInsights { query } => {
                json!({"metrics": queries(&[], std::slice::from_ref(query))})
            }
            AlarmKind::Composite { rule, suppressor } => {
                json!({"alarmRule": rule, "actionsSuppressor": suppressor})
            }
            AlarmKind::Unknown => json!({}),
        };
        configuration["description"] = json!(event.description);
        let mut body =
            json!({"alarmName": event.alarm_name, "state": state, "configuration": configuration});
        if let Some(previous) = &event.previous_state {
            let mut state = state_of(
                previous.state,
                previous.reason.as_ref(),
                previous.suppressed_by.as_ref(),
            );
            state["timestamp"] = json!(previous.changed_at.map(written));
            body["previousState"] = state;
        }
        if let Some(Suppression::MuteRule { arn, until }) = &event.suppressed_by {
            body["muteDetail"] = json!({"mutedByArn": arn, "muteWindowEnd": until.map(written)});
        }
        let bridged = |body: &Value| {
            json!({
                "version": "0", "id": event.event_id, "detail-type": "CloudWatch Alarm State Change",
                "source": "aws.cloudwatch", "account": event.account, "region": event.region,
                "time": event.changed_at.to_rfc3339_opts(SecondsFormat::Secs, true),
                "resources": [event.alarm_arn], "detail": body,
            })
        };
        let mut document = match &event.path {
            alarm::Path::EventBridge => bridged(&body),
            alarm::Path::AlarmAction => json!({
                "source": "aws.cloudwatch", "alarmArn": event.alarm_arn, "accountId": event.account,
                "time": written(event.changed_at), "region": event.region, "alarmData": body,
            }),
            alarm::Path::Playbook {
                execution,
                name,
                step,
            } => json!({
                "playbook": {"execution": execution, "name": name, "step": step},
                "approvals": event.approvals.iter().map(approved).collect::<Vec<_>>(),
                "alarm": bridged(&body),
            }),
        };
        if event.dry_run {
            document["dry_run"] = json!(true);
        }
        document
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn any_json_gives_an_event_or_one_clear_error(value in value()) {
            check(&alarm::parse(&value));
        }

        #[test]
        fn any_bytes_give_an_event_or_one_clear_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            check(&alarm::parse_slice(&bytes));
        }

        #[test]
        fn a_good_event_with_one_value_replaced_never_panics(
            file in any::<Index>(),
            place in any::<Index>(),
            replacement in value(),
        ) {
            let mut event = file.get(FIXTURES.as_slice()).clone();
            let mut found = Vec::new();
            places(&event, "", &mut found);
            *event.pointer_mut(&found[place.index(found.len())]).unwrap() = replacement;
            check(&alarm::parse(&event));
        }

        #[test]
        fn a_good_event_cut_short_is_an_error(file in any::<Index>(), at in any::<Index>()) {
            let bytes = serde_json::to_vec(file.get(FIXTURES.as_slice())).unwrap();
            let answer = alarm::parse_slice(&bytes[..at.index(bytes.len())]);
            check(&answer);
            let refused = matches!(answer, Err(AlarmError::NotJson { .. }));
            prop_assert!(refused, "{:?}", answer);
        }

        #[test]
        fn a_good_event_with_bytes_replaced_never_panics(
            file in any::<Index>(),
            changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = serde_json::to_vec(file.get(FIXTURES.as_slice())).unwrap();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            check(&alarm::parse_slice(&bytes));
        }

        #[test]
        fn what_aws_would_write_of_an_event_is_read_as_that_event(event in event()) {
            let answer = alarm::parse_slice(&serde_json::to_vec(&rendered(&event)).unwrap());
            check(&answer);
            prop_assert_eq!(answer.unwrap(), event);
        }

        #[test]
        fn a_key_tells_transitions_apart_and_deliveries_not(event in event(), path in path(), later in 1_i64..1000) {
            let delivered_again = AlarmEvent {
                path,
                event_id: None,
                dry_run: !event.dry_run,
                ..event.clone()
            };
            prop_assert_eq!(delivered_again.transition_key(), event.transition_key());
            let next = AlarmEvent {
                changed_at: event.changed_at + TimeDelta::milliseconds(later),
                ..event.clone()
            };
            prop_assert_ne!(next.transition_key(), event.transition_key());
        }
    }
}
