//! The tests' own equipment, tried against the emulator: what it says it does to a call is what happens there.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_lambda::operation::invoke::InvokeError;
use aws_sdk_sqs::error::ProvideErrorMetadata as _;
use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, MessageSystemAttributeName, SendMessageBatchRequestEntry,
    SendMessageBatchResultEntry,
};
use end_to_end::Result;
use end_to_end::cloud::{Clients, Cloud};
use end_to_end::failure::{During as _, Failure};
use end_to_end::message::{Account, Seed, body_of, every_kind_of_attribute, size, ten_attributes};
use end_to_end::proxy::{EntryFailure, Fate, Fault, Hold, Phase, Proxy, Reply, Rule};
use end_to_end::world::{Kind, Queue, SOON, World, scenario, wait_until};

async fn send(
    sqs: &aws_sdk_sqs::Client,
    queue: &Queue,
    body: &str,
) -> std::result::Result<(), String> {
    match sqs
        .send_message()
        .queue_url(&queue.url)
        .message_body(body)
        .send()
        .await
    {
        Ok(_) => Ok(()),
        Err(error) => Err(error.code().unwrap_or("no answer").to_owned()),
    }
}

async fn bodies(world: &World, queue: &Queue) -> Result<Vec<String>> {
    Ok(world
        .drain(queue)
        .await?
        .into_iter()
        .map(|message| message.body)
        .collect())
}

fn batch(bodies: &[&str]) -> Result<Vec<SendMessageBatchRequestEntry>> {
    bodies
        .iter()
        .map(|body| {
            let entry = SendMessageBatchRequestEntry::builder()
                .id(format!("id-{body}"))
                .message_body(*body);
            Ok(entry.build()?)
        })
        .collect()
}

#[tokio::test]
async fn every_protocol_passes_unchanged_and_is_named() -> Result {
    scenario("passes", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let aws = Clients::through(&world.cloud, proxy.endpoint()).await;
        let queue = world.queue("q", Kind::Standard, &[]).await?;
        let alarm = world.alarm("Depth High").await?;
        world.put_policy(&serde_json::json!({"version": 1})).await?;

        send(&aws.sqs, &queue, "body").await.map_err(Failure::new)?;
        aws.dynamodb
            .put_item()
            .table_name(&world.ledger)
            .item("pk", AttributeValue::S("p".into()))
            .item("sk", AttributeValue::S("s".into()))
            .send()
            .await?;
        let parameter = aws
            .ssm
            .get_parameter()
            .name(&world.parameter)
            .send()
            .await?;
        let alarms = aws
            .cloudwatch
            .describe_alarms()
            .alarm_names(&alarm.name)
            .send()
            .await?;
        let gone = aws
            .lambda
            .invoke()
            .function_name("not-there")
            .send()
            .await
            .unwrap_err();
        aws.events
            .put_events()
            .entries(
                aws_sdk_eventbridge::types::PutEventsRequestEntry::builder()
                    .source("test")
                    .detail_type("test")
                    .detail("{}")
                    .build(),
            )
            .send()
            .await?;
        aws.iam.list_roles().send().await?;
        aws.cloudformation.list_stacks().send().await?;

        assert_eq!(world.ledger().await?.len(), 1);
        assert_eq!(bodies(world, &queue).await?, ["body"]);
        assert_eq!(
            parameter
                .parameter()
                .and_then(|parameter| parameter.value()),
            Some(r#"{"version":1}"#)
        );
        assert_eq!(
            alarms.metric_alarms()[0].state_value().unwrap().as_str(),
            "ALARM"
        );
        assert!(
            gone.as_service_error()
                .is_some_and(InvokeError::is_resource_not_found_exception),
            "{gone:?}"
        );
        let actions: Vec<_> = proxy
            .journal()
            .iter()
            .map(|entry| entry.call.action())
            .collect();
        assert_eq!(
            actions,
            [
                "sqs:SendMessage",
                "dynamodb:PutItem",
                "ssm:GetParameter",
                "cloudwatch:DescribeAlarms",
                "lambda:Invoke",
                "events:PutEvents",
                "iam:ListRoles",
                "cloudformation:ListStacks",
            ]
        );
        let subjects: Vec<_> = proxy
            .journal()
            .iter()
            .map(|entry| entry.call.subject.clone())
            .collect();
        assert_eq!(
            subjects[..3],
            [&*queue.name, &world.ledger, &world.parameter]
        );
        assert_eq!(subjects[4], "not-there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_emulator_still_checks_signatures_behind_the_proxy() -> Result {
    scenario("signatures", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let queue = world.queue("q", Kind::Standard, &[]).await?;
        let forged = Cloud {
            secret_access_key: "not the secret".into(),
            ..world.cloud.clone()
        };
        let aws = Clients::through(&forged, proxy.endpoint()).await;
        assert_eq!(
            send(&aws.sqs, &queue, "forged").await,
            Err("SignatureDoesNotMatch".to_owned())
        );
        assert_eq!(world.depth(&queue).await?.total(), 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn errors_are_spoken_in_each_services_form_and_have_no_effect() -> Result {
    scenario("errors", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let aws = Clients::through(&world.cloud, proxy.endpoint()).await;
        let queue = world.queue("q", Kind::Standard, &[]).await?;
        let expected = [
            (
                Reply::InternalError,
                [
                    "InternalError",
                    "InternalServerError",
                    "InternalServerError",
                    "InternalServiceFault",
                    "ServiceException",
                ],
            ),
            (
                Reply::Throttled,
                [
                    "RequestThrottled",
                    "ThrottlingException",
                    "ThrottlingException",
                    "Throttling",
                    "TooManyRequestsException",
                ],
            ),
            (
                Reply::Denied,
                [
                    "AccessDenied",
                    "AccessDeniedException",
                    "AccessDeniedException",
                    "AccessDenied",
                    "AccessDeniedException",
                ],
            ),
            (Reply::error(418, "Custom", "made up"), ["Custom"; 5]),
        ];
        for (reply, codes) in expected {
            proxy.heal();
            proxy.inject(Rule::new("*", Fault::Reply(reply.clone())));
            let item = aws
                .dynamodb
                .put_item()
                .table_name(&world.ledger)
                .item("pk", AttributeValue::S("p".into()))
                .item("sk", AttributeValue::S("s".into()));
            let found = [
                send(&aws.sqs, &queue, "never").await.unwrap_err(),
                item.send()
                    .await
                    .unwrap_err()
                    .code()
                    .unwrap_or_default()
                    .to_owned(),
                code(&aws.ssm.get_parameter().name("p").send().await.unwrap_err()),
                code(&aws.cloudwatch.describe_alarms().send().await.unwrap_err()),
                code(
                    &aws.lambda
                        .invoke()
                        .function_name("f")
                        .send()
                        .await
                        .unwrap_err(),
                ),
            ];
            assert_eq!(found, codes, "{reply:?}");
        }
        assert_eq!(world.depth(&queue).await?.total(), 0);
        assert_eq!(world.ledger().await?.len(), 0);
        assert!(
            proxy
                .journal()
                .iter()
                .all(|entry| entry.faulted && !entry.effect)
        );
        Ok(())
    })
    .await
}

fn code(error: &impl aws_sdk_sqs::error::ProvideErrorMetadata) -> String {
    error.code().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_reset_comes_before_the_effect_and_a_lost_answer_after_it() -> Result {
    scenario("resets", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let aws = Clients::through(&world.cloud, proxy.endpoint()).await;
        let queue = world.queue("q", Kind::Standard, &[]).await?;
        proxy.inject(Rule::new("sqs:SendMessage", Fault::Reset).nth(1));
        proxy.inject(Rule::new("sqs:SendMessage", Fault::LoseAnswer).nth(2));
        proxy.inject(
            Rule::new(
                "sqs:SendMessage",
                Fault::ReplyAfterEffect(Reply::InternalError),
            )
            .nth(3),
        );
        let answers = [
            send(&aws.sqs, &queue, "reset").await,
            send(&aws.sqs, &queue, "lost answer").await,
            send(&aws.sqs, &queue, "failed answer").await,
            send(&aws.sqs, &queue, "answered").await,
        ];
        assert_eq!(
            answers,
            [
                Err("no answer".to_owned()),
                Err("no answer".to_owned()),
                Err("InternalError".to_owned()),
                Ok(())
            ]
        );
        let found = bodies(world, &queue).await?;
        let account = Account::of(
            ["lost answer", "failed answer", "answered"],
            found.iter().map(String::as_str),
        );
        account.balanced()?;
        let journal = proxy.calls("sqs:SendMessage");
        let fates: Vec<_> = journal.iter().map(|entry| entry.fate).collect();
        assert_eq!(
            fates,
            [
                Fate::Cut,
                Fate::Cut,
                Fate::Answered(500),
                Fate::Answered(200)
            ]
        );
        let lost: Vec<_> = journal
            .iter()
            .map(end_to_end::proxy::Entry::lost_its_answer)
            .collect();
        assert_eq!(lost, [false, true, true, false]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn delays_are_before_or_after_the_effect() -> Result {
    scenario("delays", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let aws = Clients::through(&world.cloud, proxy.endpoint()).await;
        let queue = world.queue("q", Kind::Standard, &[]).await?;
        let while_ = Duration::from_millis(300);
        proxy.inject(Rule::new("sqs:SendMessage", Fault::Delay(while_)).nth(1));
        proxy.inject(
            Rule::new(
                "sqs:SendMessage",
                Fault::DelayAnswer(Duration::from_hours(1)),
            )
            .nth(2),
        );
        send(&aws.sqs, &queue, "late").await.map_err(Failure::new)?;
        let entry = &proxy.calls("sqs:SendMessage")[0];
        assert!(
            entry
                .ended
                .is_some_and(|ended| ended >= entry.arrived + while_)
        );

        let sqs = aws.sqs.clone();
        let to = queue.clone();
        let waiting = tokio::spawn(async move { send(&sqs, &to, "answered late").await });
        wait_until("the effect is there before the answer", SOON, async || {
            Ok((world.depth(&queue).await?.visible == 2).then_some(()))
        })
        .await?;
        assert!(!waiting.is_finished());
        waiting.abort();
        Ok(())
    })
    .await
}

#[tokio::test]
async fn chosen_entries_of_a_batch_fail_and_the_others_take_effect() -> Result {
    scenario("partial", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let aws = Clients::through(&world.cloud, proxy.endpoint()).await;
        let queue = world.queue("q", Kind::Standard, &[]).await?;
        proxy.inject(Rule::new(
            "sqs:SendMessageBatch",
            Fault::FailEntries(EntryFailure::service(|index, _| index == 1)),
        ));
        let answer = aws
            .sqs
            .send_message_batch()
            .queue_url(&queue.url)
            .set_entries(Some(batch(&["a", "b", "c"])?))
            .send()
            .await?;
        let sent: Vec<_> = answer
            .successful()
            .iter()
            .map(SendMessageBatchResultEntry::id)
            .collect();
        assert_eq!(sent, ["id-a", "id-c"]);
        let failed: Vec<_> = answer
            .failed()
            .iter()
            .map(|entry| (entry.id(), entry.code(), entry.sender_fault()))
            .collect();
        assert_eq!(failed, [("id-b", "InternalError", false)]);

        proxy.heal();
        proxy.inject(Rule::new(
            "sqs:SendMessageBatch",
            Fault::FailEntries(EntryFailure::service(|_, _| true)),
        ));
        let answer = aws
            .sqs
            .send_message_batch()
            .queue_url(&queue.url)
            .set_entries(Some(batch(&["d", "e"])?))
            .send()
            .await?;
        assert_eq!((answer.successful().len(), answer.failed().len()), (0, 2));

        proxy.heal();
        let received = world.receive(&queue).await?;
        assert_eq!(received.len(), 2);
        let handle = received[0].handle.clone();
        proxy.inject(Rule::new(
            "sqs:DeleteMessageBatch",
            Fault::FailEntries(EntryFailure::service(move |_, entry| {
                entry["ReceiptHandle"] == *handle
            })),
        ));
        let mut deleting = aws.sqs.delete_message_batch().queue_url(&queue.url);
        for (id, message) in received.iter().enumerate() {
            deleting = deleting.entries(
                DeleteMessageBatchRequestEntry::builder()
                    .id(id.to_string())
                    .receipt_handle(&message.handle)
                    .build()?,
            );
        }
        let answer = deleting.send().await?;
        assert_eq!(answer.failed()[0].id(), "0");
        assert_eq!(answer.successful()[0].id(), "1");
        assert_eq!(world.depth(&queue).await?.in_flight, 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn held_requests_wait_for_each_other() -> Result {
    scenario("hold", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let aws = Clients::through(&world.cloud, proxy.endpoint()).await;
        let queue = world.queue("q", Kind::Standard, &[]).await?;
        let hold = Hold::default();
        proxy.inject(Rule::new("sqs:SendMessage", Fault::Hold(hold.clone())).about(&queue.name));
        let mut sending = tokio::task::JoinSet::new();
        for n in 0..5 {
            let (sqs, queue) = (aws.sqs.clone(), queue.clone());
            sending.spawn(async move { send(&sqs, &queue, &n.to_string()).await });
        }
        hold.arrived(5).await?;
        assert_eq!(world.depth(&queue).await?.total(), 0);
        hold.release();
        while let Some(sent) = sending.join_next().await {
            assert_eq!(sent?, Ok(()));
        }
        assert_eq!(world.depth(&queue).await?.visible, 5);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_gate_stops_one_request_before_or_after_its_effect() -> Result {
    scenario("gate", async |world| {
        for (phase, there) in [(Phase::BeforeEffect, 1), (Phase::AfterEffect, 2)] {
            let proxy = Proxy::start(&world.cloud).await?;
            let aws = Clients::through(&world.cloud, proxy.endpoint()).await;
            let queue = world
                .queue(&format!("{phase:?}"), Kind::Standard, &[])
                .await?;
            let mut gate = proxy.gate("*", 2, phase);
            send(&aws.sqs, &queue, "first")
                .await
                .map_err(Failure::new)?;
            let (sqs, to) = (aws.sqs.clone(), queue.clone());
            let stopped = tokio::spawn(async move { send(&sqs, &to, "second").await });
            let call = gate.reached().await.during("the gate")?;
            assert_eq!(
                (call.number, call.json()["MessageBody"].as_str()),
                (2, Some("second"))
            );
            assert_eq!(world.depth(&queue).await?.total(), there);
            assert!(!stopped.is_finished());
            gate.finish();
            assert_eq!(stopped.await?, Err("no answer".to_owned()));
            proxy.idle().await?;
            assert_eq!(proxy.journal()[1].fate, Fate::Cut);
            assert_eq!(proxy.journal()[1].effect, phase == Phase::AfterEffect);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_request_that_arrived_is_carried_out_though_its_client_is_gone() -> Result {
    scenario("gone", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let aws = Clients::through(&world.cloud, proxy.endpoint()).await;
        let queue = world.queue("q", Kind::Standard, &[]).await?;
        let hold = Hold::default();
        proxy.inject(Rule::new("sqs:SendMessage", Fault::Hold(hold.clone())));
        let (sqs, to) = (aws.sqs.clone(), queue.clone());
        let sending = tokio::spawn(async move { send(&sqs, &to, "body").await });
        hold.arrived(1).await?;
        sending.abort();
        assert!(sending.await.unwrap_err().is_cancelled());
        drop(aws);
        hold.release();
        proxy.idle().await?;
        assert_eq!(bodies(world, &queue).await?, ["body"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_sqs_refuses_is_refused_though_the_emulator_would_not() -> Result {
    scenario("limits", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let aws = Clients::through(&world.cloud, proxy.endpoint()).await;
        let small = (
            aws_sdk_sqs::types::QueueAttributeName::MaximumMessageSize,
            "2048".to_owned(),
        );
        let queue = world.queue("q", Kind::Standard, &[small]).await?;
        let eleven = Seed::new("eleven").with_attributes(ten_attributes()).with(
            "eleventh",
            end_to_end::message::Attribute::text("String", "x"),
        );
        let attributes = every_kind_of_attribute();
        let room = 2048 - size("", &attributes);
        let fits = Seed::new(body_of("fits", room)).with_attributes(attributes.clone());
        let over = Seed::new(body_of("over", room + 1)).with_attributes(attributes);
        let mut sending = aws.sqs.send_message_batch().queue_url(&queue.url);
        for (id, seed) in [("eleven", &eleven), ("fits", &fits), ("over", &over)] {
            let mut entry = SendMessageBatchRequestEntry::builder()
                .id(id)
                .message_body(&seed.body);
            for (name, attribute) in &seed.attributes {
                let value = aws_sdk_sqs::types::MessageAttributeValue::builder()
                    .data_type(&attribute.data_type);
                let value = match &attribute.value {
                    end_to_end::message::Held::Text(text) => value.string_value(text),
                    end_to_end::message::Held::Bytes(bytes) => {
                        value.binary_value(bytes.clone().into())
                    }
                };
                entry = entry.message_attributes(name, value.build()?);
            }
            sending = sending.entries(entry.build()?);
        }
        let answer = sending.send().await?;
        let mut failed: Vec<_> = answer
            .failed()
            .iter()
            .map(|entry| (entry.id(), entry.code()))
            .collect();
        failed.sort_unstable();
        assert_eq!(
            failed,
            [
                ("eleven", "InvalidParameterValue"),
                ("over", "InvalidParameterValue")
            ]
        );
        let found = world.drain(&queue).await?;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].body, fits.body);
        assert_eq!(found[0].attributes, fits.attributes);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_redrive_policy_moves_messages_with_all_they_have() -> Result {
    scenario("redrive", async |world| {
        let trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        let ingestion = world.ingestion(Kind::Standard).await?;
        let mut seeds: Vec<Seed> = (0..23)
            .map(|n| Seed::new(format!("{n}")).with_attributes(ten_attributes()))
            .collect();
        seeds.push(Seed::new("traced").traced(trace));
        seeds.push(Seed::new("of a tenant").in_group("tenant-7"));
        world.dead_letter(&ingestion, &seeds).await?;
        let found = world.drain(&ingestion.dlq).await?;
        let account = Account::of(
            seeds.iter().map(|seed| seed.body.as_str()),
            found.iter().map(|message| message.body.as_str()),
        );
        account.balanced()?;
        for message in &found {
            let seed = seeds
                .iter()
                .find(|seed| seed.body == message.body)
                .during("its seed")?;
            assert_eq!(message.attributes, seed.attributes);
            assert_eq!(
                message.system(&MessageSystemAttributeName::DeadLetterQueueSourceArn),
                Some(ingestion.source.arn.as_str())
            );
            assert_eq!(
                message.system(&MessageSystemAttributeName::AwsTraceHeader),
                seed.trace_header.as_deref()
            );
            assert_eq!(
                message.system(&MessageSystemAttributeName::MessageGroupId),
                seed.group.as_deref()
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_redrive_policy_keeps_the_order_of_each_group() -> Result {
    scenario("redrive-fifo", async |world| {
        let ingestion = world.ingestion(Kind::Fifo).await?;
        let seeds: Vec<Seed> = (0..24)
            .map(|n| Seed::new(format!("{n:02}")).in_group(&format!("g{}", n % 3)))
            .collect();
        world.dead_letter(&ingestion, &seeds).await?;
        let found = world.drain(&ingestion.dlq).await?;
        assert_eq!(found.len(), seeds.len());
        for group in ["g0", "g1", "g2"] {
            let of = |message: &&end_to_end::message::Received| {
                message.system(&MessageSystemAttributeName::MessageGroupId) == Some(group)
            };
            let order: Vec<_> = found
                .iter()
                .filter(of)
                .map(|message| message.body.clone())
                .collect();
            assert_eq!(order.len(), 8);
            assert!(order.is_sorted(), "{group}: {order:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_a_dead_client_received_can_be_given_back() -> Result {
    scenario("give-back", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let aws = Clients::through(&world.cloud, proxy.endpoint()).await;
        let queue = world.queue("q", Kind::Standard, &[]).await?;
        let seeds: Vec<Seed> = (0..12).map(|n| Seed::new(n.to_string())).collect();
        world.seed(&queue, &seeds).await?;
        for _ in 0..2 {
            aws.sqs
                .receive_message()
                .queue_url(&queue.url)
                .max_number_of_messages(10)
                .visibility_timeout(3600)
                .send()
                .await?;
        }
        assert_eq!(world.depth(&queue).await?.in_flight, 12);
        assert!(world.drain(&queue).await.is_err());
        world.give_back(&proxy).await?;
        assert_eq!(world.depth(&queue).await?.visible, 12);
        assert_eq!(world.drain(&queue).await?.len(), 12);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deletion_answers_success_also_when_it_comes_late() -> Result {
    scenario("late", async |world| {
        let proxy = Proxy::start(&world.cloud).await?;
        let aws = Clients::through(&world.cloud, proxy.endpoint()).await;
        let queue = world.queue("q", Kind::Standard, &[]).await?;
        world.seed(&queue, &[Seed::new("body")]).await?;
        let received = aws
            .sqs
            .receive_message()
            .queue_url(&queue.url)
            .send()
            .await?;
        let handle = received.messages()[0]
            .receipt_handle()
            .during("the handle")?;
        for (handle, deleted) in [(handle, true), (handle, true), ("made up", false)] {
            let entry = DeleteMessageBatchRequestEntry::builder()
                .id("0")
                .receipt_handle(handle)
                .build()?;
            let request = aws.sqs.delete_message_batch().queue_url(&queue.url);
            let answer = request.entries(entry).send().await?;
            assert_eq!(answer.successful().len() == 1, deleted, "{answer:?}");
            assert_eq!(answer.failed().len() == 1, !deleted, "{answer:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_failed_test_leaves_nothing_behind() -> Result {
    let mut left = None;
    let failed = scenario("teardown", async |world| {
        world.ingestion(Kind::Standard).await?;
        world.alarm("High").await?;
        world.put_policy(&serde_json::json!({})).await?;
        left = Some((
            world.name.clone(),
            world.aws.clone(),
            world.parameter.clone(),
        ));
        Err(Failure::new("as planned"))
    })
    .await;
    assert_eq!(failed.unwrap_err().to_string(), "as planned");
    let (name, aws, parameter) = left.during("the world")?;
    let queues = aws
        .sqs
        .list_queues()
        .queue_name_prefix(&name)
        .send()
        .await?;
    assert!(queues.queue_urls().is_empty(), "{queues:?}");
    let alarms = aws
        .cloudwatch
        .describe_alarms()
        .alarm_name_prefix(&name)
        .send()
        .await?;
    assert!(alarms.metric_alarms().is_empty(), "{alarms:?}");
    let tables = aws.dynamodb.list_tables().send().await?;
    assert!(
        !tables
            .table_names()
            .iter()
            .any(|table| table.starts_with(&name))
    );
    assert!(
        aws.ssm
            .get_parameter()
            .name(parameter)
            .send()
            .await
            .is_err()
    );
    Ok(())
}
