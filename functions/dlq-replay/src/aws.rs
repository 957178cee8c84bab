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

use crate::error::ReplayError;
use crate::message::InHand;
use crate::plan::{Observed, Queue, Reached};
use crate::policy::{Replay, is_fifo};

/// How far back a consumer's errors are counted.
const ERROR_WINDOW: TimeDelta = TimeDelta::minutes(5);

/// The clients of a replay.
#[derive(Debug, Clone)]
pub struct Aws {
    sqs: aws_sdk_sqs::Client,
    /// Sends are not repeated by the SDK: whether an answer was lost has to be known here.
    sqs_once: aws_sdk_sqs::Client,
    lambda: aws_sdk_lambda::Client,
    lambda_once: aws_sdk_lambda::Client,
    cloudwatch: aws_sdk_cloudwatch::Client,
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
        let errors = futures_util::future::try_join_all(policy.destinations.iter().map(
            |destination| async move {
                match &destination.consumer_function {
                    Some(function) => self.consumer_errors(function, now).await.map(Some),
                    None => Ok(None),
                }
            },
        ));
        let (source, destinations, quarantine, consumer_errors) = tokio::try_join!(
            self.queue(&policy.source),
            destinations,
            self.reach(&policy.quarantine),
            errors,
        )?;
        Ok(Observed {
            source,
            destinations,
            quarantine,
            consumer_errors,
        })
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
        })
    }

    /// Counts a function's errors in the last minutes.
    pub async fn consumer_errors(
        &self,
        function: &str,
        now: DateTime<Utc>,
    ) -> Result<f64, ReplayError> {
        let of_function = [("FunctionName", function)];
        let query = metric_data::sums("errors", "AWS/Lambda", "Errors", &of_function);
        let answer = metric_data::of_window(&self.cloudwatch, ERROR_WINDOW, now)
            .metric_data_queries(query)
            .send()
            .await
            .map_err(|error| {
                ReplayError::Aws(AwsError::new("cloudwatch:GetMetricData", function, &error))
            })?;
        Ok(answer
            .metric_data_results()
            .iter()
            .flat_map(aws_sdk_cloudwatch::types::MetricDataResult::values)
            .sum())
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
