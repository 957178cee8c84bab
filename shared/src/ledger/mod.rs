//! The ledger: incidents, timelines, claims, leases, snapshots and kill switches in one `DynamoDB` table.
//!
//! [`items`] says what the table holds and under which keys, [`store`] the narrow door to it, `table` is the one
//! file that knows `DynamoDB`. `difference` turns facts before and facts after into writes whose conditions are
//! exactly what was read, and `write` makes them in one transaction; `permit` is the right to act that a claim gives,
//! and `notes` is what a remediation may keep for itself.
//!
//! Reads are strongly consistent. Of any number of concurrent deliveries one claim succeeds.

pub(crate) mod difference;
mod error;
pub mod items;
pub(crate) mod notes;
pub(crate) mod permit;
pub(crate) mod read;
pub mod store;
mod table;
pub mod timeline;
pub(crate) mod write;

pub use error::LedgerError;
pub use read::Ledger;
#[cfg(test)]
mod tests;
