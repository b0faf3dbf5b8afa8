//! Whether a member may take part: administrators disable and enable it.
//!
//! A disabled member keeps its row, name and addresses. To the others it is gone: they are told the same as when it is
//! removed, so every agent that can be removed can be disabled, and nothing of it is left in any map.

use std::sync::Arc;
use std::time::SystemTime;

use ria_protocol::map::Patch;
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::writer::Writer;
use super::{NodeStanding, SetNodeEnabledError};
use crate::audit::{Actor, Event};
use crate::state::{MemberEntry, Network};

impl Writer {
    pub(super) async fn set_node_enabled(
        &mut self,
        standing: NodeStanding,
        actor: Actor,
    ) -> Result<Arc<MemberEntry>, SetNodeEnabledError> {
        let NodeStanding { network, node, enabled } = standing;
        let world = self.world();
        let network = world.networks.get(&network).ok_or(SetNodeEnabledError::NoNode)?;
        let member = network.members.get(&node).ok_or(SetNodeEnabledError::NoNode)?;
        if member.is_active() == enabled {
            return Ok(member.clone());
        }
        let now = UnixTime::from(SystemTime::now());
        let changed = MemberEntry { disabled: (!enabled).then_some(now), ..MemberEntry::clone(member) };
        let changed = Arc::new(changed);
        let event = Event {
            time: now,
            actor,
            action: if enabled { "node.enabled" } else { "node.disabled" },
            network: Some(network.info.id),
            subject: member.name.to_string(),
            detail: json!({ "node": node }),
        };
        let patch =
            if enabled { Patch::MemberSet(network.listed(&changed)) } else { Patch::MemberRemoved(node) };
        let mut next = Network::clone(network);
        next.members.insert(node, changed.clone());
        let stored = changed.clone();
        let made = self.change(async move |draft| {
            draft.write().member_disabled(next.info.id, &stored).await?;
            draft.change_network(next, vec![patch]).await?;
            draft.audit(&event).await
        });
        made.await?;
        Ok(changed)
    }
}
