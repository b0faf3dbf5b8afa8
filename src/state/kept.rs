//! What the agent keeps for its coordinator, and hands back when that was restored from an older backup (see
//! [`ria_protocol::witness`]).

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::{Member, Patch, PatchSet, Revision, Snapshot};
use ria_protocol::message::from_bytes;
use ria_protocol::record::MemberRecord;
use ria_protocol::witness::{Epoch, Keep, Sealed, TOMBSTONES_KEPT, TOMBSTONES_PER_MESSAGE, Testimony};

/// Kept of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Kept {
    /// The epoch of the coordinator that the rest is of; absent while it has given nothing.
    #[n(0)]
    pub epoch: Option<Epoch>,
    /// Who this node is.
    #[n(1)]
    deed: Option<Sealed>,
    /// Who was removed, by node.
    #[n(2)]
    tombstones: BTreeMap<NodeId, Sealed>,
    /// How far the audit log had got.
    #[n(3)]
    audit: Option<Sealed>,
}

impl Kept {
    /// Takes what the coordinator gives; tells whether anything is new.
    pub fn take(&mut self, network: NetworkId, keep: Keep) -> bool {
        let before = self.clone();
        self.epoch = Some(keep.epoch);
        self.deed = keep.deed.or(self.deed.take());
        self.audit = keep.audit.or(self.audit.take());
        for sealed in keep.tombstones {
            if let Some(tombstone) = sealed.tombstone().filter(|tombstone| tombstone.network == network) {
                self.tombstones.insert(tombstone.node, sealed);
            }
        }
        while self.tombstones.len() > TOMBSTONES_KEPT {
            let age = |sealed: &Sealed| sealed.tombstone().map(|tombstone| tombstone.time);
            let oldest = self.tombstones.iter().min_by_key(|(_, sealed)| age(sealed)).map(|(node, _)| *node);
            oldest.and_then(|node| self.tombstones.remove(&node));
        }
        *self != before
    }

    /// What to hand back to a coordinator that is in this epoch: nothing in the one that is known.
    pub fn testimonies(&self, now: Option<Epoch>, revision: Option<Revision>) -> Vec<Testimony> {
        let Some(epoch) = self.epoch.filter(|epoch| now.is_some_and(|now| now != *epoch)) else {
            return Vec::new();
        };
        let all: Vec<Sealed> = self.tombstones.values().cloned().collect();
        let mut chunks = all.chunks(TOMBSTONES_PER_MESSAGE).map(<[_]>::to_vec).collect::<Vec<_>>();
        // Also without tombstones there is one, and the deed comes with the last.
        let last = chunks.pop().unwrap_or_default();
        let part = |tombstones| Testimony { epoch, revision, deed: None, tombstones, audit: None };
        let mut testimonies: Vec<_> = chunks.into_iter().map(part).collect();
        testimonies.push(Testimony { deed: self.deed.clone(), audit: self.audit.clone(), ..part(last) });
        testimonies
    }

    /// Whether a coordinator in this epoch is an older copy of the one that is known.
    pub fn is_outdated(&self, now: Option<Epoch>) -> bool {
        self.epoch.is_some_and(|known| now.map_or(1, |now| now.number) < known.number)
    }

    /// Leaves out members that were removed: what a coordinator has forgotten about them stays true.
    pub fn sift(&self, snapshot: &mut Snapshot) {
        snapshot.members.retain(|member| !self.has_buried(member));
    }

    /// The same for changes.
    pub fn sift_patches(&self, set: &mut PatchSet) {
        set.patches.retain(|patch| match patch {
            Patch::MemberSet(member) => !self.has_buried(member),
            Patch::NetworkChanged(_) | Patch::MemberRemoved(_) | Patch::PolicySet(_) => true,
        });
    }

    fn has_buried(&self, member: &Member) -> bool {
        !self.tombstones.is_empty()
            && from_bytes::<MemberRecord>(&member.record.bytes)
                .is_ok_and(|record| self.tombstones.contains_key(&record.node))
    }
}

#[cfg(test)]
mod tests {
    use ria_protocol::id::EpochId;
    use ria_protocol::time::UnixTime;
    use ria_protocol::witness::{SealingKey, Statement, Tombstone};

    use super::*;

    const NETWORK: NetworkId = NetworkId::from_bytes([1; 10]);

    fn epoch(number: u32) -> Epoch {
        Epoch { number, id: EpochId::from_bytes([7; 10]) }
    }

    fn tombstone(network: NetworkId, n: u16) -> Sealed {
        let [high, low] = n.to_be_bytes();
        let node = NodeId::from_bytes([high, low, 0, 0, 0, 0, 0, 0, 0, 0]);
        let tombstone = Tombstone { network, node, time: UnixTime(n.into()) };
        SealingKey::new(&[1; 32]).seal(&Statement::Tombstone(tombstone))
    }

    fn keep(number: u32, tombstones: Vec<Sealed>) -> Keep {
        Keep { epoch: epoch(number), deed: None, tombstones, audit: None }
    }

    #[test]
    fn tombstones_are_kept_for_ever_and_the_oldest_make_room() {
        let mut kept = Kept::default();
        assert!(kept.take(NETWORK, keep(1, vec![tombstone(NETWORK, 1)])));
        assert!(!kept.take(NETWORK, keep(1, vec![])), "nothing new");
        let elsewhere = NetworkId::from_bytes([2; 10]);
        assert!(!kept.take(NETWORK, keep(1, vec![tombstone(elsewhere, 2)])), "of another network");
        let many = u16::try_from(TOMBSTONES_KEPT).unwrap() + 1;
        kept.take(NETWORK, keep(1, (1..=many).map(|n| tombstone(NETWORK, n)).collect()));
        assert_eq!(kept.tombstones.len(), TOMBSTONES_KEPT);
        assert!(!kept.tombstones.values().any(|sealed| *sealed == tombstone(NETWORK, 1)));
    }

    #[test]
    fn another_epoch_is_told_everything_in_messages_that_fit() {
        let mut kept = Kept::default();
        assert!(kept.testimonies(Some(epoch(2)), None).is_empty(), "nothing is known");
        kept.take(NETWORK, keep(1, (0..1000).map(|n| tombstone(NETWORK, n)).collect()));
        assert!(kept.testimonies(Some(epoch(1)), None).is_empty(), "the epoch that is known");
        assert!(kept.testimonies(None, None).is_empty(), "a coordinator of version 1");
        let told = kept.testimonies(Some(epoch(2)), None);
        assert_eq!(
            told.iter().map(|testimony| testimony.tombstones.len()).collect::<Vec<_>>(),
            [400, 400, 200]
        );
    }

    #[test]
    fn an_older_copy_of_the_coordinator_is_known_by_its_epoch() {
        let mut kept = Kept::default();
        assert!(!kept.is_outdated(None) && !kept.is_outdated(Some(epoch(1))));
        kept.take(NETWORK, keep(2, vec![]));
        assert!(kept.is_outdated(None) && kept.is_outdated(Some(epoch(1))));
        assert!(!kept.is_outdated(Some(epoch(2))) && !kept.is_outdated(Some(epoch(3))));
    }
}
