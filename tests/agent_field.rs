//! A day in the field: no coordinator, no internet, other addresses, agents just started.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use netlab::{Host, HostSpec, Nat, NetworkSpec};
use support::{Robot, SOON, Site, Team, eventually};

/// Port and group of beacons, and the port of tunnels.
const PORT: u16 = 41821;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 114, 105);
const TUNNELS: u16 = 41820;

/// A robot in another network, as after its start there.
fn carry(team: &mut Team, robot: &mut Robot, network: &str) {
    robot.kill();
    let name = robot.host.name().to_owned();
    team.lab.move_host(&name, network).unwrap();
}

fn meet(robots: [&Robot; 2]) {
    let [a, b] = robots;
    for (robot, peer) in [(a, b.host.name()), (b, a.host.name())] {
        robot.wait_for_link(peer, "up");
        eventually("the path is direct", || robot.peer(peer)["path"] == "direct");
    }
    assert_eq!(a.ping(&b.address(), 3), 3);
    assert_eq!(b.ping(&a.address(), 3), 3);
}

#[test]
fn robots_that_start_on_a_travel_router_without_internet_find_each_other() {
    let mut team = Team::new("agent-field", &Site::Apart(Nat::Symmetric));
    let (mut a, mut b) = team.pair();
    team.kill_coordinator();
    team.lab.add_network("travel", NetworkSpec::new("192.168.8.0/24".parse().unwrap())).unwrap();
    carry(&mut team, &mut a, "travel");
    carry(&mut team, &mut b, "travel");
    a.start(&[]);
    b.start(&[]);
    meet([&a, &b]);
    let place = format!("{}:{TUNNELS}", b.host.address());
    eventually("the address that works beyond this link is preferred", || {
        a.peer("robot-b")["endpoint"] == *place
    });

    // A switch instead of a router: nobody gives addresses, and only those of the link are left. The second robot is
    // switched on later.
    for robot in [&mut a, &mut b] {
        robot.kill();
        robot.host.run(&["ip", "addr", "flush", "dev", "eth0", "scope", "global"]).unwrap();
    }
    a.start(&[]);
    std::thread::sleep(Duration::from_secs(2));
    b.start(&[]);
    meet([&a, &b]);
    let endpoint = a.peer("robot-b")["endpoint"].as_str().unwrap().to_owned();
    assert!(endpoint.starts_with("[fe80:"), "{endpoint}");
}

/// Hears what is for all at a port.
fn listen(host: &Host, port: u16) -> UdpSocket {
    let address = host.address();
    let socket = host.enter(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.join_multicast_v4(&GROUP, &address)?;
        socket.set_broadcast(true)?;
        Ok(socket)
    });
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn drops(robot: &Robot, reason: &str) -> u64 {
    robot.status()["drops"][reason].as_u64().unwrap_or(0)
}

#[test]
fn a_stranger_on_the_network_learns_nothing_and_hinders_nobody() {
    let mut team = Team::new("agent-field-stranger", &Site::Together);
    let (mut a, mut b) = team.pair();
    team.kill_coordinator();
    team.lab.add_network("travel", NetworkSpec::new("192.168.8.0/24".parse().unwrap())).unwrap();
    let stranger = team.lab.add_host("stranger", HostSpec::on("travel")).unwrap();
    let (ears, mouth) = (listen(&stranger, PORT), listen(&stranger, TUNNELS));
    carry(&mut team, &mut a, "travel");
    a.start(&[]);

    // What is heard says nothing to who is no member, and the same thing never comes from two addresses.
    let mut beacon = [0; 100];
    let (length, from) = ears.recv_from(&mut beacon).unwrap();
    let beacon = &beacon[..length];
    assert_eq!(from.ip(), a.host.address());
    carry(&mut team, &mut b, "travel");
    b.start(&[]);
    let everybody = SocketAddr::from(([192, 168, 8, 255], PORT));
    for n in 0..400_u32 {
        // Repeated by somebody else, and invented.
        mouth.send_to(beacon, everybody).unwrap();
        let mut invented = beacon.to_vec();
        invented[30..34].copy_from_slice(&n.to_be_bytes());
        mouth.send_to(&invented, everybody).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    meet([&a, &b]);
    eventually("robot-b has seen through it", || drops(&b, "unauthentic") > 0 && drops(&b, "stranger") > 0);
    // Nobody has answered: no probe went to where the beacon was repeated from.
    mouth.set_nonblocking(true).unwrap();
    let mut heard = [0; 2000];
    while let Ok((length, from)) = mouth.recv_from(&mut heard) {
        let own = from.ip() == stranger.address();
        assert!(own || heard[0] != 0xd1, "{from} sent {length} bytes to a stranger");
    }
    b.kill();
    b.start(&[]);
    meet([&a, &b]);
}
