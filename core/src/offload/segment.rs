//! Cuts a super-packet into packets, in place.
//!
//! The headers of each segment are written directly before its payload, over the end of the payload before it, which
//! has been handed out by then. So nothing is copied but headers, and the caller sees one segment at a time.

use super::checksum::{Sum, pseudo_header};
use super::headers::{Headers, Transport, tcp_flags};
use super::virtio::{GsoType, VIRTIO_HEADER, VirtioHeader};

/// Longest headers that can be cut off: IPv6 (40) and TCP with all options (60).
const MAX_HEADERS: usize = 100;

/// What a TUN device gave is no packet that it may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packet of the overlay interface has inconsistent headers")]
pub struct SegmentError;

/// Hands the packets of a frame (virtio-net header, then packet or super-packet) to `each`, in order, with complete
/// checksums. The frame's bytes are used up.
pub fn segment(frame: &mut [u8], mut each: impl FnMut(&[u8])) -> Result<(), SegmentError> {
    let (header, packet) = frame.split_first_chunk_mut::<VIRTIO_HEADER>().ok_or(SegmentError)?;
    let header = VirtioHeader::read(header).ok_or(SegmentError)?;
    if header.gso_type == GsoType::None {
        if header.needs_checksum {
            complete_checksum(packet, &header).ok_or(SegmentError)?;
        }
        each(packet);
        return Ok(());
    }
    let headers =
        Headers::parse(packet).filter(|headers| fits(headers, header.gso_type)).ok_or(SegmentError)?;
    let size = usize::from(header.gso_size);
    if size == 0 || headers.len > MAX_HEADERS {
        return Err(SegmentError);
    }
    cut(packet, &headers, size, each).ok_or(SegmentError)
}

fn fits(headers: &Headers, gso_type: GsoType) -> bool {
    match gso_type {
        GsoType::None => false,
        GsoType::TcpV4 => headers.protocol == Transport::Tcp && !headers.v6,
        GsoType::TcpV6 => headers.protocol == Transport::Tcp && headers.v6,
        GsoType::Udp => headers.protocol == Transport::Udp,
    }
}

/// The checksum field holds the sum of the pseudo-header; the rest is added here.
fn complete_checksum(packet: &mut [u8], header: &VirtioHeader) -> Option<()> {
    let start = usize::from(header.checksum_start);
    let at = start + usize::from(header.checksum_offset);
    let mut checksum = Sum::default().add(packet.get(start..)?).checksum();
    // In UDP, zero says that there is no checksum (RFC 768).
    if usize::from(header.checksum_offset) == Transport::Udp.checksum_at() && checksum == [0, 0] {
        checksum = [0xff; 2];
    }
    packet.get_mut(at..at + 2)?.copy_from_slice(&checksum);
    Some(())
}

fn cut(packet: &mut [u8], headers: &Headers, size: usize, mut each: impl FnMut(&[u8])) -> Option<()> {
    let mut template = [0; MAX_HEADERS];
    let template = template.get_mut(..headers.len)?;
    template.copy_from_slice(packet.get(..headers.len)?);
    let mut payload_at = headers.len;
    let mut index: u16 = 0;
    loop {
        let end = (payload_at + size).min(packet.len());
        let place = Place { index, offset: payload_at - headers.len, last: end == packet.len() };
        let segment = packet.get_mut(payload_at - headers.len..end)?;
        write_headers(segment, headers, template, place)?;
        each(segment);
        payload_at = end;
        index = index.wrapping_add(1);
        if place.last {
            return Some(());
        }
    }
}

/// Which segment of a super-packet.
#[derive(Debug, Clone, Copy)]
struct Place {
    index: u16,
    /// Payload bytes before it.
    offset: usize,
    last: bool,
}

fn write_headers(segment: &mut [u8], headers: &Headers, template: &[u8], place: Place) -> Option<()> {
    segment.get_mut(..headers.len)?.copy_from_slice(template);
    let total = segment.len();
    let (ip, transport) = segment.split_at_mut_checked(headers.ip_len)?;
    if headers.v6 {
        set_u16(ip, 4, u16::try_from(total - 40).ok()?)?;
    } else {
        set_u16(ip, 2, u16::try_from(total).ok()?)?;
        let id = u16::from_be_bytes([*ip.get(4)?, *ip.get(5)?]);
        set_u16(ip, 4, id.wrapping_add(place.index))?;
        set_ipv4_checksum(ip)?;
    }
    match headers.protocol {
        Transport::Tcp => {
            let sequence = u32::from_be_bytes(*transport.get(4..)?.first_chunk::<4>()?);
            let sequence = sequence.wrapping_add(u32::try_from(place.offset).ok()?);
            transport.get_mut(4..8)?.copy_from_slice(&sequence.to_be_bytes());
            let flags = transport.get_mut(13)?;
            if !place.last {
                *flags &= !(tcp_flags::FIN | tcp_flags::PSH);
            }
            if place.index > 0 {
                *flags &= !tcp_flags::CWR;
            }
        }
        Transport::Udp => set_u16(transport, 4, u16::try_from(transport.len()).ok()?)?,
    }
    let at = headers.protocol.checksum_at();
    set_u16(transport, at, 0)?;
    let mut checksum = pseudo_header(headers, ip, transport.len()).add(transport).checksum();
    if headers.protocol == Transport::Udp && checksum == [0, 0] {
        checksum = [0xff; 2];
    }
    transport.get_mut(at..at + 2)?.copy_from_slice(&checksum);
    Some(())
}

pub(super) fn set_u16(bytes: &mut [u8], at: usize, value: u16) -> Option<()> {
    bytes.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
    Some(())
}

/// Of a header without options.
pub(super) fn set_ipv4_checksum(ip: &mut [u8]) -> Option<()> {
    set_u16(ip, 10, 0)?;
    let checksum = Sum::default().add(ip.get(..20)?).checksum();
    ip.get_mut(10..12)?.copy_from_slice(&checksum);
    Some(())
}
