//! Changes of keys: a member's WireGuard key, and the certification authority.

use std::sync::Arc;
use std::time::SystemTime;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::Patch;
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::writer::Writer;
use super::{META_CA, RotateKeyError, Unavailable};
use crate::audit::{Actor, Event};
use crate::state::{MemberEntry, Network};
use crate::tls::authority::Authority;

impl Writer {
    /// Rotating to the key that the member has already changes nothing: it did not hear of its success.
    pub(super) async fn rotate_key(
        &mut self,
        network: NetworkId,
        node: NodeId,
        wg_key: WgPublicKey,
    ) -> Result<(), RotateKeyError> {
        let world = self.world();
        let network = world.networks.get(&network).ok_or(RotateKeyError::NoNode)?;
        let member = network.members.get(&node).ok_or(RotateKeyError::NoNode)?;
        if member.wg_key == wg_key {
            return Ok(());
        }
        if network.has_key(&wg_key) {
            return Err(RotateKeyError::Taken);
        }
        let id = network.info.id;
        let event = Event {
            time: UnixTime::from(SystemTime::now()),
            actor: Actor::Node(node),
            action: "node.key-rotated",
            network: Some(id),
            subject: member.name.to_string(),
            detail: json!({
                "node": node,
                "before": member.wg_key,
                "wg_key": wg_key,
                // Their files name the key before.
                "static_peers": network.behind(node).map(|peer| &peer.name).collect::<Vec<_>>(),
            }),
        };
        let member = Arc::new(MemberEntry { wg_key, ..MemberEntry::clone(member) });
        let mut changed = Network::clone(network);
        let patch = Patch::MemberSet(network.listed(&member));
        changed.members.insert(node, member.clone());
        let made = self.change(async move |draft| {
            draft.write().wg_key(id, &member).await?;
            draft.change_network(changed, vec![patch]).await?;
            draft.audit(&event).await
        });
        Ok(made.await?)
    }

    /// The authority's files are written before: a database that still names the one before it is brought up to date at
    /// the next start.
    pub(super) async fn note_authority(
        &mut self,
        authority: &Authority,
        event: &Event,
    ) -> Result<(), Unavailable> {
        let pin = authority.pin().to_string();
        let made = self.change(async move |draft| {
            draft.write().meta(META_CA, &pin).await?;
            draft.audit(event).await
        });
        Ok(made.await?)
    }
}
