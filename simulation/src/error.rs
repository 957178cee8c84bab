//! What can keep a simulation from being played, or end it.

use std::path::PathBuf;

use thiserror::Error;

/// What can keep a simulation from being played, or end it.
#[derive(Debug, Error)]
pub enum Error {
    /// The world could not be set up.
    #[error("the runtime of the simulation cannot be built: {0}")]
    Runtime(std::io::Error),
    /// A file could not be handled.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The list of mutations does not fit the code.
    #[error("mutation {name}: {problem}")]
    Mutation {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A thread of the simulation ended badly.
    #[error("a thread of the simulation panicked")]
    Thread,
    /// Seeds failed.
    #[error("{failed} of {seeds} seeds violate an invariant")]
    Violated {
        /// How many.
        failed: u64,
        /// Of how many.
        seeds: u64,
    },
    /// A simulation that visits nothing proves nothing.
    #[error("the simulation visited {what} only {found} times, and at least {least} are wanted")]
    Idle {
        /// What was to be visited.
        what: &'static str,
        /// How often it was.
        found: u64,
        /// How often it has to be.
        least: u64,
    },
    /// Mutations that nothing noticed.
    #[error("nothing noticed these mutations: {0}")]
    Unnoticed(String),
}
