//! From the state to what administrators see of it.

use std::collections::BTreeMap;

use ria_protocol::id::NodeId;
use ria_protocol::map::MemberKind;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;

use super::api::{
    CandidateView, ClonedView, KeyUseView, KeyUserState, KeyView, NetworkView, NodeView, PendingState,
    PendingView,
};
use crate::hub::{NodeKey, Presence, Present};
use crate::state::domains::WantedDomains;
use crate::state::stock::StaticEntry;
use crate::state::waiting::WaitingEntry;
use crate::state::{JoinKeyEntry, MemberEntry, Network, World};
use crate::store::KeyUse;

pub(super) type PresenceTable = BTreeMap<NodeKey, Presence>;

pub(super) fn network(network: &Network, presence: &PresenceTable) -> NetworkView {
    let online = |node: &NodeId| presence.get(&(network.info.id, *node)).is_some_and(|p| p.online);
    NetworkView {
        id: network.info.id,
        name: network.info.name.clone(),
        prefix_v4: network.info.prefix_v4,
        prefix_v6: network.info.prefix_v6,
        mtu: network.info.mtu,
        revision: network.revision,
        created: network.created,
        nodes: network.members.len(),
        online: network.members.keys().filter(|node| online(node)).count(),
        ros_domains: network.info.ros_domains.clone().map(WantedDomains::Exactly),
        multicast: network.info.multicast.clone().unwrap_or_default(),
        peers: network.info.peers.unwrap_or_default(),
    }
}

/// `None` when its network is gone.
pub(super) fn key(world: &World, key: &JoinKeyEntry, now: UnixTime) -> Option<KeyView> {
    let network = world.networks.get(&key.network)?;
    Some(KeyView {
        id: key.id,
        network: network.info.name.clone(),
        status: key.status(now),
        reusable: key.reusable,
        tags: key.tags.iter().filter_map(|tag| tag.parse::<Name>().ok()).collect(),
        created: key.created,
        expires: key.expires,
        revoked: key.revoked,
        uses: key.uses,
        ephemeral: key.ephemeral.map(|d| d.as_secs()),
        approve: key.approve,
    })
}

/// A use of a join key, and what became of the node.
pub(super) fn key_use(network: &Network, by: KeyUse) -> KeyUseView {
    let member = network.members.get(&by.node);
    let state = match (member, network.waiting.get(&by.node)) {
        (Some(_), _) => KeyUserState::Member,
        (None, Some(entry)) if entry.rejected.is_some() => KeyUserState::Rejected,
        (None, Some(_)) => KeyUserState::Waiting,
        (None, None) => KeyUserState::Gone,
    };
    KeyUseView {
        node: by.node,
        name: member.map_or(by.name, |member| member.name.clone()),
        time: by.time,
        state,
    }
}

pub(super) fn pending(
    world: &World,
    network: &Network,
    entry: &WaitingEntry,
    present: &Present,
) -> PendingView {
    let member = network.members.get(&entry.node);
    let key = world.keys.get(&entry.join_key);
    PendingView {
        id: entry.node,
        name: network.name_for(entry),
        network: network.info.name.clone(),
        state: if entry.rejected.is_some() { PendingState::Rejected } else { PendingState::Waiting },
        fingerprint: entry.fingerprint(),
        wg_key: entry.wg_key,
        tls_key: entry.tls_key,
        join_key: entry.join_key,
        tags: member.map(|m| &m.tags).or(key.map(|k| &k.tags)).cloned().unwrap_or_default(),
        former: entry.former,
        connected: present.waiting.contains(&(network.info.id, entry.node)),
        address: entry.address,
        agent_version: entry.agent_version.clone(),
        asked: entry.asked,
        heard: entry.heard,
        expires: entry.expires(),
    }
}

/// A static peer among the nodes. It is never online, for it never comes here.
pub(super) fn static_node(network: &Network, peer: &StaticEntry) -> NodeView {
    let gateway = peer.gateway.and_then(|gateway| network.members.get(&gateway));
    NodeView {
        id: peer.node,
        etag: peer.etag().as_str().to_owned(),
        name: peer.name.clone(),
        network: network.info.name.clone(),
        kind: MemberKind::Static,
        gateway: gateway.map(|gateway| gateway.name.clone()),
        forwards_for: Vec::new(),
        psk: peer.psk.is_some(),
        online: false,
        addresses: vec![peer.address_v4.into(), peer.address_v6.into()],
        tags: peer.tags.clone(),
        wg_key: peer.wg_key,
        tls_key: None,
        joined: peer.created,
        join_key: None,
        last_contact: None,
        expires: None,
        ephemeral: None,
        agent_version: String::new(),
        clock_offset: None,
        disabled: None,
        owner: None,
        validated: None,
        login_due: None,
        ros_domain: None,
        boot: None,
        candidates: Vec::new(),
        acked_revision: None,
        acked_at: None,
        map_revision: network.revision,
        cloned: None,
    }
}

pub(super) fn node(network: &Network, member: &MemberEntry, presence: Option<&Presence>) -> NodeView {
    let last_contact = presence.map_or(member.last_contact, |p| p.last_contact.max(member.last_contact));
    let heard = MemberEntry { last_contact, ..member.clone() };
    NodeView {
        id: member.node,
        etag: member.etag().as_str().to_owned(),
        name: member.name.clone(),
        network: network.info.name.clone(),
        kind: network.listed(member).kind,
        gateway: None,
        forwards_for: network.behind(member.node).map(|peer| peer.name.clone()).collect(),
        psk: false,
        online: presence.is_some_and(|p| p.online),
        addresses: vec![member.address_v4.into(), member.address_v6.into()],
        tags: member.tags.clone(),
        wg_key: member.wg_key,
        tls_key: Some(member.tls_key),
        joined: member.joined,
        join_key: Some(member.join_key),
        last_contact: Some(last_contact),
        expires: Some(heard.expires(network.membership)),
        ephemeral: member.ephemeral.map(|d| d.as_secs()),
        agent_version: presence.map_or_else(|| member.agent_version.clone(), |p| p.agent_version.clone()),
        clock_offset: presence.and_then(|p| p.clock_offset),
        disabled: member.disabled,
        owner: member.laptop.as_ref().map(|laptop| laptop.owner.clone()),
        validated: member.laptop.as_ref().map(|laptop| laptop.validated),
        login_due: member.laptop.as_ref().and_then(|laptop| laptop.due),
        ros_domain: member.ros_domain,
        boot: presence.and_then(|p| p.boot),
        candidates: presence.map_or_else(Vec::new, |p| {
            p.candidates.iter().map(|c| CandidateView { kind: c.kind, address: c.address }).collect()
        }),
        acked_revision: presence.and_then(|p| p.acked.map(|(revision, _)| revision)),
        acked_at: presence.and_then(|p| p.acked.map(|(_, time)| time)),
        map_revision: network.revision,
        cloned: presence.and_then(cloned),
    }
}

fn cloned(presence: &Presence) -> Option<ClonedView> {
    let cloned = presence.cloned.as_ref()?;
    Some(ClonedView { since: cloned.since, kept: presence.from, refused: cloned.other.clone() })
}
