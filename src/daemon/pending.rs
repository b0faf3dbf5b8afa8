//! Networks that this machine waits to be let into: a task per request keeps the connection on which the decision comes.
//!
//! ```text
//! join ──► stored request ──► task: ask, wait, ask again ──► member (stored) ──► the network comes up
//!                                                       └──► rejected: asks on, rarely; forgotten by `ria leave`
//! ```

use std::sync::Arc;
use std::time::Duration;

use ria_api::network_path;
use ria_api::state::{CoordinatorState, Joined, NetworkState, NetworkStatus, NetworkSummary, Severity};
use ria_protocol::error::{ErrorCode, Refusal};
use ria_protocol::id::{BootId, NetworkId};
use ria_protocol::requester::Requester;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::conditions::Conditions;
use super::control::{Control, Input};
use super::handle::{NetworkView, Reply};
use super::join::{self, NewMembership};
use super::provision::by_file;
use crate::coordinator::backoff::{Backoff, jitter};
use crate::coordinator::enrol::{self, Answer, EnrolError, Enrolment, Held};
use crate::coordinator::reach::Reach;
use crate::state::StateDir;
use crate::state::enrolment::WaitingJoin;
use crate::state::membership::{Membership, NodeKeys};

/// How often a rejected request is made again: an administrator may have second thoughts.
const REJECTED_WAIT: Duration = Duration::from_secs(20);

/// How long giving up may take.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(3);

/// A request in the agent's loop.
pub struct Pending {
    waiting: WaitingJoin,
    fingerprint: String,
    public_key: String,
    state: NetworkState,
    coordinator: CoordinatorState,
    url: String,
    conditions: Conditions,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// To a request's task.
enum Order {
    /// Give up; answers whether the coordinator heard.
    Withdraw(oneshot::Sender<bool>),
    /// The network under the connection has changed.
    Reconnect,
}

/// From a request's task.
pub enum PendingEvent {
    /// It stands in the queue of this coordinator.
    Waits(String),
    /// No contact.
    Lost(String),
    /// The coordinator says no.
    Refused(Refusal),
    /// The membership can't be stored.
    NotStored(String),
    /// It is a member, and that is stored.
    Member(Box<Membership>),
}

impl Control {
    /// Goes on with stored requests.
    pub(super) fn begin_pending(&mut self) {
        for (waiting, keys) in self.state.load_waiting() {
            self.start_pending(waiting, keys, None);
        }
    }

    fn start_pending(&mut self, waiting: WaitingJoin, keys: NodeKeys, held: Option<Box<Held>>) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (id, url) = (waiting.network, held.as_ref().map(|held| held.url.clone()));
        let fingerprint = keys.fingerprint().unwrap_or_default();
        let mut conditions = Conditions::default();
        conditions.set("waiting-for-approval", Severity::Warning, instruction(&waiting, &fingerprint));
        let public_key = keys.wg_public().to_string();
        let asker = Asker {
            reach: self.reach.clone(),
            waiting: waiting.clone(),
            keys,
            boot: self.boot,
            // Who asked was told when the request was made.
            requester: by_file(),
            state: self.state.clone(),
            interface: self.free_interface(),
            inputs: self.inputs.clone(),
        };
        let pending = Pending {
            waiting,
            fingerprint,
            public_key,
            state: NetworkState::Waiting,
            coordinator: if url.is_some() {
                CoordinatorState::Connected
            } else {
                CoordinatorState::Connecting
            },
            url: url.unwrap_or_default(),
            conditions,
            orders,
            task: tokio::spawn(asker.run(held, inbox)),
        };
        self.pending.insert(id, pending);
        self.changed = true;
    }

    /// A join has led into a queue.
    pub(super) fn handle_waiting(
        &mut self,
        waiting: WaitingJoin,
        keys: NodeKeys,
        held: Box<Held>,
        reply: Reply<Joined>,
    ) {
        let id = waiting.network;
        tracing::info!(network = %waiting.network_name, "an administrator has to approve this machine");
        self.start_pending(waiting, keys, Some(held));
        self.answer_pending(id, reply);
    }

    /// Tells who asked that an administrator has to approve.
    pub(super) fn answer_pending(&self, id: NetworkId, reply: Reply<Joined>) {
        let Some(pending) = self.pending.get(&id) else { return };
        let _ = reply.send(Ok(Joined {
            network_id: id.to_string(),
            network: pending.waiting.network_name.to_string(),
            name: pending.waiting.name.to_string(),
            path: network_path(id),
            already: false,
            waiting: true,
            fingerprint: pending.fingerprint.clone(),
        }));
    }

    pub(super) async fn handle_pending(&mut self, id: NetworkId, event: PendingEvent) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        self.changed = true;
        match event {
            PendingEvent::Waits(url) => {
                pending.url = url;
                pending.state = NetworkState::Waiting;
                pending.coordinator = CoordinatorState::Connected;
                for code in ["coordinator-unreachable", "rejected"] {
                    pending.conditions.clear(code);
                }
                let text = instruction(&pending.waiting, &pending.fingerprint);
                pending.conditions.set("waiting-for-approval", Severity::Warning, text);
            }
            PendingEvent::Lost(reason) => {
                pending.coordinator = CoordinatorState::Unreachable;
                let text = format!("no contact with the coordinator: {reason}; tried again by itself");
                pending.conditions.set("coordinator-unreachable", Severity::Warning, text);
            }
            PendingEvent::NotStored(reason) => {
                let text = format!("approved, but {reason}");
                pending.conditions.set("state-not-saved", Severity::Error, text);
            }
            PendingEvent::Refused(refusal) => self.handle_pending_refusal(id, &refusal),
            PendingEvent::Member(membership) => {
                self.pending.remove(&id);
                self.adopt(*membership).await;
            }
        }
    }

    fn handle_pending_refusal(&mut self, id: NetworkId, refusal: &Refusal) {
        let Some(pending) = self.pending.get_mut(&id) else { return };
        pending.coordinator = CoordinatorState::Refused;
        if refusal.code == ErrorCode::Rejected {
            pending.state = NetworkState::Refused;
            pending.conditions.clear("waiting-for-approval");
            pending.conditions.set("rejected", Severity::Error, refusal.text.clone());
        } else if refusal.code.is_temporary() {
            let text = format!("{}: {}", refusal.code.name(), refusal.text);
            pending.conditions.set("coordinator-refused", Severity::Warning, text);
        } else {
            // The place in the queue is gone; a key is needed to get another one.
            let text = format!(
                "the request to join {} is not in the coordinator's queue any more ({}): {}; join again: ria join -",
                pending.waiting.network_name,
                refusal.code.name(),
                refusal.text
            );
            self.state.forget_waiting(pending.waiting.key_id);
            self.pending.remove(&id);
            self.conditions.set("join-ended", Severity::Warning, text);
        }
    }

    /// Gives up waiting; `false` when it does not wait for this network.
    pub(super) fn withdraw(&mut self, id: NetworkId, reply: Reply<()>) -> Result<(), Reply<()>> {
        let Some(pending) = self.pending.remove(&id) else { return Err(reply) };
        self.changed = true;
        let key_id = pending.waiting.key_id;
        self.remember_left(key_id);
        self.state.forget_waiting(key_id);
        let (answer, heard) = oneshot::channel();
        let _ = pending.orders.send(Order::Withdraw(answer));
        tokio::spawn(async move {
            // A coordinator that does not hear forgets the request by itself after a week.
            let _ = timeout(WITHDRAW_TIMEOUT, heard).await;
            drop(pending);
            let _ = reply.send(Ok(()));
        });
        Ok(())
    }

    pub(super) fn reconnect_pending(&self) {
        for pending in self.pending.values() {
            let _ = pending.orders.send(Order::Reconnect);
        }
    }
}

fn instruction(waiting: &WaitingJoin, fingerprint: &str) -> String {
    format!(
        "an administrator of {} has to let this machine in: ria-coordinator node approve {fingerprint} (shown there as \
         {} by: ria-coordinator node pending)",
        waiting.network_name, waiting.name
    )
}

impl Pending {
    /// In the agent's list of networks.
    pub fn summary(&self) -> NetworkSummary {
        NetworkSummary {
            id: self.waiting.network.to_string(),
            name: self.waiting.network_name.to_string(),
            path: network_path(self.waiting.network),
            interface: String::new(),
            state: self.state,
        }
    }

    /// What is known of the network.
    pub fn view(&self) -> NetworkView {
        let status = NetworkStatus {
            network_id: self.waiting.network.to_string(),
            network: self.waiting.network_name.to_string(),
            state: self.state,
            node_id: self.waiting.node.to_string(),
            name: self.waiting.name.to_string(),
            ros_name: self.waiting.name.ros_name(),
            public_key: self.public_key.clone(),
            fingerprint: self.fingerprint.clone(),
            coordinator_state: self.coordinator,
            coordinator_url: self.url.clone(),
            conditions: self.conditions.list(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            ..NetworkStatus::default()
        };
        NetworkView { status, on_demand: false, peers: Vec::new() }
    }

    /// The join key.
    pub fn key_id(&self) -> ria_protocol::id::KeyId {
        self.waiting.key_id
    }
}

/// The task of a request.
struct Asker {
    reach: Reach,
    waiting: WaitingJoin,
    keys: NodeKeys,
    boot: BootId,
    requester: Requester,
    state: Arc<StateDir>,
    interface: u16,
    inputs: mpsc::UnboundedSender<Input>,
}

/// How a round of asking and waiting ended.
enum Round {
    Decided(Enrolment),
    Failed(EnrolError),
    Again,
    Stop,
}

impl Asker {
    async fn run(self, mut held: Option<Box<Held>>, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut backoff = Backoff::default();
        loop {
            let round = match held.take() {
                Some(held) => self.wait(*held, &mut orders, &mut backoff).await,
                None => self.ask(&mut orders, &mut backoff).await,
            };
            let pause = match round {
                Round::Decided(enrolment) => match self.store(enrolment).await {
                    Ok(()) => return,
                    Err(reason) => {
                        self.tell(PendingEvent::NotStored(reason));
                        backoff.next()
                    }
                },
                Round::Failed(EnrolError::Refused { code, text }) => {
                    self.tell(PendingEvent::Refused(Refusal { code, text }));
                    if code == ErrorCode::Rejected {
                        REJECTED_WAIT / 2 + jitter(REJECTED_WAIT / 2)
                    } else if code.is_temporary() {
                        backoff.next()
                    } else {
                        return;
                    }
                }
                Round::Failed(error) => {
                    self.tell(PendingEvent::Lost(error.to_string()));
                    backoff.next()
                }
                Round::Again => Duration::ZERO,
                Round::Stop => return,
            };
            tokio::select! {
                () = sleep(pause) => {}
                order = orders.recv() => match order {
                    Some(Order::Reconnect) => backoff.reset(),
                    Some(Order::Withdraw(answer)) => return self.withdraw_anew(answer).await,
                    None => return,
                },
            }
        }
    }

    async fn ask(&self, orders: &mut mpsc::UnboundedReceiver<Order>, backoff: &mut Backoff) -> Round {
        match self.enrol().await {
            Ok(Answer::Enrolled(enrolment)) => Round::Decided(*enrolment),
            Ok(Answer::Waiting(held)) => self.wait(*held, orders, backoff).await,
            Err(error) => Round::Failed(error),
        }
    }

    async fn enrol(&self) -> Result<Answer, EnrolError> {
        let key = self.waiting.key();
        let request = enrol::Request {
            reach: &self.reach,
            key: &key,
            keys: &self.keys,
            name: self.waiting.wanted.clone(),
            name_required: self.waiting.name_required,
            boot: self.boot,
            requester: &self.requester,
            only_known: false,
        };
        enrol::enrol(&request).await
    }

    async fn wait(
        &self,
        mut held: Held,
        orders: &mut mpsc::UnboundedReceiver<Order>,
        backoff: &mut Backoff,
    ) -> Round {
        backoff.reset();
        self.tell(PendingEvent::Waits(held.url.clone()));
        tokio::select! {
            decided = held.decision() => match decided {
                Ok(enrolment) => Round::Decided(enrolment),
                Err(error) => Round::Failed(error),
            },
            order = orders.recv() => match order {
                Some(Order::Reconnect) => Round::Again,
                Some(Order::Withdraw(answer)) => {
                    let _ = answer.send(held.withdraw().await);
                    Round::Stop
                }
                None => Round::Stop,
            },
        }
    }

    /// Gives up while there is no connection.
    async fn withdraw_anew(&self, answer: oneshot::Sender<bool>) {
        let heard = match self.enrol().await {
            Ok(Answer::Waiting(held)) => held.withdraw().await,
            Ok(Answer::Enrolled(_)) | Err(_) => false,
        };
        let _ = answer.send(heard);
    }

    async fn store(&self, enrolment: Enrolment) -> Result<(), String> {
        let new =
            NewMembership { key: self.waiting.key(), keys: self.keys.clone(), interface: self.interface };
        let (state, membership) = (self.state.clone(), new.with(enrolment));
        let stored = tokio::task::spawn_blocking(move || join::store(&state, membership)).await;
        let membership = stored.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.tell(PendingEvent::Member(Box::new(membership)));
        Ok(())
    }

    fn tell(&self, event: PendingEvent) {
        // Only fails while the agent stops.
        let _ = self.inputs.send(Input::Pending(self.waiting.network, event));
    }
}
