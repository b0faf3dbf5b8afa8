//! The door to the daemon's loop: what the local API may ask of it.
//!
//! The loop owns all state. Whoever holds a [`DaemonHandle`] sends it commands and waits for the answer; nothing is
//! shared and nothing is locked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ria_api::error::ApiError;
use ria_api::server::BusState;
use ria_api::state::{
    AgentStatus, Event, JoinOptions, Joined, NetworkReport, NetworkStatus, PeerStatus, PingReply,
};
use ria_protocol::demand::Sought;
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::join_key::JoinKey;
use ria_protocol::requester::Requester;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Answers of the loop.
pub type Reply<T> = oneshot::Sender<Result<T, ApiError>>;

/// All that can be told at one moment.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The agent.
    pub agent: AgentStatus,
    /// Its networks.
    pub networks: BTreeMap<NetworkId, NetworkView>,
}

/// One network at one moment.
#[derive(Debug, Clone, Default)]
pub struct NetworkView {
    /// The network on this machine.
    pub status: NetworkStatus,
    /// Whether there may be more members than these, to be had when they are asked for.
    pub on_demand: bool,
    /// All other members, by name, each with its id.
    pub peers: Vec<(NodeId, PeerStatus)>,
}

/// What the loop can be asked to do.
#[derive(Debug)]
pub enum Command {
    /// Tell everything, fresh.
    ReadState(oneshot::Sender<Arc<State>>),
    /// Enrol and bring the network up.
    Join { key: JoinKey, options: JoinOptions, by: Requester, reply: Reply<Joined> },
    /// Join by a provisioning file, if this machine is to do that.
    Provision { key: JoinKey, path: PathBuf, reply: Reply<Provisioned> },
    /// Leave for good.
    Leave { network: NetworkId, by: Requester, reply: Reply<()> },
    /// Take a network down or up, keeping the membership.
    SetEnabled { network: NetworkId, enabled: bool, by: Requester, reply: Reply<()> },
    /// Look for the coordinator at this URL first.
    SetUrl { network: NetworkId, url: String, by: Requester, reply: Reply<()> },
    /// Have another WireGuard key.
    RotateKey { network: NetworkId, by: Requester, reply: Reply<()> },
    /// Probe a peer over its current path.
    Ping { network: NetworkId, peer: NodeId, plan: PingPlan, reply: Reply<Vec<PingReply>> },
    /// Hold this member, in an on-demand network.
    Seek { network: NetworkId, sought: Sought, reply: Reply<()> },
    /// Measure the network below.
    Netcheck { network: NetworkId, reply: Reply<NetworkReport> },
    /// Know how the local API fares on the system bus.
    NoteBus(BusState),
}

/// What came of a provisioning file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provisioned {
    /// This machine has joined by it, or waits for approval.
    Joined,
    /// It is not for this machine now.
    Ignored,
}

/// How to probe.
#[derive(Debug, Clone, Copy)]
pub struct PingPlan {
    /// How many probes.
    pub count: u32,
    /// Time between two of them.
    pub interval: Duration,
    /// How long to wait for each answer.
    pub timeout: Duration,
}

/// A clonable door to the loop.
#[derive(Debug, Clone)]
pub struct DaemonHandle {
    commands: mpsc::Sender<Command>,
    changes: watch::Receiver<u64>,
    events: broadcast::Sender<Event>,
}

impl DaemonHandle {
    /// Used by the loop when it is made.
    pub fn new(
        commands: mpsc::Sender<Command>,
        changes: watch::Receiver<u64>,
        events: broadcast::Sender<Event>,
    ) -> Self {
        Self { commands, changes, events }
    }

    /// Everything, fresh.
    pub async fn state(&self) -> Result<Arc<State>, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::ReadState(reply)).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Joins a network; returns when its interface is up.
    pub async fn join(&self, key: JoinKey, options: JoinOptions, by: Requester) -> Result<Joined, ApiError> {
        self.ask(|reply| Command::Join { key, options, by, reply }).await
    }

    /// Joins by a provisioning file, if this machine is to do that.
    pub async fn provision(&self, key: JoinKey, path: PathBuf) -> Result<Provisioned, ApiError> {
        self.ask(|reply| Command::Provision { key, path, reply }).await
    }

    /// Leaves a network for good.
    pub async fn leave(&self, network: NetworkId, by: Requester) -> Result<(), ApiError> {
        self.ask(|reply| Command::Leave { network, by, reply }).await
    }

    /// Takes a network down or up.
    pub async fn set_enabled(
        &self,
        network: NetworkId,
        enabled: bool,
        by: Requester,
    ) -> Result<(), ApiError> {
        self.ask(|reply| Command::SetEnabled { network, enabled, by, reply }).await
    }

    /// Looks for the coordinator at a URL first, from now on; the coordinator has to answer there.
    pub async fn set_url(&self, network: NetworkId, url: String, by: Requester) -> Result<(), ApiError> {
        self.ask(|reply| Command::SetUrl { network, url, by, reply }).await
    }

    /// Makes another WireGuard key; returns when it is in use.
    pub async fn rotate_key(&self, network: NetworkId, by: Requester) -> Result<(), ApiError> {
        self.ask(|reply| Command::RotateKey { network, by, reply }).await
    }

    /// Probes a peer.
    pub async fn ping(
        &self,
        network: NetworkId,
        peer: NodeId,
        plan: PingPlan,
    ) -> Result<Vec<PingReply>, ApiError> {
        self.ask(|reply| Command::Ping { network, peer, plan, reply }).await
    }

    /// Has this machine hold a member of an on-demand network; returns when it does.
    pub async fn seek(&self, network: NetworkId, sought: Sought) -> Result<(), ApiError> {
        self.ask(|reply| Command::Seek { network, sought, reply }).await
    }

    /// Measures the network that this machine is in.
    pub async fn netcheck(&self, network: NetworkId) -> Result<NetworkReport, ApiError> {
        self.ask(|reply| Command::Netcheck { network, reply }).await
    }

    /// Tells how the local API fares on the system bus.
    pub fn note_bus(&self, state: BusState) {
        // A loop that is busy hears of it the next time: it is told again and again.
        let _ = self.commands.try_send(Command::NoteBus(state));
    }

    /// A counter that moves, at most some times a second, when status or peers have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    async fn send(&self, command: Command) -> Result<(), ApiError> {
        self.commands.send(command).await.map_err(|_| stopping())
    }
}

fn stopping() -> ApiError {
    ApiError::Failed("the agent is stopping; try again when it runs".into())
}
