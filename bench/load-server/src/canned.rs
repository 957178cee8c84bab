//! Answers that a scene brings along, for the calls that it alone needs.

use std::collections::BTreeMap;

use aws_smithy_cbor::Encoder;
use aws_smithy_types::DateTime;
use serde::Deserialize;
use serde_json::Value;

use crate::answer::Answer;

/// What stands in a body for the incident that the function named in the ledger.
const INCIDENT: &str = "{incident}";
/// What ends a text that stands, in a body over CBOR, for a whole minute before the alarm: `{3 minutes before}`.
const MINUTES_BEFORE: &str = " minutes before}";

/// The answer to one call.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Canned {
    /// The call, as `service.Operation`: what the log and the account name it.
    call: String,
    /// The HTTP method.
    method: String,
    /// The path, in which `*` stands for one segment.
    path: String,
    /// What the query has to hold.
    #[serde(default)]
    query: String,
    /// What the request's body has to hold.
    #[serde(default)]
    sent: String,
    /// The call that has to have been answered before, for what is otherwise once something was changed.
    pub(crate) after: Option<String>,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The answer's body: JSON, or a text that is sent as it is. In a call over CBOR it is sent as that.
    #[serde(default)]
    body: Value,
}

fn ok() -> u16 {
    200
}

/// A request, as far as it tells which answer it gets.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: &'a str,
    /// The body.
    pub body: &'a [u8],
}

impl Canned {
    /// Whether it answers this request.
    pub(crate) fn answers(&self, asked: Asked<'_>) -> bool {
        self.method == asked.method
            && is_path(&self.path, asked.path)
            && asked.query.contains(&self.query)
            && holds(asked.body, self.sent.as_bytes())
    }

    /// The service's endpoint prefix and the operation.
    pub(crate) fn name(&self) -> (&str, &str) {
        self.call.split_once('.').unwrap_or(("canned", &self.call))
    }

    /// What is written to the client, in the form of its protocol.
    pub(crate) fn answer(&self, cbor: bool, incident: &str, alarmed_at: DateTime) -> Answer {
        let answer = if cbor {
            let mut encoder = Encoder::new(Vec::new());
            encode(&mut encoder, &self.body, alarmed_at);
            Answer::cbor(encoder.into_writer())
        } else {
            let text = match &self.body {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                body => body.to_string(),
            };
            Answer::control(text.replace(INCIDENT, incident))
        };
        Answer {
            status: self.status,
            headers: self.headers.clone(),
            ..answer
        }
    }
}

fn is_path(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return true,
            (Some(wanted), Some(found)) if wanted == "*" || wanted == found => {}
            _ => return false,
        }
    }
}

fn holds(body: &[u8], sought: &[u8]) -> bool {
    sought.is_empty() || body.windows(sought.len()).any(|part| part == sought)
}

fn encode(cbor: &mut Encoder, value: &Value, alarmed_at: DateTime) {
    match value {
        Value::Null => cbor.null(),
        Value::Bool(value) => cbor.boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => cbor.long(integer),
            None => cbor.double(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => match minutes_before(text) {
            Some(minutes) => cbor.timestamp(&whole_minute(alarmed_at, minutes)),
            None => cbor.str(text),
        },
        Value::Array(values) => {
            cbor.array(values.len());
            for value in values {
                encode(cbor, value, alarmed_at);
            }
            cbor
        }
        Value::Object(members) => {
            cbor.map(members.len());
            for (name, value) in members {
                encode(cbor.str(name), value, alarmed_at);
            }
            cbor
        }
    };
}

fn minutes_before(text: &str) -> Option<u32> {
    let number = text.strip_prefix('{')?.strip_suffix(MINUTES_BEFORE)?;
    number.parse().ok()
}

fn whole_minute(alarmed_at: DateTime, before: u32) -> DateTime {
    let at = alarmed_at.secs();
    DateTime::from_secs(at - at.rem_euclid(60) - i64::from(before) * 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_cbor::Decoder;
    use serde_json::json;

    fn alarmed() -> DateTime {
        DateTime::from_secs(60 * 60 + 25)
    }

    fn canned(more: Value) -> Canned {
        let mut value = json!({
            "call": "lambda.GetAlias",
            "method": "GET",
            "path": "/functions/*/aliases/live",
        });
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
        }
        serde_json::from_value(value).unwrap()
    }

    const ASKED: Asked<'static> = Asked {
        method: "GET",
        path: "/functions/orders/aliases/live",
        query: "Marker=2&MaxItems=50",
        body: br#"{"FunctionVersion":"6"}"#,
    };

    #[test]
    fn a_star_stands_for_one_segment() {
        assert!(canned(json!({})).answers(ASKED));
        for path in [
            "/functions/orders/aliases/live/more",
            "/functions/orders/aliases",
            "/functions/a/b/aliases/live",
        ] {
            assert!(
                !canned(json!({})).answers(Asked { path, ..ASKED }),
                "{path}"
            );
        }
    }

    #[test]
    fn method_query_and_body_have_to_fit() {
        for (more, fits) in [
            (json!({"query": "Marker=2", "sent": "\"6\""}), true),
            (json!({"method": "PUT"}), false),
            (json!({"query": "Marker=3"}), false),
            (json!({"sent": "\"7\""}), false),
        ] {
            assert_eq!(canned(more.clone()).answers(ASKED), fits, "{more}");
        }
    }

    #[test]
    fn an_answer_over_cbor_keeps_counts_and_measures_apart() {
        let answer = canned(json!({"body": {"n": 3, "x": 40.0}})).answer(true, "", alarmed());
        let mut decoder = Decoder::new(&answer.body);
        assert_eq!(decoder.map().unwrap(), Some(2));
        assert_eq!(decoder.str().unwrap(), "n");
        assert_eq!(decoder.integer().unwrap(), 3);
        assert_eq!(decoder.str().unwrap(), "x");
        assert!((decoder.double().unwrap() - 40.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_minute_before_the_alarm_is_a_whole_one() {
        let answer = |text: &str| canned(json!({ "body": text })).answer(true, "", alarmed());
        let at = Decoder::new(&answer("{3 minutes before}").body).timestamp();
        assert_eq!(at.unwrap().secs(), 60 * 60 - 3 * 60);
        let text = answer("{three minutes before}").body;
        assert_eq!(Decoder::new(&text).str().unwrap(), "{three minutes before}");
    }

    #[test]
    fn a_text_is_sent_as_it_is_and_names_the_incident() {
        for (body, sent) in [
            (json!("<p>{incident}</p>"), "<p>inc-1</p>"),
            (json!({"id": "{incident}"}), r#"{"id":"inc-1"}"#),
        ] {
            let answer = canned(json!({ "body": body })).answer(false, "inc-1", alarmed());
            assert_eq!(answer.body, sent.as_bytes());
        }
    }

    #[test]
    fn status_and_headers_are_the_scenes() {
        let answer = canned(json!({"status": 404, "headers": {"x-amzn-errortype": "Gone"}}));
        let answer = answer.answer(false, "", alarmed());
        assert_eq!(answer.status, 404);
        assert_eq!(answer.headers["x-amzn-errortype"], "Gone");
        assert!(answer.body.is_empty());
    }
}
