//! Forms that change something. Each asks the API for it, and then has the browser look at what is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use ria_protocol::name::Name;
use serde::Serialize;
use serde_json::{Value, json};

use super::frame::{Fields, Posted, Visitor, field, page, see_other};
use super::read::{self, AccountNews, Left, PeopleNews, Start, shown_key};
use crate::admin::api::{CreatedKey, NodeView, Problem, ProblemCode};
use crate::admin::api_people::{CreatedToken, InvitedView, LeftView, UserView};
use crate::admin::client::escaped;
use crate::rest::gate::Gate;

type Asked = State<Arc<Gate>>;

fn bad(text: &str) -> Problem {
    Problem { code: ProblemCode::BadRequest, message: text.to_owned() }
}

/// Has something done; then back to `then`, which says so.
async fn deed(
    (gate, visitor): (&Gate, &Visitor),
    (method, path): (Method, &str),
    body: &impl Serialize,
    then: (&str, &str),
) -> Response {
    deed_on((gate, visitor, None), (method, path), body, then).await
}

/// The same by somebody who has seen what they change.
async fn deed_on(
    (gate, visitor, seen): (&Gate, &Visitor, Option<&str>),
    on: (Method, &str),
    body: &impl Serialize,
    (then, done): (&str, &str),
) -> Response {
    match gate.ask_seen::<Value>(&visitor.who, on, body, seen).await {
        Ok(_) => {
            let joint = if then.contains('?') { '&' } else { '?' };
            see_other(&format!("{then}{joint}done={done}"))
        }
        Err(problem) => visitor.problem(&problem, then),
    }
}

fn network_body(fields: &Fields) -> Value {
    let some = |name| Some(field(fields, name)).filter(|text| !text.is_empty());
    json!({
        "name": field(fields, "name"),
        "prefix_v4": some("prefix"),
        "ros_domains": some("domains"),
        "peers": some("peers"),
    })
}

pub(super) async fn create_network(State(gate): Asked, Posted { visitor, fields }: Posted) -> Response {
    let body = network_body(&fields);
    deed((&gate, &visitor), (Method::POST, "/v1/networks"), &body, ("/networks", "network")).await
}

pub(super) async fn start_network(State(gate): Asked, Posted { visitor, fields }: Posted) -> Response {
    let (chosen, name) = (field(&fields, "network"), field(&fields, "name"));
    // A name that was typed is meant, whatever is chosen above it.
    if name.is_empty() && chosen.is_empty() {
        return visitor.problem(&bad("choose a network, or name a new one"), "/start");
    }
    if name.is_empty() {
        return see_other(&format!("/start?network={}", escaped(chosen)));
    }
    match gate.ask::<Value>(&visitor.who, Method::POST, "/v1/networks", &json!({ "name": name })).await {
        Ok(_) => see_other(&format!("/start?network={}", escaped(name))),
        Err(problem) => visitor.problem(&problem, "/start"),
    }
}

pub(super) async fn start_key(State(gate): Asked, Posted { visitor, fields }: Posted) -> Response {
    let network = field(&fields, "network").to_owned();
    let body = json!({ "network": network, "reusable": false, "tags": [], "expires_after": 7 * 24 * 3600 });
    match gate.ask::<CreatedKey>(&visitor.who, Method::POST, "/v1/keys", &body).await {
        Ok(created) => {
            let (command, qr) = shown_key(&created.key);
            let frame = visitor.frame("The first hour", "overview");
            page(StatusCode::OK, &Start { frame, step: 3, networks: Vec::new(), network, command, qr })
        }
        Err(problem) => visitor.problem(&problem, "/start"),
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split([' ', ',']).filter(|word| !word.is_empty()).collect()
}

pub(super) async fn node(
    State(gate): Asked,
    Path((network, node, what)): Path<(String, String, String)>,
    Posted { visitor, fields }: Posted,
) -> Response {
    let here = format!("/nodes/{}/{}", escaped(&network), escaped(&node));
    let api = |verb: &str| format!("/v1/nodes/{}{verb}?network={}", escaped(&node), escaped(&network));
    let who = (&*gate, &visitor, Some(field(&fields, "seen")).filter(|seen| !seen.is_empty()));
    match what.as_str() {
        "rename" => {
            let body = json!({ "name": field(&fields, "name") });
            deed_on(who, (Method::POST, &api("/rename")), &body, (&here, "renamed")).await
        }
        "tag" => {
            // What was there when the page was made is left out or stays; what others have added meanwhile is not touched.
            let before: BTreeSet<&str> = words(field(&fields, "before")).into_iter().collect();
            let after: BTreeSet<&str> = words(field(&fields, "tags")).into_iter().collect();
            let add: Vec<_> = after.difference(&before).collect();
            let remove: Vec<_> = before.difference(&after).collect();
            let body = json!({ "add": add, "remove": remove });
            deed_on(who, (Method::POST, &api("/tag")), &body, (&here, "tagged")).await
        }
        "route-approve" => {
            let map = Some(field(&fields, "map").trim()).filter(|map| !map.is_empty());
            let body = json!({ "lan": field(&fields, "lan"), "map": map });
            deed((&gate, &visitor), (Method::POST, &api("/routes/approve")), &body, (&here, "route-approved"))
                .await
        }
        "route-withdraw" => {
            let body = json!({ "lan": field(&fields, "lan") });
            deed(
                (&gate, &visitor),
                (Method::POST, &api("/routes/withdraw")),
                &body,
                (&here, "route-withdrawn"),
            )
            .await
        }
        "disable" => deed_on(who, (Method::POST, &api("/disable")), &(), (&here, "disabled")).await,
        "enable" => deed_on(who, (Method::POST, &api("/enable")), &(), (&here, "enabled")).await,
        "remove" if field(&fields, "sure") == "yes" => {
            let (path, seen) = (api(""), who.2);
            match gate.ask_seen::<NodeView>(&visitor.who, (Method::DELETE, &path), &(), seen).await {
                Ok(_) => see_other("/nodes?done=removed"),
                Err(problem) => visitor.problem(&problem, &here),
            }
        }
        "remove" => {
            visitor.problem(&bad("tick that you are sure; a node that is removed has to join anew"), &here)
        }
        _ => visitor.problem(&bad("nothing is done here"), &here),
    }
}

pub(super) async fn pending(
    State(gate): Asked,
    Path((network, node, what)): Path<(String, String, String)>,
    Posted { visitor, .. }: Posted,
) -> Response {
    let done = match what.as_str() {
        "approve" => "approved",
        "reject" => "rejected",
        _ => return visitor.problem(&bad("nothing is done here"), "/nodes"),
    };
    let path = format!("/v1/pending/{}/{what}?network={}", escaped(&node), escaped(&network));
    let body = if what == "approve" { json!({ "name": null }) } else { Value::Null };
    deed((&gate, &visitor), (Method::POST, &path), &body, ("/nodes", done)).await
}

pub(super) async fn create_key(State(gate): Asked, Posted { visitor, fields }: Posted) -> Response {
    let yes = |name| field(&fields, name) == "yes";
    let seconds = field(&fields, "expires");
    let expires: Option<u64> = match seconds.parse() {
        Ok(seconds) => Some(seconds),
        Err(_) if seconds.is_empty() => None,
        Err(_) => return visitor.problem(&bad("how long the key is good for makes no sense"), "/keys"),
    };
    let body = json!({
        "network": field(&fields, "network"),
        "reusable": yes("reusable"),
        "approve": yes("approve"),
        "ephemeral": yes("ephemeral").then_some(600),
        "tags": words(field(&fields, "tags")),
        "expires_after": expires,
    });
    match gate.ask::<CreatedKey>(&visitor.who, Method::POST, "/v1/keys", &body).await {
        Ok(created) => read::keys_page(&gate, &visitor, Some(&created.key)).await,
        Err(problem) => visitor.problem(&problem, "/keys"),
    }
}

pub(super) async fn revoke_key(
    State(gate): Asked,
    Path(id): Path<String>,
    Posted { visitor, .. }: Posted,
) -> Response {
    let path = format!("/v1/keys/{}/revoke", escaped(&id));
    deed((&gate, &visitor), (Method::POST, &path), &(), ("/keys", "revoked")).await
}

pub(super) async fn invite(State(gate): Asked, Posted { visitor, fields }: Posted) -> Response {
    let (role, place) = (field(&fields, "role"), field(&fields, "where"));
    let networks: BTreeMap<&str, &str> =
        if place.is_empty() { BTreeMap::new() } else { [(place, role)].into() };
    let everywhere = place.is_empty().then_some(role);
    let name = field(&fields, "name").to_lowercase();
    let body = json!({ "name": name, "everywhere": everywhere, "networks": networks });
    match gate.ask::<InvitedView>(&visitor.who, Method::POST, "/v1/users", &body).await {
        Ok(invited) => read::people_page(&gate, &visitor, link_news(invited)).await,
        Err(problem) => visitor.problem(&problem, "/people"),
    }
}

fn link_news(invited: InvitedView) -> PeopleNews {
    PeopleNews { link: invited.link.link, link_for: invited.user.name.to_string(), left: None }
}

pub(super) async fn person(
    State(gate): Asked,
    Path((name, what)): Path<(String, String)>,
    Posted { visitor, fields }: Posted,
) -> Response {
    let api = |verb: &str| format!("/v1/users/{}{verb}", escaped(&name));
    let who = (&*gate, &visitor);
    match what.as_str() {
        "roles" => match set_role(&gate, &visitor, &name, &fields).await {
            Ok(_) => see_other("/people?done=roles"),
            Err(problem) => visitor.problem(&problem, "/people"),
        },
        "reset" => match gate.ask::<InvitedView>(&visitor.who, Method::POST, &api("/reset"), &()).await {
            Ok(invited) => read::people_page(&gate, &visitor, link_news(invited)).await,
            Err(problem) => visitor.problem(&problem, "/people"),
        },
        "enable" => deed(who, (Method::POST, &api("/enable")), &(), ("/people", "person-enabled")).await,
        "leave" if field(&fields, "sure") == "yes" => {
            match gate.ask::<LeftView>(&visitor.who, Method::POST, &api("/leave"), &()).await {
                Ok(left) => read::people_page(&gate, &visitor, left_news(&left)).await,
                Err(problem) => visitor.problem(&problem, "/people"),
            }
        }
        _ => visitor.problem(&bad("nothing is done here, or you did not tick that you are sure"), "/people"),
    }
}

fn left_news(left: &LeftView) -> PeopleNews {
    let list = |all: Vec<String>| if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    let left = Left {
        name: left.user.name.to_string(),
        tokens: list(left.tokens_removed.iter().map(|token| token.label.clone()).collect()),
        keys: list(left.keys_revoked.iter().map(ToString::to_string).collect()),
        laptops: list(left.laptops_removed.clone()),
        statics: list(left.static_peers_removed.clone()),
        bookings: list(left.bookings_removed.clone()),
        rules: list(left.rules_left.clone()),
        nodes: list(left.nodes_left.clone()),
    };
    PeopleNews { left: Some(left), ..PeopleNews::default() }
}

/// One role, everywhere or in a network; the others stay as they were when the page was made.
async fn set_role(gate: &Gate, visitor: &Visitor, name: &str, fields: &Fields) -> Result<UserView, Problem> {
    let path = format!("/v1/users/{}", escaped(name));
    let user: UserView = gate.get(&visitor.who, &path).await?;
    let version: u64 = field(fields, "version").parse().map_err(|_| bad("load the page anew"))?;
    let role = match field(fields, "role") {
        "none" => None,
        role => Some(role.parse().map_err(|error: String| bad(&error))?),
    };
    let (mut everywhere, mut networks) = (user.everywhere, user.networks);
    match field(fields, "where") {
        "" => everywhere = role,
        network => {
            let network: Name = network.parse().map_err(|error| bad(&format!("{error}")))?;
            match role {
                Some(role) => networks.insert(network, role),
                None => networks.remove(&network),
            };
        }
    }
    let body = json!({ "everywhere": everywhere, "networks": networks, "version": version });
    gate.ask(&visitor.who, Method::POST, &format!("{path}/roles"), &body).await
}

pub(super) async fn create_token(State(gate): Asked, Posted { visitor, fields }: Posted) -> Response {
    let expires: Option<u64> = field(&fields, "expires").parse().ok();
    let body = json!({
        "label": field(&fields, "label"), "scopes": words(field(&fields, "scopes")), "expires_after": expires,
    });
    match gate.ask::<CreatedToken>(&visitor.who, Method::POST, "/v1/tokens", &body).await {
        Ok(created) => {
            let news = AccountNews { token: created.token, ..AccountNews::default() };
            read::account_page(&gate, &visitor, news).await
        }
        Err(problem) => visitor.problem(&problem, "/account"),
    }
}

pub(super) async fn remove_token(
    State(gate): Asked,
    Path(id): Path<String>,
    Posted { visitor, .. }: Posted,
) -> Response {
    let path = format!("/v1/tokens/{}", escaped(&id));
    deed((&gate, &visitor), (Method::DELETE, &path), &(), ("/account", "token-removed")).await
}

pub(super) async fn add_url(State(gate): Asked, Posted { visitor, fields }: Posted) -> Response {
    let body = json!({ "url": field(&fields, "url") });
    deed((&gate, &visitor), (Method::POST, "/v1/urls"), &body, ("/settings", "url")).await
}

pub(super) async fn remove_url(State(gate): Asked, Posted { visitor, fields }: Posted) -> Response {
    let body = json!({ "url": field(&fields, "url") });
    deed((&gate, &visitor), (Method::POST, "/v1/urls/remove"), &body, ("/settings", "url")).await
}
