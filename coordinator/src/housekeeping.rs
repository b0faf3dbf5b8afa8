//! What ends by itself: memberships of ephemeral nodes that are away, the place in the maps of members that were not
//! heard of for too long or whose people have not logged in, and places in the approval queue that nobody claims any more.
//!
//! How long a node has been away is measured by the monotonic clock and from the coordinator's start at the earliest,
//! so neither a clock that jumps nor a coordinator that was down ends a membership.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::audit::Actor;
use crate::hub::{HubGone, NodeKey, Present};
use crate::registry::RemoveNodeError;
use crate::session::Services;
use crate::state::World;

/// How often is looked.
const EVERY: Duration = Duration::from_millis(500);
/// How often waiting nodes are looked at.
const QUEUE_EVERY: Duration = Duration::from_secs(10);

/// Works until the coordinator drains.
pub async fn run(services: Arc<Services>) {
    let draining = services.draining.clone();
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut absent = Absent::default();
    let mut queue_at = Instant::now();
    while draining.run_until_cancelled(tick.tick()).await.is_some() {
        let world = services.registry.world();
        let now = Instant::now();
        let sweep_queue = now >= queue_at;
        if !sweep_queue && !has_ephemeral(&world) {
            continue;
        }
        let Ok(present) = services.hub.present().await else { return };
        for node in absent.over(&world, &present, now) {
            if end_membership(&services, node).await.is_err() {
                return;
            }
        }
        if sweep_queue {
            queue_at = now + QUEUE_EVERY;
            sweep_lapsed(&services, present.online.iter().copied().collect()).await;
            sweep_laptops(&services).await;
            let connected = present.waiting.into_iter().collect();
            if let Err(error) = services.registry.sweep_waiting(connected).await {
                tracing::debug!(%error, "the approval queue is not swept; tried again");
            }
        }
    }
}

async fn sweep_lapsed(services: &Services, online: Vec<NodeKey>) {
    // Their credentials for relays have ended long before.
    if let Err(error) = services.registry.sweep_lapsed(online).await {
        tracing::debug!(%error, "nobody is taken out of the maps; tried again");
    }
}

/// Keeps out laptops whose people have to log in again, or may not, and lets the others in.
pub async fn sweep_laptops(services: &Services) {
    match services.registry.sweep_laptops(services.laptops.revalidate).await {
        Ok(swept) => {
            for laptop in swept {
                if laptop.active {
                    services.relays.readmit(laptop.node);
                } else {
                    services.relays.revoke(laptop.node);
                }
            }
        }
        Err(error) => tracing::debug!(%error, "laptops are not looked at; tried again"),
    }
}

fn has_ephemeral(world: &World) -> bool {
    world.networks.values().any(|n| n.members.values().any(|m| m.ephemeral.is_some()))
}

async fn end_membership(services: &Services, (network, node): NodeKey) -> Result<(), HubGone> {
    match services.registry.remove_node(network, node, Actor::Coordinator).await {
        Ok(_) => {
            tracing::debug!(%node, "an ephemeral node was away for too long and is no member any more");
            services.relays.revoke(node);
            services.links.forget((network, node)).await?;
            services.hub.forget((network, node)).await
        }
        Err(RemoveNodeError::NoNode | RemoveNodeError::Changed(_)) => Ok(()),
        Err(RemoveNodeError::Unavailable(error)) => {
            tracing::debug!(%error, "an ephemeral node is not removed; tried again");
            Ok(())
        }
    }
}

/// Since when ephemeral members are away.
#[derive(Debug, Default)]
struct Absent(BTreeMap<NodeKey, Instant>);

impl Absent {
    /// Whose time is over.
    fn over(&mut self, world: &World, present: &Present, now: Instant) -> Vec<NodeKey> {
        let away: BTreeMap<NodeKey, Duration> = world
            .networks
            .iter()
            .flat_map(|(id, network)| network.active_members().map(move |m| ((*id, m.node), m.ephemeral)))
            .filter(|(node, _)| !present.online.contains(node))
            .filter_map(|(node, ephemeral)| Some((node, ephemeral?)))
            .collect();
        self.0.retain(|node, _| away.contains_key(node));
        let mut over = BTreeSet::new();
        for (node, allowed) in away {
            let since = *self.0.entry(node).or_insert(now);
            if now.saturating_duration_since(since) >= allowed {
                over.insert(node);
            }
        }
        over.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Head;
    use crate::state::MemberEntry;
    use crate::state::tests::{member, network};

    #[test]
    fn only_ephemeral_nodes_that_stay_away_for_their_time_are_over() {
        let mut lab = network();
        let id = lab.info.id;
        let stays = member(2, "stays");
        let short = Arc::new(MemberEntry {
            ephemeral: Some(Duration::from_secs(600)),
            ..MemberEntry::clone(&member(3, "short"))
        });
        for entry in [stays, short] {
            lab.members.insert(entry.node, entry);
        }
        let node = (id, member(3, "short").node);
        let world = World {
            networks: [(id, Arc::new(lab))].into(),
            keys: BTreeMap::new(),
            audit_head: Head::START,
            membership: crate::state::DEFAULT_MEMBERSHIP,
            epochs: Vec::new(),
            added_urls: Vec::new(),
            relays: Vec::new(),
            people: Arc::default(),
        };
        let here = Present { online: [node].into(), waiting: BTreeSet::new() };
        let nobody = Present::default();
        let mut absent = Absent::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(absent.over(&world, &nobody, at(0)), []);
        assert_eq!(absent.over(&world, &nobody, at(599)), []);
        assert_eq!(absent.over(&world, &here, at(599)), []);
        assert_eq!(absent.over(&world, &nobody, at(601)), [], "it was here in between");
        assert_eq!(absent.over(&world, &nobody, at(1201)), [node]);
    }
}
