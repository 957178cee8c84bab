//! Groups: what failed in the same way, and whose it was, counted together, with one sample of its form each.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::message::InHand;

/// Groups, and requests of each, told at most.
const TOLD: usize = 20;
/// The longest name of a group's cause, in bytes of JSON.
const CAUSE_BYTES: usize = 400;
/// The longest name of an origin, in bytes of JSON.
const ORIGIN_BYTES: usize = 300;
/// The longest sample, in bytes of JSON.
const SAMPLE_BYTES: usize = 400;
/// How deep a sample looks.
const SAMPLE_DEPTH: u32 = 3;

/// Messages by why they had failed and whom they were for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Groups(BTreeMap<String, Group>);

/// Messages that failed in the same way, for the same receiver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    count: u64,
    /// The first one's form, without what it says: names of fields and types of values.
    sample: String,
    /// The first requests, to look them up in the function's log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    request_ids: Vec<String>,
}

impl Groups {
    pub(super) fn note(&mut self, message: &InHand) {
        let envelope = &message.envelope;
        let cause = envelope.cause.as_ref().map_or_else(
            || "no reason given".to_owned(),
            |cause| format!("{} {}", cause.code, alike(&cause.words)),
        );
        let origin = envelope
            .names
            .first()
            .map_or("nobody named", String::as_str);
        let name = format!(
            "{}, for {}",
            excerpt(cause.trim(), CAUSE_BYTES),
            excerpt(origin, ORIGIN_BYTES)
        );
        let name = if self.0.len() >= TOLD && !self.0.contains_key(&name) {
            "others".to_owned()
        } else {
            name
        };
        let group = self.0.entry(name).or_default();
        if group.count == 0 {
            let form = form(envelope.judged(&message.body));
            excerpt(&form, SAMPLE_BYTES).clone_into(&mut group.sample);
        }
        group.count += 1;
        if let Some(request) = &envelope.request
            && group.request_ids.len() < TOLD
        {
            group.request_ids.push(request.clone());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One sentence each, with the first one's form.
    pub(super) fn told(&self) -> Vec<String> {
        let groups = self.0.iter();
        groups
            .map(|(name, Group { count, sample, .. })| {
                format!("{count} times {name}; its form: {sample}")
            })
            .collect()
    }

    /// One sentence.
    pub(super) fn summary(&self) -> String {
        let told: Vec<String> = self
            .0
            .iter()
            .map(|(name, group)| format!("{} times {name}", group.count))
            .collect();
        format!("why the messages had failed: {}", told.join("; "))
    }
}

/// An error's message without what differs from one to the next: words with digits in them.
fn alike(words: &str) -> String {
    let word = |word: &str| {
        let differs = word.bytes().any(|byte| byte.is_ascii_digit());
        if differs {
            "#".to_owned()
        } else {
            word.to_owned()
        }
    };
    words
        .split_whitespace()
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A payload's form: of JSON, the names of its fields and the types of its values; of anything else, its length.
fn form(text: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return format!("no JSON, {} bytes", text.len());
    };
    let mut form = String::new();
    shape(&value, SAMPLE_DEPTH, &mut form);
    form
}

fn shape(value: &Value, depth: u32, form: &mut String) {
    if form.len() > SAMPLE_BYTES {
        return;
    }
    match value {
        Value::Null => form.push_str("null"),
        Value::Bool(_) => form.push_str("boolean"),
        Value::Number(_) => form.push_str("number"),
        Value::String(_) => form.push_str("string"),
        Value::Array(items) => match items.first() {
            Some(first) if depth > 0 => {
                form.push('[');
                shape(first, depth - 1, form);
                let _ = write!(form, "; {}]", items.len());
            }
            _ => form.push_str("array"),
        },
        Value::Object(_) if depth == 0 => form.push_str("object"),
        Value::Object(fields) => {
            form.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                let _ = write!(form, "{}{name}: ", if at == 0 { "" } else { ", " });
                shape(value, depth - 1, form);
            }
            form.push('}');
        }
    }
}

/// As much of the text's beginning as takes at most `bytes` bytes in JSON.
pub(super) fn excerpt(text: &str, bytes: usize) -> &str {
    let mut taken = 0;
    for (at, char) in text.char_indices() {
        taken += match char {
            '"' | '\\' => 2,
            '\0'..' ' => "\\u0000".len(),
            _ => char.len_utf8(),
        };
        if taken > bytes {
            return &text[..at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Cause;
    use crate::sample::message;
    use proptest::prelude::*;
    use serde_json::json;

    fn failed(words: &str, request: &str) -> InHand {
        let mut failed = message(r#"{"order": 7, "buyer": {"name": "Ada", "tags": ["a", "b"]}}"#);
        failed.envelope.cause = Some(Cause {
            code: "Timeout".into(),
            words: words.into(),
        });
        failed.envelope.request = Some(request.into());
        failed
    }

    #[test]
    fn what_failed_alike_is_counted_together_and_the_rare_as_others() {
        let mut groups = Groups::default();
        groups.note(&failed("after 3.00 seconds", "request-1"));
        groups.note(&failed("after 6.01 seconds", "request-2"));
        groups.note(&message("secret"));
        let orders = crate::sample::ORDERS;
        assert_eq!(
            json!(groups),
            json!({
                format!("Timeout after # seconds, for {orders}"): {
                    "count": 2,
                    "sample": "{buyer: {name: string, tags: [string; 2]}, order: number}",
                    "request_ids": ["request-1", "request-2"],
                },
                format!("no reason given, for {orders}"): {"count": 1, "sample": "no JSON, 6 bytes"},
            })
        );
        for way in 0..50_u32 {
            let words = char::from_u32(0x100 + way).unwrap().to_string();
            groups.note(&failed(&words, "request-3"));
        }
        assert_eq!(groups.0.len(), TOLD + 1);
        assert_eq!(groups.0["others"].count, 32);
    }

    proptest! {
        #[test]
        fn an_excerpt_is_a_beginning_that_takes_no_more_than_its_bytes(
            text in "(?s).{0,60}",
            bytes in 0_usize..80,
        ) {
            let excerpt = excerpt(&text, bytes);
            prop_assert!(text.starts_with(excerpt));
            prop_assert!(json!(excerpt).to_string().len() <= bytes + 2);
            prop_assert!(excerpt == text || json!(text).to_string().len() > excerpt.len() + 2);
        }
    }
}
