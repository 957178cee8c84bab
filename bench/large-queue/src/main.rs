//! Plays the replay of a large queue, and prints what it came to.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use large_queue::{Play, PlayError, Played, play};
use thiserror::Error;

/// Replays a large dead-letter queue to a slow consumer, in simulated time.
#[derive(Debug, Parser)]
struct Args {
    /// Messages in the dead-letter queue
    #[arg(long, default_value_t = 1_000_000)]
    messages: u32,
    /// Messages a second that the consumer takes
    #[arg(long, default_value_t = 100.0)]
    consumer: f64,
    /// By how many messages the backlog may grow
    #[arg(long, default_value_t = 10_000)]
    max_backlog: u32,
    /// Where to draw both queues over time, as SVG
    #[arg(long)]
    figure: Option<PathBuf>,
}

#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Play(#[from] PlayError),
    #[error("writing {path}")]
    Figure {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "of {messages} messages {once} arrived once, {lost} were lost and {repeated} came twice"
    )]
    NotEachOnce {
        messages: u32,
        once: u64,
        lost: u64,
        repeated: u64,
    },
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let played = play(Play {
        messages: args.messages,
        consumed_per_second: args.consumer,
        max_backlog: args.max_backlog,
    })?;
    for told in &played.told {
        println!("{told}");
    }
    if let Some(path) = args.figure {
        fs::write(&path, figure(&played, args.messages))
            .map_err(|source| Failure::Figure { path, source })?;
    }
    let seconds = played.samples.last().map_or(0.0, |last| last.seconds);
    println!(
        "large queue: {} messages, {} rounds, {seconds:.0} s simulated, {} once, {} lost, {} twice, backlog at most {}",
        args.messages,
        played.rounds,
        played.once,
        played.lost,
        played.repeated,
        played.peak_backlog
    );
    let (once, lost, repeated) = (played.once, played.lost, played.repeated);
    if once != u64::from(args.messages) || lost + repeated > 0 {
        return Err(Failure::NotEachOnce {
            messages: args.messages,
            once,
            lost,
            repeated,
        });
    }
    Ok(())
}

/// Both queues over time: what is left to replay, and the destination's backlog, each to its own scale.
fn figure(played: &Played, messages: u32) -> String {
    const WIDTH: f64 = 640.0;
    const HEIGHT: f64 = 240.0;
    const LEFT: f64 = 60.0;
    let end = played.samples.last().map_or(1.0, |last| last.seconds);
    let line = |most: f64, value: fn(&large_queue::Sample) -> u64| {
        let mut points = String::new();
        for sample in &played.samples {
            #[allow(clippy::cast_precision_loss)] // Message counts are far below 2^52.
            let value = value(sample) as f64;
            let x = LEFT + sample.seconds / end * WIDTH;
            let y = 20.0 + (1.0 - value / most.max(1.0)) * HEIGHT;
            // Writing to a string cannot fail.
            let _ = write!(points, "{x:.1},{y:.1} ");
        }
        points
    };
    #[allow(clippy::cast_precision_loss)]
    let most = played.peak_backlog as f64;
    let left = line(f64::from(messages), |sample| sample.left);
    let backlog = line(most, |sample| sample.backlog);
    let peak = played.peak_backlog;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 310" font-family="sans-serif" font-size="12">
<rect width="720" height="310" fill="white"/>
<polyline points="{left}" fill="none" stroke="#1f5fa8" stroke-width="2"/>
<polyline points="{backlog}" fill="none" stroke="#c2571a" stroke-width="2"/>
<line x1="60" y1="260" x2="700" y2="260" stroke="black"/>
<text x="60" y="14" fill="#1f5fa8">left in the dead-letter queue, from {messages}</text>
<text x="360" y="14" fill="#c2571a">destination's backlog, at most {peak}</text>
<text x="60" y="278">0 s</text>
<text x="700" y="278" text-anchor="end">{end:.0} s simulated</text>
</svg>
"##
    )
}
