//! What is measured of a tunnel: iperf3 and ping, and the processor time that a transfer costs.

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
/// Attempts per rate: a pause of the machine for something else must not decide the search.
const UDP_ATTEMPTS: usize = 2;
/// Socket buffers of sender and receiver: what the tunnel delivers is to be counted, also when the receiver has to wait for a
/// processor.
const UDP_BUFFER: &str = "2M";
/// Ticks per second in `/proc/PID/stat`: the same on all Linux machines that users see.
const TICKS: f64 = 100.0;

/// What is measured in one go, by the metrics that come of it, without the contender's name.
type Measurement = (&'static [&'static str], fn(&Tunnel) -> Result<Vec<f64>>);

/// In this order: memory is the peak of all before it.
const MEASUREMENTS: &[Measurement] = &[
    (&["ping_idle_median_us"], idle_ping),
    (&["tcp_mbps", "cpu_s_per_gb"], tcp),
    (&["pps64"], packets_per_second),
    (&["ping_loaded_p99_ms", "tcp_mbps_while_pinged"], loaded_ping),
    (&["udp_1pct_mbps"], |tunnel| Ok(vec![udp_without_loss(tunnel)?])),
    (&["rss_mib"], |tunnel| Ok(vec![tunnel.peak_rss_mib()?])),
];

/// Whether something of a tunnel is measured at all.
pub fn concerns(is_wanted: &dyn Fn(&str) -> bool) -> bool {
    MEASUREMENTS.iter().flat_map(|(metrics, _)| *metrics).any(|metric| is_wanted(metric))
}

/// Measures what is wanted of a tunnel, once: metrics, without the contender's name, and values that there are.
pub fn take(tunnel: &Tunnel, is_wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(&'static str, f64)>> {
    let mut taken = Vec::new();
    for (metrics, measure) in MEASUREMENTS {
        if metrics.iter().any(|metric| is_wanted(metric)) {
            let values = measure(tunnel).with_context(|| format!("measuring {}", metrics.join(", ")))?;
            taken.extend(metrics.iter().copied().zip(values).filter(|(_, value)| !value.is_nan()));
        }
    }
    Ok(taken)
}

fn idle_ping(tunnel: &Tunnel) -> Result<Vec<f64>> {
    Ok(vec![median(&ping(tunnel, 200)?) * 1000.0])
}

fn tcp(tunnel: &Tunnel) -> Result<Vec<f64>> {
    let begin = busy_seconds(tunnel)?;
    let run = iperf(tunnel, &["-t", TCP_SECONDS])?;
    let busy = busy_seconds(tunnel)? - begin;
    let received = &run["end"]["sum_received"];
    Ok(vec![number(&received["bits_per_second"])? / 1e6, busy / (number(&received["bytes"])? / 1e9)])
}

fn packets_per_second(tunnel: &Tunnel) -> Result<Vec<f64>> {
    let run = iperf_udp(tunnel, "0", "64")?;
    let (packets, lost) = udp_packets(&run);
    Ok(vec![(packets - lost) / number(&run["end"]["sum"]["seconds"])?])
}

fn loaded_ping(tunnel: &Tunnel) -> Result<Vec<f64>> {
    let (pings, load) = thread::scope(|scope| {
        let load = scope.spawn(|| iperf(tunnel, &["-t", "4"]));
        thread::sleep(Duration::from_secs(1));
        let pings = ping(tunnel, 400);
        (pings, load.join())
    });
    let load = load.map_err(|_| anyhow::anyhow!("the load ended early"))??;
    let mbps = number(&load["end"]["sum_received"]["bits_per_second"])? / 1e6;
    Ok(vec![percentile(&pings?, 0.99), mbps])
}

/// The highest rate of datagrams that arrives with less than 1 % lost, in Mbit/s as received.
fn udp_without_loss(tunnel: &Tunnel) -> Result<f64> {
    let (mut low, mut high, mut best) = (25.0_f64, 3200.0_f64, 0.0);
    for _ in 0..UDP_STEPS {
        let rate = (low * high).sqrt();
        let mut carried = None;
        for _ in 0..UDP_ATTEMPTS {
            carried = udp_at(tunnel, rate)?;
            if carried.is_some() {
                break;
            }
        }
        let Some((sent, received)) = carried else {
            high = rate;
            continue;
        };
        best = f64::max(best, received);
        low = rate;
        // A sender that can't send that fast says nothing about higher rates.
        if sent < rate * 0.9 {
            break;
        }
    }
    Ok(best)
}

/// What was sent and received at this rate, in Mbit/s; nothing when too much was lost.
fn udp_at(tunnel: &Tunnel, rate: f64) -> Result<Option<(f64, f64)>> {
    let rate = format!("{rate:.0}M");
    let run = iperf_udp(tunnel, &rate, UDP_LEN)?;
    let (packets, lost) = udp_packets(&run);
    let share = lost / packets.max(1.0);
    let sent = number(&run["end"]["sum"]["bits_per_second"])? / 1e6;
    Ok((share * 100.0 < UDP_LOSS_PERCENT).then_some((sent, sent * (1.0 - share))))
}

fn udp_packets(run: &Value) -> (f64, f64) {
    let sum = &run["end"]["sum"];
    (sum["packets"].as_f64().unwrap_or_default(), sum["lost_packets"].as_f64().unwrap_or_default())
}

fn iperf_udp(tunnel: &Tunnel, rate: &str, len: &str) -> Result<Value> {
    let mut arguments = vec!["-u", "-b", rate, "-l", len, "-t", UDP_SECONDS];
    if tunnel.has_large_buffers {
        arguments.extend(["-w", UDP_BUFFER]);
    }
    iperf(tunnel, &arguments)
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

/// Processor time, until now, of all that takes part: the tunnel's programs, sender and receiver once they have ended, and
/// the kernel's threads that take packets over. What else runs on the machine does not count.
fn busy_seconds(tunnel: &Tunnel) -> Result<f64> {
    let own = process_ticks("self").context("/proc/self/stat can't be read")?;
    let mut ticks = own.ended_children;
    for program in tunnel.programs() {
        ticks += process_ticks(&program.id().to_string()).context("a program of the tunnel has ended")?.own;
    }
    for process in fs::read_dir("/proc")? {
        let name = process?.file_name().to_string_lossy().into_owned();
        let comm = fs::read_to_string(format!("/proc/{name}/comm")).unwrap_or_default();
        if comm.starts_with("ksoftirqd/") {
            ticks += process_ticks(&name).map_or(0.0, |ticks| ticks.own);
        }
    }
    Ok(ticks / TICKS)
}

/// User and system time in ticks.
struct Ticks {
    /// Of a process with all its threads.
    own: f64,
    /// Of its children that have ended.
    ended_children: f64,
}

fn process_ticks(id: &str) -> Option<Ticks> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // After the name, which is in parentheses and may hold anything: utime, stime, cutime, cstime are fields 12 to 15.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let fields: Vec<f64> = fields.take(4).filter_map(|field| field.parse().ok()).collect();
    match *fields {
        [utime, stime, cutime, cstime] => Some(Ticks { own: utime + stime, ended_children: cutime + cstime }),
        _ => None,
    }
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("iperf3 reported {value}"))
}
