//! Running other programs, and telling what they said when they fail.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::{Error, Result};

/// How much of a failed program's output is repeated.
const TAIL_LINES: usize = 40;

/// A program for one of the functions below to run.
pub fn program(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// Cargo, the same one that runs this task.
#[must_use]
pub fn cargo() -> Command {
    program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs to the end, printing to the terminal.
pub async fn run(command: &mut Command) -> Result<()> {
    let mut running = Running::start(command)?;
    let status = running.child.wait().await.map_err(run_error(command))?;
    running.ended();
    if status.success() {
        return Ok(());
    }
    Err(failed(command, status, String::new()))
}

/// Runs to the end; what it printed is shown only if it fails.
pub async fn run_quietly(command: &mut Command) -> Result<()> {
    output(command).await.map(|_| ())
}

/// Runs to the end and returns what it printed to standard output.
pub async fn output(command: &mut Command) -> Result<String> {
    let (status, stdout, stderr) = capture(command).await?;
    if status.success() {
        return Ok(stdout);
    }
    Err(failed(command, status, tail(&(stdout + &stderr))))
}

/// Runs to the end; anything it prints is a failure.
pub async fn run_silently(command: &mut Command) -> Result<()> {
    let (status, stdout, stderr) = capture(command).await?;
    let said = stdout + &stderr;
    if status.success() && said.trim().is_empty() {
        return Ok(());
    }
    Err(failed(command, status, tail(&said)))
}

/// Runs to the end, with everything it prints in a file.
pub async fn run_logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).map_err(Error::file("create", log))?;
    let copy = file.try_clone().map_err(Error::file("write", log))?;
    let mut running = Running::start(command.stdout(file).stderr(copy))?;
    let status = running.child.wait().await.map_err(run_error(command))?;
    running.ended();
    if status.success() {
        return Ok(());
    }
    Err(failed(command, status, log_tail(log)))
}

async fn capture(command: &mut Command) -> Result<(ExitStatus, String, String)> {
    let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let (stdout, stderr) = (running.child.stdout.take(), running.child.stderr.take());
    let (status, stdout, stderr) =
        tokio::try_join!(running.child.wait(), read(stdout), read(stderr))
            .map_err(run_error(command))?;
    running.ended();
    Ok((status, stdout, stderr))
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A program in a process group of its own. Dropped before it ended, it is killed with all it started: a cargo that
/// is killed alone leaves its compilers running.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let child = command
            .process_group(0)
            .spawn()
            .map_err(run_error(command))?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Ok(Self { child, group })
    }

    fn ended(&mut self) {
        self.group = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may have ended just now, which is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The end of a log file, or nothing if it cannot be read.
#[must_use]
pub fn log_tail(log: &Path) -> String {
    std::fs::read(log)
        .map(|bytes| tail(&String::from_utf8_lossy(&bytes)))
        .unwrap_or_default()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn run_error(command: &Command) -> impl FnOnce(io::Error) -> Error {
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    move |source| Error::Run { program, source }
}

fn failed(command: &Command, status: ExitStatus, output: String) -> Error {
    Error::Failed {
        command: line(command),
        status,
        output,
    }
}

/// The command as one would type it, with the program by its name alone.
fn line(command: &Command) -> String {
    let command = command.as_std();
    let program = Path::new(command.get_program());
    let mut line = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_repeats_what_was_said() {
        let error = output(program("sh").args(["-c", "echo out; echo err >&2; exit 3"]))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "sh -c echo out; echo err >&2; exit 3 failed (exit status: 3)\n  out\n  err"
        );
    }

    #[tokio::test]
    async fn words_alone_are_a_failure_where_silence_is_wanted() {
        assert!(run_silently(&mut program("true")).await.is_ok());
        assert!(
            run_silently(program("echo").arg("a warning"))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_dropped_program_takes_what_it_started_along() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = program("sh");
        command.args(["-c", "sleep 60 & wait"]).stdout(writer);
        let running = Running::start(&mut command).unwrap();
        drop(command);
        drop(running);
        // The pipe ends when the last process that writes to it is gone.
        io::Read::read_to_end(&mut reader, &mut Vec::new()).unwrap();
    }
}
