//! The commands that talk to a running coordinator: what they ask it, and how they show its answer.

use std::process::ExitCode;
use std::time::SystemTime;

use ria_protocol::demand::PeerMode;
use ria_protocol::map::MemberKind;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use serde::Serialize;

use super::audit::{self, AuditCommand};
use super::authorities;
use super::enrolment;
use super::links::{self, LinkCommand};
use super::people::{self, UserCommand};
use super::policy::{self, PolicyCommand};
use super::relays::{self, RelayCommand};
use super::routes::{self, RouteCommand};
use super::stock::{self, NewStatic};
use super::table::{list, or_dash, table};
use super::{
    Common, FAILED, KeyCommand, NOT_RUNNING, NetworkCommand, NodeArgs, NodeCommand, UrlCommand, complain,
    environment, print,
};
use crate::admin::api::{
    ClonedView, CreateKey, CreateNetwork, CreatedKey, KeyView, NetworkView, NodeView, SetMulticast, SetPeers,
    UrlRequest, UrlView,
};
use crate::admin::client::{Client, RequestError, escaped};
use crate::config;
use crate::duration::{Lifetime, shown, shown_relative, shown_span};

/// What is asked.
pub(super) enum Request {
    Network(NetworkCommand),
    Key(KeyCommand),
    Node(NodeCommand),
    Link(LinkCommand),
    Audit(AuditCommand),
    Policy(Box<PolicyCommand>),
    Ca(authorities::CaCommand),
    Url(UrlCommand),
    Relay(RelayCommand),
    User(UserCommand),
    Route(RouteCommand),
}

/// What is printed, and whether all is well.
pub(super) struct Shown {
    text: String,
    well: bool,
}

impl Shown {
    /// The same with another answer to whether all is well.
    pub(super) fn well(self, well: bool) -> Self {
        Self { well, ..self }
    }
}

pub(super) type Outcome = Result<Shown, RequestError>;

/// Asks the coordinator and prints its answer.
pub(super) fn run(request: Request) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::from(FAILED);
        }
    };
    let outcome = runtime.block_on(async {
        match request {
            Request::Network(command) => network(command).await,
            Request::Key(command) => key(command).await,
            Request::Node(command) => node(command).await,
            Request::Link(command) => links::run(command).await,
            Request::Audit(command) => audit::run(command).await,
            Request::Policy(command) => policy::run(*command).await,
            Request::Ca(command) => authorities::run(command).await,
            Request::Url(command) => url(command).await,
            Request::Relay(command) => relays::run(command).await,
            Request::User(command) => people::run(command).await,
            Request::Route(command) => routes::run(command).await,
        }
    });
    match outcome {
        Ok(shown) => {
            let printed = print(&shown.text);
            if shown.well { printed } else { ExitCode::from(FAILED) }
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(if matches!(error, RequestError::NotRunning { .. }) {
                NOT_RUNNING
            } else {
                FAILED
            })
        }
    }
}

impl Common {
    pub(super) fn client(&self) -> Client {
        Client::new(config::admin_socket(self.admin_socket.clone(), &environment))
    }

    /// As JSON where that is wanted, else as `text` puts it.
    pub(super) fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        let text = if self.json {
            serde_json::to_string_pretty(value).map_err(|e| RequestError::Answer(e.to_string()))? + "\n"
        } else {
            text(value)
        };
        Ok(Shown { text, well: true })
    }
}

pub(super) fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

pub(super) fn with_network(path: &str, network: Option<&str>) -> String {
    network.map_or_else(|| path.to_owned(), |network| format!("{path}?network={}", escaped(network)))
}

async fn network(command: NetworkCommand) -> Outcome {
    match command {
        NetworkCommand::Create { name, prefix, mtu, ros_domains, multicast, peers, common } => {
            let request = CreateNetwork { name, prefix_v4: prefix, mtu, ros_domains, multicast, peers };
            let made: NetworkView = common.client().post("/v1/networks", &request).await?;
            common.show(&made, network_text)
        }
        NetworkCommand::Multicast { name, groups, common } => {
            let path = format!("/v1/networks/{}/multicast", escaped(&name));
            let changed: NetworkView = common.client().post(&path, &SetMulticast { groups }).await?;
            common.show(&changed, network_text)
        }
        NetworkCommand::Peers { name, mode, common } => {
            let path = format!("/v1/networks/{}/peers", escaped(&name));
            let changed: NetworkView = common.client().post(&path, &SetPeers { mode }).await?;
            common.show(&changed, network_text)
        }
        NetworkCommand::List { common } => {
            let all: Vec<NetworkView> = common.client().get("/v1/networks").await?;
            common.show(&all, |all| networks_text(all))
        }
        NetworkCommand::Show { name, common } => {
            let path = format!("/v1/networks/{}", escaped(&name));
            let network: NetworkView = common.client().get(&path).await?;
            common.show(&network, network_text)
        }
    }
}

fn networks_text(all: &[NetworkView]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|n| {
            let nodes = format!("{} ({} online)", n.nodes, n.online);
            vec![
                n.name.to_string(),
                n.prefix_v4.to_string(),
                n.prefix_v6.to_string(),
                domains_text(n),
                nodes,
                n.id.to_string(),
            ]
        })
        .collect();
    table(&["name", "ipv4", "ipv6", "ros domains", "nodes", "id"], &rows)
}

fn domains_text(network: &NetworkView) -> String {
    network.ros_domains.as_ref().map_or_else(|| "any".to_owned(), ToString::to_string)
}

fn peers_text(mode: PeerMode) -> &'static str {
    match mode {
        PeerMode::Push => "push: members are told of all others",
        PeerMode::OnDemand => "on-demand: members are told of those that they have to do with",
    }
}

fn network_text(network: &NetworkView) -> String {
    list(&[
        ("name", network.name.to_string()),
        ("id", network.id.to_string()),
        ("ipv4", network.prefix_v4.to_string()),
        ("ipv6", network.prefix_v6.to_string()),
        ("mtu", network.mtu.to_string()),
        ("ros domains", domains_text(network)),
        ("multicast", format!("discovery of ROS 2, and beside it: {}", network.multicast)),
        ("peers", peers_text(network.peers).to_owned()),
        ("nodes", format!("{} ({} online)", network.nodes, network.online)),
        ("revision", network.revision.0.to_string()),
        ("created", shown(network.created)),
    ])
}

async fn key(command: KeyCommand) -> Outcome {
    match command {
        KeyCommand::Create { network, reusable, expires, tags, ephemeral, approve, common } => {
            let request = CreateKey {
                network,
                reusable,
                expires_after: expires.seconds(),
                tags,
                ephemeral: ephemeral.and_then(Lifetime::seconds),
                approve,
            };
            let made: CreatedKey = common.client().post("/v1/keys", &request).await?;
            if !common.json {
                // Beside the key, which alone goes to standard output.
                complain(&key_summary(&made.view));
            }
            common.show(&made, |made| format!("{}\n", made.key))
        }
        KeyCommand::List { network, common } => {
            let all: Vec<KeyView> =
                common.client().get(&with_network("/v1/keys", network.as_deref())).await?;
            common.show(&all, |all| keys_text(all))
        }
        KeyCommand::Show { id, common } => enrolment::show_key(&id, &common).await,
        KeyCommand::Revoke { id, common } => {
            let path = format!("/v1/keys/{}/revoke", escaped(&id));
            let key: KeyView = common.client().post(&path, &()).await?;
            common.show(&key, |key| format!("Join key {} of network {} is revoked.\n", key.id, key.network))
        }
    }
}

fn key_summary(key: &KeyView) -> String {
    let for_whom = if key.reusable { "any number of nodes" } else { "one node" };
    let until = key.expires.map_or_else(|| "for ever".to_owned(), |end| format!("until {}", shown(end)));
    let approval = if key.approve { ", each after approval (ria-coordinator node pending)" } else { "" };
    let ephemeral = key
        .ephemeral
        .map_or_else(String::new, |seconds| format!("; who was away for {} is removed", shown_span(seconds)));
    format!("join key {} admits {for_whom} to network {} {until}{approval}{ephemeral}", key.id, key.network)
}

/// What a key is like, in words.
pub(super) fn key_kind(key: &KeyView) -> String {
    let times = if key.reusable { "reusable" } else { "once" };
    let approve = key.approve.then(|| "approve".to_owned());
    let ephemeral = key.ephemeral.map(|seconds| format!("ephemeral {}", shown_span(seconds)));
    [Some(times.to_owned()), approve, ephemeral].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn keys_text(all: &[KeyView]) -> String {
    let now = now();
    let joined = |tags: &[Name]| tags.iter().map(Name::as_str).collect::<Vec<_>>().join(",");
    let rows: Vec<_> = all
        .iter()
        .map(|k| {
            vec![
                k.id.to_string(),
                k.network.to_string(),
                format!("{:?}", k.status).to_lowercase(),
                key_kind(k),
                k.uses.to_string(),
                k.expires.map_or_else(|| "never".to_owned(), |end| shown_relative(end, now)),
                shown(k.created),
                or_dash(joined(&k.tags)),
            ]
        })
        .collect();
    table(&["id", "network", "status", "kind", "uses", "expires", "created", "tags"], &rows)
}

async fn node(command: NodeCommand) -> Outcome {
    let path = |node: &NodeArgs| {
        with_network(&format!("/v1/nodes/{}", escaped(&node.node)), node.network.as_deref())
    };
    let verb = |node: &NodeArgs, verb: &str| {
        with_network(&format!("/v1/nodes/{}/{verb}", escaped(&node.node)), node.network.as_deref())
    };
    match command {
        NodeCommand::List { network, common } => {
            let all: Vec<NodeView> =
                common.client().get(&with_network("/v1/nodes", network.as_deref())).await?;
            common.show(&all, |all| nodes_text(all))
        }
        NodeCommand::Show { node, common } => {
            let node: NodeView = common.client().get(&path(&node)).await?;
            common.show(&node, node_text)
        }
        NodeCommand::History { node, common } => links::history(&node, &common).await,
        NodeCommand::Rename { node, name, common } => enrolment::rename(&node, name, &common).await,
        NodeCommand::Tag { node, add, remove, common } => enrolment::tag(&node, add, remove, &common).await,
        NodeCommand::Pending { network, common } => enrolment::pending(network.as_deref(), &common).await,
        NodeCommand::Approve { node, name, common } => enrolment::approve(&node, name, &common).await,
        NodeCommand::Reject { node, common } => enrolment::reject(&node, &common).await,
        NodeCommand::Disable { node, common } => {
            let node: NodeView = common.client().post(&verb(&node, "disable"), &()).await?;
            common.show(&node, |node| {
                format!("{} is disabled in {}; it keeps its name and address.\n", node.name, node.network)
            })
        }
        NodeCommand::Enable { node, common } => {
            let node: NodeView = common.client().post(&verb(&node, "enable"), &()).await?;
            common.show(&node, |node| {
                format!("{} may take part in {} again; it comes back by itself.\n", node.name, node.network)
            })
        }
        NodeCommand::AddStatic { name, network, way, public_key, listens_at, keepalive, tags, common } => {
            let new = NewStatic { name, network, way, public_key, listens_at, keepalive, tags };
            stock::add(new, &common).await
        }
        NodeCommand::SetGateway { node, way, common } => stock::set_gateway(&node, way, &common).await,
        NodeCommand::Remove { node, common } => {
            let node: NodeView = common.client().delete(&path(&node)).await?;
            common.show(&node, |node| format!("{} is no member of {} any more.\n", node.name, node.network))
        }
    }
}

fn nodes_text(all: &[NodeView]) -> String {
    let now = now();
    let rows: Vec<_> = all
        .iter()
        .map(|n| {
            let address = n.addresses.first().map(ToString::to_string);
            let seen = n.last_contact.filter(|_| !n.online).map(|at| shown_relative(at, now));
            let seen = if n.online { "now".to_owned() } else { or_dash(seen) };
            vec![
                n.name.to_string(),
                n.network.to_string(),
                state_of(n).to_owned(),
                or_dash(address),
                seen,
                or_dash(n.agent_version.clone()),
                or_dash(n.tags.join(",")),
            ]
        })
        .collect();
    table(&["name", "network", "state", "address", "last seen", "version", "tags"], &rows)
}

fn state_of(node: &NodeView) -> &'static str {
    if node.cloned.is_some() {
        return "CLONED";
    }
    match (node.disabled.is_some(), node.online) {
        _ if node.kind == MemberKind::Static => "static",
        (true, _) => "disabled",
        (false, _) if node.login_due.is_some() => "login due",
        (false, true) => "online",
        (false, false) => "offline",
    }
}

fn laptop_text(node: &NodeView, now: UnixTime) -> Option<String> {
    let (owner, validated) = node.owner.as_ref().zip(node.validated)?;
    let due = node
        .login_due
        .map(|since| format!("; kept out since {}, until they log in (ria login)", shown(since)));
    Some(format!("{owner}, who logged in {}{}", shown_relative(validated, now), due.unwrap_or_default()))
}

fn node_text(node: &NodeView) -> String {
    let now = now();
    let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
    let candidates: Vec<_> = node.candidates.iter().map(|c| c.address.to_string()).collect();
    let acked = node.acked_revision.zip(node.acked_at).map(|(revision, at)| {
        format!("{} of {}, {}", revision.0, node.map_revision.0, shown_relative(at, now))
    });
    list(&[
        ("name", node.name.to_string()),
        ("id", node.id.to_string()),
        ("network", node.network.to_string()),
        (
            "state",
            node.disabled.map_or_else(
                || state_of(node).to_owned(),
                |since| {
                    format!("disabled since {} (ria-coordinator node enable {})", shown(since), node.name)
                },
            ),
        ),
        ("laptop of", or_dash(laptop_text(node, now))),
        ("cloned", or_dash(node.cloned.as_ref().map(two_machines))),
        ("addresses", addresses.join(", ")),
        ("reachable at", or_dash(candidates.join(", "))),
        ("map revision", or_dash(acked)),
        (
            "last seen",
            or_dash(node.last_contact.map(|at| format!("{} ({})", shown(at), shown_relative(at, now)))),
        ),
        ("joined", joined(node)),
        ("ends", ends(node)),
        ("version", or_dash(node.agent_version.clone())),
        ("clock", clock(node.clock_offset)),
        ("tags", or_dash(node.tags.join(", "))),
        ("ROS domain", or_dash(node.ros_domain.map(|domain| domain.to_string()))),
        ("WireGuard key", node.wg_key.to_string()),
        ("TLS key", or_dash(node.tls_key.map(|key| key.to_string()))),
        ("gateway", or_dash(node.gateway.as_ref().map(Name::to_string))),
        ("forwards for", or_dash(node.forwards_for.iter().map(Name::as_str).collect::<Vec<_>>().join(", "))),
    ])
}

fn joined(node: &NodeView) -> String {
    let at = shown(node.joined);
    match node.join_key {
        Some(key) => format!("{at} with key {key}"),
        None => format!("{at} by `node add-static`{}", if node.psk { ", with a pre-shared key" } else { "" }),
    }
}

fn two_machines(cloned: &ClonedView) -> String {
    format!(
        "since {} two machines use this identity, at {} (kept) and {} (refused); was a card copied?",
        shown(cloned.since),
        cloned.kept,
        cloned.refused
    )
}

/// How far a node's clock is off; a few seconds are the way that the greeting takes.
fn clock(offset: Option<i64>) -> String {
    match offset {
        None => or_dash(None),
        Some(offset) if offset.unsigned_abs() <= 10 => "right".to_owned(),
        Some(offset) if offset < 0 => format!("{} s behind this one", offset.unsigned_abs()),
        Some(offset) => format!("{offset} s ahead of this one"),
    }
}

fn ends(node: &NodeView) -> String {
    match node.ephemeral {
        Some(seconds) => format!("when it was away for {}", shown_span(seconds)),
        None => or_dash(node.expires.map(|end| format!("{} unless it is heard of before", shown(end)))),
    }
}

async fn url(command: UrlCommand) -> Outcome {
    let (all, common): (Vec<UrlView>, Common) = match command {
        UrlCommand::List { common } => (common.client().get("/v1/urls").await?, common),
        UrlCommand::Add { url, common } => {
            (common.client().post("/v1/urls", &UrlRequest { url }).await?, common)
        }
        UrlCommand::Remove { url, common } => {
            (common.client().post("/v1/urls/remove", &UrlRequest { url }).await?, common)
        }
    };
    common.show(&all, |all| urls_text(all))
}

fn urls_text(all: &[UrlView]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|view| {
            let from = if view.configured { "settings" } else { "added" };
            let told = if view.told { "yes" } else { "no: this machine only" };
            vec![view.url.clone(), from.to_owned(), told.to_owned()]
        })
        .collect();
    table(&["url", "from", "told to nodes"], &rows)
}
