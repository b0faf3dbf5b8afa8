//! From the loop's and the engine's state to what the local API tells.

use std::collections::BTreeMap;

use ria_api::network_path;
use ria_api::state::{
    AgentStatus, CandidateType, LinkState, NetworkReport, NetworkState, NetworkStatus, NetworkSummary,
    PathKind, PeerKind, PeerStatus,
};
use ria_core::{Domains, EngineStatus};
use ria_protocol::id::NodeId;
use ria_protocol::map::{CandidateKind, MemberKind, Snapshot};
use ria_protocol::prefix::Prefix;

use super::control::Control;
use super::handle::{NetworkView, State};
use super::network::Network;
use super::packets::PacketStatus;
use super::pending::Pending;
use super::times::Look;
use crate::dds::domains;
use crate::metrics::EDGES;
use crate::names::Place;
use crate::state::map;

/// Everything at this moment.
pub fn state(control: &Control, packets: &PacketStatus) -> State {
    let mut networks: BTreeMap<_, _> =
        control.networks.iter().map(|(id, network)| (*id, view(control, network, packets))).collect();
    // A request to be let in again takes the place of the membership that is no more.
    networks.extend(control.pending.iter().map(|(id, pending)| (*id, pending.view())));
    State { agent: agent(control), networks }
}

fn agent(control: &Control) -> AgentStatus {
    let summary = |network: &Network| NetworkSummary {
        id: network.id().to_string(),
        name: network.membership.identity.network_name.to_string(),
        path: network_path(network.id()),
        interface: network.interface.as_ref().map(|i| i.name.clone()).unwrap_or_default(),
        state: network.state,
    };
    let networks = control.networks.values().filter(|n| !control.pending.contains_key(&n.id()));
    AgentStatus {
        version: env!("CARGO_PKG_VERSION").into(),
        boot_id: control.boot.to_string(),
        suggested_name: super::join::suggested_name().map(|name| name.to_string()).unwrap_or_default(),
        networks: networks.map(summary).chain(control.pending.values().map(Pending::summary)).collect(),
        conditions: control.conditions.list(),
        uplink: control.uplink(),
        names: control.names_place.map(Place::word).unwrap_or_default().into(),
    }
}

fn view(control: &Control, network: &Network, packets: &PacketStatus) -> NetworkView {
    let engine = packets.engine.networks.iter().find(|n| n.id == network.id());
    let mut peers: Vec<(NodeId, PeerStatus)> = match engine {
        Some(engine) => engine.peers.iter().map(|p| (p.node, with_last(network, p))).collect(),
        None => Vec::new(),
    };
    peers.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    let sum = |count: fn(&PeerStatus) -> u64| peers.iter().map(|(_, p)| count(p)).sum();
    let status = NetworkStatus {
        // One with which a policy allows nothing answers never, and is missed by nobody.
        peers_total: peers.iter().filter(|(_, p)| p.link_state != LinkState::Denied).count() as u32,
        peers_up: peers.iter().filter(|(_, p)| is_up(p.link_state)).count() as u32,
        rx_bytes: sum(|p| p.rx_bytes),
        tx_bytes: sum(|p| p.tx_bytes),
        candidates: engine.map(candidates).unwrap_or_default(),
        relay: engine.map(relay).unwrap_or_default(),
        drops: drops(packets),
        report: report(control, network, packets),
        ..own(control, network)
    };
    NetworkView { status, on_demand: network.holds().is_some(), peers }
}

/// The last measurement, with what is known at any time.
pub fn report(control: &Control, network: &Network, packets: &PacketStatus) -> NetworkReport {
    let engine = packets.engine.networks.iter().find(|n| n.id == network.id());
    let mut report = NetworkReport {
        udp_port: control.udp_port.into(),
        candidates: engine.map(candidates).unwrap_or_default(),
        relay: engine.map(relay).unwrap_or_default(),
        ..network.report.clone()
    };
    control.port_mapping.show(&mut report);
    report
}

/// What is known without the engine.
fn own(control: &Control, network: &Network) -> NetworkStatus {
    let identity = &network.membership.identity;
    let map = network.membership.map.as_ref();
    let plan = network.plan(Vec::new());
    let addresses = plan.map(|plan| plan.addresses).unwrap_or_default();
    NetworkStatus {
        network_id: identity.network.to_string(),
        network: map.map_or(&identity.network_name, |map| &map.network.name).to_string(),
        state: network.state,
        node_id: identity.node.to_string(),
        name: identity.name.to_string(),
        ros_name: identity.name.ros_name(),
        interface: network.interface.as_ref().map(|i| i.name.clone()).unwrap_or_default(),
        addresses: addresses.iter().map(|(ip, length)| format!("{ip}/{length}")).collect(),
        mtu: network
            .interface
            .as_ref()
            .map(|i| i.mtu)
            .or(map.map(|m| m.network.mtu))
            .unwrap_or_default()
            .into(),
        public_key: network.membership.keys.wg_public().to_string(),
        coordinator_state: network.coordinator.state,
        coordinator_url: network.coordinator.url.clone(),
        map_revision: map.map(|map| map.revision.0).unwrap_or_default(),
        udp_port: control.udp_port.into(),
        conditions: network.conditions.list(),
        clock_offset: network.clock_offset(&Look::now()).map(|seconds| seconds as f64),
        certificate_expires: network.membership.certificate.not_after.0 as f64,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        coordinator_version: network.coordinator.version.clone(),
        ros_domain: map.and_then(|map| domains::own(map, identity.node)).map(u32::from),
        ros_domains: map.map(carried).unwrap_or_default(),
        policy_version: enforced(map),
        interface_up_since: network.interface.as_ref().map(|i| i.since),
        ..NetworkStatus::default()
    }
}

fn carried(map: &Snapshot) -> Vec<u32> {
    match domains::carried(map) {
        Domains::All => Vec::new(),
        Domains::Only(domains) => domains.into_iter().map(u32::from).collect(),
    }
}

fn ros_domains(network: &Network, peer: NodeId) -> Vec<u32> {
    let map = network.membership.map.as_ref();
    let found = map.and_then(|map| Some(domains::of(map, map::member(map, peer)?.0)));
    found.into_iter().flatten().map(u32::from).collect()
}

fn candidates(engine: &ria_core::NetworkStatus) -> Vec<String> {
    let kind = |kind| match kind {
        CandidateKind::Host => "host",
        CandidateKind::ServerReflexive => "reflexive",
        CandidateKind::Relayed => "relayed",
    };
    engine.candidates.iter().map(|c| format!("{} {}", kind(c.kind), c.address)).collect()
}

fn relay(engine: &ria_core::NetworkStatus) -> String {
    let bound = engine.relay.as_ref().filter(|relay| relay.relayed.is_some());
    bound.map(|relay| relay.name.clone()).unwrap_or_default()
}

fn drops(packets: &PacketStatus) -> BTreeMap<String, u64> {
    let EngineStatus { drops, .. } = &packets.engine;
    let engine = drops.iter().map(|(reason, count)| (reason.name().to_owned(), count));
    let edges = EDGES.into_iter().zip([
        packets.send_refused,
        packets.send_stale,
        packets.send_full,
        packets.interface_refused,
        packets.interface_full,
        packets.receive_full,
        packets.stream_stale,
        packets.stream_full,
    ]);
    let edges = edges.map(|(name, count)| (name.to_owned(), count));
    engine.chain(edges).filter(|(_, count)| *count > 0).collect()
}

/// Why a path is taken, and what it does not carry.
fn with_size(reason: &str, carries: Option<u16>) -> String {
    match carries {
        None => reason.to_owned(),
        Some(0) => format!("{reason}; it carries no full packets whole, so they go in fragments"),
        Some(size) => {
            format!("{reason}; it carries datagrams of {size} bytes, so full packets go in fragments")
        }
    }
}

/// With the local networks that are reached through the peer.
fn with_networks(network: &Network, peer: NodeId, reason: String) -> String {
    let record =
        network.membership.map.as_ref().and_then(|map| map::member(map, peer)).map(|(_, record)| record);
    let is_network = |prefix: &&Prefix| prefix.length() < prefix.to_net().max_prefix_len();
    let prefixes = record.iter().flat_map(|record| &record.prefixes);
    let networks: Vec<String> = prefixes.filter(is_network).map(ToString::to_string).collect();
    if networks.is_empty() { reason } else { format!("{reason}; gateway to {}", networks.join(", ")) }
}

/// A peer with what happened to its link last.
fn with_last(network: &Network, status: &ria_core::PeerStatus) -> PeerStatus {
    let last = network.last_changes.get(&status.node);
    let told = peer(status);
    let path_reason = match told.kind {
        PeerKind::Gateway => with_networks(network, status.node, told.path_reason),
        PeerKind::Node | PeerKind::Static | PeerKind::Unknown => told.path_reason,
    };
    PeerStatus {
        path_reason,
        last_change: last.map(|last| last.text.clone()),
        last_change_at: last.map(|last| last.at),
        last_gap: last.and_then(|last| last.gap),
        ros_domains: ros_domains(network, status.node),
        ..told
    }
}

fn peer(peer: &ria_core::PeerStatus) -> PeerStatus {
    PeerStatus {
        id: peer.node.to_string(),
        name: peer.name.to_string(),
        ros_name: peer.name.ros_name(),
        kind: match peer.kind {
            MemberKind::Node => PeerKind::Node,
            MemberKind::Static => PeerKind::Static,
            MemberKind::Gateway => PeerKind::Gateway,
        },
        tags: peer.tags.clone(),
        addresses: addresses(&peer.prefixes),
        coordinator_online: peer.online,
        link_state: link_state(peer.link_state),
        path: path_kind(peer.path),
        endpoint: peer.endpoint.map(|e| e.to_string()).unwrap_or_default(),
        relay: peer.relay.clone().unwrap_or_default(),
        path_reason: match &peer.gateway {
            Some(gateway) => format!("behind gateway {gateway}"),
            None => with_size(peer.path_reason, peer.carries),
        },
        mtu: peer.mtu.into(),
        rx_bytes: peer.rx_bytes,
        tx_bytes: peer.tx_bytes,
        rx_packets: Some(peer.rx_packets),
        tx_packets: Some(peer.tx_packets),
        rtt: peer.rtt.map(|rtt| rtt.as_secs_f64()),
        rtt_deviation: peer.rtt_deviation.map(|deviation| deviation.as_secs_f64()),
        loss: peer.loss.map(f64::from),
        handshake_age: peer.handshake_age.map(|age| age.as_secs_f64()),
        local_candidate: peer.candidates.map(|(local, _)| candidate_type(local)),
        remote_candidate: peer.candidates.map(|(_, remote)| candidate_type(remote)),
        clock_offset: peer.clock_offset.map(|clock| clock.seconds),
        clock_error: peer.clock_offset.map(|clock| clock.error),
        participants_seen: u32::try_from(peer.participants_seen).unwrap_or(u32::MAX),
        participants_expected: peer.participants_expected.map(u32::from),
        ..PeerStatus::default()
    }
}

fn candidate_type(of: ria_core::CandidateType) -> CandidateType {
    match of {
        ria_core::CandidateType::Host => CandidateType::Host,
        ria_core::CandidateType::ServerReflexive => CandidateType::ServerReflexive,
        ria_core::CandidateType::PeerReflexive => CandidateType::PeerReflexive,
        ria_core::CandidateType::Relayed => CandidateType::Relayed,
    }
}

/// A peer's own addresses, IPv4 first; what lies behind it is none of them.
fn addresses(prefixes: &[Prefix]) -> Vec<String> {
    let mut own: Vec<_> = prefixes
        .iter()
        .filter(|prefix| prefix.to_net().prefix_len() == prefix.to_net().max_prefix_len())
        .map(Prefix::address)
        .collect();
    own.sort_unstable();
    own.iter().map(ToString::to_string).collect()
}

fn is_up(state: LinkState) -> bool {
    matches!(state, LinkState::Up | LinkState::Degraded)
}

/// Version of the policy that the map has; absent where everything is allowed.
fn enforced(map: Option<&Snapshot>) -> Option<u64> {
    map?.policy.as_ref().filter(|policy| policy.rules.is_some()).map(|policy| policy.version)
}

/// The engine's word as the API's.
pub fn link_state(state: ria_core::LinkState) -> LinkState {
    match state {
        ria_core::LinkState::Idle => LinkState::Idle,
        ria_core::LinkState::Connecting => LinkState::Connecting,
        ria_core::LinkState::Up => LinkState::Up,
        ria_core::LinkState::Degraded => LinkState::Degraded,
        ria_core::LinkState::Lost => LinkState::Lost,
        ria_core::LinkState::Denied => LinkState::Denied,
    }
}

/// The engine's word as the API's.
pub fn path_kind(kind: ria_core::PathKind) -> PathKind {
    match kind {
        ria_core::PathKind::None => PathKind::None,
        ria_core::PathKind::Direct => PathKind::Direct,
        ria_core::PathKind::RelayUdp => PathKind::RelayUdp,
        ria_core::PathKind::RelayTls => PathKind::RelayTls,
    }
}

/// Whether a network in this state has an interface.
pub fn has_interface(state: NetworkState) -> bool {
    state == NetworkState::Up
}
