//! What the API says, as pages show it.

use std::time::SystemTime;

use ria_protocol::map::MemberKind;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;

use crate::admin::api::{KeyView, NetworkView, NodeView, PendingState, PendingView, RelayState, RelayView};
use crate::admin::api_people::{TokenView, UserState, UserView};
use crate::duration::{shown, shown_relative};
use crate::state::JoinKeyStatus;
use crate::state::people::{Role, UserEntry};

pub(super) fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

fn dash(text: String) -> String {
    if text.is_empty() { "–".to_owned() } else { text }
}

pub(super) struct NetworkRow {
    pub name: String,
    pub online: usize,
    pub nodes: usize,
    pub prefix_v4: String,
    pub prefix_v6: String,
    pub mtu: u16,
    pub domains: String,
    pub peers: &'static str,
    pub revision: u64,
    pub created: String,
}

impl NetworkRow {
    pub fn of(network: &NetworkView) -> Self {
        Self {
            name: network.name.to_string(),
            online: network.online,
            nodes: network.nodes,
            prefix_v4: network.prefix_v4.to_string(),
            prefix_v6: network.prefix_v6.to_string(),
            mtu: network.mtu,
            domains: network
                .ros_domains
                .as_ref()
                .map_or_else(|| "everybody's own".to_owned(), ToString::to_string),
            peers: network.peers.as_str(),
            revision: network.revision.0,
            created: shown(network.created),
        }
    }
}

pub(super) struct NodeRow {
    pub id: String,
    pub etag: String,
    pub name: String,
    pub network: String,
    pub state: &'static str,
    pub class: &'static str,
    pub address: String,
    pub tags: String,
    pub heard: String,
    pub version: String,
}

impl NodeRow {
    pub fn of(node: &NodeView) -> Self {
        let (state, class) = match node {
            NodeView { kind: MemberKind::Static, .. } => ("static peer", "away"),
            NodeView { disabled: Some(_), .. } => ("kept out", "off"),
            NodeView { cloned: Some(_), .. } => ("two machines", "off"),
            NodeView { online: true, .. } => ("connected", "on"),
            NodeView { .. } => ("away", "away"),
        };
        let heard = node
            .last_contact
            .map(|at| if node.online { "now".to_owned() } else { shown_relative(at, now()) });
        Self {
            id: node.id.to_string(),
            etag: node.etag.clone(),
            name: node.name.to_string(),
            network: node.network.to_string(),
            state,
            class,
            address: node.addresses.first().map_or_else(String::new, ToString::to_string),
            tags: node.tags.join(" "),
            heard: dash(heard.unwrap_or_default()),
            version: dash(node.agent_version.clone()),
        }
    }
}

/// All that is known of a node, by name.
pub(super) fn facts(node: &NodeView) -> Vec<(&'static str, String)> {
    let list = |all: Vec<String>| dash(all.join(", "));
    let addresses = node.addresses.iter().map(ToString::to_string).collect();
    let candidates =
        node.candidates.iter().map(|c| format!("{} ({:?})", c.address, c.kind).to_lowercase()).collect();
    let mut facts = vec![
        ("Addresses", list(addresses)),
        ("Tags", dash(node.tags.join(" "))),
        ("Identity", node.id.to_string()),
        ("WireGuard key", node.wg_key.to_string()),
        ("Joined", shown(node.joined)),
        ("Join key", dash(node.join_key.map(|key| key.to_string()).unwrap_or_default())),
        ("Heard of", dash(node.last_contact.map(shown).unwrap_or_default())),
        ("Membership ends", node.expires.map_or_else(|| "never".to_owned(), shown)),
        ("Agent", dash(node.agent_version.clone())),
        ("May be reached at", list(candidates)),
    ];
    let acked = node.acked_revision.map_or_else(|| "none".to_owned(), |revision| revision.0.to_string());
    facts.push(("Map", format!("revision {acked} confirmed, {} is the latest", node.map_revision.0)));
    if let Some(seconds) = node.ephemeral {
        facts.push(("Removed when away for", crate::duration::shown_span(seconds)));
    }
    if let Some(offset) = node.clock_offset.filter(|offset| offset.abs() > 1) {
        facts.push(("Clock", format!("off by {offset} s when it connected")));
    }
    if let Some(domain) = node.ros_domain {
        facts.push(("ROS domain", domain.to_string()));
    }
    if let Some((owner, validated)) = node.owner.as_ref().zip(node.validated) {
        let due =
            node.login_due.map(|since| format!("; kept out since {}, until they do again", shown(since)));
        let text = format!("{owner}, who logged in from it {}{}", shown(validated), due.unwrap_or_default());
        facts.push(("Laptop of", text));
    }
    if let Some(gateway) = &node.gateway {
        facts.push(("Behind", gateway.to_string()));
    }
    if !node.forwards_for.is_empty() {
        facts.push(("Forwards for", list(node.forwards_for.iter().map(ToString::to_string).collect())));
    }
    if let Some(cloned) = &node.cloned {
        let text = format!(
            "another machine uses this identity, from {}; the one at {} is kept",
            cloned.refused, cloned.kept
        );
        facts.push(("Copied", text));
    }
    facts
}

pub(super) struct PendingRow {
    pub id: String,
    pub name: String,
    pub network: String,
    pub state: &'static str,
    pub fingerprint: String,
    pub address: String,
    pub asked: String,
}

impl PendingRow {
    pub fn of(pending: &PendingView) -> Self {
        let state = match pending.state {
            PendingState::Rejected => "rejected",
            PendingState::Waiting if pending.former => "waits, was a member",
            PendingState::Waiting => "waits",
        };
        Self {
            id: pending.id.to_string(),
            name: pending.name.to_string(),
            network: pending.network.to_string(),
            state,
            fingerprint: pending.fingerprint.clone(),
            address: pending.address.to_string(),
            asked: shown_relative(pending.asked, now()),
        }
    }
}

pub(super) struct KeyRow {
    pub id: String,
    pub network: String,
    pub state: &'static str,
    pub class: &'static str,
    pub kind: String,
    pub tags: String,
    pub uses: u64,
    pub ends: String,
}

impl KeyRow {
    pub fn of(key: &KeyView) -> Self {
        let (state, class) = match key.status {
            JoinKeyStatus::Valid => ("valid", "on"),
            JoinKeyStatus::Used => ("used", "away"),
            JoinKeyStatus::Expired => ("expired", "away"),
            JoinKeyStatus::Revoked => ("revoked", "off"),
        };
        let mut kind = vec![if key.reusable { "many nodes" } else { "one node" }];
        kind.extend(key.approve.then_some("approval"));
        kind.extend(key.ephemeral.map(|_| "ephemeral"));
        Self {
            id: key.id.to_string(),
            network: key.network.to_string(),
            state,
            class,
            kind: kind.join(", "),
            tags: dash(key.tags.iter().map(Name::as_str).collect::<Vec<_>>().join(" ")),
            uses: key.uses,
            ends: key.expires.map_or_else(|| "never".to_owned(), |at| shown_relative(at, now())),
        }
    }
}

pub(super) struct RelayRow {
    pub name: String,
    pub kind: &'static str,
    pub state: &'static str,
    pub class: &'static str,
    pub place: String,
    pub clients: String,
    pub relayed: String,
    pub dropped: String,
}

impl RelayRow {
    pub fn of(relay: &RelayView) -> Self {
        let kind = match relay.kind.as_str() {
            "own" => "in the coordinator",
            "standalone" => "stand-alone",
            _ => "TURN server",
        };
        let (state, class) = match relay.standalone.as_ref().map(|own| own.state) {
            None if relay.load.is_some() => ("runs", "on"),
            None => ("not known", "away"),
            Some(RelayState::Connected) => ("connected", "on"),
            Some(RelayState::Away) => ("away", "off"),
            Some(RelayState::Expected) => ("expected", "wait"),
        };
        let host = relay.host.clone().unwrap_or_else(|| "as the coordinator".to_owned());
        let load = relay.load.as_ref();
        Self {
            name: relay.name.clone(),
            kind,
            state,
            class,
            place: format!(
                "{host}, UDP {}{}",
                relay.udp_port,
                relay.tls_port.map_or(String::new(), |p| format!(", TLS {p}"))
            ),
            clients: load.map_or_else(|| "–".to_owned(), |load| load.clients.to_string()),
            relayed: load.map_or_else(|| "–".to_owned(), |load| size(load.bytes)),
            dropped: load.map_or_else(|| "–".to_owned(), |load| load.drops.values().sum::<u64>().to_string()),
        }
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

pub(super) struct UserRow {
    pub name: String,
    pub state: &'static str,
    pub class: &'static str,
    pub roles: String,
    pub everywhere: &'static str,
    pub tokens: usize,
    pub created: String,
    pub version: u64,
}

impl UserRow {
    pub fn of(user: &UserView) -> Self {
        let (state, class) = match user.state {
            UserState::Active => ("active", "on"),
            UserState::Invited => ("invited", "wait"),
            UserState::Disabled => ("disabled", "off"),
        };
        let mut roles: Vec<String> =
            user.everywhere.iter().map(|role| format!("{} everywhere", role.name())).collect();
        roles.extend(user.networks.iter().map(|(network, role)| format!("{} in {network}", role.name())));
        Self {
            name: user.name.to_string(),
            state,
            class,
            roles: roles.join(", "),
            everywhere: user.everywhere.map_or("none", Role::name),
            tokens: user.tokens,
            created: shown(user.created),
            version: user.version,
        }
    }
}

impl UserRow {
    pub fn has(&self, role: &str) -> bool {
        self.everywhere == role
    }
}

/// Somebody's own roles, in words.
pub(super) fn own_roles(
    user: &UserEntry,
    name: impl Fn(&ria_protocol::id::NetworkId) -> Option<String>,
) -> String {
    let mut roles: Vec<String> =
        user.roles.everywhere.iter().map(|role| format!("{} everywhere", role.name())).collect();
    let single =
        user.roles.networks.iter().filter_map(|(id, role)| Some(format!("{} in {}", role.name(), name(id)?)));
    roles.extend(single);
    roles.join(", ")
}

pub(super) struct TokenRow {
    pub id: String,
    pub user: String,
    pub label: String,
    pub scopes: String,
    pub ends: String,
}

impl TokenRow {
    pub fn of(token: &TokenView) -> Self {
        Self {
            id: token.id.to_string(),
            user: token.user.to_string(),
            label: token.label.clone(),
            scopes: token.scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            ends: token.expires.map_or_else(|| "never".to_owned(), |at| shown_relative(at, now())),
        }
    }
}
