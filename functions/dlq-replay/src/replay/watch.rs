//! Watching: a canary first, then as many batches at a time as the destinations bear.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;

use super::canary::SentCanary;
use super::context::Context;
use super::deliver::{Batch, batch};
use super::lesson::{self, Seen};
use super::state::{BATCH, Stop};
use crate::consumer::Consumer;
use crate::plan::Queue;

/// Empty long polls that say that a queue is dry. A long poll asks all of a queue's servers.
const DRY: u32 = 2;
/// How often the destinations are looked at and the progress is saved.
const TICK: Duration = Duration::from_secs(5);
/// How many looks apart consumers are looked at, whose metrics come by the minute.
const CONSUMERS: u32 = 6;
/// How often the destinations are looked at while the canary is on its way.
const CANARY_TICK: Duration = Duration::from_secs(2);
/// Looks in a row that must find the canary consumed: the first may see counts from before it.
const CALM: u32 = 2;
/// How long a round waits for its canary, beyond the policy's time: longer than counts take to be right.
const PATIENCE: Duration = Duration::from_secs(70);

/// Replays the first messages, and waits until they are consumed. Returns the empty polls seen.
pub(super) async fn canary(context: &Context<'_>) -> u32 {
    if !earlier_canary_is_gone(context).await {
        return 0;
    }
    let dry = send_canary(context).await;
    if context.is_stopped() {
        return dry;
    }
    let size = u64::from(context.plan.canary.messages.get());
    if dry >= DRY || context.plan.expected <= size || !context.plan.canary.is_watched() {
        // There is no rest that would have to wait.
        pass(context);
        return dry;
    }
    context.save().await;
    settle(context).await;
    dry
}

/// Whether another canary may be sent after one that was not consumed in its round. Where that one is now cannot be
/// told: it may have been consumed late, or have failed and be back in the dead-letter queue.
async fn earlier_canary_is_gone(context: &Context<'_>) -> bool {
    if context.state().progress.canary.is_none() || !context.plan.canary.is_watched() {
        return true;
    }
    let now = context.now();
    if let Some(left) = unconsumed(context, &destinations(context).await) {
        context.state().rest(left, now);
        return false;
    }
    let mut state = context.state();
    state.progress.canary = None;
    let reason = "the canary was not consumed in time, again and again: the consumer fails, or is too slow to tell";
    !lesson::set_back(&mut state, reason, now)
}

/// Replays the first messages: of those that no replay cures, as many as it takes until one is delivered.
async fn send_canary(context: &Context<'_>) -> u32 {
    let plan = context.plan;
    let before = context.state().sent_to(&plan.routes);
    let mut dry = 0;
    while dry < DRY && !context.is_stopped() {
        let ended = batch(context, plan.canary.messages.get(), true).await;
        let mut state = context.state();
        match ended {
            Batch::Empty | Batch::Seen => dry += 1,
            Batch::NoRoom | Batch::Idle => {}
            Batch::Troubled => {
                let error = format!("the canary could not be delivered: {}", state.last_trouble);
                state.stop(Stop::Fail {
                    error,
                    retryable: true,
                });
            }
            Batch::Worked => {
                let sent = state.sent_to(&plan.routes);
                let to = plan.routes.iter().zip(sent.iter().zip(&before));
                let canary = SentCanary::new(
                    context.now(),
                    to.map(|(route, (sent, before))| {
                        let arn = route.destination.arn.as_str();
                        (arn, sent - before, route.backlog)
                    }),
                );
                if canary.messages() > 0 {
                    state.progress.canary = Some(canary);
                    return 0;
                }
                dry = 0;
            }
        }
    }
    dry
}

/// Waits until the canary is consumed; rests where it is not.
async fn settle(context: &Context<'_>) {
    let plan = context.plan;
    let least = Duration::from_secs(u64::from(plan.canary.settle_seconds));
    let began = context.elapsed();
    let mut calm = 0;
    while !least.is_zero() && calm < CALM {
        tokio::time::sleep(CANARY_TICK).await;
        if context.is_stopped() {
            return;
        }
        let (queues, consumers) =
            tokio::join!(destinations(context), consumers(context, calm + 1 == CALM));
        let left = unconsumed(context, &queues)
            .or_else(|| lesson::trouble(context.plan, &consumers, &queues));
        let waited = context.elapsed().saturating_sub(began);
        calm = match &left {
            None if waited >= least => calm + 1,
            None => calm,
            Some(_) => 0,
        };
        if let Some(left) = left
            && waited >= least + PATIENCE
        {
            let now = context.now();
            let reason = format!("{left}; the rest follows when it is");
            context.state().rest(reason, now);
            return;
        }
    }
    pass(context);
}

fn pass(context: &Context<'_>) {
    let mut state = context.state();
    state.progress.canary = None;
    state.progress.canary_passed = true;
}

/// What is not consumed of the canary; what cannot be seen is not.
fn unconsumed(context: &Context<'_>, queues: &[Option<Queue>]) -> Option<String> {
    let mut totals = Vec::new();
    for (route, queue) in context.plan.routes.iter().zip(queues) {
        let arn = &route.destination.arn;
        match queue {
            Some(queue) => totals.push((arn.as_str(), queue.total())),
            None if route.destination.is_function() => {}
            None => {
                return Some(format!(
                    "whether the canary is consumed is not known: {arn} could not be looked at"
                ));
            }
        }
    }
    let now = context.now();
    let mut state = context.state();
    let canary = state.progress.canary.as_mut()?;
    canary.look(totals.iter().copied());
    canary.unconsumed(totals.into_iter(), now)
}

/// Replays the rest, until the queue is dry or the round stops.
pub(super) async fn ramp(context: &Context<'_>, mut dry: u32) {
    enum News {
        Batch(Batch),
        Looked,
    }
    let max = context.plan.limits.max_concurrency.get() as usize;
    let mut flying: FuturesUnordered<BoxFuture<'_, News>> = FuturesUnordered::new();
    let mut batches = 0_usize;
    let mut looks = 0_u32;
    let mut looking = false;
    let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
    context.state().set_out(context.plan);
    loop {
        match at_once(context.is_stopped(), dry, max) {
            Some(bound) => {
                let allowed = context.state().allowed().min(bound);
                while batches < allowed {
                    batches += 1;
                    flying.push(Box::pin(async {
                        News::Batch(batch(context, BATCH, false).await)
                    }));
                }
            }
            None if batches == 0 => break,
            None => {}
        }
        tokio::select! {
            biased;
            // First: due once in five seconds, it starves nothing, while under load some batch is always ready.
            _ = tick.tick() => {
                if !looking {
                    looking = true;
                    looks += 1;
                    let consumers = looks.is_multiple_of(CONSUMERS);
                    flying.push(Box::pin(async move {
                        look(context, consumers).await;
                        context.save().await;
                        News::Looked
                    }));
                }
            }
            Some(news) = flying.next(), if !flying.is_empty() => match news {
                News::Looked => looking = false,
                News::Batch(batch) => {
                    batches -= 1;
                    dry = dry_after(dry, batch);
                }
            },
        }
    }
}

/// How many batches may be on their way after so many empty polls; `None` when no other is to begin.
fn at_once(stopped: bool, dry: u32, max: usize) -> Option<usize> {
    match dry {
        _ if stopped => None,
        0 => Some(max),
        // As many polls at once as it takes to tell that a queue is dry.
        1..DRY => Some(DRY as usize),
        _ => None,
    }
}

/// The empty polls in a row after one more batch.
fn dry_after(dry: u32, batch: Batch) -> u32 {
    match batch {
        Batch::Empty | Batch::Seen => dry + 1,
        Batch::Worked | Batch::NoRoom | Batch::Troubled => 0,
        Batch::Idle => dry,
    }
}

/// Looks at the queues, and at the consumers where asked to, and learns from what is seen.
async fn look(context: &Context<'_>, asks: bool) {
    let (destinations, source, consumers) = tokio::join!(
        destinations(context),
        context.aws.queue(&context.plan.source),
        consumers(context, asks),
    );
    let seen = Seen {
        at: context.elapsed(),
        now: context.now(),
        source: source.ok(),
        destinations,
        consumers,
    };
    lesson::learn(&mut context.state(), context.plan, &seen);
}

/// The consumers as they have fared, where asked for; `None` for what the policy does not name, or cannot be read.
async fn consumers(context: &Context<'_>, asks: bool) -> Vec<Option<Consumer>> {
    if !asks {
        return Vec::new();
    }
    let now = context.now();
    let routes = context.plan.routes.iter();
    let looks = routes.map(|route| context.aws.consumer(&route.destination, now));
    let seen = join_all(looks).await;
    seen.into_iter().map(Result::unwrap_or_default).collect()
}

/// The destinations as they are now; `None` for functions, and for what cannot be read.
async fn destinations(context: &Context<'_>) -> Vec<Option<Queue>> {
    let looks = context.plan.routes.iter().map(|route| async move {
        let destination = &route.destination;
        if destination.is_function() {
            return None;
        }
        context.aws.queue(&destination.arn).await.ok()
    });
    join_all(looks).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_dry_after_two_empty_polls_in_a_row() {
        for (dry, batch, after) in [
            (0, Batch::Empty, 1),
            (1, Batch::Empty, 2),
            (1, Batch::Worked, 0),
            (1, Batch::Troubled, 0),
            (1, Batch::NoRoom, 0),
            (1, Batch::Idle, 1),
            (1, Batch::Seen, 2),
        ] {
            assert_eq!(dry_after(dry, batch), after, "{batch:?} after {dry}");
        }
        for (stopped, dry, bound) in [
            (false, 0, Some(16)),
            (false, 1, Some(2)),
            (false, 2, None),
            (false, 3, None),
            (true, 0, None),
        ] {
            assert_eq!(at_once(stopped, dry, 16), bound, "{dry}, {stopped}");
        }
    }
}
