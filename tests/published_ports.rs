//! What has to be published of a coordinator: 443/tcp and 3478/udp, and nothing else. And what one robot may take of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use netlab::{Host, HostSpec, Lab, Link, Nat, NetworkSpec, RouterSpec};
use serde_json::Value;
use support::turn_client;
use support::{COORDINATOR, Robot, Site, Team, eventually, received};

/// Lets nothing in but what is published, not even answers to what this machine has begun.
fn close_all_but_two_ports(host: &Host) {
    for line in [
        "add table inet wall",
        "add chain inet wall in { type filter hook input priority 0; policy drop; }",
        "add rule inet wall in iif lo accept",
        "add rule inet wall in tcp dport 443 accept",
        "add rule inet wall in udp dport 3478 accept",
    ] {
        host.run(&["nft", line]).unwrap();
    }
}

/// Ports on which a host listens, beyond its own loopback.
fn listening(host: &Host, protocol: &str) -> BTreeSet<u16> {
    let output = host.output(&["ss", "-Hln", protocol]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let local = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
    let outside = |address: &String| !address.starts_with("127.") && !address.starts_with("[::1]");
    let port = |address: String| address.rsplit_once(':')?.1.parse().ok();
    text.lines().filter_map(local).filter(outside).filter_map(port).collect()
}

fn path(robot: &Robot, peer: &str) -> String {
    robot.peer(peer)["path"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn everything_works_from_outside_with_two_ports_open() {
    let mut team = Team::new("two-ports", &Site::Apart(Nat::Symmetric));
    let server = team.host("coordinator");
    assert_eq!(listening(&server, "-t"), [443].into(), "TCP");
    let udp = listening(&server, "-u");
    // One more, that only answers, for those who ask how their NAT behaves.
    assert!(udp.contains(&3478) && udp.len() == 2, "UDP: {udp:?}");
    close_all_but_two_ports(&server);

    let (a, b) = team.pair();
    assert_eq!((path(&a, "robot-b"), path(&b, "robot-a")), ("relay_udp".to_owned(), "relay_udp".to_owned()));
    assert_eq!(a.ping(&b.address(), 10), 10);
    let candidates = a.status()["candidates"].to_string();
    assert!(candidates.contains("reflexive"), "STUN: {candidates}");
    let page = |path: &str| {
        turn_client::run(&a.host, &["curl", "-skL", "-m", "10", &format!("https://{COORDINATOR}{path}")])
    };
    assert!(page("/").out.contains("Ria coordinator") && page("/healthz").out.contains("ok"));
    let mapped = turn_client::run(&a.host, &["turnutils_stunclient", "-p", "3478", COORDINATOR]);
    assert!(mapped.out.contains("UDP reflexive addr: 198.51.100."), "{mapped:?}");
    let measured = a.ria(&["netcheck"]);
    assert!(measured.out.contains("address-and-port-dependent"), "{measured:?}");

    // A change of the map.
    assert_eq!(team.admin(&["node", "rename", "robot-b", "robot-x"]).code, 0);
    a.wait_for_link("robot-x", "up");

    for robot in ["robot-a", "robot-b"] {
        let mut link = Link::default();
        link.set_all(&["udp=blocked"]).unwrap();
        team.lab.set_link(robot, link).unwrap();
    }
    eventually("the relay is used over TLS", || {
        path(&a, "robot-x") == "relay_tls" && path(&b, "robot-a") == "relay_tls"
    });
    assert_eq!(a.ping(&b.address(), 10), 10);
}

/// Bytes per second that a node may have relayed.
const RATE: u32 = 100_000;

#[test]
fn a_robot_that_floods_is_held_to_its_bound_and_the_others_notice_nothing() {
    let mut lab = Lab::new("node-rate").unwrap();
    lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse().unwrap())).unwrap();
    lab.add_host("coordinator", HostSpec::on("internet").at(COORDINATOR.parse().unwrap())).unwrap();
    lab.add_network("wifi", NetworkSpec::campus_wifi("192.168.2.0/24".parse().unwrap())).unwrap();
    lab.add_router("nat", RouterSpec::new("internet", "wifi", Nat::Symmetric)).unwrap();
    let names = ["robot-a", "robot-b", "robot-c", "robot-d"];
    names.iter().for_each(|name| _ = lab.add_host(name, HostSpec::on("wifi")).unwrap());
    let team = Team::of(lab, &[("RIA_RELAY_NODE_BYTES_PER_SECOND", "100000")]);
    let key = team.key(&["--reusable"]);
    let [a, b, c, d] = names.map(|name| team.robot(name, &[]));
    for robot in [&a, &b, &c, &d] {
        let joined = robot.join(&key);
        assert_eq!(joined.code, 0, "{joined:?}");
    }
    a.wait_for_link("robot-b", "up");
    c.wait_for_link("robot-d", "up");
    assert_eq!((path(&a, "robot-b"), path(&c, "robot-d")), ("relay_udp".to_owned(), "relay_udp".to_owned()));

    let (to_b, to_d) = (b.address(), d.address());
    let begun = Instant::now();
    let flood = ["ping", "-n", "-q", "-i", "0.002", "-s", "1200", "-c", "2000", "-W", "1", &to_b];
    let (flooded, others) = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let output = a.host.output(&flood).unwrap();
            (received(&String::from_utf8_lossy(&output.stdout)), begun.elapsed())
        });
        std::thread::sleep(Duration::from_millis(500));
        let others = c.ping(&to_d, 20);
        (flooding.join().unwrap(), others)
    });
    let (answered, took) = flooded;
    // As much as may be relayed in that time, with the burst that a silent node has.
    let most = (f64::from(RATE) * took.as_secs_f64() + 65_536.0 * 2.0) / 1200.0;
    assert!(answered > 20 && f64::from(answered) <= most, "{answered} of 2000 in {took:?}");
    assert!(answered < 1500, "{answered} of 2000 in {took:?}: nothing was held back");
    assert_eq!(others, 20, "the others are not touched");
    let listed = team.admin(&["relay", "list", "--json"]);
    let relays: Value = serde_json::from_str(&listed.out).unwrap();
    let dropped = relays[0]["load"]["drops"]["node-rate"].as_u64().unwrap_or(0);
    assert!(dropped > 200, "{relays}");
    let text = team.admin(&["relay", "list"]).out;
    assert!(text.contains("node-rate"), "{text}");
    // Afterwards it is served as everybody.
    eventually("its bound is free again", || a.ping(&to_b, 5) == 5);
}
