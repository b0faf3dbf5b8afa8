//! IPv4 packets as bytes: reading the header, finding the endpoints of UDP, TCP and ICMP, rewriting one of them with all
//! checksums right. Knows no NAT. Bytes may be anything: what can't be read is refused, nothing panics.

pub mod checksum;
pub mod ethernet;
pub mod icmp;

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

/// Smallest IPv4 header.
pub const IPV4_HEADER: usize = 20;

/// What is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Echo and its answer; the identifier takes the place of a port.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// An IPv4 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its length.
    pub len: usize,
    /// Length of the packet with it.
    pub total: usize,
    /// Hops left.
    pub ttl: u8,
    /// Number of the protocol above.
    pub protocol: u8,
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// The packet must not be cut into fragments.
    pub dont_fragment: bool,
    /// More fragments follow.
    pub more_fragments: bool,
    /// Where this fragment belongs, in units of 8 bytes.
    pub fragment_offset: u16,
}

impl Header {
    /// Reads a header whose packet may be cut short, as in ICMP errors.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<IPV4_HEADER>()?;
        let len = usize::from(fixed[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if fixed[0] >> 4 != 4 || len < IPV4_HEADER || bytes.len() < len || total < len {
            return None;
        }
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        Some(Self {
            len,
            total,
            ttl: fixed[8],
            protocol: fixed[9],
            source: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]),
            destination: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]),
            dont_fragment: fragment & 0x4000 != 0,
            more_fragments: fragment & 0x2000 != 0,
            fragment_offset: fragment & 0x1fff,
        })
    }

    /// Reads the header of a whole packet with a right checksum; what follows the packet (padding) may be there.
    pub fn read_whole(bytes: &[u8]) -> Option<Self> {
        let header = Self::read(bytes)?;
        (bytes.len() >= header.total && checksum::of(bytes.get(..header.len)?) == 0).then_some(header)
    }
}

/// What a packet is to a translator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Between two ports, or an echo (request or reply) with its identifier as both ports.
    Session {
        /// Which protocol.
        protocol: Protocol,
        /// Sender's end.
        source: SocketAddrV4,
        /// Receiver's end.
        destination: SocketAddrV4,
    },
    /// An ICMP error about another packet.
    Error,
    /// Neither, or too short.
    Other,
}

/// Whether an ICMP type is about another packet, the beginning of which it carries.
fn is_error(icmp_type: u8) -> bool {
    matches!(icmp_type, 3 | 4 | 5 | 11 | 12)
}

/// Whether a packet is an ICMP echo request.
pub fn is_echo_request(header: &Header, packet: &[u8]) -> bool {
    header.protocol == 1 && header.fragment_offset == 0 && packet.get(header.len) == Some(&8)
}

/// Finds the endpoints of a packet that is no later fragment; it may be cut short after 8 bytes of the protocol's header.
pub fn kind(header: &Header, packet: &[u8]) -> Kind {
    let Some(start) = packet.get(header.len..).and_then(|rest| rest.first_chunk::<8>()) else {
        return Kind::Other;
    };
    let word = |at: usize| u16::from_be_bytes([start[at], start[at + 1]]);
    let (protocol, source, destination) = match header.protocol {
        1 if is_error(start[0]) => return Kind::Error,
        1 if matches!(start[0], 0 | 8) => (Protocol::Icmp, word(4), word(4)),
        6 => (Protocol::Tcp, word(0), word(2)),
        17 => (Protocol::Udp, word(0), word(2)),
        _ => return Kind::Other,
    };
    Kind::Session {
        protocol,
        source: SocketAddrV4::new(header.source, source),
        destination: SocketAddrV4::new(header.destination, destination),
    }
}

/// Flags of a TCP packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpFlags {
    /// Opens.
    pub syn: bool,
    /// Answers.
    pub ack: bool,
    /// Ends one way.
    pub fin: bool,
    /// Ends.
    pub rst: bool,
}

/// The flags of a TCP packet; none when it is too short to have them.
pub fn tcp_flags(header: &Header, packet: &[u8]) -> TcpFlags {
    let flags = packet.get(header.len + 13).copied().unwrap_or(0);
    TcpFlags { fin: flags & 1 != 0, syn: flags & 2 != 0, rst: flags & 4 != 0, ack: flags & 16 != 0 }
}

/// One end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
}

/// Rewrites one end: address, port (or echo identifier), and the checksums of IP and, as far as there, of the protocol.
pub fn rewrite(packet: &mut [u8], header: &Header, protocol: Protocol, end: End, to: SocketAddrV4) {
    let at = header.len;
    let (transport, port) = match (protocol, end) {
        // The checksum of an echo leaves addresses out, and both ends share one identifier.
        (Protocol::Icmp, _) => (Sum { at: at + 2, is_optional: false }, at + 4),
        (Protocol::Tcp, End::Source) => (Sum { at: at + 16, is_optional: false }, at),
        (Protocol::Tcp, End::Destination) => (Sum { at: at + 16, is_optional: false }, at + 2),
        (Protocol::Udp, End::Source) => (Sum { at: at + 6, is_optional: true }, at),
        (Protocol::Udp, End::Destination) => (Sum { at: at + 6, is_optional: true }, at + 2),
    };
    rewrite_address(packet, end, *to.ip(), (protocol != Protocol::Icmp).then_some(transport));
    patch(packet, port, &to.port().to_be_bytes(), &[transport]);
}

/// Rewrites an address and the IP header's checksum, as for packets whose protocol's checksum leaves addresses out.
pub fn rewrite_plain(packet: &mut [u8], end: End, to: Ipv4Addr) {
    rewrite_address(packet, end, to, None);
}

fn rewrite_address(packet: &mut [u8], end: End, to: Ipv4Addr, transport: Option<Sum>) {
    let at = match end {
        End::Source => 12,
        End::Destination => 16,
    };
    let ip = Sum { at: 10, is_optional: false };
    match transport {
        Some(transport) => patch(packet, at, &to.octets(), &[ip, transport]),
        None => patch(packet, at, &to.octets(), &[ip]),
    }
}

/// Takes one hop off, with the header's checksum right; the caller has seen to it that there are hops.
pub fn take_hop(packet: &mut [u8]) {
    if let Some(&[ttl, protocol]) = packet.get(8..10).and_then(|bytes| bytes.first_chunk::<2>()) {
        let hop = [ttl.saturating_sub(1), protocol];
        patch(packet, 8, &hop, &[Sum { at: 10, is_optional: false }]);
    }
}

/// Place of a checksum.
#[derive(Debug, Clone, Copy)]
struct Sum {
    at: usize,
    /// Zero stands for "none" (UDP).
    is_optional: bool,
}

/// Writes bytes at an even place and mends the checksums over it that are there.
fn patch<const N: usize>(packet: &mut [u8], at: usize, new: &[u8; N], sums: &[Sum]) {
    let Some(field) = packet.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>()) else { return };
    let old = std::mem::replace(field, *new);
    for sum in sums {
        let Some(field) = packet.get_mut(sum.at..).and_then(|rest| rest.first_chunk_mut::<2>()) else {
            continue;
        };
        let before = u16::from_be_bytes(*field);
        if sum.is_optional && before == 0 {
            continue;
        }
        let after = match checksum::mend(before, &old, new) {
            0 if sum.is_optional => 0xffff,
            after => after,
        };
        *field = after.to_be_bytes();
    }
}

#[cfg(test)]
pub mod build;
#[cfg(test)]
mod tests;
