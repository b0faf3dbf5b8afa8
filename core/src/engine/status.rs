//! What can be read from the engine at any time, as plain values.

use std::net::SocketAddr;
use std::time::Duration;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::{Candidate, Member, MemberKind, NetworkInfo, Revision};
use ria_protocol::name::Name;
use ria_protocol::prefix::Prefix;
use ria_protocol::record::MemberRecord;

use crate::counters::DropCounters;
use crate::multicast::Clash;
use crate::relay::Transport;

/// State of the link to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkState {
    /// Nothing is known of where the peer might be, or it is a stock peer to which nobody has anything to say.
    #[default]
    Idle,
    /// Ways to the peer are being tried; none has worked yet.
    Connecting,
    /// A path works and the WireGuard session is there.
    Up,
    /// The same, but probes get lost.
    Degraded,
    /// It was up, and now no path answers.
    Lost,
    /// Policy lets nothing through, so there is neither path nor session; or the member's record was refused.
    Denied,
}

/// Kind of path that traffic to a peer takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathKind {
    /// None works.
    #[default]
    None,
    /// Straight to the peer.
    Direct,
    /// Through a relay, to which this node speaks over UDP.
    RelayUdp,
    /// Through a relay, to which this node speaks over TLS, because UDP does not get through.
    RelayTls,
}

/// How an end of a path is known (RFC 8445, section 4: candidate types).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateType {
    /// An address of one of its interfaces.
    Host,
    /// What a STUN server saw of it.
    ServerReflexive,
    /// What only the other end saw of it.
    PeerReflexive,
    /// What a relay gave it.
    Relayed,
}

/// The whole engine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineStatus {
    /// Networks in order of their id.
    pub networks: Vec<NetworkStatus>,
    /// Dropped packets.
    pub drops: DropCounters,
    /// Packets passed on between static peers and others, as their gateway.
    pub forwarded: u64,
}

/// One network.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkStatus {
    /// Which network.
    pub id: NetworkId,
    /// This node in it.
    pub node: NodeId,
    /// This node's public key.
    pub public_key: WgPublicKey,
    /// This node as its map lists it, once there is a map.
    pub own: Option<OwnStatus>,
    /// Revision of the map, once there is one.
    pub revision: Option<Revision>,
    /// The network's settings, once there is a map.
    pub info: Option<NetworkInfo>,
    /// Peers in order of their id, without this node.
    pub peers: Vec<PeerStatus>,
    /// What this node would report as its candidates now.
    pub candidates: Vec<Candidate>,
    /// Addresses that STUN and TURN servers saw; more than one for one server means a symmetric NAT.
    pub reflexive: Vec<SocketAddr>,
    /// The relay that this node uses, when it has one.
    pub relay: Option<RelayStatus>,
    /// What programs of this node and of others have and only one should: names of ROS nodes, `/cmd_vel`, `/tf`.
    pub clashes: Vec<Clash>,
    /// Version of the policy that is enforced; `None` where there is none.
    pub policy: Option<u64>,
}

/// This node in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnStatus {
    /// Its name.
    pub name: Name,
    /// Its addresses, without those that it forwards for.
    pub prefixes: Vec<Prefix>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The address that it gave this node; `None` while it is not bound.
    pub relayed: Option<SocketAddr>,
    /// Over what it is spoken to.
    pub transport: Transport,
    /// Why it is not bound, for people.
    pub failure: Option<String>,
}

impl PeerStatus {
    /// Of a member that the map lists and with which nothing is exchanged.
    pub(crate) fn denied(record: MemberRecord, member: &Member, reason: &'static str) -> Self {
        Self {
            node: record.node,
            name: member.name.clone(),
            kind: member.kind,
            tags: record.tags.clone(),
            prefixes: record.own_prefixes().collect(),
            gateway: None,
            public_key: record.wg_key,
            online: false,
            link_state: LinkState::Denied,
            path: PathKind::None,
            candidates: None,
            endpoint: None,
            relay: None,
            path_reason: reason,
            rtt: None,
            rtt_deviation: None,
            loss: None,
            handshake_age: None,
            silent_for: None,
            unused_for: None,
            rx_bytes: 0,
            tx_bytes: 0,
            rx_packets: 0,
            tx_packets: 0,
            mtu: 0,
            carries: None,
            clock_offset: None,
            participants_seen: 0,
            participants_expected: None,
        }
    }
}

/// How two clocks differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClockOffset {
    /// By so many seconds the other one is ahead.
    pub seconds: f64,
    /// The truth is no further away than this, in seconds.
    pub error: f64,
}

/// One peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    /// Which peer.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: MemberKind,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its addresses, without those that it forwards for.
    pub prefixes: Vec<Prefix>,
    /// The member through which it is reached, when that is not this node.
    pub gateway: Option<Name>,
    /// Its public key.
    pub public_key: WgPublicKey,
    /// Whether it is connected to the coordinator, as far as known.
    pub online: bool,
    /// State of the link.
    pub link_state: LinkState,
    /// Path that traffic takes.
    pub path: PathKind,
    /// How both ends of that path are known: this node's, then the peer's. The peer sees the same the other way round.
    pub candidates: Option<(CandidateType, CandidateType)>,
    /// Remote address of that path: the peer's own, or the one that its relay gave it.
    pub endpoint: Option<SocketAddr>,
    /// Name of the relay, for a relayed path.
    pub relay: Option<String>,
    /// Why this path, for people.
    pub path_reason: &'static str,
    /// Smoothed round-trip time of that path.
    pub rtt: Option<Duration>,
    /// Mean deviation of that (RFC 6298).
    pub rtt_deviation: Option<Duration>,
    /// Share of that path's recent probes that got no answer, 0 to 1.
    pub loss: Option<f32>,
    /// Since the last WireGuard handshake; `None` without session.
    pub handshake_age: Option<Duration>,
    /// Since anything authentic came from the peer.
    pub silent_for: Option<Duration>,
    /// Since an inner packet passed last, in either direction; `None` before the first.
    pub unused_for: Option<Duration>,
    /// Bytes of inner packets received.
    pub rx_bytes: u64,
    /// Bytes of inner packets sent.
    pub tx_bytes: u64,
    /// Inner packets received.
    pub rx_packets: u64,
    /// Inner packets sent.
    pub tx_packets: u64,
    /// MTU of the overlay.
    pub mtu: u16,
    /// When that path does not carry the datagrams of full packets whole: the largest UDP payload that it is known to
    /// carry, 0 when it is none.
    pub carries: Option<u16>,
    /// How its clock differs from this machine's, when that is known.
    pub clock_offset: Option<ClockOffset>,
    /// Its DDS participants that have announced themselves here.
    pub participants_seen: usize,
    /// How many it has by its own count, once it has told.
    pub participants_expected: Option<u16>,
}
