//! The API as a stage serves it: what its export says of each method. Pure.
//!
//! A stage serves a deployment, which is a copy of the API; what is edited afterwards is not served (API Gateway
//! Developer Guide, "Deploy REST APIs in API Gateway"). `GetExport` gives that copy as an `OpenAPI` document (Amazon API
//! Gateway API Reference, "`GetExport`"), in the terms of the guide's "`OpenAPI` extensions for API Gateway".
//!
//! What cannot be read of it is an error, and what it does not tell is not taken for harmless: an authorizer without
//! its definition is unknown, and a method without its integration is not cached.
//!
//! It leaves one thing out where there is no cache key: `cacheNamespace`. That is documented nowhere; published exports
//! have it beside `cacheKeyParameters` only. There the API as it is edited is asked, and where that does not know the
//! method either, the namespace is unknown.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::method::{Access, Authorizer, Declared, Integration};
use crate::template::parameter;

/// The names of operations in a path (`OpenAPI` Specification 3.0, "Path Item Object", and the guide's
/// "x-amazon-apigateway-any-method object").
const OPERATIONS: [(&str, &str); 9] = [
    ("get", "GET"),
    ("head", "HEAD"),
    ("post", "POST"),
    ("put", "PUT"),
    ("patch", "PATCH"),
    ("delete", "DELETE"),
    ("options", "OPTIONS"),
    ("trace", "TRACE"),
    ("x-amazon-apigateway-any-method", "ANY"),
];

/// The namespaces of the API's methods as it is edited, by path and method.
pub type Namespaces = BTreeMap<(String, String), String>;

#[derive(Debug, Deserialize)]
struct Document {
    paths: BTreeMap<String, BTreeMap<String, Value>>,
    #[serde(default)]
    components: Components,
    #[serde(default)]
    security: Vec<BTreeMap<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Components {
    #[serde(default)]
    security_schemes: BTreeMap<String, Scheme>,
}

#[derive(Debug, Deserialize)]
struct Operation {
    #[serde(default)]
    parameters: Vec<Parameter>,
    security: Option<Vec<BTreeMap<String, Value>>>,
    #[serde(rename = "x-amazon-apigateway-auth")]
    auth: Option<Auth>,
    #[serde(rename = "x-amazon-apigateway-integration")]
    integration: Option<Exported>,
}

#[derive(Debug, Deserialize)]
struct Parameter {
    name: String,
    #[serde(rename = "in")]
    place: String,
}

#[derive(Debug, Deserialize)]
struct Auth {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Scheme {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    #[serde(rename = "in")]
    place: Option<String>,
    #[serde(rename = "x-amazon-apigateway-authtype")]
    auth_type: Option<String>,
    #[serde(rename = "x-amazon-apigateway-authorizer")]
    authorizer: Option<Extension>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extension {
    #[serde(rename = "type")]
    kind: Option<String>,
    identity_source: Option<String>,
}

/// An integration (the guide's "x-amazon-apigateway-integration object").
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exported {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    passthrough_behavior: Option<String>,
    credentials: Option<String>,
    cache_namespace: Option<String>,
    #[serde(default)]
    cache_key_parameters: Vec<String>,
    #[serde(default)]
    request_parameters: BTreeMap<String, String>,
    #[serde(default)]
    request_templates: BTreeMap<String, String>,
    #[serde(default)]
    responses: BTreeMap<String, Answer>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    response_parameters: BTreeMap<String, String>,
    #[serde(default)]
    response_templates: BTreeMap<String, Option<String>>,
}

/// All methods that the export of a stage tells; an error where it cannot be read whole.
pub fn declared(export: &[u8], edited: &Namespaces) -> Result<Vec<Declared>, String> {
    let document: Document =
        serde_json::from_slice(export).map_err(|error| format!("it cannot be read: {error}"))?;
    let mut methods = Vec::new();
    for (path, items) in &document.paths {
        let shared = match items.get("parameters") {
            None => Vec::new(),
            Some(parameters) => read("parameters", path, parameters)?,
        };
        for (name, item) in items {
            let known = OPERATIONS.iter().find(|(operation, _)| operation == name);
            let Some((_, method)) = known else {
                // An extension of the documentation says nothing of what is served.
                if name == "$ref" {
                    return Err(format!("{path} is a reference to somewhere else"));
                }
                continue;
            };
            let operation: Operation = read(method, path, item)?;
            methods.push(described(
                &document,
                (path, method),
                (&shared, operation),
                edited,
            )?);
        }
    }
    Ok(methods)
}

fn read<T: serde::de::DeserializeOwned>(
    what: &str,
    path: &str,
    value: &Value,
) -> Result<T, String> {
    T::deserialize(value).map_err(|error| format!("{what} of {path} cannot be read: {error}"))
}

fn described(
    document: &Document,
    (path, method): (&str, &str),
    (shared, operation): (&[Parameter], Operation),
    edited: &Namespaces,
) -> Result<Declared, String> {
    let mut parameters = BTreeSet::new();
    for Parameter { name, place } in shared.iter().chain(&operation.parameters) {
        let place = match place.as_str() {
            "path" => "path",
            "query" => "querystring",
            "header" => "header",
            "body" => continue,
            other => {
                return Err(format!(
                    "{method} {path} declares {name} in {other}, which API Gateway does not know"
                ));
            }
        };
        parameters.insert(parameter(place, name));
    }
    let security = operation.security.as_ref().unwrap_or(&document.security);
    let (access, api_key) = access(document, security, operation.auth.as_ref());
    let known = edited.get(&(path.to_owned(), method.to_owned()));
    let integration = operation.integration.map(|exported| {
        if let Some(reference) = &exported.reference {
            return Err(format!(
                "the integration of {method} {path} is at {reference}"
            ));
        }
        Ok(integration(exported, known))
    });
    Ok(Declared {
        path: path.to_owned(),
        name: method.to_owned(),
        parameters,
        api_key,
        access,
        integration: integration.transpose()?,
    })
}

/// Whom a method lets in, and whether it asks for an API key.
fn access(
    document: &Document,
    security: &[BTreeMap<String, Value>],
    auth: Option<&Auth>,
) -> (Access, bool) {
    let mut all = Access::Open;
    let mut api_key = false;
    for name in security.iter().flat_map(BTreeMap::keys) {
        let scheme = document.components.security_schemes.get(name);
        let lets_in = match scheme {
            Some(scheme) if is_api_key(scheme) => {
                api_key = true;
                continue;
            }
            Some(scheme) => by(name, scheme),
            None => Access::Unknown,
        };
        all = match (all, lets_in) {
            (Access::Open, lets_in) => lets_in,
            // A method has one authorizer.
            _ => Access::Unknown,
        };
    }
    let signed = auth.map(|auth| auth.kind.to_uppercase());
    let all = match (all, signed.as_deref()) {
        (all, None | Some("NONE")) => all,
        (Access::Open | Access::Signed, Some("AWS_IAM")) => Access::Signed,
        _ => Access::Unknown,
    };
    (all, api_key)
}

fn is_api_key(scheme: &Scheme) -> bool {
    let named = scheme.name.as_deref().unwrap_or_default();
    scheme.kind == "apiKey"
        && scheme.auth_type.is_none()
        && scheme.authorizer.is_none()
        && named.eq_ignore_ascii_case("x-api-key")
}

/// Whom a security scheme lets in (the guide's "x-amazon-apigateway-authorizer object" and
/// "x-amazon-apigateway-authtype property").
fn by(name: &str, scheme: &Scheme) -> Access {
    let auth_type = scheme.auth_type.as_deref().unwrap_or_default();
    if auth_type.eq_ignore_ascii_case("awsSigv4") {
        return Access::Signed;
    }
    let Some(extension) = &scheme.authorizer else {
        return Access::Unknown;
    };
    let kind = extension.kind.as_deref().unwrap_or_default();
    let sources = extension.identity_source.as_deref().unwrap_or_default();
    let sources = sources.split(',').map(str::trim);
    let mut sources: Vec<String> = sources
        .filter(|source| !source.is_empty())
        .map(str::to_owned)
        .collect();
    match kind.to_ascii_lowercase().as_str() {
        "request" => {}
        // They read the one header that the scheme names.
        "token" | "cognito_user_pools" => match (&scheme.name, scheme.place.as_deref()) {
            (Some(header), Some("header")) => {
                let source = parameter("header", header);
                if !sources.contains(&source) {
                    sources.push(source);
                }
            }
            _ => return Access::Unknown,
        },
        _ => return Access::Unknown,
    }
    Access::By(Authorizer {
        name: name.to_owned(),
        sources,
    })
}

fn integration(exported: Exported, edited: Option<&String>) -> Integration {
    let (headers, templates): (Vec<_>, Vec<_>) = exported
        .responses
        .into_values()
        .map(|answer| (answer.response_parameters, answer.response_templates))
        .unzip();
    let texts = |templates: BTreeMap<String, Option<String>>| {
        let texts = templates.into_iter();
        texts
            .map(|(kind, text)| (kind, text.unwrap_or_default()))
            .collect()
    };
    Integration {
        kind: exported.kind.map(|kind| kind.to_uppercase()),
        passthrough: exported.passthrough_behavior.map(|it| it.to_uppercase()),
        mapped: exported.request_parameters.into_values().collect(),
        templates: exported.request_templates,
        answers_mapped: headers
            .into_iter()
            .flat_map(BTreeMap::into_values)
            .collect(),
        answer_templates: templates.into_iter().map(texts).collect(),
        // `arn:aws:iam::*:user/*` has an integration called as whoever called the method (API Gateway API Reference,
        // "Integration", `credentials`).
        as_caller: exported.credentials.is_some_and(|it| it.contains('*')),
        namespace: exported.cache_namespace.or_else(|| edited.cloned()),
        key: exported.cache_key_parameters,
    }
}
