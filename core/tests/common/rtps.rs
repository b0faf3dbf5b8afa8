//! DDS participants as they are seen on a network: packets with RTPS announcements.

use super::overlay;

pub const DISCOVERY: [u8; 4] = [239, 255, 0, 1];

/// A participant of a host, by its number there.
pub fn guid(host: usize, number: u8) -> [u8; 12] {
    let mut guid = [0x01; 12];
    guid[2] = u8::try_from(host).unwrap();
    guid[11] = number;
    guid
}

/// What a participant says of itself: as long as Fast DDS makes it (590 bytes in all), with a lease of 20 s.
pub fn announcement(guid: [u8; 12], content: u8) -> Vec<u8> {
    let mut message = b"RTPS\x02\x03\x01\x0f".to_vec();
    message.extend(guid);
    message.extend([0x09, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut payload = vec![0, 3, 0, 0, 2, 0, 8, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0x2c, 0, 0x6c, 1];
    payload.extend([content; 364]);
    payload.extend([1, 0, 0, 0]);
    let len = u16::try_from(20 + payload.len()).unwrap().to_le_bytes();
    message.extend([0x15, 5, len[0], len[1], 0, 0, 16, 0, 0, 1, 0, 0xc7, 0, 1, 0, 0xc2]);
    message.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    message.extend(payload);
    // As Fast DDS ends it: with something of its own.
    message.extend([0x80, 1, 4, 0, 1, 2, 3, 4]);
    message
}

/// The same participant goes.
pub fn farewell(guid: [u8; 12]) -> Vec<u8> {
    let mut message = b"RTPS\x02\x03\x01\x0f".to_vec();
    message.extend(guid);
    message.extend([0x15, 3, 32, 0, 0, 0, 16, 0, 0, 1, 0, 0xc7, 0, 1, 0, 0xc2, 0, 0, 0, 0, 2, 0, 0, 0]);
    message.extend([0x71, 0, 4, 0, 0, 0, 0, 3, 1, 0, 0, 0]);
    message
}

/// A participant tells of a reader (with its parameter service, a ROS 2 node), or that it is gone.
pub fn reader(guid: [u8; 12], number: u8, topic: Option<&str>) -> Vec<u8> {
    let endpoint = [&guid[..], &[0, 0, number, 4]].concat();
    let mut message = b"RTPS\x02\x03\x01\x0f".to_vec();
    message.extend(guid);
    let mut rest = vec![0, 0, 16, 0, 0, 0, 4, 0xc7, 0, 0, 4, 0xc2, 0, 0, 0, 0, 1, 0, 0, 0];
    if let Some(topic) = topic {
        rest.extend([0, 3, 0, 0, 0x5a, 0, 16, 0]);
        rest.extend(endpoint);
        let padded = u16::try_from((topic.len() + 5).next_multiple_of(4)).unwrap();
        rest.extend([5, 0]);
        rest.extend(padded.to_le_bytes());
        rest.extend(u32::try_from(topic.len() + 1).unwrap().to_le_bytes());
        rest.extend(topic.bytes());
        rest.resize(rest.len() + usize::from(padded) - 4 - topic.len(), 0);
    } else {
        rest.extend([0x70, 0, 16, 0]);
        rest.extend(endpoint);
        rest.extend([0x71, 0, 4, 0, 0, 0, 0, 3]);
    }
    rest.extend([1, 0, 0, 0]);
    let len = u16::try_from(rest.len()).unwrap().to_le_bytes();
    message.extend([0x15, if topic.is_some() { 5 } else { 3 }, len[0], len[1]]);
    message.extend(rest);
    message
}

/// A UDP packet from a host.
pub fn udp(from: [u8; 4], to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap();
    let mut packet = vec![0; 28];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len + 28).to_be_bytes());
    packet[8..10].copy_from_slice(&[1, 17]);
    packet[12..16].copy_from_slice(&from);
    packet[16..20].copy_from_slice(&to);
    packet[20..22].copy_from_slice(&7411u16.to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[24..26].copy_from_slice(&(len + 8).to_be_bytes());
    packet.extend(payload);
    packet
}

/// A participant's announcement to the group of domain 0.
pub fn to_all(host: usize, number: u8, content: u8) -> Vec<u8> {
    udp(overlay(host), DISCOVERY, 7400, &announcement(guid(host, number), content))
}

/// The same to one participant of another host.
pub fn to_one(host: usize, number: u8, (other, port): (usize, u16)) -> Vec<u8> {
    udp(overlay(host), overlay(other), port, &announcement(guid(host, number), 1))
}
