//! Robots whose direct path is as full as it gets: probes and the other path live beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlab::{Link, Nat};
use ria_api::state::{Event, PathKind};
use support::listener::Listener;
use support::{Robot, Site, Team, eventually, eventually_within};

const PORT: u16 = 9200;

/// Datagrams of 1200 bytes, more than the link of a robot carries in [`full_links`].
const PER_MS: usize = 8;

/// A flood that never waits for anybody, as cameras send.
struct Flood {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(from: &Robot, to: &Robot) -> Self {
        let target = SocketAddr::new(to.address().parse().unwrap(), PORT);
        let receiver = to.host.enter(|| UdpSocket::bind(target)).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let sender = from.host.enter(|| UdpSocket::bind(("0.0.0.0", 0))).unwrap();
        let (stop, arrived) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, stopped, count) = (stop.clone(), stop.clone(), arrived.clone());
        let sending = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // What is refused for want of room is lost, as everywhere.
                (0..PER_MS).for_each(|_| drop(sender.send_to(&[7; 1200], target)));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let receiving = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if receiver.recv(&mut [0; 1500]).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, arrived, threads: vec![sending, receiving] }
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap_or_default());
    }
}

/// Two robots with a direct path whose links are narrow, and a relay that is 30 ms further away.
fn full_links(name: &str) -> (Team, Robot, Robot) {
    let mut team = Team::new(name, &Site::Apart(Nat::PortPreserving));
    let set = |team: &mut Team, node: &str, settings: &[&str]| {
        let mut link = Link::default();
        link.set_all(settings).unwrap();
        team.lab.set_link(node, link).unwrap();
    };
    set(&mut team, "coordinator", &["delay=15ms"]);
    let (a, b) = team.pair();
    for (robot, peer) in [(&a, "robot-b"), (&b, "robot-a")] {
        eventually("the path is direct", || robot.peer(peer)["path"] == "direct");
        set(&mut team, robot.host.name(), &["rate-up=30mbit"]);
    }
    (team, a, b)
}

fn paths(listener: &Listener, since: Instant) -> Vec<Event> {
    let mut events = listener.of_kind("path", since);
    events.extend(listener.of_kind("link_state", since).into_iter().filter(|event| event.after == "lost"));
    events
}

#[test]
fn probes_survive_a_flood_and_a_way_that_dies_in_one_direction_is_left_for_a_slower_relay() {
    let (_team, a, b) = full_links("load-flood");
    let listeners = [Listener::on(&a.host), Listener::on(&b.host)];
    let begin = Instant::now();
    let floods = [Flood::start(&a, &b), Flood::start(&b, &a)];
    std::thread::sleep(Duration::from_secs(6));
    for (listener, flood) in listeners.iter().zip(&floods) {
        assert_eq!(paths(listener, begin), [], "a full path is no dead one");
        assert!(flood.arrived() > 3000, "it was full: {}", flood.arrived());
    }
    for (robot, peer) in [(&a, "robot-b"), (&b, "robot-a")] {
        let peer = robot.peer(peer);
        assert!(
            peer["rtt"].as_f64().is_some_and(|rtt| rtt < 0.3),
            "probes don't wait behind the flood: {peer}"
        );
    }
    // From here on nothing gets from A to B directly; what B sends goes on arriving.
    let endpoint = a.peer("robot-b")["endpoint"].as_str().unwrap().to_owned();
    let to = endpoint.rsplit_once(':').unwrap().0;
    let rules = format!(
        "add table inet cut; add chain inet cut out {{ type filter hook output priority 0; }}; \
         add rule inet cut out ip daddr {to} drop"
    );
    let cut = Instant::now();
    a.host.run(&["nft", &rules]).unwrap();
    for (robot, peer) in [(&a, "robot-b"), (&b, "robot-a")] {
        eventually("the relay has taken over", || robot.peer(peer)["path"] == "relay_udp");
    }
    for listener in &listeners {
        let told = paths(listener, cut);
        assert!(told.iter().all(|event| event.kind == "path"), "the link was never lost: {told:#?}");
        let first = told.first().expect("the change was told");
        assert_eq!((first.path_before, first.path_after), (Some(PathKind::Direct), Some(PathKind::RelayUdp)));
    }
    let before = floods.each_ref().map(Flood::arrived);
    eventually("both floods go on over the relay", || {
        floods.iter().zip(before).all(|(flood, before)| flood.arrived() > before + 500)
    });
}

/// The longest round trip of twenty pings in ms; `None` when one got lost.
fn longest_ping(from: &Robot, to: &Robot) -> Option<f64> {
    let output =
        from.host.output(&["ping", "-n", "-q", "-i", "0.05", "-W", "5", "-c", "20", &to.address()]).ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let times = text.split(" = ").nth(1).filter(|_| text.contains("20 received"))?;
    times.split('/').nth(2)?.parse().ok()
}

#[test]
fn what_sends_little_does_not_wait_in_a_deep_queue_behind_what_floods_it() {
    let mut team = Team::new("load-queue", &Site::Together);
    let (a, b) = team.pair();
    eventually("the path is direct", || a.peer("robot-b")["path"] == "direct");
    // Full, this queue is 1.6 s long.
    let mut link = Link::default();
    link.set_all(&["rate-up=20mbit", "queue-up=4m"]).unwrap();
    team.lab.set_link("robot-a", link).unwrap();
    let flood = Flood::start(&a, &b);
    let short = || longest_ping(&a, &b).is_some_and(|longest| longest < 200.0);
    // A machine that has other things to do may make it believe, for 20 s, that the queue is another one's.
    let patience = Duration::from_secs(60);
    eventually_within(patience, "pings don't wait behind the flood", || short() && short());
    let (before, began) = (flood.arrived(), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let mbits = (flood.arrived() - before) as f64 * 1200.0 * 8e-6 / began.elapsed().as_secs_f64();
    assert!(mbits > 12.0, "and the flood has the rest of the link: {mbits:.1} Mbit/s");
    let drops = a.status()["drops"].clone();
    assert!(drops["send-full"].as_u64().or(drops["send-stale"].as_u64()).is_some_and(|n| n > 0), "{drops}");
}
