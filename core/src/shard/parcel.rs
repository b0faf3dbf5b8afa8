//! What goes to a shard that has a thread of its own, and what comes back of it, in one piece of memory that changes hands.
//!
//! ```text
//! packet thread --> commands, frames, datagrams --> shard --> datagrams, packets, events --> packet thread
//! ```
//!
//! What goes in is kept in order, commands among packets. The bytes are copied in once, since what arrives in a batch is for
//! any peers; after some rounds nothing is allocated any more.

use ria_protocol::id::NetworkId;

use super::message::{Route, ShardCommand, ShardEvent, Slot};
use super::worker::ShardReport;
use crate::marks::Ecn;
use crate::packet::{DatagramBatch, Frame, PacketBatch};

/// Bytes of frames and datagrams that are handed over together: a turn of the packet thread, some 0.2 ms of work.
const BYTES: usize = 256 << 10;

/// And how many, so that a flood of small ones is bounded as well.
const ITEMS: usize = 2048;

/// Something for a shard. Of packets, the bytes are beside it.
pub(crate) enum Item {
    Command(ShardCommand),
    /// Whether packets for the peer wait with the caller.
    Waiting(Slot, bool),
    /// Tell what only the shard knows.
    Report,
    /// From a network's interface.
    Frame {
        network: NetworkId,
        len: usize,
        virtio: bool,
    },
    /// A data message; `direct` is where it came from, unless by a relay.
    Data {
        slot: Slot,
        ecn: Ecn,
        direct: Option<Route>,
        len: usize,
    },
    Handshake {
        slot: Slot,
        back: Route,
        len: usize,
    },
}

/// Work for a shard in a thread of its own, or what came of it: see [`Engine::poll_parcel`](crate::Engine::poll_parcel).
#[derive(Default)]
pub struct Parcel {
    pub(super) items: Vec<Item>,
    pub(super) bytes: Vec<u8>,
    pub(super) events: Vec<ShardEvent>,
    pub(super) report: Option<Box<ShardReport>>,
    /// Whether the shard made it because something was due, and it is not one of those that go to and fro.
    pub(crate) is_extra: bool,
    /// Datagrams to be sent.
    pub udp: DatagramBatch,
    /// Packets for the interfaces.
    pub tun: PacketBatch,
}

impl Parcel {
    /// How many there are of a shard, unless it makes one by itself: enough that neither side waits for the other, few enough
    /// that what waits is not old.
    pub const MAX: usize = 8;

    /// Whether nothing is in it that the shard is to see.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether so many bytes more go with the rest. A first one always does.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.bytes.is_empty() || (self.bytes.len() + len <= BYTES && self.items.len() < ITEMS)
    }

    /// Adds something that has no bytes.
    pub(crate) fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    /// Adds something with its bytes.
    pub(crate) fn push_bytes(&mut self, item: Item, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.items.push(item);
    }

    /// What came of it for control.
    pub(crate) fn take_events(&mut self) -> impl Iterator<Item = ShardEvent> {
        self.events.drain(..)
    }

    pub(crate) fn take_report(&mut self) -> Option<Box<ShardReport>> {
        self.report.take()
    }

    /// Whether nothing came of it.
    pub(super) fn is_idle(&self) -> bool {
        self.events.is_empty() && self.report.is_none() && self.udp.is_empty() && self.tun.is_empty()
    }

    /// Forgets all that is in it and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.items.clear();
        self.bytes.clear();
        self.events.clear();
        self.report = None;
        self.udp.clear();
        self.tun.clear();
    }
}

/// How a frame is handed over.
pub(crate) fn frame_item(network: NetworkId, frame: Frame<'_>) -> Item {
    Item::Frame { network, len: frame.bytes().len(), virtio: matches!(frame, Frame::Virtio(_)) }
}
