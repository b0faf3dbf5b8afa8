//! ICE in the control part: whose a check or an answer is, where this node's own candidates come from, and how what an
//! agent says gets out.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ria_protocol::id::NodeId;
use ria_protocol::map::CandidateKind;

use super::control::{Control, ControlDatagram, Via};
use super::event::Event;
use super::network::Network;
use super::relay::Relay;
use super::slots::PeerId;
use crate::counters::DropReason;
use crate::ice::message::{Class, TransactionId};
use crate::ice::{Datagram, LocalCandidate, Message};
use crate::packet::{self, SocketIndex};
use crate::path::Address;
use crate::path::candidates::usable;

/// Checks of all peers that wait for their answers, and for how long.
const MAX_CHECKS: usize = 4096;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Own candidates of each kind that take part in checks.
const MAX_HOST: usize = 5;
const MAX_REFLEXIVE: usize = 2;

/// Who is who among the messages of ICE.
#[derive(Debug, Default)]
pub(super) struct Checks {
    by_ufrag: BTreeMap<String, PeerId>,
    by_transaction: BTreeMap<TransactionId, PeerId>,
    /// Oldest first.
    order: VecDeque<(Instant, TransactionId)>,
}

impl Checks {
    /// The peer's user name fragment for what it sends is another now.
    pub(super) fn rename(&mut self, peer: PeerId, before: Option<&str>, after: Option<String>) {
        before.map(|before| self.by_ufrag.remove(before));
        after.map(|after| self.by_ufrag.insert(after, peer));
    }

    fn note_sent(&mut self, id: TransactionId, peer: PeerId, now: Instant) {
        self.forget_old(now);
        self.order.push_back((now, id));
        self.by_transaction.insert(id, peer);
    }

    /// What has waited for too long, or is too much, is forgotten.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while let Some((at, id)) = self.order.front() {
            if now.saturating_duration_since(*at) < ANSWER_WITHIN && self.order.len() < MAX_CHECKS {
                return;
            }
            self.by_transaction.remove(id);
            self.order.pop_front();
        }
        // Searches are rare: their memory is given back.
        self.order = VecDeque::new();
    }

    /// Whose message this is.
    fn peer(&self, message: &Message<'_>) -> Option<PeerId> {
        match message.class {
            Class::Request => message.ufrags.and_then(|(own, _)| self.by_ufrag.get(own)).copied(),
            Class::Success | Class::Error => self.by_transaction.get(&message.id).copied(),
        }
    }

    /// Whether this may be ICE's: all checks are, and answers to this node's own.
    pub(super) fn concerns(&self, message: &Message<'_>) -> bool {
        message.class == Class::Request || self.peer(message).is_some()
    }
}

impl Control {
    /// Takes a message of ICE's that came this way.
    pub(super) fn handle_check(
        &mut self,
        (message, bytes): (&Message<'_>, &[u8]),
        via: Via,
        local: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), DropReason> {
        let peer_id = self.checks.peer(message).ok_or(DropReason::Stranger)?;
        if via.network.is_some_and(|network| network != peer_id.0) {
            return Err(DropReason::Stranger);
        }
        let overlays = self.all_overlays();
        // The answer may come when the network has been left.
        let network = self.networks.get_mut(&peer_id.0).ok_or(DropReason::Stranger)?;
        let to = match via.address {
            // Not through the tunnel itself, and not from this very host.
            Address::Direct(from) if !usable(from, &overlays) => None,
            Address::Direct(from) => network.host_address(from, local),
            Address::Relayed(transport, from) => {
                let relay = network.relays.iter().find(|relay| relay.carries(transport, from));
                relay.and_then(|relay| relay.way(transport)?.client.relayed_address())
            }
        };
        let to = to.ok_or(DropReason::Unexpected)?;
        let peer = network.peers.get_mut(&peer_id.1).ok_or(DropReason::Stranger)?;
        let result = peer.handle_check((message, bytes), via.address, to, now);
        self.settle(peer_id, now);
        result
    }

    /// Sends what a peer's agent says.
    pub(super) fn send_check(&mut self, peer: PeerId, datagram: Datagram, now: Instant) {
        let Datagram { from, to, bytes, check } = datagram;
        if let Some(id) = check {
            self.checks.note_sent(id, peer, now);
        }
        let Some(network) = self.networks.get(&peer.0) else { return };
        let relayed = network.relays.iter().find_map(|relay| Some((relay, relay.transport_of(from)?)));
        if let Some((relay, transport)) = relayed {
            // From one relay nothing leads to an allocation on another.
            if relay.carries(transport, to) {
                self.send_relayed(peer.0, (transport, to), (packet::Class::Urgent, &bytes), now);
            }
            return;
        }
        let hosts = network.locals.iter().filter(|local| local.kind == CandidateKind::Host);
        let several = hosts.filter(|local| local.address.is_ipv4() == to.is_ipv4()).count() > 1;
        let from = several.then_some(from.ip());
        let (socket, class) = (SocketIndex::MAIN, packet::Class::Urgent);
        self.outbox.push_back(ControlDatagram { to, from, socket, class, bytes });
    }

    /// Reports where this node is, where that has changed.
    pub(super) fn report_candidates(&mut self, now: Instant) {
        let overlays = self.all_overlays();
        let mut changed = Vec::new();
        for network in self.networks.values_mut() {
            let candidates = network.own_candidates(&self.host, self.mapped, &overlays);
            let reflexive = network.reflexive().into_iter().find(|address| usable(*address, &overlays));
            network.peers.values_mut().for_each(|peer| peer.set_reflexive(reflexive));
            if candidates != network.candidates {
                network.candidates.clone_from(&candidates);
                self.events.push_back(Event::CandidatesChanged { network: network.id, candidates });
            }
            let locals = network.local_candidates();
            if locals != *network.locals {
                network.locals = locals.into();
                changed.push(network.id);
            }
        }
        for id in changed {
            let Some(network) = self.networks.get(&id) else { continue };
            let (nodes, locals): (Vec<NodeId>, _) =
                (network.peers.keys().copied().collect(), Arc::clone(&network.locals));
            for node in nodes {
                self.with_peer((id, node), now, |peer| peer.set_locals(Arc::clone(&locals), now));
            }
        }
    }
}

impl Network {
    /// Own candidates as ICE needs them, from those that are reported.
    fn local_candidates(&self) -> Vec<LocalCandidate> {
        let of_kind =
            |kind| self.candidates.iter().filter(move |own| own.kind == kind).map(|own| own.address);
        let hosts: Vec<SocketAddr> = of_kind(CandidateKind::Host).take(MAX_HOST).collect();
        let host = |address| LocalCandidate { kind: CandidateKind::Host, address, base: address };
        let reflexive = of_kind(CandidateKind::ServerReflexive).take(MAX_REFLEXIVE).filter_map(|address| {
            let base = *hosts.iter().find(|host| host.is_ipv4() == address.is_ipv4())?;
            Some(LocalCandidate { kind: CandidateKind::ServerReflexive, address, base })
        });
        let relayed = of_kind(CandidateKind::Relayed).take(1);
        let relayed =
            relayed.map(|address| LocalCandidate { kind: CandidateKind::Relayed, address, base: address });
        hosts.iter().copied().map(host).chain(reflexive).chain(relayed).collect()
    }

    /// The address of this host at which something from there arrived.
    fn host_address(&self, from: SocketAddr, local: Option<IpAddr>) -> Option<SocketAddr> {
        let mut hosts = self.locals.iter().filter(|own| own.kind == CandidateKind::Host);
        let fits = |own: &&LocalCandidate| match local {
            Some(ip) => own.address.ip() == ip,
            None => own.address.is_ipv4() == from.is_ipv4(),
        };
        hosts.find(fits).map(|own| own.address)
    }
}

impl Relay {
    /// The way to which a relayed address of this node belongs.
    fn transport_of(&self, relayed: SocketAddr) -> Option<crate::relay::Transport> {
        use crate::relay::Transport::{Tls, Udp};
        [Udp, Tls].into_iter().find(|transport| {
            self.way(*transport).is_some_and(|way| way.client.relayed_address() == Some(relayed))
        })
    }
}
