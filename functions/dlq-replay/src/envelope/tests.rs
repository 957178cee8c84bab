//! Each envelope as AWS writes it, and what only looks like one.

use super::*;
use crate::sample::{INGEST, string};

const REQUEST: &str = "c9b8fa9f-5a7f-xxxx-af9c-0c604cde93a5";
const ID: &str = "00000000-0000-4000-8000-000000000001";

fn of(body: &str, attributes: &[(&str, &str)]) -> Envelope {
    Envelope::of(body, &held(attributes), None, false)
}

fn held(attributes: &[(&str, &str)]) -> HashMap<String, MessageAttributeValue> {
    let texts = attributes.iter();
    texts
        .map(|(name, text)| ((*name).to_owned(), string(text)))
        .collect()
}

#[test]
fn a_dead_letter_of_a_function_tells_request_and_cause_and_its_body_is_the_event() {
    let told = of(
        "{\"a\": 1}",
        &[
            ("RequestID", ID),
            ("ErrorCode", "200"),
            ("ErrorMessage", "out of stock"),
        ],
    );
    assert_eq!(
        (told.kind, &told.payload),
        (Kind::DeadLetter, &Payload::Body)
    );
    assert_eq!(told.request.as_deref(), Some(ID));
    assert_eq!(told.cause.unwrap().words, "out of stock");
    assert_eq!(told.names, Vec::<String>::new());
}

#[test]
fn what_a_sender_may_have_written_himself_counts_for_nothing() {
    let lambdas = [
        ("RequestID", ID),
        ("ErrorCode", "200"),
        ("ErrorMessage", "no"),
    ];
    let rules = [
        ("RULE_ARN", "arn:aws:events:eu-west-1:123456789012:rule/r"),
        ("TARGET_ARN", INGEST),
    ];
    for attributes in [&lambdas[..], &rules] {
        let moved = Envelope::of("{}", &held(attributes), Some("q"), false);
        assert_eq!((moved.kind, moved.request), (Kind::Redriven, None));
        let in_fifo = Envelope::of("{}", &held(attributes), None, true);
        assert_eq!(in_fifo, Envelope::default());
    }
    for attributes in [
        &[("RequestID", REQUEST), ("ErrorCode", "200")][..],
        &[("RequestID", ID)],
        &[("RequestID", ID), ("ErrorCode", "E-17")],
        &[("RULE_ARN", "nightly"), ("TARGET_ARN", INGEST)],
        &[("TARGET_ARN", INGEST)],
    ] {
        assert_eq!(of("{}", attributes), Envelope::default(), "{attributes:?}");
    }
    let record =
        json!({"requestContext": {"functionArn": INGEST, "condition": "x"}, "requestPayload": 1});
    let moved = Envelope::of(&record.to_string(), &HashMap::new(), Some("q"), false);
    assert_eq!((moved.kind, moved.payload), (Kind::Redriven, Payload::Body));
}

#[test]
fn a_failure_record_gives_its_event_byte_for_byte() {
    let event = r#"{"id": 12345678901234567890123, "price": 1.10, "text": "\u00e9"}"#;
    let body = format!(
        r#"{{"version":"1.0","requestContext":{{"requestId":"{ID}","functionArn":"{INGEST}","condition":"RetriesExhausted"}},"requestPayload":{event},"responsePayload":{{"errorType":"ValueError","errorMessage":"no such order"}}}}"#
    );
    let told = of(&body, &[]);
    assert_eq!(told.to_function(&body), event);
    assert_eq!(told.judged(&body), event);
    assert_eq!(told.request.as_deref(), Some(ID));
    assert_eq!(told.names, [INGEST]);
    assert_eq!(told.cause.unwrap().code, "ValueError");
}

#[test]
fn a_record_without_its_event_is_missing_one() {
    let context = json!({"requestId": ID, "functionArn": INGEST, "condition": "EventAgeExceeded"});
    for record in [
        json!({"version": "1.0", "requestContext": context}),
        json!({"version": "1.0", "requestContext": context, "requestPayload": null}),
    ] {
        let Payload::Missing { what, lost } = of(&record.to_string(), &[]).payload else {
            panic!("{record}");
        };
        assert!(what.contains(ID) && what.contains(INGEST), "{what}");
        assert_eq!(lost["request_id"], ID);
    }
    let succeeded = json!({"version": "1.0", "requestPayload": {}, "requestContext": {"functionArn": INGEST, "condition": "Success"}});
    assert_eq!(of(&succeeded.to_string(), &[]).payload, Payload::NotFailed);
    let whole = json!({"version": "1.0", "requestContext": context, "requestPayload": {"a": "b"}})
        .to_string();
    assert!(matches!(
        of(&whole[..whole.len() - 4], &[]).payload,
        Payload::CutShort(_)
    ));
}

#[test]
fn a_batch_tells_where_its_records_are() {
    let stream = json!({
        "requestContext": {"functionArn": INGEST, "condition": "RetryAttemptsExhausted"},
        "DDBStreamBatchInfo": {"shardId": "shard-1", "startSequenceNumber": "10", "endSequenceNumber": "19", "batchSize": 9, "streamArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/t/stream/1"},
    });
    let piped = json!({
        "context": {"partnerResourceArn": "arn:aws:pipes:eu-west-1:123456789012:pipe/p", "condition": "RetryAttemptsExhausted"},
        "KinesisBatchInfo": {"shardId": "shard-2", "startSequenceNumber": "20", "endSequenceNumber": "29", "streamArn": "arn:aws:kinesis:eu-west-1:123456789012:stream/s"},
    });
    for (record, kind, first, told) in [
        (
            stream,
            Kind::SourceBatch,
            INGEST,
            "shard shard-1, sequence numbers 10 to 19",
        ),
        (
            piped,
            Kind::PipeBatch,
            "arn:aws:pipes:eu-west-1:123456789012:pipe/p",
            "shard shard-2, sequence numbers 20 to 29",
        ),
    ] {
        let envelope = of(&record.to_string(), &[]);
        assert_eq!((envelope.kind, envelope.names[0].as_str()), (kind, first));
        let Payload::Missing { what, .. } = envelope.payload else {
            panic!("{record}");
        };
        assert!(what.contains(told), "{what}");
    }
    let with_payload = json!({
        "requestContext": {"functionArn": INGEST, "condition": "MaximumPayloadSizeExceeded"},
        "KafkaBatchInfo": {"recordsInfo": {}},
        "payload": "{\"records\": {}}",
    });
    let opened = of(&with_payload.to_string(), &[]).payload;
    assert_eq!(opened, Payload::Inside("{\"records\": {}}".into()));
}

#[test]
fn a_notification_is_what_each_kind_of_subscriber_gets() {
    let topic = "arn:aws:sns:eu-west-1:123456789012:shop";
    let body = json!({
        "Type": "Notification", "MessageId": "m", "TopicArn": topic, "Message": "{\"n\": 1}", "Timestamp": "t",
        "SigningCertURL": "https://c", "UnsubscribeURL": format!("https://sns/?Action=Unsubscribe&SubscriptionArn={topic}:s-1"),
    })
    .to_string();
    let told = of(&body, &[]);
    assert_eq!(told.names, [format!("{topic}:s-1"), topic.to_owned()]);
    assert_eq!(
        (told.judged(&body), told.to_queue(&body)),
        ("{\"n\": 1}", body.as_str())
    );
    let event: Value = serde_json::from_str(told.to_function(&body)).unwrap();
    let record = &event["Records"][0];
    assert_eq!(record["EventSource"], "aws:sns");
    assert_eq!(record["EventSubscriptionArn"], format!("{topic}:s-1"));
    assert_eq!(record["Sns"]["Message"], "{\"n\": 1}");
    assert_eq!(record["Sns"]["SigningCertUrl"], "https://c");
    assert_eq!(record["Sns"]["Subject"], Value::Null);
}

#[test]
fn rules_schedules_and_executions_say_whom_they_were_for() {
    let rule = "arn:aws:events:eu-west-1:123456789012:rule/r";
    let schedule = "arn:aws:scheduler:eu-west-1:123456789012:schedule/g/s";
    let ruled = of(
        "{}",
        &[
            ("RULE_ARN", rule),
            ("TARGET_ARN", INGEST),
            ("ERROR_CODE", "THROTTLING"),
        ],
    );
    assert_eq!(
        (ruled.kind, ruled.names),
        (Kind::RuleEvent, vec![INGEST.to_owned(), rule.to_owned()])
    );
    assert_eq!(ruled.cause.unwrap().code, "THROTTLING");

    let send = json!({"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/123456789012/orders", "MessageBody": "hello"}).to_string();
    let universal = ("TARGET_ARN", "arn:aws:scheduler:::aws-sdk:sqs:sendMessage");
    let scheduled = of(&send, &[("SCHEDULE_ARN", schedule), universal]);
    assert_eq!(scheduled.names[0], crate::sample::ORDERS);
    assert_eq!(scheduled.to_queue(&send), "hello");
    let cut = of(
        &send,
        &[
            ("SCHEDULE_ARN", schedule),
            universal,
            ("IS_PAYLOAD_TRUNCATED", "true"),
        ],
    );
    assert!(matches!(cut.payload, Payload::CutShort(_)));

    let machine = "arn:aws:states:eu-west-1:123456789012:stateMachine:m";
    let changed = |included: bool, input: Value| {
        json!({
            "source": "aws.states", "detail-type": "Step Functions Execution Status Change",
            "detail": {"stateMachineArn": machine, "executionArn": "e-1", "status": "FAILED", "input": input, "inputDetails": {"included": included}},
        })
        .to_string()
    };
    let whole = of(&changed(true, json!("{\"a\":1}")), &[]);
    assert_eq!(
        (whole.names, whole.payload),
        (
            vec![machine.to_owned()],
            Payload::Inside("{\"a\":1}".into())
        )
    );
    let without = of(&changed(false, Value::Null), &[]);
    assert!(matches!(without.payload, Payload::Missing { what, .. } if what.contains("e-1")));
}

#[test]
fn events_that_a_custom_bus_did_not_deliver_are_named_and_not_there() {
    let record = json!({
        "version": "1.0", "busArn": "arn:aws:events:eu-west-1:123456789012:bus/b",
        "subscriberArn": "arn:aws:events:eu-west-1:123456789012:subscriber/s", "targetArn": INGEST,
        "errorCode": "ACCESS_DENIED", "failedMessages": [{"eventId": "e-1"}, {"eventId": "e-2"}],
    });
    let told = of(&record.to_string(), &[]);
    assert_eq!(
        (told.kind, told.names[0].as_str()),
        (Kind::SubscriberRecord, INGEST)
    );
    assert!(matches!(told.payload, Payload::Missing { what, .. } if what.contains("e-1, e-2")));
}

#[test]
fn an_ordinary_body_is_what_it_is() {
    for body in [
        "x",
        "",
        "{",
        r#"{"requestPayload": 1}"#,
        r#"{"requestContext": {"functionArn": "f", "condition": "c"}, "requestPayload": 1}"#,
        r#"{"requestContext": "none"}"#,
        r#"{"Type": "Notification", "TopicArn": "shop", "Message": "m"}"#,
    ] {
        assert_eq!(of(body, &[]), Envelope::default(), "{body}");
    }
}

#[test]
fn a_schedules_request_is_replayed_whole_or_not_at_all() {
    let schedule = "arn:aws:scheduler:eu-west-1:123456789012:schedule/g/s";
    let asked = |api: &str, request: Value| {
        let target = format!("arn:aws:scheduler:::aws-sdk:{api}");
        of(
            &request.to_string(),
            &[("SCHEDULE_ARN", schedule), ("TARGET_ARN", &target)],
        )
    };
    for (name, qualifier, to) in [
        (INGEST, json!("live"), format!("{INGEST}:live")),
        ("ingest", Value::Null, INGEST.to_owned()),
    ] {
        let mut request = json!({"FunctionName": name, "Payload": "{}", "InvocationType": "Event"});
        if !qualifier.is_null() {
            request["Qualifier"] = qualifier;
        }
        let told = asked("lambda:invoke", request);
        assert_eq!(
            (told.names[0].as_str(), told.payload),
            (to.as_str(), Payload::Inside("{}".into()))
        );
    }
    let queue = "https://sqs.eu-west-1.amazonaws.com/123456789012/orders";
    let attributes = json!({"QueueUrl": queue, "MessageBody": "b", "MessageAttributes": {"a": {}}});
    for (api, request, words) in [
        ("sqs:sendMessage", attributes, "MessageAttributes"),
        (
            "sns:publish",
            json!({"TopicArn": "t", "Message": "m"}),
            "sns:publish",
        ),
        (
            "lambda:invoke",
            json!({"FunctionName": "a:b", "Payload": "{}"}),
            "is not replayed",
        ),
    ] {
        let told = asked(api, request).payload;
        assert!(
            matches!(&told, Payload::Unreadable(why) if why.contains(words)),
            "{told:?}"
        );
    }
}

#[test]
fn what_runs_or_has_succeeded_is_not_begun_again() {
    for (status, failed) in [
        ("FAILED", true),
        ("TIMED_OUT", true),
        ("ABORTED", true),
        ("RUNNING", false),
        ("SUCCEEDED", false),
    ] {
        let event = json!({
            "source": "aws.states", "detail-type": "Step Functions Execution Status Change",
            "detail": {"stateMachineArn": "arn:aws:states:eu-west-1:123456789012:stateMachine:m", "status": status, "input": "{}"},
        });
        let told = of(&event.to_string(), &[]).payload;
        assert_eq!(told != Payload::NotFailed, failed, "{status}");
    }
}

#[test]
fn a_failure_record_that_a_topic_passed_on_is_a_failure_record() {
    let record = json!({
        "requestContext": {"requestId": ID, "functionArn": INGEST, "condition": "RetriesExhausted"},
        "requestPayload": {"order": 7},
    });
    let body = json!({
        "Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:failures", "Message": record.to_string(),
    });
    let told = of(&body.to_string(), &[]);
    assert_eq!(
        (told.kind, told.names[0].as_str()),
        (Kind::FailureRecord, INGEST)
    );
    assert_eq!(told.payload, Payload::Inside(r#"{"order":7}"#.into()));
}
