//! Changes of WireGuard keys, this node's own and its peers': paths stay, and sessions are handed over.

use std::time::Instant;

use ria_protocol::id::{NetworkId, NodeId};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::command::CommandError;
use super::control::Control;
use super::slots::PeerId;
use crate::path::probe::PairKeys;
use crate::peer::stock::Role;
use crate::shard::message::ShardCommand;

impl Control {
    /// This node has another key in a network. The map that says so follows.
    pub(super) fn set_private_key(
        &mut self,
        id: NetworkId,
        private_key: &Zeroizing<[u8; 32]>,
        now: Instant,
    ) -> Result<(), CommandError> {
        self.network(id)?;
        let sessions = self.factory.network(private_key);
        let network = self.network(id)?;
        network.private = StaticSecret::from(**private_key);
        network.public = sessions.public_key();
        network.sessions = sessions;
        let nodes: Vec<NodeId> = network.peers.keys().copied().collect();
        for node in nodes {
            self.rekey_peer((id, node), now);
        }
        self.set_routes(id);
        Ok(())
    }

    /// The keys of a pair, or the way to talk to a peer, are others now. Between agents only the keys change; else the
    /// peer is made anew.
    pub(super) fn rekey_peer(&mut self, (id, node): PeerId, now: Instant) {
        if self.try_to_rekey((id, node)) {
            self.settle((id, node), now);
        } else {
            self.remove_peer((id, node), now);
            self.add_peer((id, node), now);
        }
    }

    fn try_to_rekey(&mut self, (id, node): PeerId) -> bool {
        let Some(network) = self.networks.get_mut(&id) else { return false };
        let Some(member) = network.map.member(node) else { return false };
        let (key, role) = (member.record.wg_key, Role::of(member, network.node));
        let Some(peer) = network.peers.get_mut(&node) else { return false };
        let taken = network.by_key.get(&key).is_some_and(|owner| *owner != node);
        if role != Role::Agent || *peer.role() != role || taken {
            return false;
        }
        let Some(keys) = PairKeys::derive(id, &network.private, &key) else { return false };
        let Some(conduct) = role.conduct(network.public < key) else { return false };
        self.tags.remove(&peer.tag_in());
        peer.rekey(network.public, key, keys);
        self.tags.insert(peer.tag_in(), (id, node));
        network.by_key.retain(|_, owner| *owner != node);
        network.by_key.insert(key, node);
        let (slot, session) = (peer.slot, network.sessions.session(&key, role.psk(), peer.slot));
        self.to_shard.push_back(ShardCommand::Rekey { slot, session, conduct });
        true
    }
}
