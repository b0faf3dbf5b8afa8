//! Who has to do with whom in on-demand networks: owned by one task, asked and told by the sessions of nodes.
//!
//! Nothing of it is stored: nodes name whom they hold when they come, so it is the same again after a restart. Of several
//! coordinators on one database each tells the others what nodes ask for and let go of.

mod sets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ria_protocol::id::{NetworkId, NodeId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::hub::{HubGone, NodeKey};
use sets::{Sets, Touched};

const QUEUE: usize = 1024;
/// How often it is looked who has gone.
const SWEPT_EVERY: Duration = Duration::from_secs(60);

/// Of whom a node is told.
pub type Seen = Arc<BTreeSet<NodeId>>;

/// What a node asks for, or lets go of, for other coordinators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tie {
    pub network: NetworkId,
    pub node: NodeId,
    pub peer: NodeId,
    pub held: bool,
}

#[derive(Debug)]
enum Command {
    Begin(NodeKey, Vec<NodeId>, oneshot::Sender<watch::Receiver<Seen>>),
    BeginOpen(NodeKey),
    Hold(NodeKey, NodeId, oneshot::Sender<bool>),
    Release(NodeKey, Vec<NodeId>),
    Forget(NodeKey),
    Told(Tie),
    TellAll,
}

/// A way to the task.
#[derive(Debug, Clone)]
pub struct Interests {
    commands: mpsc::Sender<Command>,
}

impl Interests {
    /// Starts the task; it ends when the last `Interests` is gone. `others` are told what nodes here ask for.
    pub fn start(others: Option<mpsc::Sender<Tie>>) -> Self {
        let (commands, queue) = mpsc::channel(QUEUE);
        let owner = Owner { networks: BTreeMap::new(), here: BTreeMap::new(), others };
        tokio::spawn(owner.run(queue));
        Self { commands }
    }

    /// A node comes and says whom it holds. What is answered follows whom it is to be told of.
    pub async fn begin(&self, node: NodeKey, holds: Vec<NodeId>) -> Result<watch::Receiver<Seen>, HubGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Begin(node, holds, reply)).await?;
        answer.await.map_err(|_| HubGone)
    }

    /// A node comes that knows no on-demand mode.
    pub async fn begin_open(&self, node: NodeKey) -> Result<(), HubGone> {
        self.send(Command::BeginOpen(node)).await
    }

    /// A node has something to say to another, and is told of it, as that one is of it. `false`: one of the two has too many
    /// of them.
    pub async fn hold(&self, node: NodeKey, peer: NodeId) -> Result<bool, HubGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Hold(node, peer, reply)).await?;
        answer.await.map_err(|_| HubGone)
    }

    /// A node has had nothing to do with these for a while.
    pub async fn release(&self, node: NodeKey, peers: Vec<NodeId>) -> Result<(), HubGone> {
        self.send(Command::Release(node, peers)).await
    }

    /// A node is nobody's to have to do with any more.
    pub async fn forget(&self, node: NodeKey) -> Result<(), HubGone> {
        self.send(Command::Forget(node)).await
    }

    /// Another coordinator tells of a node.
    pub async fn told(&self, tie: Tie) -> Result<(), HubGone> {
        self.send(Command::Told(tie)).await
    }

    /// Has the others be told of all again.
    pub async fn tell_all(&self) -> Result<(), HubGone> {
        self.send(Command::TellAll).await
    }

    async fn send(&self, command: Command) -> Result<(), HubGone> {
        self.commands.send(command).await.map_err(|_| HubGone)
    }
}

#[derive(Debug)]
struct Owner {
    networks: BTreeMap<NetworkId, Sets>,
    /// Nodes with a session here, which is told of changes. One that has ended listens no more.
    here: BTreeMap<NodeKey, watch::Sender<Seen>>,
    others: Option<mpsc::Sender<Tie>>,
}

impl Owner {
    async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut sweep = interval(SWEPT_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.handle(command),
                    None => return,
                },
                _ = sweep.tick() => self.here.retain(|_, session| !session.is_closed()),
            }
        }
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Begin((network, node), holds, reply) => {
                holds.iter().for_each(|peer| self.tell_others((network, node), *peer, true));
                let touched = self.sets(network).resume(node, Some(&holds));
                let seen = Arc::new(self.sets(network).seen_by(node));
                let (session, receiver) = watch::channel(seen);
                self.here.insert((network, node), session);
                self.update(network, &touched);
                // A session that has ended meanwhile is found by the next sweep.
                let _ = reply.send(receiver);
            }
            Command::BeginOpen((network, node)) => {
                let touched = self.sets(network).resume(node, None);
                self.update(network, &touched);
            }
            Command::Hold((network, node), peer, reply) => {
                let held = self.sets(network).hold(node, peer);
                if held {
                    self.tell_others((network, node), peer, true);
                    self.update(network, &Touched::These([node, peer].into()));
                }
                let _ = reply.send(held);
            }
            Command::Release((network, node), peers) => {
                for peer in peers {
                    self.tell_others((network, node), peer, false);
                    self.release((network, node), peer);
                }
            }
            Command::Forget((network, node)) => {
                let touched = self.sets(network).forget(node);
                self.update(network, &touched);
            }
            Command::Told(Tie { network, node, peer, held: true }) => {
                if self.sets(network).hold(node, peer) {
                    self.update(network, &Touched::These([node, peer].into()));
                }
            }
            Command::Told(Tie { network, node, peer, held: false }) => self.release((network, node), peer),
            Command::TellAll => {
                for (network, sets) in &self.networks {
                    for (node, peer) in sets.holds() {
                        let here =
                            self.here.get(&(*network, node)).is_some_and(|session| !session.is_closed());
                        if here {
                            self.tell_others((*network, node), peer, true);
                        }
                    }
                }
            }
        }
    }

    fn sets(&mut self, network: NetworkId) -> &mut Sets {
        self.networks.entry(network).or_default()
    }

    fn release(&mut self, (network, node): NodeKey, peer: NodeId) {
        // Where there are other coordinators, it may be with one of them.
        let with_us = self.here.get(&(network, peer)).is_some_and(|session| !session.is_closed());
        let here = with_us || self.others.is_some();
        if self.sets(network).release(node, peer, here) {
            self.update(network, &Touched::These([node, peer].into()));
        }
    }

    /// Tells the sessions of these nodes whom they have to do with now.
    fn update(&self, network: NetworkId, touched: &Touched) {
        let Some(sets) = self.networks.get(&network) else { return };
        let is_touched = |node: NodeId| match touched {
            Touched::Everybody => true,
            Touched::These(nodes) => nodes.contains(&node),
        };
        let first = (network, NodeId::from_bytes([0; NodeId::LEN]));
        let last = (network, NodeId::from_bytes([0xff; NodeId::LEN]));
        for ((_, node), session) in self.here.range(first..=last).filter(|((_, node), _)| is_touched(*node)) {
            session.send_if_modified(|seen| {
                let now = sets.seen_by(*node);
                let differs = **seen != now;
                if differs {
                    *seen = Arc::new(now);
                }
                differs
            });
        }
    }

    /// What others miss because they can't be reached at the moment, they are told with all the rest afterwards.
    fn tell_others(&self, (network, node): NodeKey, peer: NodeId, held: bool) {
        let tie = Tie { network, node, peer, held };
        if self.others.as_ref().is_some_and(|others| others.try_send(tie).is_err()) {
            tracing::debug!("the other coordinators are not told whom a node asks for");
        }
    }
}
