//! The network map: what a node knows of its network, and the patches that change it.
//!
//! Two kinds of facts travel apart. *Durable* ones (members, addresses, settings) carry the network's revision, are
//! written with it in one transaction, and are resumed from it. *Live* ones (who is online, where it can be reached)
//! carry none; they are sent whole at the start of a session and then as changes.

use std::net::SocketAddr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::demand::PeerMode;
use crate::domains::RosDomains;
use crate::enrol::Authority;
use crate::id::{BootId, NetworkId, NodeId};
use crate::keys::{LockKey, PresharedKey};
use crate::multicast::MulticastGroups;
use crate::name::Name;
use crate::policy::NodePolicy;
use crate::prefix::Prefix;
use crate::record::SignedRecord;
use crate::time::UnixTime;

/// Revision of a network: grows by one with each durable change.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What is true for all members of a network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NetworkInfo {
    /// Identity.
    #[n(0)]
    pub id: NetworkId,
    /// Name.
    #[n(1)]
    pub name: Name,
    /// IPv4 prefix of the members' addresses.
    #[n(2)]
    pub prefix_v4: Prefix,
    /// IPv6 prefix (a unique local /64, RFC 4193) of the members' addresses.
    #[n(3)]
    pub prefix_v6: Prefix,
    /// MTU of the overlay interface in bytes, the same on every member.
    #[n(4)]
    pub mtu: u16,
    /// Keys of which one must have signed each member record; empty while the network is not locked.
    #[n(5)]
    pub lock_keys: Vec<LockKey>,
    /// Where the coordinator answers, best first; empty when it does not say, and then what is known stays.
    #[n(10)]
    #[cbor(default)]
    pub urls: Vec<String>,
    /// The ROS domains of its members; absent where they are everybody's own choice.
    #[n(20)]
    pub ros_domains: Option<RosDomains>,
    /// Multicast groups that are carried beside discovery.
    #[n(21)]
    pub multicast: Option<MulticastGroups>,
    /// Of whom its members are told; absent: of everybody.
    #[n(61)]
    pub peers: Option<PeerMode>,
}

impl NetworkInfo {
    /// Whether members are told of those only that they have to do with.
    pub fn is_on_demand(&self) -> bool {
        self.peers == Some(PeerMode::OnDemand)
    }
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum MemberKind {
    /// Runs Ria's agent.
    #[n(0)]
    Node,
    /// A stock WireGuard client, configured by a file.
    #[n(1)]
    Static,
    /// Runs Ria's agent and forwards for others.
    #[n(2)]
    Gateway,
}

/// A member as the map lists it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Member {
    /// Identity, keys and addresses, as canonical bytes.
    #[n(0)]
    pub record: SignedRecord,
    /// Name, unique in the network.
    #[n(1)]
    pub name: Name,
    /// What it is.
    #[n(2)]
    pub kind: MemberKind,
    /// How a static peer is talked to; absent for others, and in maps written before protocol 2.
    #[n(10)]
    pub stock: Option<StockPeer>,
    /// Its own ROS domain, in a network in which each has one ([`RosDomains::PerRobot`]).
    #[n(20)]
    pub ros_domain: Option<u8>,
    /// What it forwards to on its own local networks. Only the member itself goes by it; the others go by the prefixes in
    /// its record.
    #[n(30)]
    pub routes: Option<Vec<SubnetRoute>>,
}

/// A local network behind a member that others may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct SubnetRoute {
    /// How the others reach it; it is in the member's record.
    #[n(0)]
    pub prefix: Prefix,
    /// What it is there; of the same length.
    #[n(1)]
    pub lan: Prefix,
}

/// How members talk to a static peer: a device with stock WireGuard, which hears nothing from a coordinator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StockPeer {
    /// The member that forwards for it, and alone talks to it; absent when all members talk to it themselves. Not part
    /// of the signed record: who may forward follows from the prefixes in the gateway's own record.
    #[n(0)]
    pub gateway: Option<NodeId>,
    /// Only in the maps of members that talk to it themselves.
    #[n(1)]
    pub psk: Option<PresharedKey>,
    /// Where it listens, when that is known beforehand; else members learn it from what it sends.
    #[n(2)]
    pub endpoint: Option<SocketAddr>,
    /// Seconds between the keepalives that it was told to send; absent for none.
    #[n(3)]
    pub keepalive: Option<u16>,
}

/// The durable state of a network as one node may see it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Snapshot {
    /// Which revision this is.
    #[n(0)]
    pub revision: Revision,
    /// The network.
    #[n(1)]
    pub network: NetworkInfo,
    /// All members, the receiving node included, in order of node id.
    #[n(2)]
    pub members: Vec<Member>,
    /// What the receiving node has to enforce; absent where everything is allowed.
    #[n(10)]
    pub policy: Option<NodePolicy>,
}

/// One durable change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Patch {
    /// The network's settings are now these.
    #[n(0)]
    NetworkChanged(#[n(0)] NetworkInfo),
    /// A member is new, or has changed to this.
    #[n(1)]
    MemberSet(#[n(0)] Member),
    /// A member is gone.
    #[n(2)]
    MemberRemoved(#[n(0)] NodeId),
    /// What the receiving node has to enforce is now this. Version 2; each node is told its own, so it is in no log.
    #[n(10)]
    PolicySet(#[n(0)] NodePolicy),
}

/// The durable changes that lead from revision `from` to revision `to`, in order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PatchSet {
    /// Revision that the receiver must have.
    #[n(0)]
    pub from: Revision,
    /// Revision that it has afterwards.
    #[n(1)]
    pub to: Revision,
    /// What changed.
    #[n(2)]
    pub patches: Vec<Patch>,
}

/// How a transport address was learnt (RFC 8445 section 5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum CandidateKind {
    /// An address of one of its interfaces.
    #[n(0)]
    Host,
    /// What a STUN server saw (RFC 8489).
    #[n(1)]
    ServerReflexive,
    /// What a TURN server gave (RFC 8656).
    #[n(2)]
    Relayed,
}

/// A transport address at which a node may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct Candidate {
    /// How it was learnt.
    #[n(0)]
    pub kind: CandidateKind,
    /// Where.
    #[n(1)]
    pub address: SocketAddr,
}

/// What is known of a member at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Live {
    /// The member.
    #[n(0)]
    pub node: NodeId,
    /// Whether it is connected to the coordinator.
    #[n(1)]
    pub online: bool,
    /// Which run of its agent reported last; absent before the first report.
    #[n(2)]
    pub boot: Option<BootId>,
    /// Where it may be reached, as it reported last. Empty means "not known", never "forget".
    #[n(3)]
    pub candidates: Vec<Candidate>,
}

/// Where a relay is to be found.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RelayHost {
    /// At the address under which the node reached its coordinator.
    #[n(0)]
    Coordinator,
    /// At this IP address or host name.
    #[n(1)]
    Name(#[n(0)] String),
}

/// A relay (STUN and TURN server) and this node's credentials for it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Relay {
    /// Its name in status and logs.
    #[n(0)]
    pub name: String,
    /// Where it is.
    #[n(1)]
    pub host: RelayHost,
    /// UDP port of STUN and TURN.
    #[n(2)]
    pub udp_port: u16,
    /// TURN user name (RFC 8489 section 9.2).
    #[n(3)]
    pub username: String,
    /// TURN password.
    #[n(4)]
    pub password: String,
    /// When the credentials end.
    #[n(5)]
    pub expires: UnixTime,
    /// TCP port of TURN over TLS (RFC 8656 section 3.1), where there is one. Clients name [`ALPN_TURN`](crate::ALPN_TURN).
    /// A relay within the coordinator shows the coordinator's own certificate there.
    #[n(6)]
    pub tls_port: Option<u16>,
    /// What certificate another relay shows at `tls_port`; absent for one within the coordinator.
    #[n(7)]
    pub tls: Option<RelayTls>,
}

/// By what a relay is known that is not within the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayTls {
    /// The name, or the address, that its certificate is for.
    #[n(0)]
    pub name: String,
    /// The authorities of which one has issued it; absent when it is the coordinator's own.
    #[n(1)]
    pub authorities: Option<Vec<Authority>>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relay({} at {:?}:{}, until {})", self.name, self.host, self.udp_port, self.expires.0)
    }
}
