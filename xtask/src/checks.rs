//! `cargo xtask test`: everything that must hold before a change is taken, in the order that fails fastest.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use clap::ValueEnum;

use crate::command::{cargo, run, run_quietly, run_silently};
use crate::functions::Profile;
use crate::interrupt::interruptible;
use crate::progress::Progress;
use crate::tools::{Tools, cargo_deny};
use crate::workspace::{root, target};
use crate::{Error, Result, cloud, fuzz, layout};

/// Clouds of this test are named so, with the process id behind.
const CLOUD_PREFIX: &str = "test-";

/// One step of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// Formatting
    Fmt,
    /// Lints
    Clippy,
    /// Documentation builds, without a warning
    Doc,
    /// Every remediation and crate keeps the repository's rules
    Layout,
    /// Licences, sources and bans of the dependencies
    Deny,
    /// cfn-lint and `sam validate` have nothing to say
    Template,
    /// Unit and property tests, and the emulator's
    Unit,
    /// Simulated worlds, and mutations of the kernel that they notice
    Simulation,
    /// A short run of the fuzz target
    Fuzz,
    /// The deployed template on a local cloud
    EndToEnd,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Doc => "doc",
            Self::Layout => "layout",
            Self::Deny => "deny",
            Self::Template => "template",
            Self::Unit => "unit",
            Self::Simulation => "simulation",
            Self::Fuzz => "fuzz",
            Self::EndToEnd => "end-to-end",
        }
    }

    fn run(self, progress: Progress) -> Pin<Box<dyn Future<Output = Result<()>>>> {
        match self {
            Self::Fmt => Box::pin(interruptible(fmt())),
            Self::Clippy => Box::pin(interruptible(clippy())),
            Self::Doc => Box::pin(interruptible(doc())),
            Self::Layout => Box::pin(interruptible(layout::check())),
            Self::Deny => Box::pin(interruptible(deny(progress))),
            Self::Template => Box::pin(interruptible(template(progress))),
            Self::Unit => Box::pin(interruptible(unit(progress))),
            Self::Simulation => Box::pin(interruptible(simulation())),
            Self::Fuzz => Box::pin(interruptible(fuzz::smoke())),
            // It has to take its cloud down before it can stop.
            Self::EndToEnd => Box::pin(end_to_end(progress)),
        }
    }
}

/// Runs one step, or all of them until one fails.
pub async fn test(only: Option<Step>) -> Result<()> {
    let progress = Progress::new("test");
    let steps = only.map_or_else(|| Step::value_variants().to_vec(), |step| vec![step]);
    for (index, step) in steps.iter().enumerate() {
        let name = step.name();
        let task = step.run(progress);
        let result = if index + 1 < steps.len() {
            progress.long_step(name, task).await
        } else {
            // The last words are cargo's own: how many tests passed.
            progress.say(format_args!("{name} ..."));
            task.await
        };
        result.map_err(|source| Error::Step {
            step: name,
            source: Box::new(source),
        })?;
    }
    Ok(())
}

async fn fmt() -> Result<()> {
    run(cargo()
        .current_dir(root())
        .args(["fmt", "--all", "--check"]))
    .await
}

async fn clippy() -> Result<()> {
    let mut clippy = cargo();
    clippy.current_dir(root()).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]);
    run(&mut clippy).await
}

async fn doc() -> Result<()> {
    let mut doc = cargo();
    doc.current_dir(root())
        .args(["doc", "--workspace", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings");
    run(&mut doc).await
}

async fn deny(progress: Progress) -> Result<()> {
    let path = cargo_deny(progress).await?;
    let mut deny = crate::command::program(path);
    deny.current_dir(root())
        .args(["--all-features", "--locked", "--log-level", "error"]);
    deny.args(["check", "--show-stats", "bans", "licenses", "sources"]);
    run(&mut deny).await
}

async fn template(progress: Progress) -> Result<()> {
    let tools = Tools::ensure(progress).await?;
    let mut lint = tools.program("cfn-lint");
    run_silently(
        lint.current_dir(root())
            .args(["--include-checks", "I", "--", "template.yaml"]),
    )
    .await?;
    let mut validate = tools.program("sam");
    validate
        .current_dir(root())
        .args(["validate", "--lint", "--region", "us-east-1"]);
    run(&mut validate).await
}

async fn unit(progress: Progress) -> Result<()> {
    let tools = Tools::ensure(progress).await?;
    run_quietly(tools.program("python").current_dir(root()).args([
        "-m",
        "unittest",
        "discover",
        "--start-directory",
        "xtask/cloud",
    ]))
    .await?;
    run(cargo().current_dir(root()).args([
        "test",
        "--workspace",
        "--exclude",
        "end-to-end",
        "--locked",
    ]))
    .await
}

/// Plays so many worlds that a simulation which visits nothing fails, then sees that it notices what is taken out.
async fn simulation() -> Result<()> {
    let words = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
    simulate(&words("--seeds 10000 --least 1001")).await?;
    simulate(&words("mutants")).await
}

/// Runs the simulation.
pub async fn simulate(arguments: &[String]) -> Result<()> {
    let mut simulate = cargo();
    simulate
        .current_dir(root())
        .args([
            "run",
            "--quiet",
            "--locked",
            "--package",
            "simulation",
            "--",
        ])
        .args(arguments);
    run(&mut simulate).await
}

/// Runs the end-to-end tests on a cloud of their own, which is taken down however they end.
async fn end_to_end(progress: Progress) -> Result<()> {
    remove_left_over_clouds().await?;
    let name = format!("{CLOUD_PREFIX}{}", std::process::id());
    let outcome = interruptible(async {
        let cloud = cloud::up(&name, Profile::Release).await?;
        let mut tests = cargo();
        tests.current_dir(root()).args([
            "test",
            "--package",
            "end-to-end",
            "--locked",
            "--no-fail-fast",
        ]);
        run(tests.env(cloud::STATE_FILE, cloud.state_file()?)).await
    })
    .await;
    if outcome.is_err() {
        keep_log(&name, progress);
    }
    let down = cloud::down(&name).await;
    outcome.and(down)
}

/// Removes the clouds of tests that were killed before they could.
async fn remove_left_over_clouds() -> Result<()> {
    for name in cloud::names()? {
        let owner = name.strip_prefix(CLOUD_PREFIX);
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            cloud::down(&name).await?;
        }
    }
    Ok(())
}

/// Saves the emulator's log from the cloud's removal, for whoever looks into the failure.
fn keep_log(name: &str, progress: Progress) {
    let kept = target().join("end-to-end-emulator.log");
    let log = cloud::Cloud::load(name).and_then(|cloud| cloud.log_file());
    if log.is_ok_and(|log| fs::copy(log, &kept).is_ok()) {
        progress.say(format_args!("the emulator's log is in {}", kept.display()));
    }
}
