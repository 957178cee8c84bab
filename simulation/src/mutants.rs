//! Plays the mutations of the kernel: each takes one fix out of a copy of the code, and a seed or a test has to notice.
//!
//! A simulation that finds nothing may be one that looks at nothing, and a test that passes one that asserts nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::mutations::{MUTATIONS, Mutation, Notice};

/// Seeds that are played against each mutation at most.
const SEEDS: u32 = 6_000;

/// Plays each mutation until it is noticed.
pub fn run(only: Option<&str>) -> Result<(), Error> {
    let root = root();
    let mut unnoticed = Vec::new();
    let chosen = MUTATIONS
        .iter()
        .filter(|mutation| only.is_none_or(|only| mutation.name.contains(only)));
    for mutation in chosen {
        let copy = copied(&root, mutation)?;
        let noticed = noticed(&root, &copy, mutation)?;
        if let Some(by) = noticed {
            println!("mutation: {}: {by}", mutation.name);
        } else {
            println!("mutation: {}: NOT NOTICED", mutation.name);
            unnoticed.push(mutation.name);
        }
    }
    if unnoticed.is_empty() {
        return Ok(());
    }
    Err(Error::Unnoticed(unnoticed.join("; ")))
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The files that a mutation changes, with their text then.
fn mutated(root: &Path, mutation: &Mutation) -> Result<BTreeMap<&'static str, String>, Error> {
    let mut texts = BTreeMap::new();
    for edit in mutation.edits {
        let path = root.join("shared/src").join(edit.file);
        let text = match texts.remove(edit.file) {
            Some(text) => text,
            None => read(&path)?,
        };
        if text.matches(edit.find).count() != 1 {
            return Err(Error::Mutation {
                name: mutation.name.to_owned(),
                problem: format!(
                    "{} does not hold this exactly once: {}",
                    path.display(),
                    edit.find
                ),
            });
        }
        texts.insert(edit.file, text.replace(edit.find, edit.replace));
    }
    Ok(texts)
}

/// A workspace of its own with the mutated code, which shares the compiled dependencies of this one.
fn copied(root: &Path, mutation: &Mutation) -> Result<PathBuf, Error> {
    let copy = target(root).join("mutant");
    for part in ["shared", "simulation"] {
        mirror(&root.join(part), &copy.join(part))?;
    }
    for (file, text) in mutated(root, mutation)? {
        write(&copy.join("shared/src").join(file), &text)?;
    }
    let manifest = read(&root.join("Cargo.toml"))?;
    let members = manifest
        .lines()
        .map(|line| {
            if line.starts_with("members = ") {
                "members = [\"shared\", \"simulation\"]"
            } else if line == "[profile.dev.package.simulation]" {
                "[profile.dev.package.simulation-of-a-mutant]"
            } else {
                line
            }
        })
        .filter(|line| !line.contains("path = \"functions/") && !line.contains("path = \"xtask\""));
    let members: Vec<&str> = members.collect();
    write(&copy.join("Cargo.toml"), &members.join("\n"))?;
    write(&copy.join("Cargo.lock"), &read(&root.join("Cargo.lock"))?)?;
    // Another name, so that the mutant's program takes nobody's place.
    let package = copy.join("simulation/Cargo.toml");
    let named =
        read(&package)?.replace("name = \"simulation\"", "name = \"simulation-of-a-mutant\"");
    write(
        &package,
        &format!("{named}\n[lib]\nname = \"simulation\"\n"),
    )?;
    Ok(copy)
}

/// By what the mutation is noticed, if it is.
fn noticed(root: &Path, copy: &Path, mutation: &Mutation) -> Result<Option<String>, Error> {
    match mutation.noticed_by {
        Notice::Seeds(invariants) => {
            let mutant = ["--package", "simulation-of-a-mutant"];
            compiled(cargo(root, copy, "build").args(mutant), mutation)?;
            let seeds = SEEDS.to_string();
            let mut play = cargo(root, copy, "run");
            play.args(mutant);
            play.args(["--", "--seeds", &seeds, "--first"]);
            let told = told(&mut play, mutation)?;
            let violated = |line: &&str| {
                let mut invariants = invariants.iter();
                invariants.any(|invariant| line.contains(&format!(" violates {invariant}:")))
            };
            let noticed = told.lines().find(violated);
            Ok(noticed.map(|line| line.chars().take(160).collect()))
        }
        Notice::Test(place, name) => {
            // Quicker compiled than played.
            let unoptimised = ["--config", "profile.dev.package.shared.opt-level=0"];
            let test = |more: &[&str]| {
                let mut test = cargo(root, copy, "test");
                test.args(unoptimised).args(place).args(more);
                test
            };
            compiled(&mut test(&["--no-run"]), mutation)?;
            let told = told(&mut test(&["--", "--exact", name]), mutation)?;
            let failed = format!("test {name} ... FAILED");
            let noticed = told.lines().find(|line| *line == failed);
            Ok(noticed.map(str::to_owned))
        }
    }
}

fn cargo(root: &Path, copy: &Path, command: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", target(root))
        // One mutant differs from the next in a line or two.
        .env("CARGO_INCREMENTAL", "1")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .args([command, "--offline"]);
    cargo
}

/// A mutant that does not compile has been noticed by nobody.
fn compiled(build: &mut Command, mutation: &Mutation) -> Result<(), Error> {
    let output = build.output().map_err(|error| failed(mutation, &error))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(failed(mutation, &format!("it does not compile: {told}")))
}

fn told(play: &mut Command, mutation: &Mutation) -> Result<String, Error> {
    let played = play.output().map_err(|error| failed(mutation, &error))?;
    Ok(String::from_utf8_lossy(&played.stdout).into_owned())
}

fn failed(mutation: &Mutation, problem: &dyn std::fmt::Display) -> Error {
    Error::Mutation {
        name: mutation.name.to_owned(),
        problem: problem.to_string(),
    }
}

fn target(root: &Path) -> PathBuf {
    root.join("target")
}

/// Makes `to` hold what `from` does, and leaves alone what is the same, so that only what differs is compiled.
fn mirror(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(at("create", to))?;
    for entry in fs::read_dir(to).map_err(at("read", to))? {
        let there = entry.map_err(at("read", to))?.path();
        let here = from.join(there.file_name().unwrap_or_default());
        if there.is_dir() && !here.is_dir() {
            fs::remove_dir_all(&there).map_err(at("remove", &there))?;
        } else if there.is_file() && !here.is_file() {
            fs::remove_file(&there).map_err(at("remove", &there))?;
        }
    }
    for entry in fs::read_dir(from).map_err(at("read", from))? {
        let entry = entry.map_err(at("read", from))?;
        let (here, there) = (entry.path(), to.join(entry.file_name()));
        if here.is_dir() {
            mirror(&here, &there)?;
        } else {
            let bytes = fs::read(&here).map_err(at("read", &here))?;
            if fs::read(&there).ok().as_deref() != Some(&bytes) {
                fs::write(&there, bytes).map_err(at("write", &there))?;
            }
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(at("read", path))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(at("write", path))
}

fn at<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Error + use<'a> {
    move |source| Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_fits_the_code() {
        for mutation in MUTATIONS {
            let texts = mutated(&root(), mutation).unwrap();
            for edit in mutation.edits {
                assert!(texts[edit.file].contains(edit.replace), "{}", mutation.name);
            }
        }
    }
}
