//! Who is connected: the live half of what the coordinator knows, owned by one task.
//!
//! Sessions tell it of their beginning, their reports and their end; it keeps one session per node, gathers what
//! changed for a moment, and tells all sessions of the network. Nothing here is durable except when a node was heard
//! of last, which goes to the registry now and then.

mod clones;
mod remote;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ria_protocol::enrol::Cloned;
use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::map::{Candidate, Live, Revision};
use ria_protocol::time::UnixTime;
use ria_protocol::version::Protocol;
use serde_json::json;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::audit::{Actor, Event};
use crate::registry::{Contact, Registry};
use crate::state::view::News;
use crate::store::Instance;
use clones::{Arrival, Runs, Verdict};
#[cfg(any(test, feature = "fuzz"))]
pub use remote::Heard;
use remote::Remotes;
pub use remote::{Report, Told};

const QUEUE: usize = 1024;
/// News a session may lag behind before it is closed.
const FEED_LENGTH: usize = 1024;
/// News are gathered for this long, so that a thousand nodes that come back at once make few messages.
const GATHERED: Duration = Duration::from_millis(20);
/// How often it is stored which nodes have come and gone.
const STORED_EVERY: Duration = Duration::from_secs(60);
/// How often it is stored that a node is still here.
const STORED_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// A session that begins is told what was so at most [`GATHERED`] ago, where a network is larger than this: a thousand nodes
/// that come back at once would else have a thousand lists made of a thousand members.
const MADE_FOR_EACH: usize = 64;

/// News of members, as they were at one moment.
pub type LiveNews = Arc<News>;

/// One session of a node; a later one has a greater number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub(crate) u64);

/// A session begins.
#[derive(Debug, Clone)]
pub struct Begin {
    pub network: NetworkId,
    pub node: NodeId,
    pub boot: BootId,
    pub agent_version: String,
    pub protocol: Protocol,
    pub from: IpAddr,
    /// By how many seconds the node's clock is ahead of this one, if it said so.
    pub clock_offset: Option<i64>,
}

/// A session can't begin.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BeginError {
    /// Another machine has the node's identity now, from where that one is told.
    #[error("another machine is connected with this identity")]
    Cloned,
    #[error(transparent)]
    Gone(#[from] HubGone),
}

/// What a session that begins is given.
#[derive(Debug)]
pub struct Begun {
    pub id: SessionId,
    /// All that is known of members; what has changed since is among the first news.
    pub whole: Option<LiveNews>,
    /// What changes from now on.
    pub news: broadcast::Receiver<LiveNews>,
    /// Fires when a newer session of the node has taken over.
    pub replaced: oneshot::Receiver<()>,
    /// Whether another machine tries to use the node's identity.
    pub cloned: watch::Receiver<Option<Cloned>>,
}

/// What administrators see of a node's session.
#[derive(Debug, Clone)]
pub struct Presence {
    pub online: bool,
    pub boot: Option<BootId>,
    pub candidates: Vec<Candidate>,
    pub last_contact: UnixTime,
    pub acked: Option<(Revision, UnixTime)>,
    pub agent_version: String,
    pub protocol: Protocol,
    /// From where it is connected, or was last.
    pub from: IpAddr,
    /// Whether another machine tries to use its identity.
    pub cloned: Option<Cloned>,
    /// By how many seconds its clock was ahead of this one when it connected.
    pub clock_offset: Option<i64>,
}

#[derive(Debug)]
enum Command {
    Begin(Begin, oneshot::Sender<Result<Begun, BeginError>>),
    Report { node: NodeKey, session: SessionId, candidates: Vec<Candidate> },
    Acked { node: NodeKey, session: SessionId, revision: Revision },
    End { node: NodeKey, session: SessionId },
    Forget(NodeKey),
    Presence(oneshot::Sender<BTreeMap<NodeKey, Presence>>),
    Wait(NodeKey, oneshot::Sender<oneshot::Receiver<()>>),
    Present(oneshot::Sender<Present>),
    Told(Instance, NetworkId, Vec<Told>),
    Gone(Instance),
    TellAll,
    Store(oneshot::Sender<()>),
    LiveOf(NetworkId, Vec<NodeId>, oneshot::Sender<Vec<Live>>),
}

/// A node of a network.
pub type NodeKey = (NetworkId, NodeId);

/// Who is connected now.
#[derive(Debug, Clone, Default)]
pub struct Present {
    /// Members.
    pub online: BTreeSet<NodeKey>,
    /// Nodes that wait for approval.
    pub waiting: BTreeSet<NodeKey>,
}

/// A way to the hub.
#[derive(Debug, Clone)]
pub struct Hub {
    commands: mpsc::Sender<Command>,
    changes: watch::Receiver<u64>,
}

/// The hub's task has ended, so the coordinator is stopping.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the coordinator is stopping")]
pub struct HubGone;

impl Hub {
    /// Starts the task; it ends when the last `Hub` is gone. `others` are told what there is to tell of nodes that are
    /// connected here.
    pub fn start(
        registry: Registry,
        others: Option<mpsc::Sender<Report>>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (told, changes) = watch::channel(0);
        let owner = Owner {
            registry,
            entries: BTreeMap::new(),
            waiting: BTreeMap::new(),
            runs: BTreeMap::new(),
            remotes: Remotes::default(),
            others,
            feeds: BTreeMap::new(),
            sessions: 0,
            told,
        };
        (Self { commands, changes }, tokio::spawn(owner.run(queue)))
    }

    /// Moves whenever nodes have come or gone, or may be reached elsewhere.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// A session begins; one that the node had is told to end.
    pub async fn begin(&self, begin: Begin) -> Result<Begun, BeginError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Begin(begin, reply)).await?;
        answer.await.map_err(|_| HubGone)?
    }

    /// Where a node may be reached now.
    pub async fn report(
        &self,
        node: NodeKey,
        session: SessionId,
        candidates: Vec<Candidate>,
    ) -> Result<(), HubGone> {
        self.send(Command::Report { node, session, candidates }).await
    }

    /// A node has applied the map up to a revision.
    pub async fn acked(&self, node: NodeKey, session: SessionId, revision: Revision) -> Result<(), HubGone> {
        self.send(Command::Acked { node, session, revision }).await
    }

    /// A session has ended.
    pub async fn end(&self, node: NodeKey, session: SessionId) -> Result<(), HubGone> {
        self.send(Command::End { node, session }).await
    }

    /// A node is no member any more.
    pub async fn forget(&self, node: NodeKey) -> Result<(), HubGone> {
        self.send(Command::Forget(node)).await
    }

    /// All nodes that were here since the coordinator was started.
    pub async fn presence(&self) -> Result<BTreeMap<NodeKey, Presence>, HubGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Presence(reply)).await?;
        answer.await.map_err(|_| HubGone)
    }

    /// A node that waits for approval has connected; the answer fires when it has done so again, elsewhere.
    pub async fn wait(&self, node: NodeKey) -> Result<oneshot::Receiver<()>, HubGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Wait(node, reply)).await?;
        answer.await.map_err(|_| HubGone)
    }

    /// Who is connected now.
    pub async fn present(&self) -> Result<Present, HubGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Present(reply)).await?;
        answer.await.map_err(|_| HubGone)
    }

    /// What another coordinator tells of nodes that are connected to it.
    pub async fn told(&self, by: Instance, network: NetworkId, nodes: Vec<Told>) -> Result<(), HubGone> {
        self.send(Command::Told(by, network, nodes)).await
    }

    /// Another coordinator is gone.
    pub async fn gone(&self, instance: Instance) -> Result<(), HubGone> {
        self.send(Command::Gone(instance)).await
    }

    /// Has the others be told of all nodes that are connected here.
    pub async fn tell_all(&self) -> Result<(), HubGone> {
        self.send(Command::TellAll).await
    }

    /// Stores now what would be stored some time later.
    pub async fn store(&self) -> Result<(), HubGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Store(reply)).await?;
        answer.await.map_err(|_| HubGone)
    }

    async fn send(&self, command: Command) -> Result<(), HubGone> {
        self.commands.send(command).await.map_err(|_| HubGone)
    }
}

#[derive(Debug)]
struct Entry {
    presence: Presence,
    session: SessionId,
    /// Held while the session is the node's latest one.
    replace: Option<oneshot::Sender<()>>,
    cloned: watch::Sender<Option<Cloned>>,
    /// When the database was told of the node last; absent when it has to be.
    stored: Option<UnixTime>,
}

/// What other members are told of a node.
fn live(node: NodeId, presence: &Presence) -> Live {
    Live { node, online: presence.online, boot: presence.boot, candidates: presence.candidates.clone() }
}

impl Entry {
    fn is_to_be_stored(&self, now: UnixTime) -> bool {
        self.stored.is_none_or(|at| self.presence.online && now.since(at) >= STORED_AGAIN_AFTER)
    }

    fn contact(&self, (network, node): NodeKey, now: UnixTime) -> Contact {
        // A node that is connected is heard of all the time.
        let time = if self.presence.online { now } else { self.presence.last_contact };
        Contact { network, node, time, agent_version: self.presence.agent_version.clone() }
    }

    fn touch(&mut self) {
        self.presence.last_contact = UnixTime::from(SystemTime::now());
    }
}

#[derive(Debug)]
struct Feed {
    /// Those of the changed ones whose sessions have just begun.
    began: BTreeSet<NodeId>,
    /// All that was known of members, and when that was.
    whole: Option<(Instant, LiveNews)>,
    news: broadcast::Sender<LiveNews>,
    changed: BTreeSet<NodeId>,
}

struct Owner {
    registry: Registry,
    entries: BTreeMap<NodeKey, Entry>,
    /// Connections of nodes that wait for approval; closed when the connection is.
    waiting: BTreeMap<NodeKey, oneshot::Sender<()>>,
    runs: BTreeMap<NodeKey, Runs>,
    /// Nodes that are connected elsewhere.
    remotes: Remotes,
    others: Option<mpsc::Sender<Report>>,
    feeds: BTreeMap<NetworkId, Feed>,
    sessions: u64,
    told: watch::Sender<u64>,
}

impl Owner {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut store = interval(STORED_EVERY);
        store.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tell_at: Option<Instant> = None;
        loop {
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.handle_command(command).await,
                    None => break,
                },
                () = sleep_until(tell_at.unwrap_or_else(Instant::now)), if tell_at.is_some() => {
                    tell_at = None;
                    self.tell();
                }
                _ = store.tick() => {
                    self.end_conflicts();
                    self.store_contacts().await;
                }
            }
            if tell_at.is_none() && self.feeds.values().any(|feed| !feed.changed.is_empty()) {
                tell_at = Some(Instant::now() + GATHERED);
            }
        }
    }

    async fn handle_command(&mut self, command: Command) {
        match command {
            Command::Begin(begin, reply) => {
                let node = (begin.network, begin.node);
                if let Err(refused) = self.judge(&begin).await {
                    let _ = reply.send(Err(refused));
                    return;
                }
                let begun = self.begin(begin);
                let session = begun.id;
                // A session that ended while it waited for this has nobody to report its end.
                if reply.send(Ok(begun)).is_err() {
                    self.end(node, session);
                }
            }
            Command::Report { node, session, candidates } => self.report(node, session, candidates),
            Command::Acked { node, session, revision } => {
                if let Some(entry) = self.current(node, session) {
                    entry.touch();
                    entry.presence.acked = Some((revision, entry.presence.last_contact));
                }
            }
            Command::End { node, session } => self.end(node, session),
            Command::Told(by, network, nodes) => self.handle_told(by, network, nodes),
            Command::Gone(instance) => {
                self.remotes.handle_gone(instance).into_iter().for_each(|node| self.note_change(node));
            }
            Command::TellAll => self.tell_all_to_others(),
            Command::Forget(node) => {
                self.entries.remove(&node);
                self.remotes.take(node);
                self.runs.remove(&node);
            }
            Command::Presence(reply) => {
                let remote = self.remotes.iter().map(|(node, presence)| (*node, presence.clone()));
                let here = self.entries.iter().map(|(node, entry)| (*node, entry.presence.clone()));
                let _ = reply.send(remote.chain(here).collect());
            }
            Command::Wait(node, reply) => {
                let (replace, replaced) = oneshot::channel();
                self.waiting.retain(|_, connection| !connection.is_closed());
                if let Some(before) = self.waiting.insert(node, replace) {
                    let _ = before.send(());
                }
                let _ = reply.send(replaced);
            }
            Command::Present(reply) => {
                let _ = reply.send(self.present());
            }
            Command::LiveOf(network, nodes, reply) => drop(reply.send(self.live_of(network, nodes))),
            Command::Store(reply) => {
                self.store_contacts().await;
                let _ = reply.send(());
            }
        }
    }

    fn present(&self) -> Present {
        let online = self.entries.iter().filter(|(_, entry)| entry.presence.online);
        let waiting = self.waiting.iter().filter(|(_, connection)| !connection.is_closed());
        Present {
            online: online.map(|(node, _)| *node).chain(self.remotes.online()).collect(),
            waiting: waiting.map(|(node, _)| *node).collect(),
        }
    }

    /// Whether a session may begin, or another machine has this identity.
    async fn judge(&mut self, begin: &Begin) -> Result<(), BeginError> {
        let node = (begin.network, begin.node);
        let online = self.entries.get(&node).is_some_and(|entry| entry.presence.online);
        let (now, time) = (Instant::now(), UnixTime::from(SystemTime::now()));
        let arrival = Arrival { boot: begin.boot, from: begin.from, online };
        let runs = self.runs.entry(node).or_default();
        let verdict = runs.handle_arrival(arrival, now, time);
        let cloned = runs.cloned();
        if let Some(entry) = self.entries.get_mut(&node).filter(|e| e.presence.cloned != cloned) {
            entry.presence.cloned.clone_from(&cloned);
            entry.cloned.send_replace(cloned);
        }
        match verdict {
            Verdict::Begin => Ok(()),
            Verdict::Refuse { first } => {
                if first {
                    self.report_clone(begin).await;
                }
                Err(BeginError::Cloned)
            }
        }
    }

    async fn report_clone(&self, begin: &Begin) {
        tracing::warn!("two machines use the identity of one node; see: ria-coordinator node list");
        let (network, node) = (begin.network, begin.node);
        let known = self.registry.network(network);
        let name = known.and_then(|n| n.members.get(&node).map(|m| m.name.to_string()));
        let kept = self.entries.get(&(network, node)).map(|entry| entry.presence.from);
        let event = Event {
            time: UnixTime::from(SystemTime::now()),
            actor: Actor::Coordinator,
            action: "node.cloned",
            network: Some(network),
            subject: name.unwrap_or_else(|| node.to_string()),
            detail: json!({ "node": node, "kept": kept, "refused": begin.from }),
        };
        if let Err(error) = self.registry.record(event).await {
            tracing::debug!(%error, "that a node was cloned is not in the audit log");
        }
    }

    fn end_conflicts(&mut self) {
        let now = Instant::now();
        for (node, runs) in &mut self.runs {
            if runs.handle_tick(now)
                && let Some(entry) = self.entries.get_mut(node)
            {
                entry.presence.cloned = None;
                entry.cloned.send_replace(None);
            }
        }
    }

    fn begin(&mut self, begin: Begin) -> Begun {
        self.sessions += 1;
        let id = SessionId(self.sessions);
        let (replace, replaced) = oneshot::channel();
        let node = (begin.network, begin.node);
        let before = self.entries.remove(&node);
        let elsewhere = self.remotes.take(node);
        let (candidates, acked) = before.map_or((elsewhere, None), |before| {
            if let Some(replace) = before.replace {
                // An older session that has just ended by itself needs no telling.
                let _ = replace.send(());
            }
            (before.presence.candidates, before.presence.acked)
        });
        let presence = Presence {
            online: true,
            boot: Some(begin.boot),
            candidates,
            last_contact: UnixTime::from(SystemTime::now()),
            acked,
            agent_version: begin.agent_version,
            clock_offset: begin.clock_offset,
            protocol: begin.protocol,
            from: begin.from,
            cloned: self.runs.get(&node).and_then(Runs::cloned),
        };
        let (cloned, watched) = watch::channel(presence.cloned.clone());
        let entry = Entry { presence, session: id, replace: Some(replace), cloned, stored: None };
        self.entries.insert(node, entry);
        self.note_change(node);
        self.feed(node.0).began.insert(node.1);
        let whole = Some(self.whole(begin.network));
        let news = self.feed(begin.network).news.subscribe();
        Begun { id, whole, news, replaced, cloned: watched }
    }

    fn report(&mut self, node: NodeKey, session: SessionId, mut candidates: Vec<Candidate>) {
        let Some(entry) = self.current(node, session) else { return };
        candidates.sort_unstable();
        candidates.dedup();
        entry.touch();
        // "Empty" would mean "not known" to the others; what was known before is better than that.
        if candidates.is_empty() || entry.presence.candidates == candidates {
            return;
        }
        entry.presence.candidates = candidates;
        self.note_change(node);
    }

    fn end(&mut self, node: NodeKey, session: SessionId) {
        let Some(entry) = self.current(node, session) else { return };
        entry.touch();
        entry.stored = None;
        entry.presence.online = false;
        entry.replace = None;
        self.note_change(node);
    }

    /// The node's entry, when this is still its session.
    fn current(&mut self, node: NodeKey, session: SessionId) -> Option<&mut Entry> {
        self.entries.get_mut(&node).filter(|entry| entry.session == session)
    }

    fn network_entries(&self, network: NetworkId) -> impl Iterator<Item = (NodeId, &Entry)> {
        let first = (network, NodeId::from_bytes([0; NodeId::LEN]));
        let last = (network, NodeId::from_bytes([0xff; NodeId::LEN]));
        self.entries.range(first..=last).map(|((_, node), entry)| (*node, entry))
    }

    /// All that is known of a network's members. What has changed since it was made is told as news, to the new session too.
    fn whole(&mut self, network: NetworkId) -> LiveNews {
        let now = Instant::now();
        if let Some((made, whole)) = &self.feed(network).whole
            && whole.members().len() > MADE_FOR_EACH
            && now < *made + GATHERED
        {
            return whole.clone();
        }
        let here = self.network_entries(network).map(|(node, entry)| live(node, &entry.presence));
        let members = here.chain(self.remotes.of(network)).collect();
        let whole = Arc::new(News::new(true, members));
        self.feed(network).whole = Some((now, whole.clone()));
        whole
    }

    fn feed(&mut self, network: NetworkId) -> &mut Feed {
        let feed = || Feed {
            began: BTreeSet::new(),
            whole: None,
            news: broadcast::Sender::new(FEED_LENGTH),
            changed: BTreeSet::new(),
        };
        self.feeds.entry(network).or_insert_with(feed)
    }

    fn note_change(&mut self, (network, node): NodeKey) {
        self.feed(network).changed.insert(node);
    }

    /// Tells all sessions what has changed.
    fn tell(&mut self) {
        self.told.send_modify(|count| *count += 1);
        for (network, feed) in &mut self.feeds {
            let (changed, began) = (std::mem::take(&mut feed.changed), std::mem::take(&mut feed.began));
            let here = |node| self.entries.get(&(*network, node)).map(|entry| &entry.presence);
            if let Some(others) = &self.others {
                let told = |node: &NodeId| Some(Told::new(*node, here(*node)?, began.contains(node)));
                remote::tell_others(others, *network, changed.iter().filter_map(told).collect());
            }
            let there = |node| self.remotes.get((*network, node));
            let known = |node| here(node).or_else(|| there(node)).map(|presence| live(node, presence));
            let news: Vec<Live> = changed.into_iter().filter_map(known).collect();
            if !news.is_empty() {
                // Nobody may be connected.
                let _ = feed.news.send(Arc::new(News::new(false, news)));
            }
        }
    }

    async fn store_contacts(&mut self) {
        let now = UnixTime::from(SystemTime::now());
        let contacts: Vec<Contact> = self
            .entries
            .iter()
            .filter(|(_, e)| e.is_to_be_stored(now))
            .map(|(k, e)| e.contact(*k, now))
            .collect();
        if contacts.is_empty() {
            return;
        }
        let told: Vec<NodeKey> = contacts.iter().map(|contact| (contact.network, contact.node)).collect();
        match self.registry.note_contacts(contacts).await {
            Ok(()) => {
                for node in told {
                    if let Some(entry) = self.entries.get_mut(&node) {
                        entry.stored = Some(now);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "times of last contact are not stored; tried again later"),
        }
    }
}
