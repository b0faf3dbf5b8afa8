//! Where a peer may be, as it reports and as relays tell: which addresses become paths, and which are forgotten.

use std::net::SocketAddr;
use std::time::Instant;

use ria_protocol::map::{Candidate, CandidateKind, Live};

use super::{Action, Peer};
use crate::path::candidates::MAX_DIRECT;
use crate::path::{Address, Path};
use crate::relay::{MAX_RELAYS, Transport};

impl Peer {
    pub(super) fn set_candidates(&mut self, live: &Live, usable: impl Fn(SocketAddr) -> bool, now: Instant) {
        let relayed = live.candidates.iter().filter(|c| c.kind == CandidateKind::Relayed).take(MAX_RELAYS);
        self.set_relayed(relayed.clone().map(|c| c.address).collect());
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
        let relayed = &self.relayed;
        for path in &mut self.paths {
            let was_reported = path.reported;
            path.reported = match path.address {
                Address::Direct(_) => direct.contains(&path.address),
                Address::Relayed(_, address) => relayed.contains(&address),
            };
            // The peer has moved, as it seems.
            let left = was_reported && !path.reported && Some(path.address) == self.active;
            if left && path.is_direct_and_works() && !path.is_doubted() {
                path.doubt(now);
            }
        }
        // What was taken back goes, unless it works all the same.
        self.forget_strays(now);
        for address in direct {
            self.add_path(address, true);
        }
        self.set_remotes(remotes, now);
    }

    pub(super) fn set_relayed(&mut self, relayed: Vec<SocketAddr>) {
        if relayed == self.relayed {
            return;
        }
        let before = std::mem::replace(&mut self.relayed, relayed);
        let relayed = &self.relayed;
        let gone = before.into_iter().filter(|address| !relayed.contains(address)).collect::<Vec<_>>();
        self.former.retain(|former| !relayed.contains(former) && !gone.contains(former));
        let many = (self.former.len() + gone.len()).saturating_sub(self.relayed.len().max(1));
        let oldest: Vec<SocketAddr> = self.former.drain(..many.min(self.former.len())).collect();
        self.former.extend(gone);
        oldest.into_iter().for_each(|older| self.forget_relayed(older));
        self.forget_former();
    }

    /// The peer has sent from a relayed address that it has not reported yet: in place of the one that it had at that relay.
    pub(super) fn learn_relayed(&mut self, address: SocketAddr) {
        let mut relayed = self.relayed.clone();
        match relayed.iter_mut().find(|known| known.ip() == address.ip()) {
            Some(known) => *known = address,
            None => {
                relayed.truncate(MAX_RELAYS - 1);
                relayed.push(address);
            }
        }
        self.set_relayed(relayed);
    }

    /// The relayed addresses before are of no more use when no path leads there.
    pub(super) fn forget_former(&mut self) {
        let leads = |paths: &[Path], former| paths.iter().any(|path| path.leads_to(former));
        let (kept, useless): (Vec<_>, Vec<_>) =
            self.former.drain(..).partition(|former| leads(&self.paths, *former));
        self.former = kept;
        useless.into_iter().for_each(|former| self.forget_relayed(former));
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
        self.add_path(way, self.relayed.contains(&address));
        if let Some(path) = self.path_mut(way) {
            path.burst();
            if self.active == Some(way) {
                // The same way, but perhaps by another channel number.
                self.set_route();
            }
        }
        self.update(now);
    }

    /// The relay that has these addresses can't be spoken to in this way any more, or there is no channel.
    pub(crate) fn handle_relay_lost(&mut self, lost: Transport, at: &[SocketAddr], now: Instant) {
        let gone = |path: &Path| matches!(path.address, Address::Relayed(transport, to) if transport == lost && at.contains(&to));
        self.paths.retain(|path| !gone(path));
        self.forget_former();
        self.update(now);
    }
}
