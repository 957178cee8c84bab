//! What a mapping template reads of a request, as far as it tells one client from another. Pure.
//!
//! Names and forms are those of the API Gateway Developer Guide, "Variables for data transformations".

use std::collections::BTreeSet;

/// Where a request has parameters, in the order in which `$input.params('x')` looks for `x`.
const PLACES: [&str; 3] = ["path", "querystring", "header"];

/// Something that a template reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Read {
    /// A parameter from wherever the request has it: `$input.params('x')`.
    Named(String),
    /// A parameter from one place, as a cache key names it: `$input.params().header.x`.
    Placed(String),
    /// What no cache key can hold, as it is written.
    Unkeyable(String),
}

/// What reads a body: that of the request in a template of the request, that of the answer in one of the answer.
const BODIES: [&str; 3] = ["body", "json", "path"];

/// All that a template of the request reads.
#[must_use]
pub fn reads(template: &str) -> BTreeSet<Read> {
    let bodies = BODIES.map(|word| format!("input.{word}"));
    let bodies = bodies.iter().filter(|word| template.contains(*word));
    let bodies = bodies.map(|word| Read::Unkeyable(format!("${word}")));
    bodies.chain(reads_of_an_answer(template)).collect()
}

/// All that a template of the answer reads of the request.
#[must_use]
pub fn reads_of_an_answer(template: &str) -> BTreeSet<Read> {
    // A word without its `$` is taken for a variable: it can be written `$x`, `$!x`, and `${x}`.
    let contexts = after(template, "context.").filter_map(|rest| {
        let name = leading(rest, |c| is_name(c) || c == '.').trim_end_matches('.');
        (!is_alike(name)).then(|| Read::Unkeyable(format!("$context.{name}")))
    });
    let parameters = after(template, "input.params").map(|rest| {
        named(rest)
            .or_else(|| placed(rest))
            .unwrap_or_else(|| Read::Unkeyable(format!("$input.params{}", call(rest))))
    });
    let whole = variables(template).filter_map(|(name, rest)| {
        let known = match name {
            "context" => rest.starts_with('.'),
            "input" => {
                let mut steps = BODIES.into_iter().chain(["params"]);
                let step = rest.strip_prefix('.');
                step.is_some_and(|step| steps.any(|known| step.starts_with(known)))
            }
            _ => true,
        };
        (!known).then(|| Read::Unkeyable(format!("${name}")))
    });
    // What they carry out is written nowhere.
    let written = ["evaluate", "parse", "include"].into_iter();
    let written = written.filter(|word| {
        template.contains(&format!("#{word}")) || template.contains(&format!("#{{{word}}}"))
    });
    let written = written.map(|word| Read::Unkeyable(format!("#{word}")));
    contexts
        .chain(parameters)
        .chain(whole)
        .chain(written)
        .collect()
}

/// Each variable that a template names, with what follows it.
fn variables(template: &str) -> impl Iterator<Item = (&str, &str)> {
    after(template, "$").map(|rest| {
        let rest = rest.trim_start_matches('!');
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let name = leading(rest, is_name);
        (name, rest.get(name.len()..).unwrap_or_default())
    })
}

/// What a template of the answer sets and does not read (API Gateway Developer Guide, "Use a mapping template to override
/// an API's request and response parameters and status codes").
const SET: &str = "responseOverride.";

/// Whether a part of the context, such as `stage`, tells no client from another.
#[must_use]
pub fn is_alike(context: &str) -> bool {
    const ALIKE: [&str; 10] = [
        "accountId",
        "apiId",
        "extendedRequestId",
        "httpMethod",
        "requestId",
        "requestTime",
        "requestTimeEpoch",
        "resourceId",
        "resourcePath",
        "stage",
    ];
    ALIKE.contains(&context) || context.starts_with(SET)
}

/// `('x')` or `("x")`.
fn named(rest: &str) -> Option<Read> {
    let inner = rest.strip_prefix('(')?.trim_start();
    let quote = inner.chars().next().filter(|c| ['\'', '"'].contains(c))?;
    let (name, rest) = inner.get(1..)?.split_once(quote)?;
    // A variable can stand for any name.
    let plain = !name.contains('$') && rest.trim_start().starts_with(')');
    plain.then(|| Read::Named(name.to_owned()))
}

/// `().header.x` or `().header.get('x')`, but no other method of the map, such as `().header.keySet()`.
fn placed(rest: &str) -> Option<Read> {
    let inner = rest.strip_prefix('(')?.trim_start();
    let steps = inner.strip_prefix(')')?.strip_prefix('.')?;
    let (place, rest) = steps.split_once('.')?;
    let place = PLACES.into_iter().find(|known| *known == place)?;
    if let Some(Read::Named(name)) = rest.strip_prefix("get").and_then(named) {
        return Some(Read::Placed(parameter(place, &name)));
    }
    let name = leading(rest, is_name);
    let called = rest.get(name.len()..).unwrap_or_default().starts_with('(');
    (!name.is_empty() && !called).then(|| Read::Placed(parameter(place, name)))
}

/// A parameter as a cache key names it.
#[must_use]
pub fn parameter(place: &str, name: &str) -> String {
    format!("method.request.{place}.{name}")
}

/// What stands after each occurrence of `word`.
fn after<'a>(template: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    let found = template.match_indices(word);
    found.map(|(at, word)| template.get(at + word.len()..).unwrap_or_default())
}

/// The parentheses, with what is in them.
fn call(rest: &str) -> &str {
    rest.find(')')
        .filter(|_| rest.starts_with('('))
        .and_then(|end| rest.get(..=end))
        .unwrap_or_default()
}

fn leading(text: &str, of: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c| !of(c)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

const fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_clients_apart_is_found_however_it_is_written() {
        let named = |name: &str| Read::Named(name.to_owned());
        let placed = |name: &str| Read::Placed(name.to_owned());
        let unkeyable = |text: &str| Read::Unkeyable(text.to_owned());
        let cases = [
            (r#"{"page": "$input.params('page')"}"#, named("page")),
            (r#"$input.params( "X-User" )"#, named("X-User")),
            ("$!{input.params('page')}", named("page")),
            ("$context.domainName", unkeyable("$context.domainName")),
            ("$input.json('$.a')", unkeyable("$input.json")),
            ("$!{input.body}", unkeyable("$input.body")),
            (
                "$input.params().header.X-User,",
                placed("method.request.header.X-User"),
            ),
            (
                "${input.params().querystring.page}",
                placed("method.request.querystring.page"),
            ),
            ("#set($all = $input.params())", unkeyable("$input.params()")),
            (
                "$input.params().header.keySet()",
                unkeyable("$input.params()"),
            ),
            (
                "$input.params().header.get('X-User')",
                placed("method.request.header.X-User"),
            ),
            ("#set($c = $context)", unkeyable("$context")),
            ("$context['identity']", unkeyable("$context")),
            ("#foreach($i in $!{input})", unkeyable("$input")),
            ("#evaluate($text)", unkeyable("#evaluate")),
            (
                "$input.params().get('header')",
                unkeyable("$input.params()"),
            ),
            ("$input.params($name)", unkeyable("$input.params($name)")),
            (
                r#"$input.params("$name")"#,
                unkeyable(r#"$input.params("$name")"#),
            ),
            (
                r#"{"ip": "$context.identity.sourceIp"}"#,
                unkeyable("$context.identity.sourceIp"),
            ),
            (
                "$!{context.authorizer.claims.sub}",
                unkeyable("$context.authorizer.claims.sub"),
            ),
            (
                "#foreach($i in $context.authorizer)",
                unkeyable("$context.authorizer"),
            ),
        ];
        for (template, read) in cases {
            assert_eq!(reads(template), BTreeSet::from([read]), "{template}");
        }
    }

    #[test]
    fn what_is_the_same_for_every_client_is_of_no_concern() {
        for template in [
            r#"{"statusCode": 200}"#,
            "$context.requestId $context.stage $stageVariables.table",
            r#"{"input": 1, "context": 2}"#,
            "",
        ] {
            assert_eq!(reads(template), BTreeSet::new(), "{template}");
        }
    }
}
