//! Removing delivered messages from the dead-letter queue.

use crate::error::ReplayError;
use crate::message::InHand;
use crate::replay::context::Context;

/// Messages that one request removes at most (Amazon SQS API Reference, `DeleteMessageBatch`).
const MAX_ENTRIES: usize = 10;

/// How often a removal is tried.
const REMOVALS: u32 = 4;

/// Removes delivered messages from the dead-letter queue; remembers those that stay.
pub(super) async fn remove(context: &Context<'_>, messages: Vec<InHand>, earlier: bool) {
    for messages in messages.chunks(MAX_ENTRIES) {
        let left = left_of(context, messages).await;
        context.state().conclude_removal(messages, &left, earlier);
        // What is delivered and still there must outlive this invocation at once.
        if !left.is_empty() && !earlier {
            context.save().await;
        }
    }
}

/// Removes as many messages as one request takes, and gives the positions of those that are still there.
async fn left_of(context: &Context<'_>, messages: &[InHand]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..messages.len()).collect();
    for attempt in 0..REMOVALS {
        let Some(clearance) = context.clear("remove delivered messages") else {
            break;
        };
        let receipts: Vec<(usize, &str)> = left
            .iter()
            .map(|at| (*at, messages[*at].receipt.as_str()))
            .collect();
        let source = &context.plan.source;
        match context.aws.remove(source, &receipts, clearance).await {
            Ok(gone) => left.retain(|at| !gone.contains(at)),
            Err(error) => {
                context
                    .state()
                    .notes
                    .note(format!("delivered messages could not be removed: {error}"));
                if !error.is_transient() {
                    context.stop_on(&ReplayError::Aws(error));
                }
                break;
            }
        }
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(shared::backoff::pause(attempt, context.run_id())).await;
    }
    left
}
