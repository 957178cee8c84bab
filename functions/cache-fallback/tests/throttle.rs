//! Lower limits where nothing may be cached: never to none, never higher than they are, and exactly back.

// Clippy takes helpers outside of a #[test] for production code.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "given/stage.rs"]
mod given;

use cache_fallback::plan::{
    Observed, Plan, Put, Served, Setting, Snapshot, Stage, in_place, not_yet, restoration,
};
use cache_fallback::policy::Cache;
use cache_fallback::throttle::Limits;
use proptest::prelude::*;
use serde_json::{Value, json};
use shared::remediation::Planned;

use given::{
    CACHED, UNCACHED, acts, decide, defaults, observed, patched, policy_of, setting, throttled,
};

/// A policy that throttles and never caches.
fn policy() -> Cache {
    throttling(&json!({"rate_limit": 100, "burst_limit": 50}), false)
}

fn throttling(throttle: &Value, cache: bool) -> Cache {
    let mut policy = policy_of(&json!([{"path": "/orders"}, {"path": "/orders/{id}"}]));
    policy.cache = cache;
    policy.throttle = Some(serde_json::from_value(throttle.clone()).unwrap());
    policy
}

fn whole_stage() -> Cache {
    throttling(
        &json!({"rate_limit": 100, "burst_limit": 50, "every_method": true}),
        false,
    )
}

fn limited(burst: i32, rate: f64) -> Setting {
    let mut setting = setting(UNCACHED);
    setting.others.burst_limit = burst;
    setting.others.rate_limit = rate;
    setting
}

fn on(settings: &[(&str, Setting)]) -> Observed {
    let mut observed = observed();
    let settings = settings.iter().cloned();
    observed.stage.settings = settings.map(|(key, it)| (key.to_owned(), it)).collect();
    observed
}

/// What the stage is once a plan was carried out, and the state before.
fn done(observed: &Observed, policy: &Cache) -> (Plan, Stage, Snapshot) {
    let (plan, snapshot) = acts(decide(policy, observed, None, None));
    let after = patched(&observed.stage, &plan.patches);
    assert!(in_place(&after, &plan.put));
    (plan, after, snapshot.unwrap())
}

fn limits(stage: &Stage, key: &str) -> (i32, f64) {
    let Limits { burst, rate } = Limits::of(&stage.settings[key]);
    (burst, rate)
}

#[test]
fn the_named_methods_are_throttled_and_come_back_exactly() {
    let before = on(&[("~1orders~1{id}/GET", limited(5_000, 10_000.0))]);
    let (plan, after, snapshot) = done(&before, &policy());
    assert_eq!(plan.put.told(), "throttled: GET /orders, GET /orders/{id}");
    assert_eq!(after.settings.len(), 2);
    assert_eq!(limits(&after, "~1orders/GET"), (50, 100.0));
    assert_eq!(limits(&after, "~1orders~1{id}/GET"), (50, 100.0));
    let back = restoration(&after, &snapshot);
    assert!(back.left_alone.is_empty(), "{back:?}");
    assert_eq!(patched(&after, &back.patches), before.stage);
}

#[test]
fn no_limit_is_raised_and_one_that_is_low_enough_is_left_as_it_is() {
    let orders = ("~1orders/GET", limited(20, 1_000.0));
    let order = ("~1orders~1{id}/GET", limited(0, 0.0));
    let before = on(&[orders, order]);
    let (plan, after, _) = done(&before, &policy());
    assert_eq!(plan.put.keys(), ["~1orders/GET"]);
    assert_eq!(limits(&after, "~1orders/GET"), (20, 100.0));
    assert_eq!(limits(&after, "~1orders~1{id}/GET"), (0, 0.0));
    // A -1 of its own takes the stage's.
    let own = ("~1orders/GET", limited(-1, -1.0));
    let low = on(&[("*/*", limited(10, 10.0)), own]);
    match decide(&policy(), &low, None, None) {
        Planned::Nothing { reason } => {
            assert!(reason.contains("throttled at least as low"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_method_keeps_what_the_stage_sets_for_every_method() {
    let every = Setting {
        caching: CACHED,
        others: given::throttled(),
    };
    let before = on(&[("*/*", every.clone())]);
    let policy = throttling(&json!({"rate_limit": 5, "burst_limit": 5}), false);
    let (_, after, snapshot) = done(&before, &policy);
    let own = &after.settings["~1orders/GET"];
    assert_eq!(own.caching, every.caching);
    assert_eq!(own.others.log_level, throttled().log_level);
    assert_eq!(limits(&after, "~1orders/GET"), (5, 5.0));
    let back = restoration(&after, &snapshot);
    assert_eq!(patched(&after, &back.patches), before.stage);
}

#[test]
fn the_whole_stage_is_throttled_where_the_policy_says_so_with_the_settings_that_go_around_it() {
    let before = on(&[("~1me/POST", limited(400, 400.0))]);
    let (plan, after, snapshot) = done(&before, &whole_stage());
    assert_eq!(plan.put.keys(), ["*/*", "~1me/POST"]);
    assert_eq!(
        plan.put.told(),
        "throttled: every method without settings of its own, POST /me"
    );
    assert_eq!(after.settings.len(), 2);
    let back = restoration(&after, &snapshot);
    assert!(back.left_alone.is_empty(), "{back:?}");
    assert_eq!(patched(&after, &back.patches), before.stage);
}

#[test]
fn where_both_are_named_what_may_be_cached_is_and_what_may_not_is_throttled_with_the_reason() {
    let policy = throttling(&json!({"rate_limit": 100, "burst_limit": 50}), true);
    let (plan, _) = acts(decide(&policy, &observed(), None, None));
    assert!(matches!(plan.put, Put::Cache(_)), "{plan:?}");
    let mut signed = observed();
    signed.methods[0].unkeyable = Some("it is signed".into());
    let mut canary = observed();
    canary.stage.canary = true;
    let dead = Observed {
        server_errors: 1_000,
        ..observed()
    };
    for (observed, words) in [
        (
            signed,
            "; throttled, not cached: GET /orders cannot be cached: it is signed",
        ),
        (canary, "; throttled, not cached: arn:aws"),
        (dead, "; throttled, not cached: none succeeded"),
    ] {
        let (plan, _) = acts(decide(&policy, &observed, None, None));
        assert!(matches!(plan.put, Put::Throttle(_)), "{plan:?}");
        assert!(plan.why.contains(words), "{}", plan.why);
    }
    let unasked = Observed {
        requests: 0,
        ..observed()
    };
    let planned = decide(&policy, &unasked, None, None);
    assert!(matches!(planned, Planned::Nothing { .. }), "{planned:?}");
}

#[test]
fn a_method_that_the_stage_does_not_serve_is_not_throttled() {
    let mut gone = observed();
    gone.methods.pop();
    match decide(&policy(), &gone, None, None) {
        Planned::Escalate { reason, .. } => assert!(reason.contains("mend the policy"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_human_changed_stays_and_is_told() {
    let (_, mut after, snapshot) = done(&observed(), &policy());
    let orders = after.settings.get_mut("~1orders/GET").unwrap();
    orders.others.rate_limit = 7.0;
    let order = after.settings.get_mut("~1orders~1{id}/GET").unwrap();
    order.others.metrics = true;
    let back = restoration(&after, &snapshot);
    let restored = patched(&after, &back.patches);
    assert_eq!(limits(&restored, "~1orders/GET"), (50, 7.0));
    // Their settings stay, without our limits.
    assert!(restored.settings["~1orders~1{id}/GET"].others.metrics);
    assert_eq!(limits(&restored, "~1orders~1{id}/GET"), (-1, -1.0));
    assert_eq!(back.left_alone.len(), 2, "{:?}", back.left_alone);
    assert!(restoration(&restored, &snapshot).patches.is_empty());
}

#[test]
fn another_alarm_neither_overwrites_a_human_nor_puts_anew_what_is_there() {
    let before = observed();
    let (plan, after, snapshot) = done(&before, &policy());
    let seen = |stage: &Stage, begun| {
        let now = Observed {
            stage: stage.clone(),
            ..observed()
        };
        match decide(&policy(), &now, begun, Some(&snapshot)) {
            Planned::InPlace { reason } => reason,
            Planned::Act { plan, .. } => format!("{} patches", plan.patches.len()),
            other => panic!("{other:?}"),
        }
    };
    assert!(seen(&after, None).contains("kept as it was put, throttled"));
    assert!(seen(&before.stage, None).contains("undone by hand"));
    assert_eq!(seen(&before.stage, Some(&plan)), "4 patches");
    let mut retuned = after.clone();
    let orders = retuned.settings.get_mut("~1orders/GET").unwrap();
    orders.others.burst_limit = 7;
    for begun in [None, Some(&plan)] {
        let reason = seen(&retuned, begun);
        assert!(
            reason.contains("the throttling of ~1orders/GET was changed by hand"),
            "{reason}"
        );
    }
    // The first of several calls was made, and no other.
    let mut half = after;
    half.settings.remove("~1orders~1{id}/GET");
    assert_eq!(seen(&half, Some(&plan)), "4 patches");
}

#[test]
fn limits_stay_while_what_they_let_through_fails() {
    let (_, after, snapshot) = done(&observed(), &policy());
    let served = |server_errors, client_errors| Served {
        requests: 1_000,
        server_errors,
        cache_hits: 0,
        client_errors,
    };
    let why = |served| not_yet(&after, &snapshot, served, &policy());
    assert_eq!(why(served(40, 0)), None);
    let told = why(served(40, 900)).unwrap();
    assert!(
        told.contains("900 were turned away") && told.contains("40 of the 100 others"),
        "{told}"
    );
    assert_eq!(why(served(0, 1_000)), None);
}

/// What the ledger holds of a release that knew the cache alone.
#[test]
fn what_was_noted_before_there_were_limits_is_still_read() {
    let noted = json!({
        "cluster": "0.5",
        "methods": ["~1orders/GET"],
        "caching": {
            "enabled": true, "ttl_seconds": 60, "encrypted": true, "require_authorization": true,
        },
        "others": null,
    });
    let put: Put = serde_json::from_value(noted.clone()).unwrap();
    assert!(matches!(put, Put::Cache(_)), "{put:?}");
    assert_eq!(serde_json::to_value(&put).unwrap(), noted);
    let (plan, _, snapshot) = done(&observed(), &policy());
    let again: Snapshot = serde_json::from_value(serde_json::to_value(&snapshot).unwrap()).unwrap();
    assert_eq!(again, snapshot);
    let again: Plan = serde_json::from_value(serde_json::to_value(&plan).unwrap()).unwrap();
    assert_eq!(again, plan);
}

fn settings() -> impl Strategy<Value = Setting> {
    let limits = (
        prop_oneof![Just(-1), 0..200_i32, Just(5_000)],
        prop_oneof![Just(-1.0), (0..200_u16).prop_map(f64::from), Just(10_000.0)],
    );
    let others = prop_oneof![Just(defaults()), Just(throttled())];
    let caching = prop_oneof![Just(UNCACHED), Just(CACHED)];
    (limits, others, caching).prop_map(|((burst_limit, rate_limit), others, caching)| Setting {
        caching,
        others: cache_fallback::plan::Others {
            burst_limit,
            rate_limit,
            ..others
        },
    })
}

fn stages() -> impl Strategy<Value = Stage> {
    let keys = prop::sample::select(vec![
        "*/*",
        "~1orders/GET",
        "~1orders~1{id}/GET",
        "~1me/POST",
    ]);
    let settings = prop::collection::btree_map(keys.prop_map(str::to_owned), settings(), 0..4);
    settings.prop_map(|settings| Stage {
        settings,
        ..given::bare()
    })
}

/// The limits that hold for a method: its own, but for a -1, which takes those of every method.
fn holds(stage: &Stage, key: &str) -> Limits {
    let of = |key: &str| stage.settings.get(key).map(Limits::of);
    let every = of("*/*").map_or((-1, -1.0), |it| (it.burst, it.rate));
    let own = of(key).map_or((-1, -1.0), |it| (it.burst, it.rate));
    Limits {
        burst: if own.0 < 0 { every.0 } else { own.0 },
        rate: if own.1 < 0.0 { every.1 } else { own.1 },
    }
}

proptest! {
    /// Whatever was there: no limit becomes higher or none, none is above the policy's, nothing else changes, and all
    /// comes back, also where an attempt died after any of its calls.
    #[test]
    fn limits_only_fall_and_come_back(stage in stages(), whole in any::<bool>(), died in 0..12_usize) {
        let policy = if whole { whole_stage() } else { policy() };
        let before = Observed { stage: stage.clone(), ..observed() };
        if let Planned::Act { plan, snapshot } = decide(&policy, &before, None, None) {
            let snapshot = snapshot.unwrap();
            let after = patched(&stage, &plan.patches);
            let paths = ["~1orders/GET", "~1orders~1{id}/GET", "~1me/POST", "~1new/GET"];
            for path in paths.into_iter().take(if whole { 4 } else { 2 }) {
                let (was, is) = (holds(&stage, path), holds(&after, path));
                prop_assert!(is.burst <= 50 && is.rate <= 100.0, "{path} {is:?}");
                prop_assert!(is.burst >= 0 && is.rate >= 0.0, "{path} {is:?}");
                prop_assert!(was.burst < 0 || is.burst <= was.burst, "{path} {was:?} {is:?}");
                prop_assert!(was.rate < 0.0 || is.rate <= was.rate, "{path} {was:?} {is:?}");
                let made = |limit: f64, was: f64| limit > 0.0 || was == 0.0;
                prop_assert!(made(is.rate, was.rate) && made(f64::from(is.burst), f64::from(was.burst)));
            }
            let back = restoration(&after, &snapshot);
            prop_assert!(back.left_alone.is_empty(), "{:?}", back.left_alone);
            let restored = patched(&after, &back.patches);
            prop_assert_eq!(&restored.settings, &stage.settings);
            prop_assert!(restoration(&restored, &snapshot).patches.is_empty());
            // Whole settings go in one call.
            let keys = plan.put.keys();
            let part = keys.iter().take(died % (keys.len() + 1));
            let part: Vec<_> = part.flat_map(|key| {
                let of = format!("/{key}/");
                plan.patches.iter().filter(move |patch| patch.path.starts_with(&of)).cloned()
            }).collect();
            let half = patched(&stage, &part);
            let back = restoration(&half, &snapshot);
            prop_assert_eq!(&patched(&half, &back.patches).settings, &stage.settings);
        }
    }
}
