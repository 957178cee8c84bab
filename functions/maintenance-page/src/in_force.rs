//! What is in force between the clients of a custom domain and its page. Pure.
//!
//! A mapping that was written is not yet a page that is seen: the domain may go by routing rules instead, the page's stage
//! may serve nothing, and the method that should answer may turn clients away. What would keep the page from being seen
//! is refused before anything is changed; what keeps it from being seen by this function alone, or by some clients, is
//! told.
//!
//! A stage serves a deployment, a copy of its API (API Gateway Developer Guide, "Deploy REST APIs in API Gateway"), and
//! `GetExport` tells that copy, in the terms of the guide's "`OpenAPI` extensions for API Gateway".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::Mapping;

/// The status of the page.
const PAGE: u16 = 503;
/// The operations of a path that a client's `GET` or a form can reach. A preflight is none of them.
const OPERATIONS: [(&str, &str); 7] = [
    ("get", "GET"),
    ("head", "HEAD"),
    ("post", "POST"),
    ("put", "PUT"),
    ("patch", "PATCH"),
    ("delete", "DELETE"),
    ("x-amazon-apigateway-any-method", "ANY"),
];

/// What is in force before a page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InForce {
    /// How the domain takes requests.
    pub domain: Domain,
    /// What the page's stage serves.
    pub stage: Stage,
    /// Whom the page's methods answer.
    pub access: Access,
}

/// How a custom domain takes requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// What they go by.
    pub routing: Routing,
    /// Whether it answers inside its VPCs alone.
    pub private: bool,
    /// Whether it asks clients for a certificate.
    pub mutual_tls: bool,
    /// Its status and what API Gateway says of it, where that is not `AVAILABLE`.
    pub status: Option<String>,
    /// Why none of this could be read.
    pub unknown: Option<String>,
}

/// What the requests to a custom domain go by (API Gateway Developer Guide, "Set the routing mode for your custom domain
/// name").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub enum Routing {
    /// Its mappings.
    #[default]
    Mappings,
    /// Its routing rules, and its mappings where no rule matches.
    RulesFirst,
    /// Its routing rules alone.
    RulesAlone,
    /// A mode of another name.
    Other(String),
}

impl Routing {
    /// By the name of the mode, which the first version of API Gateway's API and the second write differently.
    #[must_use]
    pub fn of(mode: Option<&str>) -> Self {
        match mode {
            None | Some("" | "BASE_PATH_MAPPING_ONLY" | "API_MAPPING_ONLY") => Self::Mappings,
            Some("ROUTING_RULE_ONLY") => Self::RulesAlone,
            Some("ROUTING_RULE_THEN_BASE_PATH_MAPPING" | "ROUTING_RULE_THEN_API_MAPPING") => {
                Self::RulesFirst
            }
            Some(other) => Self::Other(other.to_owned()),
        }
    }
}

/// What the stage of the page serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum Stage {
    /// A deployment.
    #[default]
    Deployed,
    /// It has none.
    WithoutDeployment,
    /// There is no such stage.
    Missing,
}

/// Whom the methods of the page's API answer, as they are deployed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Access {
    /// The method that answers the policy's URL, if it turns clients away.
    pub at_url: Option<Shut>,
    /// The other methods that do, the first three of them.
    pub elsewhere: Vec<Shut>,
    /// How many there are.
    pub shut_elsewhere: usize,
    /// What cannot be told of them, and why.
    pub unknown: Option<String>,
}

/// A method that turns clients away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shut {
    /// The method and its path.
    pub method: String,
    /// What it needs.
    pub needs: Need,
    /// The status that clients get without it.
    pub status: u16,
}

/// What a method needs of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Need {
    /// A signature.
    Signature,
    /// What its authorizer wants.
    Authorizer,
    /// An API key.
    Key,
}

impl Need {
    fn name(self) -> &'static str {
        match self {
            Self::Signature => "a signature (AWS_IAM)",
            Self::Authorizer => "what its authorizer wants",
            Self::Key => "an API key",
        }
    }

    /// The gateway responses to clients that lack it, with their status where nothing else is set (API Gateway Developer
    /// Guide, "Gateway response types for API Gateway").
    fn refusals(self) -> &'static [(&'static str, u16)] {
        match self {
            Self::Signature => &[("MISSING_AUTHENTICATION_TOKEN", 403)],
            Self::Authorizer => &[("UNAUTHORIZED", 401), ("ACCESS_DENIED", 403)],
            Self::Key => &[("INVALID_API_KEY", 403)],
        }
    }
}

/// What is known of a page before it goes up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Why this function cannot see the page, though clients do.
    pub unseen: Option<String>,
    /// What may keep some clients from it.
    pub notes: Vec<String>,
}

impl InForce {
    /// What can be said of the page that the mapping would show; an error where no client would see it, with the remedy.
    pub fn outlook(&self, mapping: &Mapping, url: &str) -> Result<Outlook, String> {
        let domain = mapping.domain_name();
        let (api, stage) = (&mapping.maintenance_api, &mapping.maintenance_stage);
        if self.domain.routing == Routing::RulesAlone {
            return Err(format!(
                "{domain} goes by routing rules alone (routingMode ROUTING_RULE_ONLY), so that no mapping of it is used and the page would not be seen; put the page before it with a CloudFront distribution, or set its routing mode to BASE_PATH_MAPPING_ONLY once its mappings lead to the service"
            ));
        }
        match self.stage {
            Stage::Missing => Err(format!(
                "the maintenance API {api} has no stage {stage}; create it with a deployment, or name one that there is in maintenance_stage"
            )),
            Stage::WithoutDeployment => Err(format!(
                "the stage {stage} of the maintenance API {api} has no deployment and answers nothing; deploy the API: aws apigateway create-deployment --rest-api-id {api} --stage-name {stage}"
            )),
            Stage::Deployed => Ok(()),
        }?;
        if let Some(shut) = &self.access.at_url {
            return Err(format!(
                "{} of the maintenance API {api}, which answers {url}, needs {}, and gives clients without it {} instead of the page; set its authorization to NONE, or have the gateway response {} answer {PAGE} with the page, and deploy the API to the stage {stage}",
                shut.method,
                shut.needs.name(),
                shut.status,
                shut.needs
                    .refusals()
                    .iter()
                    .map(|(kind, _)| *kind)
                    .collect::<Vec<_>>()
                    .join(" and "),
            ));
        }
        Ok(Outlook {
            unseen: self.domain.unseen(domain),
            notes: self.notes(domain, api),
        })
    }

    fn notes(&self, domain: &str, api: &str) -> Vec<String> {
        let routing = match &self.domain.routing {
            Routing::RulesFirst => Some(format!(
                "{domain} goes by its routing rules first (routingMode ROUTING_RULE_THEN_BASE_PATH_MAPPING): where one of them matches, clients get what it leads to and not the page"
            )),
            Routing::Other(mode) => Some(format!(
                "{domain} has the routing mode {mode}, which is not known here: it may not use its mappings"
            )),
            Routing::Mappings | Routing::RulesAlone => None,
        };
        let unread = self.domain.unknown.as_ref().map(|why| {
            format!(
                "whether {domain} goes by its mappings, and whom it answers, cannot be told: {why}"
            )
        });
        let status = self
            .domain
            .status
            .as_ref()
            .map(|status| format!("{domain} is not AVAILABLE but {status}"));
        let shut = self.access.elsewhere.first().map(|shut| {
            let all: Vec<&str> = (self.access.elsewhere.iter())
                .map(|shut| shut.method.as_str())
                .collect();
            format!(
                "{} of the maintenance API's methods turn clients away instead of showing the page, such as {}, which needs {} and answers {}",
                self.access.shut_elsewhere,
                all.join(", "),
                shut.needs.name(),
                shut.status
            )
        });
        let unknown = self.access.unknown.as_ref().map(|why| {
            format!("whether the maintenance API {api} turns clients away cannot be told: {why}")
        });
        [routing, unread, status, shut, unknown]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl Domain {
    /// What could not be read.
    #[must_use]
    pub fn unknown(why: impl Into<String>) -> Self {
        Self {
            unknown: Some(why.into()),
            ..Self::default()
        }
    }

    /// Why a function without a client certificate and outside the VPCs cannot see what the domain shows.
    fn unseen(&self, domain: &str) -> Option<String> {
        if self.private {
            Some(format!(
                "{domain} is a private domain, which answers inside its VPCs alone"
            ))
        } else if self.mutual_tls {
            Some(format!(
                "{domain} asks clients for a certificate (mutual TLS), and this function has none"
            ))
        } else {
            None
        }
    }
}

#[derive(Debug, Deserialize)]
struct Document {
    paths: BTreeMap<String, BTreeMap<String, Value>>,
    #[serde(default)]
    components: Components,
    #[serde(default)]
    security: Vec<BTreeMap<String, Value>>,
    #[serde(rename = "x-amazon-apigateway-gateway-responses")]
    responses: Option<BTreeMap<String, GatewayResponse>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Components {
    #[serde(default)]
    security_schemes: BTreeMap<String, Scheme>,
}

#[derive(Debug, Deserialize)]
struct Scheme {
    #[serde(rename = "x-amazon-apigateway-authtype")]
    auth_type: Option<String>,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Operation {
    security: Option<Vec<BTreeMap<String, Value>>>,
    #[serde(rename = "x-amazon-apigateway-auth")]
    auth: Option<Auth>,
}

#[derive(Debug, Deserialize)]
struct Auth {
    #[serde(rename = "type")]
    kind: String,
}

/// A gateway response. Its status is written as a number or as a text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GatewayResponse {
    status_code: Option<Value>,
}

impl GatewayResponse {
    fn status(&self) -> Option<u16> {
        match self.status_code.as_ref()? {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64().and_then(|number| number.try_into().ok()),
        }
    }
}

impl Access {
    /// What could not be read.
    #[must_use]
    pub fn unknown(why: impl Into<String>) -> Self {
        Self {
            unknown: Some(why.into()),
            ..Self::default()
        }
    }

    /// What the export of the page's stage tells. `url` is the policy's, `base_path` the mapping's.
    #[must_use]
    pub fn exported(export: &[u8], url: &str, base_path: &str) -> Self {
        let document: Document = match serde_json::from_slice(export) {
            Ok(document) => document,
            Err(error) => return Self::unknown(format!("its export cannot be read: {error}")),
        };
        let asked = below(url, base_path);
        let mut methods = Vec::new();
        for (path, operations) in &document.paths {
            for (key, name) in OPERATIONS {
                let operation = operations.get(key).cloned();
                let operation = operation.map(serde_json::from_value::<Operation>);
                match operation {
                    Some(Ok(operation)) => methods.push((path.as_str(), name, operation)),
                    Some(Err(error)) => {
                        return Self::unknown(format!(
                            "{name} {path} of its export cannot be read: {error}"
                        ));
                    }
                    None => {}
                }
            }
        }
        let answering = (methods.iter())
            .filter(|(_, name, _)| matches!(*name, "GET" | "ANY"))
            .filter_map(|(path, name, _)| Some(((rank(path, &asked)?, *name == "ANY"), path)))
            .min()
            .map(|((_, any), path)| (*path, if any { "ANY" } else { "GET" }));
        let mut access = Self::default();
        for (path, name, operation) in &methods {
            let needs = document.needs(operation);
            if needs.contains(&Need::Key) && document.responses.is_none() {
                access.unknown = Some(
                    "its methods need an API key, and its export names no gateway response INVALID_API_KEY"
                        .to_owned(),
                );
            }
            let Some((needs, status)) = needs.iter().find_map(|need| document.refusal(*need))
            else {
                continue;
            };
            let shut = Shut {
                method: format!("{name} {path}"),
                needs,
                status,
            };
            if answering == Some((*path, *name)) {
                access.at_url = Some(shut);
            } else {
                access.shut_elsewhere += 1;
                if access.elsewhere.len() < 3 {
                    access.elsewhere.push(shut);
                }
            }
        }
        access
    }
}

impl Document {
    /// What a method needs, in the order in which API Gateway looks: an API key comes last.
    fn needs(&self, operation: &Operation) -> Vec<Need> {
        let schemes = operation.security.as_ref().unwrap_or(&self.security);
        let mut needs: Vec<Need> = (schemes.iter().flat_map(BTreeMap::keys))
            .map(|name| self.need(name))
            .collect();
        if let Some(auth) = &operation.auth {
            match auth.kind.as_str() {
                "NONE" => {}
                "AWS_IAM" => needs.push(Need::Signature),
                _ => needs.push(Need::Authorizer),
            }
        }
        needs.sort_unstable();
        needs
    }

    fn need(&self, scheme: &str) -> Need {
        let known = self.components.security_schemes.get(scheme);
        let kind = known.and_then(|scheme| scheme.auth_type.as_deref());
        let header = known.and_then(|scheme| scheme.name.as_deref());
        match (kind, header) {
            (Some("awsSigv4"), _) => Need::Signature,
            (None, Some(header)) if header.eq_ignore_ascii_case("x-api-key") => Need::Key,
            _ => Need::Authorizer,
        }
    }

    /// What clients without it get, where that is not the page. An export that names no gateway responses does not tell
    /// what a missing API key comes to.
    fn refusal(&self, need: Need) -> Option<(Need, u16)> {
        if need == Need::Key && self.responses.is_none() {
            return None;
        }
        let set = |kind: &str| self.responses.as_ref()?.get(kind)?.status();
        let mut statuses = need
            .refusals()
            .iter()
            .map(|(kind, default)| set(kind).or_else(|| set("DEFAULT_4XX")).unwrap_or(*default));
        statuses
            .find(|status| *status != PAGE)
            .map(|status| (need, status))
    }
}

/// The path of an API that a URL leads to below a mapping's base path.
fn below(url: &str, base_path: &str) -> String {
    let parsed: Option<http::Uri> = url.parse().ok();
    let path = parsed.map(|uri| uri.path().to_owned()).unwrap_or_default();
    let path = path.trim_start_matches('/');
    match path.strip_prefix(base_path) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.to_owned(),
        _ => path.to_owned(),
    }
}

/// How closely a resource's path fits a request's, the least being the closest; `None` where it does not. API Gateway
/// prefers a literal part to a parameter, and that to the rest of a path (API Gateway Developer Guide, "Set up a proxy
/// integration with a proxy resource").
fn rank(resource: &str, path: &str) -> Option<Vec<u8>> {
    let mut given = path.split('/').filter(|part| !part.is_empty()).peekable();
    let mut ranks = Vec::new();
    for part in resource.split('/').filter(|part| !part.is_empty()) {
        given.peek()?;
        if part.starts_with('{') && part.ends_with("+}") {
            ranks.push(2);
            return Some(ranks);
        }
        let literal = given.next() == Some(part);
        match (literal, part.starts_with('{')) {
            (true, _) => ranks.push(0),
            (false, true) => ranks.push(1),
            (false, false) => return None,
        }
    }
    given.peek().is_none().then_some(ranks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const URL: &str = "https://api.example.com/shop/orders/1?page=2";

    fn mapping() -> Mapping {
        serde_json::from_value(json!({
            "mapping": "arn:aws:apigateway:eu-west-1::/domainnames/api.example.com/basepathmappings/shop",
            "maintenance_api": "m1",
            "maintenance_stage": "page",
        }))
        .unwrap()
    }

    /// An export whose methods need these, by path and operation.
    fn export(methods: &[(&str, &str, &[&str])], responses: &Value) -> Vec<u8> {
        let mut paths = json!({});
        for (path, operation, needs) in methods {
            let security: Vec<Value> = needs.iter().map(|name| json!({*name: []})).collect();
            paths[path][operation] = json!({"security": security, "responses": {}});
        }
        let mut document = json!({
            "openapi": "3.0.1",
            "paths": paths,
            "components": {"securitySchemes": {
                "api_key": {"type": "apiKey", "name": "x-api-key", "in": "header"},
                "sigv4": {"type": "apiKey", "name": "Authorization", "in": "header",
                    "x-amazon-apigateway-authtype": "awsSigv4"},
                "staff": {"type": "apiKey", "name": "Authorization", "in": "header",
                    "x-amazon-apigateway-authtype": "cognito_user_pools"},
            }},
        });
        if !responses.is_null() {
            document["x-amazon-apigateway-gateway-responses"] = responses.clone();
        }
        document.to_string().into_bytes()
    }

    #[test]
    fn a_domain_that_does_not_use_its_mappings_shows_no_page() {
        let outlook = |mode| {
            let mut seen = InForce::default();
            seen.domain.routing = Routing::of(mode);
            seen.outlook(&mapping(), URL)
        };
        for mappings in [None, Some("BASE_PATH_MAPPING_ONLY")] {
            assert_eq!(outlook(mappings), Ok(Outlook::default()));
        }
        let refused = outlook(Some("ROUTING_RULE_ONLY")).unwrap_err();
        assert!(refused.contains("CloudFront distribution"), "{refused}");
        for (mode, words) in [
            ("ROUTING_RULE_THEN_BASE_PATH_MAPPING", "routing rules first"),
            ("SOMETHING_NEW", "the routing mode SOMETHING_NEW"),
        ] {
            let outlook = outlook(Some(mode)).unwrap();
            assert!(outlook.notes[0].contains(words), "{outlook:?}");
            assert_eq!(outlook.unseen, None);
        }
    }

    #[test]
    fn a_stage_that_serves_nothing_is_refused_with_the_remedy() {
        for (stage, words) in [
            (Stage::Missing, "has no stage page; create it"),
            (
                Stage::WithoutDeployment,
                "create-deployment --rest-api-id m1 --stage-name page",
            ),
        ] {
            let seen = InForce {
                stage,
                ..InForce::default()
            };
            let refused = seen.outlook(&mapping(), URL).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn why_this_function_cannot_see_a_page_is_known_before() {
        let seen = |private, mutual_tls, status: Option<&str>| {
            let domain = Domain {
                private,
                mutual_tls,
                status: status.map(str::to_owned),
                ..Domain::default()
            };
            let seen = InForce {
                domain,
                ..InForce::default()
            };
            seen.outlook(&mapping(), URL).unwrap()
        };
        let private = seen(true, false, None).unseen.unwrap();
        assert!(private.contains("private domain"), "{private}");
        let mutual = seen(false, true, None).unseen.unwrap();
        assert!(mutual.contains("mutual TLS"), "{mutual}");
        let updating = seen(false, false, Some("UPDATING"));
        assert_eq!(updating.unseen, None);
        assert_eq!(
            updating.notes,
            ["api.example.com is not AVAILABLE but UPDATING"]
        );
        let unknown = InForce {
            domain: Domain::unknown("throttled"),
            ..InForce::default()
        };
        let unknown = unknown.outlook(&mapping(), URL).unwrap();
        assert_eq!(unknown.unseen, None);
        assert!(unknown.notes[0].ends_with("cannot be told: throttled"));
    }

    #[test]
    fn a_method_that_turns_clients_away_is_refused_where_the_page_is_looked_for() {
        type Needs<'a> = &'a [&'a str];
        type Refusal = Option<(Need, u16)>;
        let page = json!({"INVALID_API_KEY": {"statusCode": 503}});
        let none = json!({});
        let unauthorized = json!({"UNAUTHORIZED": {"statusCode": "503"}});
        let both =
            json!({"UNAUTHORIZED": {"statusCode": "503"}, "DEFAULT_4XX": {"statusCode": 503}});
        let unset = json!({"DEFAULT_4XX": {"responseParameters": {}}});
        // What the method needs, the gateway responses, and what clients without it get.
        let cases: [(Needs<'_>, &Value, Refusal); 9] = [
            (&[], &none, None),
            (&["api_key"], &page, None),
            (&["api_key"], &none, Some((Need::Key, 403))),
            (&["api_key"], &unset, Some((Need::Key, 403))),
            (&["api_key", "sigv4"], &page, Some((Need::Signature, 403))),
            (&["staff"], &none, Some((Need::Authorizer, 401))),
            (&["staff"], &unauthorized, Some((Need::Authorizer, 403))),
            (&["staff"], &both, None),
            (&["sigv4"], &both, None),
        ];
        for (needs, responses, wanted) in cases {
            let any = "x-amazon-apigateway-any-method";
            let export = export(&[("/{proxy+}", any, needs)], responses);
            let access = Access::exported(&export, URL, "shop");
            let found = access.at_url.as_ref().map(|shut| (shut.needs, shut.status));
            assert_eq!(found, wanted, "{needs:?} {responses}");
            assert_eq!((access.shut_elsewhere, &access.unknown), (0, &None));
            let seen = InForce {
                access,
                ..InForce::default()
            };
            let outlook = seen.outlook(&mapping(), URL);
            assert_eq!(outlook.is_err(), wanted.is_some(), "{outlook:?}");
            if let Err(refused) = outlook {
                assert!(refused.contains("ANY /{proxy+}"), "{refused}");
                assert!(refused.contains("instead of the page"), "{refused}");
            }
        }
    }

    #[test]
    fn what_other_methods_turn_away_is_told() {
        let methods: [(&str, &str, &[&str]); 4] = [
            ("/", "get", &[]),
            ("/{proxy+}", "get", &[]),
            ("/admin", "post", &["sigv4"]),
            ("/{proxy+}", "options", &["sigv4"]),
        ];
        let access = Access::exported(&export(&methods, &Value::Null), URL, "shop");
        assert_eq!(access.at_url, None);
        assert_eq!(access.shut_elsewhere, 1);
        let seen = InForce {
            access,
            ..InForce::default()
        };
        let notes = seen.outlook(&mapping(), URL).unwrap().notes;
        assert!(
            notes[0].contains("such as POST /admin, which needs a signature"),
            "{notes:?}"
        );
    }

    /// Where nothing tells that clients are turned away, the page goes up, and what was not seen is said.
    #[test]
    fn what_an_export_does_not_tell_keeps_no_page_down() {
        let keyed = export(&[("/{proxy+}", "get", &["api_key"])], &Value::Null);
        let cases: [(&[u8], &str); 3] = [
            (keyed.as_slice(), "names no gateway response"),
            (b"<html>", "its export cannot be read"),
            (br#"{"paths": {"/": {"get": 1}}}"#, "GET / of its export"),
        ];
        for (export, words) in cases {
            let access = Access::exported(export, URL, "shop");
            assert_eq!(access.at_url, None);
            let seen = InForce {
                access,
                ..InForce::default()
            };
            let notes = seen.outlook(&mapping(), URL).unwrap().notes;
            assert!(notes[0].contains(words), "{notes:?}");
        }
    }

    #[test]
    fn the_method_that_answers_is_the_closest() {
        let cases = [
            ("https://a/shop", "shop", "/"),
            ("https://a/shop/", "shop", "/"),
            ("https://a/", "(none)", "/"),
            ("https://a/shopping", "shop", "/{one}"),
            ("https://a/orders", "(none)", "/orders"),
            ("https://a/orders/1", "(none)", "/orders/{id}"),
            ("https://a/orders/1/lines", "(none)", "/orders/{rest+}"),
            ("https://a/other/1", "(none)", "/{proxy+}"),
        ];
        let resources = [
            "/",
            "/orders",
            "/orders/{id}",
            "/orders/{rest+}",
            "/{one}",
            "/{proxy+}",
        ];
        for (url, base_path, wanted) in cases {
            let path = below(url, base_path);
            let ranked = resources
                .iter()
                .filter_map(|resource| Some((rank(resource, &path)?, *resource)));
            let (_, found) = ranked.min().unwrap();
            assert_eq!(found, wanted, "{url}");
        }
        assert_eq!(rank("/{proxy+}", ""), None);
    }
}
