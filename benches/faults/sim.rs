//! How fast the simulation is: hours that nodes live through per second, over the runs of fixed seeds.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ria_sim::{Plan, run};

/// Runs that take some ten seconds in the release profile.
const SEEDS: std::ops::Range<u64> = 0..300;

/// Hours of nodes per second of one core.
pub fn node_hours_per_second() -> Result<f64> {
    let begin = Instant::now();
    let mut lived = Duration::ZERO;
    for seed in SEEDS {
        match run(&Plan::from_seed(seed)) {
            Ok(report) => lived += report.node_time,
            Err(failure) => bail!("the simulation of seed {seed} went wrong: {}", failure.wrong),
        }
    }
    Ok(lived.as_secs_f64() / 3600.0 / begin.elapsed().as_secs_f64())
}
