//! What programs print and answer, as JSON, and quoted where it is none.

use serde::Deserialize;
use serde_json::Value;

use super::error::BenchError;

/// Reads JSON, quoting it when it is not what was expected.
pub(super) fn parse<T: for<'a> Deserialize<'a>>(
    what: &'static str,
    text: &str,
) -> Result<T, BenchError> {
    serde_json::from_str(text).map_err(|source| BenchError::Json {
        what,
        text: text.to_owned(),
        source,
    })
}

/// Reads an answer of a function, which may be anything.
pub(super) fn parse_answer(body: &[u8]) -> Result<Value, BenchError> {
    parse("the function's answer", &String::from_utf8_lossy(body))
}
