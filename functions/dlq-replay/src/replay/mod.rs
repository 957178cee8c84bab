//! The replay itself: receive, send, remove; canary first, then as fast as the destination bears, until the queue is dry.
//!
//! `round` opens and closes; `watch` sets the pace of what `deliver` does batch by batch; `give_back` lets go of
//! what is left; `tell` says what it came to. All of them work on one `state` in one `context`.
//!
//! Architecture invariant: imports go one way, `round` → `watch` → `deliver` → `context` → `state` → `custody` and
//! `saved`, which has `groups` and `canary` in it; `give_back` stands on `context`, `tell` on `state`. `state` and what is below it make no call and read
//! no clock.

mod canary;
mod context;
mod custody;
mod deliver;
mod give_back;
mod groups;
mod lesson;
mod rehearse;
mod returns;
mod round;
mod saved;
mod state;
mod tell;
mod watch;

pub use canary::SentCanary;
pub use groups::Groups;
pub use rehearse::rehearse;
pub use round::Round;
pub use saved::{Memory, Progress};
