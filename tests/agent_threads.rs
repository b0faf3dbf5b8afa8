//! Packets that pass through several threads of an agent.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::transfer::Transfer;
use support::{Robot, Team, eventually};

const ROBOTS: [&str; 4] = ["robot-a", "robot-b", "robot-c", "robot-d"];

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 0, 1);
const DISCOVERY: u16 = 7400;

/// A message of a DDS participant that says nothing.
const SILENT: &[u8] = b"RTPS\x02\x03\x01\x0fguid-prefix!";

/// How long idle agents are watched.
const IDLE: Duration = Duration::from_secs(3);

/// `robot-a` with three threads for packets, and others with one, on one network.
fn team(name: &str) -> (Team, Vec<Robot>) {
    let team = Team::crowd(name, &ROBOTS, &[]);
    let key = team.key(&["--reusable"]);
    let robots: Vec<Robot> = ROBOTS
        .into_iter()
        .map(|name| {
            let threads = if name == "robot-a" { 3 } else { 1 };
            let config = format!("packet_threads = {threads}\n");
            fs::write(team.host(name).path("/run/agent.toml"), config).unwrap();
            team.robot(name, &["--config", "/run/agent.toml"])
        })
        .collect();
    for robot in &robots {
        let joined = robot.join(&key);
        assert_eq!(joined.code, 0, "{joined:?}");
    }
    for other in &ROBOTS[1..] {
        eventually("the path is direct", || robots[0].peer(other)["path"] == "direct");
    }
    (team, robots)
}

/// For how long each of an agent's threads has been at work, in nanoseconds, by name and number.
fn work(robot: &Robot) -> BTreeMap<(String, String), u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", robot.pid())).unwrap().flatten();
    let read = |task: &fs::DirEntry, file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
    let each = tasks.filter_map(|task| {
        let name = read(&task, "comm").trim().to_owned();
        let time = read(&task, "schedstat").split_whitespace().next()?.parse().ok()?;
        Some(((name, task.file_name().into_string().unwrap()), time))
    });
    each.collect()
}

/// The same of the threads for packets alone, by name.
fn busy(robot: &Robot) -> BTreeMap<String, u64> {
    let each = work(robot).into_iter().map(|((name, _), time)| (name, time));
    each.filter(|(name, _)| name.starts_with("ria-shard") || name == "ria-packets").collect()
}

fn dropped(robot: &Robot, reason: &str) -> u64 {
    robot.status()["drops"][reason].as_u64().unwrap_or(0)
}

#[test]
fn several_threads_carry_the_packets_of_many_peers() {
    let (team, mut robots) = team("threads");
    let names: Vec<String> = busy(&robots[0]).into_keys().collect();
    assert_eq!(names, ["ria-packets", "ria-shard-1", "ria-shard-2"]);
    assert_eq!(busy(&robots[1]).len(), 1, "one is enough where the configuration says so");

    // As much as gets through, out and in, to peers of every thread; every byte is checked.
    let before = busy(&robots[0]);
    let [a, b, c, d] = &robots[..] else { panic!("four robots") };
    let transfers = [Transfer::start_full(a, b), Transfer::start_full(a, c), Transfer::start_full(d, a)];
    std::thread::sleep(Duration::from_secs(2));
    for transfer in transfers {
        let received = transfer.finish();
        assert!(received.bytes > 1 << 16, "{received:?}");
    }
    for (name, time) in busy(a) {
        assert!(time > before[&name] + 1_000_000, "{name} was at work for {} ns", time - before[&name]);
    }

    group_messages_reach_all(&robots);
    idle_threads_do_nothing(&robots);
    one_leaves_while_all_talk(&team, &robots);
    robots[0].stop(Signal::SIGTERM);
}

/// What goes to a group has one copy for each, whichever thread its peer is in.
fn group_messages_reach_all(robots: &[Robot]) {
    let receivers: Vec<UdpSocket> = robots[1..]
        .iter()
        .map(|robot| {
            let socket = robot.host.enter(|| UdpSocket::bind((GROUP, DISCOVERY))).unwrap();
            let own = robot.address().parse().unwrap();
            robot.host.enter(|| socket.join_multicast_v4(&GROUP, &own)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket
        })
        .collect();
    let host = &robots[0].host;
    host.run(&["ip", "route", "add", "239.255.0.1", "dev", "ria0"]).unwrap();
    let sender = host.enter(|| UdpSocket::bind((robots[0].address(), 0))).unwrap();
    for receiver in &receivers {
        eventually("a copy for each", || {
            sender.send_to(SILENT, (GROUP, DISCOVERY)).unwrap();
            let mut room = [0; 100];
            receiver.recv(&mut room).is_ok_and(|len| &room[..len] == SILENT)
        });
    }
}

/// Nothing spins, with one thread for packets or several: in three seconds without packets each thread does far less than one
/// that never waits, also on a machine that has no time for it; and threads that have nothing of their own to do, hardly anything.
fn idle_threads_do_nothing(robots: &[Robot]) {
    let mut worked = Vec::new();
    // What came before may have to come to rest.
    for _ in 0..5 {
        let before: Vec<_> = robots.iter().map(work).collect();
        std::thread::sleep(IDLE);
        let since = |(before, robot): (&BTreeMap<_, _>, _)| -> Vec<((String, String), u64)> {
            let each = work(robot).into_iter();
            each.map(|(thread, time)| (thread.clone(), time - before.get(&thread).unwrap_or(&0))).collect()
        };
        worked = before.iter().zip(robots).map(since).collect();
        let most = |name: &str| if name.starts_with("ria-shard") { 30_000_000 } else { 100_000_000 };
        if worked.iter().flatten().all(|((name, _), time)| *time < most(name)) {
            // The agent's loop and its packets at least.
            assert!(worked.iter().all(|threads| threads.len() >= 2), "{worked:?}");
            return;
        }
    }
    panic!("nanoseconds of {IDLE:?} in which nothing was to be done: {worked:?}");
}

/// One is removed while it is flooded, and the others' streams go on.
fn one_leaves_while_all_talk(team: &Team, robots: &[Robot]) {
    let [a, b, c, d] = robots else { panic!("four robots") };
    let target = SocketAddr::new(d.address().parse().unwrap(), 9000);
    let flood = a.host.enter(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let flooding = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            // It is refused once the interface's route is gone.
            (0..50).for_each(|_| drop(flood.send_to(&[7; 1200], target)));
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let transfers = [Transfer::start(a, b), Transfer::start(a, c)];
    assert_eq!(team.admin(&["node", "remove", "robot-d"]).code, 0);
    eventually("the others know", || a.peer("robot-d") == Value::Null);
    eventually("what is for it is dropped", || dropped(a, "no-route") > 0);
    stop.store(true, Ordering::Relaxed);
    flooding.join().unwrap();
    for transfer in transfers {
        assert!(transfer.finish().bytes > 0);
    }
    let status = a.ria(&["status", "--json"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert_eq!(a.ping(&c.address(), 5), 5);
}
