//! `./scripts/bench join`: from process start to the first answered ping (docs/benchmarks.md).
//!
//! Real processes in network namespaces: a coordinator and two robots, each behind a port-preserving NAT on a Wi-Fi
//! with client isolation. Times are taken from outside, as a user's `ping` sees it.

use std::time::Duration;

use anyhow::Result;
use netlab::Lab;
use serde_json::json;

use crate::Figures;
use crate::support::{Agent, Site, median, until};

/// Seconds since the start of the process.
#[derive(Debug, Clone, Copy)]
struct Run {
    ping: f64,
    direct: f64,
}

/// Runs it.
pub fn run(runs: usize) -> Result<Figures> {
    let site = Site::start(Lab::build(&netlab::topologies::campus()?)?)?;
    let key = site.key()?;
    let b = site.agent("robot-b", &["--join-file", &key])?;
    let address = b.address()?;
    let (mut join, mut resume) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        forget(&site)?;
        join.push(measure(&site, &address, &["--join-file", &key])?);
        resume.push(measure(&site, &address, &[])?);
        eprintln!("run {run} of {runs}: {:?} {:?}", join[join.len() - 1], resume[resume.len() - 1]);
    }
    let mut figures = Figures::new();
    for (name, runs) in [("join", &join), ("resume", &resume)] {
        let (pings, directs): (Vec<f64>, Vec<f64>) = runs.iter().map(|run| (run.ping, run.direct)).unzip();
        figures.insert(format!("{name}_to_ping_s"), json!(median(&pings)));
        figures.insert(format!("{name}_to_direct_s"), json!(median(&directs)));
    }
    figures.insert("agent_rss_mib_2".into(), json!(b.memory_mib("VmRSS")?));
    Ok(figures)
}

/// Makes robot A one that never joined.
fn forget(site: &Site) -> Result<()> {
    let state = site.lab.host("robot-a")?.path("/var/lib/ria");
    for entry in std::fs::read_dir(&state)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    Ok(())
}

/// Starts robot A's agent, measures, and stops it.
fn measure(site: &Site, address: &str, arguments: &[&str]) -> Result<Run> {
    let mut agent = site.agent("robot-a", arguments)?;
    let ping = agent.first_answer(address)?;
    let direct = until_direct(&agent, address)?;
    agent.process.terminate(Duration::from_secs(5))?;
    Ok(Run { ping, direct })
}

fn until_direct(agent: &Agent, address: &str) -> Result<f64> {
    until("the direct path", || {
        let peers = agent.ask("peers");
        let peers = peers["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(peers.iter().any(|p| p["addresses"][0].as_str() == Some(address) && p["path"] == "direct"))
    })?;
    Ok(agent.began.elapsed().as_secs_f64())
}
