//! One event delivered more than once, one after the other and all at once: exactly one delivery acts.

use chrono::TimeDelta;
use end_to_end::Result;
use end_to_end::case::{Case, told};
use end_to_end::failure::{During as _, Failure};
use end_to_end::message::Seed;
use end_to_end::proxy::{Fault, Hold, Rule};
use end_to_end::world::{Kind, alarm_event, scenario};
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::clock::Clock;

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
const AT_ONCE: usize = 16;

fn acted(report: &Value) -> bool {
    report["outcome"] == "Applied" && report["duplicate"] == false
}

fn seeds() -> Vec<Seed> {
    (0..45).map(|n| Seed::new(format!("{n}"))).collect()
}

#[tokio::test]
async fn of_sixteen_deliveries_at_once_exactly_one_acts() -> Result {
    scenario("sixteen", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let seeds = seeds();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        // All have read that nobody has claimed yet before the first claim goes through.
        let hold = Hold::default();
        proxy.inject(
            Rule::new("dynamodb:TransactWriteItems", Fault::Hold(hold.clone())).first(AT_ONCE),
        );
        let runs = join_all((0..AT_ONCE).map(|_| case.run(&proxy).finish()));
        let letting_go = async {
            let arrived = hold.arrived(AT_ONCE).await;
            hold.release();
            arrived
        };
        let (ended, arrived) = tokio::join!(runs, letting_go);
        arrived?;
        let reports = ended
            .into_iter()
            .map(|ended| ended?.report())
            .collect::<Result<Vec<_>>>()?;
        let (winners, others): (Vec<_>, Vec<_>) = reports.iter().partition(|report| acted(report));
        assert_eq!(winners.len(), 1, "{reports:#?}");
        for report in others {
            let stood_back = report["outcome"] == "Pending" && report["check_again_at"].is_string();
            assert!(stood_back || report["duplicate"] == true, "{report}");
        }
        assert_eq!(told(winners[0])?.replayed(), 45);
        assert_eq!(world.told("claimed").await?, 1);
        let found = case.found().await?;
        found.replayed(&seeds).balanced()?;
        Ok(())
    })
    .await
}

/// Lambda's queue is eventually consistent, and can hand one request to two workers.
#[tokio::test]
async fn of_sixteen_deliveries_of_one_request_one_acts_and_the_others_ask_to_come_again() -> Result
{
    scenario("request", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let seeds = seeds();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        // The first has claimed and received, and waits to send, while the others come.
        let hold = Hold::default();
        proxy.inject(Rule::new("sqs:SendMessageBatch", Fault::Hold(hold.clone())).first(1));
        let run = case.run(&proxy).request_id("the same");
        let first = run.clone().finish();
        let others = async {
            hold.arrived(1).await?;
            let others = join_all((1..AT_ONCE).map(|_| run.clone().finish())).await;
            hold.release();
            Ok::<_, Failure>(others)
        };
        let (first, others) = tokio::join!(first, others);
        let first = first?.report()?;
        assert!(acted(&first), "{first}");
        for other in others? {
            let other = other?;
            assert!(other.answer.is_err(), "{:?}", other.answer);
            let report = other.report()?;
            assert_eq!(
                (&report["outcome"], &report["retryable"]),
                (&json!("Failed"), &json!(true)),
                "{report}"
            );
        }
        assert_eq!(world.told("claimed").await?, 1);

        let again = run
            .later_by(TimeDelta::minutes(1))
            .finish()
            .await?
            .report()?;
        assert_eq!(again["duplicate"], true, "{again}");
        let found = case.found().await?;
        found.replayed(&seeds).balanced()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn of_sixteen_deliveries_in_a_crowd_exactly_one_acts() -> Result {
    scenario("crowd", async |world| {
        let case = Case::new(world, Kind::Fifo, RUN_ONCE).await?;
        let seeds: Vec<Seed> = (0..30)
            .map(|n| Seed::new(format!("{n:02}")).in_group(&format!("{}", n % 3)))
            .collect();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        let ended = join_all((0..AT_ONCE).map(|_| case.run(&proxy).finish())).await;
        let reports = ended
            .into_iter()
            .map(|ended| ended?.report())
            .collect::<Result<Vec<_>>>()?;
        assert_eq!(
            reports.iter().filter(|report| acted(report)).count(),
            1,
            "{reports:#?}"
        );
        assert_eq!(world.told("claimed").await?, 1);
        let found = case.found().await?;
        found.replayed(&seeds).balanced()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_second_delivery_repeats_the_report_and_does_nothing() -> Result {
    scenario("second", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let seeds = seeds();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        let first = case.run(&proxy).finish().await?.report()?;
        assert!(acted(&first), "{first}");

        // Messages that came since are another alarm's business.
        let later = [Seed::new("later")];
        world.seed(&case.ingestion.dlq, &later).await?;
        for offset in [TimeDelta::zero(), TimeDelta::hours(2)] {
            let proxy = case.proxy().await?;
            let again = case.run(&proxy).later_by(offset).finish().await?.report()?;
            assert_eq!(again["duplicate"], true, "{again}");
            assert_eq!(again["causation_id"], first["causation_id"]);
            assert_eq!(again["evidence"], first["evidence"]);
            for action in [
                "sqs:ReceiveMessage",
                "sqs:SendMessage*",
                "sqs:DeleteMessage*",
            ] {
                assert!(proxy.calls(action).is_empty(), "{action}");
            }
        }
        assert_eq!(world.told("claimed").await?, 1);
        assert_eq!(world.told("duplicate").await?, 2);
        let found = case.found().await?;
        found.replayed(&seeds).balanced()?;
        assert_eq!(found.left.len(), 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn two_alarms_on_one_queue_do_not_both_act() -> Result {
    scenario("two-alarms", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let other = world.alarm("ErrorRateHigh").await?;
        case.policy["targets"][0]["alarms"] = json!([case.alarm.name, other.arn]);
        world.put_policy(&case.policy).await?;
        let seeds = seeds();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        // The first has claimed the queue, and has not yet received from it, when the second comes.
        let hold = Hold::default();
        proxy.inject(Rule::new("sqs:ReceiveMessage", Fault::Hold(hold.clone())));
        let event = alarm_event(&other, "OK", "ALARM", Clock::system().now());
        let first = case.run(&proxy).finish();
        let second = async {
            hold.arrived(1).await?;
            let ended = case.run(&proxy).on(&event).finish().await;
            hold.release();
            ended
        };
        let (first, second) = tokio::join!(first, second);
        let (first, second) = (first?.report()?, second?.report()?);
        assert!(acted(&first), "{first}");
        assert_eq!(
            (&second["outcome"], &second["rule"]),
            (&json!("Skipped"), &json!("lease_held"))
        );
        // The schedule comes back to it, should the alarm stay in ALARM.
        let waiting = world.waiting().await?;
        let alarms: Vec<&str> = waiting
            .iter()
            .map(|waits| waits.event.alarm_arn.as_str())
            .collect();
        assert_eq!(alarms, [other.arn]);
        let found = case.found().await?;
        found.replayed(&seeds).balanced()?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_that_lost_its_lease_changes_nothing_more() -> Result {
    scenario("fenced", async |world| {
        let case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        let seeds = seeds();
        world.dead_letter(&case.ingestion, &seeds).await?;
        // The first run is stopped before its first message, for longer than its claim lasts.
        let slow = case.proxy().await?;
        let hold = Hold::default();
        slow.inject(Rule::new("sqs:ReceiveMessage", Fault::Hold(hold.clone())));
        let first = case.run(&slow).finish();
        let second = async {
            hold.arrived(1).await?;
            let proxy = case.proxy().await?;
            let ended = case
                .run(&proxy)
                .later_by(end_to_end::case::AFTER_A_DEATH)
                .finish()
                .await;
            hold.release();
            ended
        };
        let (first, second) = tokio::join!(first, second);
        let second = second?.report()?;
        assert!(acted(&second), "{second}");
        let first = first?;
        let report = first.report()?;
        assert!(!acted(&report), "{report}");
        let stored = world.ledger().await?;
        let record = stored
            .iter()
            .find(|item| item["sk"] == "record")
            .during("the transition's record")?;
        assert_eq!(record["status"], "completed", "{record}");
        let found = case.found().await?;
        found.replayed(&seeds).balanced()?;
        Ok(())
    })
    .await
}
