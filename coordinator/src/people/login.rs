//! Logging in: name, password and one-time code, all at once, so that nothing tells which of them was wrong.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ria_protocol::time::UnixTime;
use serde_json::{Value, json};

use super::guard::Wait;
use super::totp;
use crate::audit::{Actor, Event};
use crate::session::Services;
use crate::state::people::{UserEntry, UserName};

/// What somebody gave.
#[derive(Clone)]
pub struct Attempt {
    pub name: String,
    pub password: String,
    pub code: String,
    pub from: IpAddr,
}

/// Nobody is logged in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    #[error("that does not belong together; check name, password and code, and try again")]
    Wrong,
    #[error("too many attempts; wait {0} seconds, then try again")]
    Slow(u64),
    #[error(
        "logins can't be noted in the audit log at the moment, so nobody can log in; see the coordinator's log"
    )]
    Unavailable,
}

impl From<Wait> for LoginError {
    fn from(Wait(time): Wait) -> Self {
        Self::Slow(time.as_secs() + 1)
    }
}

/// Whoever gave the right things, and is logged in.
pub async fn log_in(services: &Services, attempt: Attempt) -> Result<Arc<UserEntry>, LoginError> {
    let from = attempt.from;
    let user = prove(services, attempt).await?;
    let event = succeeded(&user, json!({ "from": from.to_canonical() }));
    services.registry.record(event).await.map_err(|_| LoginError::Unavailable)?;
    Ok(user)
}

/// That somebody is logged in, whichever way they came.
pub fn succeeded(user: &UserEntry, detail: Value) -> Event {
    Event {
        time: UnixTime::from(SystemTime::now()),
        actor: Actor::User(user.name.clone(), None),
        action: "login.succeeded",
        network: None,
        subject: user.name.to_string(),
        detail,
    }
}

/// Whoever gave the right things.
pub async fn prove(services: &Services, attempt: Attempt) -> Result<Arc<UserEntry>, LoginError> {
    let logins = &services.logins;
    let name = attempt.name.trim().to_lowercase();
    let known: Option<UserName> = name.parse().ok();
    let counted = known.as_ref().map(UserName::as_str);
    logins.guard.allows(attempt.from, counted, Instant::now())?;
    // Counted before it is known: attempts that are made at once are as many as those one after the other.
    logins.guard.handle_failure(attempt.from, counted, Instant::now());
    let world = services.registry.world();
    let user = known.as_ref().and_then(|name| world.people.users.get(name)).filter(|user| user.is_active());
    let login = user.and_then(|user| user.login.clone());
    let hash = login.as_ref().map(|login| login.password_hash.clone());
    let password_right = logins.passwords.verify(attempt.password, hash).await;
    let now = UnixTime::from(SystemTime::now());
    let step = login.and_then(|login| totp::step_of(&login.totp_secret, &attempt.code, now));
    let (Some(user), Some(step), true) = (user, step, password_right) else {
        let reason = if password_right { "code" } else { "name or password" };
        note_failure(services, known.as_ref(), attempt.from, reason).await;
        return Err(LoginError::Wrong);
    };
    let fresh = logins.uses_code(&user.name, step, now).await.map_err(|_| LoginError::Unavailable)?;
    if !fresh {
        note_failure(services, known.as_ref(), attempt.from, "code used before").await;
        return Err(LoginError::Wrong);
    }
    logins.guard.handle_success(&user.name);
    logins.guard.forgive(attempt.from, Instant::now());
    Ok(user.clone())
}

/// A failed login in the audit log. What was typed as a name is kept only where it is one.
async fn note_failure(services: &Services, name: Option<&UserName>, from: IpAddr, wrong: &str) {
    let who = format!("login {from}");
    if !services.logins.guard.keeps_row(&who, Instant::now()) {
        return;
    }
    let event = Event {
        time: UnixTime::from(SystemTime::now()),
        actor: Actor::Stranger(from),
        action: "login.failed",
        network: None,
        subject: name.map_or_else(|| "-".to_owned(), ToString::to_string),
        detail: json!({ "wrong": wrong }),
    };
    if let Err(error) = services.registry.record(event).await {
        tracing::debug!(%error, "a failed login is not in the audit log");
    }
}
