//! Robots whose clock is wrong: they boot in 1970 or a year off, and clocks are set while they run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use netlab::Nat;
use support::{Robot, Site, Team, eventually};

const YEAR: i64 = 31_536_000;

/// What makes the real time the second day of 1970.
fn to_1970() -> i64 {
    86_400 - i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Waits until the status says how far the clock is off.
fn wait_for_offset(robot: &Robot, expected: i64) {
    eventually(&format!("the clock is told to be {expected} s off"), || {
        let told = robot.status()["clock_offset"].as_f64();
        told.is_some_and(|told| (told - expected as f64).abs() < 10.0)
    });
    eventually(&format!("the condition follows a clock that is {expected} s off"), || {
        robot.conditions().contains(&"clock-off".to_owned()) == (expected != 0)
    });
}

/// Waits until a robot tells by how much another one's clock is ahead, with a bound that this is within.
fn wait_for_peer_clock(robot: &Robot, peer: &str, expected: i64) {
    eventually(&format!("the clock of {peer} is told to be {expected} s ahead"), || {
        let told = robot.peer(peer);
        let (offset, error) = (told["clock_offset"].as_f64(), told["clock_error"].as_f64());
        // The hosts of the test share one clock, and faketime costs its users some of its accuracy.
        offset.zip(error).is_some_and(|(offset, error)| {
            (offset - expected as f64).abs() < error + 0.01 && error > 0.0 && error < 1.0
        })
    });
}

#[test]
fn a_robot_that_boots_in_1970_or_a_year_off_joins_and_comes_back() {
    let team = Team::new("agent-clocks", &Site::Together);
    let key = team.key(&["--reusable", "--expires", "1h"]);
    let early = to_1970();
    let mut robots =
        [("robot-a", early), ("robot-b", YEAR)].map(|(name, offset)| team.robot_with_clock(name, offset));
    for robot in &robots {
        let joined = robot.join(&key);
        assert_eq!(joined.code, 0, "{joined:?}");
    }
    robots[0].wait_for_link("robot-b", "up");
    assert_eq!(robots[0].ping(&robots[1].address(), 3), 3);
    wait_for_offset(&robots[0], early);
    wait_for_offset(&robots[1], YEAR);
    wait_for_peer_clock(&robots[0], "robot-b", YEAR - early);
    wait_for_peer_clock(&robots[1], "robot-a", early - YEAR);

    // They come back with other clocks, the second one far before its own last handshakes.
    for (robot, offset) in robots.iter_mut().zip([-YEAR, early]) {
        robot.kill();
        robot.set_clock(offset);
        robot.start(&[]);
    }
    robots[0].wait_for_link("robot-b", "up");
    robots[1].wait_for_link("robot-a", "up");
    assert_eq!(robots[1].ping(&robots[0].address(), 3), 3);
    for (robot, offset) in robots.iter().zip([-YEAR, early]) {
        eventually("the coordinator is connected", || robot.status()["coordinator_state"] == "connected");
        wait_for_offset(robot, offset);
    }
}

#[test]
fn a_clock_that_is_set_while_the_robot_runs_disturbs_nothing() {
    let mut team = Team::new("agent-clock-set", &Site::Apart(Nat::Symmetric));
    let key = team.key(&["--reusable"]);
    let (a, mut b) = (team.robot("robot-a", &[]), team.robot_with_clock("robot-b", 0));
    for robot in [&a, &b] {
        assert_eq!(robot.join(&key).code, 0);
    }
    a.wait_for_link("robot-b", "up");
    wait_for_offset(&b, 0);
    let address = b.address();
    for offset in [YEAR, to_1970(), 0] {
        b.set_clock(offset);
        wait_for_offset(&b, offset);
        wait_for_peer_clock(&a, "robot-b", offset);
        wait_for_peer_clock(&b, "robot-a", -offset);
        let warned = a.ria(&["doctor", "--json"]).out.contains("clocks-apart");
        assert_eq!(warned, offset != 0, "clock off by {offset} s");
        assert_eq!(a.ping(&address, 5), 5, "clock off by {offset} s");
        assert_eq!(b.peer("robot-a")["link_state"], "up");
    }
    // A coordinator that comes back finds it under whichever clock, and so does its peer after a restart.
    b.set_clock(YEAR);
    team.kill_coordinator();
    b.set_clock(to_1970());
    team.start_coordinator();
    eventually("connected again", || b.status()["coordinator_state"] == "connected");
    b.kill();
    b.start(&[]);
    b.wait_for_link("robot-a", "up");
    assert_eq!(a.ping(&address, 3), 3);
}
