//! A stage that falls back to caching: only where it is safe and of use, and back exactly as it was, whoever interferes
//! or dies.

use aws_sdk_cloudwatch::types::StateValue;
use chrono::TimeDelta;
use end_to_end::Result;
use end_to_end::api::{Shown, Staged};
use end_to_end::failure::{During as _, each, ensure};
use end_to_end::proxy::{Death, Proxy};
use end_to_end::replay::{Run, is};
use end_to_end::world::{World, alarm_event, scenario, scheduled};
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::clock::Clock;

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
const AT_ONCE: usize = 6;
/// When the parts of a fallback that is killed start.
const STARTS: [TimeDelta; 3] = [
    TimeDelta::zero(),
    TimeDelta::minutes(2),
    TimeDelta::minutes(4),
];
/// Why `GET /orders` is not cached behind its authorizer.
const LACKS_THE_TOKEN: &str =
    "GET /orders cannot be cached: its cache key lacks method.request.header.X-Token";
/// The part in which the alarm is back at OK.
const RETURN: usize = 2;

/// An API of which two requests in five fail.
async fn failing(world: &World) -> Result<Staged<'_>> {
    let staged = Staged::new(world, RUN_ONCE).await?;
    staged.served(1_000, 400).await?;
    Ok(staged)
}

/// Runs on the alarm's event, and on the schedule until the cluster is there.
async fn cached(staged: &Staged<'_>, proxy: &Proxy) -> Result<Shown> {
    let report = staged.run(proxy).finish().await?.report()?;
    is(&report, "Pending", "the cache cluster")?;
    let looked = staged.run(proxy).on(&scheduled());
    let report = looked.clone().finish().await?.report()?;
    let report = if report["outcome"] == "Pending" {
        looked.request_id("another look").finish().await?.report()?
    } else {
        report
    };
    is(&report, "Applied", "cached: GET /orders")?;
    staged.shown().await
}

/// The alarm returns to OK.
async fn recovers(staged: &Staged<'_>, proxy: &Proxy) -> Result<Value> {
    let world = staged.world;
    world.set_alarm(&staged.alarm.name, StateValue::Ok).await?;
    let ok = alarm_event(&staged.alarm, "ALARM", "OK", Clock::system().now());
    staged.run(proxy).on(&ok).finish().await?.report()
}

/// Caches a stage, has a human at it, and lets the alarm recover; gives the stage before, cached, and afterwards.
async fn there_and_back(
    world: &World,
    before: &[(&str, &str)],
    human: &[(&str, &str)],
    words: &str,
) -> Result<(Shown, Shown, Shown)> {
    let staged = failing(world).await?;
    if !before.is_empty() {
        staged.set(before).await?;
    }
    let original = staged.shown().await?;
    let proxy = Proxy::start(&world.cloud).await?;
    let cached = cached(&staged, &proxy).await?;
    assert!(cached.cluster);
    if !human.is_empty() {
        staged.set(human).await?;
    }
    is(&recovers(&staged, &proxy).await?, "Applied", words)?;
    Ok((original, cached, staged.shown().await?))
}

#[tokio::test]
async fn a_stage_without_settings_has_none_afterwards() -> Result {
    scenario("no-settings", async |world| {
        let (original, cached, after) = there_and_back(world, &[], &[], "as before").await?;
        assert_eq!(cached.settings.len(), 2, "{cached:?}");
        assert!(original.settings.is_empty() && !original.cluster);
        assert_eq!(after, original);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn more_methods_than_one_call_takes_are_cached_and_put_back_in_several() -> Result {
    scenario("many-methods", async |world| {
        let mut staged = failing(world).await?;
        staged.many(9).await?;
        staged.set(&[("/*/*/throttling/burstLimit", "50")]).await?;
        let original = staged.shown().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = staged.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "the cache cluster")?;
        assert_eq!(proxy.calls("apigateway:UpdateStage").len(), 2);
        let cached = staged.shown().await?;
        assert!(cached.cluster);
        assert_eq!(cached.settings.len(), 10, "{cached:?}");
        let report = recovers(&staged, &proxy).await?;
        is(&report, "Applied", "as before")?;
        assert_eq!(staged.shown().await?, original);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn settings_that_were_there_come_back_exactly() -> Result {
    scenario("settings", async |world| {
        let before = [
            ("/*/*/throttling/burstLimit", "50"),
            ("/*/*/logging/loglevel", "ERROR"),
            ("/~1orders/GET/caching/ttlInSeconds", "60"),
            ("/~1orders/GET/metrics/enabled", "true"),
        ];
        let (original, cached, after) = there_and_back(world, &before, &[], "as before").await?;
        // A method with settings of its own would lose those of every method.
        let order = cached
            .settings
            .iter()
            .find(|(key, _)| key.contains("{id}"))
            .during("the order's settings")?
            .1;
        assert_eq!(order.throttling_burst_limit(), 50);
        assert_eq!(order.logging_level(), Some("ERROR"));
        assert_eq!(after, original);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_was_changed_by_hand_meanwhile_stays_and_is_told() -> Result {
    scenario("by-hand", async |world| {
        let human = [("/~1orders/GET/caching/ttlInSeconds", "30")];
        let words = "left alone: the caching of ~1orders/GET, which was changed";
        let (_, _, after) = there_and_back(world, &[], &human, words).await?;
        assert_eq!(after.settings.len(), 1, "{after:?}");
        let kept = after.settings.values().next().during("the human's")?;
        assert_eq!(kept.cache_ttl_in_seconds(), 30);
        assert!(after.cluster, "the human's caching needs the cluster");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_was_turned_off_by_hand_stays_off_when_the_alarm_comes_again() -> Result {
    scenario("turned-off", async |world| {
        let staged = failing(world).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        cached(&staged, &proxy).await?;
        staged.set(&[("/cacheClusterEnabled", "false")]).await?;
        let human = staged.shown().await?;
        world.set_alarm(&staged.alarm.name, StateValue::Ok).await?;
        world
            .set_alarm(&staged.alarm.name, StateValue::Alarm)
            .await?;
        let again = alarm_event(&staged.alarm, "OK", "ALARM", Clock::system().now());
        let report = staged.run(&proxy).on(&again).finish().await?.report()?;
        let words = "the cache cluster was changed by hand";
        is(&report, "AlreadyInPlace", words)?;
        assert_eq!(staged.shown().await?, human);
        is(&recovers(&staged, &proxy).await?, "Applied", "as before")?;
        let after = staged.shown().await?;
        assert!(!after.cluster && after.settings.is_empty(), "{after:?}");
        world.holds_no_snapshot().await
    })
    .await
}

/// Fails unless nothing is cached, because the cache key lacks what the authorizer reads.
async fn is_refused_for_the_token(staged: &Staged<'_>) -> Result {
    let proxy = Proxy::start(&staged.world.cloud).await?;
    let report = staged.run(&proxy).finish().await?.report()?;
    is(&report, "Escalated", LACKS_THE_TOKEN)?;
    assert!(proxy.calls("apigateway:UpdateStage").is_empty());
    Ok(())
}

#[tokio::test]
async fn a_method_behind_an_authorizer_is_refused_by_name() -> Result {
    scenario("authorizer", async |world| {
        let staged = failing(world).await?;
        staged.authorize().await?;
        staged.deploy().await?;
        is_refused_for_the_token(&staged).await
    })
    .await
}

/// The stage serves what was deployed, whatever the API looks like by now.
#[tokio::test]
async fn a_method_that_was_made_safe_but_not_deployed_is_refused() -> Result {
    scenario("edited-safe", async |world| {
        let staged = failing(world).await?;
        staged.authorize().await?;
        staged.deploy().await?;
        staged.open().await?;
        is_refused_for_the_token(&staged).await
    })
    .await
}

#[tokio::test]
async fn a_method_that_became_unsafe_but_was_not_deployed_is_cached() -> Result {
    scenario("edited-unsafe", async |world| {
        let staged = failing(world).await?;
        staged.authorize().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        assert!(cached(&staged, &proxy).await?.cluster);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_backend_that_answers_nothing_gets_no_cache() -> Result {
    scenario("dead", async |world| {
        let staged = Staged::new(world, RUN_ONCE).await?;
        staged.served(300, 300).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = staged.run(&proxy).finish().await?.report()?;
        is(&report, "Skipped", "raise the maintenance page")?;
        assert!(proxy.calls("apigateway:UpdateStage").is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_cache_expires_even_if_the_alarm_stays() -> Result {
    scenario("expires", async |world| {
        let mut staged = failing(world).await?;
        staged.policy["targets"][0]["action"]["term"] =
            json!({"expires_after_seconds": 60, "at_most_seconds": 120});
        world.put_policy(&staged.policy).await?;
        let original = staged.shown().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        cached(&staged, &proxy).await?;
        let late = staged.run(&proxy).on(&scheduled());
        let late = late.later_by(TimeDelta::minutes(3)).request_id("late");
        is(
            &late.finish().await?.report()?,
            "Escalated",
            "its term was over",
        )?;
        assert_eq!(staged.shown().await?, original);
        Ok(())
    })
    .await
}

/// The alarm is back at OK because of what the cache answers, while the rest still fails.
async fn kept(world: &World, term: Value) -> Result<(Staged<'_>, Proxy, Shown)> {
    let mut staged = failing(world).await?;
    let action = &mut staged.policy["targets"][0]["action"];
    action["recovered_below"] = json!(0.05);
    action["term"] = term;
    world.put_policy(&staged.policy).await?;
    let original = staged.shown().await?;
    let proxy = Proxy::start(&world.cloud).await?;
    cached(&staged, &proxy).await?;
    let words = "stays although the alarm is back to OK: of the 1000 requests in 300 s 0 were answered by the cache";
    is(&recovers(&staged, &proxy).await?, "Pending", words)?;
    assert!(staged.shown().await?.cluster);
    let timeline = world.timeline().await?;
    let tells = |line: &Value| {
        line["summary"]
            .as_str()
            .is_some_and(|it| it.contains(words))
    };
    ensure(timeline.iter().any(tells), || format!("{timeline:?}"))?;
    Ok((staged, proxy, original))
}

#[tokio::test]
async fn the_cache_stays_while_what_it_does_not_answer_fails_and_goes_when_that_is_over() -> Result
{
    scenario("kept", async |world| {
        let (staged, proxy, original) = kept(world, json!({"stabilisation_seconds": 0})).await?;
        let look = staged.run(&proxy).on(&scheduled());
        // It is told once an hour.
        let again = look.clone().finish().await?.response()?;
        assert_eq!(again["reports"], json!([]), "{again}");
        assert!(staged.shown().await?.cluster);
        let late = look.later_by(TimeDelta::minutes(6)).request_id("late");
        is(&late.finish().await?.report()?, "Applied", "as before")?;
        assert_eq!(staged.shown().await?, original);
        world.holds_no_snapshot().await
    })
    .await
}

#[tokio::test]
async fn the_cache_is_taken_away_at_the_end_of_its_term_although_the_rest_still_fails() -> Result {
    scenario("kept-to-the-end", async |world| {
        let term = json!({
            "stabilisation_seconds": 0, "expires_after_seconds": 60, "at_most_seconds": 120,
        });
        let (staged, proxy, original) = kept(world, term).await?;
        let late = staged.run(&proxy).on(&scheduled());
        let late = late.later_by(TimeDelta::minutes(3)).request_id("late");
        let report = late.finish().await?.report()?;
        is(
            &report,
            "Escalated",
            "others ended in a server error: the target is without it",
        )?;
        assert_eq!(report["rule"], "term_ended", "{report}");
        assert_eq!(staged.shown().await?, original);
        world.holds_no_snapshot().await
    })
    .await
}

/// Until something is over that is being done to the cluster, the stage is left alone.
#[tokio::test]
async fn a_cluster_that_is_still_being_made_is_taken_away_once_it_is_there() -> Result {
    scenario("not-made-yet", async |world| {
        let staged = failing(world).await?;
        let original = staged.shown().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = staged.run(&proxy).finish().await?.report()?;
        is(&report, "Pending", "the cache cluster")?;
        let report = recovers(&staged, &proxy).await?;
        let words = "stays although the alarm is back to OK: the cache cluster is being made";
        is(&report, "Pending", words)?;
        let look = staged.run(&proxy).on(&scheduled());
        is(&look.finish().await?.report()?, "Applied", "as before")?;
        assert_eq!(staged.shown().await?, original);
        world.holds_no_snapshot().await
    })
    .await
}

/// An API whose `GET /orders` may not be cached, and whose policy names limits for that.
async fn uncacheable(world: &World) -> Result<Staged<'_>> {
    let mut staged = failing(world).await?;
    staged.authorize().await?;
    staged.deploy().await?;
    let action = &mut staged.policy["targets"][0]["action"];
    action["throttle"] = json!({"rate_limit": 100, "burst_limit": 40});
    world.put_policy(&staged.policy).await?;
    Ok(staged)
}

#[tokio::test]
async fn what_may_not_be_cached_is_throttled_and_its_limits_come_back_exactly() -> Result {
    scenario("throttled", async |world| {
        let staged = uncacheable(world).await?;
        let before = [
            ("/*/*/logging/loglevel", "ERROR"),
            ("/~1orders/GET/throttling/burstLimit", "20"),
        ];
        staged.set(&before).await?;
        let original = staged.shown().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = staged.run(&proxy).finish().await?.report()?;
        is(
            &report,
            "Applied",
            "throttled: GET /orders, GET /orders/{id}",
        )?;
        let why = report["plan"]["why"].as_str().unwrap_or_default();
        assert!(
            why.contains("; throttled, not cached: GET /orders"),
            "{why}"
        );
        let throttled = staged.shown().await?;
        assert!(
            !throttled.cluster && throttled.settings.len() == 3,
            "{throttled:?}"
        );
        for (key, setting) in &throttled.settings {
            let own = key != "*/*";
            let burst = if key.contains("{id}") { 40 } else { 20 };
            assert!(
                !own || setting.throttling_burst_limit() == burst,
                "{key} {setting:?}"
            );
            let rate = setting.throttling_rate_limit();
            assert!(!own || rate.total_cmp(&100.0).is_eq(), "{key} {setting:?}");
            assert!(!setting.caching_enabled(), "{key} {setting:?}");
        }
        is(&recovers(&staged, &proxy).await?, "Applied", "as before")?;
        assert_eq!(staged.shown().await?, original);
        world.holds_no_snapshot().await
    })
    .await
}

#[tokio::test]
async fn a_limit_that_was_changed_by_hand_meanwhile_stays_and_is_told() -> Result {
    scenario("throttled-by-hand", async |world| {
        let staged = uncacheable(world).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        let report = staged.run(&proxy).finish().await?.report()?;
        is(&report, "Applied", "throttled")?;
        let human = [("/~1orders/GET/throttling/rateLimit", "7")];
        staged.set(&human).await?;
        let words = "left alone: the throttling of ~1orders/GET, which was changed";
        is(&recovers(&staged, &proxy).await?, "Applied", words)?;
        let after = staged.shown().await?;
        assert_eq!(after.settings.len(), 1, "{after:?}");
        let kept = after.settings.values().next().during("the human's")?;
        assert!(kept.throttling_rate_limit().total_cmp(&7.0).is_eq());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn of_sixteen_deliveries_one_turns_the_cache_on() -> Result {
    scenario("cache-once", async |world| {
        let staged = failing(world).await?;
        let proxy = Proxy::start(&world.cloud).await?;
        for ended in join_all((0..16).map(|_| staged.run(&proxy).finish())).await {
            ended?.report()?;
        }
        assert_eq!(proxy.calls("apigateway:UpdateStage").len(), 1);
        Ok(())
    })
    .await
}

/// What a fallback consists of: the alarm's event, a look of the schedule, and the event of the return to OK.
fn parts(staged: &Staged<'_>, proxy: &Proxy) -> [Run; 3] {
    let ok = Clock::system().now() + STARTS[RETURN];
    let ok = alarm_event(&staged.alarm, "ALARM", "OK", ok);
    let mut starts = STARTS.into_iter();
    [&staged.event, &scheduled(), &ok].map(|event| {
        let start = starts.next().unwrap_or_default();
        staged.run(proxy).on(event).later_by(start)
    })
}

/// A stage whose settings are not all defaults.
async fn with_settings(world: &World) -> Result<Staged<'_>> {
    let staged = failing(world).await?;
    let settings = [
        ("/*/*/throttling/burstLimit", "50"),
        ("/~1orders/GET/caching/ttlInSeconds", "60"),
    ];
    staged.set(&settings).await?;
    Ok(staged)
}

/// Where each part of an undisturbed fallback can die.
async fn deaths() -> Result<Vec<(usize, Death)>> {
    let mut deaths = Vec::new();
    scenario("cache-whole", async |world| {
        let staged = with_settings(world).await?;
        let first = Proxy::start(&world.cloud).await?;
        for (part, run) in parts(&staged, &first).into_iter().enumerate() {
            if part == RETURN {
                world.set_alarm(&staged.alarm.name, StateValue::Ok).await?;
            }
            let proxy = Proxy::start(&world.cloud).await?;
            run.through(&proxy).finish().await?.answer()?;
            deaths.extend(proxy.deaths().into_iter().map(|death| (part, death)));
        }
        Ok(())
    })
    .await?;
    Ok(deaths)
}

async fn kill(part: usize, death: &Death) -> Result {
    scenario("cache-killed", async |world| {
        let staged = with_settings(world).await?;
        let original = staged.shown().await?;
        let proxy = Proxy::start(&world.cloud).await?;
        for (index, run) in parts(&staged, &proxy).into_iter().enumerate() {
            if index == RETURN {
                let cached = staged.shown().await?;
                ensure(cached.cluster, || format!("{cached:?}"))?;
                world.set_alarm(&staged.alarm.name, StateValue::Ok).await?;
            }
            let run = if index == part {
                run.clone().dies_at(&proxy, death).await?;
                run.later_by(STARTS[index] + TimeDelta::minutes(1))
            } else {
                run
            };
            let response = run.finish().await?.response()?;
            let told = &response["reports"][0]["outcome"];
            ensure(told != "Failed" && told != "Escalated", || {
                response.to_string()
            })?;
        }
        // While a dead run may still hold the stage, nobody else takes back what is in place.
        let look = staged.run(&proxy).on(&scheduled()).request_id("last");
        let look = look.later_by(STARTS[RETURN] + TimeDelta::minutes(5));
        let told = look.finish().await?.response()?;
        // Or what a dead look left open is ended, since all was taken back meanwhile.
        let ended = told["reports"][0]["rule"] == "superseded";
        ensure(
            told["overall"] == "Applied" || told["reports"] == json!([]) || ended,
            || told.to_string(),
        )?;
        // The snapshot was of the stage before the first attempt.
        let after = staged.shown().await?;
        ensure(after == original, || format!("{after:?}"))?;
        world.holds_no_snapshot().await
    })
    .await
}

#[tokio::test]
async fn a_fallback_survives_death_at_every_request() -> Result {
    let cases = deaths().await?;
    assert!(cases.len() > 60, "{}", cases.len());
    each(cases, AT_ONCE, async |(part, death)| {
        let what = format!("part {part}, {death:?}");
        kill(part, &death).await.during(&what)
    })
    .await
}
