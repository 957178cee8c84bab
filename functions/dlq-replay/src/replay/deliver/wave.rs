//! One wave of a batch: messages that may go at the same time, each judged and sent on its way.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use super::arrive::{quarantine, replay};
use crate::judge::{Fate, Judge, Kept, Poison};
use crate::message::{InHand, Replays};
use crate::replay::context::Context;
use crate::replay::state::{BACK_AT_LEAST, State, Stop};

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
    counts: &HashMap<String, Replays>,
    canary: bool,
) -> bool {
    if context.state().is_stopped() {
        context.keep_all(messages, Kept::Stopped);
        return true;
    }
    // It reads the state, which is locked below.
    let judge = context.judge();
    let mut sorted = sort(
        &mut context.state(),
        (&judge, context.run_id()),
        messages,
        counts,
    );
    if canary
        && let Some(stop) = came_back(&sorted.to_routes, context.previous_run(), context.now())
    {
        context.stop(stop);
    }
    // Also where what is back has stopped it.
    if context.state().is_stopped() {
        for (message, _) in sorted.to_routes.iter_mut().flat_map(std::mem::take) {
            context.state().keep(message, Kept::Stopped);
        }
    }
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

/// Why the round stops when most of the canary is what the previous run replayed, back again. What no replay cures is
/// not among it.
fn came_back(
    to_routes: &[Vec<(InHand, Replays)>],
    previous: Option<&str>,
    now: DateTime<Utc>,
) -> Option<Stop> {
    let previous = previous?;
    let is_back = |(_, replays): &&(InHand, Replays)| replays.count >= 2 && replays.run == previous;
    let going = to_routes.iter().flatten();
    let back = going.clone().filter(is_back).count();
    let going = going.count();
    // A few that fail each time tell of themselves, and are quarantined after their replays.
    if back < BACK_AT_LEAST || back * 2 < going {
        return None;
    }
    let reason = format!(
        "{back} of the first {going} messages are those that {previous} replayed, back for the second time: the consumer still fails"
    );
    Some(Stop::breaks(reason, now))
}

/// A wave's messages by where they go.
struct Sorted {
    /// For each route, its messages and how often each was replayed before.
    to_routes: Vec<Vec<(InHand, Replays)>>,
    to_quarantine: Vec<(InHand, Poison, String)>,
}

/// Sorts a wave's messages by where they go, and keeps what stays. `counts`: what the ledger knows.
fn sort(
    state: &mut State,
    (judge, run_id): (&Judge<'_>, &str),
    messages: Vec<InHand>,
    counts: &HashMap<String, Replays>,
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
            .or_else(|| counts.get(message.ledger_key()).cloned())
            .unwrap_or_default();
        let fate = judge.fate(&message, replays.count);
        if !matches!(fate, Fate::Keep(_)) {
            state.progress.groups.note(&message);
        }
        match fate {
            Fate::Replay(at) => {
                if !message.is_looked_into() {
                    state.progress.account.not_looked_into += 1;
                }
                sorted.to_routes[at].push((message, replays));
            }
            Fate::Quarantine(poison, why) => sorted.to_quarantine.push((message, poison, why)),
            Fate::Keep(why) => {
                if why == Kept::ArrivedLater && replays.run == run_id {
                    state.note_back(judge.now);
                }
                state.keep(message, why);
            }
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::saved::{Memory, Progress};
    use crate::replay::state::BREAKER_OPEN;
    use crate::sample::{named, plan};
    use shared::outcome::Rule;

    fn grouped(id: &str, group: &str) -> InHand {
        InHand {
            group: Some(group.into()),
            ..named(id)
        }
    }

    #[test]
    fn a_canary_stops_when_half_of_it_is_back_for_the_second_time() {
        let replayed = |count, run: &str| {
            let run = run.to_owned();
            (named("m"), Replays { count, run })
        };
        let back = || replayed(2, "run-1");
        let once = || replayed(1, "run-1");
        let other = || replayed(5, "run-0");
        let new = || replayed(0, "");
        let now = DateTime::UNIX_EPOCH;
        let five =
            |of: &dyn Fn() -> (InHand, Replays)| -> Vec<_> { (0..5).map(|_| of()).collect() };
        let and = |one: Vec<_>, other: Vec<_>| [one, other].concat();
        for (messages, previous, stops) in [
            (and(five(&back), five(&new)), Some("run-1"), true),
            (five(&back), Some("run-1"), true),
            (five(&back)[1..].to_vec(), Some("run-1"), false),
            (
                and(five(&back), and(five(&new), vec![new()])),
                Some("run-1"),
                false,
            ),
            (and(five(&once), five(&other)), Some("run-1"), false),
            (five(&back), Some("run-2"), false),
            (five(&back), None, false),
            (vec![], Some("run-1"), false),
        ] {
            let stop = came_back(&[messages.clone(), Vec::new()], previous, now);
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
        let messages = ["a2", "b1"].map(|id| {
            crate::sample::opened(InHand {
                origin: None,
                ..grouped(id, &id[..1])
            })
        });
        let twice = Replays {
            count: 2,
            run: "run-1".into(),
        };
        let counts = HashMap::from([("b1".to_owned(), twice.clone())]);
        let sorted = sort(&mut state, (&judge, "run-2"), messages.to_vec(), &counts);
        let [ref to_route] = sorted.to_routes[..] else {
            panic!("{} routes", sorted.to_routes.len());
        };
        assert_eq!(to_route, &[(messages[1].clone(), twice)]);
        assert_eq!(state.progress.account.returned["behind_in_group"], 1);
    }
}
