//! The one writer: takes commands in order, makes each a transaction (rows, revision, patches, audit), and publishes
//! the new state when it is on disk.
//!
//! ```text
//! sessions, admin socket --Command--> Writer --commit--> database
//!                                        |
//!                        watch: Arc<World>, then each network's feed: Arc<Change>
//! ```
//!
//! A change that can't be stored is refused and leaves nothing behind: state in memory never runs ahead of the disk.

mod admit;
mod draft;
mod edit;
mod errors;
mod joins;
mod laptops;
pub(crate) mod limiter;
mod local_change;
mod mentioned;
mod multicast;
mod peers;
pub mod people;
pub mod policy;
mod relays;
mod rotate;
pub mod routes;
mod standing;
pub mod stock;
mod testify;
mod urls;
mod waiting;
mod writer;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ria_protocol::demand::PeerMode;
use ria_protocol::id::{KeyId, NetworkId, NodeId};
use ria_protocol::join_key::JoinSecret;
use ria_protocol::keys::{SpkiHash, WgPublicKey};
use ria_protocol::multicast::MulticastGroups;
use ria_protocol::name::Name;
use ria_protocol::prefix::Prefix;
use ria_protocol::requester::LocalChange;
use ria_protocol::time::UnixTime;
use tokio::sync::{mpsc, oneshot, watch};

use crate::audit::{Actor, Event};
use crate::enrol::ProvenEnrolment;
use crate::state::domains::WantedDomains;
use crate::state::etag::Etag;
use crate::state::people::UserName;
use crate::state::relay::RelayEntry;
use crate::state::waiting::WaitingEntry;
use crate::state::{JoinKeyEntry, MemberEntry, Network, World};
use crate::store::{Departure, Store, StoreError};
use crate::tls::authority::Authority;
use crate::witness::Testified;

pub use draft::Changes;
pub use edit::{NodeEdit, SeenEdit};
pub use errors::{
    AdmitError, CreateKeyError, CreateNetworkError, DecideError, EditNodeError, RemoveNodeError,
    RevokeKeyError, RotateKeyError, SetNetworkError, SetNodeEnabledError, Unavailable,
};
pub use relays::{Arrived, RelayError};
pub use testify::Learnt;
pub use urls::UrlError;
pub use waiting::Former;
use waiting::QueueCommand;

/// Commands that may wait; more make their senders wait.
const QUEUE: usize = 256;

/// A network to make.
#[derive(Debug, Clone)]
pub struct NewNetwork {
    pub name: Name,
    pub prefix_v4: Option<Prefix>,
    pub mtu: Option<u16>,
    /// Absent: everybody's own choice.
    pub ros_domains: Option<WantedDomains>,
    /// Multicast groups that are carried beside discovery.
    pub multicast: Option<MulticastGroups>,
    /// Of whom its members are told.
    pub peers: PeerMode,
}

impl NewNetwork {
    /// One with everything as it usually is.
    fn named(name: Name) -> Self {
        Self { name, prefix_v4: None, mtu: None, ros_domains: None, multicast: None, peers: PeerMode::Push }
    }
}

/// A join key to make.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub network: NetworkId,
    pub reusable: bool,
    pub expires: Option<UnixTime>,
    pub tags: Vec<String>,
    pub ephemeral: Option<Duration>,
    pub approve: bool,
    /// Whose laptop becomes who joins by it.
    pub owner: Option<UserName>,
}

/// A join key that was made. Its secret is known only now.
#[derive(Debug)]
pub struct CreatedKey {
    pub entry: Arc<JoinKeyEntry>,
    pub secret: JoinSecret,
}

/// A node that is a member, just now or already.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub network: Arc<Network>,
    pub member: Arc<MemberEntry>,
}

/// What became of a node that wants in.
#[derive(Debug, Clone)]
pub enum Admission {
    Member(Admitted),
    Waiting(Queued),
}

/// A node that waits for approval.
#[derive(Debug, Clone)]
pub struct Queued {
    pub network: Arc<Network>,
    pub entry: Arc<WaitingEntry>,
}

/// A node was heard of.
#[derive(Debug, Clone)]
pub struct Contact {
    pub network: NetworkId,
    pub node: NodeId,
    pub time: UnixTime,
    pub agent_version: String,
}

/// Whether a member may take part.
#[derive(Debug, Clone)]
pub struct NodeStanding {
    pub network: NetworkId,
    pub node: NodeId,
    pub enabled: bool,
    /// What whoever decides has seen of it; absent: does not matter.
    pub seen: Option<Etag>,
}

type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// What the writer can be asked for.
#[derive(Debug)]
enum Command {
    CreateNetwork(NewNetwork, Actor, Reply<Arc<Network>, CreateNetworkError>),
    SetPeers(NetworkId, PeerMode, Actor, Reply<Arc<Network>, SetNetworkError>),
    SetMulticast(NetworkId, MulticastGroups, Actor, Reply<Arc<Network>, SetNetworkError>),
    CreateKey(NewKey, Actor, Reply<CreatedKey, CreateKeyError>),
    RevokeKey(KeyId, Actor, Reply<Arc<JoinKeyEntry>, RevokeKeyError>),
    Admit(Box<ProvenEnrolment>, Reply<Admission, AdmitError>),
    Queue(QueueCommand),
    NoteFailedProof(IpAddr),
    RemoveNode(NetworkId, NodeId, Option<Etag>, Actor, Reply<Arc<MemberEntry>, RemoveNodeError>),
    EditNode(NetworkId, NodeId, SeenEdit, Actor, Reply<Arc<MemberEntry>, EditNodeError>),
    SweepLapsed(Vec<(NetworkId, NodeId)>, Reply<(), Unavailable>),
    SetNodeEnabled(NodeStanding, Actor, Reply<Arc<MemberEntry>, SetNodeEnabledError>),
    RotateKey(NetworkId, NodeId, WgPublicKey, Reply<(), RotateKeyError>),
    NoteAuthority(Arc<Authority>, Event, Reply<(), Unavailable>),
    NoteLocalChange(NetworkId, NodeId, LocalChange, oneshot::Sender<Result<(), Unavailable>>),
    StaticPeer(stock::StaticPeerCommand),
    Route(routes::RouteCommand),
    SetPolicy(Box<policy::Wanted>),
    Record(Box<Event>, oneshot::Sender<Result<(), Unavailable>>),
    NoteContacts(Vec<Contact>, oneshot::Sender<Result<(), Unavailable>>),
    Testify(Box<Testified>, Reply<Learnt, Unavailable>),
    AddUrl(String, Actor, Reply<(), UrlError>),
    RemoveUrl(String, Actor, Reply<(), UrlError>),
    TellUrls(Reply<(), Unavailable>),
    Relays(relays::Edit, Actor, Reply<(), RelayError>),
    People(people::PeopleCommand),
    NoteBackup(Actor, Reply<(), Unavailable>),
    /// Another coordinator has stored something.
    CatchUp(Reply<(), Unavailable>),
}

/// A way to the writer, and to the state that it publishes.
#[derive(Debug, Clone)]
pub struct Registry {
    commands: mpsc::Sender<Command>,
    world: watch::Receiver<Arc<World>>,
    writable: watch::Receiver<bool>,
    store_errors: Arc<AtomicU64>,
    store: Store,
}

impl Registry {
    /// Loads the state, makes the first network where there has never been one, and starts the writer; it ends when
    /// the last `Registry` is gone. A member may stay unheard of for `membership`; `urls` are those of the settings that
    /// nodes can reach.
    pub async fn start(
        store: Store,
        membership: Duration,
        urls: Vec<String>,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), Unavailable> {
        crate::epoch::ensure_first(&store).await?;
        let world = Arc::new(store.load().await?.with_membership(membership));
        let never_used = world.audit_head == crate::audit::Head::START;
        let (publish, published) = watch::channel(world);
        let (writable_tx, writable) = watch::channel(true);
        let (commands, queue) = mpsc::channel(QUEUE);
        let writer = writer::Writer::new(store.clone(), publish, writable_tx, urls);
        let store_errors = writer.store_errors.clone();
        let task = tokio::spawn(writer.run(queue));
        let registry = Self { commands, world: published, writable, store_errors, store };
        if never_used && let Ok(name) = "lab".parse() {
            let lab = NewNetwork::named(name);
            registry.create_network(lab, Actor::Coordinator).await.map_err(|error| match error {
                CreateNetworkError::Unavailable(error) => error,
                CreateNetworkError::NameTaken(_)
                | CreateNetworkError::Prefix(_)
                | CreateNetworkError::Mtu(_)
                | CreateNetworkError::NoDomain => Unavailable::Stopping,
            })?;
        }
        registry.ask(Command::TellUrls).await?;
        Ok((registry, task))
    }

    /// The state as it is on disk now.
    pub fn world(&self) -> Arc<World> {
        self.world.borrow().clone()
    }

    /// One network of it.
    pub fn network(&self, network: NetworkId) -> Option<Arc<Network>> {
        self.world.borrow().networks.get(&network).cloned()
    }

    /// Moves whenever the state changes.
    pub fn watch(&self) -> watch::Receiver<Arc<World>> {
        self.world.clone()
    }

    /// Why a node is no member any more, as far as that is known.
    pub async fn departure(&self, network: NetworkId, node: NodeId) -> Option<Departure> {
        let found = self.store.departure(network, node).await;
        found.inspect_err(|error| tracing::debug!(%error, "why a node left is not known")).ok().flatten()
    }

    /// Whether the last write went well.
    pub fn is_writable(&self) -> bool {
        *self.writable.borrow()
    }

    /// How many changes could not be stored.
    pub fn store_errors(&self) -> u64 {
        self.store_errors.load(Ordering::Relaxed)
    }

    /// Makes a network.
    pub async fn create_network(
        &self,
        new: NewNetwork,
        actor: Actor,
    ) -> Result<Arc<Network>, CreateNetworkError> {
        self.ask(|reply| Command::CreateNetwork(new, actor, reply)).await
    }

    /// Makes a join key.
    pub async fn create_key(&self, new: NewKey, actor: Actor) -> Result<CreatedKey, CreateKeyError> {
        self.ask(|reply| Command::CreateKey(new, actor, reply)).await
    }

    /// Revokes a join key; doing so again changes nothing.
    pub async fn revoke_key(&self, key: KeyId, actor: Actor) -> Result<Arc<JoinKeyEntry>, RevokeKeyError> {
        self.ask(|reply| Command::RevokeKey(key, actor, reply)).await
    }

    /// Makes a node that proved its keys a member, or lets it wait for approval.
    pub async fn admit(&self, enrolment: ProvenEnrolment) -> Result<Admission, AdmitError> {
        self.ask(|reply| Command::Admit(Box::new(enrolment), reply)).await
    }

    /// Lets a member whose time has ended wait for approval.
    pub async fn come_back(&self, former: Former) -> Result<Admission, AdmitError> {
        self.ask(|reply| Command::Queue(QueueCommand::ComeBack(former, reply))).await
    }

    /// Makes a node that waits a member, under this name if one is given.
    pub async fn approve(
        &self,
        network: NetworkId,
        node: NodeId,
        name: Option<Name>,
        actor: Actor,
    ) -> Result<Arc<MemberEntry>, DecideError> {
        self.ask(|reply| Command::Queue(QueueCommand::Approve(network, node, name, actor, reply))).await
    }

    /// Does not let a node in; doing so again changes nothing.
    pub async fn reject(
        &self,
        network: NetworkId,
        node: NodeId,
        actor: Actor,
    ) -> Result<Arc<WaitingEntry>, DecideError> {
        self.ask(|reply| Command::Queue(QueueCommand::Reject(network, node, actor, reply))).await
    }

    /// A node does not wait any more, by its own wish.
    pub async fn withdraw(&self, network: NetworkId, node: NodeId) -> Result<(), DecideError> {
        self.ask(|reply| Command::Queue(QueueCommand::Withdraw(network, node, reply))).await
    }

    /// Forgets waiting nodes that were not heard of for too long; `connected` are heard now.
    pub async fn sweep_waiting(&self, connected: Vec<(NetworkId, NodeId)>) -> Result<(), Unavailable> {
        self.ask(|reply| Command::Queue(QueueCommand::Sweep(connected, reply))).await
    }

    /// Changes a member's name or tags.
    pub async fn edit_node(
        &self,
        network: NetworkId,
        node: NodeId,
        edit: impl Into<SeenEdit>,
        actor: Actor,
    ) -> Result<Arc<MemberEntry>, EditNodeError> {
        let edit = edit.into();
        self.ask(|reply| Command::EditNode(network, node, edit, actor, reply)).await
    }

    /// Changes of whom the members of a network are told.
    pub async fn set_peers(
        &self,
        network: NetworkId,
        mode: PeerMode,
        actor: Actor,
    ) -> Result<Arc<Network>, SetNetworkError> {
        self.ask(|reply| Command::SetPeers(network, mode, actor, reply)).await
    }

    /// Has a network carry these multicast groups and no others.
    pub async fn set_multicast(
        &self,
        network: NetworkId,
        groups: MulticastGroups,
        actor: Actor,
    ) -> Result<Arc<Network>, SetNetworkError> {
        self.ask(|reply| Command::SetMulticast(network, groups, actor, reply)).await
    }

    /// Counts a failed proof against the address that it came from.
    pub async fn note_failed_proof(&self, from: IpAddr) {
        // A writer that is gone limits nobody and admits nobody.
        let _ = self.commands.send(Command::NoteFailedProof(from)).await;
    }

    /// Ends a membership.
    pub async fn remove_node(
        &self,
        network: NetworkId,
        node: NodeId,
        actor: Actor,
    ) -> Result<Arc<MemberEntry>, RemoveNodeError> {
        self.ask(|reply| Command::RemoveNode(network, node, None, actor, reply)).await
    }

    /// The same for somebody who has seen it before.
    pub async fn remove_node_seen(
        &self,
        network: NetworkId,
        node: NodeId,
        seen: Option<Etag>,
        actor: Actor,
    ) -> Result<Arc<MemberEntry>, RemoveNodeError> {
        self.ask(|reply| Command::RemoveNode(network, node, seen, actor, reply)).await
    }

    /// Takes members out of the maps whose time without contact is over; `online` are never among them.
    pub async fn sweep_lapsed(&self, online: Vec<(NetworkId, NodeId)>) -> Result<(), Unavailable> {
        self.ask(|reply| Command::SweepLapsed(online, reply)).await
    }

    /// Keeps a member out, or lets it take part again; doing so again changes nothing.
    pub async fn set_node_enabled(
        &self,
        standing: NodeStanding,
        actor: Actor,
    ) -> Result<Arc<MemberEntry>, SetNodeEnabledError> {
        self.ask(|reply| Command::SetNodeEnabled(standing, actor, reply)).await
    }

    /// Has a member be known by another WireGuard key, which it has proved to hold.
    pub async fn rotate_key(
        &self,
        network: NetworkId,
        node: NodeId,
        wg_key: WgPublicKey,
    ) -> Result<(), RotateKeyError> {
        self.ask(|reply| Command::RotateKey(network, node, wg_key, reply)).await
    }

    /// Another authority has taken over, or one was retired: the database belongs to it, and the audit log says so.
    pub async fn note_authority(&self, authority: Arc<Authority>, event: Event) -> Result<(), Unavailable> {
        self.ask(|reply| Command::NoteAuthority(authority, event, reply)).await
    }

    /// Keeps in the audit log what was changed on a node itself.
    pub async fn note_local_change(
        &self,
        network: NetworkId,
        node: NodeId,
        change: LocalChange,
    ) -> Result<(), Unavailable> {
        self.ask(|reply| Command::NoteLocalChange(network, node, change, reply)).await
    }

    /// Puts something into the audit log that changes nothing.
    pub async fn record(&self, event: Event) -> Result<(), Unavailable> {
        self.ask(|reply| Command::Record(Box::new(event), reply)).await
    }

    /// Stores when nodes were heard of last.
    pub async fn note_contacts(&self, contacts: Vec<Contact>) -> Result<(), Unavailable> {
        self.ask(|reply| Command::NoteContacts(contacts, reply)).await
    }

    /// Takes what a node has kept for the coordinator.
    pub async fn testify(&self, testified: Testified) -> Result<Learnt, Unavailable> {
        self.ask(|reply| Command::Testify(Box::new(testified), reply)).await
    }

    /// Notes in the log that somebody has a backup made.
    pub async fn note_backup(&self, actor: Actor) -> Result<(), Unavailable> {
        self.ask(|reply| Command::NoteBackup(actor, reply)).await
    }

    /// Another coordinator has stored something, which is seen here and told to sessions when this returns.
    pub async fn catch_up(&self) -> Result<(), Unavailable> {
        self.ask(Command::CatchUp).await
    }

    /// Adds a URL to those that nodes are told.
    pub async fn add_url(&self, url: String, actor: Actor) -> Result<(), UrlError> {
        self.ask(|reply| Command::AddUrl(url, actor, reply)).await
    }

    /// Takes away one that was added.
    pub async fn remove_url(&self, url: String, actor: Actor) -> Result<(), UrlError> {
        self.ask(|reply| Command::RemoveUrl(url, actor, reply)).await
    }

    /// Adds a relay to those that nodes are told of.
    pub async fn add_relay(&self, relay: RelayEntry, actor: Actor) -> Result<(), RelayError> {
        self.ask(|reply| Command::Relays(relays::Edit::Add(Box::new(relay)), actor, reply)).await
    }

    /// Takes one away.
    pub async fn remove_relay(&self, name: String, actor: Actor) -> Result<(), RelayError> {
        self.ask(|reply| Command::Relays(relays::Edit::Remove(name), actor, reply)).await
    }

    /// A stand-alone relay is known by this key and is at this place from now on.
    pub async fn place_relay(&self, arrived: Arrived) -> Result<(), RelayError> {
        self.ask(|reply| Command::Relays(relays::Edit::Arrived(arrived), Actor::Coordinator, reply)).await
    }

    async fn ask<T, E: From<Unavailable>>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Command,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        let stopping = |_| E::from(Unavailable::Stopping);
        self.commands.send(command(reply)).await.map_err(|_| E::from(Unavailable::Stopping))?;
        answer.await.map_err(stopping)?
    }
}

/// The name in the database under which the fingerprint of the certification authority stands.
const META_CA: &str = "ca_spki_sha256";

/// The certification authority does not belong to the database.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityMismatch {
    #[error(
        "the database belongs to another certification authority than the one in the data directory; restore the \
         directory `identity` from the backup that belongs to the database (all nodes have pinned it)"
    )]
    Other,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The fingerprint of the certification authority that the database belongs to, if it is not new.
pub async fn known_authority(store: &Store) -> Result<Option<SpkiHash>, StoreError> {
    let known = store.meta(META_CA).await?;
    known.map(|text| text.parse().map_err(|e| StoreError::Damaged(format!("{META_CA}: {e}")))).transpose()
}

/// Ties the database to its certification authority, or checks that it is this one or one before it.
pub async fn bind_authority(store: &Store, authority: &Authority) -> Result<(), AuthorityMismatch> {
    let known = known_authority(store).await?;
    let is_before = |pin| authority.older().iter().any(|older| older.pin == pin);
    match known {
        Some(known) if known == authority.pin() => return Ok(()),
        Some(known) if !is_before(known) => return Err(AuthorityMismatch::Other),
        Some(_) | None => {}
    }
    let mut transaction = store.begin().await?;
    crate::store::Write::new(&mut transaction).meta(META_CA, &authority.pin().to_string()).await?;
    Ok(store.commit(transaction).await?)
}

#[cfg(test)]
mod tests;
