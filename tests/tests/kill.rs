//! The process killed at every request that a replay makes, before its effect and after it, and the event delivered
//! again: nothing is lost, and what is there twice was in the dead process's hand and is counted.

use end_to_end::Result;
use end_to_end::case::{AFTER_A_DEATH, Case, Found, assert_in_order, told};
use end_to_end::failure::{During as _, all, ensure};
use end_to_end::message::{Seed, every_kind_of_attribute, ten_attributes};
use end_to_end::proxy::{Phase, Proxy};
use end_to_end::replay::{Killed, Run};
use end_to_end::world::{Kind, World, scenario};
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
/// Cases under way at the same time; each is a process that mostly waits.
const AT_ONCE: usize = 6;
const PHASES: [Phase; 2] = [Phase::BeforeEffect, Phase::AfterEffect];

/// Who delivers the event again.
#[derive(Debug, Clone, Copy)]
enum Again {
    /// Lambda, at once and under the same request id.
    Lambda,
    /// `EventBridge`, under another request id, when the dead run's claim is over.
    EventBridge,
}

fn seeds(kind: Kind) -> Vec<Seed> {
    let seed = |n: usize| match n % 12 {
        5 => Seed::new(format!("poison {n}")),
        7 => Seed::new(json!({"n": n}).to_string()).with_attributes(ten_attributes()),
        _ => Seed::new(json!({"n": n}).to_string()).with_attributes(every_kind_of_attribute()),
    };
    (0..24)
        .map(|n| match kind {
            Kind::Standard => seed(n),
            Kind::Fifo => seed(n).in_group(&format!("group-{}", n % 3)),
        })
        .collect()
}

async fn filled(world: &World, kind: Kind) -> Result<(Case<'_>, Vec<Seed>)> {
    let mut case = Case::new(world, kind, RUN_ONCE).await?;
    case.set("body_schema", json!({"type": "object"})).await?;
    let seeds = seeds(kind);
    world.dead_letter(&case.ingestion, &seeds).await?;
    Ok((case, seeds))
}

fn again(run: Run, who: Again) -> Run {
    match who {
        Again::Lambda => run,
        Again::EventBridge => run.request_id("another").later_by(AFTER_A_DEATH),
    }
}

/// How many messages were delivered and not removed when the process died.
async fn in_limbo(case: &Case<'_>, seeds: &[Seed]) -> Result<usize> {
    let mut there = 0;
    for queue in [
        &case.ingestion.source,
        &case.ingestion.quarantine,
        &case.ingestion.dlq,
    ] {
        there += case.world.depth(queue).await?.total();
    }
    Ok(there - seeds.len())
}

fn check(kind: Kind, seeds: &[Seed], limbo: usize, found: &Found, report: &Value) -> Result {
    let account = found.account(seeds);
    let counted = usize::try_from(told(report)?.possible_duplicates)?;
    let doubled = account.duplicates();
    ensure(
        account.lost.is_empty() && account.foreign.is_empty(),
        || account.to_string(),
    )?;
    ensure(found.left.is_empty(), || {
        format!("{} left in the dead-letter queue", found.left.len())
    })?;
    ensure(doubled <= limbo, || format!("{limbo} in limbo, {account}"))?;
    match kind {
        Kind::Standard => ensure(doubled <= counted, || {
            format!("{counted} counted, {account}")
        }),
        Kind::Fifo => {
            ensure(doubled == 0, || account.to_string())?;
            assert_in_order(&found.replayed)?;
            assert_in_order(&found.quarantined)
        }
    }
}

/// How many requests an undisturbed replay makes.
async fn requests(kind: Kind) -> Result<usize> {
    let mut requests = 0;
    scenario("whole", async |world| {
        let (case, seeds) = filled(world, kind).await?;
        let proxy = case.proxy().await?;
        let report = case.run(&proxy).finish().await?.report()?;
        assert_eq!(report["outcome"], "Applied", "{report}");
        check(kind, &seeds, 0, &case.found().await?, &report)?;
        requests = proxy.journal().len();
        Ok(())
    })
    .await?;
    Ok(requests)
}

/// Kills a run at its `number`th request and delivers the event again.
///
/// Returns what it was killed at, or nothing when it made fewer requests.
async fn kill(kind: Kind, number: usize, phase: Phase, who: Again) -> Result<Option<String>> {
    let mut killed_at = None;
    scenario("killed", async |world| {
        let (case, seeds) = filled(world, kind).await?;
        let proxy = case.proxy().await?;
        let run = case.run(&proxy);
        let Killed::At(call) = run.clone().killed_at(&proxy, number, phase).await? else {
            return Ok(());
        };
        killed_at = Some(call.action());
        let limbo = in_limbo(&case, &seeds).await?;
        world.give_back(&proxy).await?;
        let ended = again(run, who).finish().await?;
        let report = ended.report()?;
        ensure(report["outcome"] == "Applied", || {
            format!("{:?}", ended.answer)
        })?;
        check(kind, &seeds, limbo, &case.found().await?, &report)
    })
    .await?;
    Ok(killed_at)
}

async fn at_every_request(kind: Kind) -> Result {
    let whole = requests(kind).await?;
    let cases = (1..=whole).flat_map(|number| PHASES.map(|phase| (number, phase)));
    let results: Vec<_> = stream::iter(cases.enumerate())
        .map(|(index, (number, phase))| async move {
            // Both who deliver again see both phases of every other request.
            let who = if index / 2 % 2 == 0 {
                Again::Lambda
            } else {
                Again::EventBridge
            };
            let ended = kill(kind, number, phase, who).await;
            ended.during(&format!(
                "killed at request {number}, {phase:?}, then {who:?}"
            ))
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let killed: Vec<String> = all(results)?.into_iter().flatten().collect();
    for action in [
        "ssm:GetParameter",
        "dynamodb:BatchGetItem",
        "cloudwatch:DescribeAlarms",
        "dynamodb:TransactWriteItems",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
        "sqs:SendMessageBatch",
        "sqs:DeleteMessageBatch",
        "events:PutEvents",
    ] {
        assert!(
            killed.iter().any(|killed| killed == action),
            "never killed at {action}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_standard_replay_survives_death_at_every_request() -> Result {
    at_every_request(Kind::Standard).await
}

#[tokio::test]
async fn a_fifo_replay_survives_death_at_every_request() -> Result {
    at_every_request(Kind::Fifo).await
}

/// The retry dies as well, at every third of its requests; the one after it has to cope with both.
#[tokio::test]
async fn a_replay_survives_a_second_death() -> Result {
    async fn twice(number: usize) -> Result {
        scenario("twice", async |world| {
            let (case, seeds) = filled(world, Kind::Standard).await?;
            let proxy = case.proxy().await?;
            let run = case.run(&proxy);
            run.clone()
                .killed_at(&proxy, number, Phase::AfterEffect)
                .await?;
            world.give_back(&proxy).await?;
            let first: Proxy = case.proxy().await?;
            let second = run.clone().through(&first);
            let killed = second.killed_at(&first, number, Phase::AfterEffect).await?;
            if matches!(killed, Killed::Before(_)) {
                return Ok(());
            }
            let limbo = in_limbo(&case, &seeds).await?;
            world.give_back(&first).await?;
            let ended = run.through(&case.proxy().await?).finish().await?;
            let report = ended.report()?;
            ensure(report["outcome"] == "Applied", || {
                format!("{:?}", ended.answer)
            })?;
            check(Kind::Standard, &seeds, limbo, &case.found().await?, &report)
        })
        .await
    }
    let whole = requests(Kind::Standard).await?;
    let results: Vec<Result> = stream::iter((1..=whole).step_by(3))
        .map(async |number| {
            let ended = twice(number).await;
            ended.during(&format!("killed twice at request {number}"))
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    all(results).map(drop)
}

/// An invocation that Lambda ends at its deadline had its account written before.
#[tokio::test]
async fn a_run_out_of_time_carries_on_where_it_stopped() -> Result {
    scenario("deadline", async |world| {
        let mut case = Case::new(world, Kind::Standard, RUN_ONCE).await?;
        // Ten a second: fifty messages need five seconds, and a round of nine seconds leaves little for work.
        case.set("limits", json!({"messages_per_second": 10}))
            .await?;
        let seeds: Vec<Seed> = (0..50).map(|n| Seed::new(format!("{n}"))).collect();
        world.dead_letter(&case.ingestion, &seeds).await?;
        let proxy = case.proxy().await?;
        let run = case
            .run(&proxy)
            .time_left(std::time::Duration::from_secs(9));
        let ended = case.to_the_end(&proxy, run).await?;
        assert!(ended.len() > 1, "one round was enough");
        let mut before = 0;
        for (index, round) in ended.iter().enumerate() {
            let report = round.report()?;
            let last = index + 1 == ended.len();
            assert_eq!(
                report["outcome"],
                if last { "Applied" } else { "Pending" },
                "{report}"
            );
            let told = told(&report)?;
            assert!(told.replayed() >= before, "the account went back: {report}");
            before = told.replayed();
        }
        assert_eq!(before, 50);
        let found = case.found().await?;
        ensure(found.replayed(&seeds).balances(), || {
            found.replayed(&seeds).to_string()
        })
    })
    .await
}
