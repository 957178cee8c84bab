//! The timeline of an incident: one line for each thing that was done, refused or found.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ledger::error::LedgerError;
use crate::ledger::items::{self, KEPT, Place};
use crate::ledger::store::{Change, Condition, Key, Write};

/// Lines that one claim can write; keeps lines of one millisecond in their order.
const ORDERS: u64 = 10_000;
/// The longest detail of a line; `DynamoDB` takes items of 400 KB.
const DETAIL_BYTES: usize = 128 * 1024;

/// What a line tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A run took a target in hand.
    Claimed,
    /// A plan was made anew because another hand was quicker.
    Replanned,
    /// A mitigation is in place.
    Applied,
    /// The target was read back as it should be.
    Verified,
    /// The target was read back otherwise.
    NotVerified,
    /// The work goes on, or waits.
    Pending,
    /// Nothing was done.
    Skipped,
    /// The target was mitigated already.
    InPlace,
    /// The alarm is back to OK.
    Recovered,
    /// What is in place was brought up to date with the policy.
    Updated,
    /// What was in place was taken back.
    Reverted,
    /// A human has to decide.
    Escalated,
    /// A run failed.
    Failed,
    /// A run was asked for its plan only.
    DryRun,
    /// A transition was delivered again.
    Duplicate,
    /// The alarm is better off since a mitigation is in place.
    Improved,
    /// The alarm is where it was before the mitigation.
    Unchanged,
    /// The alarm is worse off since a mitigation is in place.
    Worse,
    /// Whether a mitigation helped cannot be told.
    NotKnown,
    /// An incident was closed because its alarm, read again, is not in ALARM.
    Reconciled,
    /// Who or what is held to be the cause.
    Blamed,
    /// Where the things that a run handled went, counted.
    Account,
    /// Why the things that a run handled had failed before.
    Failures,
}

impl Kind {
    /// The kind as the table holds it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Replanned => "replanned",
            Self::Applied => "applied",
            Self::Verified => "verified",
            Self::NotVerified => "not-verified",
            Self::Pending => "pending",
            Self::Skipped => "skipped",
            Self::InPlace => "in-place",
            Self::Recovered => "recovered",
            Self::Updated => "updated",
            Self::Reverted => "reverted",
            Self::Escalated => "escalated",
            Self::Failed => "failed",
            Self::DryRun => "dry-run",
            Self::Duplicate => "duplicate",
            Self::Improved => "improved",
            Self::Unchanged => "unchanged",
            Self::Worse => "worse",
            Self::NotKnown => "not-known",
            Self::Reconciled => "reconciled",
            Self::Blamed => "blamed",
            Self::Account => "account",
            Self::Failures => "failures",
        }
    }
}

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it tells of.
    pub kind: Kind,
    /// One sentence for the reader.
    pub summary: String,
    /// What bears it out.
    pub detail: Value,
}

/// Who writes a line, so that two lines of one millisecond never meet under one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Author {
    pub(crate) name: String,
    pub(crate) order: u64,
}

impl Author {
    /// A run under its fencing token; `from` keeps the lines of its claim before those of its end.
    pub(crate) fn run(run_id: &str, token: u64, from: u64) -> Self {
        Self {
            name: run_id.to_owned(),
            order: token * ORDERS + from,
        }
    }

    /// A delivery that holds nothing.
    pub(crate) fn delivery(place: &Place<'_>, now: DateTime<Utc>) -> Self {
        let micros = now.timestamp_micros().to_string();
        let who = [place.request_id, place.resource, &place.transition, &micros];
        Self {
            name: format!("req-{}", crate::ids::digest(&who, 8)),
            order: 0,
        }
    }
}

/// The writes of an incident's new lines.
pub(crate) fn lines(
    (remediation, target): (&str, &str),
    incident_id: &str,
    author: &Author,
    entries: &[Entry],
    now: DateTime<Utc>,
) -> Result<Vec<Write>, LedgerError> {
    let at = now.to_rfc3339_opts(SecondsFormat::Millis, true);
    entries
        .iter()
        .zip(author.order..)
        .map(|(entry, order)| {
            let sk = format!("at#{at}#{}#{order:012}", author.name);
            let mut item = items::item(bounded(&entry.detail)?, Some(now + KEPT));
            let columns = [
                ("at", at.as_str()),
                ("kind", entry.kind.as_str()),
                ("summary", &entry.summary),
                ("remediation", remediation),
                ("target", target),
            ];
            item.columns
                .extend(columns.map(|(name, text)| (name.to_owned(), text.to_owned())));
            Ok(Write {
                key: Key::new(format!("incident#{incident_id}"), sk),
                condition: Condition::Always,
                change: Change::Put(item),
            })
        })
        .collect()
}

/// The detail, or what can be said of one that no item could hold.
fn bounded(detail: &Value) -> Result<String, LedgerError> {
    let text = serde_json::to_string(detail).map_err(|error| LedgerError::Unwritable {
        what: "a line of the timeline".to_owned(),
        problem: error.to_string(),
    })?;
    if text.len() <= DETAIL_BYTES {
        return Ok(text);
    }
    let start: String = text.chars().take(DETAIL_BYTES / 8).collect();
    Ok(serde_json::json!({"too_long": text.len(), "begins": start}).to_string())
}
