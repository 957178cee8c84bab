//! Where things are in this checkout.

use std::env;
use std::path::PathBuf;

/// The checkout's root. Cargo tells where it is when it runs a task, a test or a bench; what was true when this
/// was compiled need not be so in a checkout that was moved, or that shares a target directory with another.
#[must_use]
pub fn root() -> PathBuf {
    let mut root = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    root.pop();
    root
}

/// Where cargo puts what it builds.
#[must_use]
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(given) => std::path::absolute(&given).unwrap_or_else(|_| given.into()),
        None => root().join("target"),
    }
}

/// Everything that is this checkout's alone, made by the tasks and never committed.
#[must_use]
pub fn state() -> PathBuf {
    root().join(".forgeguard")
}

/// What is worth keeping between checkouts: tools that take minutes to build.
#[must_use]
pub fn cache() -> PathBuf {
    if let Some(given) = env::var_os("FORGEGUARD_CACHE") {
        return given.into();
    }
    let home = env::var_os("HOME").map_or_else(root, PathBuf::from);
    home.join(".cache/forgeguard")
}

/// This machine's instruction set, as Lambda names it.
#[must_use]
pub fn architecture() -> &'static str {
    match env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}
