//! `./scripts/bench faults`: what faults cost (docs/benchmarks.md). One module each.

mod agent;
mod clock;
mod coordinator;
mod crowd;
mod memory;
mod revoke;
mod sim;

use anyhow::Result;
use netlab::{HostSpec, Lab, NetworkSpec};

use crate::Figures;
use crate::support::{Measurement, measure, median, percentile};

const MEASUREMENTS: &[Measurement] = &[
    (
        &[
            "coordinator_restart_lost_packets",
            "coordinator_restart_packets",
            "agents_20_cpu_percent",
            "agents_20_wakeups_per_s",
        ],
        coordinator_restarts,
    ),
    (&["agent_restart_gap_ms", "agent_restart_gap_p99_ms"], agent_restarts),
    (&["clock_1970_join_s"], |_| Ok(vec![clock::join_in_1970()?])),
    (&["revoke_to_stop_p99_ms"], |runs| Ok(vec![revoke::run(20, runs.unwrap_or(20))?])),
    (&["agent_rss_mib_100", "agent_rss_anonymous_mib_100"], |_| memory::with_peers(100)),
    (&["sim_node_hours_per_s"], |_| Ok(vec![sim::node_hours_per_second()?])),
];

/// Runs all, or those with one of the metrics named.
pub fn run(runs: Option<usize>, only: &[String]) -> Result<Figures> {
    measure(MEASUREMENTS, runs, only)
}

fn coordinator_restarts(runs: Option<usize>) -> Result<Vec<f64>> {
    let restarts = coordinator::restart_under_flows(20, runs.unwrap_or(3))?;
    #[allow(clippy::cast_precision_loss, reason = "a few hundred thousand packets")]
    Ok(vec![
        restarts.lost as f64,
        restarts.sent as f64,
        restarts.idle.cpu_percent,
        restarts.idle.wakeups_per_s,
    ])
}

fn agent_restarts(runs: Option<usize>) -> Result<Vec<f64>> {
    let gaps = agent::restart_gaps_ms(runs.unwrap_or(20))?;
    Ok(vec![median(&gaps), percentile(&gaps, 0.99)])
}

/// A plain network with these hosts, and the coordinator on it.
fn plain_network(hosts: impl IntoIterator<Item = String>) -> Result<Lab> {
    let mut lab = Lab::new("bench-faults")?;
    lab.add_network("lan", NetworkSpec::new("192.168.0.0/22".parse()?))?;
    lab.add_host("coordinator", HostSpec::on("lan"))?;
    for host in hosts {
        lab.add_host(&host, HostSpec::on("lan"))?;
    }
    Ok(lab)
}
