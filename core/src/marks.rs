//! Congestion marks and classes of packets inside and outside the tunnel: ECN as RFC 6040 wants it, DSCP as RFC 2983 calls
//! "uniform" on the way in.
//!
//! A queue on the way marks the outer datagram, and the mark is worth something only when the receiving end carries it over
//! to the packet inside. So the outer datagram says that it understands marks (RFC 6040's normal mode) only where the peer
//! is known to do that; else it says that it does not (compatibility mode), and queues drop instead.

/// The two bits of ECN (RFC 3168).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Ecn {
    /// The transport knows no marks.
    #[default]
    NotEct = 0,
    /// It does (ECT(1): low latency, RFC 9331).
    Ect1 = 1,
    /// It does (ECT(0)).
    Ect0 = 2,
    /// A queue was about to be too long.
    Ce = 3,
}

impl Ecn {
    /// From the lower two bits of a byte.
    pub const fn from_bits(byte: u8) -> Self {
        match byte & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// The byte that is TOS in IPv4 and the traffic class in IPv6: six bits DSCP, two ECN.
pub(crate) fn traffic_class(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        [first, second, ..] if first >> 4 == 4 => *second,
        _ => 0,
    }
}

/// What the packet inside bears once it is out of the tunnel: RFC 6040, section 4.2. `None`: it must be dropped, since a
/// mark was put on what can't bear it.
pub(crate) const fn decapsulated(inner: Ecn, outer: Ecn) -> Option<Ecn> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => None,
        (Ecn::NotEct, _) => Some(Ecn::NotEct),
        (_, Ecn::Ce) | (Ecn::Ce, _) => Some(Ecn::Ce),
        (Ecn::Ect0 | Ecn::Ect1, Ecn::Ect1) | (Ecn::Ect1, _) => Some(Ecn::Ect1),
        (Ecn::Ect0, _) => Some(Ecn::Ect0),
    }
}

/// Carries the outer mark over to a packet; `false`: it must be dropped.
pub(crate) fn carry_over(packet: &mut [u8], outer: Ecn) -> bool {
    let inner = Ecn::from_bits(traffic_class(packet));
    match decapsulated(inner, outer) {
        None => false,
        Some(ecn) => {
            if ecn != inner {
                set(packet, ecn);
            }
            true
        }
    }
}

fn set(packet: &mut [u8], ecn: Ecn) {
    match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let Some(header) = packet.first_chunk_mut::<20>() else { return };
            let before = u16::from_be_bytes([header[0], header[1]]);
            header[1] = header[1] & !3 | ecn as u8;
            let after = u16::from_be_bytes([header[0], header[1]]);
            // RFC 1624, equation 3.
            let sum = !u16::from_be_bytes([header[10], header[11]]);
            let sum = u32::from(sum) + u32::from(!before) + u32::from(after);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        Some(6) => {
            if let Some(byte) = packet.get_mut(1) {
                *byte = *byte & !0x30 | (ecn as u8) << 4;
            }
        }
        Some(_) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];

    #[test]
    fn the_table_is_that_of_rfc_6040() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        // Figure 4; columns: outer not-ECT, ECT(0), ECT(1), CE.
        let table = [
            [Some(NotEct), Some(NotEct), Some(NotEct), None],
            [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)],
            [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)],
            [Some(Ce); 4],
        ];
        for (inner, row) in ALL.into_iter().zip(table) {
            assert_eq!(ALL.map(|outer| decapsulated(inner, outer)), row, "inner {inner:?}");
        }
    }

    fn v4(tos: u8) -> Vec<u8> {
        let mut packet = vec![0x45, tos, 0, 28, 0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 10, 1, 2, 3, 10, 4, 5, 6];
        packet.extend([0; 8]);
        let sum = !sum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// The Internet checksum of an IPv4 header, without the complement: all ones when the header's own is right.
    fn sum(packet: &[u8]) -> u16 {
        let words = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum = words.sum::<u32>();
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    #[test]
    fn a_mark_is_carried_over_and_the_checksum_stays_right() {
        for (class, outer) in (0..64).flat_map(|dscp| ALL.map(|outer| (dscp << 2, outer))) {
            for inner in ALL {
                let byte = class | inner as u8;
                let (mut four, mut six) = (v4(byte), vec![0x60 | byte >> 4, byte << 4 | 5, 0, 0]);
                let expected = decapsulated(inner, outer);
                assert_eq!(carry_over(&mut four, outer), expected.is_some());
                assert_eq!(carry_over(&mut six, outer), expected.is_some());
                let after = expected.map_or(byte, |ecn| class | ecn as u8);
                assert_eq!((traffic_class(&four), traffic_class(&six)), (after, after));
                assert_eq!((sum(&four), six[1] & 15), (0xffff, 5), "nothing else has changed");
            }
        }
    }

    #[test]
    fn what_is_no_packet_is_left_alone() {
        for mut bytes in [vec![], vec![0x45], vec![0x45, 1, 2], vec![0x60], vec![0xff; 40]] {
            let before = bytes.clone();
            carry_over(&mut bytes, Ecn::Ce);
            assert!(bytes == before || bytes.len() > 1);
        }
    }
}
