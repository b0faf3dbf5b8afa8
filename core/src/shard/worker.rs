//! A shard with all that is needed to run it in a thread of its own. It keeps no clock and does not wait; the thread does.

use std::collections::BTreeMap;
use std::time::Instant;

use ria_protocol::id::NetworkId;

use super::message::Slot;
use super::parcel::{Item, Parcel};
use super::{Shard, Sinks};
use crate::counters::DropCounters;
use crate::multicast::Clash;
use crate::offload::segment;
use crate::packet::{Frame, PacketSource};

/// What only a shard knows, for the status.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShardReport {
    pub(crate) drops: DropCounters,
    /// Packets passed on between peers.
    pub(crate) forwarded: u64,
    /// What this host and peers have and only one should.
    pub(crate) clashes: BTreeMap<NetworkId, Vec<Clash>>,
    /// How many DDS participants of which peer are heard here.
    pub(crate) participants: BTreeMap<Slot, usize>,
}

impl Shard {
    pub(crate) fn report(&self, now: Instant) -> ShardReport {
        let networks = self.networks.keys();
        let peers = self.slots.iter().flatten();
        ShardReport {
            drops: self.drops,
            forwarded: self.forwarded,
            clashes: networks.map(|network| (*network, self.clashes(*network, now))).collect(),
            participants: peers.map(|peer| (peer.slot(), peer.multicast.participants(now))).collect(),
        }
    }
}

/// A shard on its own: does what is in parcels. Made by [`Engine::take_workers`](crate::Engine::take_workers).
pub struct ShardWorker {
    shard: Shard,
    /// For what comes of time alone.
    spare: Option<Box<Parcel>>,
}

impl ShardWorker {
    pub(crate) fn new(number: usize) -> Self {
        Self { shard: Shard::new(number), spare: None }
    }

    pub(crate) fn report(&self, now: Instant) -> ShardReport {
        self.shard.report(now)
    }

    /// When to call [`Self::handle_timeout`] at the latest, unless a parcel comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.shard.poll_timeout()
    }

    /// Does all that is in a parcel, in its order; what comes of it is in the parcel when this returns, for
    /// [`Engine::handle_parcel`](crate::Engine::handle_parcel).
    pub fn handle(&mut self, parcel: &mut Parcel, now: Instant) {
        let shard = &mut self.shard;
        let Parcel { items, bytes, report, udp, tun, .. } = parcel;
        let mut rest = &mut bytes[..];
        for item in items.drain(..) {
            match item {
                Item::Command(command) => shard.handle_command(command, now, udp),
                Item::Waiting(slot, waiting) => shard.set_waiting(slot, waiting),
                Item::Report => *report = Some(Box::new(shard.report(now))),
                Item::Frame { network, len, virtio } => {
                    let frame = OneFrame { bytes: take(&mut rest, len), virtio };
                    shard.handle_tun(network, frame, now, udp);
                }
                Item::Data { slot, ecn, direct, len } => {
                    let datagram = (&*take(&mut rest, len), ecn);
                    shard.handle_data(slot, datagram, direct, now, &mut Sinks { tun, udp });
                }
                Item::Handshake { slot, back, len } => {
                    shard.handle_handshake(slot, &back, take(&mut rest, len), now, udp);
                }
            }
        }
        bytes.clear();
        self.finish(parcel, now);
    }

    /// Time has passed: does what is due. What came of it, if anything, is for
    /// [`Engine::handle_parcel`](crate::Engine::handle_parcel).
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Box<Parcel>> {
        let mut parcel = self.spare.take().unwrap_or_default();
        self.finish(&mut parcel, now);
        if parcel.is_idle() {
            self.spare = Some(parcel);
            return None;
        }
        parcel.is_extra = true;
        Some(parcel)
    }

    fn finish(&mut self, parcel: &mut Parcel, now: Instant) {
        self.shard.report_touched(now);
        self.shard.handle_timeout(now, &mut parcel.udp);
        while let Some(event) = self.shard.poll_event() {
            parcel.events.push(event);
        }
    }
}

/// The first `len` bytes of what is left.
fn take<'a>(rest: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    rest.split_off_mut(..len).unwrap_or_default()
}

struct OneFrame<'a> {
    bytes: &'a mut [u8],
    virtio: bool,
}

impl PacketSource for OneFrame<'_> {
    fn drain_but(self, mut elsewhere: impl FnMut(Frame<'_>) -> bool, mut each: impl FnMut(&[u8])) -> usize {
        if !self.virtio {
            if !elsewhere(Frame::Plain(self.bytes)) {
                each(self.bytes);
            }
            return 0;
        }
        usize::from(!elsewhere(Frame::Virtio(self.bytes)) && segment(self.bytes, each).is_err())
    }
}
