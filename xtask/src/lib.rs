//! The project's own tasks, and the local cloud that the demo, the benchmarks and the end-to-end tests share.

pub mod bench;
pub mod checks;
pub mod cloud;
pub mod command;
pub mod demo;
pub mod error;
pub mod functions;
pub mod fuzz;
pub mod interrupt;
pub mod layout;
pub mod lock;
pub mod progress;
pub mod scaffold;
pub mod template;
pub mod tools;
pub mod workspace;

pub use error::{Error, Result};
