//! What the ledger holds after each step.

mod alarm;
mod refusals;
mod steps;
