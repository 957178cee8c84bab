//! Giving back: what a round holds becomes visible again, and what is hidden in nobody's hand is told.

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::context::Context;
use super::state::Stop;

/// Messages that one request makes visible at most (Amazon SQS API Reference, `ChangeMessageVisibilityBatch`).
const MAX_ENTRIES: usize = 10;
/// Requests on their way at the same time.
const AT_ONCE: usize = 16;

/// Makes what is held visible again. What there is no time for comes back by itself, and the next round waits for it.
pub(super) async fn give_back(context: &Context<'_>) {
    let held = context.state().custody.let_go();
    let mut late = held.len();
    let mut why = None;
    let mut chunks = held.chunks(MAX_ENTRIES);
    let mut releases = FuturesUnordered::new();
    loop {
        while releases.len() < AT_ONCE
            && let Some(receipts) = chunks.next()
        {
            releases.push(release(context, receipts));
        }
        let Some(answer) = releases.next().await else {
            break;
        };
        match answer {
            Ok(shown) => late = late.saturating_sub(shown),
            Err(error) => why = why.or(Some(error)),
        }
    }
    if late > 0 {
        let why = why.unwrap_or_else(|| "their receipts have expired".to_owned());
        note_late(context, late, &why);
    }
}

/// Gives some back, and gives how many were; or why none was.
async fn release(context: &Context<'_>, receipts: &[String]) -> Result<usize, String> {
    let Some(clearance) = context.clear("give messages back") else {
        context.state().progress.lost_receives += 1;
        return Err("the time was up".to_owned());
    };
    let source = &context.plan.source;
    let released = context.aws.release(source, receipts, clearance).await;
    released.map_err(|error| {
        // They stay hidden in nobody's hand for a while.
        context.state().progress.lost_receives += 1;
        error.to_string()
    })
}

fn note_late(context: &Context<'_>, messages: usize, why: &str) {
    let visibility = context.plan.limits.visibility_seconds;
    context.state().notes.note(format!(
        "{messages} returned messages show again within {visibility} s rather than at once: {why}"
    ));
}

/// A lost answer to a receive, or an attempt that ended badly, leaves messages hidden in nobody's hand: a
/// queue that looks dry then is none. The next attempt takes them when they show again.
pub(super) async fn look_for_hidden(context: &Context<'_>) {
    if !context.state().suspects_hidden(context.attempt()) {
        return;
    }
    let source = &context.plan.source;
    match context.aws.queue(source).await {
        Ok(queue) if queue.in_flight == 0 => context.state().progress.lost_receives = 0,
        Ok(queue) => context.stop(Stop::Fail {
            error: format!(
                "{} messages of {source} are hidden after a lost answer or an attempt that ended badly; they show again within {} s, and the next attempt takes them",
                queue.in_flight, context.plan.limits.visibility_seconds
            ),
            retryable: true,
        }),
        Err(error) => context.stop_on(&error),
    }
}

/// Looks what a round leaves to the next, so that it can be told when the replay ends.
pub(super) async fn look_what_is_left(context: &Context<'_>) {
    if context.state().goes_on() {
        let queue = context.aws.queue(&context.plan.source).await;
        context.state().left = queue.ok().map(|queue| queue.total());
    }
}

/// A pass ends when only messages show that the round keeps, and among many of those some may never have shown. Then
/// there is another pass.
pub(super) async fn look_for_unseen(context: &Context<'_>) {
    if context.state().custody.held() == 0 || context.is_stopped() {
        return;
    }
    let Ok(queue) = context.aws.queue(&context.plan.source).await else {
        return;
    };
    let now = context.now();
    context.state().look_for_unseen(queue.total(), now);
}
