//! What the TLS port says over HTTP: the node stream for nodes; health and a plain page for everybody else.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ria_protocol::{MAX_NODE_MESSAGE, RELAY_PATH, STREAM_PATH};
use serde_json::json;

use crate::session::{self, Peer, Services};

/// A session holds its buffers for as long as a node is connected, so they are small.
const READ_BUFFER: usize = 4 * 1024;

/// For connections by `ria/1`.
pub fn node_router(services: Arc<Services>) -> Router {
    Router::new().route(STREAM_PATH, get(stream)).route(RELAY_PATH, get(relay)).with_state(services)
}

/// For all others.
pub fn pages_router(services: Arc<Services>) -> Router {
    Router::new().route("/", get(page)).route("/healthz", get(health)).with_state(services)
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

async fn page() -> Html<&'static str> {
    Html(PAGE)
}

const PAGE: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>Ria coordinator</title>
<style>body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem }</style>
<h1>Ria coordinator</h1>
<p>This server brings the robots of a lab together in one secure network. It is running.</p>
<p>To add a robot, an administrator makes a key on this server with <code>ria-coordinator key create</code>,
and the robot joins with it: <code>ria join --file KEYFILE</code>.</p>
</html>
";
