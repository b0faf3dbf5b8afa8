//! `./scripts/bench paths`: how paths are found, change, and what relays carry (docs/benchmarks.md). One module each.

mod gaps;
mod idle;
mod meet;
mod meter;
mod relay;
mod ros;

use anyhow::Result;
use netlab::{HostSpec, Lab, Nat, NetworkSpec, RouterSpec};

use crate::Figures;
use crate::support::{Measurement, measure};

const MEASUREMENTS: &[Measurement] = &[
    (meet::METRICS, |runs| meet::run(runs.unwrap_or(20))),
    (gaps::FAILOVER_METRICS, |runs| gaps::failover(runs.unwrap_or(6))),
    (gaps::UDP_CLOSED_METRICS, |runs| gaps::udp_closed(runs.unwrap_or(6))),
    (gaps::ROAM_METRICS, |runs| gaps::roam(runs.unwrap_or(8))),
    (ros::METRICS, |runs| ros::roam(runs.unwrap_or(8))),
    (gaps::BLACKOUT_METRICS, |runs| gaps::blackout(runs.unwrap_or(3))),
    (idle::METRICS, |_| idle::run()),
    (relay::UDP_METRICS, |runs| relay::over_udp(runs.unwrap_or(5))),
    (relay::TLS_METRICS, |runs| relay::over_tls(runs.unwrap_or(3))),
];

/// Runs all, or those with one of the metrics named.
pub fn run(runs: Option<usize>, only: &[String]) -> Result<Figures> {
    measure(MEASUREMENTS, runs, only)
}

/// Two robots, each behind a NAT of its own as homes have them, a third Wi-Fi, and the coordinator.
fn robots() -> Result<Lab> {
    let mut lab = Lab::new("bench-paths")?;
    lab.add_network("internet", NetworkSpec::internet("198.51.100.0/24".parse()?))?;
    lab.add_host("coordinator", HostSpec::on("internet"))?;
    for (n, wifi) in (1..).zip(["wifi-1", "wifi-2", "hall"]) {
        lab.add_network(wifi, NetworkSpec::campus_wifi(format!("192.168.{n}.0/24").parse()?))?;
        let router = RouterSpec::new("internet", wifi, Nat::PORT_RESTRICTED);
        lab.add_router(&format!("nat-{wifi}"), router)?;
    }
    lab.add_host("robot-a", HostSpec::on("wifi-1"))?;
    lab.add_host("robot-b", HostSpec::on("wifi-2"))?;
    Ok(lab)
}
