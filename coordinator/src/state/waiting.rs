//! Nodes that wait for an administrator's approval.

use std::net::IpAddr;
use std::time::Duration;

use ria_protocol::enrol::fingerprint;
use ria_protocol::id::{KeyId, NodeId};
use ria_protocol::keys::{SpkiHash, WgPublicKey};
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;

use super::Network;

/// Nodes that may wait in one network, rejected ones not counted.
pub const MOST_WAITING: usize = 256;

/// Rejected nodes that are remembered in one network.
pub const MOST_REJECTED: usize = 256;

/// A node that was not heard of for this long does not wait any more.
pub const WAITING_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// A node that waits, or was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingEntry {
    /// The identity that it will have.
    pub node: NodeId,
    /// The name that it would like.
    pub name: Name,
    /// Whether a person chose that name.
    pub name_required: bool,
    pub wg_key: WgPublicKey,
    pub tls_key: SpkiHash,
    pub join_key: KeyId,
    pub asked: UnixTime,
    pub heard: UnixTime,
    /// When an administrator said no.
    pub rejected: Option<UnixTime>,
    /// Whether it is a member whose time has ended.
    pub former: bool,
    /// From where it asked, for people.
    pub address: IpAddr,
    pub agent_version: String,
}

impl WaitingEntry {
    /// What people compare on both sides.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.tls_key, &self.wg_key)
    }

    /// When it is forgotten unless it is heard of before.
    pub fn expires(&self) -> UnixTime {
        self.heard.plus(WAITING_LIFETIME)
    }
}

impl Network {
    /// How many nodes wait.
    pub fn count_waiting(&self) -> usize {
        self.waiting.values().filter(|w| w.rejected.is_none()).count()
    }

    /// The name that a waiting node will have.
    pub fn name_for(&self, entry: &WaitingEntry) -> Name {
        match self.members.get(&entry.node) {
            Some(member) => member.name.clone(),
            None => self.free_name(&entry.name),
        }
    }

    /// Waiting nodes that nobody needs to remember: not heard of for too long, or rejected long ago with many others.
    pub fn stale_waiting(&self, now: UnixTime) -> Vec<NodeId> {
        let mut rejected: Vec<_> =
            self.waiting.values().filter_map(|w| w.rejected.map(|at| (at, w.node))).collect();
        rejected.sort_unstable();
        let too_many = rejected.len().saturating_sub(MOST_REJECTED);
        let unheard = self.waiting.values().filter(|w| w.expires() <= now).map(|w| w.node);
        let mut stale: Vec<NodeId> =
            unheard.chain(rejected.into_iter().take(too_many).map(|(_, node)| node)).collect();
        stale.sort_unstable();
        stale.dedup();
        stale
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::network;
    use super::*;

    fn entry(number: u16, heard: u64, rejected: Option<u64>) -> Arc<WaitingEntry> {
        let [high, low] = number.to_be_bytes();
        Arc::new(WaitingEntry {
            node: NodeId::from_bytes([high, low, 0, 0, 0, 0, 0, 0, 0, 0]),
            name: "robot".parse().unwrap(),
            name_required: false,
            wg_key: WgPublicKey([low; 32]),
            tls_key: SpkiHash([low; 32]),
            join_key: KeyId::from_bytes([0; 5]),
            asked: UnixTime(heard),
            heard: UnixTime(heard),
            rejected: rejected.map(UnixTime),
            former: false,
            address: "192.0.2.1".parse().unwrap(),
            agent_version: String::new(),
        })
    }

    #[test]
    fn who_is_not_heard_of_is_forgotten_and_so_is_who_was_rejected_long_ago_among_many() {
        let mut network = network();
        let add = |network: &mut Network, w: Arc<WaitingEntry>| network.waiting.insert(w.node, w);
        add(&mut network, entry(1, 1000, None));
        add(&mut network, entry(2, 5000, None));
        let lifetime = WAITING_LIFETIME.as_secs();
        assert_eq!(network.stale_waiting(UnixTime(1000 + lifetime - 1)), []);
        assert_eq!(network.stale_waiting(UnixTime(1000 + lifetime)), [entry(1, 0, None).node]);
        for n in 0..=u16::try_from(MOST_REJECTED).unwrap() {
            add(&mut network, entry(100 + n, 5000, Some(2000 + u64::from(n))));
        }
        assert_eq!(network.stale_waiting(UnixTime(6000)), [entry(100, 0, None).node], "the oldest one");
        assert_eq!(network.count_waiting(), 2);
    }
}
