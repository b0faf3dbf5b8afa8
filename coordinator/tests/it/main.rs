//! The coordinator as nodes and administrators meet it: the real program, over real TLS and WebSockets, on loopback.

mod admin;
mod enrol;
mod robustness;
mod stream;
mod support;
