//! What a relay carries: Ria's and coturn in turn, each on one core, with one load generator on another.
//!
//! Two clients with an allocation each, and channels to each other, as two robots have them. One sends all it can, the
//! other counts.

mod datagrams;
mod servers;
mod streams;

use anyhow::Result;

use crate::support::median;
use servers::{Contender, Servers};

/// What a run tells.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Payload that arrived, Mbit/s.
    mbps: f64,
    /// Processor seconds of the server per 10^9 bytes of it.
    cpu_s_per_gb: f64,
}

/// Figures of [`over_udp`].
pub const UDP_METRICS: &[&str] = &[
    "relay_udp_mbps",
    "coturn_udp_mbps",
    "relay_runs_ratio_vs_coturn",
    "relay_udp_cpu_s_per_gb",
    "coturn_udp_cpu_s_per_gb",
    "relay_single_udp_mbps",
    "coturn_single_udp_mbps",
    "relay_ratio_vs_coturn",
];

/// Figures of [`over_tls`].
pub const TLS_METRICS: &[&str] =
    &["relay_tls_mbps", "coturn_tls_mbps", "relay_tls_cpu_s_per_gb", "coturn_tls_cpu_s_per_gb"];

/// Datagrams that an agent hands to the kernel in one go, when there is much to send.
const RUN: usize = 32;

/// Medians over UDP: sent in runs, as agents send, and one by one.
pub fn over_udp(rounds: usize) -> Result<Vec<f64>> {
    let servers = Servers::start()?;
    let (mut runs, mut singles) = (Rounds::default(), Rounds::default());
    for round in 1..=rounds {
        for contender in Contender::BOTH {
            let run = servers.measure(contender, |load, place| datagrams::carry(load, place, RUN))?;
            let single = servers.measure(contender, |load, place| datagrams::carry(load, place, 1))?;
            eprintln!("round {round} of {rounds}: {contender:?} in runs {run:?}, one by one {single:?}");
            runs.push(contender, run);
            singles.push(contender, single);
        }
    }
    let [ria, coturn] = runs.medians(|sample| sample.mbps);
    let [ria_cpu, coturn_cpu] = runs.medians(|sample| sample.cpu_s_per_gb);
    let [ria_single, coturn_single] = singles.medians(|sample| sample.mbps);
    let ratios = [ria / coturn, ria_single / coturn_single];
    Ok(vec![ria, coturn, ratios[0], ria_cpu, coturn_cpu, ria_single, coturn_single, ratios[1]])
}

/// Medians over TLS.
pub fn over_tls(rounds: usize) -> Result<Vec<f64>> {
    let servers = Servers::start()?;
    let mut samples = Rounds::default();
    for round in 1..=rounds {
        for contender in Contender::BOTH {
            let sample = servers.measure(contender, streams::carry)?;
            eprintln!("round {round} of {rounds}: {contender:?} {sample:?}");
            samples.push(contender, sample);
        }
    }
    let [ria, coturn] = samples.medians(|sample| sample.mbps);
    let [ria_cpu, coturn_cpu] = samples.medians(|sample| sample.cpu_s_per_gb);
    Ok(vec![ria, coturn, ria_cpu, coturn_cpu])
}

/// Samples of both contenders.
#[derive(Default)]
struct Rounds([Vec<Sample>; 2]);

impl Rounds {
    fn push(&mut self, contender: Contender, sample: Sample) {
        let [ria, coturn] = &mut self.0;
        match contender {
            Contender::Ria => ria.push(sample),
            Contender::Coturn => coturn.push(sample),
        }
    }

    fn medians(&self, value: impl Fn(&Sample) -> f64) -> [f64; 2] {
        self.0.each_ref().map(|samples| median(&samples.iter().map(&value).collect::<Vec<_>>()))
    }
}
