//! What was changed on a node itself, kept in the audit log. Nothing follows from it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::requester::{LocalChange, LocalDeed};
use ria_protocol::time::UnixTime;
use serde_json::json;

use super::Unavailable;
use super::writer::Writer;
use crate::audit::{Actor, Event};
use crate::person::Reported;

/// Rows that one node may write in an hour: a member must not be able to fill the disk.
const PER_HOUR: u32 = 30;
const HOUR: Duration = Duration::from_secs(3600);

/// Counts the rows of each node.
#[derive(Debug, Default)]
pub(super) struct RowLimiter(BTreeMap<NodeId, (Instant, u32)>);

impl RowLimiter {
    /// Whether this node may write another one now.
    pub(super) fn allows(&mut self, node: NodeId, now: Instant) -> bool {
        self.0.retain(|_, (since, _)| now.duration_since(*since) < HOUR);
        let (_, count) = self.0.entry(node).or_insert((now, 0));
        *count += 1;
        *count <= PER_HOUR
    }
}

impl Writer {
    pub(super) async fn note_local_change(
        &mut self,
        network: NetworkId,
        node: NodeId,
        change: &LocalChange,
    ) -> Result<(), Unavailable> {
        let action = match change.deed {
            LocalDeed::SwitchedOff => "node.switched-off",
            LocalDeed::SwitchedOn => "node.switched-on",
            LocalDeed::AskedForKey => "node.asked-for-key",
            LocalDeed::SetUrl => "node.set-url",
            // Noted with the removal that follows.
            LocalDeed::Left => return Ok(()),
        };
        let world = self.world();
        let member = world.networks.get(&network).and_then(|network| network.members.get(&node));
        let Some(member) = member else { return Ok(()) };
        if !self.row_limiter.allows(node, Instant::now()) {
            tracing::debug!(%node, "a node tells more than is noted");
            return Ok(());
        }
        let event = Event {
            time: UnixTime::from(SystemTime::now()),
            actor: Actor::NodeFor(node, Reported::of_change(change)),
            action,
            network: Some(network),
            subject: member.name.to_string(),
            detail: json!({ "node": node }),
        };
        Ok(self.change(async move |draft| draft.audit(&event).await).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_fills_no_log_and_hinders_no_other() {
        let (mut limiter, now) = (RowLimiter::default(), Instant::now());
        let (a, b) = (NodeId::from_bytes([1; 10]), NodeId::from_bytes([2; 10]));
        let allowed = (0..1000).filter(|_| limiter.allows(a, now)).count();
        assert_eq!(allowed, PER_HOUR as usize);
        assert!(limiter.allows(b, now));
        assert!(limiter.allows(a, now + HOUR));
    }
}
