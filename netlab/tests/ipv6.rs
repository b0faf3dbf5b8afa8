//! Networks with IPv6: addresses, routes, firewalls, and hosts that move between families.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::net::{Ipv6Addr, UdpSocket};

use common::{PATIENCE, eventually, is_silent, never_reaches, never_reaches6, reaches, reaches6};
use netlab::{Description, Host, HostSpec, Lab, Nat, NetworkSpec, RouterSpec};

/// `server` on the internet, which has both families; `robot` in a network with IPv6 only.
fn lab(router: RouterSpec) -> (Lab, Host, Host) {
    let mut lab = Lab::new("six").unwrap();
    let internet = NetworkSpec::internet("198.51.100.0/24".parse().unwrap());
    lab.add_network("internet", internet.with_ipv6("2001:db8::/64".parse().unwrap())).unwrap();
    lab.add_network("campus", NetworkSpec::ipv6_only("2001:db8:1::/64".parse().unwrap())).unwrap();
    lab.add_router("border", router).unwrap();
    let server = lab.add_host("server", HostSpec::on("internet")).unwrap();
    let robot = lab.add_host("robot", HostSpec::on("campus")).unwrap();
    (lab, server, robot)
}

fn routed() -> RouterSpec {
    RouterSpec::new("internet", "campus", Nat::None)
}

fn bind6(host: &Host) -> UdpSocket {
    let address = host.address6().unwrap();
    let socket = host.enter(|| UdpSocket::bind((address, 7000))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn an_ipv6_network_reaches_the_internet_and_is_reached_with_its_own_addresses() {
    let (lab, server, robot) = lab(routed());
    assert_eq!(robot.address6(), Some("2001:db8:1::a".parse::<Ipv6Addr>().unwrap()));
    assert!(robot.address().is_unspecified());
    assert!(reaches6(&robot, server.address6().unwrap()));
    assert!(reaches6(&server, robot.address6().unwrap()), "there is no firewall");
    assert!(never_reaches(&robot, server.address()), "there is no IPv4 here");
    let (here, there) = (bind6(&robot), bind6(&server));
    here.send_to(b"hello", there.local_addr().unwrap()).unwrap();
    let (_, from) = there.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from, here.local_addr().unwrap(), "nobody translates");
    drop(lab);
}

#[test]
fn a_firewall_lets_in_what_was_asked_for() {
    let (lab, server, robot) = lab(routed().with_firewall());
    let (here, there) = (bind6(&robot), bind6(&server));
    assert!(never_reaches6(&server, robot.address6().unwrap()));
    there.send_to(b"uninvited", here.local_addr().unwrap()).unwrap();
    assert!(is_silent(&here));
    assert!(reaches6(&robot, server.address6().unwrap()));
    eventually("the answer is let in", || {
        here.send_to(b"question", there.local_addr().unwrap()).unwrap();
        there.recv_from(&mut [0; 16]).unwrap();
        there.send_to(b"answer", here.local_addr().unwrap()).unwrap();
        !is_silent(&here)
    });
    drop(lab);
}

#[test]
fn a_host_that_moves_has_the_families_and_routes_of_where_it_is() {
    let (mut lab, server, robot) = lab(routed());
    lab.add_network("home", NetworkSpec::new("192.168.1.0/24".parse().unwrap())).unwrap();
    lab.add_router("nat", RouterSpec::new("internet", "home", Nat::PortPreserving)).unwrap();
    let (six, four) = (server.address6().unwrap(), server.address());
    lab.move_host("robot", "home").unwrap();
    assert_eq!(robot.address6(), None);
    assert!(reaches(&robot, four) && never_reaches6(&robot, six));
    lab.move_host("robot", "campus").unwrap();
    assert!(reaches6(&robot, six) && never_reaches(&robot, four));
    lab.move_host("robot", "internet").unwrap();
    assert!(reaches6(&robot, six) && reaches(&robot, four));
}

#[test]
fn what_can_not_be_is_told() {
    let build = |text: &str| Lab::build(&Description::from_toml(text).unwrap()).unwrap_err().to_string();
    let error = build("name = 'x'\n[network.lan]");
    assert!(error.contains("has no addresses"), "{error}");
    let two = "name = 'x'\n[network.up]\nprefix = '10.1.0.0/24'\nprefix6 = '2001:db8::/64'\n\
               [network.down]\nprefix = '10.2.0.0/24'\nprefix6 = '2001:db8:1::/64'\n";
    let error = build(&format!("{two}[router.r]\nuplink = 'up'\ndownlink = 'down'\nnat = 'port-restricted'"));
    assert!(error.contains("knows IPv4 only"), "{error}");
    let error = build(
        "name = 'x'\n[network.lan]\nprefix6 = '2001:db8::/64'\n[host.a]\nnetwork = 'lan'\naddress = '10.1.0.7'",
    );
    assert!(error.contains("has no IPv4"), "{error}");
}
