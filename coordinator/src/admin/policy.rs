//! The admin socket's answers about policies.
//!
//! ```text
//! GET  /v1/policy?network=&version=      POST /v1/policy (a change, or what would come of it)
//! GET  /v1/policy/history?network=       POST /v1/policy/explain
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::Query;
use axum::routing::{get, post};
use axum::{Json, Router};
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use serde::Deserialize;

use super::api::{Problem, ProblemCode};
use super::desk::{Desk, Shared};
use super::server::{Admin, Answer, Body, By, NetworkFilter, choose_network, problem};
use crate::policy::api::{ChangePolicy, Explain, Explained, PolicyChanged, PolicyView, VersionView, What};
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
        .route("/v1/policy", get(show).post(change))
        .route("/v1/policy/history", get(history))
        .route("/v1/policy/explain", post(explained))
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        match error {
            PolicyError::NoNetwork | PolicyError::NoVersion(_) => problem(ProblemCode::NotFound, error),
            PolicyError::Mistakes(_) | PolicyError::TestsFail(_) => problem(ProblemCode::BadRequest, error),
            PolicyError::Changed { .. } | PolicyError::NoPolicy => problem(ProblemCode::Conflict, error),
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

async fn show(Shared(admin): Shared, Query(which): Query<Which>) -> Answer<PolicyView> {
    let network = chosen(&admin, which.network.as_deref())?;
    let name = network.info.name.clone();
    if let Some(version) = which.version {
        let found = admin.services.registry.policy_version(network.info.id, version).await?;
        let found = found.ok_or(PolicyError::NoVersion(version))?;
        let (text, since) = (found.text, Some(found.time));
        return Ok(Json(PolicyView { network: name, version, text, since, warnings: Vec::new() }));
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
    Ok(Json(PolicyView { network: name, version: network.policy.version, text, since, warnings }))
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

async fn change(
    Shared(admin): Shared,
    axum::Extension(actor): By,
    Body(request): Body<ChangePolicy>,
) -> Answer<PolicyChanged> {
    let network = chosen(&admin, request.network.as_ref().map(Name::as_str))?;
    if request.note.chars().count() > LONGEST_NOTE {
        let text = format!("the note is longer than {LONGEST_NOTE} characters");
        return Err(problem(ProblemCode::BadRequest, text));
    }
    let what = wanted(request.what)?;
    let registry = &admin.services.registry;
    if request.dry_run {
        let checked = registry.preview_policy(network.info.id, &what).await?;
        return Ok(Json(told(&network, checked, true)));
    }
    let edit = PolicyEdit { what, base: request.base, note: request.note };
    let changed = registry.set_policy(network.info.id, edit, actor).await?;
    Ok(Json(told(&changed.network, changed.checked, false)))
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
        roster.find(wanted).cloned().ok_or_else(nobody)
    };
    let (from, to) = (find(&request.from)?, find(&request.to)?);
    Ok(Json(explain(&network, (&from, &to), request.question, now())))
}
