//! The outside in AWS: Systems Manager, `CloudWatch` and `EventBridge`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_cloudwatch::config::Region;
use aws_sdk_cloudwatch::primitives::DateTime as SmithyTime;
use aws_sdk_cloudwatch::types::{
    AlarmType, ComparisonOperator, MetricAlarm, MetricDataQuery, MetricStat, StateValue,
};
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use chrono::{DateTime, TimeDelta, Utc};

use crate::alarm::State;
use crate::aws_error::{AwsError, Kind};
use crate::guard::LiveAlarm;
use crate::guard::effect::{Bad, Course, Told};
use crate::metric_data;
use crate::policy::PolicyError;
use crate::runtime::outside::{Described, OutcomeEvent, Outside, PolicyText};

/// Pages of one answer that are read: 100 alarms fit in one.
const PAGES: usize = 10;
/// Events that one call takes (Amazon `EventBridge` API Reference, "`PutEvents`").
const EVENTS: usize = 10;
const METRICS: &str = "cloudwatch:GetMetricData";

/// AWS.
#[derive(Debug)]
pub(super) struct Aws {
    config: SdkConfig,
    ssm: aws_sdk_ssm::Client,
    eventbridge: aws_sdk_eventbridge::Client,
    /// `CloudWatch` is regional: an alarm is read where it is.
    cloudwatch: Mutex<HashMap<String, aws_sdk_cloudwatch::Client>>,
}

impl Aws {
    /// Builds the clients from one configuration.
    #[must_use]
    pub(super) fn new(config: &SdkConfig) -> Self {
        Self {
            ssm: aws_sdk_ssm::Client::new(config),
            eventbridge: aws_sdk_eventbridge::Client::new(config),
            cloudwatch: Mutex::default(),
            config: config.clone(),
        }
    }

    fn cloudwatch(&self, region: &str) -> aws_sdk_cloudwatch::Client {
        let mut clients = self
            .cloudwatch
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        clients
            .entry(region.to_owned())
            .or_insert_with(|| {
                let config = aws_sdk_cloudwatch::config::Builder::from(&self.config)
                    .region(Region::new(region.to_owned()))
                    .build();
                aws_sdk_cloudwatch::Client::from_conf(config)
            })
            .clone()
    }
}

#[async_trait]
impl Outside for Aws {
    async fn policy(&self, parameter: &str) -> Result<PolicyText, PolicyError> {
        let answer = self
            .ssm
            .get_parameter()
            .name(parameter)
            .with_decryption(true)
            .send()
            .await
            .map_err(|error| PolicyError::Unreadable {
                source: AwsError::new("ssm:GetParameter", parameter, &error),
            })?;
        let held = answer.parameter();
        let text = held
            .and_then(|held| held.value())
            .ok_or_else(|| PolicyError::Empty {
                parameter: parameter.to_owned(),
            })?;
        Ok(PolicyText {
            text: text.to_owned(),
            version: held.map_or(0, aws_sdk_ssm::types::Parameter::version),
        })
    }

    async fn alarms(&self, region: &str, names: &[String]) -> Result<Vec<Described>, AwsError> {
        const CALL: &str = "cloudwatch:DescribeAlarms";
        let client = self.cloudwatch(region);
        let mut found = Vec::new();
        let mut next = None;
        for _ in 0..PAGES {
            let answer = client
                .describe_alarms()
                .set_alarm_names(Some(names.to_vec()))
                .alarm_types(AlarmType::MetricAlarm)
                .alarm_types(AlarmType::CompositeAlarm)
                .max_records(100)
                .set_next_token(next)
                .send()
                .await
                .map_err(|error| AwsError::new(CALL, names.join(", "), &error))?;
            for alarm in answer.metric_alarms() {
                found.extend(described(
                    alarm.alarm_arn(),
                    alarm.state_value(),
                    alarm.actions_enabled(),
                    alarm
                        .state_transitioned_timestamp()
                        .or(alarm.state_updated_timestamp()),
                ));
            }
            for alarm in answer.composite_alarms() {
                found.extend(described(
                    alarm.alarm_arn(),
                    alarm.state_value(),
                    // A suppressor holds its actions back as much as a switch does.
                    Some(
                        alarm.actions_enabled().unwrap_or(true)
                            && alarm.actions_suppressed_by().is_none(),
                    ),
                    alarm
                        .state_transitioned_timestamp()
                        .or(alarm.state_updated_timestamp()),
                ));
            }
            next = answer.next_token;
            if next.is_none() {
                return Ok(found);
            }
        }
        Err(AwsError {
            operation: CALL,
            subject: names.join(", "),
            kind: Kind::Unknown,
            code: None,
            message: format!("the answer has more than {PAGES} pages"),
        })
    }

    async fn course(
        &self,
        region: &str,
        name: &str,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Told, AwsError> {
        let client = self.cloudwatch(region);
        let found = client
            .describe_alarms()
            .alarm_names(name)
            .alarm_types(AlarmType::MetricAlarm)
            .send()
            .await
            .map_err(|error| AwsError::new("cloudwatch:DescribeAlarms", name, &error))?;
        let measure = match found.metric_alarms().first().map(measure) {
            Some(Ok(measure)) => measure,
            Some(Err(why)) => return Ok(Told::Nothing(why)),
            None => return Ok(Told::Nothing("it has no metric of its own".to_owned())),
        };
        let Measure { queries, course } = measure;
        let back = Course::reaches_back(course.period, course.evaluation_periods);
        let window = now - since + back;
        let answer = metric_data::of_window(&client, window, now)
            .set_metric_data_queries(Some(queries))
            .send()
            .await
            .map_err(|error| AwsError::new(METRICS, name, &error))?;
        if let Some(missing) = metric_data::missing(&answer) {
            return Err(AwsError {
                operation: METRICS,
                subject: name.to_owned(),
                kind: Kind::Unknown,
                code: None,
                message: format!("the answer is incomplete: {missing}"),
            });
        }
        // Of an alarm's queries one alone gives values.
        let values = metric_data::values(answer.metric_data_results());
        Ok(Told::Course(Course { values, ..course }))
    }

    async fn publish(&self, bus: &str, outcomes: &[OutcomeEvent]) -> Result<(), AwsError> {
        const CALL: &str = "events:PutEvents";
        for outcomes in outcomes.chunks(EVENTS) {
            let entries = outcomes.iter().map(|outcome| {
                PutEventsRequestEntry::builder()
                    .event_bus_name(bus)
                    .source("forgeguard")
                    .detail_type("Forgeguard Remediation Outcome")
                    .set_resources(Some(outcome.resources.clone()))
                    .detail(&outcome.detail)
                    .build()
            });
            let answer = self
                .eventbridge
                .put_events()
                .set_entries(Some(entries.collect()))
                .send()
                .await
                .map_err(|error| AwsError::new(CALL, bus, &error))?;
            if answer.failed_entry_count() == 0 {
                continue;
            }
            let refused = answer
                .entries()
                .iter()
                .find(|entry| entry.error_code().is_some());
            let code = refused.and_then(|entry| entry.error_code());
            return Err(AwsError {
                operation: CALL,
                subject: bus.to_owned(),
                kind: code.map_or(Kind::Unknown, crate::aws_error::kind_of_code),
                code: code.map(str::to_owned),
                message: refused
                    .and_then(|entry| entry.error_message())
                    .unwrap_or_default()
                    .to_owned(),
            });
        }
        Ok(())
    }
}

/// How an alarm's metric is asked for, and what the alarm makes of it.
struct Measure {
    queries: Vec<MetricDataQuery>,
    course: Course,
}

/// How to measure what an alarm goes by; or why that cannot be compared.
fn measure(alarm: &MetricAlarm) -> Result<Measure, String> {
    let bad = match alarm.comparison_operator() {
        Some(
            ComparisonOperator::GreaterThanThreshold
            | ComparisonOperator::GreaterThanOrEqualToThreshold,
        ) => Bad::Above,
        Some(
            ComparisonOperator::LessThanThreshold | ComparisonOperator::LessThanOrEqualToThreshold,
        ) => Bad::Below,
        _ => return Err("it goes by a band and no threshold".to_owned()),
    };
    let threshold = alarm.threshold();
    let threshold = threshold.ok_or_else(|| "it goes by a band and no threshold".to_owned())?;
    let queries = match alarm.metrics() {
        [] => vec![metric_data::of_alarm(alarm)],
        queries => queries.to_vec(),
    };
    let periods = queries.iter().filter_map(|query| {
        let of_metric = query.metric_stat().and_then(MetricStat::period);
        of_metric.or(query.period())
    });
    let period = periods
        .max()
        .ok_or_else(|| "its metric has no period".to_owned())?;
    Ok(Measure {
        queries,
        course: Course {
            bad,
            threshold,
            includes_threshold: matches!(
                alarm.comparison_operator(),
                Some(
                    ComparisonOperator::GreaterThanOrEqualToThreshold
                        | ComparisonOperator::LessThanOrEqualToThreshold
                )
            ),
            period: TimeDelta::seconds(i64::from(period)),
            evaluation_periods: alarm
                .evaluation_periods()
                .and_then(|periods| usize::try_from(periods).ok())
                .unwrap_or(1),
            values: Vec::new(),
        },
    })
}

fn described(
    arn: Option<&str>,
    state: Option<&StateValue>,
    actions_enabled: Option<bool>,
    since: Option<&SmithyTime>,
) -> Option<Described> {
    Some(Described {
        arn: arn?.to_owned(),
        live: LiveAlarm::Found {
            state: match state {
                Some(StateValue::Alarm) => State::Alarm,
                Some(StateValue::Ok) => State::Ok,
                _ => State::InsufficientData,
            },
            actions_enabled: actions_enabled.unwrap_or(true),
            since: since
                .and_then(|since| since.to_millis().ok())
                .and_then(DateTime::<Utc>::from_timestamp_millis),
        },
    })
}
