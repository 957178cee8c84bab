//! One wave of a batch: messages that may go at the same time, each judged and sent on its way.

use std::collections::HashMap;

use futures_util::future::join_all;

use super::arrive::{quarantine, replay};
use crate::message::{Fate, InHand, Judge, Kept, Poison};
use crate::replay::context::Context;
use crate::replay::state::State;

/// Standard messages all at once; of FIFO messages, the first of each group, then the second, …
pub(super) fn waves(messages: Vec<InHand>, fifo: bool) -> Vec<Vec<InHand>> {
    if !fifo {
        return vec![messages];
    }
    let mut waves: Vec<Vec<InHand>> = Vec::new();
    let mut seen: HashMap<Option<String>, usize> = HashMap::new();
    for message in messages {
        let turn = seen.entry(message.group.clone()).or_default();
        if waves.len() <= *turn {
            waves.push(Vec::new());
        }
        waves[*turn].push(message);
        *turn += 1;
    }
    waves
}

/// Sees one wave through; whether every message of it got where it belongs.
pub(super) async fn wave(
    context: &Context<'_>,
    messages: Vec<InHand>,
    counts: &HashMap<String, u32>,
) -> bool {
    let sorted = sort(&mut context.state(), &context.judge(), messages, counts);
    let replays = join_all(
        sorted
            .to_routes
            .into_iter()
            .enumerate()
            .filter(|(_, messages)| !messages.is_empty())
            .map(|(at, messages)| replay(context, at, messages)),
    );
    let (replayed, quarantined) = tokio::join!(replays, quarantine(context, sorted.to_quarantine));
    replayed.into_iter().all(|clean| clean) && quarantined
}

/// A wave's messages by where they go.
struct Sorted {
    /// For each route, its messages and how often each was replayed before.
    to_routes: Vec<Vec<(InHand, u32)>>,
    to_quarantine: Vec<(InHand, Poison, String)>,
}

/// Sorts a wave's messages by where they go, and keeps what stays. `counts`: what the ledger knows.
fn sort(
    state: &mut State,
    judge: &Judge<'_>,
    messages: Vec<InHand>,
    counts: &HashMap<String, u32>,
) -> Sorted {
    let mut sorted = Sorted {
        to_routes: judge.plan.routes.iter().map(|_| Vec::new()).collect(),
        to_quarantine: Vec::new(),
    };
    for message in messages {
        if state.custody.is_behind(&message) {
            state.keep(message, Kept::BehindInGroup);
            continue;
        }
        let replays = message
            .mark()
            .map(|(count, _)| count)
            .or_else(|| counts.get(message.ledger_key()).copied())
            .unwrap_or(0);
        state.note_failure(&message);
        match judge.fate(&message, replays) {
            Fate::Replay(at) => sorted.to_routes[at].push((message, replays)),
            Fate::Quarantine(poison, why) => sorted.to_quarantine.push((message, poison, why)),
            Fate::Keep(why) => state.keep(message, why),
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::saved::{Memory, Progress};
    use crate::sample::{named, plan};

    fn grouped(id: &str, group: &str) -> InHand {
        InHand {
            group: Some(group.into()),
            ..named(id)
        }
    }

    #[test]
    fn a_wave_holds_one_message_of_each_group_in_order() {
        let messages = ["a1", "a2", "b1", "a3", "b2"]
            .map(|id| grouped(id, &id[..1]))
            .to_vec();
        let ids: Vec<Vec<String>> = waves(messages, true)
            .into_iter()
            .map(|wave| wave.into_iter().map(|message| message.id).collect())
            .collect();
        assert_eq!(ids, [vec!["a1", "b1"], vec!["a2", "b2"], vec!["a3"]]);
    }

    #[test]
    fn what_is_behind_a_kept_message_of_its_group_stays() {
        let plan = plan(|policy| {
            for name in ["source", "quarantine", "default_destination"] {
                policy[name] = format!("{}.fifo", policy[name].as_str().unwrap()).into();
            }
            policy["destinations"] = serde_json::json!([{"arn": policy["default_destination"]}]);
        });
        let now = chrono::DateTime::from_timestamp(2_000, 0).unwrap();
        let judge = Judge {
            plan: &plan,
            schema: None,
            began: now,
            now,
        };
        let mut state = State::new(&plan, Progress::default(), Memory::default());
        state.keep(grouped("a1", "a"), Kept::Undelivered);
        let messages = ["a2", "b1"].map(|id| InHand {
            origin: None,
            ..grouped(id, &id[..1])
        });
        let counts = HashMap::from([("b1".to_owned(), 2)]);
        let sorted = sort(&mut state, &judge, messages.to_vec(), &counts);
        let [ref to_route] = sorted.to_routes[..] else {
            panic!("{} routes", sorted.to_routes.len());
        };
        assert_eq!(to_route, &[(messages[1].clone(), 2)]);
        assert_eq!(state.progress.account.returned["behind_in_group"], 1);
    }
}
