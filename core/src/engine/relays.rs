//! The control part's relays: a TURN allocation of each network on each of its relays (a second one while the way to the
//! relay changes), and STUN beside them.
//!
//! All relays are kept ready, and peers told of all addresses; which relay carries is the choice of each peer's paths,
//! since two nodes meet quickest where both are near, and find out by their probes. So when a relay dies, the paths over
//! another one are proven already.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ria_protocol::id::{NetworkId, NodeId};

use super::command::{CommandError, RelayServer};
use super::control::{Control, ControlDatagram, MAX_NETWORKS};
use super::event::Event;
use super::relay::{Relay, Way, credentials};
use super::slots::PeerId;
use crate::counters::DropReason;
use crate::packet::{Class, FIRST_STREAM, SocketIndex};
use crate::peer::Peer;
use crate::relay::{KEEPALIVE, MAX_RELAYS, RelayEvent, RelayFailure, RelayInput, Transport};
use crate::shard::message::Route;
use crate::stun::{BindingClient, BindingEvent, Randomness};

/// How long after STUN gave no answer it is asked again.
const BINDING_RETRY: Duration = Duration::from_secs(30);

/// A relay of a network, by its address.
pub(super) type RelayId = (NetworkId, SocketAddr);

/// What a peer sent through the relay.
pub(super) struct Relayed<'a> {
    pub(super) network: NetworkId,
    pub(super) transport: Transport,
    /// Its relayed address.
    pub(super) peer: SocketAddr,
    pub(super) payload: &'a [u8],
}

impl Control {
    pub(super) fn set_relays(
        &mut self,
        id: NetworkId,
        relays: Vec<RelayServer>,
        now: Instant,
    ) -> Result<(), CommandError> {
        self.network(id)?;
        let mut wanted: Vec<RelayServer> = Vec::new();
        for server in relays {
            let known = wanted.iter().any(|other| other.address == server.address);
            if !known && wanted.len() < MAX_RELAYS {
                wanted.push(server);
            }
        }
        self.replace_relays(id, wanted, now);
        self.flush_relays(now);
        Ok(())
    }

    fn replace_relays(&mut self, id: NetworkId, wanted: Vec<RelayServer>, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let mut former = std::mem::take(&mut network.relays);
        let first = former.first().map(|relay| relay.server.address);
        let reached = former.iter().any(|relay| relay.fallback.is_reached());
        let mut relays = Vec::new();
        for server in wanted {
            let known = former.iter().position(|relay| relay.server.address == server.address);
            relays.push(match known {
                Some(index) => renewed(former.remove(index), server, now),
                None => self.new_relay(server, reached, now),
            });
        }
        let best = relays.first().map(|relay| relay.server.address);
        let randomness = self.randomness();
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.relays = relays;
        if best != first || best.is_none() {
            network.binding_retry = None;
            network.binding = best.map(|server| BindingClient::new(server, randomness, now));
        }
        for relay in former {
            for transport in [Transport::Udp, Transport::Tls] {
                let paths = self.paths_by(id, &relay, transport);
                self.drop_paths(id, transport, paths, now);
            }
            self.release_relay(id, relay, now);
        }
        self.assign_channels(id, now);
        self.report_candidates(now);
    }

    fn new_relay(&mut self, server: RelayServer, reached: bool, now: Instant) -> Relay {
        let (randomness, socket) = (self.randomness(), self.free_socket(server.address));
        let mut relay = Relay::new(server, socket, randomness, now);
        relay.fallback.set_reached(reached);
        relay
    }

    /// Each relayed address of a peer gets a channel where it is.
    pub(super) fn assign_channels(&mut self, id: NetworkId, now: Instant) {
        let peers = self.networks.get(&id).into_iter().flat_map(|network| network.peers.keys());
        let peers: Vec<PeerId> = peers.map(|node| (id, *node)).collect();
        for peer_id in peers {
            self.open_channels(peer_id, now);
        }
    }

    /// The first socket from which no network talks to this relay. One whose allocation is just being given back is
    /// taken over with it.
    fn free_socket(&mut self, server: SocketAddr) -> SocketIndex {
        let relays = self.networks.values().flat_map(|network| &network.relays);
        let used: Vec<SocketIndex> =
            relays.filter(|relay| relay.server.address == server).map(|relay| relay.udp.socket).collect();
        // There are more numbers than networks.
        let socket = (0..FIRST_STREAM).map(SocketIndex::new).find(|socket| !used.contains(socket));
        let socket = socket.unwrap_or_default();
        self.leaving.retain(|relay| relay.server.address != server || relay.udp.socket != socket);
        socket
    }

    /// Gives back the allocation on a relay that is no longer used.
    pub(super) fn release_relay(&mut self, network: NetworkId, mut relay: Relay, now: Instant) {
        // An allocation ends with its stream.
        if let Some(stream) = relay.tls.take() {
            self.events.push_back(Event::RelayStreamUnwanted { network, socket: stream.socket });
        }
        relay.udp.client.release(now);
        self.leaving.push(relay);
        if self.leaving.len() > MAX_NETWORKS * MAX_RELAYS {
            self.leaving.remove(0);
        }
        self.flush_relays(now);
    }

    pub(super) fn randomness(&mut self) -> Randomness {
        Randomness::new(self.rng.bytes())
    }

    /// The relays, in each way that they are spoken to, get channels to those of a peer's relayed addresses that are there.
    pub(super) fn open_channels(&mut self, peer_id: PeerId, now: Instant) {
        let Some(network) = self.networks.get_mut(&peer_id.0) else { return };
        let relayed = network.peers.get(&peer_id.1).into_iter().flat_map(Peer::relayed_addresses);
        let places: Vec<(SocketAddr, Option<usize>)> =
            relayed.map(|address| (address, network.relay_of(address))).collect();
        let mut bound = Vec::new();
        for (index, relay) in network.relays.iter_mut().enumerate() {
            for (address, place) in &places {
                // Its own allocation would be no way to somebody else.
                let here = *place == Some(index) && !relay.is_own(*address);
                for transport in [Transport::Udp, Transport::Tls] {
                    let Some(way) = relay.way_mut(transport) else { continue };
                    if !here {
                        way.client.disconnect_peer(*address);
                    } else if way.client.connect_peer(*address, now).is_ok()
                        && way.client.channel(*address).is_some()
                    {
                        bound.push((transport, *address));
                    }
                }
            }
        }
        for (transport, address) in bound {
            self.with_peer(peer_id, now, |peer| peer.handle_channel_bound(transport, address, now));
        }
        self.flush_relays(now);
    }

    /// A peer has left a relayed address.
    pub(super) fn close_channels(&mut self, id: NetworkId, relayed: SocketAddr) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let used = network.peers.values().any(|peer| peer.relayed_addresses().any(|other| other == relayed));
        if !used {
            let ways = network.relays.iter_mut().flat_map(Relay::ways_mut);
            ways.for_each(|way| way.client.disconnect_peer(relayed));
        }
    }

    /// The way to a relayed address of a peer.
    fn way_to(&mut self, id: NetworkId, transport: Transport, to: SocketAddr) -> Option<&mut Way> {
        let relays = &mut self.networks.get_mut(&id)?.relays;
        relays.iter_mut().find(|relay| relay.carries(transport, to))?.way_mut(transport)
    }

    pub(super) fn send_relayed(
        &mut self,
        id: NetworkId,
        (transport, to): (Transport, SocketAddr),
        (class, payload): (Class, &[u8]),
        now: Instant,
    ) {
        let Some(way) = self.way_to(id, transport, to) else { return };
        match way.client.wrap(to, payload.len(), now) {
            Some(header) => {
                let bytes = [&header[..], payload].concat();
                let (to, socket) = (way.client.server(), way.socket);
                self.outbox.push_back(ControlDatagram { to, from: None, socket, class, bytes });
            }
            None => {
                way.client.send_to(to, payload, now);
                self.flush_relays(now);
            }
        }
    }

    pub(super) fn relayed_route(
        &self,
        id: NetworkId,
        (transport, to): (Transport, SocketAddr),
        rtt: Duration,
    ) -> Option<Route> {
        let relays = &self.networks.get(&id)?.relays;
        let Way { client, socket } =
            relays.iter().find(|relay| relay.carries(transport, to))?.way(transport)?;
        let channel = client.channel(to)?;
        let (to, channel) = (client.server(), Some(channel));
        Some(Route { to, from: None, socket: *socket, channel, rtt, marks: 0, fragments: false })
    }

    /// Data went to the relay: should nothing come back, it looks whether the server is still there.
    pub(super) fn note_relayed(&mut self, (id, node): PeerId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some((transport, to)) = network.peers.get(&node).and_then(Peer::relayed_via) else { return };
        if let Some(way) = self.way_to(id, transport, to) {
            way.client.note_sent(now);
        }
    }

    /// Takes a STUN or TURN datagram. Returns what a peer sent through the relay.
    pub(super) fn handle_relay_datagram<'a>(
        &mut self,
        (from, socket): (SocketAddr, SocketIndex),
        datagram: &'a [u8],
        now: Instant,
    ) -> Option<Relayed<'a>> {
        let mut found = None;
        let mut control = false;
        for network in self.networks.values_mut() {
            for relay in &mut network.relays {
                let Some(transport) = relay.transport_at(socket) else { continue };
                let Some(way) = relay.way_mut(transport) else { continue };
                match way.client.handle_datagram(from, datagram, now) {
                    RelayInput::FromPeer { peer, payload } => {
                        found = Some(Relayed { network: network.id, transport, peer, payload });
                        break;
                    }
                    RelayInput::Consumed => control = true,
                    RelayInput::NotOurs => {}
                }
            }
            if found.is_some() {
                break;
            }
            let binding = network.binding.as_mut().filter(|_| socket == SocketIndex::MAIN);
            control |= binding.is_some_and(|binding| binding.handle_datagram(from, datagram));
        }
        for way in self.leaving.iter_mut().map(|relay| &mut relay.udp).filter(|way| way.socket == socket) {
            control |= way.client.handle_datagram(from, datagram, now) == RelayInput::Consumed;
        }
        if control {
            self.flush_relays(now);
        } else if found.is_none() {
            self.drops.count(DropReason::Unknown);
        }
        found
    }

    /// Collects what relay and STUN clients want sent and have to tell.
    pub(super) fn flush_relays(&mut self, now: Instant) {
        let ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        for id in ids {
            self.flush_binding(id, now);
            while let Some((server, transport, event)) = self.poll_relay_event(id) {
                self.handle_relay_event((id, server), transport, event, now);
            }
            self.follow_relays(id, now);
            let relays = self.networks.get_mut(&id).into_iter().flat_map(|network| &mut network.relays);
            relays.for_each(|relay| relay.flush(&mut self.outbox));
        }
        for relay in &mut self.leaving {
            relay.flush(&mut self.outbox);
        }
        self.leaving.retain(|relay| !relay.udp.client.is_released());
    }

    fn flush_binding(&mut self, id: NetworkId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(binding) = &mut network.binding else { return };
        while let Some(outgoing) = binding.poll_transmit() {
            let (to, socket, bytes) = (outgoing.to, SocketIndex::MAIN, outgoing.payload);
            let class = Class::Urgent;
            self.outbox.push_back(ControlDatagram { to, from: None, socket, class, bytes });
        }
        let beside = network.relays.first().is_some_and(|relay| relay.udp.socket != SocketIndex::MAIN);
        let mut mapped = false;
        while let Some(event) = binding.poll_event() {
            match event {
                BindingEvent::Mapped(_) => {
                    mapped = true;
                    // The relay's refreshes hold the NAT open for their own socket only.
                    network.binding_retry = beside.then_some(now + KEEPALIVE);
                }
                BindingEvent::Refused(_) | BindingEvent::NoAnswer => {
                    network.binding_retry = Some(now + BINDING_RETRY);
                }
            }
        }
        if mapped {
            self.report_candidates(now);
        }
    }

    /// What a client has to tell, and of which relay, by its address.
    fn poll_relay_event(&mut self, id: NetworkId) -> Option<(SocketAddr, Transport, RelayEvent)> {
        self.networks.get_mut(&id)?.relays.iter_mut().find_map(|relay| {
            let server = relay.server.address;
            [Transport::Udp, Transport::Tls].into_iter().find_map(|transport| {
                let event = relay.way_mut(transport)?.client.poll_event()?;
                Some((server, transport, event))
            })
        })
    }

    fn handle_relay_event(&mut self, at: RelayId, transport: Transport, event: RelayEvent, now: Instant) {
        let id = at.0;
        match event {
            RelayEvent::Allocated { .. } => {
                // Only now is it known which addresses are those of this relay.
                self.assign_channels(id, now);
                self.report_candidates(now);
            }
            RelayEvent::Lost(reason) | RelayEvent::Failed { reason, .. } => {
                self.handle_relay_failure(at, reason.to_string());
                self.drop_relayed_paths(at, transport, now);
                if transport == Transport::Tls && reason == RelayFailure::NoAnswer {
                    // Who swallows what comes on a stream may serve another one.
                    self.reopen_stream(at, now);
                }
            }
            RelayEvent::ChannelBound { peer } => {
                for node in self.peers_at(id, peer) {
                    self.with_peer((id, node), now, |p| p.handle_channel_bound(transport, peer, now));
                }
            }
            RelayEvent::ChannelFailed { peer, reason } => {
                tracing::debug!(%reason, "relay refused a channel");
                for node in self.peers_at(id, peer) {
                    self.with_peer((id, node), now, |p| p.handle_relay_lost(transport, &[peer], now));
                }
            }
        }
    }

    /// A relay of a network, by its address.
    pub(super) fn relay_mut(&mut self, (id, server): RelayId) -> Option<&mut Relay> {
        let relays = &mut self.networks.get_mut(&id)?.relays;
        relays.iter_mut().find(|relay| relay.server.address == server)
    }

    /// Tells that a relay can't be used, unless the other way to it works, or another relay.
    pub(super) fn handle_relay_failure(&mut self, at: RelayId, reason: String) {
        let Some(relay) = self.relay_mut(at) else { return };
        if relay.relayed_address().is_some() {
            return;
        }
        let news = relay.failure.as_ref() != Some(&reason);
        relay.failure = Some(reason.clone());
        let name = relay.server.name.clone();
        let others = self.networks.get(&at.0).into_iter().flat_map(|network| &network.relays);
        let mut bound = others.filter(|relay| relay.relayed_address().is_some());
        if news && bound.next().is_none() {
            self.events.push_back(Event::RelayDown { network: at.0, relay: name, reason });
        }
    }

    fn peers_at(&self, id: NetworkId, relayed: SocketAddr) -> Vec<NodeId> {
        let peers = self.networks.get(&id).into_iter().flat_map(|network| network.peers.values());
        peers.filter(|p| p.relayed_addresses().any(|own| own == relayed)).map(|p| p.node).collect()
    }

    /// The paths through a relay, spoken to in this way, are no more.
    pub(super) fn drop_relayed_paths(&mut self, (id, server): RelayId, lost: Transport, now: Instant) {
        let mut relays = self.networks.get(&id).into_iter().flat_map(|network| &network.relays);
        let Some(relay) = relays.find(|relay| relay.server.address == server) else { return };
        let paths = self.paths_by(id, relay, lost);
        self.drop_paths(id, lost, paths, now);
    }

    /// Which relayed addresses of which peers take this relay, spoken to in this way.
    fn paths_by(&self, id: NetworkId, relay: &Relay, by: Transport) -> Vec<(NodeId, Vec<SocketAddr>)> {
        let peers = self.networks.get(&id).into_iter().flat_map(|network| &network.peers);
        let here = |address: &SocketAddr| relay.carries(by, *address);
        peers.map(|(node, peer)| (*node, peer.relayed_addresses().filter(here).collect())).collect()
    }

    fn drop_paths(
        &mut self,
        id: NetworkId,
        lost: Transport,
        paths: Vec<(NodeId, Vec<SocketAddr>)>,
        now: Instant,
    ) {
        for (node, addresses) in paths {
            self.with_peer((id, node), now, |peer| peer.handle_relay_lost(lost, &addresses, now));
        }
    }

    pub(super) fn relay_deadline(&self) -> Option<Instant> {
        let networks = self.networks.values();
        networks
            .flat_map(|network| {
                let relays = network.relays.iter().filter_map(Relay::deadline).min();
                let binding = network.binding.as_ref().and_then(BindingClient::poll_timeout);
                [relays, binding, network.binding_retry].into_iter().flatten()
            })
            .chain(self.leaving.iter().filter_map(|relay| relay.udp.client.poll_timeout()))
            .min()
    }

    pub(super) fn handle_relay_timeouts(&mut self, now: Instant) {
        if self.relay_deadline().is_none_or(|at| at > now) {
            return;
        }
        self.leaving.iter_mut().for_each(|relay| relay.handle_timeout(now));
        for network in self.networks.values_mut() {
            network.relays.iter_mut().for_each(|relay| relay.handle_timeout(now));
            if let Some(binding) = &mut network.binding {
                binding.handle_timeout(now);
                if network.binding_retry.is_some_and(|at| at <= now) {
                    network.binding_retry = None;
                    binding.restart(now);
                }
            }
        }
        self.flush_relays(now);
    }
}

fn renewed(mut relay: Relay, server: RelayServer, now: Instant) -> Relay {
    for way in relay.ways_mut() {
        way.client.set_credentials(credentials(&server), now);
    }
    relay.server = server;
    relay
}
