//! Which addresses robots give as their own, and that their networks on board stay their own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use netlab::{Host, Nat};
use nix::sys::signal::Signal;
use support::{Robot, Site, Team, eventually};

const CONFIG: &str = "/run/agent.toml";

/// A network on board: eth1 of the robot, and a device on it that counts what comes to the tunnel's port.
fn put_on_board(host: &Host, robot: &str, device: &str) {
    let script = format!(
        "unshare -n sleep 600 </dev/null >/dev/null 2>&1 & pid=$!\n\
         sleep 0.3; ip link add eth1 type veth peer name eth0 netns $pid\n\
         ip addr add {robot}/24 dev eth1; ip link set eth1 up\n\
         inside() {{ nsenter -t $pid -n \"$@\"; }}\n\
         inside ip addr add {device}/24 dev eth0; inside ip link set eth0 up\n\
         inside nft 'table inet count {{ chain in {{ type filter hook input priority 0; \
         udp dport 41820 counter; }}; }}'\n\
         echo $pid >/run/device\n"
    );
    host.run(&["sh", "-ec", &script]).unwrap();
}

/// Datagrams that the device has got.
fn bothered(host: &Host) -> u32 {
    let shown =
        host.run(&["sh", "-ec", "nsenter -t $(cat /run/device) -n nft list table inet count"]).unwrap();
    let count = shown.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{shown}"))
}

fn candidates(robot: &Robot) -> String {
    robot.status()["candidates"].to_string()
}

#[test]
fn equal_networks_on_board_are_never_mistaken_and_marked_ones_never_entered() {
    let team = Team::new("on-board", &Site::Apart(Nat::PORT_RESTRICTED));
    let (host_a, host_b) = (team.host("robot-a"), team.host("robot-b"));
    // What is the robot here is a device there.
    put_on_board(&host_a, "192.168.50.1", "192.168.50.10");
    put_on_board(&host_b, "192.168.50.10", "192.168.50.1");
    let (mut a, mut b) = team.pair();
    assert!(candidates(&a).contains("host 192.168.50.1:41820"), "nobody has said that it is on board");
    for (robot, peer) in [(&a, "robot-b"), (&b, "robot-a")] {
        eventually("the path is direct", || robot.peer(peer)["path"] == "direct");
        let endpoint = robot.peer(peer)["endpoint"].as_str().unwrap().to_owned();
        assert!(endpoint.starts_with("198.51.100."), "over the real uplink: {endpoint}");
    }
    assert_eq!(a.ping(&b.address(), 20), 20);
    for host in [&host_a, &host_b] {
        let count = bothered(host);
        assert!(count < 60, "{count} datagrams to a device that is no peer");
    }

    for (robot, host) in [(&mut a, &host_a), (&mut b, &host_b)] {
        std::fs::write(host.path(CONFIG), "[paths]\nexclude_interfaces = ['eth1']\n").unwrap();
        robot.stop(Signal::SIGTERM);
    }
    let before = [bothered(&host_a), bothered(&host_b)];
    a.start(&["--config", CONFIG]);
    b.start(&["--config", CONFIG]);
    for (robot, peer) in [(&a, "robot-b"), (&b, "robot-a")] {
        eventually("the path is direct", || robot.peer(peer)["path"] == "direct");
        assert!(!candidates(robot).contains("192.168.50."), "{}", candidates(robot));
    }
    assert_eq!(a.ping(&b.address(), 20), 20);
    assert_eq!([bothered(&host_a), bothered(&host_b)], before, "nothing enters a marked network");
}

#[test]
fn tunnels_containers_and_addresses_that_go_are_no_candidates() {
    let team = Team::new("candidates", &Site::Together);
    let host = team.host("robot-a");
    let script =
        "ip tuntap add dev office0 mode tun; ip addr add 172.31.0.1/24 dev office0; ip link set office0 up
ip link add pods type bridge; ip addr add 172.30.0.1/24 dev pods; ip link set pods up
ip link add pod1 type veth peer name pod2; ip link set pod1 master pods up
ip link add eth1 type veth peer name cable1; ip link set eth1 up; ip link set cable1 up
ip addr add 10.9.8.7/24 dev eth1
ip addr add fd77::7/64 dev eth0 nodad; ip addr add 2001:db8:7::7/64 dev eth0 nodad
ip addr add fd77::8/64 dev eth0 nodad preferred_lft 0";
    host.run(&["sh", "-ec", script]).unwrap();
    let a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    let wanted =
        [&format!("{}:41820", host.address()), "10.9.8.7:41820", "[fd77::7]:41820", "[2001:db8:7::7]:41820"];
    for wanted in wanted {
        eventually(&format!("{wanted} is a candidate"), || candidates(&a).contains(wanted));
    }
    let found = candidates(&a);
    for other in ["172.31.0.1", "172.30.0.1", "fd77::8", "10.213."] {
        assert!(!found.contains(other), "{other} in {found}");
    }
    // One that goes later is taken back.
    host.run(&["sh", "-ec", "ip addr change fd77::7/64 dev eth0 preferred_lft 0"]).unwrap();
    eventually("it is no candidate any more", || !candidates(&a).contains("fd77::7"));
}

/// A cable between two robots, `eth1` at either end, with addresses of both families.
fn join_by_cable(a: &Host, b: &Host) {
    // From outside, where the processes of both have numbers.
    let (from, to) = (a.init().to_string(), b.init().to_string());
    let cable = [
        "-t", &from, "-n", "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", &to,
    ];
    assert!(std::process::Command::new("nsenter").args(cable).status().unwrap().success());
    for (host, number) in [(a, 1), (b, 2)] {
        let script = format!(
            "ip addr add 10.77.0.{number}/24 dev eth1; ip addr add fd77::{number}/64 dev eth1 nodad; ip link set eth1 up"
        );
        host.run(&["sh", "-ec", &script]).unwrap();
    }
}

/// Frames on the cable are swallowed, and its carrier stays.
fn kill_cable(host: &Host, dead: bool) {
    let rules = "table netdev cable { chain in { type filter hook ingress device eth1 priority 0; drop; }; }";
    let line = if dead { vec!["nft", rules] } else { vec!["nft", "delete table netdev cable"] };
    host.run(&line).unwrap();
}

#[test]
fn of_two_interfaces_with_both_families_the_one_that_works_is_used_whichever_dies() {
    let team = Team::new("two-ways", &Site::Apart(Nat::PortPreserving));
    let hosts = [team.host("robot-a"), team.host("robot-b")];
    join_by_cable(&hosts[0], &hosts[1]);
    hosts.iter().for_each(|host| kill_cable(host, true));
    let (a, b) = team.pair();
    let pair = [(&a, "robot-b"), (&b, "robot-a")];
    let direct_by = |prefix: &[&str]| {
        pair.iter().all(|(robot, peer)| {
            let peer = robot.peer(peer);
            let endpoint = peer["endpoint"].as_str().unwrap_or_default().to_owned();
            peer["path"] == "direct" && prefix.iter().any(|prefix| endpoint.starts_with(prefix))
        })
    };
    for candidate in ["10.77.0.1:41820", "[fd77::1]:41820"] {
        assert!(candidates(&a).contains(candidate), "{}", candidates(&a));
    }
    eventually("the way through both NATs is found, though the cable is dead", || {
        direct_by(&["198.51.100."])
    });
    assert_eq!(a.ping(&b.address(), 5), 5);

    // The cable works now, and the Wi-Fi of one does not any more: nothing tells of either but packets.
    hosts.iter().for_each(|host| kill_cable(host, false));
    let wifi = "table netdev wifi { chain in { type filter hook ingress device eth0 priority 0; drop; }; }";
    hosts[0].run(&["nft", wifi]).unwrap();
    let cable = ["10.77.0.", "[fd77::"];
    let address = b.address();
    eventually("the cable is used", || a.ping(&address, 2) > 0 && direct_by(&cable));
    assert_eq!(b.ping(&a.address(), 5), 5);

    hosts[0].run(&["nft", "delete table netdev wifi"]).unwrap();
    hosts.iter().for_each(|host| kill_cable(host, true));
    eventually("back through the NATs", || a.ping(&address, 2) > 0 && direct_by(&["198.51.100."]));
}
