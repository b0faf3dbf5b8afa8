//! `./scripts/bench throughput`: Ria against other userspace WireGuards, in turn, in one run (docs/benchmarks.md).

mod measure;
mod tunnel;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use netlab::{HostSpec, Lab, NetworkSpec};
use serde_json::json;

use crate::Figures;
use crate::support::{Site, median};
use measure::Sample;
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
    let mut lab = Lab::new("bench-throughput")?;
    lab.add_network("lan", NetworkSpec::new("192.168.0.0/24".parse()?))?;
    for host in ["coordinator", "a", "b"] {
        lab.add_host(host, HostSpec::on("lan"))?;
    }
    let site = Site::start(lab)?;
    site.admin(&["network", "create", "wide", "--mtu", "1420"])?;
    let wanted = |contender: &Contender| {
        only.is_empty() || only.iter().any(|metric| metric.ends_with(&format!("_{}", contender.name())))
    };
    let contenders: Vec<Contender> = Contender::ALL.into_iter().filter(wanted).collect();
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 1..=rounds {
        for contender in &contenders {
            let tunnel = Tunnel::start(&site, *contender)
                .with_context(|| format!("the tunnel of {}", contender.name()))?;
            let sample = Sample::take(&tunnel).with_context(|| format!("measuring {}", contender.name()))?;
            eprintln!("round {round} of {rounds}: {:13} {sample}", contender.name());
            for (metric, value) in sample.metrics() {
                samples.entry(format!("{metric}_{}", contender.name())).or_default().push(value);
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
