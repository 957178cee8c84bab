//! Giving back: what a round holds becomes visible again, and what is hidden in nobody's hand is told.

use super::context::Context;
use super::state::Stop;

/// Messages that one request makes visible at most (Amazon SQS API Reference, `ChangeMessageVisibilityBatch`).
const MAX_ENTRIES: usize = 10;

/// Makes what is held visible again. What there is no time for comes back by itself, and the next round waits for it.
pub(super) async fn give_back(context: &Context<'_>) {
    let held = context.state().custody.let_go();
    let mut late = held.len();
    for receipts in held.chunks(MAX_ENTRIES) {
        let Some(clearance) = context.clear("give messages back") else {
            note_late(context, late, "the time was up");
            context.state().progress.lost_receives += 1;
            return;
        };
        let source = &context.plan.source;
        match context.aws.release(source, receipts, clearance).await {
            Ok(released) => late = late.saturating_sub(released),
            Err(error) => {
                note_late(context, late, &error.to_string());
                return;
            }
        }
    }
    if late > 0 {
        note_late(context, late, "their receipts have expired");
    }
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
