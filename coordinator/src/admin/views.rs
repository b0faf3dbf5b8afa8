//! From the state to what administrators see of it.

use std::collections::BTreeMap;

use ria_protocol::id::NodeId;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;

use super::api::{CandidateView, KeyView, NetworkView, NodeView};
use crate::hub::{NodeKey, Presence};
use crate::state::{JoinKeyEntry, MemberEntry, Network, World};

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
    })
}

pub(super) fn node(network: &Network, member: &MemberEntry, presence: Option<&Presence>) -> NodeView {
    let last_contact = presence.map_or(member.last_contact, |p| p.last_contact.max(member.last_contact));
    let heard = MemberEntry { last_contact, ..member.clone() };
    NodeView {
        id: member.node,
        name: member.name.clone(),
        network: network.info.name.clone(),
        online: presence.is_some_and(|p| p.online),
        addresses: vec![member.address_v4.into(), member.address_v6.into()],
        tags: member.tags.clone(),
        wg_key: member.wg_key,
        tls_key: member.tls_key,
        joined: member.joined,
        join_key: member.join_key,
        last_contact,
        expires: heard.expires(),
        agent_version: presence.map_or_else(|| member.agent_version.clone(), |p| p.agent_version.clone()),
        boot: presence.and_then(|p| p.boot),
        candidates: presence.map_or_else(Vec::new, |p| {
            p.candidates.iter().map(|c| CandidateView { kind: c.kind, address: c.address }).collect()
        }),
        acked_revision: presence.and_then(|p| p.acked.map(|(revision, _)| revision)),
        acked_at: presence.and_then(|p| p.acked.map(|(_, time)| time)),
        map_revision: network.revision,
    }
}
