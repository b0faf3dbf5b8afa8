//! Whether a member may take part: administrators disable and enable it, and it lapses when it is not heard of for too
//! long.
//!
//! A disabled member keeps its row, name and addresses. To the others it is gone: they are told the same as when it is
//! removed, so every agent that can be removed can be disabled, and nothing of it is left in any map.

use std::sync::Arc;
use std::time::SystemTime;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::Patch;
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::writer::Writer;
use super::{NodeStanding, SetNodeEnabledError, Unavailable};
use crate::audit::{Actor, Event};
use crate::state::etag::NodeChanged;
use crate::state::{MemberEntry, Network};
use crate::store::StoreError;

impl Writer {
    pub(super) async fn set_node_enabled(
        &mut self,
        standing: NodeStanding,
        actor: Actor,
    ) -> Result<Arc<MemberEntry>, SetNodeEnabledError> {
        let NodeStanding { network, node, enabled, seen } = standing;
        let world = self.world();
        let network = world.networks.get(&network).ok_or(SetNodeEnabledError::NoNode)?;
        let member = network.members.get(&node).ok_or(SetNodeEnabledError::NoNode)?;
        NodeChanged::check(seen.as_ref(), member)?;
        if member.disabled.is_none() == enabled {
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
        self.store_standing(network, &changed, &event).await?;
        Ok(changed)
    }

    /// Takes members out of the maps that were not heard of for too long, and puts those back for whom that holds no
    /// longer (the coordinator's clock was wrong). Who is connected is heard of, whatever was stored last.
    pub(super) async fn sweep_lapsed(&mut self, online: Vec<(NetworkId, NodeId)>) -> Result<(), Unavailable> {
        let (world, now) = (self.world(), UnixTime::from(SystemTime::now()));
        for (id, network) in &world.networks {
            for member in network.members.values() {
                let over = member.expires(network.membership) <= now && !online.contains(&(*id, member.node));
                if over == member.lapsed.is_some() {
                    continue;
                }
                let changed = MemberEntry { lapsed: over.then_some(now), ..MemberEntry::clone(member) };
                let event = Event {
                    time: now,
                    actor: Actor::Coordinator,
                    action: if over { "node.lapsed" } else { "node.returned" },
                    network: Some(*id),
                    subject: member.name.to_string(),
                    detail: json!({ "node": member.node, "last_contact": member.last_contact }),
                };
                // One after the other: each begins with what the one before has made of the network.
                let Some(latest) = self.world().networks.get(id).cloned() else { continue };
                let changed = Arc::new(changed);
                self.store_standing(&latest, &changed, &event).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn store_standing(
        &mut self,
        network: &Arc<Network>,
        member: &Arc<MemberEntry>,
        event: &Event,
    ) -> Result<(), StoreError> {
        let id = network.info.id;
        let patch = if member.is_active() {
            Patch::MemberSet(network.listed(member))
        } else {
            Patch::MemberRemoved(member.node)
        };
        let mut next = Network::clone(network);
        next.members.insert(member.node, member.clone());
        self.change(async move |draft| {
            draft.write().member_standing(id, member).await?;
            draft.change_network(next, vec![patch]).await?;
            draft.audit(event).await
        })
        .await
    }
}
