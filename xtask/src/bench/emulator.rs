//! A function under the Lambda Runtime Interface Emulator: started, invoked, measured, ended.

use std::ffi::OsString;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::time::Instant;

use super::error::BenchError;
use super::process::Process;
use super::{http, json};
use crate::command;

const INVOCATIONS: &str = "/2015-03-31/functions/function/invocations";
/// The finest that tokio's timer gives; a start is seen this much late at most.
const POLL: Duration = Duration::from_millis(1);
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A function that can be started.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// What it is called in the tables.
    pub(super) name: String,
    /// The bootstrap and its arguments.
    pub(super) command: Vec<OsString>,
    /// Where it was unpacked.
    pub(super) directory: PathBuf,
    /// Size of its archive, in MB of 1,000,000 bytes.
    pub(super) zip_mb: f64,
    /// Where its output and the emulator's go; the last start's stays.
    pub(super) log: PathBuf,
}

/// A started function; it ends with this value.
pub(super) struct Function<'a> {
    program: &'a Program,
    emulator: Child,
    /// Where events are delivered.
    address: SocketAddr,
    /// Where the function fetches them.
    runtime_api: SocketAddr,
    /// When the emulator was started.
    pub(super) began: Instant,
}

impl<'a> Function<'a> {
    /// Starts the emulator with the function; the function's process starts with the first invocation.
    pub(super) async fn start(
        emulator: &Path,
        program: &'a Program,
        environment: &[(&'static str, String)],
    ) -> Result<Self, BenchError> {
        let [address, runtime_api] = free_addresses().await?;
        let log = File::create(&program.log).map_err(|source| BenchError::Write {
            path: program.log.clone(),
            source,
        })?;
        let second = log.try_clone().map_err(|source| BenchError::Write {
            path: program.log.clone(),
            source,
        })?;
        let mut command = command::program(emulator);
        command
            .arg("--runtime-interface-emulator-address")
            .arg(address.to_string())
            .arg("--runtime-api-address")
            .arg(runtime_api.to_string())
            .args(&program.command)
            .current_dir(&program.directory)
            .env_clear()
            .env("LAMBDA_TASK_ROOT", &program.directory)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(log)
            .stderr(second)
            .kill_on_drop(true);
        let began = Instant::now();
        let child = command.spawn().map_err(|source| BenchError::Start {
            program: emulator.display().to_string(),
            source,
        })?;
        Ok(Self {
            program,
            emulator: child,
            address,
            runtime_api,
            began,
        })
    }

    /// Delivers an event as soon as the emulator is ready, and returns the function's answer.
    ///
    /// The emulator accepts events before the function can fetch them; a function that starts within that
    /// moment finds no one to ask and ends. So both ports are waited for.
    pub(super) async fn invoke(&mut self, event: &Value) -> Result<Value, BenchError> {
        let body = event.to_string().into_bytes();
        drop(self.connect(self.runtime_api).await?);
        let stream = self.connect(self.address).await?;
        let answer =
            http::request_on(stream, self.address, Method::POST, INVOCATIONS, body).await?;
        let value = json::parse_answer(&answer)?;
        if value.get("errorMessage").is_some() || value.get("errorType").is_some() {
            return Err(BenchError::Function {
                function: self.program.name.clone(),
                answer: value.to_string(),
                log: self.program.log.clone(),
            });
        }
        Ok(value)
    }

    /// The function's own process.
    pub(super) fn process(&self) -> Result<Process, BenchError> {
        self.emulator
            .id()
            .and_then(|id| Process::new(id).children().into_iter().next())
            .ok_or_else(|| self.unmeasured("the emulator has no child"))
    }

    /// The most memory the function's process held, in MB of 1,000,000 bytes.
    pub(super) fn peak_memory_mb(&self) -> Result<f64, BenchError> {
        let kib = self
            .process()?
            .peak_memory_kib()
            .ok_or_else(|| self.unmeasured("VmHWM cannot be read"))?;
        Ok(f64::from(kib) * 1_024.0 / 1_000_000.0)
    }

    /// Seconds of CPU the function's process used.
    pub(super) fn cpu_seconds(&self) -> Result<f64, BenchError> {
        self.process()?
            .cpu_seconds()
            .ok_or_else(|| self.unmeasured("its CPU time cannot be read"))
    }

    async fn connect(&mut self, address: SocketAddr) -> Result<TcpStream, BenchError> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(_) if Instant::now() >= until => {
                    return Err(
                        self.not_started("it accepted no connection within 30 s".to_owned())
                    );
                }
                Err(_) => {}
            }
            if let Ok(Some(status)) = self.emulator.try_wait() {
                return Err(self.not_started(format!("it ended with {status}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn not_started(&self, problem: String) -> BenchError {
        BenchError::Emulator {
            function: self.program.name.clone(),
            problem,
            log: self.program.log.clone(),
        }
    }

    fn unmeasured(&self, problem: &str) -> BenchError {
        BenchError::Process {
            function: self.program.name.clone(),
            problem: problem.to_owned(),
        }
    }
}

impl Drop for Function<'_> {
    /// Ends the function first: the emulator, killed, would leave it behind.
    fn drop(&mut self) {
        if let Some(id) = self.emulator.id() {
            for child in Process::new(id).children() {
                child.kill();
            }
        }
    }
}

async fn free_addresses() -> Result<[SocketAddr; 2], BenchError> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    // Both are held until both are known, so that they differ.
    let first = TcpListener::bind(any).await.map_err(BenchError::Port)?;
    let second = TcpListener::bind(any).await.map_err(BenchError::Port)?;
    Ok([
        first.local_addr().map_err(BenchError::Port)?,
        second.local_addr().map_err(BenchError::Port)?,
    ])
}
