//! An on-demand network: the first packet brings the peer, to whom others are nobody; who has nothing to say is let go of.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::thread;
use std::time::Duration;

use support::{Robot, Team, eventually};

const NAMES: [&str; 3] = ["robot-1", "robot-2", "robot-3"];

/// Longer than whoever is not used is held.
const A_WHILE: Duration = Duration::from_secs(4);

fn team(name: &str, settings: &str) -> (Team, Vec<Robot>) {
    let team = Team::crowd(name, &NAMES[..2], &NAMES[2..]);
    let changed = team.admin(&["network", "peers", "lab", "on-demand"]);
    assert!(changed.code == 0 && changed.out.contains("on-demand"), "{changed:?}");
    let key = team.key(&["--reusable"]);
    let robots = NAMES.map(|name| {
        fs::write(team.host(name).path("/etc/ria/agent.toml"), settings).unwrap();
        let robot = team.robot(name, &[]);
        let joined = robot.join(&key);
        assert_eq!(joined.code, 0, "{joined:?}");
        robot
    });
    (team, robots.into())
}

fn held(robot: &Robot) -> Vec<String> {
    robot.peers().iter().map(|peer| peer["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn robots_hold_whom_they_talk_to() {
    let (mut team, robots) = team("demand", "[peers]\nrelease_after = 2\n");
    let [a, b, c] = &robots[..] else { panic!("three") };
    assert!(robots.iter().all(|robot| held(robot).is_empty()));
    // Not one packet is lost, the first one included, and the third robot learns of nobody.
    assert_eq!(a.ping(&b.address(), 5), 5);
    assert_eq!((held(a), held(b)), (vec!["robot-2".to_owned()], vec!["robot-1".to_owned()]));
    assert!(held(c).is_empty());
    // Nobody is there, by name and by address.
    let nobody = c.ria(&["ping", "robot-9", "-c", "1"]);
    assert!(nobody.code == 1 && nobody.err.contains("no member"), "{nobody:?}");
    assert_eq!(c.ping("10.213.250.250", 1), 0);
    // By name.
    let ping = c.ria(&["ping", "robot-1", "-c", "2"]);
    assert_eq!(ping.code, 0, "{ping:?}");
    assert_eq!(held(c), ["robot-1"]);
    // Who has nothing to say is let go of.
    eventually("all are released", || robots.iter().all(|robot| held(robot).is_empty()));
    assert_eq!(b.ping(&a.address(), 5), 5);

    // Without the coordinator what is held stays, used or not.
    team.kill_coordinator();
    eventually("the loss is noticed", || a.status()["coordinator_state"] == "unreachable");
    thread::sleep(A_WHILE);
    assert_eq!((held(a), held(b)), (vec!["robot-2".to_owned()], vec!["robot-1".to_owned()]));
    assert_eq!(a.ping(&b.address(), 5), 5);
    // And afterwards, while it is in use.
    let address = b.address();
    thread::scope(|scope| {
        let pinging = scope.spawn(|| a.ping(&address, 80));
        team.start_coordinator();
        assert_eq!(pinging.join().unwrap(), 80, "nothing is lost over a restart");
    });
    for robot in [a, b] {
        eventually("both are back", || robot.status()["coordinator_state"] == "connected");
    }
    assert_eq!(a.ping(&b.address(), 5), 5);
    // Who is put out is gone at once.
    let removed = team.admin(&["node", "remove", "robot-2"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    eventually("the peer is gone", || held(a).is_empty());
}

#[test]
fn what_is_kept_is_held_and_a_network_changes_its_mode() {
    let (team, robots) = team("demand-keep", "[peers]\nkeep = [\"robot-2\"]\nrelease_after = 1\n");
    let [a, b, c] = &robots[..] else { panic!("three") };
    eventually("robot-2 is held by the others", || held(a) == ["robot-2"] && held(c) == ["robot-2"]);
    thread::sleep(A_WHILE);
    assert_eq!((held(a).len(), held(c).len(), held(b).len()), (1, 1, 2));
    // Everybody knows everybody, and then only whom they use, without a packet lost.
    assert_eq!(team.admin(&["network", "peers", "lab", "push"]).code, 0);
    eventually("all are told of all", || robots.iter().all(|robot| held(robot).len() == 2));
    a.wait_for_link("robot-3", "up");
    let address = c.address();
    thread::scope(|scope| {
        let pinging = scope.spawn(|| a.ping(&address, 60));
        // What has been in use for a moment when the mode changes is what nothing may be lost of.
        thread::sleep(Duration::from_secs(1));
        assert_eq!(team.admin(&["network", "peers", "lab", "on-demand"]).code, 0);
        assert_eq!(pinging.join().unwrap(), 60);
    });
    eventually("only what is kept is left", || held(a) == ["robot-2"]);
    let came_again = |robot: &&Robot| robot.log().contains("no contact with the coordinator");
    assert_eq!(robots.iter().filter(came_again).count(), 0);
}
