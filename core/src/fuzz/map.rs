//! Maps: patches fold to what a snapshot of the same members says, and an engine takes both.

use std::collections::BTreeMap;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::keys::{LockKey, Signature, WgPublicKey};
use ria_protocol::map::{Member, MemberKind, Patch, PatchSet, Revision, Snapshot};
use ria_protocol::message::{CoordinatorMessage, from_bytes};
use ria_protocol::name::Name;
use ria_protocol::policy::{NodePolicy, Permit, PermitKind, Rule, Selector};
use ria_protocol::prefix::Prefix;
use ria_protocol::record::{MemberRecord, SignedRecord};
use ria_protocol::time::UnixTime;

use super::{Unstructured, engine};
use crate::map::NetworkMap;

/// A few members only, so that patches meet the same ones again.
const NODES: u8 = 5;

fn draw(input: &mut Unstructured<'_>) -> u8 {
    input.arbitrary().unwrap_or(0)
}

/// A member that may be signed wrongly, be of another network, or have bytes that are no record.
fn member(input: &mut Unstructured<'_>) -> Option<Member> {
    let (node, odd, key) = (draw(input) % NODES, draw(input), draw(input));
    let network = if odd == 1 { 2 } else { 1 };
    let record = MemberRecord {
        network: NetworkId::from_bytes([network; 10]),
        node: NodeId::from_bytes([node; 10]),
        wg_key: WgPublicKey([key; 32]),
        prefixes: vec![Prefix::host([10, 213, 0, draw(input) % 8].into())],
        tags: vec![],
        expires: None,
    };
    let mut record = SignedRecord::unsigned(&record);
    match odd {
        2 => record.signature = Some(Signature([key; 64])),
        3 => super::damage(&mut record.bytes, input),
        _ => {}
    }
    let name: Name = format!("robot-{}", draw(input)).parse().ok()?;
    let kind = [MemberKind::Node, MemberKind::Static, MemberKind::Gateway][usize::from(key) % 3];
    Some(Member { record, name, kind, stock: None, ros_domain: None, routes: None })
}

/// Rules of any kind between a few members, or none.
fn policy(input: &mut Unstructured<'_>) -> NodePolicy {
    let selector = |input: &mut Unstructured<'_>| {
        let node = draw(input);
        Selector {
            all: node > 200,
            nodes: vec![NodeId::from_bytes([node % NODES; 10])],
            tags: if node.is_multiple_of(2) { vec![format!("tag-{node}")] } else { Vec::new() },
            prefixes: node
                .is_multiple_of(5)
                .then(|| Prefix::new([10, 66, node, 0].into(), 16 + node % 17).into_iter().collect()),
        }
    };
    let rule = |input: &mut Unstructured<'_>| {
        let (number, kind, first) = (draw(input).into(), draw(input), draw(input).into());
        let period = (draw(input), draw(input));
        Rule {
            number,
            from: selector(input),
            to: selector(input),
            permits: vec![Permit::range(PermitKind(kind % 7), first, first + 9)],
            not_before: (period.0 > 100).then(|| UnixTime(period.0.into())),
            until: (period.1 > 100).then(|| UnixTime(period.1.into())),
        }
    };
    let count = draw(input) % 5;
    let rules = (count < 4).then(|| (0..count).map(|_| rule(input)).collect());
    NodePolicy { version: draw(input).into(), rules }
}

fn patch(input: &mut Unstructured<'_>, first: &Snapshot) -> Option<Patch> {
    Some(match draw(input) % 5 {
        4 => Patch::PolicySet(policy(input)),
        0 => Patch::MemberRemoved(NodeId::from_bytes([draw(input) % NODES; 10])),
        1 => {
            let mut info = first.network.clone();
            info.mtu = 1280 + u16::from(draw(input));
            if draw(input) < 64 {
                info.lock_keys = vec![LockKey([3; 32])];
            }
            Patch::NetworkChanged(info)
        }
        _ => Patch::MemberSet(member(input)?),
    })
}

/// Folds patches one by one, and holds the result against all of them at once and against a snapshot.
pub fn fold(data: &[u8]) {
    raw(data);
    let mut input = Unstructured::new(data);
    let Some(first) = engine::snapshot() else { return };
    let mut one_by_one = NetworkMap::new(first.network.id).of(NodeId::from_bytes([0; 10]));
    one_by_one.set_time(UnixTime(150));
    assert!(one_by_one.apply_snapshot(&first).is_ok());
    let mut at_once = one_by_one.clone();
    let mut truth = first.clone();
    let mut patches = Vec::new();
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        let Some(patch) = patch(&mut input, &first) else { continue };
        let from = truth.revision;
        truth.revision = from.next();
        let set = PatchSet { from, to: truth.revision, patches: vec![patch.clone()] };
        assert!(one_by_one.apply_patches(&set).is_ok());
        assert!(one_by_one.apply_patches(&set).is_err(), "the same patches twice");
        plainly(&mut truth, &patch);
        patches.push(patch);
    }
    let (from, to) = (first.revision, truth.revision);
    if from != to {
        assert!(at_once.apply_patches(&PatchSet { from, to, patches }).is_ok());
    }
    let mut whole = NetworkMap::new(first.network.id).of(NodeId::from_bytes([0; 10]));
    whole.set_time(UnixTime(150));
    assert!(whole.apply_snapshot(&truth).is_ok());
    let known = |map: &NetworkMap| map.members().map(|(n, m)| (n, m.clone())).collect::<BTreeMap<_, _>>();
    assert_eq!(known(&one_by_one), known(&at_once));
    assert_eq!(known(&one_by_one), known(&whole));
    assert_eq!((one_by_one.revision(), one_by_one.info()), (whole.revision(), whole.info()));
    assert_eq!(one_by_one.rules(), whole.rules());
}

/// What a map is: the latest word on each member that can be told apart.
fn plainly(map: &mut Snapshot, patch: &Patch) {
    let node = |member: &Member| member.record.open(map.network.id, &[]).map(|record| record.node).ok();
    match patch {
        Patch::NetworkChanged(info) => map.network = info.clone(),
        Patch::PolicySet(policy) => map.policy = Some(policy.clone()),
        Patch::MemberRemoved(gone) => {
            let kept = map.members.iter().filter(|member| node(member) != Some(*gone)).cloned().collect();
            map.members = kept;
        }
        Patch::MemberSet(new) => {
            let id = node(new);
            // What can't be read takes the place of whom it seems to be about: nobody is who it was before it.
            let about = from_bytes::<MemberRecord>(&new.record.bytes).ok().map(|record| record.node);
            let replaced = |member: &&Member| match id {
                Some(_) => node(member) == id,
                None => node(member) == about || member.name == new.name,
            };
            let mut kept: Vec<Member> = map.members.iter().filter(|m| !replaced(m)).cloned().collect();
            if id.is_some() {
                kept.push(new.clone());
            }
            map.members = kept;
        }
    }
}

/// Maps as they come from a coordinator, byte by byte.
fn raw(data: &[u8]) {
    let mut map = NetworkMap::new(NetworkId::from_bytes([1; 10]));
    if let Ok(CoordinatorMessage::Snapshot(snapshot)) = from_bytes(data) {
        let own = snapshot.network.id == NetworkId::from_bytes([1; 10]);
        assert_eq!(map.apply_snapshot(&snapshot).is_ok(), own);
    }
    if let Ok(CoordinatorMessage::Patches(set)) = from_bytes(data) {
        assert!(map.apply_patches(&set).is_err(), "patches for a map that is not there");
        assert_eq!(map.revision(), None::<Revision>);
    }
}
