//! A peer's part of the status.

use std::time::Instant;

use super::{Peer, kind};
use crate::engine::status::PeerStatus;
use crate::map::MapMember;

impl Peer {
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
            endpoint: self.active.map(crate::path::Address::socket),
            relay: path.filter(|path| path.is_relayed()).and(relay).map(str::to_owned),
            path_reason: self.reason,
            rtt: path.and_then(crate::path::Path::measured_rtt),
            loss: path.map(crate::path::Path::loss),
            handshake_age: since(self.traffic.handshake.filter(|_| session)),
            silent_for: since(self.link.heard),
            rx_bytes: self.traffic.rx_bytes,
            tx_bytes: self.traffic.tx_bytes,
            rx_packets: self.traffic.rx_packets,
            tx_packets: self.traffic.tx_packets,
            mtu,
        }
    }
}
