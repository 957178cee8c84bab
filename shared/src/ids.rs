//! Identifiers that follow from what they name, so that a retry arrives at the same ones.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

/// The first `bytes` bytes of SHA-256 over `parts`, in hexadecimal. Parts are kept apart by their lengths.
#[must_use]
pub fn digest(parts: &[&str], bytes: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher
        .finalize()
        .iter()
        .take(bytes)
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The incident that an alarm's change opens.
#[must_use]
pub fn incident_id(alarm_arn: &str, changed_at: DateTime<Utc>) -> String {
    let stamp = changed_at.format("%Y%m%d");
    format!(
        "inc-{stamp}-{}",
        digest(&[alarm_arn, &changed_at.timestamp_millis().to_string()], 5)
    )
}

/// The run that answers an alarm's change on one target, over all its attempts and rounds.
#[must_use]
pub fn run_id(remediation: &str, resource: &str, transition: &str) -> String {
    format!("run-{}", digest(&[remediation, resource, transition], 10))
}

/// The hash of exactly this plan, in the form that a step's input holds it.
#[must_use]
pub fn plan_hash(plan: &serde_json::Value) -> String {
    digest(&[&plan.to_string()], 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_arrives_at_the_same_run_and_another_transition_does_not() {
        let first = run_id("dlq-replay", "arn:q", "arn:a|ALARM|1");
        assert_eq!(first, run_id("dlq-replay", "arn:q", "arn:a|ALARM|1"));
        assert_ne!(first, run_id("dlq-replay", "arn:q", "arn:a|ALARM|2"));
        assert_ne!(digest(&["ab", "c"], 8), digest(&["a", "bc"], 8));
    }
}
