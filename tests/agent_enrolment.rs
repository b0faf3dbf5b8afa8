//! Ways into a network that need no person at the robot, or one at the coordinator: approval, provisioning files,
//! copied cards; and the way out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use netlab::Host;
use serde_json::Value;
use support::{Robot, Site, Team, eventually};

/// Puts a key where only root may write.
fn put_key(host: &Host, path: &str, key: &str) {
    let path = host.path(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, key).unwrap();
}

fn nodes(team: &Team) -> Vec<String> {
    let list: Value = serde_json::from_str(&team.admin(&["node", "list", "--json"]).out).unwrap();
    list.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect()
}

fn approve(team: &Team, robot: &Robot) {
    let print = robot.status()["fingerprint"].as_str().unwrap().to_owned();
    let approved = team.admin(&["node", "approve", &print]);
    assert_eq!(approved.code, 0, "{approved:?}");
}

#[test]
fn an_administrator_lets_a_robot_in_that_waits_through_restarts_of_both_sides() {
    let mut team = Team::new("enrol-approve", &Site::Together);
    let mut a = team.robot("robot-a", &[]);
    let joined = a.join(&team.key(&["--approve", "--tag", "arm"]));
    assert_eq!(joined.code, 5, "{joined:?}");
    let print = a.status()["fingerprint"].as_str().unwrap().to_owned();
    assert!(joined.err.contains("node approve") && joined.err.contains(&print), "{joined:?}");
    let pending = team.admin(&["node", "pending"]);
    assert!(pending.out.contains(&print), "the same is shown on both sides: {pending:?}");
    let status = a.ria(&["status"]);
    assert!(status.out.contains("waiting for approval") && status.out.contains(&print), "{status:?}");
    assert!(a.conditions().contains(&"waiting-for-approval".to_owned()));
    assert!(nodes(&team).is_empty() && !a.has_interface("ria0"));

    a.kill();
    team.kill_coordinator();
    a.start(&[]);
    assert_eq!(a.status()["state"], "waiting");
    team.start_coordinator();
    eventually("it stands in the queue again", || team.admin(&["node", "pending"]).out.contains(" now "));
    approve(&team, &a);
    eventually("it is a member", || a.status()["state"] == "up");
    assert_eq!(nodes(&team), ["robot-a"]);
    eventually("nothing is wrong", || a.conditions().is_empty());
    assert!(team.admin(&["node", "list"]).out.contains("arm"));
    assert_eq!(std::fs::read_dir(a.host.path("/var/lib/ria/pending")).unwrap().count(), 0);
}

#[test]
fn whoever_waits_at_the_command_line_hears_the_decision() {
    let team = Team::new("enrol-wait", &Site::Together);
    let (a, b) = (team.robot("robot-a", &[]), team.robot("robot-b", &[]));
    for robot in [&a, &b] {
        put_key(&robot.host, "/run/key", &team.key(&["--approve"]));
    }
    let join = |robot: &Robot| robot.ria(&["join", "--file", "/run/key", "--wait=60"]);
    let (in_a, in_b) = std::thread::scope(|scope| {
        let (one, two) = (scope.spawn(|| join(&a)), scope.spawn(|| join(&b)));
        eventually("both wait", || team.admin(&["node", "pending"]).out.matches("waits").count() == 2);
        approve(&team, &a);
        assert_eq!(team.admin(&["node", "reject", "robot-b"]).code, 0);
        (one.join().unwrap(), two.join().unwrap())
    });
    assert!(in_a.code == 0 && in_a.out.contains("joined lab as robot-a"), "{in_a:?}");
    assert!(in_b.code == 6 && in_b.err.contains("did not let"), "{in_b:?}");
    let impatient = b.ria(&["join", "--file", "/run/key", "--wait=0.2"]);
    assert!(impatient.code != 0, "{impatient:?}");
    // Second thoughts need nobody at the robot either.
    assert_eq!(team.admin(&["node", "approve", "robot-b"]).code, 0);
    support::eventually_within(std::time::Duration::from_secs(40), "it comes in after all", || {
        b.status()["state"] == "up"
    });
}

#[test]
fn giving_up_takes_the_request_back() {
    let team = Team::new("enrol-giveup", &Site::Together);
    let a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&["--approve"])).code, 5);
    assert_eq!(a.ria(&["up"]).code, 1, "there is nothing to switch on yet");
    assert_eq!(a.ria(&["leave", "--yes"]).code, 0);
    assert_eq!(a.ria(&["status"]).code, 4);
    let pending = team.admin(&["node", "pending"]);
    assert!(pending.out.contains("No node waits"), "{pending:?}");
    assert_eq!(std::fs::read_dir(a.host.path("/var/lib/ria/pending")).unwrap().count(), 0);
}

#[test]
fn a_second_key_of_the_network_makes_no_second_node_and_a_refused_one_leaves_nothing() {
    let team = Team::new("enrol-second", &Site::Together);
    let a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    let before = a.status();
    let again = a.join(&team.key(&["--tag", "arm"]));
    assert!(again.code == 0 && again.out.contains("already"), "{again:?}");
    assert_eq!(nodes(&team), ["robot-a"]);
    let node = team.admin(&["node", "show", "robot-a"]);
    assert!(node.out.contains("arm"), "{node:?}");
    assert_eq!(a.status()["addresses"], before["addresses"]);

    // A key of another network of the same coordinator makes another node, with keys of its own.
    assert_eq!(team.admin(&["network", "create", "field"]).code, 0);
    let other = a.join(&team.key(&["--network", "field"]));
    assert!(other.code == 0 && other.out.contains("joined field"), "{other:?}");
    let status: Value = serde_json::from_str(&a.ria(&["status", "--json"]).out).unwrap();
    assert_ne!(status["networks"][0]["public_key"], status["networks"][1]["public_key"]);

    let used = team.key(&["--network", "lab"]);
    let b = team.robot("robot-b", &[]);
    assert_eq!(b.join(&used).code, 0);
    let c = a.join(&used);
    assert_eq!(c.code, 6, "{c:?}");
    assert_eq!(std::fs::read_dir(a.host.path("/var/lib/ria/pending")).unwrap().count(), 0);
}

#[test]
fn a_pipe_that_nobody_writes_to_does_not_hold_a_join() {
    let team = Team::new("enrol-pipe", &Site::Together);
    let a = team.robot("robot-a", &[]);
    a.host.run(&["mkfifo", "/run/pipe"]).unwrap();
    let joined = a.ria(&["join", "--file", "/run/pipe"]);
    assert!(joined.code == 5 && joined.err.contains("nobody wrote"), "{joined:?}");
}

/// The golden image: an agent, a reusable key, no state, an empty machine-id. Copies join by themselves under names of
/// their own; a copy of a robot that has joined already is another robot.
#[test]
fn copies_of_an_image_join_by_themselves_and_a_copied_card_is_no_second_self() {
    let mut team = Team::new("enrol-golden", &Site::Together);
    let key = team.key(&["--reusable"]);
    team.kill_coordinator();
    let (host_a, host_b) = (team.host("robot-a"), team.host("robot-b"));
    for host in [&host_a, &host_b] {
        // The image's host name.
        host.run(&["hostname", "robot"]).unwrap();
        put_key(host, "/etc/ria/join.key", &key);
    }
    let a = team.robot("robot-a", &[]);
    eventually("it says what is missing", || a.conditions().contains(&"join-file".to_owned()));
    team.start_coordinator();
    eventually("it has joined", || a.status()["state"] == "up");
    assert_eq!(a.status()["name"], "robot");
    eventually("nothing is wrong", || a.conditions().is_empty());

    // The card is copied, state and all, and put into another robot.
    let (from, to) = (host_a.path("/var/lib/ria"), host_b.path("/var/lib/ria"));
    let copied = std::process::Command::new("cp").args(["-a"]).arg(from.join(".")).arg(&to).status().unwrap();
    assert!(copied.success());
    let b = team.robot("robot-b", &[]);
    eventually("the copy is a robot of its own", || b.status()["state"] == "up");
    assert_eq!(b.status()["name"], "robot-2");
    assert_ne!(b.status()["public_key"], a.status()["public_key"]);
    assert!(b.conditions().contains(&"state-set-aside".to_owned()));
    let aside = std::fs::read_dir(&to).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.starts_with("set-aside-")).count(), 1);
    a.wait_for_link("robot-2", "up");
    assert_eq!(a.ping(&b.address(), 3), 3);
    let mut names = nodes(&team);
    names.sort();
    assert_eq!(names, ["robot", "robot-2"]);

    // Another key in the file changes nothing for a member, and is said.
    put_key(&host_b, "/etc/ria/join.key", &team.key(&["--reusable"]));
    eventually("it says so", || b.conditions().contains(&"join-file-ignored".to_owned()));
    assert_eq!(b.status()["name"], "robot-2");
}

#[test]
fn a_provisioning_file_brings_nobody_back_who_left_or_was_removed() {
    let team = Team::new("enrol-stay-out", &Site::Together);
    let host = team.host("robot-a");
    put_key(&host, "/etc/ria/join.key", &team.key(&["--reusable"]));
    let mut a = team.robot("robot-a", &[]);
    eventually("it has joined", || a.status()["state"] == "up");
    assert_eq!(a.ria(&["leave", "--yes"]).code, 0);
    a.kill();
    a.start(&[]);
    eventually("it says so", || a.conditions().contains(&"join-file-ignored".to_owned()));
    assert!(nodes(&team).is_empty());
    let joined = a.ria(&["join", "--file", "/etc/ria/join.key"]);
    assert_eq!(joined.code, 0, "a person may: {joined:?}");
    assert_eq!(team.admin(&["node", "remove", "robot-a"]).code, 0);
    eventually("it is out", || a.status()["state"] == "refused");
    a.kill();
    a.start(&[]);
    eventually("it is still out", || a.status()["state"] == "refused");
    assert!(nodes(&team).is_empty());
    // A file that anybody could have written is not used.
    host.run(&["chmod", "666", "/etc/ria/join.key"]).unwrap();
    assert_eq!(a.ria(&["leave", "--yes"]).code, 0);
    put_key(&host, "/etc/ria/join.key", &team.key(&[]));
    eventually("it says so", || a.ria(&["status"]).out.contains("chmod go-w"));
    host.run(&["chmod", "644", "/etc/ria/join.key"]).unwrap();
    eventually("it has joined", || a.status()["state"] == "up");
}

#[test]
fn an_ephemeral_robot_that_was_away_joins_again_by_its_file() {
    let team = Team::new("enrol-ephemeral", &Site::Together);
    put_key(&team.host("robot-a"), "/etc/ria/join.key", &team.key(&["--reusable", "--ephemeral=3s"]));
    let mut a = team.robot("robot-a", &[]);
    eventually("it has joined", || a.status()["state"] == "up");
    let before = a.status();
    a.kill();
    support::eventually_within(std::time::Duration::from_secs(40), "it is no member", || {
        nodes(&team).is_empty()
    });
    a.start(&[]);
    eventually("it has joined anew", || {
        a.status()["state"] == "up" && a.status()["node_id"] != before["node_id"]
    });
    assert_eq!(a.status()["addresses"][0], before["addresses"][0], "the address was free at once");
}

#[test]
fn a_coordinator_that_was_away_hears_of_a_leave_later_even_after_a_restart() {
    let mut team = Team::new("enrol-farewell", &Site::Together);
    let mut a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    team.kill_coordinator();
    let left = a.ria(&["leave", "--yes"]);
    assert_eq!(left.code, 0, "{left:?}");
    assert!(a.conditions().contains(&"left-untold".to_owned()));
    assert!(!a.has_interface("ria0"));
    a.kill();
    a.start(&[]);
    assert_eq!((a.ria(&["peers"]).code, a.status()), (4, Value::Null));
    assert!(a.conditions().contains(&"left-untold".to_owned()));
    team.start_coordinator();
    eventually("the coordinator knows", || nodes(&team).is_empty());
    eventually("it is forgotten here", || a.conditions().is_empty());
    assert_eq!(std::fs::read_dir(a.host.path("/var/lib/ria/leaving")).unwrap().count(), 0);
    let audit = team.admin(&["audit", "list"]);
    assert!(audit.out.contains("node.left"), "{audit:?}");
}

#[test]
fn a_renamed_robot_and_the_others_use_the_new_name() {
    let team = Team::new("enrol-rename", &Site::Together);
    let (mut a, b) = team.pair();
    assert_eq!(team.admin(&["node", "rename", "robot-a", "scout"]).code, 0);
    assert_eq!(team.admin(&["node", "tag", "scout", "--add", "fast"]).code, 0);
    eventually("it knows its name", || a.status()["name"] == "scout");
    eventually("the others do", || b.peer("scout")["tags"] == serde_json::json!(["fast"]));
    assert_eq!(b.peer("scout")["link_state"], "up", "the link is not touched");
    assert_eq!(b.ria(&["ping", "scout", "-c", "1"]).code, 0);
    a.kill();
    a.start(&[]);
    assert_eq!(a.status()["name"], "scout");
}

/// The image was shipped with a machine-id, so the copy does not know that it is one.
#[test]
fn a_copy_with_the_same_machine_id_is_kept_out_and_both_say_so() {
    let team = Team::new("enrol-twins", &Site::Together);
    let (host_a, host_b) = (team.host("robot-a"), team.host("robot-b"));
    let a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    let copied = std::process::Command::new("cp")
        .arg("-aT")
        .args([host_a.path("/var/lib/ria"), host_b.path("/var/lib/ria")])
        .status()
        .unwrap();
    assert!(copied.success());
    std::fs::copy(host_a.path("/etc/machine-id"), host_b.path("/etc/machine-id")).unwrap();
    let b = team.robot("robot-b", &[]);
    let says_so = |robot: &Robot| robot.conditions().contains(&"cloned".to_owned());
    support::eventually_within(std::time::Duration::from_secs(30), "both know", || {
        says_so(&a) && says_so(&b)
    });
    assert!(team.admin(&["node", "list"]).out.contains("CLONED"));
    let is_up = |robot: &Robot| robot.status()["state"] == "up";
    assert_ne!(is_up(&a), is_up(&b), "one of them works");
    // The copy gives up and takes nothing from the other one.
    let (kept, copy) = if is_up(&a) { (&a, &b) } else { (&b, &a) };
    assert_eq!(copy.ria(&["leave", "--yes"]).code, 0);
    assert_eq!(nodes(&team), ["robot-a"]);
    assert_eq!(kept.status()["coordinator_state"], "connected");
    assert_eq!(copy.join(&team.key(&[])).code, 0);
    eventually("it is a robot of its own", || copy.status()["state"] == "up");
    kept.wait_for_link(copy.status()["name"].as_str().unwrap(), "up");
}
