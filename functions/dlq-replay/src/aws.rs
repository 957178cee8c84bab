//! The AWS calls of a replay, each told apart by what its failure means for the messages in hand.

use aws_config::SdkConfig;
use aws_sdk_lambda::types::InvocationType;
use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchOutput;
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry,
};
use aws_smithy_types::retry::RetryConfig;
use chrono::{DateTime, TimeDelta, Utc};
use shared::arn::Arn;
use shared::aws_error::{AwsError, Kind};
use shared::metric_data;
use shared::remediation::Clearance;

use crate::consumer::{Consumer, Mapping};
use crate::error::ReplayError;
use crate::message::InHand;
use crate::object::Objects;
use crate::plan::{Observed, Queue, Reached};
use crate::policy::{Destination, Replay, is_fifo};

/// How far back a consumer's failures are counted. Lambda and SQS give their metrics by the minute.
const HEALTH_WINDOW: TimeDelta = TimeDelta::minutes(3);

/// The clients of a replay.
#[derive(Debug, Clone)]
pub struct Aws {
    sqs: aws_sdk_sqs::Client,
    /// Sends are not repeated by the SDK: whether an answer was lost has to be known here.
    sqs_once: aws_sdk_sqs::Client,
    lambda: aws_sdk_lambda::Client,
    lambda_once: aws_sdk_lambda::Client,
    cloudwatch: aws_sdk_cloudwatch::Client,
    /// The objects that messages point to.
    pub objects: Objects,
}

fn url(queue: &Arn) -> String {
    // The policy is refused unless every queue has one.
    queue.queue_url().unwrap_or_default()
}

impl Aws {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        let once = config
            .to_builder()
            .retry_config(RetryConfig::disabled())
            .build();
        Self {
            sqs: aws_sdk_sqs::Client::new(config),
            sqs_once: aws_sdk_sqs::Client::new(&once),
            lambda: aws_sdk_lambda::Client::new(config),
            lambda_once: aws_sdk_lambda::Client::new(&once),
            cloudwatch: aws_sdk_cloudwatch::Client::new(config),
            objects: Objects::new(config),
        }
    }

    /// Reads all queues at once.
    pub async fn observe(
        &self,
        policy: &Replay,
        now: DateTime<Utc>,
    ) -> Result<Observed, ReplayError> {
        let destinations = futures_util::future::try_join_all(policy.destinations.iter().map(
            |destination| async move {
                if destination.is_function() {
                    return Ok(Reached::Function);
                }
                self.reach(&destination.arn).await
            },
        ));
        let consumers = futures_util::future::try_join_all(
            policy
                .destinations
                .iter()
                .map(|destination| self.consumer(destination, now)),
        );
        let (source, destinations, quarantine, consumers) = tokio::try_join!(
            self.queue(&policy.source),
            destinations,
            self.reach(&policy.quarantine),
            consumers,
        )?;
        Ok(Observed {
            source,
            destinations,
            quarantine,
            consumers,
        })
    }

    /// Reads how a destination's consumer has fared; `None` where the policy names none.
    pub async fn consumer(
        &self,
        destination: &Destination,
        now: DateTime<Utc>,
    ) -> Result<Option<Consumer>, ReplayError> {
        let Some(function) = &destination.consumer_function else {
            return Ok(None);
        };
        let queue = (!destination.is_function()).then_some(&destination.arn);
        let (counted, mappings) = tokio::try_join!(self.counted(function, queue, now), async {
            match queue {
                Some(queue) => self.mappings(function, queue).await,
                None => Ok(Vec::new()),
            }
        })?;
        Ok(Some(Consumer {
            mappings,
            ..counted
        }))
    }

    /// Reads the consumer's metrics, all in one request.
    async fn counted(
        &self,
        function: &str,
        queue: Option<&Arn>,
        now: DateTime<Utc>,
    ) -> Result<Consumer, ReplayError> {
        // CloudWatch knows a function by its name alone, whatever form the policy gives.
        let name = function_name(function);
        let of_function = [("FunctionName", name)];
        let of_queue = queue.map(|queue| [("QueueName", queue.resource())]);
        let mut queries = vec![
            metric_data::sums("invocations", "AWS/Lambda", "Invocations", &of_function),
            metric_data::sums("errors", "AWS/Lambda", "Errors", &of_function),
            metric_data::sums("throttles", "AWS/Lambda", "Throttles", &of_function),
        ];
        if let Some(of_queue) = &of_queue {
            for (id, metric) in [
                ("received", "NumberOfMessagesReceived"),
                ("deleted", "NumberOfMessagesDeleted"),
            ] {
                queries.push(metric_data::sums(id, "AWS/SQS", metric, of_queue));
            }
        }
        let answer = metric_data::of_window(&self.cloudwatch, HEALTH_WINDOW, now)
            .set_metric_data_queries(Some(queries))
            .send()
            .await
            .map_err(|error| {
                ReplayError::Aws(AwsError::new("cloudwatch:GetMetricData", function, &error))
            })?;
        if let Some(part) = metric_data::missing(&answer) {
            let function = function.to_owned();
            return Err(ReplayError::Partial { function, part });
        }
        let sum = |id: &str| metric_data::sum(&answer, id);
        Ok(Consumer {
            function: function.to_owned(),
            invocations: sum("invocations"),
            errors: sum("errors"),
            throttles: sum("throttles"),
            received: sum("received"),
            deleted: sum("deleted"),
            mappings: Vec::new(),
        })
    }

    /// Reads the event source mappings from a queue to a function.
    async fn mappings(&self, function: &str, queue: &Arn) -> Result<Vec<Mapping>, ReplayError> {
        let answer = self
            .lambda
            .list_event_source_mappings()
            .function_name(function)
            .event_source_arn(queue.as_str())
            .send()
            .await
            .map_err(|error| {
                ReplayError::Aws(AwsError::new(
                    "lambda:ListEventSourceMappings",
                    function,
                    &error,
                ))
            })?;
        let mappings = answer.event_source_mappings().iter();
        Ok(mappings
            .map(|mapping| Mapping {
                uuid: mapping.uuid().unwrap_or_default().to_owned(),
                state: mapping.state().unwrap_or_default().to_owned(),
            })
            .collect())
    }

    async fn reach(&self, queue: &Arn) -> Result<Reached, ReplayError> {
        match self.queue(queue).await {
            Ok(found) => Ok(Reached::Queue(found)),
            Err(ReplayError::Aws(error)) if error.kind == Kind::NotFound => Ok(Reached::Gone),
            Err(error) => Err(error),
        }
    }

    /// Reads a queue's counts and limits.
    pub async fn queue(&self, queue: &Arn) -> Result<Queue, ReplayError> {
        use QueueAttributeName as Name;
        let answer = self
            .sqs
            .get_queue_attributes()
            .queue_url(url(queue))
            .attribute_names(Name::ApproximateNumberOfMessages)
            .attribute_names(Name::ApproximateNumberOfMessagesNotVisible)
            .attribute_names(Name::ApproximateNumberOfMessagesDelayed)
            .attribute_names(Name::MaximumMessageSize)
            .attribute_names(Name::MessageRetentionPeriod)
            .send()
            .await
            .map_err(|error| {
                ReplayError::Aws(AwsError::new(
                    "sqs:GetQueueAttributes",
                    queue.as_str(),
                    &error,
                ))
            })?;
        let number = |name: Name, called: &'static str| {
            let value = answer.attributes().and_then(|all| all.get(&name));
            value
                .and_then(|value| value.parse().ok())
                .ok_or_else(|| ReplayError::Attribute {
                    queue: queue.to_string(),
                    name: called,
                    value: value.cloned(),
                })
        };
        let limit = number(Name::MaximumMessageSize, "MaximumMessageSize")?;
        Ok(Queue {
            visible: number(
                Name::ApproximateNumberOfMessages,
                "ApproximateNumberOfMessages",
            )?,
            in_flight: number(
                Name::ApproximateNumberOfMessagesNotVisible,
                "ApproximateNumberOfMessagesNotVisible",
            )?,
            delayed: number(
                Name::ApproximateNumberOfMessagesDelayed,
                "ApproximateNumberOfMessagesDelayed",
            )?,
            max_message_bytes: usize::try_from(limit).unwrap_or(usize::MAX),
            retention_seconds: number(Name::MessageRetentionPeriod, "MessageRetentionPeriod")?,
        })
    }

    /// Receives up to `max` messages, waiting up to `wait_seconds` for the first.
    pub async fn receive(
        &self,
        queue: &Arn,
        max: u32,
        wait_seconds: u32,
        visibility_seconds: u32,
    ) -> Result<Vec<InHand>, AwsError> {
        let int = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let answer = self
            .sqs_once
            .receive_message()
            .queue_url(url(queue))
            .max_number_of_messages(int(max))
            .wait_time_seconds(int(wait_seconds))
            .visibility_timeout(int(visibility_seconds))
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .send()
            .await
            .map_err(|error| AwsError::new("sqs:ReceiveMessage", queue.as_str(), &error))?;
        Ok(answer
            .messages
            .unwrap_or_default()
            .into_iter()
            .filter_map(|message| InHand::from_sqs(message, is_fifo(queue)))
            .collect())
    }

    /// Sends a batch, once.
    pub async fn send(
        &self,
        queue: &Arn,
        entries: Vec<SendMessageBatchRequestEntry>,
        _clearance: Clearance<'_>,
    ) -> Result<SendMessageBatchOutput, AwsError> {
        self.sqs_once
            .send_message_batch()
            .queue_url(url(queue))
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| AwsError::new("sqs:SendMessage", queue.as_str(), &error))
    }

    /// Invokes a function asynchronously, once, and gives the request's id.
    pub async fn invoke(
        &self,
        function: &str,
        payload: String,
        _clearance: Clearance<'_>,
    ) -> Result<Option<String>, AwsError> {
        invoke(&self.lambda_once, function, payload).await
    }

    /// Invokes a function asynchronously, trying again: for an event whose second delivery does nothing.
    pub async fn invoke_surely(&self, function: &str, payload: String) -> Result<(), AwsError> {
        invoke(&self.lambda, function, payload).await.map(drop)
    }

    /// Removes messages, each given with its position, and gives the positions of those that are gone.
    ///
    /// Removing is idempotent, so that it may be tried again whatever the failure.
    pub async fn remove(
        &self,
        queue: &Arn,
        receipts: &[(usize, &str)],
        _clearance: Clearance<'_>,
    ) -> Result<Vec<usize>, AwsError> {
        let entries = receipts
            .iter()
            .filter_map(|(at, receipt)| {
                DeleteMessageBatchRequestEntry::builder()
                    .id(at.to_string())
                    .receipt_handle(*receipt)
                    .build()
                    .ok()
            })
            .collect();
        let answer = self
            .sqs
            .delete_message_batch()
            .queue_url(url(queue))
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| AwsError::new("sqs:DeleteMessage", queue.as_str(), &error))?;
        Ok(answer
            .successful()
            .iter()
            .filter_map(|entry| entry.id().parse().ok())
            .collect())
    }

    /// Gives up to ten messages back at once, and gives how many were. One that cannot be given back comes back by
    /// itself.
    pub async fn release(
        &self,
        queue: &Arn,
        receipts: &[String],
        _clearance: Clearance<'_>,
    ) -> Result<usize, AwsError> {
        self.show(queue, receipts).await
    }

    /// Gives up to ten messages back that were only looked at.
    pub async fn put_back(&self, queue: &Arn, receipts: &[String]) -> Result<usize, AwsError> {
        self.show(queue, receipts).await
    }

    async fn show(&self, queue: &Arn, receipts: &[String]) -> Result<usize, AwsError> {
        let entries = receipts
            .iter()
            .enumerate()
            .filter_map(|(at, receipt)| {
                ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(at.to_string())
                    .receipt_handle(receipt)
                    .visibility_timeout(0)
                    .build()
                    .ok()
            })
            .collect();
        let answer = self
            .sqs
            .change_message_visibility_batch()
            .queue_url(url(queue))
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| {
                AwsError::new("sqs:ChangeMessageVisibility", queue.as_str(), &error)
            })?;
        Ok(answer.successful().len())
    }
}

/// The name in a function's name, ARN or partial ARN, without version or alias.
fn function_name(function: &str) -> &str {
    let name = function
        .split_once(":function:")
        .map_or(function, |(_, name)| name);
    name.split_once(':').map_or(name, |(name, _)| name)
}

async fn invoke(
    client: &aws_sdk_lambda::Client,
    function: &str,
    payload: String,
) -> Result<Option<String>, AwsError> {
    use aws_sdk_lambda::operation::RequestId as _;
    client
        .invoke()
        .function_name(function)
        .invocation_type(InvocationType::Event)
        .payload(payload.into_bytes().into())
        .send()
        .await
        .map(|answer| answer.request_id().map(str::to_owned))
        .map_err(|error| AwsError::new("lambda:InvokeFunction", function, &error))
}
