//! Interfaces and the engine: brings networks up and takes them down.

use std::net::SocketAddr;

use ria_api::state::{CoordinatorState, NetworkState, Severity};
use ria_core::{AddNetwork, Command, Event, Warning};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::{Candidate, CandidateKind, Live, MemberKind};
use ria_protocol::message::LiveUpdate;
use ria_protocol::prefix::Prefix;
use tokio::time::Instant;

use super::control::{Control, Input};
use super::events::Draft;
use super::network::{Interface, Network, random_boot};
use super::status::has_interface;
use super::times::Look;
use crate::coordinator::relays;
use crate::coordinator::session::{Order, Session};
use crate::dds::domains;
use crate::netdev::tun::{self, Tun};
use crate::state::{Part, map};

impl Control {
    /// Starts what a network needs, as far as it is wanted and not running.
    pub(super) async fn bring_up(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id).filter(|n| n.wanted()) else { return };
        if network.session.is_none() {
            network.boot = random_boot();
            network.coordinator.state = CoordinatorState::Connecting;
            network.session = Some(Session::start(
                network.session_config(&self.reach, &self.advertised),
                self.session_events.clone(),
            ));
            if network.membership.identity.suspended.is_none() {
                network.state = NetworkState::Joining;
            }
        }
        self.changed = true;
        self.start_engine(id).await;
        self.start_interface(id).await;
    }

    /// Gives the engine a network, once its map is known, with all that is stored.
    pub(super) async fn start_engine(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id).filter(|n| n.may_run() && !n.in_engine) else {
            return;
        };
        let Some(snapshot) = network.membership.map.clone() else { return };
        (network.in_engine, network.reached_told) = (true, false);
        let add = AddNetwork {
            id,
            private_key: network.membership.keys.wg(),
            node: network.membership.identity.node,
            boot: network.boot,
            mtu: snapshot.network.mtu,
        };
        // Who is online is the coordinator's to say; where members were is worth trying.
        let mut members = network.membership.live.clone();
        members.iter_mut().for_each(|live| live.online = false);
        // From a stored time memberships may end late, never early.
        let (time, latest) = (network.coordinator_time(&Look::now()), network.time(&Look::now()));
        let policy = domains::policy(&snapshot, &self.multicast);
        network.multicast_told = policy.clone();
        network.lans_told.clear();
        self.engine(Command::AddNetwork(add)).await;
        self.engine(Command::SetMulticast { network: id, policy }).await;
        self.engine(Command::SetTime { network: id, time, latest }).await;
        self.engine(Command::SetMap { network: id, snapshot }).await;
        self.engine(Command::ApplyLive { network: id, update: LiveUpdate { whole: true, members } }).await;
        self.resolve_relays(id);
    }

    /// Has discovery of those ROS domains and those groups carried that the map names now, and says when this machine is left
    /// without a domain.
    pub(super) async fn follow_domains(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Some(map) = &network.membership.map else { return };
        self.changed |= if domains::lacks_own(map, network.membership.identity.node) {
            let text = "each member of this network has a ROS domain of its own, and all of 1 to 101 were taken when this \
                        one joined; remove members that are not needed, then have this one leave and join again";
            network.conditions.set("no-ros-domain", Severity::Warning, text)
        } else {
            network.conditions.clear("no-ros-domain")
        };
        let policy = domains::policy(map, &self.multicast);
        if network.in_engine && network.multicast_told != policy {
            network.multicast_told = policy.clone();
            self.engine(Command::SetMulticast { network: id, policy }).await;
        }
    }

    /// Finds the relays' addresses in the background and gives them to the engine.
    pub(super) fn resolve_relays(&self, id: NetworkId) {
        let Some(network) = self.networks.get(&id) else { return };
        let contact = network.membership.contact.clone();
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let relays = relays::resolve(&contact).await;
            // Only fails while the agent stops.
            let _ = inputs.send(Input::Relays(id, relays));
        });
    }

    /// Makes the interface of a network, once its map is known.
    pub(super) async fn start_interface(&mut self, id: NetworkId) {
        let reserved = self.reserved_interfaces(id);
        let Some(network) = self.networks.get(&id).filter(|n| n.in_engine && n.interface.is_none()) else {
            return;
        };
        let Some(plan) = network.plan(reserved) else {
            return self.interface_failed(id, "not-listed", "the network's map does not list this node");
        };
        let prefixes = network.prefixes();
        match self.netlink.host().await {
            Ok(host) => self.host = host,
            Err(error) => return self.interface_failed(id, "interface-failed", &error.to_string()),
        }
        let made = self.networks.values().filter_map(|n| n.interface.as_ref()).map(|i| i.index);
        let left = self.host.labelled().filter(|(_, label)| self.networks.contains_key(&label.network));
        let own: Vec<u32> = made.chain(left.map(|(interface, _)| interface.index)).collect();
        let with_host =
            || prefixes.iter().find_map(|prefix| self.host.collision(*prefix, &own)).map(|c| c.to_string());
        if let Some(text) = self.overlap(id, &prefixes).or_else(with_host) {
            return self.interface_failed(id, "prefix-collides", &text);
        }
        match tun::create(&plan, &self.netlink, &self.host).await {
            Ok(tun) => {
                self.interface_made(id, tun, plan.addresses, plan.mtu);
                self.follow_routes(id).await;
                self.follow_gateway().await;
            }
            Err(error) => self.interface_failed(id, "interface-failed", &error.to_string()),
        }
    }

    /// Another network that is up and has some of the same addresses: packets would go to the wrong one.
    fn overlap(&self, id: NetworkId, prefixes: &[Prefix]) -> Option<String> {
        self.networks.values().filter(|other| other.id() != id).find_map(|other| {
            let interface = &other.interface.as_ref()?.name;
            let theirs = other.prefixes();
            let prefix = prefixes.iter().find(|p| theirs.iter().any(|t| p.overlaps(t)))?;
            let identity = &other.membership.identity;
            Some(format!(
                "its addresses {prefix} are also those of network {} ({}) on {interface}; use one of the two at a time \
                 (ria down --network {}), or ask an administrator for a network with another prefix (ria-coordinator \
                 network create --prefix)",
                identity.network_name,
                other.id(),
                other.id(),
            ))
        })
    }

    fn interface_made(&mut self, id: NetworkId, tun: Tun, addresses: Vec<(std::net::IpAddr, u8)>, mtu: u16) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let Tun { device, number, name, index, since, shortcomings } = tun;
        if let Err(error) = self.packets.attach(id, device) {
            return self.interface_failed(id, "interface-failed", &error.to_string());
        }
        for code in ["prefix-collides", "interface-failed", "not-listed", "ipv6-unavailable"] {
            network.conditions.clear(code);
        }
        if let Some(text) = shortcomings.first() {
            network.conditions.set("ipv6-unavailable", Severity::Info, text.clone());
        }
        let shown: Vec<String> = addresses.iter().map(|(ip, length)| format!("{ip}/{length}")).collect();
        tracing::info!(network = %network.membership.identity.network_name, interface = name, "overlay is up");
        tracing::debug!(addresses = ?shown, mtu, "overlay addresses");
        network.interface = Some(Interface { name, number, index, addresses, mtu, since });
        if network.membership.identity.interface != number {
            network.membership.identity.interface = number;
            self.saver.put(id, Part::Identity, &network.membership.identity, 0);
        }
        network.answer_waiting(Ok(()));
        self.netchecks.network_changed();
        self.set_state(id, NetworkState::Up);
    }

    fn interface_failed(&mut self, id: NetworkId, code: &'static str, text: &str) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        for other in ["prefix-collides", "interface-failed", "not-listed"] {
            if other != code {
                network.conditions.clear(other);
            }
        }
        self.changed |= network.conditions.set(code, Severity::Error, text);
        network.answer_waiting(Err(format!("joined, but {text}")));
        self.set_state(id, NetworkState::Failed);
    }

    /// Tries again what has failed: the cause may be gone.
    pub(super) async fn retry_interface(&mut self, id: NetworkId) {
        if self.networks.get(&id).is_some_and(|n| n.wanted() && n.state == NetworkState::Failed) {
            self.start_interface(id).await;
        }
    }

    /// Takes a network down: no interface, no peers, no session.
    pub(super) async fn take_down(&mut self, id: NetworkId, state: NetworkState) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.session = None;
        network.coordinator.state = CoordinatorState::Unknown;
        network.answer_waiting(Err("the network was taken down meanwhile".into()));
        self.take_off(id, state).await;
    }

    /// Takes interface and peers away, and goes on asking the coordinator.
    pub(super) async fn take_off(&mut self, id: NetworkId, state: NetworkState) {
        self.stop_interface(id).await;
        if self.networks.get_mut(&id).is_some_and(|network| std::mem::take(&mut network.in_engine)) {
            self.engine(Command::RemoveNetwork(id)).await;
        }
        self.set_state(id, state);
    }

    pub(super) async fn stop_interface(&mut self, id: NetworkId) {
        if self.networks.get_mut(&id).and_then(|n| n.interface.take()).is_some() {
            self.packets.detach(id).await;
        }
    }

    /// Removes what earlier runs have left for networks that were left, switched off or taken away since.
    pub(super) async fn sweep_interfaces(&mut self) {
        match self.netlink.host().await {
            Ok(host) => {
                let gone = tun::sweep(&host, |id| self.networks.get(&id).is_some_and(Network::may_run)).await;
                for interface in gone {
                    tracing::info!(interface, "an interface that an earlier run had left is removed");
                }
            }
            Err(error) => tracing::warn!(%error, "interfaces of earlier runs are not looked for"),
        }
    }

    pub(super) async fn remove_interfaces(&mut self) {
        let ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        for id in ids {
            self.stop_interface(id).await;
        }
    }

    /// After the map has changed: a network whose addresses or MTU are others now gets a new interface.
    pub(super) async fn fit_interface(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get(&id) else { return };
        let fits = match (&network.interface, network.plan(Vec::new())) {
            (Some(interface), Some(plan)) => {
                interface.addresses == plan.addresses && interface.mtu == plan.mtu
            }
            (Some(_), None) | (None, _) => false,
        };
        if !fits && network.may_run() {
            self.stop_interface(id).await;
            self.start_interface(id).await;
        }
    }

    pub(super) fn set_state(&mut self, id: NetworkId, state: NetworkState) {
        let Some(network) = self.networks.get_mut(&id).filter(|n| n.state != state) else { return };
        let before = std::mem::replace(&mut network.state, state);
        let name = &network.membership.identity.network_name;
        let text = format!("network {name}: {before} -> {state}");
        let severity = if has_interface(state) { Severity::Info } else { Severity::Warning };
        self.changed = true;
        let draft = Draft {
            severity,
            kind: "network",
            before: before.to_string(),
            after: state.to_string(),
            text,
            ..Draft::default()
        };
        self.events.tell(id, draft);
    }

    /// Names that belong to other networks of this agent, up or not.
    fn reserved_interfaces(&self, id: NetworkId) -> Vec<u16> {
        let others = self.networks.values().filter(|n| n.id() != id);
        others.map(|n| n.interface.as_ref().map_or(n.membership.identity.interface, |i| i.number)).collect()
    }

    /// The engine tells something.
    pub(super) fn handle_engine_event(&mut self, event: Event) {
        match event {
            Event::PingFinished { id, outcome, .. } => return self.pings.end(id, outcome),
            Event::BeaconDue { from, datagram, .. } => return self.beacons.send(from, &datagram),
            Event::PeerWanted { network, address } => return self.handle_wanted(network, address),
            Event::CandidatesChanged { network, candidates } => {
                if let Some(network) = self.networks.get(&network) {
                    network.order(Order::Report(candidates));
                }
            }
            Event::Warned { network, warning } => self.handle_warning(network, &warning),
            Event::RelayUp { network, relay, transport, .. } => self.relay_up(network, &relay, transport),
            Event::RelayDown { network, relay, reason } => self.relay_down(network, &relay, &reason),
            Event::RelayStreamWanted { network, socket, relay, address } => {
                self.start_relay_stream(network, socket, &relay, address);
            }
            Event::RelayStreamUnwanted { network, socket } => self.end_relay_stream(network, socket),
            Event::PathChanged { network, peer, endpoint: Some(endpoint), .. } => {
                self.remember_static_peer(network, peer, endpoint);
                self.tell_engine_event(event);
            }
            Event::MapChanged { .. }
            | Event::PeerAdded { .. }
            | Event::PeerRemoved { .. }
            | Event::LinkStateChanged { .. }
            | Event::Denied { .. }
            | Event::PathChanged { .. } => self.tell_engine_event(event),
        }
        self.changed = true;
    }

    /// Where a static peer is, nobody can tell after a restart but this node itself.
    fn remember_static_peer(&mut self, id: NetworkId, peer: NodeId, address: SocketAddr) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let member = network.membership.map.as_ref().and_then(|map| map::member(map, peer));
        if member.is_some_and(|(member, _)| member.kind == MemberKind::Static) {
            let candidates = vec![Candidate { kind: CandidateKind::Host, address }];
            let seen = Live { node: peer, online: false, boot: None, candidates };
            let update = LiveUpdate { whole: false, members: vec![seen] };
            map::apply_live(&mut network.membership.live, &update);
            network.live_unsaved.get_or_insert(Instant::now());
        }
    }

    fn handle_warning(&mut self, id: NetworkId, warning: &Warning) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        let code = match warning {
            Warning::MemberRefused { .. } => "member-left-out",
            Warning::PrefixConflict(..) => "prefix-conflict",
            Warning::NotListed => "not-listed",
        };
        network.conditions.set(code, Severity::Warning, warning.to_string());
    }

    pub(super) fn peer_name(&self, network: NetworkId, peer: NodeId) -> String {
        let map = self.networks.get(&network).and_then(|n| n.membership.map.as_ref());
        let named = map.and_then(|map| map::member(map, peer));
        named.map_or_else(|| peer.to_string(), |(member, _)| member.name.to_string())
    }
}
