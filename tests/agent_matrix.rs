//! Every kind of network against every other: the way that packets must take between two robots, or may only take, and
//! traffic both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use netlab::nat::{Behaviour, Hairpin};
use netlab::{HostSpec, Lab, Nat, NetworkSpec, RouterSpec};
use support::{COORDINATOR, Robot, Team, eventually_within, office};

const COORDINATOR_V6: &str = "2001:db8::a";

/// Longest wait for all to have joined, and for all ways to be as they must; generous.
const PATIENCE: Duration = Duration::from_secs(90);

/// For so long nothing may change any more before the ways count as settled.
const SETTLED: Duration = Duration::from_secs(3);

/// What stands between a robot and the internet. There are two robots of each kind, each behind boxes of its own, but
/// that the two of the isolating Wi-Fi share it.
const KINDS: [&str; 9] = ["open", "ei", "ad", "apd", "two", "iso", "six", "noudp", "proxy"];

/// D: a direct path must be found. R: none is possible, and the relay carries, at each end as that end reaches it.
///
/// By RFC 4787, with "mapping" and "filtering" as there; two ends that both know a reflexive address of the other's may
/// send to each other at once (RFC 8445, RFC 5128 section 3.3). The relay tells each one's reflexive address.
///
/// - `open`: no translator, IPv4 and IPv6. What comes from wherever can be answered there: D with all that have a family
///   in common and let UDP out.
/// - `ei`: mapping and filtering endpoint-independent. The reflexive address is good for everybody, from any address: D
///   likewise.
/// - `two`: a home router (mapping endpoint-independent, filtering by address and port) behind a carrier's (RFC 6888:
///   both endpoint-independent). Together they are as the home router alone: each end sends to the other's reflexive
///   address, and lets in what comes from there. D with mappings that do not depend on the other end.
/// - `iso`: a Wi-Fi that isolates its clients, behind such a home router which refuses hairpinning. As `two` towards
///   others. Between its own clients neither the LAN nor the outside address is a way: R.
/// - `ad`: mapping and filtering by address, random ports. The port towards another end than the relay can't be told, so
///   the other end has to answer to a port that it has not sent to: only `open` and `ei` do, for `two` and `iso` filter by
///   port. Two of them know nothing of each other's ports: R.
/// - `apd`: the same by address and port ("symmetric"): R likewise.
/// - `six`: IPv6 only, without translation, behind a firewall that lets in what was asked for. D among themselves, when
///   both ask at once, and with `open`; R with those that have IPv4 only, since the relay speaks both.
/// - `noudp`: a home router that lets no UDP through. R, over TLS at this end.
/// - `proxy`: nothing gets out but what an HTTP proxy carries to port 443. R likewise.
const WAYS: [&str; 9] = [
    //        open ei ad apd two iso six noudp proxy
    /* open  */
    "D  D  D  D   D   D   D   R     R",
    /* ei    */ "   D  D  D   D   D   R   R     R",
    /* ad    */ "      R  R   R   R   R   R     R",
    /* apd   */ "         R   R   R   R   R     R",
    /* two   */ "             D   D   R   R     R",
    /* iso   */ "                 R   R   R     R",
    /* six   */ "                     D   R     R",
    /* noudp */ "                         R     R",
    /* proxy */ "                               R",
];

fn must_be_direct(a: &str, b: &str) -> bool {
    let index = |kind: &str| KINDS.iter().position(|known| *known == kind).unwrap();
    let (row, column) = (index(a).min(index(b)), index(a).max(index(b)));
    match WAYS[row].split_whitespace().nth(column - row).unwrap() {
        "D" => true,
        "R" => false,
        other => panic!("{other}"),
    }
}

/// The kind of a robot, which is the first part of its name.
fn kind(name: &str) -> &str {
    name.split('-').next().unwrap()
}

/// Whether the way in use is the one that must be between two robots.
fn is_right(own: &str, peer: &serde_json::Value) -> bool {
    let name = peer["name"].as_str().unwrap_or_default();
    let direct = must_be_direct(kind(own), kind(name));
    let wanted = match kind(own) {
        _ if direct => "direct",
        "noudp" | "proxy" => "relay_tls",
        _ => "relay_udp",
    };
    peer["link_state"] == "up" && peer["path"] == wanted
}

/// What is not as it must be, both ways.
fn wrong(robots: &[Robot]) -> Vec<String> {
    let mut wrong = Vec::new();
    for robot in robots {
        let own = robot.host.name();
        let peers = robot.peers();
        if peers.len() + 1 != robots.len() {
            wrong.push(format!("{own} knows {} peers", peers.len()));
        }
        let odd = peers.iter().filter(|peer| !is_right(own, peer)).map(|peer| {
            let [name, state, path, why] =
                ["name", "link_state", "path", "path_reason"].map(|key| &peer[key]);
            format!("{own} to {name}: {state}, {path} ({why})")
        });
        wrong.extend(odd);
    }
    wrong
}

/// All networks, with two robots of each kind.
fn lab() -> Lab {
    let mut lab = Lab::new("matrix").unwrap();
    let internet = NetworkSpec::internet("198.51.100.0/24".parse().unwrap());
    lab.add_network("internet", internet.with_ipv6("2001:db8::/64".parse().unwrap())).unwrap();
    lab.add_host("coordinator", HostSpec::on("internet").at(COORDINATOR.parse().unwrap())).unwrap();
    let refuses_hairpin = Behaviour { hairpin: Hairpin::Off, ..Behaviour::PORT_RESTRICTED };
    for number in [1, 2] {
        lab.add_host(&format!("open-{number}"), HostSpec::on("internet")).unwrap();
        for (place, kind, nat) in [
            (10, "ei", Nat::ENDPOINT_INDEPENDENT),
            (20, "ad", Nat::ADDRESS_DEPENDENT),
            (30, "apd", Nat::ADDRESS_AND_PORT_DEPENDENT),
        ] {
            add_site(&mut lab, "internet", &format!("{kind}-{number}"), (place + number, nat));
        }
        let carrier = format!("carrier-{number}");
        lab.add_network(&carrier, NetworkSpec::new(format!("100.64.{number}.0/24").parse().unwrap()))
            .unwrap();
        let spec = RouterSpec::new("internet", &carrier, Nat::ENDPOINT_INDEPENDENT);
        lab.add_router(&format!("{carrier}-nat"), spec).unwrap();
        add_site(&mut lab, &carrier, &format!("two-{number}"), (40 + number, Nat::PORT_RESTRICTED));
        let campus = format!("campus-{number}");
        let prefix = format!("2001:db8:{number}::/64");
        lab.add_network(&campus, NetworkSpec::ipv6_only(prefix.parse().unwrap())).unwrap();
        let spec = RouterSpec::new("internet", &campus, Nat::None).with_firewall();
        lab.add_router(&format!("{campus}-router"), spec).unwrap();
        lab.add_host(&format!("six-{number}"), HostSpec::on(&campus)).unwrap();
    }
    lab.add_network("wifi", NetworkSpec::campus_wifi("192.168.50.0/24".parse().unwrap())).unwrap();
    lab.add_router("wifi-nat", RouterSpec::new("internet", "wifi", Nat::Emulated(refuses_hairpin))).unwrap();
    for number in [1, 2] {
        lab.add_host(&format!("iso-{number}"), HostSpec::on("wifi")).unwrap();
    }
    add_closed_sites(&mut lab);
    lab
}

/// Those of whom only TCP gets out, or what a proxy lets out.
fn add_closed_sites(lab: &mut Lab) {
    lab.add_host("office-proxy", HostSpec::on("internet").at(office::PROXY.parse().unwrap())).unwrap();
    for number in [1, 2] {
        let name = format!("noudp-{number}");
        add_site(lab, "internet", &name, (60 + number, Nat::PortPreserving));
        let mut link = lab.link(&format!("{name}-nat")).unwrap().clone();
        link.set_all(&["udp=blocked"]).unwrap();
        lab.set_link(&format!("{name}-nat"), link).unwrap();
        let name = format!("proxy-{number}");
        add_site(lab, "internet", &name, (70 + number, Nat::PortPreserving));
        let host = lab.host(&name).unwrap();
        office::close_firewall(&host);
        office::set_proxy(&host, office::PASSWORD);
    }
}

/// A robot at home, behind a router of its own.
fn add_site(lab: &mut Lab, uplink: &str, robot: &str, (place, nat): (u8, Nat)) {
    let home = format!("{robot}-home");
    lab.add_network(&home, NetworkSpec::new(format!("192.168.{place}.0/24").parse().unwrap())).unwrap();
    lab.add_router(&format!("{robot}-nat"), RouterSpec::new(uplink, &home, nat)).unwrap();
    lab.add_host(robot, HostSpec::on(&home)).unwrap();
}

/// Sends between all robots, both ways, until something has come from everybody to everybody.
fn exchange(robots: &[Robot]) {
    const PORT: u16 = 9000;
    let mut addresses: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let sockets: Vec<UdpSocket> = robots
        .iter()
        .enumerate()
        .map(|(index, robot)| {
            let own: IpAddr = robot.address().parse().unwrap();
            addresses.insert(own, index);
            let socket = robot.host.enter(|| UdpSocket::bind((own, PORT))).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let mut missing: BTreeSet<(usize, usize)> = BTreeSet::new();
    for from in 0..robots.len() {
        missing.extend((0..robots.len()).filter(|to| *to != from).map(|to| (from, to)));
    }
    let places: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let end = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        let names: Vec<_> =
            missing.iter().map(|(a, b)| [a, b].map(|i| robots[*i].host.name().to_owned())).collect();
        assert!(Instant::now() < end, "nothing has come through: {names:?}");
        for (from, to) in &missing {
            sockets[*from].send_to(b"hello", places[*to]).unwrap();
        }
        std::thread::sleep(Duration::from_millis(300));
        for (to, socket) in sockets.iter().enumerate() {
            while let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
                missing.remove(&(addresses[&from.ip()], to));
            }
        }
    }
}

#[test]
fn robots_in_all_kinds_of_networks_reach_each_other_as_well_as_can_be() {
    let urls = [format!("https://{COORDINATOR}"), format!("https://[{COORDINATOR_V6}]")];
    let team = Team::over(lab(), &[&urls[0], &urls[1]]);
    let key = team.key(&["--reusable"]);
    let _proxy = office::start_proxy(&team.host("office-proxy"));
    let names = KINDS.iter().flat_map(|kind| [1, 2].map(|number| format!("{kind}-{number}")));
    let options = |name: &str| if kind(name) == "proxy" { vec!["--config", office::CONFIG] } else { vec![] };
    let robots: Vec<Robot> = names.map(|name| team.joining(&name, &key, &options(&name))).collect();
    for robot in &robots {
        eventually_within(PATIENCE, &format!("{} has joined", robot.host.name()), || {
            robot.ria(&["wait", "--timeout", "1"]).code == 0
        });
    }
    let (end, mut right_since) = (Instant::now() + PATIENCE, None);
    while right_since.is_none_or(|since: Instant| since.elapsed() < SETTLED) {
        let wrong = wrong(&robots);
        if wrong.is_empty() {
            right_since.get_or_insert_with(Instant::now);
        } else {
            right_since = None;
            assert!(Instant::now() < end, "not as it must be:\n{}", wrong.join("\n"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    exchange(&robots);
    // Traffic has changed nothing.
    let wrong = wrong(&robots);
    assert!(wrong.is_empty(), "not any more as it must be:\n{}", wrong.join("\n"));
}
