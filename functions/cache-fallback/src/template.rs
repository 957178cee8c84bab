//! What a mapping template reads of a request, as far as it tells one client from another. Pure.
//!
//! Names and forms are those of the API Gateway Developer Guide, "Variables for data transformations".

use std::collections::BTreeSet;

/// Where a request has parameters, in the order in which `$input.params('x')` looks for `x`.
pub const PLACES: [&str; 3] = ["path", "querystring", "header"];

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

/// All that a template reads.
#[must_use]
pub fn reads(template: &str) -> BTreeSet<Read> {
    // A word without its `$` is taken for a variable: it can be written `$x`, `$!x`, and `${x}`.
    let contexts = after(template, "context.").filter_map(|rest| {
        let name = leading(rest, |c| is_name(c) || c == '.').trim_end_matches('.');
        (!is_alike(name)).then(|| Read::Unkeyable(format!("$context.{name}")))
    });
    let bodies = ["input.body", "input.json", "input.path"].into_iter();
    let bodies = bodies.filter(|word| template.contains(word));
    let bodies = bodies.map(|word| Read::Unkeyable(format!("${word}")));
    let parameters = after(template, "input.params").map(|rest| {
        named(rest)
            .or_else(|| placed(rest))
            .unwrap_or_else(|| Read::Unkeyable(format!("$input.params{}", call(rest))))
    });
    contexts.chain(bodies).chain(parameters).collect()
}

/// Whether a part of the context, such as `stage`, tells no client from another.
#[must_use]
pub fn is_alike(context: &str) -> bool {
    const ALIKE: [&str; 11] = [
        "accountId",
        "apiId",
        "extendedRequestId",
        "httpMethod",
        "protocol",
        "requestId",
        "requestTime",
        "requestTimeEpoch",
        "resourceId",
        "resourcePath",
        "stage",
    ];
    ALIKE.contains(&context)
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

/// `().header.x`, but not a method of the whole map, such as `().header.keySet()`.
fn placed(rest: &str) -> Option<Read> {
    let inner = rest.strip_prefix('(')?.trim_start();
    let steps = inner.strip_prefix(')')?.strip_prefix('.')?;
    let (place, rest) = steps.split_once('.')?;
    let name = leading(rest, is_name);
    let called = rest.get(name.len()..).unwrap_or_default().starts_with('(');
    (PLACES.contains(&place) && !name.is_empty() && !called)
        .then(|| Read::Placed(parameter(place, name)))
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
            "",
        ] {
            assert_eq!(reads(template), BTreeSet::new(), "{template}");
        }
    }
}
