//! What one node may see: a pure function of the network's state and the node. Today every member sees every other;
//! policy will narrow it here and nowhere else.

use bytes::Bytes;
use ria_protocol::id::NodeId;
use ria_protocol::map::{Live, Patch, PatchSet, Revision, Snapshot};
use ria_protocol::message::{CoordinatorMessage, LiveUpdate, to_bytes};

use super::{Change, Network};

/// Brings a node that has `revision` (or nothing) to the network's present revision.
pub fn catch_up(network: &Network, revision: Option<Revision>) -> CoordinatorMessage {
    let patches = revision.and_then(|revision| patches_since(network, revision));
    patches.map_or_else(|| CoordinatorMessage::Snapshot(snapshot(network)), CoordinatorMessage::Patches)
}

/// The whole map.
pub fn snapshot(network: &Network) -> Snapshot {
    Snapshot {
        revision: network.revision,
        network: network.info.clone(),
        members: network.active_members().map(|m| m.to_member(network.info.id)).collect(),
    }
}

/// All that changed since `revision`; `None` when that is not known any more, or would be longer than a snapshot.
fn patches_since(network: &Network, revision: Revision) -> Option<PatchSet> {
    let patches: Vec<Patch> =
        network.changes_since(revision)?.flat_map(|change| change.set.patches.iter().cloned()).collect();
    let worth_it = patches.len() <= network.members.len() + 16;
    worth_it.then_some(PatchSet { from: revision, to: network.revision, patches })
}

/// One change as a node is told it.
pub fn change(change: &Change) -> Bytes {
    change.encoded.clone()
}

/// Whether a change takes `node` out of everybody's map.
pub fn removes(change: &Change, node: NodeId) -> bool {
    change.set.patches.iter().any(|patch| matches!(patch, Patch::MemberRemoved(gone) if *gone == node))
}

/// News of members, as `node` is told them: all but itself. `None` when nothing is left to tell.
pub fn live_changes(members: &[Live], node: NodeId) -> Option<Bytes> {
    let others: Vec<Live> = members.iter().filter(|live| live.node != node).cloned().collect();
    (!others.is_empty()).then(|| live(others, false))
}

/// All that is known of members, as `node` is told it.
pub fn live_whole(members: Vec<Live>, node: NodeId) -> Bytes {
    live(members.into_iter().filter(|live| live.node != node).collect(), true)
}

fn live(members: Vec<Live>, whole: bool) -> Bytes {
    to_bytes(&CoordinatorMessage::Live(LiveUpdate { whole, members })).into()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{member, network};
    use super::*;

    #[test]
    fn a_node_gets_patches_where_possible_and_else_a_snapshot() {
        let mut network = network();
        for n in 2..5 {
            let entry = member(n, &format!("robot-{n}"));
            let change = network.next_change(vec![Patch::MemberSet(entry.to_member(network.info.id))]);
            network.members.insert(entry.node, entry);
            network.record(change);
        }
        let CoordinatorMessage::Patches(set) = catch_up(&network, Some(Revision(2))) else { panic!() };
        assert_eq!((set.from, set.to, set.patches.len()), (Revision(2), Revision(4), 2));
        let CoordinatorMessage::Patches(none) = catch_up(&network, Some(Revision(4))) else { panic!() };
        assert_eq!((none.from, none.to, none.patches.len()), (Revision(4), Revision(4), 0));
        for revision in [None, Some(Revision(0)), Some(Revision(5))] {
            let CoordinatorMessage::Snapshot(all) = catch_up(&network, revision) else { panic!() };
            assert_eq!((all.revision, all.members.len()), (Revision(4), 3));
        }
    }

    #[test]
    fn a_node_is_told_nothing_about_itself() {
        let live = |n: u8| Live {
            node: NodeId::from_bytes([n; 10]),
            online: true,
            boot: None,
            candidates: Vec::new(),
        };
        assert_eq!(live_changes(&[live(1)], NodeId::from_bytes([1; 10])), None);
        assert_eq!(
            live_changes(&[live(1), live(2)], NodeId::from_bytes([1; 10])),
            live_changes(&[live(2)], NodeId::from_bytes([3; 10]))
        );
    }
}
