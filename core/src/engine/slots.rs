//! Which peer has which slot of which shard.

use std::collections::VecDeque;

use ria_protocol::id::{NetworkId, NodeId};

use crate::shard::message::{MAX_SHARDS, MAX_SLOTS, SLOT_BITS, Slot, shard_of, within};

/// Names a peer of this node.
pub(super) type PeerId = (NetworkId, NodeId);

/// Where a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the shard that has the fewest.
    Any,
    /// In the first.
    First,
}

/// The slots of all shards.
#[derive(Debug)]
pub(super) struct Slots {
    shards: Vec<Shelf>,
}

/// Those of one.
#[derive(Debug, Default)]
struct Shelf {
    used: Vec<Option<PeerId>>,
    /// The one that has been free for longest is taken first, so that late messages for a peer that is gone find nobody.
    free: VecDeque<Slot>,
    peers: usize,
}

impl Slots {
    /// Of so many shards, one at least.
    pub(super) fn new(shards: usize) -> Self {
        Self { shards: (0..shards.clamp(1, MAX_SHARDS)).map(|_| Shelf::default()).collect() }
    }

    /// How many shards there are.
    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// A slot for a peer; `None` when there is none left.
    pub(super) fn take(&mut self, peer: PeerId, place: Place) -> Option<Slot> {
        let among = if place == Place::First { 1 } else { self.shards.len() };
        let shelves = self.shards.iter_mut().take(among).enumerate();
        let (shard, shelf) = shelves.min_by_key(|(_, shelf)| shelf.peers)?;
        let number = u32::try_from(shard).ok()? << SLOT_BITS;
        let next = Slot::try_from(shelf.used.len()).ok().filter(|_| shelf.used.len() < MAX_SLOTS);
        let next = next.map(|next| number | next);
        let slot = if shelf.free.len() > KEPT_FREE || next.is_none() { shelf.free.pop_front() } else { None };
        let slot = slot.or(next)?;
        if shelf.used.len() <= within(slot) {
            shelf.used.push(None);
        }
        *shelf.used.get_mut(within(slot))? = Some(peer);
        shelf.peers += 1;
        Some(slot)
    }

    /// The peer is gone. What its shard still tells of it concerns nobody; the slot is free once it [tells](Self::free) that
    /// nothing more comes.
    pub(super) fn release(&mut self, slot: Slot) {
        if let Some(shelf) = self.shards.get_mut(shard_of(slot))
            && shelf.used.get_mut(within(slot)).and_then(Option::take).is_some()
        {
            shelf.peers = shelf.peers.saturating_sub(1);
        }
    }

    pub(super) fn free(&mut self, slot: Slot) {
        if let Some(shelf) = self.shards.get_mut(shard_of(slot)) {
            shelf.free.push_back(slot);
        }
    }

    pub(super) fn peer(&self, slot: Slot) -> Option<PeerId> {
        *self.shards.get(shard_of(slot))?.used.get(within(slot))?
    }
}

/// Free slots that rest before one is used again.
const KEPT_FREE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = (NetworkId::from_bytes([1; 10]), NodeId::from_bytes([2; 10]));

    #[test]
    fn a_freed_slot_rests_before_it_is_used_again() {
        let mut slots = Slots::new(1);
        let first = slots.take(PEER, Place::Any).unwrap();
        slots.release(first);
        assert_eq!(slots.peer(first), None);
        assert_ne!(slots.take(PEER, Place::Any), Some(first), "its shard may still speak of it");
        slots.free(first);
        for _ in 0..100 {
            let slot = slots.take(PEER, Place::Any).unwrap();
            slots.release(slot);
            slots.free(slot);
        }
        assert!(slots.shards[0].used.len() <= KEPT_FREE + 4);
    }

    #[test]
    fn each_peer_goes_where_the_fewest_are() {
        let mut slots = Slots::new(3);
        let taken: Vec<Slot> = (0..6).filter_map(|_| slots.take(PEER, Place::Any)).collect();
        assert_eq!(taken.iter().map(|slot| shard_of(*slot)).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        assert!(taken.iter().all(|slot| slots.peer(*slot) == Some(PEER)));
        slots.release(taken[4]);
        assert_eq!(slots.take(PEER, Place::Any).map(shard_of), Some(1));
        assert_eq!(slots.take(PEER, Place::First).map(shard_of), Some(0));
        assert_eq!(slots.peer(15 << SLOT_BITS), None, "of a shard that is not there");
    }
}
