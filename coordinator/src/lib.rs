//! Ria's coordinator: who is in which network, what each node is told of it, and the relay.
//!
//! ```text
//! cli -> server: config, store, registry (the one writer), hub (who is connected), tls, session, relay, admin
//! ```

pub mod accept_gate;
pub mod acme;
pub mod admin;
pub mod admission;
pub mod anchor;
pub mod audit;
pub mod backup;
pub mod cli;
pub mod config;
pub mod duration;
pub mod enrol;
pub mod epoch;
pub mod evidence;
pub mod fellows;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod housekeeping;
pub mod https;
pub mod hub;
pub mod interest;
pub mod links;
pub mod metrics;
pub mod oidc;
mod open_files;
mod pages;
pub mod people;
pub mod person;
pub mod policy;
mod random;
pub mod registry;
pub mod relay;
pub mod relays;
pub mod rest;
pub mod server;
pub mod session;
mod site;
pub mod standalone;
pub mod state;
pub mod store;
pub mod surroundings;
pub mod tls;
pub mod vigil;
mod web;
pub mod witness;
