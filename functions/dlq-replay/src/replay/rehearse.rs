//! The rehearsal: what a replay would make of the first few messages, found out without delivering any.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::aws::Aws;
use crate::error::ReplayError;
use crate::judge::{self, Fate, Judge};
use crate::message::InHand;
use crate::plan::Plan;
use crate::policy::is_fifo;
use crate::replay::deliver::look_up;
use crate::replay::groups::Groups;

/// How long the messages that are looked at stay hidden, should giving them back fail.
const HIDDEN_SECONDS: u32 = 10;

/// What the policy would make of a few messages, which are given back at once.
pub async fn rehearse(
    aws: &Aws,
    plan: &Plan,
    schema: Option<&Value>,
    sample: u8,
    now: DateTime<Utc>,
) -> Result<Vec<String>, ReplayError> {
    if sample == 0 {
        return Ok(vec![
            "no message was looked at, since dry_run_sample is 0".to_owned(),
        ]);
    }
    let schema = judge::compiled(schema)?;
    let messages = aws
        .receive(&plan.source, u32::from(sample), 0, HIDDEN_SECONDS)
        .await
        .map_err(ReplayError::Aws)?;
    let judge = Judge {
        plan,
        schema: schema.as_ref(),
        began: now,
        now,
    };
    let mut notes = vec![format!(
        "looking at {} messages hid them for up to {HIDDEN_SECONDS} s and raised their receive count by one",
        messages.len()
    )];
    let fifo = is_fifo(&plan.source);
    let mut groups = Groups::default();
    for message in &messages {
        let mut taken = message.clone();
        if plan.release.is_some() {
            taken = taken.released(fifo);
        }
        let (object, problem) = look_up(aws, plan, &taken, now).await;
        notes.extend(problem);
        let taken = InHand { object, ..taken };
        groups.note(&taken);
        notes.push(foretold(&judge, &taken));
    }
    notes.extend(groups.told());
    let receipts: Vec<String> = messages
        .into_iter()
        .map(|message| message.receipt)
        .collect();
    // A sample is at most what one call takes.
    aws.put_back(&plan.source, &receipts)
        .await
        .map_err(ReplayError::Aws)?;
    Ok(notes)
}

fn foretold(judge: &Judge<'_>, message: &InHand) -> String {
    let replays = message.mark().map_or(0, |replays| replays.count);
    match judge.fate(message, replays) {
        Fate::Replay(at) => {
            let to = &judge.plan.routes[at].destination.arn;
            format!("{} would go to {to}", message.id)
        }
        Fate::Quarantine(poison, why) => format!(
            "{} would be quarantined as {}: {why}",
            message.id,
            poison.name()
        ),
        Fate::Keep(why) => format!("{} would stay: {}", message.id, why.name()),
    }
}
