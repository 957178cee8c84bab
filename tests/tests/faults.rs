//! Calls that fail, are throttled, cut, slow, or answered for nobody, one by one and for good: whatever happens to a
//! replay's calls, nothing is lost, and a message is there twice only where an answer was lost, and then is counted.

use std::time::Duration;

use end_to_end::case::{AFTER_A_DEATH, Case, told};
use end_to_end::failure::{During as _, each, ensure};
use end_to_end::message::{Seed, every_kind_of_attribute, ten_attributes};
use end_to_end::proxy::{EntryFailure, Fault, Proxy, Reply, Rule};
use end_to_end::world::{Kind, World, scenario};
use end_to_end::{Failure, Result};
use serde_json::{Value, json};

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
/// Cases under way at the same time; each is a process that mostly waits.
const AT_ONCE: usize = 8;

/// Every call that a replay makes.
const CALLS: [&str; 11] = [
    "ssm:GetParameter",
    "cloudwatch:DescribeAlarms",
    "dynamodb:BatchGetItem",
    "dynamodb:Query",
    "dynamodb:TransactWriteItems",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
    "sqs:SendMessageBatch",
    "sqs:DeleteMessageBatch",
    "sqs:ChangeMessageVisibilityBatch",
    "events:PutEvents",
];

/// Faults after which the client knows, or may think, that the call had no effect, and is right.
fn without_effect() -> Vec<(&'static str, Fault)> {
    vec![
        ("a 5xx", Fault::Reply(Reply::InternalError)),
        ("a throttle", Fault::Reply(Reply::Throttled)),
        ("a reset", Fault::Reset),
        (
            "a slow answer",
            Fault::DelayAnswer(Duration::from_millis(1_500)),
        ),
    ]
}

/// Faults that hide an effect from the client.
fn hidden_effect() -> Vec<(&'static str, Fault)> {
    vec![
        ("a lost answer", Fault::LoseAnswer),
        (
            "a 5xx after the effect",
            Fault::ReplyAfterEffect(Reply::InternalError),
        ),
    ]
}

struct Filled<'a> {
    case: Case<'a>,
    /// Messages that belong in the destination or the quarantine.
    moved: Vec<Seed>,
    /// Messages that the filter leaves.
    left: Vec<Seed>,
}

impl Filled<'_> {
    fn all(&self) -> Vec<Seed> {
        [&self.moved[..], &self.left[..]].concat()
    }
}

async fn filled(world: &World) -> Result<Filled<'_>> {
    let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
    case.set("body_schema", json!({"required": ["n"]})).await?;
    case.set(
        "filter",
        json!({"body": [{"pointer": "/go", "any_of": [true]}]}),
    )
    .await?;
    let moved: Vec<Seed> = (0..24)
        .map(|n| match n % 12 {
            5 => Seed::new(json!({"go": true, "poison": n}).to_string()),
            7 => {
                Seed::new(json!({"go": true, "n": n}).to_string()).with_attributes(ten_attributes())
            }
            _ => Seed::new(json!({"go": true, "n": n}).to_string())
                .with_attributes(every_kind_of_attribute()),
        })
        .collect();
    let left: Vec<Seed> = (0..3)
        .map(|n| Seed::new(json!({"go": false, "n": n}).to_string()))
        .collect();
    world
        .dead_letter(&case.ingestion, &[&moved[..], &left[..]].concat())
        .await?;
    Ok(Filled { case, moved, left })
}

/// Delivers the event as Lambda does: again while it fails, healed then of faults that are to pass, and the rounds that
/// the function asks for.
async fn delivered(filled: &Filled<'_>, proxy: &Proxy) -> Result<Value> {
    const DELIVERIES: usize = 6;
    let mut run = filled.case.run(proxy);
    let mut asked = 0;
    for _ in 0..DELIVERIES {
        let ended = run.clone().finish().await?;
        let continuations = filled.case.continuations(proxy);
        if let Some(payload) = continuations.get(asked) {
            asked += 1;
            run = run.on(payload);
        } else if ended.answer.is_ok() {
            return ended.report();
        } else {
            proxy.heal();
            filled.case.take_continuations(proxy);
        }
        filled.case.world.give_back(proxy).await?;
    }
    Err(Failure::new(format!(
        "not at its end after {DELIVERIES} deliveries"
    )))
}

/// Checks what a replay says against what is there.
async fn check(filled: &Filled<'_>, report: &Value, may_double: bool) -> Result {
    let queue = &filled.case.ingestion.dlq;
    let hidden = filled.case.world.depth(queue).await?.in_flight;
    ensure(hidden == 0, || {
        format!("{hidden} messages are left hidden behind {report}")
    })?;
    ensure(report["outcome"] == "Applied", || report.to_string())?;
    let found = filled.case.found().await?;
    let account = found.account(&filled.all());
    ensure(
        account.lost.is_empty() && account.foreign.is_empty(),
        || account.to_string(),
    )?;
    let told = told(report)?;
    let counted = usize::try_from(told.possible_duplicates)?;
    ensure(account.duplicates() <= counted, || {
        format!("{counted} counted, {account}")
    })?;
    ensure(may_double || account.duplicates() == 0, || {
        account.to_string()
    })?;
    Ok(())
}

async fn once(call: &'static str, nth: usize, fault: Fault, may_double: bool) -> Result<bool> {
    let mut struck = false;
    scenario("once", async |world| {
        let filled = filled(world).await?;
        let proxy = filled.case.proxy().await?;
        proxy.inject(Rule::new(call, fault).nth(nth));
        let report = delivered(&filled, &proxy).await?;
        struck = proxy.calls(call).iter().any(|entry| entry.faulted);
        check(&filled, &report, may_double).await
    })
    .await?;
    Ok(struck)
}

async fn each_call_once(faults: Vec<(&'static str, Fault)>, hidden: bool) -> Result {
    let faults = &faults;
    let cases = CALLS.iter().flat_map(|call| {
        faults
            .iter()
            .flat_map(move |(name, fault)| [1, 2].map(|nth| (*call, *name, fault, nth)))
    });
    each(cases, AT_ONCE, async |(call, name, fault, nth)| {
        // Only a second sending makes a second copy.
        let may_double = hidden && call == "sqs:SendMessageBatch";
        let ended = once(call, nth, fault.clone(), may_double).await;
        let struck = ended.during(&format!("{name} on {call} number {nth}"))?;
        // Some calls are made only once in a run.
        ensure(struck || nth > 1, || format!("{call} was never made"))
    })
    .await
}

#[tokio::test]
async fn each_call_fails_once_without_effect() -> Result {
    each_call_once(without_effect(), false).await
}

#[tokio::test]
async fn each_call_takes_effect_once_unseen() -> Result {
    each_call_once(hidden_effect(), true).await
}

/// A call that fails for as long as a run lasts: the run says so, and the next delivery finishes the work.
async fn for_good(call: &'static str, fault: Fault) -> Result {
    scenario("for-good", async |world| {
        let filled = filled(world).await?;
        let proxy = filled.case.proxy().await?;
        proxy.inject(Rule::new(call, fault.clone()));
        let ended = filled.case.run(&proxy).finish().await?;
        let told_failure = match &ended.answer {
            Err(_) => true,
            // The bus has no part in the work; and what cannot be given back comes back by itself.
            Ok(_) => matches!(
                call,
                "events:PutEvents" | "sqs:ChangeMessageVisibilityBatch"
            ),
        };
        ensure(told_failure, || {
            format!("nobody was told: {:?}", ended.answer)
        })?;
        proxy.heal();
        world.give_back(&proxy).await?;
        // Only a failure that time does not cure is not delivered again; an engineer then does so.
        let run = filled.case.run(&proxy).later_by(AFTER_A_DEATH);
        let report = run.finish().await?.report()?;
        check(&filled, &report, false).await
    })
    .await
}

#[tokio::test]
async fn each_call_fails_for_as_long_as_a_run_lasts() -> Result {
    let faults = [
        ("5xx", Fault::Reply(Reply::InternalError)),
        ("throttles", Fault::Reply(Reply::Throttled)),
        ("denials", Fault::Reply(Reply::Denied)),
        ("resets", Fault::Reset),
    ];
    let faults = &faults;
    let cases = CALLS.iter().flat_map(|call| {
        faults
            .iter()
            .map(move |(name, fault)| (*call, *name, fault))
    });
    each(cases, AT_ONCE, async |(call, name, fault)| {
        for_good(call, fault.clone())
            .await
            .during(&format!("{name} on every {call}"))
    })
    .await
}

async fn with_rules(rules: Vec<Rule>, may_double: bool) -> Result {
    scenario("rules", async |world| {
        let filled = filled(world).await?;
        let proxy = filled.case.proxy().await?;
        for rule in rules {
            proxy.inject(rule);
        }
        let report = filled.case.run(&proxy).finish().await?.report()?;
        check(&filled, &report, may_double).await
    })
    .await
}

#[tokio::test]
async fn entries_that_the_service_failed_are_sent_again_and_the_others_are_not() -> Result {
    with_rules(
        vec![
            Rule::new(
                "sqs:SendMessageBatch",
                Fault::FailEntries(EntryFailure::service(|index, _| index % 3 == 0)),
            )
            .nth(1),
            Rule::new(
                "sqs:SendMessageBatch",
                Fault::FailEntries(EntryFailure::throttled(|index, _| index % 2 == 0)),
            )
            .nth(3),
        ],
        false,
    )
    .await
}

#[tokio::test]
async fn entries_that_could_not_be_deleted_are_deleted_later_and_not_sent_again() -> Result {
    with_rules(
        vec![
            Rule::new(
                "sqs:DeleteMessageBatch",
                Fault::FailEntries(EntryFailure::service(|index, _| index % 3 == 0)),
            )
            .first(2),
        ],
        false,
    )
    .await
}

#[tokio::test]
async fn entries_that_are_refused_for_good_stay_in_the_dead_letter_queue() -> Result {
    scenario("refused", async |world| {
        let filled = filled(world).await?;
        let proxy = filled.case.proxy().await?;
        let mut refused = EntryFailure::sender(
            "InvalidMessageContents",
            "characters outside the allowed set",
        );
        refused = refused.only(|_, entry| {
            entry["MessageBody"]
                .as_str()
                .is_some_and(|body| body.contains(":14}"))
        });
        proxy.inject(Rule::new(
            "sqs:SendMessageBatch",
            Fault::FailEntries(refused),
        ));
        let ended = filled.case.run(&proxy).finish().await?;
        let report = ended.report()?;
        assert_eq!(report["outcome"], "Failed", "{report}");
        let told = told(&report)?;
        assert_eq!(told.returned.get("undelivered"), Some(&1), "{report}");
        assert_eq!(told.possible_duplicates, 0);
        let found = filled.case.found().await?;
        found.account(&filled.all()).balanced()?;
        assert_eq!(found.left.len(), 1 + filled.left.len());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_extra_copy_is_counted_when_answers_are_lost_again_and_again() -> Result {
    with_rules(
        vec![Rule::new("sqs:SendMessageBatch", Fault::LoseAnswer).first(3)],
        true,
    )
    .await
}

#[tokio::test]
async fn answers_slower_than_the_client_waits_are_lost_answers() -> Result {
    with_rules(
        vec![
            Rule::new(
                "sqs:SendMessageBatch",
                Fault::DelayAnswer(Duration::from_secs(12)),
            )
            .nth(2),
            Rule::new(
                "sqs:DeleteMessageBatch",
                Fault::DelayAnswer(Duration::from_secs(12)),
            )
            .nth(1),
        ],
        true,
    )
    .await
}

#[tokio::test]
async fn a_delivery_whose_record_is_lost_is_not_told_as_if_nothing_happened() -> Result {
    scenario("unwritten", async |world| {
        let filled = filled(world).await?;
        let proxy = filled.case.proxy().await?;
        // The claim goes through; what was done cannot be written down.
        proxy.inject(
            Rule::new(
                "dynamodb:TransactWriteItems",
                Fault::Reply(Reply::InternalError),
            )
            .from(2),
        );
        proxy.inject(Rule::new(
            "dynamodb:PutItem",
            Fault::Reply(Reply::InternalError),
        ));
        let ended = filled.case.run(&proxy).finish().await?;
        assert!(ended.answer.is_err(), "{}", ended.log);
        let report = ended.report()?;
        assert_eq!(
            (&report["outcome"], &report["retryable"]),
            (&json!("Failed"), &json!(true))
        );
        proxy.heal();
        // A worker whose heartbeats failed for too long may not even give back: its messages show again in time.
        filled.case.world.give_back(&proxy).await?;
        let report = filled
            .case
            .run(&proxy)
            .later_by(AFTER_A_DEATH)
            .finish()
            .await?
            .report()?;
        check(&filled, &report, false).await
    })
    .await
}
