//! Claims, ends and refusals: what was decided is what is read again, and of several hands one is first.

use crate::alarm::State;
use crate::guard::next::{self, Refused};
use crate::guard::scene::{
    Claiming, RESOURCE, applied, at, claimed, end, event, lasting, memory, passing, place, skipped,
    snapshot,
};
use crate::ledger::difference::Commit;
use crate::ledger::items::{self, Facts, OpenBreaker, Place, Status};
use crate::ledger::tests::memory::{
    INCIDENT, claim, claim_on, entry, finish, ledger, refuse_on, withdraw,
};
use crate::ledger::timeline::Kind;
use crate::outcome::Rule;

#[tokio::test]
async fn what_a_claim_and_its_end_decide_is_what_is_read_again() {
    let (ledger, memory) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let empty = ledger.facts(&asks).await.unwrap();
    assert_eq!(empty, Facts::default());
    let kept = snapshot(&event, 10);
    let claiming = Claiming {
        snapshot: Some(&kept),
        ..Claiming::default()
    };
    let permit = claim_on(&ledger, &empty, &asks, &claiming, 10).await;
    let permit = permit.unwrap().unwrap();
    let decided = claimed(&empty, &asks, &claiming, 10);
    assert_eq!(ledger.facts(&asks).await.unwrap(), decided);
    assert_eq!((permit.token, permit.run_id.clone()), (1, asks.run_id()));
    assert_eq!(permit.facts(), decided);

    let done = applied();
    let ending = end(Status::Completed, &done);
    let untold = finish(&ledger, &permit, &asks, &ending, 30).await.unwrap();
    let mut over = next::finished(&decided, &event, &ending, at(30));
    over.record.as_mut().unwrap().sequence = 2;
    assert_eq!(ledger.facts(&asks).await.unwrap(), over);
    let due = ledger.due("dlq-replay").await.unwrap();
    assert_eq!(due.standing, [over.standing.unwrap()]);
    assert_eq!(due.untold.len(), 1);
    assert_eq!(due.untold[0].1.report, done);
    ledger.told(vec![untold.unwrap()], at(40)).await.unwrap();
    assert!(ledger.due("dlq-replay").await.unwrap().untold.is_empty());
    // What stands has no end; all else has.
    for (key, item) in memory.items() {
        let stays = key.pk.starts_with("due#") || key.pk == "open" || key.sk == "incident";
        let stays = stays || key.pk.starts_with("alarm#");
        assert_eq!(item.expires_at.is_none(), stays, "{key:?}");
    }
}

#[tokio::test]
async fn of_two_claims_on_the_same_facts_one_succeeds() {
    let (ledger, _) = ledger();
    let (high, low) = (
        event("High", State::Alarm, 0),
        event("Low", State::Alarm, 0),
    );
    let (first, second) = (place(&high, "req-1"), place(&low, "req-2"));
    let facts = ledger.facts(&second).await.unwrap();
    let claiming = Claiming::default();
    let one = claim_on(&ledger, &facts, &first, &claiming, 10)
        .await
        .unwrap();
    let other = claim_on(&ledger, &facts, &second, &claiming, 10)
        .await
        .unwrap();
    assert!(one.is_some() && other.is_none());
    let again = claim_on(&ledger, &facts, &first, &claiming, 11)
        .await
        .unwrap();
    assert!(again.is_none());
    let standing = ledger.look("dlq-replay", RESOURCE).await.unwrap();
    assert_eq!(standing.lease.unwrap().run_id, first.run_id());
}

#[tokio::test]
async fn what_was_renewed_since_it_was_read_is_not_claimed_for_its_restoration() {
    let (ledger, _) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let kept = snapshot(&event, 10);
    let claiming = Claiming {
        snapshot: Some(&kept),
        ..Claiming::default()
    };
    let empty = ledger.facts(&asks).await.unwrap();
    let permit = claim_on(&ledger, &empty, &asks, &claiming, 10).await;
    let done = applied();
    let permit = permit.unwrap().unwrap();
    finish(&ledger, &permit, &asks, &end(Status::Completed, &done), 20)
        .await
        .unwrap();
    let restores = Place {
        transition: items::restoration(&kept),
        ..place(&event, "req-2")
    };
    let read = ledger.facts(&restores).await.unwrap();
    // Another look keeps it for longer; nobody holds the target for that.
    let mut renewed = read.clone();
    let standing = renewed.standing.as_mut().unwrap();
    standing.version += 1;
    standing.snapshot.as_mut().unwrap().expires_at = Some(at(900));
    let commit = Commit {
        place: &restores,
        before: &read,
        after: &renewed,
        incident_id: INCIDENT,
        entries: &[],
        told: None,
        watch: None,
    };
    assert!(ledger.commit(&commit, at(30)).await.unwrap().is_some());
    let late = claim_on(&ledger, &read, &restores, &Claiming::default(), 31).await;
    assert!(late.unwrap().is_none());
    let again = claim_on(&ledger, &renewed, &restores, &Claiming::default(), 32).await;
    assert!(again.unwrap().is_some());
}

#[tokio::test]
async fn a_claim_that_is_given_back_leaves_the_target_to_the_next() {
    let (ledger, _) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    let permit = claim(&ledger, &asks, 10).await;
    withdraw(&ledger, &permit, &asks, &Facts::default(), 20)
        .await
        .unwrap();
    let facts = ledger.facts(&asks).await.unwrap();
    assert_eq!((facts.record, facts.standing), (None, None));
    assert_eq!(facts.lease.unwrap().held_until, at(20));
    let next = claim(&ledger, &asks, 30).await;
    assert_eq!(next.token, 2);
    let facts = ledger.facts(&asks).await.unwrap();
    assert_eq!(facts.record.unwrap().sequence, 1);
    let late = ledger.checkpoint(&permit, memory(9), at(31)).await;
    assert!(late.is_err());
}

#[tokio::test]
async fn a_claim_after_the_table_lost_the_lease_gets_a_token_above_the_heartbeats() {
    let (ledger, memory) = ledger();
    let (high, low) = (
        event("High", State::Alarm, 0),
        event("Low", State::Alarm, 0),
    );
    let dead = claim(&ledger, &place(&high, "req-1"), 10).await;
    memory.lose(&items::lease_key(RESOURCE));
    let next = claim(&ledger, &place(&low, "req-2"), 20).await;
    assert_eq!((dead.token, next.token), (1, 2));
    assert!(ledger.beat(&dead, at(21)).await.is_err());
    ledger.beat(&next, at(22)).await.unwrap();
}

fn breaker() -> OpenBreaker {
    OpenBreaker {
        until: at(500),
        reason: "it came back".into(),
    }
}

#[tokio::test]
async fn a_refusal_writes_neither_history_nor_what_stands_when_another_has_claimed_since() {
    let (ledger, memory) = ledger();
    let kept = event("High", State::Alarm, -900);
    let taken = snapshot(&kept, -890);
    let claiming = Claiming {
        snapshot: Some(&taken),
        ..Claiming::default()
    };
    let first = place(&kept, "req-0");
    let permit = claim_on(&ledger, &Facts::default(), &first, &claiming, -890).await;
    let done = applied();
    let ending = end(Status::Completed, &done);
    finish(&ledger, &permit.unwrap().unwrap(), &first, &ending, -880)
        .await
        .unwrap();

    let (high, low) = (
        event("High", State::Alarm, 0),
        event("Low", State::Alarm, 0),
    );
    let refused = place(&high, "req-1");
    let facts = ledger.facts(&refused).await.unwrap();
    // Its history and what stands are as the refusal saw them; only the lease is not.
    let claims = claim(&ledger, &place(&low, "req-2"), 10).await;
    let seen = ledger.facts(&refused).await.unwrap();
    let before = memory.items();
    let why = skipped(Rule::Breaker);
    let renews = Refused {
        renewed: Some(at(9_000)),
        ..passing(&why, Rule::Cooldown, 60)
    };
    let opens = Refused {
        breaker: Some(breaker()),
        ..passing(&why, Rule::Breaker, 500)
    };
    let stale = Facts {
        history: seen.history.clone(),
        standing: seen.standing.clone(),
        ..facts.clone()
    };
    for why in [&renews, &opens, &lasting(&why)] {
        let written = refuse_on(&ledger, &stale, &refused, why, 20).await;
        assert_eq!(written.unwrap(), None);
        assert_eq!(memory.items(), before);
    }
    // What the holder does not own is written all the same.
    let waits = passing(&why, Rule::Cooldown, 60);
    let written = refuse_on(&ledger, &stale, &refused, &waits, 20).await;
    assert_eq!(written.unwrap(), Some(None));
    assert!(ledger.facts(&refused).await.unwrap().waiting.is_some());
    let done = end(Status::Completed, &done);
    finish(&ledger, &claims, &place(&low, "req-2"), &done, 30)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_was_learned_is_not_kept_when_another_has_claimed_since() {
    let (ledger, _) = ledger();
    let facts = ledger.look("dlq-replay", RESOURCE).await.unwrap();
    let kept = ledger
        .remember("dlq-replay", RESOURCE, &facts, memory(1), at(0))
        .await;
    assert!(kept.unwrap());
    let facts = ledger.look("dlq-replay", RESOURCE).await.unwrap();
    assert_eq!(facts.history.memory, Some(memory(1)));
    let event = event("High", State::Alarm, 0);
    claim(&ledger, &place(&event, "req-1"), 10).await;
    let kept = ledger
        .remember("dlq-replay", RESOURCE, &facts, memory(2), at(20))
        .await;
    assert!(!kept.unwrap());
    let since = ledger.look("dlq-replay", RESOURCE).await.unwrap();
    let unchanged = Facts {
        lease: None,
        ..since.clone()
    };
    let kept = ledger
        .remember("dlq-replay", RESOURCE, &unchanged, memory(2), at(20))
        .await;
    assert!(!kept.unwrap());
    assert_eq!(since.history.memory, Some(memory(1)));
}

#[tokio::test]
async fn lines_of_two_targets_in_one_millisecond_both_stand() {
    let (ledger, memory) = ledger();
    let event = event("High", State::Alarm, 0);
    let why = skipped(Rule::NothingToDo);
    for resource in ["arn:aws:sqs:eu-west-1:123456789012:a", RESOURCE] {
        let asks = Place {
            resource,
            ..place(&event, "req-1")
        };
        let facts = ledger.facts(&asks).await.unwrap();
        let written = refuse_on(&ledger, &facts, &asks, &lasting(&why), 20).await;
        assert_eq!(written.unwrap(), Some(None));
    }
    let lines = memory.below(&format!("incident#{INCIDENT}"));
    let lines: Vec<_> = lines.iter().filter(|sk| sk.starts_with("at#")).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[tokio::test]
async fn a_runs_lines_of_one_millisecond_stand_in_their_order() {
    let (ledger, memory) = ledger();
    let event = event("High", State::Alarm, 0);
    let asks = place(&event, "req-1");
    for _ in 0..2 {
        let permit = claim(&ledger, &asks, 10).await;
        let before = permit.facts();
        let entries = ["one", "two"].map(|summary| entry(Kind::Account, summary));
        let commit = Commit {
            place: &asks,
            before: &before,
            after: &before,
            incident_id: INCIDENT,
            entries: &entries,
            told: None,
            watch: None,
        };
        ledger.amend(&permit, &commit, at(10)).await.unwrap();
        let failed = applied();
        let ending = end(Status::Failed, &failed);
        finish(&ledger, &permit, &asks, &ending, 10).await.unwrap();
    }
    let of_incident = memory
        .items()
        .into_iter()
        .filter(|(key, _)| key.pk == format!("incident#{INCIDENT}") && key.sk.starts_with("at#"));
    let told: Vec<_> = of_incident
        .map(|(_, item)| item.columns["summary"].clone())
        .collect();
    let once = ["claimed", "one", "two", "done"];
    assert_eq!(told, [once, once].concat());
}

#[tokio::test]
async fn a_refusal_that_changes_nothing_asks_nothing_of_the_table() {
    let (ledger, memory) = ledger();
    let event = event("High", State::Ok, 0);
    let asks = place(&event, "req-1");
    let facts = ledger.facts(&asks).await.unwrap();
    let commit = Commit {
        place: &asks,
        before: &facts,
        after: &facts,
        incident_id: INCIDENT,
        entries: &[],
        told: None,
        watch: None,
    };
    assert_eq!(ledger.commit(&commit, at(0)).await.unwrap(), Some(None));
    assert_eq!(memory.calls(), Vec::<String>::new());
}
