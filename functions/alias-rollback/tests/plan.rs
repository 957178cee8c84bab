//! Who is to blame and where to go: a table of situations, and properties that hold in every one.

// Clippy takes helpers outside of a #[test] for production code.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use alias_rollback::AliasRollback;
use alias_rollback::memory::{Attested, Condemned, Memory, RolledBack, Serving, Went, learn};
use alias_rollback::observed::{
    Alias, Deployment, Durations, Minutes, Observed, Provisioned, Served, State, Traffic, Version,
};
use alias_rollback::plan::{Plan, Step, plan, to_look_up};
use alias_rollback::policy::Rollback;
use alias_rollback::shift::Progress;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::json;
use shared::alarm::{self, AlarmEvent};
use shared::outcome::Rule;
use shared::remediation::{Moment, Planned, PlannedBy};

const INCIDENT: &str = "inc-1";

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn event() -> AlarmEvent {
    alarm::parse(&json!({
        "detail-type": "CloudWatch Alarm State Change",
        "source": "aws.cloudwatch",
        "resources": ["arn:aws:cloudwatch:eu-west-1:123456789012:alarm:ApiFunctionErrorsHigh"],
        "detail": {
            "alarmName": "ApiFunctionErrorsHigh",
            "state": {"value": "ALARM", "timestamp": "2027-01-15T08:00:00.000+0000"},
        },
    }))
    .unwrap()
}

fn policy() -> Rollback {
    serde_json::from_value(json!({
        "alias": "arn:aws:lambda:eu-west-1:123456789012:function:orders:live",
        "codedeploy": {"application": "orders", "group": "live"},
    }))
    .unwrap()
}

fn traffic(invocations: u64, errors: u64) -> Traffic {
    Traffic {
        invocations,
        errors,
    }
}

/// Versions 1 to 5, all active and each with its own code; 5 has all the traffic, and fails.
fn observed() -> Observed {
    let versions = (1..=5).map(|number| {
        let version = Version {
            number,
            code_sha256: format!("sha-{number}"),
            configuration: "settings".into(),
            in_common: "role".into(),
            published_at: Some(now() - TimeDelta::hours(10 - i64::try_from(number).unwrap())),
            state: Some(State::Active),
        };
        (number, version)
    });
    Observed {
        alias: Alias {
            version: 5,
            weights: BTreeMap::new(),
            revision_id: "rev-1".into(),
        },
        versions: versions.collect(),
        more_versions: false,
        deleted: BTreeSet::new(),
        by_version: BTreeMap::new(),
        total: traffic(200, 60),
        minutes: Served::default(),
        scheduled: true,
        deployment: None,
        provisioned: Provisioned::None,
        used_by: vec!["apigateway.amazonaws.com".into()],
        uncounted: Vec::new(),
        stack: Some("orders-prod".into()),
    }
}

fn unable() -> State {
    State::Unable {
        reason: "Failed: its subnet is gone".into(),
    }
}

fn deployment(rolls_back: bool) -> Deployment {
    Deployment {
        id: "d-ABC".into(),
        rolls_back,
        target: None,
    }
}

/// Version 4 is stable with 90 % of the traffic, and canary 5 fails.
fn with_canary() -> Observed {
    let mut observed = observed();
    observed.alias.version = 4;
    observed.alias.weights = BTreeMap::from([(5, 0.1)]);
    observed.by_version = BTreeMap::from([(4, traffic(900, 2)), (5, traffic(100, 40))]);
    observed.total = traffic(1_000, 42);
    observed
}

fn memory(good: &[u64]) -> Memory {
    Memory {
        serving: Some(Serving {
            version: 5,
            since: now() - TimeDelta::minutes(20),
            before: None,
        }),
        good: good
            .iter()
            .map(|number| {
                let attested = Attested {
                    at: now() - TimeDelta::hours(1),
                    traffic: traffic(5_000, 3),
                };
                (*number, attested)
            })
            .collect(),
        ..Memory::default()
    }
}

fn decide(observed: &Observed, memory: &Memory) -> PlannedBy<AliasRollback> {
    decide_begun(observed, memory, None)
}

fn decide_begun(
    observed: &Observed,
    memory: &Memory,
    begun: Option<&Plan>,
) -> PlannedBy<AliasRollback> {
    decide_by(&policy(), observed, memory, begun)
}

fn decide_by(
    policy: &Rollback,
    observed: &Observed,
    memory: &Memory,
    begun: Option<&Plan>,
) -> PlannedBy<AliasRollback> {
    let event = event();
    let moment = Moment {
        progress: None,
        now: now(),
        resuming: begun.is_some(),
        event: &event,
        incident_id: INCIDENT,
        memory: Some(memory),
        begun,
        overtaken: None,
        in_place: None,
        recovered: false,
    };
    plan(observed, policy, &moment)
}

/// A plan for an alarm that rang at another time.
fn decide_on(
    policy: &Rollback,
    observed: &Observed,
    memory: &Memory,
    changed_at: DateTime<Utc>,
) -> PlannedBy<AliasRollback> {
    let event = AlarmEvent {
        changed_at,
        ..event()
    };
    let moment = Moment {
        progress: None,
        now: now(),
        resuming: false,
        event: &event,
        incident_id: INCIDENT,
        memory: Some(memory),
        begun: None,
        overtaken: None,
        in_place: None,
        recovered: false,
    };
    plan(observed, policy, &moment)
}

fn acts(planned: PlannedBy<AliasRollback>) -> Plan {
    match planned {
        Planned::Act { plan, snapshot } => {
            assert_eq!(snapshot, None, "a rollback is not taken back");
            plan
        }
        other => panic!("{other:?}"),
    }
}

fn does_nothing(planned: &PlannedBy<AliasRollback>, words: &str) {
    match planned {
        Planned::Nothing { reason } => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other:?}"),
    }
}

fn escalates(planned: &PlannedBy<AliasRollback>, words: &str) {
    match planned {
        Planned::Escalate { rule, reason } => {
            assert_eq!(*rule, Rule::Unsafe);
            assert!(reason.contains(words), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bad_promoted_version_gives_way_to_the_newest_good_one() {
    let plan = acts(decide(&observed(), &memory(&[1, 3])));
    assert_eq!(
        (plan.from, plan.to()),
        (5, 3),
        "4 was never seen to serve well"
    );
    insta::assert_json_snapshot!(plan);
}

#[test]
fn a_bad_canary_loses_its_weight() {
    let plan = acts(decide(&with_canary(), &memory(&[])));
    assert_eq!(
        (plan.from, plan.to()),
        (5, 4),
        "no attestation is needed for it"
    );
    insta::assert_json_snapshot!(plan);
}

#[test]
fn a_deployment_in_flight_is_stopped_and_not_fought() {
    let mut observed = with_canary();
    observed.deployment = Some(deployment(false));
    let plan = acts(decide(&observed, &memory(&[])));
    assert!(
        matches!(&plan.step, Step::StopDeployment { deployment, to: 4, .. } if deployment == "d-ABC"),
        "{plan:?}"
    );
}

/// Stopping the rollback would leave the traffic where it fails.
#[test]
fn a_rollback_in_flight_is_left_alone() {
    for mut observed in [with_canary(), observed()] {
        observed.deployment = Some(deployment(true));
        match decide(&observed, &memory(&[3])) {
            Planned::InPlace { reason } => {
                assert!(reason.contains("d-ABC takes the alias back"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// All at once, with hooks still running: it brought what fails.
#[test]
fn a_deployment_that_brought_the_failing_version_is_stopped() {
    let mut observed = observed();
    observed.deployment = Some(Deployment {
        target: Some(5),
        ..deployment(false)
    });
    let plan = acts(decide(&observed, &memory(&[3])));
    assert!(
        matches!(&plan.step, Step::StopDeployment { deployment, to: 3, .. } if deployment == "d-ABC"),
        "{plan:?}"
    );
}

#[test]
fn a_rollback_tells_what_a_next_deployment_needs_and_what_was_not_looked_at() {
    let plan = acts(decide(&observed(), &memory(&[3])));
    assert!(
        plan.drift
            .contains("the next AppSpec needs CurrentVersion: 3"),
        "{}",
        plan.drift
    );
    let mut unsaid = policy();
    unsaid.codedeploy = None;
    let plan = acts(decide_by(&unsaid, &observed(), &memory(&[3]), None));
    let words = "whether a CodeDeploy deployment is in flight was not looked at";
    assert!(plan.drift.contains(words), "{}", plan.drift);
    let none = json!({"alias": unsaid.alias, "codedeploy": "none"});
    let none: Rollback = serde_json::from_value(none).unwrap();
    let plan = acts(decide_by(&none, &observed(), &memory(&[3]), None));
    assert!(!plan.drift.contains("CodeDeploy"), "{}", plan.drift);
}

/// With all the traffic on the old version, a deployment has shifted nothing yet: it cannot be the cause.
#[test]
fn a_deployment_that_may_be_the_cure_is_not_stopped() {
    let mut observed = observed();
    observed.deployment = Some(deployment(false));
    escalates(
        &decide(&observed, &memory(&[3])),
        "d-ABC is in flight and may bring the mended version",
    );
}

fn waits(planned: &PlannedBy<AliasRollback>, words: &str) {
    match planned {
        Planned::Undecided { reason } => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// A plan that is made some minutes after the alarm.
fn decide_later(observed: &Observed, memory: &Memory, minutes: i64) -> PlannedBy<AliasRollback> {
    let event = event();
    let moment = Moment {
        progress: None,
        now: now() + TimeDelta::minutes(minutes),
        resuming: false,
        event: &event,
        incident_id: INCIDENT,
        memory: Some(memory),
        begun: None,
        overtaken: None,
        in_place: None,
        recovered: false,
    };
    plan(observed, &policy(), &moment)
}

#[test]
fn errors_of_both_versions_are_left_to_a_human() {
    let mut both = with_canary();
    both.by_version.insert(4, traffic(900, 340));
    escalates(
        &decide(&both, &memory(&[])),
        "the errors are not the new version's: both versions fail alike, as what both depend on would make them: version 5 (10 % of the traffic): 40 errors in 100",
    );
}

/// Figures come late, and an API's server errors are none of Lambda's: neither is the end of it.
#[test]
fn an_alarm_that_no_figure_shows_is_looked_at_again_and_then_told() {
    let mut few = with_canary();
    few.by_version.insert(5, traffic(19, 0));
    let mut healthy = observed();
    healthy.total = traffic(200, 2);
    let mut silent = observed();
    silent.total = traffic(10, 0);
    for (observed, words) in [
        (
            few,
            "the new version served too little to conclude anything",
        ),
        (healthy, "not those of version 5"),
        (
            silent,
            "an API's 5xx, is not counted as an error of the function",
        ),
    ] {
        let known = memory(&[3]);
        waits(&decide(&observed, &known), words);
        waits(&decide_later(&observed, &known, 9), words);
        if !words.contains("too little") {
            let planned = decide_later(&observed, &known, 10);
            escalates(&planned, words);
            escalates(&planned, "the alarm is in ALARM for 10 min all the same");
        }
    }
}

/// Figures by the minute up to now, the oldest first.
fn minutes(figures: &[(i64, u64, u64)]) -> Minutes {
    let mut minutes = Minutes::new();
    let mut at = now();
    for (length, invocations, errors) in figures.iter().rev() {
        for _ in 0..*length {
            at -= TimeDelta::minutes(1);
            minutes.insert(at, traffic(*invocations, *errors));
        }
    }
    minutes
}

/// Version 5 took over 20 minutes ago, when it was published.
fn deployed(figures: &[(i64, u64, u64)]) -> Observed {
    let mut observed = observed();
    let published = now() - TimeDelta::minutes(20);
    observed.versions.get_mut(&5).unwrap().published_at = Some(published);
    observed.minutes.alias = minutes(figures);
    let window = observed
        .minutes
        .alias
        .range(now() - TimeDelta::minutes(5)..);
    observed.total = window.map(|(_, traffic)| *traffic).sum();
    observed
}

#[test]
fn errors_that_began_with_the_version_are_its_own() {
    let observed = deployed(&[(60, 100, 1), (20, 100, 30)]);
    let plan = acts(decide(&observed, &memory(&[3])));
    assert_eq!(plan.to(), 3);
    assert!(
        plan.why
            .contains("600 errors in 2000 invocations (30.0 %), since 2027-01-15 07:40 UTC"),
        "{}",
        plan.why
    );
}

/// Errors are counted under the minute in which the invocation began.
#[test]
fn a_version_that_fails_from_its_first_second_is_not_cleared_by_the_minutes_of_the_figures() {
    let mut observed = deployed(&[(59, 100, 1), (21, 100, 30)]);
    let published = now() - TimeDelta::minutes(20) + TimeDelta::seconds(59);
    observed.versions.get_mut(&5).unwrap().published_at = Some(published);
    let mut known = memory(&[3]);
    known.serving.as_mut().unwrap().since = published;
    assert_eq!(acts(decide(&observed, &known)).to(), 3);
}

#[test]
fn errors_that_were_there_before_are_not_the_versions() {
    let earlier = deployed(&[(40, 100, 1), (40, 100, 30)]);
    escalates(
        &decide(&earlier, &memory(&[3])),
        "the errors began at 2027-01-15 07:20 UTC, before version 5 took over",
    );
    let always = deployed(&[(120, 100, 30)]);
    escalates(
        &decide(&always, &memory(&[3])),
        "the errors were there before version 5 took over (1770 errors in 5900",
    );
    // A version that makes bad worse is to blame for that.
    let worse = deployed(&[(60, 100, 7), (20, 100, 60)]);
    escalates(
        &decide(&deployed(&[(60, 100, 7), (20, 100, 7)]), &memory(&[3])),
        "there before",
    );
    assert_eq!(acts(decide(&worse, &memory(&[3]))).from, 5);
}

#[test]
fn errors_that_began_long_after_the_version_took_over_are_not_put_down_to_it() {
    let later = deployed(&[(76, 100, 0), (4, 100, 50)]);
    escalates(
        &decide(&later, &memory(&[3])),
        "the errors began at 2027-01-15 07:56 UTC, 16 min after version 5 took over, which served well until then",
    );
    // Where it had served nothing until then, they began with its first traffic.
    let night = deployed(&[(60, 100, 0), (16, 0, 0), (4, 100, 50)]);
    assert_eq!(acts(decide(&night, &memory(&[3]))).to(), 3);
    let mut patient = policy();
    patient.blame.onset_seconds = std::num::NonZeroU32::new(1_200).unwrap();
    assert_eq!(
        acts(decide_by(&patient, &later, &memory(&[3]), None)).to(),
        3
    );
}

/// One minute at 20 % is 4 % of five.
#[test]
fn an_alarm_of_one_minute_is_not_diluted_by_the_window() {
    let mut known = memory(&[3]);
    known.serving.as_mut().unwrap().since = now() - TimeDelta::minutes(1);
    known.serving.as_mut().unwrap().before = Some(4);
    let mut one = deployed(&[(79, 100, 0), (1, 100, 20)]);
    one.versions.get_mut(&5).unwrap().published_at = Some(now() - TimeDelta::minutes(2));
    assert!(one.total.error_percent() < 5.0);
    let plan = acts(decide(&one, &known));
    assert!(
        plan.why.contains("20 errors in 100 invocations"),
        "{}",
        plan.why
    );
    // The canary too.
    let mut canary = with_canary();
    canary.by_version = BTreeMap::from([(4, traffic(4_500, 9)), (5, traffic(500, 20))]);
    waits(&decide(&canary, &known), "not the new version's");
    canary.minutes.by_version = BTreeMap::from([
        (4, minutes(&[(5, 900, 2)])),
        (5, minutes(&[(4, 100, 0), (1, 100, 20)])),
    ]);
    let plan = acts(decide(&canary, &known));
    assert_eq!((plan.from, plan.to()), (5, 4));
    assert!(
        plan.why
            .contains("since its errors began: 20 errors in 100"),
        "{}",
        plan.why
    );
}

#[test]
fn a_dependency_that_fails_others_at_the_same_time_is_no_version() {
    let mut observed = deployed(&[(60, 100, 1), (20, 100, 30)]);
    let peer = "arn:aws:lambda:eu-west-1:123456789012:function:billing:live";
    let mut with_peer = |figures: &[(i64, u64, u64)]| {
        observed.minutes.peers = BTreeMap::from([(peer.to_owned(), minutes(figures))]);
        decide(&observed, &memory(&[3]))
    };
    let failing = with_peer(&[(59, 50, 0), (21, 50, 20)]);
    escalates(&failing, "others began to fail at the same time");
    escalates(
        &failing,
        "billing:live since 2027-01-15 07:39 UTC (420 errors in 1050",
    );
    for unconcerned in [&[(80, 50, 0)], &[(80, 50, 20)]] {
        assert_eq!(acts(with_peer(unconcerned)).to(), 3);
    }
    assert_eq!(acts(with_peer(&[(40, 50, 0), (40, 50, 20)])).to(), 3);
}

#[test]
fn server_errors_of_the_api_speak_against_a_version_with_which_they_began() {
    let mut speaking = policy();
    speaking.blame.api = Some(serde_json::from_value(json!({"name": "orders-api"})).unwrap());
    let mut observed = deployed(&[(80, 100, 0)]);
    observed.minutes.api = minutes(&[(60, 200, 0), (20, 200, 80)]);
    let plan = acts(decide_by(&speaking, &observed, &memory(&[3]), None));
    let words = "1600 server errors in 4000 requests to API orders-api";
    assert!(plan.why.contains(words), "{}", plan.why);
    // Another part of the API fails since long before, or since later, or since ever.
    for (figures, words) in [
        ([(40, 200, 0), (40, 200, 80)], "before version 5 took over"),
        ([(76, 200, 0), (4, 200, 80)], "16 min after version 5"),
        (
            [(40, 200, 80), (40, 200, 80)],
            "when the errors began cannot be seen",
        ),
    ] {
        observed.minutes.api = minutes(&figures);
        let planned = decide_by(&speaking, &observed, &memory(&[3]), None);
        if figures[0].2 == 0 {
            escalates(&planned, words);
        } else {
            waits(&planned, "does not fail by Lambda's figures");
        }
    }
}

/// Canary 5 began its tenth of the traffic 20 minutes ago, and Lambda sees neither version fail; an hour of the API is
/// before that.
fn canary_behind_an_api(api: &[(i64, u64, u64)]) -> Observed {
    let mut observed = with_canary();
    observed.by_version = BTreeMap::from([(4, traffic(900, 0)), (5, traffic(100, 0))]);
    observed.minutes.alias = minutes(&[(80, 200, 0)]);
    observed.minutes.by_version =
        BTreeMap::from([(4, minutes(&[(20, 180, 0)])), (5, minutes(&[(20, 20, 0)]))]);
    observed.minutes.api = minutes(api);
    observed
}

fn watching_the_api() -> Rollback {
    let mut policy = policy();
    policy.blame.api = Some(serde_json::from_value(json!({"name": "orders-api"})).unwrap());
    policy
}

#[test]
fn server_errors_that_began_with_a_canarys_share_are_its_own() {
    let policy = watching_the_api();
    let known = memory(&[]);
    let observed = canary_behind_an_api(&[(60, 200, 0), (20, 200, 15)]);
    let plan = acts(decide_by(&policy, &observed, &known, None));
    assert_eq!((plan.from, plan.to()), (5, 4));
    let words = "300 server errors in 4000 requests to API orders-api since 2027-01-15 07:40 UTC, as the share of version 5 began (2027-01-15 07:40 UTC), which was invoked 400 times since; before: 0 in 12000";
    assert!(plan.why.contains(words), "{}", plan.why);
    // Without the policy's word an API is not looked at.
    waits(
        &decide(&observed, &known),
        "no version of the alias fails by Lambda's figures",
    );
    // An earlier canary of the day was counted too.
    let mut twice = observed.clone();
    let earlier = minutes(&[(5, 20, 0), (45, 0, 0)]);
    let canary = twice.minutes.by_version.get_mut(&5).unwrap();
    canary.extend(earlier.into_iter().filter(|(_, t)| t.invocations > 0));
    assert_eq!(acts(decide_by(&policy, &twice, &known, None)).from, 5);
    let peer = "arn:aws:lambda:eu-west-1:123456789012:function:billing:live";
    let mut shared = observed.clone();
    let failing = minutes(&[(60, 50, 0), (20, 50, 20)]);
    shared.minutes.peers = BTreeMap::from([(peer.to_owned(), failing)]);
    let planned = decide_by(&policy, &shared, &known, None);
    escalates(&planned, "others began to fail at the same time");
}

#[test]
fn server_errors_that_did_not_begin_with_a_canarys_share_are_not_put_down_to_it() {
    let policy = watching_the_api();
    let known = memory(&[]);
    let refused = |observed: &Observed, words: &str| {
        let planned = decide_by(&policy, observed, &known, None);
        waits(&planned, words);
        waits(
            &planned,
            "what API orders-api counts is not put down to the new version",
        );
    };
    for (api, words) in [
        (
            [(40, 200, 0), (40, 200, 15)],
            "its server errors began at 2027-01-15 07:20 UTC, and the share of version 5 at 2027-01-15 07:40 UTC",
        ),
        (
            [(76, 200, 0), (4, 200, 15)],
            "began at 2027-01-15 07:56 UTC",
        ),
        ([(40, 200, 15), (40, 200, 15)], "cannot be seen"),
        (
            [(60, 200, 12), (20, 200, 30)],
            "not seen to answer well before",
        ),
        // A tenth of the traffic cannot fail a third of the requests.
        (
            [(60, 200, 0), (20, 200, 66)],
            "more than version 5 can have caused: 1320",
        ),
        ([(60, 1_000, 0), (20, 1_000, 1)], "5.0 % of what version 5"),
    ] {
        let mut observed = canary_behind_an_api(&api);
        if words.starts_with('5') {
            observed
                .minutes
                .by_version
                .insert(5, minutes(&[(20, 21, 0)]));
            refused(
                &observed,
                "4.8 % of what version 5 served since, which is 420",
            );
        } else {
            refused(&observed, words);
        }
    }
    let mut uncounted = canary_behind_an_api(&[(60, 200, 0), (20, 200, 15)]);
    uncounted.minutes.by_version.remove(&5);
    refused(&uncounted, "nothing is counted of version 5");
    let mut older = canary_behind_an_api(&[(60, 200, 0), (20, 200, 15)]);
    older.alias.version = 5;
    older.alias.weights = BTreeMap::from([(4, 0.1)]);
    refused(
        &older,
        "version 5, which has the rest of the traffic, is the newer one",
    );
    let mut cure = canary_behind_an_api(&[(60, 200, 0), (20, 200, 15)]);
    cure.minutes.by_version =
        BTreeMap::from([(4, minutes(&[(1, 180, 0)])), (5, minutes(&[(1, 60, 0)]))]);
    let early = now() - TimeDelta::minutes(5);
    let planned = decide_on(&policy, &cure, &known, early);
    waits(&planned, "the share of version 5 began after the alarm");
}

#[test]
fn throttles_speak_against_a_version_where_the_policy_has_them_counted() {
    let mut observed = deployed(&[(80, 100, 0)]);
    observed.minutes.throttled = minutes(&[(60, 100, 0), (20, 100, 50)]);
    waits(&decide(&observed, &memory(&[3])), "does not fail");
    let mut counting = policy();
    counting.blame.throttles = true;
    let plan = acts(decide_by(&counting, &observed, &memory(&[3]), None));
    let words = "1000 of 2000 attempts to invoke it were throttled";
    assert!(plan.why.contains(words), "{}", plan.why);
}

fn in_steps() -> Rollback {
    let mut policy = policy();
    policy.codedeploy = None;
    let shift = json!({"percents": [10, 50, 100], "step_seconds": 300});
    policy.shift = Some(serde_json::from_value(shift).unwrap());
    policy
}

/// Version 3 has had 10 % of the traffic of version 5 for some minutes, in which each served that.
fn shifted(minutes_ago: i64, bad: Traffic, good: Traffic) -> (Observed, Progress) {
    let mut observed = observed();
    observed.alias.weights = BTreeMap::from([(3, 0.1)]);
    observed.alias.revision_id = "rev-2".into();
    let at = now() - TimeDelta::minutes(1);
    let served = |traffic| Minutes::from([(at, traffic)]);
    observed.minutes.by_version = BTreeMap::from([(5, served(bad)), (3, served(good))]);
    let progress = Progress {
        from: 5,
        to: 3,
        percent: 10,
        since: now() - TimeDelta::minutes(minutes_ago),
        putting: None,
    };
    (observed, progress)
}

/// The next look at a way back in steps that the plan has begun.
fn look(policy: &Rollback, observed: &Observed, progress: &Progress) -> PlannedBy<AliasRollback> {
    look_at(policy, observed, progress, false)
}

/// The same, where the alarm may have recovered.
fn look_at(
    policy: &Rollback,
    observed: &Observed,
    progress: &Progress,
    recovered: bool,
) -> PlannedBy<AliasRollback> {
    let begun = acts(decide_by(
        &in_steps(),
        &self::observed(),
        &memory(&[3]),
        None,
    ));
    let event = event();
    let known = memory(&[3]).shifting(RolledBack {
        incident_id: INCIDENT.into(),
        from: 5,
        to: 3,
        at: now(),
        went: Went::AllTheWay,
    });
    let moment = Moment {
        progress: Some(progress),
        now: now(),
        resuming: true,
        event: &event,
        incident_id: INCIDENT,
        memory: Some(&known),
        begun: Some(&begun),
        overtaken: None,
        in_place: None,
        recovered,
    };
    plan(observed, policy, &moment)
}

fn next_step(observed: &Observed, progress: &Progress) -> Step {
    acts(look(&in_steps(), observed, progress)).step
}

#[test]
fn a_way_back_in_steps_begins_with_the_first_share() {
    let first = acts(decide_by(&in_steps(), &observed(), &memory(&[3]), None));
    let step = Step::Shift {
        to: 3,
        percent: 10,
        revision_id: "rev-1".into(),
        wakes: false,
    };
    assert_eq!((first.from, first.to(), &first.step), (5, 3, &step));
    assert!(first.notes.is_empty());
    // A canary's share is taken off at once: that is a step back itself.
    let canary = acts(decide_by(&in_steps(), &with_canary(), &memory(&[]), None));
    assert!(matches!(canary.step, Step::Point { to: 4, .. }));
    let mut one = in_steps();
    one.shift.as_mut().unwrap().percents = vec![100];
    let plan = acts(decide_by(&one, &observed(), &memory(&[3]), None));
    assert!(matches!(plan.step, Step::Point { to: 3, .. }) && plan.notes.is_empty());
}

#[test]
fn what_cannot_be_judged_in_steps_goes_back_at_once_and_says_so() {
    let known = memory(&[3]);
    let mut provisioned = observed();
    provisioned.provisioned = Provisioned::Ready;
    let mut other_role = observed();
    other_role.versions.get_mut(&3).unwrap().in_common = "another role".into();
    let mut policy = in_steps();
    policy.blame.throttles = true;
    let mut throttled = deployed(&[(80, 100, 0)]);
    throttled.minutes.throttled = minutes(&[(60, 100, 0), (20, 100, 50)]);
    for (observed, words) in [
        (provisioned, "has provisioned concurrency"),
        (other_role, "differ in their role or dead-letter queue"),
        (throttled, "is not counted by version"),
    ] {
        let plan = acts(decide_by(&policy, &observed, &known, None));
        assert!(matches!(plan.step, Step::Point { to: 3, .. }), "{plan:?}");
        let note = plan.notes.concat();
        assert!(
            note.contains("at once, and not in steps") && note.contains(words),
            "{note}"
        );
    }
}

#[test]
fn a_version_that_does_better_gets_the_next_share_once_the_step_is_over() {
    let (mut observed, mut progress) = shifted(5, traffic(900, 300), traffic(100, 1));
    assert_eq!(
        next_step(&observed, &progress),
        Step::Shift {
            to: 3,
            percent: 50,
            revision_id: "rev-2".into(),
            wakes: false,
        }
    );
    progress.since = now() - TimeDelta::minutes(4);
    match next_step(&observed, &progress) {
        Step::Watch {
            to: 3,
            percent: 10,
            since,
            until,
            reason,
        } => {
            assert_eq!(since, progress.since);
            assert_eq!(until, now() + TimeDelta::minutes(1));
            assert!(reason.contains("does better"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    // The last step is the alias at the good version alone.
    observed.alias.weights = BTreeMap::from([(3, 0.5)]);
    progress.percent = 50;
    progress.since = now() - TimeDelta::minutes(5);
    let last = Step::Point {
        to: 3,
        revision_id: "rev-2".into(),
        drops_weight: false,
        wakes: false,
    };
    assert_eq!(next_step(&observed, &progress), last);
    // So it is where the policy wants no steps any more.
    let (observed, progress) = shifted(5, traffic(900, 300), traffic(100, 1));
    let mut policy = in_steps();
    policy.shift = None;
    let plan = acts(look(&policy, &observed, &progress));
    assert_eq!(plan.step, last);
    assert!(plan.why.contains("60 errors in 200"), "{}", plan.why);
}

#[test]
fn a_version_that_does_no_better_gives_its_share_back() {
    let undone = |minutes_ago, bad, good, words: &str| {
        let (observed, progress) = shifted(minutes_ago, bad, good);
        match next_step(&observed, &progress) {
            Step::Unshift {
                to: 3,
                revision_id,
                reason,
            } => {
                assert_eq!(revision_id, "rev-2");
                assert!(reason.contains(words), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    };
    let rates = "version 3 with 10 % of the traffic since 2027-01-15 07:58 UTC: 40 errors in 100 invocations (40.0 %); version 5: 300 errors in 900 invocations (33.3 %); it does no better";
    undone(2, traffic(900, 300), traffic(100, 40), rates);
    undone(
        15,
        traffic(900, 0),
        traffic(100, 0),
        "neither fails, so that what failed has passed",
    );
    undone(
        15,
        traffic(900, 300),
        traffic(19, 0),
        "too little to compare, and its share",
    );
}

#[test]
fn what_is_too_little_to_compare_is_waited_for_as_long_as_a_step_may_last() {
    for (bad, good, words) in [
        (
            traffic(900, 300),
            traffic(19, 19),
            "too little to compare yet",
        ),
        (
            traffic(19, 19),
            traffic(900, 0),
            "too little to compare yet",
        ),
        (traffic(900, 10), traffic(100, 1), "neither fails"),
    ] {
        let (observed, progress) = shifted(14, bad, good);
        match next_step(&observed, &progress) {
            Step::Watch {
                until,
                reason,
                since,
                ..
            } => {
                assert_eq!(
                    (until, since),
                    (now() + TimeDelta::minutes(1), progress.since)
                );
                assert!(reason.contains(words), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_alias_that_another_hand_changed_in_between_is_left() {
    let (observed, progress) = shifted(5, traffic(900, 300), traffic(100, 1));
    for pointing in [
        (5, BTreeMap::new()),
        (3, BTreeMap::new()),
        (5, BTreeMap::from([(3, 0.5)])),
        (6, BTreeMap::from([(3, 0.1)])),
    ] {
        let mut changed = observed.clone();
        (changed.alias.version, changed.alias.weights) = pointing;
        let planned = look(&in_steps(), &changed, &progress);
        escalates(
            &planned,
            "was to take over from version 5 in steps and had 10 % of the traffic; it is left as it is, at version",
        );
    }
}

/// What is saved before a call tells whether the call was made, whatever became of who made it.
#[test]
fn an_attempt_that_died_about_a_step_is_taken_up_where_it_was() {
    let (given, progress) = shifted(5, traffic(900, 300), traffic(100, 1));
    // Before the first share, it is planned as if nothing had been.
    let first = Progress {
        percent: 0,
        putting: Some(10),
        ..progress.clone()
    };
    assert!(matches!(
        next_step(&observed(), &first),
        Step::Shift { percent: 10, .. }
    ));
    // Once the alarm is not in ALARM any more, none is begun that was not given, and one that was is ended.
    does_nothing(
        &look_at(&in_steps(), &observed(), &first, true),
        "was given no share yet",
    );
    for progress in [&first, &progress] {
        acts(look_at(&in_steps(), &given, progress, true));
    }
    // After it, the share counts from now.
    match next_step(&given, &first) {
        Step::Watch {
            percent: 10,
            since,
            until,
            ..
        } => {
            assert_eq!((since, until), (now(), now() + TimeDelta::minutes(5)));
        }
        other => panic!("{other:?}"),
    }
    // The next one was not given, or was.
    let next = Progress {
        putting: Some(50),
        ..progress.clone()
    };
    assert!(matches!(
        next_step(&given, &next),
        Step::Shift { percent: 50, .. }
    ));
    let mut half = given.clone();
    half.alias.weights = BTreeMap::from([(3, 0.5)]);
    assert!(matches!(
        next_step(&half, &next),
        Step::Watch { percent: 50, .. }
    ));
    // The last one was given, or taken away: that is concluded.
    let mut alone = given.clone();
    alone.alias.weights.clear();
    let back = Progress {
        putting: Some(0),
        ..progress.clone()
    };
    match next_step(&alone, &back) {
        Step::Unshift { reason, .. } => assert!(reason.contains("had 10 %"), "{reason}"),
        other => panic!("{other:?}"),
    }
    alone.alias.version = 3;
    let last = Progress {
        putting: Some(100),
        ..progress
    };
    assert!(matches!(
        next_step(&alone, &last),
        Step::Point { to: 3, .. }
    ));
}

#[test]
fn a_second_alarm_waits_for_the_way_back_that_is_under_way() {
    let (observed, _) = shifted(5, traffic(900, 300), traffic(100, 1));
    let shifting = |hours| {
        memory(&[3]).shifting(RolledBack {
            incident_id: "inc-0".into(),
            from: 5,
            to: 3,
            at: now() - TimeDelta::hours(hours),
            went: Went::AllTheWay,
        })
    };
    waits(
        &decide_by(&in_steps(), &observed, &shifting(0), None),
        "goes back from version 5 to 3 in steps already, for inc-0",
    );
    // A run that died for good holds up nobody for ever.
    let mut served = observed.clone();
    served.by_version = BTreeMap::from([(5, traffic(900, 300)), (3, traffic(100, 1))]);
    let plan = acts(decide_by(&in_steps(), &served, &shifting(24), None));
    assert!(matches!(plan.step, Step::Point { to: 3, .. }));
    // What was undone is not tried again, and speaks against neither version.
    let undone = shifting(0).broken_off(Went::AndCameBack);
    assert!(undone.shifting.is_none() && undone.bad.is_empty());
    let mut ended = undone.clone();
    ended.last.as_mut().unwrap().incident_id = INCIDENT.into();
    let planned = decide_by(&in_steps(), &self::observed(), &ended, None);
    does_nothing(&planned, "which was undone, in this incident already");
    ended.last.as_mut().unwrap().went = Went::HalfWay;
    let planned = decide_by(&in_steps(), &self::observed(), &ended, None);
    let words = "on its way back from version 5 to 3, and left there, in this incident already";
    does_nothing(&planned, words);
    assert!(matches!(
        acts(decide_by(&in_steps(), &self::observed(), &undone, None)).step,
        Step::Shift { .. }
    ));
}

/// Partial batch failures are none of the function's errors.
#[test]
fn events_that_were_not_processed_speak_against_a_version() {
    let queue = "arn:aws:sqs:eu-west-1:123456789012:orders";
    let busy = "arn:aws:sqs:eu-west-1:123456789012:clicks";
    let mut observed = deployed(&[(80, 100, 0)]);
    observed.minutes.event_sources = BTreeMap::from([
        (busy.to_owned(), minutes(&[(80, 9_000, 0)])),
        (queue.to_owned(), minutes(&[(60, 100, 1), (20, 100, 50)])),
    ]);
    observed.uncounted = vec!["arn:aws:sqs:eu-west-1:123456789012:late".into()];
    let plan = acts(decide(&observed, &memory(&[3])));
    let words = "1000 of 2000 events of arn:aws:sqs:eu-west-1:123456789012:orders were not processed, since 2027-01-15 07:40 UTC";
    assert!(plan.why.contains(words), "{}", plan.why);
    let unseen = "events that failed are not counted of every event source: arn:aws:sqs:eu-west-1:123456789012:late";
    assert_eq!(plan.notes, [unseen]);
    for (figures, words) in [
        ([(40, 100, 1), (40, 100, 50)], "before version 5 took over"),
        ([(76, 100, 1), (4, 100, 50)], "16 min after version 5"),
    ] {
        let sources = BTreeMap::from([(queue.to_owned(), minutes(&figures))]);
        observed.minutes.event_sources = sources;
        escalates(&decide(&observed, &memory(&[3])), words);
    }
    observed.minutes.event_sources.clear();
    waits(&decide(&observed, &memory(&[3])), unseen);
}

fn watching_durations() -> Rollback {
    let mut policy = policy();
    policy.blame.duration = Some(serde_json::from_value(json!({"times": 2})).unwrap());
    policy
}

/// How long invocations took up to now, on average, the oldest first, of as many as were invoked.
fn took(invoked: &Minutes, averages: &[(i64, u64)]) -> Durations {
    let each = averages.iter().flat_map(|(length, average)| {
        let length = usize::try_from(*length).unwrap();
        std::iter::repeat_n(*average, length)
    });
    let minutes = invoked.iter().zip(each);
    minutes
        .map(|((at, traffic), average)| (*at, traffic.invocations * average))
        .collect()
}

#[test]
fn a_version_that_takes_longer_than_the_one_before_is_to_blame_where_the_policy_says_so() {
    let policy = watching_durations();
    let known = memory(&[3]);
    let lasting = |averages: &[(i64, u64)]| {
        let mut observed = deployed(&[(80, 100, 0)]);
        observed.minutes.durations = took(&observed.minutes.alias, averages);
        observed
    };
    let slow = lasting(&[(60, 120), (20, 300)]);
    let plan = acts(decide_by(&policy, &slow, &known, None));
    assert_eq!((plan.from, plan.to()), (5, 3));
    let words = "300 ms on average of 2000 invocations, 2.5 times as long as in the hour before it took over (120 ms on average of 6000)";
    assert!(plan.why.contains(words), "{}", plan.why);
    waits(&decide(&slow, &known), "does not fail by Lambda's figures");
    for unconcerned in [
        lasting(&[(60, 120), (20, 200)]),
        // What is slow for a machine is fast for a human.
        lasting(&[(60, 10), (20, 90)]),
        // It was fast for longer than an onset may take.
        lasting(&[(60, 120), (12, 120), (8, 3_000)]),
        lasting(&[]),
    ] {
        let planned = decide_by(&policy, &unconcerned, &known, None);
        waits(&planned, "does not fail by Lambda's figures");
    }
    let mut new = lasting(&[(60, 120), (20, 300)]);
    new.minutes.alias = minutes(&[(60, 0, 0), (20, 100, 0)]);
    waits(&decide_by(&policy, &new, &known, None), "does not fail");
    let mut shared = slow.clone();
    let peer = "arn:aws:lambda:eu-west-1:123456789012:function:billing:live";
    let failing = minutes(&[(60, 50, 0), (20, 50, 20)]);
    shared.minutes.peers = BTreeMap::from([(peer.to_owned(), failing)]);
    escalates(
        &decide_by(&policy, &shared, &known, None),
        "others began to fail",
    );
    // Nor is it attested.
    let later = now() + TimeDelta::minutes(1);
    let mut healthy = slow.clone();
    healthy.total = traffic(500, 0);
    assert!(learn(&healthy, &watching_the_api(), Some(&known), later).is_some());
    assert_eq!(learn(&healthy, &policy, Some(&known), later), None);
}

#[test]
fn a_canary_that_takes_longer_than_the_version_beside_it_loses_its_weight() {
    let policy = watching_durations();
    let known = memory(&[]);
    let lasting = |stable: u64, canary: u64| {
        let mut observed = canary_behind_an_api(&[]);
        let versions = [(4, stable), (5, canary)];
        observed.minutes.durations_by_version = versions
            .map(|(version, average)| {
                let invoked = &observed.minutes.by_version[&version];
                (version, took(invoked, &[(20, average)]))
            })
            .into();
        observed
    };
    let plan = acts(decide_by(&policy, &lasting(120, 300), &known, None));
    assert_eq!((plan.from, plan.to()), (5, 4));
    let words = "version 5: 300 ms on average of 100 invocations, 2.5 times as long as version 4 (120 ms on average of 900)";
    assert!(plan.why.contains(words), "{}", plan.why);
    waits(
        &decide_by(&policy, &lasting(120, 200), &known, None),
        "fails by Lambda's",
    );
    let planned = decide_by(&policy, &lasting(300, 120), &known, None);
    escalates(
        &planned,
        "takes longer than the new version 5, which may be the cure",
    );
}

/// The weight may hold the version before.
#[test]
fn the_main_version_is_blamed_as_its_canary_would_be() {
    let mut turned = observed();
    turned.alias.weights = BTreeMap::from([(4, 0.1)]);
    turned.by_version = BTreeMap::from([(5, traffic(900, 300)), (4, traffic(100, 0))]);
    let plan = acts(decide(&turned, &memory(&[])));
    assert_eq!((plan.from, plan.to()), (5, 4));
    assert!(matches!(
        plan.step,
        Step::Point {
            drops_weight: false,
            ..
        }
    ));
    // What is older is not blamed for a mend to be rolled forward.
    let mut mending = with_canary();
    mending.by_version = BTreeMap::from([(4, traffic(900, 300)), (5, traffic(100, 0))]);
    escalates(
        &decide(&mending, &memory(&[])),
        "version 4, which has the rest of the traffic, fails more than the new version 5, which may be the cure",
    );
    turned.by_version = BTreeMap::from([(5, traffic(900, 0)), (4, traffic(100, 40))]);
    escalates(&decide(&turned, &memory(&[])), "nothing is rolled forward");
}

#[test]
fn a_fix_by_hand_is_not_blamed_for_what_it_mends() {
    let mut back = observed();
    back.alias.version = 4;
    waits(
        &decide(&back, &memory(&[3, 4])),
        "someone went back from version 5 to version 4 since the last look, by hand",
    );
    // A look meanwhile does not make it to blame for what it was brought back to mend.
    let mut known = memory(&[2, 3]);
    known.serving = Some(Serving {
        version: 4,
        since: now() - TimeDelta::minutes(1),
        before: Some(5),
    });
    escalates(
        &decide(&back, &known),
        "someone went back to version 4 by hand",
    );
    let mut forward = observed();
    forward.versions.get_mut(&5).unwrap().published_at = Some(now() + TimeDelta::seconds(30));
    let mut known = memory(&[3, 4]);
    known.serving.as_mut().unwrap().version = 4;
    let words = "version 5 took over after the alarm";
    waits(&decide_later(&forward, &known, 2), words);
    escalates(&decide_later(&forward, &known, 11), words);
}

#[test]
fn errors_of_few_invocations_are_looked_at_again() {
    let known = memory(&[3]);
    let mut few = with_canary();
    few.by_version.insert(5, traffic(19, 19));
    waits(&decide(&few, &known), "the new version served too little");
    let mut silent = observed();
    silent.total = traffic(10, 10);
    waits(&decide(&silent, &known), "version 5 served too little");
    let mut lonely = with_canary();
    lonely.by_version.insert(4, traffic(0, 0));
    let planned = decide_later(&lonely, &known, 60);
    waits(&planned, "served too little to compare with");
}

/// Lambda moves the weights by itself until it is over, whatever came before.
#[test]
fn an_alias_whose_concurrency_is_being_allocated_is_looked_at_again() {
    let begun = acts(decide(&observed(), &memory(&[3])));
    for mut observed in [observed(), with_canary()] {
        observed.provisioned = Provisioned::Allocating;
        observed.alias.revision_id = "rev-2".into();
        for begun in [None, Some(&begun)] {
            match decide_begun(&observed, &memory(&[3]), begun) {
                Planned::Undecided { reason } => {
                    assert!(reason.contains("is being allocated"), "{reason}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(learn(&observed, &policy(), None, now()), None);
    }
    let mut moved = observed();
    moved.provisioned = Provisioned::Allocating;
    moved.alias.version = 3;
    let again = decide_begun(&moved, &memory(&[3]), Some(&begun));
    assert_eq!(acts(again), begun);
}

#[test]
fn an_old_deployment_is_not_to_blame() {
    let mut memory = memory(&[3]);
    memory.serving = Some(Serving {
        version: 5,
        since: now() - TimeDelta::hours(25),
        before: None,
    });
    does_nothing(&decide(&observed(), &memory), "has served for 25 h");
    // Without a look at the alias before, the time of publishing counts.
    memory.serving = None;
    assert_eq!(acts(decide(&observed(), &memory)).to(), 3);
}

#[test]
fn a_version_promoted_since_the_last_look_is_recent_however_old_it_is() {
    let mut old = observed();
    old.versions.get_mut(&5).unwrap().published_at = Some(now() - TimeDelta::days(3));
    let mut memory = memory(&[3, 4]);
    memory.serving = Some(Serving {
        version: 4,
        since: now() - TimeDelta::days(5),
        before: None,
    });
    assert_eq!(acts(decide(&old, &memory)).to(), 4);
}

/// The alias's figures are not counted by version: after a fix by hand they are still those of what it mended.
#[test]
fn errors_that_may_be_those_of_the_version_before_are_left_to_a_human() {
    let mut memory = memory(&[3]);
    memory.serving = Some(Serving {
        version: 4,
        since: now() - TimeDelta::minutes(20),
        before: Some(3),
    });
    let words = "took over from version 4 within the window";
    escalates(&decide(&observed(), &memory), words);
    let mut seen = Serving {
        version: 5,
        since: now() - TimeDelta::minutes(4),
        before: Some(4),
    };
    memory.serving = Some(seen.clone());
    escalates(&decide(&observed(), &memory), words);
    seen.since = now() - TimeDelta::minutes(5);
    memory.serving = Some(seen);
    assert_eq!(acts(decide(&observed(), &memory)).to(), 3);
}

#[test]
fn a_version_that_another_hand_went_to_meanwhile_is_left() {
    let overtaken = acts(decide(&observed(), &memory(&[3])));
    let known = memory(&[3]);
    let again = |observed: &Observed| {
        let event = event();
        let moment = Moment {
            progress: None,
            now: now(),
            resuming: false,
            event: &event,
            incident_id: INCIDENT,
            memory: Some(&known),
            begun: None,
            overtaken: Some(&overtaken),
            in_place: None,
            recovered: false,
        };
        plan(observed, &policy(), &moment)
    };
    let mut elsewhere = observed();
    elsewhere.alias.version = 2;
    elsewhere.alias.revision_id = "rev-2".into();
    does_nothing(
        &again(&elsewhere),
        "another hand pointed the alias to version 2",
    );
    let mut again_there = observed();
    again_there.alias.revision_id = "rev-2".into();
    assert_eq!(acts(again(&again_there)).to(), 3);
}

#[test]
fn no_share_is_compared_with_a_version_that_served_nothing() {
    let mut lonely = with_canary();
    lonely.by_version.insert(4, traffic(0, 0));
    lonely.by_version.insert(5, traffic(100, 0));
    waits(
        &decide(&lonely, &memory(&[])),
        "no version of the alias fails by Lambda's figures",
    );
}

#[test]
fn a_canary_gives_no_traffic_back_to_a_version_that_was_rolled_back_from() {
    let mut known = memory(&[]);
    known.bad.insert(
        4,
        Condemned {
            at: now(),
            incident_id: Some("inc-0".into()),
        },
    );
    escalates(
        &decide(&with_canary(), &known),
        "version 4, which has the rest of the traffic, was rolled back from itself",
    );
}

/// It was to be stopped by an attempt that died, and came to its end before.
#[test]
fn a_deployment_that_has_ended_is_not_stopped_again() {
    let mut during = with_canary();
    during.deployment = Some(deployment(false));
    let begun = acts(decide(&during, &memory(&[3])));
    let again = acts(decide_begun(&during, &memory(&[3]), Some(&begun)));
    assert!(matches!(again.step, Step::StopDeployment { .. }));
    let again = acts(decide_begun(&observed(), &memory(&[3]), Some(&begun)));
    assert!(matches!(again.step, Step::Point { to: 3, .. }), "{again:?}");
}

#[test]
fn a_version_that_someone_went_back_from_is_not_chosen() {
    let mut earlier = observed();
    earlier.alias.version = 4;
    earlier.total = traffic(0, 0);
    let lesson = learn(&earlier, &policy(), Some(&memory(&[3, 5])), now()).unwrap();
    assert!(
        lesson
            .summary
            .contains("someone went back from version 5 by hand"),
        "{}",
        lesson.summary
    );
    let known = &lesson.memory;
    assert!(!known.good.contains_key(&5) && known.bad.contains_key(&5));
    // Whoever brings it back wants it.
    let lesson = learn(&observed(), &policy(), Some(&lesson.memory), now()).unwrap();
    assert!(!lesson.memory.bad.contains_key(&5));
    // Our own rollback is told as such.
    let ours = memory(&[3]).with(RolledBack {
        incident_id: INCIDENT.into(),
        from: 5,
        to: 4,
        at: now(),
        went: Went::AllTheWay,
    });
    let lesson = learn(&earlier, &policy(), Some(&ours), now()).unwrap();
    let known = &lesson.memory;
    assert_eq!(known.bad[&5].incident_id.as_deref(), Some(INCIDENT));
}

#[test]
fn an_alias_that_nothing_invokes_is_left_alone() {
    let mut unused = observed();
    unused.used_by.clear();
    unused.total = traffic(0, 0);
    does_nothing(&decide(&unused, &memory(&[3])), "nothing invokes");
}

#[test]
fn versions_that_cannot_serve_are_passed_over_by_name() {
    let mut gone = observed();
    gone.versions.remove(&4);
    gone.versions.get_mut(&3).unwrap().state = Some(unable());
    gone.versions.get_mut(&2).unwrap().code_sha256 = "sha-5".into();
    // Two versions of one code are two where their configuration differs.
    let mut reconfigured = gone.clone();
    reconfigured.versions.get_mut(&2).unwrap().configuration = "other variables".into();
    assert_eq!(acts(decide(&reconfigured, &memory(&[1, 2, 3, 4]))).to(), 2);
    let mut known = memory(&[1, 2, 3, 4]);
    assert_eq!(acts(decide(&gone, &known)).to(), 1);
    known.bad.insert(
        1,
        Condemned {
            at: now(),
            incident_id: Some("inc-0".into()),
        },
    );
    let planned = decide(&gone, &known);
    for words in [
        "version 4 was deleted",
        "version 3 is Failed: its subnet is gone",
        "version 2 has the same code and configuration",
        "version 1 was rolled back from",
    ] {
        escalates(&planned, words);
    }
    escalates(
        &decide(&observed(), &memory(&[])),
        "no earlier version has been seen to serve well",
    );
    let mut cut = observed();
    cut.versions.remove(&3);
    cut.more_versions = true;
    let words = "version 3 is not among the versions that were read";
    escalates(&decide(&cut, &memory(&[3])), words);
    cut.deleted.insert(3);
    escalates(&decide(&cut, &memory(&[3])), "version 3 was deleted");
}

fn with_smoke_test() -> Rollback {
    let mut policy = policy();
    policy.smoke_test = serde_json::from_value(json!({"payload": {}})).unwrap();
    policy
}

#[test]
fn a_version_that_sleeps_is_woken_where_the_policy_has_what_to_wake_it_with() {
    let known = memory(&[2, 3]);
    let mut asleep = observed();
    asleep.versions.get_mut(&3).unwrap().state = Some(State::Asleep);
    let plan = acts(decide_by(&with_smoke_test(), &asleep, &known, None));
    assert!(
        matches!(
            plan.step,
            Step::Point {
                to: 3,
                wakes: true,
                ..
            }
        ),
        "{plan:?}"
    );
    let plan = acts(decide(&asleep, &known));
    assert!(
        matches!(
            plan.step,
            Step::Point {
                to: 2,
                wakes: false,
                ..
            }
        ),
        "{plan:?}"
    );
    assert!(plan.skipped[1].starts_with("version 3 sleeps (Inactive)"));
    escalates(
        &decide(&asleep, &memory(&[3])),
        "version 3 sleeps (Inactive): it fails until it was invoked once, and the policy has no smoke_test",
    );
    asleep.deployment = Some(Deployment {
        target: Some(5),
        ..deployment(false)
    });
    let planned = decide_by(&with_smoke_test(), &asleep, &memory(&[3]), None);
    escalates(&planned, "is not woken while a deployment is in flight");
}

#[test]
fn a_version_that_is_pending_is_waited_for() {
    let mut waking = observed();
    waking.versions.get_mut(&3).unwrap().state = Some(State::Pending);
    let begun = acts(decide(&observed(), &memory(&[3])));
    for begun in [None, Some(&begun)] {
        waits(
            &decide_begun(&waking, &memory(&[2, 3]), begun),
            "version 3, to go back to, is Pending",
        );
    }
}

/// A list of versions tells no state, and is no proof that one can be invoked.
#[test]
fn a_version_whose_state_was_not_read_is_not_chosen() {
    let mut listed = observed();
    listed.versions.get_mut(&3).unwrap().state = None;
    let planned = decide(&listed, &memory(&[3]));
    escalates(&planned, "version 3 is in a state that was not read");
}

#[test]
fn the_states_of_those_within_reach_are_read_and_of_no_others() {
    let mut few = policy();
    few.way_back.max_versions = std::num::NonZeroU32::new(2).unwrap();
    let mut known = memory(&[1, 2, 3, 4, 7]);
    let looked = |known: &Memory, observed: &Observed| -> Vec<u64> {
        to_look_up(observed, &few, known).into_iter().collect()
    };
    assert_eq!(looked(&known, &observed()), [3, 4, 5]);
    known.serving.as_mut().unwrap().before = Some(1);
    assert_eq!(looked(&known, &observed()), [1, 3, 4, 5]);
    assert_eq!(looked(&Memory::default(), &observed()), [5]);
    assert_eq!(looked(&known, &with_canary()), [0_u64; 0]);
}

#[test]
fn a_version_that_served_well_since_it_took_over_is_not_blamed_for_what_began_later() {
    let mut known = memory(&[3]);
    let attested = |minutes| Attested {
        at: now() - TimeDelta::minutes(minutes),
        traffic: traffic(5_000, 3),
    };
    known.good.insert(5, attested(10));
    escalates(&decide(&observed(), &known), "version 5 served well at");
    // What it was seen to do when it served before says nothing of this time.
    known.good.insert(5, attested(60));
    assert_eq!(acts(decide(&observed(), &known)).to(), 3);
}

#[test]
fn one_incident_sees_one_rollback() {
    let mut known = memory(&[3]);
    known.last = Some(RolledBack {
        incident_id: INCIDENT.into(),
        from: 6,
        to: 5,
        at: now(),
        went: Went::AllTheWay,
    });
    does_nothing(&decide(&observed(), &known), "in this incident already");
    let last = known.last.as_mut().unwrap();
    last.incident_id = "inc-0".into();
    last.to = 4;
    assert_eq!(acts(decide(&observed(), &known)).to(), 3);
}

#[test]
fn what_a_rollback_brought_back_is_no_new_version() {
    let mut known = memory(&[3]);
    known.last = Some(RolledBack {
        incident_id: "inc-0".into(),
        from: 6,
        to: 5,
        at: now(),
        went: Went::AllTheWay,
    });
    does_nothing(
        &decide(&observed(), &known),
        "the errors have another cause",
    );
}

#[test]
fn an_attempt_that_died_after_the_move_is_concluded() {
    let begun = acts(decide(&observed(), &memory(&[3])));
    let mut moved = observed();
    moved.alias.version = 3;
    moved.alias.revision_id = "rev-2".into();
    let again = decide_begun(&moved, &memory(&[3]), Some(&begun));
    assert_eq!(acts(again), begun);
}

#[test]
fn an_attempt_that_died_before_the_move_is_planned_anew() {
    let begun = acts(decide(&observed(), &memory(&[3])));
    let mut worse = observed();
    worse.total = traffic(400, 300);
    let again = acts(decide_begun(&worse, &memory(&[3]), Some(&begun)));
    assert!(matches!(again.step, Step::Point { to: 3, .. }));
    assert!(again.why.contains("300 errors in 400"), "{}", again.why);
}

/// Whether the dead attempt had moved the alias cannot be told.
#[test]
fn what_another_hand_did_after_an_attempt_died_is_left() {
    let begun = acts(decide(&observed(), &memory(&[3])));
    let mut changed = observed();
    changed.alias.revision_id = "rev-3".into();
    escalates(
        &decide_begun(&changed, &memory(&[3]), Some(&begun)),
        "another hand has changed the alias since",
    );
}

#[test]
fn a_version_is_attested_once_it_has_served_well_alone() {
    let mut healthy = observed();
    healthy.total = traffic(1_000, 3);
    let lesson = learn(&healthy, &policy(), None, now()).unwrap();
    let known = &lesson.memory;
    assert_eq!(known.serving.as_ref().unwrap().version, 5);
    assert!(known.good.is_empty(), "it may have served a moment only");

    let later = now() + TimeDelta::minutes(5);
    let lesson = learn(&healthy, &policy(), Some(&lesson.memory), later).unwrap();
    let known = &lesson.memory;
    assert!(known.good.contains_key(&5), "{}", lesson.summary);
    assert_eq!(
        learn(&healthy, &policy(), Some(&lesson.memory), later),
        None
    );

    let mut failing = healthy.clone();
    failing.total = traffic(1_000, 30);
    assert_eq!(learn(&failing, &policy(), Some(&memory(&[])), later), None);
    assert_eq!(learn(&with_canary(), &policy(), None, later), None);
}

/// A version with few invocations proves itself too, only later; a busy one is judged by its window.
#[test]
fn a_version_with_little_traffic_is_attested_over_a_longer_time() {
    let mut quiet = deployed(&[(60, 50, 50), (20, 4, 0)]);
    let known = memory(&[]);
    assert_eq!(quiet.total, traffic(20, 0));
    assert_eq!(
        learn(&quiet, &policy(), Some(&known), now()),
        None,
        "80 in 20 minutes"
    );
    quiet.minutes.alias = minutes(&[(60, 50, 50), (20, 6, 0)]);
    let lesson = learn(&quiet, &policy(), Some(&known), now()).unwrap();
    assert_eq!(lesson.memory.good[&5].traffic, traffic(102, 0));
    let mut short = policy();
    short.attestation.max_window_seconds = std::num::NonZeroU32::new(600).unwrap();
    assert_eq!(learn(&quiet, &short, Some(&known), now()), None);
    quiet.minutes.alias = minutes(&[(60, 50, 50), (20, 6, 1)]);
    assert_eq!(learn(&quiet, &policy(), Some(&known), now()), None);
}

/// One alarm is back at OK, and another may not be.
#[test]
fn nothing_is_attested_on_an_alarms_event_or_while_the_api_or_an_event_source_fails() {
    let mut healthy = observed();
    healthy.total = traffic(1_000, 3);
    let known = memory(&[]);
    assert!(learn(&healthy, &policy(), Some(&known), now()).is_some());
    healthy.minutes.api = minutes(&[(5, 100, 2)]);
    assert_eq!(learn(&healthy, &policy(), Some(&known), now()), None);
    healthy.minutes.api.clear();
    let failing = (
        "arn:aws:sqs:eu-west-1:123456789012:orders".to_owned(),
        minutes(&[(5, 100, 2)]),
    );
    healthy.minutes.event_sources = BTreeMap::from([failing]);
    assert_eq!(learn(&healthy, &policy(), Some(&known), now()), None);
    healthy.minutes.event_sources.clear();
    healthy.scheduled = false;
    assert_eq!(learn(&healthy, &policy(), Some(&known), now()), None);
}

/// Whether or not the schedule saw the version that the rollback brought.
#[test]
fn a_version_that_a_human_restored_after_a_rollback_is_forgiven() {
    let unseen = memory(&[3, 5]).with(RolledBack {
        incident_id: INCIDENT.into(),
        from: 5,
        to: 3,
        at: now(),
        went: Went::AllTheWay,
    });
    assert!(!unseen.good.contains_key(&5) && unseen.bad.contains_key(&5));
    let mut rolled_back = observed();
    rolled_back.alias.version = 3;
    rolled_back.total = traffic(1_000, 0);
    let seen = learn(&rolled_back, &policy(), Some(&unseen), now()).unwrap();
    assert!(seen.memory.bad.contains_key(&5), "nobody restored it yet");
    let mut restored = observed();
    restored.total = traffic(1_000, 0);
    let later = now() + TimeDelta::minutes(5);
    for known in [unseen, seen.memory] {
        let lesson = learn(&restored, &policy(), Some(&known), later).unwrap();
        let told = "version 5 was brought back after it was gone back from";
        assert!(lesson.summary.contains(told), "{}", lesson.summary);
        let known = &lesson.memory;
        assert!(!known.bad.contains_key(&5) && !known.good.contains_key(&5));
        assert_eq!(known.serving.as_ref().unwrap().since, later);
        let proved = later + TimeDelta::minutes(5);
        let lesson = learn(&restored, &policy(), Some(known), proved).unwrap();
        assert!(lesson.memory.good.contains_key(&5), "{}", lesson.summary);
    }
}

#[test]
fn the_way_back_is_as_short_as_the_policy_wants() {
    let mut known = memory(&[1, 2, 3, 4]);
    known.serving.as_mut().unwrap().before = Some(4);
    let mut all = observed();
    all.versions.get_mut(&4).unwrap().state = Some(unable());
    let old = Attested {
        at: now() - TimeDelta::days(31),
        traffic: traffic(5_000, 3),
    };
    known.good.insert(3, old.clone());
    let plan = acts(decide(&all, &known));
    assert_eq!(plan.to(), 2);
    assert_eq!(
        plan.skipped,
        [
            "version 4 is Failed: its subnet is gone",
            "version 3 was seen to serve well 744 h ago, longer than way_back.max_age_seconds 2592000",
        ]
    );
    all.versions.get_mut(&2).unwrap().state = Some(unable());
    assert_eq!(acts(decide(&all, &known)).to(), 1);
    let mut nearer = policy();
    nearer.way_back.max_versions = std::num::NonZeroU32::new(3).unwrap();
    escalates(
        &decide_by(&nearer, &all, &known, None),
        "version 1 is farther back than way_back.max_versions 3",
    );
    // The one that served just before is the way back, however quiet the time since it was seen.
    known.serving.as_mut().unwrap().before = Some(3);
    assert_eq!(acts(decide(&all, &known)).to(), 3);
    known.serving = Some(Serving {
        version: 3,
        since: now() - TimeDelta::days(60),
        before: None,
    });
    assert_eq!(acts(decide(&all, &known)).to(), 3);
}

#[test]
fn of_many_versions_that_will_not_do_the_newest_are_told() {
    let mut many = observed();
    let first = many.versions[&1].clone();
    many.alias.version = 101;
    many.versions = (1..=101)
        .map(|number| {
            (
                number,
                Version {
                    number,
                    ..first.clone()
                },
            )
        })
        .collect();
    many.versions.get_mut(&101).unwrap().code_sha256 = "bad".into();
    let planned = decide(&many, &Memory::default());
    escalates(
        &planned,
        "no earlier version has been seen to serve well: version 100 was",
    );
    escalates(
        &planned,
        "version 81 was not seen to serve well, and 80 older ones; choose",
    );
}

fn situations() -> impl Strategy<Value = (Observed, Memory)> {
    let version = (
        prop::sample::select(vec!["sha-a", "sha-b", "sha-c"]),
        prop::sample::select(vec![
            Some(State::Active),
            Some(State::Pending),
            Some(State::Asleep),
            Some(unable()),
            None,
        ]),
    );
    (
        prop::collection::btree_map(1_u64..8, version, 0..7),
        1_u64..8,
        prop::collection::btree_map(1_u64..8, 0.01_f64..0.9, 0..2),
        prop::collection::btree_map(1_u64..8, (0_u64..300, 0_u64..300), 0..7),
        (0_u64..300, 0_u64..300),
        prop::collection::btree_set(1_u64..8, 0..7),
        prop::collection::btree_set(1_u64..8, 0..4),
        (prop::option::of(any::<bool>()), prop::bool::weighted(0.1)),
    )
        .prop_map(
            |(
                versions,
                current,
                mut weights,
                by_version,
                total,
                good,
                bad,
                (deploying, allocating),
            )| {
                weights.remove(&current);
                let provisioned = if allocating {
                    Provisioned::Allocating
                } else {
                    Provisioned::None
                };
                let served = |(invocations, errors): (u64, u64)| {
                    traffic(invocations, errors.min(invocations))
                };
                let observed = Observed {
                    more_versions: false,
                    deleted: BTreeSet::new(),
                    alias: Alias {
                        version: current,
                        weights,
                        revision_id: "rev-1".into(),
                    },
                    versions: versions
                        .into_iter()
                        .map(|(number, (code, state))| {
                            let version = Version {
                                configuration: "settings".into(),
                                in_common: "role".into(),
                                number,
                                code_sha256: code.into(),
                                published_at: Some(now() - TimeDelta::hours(1)),
                                state,
                            };
                            (number, version)
                        })
                        .collect(),
                    by_version: by_version
                        .into_iter()
                        .map(|(number, figures)| (number, served(figures)))
                        .collect(),
                    total: served(total),
                    minutes: Served::default(),
                    scheduled: true,
                    deployment: deploying.map(deployment),
                    provisioned,
                    used_by: Vec::new(),
                    uncounted: Vec::new(),
                    stack: None,
                };
                let mut known = memory(&good.into_iter().collect::<Vec<_>>());
                for number in bad {
                    known.bad.insert(
                        number,
                        Condemned {
                            at: now(),
                            incident_id: Some("inc-0".into()),
                        },
                    );
                }
                (observed, known)
            },
        )
}

proptest! {
    /// Whatever is observed and remembered: the traffic never goes where it must not.
    #[test]
    fn no_situation_leads_to_a_version_that_must_not_serve((observed, known) in situations()) {
        if let Planned::Act { plan, .. } = decide(&observed, &known) {
            let blamed = observed.traffic_of(plan.from);
            prop_assert!(blamed.invocations >= 20 && blamed.error_percent() >= 5.0);
            prop_assert!(plan.to() != plan.from);
            prop_assert!(!observed.is_allocating());
            let deployment = observed.deployment.as_ref();
            prop_assert!(deployment.is_none_or(|deployment| !deployment.rolls_back));
            let beside = observed.alias.weights.contains_key(&plan.to());
            prop_assert!(plan.to() <= observed.alias.version || !beside, "nothing is rolled forward");
            if plan.to() != observed.alias.version && !beside {
                let target = observed.versions.get(&plan.to()).unwrap();
                let wakes = matches!(plan.step, Step::Point { wakes: true, .. });
                let state = if wakes { State::Asleep } else { State::Active };
                prop_assert_eq!(target.state.as_ref(), Some(&state));
                prop_assert!(known.good.contains_key(&plan.to()));
                prop_assert!(!known.bad.contains_key(&plan.to()));
                prop_assert!(plan.to() < plan.from, "a rollback does not go forward");
                let bad = observed.versions.get(&plan.from).map(|version| &version.code_sha256);
                prop_assert!(bad != Some(&target.code_sha256));
            }
        }
    }

    /// Whatever both versions served: the good one gets more only where it does better, and gives its share back only
    /// where it had its chance.
    #[test]
    fn no_figures_give_a_version_more_that_does_no_better(
        (bad, bad_errors, good, good_errors) in (0_u64..300, 0_u64..300, 0_u64..300, 0_u64..300),
        minutes_ago in 0_i64..30,
        percent in prop::sample::select(vec![10_u8, 50]),
    ) {
        let bad = traffic(bad, bad_errors.min(bad));
        let good = traffic(good, good_errors.min(good));
        let (mut observed, mut progress) = shifted(minutes_ago, bad, good);
        observed.alias.weights = BTreeMap::from([(3, f64::from(percent) / 100.0)]);
        progress.percent = percent;
        let fair = minutes_ago >= 1 && bad.invocations >= 20 && good.invocations >= 20;
        match next_step(&observed, &progress) {
            Step::Shift { .. } | Step::Point { .. } => {
                prop_assert!(fair && minutes_ago >= 5 && bad.error_percent() >= 5.0);
                prop_assert!(good.error_percent() + 5.0 <= bad.error_percent());
            }
            Step::Unshift { .. } => {
                prop_assert!(minutes_ago >= 15 || fair && good.error_percent() >= 5.0);
            }
            Step::Watch { until, .. } => {
                prop_assert!(minutes_ago < 15 && until > now());
            }
            Step::StopDeployment { .. } => prop_assert!(false, "there is none"),
        }
    }
}
