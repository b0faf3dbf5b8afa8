//! Groups packets of one flow that can be handed to a TUN device as one super-packet.
//!
//! The rules are those of Linux's own GRO: TCP segments that follow each other and differ in nothing but sequence number
//! and checksum, UDP datagrams of one length, the last of either may be shorter. Only packets whose checksum is right are
//! joined, because the joined one gets a new checksum, which would hide a wrong one. The order within a flow is kept:
//! a packet that can't join ends its flow's group. Payload stays where it is; a group names its packets.

use super::checksum::{Sum, pseudo_header};
use super::headers::{Headers, Transport, tcp_flags};
use super::segment::{set_ipv4_checksum, set_u16};
use super::virtio::{GsoType, VIRTIO_HEADER, VirtioHeader};
use crate::packet::PACKET_HEADROOM;

/// Most packets in one group: what one gathering write takes, and what Linux takes in one UDP super-packet.
pub const MAX_PARTS: usize = 64;

/// Longest super-packet: the length field of IPv4.
const MAX_LEN: usize = 65_535;

/// Flows whose groups are open at one time. More flows than this in one batch just join less.
const OPEN_FLOWS: usize = 8;

/// Packets to be written as one.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    first: u32,
    last: u32,
    count: u32,
    /// Length of the headers of each packet; known when there are several.
    header_len: usize,
    /// Length of all of it, headers once; known when there are several.
    total: usize,
}

/// A group that may grow.
#[derive(Debug, Clone, Copy)]
struct OpenGroup {
    group: usize,
    headers: Headers,
    /// Payload bytes of the first packet, which all but the last must have.
    size: usize,
    /// Length of the super-packet so far.
    total: usize,
    /// The sequence number that continues it (TCP).
    next_sequence: u32,
    /// Whether the first packet's checksum has been looked at.
    verified: bool,
}

/// Groups of one batch of packets; reused, so that no batch allocates.
#[derive(Debug, Default)]
pub struct Coalescer {
    groups: Vec<Group>,
    /// For each packet the next one of its group.
    next: Vec<u32>,
    open: Vec<OpenGroup>,
}

impl Coalescer {
    /// Groups the packets of a batch. Each buffer is [`PACKET_HEADROOM`] bytes, then a packet; the virtio-net header of
    /// each group is written before its first packet. UDP is joined only where the device takes that (`udp`).
    pub fn plan(&mut self, buffers: &mut [Vec<u8>], udp: bool) {
        self.groups.clear();
        self.open.clear();
        self.next.clear();
        self.next.extend(1..=u32::try_from(buffers.len()).unwrap_or(u32::MAX));
        for index in 0..buffers.len() {
            self.place(buffers, index, udp);
        }
        for group in &self.groups {
            let header = if group.count > 1 { join_headers(buffers, group) } else { None };
            write_virtio(buffers, group.first as usize, header.unwrap_or(PLAIN));
        }
    }

    /// The groups, in the order in which they are to be written.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// What to write for a group, piece by piece: virtio-net header and first packet, then the payloads of the others.
    pub fn parts<'a>(&'a self, group: &Group, buffers: &'a [Vec<u8>]) -> impl Iterator<Item = &'a [u8]> {
        let skip = PACKET_HEADROOM + group.header_len;
        let mut at = group.first as usize;
        (0..group.count).map(move |part| {
            let buffer = buffers.get(at).map(Vec::as_slice).unwrap_or_default();
            at = self.next.get(at).map_or(usize::MAX, |next| *next as usize);
            let from = if part == 0 { PACKET_HEADROOM - VIRTIO_HEADER } else { skip };
            buffer.get(from..).unwrap_or_default()
        })
    }

    fn place(&mut self, buffers: &[Vec<u8>], index: usize, udp: bool) {
        let packet = packet_at(buffers, index);
        let Some(headers) = Headers::parse(packet) else {
            // It may be of any flow, a fragment or one with options: nothing that comes later goes before it.
            self.open.clear();
            self.begin(index);
            return;
        };
        if !udp && headers.protocol == Transport::Udp {
            self.begin(index);
            return;
        }
        let same_flow = |open: &OpenGroup, groups: &[Group]| {
            let first = groups.get(open.group).map_or(0, |group| group.first as usize);
            is_same_flow(&open.headers, packet_at(buffers, first), &headers, packet)
        };
        if let Some(at) = self.open.iter().position(|open| same_flow(open, &self.groups)) {
            if self.join(buffers, index, &headers, at) {
                return;
            }
            self.open.swap_remove(at);
        }
        let group = self.begin(index);
        if let Some(open) = opened(packet, headers, group) {
            if self.open.len() == OPEN_FLOWS {
                self.open.remove(0);
            }
            self.open.push(open);
        }
    }

    fn begin(&mut self, index: usize) -> usize {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.groups.push(Group { first: index, last: index, count: 1, header_len: 0, total: 0 });
        self.groups.len() - 1
    }

    /// Adds a packet to an open group of its flow, if it continues it.
    fn join(&mut self, buffers: &[Vec<u8>], index: usize, headers: &Headers, at: usize) -> bool {
        let Some(open) = self.open.get_mut(at) else { return false };
        let Some(group) = self.groups.get_mut(open.group) else { return false };
        let packet = packet_at(buffers, index);
        let first = packet_at(buffers, group.first as usize);
        let payload = packet.len() - headers.len;
        let continues = headers == &open.headers
            && (1..=open.size).contains(&payload)
            && open.total + payload <= MAX_LEN
            && (group.count as usize) < MAX_PARTS
            && continues(headers, first, packet, open.next_sequence);
        if !continues || !(open.verified || has_right_checksum(headers, first)) {
            return false;
        }
        open.verified = true;
        if !has_right_checksum(headers, packet) {
            return false;
        }
        if let Some(link) = self.next.get_mut(group.last as usize) {
            *link = u32::try_from(index).unwrap_or(u32::MAX);
        }
        group.last = u32::try_from(index).unwrap_or(u32::MAX);
        group.count += 1;
        open.total += payload;
        (group.header_len, group.total) = (headers.len, open.total);
        open.next_sequence = open.next_sequence.wrapping_add(u32::try_from(payload).unwrap_or(0));
        // A shorter packet or a push is the end.
        let ends = payload < open.size || is_pushed(headers, packet);
        if ends {
            self.open.swap_remove(at);
        }
        true
    }
}

fn packet_at(buffers: &[Vec<u8>], index: usize) -> &[u8] {
    buffers.get(index).and_then(|buffer| buffer.get(PACKET_HEADROOM..)).unwrap_or_default()
}

/// A group that begins with this packet, unless it can have no second one.
fn opened(packet: &[u8], headers: Headers, group: usize) -> Option<OpenGroup> {
    let size = packet.len() - headers.len;
    let sequence = match headers.protocol {
        Transport::Tcp => {
            let tcp = packet.get(headers.ip_len..)?;
            if *tcp.get(13)? != tcp_flags::ACK {
                return None;
            }
            u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?)
        }
        Transport::Udp => {
            if packet.get(headers.checksum())? == [0, 0] {
                return None;
            }
            0
        }
    };
    // Without the don't-fragment bit, IPv4's identification has a meaning that joining would lose (RFC 6864).
    let fragmentable = !headers.v6 && packet.get(6)? & 0x40 == 0;
    let next_sequence = sequence.wrapping_add(u32::try_from(size).ok()?);
    (size > 0 && !fragmentable).then_some(OpenGroup {
        group,
        headers,
        size,
        total: packet.len(),
        next_sequence,
        verified: false,
    })
}

fn is_same_flow(a: &Headers, first: &[u8], b: &Headers, packet: &[u8]) -> bool {
    let ports = |headers: &Headers| headers.ip_len..headers.ip_len + 4;
    a.v6 == b.v6
        && a.protocol == b.protocol
        && first.get(ports(a)) == packet.get(ports(b))
        && first.get(a.addresses()) == packet.get(b.addresses())
}

/// Whether a packet of the same flow differs from the group's first in nothing but what a cut makes differ.
fn continues(headers: &Headers, first: &[u8], packet: &[u8], next_sequence: u32) -> bool {
    let same = |range: std::ops::Range<usize>| first.get(range.clone()) == packet.get(range);
    let ip = if headers.v6 {
        // Traffic class, flow label, hop limit.
        same(0..4) && same(6..8)
    } else {
        // Type of service; flags; time to live.
        same(1..2) && same(6..9)
    };
    let at = headers.ip_len;
    ip && match headers.protocol {
        Transport::Udp => packet.get(headers.checksum()).is_some_and(|checksum| checksum != [0, 0]),
        Transport::Tcp => {
            let sequence =
                packet.get(at + 4..).and_then(|bytes| bytes.first_chunk()).map(|b| u32::from_be_bytes(*b));
            let flags = packet.get(at + 13).copied().unwrap_or_default();
            // Acknowledgement and data offset; window; urgent pointer and options.
            sequence == Some(next_sequence)
                && flags & !tcp_flags::PSH == tcp_flags::ACK
                && same(at + 8..at + 13)
                && same(at + 14..at + 16)
                && same(at + 18..headers.len)
        }
    }
}

fn is_pushed(headers: &Headers, packet: &[u8]) -> bool {
    headers.protocol == Transport::Tcp
        && packet.get(headers.ip_len + 13).is_some_and(|flags| flags & tcp_flags::PSH != 0)
}

fn has_right_checksum(headers: &Headers, packet: &[u8]) -> bool {
    let Some((ip, transport)) = packet.split_at_checked(headers.ip_len) else { return false };
    let ip_right = headers.v6 || Sum::default().add(ip).is_right();
    ip_right && pseudo_header(headers, ip, transport.len()).add(transport).is_right()
}

/// Before a packet that is written as it is.
const PLAIN: VirtioHeader = VirtioHeader {
    needs_checksum: false,
    gso_type: GsoType::None,
    header_len: 0,
    gso_size: 0,
    checksum_start: 0,
    checksum_offset: 0,
};

/// Makes the first packet's headers those of the super-packet, and tells how Linux may cut it again.
fn join_headers(buffers: &mut [Vec<u8>], group: &Group) -> Option<VirtioHeader> {
    let last = packet_at(buffers, group.last as usize);
    let first = packet_at(buffers, group.first as usize);
    let headers = Headers::parse(first)?;
    let gso_size = first.len() - headers.len;
    let pushed = is_pushed(&headers, last);
    let first = buffers.get_mut(group.first as usize)?.get_mut(PACKET_HEADROOM..)?;
    let (ip, transport) = first.split_at_mut_checked(headers.ip_len)?;
    let transport_len = group.total - headers.ip_len;
    if headers.v6 {
        set_u16(ip, 4, u16::try_from(transport_len).ok()?)?;
    } else {
        set_u16(ip, 2, u16::try_from(group.total).ok()?)?;
        set_ipv4_checksum(ip)?;
    }
    let gso_type = match (headers.protocol, headers.v6) {
        (Transport::Tcp, false) => GsoType::TcpV4,
        (Transport::Tcp, true) => GsoType::TcpV6,
        (Transport::Udp, _) => GsoType::Udp,
    };
    match headers.protocol {
        Transport::Tcp if pushed => *transport.get_mut(13)? |= tcp_flags::PSH,
        Transport::Tcp => {}
        Transport::Udp => set_u16(transport, 4, u16::try_from(transport_len).ok()?)?,
    }
    // Linux completes it, for the whole or for each part.
    let at = headers.protocol.checksum_at();
    transport.get_mut(at..at + 2)?.copy_from_slice(&pseudo_header(&headers, ip, transport_len).partial());
    Some(VirtioHeader {
        needs_checksum: true,
        gso_type,
        header_len: u16::try_from(headers.len).ok()?,
        gso_size: u16::try_from(gso_size).ok()?,
        checksum_start: u16::try_from(headers.ip_len).ok()?,
        checksum_offset: u16::try_from(at).ok()?,
    })
}

fn write_virtio(buffers: &mut [Vec<u8>], index: usize, header: VirtioHeader) {
    let room =
        buffers.get_mut(index).and_then(|b| b.get_mut(PACKET_HEADROOM - VIRTIO_HEADER..PACKET_HEADROOM));
    if let Some(room) = room {
        room.copy_from_slice(&header.to_bytes());
    }
}
