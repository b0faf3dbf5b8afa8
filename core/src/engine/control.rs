//! The control part: networks, maps and peers. It decides; the shard does. It never touches an inner packet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::{Live, PatchSet, Snapshot};
use ria_protocol::message::LiveUpdate;
use ria_protocol::prefix::Prefix;
use ria_protocol::record::RecordError;
use ria_protocol::time::UnixTime;
use x25519_dalek::StaticSecret;

use super::command::{AddNetwork, Command, CommandError};
use super::event::{Event, Warning};
use super::ice::Checks;
use super::network::Network;
use super::relay::Relay;
use super::roam::Families;
use super::slots::{PeerId, Slots};
use super::status::NetworkStatus;
use crate::beacon::{Attention, Beacons};
use crate::counters::{DropCounters, DropReason};
use crate::map::{Folded, MapChange, NetworkMap};
use crate::packet::{Class, SocketIndex};
use crate::path::Address;
use crate::path::probe::{PairKeys, PairTag};
use crate::peer::clock::WallClock;
use crate::peer::stock::Role;
use crate::peer::{NewPeer, Peer};
use crate::rng::Rng;
use crate::routes::Routes;
use crate::session::{Initiator, SessionFactory};
use crate::shard::message::{ShardCommand, ShardEvent, Slot};

/// Most networks of one engine: each costs a trial of every handshake of a stranger.
pub(super) const MAX_NETWORKS: usize = 64;

/// Members whose news are kept although the map does not list them yet.
const LIVE_AHEAD: usize = 64;

/// A datagram of the control part.
#[derive(Debug)]
pub(super) struct ControlDatagram {
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
    pub(super) socket: SocketIndex,
    pub(super) class: Class,
    pub(super) bytes: Vec<u8>,
}

/// The control part.
pub(super) struct Control {
    pub(super) networks: BTreeMap<NetworkId, Network>,
    pub(super) slots: Slots,
    pub(super) tags: BTreeMap<PairTag, PeerId>,
    pub(super) checks: Checks,
    /// When which peer wants to be woken, both ways.
    pub(super) timers: BTreeSet<(Instant, PeerId)>,
    pub(super) timer_of: BTreeMap<PeerId, Instant>,
    pub(super) host: Vec<SocketAddr>,
    /// The same when there was a network last.
    pub(super) last_host: Vec<SocketAddr>,
    /// The addresses that beacons go from.
    pub(super) places: Vec<SocketAddr>,
    pub(super) attention: Attention,
    pub(super) factory: Box<dyn SessionFactory>,
    pub(super) rng: Rng,
    pub(super) events: VecDeque<Event>,
    pub(super) to_shard: VecDeque<ShardCommand>,
    pub(super) outbox: VecDeque<ControlDatagram>,
    pub(super) drops: DropCounters,
    /// The outer address that a router has opened.
    pub(super) mapped: Option<SocketAddr>,
    /// Prefixes inside of which no path runs.
    pub(super) avoided: Vec<Prefix>,
    /// Relays that are no longer used and are being told so.
    pub(super) leaving: Vec<Relay>,
    /// Number of the next stream to a relay.
    pub(super) next_stream: u8,
    /// Whether datagrams bear the DSCP of the packets in them.
    pub(super) copies_dscp: bool,
    /// This machine's clock, as it was read last.
    pub(super) clock: Option<WallClock>,
}

impl Control {
    pub(super) fn new(seed: &[u8; 32], factory: Box<dyn SessionFactory>) -> Self {
        Self {
            networks: BTreeMap::new(),
            slots: Slots::new(1),
            tags: BTreeMap::new(),
            checks: Checks::default(),
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            host: Vec::new(),
            last_host: Vec::new(),
            places: Vec::new(),
            attention: Attention::default(),
            factory,
            rng: Rng::new(seed),
            events: VecDeque::new(),
            to_shard: VecDeque::new(),
            outbox: VecDeque::new(),
            drops: DropCounters::default(),
            mapped: None,
            avoided: Vec::new(),
            leaving: Vec::new(),
            next_stream: 0,
            copies_dscp: true,
            clock: None,
        }
    }

    pub(super) fn handle_command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        match command {
            Command::AddNetwork(add) => self.add_network(&add, now),
            Command::SetPrivateKey { network, private_key } => {
                self.set_private_key(network, &private_key.0, now)
            }
            Command::RemoveNetwork(network) => self.remove_network(network, now),
            Command::SetMap { network, snapshot } => self.set_map(network, &snapshot, now),
            Command::ApplyPatches { network, patches } => self.apply_patches(network, &patches, now),
            Command::ApplyLive { network, update } => self.apply_live(network, update, now),
            Command::SetTime { network, time, latest } => {
                self.network(network)?.map.set_doubt(latest.0.saturating_sub(time.0));
                self.set_time(network, time, now)
            }
            Command::SetRelays { network, relays } => self.set_relays(network, relays, now),
            Command::SetCoordinatorReached { network, reached } => {
                self.set_coordinator_reached(network, reached, now)
            }
            Command::RelayStream { network, socket, news } => {
                self.handle_stream_news(network, socket, news, now)
            }
            Command::SetAbsent { network, address } => self.set_absent(network, address),
            Command::SetHostCandidates(host) => {
                self.set_host_candidates(host, now);
                self.seek_by_beacon(now);
                Ok(())
            }
            Command::SetBeaconPlaces(places) => {
                self.set_beacon_places(places, now);
                Ok(())
            }
            Command::Rerouted { ipv4, ipv6 } => {
                self.handle_rerouted(Families { ipv4, ipv6 }, now);
                Ok(())
            }
            Command::SetMappedAddress(mapped) => {
                self.mapped = mapped;
                self.report_candidates(now);
                Ok(())
            }
            Command::SetAvoided(prefixes) => {
                self.avoided = prefixes;
                self.report_candidates(now);
                Ok(())
            }
            Command::SetMulticast { network, policy } => {
                let policy = Box::new(policy);
                self.pass_on(network, ShardCommand::SetMulticast { network, policy })
            }
            Command::SetLans { network, lans } => {
                self.pass_on(network, ShardCommand::SetLans { network, lans })
            }
            Command::StartPing { network, peer, id, timeout } => {
                self.start_ping((network, peer), id, now + timeout, now)
            }
        }
    }

    pub(super) fn network(&mut self, network: NetworkId) -> Result<&mut Network, CommandError> {
        self.networks.get_mut(&network).ok_or(CommandError::NoSuchNetwork(network))
    }

    fn add_network(&mut self, add: &AddNetwork, now: Instant) -> Result<(), CommandError> {
        if self.networks.contains_key(&add.id) {
            return Err(CommandError::NetworkExists(add.id));
        }
        if self.networks.len() >= MAX_NETWORKS {
            return Err(CommandError::TooManyNetworks(MAX_NETWORKS));
        }
        let sessions = self.factory.network(&add.private_key);
        let network = Network {
            id: add.id,
            node: add.node,
            boot: add.boot,
            mtu: add.mtu,
            private: StaticSecret::from(*add.private_key),
            public: sessions.public_key(),
            sessions,
            map: NetworkMap::new(add.id).of(add.node),
            peers: BTreeMap::new(),
            participants: 0,
            by_key: BTreeMap::new(),
            live: BTreeMap::new(),
            relays: Vec::new(),
            told: Vec::new(),
            binding: None,
            binding_retry: None,
            candidates: Vec::new(),
            locals: Arc::default(),
            clock: None,
            beacons: Beacons::default(),
            unlisted: false,
            has_stock: false,
        };
        self.networks.insert(add.id, network);
        self.to_shard.push_back(ShardCommand::AddNetwork { network: add.id, mtu: add.mtu });
        self.report_candidates(now);
        Ok(())
    }

    fn remove_network(&mut self, id: NetworkId, now: Instant) -> Result<(), CommandError> {
        let nodes: Vec<NodeId> = self.network(id)?.peers.keys().copied().collect();
        for node in nodes {
            self.remove_peer((id, node), now);
        }
        let relays = self.networks.remove(&id).map(|network| network.relays).unwrap_or_default();
        relays.into_iter().for_each(|relay| self.release_relay(id, relay, now));
        self.to_shard.push_back(ShardCommand::RemoveNetwork(id));
        Ok(())
    }

    fn set_map(&mut self, id: NetworkId, snapshot: &Snapshot, now: Instant) -> Result<(), CommandError> {
        let folded = self.network(id)?.map.apply_snapshot(snapshot);
        let folded = folded.map_err(|other| CommandError::OtherNetwork(other.0))?;
        self.follow_map(id, folded, now);
        Ok(())
    }

    fn set_time(&mut self, id: NetworkId, time: UnixTime, now: Instant) -> Result<(), CommandError> {
        let network = self.network(id)?;
        network.clock = Some((now, time));
        let folded = network.map.set_time(time);
        if folded != Folded::default() {
            self.follow_map(id, folded, now);
        }
        Ok(())
    }

    /// Ends memberships whose time has come.
    fn handle_ends(&mut self, now: Instant) {
        let over = |network: &&Network| network.end_deadline().is_some_and(|at| at <= now);
        let over: Vec<(NetworkId, Option<UnixTime>)> =
            self.networks.values().filter(over).map(|network| (network.id, network.time(now))).collect();
        for (id, time) in over {
            // The network was there a moment ago.
            let _ = time.map(|time| self.set_time(id, time, now));
        }
    }

    fn apply_patches(&mut self, id: NetworkId, set: &PatchSet, now: Instant) -> Result<(), CommandError> {
        let folded = self.network(id)?.map.apply_patches(set);
        let folded = folded.map_err(|gap| CommandError::RevisionGap { have: gap.have, from: set.from })?;
        self.follow_map(id, folded, now);
        Ok(())
    }

    /// Makes peers and routes what the map says.
    fn follow_map(&mut self, id: NetworkId, folded: Folded, now: Instant) {
        for refused in folded.refused {
            let name = refused.name.to_string();
            let warning = Warning::MemberRefused { name, reason: refused.reason };
            self.events.push_back(Event::Warned { network: id, warning });
        }
        if !folded.changes.is_empty() {
            self.note_stock(id);
        }
        for change in &folded.changes {
            match change {
                MapChange::Network => self.set_wanted(id),
                MapChange::Added(node) => self.add_peer((id, *node), now),
                MapChange::Removed(node) => {
                    self.remove_peer((id, *node), now);
                    self.forget_live((id, *node));
                }
                MapChange::Changed(node) => {
                    if self.identity_changed((id, *node)) {
                        self.rekey_peer((id, *node), now);
                    }
                }
            }
        }
        if folded.rules {
            self.set_rules(id);
        }
        self.gather(id, now);
        if !folded.changes.is_empty() {
            self.set_routes(id);
            self.report_candidates(now);
        }
        self.check_listed(id);
        self.follow_beacon_key(id, now);
        if let Some(revision) = self.networks.get(&id).and_then(|network| network.map.revision()) {
            self.events.push_back(Event::MapChanged { network: id, revision });
        }
    }

    /// Whether a member's key, or the way to talk to it, is another than its peer was made with.
    fn identity_changed(&self, (id, node): PeerId) -> bool {
        let Some(network) = self.networks.get(&id) else { return false };
        let Some(member) = network.map.member(node) else { return false };
        let role = Role::of(member, network.node);
        let same = |peer: &Peer| peer.key == member.record.wg_key && *peer.role() == role;
        node != network.node && !network.peers.get(&node).is_some_and(same)
    }

    pub(super) fn add_peer(&mut self, (id, node): PeerId, now: Instant) {
        let place = self.place(id);
        let Some(network) = self.networks.get_mut(&id) else { return };
        if node == network.node {
            return;
        }
        let Some(member) = network.map.member(node).cloned() else { return };
        let key = member.record.wg_key;
        let taken = network.by_key.contains_key(&key);
        let keys = PairKeys::derive(id, &network.private, &key).filter(|_| !taken);
        let (Some(keys), Some(slot)) = (keys, self.slots.take((id, node), place)) else {
            let (name, reason) = (member.name.to_string(), RecordError::Malformed);
            let warning = Warning::MemberRefused { name, reason };
            self.events.push_back(Event::Warned { network: id, warning });
            return;
        };
        let role = Role::of(&member, network.node);
        let (own, locals) = ((network.public, network.boot), Arc::clone(&network.locals));
        let rng = self.rng.fork();
        let mut peer = Peer::new(NewPeer {
            node,
            slot,
            key,
            own,
            keys,
            rng,
            role: role.clone(),
            locals,
            mtu: network.mtu,
        });
        if role == Role::Agent {
            self.tags.insert(peer.tag_in(), (id, node));
        }
        // One behind a gateway is a stranger to this node.
        if let Some(conduct) = role.conduct(network.public < key) {
            let session = network.sessions.session(&key, role.psk(), slot);
            network.by_key.insert(key, node);
            self.to_shard.push_back(ShardCommand::AddPeer { slot, network: id, node, session, conduct });
        }
        peer.set_participants(network.participants);
        network.peers.insert(node, peer);
        let live = network.live.get(&node).cloned();
        self.events.push_back(Event::PeerAdded { network: id, peer: node });
        if let Some(live) = live {
            self.handle_live(id, &live, now);
        }
        self.with_peer((id, node), now, |peer| peer.handle_added(now));
    }

    pub(super) fn remove_peer(&mut self, (id, node): PeerId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(mut peer) = network.peers.remove(&node) else { return };
        network.by_key.retain(|_, owner| *owner != node);
        for way in network.relays.iter_mut().flat_map(Relay::ways_mut) {
            peer.relayed_addresses().for_each(|relayed| way.client.disconnect_peer(relayed));
        }
        self.tags.remove(&peer.tag_in());
        self.checks.rename((id, node), peer.ice_ufrag(), None);
        self.slots.release(peer.slot);
        self.to_shard.push_back(ShardCommand::RemovePeer(peer.slot));
        peer.close();
        while let Some(action) = peer.poll_action() {
            self.handle_action((id, node), peer.slot, action, now);
        }
        if let Some(at) = self.timer_of.remove(&(id, node)) {
            self.timers.remove(&(at, (id, node)));
        }
        self.events.push_back(Event::PeerRemoved { network: id, peer: node });
    }

    /// Where somebody was who is no member any more is of no more use. A member that is only left out may come back.
    fn forget_live(&mut self, (id, node): PeerId) {
        let network = self.networks.get_mut(&id);
        if let Some(network) = network.filter(|network| !network.map.lists(node)) {
            network.live.remove(&node);
        }
    }

    pub(super) fn set_routes(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get(&id) else { return };
        // What lies behind a gateway is routed to it by its own record, which is what owners sign.
        let claims = network.peers.values().filter(|peer| peer.gateway().is_none()).flat_map(|peer| {
            let member = network.map.member(peer.node);
            let prefixes = member.map_or(&[][..], |member| &member.record.prefixes);
            prefixes.iter().map(|prefix| (*prefix, peer.slot))
        });
        let (routes, conflicts) = Routes::build(claims);
        for (prefix, owner, other) in conflicts {
            if let (Some((_, owner)), Some((_, other))) = (self.slots.peer(owner), self.slots.peer(other)) {
                let warning = Warning::PrefixConflict(owner, other, prefix);
                self.events.push_back(Event::Warned { network: id, warning });
            }
        }
        let own = network.map.member(network.node);
        let own = own.map(|own| own.record.own_prefixes().map(|prefix| prefix.address()).collect());
        let (routes, own) = (Box::new(routes), own.unwrap_or_default());
        self.to_shard.push_back(ShardCommand::SetRoutes { network: id, routes, own });
    }

    /// Has the shard go by the policy as it is now.
    fn set_rules(&mut self, id: NetworkId) {
        let seed = [self.rng.u64(), self.rng.u64()];
        let rules = self.networks.get(&id).and_then(|network| network.map.rules());
        self.to_shard.push_back(ShardCommand::SetRules { network: id, rules, seed });
    }

    fn check_listed(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let own = network.map.member(network.node);
        let unlisted = own.is_none_or(|own| own.record.wg_key != network.public);
        if unlisted && !network.unlisted {
            self.events.push_back(Event::Warned { network: id, warning: Warning::NotListed });
        }
        network.unlisted = unlisted;
    }

    fn apply_live(&mut self, id: NetworkId, update: LiveUpdate, now: Instant) -> Result<(), CommandError> {
        let network = self.network(id)?;
        let mut news = update.members;
        if update.whole {
            let gone = network.live.values().filter(|old| old.online);
            let gone = gone.filter(|old| news.iter().all(|new| new.node != old.node));
            let gone: Vec<Live> = gone.map(|old| Live { online: false, ..old.clone() }).collect();
            news.extend(gone);
            network.live.retain(|node, _| network.map.lists(*node));
        }
        for live in news {
            self.handle_live(id, &live, now);
        }
        Ok(())
    }

    fn handle_live(&mut self, id: NetworkId, live: &Live, now: Instant) {
        let worth = self.worth();
        let Some(network) = self.networks.get_mut(&id) else { return };
        // News may be ahead of the map, but not without end.
        if network.map.lists(live.node) || network.live.len() < network.map.len() + LIVE_AHEAD {
            network.live.insert(live.node, live.clone());
        }
        let Some(peer) = network.peers.get_mut(&live.node) else { return };
        let before = peer.relayed_candidates().to_vec();
        peer.handle_live(live, worth, now);
        let moved = peer.relayed_candidates() != before;
        self.settle((id, live.node), now);
        if moved {
            self.open_channels((id, live.node), now);
        }
    }

    /// The prefixes of all overlays and those that are avoided, inside of which no path may run.
    pub(super) fn all_overlays(&self) -> Vec<Prefix> {
        self.networks.values().flat_map(Network::overlays).chain(self.avoided.iter().copied()).collect()
    }

    /// Whether an address is of an overlay, or of a network that is avoided.
    pub(super) fn is_inside_overlay(&self, ip: IpAddr) -> bool {
        let overlays = self.networks.values().flat_map(Network::overlays);
        overlays.chain(self.avoided.iter().copied()).any(|prefix| prefix.contains(ip))
    }

    /// Whose handshake initiation this is.
    pub(super) fn identify(
        &mut self,
        datagram: &[u8],
        source: IpAddr,
        now: Instant,
        reply: &mut [u8],
    ) -> Result<Identified, DropReason> {
        for network in self.networks.values_mut() {
            match network.sessions.identify(datagram, source, now, reply) {
                Initiator::NotForUs => {}
                Initiator::Drop(reason) => return Err(reason),
                Initiator::Cookie(len) => return Ok(Identified::Cookie(len)),
                Initiator::Peer(key) => {
                    let node = network.by_key.get(&key).ok_or(DropReason::Stranger)?;
                    let peer = network.peers.get(node).ok_or(DropReason::Stranger)?;
                    return Ok(Identified::Peer(peer.slot));
                }
            }
        }
        Err(DropReason::Stranger)
    }

    pub(super) fn handle_shard_event(&mut self, event: ShardEvent, now: Instant) {
        let slot = match event {
            ShardEvent::SessionUp { slot }
            | ShardEvent::SessionDown { slot }
            | ShardEvent::Traffic { slot, .. }
            | ShardEvent::Denied { slot, .. }
            | ShardEvent::Roamed { slot, .. } => slot,
            ShardEvent::Wanted { network, address } => {
                return self.events.push_back(Event::PeerWanted { network, address });
            }
            ShardEvent::Removed { slot } => return self.slots.free(slot),
        };
        let Some(peer_id) = self.slots.peer(slot) else { return };
        if let ShardEvent::Denied { denied, .. } = event {
            self.events.push_back(Event::Denied { network: peer_id.0, peer: peer_id.1, denied });
            return;
        }
        self.with_peer(peer_id, now, |peer| match event {
            ShardEvent::SessionUp { .. } => peer.handle_session(true, now),
            ShardEvent::SessionDown { .. } => peer.handle_session(false, now),
            ShardEvent::Traffic { traffic, .. } => peer.handle_traffic(traffic, now),
            ShardEvent::Roamed { to, .. } => peer.handle_roamed(to, now),
            ShardEvent::Denied { .. } | ShardEvent::Wanted { .. } | ShardEvent::Removed { .. } => {}
        });
        self.note_relayed(peer_id, now);
    }

    pub(super) fn peer_in(&mut self, slot: Slot) -> Option<&mut Peer> {
        let (network, node) = self.slots.peer(slot)?;
        self.networks.get_mut(&network)?.peers.get_mut(&node)
    }

    pub(super) fn slot(&self, (network, node): PeerId) -> Option<Slot> {
        Some(self.networks.get(&network)?.peers.get(&node)?.slot)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.timers.first().map(|(at, _)| *at);
        let ends = self.networks.values().filter_map(Network::end_deadline);
        peers.into_iter().chain(self.relay_deadline()).chain(ends).chain(self.beacon_deadline()).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, peer_id)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.remove(&(at, peer_id));
            self.timer_of.remove(&peer_id);
            self.with_peer(peer_id, now, |peer| peer.handle_timeout(now));
        }
        self.checks.forget_old(now);
        self.handle_relay_timeouts(now);
        self.handle_ends(now);
        self.handle_beacon_timeouts(now);
    }

    /// How many DDS participants this host has in each network, for its peers to know.
    pub(super) fn note_participants(&mut self, count: impl Fn(NetworkId) -> u16) {
        for network in self.networks.values_mut() {
            let count = count(network.id);
            if network.participants != count {
                network.participants = count;
                network.peers.values_mut().for_each(|peer| peer.set_participants(count));
            }
        }
    }

    pub(super) fn status(&self, now: Instant) -> Vec<NetworkStatus> {
        self.networks.values().map(|network| network.status(self.clock.as_ref(), now)).collect()
    }
}

/// Whom a handshake is with.
pub(super) enum Identified {
    /// The peer in this slot.
    Peer(Slot),
    /// Nobody yet: a reply of this length goes back.
    Cookie(usize),
}

/// The way that a datagram came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Via {
    /// The network whose relay brought it.
    pub(super) network: Option<NetworkId>,
    pub(super) address: Address,
}
