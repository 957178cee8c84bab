//! Cold start: from starting the emulator to the first answer, with the function's peak memory.

use serde::Serialize;

use super::Bench;
use super::emulator::{Function, Program};
use super::error::BenchError;
use super::report::median;
use super::stage::{self, Scene};

/// What the dead-letter queue holds in each start: one batch.
const MESSAGES: u32 = 10;

/// One function's figures.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    /// Median milliseconds from start to answer.
    pub(super) ms: f64,
    /// Median peak memory of the function's process, in MB.
    pub(super) rss_mb: f64,
    /// Size of the archive, in MB.
    pub(super) zip_mb: f64,
    /// Milliseconds of each start, in order.
    #[serde(skip)]
    pub(super) each_ms: Vec<f64>,
}

/// The three functions' figures.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ColdStart {
    /// The function of this suite.
    #[serde(rename = "dlq-replay")]
    pub(super) dlq_replay: Figures,
    /// The Python handler.
    pub(super) python: Figures,
    /// The empty Rust handler.
    pub(super) empty: Figures,
}

#[derive(Default)]
struct Samples {
    ms: Vec<f64>,
    rss_mb: Vec<f64>,
}

/// Starts each function `runs` times, in turns, so that a slow spell of the machine hits all alike.
pub(super) async fn measure(bench: &Bench, runs: u32) -> Result<ColdStart, BenchError> {
    let contenders = &bench.contenders;
    let programs = [
        &contenders.dlq_replay,
        &contenders.python,
        &contenders.empty,
    ];
    // The first start of each reads its files from disk; it is not counted.
    for program in programs {
        start(bench, program).await?;
    }
    let mut samples = [const { None::<Samples> }; 3].map(Option::unwrap_or_default);
    for run in 1..=runs {
        bench
            .progress
            .say(format_args!("cold start {run} of {runs}"));
        for (program, samples) in programs.into_iter().zip(&mut samples) {
            let (ms, rss_mb) = start(bench, program).await?;
            samples.ms.push(ms);
            samples.rss_mb.push(rss_mb);
        }
    }
    let [dlq_replay, python, empty] = samples;
    let figures = |program: &Program, samples: Samples| Figures {
        ms: median(&samples.ms),
        rss_mb: median(&samples.rss_mb),
        zip_mb: program.zip_mb,
        each_ms: samples.ms,
    };
    Ok(ColdStart {
        dlq_replay: figures(&contenders.dlq_replay, dlq_replay),
        python: figures(&contenders.python, python),
        empty: figures(&contenders.empty, empty),
    })
}

/// Milliseconds to the first answer, and MB of memory at most, of one start.
async fn start(bench: &Bench, program: &Program) -> Result<(f64, f64), BenchError> {
    let scene = Scene::with(MESSAGES);
    bench.server.seed(&scene).await?;
    let environment = stage::environment(&bench.server.endpoint());
    let mut function = Function::start(&bench.emulator, program, &environment).await?;
    function.invoke(&scene.event()).await?;
    let ms = function.began.elapsed().as_secs_f64() * 1_000.0;
    let rss_mb = function.peak_memory_mb()?;
    if program.name != bench.contenders.empty.name {
        bench.server.verify(program.name).await?;
    }
    Ok((ms, rss_mb))
}
