//! Which peer has which slot of the shard.

use std::collections::VecDeque;

use ria_protocol::id::{NetworkId, NodeId};

use crate::shard::MAX_SLOTS;
use crate::shard::message::Slot;

/// Names a peer of this node.
pub(super) type PeerId = (NetworkId, NodeId);

/// The slots of a shard.
#[derive(Debug, Default)]
pub(super) struct Slots {
    used: Vec<Option<PeerId>>,
    /// The one that has been free for longest is taken first, so that late messages for a peer that is gone find nobody.
    free: VecDeque<Slot>,
}

impl Slots {
    /// A slot for a peer; `None` when the shard is full.
    pub(super) fn take(&mut self, peer: PeerId) -> Option<Slot> {
        let next = Slot::try_from(self.used.len()).ok().filter(|_| self.used.len() < MAX_SLOTS);
        let slot = if self.free.len() > KEPT_FREE || next.is_none() { self.free.pop_front() } else { None };
        let slot = slot.or(next)?;
        if self.used.len() <= slot as usize {
            self.used.push(None);
        }
        *self.used.get_mut(slot as usize)? = Some(peer);
        Some(slot)
    }

    pub(super) fn release(&mut self, slot: Slot) {
        if self.used.get_mut(slot as usize).and_then(Option::take).is_some() {
            self.free.push_back(slot);
        }
    }

    pub(super) fn peer(&self, slot: Slot) -> Option<PeerId> {
        *self.used.get(slot as usize)?
    }
}

/// Free slots that rest before one is used again.
const KEPT_FREE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_slot_rests_before_it_is_used_again() {
        let peer = (NetworkId::from_bytes([1; 10]), NodeId::from_bytes([2; 10]));
        let mut slots = Slots::default();
        let first = slots.take(peer).unwrap();
        slots.release(first);
        assert_eq!(slots.peer(first), None);
        assert_ne!(slots.take(peer), Some(first));
        for _ in 0..100 {
            let slot = slots.take(peer).unwrap();
            slots.release(slot);
        }
        assert!(slots.used.len() <= KEPT_FREE + 3);
    }
}
