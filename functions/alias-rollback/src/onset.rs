//! When errors began, from what was served minute by minute. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use crate::observed::{Minutes, Traffic};

/// Twice the logarithm of how much likelier two error rates are than one, from which a change is taken for real: chance
/// exceeds it once in a thousand (chi-squared with one degree of freedom).
const SIGNIFICANT: f64 = 10.83;

/// A change of the error rate for the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Onset {
    /// The first minute of the higher rate.
    pub at: DateTime<Utc>,
    /// What was served before, from where the search began.
    pub before: Traffic,
    /// What was served since.
    pub since: Traffic,
}

/// What was served from one minute on, up to another, which is left out.
#[must_use]
pub fn between(minutes: &Minutes, from: DateTime<Utc>, to: DateTime<Utc>) -> Traffic {
    if from >= to {
        return Traffic::default();
    }
    minutes.range(from..to).map(|(_, traffic)| *traffic).sum()
}

/// Where the error rate rose, if it did: the minute by which the figures since `from` are best told apart as two rates,
/// the later of them the higher (the maximum-likelihood change point of a binomial rate).
#[must_use]
pub fn onset(minutes: &Minutes, from: DateTime<Utc>) -> Option<Onset> {
    let all: Traffic = minutes.range(from..).map(|(_, traffic)| *traffic).sum();
    let mut before = Traffic::default();
    let mut best: Option<(f64, Onset)> = None;
    for (at, traffic) in minutes.range(from..) {
        let since = all.less(before);
        if since.error_percent() > before.error_percent() {
            let gain = 2.0 * (likelihood(before) + likelihood(since) - likelihood(all));
            if best.is_none_or(|(most, _)| gain > most) {
                let at = *at;
                best = Some((gain, Onset { at, before, since }));
            }
        }
        before = before + *traffic;
    }
    best.filter(|(gain, _)| *gain >= SIGNIFICANT)
        .map(|(_, onset)| onset)
}

/// The logarithm of the likelihood of the errors at their own rate.
#[allow(clippy::cast_precision_loss)] // Invocations in a day are far below 2^52.
fn likelihood(traffic: Traffic) -> f64 {
    let part = |count: u64| {
        if count == 0 {
            0.0
        } else {
            count as f64 * (count as f64 / traffic.invocations as f64).ln()
        }
    };
    part(traffic.errors) + part(traffic.invocations.saturating_sub(traffic.errors))
}

/// The latest minutes of which at least `enough` invocations are made, none before `from`; fewer where there are not so
/// many.
#[must_use]
pub fn latest(minutes: &Minutes, from: DateTime<Utc>, enough: u64) -> Traffic {
    let mut sum = Traffic::default();
    for (_, traffic) in minutes.range(from..).rev() {
        if sum.invocations >= enough {
            break;
        }
        sum = sum + *traffic;
    }
    sum
}

/// The first whole minute from an instant on: the one that holds it may be in part another version's.
#[must_use]
pub fn whole_minute(at: DateTime<Utc>) -> DateTime<Utc> {
    let over = at.timestamp().rem_euclid(60);
    let whole = at - TimeDelta::nanoseconds(i64::from(at.timestamp_subsec_nanos()));
    if over == 0 && whole == at {
        at
    } else {
        whole + TimeDelta::seconds(60 - over)
    }
}

/// The minute under which what began at an instant is counted.
#[must_use]
pub fn minute_of(at: DateTime<Utc>) -> DateTime<Utc> {
    let whole = whole_minute(at);
    if whole == at {
        at
    } else {
        whole - TimeDelta::minutes(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)
    }

    fn minutes(figures: &[(u64, u64)]) -> Minutes {
        let all = figures.iter().zip(0..);
        all.map(|((invocations, errors), minute)| {
            let traffic = Traffic {
                invocations: *invocations,
                errors: *errors,
            };
            (at(minute), traffic)
        })
        .collect()
    }

    #[test]
    fn the_minute_in_which_errors_began_is_found_among_noise() {
        let quiet = [(100, 1), (100, 0), (100, 2), (100, 0), (100, 1)];
        assert_eq!(onset(&minutes(&quiet), at(0)), None);
        let failing = [quiet.as_slice(), &[(100, 20), (100, 25)]].concat();
        let found = onset(&minutes(&failing), at(0)).unwrap();
        assert_eq!(found.at, at(5));
        assert_eq!((found.since.invocations, found.since.errors), (200, 45));
        assert_eq!((found.before.invocations, found.before.errors), (500, 4));
    }

    #[test]
    fn neither_chance_nor_a_recovery_is_an_onset() {
        assert_eq!(onset(&minutes(&[(30, 0), (10, 1), (2, 1)]), at(0)), None);
        assert_eq!(onset(&minutes(&[(100, 60), (100, 0)]), at(0)), None);
        assert_eq!(onset(&minutes(&[(100, 60), (100, 61)]), at(0)), None);
        assert_eq!(onset(&Minutes::new(), at(0)), None);
    }

    #[test]
    fn the_latest_minutes_reach_as_far_back_as_they_have_to() {
        let all = minutes(&[(50, 9), (10, 0), (0, 0), (10, 1), (10, 0)]);
        let of = |from, enough| {
            let traffic = latest(&all, at(from), enough);
            (traffic.invocations, traffic.errors)
        };
        assert_eq!(of(0, 20), (20, 1));
        assert_eq!(of(0, 21), (30, 1));
        assert_eq!(of(1, 100), (30, 1), "not before it");
        let between = between(&all, at(1), at(4));
        assert_eq!((between.invocations, between.errors), (20, 1));
    }

    #[test]
    fn a_minute_in_part_anothers_is_left_out() {
        assert_eq!(whole_minute(at(3)), at(3));
        assert_eq!(whole_minute(at(3) + TimeDelta::seconds(1)), at(4));
        assert_eq!(whole_minute(at(3) + TimeDelta::milliseconds(1)), at(4));
    }
}
