//! Resources of a test's own on the shared local cloud: queues, a ledger, a policy and an alarm, gone when it ends.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_cloudfront::types::FunctionStage;
use aws_sdk_cloudwatch::types::{ComparisonOperator, StateValue, Statistic};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use aws_sdk_eventbridge::types::Target;
use aws_sdk_sqs::operation::delete_queue::DeleteQueueError;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName, QueueAttributeName,
};
use aws_sdk_ssm::operation::delete_parameter::DeleteParameterError;
use aws_sdk_ssm::types::ParameterType;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use shared::ledger::items::{Standing, Waiting};
use shared::settings;
use tokio::time::Instant;

use xtask::cloud::{KEY_VALUE_STORES, key_value_stores_at};

use crate::case::FUNCTION;
use crate::cloud::{Clients, Cloud};
use crate::failure::{During, Failure, Result, ensure};
use crate::message::{Received, Seed};
use crate::proxy::{Proxy, Receipt};
use crate::replay::FUNCTION_ARN;

/// How long anything may take that should be there in a moment.
pub const SOON: Duration = Duration::from_secs(30);

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its URL.
    pub url: String,
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// Whether it keeps the order within each group.
    pub fifo: bool,
}

/// Whether a queue keeps order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A standard queue.
    Standard,
    /// A FIFO queue.
    Fifo,
}

/// A queue with its dead-letter queue.
#[derive(Debug, Clone)]
pub struct Ingestion {
    /// Where messages are consumed, and are replayed to.
    pub source: Queue,
    /// Where they land when they cannot be consumed.
    pub dlq: Queue,
    /// Where poison is put aside.
    pub quarantine: Queue,
}

/// How many messages a queue holds, by what can be done with them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Ready to be received.
    pub visible: usize,
    /// Received and not deleted.
    pub in_flight: usize,
    /// Not ready yet.
    pub delayed: usize,
}

impl Depth {
    /// All of them.
    #[must_use]
    pub fn total(self) -> usize {
        self.visible + self.in_flight + self.delayed
    }
}

/// An alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
}

#[derive(Debug, Default)]
struct Made {
    queues: Vec<String>,
    alarms: Vec<String>,
    parameters: Vec<String>,
    tables: Vec<String>,
    rules: Vec<String>,
    functions: Vec<String>,
    apis: Vec<String>,
    domains: Vec<String>,
    stages: Vec<(String, String)>,
    distributions: Vec<String>,
    edge: bool,
    machines: Vec<String>,
}

/// A test's own part of the cloud.
#[derive(Debug)]
pub struct World {
    /// The cloud.
    pub cloud: Cloud,
    /// The operator's clients.
    pub aws: Clients,
    /// What all names of this world start with.
    pub name: String,
    /// The ledger's table.
    pub ledger: String,
    /// The SSM parameter that holds the policy.
    pub parameter: String,
    made: Mutex<Made>,
}

/// Runs a test in a world of its own, and removes the world however the test ends.
pub async fn scenario(label: &str, test: impl AsyncFnOnce(&World) -> Result) -> Result {
    let world = World::new(label).await?;
    let ended = AssertUnwindSafe(test(&world)).catch_unwind().await;
    let removed = world.teardown().await;
    match ended {
        Ok(ended) => ended.and(removed),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl World {
    /// A world with a ledger and nothing else.
    pub async fn new(label: &str) -> Result<Self> {
        let cloud = Cloud::from_env()?;
        let aws = Clients::of(&cloud).await;
        let name = format!("e2e-{label}-{:08x}", fastrand::u32(..));
        let world = Self {
            ledger: format!("{name}-ledger"),
            parameter: format!("/forgeguard/{name}/policy"),
            cloud,
            aws,
            name,
            made: Mutex::default(),
        };
        world.create_ledger().await.during("creating the ledger")?;
        Ok(world)
    }

    fn note(&self, note: impl FnOnce(&mut Made)) {
        note(&mut self.made.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Has a function removed in the end.
    pub fn will_remove_function(&self, name: &str) {
        self.note(|made| made.functions.push(name.to_owned()));
    }

    /// Has a REST API removed in the end.
    pub fn will_remove_api(&self, id: &str) {
        self.note(|made| made.apis.push(id.to_owned()));
    }

    /// Has a custom domain removed in the end, with its mappings.
    pub fn will_remove_domain(&self, name: &str) {
        self.note(|made| made.domains.push(name.to_owned()));
    }

    /// Has the stage of an API that stays removed in the end.
    pub fn will_remove_stage(&self, api: &str, stage: &str) {
        self.note(|made| made.stages.push((api.to_owned(), stage.to_owned())));
    }

    /// Has a distribution removed in the end.
    pub fn will_remove_distribution(&self, id: &str) {
        self.note(|made| made.distributions.push(id.to_owned()));
    }

    /// Has the `CloudFront` function and the key-value store of the world's name removed in the end.
    pub fn will_remove_edge(&self) {
        self.note(|made| made.edge = true);
    }

    /// Makes a state machine of the world's name, like `pattern`, with a role of that name that may do anything; its ARN.
    /// Both are removed in the end.
    pub async fn machine_like(&self, pattern: &str) -> Result<String> {
        let Clients { states, iam, .. } = &self.aws;
        let found = states.describe_state_machine();
        let found = found.state_machine_arn(pattern).send().await?;
        let trust = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Principal": {"Service": "states.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }]});
        let role = iam.create_role().role_name(&self.name);
        let role = role.assume_role_policy_document(trust.to_string());
        let role = role.send().await?;
        let role = role.role().during("the role")?.arn().to_owned();
        let all = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "*", "Resource": "*"},
        ]});
        let policy = iam.put_role_policy().role_name(&self.name);
        let policy = policy.policy_name("All").policy_document(all.to_string());
        policy.send().await?;
        let machine = states.create_state_machine().name(&self.name);
        let machine = machine.definition(found.definition()).role_arn(role);
        let arn = machine.send().await?.state_machine_arn().to_owned();
        self.note(|made| made.machines.push(arn.clone()));
        Ok(arn)
    }

    async fn remove_machine(&self, arn: &str) -> Result {
        let Clients { states, iam, .. } = &self.aws;
        let machine = states.delete_state_machine().state_machine_arn(arn);
        machine.send().await?;
        let policy = iam.delete_role_policy().role_name(&self.name);
        policy.policy_name("All").send().await?;
        iam.delete_role().role_name(&self.name).send().await?;
        Ok(())
    }

    async fn create_ledger(&self) -> Result {
        let key = |name: &str, kind| -> Result<_> {
            let attribute = AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S)
                .build()?;
            Ok((
                attribute,
                KeySchemaElement::builder()
                    .attribute_name(name)
                    .key_type(kind)
                    .build()?,
            ))
        };
        let (pk, hash) = key("pk", KeyType::Hash)?;
        let (sk, range) = key("sk", KeyType::Range)?;
        self.note(|made| made.tables.push(self.ledger.clone()));
        self.aws
            .dynamodb
            .create_table()
            .table_name(&self.ledger)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(pk)
            .attribute_definitions(sk)
            .key_schema(hash)
            .key_schema(range)
            .send()
            .await?;
        Ok(())
    }

    /// Creates a queue whose name ends in `role`.
    pub async fn queue(
        &self,
        role: &str,
        kind: Kind,
        attributes: &[(QueueAttributeName, String)],
    ) -> Result<Queue> {
        let fifo = kind == Kind::Fifo;
        let name = format!("{}-{role}{}", self.name, if fifo { ".fifo" } else { "" });
        let mut request = self.aws.sqs.create_queue().queue_name(&name);
        if fifo {
            request = request
                .attributes(QueueAttributeName::FifoQueue, "true")
                .attributes(QueueAttributeName::ContentBasedDeduplication, "true");
        }
        for (attribute, value) in attributes {
            request = request.attributes(attribute.clone(), value);
        }
        let answer = request.send().await.during(&name)?;
        let url = answer.queue_url().during(&name)?.to_owned();
        self.note(|made| made.queues.push(url.clone()));
        self.existing_queue(&url).await
    }

    /// A queue that this world need not have made, and does not remove.
    pub async fn existing_queue(&self, url: &str) -> Result<Queue> {
        let arn = self
            .queue_attribute(url, QueueAttributeName::QueueArn)
            .await?;
        let name = arn.rsplit(':').next().unwrap_or_default().to_owned();
        Ok(Queue {
            url: url.to_owned(),
            fifo: name.strip_suffix(".fifo").is_some(),
            arn,
            name,
        })
    }

    /// Creates a queue, its dead-letter queue and a quarantine queue, all of one kind.
    ///
    /// A message moves to the dead-letter queue once it was received and not deleted.
    pub async fn ingestion(&self, kind: Kind) -> Result<Ingestion> {
        let dlq = self.queue("dlq", kind, &[]).await?;
        let redrive = json!({"deadLetterTargetArn": dlq.arn, "maxReceiveCount": 1}).to_string();
        let source = self
            .queue(
                "source",
                kind,
                &[(QueueAttributeName::RedrivePolicy, redrive)],
            )
            .await?;
        let quarantine = self.queue("quarantine", kind, &[]).await?;
        Ok(Ingestion {
            source,
            dlq,
            quarantine,
        })
    }

    async fn queue_attribute(&self, url: &str, name: QueueAttributeName) -> Result<String> {
        let answer = self
            .aws
            .sqs
            .get_queue_attributes()
            .queue_url(url)
            .attribute_names(name.clone())
            .send()
            .await
            .during(url)?;
        let value = answer
            .attributes()
            .and_then(|attributes| attributes.get(&name));
        Ok(value.during(&format!("{name} of {url}"))?.clone())
    }

    /// How many messages a queue holds.
    pub async fn depth(&self, queue: &Queue) -> Result<Depth> {
        let answer = self
            .aws
            .sqs
            .get_queue_attributes()
            .queue_url(&queue.url)
            .attribute_names(QueueAttributeName::All)
            .send()
            .await
            .during(&queue.name)?;
        let count = |name: QueueAttributeName| -> Result<usize> {
            let counts = answer.attributes().during(&queue.name)?;
            counts
                .get(&name)
                .during(name.as_str())?
                .parse()
                .during(name.as_str())
        };
        Ok(Depth {
            visible: count(QueueAttributeName::ApproximateNumberOfMessages)?,
            in_flight: count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)?,
            delayed: count(QueueAttributeName::ApproximateNumberOfMessagesDelayed)?,
        })
    }

    /// Sends messages, in their order.
    pub async fn seed(&self, queue: &Queue, seeds: &[Seed]) -> Result {
        let mut batch: Vec<&Seed> = Vec::new();
        let mut bytes = 0;
        for seed in seeds {
            let size = crate::message::size(&seed.body, &seed.attributes);
            // A trace header goes by itself: the emulator drops it from a batch.
            let alone = seed.trace_header.is_some();
            if alone || batch.len() == 10 || bytes + size > crate::limits::BATCH_BYTES {
                self.seed_batch(queue, &batch).await?;
                batch.clear();
                bytes = 0;
            }
            if alone {
                self.seed_one(queue, seed).await?;
            } else {
                batch.push(seed);
                bytes += size;
            }
        }
        self.seed_batch(queue, &batch).await
    }

    async fn seed_one(&self, queue: &Queue, seed: &Seed) -> Result {
        let mut request = self
            .aws
            .sqs
            .send_message()
            .queue_url(&queue.url)
            .message_body(&seed.body)
            .set_message_group_id(seed.group.clone())
            .set_message_deduplication_id(seed.deduplication_id.clone());
        for (name, value) in seed.message_attributes()? {
            request = request.message_attributes(name, value);
        }
        if let Some((name, value)) = seed.system_attributes()? {
            request = request.message_system_attributes(name, value);
        }
        request.send().await.during(&queue.name)?;
        Ok(())
    }

    async fn seed_batch(&self, queue: &Queue, seeds: &[&Seed]) -> Result {
        if seeds.is_empty() {
            return Ok(());
        }
        let entries = seeds
            .iter()
            .enumerate()
            .map(|(id, seed)| seed.batch_entry(id));
        let answer = self
            .aws
            .sqs
            .send_message_batch()
            .queue_url(&queue.url)
            .set_entries(Some(entries.collect::<Result<_>>()?))
            .send()
            .await
            .during(&queue.name)?;
        match answer.failed() {
            [] => Ok(()),
            failed => Err(Failure::new(format!("seeding {}: {failed:?}", queue.name))),
        }
    }

    /// Sends messages to the source and lets the redrive policy move them to the dead-letter queue, so that they carry
    /// their `DeadLetterQueueSourceArn`.
    pub async fn dead_letter(&self, ingestion: &Ingestion, seeds: &[Seed]) -> Result {
        self.seed(&ingestion.source, seeds).await?;
        self.fail_all(ingestion).await
    }

    /// Does the work while a consumer takes all that comes to a queue, and gives what it took besides.
    pub async fn consuming<T>(
        &self,
        queue: &Queue,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, Vec<Received>)> {
        let over = Cell::new(false);
        let work = async {
            let done = work.await;
            over.set(true);
            done
        };
        let consumer = async {
            let mut taken = Vec::new();
            let mut look = tokio::time::interval(Duration::from_millis(200));
            while !over.get() {
                look.tick().await;
                taken.extend(self.drain(queue).await?);
            }
            taken.extend(self.drain(queue).await?);
            Ok::<_, Failure>(taken)
        };
        let (done, taken) = tokio::join!(Box::pin(work), Box::pin(consumer));
        Ok((done?, taken?))
    }

    /// Receives all messages of the source without deleting them, until the redrive policy has moved them.
    pub async fn fail_all(&self, ingestion: &Ingestion) -> Result {
        let failing = self.depth(&ingestion.source).await?.total();
        let before = self.depth(&ingestion.dlq).await?.total();
        wait_until(
            "the redrive policy has moved every message",
            SOON,
            async || {
                // Received and given back at once; the receive after that finds it received too often, and moves it.
                self.aws
                    .sqs
                    .receive_message()
                    .queue_url(&ingestion.source.url)
                    .max_number_of_messages(10)
                    .visibility_timeout(0)
                    .send()
                    .await?;
                let moved = self.depth(&ingestion.dlq).await?.total() - before;
                let left = self.depth(&ingestion.source).await?.total();
                Ok((moved == failing && left == 0).then_some(()))
            },
        )
        .await
    }

    /// Receives and deletes all that a queue holds.
    ///
    /// A queue with messages that someone else has in flight cannot be drained, and is an error.
    pub async fn drain(&self, queue: &Queue) -> Result<Vec<Received>> {
        let mut all = Vec::new();
        loop {
            let received = self.receive(queue).await?;
            if received.is_empty() {
                let left = self.depth(queue).await?;
                if left.total() == 0 {
                    return Ok(all);
                }
                if left.in_flight + left.delayed > 0 {
                    return Err(Failure::new(format!(
                        "{} cannot be drained: {left:?}",
                        queue.name
                    )));
                }
                continue;
            }
            let entries = received.iter().enumerate().map(|(id, message)| {
                DeleteMessageBatchRequestEntry::builder()
                    .id(id.to_string())
                    .receipt_handle(&message.handle)
                    .build()
            });
            let answer = self
                .aws
                .sqs
                .delete_message_batch()
                .queue_url(&queue.url)
                .set_entries(Some(entries.collect::<std::result::Result<_, _>>()?))
                .send()
                .await
                .during(&queue.name)?;
            if !answer.failed().is_empty() {
                return Err(Failure::new(format!(
                    "draining {}: {:?}",
                    queue.name,
                    answer.failed()
                )));
            }
            all.extend(received);
        }
    }

    /// Receives up to ten messages with all their attributes, and keeps them from others for ten minutes.
    pub async fn receive(&self, queue: &Queue) -> Result<Vec<Received>> {
        let answer = self
            .aws
            .sqs
            .receive_message()
            .queue_url(&queue.url)
            .max_number_of_messages(10)
            .visibility_timeout(600)
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .send()
            .await
            .during(&queue.name)?;
        Ok(answer
            .messages
            .unwrap_or_default()
            .into_iter()
            .map(Received::read)
            .collect())
    }

    /// Makes visible again what a dead process received through `proxy`, as its visibility timeout would in time.
    pub async fn give_back(&self, proxy: &Proxy) -> Result {
        let mut by_queue: HashMap<String, Vec<String>> = HashMap::new();
        for Receipt { queue_url, handle } in proxy.receipts() {
            by_queue.entry(queue_url).or_default().push(handle);
        }
        for (queue_url, handles) in by_queue {
            for handles in handles.chunks(10) {
                let entries = handles.iter().enumerate().map(|(id, handle)| {
                    ChangeMessageVisibilityBatchRequestEntry::builder()
                        .id(id.to_string())
                        .receipt_handle(handle)
                        .visibility_timeout(0)
                        .build()
                });
                // Messages that were deleted since answer as failed entries, which is as it should be.
                self.aws
                    .sqs
                    .change_message_visibility_batch()
                    .queue_url(&queue_url)
                    .set_entries(Some(entries.collect::<std::result::Result<_, _>>()?))
                    .send()
                    .await
                    .during(&queue_url)?;
            }
        }
        Ok(())
    }

    /// Creates an alarm that stays in the state it is set to, and sets it to ALARM.
    pub async fn alarm(&self, role: &str) -> Result<Alarm> {
        let name = format!("{}-{role}", self.name);
        self.note(|made| made.alarms.push(name.clone()));
        self.aws
            .cloudwatch
            .put_metric_alarm()
            .alarm_name(&name)
            .namespace(&self.name)
            .metric_name("Depth")
            .statistic(Statistic::Maximum)
            .period(60)
            .evaluation_periods(1)
            .threshold(0.0)
            .comparison_operator(ComparisonOperator::GreaterThanThreshold)
            // Without data points, the alarm keeps its state.
            .treat_missing_data("ignore")
            .send()
            .await
            .during(&name)?;
        self.set_alarm(&name, StateValue::Alarm).await?;
        self.existing_alarm(&name).await
    }

    /// An alarm that this world need not have made, and does not remove.
    pub async fn existing_alarm(&self, name: &str) -> Result<Alarm> {
        let request = self.aws.cloudwatch.describe_alarms().alarm_names(name);
        let answer = request.send().await.during(name)?;
        let arn = answer
            .metric_alarms()
            .first()
            .and_then(|alarm| alarm.alarm_arn());
        Ok(Alarm {
            arn: arn.during(name)?.to_owned(),
            name: name.to_owned(),
        })
    }

    /// A queue that gets every event on the default bus that fits `pattern`.
    pub async fn listen(&self, called: &str, pattern: &Value) -> Result<Queue> {
        let queue = self.queue(called, Kind::Standard, &[]).await?;
        let allow = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": queue.arn,
        }]});
        let request = self.aws.sqs.set_queue_attributes().queue_url(&queue.url);
        request
            .attributes(QueueAttributeName::Policy, allow.to_string())
            .send()
            .await
            .during(&queue.name)?;
        let rule = format!("{}-{called}", self.name);
        self.note(|made| made.rules.push(rule.clone()));
        let request = self
            .aws
            .events
            .put_rule()
            .name(&rule)
            .event_pattern(pattern.to_string());
        request.send().await.during(&rule)?;
        let target = Target::builder().id("queue").arn(&queue.arn).build()?;
        let request = self.aws.events.put_targets().rule(&rule).targets(target);
        request.send().await.during(&rule)?;
        Ok(queue)
    }

    /// Waits for a message whose JSON body is the one wanted, and takes all before it out of the queue.
    pub async fn heard(
        &self,
        queue: &Queue,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        wait_until(
            &format!("a message in {}", queue.name),
            patience,
            async || {
                let messages = self.drain(queue).await?;
                let mut bodies = messages
                    .iter()
                    .filter_map(|message| serde_json::from_str::<Value>(&message.body).ok());
                Ok(bodies.find(|body| wanted(body)))
            },
        )
        .await
    }

    /// Sets an alarm's state.
    pub async fn set_alarm(&self, name: &str, state: StateValue) -> Result {
        self.aws
            .cloudwatch
            .set_alarm_state()
            .alarm_name(name)
            .state_value(state)
            .state_reason(
                "Threshold Crossed: 1 datapoint [12.0] was greater than the threshold (0.0).",
            )
            .send()
            .await
            .during(name)?;
        Ok(())
    }

    /// Puts the policy document.
    pub async fn put_policy(&self, document: &Value) -> Result {
        self.note(|made| made.parameters.push(self.parameter.clone()));
        self.aws
            .ssm
            .put_parameter()
            .name(&self.parameter)
            .value(document.to_string())
            .r#type(ParameterType::String)
            .overwrite(true)
            .send()
            .await
            .during(&self.parameter)?;
        Ok(())
    }

    /// The environment of a function that works in this world and speaks to AWS through `endpoint`.
    #[must_use]
    pub fn environment(&self, endpoint: &str) -> Vec<(String, String)> {
        let Cloud {
            region, account_id, ..
        } = &self.cloud;
        let function_arn = format!("arn:aws:lambda:{region}:{account_id}:function:{FUNCTION}");
        [
            (settings::LEDGER_TABLE, self.ledger.as_str()),
            (settings::POLICY_PARAMETER, &self.parameter),
            (settings::LOG, "info"),
            (FUNCTION_ARN, &function_arn),
            ("AWS_ENDPOINT_URL", endpoint),
            (KEY_VALUE_STORES, &key_value_stores_at(endpoint)),
            ("AWS_REGION", &self.cloud.region),
            ("AWS_ACCESS_KEY_ID", &self.cloud.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &self.cloud.secret_access_key),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
    }

    /// All items of the ledger, as plain JSON.
    pub async fn ledger(&self) -> Result<Vec<Value>> {
        self.items(&self.ledger).await
    }

    /// What stands on targets until it is concluded.
    pub async fn standing(&self) -> Result<Vec<Standing>> {
        let bodies = self.bodies("standing#").await?;
        let standing = bodies.into_iter().map(serde_json::from_value);
        Ok(standing.collect::<std::result::Result<_, _>>()?)
    }

    /// The transitions that could not be acted on yet.
    pub async fn waiting(&self) -> Result<Vec<Waiting>> {
        let bodies = self.bodies("waiting#").await?;
        let waiting = bodies.into_iter().map(serde_json::from_value);
        Ok(waiting.collect::<std::result::Result<_, _>>()?)
    }

    /// The bodies of the ledger's items whose sort key starts so.
    async fn bodies(&self, start: &str) -> Result<Vec<Value>> {
        let items = self.ledger().await?;
        let wanted = items.iter().filter(|item| {
            let key = item["sk"].as_str();
            key.is_some_and(|key| key.starts_with(start))
        });
        wanted
            .map(|item| {
                let body = item["body"].as_str().during("the item's body")?;
                serde_json::from_str(body).during(body)
            })
            .collect()
    }

    /// Fails if anything temporary is still to be taken back.
    pub async fn holds_no_snapshot(&self) -> Result {
        let standing = self.standing().await?;
        ensure(
            standing.iter().all(|stands| stands.snapshot.is_none()),
            || format!("a snapshot is left: {standing:?}"),
        )
    }

    /// All items of a table, as plain JSON.
    pub async fn items(&self, table: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut pages = self
            .aws
            .dynamodb
            .scan()
            .table_name(table)
            .consistent_read(true)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            items.extend(page?.items.unwrap_or_default().iter().map(plain));
        }
        Ok(items)
    }

    /// The timelines of all incidents in the ledger, line by line: `kind`, `summary` and the detail in `body`.
    pub async fn timeline(&self) -> Result<Vec<Value>> {
        let mut lines = self.ledger().await?;
        lines.retain(|item| {
            item["sk"]
                .as_str()
                .is_some_and(|key| key.starts_with("at#"))
        });
        lines.sort_by(|one, other| one["sk"].as_str().cmp(&other["sk"].as_str()));
        Ok(lines)
    }

    /// How many lines of a kind the timelines hold.
    pub async fn told(&self, kind: &str) -> Result<usize> {
        Ok(self
            .timeline()
            .await?
            .iter()
            .filter(|line| line["kind"] == kind)
            .count())
    }

    /// Puts an item into the ledger as an operator would.
    pub async fn put_ledger_item(&self, attributes: &[(&str, AttributeValue)]) -> Result {
        let mut request = self.aws.dynamodb.put_item().table_name(&self.ledger);
        for (name, value) in attributes {
            request = request.item(*name, value.clone());
        }
        request.send().await?;
        Ok(())
    }

    /// Removes all that this world made.
    ///
    /// Goes on after a failure, and answers with the first.
    pub async fn teardown(&self) -> Result {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let mut first = Ok(());
        let mut note = |removed: Result| {
            if first.is_ok() {
                first = removed;
            }
        };
        for name in &made.functions {
            let request = self.aws.lambda.delete_function().function_name(name);
            note(request.send().await.map(drop).during(name));
        }
        for name in &made.domains {
            let request = self.aws.apigateway.delete_domain_name().domain_name(name);
            note(request.send().await.map(drop).during(name));
        }
        for (api, stage) in &made.stages {
            let request = self.aws.apigateway.delete_stage();
            let request = request.rest_api_id(api).stage_name(stage);
            note(request.send().await.map(drop).during(stage));
        }
        for id in &made.distributions {
            note(self.remove_distribution(id).await.during(id));
        }
        for arn in &made.machines {
            note(self.remove_machine(arn).await.during(arn));
        }
        if made.edge {
            note(self.remove_edge().await.during("the edge's function"));
        }
        for id in &made.apis {
            let request = self.aws.apigateway.delete_rest_api().rest_api_id(id);
            note(request.send().await.map(drop).during(id));
        }
        for url in &made.queues {
            let removed = self.aws.sqs.delete_queue().queue_url(url).send().await;
            // A test may have deleted it already.
            if removed.as_ref().is_err_and(|error| {
                !error
                    .as_service_error()
                    .is_some_and(DeleteQueueError::is_queue_does_not_exist)
            }) {
                note(removed.map(drop).during(url));
            }
        }
        if !made.alarms.is_empty() {
            let request = self
                .aws
                .cloudwatch
                .delete_alarms()
                .set_alarm_names(Some(made.alarms));
            note(request.send().await.map(drop).during("deleting alarms"));
        }
        for name in &made.parameters {
            let request = self.aws.ssm.delete_parameter().name(name);
            let removed = request.send().await;
            if removed.as_ref().is_err_and(|error| {
                !error
                    .as_service_error()
                    .is_some_and(DeleteParameterError::is_parameter_not_found)
            }) {
                note(removed.map(drop).during(name));
            }
        }
        for name in &made.rules {
            let events = &self.aws.events;
            let removed = events.remove_targets().rule(name).ids("queue").send().await;
            note(removed.map(drop).during(name));
            note(
                events
                    .delete_rule()
                    .name(name)
                    .send()
                    .await
                    .map(drop)
                    .during(name),
            );
        }
        for name in &made.tables {
            let request = self.aws.dynamodb.delete_table().table_name(name);
            note(request.send().await.map(drop).during(name));
        }
        first
    }

    async fn remove_distribution(&self, id: &str) -> Result {
        let cloudfront = &self.aws.cloudfront;
        let found = cloudfront.get_distribution_config().id(id).send().await?;
        let mut config = found.distribution_config().during(id)?.clone();
        config.enabled = false;
        let disabled = cloudfront.update_distribution().id(id);
        let disabled = disabled.distribution_config(config);
        let disabled = disabled.set_if_match(found.e_tag.clone()).send().await?;
        let deleted = cloudfront.delete_distribution().id(id);
        deleted.set_if_match(disabled.e_tag).send().await?;
        Ok(())
    }

    async fn remove_edge(&self) -> Result {
        let cloudfront = &self.aws.cloudfront;
        let function = cloudfront.describe_function().name(&self.name);
        let function = function.stage(FunctionStage::Development);
        let function = function.send().await?;
        let deleted = cloudfront.delete_function().name(&self.name);
        deleted.set_if_match(function.e_tag).send().await?;
        let store = cloudfront.describe_key_value_store().name(&self.name);
        let store = store.send().await?;
        let deleted = cloudfront.delete_key_value_store().name(&self.name);
        deleted.set_if_match(store.e_tag).send().await?;
        Ok(())
    }
}

/// The event that a schedule of `EventBridge` sends, as far as it is read.
#[must_use]
pub fn scheduled() -> Value {
    json!({"source": "aws.events", "detail-type": "Scheduled Event"})
}

/// The event that `CloudWatch` puts on the bus when `alarm` goes from `before` to `state`.
#[must_use]
pub fn alarm_event(alarm: &Alarm, before: &str, state: &str, at: DateTime<Utc>) -> Value {
    let parts: Vec<&str> = alarm.arn.split(':').collect();
    let part = |index: usize| parts.get(index).copied().unwrap_or_default();
    // CloudWatch writes `+0000` in the detail and `Z` in the envelope.
    let stamp = at.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string();
    let point = |value: f64| {
        json!({
            "version": "1.0",
            "queryDate": stamp,
            "startDate": stamp,
            "statistic": "Maximum",
            "period": 60,
            "recentDatapoints": [value],
            "threshold": 0.0,
            "evaluatedDatapoints": [{"timestamp": stamp, "sampleCount": 1.0, "value": value}],
        })
        .to_string()
    };
    json!({
        "version": "0",
        "id": format!("{:08x}-0000-4000-8000-{:012x}", fastrand::u32(..), fastrand::u64(..1 << 48)),
        "detail-type": "CloudWatch Alarm State Change",
        "source": "aws.cloudwatch",
        "account": part(4),
        "time": at.to_rfc3339_opts(SecondsFormat::Secs, true),
        "region": part(3),
        "resources": [alarm.arn],
        "detail": {
            "alarmName": alarm.name,
            "configuration": {
                "description": "Messages are waiting in the dead-letter queue",
                "metrics": [{
                    "id": "3c0c6a2e-0000-4000-8000-000000000000",
                    "metricStat": {
                        "metric": {"namespace": "AWS/SQS", "name": "ApproximateNumberOfMessagesVisible", "dimensions": {}},
                        "period": 60,
                        "stat": "Maximum",
                    },
                    "returnData": true,
                }],
            },
            "previousState": {
                "value": before,
                "reason": "Threshold Crossed: 1 datapoint [0.0] was not greater than the threshold (0.0).",
                "reasonData": point(0.0),
                "timestamp": stamp,
            },
            "state": {
                "value": state,
                "reason": "Threshold Crossed: 1 datapoint [12.0] was greater than the threshold (0.0).",
                "reasonData": point(12.0),
                "timestamp": stamp,
            },
        },
    })
}

/// Asks again until `condition` answers with something, and fails with `what` when `patience` is at its end.
pub async fn wait_until<T>(
    what: &str,
    patience: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    const BETWEEN: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = condition().await.during(what)? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(format!(
                "{what}: not so within {} s",
                patience.as_secs()
            )));
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

fn plain(item: &HashMap<String, AttributeValue>) -> Value {
    item.iter()
        .map(|(name, value)| {
            let value = match value {
                AttributeValue::S(text) | AttributeValue::N(text) => json!(text),
                AttributeValue::Bool(flag) => json!(flag),
                AttributeValue::M(map) => plain(map),
                other => json!(format!("{other:?}")),
            };
            (name.clone(), value)
        })
        .collect()
}
