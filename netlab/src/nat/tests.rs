//! RFC 4787, 5382 and 5508 on a translator in virtual time.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::packet::build;

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);

const KINDS: [Dependence; 3] =
    [Dependence::EndpointIndependent, Dependence::AddressDependent, Dependence::AddressAndPortDependent];

fn end(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// A translator and its present.
struct Bench {
    nat: Translator,
    now: Instant,
}

impl Bench {
    fn new(behaviour: Behaviour) -> Self {
        Self { nat: Translator::new(behaviour, EXTERNAL, 7), now: Instant::now() }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Sends a packet through; gives where it went, and its ends.
    fn pass(
        &mut self,
        from: Side,
        mut packet: Vec<u8>,
    ) -> Result<(Side, SocketAddrV4, SocketAddrV4), Dropped> {
        let side = self.nat.translate(from, &mut packet, self.now)?;
        build::assert_sums(&packet);
        let header = Header::read_whole(&packet).unwrap();
        let Kind::Session { source, destination, .. } = packet::kind(&header, &packet) else { panic!() };
        Ok((side, source, destination))
    }

    fn udp_out(&mut self, from: &str, to: &str) -> SocketAddrV4 {
        let (side, source, destination) =
            self.pass(Side::Inside, build::udp(end(from), end(to), b"out")).unwrap();
        assert_eq!((side, destination), (Side::Outside, end(to)));
        source
    }

    fn udp_in(&mut self, from: &str, to: SocketAddrV4) -> Result<SocketAddrV4, Dropped> {
        self.pass(Side::Outside, build::udp(end(from), to, b"in")).map(|(side, source, destination)| {
            assert_eq!((side, source), (Side::Inside, end(from)));
            destination
        })
    }

    fn tcp(
        &mut self,
        side: Side,
        from: SocketAddrV4,
        to: SocketAddrV4,
        flags: u8,
    ) -> Result<SocketAddrV4, Dropped> {
        let (_, source, destination) = self.pass(side, build::tcp(from, to, flags))?;
        Ok(if side == Side::Inside { source } else { destination })
    }
}

fn behaviour(mapping: Dependence, filtering: Dependence) -> Behaviour {
    Behaviour { mapping, filtering, ..Behaviour::default() }
}

#[test]
fn each_kind_of_mapping_depends_on_what_it_says() {
    for mapping in KINDS {
        for ports in [Ports::Preserving, Ports::Random] {
            let mut bench =
                Bench::new(Behaviour { ports, ..behaviour(mapping, Dependence::AddressAndPortDependent) });
            let seen = ["192.0.2.1:3478", "192.0.2.1:3479", "192.0.2.2:3478", "192.0.2.1:3478"]
                .map(|to| bench.udp_out("192.168.1.10:41820", to));
            assert!(seen.iter().all(|end| *end.ip() == EXTERNAL));
            assert_eq!(seen[0], seen[3], "a mapping lasts");
            let other_port = seen[0] != seen[1];
            let other_address = seen[0] != seen[2];
            assert_eq!(other_port, mapping == Dependence::AddressAndPortDependent);
            assert_eq!(other_address, mapping != Dependence::EndpointIndependent);
            assert_eq!(ports == Ports::Preserving, seen[0].port() == 41820, "{ports:?}");
        }
    }
}

#[test]
fn each_kind_of_filtering_lets_in_what_it_says() {
    for mapping in KINDS {
        for filtering in KINDS {
            let mut bench = Bench::new(behaviour(mapping, filtering));
            let outside = bench.udp_out("192.168.1.10:41820", "192.0.2.1:3478");
            let let_in =
                ["192.0.2.1:3478", "192.0.2.1:9", "192.0.2.7:9"].map(|from| bench.udp_in(from, outside));
            let inside = Ok(end("192.168.1.10:41820"));
            let expected = match filtering {
                Dependence::EndpointIndependent => [inside, inside, inside],
                Dependence::AddressDependent => [inside, inside, Err(Dropped::Filtered)],
                Dependence::AddressAndPortDependent => {
                    [inside, Err(Dropped::Filtered), Err(Dropped::Filtered)]
                }
            };
            assert_eq!(let_in, expected, "{mapping:?} {filtering:?}");
            let unmapped = SocketAddrV4::new(EXTERNAL, outside.port() ^ 1);
            assert_eq!(bench.udp_in("192.0.2.1:3478", unmapped), Err(Dropped::NoMapping));
        }
    }
}

#[test]
fn only_traffic_from_inside_keeps_a_mapping_alive_unless_told_otherwise() {
    for inbound_refresh in [false, true] {
        let mut bench = Bench::new(Behaviour { inbound_refresh, udp_timeout: 120, ..Behaviour::default() });
        let first = bench.udp_out("192.168.1.10:5000", "192.0.2.1:9");
        for _ in 0..4 {
            bench.wait(100);
            assert_eq!(bench.udp_out("192.168.1.10:5000", "192.0.2.1:9"), first);
        }
        bench.wait(119);
        assert!(bench.udp_in("192.0.2.1:9", first).is_ok(), "a second before the end");
        bench.wait(1);
        assert_eq!(bench.udp_in("192.0.2.1:9", first).is_ok(), inbound_refresh);
        bench.wait(120);
        assert_eq!(bench.udp_in("192.0.2.1:9", first), Err(Dropped::NoMapping));
        assert_eq!(bench.nat.report(bench.now).mappings, []);
    }
}

#[test]
fn a_filter_forgets_one_end_while_the_mapping_lives_for_another() {
    let mut bench = Bench::new(Behaviour { udp_timeout: 120, ..Behaviour::default() });
    let outside = bench.udp_out("192.168.1.10:5000", "192.0.2.1:9");
    for _ in 0..3 {
        bench.wait(50);
        assert_eq!(bench.udp_out("192.168.1.10:5000", "192.0.2.2:9"), outside);
    }
    assert_eq!(bench.udp_in("192.0.2.1:9", outside), Err(Dropped::Filtered));
    assert!(bench.udp_in("192.0.2.2:9", outside).is_ok());
}

#[test]
fn ports_are_never_shared_and_keep_range_and_parity() {
    for ports in [Ports::Preserving, Ports::Random] {
        let mut bench = Bench::new(Behaviour { ports, parity: true, ..Behaviour::default() });
        let mut given = BTreeSet::new();
        for host in 10..60 {
            for port in [5004, 5005, 700] {
                let outside = bench.udp_out(&format!("192.168.1.{host}:{port}"), "192.0.2.1:9");
                assert!(given.insert(outside.port()), "given twice");
                assert_eq!((outside.port() ^ port) & 1, 0, "parity");
                assert_eq!(outside.port() < 1024, port < 1024, "range");
            }
        }
    }
}

#[test]
fn when_all_ports_are_taken_a_packet_is_dropped_until_mappings_expire() {
    let mut bench = Bench::new(Behaviour { udp_timeout: 120, ..Behaviour::default() });
    for port in 1..=1023 {
        bench.udp_out(&format!("192.168.1.10:{port}"), "192.0.2.1:9");
    }
    let one_more = || build::udp(end("192.168.1.11:80"), end("192.0.2.1:9"), b"");
    assert_eq!(bench.pass(Side::Inside, one_more()), Err(Dropped::Full));
    assert_eq!(bench.nat.dropped()[&Dropped::Full], 1);
    bench.wait(120);
    assert!(bench.pass(Side::Inside, one_more()).is_ok());
}

#[test]
fn hairpinning_is_off_or_shows_the_outside_or_the_inside_source() {
    for (hairpin, source) in [
        (Hairpin::Off, None),
        (Hairpin::ExternalSource, Some("198.51.100.99:5001")),
        (Hairpin::InternalSource, Some("192.168.1.11:5001")),
    ] {
        let mut bench = Bench::new(Behaviour { hairpin, ..Behaviour::default() });
        let a = bench.udp_out("192.168.1.10:5000", "192.0.2.1:9");
        let b = bench.udp_out("192.168.1.11:5001", "192.0.2.1:9");
        let to_a = build::udp(end("192.168.1.11:5001"), a, b"hello");
        let Some(source) = source else {
            assert_eq!(bench.pass(Side::Inside, to_a), Err(Dropped::Hairpin));
            continue;
        };
        assert_eq!(bench.pass(Side::Inside, to_a.clone()), Err(Dropped::Filtered), "a wrote to nobody there");
        bench.pass(Side::Inside, build::udp(end("192.168.1.10:5000"), b, b"punch")).unwrap();
        let arrived = bench.pass(Side::Inside, to_a);
        assert_eq!(arrived, Ok((Side::Inside, end(source), end("192.168.1.10:5000"))));
    }
}

#[test]
fn a_reboot_forgets_and_a_new_address_is_used_at_once() {
    let mut bench = Bench::new(Behaviour { ports: Ports::Random, ..Behaviour::default() });
    let before = bench.udp_out("192.168.1.10:5000", "192.0.2.1:9");
    bench.nat.reboot();
    assert_eq!(bench.udp_in("192.0.2.1:9", before), Err(Dropped::NoMapping));
    let after = bench.udp_out("192.168.1.10:5000", "192.0.2.1:9");
    assert_ne!(after.port(), before.port());
    bench.nat.set_external("198.51.100.7".parse().unwrap());
    assert_eq!(bench.udp_in("192.0.2.1:9", after), Err(Dropped::NoMapping));
    assert_eq!(bench.udp_out("192.168.1.10:5000", "192.0.2.1:9").ip().to_string(), "198.51.100.7");
}

#[test]
fn a_tcp_connection_lives_long_when_established_and_short_otherwise() {
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    const FIN: u8 = 1;
    let (host, server) = (end("192.168.1.10:5000"), end("192.0.2.1:443"));
    let mut bench = Bench::new(Behaviour::default());
    assert_eq!(bench.tcp(Side::Inside, host, server, ACK), Err(Dropped::NoConnection));
    let outside = bench.tcp(Side::Inside, host, server, SYN).unwrap();
    bench.wait(239);
    assert_eq!(bench.tcp(Side::Outside, server, outside, SYN | ACK), Ok(host));
    assert_eq!(bench.tcp(Side::Inside, host, server, ACK), Ok(outside));
    bench.wait(7439);
    assert_eq!(bench.tcp(Side::Outside, server, outside, ACK), Ok(host), "two hours of silence");
    let stranger = end("192.0.2.2:443");
    assert_eq!(bench.tcp(Side::Outside, stranger, outside, SYN), Err(Dropped::Filtered));
    for (side, from, to) in [(Side::Inside, host, server), (Side::Outside, server, outside)] {
        bench.tcp(side, from, to, FIN | ACK).unwrap();
    }
    bench.wait(239);
    assert!(bench.tcp(Side::Inside, host, server, ACK).is_ok(), "the last acknowledgement may be repeated");
    bench.wait(240);
    assert_eq!(bench.nat.report(bench.now).mappings, []);

    let outside = bench.tcp(Side::Inside, host, server, SYN).unwrap();
    bench.tcp(Side::Outside, server, outside, SYN | ACK).unwrap();
    bench.tcp(Side::Outside, server, outside, RST).unwrap();
    bench.wait(240);
    assert_eq!(bench.tcp(Side::Outside, server, outside, ACK), Err(Dropped::NoMapping));
}

#[test]
fn tcp_comes_in_where_the_filter_is_open_and_opens_from_both_ends_at_once() {
    let (host, server, peer) = (end("192.168.1.10:5000"), end("192.0.2.1:443"), end("192.0.2.7:6000"));
    let kinds = Dependence::EndpointIndependent;
    let mut bench = Bench::new(behaviour(kinds, kinds));
    let outside = bench.tcp(Side::Inside, host, server, 2).unwrap();
    assert_eq!(bench.tcp(Side::Outside, peer, outside, 16), Err(Dropped::NoConnection));
    assert_eq!(bench.tcp(Side::Outside, peer, outside, 2), Ok(host));
    assert_eq!(bench.tcp(Side::Inside, host, peer, 2 | 16), Ok(outside));

    let mut bench = Bench::new(Behaviour::default());
    let outside = bench.tcp(Side::Inside, host, peer, 2).unwrap();
    assert_eq!(bench.tcp(Side::Outside, peer, outside, 2), Ok(host), "simultaneous open (RFC 5382 REQ-2)");
}

#[test]
fn an_echo_comes_back_to_who_asked() {
    let mut bench = Bench::new(Behaviour::all(Dependence::AddressAndPortDependent));
    let (server, nowhere) = (end("192.0.2.1:0"), end("198.51.100.99:0"));
    let mut ids = BTreeSet::new();
    for host in [end("192.168.1.10:0"), end("192.168.1.11:0")] {
        let (_, source, _) =
            bench.pass(Side::Inside, build::icmp(host, server, [8, 0], [0, 77, 0, 1], b"ping")).unwrap();
        ids.insert(source.port());
        let [high, low] = source.port().to_be_bytes();
        let reply = |from| build::icmp(from, nowhere, [0, 0], [high, low, 0, 1], b"ping");
        assert_eq!(bench.pass(Side::Outside, reply(end("192.0.2.2:0"))), Err(Dropped::Filtered));
        let (_, _, destination) = bench.pass(Side::Outside, reply(server)).unwrap();
        assert_eq!(destination, SocketAddrV4::new(*host.ip(), 77));
    }
    assert_eq!(ids.len(), 2);
}

/// The packet that an ICMP error carries: its ends, and the error's own addresses.
fn about(packet: &[u8]) -> (Ipv4Addr, Ipv4Addr, SocketAddrV4, SocketAddrV4) {
    build::assert_sums(packet);
    let header = Header::read_whole(packet).unwrap();
    let inner = &packet[header.len + 8..];
    let inner_header = Header::read(inner).unwrap();
    assert_eq!(packet::checksum::of(&inner[..inner_header.len]), 0, "header inside");
    let Kind::Session { source, destination, .. } = packet::kind(&inner_header, inner) else { panic!() };
    (header.source, header.destination, source, destination)
}

#[test]
fn errors_come_back_translated_and_end_no_mapping() {
    let mut bench = Bench::new(Behaviour { ports: Ports::Random, ..Behaviour::default() });
    let (host, server) = (end("192.168.1.10:5000"), end("192.0.2.1:9"));
    let outside = bench.udp_out("192.168.1.10:5000", "192.0.2.1:9");
    let sent = build::udp(outside, server, b"a datagram that found no port");
    let router = end("203.0.113.5:0");
    for kept in [28, sent.len()] {
        let mut error = build::icmp(router, outside, [3, 3], [0; 4], &sent[..kept]);
        assert_eq!(bench.nat.translate(Side::Outside, &mut error, bench.now), Ok(Side::Inside));
        assert_eq!(about(&error), (*router.ip(), *host.ip(), host, server));
        if kept == sent.len() {
            build::assert_sums(&error[28..]);
        }
    }
    assert!(bench.udp_in("192.0.2.1:9", outside).is_ok(), "the mapping lives");

    let received = build::udp(server, host, b"hello");
    let mut error = build::icmp(host, server, [3, 3], [0; 4], &received);
    assert_eq!(bench.nat.translate(Side::Inside, &mut error, bench.now), Ok(Side::Outside));
    assert_eq!(about(&error), (EXTERNAL, *server.ip(), server, outside));

    let mut forged =
        build::icmp(router, outside, [3, 3], [0; 4], &build::udp(outside, end("192.0.2.9:9"), b""));
    assert_eq!(bench.nat.translate(Side::Outside, &mut forged, bench.now), Err(Dropped::Filtered));
    let mut damaged = build::icmp(router, outside, [3, 3], [0; 4], &sent);
    damaged[40] ^= 1;
    assert_eq!(bench.nat.translate(Side::Outside, &mut damaged, bench.now), Err(Dropped::Malformed));
}

#[test]
fn an_error_about_a_hairpinned_packet_finds_its_way_back() {
    let mut bench = Bench::new(behaviour(Dependence::EndpointIndependent, Dependence::EndpointIndependent));
    let [a, b] = [end("192.168.1.10:5000"), end("192.168.1.11:5001")];
    let outside_b = bench.udp_out("192.168.1.11:5001", "192.0.2.1:9");
    let (_, outside_a, _) = bench.pass(Side::Inside, build::udp(a, outside_b, b"hello")).unwrap();
    let mut error = build::icmp(b, outside_a, [3, 3], [0; 4], &build::udp(outside_a, b, b"hello"));
    // What b wrote to it by an error is no reason to have a mapping towards a.
    assert_eq!(bench.nat.translate(Side::Inside, &mut error, bench.now), Ok(Side::Inside));
    assert_eq!(about(&error), (EXTERNAL, *a.ip(), a, outside_b));
}

#[test]
fn first_fragments_pass_and_later_ones_are_counted() {
    let mut bench = Bench::new(Behaviour::default());
    let fragment = |bits: u16| {
        let mut packet = build::udp(end("192.168.1.10:5000"), end("192.0.2.1:9"), &[7; 64]);
        let mut header = packet[..20].to_vec();
        header[6..8].copy_from_slice(&bits.to_be_bytes());
        header[10..12].fill(0);
        let sum = packet::checksum::of(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        packet[..20].copy_from_slice(&header);
        packet
    };
    assert_eq!(bench.nat.translate(Side::Inside, &mut fragment(0x2000), bench.now), Ok(Side::Outside));
    for bits in [0x2010, 0x0020] {
        assert_eq!(bench.nat.translate(Side::Inside, &mut fragment(bits), bench.now), Err(Dropped::Fragment));
    }
    assert_eq!(bench.nat.dropped()[&Dropped::Fragment], 2);
}

#[test]
fn the_same_seed_gives_the_same_ports() {
    let ports = |seed| {
        let kind = Dependence::AddressAndPortDependent;
        let mut bench = Bench::new(Behaviour::all(kind));
        bench.nat = Translator::new(Behaviour::all(kind), EXTERNAL, seed);
        [1, 2, 3, 4].map(|port| bench.udp_out("192.168.1.10:5000", &format!("192.0.2.1:{port}")).port())
    };
    assert_eq!(ports(1), ports(1));
    assert_ne!(ports(1), ports(2));
}

proptest! {
    #[test]
    fn any_bytes_are_translated_or_dropped(
        packets in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..120), 0..4_usize), 1..20),
    ) {
        let mut bench = Bench::new(Behaviour::all(Dependence::EndpointIndependent));
        let outside = bench.udp_out("192.168.1.10:5000", "192.0.2.1:9");
        for (is_inside, bytes, form) in packets {
            let inner = build::udp(outside, end("192.0.2.1:9"), b"x");
            let mut packet = match form {
                0 => bytes,
                1 => build::ipv4(bytes.first().copied().unwrap_or(17), end("192.168.1.10:0"), outside, &bytes),
                2 => build::icmp(end("192.0.2.1:0"), outside, [3, 3], [0; 4], &bytes),
                // An error about a packet that was damaged on its way.
                _ => {
                    let damaged = inner.iter().zip(bytes.iter().chain(std::iter::repeat(&0))).map(|(a, b)| a ^ (b & b << 1 & b >> 2));
                    build::icmp(end("192.0.2.1:0"), outside, [11, 0], [0; 4], &damaged.collect::<Vec<_>>())
                }
            };
            let from = if is_inside { Side::Inside } else { Side::Outside };
            if bench.nat.translate(from, &mut packet, bench.now).is_ok() {
                prop_assert!(Header::read_whole(&packet).is_some(), "a right header checksum");
            }
        }
    }
}
