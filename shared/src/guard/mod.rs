//! The guard: whether a run may act, what is due, and what the ledger holds afterwards; all of it pure.
//!
//! [`decide`](decide::decide) answers a [`Question`] with a [`Verdict`], [`duty`](duty::duty) says what the schedule
//! owes a target, and `next` gives the facts after each step, which the ledger writes. None of it calls anything
//! or reads a clock, so that the same decisions are made in production, in a test and in the simulation.

pub mod approval;
pub mod decide;
pub mod duty;
pub mod effect;
pub(crate) mod next;
pub mod question;
#[cfg(test)]
pub(crate) mod scene;

pub use decide::decide;
pub use question::{Grounds, LiveAlarm, Occasion, Question, Refusal, Verdict};
