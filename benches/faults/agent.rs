//! How long packets to a robot stay away when its agent is killed and started again at once.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::plain_network;
use crate::support::{LIMIT, Site, until};

const PORT: u16 = 9000;

/// One packet each millisecond, which is the resolution.
const INTERVAL: Duration = Duration::from_millis(1);

/// For how long packets come before a restart, and again behind it.
const STEADY: Duration = Duration::from_secs(1);

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
    let (arrived, arrivals) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                // Nothing is a reason to stop: robot A's agent runs on.
                let _ = sender.send_to(b"packet", (to.as_str(), PORT));
                std::thread::sleep(INTERVAL);
            }
        });
        scope.spawn(|| {
            // The one that measures is busy now and then: when something arrived is noted here.
            while !ended.load(Ordering::Relaxed) && receiver.recv(&mut [0; 64]).is_ok() {
                let _ = arrived.send(Instant::now());
            }
        });
        let gaps = (1..=runs).map(|run| {
            let gap = one_gap_ms(&arrivals, || {
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

/// The longest time between two arrivals, from before a restart until packets have come again for a while.
fn one_gap_ms(arrivals: &Receiver<Instant>, restart: impl FnOnce() -> Result<()>) -> Result<f64> {
    let longest_until = |end: Instant, mut last: Option<Instant>| -> Result<(Duration, Option<Instant>)> {
        let mut longest = Duration::ZERO;
        while last.is_none_or(|last| last < end) {
            let at = arrivals.recv_timeout(LIMIT).context("no packets come through the tunnel")?;
            longest = longest.max(last.map_or(Duration::ZERO, |last| at.saturating_duration_since(last)));
            last = Some(at);
        }
        Ok((longest, last))
    };
    let (_, last) = longest_until(Instant::now() + STEADY, None)?;
    restart()?;
    let (gap, _) = longest_until(Instant::now() + STEADY, last)?;
    ensure!(gap < LIMIT, "the tunnel did not come back");
    Ok(gap.as_secs_f64() * 1000.0)
}
