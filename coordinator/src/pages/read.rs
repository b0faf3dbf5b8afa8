//! Pages that show what is.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use ria_protocol::map::MemberKind;

use super::drawing::{self, Dot};
use super::frame::{Fields, Frame, Visitor, field, page};
use super::links::Happened;
use super::own_login;
use super::routes::RouteRow;
use super::rows::{
    KeyRow, NetworkRow, NodeRow, PendingRow, RelayRow, TokenRow, UserRow, facts, now, own_roles,
};
use super::timeline::timeline;
use crate::admin::api::{
    AuditView, AuthorityStatus, AuthorityView, KeyView, NetworkView, NodeView, PendingState, PendingView,
    Problem, RelayView, UrlView,
};
use crate::admin::api_links::HistoryView;
use crate::admin::api_people::{TokenView, UserView};
use crate::admin::client::escaped;
use crate::admin::routes::RouteView;
use crate::duration::shown;
use crate::rest::gate::Gate;
use crate::state::people::Role;

/// A page, or what went wrong as one.
pub(super) fn answer<T: Template>(visitor: &Visitor, made: Result<T, Problem>) -> Response {
    match made {
        Ok(template) => page(StatusCode::OK, &template),
        Err(problem) => visitor.problem(&problem, "/"),
    }
}

fn with_network(path: &str, network: &str) -> String {
    if network.is_empty() { path.to_owned() } else { format!("{path}?network={}", escaped(network)) }
}

pub(super) async fn network_names(gate: &Gate, visitor: &Visitor) -> Result<Vec<String>, Problem> {
    let all: Vec<NetworkView> = gate.get(&visitor.who, "/v1/networks").await?;
    Ok(all.iter().map(|network| network.name.to_string()).collect())
}

struct Drawn {
    name: String,
    online: usize,
    nodes: usize,
    revision: u64,
    prefix: String,
    drawing: String,
    caption: &'static str,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    first_hour: bool,
    waiting: usize,
    networks: Vec<Drawn>,
}

pub(super) async fn overview(State(gate): State<Arc<Gate>>, visitor: Visitor) -> Response {
    let made = async {
        let networks: Vec<NetworkView> = gate.get(&visitor.who, "/v1/networks").await?;
        let nodes: Vec<NodeView> = gate.get(&visitor.who, "/v1/nodes").await?;
        let pending: Vec<PendingView> = gate.get(&visitor.who, "/v1/pending").await?;
        let frame = visitor.live_frame("Overview", "overview");
        let drawn = |network: &NetworkView| {
            let members = nodes.iter().filter(|n| n.network == network.name && n.kind != MemberKind::Static);
            let dots: Vec<Dot<'_>> =
                members.map(|node| Dot { name: node.name.as_str(), online: node.online }).collect();
            Drawn {
                name: network.name.to_string(),
                online: network.online,
                nodes: network.nodes,
                revision: network.revision.0,
                prefix: network.prefix_v4.to_string(),
                drawing: drawing::topology(&dots),
                caption: "Who is connected to the coordinator",
            }
        };
        Ok(Overview {
            first_hour: nodes.is_empty() && frame.can.operate,
            waiting: pending.iter().filter(|p| p.state == PendingState::Waiting).count(),
            networks: networks.iter().map(drawn).collect(),
            frame,
        })
    };
    answer(&visitor, made.await)
}

#[derive(Template)]
#[template(path = "start.html")]
pub(super) struct Start {
    pub frame: Frame,
    pub step: u8,
    pub networks: Vec<String>,
    pub network: String,
    pub command: String,
    pub qr: String,
}

pub(super) async fn start(
    State(gate): State<Arc<Gate>>,
    visitor: Visitor,
    Query(query): Query<Fields>,
) -> Response {
    let made = async {
        let networks = network_names(&gate, &visitor).await?;
        let network = field(&query, "network").to_owned();
        let chosen = networks.contains(&network);
        Ok(Start {
            frame: visitor.frame("The first hour", "overview"),
            step: if chosen { 2 } else { 1 },
            networks,
            network: if chosen { network } else { String::new() },
            command: String::new(),
            qr: String::new(),
        })
    };
    answer(&visitor, made.await)
}

#[derive(Template)]
#[template(path = "networks.html")]
struct Networks {
    frame: Frame,
    networks: Vec<NetworkRow>,
}

pub(super) async fn networks(State(gate): State<Arc<Gate>>, visitor: Visitor) -> Response {
    let made = async {
        let all: Vec<NetworkView> = gate.get(&visitor.who, "/v1/networks").await?;
        let networks = all.iter().map(NetworkRow::of).collect();
        Ok(Networks { frame: visitor.live_frame("Networks", "networks"), networks })
    };
    answer(&visitor, made.await)
}

#[derive(Template)]
#[template(path = "nodes.html")]
struct Nodes {
    frame: Frame,
    network: String,
    nodes: Vec<NodeRow>,
    pending: Vec<PendingRow>,
}

pub(super) async fn nodes(
    State(gate): State<Arc<Gate>>,
    visitor: Visitor,
    Query(query): Query<Fields>,
) -> Response {
    let made = async {
        let network = field(&query, "network").to_owned();
        let nodes: Vec<NodeView> = gate.get(&visitor.who, &with_network("/v1/nodes", &network)).await?;
        let pending: Vec<PendingView> =
            gate.get(&visitor.who, &with_network("/v1/pending", &network)).await?;
        Ok(Nodes {
            frame: visitor.live_frame("Nodes", "nodes"),
            network,
            nodes: nodes.iter().map(NodeRow::of).collect(),
            pending: pending.iter().map(PendingRow::of).collect(),
        })
    };
    answer(&visitor, made.await)
}

#[derive(Template)]
#[template(path = "node.html")]
struct Node {
    frame: Frame,
    node: NodeRow,
    facts: Vec<(&'static str, String)>,
    base: String,
    is_static: bool,
    disabled: bool,
    timeline: String,
    happened: Vec<Happened>,
    routes: Vec<RouteRow>,
}

pub(super) async fn node(
    State(gate): State<Arc<Gate>>,
    visitor: Visitor,
    Path((network, wanted)): Path<(String, String)>,
) -> Response {
    let made = async {
        let path = with_network(&format!("/v1/nodes/{}", escaped(&wanted)), &network);
        let node: NodeView = gate.get(&visitor.who, &path).await?;
        let path = with_network(&format!("/v1/nodes/{}/history", escaped(&wanted)), &network);
        let history: Vec<HistoryView> = gate.get(&visitor.who, &path).await?;
        let row = NodeRow::of(&node);
        let routes: Vec<RouteView> = gate.get(&visitor.who, &with_network("/v1/routes", &network)).await?;
        Ok(Node {
            routes: RouteRow::all(routes.iter().filter(|route| route.node_id == node.id)),
            frame: visitor.live_frame(node.name.as_str(), "nodes"),
            facts: facts(&node),
            base: format!("/nodes/{}/{}", row.network, row.id),
            is_static: node.kind == MemberKind::Static,
            disabled: node.disabled.is_some(),
            timeline: timeline(&history, now()),
            happened: Happened::all(&history),
            node: row,
        })
    };
    answer(&visitor, made.await)
}

#[derive(Template)]
#[template(path = "keys.html")]
struct Keys {
    frame: Frame,
    keys: Vec<KeyRow>,
    networks: Vec<String>,
    command: String,
    qr: String,
}

pub(super) async fn keys(State(gate): State<Arc<Gate>>, visitor: Visitor) -> Response {
    keys_page(&gate, &visitor, None).await
}

/// The line that is typed on a robot, and the key to scan.
pub(super) fn shown_key(key: &str) -> (String, String) {
    (format!("echo {key} | sudo ria join -"), drawing::qr(key, "The join key"))
}

pub(super) async fn keys_page(gate: &Gate, visitor: &Visitor, made: Option<&str>) -> Response {
    let page = async {
        let keys: Vec<KeyView> = gate.get(&visitor.who, "/v1/keys").await?;
        let (command, qr) = made.map(shown_key).unwrap_or_default();
        let frame = match made {
            // What is shown this once stays.
            Some(_) => visitor.frame("Join keys", "keys"),
            None => visitor.live_frame("Join keys", "keys"),
        };
        let networks = network_names(gate, visitor).await?;
        Ok(Keys { frame, keys: keys.iter().rev().map(KeyRow::of).collect(), networks, command, qr })
    };
    answer(visitor, page.await)
}

#[derive(Template)]
#[template(path = "relays.html")]
struct Relays {
    frame: Frame,
    relays: Vec<RelayRow>,
}

pub(super) async fn relays(State(gate): State<Arc<Gate>>, visitor: Visitor) -> Response {
    let made = async {
        let all: Vec<RelayView> = gate.get(&visitor.who, "/v1/relays").await?;
        let relays = all.iter().map(RelayRow::of).collect();
        Ok(Relays { frame: visitor.live_frame("Relays", "relays"), relays })
    };
    answer(&visitor, made.await)
}

/// What is left of somebody who has left.
pub(super) struct Left {
    pub name: String,
    pub tokens: String,
    pub keys: String,
    pub laptops: String,
    pub statics: String,
    pub bookings: String,
    pub rules: String,
    pub nodes: String,
}

/// What there is to say once on the page of people.
#[derive(Default)]
pub(super) struct PeopleNews {
    pub link: String,
    pub link_for: String,
    pub left: Option<Left>,
}

#[derive(Template)]
#[template(path = "people.html")]
struct People {
    frame: Frame,
    people: Vec<UserRow>,
    networks: Vec<String>,
    roles: [&'static str; 4],
    link: String,
    link_for: String,
    left: Option<Left>,
}

pub(super) async fn people(State(gate): State<Arc<Gate>>, visitor: Visitor) -> Response {
    people_page(&gate, &visitor, PeopleNews::default()).await
}

pub(super) async fn people_page(gate: &Gate, visitor: &Visitor, news: PeopleNews) -> Response {
    let made = async {
        let all: Vec<UserView> = gate.get(&visitor.who, "/v1/users").await?;
        Ok(People {
            frame: visitor.frame("People", "people"),
            people: all.iter().map(UserRow::of).collect(),
            networks: network_names(gate, visitor).await?,
            roles: Role::ALL.map(Role::name),
            link: news.link,
            link_for: news.link_for,
            left: news.left,
        })
    };
    answer(visitor, made.await)
}

/// What there is to say once on the page of one's own.
#[derive(Default)]
pub(super) struct AccountNews {
    pub token: String,
    pub error: String,
}

#[derive(Template)]
#[template(path = "account.html")]
struct Account {
    frame: Frame,
    roles: String,
    tokens: Vec<TokenRow>,
    token: String,
    /// Why the login was not changed.
    error: String,
    /// Whether there is a password to change.
    password: bool,
    /// Of another authenticator.
    qr: String,
    secret: String,
    /// The provider that this coordinator asks; empty for none.
    provider: String,
    connected: bool,
}

pub(super) async fn account(State(gate): State<Arc<Gate>>, visitor: Visitor) -> Response {
    account_page(&gate, &visitor, AccountNews::default()).await
}

pub(super) async fn account_page(gate: &Gate, visitor: &Visitor, news: AccountNews) -> Response {
    let made = async {
        let (qr, secret) = own_login::shown(gate, visitor);
        let all: Vec<TokenView> = gate.get(&visitor.who, "/v1/tokens").await?;
        let world = gate.admin.services.registry.world();
        let provider = gate.admin.services.provider.as_ref();
        let issuer = provider.map(|provider| provider.settings.issuer.clone());
        let name = |id: &_| world.networks.get(id).map(|network| network.info.name.to_string());
        Ok(Account {
            frame: visitor.frame("Account", "account"),
            roles: own_roles(&visitor.who.user, name),
            tokens: all.iter().map(TokenRow::of).collect(),
            token: news.token,
            error: news.error,
            password: visitor.who.user.login.is_some(),
            qr,
            secret,
            provider: issuer.unwrap_or_default(),
            connected: visitor.who.user.federated.is_some(),
        })
    };
    answer(visitor, made.await)
}

struct AuditRow {
    seq: u64,
    time: String,
    actor: String,
    action: String,
    subject: String,
    detail: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    frame: Frame,
    rows: Vec<AuditRow>,
    intact: bool,
    broken: String,
    length: u64,
    whole: String,
    text: String,
    limit: u32,
}

pub(super) async fn audit(
    State(gate): State<Arc<Gate>>,
    visitor: Visitor,
    Query(query): Query<Fields>,
) -> Response {
    let made = async {
        let limit = field(&query, "limit").parse().unwrap_or(100).clamp(1, 10_000);
        let text = field(&query, "text").to_owned();
        let view: AuditView = gate.get(&visitor.who, &format!("/v1/audit?limit={limit}")).await?;
        let wanted = text.to_lowercase();
        let has = |part: &str| part.to_lowercase().contains(&wanted);
        let matching = view.rows.iter().rev().filter(|row| {
            wanted.is_empty() || has(&row.actor) || has(&row.action) || has(&row.subject) || has(&row.detail)
        });
        let rows = matching.map(|row| AuditRow {
            seq: row.seq,
            time: shown(row.time),
            actor: row.actor.clone(),
            action: row.action.clone(),
            subject: row.subject.clone(),
            detail: row.detail.clone(),
        });
        Ok(Audit {
            frame: visitor.frame("Audit log", "audit"),
            rows: rows.collect(),
            intact: view.chain.intact,
            broken: view.chain.problem.unwrap_or_default(),
            length: view.chain.length,
            whole: view.chain.whole.map(shown).unwrap_or_default(),
            text,
            limit,
        })
    };
    answer(&visitor, made.await)
}

struct AuthorityRow {
    id: String,
    state: &'static str,
    ends: String,
    pin: String,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct Settings {
    frame: Frame,
    urls: Vec<UrlView>,
    versions: Vec<(String, usize)>,
    authorities: Vec<AuthorityRow>,
}

pub(super) async fn settings(State(gate): State<Arc<Gate>>, visitor: Visitor) -> Response {
    let made = async {
        let urls: Vec<UrlView> = gate.get(&visitor.who, "/v1/urls").await?;
        let nodes: Vec<NodeView> = gate.get(&visitor.who, "/v1/nodes").await?;
        let authorities: Vec<AuthorityView> = gate.get(&visitor.who, "/v1/ca").await?;
        let mut versions: BTreeMap<String, usize> = BTreeMap::new();
        for node in nodes.iter().filter(|node| !node.agent_version.is_empty()) {
            *versions.entry(node.agent_version.clone()).or_default() += 1;
        }
        let row = |authority: &AuthorityView| AuthorityRow {
            id: authority.id.clone(),
            state: match authority.status {
                AuthorityStatus::InUse => "in use",
                AuthorityStatus::Trusted => "trusted still",
                AuthorityStatus::Retired => "retired",
            },
            ends: shown(authority.ends),
            pin: authority.pin.to_string(),
        };
        Ok(Settings {
            frame: visitor.frame("Settings", "settings"),
            urls,
            versions: versions.into_iter().collect(),
            authorities: authorities.iter().map(row).collect(),
        })
    };
    answer(&visitor, made.await)
}
