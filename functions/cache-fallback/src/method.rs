//! What a method's answer may depend on, and whether its cache key holds all of it. Pure.
//!
//! A cached answer is found by its cache namespace and its cache key parameters (API Gateway Developer Guide, "Cache
//! settings for REST APIs"). Everything else that an answer depends on lets one client be served another's.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::ApiMethod;
use crate::template::{self, Read, parameter};

/// Where API Gateway reads an API key.
const API_KEY: &str = "method.request.header.x-api-key";
/// Where an authorizer reads its token unless it says otherwise.
pub const TOKEN: &str = "method.request.header.Authorization";
/// By which a request chooses among mapping templates (API Gateway Developer Guide, "Mapping template transformations
/// for REST APIs").
const SENT: &str = "method.request.header.Content-Type";
/// By which it may choose among those of the answer.
const ACCEPTED: &str = "method.request.header.Accept";
/// The places of a request that a cache key can hold.
const KEYABLE: [&str; 5] = [
    "path.",
    "querystring.",
    "header.",
    "multivaluequerystring.",
    "multivalueheader.",
];

/// A method as a stage serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The resource's path.
    pub path: String,
    /// Its name.
    pub name: String,
    /// The request parameters that it declares.
    pub parameters: BTreeSet<String>,
    /// Whether it asks for an API key.
    pub api_key: bool,
    /// Whom it lets in.
    pub access: Access,
    /// What answers it.
    pub integration: Option<Integration>,
}

/// Whom a method lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everyone.
    Open,
    /// Who signs with AWS credentials (`AWS_IAM`).
    Signed,
    /// Whom an authorizer knows.
    By(Authorizer),
    /// Whom an authorizer knows of which nothing is known.
    Unknown,
}

/// Who lets clients in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorizer {
    /// Its name.
    pub name: String,
    /// Where it reads who the client is; nothing where that can be anywhere in the request.
    pub sources: Vec<String>,
}

/// What answers a method.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Integration {
    /// Its type, in upper case, as in `AWS_PROXY`.
    pub kind: Option<String>,
    /// What becomes of a body without a template, in upper case, as in `WHEN_NO_MATCH`.
    pub passthrough: Option<String>,
    /// From where its request parameters come.
    pub mapped: Vec<String>,
    /// The mapping templates of the request, by content type.
    pub templates: BTreeMap<String, String>,
    /// From where the headers of its answers come.
    pub answers_mapped: Vec<String>,
    /// The mapping templates of each answer, by content type.
    pub answer_templates: Vec<BTreeMap<String, String>>,
    /// Whether it is called with its caller's credentials.
    pub as_caller: bool,
    /// Where its answers are kept; nothing where that is told nowhere.
    pub namespace: Option<String>,
    /// The cache key parameters.
    pub key: Vec<String>,
}

/// What a method's answer depends on.
#[derive(Debug, Default)]
struct Dependence {
    inputs: BTreeSet<String>,
    unkeyable: Option<String>,
}

impl Dependence {
    fn on(&mut self, parameter: impl Into<String>) {
        self.inputs.insert(parameter.into());
    }

    fn unknown(&mut self, why: String) {
        self.unkeyable.get_or_insert(why);
    }

    fn beyond_any_key(&mut self, who: &str, reads: &str) {
        self.unknown(format!("{who} reads {reads}, which no cache key can hold"));
    }
}

/// The methods at the paths that are wanted, each with what its answer may depend on.
#[must_use]
pub fn described(all: &[Declared], wanted: impl Fn(&str) -> bool) -> Vec<ApiMethod> {
    let wanted = all.iter().filter(|method| wanted(&method.path));
    let described = wanted.map(|method| {
        let mut dependence = Dependence::default();
        on_the_method(method, &mut dependence);
        on_its_client(method, &mut dependence);
        match &method.integration {
            Some(integration) => {
                on_what_is_mapped(integration, &mut dependence);
                on_templates(method, integration, &mut dependence);
            }
            None => dependence.unknown("the stage does not tell its integration".to_owned()),
        }
        on_its_namespace(all, method, &mut dependence);
        let Dependence {
            inputs,
            mut unkeyable,
        } = dependence;
        if let Some(source) = inputs.iter().find(|source| !is_keyable(source)) {
            unkeyable.get_or_insert_with(|| {
                format!("its authorizer reads {source}, which no cache key can hold")
            });
        }
        ApiMethod {
            path: method.path.clone(),
            method: method.name.clone(),
            inputs: inputs.into_iter().collect(),
            unkeyable,
            passes_all: passes_all(method.integration.as_ref()),
            shares_cache_with: sharing(all, method),
            cache_key: cache_key(method),
        }
    });
    described.collect()
}

/// Whether a cache key can hold a source: a parameter of the request, not its body and not the context.
fn is_keyable(source: &str) -> bool {
    let place = source.strip_prefix("method.request.");
    place.is_some_and(|place| KEYABLE.iter().any(|keyable| place.starts_with(keyable)))
}

/// What the key really holds: a parameter that the method does not declare is no valid one (API Gateway API Reference,
/// `PutIntegration`, `cacheKeyParameters`).
fn cache_key(method: &Declared) -> Vec<String> {
    let named = method.integration.iter().flat_map(|it| &it.key);
    let valid = named.filter(|parameter| method.parameters.contains(*parameter));
    valid.cloned().collect()
}

/// The names of the parameters in a path, `id` in `/orders/{id}`.
fn in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(name.trim_end_matches('+'))
    })
}

fn on_the_method(method: &Declared, dependence: &mut Dependence) {
    // Without them in the key, one answer serves every value of a path parameter.
    for name in in_path(&method.path) {
        dependence.on(parameter("path", name));
    }
    dependence.inputs.extend(method.parameters.iter().cloned());
    if method.api_key {
        dependence.on(API_KEY);
    }
}

fn on_its_client(method: &Declared, dependence: &mut Dependence) {
    let told = match &method.access {
        Access::Open => return,
        Access::Signed => {
            "it is signed by its callers (AWS_IAM), and no cache key can hold who signed".to_owned()
        }
        Access::By(Authorizer { name, sources }) if sources.is_empty() => format!(
            "its authorizer {name} can read all of the request (REQUEST without identitySource), and no cache key can hold that"
        ),
        Access::By(Authorizer { sources, .. }) => {
            dependence.inputs.extend(sources.iter().cloned());
            return;
        }
        Access::Unknown => "what its authorizer reads is not told by the stage".to_owned(),
    };
    dependence.unknown(told);
}

/// What is told of no namespace may lie in the same one.
fn on_its_namespace(all: &[Declared], method: &Declared, dependence: &mut Dependence) {
    let is_untold = |found: &&Declared| {
        let integration = found.integration.as_ref();
        integration.is_some_and(|integration| integration.namespace.is_none())
    };
    if is_untold(&method) {
        dependence.unknown(
            "the stage does not tell its cacheNamespace, and the API as it is edited has no such method; deploy the API"
                .to_owned(),
        );
    } else if let Some(other) = all.iter().find(is_untold) {
        dependence.unknown(format!(
            "whether {} {} shares its cacheNamespace is not known, since that method is served and the API as it is edited has it no more; deploy the API",
            other.name, other.path
        ));
    }
}

fn on_what_is_mapped(integration: &Integration, dependence: &mut Dependence) {
    if integration.as_caller {
        dependence.beyond_any_key("its integration", "its caller's credentials");
    }
    let mapped = integration.mapped.iter().chain(&integration.answers_mapped);
    for from in mapped {
        let context = from.strip_prefix("context.");
        let of_the_request = from.starts_with("method.request.");
        if context.is_some_and(|context| !template::is_alike(context))
            || (of_the_request && !is_keyable(from))
        {
            dependence.beyond_any_key("its integration", from);
        } else if of_the_request {
            dependence.on(from);
        }
    }
}

fn on_templates(method: &Declared, integration: &Integration, dependence: &mut Dependence) {
    let Integration {
        templates,
        answer_templates,
        ..
    } = integration;
    let several = |templates: &BTreeMap<String, String>| {
        let texts: BTreeSet<&String> = templates.values().collect();
        texts.len() > 1
    };
    let closed = ["NEVER", "WHEN_NO_TEMPLATES"];
    let closed = integration
        .passthrough
        .as_deref()
        .is_some_and(|it| closed.contains(&it));
    // What no template is for is turned away, or passed on as it is.
    if several(templates) || !(templates.is_empty() || closed) {
        dependence.on(SENT);
    }
    if answer_templates.iter().any(several) {
        dependence.on(ACCEPTED);
    }
    let asked = templates.values().flat_map(|text| template::reads(text));
    let answered = answer_templates.iter().flat_map(BTreeMap::values);
    let answered = answered.flat_map(|text| template::reads_of_an_answer(text));
    for read in asked.chain(answered) {
        match read {
            // Where the path has no parameter of that name, the query is asked first, and then the headers.
            Read::Named(name) if !in_path(&method.path).any(|known| known == name) => {
                dependence.on(parameter("querystring", &name));
                dependence.on(parameter("header", &name));
            }
            Read::Named(name) => dependence.on(parameter("path", &name)),
            Read::Placed(parameter) => dependence.on(parameter),
            Read::Unkeyable(read) => dependence.beyond_any_key("its mapping template", &read),
        }
    }
}

/// Why an integration may pass on all of a request: whatever is not known to pass on chosen parts may. A body without a
/// mapping template is passed on unless `passthroughBehavior` says otherwise (API Gateway Developer Guide, "Method
/// request behavior for payloads without mapping templates").
fn passes_all(integration: Option<&Integration>) -> Option<String> {
    let Some(integration) = integration else {
        return Some("of no known type".to_owned());
    };
    let mapped = !integration.templates.is_empty();
    match (
        integration.kind.as_deref(),
        integration.passthrough.as_deref(),
    ) {
        (Some("MOCK"), _) | (Some("AWS" | "HTTP"), Some("NEVER")) => None,
        (Some("AWS" | "HTTP"), Some("WHEN_NO_TEMPLATES")) if mapped => None,
        (Some(kind @ ("AWS" | "HTTP")), _) => Some(format!(
            "{kind} without a passthroughBehavior that keeps a request's body back"
        )),
        (Some(kind), _) => Some(kind.to_owned()),
        (None, _) => Some("of no known type".to_owned()),
    }
}

/// The methods of other resources whose integrations keep their answers in the same namespace.
fn sharing(all: &[Declared], method: &Declared) -> Vec<String> {
    let namespace = |method: &Declared| method.integration.as_ref()?.namespace.clone();
    let Some(own) = namespace(method) else {
        return Vec::new();
    };
    all.iter()
        .filter(|other| other.path != method.path && namespace(other).as_ref() == Some(&own))
        .map(|other| format!("{} {}", other.name, other.path))
        .collect()
}
