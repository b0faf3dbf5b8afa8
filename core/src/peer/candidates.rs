//! Where a peer may be, as it reports and as relays tell: which addresses become paths, and which are forgotten.

use std::net::SocketAddr;
use std::time::Instant;

use ria_protocol::map::{Candidate, CandidateKind, Live};

use super::{Action, Peer};
use crate::path::Address;
use crate::path::candidates::MAX_DIRECT;
use crate::relay::Transport;

impl Peer {
    pub(super) fn set_candidates(&mut self, live: &Live, usable: impl Fn(SocketAddr) -> bool, now: Instant) {
        let relayed = live.candidates.iter().find(|c| c.kind == CandidateKind::Relayed);
        self.set_relayed(relayed.map(|c| c.address));
        let of_kind = |kind| live.candidates.iter().filter(move |c: &&Candidate| c.kind == kind);
        // What a server saw is the best bet between two networks, so many interfaces shall not push it out.
        let mut remotes: Vec<Candidate> = of_kind(CandidateKind::ServerReflexive)
            .chain(of_kind(CandidateKind::Host))
            .filter(|c| usable(c.address))
            .take(MAX_DIRECT)
            .copied()
            .collect();
        let direct: Vec<Address> = remotes.iter().map(|c| Address::Direct(c.address)).collect();
        remotes.extend(relayed);
        let relayed = self.relayed;
        for path in &mut self.paths {
            path.reported = match path.address {
                Address::Direct(_) => direct.contains(&path.address),
                Address::Relayed(_, address) => relayed == Some(address),
            };
        }
        // What was taken back goes, unless it works all the same.
        self.forget_strays(now);
        for address in direct {
            self.add_path(address, true);
        }
        self.set_remotes(remotes, now);
    }

    pub(super) fn set_relayed(&mut self, relayed: Option<SocketAddr>) {
        if relayed == self.relayed {
            return;
        }
        let before = std::mem::replace(&mut self.relayed, relayed);
        let older = std::mem::replace(&mut self.former, before);
        if let Some(older) = older.filter(|older| Some(*older) != relayed) {
            self.forget_relayed(older);
        }
        self.forget_former();
    }

    /// The relayed address before is of no more use when no path leads there.
    pub(super) fn forget_former(&mut self) {
        let Some(former) = self.former else { return };
        if !self.paths.iter().any(|path| path.leads_to(former)) {
            self.former = None;
            self.forget_relayed(former);
        }
    }

    fn forget_relayed(&mut self, address: SocketAddr) {
        self.paths.retain(|path| !path.leads_to(address));
        self.actions.push_back(Action::ForgetRelayed(address));
    }

    /// The relay, spoken to in this way, has a channel to a relayed address of the peer.
    pub(crate) fn handle_channel_bound(&mut self, transport: Transport, address: SocketAddr, now: Instant) {
        if !self.relayed_addresses().any(|own| own == address) {
            return;
        }
        let way = Address::Relayed(transport, address);
        self.add_path(way, self.relayed == Some(address));
        if let Some(path) = self.path_mut(way) {
            path.burst();
            if self.active == Some(way) {
                // The same way, but perhaps by another channel number.
                self.set_route();
            }
        }
        self.update(now);
    }

    /// The relay can't be spoken to in this way any more, or there is no channel.
    pub(crate) fn handle_relay_lost(&mut self, lost: Transport, now: Instant) {
        self.paths
            .retain(|path| !matches!(path.address, Address::Relayed(transport, _) if transport == lost));
        self.forget_former();
        self.update(now);
    }
}
