//! Client side of the interface.

use std::collections::BTreeMap;

use zbus::{Fd, proxy};

use crate::error::ApiError;
use crate::state::{
    AgentStatus, Event, JoinOptions, Joined, NetworkReport, NetworkStatus, PeerStatus, PingReply,
};

/// The agent.
#[proxy(
    interface = "org.ria.Overlay1",
    default_service = "org.ria.Overlay1",
    default_path = "/org/ria/Overlay1"
)]
pub trait Agent {
    /// The agent and its networks.
    fn status(&self) -> Result<AgentStatus, ApiError>;

    /// Joins the network of a join key, read from a file descriptor (at most 4 KiB). Returns when the interface is
    /// up, or with the reason why not.
    fn join(&self, key: Fd<'_>, options: JoinOptions) -> Result<Joined, ApiError>;

    /// A network came, went or got another interface.
    #[zbus(signal)]
    fn networks_changed(&self) -> zbus::Result<()>;
}

/// One network of the agent.
#[proxy(interface = "org.ria.Overlay1.Network", default_service = "org.ria.Overlay1")]
pub trait Network {
    /// The network on this machine.
    fn status(&self) -> Result<NetworkStatus, ApiError>;

    /// All other members, by name.
    fn peers(&self) -> Result<Vec<PeerStatus>, ApiError>;

    /// Probes a peer (name, ROS name, id or overlay address) `count` times (1 to 1000), `interval` apart, and waits
    /// `timeout` for each answer; both in seconds.
    fn ping(&self, peer: &str, count: u32, interval: f64, timeout: f64) -> Result<Vec<PingReply>, ApiError>;

    /// Measures the network that this machine is in; takes some seconds. Who asks while that goes on gets the same
    /// report.
    fn netcheck(&self) -> Result<NetworkReport, ApiError>;

    /// Environment variables for ROS 2 processes on this machine.
    fn environment(&self) -> Result<BTreeMap<String, String>, ApiError>;

    /// Leaves the network for good: the coordinator forgets the node, its keys are erased.
    fn leave(&self) -> Result<(), ApiError>;

    /// Takes the network down, keeping the membership, or up again.
    fn set_enabled(&self, enabled: bool) -> Result<(), ApiError>;

    /// Looks for the coordinator at this URL first, from now on. It has to answer there, with the same authority.
    fn set_url(&self, url: &str) -> Result<(), ApiError>;

    /// Changes this machine's WireGuard key, keeping addresses and links; returns when the new one is in use.
    fn rotate_key(&self) -> Result<(), ApiError>;

    /// Status or peers have changed; at most some times a second.
    #[zbus(signal)]
    fn changed(&self) -> zbus::Result<()>;

    /// Something happened.
    #[zbus(signal)]
    fn happened(&self, event: Event) -> zbus::Result<()>;
}
