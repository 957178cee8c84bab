//! Telling: what a round came to, in the form that reports, timeline and metrics want.

use chrono::{DateTime, Utc};
use serde_json::json;
use shared::ledger::items::OpenBreaker;
use shared::ledger::timeline::{Entry, Kind};
use shared::remediation::{Done, End};
use shared::telemetry::{Metric, Unit};

use super::groups::Groups;
use super::saved::Progress;
use super::state::{State, Stop};
use crate::account::Account;
use crate::judge::Kept;
use crate::{DlqReplay, Evidence};

/// What a round came to.
pub(super) fn done(mut state: State, now: DateTime<Utc>) -> Done<DlqReplay> {
    let stop = state.take_stop().or_else(|| state.shortage());
    let Progress {
        account, groups, ..
    } = state.progress.clone();
    let died = state.progress.died;
    let handed_on = state.progress.handed_on();
    let (end, breaker) = end(&account, stop, &state.last_trouble, handed_on);
    // A queue that is dry holds nothing that an earlier run had in hand.
    state.memory.unsure = died && !matches!(end, End::Finished);
    Done {
        end,
        summary: account.summary(),
        breaker,
        entries: entries(&account, &groups),
        notes: state.notes.into_vec(),
        metrics: metrics(&account, &state.before),
        memory: Some(state.memory),
        evidence: Some(Evidence {
            account,
            groups,
            ended_at: now,
        }),
    }
}

/// How the round ended, with the progress that the next attempt or round starts from, and the breaker that it found
/// reason to open.
fn end(
    account: &Account,
    stop: Option<Stop>,
    last_trouble: &str,
    progress: Progress,
) -> (End<Progress>, Option<OpenBreaker>) {
    let failed = |error, retryable| End::Failed {
        error,
        retryable,
        progress: Some(progress.clone()),
    };
    if let Err(imbalance) = account.balance() {
        let error = format!(
            "the account does not balance: {} received, {} accounted for",
            imbalance.received, imbalance.accounted
        );
        return (failed(error, false), None);
    }
    match stop {
        Some(Stop::Fail { error, retryable }) => (failed(error, retryable), None),
        Some(Stop::Escalate {
            rule,
            reason,
            breaker,
        }) => (End::Escalated { rule, reason }, breaker),
        Some(Stop::OutOfTime) => (End::Unfinished(progress), None),
        None => match remainder(account, last_trouble) {
            Some(error) => (failed(error, true), None),
            None => (End::Finished, None),
        },
    }
}

/// What is left to do when the queue is dry.
fn remainder(account: &Account, last_trouble: &str) -> Option<String> {
    let undelivered = account
        .returned
        .get(Kept::Undelivered.name())
        .copied()
        .unwrap_or(0);
    let unremoved = account.delivered_but_not_removed;
    if undelivered > 0 {
        Some(format!(
            "{undelivered} messages could not be delivered and are back in the dead-letter queue: {last_trouble}"
        ))
    } else if unremoved > 0 {
        Some(format!(
            "{unremoved} delivered messages could not be removed from the dead-letter queue; the next attempt removes them without sending them again"
        ))
    } else {
        None
    }
}

fn entries(account: &Account, groups: &Groups) -> Vec<Entry> {
    let mut entries = vec![Entry {
        kind: Kind::Account,
        summary: account.summary(),
        detail: json!(account),
    }];
    if !groups.is_empty() {
        entries.push(Entry {
            kind: Kind::Failures,
            summary: groups.summary(),
            detail: json!(groups),
        });
    }
    entries
}

/// What this round counted, where the account counts the whole run.
fn metrics(account: &Account, before: &Account) -> Vec<Metric> {
    [
        ("MessagesReplayed", account.replayed() - before.replayed()),
        (
            "MessagesQuarantined",
            account.quarantined() - before.quarantined(),
        ),
        ("MessagesReturned", account.returned()),
        (
            "PossibleDuplicates",
            account.possible_duplicates - before.possible_duplicates,
        ),
    ]
    .map(|(name, value)| {
        #[allow(clippy::cast_precision_loss)] // Message counts are far below 2^52.
        let value = value as f64;
        Metric {
            name,
            unit: Unit::Count,
            value,
        }
    })
    .into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::replay::saved::Memory;
    use crate::sample::plan;
    use shared::outcome::Rule;

    fn account(undelivered: u64, unremoved: u64) -> Account {
        Account {
            received: 5 + undelivered,
            replayed: BTreeMap::from([("q".to_owned(), 5)]),
            returned: BTreeMap::from([("undelivered".to_owned(), undelivered)]),
            delivered_but_not_removed: unremoved,
            ..Account::default()
        }
    }

    #[test]
    fn a_round_ends_by_what_weighs_most() {
        let fail = Stop::Fail {
            error: "no answer".to_owned(),
            retryable: true,
        };
        let escalate = Stop::Escalate {
            rule: Rule::BlastCap,
            reason: "too many".to_owned(),
            breaker: None,
        };
        let mut torn = account(0, 0);
        torn.received += 1;
        for (account, stop, wanted) in [
            (account(0, 0), None, "finished"),
            (
                account(1, 1),
                None,
                "again: 1 messages could not be delivered",
            ),
            (
                account(0, 1),
                None,
                "again: 1 delivered messages could not be removed",
            ),
            (account(1, 1), Some(Stop::OutOfTime), "unfinished"),
            (account(1, 1), Some(fail.clone()), "again: no answer"),
            (account(1, 1), Some(escalate), "escalated: too many"),
            (torn, Some(fail), "for good: the account does not balance"),
        ] {
            let (end, breaker) = end(&account, stop, "trouble", Progress::default());
            assert_eq!(breaker, None);
            let told = match end {
                End::Finished => "finished".to_owned(),
                End::Unfinished(_) => "unfinished".to_owned(),
                End::Escalated { reason, .. } => format!("escalated: {reason}"),
                End::Failed {
                    error, retryable, ..
                } => {
                    format!("{}: {error}", if retryable { "again" } else { "for good" })
                }
                other => format!("{other:?}"),
            };
            assert!(told.starts_with(wanted), "{told}, not {wanted}");
        }
    }

    #[test]
    fn a_round_hands_on_what_the_next_needs_and_counts_only_its_own() {
        let progress = Progress {
            account: account(0, 0),
            ..Progress::default()
        };
        let mut state = State::new(&plan(|_| ()), progress, Memory::default());
        state.progress.account = account(3, 0);
        crate::account::count(&mut state.progress.account.replayed, "q");
        state.progress.account.received += 1;
        let done = done(state, DateTime::UNIX_EPOCH);
        assert_eq!(done.evidence.unwrap().account.received, 9);
        let End::Failed {
            progress: Some(progress),
            ..
        } = done.end
        else {
            panic!("{:?}", done.end);
        };
        assert_eq!(progress.account.received, 6);
        assert_eq!(progress.account.returned, BTreeMap::new());
        let counted: Vec<f64> = done.metrics.iter().map(|metric| metric.value).collect();
        assert_eq!(counted, [1.0, 0.0, 3.0, 0.0]);
    }
}
