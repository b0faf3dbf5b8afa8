//! Nodes that are connected to other coordinators on the same database, as those tell of them.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::{Candidate, Live};
use ria_protocol::time::UnixTime;
use ria_protocol::version::Protocol;
use tokio::sync::{mpsc, oneshot};

use super::{Command, Hub, HubGone, NodeKey, Owner, Presence, live};
use crate::store::Instance;

/// What one coordinator tells the others of a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Told {
    #[n(0)]
    pub live: Live,
    /// Its session has just begun: one that it had elsewhere is over.
    #[n(1)]
    pub began: bool,
    #[n(2)]
    pub heard: UnixTime,
    #[n(3)]
    pub agent_version: String,
    #[n(4)]
    pub protocol: u16,
    #[n(5)]
    pub from: String,
}

/// News of nodes for the other coordinators.
pub type Report = (NetworkId, Vec<Told>);

impl Told {
    pub(super) fn new(node: NodeId, presence: &Presence, began: bool) -> Self {
        Self {
            live: live(node, presence),
            began,
            heard: presence.last_contact,
            agent_version: presence.agent_version.clone(),
            protocol: presence.protocol.number(),
            from: presence.from.to_string(),
        }
    }

    fn presence(self) -> Option<Presence> {
        Some(Presence {
            online: self.live.online,
            boot: self.live.boot,
            candidates: self.live.candidates,
            last_contact: self.heard,
            acked: None,
            agent_version: self.agent_version,
            protocol: Protocol::known(self.protocol).unwrap_or(Protocol::NEWEST),
            from: self.from.parse().ok()?,
            cloned: None,
            clock_offset: None,
        })
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Remotes(BTreeMap<NodeKey, (Instance, Presence)>);

impl Remotes {
    /// Takes what a coordinator tells of a node; says whether that is anything new.
    pub fn handle_told(&mut self, by: Instance, key: NodeKey, told: Told) -> bool {
        let known = self.0.get(&key);
        let elsewhere = known.is_some_and(|(at, presence)| *at != by && presence.online);
        // That it has left one coordinator says nothing when it is at another by now.
        if elsewhere && !told.live.online {
            return false;
        }
        let Some(mut presence) = told.presence() else { return false };
        if let Some((_, known)) = known {
            if presence.candidates.is_empty() {
                presence.candidates.clone_from(&known.candidates);
            }
            if live(key.1, known) == live(key.1, &presence) {
                return false;
            }
        }
        self.0.insert(key, (by, presence));
        true
    }

    /// A coordinator is gone, and nobody is connected to it any more. Tells of whom that is news.
    pub fn handle_gone(&mut self, gone: Instance) -> Vec<NodeKey> {
        let there = self.0.iter_mut().filter(|(_, (at, presence))| *at == gone && presence.online);
        let mut changed = Vec::new();
        for (key, (_, presence)) in there {
            presence.online = false;
            changed.push(*key);
        }
        changed
    }

    /// The node is connected here now, or is no member any more. Where it was reached before is still worth knowing.
    pub fn take(&mut self, key: NodeKey) -> Vec<Candidate> {
        self.0.remove(&key).map(|(_, presence)| presence.candidates).unwrap_or_default()
    }

    pub fn get(&self, key: NodeKey) -> Option<&Presence> {
        self.0.get(&key).map(|(_, presence)| presence)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NodeKey, &Presence)> {
        self.0.iter().map(|(key, (_, presence))| (key, presence))
    }

    pub fn of(&self, network: NetworkId) -> impl Iterator<Item = Live> {
        self.iter().filter(move |(key, _)| key.0 == network).map(|(key, presence)| live(key.1, presence))
    }

    /// Who is connected to the others.
    pub fn online(&self) -> BTreeSet<NodeKey> {
        self.iter().filter(|(_, presence)| presence.online).map(|(key, _)| *key).collect()
    }
}

impl Hub {
    /// What is known of these members at the moment.
    pub async fn live_of(&self, network: NetworkId, nodes: Vec<NodeId>) -> Result<Vec<Live>, HubGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::LiveOf(network, nodes, reply)).await?;
        answer.await.map_err(|_| HubGone)
    }
}

impl Owner {
    /// What is known of these members, wherever they are connected.
    pub(super) fn live_of(&self, network: NetworkId, nodes: Vec<NodeId>) -> Vec<Live> {
        let here = |node| self.entries.get(&(network, node)).map(|entry| &entry.presence);
        let known = |node| here(node).or_else(|| self.remotes.get((network, node)));
        nodes.into_iter().filter_map(|node| Some(live(node, known(node)?))).collect()
    }

    /// Another coordinator tells of nodes that are connected to it, or were.
    pub(super) fn handle_told(&mut self, by: Instance, network: NetworkId, nodes: Vec<Told>) {
        for told in nodes {
            let node = (network, told.live.node);
            let here = self.entries.get_mut(&node).filter(|entry| entry.presence.online);
            match here {
                Some(entry) if told.began => {
                    // It has gone there; what is left of its connection here is over.
                    if let Some(replace) = entry.replace.take() {
                        let _ = replace.send(());
                    }
                }
                // Nobody knows better than this one who is connected to it.
                Some(_) => continue,
                None => {}
            }
            let online = told.live.online;
            if self.remotes.handle_told(by, node, told) {
                if online {
                    self.entries.remove(&node);
                }
                self.note_change(node);
            }
        }
    }

    /// Another coordinator has come, or may have missed something.
    pub(super) fn tell_all_to_others(&self) {
        let Some(others) = &self.others else { return };
        let mut all: BTreeMap<NetworkId, Vec<Told>> = BTreeMap::new();
        for ((network, node), entry) in self.entries.iter().filter(|(_, entry)| entry.presence.online) {
            all.entry(*network).or_default().push(Told::new(*node, &entry.presence, false));
        }
        all.into_iter().for_each(|(network, told)| tell_others(others, network, told));
    }
}

/// What others miss because they can't be reached at the moment, they are told with all the rest afterwards.
pub(super) fn tell_others(others: &mpsc::Sender<Report>, network: NetworkId, told: Vec<Told>) {
    if !told.is_empty() && others.try_send((network, told)).is_err() {
        tracing::debug!("the other coordinators are not told something of nodes that are connected here");
    }
}

/// What is known of nodes elsewhere, by itself, for who only hears.
#[cfg(any(test, feature = "fuzz"))]
#[derive(Debug, Default)]
pub struct Heard(Remotes);

#[cfg(any(test, feature = "fuzz"))]
impl Heard {
    /// One tells of a node: said twice, it is news at most once.
    pub fn tell(&mut self, by: Instance, network: NetworkId, told: Told) {
        let key = (network, told.live.node);
        self.0.handle_told(by, key, told.clone());
        assert!(!self.0.handle_told(by, key, told), "a repeat is no news");
    }

    /// One is gone: nobody is connected to it any more.
    pub fn end(&mut self, gone: Instance) {
        let changed = self.0.handle_gone(gone);
        let online = self.0.online();
        assert!(changed.iter().all(|key| !online.contains(key) && self.0.get(*key).is_some()));
        assert!(self.0.handle_gone(gone).is_empty());
    }
}

#[cfg(test)]
mod tests {
    use ria_protocol::id::BootId;

    use super::*;

    fn told(online: bool, boot: u8) -> Told {
        let live = Live {
            node: NodeId::from_bytes([1; 10]),
            online,
            boot: Some(BootId::from_bytes([boot; 10])),
            candidates: Vec::new(),
        };
        let from = "192.0.2.7".to_owned();
        Told { live, began: online, heard: UnixTime(5), agent_version: "1".into(), protocol: 2, from }
    }

    #[test]
    fn a_node_is_where_it_was_said_to_have_come_last() {
        let key = (NetworkId::from_bytes([9; 10]), NodeId::from_bytes([1; 10]));
        let [a, b] = [1, 2].map(|n| Instance::from_bytes([n; 10]));
        let mut remotes = Remotes::default();
        assert!(remotes.handle_told(a, key, told(true, 1)));
        assert!(!remotes.handle_told(a, key, told(true, 1)), "a repeat is no news");
        assert!(remotes.handle_told(b, key, told(true, 2)));
        assert!(!remotes.handle_told(a, key, told(false, 1)), "it is at the other one by now");
        assert!(remotes.handle_gone(a).is_empty());
        assert_eq!(remotes.online(), [key].into());
        assert_eq!(remotes.handle_gone(b), [key]);
        assert!(remotes.online().is_empty() && remotes.get(key).is_some());
        remotes.take(key);
        assert!(remotes.get(key).is_none());
    }
}
