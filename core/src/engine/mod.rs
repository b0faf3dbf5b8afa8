//! The engine: the control part, its data shards, and the door between them and the caller.
//!
//! ```text
//!            commands            events, status
//!               |                      ^
//!               v                      |
//!            +-------------------------------+        ShardCommand         +----------------+
//!            | control: map, relays, paths   | --------------------------> | shard 0..N     |
//!            | probes, link states           | <-------------------------- | sessions,      |
//!            +-------------------------------+         ShardEvent          | routes, filter |
//!               ^                      |                                   +----------------+
//!               |   STUN, TURN, probes |                                     ^            |
//!               |                      v            WireGuard                |            v
//!  handle_udp --+--------------------------------- messages ----------------+        datagrams
//!  handle_tun ----------------------------------- IP packets ----------------^        IP packets
//! ```
//!
//! The caller's loop: hand in what arrived with `handle_*`, then drain [`Engine::poll_transmit`] and
//! [`Engine::poll_event`], and call [`Engine::handle_timeout`] when [`Engine::poll_timeout`] says so.

mod beacons;
pub mod command;
mod control;
mod demand;
pub mod event;
mod ice;
mod network;
mod pings;
mod ports;
mod rekey;
mod relay;
mod relays;
mod roam;
mod settle;
mod slots;
mod spread;
pub mod status;
mod streams;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ria_protocol::id::NetworkId;

pub use command::{AddNetwork, Command, CommandError, PingId, PrivateKey, RelayServer, StreamNews};
pub use event::{Event, PingOutcome, Warning};
pub use network::DENIED_BY_POLICY;
pub use status::{
    CandidateType, ClockOffset, EngineStatus, LinkState, NetworkStatus, OwnStatus, PathKind, PeerStatus,
    RelayStatus,
};

use crate::counters::DropReason;
use crate::demux::{Kind, classify};
use crate::filter::Filter;
use crate::ice::Message;
use crate::marks::Ecn;
use crate::multicast::Clash;
use crate::packet::{
    Class, DatagramBatch, Destination, Frame, Lane, PacketBatch, PacketSource, Received, SocketIndex, Sorted,
    Treatment,
};
use crate::path::Address;
use crate::peer::clock::WallClock;
use crate::session::wireguard::WireGuard;
use crate::session::{HANDSHAKE_ROOM, SessionFactory};
use crate::shard::message::{MAX_SHARDS, Route, shard_of};
use crate::shard::parcel::Parcel;
use crate::shard::worker::{ShardReport, ShardWorker};
use crate::shard::{Shard, Sinks};
use crate::stun::canonical;
use control::{Control, ControlDatagram, Identified, Via};
use ports::Ports;
use relays::Relayed;

/// What an engine is made with.
pub struct EngineConfig {
    /// Seed of all randomness outside WireGuard's handshake; must come from the operating system's generator, since
    /// nonces of probes depend on it.
    pub seed: [u8; 32],
}

/// The engine. One per process and UDP port; serves several networks.
pub struct Engine {
    control: Control,
    /// The first shard, which runs where the engine does.
    shard: Shard,
    /// The others.
    ports: Ports,
}

impl Engine {
    /// An engine without networks.
    pub fn new(config: EngineConfig) -> Self {
        Self::with_sessions(config, Box::new(WireGuard))
    }

    /// An engine with other sessions than WireGuard's, for simulation.
    pub fn with_sessions(config: EngineConfig, sessions: Box<dyn SessionFactory>) -> Self {
        let control = Control::new(&config.seed, sessions);
        Self { control, shard: Shard::default(), ports: Ports::default() }
    }

    /// Spreads peers over so many shards, from 1 to 16; one unless this says otherwise. Before the first network is added. All
    /// run within the engine until [`Self::take_workers`].
    pub fn set_shards(&mut self, shards: usize) {
        let shards = shards.clamp(1, MAX_SHARDS);
        self.control.spread(shards);
        self.ports = Ports::new(shards - 1);
    }

    /// Takes out the shards but the first, to run each in a thread of its own: carry to it what [`Self::poll_parcel`] has for
    /// it, and what comes back to [`Self::handle_parcel`].
    pub fn take_workers(&mut self) -> Vec<ShardWorker> {
        self.ports.take_workers()
    }

    /// The next parcel to be carried, and to which of the workers, counted from 0. Call after each other call, until `None`.
    pub fn poll_parcel(&mut self) -> Option<(usize, Box<Parcel>)> {
        self.ports.poll()
    }

    /// A parcel comes back from a worker. Send and write what is in it next, then [recycle](Self::recycle) it.
    pub fn handle_parcel(&mut self, worker: usize, parcel: &mut Parcel, now: Instant) {
        for event in parcel.take_events() {
            self.control.handle_shard_event(event, now);
        }
        self.ports.note_report(worker, parcel);
    }

    /// Gives back a parcel that has come from a worker.
    pub fn recycle(&mut self, worker: usize, parcel: Box<Parcel>) {
        self.ports.recycle(worker, parcel);
    }

    /// Asks workers for what is in [`Self::status`] and only they know. It comes by parcels.
    pub fn ask_workers(&mut self) {
        self.ports.ask();
    }

    /// Whether that has come from all.
    pub fn have_workers_told(&self) -> bool {
        self.ports.have_told()
    }

    /// Applies a command.
    pub fn handle_command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        self.control.handle_command(command, now)
    }

    /// Whether datagrams bear the DSCP of the packets in them; they do unless this says otherwise.
    pub fn set_copies_dscp(&mut self, copies: bool) {
        self.control.copies_dscp = copies;
    }

    /// What this machine's wall clock shows now. Give it before datagrams and timeouts, so that peers are told the time as it
    /// is; without it, peers' clocks are not compared.
    pub fn set_wall_clock(&mut self, since_1970: Duration, now: Instant) {
        self.control.set_wall_clock(WallClock::read(now, since_1970), now);
    }

    /// Puts a filter in the place of a network's, for each shard one.
    pub fn set_filter(
        &mut self,
        network: NetworkId,
        filter: impl Fn() -> Box<dyn Filter>,
    ) -> Result<(), CommandError> {
        self.control.set_filter(network, filter)
    }

    /// IP packets that a network's interface sent. Encrypted ones are appended to `udp`.
    pub fn handle_tun(
        &mut self,
        network: NetworkId,
        packets: impl PacketSource,
        now: Instant,
        udp: &mut DatagramBatch,
    ) {
        self.catch_up(now, udp);
        if self.ports.is_empty() {
            self.shard.handle_tun(network, packets, now, udp);
        } else {
            let (ports, drops) = (&mut self.ports, &mut self.control.drops);
            let packets =
                Sorted { packets, elsewhere: |frame: Frame<'_>| ports.take_frame(network, frame, drops) };
            self.shard.handle_tun(network, packets, now, udp);
        }
        self.exchange(now, udp);
    }

    /// Datagrams that arrived at the UDP port. Decrypted packets are appended to `tun`, answers to `udp`.
    pub fn handle_udp<'a>(
        &mut self,
        datagrams: impl IntoIterator<Item = Received<'a>>,
        now: Instant,
        tun: &mut PacketBatch,
        udp: &mut DatagramBatch,
    ) {
        self.handle_udp_at(SocketIndex::MAIN, datagrams, now, Sinks { tun, udp });
    }

    /// Datagrams that arrived at one of the sockets or streams. Those beside the main socket are for relays alone. What
    /// arrives on a stream is from the address that it was wanted to.
    pub fn handle_udp_at<'a>(
        &mut self,
        socket: SocketIndex,
        datagrams: impl IntoIterator<Item = Received<'a>>,
        now: Instant,
        mut sinks: Sinks<'_>,
    ) {
        self.catch_up(now, sinks.udp);
        for datagram in datagrams {
            if let Err(reason) = self.handle_datagram(socket, &datagram, now, &mut sinks) {
                self.control.drops.count(reason);
            }
        }
        self.shard.report_touched(now);
        self.exchange(now, sinks.udp);
        if !self.ports.to_interfaces.is_empty() {
            sinks.tun.append(&self.ports.to_interfaces);
            self.ports.to_interfaces.clear();
        }
    }

    /// A datagram that arrived at the beacons' port, from anybody. What follows from it is sent by [`Self::poll_transmit`].
    pub fn handle_beacon(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) {
        if let Err(reason) = self.control.handle_beacon(from, datagram, now) {
            self.control.drops.count(reason);
        }
    }

    fn handle_datagram(
        &mut self,
        socket: SocketIndex,
        received: &Received<'_>,
        now: Instant,
        sinks: &mut Sinks<'_>,
    ) -> Result<(), DropReason> {
        let from = canonical(received.from);
        let local = received.local.map(|ip| ip.to_canonical());
        let kind = classify(received.data);
        let check = Message::parse(received.data).filter(|_| socket == SocketIndex::MAIN);
        if kind != Kind::Relay || check.is_some_and(|message| self.control.checks.concerns(&message)) {
            if socket != SocketIndex::MAIN {
                return Err(DropReason::Unknown);
            }
            let via = Via { network: None, address: Address::Direct(from) };
            let way = Way { via, local, ecn: received.ecn };
            return self.handle_payload(kind, received.data, &way, now, sinks);
        }
        let found = self.control.handle_relay_datagram((from, socket), received.data, now);
        let Some(Relayed { network, transport, peer, payload }) = found else { return Ok(()) };
        let via = Via { network: Some(network), address: Address::Relayed(transport, peer) };
        // The mark is that of the way from the relay, and the other end has not asked for one.
        let way = Way { via, local, ecn: Ecn::NotEct };
        self.handle_payload(classify(payload), payload, &way, now, sinks)
    }

    /// A datagram of ours or of WireGuard's, which came straight or through a relay.
    fn handle_payload(
        &mut self,
        kind: Kind,
        payload: &[u8],
        way: &Way,
        now: Instant,
        sinks: &mut Sinks<'_>,
    ) -> Result<(), DropReason> {
        match kind {
            Kind::Session { slot, data: true } => {
                let direct = match way.via.address {
                    Address::Direct(_) => self.back(way),
                    Address::Relayed(..) => None,
                };
                if shard_of(slot) > 0 {
                    return self.ports.push_data(slot, (payload, way.ecn), direct);
                }
                self.shard.handle_data(slot, (payload, way.ecn), direct, now, sinks);
                Ok(())
            }
            Kind::Session { slot, data: false } => {
                let back = self.back(way).ok_or(DropReason::NoPath)?;
                if shard_of(slot) > 0 {
                    return self.ports.push_handshake(slot, back, payload);
                }
                self.shard.handle_handshake(slot, &back, payload, now, sinks.udp);
                Ok(())
            }
            Kind::Initiation => self.handle_initiation(payload, way, now, sinks.udp),
            Kind::Probe => self.control.handle_probe(payload, way.via, way.local, now),
            // Else than checks: a relay inside a relay is nobody's wish.
            Kind::Relay => {
                let message = Message::parse(payload).ok_or(DropReason::Unknown)?;
                self.control.handle_check((&message, payload), way.via, way.local, now)
            }
            Kind::Unknown => Err(DropReason::Unknown),
        }
    }

    fn handle_initiation(
        &mut self,
        datagram: &[u8],
        way: &Way,
        now: Instant,
        udp: &mut DatagramBatch,
    ) -> Result<(), DropReason> {
        let back = self.back(way).ok_or(DropReason::NoPath)?;
        let mut reply = [0; HANDSHAKE_ROOM];
        match self.control.identify(datagram, way.via.address.socket().ip(), now, &mut reply)? {
            Identified::Peer(slot) if shard_of(slot) > 0 => {
                return self.ports.push_handshake(slot, back, datagram);
            }
            Identified::Peer(slot) => self.shard.handle_handshake(slot, &back, datagram, now, udp),
            Identified::Cookie(len) => {
                self.shard.send_reply(&back, reply.get(..len).unwrap_or_default(), udp)
            }
        }
        Ok(())
    }

    /// How to answer what came this way.
    fn back(&self, way: &Way) -> Option<Route> {
        let rtt = Duration::ZERO;
        match (way.via.address, way.via.network) {
            (Address::Direct(to), _) => Some(Route::direct(to, way.local, rtt)),
            (Address::Relayed(transport, to), Some(network)) => {
                self.control.relayed_route(network, (transport, to), rtt)
            }
            (Address::Relayed(..), None) => None,
        }
    }

    /// What a command decided holds for the very next packet.
    fn catch_up(&mut self, now: Instant, udp: &mut DatagramBatch) {
        if !self.control.to_shard.is_empty() {
            self.exchange(now, udp);
        }
    }

    /// Passes messages between control and shards until there are none, then takes the control part's datagrams.
    fn exchange(&mut self, now: Instant, udp: &mut DatagramBatch) {
        loop {
            while let Some(command) = self.control.to_shard.pop_front() {
                if let Some(command) = self.ports.tell(command) {
                    self.shard.handle_command(command, now, udp);
                }
            }
            while let Some((network, packet)) = self.shard.poll_astray() {
                self.ports.take_frame(network, Frame::Plain(&packet), &mut self.control.drops);
            }
            self.shard.handle_timeout(now, udp);
            while let Some((worker, mut parcel)) = self.ports.run(now) {
                self.handle_parcel(worker, &mut parcel, now);
                for _ in 0..udp.append(&parcel.udp) {
                    self.control.drops.count(DropReason::BatchFull);
                }
                self.ports.to_interfaces.append(&parcel.tun);
                self.recycle(worker, parcel);
            }
            while let Some(event) = self.shard.poll_event() {
                self.control.handle_shard_event(event, now);
            }
            if self.control.to_shard.is_empty() {
                break;
            }
        }
        while let Some(datagram) = self.control.outbox.pop_front() {
            let ControlDatagram { to, from, socket, class, bytes } = datagram;
            let (lane, treatment) = (Lane::default(), Treatment::default());
            let destination = Destination { to, from, socket, class, lane, treatment };
            let copied = udp.push_to(destination, bytes.len(), |room| {
                room.copy_from_slice(&bytes);
                Some(bytes.len())
            });
            if !copied {
                self.control.drops.count(DropReason::BatchFull);
            }
        }
    }

    /// How many bytes of this class may be given to the kernel for a peer now. A pace is kept on paths whose queues fill up,
    /// so that what waits, waits with the caller.
    pub fn allowance(&mut self, lane: Lane, class: Class, now: Instant) -> usize {
        let Some(slot) = lane.0 else { return usize::MAX };
        self.control.peer_in(slot).map_or(usize::MAX, |peer| peer.allowance(class, now))
    }

    /// Whether bulk packets for a peer wait with the caller: then a flow does not change its class, which would reorder it.
    pub fn set_waiting(&mut self, lane: Lane, waiting: bool) {
        match lane.0 {
            None => {}
            Some(slot) if shard_of(slot) > 0 => self.ports.set_waiting(slot, waiting),
            Some(slot) => self.shard.set_waiting(slot, waiting),
        }
    }

    /// So many bytes have been given to the kernel for a peer. Returns whether something follows that
    /// [`Self::poll_transmit`] has, and that is to be sent right behind them.
    pub fn handle_sent(&mut self, lane: Lane, bytes: usize, now: Instant) -> bool {
        let Some(slot) = lane.0 else { return false };
        let asks = self.control.peer_in(slot).is_some_and(|peer| peer.handle_sent(bytes, now));
        if asks && let Some(peer) = self.control.slots.peer(slot) {
            self.control.with_peer(peer, now, |peer| peer.ask_queue(now));
        }
        asks
    }

    /// When to call [`Self::handle_timeout`] at the latest; `None` means not before something else happens. May change
    /// with any other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let parts = [self.control.poll_timeout(), self.shard.poll_timeout(), self.ports.poll_timeout()];
        parts.into_iter().flatten().min()
    }

    /// Time has passed. Call [`Self::poll_transmit`] next: it sends what became due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let shard = &self.shard;
        self.control.note_participants(|network| shard.own_participants(network, now));
        self.control.handle_timeout(now);
    }

    /// Appends all waiting datagrams (probes, handshakes, STUN, TURN) to `udp`. Call it after each other call that has no
    /// `udp` of its own, and before [`Self::poll_timeout`].
    pub fn poll_transmit(&mut self, now: Instant, udp: &mut DatagramBatch) {
        self.exchange(now, udp);
    }

    /// The next event; call until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.control.events.pop_front()
    }

    /// The state of everything; of what only workers know, as they have told last.
    pub fn status(&self, now: Instant) -> EngineStatus {
        let mut drops = self.control.drops;
        let mut networks = self.control.status(now);
        let mut forwarded = 0;
        for report in std::iter::once(self.shard.report(now)).chain(self.ports.reports(now)) {
            drops.add(&report.drops);
            forwarded += report.forwarded;
            self.add_report(&mut networks, report);
        }
        EngineStatus { networks, drops, forwarded }
    }

    fn add_report(&self, networks: &mut [NetworkStatus], mut report: ShardReport) {
        for network in networks {
            Clash::merge(&mut network.clashes, report.clashes.remove(&network.id).unwrap_or_default());
            for peer in &mut network.peers {
                let slot = self.control.slot((network.id, peer.node));
                peer.participants_seen +=
                    slot.and_then(|slot| report.participants.remove(&slot)).unwrap_or(0);
            }
        }
    }
}

/// The way that a datagram came.
struct Way {
    via: Via,
    local: Option<IpAddr>,
    ecn: Ecn,
}
