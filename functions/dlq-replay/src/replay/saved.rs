//! What a round leaves for the next: the run's progress, and the memory of the queue, never more than an item holds.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::canary::SentCanary;
use super::groups::{Groups, excerpt};
use crate::account::Account;
use crate::plan::Route;

/// Messages remembered at most. An item of the ledger holds 400 KB (`DynamoDB` Developer Guide, "Quotas"); as many
/// ids of the longest that SQS gives, 100 characters, leave more than half of it to the plan and the report.
pub(super) const REMEMBERED: usize = 1_500;
/// The longest that SQS keeps a message (Amazon SQS Developer Guide, "Message quotas"), and a day.
const RETENTION: TimeDelta = TimeDelta::days(15);
/// Notes told at most.
const TOLD: usize = 20;
/// The longest note, in bytes of JSON.
const NOTE_BYTES: usize = 1_000;

/// What a round leaves for the next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub(super) account: Account,
    pub(super) canary_passed: bool,
    /// The canary that is on its way, until it is seen to be consumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) canary: Option<SentCanary>,
    /// What each destination held before the run's first message, by ARN.
    #[serde(default)]
    pub(super) baselines: BTreeMap<String, u64>,
    /// When the pass through the queue began; the first does with the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pass_began: Option<DateTime<Utc>>,
    /// Passes through the queue that have ended.
    #[serde(default)]
    pub(super) passes: u32,
    /// How often the run has rested because what it had replayed seemed to come back.
    #[serde(default)]
    pub(super) setbacks: u32,
    /// A round has ended with this, so that nothing is in its hand.
    #[serde(default)]
    pub(super) at_rest: bool,
    /// Messages that this run delivered and could not remove yet.
    #[serde(default)]
    pub(super) unremoved: BTreeSet<String>,
    /// An attempt died: what it had in hand may have been delivered.
    pub(super) died: bool,
    /// Receives whose answer may have been lost, and rounds whose time was up before all was given back: each may
    /// have left messages hidden that nobody holds now.
    #[serde(default)]
    pub(super) lost_receives: u64,
    #[serde(default)]
    pub(super) groups: Groups,
}

impl Progress {
    /// Takes up what earlier rounds and attempts saved.
    pub(super) fn resumed(saved: Option<&Self>, follows_a_death: bool) -> Self {
        let mut progress = saved.cloned().unwrap_or_default();
        // What a dead attempt had in hand is received anew.
        progress.account.returned.clear();
        progress.account.expire_within_an_hour = 0;
        progress.account.received = progress.account.replayed() + progress.account.quarantined();
        progress.died |= follows_a_death;
        progress.at_rest = false;
        progress
    }

    /// What a destination held before the run's first message.
    pub(super) fn baseline(&self, route: &Route) -> u64 {
        let known = self.baselines.get(route.destination.arn.as_str());
        known.copied().unwrap_or(route.backlog)
    }

    /// The canary that is on its way, if the rest has to wait for it.
    #[must_use]
    pub fn unconsumed_canary(&self) -> Option<&SentCanary> {
        self.canary.as_ref().filter(|_| !self.canary_passed)
    }

    /// After other runs that have not ended, or ended without a word.
    pub(super) fn after(mut self, unfinished: &[Option<Self>], memory: Option<&Memory>) -> Self {
        let is_at_rest = |other: &Option<Self>| other.as_ref().is_some_and(|it| it.at_rest);
        self.died |=
            !unfinished.iter().all(is_at_rest) || memory.is_some_and(|memory| memory.unsure);
        // One canary for one consumer, whichever alarm asked for it.
        if !self.canary_passed && self.canary.is_none() {
            let mut others = unfinished.iter().flatten();
            self.canary = others.find_map(Self::unconsumed_canary).cloned();
        }
        self
    }

    /// What later runs have to remember of a run that ends without another word.
    pub(crate) fn remembered(&self, memory: Option<&Memory>, now: DateTime<Utc>) -> Memory {
        Memory {
            unsure: true,
            ..Memory::recalled(memory, &self.unremoved, now)
        }
    }

    /// As the next round starts from it: messages given back are received anew by whoever comes next.
    pub(super) fn handed_on(mut self) -> Self {
        let given_back: u64 = self.account.returned.values().sum();
        self.account.received -= given_back.min(self.account.received);
        self.account.returned.clear();
        self.account.expire_within_an_hour = 0;
        self.at_rest = true;
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
    /// A run ended without a word of what it had in hand: that may have been delivered.
    #[serde(default)]
    pub(super) unsure: bool,
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

    pub(super) fn extend(&mut self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.note(text);
        }
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.0.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Cause;
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
            let mut message = crate::sample::named("m");
            message.body = format!("{{\"{}\": 1}}", "k".repeat(5_000));
            message.envelope.cause = Some(Cause {
                code: char::from_u32(0x100 + way).unwrap().to_string(),
                words: "\u{1}\u{1F4A5}\"".repeat(1_000),
            });
            for request in 0..100 {
                message.envelope.request = Some(format!("{request:036}"));
                progress.groups.note(&message);
            }
        }
        let saved = json!(progress).to_string();
        assert!(saved.len() < ITEM_BYTES / 2, "{} bytes", saved.len());
        let told = json!(progress.groups).to_string();
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
    fn a_run_at_rest_has_nothing_in_hand_and_its_canary_is_everybodys() {
        let canary = SentCanary::new(days(0), [("q", 5, 0)].into_iter());
        let resting = Progress {
            canary: Some(canary.clone()),
            ..Progress::default()
        }
        .handed_on();
        let after = |other: Option<Progress>| Progress::default().after(&[other], None);
        let next = after(Some(resting.clone()));
        assert_eq!((next.died, next.canary), (false, Some(canary)));
        // A checkpoint on the way says nothing of what came after it.
        let working = Progress::resumed(Some(&resting), false);
        assert!(after(Some(working)).died);
        assert!(after(None).died);
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
}
