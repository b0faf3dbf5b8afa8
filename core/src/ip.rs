//! A view of an inner packet's IP header (RFC 791, RFC 8200): just what routing and filtering need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP packet whose header has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpPacket<'a> {
    /// Where it says it is from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// IPv4 protocol or IPv6 next header; extension headers are not followed.
    pub protocol: u8,
    /// The whole packet.
    pub bytes: &'a [u8],
}

/// A UDP datagram whose header has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UdpDatagram<'a> {
    pub(crate) destination_port: u16,
    pub(crate) payload: &'a [u8],
}

impl<'a> IpPacket<'a> {
    /// Looks at a packet; `None` when it is no IP packet or shorter than its header says.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; 20] = bytes.first_chunk()?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_len < 20 || total < header_len || total > bytes.len() {
            return None;
        }
        let address = |at: usize| -> Option<IpAddr> {
            Some(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?).into())
        };
        Some(Self { source: address(12)?, destination: address(16)?, protocol: header[9], bytes })
    }

    fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; 40] = bytes.first_chunk()?;
        let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if payload + 40 > bytes.len() {
            return None;
        }
        let address = |at: usize| -> Option<IpAddr> {
            Some(Ipv6Addr::from(*header.get(at..)?.first_chunk::<16>()?).into())
        };
        Some(Self { source: address(8)?, destination: address(24)?, protocol: header[6], bytes })
    }

    /// The UDP datagram in it (RFC 768); `None` when it carries something else, or a fragment.
    pub(crate) fn udp(&self) -> Option<UdpDatagram<'a>> {
        const UDP: u8 = 17;
        let header = if self.source.is_ipv4() { usize::from(self.bytes.first()? & 0x0f) * 4 } else { 40 };
        if self.protocol != UDP || self.is_fragment() {
            return None;
        }
        let datagram = self.bytes.get(header..)?;
        let field = |at: usize| Some(u16::from_be_bytes(*datagram.get(at..)?.first_chunk()?));
        let payload = datagram.get(8..usize::from(field(4)?))?;
        Some(UdpDatagram { destination_port: field(2)?, payload })
    }

    /// Whether it is a part of a larger IPv4 packet. (IPv6 has an extension header for it.)
    pub(crate) fn is_fragment(&self) -> bool {
        const IPV6_FRAGMENT: u8 = 44;
        match (self.source, self.bytes.get(6..8)) {
            (IpAddr::V4(_), Some(&[high, low])) => u16::from_be_bytes([high, low]) & 0x3fff != 0,
            (IpAddr::V4(_), _) => false,
            (IpAddr::V6(_), _) => self.protocol == IPV6_FRAGMENT,
        }
    }

    /// Whether it goes to a group or to everybody on a link.
    pub fn is_multicast(&self) -> bool {
        match self.destination {
            IpAddr::V4(address) => address.is_multicast() || address.is_broadcast(),
            IpAddr::V6(address) => address.is_multicast(),
        }
    }
}

/// A checksum after one of the words that it is about has become another (RFC 1624, equation 3).
pub(crate) fn replaced(checksum: u16, before: u16, after: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Takes one from a packet's hop limit (TTL), as every router does; `false`, and no change, when it is used up.
pub(crate) fn decrement_hop_limit(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            let Some(header) = packet.first_chunk_mut::<20>() else { return false };
            if header[8] <= 1 {
                return false;
            }
            header[8] -= 1;
            // RFC 1624, equation 3: the word that holds the TTL became 0x0100 less.
            let before = u16::from_be_bytes([header[10], header[11]]);
            let (sum, carry) = (!before).overflowing_sub(0x0100);
            let sum = !sum.wrapping_sub(u16::from(carry));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            true
        }
        Some(6) => match packet.get_mut(7) {
            Some(limit) if *limit > 1 => {
                *limit -= 1;
                true
            }
            Some(_) | None => false,
        },
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(source: [u8; 4], destination: [u8; 4], payload: usize) -> Vec<u8> {
        let mut packet = vec![0; 20 + payload];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&u16::try_from(20 + payload).unwrap().to_be_bytes());
        packet[9] = 17;
        packet[12..16].copy_from_slice(&source);
        packet[16..20].copy_from_slice(&destination);
        packet
    }

    #[test]
    fn addresses_and_protocol_are_read() {
        let bytes = v4([10, 213, 0, 1], [239, 255, 0, 1], 8);
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!(packet.source, IpAddr::from([10, 213, 0, 1]));
        assert_eq!((packet.protocol, packet.is_multicast()), (17, true));
        let mut v6 = vec![0; 48];
        v6[0] = 0x60;
        v6[5] = 8;
        v6[39] = 1;
        assert_eq!(IpPacket::parse(&v6).unwrap().destination, IpAddr::from(Ipv6Addr::LOCALHOST));
    }

    #[test]
    fn packets_shorter_than_they_say_are_refused() {
        let bytes = v4([10, 0, 0, 1], [10, 0, 0, 2], 8);
        assert!(IpPacket::parse(&bytes[..27]).is_none());
        let mut short_header = bytes.clone();
        short_header[0] = 0x44;
        assert!(IpPacket::parse(&short_header).is_none());
    }

    #[test]
    fn the_udp_datagram_ends_where_it_says() {
        let mut bytes = v4([10, 213, 0, 1], [239, 255, 0, 1], 12);
        bytes[20..28].copy_from_slice(&[0x30, 0x39, 0x1c, 0xe8, 0, 10, 0, 0]);
        let udp = |bytes: &[u8]| {
            let packet = IpPacket::parse(bytes).unwrap();
            packet.udp().map(|udp| (udp.destination_port, udp.payload.len()))
        };
        assert_eq!(udp(&bytes), Some((7400, 2)));
        let mut more_fragments = bytes.clone();
        more_fragments[6] = 0x20;
        assert_eq!(udp(&more_fragments), None);
        more_fragments[6] = 0x40;
        assert_eq!(udp(&more_fragments), Some((7400, 2)), "that is Don't Fragment");
        bytes[25] = 13;
        assert_eq!(udp(&bytes), None, "longer than the packet");
        bytes[25] = 7;
        assert_eq!(udp(&bytes), None, "shorter than its header");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(packet) = IpPacket::parse(&bytes) {
                prop_assert!(packet.bytes.len() >= 20);
            }
        }
    }
}
