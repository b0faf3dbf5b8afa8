//! The coordinator as nodes and administrators meet it: the real program, over real TLS and WebSockets, on loopback.
// Helpers of tests may panic as tests do, and look for one message among many.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stderr, clippy::wildcard_enum_match_arm)]

mod admin;
mod enrol;
mod robustness;
mod stream;
mod support;
