//! The steps of a way back that is not gone at once: giving a share, watching it, taking it away again.

use chrono::{DateTime, Utc};
use shared::outcome::Rule;
use shared::remediation::{Done, End, Work};

use crate::aws::Moved;
use crate::error::RollbackError;
use crate::memory::Went;
use crate::plan::{Plan, Step};
use crate::policy::Rollback;
use crate::shift::{self, Progress};
use crate::{AliasRollback, rolled_back, told};

impl AliasRollback {
    /// Carries a step out; `None` where another hand had changed the alias, and nothing was changed.
    pub(crate) async fn stepped(
        &self,
        plan: &Plan,
        action: &Rollback,
        work: &Work<'_, Self>,
    ) -> Result<Option<Done<Self>>, RollbackError> {
        match &plan.step {
            Step::Shift {
                to,
                percent,
                revision_id,
                ..
            } => {
                let share = (*to, *percent);
                self.shifted(plan, (action, revision_id), share, work).await
            }
            Step::Watch {
                to,
                percent,
                since,
                until,
                reason,
            } => {
                let progress = Progress {
                    from: plan.from,
                    to: *to,
                    percent: *percent,
                    since: *since,
                    putting: None,
                };
                Ok(Some(rests(plan, progress, (*until, reason.clone()), work)))
            }
            Step::Unshift {
                revision_id,
                reason,
                ..
            } => {
                self.taken_away(plan, (action, revision_id), reason, work)
                    .await
            }
            Step::Point { .. } | Step::StopDeployment { .. } => Ok(None),
        }
    }

    /// Saves what share is about to be given, so that an attempt that follows a death can tell whether it was.
    pub(crate) async fn about_to_give(
        &self,
        percent: u8,
        work: &Work<'_, Self>,
    ) -> Result<(), RollbackError> {
        let Some(progress) = work.progress() else {
            return Ok(());
        };
        save(progress, percent, work).await
    }

    async fn shifted(
        &self,
        plan: &Plan,
        (action, revision_id): (&Rollback, &str),
        (to, percent): (u64, u8),
        work: &Work<'_, Self>,
    ) -> Result<Option<Done<Self>>, RollbackError> {
        let from = plan.from;
        let nothing = Progress {
            from,
            to,
            percent: 0,
            since: work.now(),
            putting: None,
        };
        let before = work.progress().unwrap_or(&nothing);
        save(before, percent, work).await?;
        let clearance = work.clear("give a share of the traffic")?;
        let share = (from, to, percent);
        let moved = self.aws.share(action, share, revision_id, clearance);
        if moved.await? == Moved::Overtaken {
            return Ok(None);
        }
        let progress = Progress {
            percent,
            since: work.now(),
            ..nothing
        };
        let until = progress.since + shift::lasts(action);
        let summary = format!(
            "{} gives version {to} {percent} % of the traffic",
            action.alias
        );
        Ok(Some(rests(plan, progress, (until, summary), work)))
    }

    async fn taken_away(
        &self,
        plan: &Plan,
        (action, revision_id): (&Rollback, &str),
        reason: &str,
        work: &Work<'_, Self>,
    ) -> Result<Option<Done<Self>>, RollbackError> {
        self.about_to_give(0, work).await?;
        let clearance = work.clear("take the share away again")?;
        let alone = (None, plan.from);
        let moved = self.aws.point(action, alone, revision_id, clearance);
        if moved.await? == Moved::Overtaken {
            return Ok(None);
        }
        let end = End::Escalated {
            rule: Rule::Unsafe,
            reason: reason.to_owned(),
        };
        let summary = format!(
            "{} points to version {} alone again",
            action.alias, plan.from
        );
        let memory = work.memory().cloned().unwrap_or_default();
        Ok(Some(Done {
            memory: Some(memory.broken_off(Went::AndCameBack)),
            ..told(plan, Done::new(end, summary), false)
        }))
    }
}

async fn save(
    progress: &Progress,
    putting: u8,
    work: &Work<'_, AliasRollback>,
) -> Result<(), RollbackError> {
    let progress = Progress {
        putting: Some(putting),
        ..progress.clone()
    };
    let saved = work.checkpoint(&progress).await;
    saved.map_err(RollbackError::Ledger)
}

/// The end of a round that leaves the alias with weights. The first one tells who is to blame, whichever attempt comes to
/// its end.
fn rests(
    plan: &Plan,
    progress: Progress,
    (until, summary): (DateTime<Utc>, String),
    work: &Work<'_, AliasRollback>,
) -> Done<AliasRollback> {
    let first = work.progress().is_none_or(|before| before.percent == 0);
    let memory = work.memory().cloned().unwrap_or_default();
    let end = End::Resting {
        reason: "what both versions serve is compared at the next look".to_owned(),
        until,
        progress,
    };
    Done {
        memory: first.then(|| memory.shifting(rolled_back(plan, work))),
        ..told(plan, Done::new(end, summary), first)
    }
}
