//! The process killed at every request that a replay makes, before its effect and after it, and the event delivered
//! again: nothing is lost, and what is there twice was in the dead process's hand and is counted.

use end_to_end::Result;
use std::collections::BTreeMap;

use chrono::TimeDelta;
use end_to_end::case::{AFTER_A_DEATH, Case, Found, assert_in_order, told};
use end_to_end::failure::{During as _, each, ensure};
use end_to_end::message::{Seed, every_kind_of_attribute, ten_attributes};
use end_to_end::proxy::Phase;
use end_to_end::replay::{Killed, Run};
use end_to_end::world::{Kind, World, scenario};
use serde_json::{Value, json};

const RUN_ONCE: &str = env!("CARGO_BIN_EXE_run-once");
/// Cases under way at the same time; each is a process that mostly waits.
const AT_ONCE: usize = 6;
/// How long Lambda waits before its first retry; before its second it waits twice as long.
const LAMBDA_WAITS: TimeDelta = TimeDelta::minutes(1);
/// What a replay asks AWS.
const EXPECTED: [&str; 10] = [
    "ssm:GetParameter",
    "dynamodb:BatchGetItem",
    "dynamodb:Query",
    "cloudwatch:DescribeAlarms",
    "dynamodb:TransactWriteItems",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
    "sqs:SendMessageBatch",
    "sqs:DeleteMessageBatch",
    "events:PutEvents",
];

/// Who delivers the event again.
#[derive(Debug, Clone, Copy)]
enum Again {
    /// Lambda, under the same request id and after the minute that it waits.
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
        Again::Lambda => run.later_by(LAMBDA_WAITS),
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

/// What an undisturbed replay asks AWS, and how often.
async fn requests(kind: Kind) -> Result<BTreeMap<String, usize>> {
    let mut requests = BTreeMap::new();
    scenario("whole", async |world| {
        let (case, seeds) = filled(world, kind).await?;
        let proxy = case.proxy().await?;
        let report = case.run(&proxy).finish().await?.report()?;
        assert_eq!(report["outcome"], "Applied", "{report}");
        check(kind, &seeds, 0, &case.found().await?, &report)?;
        for entry in proxy.journal() {
            *requests.entry(entry.call.action()).or_default() += 1;
        }
        Ok(())
    })
    .await?;
    Ok(requests)
}

/// Kills a run at a request and delivers the event again; whether it came so far.
async fn kill(kind: Kind, action: &str, nth: usize, phase: Phase, who: Again) -> Result<bool> {
    let mut killed = false;
    scenario("killed", async |world| {
        let (case, seeds) = filled(world, kind).await?;
        let proxy = case.proxy().await?;
        let run = case.run(&proxy);
        let ended = run.clone().killed_at(&proxy, action, nth, phase).await?;
        killed = matches!(ended, Killed::At(_));
        if !killed {
            return Ok(());
        }
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
    Ok(killed)
}

async fn at_every_request(kind: Kind) -> Result {
    let requests = requests(kind).await?;
    for action in EXPECTED {
        ensure(requests.contains_key(action), || {
            format!("{action} is never asked: {requests:?}")
        })?;
    }
    let cases = requests.iter().flat_map(|(action, count)| {
        (1..=*count).flat_map(move |nth| {
            phases(action)
                .iter()
                .map(move |phase| (action, nth, *phase))
        })
    });
    each(
        cases.enumerate(),
        AT_ONCE,
        async |(index, (action, nth, phase))| {
            let who = if index % 2 == 0 {
                Again::Lambda
            } else {
                Again::EventBridge
            };
            let ended = kill(kind, action, nth, phase, who).await;
            let killed = ended.during(&format!(
                "killed at {action} {nth}, {phase:?}, then {who:?}"
            ))?;
            // Runs differ by a few requests; the first of each kind always comes.
            ensure(killed || nth > 1, || format!("never killed at {action}"))
        },
    )
    .await
}

/// The phases of a request that leave different things behind.
fn phases(action: &str) -> &'static [Phase] {
    const READS: [&str; 5] = [
        "ssm:GetParameter",
        "dynamodb:BatchGetItem",
        "dynamodb:Query",
        "cloudwatch:DescribeAlarms",
        "sqs:GetQueueAttributes",
    ];
    if READS.contains(&action) {
        &[Phase::AfterEffect]
    } else {
        &[Phase::BeforeEffect, Phase::AfterEffect]
    }
}

#[tokio::test]
async fn a_standard_replay_survives_death_at_every_request() -> Result {
    at_every_request(Kind::Standard).await
}

#[tokio::test]
async fn a_fifo_replay_survives_death_at_every_request() -> Result {
    at_every_request(Kind::Fifo).await
}

/// The retry dies as well, at the same request; the attempt after it has to cope with both.
#[tokio::test]
async fn a_replay_survives_a_second_death() -> Result {
    async fn twice(action: &str, nth: usize, phase: Phase) -> Result {
        scenario("twice", async |world| {
            let (case, seeds) = filled(world, Kind::Standard).await?;
            let run = case.run(&case.proxy().await?);
            let mut limbo = 0;
            for death in 0..2 {
                let proxy = case.proxy().await?;
                let dying = run.clone().through(&proxy).later_by(LAMBDA_WAITS * death);
                let ended = dying.killed_at(&proxy, action, nth, phase).await?;
                if matches!(ended, Killed::Before(_)) {
                    return Ok(());
                }
                limbo = in_limbo(&case, &seeds).await?;
                world.give_back(&proxy).await?;
            }
            let run = run.later_by(LAMBDA_WAITS * 3);
            let ended = run.through(&case.proxy().await?).finish().await?;
            let report = ended.report()?;
            ensure(report["outcome"] == "Applied", || {
                format!("{:?}", ended.answer)
            })?;
            check(Kind::Standard, &seeds, limbo, &case.found().await?, &report)
        })
        .await
    }
    let actions = [
        "sqs:ReceiveMessage",
        "sqs:SendMessageBatch",
        "sqs:DeleteMessageBatch",
    ];
    let cases = actions.iter().flat_map(|action| {
        (1..=3).flat_map(move |nth| {
            phases(action)
                .iter()
                .map(move |phase| (action, nth, *phase))
        })
    });
    each(cases, AT_ONCE, async |(action, nth, phase)| {
        let ended = twice(action, nth, phase).await;
        ended.during(&format!("killed twice at {action} {nth}, {phase:?}"))
    })
    .await
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
        found.replayed(&seeds).balanced()
    })
    .await
}
