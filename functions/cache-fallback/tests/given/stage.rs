//! What several tests start from: a stage, its settings, the alarm, and the plan that is made of them.

// Each test takes what it needs.
#![allow(dead_code)]

use std::collections::BTreeMap;

use cache_fallback::CacheFallback;
use cache_fallback::plan::{
    Caching, Observed, Others, Plan, Setting, Snapshot, Stage, Status, plan,
};
use cache_fallback::policy::Cache;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use shared::alarm::{self, AlarmEvent};
use shared::remediation::{InPlace, Moment, PlannedBy};

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
    };
    plan(observed, policy, &moment)
}
