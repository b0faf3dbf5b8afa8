//! Ria's engine without input and output: peers, WireGuard sessions, paths, relay client, filter, map.
//!
//! It is a state machine. It has no sockets, files, threads or tasks, and reads no clock: the caller says what arrived
//! and what time it is, and asks what to send, what has happened and when to call again. All randomness comes from one
//! seed. So a whole network of engines runs in one test, in virtual time, and runs the same way twice. The one exception
//! is the module that wraps boringtun's `Tunn`, which reads clock and randomness itself.
//!
//! Begin with [`Engine`].

#![warn(missing_docs)]

pub mod beacon;
mod budget;
pub mod counters;
mod demux;
pub mod engine;
pub mod filter;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod ice;
mod icmp;
pub mod ip;
pub mod lan;
pub mod map;
mod marks;
mod mss;
pub mod multicast;
pub mod offload;
pub mod packet;
mod path;
mod peer;
pub mod relay;
mod rng;
mod routes;
mod rtps;
pub mod session;
mod shard;
pub mod stun;

pub use counters::{DropCounters, DropReason};
pub use engine::{
    AddNetwork, CandidateType, ClockOffset, Command, CommandError, DENIED_BY_POLICY, Engine, EngineConfig,
    EngineStatus, Event, LinkState, NetworkStatus, OwnStatus, PathKind, PeerStatus, PingId, PingOutcome,
    PrivateKey, RelayServer, RelayStatus, StreamNews, Warning,
};
pub use marks::Ecn;
pub use multicast::{Clash, Domains, MulticastPolicy, Unique};
pub use packet::{
    Class, DatagramBatch, Frame, Lane, NetworkPackets, PACKET_HEADROOM, PacketBatch, PacketSource, Received,
    SocketIndex, Transmit, Treatment,
};
pub use shard::Sinks;
pub use shard::message::Denied;
pub use shard::parcel::Parcel;
pub use shard::worker::ShardWorker;
