//! The control part's streams to relays: when one is wanted ([`fallback`](crate::relay::fallback) decides), and what its
//! coming and going does to paths. Opening it and moving its bytes is the caller's.

use std::time::Instant;

use ria_protocol::id::NetworkId;

use super::command::{CommandError, StreamNews};
use super::control::Control;
use super::event::Event;
use super::relay::{Relay, Stream, Way, credentials};
use super::slots::PeerId;
use super::status::PathKind;
use crate::packet::SocketIndex;
use crate::relay::fallback::Decision;
use crate::relay::{RelayClient, Transport};

impl Control {
    pub(super) fn set_coordinator_reached(
        &mut self,
        id: NetworkId,
        reached: bool,
        now: Instant,
    ) -> Result<(), CommandError> {
        if let Some(relay) = &mut self.network(id)?.relay {
            relay.fallback.set_reached(reached);
        }
        self.note_reached(id, reached, now);
        self.flush_relays(now);
        Ok(())
    }

    /// Draws the conclusions of what a relay's clients have learnt.
    pub(super) fn follow_relay(&mut self, id: NetworkId, now: Instant) {
        self.decide_stream(id, now);
        let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
        let Some(relay) = relay else { return };
        let bound = relay.bound();
        if bound == relay.told {
            return;
        }
        relay.told = bound;
        if let Some((transport, relayed)) = bound {
            relay.failure = None;
            let name = relay.server.name.clone();
            self.events.push_back(Event::RelayUp { network: id, relay: name, relayed, transport });
        }
        self.report_candidates(now);
    }

    /// Opens or closes the stream to a network's relay, where it is time to.
    fn decide_stream(&mut self, id: NetworkId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(relay) = network.relay.as_mut().filter(|relay| relay.server.tls_port.is_some()) else {
            return;
        };
        let in_use = network.peers.values().any(|peer| peer.relayed_over() == Some(Transport::Tls));
        let decision = relay.fallback.decide(relay.over_udp(), relay.tls.is_some(), in_use, now);
        let served = relay.carrier() == Transport::Tls;
        relay.udp.client.set_spared(served);
        match decision {
            Decision::Stay => {}
            Decision::Open => self.open_stream(id),
            Decision::Close => _ = self.close_stream(id, now),
        }
    }

    fn open_stream(&mut self, id: NetworkId) {
        let socket = SocketIndex::stream(self.next_stream);
        let Some(relay) = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut()) else {
            return;
        };
        let Some(address) = relay.stream_address() else { return };
        self.next_stream = self.next_stream.wrapping_add(1);
        relay.tls = Some(Stream { socket, way: None });
        let name = relay.server.name.clone();
        self.events.push_back(Event::RelayStreamWanted { network: id, socket, relay: name, address });
    }

    /// Closes the stream of a network, when there is one. Returns whether its coordinator is there, which holds on.
    pub(super) fn close_stream(&mut self, id: NetworkId, now: Instant) -> bool {
        let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
        let Some(relay) = relay else { return false };
        let reached = relay.fallback.is_reached();
        if let Some(stream) = relay.tls.take() {
            self.events.push_back(Event::RelayStreamUnwanted { network: id, socket: stream.socket });
            self.drop_relayed_paths(id, Transport::Tls, now);
        }
        reached
    }

    /// Has another stream opened in the place of the one that there is.
    pub(super) fn reopen_stream(&mut self, id: NetworkId, now: Instant) {
        self.close_stream(id, now);
        self.open_stream(id);
    }

    pub(super) fn handle_stream_news(
        &mut self,
        id: NetworkId,
        socket: SocketIndex,
        news: StreamNews,
        now: Instant,
    ) -> Result<(), CommandError> {
        let relay = self.network(id)?.relay.as_ref();
        // One that is not wanted any more may still tell something.
        let current =
            relay.and_then(|relay| relay.tls.as_ref()).is_some_and(|stream| stream.socket == socket);
        match news {
            StreamNews::Opened if current => self.handle_stream_opened(id, now),
            StreamNews::Closed(reason) if current => self.handle_stream_closed(id, reason, now),
            StreamNews::Opened | StreamNews::Closed(_) => {}
        }
        self.flush_relays(now);
        Ok(())
    }

    fn handle_stream_opened(&mut self, id: NetworkId, now: Instant) {
        self.drop_relayed_paths(id, Transport::Tls, now);
        let randomness = self.randomness();
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(relay) = &mut network.relay else { return };
        let (Some(address), credentials) = (relay.stream_address(), credentials(&relay.server)) else {
            return;
        };
        if let Some(stream) = &mut relay.tls {
            let client = RelayClient::over_stream(address, credentials, randomness, now);
            stream.way = Some(Way { client, socket: stream.socket });
        }
        let peers: Vec<PeerId> = network.peers.keys().map(|node| (id, *node)).collect();
        for peer in peers {
            self.open_channels(peer, now);
        }
    }

    fn handle_stream_closed(&mut self, id: NetworkId, reason: String, now: Instant) {
        let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
        if let Some(stream) = relay.and_then(|relay| relay.tls.as_mut()) {
            stream.way = None;
        }
        self.drop_relayed_paths(id, Transport::Tls, now);
        self.handle_relay_failure(id, format!("it does not answer over UDP, and not over TLS: {reason}"));
    }

    /// A path through the relay died: whose end of it is to blame shows when the relay is asked.
    pub(super) fn check_relay(&mut self, id: NetworkId, before: PathKind, after: PathKind, now: Instant) {
        let transport = match (before, after) {
            (PathKind::RelayUdp, PathKind::RelayTls) => Transport::Udp,
            // A NAT that forgot has cut the way to the relay with all others.
            (PathKind::Direct | PathKind::RelayUdp, PathKind::None) => Transport::Udp,
            (PathKind::RelayTls, PathKind::None) => Transport::Tls,
            (PathKind::None | PathKind::Direct | PathKind::RelayUdp | PathKind::RelayTls, _) => return,
        };
        let relay = self.networks.get_mut(&id).and_then(|network| network.relay.as_mut());
        if let Some(way) = relay.and_then(|relay: &mut Relay| relay.way_mut(transport)) {
            way.client.check(now);
            self.flush_relays(now);
        }
    }
}
