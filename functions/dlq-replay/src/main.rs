//! Starts the `dlq-replay` function.

use dlq_replay::DlqReplay;
use shared::runtime::{self, StartError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), StartError> {
    runtime::run(DlqReplay::new).await
}
