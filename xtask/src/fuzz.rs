//! A short run of the fuzz target: long enough to notice a broken promise, not to search for a rare one.

use std::fs;
use std::path::Path;

use tokio::process::Command;

use crate::command::{cargo, output, program, run_quietly};
use crate::workspace::{root, target};
use crate::{Error, Result};

const TARGET: &str = "alarm";
const SECONDS: u32 = 20;
const LONGEST_INPUT: u32 = 8192;

/// Coverage instrumentation, as cargo-fuzz adds it.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Builds the target and feeds it for a few seconds, from the events of this repository onwards.
pub async fn smoke() -> Result<()> {
    let folder = root().join("fuzz");
    let artefacts = target().join("fuzz");
    let host = host().await?;
    let mut build = cargo();
    build
        .current_dir(&folder)
        .args([
            "build",
            "--locked",
            "--release",
            "--bin",
            TARGET,
            "--target",
            &host,
        ])
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", &artefacts);
    run_quietly(&mut build).await?;
    let corpus = folder.join("corpus").join(TARGET);
    let findings = folder.join("artifacts").join(TARGET);
    for folder in [&corpus, &findings] {
        fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    }
    run_quietly(&mut fuzzer(
        &artefacts.join(host).join("release").join(TARGET),
        &corpus,
        &findings,
    ))
    .await
}

fn fuzzer(path: &Path, corpus: &Path, findings: &Path) -> Command {
    let mut fuzzer = program(path);
    fuzzer
        .current_dir(root().join("fuzz"))
        .arg(format!("-max_total_time={SECONDS}"))
        .arg(format!("-max_len={LONGEST_INPUT}"))
        .arg("-dict=alarm.dict")
        // With the slash: libFuzzer takes it as the beginning of a file's name.
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg(corpus)
        .args(["../events/dlq-replay", "../events/_shapes"]);
    fuzzer
}

/// This machine's target triple.
async fn host() -> Result<String> {
    let said = output(program("rustc").arg("-vV")).await?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.unwrap_or_default().to_owned())
}
