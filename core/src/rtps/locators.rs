//! Addresses at which a participant says that it can be reached (locators, RTPS section 9.3.2).
//!
//! A participant names those of all interfaces that it uses, and others send every packet to each of them. Through the
//! tunnel it is reached at its address on the overlay alone: the others, of a robot's own network or a Wi-Fi, would have
//! peers send packets in clear that arrive nowhere, or at somebody else who has the same address there. So they become
//! padding (`PID_PAD`) in what leaves by the tunnel. What SROS 2 encrypts stays as it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::endpoints::{PUBLICATIONS, SUBSCRIPTIONS};
use super::{DATA, HEADER, MAX_SUBMESSAGES, Parameters, SPDP_WRITER, Submessage, number, sender};
use crate::ip::IpPacket;

/// Parameters that name one address each (section 9.6.3): of an endpoint, and of a participant for user data and discovery.
const UNICAST: [u16; 3] = [0x002f, 0x0031, 0x0032];

/// Kinds of locators: UDP by IPv4 and IPv6, and the same by TCP. Others, such as shared memory, are nobody's concern.
const UDP_V4: u32 = 1;
const UDP_V6: u32 = 2;
const TCP_V4: u32 = 4;
const TCP_V6: u32 = 8;

/// A locator with the number and length of its parameter.
const PARAMETER: usize = 4 + 24;

/// Room for the largest packet of an overlay.
pub(crate) const ROOM: usize = 9000;

/// A named address.
struct Locator {
    /// Where its parameter begins in the message.
    at: usize,
    /// The number of its submessage, and of its parameter among [`UNICAST`].
    submessage: usize,
    which: usize,
    address: IpAddr,
}

/// A packet as it leaves: in announcements the addresses beside `own` are padding. They stay where none of `own` is
/// named, since whoever sends that is not reached otherwise.
pub(crate) fn with_own<T>(packet: &IpPacket<'_>, own: &[IpAddr], pass: impl FnOnce(&[u8]) -> T) -> T {
    let named = packet.udp().map(|udp| (udp.payload, Named::of(udp.payload, own)));
    let Some((message, named)) = named.filter(|(_, named)| named.has_others()) else {
        return pass(packet.bytes);
    };
    let mut room = [0; ROOM];
    let Some(copy) = room.get_mut(..packet.bytes.len()) else { return pass(packet.bytes) };
    copy.copy_from_slice(packet.bytes);
    let header = if packet.source.is_ipv4() { usize::from(copy[0] & 0x0f) * 4 } else { 40 };
    if let Some(datagram) = copy.get_mut(header..) {
        locators(message, |locator| {
            if named.is_to_go(&locator, own) {
                pad(datagram, 8 + locator.at);
            }
        });
    }
    pass(copy)
}

/// Of which parameters of which submessages a message names own addresses, and others.
#[derive(Default)]
struct Named {
    own: [[bool; UNICAST.len()]; MAX_SUBMESSAGES],
    others: [[bool; UNICAST.len()]; MAX_SUBMESSAGES],
}

impl Named {
    fn of(message: &[u8], own: &[IpAddr]) -> Self {
        let mut named = Self::default();
        locators(message, |locator| {
            let table = if own.contains(&locator.address) { &mut named.own } else { &mut named.others };
            table[locator.submessage][locator.which] = true;
        });
        named
    }

    fn has_others(&self) -> bool {
        self.own.as_flattened().iter().zip(self.others.as_flattened()).any(|(own, others)| *own && *others)
    }

    fn is_to_go(&self, locator: &Locator, own: &[IpAddr]) -> bool {
        self.own[locator.submessage][locator.which] && !own.contains(&locator.address)
    }
}

/// The addresses that a message of discovery names.
fn locators(message: &[u8], mut see: impl FnMut(Locator)) {
    let Some(mut rest) = message.get(HEADER..).filter(|_| sender(message).is_some()) else { return };
    for submessage in 0..MAX_SUBMESSAGES {
        let Some(part) = Submessage::take(&mut rest) else { return };
        let end = message.len() - rest.len();
        let Some(mut list) = part.announced() else { continue };
        loop {
            let at = end.saturating_sub(list.rest.len());
            let little = list.little;
            let Some((id, value)) = list.next() else { break };
            let which = UNICAST.iter().position(|known| *known == id);
            if let (Some(which), Some(address)) = (which, address(value, little)) {
                see(Locator { at, submessage, which, address });
            }
        }
    }
}

impl<'a> Submessage<'a> {
    /// What a participant tells of itself or of its endpoints.
    fn announced(&self) -> Option<Parameters<'a>> {
        let writer: [u8; 4] = *self.body.get(8..)?.first_chunk()?;
        let is_discovery = [SPDP_WRITER, PUBLICATIONS, SUBSCRIPTIONS].contains(&writer);
        if self.kind != DATA || !is_discovery || !self.has(Self::PAYLOAD) {
            return None;
        }
        let to_qos = number(self.body.get(2..)?, self.is_little_endian())?;
        let mut rest = self.body.get(4 + usize::from(to_qos)..)?;
        if self.has(Self::INLINE_QOS) {
            rest = Parameters::of(rest, self.is_little_endian()).end()?;
        }
        let (encapsulation, list) = rest.split_first_chunk::<4>()?;
        match encapsulation {
            [0, 2, ..] => Some(Parameters::of(list, false)),
            [0, 3, ..] => Some(Parameters::of(list, true)),
            _ => None,
        }
    }
}

fn address(locator: &[u8], little: bool) -> Option<IpAddr> {
    let locator: &[u8; 24] = locator.try_into().ok()?;
    let kind: [u8; 4] = *locator.first_chunk()?;
    let address: [u8; 16] = *locator.last_chunk()?;
    match if little { u32::from_le_bytes(kind) } else { u32::from_be_bytes(kind) } {
        UDP_V4 | TCP_V4 => Some(Ipv4Addr::from(*address.last_chunk::<4>()?).into()),
        UDP_V6 | TCP_V6 => Some(Ipv6Addr::from(address).into()),
        _ => None,
    }
}

/// Makes the locator that begins there padding, of the same length: number 0, the same in either byte order, and nothing
/// behind its length.
fn pad(datagram: &mut [u8], at: usize) {
    // Words of the checksum are even ones; real parameters begin at every fourth byte.
    if !at.is_multiple_of(2) || datagram.len() < at + PARAMETER {
        return;
    }
    for place in std::iter::once(at).chain((at + 4..at + PARAMETER).step_by(2)) {
        blank(datagram, place);
    }
}

/// Makes a word 0.
fn blank(datagram: &mut [u8], at: usize) {
    let Some(word) = datagram.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) else { return };
    let before = u16::from_be_bytes(std::mem::take(word));
    let Some(field) = datagram.get_mut(6..).and_then(|rest| rest.first_chunk_mut::<2>()) else { return };
    let sum = u16::from_be_bytes(*field);
    if sum != 0 {
        // RFC 1624, equation 3; 0 would say that there is none (RFC 768).
        let sum = u32::from(!sum) + u32::from(!before);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        *field = if sum == 0 { 0xffff } else { sum }.to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 4] = [10, 213, 0, 1];
    const LAN: [u8; 4] = [192, 168, 7, 1];

    fn parameter(little: bool, id: u16, value: &[u8]) -> Vec<u8> {
        let number = |n: u16| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        [&number(id)[..], &number(u16::try_from(value.len()).unwrap()), value].concat()
    }

    fn locator(little: bool, id: u16, kind: u32, address: [u8; 4]) -> Vec<u8> {
        let number = |n: u32| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let value = [&number(kind)[..], &number(7410), &[0; 12], &address].concat();
        parameter(little, id, &value)
    }

    /// DATA of a writer, with this list as its payload.
    fn data(little: bool, writer: [u8; 4], list: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![0, 0, 0, 0, 0, 0, 0, 0];
        body[2..4].copy_from_slice(&if little { 16u16.to_le_bytes() } else { 16u16.to_be_bytes() });
        body.extend(writer);
        body.extend([0; 8]);
        body.extend([0, if little { 3 } else { 2 }, 0, 0]);
        body.extend(list.concat());
        body.extend(parameter(little, 1, &[]));
        let len = u16::try_from(body.len()).unwrap();
        let len = if little { len.to_le_bytes() } else { len.to_be_bytes() };
        [&[DATA, 4 | u8::from(little), len[0], len[1]], &body[..]].concat()
    }

    fn sum(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)])));
        let sum = words.sum::<u32>();
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// A packet with these submessages; its checksum leaves out the pseudo-header, which does not change.
    fn packet(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut message = b"RTPS\x02\x03\x01\x0f".to_vec();
        message.extend([7; 12]);
        message.extend(parts.concat());
        let len = u16::try_from(8 + message.len()).unwrap();
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 1, 17, 0, 0];
        packet[2..4].copy_from_slice(&(20 + len).to_be_bytes());
        packet.extend(OWN);
        packet.extend([10, 213, 0, 2]);
        packet.extend([0x1c, 0xf2, 0x1c, 0xf2]);
        packet.extend(len.to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(message);
        let checksum = !sum(&packet[20..]);
        packet[26..28].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn passed(packet: &[u8]) -> Vec<u8> {
        with_own(&IpPacket::parse(packet).unwrap(), &[OWN.into()], <[u8]>::to_vec)
    }

    #[test]
    fn other_addresses_become_padding_in_both_byte_orders() {
        for little in [true, false] {
            for writer in [SPDP_WRITER, PUBLICATIONS, SUBSCRIPTIONS] {
                let ours: Vec<_> = UNICAST.map(|id| locator(little, id, UDP_V4, OWN)).into();
                let theirs = UNICAST.map(|id| locator(little, id, UDP_V4, LAN));
                let padding = theirs.clone().map(|mut p| {
                    p[..2].fill(0);
                    p[4..].fill(0);
                    p
                });
                let before = packet(&[data(little, writer, &[&ours[..], &theirs].concat())]);
                let after = passed(&before);
                assert_eq!(
                    after[28..],
                    packet(&[data(little, writer, &[&ours[..], &padding].concat())])[28..]
                );
                assert_eq!(sum(&after[20..]), 0xffff, "the checksum is wrong");
            }
        }
    }

    #[test]
    fn who_is_reached_nowhere_else_keeps_its_addresses() {
        let only = packet(&[data(true, SPDP_WRITER, &[locator(true, UNICAST[1], UDP_V4, LAN)])]);
        assert_eq!(passed(&only), only);
        // Each submessage, and each kind of address in it, for itself.
        let two = [
            data(
                true,
                PUBLICATIONS,
                &[locator(true, UNICAST[0], UDP_V4, OWN), locator(true, UNICAST[1], UDP_V4, LAN)],
            ),
            data(true, PUBLICATIONS, &[locator(true, UNICAST[0], UDP_V4, LAN)]),
        ];
        assert_eq!(passed(&packet(&two)), packet(&two));
    }

    #[test]
    fn user_data_shared_memory_and_groups_are_left_alone() {
        let list = [locator(true, UNICAST[0], UDP_V4, OWN), locator(true, UNICAST[0], UDP_V4, LAN)];
        let user = packet(&[data(true, [0, 0, 0x12, 3], &list)]);
        assert_eq!(passed(&user), user);
        let kept = [
            locator(true, UNICAST[0], UDP_V4, OWN),
            locator(true, UNICAST[0], 16, LAN),
            locator(true, 0x0033, UDP_V4, [239, 255, 0, 1]),
        ];
        let kept = packet(&[data(true, PUBLICATIONS, &kept)]);
        assert_eq!(passed(&kept), kept);
        let tcp = [locator(true, UNICAST[0], TCP_V4, OWN), locator(true, UNICAST[0], TCP_V4, LAN)];
        let tcp = packet(&[data(true, PUBLICATIONS, &tcp)]);
        assert_ne!(passed(&tcp), tcp);
    }

    #[test]
    fn a_packet_without_a_checksum_stays_without() {
        let list = [locator(true, UNICAST[2], UDP_V4, OWN), locator(true, UNICAST[2], UDP_V4, LAN)];
        let mut before = packet(&[data(true, SPDP_WRITER, &list)]);
        before[26..28].fill(0);
        let after = passed(&before);
        assert_ne!(before, after);
        assert_eq!(after[26..28], [0, 0]);
    }
}
