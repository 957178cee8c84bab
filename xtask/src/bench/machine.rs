//! The machine that the numbers belong to.

use std::fs;
use std::num::NonZeroUsize;

/// One line: processor, cores, memory, kernel, architecture.
pub(super) fn describe() -> String {
    let model = value("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let memory = value("/proc/meminfo", "MemTotal").unwrap_or_else(|| "unknown".into());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{model}, {cores} cores, {memory} memory, Linux {}, {}",
        kernel.trim(),
        std::env::consts::ARCH
    )
}

fn value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    let (_, value) = line.split_once(':')?;
    Some(value.trim().to_owned())
}
