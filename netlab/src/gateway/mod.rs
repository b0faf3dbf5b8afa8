//! A router with a translator in it, without sockets and clocks: Ethernet frames in, Ethernet frames out. Owns who is
//! where on both networks, the hops, and what a router answers itself; the translation is [`crate::nat`]'s.
//!
//! Only IPv4 passes. From outside, the router answers pings and nothing else.

mod neighbours;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::time::Instant;

use ipnet::Ipv4Net;

use crate::nat::{Dropped, Side, Translator};
use crate::packet::ethernet::{self, ETHERNET, Mac};
use crate::packet::icmp::{self, Trouble};
use crate::packet::{self, Header};
use neighbours::Neighbours;

/// How a router sits on one network.
#[derive(Debug, Clone, Copy)]
pub struct Attachment {
    /// Its hardware address.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv4Addr,
    /// The network's addresses.
    pub prefix: Ipv4Net,
    /// Largest packet.
    pub mtu: u16,
    /// The network's own way out.
    pub gateway: Option<Ipv4Addr>,
}

/// One of the two networks.
#[derive(Debug)]
struct Network {
    prefix: Ipv4Net,
    mtu: u16,
    gateway: Option<Ipv4Addr>,
    neighbours: Neighbours,
}

impl Network {
    fn new(attachment: Attachment) -> Self {
        let Attachment { mac, address, prefix, mtu, gateway } = attachment;
        Self { prefix, mtu, gateway, neighbours: Neighbours::new(mac, address) }
    }

    /// Whom to hand a packet to.
    fn next_hop(&self, destination: Ipv4Addr) -> Option<Ipv4Addr> {
        let is_group = destination == self.prefix.broadcast() || destination == self.prefix.network();
        match self.prefix.contains(&destination) {
            true if is_group => None,
            true => Some(destination),
            false => self.gateway,
        }
    }
}

/// The router.
#[derive(Debug)]
pub struct Gateway {
    inside: Network,
    outside: Network,
    nat: Translator,
}

impl Gateway {
    /// A router between two networks; the translator's address is the one outside.
    pub fn new(inside: Attachment, outside: Attachment, nat: Translator) -> Self {
        Self { inside: Network::new(inside), outside: Network::new(outside), nat }
    }

    /// The translator.
    pub fn nat(&mut self) -> &mut Translator {
        &mut self.nat
    }

    /// Takes another address outside, which ends all mappings.
    pub fn set_external(&mut self, address: Ipv4Addr) {
        self.nat.set_external(address);
        self.outside.neighbours.set_address(address);
    }

    /// A frame came in.
    pub fn handle_frame(&mut self, from: Side, frame: Vec<u8>, now: Instant) {
        let Some((destination, kind)) = ethernet::read(&frame) else { return };
        match kind {
            ethernet::ARP => self.network(from).neighbours.handle_arp(&frame, now),
            ethernet::IPV4 if destination == self.network(from).neighbours.mac() => {
                self.handle_packet(from, frame, now);
            }
            _ => {}
        }
    }

    /// Frames that are to be sent to a side.
    pub fn poll_frames(&mut self, to: Side) -> std::vec::Drain<'_, Vec<u8>> {
        self.network(to).neighbours.poll_frames()
    }

    /// When there is something to do without a frame.
    pub fn next_due(&self) -> Option<Instant> {
        [self.inside.neighbours.next_due(), self.outside.neighbours.next_due()].into_iter().flatten().min()
    }

    /// Does what is due. What waited in vain for its neighbour is told to its sender, as routers do.
    pub fn handle_time(&mut self, now: Instant) {
        for side in [Side::Inside, Side::Outside] {
            for frame in self.network(side).neighbours.handle_time(now) {
                self.nat.count(Dropped::NoNeighbour);
                let Some(packet) = frame.get(ETHERNET..) else { continue };
                let mut error = Header::read_whole(packet).and_then(|header| {
                    let own = self.network(side).neighbours.address();
                    icmp::error(own, &header, packet, Trouble::NoHost)
                });
                // The packet was translated already: its error goes back the same way.
                if let Some(error) = &mut error
                    && let Ok(to) = self.nat.translate(side, error, now)
                {
                    self.send(to, error, now);
                }
            }
        }
    }

    fn handle_packet(&mut self, from: Side, mut frame: Vec<u8>, now: Instant) {
        let header = frame.get(ETHERNET..).and_then(Header::read_whole);
        let Some(header) = header else { return self.nat.count(Dropped::Malformed) };
        // Short packets are padded on Ethernet.
        frame.truncate(ETHERNET + header.total);
        let Some(packet) = frame.get(ETHERNET..) else { return };
        if self.is_own(from, &header, packet) {
            self.answer(from, &header, packet, now);
            return;
        }
        if let Some((reason, trouble)) = self.trouble(from, &header) {
            self.nat.count(reason);
            let own = self.network(from).neighbours.address();
            if let Some(error) = icmp::error(own, &header, packet, trouble) {
                self.send(from, &error, now);
            }
            return;
        }
        let Some(packet) = frame.get_mut(ETHERNET..) else { return };
        packet::take_hop(packet);
        if let Ok(to) = self.nat.translate(from, packet, now) {
            self.deliver(to, frame, now);
        }
    }

    /// Whether a packet is for the router itself: anything to its inside address, and pings to the outside one.
    fn is_own(&self, from: Side, header: &Header, packet: &[u8]) -> bool {
        let is_inner = from == Side::Inside && header.destination == self.inside.neighbours.address();
        let is_ping = packet::is_echo_request(header, packet) && header.destination == self.nat.external();
        is_inner || is_ping
    }

    fn answer(&mut self, from: Side, header: &Header, packet: &[u8], now: Instant) {
        let answer = if packet::is_echo_request(header, packet) {
            icmp::echo_reply(header, packet)
        } else {
            icmp::error(header.destination, header, packet, Trouble::NoPort)
        };
        if let Some(answer) = answer {
            self.send(from, &answer, now);
        }
    }

    /// Why a packet can't get on, if so.
    fn trouble(&self, from: Side, header: &Header) -> Option<(Dropped, Trouble)> {
        let (there, mtu) = match from {
            Side::Inside => (self.outside.next_hop(header.destination), self.outside.mtu),
            Side::Outside => (Some(header.destination), self.inside.mtu),
        };
        if header.ttl <= 1 {
            Some((Dropped::Hops, Trouble::NoHops))
        } else if there.is_none() || from == Side::Inside && self.inside.prefix.contains(&header.destination)
        {
            Some((Dropped::NoRoute, Trouble::NoNetwork))
        } else if header.total > usize::from(mtu) {
            // Packets that may be cut are not: whoever is to work here has to find the path's size.
            Some((Dropped::TooBig, Trouble::TooBig(mtu)))
        } else {
            None
        }
    }

    fn deliver(&mut self, to: Side, frame: Vec<u8>, now: Instant) {
        let destination = frame.get(ETHERNET..).and_then(Header::read).map(|header| header.destination);
        let network = self.network(to);
        let Some(next) = destination.and_then(|destination| network.next_hop(destination)) else {
            return self.nat.count(Dropped::NoRoute);
        };
        if !network.neighbours.send(next, frame, now) {
            self.nat.count(Dropped::NoNeighbour);
        }
    }

    fn send(&mut self, to: Side, packet: &[u8], now: Instant) {
        let mut frame = vec![0; ETHERNET];
        frame.extend(packet);
        self.deliver(to, frame, now);
    }

    fn network(&mut self, side: Side) -> &mut Network {
        match side {
            Side::Inside => &mut self.inside,
            Side::Outside => &mut self.outside,
        }
    }
}
