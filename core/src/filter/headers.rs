//! What a packet carries, as far as a policy cares: protocol and ports, behind whatever extension headers (RFC 8200), and
//! of an ICMP error the packet that it is about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ria_protocol::policy::protocol::{ICMP, ICMPV6, TCP, UDP};

use crate::ip::IpPacket;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// More extension headers than this are nobody's honest packet.
const MOST_EXTENSIONS: usize = 4;

const ECHO: [(u8, u8); 2] = [(8, 0), (128, 129)];

/// Ends of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) protocol: u8,
    pub(super) source: (IpAddr, u16),
    pub(super) destination: (IpAddr, u16),
}

impl Ends {
    /// Whether its protocol has ports.
    pub(super) fn has_ports(&self) -> bool {
        matches!(self.protocol, TCP | UDP)
    }
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carried {
    /// A packet of a conversation. Protocols without ports have 0 for both; the echo of ICMP has its identifier for the end
    /// that asks, and 0 for the other.
    Packet(Ends, TcpFlags),
    /// An ICMP error about a packet of this conversation.
    Error(Ends),
    /// A fragment behind the first: it says nothing of what it belongs to, and is of no use without the first.
    LaterFragment,
    /// Too short for what it says it is, or made to slip through.
    Malformed,
}

/// What matters of TCP's flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TcpFlags {
    /// It begins a connection.
    pub(super) begins: bool,
    /// It ends one.
    pub(super) ends: bool,
    /// It is TCP, and no beginning.
    pub(super) goes_on: bool,
}

/// Looks at a packet.
pub(super) fn carried(packet: &IpPacket<'_>) -> Carried {
    let Some((protocol, payload)) = payload(packet.bytes) else { return Carried::Malformed };
    match payload {
        Payload::LaterFragment => Carried::LaterFragment,
        Payload::Whole(bytes) => upper(protocol, packet.source, packet.destination, bytes),
    }
}

enum Payload<'a> {
    /// Or the first fragment.
    Whole(&'a [u8]),
    LaterFragment,
}

/// The protocol and what is behind the IP headers. Lenient about the length, since errors quote beginnings only.
fn payload(bytes: &[u8]) -> Option<(u8, Payload<'_>)> {
    match bytes.first()? >> 4 {
        4 => {
            let header: &[u8; 20] = bytes.first_chunk()?;
            let len = usize::from(header[0] & 0x0f) * 4;
            let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
            match offset {
                0 => Some((header[9], Payload::Whole(bytes.get(len.max(20)..)?))),
                // It could write over the ports of the first one (RFC 3128).
                1 => None,
                _ => Some((header[9], Payload::LaterFragment)),
            }
        }
        6 => {
            let header: &[u8; 40] = bytes.first_chunk()?;
            let (mut next, mut rest) = (header[6], bytes.get(40..)?);
            for _ in 0..MOST_EXTENSIONS {
                let len = match next {
                    HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => 8 + usize::from(*rest.get(1)?) * 8,
                    FRAGMENT => {
                        let offset = u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]) >> 3;
                        match offset {
                            0 => 8,
                            1 => return None,
                            _ => return Some((*rest.first()?, Payload::LaterFragment)),
                        }
                    }
                    _ => return Some((next, Payload::Whole(rest))),
                };
                (next, rest) = (*rest.first()?, rest.get(len..)?);
            }
            None
        }
        _ => None,
    }
}

fn upper(protocol: u8, source: IpAddr, destination: IpAddr, bytes: &[u8]) -> Carried {
    let word = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let ends =
        |ports: (u16, u16)| Ends { protocol, source: (source, ports.0), destination: (destination, ports.1) };
    let found = match protocol {
        TCP => word(0).zip(word(2)).zip(bytes.get(13)).map(|(ports, flags)| {
            let begins = flags & 0x12 == 0x02;
            let flags = TcpFlags { begins, ends: flags & 0x05 != 0, goes_on: flags & 0x02 == 0 };
            Carried::Packet(ends(ports), flags)
        }),
        UDP => word(0).zip(word(2)).map(|ports| Carried::Packet(ends(ports), TcpFlags::default())),
        ICMP | ICMPV6 if (protocol == ICMP) == source.is_ipv4() => match (bytes.first(), word(4)) {
            (Some(kind), Some(id)) => icmp(*kind, id, bytes, ends),
            _ => None,
        },
        _ => Some(Carried::Packet(ends((0, 0)), TcpFlags::default())),
    };
    found.unwrap_or(Carried::Malformed)
}

fn icmp(kind: u8, id: u16, bytes: &[u8], ends: impl Fn((u16, u16)) -> Ends) -> Option<Carried> {
    let is_v6 = ends((0, 0)).protocol == ICMPV6;
    let (request, reply) = ECHO[usize::from(is_v6)];
    let is_error = if is_v6 { kind < 128 } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
    if kind == request || kind == reply {
        let ports = if kind == request { (id, 0) } else { (0, id) };
        return Some(Carried::Packet(ends(ports), TcpFlags::default()));
    }
    if is_error {
        return quoted(bytes.get(8..)?).map(Carried::Error);
    }
    Some(Carried::Packet(ends((u16::from(kind), u16::MAX)), TcpFlags::default()))
}

/// The ends of a packet of which an error quotes the beginning.
fn quoted(bytes: &[u8]) -> Option<Ends> {
    let (protocol, Payload::Whole(rest)) = payload(bytes)? else { return None };
    let (source, destination): (IpAddr, IpAddr) = match bytes.first()? >> 4 {
        4 => {
            let header: &[u8; 20] = bytes.first_chunk()?;
            let address = |at: usize| Some(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?));
            (address(12)?.into(), address(16)?.into())
        }
        _ => {
            let header: &[u8; 40] = bytes.first_chunk()?;
            let address = |at: usize| Some(Ipv6Addr::from(*header.get(at..)?.first_chunk::<16>()?));
            (address(8)?.into(), address(24)?.into())
        }
    };
    let word = |at: usize| Some(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?));
    let ports = match protocol {
        TCP | UDP => (word(0)?, word(2)?),
        ICMP | ICMPV6 => {
            let (request, reply) = ECHO[usize::from(protocol == ICMPV6)];
            match *rest.first()? {
                kind if kind == request => (word(4)?, 0),
                kind if kind == reply => (0, word(4)?),
                _ => return None,
            }
        }
        _ => (0, 0),
    };
    Some(Ends { protocol, source: (source, ports.0), destination: (destination, ports.1) })
}
