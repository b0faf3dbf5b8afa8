//! The coordinator as nodes and administrators meet it: the real program, over real TLS and WebSockets, on loopback.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of tests panic as tests do")]
#![allow(clippy::print_stderr, reason = "what a failed test shows")]
#![allow(clippy::wildcard_enum_match_arm, reason = "one message is looked for among many")]

mod acme;
mod admin;
mod api;
mod approval;
mod audit;
mod choices;
mod crowd;
mod database;
mod demand;
mod enrol;
mod hands;
mod keys;
mod killed;
mod laptops;
mod links;
mod oidc;
mod older;
mod pages;
mod policy;
mod postgres;
mod restore;
mod robustness;
mod routes;
mod schedule;
mod static_peers;
mod stores;
mod stream;
mod support;
