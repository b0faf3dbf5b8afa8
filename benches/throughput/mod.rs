//! `./scripts/bench throughput`: Ria against other userspace WireGuards, in turn, in one run (docs/benchmarks.md).

mod measure;
pub mod tunnel;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use netlab::{HostSpec, Lab, NetworkSpec};
use serde_json::json;

use crate::Figures;
use crate::support::{Site, median};
use tunnel::{Contender, Tunnel};

/// The ratios that claims are made of: metric, numerator, denominator, as names of the other metrics.
const RATIOS: &[(&str, &str, &str)] = &[
    ("tcp_ratio_vs_wireguard_go", "tcp_mbps_ria", "tcp_mbps_wireguard_go"),
    ("cpu_ratio_vs_wireguard_go", "cpu_s_per_gb_ria", "cpu_s_per_gb_wireguard_go"),
    ("udp_ratio_vs_gotatun", "udp_1pct_mbps_ria", "udp_1pct_mbps_gotatun"),
    ("pps_ratio_vs_gotatun", "pps64_ria", "pps64_gotatun"),
    ("ping_idle_ratio_vs_boringtun", "ping_idle_median_us_ria", "ping_idle_median_us_boringtun"),
];

/// Interleaved rounds over all contenders (or those of the metrics named), medians of each metric.
pub fn run(rounds: usize, only: &[String]) -> Result<Figures> {
    let _first = GoFirst::begin();
    let mut lab = Lab::new("bench-throughput")?;
    lab.add_network("lan", NetworkSpec::new("192.168.0.0/24".parse()?))?;
    for host in ["coordinator", "a", "b"] {
        lab.add_host(host, HostSpec::on("lan"))?;
    }
    let site = Site::start(lab)?;
    site.admin(&["network", "create", "wide", "--mtu", "1420"])?;
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 1..=rounds {
        for contender in Contender::ALL {
            let is_wanted = |metric: &str| is_wanted(contender, metric, only);
            if !measure::concerns(&is_wanted) {
                continue;
            }
            let name = contender.name();
            let tunnel = Tunnel::start(&site, contender).with_context(|| format!("the tunnel of {name}"))?;
            let taken = measure::take(&tunnel, &is_wanted).with_context(|| format!("measuring {name}"))?;
            let shown: Vec<_> = taken.iter().map(|(metric, value)| format!("{metric} {value:.2}")).collect();
            eprintln!("round {round} of {rounds}: {name:13} {}", shown.join(" "));
            for (metric, value) in taken {
                samples.entry(format!("{metric}_{name}")).or_default().push(value);
            }
        }
    }
    let mut figures: Figures =
        samples.iter().map(|(metric, values)| (metric.clone(), json!(median(values)))).collect();
    for (ratio, over, under) in RATIOS {
        let value = |metric: &str| figures.get(metric).and_then(serde_json::Value::as_f64);
        if let (Some(over), Some(under)) = (value(over), value(under)) {
            figures.insert((*ratio).to_owned(), json!(over / under));
        }
    }
    Ok(figures)
}

/// Programs of all contenders, and those that measure, go before what else runs on the machine, until this is dropped.
pub struct GoFirst;

/// Where the kernel weighs sessions against each other, and processes within a session only (autogroups, sched(7)).
const AUTOGROUP: &str = "/proc/self/autogroup";

impl GoFirst {
    /// Begins it.
    pub fn begin() -> Self {
        let own = std::process::id().to_string();
        let done = Command::new("renice").args(["-n", "-15", "-p", &own]).output();
        let grouped = Path::new(AUTOGROUP).exists();
        if !done.is_ok_and(|output| output.status.success())
            || grouped && std::fs::write(AUTOGROUP, "-15").is_err()
        {
            eprintln!(
                "the priority could not be raised: what else runs on this machine shows in the figures"
            );
        }
        Self
    }
}

impl Drop for GoFirst {
    fn drop(&mut self) {
        // The group is that of the caller's session, which lives on.
        let _ = std::fs::write(AUTOGROUP, "0");
    }
}

fn is_wanted(contender: Contender, metric: &str, only: &[String]) -> bool {
    let full = format!("{metric}_{}", contender.name());
    let needs_it = |named: &String| {
        let ratio = RATIOS.iter().find(|(ratio, ..)| ratio == named);
        *named == full || ratio.is_some_and(|(_, over, under)| *over == full || *under == full)
    };
    // Of what a relay carries, the coordinator's own benchmark says more: docs/benchmarks.md, `paths`.
    let is_shown = contender != Contender::RiaRelayed || metric == "tcp_mbps";
    is_shown && (only.is_empty() || only.iter().any(needs_it))
}
