//! Starts the `maintenance-page` function.

use maintenance_page::MaintenancePage;
use shared::runtime::{self, StartError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), StartError> {
    runtime::run(MaintenancePage::new).await
}
