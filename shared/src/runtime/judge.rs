//! What the end of a round comes to: its outcome, and the state that it leaves the record in. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::ledger::items::Status;
use crate::outcome::{Outcome, Rule};
use crate::remediation::{End, Verified};

/// By when the next round of a run has begun, or is taken not to come.
const NEXT_ROUND: TimeDelta = TimeDelta::minutes(2);
/// By when a playbook has handed a continuation back, or is taken not to.
const NEXT_STEP: TimeDelta = TimeDelta::minutes(15);

/// What a round came to.
#[derive(Debug, PartialEq)]
pub(super) struct Judged<P> {
    pub(super) outcome: Outcome,
    pub(super) status: Status,
    /// By when the next round has begun.
    pub(super) continues_by: Option<DateTime<Utc>>,
    /// Whether the function asks for the next round itself; the schedule begins it otherwise.
    pub(super) carries_on: bool,
    /// What the next round or attempt starts from.
    pub(super) progress: Option<P>,
    /// Whether the state to go back to, which the claim took, is not needed.
    pub(super) spare_snapshot: bool,
}

/// How a run may go on beyond the round that has ended.
pub(super) struct Course {
    /// The round that has ended.
    pub(super) round: u32,
    /// How many the function asks for in a row. Lambda stops a function that calls itself again and again (AWS Lambda
    /// Developer Guide, "Use Lambda recursive loop detection"); the schedule begins another row.
    pub(super) in_a_row: u32,
    /// The inputs with which a playbook carries on, and with which it looks again; `None` where the function carries
    /// on by itself.
    pub(super) step: Option<(Value, Value)>,
}

/// Judges the end of a round.
pub(super) fn judge<P>(
    end: End<P>,
    summary: &str,
    verified: Option<&Verified>,
    course: Course,
    now: DateTime<Utc>,
) -> Judged<P> {
    let over = |outcome, status| Judged {
        outcome,
        status,
        continues_by: None,
        carries_on: false,
        progress: None,
        spare_snapshot: false,
    };
    let escalated = |rule, reason| over(Outcome::Escalated { rule, reason }, Status::Completed);
    match end {
        End::Finished => match verified {
            Some(verified) if verified.holds => over(
                Outcome::Applied {
                    summary: format!("{summary}; {}", verified.summary),
                },
                Status::Completed,
            ),
            verified => {
                let found = verified.map_or("it was not read back", |found| &found.summary);
                escalated(Rule::Unsafe, format!("{summary}, but {found}"))
            }
        },
        End::Escalated { rule, reason } => escalated(rule, reason),
        End::Failed {
            error,
            retryable,
            progress,
        } => Judged {
            progress,
            ..over(Outcome::Failed { error, retryable }, Status::Failed)
        },
        End::Overtaken { reason } => over(Outcome::failed(&reason, true), Status::Failed),
        End::Settling {
            reason,
            check_again_at,
        } => over(
            Outcome::Pending {
                reason: format!("{summary}; {reason}"),
                check_again_at,
                continuation: course.step.map(|(_, look_again)| look_again),
            },
            Status::Settling,
        ),
        End::Nothing { reason } => over(
            Outcome::Skipped {
                rule: Rule::NothingToDo,
                reason,
            },
            Status::Completed,
        ),
        End::Resting {
            reason,
            until,
            progress,
        } => Judged {
            // A playbook comes after that time, and must find its turn.
            continues_by: Some(if course.step.is_some() {
                until + NEXT_STEP
            } else {
                until
            }),
            outcome: Outcome::Pending {
                reason: format!("{summary}; {reason}"),
                check_again_at: until,
                continuation: course.step.map(|(carry_on, _)| carry_on),
            },
            status: Status::Continuing,
            carries_on: false,
            progress: Some(progress),
            spare_snapshot: false,
        },
        End::Unfinished(progress) => unfinished(progress, summary, course, now),
    }
}

/// The next round is asked for, by the function itself, a playbook, or, at the end of a row, the schedule.
fn unfinished<P>(progress: P, summary: &str, course: Course, now: DateTime<Utc>) -> Judged<P> {
    let by_itself = course.step.is_none();
    let carries_on = by_itself && !course.round.is_multiple_of(course.in_a_row.max(1));
    let next = course.round + 1;
    let (reason, look_at, wait) = if carries_on {
        (format!("round {next} carries on"), NEXT_ROUND, NEXT_ROUND)
    } else if by_itself {
        let reason = format!("the schedule begins round {next}");
        (reason, TimeDelta::zero(), TimeDelta::zero())
    } else {
        let reason = format!("round {next} carries on");
        (reason, TimeDelta::zero(), NEXT_STEP)
    };
    Judged {
        outcome: Outcome::Pending {
            reason: format!("{summary}; {reason}"),
            check_again_at: now + look_at,
            continuation: course.step.map(|(carry_on, _)| carry_on),
        },
        status: Status::Continuing,
        continues_by: Some(now + wait),
        carries_on,
        progress: Some(progress),
        spare_snapshot: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Overall;
    use serde_json::json;

    fn judged(end: End<u8>, holds: Option<bool>, round: u32, step: bool) -> Judged<u8> {
        let verified = holds.map(|holds| Verified {
            holds,
            summary: "read back".into(),
        });
        let course = Course {
            round,
            in_a_row: 3,
            step: step.then(|| (json!("carry on"), json!("look again"))),
        };
        let now = DateTime::UNIX_EPOCH;
        judge(end, "done", verified.as_ref(), course, now)
    }

    #[test]
    fn each_end_has_its_outcome_and_leaves_the_record_in_its_state() {
        let reason = || "why".to_owned();
        let at = DateTime::UNIX_EPOCH;
        let failed = |progress| End::Failed {
            error: reason(),
            retryable: true,
            progress,
        };
        let settling = || End::Settling {
            reason: reason(),
            check_again_at: at,
        };
        let escalated = || End::Escalated {
            rule: Rule::BlastCap,
            reason: reason(),
        };
        let resting = || End::Resting {
            reason: reason(),
            until: at + TimeDelta::seconds(50),
            progress: 4,
        };
        let cases = [
            (
                End::Finished,
                Some(true),
                1,
                Overall::Applied,
                Status::Completed,
            ),
            (
                End::Finished,
                Some(false),
                1,
                Overall::Escalated,
                Status::Completed,
            ),
            (
                End::Finished,
                None,
                1,
                Overall::Escalated,
                Status::Completed,
            ),
            (escalated(), None, 1, Overall::Escalated, Status::Completed),
            (failed(Some(4)), None, 1, Overall::Failed, Status::Failed),
            (
                End::Overtaken { reason: reason() },
                None,
                1,
                Overall::Failed,
                Status::Failed,
            ),
            (settling(), None, 1, Overall::Pending, Status::Settling),
            (
                End::Nothing { reason: reason() },
                None,
                1,
                Overall::Skipped,
                Status::Completed,
            ),
            (
                End::Unfinished(4),
                None,
                1,
                Overall::Pending,
                Status::Continuing,
            ),
            (resting(), None, 1, Overall::Pending, Status::Continuing),
        ];
        for (at, (end, holds, round, kind, status)) in cases.into_iter().enumerate() {
            let found = judged(end, holds, round, false);
            assert_eq!(
                (found.outcome.kind(), found.status),
                (kind, status),
                "case {at}"
            );
        }
        assert_eq!(judged(failed(Some(4)), None, 1, false).progress, Some(4));
        assert_eq!(judged(End::Unfinished(4), None, 1, false).progress, Some(4));
        let rests = judged(resting(), None, 1, false);
        assert_eq!(
            (rests.progress, rests.carries_on, rests.continues_by),
            (Some(4), false, Some(at + TimeDelta::seconds(50)))
        );
    }

    #[test]
    fn the_schedule_begins_another_row_of_rounds() {
        let at = DateTime::UNIX_EPOCH;
        for (round, step, carries_on, by) in [
            (1, false, true, at + NEXT_ROUND),
            (3, false, false, at),
            (4, false, true, at + NEXT_ROUND),
            (6, false, false, at),
            (3, true, false, at + NEXT_STEP),
        ] {
            let found = judged(End::Unfinished(4), None, round, step);
            assert_eq!(found.status, Status::Continuing, "{round}");
            assert_eq!(
                (found.carries_on, found.continues_by, found.progress),
                (carries_on, Some(by), Some(4)),
                "{round}, {step}"
            );
        }
    }

    #[test]
    fn a_playbook_gets_the_input_that_carries_on_or_looks_again() {
        let continuation = |end| match judged(end, None, 1, true).outcome {
            Outcome::Pending { continuation, .. } => continuation,
            other => panic!("{other:?}"),
        };
        assert_eq!(continuation(End::Unfinished(4)), Some(json!("carry on")));
        let settling = End::Settling {
            reason: String::new(),
            check_again_at: DateTime::UNIX_EPOCH,
        };
        assert_eq!(continuation(settling), Some(json!("look again")));
        let resting = End::Resting {
            reason: String::new(),
            until: DateTime::UNIX_EPOCH,
            progress: 4,
        };
        let by = judged(resting, None, 1, true).continues_by;
        assert_eq!(by, Some(DateTime::UNIX_EPOCH + NEXT_STEP));
        let by = judged(End::Unfinished(4), None, 1, true).continues_by;
        assert_eq!(by, Some(DateTime::UNIX_EPOCH + NEXT_STEP));
    }
}
