//! What a change of network does to the paths to a peer: this node's own network, or the peer's.
//!
//! Neither waits for the coordinator. A peer that has moved pings from where it is now; such a ping is authentic and new,
//! so its address is taken as one of the peer's, and the paths that it has left are doubted at once. Over a relay it also
//! says how the peer is seen from outside, which is the address that a NAT has to be opened for.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ria_protocol::map::{Candidate, CandidateKind};

use super::Peer;
use super::stock::Role;
use crate::path::probe::Probe;
use crate::path::{Address, Path, PathState};
use crate::shard::message::Traffic;

/// A path that brought something as lately as this has not been left by the peer.
const LEFT_AFTER: Duration = Duration::from_millis(150);

impl Peer {
    /// This host's interfaces or routes have changed.
    pub(crate) fn handle_network_change(&mut self, now: Instant) {
        self.cut_off = false;
        self.paths.iter_mut().for_each(|path| path.doubt(now));
        if self.active.is_some() && self.role != Role::Agent {
            // The peer learns where this node is now from what it is sent.
            self.set_route();
        }
        self.search(now);
        self.update(now);
    }

    /// This host has no network any more: no need to wait for probes to tell.
    pub(crate) fn handle_network_gone(&mut self, now: Instant) {
        self.cut_off = true;
        self.paths.iter_mut().for_each(Path::cut);
        self.update(now);
    }

    /// Where this node is seen from outside; the peer hears of it with the next pings.
    pub(crate) fn set_reflexive(&mut self, reflexive: Option<SocketAddr>) {
        self.reflexive = reflexive;
    }

    /// The peer, in its present run, has sent a new ping from here.
    pub(super) fn follow(&mut self, ping: &Probe, via: Address, now: Instant) {
        if let Address::Relayed(_, address) = via {
            if self.relayed_addresses().all(|known| known != address) {
                self.learn_relayed(address);
            }
            if ping.observed.is_some() && ping.observed != self.seen_at {
                self.seen_at = ping.observed;
                self.seen_at_news = ping.observed;
            }
        }
        let silent =
            |path: &Path| path.brought().is_none_or(|at| now.saturating_duration_since(at) > LEFT_AFTER);
        let known = self.paths.iter().any(|path| path.address == via && path.state == PathState::Proven);
        let left = |path: &&mut Path| path.state == PathState::Proven && !path.is_doubted();
        if known || !self.paths.iter().any(|path| Some(path.address) == self.active && silent(path)) {
            return;
        }
        self.paths.iter_mut().filter(left).for_each(|path| path.doubt(now));
    }

    /// The peer's data comes by another way than before, so it has left the one before, perhaps because that is no more: where
    /// it was the way that is in use here, it is found out at once whether it works still.
    pub(super) fn follow_data(&mut self, before: Traffic, now: Instant) {
        let (Some((_, was)), Some((_, is))) = (before.data, self.traffic.data) else { return };
        let left = |path: &&mut Path| Some(path.address) == was.map(Address::Direct) && was != is;
        let left = self.paths.iter_mut().find(left).filter(|path| Some(path.address) == self.active);
        if let Some(path) = left.filter(|path| path.state == PathState::Proven && !path.is_doubted()) {
            path.doubt(now);
        }
    }

    /// Tries where the peer has said that it is seen from outside, when it is another place than before and `usable`.
    pub(crate) fn try_seen_at(&mut self, usable: impl Fn(SocketAddr) -> bool, now: Instant) {
        if let Some(address) = self.seen_at_news.take().filter(|address| usable(*address)) {
            self.add_path(Address::Direct(address), true);
            self.hear_of(Candidate { kind: CandidateKind::ServerReflexive, address }, now);
            self.update(now);
        }
    }

    /// Whether there is something for [`Self::try_seen_at`].
    pub(crate) fn has_seen_at_news(&self) -> bool {
        self.seen_at_news.is_some()
    }
}
