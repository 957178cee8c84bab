//! The limits of SQS and API Gateway that the emulator does not keep, so that what AWS would refuse is refused here too.
//!
//! Sources: Amazon SQS Developer Guide, "Amazon SQS message quotas" and "Message attribute components"; API reference
//! of `SendMessage`, `SendMessageBatch` and `MessageSystemAttributeValue`.

use std::collections::BTreeMap;

use serde_json::Value;

/// "A message can contain up to 10 metadata attributes."
pub const ATTRIBUTES: usize = 10;

/// The longest name of an attribute, and of its type.
pub const NAME: usize = 256;

/// The longest group id and the longest deduplication id.
pub const GROUP: usize = 128;

/// "The total size of all messages that you send in a single `SendMessageBatch` call can't exceed 1,048,576 bytes."
pub const BATCH_BYTES: usize = 1_048_576;

/// The changes that one `UpdateStage` takes. AWS documents no number; with more than about 80 it answers "Update size too
/// large. Try updating stage in multiple `UpdateStage` operations"
/// (<https://github.com/DianaIonita/serverless-api-gateway-caching/issues/46>).
pub const PATCHES: usize = 80;

/// A refusal in the service's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error code.
    pub code: &'static str,
    /// The service's words.
    pub message: String,
}

/// Why API Gateway would not take so many changes of a stage in one call.
#[must_use]
pub fn refuse_patches(operations: usize) -> Option<Refusal> {
    (operations > PATCHES).then(|| Refusal {
        code: "BadRequestException",
        message: "Update size too large. Try updating stage in multiple UpdateStage operations"
            .to_owned(),
    })
}

fn invalid(message: String) -> Refusal {
    Refusal {
        code: "InvalidParameterValue",
        message,
    }
}

/// The bytes that count against the queue's `MaximumMessageSize`.
///
/// "All parts of the message attribute, including Name, Type, and Value, are part of the message size restriction";
/// "the size of a message system attribute doesn't count towards the total size of a message".
#[must_use]
pub fn bytes(message: &Value) -> usize {
    let text = |value: &Value| value.as_str().map_or(0, str::len);
    let attributes: usize = attributes(message)
        .map(|(name, value)| {
            name.len()
                + text(&value["DataType"])
                + text(&value["StringValue"])
                + value["BinaryValue"].as_str().map_or(0, decoded_length)
        })
        .sum();
    text(&message["MessageBody"]) + attributes
}

fn decoded_length(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

fn attributes(message: &Value) -> impl Iterator<Item = (&String, &Value)> {
    message["MessageAttributes"]
        .as_object()
        .into_iter()
        .flatten()
}

/// Why AWS would refuse a message, given as `SendMessage`'s input or as an entry of `SendMessageBatch`.
#[must_use]
pub fn refuse(message: &Value, maximum_message_size: usize) -> Option<Refusal> {
    let count = attributes(message).count();
    if count > ATTRIBUTES {
        return Some(invalid(format!(
            "Number of message attributes [{count}] exceeds the allowed maximum [{ATTRIBUTES}]."
        )));
    }
    for (name, value) in attributes(message) {
        if name.is_empty() || name.len() > NAME {
            return Some(invalid(format!(
                "Length of message attribute name must be 1 to {NAME} bytes."
            )));
        }
        let data_type = value["DataType"].as_str().unwrap_or_default();
        let binary = match data_type.split('.').next() {
            Some("String" | "Number") => false,
            Some("Binary") => true,
            _ => {
                return Some(invalid(format!(
                    "The type of message (user) attribute '{name}' is invalid. You must use only the following \
                     supported type prefixes: Binary, Number, String."
                )));
            }
        };
        let held = value[if binary { "BinaryValue" } else { "StringValue" }].as_str();
        if held.is_none_or(str::is_empty) {
            return Some(invalid(format!(
                "The message (user) attribute '{name}' must contain a non-empty value of type '{data_type}'."
            )));
        }
        if !value["StringListValues"].is_null() || !value["BinaryListValues"].is_null() {
            return Some(Refusal {
                code: "UnsupportedOperation",
                message:
                    "Message attribute list values in SendMessage operation are not supported."
                        .to_owned(),
            });
        }
    }
    for field in ["MessageGroupId", "MessageDeduplicationId"] {
        let fits = message[field].as_str().is_none_or(|id| {
            (1..=GROUP).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        });
        if !fits {
            return Some(invalid(format!(
                "{field} can only include alphanumeric and punctuation characters. 1 to {GROUP} in length."
            )));
        }
    }
    let bytes = bytes(message);
    (bytes > maximum_message_size).then(|| {
        invalid(format!(
            "One or more parameters are invalid. Reason: Message must be shorter than {maximum_message_size} bytes."
        ))
    })
}

/// Why AWS would refuse a whole `SendMessageBatch`.
#[must_use]
pub fn refuse_batch(entries: &[Value]) -> Option<Refusal> {
    let total: usize = entries.iter().map(bytes).sum();
    (total > BATCH_BYTES).then(|| Refusal {
        code: "BatchRequestTooLong",
        message: format!(
            "Batch requests cannot be longer than {BATCH_BYTES} bytes. You have sent {total} bytes."
        ),
    })
}

/// The refused entries of a batch, by their ids.
#[must_use]
pub fn refused_entries(
    entries: &[Value],
    maximum_message_size: usize,
) -> BTreeMap<String, Refusal> {
    entries
        .iter()
        .filter_map(|entry| {
            let id = entry["Id"].as_str()?.to_owned();
            Some((id, refuse(entry, maximum_message_size)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_attributes(count: usize) -> Value {
        let attributes: serde_json::Map<_, _> = (0..count)
            .map(|n| {
                (
                    format!("a{n}"),
                    json!({"DataType": "String", "StringValue": "x"}),
                )
            })
            .collect();
        json!({"MessageBody": "b", "MessageAttributes": attributes})
    }

    #[test]
    fn the_eleventh_attribute_is_refused() {
        assert_eq!(refuse(&with_attributes(10), 1024), None);
        assert_eq!(
            refuse(&with_attributes(11), 1024).unwrap().code,
            "InvalidParameterValue"
        );
    }

    #[test]
    fn attributes_count_towards_the_size() {
        let message = json!({"MessageBody": "12345", "MessageAttributes": {
            "ab": {"DataType": "Binary", "BinaryValue": "AAECAw=="},
        }});
        assert_eq!(bytes(&message), 5 + 2 + 6 + 4);
        assert_eq!(refuse(&message, 17), None);
        assert!(refuse(&message, 16).is_some());
    }

    #[test]
    fn empty_values_and_foreign_types_are_refused() {
        for attribute in [
            json!({"DataType": "String", "StringValue": ""}),
            json!({"DataType": "Binary"}),
            json!({"DataType": "Decimal", "StringValue": "1"}),
            json!({"DataType": "String", "StringValue": "x", "StringListValues": []}),
        ] {
            let message = json!({"MessageBody": "b", "MessageAttributes": {"a": attribute}});
            assert!(refuse(&message, 1024).is_some(), "{message}");
        }
        let custom = json!({"MessageBody": "b", "MessageAttributes": {
            "a": {"DataType": "Number.int", "StringValue": "1"},
        }});
        assert_eq!(refuse(&custom, 1024), None);
    }

    #[test]
    fn a_batch_is_refused_as_a_whole_above_its_total() {
        let entry =
            |bytes: usize| json!({"Id": bytes.to_string(), "MessageBody": "x".repeat(bytes)});
        assert_eq!(refuse_batch(&[entry(BATCH_BYTES - 1), entry(1)]), None);
        assert_eq!(
            refuse_batch(&[entry(BATCH_BYTES), entry(1)]).unwrap().code,
            "BatchRequestTooLong"
        );
    }
}
