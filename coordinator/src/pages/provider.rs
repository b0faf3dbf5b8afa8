//! In by a provider's word: to it, and back from it.

use std::sync::Arc;

use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::entry::{safe_next, welcome_in};
use super::frame::{Fields, Posted, Visitor, field, plain_message, see_other, set_cookie};
use crate::admin::api::{Problem, ProblemCode};
use crate::oidc::login::{FederatedError, log_in};
use crate::oidc::{Back, LIFE, OidcError, Provider};
use crate::rest::caller::{ClientAddress, cookie};
use crate::rest::gate::Gate;
use crate::state::people::UserName;

/// What binds a login to the browser that it began in.
const COOKIE: &str = "__Host-ria-provider";

fn none() -> Response {
    let text = "This coordinator asks no provider who somebody is; log in by password.";
    plain_message(StatusCode::NOT_FOUND, "There is no such login", text)
}

async fn away(provider: &Provider, next: &str, link: Option<UserName>) -> Result<Response, OidcError> {
    let (place, browser) = provider.begin(next, link).await?;
    let mut response = see_other(&place);
    set_cookie(&mut response, COOKIE, &browser, LIFE.as_secs());
    Ok(response)
}

fn went_wrong(error: &FederatedError) -> Response {
    let status = match error {
        FederatedError::Oidc(OidcError::Unreachable(_) | OidcError::Misbehaved(_))
        | FederatedError::Oidc(OidcError::Token(_) | OidcError::Claims(_)) => StatusCode::BAD_GATEWAY,
        FederatedError::Oidc(OidcError::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
        FederatedError::Oidc(OidcError::Stale) => StatusCode::BAD_REQUEST,
        FederatedError::Oidc(OidcError::Refused(_) | OidcError::NotAdmitted(_))
        | FederatedError::Disabled => StatusCode::FORBIDDEN,
        FederatedError::NameTaken(_) => StatusCode::CONFLICT,
        FederatedError::NoNetwork(_) | FederatedError::People(_) | FederatedError::Unavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    plain_message(status, "You are not logged in", &sentence(&error.to_string()))
}

/// Errors begin small and end without a full stop, for they stand behind others.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

pub(super) async fn begin(
    State(gate): State<Arc<Gate>>,
    visitor: Option<Visitor>,
    Query(query): Query<Fields>,
) -> Response {
    let next = safe_next(field(&query, "next"));
    if visitor.is_some() {
        return see_other(next);
    }
    let Some(provider) = &gate.admin.services.provider else { return none() };
    away(provider, next, None).await.unwrap_or_else(|error| went_wrong(&error.into()))
}

/// Somebody who is logged in wants to come in this way, too.
pub(super) async fn connect(State(gate): State<Arc<Gate>>, Posted { visitor, .. }: Posted) -> Response {
    let Some(provider) = &gate.admin.services.provider else { return none() };
    let name = visitor.who.user.name.clone();
    away(provider, "/account", Some(name)).await.unwrap_or_else(|error| {
        let problem = Problem { code: ProblemCode::Unavailable, message: error.to_string() };
        visitor.problem(&problem, "/account")
    })
}

pub(super) async fn back(
    State(gate): State<Arc<Gate>>,
    Extension(ClientAddress(from)): Extension<ClientAddress>,
    Query(back): Query<Back>,
    headers: HeaderMap,
) -> Response {
    let services = &gate.admin.services;
    let Some(provider) = &services.provider else { return none() };
    let browser = cookie(&headers, COOKIE).unwrap_or_default();
    let mut response = match log_in(services, provider, (&back, browser), from).await {
        Ok((user, next)) => welcome_in(&gate, &user, &next).await,
        Err(error) => went_wrong(&error),
    };
    set_cookie(&mut response, COOKIE, "", 0);
    response
}
