//! The control part's relays: one TURN allocation per network (a second one while the way to the relay changes), and STUN
//! beside it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ria_protocol::id::{NetworkId, NodeId};

use super::command::{CommandError, RelayServer};
use super::control::{Control, ControlDatagram, MAX_NETWORKS};
use super::event::Event;
use super::relay::{Relay, Way, credentials};
use super::slots::PeerId;
use crate::counters::DropReason;
use crate::packet::{FIRST_STREAM, SocketIndex};
use crate::peer::Peer;
use crate::relay::{KEEPALIVE, RelayEvent, RelayFailure, RelayInput, Transport};
use crate::shard::message::Route;
use crate::stun::{BindingClient, BindingEvent, Randomness};

/// How long after STUN gave no answer it is asked again.
const BINDING_RETRY: Duration = Duration::from_secs(30);

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
        let best = relays.into_iter().next();
        let same = match (&best, self.networks.get(&id).and_then(|network| network.relay.as_ref())) {
            (Some(new), Some(old)) => new.address == old.server.address,
            _ => false,
        };
        match best {
            Some(server) if same => self.renew_relay(id, server, now),
            best => self.replace_relay(id, best, now),
        }
        self.flush_relays(now);
        Ok(())
    }

    fn renew_relay(&mut self, id: NetworkId, server: RelayServer, now: Instant) {
        let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
        if let Some(relay) = relay {
            for way in relay.ways_mut() {
                way.client.set_credentials(credentials(&server), now);
            }
            relay.server = server;
        }
    }

    fn replace_relay(&mut self, id: NetworkId, server: Option<RelayServer>, now: Instant) {
        self.drop_relayed_paths(id, Transport::Udp, now);
        let reached = self.close_stream(id, now);
        let former = self.networks.get_mut(&id).and_then(|network| network.relay.take());
        self.release_relay(id, former, now);
        let (for_relay, for_binding) = (self.randomness(), self.randomness());
        let socket = server.as_ref().map(|server| self.free_socket(server.address)).unwrap_or_default();
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.binding_retry = None;
        network.binding = server.as_ref().map(|server| BindingClient::new(server.address, for_binding, now));
        network.relay = server.map(|server| Relay::new(server, socket, for_relay, now));
        if let Some(relay) = &mut network.relay {
            relay.fallback.set_reached(reached);
        }
        let peers = network.peers.keys().map(|node| (id, *node));
        let peers: Vec<PeerId> = peers.collect();
        for peer_id in peers {
            self.open_channels(peer_id, now);
        }
        self.report_candidates(now);
    }

    /// The first socket from which no network talks to this relay. One whose allocation is just being given back is
    /// taken over with it.
    fn free_socket(&mut self, server: SocketAddr) -> SocketIndex {
        let relays = self.networks.values().filter_map(|network| network.relay.as_ref());
        let used: Vec<SocketIndex> =
            relays.filter(|relay| relay.server.address == server).map(|relay| relay.udp.socket).collect();
        // There are more numbers than networks.
        let socket = (0..FIRST_STREAM).map(SocketIndex::new).find(|socket| !used.contains(socket));
        let socket = socket.unwrap_or_default();
        self.leaving.retain(|relay| relay.server.address != server || relay.udp.socket != socket);
        socket
    }

    /// Gives back the allocation on a relay that is no longer used.
    pub(super) fn release_relay(&mut self, network: NetworkId, relay: Option<Relay>, now: Instant) {
        let Some(mut relay) = relay else { return };
        // An allocation ends with its stream.
        if let Some(stream) = relay.tls.take() {
            self.events.push_back(Event::RelayStreamUnwanted { network, socket: stream.socket });
        }
        relay.udp.client.release(now);
        self.leaving.push(relay);
        if self.leaving.len() > MAX_NETWORKS {
            self.leaving.remove(0);
        }
        self.flush_relays(now);
    }

    pub(super) fn randomness(&mut self) -> Randomness {
        Randomness::new(self.rng.bytes())
    }

    /// The relay, in each way that it is spoken to, gets channels to a peer's relayed addresses.
    pub(super) fn open_channels(&mut self, peer_id: PeerId, now: Instant) {
        let Some(network) = self.networks.get_mut(&peer_id.0) else { return };
        let relayed = network.peers.get(&peer_id.1).into_iter().flat_map(Peer::relayed_addresses);
        let Some(relay) = &mut network.relay else { return };
        // Its own allocation would be no way to somebody else.
        let relayed: Vec<SocketAddr> = relayed.filter(|address| !relay.is_own(*address)).collect();
        let mut bound = Vec::new();
        for transport in [Transport::Udp, Transport::Tls] {
            let Some(way) = relay.way_mut(transport) else { continue };
            for address in &relayed {
                if way.client.connect_peer(*address, now).is_ok() && way.client.channel(*address).is_some() {
                    bound.push((transport, *address));
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
        if let Some(relay) = network.relay.as_mut().filter(|_| !used) {
            relay.ways_mut().for_each(|way| way.client.disconnect_peer(relayed));
        }
    }

    pub(super) fn send_relayed(
        &mut self,
        id: NetworkId,
        (transport, to): (Transport, SocketAddr),
        payload: &[u8],
        now: Instant,
    ) {
        let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
        let Some(way) = relay.and_then(|relay| relay.way_mut(transport)) else { return };
        match way.client.wrap(to, payload.len(), now) {
            Some(header) => {
                let bytes = [&header[..], payload].concat();
                let (to, socket) = (way.client.server(), way.socket);
                self.outbox.push_back(ControlDatagram { to, from: None, socket, bytes });
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
        let Way { client, socket } = self.networks.get(&id)?.relay.as_ref()?.way(transport)?;
        let channel = client.channel(to)?;
        Some(Route { to: client.server(), from: None, socket: *socket, channel: Some(channel), rtt })
    }

    /// Data went to the relay: should nothing come back, it looks whether the server is still there.
    pub(super) fn note_relayed(&mut self, (id, node): PeerId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let transport = network.peers.get(&node).and_then(Peer::relayed_over);
        let relay = network.relay.as_mut();
        if let Some(way) = transport.zip(relay).and_then(|(transport, relay)| relay.way_mut(transport)) {
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
            let relay = network.relay.as_mut();
            let transport = relay.as_ref().and_then(|relay| relay.transport_at(socket));
            let way = transport.zip(relay).and_then(|(transport, relay)| relay.way_mut(transport));
            if let (Some(transport), Some(way)) = (transport, way) {
                match way.client.handle_datagram(from, datagram, now) {
                    RelayInput::FromPeer { peer, payload } => {
                        found = Some(Relayed { network: network.id, transport, peer, payload });
                        break;
                    }
                    RelayInput::Consumed => control = true,
                    RelayInput::NotOurs => {}
                }
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
            while let Some((transport, event)) = self.poll_relay_event(id) {
                self.handle_relay_event(id, transport, event, now);
            }
            self.follow_relay(id, now);
            let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
            let Some(relay) = relay else { continue };
            relay.flush(&mut self.outbox);
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
            let (to, socket) = (outgoing.to, SocketIndex::MAIN);
            self.outbox.push_back(ControlDatagram { to, from: None, socket, bytes: outgoing.payload });
        }
        let beside = network.relay.as_ref().is_some_and(|relay| relay.udp.socket != SocketIndex::MAIN);
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

    fn poll_relay_event(&mut self, id: NetworkId) -> Option<(Transport, RelayEvent)> {
        let relay = self.networks.get_mut(&id)?.relay.as_mut()?;
        [Transport::Udp, Transport::Tls].into_iter().find_map(|transport| {
            let event = relay.way_mut(transport)?.client.poll_event()?;
            Some((transport, event))
        })
    }

    fn handle_relay_event(&mut self, id: NetworkId, transport: Transport, event: RelayEvent, now: Instant) {
        match event {
            RelayEvent::Allocated { .. } => self.report_candidates(now),
            RelayEvent::Lost(reason) | RelayEvent::Failed { reason, .. } => {
                self.handle_relay_failure(id, reason.to_string());
                self.drop_relayed_paths(id, transport, now);
                if transport == Transport::Tls && reason == RelayFailure::NoAnswer {
                    // Who swallows what comes on a stream may serve another one.
                    self.reopen_stream(id, now);
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
                    self.with_peer((id, node), now, |p| p.handle_relay_lost(transport, now));
                }
            }
        }
    }

    /// Tells that the relay can't be used, unless the other way to it works.
    pub(super) fn handle_relay_failure(&mut self, id: NetworkId, reason: String) {
        let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
        let Some(relay) = relay else { return };
        if relay.relayed_address().is_some() {
            return;
        }
        let news = relay.failure.as_ref() != Some(&reason);
        relay.failure = Some(reason.clone());
        if news {
            let name = relay.server.name.clone();
            self.events.push_back(Event::RelayDown { network: id, relay: name, reason });
        }
    }

    fn peers_at(&self, id: NetworkId, relayed: SocketAddr) -> Vec<NodeId> {
        let peers = self.networks.get(&id).into_iter().flat_map(|network| network.peers.values());
        peers.filter(|p| p.relayed_addresses().any(|own| own == relayed)).map(|p| p.node).collect()
    }

    pub(super) fn drop_relayed_paths(&mut self, id: NetworkId, lost: Transport, now: Instant) {
        let nodes: Vec<NodeId> =
            self.networks.get(&id).into_iter().flat_map(|network| network.peers.keys().copied()).collect();
        for node in nodes {
            self.with_peer((id, node), now, |peer| peer.handle_relay_lost(lost, now));
        }
    }

    pub(super) fn relay_deadline(&self) -> Option<Instant> {
        let networks = self.networks.values();
        networks
            .flat_map(|network| {
                let relay = network.relay.as_ref().and_then(Relay::deadline);
                let binding = network.binding.as_ref().and_then(BindingClient::poll_timeout);
                [relay, binding, network.binding_retry].into_iter().flatten()
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
            if let Some(relay) = &mut network.relay {
                relay.handle_timeout(now);
            }
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
