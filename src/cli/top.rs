//! `ria top`: peers as they are now, again and again: links, paths, round-trip times, and what passes in a second.
//!
//! Rates are differences between two looks at the counters that the agent tells.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use ria_api::client::Network;
use ria_api::state::{NetworkStatus, PeerStatus};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Context;
use super::args::TopArgs;
use super::failure::Failure;
use super::output::{Cell, Colour, Output, bytes, millis};
use super::peers::{colour, way};

/// The other screen, from its top, without cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Counters of one network at one moment.
struct Look {
    at: Instant,
    status: NetworkStatus,
    peers: Vec<PeerStatus>,
}

/// What is shown of a network.
#[derive(Debug, Serialize)]
struct Frame {
    network: String,
    state: String,
    peers_up: u32,
    peers_total: u32,
    /// Per second, since the look before.
    rx_bytes_per_second: f64,
    tx_bytes_per_second: f64,
    drops_per_second: f64,
    peers: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    peer: PeerStatus,
    rx_bytes_per_second: f64,
    tx_bytes_per_second: f64,
}

pub async fn run(context: &Context, args: &TopArgs) -> Result<(), Failure> {
    let networks = context.networks(&args.network).await?;
    let output = context.output;
    let screen = (!output.json && io::stdout().is_terminal()).then(Screen::take).transpose()?;
    let mut ends = key_q(screen.is_some());
    let mut before = looks(&networks).await?;
    let mut left = args.count.unwrap_or(u32::MAX);
    let mut beat = tokio::time::interval(Duration::from_secs_f64(args.interval));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.tick().await;
    while left > 0 {
        tokio::select! {
            _ = beat.tick() => {}
            Some(()) = ends.recv() => return Ok(()),
            _ = tokio::signal::ctrl_c(), if screen.is_some() => return Ok(()),
        }
        let now = looks(&networks).await?;
        let frames: Vec<Frame> = now.iter().map(|look| frame(find(&before, look), look)).collect();
        match &screen {
            Some(screen) => screen.show(&in_words(output, &frames))?,
            None if output.json => output.line(serde_json::json!({ "networks": frames }))?,
            None => output.lines(in_words(output, &frames))?,
        }
        before = now;
        left -= 1;
    }
    Ok(())
}

async fn looks(networks: &[Network]) -> Result<Vec<Look>, Failure> {
    let mut looks = Vec::with_capacity(networks.len());
    for network in networks {
        let (status, peers) = (network.proxy.status().await?, network.proxy.peers().await?);
        looks.push(Look { at: Instant::now(), status, peers });
    }
    Ok(looks)
}

fn find<'a>(looks: &'a [Look], like: &Look) -> Option<&'a Look> {
    looks.iter().find(|look| look.status.network_id == like.status.network_id)
}

fn frame(before: Option<&Look>, now: &Look) -> Frame {
    let seconds = before.map_or(0.0, |look| now.at.duration_since(look.at).as_secs_f64());
    let rate = |old: Option<u64>, new: u64| per_second(old, new, seconds);
    let drops = |status: &NetworkStatus| status.drops.values().sum::<u64>();
    let old: BTreeMap<&str, &PeerStatus> =
        before.into_iter().flat_map(|look| &look.peers).map(|peer| (peer.id.as_str(), peer)).collect();
    let row = |peer: &PeerStatus| {
        let then = old.get(peer.id.as_str());
        Row {
            rx_bytes_per_second: rate(then.map(|p| p.rx_bytes), peer.rx_bytes),
            tx_bytes_per_second: rate(then.map(|p| p.tx_bytes), peer.tx_bytes),
            peer: peer.clone(),
        }
    };
    let status = &now.status;
    Frame {
        network: status.network.clone(),
        state: status.state.to_string(),
        peers_up: status.peers_up,
        peers_total: status.peers_total,
        rx_bytes_per_second: rate(before.map(|look| look.status.rx_bytes), status.rx_bytes),
        tx_bytes_per_second: rate(before.map(|look| look.status.tx_bytes), status.tx_bytes),
        drops_per_second: rate(before.map(|look| drops(&look.status)), drops(status)),
        peers: now.peers.iter().map(row).collect(),
    }
}

/// Counters begin anew with the agent: then there is no rate yet.
#[allow(clippy::cast_precision_loss, reason = "shown with one digit")]
fn per_second(old: Option<u64>, new: u64, seconds: f64) -> f64 {
    match old.and_then(|old| new.checked_sub(old)) {
        Some(grown) if seconds > 0.0 => grown as f64 / seconds,
        Some(_) | None => 0.0,
    }
}

fn in_words(output: Output, frames: &[Frame]) -> Vec<String> {
    let mut lines = Vec::new();
    for frame in frames {
        let Frame { network, state, peers_up, peers_total, .. } = frame;
        let (rx, tx) = (speed(frame.rx_bytes_per_second), speed(frame.tx_bytes_per_second));
        let drops = frame.drops_per_second;
        let dropped =
            if drops > 0.0 { format!(", {drops:.0} packets/s dropped (ria status)") } else { String::new() };
        lines.push(format!(
            "{network} {state}: {peers_up} of {peers_total} peers answer; {rx} in, {tx} out{dropped}"
        ));
        let rows: Vec<_> = frame.peers.iter().map(cells).collect();
        let header = ["NAME", "ADDRESS", "STATE", "PATH", "RTT", "LOSS", "IN", "OUT", "LAST CHANGE"];
        lines.extend(output.table(header, &rows));
        lines.push(String::new());
    }
    lines
}

fn cells(row: &Row) -> [Cell; 9] {
    let peer = &row.peer;
    let none = || "-".to_owned();
    [
        Cell::plain(&peer.name),
        Cell::plain(peer.addresses.first().cloned().unwrap_or_else(none)),
        Cell(peer.link_state.to_string(), colour(peer.link_state)),
        Cell::plain(way(peer.path)),
        Cell::plain(peer.rtt.map_or_else(none, millis)),
        Cell::plain(peer.loss.map_or_else(none, |loss| format!("{:.0} %", loss * 100.0))),
        Cell::plain(speed(row.rx_bytes_per_second)),
        Cell::plain(speed(row.tx_bytes_per_second)),
        Cell(peer.last_change.clone().unwrap_or_default(), Colour::Dim),
    ]
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and shown with one digit"
)]
fn speed(per_second: f64) -> String {
    format!("{}/s", bytes(per_second as u64))
}

/// The terminal while it is ours: another screen, keys without Enter. Given back however this ends.
struct Screen {
    usual: Option<Termios>,
}

impl Screen {
    fn take() -> io::Result<Self> {
        let usual = tcgetattr(io::stdin().as_fd()).ok();
        if let Some(usual) = &usual {
            let mut keys = usual.clone();
            keys.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            keys.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
            tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &keys)?;
        }
        write_out(ENTER)?;
        Ok(Self { usual })
    }

    /// Paints over what is there, without flicker: each line is cleared behind its end, and the rest at the end.
    fn show(&self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for line in lines {
            // Writing into a text does not fail.
            let _ = write!(text, "{line}\x1b[K\r\n");
        }
        text.push_str("q ends\x1b[K\x1b[J");
        write_out(&text)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = write_out(LEAVE);
        if let Some(usual) = &self.usual {
            let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, usual);
        }
    }
}

fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Hears of the key `q`, where there is somebody to type it.
fn key_q(wanted: bool) -> mpsc::UnboundedReceiver<()> {
    let (said, heard) = mpsc::unbounded_channel();
    if wanted {
        // Reading can't be given up; the thread ends with the program.
        std::thread::spawn(move || {
            let mut key = [0];
            while matches!(io::stdin().lock().read(&mut key), Ok(1)) {
                if key == *b"q" {
                    // Only fails while the program ends.
                    let _ = said.send(());
                }
            }
        });
    }
    heard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_grew_and_none_when_the_agent_began_anew() {
        assert_eq!(per_second(Some(1000), 3000, 2.0), 1000.0);
        for none in [per_second(None, 5, 1.0), per_second(Some(9), 5, 1.0), per_second(Some(1), 5, 0.0)] {
            assert_eq!(none, 0.0);
        }
        let look = |rx, secs| Look {
            at: Instant::now() + Duration::from_secs(secs),
            status: NetworkStatus {
                rx_bytes: rx,
                drops: [("a".to_owned(), rx), ("b".to_owned(), 2 * rx)].into(),
                ..NetworkStatus::default()
            },
            peers: vec![PeerStatus { id: "x".into(), tx_bytes: rx, ..PeerStatus::default() }],
        };
        let shown = frame(Some(&look(0, 0)), &look(4096, 4));
        let rates = (shown.rx_bytes_per_second, shown.drops_per_second, shown.peers[0].tx_bytes_per_second);
        assert!((rates.0 - 1024.0).abs() < 1.0 && (rates.1 - 3072.0).abs() < 1.0, "{rates:?}");
        assert!((rates.2 - 1024.0).abs() < 1.0, "{rates:?}");
    }
}
