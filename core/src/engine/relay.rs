//! One of a network's relays: the ways in which it is spoken to, and which of them carries.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::command::RelayServer;
use super::control::ControlDatagram;
use super::status::RelayStatus;
use crate::packet::{Class, SocketIndex};
use crate::relay::fallback::{Fallback, Udp};
use crate::relay::{RelayClient, RelayCredentials, Transport};
use crate::stun::Randomness;

/// A relay in use.
pub(super) struct Relay {
    pub(super) server: RelayServer,
    pub(super) udp: Way,
    /// While UDP gives no answer, and for a while after.
    pub(super) tls: Option<Stream>,
    pub(super) fallback: Fallback,
    pub(super) failure: Option<String>,
}

/// An allocation, and from where it is spoken of.
pub(super) struct Way {
    pub(super) client: RelayClient,
    pub(super) socket: SocketIndex,
}

/// A stream to the relay, open or being opened.
pub(super) struct Stream {
    pub(super) socket: SocketIndex,
    /// While it is open.
    pub(super) way: Option<Way>,
}

impl Relay {
    pub(super) fn new(
        server: RelayServer,
        socket: SocketIndex,
        randomness: Randomness,
        now: Instant,
    ) -> Self {
        let client = RelayClient::new(server.address, credentials(&server), randomness, now);
        Self { server, udp: Way { client, socket }, tls: None, fallback: Fallback::default(), failure: None }
    }

    /// Where its streams end.
    pub(super) fn stream_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.server.address.ip(), self.server.tls_port?))
    }

    pub(super) fn way(&self, transport: Transport) -> Option<&Way> {
        match transport {
            Transport::Udp => Some(&self.udp),
            Transport::Tls => self.tls.as_ref()?.way.as_ref(),
        }
    }

    pub(super) fn way_mut(&mut self, transport: Transport) -> Option<&mut Way> {
        match transport {
            Transport::Udp => Some(&mut self.udp),
            Transport::Tls => self.tls.as_mut()?.way.as_mut(),
        }
    }

    /// All ways that there are.
    pub(super) fn ways(&self) -> impl Iterator<Item = &Way> {
        [Transport::Udp, Transport::Tls].into_iter().filter_map(|transport| self.way(transport))
    }

    pub(super) fn ways_mut(&mut self) -> impl Iterator<Item = &mut Way> {
        let tls = self.tls.as_mut().and_then(|stream| stream.way.as_mut());
        std::iter::once(&mut self.udp).chain(tls)
    }

    /// Through which socket which way goes.
    pub(super) fn transport_at(&self, socket: SocketIndex) -> Option<Transport> {
        [Transport::Udp, Transport::Tls]
            .into_iter()
            .find(|transport| self.way(*transport).is_some_and(|way| way.socket == socket))
    }

    fn relayed_over(&self, transport: Transport) -> Option<SocketAddr> {
        self.way(transport)?.client.relayed_address()
    }

    /// The way whose address this node gives as its own: UDP, unless only the stream works.
    pub(super) fn carrier(&self) -> Transport {
        let (udp, tls) = (self.relayed_over(Transport::Udp), self.relayed_over(Transport::Tls));
        if tls.is_some() && (udp.is_none() || self.fallback.is_silent()) {
            Transport::Tls
        } else {
            Transport::Udp
        }
    }

    /// The address at which others reach this node.
    pub(super) fn relayed_address(&self) -> Option<SocketAddr> {
        self.relayed_over(self.carrier())
    }

    /// The same with the way that it is by.
    pub(super) fn bound(&self) -> Option<(Transport, SocketAddr)> {
        self.relayed_address().map(|address| (self.carrier(), address))
    }

    /// Whether its allocations are at this IP address, as far as known.
    pub(super) fn shows(&self, ip: IpAddr) -> bool {
        let allocated = |way: &Way| way.client.relayed_address().is_some_and(|own| own.ip() == ip);
        self.server.address.ip() == ip || self.ways().any(allocated)
    }

    /// Whether payload to this relayed address takes this relay, spoken to in this way.
    pub(super) fn carries(&self, transport: Transport, to: SocketAddr) -> bool {
        self.way(transport).is_some_and(|way| way.client.wants(to))
    }

    /// Whether an address is one of this node's own at the relay.
    pub(super) fn is_own(&self, relayed: SocketAddr) -> bool {
        self.ways().any(|way| way.client.relayed_address() == Some(relayed))
    }

    /// How it goes over UDP.
    pub(super) fn over_udp(&self) -> Udp {
        let client = &self.udp.client;
        Udp { allocated: client.relayed_address().is_some(), deaf_since: client.deaf_since() }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let decision = self.fallback.deadline(self.over_udp()).filter(|_| self.server.tls_port.is_some());
        self.ways().filter_map(|way| way.client.poll_timeout()).chain(decision).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.ways_mut().for_each(|way| way.client.handle_timeout(now));
    }

    /// Collects what its clients want sent.
    pub(super) fn flush(&mut self, outbox: &mut VecDeque<ControlDatagram>) {
        self.ways_mut().for_each(|way| way.flush(outbox));
    }

    pub(super) fn status(&self) -> RelayStatus {
        RelayStatus {
            name: self.server.name.clone(),
            address: self.server.address,
            relayed: self.relayed_address(),
            transport: self.carrier(),
            failure: self.failure.clone(),
        }
    }
}

impl Way {
    fn flush(&mut self, outbox: &mut VecDeque<ControlDatagram>) {
        while let Some(outgoing) = self.client.poll_transmit() {
            let (to, socket) = (outgoing.to, self.socket);
            outbox.push_back(ControlDatagram {
                to,
                from: None,
                socket,
                class: Class::Urgent,
                bytes: outgoing.payload,
            });
        }
    }
}

pub(super) fn credentials(server: &RelayServer) -> RelayCredentials {
    RelayCredentials { username: server.username.clone(), password: server.password.clone() }
}
