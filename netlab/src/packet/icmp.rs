//! ICMP messages that a router makes itself: answers to echoes, and errors (RFC 792, RFC 1812).

use std::net::Ipv4Addr;

use super::{Header, IPV4_HEADER, checksum};

/// Why a packet did not get on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// There is no way to its network.
    NoNetwork,
    /// Nobody has its address.
    NoHost,
    /// Nobody listens.
    NoPort,
    /// It is larger than this, and must not be cut.
    TooBig(u16),
    /// Its hops are used up.
    NoHops,
}

/// Bytes of the packet that an error carries.
const QUOTED: usize = 548;

/// The answer to an echo request.
pub fn echo_reply(header: &Header, packet: &[u8]) -> Option<Vec<u8>> {
    let mut body = packet.get(header.len..header.total)?.to_vec();
    *body.first_mut()? = 0;
    Some(finish(header.destination, header.source, body))
}

/// The error that tells a packet's sender; none where none may be sent: about errors, later fragments, or groups.
pub fn error(from: Ipv4Addr, header: &Header, packet: &[u8], trouble: Trouble) -> Option<Vec<u8>> {
    let is_group =
        |address: Ipv4Addr| address.is_broadcast() || address.is_multicast() || address.is_unspecified();
    let is_echo = header.protocol != 1 || matches!(packet.get(header.len), Some(0 | 8));
    if header.fragment_offset != 0 || is_group(header.source) || is_group(header.destination) || !is_echo {
        return None;
    }
    let (kind, code, mtu) = match trouble {
        Trouble::NoNetwork => (3, 0, 0),
        Trouble::NoHost => (3, 1, 0),
        Trouble::NoPort => (3, 3, 0),
        Trouble::TooBig(mtu) => (3, 4, mtu),
        Trouble::NoHops => (11, 0, 0),
    };
    let mut body = vec![kind, code, 0, 0, 0, 0];
    body.extend(mtu.to_be_bytes());
    body.extend(packet.iter().take(header.total.min(QUOTED)));
    Some(finish(from, header.source, body))
}

/// Puts checksums and an IP header to an ICMP message.
fn finish(from: Ipv4Addr, to: Ipv4Addr, mut body: Vec<u8>) -> Vec<u8> {
    put_sum(&mut body, 2);
    let total = u16::try_from(IPV4_HEADER + body.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0xc0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
    packet.splice(2..4, total.to_be_bytes());
    packet.extend(from.octets());
    packet.extend(to.octets());
    put_sum(&mut packet, 10);
    packet.extend(body);
    packet
}

fn put_sum(bytes: &mut [u8], at: usize) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.fill(0);
    }
    let sum = checksum::of(bytes);
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}
