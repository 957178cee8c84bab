//! A round of a replay, from taking up what earlier rounds left to telling what this one came to.

use serde_json::Value;
use shared::remediation::{Done, Work};

use super::context::Context;
use super::{give_back, tell, watch};
use crate::DlqReplay;
use crate::aws::Aws;
use crate::error::ReplayError;
use crate::plan::Plan;

/// A round of a replay.
pub struct Round<'a> {
    context: Context<'a>,
}

impl<'a> Round<'a> {
    /// Takes up where earlier rounds and attempts stopped.
    pub fn new(
        aws: &'a Aws,
        plan: &'a Plan,
        schema: Option<&Value>,
        work: &'a Work<'a, DlqReplay>,
    ) -> Result<Self, ReplayError> {
        let context = Context::new(aws, plan, schema, work)?;
        Ok(Self { context })
    }

    /// Works until the queue is dry, the time is up, or something stops it; gives back what it holds.
    pub async fn run(self) -> Done<DlqReplay> {
        let context = self.context;
        let mut empty_polls = 0;
        if !context.state().progress.canary_passed {
            empty_polls = watch::canary(&context).await;
        }
        if !context.is_stopped() {
            watch::ramp(&context, empty_polls).await;
        }
        give_back::look_for_unseen(&context).await;
        give_back::give_back(&context).await;
        give_back::look_for_hidden(&context).await;
        give_back::look_what_is_left(&context).await;
        let (plan, now, worked) = (context.plan, context.now(), context.elapsed());
        tell::done(context.into_state(), plan, (now, worked))
    }
}
