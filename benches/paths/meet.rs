//! How soon a robot that starts reaches another one, and how soon directly.

use std::time::Duration;

use anyhow::Result;

use super::robots;
use crate::support::{Site, median, percentile, until};

pub const METRICS: &[&str] = &["first_ping_s", "direct_after_s", "direct_after_s_p99"];

/// Robot A, a member, is started again and again; B runs all the time.
pub fn run(runs: usize) -> Result<Vec<f64>> {
    let site = Site::start(robots()?)?;
    let key = site.key()?;
    let b = site.agent("robot-b", &["--join-file", &key])?;
    let address = b.address()?;
    let mut first = site.agent("robot-a", &["--join-file", &key])?;
    first.address()?;
    first.process.terminate(Duration::from_secs(5))?;
    let (mut pings, mut directs) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let mut a = site.agent("robot-a", &[])?;
        let ping = a.first_answer(&address)?;
        until("the direct path", || Ok(a.peers_by("direct") == 1))?;
        let direct = (a.began.elapsed().as_secs_f64() - ping).max(0.0);
        a.process.terminate(Duration::from_secs(5))?;
        eprintln!("run {run} of {runs}: answered after {ping:.3} s, direct {direct:.3} s later");
        pings.push(ping);
        directs.push(direct);
    }
    Ok(vec![median(&pings), median(&directs), percentile(&directs, 0.99)])
}
