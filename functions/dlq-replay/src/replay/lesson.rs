//! What a look at the queues and their consumers teaches: how fast to go on, or why to rest. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::state::{State, Stop};
use crate::consumer::{Consumer, first_trouble};
use crate::pace::Feedback;
use crate::plan::{Plan, Queue, Route};

/// From so many messages in flight on, a queue gets no more: SQS stops giving messages out at 120,000 (Amazon SQS
/// Developer Guide, "Standard queue quotas").
const IN_FLIGHT: u64 = 100_000;
/// So long a replay waits in its invocation for a backlog to fall.
const PAUSED_AT_MOST: Duration = Duration::from_secs(30);
/// How often a run rests because what it replayed seems to come back, before it stops for good.
const SETBACKS: u32 = 3;

/// What was seen in one look. What could not be read is `None`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// Since the round began.
    pub(super) at: Duration,
    pub(super) now: DateTime<Utc>,
    pub(super) source: Option<Queue>,
    /// In the plan's order; functions are `None`.
    pub(super) destinations: Vec<Option<Queue>>,
    /// In the plan's order, where they were looked at this time and the policy names one.
    pub(super) consumers: Vec<Option<Consumer>>,
}

/// Learns from a look. A round that has stopped learns no more.
pub(super) fn learn(state: &mut State, plan: &Plan, seen: &Seen) {
    if state.is_stopped() {
        return;
    }
    let feedback = backlogs(state, plan, seen);
    state.pace.learn(feedback);
    follow(state, plan, seen);
    if feedback == Feedback::Full {
        let since = *state.paused_since.get_or_insert(seen.at);
        if seen.at.saturating_sub(since) >= PAUSED_AT_MOST {
            let reason = "its destination has not worked off enough of its backlog".to_owned();
            state.rest(reason, seen.now);
            return;
        }
    } else {
        state.paused_since = None;
    }
    if let Some(trouble) = trouble(plan, &seen.consumers, &seen.destinations) {
        let reason = format!("{trouble}; the rest follows when it is well");
        state.rest(reason, seen.now);
        return;
    }
    came_back(state, plan, seen);
}

/// Why a consumer is not well.
pub(super) fn trouble(
    plan: &Plan,
    consumers: &[Option<Consumer>],
    destinations: &[Option<Queue>],
) -> Option<String> {
    let percent = plan.limits.max_consumer_failure_percent.get();
    let consumers = consumers.iter().zip(destinations);
    let consumers = consumers.map(|(consumer, queue)| {
        let in_flight = queue.map_or(0, |queue| queue.in_flight);
        (consumer.as_ref(), in_flight)
    });
    first_trouble(consumers, percent)
}

/// What the destinations' backlogs teach; the most urgent of it.
fn backlogs(state: &mut State, plan: &Plan, seen: &Seen) -> Feedback {
    let bound = u64::from(plan.limits.max_backlog.get());
    let mut feedback = Feedback::Relieved;
    for (route, queue) in plan.routes.iter().zip(&seen.destinations) {
        let Some(queue) = queue else { continue };
        let arn = &route.destination.arn;
        let grown = queue.total().saturating_sub(state.progress.baseline(route));
        if grown >= bound {
            feedback = Feedback::Full;
            state.notes.note(format!(
                "paused while {arn} held {bound} messages more than when the run began"
            ));
        } else if queue.in_flight >= IN_FLIGHT {
            feedback = Feedback::Full;
            state.notes.note(format!(
                "paused while consumers of {arn} had {IN_FLIGHT} messages in hand, near SQS's limit"
            ));
        }
    }
    feedback
}

/// Goes as fast as the slowest of the destinations that get messages bears.
fn follow(state: &mut State, plan: &Plan, seen: &Seen) {
    if !plan.limits.paced_by_consumer {
        return;
    }
    let sent = state.sent_since_look(&plan.routes);
    let all: u64 = sent.iter().sum();
    let ceiling = f64::from(plan.limits.messages_per_second.get());
    let mut rate = ceiling;
    for (at, queue) in seen.destinations.iter().enumerate() {
        let Some(queue) = queue else { continue };
        let drain = &mut state.drains[at];
        drain.sent(sent[at]);
        let bears = drain.look(queue.total(), seen.at);
        if all == 0 {
            rate = rate.min(bears);
        } else if sent[at] > 0 {
            #[allow(clippy::cast_precision_loss)] // Message counts are far below 2^52.
            let share = sent[at] as f64 / all as f64;
            rate = rate.min(bears / share);
        }
    }
    state.limit.set(rate.max(1.0));
}

/// Rests, and at last stops, when what was replayed comes back.
fn came_back(state: &mut State, plan: &Plan, seen: &Seen) {
    let Some(source) = seen.source else { return };
    let removed = state.progress.account.removed();
    let removed = removed.saturating_sub(state.before.removed());
    let Some((back, of)) = state.returns.look(source.total(), removed, seen.at) else {
        return;
    };
    if back * 2 < of {
        return;
    }
    let reason = format!(
        "{} holds {} messages, as if {back} of the last {of} that left it were back: the consumer seems to fail",
        plan.source,
        source.total()
    );
    if !set_back(state, &reason, seen.now) {
        state.rest(reason, seen.now);
    }
}

/// Takes in that what was replayed does not seem to be consumed; whether that was once too often, and stops the run.
pub(super) fn set_back(state: &mut State, reason: &str, now: DateTime<Utc>) -> bool {
    state.progress.setbacks += 1;
    let stops = state.progress.setbacks >= SETBACKS;
    if stops {
        state.stop(Stop::breaks(reason.to_owned(), now));
    }
    stops
}

impl State {
    /// What each destination got since this was last asked.
    fn sent_since_look(&mut self, routes: &[Route]) -> Vec<u64> {
        let sent = self.sent_to(routes);
        let since = sent.iter().zip(&self.sent_before);
        let since = since.map(|(sent, before)| sent - before).collect();
        self.sent_before = sent;
        since
    }
}

#[cfg(test)]
mod tests {
    use super::super::returns::Returns;
    use super::*;
    use crate::account::count;
    use crate::replay::saved::{Memory, Progress};
    use crate::sample::{ORDERS, plan};
    use chrono::TimeDelta;
    use serde_json::json;

    fn queue(visible: u64, in_flight: u64) -> Queue {
        Queue {
            visible,
            in_flight,
            delayed: 0,
            max_message_bytes: 1_048_576,
            retention_seconds: 1_209_600,
        }
    }

    fn bounded() -> Plan {
        plan(|policy| {
            policy["destinations"] = json!([{"arn": ORDERS}, {"arn": format!("{ORDERS}-2")}]);
            policy["limits"] = json!({"max_backlog": 100});
        })
    }

    fn seen(seconds: u64, destinations: &[(u64, u64)]) -> Seen {
        Seen {
            at: Duration::from_secs(seconds),
            now: DateTime::UNIX_EPOCH + TimeDelta::seconds(i64::try_from(seconds).unwrap()),
            source: None,
            destinations: destinations
                .iter()
                .map(|(visible, in_flight)| Some(queue(*visible, *in_flight)))
                .collect(),
            consumers: Vec::new(),
        }
    }

    #[test]
    fn a_backlog_counts_all_that_a_queue_holds_against_the_runs_beginning() {
        let plan = bounded();
        // What was held when the run began, what is held now, and whether that is too much.
        for (began, first, second, full) in [
            (10, (10, 0), (10, 0), false),
            (10, (109, 0), (10, 0), false),
            (10, (110, 0), (10, 0), true),
            (10, (50, 60), (10, 0), true),
            // The round began with more than the run did.
            (0, (105, 0), (10, 0), true),
            (10, (10, 0), (110, 0), true),
            (200_000, (1, 100_000), (10, 0), true),
        ] {
            let progress = Progress {
                baselines: [(ORDERS.to_owned(), began)].into(),
                ..Progress::default()
            };
            let mut state = State::new(&plan, progress, Memory::default());
            learn(&mut state, &plan, &seen(5, &[first, second]));
            assert_eq!(
                state.pace.allowed() == 0,
                full,
                "{began}, {first:?}, {second:?}"
            );
            assert!(!state.is_stopped());
        }
    }

    #[test]
    fn a_backlog_that_does_not_fall_ends_the_round_and_not_the_run() {
        let plan = bounded();
        let mut state = State::new(&plan, Progress::default(), Memory::default());
        for second in [5, 20, 34] {
            learn(&mut state, &plan, &seen(second, &[(200, 0), (0, 0)]));
            assert!(!state.is_stopped(), "after {second} s");
        }
        learn(&mut state, &plan, &seen(35, &[(200, 0), (0, 0)]));
        let Some(Stop::Rest { until, .. }) = state.take_stop() else {
            panic!("no rest");
        };
        assert_eq!(until, DateTime::UNIX_EPOCH + TimeDelta::seconds(80));
    }

    #[test]
    fn a_consumer_that_is_not_well_ends_the_round_with_the_reason() {
        let plan = bounded();
        let mut state = State::new(&plan, Progress::default(), Memory::default());
        let failing = Consumer {
            function: "orders".into(),
            invocations: 10,
            errors: 9,
            ..Consumer::default()
        };
        let seen = Seen {
            consumers: vec![Some(failing), None],
            ..seen(5, &[(0, 0), (0, 0)])
        };
        learn(&mut state, &plan, &seen);
        let Some(Stop::Rest { reason, .. }) = state.take_stop() else {
            panic!("no rest");
        };
        assert!(
            reason.starts_with("9 of 10 invocations of orders failed"),
            "{reason}"
        );
    }

    /// Replays so many messages to the first destination.
    fn replayed(state: &mut State, messages: usize) {
        for _ in 0..messages {
            count(&mut state.progress.account.replayed, ORDERS);
        }
    }

    #[test]
    fn the_slowest_destination_that_gets_messages_sets_the_rate() {
        let plan = plan(|policy| {
            policy["destinations"] = json!([{"arn": ORDERS}, {"arn": format!("{ORDERS}-2")}]);
        });
        let mut state = State::new(&plan, Progress::default(), Memory::default());
        learn(&mut state, &plan, &seen(0, &[(10, 0), (10, 0)]));
        replayed(&mut state, 1_000);
        // It kept 500 of the 1,000 that it got in ten seconds: 50 a second, and room for 4,500 more in 20 s.
        learn(&mut state, &plan, &seen(10, &[(510, 0), (4_000, 0)]));
        let a_minute = Duration::from_mins(1);
        let wait = state
            .limit
            .reserve(2_750 + 10, Duration::from_secs(10), a_minute);
        let wait = wait.unwrap().as_secs_f64();
        assert!((9.9..10.2).contains(&wait), "{wait}");
    }

    #[test]
    fn what_comes_back_is_told_only_once_the_counts_can_show_it() {
        let plan = bounded();
        let look = |state: &mut State, seconds, held| {
            let seen = Seen {
                source: Some(queue(held, 0)),
                ..seen(seconds, &[(0, 0), (0, 0)])
            };
            learn(state, &plan, &seen);
            state.take_stop()
        };
        let fresh = || State::new(&plan, Progress::default(), Memory::default());
        // Consumed for good: the queue falls by what left it, a minute late.
        let mut state = fresh();
        look(&mut state, 0, 400);
        replayed(&mut state, 100);
        assert_eq!(look(&mut state, 5, 400), None);
        assert_eq!(look(&mut state, 64, 400), None);
        assert_eq!(look(&mut state, 70, 300), None);
        // All of it is back: the round rests, then the next, and the third opens the breaker.
        let mut state = fresh();
        for setback in 1..=3 {
            state.returns = Returns::default();
            look(&mut state, 0, 400);
            replayed(&mut state, 100);
            look(&mut state, 5, 400);
            let stop = look(&mut state, 70, 400);
            match stop {
                Some(Stop::Rest { reason, .. }) if setback < 3 => {
                    assert!(reason.contains("100 of the last 100"), "{reason}");
                }
                Some(Stop::Escalate {
                    breaker: Some(_), ..
                }) if setback == 3 => {}
                other => panic!("{setback}: {other:?}"),
            }
        }
    }
}
