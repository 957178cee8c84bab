//! What the policy says of a page: where it goes up, who may raise it, what it says, and for how long.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::arn::Arn;
use shared::policy::{Action, Home, Term};

use crate::wording::Wording;

/// The form of a mapping's ARN, for errors.
const MAPPING: &str = "arn:aws:apigateway:<region>::/domainnames/<domain name>/basepathmappings/<base path or (none)>";
/// Characters of a SHA-256 in hexadecimal.
const SHA256: usize = 64;
/// What the paths of health checks and the page's wording may come to as JSON: a key's value has at most 1,024 characters
/// (Amazon `CloudFront` Developer Guide, "File format for key-value pairs"), and 384 are kept for the rest of the notice.
const PATHS: usize = 640;
/// How long the machine that ends a page can wait: an execution lasts a year at most (AWS Step Functions Developer Guide,
/// "Step Functions service quotas"), and a day is left for what follows.
const LONGEST_WAIT: u32 = 364 * 24 * 3_600;

/// A page before one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// What is in front of the service, and puts the page in its place.
    pub front: Front,
    /// A URL of the service as its clients use it; it is fetched to see whether the page is there.
    pub url: String,
    /// Who may raise it.
    #[serde(default)]
    pub raise: Raise,
    /// How often the page promises an update, 1 to 1,440 minutes.
    #[serde(default = "fifteen_minutes")]
    pub next_update_minutes: NonZeroU32,
    /// What it says; as in the template where it is not given.
    #[serde(default, skip_serializing_if = "Wording::is_default")]
    pub page: Wording,
    /// How long it stays.
    #[serde(default)]
    pub term: Term,
}

/// What is in front of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Front {
    /// A `CloudFront` distribution whose function on the viewer's request reads a key-value store.
    Cloudfront(KeyValueStore),
    /// A custom domain of API Gateway that is mapped to another API while the page is up.
    ApiGateway(Mapping),
}

/// The key-value store of the distribution's function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyValueStore {
    /// The store's ARN.
    pub key_value_store: Arn,
    /// The SHA-256, in hexadecimal, of the secret with which responders see the service. Nobody does without it.
    #[serde(default)]
    pub bypass_sha256: Option<String>,
    /// Paths that always reach the service, at most 640 characters as a JSON list, the page's wording included.
    #[serde(default)]
    pub health_check_paths: BTreeSet<String>,
    /// What the page tells clients to wait before they come again, 1 to 3,600 s.
    #[serde(default = "two_minutes")]
    pub retry_after_seconds: NonZeroU32,
}

/// The mapping of the custom domain. Its maintenance API has the bypass and the paths of health checks in itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The mapping: `arn:aws:apigateway:<region>::/domainnames/<domain name>/basepathmappings/<base path>`. A private
    /// domain has its id behind its name: `<domain name>+<id>`.
    pub mapping: Arn,
    /// The REST API that answers with the page.
    pub maintenance_api: String,
    /// Its stage.
    pub maintenance_stage: String,
    /// The ARN of the state machine that takes the page down at the end of its longest term. A mapping has no end of its
    /// own: without it, a page stays up for as long as this function cannot run.
    #[serde(default)]
    pub end_machine: Option<Arn>,
}

/// Who may raise the page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Raise {
    /// A human approves the plan first.
    #[default]
    WithApproval,
    /// The alarm alone.
    Automatically,
}

const fn number(value: u32) -> NonZeroU32 {
    match NonZeroU32::new(value) {
        Some(value) => value,
        None => NonZeroU32::MIN,
    }
}

const fn fifteen_minutes() -> NonZeroU32 {
    number(15)
}

const fn two_minutes() -> NonZeroU32 {
    number(120)
}

impl Mapping {
    /// The custom domain's name.
    #[must_use]
    pub fn domain_name(&self) -> &str {
        let domain = self.parts().0;
        domain.split_once('+').map_or(domain, |(name, _)| name)
    }

    /// The id of a private domain, without which API Gateway does not find it (Amazon API Gateway API Reference,
    /// `GetBasePathMapping`).
    #[must_use]
    pub fn domain_name_id(&self) -> Option<&str> {
        self.parts().0.split_once('+').map(|(_, id)| id)
    }

    /// The base path; `(none)` for the root.
    #[must_use]
    pub fn base_path(&self) -> &str {
        self.parts().1
    }

    /// The variable of the maintenance API's stage that says who holds the page of this mapping, so that several
    /// mappings can share the stage. A variable's name has letters, digits and `_`, at most 64 (Amazon API Gateway
    /// Developer Guide, "Quotas for configuring and running a REST API in API Gateway").
    #[must_use]
    pub fn holder(&self) -> String {
        format!("by_{}", shared::ids::digest(&[self.mapping.as_str()], 8))
    }

    fn parts(&self) -> (&str, &str) {
        self.mapping
            .resource()
            .strip_prefix("/domainnames/")
            .and_then(|rest| rest.split_once("/basepathmappings/"))
            .unwrap_or_default()
    }

    fn check(&self) -> Result<(), String> {
        let (domain, base_path) = self.parts();
        let one = |part: &str| !part.is_empty() && !part.contains(['/', '*']);
        if one(domain) && base_path.contains('/') {
            return Err(format!(
                "{} has a base path of several levels, which API Gateway's base-path mappings do not have (its V2 API makes such a mapping); put the page before the domain with a CloudFront distribution, or map the service at one level",
                self.mapping
            ));
        }
        if self.mapping.service() != "apigateway" || !one(domain) || !one(base_path) {
            return Err(format!("{} is no mapping; give {MAPPING}", self.mapping));
        }
        if self.maintenance_api.is_empty() || self.maintenance_stage.is_empty() {
            return Err(
                "maintenance_api and maintenance_stage must name the API that answers with the page"
                    .to_owned(),
            );
        }
        match &self.end_machine {
            Some(_) if self.domain_name_id().is_some() => Err(format!(
                "{} is of a private domain, and end_machine cannot name one by its id; leave end_machine out",
                self.mapping
            )),
            Some(machine) if !is_machine(machine) => Err(format!(
                "end_machine is {machine}; give arn:aws:states:<region>:<account>:stateMachine:<name>"
            )),
            _ => Ok(()),
        }
    }
}

fn is_machine(arn: &Arn) -> bool {
    let name = arn.resource().strip_prefix("stateMachine:");
    arn.service() == "states" && name.is_some_and(|name| !name.is_empty() && !name.contains(':'))
}

impl KeyValueStore {
    fn check(&self, wording: &Wording) -> Result<(), String> {
        let arn = &self.key_value_store;
        if arn.service() != "cloudfront" || !arn.resource().starts_with("key-value-store/") {
            return Err(format!(
                "{arn} is no key-value store; give arn:aws:cloudfront::<account>:key-value-store/<id>"
            ));
        }
        if let Some(hash) = &self.bypass_sha256
            && (hash.len() != SHA256
                || !hash
                    .bytes()
                    .all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')))
        {
            return Err(
                "bypass_sha256 is no SHA-256 in lower-case hexadecimal; print the secret's with: printf %s \"$SECRET\" | sha256sum"
                    .to_owned(),
            );
        }
        if let Some(path) = self
            .health_check_paths
            .iter()
            .find(|path| !path.starts_with('/') || path.contains('*'))
        {
            return Err(format!(
                "health_check_paths has {path:?}; give whole paths, as in \"/health\""
            ));
        }
        let paths = serde_json::to_string(&self.health_check_paths).unwrap_or_default();
        if paths.len() > PATHS {
            return Err(format!(
                "health_check_paths comes to {} characters as a JSON list; {PATHS} are the most that fit into the key-value store with the notice: give fewer or shorter paths",
                paths.len()
            ));
        }
        let both = paths.len() + wording.length();
        if !wording.is_default() && both > PATHS {
            return Err(format!(
                "page and health_check_paths come to {both} characters as JSON; {PATHS} are the most that fit into the key-value store with the notice: shorten page.message, or give fewer paths"
            ));
        }
        if self.retry_after_seconds.get() > 3_600 {
            return Err(format!(
                "retry_after_seconds is {}; it must be 1 to 3600",
                self.retry_after_seconds
            ));
        }
        Ok(())
    }
}

impl Action for Page {
    const TEMPORARY: bool = true;
    const TURNS_REQUESTS_AWAY: bool = true;

    fn resource(&self) -> &str {
        match &self.front {
            Front::Cloudfront(store) => store.key_value_store.as_str(),
            Front::ApiGateway(mapping) => mapping.mapping.as_str(),
        }
    }

    fn check(&self) -> Result<(), String> {
        match &self.front {
            Front::Cloudfront(store) => store.check(&self.page)?,
            Front::ApiGateway(mapping) => {
                mapping.check()?;
                self.page.check_variables()?;
            }
        }
        self.page.check()?;
        check_url(&self.url)?;
        if self.next_update_minutes.get() > 1_440 {
            return Err(format!(
                "next_update_minutes is {}; it must be 1 to 1440",
                self.next_update_minutes
            ));
        }
        self.term.check()?;
        match &self.front {
            Front::ApiGateway(Mapping {
                end_machine: Some(_),
                ..
            }) if self.term.at_most_seconds.get() > LONGEST_WAIT => Err(format!(
                "term.at_most_seconds is {}; end_machine can wait {LONGEST_WAIT} at most",
                self.term.at_most_seconds
            )),
            _ => Ok(()),
        }
    }

    fn check_reach(&self, home: &Home) -> Result<(), String> {
        match &self.front {
            Front::ApiGateway(Mapping {
                end_machine: Some(machine),
                ..
            }) if machine.region() != home.region || machine.account() != home.account => {
                Err(format!(
                    "end_machine {machine} is of another account or region than the function; deploy the stack beside it, or name the machine of {} in {}",
                    home.account, home.region
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Plain HTTP is taken for the machine itself only.
fn check_url(url: &str) -> Result<(), String> {
    let parsed: http::Uri = url
        .parse()
        .map_err(|error| format!("url {url:?} is no URL: {error}"))?;
    let host = parsed.host().unwrap_or_default();
    let here = host == "localhost" || host.ends_with(".localhost") || host == "127.0.0.1";
    if host.contains(".execute-api.") && !here {
        return Err(format!(
            "url is {url:?}, an API's own endpoint, which no page is before, and which answers 403 where it is disabled (disableExecuteApiEndpoint); give the URL of the distribution or of the custom domain"
        ));
    }
    match parsed.scheme_str() {
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if here => Ok(()),
        _ => Err(format!(
            "url is {url:?}; give the https URL that clients of the service use"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const MACHINE: &str = "arn:aws:states:eu-west-1:123456789012:stateMachine:end";

    fn check(front: &Value, change: impl FnOnce(&mut Value)) -> Result<(), String> {
        let mut value = json!({"front": front, "url": "https://dashboard.example.com/"});
        change(&mut value);
        serde_json::from_value::<Page>(value)
            .map_err(|error| error.to_string())?
            .check()
    }

    fn store() -> Value {
        json!({"cloudfront": {
            "key_value_store": "arn:aws:cloudfront::123456789012:key-value-store/a1b2",
        }})
    }

    fn mapping() -> Value {
        json!({"api_gateway": {
            "mapping": "arn:aws:apigateway:eu-west-1::/domainnames/api.example.com/basepathmappings/(none)",
            "maintenance_api": "m1",
            "maintenance_stage": "page",
        }})
    }

    #[test]
    fn both_fronts_will_do_with_what_is_required() {
        check(&store(), |_| {}).unwrap();
        check(&mapping(), |_| {}).unwrap();
        let page: Page = serde_json::from_value(json!({"front": mapping(), "url": ""})).unwrap();
        assert_eq!(page.raise, Raise::WithApproval);
        let Front::ApiGateway(mapping) = &page.front else {
            panic!("{page:?}")
        };
        assert_eq!(mapping.domain_name(), "api.example.com");
        assert_eq!(mapping.base_path(), "(none)");
        assert_eq!(mapping.domain_name_id(), None);
    }

    #[test]
    fn a_private_domain_is_named_with_its_id() {
        let mut front = mapping();
        front["api_gateway"]["mapping"] = json!(
            "arn:aws:apigateway:eu-west-1:123456789012:/domainnames/api.example.com+b1/basepathmappings/shop"
        );
        check(&front, |_| {}).unwrap();
        let private: Mapping = serde_json::from_value(front["api_gateway"].clone()).unwrap();
        assert_eq!(private.domain_name(), "api.example.com");
        assert_eq!(private.domain_name_id(), Some("b1"));
        assert_eq!(private.base_path(), "shop");
        front["api_gateway"]["end_machine"] = json!(MACHINE);
        let error = check(&front, |_| {}).unwrap_err();
        assert!(error.contains("leave end_machine out"), "{error}");
    }

    #[test]
    fn a_machine_of_another_account_or_region_is_out_of_reach() {
        let mut front = mapping();
        front["api_gateway"]["end_machine"] = json!(MACHINE);
        check(&front, |_| {}).unwrap();
        let page: Page = serde_json::from_value(json!({"front": front, "url": ""})).unwrap();
        let home = |region: &str, account: &str| Home {
            partition: "aws".to_owned(),
            region: region.to_owned(),
            account: account.to_owned(),
        };
        page.check_reach(&home("eu-west-1", "123456789012"))
            .unwrap();
        for elsewhere in [home("us-east-1", "123456789012"), home("eu-west-1", "1")] {
            let error = page.check_reach(&elsewhere).unwrap_err();
            assert!(error.contains(MACHINE), "{error}");
        }
    }

    #[test]
    fn a_url_that_no_page_is_before_is_refused() {
        for (url, words) in [
            ("http://dashboard.example.com/", "https URL"),
            ("dashboard.example.com", "https URL"),
            (
                "https://a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com/prod",
                "an API's own endpoint",
            ),
        ] {
            let error = check_url(url).unwrap_err();
            assert!(error.contains(words) && error.contains(url), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_name() {
        type Change = fn(&mut Value);
        let cases: [(Value, Change, &str); 14] = [
            (
                store(),
                |v| v["front"]["cloudfront"]["key_value_store"] = json!("arn:aws:s3:::b"),
                "is no key-value store",
            ),
            (
                store(),
                |v| v["front"]["cloudfront"]["bypass_sha256"] = json!("secret"),
                "sha256sum",
            ),
            (
                store(),
                |v| v["front"]["cloudfront"]["health_check_paths"] = json!(["health"]),
                "whole paths",
            ),
            (
                store(),
                |v| {
                    let path = format!("/{}", "x".repeat(636));
                    v["front"]["cloudfront"]["health_check_paths"] = json!([path]);
                },
                "comes to 641 characters",
            ),
            (
                store(),
                |v| v["front"]["cloudfront"]["retry_after_seconds"] = json!(3_601),
                "1 to 3600",
            ),
            (
                mapping(),
                |v| {
                    let domain = "arn:aws:apigateway:eu-west-1::/domainnames/a";
                    v["front"]["api_gateway"]["mapping"] = json!(domain);
                },
                "is no mapping",
            ),
            (
                mapping(),
                |v| {
                    let levels =
                        "arn:aws:apigateway:eu-west-1::/domainnames/a/basepathmappings/orders/v1";
                    v["front"]["api_gateway"]["mapping"] = json!(levels);
                },
                "has a base path of several levels",
            ),
            (
                mapping(),
                |v| v["front"]["api_gateway"]["maintenance_api"] = json!(""),
                "must name the API",
            ),
            (
                mapping(),
                |v| {
                    let function = "arn:aws:lambda:r:1:function:f";
                    v["front"]["api_gateway"]["end_machine"] = json!(function);
                },
                "give arn:aws:states:",
            ),
            (
                mapping(),
                |v| v["front"]["api_gateway"]["end_machine"] = json!(format!("{MACHINE}:1")),
                "give arn:aws:states:",
            ),
            (
                mapping(),
                |v| {
                    v["front"]["api_gateway"]["end_machine"] = json!(MACHINE);
                    v["term"] = json!({"at_most_seconds": 31_536_000});
                },
                "can wait 31449600 at most",
            ),
            (
                store(),
                |v| v["next_update_minutes"] = json!(1_441),
                "1 to 1440",
            ),
            (
                store(),
                |v| v["term"] = json!({"expires_after_seconds": 7_200, "at_most_seconds": 3_600}),
                "above term.at_most_seconds",
            ),
            (store(), |v| v["raise"] = json!("always"), "with_approval"),
        ];
        for (front, change, words) in cases {
            let error = check(&front, change).unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
