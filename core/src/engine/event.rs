//! What the engine tells the caller.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::{Candidate, Revision};
use ria_protocol::record::RecordError;

use super::command::PingId;
use super::status::{LinkState, PathKind};
use crate::packet::SocketIndex;
use crate::relay::Transport;
use crate::shard::message::Denied;

/// Something that happened, in past tense.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The map of a network is now at this revision; addresses, MTU or names may have changed.
    MapChanged {
        /// Which network.
        network: NetworkId,
        /// Its revision, to be acknowledged and stored.
        revision: Revision,
    },
    /// A peer is new.
    PeerAdded {
        /// Which network.
        network: NetworkId,
        /// Which peer.
        peer: NodeId,
    },
    /// Packets wait for this address, which no peer has: ask the coordinator of the network, which is an on-demand one, who
    /// has it. It comes again, once a second at most, while there are such packets.
    PeerWanted {
        /// Which network.
        network: NetworkId,
        /// Which address.
        address: IpAddr,
    },
    /// A peer is gone; its session is closed already.
    PeerRemoved {
        /// Which network.
        network: NetworkId,
        /// Which peer.
        peer: NodeId,
    },
    /// The link to a peer is in another state.
    LinkStateChanged {
        /// Which network.
        network: NetworkId,
        /// Which peer.
        peer: NodeId,
        /// State before.
        before: LinkState,
        /// State now.
        after: LinkState,
        /// How long nothing came through, for a link that comes back.
        gap: Option<Duration>,
        /// The path that was in use; for a link that comes back, the one before it was lost.
        path_before: PathKind,
        /// The path in use now.
        path_after: PathKind,
        /// Why, for people.
        reason: &'static str,
    },
    /// Traffic to a peer takes another path.
    PathChanged {
        /// Which network.
        network: NetworkId,
        /// Which peer.
        peer: NodeId,
        /// Path before.
        before: PathKind,
        /// Path now.
        after: PathKind,
        /// Remote address of the new path.
        endpoint: Option<SocketAddr>,
        /// For how long nothing had come through when the path before was given up; `None` when it worked on.
        gap: Option<Duration>,
        /// Why, for people.
        reason: &'static str,
    },
    /// Where this node can be reached has changed: report all of these to the coordinator.
    CandidatesChanged {
        /// Which network.
        network: NetworkId,
        /// Host, reflexive and relayed addresses, sorted.
        candidates: Vec<Candidate>,
    },
    /// A relay is bound.
    RelayUp {
        /// Which network.
        network: NetworkId,
        /// The relay's name.
        relay: String,
        /// Address that the relay gave.
        relayed: SocketAddr,
        /// Over what it is spoken to. It comes again when this changes.
        transport: Transport,
    },
    /// The relay does not answer over UDP: open a stream to it, and again whenever it breaks, until it is not wanted any
    /// more. Tell of it by [`Command::RelayStream`](super::Command::RelayStream). Datagrams for the stream have its number
    /// as their socket; what arrives goes to [`Engine::handle_udp_at`](super::Engine::handle_udp_at). Those are cut and
    /// joined by [`relay::framing`](crate::relay::framing).
    RelayStreamWanted {
        /// Which network.
        network: NetworkId,
        /// Number of the stream.
        socket: SocketIndex,
        /// The relay's name.
        relay: String,
        /// Where it is; datagrams of the stream are from and to here.
        address: SocketAddr,
    },
    /// Close the stream.
    RelayStreamUnwanted {
        /// Which network.
        network: NetworkId,
        /// Number of the stream.
        socket: SocketIndex,
    },
    /// A relay was lost or can't be bound, in no way; this is tried again by itself.
    RelayDown {
        /// Which network.
        network: NetworkId,
        /// The relay's name.
        relay: String,
        /// What happened, for people.
        reason: String,
    },
    /// Send this to everybody on the link of this address, and from it, to the beacons' port. It is not retried.
    BeaconDue {
        /// Which network.
        network: NetworkId,
        /// One of [`Command::SetBeaconPlaces`](super::Command::SetBeaconPlaces).
        from: SocketAddr,
        /// The beacon.
        datagram: Vec<u8>,
    },
    /// The policy has stopped packets to or from a peer. It comes once a minute and peer at most.
    Denied {
        /// Which network.
        network: NetworkId,
        /// Which peer.
        peer: NodeId,
        /// What.
        denied: Denied,
    },
    /// A ping has ended.
    PingFinished {
        /// The caller's number for it.
        id: PingId,
        /// Which network.
        network: NetworkId,
        /// Which peer.
        peer: NodeId,
        /// How it went.
        outcome: PingOutcome,
    },
    /// Something that an administrator may want to know. Nothing stops because of it.
    Warned {
        /// Which network.
        network: NetworkId,
        /// What.
        warning: Warning,
    },
}

/// How a ping ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PingOutcome {
    /// The peer answered.
    Answered {
        /// Round-trip time.
        rtt: Duration,
        /// Over which kind of path.
        path: PathKind,
        /// Remote address of the path.
        endpoint: SocketAddr,
    },
    /// There was a path, but no answer came in time.
    NoAnswer,
    /// No path to the peer worked in time.
    NoPath,
    /// The network has no such peer.
    UnknownPeer,
    /// It runs stock WireGuard, which knows no probes.
    NoAgent,
}

/// Something odd.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A member's record was refused, so it is no peer.
    #[error("member {name:?} is left out: {reason}")]
    MemberRefused {
        /// Its name, as the map says.
        name: String,
        /// Why.
        reason: RecordError,
    },
    /// Two members claim one prefix; the one with the smaller node id has it.
    #[error("members {0} and {1} claim the same prefix {2}; the first has it")]
    PrefixConflict(NodeId, NodeId, ria_protocol::prefix::Prefix),
    /// The map lists this node with another key than it has, or not at all.
    #[error("the network's map does not list this node with its key; join again")]
    NotListed,
}
