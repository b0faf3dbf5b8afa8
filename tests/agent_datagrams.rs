//! What the network sees of datagrams: marks of congestion and classes of the packets inside, and sizes that it carries.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::io::{IoSliceMut, Read};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use netlab::{HostSpec, Lab, Nat, NetworkSpec, RouterSpec};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use support::transfer::Transfer;
use support::{COORDINATOR, Robot, Site, Team, eventually, received};

/// The agents' port.
const PORT: u16 = 41_820;

/// Expedited Forwarding (RFC 3246), as its bits stand in TOS.
const EF: u8 = 46 << 2;

const NOT_ECT: u8 = 0;
const ECT0: u8 = 2;
const CE: u8 = 3;

/// Packets with a TOS from one robot to the other.
struct Marked {
    sender: UdpSocket,
    receiver: UdpSocket,
    /// All that arrives at the receiving robot's own interface, of the family that the tunnel takes there.
    wire: Socket,
    family: Family,
}

/// What a packet of the network below looks like.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    /// As interfaces name it (packet(7)).
    fn ether_type(self) -> u16 {
        match self {
            Self::V4 => 0x0800,
            Self::V6 => 0x86dd,
        }
    }

    /// Length of the header, the protocol that follows, and the byte of class and marks.
    fn read(self, packet: &[u8]) -> (usize, u8, u8) {
        match self {
            Self::V4 => (20, packet[9], packet[1]),
            Self::V6 => (40, packet[6], packet[0] << 4 | packet[1] >> 4),
        }
    }
}

impl Marked {
    fn new(from: &Robot, to: &Robot, family: Family) -> Self {
        let target = SocketAddr::new(to.address().parse().unwrap(), 9400);
        let receiver = to.host.enter(|| UdpSocket::bind(target)).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        setsockopt(&receiver, sockopt::IpRecvTos, &true).unwrap();
        let sender = from.host.enter(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap();
        sender.connect(target).unwrap();
        let protocol = Protocol::from(i32::from(family.ether_type().to_be()));
        let wire = to.host.enter(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))).unwrap();
        wire.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self { sender, receiver, wire, family }
    }

    /// Sends a packet; with which TOS it came out of the tunnel, if it did, and that of its datagram.
    fn send(&self, tos: u8) -> (Option<u8>, u8) {
        setsockopt(&self.sender, sockopt::Ipv4Tos, &i32::from(tos)).unwrap();
        self.sender.send(&[7; 500]).unwrap();
        let inner = self.receive();
        (inner, self.outer())
    }

    fn receive(&self) -> Option<u8> {
        let mut buffer = [0; 600];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let mut told = cmsg_space!(u8);
        let fd = self.receiver.as_raw_fd();
        let message = recvmsg::<SockaddrIn>(fd, &mut parts, Some(&mut told), MsgFlags::empty()).ok()?;
        let mut told = message.cmsgs().unwrap();
        told.find_map(|told| if let ControlMessageOwned::Ipv4Tos(tos) = told { Some(tos) } else { None })
    }

    /// The TOS of the datagram that carried it: WireGuard's data of that length.
    fn outer(&self) -> u8 {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            let mut buffer = [0; 2048];
            let Ok(len) = (&self.wire).read(&mut buffer) else { continue };
            let (header, protocol, tos) = self.family.read(&buffer[..len]);
            let packet = &buffer[..len];
            let is_ours = len == header + 8 + 32 + 528 && protocol == 17 && packet[header + 8] == 4;
            if is_ours && u16::from_be_bytes([packet[header + 2], packet[header + 3]]) == PORT {
                return tos;
            }
        }
        panic!("no datagram was seen");
    }
}

#[test]
fn marks_and_classes_cross_the_tunnel_both_ways() {
    let team = Team::new("datagrams-marks", &Site::Together);
    let (a, b) = team.pair();
    eventually("the path is direct", || a.peer("robot-b")["path"] == "direct");
    let marked = Marked::new(&a, &b, Family::V4);
    // Each has to hear from the other that it carries marks over.
    eventually("marks are used", || marked.send(ECT0) == (Some(ECT0), ECT0));
    for tos in [NOT_ECT, EF, EF | ECT0, 1] {
        assert_eq!(marked.send(tos), (Some(tos), tos), "as it was sent, inside and outside");
    }
    // A queue on the way is about to be too long.
    let rules = format!(
        "add table ip full; add chain ip full out {{ type filter hook postrouting priority 0; }}; \
         add rule ip full out udp dport {PORT} udp length 568 ip ecn set ce"
    );
    a.host.run(&["nft", &rules]).unwrap();
    assert_eq!(marked.send(EF | ECT0), (Some(EF | CE), EF | CE), "the mark gets to the packet inside");
    assert_eq!(marked.send(EF), (None, EF | CE), "what can't be marked is dropped");
    assert_eq!(b.status()["drops"]["congested"], 1);
}

/// Two robots behind routers, between which packets of 1300 bytes pass and no larger ones.
fn narrow_between() -> Team {
    let mut lab = Lab::new("datagrams-small").unwrap();
    let mut internet = NetworkSpec::internet("198.51.100.0/24".parse().unwrap());
    internet.mtu = Some(1300);
    lab.add_network("internet", internet).unwrap();
    let coordinator = HostSpec::on("internet").at(COORDINATOR.parse().unwrap());
    lab.add_host("coordinator", coordinator).unwrap();
    for (n, robot) in [(1, "robot-a"), (2, "robot-b")] {
        let lan = format!("lan-{n}");
        lab.add_network(&lan, NetworkSpec::new(format!("192.168.{n}.0/24").parse().unwrap())).unwrap();
        lab.add_router(&format!("nat-{n}"), RouterSpec::new("internet", &lan, Nat::PortPreserving)).unwrap();
        lab.add_host(robot, HostSpec::on(&lan)).unwrap();
    }
    Team::of(lab, &[])
}

#[test]
fn a_path_that_carries_no_full_packets_is_named_and_used_with_fragments() {
    let team = narrow_between();
    let (a, b) = team.pair();
    full_packets_pass(&a, &b);
}

/// Full packets pass both ways over a path that is told to be small, and so does a stream.
fn full_packets_pass(a: &Robot, b: &Robot) {
    for (robot, peer) in [(a, "robot-b"), (b, "robot-a")] {
        eventually("the path is direct", || robot.peer(peer)["path"] == "direct");
        // Full packets of the overlay, which must not be cut inside.
        let full = ["ping", "-n", "-q", "-M", "do", "-s", "1252", "-i", "0.2", "-W", "2", "-c", "5"];
        let address = if peer == "robot-b" { b.address() } else { a.address() };
        let line = [&full[..], &[&address]].concat();
        let passes = || received(&String::from_utf8_lossy(&robot.host.output(&line).unwrap().stdout)) == 5;
        eventually("full packets pass", passes);
        let reason = || robot.peer(peer)["path_reason"].as_str().unwrap_or_default().to_owned();
        eventually("the size is known", || reason().contains("it carries datagrams of 12"));
        assert!(reason().contains("full packets go in fragments"), "{}", reason());
    }
    let transfer = Transfer::start_full(a, b);
    std::thread::sleep(Duration::from_secs(3));
    let done = transfer.finish();
    assert!(done.bytes > 1 << 20 && done.longest_pause < Duration::from_secs(2), "{done:?}");
}

/// Two robots beside each other whom IPv4 leads to the coordinator only.
fn apart_by_ipv4(name: &str, mtu: Option<u16>) -> Team {
    let mut lab = Lab::new(name).unwrap();
    let mut internet = NetworkSpec::internet("198.51.100.0/24".parse().unwrap());
    internet.mtu = mtu;
    lab.add_network("internet", internet.with_ipv6("2001:db8::/64".parse().unwrap())).unwrap();
    lab.add_host("coordinator", HostSpec::on("internet").at(COORDINATOR.parse().unwrap())).unwrap();
    for robot in ["robot-a", "robot-b"] {
        let host = lab.add_host(robot, HostSpec::on("internet")).unwrap();
        let rules = format!(
            "add table ip hole; add chain ip hole out {{ type filter hook output priority 0; }}; \
             add rule ip hole out udp dport {PORT} drop"
        );
        host.run(&["nft", &rules]).unwrap();
    }
    Team::of(lab, &[])
}

fn pair_by_ipv6(team: &Team) -> (Robot, Robot) {
    let (a, b) = team.pair();
    let is_by_ipv6 = |robot: &Robot, peer: &str| {
        let peer = robot.peer(peer);
        peer["path"] == "direct" && peer["endpoint"].as_str().is_some_and(|to| to.starts_with('['))
    };
    eventually("the path is direct", || is_by_ipv6(&a, "robot-b") && is_by_ipv6(&b, "robot-a"));
    (a, b)
}

#[test]
fn what_an_ipv6_link_does_not_carry_whole_goes_in_fragments_too() {
    let team = apart_by_ipv4("datagrams-small-v6", Some(1300));
    let (a, b) = pair_by_ipv6(&team);
    full_packets_pass(&a, &b);
}

#[test]
fn datagrams_of_ipv6_bear_the_same_marks() {
    let team = apart_by_ipv4("datagrams-v6", None);
    let (a, b) = pair_by_ipv6(&team);
    let marked = Marked::new(&a, &b, Family::V6);
    eventually("marks are used", || marked.send(ECT0) == (Some(ECT0), ECT0));
    for tos in [NOT_ECT, EF, EF | ECT0, 1] {
        assert_eq!(marked.send(tos), (Some(tos), tos), "as it was sent, inside and outside");
    }
}

#[test]
fn tcp_that_offers_more_than_the_overlay_carries_is_told_less() {
    let team = Team::new("datagrams-mss", &Site::Together);
    let (a, b) = team.pair();
    // As hosts behind a gateway do, whose own network carries 1500 bytes.
    for robot in [&a, &b] {
        robot.host.run(&["ip", "link", "set", "ria0", "mtu", "1500"]).unwrap();
    }
    let transfer = Transfer::start_full(&a, &b);
    std::thread::sleep(Duration::from_secs(2));
    let done = transfer.finish();
    assert!(done.bytes > 1 << 20, "{done:?}");
    assert!(b.status()["drops"]["too-large"].is_null() && a.status()["drops"]["too-large"].is_null());
}
