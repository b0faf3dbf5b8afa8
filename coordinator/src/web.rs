//! What the TLS port says over HTTP: the node stream for nodes; health, REST and pages for everybody else.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ria_protocol::{MAX_NODE_MESSAGE, RELAY_PATH, STREAM_PATH};
use serde_json::json;

use crate::pages;
use crate::rest;
use crate::rest::caller::ClientAddress;
use crate::rest::gate::Gate;
use crate::session::{self, Peer, Services};

/// A session holds its buffers for as long as a node is connected, so they are small.
const READ_BUFFER: usize = 4 * 1024;

/// For connections by `ria/1`: nodes, and laptops that know the authority and are nobody's yet.
pub fn node_router(services: Arc<Services>, gate: Arc<Gate>) -> Router {
    let streams = Router::new().route(STREAM_PATH, get(stream)).route(RELAY_PATH, get(relay));
    streams.with_state(services).merge(rest::device::routes(gate))
}

/// For all others.
pub fn pages_router(services: Arc<Services>, gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/metrics", get(metrics_by_token))
        .with_state(gate.clone())
        .merge(health_routes(services))
        .merge(rest::device::routes(gate.clone()))
        .merge(rest::routes(gate.clone()))
        .merge(pages::routes(gate))
}

/// Whether it works.
pub fn health_routes<S: Clone + Send + Sync + 'static>(services: Arc<Services>) -> Router<S> {
    Router::new().route("/healthz", get(health)).route("/readyz", get(ready)).with_state(services)
}

/// What nodes and relays may send, and what a connection that is idle costs.
fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(MAX_NODE_MESSAGE)
        .max_frame_size(MAX_NODE_MESSAGE)
}

async fn stream(
    State(services): State<Arc<Services>>,
    Extension(peer): Extension<Peer>,
    upgrade: WebSocketUpgrade,
) -> Response {
    bounded(upgrade)
        .on_upgrade(move |socket| services.tasks.clone().track_future(session::run(socket, peer, services)))
}

async fn relay(
    State(services): State<Arc<Services>>,
    Extension(peer): Extension<Peer>,
    upgrade: WebSocketUpgrade,
) -> Response {
    bounded(upgrade).on_upgrade(move |socket| {
        services.tasks.clone().track_future(session::run_relay(socket, peer, services))
    })
}

/// Says whether it works, and nothing about the lab: anybody may ask.
async fn health(State(services): State<Arc<Services>>) -> Response {
    let writable = services.registry.is_writable();
    let (code, status) = if writable {
        (StatusCode::OK, "ok")
    } else {
        // Nodes that are connected are served on, but nothing can be changed.
        (StatusCode::SERVICE_UNAVAILABLE, "storage-failing")
    };
    (code, Json(json!({ "status": status, "version": env!("CARGO_PKG_VERSION") }))).into_response()
}

/// Whether nodes should be sent here: it works, and is not about to stop.
async fn ready(State(services): State<Arc<Services>>) -> Response {
    if services.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "stopping" }))).into_response();
    }
    if !services.registry.is_writable() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "storage-failing" })))
            .into_response();
    }
    Json(json!({ "status": "ready" })).into_response()
}

async fn metrics_by_token(
    State(gate): State<Arc<Gate>>,
    Extension(from): Extension<ClientAddress>,
    headers: HeaderMap,
) -> Response {
    rest::metrics(&gate, &headers, from).await
}
