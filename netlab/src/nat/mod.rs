//! A network address translator for IPv4 without sockets and clocks: packets in, translated packets out (RFC 4787, 5382,
//! 5508). Owns mappings and what was dropped why; not the addresses of links, hops, or answers of a router's own.
//!
//! The first fragment of a packet is translated, later ones are dropped: they carry no ports.

mod behaviour;
mod icmp;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use behaviour::{Behaviour, Dependence, Hairpin, Ports};
use table::{Seen, Table};

pub use crate::packet::Protocol;
use crate::packet::{self, End, Header, Kind, TcpFlags};

/// The two sides of a translator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Towards its hosts.
    Inside,
    /// Towards the internet.
    Outside,
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dropped {
    /// It is no whole IPv4 packet with right checksums.
    Malformed,
    /// A fragment other than the first.
    Fragment,
    /// Neither UDP nor TCP nor a translatable part of ICMP.
    Protocol,
    /// From outside to an address or port that nobody has.
    NoMapping,
    /// From outside, from somebody whom the filter doesn't let in.
    Filtered,
    /// TCP in the middle of a connection that is not known.
    NoConnection,
    /// From inside to the own outside address, with hairpinning off.
    Hairpin,
    /// All ports, or all sessions of a mapping, are taken.
    Full,
    /// Nobody in the network answers for the address that the packet is for.
    NoNeighbour,
    /// There is no way to the destination.
    NoRoute,
    /// Its hops are used up.
    Hops,
    /// It is larger than the link that it would take.
    TooBig,
}

impl Dropped {
    /// The reason in words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Malformed => "damaged, or no IPv4",
            Self::Fragment => "later fragments",
            Self::Protocol => "neither UDP nor TCP nor ICMP",
            Self::NoMapping => "from outside, to a port that nobody has",
            Self::Filtered => "from outside, from strangers",
            Self::NoConnection => "of unknown TCP connections",
            Self::Hairpin => "to the own outside address",
            Self::Full => "no port or session left",
            Self::NoNeighbour => "nobody has the address",
            Self::NoRoute => "no route",
            Self::Hops => "hops used up",
            Self::TooBig => "larger than the link takes",
        }
    }
}

/// One mapping, as told to who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappingReport {
    /// Which protocol.
    pub protocol: Protocol,
    /// Address and port of the host.
    pub inside: SocketAddrV4,
    /// Address and port that the internet sees.
    pub outside: SocketAddrV4,
}

/// A translator, as told to who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatReport {
    /// Its address outside.
    pub external: Ipv4Addr,
    /// Present mappings.
    pub mappings: Vec<MappingReport>,
    /// Packets that were dropped, by reason.
    pub dropped: BTreeMap<Dropped, u64>,
}

/// The translator.
#[derive(Debug)]
pub struct Translator {
    behaviour: Behaviour,
    external: Ipv4Addr,
    table: Table,
    dropped: BTreeMap<Dropped, u64>,
}

impl Translator {
    /// A translator without mappings. The seed decides on random ports.
    pub fn new(behaviour: Behaviour, external: Ipv4Addr, seed: u64) -> Self {
        Self { behaviour, external, table: Table::new(seed), dropped: BTreeMap::new() }
    }

    /// The address outside.
    pub fn external(&self) -> Ipv4Addr {
        self.external
    }

    /// Forgets all mappings, as when it lost its power.
    pub fn reboot(&mut self) {
        self.table.clear();
    }

    /// Gets another address outside, which ends all mappings.
    pub fn set_external(&mut self, address: Ipv4Addr) {
        self.external = address;
        self.table.clear();
    }

    /// What it holds, and what it has dropped.
    pub fn report(&self, now: Instant) -> NatReport {
        let external = self.external;
        let mapping = |(protocol, inside, port)| {
            let outside = SocketAddrV4::new(external, port);
            MappingReport { protocol, inside, outside }
        };
        let mappings = self.table.list(now).map(mapping).collect();
        NatReport { external, mappings, dropped: self.dropped.clone() }
    }

    /// How many packets were dropped, by reason.
    pub fn dropped(&self) -> &BTreeMap<Dropped, u64> {
        &self.dropped
    }

    /// Counts a packet that was dropped, here or by the router around this.
    pub fn count(&mut self, reason: Dropped) {
        *self.dropped.entry(reason).or_default() += 1;
    }

    /// Translates a packet in place, and tells to which side it goes on; a packet that goes nowhere is counted.
    pub fn translate(&mut self, from: Side, packet: &mut [u8], now: Instant) -> Result<Side, Dropped> {
        self.table.tidy(now);
        let to = match from {
            Side::Inside => self.outbound(packet, now),
            Side::Outside => self.inbound(packet, now).map(|()| Side::Inside),
        };
        if let Err(reason) = to {
            self.count(reason);
        }
        to
    }

    fn outbound(&mut self, packet: &mut [u8], now: Instant) -> Result<Side, Dropped> {
        let header = read(packet)?;
        let (protocol, source, destination) = match packet::kind(&header, packet) {
            Kind::Session { protocol, source, destination } => (protocol, source, destination),
            Kind::Error => return icmp::outbound_error(self, packet, &header, now),
            Kind::Other => return Err(Dropped::Protocol),
        };
        // An answer to an echo belongs to a request that came in, which never happens: nobody is pinged through this.
        if protocol == Protocol::Icmp && !packet::is_echo_request(&header, packet) {
            return Err(Dropped::Protocol);
        }
        let flags = flags(protocol, &header, packet);
        let returns = *destination.ip() == self.external;
        if returns && self.behaviour.hairpin == Hairpin::Off {
            return Err(Dropped::Hairpin);
        }
        let port = self.map(protocol, (source, destination), flags, now)?;
        let external = SocketAddrV4::new(self.external, port);
        if !returns {
            packet::rewrite(packet, &header, protocol, End::Source, external);
            return Ok(Side::Outside);
        }
        let to = self.admit(protocol, destination.port(), external, flags, now)?;
        if self.behaviour.hairpin == Hairpin::ExternalSource {
            packet::rewrite(packet, &header, protocol, End::Source, external);
        }
        packet::rewrite(packet, &header, protocol, End::Destination, to);
        Ok(Side::Inside)
    }

    /// The outside port of a packet from inside, made where there is none, with its life prolonged.
    fn map(
        &mut self,
        protocol: Protocol,
        ends: (SocketAddrV4, SocketAddrV4),
        flags: TcpFlags,
        now: Instant,
    ) -> Result<u16, Dropped> {
        let behaviour = &self.behaviour;
        let known = self.table.port_of(behaviour, protocol, ends, now);
        let is_connected =
            |port| self.table.by_port(protocol, port, now).is_some_and(|mapping| mapping.knows(ends.1, now));
        if protocol == Protocol::Tcp && !flags.syn && !known.is_some_and(is_connected) {
            return Err(Dropped::NoConnection);
        }
        let port = match known {
            Some(port) => port,
            None => self.table.map(behaviour, protocol, ends, now).ok_or(Dropped::Full)?,
        };
        let seen = Seen { remote: ends.1, from_outside: false, flags };
        if self.table.touch(behaviour, (protocol, port), seen, now) { Ok(port) } else { Err(Dropped::Full) }
    }

    fn inbound(&mut self, packet: &mut [u8], now: Instant) -> Result<(), Dropped> {
        let header = read(packet)?;
        if header.destination != self.external {
            return Err(Dropped::NoMapping);
        }
        let (protocol, source, destination) = match packet::kind(&header, packet) {
            Kind::Session { protocol, source, destination } => (protocol, source, destination),
            Kind::Error => return icmp::inbound_error(self, packet, &header, now),
            Kind::Other => return Err(Dropped::Protocol),
        };
        if protocol == Protocol::Icmp && packet::is_echo_request(&header, packet) {
            return Err(Dropped::NoMapping);
        }
        let flags = flags(protocol, &header, packet);
        let to = self.admit(protocol, destination.port(), source, flags, now)?;
        packet::rewrite(packet, &header, protocol, End::Destination, to);
        Ok(())
    }

    /// The end inside that a packet from outside reaches, if the filter lets it.
    fn admit(
        &mut self,
        protocol: Protocol,
        port: u16,
        remote: SocketAddrV4,
        flags: TcpFlags,
        now: Instant,
    ) -> Result<SocketAddrV4, Dropped> {
        let mapping = self.table.by_port(protocol, port, now).ok_or(Dropped::NoMapping)?;
        let is_let_in = match protocol {
            // The identifier stands for both ports.
            Protocol::Icmp => mapping.knows_address(*remote.ip(), now),
            Protocol::Tcp | Protocol::Udp => mapping.admits(self.behaviour.filtering, remote, now),
        };
        if !is_let_in {
            return Err(Dropped::Filtered);
        }
        let opens = flags.syn && !flags.ack;
        if protocol == Protocol::Tcp && !opens && !mapping.knows(remote, now) {
            return Err(Dropped::NoConnection);
        }
        let inside = mapping.inside();
        let seen = Seen { remote, from_outside: true, flags };
        if self.table.touch(&self.behaviour, (protocol, port), seen, now) {
            Ok(inside)
        } else {
            Err(Dropped::Full)
        }
    }
}

/// Reads the header of a packet that can be translated.
fn read(packet: &[u8]) -> Result<Header, Dropped> {
    let header = Header::read_whole(packet).ok_or(Dropped::Malformed)?;
    if header.fragment_offset == 0 { Ok(header) } else { Err(Dropped::Fragment) }
}

fn flags(protocol: Protocol, header: &Header, packet: &[u8]) -> TcpFlags {
    if protocol == Protocol::Tcp { packet::tcp_flags(header, packet) } else { TcpFlags::default() }
}
