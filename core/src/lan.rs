//! Local networks behind this node: their addresses as the overlay knows them become those that they have here, and back.
//!
//! ```text
//! peer --session--> filter --[destination: overlay's -> here]--> interface --kernel--> device
//! peer <--session-- filter <--[source: here -> overlay's]------- interface <--kernel-- device
//! ```
//!
//! One to one and without any state: an address keeps its place within its prefix. So two robots with the same local network
//! are reached at two prefixes. Checksums follow the change (RFC 1624); what an ICMP error quotes is changed as well (RFC 5508
//! section 4.2 is the model). Policies see the overlay's addresses only.

use std::net::IpAddr;

use ria_protocol::prefix::Prefix;

use crate::ip::replaced;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const UDP_LITE: u8 = 136;

/// ICMP messages that quote the packet they are about (RFC 792).
const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
const ICMP_HEADER: usize = 8;

const SOURCE: usize = 12;
const DESTINATION: usize = 16;
const IP_CHECKSUM: usize = 10;

/// A local network of this node, as others reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lan {
    /// The overlay's prefix for it.
    pub prefix: Prefix,
    /// What it is here; of the same length.
    pub here: Prefix,
}

/// One network's addresses for another's, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    overlay: u32,
    here: u32,
    mask: u32,
}

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the overlay to the local network.
    In,
    /// Back.
    Out,
}

/// The local networks behind this node in one network, and room for a packet.
#[derive(Debug)]
pub(crate) struct Lans {
    pairs: Vec<Pair>,
    room: Vec<u8>,
}

impl Lans {
    /// For packets of up to `mtu` bytes; `None` when there are no such networks. Only IPv4 is translated; others, and pairs of
    /// different sizes, are left out.
    pub(crate) fn new(lans: &[Lan], mtu: usize) -> Option<Self> {
        let number = |prefix: &Prefix| match prefix.address() {
            IpAddr::V4(address) => Some(u32::from(address)),
            IpAddr::V6(_) => None,
        };
        let pairs = lans.iter().filter(|lan| lan.prefix.length() == lan.here.length()).filter_map(|lan| {
            let (overlay, here) = (number(&lan.prefix)?, number(&lan.here)?);
            let host_bits = 32u32.checked_sub(lan.prefix.length().into())?;
            Some(Pair { overlay, here, mask: u32::MAX.checked_shl(host_bits).unwrap_or(0) })
        });
        let pairs: Vec<Pair> = pairs.collect();
        (!pairs.is_empty()).then(|| Self { pairs, room: Vec::with_capacity(mtu) })
    }

    /// A packet from the interface as the overlay is to see it.
    pub(crate) fn leaving<'a>(&'a mut self, packet: &'a [u8]) -> &'a [u8] {
        if !self.is_concerned(packet) || packet.len() > self.room.capacity() {
            return packet;
        }
        self.room.clear();
        self.room.extend_from_slice(packet);
        translate(&self.pairs, &mut self.room, Way::Out);
        &self.room
    }

    /// Changes a packet from the overlay to what it is here; whether it is for one of these networks at all.
    pub(crate) fn enter(&self, packet: &mut [u8]) -> bool {
        let is_for_us = is_whole(packet)
            && word32(packet, DESTINATION).is_some_and(|to| other(&self.pairs, to, Way::In).is_some());
        if is_for_us {
            translate(&self.pairs, packet, Way::In);
        }
        is_for_us
    }

    /// Whether anything in a packet from the interface may have to be changed.
    fn is_concerned(&self, packet: &[u8]) -> bool {
        is_whole(packet)
            && (packet.get(9) == Some(&ICMP)
                || word32(packet, SOURCE).is_some_and(|from| other(&self.pairs, from, Way::Out).is_some()))
    }
}

/// The address in the place of this one.
fn other(pairs: &[Pair], address: u32, way: Way) -> Option<u32> {
    pairs.iter().find_map(|pair| {
        let (from, to) = match way {
            Way::In => (pair.overlay, pair.here),
            Way::Out => (pair.here, pair.overlay),
        };
        (address & pair.mask == from).then_some(to | (address & !pair.mask))
    })
}

fn is_whole(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 4) && packet.len() >= 20
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Words that have become others, for a checksum over them.
#[derive(Clone, Copy, Default)]
struct Changes {
    words: [(u16, u16); 4],
    count: usize,
}

impl Changes {
    fn add(&mut self, before: u16, after: u16) {
        if let Some(place) = self.words.get_mut(self.count) {
            *place = (before, after);
            self.count += 1;
        }
    }

    fn apply(&self, checksum: u16) -> u16 {
        let changed = self.words.iter().take(self.count);
        changed.fold(checksum, |sum, (before, after)| replaced(sum, *before, *after))
    }
}

/// Puts a word in its place and notes the change.
fn put(bytes: &mut [u8], at: usize, value: u16, changes: &mut Changes) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) {
        changes.add(u16::from_be_bytes(*place), value);
        *place = value.to_be_bytes();
    }
}

/// Where the payload of an IPv4 packet begins, its protocol, and whether its transport header is in it.
fn payload(packet: &[u8]) -> Option<(usize, u8, bool)> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let first = word(packet, 6)? & 0x1fff == 0;
    (header >= 20).then_some((header, *packet.get(9)?, first))
}

fn translate(pairs: &[Pair], packet: &mut [u8], way: Way) {
    let (outer, quoted) = match way {
        Way::In => (DESTINATION, SOURCE),
        Way::Out => (SOURCE, DESTINATION),
    };
    readdress(pairs, packet, outer, way);
    let Some((at, ICMP, true)) = payload(packet) else { return };
    let Some(message) = packet.get_mut(at..) else { return };
    if !message.first().is_some_and(|kind| ICMP_ERRORS.contains(kind)) {
        return;
    }
    let Some((header, about)) = message.split_at_mut_checked(ICMP_HEADER) else { return };
    if !is_whole(about) {
        return;
    }
    let changes = readdress(pairs, about, quoted, way);
    if let Some(place) = header.get_mut(2..).and_then(|rest| rest.first_chunk_mut::<2>()) {
        *place = changes.apply(u16::from_be_bytes(*place)).to_be_bytes();
    }
}

/// Changes one address of a packet, or of what is quoted of one, with the checksums that depend on it; gives what has changed.
fn readdress(pairs: &[Pair], packet: &mut [u8], at: usize, way: Way) -> Changes {
    let mut changes = Changes::default();
    let Some(address) = word32(packet, at) else { return changes };
    let Some(to) = other(pairs, address, way).filter(|to| *to != address) else { return changes };
    put(packet, at, (to >> 16) as u16, &mut changes);
    put(packet, at + 2, to as u16, &mut changes);
    let mut all = changes;
    if let Some(before) = word(packet, IP_CHECKSUM) {
        put(packet, IP_CHECKSUM, changes.apply(before), &mut all);
    }
    let Some((header, protocol, true)) = payload(packet) else { return all };
    let field = match protocol {
        TCP => header + 16,
        UDP | UDP_LITE | DCCP => header + 6,
        _ => return all,
    };
    match word(packet, field) {
        // A datagram without a checksum stays without (RFC 768).
        Some(0) if protocol == UDP => {}
        Some(before) => {
            let after = changes.apply(before);
            let after = if after == 0 && protocol == UDP { u16::MAX } else { after };
            put(packet, field, after, &mut all);
        }
        None => {}
    }
    all
}

#[cfg(test)]
mod tests;
