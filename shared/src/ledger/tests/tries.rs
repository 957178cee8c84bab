//! How often a transaction is tried, and what is told when it was in vain.

use tokio::time::Instant;

use crate::alarm::State;
use crate::guard::scene::{
    Claiming, RESOURCE, applied, at, end, event, lasting, memory, place, skipped,
};
use crate::ledger::LedgerError;
use crate::ledger::items::{Facts, Status};
use crate::ledger::tests::memory::{Answer, INCIDENT, claim, claim_on, finish, ledger, refuse_on};
use crate::outcome::Rule;

#[tokio::test(start_paused = true)]
async fn conflicts_at_every_try_are_contention_and_no_lost_lease() {
    let (ledger, table) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let always = || std::iter::repeat_n(Answer::Conflicted, 9);
    table.answers(always());
    let claimed = claim_on(&ledger, &Facts::default(), &asks, &Claiming::default(), 10).await;
    let Err(LedgerError::Contended { subject }) = claimed else {
        panic!("granted or overtaken")
    };
    assert_eq!(subject, RESOURCE);
    let calls = table.calls();
    assert_eq!(calls.len(), 9);
    assert!(calls.iter().all(|token| *token == calls[0]));

    let permit = claim(&ledger, &asks, 10).await;
    let contended = |answer: Result<(), LedgerError>| {
        let error = answer.unwrap_err();
        assert!(matches!(error, LedgerError::Contended { .. }), "{error}");
        assert!(error.is_transient());
    };
    table.answers(always());
    contended(ledger.checkpoint(&permit, memory(1), at(11)).await);
    table.answers(always());
    contended(ledger.beat(&permit, at(11)).await);
    table.answers(always());
    let note = [("a".to_owned(), 1)];
    contended(ledger.note(&permit, &note, at(11)).await);
    table.answers(always());
    let done = applied();
    let ending = end(Status::Completed, &done);
    contended(
        finish(&ledger, &permit, &asks, &ending, 12)
            .await
            .map(|_| ()),
    );
    // The lease is still held, and the next try ends the round.
    finish(&ledger, &permit, &asks, &ending, 13).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_meets_others_waits_between_the_tries_and_succeeds_at_last() {
    let (ledger, table) = ledger();
    let event = event("High", State::Alarm, 0);
    table.answers(std::iter::repeat_n(Answer::Conflicted, 8));
    let began = Instant::now();
    claim(&ledger, &place(&event, "req-1"), 10).await;
    assert_eq!(table.calls().len(), 9);
    let took = began.elapsed().as_secs_f64();
    assert!((6.0..=13.0).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn two_that_met_do_not_come_back_at_the_same_moment() {
    let mut took = Vec::new();
    for request in ["req-1", "req-2"] {
        let (ledger, table) = ledger();
        let event = event("High", State::Alarm, 0);
        table.answers([Answer::Conflicted]);
        let began = Instant::now();
        claim(&ledger, &place(&event, request), 10).await;
        took.push(began.elapsed());
    }
    assert_ne!(took[0], took[1]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_granted_and_made_once() {
    for answers in [
        vec![Answer::Throttled],
        vec![Answer::Lost],
        vec![
            Answer::Throttled,
            Answer::Lost,
            Answer::Lost,
            Answer::Conflicted,
        ],
    ] {
        let (ledger, table) = ledger();
        let event = event("High", State::Alarm, 0);
        let tries = answers.len() + 1;
        table.answers(answers);
        let permit = claim(&ledger, &place(&event, "req-1"), 10).await;
        assert_eq!((permit.token, table.made()), (1, 1));
        let calls = table.calls();
        assert_eq!(calls.len(), tries);
        assert!(calls.iter().all(|token| *token == calls[0]));
        let lines = table.below(&format!("incident#{INCIDENT}"));
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_save_whose_answer_was_lost_is_not_taken_for_a_lost_lease() {
    let (ledger, table) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let permit = claim(&ledger, &asks, 10).await;
    table.answers([Answer::Lost]);
    ledger.checkpoint(&permit, memory(1), at(11)).await.unwrap();
    table.answers([Answer::Lost]);
    ledger.checkpoint(&permit, memory(2), at(11)).await.unwrap();
    table.answers([Answer::Lost]);
    let done = applied();
    let ending = end(Status::Completed, &done);
    finish(&ledger, &permit, &asks, &ending, 12).await.unwrap();
    assert_eq!(table.made(), 4);
    let record = ledger.facts(&asks).await.unwrap().record.unwrap();
    assert_eq!(record.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn two_writes_of_one_moment_are_two() {
    let (ledger, table) = ledger();
    let event = event("High", State::Alarm, 0);
    let permit = claim(&ledger, &place(&event, "req-1"), 10).await;
    table.calls();
    ledger.checkpoint(&permit, memory(1), at(11)).await.unwrap();
    ledger.checkpoint(&permit, memory(1), at(11)).await.unwrap();
    ledger.beat(&permit, at(11)).await.unwrap();
    let calls = table.calls();
    assert!(calls[0] != calls[1] && calls[1] != calls[2], "{calls:?}");
    assert_eq!(table.made(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_another_try_cannot_mend_is_told_at_once() {
    let (ledger, table) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    table.answers([Answer::Denied]);
    let why = skipped(Rule::NothingToDo);
    let refused = refuse_on(&ledger, &Facts::default(), &asks, &lasting(&why), 10).await;
    let Err(LedgerError::Call(error)) = refused else {
        panic!("{refused:?}")
    };
    assert!(!error.is_transient());
    assert_eq!((table.calls().len(), table.made()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_stays_throttled_is_told_as_such() {
    let (ledger, table) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    table.answers(std::iter::repeat_n(Answer::Throttled, 9));
    let claimed = claim_on(&ledger, &Facts::default(), &asks, &Claiming::default(), 10).await;
    let Err(error @ LedgerError::Call(_)) = claimed else {
        panic!("granted or overtaken")
    };
    assert!(error.is_transient());
    assert_eq!((table.calls().len(), table.made()), (9, 0));
}
