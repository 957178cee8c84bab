//! What is counted by `CloudWatch`: asked for, whether all of it is there, and what it adds up to.

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::operation::get_metric_data::GetMetricDataOutput;
use aws_sdk_cloudwatch::operation::get_metric_data::builders::GetMetricDataFluentBuilder;
use aws_sdk_cloudwatch::types::{
    Dimension, Metric, MetricAlarm, MetricDataQuery, MetricDataResult, MetricStat, Statistic,
    StatusCode,
};
use aws_smithy_types::DateTime as SdkDateTime;
use chrono::{DateTime, TimeDelta, Utc};

/// A request for the numbers of the `window` before `now`, to which the queries are added.
#[must_use]
pub fn of_window(
    client: &Client,
    window: TimeDelta,
    now: DateTime<Utc>,
) -> GetMetricDataFluentBuilder {
    let time = |at: DateTime<Utc>| SdkDateTime::from_secs(at.timestamp());
    let request = client.get_metric_data().start_time(time(now - window));
    request.end_time(time(now))
}

/// A query, called `id`, for a metric's sums by minute. A dimension is a name and a value.
#[must_use]
pub fn sums(
    id: &str,
    namespace: &str,
    metric: &str,
    dimensions: &[(&str, &str)],
) -> MetricDataQuery {
    let dimensions = dimensions
        .iter()
        .map(|(name, value)| Dimension::builder().name(*name).value(*value).build());
    let metric = Metric::builder()
        .namespace(namespace)
        .metric_name(metric)
        .set_dimensions(Some(dimensions.collect()))
        .build();
    let stat = MetricStat::builder()
        .metric(metric)
        .period(60)
        .stat("Sum")
        .build();
    MetricDataQuery::builder().id(id).metric_stat(stat).build()
}

/// The query for what an alarm on one metric goes by.
#[must_use]
pub fn of_alarm(alarm: &MetricAlarm) -> MetricDataQuery {
    let metric = Metric::builder()
        .set_namespace(alarm.namespace().map(str::to_owned))
        .set_metric_name(alarm.metric_name().map(str::to_owned))
        .set_dimensions(Some(alarm.dimensions().to_vec()))
        .build();
    let statistic = alarm.statistic().map(Statistic::as_str);
    let statistic = statistic.or(alarm.extended_statistic());
    let stat = MetricStat::builder()
        .metric(metric)
        .set_period(alarm.period())
        .set_stat(statistic.map(str::to_owned))
        .set_unit(alarm.unit().cloned())
        .build();
    MetricDataQuery::builder()
        .id("alarm")
        .metric_stat(stat)
        .build()
}

/// The beginnings of periods with their values, the oldest first.
#[must_use]
pub fn values<'a>(
    results: impl IntoIterator<Item = &'a MetricDataResult>,
) -> Vec<(DateTime<Utc>, f64)> {
    let results = results.into_iter();
    let values = results.flat_map(|result| {
        let at = result.timestamps().iter().map(SdkDateTime::secs);
        at.zip(result.values().iter().copied())
    });
    let mut values: Vec<_> = values
        .filter_map(|(at, value)| Some((DateTime::from_timestamp(at, 0)?, value)))
        .collect();
    values.sort_by_key(|(at, _)| *at);
    values
}

/// What an answer lacks: a decision on a part of the numbers would be a guess.
#[must_use]
pub fn missing(answer: &GetMetricDataOutput) -> Option<String> {
    let mut results = answer.metric_data_results().iter();
    let incomplete = results.find_map(|result| {
        let status = result
            .status_code()
            .filter(|status| **status != StatusCode::Complete)?;
        Some(format!("{}: {status}", result.id().unwrap_or_default()))
    });
    incomplete.or_else(|| {
        let more = answer.next_token();
        more.map(|_| "NextToken: more to come".to_owned())
    })
}

/// The sum of a query's values, for what is counted.
#[must_use]
pub fn sum(answer: &GetMetricDataOutput, id: &str) -> u64 {
    let results = answer.metric_data_results().iter();
    let values = results
        .filter(|result| result.id() == Some(id))
        .flat_map(MetricDataResult::values);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Counts.
    let sum = values.sum::<f64>().round() as u64;
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_sums_by_minute() {
        let query = sums("errors", "AWS/Lambda", "Errors", &[("FunctionName", "f")]);
        let stat = query.metric_stat().unwrap();
        assert_eq!((query.id(), stat.stat()), (Some("errors"), Some("Sum")));
        assert_eq!(stat.period(), Some(60));
        let metric = stat.metric().unwrap();
        assert_eq!(metric.namespace(), Some("AWS/Lambda"));
        assert_eq!(metric.metric_name(), Some("Errors"));
        let function = Dimension::builder().name("FunctionName").value("f").build();
        assert_eq!(metric.dimensions(), [function]);
    }

    #[test]
    fn numbers_that_are_not_all_there_are_told() {
        let result = |status: Option<StatusCode>| {
            let counted = MetricDataResult::builder().id("requests").values(3.0);
            let counted = counted.values(4.0).set_status_code(status).build();
            GetMetricDataOutput::builder().metric_data_results(counted)
        };
        for status in [None, Some(StatusCode::Complete)] {
            let whole = result(status).build();
            assert_eq!(missing(&whole), None);
            assert_eq!((sum(&whole, "requests"), sum(&whole, "errors")), (7, 0));
        }
        for status in [
            StatusCode::PartialData,
            StatusCode::InternalError,
            StatusCode::Forbidden,
        ] {
            let told = missing(&result(Some(status.clone())).build()).unwrap();
            assert_eq!(told, format!("requests: {status}"));
        }
        let more = result(Some(StatusCode::Complete)).next_token("more");
        assert!(missing(&more.build()).unwrap().contains("NextToken"));
    }
}
