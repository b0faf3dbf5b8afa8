//! A peer as the control part sees it: its paths, which of them is used, the state of the link, pings on request.
//!
//! It is a state machine of its own: what it wants done is collected as [`Action`]s. It owns no session and no relay; it
//! is told when they become usable. What it learns of the peer's run (boot id) it takes from pongs to own pings only, since
//! a replayed probe proves nothing about now.

mod beacon;
mod candidates;
pub(crate) mod clock;
mod ice;
pub(crate) mod link;
mod pacing;
mod ping;
mod probes;
mod report;
mod roam;
mod sizes;
pub(crate) mod stock;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ria_protocol::id::{BootId, NodeId};
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::Live;

use crate::engine::command::PingId;
use crate::engine::event::PingOutcome;
use crate::engine::status::{ClockOffset, LinkState, PathKind};
use crate::ice::{Datagram, LocalCandidate};
use crate::packet::Class;
use crate::path::candidates::MAX_DIRECT;
use crate::path::choice::{self, choose};
use crate::path::mtu::MtuSearch;
use crate::path::pacing::Pacer;
use crate::path::probe::{self, PairKeys, ReplayWindow, Skills};
use crate::path::{Address, Due, Pace, Path, PathState};
use crate::relay::{MAX_RELAYS, Transport};
use crate::rng::Rng;
use crate::shard::message::{Slot, Traffic};
use clock::{PeerClock, WallClock};
use ice::Ice;
use link::{Link, Situation};
use ping::Pings;
use stock::Role;

/// Traffic of this age makes a path busy: probes then come several times a second.
const BUSY_FOR: Duration = Duration::from_secs(3);

/// Traffic of this age makes it quiet, instead of idle.
const QUIET_FOR: Duration = Duration::from_secs(30);

/// Data of this age says that a path brings some.
const FED_FOR: Duration = Duration::from_millis(250);

/// Least time that a relay is given to answer when all ways to a peer seem dead.
const RELAY_PATIENCE: Duration = Duration::from_millis(250);

/// Most paths of a peer: its direct candidates, up to four relayed for each relay (it changes its relayed address, this node
/// the way to the relay), and some that were seen on its probes.
const MAX_PATHS: usize = MAX_DIRECT + 4 * MAX_RELAYS + 2;

/// What a peer wants done.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Send this probe, filled up to a size.
    Send { address: Address, from: Option<IpAddr>, class: Class, datagram: [u8; probe::LEN], size: usize },
    /// Traffic takes this way from now on.
    SetRoute { address: Option<Address>, from: Option<IpAddr>, rtt: Duration, ecn: bool, fragments: bool },
    /// Send this message of ICE's.
    SendCheck(Datagram),
    /// Checks of this peer bear this user name fragment from now on.
    NameIce { before: Option<String>, after: Option<String> },
    /// The peer is a new run, first seen at this time.
    ReplaceSession { since: Instant },
    /// The kind of path has changed, for the caller.
    PathChanged {
        before: PathKind,
        after: PathKind,
        endpoint: Option<SocketAddr>,
        gap: Option<Duration>,
        reason: &'static str,
    },
    /// The link's state has changed, for the caller. `paths`: before and now.
    LinkChanged {
        before: LinkState,
        after: LinkState,
        gap: Option<Duration>,
        paths: (PathKind, PathKind),
        reason: &'static str,
    },
    /// No way answers any more, as it seems, while one was in use: find out whether relays can be reached at all, those
    /// that answer doing it within this time.
    CheckRelays { patience: Duration },
    /// The peer is not at this relayed address any more.
    ForgetRelayed(SocketAddr),
    /// A ping has ended.
    PingFinished { id: PingId, outcome: PingOutcome },
}

/// One peer.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) slot: Slot,
    pub(crate) key: WgPublicKey,
    /// This run of this node.
    own_boot: BootId,
    keys: PairKeys,
    rng: Rng,
    paths: Vec<Path>,
    active: Option<Address>,
    reason: &'static str,
    role: Role,
    pub(crate) online: bool,
    hinted_boot: Option<BootId>,
    boot: Option<BootId>,
    /// A boot id that a ping bore, and since when it does.
    next_boot: Option<(BootId, Instant)>,
    window: ReplayWindow,
    number: u64,
    link: Link,
    traffic: Traffic,
    /// Since when no path works.
    seeking: Option<Instant>,
    /// Whether all paths seem dead, and relays have been asked therefore.
    all_silent: bool,
    /// The peer's relayed addresses, one for each relay, as it reports.
    relayed: Vec<SocketAddr>,
    /// Those before, while there are paths to them: they may carry on until the new ones are proven.
    former: Vec<SocketAddr>,
    /// Where this node is seen from outside.
    reflexive: Option<SocketAddr>,
    /// Where the peer has said that it is seen from outside.
    seen_at: Option<SocketAddr>,
    /// The same, when it is news.
    seen_at_news: Option<SocketAddr>,
    /// Whether this node has no network at all.
    cut_off: bool,
    /// DDS participants of this host, for the peer to know.
    own_participants: u16,
    /// Those of the peer, as it has told.
    participants: Option<u16>,
    pings: Pings,
    /// What the peer knows, as it has told.
    skills: Skills,
    clock: PeerClock,
    /// This machine's clock, once it is known.
    own_clock: Option<WallClock>,
    /// MTU of the network.
    mtu: u16,
    /// Of the path in use.
    pacer: Pacer,
    sizes: MtuSearch,
    ice: Ice,
    heard_beacons: beacon::Heard,
    actions: VecDeque<Action>,
}

/// What a peer is made of.
pub(crate) struct NewPeer {
    pub(crate) node: NodeId,
    pub(crate) slot: Slot,
    pub(crate) key: WgPublicKey,
    /// This node's key and run.
    pub(crate) own: (WgPublicKey, BootId),
    pub(crate) keys: PairKeys,
    pub(crate) rng: Rng,
    pub(crate) role: Role,
    pub(crate) locals: Arc<[LocalCandidate]>,
    /// MTU of the network.
    pub(crate) mtu: u16,
}

impl Peer {
    pub(crate) fn new(new: NewPeer) -> Self {
        Self {
            node: new.node,
            slot: new.slot,
            key: new.key,
            own_boot: new.own.1,
            keys: new.keys,
            rng: new.rng,
            paths: Vec::new(),
            active: None,
            reason: choice::REASON_UNKNOWN,
            role: new.role,
            online: false,
            hinted_boot: None,
            boot: None,
            next_boot: None,
            window: ReplayWindow::default(),
            number: 0,
            link: Link::default(),
            traffic: Traffic::default(),
            seeking: None,
            all_silent: false,
            relayed: Vec::new(),
            former: Vec::new(),
            reflexive: None,
            seen_at: None,
            seen_at_news: None,
            cut_off: false,
            own_participants: 0,
            participants: None,
            pings: Pings::default(),
            skills: Skills::default(),
            clock: PeerClock::default(),
            own_clock: None,
            mtu: new.mtu,
            pacer: Pacer::default(),
            sizes: MtuSearch::default(),
            ice: Ice::new(new.own.0, new.locals),
            heard_beacons: beacon::Heard::default(),
            actions: VecDeque::new(),
        }
    }

    pub(crate) fn link_state(&self) -> LinkState {
        self.link.state
    }

    pub(crate) fn path_kind(&self) -> PathKind {
        kind(self.active)
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn tag_in(&self) -> probe::PairTag {
        self.keys.tag_in
    }

    /// The keys of the pair are others now; the ways to the peer stay.
    pub(crate) fn rekey(&mut self, own: WgPublicKey, key: WgPublicKey, keys: PairKeys) {
        (self.key, self.keys) = (key, keys);
        self.ice.own(own);
        self.renew_credentials();
    }

    /// The way to the relay that traffic takes, when it goes through a relay, and the peer's address there.
    pub(crate) fn relayed_via(&self) -> Option<(Transport, SocketAddr)> {
        match self.active {
            Some(Address::Relayed(transport, address)) => Some((transport, address)),
            Some(Address::Direct(_)) | None => None,
        }
    }

    /// The peer's relayed addresses, as it reports them.
    pub(crate) fn relayed_candidates(&self) -> &[SocketAddr] {
        &self.relayed
    }

    /// The relayed addresses to which this node's relay needs channels.
    pub(crate) fn relayed_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.relayed.iter().chain(&self.former).copied()
    }

    /// News from the coordinator. `usable` says which of the peer's direct addresses are worth a try.
    pub(crate) fn handle_live(&mut self, live: &Live, usable: impl Fn(SocketAddr) -> bool, now: Instant) {
        let came_online = live.online && !self.online;
        self.online = live.online;
        let new_run = live.boot.is_some() && live.boot != self.hinted_boot;
        self.hinted_boot = live.boot.or(self.hinted_boot);
        if self.role != Role::Agent {
            return self.handle_stock_live(live, usable, now);
        }
        // Empty means "not known", never "forget".
        if !live.candidates.is_empty() {
            self.set_candidates(live, usable, now);
        }
        if let Some(boot) = live.boot.filter(|_| new_run) {
            self.meet(boot, now);
        }
        if came_online || new_run {
            self.paths.iter_mut().for_each(Path::burst);
        }
        if new_run && live.boot != self.boot {
            self.paths.iter_mut().for_each(Path::owe_ping);
        }
        self.update(now);
    }

    fn path_mut(&mut self, address: Address) -> Option<&mut Path> {
        self.paths.iter_mut().find(|path| path.address == address)
    }

    fn add_path(&mut self, address: Address, reported: bool) {
        match self.path_mut(address) {
            Some(path) => path.reported |= reported,
            None => self.push_path(Path::new(address, reported)),
        }
    }

    /// An address that the peer is said to have here.
    fn add_hint(&mut self, address: Address) {
        if self.path_mut(address).is_none() {
            self.push_path(Path::hinted(address));
        }
    }

    fn push_path(&mut self, path: Path) {
        if self.paths.len() >= MAX_PATHS {
            // An address that a probe came from once and that answers nothing makes room.
            let Some(index) = self.paths.iter().position(|p| !p.reported && p.state != PathState::Proven)
            else {
                return;
            };
            self.paths.swap_remove(index);
        }
        self.paths.push(path);
    }

    /// This host has so many DDS participants.
    pub(crate) fn set_participants(&mut self, count: u16) {
        self.own_participants = count;
    }

    /// This machine's clock was read. One that was set says nothing of what was measured by it.
    pub(crate) fn set_own_clock(&mut self, clock: WallClock, is_set: bool) {
        self.own_clock = Some(clock);
        if is_set {
            self.clock.forget();
            let active = self.active;
            if let Some(path) = active.and_then(|address| self.path_mut(address)) {
                path.owe_ping();
            }
        }
    }

    /// By how much the peer's clock is ahead, when that is known.
    pub(crate) fn clock_offset(&self, own: &WallClock, now: Instant) -> Option<ClockOffset> {
        self.clock.offset(own, now)
    }

    /// The session became usable, or stopped being it.
    pub(crate) fn handle_session(&mut self, ready: bool, now: Instant) {
        self.link.handle_session(ready, now);
        self.update(now);
    }

    /// What passed through the shard.
    pub(crate) fn handle_traffic(&mut self, traffic: Traffic, now: Instant) {
        let before = std::mem::replace(&mut self.traffic, traffic);
        if let Some(heard) = traffic.heard {
            self.link.heard(heard);
        }
        self.follow_data(before, now);
        self.update(now);
    }

    /// Measures the way to the peer, once there is one.
    pub(crate) fn start_ping(&mut self, id: PingId, deadline: Instant, now: Instant) {
        if self.role != Role::Agent {
            let outcome = PingOutcome::NoAgent;
            self.actions.push_back(Action::PingFinished { id, outcome });
            return;
        }
        self.pings.start(id, deadline);
        self.update(now);
    }

    /// Ends what waits, before the peer is removed.
    pub(crate) fn close(&mut self) {
        self.pings.close(&mut self.actions);
    }

    fn pace(&self, path: &Path, now: Instant) -> Pace {
        if let Some(since) = self.seeking {
            return Pace::Seek(since);
        }
        if self.active != Some(path.address) {
            let sent = |at| now.saturating_duration_since(at) < QUIET_FOR;
            let gains = self.path_kind() != PathKind::Direct && self.traffic.active.is_some_and(sent);
            return if gains { Pace::Standby } else { Pace::Spare };
        }
        // Of a bad link it is worth knowing when it is well again.
        let idle = if self.link.state == LinkState::Degraded { Pace::Quiet } else { Pace::Idle };
        let Some(active) = self.traffic.active else { return idle };
        let age = now.saturating_duration_since(active);
        // A ping per packet at most: what is said once in seconds needs no watch several times a second.
        if age < BUSY_FOR && path.is_behind(active) {
            Pace::Busy
        } else if age < QUIET_FOR {
            Pace::Quiet
        } else {
            idle
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let paths = self.paths.iter().filter(|path| !self.ice.holds(path));
        let paths = paths.map(|path| path.deadline(self.pace(path, now), now));
        let others =
            [self.pings.deadline(), self.link.deadline(), self.stock_deadline(), self.ice.deadline()];
        paths.chain(others.into_iter().flatten()).chain(self.sizes_deadline(now)).min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let mut suspect = false;
        self.handle_ice_timeout(now);
        for index in 0..self.paths.len() {
            let Some(path) = self.paths.get(index).filter(|path| !self.ice.holds(path)) else { continue };
            let (address, pace) = (path.address, self.pace(path, now));
            let fed = self.is_fed(address, now);
            let Some(path) = self.paths.get_mut(index) else { continue };
            path.set_fed(fed);
            match path.handle_timeout(pace, now) {
                Due::Nothing => {}
                Due::Ping | Due::Died => {
                    let was_active = self.active == Some(address);
                    suspect |= was_active && self.path_mut(address).is_some_and(|path| path.is_suspect());
                    self.ping_path(address, now);
                }
            }
        }
        if suspect {
            // Whether the others still work must be known when this one dies.
            self.ping_standby(now);
        }
        self.ask_sizes(now);
        self.note_silence();
        self.forget_strays(now);
        self.pings.expire(now, &mut self.actions);
        self.update(now);
    }

    /// When all ways fall silent at once, it may be the network here that has closed. Whoever waits for the last of them to
    /// be dead loses half a second.
    fn note_silence(&mut self) {
        let mut proven = self.paths.iter().filter(|path| path.state == PathState::Proven).peekable();
        let silent = proven.peek().is_some() && proven.all(Path::is_suspect);
        if silent && !std::mem::replace(&mut self.all_silent, true) {
            let relayed =
                self.paths.iter().filter(|path| path.is_relayed() && path.state == PathState::Proven);
            let slowest = relayed.map(Path::rtt).max().unwrap_or_default();
            self.actions.push_back(Action::CheckRelays { patience: RELAY_PATIENCE.max(2 * slowest) });
        }
        self.all_silent &= silent;
    }

    /// Whether the peer's data comes over a path at the moment.
    fn is_fed(&self, address: Address, now: Instant) -> bool {
        let Some((at, Some(from))) = self.traffic.data else { return false };
        let fed = address == Address::Direct(from) && now.saturating_duration_since(at) < FED_FOR;
        self.active == Some(address) && fed
    }

    fn ping_standby(&mut self, now: Instant) {
        let standby: Vec<Address> = self
            .paths
            .iter()
            .filter(|path| path.state == PathState::Proven && self.active != Some(path.address))
            .filter(|path| !path.pinged_lately(now))
            .map(|path| path.address)
            .collect();
        for address in standby {
            self.ping_path(address, now);
        }
    }

    /// An address that was only seen on a probe, and does not answer, is of no more use.
    fn forget_strays(&mut self, now: Instant) {
        let seeking = self.seeking.is_some();
        self.paths.retain(|path| !path.is_spent(seeking, now));
        self.forget_former();
    }

    /// Draws the conclusions of whatever has changed: which path, which state, which pings can go.
    fn update(&mut self, now: Instant) {
        if self.role != Role::Agent {
            return self.update_stock(now);
        }
        let active = self.active.and_then(|a| self.paths.iter().position(|path| path.address == a));
        let chosen = choose(&self.paths, active);
        let path = chosen.and_then(|(index, reason)| Some((self.paths.get(index)?, reason)));
        let address = path.map(|(path, _)| path.address);
        let quality = path.map(|(path, _)| (path.loss(), path.is_suspect()));
        self.reason = match path {
            Some((path, choice::REASON_DIRECT)) => self.direct_reason(path),
            Some((_, reason)) => reason,
            None if self.cut_off => choice::REASON_NO_NETWORK,
            None if self.paths.is_empty() => choice::REASON_UNKNOWN,
            None if self.link.was_up() => choice::REASON_NONE,
            None => choice::REASON_TRYING,
        };
        self.seeking = if address.is_some() { None } else { self.seeking.or(Some(now)) };
        if address != self.active {
            self.switch(address, now);
        }
        self.begin_sizes(now);
        let known = !self.paths.is_empty() || !self.relayed.is_empty();
        let situation = Situation { known, quality, path: kind(self.active), reason: self.reason };
        self.link.update(situation, now, &mut self.actions);
        if let Some(address) = address.filter(|_| self.link.is_up()) {
            while let Some(waiting) = self.pings.next_waiting() {
                let echo = self.ping_path(address, now);
                self.pings.handle_sent(waiting, echo);
            }
        }
    }

    /// For how long nothing has come over the path in use, when it does not work any more; of a lost link, in all.
    fn silence(&self, now: Instant) -> Option<Duration> {
        let Some(active) = self.active else { return self.link.lost_for(now) };
        let path = self.paths.iter().find(|path| path.address == active);
        if path.is_some_and(|path| path.state == PathState::Proven && !path.is_doubted()) {
            return None;
        }
        let answered = path.map_or(self.link.heard, Path::answered);
        answered.max(self.traffic.heard).map(|at| now.saturating_duration_since(at))
    }

    /// Traffic takes the path in use, as it is now.
    pub(super) fn set_route(&mut self) {
        let path = self.active.and_then(|active| self.paths.iter().find(|path| path.address == active));
        let (from, rtt) = path.map_or((None, Duration::ZERO), |path| (path.from, path.rtt()));
        let direct = self.path_kind() == PathKind::Direct;
        // Relays don't carry marks over.
        let (ecn, fragments) = (direct && self.skills.carries_marks(), self.sizes.is_small());
        self.actions.push_back(Action::SetRoute { address: self.active, from, rtt, ecn, fragments });
    }

    fn switch(&mut self, address: Option<Address>, now: Instant) {
        let (before, gap) = (kind(self.active), self.silence(now));
        self.active = address;
        let quickest = self.paths.iter().find(|path| Some(path.address) == address).and_then(Path::quickest);
        (self.pacer, self.sizes) = (Pacer::of_path(quickest), MtuSearch::default());
        self.set_route();
        let (after, endpoint) = (kind(address), address.map(Address::socket));
        self.actions.push_back(Action::PathChanged { before, after, endpoint, gap, reason: self.reason });
        if address.is_none() {
            // All died at once: the network itself may be about to change.
            self.seeking = Some(now);
            self.paths.iter_mut().for_each(Path::burst);
        }
        self.follow_path(now);
    }
}

/// The kind of path behind an address.
fn kind(address: Option<Address>) -> PathKind {
    match address {
        None => PathKind::None,
        Some(Address::Direct(_)) => PathKind::Direct,
        Some(Address::Relayed(Transport::Udp, _)) => PathKind::RelayUdp,
        Some(Address::Relayed(Transport::Tls, _)) => PathKind::RelayTls,
    }
}
