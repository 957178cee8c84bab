//! What the export of a stage tells of its methods: what their answers depend on, and what is not told.

// Clippy takes helpers outside of a #[test] for production code.
#![allow(clippy::unwrap_used)]

use cache_fallback::export::{Namespaces, declared};
use cache_fallback::method::described;
use cache_fallback::plan::ApiMethod;
use serde_json::{Value, json};

/// An integration that passes on nothing but what is mapped.
fn mock(more: &Value) -> Value {
    let mut integration = json!({"type": "mock", "passthroughBehavior": "never"});
    for (name, value) in more.as_object().unwrap() {
        integration[name] = value.clone();
    }
    integration
}

fn serves(integration: &Value) -> Value {
    json!({"x-amazon-apigateway-integration": integration})
}

fn namespaces(paths: &[&str]) -> Namespaces {
    let own = |path: &&str| (((*path).to_owned(), "GET".to_owned()), (*path).to_owned());
    paths.iter().map(own).collect()
}

fn read(document: &Value, edited: &Namespaces) -> Result<Vec<ApiMethod>, String> {
    let all = declared(document.to_string().as_bytes(), edited)?;
    Ok(described(&all, |_| true))
}

/// The one method of an export, GET at a path.
fn only(path: &str, operation: &Value, schemes: &Value) -> ApiMethod {
    let document = json!({
        "openapi": "3.0.1",
        "paths": {path: {"get": operation}},
        "components": {"securitySchemes": schemes},
    });
    read(&document, &namespaces(&[path]))
        .unwrap()
        .pop()
        .unwrap()
}

fn integrated(path: &str, more: &Value) -> ApiMethod {
    only(path, &serves(&mock(more)), &json!({}))
}

fn secured(security: &Value, schemes: &Value) -> ApiMethod {
    let mut operation = serves(&mock(&json!({})));
    operation["security"] = security.clone();
    only("/a", &operation, schemes)
}

/// A scheme as API Gateway exports it, with its authorizer.
fn scheme(name: &str, authorizer: &Value) -> Value {
    json!({"who": {
        "type": "apiKey",
        "name": name,
        "in": "header",
        "x-amazon-apigateway-authtype": "custom",
        "x-amazon-apigateway-authorizer": authorizer,
    }})
}

#[test]
fn a_method_depends_on_its_path_its_client_and_what_it_declares() {
    let mut operation = serves(&mock(&json!({})));
    operation["parameters"] = json!([
        {"name": "id", "in": "path", "required": true, "schema": {"type": "string"}},
        {"name": "page", "in": "query", "schema": {"type": "string"}},
    ]);
    operation["security"] = json!([{"who": []}, {"api_key": []}]);
    let authorizer = json!({"type": "request", "identitySource": "method.request.header.Cookie"});
    let mut schemes = scheme("Unused", &authorizer);
    schemes["api_key"] = json!({"type": "apiKey", "name": "x-api-key", "in": "header"});
    let method = only("/orders/{id}/{rest+}", &operation, &schemes);
    assert_eq!(
        method.inputs,
        [
            "method.request.header.Cookie",
            "method.request.header.x-api-key",
            "method.request.path.id",
            "method.request.path.rest",
            "method.request.querystring.page",
        ]
    );
    assert_eq!(method.unkeyable, None);
}

#[test]
fn what_is_declared_for_a_whole_path_and_required_of_the_whole_api_counts_for_each_method() {
    let document = json!({
        "paths": {"/a": {
            "parameters": [{"name": "q", "in": "query"}],
            "get": serves(&mock(&json!({}))),
        }},
        "security": [{"api_key": []}],
        "components": {"securitySchemes": {
            "api_key": {"type": "apiKey", "name": "x-api-key", "in": "header"},
        }},
    });
    let method = read(&document, &namespaces(&["/a"])).unwrap().pop();
    let inputs = [
        "method.request.header.x-api-key",
        "method.request.querystring.q",
    ];
    assert_eq!(method.unwrap().inputs, inputs);
}

#[test]
fn every_authorizer_is_read_as_what_it_is_and_one_that_is_not_told_fits_in_no_key() {
    let by = |authorizer: Value| secured(&json!([{"who": []}]), &scheme("X-Token", &authorizer));
    for kind in ["token", "cognito_user_pools"] {
        let told = by(json!({"type": kind}));
        assert_eq!(told.inputs, ["method.request.header.X-Token"], "{kind}");
        assert_eq!(told.unkeyable, None, "{kind}");
    }
    let two = "method.request.header.a, method.request.querystring.b";
    let told = by(json!({"type": "request", "identitySource": two}));
    let sources = ["method.request.header.a", "method.request.querystring.b"];
    assert_eq!(told.inputs, sources);
    let context = by(json!({"type": "request", "identitySource": "context.identity.sourceIp"}));
    let signed = json!({"who": {
        "type": "apiKey", "name": "Authorization", "in": "header",
        "x-amazon-apigateway-authtype": "awsSigv4",
    }});
    let unnamed = json!({"who": {
        "type": "apiKey", "name": "X-Token", "in": "header",
        "x-amazon-apigateway-authtype": "custom",
    }});
    let security = json!([{"who": []}]);
    let mut by_auth = serves(&mock(&json!({})));
    by_auth["x-amazon-apigateway-auth"] = json!({"type": "AWS_IAM"});
    let cases = [
        (context, "context.identity.sourceIp"),
        (
            by(json!({"type": "request"})),
            "its authorizer who can read all",
        ),
        (
            by(json!({"type": "request", "identitySource": ""})),
            "can read all",
        ),
        (by(json!({"type": "jwt"})), "not told by the stage"),
        (by(json!({})), "not told by the stage"),
        (secured(&security, &signed), "AWS_IAM"),
        (only("/a", &by_auth, &json!({})), "AWS_IAM"),
        (secured(&security, &unnamed), "not told by the stage"),
        (secured(&security, &json!({})), "not told by the stage"),
        (
            secured(
                &json!([{"who": []}, {"other": []}]),
                &json!({"who": signed["who"], "other": signed["who"]}),
            ),
            "not told by the stage",
        ),
    ];
    for (method, words) in cases {
        let told = method.unkeyable.unwrap();
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn a_method_depends_on_what_its_integration_maps_and_its_templates_read() {
    let id = "method.request.path.id";
    let page = "method.request.querystring.page";
    let header = "method.request.header.page";
    let read = |template: &str| {
        let templates = json!({"requestTemplates": {"application/json": template}});
        integrated("/orders/{id}", &templates)
    };
    assert_eq!(read("$input.params('id')").inputs, [id]);
    // The query is asked first, and then the headers.
    assert_eq!(read("$input.params('page')").inputs, [header, id, page]);
    assert_eq!(read("$input.params().querystring.page").inputs, [id, page]);
    let mapped = |from: &str| {
        integrated(
            "/a",
            &json!({"requestParameters": {"integration.request.header.x": from}}),
        )
    };
    assert_eq!(mapped(page).inputs, [page]);
    let answered = |answer: Value| integrated("/a", &json!({"responses": {"default": answer}}));
    let cases = [
        (
            read("$context.identity.sourceIp"),
            "$context.identity.sourceIp",
        ),
        (mapped("context.authorizer.sub"), "context.authorizer.sub"),
        (mapped("method.request.body.a"), "method.request.body.a"),
        (
            answered(
                json!({"responseTemplates": {"application/json": "$context.identity.caller"}}),
            ),
            "$context.identity.caller",
        ),
        (
            answered(json!({
                "responseParameters": {"method.response.header.who": "context.identity.caller"},
            })),
            "context.identity.caller",
        ),
        (
            integrated("/a", &json!({"credentials": "arn:aws:iam::*:user/*"})),
            "its caller's",
        ),
    ];
    for (method, words) in cases {
        let told = method.unkeyable.unwrap();
        assert!(told.contains(words), "{told}");
    }
    // The body is the backend's in a template of the answer, and the status is set; one that is empty reads nothing.
    let own = "#set($context.responseOverride.status = 404)$input.json('$')";
    for template in [json!(own), Value::Null] {
        let told = answered(json!({"responseTemplates": {"application/json": template}}));
        assert_eq!(told.unkeyable, None);
    }
}

#[test]
fn a_request_that_chooses_among_templates_depends_on_what_it_chooses_by() {
    let two = json!({"application/json": "{}", "application/xml": "<a/>"});
    let told = integrated(
        "/a",
        &json!({
            "requestTemplates": two,
            "responses": {"default": {"statusCode": "200", "responseTemplates": two}},
        }),
    );
    let by = [
        "method.request.header.Accept",
        "method.request.header.Content-Type",
    ];
    assert_eq!(told.inputs, by);
    let around = |passthrough: &str| {
        let more = json!({
            "requestTemplates": {"application/json": "{}"},
            "passthroughBehavior": passthrough,
        });
        integrated("/a", &more).inputs
    };
    assert_eq!(
        around("when_no_match"),
        ["method.request.header.Content-Type"]
    );
    assert_eq!(around("when_no_templates"), Vec::<String>::new());
}

#[test]
fn a_key_holds_only_what_its_method_declares() {
    let page = "method.request.querystring.page";
    let read = |declared: bool| {
        let mut operation = serves(&mock(&json!({
            "cacheNamespace": "own",
            "cacheKeyParameters": [page, "integration.request.querystring.page"],
        })));
        if declared {
            operation["parameters"] = json!([{"name": "page", "in": "query"}]);
        }
        only("/a", &operation, &json!({})).cache_key
    };
    assert_eq!(read(true), [page]);
    assert_eq!(read(false), Vec::<String>::new());
}

#[test]
fn what_passes_the_whole_request_on_is_told() {
    let passes = |integration: Value| only("/a", &serves(&integration), &json!({})).passes_all;
    for kind in ["aws_proxy", "http_proxy"] {
        assert_eq!(passes(json!({"type": kind})), Some(kind.to_uppercase()));
    }
    assert_eq!(passes(json!({"type": "mock"})), None);
    assert!(passes(json!({})).is_some());
    let template = json!({"application/json": "{}"});
    for (behaviour, templates, kept_back) in [
        (None, json!({}), false),
        (Some("when_no_match"), template.clone(), false),
        (Some("when_no_templates"), json!({}), false),
        (Some("when_no_templates"), template, true),
        (Some("never"), json!({}), true),
    ] {
        for kind in ["aws", "http"] {
            let told = passes(json!({
                "type": kind, "passthroughBehavior": behaviour, "requestTemplates": templates,
            }));
            assert_eq!(told.is_none(), kept_back, "{behaviour:?} {templates}");
        }
    }
}

#[test]
fn a_method_without_its_integration_is_not_cached() {
    let told = only("/a", &json!({"responses": {}}), &json!({}));
    assert!(
        told.unkeyable
            .unwrap()
            .contains("does not tell its integration")
    );
}

#[test]
fn methods_of_other_resources_in_one_namespace_share_a_cache() {
    let named =
        |namespace: &str| json!({"get": serves(&mock(&json!({"cacheNamespace": namespace})))});
    let document = json!({"paths": {"/a": named("one"), "/b": named("one"), "/c": named("two")}});
    let all = read(&document, &Namespaces::new()).unwrap();
    let shared = |path: &str| {
        &all.iter()
            .find(|it| it.path == path)
            .unwrap()
            .shares_cache_with
    };
    assert_eq!(*shared("/a"), ["GET /b"]);
    assert_eq!(*shared("/c"), Vec::<String>::new());
}

/// An export has the namespace beside the cache key only.
#[test]
fn a_namespace_that_the_export_leaves_out_is_the_one_of_the_api_and_without_it_nothing_is_cached() {
    let untold = json!({"get": serves(&mock(&json!({})))});
    let document = json!({"paths": {"/a": untold, "/b": untold}});
    let of = |edited: &Namespaces, path: &str| {
        let all = read(&document, edited).unwrap();
        all.into_iter().find(|it| it.path == path).unwrap()
    };
    let own = namespaces(&["/a", "/b"]);
    assert_eq!(of(&own, "/a").unkeyable, None);
    assert_eq!(of(&own, "/a").shares_cache_with, Vec::<String>::new());
    let one = own.into_keys().map(|key| (key, "one".to_owned())).collect();
    assert_eq!(of(&one, "/a").shares_cache_with, ["GET /b"]);
    let half = namespaces(&["/a"]);
    let told = of(&half, "/b").unkeyable.unwrap();
    assert!(told.contains("does not tell its cacheNamespace"), "{told}");
    let told = of(&half, "/a").unkeyable.unwrap();
    assert!(
        told.contains("whether GET /b shares its cacheNamespace"),
        "{told}"
    );
}

#[test]
fn every_operation_has_its_name_and_extensions_are_none() {
    let any = serves(&mock(&json!({})));
    let document = json!({
        "paths": {
            "/a": {"get": any, "head": any, "x-amazon-apigateway-any-method": any, "x-note": {}},
        },
        "x-amazon-apigateway-gateway-responses": {},
    });
    let all = read(&document, &Namespaces::new()).unwrap();
    let names: Vec<&str> = all.iter().map(|method| method.method.as_str()).collect();
    assert_eq!(names, ["GET", "HEAD", "ANY"]);
}

#[test]
fn what_cannot_be_read_whole_is_an_error_that_names_it() {
    let at = |operation: Value| json!({"paths": {"/a": {"get": operation}}});
    let cases = [
        (
            json!({"openapi": "3.0.1"}),
            "it cannot be read: missing field `paths`",
        ),
        (
            json!({"paths": {"/a": {"$ref": "#/b"}}}),
            "/a is a reference",
        ),
        (
            at(json!({"parameters": [{"$ref": "#/components/parameters/q"}]})),
            "GET of /a cannot be read: missing field `name`",
        ),
        (
            at(json!({"parameters": [{"name": "q", "in": "cookie"}]})),
            "GET /a declares q in cookie",
        ),
        (
            at(serves(&json!({"$ref": "#/x-integrations/one"}))),
            "the integration of GET /a is at #/x-integrations/one",
        ),
        (
            at(serves(&json!({"cacheKeyParameters": "q"}))),
            "GET of /a cannot be read",
        ),
    ];
    for (document, words) in cases {
        let problem = read(&document, &Namespaces::new()).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }
    assert!(declared(b"", &Namespaces::new()).is_err());
}
