//! The messages a scenario seeds: distinct bodies, with everything SQS returns around them rendered once.

use std::fmt::Write as _;

use md5::{Digest as _, Md5};

/// The name of the string attribute that each message carries and that must survive the replay.
pub(crate) const TENANT_ATTRIBUTE: &str = "tenant";
/// The value of [`TENANT_ATTRIBUTE`].
pub(crate) const TENANT: &str = "plant-7";
/// The name of the number attribute that each message carries and that must survive the replay.
pub(crate) const WEIGHT_ATTRIBUTE: &str = "weight";
/// The value of [`WEIGHT_ATTRIBUTE`].
pub(crate) const WEIGHT: &str = "12.5";

const SEQUENCE_PREFIX: &str = r#"{"sequence":"#;

/// One seeded message.
#[derive(Debug)]
pub(crate) struct Message {
    /// The body, byte for byte as it must arrive.
    pub(crate) body: Box<str>,
    /// Hexadecimal MD5 of the body.
    pub(crate) md5: Box<str>,
    /// The members `MessageId`, `MD5OfBody` and `Body` as JSON, without braces.
    pub(crate) fragment: Box<str>,
}

impl Message {
    fn new(sequence: u32, body_bytes: usize) -> Self {
        let body = body(sequence, body_bytes);
        let id = message_id(sequence);
        let md5 = md5_hex(body.as_bytes());
        let fragment = format!(
            r#""MessageId":"{id}","MD5OfBody":"{md5}","Body":{}"#,
            serde_json::Value::from(body.as_str())
        );
        Self {
            body: body.into(),
            md5: md5.into(),
            fragment: fragment.into(),
        }
    }
}

/// Creates `count` messages whose bodies are about `body_bytes` long and all differ.
pub(crate) fn corpus(count: u32, body_bytes: usize) -> Vec<Message> {
    (0..count)
        .map(|sequence| Message::new(sequence, body_bytes))
        .collect()
}

/// The position in the corpus that `body` claims to come from.
pub(crate) fn claimed_sequence(body: &str) -> Option<u32> {
    let rest = body.strip_prefix(SEQUENCE_PREFIX)?;
    let digits = rest.split_once(',')?.0;
    digits.parse().ok()
}

/// Hexadecimal MD5, the form SQS uses for `MD5OfMessageBody`.
pub(crate) fn md5_hex(bytes: &[u8]) -> String {
    Md5::digest(bytes)
        .iter()
        .fold(String::with_capacity(32), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// A `MessageId` in the UUID form of SQS, unique per `number`.
pub(crate) fn message_id(number: u32) -> String {
    format!("{number:08x}-5b1e-4c0d-9f3a-{number:012x}")
}

fn body(sequence: u32, body_bytes: usize) -> String {
    let mut body = format!(
        r#"{SEQUENCE_PREFIX}{sequence},"source":"meter-{:04}","type":"reading.v2","readings":["#,
        sequence % 9_973
    );
    let mut reading = 0_u32;
    while body.len() + 2 < body_bytes {
        if reading > 0 {
            body.push(',');
        }
        let value = sequence.wrapping_mul(31).wrapping_add(reading * 7) % 10_000;
        // Writing to a string cannot fail.
        let _ = write!(body, r#"{{"register":"1.8.{reading}","value":{value}}}"#);
        reading += 1;
    }
    body.push_str("]}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_of_about_the_asked_size_and_name_their_sequence() {
        for message in corpus(50, 512) {
            assert!((512..580).contains(&message.body.len()));
            let parsed: serde_json::Value = serde_json::from_str(&message.body).unwrap();
            assert_eq!(parsed["sequence"], claimed_sequence(&message.body).unwrap());
        }
    }

    #[test]
    fn the_fragment_reads_back_as_the_message() {
        let message = &corpus(3, 100)[2];
        let parsed: serde_json::Value =
            serde_json::from_str(&format!("{{{}}}", message.fragment)).unwrap();
        assert_eq!(parsed["Body"], *message.body);
        assert_eq!(parsed["MD5OfBody"], *message.md5);
    }

    #[test]
    fn md5_matches_the_published_example() {
        assert_eq!(md5_hex(b"abc"), "900150983cd24fb0d6963f7d28e17f72");
    }

    #[test]
    fn a_foreign_body_claims_no_sequence() {
        assert_eq!(claimed_sequence("{}"), None);
        assert_eq!(claimed_sequence(r#"{"sequence":x,"#), None);
    }
}
