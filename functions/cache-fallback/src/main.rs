//! Starts the `cache-fallback` function.

use cache_fallback::CacheFallback;
use shared::runtime::{self, StartError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), StartError> {
    runtime::run(CacheFallback::new).await
}
