//! What the agent tells: status, peers, pings and events. The same structures are the command line's JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zbus::Type;

use crate::dict;

/// Defines an enumeration that is a lower-case word on the wire.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Type)]
        #[zbus(signature = "s")]
        pub enum $name {
            $($(#[$item_doc])* #[serde(rename = $word)] $item,)+
            /// Not known, or a word of a newer version.
            #[default]
            #[serde(rename = "unknown", other)]
            Unknown,
        }

        impl $name {
            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Self::Unknown => "unknown",
                    $(Self::$item => $word),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// State of a network on this machine.
    NetworkState {
        /// Enrolling with the coordinator.
        Joining = "joining",
        /// An administrator has to approve this machine first.
        Waiting = "waiting",
        /// The interface is there.
        Up = "up",
        /// Switched off by `ria down`.
        Disabled = "disabled",
        /// Removed by an administrator, or its certificate is gone for good.
        Refused = "refused",
        /// The interface could not be made; see the conditions.
        Failed = "failed",
    }
}

words! {
    /// The agent's connection to the coordinator.
    CoordinatorState {
        /// Trying.
        Connecting = "connecting",
        /// The stream is open and the map current.
        Connected = "connected",
        /// Lost; the overlay works on from what is known.
        Unreachable = "unreachable",
        /// The coordinator does not accept this node.
        Refused = "refused",
    }
}

words! {
    /// What a peer is.
    PeerKind {
        /// Runs Ria.
        Node = "node",
        /// A stock WireGuard client.
        Static = "static",
        /// Forwards for others.
        Gateway = "gateway",
    }
}

words! {
    /// The tunnel to a peer.
    LinkState {
        /// Nothing to send, nothing heard.
        Idle = "idle",
        /// Looking for a path or shaking hands.
        Connecting = "connecting",
        /// Works.
        Up = "up",
        /// Works with loss.
        Degraded = "degraded",
        /// Worked, and no path answers now.
        Lost = "lost",
        /// Policy forbids it.
        Denied = "denied",
    }
}

words! {
    /// The way that packets to a peer take.
    PathKind {
        /// None yet.
        None = "none",
        /// Straight to the peer.
        Direct = "direct",
        /// Over a relay by UDP.
        RelayUdp = "relay_udp",
        /// Over a relay by TLS.
        RelayTls = "relay_tls",
    }
}

words! {
    /// How an end of a path is known: candidate type of RFC 8445.
    CandidateType {
        /// An address of one of its interfaces.
        Host = "host",
        /// What a STUN server saw of it, from outside its NAT.
        ServerReflexive = "server_reflexive",
        /// What only the other end saw of it.
        PeerReflexive = "peer_reflexive",
        /// What a relay gave it.
        Relayed = "relayed",
    }
}

words! {
    /// How much something matters.
    Severity {
        /// Good to know.
        Info = "info",
        /// Works, but not as it should.
        Warning = "warning",
        /// Does not work.
        Error = "error",
    }
}

/// Defines a structure whose fields are entries of an `a{sv}` dictionary, and plain fields in JSON.
macro_rules! dictionary {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        $(; optional $($(#[$opt_doc:meta])* $opt:ident: $opt_type:ty,)*)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Type)]
        #[serde(default)]
        #[zbus(signature = "a{sv}")]
        pub struct $name {
            $($(#[$field_doc])* #[serde(with = "dict")] pub $field: $type,)*
            $($($(#[$opt_doc])*
            #[serde(with = "dict::optional", skip_serializing_if = "Option::is_none")]
            pub $opt: Option<$opt_type>,)*)?
        }
    };
}

mod report;
mod uplink;
pub use report::{Answer, NatBehaviour, NetworkReport, RelayReport};
pub use uplink::{Connectivity, Uplink, UplinkKind};

dictionary! {
    /// The agent as a whole.
    AgentStatus {
        /// Version of the agent.
        version: String,
        /// This run of the agent.
        boot_id: String,
        /// The name that this machine would join under (from its host name); empty when none can be made of it.
        suggested_name: String,
        /// The networks that it is in.
        networks: Vec<NetworkSummary>,
        /// Health of the agent itself.
        conditions: Vec<Condition>,
        /// What the machine is connected by.
        uplink: Uplink,
        /// Where names of members are: `hosts` (the hosts file), `resolved` (systemd-resolved); empty: nowhere.
        names: String,
    }
}

dictionary! {
    /// One network in a list.
    NetworkSummary {
        /// Network id.
        id: String,
        /// Network name.
        name: String,
        /// D-Bus object path.
        path: String,
        /// Interface, such as `ria0`; empty while there is none.
        interface: String,
        /// State.
        state: NetworkState,
    }
}

dictionary! {
    /// A health condition: something that is not as it should be.
    Condition {
        /// Stable name, such as `coordinator-unreachable`.
        code: String,
        /// How much it matters.
        severity: Severity,
        /// What it is and what to do about it.
        text: String,
        /// Since when, seconds since 1970.
        since: f64,
    }
}

dictionary! {
    /// One network on this machine.
    NetworkStatus {
        /// Network id.
        network_id: String,
        /// Network name.
        network: String,
        /// State.
        state: NetworkState,
        /// This node's id.
        node_id: String,
        /// This node's name.
        name: String,
        /// Its form in ROS.
        ros_name: String,
        /// Interface, such as `ria0`.
        interface: String,
        /// Overlay addresses with prefix length of the network, IPv4 first.
        addresses: Vec<String>,
        /// Overlay MTU, bytes.
        mtu: u32,
        /// WireGuard public key, base64.
        public_key: String,
        /// What an administrator compares before this machine is approved; empty when it need not be.
        fingerprint: String,
        /// Connection to the coordinator.
        coordinator_state: CoordinatorState,
        /// URL of the coordinator in use.
        coordinator_url: String,
        /// Revision of the map.
        map_revision: u64,
        /// Peers in the map with which the policy allows something, this node not counted.
        peers_total: u32,
        /// Peers whose link is up.
        peers_up: u32,
        /// UDP port of the tunnel.
        udp_port: u32,
        /// Own candidates as reported: `host 192.0.2.7:41820`.
        candidates: Vec<String>,
        /// The relay in use; empty without one.
        relay: String,
        /// Health conditions of this network.
        conditions: Vec<Condition>,
        /// Certificate's end, seconds since 1970.
        certificate_expires: f64,
        /// Version of the agent.
        agent_version: String,
        /// Version of the coordinator; empty when never connected in this run.
        coordinator_version: String,
        /// Bytes received through the tunnel.
        rx_bytes: u64,
        /// Bytes sent through the tunnel.
        tx_bytes: u64,
        /// Packets dropped since the start, by reason.
        drops: BTreeMap<String, u64>,
        /// The last measurement of the network that this machine is in.
        report: NetworkReport,
        /// ROS domains whose discovery the network carries; empty for all.
        ros_domains: Vec<u32>,
        ; optional
        /// The ROS domain that `ria env` gives; absent where it is everybody's own choice.
        ros_domain: u32,
        /// Version of the policy that is enforced; absent where there is none, and everything is allowed.
        policy_version: u64,
        /// Since when the interface is there, in seconds since the machine's start (as `/proc/PID/stat` counts); absent
        /// without one. Processes that are older do not use it.
        interface_up_since: f64,
        /// By how many seconds this machine's clock is ahead of the coordinator's; negative when it is behind.
        clock_offset: f64,
    }
}

dictionary! {
    /// A peer and the link to it.
    PeerStatus {
        /// Node id.
        id: String,
        /// Name.
        name: String,
        /// Its form in ROS.
        ros_name: String,
        /// What it is.
        kind: PeerKind,
        /// Tags.
        tags: Vec<String>,
        /// Overlay addresses, IPv4 first.
        addresses: Vec<String>,
        /// Whether the coordinator sees it.
        coordinator_online: bool,
        /// The tunnel.
        link_state: LinkState,
        /// The way that packets take.
        path: PathKind,
        /// Outer address that packets are sent to; empty without one.
        endpoint: String,
        /// Relay of the path; empty when direct.
        relay: String,
        /// Why this path.
        path_reason: String,
        /// MTU, bytes.
        mtu: u32,
        /// Bytes received from it through the tunnel.
        rx_bytes: u64,
        /// Bytes sent to it through the tunnel.
        tx_bytes: u64,
        /// Its DDS participants (ROS 2 processes) that have announced themselves here.
        participants_seen: u32,
        /// ROS domains that it is given; empty where they are everybody's own choice.
        ros_domains: Vec<u32>,
        ; optional
        /// Its DDS participants by its own count; absent while it has not told.
        participants_expected: u32,
        /// Packets received from it through the tunnel.
        rx_packets: u64,
        /// Packets sent to it through the tunnel.
        tx_packets: u64,
        /// Round-trip time of the path, seconds.
        rtt: f64,
        /// Mean deviation of that, seconds.
        rtt_deviation: f64,
        /// Share of probes lost lately, 0 to 1.
        loss: f64,
        /// Age of the WireGuard handshake, seconds.
        handshake_age: f64,
        /// What happened to link or path last, in words.
        last_change: String,
        /// When that was, seconds since 1970.
        last_change_at: f64,
        /// How long nothing could be sent or received when the link was interrupted last, seconds.
        last_gap: f64,
        /// How this machine's end of the path is known.
        local_candidate: CandidateType,
        /// How the peer's end is.
        remote_candidate: CandidateType,
        /// By how much its clock is ahead of this machine's, seconds.
        clock_offset: f64,
        /// The truth is no further from that than this, seconds.
        clock_error: f64,
    }
}

impl PeerStatus {
    /// By how much its clock and this machine's are apart at least, seconds.
    pub fn clocks_apart(&self) -> Option<f64> {
        Some((self.clock_offset?.abs() - self.clock_error?).max(0.0))
    }
}

/// From this many seconds between two robots' clocks on, tf finds no transform at the time that it is asked for.
pub const CLOCKS_TOO_FAR_APART: f64 = 0.05;

dictionary! {
    /// The answer, or the missing one, to one ping.
    PingReply {
        /// Number of the ping, from 1.
        seq: u32,
        /// Whether an answer came in time.
        ok: bool,
        /// The way it took.
        path: PathKind,
        /// Outer address that it was sent to.
        endpoint: String,
        ; optional
        /// Round-trip time, seconds.
        rtt: f64,
    }
}

dictionary! {
    /// Something that happened.
    Event {
        /// Grows by one with each event of this run of the agent.
        seq: u64,
        /// When, seconds since 1970.
        time: f64,
        /// How much it matters.
        severity: Severity,
        /// What: `peer_added`, `peer_removed`, `link_state`, `path`, `coordinator`, `network`, `map`, `uplink`, `ros_clash`,
        /// `denied`, `access_point`.
        kind: String,
        /// Network id.
        network_id: String,
        /// Peer's name; empty when it concerns none.
        peer: String,
        /// State or path before; empty when there was none.
        before: String,
        /// State or path after.
        after: String,
        /// In words.
        text: String,
        ; optional
        /// How long nothing could be sent or received, seconds.
        gap: f64,
        /// Of `link_state` and `path`: the path that was in use; of a link that comes back, the one before it was lost.
        path_before: PathKind,
        /// The same: the path in use now.
        path_after: PathKind,
    }
}

dictionary! {
    /// How to join.
    JoinOptions {
        ; optional
        /// The name that a person chose; absent takes the host name and lets the coordinator number it.
        name: String,
    }
}

dictionary! {
    /// What has been joined.
    Joined {
        /// Network id.
        network_id: String,
        /// Network name.
        network: String,
        /// Name that the node was given.
        name: String,
        /// D-Bus object path of the network.
        path: String,
        /// Whether the machine was in that network before.
        already: bool,
        /// Whether an administrator has to approve it first; then it goes on by itself.
        waiting: bool,
        /// What that administrator compares; empty otherwise.
        fingerprint: String,
    }
}
