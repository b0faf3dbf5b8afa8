//! The admin socket's answers about the certification authority.
//!
//! ```text
//! GET /v1/ca      POST /v1/ca/roll      POST /v1/ca/{authority}/retire
//! ```

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Json, Router};
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::api::{AuthorityStatus, AuthorityView, Problem, ProblemCode};
use super::desk::Shared;
use super::server::{Admin, Answer, By, problem};
use crate::audit::Event;
use crate::tls::authority::{Authority, AuthorityError, end_of};
use crate::tls::shown::{fingerprint, pem};
use crate::tls::succession::RetireError;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/v1/ca", get(list))
        .route("/v1/ca/roll", post(roll))
        .route("/v1/ca/{authority}/retire", post(retire))
}

impl From<AuthorityError> for Problem {
    fn from(error: AuthorityError) -> Self {
        problem(ProblemCode::Unavailable, error)
    }
}

impl From<RetireError> for Problem {
    fn from(error: RetireError) -> Self {
        match error {
            RetireError::Unknown(_) => problem(ProblemCode::NotFound, error),
            RetireError::InUse(_) => problem(ProblemCode::Conflict, error),
            RetireError::Authority(error) => error.into(),
        }
    }
}

fn views(authority: &Authority) -> Vec<AuthorityView> {
    let own = AuthorityView {
        id: authority.short_name(),
        pin: authority.pin(),
        status: AuthorityStatus::InUse,
        ends: end_of(authority.certificate()),
        fingerprint: Some(fingerprint(authority.certificate())),
        certificate: Some(pem(authority.certificate())),
    };
    let older = authority.older().iter().map(|older| AuthorityView {
        id: older.short_name(),
        pin: older.pin,
        status: if older.retired { AuthorityStatus::Retired } else { AuthorityStatus::Trusted },
        ends: end_of(older.certificate()),
        fingerprint: None,
        certificate: None,
    });
    std::iter::once(own).chain(older).collect()
}

async fn list(Shared(admin): Shared) -> Answer<Vec<AuthorityView>> {
    Ok(Json(views(&admin.services.authorities.current())))
}

async fn roll(Shared(admin): Shared, axum::Extension(actor): By) -> Answer<Vec<AuthorityView>> {
    let authorities = &admin.services.authorities;
    let before = authorities.current();
    let next = authorities.roll()?;
    let event = Event {
        time: UnixTime::from(SystemTime::now()),
        actor,
        action: "ca.rolled",
        network: None,
        subject: next.short_name(),
        detail: json!({ "pin": next.pin(), "before": before.pin() }),
    };
    tracing::info!(
        authority = next.short_name(),
        "another certification authority is in use; nodes are told"
    );
    admin.services.registry.note_authority(next.clone(), event).await?;
    Ok(Json(views(&next)))
}

async fn retire(
    Shared(admin): Shared,
    Path(wanted): Path<String>,
    axum::Extension(actor): By,
) -> Answer<Vec<AuthorityView>> {
    let next = admin.services.authorities.retire(&wanted)?;
    let event = Event {
        time: UnixTime::from(SystemTime::now()),
        actor,
        action: "ca.retired",
        network: None,
        subject: wanted,
        detail: json!({ "in_use": next.pin() }),
    };
    admin.services.registry.note_authority(next.clone(), event).await?;
    Ok(Json(views(&next)))
}
