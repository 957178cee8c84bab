//! What keeps a replay from acting, kill switches first: no message is touched then.

use std::time::Duration;

use aws_sdk_cloudwatch::types::StateValue;
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use end_to_end::Result;
use end_to_end::case::Case;
use end_to_end::message::Seed;
use end_to_end::proxy::{Fault, Proxy, Reply, Rule};
use end_to_end::replay::{Ended, Run};
use end_to_end::world::{Depth, Kind, alarm_event, scenario};
use serde_json::{Value, json};
use shared::clock::Clock;

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
const MESSAGES: usize = 15;

async fn filled(case: &Case<'_>) -> Result {
    let seeds: Vec<Seed> = (0..MESSAGES).map(|n| Seed::new(format!("{n}"))).collect();
    case.world.dead_letter(&case.ingestion, &seeds).await
}

/// No message was received, sent or deleted, and no claim was made.
async fn untouched(case: &Case<'_>, proxy: &Proxy) -> Result {
    for action in [
        "sqs:ReceiveMessage",
        "sqs:SendMessage*",
        "sqs:DeleteMessage*",
        "sqs:Change*",
    ] {
        assert!(proxy.calls(action).is_empty(), "{action}");
    }
    let depth = case.world.depth(&case.ingestion.dlq).await?;
    assert_eq!(
        depth,
        Depth {
            visible: MESSAGES,
            ..Depth::default()
        }
    );
    assert_eq!(case.world.told("claimed").await?, 0);
    Ok(())
}

fn rule_of(ended: &Ended) -> Result<(Value, Value)> {
    let report = ended.report()?;
    Ok((report["outcome"].clone(), report["rule"].clone()))
}

#[tokio::test]
async fn each_kill_switch_stops_everything() -> Result {
    scenario("switch", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        filled(&case).await?;
        let target = format!("target#{}", case.ingestion.dlq.arn);
        let switches = [
            ("global", "kill_switch_global"),
            ("remediation#dlq-replay", "kill_switch_remediation"),
            (target.as_str(), "kill_switch_target"),
        ];
        for (switch, rule) in switches {
            let text = |text: &str| AttributeValue::S(text.to_owned());
            let set = |engaged| {
                [
                    ("pk", text("switch")),
                    ("sk", text(switch)),
                    ("engaged", AttributeValue::Bool(engaged)),
                    ("reason", text("a migration is under way")),
                ]
            };
            world.put_ledger_item(&set(true)).await?;
            let proxy = case.proxy().await?;
            let ended = case.run(&proxy).finish().await?;
            assert_eq!(rule_of(&ended)?, (json!("Skipped"), json!(rule)));
            let report = ended.report()?;
            let reason = report["reason"].as_str().unwrap_or_default();
            assert!(reason.contains("a migration is under way"), "{reason}");
            untouched(&case, &proxy).await?;
            let waiting = world.waiting().await?;
            let rules: Vec<Value> = waiting.iter().map(|waits| json!(waits.rule)).collect();
            assert_eq!(rules, [json!(rule)]);
            world.put_ledger_item(&set(false)).await?;
        }
        let proxy = case.proxy().await?;
        let ended = case.run(&proxy).finish().await?;
        assert_eq!(ended.report()?["outcome"], "Applied");
        assert_eq!(world.waiting().await?, []);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_kill_switch_that_cannot_be_read_counts_as_on() -> Result {
    scenario("unreadable", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        filled(&case).await?;
        let key = json!({"pk": {"S": "switch"}, "sk": {"S": "global"}});
        let in_part = json!({
            "Responses": {(&*world.ledger): []},
            "UnprocessedKeys": {(&*world.ledger): {"Keys": [key], "ConsistentRead": true}},
        });
        let faults = [
            Fault::Reply(Reply::InternalError),
            Fault::Reply(Reply::Throttled),
            Fault::Reply(Reply::Denied),
            Fault::Reply(Reply::error(
                400,
                "ResourceNotFoundException",
                "no such table",
            )),
            Fault::Reset,
            Fault::LoseAnswer,
        ];
        // The switches are read by the one call, and what else forbids an action by the other.
        let faults = faults.into_iter().flat_map(|fault| {
            ["dynamodb:Query", "dynamodb:BatchGetItem"].map(|call| (call, fault.clone()))
        });
        let in_part = Fault::Reply(Reply::success(200, in_part.to_string()));
        for (call, fault) in faults.chain([("dynamodb:BatchGetItem", in_part)]) {
            let proxy = case.proxy().await?;
            proxy.inject(Rule::new(call, fault.clone()));
            let ended = case.run(&proxy).finish().await?;
            assert_eq!(ended.report()?["outcome"], "Failed", "{call}, {fault:?}");
            assert!(
                ended.answer.is_err(),
                "{call}, {fault:?}: Lambda has to deliver the event again"
            );
            untouched(&case, &proxy).await?;
        }
        let proxy = case.proxy().await?;
        let ended = case.run(&proxy).finish().await?;
        assert_eq!(ended.report()?["outcome"], "Applied");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_alarm_that_cannot_be_read_again_stops_everything() -> Result {
    scenario("blind", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        filled(&case).await?;
        for fault in [Reply::InternalError, Reply::Throttled, Reply::Denied] {
            let proxy = case.proxy().await?;
            proxy.inject(Rule::new("cloudwatch:DescribeAlarms", Fault::Reply(fault)));
            let ended = case.run(&proxy).finish().await?;
            assert_eq!(ended.report()?["outcome"], "Failed");
            untouched(&case, &proxy).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_or_used_stops_everything() -> Result {
    scenario("policy", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        filled(&case).await?;
        let faults = [
            (Reply::InternalError, "Retryable"),
            (Reply::Throttled, "Retryable"),
            (Reply::Denied, "UnusablePolicy"),
        ];
        for (fault, name) in faults {
            let proxy = case.proxy().await?;
            proxy.inject(Rule::new("ssm:GetParameter", Fault::Reply(fault)));
            let ended = case.run(&proxy).finish().await?;
            assert_eq!(
                ended.answer.map_err(|error| error.error_type),
                Err(name.to_owned())
            );
            untouched(&case, &proxy).await?;
        }
        for document in [
            json!({}),
            json!("no policy"),
            json!({"version": 1, "targets": []}),
        ] {
            world.put_policy(&document).await?;
            let proxy = case.proxy().await?;
            let ended = case.run(&proxy).finish().await?;
            let error = ended.answer.map_err(|error| error.error_type);
            assert_eq!(error, Err("UnusablePolicy".to_owned()));
            untouched(&case, &proxy).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn stale_recovered_and_silent_alarms_are_left_alone() -> Result {
    scenario("stale", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        case.policy["targets"][0]["guard"]["max_event_age_seconds"] = json!(900);
        world.put_policy(&case.policy).await?;
        filled(&case).await?;
        let proxy = case.proxy().await?;
        let now = Clock::system().now();

        let ended = case
            .run_at(&proxy, now - TimeDelta::seconds(1_000))
            .finish()
            .await?;
        assert_eq!(rule_of(&ended)?, (json!("Skipped"), json!("stale_event")));

        let unknown = alarm_event(&case.alarm, "OK", "INSUFFICIENT_DATA", now);
        let ended = case.run(&proxy).on(&unknown).finish().await?;
        assert_eq!(
            rule_of(&ended)?,
            (json!("Skipped"), json!("state_without_action"))
        );

        let later = |seconds| now + TimeDelta::seconds(seconds);
        world.set_alarm(&case.alarm.name, StateValue::Ok).await?;
        let ended = case.run_at(&proxy, later(5)).finish().await?;
        assert_eq!(
            rule_of(&ended)?,
            (json!("Skipped"), json!("alarm_recovered"))
        );

        world.set_alarm(&case.alarm.name, StateValue::Alarm).await?;
        world
            .aws
            .cloudwatch
            .disable_alarm_actions()
            .alarm_names(&case.alarm.name)
            .send()
            .await?;
        let ended = case.run_at(&proxy, later(10)).finish().await?;
        assert_eq!(
            rule_of(&ended)?,
            (json!("Skipped"), json!("alarm_actions_disabled"))
        );
        // Enabling them changes no state of the alarm: the schedule looks for that.
        let waits: Vec<_> = world.waiting().await?.iter().map(|it| it.rule).collect();
        assert_eq!(waits, [shared::outcome::Rule::AlarmActionsDisabled]);
        untouched(&case, &proxy).await
    })
    .await
}

#[tokio::test]
async fn a_queue_beyond_the_cap_is_left_whole() -> Result {
    scenario("cap", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        case.set("limits", json!({"max_messages": MESSAGES - 1}))
            .await?;
        filled(&case).await?;
        let proxy = case.proxy().await?;
        let ended = case.run(&proxy).finish().await?;
        assert_eq!(rule_of(&ended)?, (json!("Escalated"), json!("blast_cap")));
        untouched(&case, &proxy).await
    })
    .await
}

/// How many of these instants lie within a second of each other, at most.
fn most_in_a_second(at: &[Duration]) -> usize {
    let within = |from: &Duration| {
        let second = *from..*from + Duration::from_secs(1);
        at.iter().filter(|other| second.contains(*other)).count()
    };
    at.iter().map(within).max().unwrap_or_default()
}

/// An account may make 15 calls a second of Lambda's control plane (AWS Lambda Developer Guide, "Lambda quotas"), and of
/// API Gateway's 10, with 40 at once (Amazon API Gateway Developer Guide, "Amazon API Gateway quotas"). What works on the
/// same incident gets half of it.
#[tokio::test]
async fn one_alarm_on_many_targets_leaves_half_of_the_control_planes_to_others() -> Result {
    const TARGETS: usize = 12;
    scenario("quotas", async |world| {
        let alarm = world.alarm("ApiHigh5xxErrorRate").await?;
        let at = Clock::system().now();
        let event = alarm_event(&alarm, "OK", "ALARM", at);
        let (region, account) = (&world.cloud.region, &world.cloud.account_id);
        let action = |remediation: &str, n: usize| match remediation {
            alias_rollback::NAME => {
                json!({"alias": format!("arn:aws:lambda:{region}:{account}:function:api-{n}:live")})
            }
            _ => json!({
                "stage": format!("arn:aws:apigateway:{region}::/restapis/a1b2c3d4e{n}/stages/prod"),
                "resources": [{"path": "/orders"}],
            }),
        };
        // How many at once, and how many a second from then on.
        let halves = [
            (alias_rollback::NAME, "lambda:", (8, 7)),
            (cache_fallback::NAME, "apigateway:", (16, 4)),
        ];
        for (remediation, service, (burst, rate)) in halves {
            let target = |n| {
                json!({
                    "name": format!("api-{n}"),
                    "alarms": [alarm.arn],
                    "action": action(remediation, n),
                })
            };
            let targets: Vec<Value> = (0..TARGETS).map(target).collect();
            world
                .put_policy(&json!({"version": 1, "targets": targets}))
                .await?;
            let proxy = Proxy::start(&world.cloud).await?;
            let run = Run::new(RUN_ONCE.as_ref(), world, &proxy, &event).of(remediation);
            run.finish().await?;
            let mut calls = proxy.journal();
            // These have quotas of their own.
            let own = ["lambda:GetPolicy", "apigateway:GetResources"];
            calls.retain(|entry| {
                let action = entry.call.action();
                action.starts_with(service) && !own.contains(&action.as_str())
            });
            let mut at: Vec<Duration> = calls.iter().map(|entry| entry.arrived).collect();
            at.sort_unstable();
            assert!(at.len() >= TARGETS, "{service} {} calls", at.len());
            let most = most_in_a_second(&at);
            assert!(most <= burst + rate, "{service} {most} in a second");
            // In the long run it is the rate alone.
            let took = at[at.len() - 1].saturating_sub(at[0]);
            let beyond = u32::try_from(at.len().saturating_sub(burst + 1))?;
            let seldom = Duration::from_secs(1) * beyond / u32::try_from(rate)?;
            assert!(took >= seldom, "{service} {} calls in {took:?}", at.len());
        }
        Ok(())
    })
    .await
}
