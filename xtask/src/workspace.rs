//! Where things are in this checkout.

use std::env;
use std::path::{Path, PathBuf};

/// The checkout's root.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
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
