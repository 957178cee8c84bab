//! The alarm's state as events come: late, twice, and out of their order.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use crate::alarm::State;
use crate::guard::next::noted;
use crate::guard::scene::{arn, at};
use crate::ids;
use crate::ledger::items::{AlarmState, Change};
use crate::policy::FLAPS_KEPT;

type Told = (State, DateTime<Utc>);

/// The alarm's state after these changes were delivered in this order.
fn after(changes: &[Told]) -> AlarmState {
    changes
        .iter()
        .fold(AlarmState::default(), |alarm, (state, at)| {
            noted(&alarm, &arn("High"), *state, *at)
        })
}

fn told(state: State, second: i64) -> Told {
    (state, at(second))
}

#[test]
fn an_alarm_opens_an_incident_and_a_return_to_ok_closes_it() {
    let opened = after(&[told(State::Alarm, 0)]);
    let expected = AlarmState {
        version: 1,
        latest: Some(Change {
            state: State::Alarm,
            at: at(0),
        }),
        incident_id: Some(ids::incident_id(&arn("High"), at(0))),
        open: true,
        opened_at: Some(at(0)),
        transitions: vec![at(0)],
    };
    assert_eq!(opened, expected);
    let closed = noted(&opened, &arn("High"), State::Ok, at(100));
    let expected = AlarmState {
        version: 2,
        latest: Some(Change {
            state: State::Ok,
            at: at(100),
        }),
        open: false,
        ..opened
    };
    assert_eq!(closed, expected);
    let again = noted(&closed, &arn("High"), State::Alarm, at(200));
    assert!(again.open);
    assert_eq!(again.opened_at, Some(at(200)));
    assert_ne!(again.incident_id, closed.incident_id);
}

#[test]
fn a_duplicate_alarm_after_ok_reopens_nothing() {
    let closed = after(&[told(State::Alarm, 0), told(State::Ok, 100)]);
    for millis in [-50, 0, 1, 50] {
        let again = at(0) + TimeDelta::milliseconds(millis);
        let again = noted(&closed, &arn("High"), State::Alarm, again);
        assert_eq!(again, closed, "{millis}");
    }
}

#[test]
fn a_duplicate_of_the_latest_change_changes_nothing() {
    for state in [State::Alarm, State::Ok] {
        let before = after(&[told(State::Alarm, 0), told(state, 100)]);
        for millis in [-50, -1, 0, 1, 50] {
            let at = at(100) + TimeDelta::milliseconds(millis);
            let again = noted(&before, &arn("High"), state, at);
            assert_eq!(again, before, "{state} {millis}");
        }
    }
}

#[test]
fn a_late_ok_ends_the_incident_before_it_and_not_the_one_after_it() {
    let open = after(&[told(State::Alarm, 0), told(State::Alarm, 200)]);
    let late = noted(&open, &arn("High"), State::Ok, at(100));
    assert!(late.open);
    assert_eq!((late.latest, late.opened_at), (open.latest, Some(at(200))));
    assert_eq!(
        late.incident_id,
        Some(ids::incident_id(&arn("High"), at(200)))
    );
    // One from before the incident opened says nothing of it.
    let older = noted(&late, &arn("High"), State::Ok, at(100));
    assert_eq!(older, late);
    // A late change to ALARM is counted, and is history all the same.
    let counted = noted(&open, &arn("High"), State::Alarm, at(100));
    assert_eq!(counted.transitions, [at(0), at(100), at(200)]);
    assert_eq!(counted.latest, open.latest);
    assert_eq!(counted.incident_id, open.incident_id);
}

#[test]
fn insufficient_data_neither_opens_nor_closes() {
    let unknown = told(State::InsufficientData, 100);
    assert!(!after(&[unknown]).open);
    let open = after(&[told(State::Alarm, 0), unknown]);
    assert!(open.open);
    let still = noted(&open, &arn("High"), State::Alarm, at(200));
    assert_eq!(still.incident_id, open.incident_id);
    assert_eq!(still.opened_at, Some(at(0)));
    let closed = after(&[told(State::Alarm, 0), told(State::Ok, 50), unknown]);
    assert!(!closed.open);
}

/// Targets with windows of any length share one history: it is kept by count, and no window cuts it.
#[test]
fn no_window_cuts_the_history_that_targets_share() {
    let daily = |days: i64| -> Vec<Told> {
        (0..days)
            .flat_map(|day| {
                let noon = day * 86_400;
                [told(State::Alarm, noon), told(State::Ok, noon + 60)]
            })
            .collect()
    };
    let most = i64::from(FLAPS_KEPT);
    let kept = after(&daily(most)).transitions;
    assert_eq!(kept.len(), FLAPS_KEPT as usize);
    assert_eq!(kept.first(), Some(&at(0)));
    let more = after(&daily(most + 3)).transitions;
    assert_eq!(more.len(), FLAPS_KEPT as usize);
    assert_eq!(more.first(), Some(&at(3 * 86_400)));
    assert_eq!(more.last(), Some(&at((most + 2) * 86_400)));
}

/// A true history: changes in the alarm's own order, far enough apart to be told from duplicates.
fn histories(states: Vec<State>) -> impl Strategy<Value = Vec<Told>> {
    let change = (prop::sample::select(states), 51_i64..500_000);
    prop::collection::vec(change, 1..9).prop_map(|changes| {
        let mut millis = 0;
        changes
            .into_iter()
            .map(|(state, gap)| {
                millis += gap;
                (state, at(0) + TimeDelta::milliseconds(millis))
            })
            .collect()
    })
}

/// The history with some of it delivered again, in any order.
fn deliveries(history: Vec<Told>) -> impl Strategy<Value = (Vec<Told>, Vec<Told>)> {
    let again = prop::sample::subsequence(history.clone(), 0..=history.len());
    let all = history.clone();
    again
        .prop_map(move |again| [all.clone(), again].concat())
        .prop_shuffle()
        .prop_map(move |delivered| (history.clone(), delivered))
}

fn any_order(states: Vec<State>) -> impl Strategy<Value = (Vec<Told>, Vec<Told>)> {
    histories(states).prop_flat_map(deliveries)
}

fn all_states() -> Vec<State> {
    vec![State::Ok, State::Alarm, State::InsufficientData]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_024) })]

    /// In whatever order a history is delivered, and however often: the latest change and the changes to ALARM are
    /// known in the end.
    #[test]
    fn any_order_of_delivery_ends_at_the_latest_change((history, delivered) in any_order(all_states())) {
        let (straight, found) = (after(&history), after(&delivered));
        prop_assert_eq!(found.latest, straight.latest);
        prop_assert_eq!(found.transitions, straight.transitions);
        if let Some(opened_at) = found.opened_at {
            prop_assert!(history.contains(&(State::Alarm, opened_at)));
            prop_assert_eq!(found.incident_id, Some(ids::incident_id(&arn("High"), opened_at)));
        } else {
            prop_assert!(!found.open && found.incident_id.is_none());
        }
    }

    /// Whether an incident is open follows from the latest change to ALARM or OK alone.
    #[test]
    fn any_order_of_delivery_ends_with_the_incident_open_or_closed(
        (history, delivered) in any_order(vec![State::Ok, State::Alarm]),
    ) {
        let last = history.last().map(|(state, _)| *state);
        prop_assert_eq!(after(&delivered).open, last == Some(State::Alarm));
        prop_assert_eq!(after(&history).open, last == Some(State::Alarm));
    }

    /// What is told again changes nothing, and whatever changes raises the version by one.
    #[test]
    fn the_version_is_raised_by_each_change_and_by_nothing_else((_, delivered) in any_order(all_states())) {
        let mut alarm = AlarmState::default();
        for (nth, (state, at)) in delivered.iter().enumerate() {
            let next = noted(&alarm, &arn("High"), *state, *at);
            let unchanged = AlarmState { version: alarm.version, ..next.clone() } == alarm;
            prop_assert_eq!(next.version, alarm.version + u64::from(!unchanged));
            prop_assert!(delivered[..nth].contains(&(*state, *at)) <= unchanged);
            alarm = next;
        }
    }

    /// An alarm that goes from OK to ALARM and back: the incident that is open in the end is the same one.
    #[test]
    fn any_order_of_delivery_ends_in_the_same_open_incident(
        (history, delivered) in any_order(vec![State::Ok, State::Alarm]),
    ) {
        let last = history.len() - 1;
        let turns = |(_, at): &Told| {
            let nth = history.iter().position(|(_, other)| other == at).unwrap();
            let state = if (last - nth).is_multiple_of(2) { State::Alarm } else { State::Ok };
            (state, *at)
        };
        let straight = after(&history.iter().map(turns).collect::<Vec<_>>());
        prop_assert!(straight.open);
        let found = after(&delivered.iter().map(turns).collect::<Vec<_>>());
        prop_assert_eq!(AlarmState { version: straight.version, ..found }, straight);
    }
}
