//! What people on the machine change: what becomes of it, and who is told that it was they.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use netlab::Host;
use serde_json::Value;
use support::{Ended, Site, Team, eventually};

/// Rows of the audit log with this action, each with its detail parsed.
fn audit(team: &Team, action: &str) -> Vec<Value> {
    let ended = team.admin(&["audit", "list", "--json", "--limit", "200"]);
    let value: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    let rows =
        value.as_array().or_else(|| value["rows"].as_array()).unwrap_or_else(|| panic!("{value}")).clone();
    let parsed = |mut row: Value| {
        if let Some(text) = row["detail"].as_str() {
            row["detail"] = serde_json::from_str(text).unwrap();
        }
        row
    };
    rows.into_iter().filter(|row| row["action"] == action).map(parsed).collect()
}

#[test]
fn the_audit_log_says_who_on_the_robot_did_it() {
    let team = Team::new("agent-who", &Site::Together);
    let (a, b) = team.pair();
    let reported = |action: &str, count: usize| {
        eventually(action, || audit(&team, action).len() == count);
        let row = audit(&team, action).pop().unwrap();
        (row["subject"].as_str().unwrap().to_owned(), row["detail"]["reported_by_node"].clone())
    };
    let (_, by) = reported("node.joined", 2);
    assert_eq!(
        (&by["via"], &by["uid"], &by["user"], &by["program"]),
        (&"socket".into(), &0.into(), &"root".into(), &"ria".into())
    );

    assert_eq!(a.ria(&["down"]).code, 0);
    let (subject, by) = reported("node.switched-off", 1);
    assert_eq!((subject.as_str(), &by["user"]), ("robot-a", &"root".into()));
    let away =
        || serde_json::from_str::<Value>(&team.admin(&["node", "show", "robot-a", "--json"]).out).unwrap();
    eventually("the coordinator sees it go", || away()["online"] == false);
    // Doing it again changes nothing, so there is nothing to note.
    assert_eq!(a.ria(&["down"]).code, 0);
    assert_eq!(a.ria(&["up"]).code, 0);
    reported("node.switched-on", 1);
    assert_eq!(audit(&team, "node.switched-off").len(), 1);
    a.wait_for_link("robot-b", "up");
    assert!(a.log().contains("asked to switch a network"), "{}", a.log());

    assert_eq!(a.ria(&["rotate-key"]).code, 0);
    let (subject, by) = reported("node.asked-for-key", 1);
    assert_eq!((subject.as_str(), &by["user"]), ("robot-a", &"root".into()));
    let url = a.status()["coordinator_url"].as_str().unwrap().to_owned();
    assert_eq!(a.ria(&["set-url", &url]).code, 0);
    let (subject, by) = reported("node.set-url", 1);
    assert_eq!((subject.as_str(), &by["user"]), ("robot-a", &"root".into()));

    // One that is switched off says good-bye, too.
    assert_eq!(a.ria(&["down"]).code, 0);
    assert_eq!(a.ria(&["leave", "--yes"]).code, 0);
    let (subject, by) = reported("node.left", 1);
    assert_eq!((subject.as_str(), &by["user"]), ("robot-a", &"root".into()));
    assert!(a.conditions().is_empty(), "{:?}", a.conditions());
    eventually("the others know", || b.peer("robot-a") == Value::Null);

    // And an administrator is known by more than a number.
    let row = audit(&team, "key.created").pop().unwrap();
    assert_eq!((&row["actor"], &row["detail"]["caller"]["user"]), (&"uid:0".into(), &"root".into()));
    assert_eq!(team.admin(&["audit", "list"]).code, 0, "the chain is whole");
}

#[test]
fn a_coordinator_that_is_away_is_told_later_and_once_whatever_happens_to_the_robot() {
    let mut team = Team::new("agent-untold", &Site::Together);
    let (_a, mut b) = team.pair();
    team.kill_coordinator();
    assert_eq!(b.ria(&["down"]).code, 0);
    assert_eq!(b.status()["state"], "disabled");
    assert_eq!(b.ria(&["up"]).code, 0);
    let keys = || {
        let networks = std::fs::read_dir(b.host.path("/var/lib/ria/networks")).unwrap();
        let read = |network: std::fs::DirEntry| std::fs::read(network.path().join("keys")).unwrap();
        networks.map(|network| read(network.unwrap())).collect::<Vec<_>>()
    };
    let before = keys();
    let _rotating = b.begin(&["rotate-key"]);
    eventually("another key is made", || keys() != before);
    b.kill();
    b.start(&[]);
    team.start_coordinator();
    let told = || {
        let count = |action| audit(&team, action).len();
        [count("node.switched-off"), count("node.switched-on"), count("node.asked-for-key")]
    };
    eventually("all is told", || told() == [1, 1, 1]);
    b.kill();
    b.start(&[]);
    eventually("it is back", || b.status()["coordinator_state"] == "connected");
    assert_eq!(told(), [1, 1, 1], "once");
}

/// A user of the robot, neither root nor the agent's own.
const ANNA: &str = "1234";

/// Group `ria` of the robot.
const GROUP: &str = "987";

/// Runs a program as Anna, who is in these groups.
fn as_anna(host: &Host, groups: &[&str], line: &[&str]) -> Ended {
    let groups = match groups {
        [] => "--clear-groups".to_owned(),
        some => format!("--groups={}", some.join(",")),
    };
    let user = [format!("--reuid={ANNA}"), format!("--regid={ANNA}"), groups];
    let mut whole = vec!["setpriv"];
    whole.extend(user.iter().map(String::as_str).chain(line.iter().copied()));
    let output = host.output(&whole).unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// On the private socket; the same on the bus is in `agent_bus.rs`.
#[test]
fn members_of_the_group_control_the_agent_and_others_only_look() {
    let team = Team::new("agent-group", &Site::Together);
    let a = team.robot("robot-a", &[]);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    let groups = a.host.path("/etc/group");
    let listed = std::fs::read_to_string(&groups).unwrap();
    std::fs::write(&groups, format!("{listed}ria:x:{GROUP}:\n")).unwrap();
    let program = env!("CARGO_BIN_EXE_ria");

    assert_eq!(as_anna(&a.host, &[], &[program, "status"]).code, 0);
    for verb in [&["down"][..], &["up"], &["leave", "--yes"], &["join", "--file", "/run/key"]] {
        let refused = as_anna(&a.host, &[], &[&[program], verb].concat());
        assert!(refused.code == 7 && refused.err.contains("usermod -aG ria"), "{verb:?}: {refused:?}");
    }
    assert_eq!(a.status()["state"], "up");
    let off = as_anna(&a.host, &[GROUP], &[program, "down"]);
    assert_eq!(off.code, 0, "{off:?}");
    assert_eq!(a.status()["state"], "disabled");

    let on = as_anna(&a.host, &[GROUP], &[program, "up"]);
    assert_eq!(on.code, 0, "{on:?}");
    assert_eq!(a.status()["state"], "up");

    // Each is in the log as it was.
    eventually("both are noted", || audit(&team, "node.switched-on").len() == 1);
    let by = |action: &str| audit(&team, action).pop().unwrap()["detail"]["reported_by_node"].clone();
    let (off, on) = (by("node.switched-off"), by("node.switched-on"));
    assert_eq!((&off["via"], &off["uid"], &off["program"]), (&"socket".into(), &1234.into(), &"ria".into()));
    assert_eq!((&on["via"], &on["uid"], &on["program"]), (&"socket".into(), &1234.into(), &"ria".into()));
}
