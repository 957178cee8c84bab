//! SQS over its JSON protocol: the calls of a replay, answered from memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::answer::{Answer, Refusal};
use crate::messages::{
    TENANT, TENANT_ATTRIBUTE, WEIGHT, WEIGHT_ATTRIBUTE, claimed_sequence, md5_hex, message_id,
};
use crate::queue::Receipt;
use crate::scenario::Scenario;

/// SQS's receipt handles are about this long, and clients carry each of them twice.
const RECEIPT_PADDING: &str = "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0aAQEBzYwP9SBk2Vs4bGXaZQ7hfoWq2TDg5mNcU8LrEtJ1iKVyR3xOv0nHpFsCAujM6bQeWZkYdGT9lfLhP4Xw7zqRoIBaNE2StUKVcmDgJ8";
const LARGEST_BATCH: usize = 10;
const DEFAULT_VISIBILITY: u64 = 30;

#[derive(Deserialize)]
struct ReceiveMessage<'a> {
    #[serde(borrow, rename = "QueueUrl")]
    queue_url: Cow<'a, str>,
    #[serde(rename = "MaxNumberOfMessages", default = "one")]
    max_number_of_messages: usize,
    #[serde(rename = "VisibilityTimeout", default = "default_visibility")]
    visibility_timeout: u64,
    #[serde(rename = "WaitTimeSeconds", default)]
    wait_time_seconds: u64,
    #[serde(rename = "MessageAttributeNames", default)]
    message_attribute_names: Vec<Cow<'a, str>>,
    #[serde(rename = "MessageSystemAttributeNames", default)]
    message_system_attribute_names: Vec<Cow<'a, str>>,
    #[serde(rename = "AttributeNames", default)]
    attribute_names: Vec<Cow<'a, str>>,
}

fn one() -> usize {
    1
}

fn default_visibility() -> u64 {
    DEFAULT_VISIBILITY
}

#[derive(Deserialize)]
struct Batch<'a, T> {
    #[serde(borrow, rename = "QueueUrl")]
    queue_url: Cow<'a, str>,
    #[serde(rename = "Entries")]
    entries: Vec<T>,
}

#[derive(Deserialize)]
struct SendEntry<'a> {
    #[serde(borrow, rename = "Id")]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "MessageBody")]
    message_body: Cow<'a, str>,
    #[serde(borrow, rename = "MessageAttributes", default)]
    message_attributes: BTreeMap<Cow<'a, str>, AttributeValue<'a>>,
}

#[derive(Deserialize)]
struct AttributeValue<'a> {
    #[serde(borrow, rename = "DataType")]
    data_type: Cow<'a, str>,
    #[serde(borrow, rename = "StringValue", default)]
    string_value: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct ReceiptEntry<'a> {
    #[serde(borrow, rename = "Id")]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "ReceiptHandle")]
    receipt_handle: Cow<'a, str>,
    #[serde(rename = "VisibilityTimeout", default)]
    visibility_timeout: u64,
}

#[derive(Deserialize)]
struct ForQueue<'a> {
    #[serde(borrow, rename = "QueueUrl")]
    queue_url: Cow<'a, str>,
}

/// Answers one SQS call.
pub(crate) async fn answer(
    scenario: &Scenario,
    operation: &str,
    body: &[u8],
) -> Result<Answer, Refusal> {
    match operation {
        "ReceiveMessage" => receive(scenario, &parse(body)?).await,
        "SendMessageBatch" => send(scenario, &parse(body)?),
        "DeleteMessageBatch" => settle(scenario, &parse(body)?, |scenario, receipt, _| {
            scenario.queue().delete(receipt)
        }),
        "ChangeMessageVisibilityBatch" => {
            settle(scenario, &parse(body)?, |scenario, receipt, timeout| {
                scenario
                    .queue()
                    .change_visibility(Instant::now(), receipt, timeout)
            })
        }
        "GetQueueAttributes" => attributes(scenario, &parse(body)?),
        _ => Err(Refusal::unknown()),
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::malformed(&error))
}

async fn receive(scenario: &Scenario, call: &ReceiveMessage<'_>) -> Result<Answer, Refusal> {
    if !is_queue(&call.queue_url, &scenario.setup.source_arn) {
        return Ok(Answer::json_1_0("{}".to_owned()));
    }
    let wait_until = Instant::now() + Duration::from_secs(call.wait_time_seconds);
    let visibility = Duration::from_secs(call.visibility_timeout);
    let max = call.max_number_of_messages.min(LARGEST_BATCH);
    let received = loop {
        // Created before the look, so that a change in between wakes it.
        let changed = scenario.changed.notified();
        let now = Instant::now();
        let wake_at = {
            let mut queue = scenario.queue();
            let received = queue.receive(now, max, visibility);
            // Nothing can come back to a drained queue: waiting would add the
            // same constant to every client.
            if !received.is_empty() || now >= wait_until || queue.is_drained() {
                break received;
            }
            queue
                .next_expiry()
                .map_or(wait_until, |expiry| expiry.min(wait_until))
        };
        // Woken or timed out, the queue is looked at again.
        let _ = timeout_at(wake_at, changed).await;
    };
    let with_attributes = !call.message_attribute_names.is_empty();
    let with_system_attributes =
        !call.message_system_attribute_names.is_empty() || !call.attribute_names.is_empty();
    Ok(Answer::json_1_0(render(
        scenario,
        &received,
        with_attributes,
        with_system_attributes,
    )))
}

fn render(
    scenario: &Scenario,
    received: &[Receipt],
    with_attributes: bool,
    with_system_attributes: bool,
) -> String {
    if received.is_empty() {
        return "{}".to_owned();
    }
    let mut json = String::with_capacity(received.len() * (scenario.setup.body_bytes * 2 + 1_024));
    json.push_str(r#"{"Messages":["#);
    for (position, receipt) in received.iter().enumerate() {
        let Some(message) = scenario.corpus.get(receipt.message as usize) else {
            continue;
        };
        if position > 0 {
            json.push(',');
        }
        json.push('{');
        json.push_str(&message.fragment);
        // Writing to a string cannot fail.
        let _ = write!(json, r#","ReceiptHandle":"{}""#, handle(*receipt));
        if with_attributes {
            let _ = write!(
                json,
                r#","MessageAttributes":{{"{TENANT_ATTRIBUTE}":{{"DataType":"String","StringValue":"{TENANT}"}},"{WEIGHT_ATTRIBUTE}":{{"DataType":"Number","StringValue":"{WEIGHT}"}}}}"#,
            );
        }
        if with_system_attributes {
            let sent = scenario.setup.sent_at_ms;
            let _ = write!(
                json,
                r#","Attributes":{{"SentTimestamp":"{sent}","ApproximateFirstReceiveTimestamp":"{sent}","ApproximateReceiveCount":"{}","SenderId":"AIDAIENQZJOLO23YVJ4VO","DeadLetterQueueSourceArn":"{}"}}"#,
                receipt.receive_count + 3,
                scenario.setup.destination_arn,
            );
        }
        json.push('}');
    }
    json.push_str("]}");
    json
}

fn send(scenario: &Scenario, batch: &Batch<'_, SendEntry<'_>>) -> Result<Answer, Refusal> {
    if batch.entries.is_empty() || batch.entries.len() > LARGEST_BATCH {
        return Err(Refusal::batch_size());
    }
    let to_destination = is_queue(&batch.queue_url, &scenario.setup.destination_arn);
    let mut json = String::with_capacity(batch.entries.len() * 160);
    json.push_str(r#"{"Successful":["#);
    let mut arrived = Vec::with_capacity(batch.entries.len());
    for (position, entry) in batch.entries.iter().enumerate() {
        let known = claimed_sequence(&entry.message_body).and_then(|sequence| {
            let message = scenario.corpus.get(sequence as usize)?;
            (*message.body == *entry.message_body).then_some((sequence, message))
        });
        let md5: Cow<'_, str> = match known {
            Some((_, message)) => Cow::Borrowed(&message.md5),
            None => Cow::Owned(md5_hex(entry.message_body.as_bytes())),
        };
        arrived.push(
            known
                .filter(|_| carries_its_attributes(&entry.message_attributes))
                .map(|(sequence, _)| sequence),
        );
        if position > 0 {
            json.push(',');
        }
        // A redriven message gets a new id. Writing to a string cannot fail.
        let _ = write!(
            json,
            r#"{{"Id":{},"MessageId":"{}","MD5OfMessageBody":"{md5}"}}"#,
            serde_json::Value::from(entry.id.as_ref()),
            known.map_or_else(
                || message_id(u32::MAX),
                |(sequence, _)| message_id(sequence ^ 0x8000_0000)
            ),
        );
    }
    json.push_str(r#"],"Failed":[]}"#);
    if to_destination {
        scenario.destination().arrive(arrived.len(), Instant::now());
        let mut arrivals = scenario.arrivals();
        for message in arrived {
            arrivals.note(message);
        }
    } else {
        scenario.note_elsewhere(batch.entries.len() as u64);
    }
    Ok(Answer::json_1_0(json))
}

fn carries_its_attributes(attributes: &BTreeMap<Cow<'_, str>, AttributeValue<'_>>) -> bool {
    [
        (TENANT_ATTRIBUTE, "String", TENANT),
        (WEIGHT_ATTRIBUTE, "Number", WEIGHT),
    ]
    .into_iter()
    .all(|(name, data_type, value)| {
        attributes.get(name).is_some_and(|attribute| {
            attribute.data_type == data_type && attribute.string_value.as_deref() == Some(value)
        })
    })
}

/// Deletes or gives back each entry of a batch.
fn settle(
    scenario: &Scenario,
    batch: &Batch<'_, ReceiptEntry<'_>>,
    act: impl Fn(&Scenario, Receipt, Duration) -> bool,
) -> Result<Answer, Refusal> {
    if batch.entries.is_empty() || batch.entries.len() > LARGEST_BATCH {
        return Err(Refusal::batch_size());
    }
    let from_source = is_queue(&batch.queue_url, &scenario.setup.source_arn);
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for entry in &batch.entries {
        let done = from_source
            && receipt(&entry.receipt_handle).is_some_and(|receipt| {
                act(
                    scenario,
                    receipt,
                    Duration::from_secs(entry.visibility_timeout),
                )
            });
        if done {
            successful.push(json!({ "Id": entry.id }));
        } else {
            failed.push(json!({
                "Id": entry.id,
                "Code": "ReceiptHandleIsInvalid",
                "Message": "the receipt handle is not that of a message in flight",
                "SenderFault": true,
            }));
        }
    }
    scenario.changed.notify_waiters();
    Ok(Answer::json_1_0(
        json!({ "Successful": successful, "Failed": failed }).to_string(),
    ))
}

fn attributes(scenario: &Scenario, call: &ForQueue<'_>) -> Result<Answer, Refusal> {
    let setup = &scenario.setup;
    let is_source = is_queue(&call.queue_url, &setup.source_arn);
    let (visible, in_flight) = if is_source {
        let queue = scenario.queue();
        (queue.visible() as u64, queue.in_flight() as u64)
    } else if is_queue(&call.queue_url, &setup.destination_arn) {
        (scenario.destination().held(Instant::now()), 0)
    } else {
        (0, 0)
    };
    let name = queue_name(&call.queue_url);
    let Some((prefix, _)) = setup.source_arn.rsplit_once(':') else {
        return Err(Refusal::unknown());
    };
    let mut attributes = json!({
        "QueueArn": format!("{prefix}:{name}"),
        "ApproximateNumberOfMessages": visible.to_string(),
        "ApproximateNumberOfMessagesNotVisible": in_flight.to_string(),
        "ApproximateNumberOfMessagesDelayed": "0",
        "CreatedTimestamp": (setup.sent_at_ms / 1_000).to_string(),
        "LastModifiedTimestamp": (setup.sent_at_ms / 1_000).to_string(),
        "VisibilityTimeout": DEFAULT_VISIBILITY.to_string(),
        "MaximumMessageSize": "1048576",
        "MessageRetentionPeriod": "1209600",
        "DelaySeconds": "0",
        "ReceiveMessageWaitTimeSeconds": "0",
        "SqsManagedSseEnabled": "true",
    });
    if is_queue(&call.queue_url, &setup.destination_arn) {
        attributes["RedrivePolicy"] = json!({
            "deadLetterTargetArn": setup.source_arn,
            "maxReceiveCount": 3,
        })
        .to_string()
        .into();
    }
    Ok(Answer::json_1_0(
        json!({ "Attributes": attributes }).to_string(),
    ))
}

fn queue_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

fn is_queue(url: &str, arn: &str) -> bool {
    arn.rsplit(':').next() == Some(queue_name(url))
}

fn handle(receipt: Receipt) -> String {
    format!(
        "{}-{}-{RECEIPT_PADDING}",
        receipt.message, receipt.receive_count
    )
}

fn receipt(handle: &str) -> Option<Receipt> {
    let mut parts = handle.splitn(3, '-');
    Some(Receipt {
        message: parts.next()?.parse().ok()?,
        receive_count: parts.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Setup;
    use serde_json::Value;

    const SOURCE: &str = "http://127.0.0.1/000000000000/dlq";
    const DESTINATION: &str = "http://127.0.0.1/000000000000/orders";

    fn scenario(messages: u32) -> Scenario {
        Scenario::new(Setup {
            messages,
            body_bytes: 200,
            source_arn: "arn:aws:sqs:eu-west-1:000000000000:dlq".to_owned(),
            destination_arn: "arn:aws:sqs:eu-west-1:000000000000:orders".to_owned(),
            ..Setup::default()
        })
    }

    async fn call(scenario: &Scenario, operation: &str, body: Value) -> Value {
        let answer = answer(scenario, operation, body.to_string().as_bytes())
            .await
            .unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    async fn receive_all(scenario: &Scenario) -> Vec<Value> {
        let received = call(
            scenario,
            "ReceiveMessage",
            json!({
                "QueueUrl": SOURCE,
                "MaxNumberOfMessages": 10,
                "WaitTimeSeconds": 1,
                "MessageAttributeNames": ["All"],
                "MessageSystemAttributeNames": ["All"],
            }),
        )
        .await;
        received["Messages"].as_array().cloned().unwrap_or_default()
    }

    #[tokio::test]
    async fn a_replay_of_everything_balances() {
        let scenario = scenario(25);
        loop {
            let messages = receive_all(&scenario).await;
            if messages.is_empty() {
                break;
            }
            let sends: Vec<Value> = messages
                .iter()
                .map(|message| {
                    json!({
                        "Id": message["MessageId"],
                        "MessageBody": message["Body"],
                        "MessageAttributes": message["MessageAttributes"],
                    })
                })
                .collect();
            let sent = call(
                &scenario,
                "SendMessageBatch",
                json!({ "QueueUrl": DESTINATION, "Entries": sends }),
            )
            .await;
            assert_eq!(
                sent["Successful"][0]["MD5OfMessageBody"],
                messages[0]["MD5OfBody"]
            );
            let deletes: Vec<Value> = messages
                .iter()
                .map(|message| {
                    json!({ "Id": message["MessageId"], "ReceiptHandle": message["ReceiptHandle"] })
                })
                .collect();
            call(
                &scenario,
                "DeleteMessageBatch",
                json!({ "QueueUrl": SOURCE, "Entries": deletes }),
            )
            .await;
        }
        let report = serde_json::to_value(scenario.report()).unwrap();
        assert_eq!(report["once"], 25);
        assert_eq!(report["left"], 0);
        assert_eq!(report["changed"], 0);
    }

    #[tokio::test]
    async fn a_send_that_drops_an_attribute_counts_as_changed() {
        let scenario = scenario(1);
        let message = receive_all(&scenario).await.remove(0);
        call(
            &scenario,
            "SendMessageBatch",
            json!({ "QueueUrl": DESTINATION, "Entries": [
                { "Id": "a", "MessageBody": message["Body"] },
            ] }),
        )
        .await;
        let report = serde_json::to_value(scenario.report()).unwrap();
        assert_eq!(
            (&report["once"], &report["changed"]),
            (&json!(0), &json!(1))
        );
    }

    #[tokio::test]
    async fn a_message_given_back_wakes_a_waiting_receiver() {
        let scenario = scenario(1);
        let message = receive_all(&scenario).await.remove(0);
        let give_back = call(
            &scenario,
            "ChangeMessageVisibilityBatch",
            json!({ "QueueUrl": SOURCE, "Entries": [
                { "Id": "a", "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 0 },
            ] }),
        );
        let (again, _) = tokio::join!(receive_all(&scenario), give_back);
        assert_eq!(again.len(), 1);
    }

    #[tokio::test]
    async fn attributes_come_only_when_asked_for() {
        let scenario = scenario(1);
        let received = call(&scenario, "ReceiveMessage", json!({ "QueueUrl": SOURCE })).await;
        assert!(received["Messages"][0].get("Attributes").is_none());
        assert!(received["Messages"][0].get("MessageAttributes").is_none());
    }

    #[tokio::test]
    async fn an_unknown_operation_is_refused() {
        assert!(answer(&scenario(0), "PurgeQueue", b"{}").await.is_err());
    }
}
