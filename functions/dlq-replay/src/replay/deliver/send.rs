//! Sending: to a queue or to a function, again when that is safe, telling lost answers from refusals.

use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchOutput;
use aws_sdk_sqs::types::{BatchResultErrorEntry, SendMessageBatchRequestEntry};
use shared::arn::Arn;
use shared::aws_error::{AwsError, Kind, kind_of_code};

use crate::error::ReplayError;
use crate::judge::Kept;
use crate::message::{self, InHand, Outgoing};
use crate::pace::Feedback;
use crate::replay::context::Context;
use crate::replay::state::State;

/// A batch request's longest payload (Amazon SQS Developer Guide, "Message quotas").
const MAX_BATCH_BYTES: usize = 1_048_576;
/// How often a message is sent before it is given back.
const SENDS: u32 = 4;

/// How a message fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fared {
    NotDelivered,
    /// Delivered, as the new message of this id or by the invocation of this request id.
    Delivered(Option<String>),
}

/// One message's delivery.
#[derive(Debug, PartialEq)]
pub(super) struct Delivery {
    pub(super) message: InHand,
    pub(super) fared: Fared,
    /// How many answers were lost on the way: each may stand for a copy that arrived.
    pub(super) lost_answers: u64,
    pub(super) told_in_ledger: bool,
    /// Why it stays, where it was not delivered.
    pub(super) kept: Kept,
}

impl Delivery {
    fn begun(message: InHand, told_in_ledger: bool) -> Self {
        Self {
            message,
            fared: Fared::NotDelivered,
            lost_answers: 0,
            told_in_ledger,
            kept: Kept::Undelivered,
        }
    }
}

/// What a failed call means for the messages that it carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Nothing was done; go slower and try again.
    SlowDown,
    /// Nothing was done; try again.
    Untouched,
    /// They may have arrived; try again.
    AnswerLost,
    /// These messages will not go; others may.
    Refused,
    /// No message will go.
    Hopeless,
}

/// Reads a failed call. Who rejects one message may take the next.
fn failed(kind: Kind) -> Meaning {
    match kind {
        Kind::Throttled => Meaning::SlowDown,
        Kind::Conflict => Meaning::Untouched,
        Kind::Unknown => Meaning::AnswerLost,
        Kind::Rejected => Meaning::Refused,
        Kind::Denied | Kind::NotFound => Meaning::Hopeless,
    }
}

/// Takes in a failed call; whether to try again.
fn take_in<'d>(
    context: &Context<'_>,
    error: AwsError,
    meaning: Meaning,
    deliveries: impl Iterator<Item = &'d mut Delivery>,
) -> bool {
    context.state().last_trouble = error.to_string();
    match meaning {
        Meaning::SlowDown => context.state().pace.learn(Feedback::Throttled),
        Meaning::Untouched => {}
        Meaning::AnswerLost => deliveries.for_each(|delivery| delivery.lost_answers += 1),
        Meaning::Refused => return false,
        Meaning::Hopeless => {
            context.stop_on(&ReplayError::Aws(error));
            return false;
        }
    }
    true
}

/// Sends messages to a queue, in as many batches as it takes.
pub(super) async fn send_all(
    context: &Context<'_>,
    queue: &Arn,
    ready: Vec<(InHand, Outgoing)>,
) -> Vec<Delivery> {
    let sized = ready
        .into_iter()
        .map(|(message, out)| {
            let bytes = out.bytes;
            ((message, out), bytes)
        })
        .collect();
    let mut all = Vec::new();
    for batch in message::batches(sized, MAX_BATCH_BYTES) {
        let mut sending = Sending::new(batch);
        send(context, queue, &mut sending).await;
        if sending.refused_together {
            // One message that the queue does not take must not keep back those that came with it.
            for mut alone in sending.each_alone() {
                send(context, queue, &mut alone).await;
                all.extend(alone.deliveries);
            }
        }
        all.extend(sending.deliveries);
    }
    all
}

/// Sends one batch, and again what was not taken.
async fn send(context: &Context<'_>, queue: &Arn, sending: &mut Sending) {
    for attempt in 0..SENDS {
        let Some(clearance) = context.clear("send messages") else {
            for delivery in sending.left_deliveries() {
                delivery.kept = Kept::Stopped;
            }
            break;
        };
        let entries = sending.left_entries();
        match context.aws.send(queue, entries, clearance).await {
            Ok(answer) => {
                sending.take(&answer);
                for refused in answer.failed() {
                    sending.refuse(refused, queue, &mut context.state());
                }
            }
            Err(error) => {
                let meaning = failed(error.kind);
                sending.refused_together = meaning == Meaning::Refused && sending.left.len() > 1;
                if !take_in(context, error, meaning, sending.left_deliveries()) {
                    break;
                }
            }
        }
        if sending.left.is_empty() {
            break;
        }
        tokio::time::sleep(shared::backoff::pause(attempt, context.run_id())).await;
    }
}

/// A batch on its way to a queue.
struct Sending {
    entries: Vec<SendMessageBatchRequestEntry>,
    /// One for each entry.
    deliveries: Vec<Delivery>,
    /// The positions of what is still to be sent.
    left: Vec<usize>,
    /// Whether the queue refused all that is left in one word, which may be meant for one of them.
    refused_together: bool,
}

impl Sending {
    fn new(batch: Vec<(InHand, Outgoing)>) -> Self {
        let (entries, deliveries): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|(message, out)| (out.entry, Delivery::begun(message, out.told_in_ledger)))
            .unzip();
        Self {
            left: (0..entries.len()).collect(),
            entries,
            deliveries,
            refused_together: false,
        }
    }

    /// Takes out what is left, each as a batch of its own.
    fn each_alone(&mut self) -> Vec<Self> {
        let left = std::mem::take(&mut self.left);
        let entries = std::mem::take(&mut self.entries);
        let deliveries = std::mem::take(&mut self.deliveries);
        let mut alone = Vec::new();
        for (at, (entry, delivery)) in entries.into_iter().zip(deliveries).enumerate() {
            if left.contains(&at) {
                alone.push(Self {
                    entries: vec![entry],
                    deliveries: vec![delivery],
                    left: vec![0],
                    refused_together: false,
                });
            } else {
                self.deliveries.push(delivery);
            }
        }
        alone
    }

    fn left_entries(&self) -> Vec<SendMessageBatchRequestEntry> {
        self.left
            .iter()
            .map(|at| self.entries[*at].clone())
            .collect()
    }

    fn left_deliveries(&mut self) -> impl Iterator<Item = &mut Delivery> {
        self.deliveries
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| self.left.contains(at))
            .map(|(_, delivery)| delivery)
    }

    /// Takes in what the queue took.
    fn take(&mut self, answer: &SendMessageBatchOutput) {
        for taken in answer.successful() {
            let at = self
                .left
                .iter()
                .copied()
                .find(|at| self.entries[*at].id() == taken.id());
            if let Some(at) = at {
                self.deliveries[at].fared = Fared::Delivered(Some(taken.message_id().to_owned()));
            }
        }
        self.left
            .retain(|at| self.deliveries[*at].fared == Fared::NotDelivered);
    }

    /// Takes in that the queue refused one message; it is not sent again where that would change nothing.
    fn refuse(&mut self, refused: &BatchResultErrorEntry, queue: &Arn, state: &mut State) {
        state.last_trouble = format!(
            "{queue} refused a message with {}: {}",
            refused.code(),
            refused.message().unwrap_or_default()
        );
        match kind_of_code(refused.code()) {
            Kind::Throttled => state.pace.learn(Feedback::Throttled),
            Kind::Rejected | Kind::Denied | Kind::NotFound => {
                self.left
                    .retain(|at| self.entries[*at].id() != refused.id());
            }
            Kind::Unknown | Kind::Conflict => {}
        }
    }
}

/// Invokes a function again with the event that failed.
pub(super) async fn invoke(context: &Context<'_>, function: &Arn, message: InHand) -> Delivery {
    let payload = message.envelope.to_function(&message.body).to_owned();
    // A function's event has no place for a count: the ledger counts by the invocation's request.
    let mut delivery = Delivery::begun(message, true);
    for attempt in 0..SENDS {
        let Some(clearance) = context.clear("invoke the function again") else {
            delivery.kept = Kept::Stopped;
            break;
        };
        let invoked = context
            .aws
            .invoke(function.as_str(), payload.clone(), clearance);
        match invoked.await {
            Ok(request_id) => {
                delivery.fared = Fared::Delivered(request_id);
                break;
            }
            Err(error) => {
                let meaning = failed(error.kind);
                if !take_in(context, error, meaning, std::iter::once(&mut delivery)) {
                    break;
                }
            }
        }
        let pause = shared::backoff::pause(attempt, &delivery.message.id);
        tokio::time::sleep(pause).await;
    }
    delivery
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::saved::{Memory, Progress};
    use crate::sample::{named, plan};
    use aws_sdk_sqs::types::SendMessageBatchResultEntry;

    #[test]
    fn a_failed_call_means_for_its_messages_what_its_kind_says() {
        for (kind, meaning) in [
            (Kind::Throttled, Meaning::SlowDown),
            (Kind::Unknown, Meaning::AnswerLost),
            (Kind::Conflict, Meaning::Untouched),
            (Kind::Rejected, Meaning::Refused),
            (Kind::Denied, Meaning::Hopeless),
            (Kind::NotFound, Meaning::Hopeless),
        ] {
            assert_eq!(failed(kind), meaning, "{kind:?}");
        }
    }

    #[test]
    fn what_was_taken_or_refused_for_good_is_not_sent_again() {
        let plan = plan(|_| ());
        let route = &plan.routes[0];
        let batch = ["taken", "refused", "throttled", "unheard"]
            .into_iter()
            .enumerate()
            .filter_map(|(index, id)| {
                let message = named(id);
                let out = message::outgoing(index, &message, route, 0, "run-1")?;
                Some((message, out))
            })
            .collect();
        let mut sending = Sending::new(batch);
        let answer = SendMessageBatchOutput::builder()
            .successful(
                SendMessageBatchResultEntry::builder()
                    .id("0")
                    .message_id("new")
                    .md5_of_message_body("")
                    .build()
                    .unwrap(),
            )
            .set_failed(Some(Vec::new()))
            .build()
            .unwrap();
        sending.take(&answer);
        let mut state = State::new(&plan, Progress::default(), Memory::default());
        for (id, code) in [
            ("1", "InvalidMessageContents"),
            ("2", "ThrottlingException"),
        ] {
            let refused = BatchResultErrorEntry::builder()
                .id(id)
                .code(code)
                .sender_fault(true)
                .build()
                .unwrap();
            sending.refuse(&refused, &route.destination.arn, &mut state);
        }
        let left: Vec<String> = sending
            .left_entries()
            .into_iter()
            .map(|entry| entry.id)
            .collect();
        assert_eq!(left, ["2", "3"]);
        for delivery in sending.left_deliveries() {
            delivery.lost_answers += 1;
        }
        let fared: Vec<(Fared, u64)> = sending
            .deliveries
            .into_iter()
            .map(|delivery| (delivery.fared, delivery.lost_answers))
            .collect();
        assert_eq!(
            fared,
            [
                (Fared::Delivered(Some("new".to_owned())), 0),
                (Fared::NotDelivered, 0),
                (Fared::NotDelivered, 1),
                (Fared::NotDelivered, 1),
            ]
        );
        assert!(state.last_trouble.contains("ThrottlingException"));
    }

    #[test]
    fn what_was_refused_together_is_sent_alone() {
        let plan = plan(|_| ());
        let batch = ["taken", "bad", "good"]
            .into_iter()
            .enumerate()
            .filter_map(|(index, id)| {
                let message = named(id);
                let out = message::outgoing(index, &message, &plan.routes[0], 0, "run-1")?;
                Some((message, out))
            });
        let mut sending = Sending::new(batch.collect());
        sending.left = vec![1, 2];
        let alone = sending.each_alone();
        let ids = |sending: &Sending| {
            sending
                .deliveries
                .iter()
                .map(|it| it.message.id.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&sending), ["taken"]);
        assert_eq!(
            alone.iter().map(ids).collect::<Vec<_>>(),
            [["bad"], ["good"]]
        );
        for one in &alone {
            assert_eq!(one.left_entries().len(), 1);
        }
    }
}
