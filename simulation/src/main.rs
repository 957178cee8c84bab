//! Plays worlds until one violates an invariant, or all are played.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use simulation::driver::{Ended, Play, play};
use simulation::error::Error;
use simulation::shrink::shrink;
use simulation::world::Visits;
use simulation::{mutants, storm};

/// Failing seeds that are told.
const TOLD: usize = 5;

/// Plays the kernel in simulated worlds
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    instead: Option<Instead>,
    /// How many seeds to play
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Play this seed alone, and print what happened
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: print all of it, without shortening
    #[arg(long)]
    steps: bool,
    /// Stop at the first seed that fails
    #[arg(long)]
    first: bool,
    /// Each count that has to be reached
    #[arg(long, default_value_t = 0)]
    least: u64,
}

/// What else there is to play.
#[derive(Debug, clap::Subcommand)]
enum Instead {
    /// Many targets and many alarms at once
    Storm,
    /// Take one fix after the other out of a copy of the kernel, and see that a seed notices
    Mutants {
        /// Only those with this in their name
        #[arg(long)]
        only: Option<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = match (&arguments.instead, arguments.seed) {
        (Some(Instead::Storm), _) => storms(),
        (Some(Instead::Mutants { only }), _) => mutants::run(only.as_deref()),
        (None, Some(seed)) => one(seed, arguments.steps),
        (None, None) => many(&arguments),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plays storms and prints what they came to.
fn storms() -> Result<(), Error> {
    let alarm = storm::one_alarm(1_000)?;
    println!("{}", alarm.told("one alarm on all targets"));
    let sweep = storm::one_look(1_000)?;
    println!(
        "{}",
        sweep.told("a thousand targets in one look of the schedule")
    );
    let alarms = storm::many_alarms(100)?;
    println!(
        "{}",
        alarms.told("an alarm for each target within half a second")
    );
    let peak = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = peak.lines().find(|line| line.starts_with("VmHWM"));
    println!("storm: {}", peak.unwrap_or("VmHWM is not to be had"));
    Ok(())
}

/// Plays one seed and tells its story: all of it, or what is left of a failure.
fn one(seed: u64, steps: bool) -> Result<(), Error> {
    let found = play(&Play {
        tells: steps,
        ..Play::of(seed)
    })?;
    if steps {
        tell(&found);
    }
    let Some(violation) = &found.violation else {
        println!("seed {seed}: no violation");
        return Ok(());
    };
    println!(
        "seed {seed} violates {}: {}",
        violation.invariant.name(),
        violation.what
    );
    if !steps {
        let short = shrink(seed, violation.invariant)?;
        let short = play(&Play {
            tells: true,
            ..short
        })?;
        tell(&short);
    }
    Err(Error::Violated {
        failed: 1,
        seeds: 1,
    })
}

/// Prints a story without the invocations that found nothing to do.
fn tell(ended: &Ended) {
    let number = |line: &str| {
        let number = line.split_once('#')?.1.split([' ', ':']).next()?;
        number.parse::<u64>().ok()
    };
    let mut lines: BTreeMap<u64, usize> = BTreeMap::new();
    for number in ended.story.iter().filter_map(|line| number(line)) {
        *lines.entry(number).or_default() += 1;
    }
    for line in &ended.story {
        let quiet = number(line).is_some_and(|number| lines[&number] == 2);
        if !quiet || line.contains(" ends: error") {
            println!("{line}");
        }
    }
}

/// Plays many seeds on all cores.
fn many(arguments: &Arguments) -> Result<(), Error> {
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from + arguments.seeds;
    let visits = Mutex::new(Visits::default());
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || -> Result<(), Error> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return Ok(());
            }
            let ended = play(&Play::of(seed))?;
            visits
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(&ended.visits);
            if let Some(violation) = ended.violation {
                failures
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((seed, violation));
                if arguments.first {
                    next.store(end, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or(Err(Error::Thread)))
    })?;
    let visits = visits.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|(seed, _)| *seed);
    for (seed, violation) in failures.iter().take(TOLD) {
        println!(
            "seed {seed} violates {}: {}",
            violation.invariant.name(),
            violation.what
        );
        println!("  again, shortened: cargo xtask simulate --seed {seed}");
    }
    report(arguments.seeds, failures.len(), &visits);
    if !failures.is_empty() {
        return Err(Error::Violated {
            failed: u64::try_from(failures.len()).unwrap_or(u64::MAX),
            seeds: arguments.seeds,
        });
    }
    enough(&visits, arguments.least)
}

fn report(seeds: u64, violations: usize, visits: &Visits) {
    let Visits {
        invocations,
        deaths,
        conflicts,
        lost_answers,
        throttles,
        overlaps,
        effects,
        restores,
        escalations,
        switches,
        removals,
    } = visits;
    println!(
        "visited: {invocations} invocations, {effects} effects, {lost_answers} lost answers, {throttles} throttles, {escalations} escalations, {switches} kill switches, {removals} removed targets"
    );
    println!(
        "simulation: {seeds} seeds, {violations} violations, {deaths} deaths, {conflicts} conflicts, {overlaps} overlaps, {restores} restores"
    );
}

/// A simulation that visits nothing proves nothing.
fn enough(visits: &Visits, least: u64) -> Result<(), Error> {
    let counts = [
        ("deaths", visits.deaths),
        ("conflicts", visits.conflicts),
        ("overlaps", visits.overlaps),
        ("restores", visits.restores),
        ("escalations", visits.escalations),
    ];
    counts
        .into_iter()
        .find(|(_, found)| *found < least)
        .map_or(Ok(()), |(what, found)| {
            Err(Error::Idle { what, found, least })
        })
}
