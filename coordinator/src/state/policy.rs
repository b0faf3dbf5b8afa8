//! The policy of a network in force, and what each node is told of it.
//!
//! A node's part is made again only when the policy has changed, when somebody whom it names comes, goes or changes the
//! name, or when the node itself has other tags or static peers. Who joins by a tag, and where nodes are reached, makes no
//! node's part anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ria_protocol::id::NodeId;
use ria_protocol::map::{Patch, Revision};
use ria_protocol::message::from_bytes;
use ria_protocol::policy::NodePolicy;
use ria_protocol::record::MemberRecord;
use ria_protocol::time::UnixTime;

use super::Network;
use crate::policy::Policy;
use crate::policy::ask::{Entry, Resolved, Roster};
use crate::policy::compile::compile;

/// The policy of a network.
#[derive(Debug, Clone, Default)]
pub struct PolicyState {
    /// Number of the last version; 0 when there was never one.
    pub version: u64,
    /// What is in force; absent: everything is allowed.
    pub in_force: Option<Arc<InForce>>,
    /// Whom it means among the members of now.
    resolved: Option<Arc<Resolved>>,
    /// The version of which nodes were told.
    told_version: u64,
    told: BTreeMap<NodeId, Told>,
}

/// A policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    pub version: u64,
    pub text: String,
    pub policy: Policy,
    pub since: UnixTime,
}

/// A version of a network's policy, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyVersion {
    pub version: u64,
    /// Absent: there is no policy, and everything is allowed.
    pub text: Option<String>,
    pub time: UnixTime,
    /// Who has set it, as in the audit log.
    pub actor: String,
    /// Why, or how: for people.
    pub note: String,
}

#[derive(Debug, Clone)]
struct Told {
    policy: Arc<NodePolicy>,
    /// The revision of the network that brought it.
    since: Revision,
}

impl PolicyState {
    /// As it was stored; nodes have been told nothing of it yet.
    pub fn stored(version: u64, in_force: Option<Arc<InForce>>) -> Self {
        Self { version, in_force, ..Self::default() }
    }

    /// Nodes have been told what they were told before.
    pub fn follow(&mut self, before: &Self) {
        self.resolved.clone_from(&before.resolved);
        self.told_version = before.told_version;
        self.told.clone_from(&before.told);
    }
}

impl Network {
    /// Whom the policy in force means.
    pub fn resolved_policy(&self) -> Option<(Arc<InForce>, Arc<Resolved>)> {
        self.policy.in_force.clone().zip(self.policy.resolved.clone())
    }

    /// What a node has to enforce, and since which revision; absent when there was never a policy.
    pub fn node_policy(&self, node: NodeId) -> Option<(&NodePolicy, Revision)> {
        self.policy.told.get(&node).map(|told| (&*told.policy, told.since))
    }

    /// Makes what nodes are told what it should be, as of a revision that comes with these patches. Tells whether any node
    /// is told something new.
    pub fn renew_policies(&mut self, at: Revision, patches: &[Patch]) -> bool {
        if self.policy.version == 0 {
            return false;
        }
        let roster = Roster::of(self);
        let in_force = self.policy.in_force.clone();
        let resolved = in_force.as_ref().map(|in_force| Resolved::of(&in_force.policy, &roster));
        let all = self.policy.told_version != self.policy.version
            || self.policy.resolved.as_deref() != resolved.as_ref();
        let nodes: BTreeSet<NodeId> =
            if all { self.members.keys().copied().collect() } else { self.touched(patches) };
        let by_node: BTreeMap<NodeId, &Entry> = roster.iter().map(|entry| (entry.node, entry)).collect();
        let mut changed = false;
        for node in nodes {
            let Some(own) = by_node.get(&node).filter(|_| self.members.contains_key(&node)) else {
                self.policy.told.remove(&node);
                continue;
            };
            let behind = self.static_peers.values().filter(|peer| peer.gateway == Some(node));
            let behind = behind.filter_map(|peer| by_node.get(&peer.node).copied());
            let locals: Vec<&Entry> = std::iter::once(*own).chain(behind).collect();
            let version = self.policy.version;
            let policy = match (&in_force, &resolved) {
                (Some(in_force), Some(resolved)) => compile(&in_force.policy, resolved, version, &locals),
                _ => NodePolicy { version, rules: None },
            };
            if self.policy.told.get(&node).is_none_or(|told| *told.policy != policy) {
                self.policy.told.insert(node, Told { policy: Arc::new(policy), since: at });
                changed = true;
            }
        }
        self.policy.told.retain(|node, _| self.members.contains_key(node));
        self.policy.told_version = self.policy.version;
        self.policy.resolved = resolved.map(Arc::new);
        changed
    }

    /// The nodes that patches are about, and the gateways of static peers among them.
    fn touched(&self, patches: &[Patch]) -> BTreeSet<NodeId> {
        let mut touched = BTreeSet::new();
        for patch in patches {
            if let Patch::MemberSet(member) = patch {
                touched
                    .extend(from_bytes::<MemberRecord>(&member.record.bytes).ok().map(|record| record.node));
                touched.extend(member.stock.as_ref().and_then(|stock| stock.gateway));
            }
        }
        touched
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{member, network};
    use super::*;
    use crate::policy::text::parse;
    use crate::state::MemberEntry;

    fn with_policy(network: &mut Network, text: &str) {
        network.policy.version += 1;
        let version = network.policy.version;
        let policy = parse(text).unwrap();
        network.policy.in_force =
            Some(Arc::new(InForce { version, text: text.into(), policy, since: UnixTime(1) }));
    }

    fn set(network: &mut Network, entry: Arc<MemberEntry>) -> bool {
        network.members.insert(entry.node, entry.clone());
        let change = network.next_change(vec![Patch::MemberSet(network.listed(&entry))]);
        network.record(change.clone());
        change.differs
    }

    #[test]
    fn a_node_is_told_only_what_is_new_to_it() {
        let mut lab = network();
        for (n, name) in [(2, "robot-2"), (3, "robot-3")] {
            set(&mut lab, member(n, name));
        }
        let [two, three, four] = [2, 3, 4].map(|n| NodeId::from_bytes([n; 10]));
        assert!(lab.node_policy(two).is_none());
        with_policy(
            &mut lab,
            "[[rule]]\nfrom = [\"robot-2\", \"robot-4\"]\nto = [\"tag:arm\"]\nallow = [\"any\"]\n",
        );
        let change = lab.next_change(vec![]);
        lab.record(change.clone());
        assert!(change.differs);
        let since = lab.revision;
        assert_eq!(lab.node_policy(two).unwrap().1, since);
        assert_eq!(lab.node_policy(three).unwrap().0.rules, Some(vec![]), "nothing is allowed");
        // Somebody with the tag comes: nobody else needs to hear of the policy.
        let arm = |n: u8, name: &str| {
            Arc::new(MemberEntry { tags: vec!["arm".into()], ..MemberEntry::clone(&member(n, name)) })
        };
        assert!(set(&mut lab, arm(5, "arm-5")));
        assert_eq!(lab.node_policy(two).unwrap().1, since);
        // One that is named comes: whom it may call hears of it, and only they.
        assert!(set(&mut lab, member(4, "robot-4")));
        assert_eq!(lab.node_policy(two).unwrap().1, since);
        assert_eq!(lab.node_policy(NodeId::from_bytes([5; 10])).unwrap().1, lab.revision);
        assert_eq!(lab.node_policy(four).unwrap().0.rules.as_ref().unwrap().len(), 1);
        // A node gets the tag.
        assert!(set(&mut lab, arm(3, "robot-3")));
        assert_eq!(lab.node_policy(three).unwrap().0.rules.as_ref().unwrap().len(), 1);
        let before = lab.revision;
        assert!(!set(&mut lab, arm(3, "robot-3")), "nothing new");
        // It is cleared: everything is allowed again.
        lab.policy.version += 1;
        lab.policy.in_force = None;
        let change = lab.next_change(vec![]);
        lab.record(change);
        let (policy, at) = lab.node_policy(two).unwrap();
        assert!(policy.rules.is_none() && at > before);
    }
}
