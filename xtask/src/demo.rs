//! `cargo xtask demo`: an alarm on the ingestion path, answered on a local cloud, with the evidence an engineer asks for.

mod ledger;
mod outage;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_cloudwatch::types::{MetricDatum, StandardUnit};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::ledger::{Ledger, Line};
use crate::cloud::{self, Cloud};
use crate::functions::Profile;
use crate::progress::Progress;
use crate::workspace::root;
use crate::{Error, Result};

/// The demo's own cloud, so that it never meets another's messages.
const CLOUD: &str = "demo";
/// Messages in the dead-letter queue before the alarm.
const SEEDED: usize = 500;
/// Messages that come to the dead-letter queue by a real redrive from the ingestion queue.
const REDRIVEN: usize = 20;
/// Messages that no replay cures.
const POISON: usize = 5;
/// The first of the messages that are as the services of AWS write them.
const FIRST_ENVELOPE: usize = 20;
/// The longest body, a little below what SQS takes.
const LARGE_BYTES: usize = 900_000;
/// How long the remediation may take before the demo gives up.
const PATIENCE: Duration = Duration::from_mins(4);
/// The mark of a message that was replayed as often as the policy allows.
const WORN_OUT: &str = "3 run-of-an-earlier-incident";

/// What the command takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    story: Option<Story>,
    /// Leave the cloud running afterwards, to look around
    #[arg(long, global = true)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, clap::Subcommand)]
enum Story {
    /// An API outage: a bad version, a failing backend, and a dead one, as a client sees them
    Outage,
}

/// Shows the story that was asked for; the ingestion's from alarm to account unless another was.
pub async fn run(args: Args) -> Result<()> {
    let progress = Progress::new("demo");
    if let Some(Story::Outage) = args.story {
        return Box::pin(outage::run(progress, args.keep)).await;
    }
    // A cloud that an earlier demo left holds that demo's messages.
    cloud::down(CLOUD).await?;
    let cloud = cloud::up(CLOUD, Profile::Release).await?;
    let story = Demo::new(progress, cloud).await?.tell().await;
    if args.keep {
        progress.say(format_args!(
            "the cloud stays up: eval \"$(cargo xtask cloud env --name {CLOUD})\", and `cargo xtask cloud down --name {CLOUD}` in the end"
        ));
    } else {
        cloud::down(CLOUD).await?;
    }
    let tally = story?;
    println!("an API outage, as its clients see it: cargo xtask demo outage\n");
    println!("{tally}");
    if tally.balances() {
        Ok(())
    } else {
        Err(Error::Imbalance {
            tally: tally.to_string(),
        })
    }
}

/// What became of the seeded messages, counted at the queues themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tally {
    seeded: usize,
    replayed: usize,
    quarantined: usize,
    lost: usize,
    duplicated: usize,
}

impl Tally {
    fn balances(self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.replayed + self.quarantined == self.seeded
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "demo: {} seeded, {} replayed, {} quarantined, {} lost, {} duplicated",
            self.seeded, self.replayed, self.quarantined, self.lost, self.duplicated
        )
    }
}

struct Demo {
    progress: Progress,
    cloud: Cloud,
    sqs: aws_sdk_sqs::Client,
    ledger: Ledger,
    cloudwatch: aws_sdk_cloudwatch::Client,
    lambda: aws_sdk_lambda::Client,
}

impl Demo {
    async fn new(progress: Progress, cloud: Cloud) -> Result<Self> {
        let config: SdkConfig = cloud.sdk_config().await;
        Ok(Self {
            progress,
            sqs: aws_sdk_sqs::Client::new(&config),
            ledger: Ledger::new(&cloud, &config)?,
            cloudwatch: aws_sdk_cloudwatch::Client::new(&config),
            lambda: aws_sdk_lambda::Client::new(&config),
            cloud,
        })
    }

    async fn tell(&self) -> Result<Tally> {
        let seeds = self
            .progress
            .step(
                format_args!("put {SEEDED} messages in the dead-letter queue"),
                self.seed(),
            )
            .await?;
        self.print_queues("before").await?;
        let raised = Instant::now();
        let mut arrivals = BTreeMap::new();
        self.progress
            .step(
                "publish an error rate of 37.5 percent: IngestionErrorRateHigh fires",
                self.raise(),
            )
            .await?;
        let (incident, timeline) = self
            .progress
            .step(
                "the rule wakes dlq-replay, a consumer takes what it replays; wait for its verdict",
                self.verdict_while_consuming(&mut arrivals),
            )
            .await?;
        let total = raised.elapsed();
        print_timeline(&timeline, total);
        self.print_queues("after").await?;
        let tally = self
            .progress
            .step(
                "count what arrived, message by message",
                self.tally(&seeds, arrivals),
            )
            .await?;
        self.deliver_again(&timeline).await?;
        self.print_next(&incident);
        Ok(tally)
    }

    /// Fills the dead-letter queue and gives the `demo_id`s of all that it now holds.
    async fn seed(&self) -> Result<HashSet<String>> {
        let dlq = self.cloud.output("IngestionDlqUrl")?;
        let ingestion = self.cloud.output("IngestionQueueUrl")?;
        let own = self.ingestion_arn()?;
        let ids: Vec<String> = (0..SEEDED).map(|n| format!("m-{n:03}")).collect();
        // One message comes from a queue that the policy does not know.
        let (foreign, rest) = ids.split_at(1);
        let (redriven, straight) = rest.split_at(REDRIVEN);
        let entries: Vec<_> = straight
            .iter()
            .enumerate()
            .map(|(n, id)| straight_entry(n, id, &own))
            .collect::<Result<_>>()?;
        for batch in batches(entries) {
            self.send(dlq, batch).await?;
        }
        let entries = redriven
            .iter()
            .enumerate()
            .map(|(n, id)| entry(n, &body(id), HashMap::new()))
            .collect::<Result<_>>()?;
        for batch in batches(entries) {
            self.send(ingestion, batch).await?;
        }
        self.exhaust(ingestion, 3).await?;
        let stranger = self.foreign_queue().await?;
        self.send(
            &stranger,
            vec![entry(0, &body(&foreign[0]), HashMap::new())?],
        )
        .await?;
        self.exhaust(&stranger, 1).await?;
        Ok(ids.into_iter().collect())
    }

    fn ingestion_arn(&self) -> Result<String> {
        let url = self.cloud.output("IngestionQueueUrl")?;
        let name = url.rsplit('/').next().unwrap_or_default();
        let (region, account) = (&self.cloud.region, &self.cloud.account_id);
        Ok(format!("arn:aws:sqs:{region}:{account}:{name}"))
    }

    /// Receives all of a queue's messages as often as its redrive policy allows, so that SQS itself moves them.
    async fn exhaust(&self, queue: &str, max_receive_count: usize) -> Result<()> {
        // One round more than allowed makes SQS notice.
        for _ in 0..=max_receive_count {
            let mut seen = HashSet::new();
            loop {
                let messages = self.receive(queue, 0).await?;
                let fresh = messages
                    .iter()
                    .filter_map(Message::message_id)
                    .filter(|id| seen.insert((*id).to_owned()))
                    .count();
                if fresh == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// A queue outside the policy that shares the dead-letter queue.
    async fn foreign_queue(&self) -> Result<String> {
        let redrive = serde_json::json!({
            "deadLetterTargetArn": self.cloud.output("IngestionDlqArn")?,
            "maxReceiveCount": 1,
        });
        let answer = self
            .sqs
            .create_queue()
            .queue_name("forgeguard-demo-stranger")
            .attributes(QueueAttributeName::RedrivePolicy, redrive.to_string())
            .send()
            .await
            .map_err(Error::aws("create the stranger's queue"))?;
        Ok(answer.queue_url.unwrap_or_default())
    }

    async fn send(&self, queue: &str, batch: Vec<SendMessageBatchRequestEntry>) -> Result<()> {
        let answer = self
            .sqs
            .send_message_batch()
            .queue_url(queue)
            .set_entries(Some(batch))
            .send()
            .await
            .map_err(Error::aws("seed messages"))?;
        match answer.failed().first() {
            None => Ok(()),
            Some(failed) => Err(Error::aws("seed messages")(format!("{failed:?}"))),
        }
    }

    async fn receive(&self, queue: &str, visibility_seconds: i32) -> Result<Vec<Message>> {
        let answer = self
            .sqs
            .receive_message()
            .queue_url(queue)
            .max_number_of_messages(10)
            .visibility_timeout(visibility_seconds)
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .send()
            .await
            .map_err(Error::aws("receive messages"))?;
        Ok(answer.messages.unwrap_or_default())
    }

    async fn raise(&self) -> Result<()> {
        let datum = MetricDatum::builder()
            .metric_name("ErrorRate")
            .unit(StandardUnit::Percent)
            .value(37.5)
            .build();
        self.cloudwatch
            .put_metric_data()
            .namespace("DataForge/Ingestion")
            .metric_data(datum)
            .send()
            .await
            .map_err(Error::aws("publish the error rate"))?;
        Ok(())
    }

    fn alarm_arn(&self) -> Result<String> {
        Ok(format!(
            "arn:aws:cloudwatch:{}:{}:alarm:{}",
            self.cloud.region,
            self.cloud.account_id,
            self.cloud.output("IngestionErrorRateHighAlarmName")?
        ))
    }

    /// Waits for the verdict, and consumes what arrives until then: nothing follows a canary that nobody consumes.
    async fn verdict_while_consuming(
        &self,
        arrivals: &mut BTreeMap<String, usize>,
    ) -> Result<(String, Vec<Line>)> {
        let is_over = Cell::new(false);
        let verdict = async {
            let verdict = self.verdict().await;
            is_over.set(true);
            verdict
        };
        let (verdict, consumed) = tokio::join!(verdict, self.consume(arrivals, &is_over));
        consumed?;
        verdict
    }

    /// Takes messages out of the ingestion queue, as its consumer does.
    async fn consume(
        &self,
        arrivals: &mut BTreeMap<String, usize>,
        is_over: &Cell<bool>,
    ) -> Result<()> {
        let queue = self.cloud.output("IngestionQueueUrl")?;
        let mut look = tokio::time::interval(Duration::from_millis(200));
        while !is_over.get() {
            look.tick().await;
            for message in self.receive(queue, 30).await? {
                let receipt = message.receipt_handle().unwrap_or_default();
                let delete = self.sqs.delete_message().queue_url(queue);
                let deleted = delete.receipt_handle(receipt).send().await;
                deleted.map_err(Error::aws("consume a message"))?;
                let id = demo_id(message.body().unwrap_or_default());
                *arrivals.entry(id).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Waits until the timeline of the alarm's incident tells how the run ended.
    async fn verdict(&self) -> Result<(String, Vec<Line>)> {
        let last_words = ["applied", "escalated", "failed", "skipped"];
        let deadline = Instant::now() + PATIENCE;
        let mut look = tokio::time::interval(Duration::from_millis(200));
        loop {
            look.tick().await;
            if let Some(incident) = self.ledger.incident(&self.alarm_arn()?).await? {
                let timeline = self.ledger.timeline(&incident).await?;
                if timeline
                    .iter()
                    .any(|line| last_words.contains(&line.kind.as_str()))
                {
                    return Ok((incident, timeline));
                }
            }
            if Instant::now() > deadline {
                return Err(Error::Silence {
                    waited: PATIENCE,
                    log: self.cloud.log_file()?,
                });
            }
        }
    }

    async fn print_queues(&self, when: &str) -> Result<()> {
        println!("\nqueues {when}");
        for (name, output) in [
            ("ingestion", "IngestionQueueUrl"),
            ("dead-letter", "IngestionDlqUrl"),
            ("quarantine", "QuarantineQueueUrl"),
        ] {
            let answer = self
                .sqs
                .get_queue_attributes()
                .queue_url(self.cloud.output(output)?)
                .attribute_names(QueueAttributeName::ApproximateNumberOfMessages)
                .attribute_names(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)
                .send()
                .await
                .map_err(Error::aws("read a queue"))?;
            let count = |name| {
                let found = answer.attributes().and_then(|all| all.get(&name));
                found.map_or("?", String::as_str).to_owned()
            };
            println!(
                "  {name:<12} {:>5} visible {:>5} in flight",
                count(QueueAttributeName::ApproximateNumberOfMessages),
                count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)
            );
        }
        Ok(())
    }

    /// Empties the queues and matches what was consumed, and what they held, with what was seeded.
    async fn tally(
        &self,
        seeds: &HashSet<String>,
        mut arrivals: BTreeMap<String, usize>,
    ) -> Result<Tally> {
        let consumed: usize = arrivals.values().sum();
        let replayed = consumed + self.collect("IngestionQueueUrl", &mut arrivals).await?;
        let quarantined = self.collect("QuarantineQueueUrl", &mut arrivals).await?;
        let mut left = BTreeMap::new();
        self.collect("IngestionDlqUrl", &mut left).await?;
        let lost = seeds
            .iter()
            .filter(|id| !arrivals.contains_key(*id) && !left.contains_key(*id))
            .count();
        let duplicated = arrivals.values().map(|count| count - 1).sum();
        Ok(Tally {
            seeded: seeds.len(),
            replayed,
            quarantined,
            lost,
            duplicated,
        })
    }

    async fn collect(&self, output: &str, into: &mut BTreeMap<String, usize>) -> Result<usize> {
        let queue = self.cloud.output(output)?;
        let mut held = 0;
        loop {
            // Hidden for good, so that the next receive gives others.
            let messages = self.receive(queue, 3_600).await?;
            if messages.is_empty() {
                return Ok(held);
            }
            for message in messages {
                held += 1;
                let id = demo_id(message.body().unwrap_or_default());
                *into.entry(id).or_default() += 1;
            }
        }
    }

    /// Delivers the same event a second time and shows that nothing happens, and why.
    async fn deliver_again(&self, timeline: &[Line]) -> Result<()> {
        let changed_at = timeline
            .iter()
            .find_map(|line| line.detail.pointer("/event/changed_at")?.as_str())
            .unwrap_or_default();
        let path = root().join("events/dlq-replay/IngestionErrorRateHigh.alarm.json");
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let mut event: Value =
            serde_json::from_str(&text).map_err(|source| Error::Json { path, source })?;
        event["account"] = self.cloud.account_id.as_str().into();
        event["region"] = self.cloud.region.as_str().into();
        event["resources"] = serde_json::json!([self.alarm_arn()?]);
        event["detail"]["alarmName"] = self.cloud.output("IngestionErrorRateHighAlarmName")?.into();
        event["detail"]["state"]["timestamp"] = changed_at.into();
        let answer = self
            .lambda
            .invoke()
            .function_name(self.cloud.output("DlqReplayFunctionName")?)
            .payload(Blob::new(event.to_string()))
            .send()
            .await
            .map_err(Error::aws("deliver the event again"))?;
        let payload = answer.payload().map(|payload| payload.as_ref().to_vec());
        let response: Value =
            serde_json::from_slice(&payload.unwrap_or_default()).unwrap_or(Value::Null);
        let report = &response["reports"][0];
        println!("\nthe same event, delivered again");
        println!("  duplicate  {}", report["duplicate"]);
        println!(
            "  outcome    {} (the first delivery's)",
            report["outcome"].as_str().unwrap_or("?")
        );
        println!(
            "  why        {}",
            report["notes"][0].as_str().unwrap_or("?")
        );
        if report["duplicate"] == true {
            Ok(())
        } else {
            Err(Error::aws("see the second delivery do nothing")(
                response.to_string(),
            ))
        }
    }

    fn print_next(&self, incident: &str) {
        let table = self
            .cloud
            .outputs
            .get("LedgerTableName")
            .map_or("", String::as_str);
        println!("\nwhere to look next (with `cargo xtask demo --keep`)");
        println!(
            "  the timeline      aws dynamodb query --table-name {table} --key-condition-expression 'pk = :i' \\"
        );
        println!(
            "                      --expression-attribute-values '{{\":i\":{{\"S\":\"incident#{incident}\"}}}}'"
        );
        println!("  switch it off     aws dynamodb put-item --table-name {table} \\");
        println!(
            "                      --item '{{\"pk\":{{\"S\":\"switch\"}},\"sk\":{{\"S\":\"global\"}},\"reason\":{{\"S\":\"by hand\"}}}}'"
        );
        println!("  what it may do    docs/remediations/dlq-replay.md");
        println!();
    }
}

/// One of the messages that were sent straight to the dead-letter queue: of every kind that SQS knows.
fn straight_entry(n: usize, id: &str, own: &str) -> Result<SendMessageBatchRequestEntry> {
    if let Some(kind) = n.checked_sub(FIRST_ENVELOPE)
        && let Some((body, texts)) = enveloped(kind, id, own)
    {
        let attributes = texts
            .into_iter()
            .map(|(name, text)| Ok((name.to_owned(), value("String", &text)?)))
            .collect::<Result<_>>()?;
        return entry(n, &body, attributes);
    }
    let mut attributes = HashMap::new();
    let mut put =
        |name: &str, value: MessageAttributeValue| attributes.insert(name.to_owned(), value);
    match n {
        0 => {
            let padding = "x".repeat(LARGE_BYTES);
            let body = serde_json::json!({"demo_id": id, "padding": padding}).to_string();
            return entry(n, &body, attributes);
        }
        1..=POISON => return entry(n, &format!("{id} is no JSON"), attributes),
        6 => {
            put("ForgeguardReplay", value("String", WORN_OUT)?);
        }
        _ => match n % 5 {
            0 => {
                put("tenant", value("String", "acme")?);
                put("attempt", value("Number", "17")?);
            }
            1 => {
                let blob = MessageAttributeValue::builder()
                    .data_type("Binary")
                    .binary_value(aws_sdk_sqs::primitives::Blob::new([0_u8, 1, 254, 255]))
                    .build()
                    .map_err(Error::aws("build an attribute"))?;
                put("checksum", blob);
            }
            2 => {
                put("size", value("Number.int", "42")?);
                put("hint", value("String.json", r#"{"a":1}"#)?);
            }
            3 => {
                for at in 0..10 {
                    put(&format!("attribute-{at}"), value("String", "full")?);
                }
            }
            _ => {}
        },
    }
    entry(n, &body(id), attributes)
}

/// A message as one of the services of AWS writes it that failed to deliver: its body and its attributes. Those that hold
/// their payload and are for the ingestion queue are replayed, and all others quarantined.
fn enveloped(kind: usize, id: &str, own: &str) -> Option<(String, Vec<(&'static str, String)>)> {
    let request = format!("00000000-0000-4000-8000-{kind:012}");
    let of = |service: &str, resource: &str| {
        own.replacen(":sqs:", &format!(":{service}:"), 1)
            .rsplit_once(':')
            .map(|(start, _)| format!("{start}:{resource}"))
            .unwrap_or_default()
    };
    let function = of("lambda", "function:demo");
    let schedule = || ("SCHEDULE_ARN", of("scheduler", "schedule/default/demo"));
    let failed = |more: Value| {
        let mut record = json!({
            "demo_id": id,
            "version": "1.0",
            "requestContext": {"requestId": request, "functionArn": function, "condition": "RetriesExhausted"},
        });
        if let (Some(record), Value::Object(more)) = (record.as_object_mut(), more) {
            record.extend(more);
        }
        record.to_string()
    };
    let mut attributes = Vec::new();
    let body = match kind {
        // A rule's event and a function's dead letter.
        0 => {
            attributes.push(("RULE_ARN", of("events", "rule/demo")));
            attributes.push(("TARGET_ARN", own.to_owned()));
            body(id)
        }
        1 => {
            attributes.push(("RequestID", request));
            attributes.push(("ErrorMessage", "out of stock".to_owned()));
            body(id)
        }
        // A schedule's request to SQS, whole and cut short.
        2 | 3 => {
            let mut parts = own.rsplit(':');
            let (name, account, region) = (parts.next()?, parts.next()?, parts.next()?);
            let url = format!("https://sqs.{region}.amazonaws.com/{account}/{name}");
            attributes.push(schedule());
            attributes.push(("TARGET_ARN", "arn:aws:scheduler:::aws-sdk:sqs:sendMessage".to_owned()));
            attributes.push(("IS_PAYLOAD_TRUNCATED", (kind == 3).to_string()));
            json!({"QueueUrl": url, "MessageBody": body(id)}).to_string()
        }
        // A payload in S3.
        4 => json!([
            "software.amazon.payloadoffloading.PayloadS3Pointer",
            {"s3BucketName": "demo", "s3Key": id},
        ])
        .to_string(),
        // Another's events, with and without payload.
        5 => failed(json!({"requestPayload": {"record": "another's"}})),
        6 => failed(json!({})),
        // Batches of streams, of which only the place is told.
        7 => failed(json!({
            "KafkaBatchInfo": {"recordsInfo": {"readings-0": {"firstRecordOffset": "4711", "lastRecordOffset": "5210"}}},
        })),
        8 => json!({
            "demo_id": id,
            "context": {"partnerResourceArn": of("pipes", "pipe/demo"), "condition": "RetryAttemptsExhausted"},
            "KinesisBatchInfo": {"shardId": "shardId-000000000001", "startSequenceNumber": "1", "endSequenceNumber": "9"},
        })
        .to_string(),
        // What a topic's subscription and a custom bus's subscriber did not take, and an execution that failed.
        9 => json!({
            "demo_id": id, "Type": "Notification", "MessageId": request, "TopicArn": of("sns", "demo"), "Message": body(id),
        })
        .to_string(),
        10 => json!({
            "demo_id": id,
            "busArn": of("events", "bus/demo"),
            "subscriberArn": of("events", "subscriber/demo"),
            "failedMessages": [{"eventId": request}],
        })
        .to_string(),
        11 => json!({
            "demo_id": id,
            "source": "aws.states",
            "detail-type": "Step Functions Execution Status Change",
            "detail": {"stateMachineArn": of("states", "stateMachine:demo"), "status": "FAILED", "input": "{}"},
        })
        .to_string(),
        _ => return None,
    };
    Some((body, attributes))
}

fn value(kind: &str, text: &str) -> Result<MessageAttributeValue> {
    MessageAttributeValue::builder()
        .data_type(kind)
        .string_value(text)
        .build()
        .map_err(Error::aws("build an attribute"))
}

fn entry(
    n: usize,
    body: &str,
    attributes: HashMap<String, MessageAttributeValue>,
) -> Result<SendMessageBatchRequestEntry> {
    SendMessageBatchRequestEntry::builder()
        .id(n.to_string())
        .message_body(body)
        .set_message_attributes((!attributes.is_empty()).then_some(attributes))
        .build()
        .map_err(Error::aws("build a message"))
}

fn body(id: &str) -> String {
    serde_json::json!({"demo_id": id, "record": "reading"}).to_string()
}

/// The id that a seeded body carries, whether or not it is JSON.
fn demo_id(body: &str) -> String {
    let id = serde_json::from_str::<Value>(body).ok().and_then(|body| {
        if let Some(inner) = body.get("MessageBody") {
            return Some(demo_id(inner.as_str()?));
        }
        let id = body.get("demo_id").or_else(|| body.pointer("/1/s3Key"));
        Some(id?.as_str()?.to_owned())
    });
    id.unwrap_or_else(|| body.split(' ').next().unwrap_or_default().to_owned())
}

/// Ten at a time, and a large message on its own.
fn batches(entries: Vec<SendMessageBatchRequestEntry>) -> Vec<Vec<SendMessageBatchRequestEntry>> {
    let (large, small): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|entry| entry.message_body().len() > LARGE_BYTES);
    let mut all: Vec<Vec<_>> = small.chunks(10).map(<[_]>::to_vec).collect();
    all.extend(large.into_iter().map(|entry| vec![entry]));
    all
}

fn print_timeline(timeline: &[Line], total: Duration) {
    println!("\ntimeline");
    for Line {
        at, kind, summary, ..
    } in timeline
    {
        println!("  {at}  {kind:<10} {summary}");
    }
    println!("\nhow long each step took (ms)");
    let steps = timeline
        .iter()
        .find_map(|line| line.detail["steps"].as_array());
    for step in steps.into_iter().flatten() {
        println!(
            "  {:<10} {:>6}",
            step["name"].as_str().unwrap_or("?"),
            step["took_ms"]
        );
    }
    println!(
        "  {:<10} {:>6}  (metric published to verdict read)",
        "in all",
        total.as_millis()
    );
    println!("\naccount");
    let account = timeline
        .iter()
        .find_map(|line| line.detail.pointer("/evidence/account"))
        .unwrap_or(&Value::Null);
    for part in [
        "received",
        "replayed",
        "quarantined",
        "returned",
        "possible_duplicates",
    ] {
        println!("  {part:<20} {}", account[part]);
    }
    for line in timeline {
        for note in line.detail["notes"].as_array().into_iter().flatten() {
            println!("  note: {}", note.as_str().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_account_balances() {
        let full = Tally {
            seeded: 500,
            replayed: 493,
            quarantined: 7,
            lost: 0,
            duplicated: 0,
        };
        assert!(full.balances());
        assert_eq!(
            full.to_string(),
            "demo: 500 seeded, 493 replayed, 7 quarantined, 0 lost, 0 duplicated"
        );
        for wrong in [
            Tally { lost: 1, ..full },
            Tally {
                duplicated: 1,
                ..full
            },
            Tally {
                replayed: 492,
                ..full
            },
        ] {
            assert!(!wrong.balances(), "{wrong}");
        }
    }

    #[test]
    fn every_seed_can_be_told_again() {
        let own = "arn:aws:sqs:us-east-1:123456789012:ingestion";
        for n in [0, 1, 6, 10, 11, 12, 13].into_iter().chain(20..34) {
            let entry = straight_entry(n, "m-001", own).unwrap();
            assert_eq!(demo_id(entry.message_body()), "m-001", "{n}");
        }
    }
}
