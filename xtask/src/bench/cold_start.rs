//! Cold start: from starting the emulator to the first answer, with the function's peak memory.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Bench;
use super::artifacts::Contender;
use super::emulator::{Function, Program};
use super::error::BenchError;
use super::median::median;
use super::stage::{self, Play};

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

/// All functions' figures.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ColdStart {
    /// The function that the Python handler compares with.
    #[serde(rename = "dlq-replay")]
    pub(super) dlq_replay: Figures,
    /// The other functions of this suite, by name.
    #[serde(flatten)]
    pub(super) others: BTreeMap<String, Figures>,
    /// The Python handler.
    pub(super) python: Figures,
    /// The empty Rust handler.
    pub(super) empty: Figures,
}

impl ColdStart {
    /// Each function's figures, by the name in the summary.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, &Figures)> {
        let others = self.others.iter();
        std::iter::once(("dlq-replay", &self.dlq_replay))
            .chain(others.map(|(name, figures)| (name.as_str(), figures)))
            .chain([("python", &self.python), ("empty", &self.empty)])
    }
}

/// A function that is started again and again.
struct Starter<'a> {
    program: &'a Program,
    play: &'a Play,
    /// What is expected of its answer.
    expected: Expected,
    ms: Vec<f64>,
    rss_mb: Vec<f64>,
}

/// What a start has to bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The mitigation, and an answer that says so.
    Report,
    /// The mitigation.
    Mitigation,
    /// Nothing.
    Nothing,
}

/// Starts each function `runs` times, in turns, so that a slow spell of the machine hits all alike.
pub(super) async fn measure(bench: &Bench, runs: u32) -> Result<ColdStart, BenchError> {
    let contenders = &bench.contenders;
    let play = &contenders.dlq_replay.play;
    let mut dlq_replay = Starter::ours(&contenders.dlq_replay);
    let mut others: Vec<_> = contenders.others.iter().map(Starter::ours).collect();
    let mut python = Starter::new(&contenders.python, play, Expected::Mitigation);
    let mut empty = Starter::new(&contenders.empty, play, Expected::Nothing);
    for run in 0..=runs {
        if run > 0 {
            bench
                .progress
                .say(format_args!("cold start {run} of {runs}"));
        }
        for starter in [&mut dlq_replay, &mut python, &mut empty]
            .into_iter()
            .chain(&mut others)
        {
            let (ms, rss_mb) = starter.start(bench).await?;
            // The first start of each reads its files from disk; it is not counted.
            if run > 0 {
                starter.ms.push(ms);
                starter.rss_mb.push(rss_mb);
            }
        }
    }
    Ok(ColdStart {
        dlq_replay: dlq_replay.figures(),
        others: others
            .into_iter()
            .map(|starter| (starter.program.name.clone(), starter.figures()))
            .collect(),
        python: python.figures(),
        empty: empty.figures(),
    })
}

impl<'a> Starter<'a> {
    fn ours(contender: &'a Contender) -> Self {
        Self::new(&contender.program, &contender.play, Expected::Report)
    }

    fn new(program: &'a Program, play: &'a Play, expected: Expected) -> Self {
        Self {
            program,
            play,
            expected,
            ms: Vec::new(),
            rss_mb: Vec::new(),
        }
    }

    /// Milliseconds to the first answer, and MB of memory at most, of one start.
    async fn start(&self, bench: &Bench) -> Result<(f64, f64), BenchError> {
        let (server, name, scene) = (&bench.server, &self.program.name, self.play.scene());
        server.seed(&scene).await?;
        let environment = stage::environment(&server.endpoint());
        let mut function = Function::start(&bench.emulator, self.program, &environment).await?;
        let answer = function.invoke(&scene.event()).await?;
        let ms = function.began.elapsed().as_secs_f64() * 1_000.0;
        let rss_mb = function.peak_memory_mb()?;
        if self.expected == Expected::Report {
            stage::acted(name, &answer)?;
        }
        if self.expected != Expected::Nothing {
            server.verify(name, &scene).await?;
        }
        Ok((ms, rss_mb))
    }

    fn figures(self) -> Figures {
        Figures {
            ms: median(&self.ms),
            rss_mb: median(&self.rss_mb),
            zip_mb: self.program.zip_mb,
            each_ms: self.ms,
        }
    }
}
