//! Whether a human has approved a plan.

use chrono::{DateTime, TimeDelta, Utc};

use crate::alarm::Approval;
use crate::guard::decide::{CLOCK_SKEW, time};

/// Whether a human has approved this plan on this target in answer to this transition, no longer than `valid_for` ago.
pub fn approved<'a>(
    approvals: &'a [Approval],
    (target, transition, plan_hash): (&str, &str, &str),
    valid_for: TimeDelta,
    now: DateTime<Utc>,
) -> Result<&'a Approval, String> {
    let ask = format!("approve plan {plan_hash}");
    let mut of_target = approvals
        .iter()
        .filter(|approval| approval.target == target)
        .peekable();
    if of_target.peek().is_none() {
        return Err(format!(
            "the policy wants a human to approve the plan first: {ask}"
        ));
    }
    let mut why = String::new();
    for approval in of_target {
        let Approval { by, .. } = approval;
        let until = ends_at(approval, valid_for);
        // The plan may have been shown to another step of the playbook.
        let named = approval.transition.split("|step=").next();
        why = if named != Some(transition) {
            format!("{by} approved a plan for another change of the alarm: {ask}")
        } else if approval.plan_hash != plan_hash {
            format!(
                "{by} approved plan {}, and by now the plan is another: {ask}",
                approval.plan_hash
            )
        } else if until <= now {
            format!("{by}'s approval expired at {}: {ask}", time(until))
        } else if approval.at > now + CLOCK_SKEW {
            format!(
                "{by}'s approval is dated {}, ahead of now: {ask}",
                time(approval.at)
            )
        } else {
            return Ok(approval);
        };
    }
    Err(why)
}

/// When an approval ends: when its giver said, and at the latest when the policy does.
#[must_use]
pub fn ends_at(approval: &Approval, valid_for: TimeDelta) -> DateTime<Utc> {
    approval.expires_at.min(approval.at + valid_for)
}
