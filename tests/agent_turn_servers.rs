//! Relays besides the coordinator's own: a stock coturn.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::path::Path;

use netlab::{Host, HostSpec, Link, Nat, Process};
use support::{Robot, Site, Team, eventually};

const LIBRARY: &str = "198.51.100.30";
const WORKSHOP: &str = "198.51.100.31";
const SECRET: &str = "shared-with-the-library";

fn start_coturn(host: &Host) -> Process {
    start_coturn_with(host, &["--no-tls"])
}

fn start_coturn_with(host: &Host, options: &[&str]) -> Process {
    let address = host.address().to_string();
    let own = [
        "turnserver",
        "-n",
        "--no-cli",
        "--no-dtls",
        "--listening-ip",
        &address,
        "--relay-ip",
        &address,
        "--realm",
        "library.example",
        "--use-auth-secret",
        "--static-auth-secret",
        SECRET,
        "--log-file",
        "stdout",
        "--pidfile",
        "/run/coturn.pid",
    ];
    host.spawn(&[&own, options].concat(), Path::new("/dev/null"))
        .expect("coturn is installed: scripts/test installs it")
}

fn relay(robot: &Robot, peer: &str) -> (String, String) {
    let peer = robot.peer(peer);
    let text = |field: &str| peer[field].as_str().unwrap_or_default().to_owned();
    (text("path"), text("relay"))
}

fn add_coturn(team: &Team, name: &str, address: &str) {
    add_coturn_with(team, name, address, &[]);
}

fn add_coturn_with(team: &Team, name: &str, address: &str, options: &[&str]) {
    let file = team.host("coordinator").path("/run/turn-secret");
    std::fs::write(file, format!("{SECRET}\n")).unwrap();
    let line = ["relay", "add-turn", name, "--host", address, "--secret-file", "/run/turn-secret", "--json"];
    let added = team.admin(&[&line, options].concat());
    assert_eq!(added.code, 0, "{added:?}");
    assert!(!added.out.contains(SECRET), "{added:?}");
}

#[test]
fn robots_meet_at_a_stock_coturn_and_learn_their_addresses_there() {
    let settings = &[("RIA_RELAY_ENABLED", "false")];
    let mut team = Team::with_settings("agent-coturn", &Site::Apart(Nat::Symmetric), settings);
    team.lab.add_host("turn", HostSpec::on("internet").at(LIBRARY.parse().unwrap())).unwrap();
    let _coturn = start_coturn(&team.host("turn"));
    add_coturn(&team, "library", LIBRARY);
    let (a, b) = team.pair();
    assert_eq!(relay(&a, "robot-b"), ("relay_udp".to_owned(), "library".to_owned()));
    assert_eq!(a.ping(&b.address(), 10), 10);
    let candidates = a.status()["candidates"].to_string();
    assert!(candidates.contains("reflexive"), "{candidates}");
    // Taken off the list, it is left at once, by robots that are connected too.
    let removed = team.admin(&["relay", "remove", "library"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    eventually("no relay is there any more", || a.peer("robot-b")["path"] == "none");
    add_coturn(&team, "library", LIBRARY);
    a.wait_for_link("robot-b", "up");
    assert_eq!(a.ping(&b.address(), 10), 10);
}

#[test]
fn a_relay_that_dies_under_traffic_is_left_for_another_one() {
    let settings = &[("RIA_RELAY_ENABLED", "false")];
    let mut team = Team::with_settings("agent-relays", &Site::Apart(Nat::Symmetric), settings);
    let mut servers = Vec::new();
    for (name, address) in [("library", LIBRARY), ("workshop", WORKSHOP)] {
        team.lab.add_host(name, HostSpec::on("internet").at(address.parse().unwrap())).unwrap();
        servers.push((name, start_coturn(&team.host(name))));
        add_coturn(&team, name, address);
    }
    let (a, b) = team.pair();
    let address = b.address();
    eventually("both relays are ready", || {
        let status = a.status()["candidates"].to_string();
        status.contains(LIBRARY) && status.contains(WORKSHOP)
    });
    assert_eq!(a.ping(&address, 10), 10);
    let used = relay(&a, "robot-b").1;
    let other = if used == "library" { "workshop" } else { "library" };
    let arrived = std::thread::scope(|scope| {
        let pinging = scope.spawn(|| a.ping(&address, 100));
        std::thread::sleep(std::time::Duration::from_secs(2));
        let (_, dead) = servers.iter_mut().find(|(name, _)| *name == used).unwrap();
        dead.kill().unwrap();
        pinging.join().unwrap()
    });
    // Ten pings a second: a second without any, twice over, on a machine that is busy.
    assert!(arrived >= 80, "{arrived} of 100");
    assert_eq!(relay(&a, "robot-b"), ("relay_udp".to_owned(), other.to_owned()));
    assert_eq!(relay(&b, "robot-a"), ("relay_udp".to_owned(), other.to_owned()));
    assert!(!a.conditions().contains(&"relay-down".to_owned()), "there is another one");
    assert_eq!(a.ping(&address, 10), 10);
}

/// Makes a certificate that has signed itself, with its key, in files of this host.
fn make_certificate(host: &Host, name: &str, address: &str) {
    let (key, certificate) = (format!("/run/{name}.key"), format!("/run/{name}.pem"));
    let alternative = format!("subjectAltName=IP:{address}");
    let line = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=turn",
        "-addext",
        &alternative,
        "-keyout",
        &key,
        "-out",
        &certificate,
    ];
    let made = host.output(&line).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn robots_without_udp_meet_at_a_stock_coturn_over_tls_if_they_can_verify_it() {
    let settings = &[("RIA_RELAY_ENABLED", "false")];
    let mut team = Team::with_settings("agent-turns", &Site::Apart(Nat::Symmetric), settings);
    team.lab.add_host("turn", HostSpec::on("internet").at(LIBRARY.parse().unwrap())).unwrap();
    let (turn, coordinator) = (team.host("turn"), team.host("coordinator"));
    for name in ["own", "other"] {
        make_certificate(&turn, name, LIBRARY);
        let file = format!("/run/{name}.pem");
        std::fs::copy(turn.path(&file), coordinator.path(&file)).unwrap();
    }
    let tls = ["--tls-listening-port", "5349", "--cert", "/run/own.pem", "--pkey", "/run/own.key"];
    let _coturn = start_coturn_with(&turn, &tls);
    for robot in ["robot-a", "robot-b"] {
        let mut link = Link::default();
        link.set_all(&["udp=blocked"]).unwrap();
        team.lab.set_link(robot, link).unwrap();
    }
    let alone = team.admin(&[
        "relay",
        "add-turn",
        "x",
        "--host",
        LIBRARY,
        "--secret-file",
        "-",
        "--tls-port",
        "5349",
    ]);
    assert_eq!(alone.code, 2, "{alone:?}");
    add_coturn_with(&team, "library", LIBRARY, &["--tls-port", "5349", "--tls-ca", "/run/own.pem"]);
    let (a, b) = team.pair();
    assert_eq!(relay(&a, "robot-b"), ("relay_tls".to_owned(), "library".to_owned()));
    assert_eq!(a.ping(&b.address(), 10), 10);

    // Another certificate than the one that the server has.
    assert_eq!(team.admin(&["relay", "remove", "library"]).code, 0);
    eventually("no relay is there any more", || a.peer("robot-b")["path"] == "none");
    add_coturn_with(&team, "library", LIBRARY, &["--tls-port", "5349", "--tls-ca", "/run/other.pem"]);
    eventually("it is not believed", || a.conditions().contains(&"relay-down".to_owned()));
    assert_eq!(a.peer("robot-b")["path"], "none");
}
