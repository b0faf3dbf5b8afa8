//! REST below `/api/v1`: the operations of the admin socket for people and programs, with problem documents, lists in parts
//! and live events.
//!
//! ```text
//! Authorization: Bearer riat_...   or the cookie of a session, which may only read
//!        |
//!      caller -> gate (role, scope, reach) -> admin's operations
//! ```

pub mod caller;
pub mod device;
pub mod events;
pub mod gate;
pub mod openapi;
pub mod operations;
mod paging;
mod problem;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};

use crate::admin::api::ProblemCode;
use crate::state::people::{Area, Reach, Role};
use caller::{ClientAddress, who_asks};
use gate::{Gate, refuse};
use problem::{documented, with_status};

/// Everything below `/api`.
pub fn routes(gate: Arc<Gate>) -> Router {
    Router::new()
        .route("/api/v1/openapi.json", get(openapi::document))
        .route("/api/v1/events", get(events::stream))
        .route("/api/{*path}", any(operation))
        .layer(axum::middleware::map_response(finished))
        .with_state(gate)
}

/// What all answers have in common.
async fn finished(response: Response) -> Response {
    let mut response = documented(response);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn operation(
    State(gate): State<Arc<Gate>>,
    Extension(from): Extension<ClientAddress>,
    mut request: Request<Body>,
) -> Response {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let who = match who_asks(&gate, &method, &headers, from).await {
        Ok(who) => who,
        Err(problem) => return unauthorised(problem),
    };
    let Some(uri) = below_api(request.uri()) else {
        return refuse(ProblemCode::BadRequest, "this path can't be understood").into_response();
    };
    let found = operations::find(request.method(), uri.path());
    let part = match paging::Part::of(&uri) {
        Ok(part) => Some(part),
        Err(text) if found.is_ok() => return refuse(ProblemCode::BadRequest, &text).into_response(),
        // What is wrong first is that there is nothing to be had in parts.
        Err(_) => None,
    };
    *request.uri_mut() = uri.clone();
    let listing = found.is_ok_and(|operation| {
        operation.method == Method::GET && matches!(operation.gives, operations::Gives::Many(_))
    });
    let response = gate.handle(&who, request).await;
    if let Some(part) = part.filter(|_| listing && response.status() == StatusCode::OK) {
        return paging::cut(response, part, &uri).await;
    }
    response
}

fn below_api(uri: &Uri) -> Option<Uri> {
    uri.path_and_query()?.as_str().strip_prefix("/api")?.parse().ok()
}

fn unauthorised(problem: crate::admin::api::Problem) -> Response {
    let mut response = with_status(StatusCode::UNAUTHORIZED, problem);
    response
        .headers_mut()
        .insert(axum::http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ria\""));
    response
}

/// The coordinator's figures, for who has a token with the scope `metrics:read`.
pub async fn metrics(gate: &Gate, headers: &HeaderMap, from: ClientAddress) -> Response {
    let who = match who_asks(gate, &Method::GET, headers, from).await {
        Ok(who) => who,
        Err(problem) => return documented(unauthorised(problem)),
    };
    if who.reach(Area::Metrics, false, Role::Viewer) != Some(Reach::All) {
        let text = "this takes the role viewer everywhere, and the scope metrics:read";
        return documented(refuse(ProblemCode::NotPermitted, text).into_response());
    }
    match crate::metrics::coordinator(&gate.admin.services).await {
        Some(text) => ([(CONTENT_TYPE, ria_service::exposition::CONTENT)], text).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}
