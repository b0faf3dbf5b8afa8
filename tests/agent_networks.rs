//! Several networks on one agent: each with everything of its own, and none disturbed by the others.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::thread;

use netlab::{HostSpec, Nat};
use serde_json::Value;
use support::{Robot, Site, Team, eventually};

/// All networks in `ria status`, by name.
fn network(robot: &Robot, name: &str) -> Value {
    let ended = robot.ria(&["status", "--json", "--network", name]);
    let value: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    value["networks"][0].clone()
}

fn address(robot: &Robot, name: &str) -> String {
    let status = network(robot, name);
    let address = status["addresses"][0].as_str().unwrap_or_else(|| panic!("{status}")).to_owned();
    address.split('/').next().unwrap().to_owned()
}

fn peer(robot: &Robot, name: &str, peer: &str) -> Value {
    let ended = robot.ria(&["peers", "--json", "--network", name]);
    let value: Value = serde_json::from_str(&ended.out).unwrap_or(Value::Null);
    let peers = value["peers"].as_array().cloned().unwrap_or_default();
    peers.into_iter().find(|p| p["name"] == peer).unwrap_or(Value::Null)
}

fn wait_for_relayed(robot: &Robot, name: &str, other: &str) {
    eventually(&format!("{name} is relayed to {other}"), || {
        let peer = peer(robot, name, other);
        peer["link_state"] == "up" && peer["path"] == "relay_udp"
    });
}

#[test]
fn two_networks_of_one_coordinator_are_both_relayed_at_once() {
    let team = Team::new("networks-two", &Site::Apart(Nat::Symmetric));
    let (mut a, b) = team.pair();
    let made = team.admin(&["network", "create", "field", "--prefix", "10.220.0.0/16"]);
    assert_eq!(made.code, 0, "{made:?}");
    // Joining the second does not cost the first a packet.
    let key = team.key(&["--reusable", "--network", "field"]);
    let lab_b = address(&b, "lab");
    thread::scope(|scope| {
        let pinging = scope.spawn(|| a.ping(&lab_b, 40));
        for robot in [&a, &b] {
            let joined = robot.join(&key);
            assert_eq!(joined.code, 0, "{joined:?}");
        }
        assert_eq!(pinging.join().unwrap(), 40);
    });
    for (own, other) in [(&a, "robot-b"), (&b, "robot-a")] {
        for name in ["lab", "field"] {
            wait_for_relayed(own, name, other);
            let status = network(own, name);
            assert_eq!(status["relay"], "coordinator", "{status}");
            assert_eq!(status["conditions"], Value::Array(vec![]), "{status}");
        }
    }
    let (lab, field) = (network(&a, "lab"), network(&a, "field"));
    for (what, first, second) in
        [("interface", "ria0", "ria1"), ("state", "up", "up"), ("network", "lab", "field")]
    {
        assert_eq!((&lab[what], &field[what]), (&first.into(), &second.into()), "{what}");
    }
    for own in ["public_key", "node_id", "addresses"] {
        assert_ne!(lab[own], field[own], "{own} is shared");
    }
    let field_b = address(&b, "field");
    assert_eq!((a.ping(&lab_b, 5), a.ping(&field_b, 5)), (5, 5));

    verbs_ask_which_network_is_meant(&a);

    // Everything is as before after a kill, each interface under its own name.
    a.kill();
    a.start(&[]);
    for name in ["lab", "field"] {
        wait_for_relayed(&a, name, "robot-b");
    }
    assert_eq!(network(&a, "lab")["interface"], "ria0");
    assert_eq!(network(&a, "field")["interface"], "ria1");
    assert_eq!((a.ping(&lab_b, 5), a.ping(&field_b, 5)), (5, 5));

    leaving_one_leaves_the_other(&a, &b, &field_b);
}

fn verbs_ask_which_network_is_meant(a: &Robot) {
    for line in [
        &["ping", "robot-b", "-c", "1"][..],
        &["down"],
        &["up"],
        &["leave", "--yes"],
        &["wait", "--timeout", "1"],
    ] {
        let ended = a.ria(line);
        assert_eq!(ended.code, 2, "{line:?}: {ended:?}");
        assert!(ended.err.contains("--network") && ended.err.contains("field") && ended.err.contains("lab"));
    }
    let ping = a.ria(&["ping", "robot-b", "-c", "1", "--network", "field"]);
    assert_eq!(ping.code, 0, "{ping:?}");
    let status = a.ria(&["status"]);
    assert!(status.code == 0 && status.out.contains("lab works") && status.out.contains("field works"));
    let peers = a.ria(&["peers"]);
    assert!(peers.code == 0 && peers.out.contains("lab on ria0") && peers.out.contains("field on ria1"));
    // ROS 2 uses both, or one of them when told so.
    let (both, one) = (a.ria(&["env"]), a.ria(&["env", "--network", "field"]));
    assert_eq!((both.code, one.code), (0, 0), "{both:?} {one:?}");
    let profile = |out: &str| {
        let value = out.split("FASTDDS_DEFAULT_PROFILES_FILE='").nth(1).unwrap_or_else(|| panic!("{out}"));
        std::fs::read_to_string(a.host.path(value.split('\'').next().unwrap())).unwrap()
    };
    assert!(profile(&both.out).contains(">ria0<") && profile(&both.out).contains(">ria1<"));
    assert!(!profile(&one.out).contains(">ria0<") && profile(&one.out).contains(">ria1<"));
}

fn leaving_one_leaves_the_other(a: &Robot, b: &Robot, field_b: &str) {
    let off = a.ria(&["down", "--network", "lab"]);
    assert_eq!(off.code, 0, "{off:?}");
    assert!(!a.has_interface("ria0") && a.has_interface("ria1"));
    assert_eq!(a.ping(field_b, 5), 5);
    let left = a.ria(&["leave", "--yes", "--network", "lab"]);
    assert_eq!(left.code, 0, "{left:?}");
    eventually("the others know", || peer(b, "lab", "robot-a") == Value::Null);
    assert_eq!(a.ping(field_b, 5), 5);
    assert_eq!(a.status()["network"], "field");
    // The only one again: it needs no name.
    assert_eq!(a.ria(&["ping", "robot-b", "-c", "1"]).code, 0);
}

#[test]
fn networks_of_two_coordinators_with_the_same_addresses_are_told_apart() {
    let mut team = Team::new("networks-clash", &Site::Together);
    let second = "198.51.100.3";
    let host =
        team.lab.add_host("coordinator-2", HostSpec::on("internet").at(second.parse().unwrap())).unwrap();
    let (_other, key) = support::serve_beside(&host, second);
    let a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    let joined = a.join(&key);
    assert!(joined.code == 1 && joined.err.contains("10.213.0.0/16"), "{joined:?}");
    assert!(joined.err.contains("ria down --network") && joined.err.contains("--prefix"), "{joined:?}");
    assert!(a.has_interface("ria0") && !a.has_interface("ria1"));

    // Both are called lab, as networks of new coordinators are: only the id is clear, and the message says so.
    let asked = a.ria(&["down", "--network", "lab"]);
    assert!(asked.code == 2 && asked.err.contains("choose one by its id"), "{asked:?}");
    let status: Value = serde_json::from_str(&a.ria(&["status", "--json"]).out).unwrap();
    let id_of = |state: &str| {
        let all = status["networks"].as_array().unwrap();
        all.iter().find(|n| n["state"] == state).unwrap()["network_id"].as_str().unwrap().to_owned()
    };
    let (first, other) = (id_of("up"), id_of("failed"));
    assert_eq!(a.ria(&["down", "--network", &first]).code, 0);
    eventually("the other one has the addresses now", || network(&a, &other)["state"] == "up");
    assert_eq!(network(&a, &other)["interface"], "ria1", "each keeps the name that it was given");
    let back = a.ria(&["up", "--network", &first]);
    assert!(back.code == 1 && back.err.contains("10.213.0.0/16"), "{back:?}");
}
