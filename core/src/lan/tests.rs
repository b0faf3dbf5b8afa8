//! Translation of addresses: what comes out is what a host that has the other address would have sent.

use proptest::prelude::*;

use super::*;

fn lans() -> Lans {
    let lan = |prefix: &str, here: &str| Lan { prefix: prefix.parse().unwrap(), here: here.parse().unwrap() };
    let all = [lan("10.66.3.0/24", "192.168.10.0/24"), lan("10.67.0.16/28", "172.16.0.32/28")];
    Lans::new(&all, 1500).unwrap()
}

const LAPTOP: [u8; 4] = [10, 213, 0, 5];
const OVERLAY: [u8; 4] = [10, 66, 3, 7];
const HERE: [u8; 4] = [192, 168, 10, 7];

/// The checksum by its definition.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A packet with right checksums; `fragment` is the field of flags and offset.
fn packet(protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8], fragment: u16) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 63, protocol, 0, 0];
    bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
    bytes.extend(from.into_iter().chain(to));
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    bytes[2..4].copy_from_slice(&total);
    let checksum = sum(&[&bytes]).to_be_bytes();
    bytes[10..12].copy_from_slice(&checksum);
    bytes.extend_from_slice(payload);
    bytes
}

/// A transport header and payload with a right checksum, `at` its place.
fn transport(protocol: u8, from: [u8; 4], to: [u8; 4], at: usize, body: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; at + 4];
    segment.extend_from_slice(body);
    let len = u16::try_from(segment.len()).unwrap().to_be_bytes();
    if protocol == UDP {
        segment[4..6].copy_from_slice(&len);
    }
    let mut checksum = sum(&[&from, &to, &[0, protocol], &len, &segment]);
    if protocol == UDP && checksum == 0 {
        checksum = u16::MAX;
    }
    segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    segment
}

fn datagram(from: [u8; 4], to: [u8; 4], body: &[u8]) -> Vec<u8> {
    packet(UDP, from, to, &transport(UDP, from, to, 6, body), 0)
}

fn segment(from: [u8; 4], to: [u8; 4], body: &[u8]) -> Vec<u8> {
    packet(TCP, from, to, &transport(TCP, from, to, 16, body), 0)
}

/// An ICMP message with a right checksum.
fn icmp(from: [u8; 4], to: [u8; 4], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 3, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(body);
    let checksum = sum(&[&message]).to_be_bytes();
    message[2..4].copy_from_slice(&checksum);
    packet(ICMP, from, to, &message, 0)
}

fn entered(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    lans().enter(&mut bytes).then_some(bytes)
}

fn left(bytes: &[u8]) -> Vec<u8> {
    lans().leaving(bytes).to_vec()
}

#[test]
fn what_comes_out_is_what_the_other_address_would_have_sent() {
    for body in [&b"lidar"[..], b"", &[0xff; 1200]] {
        for make in [datagram, segment] {
            assert_eq!(entered(&make(LAPTOP, OVERLAY, body)), Some(make(LAPTOP, HERE, body)));
            assert_eq!(left(&make(HERE, LAPTOP, body)), make(OVERLAY, LAPTOP, body));
        }
        assert_eq!(entered(&icmp(LAPTOP, OVERLAY, 8, body)), Some(icmp(LAPTOP, HERE, 8, body)));
        assert_eq!(left(&icmp(HERE, LAPTOP, 0, body)), icmp(OVERLAY, LAPTOP, 0, body));
    }
    // The other network, at another place within it.
    let (overlay, here) = ([10, 67, 0, 20], [172, 16, 0, 36]);
    assert_eq!(entered(&datagram(LAPTOP, overlay, b"x")), Some(datagram(LAPTOP, here, b"x")));
}

#[test]
fn others_are_left_alone() {
    for to in [LAPTOP, HERE, [10, 66, 4, 7], [10, 67, 0, 32]] {
        assert_eq!(entered(&datagram(LAPTOP, to, b"x")), None, "{to:?}");
    }
    for from in [LAPTOP, OVERLAY, [192, 168, 11, 7]] {
        let bytes = datagram(from, LAPTOP, b"x");
        assert_eq!(left(&bytes), bytes, "{from:?}");
    }
    let six = [&[0x60; 40][..], b"payload"].concat();
    assert_eq!((entered(&six), left(&six)), (None, six.clone()));
}

#[test]
fn a_datagram_without_a_checksum_stays_without_and_none_becomes_one() {
    let mut without = datagram(LAPTOP, OVERLAY, b"lidar");
    without[26..28].fill(0);
    let came = entered(&without).unwrap();
    assert_eq!((&came[16..20], &came[26..28]), (&HERE[..], &[0, 0][..]));
    // One whose checksum would become zero is written as all ones.
    for n in 0..=u16::MAX {
        let body = n.to_be_bytes();
        let expected = datagram(LAPTOP, HERE, &body);
        if expected[26..28] == [0xff, 0xff] {
            return assert_eq!(entered(&datagram(LAPTOP, OVERLAY, &body)), Some(expected));
        }
    }
    panic!("one of them has it");
}

#[test]
fn of_a_packet_in_pieces_the_first_has_the_checksum() {
    let whole = transport(UDP, LAPTOP, OVERLAY, 6, &[7; 600]);
    let expected = transport(UDP, LAPTOP, HERE, 6, &[7; 600]);
    let (first, rest) = whole.split_at(320);
    let (first_expected, rest_expected) = expected.split_at(320);
    assert_eq!(
        entered(&packet(UDP, LAPTOP, OVERLAY, first, 0x2000)),
        Some(packet(UDP, LAPTOP, HERE, first_expected, 0x2000))
    );
    assert_eq!(rest, rest_expected, "what follows has no checksum of its own");
    assert_eq!(
        entered(&packet(UDP, LAPTOP, OVERLAY, rest, 40)),
        Some(packet(UDP, LAPTOP, HERE, rest_expected, 40))
    );
}

#[test]
fn what_an_error_quotes_is_changed_as_well() {
    // The device says that nobody listens; the gateway itself says that there is no such device.
    for (router, as_seen) in [(HERE, OVERLAY), ([10, 213, 0, 3], [10, 213, 0, 3])] {
        for make in [datagram, segment] {
            let about_here = make(LAPTOP, HERE, b"is anybody there");
            let about_overlay = make(LAPTOP, OVERLAY, b"is anybody there");
            for cut in [28, 36, about_here.len()] {
                assert_eq!(
                    left(&icmp(router, LAPTOP, 3, &about_here[..cut])),
                    icmp(as_seen, LAPTOP, 3, &about_overlay[..cut])
                );
            }
        }
    }
    // And in the other direction: the laptop says so of what the device has sent.
    let (sent, arrived) = (datagram(HERE, LAPTOP, b"scan"), datagram(OVERLAY, LAPTOP, b"scan"));
    assert_eq!(entered(&icmp(LAPTOP, OVERLAY, 3, &arrived)), Some(icmp(LAPTOP, HERE, 3, &sent)));
}

#[test]
fn an_unmapped_network_is_let_in_as_it_is() {
    let same: Prefix = "192.168.10.0/24".parse().unwrap();
    let lans = Lans::new(&[Lan { prefix: same, here: same }], 1500).unwrap();
    let mut bytes = datagram(LAPTOP, HERE, b"x");
    assert!(lans.enter(&mut bytes) && bytes == datagram(LAPTOP, HERE, b"x"));
    assert!(!lans.enter(&mut datagram(LAPTOP, OVERLAY, b"x")));
}

#[test]
fn networks_of_different_sizes_and_families_are_none() {
    let lan = |prefix: &str, here: &str| Lan { prefix: prefix.parse().unwrap(), here: here.parse().unwrap() };
    let bad = [lan("10.66.3.0/24", "192.168.0.0/16"), lan("fd00::/64", "fd01::/64")];
    assert!(Lans::new(&bad, 1500).is_none() && Lans::new(&[], 1500).is_none());
}

proptest! {
    /// In and out again is what it was, for any IP options, fragments, protocols and lengths.
    #[test]
    fn there_and_back_is_the_same(
        protocol in prop_oneof![Just(ICMP), Just(TCP), Just(UDP), any::<u8>()],
        host in any::<u8>(),
        fragment in prop_oneof![Just(0u16), any::<u16>()],
        body in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let lans = lans();
        let bytes = packet(protocol, [10, 66, 3, host], LAPTOP, &body, fragment);
        let mut back = bytes.clone();
        translate(&lans.pairs, &mut back, Way::Out);
        prop_assert_eq!(&back, &bytes, "not an address from here");
        let bytes = packet(protocol, LAPTOP, [10, 66, 3, host], &body, fragment);
        let mut there = bytes.clone();
        prop_assert!(lans.enter(&mut there));
        prop_assert_eq!(sum(&[&there[..20]]), 0, "the header's checksum is right");
        prop_assert_eq!(&there[16..20], &[192, 168, 10, host]);
        prop_assert_eq!(&there[20..].len(), &body.len());
    }

    #[test]
    fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut lans = lans();
        prop_assert_eq!(lans.leaving(&bytes).len(), bytes.len());
        let mut copy = bytes.clone();
        lans.enter(&mut copy);
    }
}
