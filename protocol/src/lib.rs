//! Types that Ria's nodes and its coordinator share: identities, names, the join key, the network map and the
//! messages of the node stream.
//!
//! Everything on the wire is deterministic CBOR (RFC 8949 section 4.2: definite lengths, shortest integers, map keys
//! in ascending order), so equal values have equal bytes and may be signed. Field numbers are never reused.
//!
//! This crate does no I/O, reads no clock and holds no state.
#![warn(missing_docs)]

pub mod authority;
pub mod behaviour;
pub mod demand;
pub mod domains;
mod drop_reasons;
pub mod enrol;
pub mod error;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod id;
pub mod join_key;
mod key_text;
pub mod keys;
pub mod links;
pub mod map;
pub mod message;
pub mod multicast;
pub mod name;
pub mod policy;
pub mod prefix;
pub mod record;
pub mod relay;
pub mod requester;
pub mod rotation;
pub mod time;
pub mod version;
pub mod witness;

/// Application protocol (ALPN) of the node stream on the coordinator's TLS port.
pub const ALPN_NODE: &[u8] = b"ria/1";

/// Application protocol (ALPN) of TURN over TLS (RFC 7443), on the same port.
pub const ALPN_TURN: &[u8] = b"stun.turn";

/// The name in the coordinator's own certificate; nodes check it instead of the host name they dialled.
pub const COORDINATOR_TLS_NAME: &str = "coordinator.ria.internal";

/// HTTP path of the node stream's WebSocket.
pub const STREAM_PATH: &str = "/ria/v1/stream";

/// HTTP path of the WebSocket between a stand-alone relay and its coordinator.
pub const RELAY_PATH: &str = "/ria/v1/relay";

/// Largest message that a coordinator takes from a node, in bytes.
pub const MAX_NODE_MESSAGE: usize = 64 * 1024;

/// Largest message that a node takes from a coordinator (a snapshot of a few thousand members), in bytes.
pub const MAX_COORDINATOR_MESSAGE: usize = 8 * 1024 * 1024;
