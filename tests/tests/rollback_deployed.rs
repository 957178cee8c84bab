//! The deployed rollback, IAM enforced: from a metric through the template's own rule to the alias, and no permission
//! too few or too many.

use std::time::Duration;

use aws_sdk_cloudwatch::types::StateValue;
use chrono::TimeDelta;
use end_to_end::Result;
use end_to_end::alias::{Guarded, Pointing, code};
use end_to_end::failure::{Failure, ensure};
use end_to_end::replay::is;
use end_to_end::stack::{Stack, deployed};
use end_to_end::world::{Queue, alarm_event, scheduled};
use serde_json::{Value, json};
use shared::clock::Clock;

/// The remediation's name in the template.
const ROLLBACK: &str = "AliasRollback";
/// How long a rollback may take, from the metric on.
const ROLLED_BACK: Duration = Duration::from_mins(2);

fn outcomes() -> Value {
    json!({"source": ["forgeguard"], "detail": {"remediation": ["alias-rollback"]}})
}

async fn guarded<'a>(stack: &Stack<'a>) -> Result<Guarded<'a>> {
    let codes = [code("one"), code("two")];
    Guarded::of_the_stack(stack.world, &codes).await
}

#[tokio::test]
async fn errors_of_the_alias_roll_it_back_through_the_templates_rule() -> Result {
    deployed(ROLLBACK, "rollback-rule", async |stack| {
        let world = stack.world;
        let guarded = guarded(stack).await?;
        let heard = world.listen("outcomes", &outcomes()).await?;
        guarded.canary_fails().await?;
        stack.restart(None).await?;
        // The emulator's alarms overlook dimensions, so that the versions' own figures have raised it already.
        world.set_alarm(&guarded.alarm.name, StateValue::Ok).await?;
        stack.enable_rule().await?;

        guarded
            .served(None, 1_000, 41, Clock::system().now())
            .await?;
        let outcome = world
            .heard(&heard, ROLLED_BACK, |event| {
                event["detail"]["outcome"] != "Skipped"
            })
            .await?;
        let report = &outcome["detail"];
        assert_eq!(report["outcome"], "Applied", "{report}");
        assert_eq!(guarded.pointing().await?, Pointing::alone("1"));
        Ok(())
    })
    .await
}

/// A rollback from a cold start; gives its report.
async fn rolls_back(stack: &Stack<'_>, guarded: &Guarded<'_>) -> Result<Value> {
    let world = stack.world;
    stack.clear().await?;
    stack.restart(None).await?;
    let alarm = &guarded.alarm;
    world.set_alarm(&alarm.name, StateValue::Alarm).await?;
    let event = alarm_event(alarm, "OK", "ALARM", Clock::system().now());
    Ok(stack.invoke(&event).await?.report()?.clone())
}

/// A canary's share goes, is tried and told, with nothing to complain of.
async fn moves_the_alias(stack: &Stack<'_>, guarded: &Guarded<'_>, heard: &Queue) -> Result {
    let world = stack.world;
    world.drain(heard).await?;
    guarded.canary_fails().await?;
    let report = rolls_back(stack, guarded).await?;
    is(&report, "Applied", "version 1 alone")?;
    // The only note is about who disagrees now.
    ensure(
        report["notes"]
            .as_array()
            .is_some_and(|notes| notes.len() == 1),
        || report.to_string(),
    )?;
    let pointing = guarded.pointing().await?;
    ensure(pointing == Pointing::alone("1"), || format!("{pointing:?}"))?;
    ensure(stack.told("applied").await? == 1, || {
        "the timeline does not show it".to_owned()
    })?;
    let run = &report["causation_id"];
    world
        .heard(heard, Duration::from_secs(5), |event| {
            event["detail"]["causation_id"] == *run
        })
        .await?;
    Ok(())
}

/// The alarm's return to OK is noted, though nobody claims the alias for it.
async fn hears_of_the_recovery(stack: &Stack<'_>, guarded: &Guarded<'_>) -> Result {
    let alarm = &guarded.alarm;
    stack.world.set_alarm(&alarm.name, StateValue::Ok).await?;
    let event = alarm_event(alarm, "ALARM", "OK", Clock::system().now());
    let answer = stack.invoke(&event).await?;
    is(
        answer.report()?,
        "AlreadyInPlace",
        "nothing temporary is in place",
    )
}

/// A deployment is stopped, and the schedule sees its rollback to the end.
async fn stops_the_deployment(stack: &Stack<'_>, guarded: &Guarded<'_>) -> Result {
    guarded.canary_fails().await?;
    let deployment = guarded.deploys("1", "2").await?;
    let ended = async {
        is(&rolls_back(stack, guarded).await?, "Pending", &deployment)?;
        for _ in 0..4 {
            let answer = stack.invoke(&scheduled()).await?;
            if answer.report()?["outcome"] == "Applied" {
                return ensure(guarded.pointing().await? == Pointing::alone("1"), || {
                    "the alias is elsewhere".to_owned()
                });
            }
        }
        Err(Failure::new("never back"))
    };
    let ended = ended.await;
    guarded.no_deployment().await?;
    ended
}

/// A version with all the traffic fails, and nothing is known to go back to: its state is read all the same.
async fn looks_for_a_way_back(stack: &Stack<'_>, guarded: &Guarded<'_>) -> Result {
    guarded.point(&Pointing::alone("2")).await?;
    let lately = Clock::system().now() - TimeDelta::seconds(20);
    guarded.served(None, 100, 40, lately).await?;
    let report = rolls_back(stack, guarded).await?;
    is(&report, "Escalated", "there is no version to go back to")
}

#[tokio::test]
async fn each_permission_of_a_rollback_is_needed_and_none_is_missing() -> Result {
    deployed(ROLLBACK, "rollback-least", async |stack| {
        let guarded = guarded(stack).await?;
        let heard = stack.world.listen("outcomes", &outcomes()).await?;
        let work = async || {
            moves_the_alias(stack, &guarded, &heard).await?;
            hears_of_the_recovery(stack, &guarded).await?;
            looks_for_a_way_back(stack, &guarded).await?;
            stops_the_deployment(stack, &guarded).await
        };
        stack
            .needs_each_permission(stack.role_policies(), 21, work)
            .await
    })
    .await
}
