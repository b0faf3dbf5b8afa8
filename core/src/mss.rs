//! The largest segment that TCP may send (MSS, RFC 9293 section 3.7.1), made small enough for the tunnel.
//!
//! A host with the overlay's interface knows its MTU. One behind a gateway does not: it offers what fits its own network,
//! and what does not fit the overlay is dropped on the way, where the message that says so (RFC 1191) is often dropped too.
//! So the offer in a SYN is lowered as it passes, in both directions.

use crate::ip::{IpPacket, replaced};

/// Bytes of the largest SYN that is looked at: more would be data that few put in.
const MAX_SYN: usize = 576;

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_PADDING: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Whether this may be a SYN: a glance for each packet that passes.
fn is_syn(packet: &[u8]) -> bool {
    let (protocol, flags) = match packet.first() {
        Some(first) if first >> 4 == 4 => (9, usize::from(first & 0x0f) * 4 + 13),
        _ => (6, 53),
    };
    packet.get(protocol) == Some(&TCP) && packet.get(flags).is_some_and(|flags| flags & SYN != 0)
}

/// Where the offer stands in a packet that has one which is larger than fits; and what fits.
fn too_large(packet: &[u8], mtu: usize) -> Option<(usize, usize, u16)> {
    if !is_syn(packet) {
        return None;
    }
    let view = IpPacket::parse(packet)?;
    if view.protocol != TCP || view.is_fragment() {
        return None;
    }
    let (tcp, headers) = match packet.first()? >> 4 {
        4 => (usize::from(packet.first()? & 0x0f) * 4, 40),
        _ => (40, 60),
    };
    let segment = packet.get(tcp..)?;
    let header: &[u8; 20] = segment.first_chunk()?;
    let fits = u16::try_from(mtu.checked_sub(headers)?).ok()?;
    let end = usize::from(header[12] >> 4) * 4;
    let mut at = 20;
    while at < end {
        match (*segment.get(at)?, segment.get(at + 1)) {
            (OPTION_END, _) => return None,
            (OPTION_PADDING, _) => at += 1,
            (OPTION_MSS, Some(4)) => {
                let offer = u16::from_be_bytes(*segment.get(at + 2..end)?.first_chunk()?);
                return (offer > fits).then_some((tcp, at + 2, fits));
            }
            (_, Some(&len)) if len >= 2 => at += usize::from(len),
            (_, _) => return None,
        }
    }
    None
}

/// Lowers the offer in a packet to what fits.
pub(crate) fn clamp(packet: &mut [u8], mtu: usize) {
    let Some((tcp, at, fits)) = too_large(packet, mtu) else { return };
    let Some(segment) = packet.get_mut(tcp..) else { return };
    for (n, byte) in fits.to_be_bytes().into_iter().enumerate() {
        let Some(place) = segment.get_mut(at + n) else { return };
        let before = std::mem::replace(place, byte);
        // An option may begin at an odd place, so bytes are replaced one by one within their words.
        let word = |byte: u8| u16::from_be_bytes(if (at + n) % 2 == 0 { [byte, 0] } else { [0, byte] });
        replace_in_checksum(segment, word(before), word(byte));
    }
}

/// Passes on a packet that can't be written to: as it is, or a copy with a lowered offer.
pub(crate) fn with_clamped<T>(packet: &[u8], mtu: usize, pass: impl FnOnce(&[u8]) -> T) -> T {
    if too_large(packet, mtu).is_none() {
        return pass(packet);
    }
    let mut room = [0; MAX_SYN];
    match room.get_mut(..packet.len()) {
        Some(copy) => {
            copy.copy_from_slice(packet);
            clamp(copy, mtu);
            pass(copy)
        }
        None => pass(packet),
    }
}

fn replace_in_checksum(segment: &mut [u8], before: u16, after: u16) {
    let Some(field) = segment.get_mut(16..).and_then(|rest| rest.first_chunk_mut::<2>()) else { return };
    *field = replaced(u16::from_be_bytes(*field), before, after).to_be_bytes();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN with these options; the checksum is right but for the pseudo-header, which does not change.
    fn syn(v6: bool, flags: u8, options: &[u8]) -> Vec<u8> {
        let mut tcp = vec![0; 20];
        tcp.extend(options);
        tcp.resize(tcp.len().next_multiple_of(4), 0);
        tcp[12] = u8::try_from(tcp.len() / 4).unwrap() << 4;
        tcp[13] = flags;
        let sum = !sum(&tcp);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0; if v6 { 40 } else { 20 }];
        let (len, total) = (tcp.len() as u16, (tcp.len() + 20) as u16);
        if v6 {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&len.to_be_bytes());
            packet[6] = TCP;
        } else {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            packet[9] = TCP;
        }
        packet.extend(tcp);
        packet
    }

    fn sum(tcp: &[u8]) -> u16 {
        let words = tcp.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum = words.sum::<u32>();
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    fn offer(packet: &[u8], v6: bool, at: usize) -> u16 {
        let at = if v6 { 60 } else { 40 } + at;
        u16::from_be_bytes([packet[at], packet[at + 1]])
    }

    #[test]
    fn a_larger_offer_is_lowered_wherever_it_stands() {
        for (v6, fits) in [(false, 1240), (true, 1220)] {
            // After SACK-permitted and one byte of padding, it stands at an odd place.
            for (options, at) in [(&[2, 4, 5, 180][..], 2), (&[4, 2, 1, 2, 4, 5, 180, 0], 5)] {
                let mut packet = syn(v6, SYN, options);
                let copy = with_clamped(&packet, 1280, <[u8]>::to_vec);
                clamp(&mut packet, 1280);
                assert_eq!((offer(&packet, v6, at), &copy), (fits, &packet));
                assert_eq!(sum(&packet[if v6 { 40 } else { 20 }..]), 0xffff, "the checksum is right");
                assert!(too_large(&packet, 1280).is_none(), "now it fits");
            }
        }
    }

    #[test]
    fn other_packets_are_left_alone() {
        let others = [
            syn(false, SYN, &[2, 4, 4, 176]),
            syn(false, 0x10, &[2, 4, 5, 180]),
            syn(false, SYN, &[0, 2, 4, 5, 180]),
            syn(false, SYN, &[8, 1, 2, 4, 5, 180]),
            syn(false, SYN, &[2, 3, 5]),
            syn(false, SYN, &[3]),
        ];
        for packet in others {
            let mut same = packet.clone();
            clamp(&mut same, 1280);
            assert_eq!(same, packet);
        }
        let mut piece = syn(false, SYN, &[2, 4, 5, 180]);
        piece[7] = 9;
        assert!(too_large(&piece, 1280).is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(mut bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..120), mtu in 0..2000usize) {
            if let Some(first) = bytes.first_mut() {
                *first = if *first % 2 == 0 { 0x45 } else { 0x60 };
            }
            let len = bytes.len();
            clamp(&mut bytes, mtu);
            assert_eq!(bytes.len(), len);
        }
    }
}
