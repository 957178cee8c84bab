//! Starts the `alias-rollback` function.

use alias_rollback::AliasRollback;
use shared::runtime::{self, StartError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), StartError> {
    runtime::run(AliasRollback::new).await
}
