//! The agent's side of the node stream: finding, verifying and talking to the coordinator.
//!
//! ```text
//! reach: DNS, TCP, through a proxy where there is one (race: attempts side by side)
//!   └ dial: TLS 1.3 (tls: who is trusted), WebSocket
//!   └ greet: first words, and whether the certificate is good now (freshness)
//!   └ stream: typed messages, liveness
//!       ├ enrol: once, with a join key
//!       ├ farewell: leaving, where no session stands
//!       └ session: for ever, with back-off; a task per network that speaks to the agent's loop by channels
//! ```
//!
//! Nothing here decides about interfaces, peers or files.

pub mod backoff;
pub mod device;
pub mod dial;
pub mod enrol;
pub mod farewell;
pub mod finding;
pub mod freshness;
pub mod greet;
pub mod proxy;
pub mod race;
pub mod reach;
pub mod relays;
pub mod session;
pub mod stream;
pub mod tls;
