//! The parts of the suite that every function shares.

use std::sync::Arc;

use aws_config::SdkConfig;

use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::runtime::aws::Aws;
use crate::runtime::outside::Outside;
use crate::settings::Settings;

/// The parts of the suite that every function shares.
#[derive(Debug, Clone)]
pub struct Suite {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) ledger: Ledger,
    pub(super) outside: Arc<dyn Outside>,
}

impl Suite {
    /// Builds the clients from one configuration.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock, config: &SdkConfig) -> Self {
        let client = aws_sdk_dynamodb::Client::new(config);
        let ledger = Ledger::in_table(client, settings.ledger_table.clone());
        Self::of(settings, clock, ledger, Arc::new(Aws::new(config)))
    }

    /// A suite of these parts.
    #[must_use]
    pub fn of(settings: Settings, clock: Clock, ledger: Ledger, outside: Arc<dyn Outside>) -> Self {
        Self {
            settings,
            clock,
            ledger,
            outside,
        }
    }
}
