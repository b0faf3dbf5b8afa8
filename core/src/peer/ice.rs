//! A peer's part in ICE: when a search begins and ends, and what it does to the peer's paths.
//!
//! ```text
//!            news of the peer, another network, the direct path died, time
//!   resting ──────────────────────────────────────────────────────────────> searching: an agent checks pairs
//!      ▲                                                                         │
//!      └──── a direct path of this node's own probes is in use, or time is up ───┘
//! ```
//!
//! At rest nothing is sent, and checks of the peer are answered. A search tells which addresses are worth probes: while
//! the peer takes part in it, other addresses get none. A peer that never takes part has an agent from before ICE, and is
//! looked for by probes alone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ria_protocol::id::BootId;
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::{Candidate, CandidateKind};

use super::{Action, MAX_PATHS, Peer};
use crate::counters::DropReason;
use crate::ice::credentials::Run;
use crate::ice::message::Class;
use crate::ice::{Agent, Config, Credentials, Heard, LocalCandidate, Message, answer};
use crate::path::{Address, Path, PathState};
use crate::peer::stock::Role;

/// A search takes so long, ...
const SEARCH: Duration = Duration::from_secs(4);

/// ... unless a direct path has been in use for this long: by then the other end has found it too.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// Least time between the beginnings of two searches. What a peer says of itself can't make this node check more often.
const SEARCH_GAP: Duration = Duration::from_secs(1);

/// How long until the next search when one found nothing, at first and at most: while no path works, and while the relay
/// does. Probes go on in between.
const AGAIN_SEEKING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
const AGAIN_RELAYED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

/// What ICE knows of a peer.
pub(super) struct Ice {
    /// This node's key, which is part of the credentials' context.
    own: WgPublicKey,
    locals: Arc<[LocalCandidate]>,
    /// What the peer reports and may be sent to.
    remotes: Vec<Candidate>,
    /// The peer's run as far as known.
    boot: Option<BootId>,
    credentials: Option<Pair>,
    search: Option<Box<Search>>,
    /// When the last search began.
    began: Option<Instant>,
    /// When the next one is due.
    next: Option<Instant>,
    tries: u32,
    /// Since when a direct path is in use.
    direct_since: Option<Instant>,
    /// A whole search brought no word of it, while it answered probes.
    speaks_not: bool,
}

struct Pair {
    local: Credentials,
    remote: Credentials,
}

struct Search {
    agent: Agent,
    until: Instant,
    /// When the agent wants to be woken.
    due: Option<Instant>,
    /// Whether the peer takes part.
    joined: bool,
}

impl Ice {
    pub(super) fn new(own: WgPublicKey, locals: Arc<[LocalCandidate]>) -> Self {
        Self {
            own,
            locals,
            remotes: Vec::new(),
            boot: None,
            credentials: None,
            search: None,
            began: None,
            next: None,
            tries: 0,
            direct_since: None,
            speaks_not: false,
        }
    }

    pub(super) fn locals(&self) -> &[LocalCandidate] {
        &self.locals
    }

    /// How the peer announced an address.
    pub(super) fn announced(&self, address: SocketAddr) -> Option<CandidateKind> {
        self.remotes.iter().find(|remote| remote.address == address).map(|remote| remote.kind)
    }

    /// Whether an address of this node is to be given to the kernel with what is sent: where it has one of a family only,
    /// the kernel finds it by itself.
    fn pins(&self, local: IpAddr) -> bool {
        let hosts = self.locals.iter().filter(|own| own.kind == CandidateKind::Host);
        hosts.filter(|own| own.address.is_ipv4() == local.is_ipv4()).count() > 1
    }

    fn has_host(&self, ip: IpAddr) -> bool {
        self.locals.iter().any(|own| own.kind == CandidateKind::Host && own.address.ip() == ip)
    }

    /// Whether a path has to wait for what the search finds.
    pub(super) fn holds(&self, path: &Path) -> bool {
        let joined = self.search.as_ref().is_some_and(|search| search.joined);
        joined && path.reported && !path.found && !path.is_relayed() && path.state == PathState::Untested
    }

    /// When [`Peer::handle_ice_timeout`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let Some(search) = &self.search else { return self.next };
        let settled = self.direct_since.map(|since| since + SETTLED_AFTER);
        [search.due, Some(search.until), settled].into_iter().flatten().min()
    }

    pub(super) fn own(&mut self, own: WgPublicKey) {
        self.own = own;
    }
}

impl Peer {
    /// This node's candidates are others now.
    pub(crate) fn set_locals(&mut self, locals: Arc<[LocalCandidate]>, now: Instant) {
        let gained = locals.iter().any(|new| !self.ice.locals.contains(new));
        self.ice.locals = locals;
        self.unpin_paths();
        if let Some(search) = &mut self.ice.search {
            search.agent.set_local_candidates(&self.ice.locals, now);
            self.flush_ice();
        } else if gained && self.ice.direct_since.is_none() {
            self.search(now);
        }
    }

    /// What can't be sent from any more is left to the kernel.
    fn unpin_paths(&mut self) {
        let (ice, active) = (&self.ice, self.active);
        let mut moved = false;
        for path in &mut self.paths {
            if path.from.is_some_and(|from| !ice.has_host(from)) {
                path.from = None;
                moved |= active == Some(path.address);
            }
        }
        if moved {
            self.set_route();
        }
    }

    /// What the peer reports is this now.
    pub(super) fn set_remotes(&mut self, remotes: Vec<Candidate>, now: Instant) {
        let gained = remotes.iter().any(|new| !self.ice.remotes.contains(new));
        self.ice.remotes = remotes;
        if !gained {
            return;
        }
        if self.ice.search.is_some() {
            self.announce_remotes(now);
        } else if self.ice.direct_since.is_none() {
            self.search(now);
        }
    }

    /// The peer itself has told of a candidate, so there is no need to wait for what a search finds.
    pub(super) fn hear_of(&mut self, remote: Candidate, now: Instant) {
        if let Some(path) = self.path_mut(Address::Direct(remote.address)) {
            path.found = true;
        }
        if self.ice.announced(remote.address).is_none() && self.ice.remotes.len() < MAX_PATHS {
            self.ice.remotes.push(remote);
            self.announce_remotes(now);
        }
    }

    fn announce_remotes(&mut self, now: Instant) {
        if let Some(search) = &mut self.ice.search {
            for remote in &self.ice.remotes {
                search.agent.add_remote_candidate(remote.kind, remote.address, now);
            }
        }
        self.flush_ice();
    }

    /// The peer is in this run, as it or its coordinator says.
    pub(super) fn meet(&mut self, boot: BootId, now: Instant) {
        if self.ice.boot != Some(boot) {
            self.ice.boot = Some(boot);
            self.renew_credentials();
            self.search(now);
        }
    }

    /// The credentials are those of both runs and keys as they are now.
    pub(super) fn renew_credentials(&mut self) {
        let before = self.ice.credentials.take().map(|pair| pair.local.ufrag);
        self.ice.credentials = self.ice.boot.filter(|_| self.role == Role::Agent).and_then(|boot| {
            let own = Run { key: &self.ice.own, boot: self.own_boot };
            let peer = Run { key: &self.key, boot };
            let local = self.keys.ice.credentials(own, peer)?;
            let remote = self.keys.ice.credentials(peer, own)?;
            Some(Pair { local, remote })
        });
        (self.ice.search, self.ice.speaks_not, self.ice.tries) = (None, false, 0);
        let after = self.ice.credentials.as_ref().map(|pair| pair.local.ufrag.clone());
        self.actions.push_back(Action::NameIce { before, after });
    }

    /// The user name fragment that the peer's checks bear.
    pub(crate) fn ice_ufrag(&self) -> Option<&str> {
        self.ice.credentials.as_ref().map(|pair| pair.local.ufrag.as_str())
    }

    /// Searches anew, from nothing: now, or as soon as it may.
    pub(super) fn search(&mut self, now: Instant) {
        if self.ice.speaks_not || self.ice.remotes.is_empty() || self.ice.locals.is_empty() {
            return;
        }
        let Some(pair) = &self.ice.credentials else { return };
        let may_at = self.ice.began.map(|began| began + SEARCH_GAP).filter(|at| *at > now);
        if let Some(at) = may_at {
            self.ice.next = Some(self.ice.next.map_or(at, |next| next.min(at)));
            return;
        }
        let mut agent = Agent::new(Config {
            local: pair.local.clone(),
            remote: pair.remote.clone(),
            controlling: self.ice.own < self.key,
            seed: self.rng.bytes(),
        });
        agent.set_local_candidates(&self.ice.locals, now);
        (self.ice.began, self.ice.next) = (Some(now), None);
        self.ice.search = Some(Box::new(Search { agent, until: now + SEARCH, due: None, joined: false }));
        self.announce_remotes(now);
    }

    /// Hands on what the agent wants sent.
    fn flush_ice(&mut self) {
        let Some(search) = &mut self.ice.search else { return };
        while let Some(datagram) = search.agent.poll_transmit() {
            self.actions.push_back(Action::SendCheck(datagram));
        }
        search.due = search.agent.poll_timeout();
    }

    /// Does what is due.
    pub(super) fn handle_ice_timeout(&mut self, now: Instant) {
        let Some(search) = &mut self.ice.search else {
            if self.ice.next.is_some_and(|at| at <= now) {
                self.ice.next = None;
                self.search(now);
            }
            return;
        };
        let settled = self.ice.direct_since.is_some_and(|since| since + SETTLED_AFTER <= now);
        if settled || search.until <= now {
            return self.end_search(now);
        }
        if search.due.is_some_and(|at| at <= now) {
            search.agent.handle_timeout(now);
            self.flush_ice();
        }
    }

    fn end_search(&mut self, now: Instant) {
        let held: Vec<Address> = self.paths.iter().filter(|p| self.ice.holds(p)).map(|p| p.address).collect();
        let Some(search) = self.ice.search.take() else { return };
        for address in held {
            if let Some(path) = self.path_mut(address) {
                path.rest(now);
            }
        }
        let answers = self.paths.iter().any(|path| path.state == PathState::Proven);
        self.ice.speaks_not = !search.joined && answers;
        self.plan_search(now);
    }

    /// When the next search is due, should nothing happen before.
    fn plan_search(&mut self, now: Instant) {
        if self.ice.direct_since.is_some() || self.ice.speaks_not {
            self.ice.next = None;
            return;
        }
        let (first, longest) = if self.active.is_some() { AGAIN_RELAYED } else { AGAIN_SEEKING };
        self.ice.next = Some(now + first.saturating_mul(1 << self.ice.tries.min(10)).min(longest));
        self.ice.tries = self.ice.tries.saturating_add(1);
    }

    /// Traffic takes another path, or none.
    pub(super) fn follow_path(&mut self, now: Instant) {
        if matches!(self.active, Some(Address::Direct(_))) {
            self.ice.direct_since.get_or_insert(now);
            (self.ice.tries, self.ice.next) = (0, None);
        } else if self.ice.direct_since.take().is_some() {
            self.search(now);
        } else if self.ice.search.is_none() {
            self.ice.tries = 0;
            self.plan_search(now);
        }
    }

    /// A message of ICE's came, to one of this node's host or relayed addresses.
    pub(crate) fn handle_check(
        &mut self,
        (message, bytes): (&Message<'_>, &[u8]),
        via: Address,
        to: SocketAddr,
        now: Instant,
    ) -> Result<(), DropReason> {
        let from = via.socket();
        if self.ice.search.is_none() {
            self.answer_check((message, bytes), (from, to))?;
            // The peer seeks: that is the time to seek too, and to open NATs for each other.
            self.ice.speaks_not = false;
            if self.ice.direct_since.is_none() {
                self.search(now);
            }
        }
        if let Some(search) = &mut self.ice.search {
            let heard = search.agent.handle_message(message, bytes, (from, to), now)?;
            search.joined = true;
            self.flush_ice();
            self.handle_heard(heard, via, now);
        }
        self.update(now);
        Ok(())
    }

    fn answer_check(
        &mut self,
        (message, bytes): (&Message<'_>, &[u8]),
        (from, to): (SocketAddr, SocketAddr),
    ) -> Result<(), DropReason> {
        let pair = self.ice.credentials.as_ref().ok_or(DropReason::Stranger)?;
        if message.class != Class::Request {
            return Err(DropReason::Unexpected);
        }
        if message.ufrags != Some((&pair.local.ufrag, &pair.remote.ufrag)) {
            return Err(DropReason::Stranger);
        }
        let reply = answer(message, bytes, &pair.local, from).ok_or(DropReason::Unauthentic)?;
        let datagram = crate::ice::Datagram { from: to, to: from, bytes: reply, check: None };
        self.actions.push_back(Action::SendCheck(datagram));
        Ok(())
    }

    /// An address turned out to lead to the peer, or from it: probes see to the rest.
    fn handle_heard(&mut self, heard: Heard, via: Address, now: Instant) {
        if matches!(via, Address::Relayed(..)) {
            return;
        }
        if heard.first {
            self.add_path(via, false);
        }
        let pinned = Some(heard.local.ip()).filter(|local| heard.answered && self.ice.pins(*local));
        let Some(path) = self.path_mut(via) else { return };
        path.found = true;
        if path.state == PathState::Proven {
            return;
        }
        if heard.answered {
            path.from = pinned.or(path.from);
        }
        // Where checks come from may be forged; where answers come from is not. Once for each.
        if (heard.first || heard.answered) && !path.pinged_lately(now) {
            self.ping_path(via, now);
        }
    }
}
