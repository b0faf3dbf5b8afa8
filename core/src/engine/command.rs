//! What the caller asks of the engine.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::map::{PatchSet, Revision, Snapshot};
use ria_protocol::message::LiveUpdate;
use ria_protocol::prefix::Prefix;
use ria_protocol::time::UnixTime;
use zeroize::Zeroizing;

use crate::lan::Lan;
use crate::multicast::MulticastPolicy;
use crate::packet::SocketIndex;

/// Something to do. All are applied at once; what follows from them comes as events and datagrams.
#[derive(Debug)]
pub enum Command {
    /// Be a member of a network. Peers come with its map.
    AddNetwork(AddNetwork),
    /// This node's key in a network is this from now on, as the map says it is. Paths stay, and sessions are handed over.
    SetPrivateKey {
        /// Which network.
        network: NetworkId,
        /// X25519 private key.
        private_key: PrivateKey,
    },
    /// Forget a network with its peers, sessions and relays.
    RemoveNetwork(NetworkId),
    /// The network's durable state is this.
    SetMap {
        /// Which network; the snapshot must say the same.
        network: NetworkId,
        /// Its state.
        snapshot: Snapshot,
    },
    /// Durable changes, in order. Refused with [`CommandError::RevisionGap`] when they don't follow what is there.
    ApplyPatches {
        /// Which network.
        network: NetworkId,
        /// The changes.
        patches: PatchSet,
    },
    /// News of who is online and reachable where.
    ApplyLive {
        /// Which network.
        network: NetworkId,
        /// The news.
        update: LiveUpdate,
    },
    /// It is this time at the network's coordinator. Memberships that have an end do so by this clock.
    SetTime {
        /// Which network.
        network: NetworkId,
        /// The time: no earlier than this.
        time: UnixTime,
        /// And no later than this, as far as anybody here knows. What a policy allows for a time ends by it.
        latest: UnixTime,
    },
    /// Nobody has this address whom this node may have to do with: the answer to
    /// [`Event::PeerWanted`](super::Event::PeerWanted), when the map does not list such a member instead.
    SetAbsent {
        /// Which network.
        network: NetworkId,
        /// Which address.
        address: IpAddr,
    },
    /// The relays of a network, best first; replaces those before. The first is bound at once and kept, from a
    /// socket of its own when another network of this engine uses the same one. Fresh credentials for it change nothing else.
    SetRelays {
        /// Which network.
        network: NetworkId,
        /// The relays, with resolved addresses.
        relays: Vec<RelayServer>,
    },
    /// Whether the coordinator is there at the moment. While it is, a relay that gives no answer over UDP is sooner asked
    /// over TLS.
    SetCoordinatorReached {
        /// Which network.
        network: NetworkId,
        /// Whether it is there.
        reached: bool,
    },
    /// What became of a stream that [`Event::RelayStreamWanted`](super::Event::RelayStreamWanted) asked for.
    RelayStream {
        /// Which network.
        network: NetworkId,
        /// Which stream.
        socket: SocketIndex,
        /// What.
        news: StreamNews,
    },
    /// The addresses of this host's interfaces with the UDP port's number, for all networks. Overlay, loopback and
    /// link-local addresses are left out by the engine. Give it again whenever an interface or route changes: it also
    /// makes the engine prove all its paths anew. None at all means that there is no network: all links are lost at once.
    SetHostCandidates(Vec<SocketAddr>),
    /// Packets leave this host another way than before (default route, access point, network under the same addresses):
    /// all paths are proven anew, and relays spoken to anew. After [`Self::SetHostCandidates`] where both have changed.
    Rerouted {
        /// Those over IPv4.
        ipv4: bool,
        /// Those over IPv6.
        ipv6: bool,
    },
    /// The outer address that a router has opened for the UDP port, for all networks: reported like one that a server
    /// saw.
    SetMappedAddress(Option<SocketAddr>),
    /// No path runs inside of these prefixes, which are this machine's own affair, whatever peers report.
    SetAvoided(Vec<Prefix>),
    /// What of a network's multicast is carried; until then the default.
    SetMulticast {
        /// Which network.
        network: NetworkId,
        /// What.
        policy: MulticastPolicy,
    },
    /// The local networks behind this node that others reach through it. Packets between them and peers are translated, and
    /// pass the interface with the addresses that these networks have here. Without any, only what is for the node itself does.
    SetLans {
        /// Which network of the overlay.
        network: NetworkId,
        /// Which local networks.
        lans: Vec<Lan>,
    },
    /// The addresses from which beacons can go to everybody on their link, link-local ones too (with their scope), each
    /// with the UDP port's number. None: no beacons are sent.
    SetBeaconPlaces(Vec<SocketAddr>),
    /// Measure the way to a peer. Ends in exactly one [`Event::PingFinished`](super::Event::PingFinished).
    StartPing {
        /// Which network.
        network: NetworkId,
        /// Which peer.
        peer: NodeId,
        /// The caller's number for it.
        id: PingId,
        /// How long to wait, for a path first and for the answer then.
        timeout: Duration,
    },
}

/// An X25519 private key on its way into the engine.
pub struct PrivateKey(pub Zeroizing<[u8; 32]>);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(hidden)")
    }
}

/// The caller's number for a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingId(pub u64);

/// This node's part in a network.
pub struct AddNetwork {
    /// Which network.
    pub id: NetworkId,
    /// X25519 private key of this node in this network.
    pub private_key: Zeroizing<[u8; 32]>,
    /// This node in this network.
    pub node: NodeId,
    /// This run: drawn at random each time a network is added, so that peers notice that all sessions are new.
    pub boot: BootId,
    /// MTU of the overlay interface; larger packets are dropped.
    pub mtu: u16,
}

impl fmt::Debug for AddNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the private key.
        f.debug_struct("AddNetwork").field("id", &self.id).field("node", &self.node).finish_non_exhaustive()
    }
}

/// A STUN and TURN server with this node's credentials for it.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayServer {
    /// Its name in status.
    pub name: String,
    /// Where it is, resolved.
    pub address: SocketAddr,
    /// TCP port of TURN over TLS at the same place, where there is one.
    pub tls_port: Option<u16>,
    /// TURN user name.
    pub username: String,
    /// TURN password.
    pub password: String,
}

impl fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayServer({} at {})", self.name, self.address)
    }
}

/// What became of a stream to a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamNews {
    /// It is open, and new: the relay knows nothing of one before.
    Opened,
    /// It is closed, or could not be opened, for this reason; who opens it tries again by itself.
    Closed(String),
}

/// Why a command was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The network was added before.
    #[error("network {0} is there already")]
    NetworkExists(NetworkId),
    /// The network was never added, or removed.
    #[error("network {0} is not joined")]
    NoSuchNetwork(NetworkId),
    /// The snapshot belongs to another network.
    #[error("the map is of network {0}, which is not the one that it came for")]
    OtherNetwork(NetworkId),
    /// The patches don't follow the revision that is there; the caller asks its coordinator for a snapshot.
    #[error("patches begin at revision {from:?}, but the map is at {have:?}; a snapshot is needed")]
    RevisionGap {
        /// Revision of the map, when there is one.
        have: Option<Revision>,
        /// Revision that the patches need.
        from: Revision,
    },
    /// No network more fits into this engine.
    #[error("this engine serves at most {0} networks")]
    TooManyNetworks(usize),
}
