//! What one node may see of an on-demand network: itself, those that it has to do with, and the devices behind them.
//!
//! Pure functions of the network's state, the node and its ties ([`crate::interest`]).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ria_protocol::demand::Sought;
use ria_protocol::id::NodeId;
use ria_protocol::map::{Patch, PatchSet, Revision, Snapshot};
use ria_protocol::time::UnixTime;

use super::view::{self, Reader};
use super::{Change, Network};

/// What a node was told of, which is all that it may be told more of.
#[derive(Debug, Default)]
pub struct Sight {
    shown: BTreeSet<NodeId>,
}

/// Of which members a node is told when it has to do with `seen`.
fn visible(network: &Network, node: NodeId, seen: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let is_member = |node: &&NodeId| network.members.get(*node).is_some_and(|member| member.is_active());
    let nodes = seen.iter().chain([&node]).filter(is_member).copied();
    // A device whom all members talk to asks for nobody; one behind a gateway goes with that.
    let statics = network.static_peers.values();
    let statics =
        statics.filter(|peer| peer.gateway.is_none_or(|gateway| gateway == node || seen.contains(&gateway)));
    nodes.chain(statics.map(|peer| peer.node)).collect()
}

impl Sight {
    /// The whole map, for a node that begins.
    pub fn begin(&mut self, network: &Network, reader: Reader, seen: &BTreeSet<NodeId>) -> Snapshot {
        self.shown = visible(network, reader.node, seen);
        view::snapshot_of(network, reader, Some(&self.shown))
    }

    /// Of whom the node was told.
    pub fn members(&self) -> Vec<NodeId> {
        self.shown.iter().copied().collect()
    }

    /// Whether the node was told of this member.
    pub fn shows(&self, node: NodeId) -> bool {
        self.shown.contains(&node)
    }

    /// What there is to tell a node that was told of everything up to `told` when changes up to `to` have come, or it has to
    /// do with others; and who is new to it. Nothing to tell: no patches. `network` is the state after them, or a later one.
    pub fn step<'a>(
        &mut self,
        (network, seen): (&Network, &BTreeSet<NodeId>),
        reader: Reader,
        (told, to): (Revision, Revision),
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> (PatchSet, Vec<NodeId>) {
        let now = visible(network, reader.node, seen);
        let mut touched = BTreeSet::new();
        let mut patches = Vec::new();
        for patch in changes.into_iter().flat_map(|change| &change.set.patches) {
            match patch {
                // That it knows everybody from now on it hears with all of them, or it would take its part of them for the whole.
                Patch::NetworkChanged(info) if !info.is_on_demand() => {}
                Patch::NetworkChanged(_) => patches.push(patch.clone()),
                Patch::MemberSet(member) => touched.extend(view::node_of(member)),
                Patch::MemberRemoved(node) => _ = touched.insert(*node),
                Patch::PolicySet(_) => {}
            }
        }
        patches.extend(self.shown.difference(&now).map(|node| Patch::MemberRemoved(*node)));
        let new: Vec<NodeId> = now.difference(&self.shown).copied().collect();
        let told_again = now.iter().filter(|node| touched.contains(node) || !self.shown.contains(node));
        patches.extend(
            told_again.filter_map(|node| view::member_as_seen(network, *node, reader)).map(Patch::MemberSet),
        );
        patches.extend(view::policy_since(network, told, reader));
        self.shown = now;
        (PatchSet { from: told, to, patches }, new)
    }
}

/// Whom a node means, if it may have to do with that one: the member to be tied to, which for a device behind a gateway is
/// the gateway. One with which the policy lets nothing pass is not there, as far as anybody is told.
pub fn find(network: &Network, asker: NodeId, sought: &Sought, now: UnixTime) -> Option<NodeId> {
    let is = |node: NodeId, name: &ria_protocol::name::Name, addresses: [IpAddr; 2]| match sought {
        Sought::Node(wanted) => *wanted == node,
        Sought::Name(wanted) => wanted == name,
        Sought::Address(wanted) => addresses.contains(wanted),
    };
    let members = network.active_members();
    let mut nodes = members.filter(|m| is(m.node, &m.name, [m.address_v4.into(), m.address_v6.into()]));
    let mut statics = network.static_peers.values();
    let found = match nodes.next() {
        Some(member) => (member.node, member.node, &member.tags),
        None => {
            let peer = statics.find(|p| is(p.node, &p.name, [p.address_v4.into(), p.address_v6.into()]))?;
            (peer.node, peer.gateway?, &peer.tags)
        }
    };
    let (node, tie, tags) = found;
    (tie != asker && may_meet(network, asker, (node, tags), now)).then_some(tie)
}

/// Whether the policy lets anything pass between the two now, whoever begins it.
fn may_meet(network: &Network, asker: NodeId, (node, tags): (NodeId, &[String]), now: UnixTime) -> bool {
    let Some((in_force, resolved)) = network.resolved_policy() else { return true };
    let own: &[String] = network.members.get(&asker).map_or(&[], |member| &member.tags);
    let behind = network.static_peers.values().filter(|peer| peer.gateway == Some(asker));
    let own: Vec<(NodeId, &[String])> =
        behind.map(|peer| (peer.node, &peer.tags[..])).chain([(asker, own)]).collect();
    let mut rules = resolved.rules(&in_force.policy);
    rules.any(|(rule, from, to)| {
        let meets = |own: &(NodeId, &[String])| {
            let forth = from.contains(own.0, own.1) && to.contains(node, tags);
            forth || (from.contains(node, tags) && to.contains(own.0, own.1))
        };
        rule.holds(Some(now)) && own.iter().any(meets)
    })
}

/// Members that a change takes out of all maps.
pub fn taken_out(change: &Change) -> impl Iterator<Item = NodeId> {
    change.set.patches.iter().filter_map(|patch| match patch {
        Patch::MemberRemoved(node) => Some(*node),
        Patch::MemberSet(_) | Patch::NetworkChanged(_) | Patch::PolicySet(_) => None,
    })
}

/// Whether a change is one of the network's own settings.
pub fn changes_network(change: &Change) -> bool {
    change.set.patches.iter().any(|patch| matches!(patch, Patch::NetworkChanged(_)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;
    use ria_protocol::version::Protocol;

    use super::super::stock::tests::static_peer;
    use super::super::tests::{member, network};
    use super::*;
    use crate::policy::text::parse;
    use crate::state::MemberEntry;
    use crate::state::policy::InForce;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 10])
    }

    fn reader(n: u8) -> Reader {
        Reader { node: node(n), protocol: Protocol::NEWEST }
    }

    fn set(network: &mut Network, entry: Arc<MemberEntry>) -> Arc<Change> {
        network.members.insert(entry.node, entry.clone());
        let change = network.next_change(vec![Patch::MemberSet(network.listed(&entry))]);
        network.record(change.clone());
        change
    }

    fn lab() -> Network {
        let mut lab = network();
        for (n, name) in [(1, "base"), (2, "robot-2"), (3, "robot-3"), (4, "robot-4")] {
            set(&mut lab, member(n, name));
        }
        lab
    }

    #[test]
    fn a_node_begins_with_itself_and_those_that_it_has_to_do_with() {
        let mut lab = lab();
        for (n, name, gateway) in [(8, "phone", Some(node(2))), (9, "camera", None)] {
            let peer = static_peer(n, name, gateway);
            lab.static_peers.insert(peer.node, peer);
        }
        let shown = |n: u8, seen: &[u8]| {
            let seen = seen.iter().map(|n| node(*n)).collect();
            let map = Sight::default().begin(&lab, reader(n), &seen);
            map.members.iter().filter_map(view::node_of).collect::<Vec<_>>()
        };
        assert_eq!(shown(1, &[]), [node(1), node(9)], "a device that all talk to asks for nobody");
        assert_eq!(
            shown(1, &[2]),
            [node(1), node(2), node(8), node(9)],
            "and one behind a gateway goes with it"
        );
        assert_eq!(shown(2, &[]), [node(2), node(8), node(9)]);
        assert_eq!(shown(1, &[7]), [node(1), node(9)], "nobody is there");
    }

    #[test]
    fn members_are_found_by_name_address_and_identity() {
        let mut lab = lab();
        let phone = static_peer(8, "phone", Some(node(2)));
        lab.static_peers.insert(phone.node, phone);
        let find = |n: u8, sought: Sought| find(&lab, node(n), &sought, UnixTime(5));
        for sought in [
            Sought::Node(node(2)),
            Sought::Name("robot-2".parse().unwrap()),
            Sought::Address([10, 213, 0, 2].into()),
            Sought::Address("fd12:3456:789a:1::2".parse().unwrap()),
            Sought::Name("phone".parse().unwrap()),
            Sought::Address([10, 213, 0, 8].into()),
        ] {
            assert_eq!(find(1, sought.clone()), Some(node(2)), "{sought}");
            assert_eq!(find(2, sought), None, "nobody is told of itself");
        }
        assert_eq!(find(1, Sought::Node(node(7))), None);
        assert_eq!(find(1, Sought::Address([10, 213, 0, 7].into())), None);
    }

    #[test]
    fn whom_the_policy_denies_is_not_there() {
        let mut lab = lab();
        let text = "[[rule]]\nfrom = [\"base\"]\nto = [\"robot-2\"]\nallow = [\"tcp/22\"]\n[[rule]]\nfrom = [\"base\"]\n\
                    to = [\"robot-3\"]\nallow = [\"any\"]\nvalid = \"2026-12-01 14:00..16:00\"\n";
        let in_force =
            InForce { version: 1, text: text.into(), policy: parse(text).unwrap(), since: UnixTime(1) };
        (lab.policy.version, lab.policy.in_force) = (1, Some(Arc::new(in_force)));
        let change = lab.next_change(vec![]);
        lab.record(change);
        let find = |a: u8, b: u8, time| find(&lab, node(a), &Sought::Node(node(b)), UnixTime(time)).is_some();
        assert!(find(1, 2, 5) && find(2, 1, 5), "in either direction");
        assert!(!find(3, 2, 5) && !find(4, 1, 5) && !find(1, 4, 5));
        // For a time only.
        assert!(find(1, 3, 1_796_133_600) && !find(1, 3, 1_796_140_800) && !find(1, 3, 5));
    }

    /// What a node has made of what it was told.
    #[derive(Default)]
    struct Reading {
        revision: Revision,
        members: BTreeMap<NodeId, String>,
    }

    impl Reading {
        fn apply(&mut self, set: &PatchSet) {
            assert_eq!(set.from, self.revision);
            self.revision = set.to;
            for patch in &set.patches {
                match patch {
                    Patch::MemberSet(member) => {
                        _ = self.members.insert(view::node_of(member).unwrap(), member.name.to_string());
                    }
                    Patch::MemberRemoved(node) => {
                        assert!(self.members.remove(node).is_some(), "it never heard of {node}");
                    }
                    Patch::NetworkChanged(_) | Patch::PolicySet(_) => {}
                }
            }
        }
    }

    proptest! {
        /// Whatever happens in whatever order, a node is told of nobody that it has nothing to do with, and knows those that it
        /// has to do with as they are.
        #[test]
        fn no_change_of_a_stranger_is_told(
            steps in proptest::collection::vec((0_u8..6, 1_u8..7, any::<bool>()), 0..60)
        ) {
            let mut lab = lab();
            let (mut sight, mut seen, mut reading) = (Sight::default(), BTreeSet::new(), Reading::default());
            let own = reader(1);
            let map = sight.begin(&lab, own, &seen);
            reading.revision = map.revision;
            reading.members = map.members.iter().map(|m| (view::node_of(m).unwrap(), m.name.to_string())).collect();
            let (mut waiting, mut so_far) = (Vec::new(), map.revision);
            for (number, (what, n, told)) in steps.into_iter().enumerate() {
                match what {
                    0 => _ = seen.insert(node(n)),
                    1 => _ = seen.remove(&node(n)),
                    2 if n != 1 && lab.members.contains_key(&node(n)) => {
                        lab.members.remove(&node(n));
                        let change = lab.next_change(vec![Patch::MemberRemoved(node(n))]);
                        lab.record(change.clone());
                        waiting.push(change);
                    }
                    2 => {}
                    _ => waiting.push(set(&mut lab, member(n, &format!("m-{number}")))),
                }
                seen.remove(&node(1));
                if !told {
                    continue;
                }
                // Now and then only some of what waits is looked at.
                let now: Vec<Arc<Change>> = waiting.drain(..waiting.len().div_ceil(2)).collect();
                so_far = now.last().map_or(so_far, |change| change.set.to);
                let allowed = visible(&lab, own.node, &seen);
                let span = (reading.revision, so_far);
                let (set, new) = sight.step((&lab, &seen), own, span, now.iter().map(AsRef::as_ref));
                for patch in &set.patches {
                    if let Patch::MemberSet(member) = patch {
                        prop_assert!(allowed.contains(&view::node_of(member).unwrap()), "a stranger");
                    }
                }
                prop_assert!(new.iter().all(|node| !reading.members.contains_key(node)));
                if !set.patches.is_empty() {
                    reading.apply(&set);
                }
                prop_assert_eq!(reading.members.keys().copied().collect::<BTreeSet<_>>(), allowed);
            }
            let (set, _) = sight.step(
                (&lab, &seen), own, (reading.revision, lab.revision), waiting.iter().map(AsRef::as_ref)
            );
            reading.apply(&set);
            for (node, name) in &reading.members {
                prop_assert_eq!(lab.members[node].name.as_str(), name);
            }
        }
    }
}
