//! Which multicast groups a network carries beside the discovery of ROS 2.

use std::sync::Arc;

use ria_protocol::id::NetworkId;
use ria_protocol::multicast::MulticastGroups;
use serde_json::json;

use super::SetNetworkError;
use super::urls::now;
use super::writer::Writer;
use crate::audit::{Actor, Event};
use crate::state::Network;

impl Writer {
    /// Changes the groups of a network; what is so already is no change.
    pub(super) async fn set_multicast(
        &mut self,
        id: NetworkId,
        groups: MulticastGroups,
        actor: Actor,
    ) -> Result<Arc<Network>, SetNetworkError> {
        let world = self.world();
        let before = world.networks.get(&id).ok_or(SetNetworkError::NoNetwork)?;
        let groups = Some(groups).filter(|groups| !groups.is_empty());
        if before.info.multicast == groups {
            return Ok(before.clone());
        }
        let text = |groups: &Option<MulticastGroups>| groups.clone().unwrap_or_default().to_string();
        let event = Event {
            time: now(),
            actor,
            action: "network.multicast",
            network: Some(id),
            subject: before.info.name.to_string(),
            detail: json!({ "multicast": text(&groups), "before": text(&before.info.multicast) }),
        };
        let mut changed = Network::clone(before);
        changed.info.multicast = groups;
        let made = self.change(async move |draft| {
            draft.write().network_multicast(&changed.info).await?;
            draft.set_network(changed, &event).await
        });
        made.await?;
        self.world().networks.get(&id).cloned().ok_or(SetNetworkError::NoNetwork)
    }
}
