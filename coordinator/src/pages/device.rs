//! Somebody lets their laptop in: they type the code that `ria login` shows, see which machine it is, and decide.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use askama::Template;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use ria_protocol::time::UnixTime;

use super::frame::{Fields, Frame, Posted, Visitor, field, page};
use crate::admin::api::{Problem, ProblemCode};
use crate::admin::urls_for_keys;
use crate::people::device::{Asking, Decision, shown_code};
use crate::registry::Unavailable;
use crate::rest::caller::ClientAddress;
use crate::rest::gate::Gate;
use crate::state::people::{Reach, Role};

#[derive(Template)]
#[template(path = "device.html")]
struct DevicePage {
    frame: Frame,
    error: String,
    /// What was typed, or the code of the laptop.
    code: String,
    /// Empty until a laptop was found.
    name: String,
    from: String,
    networks: Vec<String>,
    wanted: String,
    /// What was decided.
    done: String,
    command: String,
    days: u64,
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

/// The networks into which somebody may bring a laptop.
fn networks(gate: &Gate, visitor: &Visitor) -> Vec<String> {
    let services = &gate.admin.services;
    let reach = visitor.who.user.roles.reach(services.laptops.role);
    let world = services.registry.world();
    let inside = world.networks.values().filter(|network| match &reach {
        Reach::All => true,
        Reach::Only(some) => some.contains(&network.info.id),
    });
    inside.map(|network| network.info.name.to_string()).collect()
}

fn shown(gate: &Gate, visitor: &Visitor, asking: Option<&Asking>) -> DevicePage {
    let admin = &gate.admin;
    let pin = admin.services.authorities.current().pin();
    let base = admin.public_urls.first().map_or_else(String::new, |url| format!("{}#{pin}", url.as_str()));
    DevicePage {
        frame: visitor.frame("Let a laptop in", "account"),
        error: String::new(),
        code: asking.map(|asking| shown_code(&asking.code)).unwrap_or_default(),
        name: asking.map(|asking| asking.name.clone()).unwrap_or_default(),
        from: asking.map(|asking| asking.from.to_string()).unwrap_or_default(),
        networks: networks(gate, visitor),
        wanted: asking.and_then(|asking| asking.network.clone()).unwrap_or_default(),
        done: String::new(),
        command: format!("sudo ria login {base}"),
        days: admin.services.laptops.revalidate.as_secs().div_ceil(24 * 3600),
    }
}

/// The laptop of a code; who guesses codes is slowed down.
async fn find(gate: &Gate, typed: &str, from: ClientAddress) -> Result<Asking, (StatusCode, &'static str)> {
    let logins = &gate.admin.services.logins;
    let found = logins.devices.find(typed, now()).await.map_err(|error| {
        tracing::warn!(%error, "no laptop can be let in at the moment");
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "The coordinator's database does not answer. Try again in a minute.",
        )
    })?;
    found.ok_or_else(|| {
        if logins.guard.handle_wrong_secret(from.0, Instant::now()) {
            (StatusCode::TOO_MANY_REQUESTS, "There were too many wrong codes from your address. Wait a minute.")
        } else {
            let text = "No laptop shows this code now. Codes are good for ten minutes, once; `ria login` shows another.";
            (StatusCode::NOT_FOUND, text)
        }
    })
}

pub(super) async fn show(
    State(gate): State<Arc<Gate>>,
    visitor: Visitor,
    Extension(from): Extension<ClientAddress>,
    Query(query): Query<Fields>,
) -> Response {
    let typed = field(&query, "code");
    if typed.is_empty() {
        return page(StatusCode::OK, &shown(&gate, &visitor, None));
    }
    match find(&gate, typed, from).await {
        Ok(asking) => page(StatusCode::OK, &shown(&gate, &visitor, Some(&asking))),
        Err((status, error)) => {
            let blank = shown(&gate, &visitor, None);
            page(
                status,
                &DevicePage { error: error.to_owned(), code: typed.chars().take(20).collect(), ..blank },
            )
        }
    }
}

pub(super) async fn decide(
    State(gate): State<Arc<Gate>>,
    Extension(from): Extension<ClientAddress>,
    Posted { visitor, fields }: Posted,
) -> Response {
    let code = field(&fields, "code");
    let asking = match find(&gate, code, from).await {
        Ok(asking) => asking,
        Err((status, error)) => {
            return page(status, &DevicePage { error: error.to_owned(), ..shown(&gate, &visitor, None) });
        }
    };
    let devices = &gate.admin.services.logins.devices;
    if field(&fields, "deed") != "approve" {
        if let Err(error) = devices.decide(code, Decision::Denied, now()).await {
            return visitor.problem(&Unavailable::from(error).into(), "/device");
        }
        let done = format!("{} is not let in.", asking.name);
        return page(StatusCode::OK, &DevicePage { done, ..shown(&gate, &visitor, None) });
    }
    match approve(&gate, &visitor, (code, field(&fields, "network"))).await {
        Ok(network) => {
            let done = format!("{} becomes a member of {network} now, as your laptop.", asking.name);
            page(StatusCode::OK, &DevicePage { done, ..shown(&gate, &visitor, None) })
        }
        Err(problem) => visitor.problem(&problem, "/device"),
    }
}

async fn approve(gate: &Gate, visitor: &Visitor, (code, network): (&str, &str)) -> Result<String, Problem> {
    let least: Role = gate.admin.services.laptops.role;
    if !networks(gate, visitor).iter().any(|own| own == network) {
        let text = format!(
            "bringing a laptop takes the role {} in the network; ask an owner of this coordinator",
            least.name()
        );
        return Err(Problem { code: ProblemCode::NotPermitted, message: text });
    }
    let world = gate.admin.services.registry.world();
    let found = world.networks.values().find(|known| known.info.name.as_str() == network);
    let gone =
        || Problem { code: ProblemCode::NotFound, message: "there is no such network any more".to_owned() };
    let user = &visitor.who.user.name;
    // Its key is made when the laptop fetches it; what would keep that from being made is told here.
    urls_for_keys(&gate.admin)?;
    let decision = Decision::Granted { user: user.clone(), network: found.ok_or_else(gone)?.info.id };
    let decided = gate.admin.services.logins.devices.decide(code, decision, now()).await;
    if decided.map_err(Unavailable::from)? {
        Ok(network.to_owned())
    } else {
        Err(Problem {
            code: ProblemCode::Conflict,
            message: "somebody else was quicker with this code".to_owned(),
        })
    }
}
