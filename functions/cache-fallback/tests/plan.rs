//! When caching is of use and safe, and that the stage comes back as it was: a table, and a property over what a human
//! changes meanwhile.

// Clippy takes helpers outside of a #[test] for production code.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "given/stage.rs"]
mod given;

use cache_fallback::CacheFallback;
use cache_fallback::plan::{
    Caching, Observed, Others, Plan, Put, Served, Setting, Snapshot, Stage, Status, calls,
    in_place, key, named, not_yet, restoration,
};
use cache_fallback::policy::{Cache, Method};
use proptest::prelude::*;
use serde_json::json;
use shared::remediation::{Planned, PlannedBy};

use given::{
    CACHED, UNCACHED, acts, bare, decide as decide_under, defaults, method, observed, patched,
    policy_of, setting, throttled,
};

fn policy() -> Cache {
    policy_of(&json!([{"path": "/orders"}, {"path": "/orders/{id}", "methods": ["GET"]}]))
}

fn decide(observed: &Observed, begun: Option<&Plan>) -> PlannedBy<CacheFallback> {
    decide_with(observed, begun, None)
}

fn decide_with(
    observed: &Observed,
    begun: Option<&Plan>,
    held: Option<&Snapshot>,
) -> PlannedBy<CacheFallback> {
    decide_under(&policy(), observed, begun, held)
}

/// How a plan caches.
fn caching(plan: &Plan) -> Caching {
    match &plan.put {
        Put::Cache(put) => put.caching,
        Put::Throttle(_) => panic!("{plan:?}"),
    }
}

fn escalates(observed: &Observed, words: &str) {
    match decide(observed, None) {
        Planned::Escalate { reason, .. } => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// Two deployments behind one cache, of which the export tells one.
#[test]
fn a_stage_with_a_canary_is_not_cached() {
    let mut canary = observed();
    canary.stage.canary = true;
    escalates(&canary, "serves two deployments (canarySettings)");
}

#[test]
fn a_method_is_told_as_it_was_written() {
    let keys = [key("/orders/{id}", "GET"), key("/a~1b", "HEAD")];
    assert_eq!(keys[1], "~1a~01b/HEAD");
    assert_eq!(named(&keys), "GET /orders/{id}, HEAD /a~1b");
}

#[test]
fn the_named_methods_are_cached_and_no_other() {
    let (plan, snapshot) = acts(decide(&observed(), None));
    assert_eq!(plan.put.keys(), ["~1orders/GET", "~1orders~1{id}/GET"]);
    assert_eq!(plan.patches[0].path, "/~1orders/GET/caching/enabled");
    let after = patched(&observed().stage, &plan.patches);
    assert!(in_place(&after, &plan.put));
    assert_eq!(after.cluster.as_deref(), Some("0.5"));
    assert_eq!(after.settings.len(), 2);
    // What is turned on last is what makes it cost and take effect.
    assert_eq!(plan.patches.last().unwrap().path, "/cacheClusterSize");
    let back = restoration(&after, &snapshot.unwrap());
    assert_eq!(patched(&after, &back.patches), observed().stage);
    assert!(back.left_alone.is_empty());
}

#[test]
fn a_method_keeps_what_the_stage_sets_for_every_method() {
    let mut observed = observed();
    let setting = Setting {
        caching: UNCACHED,
        others: throttled(),
    };
    observed.stage.settings.insert("*/*".into(), setting);
    let (plan, _) = acts(decide(&observed, None));
    let after = patched(&observed.stage, &plan.patches);
    assert_eq!(after.settings["~1orders/GET"].others, throttled());
}

#[test]
fn what_was_noted_before_there_was_a_way_for_clients_without_permission_is_still_read() {
    let mut noted = serde_json::to_value(throttled()).unwrap();
    noted.as_object_mut().unwrap().remove("without_permission");
    let read: Others = serde_json::from_value(noted).unwrap();
    assert_eq!(read.without_permission, None);
}

#[test]
fn an_answer_that_could_reach_another_client_is_never_cached() {
    let mut unkeyed = observed();
    unkeyed.methods[2].cache_key.clear();
    escalates(
        &unkeyed,
        "GET /orders/{id} cannot be cached: its cache key lacks method.request.path.id",
    );
    let mut authorized = observed();
    authorized.methods[0].inputs = vec!["method.request.header.Authorization".into()];
    escalates(
        &authorized,
        "GET /orders cannot be cached: its cache key lacks method.request.header.Authorization",
    );
    let mut signed = observed();
    signed.methods[0].unkeyable = Some("it is signed".into());
    escalates(&signed, "GET /orders cannot be cached: it is signed");
    let mut more = observed();
    more.stage
        .settings
        .insert(key("/me", "GET"), setting(CACHED));
    escalates(&more, "the settings of ~1me/GET have caching on");
    let mut gone = observed();
    gone.methods.pop();
    escalates(&gone, "the API has no method GET /orders/{id}");
}

#[test]
fn a_proxy_is_cached_only_where_the_policy_vouches_for_that_method() {
    let mut proxied = observed();
    for method in &mut proxied.methods {
        method.passes_all = Some("AWS_PROXY".into());
    }
    escalates(
        &proxied,
        "GET /orders cannot be cached: its integration is AWS_PROXY",
    );
    let vouching = |vouched: [bool; 2]| {
        let mut policy = policy();
        for (cached, vouched) in policy.resources.iter_mut().zip(vouched) {
            cached.answers_all_clients_alike = vouched;
        }
        policy
    };
    match decide_under(&vouching([true, false]), &proxied, None, None) {
        Planned::Escalate { reason, .. } => {
            assert!(reason.contains("GET /orders/{id}"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    acts(decide_under(&vouching([true, true]), &proxied, None, None));
    // What is vouched for is the request; a path parameter that the key lacks is another's answer all the same.
    proxied.methods[2].cache_key.clear();
    match decide_under(&vouching([true, true]), &proxied, None, None) {
        Planned::Escalate { reason, .. } => {
            assert!(reason.contains("its cache key lacks"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_shares_a_cache_and_what_is_no_get_is_not_cached() {
    let mut shared = observed();
    shared.methods[0].shares_cache_with = vec!["GET /invoices".into()];
    escalates(&shared, "its cache namespace is also that of GET /invoices");
    let mut any = observed();
    any.methods[0].method = "ANY".into();
    escalates(
        &any,
        "the API has no method GET at /orders (ANY is none that is cached)",
    );
    let mut both = policy();
    both.resources[0].methods = [Method::Get, Method::Head].into();
    match decide_under(&both, &observed(), None, None) {
        Planned::Escalate { reason, .. } => {
            assert!(reason.contains("cannot be cached together"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_stands_cached_at_the_same_path_is_not_joined() {
    let cached = |key: &str, other: &str| {
        let mut beside = observed();
        beside.methods.push(method("/orders", other, &[], &[]));
        beside.stage.cluster = Some("0.5".into());
        beside.stage.settings.insert(key.into(), setting(CACHED));
        beside
    };
    let words = "GET /orders cannot be cached: HEAD of the same path is cached already";
    escalates(&cached("~1orders/HEAD", "HEAD"), words);
    escalates(&cached("*/*", "ANY"), "ANY of the same path is cached");
    acts(decide(&cached("*/*", "HEAD"), None));
}

/// As many methods as one call of `UpdateStage` does not take: with the stage's settings for each, 92 changes.
fn many() -> (Observed, Cache) {
    let paths: Vec<String> = (1..=9).map(|n| format!("/p{n}")).collect();
    let mut observed = observed();
    observed.methods = paths
        .iter()
        .map(|path| method(path, "GET", &[], &[]))
        .collect();
    let setting = Setting {
        caching: UNCACHED,
        others: throttled(),
    };
    observed.stage.settings.insert("*/*".into(), setting);
    let mut policy = policy();
    policy.resources = paths
        .iter()
        .map(|path| serde_json::from_value(json!({"path": path})).unwrap())
        .collect();
    (observed, policy)
}

#[test]
fn more_changes_than_one_call_takes_go_in_several_whole_methods_each_and_the_cluster_last() {
    let (observed, policy) = many();
    let (plan, snapshot) = acts(decide_under(&policy, &observed, None, None));
    let snapshot = snapshot.unwrap();
    assert_eq!(plan.patches.len(), 92);
    let sizes: Vec<usize> = calls(&plan.patches).iter().map(|call| call.len()).collect();
    assert_eq!(sizes, [80, 12]);
    // An attempt that died after any of its calls is taken up, by its retry and by another alarm.
    let first = patched(&observed.stage, calls(&plan.patches)[0]);
    let half = Observed {
        stage: first.clone(),
        ..observed.clone()
    };
    for begun in [Some(&plan), None] {
        let (again, _) = acts(decide_under(&policy, &half, begun, Some(&snapshot)));
        assert_eq!(again.put, plan.put);
        assert!(in_place(&patched(&first, &again.patches), &plan.put));
    }
    // Whatever of it is there is taken back, in as many calls.
    let whole = patched(&observed.stage, &plan.patches);
    for stage in [first, whole] {
        let back = restoration(&stage, &snapshot);
        assert!(calls(&back.patches).iter().all(|call| call.len() <= 80));
        assert_eq!(patched(&stage, &back.patches), observed.stage);
        assert!(back.left_alone.is_empty(), "{back:?}");
    }
}

#[test]
fn a_backend_that_is_dead_or_not_asked_gets_no_cache() {
    let no_request = "CloudWatch counts no request";
    let maintenance = "raise the maintenance page";
    for (requests, server_errors, words) in [(0, 0, no_request), (500, 500, maintenance)] {
        let dead = Observed {
            requests,
            server_errors,
            ..observed()
        };
        match decide(&dead, None) {
            Planned::Nothing { reason } => {
                assert!(reason.contains(words), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What is being done to a cluster is over within minutes; until then the stage is left alone.
#[test]
fn a_stage_to_whose_cluster_something_is_being_done_is_looked_at_again() {
    for (status, words) in [
        (Status::Deleting, "is being deleted"),
        (Status::Creating, "is being made"),
        (Status::Flushing, "is being emptied"),
    ] {
        let mut busy = observed();
        busy.stage.status = status;
        match decide(&busy, None) {
            Planned::Undecided { reason } => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    for status in [Status::None, Status::Available, Status::Unknown] {
        let mut still = observed();
        still.stage.status = status;
        acts(decide(&still, None));
    }
}

/// A stage that is cached, and what it was before.
fn cached() -> (Stage, Snapshot) {
    let (plan, snapshot) = acts(decide(&observed(), None));
    let stage = Stage {
        status: Status::Available,
        ..patched(&observed().stage, &plan.patches)
    };
    (stage, snapshot.unwrap())
}

/// API Gateway keeps errors like any other answer.
#[test]
fn an_error_is_kept_no_longer_than_the_policy_allows_for_errors() {
    for (ttl, error_ttl, put) in [(60, 60, 60), (3_600, 60, 60), (5, 60, 5), (600, 300, 300)] {
        let mut policy = policy();
        policy.ttl_seconds = ttl.try_into().unwrap();
        policy.error_ttl_seconds = error_ttl.try_into().unwrap();
        let (plan, _) = acts(decide_under(&policy, &observed(), None, None));
        assert_eq!(caching(&plan).ttl_seconds, put);
    }
}

#[test]
fn the_cache_stays_while_what_it_does_not_answer_fails() {
    let (stage, snapshot) = cached();
    let served = |requests, server_errors, cache_hits| Served {
        requests,
        server_errors,
        cache_hits,
        client_errors: 0,
    };
    let why = |served| not_yet(&stage, &snapshot, served, &policy());
    // 2 in 100 for the alarm, 2 in 10 for the backend.
    let told = why(served(100, 2, 90)).unwrap();
    assert!(
        told.contains("2 of the 10 others ended in a server error"),
        "{told}"
    );
    // An error that the cache keeps is counted with each answer, and counts as no more than all.
    let told = why(served(100, 60, 90)).unwrap();
    assert!(told.contains("10 of the 10"), "{told}");
    assert!(why(served(1_000, 50, 0)).is_some());
    for well in [
        (1_000, 49, 0),
        (1_000, 4, 900),
        (100, 0, 90),
        (100, 5, 100),
        (0, 0, 0),
    ] {
        assert_eq!(why(served(well.0, well.1, well.2)), None, "{well:?}");
    }
    let all_fail = served(10, 10, 0);
    // What is not there cannot stay.
    let undone = not_yet(&observed().stage, &snapshot, all_fail, &policy());
    assert_eq!(undone, None);
    let mut busy = stage.clone();
    for (status, words) in [
        (Status::Creating, "being made"),
        (Status::Flushing, "being emptied"),
    ] {
        busy.status = status;
        let told = not_yet(&busy, &snapshot, served(0, 0, 0), &policy()).unwrap();
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn what_is_cached_already_is_in_place() {
    let (plan, _) = acts(decide(&observed(), None));
    let after = Observed {
        stage: patched(&observed().stage, &plan.patches),
        ..observed()
    };
    assert!(matches!(decide(&after, None), Planned::InPlace { .. }));
    // An attempt that died after the call is concluded, without another snapshot.
    let again = acts(decide(&after, Some(&plan)));
    assert_eq!(again, (plan, None));
}

/// The answer that what is there stays, and why.
fn stays(planned: PlannedBy<CacheFallback>) -> String {
    match planned {
        Planned::InPlace { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_that_changes_meanwhile_counts_from_the_next_fallback() {
    let (plan, snapshot) = acts(decide(&observed(), None));
    let snapshot = snapshot.unwrap();
    let after = Observed {
        stage: patched(&observed().stage, &plan.patches),
        ..observed()
    };
    let mut policies = [policy(), policy(), policy()];
    policies[0].ttl_seconds = 7.try_into().unwrap();
    policies[1].resources.pop();
    policies[2].resources[0].path = "/gone".into();
    for policy in policies {
        let reason = stays(decide_under(&policy, &after, None, Some(&snapshot)));
        assert!(
            reason.contains("kept as it was put, cached: GET /orders, GET /orders/{id}"),
            "{reason}"
        );
    }
    let back = restoration(&after.stage, &snapshot);
    assert!(back.left_alone.is_empty(), "{:?}", back.left_alone);
    let restored = patched(&after.stage, &back.patches);
    assert_eq!(restored, observed().stage);
}

#[test]
fn a_policy_that_changes_before_the_retry_of_a_death_puts_nothing_that_could_not_be_restored() {
    let (plan, snapshot) = acts(decide(&observed(), None));
    let (begun, snapshot) = (plan.clone(), snapshot.unwrap());
    let mut policy = policy();
    let retried = decide_under(&policy, &observed(), Some(&begun), Some(&snapshot));
    assert_eq!(acts(retried).0, plan);
    policy.ttl_seconds = 7.try_into().unwrap();
    match decide_under(&policy, &observed(), Some(&begun), Some(&snapshot)) {
        Planned::Escalate { reason, .. } => assert!(reason.contains("starts anew"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// What is served may call for the other lever by the time of the retry; what was noted is still that of the first.
#[test]
fn a_retry_keeps_to_the_lever_that_the_first_attempt_chose() {
    let mut policy = policy();
    policy.throttle =
        Some(serde_json::from_value(json!({"rate_limit": 5, "burst_limit": 5})).unwrap());
    let some_succeed = observed();
    let none_succeeds = Observed {
        server_errors: some_succeed.requests,
        ..observed()
    };
    for (first, retried) in [
        (&some_succeed, &none_succeeds),
        (&none_succeeds, &some_succeed),
    ] {
        let (plan, snapshot) = acts(decide_under(&policy, first, None, None));
        let snapshot = snapshot.unwrap();
        let again = decide_under(&policy, retried, Some(&plan), Some(&snapshot));
        assert_eq!(acts(again).0.put, plan.put);
    }
}

#[test]
fn another_alarm_does_not_overwrite_what_a_human_changed() {
    let (plan, snapshot) = acts(decide(&observed(), None));
    let snapshot = snapshot.unwrap();
    let begun = plan.clone();
    let cached = patched(&observed().stage, &plan.patches);
    let mut retuned = cached.clone();
    let orders = retuned.settings.get_mut("~1orders/GET").unwrap();
    orders.caching.ttl_seconds = 7;
    let mut removed = cached.clone();
    removed.settings.remove("~1orders/GET");
    let off = Stage {
        cluster: None,
        ..cached.clone()
    };
    let resized = Stage {
        cluster: Some("6.1".into()),
        ..cached
    };
    let cases = [
        (retuned, "the caching of ~1orders/GET was changed by hand"),
        (removed, "the caching of ~1orders/GET was changed by hand"),
        (off, "the cache cluster was changed by hand"),
        (resized, "the cache cluster was changed by hand"),
    ];
    for (stage, words) in cases {
        let after = Observed {
            stage,
            ..observed()
        };
        for begun in [None, Some(&begun)] {
            let reason = stays(decide_with(&after, begun, Some(&snapshot)));
            assert!(reason.contains(words), "{reason}");
        }
    }
}

#[test]
fn what_a_human_undid_stays_undone_and_what_was_never_put_is_put() {
    let (plan, snapshot) = acts(decide(&observed(), None));
    let snapshot = snapshot.unwrap();
    let reason = stays(decide_with(&observed(), None, Some(&snapshot)));
    assert!(reason.contains("undone by hand"), "{reason}");
    // The attempt that died before its call.
    let begun = plan.clone();
    let retried = acts(decide_with(&observed(), Some(&begun), Some(&snapshot)));
    assert_eq!(retried.0, plan);
}

#[test]
fn what_a_human_changed_stays_and_is_told() {
    let (plan, snapshot) = acts(decide(&observed(), None));
    let snapshot = snapshot.unwrap();
    let mut after = patched(&observed().stage, &plan.patches);
    after
        .settings
        .get_mut("~1orders/GET")
        .unwrap()
        .caching
        .ttl_seconds = 30;
    let other = after.settings.get_mut("~1orders~1{id}/GET").unwrap();
    other.others.burst_limit = 7;
    let back = restoration(&after, &snapshot);
    let restored = patched(&after, &back.patches);
    assert_eq!(
        restored.settings["~1orders/GET"],
        after.settings["~1orders/GET"]
    );
    let other = &restored.settings["~1orders~1{id}/GET"];
    assert_eq!(
        (other.caching.enabled, other.others.burst_limit),
        (false, 7)
    );
    // The human's caching needs the cluster.
    assert_eq!(restored.cluster, after.cluster);
    assert_eq!(back.left_alone.len(), 3, "{:?}", back.left_alone);
}

fn settings() -> impl Strategy<Value = Setting> {
    let caching = (
        any::<bool>(),
        prop_oneof![Just(60), Just(300)],
        any::<bool>(),
    );
    let others = prop_oneof![Just(defaults()), Just(throttled())];
    (caching, others).prop_map(|((enabled, ttl_seconds, encrypted), others)| Setting {
        caching: Caching {
            enabled,
            ttl_seconds,
            encrypted,
            require_authorization: true,
        },
        others,
    })
}

fn stages() -> impl Strategy<Value = Stage> {
    let keys = prop_oneof![
        Just("*/*".to_owned()),
        Just("~1orders/GET".to_owned()),
        Just("~1orders~1{id}/GET".to_owned()),
        Just("~1other/GET".to_owned()),
    ];
    let cluster = proptest::option::of(prop_oneof![Just("0.5".to_owned()), Just("6.1".to_owned())]);
    (
        cluster,
        proptest::collection::btree_map(keys, settings(), 0..4),
    )
        .prop_map(|(cluster, settings)| Stage {
            status: if cluster.is_some() {
                Status::Available
            } else {
                Status::None
            },
            cluster,
            settings,
            ..bare()
        })
}

proptest! {
    /// Whatever was there comes back exactly, however often it is restored; attempts that died change nothing.
    #[test]
    fn restoring_gives_back_what_was_there(stage in stages(), twice in any::<bool>()) {
        let before = Observed { stage: stage.clone(), ..observed() };
        if let Planned::Act { plan, snapshot } = decide(&before, None) {
            let snapshot = snapshot.unwrap();
            let mut after = patched(&stage, &plan.patches);
            if twice {
                after = patched(&after, &plan.patches);
            }
            prop_assert!(in_place(&after, &plan.put));
            let back = restoration(&after, &snapshot);
            prop_assert!(back.left_alone.is_empty(), "{:?}", back.left_alone);
            let restored = patched(&after, &back.patches);
            prop_assert_eq!(&restored.cluster, &stage.cluster);
            prop_assert_eq!(&restored.settings, &stage.settings);
            let again = restoration(&restored, &snapshot);
            prop_assert_eq!(&again.patches, &Vec::new());
        }
    }

    /// What a human put is there afterwards.
    #[test]
    fn a_humans_setting_survives(stage in stages(), human in settings()) {
        let before = Observed { stage: stage.clone(), ..observed() };
        if let Planned::Act { plan, snapshot } = decide(&before, None) {
            let snapshot = snapshot.unwrap();
            let mut after = patched(&stage, &plan.patches);
            prop_assume!(human.caching != caching(&plan));
            after.settings.insert("~1orders/GET".into(), human.clone());
            after.settings.insert("~1human/GET".into(), human.clone());
            let restored = patched(&after, &restoration(&after, &snapshot).patches);
            prop_assert_eq!(&restored.settings["~1orders/GET"], &human);
            prop_assert_eq!(&restored.settings["~1human/GET"], &human);
            if human.caching.enabled {
                prop_assert!(restored.cluster.is_some());
            }
        }
    }
}
