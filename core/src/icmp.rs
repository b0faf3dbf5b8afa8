//! ICMP errors as a router sends them (RFC 792, RFC 1191, RFC 4443): what a gateway answers when a packet can't go on.

use std::net::IpAddr;

use crate::ip::IpPacket;

/// Longest error: what every IPv4 host takes (RFC 1812 section 4.3.2.3); enough for the headers of any packet.
pub(crate) const MAX_LEN: usize = 576;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Why a packet does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its hop limit is used up.
    HopLimit,
    /// It is larger than the network's MTU.
    TooLarge,
    /// Nobody in the network has its destination.
    NoRoute,
    /// Its destination can't be reached at the moment.
    Unreachable,
}

impl Refused {
    /// Type and code for IPv4 and IPv6.
    fn codes(self) -> ([u8; 2], [u8; 2]) {
        match self {
            Self::HopLimit => ([11, 0], [3, 0]),
            Self::TooLarge => ([3, 4], [2, 0]),
            Self::NoRoute => ([3, 0], [1, 0]),
            Self::Unreachable => ([3, 1], [1, 3]),
        }
    }
}

/// Writes the error about `packet` that goes from `own` to its sender, and returns its length; `None` where no error may
/// be sent: about errors, and about fragments behind the first.
pub(crate) fn error(
    packet: &IpPacket<'_>,
    own: IpAddr,
    why: Refused,
    mtu: usize,
    out: &mut [u8; MAX_LEN],
) -> Option<usize> {
    if !may_be_answered(packet) {
        return None;
    }
    let (v4, v6) = why.codes();
    let mtu = if why == Refused::TooLarge { u16::try_from(mtu).unwrap_or(u16::MAX) } else { 0 };
    match (own, packet.source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let len = quote(packet, 28, out)?;
            let total = u16::try_from(len).ok()?;
            let (header, message) = out.get_mut(..len)?.split_at_mut_checked(20)?;
            header[..4].copy_from_slice(&[0x45, 0xc0, total.to_be_bytes()[0], total.to_be_bytes()[1]]);
            header[4..10].copy_from_slice(&[0, 0, 0, 0, 64, ICMP]);
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let sum = checksum(header, 0);
            header[10..12].copy_from_slice(&sum);
            begin(message, v4, [0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]], 0)?;
            Some(len)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let len = quote(packet, 48, out)?;
            let payload = u16::try_from(len - 40).ok()?;
            let (header, message) = out.get_mut(..len)?.split_at_mut_checked(40)?;
            header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
            header[4..6].copy_from_slice(&payload.to_be_bytes());
            header[6..8].copy_from_slice(&[ICMPV6, 64]);
            header[8..24].copy_from_slice(&from.octets());
            header[24..40].copy_from_slice(&to.octets());
            let pseudo = sum(&header[8..40]) + u32::from(payload) + u32::from(ICMPV6);
            begin(message, v6, u32::from(mtu).to_be_bytes(), pseudo)?;
            Some(len)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn may_be_answered(packet: &IpPacket<'_>) -> bool {
    let header_len = match packet.source {
        IpAddr::V4(_) => usize::from(packet.bytes.first().copied().unwrap_or_default() & 0x0f) * 4,
        IpAddr::V6(_) => 40,
    };
    let kind = packet.bytes.get(header_len).copied();
    let later_fragment = packet.source.is_ipv4()
        && packet.bytes.get(6..8).is_some_and(|word| word[0] & 0x1f != 0 || word[1] != 0);
    let is_error = match packet.protocol {
        // All but echo, timestamp and their answers.
        ICMP if packet.source.is_ipv4() => !matches!(kind, Some(0 | 8 | 13 | 14)),
        ICMPV6 if packet.source.is_ipv6() => kind.is_none_or(|kind| kind < 128),
        _ => false,
    };
    !later_fragment && !is_error && !packet.is_multicast() && !packet.source.is_unspecified()
}

/// Puts the beginning of the packet behind `headers` bytes; returns how long that is together.
fn quote(packet: &IpPacket<'_>, headers: usize, out: &mut [u8; MAX_LEN]) -> Option<usize> {
    let len = (headers + packet.bytes.len()).min(MAX_LEN);
    let quoted = packet.bytes.get(..len - headers)?;
    out.get_mut(headers..len)?.copy_from_slice(quoted);
    Some(len)
}

/// Writes type, code, checksum and the four bytes behind them.
fn begin(message: &mut [u8], kind: [u8; 2], rest: [u8; 4], pseudo: u32) -> Option<()> {
    let head = message.get_mut(..8)?;
    head[..4].copy_from_slice(&[kind[0], kind[1], 0, 0]);
    head[4..8].copy_from_slice(&rest);
    let sum = checksum(message, pseudo);
    message.get_mut(2..4)?.copy_from_slice(&sum);
    Some(())
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

/// RFC 1071.
fn checksum(bytes: &[u8], initial: u32) -> [u8; 2] {
    let mut sum = initial + sum(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or_default()).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::decrement_hop_limit;

    fn v4(protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet =
            vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, ttl, protocol, 0, 0, 10, 213, 0, 9, 10, 213, 0, 2];
        packet.extend_from_slice(payload);
        let total = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        let sum = checksum(&packet[..20], 0);
        packet[10..12].copy_from_slice(&sum);
        packet
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        (packet[6], packet[7], packet[8], packet[23], packet[24], packet[39]) = (next, 64, 0xfd, 9, 0xfd, 2);
        packet.extend_from_slice(payload);
        packet
    }

    fn answer(packet: &[u8], own: IpAddr, why: Refused) -> Option<Vec<u8>> {
        let mut out = [0; MAX_LEN];
        let len = error(&IpPacket::parse(packet).unwrap(), own, why, 1280, &mut out)?;
        Some(out[..len].to_vec())
    }

    #[test]
    fn errors_quote_the_packet_and_have_right_checksums() {
        let packet = v4(17, 1, &[7; 2000]);
        let own: IpAddr = [10, 213, 0, 1].into();
        let error = answer(&packet, own, Refused::TooLarge).unwrap();
        let parsed = IpPacket::parse(&error).unwrap();
        assert_eq!((parsed.source, parsed.destination), (own, IpAddr::from([10, 213, 0, 9])));
        assert_eq!(
            (error.len(), checksum(&error[..20], 0), checksum(&error[20..], 0)),
            (576, [0, 0], [0, 0])
        );
        assert_eq!(error[20..28], [3, 4, error[22], error[23], 0, 0, 5, 0]);
        assert_eq!(error[28..], packet[..548]);

        let packet = v6(17, &[7; 30]);
        let own: IpAddr = "fd00::1".parse().unwrap();
        let error = answer(&packet, own, Refused::HopLimit).unwrap();
        assert_eq!((error[40], error[41], &error[48..]), (3, 0, &packet[..]));
        let pseudo = sum(&error[8..40]) + u32::try_from(error.len() - 40).unwrap() + 58;
        assert_eq!(checksum(&error[40..], pseudo), [0, 0]);
    }

    #[test]
    fn errors_and_later_fragments_are_never_answered() {
        let own: IpAddr = [10, 213, 0, 1].into();
        assert_eq!(answer(&v4(1, 1, &[11, 0, 0, 0, 0, 0, 0, 0]), own, Refused::HopLimit), None);
        assert!(answer(&v4(1, 1, &[8, 0, 0, 0, 0, 0, 0, 0]), own, Refused::HopLimit).is_some());
        let mut fragment = v4(17, 1, &[0; 8]);
        fragment[7] = 9;
        assert_eq!(answer(&fragment, own, Refused::HopLimit), None);
        let own: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(answer(&v6(58, &[1, 0, 0, 0, 0, 0, 0, 0]), own, Refused::NoRoute), None);
        assert!(answer(&v6(58, &[128, 0, 0, 0, 0, 0, 0, 0]), own, Refused::NoRoute).is_some());
    }

    #[test]
    fn a_hop_costs_one_and_keeps_the_checksum_right() {
        for ttl in 2..=255 {
            let mut packet = v4(17, ttl, &[ttl; 3]);
            assert!(decrement_hop_limit(&mut packet));
            assert_eq!((packet[8], checksum(&packet[..20], 0)), (ttl - 1, [0, 0]));
        }
        let mut spent = v4(17, 1, &[]);
        assert!(!decrement_hop_limit(&mut spent));
        assert_eq!(spent, v4(17, 1, &[]));
        let mut packet = v6(17, &[]);
        assert!(decrement_hop_limit(&mut packet));
        assert_eq!(packet[7], 63);
    }
}
