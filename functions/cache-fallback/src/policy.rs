//! What the policy says of a stage: what may be cached, how, and for how long.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::arn::Arn;
use shared::policy::{Action, Term};

/// The longest that API Gateway caches (API Gateway Developer Guide, "Cache settings for REST APIs").
const LONGEST_TTL: u32 = 3_600;

/// One stage of a REST API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// The stage, by ARN: `arn:aws:apigateway:<region>::/restapis/<api>/stages/<stage>`.
    pub stage: Arn,
    /// What is cached, or throttled; nothing else is.
    pub resources: Vec<Cached>,
    /// Whether it is cached.
    #[serde(default = "yes")]
    pub cache: bool,
    /// The limits that requests get where nothing is cached: because `cache` is off, because it would not be safe, or
    /// because no request succeeds.
    #[serde(default)]
    pub throttle: Option<Throttle>,
    /// Memory of the cache cluster in GB. A cluster that is there already keeps its size.
    #[serde(default)]
    pub size_gb: Size,
    /// How long an answer is served from the cache, 1 to 3,600 s, as far as `error_ttl_seconds` allows.
    #[serde(default = "one_minute")]
    pub ttl_seconds: NonZeroU32,
    /// How long an error may be served from the cache, 1 to 3,600 s. API Gateway keeps errors as long as other answers, so
    /// that the lesser of the two is put.
    #[serde(default = "one_minute")]
    pub error_ttl_seconds: NonZeroU32,
    /// Whether the cached answers are encrypted.
    #[serde(default = "yes")]
    pub encrypted: bool,
    /// Whether a client needs permission to have an answer made anew (`Cache-Control: max-age=0`).
    #[serde(default = "yes")]
    pub require_authorization_for_cache_control: bool,
    /// How far back requests are counted, 60 to 3,600 s, in whole minutes.
    #[serde(default = "five_minutes")]
    pub window_seconds: NonZeroU32,
    /// The share of server errors, above 0 up to 1, among the requests that the cache does not answer, below which the
    /// backend counts as well again. From it on, the cache stays when the alarm is back at OK, within its term.
    #[serde(default = "one_in_twenty")]
    pub recovered_below: f64,
    /// How long it stays.
    #[serde(default)]
    pub term: Term,
}

/// Methods of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cached {
    /// The resource's path, as in the API: `/orders/{id}`.
    pub path: String,
    /// Its methods: GET, unless it says otherwise. GET and HEAD are never cached together, because AWS does not say
    /// whether they share their entries.
    #[serde(default)]
    pub methods: BTreeSet<Method>,
    /// Whether the backend answers every client alike, whatever a request holds beyond the cache key. Whoever says so
    /// vouches for it: a proxy integration passes on the whole request, and nothing else can tell what it reads.
    #[serde(default)]
    pub answers_all_clients_alike: bool,
}

/// Limits for each method. One that is lower already stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Requests in a second, on average; 1 or more.
    pub rate_limit: NonZeroU32,
    /// Requests at once; 1 or more.
    pub burst_limit: NonZeroU32,
    /// Whether every method of the stage gets them, and not those of `resources` alone.
    #[serde(default)]
    pub every_method: bool,
}

/// A method without side effects.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
}

impl Method {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
        }
    }
}

/// The sizes that API Gateway has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Size {
    /// 0.5 GB
    #[default]
    #[serde(rename = "0.5")]
    Half,
    /// 1.6 GB
    #[serde(rename = "1.6")]
    OnePointSix,
    /// 6.1 GB
    #[serde(rename = "6.1")]
    SixPointOne,
    /// 13.5 GB
    #[serde(rename = "13.5")]
    ThirteenAndAHalf,
    /// 28.4 GB
    #[serde(rename = "28.4")]
    TwentyEightPointFour,
    /// 58.2 GB
    #[serde(rename = "58.2")]
    FiftyEightPointTwo,
    /// 118 GB
    #[serde(rename = "118")]
    OneHundredAndEighteen,
    /// 237 GB
    #[serde(rename = "237")]
    TwoHundredAndThirtySeven,
}

impl Size {
    /// As API Gateway writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Half => "0.5",
            Self::OnePointSix => "1.6",
            Self::SixPointOne => "6.1",
            Self::ThirteenAndAHalf => "13.5",
            Self::TwentyEightPointFour => "28.4",
            Self::FiftyEightPointTwo => "58.2",
            Self::OneHundredAndEighteen => "118",
            Self::TwoHundredAndThirtySeven => "237",
        }
    }
}

/// API Gateway keeps whatever the backend answered, errors too.
const fn one_minute() -> NonZeroU32 {
    match NonZeroU32::new(60) {
        Some(seconds) => seconds,
        None => NonZeroU32::MIN,
    }
}

const fn five_minutes() -> NonZeroU32 {
    match NonZeroU32::new(300) {
        Some(seconds) => seconds,
        None => NonZeroU32::MIN,
    }
}

/// As the template's alarm has it, unless its parameter says otherwise.
const fn one_in_twenty() -> f64 {
    0.05
}

const fn yes() -> bool {
    true
}

impl Cache {
    /// The REST API's id.
    #[must_use]
    pub fn rest_api(&self) -> &str {
        self.parts().0
    }

    /// The stage's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        self.stage
            .resource()
            .strip_prefix("/restapis/")
            .and_then(|rest| rest.split_once("/stages/"))
            .unwrap_or_default()
    }
}

impl Action for Cache {
    const TEMPORARY: bool = true;

    fn resource(&self) -> &str {
        self.stage.as_str()
    }

    fn check(&self) -> Result<(), String> {
        let form = "arn:aws:apigateway:<region>::/restapis/<api>/stages/<stage>";
        if self.stage.service() != "apigateway" {
            return Err(format!("{} is no stage; give {form}", self.stage));
        }
        if self.stage.resource().starts_with("/apis/") {
            return Err(format!(
                "{} is a stage of an HTTP or WebSocket API, and those have no cache; put a CloudFront distribution with a cache policy before it, or use the maintenance page",
                self.stage
            ));
        }
        let (api, stage) = self.parts();
        if api.is_empty() || stage.is_empty() || api.contains('/') || stage.contains('/') {
            return Err(format!("{} is no stage; give {form}", self.stage));
        }
        if self.resources.is_empty() {
            return Err(
                "resources is empty; name each resource that may be cached: nothing stands for all of them"
                    .to_owned(),
            );
        }
        if !self.cache && self.throttle.is_none() {
            return Err(
                "cache is false and throttle is not given, so that nothing would be done; give one of them"
                    .to_owned(),
            );
        }
        let mut seen = BTreeSet::new();
        for Cached { path, .. } in &self.resources {
            if !path.starts_with('/') || path.contains('*') {
                return Err(format!(
                    "resources has {path:?}; give one resource's path, as in \"/orders/{{id}}\""
                ));
            }
            if !seen.insert(path) {
                return Err(format!("resources has {path} twice"));
            }
        }
        for (name, ttl) in [
            ("ttl_seconds", self.ttl_seconds),
            ("error_ttl_seconds", self.error_ttl_seconds),
        ] {
            if ttl.get() > LONGEST_TTL {
                return Err(format!("{name} is {ttl}; it must be 1 to {LONGEST_TTL}"));
            }
        }
        if !(self.recovered_below > 0.0 && self.recovered_below <= 1.0) {
            return Err(format!(
                "recovered_below is {}; it must be above 0, and 1 at most, as in 0.05",
                self.recovered_below
            ));
        }
        let window = self.window_seconds.get();
        if !(60..=3_600).contains(&window) || !window.is_multiple_of(60) {
            return Err(format!(
                "window_seconds is {window}; it must be 60 to 3600, in whole minutes"
            ));
        }
        self.term.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn least() -> Value {
        json!({
            "stage": "arn:aws:apigateway:eu-west-1::/restapis/a1b2c3/stages/prod",
            "resources": [{"path": "/orders/{id}"}],
        })
    }

    fn check(change: impl FnOnce(&mut Value)) -> Result<(), String> {
        let mut value = least();
        change(&mut value);
        serde_json::from_value::<Cache>(value)
            .map_err(|error| error.to_string())?
            .check()
    }

    #[test]
    fn a_stage_and_a_resource_will_do() {
        check(|_| {}).unwrap();
    }

    #[test]
    fn an_error_is_kept_for_a_minute_at_most_unless_the_policy_says_otherwise() {
        let cache: Cache = serde_json::from_value(least()).unwrap();
        assert_eq!(cache.ttl_seconds.get(), 60);
        assert_eq!(cache.error_ttl_seconds.get(), 60);
        assert_eq!(cache.window_seconds.get(), 300);
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_name() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 14] = [
            (
                |v| v["stage"] = json!("arn:aws:apigateway:eu-west-1::/apis/a1/stages/prod"),
                "HTTP or WebSocket API, and those have no cache; put a CloudFront",
            ),
            (
                |v| v["stage"] = json!("arn:aws:apigateway:eu-west-1::/restapis/a1"),
                "is no stage",
            ),
            (|v| v["resources"] = json!([]), "nothing stands for all"),
            (
                |v| v["resources"] = json!([{"path": "/*"}]),
                "give one resource's path",
            ),
            (
                |v| v["resources"] = json!([{"path": "/a"}, {"path": "/a"}]),
                "/a twice",
            ),
            (
                |v| v["resources"] = json!([{"path": "/a", "methods": ["POST"]}]),
                "unknown variant `POST`",
            ),
            (
                |v| v["ttl_seconds"] = json!(3601),
                "ttl_seconds is 3601; it must be 1 to 3600",
            ),
            (
                |v| v["error_ttl_seconds"] = json!(3601),
                "error_ttl_seconds is 3601",
            ),
            (
                |v| v["recovered_below"] = json!(0),
                "above 0, and 1 at most",
            ),
            (
                |v| v["recovered_below"] = json!(1.01),
                "above 0, and 1 at most",
            ),
            (|v| v["cache"] = json!(false), "nothing would be done"),
            (
                |v| v["throttle"] = json!({"rate_limit": 0, "burst_limit": 5}),
                "nonzero",
            ),
            (|v| v["size_gb"] = json!("2"), "unknown variant `2`"),
            (
                |v| v["term"] = json!({"expires_after_seconds": 20_000}),
                "is above term.at_most_seconds",
            ),
        ];
        for (change, words) in cases {
            let problem = check(change).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }
}
