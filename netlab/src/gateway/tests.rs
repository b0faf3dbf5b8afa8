//! A router between two networks in virtual time: neighbours, hops, sizes, its own answers.

use std::net::SocketAddrV4;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::nat::Behaviour;
use crate::packet::build;
use crate::packet::ethernet::{Arp, BROADCAST};

const INNER: Mac = [2, 0, 0, 0, 0, 1];
const OUTER: Mac = [2, 0, 0, 0, 0, 2];
const HOST: Mac = [2, 0, 0, 0, 0, 10];
const UPSTREAM: Mac = [2, 0, 0, 0, 0, 11];

fn address(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn end(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

struct Bench {
    gateway: Gateway,
    now: Instant,
}

impl Bench {
    /// A router that has announced itself and knows nobody.
    fn new() -> Self {
        let external = address("198.51.100.99");
        let nat = Translator::new(Behaviour::default(), external, 1);
        let attach = |mac, address, prefix: &str, mtu, gateway| Attachment {
            mac,
            address,
            prefix: prefix.parse().unwrap(),
            mtu,
            gateway,
        };
        let inside = attach(INNER, address("192.168.1.1"), "192.168.1.0/24", 1500, None);
        let gateway = Some(address("198.51.100.1"));
        let outside = attach(OUTER, external, "198.51.100.0/24", 1400, gateway);
        let mut bench = Self { gateway: Gateway::new(inside, outside, nat), now: Instant::now() };
        for (side, own) in [(Side::Inside, "192.168.1.1"), (Side::Outside, "198.51.100.99")] {
            let announced = Arp::read(&bench.sent(side)[0]).unwrap();
            assert_eq!((announced.sender.1, announced.target.1), (address(own), address(own)));
        }
        bench
    }

    /// The same, knowing one host inside and its own gateway outside.
    fn acquainted() -> Self {
        let mut bench = Self::new();
        bench.say(Side::Inside, (HOST, "192.168.1.10"), (INNER, "192.168.1.1"), true);
        bench.say(Side::Outside, (UPSTREAM, "198.51.100.1"), (OUTER, "198.51.100.99"), true);
        bench.sent(Side::Inside);
        bench.sent(Side::Outside);
        bench
    }

    fn say(&mut self, side: Side, from: (Mac, &str), to: (Mac, &str), is_request: bool) {
        let arp = Arp { is_request, sender: (from.0, address(from.1)), target: (to.0, address(to.1)) };
        let frame = arp.frame(if is_request { BROADCAST } else { to.0 });
        self.gateway.handle_frame(side, frame, self.now);
    }

    fn packet(&mut self, side: Side, packet: &[u8]) {
        let mut frame = vec![0; ETHERNET];
        let to = if side == Side::Inside { INNER } else { OUTER };
        ethernet::write(&mut frame, to, HOST, ethernet::IPV4);
        frame.extend(packet);
        frame.resize(frame.len().max(60), 0);
        self.gateway.handle_frame(side, frame, self.now);
    }

    fn sent(&mut self, side: Side) -> Vec<Vec<u8>> {
        self.gateway.poll_frames(side).collect()
    }

    /// The one packet that was sent to a side, and to whom.
    fn one(&mut self, side: Side) -> (Mac, Vec<u8>) {
        let sent = self.sent(side);
        assert_eq!(sent.len(), 1);
        let (to, kind) = ethernet::read(&sent[0]).unwrap();
        assert_eq!(kind, ethernet::IPV4);
        build::assert_sums(&sent[0][ETHERNET..]);
        (to, sent[0][ETHERNET..].to_vec())
    }

    fn dropped(&mut self, reason: Dropped) -> u64 {
        self.gateway.nat().dropped().get(&reason).copied().unwrap_or(0)
    }
}

#[test]
fn packets_wait_until_the_neighbour_has_answered() {
    let mut bench = Bench::new();
    for n in 0..40 {
        bench.packet(Side::Inside, &build::udp(end("192.168.1.10:5000"), end("192.0.2.1:9"), &[n]));
    }
    let question = bench.sent(Side::Outside);
    assert_eq!(question.len(), 1, "one question for all of them");
    assert_eq!(Arp::read(&question[0]).unwrap().target.1, address("198.51.100.1"));
    assert_eq!(bench.dropped(Dropped::NoNeighbour), 8, "32 may wait");
    bench.say(Side::Outside, (UPSTREAM, "198.51.100.1"), (OUTER, "198.51.100.99"), false);
    let sent = bench.sent(Side::Outside);
    assert_eq!(sent.len(), 32);
    for (n, frame) in sent.iter().enumerate() {
        assert_eq!((ethernet::read(frame).unwrap().0, usize::from(frame[ETHERNET + 28])), (UPSTREAM, n));
        assert_eq!(frame[ETHERNET + 8], 63, "one hop less");
    }
}

#[test]
fn a_neighbour_that_never_answers_is_given_up_and_the_sender_told() {
    let mut bench = Bench::acquainted();
    bench.packet(Side::Inside, &build::udp(end("192.168.1.10:5000"), end("198.51.100.7:9"), b"x"));
    for _ in 0..3 {
        assert_eq!(bench.sent(Side::Outside).len(), 1, "a question a second");
        bench.now = bench.gateway.next_due().unwrap();
        bench.gateway.handle_time(bench.now);
    }
    assert_eq!((bench.dropped(Dropped::NoNeighbour), bench.gateway.next_due()), (1, None));
    let (to, error) = bench.one(Side::Inside);
    assert_eq!((to, error[20], error[21]), (HOST, 3, 1));
    let about = Header::read(&error[28..]).unwrap();
    assert_eq!((about.source, about.destination), (address("192.168.1.10"), address("198.51.100.7")));
}

#[test]
fn a_neighbour_that_changed_its_hardware_is_noticed() {
    let mut bench = Bench::acquainted();
    let udp = build::udp(end("192.168.1.10:5000"), end("192.0.2.1:9"), b"x");
    bench.packet(Side::Inside, &udp);
    assert_eq!(bench.one(Side::Outside).0, UPSTREAM);
    bench.now += Duration::from_secs(31);
    bench.packet(Side::Inside, &udp);
    assert_eq!(bench.sent(Side::Outside).len(), 2, "the packet to the old one, and a question");
    let new = [2, 0, 0, 0, 0, 12];
    bench.say(Side::Outside, (new, "198.51.100.1"), (OUTER, "198.51.100.99"), false);
    bench.packet(Side::Inside, &udp);
    assert_eq!(bench.one(Side::Outside).0, new);
    // And by what it says unasked.
    bench.say(Side::Outside, (UPSTREAM, "198.51.100.1"), (BROADCAST, "198.51.100.1"), true);
    bench.packet(Side::Inside, &udp);
    assert_eq!(bench.one(Side::Outside).0, UPSTREAM);
}

#[test]
fn the_router_answers_pings_on_its_own_addresses_and_refuses_the_rest() {
    let mut bench = Bench::acquainted();
    for (side, from, to) in [
        (Side::Inside, "192.168.1.10:0", "192.168.1.1:0"),
        (Side::Inside, "192.168.1.10:0", "198.51.100.99:0"),
        (Side::Outside, "198.51.100.1:0", "198.51.100.99:0"),
    ] {
        bench.packet(side, &build::icmp(end(from), end(to), [8, 0], [1, 2, 3, 4], b"ping"));
        let (_, reply) = bench.one(side);
        let header = Header::read_whole(&reply).unwrap();
        assert_eq!((header.source, header.destination), (*end(to).ip(), *end(from).ip()));
        assert_eq!(reply[20..], build::icmp(end(to), end(from), [0, 0], [1, 2, 3, 4], b"ping")[20..]);
    }
    bench.packet(Side::Inside, &build::udp(end("192.168.1.10:5000"), end("192.168.1.1:5351"), b"map"));
    let (_, error) = bench.one(Side::Inside);
    assert_eq!(error[20..22], [3, 3], "nobody listens there");
    bench.packet(Side::Outside, &build::udp(end("198.51.100.1:5000"), end("198.51.100.99:5351"), b"map"));
    bench.packet(Side::Outside, &build::udp(end("198.51.100.1:5000"), end("192.168.1.10:5351"), b"map"));
    assert!(bench.sent(Side::Outside).is_empty() && bench.sent(Side::Inside).is_empty());
    assert_eq!(bench.dropped(Dropped::NoMapping), 2);
}

#[test]
fn hops_sizes_and_ways_that_are_missing_are_told_to_the_sender() {
    let mut bench = Bench::acquainted();
    let host = end("192.168.1.10:5000");
    let mut last_hop = build::udp(host, end("192.0.2.1:9"), b"x");
    last_hop[8] = 1;
    last_hop[10..12].fill(0);
    let sum = packet::checksum::of(&last_hop[..20]);
    last_hop[10..12].copy_from_slice(&sum.to_be_bytes());
    let large = build::udp(host, end("192.0.2.1:9"), &[0; 1400]);
    let sibling = build::udp(host, end("192.168.1.11:9"), b"x");
    for (packet, told, reason) in [
        (last_hop, [11, 0], Dropped::Hops),
        (large, [3, 4], Dropped::TooBig),
        (sibling, [3, 0], Dropped::NoRoute),
    ] {
        bench.packet(Side::Inside, &packet);
        let (to, error) = bench.one(Side::Inside);
        assert_eq!((to, &error[20..22]), (HOST, &told[..]));
        assert_eq!(error[28..], packet[..packet.len().min(548)], "the packet it is about");
        if told == [3, 4] {
            assert_eq!(error[26..28], 1400_u16.to_be_bytes());
        }
        assert_eq!(bench.dropped(reason), 1);
    }
    bench.packet(Side::Inside, &build::udp(host, end("192.0.2.1:9"), &[0; 1372]));
    assert_eq!(bench.one(Side::Outside).1.len(), 1400, "as large as allowed");
    assert!(bench.sent(Side::Inside).is_empty());
}

#[test]
fn a_new_address_is_announced_and_answered_for() {
    let mut bench = Bench::acquainted();
    bench.gateway.set_external(address("198.51.100.7"));
    let announced = Arp::read(&bench.sent(Side::Outside)[0]).unwrap();
    assert_eq!(announced.sender, (OUTER, address("198.51.100.7")));
    bench.say(Side::Outside, (UPSTREAM, "198.51.100.1"), ([0; 6], "198.51.100.7"), true);
    assert_eq!(Arp::read(&bench.sent(Side::Outside)[0]).unwrap().sender.1, address("198.51.100.7"));
    bench.say(Side::Outside, (UPSTREAM, "198.51.100.1"), ([0; 6], "198.51.100.99"), true);
    assert!(bench.sent(Side::Outside).is_empty(), "the old one is given up");
}

proptest! {
    #[test]
    fn any_frames_are_routed_or_dropped(
        frames in prop::collection::vec((any::<bool>(), 0..3_usize, prop::collection::vec(any::<u8>(), 0..90)), 1..30),
    ) {
        let mut bench = Bench::acquainted();
        for (is_inside, form, bytes) in frames {
            let (side, mac) = if is_inside { (Side::Inside, INNER) } else { (Side::Outside, OUTER) };
            let mut frame = vec![0; ETHERNET];
            ethernet::write(&mut frame, mac, HOST, if form == 1 { ethernet::ARP } else { ethernet::IPV4 });
            match form {
                0 => frame = bytes,
                1 => frame.extend([0, 1, 8, 0, 6, 4, 0, 1].into_iter().chain(bytes)),
                _ => frame.extend(build::ipv4(1, end("192.168.1.10:0"), end("192.168.1.1:0"), &bytes)),
            }
            bench.gateway.handle_frame(side, frame, bench.now);
            bench.now += Duration::from_millis(700);
            bench.gateway.handle_time(bench.now);
        }
        for frame in bench.sent(Side::Inside).into_iter().chain(bench.sent(Side::Outside)) {
            prop_assert!(ethernet::read(&frame).is_some_and(|(_, kind)| kind == ethernet::ARP || Header::read_whole(&frame[ETHERNET..]).is_some()));
        }
    }
}
