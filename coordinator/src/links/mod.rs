//! How members reach each other, as they tell: owned by one task, in memory only, and bounded.
//!
//! ```text
//! sessions --Report, End--> task: board --changes--> live events
//!                             ^ Pairs, History: admin's answers
//! ```
//!
//! Nothing depends on it. What a node says of its links is shown to people and proves nothing.

pub mod board;

use std::sync::Arc;
use std::time::SystemTime;

use ria_protocol::id::NetworkId;
use ria_protocol::links::LinkNews;
use ria_protocol::time::UnixTime;
use tokio::sync::{mpsc, oneshot, watch};

use crate::hub::{HubGone, NodeKey, SessionId};
use board::{Board, Changed, Entry, Pair};

const QUEUE: usize = 256;

#[derive(Debug)]
enum Command {
    Report(Report),
    End(NodeKey, SessionId),
    Forget(NodeKey),
    Pairs(NetworkId, oneshot::Sender<Vec<Pair>>),
    History(NodeKey, oneshot::Sender<Vec<Entry>>),
    Since(u64, oneshot::Sender<(u64, Vec<Changed>)>),
}

/// What a node tells.
#[derive(Debug)]
pub struct Report {
    pub node: NodeKey,
    pub session: SessionId,
    pub news: LinkNews,
    /// Whether it is somebody's own machine: where that is, is nobody's business.
    pub personal: bool,
}

/// A way to the task.
#[derive(Debug, Clone)]
pub struct Links {
    commands: mpsc::Sender<Command>,
    changes: watch::Receiver<u64>,
}

impl Links {
    /// Starts the task; it ends when the last `Links` is gone.
    pub fn start() -> Self {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (told, changes) = watch::channel(0);
        tokio::spawn(run(queue, told));
        Self { commands, changes }
    }

    /// Moves whenever there is something new to see: the number of the last change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// A node tells of its links.
    pub async fn report(&self, report: Report) -> Result<(), HubGone> {
        self.send(Command::Report(report)).await
    }

    /// A session has ended: what it said of links is not known any more; what has happened stays.
    pub async fn end(&self, node: NodeKey, session: SessionId) -> Result<(), HubGone> {
        self.send(Command::End(node, session)).await
    }

    /// A node is no member any more.
    pub async fn forget(&self, node: NodeKey) -> Result<(), HubGone> {
        self.send(Command::Forget(node)).await
    }

    /// All links of a network that somebody tells of.
    pub async fn pairs(&self, network: NetworkId) -> Result<Vec<Pair>, HubGone> {
        self.ask(|reply| Command::Pairs(network, reply)).await
    }

    /// What has happened on a node, oldest first.
    pub async fn history(&self, node: NodeKey) -> Result<Vec<Entry>, HubGone> {
        self.ask(|reply| Command::History(node, reply)).await
    }

    /// What has changed after a change, as far as it is kept, and the number of the last one.
    pub async fn since(&self, number: u64) -> Result<(u64, Vec<Changed>), HubGone> {
        self.ask(|reply| Command::Since(number, reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, HubGone> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.map_err(|_| HubGone)
    }

    async fn send(&self, command: Command) -> Result<(), HubGone> {
        self.commands.send(command).await.map_err(|_| HubGone)
    }
}

async fn run(mut queue: mpsc::Receiver<Command>, told: watch::Sender<u64>) {
    let mut board = Board::default();
    while let Some(command) = queue.recv().await {
        // Whoever asked may have gone away.
        match command {
            Command::Report(report) => board.handle_report(report, UnixTime::from(SystemTime::now())),
            Command::End(node, session) => board.handle_end(node, session),
            Command::Forget(node) => board.forget(node),
            Command::Pairs(network, reply) => drop(reply.send(board.pairs(network))),
            Command::History(node, reply) => drop(reply.send(board.history(node))),
            Command::Since(number, reply) => drop(reply.send(board.since(number))),
        }
        let last = board.last();
        told.send_if_modified(|number| std::mem::replace(number, last) != last);
    }
}

/// A text of a node's as people may be shown it.
fn shown(text: &str, longest: usize) -> Arc<str> {
    text.chars().filter(|c| !c.is_control()).take(longest).collect::<String>().into()
}
