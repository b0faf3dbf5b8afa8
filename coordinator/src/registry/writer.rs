//! The writer's loop and the commands of administrators.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use ria_protocol::id::{KeyId, NetworkId, NodeId};
use ria_protocol::join_key::JoinSecret;
use ria_protocol::map::{NetworkInfo, Patch};
use ria_protocol::time::UnixTime;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::draft::{Draft, publish};
use super::joins;
use super::limiter::FailureLimiter;
use super::local_change::RowLimiter;
use super::mentioned;
use super::{
    Command, Contact, CreateKeyError, CreateNetworkError, CreatedKey, NewKey, NewNetwork, RemoveNodeError,
    RevokeKeyError, Unavailable,
};
use crate::audit::{Actor, Event};
use crate::policy::Who;
use crate::random;
use crate::state::address::{self, PrefixError};
use crate::state::etag::{Etag, NodeChanged};
use crate::state::{JoinKeyEntry, MemberEntry, Network, World, domains};
use crate::store::{Departure, Store, StoreError};

/// Smallest MTU of IPv6 and so of every path; fits the tunnel into any network.
const OVERLAY_MTU: u16 = 1280;

/// What an administrator may choose: IPv6 needs the least, and jumbo frames of 9000 bytes carry the most.
const MTU_RANGE: RangeInclusive<u16> = OVERLAY_MTU..=8900;

/// What is stored together, while that is made.
#[derive(Debug)]
struct Group {
    /// The state with all of it.
    world: Arc<World>,
    /// Never locked: it has the writer be shared between its own steps, which a transaction alone can't be.
    draft: Mutex<Draft>,
}

impl Group {
    fn draft(&mut self) -> &mut Draft {
        self.draft.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one that writes.
#[derive(Debug)]
pub(super) struct Writer {
    store: Store,
    /// What is stored together, while that is made.
    group: Option<Group>,
    publish: watch::Sender<Arc<World>>,
    writable: watch::Sender<bool>,
    pub(super) limiter: FailureLimiter,
    pub(super) row_limiter: RowLimiter,
    /// URLs in the settings that others can reach.
    pub(super) configured_urls: Vec<String>,
    pub(super) store_errors: Arc<AtomicU64>,
}

impl Writer {
    pub fn new(
        store: Store,
        publish: watch::Sender<Arc<World>>,
        writable: watch::Sender<bool>,
        configured_urls: Vec<String>,
    ) -> Self {
        Self {
            store,
            group: None,
            publish,
            writable,
            limiter: FailureLimiter::default(),
            row_limiter: RowLimiter::default(),
            configured_urls,
            store_errors: Arc::default(),
        }
    }

    /// Serves commands until nobody can send any.
    pub async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.recv().await {
            self.take_turn().await;
            let (joins, other) = joins::gather(command, &mut queue);
            self.admit_all(joins).await;
            if let Some(other) = other {
                self.handle_command(other).await;
            }
            self.store.end_turn().await;
        }
        self.store.close().await;
    }

    /// Where other coordinators write too: waits until they don't, and sees what they have stored. Without a turn, as when the
    /// database is away, the change that follows is refused by the database itself.
    async fn take_turn(&self) {
        let caught_up = async {
            if self.store.take_turn().await? {
                let (world, news) = self.store.reload(&self.world()).await?;
                publish(&self.publish, world, news);
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = caught_up.await {
            tracing::debug!(%error, "no turn to write");
            self.store.renew_writer().await;
        }
    }

    async fn handle_command(&mut self, command: Command) {
        // Whoever asked may have gone away; what was done stays done.
        match command {
            Command::CreateNetwork(new, actor, reply) => {
                let _ = reply.send(self.create_network(new, actor).await);
            }
            Command::SetPeers(network, mode, actor, reply) => {
                drop(reply.send(self.set_peers(network, mode, actor).await));
            }
            Command::SetMulticast(network, groups, actor, reply) => {
                drop(reply.send(self.set_multicast(network, groups, actor).await));
            }
            Command::CreateKey(new, actor, reply) => drop(reply.send(self.create_key(new, actor).await)),
            Command::RevokeKey(key, actor, reply) => drop(reply.send(self.revoke_key(key, actor).await)),
            Command::Admit(enrolment, reply) => drop(reply.send(self.admit(*enrolment).await)),
            Command::Queue(command) => self.handle_queue(command).await,
            Command::EditNode(network, node, edit, actor, reply) => {
                let _ = reply.send(self.edit_node(network, node, edit, actor).await);
            }
            Command::NoteFailedProof(from) => self.limiter.handle_failure(from, Instant::now()),
            Command::RemoveNode(network, node, seen, actor, reply) => {
                let _ = reply.send(self.remove_node((network, node), seen, actor).await);
            }
            Command::SweepLapsed(online, reply) => {
                let _ = reply.send(self.sweep_lapsed(online).await);
            }
            Command::SetNodeEnabled(standing, actor, reply) => {
                let _ = reply.send(self.set_node_enabled(standing, actor).await);
            }
            Command::RotateKey(network, node, wg_key, reply) => {
                let _ = reply.send(self.rotate_key(network, node, wg_key).await);
            }
            Command::NoteAuthority(authority, event, reply) => {
                drop(reply.send(self.note_authority(&authority, &event).await));
            }
            Command::NoteLocalChange(network, node, change, reply) => {
                let _ = reply.send(self.note_local_change(network, node, &change).await);
            }
            Command::StaticPeer(command) => self.handle_static_peer(command).await,
            Command::Route(command) => self.handle_route(command).await,
            Command::SetPolicy(wanted) => self.handle_policy(*wanted).await,
            Command::Record(event, reply) => drop(reply.send(self.record(&event).await)),
            Command::NoteContacts(contacts, reply) => {
                let _ = reply.send(self.note_contacts(contacts).await);
            }
            Command::Testify(testified, reply) => drop(reply.send(self.testify(*testified).await)),
            Command::AddUrl(url, actor, reply) => {
                let _ = reply.send(self.add_url(url, actor).await);
            }
            Command::RemoveUrl(url, actor, reply) => {
                let _ = reply.send(self.remove_url(url, actor).await);
            }
            Command::Relays(edit, actor, reply) => self.handle_relays(edit, actor, reply).await,
            Command::People(command) => self.handle_people(command).await,
            Command::NoteBackup(actor, reply) => drop(reply.send(self.note_backup(actor).await)),
            // It is done with the turn that each command begins with.
            Command::CatchUp(reply) => drop(reply.send(Ok(()))),
            Command::TellUrls(reply) => drop(reply.send(self.tell_urls(Actor::Coordinator).await)),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    async fn record(&mut self, event: &Event) -> Result<(), Unavailable> {
        Ok(self.change(async |draft| draft.audit(event).await).await?)
    }

    /// The state, with what is not stored yet of a group.
    pub(super) fn world(&self) -> Arc<World> {
        match &self.group {
            Some(group) => group.world.clone(),
            None => self.publish.borrow().clone(),
        }
    }

    /// From now on changes are stored together, by [`Self::end_group`].
    pub(super) async fn begin_group(&mut self) -> Result<(), StoreError> {
        let world = self.world();
        let draft = Mutex::new(Draft::begin(&self.store, &world).await?);
        self.group = Some(Group { world, draft });
        Ok(())
    }

    /// Stores them: all, or none.
    pub(super) async fn end_group(&mut self) -> Result<(), StoreError> {
        let Some(group) = self.group.take() else { return Ok(()) };
        let draft = group.draft.into_inner().unwrap_or_else(PoisonError::into_inner);
        if draft.is_empty() {
            return Ok(());
        }
        let stored = draft.commit(&self.publish).await;
        if stored.is_err() {
            self.store.renew_writer().await;
        }
        self.watch(&stored);
        stored
    }

    /// Makes a change: all of it, or nothing.
    pub(super) async fn change<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Draft) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(group) = &mut self.group {
            let done = group.draft().part(work).await;
            group.world = Arc::new(group.draft().world.clone());
            return done;
        }
        let changed = self.attempt(work).await;
        if changed.is_err() {
            self.store.renew_writer().await;
        }
        self.watch(&changed);
        changed
    }

    async fn attempt<T>(
        &self,
        work: impl AsyncFnOnce(&mut Draft) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut draft = Draft::begin(&self.store, &self.world()).await?;
        let made = work(&mut draft).await?;
        draft.commit(&self.publish).await?;
        Ok(made)
    }

    /// Notes whether the database works, and says so once when that changes.
    fn watch<T>(&self, result: &Result<T, StoreError>) {
        let works = result.is_ok();
        if !works {
            self.store_errors.fetch_add(1, Ordering::Relaxed);
        }
        let changed = self.writable.send_if_modified(|known| std::mem::replace(known, works) != works);
        match result {
            Err(error) if changed => tracing::error!(%error, "changes are refused; sessions go on"),
            Ok(_) if changed => tracing::info!("changes are stored again"),
            Ok(_) | Err(_) => {}
        }
    }

    async fn create_network(
        &mut self,
        new: NewNetwork,
        actor: Actor,
    ) -> Result<Arc<Network>, CreateNetworkError> {
        let world = self.world();
        if world.network_named(new.name.as_str()).is_some() {
            return Err(CreateNetworkError::NameTaken(new.name));
        }
        let mtu = new.mtu.unwrap_or(OVERLAY_MTU);
        if !MTU_RANGE.contains(&mtu) {
            return Err(CreateNetworkError::Mtu(mtu));
        }
        let others = world.networks.values().map(|n| &**n);
        let prefix_v4 = match new.prefix_v4 {
            Some(prefix) => address::check_v4(prefix, others).map(|()| prefix)?,
            None => address::default_v4(others)?,
        };
        let others = world.networks.values().map(|n| &**n);
        let ros_domains = match new.ros_domains {
            Some(wanted) => Some(domains::choose(wanted, others).ok_or(CreateNetworkError::NoDomain)?),
            None => None,
        };
        let now = UnixTime::from(SystemTime::now());
        let info = NetworkInfo {
            id: NetworkId::from_bytes(random::bytes()),
            name: new.name,
            prefix_v4,
            prefix_v6: address::random_v6(random::bytes()).ok_or(PrefixError::NoneFree)?,
            mtu,
            lock_keys: Vec::new(),
            urls: self.urls(),
            ros_domains,
            multicast: new.multicast.filter(|groups| !groups.is_empty()),
            peers: super::peers::stored(new.peers),
        };
        let event = Event {
            time: now,
            actor,
            action: "network.created",
            network: Some(info.id),
            subject: info.name.to_string(),
            detail: json!({
                "prefix_v4": info.prefix_v4,
                "prefix_v6": info.prefix_v6,
                "mtu": info.mtu,
                "ros_domains": info.ros_domains.as_ref().map(ToString::to_string),
                "multicast": info.multicast.as_ref().map(ToString::to_string),
                "peers": info.peers,
            }),
        };
        let made = self.change(async move |draft| {
            let network = draft.put(Network::new(info, now));
            draft.write().network(&network).await?;
            draft.audit(&event).await?;
            Ok(network)
        });
        Ok(made.await?)
    }

    async fn create_key(&mut self, new: NewKey, actor: Actor) -> Result<CreatedKey, CreateKeyError> {
        let world = self.world();
        let network = world.networks.get(&new.network).ok_or(CreateKeyError::NoNetwork)?;
        mentioned::check((&world, network), &actor, new.tags.iter().cloned().map(Who::Tag))?;
        let secret = JoinSecret::from_bytes(random::bytes());
        let entry = Arc::new(JoinKeyEntry {
            id: KeyId::from_bytes(random::bytes()),
            network: new.network,
            secret_digest: secret.digest(),
            reusable: new.reusable,
            tags: new.tags,
            created: UnixTime::from(SystemTime::now()),
            expires: new.expires,
            revoked: None,
            uses: 0,
            ephemeral: new.ephemeral,
            approve: new.approve,
            owner: new.owner,
        });
        let event = Event {
            time: entry.created,
            actor,
            action: "key.created",
            network: Some(entry.network),
            subject: entry.id.to_string(),
            detail: json!({
                "reusable": entry.reusable,
                "expires": entry.expires,
                "tags": entry.tags,
                "ephemeral": entry.ephemeral.map(|d| d.as_secs()),
                "approve": entry.approve,
                "laptop_of": entry.owner,
            }),
        };
        let made = self.change(async |draft| {
            draft.world.keys.insert(entry.id, entry.clone());
            draft.write().join_key(&entry).await?;
            draft.audit(&event).await
        });
        made.await?;
        Ok(CreatedKey { entry, secret })
    }

    async fn revoke_key(&mut self, key: KeyId, actor: Actor) -> Result<Arc<JoinKeyEntry>, RevokeKeyError> {
        let entry = self.world().keys.get(&key).cloned().ok_or(RevokeKeyError::NoKey(key))?;
        if entry.revoked.is_some() {
            return Ok(entry);
        }
        let now = UnixTime::from(SystemTime::now());
        let revoked = Arc::new(JoinKeyEntry { revoked: Some(now), ..JoinKeyEntry::clone(&entry) });
        let event = Event {
            time: now,
            actor,
            action: "key.revoked",
            network: Some(entry.network),
            subject: key.to_string(),
            detail: json!({ "uses": entry.uses }),
        };
        let made = self.change(async |draft| {
            draft.world.keys.insert(key, revoked.clone());
            draft.write().join_key_revoked(key, now).await?;
            draft.audit(&event).await
        });
        made.await?;
        Ok(revoked)
    }

    async fn remove_node(
        &mut self,
        (network, node): (NetworkId, NodeId),
        seen: Option<Etag>,
        actor: Actor,
    ) -> Result<Arc<MemberEntry>, RemoveNodeError> {
        let world = self.world();
        let network = world.networks.get(&network).ok_or(RemoveNodeError::NoNode)?;
        let member = network.members.get(&node).cloned().ok_or(RemoveNodeError::NoNode)?;
        NodeChanged::check(seen.as_ref(), &member)?;
        let now = UnixTime::from(SystemTime::now());
        let departure = departure(&actor, node);
        let event = Event {
            time: now,
            action: departure.action(),
            actor,
            network: Some(network.info.id),
            subject: member.name.to_string(),
            detail: json!({ "node": node, "address_v4": member.address_v4, "address_v6": member.address_v6 }),
        };
        let mut without = Network::clone(network);
        without.members.remove(&node);
        without.waiting.remove(&node);
        if member.ephemeral.is_none() {
            without.freed.insert(member.address_v4.into(), now);
            without.freed.insert(member.address_v6.into(), now);
        }
        without.tombstones.insert(node, now);
        let gone = member.clone();
        let made = self.change(async move |draft| {
            draft.write().member_removed(without.info.id, node, now).await?;
            draft.write().waiting_ended(without.info.id, node).await?;
            draft.write().departed(without.info.id, &gone, departure, now).await?;
            draft.write().tombstone(without.info.id, node, now).await?;
            draft.change_network(without, vec![Patch::MemberRemoved(node)]).await?;
            draft.audit(&event).await
        });
        made.await?;
        Ok(member)
    }

    async fn note_backup(&mut self, actor: Actor) -> Result<(), Unavailable> {
        let event = Event {
            time: UnixTime::from(SystemTime::now()),
            actor,
            action: "backup.made",
            network: None,
            subject: "coordinator".to_owned(),
            detail: json!({ "epoch": self.world().epoch().number }),
        };
        Ok(self.change(async move |draft| draft.audit(&event).await).await?)
    }

    /// Not a change of the map: no revision, no audit row.
    async fn note_contacts(&mut self, contacts: Vec<Contact>) -> Result<(), Unavailable> {
        let made = self.change(async move |draft| {
            let mut changed: BTreeMap<NetworkId, Network> = BTreeMap::new();
            for contact in contacts {
                // One copy of a network, however many of its nodes were heard of.
                if let Entry::Vacant(vacant) = changed.entry(contact.network) {
                    let Some(network) = draft.network(contact.network) else { continue };
                    vacant.insert(network);
                }
                let members = changed.get_mut(&contact.network).map(|network| &mut network.members);
                let Some(member) = members.and_then(|members| members.get_mut(&contact.node)) else {
                    continue;
                };
                *member = Arc::new(MemberEntry {
                    last_contact: contact.time,
                    agent_version: contact.agent_version,
                    ..MemberEntry::clone(member)
                });
                draft.write().contact(contact.network, member).await?;
            }
            changed.into_values().for_each(|network| drop(draft.put(network)));
            Ok(())
        });
        Ok(made.await?)
    }
}

/// Why a node is no member any more, by who has ended its membership.
fn departure(actor: &Actor, node: NodeId) -> Departure {
    match actor {
        Actor::Node(by) | Actor::NodeFor(by, _) if *by == node => Departure::Left,
        Actor::Coordinator => Departure::Ended,
        Actor::Node(_)
        | Actor::NodeFor(..)
        | Actor::Local(_)
        | Actor::Person(_)
        | Actor::User(..)
        | Actor::Stranger(_) => Departure::Removed,
    }
}
