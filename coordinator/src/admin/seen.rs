//! What a request was made from: `If-Match` (RFC 9110, section 13.1.1), for nodes.

use std::convert::Infallible;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use super::api::NodeView;
use crate::state::etag::Etag;

/// The node as whoever asks has seen it; absent: any will do.
pub(super) struct Seen(pub Option<Etag>);

impl<S: Send + Sync> FromRequestParts<S> for Seen {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let given =
            parts.headers.get(IF_MATCH).map(|given| given.to_str().unwrap_or_default().trim().to_owned());
        // What is no word of ours in quotes fits no node.
        let word =
            |text: &str| text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).map(Etag::given);
        let seen = given.filter(|text| text != "*").map(|text| word(&text).unwrap_or(Etag::given("")));
        Ok(Self(seen))
    }
}

/// A node, with the word by which it can be changed.
pub(super) fn with_etag(node: NodeView) -> Response {
    let tag = format!("\"{}\"", node.etag).parse();
    let mut response = Json(node).into_response();
    response.headers_mut().extend(tag.map(|tag| (ETAG, tag)));
    response
}
