//! Operations on people and their tokens.
//!
//! ```text
//! GET  /v1/users          POST /v1/users             POST /v1/owner-link
//! GET  /v1/users/{name}   DELETE /v1/users/{name}    POST /v1/users/{name}/roles, /reset, /disable, /enable, /leave
//! GET  /v1/tokens         POST /v1/tokens            DELETE /v1/tokens/{id}
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::Path as UrlPath;
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use ria_protocol::id::KeyId;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;

use super::api::{Problem, ProblemCode};
use super::api_people::{
    AddUser, CreateToken, CreatedToken, InvitedView, LinkView, SetRoles, TokenView, UserState, UserView,
};
use super::desk::Shared;
use super::server::{Admin, Answer, Body, By, find_network, problem};
use crate::audit::{Actor, Event};
use crate::config::PublicUrl;
use crate::people::secret;
use crate::registry::Unavailable;
use crate::registry::people::{PeopleError, UserChange, UserDeed};
use crate::state::World;
use crate::state::people::{Invitation, Role, Roles, TokenEntry, UserEntry, UserName};

/// How long an invitation is good.
const INVITED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
const LONGEST_LABEL: usize = 80;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/v1/users", get(list).post(add))
        .route("/v1/users/{name}", get(show).delete(remove))
        .route("/v1/users/{name}/roles", post(set_roles))
        .route("/v1/users/{name}/reset", post(reset))
        .route("/v1/users/{name}/disable", post(disable))
        .route("/v1/users/{name}/enable", post(enable))
        .route("/v1/users/{name}/leave", post(super::leaving::leave))
        .route("/v1/owner-link", post(owner_link))
        .route("/v1/tokens", get(list_tokens).post(create_token))
        .route("/v1/tokens/{id}", delete(remove_token))
}

impl From<PeopleError> for Problem {
    fn from(error: PeopleError) -> Self {
        let code = match error {
            PeopleError::Unavailable(error) => return error.into(),
            PeopleError::NoUser(_) | PeopleError::NoToken(_) | PeopleError::NoInvitation => {
                ProblemCode::NotFound
            }
            PeopleError::Changed(_) => ProblemCode::Changed,
            PeopleError::NameTaken(_)
            | PeopleError::LastOwner(_)
            | PeopleError::LinkedElsewhere(_)
            | PeopleError::TooManyTokens(_)
            | PeopleError::TooManyUsers => ProblemCode::Conflict,
        };
        problem(code, error)
    }
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

fn view(world: &World, user: &UserEntry) -> UserView {
    let name = |(id, role): (_, &Role)| Some((world.networks.get(id)?.info.name.clone(), *role));
    UserView {
        name: user.name.clone(),
        state: match (user.disabled, user.has_login()) {
            (Some(_), _) => UserState::Disabled,
            (None, true) => UserState::Active,
            (None, false) => UserState::Invited,
        },
        provider: user.federated.as_ref().map(|own| own.issuer.clone()),
        groups: user.federated.as_ref().map(|own| own.groups.clone()).unwrap_or_default(),
        everywhere: user.roles.everywhere,
        networks: user.roles.networks.iter().filter_map(name).collect(),
        created: user.created,
        disabled: user.disabled,
        invited_until: user.invitation.as_ref().map(|invitation| invitation.expires),
        tokens: world.people.tokens.values().filter(|token| token.user == user.name).count(),
        version: user.version,
    }
}

pub(super) fn token_view(token: &TokenEntry) -> TokenView {
    TokenView {
        id: token.id,
        user: token.user.clone(),
        label: token.label.clone(),
        scopes: token.scopes.clone(),
        created: token.created,
        expires: token.expires,
    }
}

pub(super) fn user_name(text: &str) -> Result<UserName, Problem> {
    text.parse().map_err(|error| problem(ProblemCode::BadRequest, error))
}

fn find_user<'w>(world: &'w World, name: &UserName) -> Result<&'w Arc<UserEntry>, Problem> {
    world.people.users.get(name).ok_or_else(|| PeopleError::NoUser(name.clone()).into())
}

fn roles(world: &World, everywhere: Option<Role>, networks: BTreeMap<Name, Role>) -> Result<Roles, Problem> {
    if everywhere.is_none() && networks.is_empty() {
        let text = "give a role, everywhere or in a network; who has none can do nothing";
        return Err(problem(ProblemCode::BadRequest, text));
    }
    let id = |(name, role): (Name, Role)| Ok((find_network(world, name.as_str())?.info.id, role));
    let networks = networks.into_iter().map(id).collect::<Result<_, Problem>>()?;
    Ok(Roles { everywhere, networks })
}

/// A fresh invitation, and the link that belongs to it.
fn invitation(admin: &Admin) -> (Invitation, LinkView) {
    let (text, expires) = (secret::fresh(), now().plus(INVITED_FOR));
    let invitation = Invitation { digest: secret::digest(text.as_bytes()), expires };
    (invitation, LinkView { link: welcome_link(&admin.public_urls, admin.port, &text), expires })
}

/// Where somebody with an invitation goes. Without a public URL that is this machine only.
pub(crate) fn welcome_link(urls: &[PublicUrl], port: u16, secret: &str) -> String {
    let base =
        urls.first().map_or_else(|| format!("https://localhost:{port}"), |url| url.as_str().to_owned());
    format!("{base}/welcome/{secret}")
}

async fn list(Shared(admin): Shared) -> Answer<Vec<UserView>> {
    let world = admin.world();
    Ok(Json(world.people.users.values().map(|user| view(&world, user)).collect()))
}

async fn show(Shared(admin): Shared, UrlPath(name): UrlPath<String>) -> Answer<UserView> {
    let world = admin.world();
    Ok(Json(view(&world, find_user(&world, &user_name(&name)?)?)))
}

pub(super) async fn change(
    admin: &Admin,
    name: UserName,
    deed: UserDeed,
    actor: Actor,
) -> Result<UserView, Problem> {
    let change = UserChange { name, deed, seen: None };
    let user = admin.services.registry.change_user(change, actor).await?;
    // Their laptops go out, or come in again, with them.
    crate::housekeeping::sweep_laptops(&admin.services).await;
    Ok(view(&admin.services.registry.world(), &user))
}

async fn add(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    Body(request): Body<AddUser>,
) -> Answer<InvitedView> {
    let roles = roles(&admin.world(), request.everywhere, request.networks)?;
    let (invitation, link) = invitation(&admin);
    let user = change(&admin, request.name, UserDeed::Add(roles, invitation), actor).await?;
    Ok(Json(InvitedView { user, link }))
}

async fn reset(
    Shared(admin): Shared,
    UrlPath(name): UrlPath<String>,
    axum::Extension(actor): By,
) -> Answer<InvitedView> {
    let (invitation, link) = invitation(&admin);
    let user = change(&admin, user_name(&name)?, UserDeed::Reset(invitation), actor).await?;
    Ok(Json(InvitedView { user, link }))
}

async fn set_roles(
    Shared(admin): Shared,
    UrlPath(name): UrlPath<String>,
    axum::Extension(actor): By,
    Body(request): Body<SetRoles>,
) -> Answer<UserView> {
    let roles = roles(&admin.world(), request.everywhere, request.networks)?;
    let change =
        UserChange { name: user_name(&name)?, deed: UserDeed::SetRoles(roles), seen: request.version };
    let user = admin.services.registry.change_user(change, actor).await?;
    Ok(Json(view(&admin.world(), &user)))
}

async fn disable(
    Shared(admin): Shared,
    UrlPath(name): UrlPath<String>,
    axum::Extension(actor): By,
) -> Answer<UserView> {
    Ok(Json(change(&admin, user_name(&name)?, UserDeed::SetEnabled(false), actor).await?))
}

async fn enable(
    Shared(admin): Shared,
    UrlPath(name): UrlPath<String>,
    axum::Extension(actor): By,
) -> Answer<UserView> {
    Ok(Json(change(&admin, user_name(&name)?, UserDeed::SetEnabled(true), actor).await?))
}

async fn remove(
    Shared(admin): Shared,
    UrlPath(name): UrlPath<String>,
    axum::Extension(actor): By,
) -> Answer<UserView> {
    Ok(Json(change(&admin, user_name(&name)?, UserDeed::Remove, actor).await?))
}

/// A link by which one more owner comes in: only from the machine itself.
async fn owner_link(Shared(admin): Shared, axum::Extension(actor): By) -> Answer<LinkView> {
    let (text, expires) = admin.services.logins.owner_link.renew(now()).await.map_err(Unavailable::from)?;
    let (action, subject) = ("user.owner-link-made", "owner".to_owned());
    let detail = serde_json::json!({ "expires": expires });
    let event = Event { time: now(), actor, action, network: None, subject, detail };
    admin.services.registry.record(event).await?;
    Ok(Json(LinkView { link: welcome_link(&admin.public_urls, admin.port, &text), expires }))
}

/// Whether whoever asks may see and remove this person's tokens: their own, or all of them.
fn may_manage(world: &World, actor: &Actor, user: &UserName) -> bool {
    match actor {
        Actor::User(name, _) => {
            let everywhere = world.people.users.get(name).and_then(|user| user.roles.everywhere);
            name == user || everywhere == Some(Role::Owner)
        }
        Actor::Coordinator | Actor::Local(_) | Actor::Person(_) => true,
        Actor::Node(_) | Actor::NodeFor(..) | Actor::Stranger(_) => false,
    }
}

async fn list_tokens(Shared(admin): Shared, axum::Extension(actor): By) -> Answer<Vec<TokenView>> {
    let world = admin.world();
    let all = world.people.tokens.values().filter(|token| may_manage(&world, &actor, &token.user));
    Ok(Json(all.map(|token| token_view(token)).collect()))
}

async fn create_token(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    Body(request): Body<CreateToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    let bad = |text: &str| Err(problem(ProblemCode::BadRequest, text));
    let user = match (&actor, request.user) {
        (Actor::User(_, Some(_)), _) => {
            let text = "a token makes no tokens; log in to the pages, or use `ria-coordinator user token`";
            return Err(problem(ProblemCode::NotPermitted, text));
        }
        (Actor::User(own, None), None) => own.clone(),
        (Actor::User(own, None), Some(other)) if *own != other => {
            return Err(problem(
                ProblemCode::NotPermitted,
                "make tokens for yourself; others make their own",
            ));
        }
        (_, Some(user)) => user,
        (_, None) => return bad("name the person that the token acts for"),
    };
    let label = request.label.trim();
    if label.is_empty() || label.chars().count() > LONGEST_LABEL || label.chars().any(char::is_control) {
        return bad("give the token a label of 1 to 80 characters that says what it is for");
    }
    if request.scopes.is_empty() {
        return bad("give the token a scope, such as nodes:read; without one it is good for nothing");
    }
    let text = secret::fresh();
    let mut scopes = request.scopes;
    scopes.sort();
    scopes.dedup();
    let token = TokenEntry {
        id: KeyId::from_bytes(crate::random::bytes()),
        user,
        label: label.to_owned(),
        digest: secret::digest(text.as_bytes()),
        scopes,
        created: now(),
        expires: request.expires_after.map(|seconds| now().plus(Duration::from_secs(seconds))),
    };
    let created = CreatedToken { token: secret::token_text(token.id, &text), view: token_view(&token) };
    admin.services.registry.add_token(token, actor).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

async fn remove_token(
    Shared(admin): Shared,
    UrlPath(id): UrlPath<String>,
    axum::Extension(actor): By,
) -> Answer<TokenView> {
    let id: KeyId = id.parse().map_err(|error| problem(ProblemCode::BadRequest, error))?;
    let world = admin.world();
    let known = world.people.tokens.get(&id).filter(|token| may_manage(&world, &actor, &token.user));
    let token = known.ok_or(PeopleError::NoToken(id))?;
    admin.services.registry.remove_token(token.id, actor).await?;
    Ok(Json(token_view(token)))
}
