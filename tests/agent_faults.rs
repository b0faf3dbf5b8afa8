//! Agents that are killed, stopped, starved and damaged: each ends connected, by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use netlab::Nat;
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Robot, SOON, Site, Team, eventually};

const STATE: &str = "/var/lib/ria";
const FILE: &[&str] = &["--join-file", "/run/key"];

/// Kills the agent before it does one of these for the `n`th time (in some thread).
fn strace(n: u32) -> Vec<String> {
    let inject = format!("inject=rename,fsync,unlink,mkdir:signal=KILL:when={n}");
    let line = ["strace", "-f", "-qq", "-o", "/dev/null"];
    let traced = ["-e", "trace=rename,fsync,unlink,mkdir", "-e", &inject];
    [&line[..], &traced[..]].concat().into_iter().map(str::to_owned).collect()
}

fn start_to_be_killed(robot: &mut Robot, n: u32, options: &[&str]) {
    let starter = strace(n);
    robot.start_by(&starter.iter().map(String::as_str).collect::<Vec<_>>(), options);
}

/// Waits until the agent is killed, or until it has got so far that nothing will be written any more.
fn await_the_kill(robot: &mut Robot) -> bool {
    let mut quiet = 0;
    for _ in 0..SOON.as_millis() / 50 {
        if robot.has_ended() {
            return true;
        }
        quiet = if robot.ria(&["status"]).code == 0 { quiet + 1 } else { 0 };
        // News of members are stored two seconds later.
        if quiet > 60 {
            return false;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("neither killed nor up: {}", robot.log());
}

fn nodes(team: &Team) -> Vec<Value> {
    let nodes: Value = serde_json::from_str(&team.admin(&["node", "list", "--json"]).out).unwrap();
    nodes.as_array().or_else(|| nodes["nodes"].as_array()).unwrap_or_else(|| panic!("{nodes}")).clone()
}

/// The one file of each name in the robot's one network.
fn part(robot: &Robot, name: &str) -> PathBuf {
    let mut networks = fs::read_dir(robot.host.path(STATE).join("networks")).unwrap().flatten();
    networks.next().unwrap().path().join(name)
}

#[test]
fn a_kill_at_any_write_of_an_enrolment_leads_to_one_member() {
    let team = Team::new("faults-enrol", &Site::Together);
    let mut robot = team.robot("robot-a", &[]);
    robot.kill();
    let mut kills = 0;
    for n in [1, 2, 3, 5, 8, 11, 15, 19] {
        let _ = fs::remove_dir_all(robot.host.path(STATE).join("networks"));
        // Good for one machine only: whoever asks with other keys is refused.
        fs::write(robot.host.path("/run/key"), team.key(&[])).unwrap();
        let before = nodes(&team).len();
        start_to_be_killed(&mut robot, n, FILE);
        kills += u32::from(await_the_kill(&mut robot));
        robot.kill_started();
        robot.start(FILE);
        eventually(&format!("a member, after a kill at write {n}"), || robot.status()["state"] == "up");
        eventually("nothing is wrong", || robot.conditions().is_empty());
        assert_eq!(nodes(&team).len(), before + 1, "write {n}: {:?}", nodes(&team));
        robot.kill();
    }
    assert!(kills >= 6, "only {kills} of 8 starts wrote enough to be killed");
}

#[test]
fn a_kill_at_any_write_of_a_member_costs_nothing() {
    let team = Team::new("faults-change", &Site::Together);
    let (mut a, b) = team.pair();
    let id = a.status()["node_id"].clone();
    let mut kills = 0;
    for n in 1..=6 {
        a.kill();
        // The map changes while the robot is away, and once more while it runs.
        assert_eq!(team.admin(&["node", "tag", "robot-b", "--add", &format!("away-{n}")]).code, 0);
        start_to_be_killed(&mut a, n, &[]);
        assert_eq!(team.admin(&["node", "tag", "robot-b", "--add", &format!("there-{n}")]).code, 0);
        kills += u32::from(await_the_kill(&mut a));
        a.kill_started();
        a.start(&[]);
        eventually("the newest map is known", || {
            let tags = a.peer("robot-b")["tags"].to_string();
            tags.contains(&format!("there-{n}")) && a.peer("robot-b")["link_state"] == "up"
        });
        assert_eq!(a.status()["node_id"], id);
    }
    assert!(kills >= 3, "only {kills} of 6 starts wrote enough to be killed");
    eventually("packets flow", || a.ping(&b.address(), 3) == 3);
    assert!(a.conditions().is_empty(), "{:?}", a.conditions());
}

#[test]
fn a_new_agent_takes_over_what_a_killed_one_left() {
    let team = Team::new("faults-leftovers", &Site::Together);
    let (mut a, mut b) = team.pair();
    let address = b.address();
    // Pseudo-random, the same each time: into the start, the first handshake, and the quiet after it.
    for delay in [0, 7, 31, 90, 160, 230, 410, 650] {
        let robot = if delay % 2 == 0 { &mut a } else { &mut b };
        robot.kill();
        assert!(robot.host.path("/run/ria/bus").exists(), "the socket is left: that is what this is about");
        robot.start_unwatched(&[]);
        thread::sleep(Duration::from_millis(delay));
    }
    for (robot, peer) in [(&a, "robot-b"), (&b, "robot-a")] {
        robot.wait_for_link(peer, "up");
        assert!(robot.has_interface("ria0") && !robot.has_interface("ria1"), "the interface keeps its name");
        let status = robot.status();
        assert_eq!((&status["interface"], &status["udp_port"]), (&"ria0".into(), &41820.into()), "{status}");
        let rules =
            String::from_utf8(robot.host.output(&["ip", "route", "show", "dev", "ria0"]).unwrap().stdout);
        assert_eq!(rules.unwrap().lines().count(), 1, "one route, to the overlay");
    }
    eventually("packets flow", || a.ping(&address, 5) == 5);
}

#[test]
fn a_hung_agent_goes_on_where_the_others_are() {
    let mut team = Team::new("faults-hung", &Site::Apart(Nat::PortPreserving));
    let (a, mut b) = team.pair();
    let address = b.address();
    b.signal(Signal::SIGSTOP);
    eventually("the others notice", || a.ping(&address, 1) == 0 && a.peer("robot-b")["link_state"] == "lost");
    // Longer than the coordinator waits for a sign of life, and it is another one afterwards.
    thread::sleep(Duration::from_secs(16));
    team.kill_coordinator();
    team.start_coordinator();
    b.signal(Signal::SIGCONT);
    a.wait_for_link("robot-b", "up");
    b.wait_for_link("robot-a", "up");
    eventually("packets flow", || a.ping(&address, 3) == 3);
    eventually("it is connected", || b.status()["coordinator_state"] == "connected");
    eventually("nothing is wrong", || b.conditions().is_empty());
}

#[test]
fn what_did_not_fit_on_a_full_disk_is_stored_when_there_is_room() {
    let mut team = Team::new("faults-full", &Site::Together);
    let host = team.host("robot-a");
    fs::create_dir_all(host.path("/run/state")).unwrap();
    host.run(&["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", "/run/state"]).unwrap();
    let options = ["--state-dir", "/run/state"];
    let mut a = team.robot("robot-a", &options);
    assert_eq!(a.join(&team.key(&[])).code, 0);
    eventually("the map is known", || a.status()["state"] == "up");
    let filler = host.path("/run/state/filler");
    support::fill(&filler);
    let b = team.robot("robot-b", &[]);
    assert_eq!(b.join(&team.key(&[])).code, 0);
    a.wait_for_link("robot-b", "up");
    eventually("it says so", || a.conditions().contains(&"state-not-saved".to_owned()));
    // Even a start is possible, with what was stored before.
    a.kill();
    a.start(&options);
    a.wait_for_link("robot-b", "up");
    eventually("it says so again", || a.conditions().contains(&"state-not-saved".to_owned()));
    fs::remove_file(&filler).unwrap();
    eventually("it is over by itself", || a.conditions().is_empty());
    // The new member is on the disk now: nobody else could tell of it.
    team.kill_coordinator();
    a.kill();
    a.start(&options);
    a.wait_for_link("robot-b", "up");
}

fn spoil(path: &Path, how: usize) {
    let whole = fs::read(path).unwrap();
    match how % 5 {
        0 => fs::write(path, &whole[..whole.len() / 2]).unwrap(),
        1 => {
            let mut flipped = whole;
            let at = flipped.len() * 2 / 3;
            flipped[at] ^= 8;
            fs::write(path, flipped).unwrap();
        }
        2 => fs::write(path, b"").unwrap(),
        3 => fs::write(path, b"ria-state-9\nfrom the future").unwrap(),
        _ => fs::remove_file(path).unwrap(),
    }
}

#[test]
fn damaged_files_are_mended_and_keys_are_never_thrown_away() {
    let team = Team::new("faults-damage", &Site::Together);
    let (mut a, _b) = team.pair();
    let id = a.status()["node_id"].clone();
    eventually("everything is stored", || part(&a, "live").exists() && part(&a, "map").exists());
    for how in 0..5 {
        a.kill();
        for (n, name) in ["identity", "keys", "certificate", "map", "live", "contact"].into_iter().enumerate()
        {
            if part(&a, name).exists() {
                spoil(&part(&a, name), how + n);
            }
        }
        // Of other people's ownership an agent that runs as root takes no notice.
        nix::unistd::chown(&part(&a, "keys.copy"), Some(65_534.into()), Some(65_534.into())).unwrap();
        a.start(&[]);
        a.wait_for_link("robot-b", "up");
        assert_eq!(a.status()["node_id"], id, "it is the same member");
        eventually("nothing is wrong", || a.conditions().is_empty());
    }
    assert!(part(&a, "keys.damaged").exists(), "for people to look at");
    // Both files of the keys: nothing to be done but to say so, and to look again.
    a.kill();
    let backup = fs::read(part(&a, "keys")).unwrap();
    for name in ["keys", "keys.copy"] {
        spoil(&part(&a, name), 1);
    }
    a.start(&[]);
    assert_eq!(a.conditions(), ["state-damaged"]);
    assert_eq!(a.status(), Value::Null);
    fs::write(part(&a, "keys"), backup).unwrap();
    a.wait_for_link("robot-b", "up");
    assert!(a.conditions().is_empty(), "{:?}", a.conditions());
}

#[test]
fn a_network_without_keys_is_joined_again_from_the_file_and_its_remains_are_kept() {
    let team = Team::new("faults-rejoin", &Site::Together);
    let mut a = team.robot("robot-a", &[]);
    a.kill();
    fs::write(a.host.path("/run/key"), team.key(&["--reusable"])).unwrap();
    a.start(FILE);
    eventually("it is a member", || a.status()["state"] == "up");
    a.kill();
    for name in ["keys", "keys.copy"] {
        spoil(&part(&a, name), 2);
    }
    a.start(FILE);
    eventually("it is a member again", || a.status()["state"] == "up");
    eventually("nothing is wrong", || a.conditions().is_empty());
    assert_eq!(nodes(&team).len(), 2, "another one: who it was can't be proved");
    let kept = fs::read_dir(a.host.path(STATE).join("unusable")).unwrap().flatten().next().unwrap();
    assert!(kept.path().join("identity").exists(), "the remains are kept");
}
