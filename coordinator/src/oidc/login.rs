//! Whom the provider names becomes somebody here: known by issuer and subject, never by a name or an address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ria_protocol::time::UnixTime;
use serde_json::json;

use super::claims::Someone;
use super::{Attempt, Back, OidcError, Provider};
use crate::audit::{Actor, Event};
use crate::people::login::succeeded;
use crate::registry::people::{PeopleError, UserChange, UserDeed};
use crate::session::Services;
use crate::state::people::{Federated, Roles, UserEntry, UserName};

/// Nobody is logged in.
#[derive(Debug, thiserror::Error)]
pub enum FederatedError {
    #[error(transparent)]
    Oidc(#[from] OidcError),
    #[error(
        "there is somebody named {0} already who does not log in this way; if that is you, log in by password, and \
         connect the two on the page Account"
    )]
    NameTaken(UserName),
    #[error("you may not log in here any more; ask an owner of this coordinator")]
    Disabled,
    #[error(
        "the network {0}, in which newcomers get their role, does not exist; tell an administrator (oidc.role_in)"
    )]
    NoNetwork(String),
    #[error(transparent)]
    People(#[from] PeopleError),
    #[error(
        "logins can't be noted in the audit log at the moment, so nobody can log in; see the coordinator's log"
    )]
    Unavailable,
}

/// The person that comes back from the provider, and where they wanted to go.
pub async fn log_in(
    services: &Services,
    provider: &Provider,
    (back, browser): (&Back, &str),
    from: IpAddr,
) -> Result<(Arc<UserEntry>, String), FederatedError> {
    let done = finish(services, provider, (back, browser), from).await;
    if let Err(error) = &done {
        note_failure(services, error, from).await;
    }
    done
}

async fn finish(
    services: &Services,
    provider: &Provider,
    (back, browser): (&Back, &str),
    from: IpAddr,
) -> Result<(Arc<UserEntry>, String), FederatedError> {
    let attempt = provider.take(&back.state, browser).await?;
    let someone = provider.finish(&attempt, back).await?;
    let user = match &attempt.link {
        Some(name) => link(services, provider, name, &someone).await?,
        None => known_or_new(services, provider, &someone).await?,
    };
    if user.disabled.is_some() {
        return Err(FederatedError::Disabled);
    }
    let detail = json!({ "from": from.to_canonical(), "by": provider.settings.issuer });
    let event = succeeded(&user, detail);
    services.registry.record(event).await.map_err(|_| FederatedError::Unavailable)?;
    Ok((user, next(attempt)))
}

fn next(attempt: Attempt) -> String {
    if attempt.link.is_some() { "/account?done=linked".to_owned() } else { attempt.next }
}

fn federated(provider: &Provider, someone: &Someone) -> Federated {
    let settings = &provider.settings;
    Federated {
        issuer: settings.issuer.clone(),
        subject: someone.subject.clone(),
        groups: someone.groups(settings),
    }
}

async fn link(
    services: &Services,
    provider: &Provider,
    name: &UserName,
    someone: &Someone,
) -> Result<Arc<UserEntry>, FederatedError> {
    let deed = UserDeed::Link(federated(provider, someone));
    let change = UserChange { name: name.clone(), deed, seen: None };
    Ok(services.registry.change_user(change, Actor::User(name.clone(), None)).await?)
}

async fn known_or_new(
    services: &Services,
    provider: &Provider,
    someone: &Someone,
) -> Result<Arc<UserEntry>, FederatedError> {
    let theirs = federated(provider, someone);
    let world = services.registry.world();
    let known = world
        .people
        .users
        .values()
        .find(|user| user.federated.as_ref().is_some_and(|own| own.is_same_person(&theirs)));
    if let Some(user) = known {
        if user.disabled.is_some() {
            return Err(FederatedError::Disabled);
        }
        return link(services, provider, &user.name, someone).await;
    }
    let name = someone.name(&provider.settings).map_err(OidcError::from)?;
    if world.people.users.contains_key(&name) {
        return Err(FederatedError::NameTaken(name));
    }
    let settings = &provider.settings;
    let mut roles = Roles::default();
    for wanted in &settings.role_in {
        let network = world.networks.values().find(|network| network.info.name == *wanted);
        let network = network.ok_or_else(|| FederatedError::NoNetwork(wanted.to_string()))?;
        roles.networks.insert(network.info.id, settings.role);
    }
    if settings.role_in.is_empty() {
        roles.everywhere = Some(settings.role);
    }
    let deed = UserDeed::AddFederated(roles, theirs);
    let change = UserChange { name: name.clone(), deed, seen: None };
    match services.registry.change_user(change, Actor::User(name, None)).await {
        Err(PeopleError::NameTaken(name)) => Err(FederatedError::NameTaken(name)),
        done => Ok(done?),
    }
}

/// A failed login in the audit log, in words; tokens and codes are in none of them.
async fn note_failure(services: &Services, error: &FederatedError, from: IpAddr) {
    let logins = &services.logins;
    logins.guard.handle_wrong_secret(from, Instant::now());
    tracing::info!(%error, "a login by the provider failed");
    if !logins.guard.keeps_row(&format!("login {from}"), Instant::now()) {
        return;
    }
    let event = Event {
        time: UnixTime::from(SystemTime::now()),
        actor: Actor::Stranger(from),
        action: "login.failed",
        network: None,
        subject: "-".to_owned(),
        detail: json!({ "wrong": error.to_string(), "by": "provider" }),
    };
    if let Err(error) = services.registry.record(event).await {
        tracing::debug!(%error, "a failed login is not in the audit log");
    }
}
