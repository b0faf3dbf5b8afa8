//! What laptops ask before they are anybody's (RFC 8628): a code for their person to type, and what came of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{DefaultBodyLimit, Extension, Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use ria_protocol::id::NetworkId;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use serde::Deserialize;
use serde_json::json;

use super::caller::ClientAddress;
use super::gate::Gate;
use crate::admin::laptop_key;
use crate::people::device::{Decision, INTERVAL, LIFE, Told, shown_code};
use crate::session::Peer;
use crate::state::people::{Reach, UserName};
use crate::store::StoreError;

/// Where a laptop asks for a code, and where what came of it.
pub const CODE: &str = "/login/device/code";
pub const TOKEN: &str = "/login/device/token";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Forms are far smaller.
const LARGEST: usize = 4096;

/// For laptops, by either way in.
pub fn routes(gate: Arc<Gate>) -> Router {
    Router::new()
        .route(CODE, post(code))
        .route(TOKEN, post(token))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(gate)
}

#[derive(Deserialize)]
struct AskCode {
    /// What the laptop calls itself.
    name: Name,
    network: Option<Name>,
}

fn refused(error: &str, text: &str) -> Response {
    let body = json!({ "error": error, "error_description": text });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// Both ways in know from where a connection comes.
fn address(client: Option<Extension<ClientAddress>>, peer: Option<Extension<Peer>>) -> Option<IpAddr> {
    let by_peer = peer.map(|Extension(peer)| peer.address.ip().to_canonical());
    client.map(|Extension(ClientAddress(from))| from).or(by_peer)
}

async fn code(
    State(gate): State<Arc<Gate>>,
    client: Option<Extension<ClientAddress>>,
    peer: Option<Extension<Peer>>,
    Form(asked): Form<AskCode>,
) -> Response {
    let Some(from) = address(client, peer) else {
        return refused("invalid_request", "nobody knows who asks");
    };
    let devices = &gate.admin.services.logins.devices;
    let network = asked.network.as_ref().map(Name::as_str);
    let begun = match devices.begin((asked.name.as_str(), network), from, now()).await {
        Ok(begun) => begun,
        Err(error) => return no_database(&error),
    };
    let Some((long, short)) = begun else {
        return refused("slow_down", "too many laptops ask at the moment; try again in some minutes");
    };
    let admin = &gate.admin;
    let here = admin.public_urls.first();
    let base =
        here.map_or_else(|| format!("https://localhost:{}", admin.port), |url| url.as_str().to_owned());
    let shown = shown_code(&short);
    Json(json!({
        "device_code": long,
        "user_code": shown,
        "verification_uri": format!("{base}/device"),
        "verification_uri_complete": format!("{base}/device?code={shown}"),
        "expires_in": LIFE.as_secs(),
        "interval": INTERVAL.as_secs(),
    }))
    .into_response()
}

#[derive(Deserialize)]
struct AskToken {
    grant_type: String,
    device_code: String,
}

async fn token(State(gate): State<Arc<Gate>>, Form(asked): Form<AskToken>) -> Response {
    if asked.grant_type != GRANT {
        return refused("unsupported_grant_type", "laptops are let in by a device code");
    }
    let told = match gate.admin.services.logins.devices.poll(&asked.device_code, now()).await {
        Ok(told) => told,
        Err(error) => return no_database(&error),
    };
    match told {
        Told::Pending => refused("authorization_pending", "nobody has decided yet"),
        Told::SlowDown => refused("slow_down", "ask less often"),
        Told::Expired => refused("expired_token", "the code is too old, or was used; begin anew"),
        Told::Decided(Decision::Denied) => refused("access_denied", "the laptop was not let in"),
        Told::Decided(Decision::Granted { user, network }) => grant(&gate, &user, network).await,
    }
}

/// The key, made when it is fetched: until then it is nowhere. Whoever has granted it may have lost the right to meanwhile.
async fn grant(gate: &Gate, user: &UserName, network: NetworkId) -> Response {
    let services = &gate.admin.services;
    let world = services.registry.world();
    let may = world.people.users.get(user).is_some_and(|user| {
        user.is_active()
            && match user.roles.reach(services.laptops.role) {
                Reach::All => true,
                Reach::Only(some) => some.contains(&network),
            }
    });
    let Some(known) = world.networks.get(&network).filter(|_| may) else {
        return refused("access_denied", "the laptop was not let in");
    };
    match laptop_key(&gate.admin, network, user).await {
        Ok(key) => Json(json!({
            "token_type": "ria-join-key", "access_token": key, "user": user, "network": known.info.name,
        }))
        .into_response(),
        Err(problem) => refused("server_error", &problem.message),
    }
}

fn no_database(error: &StoreError) -> Response {
    tracing::warn!(%error, "no laptop can be let in at the moment");
    let body = json!({ "error": "temporarily_unavailable", "error_description": "the database does not answer; try again" });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
