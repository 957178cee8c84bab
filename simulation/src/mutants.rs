//! Mutations of the kernel: each takes one fix out of a copy of the code, and some seed has to notice.
//!
//! A simulation that finds nothing may be one that looks at nothing. What follows is what was wrong once, or would be
//! if one line were gone; the list is checked against the code, so that a line that is changed has to be changed here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// A mutation.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// What is gone, in a few words.
    pub name: &'static str,
    /// The lines that go.
    pub edits: &'static [Edit],
    /// The invariants of which one has to be violated.
    pub noticed_by: &'static [&'static str],
}

/// A line that goes.
#[derive(Debug, Clone, Copy)]
pub struct Edit {
    /// The file, below `shared/src`.
    pub file: &'static str,
    /// What stands there once.
    pub find: &'static str,
    /// What stands there instead.
    pub replace: &'static str,
}

/// Seeds that are played against each mutation at most.
const SEEDS: u32 = 6_000;

/// The mutations.
pub const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "incidents follow the order of delivery",
        edits: &[Edit {
            file: "guard/next.rs",
            find: "if !known && alarm.latest.is_none_or(|latest| at > latest.at) {",
            replace: "if !known {",
        }],
        noticed_by: &["incident-follows-alarm"],
    },
    Mutation {
        name: "a lost OK is never noticed",
        edits: &[Edit {
            file: "runtime/sweep.rs",
            find: "for arn in &open {",
            replace: "for arn in open.iter().take(0) {",
        }],
        noticed_by: &["incident-follows-alarm"],
    },
    Mutation {
        name: "the schedule writes under a running lease",
        edits: &[
            Edit {
                file: "runtime/sweep.rs",
                find: "if duty::is_held(&facts, now) {\n                return reports;",
                replace: "if false {\n                return reports;",
            },
            Edit {
                file: "runtime/sweep.rs",
                find: "let calm = in_alarm.is_empty() && facts.standing.is_none();",
                replace: "let calm = true;",
            },
            Edit {
                file: "guard/duty.rs",
                find: "if is_held(facts, now) {",
                replace: "if false {",
            },
        ],
        noticed_by: &[
            "true-memory",
            "end-is-told",
            "honest-report",
            "acted-or-reason",
        ],
    },
    Mutation {
        name: "what an open run did is learned as a human's doing",
        edits: &[Edit {
            file: "runtime/decide.rs",
            find: "let told = read.facts.standing.is_none();",
            replace: "let told = true;",
        }],
        noticed_by: &["true-memory"],
    },
    Mutation {
        name: "one alarm at OK is taken for all of a target's",
        edits: &[Edit {
            file: "guard/duty.rs",
            find: "all.ok_since = ok_since.filter(|_| all_ok && all.in_alarm.is_empty());",
            replace: "all.ok_since = ok_since.filter(|_| all_ok);\n        all.in_alarm.retain(|_| ok_since.is_none());",
        }],
        noticed_by: &["restore-in-time"],
    },
    Mutation {
        name: "a passing refusal ends the transition",
        edits: &[Edit {
            file: "guard/next.rs",
            find: "let lasting = refused.waits.is_none();",
            replace: "let lasting = true;",
        }],
        noticed_by: &["acted-or-reason", "end-is-told"],
    },
    Mutation {
        name: "the schedule does not take up what is due",
        edits: &[Edit {
            file: "runtime/sweep.rs",
            find: "for (arn, live) in in_alarm.into_iter().filter(|_| acts) {",
            replace: "for (arn, live) in in_alarm.into_iter().take(0) {",
        }],
        noticed_by: &["acted-or-reason"],
    },
    Mutation {
        name: "a run that died is never taken up",
        edits: &[Edit {
            file: "guard/duty.rs",
            find: "Some(run) if !run.transition.starts_with(\"restore|\") => Duty::Resume(Box::new(run.clone())),",
            replace: "Some(run) if run.transition.is_empty() => Duty::Resume(Box::new(run.clone())),",
        }],
        noticed_by: &["end-is-told", "acted-or-reason"],
    },
    Mutation {
        name: "a target that was removed from the policy is forgotten",
        edits: &[Edit {
            file: "runtime/look.rs",
            find: "all.insert(stands.resource.clone(), tended);",
            replace: "drop(tended);",
        }],
        noticed_by: &["nothing-left", "end-is-told"],
    },
    Mutation {
        name: "the table may delete what still stands",
        edits: &[Edit {
            file: "ledger/difference.rs",
            find: "json(\"what stands\", standing)?,\n                    None,",
            replace: "json(\"what stands\", standing)?,\n                    Some(now + KEPT),",
        }],
        noticed_by: &[
            "nothing-left",
            "snapshot-first",
            "end-is-told",
            "acted-or-reason",
        ],
    },
    Mutation {
        name: "nobody is told of what a kill switch keeps in place",
        edits: &[Edit {
            file: "guard/duty.rs",
            find: "told_at.is_none_or(|told_at| now - told_at >= TOLD_AGAIN)",
            replace: "told_at.is_some_and(|told_at| now - told_at >= TOLD_AGAIN)",
        }],
        noticed_by: &["nothing-left"],
    },
    Mutation {
        name: "a lost lease gives out its tokens again",
        edits: &[Edit {
            file: "ledger/items.rs",
            find: "let most = lease.into_iter().chain(heartbeat).chain(record).max();",
            replace: "let most = lease.into_iter().chain(heartbeat.filter(|_| false)).chain(record.filter(|_| false)).max();",
        }],
        noticed_by: &["acted-or-reason", "end-is-told", "nothing-left"],
    },
    Mutation {
        name: "an outcome is told once or never",
        edits: &[Edit {
            file: "runtime/conclude.rs",
            find: "told: Some(end.report),",
            replace: "told: Some(end.report).filter(|_| false),",
        }],
        noticed_by: &["end-is-told"],
    },
    Mutation {
        name: "another run's lease is no hindrance",
        edits: &[Edit {
            file: "guard/decide.rs",
            find: "if lease.run_id == question.run_id || lease.held_until <= question.now {",
            replace: "if lease.run_id == question.run_id || lease.token > 0 {",
        }],
        noticed_by: &[
            "no-superseded-effect",
            "one-action",
            "honest-report",
            "end-is-told",
        ],
    },
    Mutation {
        name: "a kill switch thrown while the plan is made is overlooked",
        edits: &[Edit {
            file: "runtime/claim.rs",
            find: "match switches.map(|switches| switches.engaged(R::NAME, run.place.resource)) {",
            replace: "match switches.map(|switches| switches.engaged(R::NAME, \"\").filter(|_| false)) {",
        }],
        noticed_by: &["kill-switch"],
    },
    Mutation {
        name: "the snapshot is not in the claim",
        edits: &[Edit {
            file: "guard/next.rs",
            find: "snapshot: intent.snapshot.or_else(|| facts.snapshot()).cloned(),",
            replace: "snapshot: facts.snapshot().cloned(),",
        }],
        noticed_by: &["snapshot-first"],
    },
];

/// Plays each mutation until a seed notices it.
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

/// By which invariant a seed notices the mutation, if one does.
fn noticed(root: &Path, copy: &Path, mutation: &Mutation) -> Result<Option<String>, Error> {
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command
            .current_dir(copy)
            .env("CARGO_TARGET_DIR", target(root))
            // One mutant differs from the next in a line or two.
            .env("CARGO_INCREMENTAL", "1")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .args(arguments)
            .args([
                "--quiet",
                "--offline",
                "--package",
                "simulation-of-a-mutant",
            ]);
        command
    };
    let failed = |problem: String| Error::Mutation {
        name: mutation.name.to_owned(),
        problem,
    };
    let built = cargo(&["build"])
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !built.status.success() {
        let told = String::from_utf8_lossy(&built.stderr).into_owned();
        return Err(failed(format!("it does not compile: {told}")));
    }
    let seeds = SEEDS.to_string();
    let played = cargo(&["run"])
        .args(["--", "--seeds", &seeds, "--first"])
        .stderr(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let told = String::from_utf8_lossy(&played.stdout);
    let violations = told.lines().filter(|line| line.contains(" violates "));
    let mut noticed = violations.filter(|line| {
        let mut invariants = mutation.noticed_by.iter();
        invariants.any(|invariant| line.contains(&format!(" violates {invariant}:")))
    });
    Ok(noticed.next().map(|line| line.chars().take(160).collect()))
}

fn target(root: &Path) -> PathBuf {
    root.join("target")
}

/// Makes `to` hold what `from` does, and leaves alone what is the same, so that only what differs is compiled.
fn mirror(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(at("create", to))?;
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
