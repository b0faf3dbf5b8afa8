//! One network in the control part: who this node is in it, its map, its peers and its relay.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::{Candidate, CandidateKind, Live, Member};
use ria_protocol::prefix::Prefix;
use ria_protocol::record::RecordError;
use ria_protocol::time::UnixTime;
use x25519_dalek::StaticSecret;

use super::relay::Relay;
use super::status::{NetworkStatus, OwnStatus, PeerStatus};
use crate::beacon::Beacons;
use crate::ice::LocalCandidate;
use crate::map::NetworkMap;
use crate::packet::SocketIndex;
use crate::path::candidates::{MAX_DIRECT, usable};
use crate::peer::Peer;
use crate::peer::clock::WallClock;
use crate::peer::stock::{REASON_BEHIND, REASON_NO_GATEWAY};
use crate::relay::Transport;
use crate::session::NetworkSessions;
use crate::stun::BindingClient;

/// Why a member is no peer although nothing is wrong with it.
pub const DENIED_BY_POLICY: &str = "the policy of the network allows nothing between this node and it";

/// A network.
pub(super) struct Network {
    pub(super) id: NetworkId,
    pub(super) node: NodeId,
    pub(super) boot: BootId,
    pub(super) mtu: u16,
    pub(super) private: StaticSecret,
    pub(super) public: WgPublicKey,
    pub(super) sessions: Box<dyn NetworkSessions>,
    pub(super) map: NetworkMap,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// DDS participants of this host, as peers are told.
    pub(super) participants: u16,
    pub(super) by_key: BTreeMap<WgPublicKey, NodeId>,
    /// What is known of members at the moment; may be ahead of the map.
    pub(super) live: BTreeMap<NodeId, Live>,
    /// The relays in use, best first.
    pub(super) relays: Vec<Relay>,
    /// How they are bound, as the caller was told.
    pub(super) told: Vec<(Transport, SocketAddr)>,
    pub(super) binding: Option<BindingClient>,
    /// When STUN is asked again: after it gave no answer, and to keep a NAT's binding where no relay does.
    pub(super) binding_retry: Option<Instant>,
    /// What was reported last.
    pub(super) candidates: Vec<Candidate>,
    /// The same with what they are sent from.
    pub(super) locals: Arc<[LocalCandidate]>,
    /// The coordinator's clock, and when it was told.
    pub(super) clock: Option<(Instant, UnixTime)>,
    /// Members that look for each other here.
    pub(super) beacons: Beacons,
    /// Whether the caller was told that the map does not list this node.
    pub(super) unlisted: bool,
    /// Whether this node talks to stock peers in it, between whom and others it passes packets on.
    pub(super) has_stock: bool,
}

impl Network {
    /// The coordinator's time, as far as it is known.
    pub(super) fn time(&self, now: Instant) -> Option<UnixTime> {
        self.clock.map(|(at, time)| time.plus(now.saturating_duration_since(at)))
    }

    /// When the next membership ends.
    pub(super) fn end_deadline(&self) -> Option<Instant> {
        let ((at, time), end) = (self.clock?, self.map.next_end()?);
        at.checked_add(end.since(time))
    }

    /// The prefixes of the overlay itself.
    pub(super) fn overlays(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.map.info().into_iter().flat_map(|info| [info.prefix_v4, info.prefix_v6])
    }

    /// Addresses that servers saw.
    pub(super) fn reflexive(&self) -> Vec<SocketAddr> {
        // What is seen of another socket says nothing of the one that peers are to reach.
        let relays = self.relays.iter().filter(|relay| relay.udp.socket == SocketIndex::MAIN);
        let relays = relays.filter_map(|relay| relay.udp.client.mapped_address());
        let binding = self.binding.as_ref().and_then(BindingClient::mapped_address);
        let mut seen: Vec<SocketAddr> = relays.chain(binding).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    /// Where this node may be reached.
    pub(super) fn own_candidates(
        &self,
        host: &[SocketAddr],
        mapped: Option<SocketAddr>,
        overlays: &[Prefix],
    ) -> Vec<Candidate> {
        let host = host.iter().copied().filter(|address| usable(*address, overlays)).take(MAX_DIRECT);
        let mut all: Vec<Candidate> =
            host.map(|address| Candidate { kind: CandidateKind::Host, address }).collect();
        for address in self.reflexive().into_iter().chain(mapped) {
            if usable(address, overlays) && all.iter().all(|known| known.address != address) {
                all.push(Candidate { kind: CandidateKind::ServerReflexive, address });
            }
        }
        all.sort_unstable();
        all.dedup();
        // In the order of the relays, which is the same for all nodes: those that use one only use the first.
        let relayed = self.relays.iter().filter_map(Relay::relayed_address);
        all.extend(relayed.map(|address| Candidate { kind: CandidateKind::Relayed, address }));
        all
    }

    /// At which relay a peer's relayed address is: the one that shows this IP address, else the first one, which may show
    /// several.
    pub(super) fn relay_of(&self, relayed: SocketAddr) -> Option<usize> {
        let found = self.relays.iter().position(|relay| relay.shows(relayed.ip()));
        found.or((!self.relays.is_empty()).then_some(0))
    }

    /// The first relay that has an allocation, else the first one.
    pub(super) fn best_relay(&self) -> Option<&Relay> {
        let bound = self.relays.iter().find(|relay| relay.relayed_address().is_some());
        bound.or(self.relays.first())
    }

    /// Name of the relay through which a peer is reached.
    fn relay_name(&self, peer: &Peer) -> Option<&str> {
        let (transport, to) = peer.relayed_via()?;
        let relay = self.relays.iter().find(|relay| relay.carries(transport, to))?;
        Some(relay.server.name.as_str())
    }

    /// What can be told of a peer behind another member: how that one is reached.
    fn behind_gateway(&self, peer: &Peer, status: PeerStatus) -> PeerStatus {
        let Some(gateway) = peer.gateway() else { return status };
        let member = self.map.member(gateway);
        let reached = self.peers.get(&gateway).map(|gateway| (gateway.link_state(), gateway.path_kind()));
        let (link_state, path) = reached.unwrap_or_default();
        let path_reason = if member.is_some() { REASON_BEHIND } else { REASON_NO_GATEWAY };
        PeerStatus { gateway: member.map(|m| m.name.clone()), link_state, path, path_reason, ..status }
    }

    pub(super) fn status(&self, clock: Option<&WallClock>, now: Instant) -> NetworkStatus {
        let peer = |(node, peer): (&NodeId, &Peer)| {
            let status = peer.status(self.map.member(*node)?, self.relay_name(peer), self.mtu, now);
            let clock_offset = clock.and_then(|own| peer.clock_offset(own, now));
            Some(self.behind_gateway(peer, PeerStatus { clock_offset, ..status }))
        };
        let denied = |(node, member, reason): (NodeId, &Member, RecordError)| {
            let record = member.record.open(self.id, &[]).ok().filter(|_| node != self.node)?;
            Some(PeerStatus::denied(record, member, reason.reason()))
        };
        let by_policy = self.map.denied().filter_map(|(node, member, record)| {
            let online = self.live.get(&node).is_some_and(|live| live.online);
            let status = PeerStatus::denied(record, member, DENIED_BY_POLICY);
            (node != self.node).then_some(PeerStatus { online, ..status })
        });
        let peers = self.peers.iter().filter_map(peer);
        let peers = peers.chain(self.map.left_out().filter_map(denied)).chain(by_policy).collect();
        NetworkStatus {
            id: self.id,
            node: self.node,
            public_key: self.public,
            own: self.map.member(self.node).map(|own| OwnStatus {
                name: own.name.clone(),
                prefixes: own.record.own_prefixes().collect(),
                tags: own.record.tags.clone(),
            }),
            revision: self.map.revision(),
            info: self.map.info().cloned(),
            peers,
            candidates: self.candidates.clone(),
            reflexive: self.reflexive(),
            relay: self.best_relay().map(Relay::status),
            clashes: Vec::new(),
            policy: self.map.policy().map(|policy| policy.version),
        }
    }
}
