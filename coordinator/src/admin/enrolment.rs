//! The admin socket's side of enrolment: who has used a join key, who waits for approval, names and tags.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path as UrlPath, Query};
use axum::response::Response;
use ria_protocol::id::KeyId;
use ria_protocol::time::UnixTime;

use super::api::Problem;
use super::api::{Approve, KeyDetail, NodeView, PendingView, ProblemCode, Rename, Tag};
use super::desk::Shared;
use super::seen::{Seen, with_etag};
use super::server::{Answer, Body, By, NetworkFilter, find_network, find_node, presence, problem};
use super::views;
use crate::registry::{CreateKeyError, DecideError, EditNodeError, NodeEdit, RevokeKeyError, SeenEdit};
use crate::state::waiting::WaitingEntry;
use crate::state::{Network, World};

impl From<EditNodeError> for Problem {
    fn from(error: EditNodeError) -> Self {
        match error {
            EditNodeError::Unavailable(error) => error.into(),
            EditNodeError::NoNode => problem(ProblemCode::NotFound, error),
            EditNodeError::Changed(_) => problem(ProblemCode::Changed, error),
            EditNodeError::Mentioned(_) => problem(ProblemCode::NotPermitted, error),
            EditNodeError::NameTaken(_) | EditNodeError::TooManyTags => problem(ProblemCode::Conflict, error),
        }
    }
}

impl From<CreateKeyError> for Problem {
    fn from(error: CreateKeyError) -> Self {
        match error {
            CreateKeyError::Unavailable(error) => error.into(),
            CreateKeyError::NoNetwork => problem(ProblemCode::NotFound, error),
            CreateKeyError::Mentioned(_) => problem(ProblemCode::NotPermitted, error),
        }
    }
}

impl From<DecideError> for Problem {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::Unavailable(error) => error.into(),
            DecideError::NoNode => problem(ProblemCode::NotFound, error),
            DecideError::Mentioned(_) => problem(ProblemCode::NotPermitted, error),
            DecideError::NameTaken(_) | DecideError::NetworkFull => problem(ProblemCode::Conflict, error),
        }
    }
}

pub(super) async fn show_key(Shared(admin): Shared, UrlPath(id): UrlPath<String>) -> Answer<KeyDetail> {
    let id: KeyId = id.parse().map_err(|error| problem(ProblemCode::BadRequest, error))?;
    let world = admin.world();
    let none = || problem(ProblemCode::NotFound, RevokeKeyError::NoKey(id));
    let key = world.keys.get(&id).ok_or_else(none)?;
    let network = world.networks.get(&key.network).ok_or_else(none)?;
    let view = views::key(&world, key, UnixTime::from(SystemTime::now())).ok_or_else(none)?;
    let uses = admin.store.key_uses(id).await?;
    let used_by = uses.into_iter().map(|by| views::key_use(network, by)).collect();
    Ok(Json(KeyDetail { view, used_by }))
}

pub(super) async fn rename_node(
    Shared(admin): Shared,
    UrlPath(wanted): UrlPath<String>,
    Query(filter): Query<NetworkFilter>,
    axum::Extension(actor): By,
    Seen(seen): Seen,
    Body(request): Body<Rename>,
) -> Result<Response, Problem> {
    let edit = SeenEdit { edit: NodeEdit::Rename(request.name), seen };
    edit_node(&admin, &wanted, filter, edit, actor).await
}

pub(super) async fn tag_node(
    Shared(admin): Shared,
    UrlPath(wanted): UrlPath<String>,
    Query(filter): Query<NetworkFilter>,
    axum::Extension(actor): By,
    Seen(seen): Seen,
    Body(request): Body<Tag>,
) -> Result<Response, Problem> {
    let edit = SeenEdit { edit: NodeEdit::Tag { add: request.add, remove: request.remove }, seen };
    edit_node(&admin, &wanted, filter, edit, actor).await
}

async fn edit_node(
    admin: &super::desk::Desk,
    wanted: &str,
    filter: NetworkFilter,
    edit: SeenEdit,
    actor: crate::audit::Actor,
) -> Result<Response, Problem> {
    let presence = presence(admin).await?;
    let registry = &admin.services.registry;
    let world = admin.world();
    let (network, member) = find_node(&world, wanted, filter.network.as_deref())?;
    let id = network.info.id;
    let member = registry.edit_node(id, member.node, edit, actor).await?;
    let network = registry.network(id).unwrap_or_else(|| network.clone());
    Ok(with_etag(views::node(&network, &member, presence.get(&(id, member.node)))))
}

pub(super) async fn list_pending(
    Shared(admin): Shared,
    Query(filter): Query<NetworkFilter>,
) -> Answer<Vec<PendingView>> {
    let present = admin.services.hub.present().await?;
    let world = admin.world();
    let only = filter.network.map(|name| find_network(&world, &name).map(|n| n.info.id)).transpose()?;
    let networks = world.networks.values().filter(|n| only.is_none_or(|only| n.info.id == only));
    let mut all: Vec<PendingView> = networks
        .flat_map(|n| n.waiting.values().map(move |w| (n, w)))
        .map(|(n, w)| views::pending(&world, n, w, &present))
        .collect();
    all.sort_by_key(|pending| pending.asked);
    Ok(Json(all))
}

pub(super) async fn approve(
    Shared(admin): Shared,
    UrlPath(wanted): UrlPath<String>,
    Query(filter): Query<NetworkFilter>,
    axum::Extension(actor): By,
    Body(request): Body<Approve>,
) -> Answer<NodeView> {
    let registry = &admin.services.registry;
    let world = admin.world();
    let (network, entry) = find_waiting(&world, &wanted, filter.network.as_deref())?;
    let id = network.info.id;
    let mut member = registry.approve(id, entry.node, request.name.clone(), actor.clone()).await?;
    if let Some(name) = request.name.filter(|name| *name != member.name) {
        // A former member keeps its name unless it was given another one.
        member = registry.edit_node(id, member.node, NodeEdit::Rename(name), actor).await?;
    }
    let network = registry.network(id).unwrap_or_else(|| network.clone());
    Ok(Json(views::node(&network, &member, None)))
}

pub(super) async fn reject(
    Shared(admin): Shared,
    UrlPath(wanted): UrlPath<String>,
    Query(filter): Query<NetworkFilter>,
    axum::Extension(actor): By,
) -> Answer<PendingView> {
    let registry = &admin.services.registry;
    let world = admin.world();
    let (network, entry) = find_waiting(&world, &wanted, filter.network.as_deref())?;
    let entry = registry.reject(network.info.id, entry.node, actor).await?;
    let present = admin.services.hub.present().await?;
    Ok(Json(views::pending(&world, network, &entry, &present)))
}

/// The waiting node of this name, identity or fingerprint. Names of nodes that wait are not unique: whoever has a key
/// may ask for any.
fn find_waiting<'w>(
    world: &'w World,
    wanted: &str,
    network: Option<&str>,
) -> Result<(&'w Arc<Network>, &'w Arc<WaitingEntry>), Problem> {
    let only = network.map(|network| find_network(world, network)).transpose()?;
    let networks = world.networks.values().filter(|n| only.is_none_or(|only| only.info.id == n.info.id));
    let id = wanted.parse().ok();
    let is_it = |n: &Network, w: &WaitingEntry| {
        id == Some(w.node)
            || w.fingerprint() == wanted
            || w.name.as_str() == wanted
            || n.name_for(w).as_str() == wanted
    };
    let mut found = networks.flat_map(|n| n.waiting.values().filter(|w| is_it(n, w)).map(move |w| (n, w)));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(problem(
            ProblemCode::BadRequest,
            format!(
                "several nodes wait under the name {wanted:?}; name one by its fingerprint, which \
                 `ria-coordinator node pending` and `ria status` on the machine show"
            ),
        )),
        (None, _) => Err(problem(
            ProblemCode::NotFound,
            format!("no node {wanted:?} waits for approval; `ria-coordinator node pending` shows all"),
        )),
    }
}
