//! For how long nothing arrives when a path dies, when a robot moves, and after a total loss.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::meter::Meter;
use super::robots;
use crate::support::{Agent, LIMIT, Site, median, percentile, until};

pub const FAILOVER_METRICS: &[&str] = &["failover_gap_ms", "failover_gap_ms_p99"];
pub const UDP_CLOSED_METRICS: &[&str] = &["udp_closed_gap_ms", "udp_closed_gap_ms_p99"];
pub const ROAM_METRICS: &[&str] =
    &["roam_gap_ms", "roam_gap_ms_p99", "roam_gap_udp_ms", "roam_gap_udp_ms_p99"];
pub const BLACKOUT_METRICS: &[&str] = &["blackout_recovery_s_30"];

/// In which everything that follows from an event has happened.
pub(super) const SETTLING: Duration = Duration::from_secs(4);

/// After which a stream to a relay that nobody needs is closed, and a little.
const STREAM_ENDS: Duration = Duration::from_secs(33);

/// Two robots that reach each other directly.
pub(super) struct Pair {
    pub site: Site,
    pub a: Agent,
    pub b: Agent,
    to: String,
}

pub(super) fn direct_pair() -> Result<Pair> {
    let site = Site::start(robots()?)?;
    let key = site.key()?;
    let (a, b) =
        (site.agent("robot-a", &["--join-file", &key])?, site.agent("robot-b", &["--join-file", &key])?);
    let (_, to) = (a.address()?, b.address()?);
    let pair = Pair { site, a, b, to };
    pair.until_direct()?;
    Ok(pair)
}

impl Pair {
    pub fn until_direct(&self) -> Result<()> {
        until("the direct path", || Ok(self.a.peers_by("direct") == 1 && self.b.peers_by("direct") == 1))
    }
}

/// Median and 99th percentile.
pub(super) fn gaps(gaps: &[f64]) -> Vec<f64> {
    vec![median(gaps), percentile(gaps, 0.99)]
}

/// The direct path is cut and the relay lives.
pub fn failover(runs: usize) -> Result<Vec<f64>> {
    let pair = direct_pair()?;
    let meter = Meter::udp(&pair.a.host, &pair.b.host, &pair.to)?;
    let mut found = Vec::new();
    for run in 1..=runs {
        std::thread::sleep(Duration::from_millis(2000 + 137 * run as u64));
        let peers = pair.a.ask("peers");
        let endpoint = peers["peers"][0]["endpoint"].as_str().context("no endpoint")?.to_owned();
        let peer = endpoint.rsplit_once(':').context("no port")?.0;
        meter.reset();
        let rules = format!(
            "add table inet cut; add chain inet cut out {{ type filter hook output priority 0; }}; \
             add chain inet cut in {{ type filter hook input priority 0; }}; \
             add rule inet cut out ip daddr {peer} drop; add rule inet cut in ip saddr {peer} drop"
        );
        pair.a.host.run(&["nft", &rules])?;
        std::thread::sleep(SETTLING);
        let gap = meter.longest().as_secs_f64() * 1000.0;
        pair.a.host.run(&["nft", "delete table inet cut"])?;
        eprintln!("run {run} of {runs}: {gap:.0} ms");
        found.push(gap);
        pair.until_direct()?;
    }
    Ok(gaps(&found))
}

/// A firewall before robot A lets no UDP through any more, under way; the relay's TLS remains.
pub fn udp_closed(runs: usize) -> Result<Vec<f64>> {
    let pair = direct_pair()?;
    let meter = Meter::udp(&pair.a.host, &pair.b.host, &pair.to)?;
    let mut found = Vec::new();
    for run in 1..=runs {
        // Until the stream of the run before has been closed, since it would be there already.
        std::thread::sleep(STREAM_ENDS + Duration::from_millis(137 * run as u64));
        meter.reset();
        let rules = "add table inet closed; add chain inet closed out { type filter hook output priority 0; }; \
                     add chain inet closed in { type filter hook input priority 0; }; \
                     add rule inet closed out oifname eth0 meta l4proto udp drop; \
                     add rule inet closed in iifname eth0 meta l4proto udp drop";
        pair.a.host.run(&["nft", rules])?;
        std::thread::sleep(SETTLING);
        let gap = meter.longest().as_secs_f64() * 1000.0;
        anyhow::ensure!(pair.a.peers_by("relay_tls") == 1, "the relay is not used over TLS");
        pair.a.host.run(&["nft", "delete table inet closed"])?;
        eprintln!("run {run} of {runs}: {gap:.0} ms");
        found.push(gap);
        pair.until_direct()?;
    }
    Ok(gaps(&found))
}

/// Robot A moves to another Wi-Fi, behind another NAT, under a TCP stream to B, and datagrams beside it.
pub fn roam(runs: usize) -> Result<Vec<f64>> {
    let mut pair = direct_pair()?;
    let stream = Meter::tcp(&pair.a.host, &pair.b.host, &pair.to)?;
    let datagrams = Meter::udp(&pair.a.host, &pair.b.host, &pair.to)?;
    let (mut found, mut found_udp) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        std::thread::sleep(Duration::from_secs(2));
        stream.reset();
        datagrams.reset();
        pair.site.lab.move_host("robot-a", if run % 2 == 1 { "hall" } else { "wifi-1" })?;
        std::thread::sleep(SETTLING);
        let [gap, udp] = [&stream, &datagrams].map(|meter| meter.longest().as_secs_f64() * 1000.0);
        eprintln!("run {run} of {runs}: {gap:.0} ms by TCP, {udp:.0} ms by UDP");
        found.push(gap);
        found_udp.push(udp);
        pair.until_direct()?;
    }
    Ok([gaps(&found), gaps(&found_udp)].concat())
}

/// Nothing passes robot A's link for half a minute, while packets are sent.
pub fn blackout(runs: usize) -> Result<Vec<f64>> {
    const TIME: Duration = Duration::from_secs(30);
    let mut pair = direct_pair()?;
    let meter = Meter::udp(&pair.a.host, &pair.b.host, &pair.to)?;
    let mut found = Vec::new();
    for run in 1..=runs {
        std::thread::sleep(Duration::from_secs(2));
        pair.site.lab.black_out("robot-a", None, TIME)?;
        let end = Instant::now() + TIME;
        std::thread::sleep(TIME);
        // What is there at the first look after the end has just arrived.
        while meter.last() < end {
            anyhow::ensure!(end.elapsed() < LIMIT, "nothing arrives after the black-out");
            std::thread::sleep(Duration::from_millis(1));
        }
        let recovery = meter.last().duration_since(end).as_secs_f64();
        eprintln!("run {run} of {runs}: {recovery:.3} s");
        found.push(recovery);
        pair.until_direct()?;
    }
    Ok(vec![median(&found)])
}
