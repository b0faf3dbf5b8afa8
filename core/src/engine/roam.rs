//! The control part when a network changes: this host's own, or that of a peer, which its probes tell.
//!
//! Sessions are left alone: they don't know addresses. Relays are spoken to anew where the relay may see this node
//! elsewhere now, and asked whether they still know it where it may not.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::control::{Control, Via};
use super::relays::RelayId;
use super::slots::PeerId;
use crate::counters::DropReason;
use crate::path::Address;
use crate::path::candidates::usable;
use crate::path::probe::pair_tag;
use crate::peer::Peer;
use crate::peer::clock::WallClock;
use crate::relay::Transport;

/// Which of the two is meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Families {
    pub(super) ipv4: bool,
    pub(super) ipv6: bool,
}

impl Families {
    /// Those that some of these are of.
    fn of<'a>(addresses: impl Iterator<Item = &'a SocketAddr> + Clone) -> Self {
        Self {
            ipv4: addresses.clone().any(SocketAddr::is_ipv4),
            ipv6: addresses.clone().any(SocketAddr::is_ipv6),
        }
    }

    fn include(self, address: SocketAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

impl Control {
    pub(super) fn set_host_candidates(&mut self, mut host: Vec<SocketAddr>, now: Instant) {
        host.sort_unstable();
        host.dedup();
        let had = !std::mem::replace(&mut self.host, host).is_empty();
        if self.host.is_empty() {
            self.report_candidates(now);
            if had {
                self.with_all_peers(now, |peer| peer.handle_network_gone(now));
            }
        } else {
            let left = Families::of(self.last_host.iter().filter(|address| !self.host.contains(address)));
            self.last_host.clone_from(&self.host);
            self.speak_anew(left, now);
            self.ask_relays(left, now);
            // First, so that nothing is sent from where this node is no more.
            self.report_candidates(now);
            self.with_all_peers(now, |peer| peer.handle_network_change(now));
        }
        self.flush_relays(now);
        self.report_candidates(now);
    }

    /// Packets leave this host another way, whatever its addresses.
    pub(super) fn handle_rerouted(&mut self, rerouted: Families, now: Instant) {
        if !self.host.is_empty() {
            self.speak_anew(rerouted, now);
            self.with_all_peers(now, |peer| peer.handle_network_change(now));
            self.flush_relays(now);
        }
    }

    /// Allocations belong to an address that this node has left.
    fn speak_anew(&mut self, left: Families, now: Instant) {
        for at in self.relay_ids(|relay| left.include(relay)) {
            // What got through in the network before says nothing of this one.
            self.close_stream(at, now);
            if let Some(relay) = self.relay_mut(at) {
                relay.fallback.start_anew();
                relay.udp.client.restart(now);
            }
            self.bind_anew(at, now);
            self.drop_relayed_paths(at, Transport::Udp, now);
        }
    }

    /// Allocations may be there still; what a NAT maps may be another.
    fn ask_relays(&mut self, left: Families, now: Instant) {
        for at in self.relay_ids(|relay| !left.include(relay)) {
            if let Some(relay) = self.relay_mut(at) {
                relay.ways_mut().for_each(|way| way.client.prod(now));
            }
            self.bind_anew(at, now);
        }
    }

    /// The first relay of a network is its STUN server, too.
    fn bind_anew(&mut self, (id, server): RelayId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let first = network.relays.first().map(|relay| relay.server.address);
        if let Some(binding) = network.binding.as_mut().filter(|_| first == Some(server)) {
            binding.restart(now);
        }
    }

    /// The relays whose address is such a one.
    fn relay_ids(&self, wanted: impl Fn(SocketAddr) -> bool) -> Vec<RelayId> {
        let all = self.networks.values();
        let all =
            all.flat_map(|network| network.relays.iter().map(|relay| (network.id, relay.server.address)));
        all.filter(|(_, server)| wanted(*server)).collect()
    }

    /// This machine's clock shows this now.
    pub(super) fn set_wall_clock(&mut self, clock: WallClock, now: Instant) {
        let before = self.clock.replace(clock);
        let is_set = before.is_some_and(|before| clock.jumped(&before));
        if is_set || before.is_none() {
            self.with_all_peers(now, |peer| peer.set_own_clock(clock, is_set));
        }
    }

    fn with_all_peers(&mut self, now: Instant, change: impl Fn(&mut Peer)) {
        let all = self.networks.values();
        let peers: Vec<PeerId> =
            all.flat_map(|network| network.peers.keys().map(|node| (network.id, *node))).collect();
        for peer in peers {
            self.with_peer(peer, now, &change);
        }
    }

    /// Which addresses of a peer are worth a try from here.
    pub(super) fn worth(&self) -> impl Fn(SocketAddr) -> bool + use<> {
        let (overlays, host) = (self.all_overlays(), self.host.clone());
        let families = (host.iter().any(SocketAddr::is_ipv4), host.iter().any(SocketAddr::is_ipv6));
        move |address| {
            let reachable = if address.is_ipv4() { families.0 } else { families.1 };
            (reachable || host.is_empty()) && !host.contains(&address) && usable(address, &overlays)
        }
    }

    pub(super) fn handle_probe(
        &mut self,
        datagram: &[u8],
        via: Via,
        local: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let tag = pair_tag(datagram).ok_or(DropReason::Malformed)?;
        let peer_id = *self.tags.get(&tag).ok_or(DropReason::Stranger)?;
        if via.network.is_some_and(|network| network != peer_id.0) {
            return Err(DropReason::Stranger);
        }
        // A member can send anything through the tunnel, but no path runs inside of an overlay.
        if matches!(via.address, Address::Direct(from) if self.is_inside_overlay(from.ip())) {
            return Err(DropReason::Unexpected);
        }
        let network = self.networks.get_mut(&peer_id.0).ok_or(DropReason::NoSuchNetwork)?;
        let peer = network.peers.get_mut(&peer_id.1).ok_or(DropReason::Stranger)?;
        if let Some(clock) = self.clock {
            peer.set_own_clock(clock, false);
        }
        let before = peer.relayed_candidates().to_vec();
        let result = peer.handle_probe(datagram, via.address, local, now);
        let (moved, news) = (peer.relayed_candidates() != before, peer.has_seen_at_news());
        if moved {
            // Before the answer goes out, which needs the relay to know whom it is for.
            self.open_channels(peer_id, now);
        }
        self.settle(peer_id, now);
        if news {
            let worth = self.worth();
            self.with_peer(peer_id, now, |peer| peer.try_seen_at(worth, now));
        }
        result
    }
}
