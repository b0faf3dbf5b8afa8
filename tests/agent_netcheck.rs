//! `ria netcheck` tells of the network below what is so: NATs of all kinds, isolated clients, blocked UDP, a portal.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use netlab::nat::{Behaviour, Hairpin};
use netlab::{HostSpec, Lab, Link, Nat, NetworkSpec, RouterSpec, Udp};
use serde_json::Value;
use support::{COORDINATOR, Robot, Team, eventually};

/// The internet with a coordinator.
fn internet(name: &str) -> Lab {
    let mut lab = Lab::new(name).unwrap();
    lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse().unwrap())).unwrap();
    lab.add_host("coordinator", HostSpec::on("internet").at(COORDINATOR.parse().unwrap())).unwrap();
    lab
}

/// A network behind a NAT with hosts on it.
fn behind(lab: &mut Lab, number: usize, nat: Nat, spec: fn(ipnet::Ipv4Net) -> NetworkSpec, hosts: &[&str]) {
    let (lan, prefix) = (format!("lan-{number}"), format!("192.168.{number}.0/24"));
    lab.add_network(&lan, spec(prefix.parse().unwrap())).unwrap();
    lab.add_router(&format!("nat-{number}"), RouterSpec::new("internet", &lan, nat)).unwrap();
    for host in hosts {
        lab.add_host(host, HostSpec::on(&lan)).unwrap();
    }
}

fn joined(team: &Team, names: &[&str]) -> Vec<Robot> {
    let key = team.key(&["--reusable"]);
    let robots = names.iter().map(|name| {
        let robot = team.robot(name, &[]);
        let ended = robot.join(&key);
        assert_eq!(ended.code, 0, "{ended:?}");
        robot
    });
    robots.collect()
}

fn netcheck(robot: &Robot) -> Value {
    let ended = robot.ria(&["netcheck", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"))
}

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

#[test]
fn nats_are_told_apart_in_the_words_of_rfc_5780() {
    let kinds = [
        ("full-cone", Nat::ENDPOINT_INDEPENDENT, ["endpoint_independent", "endpoint_independent"]),
        ("restricted", Nat::PORT_RESTRICTED, ["endpoint_independent", "address_and_port_dependent"]),
        ("by-address", Nat::ADDRESS_DEPENDENT, ["address_dependent", "address_dependent"]),
        ("symmetric", Nat::ADDRESS_AND_PORT_DEPENDENT, ["address_and_port_dependent"; 2]),
        ("kernels", Nat::Symmetric, ["address_and_port_dependent"; 2]),
    ];
    let mut lab = internet("netcheck-nats");
    for (number, (name, nat, _)) in kinds.iter().enumerate() {
        behind(&mut lab, number + 1, *nat, NetworkSpec::new, &[name]);
    }
    lab.add_host("open", HostSpec::on("internet")).unwrap();
    // A relay at two addresses can tell everything.
    let host = lab.host("coordinator").unwrap();
    host.run(&["ip", "addr", "add", "198.51.100.3/24", "dev", "eth0"]).unwrap();
    let listen = format!("{COORDINATOR}:3478,198.51.100.3:3478");
    let team = Team::of(lab, &[("RIA_RELAY_LISTEN", listen.leak())]);
    let names: Vec<&str> = kinds.iter().map(|(name, ..)| *name).chain(["open"]).collect();
    let robots = joined(&team, &names);
    let reports: Vec<Value> = thread::scope(|scope| {
        let running: Vec<_> = robots.iter().map(|robot| scope.spawn(|| netcheck(robot))).collect();
        running.into_iter().map(|report| report.join().unwrap()).collect()
    });
    for ((name, _, [mapping, filtering]), report) in kinds.iter().zip(&reports) {
        assert_eq!(
            (&report["mapping"], &report["filtering"]),
            (&(*mapping).into(), &(*filtering).into()),
            "{name}"
        );
        assert_eq!(
            (&report["udp"], &report["ipv4"], &report["ipv6"]),
            (&"yes".into(), &"yes".into(), &"no".into())
        );
        assert_eq!(report["coordinator_tcp"], "yes");
        assert!(report["public_ipv4"].as_str().unwrap().starts_with("198.51.100."), "{report}");
        assert_eq!(report["relays"][0]["name"], "coordinator");
        assert!(report["relays"][0]["rtt"].as_f64().unwrap() > 0.0, "{report}");
        assert_eq!(report["mtu"], 1500, "{name}");
        // Where the mapping depends on the other end, one end does not know where the other is.
        let hairpin = if *mapping == "endpoint_independent" { "yes" } else { "no" };
        assert_eq!(report["hairpin"], hairpin, "{name}");
        assert_eq!(codes(report).contains(&"symmetric-nat"), *mapping != "endpoint_independent", "{name}");
    }
    let open = reports.last().unwrap();
    assert_eq!(
        (&open["mapping"], &open["filtering"]),
        (&"none".into(), &"endpoint_independent".into()),
        "{open}"
    );
    // What was measured last is part of the status.
    let status = robots[0].status();
    assert_eq!(status["report"]["mapping"], "endpoint_independent", "{status}");
    let words = robots[3].ria(&["netcheck"]).out;
    assert!(
        words
            .lines()
            .any(|line| line.contains("NAT mapping") && line.ends_with("address-and-port-dependent")),
        "{words}"
    );
}

#[test]
fn what_stands_in_the_way_is_named() {
    let mut lab = internet("netcheck-trouble");
    let no_hairpin = Nat::Emulated(Behaviour { hairpin: Hairpin::Off, ..Behaviour::PORT_RESTRICTED });
    behind(&mut lab, 1, no_hairpin, NetworkSpec::campus_wifi, &["robot-a", "robot-b"]);
    behind(&mut lab, 2, Nat::PORT_RESTRICTED, NetworkSpec::new, &["robot-c", "robot-d"]);
    behind(&mut lab, 3, Nat::PORT_RESTRICTED, NetworkSpec::new, &["walled", "portal"]);
    let walled = Link { udp: Udp::Blocked { except: Vec::new() }, ..Link::default() };
    lab.set_link("walled", walled).unwrap();
    let team = Team::of(lab, &[]);
    let robots = joined(&team, &["robot-a", "robot-b", "robot-c", "robot-d", "walled", "portal"]);
    let [a, b, c, d, walled, portal] = &robots[..] else { panic!("six") };
    for peer in [b, c, d] {
        a.wait_for_link(peer.host.name(), "up");
    }
    b.wait_for_link("robot-a", "up");
    c.wait_for_link("robot-d", "up");
    eventually("those in one plain network talk directly", || c.peer("robot-d")["path"] == "direct");
    close_in(portal);

    let [isolated, plain, blocked, captive] = thread::scope(|scope| {
        [a, c, walled, portal]
            .map(|robot| scope.spawn(|| netcheck(robot)))
            .map(|report| report.join().unwrap())
    });
    // One server with one address, which no more than one port is published of.
    assert_eq!(
        (&isolated["mapping"], &isolated["filtering"]),
        (&"port_independent".into(), &"address_and_port_dependent".into())
    );
    assert_eq!(
        (&isolated["client_isolation"], &isolated["isolated_peers"]),
        (&"yes".into(), &serde_json::json!(["robot-b"]))
    );
    assert_eq!(codes(&isolated), ["client-isolation"]);
    assert!(isolated["verdict"].as_str().unwrap().contains("isolates its clients"), "{isolated}");
    assert!(a.conditions().contains(&"client-isolation".to_owned()), "{:?}", a.conditions());
    assert_eq!((&plain["client_isolation"], codes(&plain)), (&"unknown".into(), vec![]), "{plain}");

    assert_eq!((&blocked["udp"], &blocked["coordinator_tcp"]), (&"no".into(), &"yes".into()), "{blocked}");
    assert_eq!(codes(&blocked), ["udp-blocked"]);
    assert_eq!(
        (&captive["captive_portal"], &captive["coordinator_tcp"]),
        (&"yes".into(), &"no".into()),
        "{captive}"
    );
    assert_eq!(codes(&captive)[0], "captive-portal", "{captive}");
    assert!(captive["verdict"].as_str().unwrap().contains("browser"));
}

/// Everything by TCP ends at a portal that wants a login, as in a hotel.
fn close_in(robot: &Robot) {
    let listener = robot.host.enter(|| TcpListener::bind("0.0.0.0:8080")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 2048]);
                let _ = stream.write_all(
                    b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n",
                );
            });
        }
    });
    let rules = format!(
        "table ip hotel {{ chain out {{ type nat hook output priority -100; \
         ip daddr {COORDINATOR} tcp dport {{ 80, 443 }} redirect to :8080; }}; }}\n"
    );
    std::fs::write(robot.host.path("/run/hotel.nft"), rules).unwrap();
    robot.host.run(&["nft", "-f", "/run/hotel.nft"]).unwrap();
}
