//! One batch, from its receipt until every message of it is removed or kept.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use super::remove::remove;
use super::wave::{wave, waves};
use crate::aws::Aws;
use crate::error::ReplayError;
use crate::judge::Kept;
use crate::message::{InHand, Replays};
use crate::object::Object;
use crate::plan::{Plan, Route};
use crate::policy::is_fifo;
use crate::replay::context::Context;
use crate::replay::state::Admitted;

/// For how long a batch waits for its turn before it asks again, which may come sooner by then.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a batch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replay) enum Batch {
    Empty,
    /// All that was received, the round had kept before: what shows again after its time ends a pass through the queue.
    Seen,
    Worked,
    /// Nothing was delivered, since nothing more could be remembered.
    NoRoom,
    Troubled,
    Idle,
}

/// Receives one batch and sees every message of it through.
pub(in crate::replay) async fn batch(context: &Context<'_>, max: u32, canary: bool) -> Batch {
    let reserved = context
        .state()
        .limit
        .reserve(max, context.elapsed(), PATIENCE);
    let wait = reserved.unwrap_or(PATIENCE);
    // Even an empty sleep waits for the timer's next tick.
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    if reserved.is_none() || context.is_stopped() {
        return Batch::Idle;
    }
    let Some(received) = receive(context, max).await else {
        return Batch::Idle;
    };
    if received.is_empty() {
        return Batch::Empty;
    }
    let Admitted {
        fresh,
        leftovers,
        turned_away,
    } = context.state().admit(received, context.plan);
    let only_seen = fresh.is_empty() && leftovers.is_empty() && !turned_away;
    if !leftovers.is_empty() {
        remove(context, leftovers, true).await;
    }
    if context.state().is_stopped() {
        context.keep_all(fresh, Kept::Stopped);
        return Batch::Idle;
    }
    if fresh.is_empty() && turned_away {
        return Batch::NoRoom;
    }
    if only_seen {
        return Batch::Seen;
    }
    see_through(context, fresh, canary).await
}

/// Receives up to `max` messages; `None` when the receive failed.
async fn receive(context: &Context<'_>, max: u32) -> Option<Vec<InHand>> {
    let visibility = context.plan.limits.visibility_seconds.get();
    let answer = context
        .aws
        .receive(&context.plan.source, max, 1, visibility)
        .await;
    match answer {
        Ok(received) => {
            let got = u32::try_from(received.len()).unwrap_or(max);
            context.state().limit.refund(max.saturating_sub(got));
            Some(taken(received, context.plan))
        }
        Err(error) if error.is_transient() => {
            context.state().receive_failed(&error);
            None
        }
        Err(error) => {
            context.stop_on(&ReplayError::Aws(error));
            None
        }
    }
}

/// What was received, as the plan takes it: what is to be let out of a quarantine as it was before.
fn taken(received: Vec<InHand>, plan: &Plan) -> Vec<InHand> {
    if plan.release.is_none() {
        return received;
    }
    let fifo = is_fifo(&plan.source);
    let received = received.into_iter();
    received.map(|message| message.released(fifo)).collect()
}

/// Delivers or keeps every message; for FIFO, one message of each group at a time.
async fn see_through(context: &Context<'_>, messages: Vec<InHand>, canary: bool) -> Batch {
    // What is let out of a quarantine counts anew.
    let keys = match context.plan.release {
        Some(_) => Vec::new(),
        None => counted_in_ledger(&messages, &context.plan.routes, context.run_id()),
    };
    let counts: HashMap<String, Replays> = match context.counts(&keys).await {
        Ok(counts) => counts,
        Err(error) => {
            context.stop_on(&error);
            context.keep_all(messages, Kept::Undelivered);
            return Batch::Idle;
        }
    };
    let messages = looked_up(context, messages).await;
    let fifo = context.state().custody.is_fifo();
    // A store that does not answer is trouble like any other.
    let unanswered = |message: &InHand| message.is_unanswered(context.plan);
    let mut clean = !messages.iter().any(unanswered);
    let messages = oldest_first(messages, fifo);
    for messages in waves(messages, fifo) {
        clean &= wave(context, messages, &counts, canary).await;
    }
    context.state().batch_ended(clean);
    if clean {
        Batch::Worked
    } else {
        Batch::Troubled
    }
}

/// Messages with the objects that they point to, where the plan has them looked up. What cannot be told of one is noted.
async fn looked_up(context: &Context<'_>, messages: Vec<InHand>) -> Vec<InHand> {
    let plan = context.plan;
    let all = messages.into_iter().map(|message| async move {
        let now = context.now();
        let (object, problem) = look_up(context.aws, plan, &message, now).await;
        let message = InHand { object, ..message };
        if let Some(problem) = problem {
            let mut state = context.state();
            if message.is_unanswered(plan) {
                state.last_trouble.clone_from(&problem);
            }
            state.notes.note(problem);
        }
        message
    });
    join_all(all).await
}

/// The object that a message points to, where the plan has it looked up, and why it could not be.
pub(in crate::replay) async fn look_up(
    aws: &Aws,
    plan: &Plan,
    message: &InHand,
    now: DateTime<Utc>,
) -> (Option<Object>, Option<String>) {
    let Some(place) = plan.place_to_look_up(message) else {
        return (None, None);
    };
    let wanted = plan.reads_payloads();
    match aws.objects.look_up(&place, wanted, now).await {
        Ok(object) => (Some(object), None),
        Err(error) => (
            error.is_transient().then_some(Object::Unanswered),
            Some(format!("a payload was not looked up: {error}")),
        ),
    }
}

/// What expires first goes first. A FIFO queue gives its own order.
fn oldest_first(mut messages: Vec<InHand>, fifo: bool) -> Vec<InHand> {
    if !fifo {
        messages.sort_by_key(|message| message.sent_at);
    }
    messages
}

/// The ledger's keys for messages that cannot tell themselves how often they were replayed.
fn counted_in_ledger(messages: &[InHand], routes: &[Route], run_id: &str) -> Vec<String> {
    messages
        .iter()
        .filter(|message| {
            message.envelope.request.is_some()
                || routes
                    .iter()
                    .any(|route| message.is_counted_in_ledger(route.max_message_bytes, run_id))
        })
        .map(|message| message.ledger_key().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MAX_ATTRIBUTES;
    use crate::sample::{named, plan, string};
    use chrono::DateTime;

    #[test]
    fn of_what_was_received_the_oldest_goes_first() {
        let sent = |id: &str, second| InHand {
            sent_at: DateTime::from_timestamp(second, 0),
            ..named(id)
        };
        let received = vec![sent("c", 3), sent("a", 1), sent("b", 2)];
        let ids = |messages: Vec<InHand>| -> Vec<String> {
            messages.into_iter().map(|message| message.id).collect()
        };
        assert_eq!(ids(oldest_first(received.clone(), false)), ["a", "b", "c"]);
        assert_eq!(ids(oldest_first(received, true)), ["c", "a", "b"]);
    }

    #[test]
    fn the_ledger_counts_what_has_no_room_for_a_mark_and_what_an_invocation_left() {
        let mut full = named("full");
        for n in 0..MAX_ATTRIBUTES {
            full.attributes.insert(format!("a{n}"), string("v"));
        }
        let mut failed = named("failed");
        failed.envelope.request = Some("request-1".into());
        let messages = [named("with room"), full, failed];
        let keys = counted_in_ledger(&messages, &plan(|_| ()).routes, "run-1");
        assert_eq!(keys, ["full", "request-1"]);
    }
}
