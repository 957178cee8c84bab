//! How messages arrive: sent to a destination or to the quarantine, accounted for, and only then removed.

use std::collections::HashMap;

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::Value;

use super::remove::remove;
use super::send::{Delivery, Fared, invoke, send_all};
use crate::account::{Account, count};
use crate::judge::{self, Kept, Poison};
use crate::message::{self, InHand, Outgoing, Replays};
use crate::policy::is_fifo;
use crate::replay::context::Context;

/// Replays messages by one route; whether all arrived.
pub(super) async fn replay(
    context: &Context<'_>,
    at: usize,
    messages: Vec<(InHand, Replays)>,
) -> bool {
    let route = &context.plan.routes[at];
    let run_id = context.run_id();
    let arn = &route.destination.arn;
    let fifo = is_fifo(arn);
    let raised: HashMap<String, Replays> = messages
        .iter()
        .map(|(message, replays)| {
            let run = run_id.to_owned();
            let count = replays.count + 1;
            (message.id.clone(), Replays { count, run })
        })
        .collect();
    foresee(context, messages.iter().map(|(message, _)| message), fifo).await;
    let deliveries = if route.destination.is_function() {
        join_all(
            messages
                .into_iter()
                .map(|(message, _)| invoke(context, arn, message)),
        )
        .await
    } else {
        let ready = messages
            .into_iter()
            .enumerate()
            .filter_map(|(index, (message, replays))| {
                let out = message::outgoing(index, &message, route, replays.count, run_id);
                ready(context, message, out)
            })
            .collect();
        send_all(context, arn, ready).await
    };
    conclude(context, deliveries, fifo, |account, message, new_id| {
        count(&mut account.replayed, arn.as_str());
        Some((
            new_id?,
            raised.get(&message.id).cloned().unwrap_or_default(),
        ))
    })
    .await
}

/// Puts messages into the quarantine, each with the reason; whether all arrived.
pub(super) async fn quarantine(
    context: &Context<'_>,
    messages: Vec<(InHand, Poison, String)>,
) -> bool {
    if messages.is_empty() {
        return true;
    }
    let plan = context.plan;
    let run_id = context.run_id();
    let fifo = is_fifo(&plan.quarantine);
    foresee(context, messages.iter().map(|(message, ..)| message), fifo).await;
    let reasons: HashMap<String, (Poison, Value)> = messages
        .iter()
        .map(|(message, poison, why)| {
            let reason = judge::reason(message, plan, *poison, why, run_id);
            (message.id.clone(), (*poison, reason))
        })
        .collect();
    let ready = messages
        .into_iter()
        .enumerate()
        .filter_map(|(index, (message, ..))| {
            let (_, reason) = &reasons[&message.id];
            let out = message::quarantined(index, &message, plan, reason, run_id);
            ready(context, message, out)
        })
        .collect();
    let deliveries = send_all(context, &plan.quarantine, ready).await;
    conclude(context, deliveries, fifo, |account, message, new_id| {
        let (poison, reason) = &reasons[&message.id];
        count(&mut account.quarantined, poison.name());
        Some((format!("quarantined#{}", new_id?), reason.clone()))
    })
    .await
}

/// Counts, and saves, what may be on its second way before it is sent, so that another death does not forget it.
async fn foresee<'m>(
    context: &Context<'_>,
    messages: impl Iterator<Item = &'m InHand>,
    to_fifo: bool,
) {
    let received_before = messages.filter(|message| message.receive_count > 1).count() as u64;
    if context.state().foresee(received_before, to_fifo) {
        context.save().await;
    }
}

/// A message with its entry, or none when the entry could not be built; it is kept then.
fn ready(
    context: &Context<'_>,
    message: InHand,
    out: Option<Outgoing>,
) -> Option<(InHand, Outgoing)> {
    if let Some(out) = out {
        return Some((message, out));
    }
    context.state().keep(message, Kept::Undelivered);
    None
}

/// Accounts for deliveries, removes what arrived, and keeps what did not; whether all arrived.
///
/// `tell` counts a delivered message, and gives what the ledger keeps of one that has no room for it:
/// the id is that of the new message.
async fn conclude<T: Serialize>(
    context: &Context<'_>,
    deliveries: Vec<Delivery>,
    fifo: bool,
    mut tell: impl FnMut(&mut Account, &InHand, Option<String>) -> Option<(String, T)>,
) -> bool {
    let mut to_remove = Vec::new();
    let mut to_store = Vec::new();
    let mut clean = true;
    {
        let mut state = context.state();
        for delivery in deliveries {
            let Delivery {
                message,
                fared,
                lost_answers,
                told_in_ledger,
                kept,
            } = delivery;
            if !fifo {
                state.progress.account.possible_duplicates += lost_answers;
            }
            let Fared::Delivered(new_id) = fared else {
                clean = false;
                state.keep(message, kept);
                continue;
            };
            let told = tell(&mut state.progress.account, &message, new_id);
            to_store.extend(told.filter(|_| told_in_ledger));
            state.custody.settle(&message.id);
            to_remove.push(message);
        }
    }
    tokio::join!(context.store(to_store), remove(context, to_remove, false));
    clean
}
