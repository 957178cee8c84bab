//! One batch, from its receipt until every message of it is removed or kept.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use shared::ledger::items::OpenBreaker;
use shared::outcome::Rule;

use super::remove::remove;
use super::wave::{wave, waves};
use crate::error::ReplayError;
use crate::message::{InHand, Kept};
use crate::plan::Route;
use crate::replay::context::Context;
use crate::replay::state::{Admitted, Stop};

/// How long a breaker stays open that the canary found reason to open.
const BREAKER_OPEN: TimeDelta = TimeDelta::hours(1);

/// What a batch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replay) enum Batch {
    Empty,
    Worked,
    /// Nothing was delivered, since nothing more could be remembered.
    NoRoom,
    Troubled,
    Idle,
}

/// Receives one batch and sees every message of it through.
pub(in crate::replay) async fn batch(context: &Context<'_>, max: u32, canary: bool) -> Batch {
    let wait = context.state().limit.reserve(max, context.elapsed());
    // Even an empty sleep waits for the timer's next tick.
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    if context.is_stopped() {
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
    if !leftovers.is_empty() {
        remove(context, leftovers, true).await;
    }
    if canary && let Some(stop) = came_back(&fresh, context.previous_run(), context.now()) {
        context.stop(stop);
        context.keep_all(fresh, Kept::Stopped);
        return Batch::Worked;
    }
    if context.state().is_stopped() {
        context.keep_all(fresh, Kept::Stopped);
        return Batch::Idle;
    }
    if fresh.is_empty() && turned_away {
        return Batch::NoRoom;
    }
    see_through(context, fresh).await
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
            Some(received)
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

/// Why the round stops when most of the canary is what the previous run replayed, back again.
fn came_back(messages: &[InHand], previous: Option<&str>, now: DateTime<Utc>) -> Option<Stop> {
    let previous = previous?;
    let is_back = |message: &&InHand| {
        message
            .mark()
            .is_some_and(|(count, run)| count >= 2 && run == previous)
    };
    let back = messages.iter().filter(is_back).count();
    if messages.is_empty() || back * 2 < messages.len() {
        return None;
    }
    let reason = format!(
        "{back} of the first {} messages are those that {previous} replayed, back for the second time: the consumer still fails",
        messages.len()
    );
    let breaker = OpenBreaker {
        until: now + BREAKER_OPEN,
        reason: reason.clone(),
    };
    Some(Stop::Escalate {
        rule: Rule::Breaker,
        reason,
        breaker: Some(breaker),
    })
}

/// Delivers or keeps every message; for FIFO, one message of each group at a time.
async fn see_through(context: &Context<'_>, messages: Vec<InHand>) -> Batch {
    let keys = counted_in_ledger(&messages, &context.plan.routes, context.run_id());
    let counts: HashMap<String, u32> = match context.counts(&keys).await {
        Ok(counts) => counts,
        Err(error) => {
            context.stop_on(&error);
            context.keep_all(messages, Kept::Undelivered);
            return Batch::Idle;
        }
    };
    let fifo = context.state().custody.is_fifo();
    let mut clean = true;
    for messages in waves(messages, fifo) {
        clean &= wave(context, messages, &counts).await;
    }
    context.state().batch_ended(clean);
    if clean {
        Batch::Worked
    } else {
        Batch::Troubled
    }
}

/// The ledger's keys for messages that cannot tell themselves how often they were replayed.
fn counted_in_ledger(messages: &[InHand], routes: &[Route], run_id: &str) -> Vec<String> {
    messages
        .iter()
        .filter(|message| {
            message.failed_request().is_some()
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
    use crate::sample::{marked, named, plan, string};

    #[test]
    fn a_canary_stops_when_half_of_it_is_back_for_the_second_time() {
        let back = || marked("back", "2 run-1");
        let once = || marked("once", "1 run-1");
        let other = || marked("other", "5 run-0");
        let new = || named("new");
        let now = DateTime::UNIX_EPOCH;
        for (messages, previous, stops) in [
            (vec![back(), new()], Some("run-1"), true),
            (vec![back(), new(), new()], Some("run-1"), false),
            (vec![once(), other()], Some("run-1"), false),
            (vec![back()], Some("run-2"), false),
            (vec![back()], None, false),
            (vec![], Some("run-1"), false),
        ] {
            let stop = came_back(&messages, previous, now);
            assert_eq!(stop.is_some(), stops, "{messages:?} after {previous:?}");
            if let Some(stop) = stop {
                let Stop::Escalate {
                    rule: Rule::Breaker,
                    breaker: Some(breaker),
                    ..
                } = stop
                else {
                    panic!("{stop:?}");
                };
                assert_eq!(breaker.until, now + BREAKER_OPEN);
            }
        }
    }

    #[test]
    fn the_ledger_counts_what_has_no_room_for_a_mark_and_what_an_invocation_left() {
        let mut full = named("full");
        for n in 0..MAX_ATTRIBUTES {
            full.attributes.insert(format!("a{n}"), string("v"));
        }
        let mut failed = named("failed");
        let request = string("request-1");
        failed.attributes.insert("RequestID".into(), request);
        let messages = [named("with room"), full, failed];
        let keys = counted_in_ledger(&messages, &plan(|_| ()).routes, "run-1");
        assert_eq!(keys, ["full", "request-1"]);
    }
}
