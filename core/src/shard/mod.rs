//! A data shard: the sessions of its peers in both directions, the routes and filters of its networks.
//!
//! It owns everything that a packet needs and shares nothing with the control part, with which it exchanges messages
//! only. It knows nothing of maps, paths and relays but the one [`Route`] of each peer.

mod denials;
mod flows;
mod forward;
pub(crate) mod message;
pub(crate) mod parcel;
mod pending;
mod replicate;
mod slot;
mod stock;
mod unheld;
mod wanted;
pub(crate) mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use ria_protocol::id::NetworkId;

use crate::budget::Bucket;
use crate::counters::{DropCounters, DropReason};
use crate::filter::{Gate, Verdict};
use crate::ip::IpPacket;
use crate::lan::Lans;
use crate::marks::{self, Ecn};
use crate::mss;
use crate::multicast::Multicast;
use crate::packet::{DatagramBatch, PacketBatch, PacketSource};
use crate::routes::Routes;
use crate::session::HANDSHAKE_ROOM;
use forward::Refused;
use message::{Route, SLOT_BITS, ShardCommand, ShardEvent, Slot, place, within};
use slot::PeerSlot;
use wanted::Wanted;

struct ShardNetwork {
    mtu: usize,
    routes: Routes,
    filter: Gate,
    /// This node's own addresses.
    own: Vec<IpAddr>,
    icmp: Bucket,
    multicast: Multicast,
    /// The local networks behind this node, while there are any.
    lans: Option<Box<Lans>>,
    wanted: Wanted,
}

impl ShardNetwork {
    fn new(mtu: u16) -> Self {
        Self {
            mtu: usize::from(mtu),
            routes: Routes::default(),
            filter: Gate::default(),
            own: Vec::new(),
            icmp: Bucket::default(),
            multicast: Multicast::default(),
            lans: None,
            wanted: Wanted::default(),
        }
    }
}

/// Where what comes out of a datagram goes.
pub struct Sinks<'a> {
    /// Decrypted packets.
    pub tun: &'a mut PacketBatch,
    /// Answers.
    pub udp: &'a mut DatagramBatch,
}

/// A data shard.
#[derive(Default)]
pub(crate) struct Shard {
    /// Which one it is; the first is the packet thread's own.
    number: usize,
    networks: BTreeMap<NetworkId, ShardNetwork>,
    slots: Vec<Option<PeerSlot>>,
    /// Earliest deadline of any slot, or earlier.
    wake_at: Option<Instant>,
    /// Slots through which something passed in this batch.
    touched: Vec<Slot>,
    events: VecDeque<ShardEvent>,
    drops: DropCounters,
    /// Packets passed on between peers.
    forwarded: u64,
    /// Packets that waited here for somebody who has turned out to be in another shard.
    astray: VecDeque<(NetworkId, Vec<u8>)>,
}

impl Shard {
    /// One of several.
    pub(crate) fn new(number: usize) -> Self {
        Self { number, ..Self::default() }
    }

    /// The slot of a peer of this shard.
    fn slot_of(&self, index: usize) -> Slot {
        ((self.number << SLOT_BITS) | index) as Slot
    }

    /// The next packet for another shard.
    pub(crate) fn poll_astray(&mut self) -> Option<(NetworkId, Vec<u8>)> {
        self.astray.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<ShardEvent> {
        self.events.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Applies a command. Answers to handshakes and packets that waited go to `out`.
    pub(crate) fn handle_command(&mut self, command: ShardCommand, now: Instant, out: &mut DatagramBatch) {
        match command {
            ShardCommand::AddNetwork { network, mtu } => {
                self.networks.insert(network, ShardNetwork::new(mtu));
            }
            ShardCommand::RemoveNetwork(network) => {
                self.networks.remove(&network);
            }
            ShardCommand::SetRoutes { network, routes, own } => {
                if let Some(network) = self.networks.get_mut(&network) {
                    (network.routes, network.own) = (*routes, own);
                }
                self.send_wanted(network, now, out);
            }
            ShardCommand::SetLans { network, lans } => {
                if let Some(network) = self.networks.get_mut(&network) {
                    network.lans = Lans::new(&lans, network.mtu).map(Box::new);
                }
            }
            ShardCommand::SetWanted { network, prefixes } => self.set_wanted(network, prefixes),
            ShardCommand::SetAbsent { network, address } => self.handle_absent(network, address, now),
            ShardCommand::SetFilter { network, filter, .. } => {
                if let Some(network) = self.networks.get_mut(&network) {
                    network.filter = Gate::Custom(filter);
                }
            }
            ShardCommand::SetRules { network, rules, seed } => {
                if let Some(network) = self.networks.get_mut(&network) {
                    network.filter.set_rules(rules, seed, now);
                }
            }
            ShardCommand::SetMulticast { network, policy } => {
                if let Some(network) = self.networks.get_mut(&network) {
                    network.multicast.set_policy(*policy);
                }
            }
            ShardCommand::AddPeer { slot, network, node, session, conduct } => {
                let index = within(slot);
                if self.slots.len() <= index {
                    self.slots.resize_with(index + 1, || None);
                }
                let peer = PeerSlot::new(slot, (network, node), session, conduct);
                self.slots[index] = Some(if self.number == 0 { peer } else { peer.far() });
            }
            ShardCommand::RemovePeer(slot) => {
                let _ = self.slots.get_mut(place(self.number, slot)).and_then(Option::take);
                self.events.push_back(ShardEvent::Removed { slot });
            }
            ShardCommand::SetRoute { slot, route } => {
                self.with_slot(slot, now, out, |peer| peer.set_route(route, now));
            }
            ShardCommand::Rekey { slot, session, conduct } => {
                self.with_slot(slot, now, out, |peer| peer.rekey(session, conduct, now));
            }
            ShardCommand::ReplaceSession { slot, session, since } => {
                self.with_slot(slot, now, out, |peer| peer.replace_session(session, since, now));
            }
        }
    }

    /// Changes a peer, then does what follows from it: due handshakes, waiting packets, news for control.
    fn with_slot(
        &mut self,
        slot: Slot,
        now: Instant,
        out: &mut DatagramBatch,
        change: impl FnOnce(&mut PeerSlot),
    ) {
        let Some(Some(peer)) = self.slots.get_mut(place(self.number, slot)) else { return };
        change(peer);
        peer.work(now, out);
        for _ in 0..peer.flush(now, out) {
            self.drops.count(DropReason::NoPath);
        }
        if let Some(network) = self.networks.get_mut(&peer.network) {
            network.introduce(peer, now, out);
        }
        if let Some(ready) = peer.take_announcement() {
            let event = if ready { ShardEvent::SessionUp { slot } } else { ShardEvent::SessionDown { slot } };
            self.events.extend([event, ShardEvent::Traffic { slot, traffic: peer.traffic }]);
        }
        if peer.report_due(now) {
            self.events.extend(peer.take_report(now).map(|traffic| ShardEvent::Traffic { slot, traffic }));
        }
        lower(&mut self.wake_at, peer.deadline());
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, out: &mut DatagramBatch) {
        if self.wake_at.is_none_or(|at| at > now) {
            return;
        }
        self.wake_at = None;
        for index in 0..self.slots.len() {
            let deadline = self.slots.get(index).and_then(|peer| peer.as_ref()?.deadline());
            match deadline {
                Some(at) if at <= now => {
                    self.with_slot(self.slot_of(index), now, out, |_| {});
                }
                later => lower(&mut self.wake_at, later),
            }
        }
    }

    /// IP packets from a network's interface.
    pub(crate) fn handle_tun(
        &mut self,
        network: NetworkId,
        packets: impl PacketSource,
        now: Instant,
        out: &mut DatagramBatch,
    ) {
        // Put aside, since what it holds is lent to the packet on its way.
        let mut lans = self.networks.get_mut(&network).and_then(|network| network.lans.take());
        let unreadable = packets.drain(|packet| {
            let packet = match &mut lans {
                None => packet,
                Some(lans) => lans.leaving(packet),
            };
            if let Err(reason) = self.send_packet(network, packet, now, out) {
                self.drops.count(reason);
            }
        });
        if let Some(lans) = lans
            && let Some(network) = self.networks.get_mut(&network)
        {
            network.lans = Some(lans);
        }
        for _ in 0..unreadable {
            self.drops.count(DropReason::Malformed);
        }
        self.report_touched(now);
    }

    fn send_packet(
        &mut self,
        network: NetworkId,
        bytes: &[u8],
        now: Instant,
        out: &mut DatagramBatch,
    ) -> Result<(), DropReason> {
        let id = network;
        let network = self.networks.get_mut(&id).ok_or(DropReason::NoSuchNetwork)?;
        let packet = IpPacket::parse(bytes).ok_or(DropReason::Malformed)?;
        if bytes.len() > network.mtu {
            return Err(DropReason::TooLarge);
        }
        if packet.is_multicast() {
            let done = self.replicate(id, &packet, now, out);
            // All shards have it and come to the same verdict, which the first one counts.
            return if self.number == 0 { done } else { Ok(()) };
        }
        let Some(slot) = network.routes.lookup(packet.destination) else {
            return self.keep_for_unheld(id, packet.destination, bytes, now);
        };
        let peer = peer_at(&mut self.slots, place(self.number, slot)).ok_or(DropReason::NoRoute)?;
        if network.filter.outbound(&packet, peer.node, now) == Verdict::Deny {
            self.events.extend(peer.denials.note(&packet, true, slot, now));
            return Err(DropReason::FilteredOut);
        }
        network.multicast.overhear(&packet, now);
        if network.multicast.is_repeat(&packet, &peer.multicast, now) {
            return Err(DropReason::Damped);
        }
        peer.catch_up(now, out);
        let is_ready = peer.session.is_ready() && peer.route.is_some();
        let (mtu, mut displaced) = (network.mtu, 0);
        let taken = network.multicast.as_it_leaves(&packet, &network.own, |bytes| {
            if is_ready {
                return mss::with_clamped(bytes, mtu, |bytes| peer.seal(bytes, now, out));
            }
            displaced = peer.pending.push(bytes, now);
            true
        });
        if is_ready {
            touch(&mut self.touched, slot);
            return if taken { Ok(()) } else { Err(DropReason::BatchFull) };
        }
        for _ in 0..displaced {
            self.drops.count(DropReason::NoPath);
        }
        if peer.is_stock() {
            peer.want_session(now);
        }
        lower(&mut self.wake_at, peer.deadline());
        Ok(())
    }

    /// A WireGuard data message for one of this shard's peers. `direct` is where it came from, unless by a relay.
    pub(crate) fn handle_data(
        &mut self,
        slot: Slot,
        datagram: (&[u8], Ecn),
        direct: Option<Route>,
        now: Instant,
        sinks: &mut Sinks<'_>,
    ) {
        match self.receive_packet(slot, datagram, direct, now, sinks) {
            Ok(()) => touch(&mut self.touched, slot),
            Err(reason) => self.drops.count(reason),
        }
        if self.slots.get(place(self.number, slot)).and_then(Option::as_ref).is_some_and(PeerSlot::has_news) {
            self.with_slot(slot, now, sinks.udp, |_| {});
        }
    }

    fn receive_packet(
        &mut self,
        slot: Slot,
        (datagram, outer): (&[u8], Ecn),
        direct: Option<Route>,
        now: Instant,
        sinks: &mut Sinks<'_>,
    ) -> Result<(), DropReason> {
        let peer = peer_at(&mut self.slots, place(self.number, slot)).ok_or(DropReason::NoSuchSession)?;
        let network = self.networks.get_mut(&peer.network).ok_or(DropReason::NoSuchNetwork)?;
        peer.catch_up(now, sinks.udp);
        let packets = sinks.tun.network_mut(peer.network);
        let room = packets.reserve(datagram.len());
        let len = match peer.session.open(datagram, room) {
            Ok(len) => len,
            Err(reason) => {
                // One that is gone may have had the number of the present one.
                if matches!(reason, DropReason::NoSuchSession | DropReason::Unauthentic) {
                    peer.nudge(now, sinks.udp);
                }
                return Err(reason);
            }
        };
        if peer.is_stock()
            && let Some(route) = direct.filter(|route| peer.roam(*route))
        {
            self.events.push_back(ShardEvent::Roamed { slot, to: route.to });
        }
        peer.traffic.data = Some((now, direct.map(|route| route.to)));
        peer.handle_opened(len, now);
        if len == 0 {
            return Ok(());
        }
        let room = room.get_mut(..len).ok_or(DropReason::Malformed)?;
        if outer != Ecn::NotEct && !marks::carry_over(room, outer) {
            return Err(DropReason::Congested);
        }
        mss::clamp(room, network.mtu);
        let packet = IpPacket::parse(room).ok_or(DropReason::Malformed)?;
        if network.routes.lookup(packet.source) != Some(slot) {
            return Err(DropReason::WrongSource);
        }
        let from_stock = peer.is_stock();
        if len > network.mtu {
            if from_stock {
                network.refuse(&packet, Refused::TooLarge, peer, now, sinks.udp);
            }
            return Err(DropReason::TooLarge);
        }
        if network.filter.inbound(&packet, peer.node, now) == Verdict::Deny {
            self.events.extend(peer.denials.note(&packet, false, slot, now));
            return Err(DropReason::FilteredIn);
        }
        if packet.is_multicast() {
            // A stock peer has no multicast on its interface that it could mean.
            let accepted =
                if from_stock { Err(DropReason::Multicast) } else { network.multicast.accept(&packet) };
            accepted?;
        }
        network.multicast.listen(&packet, &mut peer.multicast, now);
        // The kernel of a machine that forwards would carry anything else on into its other networks.
        if network.is_for_us(&packet) {
            packets.commit(len);
            return Ok(());
        }
        if network.lans.as_ref().is_some_and(|lans| lans.enter(room)) {
            packets.commit(len);
            return Ok(());
        }
        self.forward(slot, room, now, sinks.udp)
    }

    /// A handshake message for one of this shard's peers; the answer goes back the way it came.
    pub(crate) fn handle_handshake(
        &mut self,
        slot: Slot,
        back: &Route,
        datagram: &[u8],
        now: Instant,
        out: &mut DatagramBatch,
    ) {
        let Some(Some(peer)) = self.slots.get_mut(place(self.number, slot)) else {
            self.drops.count(DropReason::NoSuchSession);
            return;
        };
        peer.catch_up(now, out);
        let mut reply = [0; HANDSHAKE_ROOM];
        match peer.session.handle_handshake(datagram, &mut reply) {
            Ok(len) => {
                let kind = datagram.first().copied().unwrap_or_default();
                // A cookie proves nothing of who sent it.
                if peer.is_stock() && kind != 3 && back.channel.is_none() && peer.roam(*back) {
                    self.events.push_back(ShardEvent::Roamed { slot, to: back.to });
                }
                if let Some(reply) = reply.get(..len.unwrap_or(0)) {
                    self.send_reply(back, reply, out);
                }
                self.with_slot(slot, now, out, |peer| peer.handle_handshake_taken(kind, now));
                touch(&mut self.touched, slot);
            }
            Err(reason) => self.drops.count(reason),
        }
    }

    /// Whether packets for a peer wait with the caller.
    pub(crate) fn set_waiting(&mut self, slot: Slot, waiting: bool) {
        if let Some(Some(peer)) = self.slots.get_mut(place(self.number, slot)) {
            peer.flows.set_waiting(waiting);
        }
    }

    /// Sends an answer that belongs to no peer's route.
    pub(crate) fn send_reply(&mut self, back: &Route, reply: &[u8], out: &mut DatagramBatch) {
        if reply.is_empty() {
            return;
        }
        let sent = slot::send_urgent(out, back, reply.len(), |room| {
            room.copy_from_slice(reply);
            Some(reply.len())
        });
        if !sent {
            self.drops.count(DropReason::BatchFull);
        }
    }

    /// Tells control what passed, at most so often. After each batch.
    pub(crate) fn report_touched(&mut self, now: Instant) {
        for slot in self.touched.drain(..) {
            let Some(Some(peer)) = self.slots.get_mut(place(self.number, slot)) else { continue };
            self.events.extend(peer.take_report(now).map(|traffic| ShardEvent::Traffic { slot, traffic }));
            lower(&mut self.wake_at, peer.deadline());
        }
    }
}

fn peer_at(slots: &mut [Option<PeerSlot>], index: usize) -> Option<&mut PeerSlot> {
    slots.get_mut(index).and_then(Option::as_mut)
}

fn lower(wake_at: &mut Option<Instant>, at: Option<Instant>) {
    if let Some(at) = at {
        *wake_at = Some(wake_at.map_or(at, |before| before.min(at)));
    }
}

fn touch(touched: &mut Vec<Slot>, slot: Slot) {
    // Packets come in runs; a slot that is listed twice is only reported twice.
    if touched.last() != Some(&slot) {
        touched.push(slot);
    }
}
