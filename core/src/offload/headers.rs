//! Where the headers of a TCP or UDP packet begin and end (RFC 791, 8200, 9293, 768), for cutting and joining.
//!
//! Fragments, IPv4 options and IPv6 extension headers are no business of this module: such packets are never joined,
//! and Linux does not make super-packets of them.

use std::ops::Range;

/// Transport protocols that can be cut and joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    /// Its number in the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where its checksum field is.
    pub const fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// TCP flags as they stand in byte 13 of the header.
pub(super) mod tcp_flags {
    pub const FIN: u8 = 0x01;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const CWR: u8 = 0x80;
}

/// The headers of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headers {
    /// Whether the packet is IPv6.
    pub v6: bool,
    /// What it carries.
    pub protocol: Transport,
    /// Length of the IP header: where the transport header begins.
    pub ip_len: usize,
    /// Length of both headers: where the payload begins.
    pub len: usize,
}

impl Headers {
    /// Reads the headers of a whole packet; `None` for anything but plain TCP and UDP of consistent length.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (v6, ip_len, protocol, total) = match packet.first()? {
            0x45 => {
                let ip: &[u8; 20] = packet.first_chunk()?;
                let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff;
                if fragment != 0 {
                    return None;
                }
                (false, 20, ip[9], usize::from(u16::from_be_bytes([ip[2], ip[3]])))
            }
            first if first >> 4 == 6 => {
                let ip: &[u8; 40] = packet.first_chunk()?;
                (true, 40, ip[6], 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]])))
            }
            _ => return None,
        };
        let transport = packet.get(ip_len..)?;
        let (protocol, transport_len) = match protocol {
            6 => {
                let tcp: &[u8; 20] = transport.first_chunk()?;
                (Transport::Tcp, usize::from(tcp[12] >> 4) * 4)
            }
            17 => {
                transport.first_chunk::<8>()?;
                (Transport::Udp, 8)
            }
            _ => return None,
        };
        let len = ip_len + transport_len;
        let consistent = transport_len >= 8
            && (protocol == Transport::Udp || transport_len >= 20)
            && total == packet.len()
            && len <= total;
        consistent.then_some(Self { v6, protocol, ip_len, len })
    }

    /// Where the IP header has source and destination address.
    pub fn addresses(&self) -> Range<usize> {
        if self.v6 { 8..40 } else { 12..20 }
    }

    /// Where the packet has the transport checksum.
    pub fn checksum(&self) -> Range<usize> {
        let at = self.ip_len + self.protocol.checksum_at();
        at..at + 2
    }
}
