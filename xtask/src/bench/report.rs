//! The numbers as tables, as ratios, and as `target/bench/summary.json`.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::cold_start::ColdStart;
use super::error::BenchError;
use super::replay::Replay;
use super::round_trips::Chain;

/// The most round trips, one after the other, from the start to the applied mitigation.
const ROUND_TRIPS: f64 = 5.0;

/// The file that holds the figures.
pub(super) const SUMMARY: &str = "summary.json";

/// All that was measured.
pub(super) struct Report {
    /// Cold starts.
    pub(super) cold_start: ColdStart,
    /// Replays.
    pub(super) replay: Replay,
    /// Round trips, of each function cold and warm.
    pub(super) round_trips: Vec<Chain>,
    /// The machine.
    pub(super) machine: String,
}

/// A figure with the bound that docs/performance.md promises.
struct Ratio {
    what: Cow<'static, str>,
    value: f64,
    bound: Bound,
    unit: &'static str,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Ratio {
    fn is_reached(&self) -> bool {
        match self.bound {
            Bound::AtLeast(least) => self.value >= least,
            Bound::AtMost(most) => self.value <= most,
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, bound) = match self.bound {
            Bound::AtLeast(bound) => ("at least", bound),
            Bound::AtMost(bound) => ("at most", bound),
        };
        write!(
            f,
            "{}: {:.2}{unit} ({word} {bound}{unit})",
            self.what,
            self.value,
            unit = self.unit
        )
    }
}

impl Report {
    fn ratios(&self) -> Vec<Ratio> {
        let Self {
            cold_start,
            replay,
            round_trips,
            ..
        } = self;
        let mut ratios = vec![
            Ratio {
                what: "cold start, Python over dlq-replay".into(),
                value: cold_start.python.ms / cold_start.dlq_replay.ms,
                bound: Bound::AtLeast(5.0),
                unit: " x",
            },
            Ratio {
                what: "cold start, dlq-replay over the empty handler".into(),
                value: cold_start.dlq_replay.ms / cold_start.empty.ms,
                bound: Bound::AtMost(1.75),
                unit: " x",
            },
            Ratio {
                what: "archive of dlq-replay".into(),
                value: cold_start.dlq_replay.zip_mb,
                bound: Bound::AtMost(5.0),
                unit: " MB",
            },
            Ratio {
                what: "CPU per message, 16 threads of boto3 over dlq-replay".into(),
                value: replay.boto3_threads.cpu_us_per_msg / replay.ours.cpu_us_per_msg,
                bound: Bound::AtLeast(6.0),
                unit: " x",
            },
            Ratio {
                what: "messages per second, dlq-replay over 16 threads of boto3".into(),
                value: replay.ours.msgs_per_s / replay.boto3_threads.msgs_per_s,
                bound: Bound::AtLeast(1.0),
                unit: " x",
            },
        ];
        ratios.extend(round_trip_ratios(round_trips));
        ratios
    }

    /// Fails when a promised ratio is not reached.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        let missed: Vec<_> = self
            .ratios()
            .iter()
            .filter(|ratio| !ratio.is_reached())
            .map(ToString::to_string)
            .collect();
        if missed.is_empty() {
            return Ok(());
        }
        Err(BenchError::NotReached(missed.join("; ")))
    }

    fn summary(&self) -> Value {
        json!({
            "cold_start": self.cold_start,
            "replay": self.replay,
            "round_trips": self
                .round_trips
                .iter()
                .filter(|chain| chain.is_cold())
                .map(|cold| (cold.function.clone(), cold.to_first_mutation.into()))
                .collect::<Map<_, _>>(),
        })
    }

    /// Writes `summary.json`, and `details.json` with what the summary leaves out.
    pub(super) fn write(&self, directory: &Path) -> Result<(), BenchError> {
        let details = json!({
            "machine": self.machine,
            "cold_start_each_ms": self
                .cold_start
                .each()
                .map(|(name, figures)| (name.to_owned(), json!(figures.each_ms)))
                .collect::<Map<_, _>>(),
            "replay_each": {
                "ours": self.replay.ours.each,
                "boto3_threads": self.replay.boto3_threads.each,
                "boto3_serial": self.replay.boto3_serial.each,
            },
            "round_trips": self.round_trips,
        });
        for (name, value) in [(SUMMARY, self.summary()), ("details.json", details)] {
            let path = directory.join(name);
            fs::write(&path, format!("{value:#}\n")).map_err(|source| BenchError::Write {
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cold_start, replay, ..
        } = self;
        writeln!(f, "\n{}\n", self.machine)?;
        writeln!(
            f,
            "{:<30}{:>10}{:>14}{:>12}{:>10}{:>10}",
            "cold start", "median ms", "min..max ms", "memory MB", "zip MB", "starts"
        )?;
        for (name, figures) in cold_start.each() {
            let name = match name {
                "python" => "python (boto3, awslambdaric)",
                "empty" => "empty Rust handler",
                function => function,
            };
            let range = figures
                .each_ms
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), ms| {
                    (least.min(*ms), most.max(*ms))
                });
            writeln!(
                f,
                "{name:<30}{:>10.1}{:>14}{:>12.1}{:>10.3}{:>10}",
                figures.ms,
                format!("{:.0}..{:.0}", range.0, range.1),
                figures.rss_mb,
                figures.zip_mb,
                figures.each_ms.len()
            )?;
        }
        writeln!(
            f,
            "\n{:<30}{:>10}{:>14}{:>12}{:>10}",
            "replay", "msgs/s", "CPU us/msg", "messages", "runs"
        )?;
        for (name, figures) in [
            ("dlq-replay", &replay.ours),
            ("boto3, 16 threads", &replay.boto3_threads),
            ("boto3, serial", &replay.boto3_serial),
        ] {
            writeln!(
                f,
                "{name:<30}{:>10.0}{:>14.1}{:>12}{:>10}",
                figures.msgs_per_s,
                figures.cpu_us_per_msg,
                figures.messages,
                figures.each.len()
            )?;
        }
        writeln!(
            f,
            "\n{:<30}{:>16}{:>16}{:>12}{:>10}",
            "sequential round trips", "to mitigation", "on the ledger", "to answer", "requests"
        )?;
        for chain in &self.round_trips {
            writeln!(
                f,
                "{:<30}{:>16}{:>16}{:>12}{:>10}",
                format!("{}, {}", chain.function, chain.path),
                chain.to_first_mutation,
                chain.on_ledger,
                chain.to_answer,
                chain.requests
            )?;
        }
        writeln!(f)?;
        for ratio in self.ratios() {
            let verdict = if ratio.is_reached() {
                "reached"
            } else {
                "NOT REACHED"
            };
            writeln!(f, "{ratio}: {verdict}")?;
        }
        Ok(())
    }
}

fn round_trip_ratios(chains: &[Chain]) -> impl Iterator<Item = Ratio> {
    let ledger = chains.iter().map(|chain| chain.on_ledger).max();
    let cold = chains.iter().filter(|chain| chain.is_cold());
    std::iter::once(Ratio {
        what: "sequential ledger round trips before the first mutating call".into(),
        value: ledger.map_or(f64::INFINITY, count),
        bound: Bound::AtMost(3.0),
        unit: "",
    })
    .chain(cold.map(|chain| Ratio {
        what: Cow::Owned(format!(
            "sequential round trips of {} from a cold start to the mitigation",
            chain.function
        )),
        value: count(chain.to_first_mutation),
        bound: Bound::AtMost(ROUND_TRIPS),
        unit: "",
    }))
}

/// A count as a figure; no count here comes near the end of `u32`.
fn count(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_held_to_its_round_trips_by_name() {
        let chain = |path, to_first_mutation| Chain {
            function: "f".to_owned(),
            path,
            to_first_mutation,
            on_ledger: 3,
            to_answer: 9,
            requests: 9,
            sequence: Vec::new(),
        };
        let missed = |chains: &[Chain]| {
            round_trip_ratios(chains)
                .filter(|ratio| !ratio.is_reached())
                .map(|ratio| ratio.to_string())
                .collect::<Vec<_>>()
        };
        assert!(missed(&[chain("cold", 5), chain("warm", 4)]).is_empty());
        assert_eq!(
            missed(&[chain("cold", 6), chain("warm", 5)]),
            ["sequential round trips of f from a cold start to the mitigation: 6.00 (at most 5)"]
        );
    }

    #[test]
    fn a_bound_holds_at_its_edge() {
        let ratio = |value, bound| Ratio {
            what: "r".into(),
            value,
            bound,
            unit: " x",
        };
        assert!(ratio(5.0, Bound::AtLeast(5.0)).is_reached());
        assert!(!ratio(4.9, Bound::AtLeast(5.0)).is_reached());
        assert!(ratio(2.0, Bound::AtMost(2.0)).is_reached());
        assert!(!ratio(2.1, Bound::AtMost(2.0)).is_reached());
        assert_eq!(
            ratio(4.9, Bound::AtLeast(5.0)).to_string(),
            "r: 4.90 x (at least 5 x)"
        );
    }
}
