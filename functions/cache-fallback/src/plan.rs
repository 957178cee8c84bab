//! Which settings of the stage are changed, and which are put back. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::outcome::Rule;
use shared::remediation::{Moment, Planned, PlannedBy};

use crate::CacheFallback;
use crate::policy::{Cache, Method};
use crate::throttle::{self, Throttled};

/// The key of the settings that hold where a method has none of its own.
pub(crate) const EVERY_METHOD: &str = "*/*";
/// What API Gateway shows as the throttling of a method that nobody throttles: the quotas of accounts, or none.
const NOT_THROTTLED: [(i32, f64); 3] = [(5_000, 10_000.0), (1_250, 2_500.0), (-1, -1.0)];
const LOGS_NOTHING: &str = "OFF";

/// How a method is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caching {
    /// Whether at all.
    pub enabled: bool,
    /// For how long.
    pub ttl_seconds: i32,
    /// Whether encrypted.
    pub encrypted: bool,
    /// Whether a client needs permission to have an answer made anew.
    pub require_authorization: bool,
}

/// What a method's settings hold besides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Others {
    /// Detailed metrics.
    pub metrics: bool,
    /// The log level.
    pub log_level: String,
    /// Logs of requests and answers.
    pub data_trace: bool,
    /// Requests at once.
    pub burst_limit: i32,
    /// Requests in a second.
    pub rate_limit: f64,
    /// What becomes of a client that wants an answer made anew and may not; nothing for API Gateway's own way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_permission: Option<String>,
}

impl Others {
    pub(crate) fn are_defaults(&self) -> bool {
        self.without_permission.is_none()
            && !self.metrics
            && !self.data_trace
            && self.log_level == LOGS_NOTHING
            && NOT_THROTTLED.iter().any(|(burst, rate)| {
                *burst == self.burst_limit && rate.total_cmp(&self.rate_limit).is_eq()
            })
    }
}

/// The settings of a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// How it is cached.
    pub caching: Caching,
    /// The rest.
    pub others: Others,
}

/// How a cache cluster fares (Amazon API Gateway API Reference, "Stage", `cacheClusterStatus`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It serves.
    Available,
    /// It is being made.
    Creating,
    /// It is being emptied.
    Flushing,
    /// It is being taken away.
    Deleting,
    /// There is none.
    #[default]
    None,
    /// One that this release does not know.
    Unknown,
}

impl Status {
    /// What is being done to the cluster. AWS does not say which changes a stage takes meanwhile, so that none is sent.
    #[must_use]
    pub const fn underway(self) -> Option<&'static str> {
        match self {
            Self::Creating => Some("made"),
            Self::Flushing => Some("emptied"),
            Self::Deleting => Some("deleted"),
            Self::Available | Self::None | Self::Unknown => None,
        }
    }
}

/// A stage as it was observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// The size of the cache cluster, when it is on.
    pub cluster: Option<String>,
    /// Whether it serves a second deployment to a part of its requests.
    pub canary: bool,
    /// How the cluster fares.
    pub status: Status,
    /// The methods' settings, by [`key`].
    pub settings: BTreeMap<String, Setting>,
}

/// A method of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiMethod {
    /// The resource's path.
    pub path: String,
    /// Its name.
    pub method: String,
    /// The parameters that its answer may depend on.
    pub inputs: Vec<String>,
    /// Why no cache key can hold what its answer depends on.
    pub unkeyable: Option<String>,
    /// The integration that passes the whole request on, so that its answer may depend on all of it.
    pub passes_all: Option<String>,
    /// The methods elsewhere that share its cache.
    pub shares_cache_with: Vec<String>,
    /// The parameters in its cache key.
    pub cache_key: Vec<String>,
}

/// All that was observed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observed {
    /// The stage.
    pub stage: Stage,
    /// The API's methods.
    pub methods: Vec<ApiMethod>,
    /// Requests in the window.
    pub requests: u64,
    /// Those that ended in a server error.
    pub server_errors: u64,
}

/// What is done to a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// It gets a value.
    Replace,
    /// It is removed.
    Remove,
}

/// One patch operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// What is done.
    pub op: Op,
    /// To which setting, as a JSON pointer (RFC 6901).
    pub path: String,
    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// The part of a stage that is changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The size of the cache cluster, when it is on.
    pub cluster: Option<String>,
    /// The methods' settings; `None` for a method that has none of its own.
    pub settings: BTreeMap<String, Option<Setting>>,
}

/// What goes into the ledger before anything is changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What was there.
    pub before: Held,
    /// What was put in its place.
    pub put: Put,
}

/// What is put in place. A ledger of before there were two holds the one without its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Put {
    /// Methods are cached.
    Cache(Cached),
    /// Limits are lowered.
    Throttle(Throttled),
}

impl Put {
    /// The settings that it changes, by [`key`].
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        match self {
            Self::Cache(cached) => cached.methods.clone(),
            Self::Throttle(throttled) => throttled.lowered.keys().cloned().collect(),
        }
    }

    /// What it does, for a reader: `cached: GET /orders`.
    #[must_use]
    pub fn told(&self) -> String {
        let does = match self {
            Self::Cache(_) => "cached",
            Self::Throttle(_) => "throttled",
        };
        format!("{does}: {}", named(&self.keys()))
    }
}

/// How methods are cached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cached {
    /// The size of the cache cluster.
    pub cluster: String,
    /// The methods, by [`key`].
    pub methods: Vec<String>,
    /// How they are cached.
    pub caching: Caching,
    /// What a method without settings of its own gets besides, from the stage's settings for every method.
    pub others: Option<Others>,
}

/// A fallback to caching, complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The REST API's id.
    pub rest_api: String,
    /// The stage's name.
    pub stage: String,
    /// The changes, in their order.
    pub patches: Vec<Patch>,
    /// What they amount to.
    pub put: Put,
    /// Why: the requests and their errors, and why nothing is cached where limits are lowered instead.
    pub why: String,
}

/// The key of a method's settings: the path as one step of a JSON pointer, and the method.
#[must_use]
pub fn key(path: &str, method: &str) -> String {
    format!("{}/{method}", path.replace('~', "~0").replace('/', "~1"))
}

/// Methods as a reader knows them, such as `GET /orders/{id}`, from their keys.
#[must_use]
pub fn named(keys: &[String]) -> String {
    let named = keys.iter().map(|key| {
        if key == EVERY_METHOD {
            return "every method without settings of its own".to_owned();
        }
        let (path, method) = key.rsplit_once('/').unwrap_or((key, ""));
        format!("{method} {}", path.replace("~1", "/").replace("~0", "~"))
    });
    named.collect::<Vec<_>>().join(", ")
}

pub(crate) fn replace(path: String, value: &impl ToString) -> Patch {
    Patch {
        op: Op::Replace,
        path,
        value: Some(value.to_string()),
    }
}

/// Changes that one call takes (API Gateway answers more with `BadRequestException`, "Update size too large. Try
/// updating stage in multiple `UpdateStage` operations").
const MOST_PATCHES: usize = 80;

/// The changes as so many calls, in their order. What belongs to one method goes in one call, and the cluster with the last,
/// so that an attempt that died leaves no method half changed, and the cluster off unless all is done.
#[must_use]
pub fn calls(patches: &[Patch]) -> Vec<&[Patch]> {
    let whose = |patch: &Patch| {
        let mut parts = patch.path.splitn(4, '/').skip(1);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.next().map(|second| format!("{first}/{second}"))
    };
    let mut calls = Vec::new();
    let (mut from, mut until) = (0, 0);
    for at in 1..=patches.len() {
        let of_one =
            |next: &Patch| whose(next).is_none_or(|one| Some(one) == whose(&patches[at - 1]));
        if patches.get(at).is_some_and(of_one) {
            continue;
        }
        if at - from > MOST_PATCHES && until > from {
            calls.push(&patches[from..until]);
            from = until;
        }
        until = at;
    }
    if from < patches.len() {
        calls.push(&patches[from..]);
    }
    calls
}

pub(crate) fn caching_patches(key: &str, caching: Caching) -> [Patch; 4] {
    let path = |field: &str| format!("/{key}/caching/{field}");
    [
        replace(path("enabled"), &caching.enabled),
        replace(path("ttlInSeconds"), &caching.ttl_seconds),
        replace(path("dataEncrypted"), &caching.encrypted),
        replace(
            path("requireAuthorizationForCacheControl"),
            &caching.require_authorization,
        ),
    ]
}

pub(crate) fn other_patches(key: &str, others: &Others) -> Vec<Patch> {
    let path = |field: &str| format!("/{key}/{field}");
    let strategy = others.without_permission.iter();
    let strategy = strategy.map(|strategy| {
        replace(
            path("caching/unauthorizedCacheControlHeaderStrategy"),
            strategy,
        )
    });
    let always = [
        replace(path("metrics/enabled"), &others.metrics),
        replace(path("logging/loglevel"), &others.log_level),
        replace(path("logging/dataTrace"), &others.data_trace),
        replace(path("throttling/burstLimit"), &others.burst_limit),
        replace(path("throttling/rateLimit"), &others.rate_limit),
    ];
    always.into_iter().chain(strategy).collect()
}

/// Whether the stage is as `put` leaves it.
#[must_use]
pub fn in_place(stage: &Stage, put: &Put) -> bool {
    match put {
        Put::Cache(put) => {
            stage.cluster.as_ref() == Some(&put.cluster)
                && put.methods.iter().all(|key| {
                    let setting = stage.settings.get(key);
                    setting.is_some_and(|setting| setting.caching == put.caching)
                })
        }
        Put::Throttle(put) => throttle::in_place(stage, put),
    }
}

/// Decides.
#[must_use]
pub fn plan(
    observed: &Observed,
    policy: &Cache,
    moment: &Moment<'_, CacheFallback>,
) -> PlannedBy<CacheFallback> {
    let stage = &observed.stage;
    if stage.status == Status::Deleting {
        return underway(policy, "deleted");
    }
    if let Some(plan) = moment.begun
        && in_place(stage, &plan.put)
    {
        return Planned::Act {
            plan: plan.clone(),
            snapshot: None,
        };
    }
    let held = moment.in_place.map(|held| &held.snapshot);
    if let Some(held) = held {
        // Restoring knows its own settings by what was put first, whatever the policy says by now.
        if in_place(stage, &held.put) {
            return Planned::InPlace {
                reason: format!(
                    "in place already, and kept as it was put, {}; what the policy says now counts from the next fallback",
                    held.put.told()
                ),
            };
        }
        let begun = moment.begun.is_some();
        let changed = match &held.put {
            Put::Cache(put) => changed_since(stage, &held.before, put, begun),
            Put::Throttle(put) => throttle::changed_since(stage, &held.before, put, begun),
        };
        if let Some(reason) = changed {
            return Planned::InPlace { reason };
        }
    }
    // Of what an attempt has lowered already, nothing would be left to lower.
    let unlowered = held.and_then(|held| throttle::as_before(observed, held));
    let before = unlowered.as_ref().unwrap_or(observed);
    let chosen = match chosen_lever(before, policy) {
        Ok(chosen) => chosen,
        Err(planned) => return *planned,
    };
    // What is noted to be restored is that of the lever which an attempt chose by what was served then.
    let other = held.filter(|held| held.put != chosen.0);
    let again = other.and_then(|held| lever_again(before, policy, &held.put));
    let (put, instead_of) = again.map_or(chosen, |same| (same, None));
    if held.is_some_and(|held| held.put != put) {
        return escalated(format!(
            "the policy or {} was changed since an attempt that put nothing in place, and what it noted to restore would not fit; the note goes once the alarm is at OK, and the next alarm starts anew",
            policy.stage
        ));
    }
    if in_place(stage, &put) {
        return Planned::InPlace {
            reason: format!("{} is as it would be put, {}", policy.stage, put.told()),
        };
    }
    if let Some(what) = stage.status.underway() {
        return underway(policy, what);
    }
    let settings = put.keys().into_iter().map(|key| {
        let now = stage.settings.get(&key).cloned();
        (key, now)
    });
    let snapshot = Snapshot {
        before: Held {
            cluster: stage.cluster.clone(),
            settings: settings.collect(),
        },
        put: put.clone(),
    };
    let instead_of = instead_of.map(|why| format!("; throttled, not cached: {why}"));
    Planned::Act {
        plan: Plan {
            rest_api: policy.rest_api().to_owned(),
            stage: policy.name().to_owned(),
            patches: patches(stage, &put),
            put,
            why: format!(
                "{}{}",
                why(observed, policy),
                instead_of.unwrap_or_default()
            ),
        },
        snapshot: Some(snapshot),
    }
}

fn why(observed: &Observed, policy: &Cache) -> String {
    format!(
        "{} of {} requests in {} s ended in a server error",
        observed.server_errors, observed.requests, policy.window_seconds
    )
}

/// What an attempt was to put in place, where the policy and the stage would still have it so.
fn lever_again(observed: &Observed, policy: &Cache, held: &Put) -> Option<Put> {
    let put = match held {
        Put::Cache(_) if policy.cache => Put::Cache(cacheable(observed, policy).ok()?),
        Put::Cache(_) => return None,
        Put::Throttle(_) => {
            let keys = throttled_keys(observed, policy).ok()?;
            Put::Throttle(throttle::put(
                &observed.stage,
                policy.throttle.as_ref()?,
                &keys,
            )?)
        }
    };
    (put == *held).then_some(put)
}

/// The keys of the methods that the policy names.
fn throttled_keys(observed: &Observed, policy: &Cache) -> Result<Vec<String>, String> {
    let methods = wanted(observed, policy)?;
    let methods = methods.iter();
    Ok(methods
        .map(|(method, _)| key(&method.path, &method.method))
        .collect())
}

/// What is put in place, and why it is not a cache where it could have been; or why nothing is.
fn chosen_lever(
    observed: &Observed,
    policy: &Cache,
) -> Result<(Put, Option<String>), Box<PlannedBy<CacheFallback>>> {
    let stage = &observed.stage;
    let cached = policy.cache.then(|| cacheable(observed, policy));
    if let Some(Ok(put)) = &cached
        && in_place(stage, &Put::Cache(put.clone()))
    {
        return Ok((Put::Cache(put.clone()), None));
    }
    if let (Some(Err(reason)), None) = (&cached, &policy.throttle) {
        return Err(Box::new(escalated(reason.clone())));
    }
    if observed.requests == 0 {
        return Err(nothing(format!(
            "CloudWatch counts no request to {} in {} s, so that it cannot be told whether a cache would help; check that the alarm watches this stage",
            policy.stage, policy.window_seconds
        )));
    }
    let succeeded = observed.requests.saturating_sub(observed.server_errors);
    let dead = "none succeeded: a cache that starts empty cannot revive the backend";
    let refused = match cached {
        Some(Ok(put)) if succeeded > 0 => return Ok((Put::Cache(put), None)),
        Some(Ok(_)) if policy.throttle.is_none() => {
            return Err(nothing(format!(
                "{}, and {dead}; raise the maintenance page",
                why(observed, policy)
            )));
        }
        Some(Ok(_)) => Some(dead.to_owned()),
        Some(Err(reason)) => Some(reason),
        None => None,
    };
    let Some(limits) = &policy.throttle else {
        return Err(Box::new(escalated(refused.unwrap_or_default())));
    };
    let keys = throttled_keys(observed, policy).map_err(|reason| Box::new(escalated(reason)))?;
    match throttle::put(stage, limits, &keys) {
        Some(put) => Ok((Put::Throttle(put), refused)),
        None => Err(nothing(format!(
            "{} is throttled at least as low as the policy would have it{}",
            policy.stage,
            refused
                .map(|why| format!(", and not cached: {why}"))
                .unwrap_or_default()
        ))),
    }
}

fn nothing(reason: String) -> Box<PlannedBy<CacheFallback>> {
    Box::new(Planned::Nothing { reason })
}

/// How the methods would be cached, or why not.
fn cacheable(observed: &Observed, policy: &Cache) -> Result<Cached, String> {
    let stage = &observed.stage;
    let put = put(stage, policy, &chosen(observed, policy)?);
    let beyond = |(key, setting): &(&String, &Setting)| {
        setting.caching.enabled && !put.methods.contains(key)
    };
    match stage.settings.iter().find(beyond) {
        Some((other, _)) if stage.cluster.is_none() => Err(format!(
            "the settings of {other} have caching on, so that turning the cluster on would cache more than the policy names; turn caching off there, or name it in the policy"
        )),
        _ => Ok(put),
    }
}

/// What a human did to a stage that is not as it was put; nothing where an attempt has begun and may never have come to
/// its call.
fn changed_since(stage: &Stage, before: &Held, put: &Cached, begun: bool) -> Option<String> {
    let caching = |setting: &Setting| setting.caching;
    let now = |key: &String| stage.settings.get(key).map(caching);
    let before_of = |key: &String| {
        before
            .settings
            .get(key)
            .and_then(|it| it.as_ref().map(caching))
    };
    let as_before = |key: &&String| now(key) == before_of(key);
    let cluster_as_before = stage.cluster == before.cluster;
    if cluster_as_before && put.methods.iter().all(|key| as_before(&key)) {
        return (!begun).then(|| {
            "all is as it was before the fallback: it was undone by hand, and is left so".to_owned()
        });
    }
    let as_put = |key: &&String| now(key) == Some(put.caching);
    // Several calls put it, each in the order of the methods, and the last of them the cluster: an attempt that died or
    // failed leaves the first methods as put, and the others as they were.
    let rest: Vec<&String> = put.methods.iter().skip_while(as_put).collect();
    let in_part = (1..put.methods.len()).contains(&rest.len());
    if cluster_as_before && in_part && rest.iter().all(as_before) {
        return None;
    }
    let mut keys = put.methods.iter();
    let changed = keys
        .find(|key| !as_put(key))
        .map_or("the cache cluster".to_owned(), |key| {
            format!("the caching of {key}")
        });
    Some(format!(
        "{changed} was changed by hand since it was put in place, and is left alone"
    ))
}

fn underway(policy: &Cache, what: &str) -> PlannedBy<CacheFallback> {
    Planned::Undecided {
        reason: format!(
            "the cache cluster of {} is being {what}, and until it is, the stage is left alone",
            policy.stage
        ),
    }
}

fn escalated(reason: String) -> PlannedBy<CacheFallback> {
    Planned::Escalate {
        rule: Rule::Unsafe,
        reason,
    }
}

/// The methods that the policy names, each of which can be cached without serving one client another's answer.
fn chosen<'a>(observed: &'a Observed, policy: &Cache) -> Result<Vec<&'a ApiMethod>, String> {
    if observed.stage.canary {
        return Err(format!(
            "{} serves two deployments (canarySettings), the export tells of one, and both may answer from one cache; promote the canary or take it away",
            policy.stage
        ));
    }
    if let Some(both) = policy.resources.iter().find(|it| it.methods.len() > 1) {
        return Err(format!(
            "GET and HEAD of {} cannot be cached together: whether the one is served the other's entries is documented nowhere; name one of them",
            both.path
        ));
    }
    let all = wanted(observed, policy)?;
    for (method, vouched) in &all {
        if let Some(why) = unsafe_to_cache(observed, method, *vouched) {
            let name = format!("{} {}", method.method, method.path);
            return Err(format!("{name} cannot be cached: {why}"));
        }
    }
    Ok(all.into_iter().map(|(method, _)| method).collect())
}

/// The methods that the policy names, and whether it vouches for them.
fn wanted<'a>(
    observed: &'a Observed,
    policy: &Cache,
) -> Result<Vec<(&'a ApiMethod, bool)>, String> {
    let mut all = Vec::new();
    for cached in &policy.resources {
        let find = |method: Method| {
            observed
                .methods
                .iter()
                .find(|found| found.path == cached.path && found.method == method.as_str())
        };
        let found: Vec<&ApiMethod> = if cached.methods.is_empty() {
            find(Method::Get).into_iter().collect()
        } else {
            let missing = |method: Method| {
                format!(
                    "the API has no method {} {}; mend the policy",
                    method.as_str(),
                    cached.path
                )
            };
            cached
                .methods
                .iter()
                .map(|method| find(*method).ok_or_else(|| missing(*method)))
                .collect::<Result<_, _>>()?
        };
        if found.is_empty() {
            return Err(format!(
                "the API has no method GET at {} (ANY is none that is cached); mend the policy",
                cached.path
            ));
        }
        all.extend(
            found
                .into_iter()
                .map(|method| (method, cached.answers_all_clients_alike)),
        );
    }
    Ok(all)
}

/// Why a method cannot be cached without serving one client another's answer.
fn unsafe_to_cache(observed: &Observed, method: &ApiMethod, vouched: bool) -> Option<String> {
    if !method.shares_cache_with.is_empty() {
        return Some(format!(
            "its cache namespace is also that of {}, so that one would be served the other's answers; give its integration a cacheNamespace of its own",
            method.shares_cache_with.join(", ")
        ));
    }
    if let Some(other) = cached_beside(observed, method) {
        return Some(format!(
            "{other} of the same path is cached already, and whether the one is served the other's entries is documented nowhere; turn caching off there"
        ));
    }
    if let Some(why) = &method.unkeyable {
        return Some(why.clone());
    }
    let missing: Vec<&str> = method
        .inputs
        .iter()
        .filter(|input| !method.cache_key.contains(input))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        return Some(format!(
            "its cache key lacks {}, so that one client would be served another's answer; declare it in the method's request parameters, add it to the cache key parameters, and deploy the API",
            missing.join(", ")
        ));
    }
    let integration = method.passes_all.as_ref().filter(|_| !vouched)?;
    Some(format!(
        "its integration is {integration}, which passes on the whole request, so that one client may be served another's answer; if the backend answers every client alike, vouch for that with answers_all_clients_alike"
    ))
}

/// Another method of the same path that the stage caches. Settings for every method cache GET alone (API Gateway
/// Developer Guide, "Cache settings for REST APIs"); ANY may be one.
fn cached_beside(observed: &Observed, method: &ApiMethod) -> Option<String> {
    let settings = &observed.stage.settings;
    let caches = |key: &str| settings.get(key).map(|setting| setting.caching.enabled);
    let for_every = caches(EVERY_METHOD) == Some(true);
    let mut others = observed.methods.iter().filter(|other| {
        other.path == method.path
            && other.method != method.method
            && caches(&key(&other.path, &other.method))
                .unwrap_or(for_every && ["GET", "ANY"].contains(&other.method.as_str()))
    });
    others.next().map(|other| other.method.clone())
}

fn put(stage: &Stage, policy: &Cache, chosen: &[&ApiMethod]) -> Cached {
    Cached {
        cluster: stage
            .cluster
            .clone()
            .unwrap_or_else(|| policy.size_gb.as_str().to_owned()),
        methods: chosen
            .iter()
            .map(|method| key(&method.path, &method.method))
            .collect(),
        caching: Caching {
            enabled: true,
            // An error is kept as long as any other answer.
            ttl_seconds: i32::try_from(policy.ttl_seconds.min(policy.error_ttl_seconds).get())
                .unwrap_or(i32::MAX),
            encrypted: policy.encrypted,
            require_authorization: policy.require_authorization_for_cache_control,
        },
        others: stage
            .settings
            .get(EVERY_METHOD)
            .map(|setting| setting.others.clone()),
    }
}

fn patches(stage: &Stage, put: &Put) -> Vec<Patch> {
    match put {
        Put::Cache(put) => cache_patches(stage, put),
        Put::Throttle(put) => throttle::patches(stage, put),
    }
}

fn cache_patches(stage: &Stage, put: &Cached) -> Vec<Patch> {
    let mut patches = Vec::new();
    for key in &put.methods {
        // Settings of its own take the place of those for every method, as a whole.
        if let (None, Some(others)) = (stage.settings.get(key), &put.others) {
            patches.extend(other_patches(key, others));
        }
        patches.extend(caching_patches(key, put.caching));
    }
    if stage.cluster.is_none() {
        patches.push(replace("/cacheClusterEnabled".to_owned(), &true));
        patches.push(replace("/cacheClusterSize".to_owned(), &put.cluster));
    }
    patches
}

/// What a stage served in the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests.
    pub requests: u64,
    /// Those that ended in a server error.
    pub server_errors: u64,
    /// Those that the cache answered.
    pub cache_hits: u64,
    /// Those that ended in a client error, such as what exceeds a limit.
    pub client_errors: u64,
}

/// Why what is put stays although the alarm is at OK: neither what the cache answers nor what a limit turns away is a
/// server error, and an alarm on their share cannot see past it.
#[must_use]
pub fn not_yet(
    stage: &Stage,
    snapshot: &Snapshot,
    served: Served,
    policy: &Cache,
) -> Option<String> {
    if restoration(stage, snapshot).patches.is_empty() {
        return None;
    }
    if let Some(what) = stage.status.underway() {
        return Some(format!(
            "the cache cluster is being {what}, and until it is, the stage is left alone"
        ));
    }
    let (kept_back, how) = match snapshot.put {
        Put::Cache(_) => (served.cache_hits, "were answered by the cache"),
        Put::Throttle(_) => (
            served.cache_hits.saturating_add(served.client_errors),
            "were turned away or answered by the cache",
        ),
    };
    let reached = served.requests.saturating_sub(kept_back);
    // Errors that the cache keeps are among them, and are no requests that reached the backend.
    let failed = served.server_errors.min(reached);
    #[allow(clippy::cast_precision_loss)] // Counts of minutes.
    let fails = reached > 0 && failed as f64 >= policy.recovered_below * reached as f64;
    fails.then(|| {
        format!(
            "of the {} requests in {} s {kept_back} {how}, and {failed} of the {reached} others ended in a server error",
            served.requests, policy.window_seconds
        )
    })
}

/// What puts a stage back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restoration {
    /// The changes, in their order; none when it is as it was.
    pub patches: Vec<Patch>,
    /// What is left alone because someone changed it meanwhile.
    pub left_alone: Vec<String>,
}

/// Decides what is put back: what is still as it was put, and nothing else.
#[must_use]
pub fn restoration(stage: &Stage, snapshot: &Snapshot) -> Restoration {
    match &snapshot.put {
        Put::Cache(put) => uncached(stage, &snapshot.before, put),
        Put::Throttle(put) => throttle::restoration(stage, &snapshot.before, put),
    }
}

fn uncached(stage: &Stage, before: &Held, put: &Cached) -> Restoration {
    let mut restoration = Restoration::default();
    let mut cached: Vec<&String> = stage
        .settings
        .iter()
        .filter(|(_, setting)| setting.caching.enabled)
        .map(|(key, _)| key)
        .collect();
    for (key, before) in &before.settings {
        let Some(now) = stage.settings.get(key) else {
            if before.is_some() {
                let told = format!("the settings of {key}, which were removed");
                restoration.left_alone.push(told);
            }
            continue;
        };
        match before {
            Some(before) if now.caching == before.caching => {}
            _ if now.caching != put.caching => {
                let told = format!("the caching of {key}, which was changed");
                restoration.left_alone.push(told);
                continue;
            }
            Some(before) => {
                let patches = caching_patches(key, before.caching);
                let current = caching_patches(key, now.caching);
                let changed = patches
                    .into_iter()
                    .zip(current)
                    .filter(|(patch, current)| patch != current);
                restoration.patches.extend(changed.map(|(patch, _)| patch));
            }
            None if as_put(&now.others, put) => restoration.patches.push(Patch {
                op: Op::Remove,
                path: format!("/{key}"),
                value: None,
            }),
            None => {
                let off = replace(format!("/{key}/caching/enabled"), &false);
                restoration.patches.push(off);
                let told = format!("the other settings of {key}, which were changed");
                restoration.left_alone.push(told);
            }
        }
        cached.retain(|cached| *cached != key);
    }
    match (&before.cluster, &stage.cluster) {
        (None, Some(size)) if *size != put.cluster => {
            let told = format!("the cache cluster, which was resized to {size} GB");
            restoration.left_alone.push(told);
        }
        (None, Some(_)) => match cached.first() {
            Some(key) => restoration.left_alone.push(format!(
                "the cache cluster, because the settings of {key} use it"
            )),
            None => restoration
                .patches
                .push(replace("/cacheClusterEnabled".to_owned(), &false)),
        },
        _ => {}
    }
    restoration
}

fn as_put(others: &Others, put: &Cached) -> bool {
    match &put.others {
        Some(put) => put == others,
        None => others.are_defaults(),
    }
}
