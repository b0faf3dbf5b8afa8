//! Many nodes, each a task that stays connected, comes back as agents do, and notes what it is told and when.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ria_protocol::join_key::JoinKey;
use ria_protocol::map::Revision;
use ria_protocol::message::{CoordinatorMessage, NodeMessage};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::backoff::Backoff;
use super::node::{Link, Node};

/// Nodes that join at the same time.
const AT_A_TIME: usize = 64;

/// How often a node tries before the benchmark gives up.
const ATTEMPTS: usize = 5;

/// What a node has seen.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// Its session is open.
    Open { number: usize, at: Instant },
    /// The map has changed.
    Changed { number: usize, to: Revision, at: Instant },
}

/// What all nodes of a crowd share.
#[derive(Debug)]
struct Shared {
    coordinator: SocketAddr,
    connected: AtomicUsize,
    failures: AtomicUsize,
    seen: mpsc::UnboundedSender<Seen>,
}

/// Nodes of one network.
pub struct Crowd {
    count: usize,
    shared: Arc<Shared>,
    seen: mpsc::UnboundedReceiver<Seen>,
    /// How often each node has moved.
    moves: Vec<watch::Sender<usize>>,
    tasks: JoinSet<()>,
}

impl Crowd {
    /// So many nodes join, some at a time; numbered from `first`. Tells how long that took.
    pub async fn join(
        coordinator: SocketAddr,
        key: &JoinKey,
        first: usize,
        count: usize,
    ) -> Result<(Self, Duration)> {
        let (tell, seen) = mpsc::unbounded_channel();
        let (connected, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new(Shared { coordinator, connected, failures, seen: tell });
        // Keys are made beforehand: that is work of robots, which have a processor each.
        let nodes: Vec<Node> =
            (first..first + count).map(|number| Node::new(number, key)).collect::<Result<_>>()?;
        let mut crowd =
            Self { count, shared: shared.clone(), seen, moves: Vec::new(), tasks: JoinSet::new() };
        let began = Instant::now();
        let mut joining: JoinSet<Result<(usize, Node, Link)>> = JoinSet::new();
        for (index, mut node) in nodes.into_iter().enumerate() {
            if joining.len() >= AT_A_TIME
                && let Some(joined) = joining.join_next().await
            {
                crowd.keep(joined.context("a node's task failed")??);
            }
            let key = key.clone();
            let shared = shared.clone();
            joining.spawn(async move {
                let mut backoff = Backoff::default();
                for _ in 0..ATTEMPTS {
                    if let Ok(link) = node.join(coordinator, &key).await {
                        return Ok((first + index, node, link));
                    }
                    // Agents try again, too.
                    shared.failures.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(backoff.next()).await;
                }
                let link = node.join(coordinator, &key).await?;
                Ok((first + index, node, link))
            });
        }
        while let Some(joined) = joining.join_next().await {
            crowd.keep(joined.context("a node's task failed")??);
        }
        let took = began.elapsed();
        Ok((crowd, took))
    }

    fn keep(&mut self, (number, node, link): (usize, Node, Link)) {
        let (moves, moved) = watch::channel(0);
        self.moves.push(moves);
        self.tasks.spawn(live(number, node, link, moved, self.shared.clone()));
    }

    /// How many are connected now.
    pub fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Connections and attempts that failed.
    pub fn failures(&self) -> usize {
        self.shared.failures.load(Ordering::Relaxed)
    }

    /// Forgets what was seen until now.
    pub fn look_away(&mut self) {
        while self.seen.try_recv().is_ok() {}
    }

    /// One node after the other moves to another network, one each `step`, for ever.
    pub fn move_on(&self, step: Duration) -> impl Future<Output = ()> + use<> {
        let moves = self.moves.clone();
        async move {
            for moved in moves.iter().cycle() {
                moved.send_modify(|count| *count += 1);
                tokio::time::sleep(step).await;
            }
        }
    }

    /// When each node was told of a revision, or of a later one: milliseconds since `began`.
    pub async fn told_of(&mut self, revision: Revision, began: Instant, limit: Duration) -> Result<Vec<f64>> {
        let (mut told, mut times) = (BTreeSet::new(), Vec::new());
        self.watch(limit, |seen| {
            if let Seen::Changed { number, to, at } = seen
                && to >= revision
                && told.insert(number)
            {
                times.push(at.duration_since(began).as_secs_f64() * 1000.0);
            }
            told.len()
        })
        .await?;
        Ok(times)
    }

    /// How long after `began` the last of all nodes had a session again.
    pub async fn all_back(&mut self, began: Instant, limit: Duration) -> Result<Duration> {
        let (mut back, mut last) = (BTreeSet::new(), began);
        self.watch(limit, |seen| {
            if let Seen::Open { number, at } = seen {
                back.insert(number);
                last = last.max(at);
            }
            back.len()
        })
        .await?;
        Ok(last.duration_since(began))
    }

    /// Looks on until the count of nodes is that of all.
    async fn watch(&mut self, limit: Duration, mut counted: impl FnMut(Seen) -> usize) -> Result<()> {
        let all = self.count;
        let mut so_far = 0;
        let watching = async {
            while so_far < all {
                let Some(seen) = self.seen.recv().await else { break };
                so_far = counted(seen);
            }
        };
        let in_time = tokio::time::timeout(limit, watching).await.is_ok();
        ensure!(in_time && so_far >= all, "{so_far} of {all} nodes within {} s", limit.as_secs());
        Ok(())
    }
}

/// A node's life.
async fn live(
    number: usize,
    mut node: Node,
    mut link: Link,
    mut moved: watch::Receiver<usize>,
    shared: Arc<Shared>,
) {
    let mut backoff = Backoff::default();
    loop {
        shared.connected.fetch_add(1, Ordering::Relaxed);
        // Nobody may be looking.
        let _ = shared.seen.send(Seen::Open { number, at: Instant::now() });
        backoff.reset();
        // The connection's end, for whatever reason, is what counts.
        let _ = serve(number, &mut node, &mut link, &mut moved, &shared).await;
        shared.connected.fetch_sub(1, Ordering::Relaxed);
        link = loop {
            shared.failures.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(backoff.next()).await;
            if let Ok(link) = node.come_back(shared.coordinator).await {
                break link;
            }
        };
    }
}

async fn serve(
    number: usize,
    node: &mut Node,
    link: &mut Link,
    moved: &mut watch::Receiver<usize>,
    shared: &Shared,
) -> Result<()> {
    loop {
        let message = tokio::select! {
            message = link.next_ever() => message?,
            Ok(()) = moved.changed() => {
                let moves = *moved.borrow_and_update();
                link.send(&node.report(moves)).await?;
                continue;
            }
        };
        if let CoordinatorMessage::Patches(set) = message {
            let (to, at) = (set.to, Instant::now());
            let _ = shared.seen.send(Seen::Changed { number, to, at });
            node.revision = Some(to);
            link.send(&NodeMessage::Ack(to)).await?;
        }
    }
}
