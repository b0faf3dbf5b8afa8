//! `revoke_to_stop_p99_ms`: from the administrator's command to the last packet of the node that was put out.
//!
//! Half of the agents share a plain network and reach each other directly; the others sit on an isolated Wi-Fi, and
//! all that they send and get is relayed. In each round one node has traffic both ways with every other one when it is
//! disabled; a sample is how long after the start of `ria-coordinator node disable` the last datagram of one of these
//! flows arrived. It includes the start of that command.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netlab::{FlowEnd, Flows, Host, HostSpec, Lab, Nat, NetworkSpec, Process, RouterSpec};
use serde_json::Value;

/// Between two datagrams of a flow; what is measured is no finer than this.
const PACE: Duration = Duration::from_millis(10);

/// When nothing has come for so long, the last packet was the last.
const SILENCE: Duration = Duration::from_millis(1500);

/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures with so many agents; each round puts out another one. Gives the 99th percentile in milliseconds.
pub fn run(agents: usize, rounds: usize) -> Result<f64> {
    ensure!(agents >= 4, "revocation needs at least 4 agents: two on each network");
    let crowd = Crowd::start(agents)?;
    let mut samples = Vec::new();
    for round in 0..rounds {
        let victim = (round * 7 + round / agents) % agents;
        let took = crowd.revoke(victim)?;
        let worst = took.iter().max().copied().unwrap_or_default();
        eprintln!("revocation, round {} of {rounds}: {:.1} ms", round + 1, worst.as_secs_f64() * 1e3);
        samples.extend(took);
    }
    samples.sort();
    let index = (samples.len() * 99).div_ceil(100).saturating_sub(1);
    let p99 = samples.get(index).context("no traffic was measured")?;
    Ok(p99.as_secs_f64() * 1e3)
}

struct Agent {
    end: FlowEnd,
    name: String,
    _process: Process,
}

struct Crowd {
    agents: Vec<Agent>,
    coordinator: Host,
    ria: PathBuf,
    _server: Process,
    _lab: Lab,
    _directory: tempfile::TempDir,
}

impl Crowd {
    fn start(count: usize) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let ria = PathBuf::from(env!("CARGO_BIN_EXE_ria"));
        let program = coordinator_program(&ria)?;
        let (lab, coordinator) = build_lab(count)?;
        let url = format!("https://{}", coordinator.address());
        let log = directory.path().join("coordinator.log");
        let server = coordinator.spawn(&[program.as_str(), "serve", "--public-url", &url], &log)?;
        until("the coordinator", || {
            Ok(coordinator.output(&[program.as_str(), "network", "list"])?.status.success())
        })?;
        let key = directory.path().join("join.key");
        std::fs::write(&key, coordinator.run(&[program.as_str(), "key", "create", "--reusable"])?)?;
        let mut started = Vec::new();
        for n in 0..count {
            let host = lab.host(&robot(n))?;
            let log = directory.path().join(format!("{}.log", robot(n)));
            let line = [ria.as_os_str(), "daemon".as_ref(), "--join-file".as_ref(), key.as_os_str()];
            started.push((host.clone(), host.spawn(&line, &log)?));
        }
        let mut agents = Vec::new();
        for (host, process) in started {
            let address = wait_for_address(&host, &ria)?;
            let name = host.name().to_owned();
            agents.push(Agent { end: FlowEnd { host, address }, name, _process: process });
        }
        let crowd = Self { agents, coordinator, ria, _server: server, _lab: lab, _directory: directory };
        until("the links between all agents", || crowd.is_meshed())?;
        Ok(crowd)
    }

    /// Whether everybody has a link to everybody, of the kind that the lab allows.
    fn is_meshed(&self) -> Result<bool> {
        for (n, agent) in self.agents.iter().enumerate() {
            let paths = paths(&agent.end.host, &self.ria)?;
            let good =
                self.agents.iter().enumerate().filter(|(other, _)| *other != n).all(|(other, peer)| {
                    let direct = is_together(n) && is_together(other);
                    let path = if direct { "direct" } else { "relay_udp" };
                    paths.get(&peer.name).is_some_and(|(state, way)| state == "up" && way == path)
                });
            if !good {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Disables one node under traffic; gives for each of its flows how long the last datagram took to be the last.
    fn revoke(&self, victim: usize) -> Result<Vec<Duration>> {
        until("the links between all agents", || self.is_meshed())?;
        let agent = self.agents.get(victim).context("no such agent")?;
        let others = self.agents.iter().filter(|other| other.name != agent.name);
        let pairs: Vec<(FlowEnd, FlowEnd)> = others
            .flat_map(|o| [(agent.end.clone(), o.end.clone()), (o.end.clone(), agent.end.clone())])
            .collect();
        let flows = Flows::start(&pairs, PACE)?;
        until("traffic", || Ok((0..pairs.len()).all(|flow| flows.received(flow) > 20)))?;
        let began = Instant::now();
        self.admin("disable", &agent.name)?;
        let last =
            |flow| flows.last_arrival(flow).map_or(Duration::ZERO, |at| at.saturating_duration_since(began));
        until("silence", || {
            let latest = (0..pairs.len()).map(last).max().unwrap_or_default();
            Ok(began.elapsed() > latest + SILENCE)
        })?;
        let took = (0..pairs.len()).map(last).collect();
        drop(flows);
        self.admin("enable", &agent.name)?;
        Ok(took)
    }

    fn admin(&self, verb: &str, node: &str) -> Result<()> {
        let program = coordinator_program(&self.ria)?;
        self.coordinator.run(&[program.as_str(), "node", verb, node])?;
        Ok(())
    }
}

fn build_lab(count: usize) -> Result<(Lab, Host)> {
    let mut lab = Lab::new("bench-revoke")?;
    lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse()?))?;
    lab.add_network("lan", NetworkSpec::new("192.168.1.0/24".parse()?))?;
    lab.add_network("wifi", NetworkSpec::campus_wifi("192.168.2.0/24".parse()?))?;
    for network in ["lan", "wifi"] {
        lab.add_router(&format!("nat-{network}"), RouterSpec::new("internet", network, Nat::Symmetric))?;
    }
    let coordinator = lab.add_host("coordinator", HostSpec::on("internet"))?;
    for n in 0..count {
        lab.add_host(&robot(n), HostSpec::on(if is_together(n) { "lan" } else { "wifi" }))?;
    }
    Ok((lab, coordinator))
}

fn is_together(n: usize) -> bool {
    n % 2 == 0
}

fn robot(n: usize) -> String {
    format!("robot-{}", n + 1)
}

fn coordinator_program(ria: &Path) -> Result<String> {
    let program = ria.with_file_name("ria-coordinator");
    ensure!(program.exists(), "build the workspace first: scripts/bench does");
    Ok(program.to_string_lossy().into_owned())
}

fn wait_for_address(host: &Host, ria: &Path) -> Result<IpAddr> {
    let mut found = None;
    until("an agent", || {
        let status = json(host, ria, "status")?;
        let address = status["networks"][0]["addresses"][0].as_str().unwrap_or_default();
        found = address.split('/').next().and_then(|address| address.parse().ok());
        Ok(found.is_some())
    })?;
    found.context("an agent has no address")
}

/// State and path of the links of an agent, by the peer's name.
fn paths(host: &Host, ria: &Path) -> Result<BTreeMap<String, (String, String)>> {
    let peers = json(host, ria, "peers")?;
    let text = |peer: &Value, key: &str| peer[key].as_str().unwrap_or_default().to_owned();
    let peers = peers["peers"].as_array().into_iter().flatten();
    Ok(peers.map(|p| (text(p, "name"), (text(p, "link_state"), text(p, "path")))).collect())
}

fn json(host: &Host, ria: &Path, verb: &str) -> Result<Value> {
    let output = host.output(&[ria.as_os_str(), verb.as_ref(), "--json".as_ref()])?;
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
}

fn until(what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !ready()? {
        ensure!(began.elapsed() < LIMIT, "{what}: not there in {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
