//! The admin socket's answers about local networks behind nodes.
//!
//! ```text
//! GET  /v1/routes?network=
//! POST /v1/nodes/{name or id}/routes/approve      POST /v1/nodes/{name or id}/routes/withdraw
//! ```

use std::sync::Arc;

use axum::extract::{Path as UrlPath, Query};
use axum::routing::{get, post};
use axum::{Json, Router};
use ria_protocol::id::NodeId;
use ria_protocol::name::Name;
use ria_protocol::prefix::Prefix;
use ria_protocol::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::api::{Problem, ProblemCode};
use super::desk::Shared;
use super::server::{Admin, Answer, Body, By, NetworkFilter, find_network, find_node, problem};
use crate::registry::routes::{Mapping, RouteError, RouteOf};
use crate::state::routes::{RouteEntry, RouteRefusal};
use crate::state::{MemberEntry, Network};

/// A local network behind a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    pub network: Name,
    pub node: Name,
    pub node_id: NodeId,
    /// What it is there.
    pub lan: Prefix,
    pub state: RouteState,
    /// How others reach it, once it is approved.
    pub prefix: Option<Prefix>,
    /// Since when it is known.
    pub since: UnixTime,
    pub approved: Option<UnixTime>,
    /// Whether a rule of the policy is about it; absent where there is no policy, and all may reach it.
    pub in_policy: Option<bool>,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteState {
    /// The node offers it; nobody reaches it.
    Proposed,
    /// Others reach it.
    Approved,
    /// It is approved, and the node does not offer it any more.
    NotOffered,
}

/// What is to be approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveRoute {
    pub lan: Prefix,
    /// `auto`, or a prefix; absent: others reach it by its own addresses.
    #[serde(default)]
    pub map: Option<String>,
}

/// What is to be withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithdrawRoute {
    pub lan: Prefix,
}

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/v1/routes", get(list))
        .route("/v1/nodes/{node}/routes/approve", post(approve))
        .route("/v1/nodes/{node}/routes/withdraw", post(withdraw))
}

impl From<RouteError> for Problem {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::Unavailable(error) => error.into(),
            RouteError::NoNode | RouteError::NotOffered { .. } | RouteError::NotApproved { .. } => {
                problem(ProblemCode::NotFound, error)
            }
            RouteError::Refused(
                RouteRefusal::Overlay { .. }
                | RouteRefusal::Taken { .. }
                | RouteRefusal::Ambiguous { .. }
                | RouteRefusal::NoneFree(_),
            ) => problem(ProblemCode::Conflict, error),
            RouteError::Refused(_) => problem(ProblemCode::BadRequest, error),
        }
    }
}

fn view(network: &Network, member: &MemberEntry, route: &RouteEntry) -> RouteView {
    let in_force = network.policy.in_force.as_ref();
    let prefix = route.approved.map(|(_, prefix)| prefix);
    RouteView {
        network: network.info.name.clone(),
        node: member.name.clone(),
        node_id: member.node,
        lan: route.lan,
        state: match (route.approved, route.offered) {
            (None, _) => RouteState::Proposed,
            (Some(_), true) => RouteState::Approved,
            (Some(_), false) => RouteState::NotOffered,
        },
        prefix,
        since: route.since,
        approved: route.approved.map(|(time, _)| time),
        in_policy: in_force.zip(prefix).map(|(in_force, prefix)| in_force.policy.reaches(prefix)),
    }
}

fn views(network: &Network) -> Vec<RouteView> {
    let mut members: Vec<_> = network.members.values().collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let of = |member: &&Arc<MemberEntry>| {
        network.routes_of(member.node).map(|route| view(network, member, route)).collect::<Vec<_>>()
    };
    members.iter().flat_map(of).collect()
}

async fn list(Shared(admin): Shared, Query(filter): Query<NetworkFilter>) -> Answer<Vec<RouteView>> {
    let world = admin.world();
    let only = filter.network.map(|name| find_network(&world, &name).map(|n| n.info.id)).transpose()?;
    let networks = world.networks.values().filter(|network| only.is_none_or(|only| only == network.info.id));
    Ok(Json(networks.flat_map(|network| views(network)).collect()))
}

fn mapping(text: Option<&str>) -> Result<Mapping, Problem> {
    match text {
        None => Ok(Mapping::Same),
        Some("auto") => Ok(Mapping::Auto),
        Some(text) => text.parse().map(Mapping::To).map_err(|_| {
            problem(
                ProblemCode::BadRequest,
                format!("{text:?} is no prefix; write auto, or one such as 10.66.3.0/24"),
            )
        }),
    }
}

async fn approve(
    Shared(admin): Shared,
    UrlPath(wanted): UrlPath<String>,
    Query(filter): Query<NetworkFilter>,
    axum::Extension(actor): By,
    Body(request): Body<ApproveRoute>,
) -> Answer<RouteView> {
    let mapping = mapping(request.map.as_deref())?;
    let world = admin.world();
    let (network, member) = find_node(&world, &wanted, filter.network.as_deref())?;
    let of = RouteOf { network: network.info.id, node: member.node, lan: request.lan };
    let route = admin.services.registry.approve_route(of, mapping, actor).await?;
    Ok(Json(view(network, member, &route)))
}

async fn withdraw(
    Shared(admin): Shared,
    UrlPath(wanted): UrlPath<String>,
    Query(filter): Query<NetworkFilter>,
    axum::Extension(actor): By,
    Body(request): Body<WithdrawRoute>,
) -> Answer<RouteView> {
    let world = admin.world();
    let (network, member) = find_node(&world, &wanted, filter.network.as_deref())?;
    let of = RouteOf { network: network.info.id, node: member.node, lan: request.lan };
    let route = admin.services.registry.withdraw_route(of, actor).await?;
    Ok(Json(view(network, member, &route)))
}
