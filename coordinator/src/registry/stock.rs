//! Static peers: what an administrator does about devices with stock WireGuard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::keys::{PresharedKey, WgPublicKey};
use ria_protocol::map::Patch;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::writer::Writer;
use super::{Registry, Reply, Unavailable};
use crate::audit::{Actor, Event};
use crate::random;
use crate::state::etag::{Etag, StaticChanged};
use crate::state::stock::StaticEntry;
use crate::state::{Network, address};
use crate::store::StoreError;

/// Something about a static peer can't be done.
#[derive(Debug, thiserror::Error)]
pub enum StaticPeerError {
    #[error("there is no such network")]
    NoNetwork,
    #[error("there is no such static peer; `ria-coordinator node list` shows all nodes")]
    NoPeer,
    #[error("its gateway is no member any more; name another with --via")]
    NoGateway,
    #[error("another node has the name {0}, or the same one in ROS; choose another")]
    NameTaken(Name),
    #[error(
        "another member has this public key; make a new pair (leave --public-key out, or use `wg genkey`)"
    )]
    KeyTaken,
    #[error("the network has no free address; remove nodes first")]
    NetworkFull,
    #[error(transparent)]
    Changed(#[from] StaticChanged),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<StoreError> for StaticPeerError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// A static peer to make.
#[derive(Debug, Clone)]
pub struct NewStaticPeer {
    pub network: NetworkId,
    pub name: Name,
    pub wg_key: WgPublicKey,
    pub tags: Vec<String>,
    pub psk: Option<PresharedKey>,
    pub gateway: Option<NodeId>,
    pub endpoint: Option<SocketAddr>,
    pub keepalive: Option<u16>,
}

/// Another way to a static peer.
#[derive(Debug, Clone)]
pub struct StaticPeerRoute {
    pub network: NetworkId,
    pub node: NodeId,
    pub gateway: Option<NodeId>,
    /// What the old gateway knows is of no use any more.
    pub psk: Option<PresharedKey>,
    /// What whoever decides has seen of it; absent: does not matter.
    pub seen: Option<Etag>,
}

/// What is asked about static peers.
#[derive(Debug)]
pub(super) enum StaticPeerCommand {
    Add(NewStaticPeer, Actor, Reply<Arc<StaticEntry>, StaticPeerError>),
    Route(StaticPeerRoute, Actor, Reply<Arc<StaticEntry>, StaticPeerError>),
    Remove((NetworkId, NodeId), Option<Etag>, Actor, Reply<Arc<StaticEntry>, StaticPeerError>),
}

impl Registry {
    /// Makes a static peer.
    pub async fn add_static_peer(
        &self,
        new: NewStaticPeer,
        actor: Actor,
    ) -> Result<Arc<StaticEntry>, StaticPeerError> {
        self.ask(|reply| super::Command::StaticPeer(StaticPeerCommand::Add(new, actor, reply))).await
    }

    /// Gives a static peer another gateway, or none.
    pub async fn route_static_peer(
        &self,
        route: StaticPeerRoute,
        actor: Actor,
    ) -> Result<Arc<StaticEntry>, StaticPeerError> {
        self.ask(|reply| super::Command::StaticPeer(StaticPeerCommand::Route(route, actor, reply))).await
    }

    /// Removes a static peer; with what was seen of it, only while it is so.
    pub async fn remove_static_peer(
        &self,
        peer: (NetworkId, NodeId),
        seen: Option<Etag>,
        actor: Actor,
    ) -> Result<Arc<StaticEntry>, StaticPeerError> {
        let command = |reply| StaticPeerCommand::Remove(peer, seen, actor, reply);
        self.ask(|reply| super::Command::StaticPeer(command(reply))).await
    }
}

impl Writer {
    pub(super) async fn handle_static_peer(&mut self, command: StaticPeerCommand) {
        // Whoever asked may have gone away; what was done stays done.
        let (done, reply) = match command {
            StaticPeerCommand::Add(new, actor, reply) => (self.add_static_peer(new, actor).await, reply),
            StaticPeerCommand::Route(route, actor, reply) => {
                (self.route_static_peer(route, actor).await, reply)
            }
            StaticPeerCommand::Remove(peer, seen, actor, reply) => {
                (self.remove_static_peer(peer, seen, actor).await, reply)
            }
        };
        let _ = reply.send(done);
    }

    async fn add_static_peer(
        &mut self,
        new: NewStaticPeer,
        actor: Actor,
    ) -> Result<Arc<StaticEntry>, StaticPeerError> {
        let world = self.world();
        let network = world.networks.get(&new.network).ok_or(StaticPeerError::NoNetwork)?;
        check_gateway(network, new.gateway)?;
        if network.is_taken(&new.name) {
            return Err(StaticPeerError::NameTaken(new.name));
        }
        if network.has_key(&new.wg_key) {
            return Err(StaticPeerError::KeyTaken);
        }
        let now = UnixTime::from(SystemTime::now());
        let node = NodeId::from_bytes(random::bytes());
        let entry = Arc::new(StaticEntry {
            node,
            name: new.name,
            wg_key: new.wg_key,
            address_v4: address::next_v4(network, now).ok_or(StaticPeerError::NetworkFull)?,
            address_v6: address::next_v6(network, node, now).ok_or(StaticPeerError::NetworkFull)?,
            tags: new.tags,
            psk: new.psk,
            gateway: new.gateway,
            endpoint: new.endpoint,
            keepalive: new.keepalive,
            created: now,
        });
        let mut changed = Network::clone(network);
        changed.freed.remove(&entry.address_v4.into());
        changed.freed.remove(&entry.address_v6.into());
        changed.static_peers.insert(node, entry.clone());
        let patches = patches(&changed, &entry, [entry.gateway]);
        let (id, stored) = (changed.info.id, entry.clone());
        let event = event(id, &entry, "static-peer.added", actor, now);
        let made = self.change(async move |draft| {
            draft.write().static_peer(id, &stored).await?;
            draft.change_network(changed, patches).await?;
            draft.audit(&event).await
        });
        made.await?;
        Ok(entry)
    }

    async fn route_static_peer(
        &mut self,
        route: StaticPeerRoute,
        actor: Actor,
    ) -> Result<Arc<StaticEntry>, StaticPeerError> {
        let world = self.world();
        let network = world.networks.get(&route.network).ok_or(StaticPeerError::NoNetwork)?;
        let before = network.static_peers.get(&route.node).ok_or(StaticPeerError::NoPeer)?;
        StaticChanged::check(route.seen.as_ref(), before, network)?;
        check_gateway(network, route.gateway)?;
        let entry = StaticEntry { gateway: route.gateway, psk: route.psk, ..StaticEntry::clone(before) };
        let entry = Arc::new(entry);
        let mut changed = Network::clone(network);
        changed.static_peers.insert(entry.node, entry.clone());
        let patches = patches(&changed, &entry, [before.gateway, entry.gateway]);
        let (id, stored) = (changed.info.id, entry.clone());
        let event = event(id, &entry, "static-peer.routed", actor, UnixTime::from(SystemTime::now()));
        let made = self.change(async move |draft| {
            draft.write().static_peer_routed(id, &stored).await?;
            draft.change_network(changed, patches).await?;
            draft.audit(&event).await
        });
        made.await?;
        Ok(entry)
    }

    async fn remove_static_peer(
        &mut self,
        (network, node): (NetworkId, NodeId),
        seen: Option<Etag>,
        actor: Actor,
    ) -> Result<Arc<StaticEntry>, StaticPeerError> {
        let world = self.world();
        let network = world.networks.get(&network).ok_or(StaticPeerError::NoNetwork)?;
        let entry = network.static_peers.get(&node).cloned().ok_or(StaticPeerError::NoPeer)?;
        StaticChanged::check(seen.as_ref(), &entry, network)?;
        let now = UnixTime::from(SystemTime::now());
        let mut without = Network::clone(network);
        without.static_peers.remove(&node);
        without.tombstones.insert(node, now);
        without.freed.insert(entry.address_v4.into(), now);
        without.freed.insert(entry.address_v6.into(), now);
        let gateway = gateways(&without, [entry.gateway]);
        let patches = std::iter::once(Patch::MemberRemoved(node)).chain(gateway).collect();
        let id = without.info.id;
        let event = event(id, &entry, "static-peer.removed", actor, now);
        let made = self.change(async move |draft| {
            draft.write().static_peer_removed(id, node, now).await?;
            draft.write().tombstone(id, node, now).await?;
            draft.change_network(without, patches).await?;
            draft.audit(&event).await
        });
        made.await?;
        Ok(entry)
    }
}

/// A member that is disabled may be a gateway: it will forward when it is back.
fn check_gateway(network: &Network, gateway: Option<NodeId>) -> Result<(), StaticPeerError> {
    let known = gateway.is_none_or(|gateway| network.members.contains_key(&gateway));
    if known { Ok(()) } else { Err(StaticPeerError::NoGateway) }
}

/// What the map says of a static peer and of the members that forward for it now, or did.
fn patches<const N: usize>(
    network: &Network,
    entry: &StaticEntry,
    touched: [Option<NodeId>; N],
) -> Vec<Patch> {
    let peer = Patch::MemberSet(entry.to_member(network.info.id));
    std::iter::once(peer).chain(gateways(network, touched)).collect()
}

/// What the map says of these members as gateways.
pub(super) fn gateways<const N: usize>(
    network: &Network,
    touched: [Option<NodeId>; N],
) -> impl Iterator<Item = Patch> {
    let mut nodes: Vec<NodeId> = touched.into_iter().flatten().collect();
    nodes.dedup();
    let members = nodes.into_iter().filter_map(|node| network.members.get(&node));
    members.filter(|member| member.is_active()).map(|member| Patch::MemberSet(network.listed(member)))
}

/// The audit log knows that there is a pre-shared key, and never which.
fn event(
    network: NetworkId,
    entry: &StaticEntry,
    action: &'static str,
    actor: Actor,
    time: UnixTime,
) -> Event {
    Event {
        time,
        actor,
        action,
        network: Some(network),
        subject: entry.name.to_string(),
        detail: json!({
            "node": entry.node,
            "wg_key": entry.wg_key,
            "address_v4": entry.address_v4,
            "address_v6": entry.address_v6,
            "gateway": entry.gateway,
            "psk": entry.psk.is_some(),
        }),
    }
}
