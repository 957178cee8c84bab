//! What a round leaves for the next: the run's progress, and the memory of the queue, never more than an item holds.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::account::Account;

/// Messages remembered at most. An item of the ledger holds 400 KB (`DynamoDB` Developer Guide, "Quotas"); as many
/// ids of the longest that SQS gives, 100 characters, leave more than half of it to the plan and the report.
pub(super) const REMEMBERED: usize = 1_500;
/// The longest that SQS keeps a message (Amazon SQS Developer Guide, "Message quotas"), and a day.
const RETENTION: TimeDelta = TimeDelta::days(15);
/// Ways to fail, requests of each, and notes told at most.
const TOLD: usize = 20;
/// The longest name of a way to fail, in characters and in bytes of JSON.
const WAY_CHARS: usize = 200;
const WAY_BYTES: usize = 400;
/// The longest request id, in bytes of JSON. Lambda's are UUIDs, but anyone can write the attribute.
const REQUEST_BYTES: usize = 64;
/// The longest note, in bytes of JSON.
const NOTE_BYTES: usize = 1_000;

/// What a round leaves for the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub(super) account: Account,
    pub(super) canary_passed: bool,
    /// Messages that this run delivered and could not remove yet.
    #[serde(default)]
    pub(super) unremoved: BTreeSet<String>,
    /// An attempt died: what it had in hand may have been delivered.
    pub(super) died: bool,
    /// Receives whose answer may have been lost, and rounds whose time was up before all was given back: each may
    /// have left messages hidden that nobody holds now.
    #[serde(default)]
    pub(super) lost_receives: u64,
    pub(super) failures: Failures,
}

impl Progress {
    /// Takes up what earlier rounds and attempts saved.
    pub(super) fn resumed(saved: Option<&Self>, follows_a_death: bool) -> Self {
        let mut progress = saved.cloned().unwrap_or_default();
        // What a dead attempt had in hand is received anew.
        progress.account.returned.clear();
        progress.account.received = progress.account.replayed() + progress.account.quarantined();
        progress.died |= follows_a_death;
        progress
    }

    /// As the next round starts from it: messages given back are received anew by whoever comes next.
    pub(super) fn handed_on(mut self) -> Self {
        let given_back: u64 = self.account.returned.values().sum();
        self.account.received -= given_back.min(self.account.received);
        self.account.returned.clear();
        self
    }
}

/// What a replay remembers of a queue from one run to the next.
///
/// Whatever is remembered is not sent again, so that nothing is forgotten to make room: `room` tells
/// how much there is, and a message is only delivered while there is room to remember it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Messages delivered whose removal failed, since `since`.
    #[serde(default)]
    delivered: BTreeSet<String>,
    /// And those of before.
    #[serde(default)]
    earlier: BTreeSet<String>,
    #[serde(default)]
    since: Option<DateTime<Utc>>,
}

impl Memory {
    /// Takes up what earlier runs left, and what this run had not removed when it saved its progress.
    pub(super) fn recalled(
        saved: Option<&Self>,
        unremoved: &BTreeSet<String>,
        now: DateTime<Utc>,
    ) -> Self {
        let mut memory = saved.cloned().unwrap_or_default();
        // A message that no removal ever reached has left the queue by itself after a while, and would
        // otherwise take up room for good.
        if memory.since.is_none_or(|since| now - since >= RETENTION) {
            memory.earlier = std::mem::take(&mut memory.delivered);
            memory.since = Some(now);
        }
        for id in unremoved {
            memory.remember(id);
        }
        memory
    }

    /// Whether the message was delivered and is only to be removed.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.delivered.contains(id) || self.earlier.contains(id)
    }

    pub(super) fn remember(&mut self, id: &str) {
        if !self.knows(id) {
            self.delivered.insert(id.to_owned());
        }
    }

    /// The message is gone from the queue.
    pub(super) fn forget(&mut self, id: &str) {
        self.delivered.remove(id);
        self.earlier.remove(id);
    }

    /// How many messages more can be remembered.
    pub(super) fn room(&self) -> usize {
        REMEMBERED.saturating_sub(self.len())
    }

    pub(super) fn len(&self) -> usize {
        self.delivered.len() + self.earlier.len()
    }
}

/// Why asynchronous invocations had failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Failures(BTreeMap<String, Alike>);

/// Invocations that failed in the same way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Alike {
    count: u64,
    /// The first requests, to look them up in the function's log.
    request_ids: Vec<String>,
}

impl Failures {
    pub(super) fn note(&mut self, code: &str, words: &str, request: &str) {
        let way: String = format!("{code} {words}").chars().take(WAY_CHARS).collect();
        let way = excerpt(&way, WAY_BYTES).to_owned();
        let way = if self.0.len() >= TOLD && !self.0.contains_key(&way) {
            "others".to_owned()
        } else {
            way
        };
        let alike = self.0.entry(way).or_default();
        alike.count += 1;
        // A part of an id finds nothing.
        if alike.request_ids.len() < TOLD && excerpt(request, REQUEST_BYTES) == request {
            alike.request_ids.push(request.to_owned());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One sentence.
    pub(super) fn summary(&self) -> String {
        let told: Vec<String> = self
            .0
            .iter()
            .map(|(what, alike)| format!("{} times {what}", alike.count))
            .collect();
        format!("why the invocations had failed: {}", told.join("; "))
    }
}

/// What a reader should know besides; the report holds it in the same item as the progress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Notes(BTreeSet<String>);

impl Notes {
    pub(super) fn note(&mut self, text: impl AsRef<str>) {
        let text = excerpt(text.as_ref(), NOTE_BYTES);
        if self.0.len() < TOLD {
            self.0.insert(text.to_owned());
        } else if !self.0.contains(text) {
            self.0
                .insert("there was more to tell than a report has room for".to_owned());
        }
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.0.into_iter().collect()
    }
}

/// As much of the text's beginning as takes at most `bytes` bytes in JSON.
fn excerpt(text: &str, bytes: usize) -> &str {
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
    use proptest::prelude::*;
    use serde_json::json;

    /// What an item of the ledger holds (`DynamoDB` Developer Guide, "Quotas").
    const ITEM_BYTES: usize = 400 * 1024;

    fn longest_ids(prefix: char) -> impl Iterator<Item = String> {
        (0..REMEMBERED).map(move |n| format!("{prefix}{n:099}"))
    }

    fn days(days: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(days)
    }

    #[test]
    fn the_fullest_progress_leaves_half_an_item_to_plan_and_report() {
        let mut progress = Progress {
            unremoved: longest_ids('a').collect(),
            ..Progress::default()
        };
        for way in 0..100 {
            for request in 0..100 {
                let words = format!("{way} {}", "\u{1}\u{1F4A5}\"".repeat(1_000));
                let request = format!("{request:036}");
                progress.failures.note("Error", &words, &request);
                progress
                    .failures
                    .note("Error", &words, &"x".repeat(1_000_000));
            }
        }
        let saved = json!(progress).to_string();
        assert!(saved.len() < ITEM_BYTES / 2, "{} bytes", saved.len());
        let told = json!(progress.failures).to_string();
        assert!(told.len() < ITEM_BYTES / 8, "{} bytes", told.len());
    }

    #[test]
    fn the_fullest_memory_fits_even_with_all_that_a_dead_attempt_left_unremoved() {
        let mut memory = Memory::default();
        longest_ids('a').for_each(|id| memory.remember(&id));
        assert_eq!(memory.room(), 0);
        let unremoved: BTreeSet<String> = longest_ids('b').collect();
        let memory = Memory::recalled(Some(&memory), &unremoved, days(0));
        assert_eq!(memory.room(), 0);
        for id in longest_ids('a').chain(longest_ids('b')) {
            assert!(memory.knows(&id), "{id}");
        }
        let saved = json!(memory).to_string();
        assert!(saved.len() < ITEM_BYTES * 4 / 5, "{} bytes", saved.len());
    }

    #[test]
    fn what_is_remembered_is_known_for_as_long_as_sqs_can_keep_it_and_not_for_ever() {
        let none = BTreeSet::new();
        let mut memory = Memory::recalled(None, &none, days(0));
        memory.remember("early");
        memory = Memory::recalled(Some(&memory), &none, days(14));
        memory.remember("late");
        for (day, early, late) in [
            (15, true, true),
            (29, true, true),
            (30, false, false),
            (45, false, false),
        ] {
            memory = Memory::recalled(Some(&memory), &none, days(day));
            assert_eq!(memory.knows("early"), early, "on day {day}");
            assert_eq!(memory.knows("late"), late, "on day {day}");
        }
        assert_eq!(memory.room(), REMEMBERED);
    }

    #[test]
    fn a_memory_without_dates_is_read_and_kept() {
        let undated = serde_json::from_value(json!({"delivered": ["a", "b"]})).unwrap();
        let mut memory = Memory::recalled(Some(&undated), &BTreeSet::new(), days(20_000));
        assert!(memory.knows("a") && memory.knows("b"));
        memory.remember("a");
        assert_eq!(memory.room(), REMEMBERED - 2);
        memory.forget("a");
        assert!(!memory.knows("a"));
    }

    #[test]
    fn a_round_resumes_with_what_was_delivered_and_nothing_in_hand() {
        let mut progress = Progress::default();
        progress.account.received = 10;
        progress.account.replayed = BTreeMap::from([("q".to_owned(), 4)]);
        progress.account.quarantined = BTreeMap::from([("undecodable".to_owned(), 1)]);
        progress.account.returned = BTreeMap::from([("stopped".to_owned(), 5)]);
        for next in [
            Progress::resumed(Some(&progress), true),
            progress.clone().handed_on(),
        ] {
            assert_eq!(next.account.received, 5);
            assert_eq!(next.account.balance(), Ok(()));
        }
        assert!(Progress::resumed(Some(&progress), true).died);
        assert_eq!(Progress::resumed(None, false), Progress::default());
    }

    #[test]
    fn failures_alike_are_counted_together_and_rare_ones_as_others() {
        let mut failures = Failures::default();
        failures.note("Timeout", "after 3 s", "request-1");
        failures.note("Timeout", "after 3 s", "request-2");
        assert_eq!(
            json!(failures),
            json!({"Timeout after 3 s": {"count": 2, "request_ids": ["request-1", "request-2"]}})
        );
        for way in 0..50 {
            failures.note("Unhandled", &way.to_string(), "request-3");
        }
        assert_eq!(failures.0.len(), TOLD + 1);
        assert_eq!(failures.0["others"].count, 31);
    }

    #[test]
    fn notes_are_as_many_as_a_report_has_room_for_and_say_so() {
        let mut notes = Notes::default();
        for _ in 0..2 {
            for n in 0..100 {
                notes.note(format!("{n} {}", "x".repeat(5_000)));
            }
        }
        let notes = notes.into_vec();
        assert_eq!(notes.len(), TOLD + 1);
        assert!(notes.last().unwrap().starts_with("there was more to tell"));
        assert!(json!(notes).to_string().len() < ITEM_BYTES / 16);
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
