//! What several tests start from: a stage, its settings, the alarm, and the plan that is made of them.

// Each test takes what it needs.
#![allow(dead_code, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;

use cache_fallback::CacheFallback;
use cache_fallback::plan::{
    ApiMethod, Caching, Observed, Op, Others, Patch, Plan, Setting, Snapshot, Stage, Status, plan,
};
use cache_fallback::policy::Cache;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use shared::alarm::{self, AlarmEvent};
use shared::remediation::{InPlace, Moment, Planned, PlannedBy};

pub(crate) const UNCACHED: Caching = Caching {
    enabled: false,
    ttl_seconds: 300,
    encrypted: false,
    require_authorization: true,
};

pub(crate) const CACHED: Caching = Caching {
    enabled: true,
    ..UNCACHED
};

/// A policy of these resources.
pub(crate) fn policy_of(resources: &Value) -> Cache {
    serde_json::from_value(json!({
        "stage": "arn:aws:apigateway:eu-west-1::/restapis/a1b2c3/stages/prod",
        "resources": resources,
    }))
    .unwrap()
}

pub(crate) fn event() -> AlarmEvent {
    alarm::parse(&json!({
        "detail-type": "CloudWatch Alarm State Change",
        "source": "aws.cloudwatch",
        "resources": ["arn:aws:cloudwatch:eu-west-1:123456789012:alarm:ApiHigh5xxErrorRate"],
        "detail": {
            "alarmName": "ApiHigh5xxErrorRate",
            "state": {"value": "ALARM", "timestamp": "2027-01-15T08:00:00.000+0000"},
        },
    }))
    .unwrap()
}

/// What API Gateway shows of a method for which nobody sets anything but its caching.
pub(crate) fn defaults() -> Others {
    Others {
        metrics: false,
        log_level: "OFF".into(),
        data_trace: false,
        burst_limit: 5_000,
        rate_limit: 10_000.0,
        without_permission: None,
    }
}

/// Settings of which nothing is set but the caching.
pub(crate) fn setting(caching: Caching) -> Setting {
    Setting {
        caching,
        others: defaults(),
    }
}

/// A stage without a cache.
pub(crate) fn bare() -> Stage {
    Stage {
        cluster: None,
        canary: false,
        status: Status::None,
        settings: BTreeMap::new(),
    }
}

pub(crate) fn decide(
    policy: &Cache,
    observed: &Observed,
    begun: Option<&Plan>,
    held: Option<&Snapshot>,
) -> PlannedBy<CacheFallback> {
    let event = event();
    let in_place = held.map(|held| InPlace {
        run_id: "run-0".into(),
        incident_id: "inc-1".into(),
        taken_at: DateTime::<Utc>::UNIX_EPOCH,
        expires_at: None,
        snapshot: held.clone(),
    });
    let moment = Moment {
        progress: None,
        now: DateTime::<Utc>::UNIX_EPOCH,
        resuming: begun.is_some(),
        event: &event,
        incident_id: "inc-1",
        memory: None,
        begun,
        overtaken: None,
        in_place: in_place.as_ref(),
        recovered: false,
    };
    plan(observed, policy, &moment)
}

pub(crate) fn throttled() -> Others {
    Others {
        metrics: true,
        log_level: "ERROR".into(),
        burst_limit: 20,
        rate_limit: 10.0,
        without_permission: Some("FAIL_WITH_403".into()),
        ..defaults()
    }
}

pub(crate) fn method(path: &str, method: &str, inputs: &[&str], cache_key: &[&str]) -> ApiMethod {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    ApiMethod {
        path: path.into(),
        method: method.into(),
        inputs: owned(inputs),
        unkeyable: None,
        passes_all: None,
        shares_cache_with: Vec::new(),
        cache_key: owned(cache_key),
    }
}

pub(crate) fn observed() -> Observed {
    let id = "method.request.path.id";
    Observed {
        stage: bare(),
        methods: vec![
            method("/orders", "GET", &[], &[]),
            method("/orders", "POST", &[], &[]),
            method("/orders/{id}", "GET", &[id], &[id]),
        ],
        requests: 1_000,
        server_errors: 400,
    }
}

pub(crate) fn acts(planned: PlannedBy<CacheFallback>) -> (Plan, Option<Snapshot>) {
    match planned {
        Planned::Act { plan, snapshot } => (plan, snapshot),
        other => panic!("{other:?}"),
    }
}

/// What API Gateway makes of patches.
pub(crate) fn patched(stage: &Stage, patches: &[Patch]) -> Stage {
    let mut stage = stage.clone();
    let mut enabled = stage.cluster.is_some();
    let mut size = stage.cluster.clone().unwrap_or_else(|| "0.5".into());
    for Patch { op, path, value } in patches {
        let value = value.clone().unwrap_or_default();
        let steps: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (op, &steps[..]) {
            (Op::Replace, ["cacheClusterEnabled"]) => enabled = value == "true",
            (Op::Replace, ["cacheClusterSize"]) => size = value,
            (Op::Remove, [path, method]) => {
                let removed = stage.settings.remove(&format!("{path}/{method}"));
                assert!(removed.is_some(), "{path} is not there");
            }
            (Op::Replace, [path, method, group, field]) => {
                let setting = stage
                    .settings
                    .entry(format!("{path}/{method}"))
                    .or_insert(setting(UNCACHED));
                let Setting { caching, others } = setting;
                match (*group, *field) {
                    ("caching", "enabled") => caching.enabled = value.parse().unwrap(),
                    ("caching", "ttlInSeconds") => caching.ttl_seconds = value.parse().unwrap(),
                    ("caching", "dataEncrypted") => caching.encrypted = value.parse().unwrap(),
                    ("caching", "requireAuthorizationForCacheControl") => {
                        caching.require_authorization = value.parse().unwrap();
                    }
                    ("caching", "unauthorizedCacheControlHeaderStrategy") => {
                        others.without_permission = Some(value);
                    }
                    ("metrics", "enabled") => others.metrics = value.parse().unwrap(),
                    ("logging", "loglevel") => others.log_level = value,
                    ("logging", "dataTrace") => others.data_trace = value.parse().unwrap(),
                    ("throttling", "burstLimit") => others.burst_limit = value.parse().unwrap(),
                    ("throttling", "rateLimit") => others.rate_limit = value.parse().unwrap(),
                    _ => panic!("{path}"),
                }
            }
            _ => panic!("{path}"),
        }
    }
    stage.cluster = enabled.then_some(size);
    stage
}
