//! Becoming a member, staying one, and ceasing to be one; and what goes wrong with it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::thread;
use std::time::Duration;

use netlab::Nat;
use serde_json::Value;
use support::{Site, Team, eventually};

#[test]
fn a_removed_node_is_out_at_once_and_may_come_back_with_a_key() {
    let team = Team::new("agent-remove", &Site::Together);
    let (a, b) = team.pair();
    let (address, before) = (b.address(), b.status()["node_id"].clone());
    assert_eq!(a.ping(&address, 3), 3);
    assert_eq!(team.admin(&["node", "remove", "robot-b"]).code, 0);
    eventually("the interface is gone", || !b.has_interface("ria0"));
    eventually("the others know", || a.peer("robot-b") == Value::Null);
    assert_eq!(a.ping(&address, 3), 0);
    let status = b.status();
    assert_eq!(status["state"], "refused", "{status}");
    assert!(b.conditions().contains(&"not-a-member".to_owned()));
    let joined = b.join(&team.key(&[]));
    assert_eq!(joined.code, 0, "{joined:?}");
    assert_ne!(b.status()["node_id"], before);
    a.wait_for_link(b.status()["name"].as_str().unwrap(), "up");
}

/// DDS reads its profile once, so one that comes after the interface leaves a ROS process deaf.
#[test]
fn the_dds_profile_is_there_as_soon_as_the_network_is() {
    let team = Team::new("agent-profile", &Site::Together);
    let a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    assert_eq!(a.ria(&["env"]).code, 0);
    let profile = std::fs::read_to_string(a.host.path("/run/ria/dds/fastdds.xml")).unwrap();
    assert!(profile.contains("<interface>ria0</interface>"), "{profile}");
}

#[test]
fn keys_that_do_not_work_say_why() {
    let mut team = Team::new("agent-keys", &Site::Together);
    let a = team.robot("robot-a", &[]);
    let (once, other, revoked) = (team.key(&[]), team.key(&[]), team.key(&[]));
    // Truncated.
    let ended = a.join(&once[..40]);
    assert!(ended.code == 2 && ended.err.contains("damaged"), "{ended:?}");
    // Revoked.
    let keys: Value = serde_json::from_str(&team.admin(&["key", "list", "--json"]).out).unwrap();
    let id = find_last_id(&keys);
    assert_eq!(team.admin(&["key", "revoke", &id]).code, 0);
    let refused = [&once, &other, &revoked].map(|key| a.join(key)).into_iter().find(|ended| ended.code == 6);
    let refused = refused.expect("one of the keys was revoked");
    assert!(refused.err.contains("revoked"), "{refused:?}");
    // Unreachable, then another coordinator at the same address.
    team.kill_coordinator();
    let b = team.robot("robot-b", &[]);
    let ended = b.join(&other);
    assert!(ended.code == 1 && ended.err.contains("refuses the connection"), "{ended:?}");
    std::fs::remove_dir_all(team.host("coordinator").path("/var/lib/ria-coordinator")).unwrap();
    team.start_coordinator();
    let ended = b.join(&other);
    assert!(ended.code == 1 && ended.err.contains("another coordinator"), "{ended:?}");
    assert_eq!(b.status(), Value::Null, "nothing was joined");
}

/// The id of some key in the list, wherever the list keeps it.
fn find_last_id(keys: &Value) -> String {
    let list = keys.as_array().or_else(|| keys["keys"].as_array()).unwrap_or_else(|| panic!("{keys}"));
    list.last().unwrap()["id"].as_str().unwrap_or_else(|| panic!("{keys}")).to_owned()
}

#[test]
fn a_used_key_is_refused_to_others_and_idle_for_its_owner() {
    let team = Team::new("agent-once", &Site::Together);
    let (a, b) = (team.robot("robot-a", &[]), team.robot("robot-b", &[]));
    let key = team.key(&[]);
    assert_eq!(a.join(&key).code, 0);
    let again = a.join(&key);
    assert!(again.code == 0 && again.out.contains("already"), "{again:?}");
    let other = b.join(&key);
    assert!(other.code == 6 && other.err.contains("join-key-used"), "{other:?}");
}

#[test]
fn kills_during_a_join_lose_nothing_and_make_no_second_node() {
    let team = Team::new("agent-kill", &Site::Together);
    let key = team.key(&[]);
    let mut robot = team.robot("robot-a", &[]);
    std::fs::write(robot.host.path("/run/key"), &key).unwrap();
    // Each start is killed a little later than the one before, so the kills fall before, into and behind the join.
    for delay in (0..60).step_by(4) {
        robot.kill();
        robot.start_unwatched(&["--join-file", "/run/key"]);
        thread::sleep(Duration::from_millis(delay));
    }
    robot.kill();
    robot.start(&["--join-file", "/run/key"]);
    eventually("the robot is a member", || robot.status()["state"] == "up");
    let nodes: Value = serde_json::from_str(&team.admin(&["node", "list", "--json"]).out).unwrap();
    let list = nodes.as_array().or_else(|| nodes["nodes"].as_array()).unwrap_or_else(|| panic!("{nodes}"));
    assert_eq!(list.len(), 1, "{nodes}");
    assert!(robot.conditions().is_empty(), "{:?}", robot.conditions());
}

#[test]
fn switched_off_stays_off_and_leaving_erases() {
    let team = Team::new("agent-leave", &Site::Together);
    let (mut a, b) = team.pair();
    assert_eq!(a.ria(&["down"]).code, 0);
    assert!(!a.has_interface("ria0"));
    a.kill();
    a.start(&[]);
    assert_eq!(a.status()["state"], "disabled");
    assert_eq!(a.ria(&["up"]).code, 0);
    a.wait_for_link("robot-b", "up");
    let left = a.ria(&["leave", "--yes"]);
    assert_eq!(left.code, 0, "{left:?}");
    assert!(!a.has_interface("ria0"));
    assert_eq!(std::fs::read_dir(a.host.path("/var/lib/ria/networks")).unwrap().count(), 0);
    assert_eq!(a.ria(&["peers"]).code, 4);
    eventually("the others know", || b.peer("robot-a") == Value::Null);
}

#[test]
fn a_join_file_waits_for_its_coordinator() {
    let mut team = Team::new("agent-file", &Site::Apart(Nat::PortPreserving));
    let key = team.key(&[]);
    team.kill_coordinator();
    let host = team.host("robot-a");
    std::fs::write(host.path("/run/key"), key).unwrap();
    let robot = team.robot("robot-a", &["--join-file", "/run/key"]);
    eventually("the trouble is shown", || robot.conditions().contains(&"join-file".to_owned()));
    team.start_coordinator();
    eventually("it has joined", || robot.status()["state"] == "up");
    eventually("the trouble is over", || robot.conditions().is_empty());
}
