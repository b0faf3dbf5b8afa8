//! The clients that come with coturn, against the coordinator's relay.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::path::Path;
use std::time::Duration;

use data_encoding::BASE64;
use netlab::HostSpec;
use support::turn_client::{self, Credentials, credentials, is_kept_out, is_lossless, later, now};
use support::{COORDINATOR, Ended, Site, Team};

/// Where relayed addresses can be reached from outside, and at which address.
const SETTINGS: &[(&str, &str)] =
    &[("RIA_RELAY_EXTERNAL", COORDINATOR), ("RIA_RELAY_OUTSIDE_PORTS", "50000-50099")];

/// Somebody outside who sends everything back.
const ECHO: &str = "198.51.100.40";

/// The key of the coordinator's own relay.
fn own_key(team: &Team) -> Vec<u8> {
    let file = team.host("coordinator").path("/var/lib/ria-coordinator/identity/relay.secret");
    BASE64.decode(std::fs::read_to_string(file).unwrap().trim().as_bytes()).unwrap()
}

fn uclient(team: &Team, with: &Credentials, options: &[&str]) -> Ended {
    turn_client::uclient(&team.host("robot-a"), COORDINATOR, with, options)
}

/// Two pairs of clients that talk to each other, by channels and by indications.
const PAIRS: &[&str] = &["-y", "-m", "4", "-l", "171"];

#[test]
fn clients_of_coturn_lose_nothing_over_udp_tcp_and_tls() {
    let team = Team::with_settings("relay-foreign", &Site::Together, SETTINGS);
    let good = credentials(&own_key(&team), later());
    // Over TLS this client loses what comes while it reads something else, with coturn's own server, too: not so fast.
    let tls = &["-t", "-S", "-p", "443", "-n", "25", "-z", "100"];
    for (transport, messages) in [(&["-p", "3478"][..], 200), (&["-t", "-p", "443"], 200), (tls, 100)] {
        for form in [&[][..], &["-s"]] {
            let ended = uclient(&team, &good, &[transport, form, PAIRS].concat());
            assert!(is_lossless(&ended, messages), "{transport:?} {form:?}: {ended:?}");
        }
    }
    let mapped =
        turn_client::run(&team.host("robot-a"), &["turnutils_stunclient", "-p", "3478", COORDINATOR]);
    assert!(mapped.out.contains("UDP reflexive addr: 198.51.100."), "{mapped:?}");
}

#[test]
fn ordinary_addresses_are_peers_where_the_operator_gives_ports_and_others_are_refused() {
    let mut team = Team::with_settings("relay-outside", &Site::Together, SETTINGS);
    team.lab.add_host("echo", HostSpec::on("internet").at(ECHO.parse().unwrap())).unwrap();
    let line = ["turnutils_peer", "-p", "3490", "-L", ECHO];
    let _echo = team.host("echo").spawn(&line, Path::new("/dev/null")).unwrap();
    let good = credentials(&own_key(&team), later());
    for transport in [&["-p", "3478"][..], &["-t", "-p", "443"]] {
        for form in [&[][..], &["-s"]] {
            let peers = ["-m", "4", "-l", "171", "-e", ECHO, "-r", "3490"];
            let ended = uclient(&team, &good, &[transport, form, &peers].concat());
            assert!(is_lossless(&ended, 200), "{transport:?} {form:?}: {ended:?}");
        }
    }
    for refused in ["127.0.0.1", "169.254.169.254", COORDINATOR, "224.0.0.251", "0.0.0.0"] {
        let ended = uclient(&team, &good, &["-m", "1", "-e", refused, "-r", "3490"]);
        assert!(!is_lossless(&ended, 50), "{refused}: {ended:?}");
        let said = format!("{}{}", ended.out, ended.err);
        // The relay's own address may be named, as that of another allocation; there is none.
        assert!(said.contains("error 403") || refused == COORDINATOR, "{refused}: {said}");
    }
}

#[test]
fn credentials_that_are_expired_or_foreign_are_refused() {
    let team = Team::with_settings("relay-refuse", &Site::Together, SETTINGS);
    let bad = [
        ("expired", credentials(&own_key(&team), now().saturating_sub(Duration::from_secs(5)))),
        ("foreign", credentials(&[9; 32], later())),
    ];
    for (what, with) in bad {
        let ended = uclient(&team, &with, &["-y", "-m", "2"]);
        assert!(is_kept_out(&ended), "{what}: {ended:?}");
    }
    let good = credentials(&own_key(&team), later());
    let ended = uclient(&team, &good, &["-y", "-m", "2"]);
    assert!(is_lossless(&ended, 100), "{ended:?}");
}
