//! Keeps the stored map and the stored live state current: folds what the coordinator sends into them.
//!
//! The engine folds the same messages for itself and checks records; here they are only kept, unopened.

use std::collections::BTreeMap;

use ria_protocol::id::NodeId;
use ria_protocol::map::{Live, Member, Patch, PatchSet, Snapshot};
use ria_protocol::message::{LiveUpdate, from_bytes};
use ria_protocol::record::MemberRecord;

/// Patches don't follow the map that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the changes do not follow the stored map")]
pub struct Gap;

/// Applies durable changes to a map.
pub fn apply_patches(map: &mut Snapshot, set: &PatchSet) -> Result<(), Gap> {
    if map.revision != set.from {
        return Err(Gap);
    }
    for patch in &set.patches {
        match patch {
            Patch::NetworkChanged(info) => map.network = info.clone(),
            Patch::MemberSet(member) => set_member(&mut map.members, member),
            Patch::PolicySet(policy) => map.policy = Some(policy.clone()),
            Patch::MemberRemoved(node) => map.members.retain(|m| node_of(m) != Some(*node)),
        }
    }
    map.revision = set.to;
    Ok(())
}

/// Applies news of members. "Not known where" never erases a known place.
pub fn apply_live(known: &mut Vec<Live>, update: &LiveUpdate) {
    let mut members: BTreeMap<NodeId, Live> = known.drain(..).map(|live| (live.node, live)).collect();
    if update.whole {
        members.values_mut().for_each(|live| live.online = false);
    }
    for news in &update.members {
        let mut news = news.clone();
        if let Some(before) = members.get(&news.node).filter(|_| news.candidates.is_empty()) {
            news.candidates.clone_from(&before.candidates);
        }
        members.insert(news.node, news);
    }
    known.extend(members.into_values());
}

/// Forgets members that the map does not list any more.
pub fn keep_listed(known: &mut Vec<Live>, map: &Snapshot) {
    let listed: std::collections::BTreeSet<_> = map.members.iter().filter_map(node_of).collect();
    known.retain(|live| listed.contains(&live.node));
}

fn set_member(members: &mut Vec<Member>, member: &Member) {
    let node = node_of(member);
    // Where it can't be read who it is, its name says whom it replaces; so the engine takes it, too.
    members.retain(|m| m.name != member.name && node_of(m) != node);
    members.push(member.clone());
    members.sort_by_key(node_of);
}

/// A member with its record, if the map lists it.
pub fn member(map: &Snapshot, node: NodeId) -> Option<(&Member, MemberRecord)> {
    map.members.iter().find_map(|member| {
        record_of(member).filter(|record| record.node == node).map(|record| (member, record))
    })
}

fn node_of(member: &Member) -> Option<NodeId> {
    record_of(member).map(|record| record.node)
}

fn record_of(member: &Member) -> Option<MemberRecord> {
    from_bytes(&member.record.bytes).ok()
}

#[cfg(test)]
mod tests {
    use ria_protocol::id::NetworkId;
    use ria_protocol::keys::WgPublicKey;
    use ria_protocol::map::{Candidate, CandidateKind, MemberKind, NetworkInfo, Revision};
    use ria_protocol::record::SignedRecord;

    use super::*;

    fn member(node: u8, name: &str) -> Member {
        let record = MemberRecord {
            network: NetworkId::from_bytes([1; 10]),
            node: NodeId::from_bytes([node; 10]),
            wg_key: WgPublicKey([node; 32]),
            prefixes: vec![],
            tags: vec![],
            expires: None,
        };
        Member {
            record: SignedRecord::unsigned(&record),
            name: name.parse().unwrap(),
            kind: MemberKind::Node,
            stock: None,
            ros_domain: None,
            routes: None,
        }
    }

    fn map() -> Snapshot {
        Snapshot {
            revision: Revision(4),
            network: NetworkInfo {
                id: NetworkId::from_bytes([1; 10]),
                name: "lab".parse().unwrap(),
                prefix_v4: "10.213.0.0/16".parse().unwrap(),
                prefix_v6: "fd00::/64".parse().unwrap(),
                mtu: 1280,
                lock_keys: vec![],
                urls: vec![],
                ros_domains: None,
                multicast: None,
                peers: None,
            },
            members: vec![member(1, "a"), member(3, "c")],
            policy: None,
        }
    }

    fn set(from: u64, to: u64, patches: Vec<Patch>) -> PatchSet {
        PatchSet { from: Revision(from), to: Revision(to), patches }
    }

    #[test]
    fn patches_add_change_and_remove_in_order_and_only_onto_their_revision() {
        let mut map = map();
        let patches = vec![
            Patch::MemberSet(member(2, "b")),
            Patch::MemberSet(member(3, "see")),
            Patch::MemberRemoved(NodeId::from_bytes([1; 10])),
        ];
        assert_eq!(apply_patches(&mut map, &set(4, 7, patches)), Ok(()));
        let names: Vec<_> = map.members.iter().map(|m| m.name.as_str()).collect();
        assert_eq!((names, map.revision), (vec!["b", "see"], Revision(7)));
        assert_eq!(apply_patches(&mut map, &set(4, 8, vec![])), Err(Gap));
    }

    #[test]
    fn a_member_that_cannot_be_read_takes_the_place_of_the_one_with_its_name() {
        let mut map = map();
        let mut broken = member(3, "c");
        broken.record.bytes.truncate(5);
        assert_eq!(apply_patches(&mut map, &set(4, 5, vec![Patch::MemberSet(broken.clone())])), Ok(()));
        assert_eq!(map.members, [broken, member(1, "a")]);
    }

    #[test]
    fn a_whole_update_without_addresses_keeps_the_last_known_ones() {
        let node = NodeId::from_bytes([2; 10]);
        let place = Candidate { kind: CandidateKind::Host, address: "192.0.2.1:1".parse().unwrap() };
        let live = |online, candidates| Live { node, online, boot: None, candidates };
        let mut known = vec![live(true, vec![place])];
        apply_live(&mut known, &LiveUpdate { whole: true, members: vec![] });
        assert_eq!(known, [live(false, vec![place])]);
        apply_live(&mut known, &LiveUpdate { whole: false, members: vec![live(true, vec![])] });
        assert_eq!(known, [live(true, vec![place])]);
        keep_listed(&mut known, &map());
        assert!(known.is_empty(), "the map does not list it");
    }
}
