//! What the kernel says of a process: its children, its peak memory, its CPU time.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Kernel clock ticks per second in `/proc/<pid>/stat`; fixed on x86-64 and arm64.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process(u32);

impl Process {
    /// The process with this id.
    pub(super) fn new(id: u32) -> Self {
        Self(id)
    }

    /// Its children.
    pub(super) fn children(self) -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(Self)
            .filter(|process| process.parent() == Some(self.0))
            .collect()
    }

    /// The most memory it ever held, in KiB, from `VmHWM`.
    pub(super) fn peak_memory_kib(self) -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|value| value.split_whitespace().next()?.parse().ok())
    }

    /// Seconds of CPU, user and system, that all its threads used, the ended ones included.
    pub(super) fn cpu_seconds(self) -> Option<f64> {
        let fields = self.stat()?;
        // Fields 14 and 15 of stat(5); these here start at field 3.
        let ticks = |index: usize| fields.get(index)?.parse::<u32>().ok();
        Some((f64::from(ticks(11)?) + f64::from(ticks(12)?)) / TICKS_PER_SECOND)
    }

    /// Ends it at once.
    pub(super) fn kill(self) {
        if let Some(pid) = i32::try_from(self.0).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn parent(self) -> Option<u32> {
        self.stat()?.get(1)?.parse().ok()
    }

    /// The fields of stat(5) after the command's name, which may itself hold spaces.
    fn stat(self) -> Option<Vec<String>> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        Some(rest.split_whitespace().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let this = Process::new(std::process::id());
        assert!(this.peak_memory_kib().unwrap() > 100);
        assert!(this.cpu_seconds().unwrap() >= 0.0);
        assert!(
            Process::new(this.parent().unwrap())
                .children()
                .contains(&this)
        );
    }
}
