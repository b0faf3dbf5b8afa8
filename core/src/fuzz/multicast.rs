//! Announcements of DDS participants, as local programs and peers may send them.

use std::time::{Duration, Instant};

use ria_protocol::id::NodeId;

use super::{Unstructured, bytes, damage, pause};
use crate::ip::IpPacket;
use crate::multicast::{Audience, Multicast, PeerMulticast};
use crate::rtps::endpoints::endpoints;
use crate::rtps::heartbeats::heartbeat;
use crate::rtps::locators::with_own;
use crate::rtps::{announcement, sender};

const OWN: [u8; 4] = [10, 213, 0, 1];
const PEER: [u8; 4] = [10, 213, 0, 2];
const GROUP: [u8; 4] = [239, 255, 0, 1];

/// Reads anything as RTPS, then has participants announce themselves, in good form and damaged, to the group and to one
/// peer, over any time. Another content is never held back, and no table grows without end.
pub fn rtps(data: &[u8]) {
    for endpoint in endpoints(data) {
        let topic = endpoint.topic.unwrap_or_default();
        assert!(
            sender(data).is_some_and(|sender| endpoint.guid.starts_with(&sender)) && topic.len() < data.len()
        );
    }
    hide(data);
    if let Some(heartbeat) = heartbeat(data) {
        assert!(sender(data) == Some(heartbeat.participant) && heartbeat.content.len() < data.len());
    }
    if let Some(read) = announcement(data) {
        assert!(sender(data) == Some(read.participant) && read.content.len() < data.len());
    }
    let mut input = Unstructured::new(data);
    let (mut multicast, mut peer) = (Multicast::default(), PeerMulticast::default());
    let (mut now, mut fresh) = (Instant::now(), 0u32);
    for _ in 0..64 {
        let Ok(what) = input.arbitrary::<u8>() else { break };
        let mut message = message_of(what >> 6, u32::from(what >> 4 & 1), bytes(&mut input));
        if what & 8 != 0 {
            damage(&mut message, &mut input);
        }
        match what & 7 {
            0 | 1 => {
                let packet = udp(OWN, GROUP, &message);
                multicast.admit(&view(&packet), &[OWN.into()], now).ok();
            }
            2 => {
                let packet = udp(OWN, PEER, &message);
                multicast.overhear(&view(&packet), now);
                multicast.is_repeat(&view(&packet), &peer, now);
                let node = NodeId::from_bytes([2; NodeId::LEN]);
                assert!(multicast.clashes([(node, &peer)].into_iter(), now).len() <= 512);
            }
            3 | 4 => {
                let packet = udp(PEER, if what & 1 == 0 { GROUP } else { OWN }, &message);
                multicast.listen(&view(&packet), &mut peer, now);
                assert!(peer.participants(now) <= 256);
            }
            5 => {
                multicast.note_reached(what & 0x80 == 0, &mut peer, now);
                assert!(multicast.last_words(now).count() <= 256);
            }
            6 => {
                fresh += 1;
                now += Duration::from_millis(200);
                let news = udp(OWN, GROUP, &message_of(what >> 6, fresh + 2, b""));
                let audience = multicast.admit(&view(&news), &[OWN.into()], now);
                assert!(matches!(audience, Ok((Audience::All, _)) | Err(_)), "news are held back");
            }
            _ => now += pause(&mut input),
        }
    }
}

/// Hiding addresses changes nothing but which parameters are padding, and not twice.
fn hide(message: &[u8]) {
    let packet = udp(OWN, PEER, message.get(..8000).unwrap_or(message));
    let own = [OWN.into()];
    let hidden = with_own(&view(&packet), &own, <[u8]>::to_vec);
    assert!(hidden.len() == packet.len() && hidden[..28] == packet[..28]);
    assert!(
        hidden.iter().zip(&packet).all(|(after, before)| after == before || *after == 0),
        "{hidden:02x?}"
    );
    let again = with_own(&view(&hidden), &own, <[u8]>::to_vec);
    assert_eq!(again, hidden);
}

fn message_of(participant: u8, content: u32, tail: &[u8]) -> Vec<u8> {
    let mut message = b"RTPS\x02\x03\x01\x0f".to_vec();
    message.extend([participant; 12]);
    if content == 1 && participant == 3 {
        // A node's service in place of its announcement.
        message.extend([0x15, 5, 0, 0, 0, 0, 16, 0, 0, 0, 4, 0xc7, 0, 0, 4, 0xc2, 0, 0, 0, 0, 1, 0, 0, 0]);
        message.extend([0, 3, 0, 0, 0x5a, 0, 16, 0]);
        message.extend([participant; 12]);
        message.extend([0, 0, tail.len() as u8, 4, 5, 0, 44, 0, 34, 0, 0, 0]);
        message.extend(b"rq/robot/base/get_parametersRequest\0\0\0\0\0");
        message.extend(tail);
        return message;
    }
    message.extend([0x15, 5, 0, 0, 0, 0, 16, 0, 0, 1, 0, 0xc7, 0, 1, 0, 0xc2, 0, 0, 0, 0, 1, 0, 0, 0]);
    message.extend([0, 3, 0, 0, 2, 0, 8, 0, 20, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(content.to_le_bytes());
    message.extend(tail);
    message
}

fn udp(from: [u8; 4], to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = |header: usize| u16::try_from(payload.len() + header).unwrap_or_default().to_be_bytes();
    let (ip, udp) = (len(28), len(8));
    let mut packet = vec![0x45, 0, ip[0], ip[1], 0, 0, 0, 0, 1, 17, 0, 0];
    packet.extend([from, to].concat());
    packet.extend([0x1c, 0xe8, 0x1c, 0xe8, udp[0], udp[1], 0, 0]);
    packet.extend(payload);
    packet
}

fn view(packet: &[u8]) -> IpPacket<'_> {
    IpPacket::parse(packet).unwrap_or_else(|| panic!("made above: {packet:02x?}"))
}
