//! How long packets to a robot stay away when its agent is killed and started again at once.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::plain_network;
use crate::support::{LIMIT, Site, until};

const PORT: u16 = 9000;

/// One packet each millisecond, which is the resolution.
const INTERVAL: Duration = Duration::from_millis(1);

/// The longest pause in a stream of packets over each restart.
pub fn restart_gaps_ms(runs: usize) -> Result<Vec<f64>> {
    let site = Site::start(plain_network(["robot-a".to_owned(), "robot-b".to_owned()])?)?;
    let key = site.key()?;
    let a = site.agent("robot-a", &["--join-file", &key])?;
    let mut b = site.agent("robot-b", &["--join-file", &key])?;
    let (_, to) = (a.address()?, b.address()?);
    until("the direct path", || Ok(a.peers_by("direct") == 1 && b.peers_by("direct") == 1))?;
    let sender = a.host.enter(|| UdpSocket::bind(("0.0.0.0", 0)))?;
    let receiver = b.host.enter(|| UdpSocket::bind(("0.0.0.0", PORT)))?;
    receiver.set_read_timeout(Some(LIMIT))?;
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // Nothing is a reason to stop: robot A's agent runs on.
                let _ = sender.send_to(b"packet", (to.as_str(), PORT));
                std::thread::sleep(INTERVAL);
            }
        });
        let gaps = (1..=runs).map(|run| {
            let gap = one_gap_ms(&receiver, || {
                b.process.signal(Signal::SIGKILL)?;
                b.process.wait()?;
                b = site.agent("robot-b", &[])?;
                Ok(())
            })?;
            eprintln!("run {run} of {runs}: {gap:.0} ms");
            Ok(gap)
        });
        let gaps = gaps.collect();
        ended.store(true, Ordering::Relaxed);
        gaps
    })
}

fn one_gap_ms(receiver: &UdpSocket, restart: impl FnOnce() -> Result<()>) -> Result<f64> {
    let mut buffer = [0; 64];
    let mut receive = || receiver.recv(&mut buffer).context("no packets come through the tunnel");
    // A steady stream first, of packets that come now and did not wait in the socket.
    let steady = Instant::now() + Duration::from_secs(2);
    while Instant::now() < steady {
        receive()?;
    }
    let killed = Instant::now();
    restart()?;
    // What had arrived before the kill is read at once.
    receiver.set_read_timeout(Some(INTERVAL / 2))?;
    while receiver.recv(&mut [0; 64]).is_ok() {}
    receiver.set_read_timeout(Some(LIMIT))?;
    receive()?;
    let gap = killed.elapsed();
    ensure!(gap < LIMIT, "the tunnel did not come back");
    Ok(gap.as_secs_f64() * 1000.0)
}
