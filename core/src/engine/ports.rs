//! The shards but the first, as the engine sees them: it fills parcels for each and knows nothing of who carries them.
//!
//! ```text
//!            frames, datagrams, commands                poll_parcel
//!   engine ------------------------------> parcel  --------------------> worker's thread
//!      ^                                                                       |
//!      +------- events to control <------- the same parcel <-------------------+
//!                                          handle_parcel, recycle
//! ```
//!
//! Each shard has so many parcels and no more: when all are on their way, packets are dropped and counted, and commands wait.
//! Which shard something is for follows from its peer, and for a peer there is one shard, so order is kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use ria_protocol::id::NetworkId;

use crate::counters::{DropCounters, DropReason};
use crate::ip::IpPacket;
use crate::marks::Ecn;
use crate::packet::{Frame, PacketBatch};
use crate::routes::Routes;
use crate::shard::message::{Route, ShardCommand, Slot, shard_of};
use crate::shard::parcel::{Item, Parcel, frame_item};
use crate::shard::worker::{ShardReport, ShardWorker};

/// All shards but the first.
#[derive(Default)]
pub(super) struct Ports {
    ports: Vec<Port>,
    /// Which peer a packet from an interface is for.
    steering: BTreeMap<NetworkId, Routes>,
    /// Packets from shards that run within the engine.
    pub(super) to_interfaces: PacketBatch,
}

/// One of them.
struct Port {
    /// Until somebody else carries parcels to it.
    worker: Option<ShardWorker>,
    filling: Option<Box<Parcel>>,
    full: VecDeque<Box<Parcel>>,
    #[expect(clippy::vec_box, reason = "they change hands in their boxes")]
    spare: Vec<Box<Parcel>>,
    made: usize,
    /// What must not get lost, while there is no parcel for it.
    kept: VecDeque<Item>,
    /// Peers of which the shard was told that packets for them wait.
    waiting: BTreeSet<Slot>,
    report: ShardReport,
    /// Whether a report was asked for and has not come.
    asked: bool,
}

impl Port {
    fn new(number: usize) -> Self {
        Self {
            worker: Some(ShardWorker::new(number)),
            filling: None,
            full: VecDeque::new(),
            spare: Vec::new(),
            made: 0,
            kept: VecDeque::new(),
            waiting: BTreeSet::new(),
            report: ShardReport::default(),
            asked: false,
        }
    }

    /// A parcel with room for so many bytes, unless all are on their way.
    fn parcel(&mut self, len: usize) -> Option<&mut Parcel> {
        if self.filling.as_ref().is_some_and(|parcel| !parcel.has_room(len)) {
            self.full.extend(self.filling.take());
        }
        if self.filling.is_none() {
            let parcel = match self.spare.pop() {
                Some(parcel) => parcel,
                None if self.made < Parcel::MAX => {
                    self.made += 1;
                    Box::default()
                }
                None => return None,
            };
            self.filling = Some(parcel);
        }
        let parcel = self.filling.as_deref_mut()?;
        self.kept.drain(..).for_each(|item| parcel.push(item));
        Some(parcel)
    }

    /// What is said comes, before what follows it.
    fn tell(&mut self, item: Item) {
        match self.parcel(0) {
            Some(parcel) => parcel.push(item),
            None => self.kept.push_back(item),
        }
    }

    fn push(&mut self, item: Item, bytes: &[u8]) -> Result<(), DropReason> {
        self.parcel(bytes.len()).ok_or(DropReason::ThreadBusy)?.push_bytes(item, bytes);
        Ok(())
    }

    fn poll(&mut self) -> Option<Box<Parcel>> {
        self.full.pop_front().or_else(|| self.filling.take_if(|parcel| !parcel.is_empty()))
    }

    fn recycle(&mut self, mut parcel: Box<Parcel>) {
        if parcel.is_extra {
            return;
        }
        parcel.clear();
        self.spare.push(parcel);
        if !self.kept.is_empty() {
            self.parcel(0);
        }
    }
}

impl Ports {
    /// So many shards besides the first.
    pub(super) fn new(count: usize) -> Self {
        Self { ports: (1..=count).map(Port::new).collect(), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    pub(super) fn take_workers(&mut self) -> Vec<ShardWorker> {
        self.ports.iter_mut().filter_map(|port| port.worker.take()).collect()
    }

    fn port(&mut self, shard: usize) -> Option<&mut Port> {
        self.ports.get_mut(shard.checked_sub(1)?)
    }

    /// Takes what others than the first shard are told; returns what the first is.
    pub(super) fn tell(&mut self, command: ShardCommand) -> Option<ShardCommand> {
        if self.ports.is_empty() {
            return Some(command);
        }
        if let ShardCommand::SetRoutes { network, routes, .. } = &command {
            self.steering.insert(*network, (**routes).clone());
        } else if let ShardCommand::RemoveNetwork(network) = &command {
            self.steering.remove(network);
        }
        for port in &mut self.ports {
            match command.copy() {
                Some(copy) => port.tell(Item::Command(copy)),
                None => break,
            }
        }
        let Some(port) = self.port(command.shard()) else { return Some(command) };
        if let ShardCommand::RemovePeer(slot) = &command {
            port.waiting.remove(slot);
        }
        port.tell(Item::Command(command));
        None
    }

    /// Takes a frame from an interface that is for a peer of another shard than the first. What is for many goes to all: the
    /// first has it as well, and each copies it to its own peers.
    pub(super) fn take_frame(
        &mut self,
        network: NetworkId,
        frame: Frame<'_>,
        drops: &mut DropCounters,
    ) -> bool {
        let Some(packet) = IpPacket::parse(frame.packet()) else { return false };
        let bytes = frame.bytes();
        if packet.is_multicast() {
            for port in &mut self.ports {
                let _ = port.push(frame_item(network, frame), bytes).map_err(|reason| drops.count(reason));
            }
            return false;
        }
        let slot = self.steering.get(&network).and_then(|routes| routes.lookup(packet.destination));
        let Some(port) = slot.and_then(|slot| self.port(shard_of(slot))) else { return false };
        if let Err(reason) = port.push(frame_item(network, frame), bytes) {
            (0..frame.packets()).for_each(|_| drops.count(reason));
        }
        true
    }

    /// A data message for a peer of another shard than the first.
    pub(super) fn push_data(
        &mut self,
        slot: Slot,
        (data, ecn): (&[u8], Ecn),
        direct: Option<Route>,
    ) -> Result<(), DropReason> {
        let port = self.port(shard_of(slot)).ok_or(DropReason::NoSuchSession)?;
        port.push(Item::Data { slot, ecn, direct, len: data.len() }, data)
    }

    /// A handshake message for such a peer.
    pub(super) fn push_handshake(&mut self, slot: Slot, back: Route, data: &[u8]) -> Result<(), DropReason> {
        let port = self.port(shard_of(slot)).ok_or(DropReason::NoSuchSession)?;
        port.push(Item::Handshake { slot, back, len: data.len() }, data)
    }

    /// Tells a shard whether packets for a peer wait, when that is news.
    pub(super) fn set_waiting(&mut self, slot: Slot, waiting: bool) {
        let Some(port) = self.port(shard_of(slot)) else { return };
        let is_news = if waiting { port.waiting.insert(slot) } else { port.waiting.remove(&slot) };
        if is_news {
            port.tell(Item::Waiting(slot, waiting));
        }
    }

    /// The next parcel to be carried, and to which worker.
    pub(super) fn poll(&mut self) -> Option<(usize, Box<Parcel>)> {
        let carried = self.ports.iter_mut().enumerate().filter(|(_, port)| port.worker.is_none());
        carried.filter_map(|(worker, port)| Some((worker, port.poll()?))).next()
    }

    /// Runs a shard within the engine, when there is something for it.
    pub(super) fn run(&mut self, now: Instant) -> Option<(usize, Box<Parcel>)> {
        self.ports.iter_mut().enumerate().find_map(|(number, port)| {
            let worker = port.worker.as_mut()?;
            let parcel = port.full.pop_front().or_else(|| port.filling.take_if(|parcel| !parcel.is_empty()));
            let Some(mut parcel) = parcel else {
                return worker.handle_timeout(now).map(|parcel| (number, parcel));
            };
            worker.handle(&mut parcel, now);
            Some((number, parcel))
        })
    }

    /// When a shard within the engine has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ports.iter().filter_map(|port| port.worker.as_ref()?.poll_timeout()).min()
    }

    pub(super) fn note_report(&mut self, worker: usize, parcel: &mut Parcel) {
        if let (Some(port), Some(report)) = (self.ports.get_mut(worker), parcel.take_report()) {
            (port.report, port.asked) = (*report, false);
        }
    }

    /// A parcel is empty again.
    pub(super) fn recycle(&mut self, worker: usize, mut parcel: Box<Parcel>) {
        parcel.tun.retain(|network| self.steering.contains_key(network));
        if let Some(port) = self.ports.get_mut(worker) {
            port.recycle(parcel);
        }
    }

    /// Asks all shards to tell what only they know, unless that is on its way.
    pub(super) fn ask(&mut self) {
        for port in self.ports.iter_mut().filter(|port| !port.asked && port.worker.is_none()) {
            port.asked = true;
            port.tell(Item::Report);
        }
    }

    /// Whether all have told it.
    pub(super) fn have_told(&self) -> bool {
        self.ports.iter().all(|port| !port.asked)
    }

    /// What they have told last.
    pub(super) fn reports(&self, now: Instant) -> impl Iterator<Item = ShardReport> {
        self.ports.iter().map(move |port| match &port.worker {
            Some(worker) => worker.report(now),
            None => port.report.clone(),
        })
    }
}
