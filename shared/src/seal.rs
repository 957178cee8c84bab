//! The seal: what nothing outside of this crate can do, whatever a remediation is written to do.
//!
//! Each snippet that must not compile stands beside one that differs in the forbidden part only, and compiles.
//!
//! # The right to change a target comes from a claim alone
//!
//! A permit cannot be named, and so not be built:
//!
//! ```
//! use shared::ledger::Ledger;
//! fn takes(_: &Ledger) {}
//! ```
//!
//! ```compile_fail,E0603
//! use shared::ledger::permit::Permit;
//! fn takes(_: &Permit) {}
//! ```
//!
//! ```
//! use shared::ledger::store::Item;
//! fn made() -> Item {
//!     Item { ..Default::default() }
//! }
//! ```
//!
//! ```compile_fail,E0603
//! use shared::ledger::permit::Permit;
//! fn made() -> Permit {
//!     Permit { ..Default::default() }
//! }
//! ```
//!
//! The steps of a run are the runtime's alone:
//!
//! ```
//! let _ = shared::ledger::Ledger::new;
//! ```
//!
//! ```compile_fail,E0624
//! let _ = shared::ledger::Ledger::claim;
//! ```
//!
//! ```compile_fail,E0624
//! let _ = shared::ledger::Ledger::commit;
//! ```
//!
//! ```compile_fail,E0624
//! let _ = shared::ledger::Ledger::amend;
//! ```
//!
//! ```compile_fail,E0624
//! let _ = shared::ledger::Ledger::finish;
//! ```
//!
//! ```compile_fail,E0624
//! let _ = shared::ledger::Ledger::told;
//! ```
//!
//! ```compile_fail,E0624
//! let _ = shared::ledger::Ledger::checkpoint;
//! ```
//!
//! ```compile_fail,E0624
//! let _ = shared::ledger::Ledger::remember;
//! ```
//!
//! ```compile_fail,E0624
//! let _ = shared::ledger::Ledger::reconcile;
//! ```
//!
//! ```compile_fail,E0624
//! let _ = shared::ledger::Ledger::waits_no_more;
//! ```
//!
//! ```compile_fail,E0624
//! let _ = shared::ledger::Ledger::beat;
//! ```
//!
//! # Grounds and refusals come from the guard
//!
//! Both are read outside, and neither is put together there:
//!
//! ```
//! use shared::guard::Grounds;
//! fn another(grounds: Grounds) -> Grounds {
//!     grounds
//! }
//! ```
//!
//! ```compile_fail,E0639
//! use shared::guard::Grounds;
//! fn another(grounds: Grounds) -> Grounds {
//!     Grounds { round: 7, ..grounds }
//! }
//! ```
//!
//! ```
//! use shared::guard::Refusal;
//! use shared::outcome::Outcome;
//! fn refusal(outcome: Outcome) -> Refusal {
//!     Refusal::lasting(outcome)
//! }
//! ```
//!
//! ```compile_fail,E0639
//! use shared::guard::Refusal;
//! use shared::outcome::Outcome;
//! fn refusal(outcome: Outcome) -> Refusal {
//!     Refusal { outcome, breaker: None, look_at: None }
//! }
//! ```
//!
//! # A remediation works with what it is given
//!
//! ```
//! use shared::remediation::{Remediation, Work};
//! fn another<'a, R: Remediation>(work: Work<'a, R>) -> Work<'a, R> {
//!     work
//! }
//! ```
//!
//! ```compile_fail,E0451
//! use shared::remediation::{Remediation, Work};
//! fn another<'a, R: Remediation>(work: Work<'a, R>) -> Work<'a, R> {
//!     Work { round: 7, ..work }
//! }
//! ```
//!
//! A clearance is good for one call, and only its work gives it:
//!
//! ```
//! use shared::remediation::{Clearance, OutOfTime, Remediation, Work};
//! fn two<'a, R: Remediation>(work: &'a Work<'_, R>) -> Result<[Clearance<'a>; 2], OutOfTime> {
//!     let first = work.clear("raise the page")?;
//!     let second = work.clear("raise the page")?;
//!     Ok([first, second])
//! }
//! ```
//!
//! ```compile_fail,E0451
//! use shared::remediation::{Clearance, OutOfTime, Remediation, Work};
//! fn two<'a, R: Remediation>(work: &'a Work<'_, R>) -> Result<[Clearance<'a>; 2], OutOfTime> {
//!     let first = work.clear("raise the page")?;
//!     let second = Clearance { ..first };
//!     Ok([first, second])
//! }
//! ```
//!
//! ```compile_fail,E0599
//! use shared::remediation::{Clearance, OutOfTime, Remediation, Work};
//! fn two<'a, R: Remediation>(work: &'a Work<'_, R>) -> Result<[Clearance<'a>; 2], OutOfTime> {
//!     let first = work.clear("raise the page")?;
//!     let second = first.clone();
//!     Ok([first, second])
//! }
//! ```
//!
//! A call takes it for good, so that it cannot serve another:
//!
//! ```
//! use shared::remediation::Clearance;
//! fn call(_: Clearance<'_>) {}
//! fn calls(clearance: Clearance<'_>) {
//!     call(clearance);
//! }
//! ```
//!
//! ```compile_fail,E0382
//! use shared::remediation::Clearance;
//! fn call(_: Clearance<'_>) {}
//! fn calls(clearance: Clearance<'_>) {
//!     call(clearance);
//!     call(clearance);
//! }
//! ```
//!
//! The ledger and the permit behind the work are out of its reach:
//!
//! ```
//! use shared::remediation::{Remediation, Work};
//! fn reaches<R: Remediation>(work: &Work<'_, R>) {
//!     let _ = work.run_id();
//! }
//! ```
//!
//! ```compile_fail,E0616
//! use shared::remediation::{Remediation, Work};
//! fn reaches<R: Remediation>(work: &Work<'_, R>) {
//!     let _ = work.ledger;
//! }
//! ```
//!
//! ```compile_fail,E0616
//! use shared::remediation::{Remediation, Work};
//! fn reaches<R: Remediation>(work: &Work<'_, R>) {
//!     let _ = work.permit;
//! }
//! ```
//!
//! # What is in place is taken back by the runtime alone
//!
//! A work reads and writes the remediation's own items. It removes nothing, and has no way to the state to go back to:
//!
//! ```
//! use shared::remediation::{Remediation, Work};
//! async fn forgets<R: Remediation>(work: &Work<'_, R>, keys: &[String]) {
//!     let _ = work.load::<String>(keys).await;
//! }
//! ```
//!
//! ```compile_fail,E0599
//! use shared::remediation::{Remediation, Work};
//! async fn forgets<R: Remediation>(work: &Work<'_, R>, keys: &[String]) {
//!     let _ = work.delete::<String>(keys).await;
//! }
//! ```
//!
//! ```compile_fail,E0616
//! use shared::remediation::{Remediation, Work};
//! async fn forgets<R: Remediation>(work: &Work<'_, R>, keys: &[String]) {
//!     let _ = work.ledger.notes::<String>(work.permit, keys).await;
//! }
//! ```
