//! A deterministic simulation of the kernel: one seed plays one world, in one thread, and the same again each time.
//!
//! Everything above the AWS calls is the real code: runtime, guard, ledger, sweep. Below it is a small world in
//! memory ([`world`]): a table, alarms, a policy, kill switches, and targets that [`toys`] act on. A [`script`] says
//! what happens in it, a [`fate`] what becomes of each call, the [`driver`] plays both, [`invariants`] are checked
//! while it goes on and when it has come to rest, and [`shrink`] leaves of a failure what a person can follow.
//!
//! Time is tokio's, paused: it jumps to the next thing that happens.

pub mod driver;
pub mod error;
pub mod fate;
pub mod invariants;
pub mod mutants;
pub mod mutations;
pub mod outside;
pub mod script;
pub mod shrink;
pub mod stage;
pub mod store;
pub mod storm;
pub mod toys;
pub mod world;
