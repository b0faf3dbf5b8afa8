//! The admin socket's answers about policies.
//!
//! ```text
//! GET  /v1/policy?network=&version=      POST /v1/policy (a change, or what would come of it)      PUT /v1/policy (a text)
//! GET  /v1/policy/history?network=       GET, POST /v1/policy/explain
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::Query;
use axum::http::HeaderMap;
use axum::http::header::{ETAG, IF_MATCH};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use ria_protocol::name::Name;
use ria_protocol::prefix::Prefix;
use ria_protocol::time::UnixTime;
use ria_protocol::version::Protocol;
use serde::Deserialize;

use super::api::{Problem, ProblemCode};
use super::desk::{Desk, Shared};
use super::server::{Admin, Answer, Body, By, NetworkFilter, choose_network, presence, problem};
use crate::policy::Who;
use crate::policy::api::{
    ChangePolicy, Explain, Explained, PolicyChanged, PolicyView, PutPolicy, VersionView, What,
};
use crate::policy::ask::{Entry, Roster};
use crate::policy::explain::explain;
use crate::policy::grant::Grant;
use crate::policy::valid::Period;
use crate::policy::words::permit;
use crate::registry::policy::{Checked, PolicyChange, PolicyEdit, PolicyError, check};
use crate::state::Network;

/// Longest note of a version.
const LONGEST_NOTE: usize = 500;

/// Longest grant; what lasts longer belongs into the policy itself.
const LONGEST_GRANT: u64 = 366 * 24 * 3600;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/v1/policy", get(show).post(change).put(put))
        .route("/v1/policy/history", get(history))
        .route("/v1/policy/explain", get(explained_by_query).post(explained))
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::NoNetwork | PolicyError::NoVersion(_) => problem(ProblemCode::NotFound, error),
            PolicyError::Mistakes(_) | PolicyError::TestsFail(_) => problem(ProblemCode::BadRequest, error),
            PolicyError::Changed { .. } => problem(ProblemCode::Changed, error),
            PolicyError::NoPolicy | PolicyError::LocksOut(_) => problem(ProblemCode::Conflict, error),
            PolicyError::Unavailable(error) => error.into(),
        }
    }
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

fn chosen(admin: &Desk, wanted: Option<&str>) -> Result<Arc<Network>, Problem> {
    let world = admin.world();
    choose_network(&world, wanted).cloned()
}

#[derive(Debug, Deserialize)]
struct Which {
    network: Option<String>,
    version: Option<u64>,
}

async fn show(shared: Shared, Query(which): Query<Which>) -> Result<Response, Problem> {
    let latest = which.version.is_none();
    let view = shown(shared, which).await?;
    let mut response = Json(&view).into_response();
    if latest && let Ok(tag) = format!("\"{}\"", view.version).parse() {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}

async fn shown(Shared(admin): Shared, which: Which) -> Result<PolicyView, Problem> {
    let network = chosen(&admin, which.network.as_deref())?;
    let name = network.info.name.clone();
    if let Some(version) = which.version {
        let found = admin.services.registry.policy_version(network.info.id, version).await?;
        let found = found.ok_or(PolicyError::NoVersion(version))?;
        let (text, since) = (found.text, Some(found.time));
        return Ok(PolicyView { network: name, version, text, since, warnings: Vec::new() });
    }
    let in_force = network.policy.in_force.as_ref();
    let text = in_force.map(|in_force| in_force.text.clone());
    // Members may have changed since it was set, so that its tests fail now; it stays in force all the same.
    let warnings = match text.clone().map(|text| check(&network, Some(text), now())) {
        None => Vec::new(),
        Some(Ok(checked)) => checked.warnings,
        Some(Err(error)) => vec![error.to_string()],
    };
    let since = in_force.map(|in_force| in_force.since);
    Ok(PolicyView { network: name, version: network.policy.version, text, since, warnings })
}

async fn history(Shared(admin): Shared, Query(filter): Query<NetworkFilter>) -> Answer<Vec<VersionView>> {
    let network = chosen(&admin, filter.network.as_deref())?;
    let all = admin.services.registry.policy_versions(network.info.id).await?;
    let view = |version: crate::state::policy::PolicyVersion| VersionView {
        version: version.version,
        time: version.time,
        actor: version.actor,
        note: version.note,
        policy: version.text.is_some(),
        in_force: version.version == network.policy.version,
    };
    Ok(Json(all.into_iter().map(view).collect()))
}

fn wanted(what: What) -> Result<PolicyChange, Problem> {
    let bad = |error: &dyn std::fmt::Display| problem(ProblemCode::BadRequest, error);
    Ok(match what {
        What::Set { text } => PolicyChange::Set(text),
        What::Rollback { version } => PolicyChange::Rollback(version),
        What::Clear {} => PolicyChange::Clear,
        What::Grant { from, to, allow, seconds, reason } => {
            if seconds == 0 || seconds > LONGEST_GRANT {
                return Err(bad(
                    &"access is granted for a year at most; what lasts longer belongs into the policy",
                ));
            }
            let whos =
                |texts: &[String]| texts.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>();
            let permits = allow.iter().map(|text| permit(text)).collect::<Result<Vec<_>, _>>();
            let period = Period { from: now(), until: now().plus(Duration::from_secs(seconds)) };
            PolicyChange::Grant(Box::new(Grant {
                from: whos(&from).map_err(|error| bad(&error))?,
                to: whos(&to).map_err(|error| bad(&error))?,
                permits: permits.map_err(|error| bad(&error))?,
                period,
                name: reason,
            }))
        }
    })
}

/// The version that a request was made from, by `If-Match: "VERSION"` (RFC 9110); any where there is none, or `*`.
fn matched(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(given) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = given.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|n| n.parse().ok());
    number.map(Some).ok_or_else(|| {
        problem(ProblemCode::BadRequest, "If-Match has to be the version that you have seen, such as \"7\"")
    })
}

async fn put(
    shared: Shared,
    actor: By,
    headers: HeaderMap,
    Body(request): Body<PutPolicy>,
) -> Answer<PolicyChanged> {
    let PutPolicy { network, text, note, dry_run, force } = request;
    let whole = ChangePolicy { network, what: What::Set { text }, base: None, note, dry_run, force };
    change(shared, actor, headers, Body(whole)).await
}

async fn change(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    headers: HeaderMap,
    Body(mut request): Body<ChangePolicy>,
) -> Answer<PolicyChanged> {
    request.base = matched(&headers)?.or(request.base);
    let network = chosen(&admin, request.network.as_ref().map(Name::as_str))?;
    if request.note.chars().count() > LONGEST_NOTE {
        let text = format!("the note is longer than {LONGEST_NOTE} characters");
        return Err(problem(ProblemCode::BadRequest, text));
    }
    let what = wanted(request.what)?;
    let registry = &admin.services.registry;
    if request.dry_run {
        let mut checked = registry.preview_policy(network.info.id, &what, &actor).await?;
        checked.warnings.extend(too_old(&admin, &network).await?);
        return Ok(Json(told(&network, checked, true)));
    }
    let edit = PolicyEdit { what, base: request.base, note: request.note, force: request.force };
    let mut changed = registry.set_policy(network.info.id, edit, actor).await?;
    changed.checked.warnings.extend(too_old(&admin, &changed.network).await?);
    Ok(Json(told(&changed.network, changed.checked, false)))
}

/// Members whose agents are older than policies: the others keep to it, and they themselves don't.
async fn too_old(admin: &Desk, network: &Network) -> Result<Vec<String>, Problem> {
    let presence = presence(admin).await?;
    let olds = network.members.values().filter_map(|member| {
        let known = presence.get(&(network.info.id, member.node))?;
        (known.protocol < Protocol::V2).then(|| {
            format!(
                "the agent of {} ({}) is too old to keep to a policy; the others keep to it all the same: update it",
                member.name, known.agent_version
            )
        })
    });
    Ok(olds.collect())
}

fn told(network: &Network, checked: Checked, dry_run: bool) -> PolicyChanged {
    let policy = checked.policy.as_ref().map(|(_, policy)| policy);
    PolicyChanged {
        network: network.info.name.clone(),
        version: network.policy.version,
        dry_run,
        policy: policy.is_some(),
        rules: policy.map_or(0, |policy| policy.rules.len()),
        tests: policy.map_or(0, |policy| policy.tests.len()),
        difference: checked.difference,
        warnings: checked.warnings,
    }
}

/// The member that has an address in the overlay.
fn member_at(network: &Network, address: IpAddr) -> Option<Name> {
    let members = network.members.values().map(|m| (m.address_v4, m.address_v6, &m.name));
    let statics = network.static_peers.values().map(|s| (s.address_v4, s.address_v6, &s.name));
    let mut all = members.chain(statics);
    let found = all.find(|(v4, v6, _)| IpAddr::from(*v4) == address || IpAddr::from(*v6) == address);
    found.map(|(.., name)| name.clone())
}

#[derive(Debug, Deserialize)]
struct Explaining {
    network: Option<Name>,
    from: String,
    to: String,
    question: Option<String>,
}

async fn explained_by_query(shared: Shared, Query(asked): Query<Explaining>) -> Answer<Explained> {
    let question = asked.question.filter(|text| !text.is_empty()).map(|text| text.parse()).transpose();
    let question = question.map_err(|error| problem(ProblemCode::BadRequest, error))?;
    let request = Explain { network: asked.network, from: asked.from, to: asked.to, question };
    explained(shared, Body(request)).await
}

async fn explained(Shared(admin): Shared, Body(request): Body<Explain>) -> Answer<Explained> {
    let network = chosen(&admin, request.network.as_ref().map(Name::as_str))?;
    let roster = Roster::of(&network);
    let find = |wanted: &str| -> Result<Entry, Problem> {
        let nobody = || {
            let text = format!(
                "there is no node {wanted:?} in {}; `ria-coordinator node list` shows all",
                network.info.name
            );
            problem(ProblemCode::NotFound, text)
        };
        if let Some(member) = wanted.parse().ok().and_then(|address| member_at(&network, address)) {
            return roster.named(&member).cloned().ok_or_else(nobody);
        }
        let address = wanted.parse().map(Prefix::host).ok();
        let route = || if let Ok(Who::Route(prefix)) = wanted.parse() { Some(prefix) } else { None };
        if let Some(prefix) = address.or_else(route) {
            return roster.devices(prefix).ok_or_else(|| {
                let text =
                    format!("nothing is reached at {prefix}; `ria-coordinator route list` shows what is");
                problem(ProblemCode::NotFound, text)
            });
        }
        roster.find(wanted).cloned().ok_or_else(nobody)
    };
    let (from, to) = (find(&request.from)?, find(&request.to)?);
    Ok(Json(explain(&network, (&from, &to), request.question, now())))
}
