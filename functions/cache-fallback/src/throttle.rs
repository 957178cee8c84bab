//! What sheds load where nothing may be cached: lower limits on requests, and the way back from them. Pure.
//!
//! A limit of a stage is one of each method: on its own settings, or on those for every method, which hold where a
//! method has none of its own (API Gateway Developer Guide, "Throttle requests to your REST APIs for better throughput").
//! What exceeds it is answered with 429, without reaching the backend.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::{
    EVERY_METHOD, Held, Observed, Op, Others, Patch, Put, Restoration, Setting, Snapshot, Stage,
    caching_patches, other_patches, replace,
};
use crate::policy::Throttle;

/// How many requests a method takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// At once.
    pub burst: i32,
    /// In a second, on average.
    pub rate: f64,
}

impl Limits {
    /// What API Gateway shows where nothing is limited but by the account.
    const NONE: Self = Self {
        burst: -1,
        rate: -1.0,
    };

    /// Those of a setting.
    #[must_use]
    pub const fn of(setting: &Setting) -> Self {
        Self {
            burst: setting.others.burst_limit,
            rate: setting.others.rate_limit,
        }
    }

    /// Those that hold where `every` does for every method: a method's -1 takes the stage's
    /// (<https://github.com/DianaIonita/serverless-api-gateway-throttling/pull/11>).
    const fn or(self, every: Self) -> Self {
        Self {
            burst: if self.burst < 0 {
                every.burst
            } else {
                self.burst
            },
            rate: if self.rate < 0.0 {
                every.rate
            } else {
                self.rate
            },
        }
    }

    /// The lower of each; a negative one is none.
    fn lowered_to(self, most: Self) -> Self {
        Self {
            burst: if (0..most.burst).contains(&self.burst) {
                self.burst
            } else {
                most.burst
            },
            rate: if (0.0..most.rate).contains(&self.rate) {
                self.rate
            } else {
                most.rate
            },
        }
    }
}

/// How one setting is throttled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lowered {
    /// To what.
    pub to: Limits,
    /// From what: its own, or that of every method.
    pub from: Limits,
}

/// What is put in place where the limits are lowered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Throttled {
    /// The settings, by [`crate::plan::key`].
    pub lowered: BTreeMap<String, Lowered>,
    /// The stage's settings for every method, which a method without settings of its own gets besides.
    pub every: Option<Setting>,
}

/// The limits that are lowered, of these methods or of the whole stage; `None` where none is above the policy's.
#[must_use]
pub fn put(stage: &Stage, policy: &Throttle, methods: &[String]) -> Option<Throttled> {
    let most = Limits {
        burst: i32::try_from(policy.burst_limit.get()).unwrap_or(i32::MAX),
        rate: f64::from(policy.rate_limit.get()),
    };
    let every = stage.settings.get(EVERY_METHOD);
    let mut keys: Vec<&str> = methods.iter().map(String::as_str).collect();
    if policy.every_method {
        // A method with settings of its own does not heed those for every method.
        keys = stage.settings.keys().map(String::as_str).collect();
        keys.push(EVERY_METHOD);
    }
    let lowered = keys.into_iter().filter_map(|key| {
        let of_every = every.map_or(Limits::NONE, Limits::of);
        let own = stage.settings.get(key).map_or(Limits::NONE, Limits::of);
        let from = own.or(of_every);
        let to = from.lowered_to(most);
        (from != to).then(|| (key.to_owned(), Lowered { to, from }))
    });
    let lowered: BTreeMap<String, Lowered> = lowered.collect();
    (!lowered.is_empty()).then(|| Throttled {
        lowered,
        every: every.cloned(),
    })
}

fn limit_patches(key: &str, limits: Limits) -> [Patch; 2] {
    let path = |field: &str| format!("/{key}/throttling/{field}");
    [
        replace(path("burstLimit"), &limits.burst),
        replace(path("rateLimit"), &limits.rate),
    ]
}

/// The changes that put it in place.
#[must_use]
pub fn patches(stage: &Stage, put: &Throttled) -> Vec<Patch> {
    let patches = put.lowered.iter().flat_map(|(key, Lowered { to, .. })| {
        match (&put.every, stage.settings.contains_key(key)) {
            // Settings of its own take the place of those for every method, as a whole.
            (Some(every), false) => {
                let mut patches = other_patches(key, &limited(&every.others, *to));
                patches.extend(caching_patches(key, every.caching));
                patches
            }
            _ => limit_patches(key, *to).into(),
        }
    });
    patches.collect()
}

fn limited(others: &Others, limits: Limits) -> Others {
    Others {
        burst_limit: limits.burst,
        rate_limit: limits.rate,
        ..others.clone()
    }
}

fn now(stage: &Stage, key: &str) -> Option<Limits> {
    stage.settings.get(key).map(Limits::of)
}

/// Whether the stage is as `put` leaves it.
#[must_use]
pub fn in_place(stage: &Stage, put: &Throttled) -> bool {
    let mut lowered = put.lowered.iter();
    lowered.all(|(key, lowered)| now(stage, key) == Some(lowered.to))
}

/// What a human did to a stage that is not as it was put; nothing where an attempt has begun and may never have come to
/// its call, or to all of them.
#[must_use]
pub fn changed_since(stage: &Stage, before: &Held, put: &Throttled, begun: bool) -> Option<String> {
    let was = |key: &str| before.settings.get(key)?.as_ref().map(Limits::of);
    let as_before = |key: &&String| now(stage, key) == was(key);
    let as_put = |key: &&String| now(stage, key) == put.lowered.get(*key).map(|it| it.to);
    let keys = put.lowered.keys();
    if keys.clone().all(|key| as_before(&key)) {
        return (!begun).then(|| {
            "all is as it was before the fallback: it was undone by hand, and is left so".to_owned()
        });
    }
    // Several calls put it, in the order of the settings.
    let rest: Vec<&String> = keys.clone().skip_while(as_put).collect();
    let in_part = (1..put.lowered.len()).contains(&rest.len());
    if in_part && rest.iter().all(as_before) {
        return None;
    }
    let changed = rest.first().map(|key| key.as_str()).unwrap_or_default();
    Some(format!(
        "the throttling of {changed} was changed by hand since it was put in place, and is left alone"
    ))
}

/// What was observed, as it was before an attempt that noted limits to restore.
#[must_use]
pub fn as_before(observed: &Observed, held: &Snapshot) -> Option<Observed> {
    if !matches!(held.put, Put::Throttle(_)) {
        return None;
    }
    let mut observed = observed.clone();
    let settings = &mut observed.stage.settings;
    for (key, before) in &held.before.settings {
        match before {
            Some(before) => drop(settings.insert(key.clone(), before.clone())),
            None => drop(settings.remove(key)),
        }
    }
    Some(observed)
}

/// Decides what is put back: what is still as it was put, and nothing else.
#[must_use]
pub fn restoration(stage: &Stage, before: &Held, put: &Throttled) -> Restoration {
    let mut restoration = Restoration::default();
    for (key, Lowered { to, from }) in &put.lowered {
        let before = before.settings.get(key).and_then(Option::as_ref);
        let Some(setting) = stage.settings.get(key) else {
            if before.is_some() {
                let told = format!("the settings of {key}, which were removed");
                restoration.left_alone.push(told);
            }
            continue;
        };
        let now = Limits::of(setting);
        match before {
            Some(before) if now == Limits::of(before) => {}
            _ if now != *to => {
                let told = format!("the throttling of {key}, which was changed");
                restoration.left_alone.push(told);
            }
            None if is_ours(setting, put, *to) => restoration.patches.push(Patch {
                op: Op::Remove,
                path: format!("/{key}"),
                value: None,
            }),
            before => {
                let back = limit_patches(key, before.map_or(*from, Limits::of));
                let current = limit_patches(key, now);
                let changed = back.into_iter().zip(current);
                let changed = changed.filter(|(patch, current)| patch != current);
                restoration.patches.extend(changed.map(|(patch, _)| patch));
                if before.is_none() {
                    let told = format!("the other settings of {key}, which were changed");
                    restoration.left_alone.push(told);
                }
            }
        }
    }
    restoration
}

/// Whether settings that were not there before hold nothing but what was put.
fn is_ours(setting: &Setting, put: &Throttled, to: Limits) -> bool {
    match &put.every {
        Some(every) => {
            setting.caching == every.caching && setting.others == limited(&every.others, to)
        }
        None => !setting.caching.enabled && limited(&setting.others, Limits::NONE).are_defaults(),
    }
}
