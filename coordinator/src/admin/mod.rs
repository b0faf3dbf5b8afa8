//! Administration over a Unix socket that only root (and the coordinator's own user) may use: HTTP and JSON.

pub mod api;
pub mod api_links;
pub mod api_people;
mod audit;
mod authorities;
pub mod chain;
pub mod client;
mod desk;
mod enrolment;
mod laptops;
mod leaving;
mod links;
mod people;
mod policy;
mod relays;
pub mod routes;
mod seen;
pub mod server;
mod stock;
mod upkeep;
mod views;

pub(crate) use laptops::laptop_key;
pub(crate) use people::welcome_link;
pub(crate) use server::urls_for_keys;
