//! A relay of Ria's on another machine: it serves what the coordinator says, goes on without it, and cuts off at once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use netlab::{FlowEnd, Flows, Host, HostSpec, Link, Nat, Process};
use ria_protocol::message::from_bytes;
use ria_protocol::relay::RelayTerms;
use serde_json::Value;
use support::turn_client::{self, credentials, is_kept_out, is_lossless, later, now, uclient};
use support::{COORDINATOR, Ended, Robot, SOON, Site, Team, eventually, program};

/// Where the other relay is.
const VPS: &str = "198.51.100.40";

const PACE: Duration = Duration::from_millis(10);

/// Only relays elsewhere.
const NO_OWN_RELAY: &[(&str, &str)] = &[("RIA_RELAY_ENABLED", "false")];

/// A machine with a relay.
struct Vps {
    host: Host,
    relay: Option<Process>,
    log: PathBuf,
    directory: tempfile::TempDir,
}

impl Vps {
    fn new(team: &mut Team) -> Self {
        team.lab.add_host("vps", HostSpec::on("internet").at(VPS.parse().unwrap())).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("relay.log");
        Self { host: team.host("vps"), relay: None, log, directory }
    }

    /// With a key from the coordinator, connected.
    fn joined(team: &mut Team, options: &[&str]) -> Self {
        Self::joined_with(team, options, "")
    }

    /// With this in its configuration file.
    fn joined_with(team: &mut Team, options: &[&str], settings: &str) -> Self {
        let mut vps = Self::new(team);
        fs::write(vps.host.path("/run/relay.toml"), settings).unwrap();
        let added = team.admin(&[&["relay", "add", "vps"], options].concat());
        assert_eq!(added.code, 0, "{added:?}");
        vps.give_key(&added.out);
        vps.start(&["--config", "/run/relay.toml", "--key-file", "/run/relay.key"]);
        vps.wait_until_connected(team);
        vps
    }

    /// What it was told.
    fn terms(&self) -> RelayTerms {
        from_bytes(&fs::read(self.host.path("/var/lib/ria-relay/terms")).unwrap()).unwrap()
    }

    /// By which it verifies credentials.
    fn key(&self) -> [u8; 32] {
        self.terms().key.0
    }

    fn give_key(&self, key: &str) {
        fs::write(self.host.path("/run/relay.key"), key).unwrap();
    }

    fn start(&mut self, options: &[&str]) {
        let mut command = self.host.command(program("ria-coordinator"));
        command.arg("relay").args(options).log(&self.log).unwrap();
        self.relay = Some(command.spawn().unwrap());
    }

    fn kill(&mut self) {
        self.relay.take().unwrap().kill().unwrap();
    }

    /// How it ended by itself.
    fn ended(&mut self) -> Option<i32> {
        let status = self.relay.as_mut().unwrap().wait_timeout(SOON).unwrap();
        status.unwrap_or_else(|| panic!("it runs on: {}", self.log())).code()
    }

    /// A run that ends by itself.
    fn run(&self, options: &[&str]) -> Ended {
        let program = program("ria-coordinator");
        let line = [&["timeout", "60", program.to_str().unwrap(), "relay"], options].concat();
        let output = self.host.output(&line).unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_until_connected(&self, team: &Team) {
        eventually("the relay is connected", || listed(team)["standalone"]["state"] == "connected");
    }
}

impl Drop for Vps {
    fn drop(&mut self) {
        if thread::panicking() {
            #[expect(clippy::print_stderr, reason = "for whom the test fails")]
            {
                eprintln!("--- the relay in {}:\n{}", self.directory.path().display(), self.log());
            }
        }
    }
}

/// The relay in `relay list`.
fn listed(team: &Team) -> Value {
    let ended = team.admin(&["relay", "list", "--json"]);
    let all: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    all.as_array().unwrap().iter().find(|relay| relay["name"] == "vps").cloned().unwrap_or(Value::Null)
}

fn way(robot: &Robot, peer: &str) -> (String, String) {
    let peer = robot.peer(peer);
    let text = |field: &str| peer[field].as_str().unwrap_or_default().to_owned();
    (text("path"), text("relay"))
}

fn over_vps(transport: &str) -> (String, String) {
    (transport.to_owned(), "vps".to_owned())
}

fn flows_between(a: &Robot, b: &Robot) -> Flows {
    let end = |robot: &Robot| FlowEnd { host: robot.host.clone(), address: robot.address().parse().unwrap() };
    Flows::start(&[(end(a), end(b)), (end(b), end(a))], PACE).unwrap()
}

fn received(flows: &Flows) -> u64 {
    flows.received(0) + flows.received(1)
}

/// How long after `since` the last datagram arrived, once nothing has come for a second.
fn stopped_after(flows: &Flows, since: Instant) -> Duration {
    let last = || [0, 1].into_iter().filter_map(|flow| flows.last_arrival(flow)).max().unwrap();
    while last().elapsed() < Duration::from_secs(1) {
        thread::sleep(Duration::from_millis(50));
        assert!(since.elapsed() < SOON, "it goes on");
    }
    last().saturating_duration_since(since)
}

#[test]
fn robots_meet_at_a_relay_elsewhere_and_it_outlives_coordinator_and_itself() {
    let mut team = Team::with_settings("standalone-life", &Site::Apart(Nat::Symmetric), NO_OWN_RELAY);
    let mut vps = Vps::joined(&mut team, &[]);
    let shown = listed(&team);
    assert_eq!((&shown["kind"], &shown["host"]), (&"standalone".into(), &VPS.into()), "{shown}");
    assert_eq!((&shown["udp_port"], &shown["tls_port"]), (&3478.into(), &443.into()), "{shown}");
    let (a, b) = team.pair();
    assert_eq!(way(&a, "robot-b"), over_vps("relay_udp"));
    let address = b.address();
    assert_eq!(a.ping(&address, 10), 10);
    eventually("it tells what it has to do", || {
        let load = listed(&team)["load"].clone();
        load["clients"].as_u64() >= Some(2) && load["packets"].as_u64() >= Some(20)
    });
    let text = team.admin(&["relay", "list"]).out;
    assert!(text.contains("standalone") && text.contains("connected"), "{text}");

    // It goes on while the coordinator is away, and after it was killed itself meanwhile.
    team.kill_coordinator();
    assert_eq!(a.ping(&address, 10), 10);
    vps.kill();
    fs::remove_file(vps.host.path("/run/relay.key")).unwrap();
    vps.start(&[]);
    eventually("robots meet there again", || a.ping(&address, 3) == 3);
    assert!(vps.log().contains("goes on by what it said last"), "{}", vps.log());
    team.start_coordinator();
    vps.wait_until_connected(&team);
    assert_eq!(a.ping(&address, 10), 10);

    // It follows its coordinator to another authority, and another place.
    assert_eq!(team.admin(&["ca", "roll"]).code, 0);
    assert_eq!(team.admin(&["url", "add", "https://198.51.100.2:443"]).code, 0);
    eventually("it keeps that", || vps.terms().urls.len() == 2 && vps.terms().trusts.len() == 2);
    let first = team.admin(&["ca", "list", "--json"]);
    let authorities: Value = serde_json::from_str(&first.out).unwrap();
    let retired = team.admin(&["ca", "retire", authorities[1]["id"].as_str().unwrap()]);
    assert_eq!(retired.code, 0, "{retired:?}");
    eventually("it trusts the new one only", || vps.terms().trusts.len() == 1);
    vps.kill();
    vps.start(&[]);
    vps.wait_until_connected(&team);

    // Removed, it serves nobody, and stays out.
    assert_eq!(team.admin(&["relay", "remove", "vps"]).code, 0);
    assert_eq!(vps.ended(), Some(4), "{}", vps.log());
    assert!(vps.log().contains("an administrator has removed this relay"), "{}", vps.log());
    eventually("no relay is there any more", || a.peer("robot-b")["path"] == "none");
    let again = vps.run(&[]);
    assert!(again.code == 4 && again.err.contains("knows no relay with this key"), "{again:?}");
    let audit = team.admin(&["audit", "list"]).out;
    for action in ["relay.added", "relay.placed", "relay.removed"] {
        assert!(audit.contains(action), "{action}: {audit}");
    }
}

#[test]
fn who_is_put_out_is_cut_off_there_within_a_second_and_a_dead_coordinator_lets_nobody_back_in() {
    let mut team = Team::with_settings("standalone-deny", &Site::Apart(Nat::Symmetric), NO_OWN_RELAY);
    let mut vps = Vps::joined(&mut team, &[]);
    let (a, b) = team.pair();
    assert_eq!(way(&a, "robot-b"), over_vps("relay_udp"));
    // Neither hears of it from the coordinator: what ends, the relay has ended.
    for robot in [&a, &b] {
        for line in [
            "add table inet deaf",
            "add chain inet deaf out { type filter hook output priority 0; }",
            "add rule inet deaf out ip daddr 198.51.100.2 drop",
            "add chain inet deaf in { type filter hook input priority 0; }",
            "add rule inet deaf in ip saddr 198.51.100.2 drop",
        ] {
            robot.host.run(&["nft", line]).unwrap();
        }
    }
    let flows = flows_between(&a, &b);
    eventually("both ways flow", || flows.received(0) > 50 && flows.received(1) > 50);
    let asked = Instant::now();
    assert_eq!(team.admin(&["node", "disable", "robot-b"]).code, 0);
    let took = stopped_after(&flows, asked);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(a.peer("robot-b")["name"], "robot-b", "it has heard nothing");

    // It tries again, in vain; also at a relay that was killed and finds no coordinator.
    team.kill_coordinator();
    vps.kill();
    vps.start(&[]);
    eventually("it serves the other one", || a.status()["candidates"].to_string().contains(VPS));
    let before = received(&flows);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(received(&flows), before, "{}", vps.log());

    // Taken back, it comes in by itself.
    team.start_coordinator();
    vps.wait_until_connected(&team);
    assert_eq!(team.admin(&["node", "enable", "robot-b"]).code, 0);
    for robot in [&a, &b] {
        robot.host.run(&["nft", "delete table inet deaf"]).unwrap();
    }
    eventually("it flows again", || received(&flows) > before + 50);
}

#[test]
fn keys_that_are_used_up_expired_or_damaged_are_refused_and_say_what_to_do() {
    let mut team = Team::with_settings("standalone-keys", &Site::Together, NO_OWN_RELAY);
    let mut vps = Vps::joined(&mut team, &["--expires", "1h"]);
    let key = fs::read_to_string(vps.host.path("/run/relay.key")).unwrap();
    let beside = |options: &[&str]| {
        let own = ["--listen", "[::]:8443", "--data-dir", "/run/other"];
        vps.run(&[&own, options].concat())
    };
    // The UDP port is the other one's.
    fs::write(vps.host.path("/run/other.toml"), "[relay]\nlisten = \"[::]:8478\"\n").unwrap();
    let config = ["--config", "/run/other.toml"];

    let none = beside(&config);
    assert!(none.code == 2 && none.err.contains("relay add NAME"), "{none:?}");
    let used = beside(&[&config[..], &["--key-file", "/run/relay.key"]].concat());
    assert!(used.code == 4 && used.err.contains("used by another machine"), "{used:?}");
    fs::write(vps.host.path("/run/bad.key"), &key[..key.len() - 5]).unwrap();
    let damaged = beside(&[&config[..], &["--key-file", "/run/bad.key"]].concat());
    assert!(damaged.code == 2 && damaged.err.contains("checksum"), "{damaged:?}");
    let mistyped = vps.run(&["--key-file", "/run/relay.key", key.trim()]);
    assert_eq!(mistyped.code, 2, "a key is no argument: {mistyped:?}");

    // A key of another relay, with a secret that nobody has given.
    assert_eq!(team.admin(&["relay", "add", "late", "--expires", "1s"]).code, 0);
    let again = team.admin(&["relay", "remove", "late"]);
    assert_eq!(again.code, 0, "{again:?}");
    let late = team.admin(&["relay", "add", "late", "--expires", "1s"]).out;
    fs::write(vps.host.path("/run/late.key"), &late).unwrap();
    thread::sleep(Duration::from_secs(2));
    let late = beside(&[&config[..], &["--key-file", "/run/late.key"]].concat());
    assert!(late.code == 4 && late.err.contains("not used in time"), "{late:?}");
    assert_eq!(team.admin(&["relay", "remove", "late"]).code, 0);
    let forged = beside(&[&config[..], &["--key-file", "/run/late.key"]].concat());
    assert!(forged.code == 4 && forged.err.contains("knows no relay with this key"), "{forged:?}");

    let shown = vps.run(&["check-config", "--config", "/run/other.toml"]);
    assert!(shown.code == 0 && shown.out.contains("[::]:8478"), "{shown:?}");
    fs::write(vps.host.path("/run/other.toml"), "hots = 3\n[relay]\ncredentials = \"1h\"\n").unwrap();
    let wrong = vps.run(&["check-config", "--config", "/run/other.toml"]);
    assert!(
        wrong.code == 2 && wrong.err.contains("hots") && wrong.err.contains("relay.credentials"),
        "{wrong:?}"
    );
    // All the while the good one has served.
    assert!(vps.relay.as_mut().unwrap().try_wait().unwrap().is_none());
    assert_eq!(listed(&team)["standalone"]["state"], "connected");
}

#[test]
fn robots_without_udp_go_there_over_tls() {
    let mut team = Team::with_settings("standalone-tls", &Site::Apart(Nat::Symmetric), NO_OWN_RELAY);
    let _vps = Vps::joined(&mut team, &[]);
    for robot in ["robot-a", "robot-b"] {
        let mut link = Link::default();
        link.set_all(&["udp=blocked"]).unwrap();
        team.lab.set_link(robot, link).unwrap();
    }
    let (a, b) = team.pair();
    assert_eq!((way(&a, "robot-b"), way(&b, "robot-a")), (over_vps("relay_tls"), over_vps("relay_tls")));
    assert_eq!(a.ping(&b.address(), 10), 10);
    eventually("it tells of its streams", || listed(&team)["load"]["streams"] == 2);
    // Put out, they lose their streams as well.
    let flows = flows_between(&a, &b);
    eventually("both ways flow", || flows.received(0) > 50 && flows.received(1) > 50);
    let asked = Instant::now();
    assert_eq!(team.admin(&["node", "remove", "robot-b"]).code, 0);
    let took = stopped_after(&flows, asked);
    assert!(took < Duration::from_secs(1), "{took:?}");
    eventually("its stream is closed", || listed(&team)["load"]["streams"] == 1);
}

#[test]
fn abuse_is_refused_there_too() {
    let mut team = Team::with_settings("standalone-abuse", &Site::Together, NO_OWN_RELAY);
    let settings = format!("[relay]\nexternal = \"{VPS}\"\noutside_ports = \"50000-50099\"\n");
    let vps = Vps::joined_with(&mut team, &[], &settings);
    let (client, key) = (team.host("robot-a"), vps.key());
    let good = credentials(&key, later());
    for transport in [&["-p", "3478"][..], &["-t", "-p", "443"]] {
        let ended = uclient(&client, VPS, &good, &[transport, &["-y", "-m", "4", "-l", "171"]].concat());
        assert!(is_lossless(&ended, 200), "{transport:?}: {ended:?}");
    }
    for refused in ["127.0.0.1", "169.254.169.254", "169.254.1.1", "224.0.0.251", "0.0.0.0", VPS] {
        let ended = uclient(&client, VPS, &good, &["-m", "1", "-e", refused, "-r", "443"]);
        assert!(!is_lossless(&ended, 50), "{refused}: {ended:?}");
        let said = format!("{}{}", ended.out, ended.err);
        // The relay's own address may be named, as that of another allocation; there is none.
        assert!(said.contains("error 403") || refused == VPS, "{refused}: {said}");
    }
    let bad = [
        ("expired", credentials(&key, now().saturating_sub(Duration::from_secs(5)))),
        ("of another relay", credentials(&[9; 32], later())),
    ];
    for (what, with) in bad {
        let ended = uclient(&client, VPS, &with, &["-y", "-m", "2"]);
        assert!(is_kept_out(&ended), "{what}: {ended:?}");
    }
    // It is no relay for networks that it was not given.
    assert_eq!(team.admin(&["relay", "remove", "vps"]).code, 0);
    let only = team.admin(&["relay", "add", "vps", "--network", "lab"]);
    assert_eq!(only.code, 0, "{only:?}");
    vps.give_key(&only.out);
    let mut vps = vps;
    assert_eq!(vps.ended(), Some(4));
    vps.start(&["--config", "/run/relay.toml", "--key-file", "/run/relay.key"]);
    vps.wait_until_connected(&team);
    assert_ne!(vps.key(), key, "another relay");
    let ended = uclient(&client, VPS, &credentials(&vps.key(), later()), &["-y", "-m", "2"]);
    assert!(is_kept_out(&ended), "credentials for a network that is not the lab's: {ended:?}");
    // And says nothing but TURN.
    let page = turn_client::run(&client, &["curl", "-sk", "-m", "5", &format!("https://{VPS}/")]);
    assert_ne!(page.code, 0, "{page:?}");
    let there =
        turn_client::run(&client, &["curl", "-sk", "-m", "5", &format!("https://{COORDINATOR}/healthz")]);
    assert!(there.code == 0 && there.out.contains("ok"), "{there:?}");
}
