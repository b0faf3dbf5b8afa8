//! The admin socket's answers about what outlives this machine: backups, and where nodes find the coordinator.
//!
//! ```text
//! POST /v1/backup      GET /v1/urls      POST /v1/urls      POST /v1/urls/remove
//! ```

use std::sync::Arc;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::api::{Problem, ProblemCode, UrlRequest, UrlView};
use super::desk::Shared;
use super::server::{Admin, Answer, Body, By, problem};
use crate::backup::{self, BackupError};
use crate::config::PublicUrl;
use crate::registry::UrlError;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/v1/backup", post(make_backup))
        .route("/v1/urls", get(list_urls).post(add_url))
        .route("/v1/urls/remove", post(remove_url))
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        problem(ProblemCode::Unavailable, error)
    }
}

impl From<UrlError> for Problem {
    fn from(error: UrlError) -> Self {
        match error {
            UrlError::Known(_) | UrlError::Configured(_) => problem(ProblemCode::Conflict, error),
            UrlError::Unknown(_) => problem(ProblemCode::NotFound, error),
            UrlError::Unavailable(error) => error.into(),
        }
    }
}

/// The archive, not encrypted: it goes to root on this machine, who may read the files that it is made of.
async fn make_backup(Shared(admin): Shared, axum::Extension(actor): By) -> Result<Response, Problem> {
    admin.services.registry.note_backup(actor).await?;
    let archive = backup::collect(&admin.data_dir, &admin.store).await?;
    let kind = [(CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, archive.to_vec()).into_response())
}

async fn list_urls(Shared(admin): Shared) -> Answer<Vec<UrlView>> {
    Ok(Json(views(&admin)))
}

/// All URLs, in the order in which nodes try them.
pub(super) fn views(admin: &Admin) -> Vec<UrlView> {
    let world = admin.services.registry.world();
    let configured = admin.public_urls.iter().map(|url| UrlView {
        url: url.as_str().to_owned(),
        configured: true,
        told: url.is_reachable(),
    });
    let more = world.added_urls.iter().filter(|url| admin.public_urls.iter().all(|c| c.as_str() != **url));
    configured.chain(more.map(|url| UrlView { url: url.clone(), configured: false, told: true })).collect()
}

async fn add_url(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    Body(request): Body<UrlRequest>,
) -> Answer<Vec<UrlView>> {
    let url = PublicUrl::parse(&request.url).map_err(|error| problem(ProblemCode::BadRequest, error))?;
    if !url.is_reachable() {
        let text = format!("{} is this machine only; nodes elsewhere could not reach it", url.as_str());
        return Err(problem(ProblemCode::BadRequest, text));
    }
    admin.services.registry.add_url(url.as_str().to_owned(), actor).await?;
    // Relays elsewhere keep the list as well.
    admin.services.relays.set_changed();
    Ok(Json(views(&admin)))
}

async fn remove_url(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    Body(request): Body<UrlRequest>,
) -> Answer<Vec<UrlView>> {
    let url = request.url.trim().trim_end_matches('/').to_owned();
    admin.services.registry.remove_url(url, actor).await?;
    admin.services.relays.set_changed();
    Ok(Json(views(&admin)))
}
