//! A permit whose lease has passed changes nothing any more, and no write undoes a later one.

use std::time::Duration;

use crate::alarm::State;
use crate::guard::scene::{applied, at, end, event, memory, place};
use crate::ledger::LedgerError;
use crate::ledger::difference::Commit;
use crate::ledger::items::{Status, note_key};
use crate::ledger::tests::memory::{Answer, INCIDENT, claim, entry, finish, ledger};
use crate::ledger::timeline::Kind;

fn is_fenced<T>(answer: &Result<T, LedgerError>) -> bool {
    matches!(answer, Err(LedgerError::Fenced { .. }))
}

fn saved(count: u32) -> Vec<(String, u32)> {
    (0..count)
        .map(|nth| (format!("note-{nth:03}"), nth))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_save_in_flight_that_lands_after_the_end_does_not_reopen_the_record() {
    let (ledger, table) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let permit = claim(&ledger, &asks, 10).await;
    table.answers([Answer::Late(Duration::from_secs(20))]);
    let done = applied();
    let ending = end(Status::Completed, &done);
    let (save, finished) = tokio::join!(
        biased;
        ledger.checkpoint(&permit, memory(3), at(11)),
        finish(&ledger, &permit, &asks, &ending, 12),
    );
    finished.unwrap();
    assert!(is_fenced(&save));
    let record = ledger.facts(&asks).await.unwrap().record.unwrap();
    assert_eq!((record.status, record.progress), (Status::Completed, None));
    assert_eq!(record.report, Some(done));
}

/// Two saves of one run at once, of which the first lands last.
async fn crossed() -> (Result<(), LedgerError>, Option<serde_json::Value>) {
    let (ledger, table) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let permit = claim(&ledger, &asks, 10).await;
    table.answers([Answer::Late(Duration::from_secs(20))]);
    let (early, late) = tokio::join!(
        biased;
        ledger.checkpoint(&permit, memory(1), at(11)),
        ledger.checkpoint(&permit, memory(2), at(12)),
    );
    late.unwrap();
    let record = ledger.facts(&asks).await.unwrap().record;
    (early, record.unwrap().progress)
}

#[tokio::test(start_paused = true)]
async fn a_save_that_was_held_up_does_not_undo_a_later_one() {
    assert_eq!(crossed().await.1, Some(memory(2)));
}

/// A replay saves from several branches at once, and two transactions on one record get into each other's way.
#[tokio::test(start_paused = true)]
async fn a_save_that_ones_own_later_one_overtook_is_no_lost_lease() {
    let early = crossed().await.0;
    assert!(!is_fenced(&early), "{early:?}");
}

#[tokio::test]
async fn a_save_is_what_the_next_attempt_starts_from() {
    let (ledger, _) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let permit = claim(&ledger, &asks, 10).await;
    ledger.checkpoint(&permit, memory(1), at(11)).await.unwrap();
    ledger.checkpoint(&permit, memory(2), at(12)).await.unwrap();
    let facts = ledger.facts(&asks).await.unwrap();
    assert_eq!(facts, permit.facts());
    assert_eq!(facts.record.unwrap().progress, Some(memory(2)));
}

/// Whatever a permit can write is asked for after another run has claimed the target, and nothing of it is written.
#[tokio::test]
async fn nothing_is_written_under_a_lease_that_has_passed() {
    let (ledger, table) = ledger();
    let (high, low) = (
        event("High", State::Alarm, 0),
        event("Low", State::Alarm, 0),
    );
    let asks = place(&high, "req-1");
    let dead = claim(&ledger, &asks, 10).await;
    ledger.note(&dead, &saved(1), at(11)).await.unwrap();
    let alive = claim(&ledger, &place(&low, "req-2"), 100).await;
    let before = table.items();

    assert!(is_fenced(
        &ledger.checkpoint(&dead, memory(3), at(101)).await
    ));
    let note = [("note-000".to_owned(), 9_u32)];
    assert!(is_fenced(&ledger.note(&dead, &note, at(101)).await));
    assert!(is_fenced(&ledger.beat(&dead, at(101)).await));
    let known = dead.facts();
    let mut amended = known.clone();
    let standing = amended.standing.as_mut().unwrap();
    standing.version += 1;
    standing.policy = memory(3);
    let entries = [entry(Kind::Account, "too late")];
    let commit = Commit {
        place: &asks,
        before: &known,
        after: &amended,
        incident_id: INCIDENT,
        entries: &entries,
        told: None,
        watch: None,
    };
    assert!(is_fenced(&ledger.amend(&dead, &commit, at(101)).await));
    assert_eq!(dead.facts(), known);
    let done = applied();
    for status in [Status::Completed, Status::Failed, Status::Settling] {
        let ended = finish(&ledger, &dead, &asks, &end(status, &done), 101).await;
        assert!(is_fenced(&ended), "{status:?}");
    }
    assert_eq!(table.items(), before);

    ledger.checkpoint(&alive, memory(4), at(102)).await.unwrap();
    ledger.note(&alive, &note, at(102)).await.unwrap();
    ledger.beat(&alive, at(102)).await.unwrap();
    let ending = end(Status::Completed, &done);
    finish(&ledger, &alive, &place(&low, "req-2"), &ending, 103)
        .await
        .unwrap();
    assert!(!is_fenced(&ledger.beat(&alive, at(104)).await));
}

#[tokio::test]
async fn a_retry_of_ones_own_run_fences_the_attempt_before() {
    let (ledger, _) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let first = claim(&ledger, &asks, 10).await;
    let second = claim(&ledger, &asks, 100).await;
    assert!(is_fenced(
        &ledger.checkpoint(&first, memory(1), at(101)).await
    ));
    ledger
        .checkpoint(&second, memory(2), at(101))
        .await
        .unwrap();
    let done = applied();
    let ended = finish(&ledger, &first, &asks, &end(Status::Failed, &done), 102).await;
    assert!(is_fenced(&ended));
    let record = ledger.facts(&asks).await.unwrap().record.unwrap();
    assert_eq!(
        (record.status, record.progress),
        (Status::InProgress, Some(memory(2)))
    );
}

#[tokio::test]
async fn many_notes_are_written_in_as_many_transactions_as_it_takes() {
    let (ledger, table) = ledger();
    let event = event("High", State::Alarm, 0);
    let permit = claim(&ledger, &place(&event, "req-1"), 10).await;
    table.calls();
    ledger.note(&permit, &saved(250), at(11)).await.unwrap();
    assert_eq!(table.calls().len(), 3);
    let keys: Vec<String> = saved(251).into_iter().map(|(key, _)| key).collect();
    let read = ledger.notes::<u32>(&permit, &keys).await.unwrap();
    assert_eq!(read.len(), 250);
    assert!(saved(250).iter().all(|(key, nth)| read[key] == *nth));
    let ours = note_key("dlq-replay", "note-000");
    assert!(table.items().contains_key(&ours));
}
