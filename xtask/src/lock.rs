//! A lock file: one task at a time, even across processes, freed when its holder dies.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::sleep;

use crate::progress::Progress;
use crate::{Error, Result};

const POLL: Duration = Duration::from_millis(100);

/// A held lock; dropping it frees the lock and removes its file.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Waits until no other task holds the lock.
    pub async fn acquire(path: &Path, progress: Progress) -> Result<Self> {
        let mut told = false;
        loop {
            if let Some(lock) = Self::attempt(path)? {
                return Ok(lock);
            }
            if !told {
                progress.say(format_args!(
                    "waiting for the task that holds {}",
                    path.display()
                ));
                told = true;
            }
            sleep(POLL).await;
        }
    }

    fn attempt(path: &Path) -> Result<Option<Self>> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
        }
        let file = match File::create(path) {
            Ok(file) => file,
            // Another task's clean-up took the folder away in between.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("create", path)(error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => {
                return Err(Error::File {
                    doing: "lock",
                    path: path.to_owned(),
                    source,
                });
            }
        }
        // Its last holder may have removed the file between our opening and our locking it.
        let ours = file.metadata().map_err(Error::file("read", path))?.ino();
        if fs::metadata(path).is_ok_and(|there| there.ino() == ours) {
            Ok(Some(Self {
                path: path.to_owned(),
                _file: file,
            }))
        } else {
            Ok(None)
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The file is still locked here, so nobody else can hold what is removed.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("forgeguard-lock-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_held_lock_is_not_given_again() {
        let path = path("held");
        let first = Lock::attempt(&path).unwrap();
        assert!(first.is_some());
        assert!(Lock::attempt(&path).unwrap().is_none());
        drop(first);
        assert!(Lock::attempt(&path).unwrap().is_some());
    }

    #[test]
    fn nothing_is_left() {
        let path = path("left");
        drop(Lock::attempt(&path).unwrap());
        assert!(!path.exists());
    }
}
