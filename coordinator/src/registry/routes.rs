//! Local networks behind nodes: nodes offer them, administrators approve and withdraw them.

use std::collections::BTreeSet;
use std::time::{Instant, SystemTime};

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::{Patch, SubnetRoute};
use ria_protocol::prefix::Prefix;
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::writer::Writer;
use super::{Registry, Reply, Unavailable};
use crate::audit::{Actor, Event};
use crate::state::routes::{self, MOST_OFFERED, RouteEntry, RouteRefusal};
use crate::state::{MemberEntry, Network};
use crate::store::StoreError;

/// Something about a local network can't be done.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error("there is no such node; `ria-coordinator node list` shows all")]
    NoNode,
    #[error(
        "{node} does not offer {lan}; it offers {offered}. Have its agent's configuration name it ([routes] advertise) first"
    )]
    NotOffered { node: String, lan: Prefix, offered: String },
    #[error("{lan} of {node} is not approved; `ria-coordinator route list` shows what is")]
    NotApproved { node: String, lan: Prefix },
    #[error(transparent)]
    Refused(#[from] RouteRefusal),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<StoreError> for RouteError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// How others are to reach a local network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// By its own addresses.
    Same,
    /// Under this prefix.
    To(Prefix),
    /// Under a prefix that is free.
    Auto,
}

/// A local network of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteOf {
    pub network: NetworkId,
    pub node: NodeId,
    pub lan: Prefix,
}

/// What is asked about local networks.
#[derive(Debug)]
pub(super) enum RouteCommand {
    Offer(NetworkId, NodeId, Vec<Prefix>, Reply<(), Unavailable>),
    Approve(RouteOf, Mapping, Actor, Reply<RouteEntry, RouteError>),
    Withdraw(RouteOf, Actor, Reply<RouteEntry, RouteError>),
}

impl Registry {
    /// A node offers these local networks, and no others.
    pub async fn offer_routes(
        &self,
        network: NetworkId,
        node: NodeId,
        lans: Vec<Prefix>,
    ) -> Result<(), Unavailable> {
        let lans = canonical(lans);
        let known = self.network(network).map(|network| offered(&network, node));
        // Most sessions begin as the one before: the writer is not asked.
        if known.is_none_or(|known| known == lans) {
            return Ok(());
        }
        let lans = lans.into_iter().collect();
        self.ask(|reply| super::Command::Route(RouteCommand::Offer(network, node, lans, reply))).await
    }

    /// Has others reach a local network.
    pub async fn approve_route(
        &self,
        of: RouteOf,
        mapping: Mapping,
        actor: Actor,
    ) -> Result<RouteEntry, RouteError> {
        self.ask(|reply| super::Command::Route(RouteCommand::Approve(of, mapping, actor, reply))).await
    }

    /// Has nobody reach it any more.
    pub async fn withdraw_route(&self, of: RouteOf, actor: Actor) -> Result<RouteEntry, RouteError> {
        self.ask(|reply| super::Command::Route(RouteCommand::Withdraw(of, actor, reply))).await
    }
}

fn canonical(lans: Vec<Prefix>) -> BTreeSet<Prefix> {
    lans.into_iter().collect::<BTreeSet<_>>().into_iter().take(MOST_OFFERED).collect()
}

fn offered(network: &Network, node: NodeId) -> BTreeSet<Prefix> {
    network.routes_of(node).filter(|route| route.offered).map(|route| route.lan).collect()
}

fn shown(lans: &BTreeSet<Prefix>) -> Vec<String> {
    lans.iter().map(ToString::to_string).collect()
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// What the map says of a node whose local networks have changed.
fn patches(network: &Network, member: &MemberEntry) -> Vec<Patch> {
    vec![Patch::MemberSet(network.listed(member))]
}

impl Writer {
    pub(super) async fn handle_route(&mut self, command: RouteCommand) {
        // Whoever asked may have gone away; what was done stays done.
        match command {
            RouteCommand::Offer(network, node, lans, reply) => {
                drop(reply.send(self.offer_routes((network, node), lans.into_iter().collect()).await));
            }
            RouteCommand::Approve(of, mapping, actor, reply) => {
                drop(reply.send(self.approve_route(of, mapping, actor).await));
            }
            RouteCommand::Withdraw(of, actor, reply) => {
                drop(reply.send(self.withdraw_route(of, actor).await));
            }
        }
    }

    async fn offer_routes(
        &mut self,
        (network, node): (NetworkId, NodeId),
        lans: BTreeSet<Prefix>,
    ) -> Result<(), Unavailable> {
        let world = self.world();
        let Some(before) = world.networks.get(&network) else { return Ok(()) };
        let Some(member) = before.members.get(&node) else { return Ok(()) };
        let known = offered(before, node);
        if known == lans {
            return Ok(());
        }
        if !self.row_limiter.allows(node, Instant::now()) {
            tracing::debug!(%node, "a node changes its offers more often than is noted");
            return Ok(());
        }
        let mut changed = Network::clone(before);
        let (mut kept, mut gone) = (Vec::new(), Vec::new());
        let all: BTreeSet<Prefix> =
            before.routes_of(node).map(|route| route.lan).chain(lans.clone()).collect();
        for lan in all {
            let route = changed.routes.get(&(node, Some(lan))).cloned();
            let fresh = || RouteEntry { lan, offered: true, since: now(), approved: None };
            let route = RouteEntry { offered: lans.contains(&lan), ..route.unwrap_or_else(fresh) };
            // An approval outlives the offer: it holds again when the node offers the network again.
            if route.offered || route.approved.is_some() {
                kept.push(route.clone());
                changed.routes.insert((node, Some(lan)), route);
            } else {
                gone.push(lan);
                changed.routes.remove(&(node, Some(lan)));
            }
        }
        let event = Event {
            time: now(),
            actor: Actor::Node(node),
            action: "route.offered",
            network: Some(network),
            subject: member.name.to_string(),
            detail: json!({ "node": node, "before": shown(&known), "after": shown(&lans) }),
        };
        let tells = before.routed_by(node).ne(changed.routed_by(node)) && member.is_active();
        let patches = patches(&changed, member);
        let made = self.change(async move |draft| {
            for route in &kept {
                draft.write().route(network, node, route).await?;
            }
            for lan in gone {
                draft.write().route_removed(network, node, lan).await?;
            }
            if tells {
                draft.change_network(changed, patches).await?;
            } else {
                draft.put(changed);
            }
            draft.audit(&event).await
        });
        Ok(made.await?)
    }

    async fn approve_route(
        &mut self,
        of: RouteOf,
        mapping: Mapping,
        actor: Actor,
    ) -> Result<RouteEntry, RouteError> {
        let world = self.world();
        let network = world.networks.get(&of.network).ok_or(RouteError::NoNode)?;
        let member = network.members.get(&of.node).ok_or(RouteError::NoNode)?;
        let before = network.routes.get(&(of.node, Some(of.lan))).ok_or_else(|| {
            let lans = shown(&offered(network, of.node));
            let offered = if lans.is_empty() { "none".to_owned() } else { lans.join(", ") };
            RouteError::NotOffered { node: member.name.to_string(), lan: of.lan, offered }
        })?;
        let others = world.networks.values().map(|network| &**network);
        let prefix = match mapping {
            Mapping::Same => of.lan,
            Mapping::To(prefix) => prefix,
            Mapping::Auto => routes::free_prefix(network, others.clone(), of.node, of.lan)?,
        };
        routes::check(network, others, of.node, SubnetRoute { prefix, lan: of.lan })?;
        if before.approved.is_some_and(|(_, known)| known == prefix) {
            return Ok(before.clone());
        }
        let route = RouteEntry { approved: Some((now(), prefix)), ..before.clone() };
        let event = event(of, member, "route.approved", actor, (before, &route));
        self.put_route(of, member, route, event).await
    }

    async fn withdraw_route(&mut self, of: RouteOf, actor: Actor) -> Result<RouteEntry, RouteError> {
        let world = self.world();
        let network = world.networks.get(&of.network).ok_or(RouteError::NoNode)?;
        let member = network.members.get(&of.node).ok_or(RouteError::NoNode)?;
        let before = network.routes.get(&(of.node, Some(of.lan))).filter(|route| route.approved.is_some());
        let before =
            before.ok_or_else(|| RouteError::NotApproved { node: member.name.to_string(), lan: of.lan })?;
        let route = RouteEntry { approved: None, ..before.clone() };
        let event = event(of, member, "route.withdrawn", actor, (before, &route));
        self.put_route(of, member, route, event).await
    }

    async fn put_route(
        &mut self,
        of: RouteOf,
        member: &MemberEntry,
        route: RouteEntry,
        event: Event,
    ) -> Result<RouteEntry, RouteError> {
        let world = self.world();
        let network = world.networks.get(&of.network).ok_or(RouteError::NoNode)?;
        let mut changed = Network::clone(network);
        // What is neither approved nor offered is of no more interest.
        let stays = route.offered || route.approved.is_some();
        if stays {
            changed.routes.insert((of.node, Some(of.lan)), route.clone());
        } else {
            changed.routes.remove(&(of.node, Some(of.lan)));
        }
        let (patches, is_active, stored) = (patches(&changed, member), member.is_active(), route.clone());
        let made = self.change(async move |draft| {
            if stays {
                draft.write().route(of.network, of.node, &stored).await?;
            } else {
                draft.write().route_removed(of.network, of.node, of.lan).await?;
            }
            if is_active {
                draft.change_network(changed, patches).await?;
            } else {
                draft.put(changed);
            }
            draft.audit(&event).await
        });
        made.await?;
        Ok(route)
    }
}

fn event(
    of: RouteOf,
    member: &MemberEntry,
    action: &'static str,
    actor: Actor,
    (before, after): (&RouteEntry, &RouteEntry),
) -> Event {
    let prefix = |route: &RouteEntry| route.approved.map(|(_, prefix)| prefix);
    Event {
        time: now(),
        actor,
        action,
        network: Some(of.network),
        subject: member.name.to_string(),
        detail: json!({ "node": of.node, "lan": of.lan, "before": prefix(before), "after": prefix(after) }),
    }
}
