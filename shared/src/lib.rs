//! What every remediation stands on: alarms in, the guard in between, reports out.
//!
//! A run goes through [`runtime`]: the [`alarm`] event is parsed, the [`policy`] says which targets it
//! acts on, the [`guard`] decides from what the [`ledger`] holds, the [`remediation`] observes, plans,
//! applies and verifies, and one [`outcome`] is written, emitted and answered.

pub mod alarm;
pub mod arn;
pub mod aws_error;
pub mod backoff;
pub mod clock;
mod courtesy;
pub mod guard;
pub mod https;
pub mod ids;
pub mod ledger;
pub mod metric_data;
pub mod outcome;
pub mod policy;
pub mod remediation;
pub mod runtime;
pub mod schema;
pub mod sdk;
#[cfg(doctest)]
mod seal;
pub mod settings;
pub mod telemetry;
