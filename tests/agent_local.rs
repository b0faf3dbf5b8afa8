//! What people on the machine change: what becomes of it, and who is told that it was they.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use serde_json::Value;
use support::{Site, Team, eventually};

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
    let mut team = Team::new("agent-who", &Site::Together);
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

    // What a coordinator that is away can't be told, it is told when it is back.
    team.kill_coordinator();
    assert_eq!(b.ria(&["down"]).code, 0);
    assert_eq!(b.status()["state"], "disabled");
    assert_eq!(b.ria(&["up"]).code, 0);
    team.start_coordinator();
    eventually("both are told", || {
        audit(&team, "node.switched-off").len() == 3 && audit(&team, "node.switched-on").len() == 2
    });
}
