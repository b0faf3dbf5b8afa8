//! Administration over a Unix socket that only root (and the coordinator's own user) may use: HTTP and JSON.

pub mod api;
mod audit;
mod authorities;
pub mod client;
mod enrolment;
mod policy;
mod relays;
pub mod server;
mod stock;
mod upkeep;
mod views;
