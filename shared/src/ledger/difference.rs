//! The difference between the facts before and the facts after, as writes whose conditions are exactly what was read.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::ledger::error::LedgerError;
use crate::ledger::items::{
    self, AlarmState, Facts, Heartbeat, History, KEPT, Lease, Place, RECORD_KEPT, Record, Untold,
    Watch,
};
use crate::ledger::permit::Permit;
use crate::ledger::store::{Change, Condition, Item, Key, Write};
use crate::ledger::timeline::{Author, Entry, lines};
use crate::outcome::Report;

/// What is to be written, besides the difference between the facts.
pub(crate) struct Commit<'a> {
    pub(crate) place: &'a Place<'a>,
    pub(crate) before: &'a Facts,
    pub(crate) after: &'a Facts,
    pub(crate) incident_id: &'a str,
    pub(crate) entries: &'a [Entry],
    /// An outcome that has to reach the bus.
    pub(crate) told: Option<&'a Report>,
    /// A mitigation whose effect is to be seen, or was.
    pub(crate) watch: Option<Watching<'a>>,
}

/// What becomes of a watch.
#[derive(Clone, Copy)]
pub(crate) enum Watching<'a> {
    Begins(&'a Watch),
    Ends(&'a Watch),
}

/// Under what right facts are changed.
pub(super) enum Hand<'a> {
    /// A run claims the target, or looks at it while nobody holds it.
    Free,
    /// The permit's holder.
    Holds(&'a Permit),
}

/// The key of an outcome that may not have reached the bus.
pub(crate) type UntoldKey = Key;

pub(super) const TOKEN: &str = "token";
pub(super) const SEQUENCE: &str = "sequence";
pub(super) const VERSION: &str = "version";
pub(super) const CHANGED_AT: &str = "changed_at";
const DONE_AT: &str = "done_at";

/// A value as the table holds it.
pub(super) fn json<T: Serialize>(what: &str, value: &T) -> Result<String, LedgerError> {
    serde_json::to_string(value).map_err(|error| LedgerError::Unwritable {
        what: what.to_owned(),
        problem: error.to_string(),
    })
}

/// Names one logical write: its content and its moment.
pub(super) fn token(writes: &[Write], now: DateTime<Utc>) -> String {
    let micros = now.timestamp_micros().to_string();
    let mut parts = vec![micros.as_str()];
    for write in writes {
        parts.extend([write.key.pk.as_str(), write.key.sk.as_str()]);
        if let Change::Put(item) = &write.change {
            parts.push(item.body.as_deref().unwrap_or_default());
        }
    }
    crate::ids::digest(&parts, 16)
}

pub(super) fn millis(at: DateTime<Utc>) -> u64 {
    u64::try_from(at.timestamp_millis()).unwrap_or(0)
}

pub(super) fn numbered(before: Option<u64>) -> Condition {
    before.map_or(Condition::Absent, |version| {
        Condition::Are(vec![(VERSION, version)])
    })
}

pub(super) fn held_record(permit: &Permit, sequence: u64) -> Condition {
    Condition::IsAndBelow((TOKEN, permit.token), (SEQUENCE, sequence))
}

pub(super) fn marked(
    body: String,
    expires_at: Option<DateTime<Utc>>,
    marks: &[(&str, u64)],
) -> Item {
    let mut item = items::item(body, expires_at);
    let marks = marks.iter().map(|(name, mark)| ((*name).to_owned(), *mark));
    item.marks.extend(marks);
    item
}

pub(super) fn record_write(
    key: Key,
    record: &Record,
    condition: Condition,
    now: DateTime<Utc>,
) -> Result<Write, LedgerError> {
    let marks = [(TOKEN, record.token), (SEQUENCE, record.sequence)];
    let mut item = marked(json("a record", record)?, Some(now + RECORD_KEPT), &marks);
    let status = record.status.as_str().to_owned();
    item.columns.insert("status".to_owned(), status);
    Ok(Write {
        key,
        condition,
        change: Change::Put(item),
    })
}

pub(super) fn heartbeat_write(
    resource: &str,
    heartbeat: Heartbeat,
    now: DateTime<Utc>,
) -> Result<Write, LedgerError> {
    let marks = [(TOKEN, heartbeat.token)];
    Ok(Write {
        key: items::heartbeat_key(resource),
        condition: Condition::AbsentOrAtMost(TOKEN, heartbeat.token),
        change: Change::Put(marked(
            json("a heartbeat", &heartbeat)?,
            Some(now + KEPT),
            &marks,
        )),
    })
}

pub(super) fn history_write(
    (remediation, resource): (&str, &str),
    before: &History,
    after: &History,
    now: DateTime<Utc>,
) -> Result<Write, LedgerError> {
    let marks = [(VERSION, after.version)];
    Ok(Write {
        key: items::history_key(remediation, resource),
        condition: numbered((before.version > 0).then_some(before.version)),
        change: Change::Put(marked(json("a history", after)?, Some(now + KEPT), &marks)),
    })
}

pub(super) fn lease_condition(lease: Option<&Lease>) -> Condition {
    lease.map_or(Condition::Absent, |lease| {
        Condition::Are(vec![(TOKEN, lease.token)])
    })
}

/// The transaction that takes the facts before to the facts after.
pub(super) fn writes(
    commit: &Commit<'_>,
    hand: &Hand<'_>,
    author: &Author,
    now: DateTime<Utc>,
) -> Result<(Vec<Write>, Option<UntoldKey>), LedgerError> {
    let Commit {
        place,
        before,
        after,
        incident_id,
        entries,
        told,
        watch,
    } = *commit;
    let mut writes = Vec::new();
    writes.extend(record_change(place, before, after, hand, now)?);
    if let Some(lease) = after.lease.as_ref()
        && before.lease.as_ref() != Some(lease)
    {
        let marks = [(TOKEN, lease.token)];
        writes.push(Write {
            key: items::lease_key(place.resource),
            condition: lease_condition(before.lease.as_ref()),
            change: Change::Put(marked(json("a lease", lease)?, Some(now + KEPT), &marks)),
        });
    }
    if let Some(heartbeat) = after.heartbeat
        && before.heartbeat != Some(heartbeat)
    {
        writes.push(heartbeat_write(place.resource, heartbeat, now)?);
    }
    let of_the_holder = writes.len();
    if before.history != after.history {
        let of = (place.remediation, place.resource);
        writes.push(history_write(of, &before.history, &after.history, now)?);
    }
    if before.standing != after.standing {
        let seen = before.standing.as_ref().map(|standing| standing.version);
        writes.push(Write {
            key: items::standing_key(place.remediation, place.resource),
            condition: numbered(seen),
            change: match &after.standing {
                None => Change::Delete,
                Some(standing) => Change::Put(marked(
                    json("what stands", standing)?,
                    None,
                    &[(VERSION, standing.version)],
                )),
            },
        });
    }
    // Whoever claims or holds writes the lease itself; others must see that nobody has claimed meanwhile.
    let changes_what_the_holder_owns =
        writes.len() > of_the_holder || before.record != after.record;
    if changes_what_the_holder_owns && before.lease == after.lease {
        writes.push(Write {
            key: items::lease_key(place.resource),
            condition: lease_condition(before.lease.as_ref()),
            change: Change::Check,
        });
    }
    writes.extend(waiting_change(place, before, after)?);
    writes.extend(alarm_writes(place, &before.alarm, &after.alarm, now)?);
    let who = (place.remediation, place.target);
    writes.extend(lines(who, incident_id, author, entries, now)?);
    writes.extend(
        watch
            .map(|watch| watch_write(place, watch, now))
            .transpose()?,
    );
    let untold = told.map(|report| untold_write(place, report, author, now));
    let key = match untold {
        None => None,
        Some(write) => {
            let write = write?;
            let key = write.key.clone();
            writes.push(write);
            Some(key)
        }
    };
    Ok((writes, key))
}

pub(super) fn record_change(
    place: &Place<'_>,
    before: &Facts,
    after: &Facts,
    hand: &Hand<'_>,
    now: DateTime<Utc>,
) -> Result<Option<Write>, LedgerError> {
    if before.record == after.record {
        return Ok(None);
    }
    let key = items::record_key(place);
    let seen = || match &before.record {
        None => Condition::Absent,
        Some(record) => Condition::Are(vec![(TOKEN, record.token), (SEQUENCE, record.sequence)]),
    };
    let Some(record) = &after.record else {
        let condition = match hand {
            Hand::Free => seen(),
            Hand::Holds(permit) => Condition::Are(vec![(TOKEN, permit.token)]),
        };
        return Ok(Some(Write {
            key,
            condition,
            change: Change::Delete,
        }));
    };
    let condition = match hand {
        Hand::Free => seen(),
        Hand::Holds(permit) => held_record(permit, record.sequence),
    };
    record_write(key, record, condition, now).map(Some)
}

pub(super) fn waiting_change(
    place: &Place<'_>,
    before: &Facts,
    after: &Facts,
) -> Result<Option<Write>, LedgerError> {
    if before.waiting == after.waiting {
        return Ok(None);
    }
    let condition = match &before.waiting {
        None => Condition::Absent,
        Some(waiting) => Condition::Are(vec![(CHANGED_AT, millis(waiting.event.changed_at))]),
    };
    let change = match &after.waiting {
        None => Change::Delete,
        Some(waiting) => {
            let marks = [(CHANGED_AT, millis(waiting.event.changed_at))];
            Change::Put(marked(json("what waits", waiting)?, None, &marks))
        }
    };
    Ok(Some(Write {
        key: items::waiting_key(place.remediation, place.resource, &place.event.alarm_arn),
        condition,
        change,
    }))
}

fn watch_write(
    place: &Place<'_>,
    watching: Watching<'_>,
    now: DateTime<Utc>,
) -> Result<Write, LedgerError> {
    let marks = |watch: &Watch| [(DONE_AT, millis(watch.done_at))];
    Ok(match watching {
        Watching::Begins(watch) => Write {
            key: items::watch_key(place.remediation, watch),
            condition: Condition::Always,
            change: Change::Put(marked(
                json("a watch", watch)?,
                Some(now + RECORD_KEPT),
                &marks(watch),
            )),
        },
        Watching::Ends(watch) => Write {
            key: items::watch_key(place.remediation, watch),
            condition: Condition::Are(marks(watch).to_vec()),
            change: Change::Delete,
        },
    })
}

pub(super) fn untold_write(
    place: &Place<'_>,
    report: &Report,
    author: &Author,
    now: DateTime<Utc>,
) -> Result<Write, LedgerError> {
    let id = format!("{}#{:012}", author.name, author.order);
    let untold = Untold {
        alarm_arn: place.event.alarm_arn.clone(),
        at: now,
        report: report.clone(),
    };
    let item = items::item(json("an outcome", &untold)?, Some(now + RECORD_KEPT));
    Ok(Write {
        key: items::untold_key(place.remediation, place.resource, &id),
        condition: Condition::Always,
        change: Change::Put(item),
    })
}

pub(super) fn incident_write(
    place: &Place<'_>,
    alarm: &AlarmState,
    resolved_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<Option<Write>, LedgerError> {
    let Some(incident_id) = &alarm.incident_id else {
        return Ok(None);
    };
    let incident = serde_json::json!({
        "incident_id": incident_id,
        "alarm_arn": place.event.alarm_arn,
        "alarm_name": place.event.alarm_name,
        "status": if resolved_at.is_none() { "open" } else { "resolved" },
        "opened_at": alarm.opened_at,
        "resolved_at": resolved_at,
        "reason": place.event.reason,
    });
    let expires_at = resolved_at.map(|_| now + KEPT);
    Ok(Some(Write {
        key: items::incident_key(incident_id),
        condition: Condition::Always,
        change: Change::Put(items::item(json("an incident", &incident)?, expires_at)),
    }))
}

pub(super) fn alarm_writes(
    place: &Place<'_>,
    before: &AlarmState,
    after: &AlarmState,
    now: DateTime<Utc>,
) -> Result<Vec<Write>, LedgerError> {
    if before == after {
        return Ok(Vec::new());
    }
    let arn = &place.event.alarm_arn;
    let expires_at = (!after.open).then_some(now + KEPT);
    let marks = [(VERSION, after.version)];
    let mut writes = vec![Write {
        key: items::alarm_key(arn),
        condition: numbered((before.version > 0).then_some(before.version)),
        change: Change::Put(marked(json("an alarm", after)?, expires_at, &marks)),
    }];
    if before.open == after.open && before.incident_id == after.incident_id {
        return Ok(writes);
    }
    let of_another = before.open && before.incident_id != after.incident_id;
    if of_another {
        // It had ended before the one that is open now began, and nobody knew.
        let ended_at = Some(place.event.changed_at);
        writes.extend(incident_write(place, before, ended_at, now)?);
    }
    let resolved_at = after.latest.filter(|_| !after.open).map(|latest| latest.at);
    writes.extend(incident_write(place, after, resolved_at, now)?);
    writes.push(Write {
        key: items::open_key(arn),
        condition: Condition::Always,
        change: if after.open {
            Change::Put(items::item("{}".to_owned(), None))
        } else {
            Change::Delete
        },
    });
    Ok(writes)
}
