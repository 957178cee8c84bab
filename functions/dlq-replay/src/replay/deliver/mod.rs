//! Delivering: receive a batch, judge its messages, send them where they belong, and remove what arrived.
//!
//! Architecture invariant: imports go one way, `batch` → `wave` → `arrive` → `send` and `remove`.

mod arrive;
mod batch;
mod remove;
mod send;
mod wave;

pub(super) use batch::{Batch, batch, look_up};
