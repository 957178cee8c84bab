//! Claims, ends and withdrawals: tokens and versions only grow, and what took back spends nothing.

use chrono::TimeDelta;
use proptest::prelude::*;

use crate::alarm::State;
use crate::guard::next::{End, finished, incident_of, noted_event, refused, renewed, withdrawn};
use crate::guard::scene::{
    Claiming, RESOURCE, applied, arn, at, claimed, end, event, grounds, lasting, memory, passing,
    place, settling, skipped, snapshot,
};
use crate::guard::{Grounds, LiveAlarm, Occasion, Question, Verdict, decide};
use crate::ids;
use crate::ledger::items::{self, Facts, Heartbeat, OpenBreaker, Place, Snapshot, Status};
use crate::outcome::{Report, Rule};
use crate::policy::{Limits, Temporary};

#[test]
fn a_claim_takes_the_target_in_hand() {
    let event = event("High", State::Alarm, 0);
    let place = place(&event, "req-1");
    let facts = claimed(&Facts::default(), &place, &Claiming::default(), 10);
    let record = facts.record.unwrap();
    assert_eq!(
        (record.status, record.token, record.sequence),
        (Status::InProgress, 1, 1)
    );
    assert_eq!(record.claimed_until, at(70));
    assert_eq!(record.incident_id, ids::incident_id(&arn("High"), at(0)));
    let lease = facts.lease.unwrap();
    assert_eq!((lease.token, lease.held_until), (1, at(70)));
    assert_eq!(lease.run_id, place.run_id());
    assert_eq!(
        facts.heartbeat,
        Some(Heartbeat {
            token: 1,
            at: at(10)
        })
    );
    assert_eq!(facts.history.actions.len(), 1);
    assert!(facts.alarm.open);
    let standing = facts.standing.unwrap();
    assert_eq!(standing.resource, RESOURCE);
    let [run] = &standing.runs[..] else {
        panic!("{:?}", standing.runs)
    };
    assert_eq!(
        (run.run_id.clone(), run.transition.clone()),
        (place.run_id(), place.transition)
    );
}

#[test]
fn a_claim_after_a_lost_lease_item_gets_a_token_above_the_heartbeats() {
    let event = event("High", State::Alarm, 0);
    let place = place(&event, "req-1");
    let mut facts = claimed(&Facts::default(), &place, &Claiming::default(), 10);
    let beat = |token| Heartbeat { token, at: at(20) };
    facts.heartbeat = Some(beat(41));
    facts.lease = None;
    let token = |facts: &Facts| {
        let next = claimed(facts, &place, &Claiming::default(), 100);
        let tokens = (
            next.lease.unwrap().token,
            next.heartbeat.unwrap().token,
            next.record.unwrap().token,
        );
        assert_eq!(tokens, (tokens.0, tokens.0, tokens.0));
        tokens.0
    };
    assert_eq!(token(&facts), 42);
    facts.heartbeat = None;
    facts.record.as_mut().unwrap().token = 50;
    assert_eq!(token(&facts), 51);
    facts.heartbeat = Some(beat(60));
    assert_eq!(token(&facts), 61);
}

#[test]
fn a_claim_keeps_the_state_to_go_back_to_unless_it_brings_its_own() {
    let event = event("High", State::Alarm, 0);
    let place = place(&event, "req-1");
    let (first, second) = (snapshot(&event, 10), snapshot(&event, 500));
    let with = |facts: &Facts, snapshot| {
        let claiming = Claiming {
            snapshot,
            ..Claiming::default()
        };
        claimed(facts, &place, &claiming, 10)
    };
    let facts = with(&Facts::default(), Some(&first));
    assert_eq!(facts.snapshot(), Some(&first));
    assert_eq!(with(&facts, None).snapshot(), Some(&first));
    assert_eq!(with(&facts, Some(&second)).snapshot(), Some(&second));
}

#[test]
fn a_term_begins_when_the_first_run_has_put_what_it_puts_in_place() {
    let event = event("High", State::Alarm, 0);
    let place = place(&event, "req-1");
    let own = Snapshot {
        run_id: place.run_id(),
        ..snapshot(&event, 10)
    };
    let kept = Temporary {
        stabilisation: TimeDelta::zero(),
        expires_after: TimeDelta::hours(1),
        at_most: TimeDelta::hours(2),
    };
    let with = |snapshot: &Snapshot, put_in_place, second| {
        let claiming = Claiming {
            snapshot: Some(snapshot),
            ..Claiming::default()
        };
        let facts = claimed(&Facts::default(), &place, &claiming, 10);
        let done = applied();
        let ended = End {
            put_in_place,
            ..end(Status::Completed, &done)
        };
        let facts = finished(&facts, &event, &ended, at(second));
        let snapshot = facts.snapshot().unwrap();
        (snapshot.in_place_since, snapshot.expires_at)
    };
    // It took half an hour, deaths and all.
    let put = with(&own, Some(kept), 1_810);
    assert_eq!(put, (Some(at(1_810)), Some(at(5_410))));
    // Nothing was put in place, or another run did.
    assert_eq!(with(&own, None, 1_810), (None, Some(at(3_610))));
    let others = snapshot(&event, 10);
    assert_eq!(with(&others, Some(kept), 1_810), (None, Some(at(3_610))));
    // What is in place is not put there again.
    let known = Snapshot {
        in_place_since: Some(at(500)),
        ..own
    };
    assert_eq!(
        with(&known, Some(kept), 1_810),
        (Some(at(500)), Some(at(3_610)))
    );
}

#[test]
fn an_end_gives_the_target_back_and_keeps_it_between_rounds() {
    let event = event("High", State::Alarm, 0);
    let place = place(&event, "req-1");
    let facts = claimed(&Facts::default(), &place, &Claiming::default(), 10);
    let done = applied();
    let over = finished(&facts, &event, &end(Status::Completed, &done), at(30));
    assert_eq!(over.lease.as_ref().unwrap().held_until, at(30));
    let record = over.record.unwrap();
    assert_eq!(
        (record.status, record.claimed_until),
        (Status::Completed, at(30))
    );
    assert_eq!(record.report, Some(done.clone()));
    assert_eq!(over.standing, None);
    assert_eq!(over.history.actions[0].finished_at, at(30));
    let answer = &over.history.answers[&arn("High")];
    assert_eq!(
        (answer.changed_at, answer.outcome.as_str()),
        (at(0), "Applied")
    );

    let continuing = End {
        continues_by: Some(at(150)),
        progress: Some(memory(3)),
        memory: Some(memory(4)),
        ..end(Status::Continuing, &done)
    };
    let goes_on = finished(&facts, &event, &continuing, at(30));
    assert_eq!(goes_on.lease.unwrap().held_until, at(150));
    let record = goes_on.record.unwrap();
    assert_eq!(record.claimed_until, at(150));
    assert_eq!(record.progress, Some(memory(3)));
    assert_eq!(goes_on.history.memory, Some(memory(4)));
    assert!(goes_on.history.answers.is_empty());
    assert!(goes_on.standing.unwrap().runs.len() == 1);
}

#[test]
fn what_failed_settles_or_is_in_place_stands_until_it_is_concluded() {
    let event = event("High", State::Alarm, 0);
    let place = place(&event, "req-1");
    let kept = snapshot(&event, 10);
    let claiming = Claiming {
        snapshot: Some(&kept),
        ..Claiming::default()
    };
    let bare = claimed(&Facts::default(), &place, &Claiming::default(), 10);
    let with = claimed(&Facts::default(), &place, &claiming, 10);
    let done = applied();
    let stands = |facts: &Facts, end: &End<'_>| {
        let standing = finished(facts, &event, end, at(30)).standing;
        standing.map(|it| {
            (
                !it.runs.is_empty(),
                it.snapshot.is_some(),
                !it.settling.is_empty(),
            )
        })
    };
    let failed = end(Status::Failed, &done);
    assert_eq!(stands(&bare, &failed), Some((true, false, false)));
    assert_eq!(stands(&with, &failed), Some((true, true, false)));
    let settles = End {
        settling: Some(settling(&place, 30)),
        ..end(Status::Settling, &done)
    };
    assert_eq!(stands(&bare, &settles), Some((false, false, true)));
    assert_eq!(stands(&with, &settles), Some((false, true, true)));
    let completed = || end(Status::Completed, &done);
    assert_eq!(stands(&bare, &completed()), None);
    assert_eq!(stands(&with, &completed()), Some((false, true, false)));
    let restored = End {
        restored: true,
        ..completed()
    };
    assert_eq!(stands(&with, &restored), None);
}

#[test]
fn an_end_keeps_the_memory_and_the_breaker_that_it_does_not_replace() {
    let event = event("High", State::Alarm, 0);
    let place = place(&event, "req-1");
    let mut facts = claimed(&Facts::default(), &place, &Claiming::default(), 10);
    let breaker = |second| OpenBreaker {
        until: at(second),
        reason: "it came back".into(),
    };
    facts.history.memory = Some(memory(1));
    facts.history.breaker = Some(breaker(100));
    let done = applied();
    let silent = finished(&facts, &event, &end(Status::Completed, &done), at(30));
    assert_eq!(silent.history.memory, Some(memory(1)));
    assert_eq!(silent.history.breaker, Some(breaker(100)));
    let tells = End {
        memory: Some(memory(2)),
        breaker: Some(breaker(200)),
        ..end(Status::Completed, &done)
    };
    let told = finished(&facts, &event, &tells, at(30)).history;
    assert_eq!(
        (told.memory, told.breaker),
        (Some(memory(2)), Some(breaker(200)))
    );
}

#[test]
fn a_claim_that_is_given_back_leaves_everything_as_it_was_but_its_token() {
    let event = event("High", State::Alarm, 0);
    let place = place(&event, "req-1");
    let kept = snapshot(&event, 10);
    let claiming = Claiming {
        snapshot: Some(&kept),
        ..Claiming::default()
    };
    let first = claimed(&Facts::default(), &place, &Claiming::default(), 10);
    let back = withdrawn(&first, &Facts::default(), at(20));
    assert_eq!((back.record.clone(), back.standing.clone()), (None, None));
    assert!(back.history.actions.is_empty());
    assert_eq!(back.lease.as_ref().unwrap().held_until, at(20));

    let failed = applied();
    let before = finished(&first, &event, &end(Status::Failed, &failed), at(30));
    let second = claimed(&before, &place, &claiming, 40);
    let back = withdrawn(&second, &before, at(50));
    let (record, known) = (back.record.unwrap(), before.record.unwrap());
    assert_eq!(
        (record.status, record.attempt),
        (known.status, known.attempt)
    );
    assert_eq!(record.token, 2);
    assert_eq!(back.history.actions, before.history.actions);
    let (standing, known) = (back.standing.unwrap(), before.standing.unwrap());
    assert_eq!((&standing.runs, &standing.snapshot), (&known.runs, &None));
    assert!(standing.version > second.standing.unwrap().version);
}

/// What the guard says to a new alarm a moment after a run has ended.
fn next_alarm(facts: &Facts, limits: &Limits, second: i64) -> Verdict {
    let event = event("High", State::Alarm, second);
    decide(&Question {
        event: &event,
        live: LiveAlarm::Found {
            state: State::Alarm,
            actions_enabled: true,
            since: Some(at(second)),
        },
        facts: &Facts {
            record: None,
            ..facts.clone()
        },
        switch: None,
        limits,
        predecessors: &[],
        target: "orders",
        request_id: "req-9",
        run_id: "run-9",
        round: None,
        occasion: Occasion::Delivered,
        listed: true,
        outlasts_alarm: false,
        half_done: false,
        now: at(second + 1),
    })
}

#[test]
fn what_takes_back_spends_neither_cooldown_nor_budget_and_feeds_no_flapping() {
    let limits = Limits::default();
    let ended = |reverts: bool, times: i64| {
        let kept = event("High", State::Alarm, 0);
        let mut facts = Facts::default();
        for nth in 0..times {
            let event = event("High", State::Ok, nth);
            let place = place(&event, "req-1");
            let claiming = Claiming {
                reverts,
                ..Claiming::default()
            };
            let fresh = Facts {
                record: None,
                ..facts
            };
            let facts_then = claimed(&fresh, &place, &claiming, 1_000 + nth * 10);
            let done = applied();
            let end = end(Status::Completed, &done);
            facts = finished(&facts_then, &kept, &end, at(1_005 + nth * 10));
        }
        facts
    };
    let refused = |verdict: Verdict| match verdict {
        Verdict::Refuse(refusal) => refusal.outcome.rule(),
        Verdict::Proceed(_) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(next_alarm(&ended(true, 1), &limits, 1_006)), None);
    assert_eq!(
        refused(next_alarm(&ended(false, 1), &limits, 1_006)),
        Some(Rule::Cooldown)
    );
    assert_eq!(refused(next_alarm(&ended(true, 9), &limits, 1_200)), None);
    assert_eq!(
        refused(next_alarm(&ended(false, 9), &limits, 1_200)),
        Some(Rule::Budget)
    );
    assert!(ended(true, 9).alarm.transitions.is_empty());
    assert!(!ended(true, 1).alarm.open);
}

/// An alarm that comes back whenever its mitigation is taken back is put down to the mitigation in the end.
#[test]
fn acting_and_taking_back_in_turn_opens_the_breaker() {
    let limits = Limits::default();
    let mut facts = Facts::default();
    let mut count = Vec::new();
    for nth in 0..5 {
        let second = nth * 700;
        let alarm = event("High", State::Alarm, second);
        let acts = place(&alarm, "req-1");
        let verdict = next_alarm(&facts, &limits, second);
        let grounds = match verdict {
            Verdict::Proceed(grounds) => *grounds,
            Verdict::Refuse(refusal) => {
                assert_eq!(refusal.outcome.rule(), Some(Rule::Breaker));
                assert_eq!(count, [0, 1]);
                return;
            }
            other => panic!("{other:?}"),
        };
        count.push(grounds.refires);
        let kept = snapshot(&alarm, second + 1);
        facts = whole(&facts, &acts, (grounds, Some(&kept), false), second + 1);
        let ok = event("High", State::Ok, second + 1);
        let restores = Place {
            transition: items::restoration(&kept),
            ..place(&ok, "req-1")
        };
        let fresh = Facts {
            record: None,
            ..facts.clone()
        };
        let grounds = decide(&Question {
            event: &ok,
            live: LiveAlarm::Gone,
            facts: &fresh,
            switch: None,
            limits: &limits,
            predecessors: &[],
            target: "orders",
            request_id: "req-2",
            run_id: "run-2",
            round: None,
            occasion: Occasion::Restoring,
            listed: true,
            outlasts_alarm: false,
            half_done: false,
            now: at(second + 690),
        });
        let Verdict::Proceed(grounds) = grounds else {
            panic!("{grounds:?}")
        };
        facts = whole(&fresh, &restores, (*grounds, None, true), second + 690);
    }
    panic!("the breaker stays closed after {count:?}");
}

/// A claim and its end.
fn whole(
    facts: &Facts,
    place: &Place<'_>,
    (grounds, snapshot, reverts): (Grounds, Option<&items::Snapshot>, bool),
    second: i64,
) -> Facts {
    let fresh = Facts {
        record: None,
        ..facts.clone()
    };
    let claiming = Claiming {
        grounds,
        snapshot,
        reverts,
        ..Claiming::default()
    };
    let facts = claimed(&fresh, place, &claiming, second);
    let done = applied();
    let end = End {
        restored: reverts,
        ..end(Status::Completed, &done)
    };
    finished(&facts, place.event, &end, at(second + 5))
}

#[test]
fn history_is_kept_for_as_long_as_the_longest_window_and_no_longer() {
    let mut limits = Limits {
        cooldown_seconds: 9_000,
        ..Limits::default()
    };
    let mut facts = Facts::default();
    for nth in 0..4 {
        let event = event("High", State::Alarm, nth * 4_000);
        let claiming = Claiming {
            limits,
            ..Claiming::default()
        };
        facts = claimed(&facts, &place(&event, "req-1"), &claiming, nth * 4_000);
    }
    let began = |facts: &Facts| -> Vec<_> {
        facts
            .history
            .actions
            .iter()
            .map(|it| it.started_at)
            .collect()
    };
    assert_eq!(began(&facts), [at(4_000), at(8_000), at(12_000)]);
    limits.cooldown_seconds = 0;
    let event = event("High", State::Alarm, 12_100);
    let claiming = Claiming {
        limits,
        ..Claiming::default()
    };
    let facts = claimed(&facts, &place(&event, "req-1"), &claiming, 12_100);
    assert_eq!(began(&facts), [at(12_000), at(12_100)]);
}

#[test]
fn a_run_stays_in_its_incident_and_a_restoration_in_that_of_what_it_takes_back() {
    let alarm = event("High", State::Alarm, 0);
    let ok = event("High", State::Ok, 500);
    let first = ids::incident_id(&arn("High"), at(0));
    let asks = place(&alarm, "req-1");
    assert_eq!(incident_of(&Facts::default(), &asks, false), first);
    let kept = snapshot(&alarm, 10);
    let claiming = Claiming {
        snapshot: Some(&kept),
        ..Claiming::default()
    };
    let facts = claimed(&Facts::default(), &asks, &claiming, 10);
    let closed = Facts {
        alarm: noted_event(&facts.alarm, &ok),
        record: None,
        ..facts.clone()
    };
    let says_ok = place(&ok, "req-2");
    assert_eq!(incident_of(&closed, &says_ok, false), first);
    assert_eq!(incident_of(&closed, &says_ok, true), "inc-1");
    let again = event("High", State::Alarm, 900);
    let second = ids::incident_id(&arn("High"), at(900));
    assert_eq!(incident_of(&closed, &place(&again, "req-3"), false), second);
    assert_eq!(incident_of(&facts, &place(&again, "req-3"), false), first);
}

#[test]
fn a_renewal_goes_from_now_on_and_never_beyond_the_most() {
    let kept = snapshot(&event("High", State::Alarm, 0), 100);
    let terms = Temporary {
        stabilisation: TimeDelta::zero(),
        expires_after: TimeDelta::seconds(60),
        at_most: TimeDelta::seconds(100),
    };
    assert_eq!(renewed(&kept, Some(terms), at(110)), Some(at(170)));
    assert_eq!(renewed(&kept, Some(terms), at(150)), Some(at(200)));
    assert_eq!(renewed(&kept, None, at(150)), None);
}

/// One step of some run on one target.
#[derive(Debug, Clone, Copy)]
enum Step {
    Claim {
        alarm: u8,
        reverts: bool,
        taken: bool,
    },
    Finish(Status),
    Withdraw,
    Refuse {
        lasting: bool,
        breaker: bool,
    },
    LoseLease,
    LoseHeartbeat,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop::sample::select(vec![
        Status::Continuing,
        Status::Settling,
        Status::Completed,
        Status::Failed,
    ]);
    let step = prop_oneof![
        4 => (0_u8..3, any::<bool>(), any::<bool>())
            .prop_map(|(alarm, reverts, taken)| Step::Claim { alarm, reverts, taken }),
        3 => status.prop_map(Step::Finish),
        1 => Just(Step::Withdraw),
        2 => (any::<bool>(), any::<bool>())
            .prop_map(|(lasting, breaker)| Step::Refuse { lasting, breaker }),
        1 => Just(Step::LoseLease),
        1 => Just(Step::LoseHeartbeat),
    ];
    prop::collection::vec(step, 1..30)
}

fn step(facts: &Facts, before: &Facts, step: Step, second: i64) -> Facts {
    let alarm = match step {
        Step::Claim { alarm: 0, .. } => "High",
        _ => "Low",
    };
    let event = event(alarm, State::Alarm, second);
    let place = place(&event, "req-1");
    let kept = snapshot(&event, second);
    let done: Report = applied();
    let mut next = match step {
        Step::Claim { reverts, taken, .. } => {
            let claiming = Claiming {
                grounds: grounds(),
                reverts,
                snapshot: taken.then_some(&kept),
                ..Claiming::default()
            };
            return claimed(facts, &place, &claiming, second);
        }
        Step::Finish(status) => {
            let end = End {
                settling: (status == Status::Settling).then(|| settling(&place, second)),
                ..end(status, &done)
            };
            finished(facts, &event, &end, at(second))
        }
        Step::Withdraw => withdrawn(facts, before, at(second)),
        Step::Refuse {
            lasting: ends,
            breaker,
        } => {
            let reason = skipped(Rule::Cooldown);
            let mut why = if ends {
                lasting(&reason)
            } else {
                passing(&reason, Rule::Cooldown, second + 60)
            };
            why.breaker = breaker.then(|| OpenBreaker {
                until: at(second + 60),
                reason: String::new(),
            });
            return refused(facts, &place, &why, at(second));
        }
        Step::LoseLease => Facts {
            lease: None,
            ..facts.clone()
        },
        Step::LoseHeartbeat => Facts {
            heartbeat: None,
            ..facts.clone()
        },
    };
    // As the permit's holder writes it.
    if let (Some(record), Some(claimed)) = (&mut next.record, &facts.record) {
        record.sequence = claimed.sequence + u64::from(next.history != facts.history);
    }
    next
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_024) })]

    /// Whatever runs do to a target: no token is given twice, and no version names two contents.
    #[test]
    fn tokens_and_versions_only_grow(steps in steps()) {
        let (mut facts, mut before) = (Facts::default(), Facts::default());
        let (mut tokens, mut standings) = (0, 0);
        let mut lost = (false, false);
        for (second, taken) in (0..).step_by(100).zip(steps) {
            let holds = facts.standing.as_ref().is_some_and(|it| !it.runs.is_empty());
            match taken {
                Step::Finish(_) | Step::Withdraw if !holds || facts.lease.is_none() => continue,
                // The table loses one of the two at a time.
                Step::LoseLease if lost.1 => continue,
                Step::LoseHeartbeat if lost.0 => continue,
                _ => {}
            }
            let next = step(&facts, &before, taken, second);
            match taken {
                Step::Claim { .. } => {
                    let token = next.lease.as_ref().map_or(0, |lease| lease.token);
                    prop_assert!(token > tokens, "{token} after {tokens}");
                    tokens = token;
                    lost = (false, false);
                    before = facts.clone();
                }
                Step::LoseLease => lost.0 = true,
                Step::LoseHeartbeat => lost.1 = true,
                _ => {}
            }
            if next.standing != facts.standing
                && let Some(standing) = &next.standing
            {
                prop_assert!(standing.version > standings);
                standings = standing.version;
            }
            if next.history != facts.history {
                prop_assert!(next.history.version > facts.history.version);
            }
            if next.alarm != facts.alarm {
                prop_assert!(next.alarm.version > facts.alarm.version);
            }
            facts = next;
        }
    }
}
