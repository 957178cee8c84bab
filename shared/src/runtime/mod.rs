//! The one entry point of every function: from an event to a report, through the guard, whatever the remediation.
//!
//! [`start`] is the function's life, `run` one invocation, `target` one run on one target, which `decide` decides and
//! `claim`, `act`, `settle` and `restore` carry out; `refuse` and `conclude` write its end and `tell` tells it.
//! [`outside`] is all that is asked of AWS besides the ledger and the target. `sweep` is the schedule's look at
//! everything that is due, `overdue` what it does where nothing takes that back,
//! and `effects` whether what was done helped.

mod act;
mod alarms;
mod aws;
mod claim;
mod conclude;
mod decide;
mod effects;
mod engine;
mod error;
mod invocation;
mod job;
mod judge;
mod look;
pub mod outside;
mod overdue;
mod plan;
mod policies;
mod reads;
mod refuse;
mod restore;
mod run;
mod settle;
pub mod start;
mod steps;
mod suite;
mod sweep;
mod target;
mod tell;
mod update;

pub use engine::Runtime;
pub use error::{RunError, StartError};
pub use invocation::Invocation;
pub use start::run;
pub use suite::Suite;
