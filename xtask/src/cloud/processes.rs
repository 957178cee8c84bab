//! The processes of a local cloud, found by the mark that all of them inherit.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::{Error, Result};

/// The environment variable that holds the cloud's folder.
pub(super) const MARK: &str = "FORGEGUARD_CLOUD_FOLDER";

const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(10);

/// The processes that carry this folder's mark. A process id alone would not do: it may be another's by now.
pub(super) fn of(folder: &Path) -> io::Result<Vec<i32>> {
    let mut mark = format!("{MARK}=").into_bytes();
    mark.extend_from_slice(folder.as_os_str().as_bytes());
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // Another user's process cannot be read, and one that just ended is gone: neither is ours.
        let Ok(environment) = fs::read(entry.path().join("environ")) else {
            continue;
        };
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark)
        {
            pids.push(pid);
        }
    }
    Ok(pids)
}

/// Ends all of them. There is nothing they would save: what they write is removed next.
pub(super) async fn end(folder: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut looks_without_one = 0;
    while looks_without_one < 2 {
        let pids = of(folder).map_err(Error::file("read", "/proc"))?;
        // A process that is just being started shows no environment yet, so that one look may miss it.
        looks_without_one = if pids.is_empty() {
            looks_without_one + 1
        } else {
            0
        };
        if Instant::now() > deadline {
            return Err(Error::Undead { pids });
        }
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            // It may have ended since; the next look tells.
            let _ = kill_process(pid, Signal::KILL);
        }
        sleep(POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn only_marked_processes_end() {
        let folder = std::env::temp_dir().join(format!("forgeguard-mark-{}", std::process::id()));
        let sleeper = |mark: &Path| {
            Command::new("sleep")
                .arg("60")
                .env(MARK, mark)
                .spawn()
                .unwrap()
        };
        let mut ours = sleeper(&folder);
        let mut other = sleeper(&folder.join("other"));
        while of(&folder).unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        end(&folder).await.unwrap();
        assert!(!ours.wait().unwrap().success());
        assert!(
            other.try_wait().unwrap().is_none(),
            "another cloud's process ended as well"
        );
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
