//! No two requests that the backend, or the answer, can tell apart are answered from one entry of the cache: generated
//! APIs, against a model of API Gateway that shares no code with the check.
//!
//! The model, and where AWS says so:
//!
//! - An entry is found by namespace and cache key parameters; by default the namespace is the resource's, and resources
//!   that name the same one are given each other's answers (API Gateway API Reference, `Integration`, `cacheNamespace`). AWS
//!   does not say that the method is a part of it, so that here it is none.
//! - A cache key parameter that the method does not declare is no valid one (the same, `cacheKeyParameters`).
//! - Where the stage's settings for every method turn caching on, only GET is cached; a method's own settings take their
//!   place (API Gateway Developer Guide, "Cache settings for REST APIs").
//! - A proxy passes everything on, and the authorizer's context with it; other integrations pass on what is mapped, what the
//!   template for the request's content type reads, and a body as `passthroughBehavior` says (the same guide, "Set up REST
//!   API integrations", "Method request behavior for payloads without mapping templates").
//! - `$input.params('x')` looks in the path, the query, the headers, in this order, declared or not (the same guide,
//!   "Variables for data transformations").
//! - Templates of the answer, and its headers, may read the context and the parameters too, and the client's `Accept` may
//!   choose among them; whether the cache keeps an answer before or after that is said nowhere, so that here it is after.
//! - A Lambda authorizer of type REQUEST is given the whole request, whatever its `identitySource` (the same guide, "Use API
//!   Gateway Lambda authorizers"). What it, or the time and the id of a request, tells counts where it is read.
//! - A mock has no backend, so that a body which nothing reads counts for nothing there.
//!
//! The check reads each API from an export as its stage would give it.
//!
//! What the policy vouches for (`answers_all_clients_alike`) is the undeclared part of a request to a proxy, and a body that
//! is passed on; the path, what is declared and what is mapped count all the same.

// Clippy takes helpers outside of a #[test] for production code.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "given/stage.rs"]
mod given;

use std::collections::{BTreeMap, BTreeSet};

use cache_fallback::export::{self, Namespaces};
use cache_fallback::method::{Declared, described};
use cache_fallback::plan::{Observed, Stage, Status, key};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestError, TestRunner};
use serde_json::{Value, json};
use shared::remediation::Planned;

use given::{CACHED, bare, policy_of, setting};

type Values = BTreeMap<&'static str, Vec<&'static str>>;

/// A request, with all that its sender chooses or is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    id: &'static str,
    query: Values,
    headers: Values,
    body: &'static str,
    address: &'static str,
    signer: &'static str,
    protocol: &'static str,
}

/// A part of a mapping template, as a reader means it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(&'static str),
    /// `$input.params('x')`, in one of the ways to write it.
    Named(&'static str, usize),
    /// A parameter from one place.
    Placed(&'static str, &'static str, usize),
    /// A part of the context.
    Context(&'static str, usize),
    /// The body, of the request or of the answer.
    Body(usize),
    /// All parameters.
    All(usize),
}

#[derive(Debug, Clone)]
struct Method {
    path: &'static str,
    name: &'static str,
    declares: Vec<&'static str>,
    key: Vec<&'static str>,
    api_key: bool,
    access: Lets,
    kind: &'static str,
    passthrough: Option<&'static str>,
    mapped: Vec<&'static str>,
    templates: BTreeMap<&'static str, Vec<Part>>,
    answer_mapped: Vec<&'static str>,
    answers: BTreeMap<&'static str, Vec<Part>>,
    as_caller: bool,
    namespace: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Lets {
    Everyone,
    Signers,
    Token,
    Asked(Vec<&'static str>),
    SomeoneElse,
}

#[derive(Debug, Clone)]
struct Api {
    methods: Vec<Method>,
    /// The settings' keys that have caching on, before the fallback, with the cluster on.
    cached: Vec<(&'static str, &'static str)>,
    vouched: bool,
    request: Request,
}

// The model.

fn one(values: &Values, name: &str) -> String {
    let last = values.get(name).and_then(|values| values.last());
    last.copied().unwrap_or_default().to_owned()
}

/// A parameter by its full name, as a mapping or a cache key takes it.
fn parameter(method: &Method, request: &Request, name: &str) -> String {
    let many = |values: &Values, name| format!("{:?}", values.get(name));
    match name
        .strip_prefix("method.request.")
        .unwrap()
        .split_once('.')
    {
        Some(("path", "id")) if method.path.contains("{id}") => request.id.to_owned(),
        Some(("querystring", name)) => one(&request.query, name),
        Some(("header", name)) => one(&request.headers, name),
        Some(("multivaluequerystring", name)) => many(&request.query, name),
        Some(("multivalueheader", name)) => many(&request.headers, name),
        _ if name == "method.request.body" => request.body.to_owned(),
        _ => String::new(),
    }
}

/// Whom the authorizer takes the client for: a function of all that it is given.
fn principal(method: &Method, request: &Request) -> String {
    match method.access {
        Lets::Everyone => String::new(),
        Lets::Signers => request.signer.to_owned(),
        Lets::Token => one(&request.headers, "Authorization"),
        Lets::Asked(_) | Lets::SomeoneElse => format!("{request:?}"),
    }
}

fn context(method: &Method, request: &Request, name: &str) -> String {
    match name {
        "identity.sourceIp" => request.address.to_owned(),
        "identity.caller" => request.signer.to_owned(),
        "authorizer.principalId" => principal(method, request),
        "protocol" => request.protocol.to_owned(),
        _ => format!("the same: {name}"),
    }
}

fn mapped(method: &Method, request: &Request, from: &'static str) -> String {
    match from.split_once('.') {
        Some(("method", _)) => parameter(method, request, from),
        Some(("context", name)) => context(method, request, name),
        _ => from.to_owned(),
    }
}

fn evaluated(method: &Method, request: &Request, part: &Part, of_the_answer: bool) -> String {
    match part {
        Part::Text(text) => (*text).to_owned(),
        Part::Named("id", _) if method.path.contains("{id}") => request.id.to_owned(),
        Part::Named(name, _) if request.query.contains_key(name) => one(&request.query, name),
        Part::Placed("querystring", name, _) => one(&request.query, name),
        Part::Named(name, _) | Part::Placed(_, name, _) => one(&request.headers, name),
        Part::Context(name, _) => context(method, request, name),
        Part::Body(_) if of_the_answer => String::new(),
        Part::Body(_) => request.body.to_owned(),
        Part::All(_) => format!("{} {:?} {:?}", request.id, request.query, request.headers),
    }
}

type Templates = BTreeMap<&'static str, Vec<Part>>;

fn content(request: &Request, by: &str) -> &'static str {
    let named = request.headers.get(by).and_then(|values| values.last());
    named.copied().unwrap_or("application/json")
}

/// What the backend is told, and what of the request is in its answer; nothing where the request is turned away.
fn view(method: &Method, request: &Request, vouched: bool) -> Option<Vec<String>> {
    let mut view = vec![format!("{} {}", method.name, method.path)];
    let proxy = method.kind.ends_with("_PROXY");
    view.extend(
        method
            .mapped
            .iter()
            .map(|from| mapped(method, request, from)),
    );
    if method.as_caller {
        view.push(request.signer.to_owned());
    }
    if proxy && vouched {
        let declared = method.declares.iter();
        view.extend(declared.map(|name| parameter(method, request, name)));
        view.push(parameter(method, request, "method.request.path.id"));
        return Some(view);
    }
    if proxy {
        view.push(format!("{request:?} {}", principal(method, request)));
        return Some(view);
    }
    let all = |parts: &[Part], of_the_answer| -> Vec<String> {
        let evaluated = |part| evaluated(method, request, part, of_the_answer);
        parts.iter().map(evaluated).collect()
    };
    let none = method.templates.is_empty();
    match (
        method.templates.get(content(request, "Content-Type")),
        method.passthrough,
    ) {
        (Some(parts), _) => view.extend(all(parts, false)),
        (None, Some("NEVER")) => return None,
        (None, Some("WHEN_NO_TEMPLATES")) if !none => return None,
        (None, _) if vouched || method.kind == "MOCK" => {}
        (None, _) => view.push(request.body.to_owned()),
    }
    let of_answer = method.answer_mapped.iter();
    view.extend(of_answer.map(|from| mapped(method, request, from)));
    // An answer for which no template is chosen has its own.
    let accepted = content(request, "Accept");
    let first = method.answers.values().next();
    if let Some(parts) = method.answers.get(accepted).or(first) {
        view.extend(all(parts, true));
    }
    Some(view)
}

/// Which entry of the cache answers a request.
fn entry(method: &Method, request: &Request) -> (&'static str, Vec<(&'static str, String)>) {
    let valid = method
        .key
        .iter()
        .filter(|name| method.declares.contains(name));
    let held: BTreeMap<_, _> = valid
        .map(|name| (*name, parameter(method, request, name)))
        .collect();
    (namespace(method), held.into_iter().collect())
}

fn is_cached(stage: &Stage, method: &Method, chosen: &[String]) -> bool {
    let own = key(method.path, method.name);
    let own_on = stage.settings.get(&own).map(|it| it.caching.enabled);
    let every = stage
        .settings
        .get("*/*")
        .is_some_and(|it| it.caching.enabled);
    chosen.contains(&own) || own_on.unwrap_or(every && ["GET", "ANY"].contains(&method.name))
}

// What is put before the check.

fn written(part: &Part) -> String {
    match part {
        Part::Text(text) => (*text).to_owned(),
        Part::Named(name, how) => match how % 4 {
            0 => format!("$input.params('{name}')"),
            1 => format!("$!{{input.params(\"{name}\")}}"),
            2 => format!("#set($i = $input)$i.params('{name}')"),
            _ => format!("#set($p = $input.params())$p.querystring.{name}"),
        },
        Part::Placed(place, name, how) => match how % 3 {
            0 => format!("$input.params().{place}.{name}"),
            1 => format!("$input.params().{place}.get('{name}')"),
            _ => format!("${{input.params().get(\"{place}\").{name}}}"),
        },
        Part::Context(name, how) => match how % 4 {
            0 => format!("$context.{name}"),
            1 => format!("$!{{context.{name}}}"),
            2 => format!("#set($c = $context)$c.{name}"),
            _ => format!("$context['{}']", name.replace('.', "']['")),
        },
        Part::Body(how) => match how % 4 {
            0 => "$input.body".to_owned(),
            1 => "$input.json('$.a')".to_owned(),
            2 => "$util.escapeJavaScript($!{input.path('$')})".to_owned(),
            _ => "#set($i = $input)$i.body".to_owned(),
        },
        Part::All(how) => match how % 2 {
            0 => "$input.params()".to_owned(),
            _ => "#foreach($p in ${input.params().entrySet()})$p#end".to_owned(),
        },
    }
}

/// A method as the stage's export has it, and the scheme of its authorizer.
fn exported(nth: usize, method: &Method) -> (Value, Option<(String, Value)>) {
    let texts = |templates: &Templates| -> BTreeMap<String, String> {
        let text = |parts: &Vec<Part>| parts.iter().map(written).collect();
        let pairs = templates.iter();
        pairs
            .map(|(kind, parts)| ((*kind).to_owned(), text(parts)))
            .collect()
    };
    let to = |place: &str, from: &[&str]| -> BTreeMap<String, String> {
        let numbered = from.iter().enumerate();
        numbered
            .map(|(nth, from)| (format!("{place}.h{nth}"), (*from).to_owned()))
            .collect()
    };
    let parameters = method.declares.iter().map(|name| {
        let name = name.strip_prefix("method.request.").unwrap();
        let (place, name) = name.split_once('.').unwrap();
        let place = place.replace("querystring", "query");
        json!({"name": name, "in": place, "schema": {"type": "string"}})
    });
    let name = format!("who{nth}");
    let scheme = |header: &str, authtype: &str, authorizer: Value| {
        let scheme = json!({
            "type": "apiKey",
            "name": header,
            "in": "header",
            "x-amazon-apigateway-authtype": authtype,
            "x-amazon-apigateway-authorizer": authorizer,
        });
        Some((name.clone(), scheme))
    };
    let lets_in = match &method.access {
        Lets::Everyone | Lets::SomeoneElse => None,
        Lets::Signers => scheme("Authorization", "awsSigv4", Value::Null),
        Lets::Token => scheme("Authorization", "custom", json!({"type": "token"})),
        Lets::Asked(sources) => {
            let sources = sources.join(", ");
            let authorizer = json!({"type": "request", "identitySource": sources});
            scheme("Unused", "custom", authorizer)
        }
    };
    let mut security = Vec::new();
    if method.access != Lets::Everyone {
        security.push(json!({name.as_str(): []}));
    }
    if method.api_key {
        security.push(json!({"api_key": []}));
    }
    let mut integration = json!({
        "type": method.kind.to_lowercase(),
        "passthroughBehavior": method.passthrough.map(str::to_lowercase),
        "requestParameters": to("integration.request.header", &method.mapped),
        "requestTemplates": texts(&method.templates),
        "responses": {"default": {
            "responseParameters": to("method.response.header", &method.answer_mapped),
            "responseTemplates": texts(&method.answers),
        }},
        "credentials": method.as_caller.then_some("arn:aws:iam::*:user/*"),
    });
    // An export has a namespace beside a key only.
    if !method.key.is_empty() {
        integration["cacheNamespace"] = json!(namespace(method));
        integration["cacheKeyParameters"] = json!(method.key);
    }
    let operation = json!({
        "parameters": parameters.collect::<Vec<_>>(),
        "security": security,
        "x-amazon-apigateway-integration": integration,
    });
    (operation, lets_in)
}

fn namespace(method: &Method) -> &'static str {
    method.namespace.unwrap_or(method.path)
}

/// The methods as they are read from the stage's export and the API.
fn read(api: &Api) -> Vec<Declared> {
    let mut paths: BTreeMap<&str, BTreeMap<String, Value>> = BTreeMap::new();
    let api_key = json!({"type": "apiKey", "name": "x-api-key", "in": "header"});
    let mut schemes = BTreeMap::from([("api_key".to_owned(), api_key)]);
    let mut edited = Namespaces::new();
    for (nth, method) in api.methods.iter().enumerate() {
        let (operation, scheme) = exported(nth, method);
        let name = match method.name {
            "ANY" => "x-amazon-apigateway-any-method".to_owned(),
            name => name.to_lowercase(),
        };
        paths
            .entry(method.path)
            .or_default()
            .insert(name, operation);
        schemes.extend(scheme);
        let key = (method.path.to_owned(), method.name.to_owned());
        edited.insert(key, namespace(method).to_owned());
    }
    let document = json!({
        "openapi": "3.0.1",
        "paths": paths,
        "components": {"securitySchemes": schemes},
    });
    export::declared(document.to_string().as_bytes(), &edited).unwrap()
}

/// The methods that the plan decides to cache, by key, and the stage that it saw.
fn decided(api: &Api) -> (Vec<String>, Stage) {
    let all = read(api);
    let first = &api.methods[0];
    let policy = policy_of(&json!([{
        "path": first.path,
        "methods": [first.name],
        "answers_all_clients_alike": api.vouched,
    }]));
    let settings = api.cached.iter().map(|(path, name)| match *path {
        "*" => ("*/*".to_owned(), setting(CACHED)),
        path => (key(path, name), setting(CACHED)),
    });
    let stage = Stage {
        cluster: Some("0.5".into()),
        status: Status::Available,
        settings: settings.collect(),
        ..bare()
    };
    let observed = Observed {
        stage: stage.clone(),
        methods: described(&all, |path| path == first.path),
        requests: 1_000,
        server_errors: 400,
    };
    match given::decide(&policy, &observed, None, None) {
        Planned::Act { plan, .. } => (plan.put.keys(), stage),
        _ => (Vec::new(), stage),
    }
}

// What is generated.

const PARAMETERS: [&str; 8] = [
    "method.request.path.id",
    "method.request.querystring.q",
    "method.request.header.q",
    "method.request.multivaluequerystring.q",
    "method.request.header.Authorization",
    "method.request.header.Content-Type",
    "method.request.header.Accept",
    "method.request.header.x-api-key",
];
const CONTEXT: [&str; 5] = [
    "identity.sourceIp",
    "identity.caller",
    "authorizer.principalId",
    "protocol",
    "stage",
];

fn sources() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        12 => select(&PARAMETERS[..]),
        1 => Just("method.request.body"),
        1 => Just("context.identity.sourceIp"),
        1 => Just("context.authorizer.principalId"),
        2 => Just("context.stage"),
        2 => Just("stageVariables.table"),
        2 => Just("'fixed'"),
    ]
}

fn parts() -> impl Strategy<Value = Part> {
    let how = 0..12_usize;
    prop_oneof![
        4 => select(&["{", "<a/>", "plain"][..]).prop_map(Part::Text),
        4 => (select(&["id", "q", "Accept"][..]), 0..12_usize).prop_map(|(name, how)| Part::Named(name, how)),
        4 => (select(&["querystring", "header"][..]), 0..12_usize)
            .prop_map(|(place, how)| Part::Placed(place, "q", how)),
        2 => (select(&CONTEXT[..]), 0..12_usize).prop_map(|(name, how)| Part::Context(name, how)),
        1 => how.prop_map(Part::Body),
        1 => (0..2_usize).prop_map(Part::All),
    ]
}

fn templates() -> impl Strategy<Value = Templates> {
    let kinds = select(&["application/json", "application/xml"][..]);
    let texts = proptest::collection::vec(parts(), 0..3);
    proptest::collection::btree_map(kinds, texts, 0..3)
}

fn lets() -> impl Strategy<Value = Lets> {
    prop_oneof![
        6 => Just(Lets::Everyone),
        1 => Just(Lets::Signers),
        2 => Just(Lets::Token),
        2 => subsequence(PARAMETERS.to_vec(), 0..3).prop_map(Lets::Asked),
        1 => Just(Lets::SomeoneElse),
    ]
}

prop_compose! {
    fn methods()(
        path in select(&["/a", "/a/{id}", "/b"][..]),
        name in select(&["GET", "GET", "HEAD", "ANY", "POST"][..]),
        declares in prop_oneof![
            3 => Just(PARAMETERS.to_vec()),
            2 => subsequence(PARAMETERS.to_vec(), 0..=PARAMETERS.len()),
            1 => Just(Vec::new()),
        ],
        key in prop_oneof![
            3 => Just(PARAMETERS.to_vec()),
            2 => subsequence(PARAMETERS.to_vec(), 0..=PARAMETERS.len()),
            1 => Just(Vec::new()),
        ],
        same in any::<bool>(),
        api_key in prop::bool::weighted(0.2),
        access in lets(),
        (kind, passthrough) in (
            select(&["AWS", "HTTP", "MOCK", "AWS_PROXY", "HTTP_PROXY"][..]),
            select(&[None, Some("NEVER"), Some("NEVER"), Some("WHEN_NO_MATCH"), Some("WHEN_NO_TEMPLATES")][..]),
        ),
        mapped in proptest::collection::vec(sources(), 0..3),
        templates in templates(),
        answer_mapped in proptest::collection::vec(sources(), 0..2),
        answers in templates(),
        as_caller in prop::bool::weighted(0.05),
        namespace in select(&[None, None, None, Some("shared"), Some("/b")][..]),
    ) -> Method {
        // A method declares parameters of the path, the query and the headers (API Gateway API Reference, `Method`).
        let declares: Vec<&'static str> = declares.into_iter().filter(|it| !it.contains("multivalue")).collect();
        let key = if same { declares.clone() } else { key };
        // A header of the answer takes nothing from the request but its context.
        let answer_mapped = answer_mapped.into_iter().filter(|from| !from.starts_with("method."));
        Method {
            path, name, declares, key, api_key, access, kind, passthrough, mapped, templates,
            answer_mapped: answer_mapped.collect(), answers, as_caller, namespace,
        }
    }
}

fn values() -> impl Strategy<Value = Values> {
    let names = select(
        &[
            "q",
            "Authorization",
            "Content-Type",
            "Accept",
            "x-api-key",
            "r",
        ][..],
    );
    let values = proptest::collection::vec(
        select(&["1", "2", "application/json", "application/xml"][..]),
        1..3,
    );
    proptest::collection::btree_map(names, values, 0..4)
}

prop_compose! {
    fn apis()(
        mut first in methods(),
        others in proptest::collection::vec(methods(), 0..3),
        as_get in prop::bool::weighted(0.8),
        cached in subsequence(vec![
            ("*", "*"), ("/a", "HEAD"), ("/a", "GET"), ("/a/{id}", "ANY"), ("/b", "GET"), ("/b", "POST"),
        ], 0..3),
        vouched in any::<bool>(),
        query in values(),
        headers in values(),
    ) -> Api {
        first.name = if as_get { "GET" } else { "HEAD" };
        let mut seen = BTreeSet::from([(first.path, first.name)]);
        let others = others.into_iter().filter(|it| seen.insert((it.path, it.name)));
        let others: Vec<Method> = others.collect();
        Api {
            methods: std::iter::once(first).chain(others).collect(),
            cached,
            vouched,
            request: Request {
                id: "1", query, headers, body: "{}", address: "192.0.2.1", signer: "anna",
                protocol: "HTTP/1.1",
            },
        }
    }
}

/// The requests that differ from one in a single thing, and itself.
fn neighbours(request: &Request) -> Vec<Request> {
    let mut all = vec![request.clone()];
    let mut with = |change: &dyn Fn(&mut Request)| {
        let mut other = request.clone();
        change(&mut other);
        all.push(other);
    };
    with(&|it| it.id = "2");
    with(&|it| it.body = r#"{"a": 1}"#);
    with(&|it| it.address = "192.0.2.2");
    with(&|it| it.signer = "ben");
    with(&|it| it.protocol = "HTTP/2.0");
    for name in [
        "q",
        "Authorization",
        "Content-Type",
        "Accept",
        "x-api-key",
        "r",
    ] {
        for values in [vec!["3"], vec!["3", "1"], vec!["application/xml"]] {
            with(&|it| drop(it.query.insert(name, values.clone())));
            with(&|it| drop(it.headers.insert(name, values.clone())));
        }
        with(&|it| drop(it.query.remove(name)));
        with(&|it| drop(it.headers.remove(name)));
    }
    all
}

/// How often something was put to the question.
#[derive(Debug, Default)]
struct Visited {
    decided: u32,
    in_one_entry: u32,
}

fn judge(api: &Api, visited: &mut Visited) -> Result<(), TestCaseError> {
    let (chosen, stage) = decided(api);
    if chosen.is_empty() {
        return Ok(());
    }
    visited.decided += 1;
    let first = &api.methods[0];
    let requests = neighbours(&api.request);
    let mut entries = BTreeMap::new();
    for request in &requests {
        if let Some(view) = view(first, request, api.vouched) {
            let known = entries
                .entry(entry(first, request))
                .or_insert((request, view.clone()));
            visited.in_one_entry += u32::from(known.0 != request);
            prop_assert_eq!(&known.1, &view, "{:?} and {:?}", known.0, request);
        }
    }
    let others = api.methods.iter().skip(1);
    for other in others.filter(|other| is_cached(&stage, other, &chosen)) {
        for request in &requests {
            let told = view(other, request, api.vouched).is_some();
            let shared = entries.get(&entry(other, request)).filter(|_| told);
            visited.in_one_entry += u32::from(shared.is_some());
            prop_assert!(shared.is_none(), "{:?} answers {:?}", shared, request);
        }
    }
    Ok(())
}

#[test]
fn requests_that_can_be_told_apart_never_share_an_entry() {
    let visited = std::cell::RefCell::new(Visited::default());
    let config = Config {
        cases: 20_000,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome =
        TestRunner::new(config).run(&apis(), |api| judge(&api, &mut visited.borrow_mut()));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, api)) => panic!("{why}\n{api:#?}"),
        Err(other) => panic!("{other}"),
    }
    let visited = visited.into_inner();
    // What decides nothing shows nothing.
    assert!(visited.decided > 500, "{visited:?}");
    assert!(visited.in_one_entry > 10_000, "{visited:?}");
}
