//! What can go wrong in a task.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// What can go wrong in a task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program could not be started or waited for.
    #[error("could not run {program}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },

    /// A program ran and failed.
    #[error("{command} failed ({status}){}", indented(output))]
    Failed {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed; empty when it printed to the terminal.
        output: String,
    },

    /// A file or directory could not be read, written, made or removed.
    #[error("could not {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// A file is not the JSON it should be.
    #[error("{} is not valid", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },

    /// The name of a local cloud cannot be one.
    #[error(
        "a cloud's name is 1 to 40 lower-case letters, digits and hyphens, which {name:?} is not"
    )]
    CloudName {
        /// The name.
        name: String,
    },

    /// No such local cloud.
    #[error(
        "no local cloud named {name} is running; start it with `cargo xtask cloud up --name {name}`"
    )]
    NoCloud {
        /// Its name.
        name: String,
    },

    /// The emulator did not come up.
    #[error("the emulator did not start: {why}{}", indented(log))]
    Emulator {
        /// What was seen.
        why: String,
        /// The end of its log.
        log: String,
    },

    /// Processes of a local cloud outlived SIGKILL.
    #[error("processes of the local cloud do not end: {pids:?}")]
    Undead {
        /// Their ids.
        pids: Vec<i32>,
    },

    /// An AWS call failed.
    #[error("could not {doing}")]
    Aws {
        /// What was tried.
        doing: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The deployed stack lacks an output.
    #[error("stack {stack} has no output {name}")]
    Output {
        /// The stack.
        stack: String,
        /// The output.
        name: String,
    },

    /// A function was not built where the template's copy expects it.
    #[error("{} is missing: the function was not built", path.display())]
    Artefact {
        /// The missing executable.
        path: PathBuf,
    },

    /// The repository's layout breaks its rules.
    #[error("the layout breaks {} of its rules:{}", problems.len(), indented(&problems.join("\n")))]
    Layout {
        /// One line for each.
        problems: Vec<String>,
    },

    /// A remediation cannot have this name.
    #[error("a remediation cannot be named {name:?}: {why}")]
    RemediationName {
        /// The name.
        name: String,
        /// Why not, and what to do.
        why: String,
    },

    /// A step of the tests failed.
    #[error("step {step} failed")]
    Step {
        /// Its name, as `--step` takes it.
        step: &'static str,
        /// Why.
        source: Box<Error>,
    },

    /// The bench could not measure, or measured what it must not report.
    #[error("the bench failed")]
    Bench {
        /// Why.
        source: Box<crate::bench::BenchError>,
    },

    /// Messages were lost or duplicated, or are somewhere else than they should be.
    #[error("the account does not balance: {tally}")]
    Imbalance {
        /// The account.
        tally: String,
    },

    /// The remediation did not report.
    #[error("the ledger tells of no verdict after {} s; the emulator's log is {}", waited.as_secs(), log.display())]
    Silence {
        /// How long the demo waited.
        waited: std::time::Duration,
        /// The emulator's log.
        log: PathBuf,
    },

    /// The user, or the system, asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// The result of a task.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Names the failed call; for `map_err`.
    pub fn aws<E>(doing: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Aws {
            doing,
            source: source.into(),
        }
    }

    /// Names the file and what was tried with it; for `map_err`.
    pub fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            doing,
            path: path.into(),
            source,
        }
    }
}

/// The text below the message, one step in; nothing for nothing.
fn indented(text: &str) -> String {
    text.lines().flat_map(|line| ["\n  ", line]).collect()
}
