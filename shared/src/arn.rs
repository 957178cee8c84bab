//! Amazon Resource Names of the kinds that remediations act on.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An Amazon Resource Name, split into its parts.
///
/// Form: `arn:partition:service:region:account-id:resource`
/// (AWS General Reference, "Identify AWS resources with Amazon Resource Names").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = r"^arn:[a-z0-9-]+:[a-z0-9-]+:[a-z0-9-]*:[0-9]*:.+$"))]
pub struct Arn {
    text: String,
    /// Byte positions of the first five colons.
    colons: [usize; 5],
}

/// A text that is not an ARN.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not an ARN; the form is arn:partition:service:region:account-id:resource")]
pub struct NotAnArn {
    /// The text.
    pub text: String,
}

impl TryFrom<String> for Arn {
    type Error = NotAnArn;

    fn try_from(text: String) -> Result<Self, NotAnArn> {
        let mut colons = [0; 5];
        let mut found = text.match_indices(':').map(|(at, _)| at);
        for slot in &mut colons {
            match found.next() {
                Some(at) => *slot = at,
                None => return Err(NotAnArn { text }),
            }
        }
        let arn = Self { text, colons };
        let well_formed = arn.text.starts_with("arn:")
            && !arn.partition().is_empty()
            && !arn.service().is_empty()
            && !arn.resource().is_empty();
        if well_formed {
            Ok(arn)
        } else {
            Err(NotAnArn { text: arn.text })
        }
    }
}

impl std::str::FromStr for Arn {
    type Err = NotAnArn;

    fn from_str(text: &str) -> Result<Self, NotAnArn> {
        text.to_owned().try_into()
    }
}

impl From<Arn> for String {
    fn from(arn: Arn) -> Self {
        arn.text
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Arn {
    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn part(&self, index: usize) -> &str {
        &self.text[self.colons[index] + 1..self.colons[index + 1]]
    }

    /// `aws`, `aws-cn`, `aws-us-gov`, …
    #[must_use]
    pub fn partition(&self) -> &str {
        self.part(0)
    }

    /// The service's namespace, such as `sqs`.
    #[must_use]
    pub fn service(&self) -> &str {
        self.part(1)
    }

    /// The region's code, or empty for a global resource.
    #[must_use]
    pub fn region(&self) -> &str {
        self.part(2)
    }

    /// The account's number, or empty.
    #[must_use]
    pub fn account(&self) -> &str {
        self.part(3)
    }

    /// All that follows the account.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.text[self.colons[4] + 1..]
    }

    /// The URL of the queue that this ARN names, or `None` when it does not name an SQS queue.
    ///
    /// A queue's URL follows from its ARN (Amazon SQS Developer Guide, "Queue and message
    /// identifiers"), which saves the round trip of `GetQueueUrl`.
    #[must_use]
    pub fn queue_url(&self) -> Option<String> {
        if self.service() != "sqs" || self.region().is_empty() || self.account().is_empty() {
            return None;
        }
        let suffix = match self.partition() {
            "aws-cn" => "amazonaws.com.cn",
            "aws-iso" => "c2s.ic.gov",
            "aws-iso-b" => "sc2s.sgov.gov",
            _ => "amazonaws.com",
        };
        Some(format!(
            "https://sqs.{}.{suffix}/{}/{}",
            self.region(),
            self.account(),
            self.resource()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_arn_gives_its_url() {
        let arn: Arn = "arn:aws:sqs:eu-west-1:123456789012:orders.fifo"
            .parse()
            .unwrap();
        assert_eq!(
            arn.queue_url().unwrap(),
            "https://sqs.eu-west-1.amazonaws.com/123456789012/orders.fifo"
        );
        let china: Arn = "arn:aws-cn:sqs:cn-north-1:123456789012:orders"
            .parse()
            .unwrap();
        assert_eq!(
            china.queue_url().unwrap(),
            "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/orders"
        );
    }

    #[test]
    fn resources_keep_their_colons() {
        let arn: Arn = "arn:aws:lambda:eu-west-1:123456789012:function:ingest:live"
            .parse()
            .unwrap();
        assert_eq!(arn.service(), "lambda");
        assert_eq!(arn.resource(), "function:ingest:live");
        assert_eq!(arn.queue_url(), None);
    }

    #[test]
    fn texts_of_another_form_are_refused() {
        for text in [
            "",
            "orders",
            "arn:aws:sqs:eu-west-1:1",
            "arn::sqs:r:1:q",
            "arn:aws:sqs:r:1:",
        ] {
            assert!(text.parse::<Arn>().is_err(), "{text}");
        }
    }
}
