//! The connection to the agent: connects, again and again; asks for status and peers when they change, and in between;
//! passes on what happens.
//!
//! ```text
//! agent ── signals ──► Link ── Message ──► Face (the one owner of what is known)
//!                        └─── watch ─────► services (the agent to call, or why there is none)
//! ```

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::stream::{SelectAll, Stream, StreamExt};
use ria_api::client::{Agent, ConnectError};
use ria_api::error::ApiError;
use ria_api::proxy::NetworkProxy;
use ria_api::state::{AgentStatus, Event, NetworkStatus, PeerStatus};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until};

use crate::environment::Variables;
use crate::parameters::Parameters;

/// How soon to try again when there is no agent. A refused connect on a local socket costs next to nothing.
const RETRY: Duration = Duration::from_millis(300);

/// Changes are asked for at most this often.
const SHORTEST: Duration = Duration::from_millis(100);

/// How long the agent may take for an answer that needs nothing but its memory.
const PATIENCE: Duration = Duration::from_secs(5);

const NOT_ASKED: &str = "agent-not-asked";

/// Why there is no agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// Stable name, for the condition.
    pub code: &'static str,
    /// What it is and what to do.
    pub text: String,
}

impl Absence {
    /// Of a node that has not looked for the agent yet.
    pub fn not_asked() -> Self {
        let text = "the node has just started and not reached the Ria agent yet; try again".into();
        Self { code: NOT_ASKED, text }
    }

    /// Whether the node has not looked yet.
    pub fn is_not_asked(&self) -> bool {
        self.code == NOT_ASKED
    }
}

/// All that the agent told at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The agent.
    pub agent: AgentStatus,
    /// Its networks, by id.
    pub networks: Vec<NetworkView>,
}

/// A network at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetworkView {
    /// The network.
    pub status: NetworkStatus,
    /// Its other members.
    pub peers: Vec<PeerStatus>,
    /// Variables for ROS processes; none while there is no interface.
    pub environment: Variables,
}

/// What the link tells.
#[derive(Debug)]
pub enum Message {
    /// There is no agent, or it has gone.
    Absent(Absence),
    /// What the agent says now.
    Snapshot(Box<Snapshot>),
    /// Something happened.
    Happened(Box<Event>),
}

/// The agent to call, or why there is none.
pub type Current = watch::Receiver<Result<Agent, Absence>>;

enum Wake {
    Changed,
    Happened(Event),
}

type Wakes = SelectAll<Pin<Box<dyn Stream<Item = Wake> + Send>>>;

/// The connection.
pub struct Link {
    /// The agent's socket; without one, the usual.
    pub socket: Option<PathBuf>,
    /// Say how often to ask anyway.
    pub parameters: watch::Receiver<Parameters>,
    /// Where to tell.
    pub out: mpsc::Sender<Message>,
    /// The agent to call.
    pub current: watch::Sender<Result<Agent, Absence>>,
}

impl Link {
    /// Runs until nobody listens any more.
    pub async fn run(mut self) {
        while !self.out.is_closed() {
            let absence = match Agent::connect(self.socket.as_deref()).await {
                Ok(agent) => self.session(&agent).await,
                Err(error) => absence(&error),
            };
            let _ = self.current.send_replace(Err(absence.clone()));
            if self.out.send(Message::Absent(absence)).await.is_err() {
                return;
            }
            sleep(RETRY).await;
        }
    }

    /// One connection, until it ends; says why.
    async fn session(&mut self, agent: &Agent) -> Absence {
        // The first answer comes before anybody may call: an agent that greets and then hangs is none.
        let ended = tokio::select! {
            () = agent.closed() => None,
            error = self.follow(agent) => error,
        };
        match ended {
            None => Absence {
                code: "agent-gone",
                text: "the Ria agent has gone; start it again: sudo systemctl start ria".into(),
            },
            Some(text) => Absence {
                code: "agent-failing",
                text: format!(
                    "the Ria agent answers, but not as it should: {text}; see its log (journalctl -u ria)"
                ),
            },
        }
    }

    /// Asks and passes on; returns on an error, or with nothing when nobody listens.
    async fn follow(&mut self, agent: &Agent) -> Option<String> {
        let mut changes = match agent.proxy().receive_networks_changed().await {
            Ok(changes) => changes,
            Err(error) => return Some(error.to_string()),
        };
        let mut wakes = Wakes::new();
        let mut followed = BTreeSet::new();
        loop {
            let asked = Instant::now();
            let asking = tokio::time::timeout(PATIENCE, ask(agent, &mut wakes, &mut followed));
            let snapshot = match asking.await {
                Ok(Ok(snapshot)) => snapshot,
                Ok(Err(error)) => return Some(error.text()),
                Err(_) => return Some(format!("no answer within {} s", PATIENCE.as_secs())),
            };
            if self.current.borrow().is_err() {
                let _ = self.current.send_replace(Ok(agent.clone()));
            }
            self.out.send(Message::Snapshot(Box::new(snapshot))).await.ok()?;
            let period = self.parameters.borrow_and_update().periods().shortest();
            loop {
                tokio::select! {
                    Some(_) = changes.next() => break,
                    Some(wake) = wakes.next() => match wake {
                        Wake::Changed => break,
                        Wake::Happened(event) => self.out.send(Message::Happened(Box::new(event))).await.ok()?,
                    },
                    _ = self.parameters.changed() => break,
                    () = sleep_until((asked + period).into()) => break,
                }
            }
            sleep_until((asked + SHORTEST).into()).await;
        }
    }
}

/// Asks for everything; networks not seen before are followed from now on.
async fn ask(
    agent: &Agent,
    wakes: &mut Wakes,
    followed: &mut BTreeSet<String>,
) -> Result<Snapshot, ApiError> {
    let status = agent.proxy().status().await?;
    let mut networks = Vec::with_capacity(status.networks.len());
    for summary in &status.networks {
        let network = agent.network_at(&summary.path).await?;
        if followed.insert(summary.path.clone()) {
            wakes.push(Box::pin(network.receive_changed().await?.map(|_| Wake::Changed)));
            let happened = network.receive_happened().await?;
            let event = |signal: ria_api::proxy::Happened| signal.args().map(|args| args.event).ok();
            wakes.push(Box::pin(
                happened.filter_map(move |signal| std::future::ready(event(signal).map(Wake::Happened))),
            ));
        }
        match (network.status().await, network.peers().await) {
            (Ok(status), Ok(peers)) => {
                let environment = environment(&network, &status).await;
                networks.push(NetworkView { status, peers, environment });
            }
            // It has been left since it was listed.
            (Err(ApiError::NoSuchNetwork(_)), _) | (_, Err(ApiError::NoSuchNetwork(_))) => {}
            (Err(error), _) | (_, Err(error)) => return Err(error),
        }
    }
    networks.sort_by(|a, b| a.status.network_id.cmp(&b.status.network_id));
    Ok(Snapshot { agent: status, networks })
}

async fn environment(network: &NetworkProxy<'_>, status: &NetworkStatus) -> Variables {
    if status.interface.is_empty() {
        return Variables::new();
    }
    // Without it this node is only heard where the zero configuration of DDS reaches.
    network.environment().await.unwrap_or_default()
}

fn absence(error: &ConnectError) -> Absence {
    let code = match error {
        ConnectError::NoDaemon { .. } => "agent-not-running",
        ConnectError::Denied(_) => "agent-denied",
        ConnectError::Silent(_) => "agent-silent",
        ConnectError::Failed { .. } => "agent-unreachable",
    };
    Absence { code, text: error.to_string() }
}
