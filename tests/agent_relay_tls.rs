//! Robots where UDP does not get out: the relay over TLS on the coordinator's port.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::time::{Duration, Instant};

use netlab::{Link, Nat};
use ria_api::state::PathKind;
use support::listener::Listener;
use support::transfer::Transfer;
use support::{Robot, Site, Team, eventually, eventually_within};

/// A firewall for UDP before this host, or none.
fn block_udp(team: &mut Team, host: &str, block: bool) {
    let mut link = Link::default();
    link.set_all(&[if block { "udp=blocked" } else { "udp=open" }]).unwrap();
    team.lab.set_link(host, link).unwrap();
}

fn path(robot: &Robot, peer: &str) -> String {
    robot.peer(peer)["path"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_robot_without_udp_is_reached_over_tls_and_goes_back_to_udp_when_it_opens() {
    let mut team = Team::new("relay-tls", &Site::Apart(Nat::Symmetric));
    block_udp(&mut team, "robot-a", true);
    let (a, b) = team.pair();
    assert_eq!(path(&a, "robot-b"), "relay_tls");
    assert_eq!(path(&b, "robot-a"), "relay_udp", "the other end needs no TLS");
    assert!(a.conditions().contains(&"udp-blocked".to_owned()));
    assert_eq!(a.ping(&b.address(), 10), 10);
    assert_eq!(b.ping(&a.address(), 10), 10);
    // Packets of full size, and in both directions at a time.
    let line = ["ping", "-n", "-q", "-M", "do", "-s", "1252", "-i", "0.02", "-c", "100", &b.address()];
    let output = a.host.output(&line).unwrap();
    assert_eq!(support::received(&String::from_utf8_lossy(&output.stdout)), 100);

    block_udp(&mut team, "robot-a", false);
    let long = std::time::Duration::from_secs(60);
    eventually_within(long, "the relay is used over UDP again", || path(&a, "robot-b") == "relay_udp");
    assert_eq!(a.ping(&b.address(), 10), 10);
    eventually("nothing is said about UDP any more", || !a.conditions().contains(&"udp-blocked".to_owned()));

    // And once more, while traffic flows.
    block_udp(&mut team, "robot-a", true);
    eventually("the relay is used over TLS again", || path(&a, "robot-b") == "relay_tls");
    assert_eq!(a.ping(&b.address(), 10), 10);
}

#[test]
fn a_direct_path_under_which_udp_is_closed_is_left_for_the_relay_over_tls() {
    let mut team = Team::new("relay-tls3", &Site::Apart(Nat::PortPreserving));
    let (a, b) = team.pair();
    for (robot, peer) in [(&a, "robot-b"), (&b, "robot-a")] {
        eventually("the path is direct", || path(robot, peer) == "direct");
    }
    let stream = Transfer::start(&a, &b);
    let listener = Listener::on(&a.host);
    let closed = Instant::now();
    block_udp(&mut team, "robot-a", true);
    eventually("the relay is used over TLS", || path(&a, "robot-b") == "relay_tls");
    assert_eq!(path(&b, "robot-a"), "relay_udp");
    let paths = listener.of_kind("path", closed);
    let last = paths.last().expect("the change was told");
    assert_eq!(last.path_after, Some(PathKind::RelayTls), "{paths:#?}");
    std::thread::sleep(Duration::from_millis(500));
    // Every byte has arrived, over the one way and the other.
    let received = stream.finish();
    assert!(received.longest_pause < Duration::from_secs(15), "{received:?}");
    block_udp(&mut team, "robot-a", false);
    let long = Duration::from_secs(60);
    eventually_within(long, "the path is direct again", || path(&a, "robot-b") == "direct");
}

#[test]
fn two_robots_without_udp_reach_each_other_again_after_a_restart_of_the_relay() {
    let mut team = Team::new("relay-tls2", &Site::Apart(Nat::Symmetric));
    for robot in ["robot-a", "robot-b"] {
        block_udp(&mut team, robot, true);
    }
    let (a, b) = team.pair();
    for (robot, peer) in [(&a, "robot-b"), (&b, "robot-a")] {
        assert_eq!(path(robot, peer), "relay_tls");
    }
    assert_eq!(a.ping(&b.address(), 10), 10);
    // The coordinator goes away and comes back: so does the relay.
    team.kill_coordinator();
    eventually("the link is lost", || a.peer("robot-b")["link_state"] == "lost");
    team.start_coordinator();
    a.wait_for_link("robot-b", "up");
    eventually("packets flow again", || a.ping(&b.address(), 3) == 3);
}
