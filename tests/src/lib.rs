//! What the end-to-end tests stand on: a world of their own on the local cloud, a proxy that injects faults, and a
//! remediation in a process that can be killed.

pub mod alias;
pub mod api;
pub mod browser;
pub mod case;
pub mod cloud;
pub mod failure;
pub mod limits;
pub mod message;
pub mod page;
pub mod proxy;
pub mod replay;
pub mod stack;
pub mod world;

pub use failure::{Failure, Result};
