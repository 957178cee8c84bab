//! FIFO queues: the order within each group holds whatever happens, and no second copy is delivered.

use end_to_end::Result;
use end_to_end::case::{Case, assert_in_order, told};
use end_to_end::message::{Seed, ten_attributes};
use end_to_end::proxy::{EntryFailure, Fault, Reply, Rule};
use end_to_end::world::{Kind, World, scenario};
use serde_json::json;

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
const GROUPS: usize = 4;

fn seeds(count: usize) -> Vec<Seed> {
    (0..count)
        .map(|n| Seed::new(format!("{n:03}")).in_group(&format!("group-{}", n % GROUPS)))
        .collect()
}

async fn replayed_in_order(world: &World, rules: Vec<Rule>) -> Result {
    let case = Case::new(world, Kind::Fifo, RUN_ONCE).await?;
    let seeds = seeds(36);
    world.dead_letter(&case.ingestion, &seeds).await?;
    let proxy = case.proxy().await?;
    for rule in rules {
        proxy.inject(rule);
    }
    let report = case.run(&proxy).finish().await?.report()?;
    assert_eq!(report["outcome"], "Applied", "{report}");
    assert_eq!(
        told(&report)?.possible_duplicates,
        0,
        "the destination suppresses second copies"
    );
    let found = case.found().await?;
    found.replayed(&seeds).balanced()?;
    assert_in_order(&found.replayed)
}

#[tokio::test]
async fn each_group_keeps_its_order() -> Result {
    scenario("fifo", async |world| {
        replayed_in_order(world, Vec::new()).await
    })
    .await
}

#[tokio::test]
async fn a_group_stops_at_a_message_that_cannot_be_sent_and_goes_on_later() -> Result {
    scenario("fifo-stop", async |world| {
        // The service fails one message of group-1, after the canary, for as long as the first run lasts.
        let refused = EntryFailure::service(|_, entry| entry["MessageBody"] == "021");
        let rule = Rule::new("sqs:SendMessageBatch", Fault::FailEntries(refused));
        let case = Case::new(world, Kind::Fifo, RUN_ONCE).await?;
        let seeds = seeds(36);
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        proxy.inject(rule);
        let report = case.run(&proxy).finish().await?.report()?;
        assert_eq!(
            (&report["outcome"], &report["retryable"]),
            (&json!("Failed"), &json!(true))
        );
        let told_first = told(&report)?;
        assert_eq!(told_first.replayed(), 32, "{report}");
        assert_eq!(told_first.returned.get("undelivered"), Some(&1), "{report}");

        proxy.heal();
        let report = case.run(&proxy).finish().await?.report()?;
        assert_eq!(report["outcome"], "Applied", "{report}");
        let found = case.found().await?;
        found.replayed(&seeds).balanced()?;
        assert_in_order(&found.replayed)
    })
    .await
}

#[tokio::test]
async fn lost_answers_neither_reorder_nor_double() -> Result {
    scenario("fifo-lost", async |world| {
        let rules = vec![
            Rule::new("sqs:SendMessageBatch", Fault::LoseAnswer).nth(1),
            Rule::new("sqs:SendMessageBatch", Fault::LoseAnswer).nth(4),
            Rule::new("sqs:DeleteMessageBatch", Fault::LoseAnswer).nth(2),
            Rule::new(
                "sqs:SendMessageBatch",
                Fault::ReplyAfterEffect(Reply::InternalError),
            )
            .nth(6),
        ];
        replayed_in_order(world, rules).await
    })
    .await
}

#[tokio::test]
async fn throttling_and_resets_neither_reorder_nor_double() -> Result {
    scenario("fifo-throttled", async |world| {
        let odd = EntryFailure::throttled(|index, _| index % 2 == 1);
        let rules = vec![
            Rule::new("sqs:SendMessageBatch", Fault::FailEntries(odd)).nth(1),
            Rule::new("sqs:SendMessageBatch", Fault::Reply(Reply::Throttled)).nth(3),
            Rule::new("sqs:SendMessageBatch", Fault::Reset).nth(5),
            Rule::new("sqs:ReceiveMessage", Fault::Reply(Reply::Throttled)).nth(2),
            Rule::new("sqs:DeleteMessageBatch", Fault::Reply(Reply::InternalError)).nth(2),
        ];
        replayed_in_order(world, rules).await
    })
    .await
}

#[tokio::test]
async fn a_retry_within_the_window_doubles_nothing_even_when_nothing_was_removed() -> Result {
    scenario("fifo-retry", async |world| {
        let case = Case::new(world, Kind::Fifo, RUN_ONCE).await?;
        let seeds = seeds(36);
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        // Sends take effect and removals do not; what stays blocks its group for as long as it is hidden.
        proxy.inject(Rule::new(
            "sqs:DeleteMessageBatch",
            Fault::Reply(Reply::InternalError),
        ));
        let report = case
            .run(&proxy)
            .request_id("the same")
            .finish()
            .await?
            .report()?;
        assert_ne!(
            report["outcome"], "Applied",
            "most messages are still in the dead-letter queue: {report}"
        );

        proxy.heal();
        world.give_back(&proxy).await?;
        let report = case
            .run(&proxy)
            .request_id("the same")
            .finish()
            .await?
            .report()?;
        assert_eq!(report["outcome"], "Applied", "{report}");
        let found = case.found().await?;
        found.replayed(&seeds).balanced()?;
        assert_in_order(&found.replayed)
    })
    .await
}

#[tokio::test]
async fn poison_goes_to_a_fifo_quarantine_in_its_group() -> Result {
    scenario("fifo-poison", async |world| {
        let mut case = Case::new(world, Kind::Fifo, RUN_ONCE).await?;
        case.set("body_schema", json!({"type": "number"})).await?;
        let good: Vec<Seed> = (0..10)
            .map(|n| Seed::new(format!("{n}")).in_group("a"))
            .collect();
        let poison: Vec<Seed> = (0..10)
            .map(|n| {
                Seed::new(format!("poison {n}"))
                    .in_group("b")
                    .with_attributes(ten_attributes())
            })
            .collect();
        let mixed: Vec<Seed> = good
            .iter()
            .zip(&poison)
            .flat_map(|(one, other)| [one.clone(), other.clone()])
            .collect();
        world.dead_letter(&case.ingestion, &mixed).await?;
        let proxy = case.proxy().await?;
        let report = case.run(&proxy).finish().await?.report()?;
        assert_eq!(report["outcome"], "Applied", "{report}");
        let found = case.found().await?;
        found.replayed(&good).balanced()?;
        found.quarantined(&poison).balanced()?;
        assert_in_order(&found.replayed)?;
        assert_in_order(&found.quarantined)?;
        for message in &found.quarantined {
            assert_eq!(message.attributes, ten_attributes());
        }
        Ok(())
    })
    .await
}
