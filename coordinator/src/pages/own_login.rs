//! Another password or authenticator for whoever has the present ones.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use ria_protocol::time::UnixTime;

use super::drawing;
use super::entry::{login_status, welcome_in};
use super::frame::{Fields, Posted, Visitor, field};
use super::read::{AccountNews, account_page};
use crate::people::login::{Attempt, prove};
use crate::people::{password, secret, totp};
use crate::registry::people::{UserChange, UserDeed};
use crate::rest::caller::ClientAddress;
use crate::rest::gate::Gate;
use crate::state::people::UserEntry;

/// What the form takes beside the present password and code; a mistake in it uses up no code.
struct Wanted {
    password: Option<String>,
    /// Secret, and the step of its code.
    authenticator: Option<(Vec<u8>, u64)>,
}

type Refused = (StatusCode, String);

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// The secret of another authenticator: the same as long as the session and the login last, without being stored.
fn offered(gate: &Gate, visitor: &Visitor) -> Vec<u8> {
    let user = &visitor.who.user;
    let of = format!("{} {} {}", user.name, user.era, visitor.csrf);
    let derived = secret::derived(&gate.admin.services.logins.forms_key, "another totp", of.as_bytes());
    derived.iter().copied().take(totp::SECRET).collect()
}

/// It as a code to scan and as text.
pub(super) fn shown(gate: &Gate, visitor: &Visitor) -> (String, String) {
    let secret = offered(gate, visitor);
    let uri = totp::uri(&secret, visitor.who.user.name.as_str());
    (drawing::qr(&uri, "Secret for another authenticator; it stands below, too"), totp::shown(&secret))
}

pub(super) async fn change(
    State(gate): State<Arc<Gate>>,
    Extension(ClientAddress(from)): Extension<ClientAddress>,
    Posted { visitor, fields }: Posted,
) -> Response {
    match changed(&gate, (&visitor, from), &fields).await {
        // All sessions have ended; this browser goes on by a new one.
        Ok(user) => welcome_in(&gate, &user, "/account?done=login").await,
        Err((status, error)) => {
            let news = AccountNews { error, ..AccountNews::default() };
            let mut response = account_page(&gate, &visitor, news).await;
            *response.status_mut() = status;
            response
        }
    }
}

fn wanted(gate: &Gate, visitor: &Visitor, fields: &Fields) -> Result<Wanted, String> {
    let given = fields.get("new-password").filter(|given| !given.is_empty()).cloned();
    if let Some(given) = &given {
        password::check(given, visitor.who.user.name.as_str()).map_err(|error| error.to_string())?;
    }
    let code = field(fields, "new-code");
    let authenticator = match code {
        "" => None,
        code => {
            let secret = offered(gate, visitor);
            let step = totp::step_of(&secret, code, now()).ok_or(
                "that is not the code which the new authenticator shows now; scan its secret, then type what it shows",
            )?;
            Some((secret, step))
        }
    };
    if given.is_none() && authenticator.is_none() {
        return Err("type another password, or the code of another authenticator, or both".to_owned());
    }
    Ok(Wanted { password: given, authenticator })
}

async fn changed(
    gate: &Gate,
    (visitor, from): (&Visitor, IpAddr),
    fields: &Fields,
) -> Result<Arc<UserEntry>, Refused> {
    let services = &gate.admin.services;
    let text = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let wanted = wanted(gate, visitor, fields).map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error))?;
    let name = visitor.who.user.name.clone();
    let attempt = Attempt { name: name.to_string(), password: text("password"), code: text("code"), from };
    let user = prove(services, attempt).await.map_err(|error| (login_status(&error), error.to_string()))?;
    let no_login = || (StatusCode::CONFLICT, "you log in by a provider, not by a password".to_owned());
    let mut login = user.login.clone().ok_or_else(no_login)?;
    if let Some(password) = wanted.password {
        let made = services.logins.passwords.hash(password).await;
        login.password_hash = made.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    }
    if let Some((secret, _)) = &wanted.authenticator {
        login.totp_secret.clone_from(secret);
    }
    let change =
        UserChange { name: name.clone(), deed: UserDeed::ChangeLogin(login), seen: Some(user.version) };
    let done = services.registry.change_user(change, visitor.who.actor()).await;
    let done = done.map_err(|error| (StatusCode::CONFLICT, error.to_string()))?;
    if let Some((_, step)) = wanted.authenticator {
        // It is theirs already; that the code is used up is for others.
        let _ = services.logins.uses_code(&name, step, now()).await;
    }
    Ok(done)
}
