//! Messages as tests seed and find them, and the account of what was lost and what came twice.

use std::collections::BTreeMap;
use std::fmt;

use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName, MessageSystemAttributeNameForSends,
    MessageSystemAttributeValue, SendMessageBatchRequestEntry,
};
use aws_smithy_types::Blob;

use crate::failure::{Result, ensure};

/// What an attribute holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Text, for `String` and `Number`.
    Text(String),
    /// Bytes, for `Binary`.
    Bytes(Vec<u8>),
}

/// A message attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The type, custom suffix included, such as `Number.int`.
    pub data_type: String,
    /// The value.
    pub value: Held,
}

impl Attribute {
    /// An attribute of a type that holds text.
    pub fn text(data_type: &str, value: impl Into<String>) -> Self {
        Self {
            data_type: data_type.to_owned(),
            value: Held::Text(value.into()),
        }
    }

    /// An attribute of a type that holds bytes.
    pub fn bytes(data_type: &str, value: impl Into<Vec<u8>>) -> Self {
        Self {
            data_type: data_type.to_owned(),
            value: Held::Bytes(value.into()),
        }
    }
}

/// The attributes of a message, by name.
pub type Attributes = BTreeMap<String, Attribute>;

/// A message to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seed {
    /// The body; tests tell messages apart by it.
    pub body: String,
    /// The attributes.
    pub attributes: Attributes,
    /// The message group: required in a FIFO queue, a tenant in a standard one.
    pub group: Option<String>,
    /// The deduplication id of a message in a FIFO queue.
    pub deduplication_id: Option<String>,
    /// The X-Ray trace header.
    pub trace_header: Option<String>,
}

impl Seed {
    /// A message with nothing but a body.
    pub fn new(body: impl Into<String>) -> Self {
        Self {
            body: body.into(),
            ..Self::default()
        }
    }

    /// The same message with one more attribute.
    #[must_use]
    pub fn with(mut self, name: &str, attribute: Attribute) -> Self {
        self.attributes.insert(name.to_owned(), attribute);
        self
    }

    /// The same message with these attributes.
    #[must_use]
    pub fn with_attributes(mut self, attributes: Attributes) -> Self {
        self.attributes.extend(attributes);
        self
    }

    /// The same message in a group; its deduplication id is its body's, so that bodies have to differ.
    #[must_use]
    pub fn in_group(mut self, group: &str) -> Self {
        self.group = Some(group.to_owned());
        self
    }

    /// The same message with a trace header.
    #[must_use]
    pub fn traced(mut self, header: &str) -> Self {
        self.trace_header = Some(header.to_owned());
        self
    }

    pub(crate) fn message_attributes(&self) -> Result<Vec<(String, MessageAttributeValue)>> {
        self.attributes
            .iter()
            .map(|(name, attribute)| {
                let builder = MessageAttributeValue::builder().data_type(&attribute.data_type);
                let value = match &attribute.value {
                    Held::Text(text) => builder.string_value(text),
                    Held::Bytes(bytes) => builder.binary_value(Blob::new(bytes.clone())),
                };
                Ok((name.clone(), value.build()?))
            })
            .collect()
    }

    pub(crate) fn batch_entry(&self, id: usize) -> Result<SendMessageBatchRequestEntry> {
        let mut entry = SendMessageBatchRequestEntry::builder()
            .id(id.to_string())
            .message_body(&self.body)
            .set_message_group_id(self.group.clone())
            .set_message_deduplication_id(self.deduplication_id.clone());
        for (name, value) in self.message_attributes()? {
            entry = entry.message_attributes(name, value);
        }
        Ok(entry.build()?)
    }

    pub(crate) fn system_attributes(
        &self,
    ) -> Result<
        Option<(
            MessageSystemAttributeNameForSends,
            MessageSystemAttributeValue,
        )>,
    > {
        let Some(header) = &self.trace_header else {
            return Ok(None);
        };
        let value = MessageSystemAttributeValue::builder()
            .data_type("String")
            .string_value(header)
            .build()?;
        Ok(Some((
            MessageSystemAttributeNameForSends::AwsTraceHeader,
            value,
        )))
    }
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its id in the queue.
    pub id: String,
    /// The body.
    pub body: String,
    /// The attributes.
    pub attributes: Attributes,
    /// The system attributes, by their names in the API.
    pub system: BTreeMap<String, String>,
    /// The handle of this receipt.
    pub handle: String,
}

impl Received {
    pub(crate) fn read(message: Message) -> Self {
        let attributes = message.message_attributes.unwrap_or_default();
        Self {
            id: message.message_id.unwrap_or_default(),
            body: message.body.unwrap_or_default(),
            attributes: attributes
                .into_iter()
                .map(|(name, value)| {
                    let held = match (value.binary_value, value.string_value) {
                        (Some(bytes), _) => Held::Bytes(bytes.into_inner()),
                        (None, text) => Held::Text(text.unwrap_or_default()),
                    };
                    (
                        name,
                        Attribute {
                            data_type: value.data_type,
                            value: held,
                        },
                    )
                })
                .collect(),
            system: message
                .attributes
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name.as_str().to_owned(), value))
                .collect(),
            handle: message.receipt_handle.unwrap_or_default(),
        }
    }

    /// A system attribute.
    #[must_use]
    pub fn system(&self, name: &MessageSystemAttributeName) -> Option<&str> {
        self.system.get(name.as_str()).map(String::as_str)
    }

    /// The attributes that `seed` did not have: what was added on the way.
    #[must_use]
    pub fn added_to(&self, seed: &Seed) -> Vec<&str> {
        self.attributes
            .keys()
            .filter(|name| !seed.attributes.contains_key(*name))
            .map(String::as_str)
            .collect()
    }
}

/// One attribute of every kind: each logical type, with and without a custom suffix.
#[must_use]
pub fn every_kind_of_attribute() -> Attributes {
    [
        (
            "text",
            Attribute::text("String", "plain, with \"quotes\", ünïcode and \u{1F69A}"),
        ),
        (
            "document",
            Attribute::text("String.json", r#"{"a":[1,2,{"b":null}]}"#),
        ),
        ("number", Attribute::text("Number", "-12.5e3")),
        (
            "digits",
            Attribute::text("Number", "12345678901234567890123456789012345678"),
        ),
        ("integer", Attribute::text("Number.int", "42")),
        (
            "bytes",
            Attribute::bytes("Binary", (0..=255_u8).collect::<Vec<_>>()),
        ),
        ("image", Attribute::bytes("Binary.gif", *b"GIF89a\x00\x01")),
    ]
    .into_iter()
    .map(|(name, attribute)| (name.to_owned(), attribute))
    .collect()
}

/// As many attributes as SQS allows, of all kinds.
#[must_use]
pub fn ten_attributes() -> Attributes {
    let mut attributes = every_kind_of_attribute();
    for index in attributes.len()..crate::limits::ATTRIBUTES {
        attributes.insert(
            format!("more-{index}"),
            Attribute::text("String", index.to_string()),
        );
    }
    attributes
}

/// The bytes of a message that count against a queue's `MaximumMessageSize`.
#[must_use]
pub fn size(body: &str, attributes: &Attributes) -> usize {
    let attributes: usize = attributes
        .iter()
        .map(|(name, attribute)| {
            let value = match &attribute.value {
                Held::Text(text) => text.len(),
                Held::Bytes(bytes) => bytes.len(),
            };
            name.len() + attribute.data_type.len() + value
        })
        .sum();
    body.len() + attributes
}

/// A body that starts with `mark` and is `bytes` long.
#[must_use]
pub fn body_of(mark: &str, bytes: usize) -> String {
    let mut body = mark.to_owned();
    // Bodies of one test differ all along, so that no two are taken for each other when cut short.
    while body.len() < bytes {
        body.push(char::from(
            b'a' + u8::try_from(body.len() % 23).unwrap_or_default(),
        ));
    }
    body.truncate(bytes);
    body
}

/// The account of messages by their bodies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Seeded and not found.
    pub lost: Vec<String>,
    /// Found more often than seeded, with the number of extra finds.
    pub duplicated: BTreeMap<String, usize>,
    /// Found and never seeded.
    pub foreign: Vec<String>,
}

impl Account {
    /// Compares what was seeded with what was found.
    pub fn of<'a>(
        seeded: impl IntoIterator<Item = &'a str>,
        found: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for body in seeded {
            counts.entry(body).or_default().0 += 1;
        }
        for body in found {
            counts.entry(body).or_default().1 += 1;
        }
        let mut account = Self::default();
        for (body, (seeded, found)) in counts {
            let name = shown(body);
            if seeded == 0 {
                account.foreign.push(name);
            } else if found < seeded {
                account.lost.push(name);
            } else if found > seeded {
                account.duplicated.insert(name, found - seeded);
            }
        }
        account
    }

    /// The number of extra finds.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.duplicated.values().sum()
    }

    /// Whether every message was found exactly once.
    #[must_use]
    pub fn balances(&self) -> bool {
        *self == Self::default()
    }

    /// Fails, naming what was lost or doubled, unless every message was found exactly once.
    pub fn balanced(&self) -> Result {
        ensure(self.balances(), || self.to_string())
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lost {:?}, {} duplicated {:?}, {} foreign {:?}",
            self.lost.len(),
            self.lost,
            self.duplicates(),
            self.duplicated,
            self.foreign.len(),
            self.foreign
        )
    }
}

/// A body short enough to be read in a failed assertion.
fn shown(body: &str) -> String {
    const READABLE: usize = 60;
    if body.len() <= READABLE {
        return body.to_owned();
    }
    let start: String = body.chars().take(READABLE).collect();
    format!("{start}… ({} bytes)", body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_tells_lost_doubled_and_foreign_apart() {
        let account = Account::of(["a", "b", "b", "c"], ["b", "b", "b", "c", "d"]);
        assert_eq!(account.lost, ["a"]);
        assert_eq!(account.duplicated, BTreeMap::from([("b".to_owned(), 1)]));
        assert_eq!(account.foreign, ["d"]);
        assert!(Account::of(["a", "b"], ["b", "a"]).balances());
    }

    #[test]
    fn sizes_count_attributes() {
        let attributes = Attributes::from([("n".to_owned(), Attribute::text("Number", "12"))]);
        assert_eq!(size("body", &attributes), 4 + 1 + 6 + 2);
        assert_eq!(body_of("mark-", 100).len(), 100);
    }

    #[test]
    fn ten_attributes_are_ten() {
        assert_eq!(ten_attributes().len(), 10);
    }
}
