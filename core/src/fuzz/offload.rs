//! Cutting super-packets and joining packets: whatever comes, cut gives what was joined.

use std::collections::BTreeMap;

use super::{Unstructured, bytes, damage};
use crate::offload::{Coalescer, segment};
use crate::packet::PACKET_HEADROOM;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A packet that is nearly always a right one: of one of four flows, with a size, flags and options of the input's.
fn packet(input: &mut Unstructured<'_>, sequence: &mut [u32; 4]) -> Vec<u8> {
    let [what, len, more] = input.arbitrary::<[u8; 3]>().unwrap_or_default();
    let flow = usize::from(what & 3);
    // Many of one length, so that there is something to join.
    let len = if more & 3 == 0 { usize::from(len) * 5 } else { 200 };
    let payload: Vec<u8> = (0..len).map(|n| (n as u8) ^ more).collect();
    let protocol = if flow == 3 { UDP } else { TCP };
    let mut transport = [&[0, 9, 0, 7][..], &sequence[flow].to_be_bytes()].concat();
    if protocol == UDP {
        transport[4..6].copy_from_slice(&(8 + len as u16).to_be_bytes());
        transport[6..8].fill(0);
    } else {
        let flags = if what & 0x30 == 0x30 { 0x18 } else { 0x10 };
        transport.extend([0, 0, 0, 1, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        sequence[flow] = sequence[flow].wrapping_add(len as u32);
    }
    transport.extend(payload);
    let total = transport.len() as u16;
    let mut packet = if flow == 1 {
        let mut ip = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        ip[4..6].copy_from_slice(&total.to_be_bytes());
        ip.extend([0xfd; 32]);
        ip
    } else {
        let mut ip =
            vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, flow as u8, 10, 0, 0, 9];
        ip[2..4].copy_from_slice(&(total + 20).to_be_bytes());
        let sum = fold(&ip, 0);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip
    };
    let addresses = if flow == 1 { &packet[8..40] } else { &packet[12..20] };
    let pseudo = [addresses, &[0, protocol], &total.to_be_bytes()].concat();
    let sum = fold(&transport, u64::from(!fold(&pseudo, 0)));
    let at = if protocol == UDP { 6 } else { 16 };
    transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet.extend(transport);
    if what & 0xc0 == 0xc0 {
        damage(&mut packet, input);
    }
    packet
}

/// The Internet checksum, by its definition.
fn fold(bytes: &[u8], start: u64) -> u16 {
    let words = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum = words.sum::<u64>() + start;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Where a packet is from and goes to, ports included, as far as that can be read: within one of these, order is kept.
fn flow(packet: &[u8]) -> Vec<u8> {
    let parts = match packet.first() {
        Some(0x45) => [packet.get(9..10), packet.get(12..20), packet.get(20..24)],
        Some(first) if first >> 4 == 6 => [packet.get(6..7), packet.get(8..40), packet.get(40..44)],
        _ => [None; 3],
    };
    parts.map(Option::unwrap_or_default).concat()
}

/// A packet without IPv4's identification, which means nothing while fragments are forbidden, and its checksum.
fn essence(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet.first() == Some(&0x45) && packet.len() >= 20 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

fn by_flow(packets: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for packet in packets {
        flows.entry(flow(packet)).or_default().push(essence(packet));
    }
    flows
}

/// Frames of a device, and batches of packets that are joined and cut again: the same packets, in the order of each flow.
pub fn offload(data: &[u8]) {
    let mut frame = data.to_vec();
    let len = frame.len();
    let mut given = 0;
    let _ = segment(&mut frame, |packet| {
        assert!(packet.len() <= len);
        given += 1;
    });
    assert!(given <= len.max(1), "more packets than bytes");

    let mut input = Unstructured::new(data);
    let udp = input.arbitrary().unwrap_or(false);
    let mut sequence = [0, u32::MAX - 300, 5, 0];
    let mut packets = Vec::new();
    while !input.is_empty() && packets.len() < 80 {
        packets.push(match input.arbitrary::<u8>().unwrap_or(0) % 8 {
            0 => bytes(&mut input).to_vec(),
            _ => packet(&mut input, &mut sequence),
        });
    }
    let headroom = [0xee; PACKET_HEADROOM];
    let mut buffers: Vec<Vec<u8>> = packets.iter().map(|packet| [&headroom[..], packet].concat()).collect();
    let mut coalescer = Coalescer::default();
    coalescer.plan(&mut buffers, udp);
    let mut cut = Vec::new();
    for group in coalescer.groups() {
        let mut frame = coalescer.parts(group, &buffers).collect::<Vec<_>>().concat();
        let whole = segment(&mut frame, |packet| cut.push(packet.to_vec()));
        assert_eq!(whole, Ok(()), "a frame of our own");
    }
    assert_eq!(cut.len(), packets.len());
    assert_eq!(by_flow(&cut), by_flow(&packets));
}
