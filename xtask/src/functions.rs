//! The Lambda functions: which there are, and their build.

use std::fs;
use std::path::PathBuf;

use crate::command::{self, run};
use crate::tools::Tools;
use crate::workspace::{architecture, root, target};
use crate::{Error, Result};

/// How the functions are compiled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// As they are deployed: small and quick to load, minutes to link.
    #[default]
    Release,
    /// Quick to build, and five to ten times as large.
    Debug,
}

/// The names of all functions, in order.
pub fn names() -> Result<Vec<String>> {
    let folder = root().join("functions");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(Error::file("read", &folder))? {
        let entry = entry.map_err(Error::file("read", &folder))?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds every function for an architecture, by Lambda's name for it, and returns the folder that holds them, one
/// folder each.
///
/// zig links them against the C library that Lambda has, whatever this machine's is.
pub async fn build(tools: &Tools, profile: Profile, for_architecture: &str) -> Result<PathBuf> {
    let names = names()?;
    let mut cargo = command::cargo();
    tools.adopt(&mut cargo);
    cargo.current_dir(root()).args(["lambda", "build"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    // For its own architecture cargo-lambda takes the toolchain that is there; the other one needs rustup's target.
    if for_architecture != architecture() {
        cargo.arg(if for_architecture == "arm64" {
            "--arm64"
        } else {
            "--x86-64"
        });
    }
    for name in &names {
        cargo.args(["--package", name, "--bin", name]);
    }
    run(&mut cargo).await?;
    let artefacts = target().join("lambda");
    for name in &names {
        let path = artefacts.join(name).join("bootstrap");
        if !path.is_file() {
            return Err(Error::Artefact { path });
        }
    }
    Ok(artefacts)
}
