//! The control part of on-demand networks: the shard is told where members may be, and where nobody is.

use std::net::IpAddr;

use ria_protocol::id::NetworkId;
use ria_protocol::map::NetworkInfo;

use super::command::CommandError;
use super::control::Control;
use crate::shard::message::ShardCommand;

impl Control {
    /// In an on-demand network the shard says whom there is something to say to.
    pub(super) fn set_wanted(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get(&id) else { return };
        let on_demand = network.map.info().is_some_and(NetworkInfo::is_on_demand);
        let prefixes = if on_demand { network.overlays().collect() } else { Vec::new() };
        self.to_shard.push_back(ShardCommand::SetWanted { network: id, prefixes });
    }

    /// Nobody has this address whom this node may have to do with.
    pub(super) fn set_absent(&mut self, network: NetworkId, address: IpAddr) -> Result<(), CommandError> {
        self.network(network)?;
        self.to_shard.push_back(ShardCommand::SetAbsent { network, address });
        Ok(())
    }
}
