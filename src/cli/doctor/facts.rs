//! What the doctor looks at, as plain values.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ria_api::state::{AgentStatus, NetworkStatus, PeerStatus};

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub agent: AgentStatus,
    pub networks: Vec<NetworkFacts>,
    pub processes: Processes,
    pub host: HostFacts,
    pub neighbours: Vec<Neighbour>,
    /// How many participants of a machine are asked for, where its peers are asked one by one.
    pub ports_asked: Option<usize>,
}

/// Where DDS participants were heard beside the overlay, out of reach for processes with Ria's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub interface: String,
    pub address: Ipv4Addr,
}

/// One network.
#[derive(Debug, Clone, Default)]
pub struct NetworkFacts {
    pub status: NetworkStatus,
    pub peers: Vec<PeerStatus>,
    /// What `ria env` starts from; empty where DDS is left to the user.
    pub environment: BTreeMap<String, String>,
    /// `None` when there is no interface of that name here.
    pub interface: Option<InterfaceFacts>,
}

/// An interface as the kernel shows it.
#[derive(Debug, Clone, Copy, Default)]
pub struct InterfaceFacts {
    pub is_up: bool,
    pub is_multicast: bool,
    pub queue_length: u64,
    pub tx_dropped: u64,
}

/// The processes of this machine's network.
#[derive(Debug, Clone, Default)]
pub struct Processes {
    /// Those with ROS 2 or DDS in them.
    pub ros: Vec<Process>,
    /// Those that this user may not look into.
    pub hidden: usize,
    /// Of these, the ones that look like ROS from outside.
    pub hidden_ros: Vec<String>,
}

/// A process with DDS in it.
#[derive(Debug, Clone, Default)]
pub struct Process {
    pub pid: u32,
    pub uid: u32,
    /// Its program, for people.
    pub name: String,
    /// Seconds since the machine's start.
    pub started: f64,
    pub environment: BTreeMap<String, String>,
    pub middleware: Vec<Middleware>,
    /// Whether it is the daemon of the `ros2` command, which keeps a graph of its own.
    pub is_daemon: bool,
    /// Number of its IPC namespace, in which its shared memory is.
    pub ipc: u64,
    /// Local IPv4 addresses of its UDP sockets.
    pub udp: Vec<Ipv4Addr>,
}

/// What it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Middleware {
    FastDds2,
    FastDds3,
    Cyclone,
}

/// The machine.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    /// Kernel settings by name, as far as they can be read here.
    pub settings: BTreeMap<&'static str, u64>,
    /// Datagrams that were never whole again, since the start.
    pub reassembly_failed: u64,
    /// Fragments that were sent.
    pub fragments_created: u64,
    /// Datagrams for which there was no room in the receiver's buffer.
    pub buffer_errors: u64,
}
