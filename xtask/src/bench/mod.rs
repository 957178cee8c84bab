//! The bench: cold start, replay throughput and AWS round trips of the suite, side by side with what they compare with.
//!
//! Every number comes from one run on one machine against one in-memory load server, under the
//! Runtime Interface Emulator that AWS ships. Each run is checked to have applied its
//! mitigation, and each replay to have lost and repeated nothing; a bench that measured anything else fails.

mod artifacts;
mod cold_start;
mod emulator;
mod error;
mod http;
mod json;
mod load;
mod machine;
mod median;
mod process;
mod replay;
mod report;
mod round_trips;
mod stage;

use std::fs;
use std::path::PathBuf;

use clap::Args as ClapArgs;

pub use self::error::BenchError;
use crate::functions;
use crate::interrupt::interruptible;
use crate::progress::Progress;
use crate::tools::Tools;
use crate::workspace::target;

/// What to measure, and how often.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// Messages that a replay moves.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    messages: u32,
    /// Messages that the serial script moves; its figures are per message.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    serial_messages: u32,
    /// Cold starts of each function.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    cold_runs: u32,
    /// Replays by the function and by the threaded script.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    replay_runs: u32,
    /// How long each AWS answer is held back while round trips are counted, in milliseconds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    latency_ms: u32,
    /// Fail when a ratio that docs/performance.md promises is not reached.
    #[arg(long)]
    check: bool,
    /// Measure what was built before.
    #[arg(long)]
    no_build: bool,
}

/// Measures, prints the tables and writes `target/bench/summary.json`.
pub async fn run(args: Args) -> Result<(), BenchError> {
    // Interrupted, the measurement is dropped, and with it every process that it started.
    interruptible(async { Ok(measure(&args).await) })
        .await
        .map_err(|source| BenchError::Task {
            doing: "run the bench to its end",
            source: Box::new(source),
        })?
}

async fn measure(args: &Args) -> Result<(), BenchError> {
    let progress = Progress::new("bench");
    let directory = target().join("bench");
    fs::create_dir_all(&directory).map_err(|source| BenchError::Write {
        path: directory.clone(),
        source,
    })?;
    let tools = Tools::ensure(progress)
        .await
        .map_err(|source| BenchError::Task {
            doing: "install the tools",
            source: Box::new(source),
        })?;
    for name in functions::names().map_err(|source| BenchError::Task {
        doing: "find the functions",
        source: Box::new(source),
    })? {
        if !stage::Play::names()?.contains(&name) {
            progress.say(format_args!(
                "{name} has no scene in bench/scenes and is not measured"
            ));
        }
    }
    if !args.no_build {
        artifacts::build(&tools, progress).await?;
    }
    let bench = Bench {
        progress,
        emulator: artifacts::emulator(&tools)?,
        contenders: artifacts::Contenders::unpack(&directory, &tools).await?,
        server: load::LoadServer::start(&artifacts::load_server()?).await?,
    };
    let report = report::Report {
        cold_start: cold_start::measure(&bench, args.cold_runs).await?,
        round_trips: round_trips::measure(&bench, args.latency_ms).await?,
        replay: replay::measure(
            &bench,
            &replay::Amounts {
                messages: args.messages,
                serial_messages: args.serial_messages,
                runs: args.replay_runs,
            },
        )
        .await?,
        machine: machine::describe(),
    };
    print!("{report}");
    report.write(&directory)?;
    progress.say(format_args!(
        "wrote {}",
        directory.join(report::SUMMARY).display()
    ));
    if args.check {
        report.check()?;
    }
    Ok(())
}

/// All that a measurement needs.
struct Bench {
    progress: Progress,
    /// The Runtime Interface Emulator.
    emulator: PathBuf,
    contenders: artifacts::Contenders,
    server: load::LoadServer,
}
