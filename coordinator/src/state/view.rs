//! What one node may see: a pure function of the network's state and the node. Every member sees every other; of the
//! policy each is told its own part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ria_protocol::id::NodeId;
use ria_protocol::map::{Live, Member, MemberKind, Patch, PatchSet, Revision, Snapshot};
use ria_protocol::message::{CoordinatorMessage, LiveUpdate, from_bytes, to_bytes};
use ria_protocol::record::MemberRecord;
use ria_protocol::version::Protocol;

use super::{Change, Network};

/// Who is told.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    pub node: NodeId,
    pub protocol: Protocol,
}

/// Brings a node that has `revision` (or nothing) to the network's present revision.
pub fn catch_up(network: &Network, revision: Option<Revision>, reader: Reader) -> CoordinatorMessage {
    let patches = revision.and_then(|revision| patches_since(network, revision, reader));
    let whole = || CoordinatorMessage::Snapshot(snapshot(network, reader));
    patches.map_or_else(whole, CoordinatorMessage::Patches)
}

/// The whole map.
pub fn snapshot(network: &Network, reader: Reader) -> Snapshot {
    snapshot_of(network, reader, None)
}

/// The whole map, or that part of it that has these members.
pub(super) fn snapshot_of(network: &Network, reader: Reader, shown: Option<&BTreeSet<NodeId>>) -> Snapshot {
    let is_shown = |node: NodeId| shown.is_none_or(|shown| shown.contains(&node));
    let nodes = network.active_members().filter(|member| is_shown(member.node));
    let nodes = nodes.map(|member| (member.node, network.listed(member)));
    let statics = network.static_peers.values().filter(|peer| is_shown(peer.node));
    let statics = statics.filter_map(|peer| {
        Some((peer.node, static_as_seen(network, peer.to_member(network.info.id), reader)?))
    });
    let mut members: Vec<(NodeId, Member)> = nodes.chain(statics).collect();
    members.sort_by_key(|(node, _)| *node);
    Snapshot {
        revision: network.revision,
        network: network.info.clone(),
        members: members.into_iter().map(|(_, member)| member).collect(),
        policy: network.node_policy(reader.node).map(|(policy, _)| policy.clone()),
    }
}

/// A member as a node sees it; `None` for one that it sees nothing of.
pub(super) fn member_as_seen(network: &Network, node: NodeId, reader: Reader) -> Option<Member> {
    if let Some(peer) = network.static_peers.get(&node) {
        return static_as_seen(network, peer.to_member(network.info.id), reader);
    }
    let member = network.members.get(&node).filter(|member| member.is_active());
    member.map(|member| network.listed(member))
}

/// What a node has to enforce, if that is another since a revision. An older agent knows no policies.
pub(super) fn policy_since(network: &Network, revision: Revision, reader: Reader) -> Option<Patch> {
    let (policy, since) = network.node_policy(reader.node)?;
    (reader.protocol >= Protocol::V2 && since > revision).then(|| Patch::PolicySet(policy.clone()))
}

/// A static peer as a node sees it: those that talk to it know its pre-shared key. An older agent knows no gateways; it
/// reaches what is behind one by the gateway's own prefixes, if it is not told of anybody else who has them.
fn static_as_seen(network: &Network, mut member: Member, reader: Reader) -> Option<Member> {
    let node = node_of(&member)?;
    let stock = member.stock.as_mut()?;
    if reader.protocol < Protocol::V2 {
        let direct = stock.gateway.is_none();
        member.stock = None;
        return direct.then_some(member);
    }
    let entry = network.static_peers.get(&node);
    stock.psk = entry.filter(|peer| peer.is_talked_to_by(reader.node)).and_then(|peer| peer.psk.clone());
    Some(member)
}

pub(super) fn node_of(member: &Member) -> Option<NodeId> {
    from_bytes::<MemberRecord>(&member.record.bytes).ok().map(|record| record.node)
}

fn patch_as_seen(network: &Network, patch: &Patch, reader: Reader) -> Option<Patch> {
    match patch {
        Patch::MemberSet(member) if member.kind == MemberKind::Static => {
            let seen = static_as_seen(network, member.clone(), reader).map(Patch::MemberSet);
            // It may have been seen before.
            seen.or_else(|| node_of(member).map(Patch::MemberRemoved))
        }
        Patch::MemberSet(_) | Patch::MemberRemoved(_) | Patch::NetworkChanged(_) | Patch::PolicySet(_) => {
            Some(patch.clone())
        }
    }
}

/// All that changed since `revision`; `None` when that is not known any more, or would be longer than a snapshot.
fn patches_since(network: &Network, revision: Revision, reader: Reader) -> Option<PatchSet> {
    let patches = network.changes_since(revision)?.flat_map(|change| &change.set.patches);
    let patches = patches.filter_map(|patch| patch_as_seen(network, patch, reader));
    let patches: Vec<Patch> = patches.chain(policy_since(network, revision, reader)).collect();
    let worth_it = patches.len() <= network.members.len() + network.static_peers.len() + 16;
    worth_it.then_some(PatchSet { from: revision, to: network.revision, patches })
}

/// Changes that follow each other, as a node is told them. `network` is the state after them, or a later one.
pub fn changes(changes: &[Arc<Change>], network: &Network, reader: Reader) -> Bytes {
    if let [only] = changes
        && !only.differs
    {
        return only.encoded.clone();
    }
    let [from, to] = [changes.first().map(|c| c.set.from), changes.last().map(|c| c.set.to)];
    let from = from.unwrap_or(network.revision);
    let patches = changes.iter().flat_map(|change| &change.set.patches);
    let patches = patches.filter_map(|patch| patch_as_seen(network, patch, reader));
    let patches = patches.chain(policy_since(network, from, reader)).collect();
    to_bytes(&CoordinatorMessage::Patches(PatchSet { from, to: to.unwrap_or(from), patches })).into()
}

/// Whether a change takes `node` out of everybody's map.
pub fn removes(change: &Change, node: NodeId) -> bool {
    change.set.patches.iter().any(|patch| matches!(patch, Patch::MemberRemoved(gone) if *gone == node))
}

/// News of members, encoded once for all who hear them.
#[derive(Debug)]
pub struct News {
    whole: bool,
    members: Vec<Live>,
    encoded: Bytes,
}

impl News {
    /// `whole`: members that are not among these are not here.
    pub fn new(whole: bool, members: Vec<Live>) -> Self {
        let encoded = encode_live(whole, members.clone());
        Self { whole, members, encoded }
    }

    /// Whom they are about.
    pub fn members(&self) -> &[Live] {
        &self.members
    }

    /// The message to `node`, which hears of all but itself. `None` when nothing is left to tell.
    pub fn told_to(&self, node: NodeId) -> Option<Bytes> {
        if self.members.iter().all(|live| live.node != node) {
            return Some(self.encoded.clone());
        }
        let others: Vec<Live> = self.members.iter().filter(|live| live.node != node).cloned().collect();
        (self.whole || !others.is_empty()).then(|| encode_live(self.whole, others))
    }
}

/// What one message tells a node of news that have come together: of each member the latest.
pub fn news(news: &[Arc<News>], node: NodeId) -> Option<Bytes> {
    if let [only] = news {
        return only.told_to(node);
    }
    let all = news.iter().flat_map(|news| &news.members).filter(|live| live.node != node);
    let latest: BTreeMap<NodeId, Live> = all.map(|live| (live.node, live.clone())).collect();
    (!latest.is_empty()).then(|| encode_live(false, latest.into_values().collect()))
}

/// The same for a node that hears of some members only.
pub fn news_of(news: &[Arc<News>], is_shown: impl Fn(NodeId) -> bool) -> Option<Bytes> {
    let all = news.iter().flat_map(|news| &news.members).filter(|live| is_shown(live.node));
    let latest: BTreeMap<NodeId, Live> = all.map(|live| (live.node, live.clone())).collect();
    (!latest.is_empty()).then(|| encode_live(false, latest.into_values().collect()))
}

/// All that is known of some members, for a node that begins.
pub fn whole_of(news: &News, is_shown: impl Fn(NodeId) -> bool) -> Bytes {
    encode_live(true, news.members.iter().filter(|live| is_shown(live.node)).cloned().collect())
}

fn encode_live(whole: bool, members: Vec<Live>) -> Bytes {
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
            let change = network.next_change(vec![Patch::MemberSet(network.listed(&entry))]);
            network.members.insert(entry.node, entry);
            network.record(change);
        }
        let reader = Reader { node: NodeId::from_bytes([2; 10]), protocol: Protocol::NEWEST };
        let catch_up = |network: &_, revision| catch_up(network, revision, reader);
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
        let told = |whole, members: &[Live], node: u8| {
            let bytes = News::new(whole, members.to_vec()).told_to(NodeId::from_bytes([node; 10]))?;
            let Ok(CoordinatorMessage::Live(update)) = from_bytes(&bytes) else { panic!() };
            assert_eq!(update.whole, whole);
            Some(update.members)
        };
        assert_eq!(told(false, &[live(1)], 1), None);
        assert_eq!(told(true, &[live(1)], 1), Some(vec![]), "nobody else is here: that has to be told");
        for whole in [false, true] {
            assert_eq!(told(whole, &[live(1), live(2)], 1), Some(vec![live(2)]));
            assert_eq!(told(whole, &[live(1), live(2)], 3), Some(vec![live(1), live(2)]));
        }
    }

    #[test]
    fn what_has_come_together_is_told_together() {
        let mut network = network();
        let mut told = Vec::new();
        for n in 2..5 {
            let entry = member(n, &format!("robot-{n}"));
            let change = network.next_change(vec![Patch::MemberSet(network.listed(&entry))]);
            network.members.insert(entry.node, entry);
            network.record(change.clone());
            told.push(change);
        }
        let reader = Reader { node: NodeId::from_bytes([2; 10]), protocol: Protocol::NEWEST };
        let Ok(CoordinatorMessage::Patches(set)) = from_bytes(&changes(&told, &network, reader)) else {
            panic!()
        };
        assert_eq!((set.from, set.to, set.patches.len()), (Revision(1), Revision(4), 3));
        assert_eq!(changes(&told[1..2], &network, reader), told[1].encoded, "the same bytes for everybody");

        let live = |n: u8, online| Live {
            node: NodeId::from_bytes([n; 10]),
            online,
            boot: None,
            candidates: vec![],
        };
        let all = [vec![live(1, true), live(2, true)], vec![live(1, false), live(3, true)]];
        let all = all.map(|members| Arc::new(News::new(false, members)));
        let bytes = news(&all, NodeId::from_bytes([2; 10])).unwrap();
        let Ok(CoordinatorMessage::Live(update)) = from_bytes(&bytes) else { panic!() };
        assert_eq!(update.members, [live(1, false), live(3, true)], "the latest of each");
    }

    #[test]
    fn a_preshared_key_is_told_to_those_who_talk_to_the_device_only() {
        use crate::state::stock::tests::static_peer;
        let mut network = network();
        for n in 2..4 {
            let entry = member(n, &format!("robot-{n}"));
            network.members.insert(entry.node, entry);
        }
        let [gateway, other] = [2, 3].map(|n| NodeId::from_bytes([n; 10]));
        let phone = static_peer(9, "phone", Some(gateway));
        network.static_peers.insert(phone.node, phone.clone());
        let patches = vec![
            Patch::MemberSet(phone.to_member(network.info.id)),
            Patch::MemberSet(network.listed(&network.members[&gateway])),
        ];
        let news = network.next_change(patches);
        assert!(!format!("{:?}", to_bytes(&news.set)).contains("[42, 42, 42, 42"), "the log holds no secret");
        network.record(news.clone());
        let told = |node, protocol| -> (Option<Member>, Vec<Patch>) {
            let reader = Reader { node, protocol };
            let members = snapshot(&network, reader).members;
            let phone = members.into_iter().find(|m| m.kind == MemberKind::Static);
            let Ok(CoordinatorMessage::Patches(set)) =
                from_bytes(&changes(std::slice::from_ref(&news), &network, reader))
            else {
                panic!()
            };
            (phone, set.patches)
        };
        let psk = |member: &Member| member.stock.as_ref().unwrap().psk.clone();
        let (listed, patches) = told(gateway, Protocol::V2);
        assert_eq!(psk(&listed.clone().unwrap()), phone.psk);
        assert_eq!(patches[0], Patch::MemberSet(listed.unwrap()));
        let (listed, patches) = told(other, Protocol::V2);
        assert_eq!(psk(&listed.clone().unwrap()), None);
        assert_eq!(patches[0], Patch::MemberSet(listed.unwrap()));
        // An older agent finds the device's addresses with the gateway, and with nobody else.
        let (listed, patches) = told(other, Protocol::V1);
        assert_eq!((listed, &patches[0]), (None, &Patch::MemberRemoved(phone.node)));
        let Patch::MemberSet(listed) = &patches[1] else { panic!() };
        let record = listed.record.open(network.info.id, &[]).unwrap();
        assert_eq!((listed.kind, record.prefixes.len()), (MemberKind::Gateway, 4));
        assert_eq!(record.own_prefixes().count(), 2);

        // Without a gateway all members talk to it.
        let phone = static_peer(9, "phone", None);
        network.static_peers.insert(phone.node, phone.clone());
        let reader = Reader { node: other, protocol: Protocol::V2 };
        let member = snapshot(&network, reader).members.pop().unwrap();
        assert_eq!(psk(&member), phone.psk);
    }
}
