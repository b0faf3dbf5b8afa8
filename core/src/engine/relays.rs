//! The control part's relays: one TURN allocation per network, and STUN beside it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ria_protocol::id::{NetworkId, NodeId};

use super::command::{CommandError, RelayServer};
use super::control::{Control, ControlDatagram, MAX_NETWORKS};
use super::event::Event;
use super::network::Relay;
use super::slots::PeerId;
use crate::packet::SocketIndex;
use crate::peer::Peer;
use crate::relay::{KEEPALIVE, RelayClient, RelayCredentials, RelayEvent, RelayInput};
use crate::shard::message::Route;
use crate::stun::{BindingClient, BindingEvent, Randomness};

/// How long after STUN gave no answer it is asked again.
const BINDING_RETRY: Duration = Duration::from_secs(30);

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
            relay.client.set_credentials(credentials(&server), now);
            relay.server = server;
        }
    }

    fn replace_relay(&mut self, id: NetworkId, server: Option<RelayServer>, now: Instant) {
        self.drop_relayed_paths(id, now);
        let former = self.networks.get_mut(&id).and_then(|network| network.relay.take());
        self.release_relay(former, now);
        let (for_relay, for_binding) = (self.randomness(), self.randomness());
        let socket = server.as_ref().map(|server| self.free_socket(server.address)).unwrap_or_default();
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.binding_retry = None;
        network.binding = server.as_ref().map(|server| BindingClient::new(server.address, for_binding, now));
        network.relay = server.map(|server| Relay {
            client: RelayClient::new(server.address, credentials(&server), for_relay, now),
            server,
            socket,
            failure: None,
        });
        let peers = network.peers.keys().map(|node| (id, *node));
        let peers: Vec<PeerId> = peers.collect();
        for peer_id in peers {
            self.move_channel(peer_id, None, now);
        }
        self.report_candidates();
    }

    /// The first socket from which no network talks to this relay. One whose allocation is just being given back is
    /// taken over with it.
    fn free_socket(&mut self, server: SocketAddr) -> SocketIndex {
        let relays = self.networks.values().filter_map(|network| network.relay.as_ref());
        let used: Vec<SocketIndex> =
            relays.filter(|relay| relay.server.address == server).map(|relay| relay.socket).collect();
        // There are more numbers than networks.
        let socket = (0..u8::MAX).map(SocketIndex::new).find(|socket| !used.contains(socket));
        let socket = socket.unwrap_or_default();
        self.leaving.retain(|relay| relay.server.address != server || relay.socket != socket);
        socket
    }

    /// Gives back the allocation on a relay that is no longer used.
    pub(super) fn release_relay(&mut self, relay: Option<Relay>, now: Instant) {
        let Some(mut relay) = relay else { return };
        relay.client.release(now);
        self.leaving.push(relay);
        if self.leaving.len() > MAX_NETWORKS {
            self.leaving.remove(0);
        }
        self.flush_relays(now);
    }

    fn randomness(&mut self) -> Randomness {
        Randomness::new(self.rng.bytes())
    }

    /// A peer's relayed address was `before` and may be another now: the channel follows.
    pub(super) fn move_channel(&mut self, peer_id: PeerId, before: Option<SocketAddr>, now: Instant) {
        let Some(network) = self.networks.get_mut(&peer_id.0) else { return };
        let relayed = network.peers.get(&peer_id.1).and_then(Peer::relayed_candidate);
        let Some(relay) = &mut network.relay else { return };
        if let Some(before) = before {
            relay.client.disconnect_peer(before);
        }
        let Some(relayed) = relayed else { return };
        // Its own allocation would be no way to somebody else.
        if relay.client.relayed_address() != Some(relayed) && relay.client.connect_peer(relayed, now).is_ok()
        {
            let bound = relay.client.channel(relayed).is_some();
            if bound {
                self.with_peer(peer_id, now, |peer| peer.handle_channel_bound(relayed, now));
            }
        }
        self.flush_relays(now);
    }

    pub(super) fn send_relayed(&mut self, id: NetworkId, to: SocketAddr, payload: &[u8], now: Instant) {
        let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
        let Some(relay) = relay else { return };
        match relay.client.wrap(to, payload.len(), now) {
            Some(header) => {
                let bytes = [&header[..], payload].concat();
                let (to, socket) = (relay.client.server(), relay.socket);
                self.outbox.push_back(ControlDatagram { to, from: None, socket, bytes });
            }
            None => {
                relay.client.send_to(to, payload, now);
                self.flush_relays(now);
            }
        }
    }

    pub(super) fn relayed_route(&self, id: NetworkId, to: SocketAddr, rtt: Duration) -> Option<Route> {
        let relay = self.networks.get(&id)?.relay.as_ref()?;
        let channel = relay.client.channel(to)?;
        let to = relay.client.server();
        Some(Route { to, from: None, socket: relay.socket, channel: Some(channel), rtt })
    }

    /// Data went to the relay: should nothing come back, it looks whether the server is still there.
    pub(super) fn note_relayed(&mut self, (id, node): PeerId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let relayed = network.peers.get(&node).is_some_and(Peer::is_relayed);
        if let Some(relay) = network.relay.as_mut().filter(|_| relayed) {
            relay.client.note_sent(now);
        }
    }

    /// Takes a STUN or TURN datagram. Returns what a peer sent through the relay.
    pub(super) fn handle_relay_datagram<'a>(
        &mut self,
        (from, socket): (SocketAddr, SocketIndex),
        datagram: &'a [u8],
        now: Instant,
    ) -> Option<(NetworkId, SocketAddr, &'a [u8])> {
        let mut found = None;
        let mut control = false;
        let is_it = |relay: &&mut Relay| relay.client.server() == from && relay.socket == socket;
        for network in self.networks.values_mut() {
            if let Some(relay) = network.relay.as_mut().filter(is_it) {
                match relay.client.handle_datagram(from, datagram, now) {
                    RelayInput::FromPeer { peer, payload } => {
                        found = Some((network.id, peer, payload));
                        break;
                    }
                    RelayInput::Consumed => control = true,
                    RelayInput::NotOurs => {}
                }
            }
            let binding = network.binding.as_mut().filter(|_| socket == SocketIndex::MAIN);
            control |= binding.is_some_and(|binding| binding.handle_datagram(from, datagram));
        }
        for relay in self.leaving.iter_mut().filter(is_it) {
            control |= relay.client.handle_datagram(from, datagram, now) == RelayInput::Consumed;
        }
        if control {
            self.flush_relays(now);
        }
        found
    }

    /// Collects what relay and STUN clients want sent and have to tell.
    pub(super) fn flush_relays(&mut self, now: Instant) {
        let ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        for id in ids {
            self.flush_binding(id, now);
            while let Some(event) = self.poll_relay_event(id) {
                self.handle_relay_event(id, event, now);
            }
            let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
            let Some(relay) = relay else { continue };
            relay.flush(&mut self.outbox);
        }
        for relay in &mut self.leaving {
            relay.flush(&mut self.outbox);
        }
        self.leaving.retain(|relay| !relay.client.is_released());
    }

    fn flush_binding(&mut self, id: NetworkId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(binding) = &mut network.binding else { return };
        while let Some(outgoing) = binding.poll_transmit() {
            let (to, socket) = (outgoing.to, SocketIndex::MAIN);
            self.outbox.push_back(ControlDatagram { to, from: None, socket, bytes: outgoing.payload });
        }
        let beside = network.relay.as_ref().is_some_and(|relay| relay.socket != SocketIndex::MAIN);
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
            self.report_candidates();
        }
    }

    fn poll_relay_event(&mut self, id: NetworkId) -> Option<RelayEvent> {
        self.networks.get_mut(&id)?.relay.as_mut()?.client.poll_event()
    }

    fn handle_relay_event(&mut self, id: NetworkId, event: RelayEvent, now: Instant) {
        match event {
            RelayEvent::Allocated { relayed, .. } => {
                let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
                let Some(relay) = relay else { return };
                relay.failure = None;
                let name = relay.server.name.clone();
                self.events.push_back(Event::RelayUp { network: id, relay: name, relayed });
                self.report_candidates();
            }
            RelayEvent::Lost(reason) | RelayEvent::Failed { reason, .. } => {
                let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
                let Some(relay) = relay else { return };
                let (name, reason) = (relay.server.name.clone(), reason.to_string());
                let news = relay.failure.as_ref() != Some(&reason);
                relay.failure = Some(reason.clone());
                if news {
                    self.events.push_back(Event::RelayDown { network: id, relay: name, reason });
                }
                self.drop_relayed_paths(id, now);
                self.report_candidates();
            }
            RelayEvent::ChannelBound { peer } => {
                for node in self.peers_at(id, peer) {
                    self.with_peer((id, node), now, |p| p.handle_channel_bound(peer, now));
                }
            }
            RelayEvent::ChannelFailed { peer, reason } => {
                tracing::debug!(%reason, "relay refused a channel");
                for node in self.peers_at(id, peer) {
                    self.with_peer((id, node), now, |p| p.handle_relay_lost(now));
                }
            }
        }
    }

    fn peers_at(&self, id: NetworkId, relayed: SocketAddr) -> Vec<NodeId> {
        let peers = self.networks.get(&id).into_iter().flat_map(|network| network.peers.values());
        peers.filter(|p| p.relayed_candidate() == Some(relayed)).map(|p| p.node).collect()
    }

    fn drop_relayed_paths(&mut self, id: NetworkId, now: Instant) {
        let nodes: Vec<NodeId> =
            self.networks.get(&id).into_iter().flat_map(|network| network.peers.keys().copied()).collect();
        for node in nodes {
            self.with_peer((id, node), now, |peer| peer.handle_relay_lost(now));
        }
    }

    pub(super) fn set_host_candidates(&mut self, mut host: Vec<SocketAddr>, now: Instant) {
        host.sort_unstable();
        host.dedup();
        let changed = host != self.host;
        let first = self.host.is_empty();
        self.host = host;
        let peers: Vec<PeerId> = self
            .networks
            .values()
            .flat_map(|network| network.peers.keys().map(|node| (network.id, *node)))
            .collect();
        for network in self.networks.values_mut().filter(|_| changed && !first) {
            // Seen from outside, this may be another address now.
            if let Some(relay) = &mut network.relay {
                relay.client.restart(now);
            }
            if let Some(binding) = &mut network.binding {
                binding.restart(now);
            }
        }
        for peer_id in peers {
            self.with_peer(peer_id, now, |peer| {
                if changed && !first {
                    peer.handle_relay_lost(now);
                }
                peer.handle_network_change(now);
            });
        }
        self.flush_relays(now);
        self.report_candidates();
    }

    pub(super) fn relay_deadline(&self) -> Option<Instant> {
        let networks = self.networks.values();
        networks
            .flat_map(|network| {
                let relay = network.relay.as_ref().and_then(|relay| relay.client.poll_timeout());
                let binding = network.binding.as_ref().and_then(BindingClient::poll_timeout);
                [relay, binding, network.binding_retry].into_iter().flatten()
            })
            .chain(self.leaving.iter().filter_map(|relay| relay.client.poll_timeout()))
            .min()
    }

    pub(super) fn handle_relay_timeouts(&mut self, now: Instant) {
        if self.relay_deadline().is_none_or(|at| at > now) {
            return;
        }
        self.leaving.iter_mut().for_each(|relay| relay.client.handle_timeout(now));
        for network in self.networks.values_mut() {
            if let Some(relay) = &mut network.relay {
                relay.client.handle_timeout(now);
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

impl Relay {
    /// Collects what its client wants sent.
    fn flush(&mut self, outbox: &mut VecDeque<ControlDatagram>) {
        while let Some(outgoing) = self.client.poll_transmit() {
            let (to, socket) = (outgoing.to, self.socket);
            outbox.push_back(ControlDatagram { to, from: None, socket, bytes: outgoing.payload });
        }
    }
}

fn credentials(server: &RelayServer) -> RelayCredentials {
    RelayCredentials { username: server.username.clone(), password: server.password.clone() }
}
