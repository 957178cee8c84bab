//! The ledger on a table in memory.

mod claims;
mod due;
mod fences;
mod memory;
mod tries;
