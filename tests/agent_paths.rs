//! Two robots and their coordinator: they find each other, and stay together through what happens to them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::thread;
use std::time::Duration;

use netlab::Nat;
use nix::sys::signal::Signal;
use support::{Robot, Site, Team, eventually, received};

#[test]
fn robots_behind_symmetric_nats_talk_over_the_relay() {
    let team = Team::new("agent-relay", &Site::Apart(Nat::Symmetric));
    let (a, b) = team.pair();
    let peer = a.peer("robot-b");
    assert_eq!(peer["path"], "relay_udp", "{peer}");
    assert_eq!(peer["relay"], "coordinator", "{peer}");
    assert_eq!(a.ping(&b.address(), 10), 10);
    let ping = a.ria(&["ping", "robot-b", "-c", "2"]);
    assert_eq!(ping.code, 0, "{ping:?}");
}

#[test]
fn robots_on_one_network_talk_directly() {
    let team = Team::new("agent-lan", &Site::Together);
    let (a, b) = team.pair();
    eventually("the path is direct", || a.peer("robot-b")["path"] == "direct");
    let endpoint = a.peer("robot-b")["endpoint"].as_str().unwrap().to_owned();
    assert_eq!(endpoint, format!("{}:41820", b.host.address()));
    // 1252 bytes of ICMP payload fill the MTU of 1280, and nothing is fragmented on the way.
    let line = ["ping", "-n", "-q", "-M", "do", "-s", "1252", "-i", "0.1", "-c", "5", &b.address()];
    let output = a.host.output(&line).unwrap();
    assert_eq!(received(&String::from_utf8_lossy(&output.stdout)), 5);
    // IPv6 of the overlay works too.
    let v6 = b.status()["addresses"][1].as_str().unwrap().split('/').next().unwrap().to_owned();
    assert_eq!(a.ping(&v6, 5), 5);
}

#[test]
fn the_interface_is_made_for_ros() {
    let team = Team::new("agent-iface", &Site::Together);
    let (a, _b) = team.pair();
    let shown = String::from_utf8(a.host.output(&["ip", "addr", "show", "ria0"]).unwrap().stdout).unwrap();
    for wanted in ["MULTICAST", "UP", "mtu 1280", "qlen 10000", "inet 10.213.0.", "/16", "inet6 fd"] {
        assert!(shown.contains(wanted), "{wanted} is missing in {shown}");
    }
    let routes = String::from_utf8(a.host.output(&["ip", "route"]).unwrap().stdout).unwrap();
    assert!(routes.contains("10.213.0.0/16 dev ria0"), "{routes}");
}

#[test]
fn a_dead_coordinator_costs_no_packet_and_is_found_again() {
    let mut team = Team::new("agent-coord", &Site::Apart(Nat::PortPreserving));
    let (mut a, b) = team.pair();
    eventually("the path is direct", || a.peer("robot-b")["path"] == "direct");
    let address = b.address();
    thread::scope(|scope| {
        let pinging = scope.spawn(|| a.ping(&address, 30));
        thread::sleep(Duration::from_millis(700));
        team.kill_coordinator();
        assert_eq!(pinging.join().unwrap(), 30);
    });
    eventually("the loss is noticed", || a.status()["coordinator_state"] == "unreachable");
    // A start with the coordinator away, after a kill: all that is needed is on the disk.
    a.kill();
    a.start(&[]);
    a.wait_for_link("robot-b", "up");
    assert_eq!(a.ping(&address, 10), 10);
    assert!(a.conditions().contains(&"coordinator-unreachable".to_owned()));
    team.start_coordinator();
    for robot in [&a, &b] {
        eventually("both are back at the coordinator", || robot.status()["coordinator_state"] == "connected");
    }
    assert!(!a.conditions().contains(&"coordinator-unreachable".to_owned()));
}

#[test]
fn a_robot_that_moves_to_another_network_keeps_its_peers() {
    let mut team = Team::new("agent-move", &Site::Apart(Nat::PortPreserving));
    let (a, b) = team.pair();
    team.lab.move_host("robot-a", "internet").unwrap();
    let address = b.address();
    eventually("packets flow from the new network", || a.ping(&address, 3) == 3);
    eventually("the coordinator is connected", || a.status()["coordinator_state"] == "connected");
    let place = format!("host {}:41820", a.host.address());
    eventually("the new address is reported", || {
        let status = a.status();
        status["candidates"].as_array().is_some_and(|list| list.iter().any(|c| *c == *place))
    });
}

#[test]
fn a_stop_is_quick_and_the_interface_waits_for_the_next_run() {
    let team = Team::new("agent-stop", &Site::Together);
    let (mut a, mut b) = team.pair();
    let index = |robot: &Robot| robot.host.output(&["cat", "/sys/class/net/ria0/ifindex"]).unwrap().stdout;
    let (before, since) = (index(&a), a.status()["interface_up_since"].clone());
    // However it ends, what is bound to the interface by its number stays bound; a packet to a peer has nowhere to go.
    for is_told in [true, false] {
        if is_told {
            let took = a.stop(Signal::SIGTERM);
            // Far below the 90 s after which systemd would kill it, far above what a busy machine makes of an instant.
            assert!(took < Duration::from_secs(10), "{took:?}");
        } else {
            a.kill();
        }
        assert_eq!((index(&a), a.ria(&["status"]).code), (before.clone(), 3));
        let routes = a.host.output(&["ip", "route", "get", &b.address()]).unwrap().stdout;
        assert!(String::from_utf8_lossy(&routes).contains("dev ria0"), "packets would leave in the clear");
        a.start(&[]);
        a.wait_for_link("robot-b", "up");
        assert_eq!((index(&a), &a.status()["interface_up_since"]), (before.clone(), &since));
        eventually("packets flow", || a.ping(&b.address(), 3) == 3);
    }
    // Somebody who has no right to the overlay must not have it while no agent does.
    a.stop(Signal::SIGTERM);
    let open = "import fcntl, os, struct\n\
                tun = os.open('/dev/net/tun', os.O_RDWR)\n\
                os.setresuid(65534, 65534, 65534)\n\
                fcntl.ioctl(tun, 0x400454CA, struct.pack('16sH22x', b'ria0', 0x1001))";
    let nobody = a.host.output(&["python3", "-c", open]).unwrap();
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("Operation not permitted"), "{nobody:?}");
    a.start(&[]);
    // Switched off is off. And a person who ends it by Ctrl-C wants it gone.
    assert_eq!(a.ria(&["down"]).code, 0);
    assert!(!a.has_interface("ria0"));
    let took = b.stop(Signal::SIGINT);
    assert!(took < Duration::from_secs(10) && !b.has_interface("ria0"), "{took:?}");
}

#[test]
fn interfaces_that_are_wanted_no_more_go_with_the_next_start() {
    let team = Team::new("agent-left", &Site::Together);
    let (mut a, _b) = team.pair();
    a.kill();
    assert!(a.has_interface("ria0"));
    // As if the machine had been set up anew by hand: nobody knows the network any more.
    std::fs::remove_dir_all(a.host.path("/var/lib/ria/networks")).unwrap();
    a.start(&[]);
    eventually("what is left is gone", || !a.has_interface("ria0"));
    assert_eq!(a.join(&team.key(&[])).code, 0);
    assert_eq!(a.status()["interface"], "ria0");
}
