#![allow(clippy::disallowed_methods, reason = "any starting point will do")]

use proptest::prelude::*;

use super::damping::{Participants, Repeats};
use super::heard::Heard;
use super::*;
use crate::rtps::Announcement;
use crate::rtps::heartbeats::Heartbeat;

fn announced(number: u32, content: &[u8], lease: u64) -> Announcement<'_> {
    let mut participant = [0; 12];
    participant[..4].copy_from_slice(&number.to_be_bytes());
    Announcement { participant, lease: Some(Duration::from_secs(lease)), is_farewell: false, content }
}

#[test]
fn a_short_lease_is_renewed_in_time() {
    let mut participants = Participants::default();
    let start = Instant::now();
    let short = announced(1, b"content", 5);
    participants.meet(&short, start);
    let passed: Vec<u64> = (0..20)
        .filter(|second| participants.announce(&short, b"", start + Duration::from_secs(*second)).is_none())
        .collect();
    assert_eq!(passed, [0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
}

#[test]
fn repeats_are_told_apart_up_to_the_size_of_the_table() {
    let (mut repeats, start) = (Repeats::default(), Instant::now());
    // Twenty participants here and 980 there, each pair four times.
    let mut late = 0;
    for round in 0..10u64 {
        for from in 0..20 {
            for to in 0..980u16 {
                let address = IpAddr::from([10, 213, 0, u8::try_from(to / 20).unwrap()]);
                let port = 7410 + to % 20 * 2;
                let now = start + Duration::from_secs(3 * round);
                let count = repeats.note(&announced(from, b"content", 20), (address, port), 1, now);
                late += usize::from(round == 9 && count <= damping::FIRST);
            }
        }
    }
    assert!(late < 100, "{late} of 19600 pairs are taken for new");
    let known = |repeats: &mut Repeats, content: &[u8], port, epoch| {
        repeats.note(&announced(0, content, 20), ([10, 213, 0, 0].into(), port), epoch, start)
    };
    assert!(known(&mut repeats, b"content", 7410, 1) > damping::FIRST);
    assert_eq!(known(&mut repeats, b"CONTENT", 7410, 1), 1);
    assert_eq!(known(&mut repeats, b"content", 7500, 1), 1);
    assert_eq!(known(&mut repeats, b"content", 7410, 2), 1);
}

#[test]
fn the_same_heartbeat_passes_once_in_a_while_and_another_at_once() {
    let (mut heartbeats, start) = (damping::Heartbeats::default(), Instant::now());
    let at = |ms: u64| start + Duration::from_millis(ms);
    let heartbeat = |content| Heartbeat { participant: [1; 12], flags: 1, content };
    let (own, beside): (IpAddr, IpAddr) = ([10, 213, 0, 1].into(), [192, 168, 1, 1].into());
    let mut from = |from, content, port, ms| {
        heartbeats.is_echo(&heartbeat(content), (from, ([10, 213, 0, 2].into(), port)), at(ms))
    };
    // On several interfaces each is sent from all of them, and the wrong ones first as often as not.
    let passed: Vec<u64> = (0..20)
        .map(|n| n * 50)
        .filter(|ms| {
            from(beside, &[1; 24], 7410, *ms);
            !from(own, &[1; 24], 7410, *ms)
        })
        .collect();
    let mut is_echo = |content, port, ms| from(own, content, port, ms);
    assert_eq!(passed, [0, 200, 400, 600, 800]);
    assert!(!is_echo(&[2; 24], 7410, 950), "there is something new");
    assert!(!is_echo(&[1; 24], 7412, 950), "it goes to another");
    assert!(is_echo(&[1; 24], 7412, 950));
}

#[test]
fn a_peers_participants_are_forgotten_in_time_and_when_there_are_too_many() {
    let (mut heard, start) = (Heard::default(), Instant::now());
    assert!(heard.note(&announced(1, b"", 20), start));
    assert!(!heard.note(&announced(1, b"", 20), start + Duration::from_secs(39)));
    assert_eq!(heard.count(start + Duration::from_secs(78)), 1);
    assert_eq!(heard.count(start + Duration::from_secs(80)), 0);
    assert!(heard.note(&announced(1, b"", 20), start + Duration::from_secs(80)), "it is new again");
    let without_end = announced(2, b"", i32::MAX as u64);
    assert!(heard.note(&without_end, start));
    assert_eq!(heard.count(start + Duration::from_secs(599)), 1);
    (10..1000).for_each(|number| assert!(heard.note(&announced(number, b"", 20), start)));
    assert_eq!(heard.count(start), 256);
    assert!(!heard.note(&Announcement { is_farewell: true, ..announced(2, b"", 20) }, start));
    assert_eq!(heard.count(start), 255);
}

proptest! {
    #[test]
    fn any_packet_gets_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..120), group in 0usize..5) {
        let mut bytes = bytes;
        if let Some(destination) = bytes.get_mut(16..20) {
            let groups = [[239, 255, 0, 1], [224, 0, 0, 251], [224, 0, 0, 22], [239, 1, 2, 3], [255; 4]];
            destination.copy_from_slice(&groups[group]);
            bytes[0] = 0x45;
        }
        let mut multicast = Multicast::default();
        if let Some(packet) = IpPacket::parse(&bytes) {
            let own = [packet.source];
            let verdict = multicast.admit(&packet, &own, Instant::now());
            prop_assert_eq!(verdict.is_ok(), multicast.accept(&packet).is_ok());
        }
    }
}
