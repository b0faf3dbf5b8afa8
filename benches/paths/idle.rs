//! What an agent sends when nothing is to be sent.

use std::time::Duration;

use anyhow::{Context, Result};

use super::robots;
use crate::support::{Site, until};

pub const METRICS: &[&str] = &["idle_bytes_per_s_per_peer"];

/// After this time nobody looks for better ways often any more.
const SETTLING: Duration = Duration::from_secs(150);

/// Some periods of everything that is periodic.
const WINDOW: Duration = Duration::from_secs(240);

/// All UDP of robot A (IP headers included, which is what networks carry), with one peer over a direct path.
pub fn run() -> Result<Vec<f64>> {
    let site = Site::start(robots()?)?;
    let key = site.key()?;
    let (a, b) =
        (site.agent("robot-a", &["--join-file", &key])?, site.agent("robot-b", &["--join-file", &key])?);
    until("the direct path", || Ok(a.peers_by("direct") == 1 && b.peers_by("direct") == 1))?;
    a.host.run(&[
        "nft",
        "add table inet count; add chain inet count out { type filter hook output priority 0; }; \
         add rule inet count out udp sport 41820 counter",
    ])?;
    std::thread::sleep(SETTLING);
    let sent = || -> Result<f64> {
        let rules = a.host.run(&["nft", "list", "table", "inet", "count"])?;
        let bytes = rules.split("bytes ").nth(1).and_then(|rest| rest.split_whitespace().next());
        Ok(bytes.context("nft shows no counter")?.parse()?)
    };
    let before = sent()?;
    std::thread::sleep(WINDOW);
    Ok(vec![(sent()? - before) / WINDOW.as_secs_f64()])
}
