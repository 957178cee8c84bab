//! The load server as the bench drives it: started, seeded, asked for its account.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use hyper::Method;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

use super::error::BenchError;
use super::http;
use super::json;
use super::stage::Scene;
use crate::command;

/// A running load server; it ends with this value.
pub(super) struct LoadServer {
    /// Kept because dropping it ends the process.
    _child: Child,
    address: SocketAddr,
}

/// The load server's account of one scene.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Account {
    seeded: u64,
    once: u64,
    changed: u64,
    elsewhere: u64,
    left: u64,
    calls: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
}

/// One request as the load server saw it; times in microseconds since the scene began.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Call {
    /// The service's endpoint prefix, such as `sqs`.
    pub(super) service: String,
    /// The operation.
    pub(super) operation: String,
    /// When it arrived.
    pub(super) start_us: u64,
    /// When its answer was ready.
    pub(super) end_us: u64,
}

impl Call {
    /// As the account names it.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.service, self.operation)
    }
}

impl LoadServer {
    /// Starts it on a free port.
    pub(super) async fn start(program: &Path) -> Result<Self, BenchError> {
        let name = || program.display().to_string();
        let started = |source| BenchError::Start {
            program: name(),
            source,
        };
        let mut child = command::program(program)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(started)?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output)
                .read_line(&mut line)
                .await
                .map_err(started)?;
        }
        let address = line.trim().parse().map_err(|_| BenchError::Program {
            program: name(),
            status: "no address on its first line".to_owned(),
            output: line.clone(),
        })?;
        Ok(Self {
            _child: child,
            address,
        })
    }

    /// What `AWS_ENDPOINT_URL` must be for clients of this server.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Forgets everything and begins a new scene.
    pub(super) async fn seed(&self, scene: &Scene<'_>) -> Result<(), BenchError> {
        let body = scene.setup(&self.endpoint()).to_string().into_bytes();
        http::request(self.address, Method::POST, "/_bench/seed", body).await?;
        Ok(())
    }

    /// Fails unless the mitigating call was made, every message of the scene arrived once, unchanged, and nothing
    /// else happened.
    pub(super) async fn verify(&self, by: &str, scene: &Scene<'_>) -> Result<(), BenchError> {
        let (account, text): (Account, String) = self.get("the account", "/_bench/account").await?;
        if !account.refused.is_empty() {
            return Err(BenchError::Unspoken {
                by: by.to_owned(),
                calls: format!("{:?}", account.refused),
            });
        }
        let mutation = &scene.play.mutation;
        if !account.calls.contains_key(mutation) {
            return Err(BenchError::NothingDone {
                by: by.to_owned(),
                mutation: mutation.clone(),
            });
        }
        let balanced = account.once == account.seeded
            && account.changed == 0
            && account.elsewhere == 0
            && account.left == 0;
        if balanced {
            return Ok(());
        }
        Err(BenchError::Unbalanced {
            by: by.to_owned(),
            account: text,
        })
    }

    /// The requests of a scene that keeps a log.
    pub(super) async fn log(&self) -> Result<Vec<Call>, BenchError> {
        let (calls, _): (Vec<Call>, String) = self.get("the log", "/_bench/log").await?;
        Ok(calls)
    }

    async fn get<T: for<'a> Deserialize<'a>>(
        &self,
        what: &'static str,
        path: &str,
    ) -> Result<(T, String), BenchError> {
        let body = http::request(self.address, Method::GET, path, Vec::new()).await?;
        let text = String::from_utf8_lossy(&body).into_owned();
        json::parse(what, &text).map(|value| (value, text))
    }
}
