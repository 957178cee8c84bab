//! An alias that points to a bad version: off the canary, back to a good version, once, whoever interferes or dies.

use std::collections::BTreeSet;

use aws_sdk_cloudwatch::types::StateValue;
use chrono::{DateTime, TimeDelta, Utc};
use end_to_end::Result;
use end_to_end::alias::{ALIAS, Guarded, Pointing, code};
use end_to_end::case::AFTER_A_DEATH;
use end_to_end::failure::{During as _, Failure, each, ensure};
use end_to_end::proxy::{Death, Fault, Hold, Phase, Proxy, Reply, Rule};
use end_to_end::replay::is;
use end_to_end::world::{World, alarm_event, scenario, scheduled};
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::clock::Clock;

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
const AT_ONCE: usize = 6;

/// Three versions, of which the first served well, and the third has the traffic and fails.
async fn promoted<'a>(world: &'a World, proxy: &Proxy) -> Result<Guarded<'a>> {
    let codes = [code("one"), code("two"), code("three")];
    let guarded = Guarded::new(world, RUN_ONCE, &codes).await?;
    guarded.attested("1", proxy).await?;
    fails(&guarded, None).await?;
    Ok(guarded)
}

/// Two versions, of which the second has a tenth of the traffic and fails.
async fn with_canary(world: &World) -> Result<Guarded<'_>> {
    let codes = [code("one"), code("two")];
    let guarded = Guarded::new(world, RUN_ONCE, &codes).await?;
    guarded.canary_fails().await?;
    Ok(guarded)
}

async fn fails(guarded: &Guarded<'_>, version: Option<&str>) -> Result {
    guarded.served(version, 100, 40, lately()).await
}

/// Within every window that ends now.
fn lately() -> DateTime<Utc> {
    Clock::system().now() - TimeDelta::seconds(20)
}

#[tokio::test]
async fn a_bad_canary_loses_its_weight() -> Result {
    scenario("canary", async |world| {
        let guarded = with_canary(world).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(
            &report,
            "Applied",
            "read back: version 1, no other version has a weight",
        )?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        assert_eq!(world.told("blamed").await?, 1);
        let drift = report["notes"][0].as_str().unwrap_or_default();
        assert!(
            drift.contains("still takes version 2 for the right one"),
            "{drift}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_bad_promoted_version_gives_way_to_the_attested_one() -> Result {
    scenario("promoted", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let mut guarded = promoted(world, &proxy).await?;
        guarded
            .set("smoke_test", json!({"payload": {"smoke": true}}))
            .await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "points to version 1 alone")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        assert_eq!(proxy.calls("lambda:Invoke").len(), 1);

        // The alarm's return to OK never rolls forward.
        let ok = alarm_event(&guarded.alarm, "ALARM", "OK", Clock::system().now());
        world
            .set_alarm(
                &guarded.alarm.name,
                aws_sdk_cloudwatch::types::StateValue::Ok,
            )
            .await?;
        let report = guarded.run(&proxy).on(&ok).finish().await?.report()?;
        is(&report, "AlreadyInPlace", "nothing temporary is in place")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        Ok(())
    })
    .await
}

/// Both versions have the same code, and Lambda is asked for the function by its ARN.
#[tokio::test]
async fn a_deployment_of_another_configuration_alone_is_rolled_back() -> Result {
    scenario("configured", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let mut guarded = Guarded::new(world, RUN_ONCE, &[code("one")]).await?;
        guarded.attested("1", &proxy).await?;
        let version = guarded.reconfigured(&[("TABLE", "missing")]).await?;
        assert_eq!(version, "2");
        fails(&guarded, None).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "points to version 1 alone")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        let of_functions: Vec<_> = proxy
            .calls("lambda:*")
            .into_iter()
            .filter(|entry| entry.call.path.contains("/functions/"))
            .collect();
        assert!(of_functions.len() > 3, "{}", of_functions.len());
        for entry in of_functions {
            let path = &entry.call.path;
            assert!(path.contains("/functions/arn%3Aaws%3Alambda%3A"), "{path}");
        }
        Ok(())
    })
    .await
}

/// What failed may still be in the figures of a version that serves well by them.
#[tokio::test]
async fn nothing_is_attested_while_an_alarm_of_the_target_is_in_alarm() -> Result {
    scenario("unattested", async |world| {
        let guarded = Guarded::new(world, RUN_ONCE, &[code("one"), code("two")]).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        guarded.watched_in("1", StateValue::Alarm, &proxy).await?;
        fails(&guarded, None).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(
            &report,
            "Escalated",
            "no earlier version has been seen to serve well",
        )?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("2"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_version_that_was_deleted_or_has_the_bad_code_is_no_way_back() -> Result {
    scenario("no-way", async |world| {
        let codes = [code("one"), code("bad"), code("bad")];
        let guarded = Guarded::new(world, RUN_ONCE, &codes).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        guarded.attested("1", &proxy).await?;
        guarded.attested("2", &proxy).await?;
        fails(&guarded, None).await?;
        let deletion = world.aws.lambda.delete_function();
        let deletion = deletion.function_name(&guarded.function).qualifier("1");
        deletion.send().await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(
            &report,
            "Escalated",
            "version 2 has the same code and configuration, version 1 was deleted",
        )?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("3"));
        assert!(proxy.calls("lambda:UpdateAlias").is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn errors_of_both_versions_are_nobodys_canary() -> Result {
    scenario("both", async |world| {
        let guarded = with_canary(world).await?;
        guarded.served(Some("1"), 900, 800, lately()).await?;
        let before = guarded.pointing().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(
            &report,
            "Escalated",
            "the errors are not the new version's: both versions fail alike",
        )?;
        assert_eq!(guarded.pointing().await?, before);
        Ok(())
    })
    .await
}

/// Two versions, of which a deployment gives the second a tenth of the traffic, and it fails. Gives the deployment too.
async fn with_deployment(world: &World) -> Result<(Guarded<'_>, String)> {
    let mut guarded = with_canary(world).await?;
    let group = json!({"application": guarded.function, "group": ALIAS});
    guarded.set("codedeploy", group).await?;
    let deployment = guarded.deploys("1", "2").await?;
    Ok((guarded, deployment))
}

/// Lets the schedule look until the deployment's rollback has come to its end.
async fn rolls_back_by_itself(guarded: &Guarded<'_>, proxy: &Proxy) -> Result {
    let schedule = scheduled();
    for minutes in 2..5 {
        let look = guarded.run(proxy).on(&schedule);
        let look = look.later_by(TimeDelta::minutes(minutes)).finish().await?;
        let report = look.report()?;
        if report["outcome"] == "Applied" {
            is(&report, "Applied", "no other version has a weight")?;
            return ensure(guarded.pointing().await? == Pointing::alone("1"), || {
                "the alias is elsewhere".to_owned()
            });
        }
        is(&report, "Pending", "version 1")?;
    }
    Err(Failure::new("never back"))
}

/// The deployments that were told to stop.
fn stopped(proxy: &Proxy) -> BTreeSet<String> {
    let stops = proxy.calls("codedeploy:StopDeployment");
    stops
        .iter()
        .map(|entry| entry.call.json()["deploymentId"].to_string())
        .collect()
}

#[tokio::test]
async fn the_canary_of_a_deployment_is_left_to_the_deployments_own_rollback() -> Result {
    scenario("deployment", async |world| {
        let (guarded, deployment) = with_deployment(world).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(
            &report,
            "Pending",
            &format!("{deployment} was told to stop and to roll back"),
        )?;
        let stops = proxy.calls("codedeploy:StopDeployment");
        assert_eq!(stops.len(), 1);
        assert_eq!(stops[0].call.json()["autoRollbackEnabled"], true);
        rolls_back_by_itself(&guarded, &proxy).await?;
        assert!(proxy.calls("lambda:UpdateAlias").is_empty());
        Ok(())
    })
    .await
}

/// Without a rollback of its own, a stopped deployment leaves the canary's share where it is (AWS `CodeDeploy` User Guide,
/// "Troubleshoot AWS Lambda deployment issues").
#[tokio::test]
async fn a_stopped_deployment_that_takes_nothing_back_ends_with_the_good_version() -> Result {
    scenario("left-behind", async |world| {
        let (guarded, deployment) = with_deployment(world).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let stopped = world.aws.codedeploy.stop_deployment();
        stopped.deployment_id(&deployment).send().await?;
        // It was in flight when it was looked at.
        let listed = json!({"deployments": [deployment]}).to_string();
        let listed = Fault::Reply(Reply::success(200, listed));
        proxy.inject(Rule::new("codedeploy:ListDeployments", listed).first(1));
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "was told to stop")?;
        let look = guarded.run(&proxy).on(&scheduled());
        let look = look.later_by(TimeDelta::minutes(2)).finish().await?;
        is(
            &look.report()?,
            "Applied",
            "has ended (Stopped) and left the alias at version 1; the schedule points it to version 1 alone",
        )?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        assert_eq!(proxy.calls("lambda:UpdateAlias").len(), 1);
        Ok(())
    })
    .await
}

/// Partial batch failures are no errors of the function; its event source mapping counts them. The emulator's mappings have
/// no metrics (AWS Lambda API Reference, "`ListEventSourceMappings`" and "`EventSourceMappingMetricsConfig`").
#[tokio::test]
async fn events_that_were_not_processed_lead_back() -> Result {
    scenario("batches", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let codes = [code("one"), code("two")];
        let mut guarded = Guarded::new(world, RUN_ONCE, &codes).await?;
        guarded.attested("1", &proxy).await?;
        guarded.set("blame", json!({"event_sources": true})).await?;
        let mapping = |uuid: &str, metrics: &[&str]| {
            json!({
                "UUID": uuid,
                "EventSourceArn": format!("arn:aws:sqs:eu-west-1:123456789012:{uuid}"),
                "State": "Enabled",
                "MetricsConfig": {"Metrics": metrics},
            })
        };
        let counted = format!("{}-queue", guarded.function);
        let mappings = [mapping(&counted, &["EventCount"]), mapping("silent", &[])];
        let listed = json!({"EventSourceMappings": mappings}).to_string();
        let listed = Fault::Reply(Reply::success(200, listed));
        proxy.inject(Rule::new("lambda:ListEventSourceMappings", listed));
        let now = Clock::system().now();
        for (minutes, failed) in [(-20, 0), (-10, 0), (1, 60)] {
            let at = now + TimeDelta::minutes(minutes);
            let dimensions = [("EventSourceMappingUUID", counted.as_str())];
            let figures = [
                ("InvokedEventCount", 100),
                ("FailedInvokeEventCount", failed),
            ];
            guarded.counted(&dimensions, &figures, at).await?;
            guarded.served(None, 100, 0, at).await?;
        }
        let look = guarded.run(&proxy).later_by(TimeDelta::minutes(2));
        let report = look.finish().await?.report()?;
        is(&report, "Applied", "points to version 1 alone")?;
        let told = format!("60 of 100 events of arn:aws:sqs:eu-west-1:123456789012:{counted}");
        is(&report, "Applied", &told)?;
        is(
            &report,
            "Applied",
            "123456789012:silent has no EventCount metrics",
        )
    })
    .await
}

#[tokio::test]
async fn a_canary_that_takes_longer_loses_its_weight() -> Result {
    scenario("slow", async |world| {
        let codes = [code("one"), code("two")];
        let mut guarded = Guarded::new(world, RUN_ONCE, &codes).await?;
        guarded
            .set("blame", json!({"duration": {"times": 2}}))
            .await?;
        guarded.point(&Pointing::with_canary("1", "2", 0.1)).await?;
        let resource = format!("{}:{ALIAS}", guarded.function);
        for (version, invocations, milliseconds) in [("1", 900, 900 * 120), ("2", 100, 100 * 300)] {
            guarded
                .served(Some(version), invocations, 0, lately())
                .await?;
            let dimensions = [
                ("FunctionName", guarded.function.as_str()),
                ("Resource", resource.as_str()),
                ("ExecutedVersion", version),
            ];
            let took = [("Duration", milliseconds)];
            guarded.counted(&dimensions, &took, lately()).await?;
        }
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "2.5 times as long as version 1")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        Ok(())
    })
    .await
}

/// The third version fails, and the way back to the first is gone in steps.
async fn in_steps<'a>(world: &'a World, percents: &[u8]) -> Result<Guarded<'a>> {
    let proxy = Proxy::start(&world.cloud).await?;
    let mut guarded = promoted(world, &proxy).await?;
    let shift = json!({"percents": percents, "step_seconds": 60});
    guarded.set("shift", shift).await?;
    Ok(guarded)
}

/// What both versions serve some minutes after the alarm: invocations and errors of the bad and of the good one.
async fn both_serve(guarded: &Guarded<'_>, minutes: i64, served: [(u32, u32); 2]) -> Result {
    let at = Clock::system().now() + TimeDelta::minutes(minutes);
    for (version, (invocations, errors)) in ["3", "1"].into_iter().zip(served) {
        let version = Some(version);
        guarded.served(version, invocations, errors, at).await?;
    }
    Ok(())
}

/// The look of the schedule some minutes after the alarm.
async fn looks(guarded: &Guarded<'_>, proxy: &Proxy, minutes: i64) -> Result<Value> {
    let look = guarded.run(proxy).on(&scheduled());
    let look = look.later_by(TimeDelta::minutes(minutes)).finish();
    look.await?.report()
}

/// The alarm recovers with the good version's first shares, and the bad version still fails the rest.
#[tokio::test]
async fn a_way_back_in_steps_is_gone_to_its_end_by_what_both_versions_serve() -> Result {
    scenario("steps", async |world| {
        let mut guarded = in_steps(world, &[10, 50, 100]).await?;
        guarded.set("smoke_test", json!({"payload": {}})).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "gives version 1 10 % of the traffic")?;
        let share = |share| Pointing::with_canary("3", "1", share);
        assert_eq!(guarded.pointing().await?, share(0.1));

        // Another alarm on the alias leaves the run its way.
        let again = Clock::system().now() + TimeDelta::seconds(1);
        let event = alarm_event(&guarded.alarm, "OK", "ALARM", again);
        let second = guarded.run(&proxy).on(&event);
        let second = second.later_by(TimeDelta::seconds(90)).finish().await?;
        is(
            &second.report()?,
            "Pending",
            "goes back from version 3 to 1 in steps already",
        )?;

        let report = looks(&guarded, &proxy, 2).await?;
        is(&report, "Pending", "too little to compare yet")?;
        both_serve(&guarded, 3, [(900, 300), (100, 1)]).await?;
        world.set_alarm(&guarded.alarm.name, StateValue::Ok).await?;
        let report = looks(&guarded, &proxy, 5).await?;
        is(&report, "Pending", "gives version 1 50 % of the traffic")?;
        assert_eq!(guarded.pointing().await?, share(0.5));
        assert_eq!(proxy.calls("lambda:Invoke").len(), 0);

        both_serve(&guarded, 7, [(500, 200), (500, 2)]).await?;
        let report = looks(&guarded, &proxy, 10).await?;
        is(&report, "Applied", "points to version 1 alone")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        assert_eq!(proxy.calls("lambda:UpdateAlias").len(), 3);
        assert_eq!(proxy.calls("lambda:Invoke").len(), 1);
        assert_eq!(world.told("blamed").await?, 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_way_back_that_does_no_better_is_undone() -> Result {
    scenario("no-better", async |world| {
        let guarded = in_steps(world, &[10, 100]).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "gives version 1 10 % of the traffic")?;
        both_serve(&guarded, 2, [(900, 300), (100, 40)]).await?;
        let report = looks(&guarded, &proxy, 5).await?;
        is(
            &report,
            "Escalated",
            "40 errors in 100 invocations (40.0 %); version 3: 300 errors",
        )?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("3"));
        let again = Clock::system().now() + TimeDelta::minutes(6);
        let event = alarm_event(&guarded.alarm, "OK", "ALARM", again);
        let second = guarded.run(&proxy).on(&event);
        let second = second.later_by(TimeDelta::minutes(6)).finish().await?;
        is(
            &second.report()?,
            "Skipped",
            "which was undone, in this incident already",
        )?;
        assert_eq!(proxy.calls("lambda:UpdateAlias").len(), 2);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_human_who_goes_elsewhere_between_two_steps_has_the_last_word() -> Result {
    scenario("steps-human", async |world| {
        let guarded = in_steps(world, &[10, 100]).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "gives version 1 10 % of the traffic")?;
        let elsewhere = Pointing::alone("2");
        guarded.point(&elsewhere).await?;
        let report = looks(&guarded, &proxy, 5).await?;
        is(&report, "Escalated", "another hand changed")?;
        assert_eq!(guarded.pointing().await?, elsewhere);
        assert_eq!(proxy.calls("lambda:UpdateAlias").len(), 1);
        Ok(())
    })
    .await
}

/// Whoever is quicker than a step ends the way back, and what is remembered of it holds up no later rollback.
#[tokio::test]
async fn a_human_who_is_quicker_than_a_later_step_ends_the_way_back() -> Result {
    scenario("steps-quicker", async |world| {
        let guarded = in_steps(world, &[10, 100]).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "gives version 1 10 % of the traffic")?;
        both_serve(&guarded, 3, [(900, 300), (100, 1)]).await?;
        let hold = Hold::default();
        proxy.inject(Rule::new("lambda:UpdateAlias", Fault::Hold(hold.clone())).first(1));
        let elsewhere = Pointing::alone("2");
        let human = async {
            hold.arrived(1).await?;
            let moved = guarded.point(&elsewhere).await;
            hold.release();
            moved
        };
        let (report, moved) = tokio::join!(looks(&guarded, &proxy, 5), human);
        moved?;
        is(&report?, "Escalated", "another hand changed")?;
        assert_eq!(guarded.pointing().await?, elsewhere);
        let again = Clock::system().now() + TimeDelta::minutes(6);
        let event = alarm_event(&guarded.alarm, "OK", "ALARM", again);
        let second = guarded.run(&proxy).on(&event);
        let second = second.later_by(TimeDelta::minutes(6)).finish().await?;
        is(
            &second.report()?,
            "Skipped",
            "on its way back from version 3 to 1, and left there, in this incident already",
        )?;
        Ok(())
    })
    .await
}

/// A function that answers its callers with a server error, as behind an API, does not fail by Lambda's own figures.
#[tokio::test]
async fn a_server_error_in_the_answer_fails_the_smoke_test() -> Result {
    scenario("smoke-status", async |world| {
        let failing =
            "def handle(event, context):\n    return {'statusCode': 503, 'body': 'no database'}\n";
        let codes = [failing.to_owned(), code("two")];
        let mut guarded = Guarded::new(world, RUN_ONCE, &codes).await?;
        guarded.set("smoke_test", json!({"payload": {}})).await?;
        guarded.canary_fails().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Escalated", "it answers with status 503")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        Ok(())
    })
    .await
}

/// Stopping it would leave the canary's share where it is.
#[tokio::test]
async fn a_rollback_that_is_under_way_is_left_alone() -> Result {
    scenario("rolling", async |world| {
        let (guarded, deployment) = with_deployment(world).await?;
        let stop = world.aws.codedeploy.stop_deployment();
        stop.deployment_id(&deployment)
            .auto_rollback_enabled(true)
            .send()
            .await?;
        let before = guarded.pointing().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "AlreadyInPlace", "takes the alias back already")?;
        assert!(stopped(&proxy).is_empty());
        assert!(proxy.calls("lambda:UpdateAlias").is_empty());
        assert_eq!(guarded.pointing().await?, before);
        Ok(())
    })
    .await
}

/// A human moves the alias after it was observed: the revision is another, and a fresh look decides.
#[tokio::test]
async fn a_human_who_is_quicker_has_the_last_word() -> Result {
    scenario("human", async |world| {
        let guarded = with_canary(world).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let hold = Hold::default();
        proxy.inject(Rule::new("lambda:UpdateAlias", Fault::Hold(hold.clone())).first(1));
        let human = async {
            hold.arrived(1).await?;
            let moved = guarded.point(&Pointing::alone("1")).await;
            hold.release();
            moved
        };
        let (ended, moved) = tokio::join!(guarded.run(&proxy).finish(), human);
        moved?;
        // The human did what the plan would have: the run finds it there.
        is(&ended?.report()?, "Applied", "version 1")?;
        assert_eq!(proxy.calls("lambda:UpdateAlias").len(), 1);
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_human_who_goes_elsewhere_is_followed_by_a_new_plan() -> Result {
    scenario("elsewhere", async |world| {
        let guarded = with_canary(world).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let hold = Hold::default();
        proxy.inject(Rule::new("lambda:UpdateAlias", Fault::Hold(hold.clone())).first(1));
        let more = Pointing::with_canary("1", "2", 0.5);
        let human = async {
            hold.arrived(1).await?;
            let moved = guarded.point(&more).await;
            hold.release();
            moved
        };
        let (ended, moved) = tokio::join!(guarded.run(&proxy).finish(), human);
        moved?;
        is(&ended?.report()?, "Applied", "version 1 alone")?;
        assert_eq!(proxy.calls("lambda:UpdateAlias").len(), 2);
        assert_eq!(world.told("replanned").await?, 1);
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_incident_sees_one_rollback_however_often_the_alarm_comes() -> Result {
    scenario("once", async |world| {
        let guarded = with_canary(world).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let reports = join_all((0..16).map(|_| guarded.run(&proxy).finish())).await;
        let mut acted = 0;
        for ended in reports {
            let report = ended?.report()?;
            acted += usize::from(report["outcome"] == "Applied" && report["duplicate"] == false);
        }
        assert_eq!(acted, 1);
        assert_eq!(proxy.calls("lambda:UpdateAlias").len(), 1);

        // The same alarm once more, without an OK between, while another canary fails.
        let again = Pointing::with_canary("1", "2", 0.1);
        guarded.point(&again).await?;
        let later = Clock::system().now() + TimeDelta::seconds(1);
        let event = alarm_event(&guarded.alarm, "OK", "ALARM", later);
        let report = guarded.run(&proxy).on(&event).finish().await?.report()?;
        is(&report, "Skipped", "in this incident already")?;
        assert_eq!(guarded.pointing().await?, again);
        Ok(())
    })
    .await
}

/// Nothing was to blame while the alarm came and went; when something is, it has come too often for a rollback.
#[tokio::test]
async fn a_flapping_alarm_is_left_to_a_human() -> Result {
    scenario("flapping", async |world| {
        let mut guarded = with_canary(world).await?;
        guarded.policy["targets"][0]["guard"]["flap"] = json!({"transitions": 2});
        world.put_policy(&guarded.policy).await?;
        let canary = guarded.pointing().await?;
        let alone = Pointing::alone("1");
        let proxy = Proxy::start(&world.cloud).await?;
        for (minutes, pointing) in [(0, &alone), (2, &alone), (4, &canary)] {
            guarded.point(pointing).await?;
            let later = TimeDelta::minutes(minutes);
            let at = Clock::system().now() + later;
            let states = [
                ("OK", "ALARM", StateValue::Alarm),
                ("ALARM", "OK", StateValue::Ok),
            ];
            for (before, state, value) in states {
                world.set_alarm(&guarded.alarm.name, value).await?;
                let event = alarm_event(&guarded.alarm, before, state, at);
                let run = guarded.run(&proxy).on(&event).later_by(later);
                let report = run.finish().await?.report()?;
                match (state, minutes) {
                    ("ALARM", 4) => is(&report, "Escalated", "went to ALARM 3 times")?,
                    ("ALARM", _) => is(&report, "Pending", "")?,
                    _ => is(&report, "AlreadyInPlace", "back to OK")?,
                }
            }
        }
        assert!(proxy.calls("lambda:UpdateAlias").is_empty());
        assert_eq!(guarded.pointing().await?, canary);
        Ok(())
    })
    .await
}

/// The alarm comes once; the schedule looks again until there is enough to tell.
#[tokio::test]
async fn a_canary_that_served_little_is_looked_at_again() -> Result {
    scenario("early", async |world| {
        let codes = [code("one"), code("two")];
        let guarded = Guarded::new(world, RUN_ONCE, &codes).await?;
        let canary = Pointing::with_canary("1", "2", 0.1);
        guarded.point(&canary).await?;
        guarded.served(Some("1"), 900, 1, lately()).await?;
        guarded.served(Some("2"), 12, 5, lately()).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "served too little")?;
        let look = guarded.run(&proxy).on(&scheduled());
        let early = look.clone().finish().await?.response()?;
        assert_eq!(early["reports"], json!([]), "nothing new is known");
        assert_eq!(world.waiting().await?.len(), 1);
        fails(&guarded, Some("2")).await?;
        let late = look.clone().request_id("late").finish().await?;
        is(&late.report()?, "Applied", "version 1 alone")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        let over = look.request_id("over").finish().await?;
        assert_eq!(over.response()?["reports"], json!([]));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_was_too_early_to_tell_is_forgotten_with_the_alarm() -> Result {
    scenario("early-over", async |world| {
        let codes = [code("one"), code("two")];
        let guarded = Guarded::new(world, RUN_ONCE, &codes).await?;
        guarded.served(None, 12, 5, lately()).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "served too little")?;
        world.set_alarm(&guarded.alarm.name, StateValue::Ok).await?;
        let look = guarded.run(&proxy).on(&scheduled());
        let look = look.finish().await?.response()?;
        assert_eq!(look["reports"], json!([]), "there is nothing to wait for");
        assert_eq!(world.waiting().await?, []);
        Ok(())
    })
    .await
}

/// Lambda moves the weights itself while it allocates. The alarm comes once; the schedule looks again.
#[tokio::test]
async fn provisioned_concurrency_is_waited_for() -> Result {
    scenario("provisioned", async |world| {
        let guarded = with_canary(world).await?;
        let before = guarded.pointing().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let allocating = json!({
            "RequestedProvisionedConcurrentExecutions": 5,
            "AllocatedProvisionedConcurrentExecutions": 2,
            "Status": "IN_PROGRESS",
        });
        let reply = Fault::Reply(Reply::success(200, allocating.to_string()));
        proxy.inject(Rule::new("lambda:GetProvisionedConcurrencyConfig", reply).first(3));
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "is being allocated")?;
        // Longer than Lambda delivers an event again.
        for minutes in [1, 3] {
            let look = guarded.run(&proxy).on(&scheduled());
            let look = look.later_by(TimeDelta::minutes(minutes)).finish();
            let told = look.await?.response()?;
            assert_eq!(told["reports"], json!([]), "{told}");
            assert_eq!(guarded.pointing().await?, before);
        }
        let since = Clock::system().now() + TimeDelta::minutes(5);
        for (version, errors) in [("1", 1), ("2", 60)] {
            guarded.served(Some(version), 100, errors, since).await?;
        }
        let look = guarded.run(&proxy).on(&scheduled());
        let look = look.later_by(TimeDelta::minutes(6)).finish().await?;
        is(&look.report()?, "Applied", "version 1 alone")
    })
    .await
}

/// After the move Lambda itself leaves the traffic at the version before until the concurrency is allocated (AWS Lambda
/// Developer Guide, "Configuring provisioned concurrency for a function"); the emulator moves it at once.
#[tokio::test]
async fn traffic_that_lambda_leaves_where_it_was_is_waited_for_and_then_tried() -> Result {
    scenario("leaving", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let mut guarded = promoted(world, &proxy).await?;
        guarded.set("smoke_test", json!({"payload": {}})).await?;
        let status = |status: &str| {
            let config = json!({"RequestedProvisionedConcurrentExecutions": 5, "Status": status});
            Fault::Reply(Reply::success(200, config.to_string()))
        };
        let provisioned = "lambda:GetProvisionedConcurrencyConfig";
        proxy.inject(Rule::new(provisioned, status("READY")).first(1));
        proxy.inject(Rule::new(provisioned, status("IN_PROGRESS")).from(2));
        let leaving = json!({
            "Name": "live",
            "FunctionVersion": "1",
            "RevisionId": "rev-leaving",
            "RoutingConfig": {"AdditionalVersionWeights": {"3": 1.0}},
        });
        let leaving = Fault::Reply(Reply::success(200, leaving.to_string()));
        proxy.inject(Rule::new("lambda:GetAlias", leaving).from(2));
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(
            &report,
            "Pending",
            "keeps 100 % of the traffic at version 3",
        )?;
        assert_eq!(proxy.calls("lambda:Invoke").len(), 0);
        proxy.heal();
        let look = guarded.run(&proxy).on(&scheduled());
        let look = look.later_by(TimeDelta::minutes(3)).finish().await?;
        is(&look.report()?, "Applied", "version 1")?;
        assert_eq!(proxy.calls("lambda:Invoke").len(), 1);
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_smoke_test_that_fails_is_told_and_the_rollback_stands() -> Result {
    scenario("smoke", async |world| {
        let broken = "def handle(event, context):\n    raise ValueError('no database')\n";
        let codes = [broken.to_owned(), code("two")];
        let mut guarded = Guarded::new(world, RUN_ONCE, &codes).await?;
        guarded.set("smoke_test", json!({"payload": {}})).await?;
        guarded.canary_fails().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Escalated", "no database")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        assert_eq!(proxy.calls("lambda:Invoke").len(), 1);
        Ok(())
    })
    .await
}

/// The emulator's versions never sleep; the answers are those of AWS (AWS Lambda Developer Guide, "Lambda function states"
/// and "Troubleshooting `SnapStart` errors for Lambda functions").
fn version_1_is(state: &Value, looks: usize) -> Rule {
    let reply = Fault::Reply(Reply::success(200, state.to_string()));
    Rule::new("lambda:GetFunctionConfiguration", reply)
        .when(|call| call.path.contains("Qualifier=1"))
        .first(looks)
}

fn asleep() -> Value {
    json!({"Version": "1", "CodeSha256": "one", "State": "Inactive", "StateReasonCode": "Idle"})
}

/// The second look of the first attempt is that of the work.
const PLANNED_AND_BEGUN: usize = 2;

#[tokio::test]
async fn a_version_that_sleeps_is_woken_before_the_alias_moves() -> Result {
    scenario("asleep", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let mut guarded = promoted(world, &proxy).await?;
        guarded.set("smoke_test", json!({"payload": {}})).await?;
        proxy.inject(version_1_is(&asleep(), PLANNED_AND_BEGUN));
        let not_ready = Reply::error(409, "SnapStartNotReadyException", "is initializing");
        proxy.inject(Rule::new("lambda:Invoke", Fault::Reply(not_ready)).first(1));
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "points to version 1 alone")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        let invoked = proxy.calls("lambda:Invoke");
        assert_eq!(invoked.len(), 2, "once to wake it, once to try the alias");
        let moved = proxy.calls("lambda:UpdateAlias");
        assert!(invoked[0].call.number < moved[0].call.number);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_attempt_that_died_as_it_woke_a_version_is_taken_up() -> Result {
    scenario("asleep-death", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let mut guarded = promoted(world, &proxy).await?;
        guarded.set("smoke_test", json!({"payload": {}})).await?;
        proxy.inject(version_1_is(&asleep(), PLANNED_AND_BEGUN));
        let death = Death {
            action: "lambda:Invoke".to_owned(),
            nth: 1,
            phase: Phase::AfterEffect,
        };
        let run = guarded.run(&proxy);
        run.clone().dies_at(&proxy, &death).await?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("3"));
        let again = run.later_by(TimeDelta::minutes(1)).finish().await?;
        is(&again.report()?, "Applied", "points to version 1 alone")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_version_that_cannot_be_invoked_is_no_way_back() -> Result {
    scenario("unable", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let guarded = promoted(world, &proxy).await?;
        let failed = json!({
            "Version": "1",
            "CodeSha256": "one",
            "State": "Failed",
            "StateReasonCode": "InvalidSubnet",
            "StateReason": "The subnet is gone.",
        });
        proxy.inject(version_1_is(&failed, 1));
        let report = guarded.run(&proxy).finish().await?.report()?;
        let words = "version 1 is Failed (InvalidSubnet): The subnet is gone.";
        is(&report, "Escalated", words)?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("3"));
        assert!(proxy.calls("lambda:UpdateAlias").is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_version_that_is_pending_is_waited_for() -> Result {
    scenario("pending", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let guarded = promoted(world, &proxy).await?;
        let pending = json!({"Version": "1", "CodeSha256": "one", "State": "Pending"});
        proxy.inject(version_1_is(&pending, 1));
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "version 1, to go back to, is Pending")?;
        let look = guarded.run(&proxy).request_id("again");
        let look = look.later_by(TimeDelta::minutes(1)).finish().await?;
        is(&look.report()?, "Applied", "version 1 alone")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_answer_that_was_lost_is_looked_up() -> Result {
    scenario("lost", async |world| {
        let guarded = with_canary(world).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        proxy.inject(Rule::new("lambda:UpdateAlias", Fault::LoseAnswer).first(1));
        let report = guarded.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "version 1 alone")?;
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        Ok(())
    })
    .await
}

/// Where an undisturbed run can die.
async fn deaths(deployed: bool) -> Result<Vec<Death>> {
    let mut deaths = Vec::new();
    scenario("rollback-whole", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        if deployed {
            let (guarded, _) = with_deployment(world).await?;
            let report = guarded.run(&proxy).finish().await?.report()?;
            is(&report, "Pending", "told to stop")?;
        } else {
            let guarded = with_canary(world).await?;
            let report = guarded.run(&proxy).finish().await?.report()?;
            is(&report, "Applied", "version 1 alone")?;
        }
        deaths = proxy.deaths();
        Ok(())
    })
    .await?;
    ensure(deaths.len() > 20, || format!("{}", deaths.len()))?;
    Ok(deaths)
}

/// Dies, is retried, and is as if it had lived: told once, and remembered. Gives the retry's report.
async fn dies_and_is_retried(guarded: &Guarded<'_>, proxy: &Proxy, death: &Death) -> Result<Value> {
    let run = guarded.run(proxy);
    run.clone().dies_at(proxy, death).await?;
    let again = run.later_by(TimeDelta::minutes(1)).finish().await?;
    let report = again.report()?;
    let blamed = guarded.world.told("blamed").await?;
    ensure(blamed == 1, || format!("blamed {blamed} times"))?;
    let later = Clock::system().now() + TimeDelta::seconds(1);
    let event = alarm_event(&guarded.alarm, "OK", "ALARM", later);
    let again = guarded.run(proxy).on(&event).later_by(AFTER_A_DEATH);
    is(
        &again.finish().await?.report()?,
        "Skipped",
        "in this incident already",
    )?;
    Ok(report)
}

/// The rollback worked, so that the alarm is back at OK when the retry comes: what was done is told all the same.
#[tokio::test]
async fn a_death_is_survived_when_the_alarm_recovers_before_the_retry() -> Result {
    survives(false, async |death| {
        scenario("recovered", async |world| {
            let guarded = with_canary(world).await?;
            let before = guarded.pointing().await?;
            let proxy = Proxy::start(&world.cloud).await?;
            let run = guarded.run(&proxy);
            run.clone().dies_at(&proxy, death).await?;
            let moved = guarded.pointing().await? != before;
            world.set_alarm(&guarded.alarm.name, StateValue::Ok).await?;
            let again = run.later_by(TimeDelta::minutes(1)).finish().await?;
            let report = again.report()?;
            let blamed = world.told("blamed").await?;
            if moved {
                is(&report, "Applied", "version 1")?;
                ensure(blamed == 1, || format!("blamed {blamed} times"))
            } else {
                is(&report, "Skipped", "is in OK")?;
                ensure(guarded.pointing().await? == before, || {
                    "it moved".to_owned()
                })
            }
        })
        .await
    })
    .await
}

/// Whether the dead run had moved the alias cannot be told from what the human left.
#[tokio::test]
async fn a_human_after_a_death_has_the_last_word() -> Result {
    scenario("after-death", async |world| {
        let guarded = with_canary(world).await?;
        let before = guarded.pointing().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let death = Death {
            action: "lambda:UpdateAlias".to_owned(),
            nth: 1,
            phase: Phase::AfterEffect,
        };
        let run = guarded.run(&proxy);
        run.clone().dies_at(&proxy, &death).await?;
        guarded.point(&before).await?;
        let again = run.later_by(TimeDelta::minutes(1)).finish().await?;
        is(
            &again.report()?,
            "Escalated",
            "another hand has changed the alias",
        )?;
        assert_eq!(guarded.pointing().await?, before);
        assert_eq!(proxy.calls("lambda:UpdateAlias").len(), 1);
        Ok(())
    })
    .await
}

async fn survives(deployed: bool, test: impl AsyncFn(&Death) -> Result) -> Result {
    let test = &test;
    each(deaths(deployed).await?, AT_ONCE, async |death| {
        test(&death).await.during(&format!("{death:?}"))
    })
    .await
}

#[tokio::test]
async fn a_rollback_survives_death_at_every_request() -> Result {
    survives(false, async |death| {
        scenario("rollback-killed", async |world| {
            let guarded = with_canary(world).await?;
            let proxy = Proxy::start(&world.cloud).await?;
            let report = dies_and_is_retried(&guarded, &proxy, death).await?;
            is(&report, "Applied", "version 1 alone")?;
            ensure(guarded.pointing().await? == Pointing::alone("1"), || {
                "the alias is elsewhere".to_owned()
            })?;
            let mut moved = proxy.calls("lambda:UpdateAlias");
            moved.retain(|entry| entry.effect);
            ensure(moved.len() == 1, || format!("{moved:?}"))
        })
        .await
    })
    .await
}

/// The rollback that the dead run's order began is in flight when the retry comes, and goes on.
#[tokio::test]
async fn stopping_a_deployment_survives_death_at_every_request() -> Result {
    survives(true, async |death| {
        scenario("deployment-killed", async |world| {
            let (guarded, deployment) = with_deployment(world).await?;
            let proxy = Proxy::start(&world.cloud).await?;
            let report = dies_and_is_retried(&guarded, &proxy, death).await?;
            let stopped = stopped(&proxy);
            ensure(stopped == [json!(deployment).to_string()].into(), || {
                format!("stopped {stopped:?}")
            })?;
            // The dead run may have left nothing but the last look to the retry.
            if report["outcome"] == "Applied" {
                ensure(guarded.pointing().await? == Pointing::alone("1"), || {
                    report.to_string()
                })?;
            } else {
                is(&report, "Pending", "")?;
                rolls_back_by_itself(&guarded, &proxy).await?;
            }
            let moved = proxy.calls("lambda:UpdateAlias");
            ensure(moved.is_empty(), || format!("{moved:?}"))
        })
        .await
    })
    .await
}

/// Where the alarm's run and the look that ends a way back in steps can die.
async fn deaths_in_steps() -> Result<[Vec<Death>; 2]> {
    let mut deaths = [Vec::new(), Vec::new()];
    scenario("steps-whole", async |world| {
        let guarded = in_steps(world, &[10, 100]).await?;
        let first = Proxy::start(&world.cloud).await?;
        let report = guarded.run(&first).finish().await?.report()?;
        is(&report, "Pending", "gives version 1 10 %")?;
        both_serve(&guarded, 2, [(900, 300), (100, 1)]).await?;
        let second = Proxy::start(&world.cloud).await?;
        is(&looks(&guarded, &second, 5).await?, "Applied", "alone")?;
        deaths = [first.deaths(), second.deaths()];
        Ok(())
    })
    .await?;
    ensure(deaths.iter().all(|deaths| deaths.len() > 20), || {
        format!("{deaths:?}")
    })?;
    Ok(deaths)
}

/// Lets the schedule look until the way back has come to its end, at the good version, told once.
async fn comes_to_its_end(guarded: &Guarded<'_>, proxy: &Proxy, from: i64) -> Result {
    for minutes in (from..from + 40).step_by(5) {
        // What both serve in each share, whenever it was given.
        both_serve(guarded, minutes - 1, [(900, 300), (100, 1)]).await?;
        let look = guarded.run(proxy).on(&scheduled());
        let look = look.later_by(TimeDelta::minutes(minutes)).finish();
        look.await?.response()?;
        if guarded.pointing().await? == Pointing::alone("1") {
            let look = guarded.run(proxy).on(&scheduled());
            let look = look.later_by(TimeDelta::minutes(minutes + 5)).finish();
            look.await?.response()?;
            let told = guarded.world.told("blamed").await?;
            return ensure(told == 1, || format!("blamed {told} times"));
        }
    }
    Err(Failure::new("never at version 1"))
}

#[tokio::test]
async fn a_way_back_in_steps_survives_death_at_every_request() -> Result {
    let [first, second] = deaths_in_steps().await?;
    each(first, AT_ONCE, async |death| {
        scenario("steps-killed", async |world| {
            let guarded = in_steps(world, &[10, 100]).await?;
            let proxy = Proxy::start(&world.cloud).await?;
            let run = guarded.run(&proxy);
            run.clone().dies_at(&proxy, &death).await?;
            let again = run.later_by(TimeDelta::minutes(1)).finish().await?;
            let report = again.report()?;
            is(&report, "Pending", "version 1")?;
            comes_to_its_end(&guarded, &proxy, 5).await?;
            let mut moved = proxy.calls("lambda:UpdateAlias");
            moved.retain(|entry| entry.effect);
            ensure(moved.len() == 2, || format!("{} moves", moved.len()))
        })
        .await
        .during(&format!("{death:?}"))
    })
    .await?;
    each(second, AT_ONCE, async |death| {
        scenario("steps-ended", async |world| {
            let guarded = in_steps(world, &[10, 100]).await?;
            let proxy = Proxy::start(&world.cloud).await?;
            let report = guarded.run(&proxy).finish().await?.report()?;
            is(&report, "Pending", "gives version 1 10 %")?;
            both_serve(&guarded, 2, [(900, 300), (100, 1)]).await?;
            let dying = Proxy::start(&world.cloud).await?;
            let look = guarded.run(&dying).on(&scheduled());
            let look = look.later_by(TimeDelta::minutes(5));
            look.dies_at(&dying, &death).await?;
            comes_to_its_end(&guarded, &proxy, 10).await
        })
        .await
        .during(&format!("{death:?}"))
    })
    .await
}
