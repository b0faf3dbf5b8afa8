//! Packets for tests, with right checksums, and the judge of whether a packet's checksums are right.

use std::net::SocketAddrV4;

use super::{Header, IPV4_HEADER, checksum};

/// An IPv4 packet around a payload.
pub fn ipv4(protocol: u8, source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(IPV4_HEADER + payload.len()).unwrap();
    let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet.extend(source.ip().octets());
    packet.extend(destination.ip().octets());
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn pseudo(packet: &[u8], header: &Header) -> u64 {
    let length = header.total - header.len;
    checksum::add(u64::from(header.protocol) + length as u64, &packet[12..20])
}

fn finish_transport(mut packet: Vec<u8>, at: usize) -> Vec<u8> {
    let header = Header::read(&packet).unwrap();
    let sum = checksum::finish(checksum::add(pseudo(&packet, &header), &packet[header.len..]));
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A UDP packet.
pub fn udp(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [source.port(), destination.port(), u16::try_from(8 + payload.len()).unwrap(), 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(payload);
    finish_transport(ipv4(17, source, destination, &bytes), IPV4_HEADER + 6)
}

/// A TCP packet with these flags (FIN 1, SYN 2, RST 4, ACK 16).
pub fn tcp(source: SocketAddrV4, destination: SocketAddrV4, flags: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    finish_transport(ipv4(6, source, destination, &bytes), IPV4_HEADER + 16)
}

/// An ICMP packet; ports of the ends don't matter.
pub fn icmp(
    source: SocketAddrV4,
    destination: SocketAddrV4,
    kind: [u8; 2],
    rest: [u8; 4],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![kind[0], kind[1], 0, 0];
    bytes.extend(rest);
    bytes.extend(body);
    let sum = checksum::of(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(1, source, destination, &bytes)
}

/// Asserts that all checksums of a packet are right.
pub fn assert_sums(packet: &[u8]) {
    let header = Header::read_whole(packet).expect("a whole packet with a right header checksum");
    let body = &packet[header.len..header.total];
    let sum = match header.protocol {
        1 => checksum::of(body),
        17 if body[6..8] == [0, 0] => return,
        _ => checksum::finish(checksum::add(pseudo(packet, &header), body)),
    };
    assert_eq!(sum, 0, "checksum of protocol {}", header.protocol);
}
