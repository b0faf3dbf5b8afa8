//! Routers that open a port when asked (miniupnpd, and one that knows NAT-PMP alone): symmetric NATs are no obstacle any
//! more, and nothing is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netlab::{Host, HostSpec, Lab, Nat, NetworkSpec, Process, RouterSpec};
use nix::sys::signal::Signal;
use support::{COORDINATOR, Robot, Team, eventually, eventually_within};

/// Where routers have their outer addresses: miniupnpd refuses those that are reserved for documentation.
const PROVIDER: &str = "45.79.1.0/24";

/// The chains that miniupnpd fills, and a firewall that lets in what they translate.
const RULES: &str = "table inet filter {
 chain miniupnpd { }
 chain prerouting_miniupnpd { }
 chain postrouting_miniupnpd { }
 chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
 chain prerouting { type nat hook prerouting priority -100; policy accept; jump prerouting_miniupnpd; }
}
insert rule inet firewall forward ct status dnat accept
";

struct Router {
    host: Host,
    config: String,
    folder: tempfile::TempDir,
    daemon: Option<Process>,
}

impl Router {
    /// A router that opens ports, by all protocols or by UPnP alone.
    fn start(team: &Team, name: &str, all: bool) -> Self {
        let (host, folder) = (team.lab.router(name).unwrap(), tempfile::tempdir().unwrap());
        let port_control = if all { "yes" } else { "no" };
        let config = format!(
            "ext_ifname=up0\nlistening_ip=lan0\nenable_natpmp={port_control}\nenable_upnp=yes\nsecure_mode=yes\n\
             min_lifetime=120\nmax_lifetime=86400\nuuid=0b5f9d2e-5a0c-4f6e-9d4b-112233445566\n\
             allow 1024-65535 192.168.0.0/16 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
        );
        let rules = folder.path().join("rules.nft");
        std::fs::write(&rules, RULES).unwrap();
        host.run(&["nft", "-f", rules.to_str().unwrap()]).unwrap();
        let mut router = Self { host, config, folder, daemon: None };
        router.start_daemon();
        router
    }

    fn start_daemon(&mut self) {
        let path = |name: &str| self.folder.path().join(name);
        std::fs::write(path("config"), &self.config).unwrap();
        let (config, pid) = (path("config"), path("pid"));
        let line = ["miniupnpd", "-d", "-f", config.to_str().unwrap(), "-P", pid.to_str().unwrap()];
        let daemon = self.host.spawn(&line, &path("log"));
        self.daemon = Some(daemon.expect("miniupnpd-nftables is installed: scripts/test installs it"));
    }

    /// As after a power cut: all mappings are gone.
    fn reboot(&mut self) {
        self.daemon.take().unwrap().kill().unwrap();
        for chain in ["prerouting_miniupnpd", "miniupnpd"] {
            self.host.run(&["nft", "flush", "chain", "inet", "filter", chain]).unwrap();
        }
        assert!(!self.has_mapping());
        self.start_daemon();
    }

    fn has_mapping(&self) -> bool {
        let chain = ["nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"];
        self.host.run(&chain).unwrap().contains("dnat")
    }
}

fn lab() -> Lab {
    let mut lab = Lab::new("port-mapping").unwrap();
    lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse().unwrap())).unwrap();
    lab.add_host("coordinator", HostSpec::on("internet").at(COORDINATOR.parse().unwrap())).unwrap();
    lab.add_network("provider", NetworkSpec::new(PROVIDER.parse().unwrap())).unwrap();
    lab.add_router("isp", RouterSpec::new("internet", "provider", Nat::None)).unwrap();
    for (number, robot) in [(1, "robot-a"), (2, "robot-b"), (3, "robot-c")] {
        let (lan, prefix) = (format!("lan-{number}"), format!("192.168.{number}.0/24"));
        lab.add_network(&lan, NetworkSpec::new(prefix.parse().unwrap())).unwrap();
        let router = RouterSpec::new("provider", &lan, Nat::Symmetric);
        lab.add_router(&format!("home-{number}"), router).unwrap();
        lab.add_host(robot, HostSpec::on(&lan)).unwrap();
    }
    lab
}

fn netcheck(robot: &Robot) -> serde_json::Value {
    let ended = robot.ria(&["netcheck", "--json"]);
    serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"))
}

/// Questions to routers that a host has sent.
fn questions(host: &Host) -> u32 {
    let shown = host.run(&["nft", "list", "table", "inet", "count"]).unwrap();
    let count = shown.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{shown}"))
}

#[test]
fn symmetric_nats_that_open_a_port_let_robots_meet_directly() {
    let team = Team::of(lab(), &[]);
    let mut first = Router::start(&team, "home-1", true);
    let second = Router::start(&team, "home-2", false);
    let counter = "table inet count { chain out { type filter hook output priority 0; \
                   udp dport { 5351, 1900 } counter; }; }\n";
    let alone = team.host("robot-c");
    std::fs::write(alone.path("/run/count.nft"), counter).unwrap();
    alone.run(&["nft", "-f", "/run/count.nft"]).unwrap();

    let key = team.key(&["--reusable"]);
    let robots = ["robot-a", "robot-b", "robot-c"].map(|name| team.robot(name, &[]));
    for robot in &robots {
        assert_eq!(robot.join(&key).code, 0);
    }
    let [mut a, b, c] = robots;
    a.wait_for_link("robot-b", "up");
    eventually("the path is direct", || a.peer("robot-b")["path"] == "direct");
    eventually("in both directions", || b.peer("robot-a")["path"] == "direct");
    assert_eq!(a.ping(&b.address(), 5), 5);
    let report = netcheck(&a);
    assert_eq!(report["port_mapping"], "yes", "{report}");
    assert_eq!(report["port_mapping_protocols"], serde_json::json!(["pcp", "nat-pmp", "upnp"]), "{report}");
    assert!(report["port_mapping_address"].as_str().unwrap().starts_with("45.79.1."), "{report}");
    let finds_nat = |report: &serde_json::Value| report["findings"].to_string().contains("symmetric-nat");
    assert!(!finds_nat(&report), "{report}");
    assert_eq!(netcheck(&b)["port_mapping_protocols"], serde_json::json!(["upnp"]));

    // A router that opens nothing is asked a few times, and then left in peace.
    let report = netcheck(&c);
    assert_eq!((&report["port_mapping"], finds_nat(&report)), (&"no".into(), true), "{report}");
    let asked = questions(&alone);
    assert!((1..=12).contains(&asked), "{asked}");

    // A router that was without power is noticed by what it says when it is back.
    first.reboot();
    eventually_within(Duration::from_secs(60), "the port is open again", || first.has_mapping());

    assert!(a.ria(&["status"]).out.contains("port mapping"));
    a.stop(Signal::SIGTERM);
    assert!(!first.has_mapping(), "given back");
    assert!(second.has_mapping(), "not the other's");
    assert_eq!(questions(&alone), asked, "no more questions since");
    assert!(Path::new(first.folder.path()).exists());
}

/// A router as they were before PCP: it knows NAT-PMP (RFC 6886) and nothing else.
struct OldRouter {
    host: Host,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl OldRouter {
    fn start(team: &Team, name: &str) -> Self {
        let host = team.lab.router(name).unwrap();
        let rules = "table inet old { chain to { type nat hook prerouting priority -100; }; }
                     insert rule inet firewall forward ct status dnat accept";
        std::fs::write(host.path("/run/old.nft"), rules).unwrap();
        host.run(&["nft", "-f", "/run/old.nft"]).unwrap();
        let shown = host.run(&["ip", "-4", "-o", "addr", "show", "dev", "up0"]).unwrap();
        let outer = shown.split("inet ").nth(1).and_then(|rest| rest.split('/').next()).unwrap().to_owned();
        let socket = host.enter(|| UdpSocket::bind(("0.0.0.0", 5351))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (stop, worker) = (Arc::new(AtomicBool::new(false)), host.clone());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut buffer = [0; 128];
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    let answer = Self::answer(&worker, &buffer[..len], &from.ip().to_string(), &outer);
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        Self { host, stop, thread: Some(thread) }
    }

    fn answer(host: &Host, question: &[u8], from: &str, outer: &str) -> Vec<u8> {
        const EPOCH: [u8; 4] = [0, 0, 3, 0];
        let outer: std::net::Ipv4Addr = outer.parse().unwrap();
        match question {
            [0, 0] => [&[0, 128, 0, 0][..], &EPOCH, &outer.octets()].concat(),
            [0, 1, 0, 0, inner0, inner1, wanted0, wanted1, lifetime @ ..] => {
                let inner = u16::from_be_bytes([*inner0, *inner1]);
                host.run(&["nft", "flush", "chain", "inet", "old", "to"]).unwrap();
                if lifetime != [0; 4] {
                    let port = u16::from_be_bytes([*wanted0, *wanted1]);
                    let rule = format!(
                        "add rule inet old to iifname up0 udp dport {port} dnat ip to {from}:{inner}"
                    );
                    host.run(&["nft", &rule]).unwrap();
                }
                let ports = [*inner0, *inner1, *wanted0, *wanted1];
                [&[0, 129, 0, 0][..], &EPOCH, &ports, lifetime].concat()
            }
            // PCP, which it takes for a version of its own protocol that it does not know (section 3.5).
            [_, op, ..] => [&[0, 128 | (op & 127), 0, 1][..], &EPOCH].concat(),
            _ => vec![],
        }
    }

    fn has_mapping(&self) -> bool {
        self.host.run(&["nft", "list", "chain", "inet", "old", "to"]).unwrap().contains("dnat")
    }
}

impl Drop for OldRouter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_router_that_knows_nat_pmp_alone_is_used_by_it() {
    let team = Team::of(lab(), &[]);
    let router = OldRouter::start(&team, "home-1");
    let (mut a, b) = team.pair();
    eventually("the path is direct through the port that was opened", || {
        a.peer("robot-b")["path"] == "direct"
    });
    eventually("in both directions", || b.peer("robot-a")["path"] == "direct");
    assert_eq!(a.ping(&b.address(), 5), 5);
    assert!(router.has_mapping());
    let report = netcheck(&a);
    assert_eq!(report["port_mapping_protocols"], serde_json::json!(["nat-pmp"]), "{report}");
    let address = report["port_mapping_address"].as_str().unwrap().to_owned();
    assert_eq!(b.peer("robot-a")["endpoint"].as_str(), Some(address.as_str()));
    a.stop(Signal::SIGTERM);
    assert!(!router.has_mapping(), "given back");
}
