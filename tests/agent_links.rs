//! What the coordinator shows of links: told by real agents, of paths as they really are.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{Team, eventually, eventually_within};

/// Two robots on one network and one behind another NAT: one pair is direct, two are relayed; and all of it shows, also that
/// a path is another one when a robot has moved.
#[test]
fn direct_and_relayed_links_show_and_a_move_is_on_the_timeline() {
    let mut team = Team::crowd("links", &["robot-a", "robot-b"], &["robot-c"]);
    let key = team.key(&["--reusable"]);
    let robots = ["robot-a", "robot-b", "robot-c"].map(|name| team.robot(name, &[]));
    for robot in &robots {
        assert_eq!(robot.join(&key).code, 0);
    }
    let [a, b, c] = &robots;
    for (robot, peers) in
        [(a, ["robot-b", "robot-c"]), (b, ["robot-a", "robot-c"]), (c, ["robot-a", "robot-b"])]
    {
        peers.iter().for_each(|peer| robot.wait_for_link(peer, "up"));
    }
    let links = |team: &Team| -> Vec<Value> {
        serde_json::from_str(&team.admin(&["link", "list", "--json"]).out).unwrap_or_default()
    };
    let path = |team: &Team, a: &str, b: &str| {
        let found = links(team).into_iter().find(|link| link["a"] == a && link["b"] == b);
        found.map(|link| {
            (
                link["path"].as_str().unwrap().to_owned(),
                link["rtt_ms"].as_f64(),
                link["from_a"] != Value::Null && link["from_b"] != Value::Null,
            )
        })
    };
    let is = |team: &Team, a: &str, b: &str, wanted: &str| {
        // Both ends say so, and how long it takes.
        path(team, a, b).is_some_and(|(path, rtt, both)| path == wanted && rtt.is_some() && both)
    };
    // It is told within seconds; the time of a path that is not known yet is looked at again after ten.
    let patience = Duration::from_secs(40);
    eventually_within(patience, "the direct link shows", || is(&team, "robot-a", "robot-b", "direct"));
    for other in ["robot-a", "robot-b"] {
        eventually_within(patience, "the relayed links show", || is(&team, other, "robot-c", "relay_udp"));
    }
    let shown = team.admin(&["link", "list", "--node", "robot-c"]);
    assert!(shown.out.contains("coordinator") && !shown.out.contains("direct"), "{shown:?}");

    // Onto the others' network: over the relay it was, direct it is.
    team.lab.move_host("robot-c", "lan").unwrap();
    eventually_within(patience, "the new path shows", || is(&team, "robot-a", "robot-c", "direct"));
    let history = || -> Vec<Value> {
        serde_json::from_str(&team.admin(&["node", "history", "robot-c", "--json"]).out).unwrap_or_default()
    };
    let happened =
        |peer: &str, after: &str| history().iter().any(|e| e["peer"] == peer && e["after"] == after);
    eventually("the hand-over is on the timeline", || {
        happened("robot-a", "relay_udp") && happened("robot-a", "direct")
    });
    assert!(history().iter().any(|entry| entry["kind"] == "uplink"), "{:?}", history());
}
