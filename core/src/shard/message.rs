//! What control and shard say to each other. They share nothing else, so a shard can have a thread of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::prefix::Prefix;

use crate::filter::{Filter, Rules};
use crate::lan::Lan;
use crate::multicast::MulticastPolicy;
use crate::packet::{Class, Destination, Lane, SocketIndex, Treatment};
use crate::routes::Routes;
use crate::session::Session;

/// Number of a peer: that of its shard, and behind it the one in the shard. It is the receiver index of WireGuard messages
/// without its last eight bits.
pub(crate) type Slot = u32;

/// Bits of a slot that number a peer within its shard; the four above number the shard.
pub(crate) const SLOT_BITS: u32 = 20;

/// The largest number of peers of a shard.
pub(crate) const MAX_SLOTS: usize = 1 << SLOT_BITS;

/// The largest number of shards.
pub(crate) const MAX_SHARDS: usize = 16;

/// The shard of a slot.
pub(crate) const fn shard_of(slot: Slot) -> usize {
    (slot >> SLOT_BITS) as usize
}

/// Where a shard of this number has the peer; far beyond all places when it is another shard's.
pub(crate) const fn place(shard: usize, slot: Slot) -> usize {
    if shard_of(slot) == shard { within(slot) } else { usize::MAX }
}

/// The number within its shard.
pub(crate) const fn within(slot: Slot) -> usize {
    slot as usize & (MAX_SLOTS - 1)
}

/// From control to a shard.
pub(crate) enum ShardCommand {
    AddNetwork {
        network: NetworkId,
        mtu: u16,
    },
    /// Its peers are removed one by one before.
    RemoveNetwork(NetworkId),
    SetRoutes {
        network: NetworkId,
        routes: Box<Routes>,
        /// This node's own overlay addresses.
        own: Vec<IpAddr>,
    },
    /// The local networks behind this node.
    SetLans {
        network: NetworkId,
        lans: Vec<Lan>,
    },
    /// Members of these prefixes come to be known when there is something to say to them; none: all are known.
    SetWanted {
        network: NetworkId,
        prefixes: Vec<Prefix>,
    },
    /// Nobody has this address whom this node may have to do with.
    SetAbsent {
        network: NetworkId,
        address: IpAddr,
    },
    SetFilter {
        /// Each has a filter of its own.
        shard: usize,
        network: NetworkId,
        filter: Box<dyn Filter>,
    },
    /// The network's policy allows this from now on; absent: everything.
    SetRules {
        network: NetworkId,
        rules: Option<Arc<Rules>>,
        /// For a table of flows, when it is the first policy.
        seed: [u64; 2],
    },
    SetMulticast {
        network: NetworkId,
        policy: Box<MulticastPolicy>,
    },
    AddPeer {
        slot: Slot,
        network: NetworkId,
        node: NodeId,
        session: Box<dyn Session>,
        conduct: Conduct,
    },
    RemovePeer(Slot),
    /// Send to the peer this way; `None` while no path works.
    SetRoute {
        slot: Slot,
        route: Option<Route>,
    },
    /// This end or the other has another key: the session takes over as soon as it is ready.
    Rekey {
        slot: Slot,
        session: Box<dyn Session>,
        conduct: Conduct,
    },
    /// The peer is a new run: sessions of the old one are void. One that began at `since` or later is with the new run.
    ReplaceSession {
        slot: Slot,
        session: Box<dyn Session>,
        since: Instant,
    },
}

impl ShardCommand {
    /// A copy for another shard, of what concerns a whole network; `None` for what concerns one shard or one peer.
    pub(crate) fn copy(&self) -> Option<Self> {
        match self {
            Self::AddNetwork { network, mtu } => Some(Self::AddNetwork { network: *network, mtu: *mtu }),
            Self::RemoveNetwork(network) => Some(Self::RemoveNetwork(*network)),
            Self::SetRoutes { network, routes, own } => {
                Some(Self::SetRoutes { network: *network, routes: routes.clone(), own: own.clone() })
            }
            Self::SetLans { network, lans } => Some(Self::SetLans { network: *network, lans: lans.clone() }),
            Self::SetRules { network, rules, seed } => {
                Some(Self::SetRules { network: *network, rules: rules.clone(), seed: *seed })
            }
            Self::SetMulticast { network, policy } => {
                Some(Self::SetMulticast { network: *network, policy: policy.clone() })
            }
            Self::SetFilter { .. }
            | Self::SetWanted { .. }
            | Self::SetAbsent { .. }
            | Self::AddPeer { .. }
            | Self::RemovePeer(_)
            | Self::SetRoute { .. }
            | Self::Rekey { .. }
            | Self::ReplaceSession { .. } => None,
        }
    }

    /// The one shard that it is for; of those that are for all, the first.
    pub(crate) fn shard(&self) -> usize {
        match self {
            Self::AddNetwork { .. }
            | Self::RemoveNetwork(_)
            | Self::SetRoutes { .. }
            | Self::SetLans { .. }
            | Self::SetRules { .. }
            | Self::SetMulticast { .. }
            // What no peer has is seen by the first.
            | Self::SetWanted { .. }
            | Self::SetAbsent { .. } => 0,
            Self::SetFilter { shard, .. } => *shard,
            Self::AddPeer { slot, .. }
            | Self::RemovePeer(slot)
            | Self::SetRoute { slot, .. }
            | Self::Rekey { slot, .. }
            | Self::ReplaceSession { slot, .. } => shard_of(*slot),
        }
    }
}

/// How a peer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// It runs an agent: control finds its paths.
    Agent {
        /// Whether this end begins handshakes and rekeys, and the other only when it has waited in vain.
        leads: bool,
    },
    /// It runs stock WireGuard. It is where its last authentic datagram came from, and either end begins a handshake
    /// when it has something to send.
    Stock {
        /// How often this end says something so that the way stays open; it then keeps a session at all times.
        keepalive: Option<Duration>,
    },
}

/// How datagrams get to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    /// The peer, or the relay.
    pub(crate) to: SocketAddr,
    pub(crate) from: Option<IpAddr>,
    pub(crate) socket: SocketIndex,
    /// TURN channel number, for a relay.
    pub(crate) channel: Option<u16>,
    /// Round-trip time as far as known.
    pub(crate) rtt: Duration,
    /// Which bits of a packet's traffic class its datagram bears as well.
    pub(crate) marks: u8,
    /// Whether the path does not carry full datagrams whole.
    pub(crate) fragments: bool,
}

impl Route {
    /// Straight to an address.
    pub(crate) fn direct(to: SocketAddr, from: Option<IpAddr>, rtt: Duration) -> Self {
        Self { to, from, socket: SocketIndex::MAIN, channel: None, rtt, marks: 0, fragments: false }
    }

    /// Where a datagram goes; `traffic_class` is that of the packet in it.
    pub(crate) fn destination(&self, class: Class, lane: Lane, traffic_class: u8) -> Destination {
        let treatment = Treatment { traffic_class: traffic_class & self.marks, fragments: self.fragments };
        Destination { to: self.to, from: self.from, socket: self.socket, class, lane, treatment }
    }
}

/// From a shard to control.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ShardEvent {
    /// Packets can be sealed for the peer.
    SessionUp { slot: Slot },
    /// They can't any more.
    SessionDown { slot: Slot },
    /// Something passed since the last report.
    Traffic { slot: Slot, traffic: Traffic },
    /// The policy stopped packets to or from the peer.
    Denied { slot: Slot, denied: Denied },
    /// A stock peer is at another address than before.
    Roamed { slot: Slot, to: SocketAddr },
    /// Packets wait for somebody who is not held yet.
    Wanted { network: NetworkId, address: IpAddr },
    /// The peer is gone: nothing more comes of its slot.
    Removed { slot: Slot },
}

/// Packets that the policy has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// Whether the last one was for the peer; else it was from there.
    pub outbound: bool,
    /// Its IP protocol.
    pub protocol: u8,
    /// The port that it was for, where there is one.
    pub port: Option<u16>,
    /// How many since this was told last.
    pub count: u64,
}

/// What has passed, in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_packets: u64,
    pub(crate) tx_packets: u64,
    /// When something authentic came last, keepalives included.
    pub(crate) heard: Option<Instant>,
    /// When data came last, and from where; `None` when it came by a relay.
    pub(crate) data: Option<(Instant, Option<SocketAddr>)>,
    /// When an inner packet passed last, in either direction.
    pub(crate) active: Option<Instant>,
    /// When the current session's handshake was.
    pub(crate) handshake: Option<Instant>,
    /// Since when a stock peer has left packets without any answer.
    pub(crate) unanswered: Option<Instant>,
}
