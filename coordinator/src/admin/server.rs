//! The server's side of the admin socket.
//!
//! ```text
//! GET  /v1/networks            POST /v1/networks           GET /v1/networks/{name}
//! POST /v1/networks/{name}/multicast    POST /v1/networks/{name}/peers
//! GET  /v1/keys                POST /v1/keys               POST /v1/keys/{id}/revoke
//! GET  /v1/nodes?network=      GET /v1/nodes/{name or id}  DELETE /v1/nodes/{name or id}
//! POST /v1/nodes/{name or id}/rename                       POST /v1/nodes/{name or id}/tag
//! GET  /v1/pending?network=    POST /v1/pending/{name, id or fingerprint}/approve, .../reject
//! POST /v1/nodes/{name or id}/disable                   POST /v1/nodes/{name or id}/enable
//! POST /v1/static-peers         POST /v1/static-peers/{name or id}/gateway
//! GET  /v1/keys/{id}
//! GET  /v1/links?network=       GET /v1/nodes/{name or id}/history
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::connect_info::Connected;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, FromRequest, Path as UrlPath, Query, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use ria_protocol::id::KeyId;
use ria_protocol::join_key::JoinKey;
use ria_protocol::time::UnixTime;
use serde::Deserialize;
use tokio::net::UnixListener;

use super::api::{
    CreateKey, CreateNetwork, CreatedKey, KeyView, NetworkView, NodeView, Problem, ProblemCode, SetMulticast,
    SetPeers,
};
use super::chain::Chain;
use super::desk::Shared;
use super::seen::{Seen, with_etag};
use super::views::{self, PresenceTable};
use super::{enrolment, stock};
use crate::audit::Actor;
use crate::config::PublicUrl;
use crate::hub::{HubGone, NodeKey};
use crate::person::Person;
use crate::registry::{
    CreateKeyError, CreateNetworkError, NewKey, NewNetwork, NodeStanding, RemoveNodeError, RevokeKeyError,
    SetNetworkError, SetNodeEnabledError, Unavailable,
};
use crate::session::Services;
use crate::state::etag::Etag;
use crate::state::people::Reach;
use crate::state::{MemberEntry, Network, World};
use crate::store::{Store, StoreError};

/// What the admin socket works on.
#[derive(Debug)]
pub struct Admin {
    pub services: Arc<Services>,
    pub store: Store,
    pub public_urls: Vec<PublicUrl>,
    pub data_dir: PathBuf,
    /// Of TLS.
    pub port: u16,
    /// How far the audit log was verified.
    pub chain: Chain,
}

/// The admin socket can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "another coordinator answers at {path}; give this one a socket of its own with --admin-socket or RIA_ADMIN_SOCKET",
        path = .0.display()
    )]
    InUse(PathBuf),
    #[error("{path} is there and is no socket; remove it, or choose another path with --admin-socket", path = .0.display())]
    NotASocket(PathBuf),
    #[error("the admin socket {path} can't be opened: {source}; choose another path with --admin-socket or RIA_ADMIN_SOCKET",
        path = path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Opens the socket so that at no time anybody else may connect.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(BindError::InUse(path.to_owned()));
        }
        Ok(_) | Err(_) => {}
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    // Made under another name, made private, and only then put where it is found.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let _ = fs::remove_file(&unfinished);
    let listener = UnixListener::bind(&unfinished).map_err(failed)?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&unfinished, path).map_err(failed)?;
    Ok(listener)
}

/// Serves until the coordinator drains.
pub async fn serve(listener: UnixListener, admin: Arc<Admin>) -> io::Result<()> {
    let draining = admin.services.draining.clone();
    let router = router(admin).into_make_service_with_connect_info::<Caller>();
    axum::serve(listener, router).with_graceful_shutdown(draining.cancelled_owned()).await
}

fn router(admin: Arc<Admin>) -> Router {
    operations(admin).layer(middleware::from_fn(check_caller))
}

/// All operations, for whoever has found out who asks: each request carries an [`Actor`] and a [`Reach`].
pub(crate) fn operations(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/v1/networks", get(list_networks).post(create_network))
        .route("/v1/networks/{name}", get(show_network))
        .route("/v1/networks/{name}/multicast", post(set_multicast))
        .route("/v1/networks/{name}/peers", post(set_peers))
        .route("/v1/keys", get(list_keys).post(create_key))
        .route("/v1/keys/{id}", get(enrolment::show_key))
        .route("/v1/keys/{id}/revoke", post(revoke_key))
        .route("/v1/nodes", get(list_nodes))
        .route("/v1/nodes/{node}", get(show_node).delete(remove_node))
        .route("/v1/nodes/{node}/rename", post(enrolment::rename_node))
        .route("/v1/nodes/{node}/tag", post(enrolment::tag_node))
        .route("/v1/static-peers", post(stock::add_static))
        .route("/v1/static-peers/{node}/gateway", post(stock::set_gateway))
        .route("/v1/pending", get(enrolment::list_pending))
        .route("/v1/pending/{node}/approve", post(enrolment::approve))
        .route("/v1/pending/{node}/reject", post(enrolment::reject))
        .route("/v1/nodes/{node}/disable", post(disable_node))
        .route("/v1/nodes/{node}/enable", post(enable_node))
        .merge(super::audit::routes())
        .merge(super::upkeep::routes())
        .merge(super::relays::routes())
        .merge(super::policy::routes())
        .merge(super::routes::routes())
        .merge(super::authorities::routes())
        .merge(super::people::routes())
        .merge(super::links::routes())
        .with_state(admin)
}

/// Whose process is at the other end; `None` when the kernel does not say.
#[derive(Debug, Clone, Copy)]
struct Caller(Option<(u32, Option<i32>)>);

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|credentials| (credentials.uid(), credentials.pid())))
    }
}

/// The file's permissions say the same; this holds even where somebody changed them.
async fn check_caller(
    ConnectInfo(caller): ConnectInfo<Caller>,
    mut request: Request,
    next: Next,
) -> Response {
    let own = nix::unistd::geteuid().as_raw();
    match caller.0 {
        Some((uid, pid)) if uid == 0 || uid == own => {
            request.extensions_mut().insert(Actor::Person(Person::of(uid, pid).await));
            request.extensions_mut().insert(Reach::All);
            next.run(request).await
        }
        Some(_) | None => {
            problem(ProblemCode::NotPermitted, "only root may administer the coordinator; use sudo")
                .into_response()
        }
    }
}

pub(super) type Answer<T> = Result<Json<T>, Problem>;
pub(super) type By = axum::Extension<Actor>;

pub(super) fn problem(code: ProblemCode, message: impl std::fmt::Display) -> Problem {
    Problem { code, message: message.to_string() }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match self.code {
            ProblemCode::BadRequest => StatusCode::BAD_REQUEST,
            ProblemCode::NotPermitted => StatusCode::FORBIDDEN,
            ProblemCode::NotFound => StatusCode::NOT_FOUND,
            ProblemCode::Conflict | ProblemCode::NotReady => StatusCode::CONFLICT,
            ProblemCode::Changed => StatusCode::PRECONDITION_FAILED,
            ProblemCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut response = (status, Json(&self)).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Unavailable> for Problem {
    fn from(error: Unavailable) -> Self {
        problem(ProblemCode::Unavailable, error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        problem(ProblemCode::Unavailable, error)
    }
}

impl From<HubGone> for Problem {
    fn from(error: HubGone) -> Self {
        problem(ProblemCode::Unavailable, error)
    }
}

/// A JSON body, with mistakes answered in the form of all other problems.
pub(super) struct Body<T>(pub(super) T);

impl<T, S> FromRequest<S> for Body<T>
where
    Json<T>: FromRequest<S, Rejection = JsonRejection>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Json::<T>::from_request(request, state).await;
        body.map(|Json(body)| Self(body)).map_err(|e| problem(ProblemCode::BadRequest, e.body_text()))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct NetworkFilter {
    pub(super) network: Option<String>,
}

/// The network of this name or identity.
pub(super) fn find_network<'w>(world: &'w World, wanted: &str) -> Result<&'w Arc<Network>, Problem> {
    let by_id = || wanted.parse().ok().and_then(|id| world.networks.get(&id));
    world.network_named(wanted).or_else(by_id).ok_or_else(|| {
        problem(
            ProblemCode::NotFound,
            format!("there is no network {wanted:?}; `ria-coordinator network list` shows all"),
        )
    })
}

/// The network that is meant: the one that is named, or the only one.
pub(super) fn choose_network<'w>(
    world: &'w World,
    wanted: Option<&str>,
) -> Result<&'w Arc<Network>, Problem> {
    let mut all = world.networks.values();
    match (wanted, all.next(), all.next()) {
        (Some(wanted), _, _) => find_network(world, wanted),
        (None, Some(only), None) => Ok(only),
        (None, Some(_), Some(_)) => {
            Err(problem(ProblemCode::BadRequest, "there are several networks; name one with --network"))
        }
        (None, None, _) => Err(problem(
            ProblemCode::NotFound,
            "there is no network; make one with `ria-coordinator network create`",
        )),
    }
}

/// The node of this name or identity, in the network that is named or in any.
pub(super) fn find_node<'w>(
    world: &'w World,
    wanted: &str,
    network: Option<&str>,
) -> Result<(&'w Arc<Network>, &'w Arc<MemberEntry>), Problem> {
    let only = network.map(|network| find_network(world, network)).transpose()?;
    let networks = world.networks.values().filter(|n| only.is_none_or(|only| only.info.id == n.info.id));
    let is_it =
        |m: &&Arc<MemberEntry>| m.name.as_str() == wanted || wanted.parse().is_ok_and(|id| m.node == id);
    let mut found = networks.filter_map(|n| n.members.values().find(is_it).map(|m| (n, m)));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(problem(
            ProblemCode::BadRequest,
            format!("several networks have a node {wanted:?}; name one with --network"),
        )),
        (None, _) if stock::find_static(world, wanted, network)?.is_some() => Err(problem(
            ProblemCode::Conflict,
            format!("{wanted:?} is a static peer; it can be shown, removed, and given another gateway"),
        )),
        (None, _) => Err(problem(
            ProblemCode::NotFound,
            format!("there is no node {wanted:?}; `ria-coordinator node list` shows all"),
        )),
    }
}

pub(super) async fn presence(admin: &Admin) -> Result<PresenceTable, Problem> {
    Ok(admin.services.hub.presence().await?)
}

async fn list_networks(Shared(admin): Shared) -> Answer<Vec<NetworkView>> {
    let presence = presence(&admin).await?;
    let world = admin.world();
    let mut all: Vec<_> = world.networks.values().map(|network| views::network(network, &presence)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(all))
}

async fn show_network(Shared(admin): Shared, UrlPath(name): UrlPath<String>) -> Answer<NetworkView> {
    let presence = presence(&admin).await?;
    let world = admin.world();
    Ok(Json(views::network(find_network(&world, &name)?, &presence)))
}

async fn create_network(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    Body(request): Body<CreateNetwork>,
) -> Answer<NetworkView> {
    let new = NewNetwork {
        name: request.name,
        prefix_v4: request.prefix_v4,
        mtu: request.mtu,
        ros_domains: request.ros_domains,
        multicast: request.multicast,
        peers: request.peers.unwrap_or_default(),
    };
    let network = admin.services.registry.create_network(new, actor).await.map_err(|error| match error {
        CreateNetworkError::Unavailable(error) => error.into(),
        CreateNetworkError::NameTaken(_) => problem(ProblemCode::Conflict, error),
        CreateNetworkError::Prefix(error) => problem(ProblemCode::BadRequest, error),
        CreateNetworkError::Mtu(_) => problem(ProblemCode::BadRequest, error),
        CreateNetworkError::NoDomain => problem(ProblemCode::Conflict, error),
    })?;
    Ok(Json(views::network(&network, &PresenceTable::new())))
}

fn not_set(error: SetNetworkError) -> Problem {
    match error {
        SetNetworkError::Unavailable(error) => error.into(),
        SetNetworkError::NoNetwork => problem(ProblemCode::NotFound, error),
    }
}

async fn set_multicast(
    Shared(admin): Shared,
    UrlPath(name): UrlPath<String>,
    axum::Extension(actor): By,
    Body(request): Body<SetMulticast>,
) -> Answer<NetworkView> {
    let presence = presence(&admin).await?;
    let id = find_network(&admin.world(), &name)?.info.id;
    let registry = &admin.services.registry;
    let network = registry.set_multicast(id, request.groups, actor).await.map_err(not_set)?;
    Ok(Json(views::network(&network, &presence)))
}

async fn set_peers(
    Shared(admin): Shared,
    UrlPath(name): UrlPath<String>,
    axum::Extension(actor): By,
    Body(request): Body<SetPeers>,
) -> Answer<NetworkView> {
    let presence = presence(&admin).await?;
    let id = find_network(&admin.world(), &name)?.info.id;
    let registry = &admin.services.registry;
    let network = registry.set_peers(id, request.mode, actor).await.map_err(not_set)?;
    Ok(Json(views::network(&network, &presence)))
}

async fn list_keys(Shared(admin): Shared, Query(filter): Query<NetworkFilter>) -> Answer<Vec<KeyView>> {
    let world = admin.world();
    let network = filter.network.map(|name| find_network(&world, &name).map(|n| n.info.id)).transpose()?;
    let now = UnixTime::from(SystemTime::now());
    let wanted = world.keys.values().filter(|key| network.is_none_or(|network| key.network == network));
    let mut all: Vec<_> = wanted.filter_map(|key| views::key(&world, key, now)).collect();
    all.sort_by_key(|key| key.created);
    Ok(Json(all))
}

const NO_PUBLIC_URL: &str = "robots could not find this coordinator: it has no public URL that they can reach. Set the \
    address under which robots reach it, with `--public-url https://ria.lab.example` on `ria-coordinator serve`, \
    RIA_PUBLIC_URL in its environment, or public_url in /etc/ria/coordinator.toml, restart it and try again";

/// What stands in keys: where the coordinator is found.
pub(crate) fn urls_for_keys(admin: &Admin) -> Result<Vec<String>, Problem> {
    let urls: Vec<String> =
        super::upkeep::views(admin).into_iter().filter(|view| view.told).map(|view| view.url).collect();
    if !urls.is_empty() {
        return Ok(urls);
    }
    let set: Vec<_> = admin.public_urls.iter().map(PublicUrl::as_str).collect();
    let also =
        if set.is_empty() { String::new() } else { format!(" ({} is this machine only)", set.join(", ")) };
    Err(problem(ProblemCode::NotReady, format!("{NO_PUBLIC_URL}{also}")))
}

async fn create_key(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    Body(request): Body<CreateKey>,
) -> Answer<CreatedKey> {
    let urls = urls_for_keys(&admin)?;
    let world = admin.world();
    let network = choose_network(&world, request.network.as_ref().map(ria_protocol::name::Name::as_str))?;
    let now = UnixTime::from(SystemTime::now());
    let mut tags: Vec<String> = request.tags.into_iter().map(String::from).collect();
    tags.sort();
    tags.dedup();
    let expires = request.expires_after.map(|seconds| now.plus(Duration::from_secs(seconds)));
    let new = NewKey {
        network: network.info.id,
        reusable: request.reusable,
        expires,
        tags,
        ephemeral: request.ephemeral.map(Duration::from_secs),
        approve: request.approve,
        owner: None,
    };
    let created = admin.services.registry.create_key(new, actor).await?;
    let gone = || problem(ProblemCode::NotFound, CreateKeyError::NoNetwork);
    let view = views::key(&world, &created.entry, now).ok_or_else(gone)?;
    let ca_pin = admin.services.authorities.current().pin();
    let key = JoinKey { urls: urls.clone(), ca_pin, key_id: created.entry.id, secret: created.secret };
    Ok(Json(CreatedKey { key: key.to_text(), view, urls }))
}

async fn revoke_key(
    Shared(admin): Shared,
    UrlPath(id): UrlPath<String>,
    axum::Extension(actor): By,
) -> Answer<KeyView> {
    let id: KeyId = id.parse().map_err(|error| problem(ProblemCode::BadRequest, error))?;
    let entry = admin.services.registry.revoke_key(id, actor).await.map_err(|error| match error {
        RevokeKeyError::Unavailable(error) => error.into(),
        RevokeKeyError::NoKey(_) => problem(ProblemCode::NotFound, error),
    })?;
    let view = views::key(&admin.world(), &entry, UnixTime::from(SystemTime::now()));
    view.map(Json).ok_or_else(|| problem(ProblemCode::NotFound, RevokeKeyError::NoKey(id)))
}

async fn list_nodes(Shared(admin): Shared, Query(filter): Query<NetworkFilter>) -> Answer<Vec<NodeView>> {
    let presence = presence(&admin).await?;
    let world = admin.world();
    let only = filter.network.map(|name| find_network(&world, &name).map(|n| n.info.id)).transpose()?;
    let networks = || world.networks.values().filter(|n| only.is_none_or(|only| n.info.id == only));
    let statics = networks().flat_map(|n| n.static_peers.values().map(|peer| views::static_node(n, peer)));
    let mut all: Vec<NodeView> = networks()
        .flat_map(|n| n.members.values().map(move |m| (n, m)))
        .map(|(n, m)| views::node(n, m, presence.get(&(n.info.id, m.node))))
        .chain(statics)
        .collect();
    all.sort_by(|a, b| (&a.network, &a.name).cmp(&(&b.network, &b.name)));
    Ok(Json(all))
}

async fn show_node(
    Shared(admin): Shared,
    UrlPath(wanted): UrlPath<String>,
    Query(filter): Query<NetworkFilter>,
) -> Result<Response, Problem> {
    let presence = presence(&admin).await?;
    let world = admin.world();
    if let Some((network, peer)) = stock::find_static(&world, &wanted, filter.network.as_deref())? {
        return Ok(with_etag(views::static_node(network, peer)));
    }
    let (network, member) = find_node(&world, &wanted, filter.network.as_deref())?;
    let presence = presence.get(&(network.info.id, member.node));
    Ok(with_etag(views::node(network, member, presence)))
}

async fn remove_node(
    Shared(admin): Shared,
    UrlPath(wanted): UrlPath<String>,
    Query(filter): Query<NetworkFilter>,
    axum::Extension(actor): By,
    Seen(seen): Seen,
) -> Answer<NodeView> {
    let world = admin.world();
    if let Some(found) = stock::find_static(&world, &wanted, filter.network.as_deref())? {
        return stock::remove_static(&admin, found, seen, actor).await;
    }
    let (network, member) = find_node(&world, &wanted, filter.network.as_deref())?;
    let (network_id, node) = (network.info.id, member.node);
    let removed = remove_seen_member(&admin, (network_id, node), seen, actor).await?;
    Ok(Json(views::node(network, &removed, None)))
}

/// A member is none any more: out of the maps, off the relays, its connection ended.
pub(super) async fn remove_member(
    admin: &Admin,
    key: NodeKey,
    actor: Actor,
) -> Result<Arc<MemberEntry>, Problem> {
    remove_seen_member(admin, key, None, actor).await
}

async fn remove_seen_member(
    admin: &Admin,
    (network, node): NodeKey,
    seen: Option<Etag>,
    actor: Actor,
) -> Result<Arc<MemberEntry>, Problem> {
    let removed = admin.services.registry.remove_node_seen(network, node, seen, actor).await;
    let removed = removed.map_err(|error| match error {
        RemoveNodeError::Unavailable(error) => error.into(),
        RemoveNodeError::Changed(_) => problem(ProblemCode::Changed, error),
        RemoveNodeError::NoNode => problem(ProblemCode::NotFound, error),
    })?;
    admin.services.relays.revoke(node);
    admin.services.hub.forget((network, node)).await?;
    admin.services.links.forget((network, node)).await?;
    Ok(removed)
}

async fn disable_node(
    shared: Shared,
    wanted: UrlPath<String>,
    filter: Query<NetworkFilter>,
    axum::Extension(actor): By,
    Seen(seen): Seen,
) -> Result<Response, Problem> {
    set_node_enabled(shared, wanted, filter, (false, seen, actor)).await
}

async fn enable_node(
    shared: Shared,
    wanted: UrlPath<String>,
    filter: Query<NetworkFilter>,
    axum::Extension(actor): By,
    Seen(seen): Seen,
) -> Result<Response, Problem> {
    set_node_enabled(shared, wanted, filter, (true, seen, actor)).await
}

async fn set_node_enabled(
    Shared(admin): Shared,
    UrlPath(wanted): UrlPath<String>,
    Query(filter): Query<NetworkFilter>,
    (enabled, seen, actor): (bool, Option<Etag>, Actor),
) -> Result<Response, Problem> {
    let world = admin.world();
    let (network, member) = find_node(&world, &wanted, filter.network.as_deref())?;
    let standing = NodeStanding { network: network.info.id, node: member.node, enabled, seen };
    let changed = admin.services.registry.set_node_enabled(standing, actor).await;
    let changed = changed.map_err(|error| match error {
        SetNodeEnabledError::Unavailable(error) => error.into(),
        SetNodeEnabledError::Changed(_) => problem(ProblemCode::Changed, error),
        SetNodeEnabledError::NoNode => problem(ProblemCode::NotFound, error),
    })?;
    if changed.disabled.is_none() {
        admin.services.relays.readmit(changed.node);
    } else {
        admin.services.relays.revoke(changed.node);
    }
    let presence = presence(&admin).await?;
    Ok(with_etag(views::node(network, &changed, presence.get(&(network.info.id, changed.node)))))
}
