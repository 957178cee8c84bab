//! What can go wrong in the bench.

use std::path::PathBuf;

use thiserror::Error;

/// A bench that could not be run, or that measured something it must not report.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A task that the bench stands on failed.
    #[error("could not {doing}")]
    Task {
        /// What was tried.
        doing: &'static str,
        /// Why.
        #[source]
        source: Box<crate::Error>,
    },
    /// Something that must be there is not.
    #[error("{what} is not at {}; {remedy}", path.display())]
    Missing {
        /// What.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A program could not be started.
    #[error("starting {program}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("{program} ended with {status}; its output:\n{output}")]
    Program {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// What it wrote.
        output: String,
    },
    /// A file could not be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("writing {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No free port.
    #[error("finding a free port on 127.0.0.1")]
    Port(#[source] std::io::Error),
    /// Connecting failed.
    #[error("connecting to {address}")]
    Connect {
        /// Where to.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A request failed.
    #[error("asking {address} for {path}")]
    Request {
        /// Who was asked.
        address: std::net::SocketAddr,
        /// For what.
        path: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// An answer had another status than 200.
    #[error("{address} answered {path} with status {status}: {body}")]
    Status {
        /// Who answered.
        address: std::net::SocketAddr,
        /// What was asked for.
        path: String,
        /// The status.
        status: u16,
        /// The body.
        body: String,
    },
    /// Something is not the JSON that was expected.
    #[error("{what} is not what was expected: {text}")]
    Json {
        /// What was read.
        what: &'static str,
        /// Its text.
        text: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The emulator did not accept connections in time, or ended.
    #[error("the Runtime Interface Emulator did not start {function}: {problem}; its log is {}", log.display())]
    Emulator {
        /// The function.
        function: String,
        /// What happened.
        problem: String,
        /// The log.
        log: PathBuf,
    },
    /// The function answered with an error.
    #[error("{function} answered with an error: {answer}; its log is {}", log.display())]
    Function {
        /// The function.
        function: String,
        /// The answer.
        answer: String,
        /// The log.
        log: PathBuf,
    },
    /// The process to be measured is not there.
    #[error("{function} has no process to measure: {problem}")]
    Process {
        /// The function.
        function: String,
        /// What is missing.
        problem: String,
    },
    /// A replay did not move every message exactly once.
    #[error("the replay by {by} does not balance, so its speed says nothing: {account}")]
    Unbalanced {
        /// Who replayed.
        by: String,
        /// The load server's account.
        account: String,
    },
    /// The load server was asked for what it does not speak.
    #[error(
        "{by} made calls that the load server does not speak: {calls}; give the scene in bench/scenes an answer to them, or add them to bench/load-server"
    )]
    Unspoken {
        /// Who asked.
        by: String,
        /// The calls.
        calls: String,
    },
    /// The mitigation was not applied: the call that does it was never made.
    #[error("{by} made no {mutation} call, so its figures say nothing")]
    NothingDone {
        /// Who.
        by: String,
        /// The call.
        mutation: String,
    },
    /// The function decided not to act, or failed to.
    #[error("{function} did not apply its mitigation, so its figures say nothing: {answer}")]
    NotApplied {
        /// The function.
        function: String,
        /// What it answered.
        answer: String,
    },
    /// A promised ratio was not reached.
    #[error("not reached: {0}")]
    NotReached(String),
}

impl BenchError {
    /// Whether the user, or the system, asked to stop.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Task { source, .. } if matches!(**source, crate::Error::Interrupted))
    }
}
