//! Serving the interface on the private socket and on the system bus.
//!
//! ```text
//! Server ── accepts ──► one task per connection: object server + signals ◄── one connection for all: the system bus
//!                         │ calls                ▲ notices
//!                         ▼                      │
//!                       Backend (the agent; in tests and examples a made-up one)
//! ```
//!
//! Owns the socket file, the name on the bus, the connections and the check of who may change something. Knows nothing of the agent: it
//! only sees [`Backend`].

mod bus;
mod caller;
mod connection;
mod gate;
mod listen;
mod objects;
mod properties;
mod secret;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use ria_protocol::id::NetworkId;
use ria_protocol::join_key::JoinKey;
use tokio::sync::broadcast;

pub use self::bus::{BusState, serve_on_bus};
pub use self::caller::{Caller, CallerNames, Via};
pub use self::listen::{BindError, Server};
use crate::error::ApiError;
use crate::state::{
    AgentStatus, Event, JoinOptions, Joined, NetworkReport, NetworkStatus, PeerStatus, PingReply,
};

/// Something that the clients are told without asking.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A network came, went or got another interface.
    NetworksChanged,
    /// Status or peers of a network have changed; this is its status now.
    Changed(NetworkId, Arc<NetworkStatus>),
    /// Something happened in the network that the event names.
    Happened(Event),
}

/// How to probe a peer, as asked for; the backend judges it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// How many probes.
    pub count: u32,
    /// Seconds between two of them.
    pub interval: f64,
    /// Seconds to wait for each answer.
    pub timeout: f64,
}

/// What answers the calls. Callers of changing methods have been checked before.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The agent and its networks.
    async fn agent_status(&self) -> Result<AgentStatus, ApiError>;
    /// Joins a network; returns when its interface is up.
    async fn join(&self, key: JoinKey, options: JoinOptions, caller: Caller) -> Result<Joined, ApiError>;
    /// One network.
    async fn network_status(&self, network: NetworkId) -> Result<NetworkStatus, ApiError>;
    /// All other members, by name.
    async fn peers(&self, network: NetworkId) -> Result<Vec<PeerStatus>, ApiError>;
    /// Probes a peer (name, ROS name, id or overlay address).
    async fn ping(&self, network: NetworkId, peer: &str, probe: Probe) -> Result<Vec<PingReply>, ApiError>;
    /// Measures the network that this machine is in.
    async fn netcheck(&self, network: NetworkId) -> Result<NetworkReport, ApiError>;
    /// Environment variables for ROS 2 processes.
    async fn environment(&self, network: NetworkId) -> Result<BTreeMap<String, String>, ApiError>;
    /// Leaves for good.
    async fn leave(&self, network: NetworkId, caller: Caller) -> Result<(), ApiError>;
    /// Takes the network down or up.
    async fn set_enabled(&self, network: NetworkId, enabled: bool, caller: Caller) -> Result<(), ApiError>;
    /// Says where the coordinator is.
    async fn set_url(&self, network: NetworkId, url: &str, caller: Caller) -> Result<(), ApiError>;
    /// Has another WireGuard key; returns when it is in use.
    async fn rotate_key(&self, network: NetworkId, caller: Caller) -> Result<(), ApiError>;
    /// Notices from now on.
    fn notices(&self) -> broadcast::Receiver<Notice>;
}
