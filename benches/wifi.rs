//! `./scripts/bench wifi`: commands beside a camera, or a TCP stream, on a narrow link with a deep queue (docs/benchmarks.md).

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use netlab::{Host, HostSpec, Lab, Link, NetworkSpec};
use serde_json::json;

use crate::Figures;
use crate::support::{Site, median, percentile};
use crate::throughput::GoFirst;
use crate::throughput::tunnel::{Contender, Tunnel};

/// Who takes turns: Ria as it comes, and the fastest of the others.
const CONTENDERS: [Contender; 2] = [Contender::Ria1280, Contender::WireguardGo];

/// What the link carries, and what may wait for it: 1.6 s.
const RATE: &str = "20mbit";
const QUEUE: &str = "4m";

/// Frames per second, and bytes of one: 40 Mbit/s.
const FRAMES: u32 = 30;
const FRAME: usize = 5_000_000 / FRAMES as usize;
const DATAGRAM: usize = 1200;

/// Commands per second, and bytes of one, with what RTPS adds.
const COMMANDS: u32 = 20;
const COMMAND: usize = 140;

/// Time before anything counts, and of what counts.
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(20);

/// A command that has not come by then is lost, and counts as this late.
const LOST: Duration = Duration::from_secs(5);

/// How long nothing may come or go before it is seen whether all is over.
const PATIENCE: Duration = Duration::from_millis(100);

const CAMERA_PORT: u16 = 9301;
const COMMAND_PORT: u16 = 9302;
const STREAM_PORT: u16 = 9303;

/// Where the queue is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a box on the way, where nobody sees it.
    Beyond,
    /// In this host's own interface, as that of a Wi-Fi driver.
    Driver,
}

/// What fills the link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    /// Images, twice as many as the link carries.
    Camera,
    /// One TCP stream.
    Tcp,
}

/// What is measured.
#[derive(Clone, Copy)]
struct Case {
    place: Place,
    load: Load,
    /// As metrics' names end.
    suffix: &'static str,
    /// What the load carries is called.
    carried: &'static str,
}

const CASES: [Case; 3] = [
    Case { place: Place::Beyond, load: Load::Camera, suffix: "", carried: "images_mbps" },
    Case { place: Place::Driver, load: Load::Camera, suffix: "_driver", carried: "images_mbps" },
    Case { place: Place::Beyond, load: Load::Tcp, suffix: "_tcp", carried: "mbps" },
];

/// Rounds in which contenders take turns, medians of each metric.
pub fn run(rounds: usize, only: &[String]) -> Result<Figures> {
    let _first = GoFirst::begin();
    let mut lab = Lab::new("bench-wifi")?;
    lab.add_network("lan", NetworkSpec::new("192.168.0.0/24".parse()?))?;
    for host in ["coordinator", "a", "b"] {
        lab.add_host(host, HostSpec::on("lan"))?;
    }
    let mut site = Site::start(lab)?;
    let mut samples: Vec<(String, f64)> = Vec::new();
    for round in 1..=rounds {
        for (contender, case) in CASES.into_iter().flat_map(|case| CONTENDERS.map(|who| (who, case))) {
            let name = if contender == Contender::Ria1280 { "ria" } else { contender.name() };
            let names = ["cmd_vel_p99_ms", "cmd_vel_median_ms", "cmd_vel_lost", case.carried]
                .map(|metric| format!("{metric}_{name}{}", case.suffix));
            if !only.is_empty() && names.iter().all(|name| !only.contains(name)) {
                continue;
            }
            let values = measure(&mut site, contender, case).with_context(|| format!("measuring {name}"))?;
            let shown: Vec<_> = names.iter().zip(values).map(|(n, v)| format!("{n} {v:.1}")).collect();
            eprintln!("round {round} of {rounds}: {}", shown.join(" "));
            samples.extend(names.into_iter().zip(values));
        }
    }
    let mut figures = Figures::new();
    for (name, _) in &samples {
        let values: Vec<f64> = samples.iter().filter(|(n, _)| n == name).map(|(_, value)| *value).collect();
        figures.insert(name.clone(), json!(median(&values)));
    }
    Ok(figures)
}

/// 99th percentile and median of the commands' time under way in ms, how many were lost, and Mbit/s of the load that came.
fn measure(site: &mut Site, contender: Contender, case: Case) -> Result<[f64; 4]> {
    let tunnel = Tunnel::start(site, contender)?;
    narrow(site, &tunnel.a, Some(case.place))?;
    let outcome = drive(&tunnel, case.load);
    narrow(site, &tunnel.a, None)?;
    outcome
}

/// Makes the way from a host narrow, or wide again.
fn narrow(site: &mut Site, host: &Host, place: Option<Place>) -> Result<()> {
    let mut link = Link::default();
    if place == Some(Place::Beyond) {
        link.set_all(&[format!("rate-up={RATE}"), format!("queue-up={QUEUE}")])?;
    }
    site.lab.set_link(host.name(), link)?;
    // What is not there can't be deleted.
    let _ = host.run(&["tc", "qdisc", "del", "dev", "eth0", "root"]);
    if place == Some(Place::Driver) {
        let shape = [
            "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", RATE, "burst", "16k", "limit", QUEUE,
        ];
        host.run(&shape)?;
    }
    Ok(())
}

/// A pair of sockets through the tunnel.
fn sockets(tunnel: &Tunnel, port: u16) -> Result<(UdpSocket, UdpSocket)> {
    let to = SocketAddr::new(tunnel.address.parse()?, port);
    let receiver = tunnel.b.enter(|| UdpSocket::bind(("0.0.0.0", port)))?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    let sender = tunnel.a.enter(|| UdpSocket::bind(("0.0.0.0", 0)))?;
    sender.connect(to)?;
    Ok((sender, receiver))
}

fn drive(tunnel: &Tunnel, load: Load) -> Result<[f64; 4]> {
    let (joystick, wheels) = sockets(tunnel, COMMAND_PORT)?;
    let (stop, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        match load {
            Load::Camera => {
                let (camera, screen) = sockets(tunnel, CAMERA_PORT)?;
                let (stop, bytes) = (&stop, &bytes);
                scope.spawn(move || film(&camera, stop));
                scope.spawn(move || watch(&screen, bytes, stop));
            }
            Load::Tcp => {
                let (from, to) = stream(tunnel)?;
                let (stop, bytes) = (&stop, &bytes);
                scope.spawn(move || upload(&from, stop));
                scope.spawn(move || download(&to, bytes, stop));
            }
        }
        thread::sleep(WARM_UP);
        let (began, before) = (Instant::now(), bytes.load(Ordering::Relaxed));
        let steered = steer(&joystick, &wheels, began);
        let carried = (bytes.load(Ordering::Relaxed) - before) as f64 * 8e-6 / began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let (times, lost) = steered?;
        Ok([percentile(&times, 0.99), median(&times), lost as f64, carried])
    })
}

/// The two ends of a TCP connection through the tunnel.
fn stream(tunnel: &Tunnel) -> Result<(TcpStream, TcpStream)> {
    let to = SocketAddr::new(tunnel.address.parse()?, STREAM_PORT);
    let listener = tunnel.b.enter(|| TcpListener::bind(("0.0.0.0", STREAM_PORT)))?;
    let from = tunnel.a.enter(|| TcpStream::connect_timeout(&to, LOST))?;
    let (to, _) = listener.accept()?;
    from.set_write_timeout(Some(PATIENCE))?;
    to.set_read_timeout(Some(PATIENCE))?;
    Ok((from, to))
}

/// Sends as much as the connection takes.
fn upload(mut from: &TcpStream, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // Nobody takes anything for a while: then it is tried again.
        let _ = from.write(&[7; 64 << 10]);
    }
    let _ = from.shutdown(Shutdown::Both);
}

fn download(mut to: &TcpStream, bytes: &AtomicU64, stop: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        if let Ok(len) = to.read(&mut buffer) {
            bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
    }
}

/// Sends images, each at once, as middleware does.
fn film(camera: &UdpSocket, stop: &AtomicBool) {
    let began = Instant::now();
    for frame in 1.. {
        for datagram in [7; FRAME].chunks(DATAGRAM) {
            // What finds no room is lost, as everywhere.
            let _ = camera.send(datagram);
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(
            (began + frame * Duration::from_secs(1) / FRAMES).saturating_duration_since(Instant::now()),
        );
    }
}

fn watch(screen: &UdpSocket, bytes: &AtomicU64, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(len) = screen.recv(&mut [0; 2048]) {
            bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
    }
}

/// Sends commands and sees them arrive; their times under way in ms, and how many never came.
fn steer(joystick: &UdpSocket, wheels: &UdpSocket, began: Instant) -> Result<(Vec<f64>, usize)> {
    let count = COMMANDS as usize * MEASURED.as_secs() as usize;
    let mut times = vec![LOST.as_secs_f64() * 1000.0; count];
    let mut arrived = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..count as u32 {
                let due = began + number * Duration::from_secs(1) / COMMANDS;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let mut command = [0; COMMAND];
                command[..4].copy_from_slice(&number.to_be_bytes());
                command[4..12].copy_from_slice(&began.elapsed().as_secs_f64().to_be_bytes());
                let _ = joystick.send(&command);
            }
        });
        let mut command = [0; COMMAND];
        while arrived < count && began.elapsed() < MEASURED + LOST {
            if wheels.recv(&mut command).is_err() {
                continue;
            }
            let (number, sent) = command.split_at(4);
            let number = u32::from_be_bytes(number.try_into()?) as usize;
            let sent = f64::from_be_bytes(sent[..8].try_into()?);
            let time = times.get_mut(number).context("a command that nobody sent")?;
            *time = (began.elapsed().as_secs_f64() - sent) * 1000.0;
            arrived += 1;
        }
        ensure!(arrived > 0, "no command arrived");
        Ok((times, count - arrived))
    })
}
