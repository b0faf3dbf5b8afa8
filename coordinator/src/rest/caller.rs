//! Who sends a request: by a token, or by the cookie of a session.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, Method};
use ria_protocol::time::UnixTime;

use super::gate::{Gate, Who, refuse};
use crate::admin::api::{Problem, ProblemCode};
use crate::people::sessions::Session;
use crate::state::people::UserEntry;

/// From where a connection comes.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

/// The cookie of a session. The prefix has browsers take it only over TLS, for this host and all paths.
pub const SESSION_COOKIE: &str = "__Host-ria-session";

/// The value of a cookie.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok());
    let mut pairs = all.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(own, _)| *own == name).map(|(_, value)| value)
}

/// Whether another site had the browser send this.
pub fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| !["same-origin", "none"].contains(&site)) {
        return true;
    }
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => origin != format!("https://{host}"),
        // HTTP/2 has the host elsewhere; browsers that send it say from which site, too.
        (Some(_), None) | (None, _) => false,
    }
}

/// Somebody's session, and the person as they are now.
pub async fn session(gate: &Gate, headers: &HeaderMap) -> Option<(Who, Session)> {
    let services = &gate.admin.services;
    let now = UnixTime::from(SystemTime::now());
    let cookie = cookie(headers, SESSION_COOKIE)?;
    let found = services.logins.sessions.find(cookie, now).await;
    let failed = |error| tracing::warn!(%error, "who is logged in can't be seen at the moment");
    let session = found.map_err(failed).ok()??;
    let user = match current(gate, &session) {
        Some(user) => user,
        None => {
            // It may have begun at another coordinator, with news that are still on their way here.
            let seen = services.registry.catch_up().await;
            seen.map_err(
                |error| tracing::debug!(%error, "what another coordinator has stored is not seen yet"),
            )
            .ok()?;
            let Some(user) = current(gate, &session) else {
                // It has ended with a change of the person's, and nobody need ask again.
                let _ = services.logins.sessions.end(cookie, now).await;
                return None;
            };
            user
        }
    };
    Some((Who { user, token: None }, session))
}

/// The person of a session, if it is good.
fn current(gate: &Gate, session: &Session) -> Option<Arc<UserEntry>> {
    let world = gate.admin.services.registry.world();
    let user = world.people.users.get(&session.user)?;
    (user.is_active() && user.era == session.era).then(|| user.clone())
}

/// Whoever sends a request to the API. A cookie may only read: browsers send it by themselves.
pub(super) async fn who_asks(
    gate: &Gate,
    method: &Method,
    headers: &HeaderMap,
    ClientAddress(from): ClientAddress,
) -> Result<Who, Problem> {
    if let Some(given) = headers.get(AUTHORIZATION) {
        let text = given.to_str().ok().and_then(|text| text.split_once(' '));
        return match text {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => gate.bearer(token.trim(), from),
            Some(_) | None => Err(no("send a token as Authorization: Bearer riat_...")),
        };
    }
    let reads = [Method::GET, Method::HEAD].contains(method);
    match session(gate, headers).await {
        Some((who, _)) if reads && !is_cross_site(headers) => Ok(who),
        Some(_) => Err(no("a session may only read here; to change something, send a token")),
        None => {
            Err(no("send a token as Authorization: Bearer riat_...; people make them on the page Account"))
        }
    }
}

fn no(text: &str) -> Problem {
    refuse(ProblemCode::NotPermitted, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let sent = headers(&[("cookie", "a=1; __Host-ria-session=abc; x__Host-ria-session=def")]);
        assert_eq!(cookie(&sent, SESSION_COOKIE), Some("abc"));
        assert_eq!(cookie(&sent, "ria-session"), None);
    }

    #[test]
    fn requests_that_another_site_causes_are_told_apart() {
        assert!(!is_cross_site(&headers(&[("host", "ria.lab:8443"), ("origin", "https://ria.lab:8443")])));
        assert!(is_cross_site(&headers(&[("host", "ria.lab"), ("origin", "https://evil.example")])));
        assert!(is_cross_site(&headers(&[("host", "ria.lab"), ("origin", "null")])));
        assert!(is_cross_site(&headers(&[("sec-fetch-site", "cross-site")])));
        assert!(is_cross_site(&headers(&[("sec-fetch-site", "same-site")])));
        assert!(!is_cross_site(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(!is_cross_site(&headers(&[])));
    }
}
