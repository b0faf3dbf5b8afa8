//! Machines that are not as they should be: disks, interfaces, ports, addresses, capabilities.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use serde_json::Value;
use support::{Robot, Site, Team, eventually};

fn ip(robot: &Robot, arguments: &[&str]) {
    robot.host.run(&[&["ip"], arguments].concat()).unwrap();
}

#[test]
fn colliding_addresses_are_refused_and_forgiven() {
    let team = Team::new("agent-collide", &Site::Together);
    let a = team.robot("robot-a", &[]);
    ip(&a, &["addr", "add", "10.213.7.1/24", "dev", "eth0"]);
    let joined = a.join(&team.key(&[]));
    assert!(joined.code == 1 && joined.err.contains("collide") && joined.err.contains("eth0"), "{joined:?}");
    assert_eq!(a.status()["state"], "failed");
    assert!(a.conditions().contains(&"prefix-collides".to_owned()));
    ip(&a, &["addr", "del", "10.213.7.1/24", "dev", "eth0"]);
    eventually("the interface comes by itself", || a.status()["state"] == "up");
    assert!(a.conditions().is_empty(), "{:?}", a.conditions());
}

#[test]
fn two_networks_with_the_same_name_and_addresses_are_told_apart() {
    let mut team = Team::new("agent-alike", &Site::Together);
    let mut a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    let first = a.status();
    // Another coordinator knows nothing of the first and has the same defaults.
    team.kill_coordinator();
    std::fs::remove_dir_all(team.host("coordinator").path("/var/lib/ria-coordinator")).unwrap();
    team.start_coordinator();
    let joined = a.join(&team.key(&[]));
    assert!(joined.code == 1 && joined.err.contains("--prefix") && joined.err.contains("ria0"), "{joined:?}");
    let leave = a.ria(&["leave", "--yes", "--network", "lab"]);
    assert!(leave.code == 2 && leave.err.contains("by its id"), "neither is left: {leave:?}");
    // The first one stays the one that works, also after a restart.
    a.kill();
    a.start(&[]);
    let id = first["network_id"].as_str().unwrap();
    eventually("the first is up", || a.ria(&["peers", "--network", id]).code == 0);
    let status: Value = serde_json::from_str(&a.ria(&["status", "--json"]).out).unwrap();
    let states: Vec<_> = status["networks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| (n["network_id"] == *id, n["state"].as_str().unwrap()))
        .collect();
    assert!(states.contains(&(true, "up")) && states.contains(&(false, "failed")), "{states:?}");
    // Once it is off, the other one takes its place.
    assert_eq!(a.ria(&["down", "--network", id]).code, 0);
    eventually("the second is up", || {
        let status: Value = serde_json::from_str(&a.ria(&["status", "--json"]).out).unwrap();
        status["networks"].as_array().unwrap().iter().any(|n| n["network_id"] != *id && n["state"] == "up")
    });
}

#[test]
fn a_taken_interface_name_and_a_taken_port_are_stepped_around() {
    let team = Team::new("agent-taken", &Site::Together);
    let host = team.host("robot-a");
    host.run(&["ip", "link", "add", "ria0", "type", "veth", "peer", "name", "foreign0"]).unwrap();
    let _taken = host.enter(|| std::net::UdpSocket::bind("[::]:41820")).unwrap();
    let a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    let status = a.status();
    assert_eq!(status["interface"], "ria1", "{status}");
    assert_ne!(status["udp_port"], 41820);
    assert!(a.conditions().contains(&"udp-port-taken".to_owned()));
    // Somebody takes the interface away; it comes back.
    ip(&a, &["link", "del", "ria1"]);
    eventually("the interface is back", || a.has_interface("ria1"));
}

#[test]
fn without_room_for_its_keys_a_machine_does_not_join() {
    let team = Team::new("agent-full", &Site::Together);
    let host = team.host("robot-a");
    std::fs::create_dir_all(host.path("/run/state")).unwrap();
    host.run(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/run/state"]).unwrap();
    let filler = host.path("/run/state/filler");
    let a = team.robot("robot-a", &["--state-dir", "/run/state"]);
    support::fill(&filler);
    let key = team.key(&[]);
    let joined = a.join(&key);
    assert!(joined.code == 1 && joined.err.contains("can't be saved"), "{joined:?}");
    assert_eq!(a.status(), Value::Null);
    std::fs::remove_file(&filler).unwrap();
    let joined = a.join(&key);
    assert_eq!(joined.code, 0, "the key was not used up: {joined:?}");
}

#[test]
fn a_read_only_disk_costs_a_member_nothing_but_memory() {
    let team = Team::new("agent-readonly", &Site::Together);
    let host = team.host("robot-a");
    std::fs::create_dir_all(host.path("/run/state")).unwrap();
    host.run(&["mount", "-t", "tmpfs", "tmpfs", "/run/state"]).unwrap();
    let mut a = team.robot("robot-a", &["--state-dir", "/run/state"]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    host.run(&["mount", "-o", "remount,ro", "/run/state"]).unwrap();
    // A new member changes the map, which can't be stored.
    let b = team.robot("robot-b", &[]);
    assert_eq!(b.join(&team.key(&[])).code, 0);
    a.wait_for_link("robot-b", "up");
    eventually("it says so", || a.conditions().contains(&"state-not-saved".to_owned()));
    a.kill();
    a.start(&["--state-dir", "/run/state"]);
    a.wait_for_link("robot-b", "up");
    assert!(a.conditions().contains(&"state-not-saved".to_owned()));
}

#[test]
fn a_second_agent_and_wrong_settings_are_refused() {
    let team = Team::new("agent-second", &Site::Together);
    let a = team.robot("robot-a", &[]);
    let second = a.ria(&["daemon", "--run-dir", "/run/other"]);
    assert!(second.code == 1 && second.err.contains("another agent is running"), "{second:?}");
    std::fs::create_dir_all(a.host.path("/etc/ria")).unwrap();
    std::fs::write(a.host.path("/etc/ria/agent.toml"), "udp_prot = 1\nudp_port = 'many'\n").unwrap();
    let wrong = a.ria(&["daemon"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.err.contains("udp_prot: unknown key") && wrong.err.contains("udp_port:"), "{wrong:?}");
}

#[test]
fn without_the_capability_a_join_names_the_cure_and_uses_no_key() {
    let team = Team::new("agent-caps", &Site::Together);
    let mut a = team.robot("robot-a", &[]);
    a.kill();
    let ria = env!("CARGO_BIN_EXE_ria");
    let line = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", ria, "daemon"];
    let _agent = a.host.spawn(&line, &tempfile::NamedTempFile::new().unwrap().into_temp_path()).unwrap();
    eventually("the agent serves", || a.ria(&["status"]).code != 3);
    let joined = a.join(&team.key(&[]));
    assert!(joined.code == 1 && joined.err.contains("CAP_NET_ADMIN"), "{joined:?}");
    let nodes = team.admin(&["node", "list"]);
    assert!(!nodes.out.contains("robot-a"), "{nodes:?}");
}
