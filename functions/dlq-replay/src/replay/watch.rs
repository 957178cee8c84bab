//! Watching: a canary first, then as many batches at a time as the destinations bear.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;

use super::context::Context;
use super::deliver::{Batch, batch};
use super::state::{BATCH, Stop};
use crate::pace::Feedback;
use crate::plan::Route;

/// Empty long polls that say that a queue is dry. A long poll asks all of a queue's servers.
const DRY: u32 = 2;
/// How often the destinations are looked at and the progress is saved.
const TICK: Duration = Duration::from_secs(5);

/// Replays the first messages and watches what becomes of them. Returns the empty polls seen.
pub(super) async fn canary(context: &Context<'_>) -> u32 {
    let canary = context.plan.canary;
    let mut dry = 0;
    while dry < DRY && !context.is_stopped() {
        match batch(context, canary.messages.get(), true).await {
            Batch::Empty => dry += 1,
            Batch::NoRoom | Batch::Idle => {}
            Batch::Troubled => {
                let mut state = context.state();
                let error = format!("the canary could not be delivered: {}", state.last_trouble);
                state.stop(Stop::Fail {
                    error,
                    retryable: true,
                });
            }
            Batch::Worked => break,
        }
    }
    let more = context.plan.expected > u64::from(canary.messages.get());
    if dry == 0 && more && canary.settle_seconds > 0 && !context.is_stopped() {
        tokio::time::sleep(Duration::from_secs(u64::from(canary.settle_seconds))).await;
        look(context).await;
    }
    if !context.is_stopped() {
        context.state().progress.canary_passed = true;
    }
    dry
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
    let mut looking = false;
    let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
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
                    flying.push(Box::pin(async {
                        look(context).await;
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
        Batch::Empty => dry + 1,
        Batch::Worked | Batch::NoRoom | Batch::Troubled => 0,
        Batch::Idle => dry,
    }
}

/// What was seen of a destination.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Seen {
    backlog: Option<u64>,
    consumer_errors: Option<f64>,
}

/// Looks at the destinations and learns from what it sees.
async fn look(context: &Context<'_>) {
    let now = context.now();
    let seen = join_all(context.plan.routes.iter().map(|route| async move {
        let destination = &route.destination;
        let backlog = if destination.is_function() {
            None
        } else {
            let queue = context.aws.queue(&destination.arn).await.ok();
            queue.map(|queue| queue.visible)
        };
        let consumer_errors = match &destination.consumer_function {
            Some(function) => context.aws.consumer_errors(function, now).await.ok(),
            None => None,
        };
        Seen {
            backlog,
            consumer_errors,
        }
    }))
    .await;
    let bound = u64::from(context.plan.limits.max_backlog.get());
    let mut state = context.state();
    let (feedback, notes) = lesson(&context.plan.routes, &state.backlogs, &seen, bound);
    for (backlog, seen) in state.backlogs.iter_mut().zip(&seen) {
        *backlog = seen.backlog.unwrap_or(*backlog);
    }
    for note in notes {
        state.notes.note(note);
    }
    state.pace.learn(feedback);
}

/// What the destinations teach: the most urgent feedback, and what a reader should know of it.
///
/// `before` are their backlogs at the last look, `bound` is by how many messages one may grow.
fn lesson(routes: &[Route], before: &[u64], seen: &[Seen], bound: u64) -> (Feedback, Vec<String>) {
    let mut feedback = Feedback::Relieved;
    let mut notes = Vec::new();
    for ((route, before), seen) in routes.iter().zip(before).zip(seen) {
        if let Some(backlog) = seen.backlog {
            let grown = backlog.saturating_sub(route.backlog);
            if grown >= bound {
                feedback = Feedback::Full;
                notes.push(format!(
                    "paused while the backlog of {} was {bound} messages above where it began",
                    route.destination.arn
                ));
            } else if backlog > *before && grown >= bound / 2 && feedback != Feedback::Full {
                feedback = Feedback::Pressure;
            }
        }
        if let (Some(before), Some(now)) = (route.consumer_errors, seen.consumer_errors)
            && now > before
            && feedback != Feedback::Full
        {
            feedback = Feedback::Pressure;
            notes.push(format!(
                "slowed down while {} had more errors than before",
                route
                    .destination
                    .consumer_function
                    .as_deref()
                    .unwrap_or_default()
            ));
        }
    }
    (feedback, notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{ORDERS, plan};

    #[test]
    fn a_queue_is_dry_after_two_empty_polls_in_a_row() {
        for (dry, batch, after) in [
            (0, Batch::Empty, 1),
            (1, Batch::Empty, 2),
            (1, Batch::Worked, 0),
            (1, Batch::Troubled, 0),
            (1, Batch::NoRoom, 0),
            (1, Batch::Idle, 1),
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

    #[test]
    fn the_most_urgent_of_what_is_seen_sets_the_pace() {
        let mut routes = plan(|policy| {
            policy["destinations"] =
                serde_json::json!([{"arn": ORDERS, "consumer_function": "orders"}, {"arn": format!("{ORDERS}-2")}]);
        })
        .routes;
        routes[0].consumer_errors = Some(2.0);
        let began = routes[0].backlog;
        // What is seen of the first destination, by how much the second's backlog has grown, and the lesson.
        for (backlog, errors, second, feedback, noted) in [
            (0, 0.0, 0, Feedback::Relieved, ""),
            (0, 2.0, 0, Feedback::Relieved, ""),
            (49, 0.0, 0, Feedback::Relieved, ""),
            // Half of the bound, but no more than at the last look.
            (50, 0.0, 0, Feedback::Relieved, ""),
            (51, 0.0, 0, Feedback::Pressure, ""),
            (0, 3.0, 0, Feedback::Pressure, "slowed down while orders"),
            (100, 3.0, 0, Feedback::Full, "paused"),
            (100, 0.0, 99, Feedback::Full, "paused"),
            (51, 3.0, 100, Feedback::Full, "slowed down while orders"),
        ] {
            let seen = [
                Seen {
                    backlog: Some(began + backlog),
                    consumer_errors: Some(errors),
                },
                Seen {
                    backlog: Some(began + second),
                    consumer_errors: None,
                },
            ];
            let (learnt, notes) = lesson(&routes, &[began + 50, began], &seen, 100);
            assert_eq!(learnt, feedback, "{seen:?}");
            match notes.first() {
                Some(note) => assert!(!noted.is_empty() && note.starts_with(noted), "{note}"),
                None => assert_eq!(noted, "", "{seen:?}"),
            }
        }
        let unseen = [Seen::default(); 2];
        let (learnt, notes) = lesson(&routes, &[began; 2], &unseen, 100);
        assert_eq!((learnt, notes), (Feedback::Relieved, Vec::new()));
    }
}
