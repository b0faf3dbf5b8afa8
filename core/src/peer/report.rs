//! A peer's part of the status.

use std::time::Instant;

use ria_protocol::map::CandidateKind;

use super::{Peer, kind};
use crate::engine::status::{CandidateType, PeerStatus};
use crate::map::MapMember;
use crate::path::{Path, choice};

impl Peer {
    /// How both ends of a path are known, once the peer has said where it sees this node.
    pub(super) fn candidate_types(&self, path: &Path) -> Option<(CandidateType, CandidateType)> {
        if path.is_relayed() {
            return Some((CandidateType::Relayed, CandidateType::Relayed));
        }
        let observed = path.observed?;
        let local = self.ice.locals().iter().find(|local| local.address == observed).map(|local| local.kind);
        let remote = self.ice.announced(path.address.socket());
        Some((candidate_type(local), candidate_type(remote)))
    }

    /// Why a direct path is one.
    pub(super) fn direct_reason(&self, path: &Path) -> &'static str {
        use CandidateType::{Host, PeerReflexive};
        match self.candidate_types(path) {
            None => choice::REASON_DIRECT,
            Some((Host, Host)) => choice::REASON_HOST,
            Some((PeerReflexive, _) | (_, PeerReflexive)) => choice::REASON_PEER_REFLEXIVE,
            Some(_) => choice::REASON_PUNCHED,
        }
    }

    /// The peer's status; `relay` is the name of the relay in use.
    pub(crate) fn status(
        &self,
        member: &MapMember,
        relay: Option<&str>,
        mtu: u16,
        now: Instant,
    ) -> PeerStatus {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let path = self.paths.iter().find(|path| Some(path.address) == self.active);
        let session = self.link.has_session();
        PeerStatus {
            node: self.node,
            name: member.name.clone(),
            kind: member.kind,
            tags: member.record.tags.clone(),
            prefixes: member.record.own_prefixes().collect(),
            gateway: None,
            public_key: member.record.wg_key,
            online: self.online,
            link_state: self.link.state,
            path: kind(self.active),
            candidates: path.and_then(|path| self.candidate_types(path)),
            endpoint: self.active.map(crate::path::Address::socket),
            relay: path.filter(|path| path.is_relayed()).and(relay).map(str::to_owned),
            path_reason: self.reason,
            rtt: path.and_then(Path::measured_rtt),
            rtt_deviation: path.and_then(Path::measured_deviation),
            loss: path.map(Path::loss),
            handshake_age: since(self.traffic.handshake.filter(|_| session)),
            silent_for: since(self.link.heard),
            unused_for: since(self.traffic.active),
            rx_bytes: self.traffic.rx_bytes,
            tx_bytes: self.traffic.tx_bytes,
            rx_packets: self.traffic.rx_packets,
            tx_packets: self.traffic.tx_packets,
            mtu,
            carries: self.sizes.is_small().then(|| self.sizes.carries().unwrap_or(0)),
            clock_offset: None,
            participants_seen: 0,
            participants_expected: self.participants,
        }
    }
}

/// One that nobody announced was seen by the other end alone.
fn candidate_type(announced: Option<CandidateKind>) -> CandidateType {
    match announced {
        Some(CandidateKind::Host) => CandidateType::Host,
        Some(CandidateKind::ServerReflexive) => CandidateType::ServerReflexive,
        Some(CandidateKind::Relayed) => CandidateType::Relayed,
        None => CandidateType::PeerReflexive,
    }
}
