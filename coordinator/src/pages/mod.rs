//! Pages for people. They ask for everything through [`crate::rest::gate`], as programs do, and work without scripts.
//!
//! ```text
//! entry: login, logout, welcome      provider: in by its word
//!     read: what is      act: what is changed (forms; back by 303)
//! ```

mod act;
mod assets;
mod device;
mod drawing;
mod entry;
mod frame;
mod links;
mod own_login;
mod policy;
mod provider;
mod read;
mod routes;
mod rows;
mod timeline;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};

use crate::rest::gate::Gate;

/// A policy is the largest, and far smaller.
const LARGEST_FORM: usize = 256 * 1024;

/// Scripts, styles and requests of this server only; nothing inline; in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// All pages.
pub fn routes(gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/", get(read::overview))
        .route("/start", get(read::start))
        .route("/start/network", post(act::start_network))
        .route("/start/key", post(act::start_key))
        .route("/networks", get(read::networks).post(act::create_network))
        .route("/topology", get(links::topology))
        .route("/nodes", get(read::nodes))
        .route("/nodes/{network}/{node}", get(read::node))
        .route("/nodes/{network}/{node}/{deed}", post(act::node))
        .route("/pending/{network}/{node}/{deed}", post(act::pending))
        .route("/keys", get(read::keys).post(act::create_key))
        .route("/keys/{id}/revoke", post(act::revoke_key))
        .route("/policy", get(policy::show).post(policy::change))
        .route("/relays", get(read::relays))
        .route("/people", get(read::people).post(act::invite))
        .route("/people/{name}/{deed}", post(act::person))
        .route("/account", get(read::account))
        .route("/account/tokens", post(act::create_token))
        .route("/account/tokens/{id}/remove", post(act::remove_token))
        .route("/account/login", post(own_login::change))
        .route("/account/logout-everywhere", post(entry::log_out_everywhere))
        .route("/audit", get(read::audit))
        .route("/settings", get(read::settings))
        .route("/settings/urls", post(act::add_url))
        .route("/settings/urls/remove", post(act::remove_url))
        .route("/login", get(entry::login_page).post(entry::login))
        .route("/login/oidc", get(provider::begin))
        .route(crate::oidc::BACK, get(provider::back))
        .route("/account/connect", post(provider::connect))
        .route("/device", get(device::show).post(device::decide))
        .route("/logout", post(entry::log_out))
        .route("/welcome/{secret}", get(entry::welcome_page).post(entry::welcome))
        .fallback(entry::nothing_here)
        .with_state(gate)
        .route("/assets/{name}", get(assets::asset))
        .layer(DefaultBodyLimit::max(LARGEST_FORM))
        .layer(middleware::from_fn(guarded))
}

/// What browsers are told of every page.
async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &str); 6] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        // Links hold secrets.
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
