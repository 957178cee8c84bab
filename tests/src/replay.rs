//! A remediation run once in a process of its own, which a test can kill for good at any request that it makes.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use xtask::cloud::{KEY_VALUE_STORES, key_value_stores_at};

use crate::failure::{During, Failure, Result, ensure};
use crate::proxy::{Call, Death, Phase, Proxy};
use crate::world::World;

/// Seconds by which the process's clock, and only that which decisions use, is ahead of the system's.
pub const CLOCK_OFFSET_SECONDS: &str = "FORGEGUARD_TEST_CLOCK_OFFSET_SECONDS";

/// The ARN under which the process believes to run; a continuation is sent there.
pub const FUNCTION_ARN: &str = "FORGEGUARD_TEST_FUNCTION_ARN";

/// What the line with the report starts with, among the log lines on standard output.
pub const REPORT: &str = "run-once report: ";

/// What the line with the error starts with, among the log lines on standard output.
pub const ERROR: &str = "run-once error: ";

/// How long a run may take before the test gives it up.
const PATIENCE: Duration = Duration::from_mins(2);

/// A run to be started.
#[derive(Debug, Clone)]
pub struct Run {
    binary: PathBuf,
    remediation: String,
    environment: Vec<(String, String)>,
    event: Value,
    request_id: String,
    time_left: Duration,
}

/// How a run ended by itself.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The function's answer, or the error it answers with.
    pub answer: std::result::Result<Value, RunError>,
    /// Everything it wrote.
    pub log: String,
}

/// The error that a function answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunError {
    /// The error's name, which playbooks match.
    pub error_type: String,
    /// The error's words.
    pub message: String,
}

/// How a run that was to be killed ended.
#[derive(Debug, Clone)]
pub enum Killed {
    /// It was killed at this request.
    At(Box<Call>),
    /// It ended by itself before it made that many requests.
    Before(Box<Ended>),
}

impl Run {
    /// A run of `binary` on `event` in `world`, speaking to AWS through `proxy`.
    #[must_use]
    pub fn new(binary: &Path, world: &World, proxy: &Proxy, event: &Value) -> Self {
        Self {
            binary: binary.to_owned(),
            remediation: dlq_replay::NAME.to_owned(),
            environment: world.environment(proxy.endpoint()),
            event: event.clone(),
            request_id: format!("request-{:016x}", fastrand::u64(..)),
            time_left: Duration::from_mins(1),
        }
    }

    /// The same run of another remediation; `dlq-replay` unless this says otherwise.
    #[must_use]
    pub fn of(mut self, remediation: &str) -> Self {
        remediation.clone_into(&mut self.remediation);
        self
    }

    /// The same run on another event.
    #[must_use]
    pub fn on(mut self, event: &Value) -> Self {
        self.event = event.clone();
        self
    }

    /// The same run, speaking to AWS through another proxy.
    #[must_use]
    pub fn through(self, proxy: &Proxy) -> Self {
        let endpoint = proxy.endpoint();
        self.setting("AWS_ENDPOINT_URL", endpoint)
            .setting(KEY_VALUE_STORES, &key_value_stores_at(endpoint))
    }

    /// With this Lambda request id.
    #[must_use]
    pub fn request_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.request_id);
        self
    }

    /// With this much time until Lambda would end it.
    #[must_use]
    pub fn time_left(mut self, time: Duration) -> Self {
        self.time_left = time;
        self
    }

    /// With a clock that is ahead of the system's.
    #[must_use]
    pub fn later_by(mut self, offset: TimeDelta) -> Self {
        let seconds = offset.num_seconds().to_string();
        self.environment
            .push((CLOCK_OFFSET_SECONDS.to_owned(), seconds));
        self
    }

    /// With one more setting.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it, and waits until it ends by itself.
    pub async fn finish(self) -> Result<Ended> {
        let child = self.start().await?;
        ended(child).await
    }

    /// Starts it, and kills it once the `nth` request to AWS that `pattern` names is at `phase`.
    ///
    /// Other requests that were on their way are carried out, and then nothing of it is left running.
    pub async fn killed_at(
        self,
        proxy: &Proxy,
        pattern: &str,
        nth: usize,
        phase: Phase,
    ) -> Result<Killed> {
        let mut gate = proxy.gate(pattern, nth, phase);
        let mut child = self.start().await?;
        let process = child.id().during("the process ended before it began")?;
        let mut waiting = Box::pin(ended_by(&mut child));
        let call = tokio::select! {
            call = gate.reached() => call.during("the gate was taken away")?,
            ended = &mut waiting => {
                proxy.heal();
                return Ok(Killed::Before(Box::new(ended?)));
            }
        };
        drop(waiting);
        child
            .start_kill()
            .during(&format!("killing process {process}"))?;
        child.wait().await?;
        gate.finish();
        proxy.idle().await?;
        Ok(Killed::At(Box::new(call)))
    }

    /// Starts it, and kills it at a request that it is known to make.
    pub async fn dies_at(self, proxy: &Proxy, death: &Death) -> Result {
        let Death { action, nth, phase } = death;
        match self.killed_at(proxy, action, *nth, *phase).await? {
            Killed::At(_) => Ok(()),
            Killed::Before(ended) => Err(Failure::new(format!("not killed:\n{}", ended.log))),
        }
    }

    async fn start(&self) -> Result<Child> {
        let mut child = Command::new(&self.binary)
            .arg(&self.remediation)
            .arg(&self.request_id)
            .arg(self.time_left.as_millis().to_string())
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .during(&self.binary.display().to_string())?;
        let mut input = child.stdin.take().during("standard input")?;
        input.write_all(self.event.to_string().as_bytes()).await?;
        input.shutdown().await?;
        Ok(child)
    }
}

impl Ended {
    /// The answer, or a failure that shows the error and the log.
    pub fn answer(&self) -> Result<&Value> {
        self.answer.as_ref().map_err(|error| {
            Failure::new(format!(
                "{}: {}\n{}",
                error.error_type, error.message, self.log
            ))
        })
    }

    /// The response, also when it came as an error because a target failed.
    pub fn response(&self) -> Result<Value> {
        match &self.answer {
            Ok(answer) => Ok(answer.clone()),
            Err(error) => serde_json::from_str(&error.message).map_err(|_| {
                Failure::new(format!(
                    "{}: {}\n{}",
                    error.error_type, error.message, self.log
                ))
            }),
        }
    }

    /// The report of the only target.
    pub fn report(&self) -> Result<Value> {
        let response = self.response()?;
        match response["reports"].as_array().map(Vec::as_slice) {
            Some([report]) => Ok(report.clone()),
            _ => Err(Failure::new(format!("not one report: {response}"))),
        }
    }
}

async fn ended(mut child: Child) -> Result<Ended> {
    ended_by(&mut child).await
}

async fn ended_by(child: &mut Child) -> Result<Ended> {
    let mut output = child.stdout.take().during("standard output")?;
    let mut errors = child.stderr.take().during("standard error")?;
    let (mut told, mut complained) = (Vec::new(), Vec::new());
    let reading = async {
        tokio::try_join!(
            tokio::io::copy(&mut output, &mut told),
            tokio::io::copy(&mut errors, &mut complained),
        )?;
        child.wait().await
    };
    let status = tokio::time::timeout(PATIENCE, reading)
        .await
        .during("the run did not end")??;
    read(
        status,
        &String::from_utf8_lossy(&told),
        &String::from_utf8_lossy(&complained),
    )
}

fn read(status: ExitStatus, told: &str, complained: &str) -> Result<Ended> {
    let log = format!("{told}{complained}");
    let after = |start: &str| told.lines().rev().find_map(|line| line.strip_prefix(start));
    let answer = match (after(REPORT), after(ERROR)) {
        (Some(report), _) => Ok(serde_json::from_str(report)?),
        (None, Some(error)) => {
            let error: Value = serde_json::from_str(error)?;
            let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
            Err(RunError {
                error_type: text("errorType"),
                message: text("errorMessage"),
            })
        }
        (None, None) => return Err(Failure::new(format!("the run ended with {status}:\n{log}"))),
    };
    Ok(Ended { answer, log })
}

/// Fails unless a report has this outcome, and these words somewhere.
pub fn is(report: &Value, outcome: &str, words: &str) -> Result {
    let text = report.to_string();
    ensure(report["outcome"] == outcome && text.contains(words), || {
        text.clone()
    })
}
