//! The control part's streams to relays: when one is wanted ([`fallback`](crate::relay::fallback) decides), and what its
//! coming and going does to paths. Opening it and moving its bytes is the caller's.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ria_protocol::id::NetworkId;

use super::command::{CommandError, StreamNews};
use super::control::Control;
use super::event::Event;
use super::relay::{Relay, Stream, Way, credentials};
use super::relays::RelayId;
use super::status::PathKind;
use crate::packet::SocketIndex;
use crate::peer::Peer;
use crate::relay::fallback::Decision;
use crate::relay::{RelayClient, Transport};

impl Control {
    pub(super) fn set_coordinator_reached(
        &mut self,
        id: NetworkId,
        reached: bool,
        now: Instant,
    ) -> Result<(), CommandError> {
        for relay in &mut self.network(id)?.relays {
            relay.fallback.set_reached(reached);
        }
        self.note_reached(id, reached, now);
        self.flush_relays(now);
        Ok(())
    }

    /// Draws the conclusions of what the clients of a network's relays have learnt.
    pub(super) fn follow_relays(&mut self, id: NetworkId, now: Instant) {
        let relays = self.networks.get(&id).into_iter().flat_map(|network| &network.relays);
        let servers: Vec<SocketAddr> = relays.map(|relay| relay.server.address).collect();
        for server in servers {
            self.decide_stream((id, server), now);
        }
        let Some(network) = self.networks.get_mut(&id) else { return };
        for relay in network.relays.iter_mut().filter(|relay| relay.relayed_address().is_some()) {
            relay.failure = None;
        }
        let bound: Vec<(Transport, SocketAddr)> = network.relays.iter().filter_map(Relay::bound).collect();
        if bound == network.told {
            return;
        }
        let former = std::mem::replace(&mut network.told, bound);
        let best = network.best_relay().and_then(|relay| Some((relay.server.name.clone(), relay.bound()?)));
        if let Some((relay, (transport, relayed))) = best
            && former.first() != Some(&(transport, relayed))
        {
            self.events.push_back(Event::RelayUp { network: id, relay, relayed, transport });
        }
        self.report_candidates(now);
    }

    /// Opens or closes the stream to a relay, where it is time to.
    fn decide_stream(&mut self, at: RelayId, now: Instant) {
        let Some(network) = self.networks.get_mut(&at.0) else { return };
        let mut relays = network.relays.iter_mut();
        let relay = relays.find(|relay| relay.server.address == at.1 && relay.server.tls_port.is_some());
        let Some(relay) = relay else { return };
        let via = network.peers.values().filter_map(Peer::relayed_via);
        let in_use = via
            .filter(|(transport, _)| *transport == Transport::Tls)
            .any(|(transport, to)| relay.carries(transport, to));
        let decision = relay.fallback.decide(relay.over_udp(), relay.tls.is_some(), in_use, now);
        let served = relay.carrier() == Transport::Tls;
        relay.udp.client.set_spared(served);
        match decision {
            Decision::Stay => {}
            Decision::Open => self.open_stream(at),
            Decision::Close => self.close_stream(at, now),
        }
    }

    fn open_stream(&mut self, at: RelayId) {
        let socket = SocketIndex::stream(self.next_stream);
        let Some(relay) = self.relay_mut(at) else { return };
        let Some(address) = relay.stream_address() else { return };
        relay.tls = Some(Stream { socket, way: None });
        let name = relay.server.name.clone();
        self.next_stream = self.next_stream.wrapping_add(1);
        self.events.push_back(Event::RelayStreamWanted { network: at.0, socket, relay: name, address });
    }

    /// Closes the stream to a relay, when there is one.
    pub(super) fn close_stream(&mut self, at: RelayId, now: Instant) {
        if self.relay_mut(at).is_none_or(|relay| relay.tls.is_none()) {
            return;
        }
        self.drop_relayed_paths(at, Transport::Tls, now);
        let Some(stream) = self.relay_mut(at).and_then(|relay| relay.tls.take()) else { return };
        self.events.push_back(Event::RelayStreamUnwanted { network: at.0, socket: stream.socket });
    }

    /// Has another stream opened in the place of the one that there is.
    pub(super) fn reopen_stream(&mut self, at: RelayId, now: Instant) {
        self.close_stream(at, now);
        self.open_stream(at);
    }

    pub(super) fn handle_stream_news(
        &mut self,
        id: NetworkId,
        socket: SocketIndex,
        news: StreamNews,
        now: Instant,
    ) -> Result<(), CommandError> {
        let mut relays = self.network(id)?.relays.iter();
        // One that is not wanted any more may still tell something.
        let relay = relays.find(|relay| relay.tls.as_ref().is_some_and(|stream| stream.socket == socket));
        if let Some(server) = relay.map(|relay| relay.server.address) {
            match news {
                StreamNews::Opened => self.handle_stream_opened((id, server), now),
                StreamNews::Closed(reason) => self.handle_stream_closed((id, server), &reason, now),
            }
        }
        self.flush_relays(now);
        Ok(())
    }

    fn handle_stream_opened(&mut self, at: RelayId, now: Instant) {
        self.drop_relayed_paths(at, Transport::Tls, now);
        let randomness = self.randomness();
        let Some(relay) = self.relay_mut(at) else { return };
        let (Some(address), credentials) = (relay.stream_address(), credentials(&relay.server)) else {
            return;
        };
        if let Some(stream) = &mut relay.tls {
            let client = RelayClient::over_stream(address, credentials, randomness, now);
            stream.way = Some(Way { client, socket: stream.socket });
        }
        self.assign_channels(at.0, now);
    }

    fn handle_stream_closed(&mut self, at: RelayId, reason: &str, now: Instant) {
        self.drop_relayed_paths(at, Transport::Tls, now);
        if let Some(stream) = self.relay_mut(at).and_then(|relay| relay.tls.as_mut()) {
            stream.way = None;
        }
        self.handle_relay_failure(at, format!("it does not answer over UDP, and not over TLS: {reason}"));
    }

    /// All ways to a peer have fallen silent: where a relay over UDP does so too, it is spoken to over a stream soon.
    pub(super) fn check_relays(&mut self, id: NetworkId, patience: Duration, now: Instant) {
        for relay in self.networks.get_mut(&id).into_iter().flat_map(|network| &mut network.relays) {
            relay.udp.client.check(now);
            relay.fallback.hurry(now + patience);
        }
        self.flush_relays(now);
    }

    /// A path through a relay died: whose end of it is to blame shows when the relays are asked.
    pub(super) fn check_relay(&mut self, id: NetworkId, before: PathKind, after: PathKind, now: Instant) {
        let transport = match (before, after) {
            (PathKind::RelayUdp, PathKind::RelayTls | PathKind::RelayUdp) => Transport::Udp,
            // A NAT that forgot has cut the way to the relay with all others.
            (PathKind::Direct | PathKind::RelayUdp, PathKind::None) => Transport::Udp,
            (PathKind::RelayTls, PathKind::None) => Transport::Tls,
            (PathKind::None | PathKind::Direct | PathKind::RelayUdp | PathKind::RelayTls, _) => return,
        };
        let relays = self.networks.get_mut(&id).into_iter().flat_map(|network| &mut network.relays);
        for way in relays.filter_map(|relay: &mut Relay| relay.way_mut(transport)) {
            way.client.check(now);
        }
        self.flush_relays(now);
    }
}
