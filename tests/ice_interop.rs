//! ICE against an agent of other hands: aioice, in a Python environment that `scripts/test` makes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use netlab::{Host, HostSpec, Lab, NetworkSpec, Process};
use ria_core::ice::{Agent, Config, Credentials, LocalCandidate, Message};
use ria_protocol::map::CandidateKind;
use serde_json::{Value, json};

/// Longest wait; machines that test are slow.
const SOON: Duration = Duration::from_secs(20);

/// Where `scripts/test` puts what is not part of the tree.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let environment = std::env::var_os("RIA_ENV_DIR").map_or_else(|| root.join(".ria-env"), PathBuf::from);
    let python = environment.join("aioice/bin/python");
    assert!(python.exists(), "{} is missing: `scripts/test tests` makes it", python.display());
    python
}

/// aioice in a host.
struct Foreign {
    process: Process,
    out: BufReader<std::process::ChildStdout>,
}

impl Foreign {
    fn start(host: &Host) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/aioice_peer.py");
        let mut command = host.command(python());
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let out = BufReader::new(process.take_stdout().unwrap());
        Self { process, out }
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("aioice ended with {line:?}"))
    }
}

/// Ria's agent on a socket.
struct Own {
    socket: UdpSocket,
    address: SocketAddr,
    agent: Agent,
    data: Option<Vec<u8>>,
}

impl Own {
    fn new(socket: UdpSocket, config: Config) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let address = socket.local_addr().unwrap();
        Self { socket, address, agent: Agent::new(config), data: None }
    }

    /// Takes part until `done`.
    fn run(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        let mut buffer = [0; 2048];
        while !done(self) {
            assert!(began.elapsed() < SOON, "{what} took too long");
            if let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
                self.take(&buffer[..len], from);
            }
            let now = Instant::now();
            if self.agent.poll_timeout().is_some_and(|at| at <= now) {
                self.agent.handle_timeout(now);
            }
            while let Some(datagram) = self.agent.poll_transmit() {
                assert_eq!(datagram.from, self.address);
                self.socket.send_to(&datagram.bytes, datagram.to).unwrap();
            }
        }
    }

    fn take(&mut self, bytes: &[u8], from: SocketAddr) {
        match Message::parse(bytes) {
            Some(message) => {
                let ways = (from, self.address);
                self.agent.handle_message(&message, bytes, ways, Instant::now()).unwrap();
            }
            None => self.data = Some(bytes.to_vec()),
        }
    }
}

/// Two hosts on one network.
fn lab(name: &str) -> Lab {
    let mut lab = Lab::new(name).unwrap();
    lab.add_network("lan", NetworkSpec::new("192.168.7.0/24".parse().unwrap())).unwrap();
    for host in ["ria", "foreign"] {
        lab.add_host(host, HostSpec::on("lan")).unwrap();
    }
    lab
}

/// Both ends connect and each hears the other; returns whether Ria's end has the controlling role at last.
fn connect(lab: &Lab, own_controls: bool, foreign_controls: bool, announced: bool) -> bool {
    let (host, other) = (lab.host("ria").unwrap(), lab.host("foreign").unwrap());
    let local = Credentials { ufrag: "riaRIA+/".into(), password: "0123456789abcdefghijkl".into() };
    let at = SocketAddr::from((host.address(), 0));
    let socket = host.enter(|| UdpSocket::bind(at)).unwrap();
    let address = socket.local_addr().unwrap();
    let mut foreign = Foreign::start(&other);
    let line = format!("1 1 udp 2130706431 {} {} typ host", address.ip(), address.port());
    let lines: Vec<String> = Some(line).filter(|_| announced).into_iter().collect();
    let told = json!({
        "controlling": foreign_controls, "ipv6": address.is_ipv6(), "candidates": lines,
        "ufrag": local.ufrag, "password": local.password,
    });
    let mut words = foreign.process.take_stdin().unwrap();
    writeln!(words, "{told}").unwrap();
    let its = foreign.hear();
    let text = |key: &str| its[key].as_str().unwrap().to_owned();
    let remote = Credentials { ufrag: text("ufrag"), password: text("password") };
    let mut own = Own::new(socket, Config { local, remote, controlling: own_controls, seed: [7; 32] });
    let host = LocalCandidate { kind: CandidateKind::Host, address, base: address };
    let now = Instant::now();
    own.agent.set_local_candidates(&[host], now);
    for line in its["candidates"].as_array().unwrap() {
        // foundation component transport priority address port typ kind
        let fields: Vec<&str> = line.as_str().unwrap().split(' ').collect();
        let address = SocketAddr::new(fields[4].parse().unwrap(), fields[5].parse().unwrap());
        own.agent.add_remote_candidate(CandidateKind::Host, address, now);
    }
    own.run("a nomination", |own| own.agent.nominated().is_some());
    let (from, to) = own.agent.nominated().unwrap();
    assert_eq!(from, address);
    assert_eq!(to.ip(), other.address(), "{to}");
    // What is sent before the other end has heard of the nomination gets lost there.
    let again = Instant::now();
    own.run("data both ways", |own| {
        let every = again.elapsed().as_millis() % 100 < 10;
        let _ = every.then(|| own.socket.send_to(b"from Ria", to).unwrap());
        own.data.is_some()
    });
    assert_eq!(own.data.as_deref(), Some(&b"to Ria"[..]));
    let result = foreign.hear();
    assert_eq!(result["received"], "from Ria", "{result}");
    assert_ne!(result["controlling"], own.agent.is_controlling(), "one end controls");
    writeln!(words, "done").unwrap();
    assert!(foreign.process.wait().unwrap().success());
    own.agent.is_controlling()
}

#[test]
fn connects_to_a_foreign_agent_in_either_role() {
    let lab = lab("ice-roles");
    assert!(connect(&lab, true, false, true));
    assert!(!connect(&lab, false, true, true));
}

#[test]
fn role_conflicts_with_a_foreign_agent_are_settled() {
    let lab = lab("ice-conflict");
    connect(&lab, true, true, true);
    connect(&lab, false, false, true);
}

#[test]
fn a_foreign_agent_that_was_told_no_candidate_learns_it_from_checks() {
    let lab = lab("ice-reflexive");
    assert!(connect(&lab, true, false, false));
}
