//! A peer's beacons: each causes one probe at most, and only while there is no direct path.

use std::net::SocketAddr;
use std::time::Instant;

use ria_protocol::id::BootId;

use super::{Peer, Role};
use crate::beacon::Beacon;
use crate::counters::DropReason;
use crate::path::probe::ReplayWindow;
use crate::path::{Address, Path, PathState};

/// Which beacons of a peer have been heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    boot: Option<BootId>,
    window: ReplayWindow,
}

impl Heard {
    fn take(&mut self, beacon: &Beacon) -> bool {
        if self.boot != Some(beacon.boot) {
            (self.boot, self.window) = (Some(beacon.boot), ReplayWindow::default());
        }
        self.window.take(beacon.number)
    }
}

impl Peer {
    /// Whether no beacon is needed to find it: a direct path works, or it does not take part.
    pub(crate) fn is_found(&self) -> bool {
        self.role != Role::Agent || self.paths.iter().any(Path::is_direct_and_works)
    }

    /// The peer says that it is on a link of this node's, at this address.
    pub(crate) fn handle_beacon(
        &mut self,
        beacon: &Beacon,
        at: SocketAddr,
        now: Instant,
    ) -> Result<(), DropReason> {
        if !self.heard_beacons.take(beacon) {
            return Err(DropReason::Replayed);
        }
        if self.is_found() {
            return Ok(());
        }
        let address = Address::Direct(at);
        self.add_hint(address);
        // One that is being tried gets no more probes than it gets anyway.
        if self
            .path_mut(address)
            .is_some_and(|path| path.state != PathState::Proven && !path.pinged_lately(now))
        {
            self.ping_path(address, now);
        }
        self.update(now);
        Ok(())
    }
}
