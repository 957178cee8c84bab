//! Telling: what a round came to, in the form that reports, timeline and metrics want.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::json;
use shared::arn::Arn;
use shared::ledger::items::OpenBreaker;
use shared::ledger::timeline::{Entry, Kind};
use shared::remediation::{Done, End};
use shared::telemetry::{Metric, Unit};

use super::context::retention;
use super::groups::Groups;
use super::saved::Progress;
use super::state::{PASSES, State, Stop};
use crate::account::Account;
use crate::judge::Kept;
use crate::plan::Plan;
use crate::{DlqReplay, Evidence};

/// How long after a pass the next begins, so that a consumer that fails has shown it.
const BETWEEN_PASSES: TimeDelta = TimeDelta::minutes(2);

/// What a round came to, at a time, after so much work.
pub(super) fn done(
    mut state: State,
    plan: &Plan,
    (now, worked): (DateTime<Utc>, Duration),
) -> Done<DlqReplay> {
    let stop = state.take_stop().or_else(|| state.shortage());
    let forecast = forecast(&state, plan, (now, worked));
    let Progress {
        account, groups, ..
    } = state.progress.clone();
    let died = state.progress.died;
    let handed_on = state.progress.handed_on();
    let (end, breaker) = end(&account, stop, &state.last_trouble, (handed_on, now));
    // A queue that is dry holds nothing that an earlier run had in hand.
    state.memory.unsure = died && !matches!(end, End::Finished);
    let mut summary = account.summary();
    if let Some(forecast) = forecast {
        summary.push_str("; ");
        summary.push_str(&forecast.words());
        state.notes.extend(forecast.warning(&plan.source));
    }
    Done {
        end,
        summary,
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

/// When a replay that is under way is expected to end, and what is lost before.
#[derive(Debug, Clone, PartialEq)]
struct Forecast {
    left: u64,
    per_second: f64,
    /// Where the replay goes on as it did.
    ends_at: Option<DateTime<Utc>>,
    /// When the oldest message that was seen expires.
    expires_at: Option<DateTime<Utc>>,
}

fn forecast(
    state: &State,
    plan: &Plan,
    (now, worked): (DateTime<Utc>, Duration),
) -> Option<Forecast> {
    let left = state.left?;
    let removed = state.progress.account.removed();
    #[allow(clippy::cast_precision_loss)] // Message counts are far below 2^52.
    let (removed, remaining) = (
        removed.saturating_sub(state.before.removed()) as f64,
        left as f64,
    );
    let per_second = removed / worked.as_secs_f64().max(1.0);
    let seconds = remaining / per_second;
    // Beyond what SQS keeps a message for, a forecast says nothing.
    let lasts = (seconds < 14.0 * 86_400.0).then(|| Duration::from_secs_f64(seconds));
    let ends_at = lasts.and_then(|lasts| Some(now + TimeDelta::from_std(lasts).ok()?));
    let kept = retention(plan);
    Some(Forecast {
        left,
        per_second,
        ends_at,
        expires_at: kept.and_then(|kept| Some(state.oldest? + kept)),
    })
}

impl Forecast {
    fn words(&self) -> String {
        let Self {
            left, per_second, ..
        } = self;
        match self.ends_at {
            Some(at) => format!(
                "about {left} messages are left, which end about {} at {per_second:.0} a second",
                at.to_rfc3339_opts(SecondsFormat::Secs, true)
            ),
            None => format!("about {left} messages are left"),
        }
    }

    /// What expires before its turn comes, and the remedy.
    fn warning(&self, source: &Arn) -> Option<String> {
        let expires_at = self.expires_at?;
        // Nothing follows from a pace that is not known yet.
        if self.ends_at? < expires_at {
            return None;
        }
        Some(format!(
            "{source} drops its oldest messages from {} on, before the replay is expected to end: raise its MessageRetentionPeriod, which SQS applies to the messages in it within 15 minutes",
            expires_at.to_rfc3339_opts(SecondsFormat::Secs, true)
        ))
    }
}

/// How the round ended, with the progress that the next attempt or round starts from, and the breaker that it found
/// reason to open.
fn end(
    account: &Account,
    stop: Option<Stop>,
    last_trouble: &str,
    (progress, now): (Progress, DateTime<Utc>),
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
        Some(Stop::Rest { reason, until }) => {
            let end = End::Resting {
                reason,
                until,
                progress,
            };
            (end, None)
        }
        None => match remainder(account, last_trouble) {
            Some(error) => (failed(error, true), None),
            None => (dry(account, progress, now), None),
        },
    }
}

/// The queue is dry but for what is kept: what came meanwhile is looked at once more.
fn dry(account: &Account, progress: Progress, now: DateTime<Utc>) -> End<Progress> {
    let arrived = account.returned.get(Kept::ArrivedLater.name()).copied();
    match arrived {
        Some(arrived) if progress.passes < PASSES => End::Resting {
            reason: format!("{arrived} messages came meanwhile, and are looked at in another pass"),
            until: now + BETWEEN_PASSES,
            progress: Progress {
                passes: progress.passes + 1,
                pass_began: Some(now),
                ..progress
            },
        },
        _ => End::Finished,
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
            let given = (Progress::default(), DateTime::UNIX_EPOCH);
            let (end, breaker) = end(&account, stop, "trouble", given);
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
    fn what_came_meanwhile_gets_so_many_passes_of_its_own() {
        let mut found = account(0, 0);
        found.received += 2;
        found.returned = BTreeMap::from([("arrived_later".to_owned(), 2)]);
        let mut progress = Progress::default();
        let now = DateTime::UNIX_EPOCH + TimeDelta::hours(1);
        for pass in 1..=PASSES {
            let (ended, _) = end(&found, None, "", (progress, now));
            let End::Resting {
                until,
                progress: next,
                reason,
            } = ended
            else {
                panic!("{ended:?}");
            };
            assert!(reason.starts_with("2 messages came meanwhile"), "{reason}");
            assert_eq!(until, now + BETWEEN_PASSES);
            assert_eq!((next.passes, next.pass_began), (pass, Some(now)));
            progress = next;
        }
        let (ended, _) = end(&found, None, "", (progress, now));
        assert_eq!(ended, End::Finished);
    }

    #[test]
    fn a_round_that_leaves_something_tells_when_it_ends_and_what_expires_before() {
        let plan = plan(|_| ());
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let told = |left, oldest: DateTime<Utc>| {
            let mut state = State::new(&plan, Progress::default(), Memory::default());
            state.progress.account = account(0, 0);
            state.progress.account.received = 5;
            state.left = Some(left);
            state.oldest = Some(oldest);
            state.stop(Stop::OutOfTime);
            let done = done(state, &plan, (now, Duration::from_secs(1)));
            assert!(matches!(done.end, End::Unfinished(_)));
            (done.summary, done.notes)
        };
        let (summary, notes) = told(18_000, now - TimeDelta::days(1));
        assert!(
            summary.ends_with(
                "about 18000 messages are left, which end about 2024-10-04T01:00:00Z at 5 a second"
            ),
            "{summary}"
        );
        assert_eq!(notes, Vec::<String>::new());
        // Kept for 14 days, of which all but half an hour are over.
        let oldest = now - TimeDelta::days(14) + TimeDelta::minutes(30);
        let (_, notes) = told(18_000, oldest);
        assert!(
            notes[0].contains("from 2024-10-04T00:30:00Z on")
                && notes[0].contains("MessageRetentionPeriod"),
            "{notes:?}"
        );
    }

    #[test]
    fn a_round_hands_on_what_the_next_needs_and_counts_only_its_own() {
        let progress = Progress {
            account: account(0, 0),
            ..Progress::default()
        };
        let plan = plan(|_| ());
        let mut state = State::new(&plan, progress, Memory::default());
        state.progress.account = account(3, 0);
        crate::account::count(&mut state.progress.account.replayed, "q");
        state.progress.account.received += 1;
        let done = done(state, &plan, (DateTime::UNIX_EPOCH, Duration::from_secs(1)));
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
