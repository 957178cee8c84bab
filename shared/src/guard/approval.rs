//! Whether a human has approved a plan.

use chrono::{DateTime, Utc};

use crate::alarm::Approval;
use crate::guard::decide::{CLOCK_SKEW, time};

/// Whether a human has approved this plan on this target in answer to this transition.
pub fn approved<'a>(
    approvals: &'a [Approval],
    (target, transition, plan_hash): (&str, &str, &str),
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
        let Approval { by, expires_at, .. } = approval;
        // The plan may have been shown to another step of the playbook.
        let named = approval.transition.split("|step=").next();
        why = if named != Some(transition) {
            format!("{by} approved a plan for another change of the alarm: {ask}")
        } else if approval.plan_hash != plan_hash {
            format!(
                "{by} approved plan {}, and by now the plan is another: {ask}",
                approval.plan_hash
            )
        } else if *expires_at <= now {
            format!("{by}'s approval expired at {}: {ask}", time(*expires_at))
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
