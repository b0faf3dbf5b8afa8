//! What nodes hand back after the coordinator was restored from a backup: members that it has forgotten come back,
//! those that were removed since the backup go again, and the log tells what was lost of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ria_protocol::id::NodeId;
use ria_protocol::map::Patch;
use ria_protocol::time::UnixTime;
use ria_protocol::witness::{AuditHead, Deed, Tombstone};
use serde_json::json;

use super::Unavailable;
use super::draft::Draft;
use super::writer::Writer;
use crate::audit::{Actor, ChainHash, Event, Head};
use crate::state::people::People;
use crate::state::{JoinKeyEntry, Laptop, MemberEntry, Network, World, address, domains};
use crate::store::{KeyUse, StoreError};
use crate::witness::Testified;

/// What came of a testimony.
#[derive(Debug, Clone, Default)]
pub struct Learnt {
    /// Nodes that are members no more.
    pub buried: Vec<NodeId>,
}

impl Writer {
    pub(super) async fn testify(&mut self, testified: Testified) -> Result<Learnt, Unavailable> {
        let world = self.world();
        if testified.epoch == world.epoch() {
            return Ok(Learnt::default());
        }
        let fork = self.fork(&world, testified.audit.as_ref()).await?;
        let buried: Vec<Tombstone> =
            testified.tombstones.iter().copied().filter(|t| is_news(&world, t)).collect();
        let deed = testified.deed.clone().filter(|deed| is_forgotten(&world, deed));
        if fork.is_none() && buried.is_empty() && deed.is_none() {
            return Ok(Learnt::default());
        }
        let by = testified.deed.as_ref().map(|deed| deed.node);
        let made = self.change(async move |draft| {
            if let Some(fork) = fork {
                draft.write().witnessed(&fork.seen).await?;
                draft.audit(&fork_event(&fork, by)).await?;
            }
            let mut learnt = Learnt::default();
            for tombstone in &buried {
                if draft.bury(tombstone, by).await? {
                    learnt.buried.push(tombstone.node);
                }
            }
            // After the tombstones: one that was removed does not come back by its own word.
            if let Some(deed) = deed {
                draft.readmit(&deed, &testified.agent_version).await?;
            }
            Ok(learnt)
        });
        Ok(made.await?)
    }

    /// What a node's audit head shows to be missing here or other than it was; `None` when it fits or is known already.
    async fn fork(&self, world: &World, seen: Option<&AuditHead>) -> Result<Option<Fork>, StoreError> {
        let Some(seen) = seen else { return Ok(None) };
        if self.store().witnessed(seen.epoch.id).await?.is_some_and(|known| known >= seen.seq) {
            return Ok(None);
        }
        // The epoch lasted, as far as this database knows, until the next one began.
        let at = world.epochs.iter().position(|began| began.epoch == seen.epoch);
        let shared = match at {
            Some(at) => world.epochs.get(at + 1).map_or(world.audit_head, |next| next.base).seq,
            None => world
                .epochs
                .iter()
                .rev()
                .find(|e| e.epoch.number < seen.epoch.number)
                .map_or(0, |e| e.base.seq),
        };
        let fits = at.is_some()
            && seen.seq <= shared
            && self.store().audit_hash(seen.seq).await? == Some(ChainHash::from(seen.hash));
        Ok((!fits).then_some(Fork { seen: *seen, shared: shared.min(seen.seq) }))
    }
}

/// Rows that a node's head proves to have been there once.
struct Fork {
    seen: AuditHead,
    /// The last row that may be shared.
    shared: u64,
}

fn fork_event(fork: &Fork, by: Option<NodeId>) -> Event {
    let head = Head { seq: fork.seen.seq, hash: ChainHash::from(fork.seen.hash) };
    Event {
        time: now(),
        actor: by.map_or(Actor::Coordinator, Actor::Node),
        action: "audit.fork",
        network: None,
        subject: format!("epoch {}", fork.seen.epoch.number),
        detail: json!({ "shown": head, "shared_until": fork.shared, "rows_lost": fork.seen.seq - fork.shared }),
    }
}

fn is_news(world: &World, tombstone: &Tombstone) -> bool {
    world.networks.get(&tombstone.network).is_some_and(|n| !n.tombstones.contains_key(&tombstone.node))
}

fn is_forgotten(world: &World, deed: &Deed) -> bool {
    world
        .networks
        .get(&deed.network)
        .is_some_and(|n| !n.members.contains_key(&deed.node) && !n.tombstones.contains_key(&deed.node))
}

fn now() -> UnixTime {
    UnixTime::from(SystemTime::now())
}

impl Draft {
    /// Notes a removal that this database has forgotten; tells whether the node was a member here.
    async fn bury(&mut self, tombstone: &Tombstone, by: Option<NodeId>) -> Result<bool, StoreError> {
        let Some(mut network) = self.network(tombstone.network) else { return Ok(false) };
        let id = network.info.id;
        network.tombstones.insert(tombstone.node, tombstone.time);
        self.write().tombstone(id, tombstone.node, tombstone.time).await?;
        let member = network.members.remove(&tombstone.node);
        let peer = network.static_peers.remove(&tombstone.node);
        let (name, addresses, gateway) = match (&member, &peer) {
            (Some(member), _) => (member.name.clone(), (member.address_v4, member.address_v6), None),
            (None, Some(peer)) => (peer.name.clone(), (peer.address_v4, peer.address_v6), peer.gateway),
            (None, None) => {
                self.put(network);
                return Ok(false);
            }
        };
        network.freed.insert(addresses.0.into(), tombstone.time);
        network.freed.insert(addresses.1.into(), tombstone.time);
        self.write().member_removed(id, tombstone.node, tombstone.time).await?;
        self.write().static_peer_removed(id, tombstone.node, tombstone.time).await?;
        let mut patches = vec![Patch::MemberRemoved(tombstone.node)];
        patches.extend(super::stock::gateways(&network, [gateway]));
        self.change_network(network, patches).await?;
        self.audit(&Event {
            time: now(),
            actor: Actor::Coordinator,
            action: "node.removed",
            network: Some(id),
            subject: name.to_string(),
            detail: json!({
                "node": tombstone.node,
                "address_v4": addresses.0,
                "address_v6": addresses.1,
                "removed_before_restore": tombstone.time,
                "shown_by": by,
            }),
        })
        .await?;
        Ok(true)
    }

    /// Takes back a member that this database has forgotten.
    async fn readmit(&mut self, deed: &Deed, agent_version: &str) -> Result<(), StoreError> {
        let Some(mut network) = self.network(deed.network) else { return Ok(()) };
        let Some(member) = returning(&network, deed, (agent_version, &self.world.people)) else {
            return Ok(());
        };
        let (id, member) = (network.info.id, Arc::new(member));
        if let Some(key) = self.world.keys.get(&member.join_key).cloned() {
            let used = JoinKeyEntry { uses: key.uses + 1, ..JoinKeyEntry::clone(&key) };
            let by = KeyUse { node: member.node, name: member.name.clone(), time: member.joined };
            self.write().join_key_used(used.id, &by).await?;
            self.world.keys.insert(used.id, Arc::new(used));
        }
        network.freed.remove(&member.address_v4.into());
        network.freed.remove(&member.address_v6.into());
        network.members.insert(member.node, member.clone());
        self.write().member(id, &member).await?;
        let patch = Patch::MemberSet(network.listed(&member));
        self.change_network(network, vec![patch]).await?;
        self.audit(&Event {
            time: now(),
            actor: Actor::Node(member.node),
            action: "node.readmitted",
            network: Some(id),
            subject: member.name.to_string(),
            detail: json!({
                "node": member.node,
                "key": member.join_key,
                "joined": member.joined,
                "wg_key": member.wg_key,
                "address_v4": member.address_v4,
                "address_v6": member.address_v6,
                "same_name": member.name == deed.name,
                "same_address": member.address_v4 == deed.address_v4,
            }),
        })
        .await
    }
}

/// The member as its deed says, with another name or address where somebody else has them now; `None` when there is no
/// place for it.
fn returning(
    network: &Network,
    deed: &Deed,
    (agent_version, people): (&str, &People),
) -> Option<MemberEntry> {
    let now = now();
    if network.members.values().any(|m| m.wg_key == deed.wg_key || m.tls_key == deed.tls_key) {
        return None;
    }
    let taken: BTreeSet<_> = network.members.values().map(|m| m.address_v4).collect();
    let keeps = network.info.prefix_v4.contains(deed.address_v4.into()) && !taken.contains(&deed.address_v4);
    let keeps_v6 = network.info.prefix_v6.contains(deed.address_v6.into())
        && !network.members.values().any(|m| m.address_v6 == deed.address_v6);
    // It stays somebody's: whoever is not known here any more has it cut off soon.
    let owner = deed.owner.as_ref().and_then(|owner| owner.parse().ok());
    Some(MemberEntry {
        node: deed.node,
        name: network.free_name(&deed.name),
        wg_key: deed.wg_key,
        tls_key: deed.tls_key,
        address_v4: if keeps { deed.address_v4 } else { address::next_v4(network, now)? },
        address_v6: if keeps_v6 { deed.address_v6 } else { address::next_v6(network, deed.node, now)? },
        tags: deed.tags.clone(),
        join_key: deed.join_key,
        joined: deed.joined,
        last_contact: now,
        agent_version: agent_version.to_owned(),
        ephemeral: deed.ephemeral.map(Duration::from_secs),
        disabled: None,
        lapsed: None,
        laptop: owner.map(|owner| Laptop::new(owner, people, now)),
        ros_domain: domains::next_own(network),
    })
}
