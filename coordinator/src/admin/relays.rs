//! The admin socket's answers about relays.
//!
//! ```text
//! GET /v1/relays      POST /v1/relays (a TURN server)      DELETE /v1/relays/{name}
//!                     POST /v1/standalone-relays
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::Path as UrlPath;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use ria_protocol::join_key::JoinSecret;
use ria_protocol::map::RelayHost;
use ria_protocol::name::Name;
use ria_protocol::relay::{CredentialKey, RelayKey, RelayLoad};
use ria_protocol::time::UnixTime;
use zeroize::Zeroizing;

use super::api::{
    AddRelay, AddTurn, AddedRelay, Problem, ProblemCode, RelayLoadView, RelayState, RelayView, StandaloneView,
};
use super::desk::Shared;
use super::server::{Admin, Answer, Body, By, find_network, problem, urls_for_keys};
use crate::config::standalone::check_host;
use crate::random;
use crate::registry::RelayError;
use crate::relay::RelayCounters;
use crate::relays::OWN_NAME;
use crate::state::World;
use crate::state::relay::{RelayEntry, RelayKind, StandaloneRelay, TurnServer, TurnTls};
use crate::store::authorities;

/// Shorter ones can be guessed.
const SHORTEST_SECRET: usize = 16;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/v1/relays", get(list).post(add_turn))
        .route("/v1/relays/{name}", delete(remove))
        .route("/v1/standalone-relays", post(add_standalone))
}

impl From<RelayError> for Problem {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Known(_) | RelayError::TooMany => problem(ProblemCode::Conflict, error),
            RelayError::Unknown(_) => problem(ProblemCode::NotFound, error),
            RelayError::Unavailable(error) => error.into(),
        }
    }
}

async fn list(Shared(admin): Shared) -> Answer<Vec<RelayView>> {
    Ok(Json(views(&admin)))
}

/// All relays, in the order in which nodes are told of them.
fn views(admin: &Admin) -> Vec<RelayView> {
    let relays = &admin.services.relays;
    let own = relays.own().map(|own| RelayView {
        name: own.name,
        kind: "own".to_owned(),
        host: match own.host {
            RelayHost::Coordinator => None,
            RelayHost::Name(name) => Some(name),
        },
        udp_port: own.udp_port,
        tls_port: own.tls_port,
        standalone: None,
        load: relays.counters().map(|counters| load_view(RelayLoad::from(&counters))),
    });
    let world = admin.services.registry.world();
    let others = world.relays.iter().map(|relay| view(admin, &world, relay));
    own.into_iter().chain(others).collect()
}

fn view(admin: &Admin, world: &World, relay: &RelayEntry) -> RelayView {
    let name = relay.name.to_string();
    match &relay.kind {
        RelayKind::Turn(server) => RelayView {
            name,
            kind: "turn".to_owned(),
            host: Some(server.host.clone()),
            udp_port: server.udp_port,
            tls_port: server.tls.as_ref().map(|tls| tls.port),
            standalone: None,
            load: None,
        },
        RelayKind::Standalone(own) => {
            let presence = admin.services.relays.presences.of(&relay.name);
            let connected = presence.as_ref().is_some_and(|presence| presence.connected);
            let network = |id| world.networks.get(id).map(|network| network.info.name.clone());
            RelayView {
                name,
                kind: "standalone".to_owned(),
                host: own.place.as_ref().map(|place| place.host.clone()),
                udp_port: own.place.as_ref().map_or(0, |place| place.udp_port),
                tls_port: own.place.as_ref().and_then(|place| place.tls_port),
                standalone: Some(StandaloneView {
                    state: match (connected, own.tls_key) {
                        (true, _) => RelayState::Connected,
                        (false, Some(_)) => RelayState::Away,
                        (false, None) => RelayState::Expected,
                    },
                    since: presence.as_ref().map(|presence| presence.since),
                    version: presence.as_ref().map(|presence| presence.version.clone()),
                    from: presence.as_ref().map(|presence| presence.from),
                    networks: own.networks.as_ref().map(|all| all.iter().filter_map(network).collect()),
                    key_expires: own.key_expires.filter(|_| own.tls_key.is_none()),
                }),
                load: presence.filter(|presence| presence.connected).map(|known| load_view(known.load)),
            }
        }
    }
}

impl From<&RelayCounters> for RelayLoad {
    fn from(counters: &RelayCounters) -> Self {
        let drops = counters.drops.iter().filter(|(_, count)| *count > 0);
        Self {
            allocations: counters.allocations,
            streams: counters.streams,
            packets: counters.relayed_packets,
            bytes: counters.relayed_bytes,
            drops: drops
                .map(|(reason, count)| ria_protocol::relay::RelayDrops {
                    reason: reason.name().to_owned(),
                    count: *count,
                })
                .collect(),
        }
    }
}

fn load_view(load: RelayLoad) -> RelayLoadView {
    RelayLoadView {
        clients: load.allocations,
        streams: load.streams,
        packets: load.packets,
        bytes: load.bytes,
        drops: load.drops.into_iter().map(|drops| (drops.reason, drops.count)).collect(),
    }
}

fn bad(text: String) -> Problem {
    problem(ProblemCode::BadRequest, text)
}

fn check_name(name: &Name) -> Result<(), Problem> {
    if name.as_str() == OWN_NAME {
        return Err(bad(format!("{OWN_NAME} is the name of the coordinator's own relay; choose another")));
    }
    Ok(())
}

async fn add_turn(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    Body(request): Body<AddTurn>,
) -> Answer<Vec<RelayView>> {
    let name: Name = request.name.parse().map_err(|error| bad(format!("{:?}: {error}", request.name)))?;
    check_name(&name)?;
    if request.secret.len() < SHORTEST_SECRET {
        let text = format!("the secret is too short; it must have {SHORTEST_SECRET} characters or more");
        return Err(bad(text));
    }
    check_host(&request.host).map_err(bad)?;
    let tls = match (request.tls_port, request.tls_ca) {
        (Some(port), Some(ca)) => {
            let authorities =
                authorities(&ca).map_err(|error| bad(format!("the authority's certificate: {error}")))?;
            Some(TurnTls { port, authorities })
        }
        (None, None) => None,
        (_, _) => {
            let text = "nodes take TURN over TLS only from a server that they can verify: give both a port and the \
                        certificate of the authority that has issued the server's";
            return Err(bad(text.to_owned()));
        }
    };
    let server = TurnServer {
        host: request.host,
        udp_port: request.udp_port,
        tls,
        secret: Zeroizing::new(request.secret),
    };
    let added = UnixTime::from(SystemTime::now());
    let relay = RelayEntry { name, kind: RelayKind::Turn(server), added };
    admin.services.registry.add_relay(relay, actor).await?;
    admin.services.relays.set_changed();
    Ok(Json(views(&admin)))
}

async fn add_standalone(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    Body(request): Body<AddRelay>,
) -> Answer<AddedRelay> {
    check_name(&request.name)?;
    let urls = urls_for_keys(&admin)?;
    let world = admin.services.registry.world();
    let network = |name: &Name| find_network(&world, name.as_str()).map(|network| network.info.id);
    let networks = request.networks.iter().map(network).collect::<Result<Vec<_>, _>>()?;
    let secret = JoinSecret::from_bytes(random::bytes());
    let added = UnixTime::from(SystemTime::now());
    let own = StandaloneRelay {
        key_digest: secret.digest(),
        key_expires: request.expires_after.map(|seconds| added.plus(Duration::from_secs(seconds))),
        tls_key: None,
        networks: Some(networks).filter(|networks| !networks.is_empty()),
        place: None,
        secret: CredentialKey(random::bytes()),
    };
    let relay = RelayEntry { name: request.name.clone(), kind: RelayKind::Standalone(own), added };
    admin.services.registry.add_relay(relay.clone(), actor).await?;
    let ca_pin = admin.services.authorities.current().pin();
    let key = RelayKey { urls: urls.clone(), ca_pin, name: request.name, secret };
    Ok(Json(AddedRelay { key: key.to_text(), view: view(&admin, &world, &relay), urls }))
}

async fn remove(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    UrlPath(name): UrlPath<String>,
) -> Answer<Vec<RelayView>> {
    if name == OWN_NAME {
        let text = "the coordinator's own relay is switched off in its settings: relay.enabled = false";
        return Err(problem(ProblemCode::BadRequest, text));
    }
    admin.services.registry.remove_relay(name.clone(), actor).await?;
    admin.services.relays.set_changed();
    admin.services.relays.presences.forget(&name);
    Ok(Json(views(&admin)))
}
