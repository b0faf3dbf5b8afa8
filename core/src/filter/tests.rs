//! Policies against packets, without sessions.

#![allow(clippy::disallowed_methods, reason = "any starting point will do")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::MemberKind;
use ria_protocol::policy::{NodePolicy, Permit, PermitKind, Rule, Selector, Traffic};
use ria_protocol::record::MemberRecord;
use ria_protocol::time::UnixTime;

use super::*;
use crate::map::MapMember;

/// As good as drawn.
const SEED: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03];

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 10])
}

fn v4(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 213, 0, n).into()
}

fn v6(n: u8) -> IpAddr {
    Ipv6Addr::new(0xfd12, 0, 0, 0, 0, 0, 0, n.into()).into()
}

fn member(n: u8) -> (NodeId, MapMember) {
    let record = MemberRecord {
        network: NetworkId::from_bytes([1; 10]),
        node: node(n),
        wg_key: WgPublicKey([n; 32]),
        prefixes: vec![ria_protocol::prefix::Prefix::host(v4(n)), ria_protocol::prefix::Prefix::host(v6(n))],
        tags: if n == 3 { vec!["arm".into()] } else { vec![] },
        expires: None,
    };
    let name = format!("robot-{n}").parse().unwrap();
    (node(n), MapMember { record, name, kind: MemberKind::Node, stock: None })
}

fn rule(from: u8, to: u8, permit: Permit) -> Rule {
    let (from, to) = (Selector::of(vec![node(from)]), Selector::of(vec![node(to)]));
    Rule { number: 1, from, to, permits: vec![permit], not_before: None, until: None }
}

fn built(rules: Vec<Rule>, time: Option<u64>) -> Arc<Rules> {
    let members: Vec<_> = (1..=3).map(member).collect();
    let policy = NodePolicy { version: 1, rules: Some(rules) };
    let members = members.iter().map(|(node, member)| (*node, member));
    Arc::new(Rules::build(&policy, members, time.map(|time| (UnixTime(time), UnixTime(time)))).unwrap())
}

fn ports(kind: PermitKind, port: u16) -> Permit {
    Permit::range(kind, port, port)
}

/// A gate at one end, and the time.
struct World {
    gate: Gate,
    now: Instant,
}

impl World {
    fn new(rules: Vec<Rule>) -> Self {
        let mut world = Self { gate: Gate::default(), now: Instant::now() };
        world.set(rules);
        // The time is over in which connections from before are taken in.
        world.wait(61);
        world
    }

    fn set(&mut self, rules: Vec<Rule>) {
        self.gate.set_rules(Some(built(rules, None)), SEED, self.now);
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn passes(&mut self, bytes: &[u8]) -> bool {
        let packet = IpPacket::parse(bytes).expect("a packet");
        let one = self.gate.outbound(&packet, node(2), self.now);
        assert_eq!(one, self.gate.inbound(&packet, node(2), self.now), "a verdict has no direction");
        one == Verdict::Allow
    }
}

fn header(protocol: u8, from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
            packet.extend(from.octets().into_iter().chain(to.octets()).chain(payload.iter().copied()));
            let len = u16::try_from(packet.len()).unwrap().to_be_bytes();
            packet[2..4].copy_from_slice(&len);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let len = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let mut packet = vec![0x60, 0, 0, 0, len[0], len[1], protocol, 64];
            packet.extend(from.octets().into_iter().chain(to.octets()).chain(payload.iter().copied()));
            packet
        }
        _ => panic!("two families"),
    }
}

fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8) -> Vec<u8> {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&from.1.to_be_bytes());
    segment[2..4].copy_from_slice(&to.1.to_be_bytes());
    (segment[12], segment[13]) = (0x50, flags);
    header(TCP, from.0, to.0, &segment)
}

fn udp_payload(from: u16, to: u16) -> [u8; 12] {
    let mut datagram = [0; 12];
    datagram[..2].copy_from_slice(&from.to_be_bytes());
    datagram[2..4].copy_from_slice(&to.to_be_bytes());
    datagram[5] = 12;
    datagram
}

fn udp(from: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<u8> {
    header(UDP, from.0, to.0, &udp_payload(from.1, to.1))
}

fn echo(from: IpAddr, to: IpAddr, is_request: bool) -> Vec<u8> {
    let (protocol, kind) = match (from, is_request) {
        (IpAddr::V4(_), true) => (1, 8),
        (IpAddr::V4(_), false) => (1, 0),
        (IpAddr::V6(_), true) => (58, 128),
        (IpAddr::V6(_), false) => (58, 129),
    };
    header(protocol, from, to, &[kind, 0, 0, 0, 0x12, 0x34, 0, 1])
}

#[test]
fn who_may_begin_is_answered_and_nobody_else() {
    for (a, b) in [(v4(1), v4(2)), (v6(1), v6(2))] {
        let mut world = World::new(vec![rule(1, 2, ports(PermitKind::TCP, 22))]);
        assert!(!world.passes(&tcp((b, 22), (a, 5000), SYN | ACK)), "nobody has begun");
        assert!(world.passes(&tcp((a, 5000), (b, 22), SYN)));
        assert!(world.passes(&tcp((b, 22), (a, 5000), SYN | ACK)));
        assert!(world.passes(&tcp((b, 22), (a, 5000), ACK)));
        assert!(!world.passes(&tcp((b, 22), (a, 5001), ACK)), "another conversation");
        assert!(!world.passes(&tcp((b, 5000), (a, 22), SYN)), "the other way round");
        assert!(!world.passes(&tcp((a, 5000), (b, 23), SYN)) && !world.passes(&udp((a, 5000), (b, 22))));
        let (c, stranger) = if a.is_ipv4() { (v4(3), v4(99)) } else { (v6(3), v6(99)) };
        assert!(
            !world.passes(&tcp((c, 5000), (b, 22), SYN)) && !world.passes(&tcp((stranger, 1), (b, 22), SYN))
        );
    }
}

#[test]
fn flows_end_after_their_time() {
    let mut world =
        World::new(vec![rule(1, 2, ports(PermitKind::UDP, 9)), rule(1, 2, ports(PermitKind::TCP, 22))]);
    assert!(world.passes(&udp((v4(1), 5), (v4(2), 9))));
    world.wait(170);
    assert!(world.passes(&udp((v4(2), 9), (v4(1), 5))));
    world.wait(170);
    assert!(world.passes(&udp((v4(2), 9), (v4(1), 5))), "each packet of it counts");
    world.wait(190);
    assert!(!world.passes(&udp((v4(2), 9), (v4(1), 5))));
    assert!(world.passes(&tcp((v4(1), 5), (v4(2), 22), SYN)));
    world.wait(12 * 3600);
    assert!(world.passes(&tcp((v4(2), 22), (v4(1), 5), ACK)), "a shell over night");
    assert!(world.passes(&tcp((v4(2), 22), (v4(1), 5), RST)));
    world.wait(70);
    assert!(!world.passes(&tcp((v4(2), 22), (v4(1), 5), ACK)), "it was ended");
}

#[test]
fn a_change_of_rules_ends_what_they_do_not_allow_and_nothing_else() {
    let (ssh, web) = (rule(1, 2, ports(PermitKind::TCP, 22)), rule(1, 2, ports(PermitKind::TCP, 80)));
    let mut world = World::new(vec![ssh.clone(), web.clone()]);
    for port in [22, 80] {
        assert!(world.passes(&tcp((v4(1), 5), (v4(2), port), SYN)));
    }
    world.set(vec![ssh.clone()]);
    assert!(world.passes(&tcp((v4(2), 22), (v4(1), 5), ACK)), "not even a packet of its beginner is needed");
    assert!(
        !world.passes(&tcp((v4(2), 80), (v4(1), 5), ACK))
            && !world.passes(&tcp((v4(1), 5), (v4(2), 80), ACK))
    );
    world.set(vec![ssh, web]);
    assert!(!world.passes(&tcp((v4(2), 80), (v4(1), 5), ACK)), "it has ended");
    assert!(world.passes(&tcp((v4(1), 5), (v4(2), 80), ACK)));
    // No policy any more.
    world.gate.set_rules(None, [0, 0], world.now);
    assert!(world.passes(&tcp((v4(3), 5), (v4(2), 1), SYN)));
}

#[test]
fn connections_from_before_a_restart_go_on_if_they_could_begin() {
    let ssh = vec![rule(1, 2, ports(PermitKind::TCP, 22))];
    let mut world = World { gate: Gate::default(), now: Instant::now() };
    world.set(ssh);
    assert!(!world.passes(&tcp((v4(2), 22), (v4(1), 5), SYN)), "a beginning is none from before");
    assert!(
        !world.passes(&tcp((v4(2), 23), (v4(1), 5), ACK)) && !world.passes(&udp((v4(2), 22), (v4(1), 5)))
    );
    assert!(world.passes(&tcp((v4(2), 22), (v4(1), 5), ACK)));
    world.wait(100);
    assert!(world.passes(&tcp((v4(2), 22), (v4(1), 5), ACK)));
    assert!(!world.passes(&tcp((v4(2), 22), (v4(1), 6), ACK)), "that time is over");
}

#[test]
fn pings_and_errors_belong_to_what_they_are_about() {
    for (a, b) in [(v4(1), v4(2)), (v6(1), v6(2))] {
        let mut world = World::new(vec![
            rule(1, 2, Permit::plain(PermitKind::ICMP)),
            rule(1, 2, ports(PermitKind::UDP, 9)),
        ]);
        assert!(!world.passes(&echo(b, a, false)), "an answer to nothing");
        assert!(world.passes(&echo(a, b, true)) && world.passes(&echo(b, a, false)));
        assert!(!world.passes(&echo(b, a, true)), "it may answer, and not ask");
        let error = |about: &[u8]| {
            let (protocol, kind) = if a.is_ipv4() { (1, 3) } else { (58, 1) };
            header(protocol, b, a, &[&[kind, 4, 0, 0, 0, 0, 0, 0], &about[..about.len().min(48)]].concat())
        };
        let about = udp((a, 5), (b, 9));
        assert!(!world.passes(&error(&about)), "about something that was never sent");
        assert!(world.passes(&about) && world.passes(&error(&about)));
        assert!(!world.passes(&error(&udp((b, 9), (a, 5)))), "about what another has sent");
        assert!(!world.passes(&error(&[])));
    }
}

#[test]
fn fragments_can_not_slip_through() {
    let mut world = World::new(vec![rule(1, 2, ports(PermitKind::UDP, 9))]);
    let fragment = |from: u8, to: u8, offset: u16, more: bool| {
        let mut packet = udp((v4(from), 5), (v4(to), 9));
        let word = offset | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&word.to_be_bytes());
        packet
    };
    assert!(world.passes(&fragment(1, 2, 0, true)) && world.passes(&fragment(1, 2, 150, false)));
    assert!(world.passes(&fragment(2, 1, 150, false)), "of an answer");
    assert!(!world.passes(&fragment(1, 3, 150, false)), "nothing at all is allowed between these");
    assert!(!world.passes(&fragment(1, 2, 1, false)), "it could write over the ports");
    let mut other = fragment(1, 2, 0, true);
    other[23] = 10;
    assert!(!world.passes(&other), "the first one is judged by its port");
    assert!(!world.passes(&header(UDP, v4(1), v4(2), &[0, 5, 0])), "too short for ports");
    // The same in IPv6, behind an extension header.
    let piece = |offset: u16, payload: &[u8]| {
        let rest = [&[UDP, 0, (offset >> 5) as u8, (offset << 3) as u8, 0, 0, 0, 1], payload].concat();
        header(0, v6(1), v6(2), &[&[44, 0, 1, 4, 0, 0, 0, 0][..], &rest].concat())
    };
    assert!(world.passes(&piece(0, &udp_payload(5, 9))) && world.passes(&piece(150, &[0; 8])));
    assert!(!world.passes(&piece(0, &udp_payload(5, 10))) && !world.passes(&piece(1, &[0; 8])));
    let nested = [[0, 0, 1, 4, 0, 0, 0, 0]; 9].concat();
    assert!(!world.passes(&header(0, v6(1), v6(2), &nested)));
}

#[test]
fn multicast_goes_where_the_domain_is_shared() {
    let mut world = World::new(vec![
        rule(2, 1, Permit::range(PermitKind::ROS, 7, 7)),
        rule(1, 3, Permit::plain(PermitKind::ICMP)),
    ]);
    let discovery = |from: u8, domain: u16| {
        udp((v4(from), 5), (Ipv4Addr::new(239, 255, 0, 1).into(), 7400 + 250 * domain))
    };
    let mut out = |from: u8, domain: u16, to: u8| {
        let bytes = discovery(from, domain);
        let packet = IpPacket::parse(&bytes).unwrap();
        world.gate.outbound(&packet, node(to), world.now) == Verdict::Allow
    };
    assert!(out(1, 7, 2) && !out(1, 8, 2) && !out(1, 7, 3) && !out(9, 7, 2));
    let mut from = |from: u8, domain: u16| {
        let bytes = discovery(from, domain);
        let packet = IpPacket::parse(&bytes).unwrap();
        world.gate.inbound(&packet, node(from), world.now) == Verdict::Allow
    };
    assert!(from(2, 7) && !from(2, 8) && !from(3, 7));
    // A group is allowed in the direction of the rule.
    let camera = Ipv4Addr::new(239, 1, 2, 3).into();
    world.set(vec![rule(1, 2, Permit::group(camera, 5000, 5000))]);
    let datagram = |from: u8, port: u16| udp((v4(from), 5), (camera, port));
    let mut is_out = |from: u8, port: u16, to: u8| {
        let bytes = datagram(from, port);
        world.gate.outbound(&IpPacket::parse(&bytes).unwrap(), node(to), world.now) == Verdict::Allow
    };
    assert!(is_out(1, 5000, 2) && !is_out(1, 5001, 2) && !is_out(2, 5000, 1));
}

#[test]
fn whoever_opens_flows_without_end_pushes_out_its_own() {
    let any = Permit::plain(PermitKind::ANY);
    let mut world = World::new(vec![rule(1, 2, any), rule(1, 3, any)]);
    let kept: Vec<u16> = (1..200).collect();
    for port in &kept {
        assert!(world.passes(&udp((v4(1), *port), (v4(2), 9))));
    }
    for port in 1..60_000 {
        assert!(world.passes(&udp((v4(1), port), (v4(3), 9))));
    }
    let alive = kept.iter().filter(|port| world.passes(&udp((v4(2), 9), (v4(1), **port)))).count();
    assert!(alive > 190, "{alive} of {} are left", kept.len());
}

#[test]
fn rules_with_a_period_hold_in_it() {
    let booked = Rule {
        not_before: Some(UnixTime(100)),
        until: Some(UnixTime(200)),
        ..rule(1, 2, Permit::plain(PermitKind::ANY))
    };
    for (time, involved) in [(None, 0), (Some(99), 0), (Some(100), 2), (Some(200), 0)] {
        assert_eq!(built(vec![booked.clone()], time).involved().len(), involved, "{time:?}");
    }
}

#[test]
fn devices_behind_a_member_are_reached_where_a_rule_names_them() {
    let prefix = |text: &str| text.parse::<ria_protocol::prefix::Prefix>().unwrap();
    let mut members: Vec<_> = (1..=3).map(member).collect();
    members[1].1.record.prefixes.extend([prefix("10.66.3.0/24"), prefix("10.213.0.3/32")]);
    let to = |prefixes: &[&str]| Selector {
        prefixes: Some(prefixes.iter().map(|text| prefix(text)).collect()),
        ..Selector::default()
    };
    let rules = |to: Selector, permit: Permit| {
        let rule = Rule { to, permits: vec![permit], ..rule(1, 1, permit) };
        let all = Selector { all: true, ..Selector::default() };
        let pings = Rule {
            from: all.clone(),
            to: all,
            permits: vec![Permit::plain(PermitKind::ICMP)],
            ..rule.clone()
        };
        let policy = NodePolicy { version: 1, rules: Some(vec![rule, pings]) };
        let members = members.iter().map(|(node, member)| (*node, member));
        Rules::build(&policy, members, None).unwrap()
    };
    let lidar = IpAddr::from([10, 66, 3, 7]);
    let (scan, ping) = (Traffic { protocol: UDP, port: Some(2368) }, Traffic { protocol: 1, port: None });
    let whole = rules(to(&["10.66.3.0/24"]), ports(PermitKind::UDP, 2368));
    assert!(
        whole.allow(v4(1), lidar, scan)
            && !whole.allow(v4(3), lidar, scan)
            && !whole.allow(lidar, v4(1), scan)
    );
    assert!(!whole.allow(v4(1), v4(2), scan), "not the member in front of them");
    assert!(whole.allow(v4(1), v4(2), ping) && !whole.allow(v4(1), lidar, ping), "`*` means members");
    assert!(!whole.allow(v4(1), [10, 66, 4, 7].into(), scan) && whole.connect(lidar, v4(1)));
    assert!(whole.involved().contains(&node(2)), "the way leads through it");
    let one = rules(to(&["10.66.3.7/32"]), ports(PermitKind::UDP, 2368));
    assert!(one.allow(v4(1), lidar, scan) && !one.allow(v4(1), [10, 66, 3, 8].into(), scan));
    let wide = rules(to(&["10.66.0.0/16", "10.66.3.7/32"]), ports(PermitKind::UDP, 2368));
    assert!(wide.allow(v4(1), lidar, scan) && wide.allow(v4(1), [10, 66, 3, 8].into(), scan));
    let other = rules(to(&["10.77.0.0/16"]), ports(PermitKind::UDP, 2368));
    assert!(!other.allow(v4(1), lidar, scan) && !other.allow(v4(1), [10, 77, 0, 1].into(), scan));
}

proptest! {
    /// Whatever comes: what passes is what was allowed to begin, or the other direction of it.
    #[test]
    fn only_flows_that_may_begin_pass(packets in proptest::collection::vec((1u8..4, 1u8..4, 1u16..4, 1u16..4, any::<u8>()), 1..60)) {
        let mut world = World::new(vec![rule(1, 2, ports(PermitKind::TCP, 2)), rule(2, 3, ports(PermitKind::TCP, 3))]);
        let mut begun = std::collections::BTreeSet::new();
        for (from, to, source, destination, flags) in packets {
            if from == to { continue }
            let may_begin = [(1, 2, 2), (2, 3, 3)].contains(&(from, to, destination));
            let passes = world.passes(&tcp((v4(from), source), (v4(to), destination), flags));
            if may_begin {
                begun.insert((from, to, source, destination));
            }
            let is_answer = begun.contains(&(to, from, destination, source));
            prop_assert_eq!(passes, may_begin || is_answer);
        }
    }

    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 20..120)) {
        let mut world = World::new(vec![rule(1, 2, Permit::plain(PermitKind::ANY))]);
        if let Some(packet) = IpPacket::parse(&bytes) {
            world.gate.outbound(&packet, node(2), world.now);
            world.gate.inbound(&packet, node(2), world.now);
        }
    }
}
