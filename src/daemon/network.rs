//! One network in the agent's loop: what is stored of it, and what runs for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rand_core::{OsRng, RngCore};
use ria_api::error::ApiError;
use ria_api::state::{CoordinatorState, Joined, NetworkReport, NetworkState, Severity};
use ria_core::MulticastPolicy;
use ria_core::lan::Lan;
use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::prefix::Prefix;
use ria_protocol::requester::{LocalDeed, Requester};
use ria_protocol::version::Protocol;
use tokio::time::Instant;

use super::conditions::Conditions;
use super::demand::Demand;
use super::handle::Reply;
use super::links::Links;
use super::rotation::Rotating;
use super::times::Look;
use super::uplink::put_out_code;
use crate::coordinator::farewell::Farewell;
use crate::coordinator::finding;
use crate::coordinator::greet::CoordinatorTime;
use crate::coordinator::reach::Reach;
use crate::coordinator::session::{Order, Session, SessionConfig};
use crate::netdev::tun::{TunPlan, own_addresses};
use crate::state::map;
use crate::state::membership::Membership;

/// A network.
pub struct Network {
    /// What is stored.
    pub membership: Membership,
    /// This run of it.
    pub boot: BootId,
    /// State for people.
    pub state: NetworkState,
    /// Whether the engine has it.
    pub in_engine: bool,
    /// Whether the engine was told that the coordinator is there.
    pub reached_told: bool,
    /// The overlay interface while there is one.
    pub interface: Option<Interface>,
    /// The standing session with the coordinator.
    pub session: Option<Session>,
    /// The coordinator as seen from here.
    pub coordinator: Coordinator,
    /// What is wrong.
    pub conditions: Conditions,
    /// The last measurement of the network below.
    pub report: NetworkReport,
    /// Who waits for the interface.
    pub waiting: Vec<Waiting>,
    /// Names of the engine's peers; of one that was removed the map does not tell any more.
    pub peer_names: BTreeMap<NodeId, String>,
    /// What happened to the links of peers last.
    pub last_changes: BTreeMap<NodeId, LastChange>,
    /// Whether a new WireGuard key is not on the disk yet.
    pub key_unstored: bool,
    /// Who waits for another WireGuard key.
    pub rotating: Vec<Rotating>,
    /// The coordinator's clock, since the last greeting of this run.
    pub clock: Option<CoordinatorTime>,
    /// When the coordinator's time was stored last.
    pub clock_stored: Option<Instant>,
    /// By how much the clock was off when that was told last.
    pub clock_told: Option<i64>,
    /// Whether the coordinator keeps this machine out because another one has its identity.
    pub kept_out: bool,
    /// Since when the stored live state is older than the known one.
    pub live_unsaved: Option<Instant>,
    /// What of the multicast the engine was told to carry.
    pub multicast_told: MulticastPolicy,
    /// What the coordinator is told of links.
    pub links: Links,
    /// Local networks behind others that this machine has a way to.
    pub routed: BTreeSet<Prefix>,
    /// Local networks behind this node, as the engine was told.
    pub lans_told: Vec<Lan>,
    /// Whom it holds, in an on-demand network.
    pub demand: Demand,
}

/// The overlay interface of a network.
#[derive(Debug)]
pub struct Interface {
    /// `riaN`.
    pub name: String,
    /// N.
    pub number: u16,
    /// Kernel's number.
    pub index: u32,
    /// What it was made for.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Its MTU.
    pub mtu: u16,
    /// Since when it is there, seconds since the machine's start.
    pub since: f64,
}

/// What happened to a link last.
#[derive(Debug, Clone, Default)]
pub struct LastChange {
    /// In words.
    pub text: String,
    /// When, seconds since 1970.
    pub at: f64,
    /// How long nothing came through at its last interruption, seconds.
    pub gap: Option<f64>,
}

/// The coordinator as seen from here.
#[derive(Debug, Clone, Default)]
pub struct Coordinator {
    /// State of the connection.
    pub state: CoordinatorState,
    /// URL in use.
    pub url: String,
    /// Its version; empty before the first contact of this run.
    pub version: String,
    /// What the connection speaks, or the last one spoke; `None` before the first contact of this run.
    pub protocol: Option<Protocol>,
}

/// Somebody who has joined and waits for the interface.
#[derive(Debug)]
pub struct Waiting {
    /// Whom to answer.
    pub reply: Reply<Joined>,
    /// What.
    pub joined: Joined,
    /// Until when.
    pub deadline: Instant,
}

impl Network {
    /// A stored network that does not run yet.
    pub fn new(mut membership: Membership) -> Self {
        // The agent was killed between two steps of a change of keys.
        membership.adopt_key();
        let identity = &membership.identity;
        let mut conditions = Conditions::default();
        if let Some(text) = &identity.refused {
            conditions.set(put_out_code(identity.has_ended()), Severity::Error, text.clone());
        }
        if let Some(text) = &identity.suspended {
            conditions.set("disabled", Severity::Error, text.clone());
        }
        let state = if identity.refused.is_some() || identity.suspended.is_some() {
            NetworkState::Refused
        } else if identity.enabled {
            NetworkState::Joining
        } else {
            NetworkState::Disabled
        };
        Self {
            membership,
            boot: random_boot(),
            state,
            in_engine: false,
            reached_told: false,
            interface: None,
            session: None,
            coordinator: Coordinator::default(),
            conditions,
            report: NetworkReport::default(),
            waiting: Vec::new(),
            peer_names: BTreeMap::new(),
            last_changes: BTreeMap::new(),
            key_unstored: false,
            rotating: Vec::new(),
            clock: None,
            clock_stored: None,
            clock_told: None,
            kept_out: false,
            live_unsaved: None,
            multicast_told: MulticastPolicy::default(),
            links: Links::default(),
            routed: BTreeSet::new(),
            lans_told: Vec::new(),
            demand: Demand::default(),
        }
    }

    /// Which network.
    pub fn id(&self) -> NetworkId {
        self.membership.identity.network
    }

    /// Whether it may have an interface and peers now: it is wanted, and the coordinator has not disabled this node.
    pub fn may_run(&self) -> bool {
        self.wanted() && self.membership.identity.suspended.is_none() && !self.kept_out
    }

    /// Whether it shall run, so that its coordinator is asked.
    pub fn wanted(&self) -> bool {
        self.membership.identity.enabled && self.membership.identity.refused.is_none()
    }

    /// What its session begins with.
    pub fn session_config(&self, reach: &Reach, routes: &[Prefix]) -> SessionConfig {
        let Membership { identity, keys, certificate, map, contact, .. } = &self.membership;
        SessionConfig {
            reach: reach.clone(),
            network: identity.network,
            node: identity.node,
            boot: self.boot,
            urls: finding::urls(&self.membership),
            kept: self.membership.kept.clone(),
            keys: keys.clone(),
            certificate: certificate.clone(),
            revision: map.as_ref().map(|map| map.revision),
            holds: self.holds(),
            time: contact.time,
            routes: routes.to_vec(),
        }
    }

    /// What its interface shall be like; `None` while the map does not list this node.
    pub fn plan(&self, reserved: Vec<u16>) -> Option<TunPlan> {
        let map = self.membership.map.as_ref()?;
        let (_, own) = map::member(map, self.membership.identity.node)?;
        let addresses = own_addresses(
            &own.own_prefixes().collect::<Vec<_>>(),
            &[map.network.prefix_v4, map.network.prefix_v6],
        );
        let preferred = self.membership.identity.interface;
        Some(TunPlan { network: self.id(), preferred, reserved, addresses, mtu: map.network.mtu })
    }

    /// Whether a policy is enforced.
    pub fn has_policy(&self) -> bool {
        let map = self.membership.map.as_ref();
        map.and_then(|map| map.policy.as_ref()).is_some_and(|policy| policy.rules.is_some())
    }

    /// Whether the map lists this member with a record that can be read.
    pub fn lists(&self, node: NodeId) -> bool {
        self.membership.map.as_ref().is_some_and(|map| map::member(map, node).is_some())
    }

    /// Prefixes that the overlay takes on this machine.
    pub fn prefixes(&self) -> Vec<Prefix> {
        let map = self.membership.map.as_ref();
        map.map(|map| vec![map.network.prefix_v4, map.network.prefix_v6]).unwrap_or_default()
    }

    /// Gives the session an order; without one there is nobody to tell.
    pub fn order(&self, order: Order) {
        if let Some(session) = &self.session {
            session.order(order);
        }
    }

    /// What it takes to leave without a session.
    pub fn farewell(&self, by: Requester, reach: &Reach) -> Farewell {
        let Membership { identity, keys, certificate, contact, mut untold, .. } = self.membership.clone();
        untold.add(LocalDeed::Left, by, self.time(&Look::now()));
        Farewell {
            reach: reach.clone(),
            network: identity.network,
            node: identity.node,
            boot: self.boot,
            urls: identity.urls,
            keys,
            certificate,
            time: contact.time,
            notes: untold.notes().to_vec(),
        }
    }

    /// Answers everybody who waits for the interface.
    pub fn answer_waiting(&mut self, result: Result<(), String>) {
        for waiting in self.waiting.drain(..) {
            let answer = result.clone().map(|()| waiting.joined).map_err(ApiError::Failed);
            // The caller may have gone away.
            let _ = waiting.reply.send(answer);
        }
    }
}

/// A new run.
pub fn random_boot() -> BootId {
    let mut bytes = [0; BootId::LEN];
    OsRng.fill_bytes(&mut bytes);
    BootId::from_bytes(bytes)
}
