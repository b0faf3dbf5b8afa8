//! Static peers: devices with stock WireGuard that are members without ever talking to the coordinator.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::keys::{PresharedKey, WgPublicKey};
use ria_protocol::map::{Member, MemberKind, StockPeer, SubnetRoute};
use ria_protocol::name::Name;
use ria_protocol::prefix::Prefix;
use ria_protocol::record::{MemberRecord, SignedRecord};
use ria_protocol::time::UnixTime;

use super::{MemberEntry, Network};

/// A static peer. Its private key is the device's own affair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticEntry {
    pub node: NodeId,
    pub name: Name,
    pub wg_key: WgPublicKey,
    pub address_v4: Ipv4Addr,
    pub address_v6: Ipv6Addr,
    pub tags: Vec<String>,
    pub psk: Option<PresharedKey>,
    /// The member that forwards for it; absent when all members talk to it themselves.
    pub gateway: Option<NodeId>,
    /// Where it listens, when that is known.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between the keepalives that its file has it send.
    pub keepalive: Option<u16>,
    pub created: UnixTime,
}

impl StaticEntry {
    fn prefixes(&self) -> [Prefix; 2] {
        [Prefix::host(self.address_v4.into()), Prefix::host(self.address_v6.into())]
    }

    /// As the map lists it for those who do not talk to it themselves: without its pre-shared key.
    pub fn to_member(&self, network: NetworkId) -> Member {
        let record = MemberRecord {
            network,
            node: self.node,
            wg_key: self.wg_key,
            prefixes: self.prefixes().to_vec(),
            tags: self.tags.clone(),
            expires: None,
        };
        Member {
            record: SignedRecord::unsigned(&record),
            name: self.name.clone(),
            kind: MemberKind::Static,
            stock: Some(StockPeer {
                gateway: self.gateway,
                psk: None,
                endpoint: self.endpoint,
                keepalive: self.keepalive,
            }),
            ros_domain: None,
            routes: None,
        }
    }

    /// Whether a member talks to it itself, and so has to know its pre-shared key.
    pub fn is_talked_to_by(&self, node: NodeId) -> bool {
        self.gateway.is_none_or(|gateway| gateway == node)
    }
}

impl Network {
    /// The static peers behind a member.
    pub fn behind(&self, gateway: NodeId) -> impl Iterator<Item = &Arc<StaticEntry>> {
        self.static_peers.values().filter(move |peer| peer.gateway == Some(gateway))
    }

    /// A member as the map lists it: with the addresses that it forwards for behind its own.
    pub fn listed(&self, member: &MemberEntry) -> Member {
        let routes: Vec<SubnetRoute> = self.routed_by(member.node).collect();
        let stock = self.behind(member.node).flat_map(|peer| peer.prefixes());
        let prefixes = stock.chain(routes.iter().map(|route| route.prefix)).collect();
        let listed = member.to_member(self.info.id, prefixes);
        Member { routes: Some(routes).filter(|routes| !routes.is_empty()), ..listed }
    }

    /// Whether a member or a static peer has this key.
    pub fn has_key(&self, key: &WgPublicKey) -> bool {
        self.members.values().any(|member| member.wg_key == *key)
            || self.static_peers.values().any(|peer| peer.wg_key == *key)
    }

    /// The static peer of this name.
    pub fn static_named(&self, name: &Name) -> Option<&Arc<StaticEntry>> {
        self.static_peers.values().find(|peer| &peer.name == name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn static_peer(number: u8, name: &str, gateway: Option<NodeId>) -> Arc<StaticEntry> {
        Arc::new(StaticEntry {
            node: NodeId::from_bytes([number; 10]),
            name: name.parse().unwrap(),
            wg_key: WgPublicKey([number; 32]),
            address_v4: Ipv4Addr::new(10, 213, 0, number),
            address_v6: Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0, 0, 0, number.into()),
            tags: Vec::new(),
            psk: Some(PresharedKey([42; 32])),
            gateway,
            endpoint: None,
            keepalive: Some(25),
            created: UnixTime(1000),
        })
    }
}
