//! Measurements of the network below: one at a time, for whoever asks, and by itself when the network has changed.

use std::net::SocketAddr;
use std::time::Duration;

use ria_api::error::ApiError;
use ria_api::state::{CoordinatorState, LinkState, NetworkReport, PathKind};
use ria_protocol::id::NetworkId;
use ria_protocol::map::{Candidate, CandidateKind, Live, RelayHost};
use tokio::time::Instant;

use super::control::{Control, Input};
use super::handle::Reply;
use super::network::Network;
use super::packets::PacketStatus;
use super::requests::no_such_network;
use super::status;
use crate::coordinator::dial::parse_url;
use crate::coordinator::finding;
use crate::coordinator::tls::{self, Trust};
use crate::netcheck::coordinator::Places;
use crate::netcheck::isolation::Relayed;
use crate::netcheck::{self, Plan, RelayPlace};

/// Peers and relays have found their paths by then, or have not.
const SETTLE: Duration = Duration::from_secs(15);

/// Who waits for a report; nobody, where the agent wants one by itself.
type Asker = Option<Reply<NetworkReport>>;

/// The measurement that runs and those that are wanted.
#[derive(Default)]
pub struct Netchecks {
    running: Option<NetworkId>,
    wanted: Vec<(NetworkId, Asker)>,
    /// When one is due because the network has changed.
    due: Option<Instant>,
}

impl Netchecks {
    /// The network has changed: a measurement is due when it has settled.
    pub fn network_changed(&mut self) {
        self.due = Some(Instant::now() + SETTLE);
    }
}

impl Control {
    /// Somebody wants a report.
    pub(super) async fn netcheck(&mut self, id: NetworkId, reply: Reply<NetworkReport>) {
        let answer = match self.networks.get(&id) {
            Some(network) if network.in_engine => None,
            Some(_) => Some(ApiError::Failed("the network is not up; see ria status".into())),
            None => Some(no_such_network(id)),
        };
        match answer {
            Some(error) => _ = reply.send(Err(error)),
            None => {
                self.netchecks.wanted.push((id, Some(reply)));
                self.start_netcheck().await;
            }
        }
    }

    /// Measures by itself some time after a change.
    pub(super) async fn netcheck_when_due(&mut self, now: Instant) {
        if self.netchecks.due.is_none_or(|at| now < at) {
            return;
        }
        self.netchecks.due = None;
        let up: Vec<NetworkId> = self
            .networks
            .values()
            .filter(|n| n.in_engine && n.interface.is_some())
            .map(Network::id)
            .collect();
        self.netchecks.wanted.extend(up.into_iter().map(|id| (id, None)));
        self.start_netcheck().await;
    }

    async fn start_netcheck(&mut self) {
        let Some((id, by_person)) = self.netchecks.wanted.first().map(|(id, asker)| (*id, asker.is_some()))
        else {
            return;
        };
        if self.netchecks.running.is_some() {
            return;
        }
        let packets = self.packets.status().await.unwrap_or_default();
        let Some(network) = self.networks.get(&id) else { return self.end_netcheck(id, None) };
        let plan = self.netcheck_plan(network, &packets, by_person);
        self.netchecks.running = Some(id);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let report = netcheck::run(plan).await;
            // Only fails while the agent stops.
            let _ = inputs.send(Input::Netchecked(id, Box::new(report)));
        });
    }

    fn netcheck_plan(&self, network: &Network, packets: &PacketStatus, by_person: bool) -> Plan {
        let engine = packets.engine.networks.iter().find(|n| n.id == network.id());
        let coordinator = &network.coordinator;
        // While the stream is open there is no need to find out without being asked to.
        let known = !by_person && coordinator.state == CoordinatorState::Connected;
        Plan {
            relays: relays(network),
            coordinator: (!known).then(|| self.places(network)),
            host: self.host.clone(),
            netlink: self.netlink.clone(),
            port_mapped: self.port_mapping.state.mapped.is_some(),
            reflexive: engine.map(|engine| engine.reflexive.clone()).unwrap_or_default(),
            relayed: engine.map(|engine| relayed(engine, &network.membership.live)).unwrap_or_default(),
        }
    }

    fn places(&self, network: &Network) -> Places {
        let membership = &network.membership;
        let trust = Trust::Authorities(membership.certificate.authorities.clone());
        let leaf = Some(membership.certificate.leaf.as_slice());
        let tls = tls::client_config(trust, membership.contact.time, &membership.keys, leaf);
        Places { reach: self.reach.clone(), urls: finding::urls(membership), tls: tls.ok() }
    }

    /// A measurement has ended.
    pub(super) async fn handle_netchecked(&mut self, id: NetworkId, report: NetworkReport) {
        self.netchecks.running = None;
        if let Some(network) = self.networks.get_mut(&id) {
            for code in ["client-isolation", "captive-portal"] {
                let found = report.findings.iter().find(|finding| finding.code == code);
                match found {
                    Some(finding) => _ = network.conditions.set(code, finding.severity, finding.text.clone()),
                    None => _ = network.conditions.clear(code),
                }
            }
            network.report = report.clone();
            self.changed = true;
        }
        let packets = self.packets.status().await.unwrap_or_default();
        let whole = self.networks.get(&id).map(|network| status::report(self, network, &packets));
        self.end_netcheck(id, whole);
        Box::pin(self.start_netcheck()).await;
    }

    fn end_netcheck(&mut self, id: NetworkId, report: Option<NetworkReport>) {
        let wanted = std::mem::take(&mut self.netchecks.wanted);
        let (done, rest): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(wanted, _)| *wanted == id);
        self.netchecks.wanted = rest;
        for reply in done.into_iter().filter_map(|(_, asker)| asker) {
            // Whoever asked may have gone away.
            let _ = reply.send(report.clone().ok_or_else(|| no_such_network(id)));
        }
    }
}

/// By which names and addresses each relay is found.
fn relays(network: &Network) -> Vec<RelayPlace> {
    let contact = &network.membership.contact;
    let coordinator = || {
        let name = contact.reached.as_deref().and_then(parse_url).map(|(host, _)| host);
        contact.address.map(|ip| ip.to_string()).into_iter().chain(name).collect()
    };
    let place = |relay: &ria_protocol::map::Relay| RelayPlace {
        name: relay.name.clone(),
        hosts: match &relay.host {
            RelayHost::Coordinator => coordinator(),
            RelayHost::Name(name) => vec![name.clone()],
        },
        port: relay.udp_port,
    };
    contact.relays.iter().map(place).collect()
}

/// Peers that work, but not directly.
fn relayed(engine: &ria_core::NetworkStatus, live: &[Live]) -> Vec<Relayed> {
    let works = |peer: &&ria_core::PeerStatus| {
        matches!(status::link_state(peer.link_state), LinkState::Up | LinkState::Degraded)
            && matches!(status::path_kind(peer.path), PathKind::RelayUdp | PathKind::RelayTls)
    };
    let describe = |peer: &ria_core::PeerStatus| {
        let live = live.iter().find(|live| live.node == peer.node)?;
        let of = |kind| live.candidates.iter().filter(move |c| c.kind == kind).map(address);
        let host: Vec<SocketAddr> = of(CandidateKind::Host).collect();
        let outer = of(CandidateKind::ServerReflexive).map(|address| address.ip());
        let outer = outer.filter(|ip| !host.iter().any(|own| own.ip() == *ip)).collect();
        Some(Relayed { name: peer.name.to_string(), host, outer })
    };
    engine.peers.iter().filter(works).filter_map(describe).collect()
}

fn address(candidate: &Candidate) -> SocketAddr {
    candidate.address
}
