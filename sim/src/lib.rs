//! Whole networks of Ria's engine in virtual time, under everything that can happen to them.
//!
//! The engines are the real ones. Around them are models: sessions without cryptography that behave in time as WireGuard's
//! ([`session`]), agents with disk and stream ([`agent`]), the coordinator ([`coordinator`]), NATs and a relay
//! ([`internet`], [`nat`], [`turn`]). What happens is a [`Plan`] of [`Happening`]s, drawn from a seed; [`run()`] makes the run
//! and says what was wrong, and [`shrink()`] makes a plan that fails small. One seed gives one run, to the last bit.
//!
//! Beside `core` and not in it, since its tests, a benchmark and a program of its own use it. Nothing of the product does.

pub mod agent;
pub mod coordinator;
pub mod happening;
pub mod internet;
pub mod ledger;
pub mod nat;
pub mod random;
pub mod run;
pub mod session;
pub mod shrink;
pub mod trace;
pub mod turn;
pub mod watch;
pub mod world;

pub use happening::{Happening, Plan};
pub use run::{Failure, Report, run, run_measured, run_traced};
pub use shrink::shrink;
