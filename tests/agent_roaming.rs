//! Robots that move, lose their network, or whose NAT forgets: what goes on meanwhile, and what is told of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use netlab::{Nat, NetworkSpec, Process, RouterSpec};
use ria_api::state::{Event, PathKind};
use support::listener::Listener;
use support::transfer::Transfer;
use support::{Robot, Site, Team, eventually};

/// Each robot behind a NAT of its own, and another Wi-Fi behind a third one.
fn team_with_hall(name: &str, nat: Nat) -> Team {
    let mut team = Team::new(name, &Site::Apart(nat));
    team.lab.add_network("hall", NetworkSpec::campus_wifi("192.168.7.0/24".parse().unwrap())).unwrap();
    team.lab.add_router("nat-hall", RouterSpec::new("internet", "hall", nat)).unwrap();
    team
}

fn wait_for_path(robot: &Robot, peer: &str, path: &str) {
    eventually(&format!("the path to {peer} is {path}"), || robot.peer(peer)["path"] == path);
}

/// Whether the two are linked, as both see it, from the place where they are now.
fn are_linked(a: &Robot, b: &Robot) -> bool {
    let up = |robot: &Robot, peer: &str| robot.peer(peer)["link_state"] == "up";
    up(a, "robot-b") && up(b, "robot-a") && a.ping(&b.address(), 2) == 2
}

fn move_to(team: &mut Team, robot: &str, network: &str) -> Instant {
    let at = Instant::now();
    team.lab.move_host(robot, network).unwrap();
    at
}

/// When the sessions of two began, as seconds of this process's clock.
fn handshakes(robots: [(&Robot, &str); 2], origin: Instant) -> [f64; 2] {
    robots.map(|(robot, peer)| {
        let peer = robot.peer(peer);
        origin.elapsed().as_secs_f64() - peer["handshake_age"].as_f64().unwrap_or_else(|| panic!("{peer}"))
    })
}

/// What the kernel tells of the overlay interface.
struct Monitor {
    process: Process,
    log: PathBuf,
}

impl Monitor {
    fn on(robot: &Robot, directory: &tempfile::TempDir) -> Self {
        let log = directory.path().join(robot.host.name());
        let line = ["ip", "-o", "monitor", "link", "address", "route"];
        Self { process: robot.host.spawn(&line, &log).unwrap(), log }
    }

    fn assert_saw_only_the_uplink(mut self) {
        self.process.kill().unwrap();
        let seen = std::fs::read_to_string(self.log).unwrap();
        assert!(seen.contains("eth0"), "the move itself is seen: {seen}");
        let own: Vec<&str> = seen.lines().filter(|line| line.contains("ria0")).collect();
        assert!(own.is_empty(), "{own:?}");
    }
}

#[test]
fn a_stream_and_pings_outlive_moves_between_two_wifis() {
    let mut team = team_with_hall("roam-wifi", Nat::PortPreserving);
    let (a, b) = team.pair();
    wait_for_path(&a, "robot-b", "direct");
    wait_for_path(&b, "robot-a", "direct");
    let (origin, directory) = (Instant::now(), tempfile::tempdir().unwrap());
    let pair = [(&a, "robot-b"), (&b, "robot-a")];
    let (monitor, before) = (Monitor::on(&a, &directory), handshakes(pair, origin));
    let listeners = [Listener::on(&a.host), Listener::on(&b.host)];
    let streams = [Transfer::start(&a, &b), Transfer::start(&b, &a)];
    let address = b.address();
    let answered = thread::scope(|scope| {
        let pinging = scope.spawn(|| a.ping(&address, 60));
        thread::sleep(Duration::from_secs(1));
        for network in ["hall", "wifi-1"] {
            move_to(&mut team, "robot-a", network);
            eventually("linked from the new network", || are_linked(&a, &b));
            wait_for_path(&a, "robot-b", "direct");
            wait_for_path(&b, "robot-a", "direct");
        }
        pinging.join().unwrap()
    });
    assert!(answered >= 30, "{answered} of 60 pings were answered");
    for stream in streams {
        let received = stream.finish();
        assert!(received.bytes > 500_000, "{received:?}");
    }
    monitor.assert_saw_only_the_uplink();
    // Out and back: each costs at most the loss, the relay, and the direct path again; at the robot that moves, nothing when
    // the first probe from the new network gets through.
    for (listener, least) in listeners.iter().zip([0, 2]) {
        let paths = listener.of_kind("path", origin);
        assert!((least..=12).contains(&paths.len()), "{paths:#?}");
    }
    assert!(!listeners[0].of_kind("uplink", origin).is_empty());
    for (before, after) in before.into_iter().zip(handshakes(pair, origin)) {
        assert!((before - after).abs() < 1.0, "a move begins no handshake: {before} {after}");
    }
}

#[test]
fn robots_that_move_at_the_same_time_find_each_other() {
    let mut team = team_with_hall("roam-both", Nat::PortPreserving);
    let (a, b) = team.pair();
    wait_for_path(&a, "robot-b", "direct");
    let stream = Transfer::start(&a, &b);
    move_to(&mut team, "robot-a", "hall");
    move_to(&mut team, "robot-b", "wifi-1");
    eventually("linked from the new networks", || are_linked(&a, &b));
    wait_for_path(&a, "robot-b", "direct");
    wait_for_path(&b, "robot-a", "direct");
    thread::sleep(Duration::from_millis(500));
    stream.finish();
}

#[test]
fn a_robot_that_moves_while_the_coordinator_is_away_is_found_by_its_probes() {
    let mut team = team_with_hall("roam-alone", Nat::PortPreserving);
    let (a, b) = team.pair();
    wait_for_path(&a, "robot-b", "direct");
    // Only the relay answers there from now on.
    let coordinator = team.host("coordinator");
    for line in [
        "add table inet away",
        "add chain inet away input { type filter hook input priority 0; }",
        "add rule inet away input tcp dport 443 drop",
    ] {
        coordinator.run(&["nft", line]).unwrap();
    }
    let stream = Transfer::start(&a, &b);
    move_to(&mut team, "robot-a", "hall");
    eventually("linked without the coordinator", || are_linked(&a, &b));
    wait_for_path(&a, "robot-b", "direct");
    wait_for_path(&b, "robot-a", "direct");
    let ended = b.peer("robot-a")["endpoint"].as_str().unwrap().to_owned();
    stream.finish();
    eventually("it is away indeed", || a.status()["coordinator_state"] == "unreachable");
    assert!(ended.ends_with(":41820"), "where the hall's NAT shows it: {ended}");
}

#[test]
fn a_robot_that_moves_while_coordinator_and_relay_are_dead_goes_on_with_whom_it_can_reach() {
    let mut team = team_with_hall("roam-dead", Nat::PortPreserving);
    team.lab.move_host("robot-b", "internet").unwrap();
    let (a, b) = team.pair();
    wait_for_path(&a, "robot-b", "direct");
    team.kill_coordinator();
    let stream = Transfer::start(&b, &a);
    move_to(&mut team, "robot-a", "hall");
    eventually("linked without anybody's help", || are_linked(&a, &b));
    thread::sleep(Duration::from_millis(500));
    stream.finish();
}

/// The loss and the return of a link, as one end was told.
fn loss_and_return(listener: &Listener, since: Instant) -> (Event, Event) {
    let back = listener.wait_for_link("up", since);
    let lost = listener.wait_for_link("lost", since);
    assert!(lost.seq < back.seq, "{lost:?} {back:?}");
    (lost, back)
}

#[test]
fn a_black_out_is_told_at_both_ends_with_gap_and_paths() {
    let mut team = Team::new("roam-black", &Site::Apart(Nat::PORT_RESTRICTED));
    let (a, b) = team.pair();
    wait_for_path(&a, "robot-b", "direct");
    wait_for_path(&b, "robot-a", "direct");
    let stream = Transfer::start(&a, &b);
    let listeners = [Listener::on(&a.host), Listener::on(&b.host)];
    thread::sleep(Duration::from_secs(1));
    let begin = Instant::now();
    team.lab.black_out("robot-a", None, Duration::from_secs(5)).unwrap();
    for listener in &listeners {
        let (lost, back) = loss_and_return(listener, begin);
        let seen = listener.events();
        let (at, _) = seen.iter().find(|(_, event)| event.seq == lost.seq).unwrap();
        assert!(*at - begin < Duration::from_secs(4), "it was told while it lasted: {:?}", *at - begin);
        assert_eq!((lost.path_before, lost.path_after), (Some(PathKind::Direct), Some(PathKind::None)));
        assert!(lost.gap.is_none() && back.gap.is_some_and(|gap| (4.0..20.0).contains(&gap)), "{back:?}");
        assert_eq!(back.path_before, Some(PathKind::Direct));
        assert!(matches!(back.path_after, Some(PathKind::Direct | PathKind::RelayUdp)), "{back:?}");
    }
    wait_for_path(&a, "robot-b", "direct");
    let peer = a.peer("robot-b");
    assert!(peer["last_gap"].as_f64().is_some_and(|gap| gap > 4.0), "{peer}");
    assert!(peer["last_change"].as_str().is_some_and(|text| text.contains("robot-b")), "{peer}");
    stream.finish();
}

#[test]
fn a_nat_that_forgets_its_mappings_ends_no_stream() {
    let mut team = Team::new("roam-nat", &Site::Apart(Nat::PORT_RESTRICTED));
    let (a, b) = team.pair();
    wait_for_path(&a, "robot-b", "direct");
    let stream = Transfer::start(&b, &a);
    thread::sleep(Duration::from_secs(1));
    team.lab.reboot_nat("nat-1").unwrap();
    eventually("linked through the NAT that forgot", || are_linked(&a, &b));
    // Now from another address outside, too.
    team.lab.readdress_nat("nat-1", None).unwrap();
    eventually("linked through the NAT's new address", || are_linked(&a, &b));
    wait_for_path(&b, "robot-a", "direct");
    stream.finish();
}

#[test]
fn a_machine_that_loses_its_network_says_so_before_its_peers_are_lost() {
    let team = Team::new("roam-gone", &Site::Apart(Nat::PortPreserving));
    let (a, b) = team.pair();
    wait_for_path(&a, "robot-b", "direct");
    let (listener, begin) = (Listener::on(&a.host), Instant::now());
    let gateway =
        String::from_utf8(a.host.output(&["ip", "route", "show", "default"]).unwrap().stdout).unwrap();
    a.host.run(&["ip", "link", "set", "eth0", "down"]).unwrap();
    let lost = listener.wait_for_link("lost", begin);
    assert!(lost.text.contains("this machine has no network"), "{lost:?}");
    let uplink = &listener.of_kind("uplink", begin)[0];
    assert_eq!((uplink.before.as_str(), uplink.after.as_str()), ("up", "down"));
    assert!(uplink.seq < lost.seq && uplink.peer.is_empty(), "{uplink:?} {lost:?}");
    assert_eq!(a.peer("robot-b")["path_reason"], "this machine has no network");
    a.host.run(&["ip", "link", "set", "eth0", "up"]).unwrap();
    let route: Vec<&str> = ["ip", "route", "replace"].into_iter().chain(gateway.split_whitespace()).collect();
    a.host.run(&route).unwrap();
    let back = listener.wait_for_link("up", begin);
    assert!(back.gap.is_some(), "{back:?}");
    eventually("linked again", || are_linked(&a, &b));
}

/// The relay's way is 30 ms longer, and everything shares a link that is full.
#[test]
fn a_transfer_that_fills_the_link_moves_no_path() {
    let mut team = Team::new("roam-bulk", &Site::Apart(Nat::PORT_RESTRICTED));
    let (a, b) = team.pair();
    wait_for_path(&a, "robot-b", "direct");
    wait_for_path(&b, "robot-a", "direct");
    for (name, settings) in
        [("robot-a", &["rate=20mbit", "delay=1ms"]), ("coordinator", &["delay=15ms", "jitter=0ms"])]
    {
        let mut link = team.lab.link(name).unwrap().clone();
        link.set_all(settings).unwrap();
        team.lab.set_link(name, link).unwrap();
    }
    // What was under way in the cable when the emulator was put in is lost.
    eventually("linked over the slower links", || are_linked(&a, &b));
    wait_for_path(&a, "robot-b", "direct");
    let (listeners, begin) = ([Listener::on(&a.host), Listener::on(&b.host)], Instant::now());
    let streams = [Transfer::start_full(&a, &b), Transfer::start_full(&b, &a)];
    thread::sleep(Duration::from_secs(8));
    let bytes: u64 = streams.into_iter().map(|stream| stream.finish().bytes).sum();
    assert!(bytes > 4_000_000, "the link was full: {bytes}");
    for listener in &listeners {
        let moved = listener.of_kind("path", begin);
        assert!(moved.len() <= 1, "{moved:#?}");
        assert!(listener.of_kind("link_state", begin).iter().all(|event| event.after != "lost"));
    }
}
