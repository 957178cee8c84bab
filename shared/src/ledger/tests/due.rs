//! The index of what is due, the kill switches, and incidents that nobody told the end of.

use crate::alarm::State;
use crate::guard::next;
use crate::guard::scene::{arn, at, event, lasting, passing, place, skipped};
use crate::ledger::LedgerError;
use crate::ledger::items::{self, AlarmState};
use crate::ledger::store::{Item, Key};
use crate::ledger::tests::memory::{INCIDENT, claim, entry, ledger, refuse_on};
use crate::ledger::timeline::Kind;
use crate::outcome::Rule;

#[tokio::test]
async fn two_alarms_of_a_target_wait_side_by_side() {
    let (ledger, _) = ledger();
    let (high, low) = (
        event("High", State::Alarm, 0),
        event("Low", State::Alarm, 5),
    );
    let why = skipped(Rule::Cooldown);
    let waits = passing(&why, Rule::Cooldown, 60);
    for event in [&high, &low] {
        let asks = place(event, "req-1");
        let facts = ledger.facts(&asks).await.unwrap();
        assert_eq!(facts.waiting, None);
        let written = refuse_on(&ledger, &facts, &asks, &waits, 10).await;
        assert_eq!(written.unwrap(), Some(None));
    }
    let waiting = |due: crate::ledger::read::Due| -> Vec<_> {
        due.waiting
            .into_iter()
            .map(|it| it.event.alarm_name)
            .collect()
    };
    let due = ledger.due("dlq-replay").await.unwrap();
    assert_eq!(waiting(due), ["High", "Low"]);
    // An OK of one ends its own wait alone.
    let ok = event("High", State::Ok, 100);
    let asks = place(&ok, "req-2");
    let facts = ledger.facts(&asks).await.unwrap();
    let said = skipped(Rule::NothingToDo);
    refuse_on(&ledger, &facts, &asks, &lasting(&said), 110)
        .await
        .unwrap();
    let due = ledger.due("dlq-replay").await.unwrap();
    assert_eq!(waiting(due), ["Low"]);
}

#[tokio::test]
async fn what_waits_no_more_is_removed_unless_something_newer_waits() {
    let (ledger, _) = ledger();
    let (older, newer) = (
        event("High", State::Alarm, 0),
        event("High", State::Alarm, 100),
    );
    let why = skipped(Rule::Cooldown);
    let asks = place(&newer, "req-1");
    let facts = ledger.facts(&asks).await.unwrap();
    let waits = passing(&why, Rule::Cooldown, 160);
    refuse_on(&ledger, &facts, &asks, &waits, 110)
        .await
        .unwrap();
    assert!(
        !ledger
            .waits_no_more(&place(&older, "req-2"), at(120))
            .await
            .unwrap()
    );
    assert_eq!(ledger.due("dlq-replay").await.unwrap().waiting.len(), 1);
    assert!(ledger.waits_no_more(&asks, at(120)).await.unwrap());
    assert!(ledger.due("dlq-replay").await.unwrap().waiting.is_empty());
    assert!(ledger.waits_no_more(&asks, at(130)).await.unwrap());
}

#[tokio::test]
async fn what_another_release_wrote_hides_nothing_else() {
    let (ledger, table) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    claim(&ledger, &asks, 10).await;
    let pk = items::due_pk("dlq-replay", 0);
    for sk in ["standing#x", "waiting#x#y", "untold#x"] {
        table.put(
            Key::new(&pk, sk),
            items::item("{\"new\":true}".to_owned(), None),
        );
    }
    table.put(
        Key::new(&pk, "elsewhat#x"),
        items::item(String::new(), None),
    );
    table.put(Key::new(&pk, "standing#bare"), Item::default());
    let due = ledger.due("dlq-replay").await.unwrap();
    assert_eq!((due.standing.len(), due.unreadable.len()), (1, 4));
    let lease = items::lease_key(asks.resource);
    table.put(lease, items::item("[]".to_owned(), None));
    let error = ledger.facts(&asks).await.unwrap_err();
    let LedgerError::Unreadable { key, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(*key, format!("target#{} lease", asks.resource));
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_kill_switch_is_on_while_its_item_is_there_unless_that_says_otherwise() {
    let (ledger, table) = ledger();
    let engaged = |switches: &items::Switches, remediation: &str, resource: &str| {
        let found = switches.engaged(remediation, resource)?;
        Some((found.rule, found.reason))
    };
    let none = ledger.switches().await.unwrap();
    assert_eq!(engaged(&none, "dlq-replay", "a"), None);
    let put = |sk: &str, engaged, reason: Option<&str>| {
        let mut item = Item {
            engaged,
            ..Item::default()
        };
        let reason = reason.map(|why| ("reason".to_owned(), why.to_owned()));
        item.columns.extend(reason);
        table.put(Key::new("switch", sk), item);
    };
    put("global", Some(false), Some("over"));
    put("remediation#dlq-replay", Some(true), None);
    put("target#a", None, Some("maintenance"));
    let on = ledger.switches().await.unwrap();
    let of_remediation = Some((Rule::KillSwitchRemediation, None));
    let of_target = Some((Rule::KillSwitchTarget, Some("maintenance".to_owned())));
    assert_eq!(engaged(&on, "dlq-replay", "a"), of_remediation);
    assert_eq!(engaged(&on, "cache-fallback", "a"), of_target);
    assert_eq!(engaged(&on, "cache-fallback", "b"), None);
    put("global", None, None);
    let on = ledger.switches().await.unwrap();
    let global = Some((Rule::KillSwitchGlobal, None));
    assert_eq!(engaged(&on, "cache-fallback", "b"), global);
    assert_eq!(engaged(&on, "dlq-replay", "a"), global);
}

#[tokio::test]
async fn an_incident_is_in_the_index_while_it_is_open_and_closed_by_whoever_is_first() {
    let (ledger, table) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    claim(&ledger, &asks, 10).await;
    assert_eq!(ledger.open_alarms().await.unwrap(), [arn("High")]);
    let before = ledger.alarm(&arn("High")).await.unwrap();
    let incident = items::incident_key(before.incident_id.as_deref().unwrap());
    let status = || {
        let item = table.items()[&incident].clone();
        let body: serde_json::Value = serde_json::from_str(&item.body.unwrap()).unwrap();
        (
            body["status"].as_str().unwrap().to_owned(),
            item.expires_at.is_some(),
        )
    };
    assert_eq!(status(), ("open".to_owned(), false));
    let after = next::noted(&before, &arn("High"), State::Ok, at(500));
    let lines = [entry(Kind::Reconciled, "the alarm, read again, is at OK")];
    let close = |before: AlarmState, second| {
        let (ledger, asks, lines, after) = (&ledger, &asks, &lines, &after);
        async move {
            ledger
                .reconcile(asks, (&before, after), lines, at(second))
                .await
        }
    };
    assert!(close(before.clone(), 600).await.unwrap());
    assert_eq!(ledger.open_alarms().await.unwrap(), Vec::<String>::new());
    assert_eq!(status(), ("resolved".to_owned(), true));
    let items = table.items();
    assert!(!close(before, 601).await.unwrap());
    assert_eq!(table.items(), items);
    let lines = table.below(&format!("incident#{INCIDENT}"));
    assert_eq!(lines.len(), 1, "only the claim's: {lines:?}");
}
