//! `./scripts/bench soak`: TCP both ways between an agent and wireguard-go over many rekeys (docs/benchmarks.md).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netlab::{Host, HostSpec, Lab, NetworkSpec};
use serde_json::json;

use crate::Figures;
use crate::support::{Site, ask, until};

const PORT: u16 = 9501;

/// Bytes of a write, and the time between two: 8 Mbit/s each way, so that a pause is seen and the machine is left alone.
const WRITE: usize = 10_000;
const EVERY: Duration = Duration::from_millis(10);

/// A pause from which on a stream has stalled.
const STALL: f64 = 1.0;

/// What came of one stream.
#[derive(Debug)]
struct Came {
    bytes: u64,
    longest_pause: f64,
}

/// Runs for so many minutes, and fails when a stream stalls or breaks.
pub fn run(minutes: usize) -> Result<Figures> {
    let mut lab = Lab::new("bench-soak")?;
    lab.add_network("lan", NetworkSpec::new("192.168.0.0/24".parse()?))?;
    for host in ["coordinator", "a", "b"] {
        lab.add_host(host, HostSpec::on("lan"))?;
    }
    let site = Site::start(lab)?;
    let agent = site.agent("a", &["--join-file", &site.key()?])?;
    let here = agent.address()?;
    let device = site.lab.host("b")?;
    let there = bring_up(&site, &device)?;
    until("the tunnel", || Ok(device.run(&["ping", "-c1", "-W1", &here]).is_ok()))?;
    let stop = AtomicBool::new(false);
    let (up, down, rekeys) = thread::scope(|scope| {
        let up = scope.spawn(|| stream(&agent.host, &device, &there, &stop));
        let down = scope.spawn(|| stream(&device, &agent.host, &here, &stop));
        let rekeys = watch(&device, Duration::from_secs(60 * minutes as u64), || {
            up.is_finished() || down.is_finished()
        });
        stop.store(true, Ordering::Relaxed);
        let broken = |_| anyhow::anyhow!("a stream has panicked");
        Ok::<_, anyhow::Error>((up.join().map_err(broken)??, down.join().map_err(broken)??, rekeys?))
    })?;
    let longest = up.longest_pause.max(down.longest_pause);
    eprintln!(
        "agent to wireguard-go: {up:?}; back: {down:?}; {rekeys} rekeys; {}",
        ask(&agent.host, "status")["networks"][0]["drops"]
    );
    ensure!(longest <= STALL, "a stream stalled for {longest:.2} s; {rekeys} rekeys");
    let figures = [
        ("soak_minutes", minutes as f64),
        ("soak_rekeys", rekeys as f64),
        ("soak_longest_pause_ms", longest * 1000.0),
        ("soak_mb_to_wireguard_go", up.bytes as f64 / 1e6),
        ("soak_mb_from_wireguard_go", down.bytes as f64 / 1e6),
    ];
    Ok(figures.into_iter().map(|(metric, value)| (metric.to_owned(), json!(value))).collect())
}

/// Makes a host a static peer whose tunnel is wireguard-go's; its address.
fn bring_up(site: &Site, device: &Host) -> Result<String> {
    let reachable = || Ok(site.admin(&["node", "show", "a"])?.contains(":41820"));
    until("the coordinator knows where the agent is", reachable)?;
    let file = site.admin(&["node", "add-static", "device"])?;
    std::fs::write(device.path("/run/wg0.conf"), &file)?;
    // wg-quick takes the kernel's WireGuard where there is one.
    let mut up = device.command("wg-quick");
    let rival = crate::throughput::tunnel::rival("wireguard-go")?;
    up.args(["up", "/run/wg0.conf"]).env("WG_QUICK_USERSPACE_IMPLEMENTATION", rival.as_os_str());
    up.run().context("wg-quick")?;
    let address =
        file.lines().find_map(|line| line.strip_prefix("Address = ")).context("no address in the file")?;
    Ok(address.split(['/', ',']).next().unwrap_or_default().to_owned())
}

/// Counts handshakes for a time, or until something is over.
fn watch(device: &Host, time: Duration, is_over: impl Fn() -> bool) -> Result<u32> {
    let began = Instant::now();
    let (mut rekeys, mut last) = (0, String::new());
    while began.elapsed() < time && !is_over() {
        let shown = device.output(&["wg", "show", "wg0", "latest-handshakes"])?;
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        if shown != last {
            rekeys += u32::from(!last.is_empty());
            last = shown;
        }
        thread::sleep(Duration::from_secs(1));
    }
    Ok(rekeys)
}

/// Sends from one host to the other until told to stop, and sees it arrive.
fn stream(from: &Host, to: &Host, address: &str, stop: &AtomicBool) -> Result<Came> {
    let address = SocketAddr::new(address.parse()?, PORT);
    let listener = to.enter(|| TcpListener::bind(address))?;
    let mut sender = from.enter(|| TcpStream::connect_timeout(&address, Duration::from_secs(20)))?;
    let (mut receiver, _) = listener.accept()?;
    sender.set_nodelay(true)?;
    receiver.set_read_timeout(Some(Duration::from_secs(30)))?;
    thread::scope(|scope| {
        let sending = scope.spawn(move || -> Result<u64> {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                sender.write_all(&[7; WRITE])?;
                sent += WRITE as u64;
                thread::sleep(EVERY);
            }
            Ok(sent)
        });
        let (mut came, mut last) = (Came { bytes: 0, longest_pause: 0.0 }, Instant::now());
        let mut buffer = [0; 65_536];
        loop {
            let count = receiver.read(&mut buffer).context("the stream broke")?;
            came.longest_pause = came.longest_pause.max(last.elapsed().as_secs_f64());
            last = Instant::now();
            if count == 0 {
                break;
            }
            came.bytes += count as u64;
        }
        let sent = sending.join().map_err(|_| anyhow::anyhow!("the sender has panicked"))??;
        ensure!(sent == came.bytes, "{sent} bytes were sent, {} came", came.bytes);
        Ok(came)
    })
}
