//! Keys and certificates of agents: they are renewed and changed while everything works, and whatever is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::thread;
use std::time::Duration;

use netlab::Nat;
use support::{Robot, Site, Team, eventually};

fn certificate_ends(robot: &Robot) -> f64 {
    robot.status()["certificate_expires"].as_f64().unwrap()
}

fn public_key(robot: &Robot) -> String {
    robot.status()["public_key"].as_str().unwrap().to_owned()
}

#[test]
fn certificates_and_relay_credentials_are_renewed_unattended_also_after_they_have_ended() {
    let lives = [("RIA_CERTIFICATES_LIFETIME", "12s"), ("RIA_RELAY_CREDENTIALS", "12s")];
    // Apart behind symmetric NATs: all traffic is relayed.
    let mut team = Team::with_settings("agent-renewal", &Site::Apart(Nat::Symmetric), &lives);
    let (a, b) = team.pair();
    let address = b.address();
    let first = certificate_ends(&a);
    eventually("a new certificate", || certificate_ends(&a) > first);
    assert_eq!(a.ping(&address, 3), 3);
    let second = certificate_ends(&a);
    eventually("and another one", || certificate_ends(&a) > second);
    assert!(!a.conditions().contains(&"certificate-ending".to_owned()), "{:?}", a.conditions());
    // By now the first credentials of the relay have ended; what flows, flows under the later ones.
    assert_eq!(a.peer("robot-b")["path"], "relay_udp");
    assert_eq!(a.ping(&address, 5), 5);

    // Without the coordinator the certificate ends; that is said, and it is renewed all the same.
    team.kill_coordinator();
    eventually("the end is told", || a.conditions().contains(&"certificate-ending".to_owned()));
    let last = certificate_ends(&a);
    eventually("it has ended", || a.ria(&["status"]).out.contains("expired"));
    team.start_coordinator();
    eventually("it is renewed", || certificate_ends(&a) > last);
    eventually("all is well", || !a.conditions().contains(&"certificate-ending".to_owned()));
    a.wait_for_link("robot-b", "up");
    assert_eq!(a.ping(&address, 3), 3);
}

#[test]
fn a_key_is_changed_without_a_lost_packet_and_survives_restarts() {
    let team = Team::new("agent-rotate", &Site::Together);
    let (a, mut b) = team.pair();
    let (address, before) = (b.address(), public_key(&b));
    let pinging = thread::scope(|scope| {
        let pinging = scope.spawn(|| a.ping(&address, 50));
        thread::sleep(Duration::from_secs(1));
        let rotated = b.ria(&["rotate-key", "--json"]);
        assert_eq!(rotated.code, 0, "{rotated:?}");
        pinging.join().unwrap()
    });
    assert_eq!(pinging, 50, "packets were lost");
    let after = public_key(&b);
    assert_ne!(after, before);
    assert!(!b.conditions().contains(&"not-listed".to_owned()), "{:?}", b.conditions());
    assert_eq!(b.address(), address);
    let node = team.admin(&["node", "show", "robot-b"]).out;
    assert!(node.contains(&after) && !node.contains(&before), "{node}");
    b.kill();
    b.start(&[]);
    b.wait_for_link("robot-a", "up");
    assert_eq!(public_key(&b), after);
    assert_eq!(a.ping(&address, 3), 3);
}

/// Whatever was done of the change by then: the key that the map names after it works, and so does the next change.
#[test]
fn a_robot_that_is_killed_at_any_moment_of_a_change_of_its_key_is_back_on_its_links() {
    let team = Team::new("agent-rotate-kills", &Site::Together);
    let (a, mut b) = team.pair();
    let address = b.address();
    for moment in [0, 5, 10, 15, 20, 30, 40, 60, 100, 300] {
        let mut asking = b.begin(&["rotate-key"]);
        thread::sleep(Duration::from_millis(moment));
        b.kill();
        // It may have been done just in time.
        let _ = asking.wait().unwrap();
        b.start(&[]);
        b.wait_for_link("robot-a", "up");
        a.wait_for_link("robot-b", "up");
        assert_eq!(a.ping(&address, 3), 3, "killed after {moment} ms");
    }
}

#[test]
fn a_key_that_waits_for_the_coordinator_survives_a_kill() {
    let mut team = Team::new("agent-rotate-kill", &Site::Together);
    let (a, mut b) = team.pair();
    let address = b.address();
    // Before the coordinator has heard of it: the new key waits on the disk.
    let before = public_key(&b);
    team.kill_coordinator();
    let mut asking = b.begin(&["rotate-key"]);
    thread::sleep(Duration::from_millis(1500));
    b.kill();
    assert!(!asking.wait().unwrap().success());
    b.start(&[]);
    b.wait_for_link("robot-a", "up");
    assert_eq!(public_key(&b), before);
    team.start_coordinator();
    eventually("the key has changed", || public_key(&b) != before);
    b.wait_for_link("robot-a", "up");
    assert_eq!(a.ping(&address, 3), 3);
}

#[test]
fn another_authority_takes_over_and_nobody_joins_again() {
    let mut team = Team::new("agent-ca", &Site::Together);
    let (a, mut b) = team.pair();
    let ids = (a.status()["node_id"].clone(), b.status()["node_id"].clone());
    let address = b.address();
    let old_key = team.key(&["--reusable"]);
    // One hears of it at once; the other is away for two of them, and for the end of the first.
    b.kill();
    let listed = team.admin(&["ca", "list"]).out;
    let first = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    for _ in 0..2 {
        let rolled = team.admin(&["ca", "roll"]);
        assert_eq!(rolled.code, 0, "{rolled:?}");
    }
    let retired = team.admin(&["ca", "retire", &first]);
    assert!(retired.code == 0 && retired.out.contains("retired"), "{retired:?}");
    team.kill_coordinator();
    team.start_coordinator();
    b.start(&[]);
    for robot in [&a, &b] {
        eventually("connected", || robot.status()["coordinator_state"] == "connected");
    }
    b.wait_for_link("robot-a", "up");
    assert_eq!(a.ping(&address, 3), 3);
    assert_eq!((a.status()["node_id"].clone(), b.status()["node_id"].clone()), ids);
    // A join key from before leads to the same coordinator.
    assert_eq!(b.ria(&["leave", "--yes"]).code, 0);
    let joined = b.join(&old_key);
    assert_eq!(joined.code, 0, "{joined:?}");
}
