//! What is measured: built with the release profile, packed as for Lambda, and unpacked from that very archive.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::emulator::Program;
use super::error::BenchError;
use super::stage::Play;
use crate::command::{self, run, run_quietly};
use crate::progress::Progress;
use crate::tools::Tools;
use crate::workspace::{architecture, root, target};

const BYTES_PER_MB: f64 = 1_000_000.0;
const BUILD: &str = "run the bench without --no-build";

const DLQ_REPLAY: &str = "dlq-replay";
const EMPTY: &str = "empty-handler";

/// Builds the functions as SAM builds them for AWS, by the same profile and one at a time, so that none carries what another
/// asks of a library; and the load server.
pub(super) async fn build(tools: &Tools, progress: Progress) -> Result<(), BenchError> {
    let names = Play::names()?;
    let lambda = |name: &str| {
        let mut cargo = command::cargo();
        tools.adopt(&mut cargo);
        cargo
            .current_dir(root())
            .args(["lambda", "build", "--release", "--output-format", "zip"])
            .args(["--package", name, "--bin", name]);
        ("build a function for Lambda", cargo)
    };
    let functions = names.iter().map(String::as_str).chain([EMPTY]).map(lambda);
    let mut server = command::cargo();
    server
        .current_dir(root())
        .args(["build", "--release", "--package", "load-server"]);
    for (what, mut cargo) in functions.chain([("build the load server", server)]) {
        progress
            .long_step(what, run(&mut cargo))
            .await
            .map_err(|source| BenchError::Task {
                doing: what,
                source: Box::new(source),
            })?;
    }
    Ok(())
}

/// The load server that was built.
pub(super) fn load_server() -> Result<PathBuf, BenchError> {
    built("the load server", target().join("release/load-server"))
}

/// The Runtime Interface Emulator, which aws-sam-cli carries.
pub(super) fn emulator(tools: &Tools) -> Result<PathBuf, BenchError> {
    let pattern = format!(
        "site-packages/samcli/local/rapid/aws-lambda-rie-{}",
        architecture()
    );
    // The folder between is named after Python's version.
    let libraries = tools.path("../lib");
    let found = fs::read_dir(&libraries)
        .map_err(|source| BenchError::Read {
            path: libraries.clone(),
            source,
        })?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join(&pattern))
        .find(|path| path.exists());
    found.ok_or(BenchError::Missing {
        what: "the Runtime Interface Emulator",
        path: libraries,
        remedy: "remove .venv, and it is installed anew",
    })
}

/// A function of this suite, with what it acts on.
pub(super) struct Contender {
    /// The function.
    pub(super) program: Program,
    /// What it acts on.
    pub(super) play: Play,
}

impl Contender {
    async fn unpack(name: &str, directory: &Path, tools: &Tools) -> Result<Self, BenchError> {
        Ok(Self {
            play: Play::of(name)?,
            program: binary(name, directory, tools).await?,
        })
    }
}

/// All that is measured, ready to be started.
pub(super) struct Contenders {
    /// The function that the scripts compare with.
    pub(super) dlq_replay: Contender,
    /// The other functions of this suite that have a scene.
    pub(super) others: Vec<Contender>,
    /// The Rust handler that does nothing.
    pub(super) empty: Program,
    /// The Python handler that does the same as `dlq_replay`.
    pub(super) python: Program,
    /// The replay script as people write it, after its interpreter.
    pub(super) script: [PathBuf; 2],
}

impl Contenders {
    /// Unpacks each archive into `directory`.
    pub(super) async fn unpack(directory: &Path, tools: &Tools) -> Result<Self, BenchError> {
        let scripts = root().join("bench/python");
        let interpreter = tools.path("python3");
        let archive = directory.join("python.zip");
        zipfile(tools, "-c", &archive, &scripts.join("handler.py")).await?;
        let arguments = ["-m", "awslambdaric", "handler.handler"].map(OsString::from);
        let python = Program {
            name: "python".to_owned(),
            command: std::iter::once(interpreter.clone().into_os_string())
                .chain(arguments)
                .collect(),
            zip_mb: size_mb(&archive)?,
            log: directory.join("python.log"),
            directory: unpack(tools, &archive, directory.join("python")).await?,
        };
        let mut others = Vec::new();
        for name in Play::names()?.iter().filter(|name| *name != DLQ_REPLAY) {
            others.push(Contender::unpack(name, directory, tools).await?);
        }
        Ok(Self {
            dlq_replay: Contender::unpack(DLQ_REPLAY, directory, tools).await?,
            others,
            empty: binary(EMPTY, directory, tools).await?,
            python,
            script: [interpreter, scripts.join("replay_boto3.py")],
        })
    }

    /// The functions of this suite.
    pub(super) fn functions(&self) -> impl Iterator<Item = &Contender> {
        std::iter::once(&self.dlq_replay).chain(&self.others)
    }
}

async fn binary(name: &str, directory: &Path, tools: &Tools) -> Result<Program, BenchError> {
    let archive = built(
        "the function's archive",
        target().join("lambda").join(name).join("bootstrap.zip"),
    )?;
    let place = unpack(tools, &archive, directory.join(name)).await?;
    let bootstrap = place.join("bootstrap");
    // Python's zipfile does not restore permissions.
    fs::set_permissions(&bootstrap, fs::Permissions::from_mode(0o755)).map_err(|source| {
        BenchError::Write {
            path: bootstrap.clone(),
            source,
        }
    })?;
    Ok(Program {
        name: name.to_owned(),
        command: vec![bootstrap.into()],
        directory: place,
        zip_mb: size_mb(&archive)?,
        log: directory.join(format!("{name}.log")),
    })
}

fn built(what: &'static str, path: PathBuf) -> Result<PathBuf, BenchError> {
    if path.exists() {
        return Ok(path);
    }
    Err(BenchError::Missing {
        what,
        path,
        remedy: BUILD,
    })
}

async fn unpack(tools: &Tools, archive: &Path, place: PathBuf) -> Result<PathBuf, BenchError> {
    if place.exists() {
        fs::remove_dir_all(&place).map_err(|source| BenchError::Write {
            path: place.clone(),
            source,
        })?;
    }
    zipfile(tools, "-e", archive, &place).await?;
    Ok(place)
}

async fn zipfile(
    tools: &Tools,
    action: &str,
    archive: &Path,
    subject: &Path,
) -> Result<(), BenchError> {
    let mut python = tools.program("python3");
    python
        .args(["-m", "zipfile", action])
        .arg(archive)
        .arg(subject);
    run_quietly(&mut python)
        .await
        .map_err(|source| BenchError::Task {
            doing: "pack or unpack a function",
            source: Box::new(source),
        })
}

fn size_mb(archive: &Path) -> Result<f64, BenchError> {
    let metadata = fs::metadata(archive).map_err(|source| BenchError::Read {
        path: archive.to_path_buf(),
        source,
    })?;
    // Archives of 4 GB and more do not fit Lambda.
    let bytes = u32::try_from(metadata.len()).unwrap_or(u32::MAX);
    Ok(f64::from(bytes) / BYTES_PER_MB)
}
