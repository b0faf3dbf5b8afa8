//! The admin socket's answers about the audit log.
//!
//! ```text
//! GET /v1/audit?network=&limit=&actor=&action=&subject=&since=&until=&after=&whole=
//! GET /v1/audit/head      POST /v1/audit/witness (what was seen of the log elsewhere)
//! ```

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{DefaultBodyLimit, Query};
use axum::routing::{get, post};
use axum::{Json, Router};
use ria_protocol::keys::SpkiHash;
use ria_protocol::time::UnixTime;
use serde::Deserialize;

use super::api::{AuditView, ChainView, ProblemCode};
use super::desk::Shared;
use super::server::{Admin, Answer, Body, choose_network, find_network, problem};
use crate::evidence::{Claim, Examined, MOST_CLAIMS, SignedHead, examine};
use crate::state::people::Reach;
use crate::store::AuditQuery;

/// Rows shown unless more are asked for.
const LIMIT: usize = 100;

/// A claim with its head takes less than this.
const CLAIM_BYTES: usize = 1024;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/v1/audit", get(list))
        .route("/v1/audit/head", get(head))
        .route("/v1/audit/witness", post(witness).layer(DefaultBodyLimit::max(MOST_CLAIMS * CLAIM_BYTES)))
}

#[derive(Debug, Deserialize)]
struct Filter {
    network: Option<String>,
    limit: Option<usize>,
    actor: Option<String>,
    action: Option<String>,
    subject: Option<String>,
    since: Option<u64>,
    until: Option<u64>,
    after: Option<u64>,
    /// Verify the whole log now, not only what is new and what is shown.
    whole: Option<bool>,
}

async fn list(Shared(admin): Shared, Query(filter): Query<Filter>) -> Answer<AuditView> {
    let world = admin.world();
    // Who has to do with some networks only is shown the rows of one of them.
    let network = match (&filter.network, admin.reach()) {
        (Some(name), _) => Some(find_network(&world, name)?.info.id),
        (None, Reach::All) => None,
        (None, Reach::Only(_)) => Some(choose_network(&world, None)?.info.id),
    };
    let query = AuditQuery {
        network,
        limit: filter.limit.unwrap_or(LIMIT),
        actor: filter.actor,
        action: filter.action,
        subject: filter.subject,
        since: filter.since.map(UnixTime),
        until: filter.until.map(UnixTime),
        after: filter.after,
    };
    let head = world.audit_head;
    let (rows, shown) = admin.store.audit_latest(&query, head).await?;
    let verified = admin.chain.verify(&admin.store, head, filter.whole.unwrap_or(false)).await?;
    let whole = verified.as_ref().ok().copied();
    let problem = shown.err().or(verified.err()).map(|broken| broken.to_string());
    if let Some(problem) = &problem {
        tracing::error!(problem, "the audit log is not as it was written");
    }
    let chain = ChainView { intact: problem.is_none(), problem, length: head.seq, whole };
    Ok(Json(AuditView { rows, chain }))
}

async fn head(Shared(admin): Shared) -> Answer<SignedHead> {
    let authority = admin.services.authorities.current();
    let world = admin.services.registry.world();
    let signed = SignedHead::sign(&authority, &world, UnixTime::from(SystemTime::now()));
    signed.map(Json).map_err(|error| problem(ProblemCode::Unavailable, error))
}

async fn witness(Shared(admin): Shared, Body(claims): Body<Vec<Claim>>) -> Answer<Examined> {
    let authority = admin.services.authorities.current();
    let older = authority.older().iter().map(|older| older.pin);
    let pins: Vec<SpkiHash> = std::iter::once(authority.pin()).chain(older).collect();
    let world = admin.services.registry.world();
    let claims = claims.get(..claims.len().min(MOST_CLAIMS)).unwrap_or_default();
    Ok(Json(examine(&admin.store, &world, &pins, claims).await?))
}
