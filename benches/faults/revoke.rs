//! `revoke_to_stop_p99_ms`: from the administrator's command to the last packet of the node that was put out.
//!
//! Half of the agents share a plain network and reach each other directly; the others sit on an isolated Wi-Fi, and
//! all that they send and get is relayed. In each round one node has traffic both ways with every other one when it is
//! disabled; a sample is how long after the start of `ria-coordinator node disable` the last datagram of one of these
//! flows arrived. It includes the start of that command.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netlab::{FlowEnd, Flows, HostSpec, Lab, Nat, NetworkSpec, RouterSpec};

use crate::support::{Agent, Site, until};

/// Between two datagrams of a flow; what is measured is no finer than this.
const PACE: Duration = Duration::from_millis(10);

/// When nothing has come for so long, the last packet was the last.
const SILENCE: Duration = Duration::from_millis(1500);

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

struct Crowd {
    agents: Vec<Agent>,
    ends: Vec<FlowEnd>,
    site: Site,
}

impl Crowd {
    fn start(count: usize) -> Result<Self> {
        let site = Site::start(build_lab(count)?)?;
        let key = site.key()?;
        let start = |n| site.agent(&robot(n), &["--join-file", &key]);
        let agents: Vec<Agent> = (0..count).map(start).collect::<Result<_>>()?;
        let end =
            |agent: &Agent| Ok(FlowEnd { host: agent.host.clone(), address: agent.address()?.parse()? });
        let ends = agents.iter().map(end).collect::<Result<_>>()?;
        let crowd = Self { agents, ends, site };
        until("the links between all agents", || Ok(crowd.is_meshed()))?;
        Ok(crowd)
    }

    /// Whether everybody has a link to everybody, of the kind that the lab allows.
    fn is_meshed(&self) -> bool {
        let count = |n: usize| {
            (0..self.agents.len()).filter(|other| is_together(*other) == is_together(n)).count() - 1
        };
        self.agents.iter().enumerate().all(|(n, agent)| {
            let direct = if is_together(n) { count(n) } else { 0 };
            let relayed = self.agents.len() - 1 - direct;
            (agent.peers_by("direct"), agent.peers_by("relay_udp")) == (direct, relayed)
        })
    }

    /// Disables one node under traffic; gives for each of its flows how long the last datagram took to be the last.
    fn revoke(&self, victim: usize) -> Result<Vec<Duration>> {
        until("the links between all agents", || Ok(self.is_meshed()))?;
        let end = self.ends.get(victim).context("no such agent")?;
        let others = self.ends.iter().filter(|other| other.host.name() != end.host.name());
        let pairs: Vec<(FlowEnd, FlowEnd)> =
            others.flat_map(|o| [(end.clone(), o.clone()), (o.clone(), end.clone())]).collect();
        let flows = Flows::start(&pairs, PACE)?;
        until("traffic", || Ok((0..pairs.len()).all(|flow| flows.received(flow) > 20)))?;
        let began = Instant::now();
        self.site.admin(&["node", "disable", end.host.name()])?;
        let last =
            |flow| flows.last_arrival(flow).map_or(Duration::ZERO, |at| at.saturating_duration_since(began));
        until("silence", || {
            let latest = (0..pairs.len()).map(last).max().unwrap_or_default();
            Ok(began.elapsed() > latest + SILENCE)
        })?;
        let took = (0..pairs.len()).map(last).collect();
        drop(flows);
        self.site.admin(&["node", "enable", end.host.name()])?;
        Ok(took)
    }
}

fn build_lab(count: usize) -> Result<Lab> {
    let mut lab = Lab::new("bench-revoke")?;
    lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse()?))?;
    lab.add_network("lan", NetworkSpec::new("192.168.1.0/24".parse()?))?;
    lab.add_network("wifi", NetworkSpec::campus_wifi("192.168.2.0/24".parse()?))?;
    for network in ["lan", "wifi"] {
        lab.add_router(&format!("nat-{network}"), RouterSpec::new("internet", network, Nat::Symmetric))?;
    }
    lab.add_host("coordinator", HostSpec::on("internet"))?;
    for n in 0..count {
        lab.add_host(&robot(n), HostSpec::on(if is_together(n) { "lan" } else { "wifi" }))?;
    }
    Ok(lab)
}

fn is_together(n: usize) -> bool {
    n.is_multiple_of(2)
}

fn robot(n: usize) -> String {
    format!("robot-{}", n + 1)
}
