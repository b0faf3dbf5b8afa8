//! Who reaches whom: isolation, multicast, NAT, firewall.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use common::{bind, campus_like, eventually, is_silent, never_reaches, reaches};
use netlab::{HostSpec, Lab, Nat, NetworkSpec, RouterSpec, topologies};

/// One datagram from `from` to `to`; gives the sender's address as the receiver sees it.
fn seen(from: &UdpSocket, to: &UdpSocket) -> SocketAddr {
    from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 16];
    let (length, source) = to.recv_from(&mut buffer).expect("the datagram arrives");
    assert_eq!(&buffer[..length], b"hello");
    source
}

#[test]
fn isolated_hosts_reach_the_router_and_the_internet_but_not_each_other() {
    let lab = Lab::build(&topologies::same_wifi().unwrap()).unwrap();
    let [a, b, coordinator] = ["robot-a", "robot-b", "coordinator"].map(|name| lab.host(name).unwrap());
    assert!(reaches(&a, "192.168.1.1".parse().unwrap()), "the router");
    assert!(reaches(&a, coordinator.address()), "the internet");
    assert!(reaches(&b, coordinator.address()), "the internet");
    assert!(never_reaches(&a, b.address()), "the other client");
}

#[test]
fn hosts_of_a_plain_network_reach_each_other_and_hear_multicast() {
    let mut lab = Lab::new("plain").unwrap();
    lab.add_network("lan", NetworkSpec::new("10.1.0.0/24".parse().unwrap())).unwrap();
    let [a, b] = ["a", "b"].map(|name| lab.add_host(name, HostSpec::on("lan")).unwrap());
    assert!(reaches(&a, b.address()));
    assert!(hears_multicast(&a, &b), "no multicast");
}

#[test]
fn a_network_that_drops_multicast_still_resolves_addresses() {
    let mut lab = Lab::new("quiet").unwrap();
    let spec = NetworkSpec { drop_multicast: true, ..NetworkSpec::new("10.1.0.0/24".parse().unwrap()) };
    lab.add_network("lan", spec).unwrap();
    let [a, b] = ["a", "b"].map(|name| lab.add_host(name, HostSpec::on("lan")).unwrap());
    assert!(!hears_multicast(&a, &b));
    assert!(reaches(&a, b.address()), "ARP passes");
}

/// Whether a group's datagrams arrive. Several are sent: the first may be early for a link that has just come up.
fn hears_multicast(from: &netlab::Host, to: &netlab::Host) -> bool {
    let group = Ipv4Addr::new(239, 255, 0, 1);
    let listener = bind(to, 7400);
    listener.join_multicast_v4(&group, &to.address()).unwrap();
    let sender = bind(from, 0);
    (0..5).any(|_| {
        sender.send_to(b"hello", (group, 7400)).unwrap();
        !is_silent(&listener)
    })
}

#[test]
fn a_port_preserving_nat_shows_its_own_address_and_the_same_port_to_everybody() {
    let lab = campus_like(Nat::PortPreserving);
    let robot = bind(&lab.host("robot").unwrap(), 41820);
    for server in ["one", "two"] {
        let server = lab.host(server).unwrap();
        assert_eq!(seen(&robot, &bind(&server, 3478)), "198.51.100.99:41820".parse().unwrap());
    }
}

#[test]
fn a_symmetric_nat_shows_another_port_to_each_destination() {
    let lab = campus_like(Nat::Symmetric);
    let robot = bind(&lab.host("robot").unwrap(), 41820);
    let [first, second] = ["one", "two"].map(|name| {
        let server = bind(&lab.host(name).unwrap(), 3478);
        let source = seen(&robot, &server);
        // The mapping works backwards, too, and lasts.
        server.send_to(b"answer", source).unwrap();
        assert!(robot.recv_from(&mut [0; 16]).is_ok());
        assert_eq!(seen(&robot, &server), source);
        source
    });
    assert_eq!(first.ip(), second.ip());
    assert_ne!(first.port(), second.port());
    assert!(first.port() != 41820 || second.port() != 41820);
}

#[test]
fn a_nat_drops_what_no_host_behind_it_asked_for_and_punching_through_works() {
    let lab = campus_like(Nat::PortPreserving);
    let robot = bind(&lab.host("robot").unwrap(), 41820);
    let [one, two] = ["one", "two"].map(|name| bind(&lab.host(name).unwrap(), 3478));
    let outside = "198.51.100.99:41820".parse::<SocketAddr>().unwrap();
    // Uninvited, and it must not spoil the port for the answer that the robot sends later.
    two.send_to(b"early", outside).unwrap();
    assert!(is_silent(&robot));
    assert_eq!(seen(&robot, &one), outside);
    two.send_to(b"uninvited", outside).unwrap();
    assert!(is_silent(&robot), "the mapping to one server lets the other in");
    assert_eq!(seen(&robot, &two), outside, "an uninvited datagram changed the mapping");
    two.send_to(b"answer", outside).unwrap();
    assert!(robot.recv_from(&mut [0; 16]).is_ok());
}

#[test]
fn what_does_not_exist_is_unreachable_at_once_and_a_plain_router_announces_its_network() {
    let mut lab = campus_like(Nat::None);
    let robot = lab.host("robot").unwrap();
    assert!(reaches(&lab.host("one").unwrap(), robot.address()), "routed without translation");
    eventually("the network tells that there is no such address", || {
        let text = robot.output(&["ping", "-n", "-c1", "-W2", "203.0.113.7"]).unwrap();
        String::from_utf8(text.stdout).unwrap().contains("Net Unreachable")
    });
    let error = lab.add_router("again", RouterSpec::new("internet", "wifi", Nat::None)).unwrap_err();
    assert!(error.to_string().contains("has a gateway already"), "{error}");
}

#[test]
fn the_campus_is_what_its_name_says() {
    let lab = Lab::build(&topologies::campus().unwrap()).unwrap();
    let [a, b, laptop, coordinator] =
        ["robot-a", "robot-b", "laptop", "coordinator"].map(|name| lab.host(name).unwrap());
    let server = bind(&coordinator, 3478);
    let mut sources = std::collections::BTreeSet::new();
    for host in [&a, &b, &laptop] {
        assert!(sources.insert(seen(&bind(host, 41820), &server).ip()), "one NAT each");
        assert!(host.name() == a.name() || never_reaches(host, a.address()));
    }
    assert!(is_silent(&server));
}
