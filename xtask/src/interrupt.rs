//! Stopping when the user or the system asks, with the chance to clean up.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::{Error, Result};

/// Runs a task, and drops it on SIGINT or SIGTERM.
pub async fn interruptible<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    let listen = |kind| {
        signal(kind).map_err(|source| Error::Run {
            program: "the signal handler".to_owned(),
            source,
        })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    tokio::select! {
        result = task => result,
        _ = interrupt.recv() => Err(Error::Interrupted),
        _ = terminate.recv() => Err(Error::Interrupted),
    }
}
