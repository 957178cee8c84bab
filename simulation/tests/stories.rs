//! Stories told by hand: orders of events that went wrong once, each with its end.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};
use shared::alarm::State;
use shared::guard::effect::{self, Bad, Course};
use shared::ledger::store::Key;
use shared::outcome::{Outcome, Overall, Rule};
use simulation::driver::{Play, play};
use simulation::fate::{Fate, Fates};
use simulation::stage::{REMEDIATION, Stage};
use simulation::world::{AlarmNow, NORMAL, OURS, World, alarm_arn, alarm_arn_in, alarm_event};

const EDGE: &str = "DashboardEdge5xx";

fn calm() -> World {
    let world = World::new(Fates::new(0, BTreeSet::new()), false);
    world.inner().rough = false;
    world.create("thing", NORMAL, 0);
    world.create("other", NORMAL, 0);
    world
}

fn target(resource: &str, alarms: &[&str]) -> Value {
    json!({
        "name": resource,
        "alarms": alarms,
        "action": {
            "resource": resource,
            "stabilisation_seconds": 120,
            "expires_after_seconds": 900,
            "at_most_seconds": 2400,
        },
    })
}

fn document(targets: &[Value]) -> Value {
    json!({"version": 1, "targets": targets})
}

fn is(world: &World, arn: &str, state: State) {
    let since = world.now();
    world
        .inner()
        .alarms
        .insert(arn.to_owned(), AlarmNow { state, since });
}

fn value(world: &World, resource: &str) -> String {
    world.inner().things[resource].value.clone()
}

async fn passes(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

fn look() -> Value {
    json!({"source": "aws.events", "detail-type": "Scheduled Event"})
}

/// A target whose only alarm is in ALARM.
fn thing_in_alarm() -> (World, Stage) {
    let world = calm();
    let stage = Stage::new(&world, false);
    stage.policy(&document(&[target("thing", &["a1"])]));
    is(&world, &alarm_arn("a1"), State::Alarm);
    (world, stage)
}

/// The event of an alarm somewhere else.
fn event_of(arn: &str, state: State, world: &World) -> Value {
    let mut event = alarm_event(EDGE, state, world.now(), "event");
    let mut parts = arn.split(':').skip(3);
    event["region"] = json!(parts.next());
    event["account"] = json!(parts.next());
    event["resources"] = json!([arn]);
    event
}

#[tokio::test(start_paused = true)]
async fn an_alarm_of_another_region_is_read_there() {
    let world = calm();
    let stage = Stage::new(&world, false);
    let edge = alarm_arn_in("us-east-1", EDGE);
    stage.policy(&document(&[target("thing", &[&edge])]));
    is(&world, &edge, State::Alarm);
    let answer = stage
        .send(event_of(&edge, State::Alarm, &world), "r-1")
        .await;
    assert_eq!(answer.unwrap().overall, Overall::Applied);
    assert_eq!(value(&world, "thing"), OURS);
}

#[tokio::test(start_paused = true)]
async fn a_namesake_where_the_function_runs_is_another_alarm() {
    let world = calm();
    let stage = Stage::new(&world, false);
    let edge = alarm_arn_in("us-east-1", EDGE);
    stage.policy(&document(&[target("thing", &[&edge])]));
    is(&world, &edge, State::Ok);
    is(&world, &alarm_arn(EDGE), State::Alarm);
    let answer = stage
        .send(event_of(&edge, State::Alarm, &world), "r-1")
        .await
        .unwrap();
    assert_eq!(answer.reports[0].outcome.rule(), Some(Rule::AlarmRecovered));
    assert_eq!(value(&world, "thing"), NORMAL);
}

#[tokio::test(start_paused = true)]
async fn an_alarm_of_another_account_is_refused_by_name() {
    let world = calm();
    let stage = Stage::new(&world, false);
    let foreign = alarm_arn(EDGE).replace("123456789012", "999999999999");
    is(&world, &alarm_arn(EDGE), State::Alarm);
    // A bare name means the function's own account.
    stage.policy(&document(&[target("thing", &[EDGE])]));
    let event = event_of(&foreign, State::Alarm, &world);
    let answer = stage.send(event.clone(), "r-1").await.unwrap();
    assert_eq!(answer.reports[0].outcome.rule(), Some(Rule::NoTarget));
    // Named in full, it cannot be read again.
    stage.policy(&document(&[target("thing", &[&foreign])]));
    let answer = stage.send(event, "r-2").await.unwrap();
    let Outcome::Escalated { rule, reason } = &answer.reports[0].outcome else {
        panic!("{answer:?}");
    };
    assert_eq!(*rule, Rule::ForeignAccount);
    assert!(reason.contains("999999999999"), "{reason}");
    assert_eq!(value(&world, "thing"), NORMAL);
}

#[tokio::test(start_paused = true)]
async fn a_warm_function_sees_an_alarm_that_is_new_in_the_policy() {
    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    assert_eq!(
        stage.send(event, "r-1").await.unwrap().overall,
        Overall::Applied
    );
    passes(30).await;
    stage.policy(&document(&[
        target("thing", &["a1"]),
        target("other", &["a2"]),
    ]));
    passes(2).await;
    is(&world, &alarm_arn("a2"), State::Alarm);
    let event = alarm_event("a2", State::Alarm, world.now(), "event-2");
    assert_eq!(
        stage.send(event, "r-2").await.unwrap().overall,
        Overall::Applied
    );
    assert_eq!(value(&world, "other"), OURS);
}

#[tokio::test(start_paused = true)]
async fn a_target_out_of_reach_is_refused_with_its_policy_until_that_is_mended() {
    let (world, stage) = thing_in_alarm();
    let event = || alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.policy(&document(&[
        target("thing", &["a1"]),
        target("thing@elsewhere", &["a2"]),
    ]));
    for _ in 0..2 {
        let error = stage.send(event(), "r-1").await.unwrap_err();
        let words = "thing@elsewhere is not in ";
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.is_transient(), "{error}");
    }
    assert_eq!(value(&world, "thing"), NORMAL);
    stage.policy(&document(&[target("thing", &["a1"])]));
    assert_eq!(
        stage.send(event(), "r-2").await.unwrap().overall,
        Overall::Applied
    );
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_tried_again_within_the_run_after_a_new_look() {
    let (world, stage) = thing_in_alarm();
    world.inner().conflicts_to_come = 2;
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    let answer = stage.send(event, "r-1").await.unwrap();
    assert_eq!(answer.overall, Overall::Applied, "{answer:?}");
    assert_eq!(world.inner().conflicts_to_come, 0);
    assert_eq!(world.inner().effects.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_stays_is_retryable() {
    let (world, stage) = thing_in_alarm();
    world.inner().conflicts_to_come = 1_000;
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    let error = stage.send(event, "r-1").await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(value(&world, "thing"), NORMAL);
}

#[tokio::test(start_paused = true)]
async fn a_late_ok_waits_for_the_stabilisation_of_the_alarm_as_it_is_now() {
    let world = calm();
    let stage = Stage::new(&world, false);
    stage.policy(&document(&[target("thing", &["a1", "a2"])]));
    is(&world, &alarm_arn("a2"), State::Ok);
    is(&world, &alarm_arn("a1"), State::Alarm);
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    assert_eq!(
        stage.send(event, "r-1").await.unwrap().overall,
        Overall::Applied
    );
    passes(60).await;
    let ok_then = world.now();
    passes(300).await;
    // Since then it was in ALARM once more, and is at OK for a second.
    is(&world, &alarm_arn("a1"), State::Ok);
    passes(1).await;
    let late = alarm_event("a1", State::Ok, ok_then, "event-2");
    let answer = stage.send(late, "r-2").await.unwrap();
    assert_eq!(answer.overall, Overall::Pending, "{answer:?}");
    // The other alarm's return to OK counts as much as this one's.
    is(&world, &alarm_arn("a2"), State::Ok);
    passes(119).await;
    stage.send(look(), "look-1").await.unwrap();
    assert_eq!(value(&world, "thing"), OURS);
    passes(3).await;
    let answer = stage.send(look(), "look-2").await.unwrap();
    assert_eq!(answer.overall, Overall::Applied, "{answer:?}");
    assert_eq!(value(&world, "thing"), NORMAL);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_leaves_no_trace_and_takes_nothing_back_in_silence() {
    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap();
    let guarded = |world: &World| {
        let inner = world.inner();
        let items = inner.table.iter();
        let ours = ["history#toy-page", "record", "lease"];
        let items = items.filter(|(key, _)| ours.contains(&key.sk.as_str()));
        items
            .map(|(key, item)| (key.clone(), item.clone()))
            .collect::<Vec<_>>()
    };
    let before = guarded(&world);
    let rehearsal = Stage::new(&world, true);
    passes(70).await;
    is(&world, &alarm_arn("a1"), State::Alarm);
    let event = alarm_event("a1", State::Alarm, world.now(), "event-2");
    let answer = rehearsal.send(event, "r-2").await.unwrap();
    assert_eq!(answer.reports[0].outcome.kind(), Overall::AlreadyInPlace);
    assert_eq!(guarded(&world), before);
    // Beyond its term it stands, and a human is told: once now, and again in an hour.
    is(&world, &alarm_arn("a1"), State::Ok);
    passes(200).await;
    for expected in [1, 0] {
        let answer = rehearsal.send(look(), "look").await.unwrap();
        let overdue = answer.reports.iter();
        let overdue = overdue.filter(|report| report.outcome.rule() == Some(Rule::Overdue));
        assert_eq!(overdue.count(), expected);
        passes(300).await;
    }
    assert_eq!(value(&world, "thing"), OURS);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_breaks_keeps_nothing_in_place() {
    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap();
    world
        .inner()
        .policies
        .insert(REMEDIATION.to_owned(), ("{".to_owned(), 9));
    is(&world, &alarm_arn("a1"), State::Ok);
    passes(200).await;
    let answer = Stage::new(&world, false)
        .send(look(), "look")
        .await
        .unwrap();
    assert_eq!(answer.overall, Overall::Applied, "{answer:?}");
    assert_eq!(value(&world, "thing"), NORMAL);
}

fn holds(world: &World, sk: &str) -> bool {
    world.inner().table.keys().any(|key| key.sk == sk)
}

#[tokio::test(start_paused = true)]
async fn where_playbooks_act_the_schedule_begins_nothing_and_knows_the_incident() {
    let world = calm();
    let stage = Stage::orchestrated(&world);
    stage.policy(&document(&[target("thing", &["a1"])]));
    is(&world, &alarm_arn("a1"), State::Alarm);
    passes(600).await;
    stage.send(look(), "look").await.unwrap();
    assert_eq!(value(&world, "thing"), NORMAL);
    assert!(holds(&world, &alarm_arn("a1")), "the incident is open");
    // Where they do not, an event that was lost for less than its age is made up for.
    Stage::new(&world, false)
        .send(look(), "look")
        .await
        .unwrap();
    assert_eq!(value(&world, "thing"), OURS);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_failed_is_ended_and_not_taken_up_once_the_policy_names_its_target_no_more() {
    let (world, stage) = thing_in_alarm();
    world.inner().conflicts_to_come = 1_000;
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap_err();
    assert!(holds(&world, "standing#thing"));
    world.inner().conflicts_to_come = 0;
    stage.policy(&document(&[target("other", &["a2"])]));
    passes(120).await;
    for _ in 0..3 {
        stage.send(look(), "look").await.unwrap();
        passes(120).await;
    }
    assert_eq!(value(&world, "thing"), NORMAL);
    let inner = world.inner();
    let record = inner.table.iter().find(|(key, _)| key.sk == "record");
    assert_eq!(record.unwrap().1.columns["status"], "completed");
}

#[tokio::test(start_paused = true)]
async fn while_no_policy_can_be_read_nothing_new_is_begun() {
    let world = calm();
    let stage = Stage::new(&world, false);
    stage.policy(&document(&[target("thing", &["a1", "a2"])]));
    is(&world, &alarm_arn("a2"), State::Ok);
    is(&world, &alarm_arn("a1"), State::Alarm);
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap();
    assert!(world.change("thing", None, NORMAL, 0));
    world
        .inner()
        .policies
        .insert(REMEDIATION.to_owned(), ("{".to_owned(), 9));
    is(&world, &alarm_arn("a2"), State::Alarm);
    passes(600).await;
    let answer = Stage::new(&world, false)
        .send(look(), "look")
        .await
        .unwrap();
    assert!(answer.reports.is_empty(), "{answer:?}");
    assert_eq!(value(&world, "thing"), NORMAL);
}

#[tokio::test(start_paused = true)]
async fn what_failed_for_longer_than_its_news_is_new_is_acted_on_at_last() {
    let (world, stage) = thing_in_alarm();
    let troubled = ("Look".to_owned(), Fate::Failed);
    world.inner().troubled.extend([troubled]);
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap_err();
    for _ in 0..4 {
        passes(300).await;
        let answer = stage.send(look(), "look").await.unwrap();
        assert_eq!(answer.overall, Overall::Failed, "{answer:?}");
    }
    world.inner().troubled.clear();
    stage.send(look(), "look").await.unwrap();
    assert_eq!(value(&world, "thing"), OURS);
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_is_due_is_told_once() {
    let world = calm();
    let stage = Stage::new(&world, false);
    let mut at_once = target("thing", &["a1"]);
    at_once["action"]["stabilisation_seconds"] = json!(0);
    stage.policy(&document(&[at_once]));
    is(&world, &alarm_arn("a1"), State::Alarm);
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap();
    passes(60).await;
    is(&world, &alarm_arn("a1"), State::Ok);
    let event = alarm_event("a1", State::Ok, world.now(), "event-2");
    let answer = stage.send(event, "r-2").await.unwrap();
    assert_eq!(answer.overall, Overall::Applied, "{answer:?}");
    assert_eq!(value(&world, "thing"), NORMAL);
    passes(300).await;
    stage.send(look(), "look").await.unwrap();
    let inner = world.inner();
    let told: Vec<_> = inner
        .published
        .iter()
        .map(|told| &told["outcome"])
        .collect();
    assert_eq!(told, ["Applied", "Applied"], "{:?}", inner.published);
}

#[tokio::test(start_paused = true)]
async fn what_has_a_term_ends_with_it_though_no_alarm_can_be_read() {
    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap();
    assert_eq!(value(&world, "thing"), OURS);
    let throttled = ("DescribeAlarms".to_owned(), Fate::Throttled);
    world.inner().troubled.extend([throttled]);
    passes(920).await;
    stage.send(look(), "look").await.unwrap();
    assert_eq!(value(&world, "thing"), NORMAL);
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_event_was_lost_is_not_taken_for_the_one_before() {
    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap();
    // Nothing was known of it for a moment, and then it was in ALARM anew.
    passes(40).await;
    is(&world, &alarm_arn("a1"), State::Alarm);
    passes(330).await;
    let answer = stage.send(look(), "look").await.unwrap();
    let kinds: Vec<_> = answer
        .reports
        .iter()
        .map(|told| told.outcome.kind())
        .collect();
    assert_eq!(kinds, [Overall::AlreadyInPlace], "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_targets_in_a_look_the_one_that_fails_keeps_back_no_other() {
    let world = calm();
    let stage = Stage::new(&world, false);
    stage.policy(&document(&[
        target("thing", &["a1"]),
        target("other", &["a1"]),
    ]));
    is(&world, &alarm_arn("a1"), State::Alarm);
    let troubled = ("Look thing".to_owned(), Fate::Failed);
    world.inner().troubled.extend([troubled]);
    passes(360).await;
    let answer = stage.send(look(), "look").await.unwrap();
    let mut kinds: Vec<_> = answer
        .reports
        .iter()
        .map(|told| (told.resource.as_str(), told.outcome.kind()))
        .collect();
    kinds.sort_unstable_by_key(|(resource, _)| *resource);
    assert_eq!(
        kinds,
        [("other", Overall::Applied), ("thing", Overall::Failed)]
    );
    assert_eq!(
        (
            value(&world, "thing").as_str(),
            value(&world, "other").as_str()
        ),
        (NORMAL, OURS)
    );
}

#[tokio::test(start_paused = true)]
async fn a_look_back_that_fails_for_a_moment_escalates_nothing() {
    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    world.inner().looks_to_fail = (1, 2);
    let answer = stage.send(event, "r-1").await.unwrap();
    assert_eq!(answer.overall, Overall::Applied, "{answer:?}");
    assert_eq!(world.inner().looks_to_fail, (0, 0));
}

#[test]
fn a_fate_follows_from_its_seed_and_its_call_alone() {
    let all = |seed| {
        let fates = Fates::new(seed, BTreeSet::new());
        let calls = (0..500).map(move |nth| fates.of(&format!("call {nth}")));
        calls.collect::<Vec<_>>()
    };
    let rough = (0..50).find(|seed| all(*seed).iter().any(|fate| *fate != Fate::Answered));
    let rough = rough.unwrap();
    assert_eq!(all(rough), all(rough));
    assert_ne!(all(rough), all(rough + 1));
}

#[test]
fn a_seed_plays_the_same_again() {
    for seed in 0..20 {
        let told = || {
            let tells = Play {
                tells: true,
                ..Play::of(seed)
            };
            play(&tells).unwrap().story
        };
        let story = told();
        assert!(!story.is_empty(), "{seed}");
        assert_eq!(told(), story, "{seed}");
    }
}

fn told(world: &World) -> Vec<(String, Option<String>)> {
    let inner = world.inner();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let told = inner.published.iter();
    told.map(|told| {
        (
            text(&told["outcome"]).unwrap_or_default(),
            text(&told["rule"]),
        )
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn an_end_while_the_alarm_stays_is_told_ahead_once_and_is_no_success() {
    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap();
    // Its longest term is 40 minutes; it is renewed on the way, and of its last ten minutes humans are told.
    for minute in (5..40).step_by(5) {
        passes(300).await;
        stage.send(look(), &format!("look-{minute}")).await.unwrap();
        assert_eq!(value(&world, "thing"), OURS, "minute {minute}");
    }
    let ahead = ("Escalated".to_owned(), Some("term_ends_soon".to_owned()));
    assert_eq!(told(&world)[1..], [ahead]);
    // Another look before the end has nothing new to say.
    passes(120).await;
    stage.send(look(), "look-37").await.unwrap();
    assert_eq!(told(&world).len(), 2, "{:?}", told(&world));
    passes(190).await;
    let answer = stage.send(look(), "look-40").await.unwrap();
    let outcome = &answer.reports[0].outcome;
    assert_eq!(outcome.rule(), Some(Rule::TermEnded), "{outcome:?}");
    assert!(outcome.reason().contains(&alarm_arn("a1")), "{outcome:?}");
    assert_eq!(value(&world, "thing"), NORMAL);
    assert_eq!(told(&world)[2].1.as_deref(), Some("term_ended"));
    // It ended once, and its end is not told again.
    passes(300).await;
    stage.send(look(), "look-45").await.unwrap();
    assert_eq!(told(&world).len(), 3, "{:?}", told(&world));
    assert!(!holds(&world, "standing#thing"));
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_another_acts_once_that_one_had_its_time() {
    let (world, stage) = thing_in_alarm();
    let mut second = target("thing", &["a1"]);
    let alias = "arn:aws:lambda:eu-west-1:123456789012:function:f:live";
    second["after"] = json!([{"remediation": "toy-rollback", "resource": alias}]);
    stage.policy(&document(&[second]));
    let event = alarm_event("a1", State::Alarm, world.now(), "event");
    let answer = stage.send(event, "r-1").await.unwrap();
    assert_eq!(answer.reports[0].outcome.rule(), Some(Rule::AfterAnother));
    for (seconds, looked) in [(300, NORMAL), (299, NORMAL), (62, OURS)] {
        passes(seconds).await;
        let request = format!("look-{seconds}");
        stage.send(look(), &request).await.unwrap();
        assert_eq!(value(&world, "thing"), looked, "after {seconds} s more");
    }
}

/// An alarm whose metric is at 10 until something is done, and at `since` from then on.
fn measures(world: &World, since: f64) {
    let now = world.now();
    let values = (-10..60).map(|minute| {
        let value = if minute > 0 { since } else { 10.0 };
        (now + TimeDelta::minutes(minute), value)
    });
    let course = Course {
        bad: Bad::Above,
        threshold: 5.0,
        includes_threshold: false,
        period: TimeDelta::minutes(1),
        evaluation_periods: 3,
        values: values.collect(),
    };
    let courses = &mut world.inner().courses;
    courses.insert(alarm_arn("a1"), effect::Told::Course(course));
}

/// The lines of timelines that tell of an effect, with what they say.
fn effects(world: &World) -> Vec<(String, String)> {
    let inner = world.inner();
    let lines = inner
        .table
        .iter()
        .filter(|(key, _)| key.sk.starts_with("at#"));
    let lines = lines.map(|(_, item)| {
        (
            item.columns["kind"].clone(),
            item.columns["summary"].clone(),
        )
    });
    let kinds = ["improved", "unchanged", "worse", "not-known"];
    lines
        .filter(|(kind, _)| kinds.contains(&kind.as_str()))
        .collect()
}

/// What became of a page that goes up while the metric turns from 10 to `since`, after some minutes.
async fn effect_of(since: f64, undo: bool) -> (World, Stage) {
    let (world, stage) = thing_in_alarm();
    let mut one = target("thing", &["a1"]);
    one["guard"] = json!({"undo_if_worse": undo});
    stage.policy(&document(&[one]));
    measures(&world, since);
    let event = alarm_event("a1", State::Alarm, world.now(), "event");
    assert!(stage.send(event, "r-1").await.is_ok());
    assert_eq!(value(&world, "thing"), OURS);
    for minute in 1..7 {
        passes(60).await;
        let looked = stage.send(look(), &format!("look-{minute}")).await;
        assert!(looked.is_ok(), "{looked:?}");
    }
    (world, stage)
}

#[tokio::test(start_paused = true)]
async fn what_made_things_worse_is_told_once_and_taken_back_where_the_policy_wants_that() {
    let (world, stage) = effect_of(14.0, true).await;
    let [(kind, summary)] = &effects(&world)[..] else {
        panic!("{:?}", effects(&world));
    };
    assert_eq!(kind, "worse");
    assert_eq!(
        summary,
        "a1 is still in ALARM, and its metric is at 14.00, worse than the 10.00 before"
    );
    assert_eq!(value(&world, "thing"), NORMAL);
    assert!(!holds(&world, "standing#thing"));
    let worse = ("Escalated".to_owned(), Some("made_worse".to_owned()));
    assert_eq!(told(&world)[1..], [worse.clone(), worse]);
    // Nobody puts it back for the same change of the alarm, and nobody says it again.
    passes(600).await;
    stage.send(look(), "look-later").await.unwrap();
    assert_eq!(value(&world, "thing"), NORMAL);
    assert_eq!(told(&world).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_made_things_worse_stays_where_the_policy_does_not_want_it_undone() {
    let (world, _) = effect_of(14.0, false).await;
    assert_eq!(effects(&world)[0].0, "worse");
    assert_eq!(value(&world, "thing"), OURS);
    let last = told(&world).pop().unwrap();
    assert_eq!(
        last,
        ("Escalated".to_owned(), Some("made_worse".to_owned()))
    );
}

#[tokio::test(start_paused = true)]
async fn what_did_not_make_things_worse_is_said_once_and_stays() {
    for (since, kind) in [(9.0, "unchanged"), (7.0, "improved"), (1.0, "improved")] {
        let (world, _) = effect_of(since, true).await;
        let kinds: Vec<String> = effects(&world).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [kind], "{since}");
        assert_eq!(value(&world, "thing"), OURS);
        assert_eq!(told(&world).len(), 1);
        let watched = |key: &Key| key.sk.starts_with("watch#");
        assert!(!world.inner().table.keys().any(watched));
    }
}

#[tokio::test(start_paused = true)]
async fn an_alarm_back_at_ok_is_an_improvement_and_a_metric_that_is_not_there_is_none() {
    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event");
    stage.send(event, "r-1").await.unwrap();
    passes(60).await;
    is(&world, &alarm_arn("a1"), State::Ok);
    stage.send(look(), "look").await.unwrap();
    assert_eq!(effects(&world)[0].0, "improved");

    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event");
    stage.send(event, "r-1").await.unwrap();
    passes(180).await;
    stage.send(look(), "look").await.unwrap();
    let [(kind, summary)] = &effects(&world)[..] else {
        panic!("{:?}", effects(&world));
    };
    assert_eq!(
        (kind.as_str(), summary.as_str()),
        (
            "not-known",
            "a1 is still in ALARM, and it has no metric of its own"
        )
    );
}

fn revision(world: &World) -> u64 {
    world.inner().things["thing"].revision
}

/// The target that is in place, with a longer term than before.
fn longer() -> Value {
    let mut target = target("thing", &["a1"]);
    target["action"]["at_most_seconds"] = json!(4_800);
    document(&[target])
}

#[tokio::test(start_paused = true)]
async fn what_is_in_place_follows_an_edit_of_its_policy_once() {
    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap();
    let put = revision(&world);
    passes(60).await;
    stage.send(look(), "look-1").await.unwrap();
    assert_eq!(revision(&world), put, "nothing was edited");
    stage.policy(&longer());
    passes(60).await;
    let answer = stage.send(look(), "look-2").await.unwrap();
    let reason = answer.reports[0].outcome.reason();
    assert_eq!(reason, "it was brought up to date");
    assert_eq!(revision(&world), put + 1);
    assert_eq!(told(&world).len(), 2, "{:?}", told(&world));
    passes(60).await;
    stage.send(look(), "look-3").await.unwrap();
    assert_eq!(revision(&world), put + 1);
    // It is no action that a budget counts, and no word on its alarm.
    let inner = world.inner();
    let history = inner
        .table
        .iter()
        .find(|(key, _)| key.sk.starts_with("history"));
    let history = format!("{:?}", history.unwrap().1);
    assert_eq!(history.matches("started_at").count(), 1, "{history}");
    assert!(!history.contains("brought up to date"), "{history}");
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_cannot_be_followed_is_told_once_and_a_dry_run_leaves_it() {
    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap();
    let put = revision(&world);
    let rehearsing = Stage::new(&world, true);
    rehearsing.policy(&longer());
    passes(60).await;
    rehearsing.send(look(), "dry-run").await.unwrap();
    assert_eq!((revision(&world), told(&world).len()), (put, 1));
    world.inner().conflicts_to_come = 1_000;
    for nth in 0..9 {
        passes(60).await;
        stage.send(look(), &format!("look-{nth}")).await.unwrap();
    }
    assert_eq!(told(&world).len(), 2, "{:?}", told(&world));
    assert_eq!(told(&world)[1].0, "Failed");
    // The next edit is another.
    world.inner().conflicts_to_come = 0;
    stage.policy(&document(&[target("thing", &["a1"])]));
    passes(60).await;
    stage.send(look(), "look-9").await.unwrap();
    assert_eq!((revision(&world), told(&world).len()), (put + 1, 3));
}

/// What fails for a moment is tried again, and what another hand holds is left.
#[tokio::test(start_paused = true)]
async fn an_edit_that_could_not_be_followed_is_followed_later() {
    let (world, stage) = thing_in_alarm();
    let event = alarm_event("a1", State::Alarm, world.now(), "event-1");
    stage.send(event, "r-1").await.unwrap();
    let put = revision(&world);
    stage.policy(&longer());
    world.inner().conflicts_to_come = 1;
    passes(60).await;
    let answer = stage.send(look(), "look-1").await.unwrap();
    assert_eq!(answer.overall, Overall::Failed, "{answer:?}");
    assert_eq!(revision(&world), put);
    assert_eq!(told(&world).len(), 1, "a failure that passes is no news");
    passes(60).await;
    stage.send(look(), "look-2").await.unwrap();
    assert_eq!(revision(&world), put + 1);
    assert_eq!(value(&world, "thing"), OURS);
    // What another hand holds is left alone, and is asked for once.
    world.create("thing", "theirs", 0);
    stage.policy(&document(&[target("thing", &["a1"])]));
    let theirs = revision(&world);
    for nth in 3..5 {
        passes(60).await;
        let answer = stage.send(look(), &format!("look-{nth}")).await.unwrap();
        assert!(answer.reports.is_empty(), "{answer:?}");
    }
    assert_eq!(revision(&world), theirs);
}
