//! Which of the proven paths takes the traffic: direct before relayed, the relay over UDP before the relay over TLS, then
//! the quicker one, with hysteresis.

use std::time::Duration;

use super::{Address, Path, PathState};
use crate::relay::Transport;

/// Another path of the same class must be quicker by this share, ...
const BETTER_SHARE: u32 = 5;

/// ... and by at least this much. Wi-Fi's jitter alone would otherwise make two equal paths alternate.
const BETTER_BY: Duration = Duration::from_millis(5);

/// A path must have answered this often before its round-trip time counts against the active one's.
const ENOUGH_SAMPLES: u32 = 3;

/// The path to use and why it was taken, given the one in use. `None` when none is proven.
pub(crate) fn choose(paths: &[Path], active: Option<usize>) -> Option<(usize, &'static str)> {
    let current = active.and_then(|index| Some((index, paths.get(index)?)));
    let current = current.filter(|(_, path)| path.state == PathState::Proven);
    let best = paths
        .iter()
        .enumerate()
        .filter(|(_, path)| path.state == PathState::Proven && !path.is_suspect() && !path.is_doubted())
        .min_by_key(|(_, path)| (path.rank(), path.rtt()));
    let Some((index, challenger)) = best else {
        return current
            .map(|(index, path)| (index, if path.is_doubted() { REASON_DOUBTED } else { REASON_ONLY }));
    };
    let Some((kept, holder)) = current else {
        let before = active.and_then(|index| paths.get(index));
        return Some((index, reason_next(before, challenger)));
    };
    if kept == index {
        return Some((kept, reason_first(holder)));
    }
    if holder.is_doubted() && holder.is_suspect() {
        // It worked in another network than this one, and does not seem to here.
        return Some((index, REASON_CHANGED));
    }
    if challenger.rank() < holder.rank() {
        return Some((index, reason_upgrade(holder, challenger)));
    }
    if challenger.rank() > holder.rank() {
        return Some((kept, reason_first(holder)));
    }
    let margin = BETTER_BY.max(holder.rtt() / BETTER_SHARE);
    if challenger.samples() >= ENOUGH_SAMPLES && challenger.rtt() + margin < holder.rtt() {
        return Some((index, REASON_QUICKER));
    }
    Some((kept, reason_first(holder)))
}

pub(crate) const REASON_DIRECT: &str = "a direct path answers";
pub(crate) const REASON_HOST: &str = "direct: both ends are reached at addresses of their own";
pub(crate) const REASON_PUNCHED: &str = "direct: a hole punched through NAT";
pub(crate) const REASON_PEER_REFLEXIVE: &str =
    "direct: through NAT, at an address that shows only between these two";
pub(crate) const REASON_RELAYED: &str = "no direct path answers, the relay does";
pub(crate) const REASON_OTHER_RELAY: &str = "the relay before does not answer any more, another one does";
pub(crate) const REASON_TLS: &str = "UDP does not get through here, so the relay is used over TLS";
pub(crate) const REASON_UDP_AGAIN: &str = "the relay answers over UDP again";
pub(crate) const REASON_MOVED: &str = "the peer has another address at its relay";
pub(crate) const REASON_QUICKER: &str = "it is clearly quicker than the path before";
pub(crate) const REASON_ONLY: &str = "probes get lost, but no other path answers";
pub(crate) const REASON_DOUBTED: &str = "a network has changed, and its paths are being proven anew";
pub(crate) const REASON_CHANGED: &str = "a network has changed, and the path before does not answer there";
pub(crate) const REASON_NO_NETWORK: &str = "this machine has no network";
pub(crate) const REASON_NONE: &str = "no path answers";
pub(crate) const REASON_UNKNOWN: &str = "nothing is known of where the peer is";
pub(crate) const REASON_TRYING: &str = "paths are being tried";

fn reason_first(path: &Path) -> &'static str {
    match path.address {
        Address::Direct(_) => REASON_DIRECT,
        Address::Relayed(Transport::Udp, _) => REASON_RELAYED,
        Address::Relayed(Transport::Tls, _) => REASON_TLS,
    }
}

/// Why another path takes over from one that has died.
fn reason_next(before: Option<&Path>, next: &Path) -> &'static str {
    match (before.map(|path| path.address), next.address) {
        (Some(Address::Relayed(was, _)), Address::Relayed(is, _)) if was == is => REASON_OTHER_RELAY,
        _ => reason_first(next),
    }
}

fn reason_upgrade(from: &Path, to: &Path) -> &'static str {
    match (from.rank().0, to.rank().0) {
        (_, 0) => REASON_DIRECT,
        (before, after) if before == after => REASON_MOVED,
        _ => REASON_UDP_AGAIN,
    }
}
