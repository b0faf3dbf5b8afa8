//! `./scripts/bench paths`: how paths are found, change, and what relays carry (docs/benchmarks.md). One module each.

mod relay;

use anyhow::Result;

use crate::Figures;
use crate::support::{Measurement, measure};

const MEASUREMENTS: &[Measurement] = &[
    (relay::UDP_METRICS, |runs| relay::over_udp(runs.unwrap_or(5))),
    (relay::TLS_METRICS, |runs| relay::over_tls(runs.unwrap_or(3))),
];

/// Runs all, or those with one of the metrics named.
pub fn run(runs: Option<usize>, only: &[String]) -> Result<Figures> {
    measure(MEASUREMENTS, runs, only)
}
