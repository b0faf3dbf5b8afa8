//! The admin socket's answers about relays.
//!
//! ```text
//! GET /v1/relays      POST /v1/relays      DELETE /v1/relays/{name}
//! ```

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path as UrlPath, State};
use axum::routing::{delete, get};
use axum::{Json, Router};
use ria_protocol::map::RelayHost;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use zeroize::Zeroizing;

use super::api::{AddTurn, Problem, ProblemCode, RelayView};
use super::server::{Admin, Answer, Body, By, Shared, problem};
use crate::registry::RelayError;
use crate::relays::OWN_NAME;
use crate::state::relay::RelayEntry;

/// Shorter ones can be guessed.
const SHORTEST_SECRET: usize = 16;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/v1/relays", get(list).post(add_turn)).route("/v1/relays/{name}", delete(remove))
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

async fn list(State(admin): Shared) -> Answer<Vec<RelayView>> {
    Ok(Json(views(&admin)))
}

/// All relays, in the order in which nodes are told of them.
fn views(admin: &Admin) -> Vec<RelayView> {
    let own = admin.services.relays.own().map(|own| RelayView {
        name: own.name,
        kind: "own".to_owned(),
        host: match own.host {
            RelayHost::Coordinator => None,
            RelayHost::Name(name) => Some(name),
        },
        udp_port: own.udp_port,
        tls_port: own.tls_port,
    });
    let world = admin.services.registry.world();
    let others = world.relays.iter().map(|relay| RelayView {
        name: relay.name.to_string(),
        kind: "turn".to_owned(),
        host: Some(relay.host.clone()),
        udp_port: relay.udp_port,
        tls_port: None,
    });
    own.into_iter().chain(others).collect()
}

async fn add_turn(
    State(admin): Shared,
    axum::Extension(actor): By,
    Body(request): Body<AddTurn>,
) -> Answer<Vec<RelayView>> {
    let bad = |text: String| problem(ProblemCode::BadRequest, text);
    let name: Name = request.name.parse().map_err(|error| bad(format!("{:?}: {error}", request.name)))?;
    if name.as_str() == OWN_NAME {
        return Err(bad(format!("{OWN_NAME} is the name of the coordinator's own relay; choose another")));
    }
    if request.secret.len() < SHORTEST_SECRET {
        let text = format!("the secret is too short; it must have {SHORTEST_SECRET} characters or more");
        return Err(bad(text));
    }
    check_host(&request.host).map_err(bad)?;
    let relay = RelayEntry {
        name,
        host: request.host,
        udp_port: request.udp_port,
        secret: Zeroizing::new(request.secret),
        added: UnixTime::from(SystemTime::now()),
    };
    admin.services.registry.add_relay(relay, actor).await?;
    admin.services.relays.set_changed();
    Ok(Json(views(&admin)))
}

/// A name or an address, and nothing else.
fn check_host(host: &str) -> Result<(), String> {
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let is_name = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if is_address || is_name {
        return Ok(());
    }
    Err(format!("{host:?} is no host; give a name or an address, without port"))
}

async fn remove(
    State(admin): Shared,
    axum::Extension(actor): By,
    UrlPath(name): UrlPath<String>,
) -> Answer<Vec<RelayView>> {
    if name == OWN_NAME {
        let text = "the coordinator's own relay is switched off in its settings: relay.enabled = false";
        return Err(problem(ProblemCode::BadRequest, text));
    }
    admin.services.registry.remove_relay(name, actor).await?;
    admin.services.relays.set_changed();
    Ok(Json(views(&admin)))
}
