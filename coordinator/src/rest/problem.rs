//! Problem documents (RFC 9457): the form of everything that goes wrong.

use axum::http::StatusCode;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::admin::api::{Problem, ProblemCode};

/// A problem with a status of its own.
pub(super) fn with_status(status: StatusCode, problem: Problem) -> Response {
    let mut response = problem.into_response();
    *response.status_mut() = status;
    response
}

/// Turns answers about what went wrong, whoever made them, into problem documents.
pub(super) fn documented(response: Response) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let known = response.extensions().get::<Problem>().cloned();
    let code = known.as_ref().map_or(ProblemCode::BadRequest, |problem| problem.code);
    let detail =
        known.map_or_else(|| "the request can't be understood".to_owned(), |problem| problem.message);
    let document = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Problem"),
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
    });
    let mut answer =
        (status, [(CONTENT_TYPE, "application/problem+json")], document.to_string()).into_response();
    for header in [WWW_AUTHENTICATE, RETRY_AFTER, ALLOW] {
        if let Some(value) = response.headers().get(&header) {
            answer.headers_mut().insert(header, value.clone());
        }
    }
    answer
}
