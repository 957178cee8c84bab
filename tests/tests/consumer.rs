//! A replay and the consumer behind its destination: dead, failing, well again.

use std::time::Duration;

use aws_sdk_cloudwatch::primitives::DateTime as SdkDateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StateValue};
use chrono::TimeDelta;
use end_to_end::Result;
use end_to_end::case::{Case, told};
use end_to_end::failure::{During as _, each};
use end_to_end::message::Seed;
use end_to_end::replay::is;
use end_to_end::world::{Kind, World, scenario, scheduled};
use serde_json::json;
use shared::clock::Clock;

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
/// Later than any rest ends.
const LATER: TimeDelta = TimeDelta::minutes(2);

fn seeds(count: usize) -> Vec<Seed> {
    (0..count)
        .map(|n| Seed::new(format!("{{\"n\": {n}}}")))
        .collect()
}

/// A case whose canary is watched.
async fn watched<'a>(world: &'a World, seeds: &[Seed]) -> Result<Case<'a>> {
    let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
    let canary = json!({"messages": 5, "settle_seconds": 1});
    case.set("canary", canary).await?;
    world.dead_letter(&case.ingestion, seeds).await?;
    Ok(case)
}

#[tokio::test]
async fn a_dead_consumer_gets_the_canary_and_the_rest_follows_once_it_is_consumed() -> Result {
    scenario("dead-consumer", async |world| {
        let seeds = seeds(30);
        let case = watched(world, &seeds).await?;
        let proxy = case.proxy().await?;
        // A count that has not risen is not believed for a minute.
        let run = case.run(&proxy).time_left(Duration::from_secs(110));
        let held = run.finish().await?.report()?;
        is(&held, "Pending", "the canary of 5 messages")?;
        assert_eq!(told(&held)?.replayed(), 5, "{held}");

        // Looked at again and again, it gets no more, and that is told once.
        let look = case
            .run(&proxy)
            .on(&scheduled())
            .time_left(Duration::from_secs(110));
        let waits = look.clone().later_by(LATER).finish().await?;
        is(&waits.report()?, "Pending", "holds 5; 25 messages stay")?;
        let waits = look.clone().later_by(LATER).finish().await?;
        assert_eq!(waits.response()?["reports"], json!([]));
        assert_eq!(world.depth(&case.ingestion.dlq).await?.total(), 25);
        let mut consumed = world.drain(&case.ingestion.source).await?;
        assert_eq!(consumed.len(), 5);

        // The alarm is back at OK, and so is the consumer: a canary is tried again, and then the rest follows.
        world.set_alarm(&case.alarm.name, StateValue::Ok).await?;
        let rest = async { look.later_by(LATER * 2).finish().await?.report() };
        let (rest, taken) = world.consuming(&case.ingestion.source, rest).await?;
        is(&rest, "Applied", "received 30: replayed 30")?;
        consumed.extend(taken);
        let bodies = consumed.iter().map(|message| message.body.as_str());
        let seeded = seeds.iter().map(|seed| seed.body.as_str());
        end_to_end::message::Account::of(seeded, bodies).balanced()
    })
    .await
}

#[tokio::test]
async fn nothing_is_replayed_to_a_consumer_that_fails_and_all_of_it_after_the_recovery() -> Result {
    let alarms = [StateValue::Ok, StateValue::Alarm];
    each(alarms, 2, async |alarm| {
        consumer_recovers(alarm.clone())
            .await
            .during(alarm.as_str())
    })
    .await
}

/// The alarm of the queue goes to a state before the consumer is well.
async fn consumer_recovers(alarm: StateValue) -> Result {
    scenario("failing-consumer", async |world| {
        let seeds = seeds(12);
        let mut case = watched(world, &seeds).await?;
        let function = format!("{}-consumer", case.ingestion.source.name);
        let destinations =
            json!([{"arn": case.ingestion.source.arn, "consumer_function": function}]);
        case.set("destinations", destinations).await?;
        case.set("canary", json!({"messages": 5, "settle_seconds": 0}))
            .await?;
        fails(world, &function).await?;
        let proxy = case.proxy().await?;
        let held = case.run(&proxy).finish().await?.report()?;
        is(
            &held,
            "Pending",
            &format!("9 of 10 invocations of {function} failed"),
        )?;
        assert_eq!(world.depth(&case.ingestion.dlq).await?.total(), 12);

        // Neither what its alarm does nor a look at a consumer that still fails brings them back.
        world.set_alarm(&case.alarm.name, alarm).await?;
        let look = case.run(&proxy).on(&scheduled());
        look.clone().finish().await?;
        assert_eq!(world.depth(&case.ingestion.dlq).await?.total(), 12);
        assert_eq!(world.waiting().await?.len(), 1);

        // What the consumer failed at is some minutes ago.
        let rest = look.later_by(TimeDelta::minutes(10)).finish().await?;
        is(&rest.report()?, "Applied", "received 12: replayed 12")?;
        case.found().await?.replayed(&seeds).balanced()?;
        assert_eq!(world.waiting().await?, []);
        Ok(())
    })
    .await
}

/// Puts on record that nine of ten of a function's last invocations failed.
async fn fails(world: &World, function: &str) -> Result {
    let at = Clock::system().now() - TimeDelta::seconds(30);
    let name = Dimension::builder().name("FunctionName").value(function);
    let name = name.build();
    let data = [("Invocations", 10.0), ("Errors", 9.0)].map(|(metric, value)| {
        MetricDatum::builder()
            .metric_name(metric)
            .value(value)
            .timestamp(SdkDateTime::from_secs(at.timestamp()))
            .dimensions(name.clone())
            .build()
    });
    let cloudwatch = &world.aws.cloudwatch;
    let put = cloudwatch.put_metric_data().namespace("AWS/Lambda");
    put.set_metric_data(Some(data.into())).send().await?;
    Ok(())
}
