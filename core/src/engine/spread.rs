//! Which shard a peer is in, and what all shards are told.
//!
//! A peer goes to the shard with the fewest. Only where this node talks to stock peers are all peers of the network in the
//! first shard: packets pass from one peer to another there, which both have to be in one.

use std::time::Instant;

use ria_protocol::id::{NetworkId, NodeId};

use super::command::CommandError;
use super::control::Control;
use super::slots::{Place, Slots};
use crate::filter::Filter;
use crate::peer::stock::Role;
use crate::shard::message::{ShardCommand, shard_of};

impl Control {
    /// Peers are spread over so many shards.
    pub(super) fn spread(&mut self, shards: usize) {
        self.slots = Slots::new(shards);
    }

    /// Where a new peer of a network may be.
    pub(super) fn place(&self, id: NetworkId) -> Place {
        let has_stock = self.networks.get(&id).is_some_and(|network| network.has_stock);
        if has_stock { Place::First } else { Place::Any }
    }

    /// The map has changed: notes whether there are stock peers that this node talks to.
    pub(super) fn note_stock(&mut self, id: NetworkId) {
        if self.slots.shards() > 1
            && let Some(network) = self.networks.get_mut(&id)
        {
            let mut roles = network.map.members().map(|(_, member)| Role::of(member, network.node));
            network.has_stock = roles.any(|role| matches!(role, Role::Stock(_)));
        }
    }

    /// Makes those peers anew that are not in the first shard and have to be now. It happens once, when the first stock peer
    /// is there.
    pub(super) fn gather(&mut self, id: NetworkId, now: Instant) {
        if self.place(id) == Place::Any {
            return;
        }
        let Some(network) = self.networks.get(&id) else { return };
        let elsewhere = network.peers.values().filter(|peer| shard_of(peer.slot) != 0);
        let nodes: Vec<NodeId> = elsewhere.map(|peer| peer.node).collect();
        for node in nodes {
            self.remove_peer((id, node), now);
            self.add_peer((id, node), now);
        }
    }

    /// What concerns packets alone.
    pub(super) fn pass_on(&mut self, network: NetworkId, command: ShardCommand) -> Result<(), CommandError> {
        self.network(network)?;
        self.to_shard.push_back(command);
        Ok(())
    }

    pub(super) fn set_filter(
        &mut self,
        network: NetworkId,
        filter: impl Fn() -> Box<dyn Filter>,
    ) -> Result<(), CommandError> {
        self.network(network)?;
        for shard in 0..self.slots.shards() {
            self.to_shard.push_back(ShardCommand::SetFilter { shard, network, filter: filter() });
        }
        Ok(())
    }
}
