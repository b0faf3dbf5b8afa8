//! Files that pages load, kept within the program.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

const FILES: [(&str, &str, &str); 3] = [
    ("ria.css", "text/css; charset=utf-8", include_str!("assets/ria.css")),
    ("ria.js", "text/javascript; charset=utf-8", include_str!("assets/ria.js")),
    ("ria.svg", "image/svg+xml", include_str!("assets/ria.svg")),
];

pub(super) async fn asset(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, _, _)| *known == name) {
        Some((_, kind, text)) => {
            ([(CONTENT_TYPE, *kind), (CACHE_CONTROL, "max-age=300")], *text).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
