//! Between whoever is known and the operations: who may do what.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::header::IF_MATCH;
use axum::http::{Extensions, Method, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use ria_protocol::id::KeyId;
use ria_protocol::time::UnixTime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tower::ServiceExt;

use super::operations::{self, Operation, Where};
use crate::admin::api::{Problem, ProblemCode};
use crate::admin::server::{Admin, operations};
use crate::audit::{Actor, Event};
use crate::people::secret;
use crate::state::people::{Area, Reach, Role, Scope, UserEntry};

/// Bodies are far smaller.
const LARGEST_BODY: usize = 256 * 1024;
/// Answers that pages ask for are far smaller.
const LARGEST_ANSWER: usize = 16 * 1024 * 1024;

/// Somebody who is known: by a session, or a token.
#[derive(Debug, Clone)]
pub struct Who {
    pub user: Arc<UserEntry>,
    /// Of a token: its identity, and what it is good for.
    pub token: Option<(KeyId, Vec<Scope>)>,
}

impl Who {
    /// As the audit log names them.
    pub fn actor(&self) -> Actor {
        Actor::User(self.user.name.clone(), self.token.as_ref().map(|(id, _)| *id))
    }

    /// Whether this is within what the token is good for.
    pub fn is_in_scope(&self, area: Area, write: bool) -> bool {
        self.token.as_ref().is_none_or(|(_, scopes)| scopes.iter().any(|scope| scope.allows(area, write)))
    }

    /// Where they may do this; `None` for nowhere.
    pub fn reach(&self, area: Area, write: bool, least: Role) -> Option<Reach> {
        let reach = self.user.roles.reach(least);
        let somewhere = match &reach {
            Reach::All => true,
            Reach::Only(networks) => !networks.is_empty(),
        };
        (somewhere && self.is_in_scope(area, write)).then_some(reach)
    }

    fn reach_of(&self, operation: &Operation) -> Option<Reach> {
        let reach = self.reach(operation.area, operation.writes(), operation.least)?;
        (operation.at == Where::Somewhere || reach == Reach::All).then_some(reach)
    }
}

/// The way to the operations for people and their programs.
#[derive(Debug, Clone)]
pub struct Gate {
    inner: Router,
    pub admin: Arc<Admin>,
}

impl Gate {
    /// To these operations.
    pub fn new(admin: Arc<Admin>) -> Self {
        let inner = operations(admin.clone()).layer(DefaultBodyLimit::max(LARGEST_BODY));
        Self { inner, admin }
    }

    /// The person behind a token. Who guesses is slowed down.
    pub fn bearer(&self, text: &str, from: IpAddr) -> Result<Who, Problem> {
        let world = self.admin.services.registry.world();
        let now = UnixTime::from(SystemTime::now());
        let known = secret::read_token(text).and_then(|(id, digest)| {
            let token = world.people.tokens.get(&id)?;
            let right = secret::same(&token.digest, &digest) && token.is_valid(now);
            // Programs act for people who never log in, too, such as one for monitoring.
            let user = world.people.users.get(&token.user).filter(|user| user.disabled.is_none())?;
            right.then(|| Who { user: user.clone(), token: Some((id, token.scopes.clone())) })
        });
        known.ok_or_else(|| {
            let waits = self.admin.services.logins.guard.handle_wrong_secret(from, Instant::now());
            let text = if waits {
                "too many wrong tokens from this address; wait a while"
            } else {
                "there is no such token, or not any more; make another on the page Account"
            };
            refuse(ProblemCode::NotPermitted, text)
        })
    }

    /// Does what a request asks for, if `who` may. Its path is the one below `/api`.
    pub async fn handle(&self, who: &Who, mut request: Request<Body>) -> Response {
        let operation = match operations::find(request.method(), request.uri().path()) {
            Ok(operation) => operation,
            Err(other) => return unknown(other, request.uri().path()),
        };
        let Some(reach) = who.reach_of(operation) else {
            self.note_denial(who, operation, request.uri().path()).await;
            return denied(who, operation).into_response();
        };
        let path = request.uri().path().to_owned();
        // Nothing of what stood before this gate counts behind it, parameters of the outer path least of all.
        *request.extensions_mut() = Extensions::new();
        request.extensions_mut().insert(who.actor());
        request.extensions_mut().insert(reach);
        let answered: Result<Response, std::convert::Infallible> = self.inner.clone().oneshot(request).await;
        let response = answered.unwrap_or_else(|never| match never {});
        // What the role alone allows, the operation itself may refuse.
        if response.extensions().get::<Problem>().is_some_and(|p| p.code == ProblemCode::NotPermitted) {
            self.note_denial(who, operation, &path).await;
        }
        response
    }

    /// The same for the pages.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        who: &Who,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Problem> {
        self.ask_seen(who, (method, path), body, None).await
    }

    /// The same by somebody who has seen what they change: `seen` is its word for `If-Match`.
    pub async fn ask_seen<T: DeserializeOwned>(
        &self,
        who: &Who,
        (method, path): (Method, &str),
        body: &impl Serialize,
        seen: Option<&str>,
    ) -> Result<T, Problem> {
        let failed = |error: &dyn std::fmt::Display| refuse(ProblemCode::Unavailable, &error.to_string());
        let text = serde_json::to_vec(body).map_err(|e| failed(&e))?;
        let body = if method == Method::GET { Body::empty() } else { Body::from(text) };
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = match seen {
            Some(word) => request.header(IF_MATCH, format!("\"{word}\"")),
            None => request,
        };
        let response = self.handle(who, request.body(body).map_err(|e| failed(&e))?).await;
        if let Some(problem) = response.extensions().get::<Problem>() {
            return Err(problem.clone());
        }
        if !response.status().is_success() {
            return Err(refuse(ProblemCode::BadRequest, "that can't be understood; check what was typed"));
        }
        let answer = http_body_util::Limited::new(response.into_body(), LARGEST_ANSWER);
        let bytes: Bytes = answer.collect().await.map_err(|e| failed(&e))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|e| failed(&e))
    }

    /// Reads something for the pages.
    pub async fn get<T: DeserializeOwned>(&self, who: &Who, path: &str) -> Result<T, Problem> {
        self.ask(who, Method::GET, path, &()).await
    }

    async fn note_denial(&self, who: &Who, operation: &Operation, path: &str) {
        let actor = who.actor();
        let services = &self.admin.services;
        if !services.logins.guard.keeps_row(&actor.to_string(), Instant::now()) {
            return;
        }
        let path: String = path.chars().take(200).collect();
        let event = Event {
            time: UnixTime::from(SystemTime::now()),
            actor,
            action: "access.denied",
            network: None,
            subject: operation.id.to_owned(),
            detail: json!({ "path": path }),
        };
        if let Err(error) = services.registry.record(event).await {
            tracing::debug!(%error, "a denial is not in the audit log");
        }
    }
}

pub(super) fn refuse(code: ProblemCode, message: &str) -> Problem {
    Problem { code, message: message.to_owned() }
}

fn denied(who: &Who, operation: &Operation) -> Problem {
    let access = if operation.writes() { "write" } else { "read" };
    let text = if who.is_in_scope(operation.area, operation.writes()) {
        let place = match operation.at {
            Where::Somewhere => "in the network",
            Where::Everywhere => "everywhere",
        };
        format!("this takes the role {} {place}; ask an owner of this coordinator", operation.least.name())
    } else {
        format!("this takes a token with the scope {}:{access}", operation.area.name())
    };
    refuse(ProblemCode::NotPermitted, &text)
}

fn unknown(other: Option<&Operation>, path: &str) -> Response {
    let allowed = axum::http::HeaderValue::try_from(super::operations::allowed(path));
    let path: String = path.chars().take(200).collect();
    match other {
        Some(_) => {
            let mut response = super::problem::with_status(
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                refuse(
                    ProblemCode::BadRequest,
                    "nothing is done here by this method; see /api/v1/openapi.json",
                ),
            );
            response.headers_mut().extend(allowed.map(|methods| (axum::http::header::ALLOW, methods)));
            response
        }
        None => refuse(
            ProblemCode::NotFound,
            &format!("there is nothing at /api{path}; see /api/v1/openapi.json"),
        )
        .into_response(),
    }
}
