//! What becomes of messages in a replay, by what they are and where they belong.

use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use chrono::TimeDelta;
use dlq_replay::message::{MARK, QUARANTINED};
use end_to_end::Result;
use end_to_end::case::{Case, told};
use end_to_end::failure::{During as _, each};
use end_to_end::message::{
    Attribute, Received, Seed, body_of, every_kind_of_attribute, size, ten_attributes,
};
use end_to_end::proxy::{Fault, Reply, Rule};
use end_to_end::replay::is;
use end_to_end::world::{Depth, Ingestion, Kind, scenario};
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::settings;

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");

fn seed_of<'a>(seeds: &'a [Seed], message: &Received) -> Result<&'a Seed> {
    seeds
        .iter()
        .find(|seed| seed.body == message.body)
        .during("the message's seed")
}

fn reason(message: &Received) -> Result<Value> {
    let attribute = message.attributes.get(QUARANTINED).during("the reason")?;
    match &attribute.value {
        end_to_end::message::Held::Text(text) => Ok(serde_json::from_str(text)?),
        end_to_end::message::Held::Bytes(_) => Ok(Value::Null),
    }
}

#[tokio::test]
async fn every_message_goes_where_it_belongs_with_all_that_it_had() -> Result {
    scenario("all", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        case.set("body_schema", json!({"type": "object"})).await?;
        let redrive = json!({"deadLetterTargetArn": case.ingestion.dlq.arn, "maxReceiveCount": 1});
        let redrive = (QueueAttributeName::RedrivePolicy, redrive.to_string());
        let stranger = world.queue("stranger", Kind::Standard, &[redrive]).await?;
        let stranger = Ingestion {
            source: stranger,
            ..case.ingestion.clone()
        };

        let good: Vec<Seed> = (0..45)
            .map(|n| {
                Seed::new(json!({"n": n}).to_string()).with_attributes(every_kind_of_attribute())
            })
            .chain([
                Seed::new(json!({"pad": body_of("large", 200_000)}).to_string()),
                Seed::new(json!({"none": "attributes"}).to_string()),
            ])
            .collect();
        let poison: Vec<Seed> = ["no JSON", "[1]", "{\"cut\":"]
            .into_iter()
            .map(|body| Seed::new(body).with_attributes(every_kind_of_attribute()))
            .collect();
        let lost = [Seed::new(json!({"from": "elsewhere"}).to_string())];
        let direct = [Seed::new(
            json!({"sent": "straight to the dead-letter queue"}).to_string(),
        )];
        world.dead_letter(&case.ingestion, &good).await?;
        world.dead_letter(&case.ingestion, &poison).await?;
        world.dead_letter(&stranger, &lost).await?;
        world.seed(&case.ingestion.dlq, &direct).await?;

        let proxy = case.proxy().await?;
        let ended = case.run(&proxy).finish().await?;
        let report = ended.report()?;
        assert_eq!(report["outcome"], "Applied", "{report}");
        let told = told(&report)?;
        assert_eq!(
            (told.received, told.replayed(), told.quarantined()),
            (52, 48, 4)
        );
        assert_eq!((told.returned(), told.possible_duplicates), (0, 0));
        assert_eq!(told.quarantined.get("undecodable"), Some(&3));
        assert_eq!(told.quarantined.get("unroutable"), Some(&1));

        let found = case.found().await?;
        let expected: Vec<Seed> = [&good[..], &direct].concat();
        found.replayed(&expected).balanced()?;
        let unfit: Vec<Seed> = [&poison[..], &lost].concat();
        found.quarantined(&unfit).balanced()?;
        for message in &found.replayed {
            let seed = seed_of(&expected, message)?;
            assert_eq!(message.added_to(seed), [MARK]);
            for (name, attribute) in &seed.attributes {
                assert_eq!(message.attributes.get(name), Some(attribute), "{name}");
            }
        }
        for message in &found.quarantined {
            let seed = seed_of(&unfit, message)?;
            assert_eq!(message.added_to(seed), [QUARANTINED]);
            for (name, attribute) in &seed.attributes {
                assert_eq!(message.attributes.get(name), Some(attribute), "{name}");
            }
            let reason = reason(message)?;
            assert_eq!(reason["source"], case.ingestion.dlq.arn, "{reason}");
        }
        for kind in ["claimed", "account", "applied", "verified"] {
            assert_eq!(world.told(kind).await?, 1, "{kind}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn ten_attributes_stay_ten_and_the_ledger_counts_instead() -> Result {
    scenario("ten", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        case.set(
            "limits",
            json!({"max_replays_per_message": 2, "messages_per_second": 10_000}),
        )
        .await?;
        let seeds: Vec<Seed> = (0..12)
            .map(|n| Seed::new(format!("{n}")).with_attributes(ten_attributes()))
            .collect();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        let now = Clock::system().now();
        for round in 0..3 {
            let ended = case
                .run_at(&proxy, now + TimeDelta::seconds(round))
                .finish()
                .await?;
            let told = told(&ended.report()?)?;
            let expected = if round < 2 { (12, 0) } else { (0, 12) };
            assert_eq!(
                (told.replayed(), told.quarantined()),
                expected,
                "round {round}"
            );
            if round < 2 {
                // The consumer fails on all of them again.
                world.fail_all(&case.ingestion).await?;
            }
        }
        let found = case.found().await?;
        found.quarantined(&seeds).balanced()?;
        for message in &found.quarantined {
            assert_eq!(message.attributes, ten_attributes());
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_message_that_keeps_coming_back_is_quarantined() -> Result {
    scenario("again", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        case.set(
            "limits",
            json!({"max_replays_per_message": 1, "messages_per_second": 10_000}),
        )
        .await?;
        let seeds: Vec<Seed> = (0..7).map(|n| Seed::new(format!("{n}"))).collect();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        let now = Clock::system().now();
        case.run_at(&proxy, now).finish().await?;
        world.fail_all(&case.ingestion).await?;
        let ended = case
            .run_at(&proxy, now + TimeDelta::seconds(1))
            .finish()
            .await?;
        assert_eq!(
            told(&ended.report()?)?
                .quarantined
                .get("replayed_too_often"),
            Some(&7)
        );
        let found = case.found().await?;
        found.quarantined(&seeds).balanced()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_consumer_that_still_fails_opens_the_breaker() -> Result {
    scenario("breaker", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let seeds: Vec<Seed> = (0..7).map(|n| Seed::new(format!("{n}"))).collect();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        let now = Clock::system().now();
        for round in 0..2 {
            let ended = case
                .run_at(&proxy, now + TimeDelta::seconds(round))
                .finish()
                .await?;
            assert_eq!(ended.report()?["outcome"], "Applied");
            world.fail_all(&case.ingestion).await?;
        }
        let ended = case
            .run_at(&proxy, now + TimeDelta::seconds(2))
            .finish()
            .await?;
        let report = ended.report()?;
        assert_eq!(
            (&report["outcome"], &report["rule"]),
            (&json!("Escalated"), &json!("breaker"))
        );
        // What it had looked at is there for others at once.
        let depth = world.depth(&case.ingestion.dlq).await?;
        assert_eq!(
            depth,
            Depth {
                visible: 7,
                ..Depth::default()
            }
        );
        let found = case.found().await?;
        found.account(&seeds).balanced()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn bodies_at_the_size_limit_go_through_and_longer_ones_to_the_quarantine() -> Result {
    const LARGEST: usize = 1_048_576;
    scenario("size", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let attributes = every_kind_of_attribute();
        let largest = [
            Seed::new(body_of("largest", LARGEST)),
            Seed::new(body_of("largest again", LARGEST)),
            Seed::new(body_of("with attributes", LARGEST - size("", &attributes)))
                .with_attributes(attributes.clone()),
            Seed::new(body_of("a little room", LARGEST - 10)),
        ];
        let small = [Seed::new("small")];
        world
            .dead_letter(&case.ingestion, &[&largest[..], &small].concat())
            .await?;
        let proxy = case.proxy().await?;
        let now = Clock::system().now();
        let ended = case.run_at(&proxy, now).finish().await?;
        assert_eq!(told(&ended.report()?)?.replayed(), 5, "{}", ended.log);
        world.fail_all(&case.ingestion).await?;

        // The destination takes less than it did when they were sent.
        world
            .aws
            .sqs
            .set_queue_attributes()
            .queue_url(&case.ingestion.source.url)
            .attributes(QueueAttributeName::MaximumMessageSize, "2048")
            .send()
            .await?;
        let proxy = case.proxy().await?;
        let ended = case
            .run_at(&proxy, now + TimeDelta::seconds(1))
            .finish()
            .await?;
        let told = told(&ended.report()?)?;
        assert_eq!(
            (told.replayed(), told.quarantined.get("too_large")),
            (1, Some(&4))
        );
        let found = case.found().await?;
        found.replayed(&small).balanced()?;
        found.quarantined(&largest).balanced()?;
        for message in &found.quarantined {
            let seed = seed_of(&largest, message)?;
            for (name, attribute) in &seed.attributes {
                assert_eq!(message.attributes.get(name), Some(attribute), "{name}");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn of_a_trace_only_the_root_goes_on() -> Result {
    scenario("trace", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let root = "Root=1-5759e988-bd862e3fe1be46a994272793";
        let lineage =
            format!("{root};Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a87bd80c:1|68fd508a:5");
        let seeds = [
            Seed::new("traced").traced(&lineage),
            Seed::new("not traced"),
        ];
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        case.run(&proxy).finish().await?.answer()?;
        // The emulator drops the header from a batch, so what was sent is looked at.
        let mut sent = 0;
        for entry in proxy.calls("sqs:SendMessageBatch") {
            for message in entry.call.entries() {
                sent += 1;
                let header = &message["MessageSystemAttributes"]["AWSTraceHeader"];
                if message["MessageBody"] == "traced" {
                    assert_eq!(*header, json!({"DataType": "String", "StringValue": root}));
                } else {
                    assert!(header.is_null(), "{header}");
                }
            }
        }
        assert_eq!(sent, 2);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_standard_message_keeps_its_group_and_no_group_waits_for_another() -> Result {
    scenario("tenants", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        // One message of the tenant stays; in a standard queue, the tenant's others need not wait for it.
        case.set(
            "filter",
            json!({"attributes": [{"name": "go", "any_of": ["yes"]}]}),
        )
        .await?;
        let go = Attribute::text("String", "yes");
        let seeds: Vec<Seed> = (0..6)
            .map(|n| Seed::new(format!("{n}")).in_group("tenant"))
            .enumerate()
            .map(|(n, seed)| {
                if n == 0 {
                    seed
                } else {
                    seed.with("go", go.clone())
                }
            })
            .collect();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        case.run(&proxy).finish().await?.answer()?;
        let found = case.found().await?;
        assert_eq!((found.replayed.len(), found.left.len()), (5, 1));
        for message in found.all() {
            let group = message.system(&MessageSystemAttributeName::MessageGroupId);
            assert_eq!(group, Some("tenant"), "{}", message.body);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_the_filter_leaves_is_back_at_once() -> Result {
    scenario("filter", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        case.set(
            "filter",
            json!({"body": [{"pointer": "/kind", "any_of": ["order"]}]}),
        )
        .await?;
        let of = |kind: &str, n: usize| Seed::new(json!({"kind": kind, "n": n}).to_string());
        let orders: Vec<Seed> = (0..13).map(|n| of("order", n)).collect();
        let others: Vec<Seed> = (0..14).map(|n| of("refund", n)).collect();
        world
            .dead_letter(&case.ingestion, &[&orders[..], &others[..]].concat())
            .await?;
        let proxy = case.proxy().await?;
        let ended = case.run(&proxy).finish().await?;
        let told = told(&ended.report()?)?;
        assert_eq!((told.received, told.replayed()), (27, 13));
        assert_eq!(told.returned.get("filtered"), Some(&14));
        let depth = world.depth(&case.ingestion.dlq).await?;
        assert_eq!(
            depth,
            Depth {
                visible: 14,
                ..Depth::default()
            }
        );
        let found = case.found().await?;
        found.replayed(&orders).balanced()?;
        found
            .account(&[&orders[..], &others[..]].concat())
            .balanced()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_dry_run_tells_its_plan_and_changes_nothing() -> Result {
    scenario("dry-run", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let seeds: Vec<Seed> = (0..15).map(|n| Seed::new(format!("{n}"))).collect();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        let ended = case
            .run(&proxy)
            .setting(settings::DRY_RUN, "true")
            .finish()
            .await?;
        let report = ended.report()?;
        assert_eq!(
            (&report["outcome"], &report["rule"]),
            (&json!("Skipped"), &json!("dry_run"))
        );
        assert_eq!(report["plan"]["expected"], 15);
        // What of it failed alike, with the form of one and nothing that it says.
        let groups = " times no reason given, for ";
        assert!(report["notes"].to_string().contains(groups), "{report}");
        assert!(
            report["notes"].to_string().contains("its form: number"),
            "{report}"
        );
        let depth = world.depth(&case.ingestion.dlq).await?;
        assert_eq!(
            depth,
            Depth {
                visible: 15,
                ..Depth::default()
            }
        );
        assert!(proxy.calls("sqs:SendMessage*").is_empty());
        assert!(proxy.calls("sqs:DeleteMessage*").is_empty());
        assert_eq!(world.told("claimed").await?, 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nothing_is_touched_when_the_destination_is_gone() -> Result {
    scenario("gone", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let seeds: Vec<Seed> = (0..15).map(|n| Seed::new(format!("{n}"))).collect();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let gone = &case.ingestion.source;
        world
            .aws
            .sqs
            .delete_queue()
            .queue_url(&gone.url)
            .send()
            .await?;
        let proxy = case.proxy().await?;
        let ended = case.run(&proxy).finish().await?;
        let report = ended.report()?;
        assert_eq!(
            (&report["outcome"], &report["rule"]),
            (&json!("Escalated"), &json!("unsafe"))
        );
        let reason = report["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(&gone.arn), "{reason}");
        assert!(proxy.calls("sqs:ReceiveMessage").is_empty());
        let depth = world.depth(&case.ingestion.dlq).await?;
        assert_eq!(
            depth,
            Depth {
                visible: 15,
                ..Depth::default()
            }
        );
        assert_eq!(world.told("escalated").await?, 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_destination_that_goes_in_the_middle_loses_nothing() -> Result {
    scenario("goes", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let seeds: Vec<Seed> = (0..45).map(|n| Seed::new(format!("{n}"))).collect();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        let gone = Reply::error(
            400,
            "QueueDoesNotExist",
            "The specified queue does not exist.",
        );
        proxy.inject(Rule::new("sqs:SendMessageBatch", Fault::Reply(gone)).from(3));
        let ended = case.run(&proxy).finish().await?;
        let report = ended.report()?;
        assert_eq!(
            (&report["outcome"], &report["retryable"]),
            (&json!("Failed"), &json!(false))
        );
        let told_first = told(&report)?;
        assert_eq!(
            (told_first.replayed(), told_first.possible_duplicates),
            (20, 0)
        );
        let depth = world.depth(&case.ingestion.dlq).await?;
        assert_eq!(
            depth,
            Depth {
                visible: 25,
                ..Depth::default()
            }
        );

        proxy.heal();
        let ended = case.run(&proxy).finish().await?;
        let report = ended.report()?;
        assert_eq!(report["outcome"], "Applied", "{report}");
        let found = case.found().await?;
        found.replayed(&seeds).balanced()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_event_whose_invocation_failed_is_invoked_again() -> Result {
    const FUNCTION: &str = "arn:aws:lambda:us-east-1:000000000000:function:ingest";
    scenario("function", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        case.set("destinations", json!([{"arn": FUNCTION}])).await?;
        case.set("default_destination", json!(FUNCTION)).await?;
        // Numbers that no float holds, and spaces, are the event's own.
        let event = |n: usize| format!(r#"{{"order": {n},  "price": 12345678901234567890.10}}"#);
        let request = |n: usize| format!("00000000-0000-4000-8000-{n:012}");
        let dead_letter = |n: usize| {
            Seed::new(event(n))
                .with("RequestID", Attribute::text("String", request(n)))
                .with("ErrorCode", Attribute::text("Number", "200"))
                .with("ErrorMessage", Attribute::text("String", "out of stock"))
        };
        let record = |n: usize| {
            Seed::new(format!(
                r#"{{"version":"1.0","requestContext":{{"requestId":"{}","functionArn":"{FUNCTION}:$LATEST","condition":"RetriesExhausted","approximateInvokeCount":3}},"requestPayload":{},"responsePayload":{{"errorType":"Timeout","errorMessage":"after 3.00 s"}}}}"#,
                request(n),
                event(n)
            ))
        };
        let failed = |n: usize| if n.is_multiple_of(2) { dead_letter(n) } else { record(n) };
        let seeds: Vec<Seed> = (0..23).map(failed).collect();
        world.seed(&case.ingestion.dlq, &seeds).await?;
        let offsets = Seed::new(
            json!({
                "requestContext": {"functionArn": FUNCTION, "condition": "RetryAttemptsExhausted"},
                "KafkaBatchInfo": {"recordsInfo": {"readings-0": {"firstRecordOffset": "4711", "lastRecordOffset": "5210"}}},
            })
            .to_string(),
        );
        world.seed(&case.ingestion.dlq, std::slice::from_ref(&offsets)).await?;
        let proxy = case.proxy().await?;
        let taken = Fault::Reply(Reply::success(202, ""));
        proxy.inject(
            Rule::new("lambda:Invoke", taken).when(|call| call.subject.ends_with("ingest")),
        );
        let ended = case.run(&proxy).finish().await?;
        let report = ended.report()?;
        assert_eq!(report["outcome"], "Applied", "{report}");
        assert_eq!(told(&report)?.replayed.get(FUNCTION), Some(&23));
        let mut invoked: Vec<String> = proxy
            .calls("lambda:Invoke")
            .iter()
            .map(|entry| String::from_utf8_lossy(&entry.call.body).into_owned())
            .collect();
        invoked.sort();
        let mut expected: Vec<String> = (0..23).map(event).collect();
        expected.sort();
        assert_eq!(invoked, expected);
        let quarantined = told(&report)?.quarantined;
        assert_eq!(quarantined.get("no_payload"), Some(&1), "{report}");
        let kept = world.drain(&case.ingestion.quarantine).await?;
        assert_eq!(kept.iter().map(|kept| kept.body.as_str()).collect::<Vec<_>>(), [&offsets.body]);
        for entry in proxy.calls("lambda:Invoke") {
            let kind = entry.call.headers.get("x-amz-invocation-type");
            assert_eq!(kind.and_then(|kind| kind.to_str().ok()), Some("Event"));
        }
        let timeline = world.timeline().await?;
        let failures = timeline
            .iter()
            .find(|line| line["kind"] == "failures")
            .during("the failures")?;
        let summary = failures["summary"].as_str().unwrap_or_default();
        for told in ["12 times 200 out of stock", "11 times Timeout after # s"] {
            assert!(summary.contains(told), "{summary}");
        }
        assert_eq!(world.depth(&case.ingestion.dlq).await?.total(), 0);
        Ok(())
    })
    .await
}

/// Lambda puts a new message for each invocation that failed, and only its request id leads back to the one before.
#[tokio::test]
async fn an_event_that_fails_for_good_is_quarantined_after_its_replays() -> Result {
    const FUNCTION: &str = "arn:aws:lambda:us-east-1:000000000000:function:ingest";
    type Failed = fn(&str) -> Seed;
    let kinds: [(&str, Failed); 2] = [
        ("record", |request| {
            let record = json!({
                "version": "1.0",
                "requestContext": {
                    "requestId": request,
                    "functionArn": format!("{FUNCTION}:$LATEST"),
                    "condition": "RetriesExhausted",
                    "approximateInvokeCount": 3,
                },
                "requestPayload": {"order": 7},
                "responsePayload": {"errorType": "ValueError", "errorMessage": "no such order"},
            });
            Seed::new(record.to_string())
        }),
        ("dead letter", |request| {
            Seed::new(r#"{"order":7}"#)
                .with("RequestID", Attribute::text("String", request))
                .with("ErrorCode", Attribute::text("Number", "200"))
                .with("ErrorMessage", Attribute::text("String", "ValueError"))
        }),
    ];
    each(kinds, 2, async |(kind, failed)| {
        scenario("worn-out-by-lambda", async |world| {
            let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
            case.set("destinations", json!([{"arn": FUNCTION}])).await?;
            case.set("default_destination", json!(FUNCTION)).await?;
            case.set("limits", json!({"max_replays_per_message": 3}))
                .await?;
            let proxy = case.proxy().await?;
            let taken = Fault::Reply(Reply::success(202, ""));
            proxy.inject(
                Rule::new("lambda:Invoke", taken).when(|call| call.subject.ends_with("ingest")),
            );
            let mut request = "11111111-2222-4333-8444-555555555555".to_owned();
            for round in 1..=4 {
                world.seed(&case.ingestion.dlq, &[failed(&request)]).await?;
                let run = case.run_at(&proxy, Clock::system().now()).finish();
                let report = run.await?.report()?;
                let told = told(&report)?;
                let expected = if round < 4 { (1, 0) } else { (0, 1) };
                assert_eq!((told.replayed(), told.quarantined()), expected, "{report}");
                let calls = proxy.calls("lambda:Invoke");
                request = calls.last().during("an invocation")?.call.request_id();
                if round == 4 {
                    assert_eq!(told.quarantined.get("replayed_too_often"), Some(&1));
                    assert_eq!(calls.len(), 3);
                }
            }
            let timeline = world.timeline().await?;
            let failures = timeline.iter().find(|line| line["kind"] == "failures");
            let summary = &failures.during("the failures")?["summary"];
            assert!(summary.to_string().contains("ValueError"), "{summary}");
            Ok(())
        })
        .await
        .during(kind)
    })
    .await
}

#[tokio::test]
async fn what_was_quarantined_comes_back_when_a_human_says_so() -> Result {
    scenario("release", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        case.set("body_schema", json!({"type": "object"})).await?;
        let unfit: Vec<Seed> = (0..3)
            .map(|n| Seed::new(format!("[{n}]")).with_attributes(every_kind_of_attribute()))
            .collect();
        world.dead_letter(&case.ingestion, &unfit).await?;
        let proxy = case.proxy().await?;
        case.run(&proxy).finish().await?.report()?;
        let quarantined = world.depth(&case.ingestion.quarantine).await?;
        assert_eq!(quarantined.visible, 3);

        // The schema is mended, and the quarantine is a source.
        case.set("body_schema", json!({"type": "array"})).await?;
        case.set("source", json!(case.ingestion.quarantine.arn)).await?;
        case.set("release", json!({"reasons": ["undecodable"]})).await?;
        let asked = case.run(&proxy).finish().await?.report()?;
        assert_eq!(asked["rule"], "approval_required", "{asked}");
        assert_eq!(world.depth(&case.ingestion.source).await?, Depth::default());
        let at = Clock::system().now();
        let approved = json!({
            "playbook": {"execution": "arn:aws:states:us-east-1:123456789012:execution:Ingestion:e1"},
            "alarm": case.event,
            "approvals": [{
                "target": asked["target"],
                "plan_hash": asked["plan_hash"],
                "transition": asked["transition"],
                "by": "anna",
                "at": at,
                "expires_at": at + TimeDelta::hours(1),
            }],
        });
        let released = case.run(&proxy).on(&approved).request_id("approved").finish();
        let report = released.await?.report()?;
        assert_eq!(report["outcome"], "Applied", "{report}");
        let told = told(&report)?;
        assert_eq!((told.replayed(), told.quarantined(), told.returned()), (3, 0, 0));
        let back = world.drain(&case.ingestion.source).await?;
        assert_eq!(back.len(), 3);
        for message in &back {
            assert_eq!(message.added_to(seed_of(&unfit, message)?), [MARK]);
        }
        assert_eq!(world.depth(&case.ingestion.quarantine).await?, Depth::default());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pointer_to_an_object_that_is_gone_is_quarantined_and_the_others_are_judged() -> Result {
    scenario("claim-check", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let bucket = format!("{}-payloads", world.name);
        let s3 = &world.aws.s3;
        s3.create_bucket().bucket(&bucket).send().await?;
        for (key, held) in [("fit", "{}"), ("unfit", "[]"), ("empty", "")] {
            let body = held.as_bytes().to_vec().into();
            s3.put_object()
                .bucket(&bucket)
                .key(key)
                .body(body)
                .send()
                .await?;
        }
        let pointing = |bucket: &str, key: &str| {
            let class = "software.amazon.payloadoffloading.PayloadS3Pointer";
            Seed::new(json!([class, {"s3BucketName": bucket, "s3Key": key}]).to_string())
        };
        let elsewhere = format!("{bucket}-of-others");
        let seeds = [
            pointing(&bucket, "fit"),
            pointing(&bucket, "unfit"),
            pointing(&bucket, "gone"),
            pointing(&elsewhere, "unseen"),
        ];
        case.set("body_schema", json!({"type": "object"})).await?;
        case.set("payload_buckets", json!([bucket])).await?;
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        let report = case.run(&proxy).finish().await?.report()?;
        let told = told(&report)?;
        assert_eq!(
            (told.received, told.replayed(), told.not_looked_into),
            (4, 2, 1),
            "{report}"
        );
        let reasons = [
            ("dangling_pointer".to_owned(), 1),
            ("undecodable".to_owned(), 1),
        ];
        assert_eq!(told.quarantined, reasons.into());
        let quarantined = world.drain(&case.ingestion.quarantine).await?;
        let lost: Vec<Value> = quarantined
            .iter()
            .map(|message| Ok(reason(message)?["lost"].clone()))
            .collect::<Result<_>>()?;
        assert!(
            lost.contains(&json!({"bucket": bucket, "key": "gone"})),
            "{lost:?}"
        );
        // The pointers are sent on as they were.
        for message in world.drain(&case.ingestion.source).await? {
            assert_eq!(message.added_to(seed_of(&seeds, &message)?), [MARK]);
        }

        // A store that does not answer for a moment lets nothing past the schema: it is asked again, and again later.
        let seeds = [pointing(&bucket, "unfit")];
        world.dead_letter(&case.ingestion, &seeds).await?;
        let slow = || {
            let words = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            Fault::Reply(Reply::success(503, words))
        };
        proxy.inject(Rule::new("s3:GET*", slow()).first(3));
        let failing = case.run_at(&proxy, Clock::system().now()).finish().await?;
        let failing = failing.report()?;
        is(&failing, "Failed", "could not be delivered")?;
        is(&failing, "Failed", "SlowDown")?;
        assert_eq!(self::told(&failing)?.replayed(), 0, "{failing}");
        proxy.inject(Rule::new("s3:GET*", slow()).first(1));
        let report = case.run_at(&proxy, Clock::system().now());
        let report = report.finish().await?.report()?;
        let told = self::told(&report)?;
        assert_eq!((told.replayed(), told.quarantined()), (0, 1), "{report}");

        // Where nobody asks what a payload holds, it is only looked whether it is there.
        case.set("body_schema", Value::Null).await?;
        let seeds = [pointing(&bucket, "empty"), pointing(&bucket, "gone")];
        world.dead_letter(&case.ingestion, &seeds).await?;
        let report = case
            .run_at(&proxy, Clock::system().now())
            .finish()
            .await?
            .report()?;
        let told = self::told(&report)?;
        assert_eq!((told.replayed(), told.quarantined()), (1, 1), "{report}");
        Ok(())
    })
    .await
}
