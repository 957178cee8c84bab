//! What a run that changes nothing leaves: a wait, an answer, a closed record, or no trace at all.

use crate::alarm::{AlarmEvent, State};
use crate::guard::decide::decide;
use crate::guard::next::{End, Refused, finished, refused};
use crate::guard::question::{Grounds, LiveAlarm, Occasion, Question, Verdict};
use crate::guard::scene::{
    Claiming, applied, arn, at, claimed, end, event, lasting, memory, passing, place, report,
    settling, skipped, snapshot,
};
use crate::ledger::items::{Facts, OpenBreaker, Record, Status};
use crate::outcome::{Outcome, Overall, Report, Rule};
use crate::policy::Limits;

fn breaker() -> OpenBreaker {
    OpenBreaker {
        until: at(500),
        reason: "it came back".into(),
    }
}

/// Something in place, and nobody at work.
fn in_place() -> Facts {
    let event = event("High", State::Alarm, -900);
    let kept = snapshot(&event, -890);
    let claiming = Claiming {
        snapshot: Some(&kept),
        ..Claiming::default()
    };
    let facts = claimed(&Facts::default(), &place(&event, "req-0"), &claiming, -890);
    let done = applied();
    let facts = finished(&facts, &event, &end(Status::Completed, &done), at(-880));
    Facts {
        record: None,
        ..facts
    }
}

#[test]
fn a_passing_refusal_leaves_the_transition_waiting_and_unanswered() {
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let why = skipped(Rule::Cooldown);
    let facts = refused(
        &Facts::default(),
        &asks,
        &passing(&why, Rule::Cooldown, 60),
        at(10),
    );
    let waiting = facts.waiting.clone().unwrap();
    assert_eq!(waiting.event, event);
    assert_eq!(
        (waiting.rule, waiting.since, waiting.look_at),
        (Rule::Cooldown, at(10), at(60))
    );
    assert_eq!(waiting.reason, "it cannot be");
    assert!(facts.history.answers.is_empty());
    assert!(facts.alarm.open);
    assert_eq!(
        (facts.record, facts.lease, facts.standing),
        (None, None, None)
    );
}

#[test]
fn what_waits_keeps_since_when_and_says_what_it_waits_for_now() {
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let why = skipped(Rule::Cooldown);
    let first = refused(
        &Facts::default(),
        &asks,
        &passing(&why, Rule::Cooldown, 60),
        at(10),
    );
    // The schedule finds it due, and held back as before: there is nothing new to write.
    let due = refused(&first, &asks, &passing(&why, Rule::Cooldown, 70), at(80));
    assert_eq!(due.waiting, first.waiting);
    let later = refused(&first, &asks, &passing(&why, Rule::Cooldown, 200), at(80));
    assert_eq!(later.waiting.as_ref().unwrap().look_at, at(200));
    let other = refused(&first, &asks, &passing(&why, Rule::Budget, 80), at(80));
    let waiting = other.waiting.unwrap();
    assert_eq!(
        (waiting.rule, waiting.since, waiting.look_at),
        (Rule::Budget, at(10), at(80))
    );
}

#[test]
fn a_newer_change_takes_the_place_of_what_waits_and_an_older_one_does_not() {
    let (older, newer) = (
        event("High", State::Alarm, 0),
        event("High", State::Alarm, 100),
    );
    let why = skipped(Rule::Cooldown);
    let waits = |facts: &Facts, event, second| {
        let asks = place(event, "req-1");
        let why = passing(&why, Rule::Cooldown, second + 60);
        refused(facts, &asks, &why, at(second))
    };
    let newer_first = waits(&Facts::default(), &newer, 110);
    let then_older = waits(&newer_first, &older, 120);
    assert_eq!(then_older.waiting, newer_first.waiting);
    let older_first = waits(&Facts::default(), &older, 10);
    let waiting = waits(&older_first, &newer, 110).waiting.unwrap();
    assert_eq!((waiting.event, waiting.since), (newer, at(110)));
}

#[test]
fn a_lasting_refusal_is_the_answer_and_ends_the_wait() {
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let waits = skipped(Rule::Cooldown);
    let waiting = refused(
        &Facts::default(),
        &asks,
        &passing(&waits, Rule::Cooldown, 60),
        at(10),
    );
    let why = skipped(Rule::NothingToDo);
    let facts = refused(&waiting, &asks, &lasting(&why), at(70));
    assert_eq!(facts.waiting, None);
    let answer = &facts.history.answers[&arn("High")];
    assert_eq!(
        (answer.changed_at, answer.outcome.as_str()),
        (at(0), "Skipped")
    );
    assert_eq!(facts.history.version, waiting.history.version + 1);
}

#[test]
fn an_older_answer_never_takes_the_place_of_a_newer_one() {
    let (older, newer) = (
        event("High", State::Alarm, 0),
        event("High", State::Alarm, 100),
    );
    let why = skipped(Rule::NothingToDo);
    let facts = refused(
        &Facts::default(),
        &place(&newer, "req-1"),
        &lasting(&why),
        at(110),
    );
    let again = refused(&facts, &place(&older, "req-2"), &lasting(&why), at(120));
    assert_eq!(again.history, facts.history);
}

#[test]
fn each_alarm_of_a_target_has_its_own_answer() {
    let (high, low) = (
        event("High", State::Alarm, 0),
        event("Low", State::Alarm, 5),
    );
    let why = skipped(Rule::NothingToDo);
    let facts = refused(
        &Facts::default(),
        &place(&high, "req-1"),
        &lasting(&why),
        at(10),
    );
    // Another alarm's state and what waits of it are other items; the history is the target's.
    let facts = Facts {
        history: facts.history,
        ..Facts::default()
    };
    let facts = refused(&facts, &place(&low, "req-2"), &lasting(&why), at(20));
    let answered: Vec<_> = facts.history.answers.keys().cloned().collect();
    assert_eq!(answered, [arn("High"), arn("Low")]);
}

#[test]
fn a_return_to_ok_ends_an_older_wait_and_is_no_answer() {
    let alarm = event("High", State::Alarm, 0);
    let why = skipped(Rule::Cooldown);
    let waiting = refused(
        &Facts::default(),
        &place(&alarm, "req-1"),
        &passing(&why, Rule::Cooldown, 60),
        at(10),
    );
    let said = report(Outcome::AlreadyInPlace {
        reason: "nothing is in place".into(),
    });
    let ok = |second| {
        let ok = event("High", State::Ok, second);
        refused(&waiting, &place(&ok, "req-2"), &lasting(&said), at(120))
    };
    let over = ok(100);
    assert_eq!(over.waiting, None);
    assert!(over.history.answers.is_empty());
    assert!(!over.alarm.open);
    // One that was overtaken by the change to ALARM ends nothing.
    let late = ok(-100);
    assert_eq!(late.waiting, waiting.waiting);
    assert!(late.alarm.open);
    let unknown = event("High", State::InsufficientData, 100);
    let still = refused(
        &waiting,
        &place(&unknown, "req-2"),
        &lasting(&said),
        at(120),
    );
    assert_eq!(still.waiting, waiting.waiting);
}

#[test]
fn a_dry_run_leaves_no_trace_but_what_the_event_says_of_its_alarm() {
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let why = skipped(Rule::DryRun);
    let before = in_place();
    for waits in [None, Some((Rule::Cooldown, at(60)))] {
        let dry = Refused {
            breaker: Some(breaker()),
            memory: Some(memory(3)),
            renewed: Some(at(9_000)),
            waits,
            dry_run: true,
            ..lasting(&why)
        };
        let facts = refused(&before, &asks, &dry, at(10));
        assert!(facts.alarm.open);
        let but_the_alarm = Facts {
            alarm: before.alarm.clone(),
            ..facts
        };
        assert_eq!(but_the_alarm, before);
    }
}

#[test]
fn a_refusal_keeps_what_it_was_told_to_keep() {
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let why = skipped(Rule::Breaker);
    let before = in_place();
    let told = Refused {
        breaker: Some(breaker()),
        memory: Some(memory(3)),
        renewed: Some(at(9_000)),
        ..passing(&why, Rule::Breaker, 500)
    };
    let facts = refused(&before, &asks, &told, at(10));
    assert_eq!(facts.history.breaker, Some(breaker()));
    assert_eq!(facts.history.memory, Some(memory(3)));
    assert_eq!(facts.snapshot().unwrap().expires_at, Some(at(9_000)));
    let version = |facts: &Facts| facts.standing.as_ref().unwrap().version;
    assert_eq!(version(&facts), version(&before) + 1);
    let nothing = refused(&before, &asks, &passing(&why, Rule::Cooldown, 60), at(10));
    assert_eq!(nothing.history, before.history);
    assert_eq!(nothing.standing, before.standing);
}

#[test]
fn what_the_holder_owns_is_left_to_the_holder() {
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let mut before = in_place();
    let lease = before.lease.as_mut().unwrap();
    lease.held_until = at(100);
    let why = skipped(Rule::NothingToDo);
    let told = || Refused {
        breaker: Some(breaker()),
        memory: Some(memory(3)),
        renewed: Some(at(9_000)),
        ..lasting(&why)
    };
    let held = refused(&before, &asks, &told(), at(99));
    assert_eq!(
        (&held.history, &held.standing),
        (&before.history, &before.standing)
    );
    assert!(held.alarm.open);
    let free = refused(&before, &asks, &told(), at(100));
    assert_eq!(free.history.breaker, Some(breaker()));
    assert!(!free.history.answers.is_empty());
}

/// The facts of a run that was claimed and did not end.
fn begun(record: impl Fn(&mut Record)) -> Facts {
    let event = event("High", State::Alarm, 0);
    let mut facts = claimed(
        &Facts::default(),
        &place(&event, "req-1"),
        &Claiming::default(),
        10,
    );
    record(facts.record.as_mut().unwrap());
    facts
}

#[test]
fn a_lasting_refusal_closes_the_record_that_an_attempt_left_open() {
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-2");
    let why = skipped(Rule::AlarmRecovered);
    for status in [Status::InProgress, Status::Failed, Status::Continuing] {
        let before = begun(|record| record.status = status);
        let facts = refused(&before, &asks, &lasting(&why), at(80));
        let (record, known) = (facts.record.unwrap(), before.record.unwrap());
        assert_eq!(record.status, Status::Completed, "{status:?}");
        assert_eq!(record.report, Some(why.clone()));
        assert_eq!(record.sequence, known.sequence + 1);
        assert_eq!(facts.standing, None);
        // A passing one leaves it open.
        let waits = passing(&why, Rule::KillSwitchGlobal, 80);
        let open = refused(
            &begun(|record| record.status = status),
            &asks,
            &waits,
            at(80),
        );
        assert_eq!(open.record.unwrap().status, status);
        assert!(open.standing.unwrap().runs.len() == 1);
    }
}

#[test]
fn what_settles_ends_with_its_record_and_an_ended_record_stays_as_it_ended() {
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-2");
    let why = skipped(Rule::NothingToDo);
    let mut settles = begun(|record| record.status = Status::Settling);
    let standing = settles.standing.as_mut().unwrap();
    standing.runs.clear();
    standing.settling = vec![settling(&asks, 20)];
    let over = refused(&settles, &asks, &lasting(&why), at(80));
    assert_eq!(
        (over.record.unwrap().status, over.standing),
        (Status::Completed, None)
    );
    let ended = begun(|record| {
        record.status = Status::Completed;
        record.report = Some(applied());
    });
    let again = refused(&ended, &asks, &lasting(&why), at(80));
    assert_eq!(again.record, ended.record);
}

/// Continuations are delivered at least once, so that one comes again while a later round is at work, or before the
/// next one is delivered. It says nothing of how the run ended.
#[test]
fn a_duplicate_neither_ends_nor_answers_the_run_that_it_belongs_to() {
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-2");
    let why: Report = skipped(Rule::Duplicate);
    for status in [Status::InProgress, Status::Continuing, Status::Failed] {
        let before = begun(|record| record.status = status);
        let facts = refused(&before, &asks, &lasting(&why), at(20));
        assert_eq!(facts, before, "{status:?}");
    }
}

/// What the guard says at the schedule's look at an alarm that is back at OK.
fn after_recovery(facts: &Facts, event: &AlarmEvent, outlasts_alarm: bool, now: i64) -> Verdict {
    read_as(facts, event, (State::Ok, true), outlasts_alarm, now)
}

/// The same of an alarm that is in a state, with its actions enabled or not.
fn read_as(
    facts: &Facts,
    event: &AlarmEvent,
    (state, actions_enabled): (State, bool),
    outlasts_alarm: bool,
    now: i64,
) -> Verdict {
    decide(&Question {
        event,
        live: LiveAlarm::Found {
            state,
            actions_enabled,
            since: Some(at(100)),
        },
        facts,
        switch: None,
        limits: &Limits::default(),
        predecessors: &[],
        target: "orders",
        request_id: "req-9",
        run_id: &place(event, "req-9").run_id(),
        round: None,
        occasion: Occasion::Due,
        listed: true,
        outlasts_alarm,
        half_done: false,
        now: at(now),
    })
}

#[test]
fn what_outlasts_its_alarm_waits_through_the_recovery_and_is_taken_up_after_it() {
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let why = skipped(Rule::Undecided);
    let waits = refused(
        &Facts::default(),
        &asks,
        &passing(&why, Rule::Undecided, 60),
        at(10),
    );
    let ok = crate::guard::scene::event("High", State::Ok, 100);
    let over = report(Outcome::AlreadyInPlace {
        reason: "the alarm is back to OK".to_owned(),
    });
    let recovered = |outlasts_alarm| {
        let told = Refused {
            outlasts_alarm,
            ..lasting(&over)
        };
        refused(&waits, &place(&ok, "req-2"), &told, at(101))
    };
    assert_eq!(recovered(false).waiting, None);
    let facts = recovered(true);
    assert_eq!(facts.waiting, waits.waiting);
    assert!(!facts.alarm.open);

    let Verdict::Proceed(grounds) = after_recovery(&facts, &event, true, 400) else {
        panic!("{:?}", after_recovery(&facts, &event, true, 400));
    };
    assert!(grounds.too_late.is_none());
    let rule = |verdict| match verdict {
        Verdict::Refuse(refusal) => refusal.outcome.rule(),
        other => panic!("{other:?}"),
    };
    let superseded = after_recovery(&facts, &event, false, 400);
    assert_eq!(rule(superseded), Some(Rule::Superseded));
    // Someone works on it by hand, or nothing is known of it: it waits on.
    for (alarm, by) in [
        ((State::Ok, false), Rule::AlarmActionsDisabled),
        ((State::InsufficientData, true), Rule::AlarmRecovered),
    ] {
        let Verdict::Refuse(refusal) = read_as(&facts, &event, alarm, true, 400) else {
            panic!("{alarm:?} lets it go on");
        };
        assert_eq!(refusal.outcome.rule(), Some(by));
        assert!(refusal.look_at.is_some(), "{alarm:?}");
    }
    let Verdict::Refuse(a_day_later) = after_recovery(&facts, &event, true, 90_000) else {
        panic!("it goes on for ever");
    };
    assert!(matches!(
        a_day_later.outcome,
        Outcome::Escalated {
            rule: Rule::StaleEvent,
            ..
        }
    ));
    assert_eq!(a_day_later.look_at, None);
}

/// A run on an event that rests for a while after its first round.
fn resting(event: &AlarmEvent) -> Facts {
    let claimed = claimed(
        &Facts::default(),
        &place(event, "req-1"),
        &Claiming::default(),
        10,
    );
    let rests = report(Outcome::Pending {
        reason: "it rests".to_owned(),
        check_again_at: at(60),
        continuation: None,
    });
    let resting = End {
        continues_by: Some(at(60)),
        ..end(Status::Continuing, &rests)
    };
    finished(&claimed, event, &resting, at(20))
}

#[test]
fn what_was_begun_goes_on_after_the_recovery_where_it_outlasts_its_alarm() {
    let event = event("High", State::Alarm, 0);
    let facts = resting(&event);
    for (outlasts_alarm, goes_on) in [(true, true), (false, false)] {
        let Verdict::Proceed(grounds) = after_recovery(&facts, &event, outlasts_alarm, 400) else {
            panic!("it does not go on");
        };
        assert_eq!((grounds.round, grounds.attempt), (2, 1));
        assert_eq!(grounds.too_late.is_none(), goes_on);
    }
}

/// Of what is half done, only what no hand of ours may touch any more, or someone works on, is left.
#[test]
fn what_is_half_done_is_ended_whatever_becomes_of_its_alarm() {
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let facts = resting(&event);
    let grounds = |live, listed, half_done| {
        let verdict = decide(&Question {
            event: &event,
            live,
            facts: &facts,
            switch: None,
            limits: &Limits::default(),
            predecessors: &[],
            target: "orders",
            request_id: "req-9",
            run_id: &asks.run_id(),
            round: None,
            occasion: Occasion::Due,
            listed,
            outlasts_alarm: false,
            half_done,
            now: at(400),
        });
        match verdict {
            Verdict::Proceed(grounds) => *grounds,
            other => panic!("{other:?}"),
        }
    };
    let found = |state| LiveAlarm::Found {
        state,
        actions_enabled: true,
        since: Some(at(100)),
    };
    let too_late = |grounds: Grounds| grounds.too_late.map(|refusal| refusal.outcome);
    for live in [
        found(State::Ok),
        found(State::InsufficientData),
        LiveAlarm::Gone,
    ] {
        let ends = grounds(live, true, true);
        assert!(ends.recovered && ends.too_late.is_none(), "{ends:?}");
        let other = grounds(live, true, false).too_late;
        assert!(other.is_some(), "{live:?} lets another go on");
    }
    let in_alarm = found(State::Alarm);
    assert!(!grounds(in_alarm, true, true).recovered);
    let told = |outcome: Option<Outcome>| outcome.map(|it| (it.kind(), it.rule()));
    assert_eq!(
        told(too_late(grounds(in_alarm, false, true))),
        Some((Overall::Escalated, Some(Rule::NoTarget)))
    );
    assert_eq!(
        told(too_late(grounds(in_alarm, false, false))),
        Some((Overall::Skipped, Some(Rule::NoTarget)))
    );
}
