//! Cutting and joining against each other and against a plain reading of the RFCs.

use proptest::prelude::*;

use super::checksum::{Sum, pseudo_header};
use super::headers::{Headers, Transport, tcp_flags};
use super::virtio::{GsoType, VIRTIO_HEADER, VirtioHeader};
use super::{Coalescer, segment};
use crate::packet::PACKET_HEADROOM;

/// What a packet of these tests is.
#[derive(Debug, Clone, Copy)]
struct Shape {
    v6: bool,
    transport: Transport,
    port: u16,
    sequence: u32,
    flags: u8,
}

const TCP: Shape =
    Shape { v6: false, transport: Transport::Tcp, port: 5000, sequence: 7, flags: tcp_flags::ACK };
const UDP: Shape = Shape { transport: Transport::Udp, ..TCP };

/// A packet with right checksums.
fn packet(shape: Shape, payload: &[u8]) -> Vec<u8> {
    let mut transport = match shape.transport {
        Transport::Tcp => {
            // With a timestamp option, as Linux sends it.
            let mut tcp = vec![0; 32];
            tcp[4..8].copy_from_slice(&shape.sequence.to_be_bytes());
            tcp[12] = 0x80;
            tcp[13] = shape.flags;
            tcp[20..22].copy_from_slice(&[1, 1]);
            tcp
        }
        Transport::Udp => vec![0; 8],
    };
    transport[0..2].copy_from_slice(&shape.port.to_be_bytes());
    transport.extend(payload);
    if shape.transport == Transport::Udp {
        let len = u16::try_from(transport.len()).unwrap();
        transport[4..6].copy_from_slice(&len.to_be_bytes());
    }
    let len = u16::try_from(transport.len()).unwrap();
    let mut ip;
    if shape.v6 {
        ip = vec![0; 40];
        ip[0] = 0x60;
        ip[4..6].copy_from_slice(&len.to_be_bytes());
        ip[6] = shape.transport.number();
        ip[23] = 1;
    } else {
        ip = vec![0; 20];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
        ip[6] = 0x40;
        ip[9] = shape.transport.number();
        ip[12..16].copy_from_slice(&[10, 0, 0, 1]);
        let sum = Sum::default().add(&ip).checksum();
        ip[10..12].copy_from_slice(&sum);
    }
    ip.extend(transport);
    let headers = Headers::parse(&ip).unwrap();
    let sum = pseudo_header(&headers, &ip, ip.len() - headers.ip_len).add(&ip[headers.ip_len..]).checksum();
    ip[headers.checksum()].copy_from_slice(&sum);
    ip
}

fn assert_right(packet: &[u8]) {
    let headers = Headers::parse(packet).unwrap_or_else(|| panic!("inconsistent headers: {packet:02x?}"));
    let (ip, transport) = packet.split_at(headers.ip_len);
    assert!(headers.v6 || Sum::default().add(ip).is_right(), "IP checksum");
    assert!(pseudo_header(&headers, ip, transport.len()).add(transport).is_right(), "transport checksum");
}

/// Lets a batch be grouped and returns what would be written: virtio-net header and packet of each group.
fn coalesced(packets: &[Vec<u8>], udp: bool) -> Vec<Vec<u8>> {
    let mut buffers: Vec<Vec<u8>> =
        packets.iter().map(|packet| [&[0xee; PACKET_HEADROOM][..], packet].concat()).collect();
    let mut coalescer = Coalescer::default();
    coalescer.plan(&mut buffers, udp);
    let groups = coalescer.groups().iter();
    groups.map(|group| coalescer.parts(group, &buffers).collect::<Vec<_>>().concat()).collect()
}

fn segmented(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    segment(&mut frame.to_vec(), |packet| out.push(packet.to_vec())).unwrap();
    out
}

/// Packets of one flow, cut every `size` bytes of payload.
fn flow(shape: Shape, size: usize, payload: &[u8]) -> Vec<Vec<u8>> {
    let pieces = payload.chunks(size).enumerate();
    pieces
        .map(|(n, piece)| {
            let sequence = shape.sequence.wrapping_add(u32::try_from(n * size).unwrap());
            packet(Shape { sequence, ..shape }, piece)
        })
        .collect()
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 % 251) as u8).collect()
}

#[test]
fn a_stream_becomes_one_write_and_is_cut_to_the_same_packets_again() {
    for v6 in [false, true] {
        for shape in [Shape { v6, ..TCP }, Shape { v6, ..UDP }] {
            let packets = flow(shape, 1000, &payload(4321));
            let frames = coalesced(&packets, true);
            assert_eq!(frames.len(), 1, "{shape:?}");
            let header = VirtioHeader::read(frames[0].first_chunk().unwrap()).unwrap();
            assert!(header.needs_checksum && header.gso_type != GsoType::None);
            assert_eq!(header.gso_size, 1000);
            let mut cut = segmented(&frames[0]);
            cut.iter().for_each(|packet| assert_right(packet));
            if !v6 {
                // Numbered by the cut; without a meaning while fragments are forbidden.
                for packet in &mut cut {
                    packet[4..6].fill(0);
                    packet[10..12].fill(0);
                    let sum = Sum::default().add(&packet[..20]).checksum();
                    packet[10..12].copy_from_slice(&sum);
                }
            }
            assert_eq!(cut, packets, "{shape:?}");
        }
    }
}

#[test]
fn flags_of_a_cut_stand_where_they_belong() {
    let flags = tcp_flags::ACK | tcp_flags::PSH | tcp_flags::FIN | tcp_flags::CWR;
    let packet = packet(Shape { flags, ..TCP }, &payload(2500));
    let header = VirtioHeader {
        needs_checksum: true,
        gso_type: GsoType::TcpV4,
        header_len: 52,
        gso_size: 1000,
        checksum_start: 20,
        checksum_offset: 16,
    };
    let cut = segmented(&[&header.to_bytes()[..], &packet].concat());
    let seen: Vec<u8> = cut.iter().map(|packet| packet[33]).collect();
    assert_eq!(
        seen,
        [tcp_flags::ACK | tcp_flags::CWR, tcp_flags::ACK, tcp_flags::ACK | tcp_flags::PSH | tcp_flags::FIN]
    );
}

#[test]
fn flows_that_alternate_are_joined_each_in_its_order() {
    let (a, b) = (flow(TCP, 500, &payload(2000)), flow(Shape { port: 6000, ..TCP }, 700, &payload(2100)));
    let mixed: Vec<_> = a
        .iter()
        .zip(&b)
        .flat_map(|(a, b)| [a.clone(), b.clone()])
        .chain([a[3].clone(), a[3].clone()])
        .collect();
    let frames = coalesced(&mixed, false);
    let lens: Vec<_> = frames.iter().map(|frame| frame.len() - VIRTIO_HEADER).collect();
    // A segment that comes twice is written twice.
    assert_eq!(lens, [52 + 2000, 52 + 2100, 52 + 500]);
}

#[test]
fn what_differs_stays_apart() {
    let first = packet(TCP, &payload(100));
    let next = Shape { sequence: TCP.sequence + 100, ..TCP };
    let alter = |at: usize, value: u8| {
        let mut bytes = packet(next, &payload(100));
        bytes[at] = value;
        let headers = Headers::parse(&bytes).unwrap();
        bytes[10..12].fill(0);
        let sum = Sum::default().add(&bytes[..20]).checksum();
        bytes[10..12].copy_from_slice(&sum);
        bytes[headers.checksum()].fill(0);
        let sum = pseudo_header(&headers, &bytes, bytes.len() - 20).add(&bytes[20..]).checksum();
        bytes[headers.checksum()].copy_from_slice(&sum);
        bytes
    };
    assert_eq!(coalesced(&[first.clone(), packet(next, &payload(100))], false).len(), 1);
    let cases = [
        ("ECN mark", 1, 3),
        ("TTL", 8, 9),
        ("ack", 28, 1),
        ("window", 34, 9),
        ("SYN", 33, 0x12),
        ("option", 46, 5),
    ];
    for (what, at, value) in cases {
        assert_eq!(coalesced(&[first.clone(), alter(at, value)], false).len(), 2, "{what}");
    }
    let gap = packet(Shape { sequence: TCP.sequence + 101, ..TCP }, &payload(100));
    assert_eq!(coalesced(&[first.clone(), gap], false).len(), 2, "gap");
    let longer = packet(next, &payload(101));
    assert_eq!(coalesced(&[first.clone(), longer], false).len(), 2, "longer than the first");
    let mut corrupt = packet(next, &payload(100));
    corrupt[100] ^= 1;
    let frames = coalesced(&[first.clone(), corrupt.clone()], false);
    assert_eq!(&frames[1][VIRTIO_HEADER..], corrupt, "a wrong checksum goes on as it came");
    let udp = flow(UDP, 100, &payload(300));
    assert_eq!(coalesced(&udp, false).len(), 3, "UDP where the device takes none");
}

#[test]
fn a_push_or_a_short_packet_ends_a_group() {
    let mut packets = flow(TCP, 100, &payload(250));
    packets.extend(flow(Shape { sequence: TCP.sequence + 250, ..TCP }, 100, &payload(200)));
    let lens = |frames: Vec<Vec<u8>>| frames.iter().map(|f| f.len() - VIRTIO_HEADER - 52).collect::<Vec<_>>();
    assert_eq!(lens(coalesced(&packets, false)), [250, 200]);
    let pushed = Shape { sequence: TCP.sequence + 100, flags: tcp_flags::ACK | tcp_flags::PSH, ..TCP };
    let after = Shape { sequence: TCP.sequence + 200, ..TCP };
    let packets = [packet(TCP, &payload(100)), packet(pushed, &payload(100)), packet(after, &payload(100))];
    let frames = coalesced(&packets, false);
    assert_eq!(frames[0][VIRTIO_HEADER + 33], tcp_flags::ACK | tcp_flags::PSH);
    assert_eq!(lens(frames), [200, 100]);
}

#[test]
fn nothing_overtakes_a_fragment_or_options() {
    let plain = flow(UDP, 500, &payload(1000));
    let mut fragment = packet(UDP, &payload(500));
    fragment[6] = 0x20;
    let mut options = plain[0].clone();
    options[0] = 0x46;
    options.splice(20..20, [1, 1, 1, 0]);
    for odd in [fragment, options] {
        let packets = [plain[0].clone(), odd.clone(), plain[1].clone()];
        let frames = coalesced(&packets, true);
        let seen: Vec<_> = frames.iter().map(|frame| frame[VIRTIO_HEADER..].to_vec()).collect();
        assert_eq!(seen, packets);
    }
}

#[test]
fn a_plain_packets_checksum_is_completed() {
    let whole = packet(UDP, &payload(99));
    let headers = Headers::parse(&whole).unwrap();
    let mut partial = whole.clone();
    let sum = pseudo_header(&headers, &whole, whole.len() - 20).partial();
    partial[headers.checksum()].copy_from_slice(&sum);
    let header = VirtioHeader {
        needs_checksum: true,
        gso_type: GsoType::None,
        header_len: 0,
        gso_size: 0,
        checksum_start: 20,
        checksum_offset: 6,
    };
    assert_eq!(segmented(&[&header.to_bytes()[..], &partial].concat()), [whole]);
}

proptest! {
    /// Whatever a device gives is cut or refused, and never cut into more than there is.
    #[test]
    fn any_frame_is_cut_or_refused(mut frame in proptest::collection::vec(any::<u8>(), 0..300), plausible: bool) {
        if plausible && frame.len() > VIRTIO_HEADER + 20 {
            frame[1] = [0, 1, 4, 5][usize::from(frame[1] % 4)];
            frame[10] = 0x45;
            let len = u16::try_from(frame.len() - VIRTIO_HEADER).unwrap();
            frame[12..14].copy_from_slice(&len.to_be_bytes());
            frame[16..18].fill(0);
            frame[19] = if frame[1] == 5 { 17 } else { 6 };
        }
        let len = frame.len();
        let mut packets = 0;
        let _ = segment(&mut frame, |packet| {
            assert!(packet.len() <= len);
            packets += 1;
        });
        prop_assert!(packets <= len);
    }

    /// Joining loses no byte of payload and changes no order within a flow, whatever comes.
    #[test]
    fn joining_is_undone_by_cutting(
        choices in proptest::collection::vec((0u16..3, 1usize..400, any::<bool>()), 1..80),
    ) {
        let mut sequence = [0u32; 3];
        let mut packets = Vec::new();
        for (port, len, equal) in choices {
            let len = if equal { 200 } else { len };
            let flow = usize::from(port);
            let shape = Shape { port, sequence: sequence[flow], ..if port == 2 { UDP } else { TCP } };
            sequence[flow] += u32::try_from(len).unwrap();
            packets.push(packet(shape, &payload(len)));
        }
        let cut: Vec<_> = coalesced(&packets, true).iter().flat_map(|frame| segmented(frame)).collect();
        prop_assert_eq!(cut.len(), packets.len());
        for port in 0..3u16 {
            let of = |packets: &[Vec<u8>]| packets.iter()
                .filter(|p| p[20..22] == port.to_be_bytes()).map(|p| p[20..].to_vec()).collect::<Vec<_>>();
            // From the transport header on, they are what they were.
            prop_assert_eq!(of(&cut), of(&packets));
        }
    }
}
