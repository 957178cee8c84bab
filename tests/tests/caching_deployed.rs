//! The deployed fallback to caching, IAM enforced: from a metric through the template's own rule, and no permission too
//! few or too many.

use std::time::Duration;

use aws_sdk_cloudwatch::types::StateValue;
use chrono::TimeDelta;
use end_to_end::Result;
use end_to_end::api::Staged;
use end_to_end::failure::{During as _, ensure};
use end_to_end::replay::is;
use end_to_end::stack::{RolePolicy, Stack, deployed};
use end_to_end::world::{Alarm, Queue, alarm_event, scheduled, wait_until};
use serde_json::{Value, json};
use shared::clock::Clock;

/// The remediation's name in the template.
const CACHE: &str = "CacheFallback";
/// How long it may take, from the metric on.
const CACHED: Duration = Duration::from_mins(2);

fn outcomes() -> Value {
    json!({"source": ["forgeguard"], "detail": {"remediation": ["cache-fallback"]}})
}

/// An API, the stack's alarm, and the role's policies for that API: the template's parameter cannot know its id.
async fn prepared<'a>(stack: &Stack<'a>) -> Result<(Staged<'a>, Alarm, Vec<RolePolicy>)> {
    let world = stack.world;
    let staged = Staged::new(world, "").await?;
    let alarm = world.cloud.output("ApiHigh5xxErrorRateAlarmName")?;
    let alarm = world.existing_alarm(alarm).await?;
    let deployed = stack.policy()?;
    let stage = deployed["targets"][0]["action"]["stage"].as_str();
    let stage = stage.during("the stage of the policy")?;
    let id = stage.split('/').nth(2).during(stage)?;
    let policies = stack.role_policies().iter().map(|policy| {
        let document = policy.document.to_string();
        let document = document.replace(&format!("/{id}"), &format!("/{}", staged.id));
        Ok(RolePolicy {
            name: policy.name.clone(),
            document: serde_json::from_str(&document)?,
        })
    });
    let policies = policies.collect::<Result<Vec<_>>>()?;
    stack.put_role_policies(&policies).await?;
    let mut policy = deployed.clone();
    policy["targets"][0]["action"] = staged.policy["targets"][0]["action"].clone();
    policy["targets"][0]["guard"]["cooldown_seconds"] = json!(0);
    // The rollback's word is told elsewhere.
    policy["targets"][0]["after"] = json!([]);
    stack.put_policy(&policy).await?;
    Ok((staged, alarm, policies))
}

#[tokio::test]
async fn server_errors_turn_the_cache_on_through_the_templates_rule() -> Result {
    deployed(CACHE, "cache-rule", async |stack| {
        let world = stack.world;
        let (staged, alarm, _) = prepared(stack).await?;
        let heard = world.listen("outcomes", &outcomes()).await?;
        stack.restart(None).await?;
        world.set_alarm(&alarm.name, StateValue::Ok).await?;
        stack.enable_rule().await?;
        staged.served(1_000, 400).await?;
        let outcome = world
            .heard(&heard, CACHED, |event| {
                event["detail"]["outcome"] != "Skipped"
            })
            .await?;
        is(&outcome["detail"], "Pending", "the cache cluster")?;
        assert!(staged.shown().await?.cluster);
        Ok(())
    })
    .await
}

/// The cache comes, is verified, and goes, from a cold start.
async fn comes_and_goes(
    stack: &Stack<'_>,
    staged: &Staged<'_>,
    alarm: &Alarm,
    heard: &Queue,
) -> Result {
    let world = stack.world;
    stack.clear().await?;
    world.drain(heard).await?;
    // What an earlier attempt without a permission left.
    if staged.shown().await?.cluster {
        staged.set(&[("/cacheClusterEnabled", "false")]).await?;
    }
    // The schedule looks each minute: an alarm of before is none of its business.
    world.set_alarm(&alarm.name, StateValue::Ok).await?;
    stack.restart(None).await?;
    // What is refused for good is noted while nobody holds the target.
    let stale = Clock::system().now() - TimeDelta::hours(2);
    let answer = stack
        .invoke(&alarm_event(alarm, "OK", "ALARM", stale))
        .await?;
    is(answer.report()?, "Skipped", "")?;
    staged.served(1_000, 400).await?;
    world.set_alarm(&alarm.name, StateValue::Alarm).await?;
    let event = alarm_event(alarm, "OK", "ALARM", Clock::system().now());
    let answer = stack.invoke(&event).await?;
    let report = answer.report()?;
    is(report, "Pending", "the cache cluster")?;
    let run = &report["causation_id"];
    world
        .heard(heard, Duration::from_secs(5), |event| {
            event["detail"]["causation_id"] == *run
        })
        .await?;
    // The deployed schedule may be quicker.
    wait_until("read back", Duration::from_secs(10), async || {
        stack.invoke(&scheduled()).await?;
        Ok((stack.told("applied").await? == 1).then_some(()))
    })
    .await?;
    world.set_alarm(&alarm.name, StateValue::Ok).await?;
    let event = alarm_event(alarm, "ALARM", "OK", Clock::system().now());
    let answer = stack.invoke(&event).await?;
    is(answer.report()?, "Applied", "as before")?;
    let shown = staged.shown().await?;
    ensure(!shown.cluster, || format!("{shown:?}"))?;
    ensure(stack.told("reverted").await? == 1, || {
        "the timeline does not show it".to_owned()
    })
}

#[tokio::test]
async fn each_permission_of_a_fallback_is_needed_and_none_is_missing() -> Result {
    deployed(CACHE, "cache-least", async |stack| {
        let (staged, alarm, policies) = prepared(stack).await?;
        let heard = stack.world.listen("outcomes", &outcomes()).await?;
        let work = async || comes_and_goes(stack, &staged, &alarm, &heard).await;
        stack.needs_each_permission(&policies, 12, work).await
    })
    .await
}
