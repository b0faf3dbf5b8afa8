//! What is measured of a tunnel: iperf3 and ping, and the time that all processors of the machine were busy meanwhile.

use std::fmt;
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::tunnel::Tunnel;
use crate::support::{median, percentile, until};

/// Seconds of each TCP run.
const TCP_SECONDS: &str = "4";
/// Seconds of each UDP run.
const UDP_SECONDS: &str = "2";
/// Bytes of a UDP datagram: fits all tunnels.
const UDP_LEN: &str = "1200";
/// Loss up to which a UDP rate counts as carried.
const UDP_LOSS_PERCENT: f64 = 1.0;
/// Steps of the search for that rate: from 25 Mbit/s to 3.2 Gbit/s to within 4 %.
const UDP_STEPS: usize = 7;
/// Ticks per second in `/proc/stat`: the same on all Linux machines that users see.
const TICKS: f64 = 100.0;

/// One contender's figures in one round.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    tcp_mbps: f64,
    cpu_s_per_gb: f64,
    udp_1pct_mbps: f64,
    pps64: f64,
    ping_idle_median_us: f64,
    ping_loaded_p99_ms: f64,
    rss_mib: f64,
}

impl Sample {
    /// Measures a tunnel, once.
    pub fn take(tunnel: &Tunnel) -> Result<Self> {
        let ping_idle = ping(tunnel, 200)?;
        let busy = busy_seconds()?;
        let tcp = iperf(tunnel, &["-t", TCP_SECONDS])?;
        let busy = busy_seconds()? - busy;
        let received = &tcp["end"]["sum_received"];
        let small = iperf(tunnel, &["-u", "-b", "0", "-l", "64", "-t", UDP_SECONDS])?;
        let (packets, lost) = udp_packets(&small);
        let ping_loaded = thread::scope(|scope| {
            let load = scope.spawn(|| iperf(tunnel, &["-t", "4"]));
            thread::sleep(Duration::from_secs(1));
            let pings = ping(tunnel, 400);
            let ended = load.join();
            ended.map_err(|_| anyhow::anyhow!("the load ended early"))??;
            pings
        })?;
        Ok(Self {
            tcp_mbps: number(&received["bits_per_second"])? / 1e6,
            cpu_s_per_gb: busy / (number(&received["bytes"])? / 1e9),
            udp_1pct_mbps: udp_without_loss(tunnel)?,
            pps64: (packets - lost) / number(&small["end"]["sum"]["seconds"])?,
            ping_idle_median_us: median(&ping_idle) * 1000.0,
            ping_loaded_p99_ms: percentile(&ping_loaded, 0.99),
            rss_mib: tunnel.peak_rss_mib()?,
        })
    }

    /// Metric names, without the contender's, and values that are there.
    pub fn metrics(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [
            ("tcp_mbps", self.tcp_mbps),
            ("cpu_s_per_gb", self.cpu_s_per_gb),
            ("udp_1pct_mbps", self.udp_1pct_mbps),
            ("pps64", self.pps64),
            ("ping_idle_median_us", self.ping_idle_median_us),
            ("ping_loaded_p99_ms", self.ping_loaded_p99_ms),
            ("rss_mib", self.rss_mib),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_nan())
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (metric, value) in self.metrics() {
            write!(f, " {metric} {value:.2}")?;
        }
        Ok(())
    }
}

/// The highest rate of datagrams that arrives with less than 1 % lost, in Mbit/s as received.
fn udp_without_loss(tunnel: &Tunnel) -> Result<f64> {
    let (mut low, mut high, mut best) = (25.0_f64, 3200.0_f64, 0.0);
    for _ in 0..UDP_STEPS {
        let rate = (low * high).sqrt();
        let rate_text = format!("{rate:.0}M");
        let run = iperf(tunnel, &["-u", "-b", &rate_text, "-l", UDP_LEN, "-t", UDP_SECONDS])?;
        let (packets, lost) = udp_packets(&run);
        let sent = number(&run["end"]["sum"]["bits_per_second"])? / 1e6;
        if lost / packets.max(1.0) * 100.0 < UDP_LOSS_PERCENT {
            best = f64::max(best, sent * (1.0 - lost / packets.max(1.0)));
            low = rate;
            // A sender that can't send that fast says nothing about higher rates.
            if sent < rate * 0.9 {
                break;
            }
        } else {
            high = rate;
        }
    }
    Ok(best)
}

fn udp_packets(run: &Value) -> (f64, f64) {
    let sum = &run["end"]["sum"];
    (sum["packets"].as_f64().unwrap_or_default(), sum["lost_packets"].as_f64().unwrap_or_default())
}

/// Runs iperf3 from `a` to `b`; its report.
fn iperf(tunnel: &Tunnel, arguments: &[&str]) -> Result<Value> {
    let mut server = tunnel.b.command("iperf3");
    let mut server = server.args(["-s", "-1"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut report = Value::Null;
    until("iperf3", || {
        let output =
            tunnel.a.command("iperf3").args(["-J", "-c", &tunnel.address]).args(arguments).output()?;
        report = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Ok(report["error"].is_null() && !report["end"].is_null())
    })?;
    server.kill()?;
    Ok(report)
}

/// Round-trip times in ms of pings every 5 ms.
fn ping(tunnel: &Tunnel, count: u32) -> Result<Vec<f64>> {
    let count = count.to_string();
    let output = tunnel.a.output(&["ping", "-n", "-i", "0.005", "-W", "1", "-c", &count, &tunnel.address])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let times = text.lines().filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse().ok());
    let times: Vec<f64> = times.collect();
    anyhow::ensure!(!times.is_empty(), "no ping was answered");
    Ok(times)
}

/// Seconds for which processors did something, since the machine's start.
fn busy_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| fields.get(*at)).sum::<f64>();
    Ok(busy / TICKS)
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("iperf3 reported {value}"))
}
