//! Whether what was done helped: the alarm and its metric, looked at again within the alarm's own periods.

use chrono::{DateTime, TimeDelta, Utc};

use crate::alarm::State;
use crate::guard::decide::time;
use crate::guard::question::LiveAlarm;
use crate::ledger::items::Watch;
use crate::ledger::timeline::Kind;

/// Before that no metric tells of what was done.
const EARLIEST: TimeDelta = TimeDelta::minutes(2);
/// After that what is known has to do.
const LATEST: TimeDelta = TimeDelta::hours(1);
/// How long `CloudWatch` may take to have all of a period.
const INGESTED: TimeDelta = TimeDelta::minutes(1);
/// The share of the value before by which a change counts as one.
const MARGIN: f64 = 0.2;
/// Periods that are compared at most.
const PERIODS: usize = 5;

/// Which values of a metric are bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Those above the threshold.
    Above,
    /// Those below it.
    Below,
}

/// How the metric of an alarm went.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    /// Which values are bad.
    pub bad: Bad,
    /// From which value on the alarm takes a period for bad.
    pub threshold: f64,
    /// Whether a value at the threshold is one.
    pub includes_threshold: bool,
    /// The length of a period.
    pub period: TimeDelta,
    /// The periods that the alarm goes by.
    pub evaluation_periods: usize,
    /// The beginnings of periods with their values, the oldest first; a period without a value is not among them.
    pub values: Vec<(DateTime<Utc>, f64)>,
}

impl Course {
    /// The periods that are waited for.
    fn wanted(&self) -> usize {
        self.evaluation_periods.clamp(1, PERIODS)
    }

    /// How long before what was done its values are of use.
    #[must_use]
    pub fn reaches_back(period: TimeDelta, evaluation_periods: usize) -> TimeDelta {
        let periods = i32::try_from(evaluation_periods.clamp(1, PERIODS)).unwrap_or(1);
        period * (periods + 1)
    }

    /// The values of the first whole periods since the work was done, as many as are waited for.
    fn since(&self, watch: &Watch, now: DateTime<Utc>) -> Vec<f64> {
        let values = self.values.iter();
        values
            .filter(|(at, _)| *at >= watch.done_at && *at + self.period + INGESTED <= now)
            .map(|(_, value)| *value)
            .take(self.wanted())
            .collect()
    }

    /// The bad values of whole periods before the work began, the last of them first.
    fn before(&self, watch: &Watch) -> Vec<f64> {
        let values = self.values.iter().rev();
        values
            .filter(|(at, _)| *at + self.period <= watch.started_at)
            .map(|(_, value)| *value)
            .take(self.wanted())
            .take_while(|value| self.is_bad(*value))
            .collect()
    }

    /// The worst value of the periods that began before the work did.
    fn worst(&self, watch: &Watch) -> Option<f64> {
        let values = self.values.iter();
        values
            .filter(|(at, _)| *at < watch.started_at)
            .map(|(_, value)| *value)
            .reduce(|worst, value| {
                if self.rose(worst, value) > 0.0 {
                    value
                } else {
                    worst
                }
            })
    }

    /// By how much a value is worse than another.
    fn rose(&self, from: f64, to: f64) -> f64 {
        match self.bad {
            Bad::Above => to - from,
            Bad::Below => from - to,
        }
    }

    fn is_bad(&self, value: f64) -> bool {
        let beyond = match self.bad {
            Bad::Above => value > self.threshold,
            Bad::Below => value < self.threshold,
        };
        beyond || (self.includes_threshold && (value - self.threshold).abs() <= f64::EPSILON)
    }
}

/// What an alarm's metric tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// So it went.
    Course(Course),
    /// There is nothing to compare, for this reason.
    Nothing(String),
}

/// What is known of the effect of what was done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// It is too early to tell.
    Early,
    /// The alarm was at OK before the work began: it tells nothing of it.
    Unasked,
    /// The alarm is still in ALARM: its metric is to be read.
    Measure,
    /// It is known.
    Known {
        /// `Improved`, `Unchanged`, `Worse` or `NotKnown`.
        kind: Kind,
        /// Why, in one sentence.
        reason: String,
    },
}

impl Effect {
    /// The same of what keeps requests from what the alarm measures: what is known says nothing of whether it helped.
    #[must_use]
    pub fn of_few_requests(self) -> Self {
        match self {
            Self::Known { reason, .. } => known(
                Kind::NotKnown,
                format!("{reason}; requests are kept from what it measures meanwhile"),
            ),
            other => other,
        }
    }
}

fn known(kind: Kind, reason: String) -> Effect {
    Effect::Known { kind, reason }
}

/// Whether what is known by now has to do.
#[must_use]
pub fn is_late(watch: &Watch, now: DateTime<Utc>) -> bool {
    now - watch.done_at >= LATEST
}

/// What the alarm's state tells; `live` is `None` where it could not be read.
#[must_use]
pub fn by_state(watch: &Watch, live: Option<LiveAlarm>, now: DateTime<Utc>) -> Effect {
    let alarm = &watch.event.alarm_name;
    let late = is_late(watch, now);
    match live {
        Some(LiveAlarm::Found {
            state: State::Ok,
            since,
            ..
        }) => match since {
            Some(since) if since < watch.started_at => Effect::Unasked,
            Some(since) => known(
                Kind::Improved,
                format!("{alarm} is at OK since {}", time(since)),
            ),
            None => known(Kind::Improved, format!("{alarm} is at OK")),
        },
        Some(LiveAlarm::Found {
            state: State::Alarm,
            ..
        }) if now - watch.done_at >= EARLIEST => Effect::Measure,
        Some(LiveAlarm::Gone | LiveAlarm::Foreign) => known(
            Kind::NotKnown,
            format!("{alarm} is not there to be read any more"),
        ),
        Some(LiveAlarm::Found {
            state: State::InsufficientData,
            ..
        }) if late => known(
            Kind::NotKnown,
            format!("{alarm} is in INSUFFICIENT_DATA, which says nothing"),
        ),
        None if late => known(Kind::NotKnown, format!("{alarm} could not be read")),
        _ => Effect::Early,
    }
}

/// What the metric of an alarm that is still in ALARM tells.
#[must_use]
pub fn by_metric(watch: &Watch, told: &Told, now: DateTime<Utc>) -> Effect {
    let alarm = &watch.event.alarm_name;
    let course = match told {
        Told::Course(course) => course,
        Told::Nothing(why) => {
            return known(
                Kind::NotKnown,
                format!("{alarm} is still in ALARM, and {why}"),
            );
        }
    };
    let wanted = course.wanted();
    let after = course.since(watch, now);
    if after.len() < wanted && !is_late(watch, now) {
        return Effect::Early;
    }
    let not_known = |why: String| {
        known(
            Kind::NotKnown,
            format!("{alarm} is still in ALARM, and {why}"),
        )
    };
    // One value of five tells nothing of the other four.
    let Some(now_at) = mean(&after).filter(|_| after.len() >= wanted) else {
        return not_known(if after.is_empty() {
            "its metric has no value since".to_owned()
        } else {
            let values = after.len();
            format!("its metric has {values} values since, of {wanted} that it goes by")
        });
    };
    if after.iter().all(|value| !course.is_bad(*value)) {
        return known(
            Kind::Improved,
            format!(
                "{alarm} is still in ALARM, and its metric is on the right side of {} since, at {now_at:.2}",
                course.threshold
            ),
        );
    }
    let before = course.before(watch);
    let Some(was_at) = mean(&before) else {
        return not_known(format!(
            "its metric is at {now_at:.2}, and was not bad for a whole period before, to compare that with"
        ));
    };
    // The metric of a failure that has just begun rises by itself: worse is only what is worse than it ever was.
    let worst = course.worst(watch).unwrap_or(was_at);
    let (kind, word, than) = if course.rose(worst, now_at) > worst.abs() * MARGIN {
        (Kind::Worse, "worse than the", worst)
    } else if course.rose(was_at, now_at) < -was_at.abs() * MARGIN {
        (Kind::Improved, "better than the", was_at)
    } else {
        (Kind::Unchanged, "much as the", was_at)
    };
    known(
        kind,
        format!(
            "{alarm} is still in ALARM, and its metric is at {now_at:.2}, {word} {than:.2} before"
        ),
    )
}

fn mean(values: &[f64]) -> Option<f64> {
    let many = u32::try_from(values.len()).ok().filter(|many| *many > 0)?;
    Some(values.iter().sum::<f64>() / f64::from(many))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::scene::{at, event};

    /// Done from 600 to 630.
    fn watch() -> Watch {
        let event = event("High", State::Alarm, 500);
        Watch {
            run_id: "run-1".to_owned(),
            incident_id: "inc-1".to_owned(),
            target: "orders".to_owned(),
            resource: "thing".to_owned(),
            event,
            started_at: at(600),
            done_at: at(630),
        }
    }

    fn is(state: State, since: i64) -> LiveAlarm {
        LiveAlarm::Found {
            state,
            actions_enabled: true,
            since: Some(at(since)),
        }
    }

    fn kind(effect: &Effect) -> Option<Kind> {
        match effect {
            Effect::Known { kind, .. } => Some(*kind),
            Effect::Early | Effect::Unasked | Effect::Measure => None,
        }
    }

    #[test]
    fn the_alarms_state_tells_what_it_can() {
        let at_second = |live, second| by_state(&watch(), Some(live), at(second));
        let improved = at_second(is(State::Ok, 640), 650);
        assert_eq!(kind(&improved), Some(Kind::Improved));
        // It had recovered before anything was done: that is no merit of what was done.
        assert_eq!(at_second(is(State::Ok, 599), 650), Effect::Unasked);
        assert_eq!(at_second(is(State::Alarm, 500), 749), Effect::Early);
        assert_eq!(at_second(is(State::Alarm, 500), 750), Effect::Measure);
        for live in [None, Some(is(State::InsufficientData, 640))] {
            assert_eq!(by_state(&watch(), live, at(4_229)), Effect::Early);
            let late = by_state(&watch(), live, at(4_230));
            assert_eq!(kind(&late), Some(Kind::NotKnown));
        }
        for gone in [LiveAlarm::Gone, LiveAlarm::Foreign] {
            assert_eq!(kind(&at_second(gone, 640)), Some(Kind::NotKnown));
        }
    }

    fn course(bad: Bad, values: &[(i64, f64)]) -> Told {
        Told::Course(Course {
            bad,
            threshold: 5.0,
            includes_threshold: true,
            period: TimeDelta::seconds(60),
            evaluation_periods: 2,
            values: values
                .iter()
                .map(|(second, value)| (at(*second), *value))
                .collect(),
        })
    }

    #[test]
    fn the_metric_is_compared_with_what_it_was_before() {
        let before = [(420, 10.0), (480, 10.0), (540, 10.0)];
        // The minute in which it was done says nothing, nor one that is not whole yet.
        let cases = [
            ([12.1, 12.1], Kind::Worse),
            ([12.0, 12.0], Kind::Unchanged),
            ([8.0, 8.0], Kind::Unchanged),
            ([7.9, 7.9], Kind::Improved),
            ([4.9, 4.9], Kind::Improved),
        ];
        for (after, wanted) in cases {
            let mut values = before.to_vec();
            values.extend([(600, 90.0), (660, after[0]), (720, after[1]), (780, 90.0)]);
            let told = course(Bad::Above, &values);
            assert_eq!(by_metric(&watch(), &told, at(839)), Effect::Early);
            let effect = by_metric(&watch(), &told, at(840));
            assert_eq!(kind(&effect), Some(wanted), "{after:?}: {effect:?}");
        }
    }

    #[test]
    fn what_is_bad_below_gets_worse_by_falling() {
        let values = [(480, 4.0), (540, 4.0), (660, 3.0), (720, 3.0)];
        let effect = by_metric(&watch(), &course(Bad::Below, &values), at(900));
        assert_eq!(
            effect,
            known(
                Kind::Worse,
                "High is still in ALARM, and its metric is at 3.00, worse than the 4.00 before"
                    .to_owned()
            )
        );
        // At the threshold it is still bad.
        let values = [(480, 4.0), (540, 4.0), (660, 5.0), (720, 5.0)];
        let effect = by_metric(&watch(), &course(Bad::Below, &values), at(900));
        let Effect::Known { kind, reason } = effect else {
            panic!("it is known");
        };
        assert_eq!(kind, Kind::Improved);
        assert!(reason.contains("better than the 4.00"), "{reason}");
    }

    #[test]
    fn a_failure_that_was_still_rising_when_the_work_began_is_not_put_down_to_it() {
        // The outage began within the minute before the work: the first whole minute of it is no measure.
        let rising = [
            (480, 6.0),
            (540, 8.0),
            (599, 12.0),
            (660, 12.0),
            (720, 12.0),
        ];
        let effect = by_metric(&watch(), &course(Bad::Above, &rising), at(900));
        assert_eq!(kind(&effect), Some(Kind::Unchanged), "{effect:?}");
        // It was healthy until the very minute of the work.
        let sudden = [(480, 0.0), (540, 0.0), (660, 12.0), (720, 12.0)];
        let effect = by_metric(&watch(), &course(Bad::Above, &sudden), at(900));
        assert_eq!(kind(&effect), Some(Kind::NotKnown), "{effect:?}");
    }

    #[test]
    fn one_good_value_among_periods_without_any_is_no_improvement() {
        let lone = course(Bad::Above, &[(480, 10.0), (540, 10.0), (660, 0.0)]);
        assert_eq!(by_metric(&watch(), &lone, at(4_229)), Effect::Early);
        let effect = by_metric(&watch(), &lone, at(4_230));
        assert_eq!(kind(&effect), Some(Kind::NotKnown), "{effect:?}");
    }

    #[test]
    fn what_nothing_is_known_of_is_never_told_as_unchanged() {
        let not_known = |told: &Told, second| {
            let effect = by_metric(&watch(), told, at(second));
            assert_eq!(kind(&effect), Some(Kind::NotKnown), "{effect:?}");
        };
        not_known(&Told::Nothing("it is composite".to_owned()), 750);
        let silent = course(Bad::Above, &[(480, 10.0), (540, 10.0)]);
        assert_eq!(by_metric(&watch(), &silent, at(4_229)), Effect::Early);
        not_known(&silent, 4_230);
        not_known(&course(Bad::Above, &[(660, 10.0), (720, 10.0)]), 900);
    }
}
