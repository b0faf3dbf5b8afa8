//! How long the first packet to a peer takes: in an on-demand network to one that is not held, in one that is pushed to one to
//! which nothing was said for a while. Real agents, in namespaces; times are the kernel's `ping`'s.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netlab::Lab;

use crate::support::{Agent, Site, median, until};

/// First packets that are timed.
const ROUNDS: usize = 20;
/// How long nothing is said before one.
const QUIET: Duration = Duration::from_secs(3);

/// Medians in milliseconds: on demand, and pushed.
pub fn measure() -> Result<[f64; 2]> {
    let site = Site::start(Lab::build(&netlab::topologies::campus()?)?)?;
    let key = site.key()?;
    let agents = ["robot-a", "robot-b"].map(|name| start(&site, name, &key));
    let [a, b] = agents;
    let (a, b) = (a?, b?);
    let address = b.address()?;
    let mut pushed = Vec::new();
    a.first_answer(&address)?;
    for _ in 0..ROUNDS {
        std::thread::sleep(QUIET);
        pushed.push(first_packet(&a, &address)?);
    }
    site.admin(&["network", "peers", "lab", "on-demand"])?;
    let mut on_demand = Vec::new();
    for _ in 0..ROUNDS {
        until("the peer is released", || Ok(holds_nobody(&a) && holds_nobody(&b)))?;
        on_demand.push(first_packet(&a, &address)?);
    }
    eprintln!("  on demand {on_demand:.1?}, pushed {pushed:.1?}");
    Ok([median(&on_demand), median(&pushed)])
}

fn start(site: &Site, name: &str, key: &str) -> Result<Agent> {
    let host = site.lab.host(name)?;
    std::fs::write(host.path("/etc/ria/agent.toml"), "[peers]\nrelease_after = 1\n")?;
    site.agent(name, &["--join-file", key])
}

fn holds_nobody(agent: &Agent) -> bool {
    agent.ask("peers")["peers"].as_array().is_some_and(Vec::is_empty)
}

/// Milliseconds from a packet to its answer, of the one packet that is sent.
fn first_packet(agent: &Agent, address: &str) -> Result<f64> {
    let output = agent.host.output(&["ping", "-n", "-c", "1", "-W", "10", address])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "the first packet got lost: {text}");
    let time = text.split("time=").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(time.context("ping does not tell a time")?.parse()?)
}
