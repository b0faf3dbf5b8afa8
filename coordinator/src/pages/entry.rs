//! In and out: login, logout, and the links by which people set their password.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use askama::Template;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use ria_protocol::time::UnixTime;

use super::drawing;
use super::frame::{
    Anonymous, FORM_COOKIE, Fields, Frame, Posted, Visitor, field, form_token, page, plain_message,
    see_other, set_cookie,
};
use crate::admin::client::escaped;
use crate::audit::Actor;
use crate::people::login::{Attempt, LoginError, log_in};
use crate::people::sessions::LONGEST;
use crate::people::{password, secret, totp};
use crate::registry::people::{UserChange, UserDeed};
use crate::rest::caller::{ClientAddress, SESSION_COOKIE, cookie};
use crate::rest::gate::Gate;
use crate::state::people::{LocalLogin, UserEntry, UserName};
use crate::store::StoreError;

/// A form may stay open for so long.
const FORM_LIFE: u64 = 24 * 3600;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
    error: String,
    name: String,
    next: String,
    /// What the button of the provider says; empty for none.
    provider: String,
    provider_href: String,
}

/// The page with what was typed before.
fn login_form(gate: &Gate, csrf: String, (error, name): (String, String), next: &str) -> LoginPage {
    let label = gate.admin.services.provider.as_ref().map(|provider| provider.settings.label.clone());
    LoginPage {
        frame: Frame::anonymous("Log in", csrf),
        error,
        name,
        next: next.to_owned(),
        provider: label.unwrap_or_default(),
        provider_href: format!("/login/oidc?next={}", escaped(next)),
    }
}

#[derive(Template)]
#[template(path = "welcome.html")]
struct WelcomePage {
    frame: Frame,
    error: String,
    name: String,
    owner: bool,
    qr: String,
    secret: String,
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// Only places here.
pub(super) fn safe_next(next: &str) -> &str {
    let here = next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n']);
    if here && next.len() < 1000 { next } else { "/" }
}

/// A page with a form for this browser, which keeps the cookie that it has.
fn bound_form(gate: &Gate, headers: &HeaderMap, build: impl FnOnce(String) -> Response) -> Response {
    let known = cookie(headers, FORM_COOKIE).filter(|value| value.len() == 32).map(str::to_owned);
    let value = known.unwrap_or_else(secret::fresh);
    let mut response = build(form_token(gate, &value));
    set_cookie(&mut response, FORM_COOKIE, &value, FORM_LIFE);
    response
}

pub(super) async fn login_page(
    State(gate): State<Arc<Gate>>,
    visitor: Option<Visitor>,
    Query(query): Query<Fields>,
    headers: HeaderMap,
) -> Response {
    let next = safe_next(field(&query, "next")).to_owned();
    if visitor.is_some() {
        return see_other(&next);
    }
    bound_form(&gate, &headers, |csrf| {
        page(StatusCode::OK, &login_form(&gate, csrf, (String::new(), String::new()), &next))
    })
}

pub(super) async fn login(
    State(gate): State<Arc<Gate>>,
    Extension(ClientAddress(from)): Extension<ClientAddress>,
    Anonymous { fields, csrf }: Anonymous,
) -> Response {
    let text = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let attempt = Attempt { name: text("name"), password: text("password"), code: text("code"), from };
    match log_in(&gate.admin.services, attempt).await {
        Ok(user) => welcome_in(&gate, &user, safe_next(field(&fields, "next"))).await,
        Err(error) => {
            let name: String = text("name").chars().take(64).collect();
            let next = safe_next(field(&fields, "next"));
            page(login_status(&error), &login_form(&gate, csrf, (error.to_string(), name), next))
        }
    }
}

/// How an attempt is answered that was none of the right one's.
pub(super) fn login_status(error: &LoginError) -> StatusCode {
    match error {
        LoginError::Wrong => StatusCode::UNAUTHORIZED,
        LoginError::Slow(_) => StatusCode::TOO_MANY_REQUESTS,
        LoginError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A new session: never one that the browser brought along.
pub(super) async fn welcome_in(gate: &Gate, user: &UserEntry, next: &str) -> Response {
    let begun = gate.admin.services.logins.sessions.begin(&user.name, user.era, now()).await;
    let cookie = match begun {
        Ok(cookie) => cookie,
        Err(error) => return no_database(&error),
    };
    let mut response = see_other(next);
    set_cookie(&mut response, SESSION_COOKIE, &cookie, LONGEST.as_secs());
    set_cookie(&mut response, FORM_COOKIE, "", 0);
    response
}

pub(super) async fn log_out(State(gate): State<Arc<Gate>>, headers: HeaderMap, posted: Posted) -> Response {
    drop(posted);
    if let Some(value) = cookie(&headers, SESSION_COOKIE) {
        let ended = gate.admin.services.logins.sessions.end(value, now()).await;
        if let Err(error) = ended {
            return no_database(&error);
        }
    }
    let mut response = see_other("/login");
    set_cookie(&mut response, SESSION_COOKIE, "", 0);
    response
}

pub(super) async fn log_out_everywhere(State(gate): State<Arc<Gate>>, posted: Posted) -> Response {
    let who = &posted.visitor.who;
    let change = UserChange { name: who.user.name.clone(), deed: UserDeed::LogOut, seen: None };
    match gate.admin.services.registry.change_user(change, who.actor()).await {
        Ok(_) => see_other("/login"),
        Err(error) => posted.visitor.problem(&error.into(), "/account"),
    }
}

fn no_database(error: &StoreError) -> Response {
    tracing::warn!(%error, "nobody can log in or out at the moment");
    let text = "The coordinator's database does not answer. Try again in a minute.";
    plain_message(StatusCode::SERVICE_UNAVAILABLE, "Not at the moment", text)
}

/// Whom a link lets in.
enum Invited {
    Owner,
    Somebody(UserName),
}

async fn invited(gate: &Gate, secret: &str) -> Option<(Invited, [u8; 32])> {
    let digest = secret::digest(secret.as_bytes());
    let services = &gate.admin.services;
    if services.logins.owner_link.is_good(&digest, now()).await.unwrap_or(false) {
        return Some((Invited::Owner, digest));
    }
    let world = services.registry.world();
    let theirs = |user: &&Arc<UserEntry>| {
        let open = user.invitation.as_ref().filter(|open| open.digest == digest && now() < open.expires);
        open.is_some() && user.disabled.is_none()
    };
    let user = world.people.users.values().find(theirs)?;
    Some((Invited::Somebody(user.name.clone()), digest))
}

fn no_invitation(gate: &Gate, from: IpAddr) -> Response {
    if gate.admin.services.logins.guard.handle_wrong_secret(from, Instant::now()) {
        return too_many();
    }
    let text = "This link was used already, or is too old. Ask an owner for another.";
    plain_message(StatusCode::NOT_FOUND, "This link is good no more", text)
}

fn too_many() -> Response {
    let text = "There were too many wrong attempts from your address. Wait a minute.";
    plain_message(StatusCode::TOO_MANY_REQUESTS, "Wait a little", text)
}

/// The secret of one-time codes that goes with a link: the same each time the page is loaded, without being stored.
fn totp_secret(gate: &Gate, link: &str) -> Vec<u8> {
    let derived = secret::derived(&gate.admin.services.logins.forms_key, "totp", link.as_bytes());
    derived.iter().copied().take(totp::SECRET).collect()
}

fn welcome_form(gate: &Gate, csrf: String, link: &str, shown: (&Invited, &str, String)) -> WelcomePage {
    let (invited, typed, error) = shown;
    let secret = totp_secret(gate, link);
    let (owner, name) = match invited {
        Invited::Owner => (true, typed.to_owned()),
        Invited::Somebody(name) => (false, name.to_string()),
    };
    let called = if name.is_empty() { "owner" } else { &name };
    let qr = drawing::qr(&totp::uri(&secret, called), "Secret for an authenticator; it stands below, too");
    WelcomePage {
        frame: Frame::anonymous("Welcome", csrf),
        error,
        name,
        owner,
        qr,
        secret: totp::shown(&secret),
    }
}

pub(super) async fn welcome_page(
    State(gate): State<Arc<Gate>>,
    Extension(ClientAddress(from)): Extension<ClientAddress>,
    Path(link): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some((whom, _)) = invited(&gate, &link).await else { return no_invitation(&gate, from) };
    bound_form(&gate, &headers, |csrf| {
        page(StatusCode::OK, &welcome_form(&gate, csrf, &link, (&whom, "", String::new())))
    })
}

pub(super) async fn welcome(
    State(gate): State<Arc<Gate>>,
    Extension(ClientAddress(from)): Extension<ClientAddress>,
    Path(link): Path<String>,
    Anonymous { fields, csrf }: Anonymous,
) -> Response {
    let Some((whom, digest)) = invited(&gate, &link).await else { return no_invitation(&gate, from) };
    match accept(&gate, &whom, digest, (&link, &fields)).await {
        Ok(user) => welcome_in(&gate, &user, "/").await,
        Err(error) => {
            let shown = (&whom, field(&fields, "name"), error);
            page(StatusCode::UNPROCESSABLE_ENTITY, &welcome_form(&gate, csrf, &link, shown))
        }
    }
}

async fn accept(
    gate: &Gate,
    whom: &Invited,
    digest: [u8; 32],
    (link, fields): (&str, &Fields),
) -> Result<Arc<UserEntry>, String> {
    let services = &gate.admin.services;
    let name: UserName = match whom {
        Invited::Somebody(name) => name.clone(),
        Invited::Owner => field(fields, "name").parse().map_err(|error| format!("{error}"))?,
    };
    if matches!(whom, Invited::Owner) && services.registry.world().people.users.contains_key(&name) {
        return Err(format!("there is somebody named {name} already; choose another name"));
    }
    let given = fields.get("password").cloned().unwrap_or_default();
    password::check(&given, name.as_str()).map_err(|error| error.to_string())?;
    let totp_secret = totp_secret(gate, link);
    let step = totp::step_of(&totp_secret, field(fields, "code"), now());
    let step = step.ok_or(
        "that is not the code which the authenticator shows now; check the clock of the phone and of this server",
    )?;
    let password_hash = services.logins.passwords.hash(given).await.map_err(|error| error.to_string())?;
    let login = LocalLogin { password_hash, totp_secret };
    let deed = match whom {
        Invited::Somebody(_) => UserDeed::Accept(digest, login),
        Invited::Owner => {
            let taken = services.logins.owner_link.take(&digest, now()).await;
            if !taken.map_err(|error| error.to_string())? {
                return Err("this link was used already; ask for another".to_owned());
            }
            UserDeed::AddOwner(login)
        }
    };
    let change = UserChange { name: name.clone(), deed, seen: None };
    let done = services.registry.change_user(change, Actor::User(name.clone(), None)).await;
    if done.is_ok() {
        // Whoever is in is in; that the code is used up is for others.
        let _ = services.logins.uses_code(&name, step, now()).await;
    }
    done.map_err(|error| error.to_string())
}

pub(super) async fn nothing_here(visitor: Option<Visitor>) -> Response {
    let text = "There is no page at this address.";
    match visitor {
        Some(visitor) => {
            let problem = crate::admin::api::Problem {
                code: crate::admin::api::ProblemCode::NotFound,
                message: text.to_owned(),
            };
            visitor.problem(&problem, "/")
        }
        None => plain_message(StatusCode::NOT_FOUND, "There is no such page", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_login_nobody_is_sent_elsewhere() {
        assert_eq!(safe_next("/nodes?network=lab"), "/nodes?network=lab");
        for bad in [
            "",
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "javascript:alert(1)",
            "/a\r\nb",
        ] {
            assert_eq!(safe_next(bad), "/", "{bad:?}");
        }
    }
}
