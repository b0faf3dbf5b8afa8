//! Folding: what differs, what is refused, and that patches lead where a snapshot does.

use proptest::prelude::*;
use ria_protocol::keys::{LockKey, Signature, WgPublicKey};
use ria_protocol::record::{SignedRecord, signed_bytes};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;

fn network() -> NetworkId {
    NetworkId::from_bytes([1; 10])
}

fn owner() -> (Ed25519KeyPair, LockKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap();
    let public = LockKey(pair.public_key().as_ref().try_into().unwrap());
    (pair, public)
}

fn info(mtu: u16, locked: bool) -> NetworkInfo {
    NetworkInfo {
        id: network(),
        name: "lab".parse().unwrap(),
        prefix_v4: "10.213.0.0/16".parse().unwrap(),
        prefix_v6: "fd5a::/64".parse().unwrap(),
        mtu,
        lock_keys: if locked { vec![owner().1] } else { vec![] },
        urls: vec![],
        ros_domains: None,
        multicast: None,
        peers: None,
    }
}

/// How a member's record is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signed {
    Well,
    Badly,
    Not,
}

fn member(node: u8, version: u8, signed: Signed) -> Member {
    let record = MemberRecord {
        network: network(),
        node: NodeId::from_bytes([node; 10]),
        wg_key: WgPublicKey([node; 32]),
        prefixes: vec![format!("10.213.{version}.{node}/32").parse().unwrap()],
        tags: vec![],
        expires: None,
    };
    let mut signed_record = SignedRecord::unsigned(&record);
    signed_record.signature = match signed {
        Signed::Not => None,
        Signed::Badly => Some(Signature([7; 64])),
        Signed::Well => {
            let signature = owner().0.sign(&signed_bytes(&signed_record.bytes));
            Some(Signature(signature.as_ref().try_into().unwrap()))
        }
    };
    Member {
        record: signed_record,
        name: format!("robot-{node}").parse().unwrap(),
        kind: MemberKind::Node,
        stock: None,
        ros_domain: None,
        routes: None,
    }
}

fn snapshot(revision: u64, network: NetworkInfo, members: Vec<Member>) -> Snapshot {
    Snapshot { revision: Revision(revision), network, members, policy: None }
}

#[test]
fn a_snapshot_says_what_is_different_from_before() {
    let mut map = NetworkMap::new(network());
    let first = snapshot(1, info(1280, false), vec![member(1, 0, Signed::Not), member(2, 0, Signed::Not)]);
    map.apply_snapshot(&first).unwrap();
    let second = snapshot(5, info(1280, false), vec![member(2, 1, Signed::Not), member(3, 0, Signed::Not)]);
    let folded = map.apply_snapshot(&second).unwrap();
    let node = |n: u8| NodeId::from_bytes([n; 10]);
    let expected = [MapChange::Removed(node(1)), MapChange::Changed(node(2)), MapChange::Added(node(3))];
    assert_eq!(folded.changes, expected);
    assert_eq!(map.revision(), Some(Revision(5)));
    assert_eq!(map.apply_snapshot(&second).unwrap(), Folded::default());
}

#[test]
fn patches_that_do_not_follow_change_nothing() {
    let mut map = NetworkMap::new(network());
    let set = PatchSet { from: Revision(4), to: Revision(5), patches: vec![] };
    assert_eq!(map.apply_patches(&set), Err(RevisionGap { have: None }));
    map.apply_snapshot(&snapshot(3, info(1280, false), vec![])).unwrap();
    let before = map.clone();
    let patches = vec![Patch::MemberSet(member(1, 0, Signed::Not))];
    let set = PatchSet { from: Revision(4), to: Revision(5), patches };
    assert_eq!(map.apply_patches(&set), Err(RevisionGap { have: Some(Revision(3)) }));
    assert_eq!(map, before);
}

#[test]
fn locking_a_network_drops_who_is_not_signed_and_says_so() {
    let mut map = NetworkMap::new(network());
    let members = vec![member(1, 0, Signed::Well), member(2, 0, Signed::Not)];
    map.apply_snapshot(&snapshot(1, info(1280, false), members)).unwrap();
    let lock = Patch::NetworkChanged(info(1280, true));
    let set = PatchSet { from: Revision(1), to: Revision(2), patches: vec![lock] };
    let folded = map.apply_patches(&set).unwrap();
    assert_eq!(folded.changes, [MapChange::Network, MapChange::Removed(NodeId::from_bytes([2; 10]))]);
    assert_eq!(folded.refused.len(), 1);
    assert_eq!(folded.refused[0].reason, RecordError::Unsigned);
    let unlock = Patch::NetworkChanged(info(1280, false));
    let set = PatchSet { from: Revision(2), to: Revision(3), patches: vec![unlock] };
    let folded = map.apply_patches(&set).unwrap();
    assert_eq!(folded.changes, [MapChange::Network, MapChange::Added(NodeId::from_bytes([2; 10]))]);
}

#[test]
fn a_bad_record_is_skipped_and_the_rest_is_taken() {
    let mut map = NetworkMap::new(network());
    let mut broken = member(1, 0, Signed::Not);
    broken.record.bytes.truncate(9);
    let folded =
        map.apply_snapshot(&snapshot(1, info(1280, false), vec![broken, member(2, 0, Signed::Not)])).unwrap();
    assert_eq!(folded.refused[0].reason, RecordError::Malformed);
    assert_eq!(map.members().count(), 1);
    let mut foreign = snapshot(2, info(1280, false), vec![]);
    foreign.network.id = NetworkId::from_bytes([2; 10]);
    assert_eq!(map.apply_snapshot(&foreign), Err(OtherNetwork(foreign.network.id)));
    assert_eq!(map.revision(), Some(Revision(1)));
}

#[test]
fn a_change_that_cannot_be_read_takes_out_whom_it_changes() {
    let mut map = NetworkMap::new(network());
    let members = (1..5).map(|n| member(n, 0, Signed::Not)).collect();
    map.apply_snapshot(&snapshot(1, info(1280, false), members)).unwrap();
    let mut broken = member(1, 1, Signed::Not);
    broken.record.bytes.truncate(9);
    // Of another network: by its id it means the third, by its name the second.
    let elsewhere = MemberRecord {
        network: NetworkId::from_bytes([9; 10]),
        ..member(3, 0, Signed::Not).record.open(network(), &[]).unwrap()
    };
    let foreign = Member { record: SignedRecord::unsigned(&elsewhere), ..member(2, 0, Signed::Not) };
    let patches = vec![Patch::MemberSet(broken), Patch::MemberSet(foreign)];
    let set = PatchSet { from: Revision(1), to: Revision(2), patches };
    let folded = map.apply_patches(&set).unwrap();
    let reasons: Vec<_> = folded.refused.iter().map(|refused| refused.reason).collect();
    assert_eq!(reasons, [RecordError::Malformed, RecordError::OtherNetwork]);
    let node = |n: u8| NodeId::from_bytes([n; 10]);
    assert_eq!(folded.changes, [1, 2, 3].map(|n| MapChange::Removed(node(n))));
    assert_eq!(map.members().map(|(node, _)| node).collect::<Vec<_>>(), [node(4)]);
    // A good record brings it back.
    let patches = vec![Patch::MemberSet(member(1, 1, Signed::Not))];
    let set = PatchSet { from: Revision(2), to: Revision(3), patches };
    assert_eq!(map.apply_patches(&set).unwrap().changes, [MapChange::Added(node(1))]);
}

#[test]
fn a_membership_ends_when_its_time_has_come_and_a_clock_that_was_wrong_brings_it_back() {
    let mut map = NetworkMap::new(network());
    let mut ends = member(2, 0, Signed::Not);
    let record = ends.record.open(network(), &[]).unwrap();
    ends.record = SignedRecord::unsigned(&MemberRecord { expires: Some(UnixTime(5000)), ..record });
    map.apply_snapshot(&snapshot(1, info(1280, false), vec![member(1, 0, Signed::Not), ends])).unwrap();
    let node = NodeId::from_bytes([2; 10]);
    assert_eq!(map.next_end(), Some(UnixTime(5000)));
    assert_eq!(map.set_time(UnixTime(4999)), Folded::default());
    let folded = map.set_time(UnixTime(5000));
    assert_eq!(folded.changes, [MapChange::Removed(node)]);
    assert_eq!(folded.refused[0].reason, RecordError::Expired);
    assert_eq!(
        map.left_out().map(|(node, _, reason)| (node, reason)).collect::<Vec<_>>(),
        [(node, RecordError::Expired)]
    );
    assert_eq!(map.next_end(), None);
    assert_eq!(map.set_time(UnixTime(10)).changes, [MapChange::Added(node)]);
}

fn any_member() -> impl Strategy<Value = Member> {
    let signed = prop_oneof![Just(Signed::Well), Just(Signed::Badly), Just(Signed::Not)];
    (0..6u8, 0..3u8, signed).prop_map(|(node, version, signed)| member(node, version, signed))
}

fn any_patch() -> impl Strategy<Value = Patch> {
    prop_oneof![
        3 => any_member().prop_map(Patch::MemberSet),
        1 => (0..6u8).prop_map(|node| Patch::MemberRemoved(NodeId::from_bytes([node; 10]))),
        1 => (prop_oneof![Just(1280u16), Just(1400)], any::<bool>())
            .prop_map(|(mtu, locked)| Patch::NetworkChanged(info(mtu, locked))),
    ]
}

/// What a coordinator holds: the truth that a fold is compared with.
struct Truth {
    info: NetworkInfo,
    members: BTreeMap<NodeId, Member>,
}

impl Truth {
    fn apply(&mut self, patch: &Patch) {
        match patch {
            Patch::NetworkChanged(info) => self.info = info.clone(),
            Patch::PolicySet(_) => {}
            Patch::MemberSet(member) => {
                let record = member.record.open(network(), &[]).unwrap();
                self.members.insert(record.node, member.clone());
            }
            Patch::MemberRemoved(node) => {
                self.members.remove(node);
            }
        }
    }

    fn snapshot(&self, revision: u64) -> Snapshot {
        snapshot(revision, self.info.clone(), self.members.values().cloned().collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However a revision was reached, the map is the same; and applying the reported changes to the old view gives the new.
    #[test]
    fn patches_lead_where_the_snapshot_leads(
        first in proptest::collection::vec(any_patch(), 0..6),
        sets in proptest::collection::vec(proptest::collection::vec(any_patch(), 0..5), 0..5),
    ) {
        let mut truth = Truth { info: info(1280, false), members: BTreeMap::new() };
        first.iter().for_each(|patch| truth.apply(patch));
        let mut folded_map = NetworkMap::new(network());
        folded_map.apply_snapshot(&truth.snapshot(0)).unwrap();
        for (revision, patches) in (0u64..).zip(sets) {
            patches.iter().for_each(|patch| truth.apply(patch));
            let mut view: BTreeMap<NodeId, MapMember> =
                folded_map.members().map(|(node, member)| (node, member.clone())).collect();
            let set = PatchSet { from: Revision(revision), to: Revision(revision + 1), patches };
            for change in folded_map.apply_patches(&set).unwrap().changes {
                match change {
                    MapChange::Network => {}
                    MapChange::Removed(node) => prop_assert!(view.remove(&node).is_some()),
                    MapChange::Added(node) => {
                        let added = folded_map.member(node).unwrap().clone();
                        prop_assert!(view.insert(node, added).is_none());
                    }
                    MapChange::Changed(node) => {
                        let now = folded_map.member(node).unwrap().clone();
                        prop_assert!(view.insert(node, now.clone()).is_some_and(|old| old != now));
                    }
                }
            }
            prop_assert!(view.iter().eq(folded_map.members().collect::<BTreeMap<_, _>>().iter().map(|(n, m)| (n, *m))));
            let mut whole = NetworkMap::new(network());
            whole.apply_snapshot(&truth.snapshot(revision + 1)).unwrap();
            prop_assert_eq!(&whole, &folded_map);
        }
    }
}
