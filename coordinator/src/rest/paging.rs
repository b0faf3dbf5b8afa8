//! Lists in parts: `limit` and `offset` in the query; `Link` (RFC 8288) and `X-Total-Count` in the answer.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, LINK};
use axum::http::{HeaderValue, Uri};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::Value;

/// As many as one asks for at most.
const MOST: usize = 1000;
const USUAL: usize = 200;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    limit: usize,
    offset: usize,
}

impl Part {
    /// By the query of a request.
    pub fn of(uri: &Uri) -> Result<Self, String> {
        let mut part = Self { limit: USUAL, offset: 0 };
        for (name, value) in pairs(uri) {
            let number = || value.parse::<usize>().map_err(|_| format!("{name} is no number"));
            match name {
                "limit" => part.limit = number()?,
                "offset" => part.offset = number()?,
                _ => {}
            }
        }
        if (1..=MOST).contains(&part.limit) {
            Ok(part)
        } else {
            Err(format!("limit must be from 1 to {MOST}"))
        }
    }
}

fn pairs(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='))
}

/// The part of a list, with a link to the next one. What is no list stays as it is.
pub(super) async fn cut(response: Response, part: Part, uri: &Uri) -> Response {
    let (mut head, body) = response.into_parts();
    // The answers come from this process; one that fails is none.
    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let Ok(Value::Array(all)) = serde_json::from_slice::<Value>(&bytes) else {
        return Response::from_parts(head, Body::from(bytes));
    };
    let total = all.len();
    let shown: Vec<Value> = all.into_iter().skip(part.offset).take(part.limit).collect();
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert("x-total-count", HeaderValue::from(total));
    let next = part.offset.saturating_add(shown.len());
    if !shown.is_empty() && next < total {
        let mut query: Vec<String> = pairs(uri)
            .filter(|(name, _)| !["limit", "offset"].contains(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        query.extend([format!("limit={}", part.limit), format!("offset={next}")]);
        let link = format!("</api{}?{}>; rel=\"next\"", uri.path(), query.join("&"));
        if let Ok(link) = HeaderValue::from_str(&link) {
            head.headers.insert(LINK, link);
        }
    }
    Response::from_parts(head, Body::from(Value::Array(shown).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_of_a_list_follow_each_other() {
        let mut uri: Uri = "/v1/nodes?network=lab&limit=2".parse().unwrap();
        let mut seen = Vec::new();
        loop {
            let answer = Response::new(Body::from("[1,2,3,4,5]"));
            let cut = cut(answer, Part::of(&uri).unwrap(), &uri).await;
            assert_eq!(cut.headers()["x-total-count"], "5");
            let link = cut.headers().get(LINK).map(|link| link.to_str().unwrap().to_owned());
            let bytes = cut.into_body().collect().await.unwrap().to_bytes();
            seen.extend(serde_json::from_slice::<Vec<u32>>(&bytes).unwrap());
            let Some(link) = link else { break };
            let next = link.strip_prefix("</api").unwrap().split_once('>').unwrap().0.to_owned();
            assert!(next.contains("network=lab"), "{next}");
            uri = next.parse().unwrap();
        }
        assert_eq!(seen, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn senseless_parts_are_refused() {
        for query in ["limit=0", "limit=1001", "limit=x", "offset=-1", "offset=99999999999999999999999"] {
            assert!(Part::of(&format!("/v1/nodes?{query}").parse().unwrap()).is_err(), "{query}");
        }
    }
}
