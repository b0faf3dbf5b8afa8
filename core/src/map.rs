//! The network map as one node holds it: snapshots and patches folded into members, with the changes that came of it.
//!
//! A pure value without effects; it is told the time. A member whose record is refused (not signed in a locked network,
//! ended) is left out and reported; it is kept aside, since a change of the lock keys can make it good. One whose record
//! can't be read at all, or is of another network, is left out with whatever was known of it before: the coordinator has
//! said that this holds no longer.
//!
//! A member with which the policy lets nothing pass is no peer either: `denied` tells of it, and `members` does not.

mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::{Member, MemberKind, NetworkInfo, Patch, PatchSet, Revision, Snapshot, StockPeer};
use ria_protocol::message::from_bytes;
use ria_protocol::name::Name;
use ria_protocol::policy::NodePolicy;
use ria_protocol::record::{MemberRecord, RecordError};
use ria_protocol::time::UnixTime;

use crate::filter::Rules;

/// A member in good standing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapMember {
    /// What its record says.
    pub record: MemberRecord,
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: MemberKind,
    /// How a static peer is talked to.
    pub stock: Option<StockPeer>,
}

/// What a snapshot or patch changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapChange {
    /// The network's settings.
    Network,
    /// This member is new.
    Added(NodeId),
    /// This member is another than before.
    Changed(NodeId),
    /// This member is gone.
    Removed(NodeId),
}

/// A member was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name, as the map says.
    pub name: Name,
    /// Why.
    pub reason: RecordError,
}

/// What came of a snapshot or of patches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folded {
    /// What is different now, each thing once.
    pub changes: Vec<MapChange>,
    /// Members that are newly left out.
    pub refused: Vec<Refused>,
    /// Whether the policy, put together with the members, allows something else now.
    pub rules: bool,
}

/// Patches don't follow what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevisionGap {
    /// The map's revision.
    pub have: Option<Revision>,
}

/// A snapshot or patch is of another network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherNetwork(pub NetworkId);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    member: Member,
    /// The same, read and checked.
    checked: Result<MapMember, RecordError>,
    /// Whether the policy lets nothing pass between it and this node.
    denied: bool,
}

impl Held {
    /// The member, when it is one that this node may have to do with.
    fn good(&self) -> Option<&MapMember> {
        self.checked.as_ref().ok().filter(|_| !self.denied)
    }
}

/// The map of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkMap {
    network: NetworkId,
    state: Option<(Revision, NetworkInfo)>,
    members: BTreeMap<NodeId, Held>,
    /// The coordinator's time as told last; the beginning of time before that, so that nobody has ended.
    time: UnixTime,
    /// By how many seconds it may be later than that.
    doubt: u64,
    /// This node, which no policy hides from itself.
    own: Option<NodeId>,
    policy: Option<NodePolicy>,
    /// The policy for the members of now; absent where everything is allowed.
    rules: Option<Arc<Rules>>,
}

impl NetworkMap {
    /// A map of which nothing is known yet.
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            state: None,
            members: BTreeMap::new(),
            time: UnixTime::default(),
            doubt: 0,
            own: None,
            policy: None,
            rules: None,
        }
    }

    /// The same as this node holds it.
    pub fn of(self, own: NodeId) -> Self {
        Self { own: Some(own), ..self }
    }

    /// Its revision.
    pub fn revision(&self) -> Option<Revision> {
        self.state.as_ref().map(|(revision, _)| *revision)
    }

    /// The network's settings.
    pub fn info(&self) -> Option<&NetworkInfo> {
        self.state.as_ref().map(|(_, info)| info)
    }

    /// A member in good standing.
    pub fn member(&self, node: NodeId) -> Option<&MapMember> {
        self.members.get(&node)?.good()
    }

    /// Whether there is such a member, in good standing or not.
    pub fn lists(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    /// All members, in good standing or not.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All members in good standing, in order of their id.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &MapMember)> {
        self.members.iter().filter_map(|(node, held)| Some((*node, held.good()?)))
    }

    /// Members that are listed and left out, each with the reason.
    pub fn left_out(&self) -> impl Iterator<Item = (NodeId, &Member, RecordError)> {
        self.members
            .iter()
            .filter_map(|(node, held)| Some((*node, &held.member, held.checked.as_ref().err()?)))
            .map(|(node, member, reason)| (node, member, *reason))
    }

    /// When the next membership ends, or a rule begins or ends to hold.
    pub fn next_end(&self) -> Option<UnixTime> {
        let members = self.members().filter_map(|(_, member)| member.record.expires).min();
        members.into_iter().chain(self.next_turn()).min()
    }

    /// By how many seconds it may be later than the time that is told next: what has to end in time then ends so much
    /// earlier.
    pub fn set_doubt(&mut self, seconds: u64) {
        self.doubt = seconds;
    }

    /// It is this time at the coordinator.
    pub fn set_time(&mut self, time: UnixTime) -> Folded {
        let before = self.clone();
        self.time = time;
        let refused = self.check_again();
        self.put_together();
        Folded { changes: self.changes_since(&before), refused, rules: self.rules != before.rules }
    }

    /// The whole state is this.
    pub fn apply_snapshot(&mut self, snapshot: &Snapshot) -> Result<Folded, OtherNetwork> {
        if snapshot.network.id != self.network {
            return Err(OtherNetwork(snapshot.network.id));
        }
        let mut next = Self::new(self.network);
        (next.time, next.doubt, next.own) = (self.time, self.doubt, self.own);
        next.policy.clone_from(&snapshot.policy);
        next.state = Some((snapshot.revision, snapshot.network.clone()));
        let mut refused = Vec::new();
        for member in &snapshot.members {
            refused.extend(next.set(member.clone()));
        }
        next.put_together();
        let rules = next.rules != self.rules;
        let folded = Folded { changes: next.changes_since(self), refused, rules };
        *self = next;
        Ok(folded)
    }

    /// Changes that lead from the revision that is there to the next. On an error nothing has changed.
    pub fn apply_patches(&mut self, set: &PatchSet) -> Result<Folded, RevisionGap> {
        let have = self.revision();
        if have != Some(set.from) {
            return Err(RevisionGap { have });
        }
        let before = self.clone();
        let mut refused = Vec::new();
        for patch in &set.patches {
            match patch {
                Patch::NetworkChanged(info) if info.id == self.network => {
                    self.state = Some((set.to, info.clone()));
                    refused.extend(self.check_again());
                }
                Patch::NetworkChanged(_) => {}
                Patch::MemberSet(member) => refused.extend(self.set(member.clone())),
                Patch::MemberRemoved(node) => {
                    self.members.remove(node);
                }
                Patch::PolicySet(policy) => self.policy = Some(policy.clone()),
            }
        }
        if let Some((revision, _)) = &mut self.state {
            *revision = set.to;
        }
        self.put_together();
        let rules = self.rules != before.rules;
        Ok(Folded { changes: self.changes_since(&before), refused, rules })
    }

    fn check(&self, member: &Member) -> Result<MapMember, RecordError> {
        let lock_keys = self.info().map_or(&[][..], |info| &info.lock_keys);
        let record = member.record.open(self.network, lock_keys)?;
        if record.expires.is_some_and(|end| end <= self.time) {
            return Err(RecordError::Expired);
        }
        Ok(MapMember { record, name: member.name.clone(), kind: member.kind, stock: member.stock.clone() })
    }

    /// Takes a member; returns it when it is refused.
    fn set(&mut self, member: Member) -> Option<Refused> {
        let refused = |reason| Refused { name: member.name.clone(), reason };
        // Who it is must be known even when it is refused for its signature.
        let node = match member.record.open(self.network, &[]) {
            Ok(record) => record.node,
            Err(reason) => {
                let node = from_bytes::<MemberRecord>(&member.record.bytes).ok().map(|record| record.node);
                self.members.retain(|other, held| Some(*other) != node && held.member.name != member.name);
                return Some(refused(reason));
            }
        };
        let checked = self.check(&member);
        let report = checked.as_ref().err().map(|reason| refused(*reason));
        self.members.insert(node, Held { member, checked, denied: false });
        report
    }

    /// Checks all members against the lock keys and the time as they are now; returns those that were good before.
    fn check_again(&mut self) -> Vec<Refused> {
        let mut refused = Vec::new();
        let nodes: Vec<NodeId> = self.members.keys().copied().collect();
        for node in nodes {
            let Some(held) = self.members.get(&node) else { continue };
            let checked = self.check(&held.member);
            if let (Ok(before), Err(reason)) = (&held.checked, &checked) {
                refused.push(Refused { name: before.name.clone(), reason: *reason });
            }
            if let Some(held) = self.members.get_mut(&node) {
                held.checked = checked;
            }
        }
        refused
    }

    fn changes_since(&self, before: &Self) -> Vec<MapChange> {
        let mut changes = Vec::new();
        if self.info() != before.info() {
            changes.push(MapChange::Network);
        }
        let removed = before.members().filter(|(node, _)| self.member(*node).is_none());
        changes.extend(removed.map(|(node, _)| MapChange::Removed(node)));
        for (node, member) in self.members() {
            match before.member(node) {
                None => changes.push(MapChange::Added(node)),
                Some(old) if old != member => changes.push(MapChange::Changed(node)),
                Some(_) => {}
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests;
