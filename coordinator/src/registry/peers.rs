//! Of whom the members of a network are told.

use std::sync::Arc;

use ria_protocol::demand::PeerMode;
use ria_protocol::id::NetworkId;
use serde_json::json;

use super::SetNetworkError;
use super::urls::now;
use super::writer::Writer;
use crate::audit::{Actor, Event};
use crate::state::Network;

impl Writer {
    /// Changes the mode of a network; what is so already is no change.
    pub(super) async fn set_peers(
        &mut self,
        id: NetworkId,
        mode: PeerMode,
        actor: Actor,
    ) -> Result<Arc<Network>, SetNetworkError> {
        let world = self.world();
        let network = world.networks.get(&id).ok_or(SetNetworkError::NoNetwork)?;
        let before = network.info.peers.unwrap_or_default();
        if before == mode {
            return Ok(network.clone());
        }
        let event = Event {
            time: now(),
            actor,
            action: "network.peers",
            network: Some(id),
            subject: network.info.name.to_string(),
            detail: json!({ "peers": mode, "before": before }),
        };
        let mut changed = Network::clone(network);
        changed.info.peers = stored(mode);
        let made = self.change(async move |draft| {
            draft.write().network_peers(&changed.info).await?;
            draft.set_network(changed, &event).await
        });
        made.await?;
        self.world().networks.get(&id).cloned().ok_or(SetNetworkError::NoNetwork)
    }
}

/// What is usual is not said, so that nothing changes for networks and agents from before.
pub(super) fn stored(mode: PeerMode) -> Option<PeerMode> {
    Some(mode).filter(|mode| *mode != PeerMode::Push)
}
