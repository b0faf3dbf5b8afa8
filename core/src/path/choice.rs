//! Which of the proven paths takes the traffic: direct before relayed, then the quicker one, with hysteresis.

use std::time::Duration;

use super::{Path, PathState};

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
        .filter(|(_, path)| path.state == PathState::Proven && !path.is_suspect())
        .min_by_key(|(_, path)| (path.is_relayed(), path.rtt()));
    let Some((index, challenger)) = best else { return current.map(|(index, _)| (index, REASON_ONLY)) };
    let Some((kept, holder)) = current else { return Some((index, reason_first(challenger))) };
    if kept == index {
        return Some((kept, reason_first(holder)));
    }
    if challenger.is_relayed() != holder.is_relayed() {
        let upgrade = holder.is_relayed();
        return if upgrade { Some((index, REASON_DIRECT)) } else { Some((kept, REASON_DIRECT)) };
    }
    let margin = BETTER_BY.max(holder.rtt() / BETTER_SHARE);
    if challenger.samples() >= ENOUGH_SAMPLES && challenger.rtt() + margin < holder.rtt() {
        return Some((index, REASON_QUICKER));
    }
    Some((kept, reason_first(holder)))
}

pub(crate) const REASON_DIRECT: &str = "a direct path answers";
pub(crate) const REASON_RELAYED: &str = "no direct path answers, the relay does";
pub(crate) const REASON_QUICKER: &str = "it is clearly quicker than the path before";
pub(crate) const REASON_ONLY: &str = "probes get lost, but no other path answers";
pub(crate) const REASON_NONE: &str = "no path answers";
pub(crate) const REASON_UNKNOWN: &str = "nothing is known of where the peer is";
pub(crate) const REASON_TRYING: &str = "paths are being tried";

fn reason_first(path: &Path) -> &'static str {
    if path.is_relayed() { REASON_RELAYED } else { REASON_DIRECT }
}
