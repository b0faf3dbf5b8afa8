//! The approval queue: who waits, and what an administrator decides.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::Patch;
use ria_protocol::name::Name;
use ria_protocol::time::UnixTime;
use serde_json::json;
use tokio::sync::oneshot;

use super::admit::{Joined, Newcomer, new_member};
use super::writer::Writer;
use super::{Admission, AdmitError, Admitted, DecideError, Queued, Reply, Unavailable, mentioned};
use crate::audit::{Actor, Event};
use crate::enrol::ProvenEnrolment;
use crate::policy::Who;
use crate::random;
use crate::state::waiting::{MOST_WAITING, WaitingEntry};
use crate::state::{JoinKeyEntry, Laptop, MemberEntry, Network};
use crate::store::KeyUse;

/// That a node is still there is stored this often.
const HEARD_EVERY: Duration = Duration::from_secs(3600);

/// What is asked of the queue.
#[derive(Debug)]
pub(super) enum QueueCommand {
    /// A member whose time has ended is back.
    ComeBack(Former, Reply<Admission, AdmitError>),
    Approve(NetworkId, NodeId, Option<Name>, Actor, Reply<Arc<MemberEntry>, DecideError>),
    Reject(NetworkId, NodeId, Actor, Reply<Arc<WaitingEntry>, DecideError>),
    /// The node itself does not want any more.
    Withdraw(NetworkId, NodeId, Reply<(), DecideError>),
    /// Forgets who was not heard of for too long; these here are connected now.
    Sweep(Vec<(NetworkId, NodeId)>, oneshot::Sender<Result<(), Unavailable>>),
}

/// A member whose time has ended, as it comes back.
#[derive(Debug, Clone)]
pub struct Former {
    pub network: NetworkId,
    pub node: NodeId,
    pub from: IpAddr,
    pub agent_version: String,
}

impl Writer {
    pub(super) async fn handle_queue(&mut self, command: QueueCommand) {
        match command {
            QueueCommand::ComeBack(former, reply) => {
                let _ = reply.send(self.come_back(former).await);
            }
            QueueCommand::Approve(network, node, name, actor, reply) => {
                let _ = reply.send(self.approve(network, node, name, actor).await);
            }
            QueueCommand::Reject(network, node, actor, reply) => {
                let _ = reply.send(self.reject(network, node, actor).await);
            }
            QueueCommand::Withdraw(network, node, reply) => {
                let ended = self.end_waiting(network, &[node], Actor::Node(node), "node.withdrew").await;
                let _ = reply.send(ended.map_err(DecideError::Unavailable));
            }
            QueueCommand::Sweep(connected, reply) => {
                let _ = reply.send(self.sweep(&connected).await);
            }
        }
    }

    /// A new node waits.
    pub(super) async fn enqueue(
        &mut self,
        network: &Arc<Network>,
        key: &Arc<JoinKeyEntry>,
        enrolment: &ProvenEnrolment,
        now: UnixTime,
    ) -> Result<Admission, AdmitError> {
        let entry = WaitingEntry {
            node: NodeId::from_bytes(random::bytes()),
            name: enrolment.name.clone(),
            name_required: enrolment.name_required,
            wg_key: enrolment.wg_key,
            tls_key: enrolment.tls_key,
            join_key: key.id,
            asked: now,
            heard: now,
            rejected: None,
            former: false,
            address: enrolment.from,
            agent_version: enrolment.agent_version.clone(),
        };
        let actor = enrolment.actor(entry.node);
        self.store_waiting(network, entry, Some(key), actor).await
    }

    async fn come_back(&mut self, former: Former) -> Result<Admission, AdmitError> {
        let world = self.world();
        let network = world.networks.get(&former.network).ok_or(ErrorCode::NotAMember)?;
        let member = network.members.get(&former.node).ok_or(ErrorCode::NotAMember)?;
        let now = UnixTime::from(SystemTime::now());
        if member.expires(network.membership) > now {
            return Ok(Admission::Member(Admitted { network: network.clone(), member: member.clone() }));
        }
        if let Some(entry) = network.waiting.get(&former.node) {
            return waits(network, entry);
        }
        let entry = WaitingEntry {
            node: member.node,
            name: member.name.clone(),
            name_required: true,
            wg_key: member.wg_key,
            tls_key: member.tls_key,
            join_key: member.join_key,
            asked: now,
            heard: now,
            rejected: None,
            former: true,
            address: former.from,
            agent_version: former.agent_version,
        };
        let actor = Actor::Node(entry.node);
        self.store_waiting(network, entry, None, actor).await
    }

    /// A node that waits asks again.
    pub(super) async fn wait_on(
        &mut self,
        network: &Arc<Network>,
        entry: &Arc<WaitingEntry>,
        enrolment: &ProvenEnrolment,
        now: UnixTime,
    ) -> Result<Admission, AdmitError> {
        let known = entry.address == enrolment.from && entry.agent_version == enrolment.agent_version;
        if entry.rejected.is_some() || (known && now.since(entry.heard) < HEARD_EVERY) {
            return waits(network, entry);
        }
        let heard = WaitingEntry {
            heard: now,
            address: enrolment.from,
            agent_version: enrolment.agent_version.clone(),
            ..WaitingEntry::clone(entry)
        };
        let network = self.note_waiting(network, vec![heard]).await?;
        let entry = network.waiting.get(&entry.node).cloned().ok_or(ErrorCode::Unavailable)?;
        waits(&network, &entry)
    }

    async fn store_waiting(
        &mut self,
        network: &Arc<Network>,
        entry: WaitingEntry,
        key: Option<&Arc<JoinKeyEntry>>,
        actor: Actor,
    ) -> Result<Admission, AdmitError> {
        if network.count_waiting() >= MOST_WAITING {
            return Err(AdmitError::Refused(Refusal {
                code: ErrorCode::Unavailable,
                text: format!(
                    "{MOST_WAITING} nodes wait for approval in this network already; an administrator has to approve \
                     or reject some first (ria-coordinator node pending); this is tried again by itself"
                ),
            }));
        }
        let id = network.info.id;
        let event = Event {
            time: entry.asked,
            actor,
            action: "node.asked",
            network: Some(id),
            subject: entry.name.to_string(),
            detail: json!({
                "node": entry.node,
                "key": entry.join_key,
                "wg_key": entry.wg_key,
                "fingerprint": entry.fingerprint(),
                "former": entry.former,
            }),
        };
        let entry = Arc::new(entry);
        let mut changed = Network::clone(network);
        changed.waiting.insert(entry.node, entry.clone());
        let (stored, key) = (entry.clone(), key.cloned());
        let made = self.change(async move |draft| {
            if let Some(key) = key {
                let by = KeyUse { node: stored.node, name: stored.name.clone(), time: stored.asked };
                draft.note_key_use(&key, &by).await?;
            }
            draft.write().waiting(id, &stored).await?;
            draft.audit(&event).await?;
            Ok(draft.put(changed))
        });
        let network = made.await?;
        tracing::info!("a node waits for approval; see: ria-coordinator node pending");
        Ok(Admission::Waiting(Queued { network, entry }))
    }

    async fn note_waiting(
        &mut self,
        network: &Arc<Network>,
        heard: Vec<WaitingEntry>,
    ) -> Result<Arc<Network>, Unavailable> {
        let id = network.info.id;
        let mut changed = Network::clone(network);
        let heard: Vec<_> = heard.into_iter().map(Arc::new).collect();
        changed.waiting.extend(heard.iter().map(|entry| (entry.node, entry.clone())));
        let made = self.change(async move |draft| {
            for entry in &heard {
                draft.write().waiting(id, entry).await?;
            }
            Ok(draft.put(changed))
        });
        Ok(made.await?)
    }

    async fn approve(
        &mut self,
        network: NetworkId,
        node: NodeId,
        name: Option<Name>,
        actor: Actor,
    ) -> Result<Arc<MemberEntry>, DecideError> {
        let world = self.world();
        let network = world.networks.get(&network).ok_or(DecideError::NoNode)?;
        let entry = network.waiting.get(&node).ok_or(DecideError::NoNode)?;
        let former = network.members.get(&node);
        let names = names_changed(network, entry, name.as_ref());
        mentioned::check((&world, network), &actor, names.into_iter().map(Who::Node))?;
        if let Some(member) = former {
            return self.approve_former(network, member, entry, actor).await;
        }
        let key = world.keys.get(&entry.join_key).ok_or(DecideError::NoNode)?;
        let chosen = name.is_some() || entry.name_required;
        let name = name.unwrap_or_else(|| entry.name.clone());
        if chosen && network.is_taken(&name) {
            return Err(DecideError::NameTaken(name));
        }
        let now = UnixTime::from(SystemTime::now());
        let newcomer = Newcomer {
            node,
            name: network.free_name(&name),
            wg_key: entry.wg_key,
            tls_key: entry.tls_key,
            agent_version: entry.agent_version.clone(),
            laptop: key.owner.clone().map(|owner| Laptop::new(owner, &world.people, now)),
        };
        let member = new_member(network, key, newcomer, now).map_err(|_| DecideError::NetworkFull)?;
        let joined = Joined { actor, action: "node.approved", uses_key: false };
        self.store_member(network, key, member.clone(), joined).await?;
        Ok(member)
    }

    /// A member whose time had ended goes on as who it was.
    async fn approve_former(
        &mut self,
        network: &Arc<Network>,
        member: &Arc<MemberEntry>,
        entry: &WaitingEntry,
        actor: Actor,
    ) -> Result<Arc<MemberEntry>, DecideError> {
        let (id, now) = (network.info.id, UnixTime::from(SystemTime::now()));
        let member = Arc::new(MemberEntry { last_contact: now, lapsed: None, ..MemberEntry::clone(member) });
        let patch = Patch::MemberSet(network.listed(&member));
        let event = Event {
            time: now,
            actor,
            action: "node.approved",
            network: Some(id),
            subject: member.name.to_string(),
            detail: json!({ "node": member.node, "fingerprint": entry.fingerprint(), "former": true }),
        };
        let mut changed = Network::clone(network);
        changed.waiting.remove(&member.node);
        changed.members.insert(member.node, member.clone());
        let stored = member.clone();
        let made = self.change(async move |draft| {
            draft.write().waiting_ended(id, stored.node).await?;
            draft.write().contact(id, &stored).await?;
            draft.write().member_standing(id, &stored).await?;
            draft.change_network(changed, vec![patch]).await?;
            draft.audit(&event).await
        });
        made.await?;
        Ok(member)
    }

    /// A rejected node stays known, so that it does not ask again and may still be approved.
    async fn reject(
        &mut self,
        network: NetworkId,
        node: NodeId,
        actor: Actor,
    ) -> Result<Arc<WaitingEntry>, DecideError> {
        let world = self.world();
        let network = world.networks.get(&network).ok_or(DecideError::NoNode)?;
        let entry = network.waiting.get(&node).ok_or(DecideError::NoNode)?;
        if entry.rejected.is_some() {
            return Ok(entry.clone());
        }
        let (id, now) = (network.info.id, UnixTime::from(SystemTime::now()));
        let rejected = Arc::new(WaitingEntry { rejected: Some(now), ..WaitingEntry::clone(entry) });
        let event = Event {
            time: now,
            actor,
            action: "node.rejected",
            network: Some(id),
            subject: entry.name.to_string(),
            detail: json!({ "node": node, "key": entry.join_key, "fingerprint": entry.fingerprint() }),
        };
        let mut changed = Network::clone(network);
        changed.waiting.insert(node, rejected.clone());
        let stored = rejected.clone();
        let made = self.change(async move |draft| {
            draft.write().waiting(id, &stored).await?;
            draft.put(changed);
            draft.audit(&event).await
        });
        made.await?;
        Ok(rejected)
    }

    async fn end_waiting(
        &mut self,
        network: NetworkId,
        nodes: &[NodeId],
        actor: Actor,
        action: &'static str,
    ) -> Result<(), Unavailable> {
        let world = self.world();
        let Some(network) = world.networks.get(&network) else { return Ok(()) };
        let ended: Vec<_> = nodes.iter().filter_map(|node| network.waiting.get(node)).cloned().collect();
        if ended.is_empty() {
            return Ok(());
        }
        let (id, time) = (network.info.id, UnixTime::from(SystemTime::now()));
        let mut changed = Network::clone(network);
        changed.waiting.retain(|node, _| !nodes.contains(node));
        let made = self.change(async move |draft| {
            for entry in &ended {
                draft.write().waiting_ended(id, entry.node).await?;
                let event = Event {
                    time,
                    actor: actor.clone(),
                    action,
                    network: Some(id),
                    subject: entry.name.to_string(),
                    detail: json!({ "node": entry.node, "key": entry.join_key }),
                };
                draft.audit(&event).await?;
            }
            draft.put(changed);
            Ok(())
        });
        Ok(made.await?)
    }

    async fn sweep(&mut self, connected: &[(NetworkId, NodeId)]) -> Result<(), Unavailable> {
        let now = UnixTime::from(SystemTime::now());
        let ids: Vec<NetworkId> = self.world().networks.keys().copied().collect();
        for id in ids {
            let Some(network) = self.world().networks.get(&id).cloned() else { continue };
            let is_here = |w: &&Arc<WaitingEntry>| connected.contains(&(id, w.node));
            let heard = network.waiting.values().filter(is_here);
            let heard: Vec<WaitingEntry> = heard
                .filter(|w| now.since(w.heard) >= HEARD_EVERY)
                .map(|w| WaitingEntry { heard: now, ..WaitingEntry::clone(w) })
                .collect();
            let network = if heard.is_empty() { network } else { self.note_waiting(&network, heard).await? };
            let stale = network.stale_waiting(now);
            self.end_waiting(id, &stale, Actor::Coordinator, "node.forgotten").await?;
        }
        Ok(())
    }
}

fn waits(network: &Arc<Network>, entry: &Arc<WaitingEntry>) -> Result<Admission, AdmitError> {
    if entry.rejected.is_some() {
        return Err(ErrorCode::Rejected.into());
    }
    Ok(Admission::Waiting(Queued { network: network.clone(), entry: entry.clone() }))
}

/// The names that an approval gives and takes. A former member keeps its own, unless it is given another.
fn names_changed(network: &Network, entry: &WaitingEntry, given: Option<&Name>) -> Vec<Name> {
    match (network.members.get(&entry.node), given) {
        (None, given) => vec![network.free_name(given.unwrap_or(&entry.name))],
        (Some(member), Some(given)) if *given != member.name => vec![member.name.clone(), given.clone()],
        (Some(_), _) => Vec::new(),
    }
}
