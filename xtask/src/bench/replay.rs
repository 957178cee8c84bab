//! Replay: messages per second and CPU per message, of the function and of the scripts that people write.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Bench;
use super::emulator::Function;
use super::error::BenchError;
use super::json;
use super::median::median;
use super::stage::{self, Scene};
use crate::command::{self, output};

const THREADS: u32 = 16;
const MICROSECONDS: f64 = 1_000_000.0;

/// How much to replay.
pub(super) struct Amounts {
    /// Messages per replay.
    pub(super) messages: u32,
    /// Messages of the serial script.
    pub(super) serial_messages: u32,
    /// Replays by the function and by the threaded script.
    pub(super) runs: u32,
}

/// One contender's figures.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    /// Median messages per second.
    pub(super) msgs_per_s: f64,
    /// Median microseconds of CPU, user and system, per message.
    pub(super) cpu_us_per_msg: f64,
    /// Messages per replay.
    #[serde(skip)]
    pub(super) messages: u32,
    /// Each replay, in order.
    #[serde(skip)]
    pub(super) each: Vec<Sample>,
}

/// All contenders' figures.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Replay {
    /// The function of this suite.
    pub(super) ours: Figures,
    /// The script with sixteen threads.
    pub(super) boto3_threads: Figures,
    /// The script with one thread.
    pub(super) boto3_serial: Figures,
}

/// One replay.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sample {
    /// From start to end.
    seconds: f64,
    /// User and system, of the client's process.
    cpu_seconds: f64,
}

/// What the script prints.
#[derive(Deserialize)]
struct Printed {
    seconds: f64,
    cpu_seconds: f64,
}

/// Replays in turns, so that a slow spell of the machine hits both alike; the serial script once.
pub(super) async fn measure(bench: &Bench, amounts: &Amounts) -> Result<Replay, BenchError> {
    let play = &bench.contenders.dlq_replay.play;
    let (mut ours, mut threads) = (Vec::new(), Vec::new());
    for run in 1..=amounts.runs {
        bench.progress.say(format_args!(
            "replay {run} of {} ({} messages)",
            amounts.runs, amounts.messages
        ));
        let scene = play.scene_of(amounts.messages);
        ours.push(function(bench, &scene).await?);
        threads.push(script(bench, &scene, THREADS).await?);
    }
    bench.progress.say(format_args!(
        "serial replay ({} messages)",
        amounts.serial_messages
    ));
    let scene = play.scene_of(amounts.serial_messages);
    let serial = vec![script(bench, &scene, 1).await?];
    Ok(Replay {
        ours: figures(ours, amounts.messages),
        boto3_threads: figures(threads, amounts.messages),
        boto3_serial: figures(serial, amounts.serial_messages),
    })
}

fn figures(samples: Vec<Sample>, messages: u32) -> Figures {
    let each = |value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<_>>();
    Figures {
        msgs_per_s: f64::from(messages) / median(&each(|sample| sample.seconds)),
        cpu_us_per_msg: median(&each(|sample| sample.cpu_seconds)) * MICROSECONDS
            / f64::from(messages),
        messages,
        each: samples,
    }
}

/// A replay by the function: from the event to its answer, start of the process, guard and account included.
async fn function(bench: &Bench, scene: &Scene<'_>) -> Result<Sample, BenchError> {
    let (program, server) = (&bench.contenders.dlq_replay.program, &bench.server);
    server.seed(scene).await?;
    let environment = stage::environment(&server.endpoint());
    let mut function = Function::start(&bench.emulator, program, &environment).await?;
    let began = Instant::now();
    let answer = function.invoke(&scene.event()).await?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = function.cpu_seconds()?;
    stage::acted(&program.name, &answer)?;
    server.verify(&program.name, scene).await?;
    Ok(Sample {
        seconds,
        cpu_seconds,
    })
}

/// A replay by the script: the seconds are its own, without the start of the interpreter.
async fn script(bench: &Bench, scene: &Scene<'_>, threads: u32) -> Result<Sample, BenchError> {
    let server = &bench.server;
    server.seed(scene).await?;
    let endpoint = server.endpoint();
    let [interpreter, script] = &bench.contenders.script;
    let mut python = command::program(interpreter);
    python
        .arg(script)
        .args(["--threads", &threads.to_string()])
        .args(["--source", &scene.play.queue_url(&endpoint, "source")])
        .args([
            "--destination",
            &scene.play.queue_url(&endpoint, "default_destination"),
        ])
        .env_clear()
        .envs(stage::environment(&endpoint));
    let said = output(&mut python)
        .await
        .map_err(|source| BenchError::Task {
            doing: "replay with boto3",
            source: Box::new(source),
        })?;
    let printed: Printed = json::parse("what the script printed", &said)?;
    server
        .verify(&format!("replay_boto3.py --threads {threads}"), scene)
        .await?;
    Ok(Sample {
        seconds: printed.seconds,
        cpu_seconds: printed.cpu_seconds,
    })
}
