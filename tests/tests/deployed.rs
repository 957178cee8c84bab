//! The deployed stack, IAM enforced: from a metric through the template's own rule to the account of messages, and no
//! permission too few or too many.

use std::time::Duration;

use aws_sdk_cloudwatch::types::{MetricDatum, StandardUnit, StateValue};
use dlq_replay::message::MARK;
use end_to_end::Result;
use end_to_end::case::told;
use end_to_end::failure::{During as _, ensure};
use end_to_end::message::{
    Account, Attribute, Seed, body_of, every_kind_of_attribute, ten_attributes,
};
use end_to_end::stack::{Stack, deployed};
use end_to_end::world::{Depth, Queue, alarm_event, wait_until};
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::clock::Clock;

/// How long a whole replay may take, from the metric on.
const REPLAYED: Duration = Duration::from_mins(3);
/// The remediation's name in the template.
const REPLAY: &str = "DlqReplay";

fn outcomes() -> Value {
    json!({"source": ["forgeguard"], "detail": {"remediation": ["dlq-replay"]}})
}

async fn raise_error_rate(stack: &Stack<'_>, percent: f64) -> Result {
    let datum = MetricDatum::builder()
        .metric_name("ErrorRate")
        .unit(StandardUnit::Percent)
        .value(percent)
        .build();
    let request = stack
        .world
        .aws
        .cloudwatch
        .put_metric_data()
        .namespace("DataForge/Ingestion");
    request.metric_data(datum).send().await?;
    Ok(())
}

#[tokio::test]
async fn a_metric_over_its_threshold_replays_the_queue_through_the_templates_rule() -> Result {
    deployed(REPLAY, "rule", async |stack| {
        let world = stack.world;
        let heard = world.listen("outcomes", &outcomes()).await?;
        let fired = json!({"source": ["aws.cloudwatch"], "resources": [stack.error_rate.arn]});
        let fired = world.listen("alarms", &fired).await?;
        let good: Vec<Seed> = (0..40)
            .map(|n| {
                Seed::new(json!({"n": n}).to_string()).with_attributes(every_kind_of_attribute())
            })
            .chain([Seed::new(
                json!({"pad": body_of("large", 200_000)}).to_string(),
            )])
            .collect();
        let poison: Vec<Seed> = (0..3).map(|n| Seed::new(format!("poison {n}"))).collect();
        world
            .dead_letter(&stack.ingestion, &[&good[..], &poison].concat())
            .await?;
        stack.restart(None).await?;
        stack.enable_rule().await?;

        raise_error_rate(stack, 50.0).await?;
        let ended = world.heard(&heard, REPLAYED, |event| {
            event["detail"]["outcome"] != "Skipped"
        });
        let (outcome, replayed) = Box::pin(world.consuming(&stack.ingestion.source, ended)).await?;
        let report = &outcome["detail"];
        assert_eq!(report["outcome"], "Applied", "{report}");
        let told = told(report)?;
        assert_eq!((told.replayed(), told.quarantined()), (41, 3));
        assert_eq!(told.possible_duplicates, 0);

        // The same event once more: nothing happens, and the answer says why.
        let event = world
            .heard(&fired, REPLAYED, |event| {
                event["detail"]["state"]["value"] == "ALARM"
            })
            .await?;
        let again = stack.invoke(&event).await?;
        assert_eq!(again.report()?["duplicate"], true, "{}", again.payload);
        assert_eq!(again.report()?["evidence"], report["evidence"]);
        assert_eq!(stack.told("claimed").await?, 1);

        let account = account(
            &good,
            &replayed
                .iter()
                .map(|it| it.body.as_str())
                .collect::<Vec<_>>(),
        );
        account.balanced()?;
        for message in &replayed {
            let seed = good
                .iter()
                .find(|seed| seed.body == message.body)
                .during("its seed")?;
            assert_eq!(message.added_to(seed), [MARK]);
        }
        let quarantined = world.drain(&stack.ingestion.quarantine).await?;
        assert_eq!(quarantined.len(), 3);
        assert_eq!(world.depth(&stack.ingestion.dlq).await?, Depth::default());
        Ok(())
    })
    .await
}

fn account(seeds: &[Seed], found: &[&str]) -> Account {
    Account::of(
        seeds.iter().map(|seed| seed.body.as_str()),
        found.iter().copied(),
    )
}

#[tokio::test]
async fn of_sixteen_invocations_at_once_exactly_one_acts() -> Result {
    deployed(REPLAY, "sixteen", async |stack| {
        let world = stack.world;
        let seeds: Vec<Seed> = (0..30)
            .map(|n| Seed::new(json!({"n": n}).to_string()))
            .collect();
        world.dead_letter(&stack.ingestion, &seeds).await?;
        world
            .set_alarm(&stack.depth.name, StateValue::Alarm)
            .await?;
        let event = alarm_event(&stack.depth, "OK", "ALARM", Clock::system().now());
        let answers = join_all((0..16).map(|_| stack.invoke(&event)));
        let answers = async { Ok(answers.await) };
        let (answers, replayed) =
            Box::pin(world.consuming(&stack.ingestion.source, answers)).await?;
        let mut acted = 0;
        for answer in answers {
            let answer = answer?;
            let report = answer.report()?;
            if report["outcome"] == "Applied" && report["duplicate"] == false {
                acted += 1;
                assert_eq!(told(report)?.replayed(), 30);
            } else {
                let stood_back = report["outcome"] == "Pending" || report["duplicate"] == true;
                assert!(stood_back, "{report}");
            }
        }
        assert_eq!(acted, 1);
        assert_eq!(stack.told("claimed").await?, 1);
        let account = account(
            &seeds,
            &replayed
                .iter()
                .map(|it| it.body.as_str())
                .collect::<Vec<_>>(),
        );
        account.balanced()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_event_that_nothing_can_be_done_with_is_kept() -> Result {
    deployed(REPLAY, "kept", async |stack| {
        let event = json!({"detail-type": "AWS API Call via CloudTrail", "source": "aws.sqs", "detail": {"mark": 7}});
        stack.invoke_later(&event).await?;
        let kept = stack
            .world
            .heard(&stack.failures, REPLAYED, |kept| kept["requestPayload"] == event)
            .await?;
        let error = kept["responsePayload"]["errorType"].as_str().unwrap_or_default();
        assert_eq!(error, "UnusableEvent", "{kept}");
        Ok(())
    })
    .await
}

/// A policy under which one small replay makes every call that a replay can make.
fn everything(stack: &Stack<'_>) -> Result<Value> {
    let mut policy = stack.policy()?;
    let target = &mut policy["targets"][0];
    target["guard"]["cooldown_seconds"] = json!(0);
    target["action"]["filter"] = json!({"attributes": [{"name": "go", "any_of": ["yes"]}]});
    target["action"]["canary"]["settle_seconds"] = json!(0);
    Ok(policy)
}

/// One replay from a cold start that needs every permission but that to continue; fails unless all of it is right.
async fn replays(stack: &Stack<'_>, heard: &Queue) -> Result {
    let world = stack.world;
    stack.clear().await?;
    world.drain(heard).await?;
    stack.put_policy(&everything(stack)?).await?;
    stack.restart(None).await?;
    let go = Attribute::text("String", "yes");
    let mut ten = ten_attributes();
    ten.remove("more-9");
    let seeds = [
        Seed::new(json!({"plain": 1}).to_string()).with("go", go.clone()),
        Seed::new(json!({"ten": 1}).to_string())
            .with_attributes(ten)
            .with("go", go.clone()),
        Seed::new("poison").with("go", go),
        Seed::new(json!({"filtered": 1}).to_string()),
    ];
    world.dead_letter(&stack.ingestion, &seeds).await?;
    world
        .set_alarm(&stack.depth.name, StateValue::Alarm)
        .await?;
    let event = alarm_event(&stack.depth, "OK", "ALARM", Clock::system().now());
    let answer = stack.invoke(&event).await?;
    let report = answer.report()?;
    ensure(report["outcome"] == "Applied", || report.to_string())?;
    let told = told(report)?;
    let counts = (told.replayed(), told.quarantined(), told.returned());
    ensure(counts == (2, 1, 1), || format!("{counts:?} in {report}"))?;
    let complaints = &report["notes"];
    ensure(complaints.as_array().is_none_or(Vec::is_empty), || {
        complaints.to_string()
    })?;
    let left = world.depth(&stack.ingestion.dlq).await?;
    ensure(
        left == Depth {
            visible: 1,
            ..Depth::default()
        },
        || format!("{left:?}"),
    )?;
    let found = world.drain(&stack.ingestion.source).await?.len()
        + world.drain(&stack.ingestion.quarantine).await?.len();
    ensure(found == 3, || format!("{found} messages delivered"))?;
    ensure(stack.told("applied").await? == 1, || {
        "the timeline does not show it".to_owned()
    })?;
    told_of_its_effect(stack).await?;
    let run = &report["causation_id"];
    world
        .heard(heard, Duration::from_secs(5), |event| {
            event["detail"]["causation_id"] == *run
        })
        .await?;
    Ok(())
}

/// Fails unless the alarm's metric was read to see whether the replay helped.
async fn told_of_its_effect(stack: &Stack<'_>) -> Result {
    let said = stack.looks_late_at_what_was_done().await?;
    let silent = "is still in ALARM, and its metric has no value since";
    ensure(said.len() == 1 && said[0].ends_with(silent), || {
        format!("{said:?}")
    })
}

/// A replay too long for one invocation, which therefore needs the permission to continue.
async fn continues(stack: &Stack<'_>) -> Result {
    let world = stack.world;
    stack.clear().await?;
    let mut policy = stack.policy()?;
    policy["targets"][0]["action"]["canary"]["settle_seconds"] = json!(0);
    policy["targets"][0]["action"]["limits"]["messages_per_second"] = json!(10);
    stack.put_policy(&policy).await?;
    stack.restart(Some(Duration::from_secs(11))).await?;
    let seeds: Vec<Seed> = (0..50)
        .map(|n| Seed::new(json!({"n": n}).to_string()))
        .collect();
    world.dead_letter(&stack.ingestion, &seeds).await?;
    world
        .set_alarm(&stack.depth.name, StateValue::Alarm)
        .await?;
    let event = alarm_event(&stack.depth, "OK", "ALARM", Clock::system().now());
    let answer = stack.invoke(&event).await?;
    let report = answer.report()?;
    ensure(report["outcome"] == "Pending", || report.to_string())?;
    wait_until("the replay is at its end", REPLAYED, async || {
        Ok((stack.told("applied").await? == 1).then_some(()))
    })
    .await?;
    let replayed = world.drain(&stack.ingestion.source).await?;
    let account = account(
        &seeds,
        &replayed
            .iter()
            .map(|it| it.body.as_str())
            .collect::<Vec<_>>(),
    );
    account.balanced()
}

#[tokio::test]
async fn a_long_replay_continues_by_itself() -> Result {
    deployed(REPLAY, "continues", async |stack| continues(stack).await).await
}

#[tokio::test]
async fn lambda_can_do_its_own_part_with_the_role() -> Result {
    deployed(REPLAY, "lambda-part", async |stack| {
        assert!(stack.serves_lambda().await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_permission_is_needed_and_none_is_missing() -> Result {
    deployed(REPLAY, "least", async |stack| {
        let heard = stack.world.listen("outcomes", &outcomes()).await?;
        let work = async || {
            replays(stack, &heard).await?;
            continues(stack).await
        };
        stack
            .needs_each_permission(stack.role_policies(), 16, work)
            .await
    })
    .await
}
