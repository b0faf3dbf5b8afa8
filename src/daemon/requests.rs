//! What the local API asks of the loop.

use std::sync::Arc;
use std::time::Duration;

use ria_api::error::ApiError;
use ria_api::network_path;
use ria_api::server::BusState;
use ria_api::state::{JoinOptions, Joined, NetworkState, Severity};
use ria_protocol::id::NetworkId;
use ria_protocol::join_key::JoinKey;
use ria_protocol::requester::{LocalDeed, Requester};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::control::{Control, Input};
use super::handle::{Command, Reply};
use super::join::{self, JoinOutcome, JoinTask, Known, Origin};
use super::network::{Network, Waiting};
use super::pings;
use super::times::Look;
use crate::coordinator::session::Order;
use crate::state::Part;
use crate::state::enrolment::StoredFarewell;
use crate::state::membership::Membership;

/// How long a join waits for map and interface once the node is a member.
const UP_TIMEOUT: Duration = Duration::from_secs(20);

/// A little more than the session itself takes for its farewell.
const LEAVE_PATIENCE: Duration = Duration::from_millis(3500);

impl Control {
    /// The local API asks something.
    pub(super) async fn handle_command(&mut self, command: Command) {
        match command {
            Command::ReadState(reply) => {
                let _ = reply.send(Arc::new(self.read_state().await));
            }
            Command::Join { key, options, by, reply } => self.join(key, options, by, reply),
            Command::Provision { key, path, reply } => self.provision(key, &path, reply),
            Command::Leave { network, by, reply } => self.leave(network, by, reply),
            Command::SetUrl { network, url, by, reply } => self.set_url(network, url, by, reply),
            Command::SetEnabled { network, enabled, by, reply } => {
                let _ = reply.send(self.set_enabled(network, enabled, by).await);
            }
            Command::RotateKey { network, by, reply } => self.rotate_key(network, by, reply),
            Command::Netcheck { network, reply } => self.netcheck(network, reply).await,
            Command::Seek { network, sought, reply } => self.seek(network, sought, reply),
            Command::NoteBus(state) => self.note_bus(&state),
            Command::Ping { network, peer, plan, reply } => {
                let inputs = self.inputs.clone();
                let answer = match self.networks.get(&network) {
                    Some(network) if network.in_engine => None,
                    Some(_) => Some(ApiError::Failed("the network is not up; see ria status".into())),
                    None => Some(no_such_network(network)),
                };
                if let Some(error) = answer {
                    let _ = reply.send(Err(error));
                    return;
                }
                tokio::spawn(async move {
                    let _ = reply.send(Ok(pings::run(network, peer, plan, inputs).await));
                });
            }
        }
    }

    /// A machine without a bus lacks nothing; one whose bus does not know the agent is a riddle to programs on it.
    fn note_bus(&mut self, state: &BusState) {
        self.changed |= match state {
            BusState::Serving => {
                tracing::info!("{state}");
                self.conditions.clear("system-bus")
            }
            BusState::Absent(_) => {
                tracing::debug!("{state}");
                self.conditions.clear("system-bus")
            }
            BusState::NameTaken | BusState::NameRefused(_) => {
                self.conditions.set("system-bus", Severity::Info, state.to_string())
            }
        };
    }

    pub(super) fn join(
        &mut self,
        key: JoinKey,
        options: JoinOptions,
        requester: Requester,
        reply: Reply<Joined>,
    ) {
        let member = |n: &&Network| {
            n.membership.identity.key_id == key.key_id && n.membership.identity.refused.is_none()
        };
        if let Some(id) = self.networks.values().find(member).map(Network::id) {
            return self.answer_when_up(id, true, reply);
        }
        if let Some(id) = self.pending.iter().find(|(_, p)| p.key_id() == key.key_id).map(|(id, _)| *id) {
            return self.answer_pending(id, reply);
        }
        self.changed |= self.conditions.clear("join-ended");
        let members = self.networks.values().filter(|n| n.membership.identity.refused.is_none());
        let known = members.map(|n| Known {
            network: n.id(),
            keys: (n.membership.identity.ca_pin == key.ca_pin).then(|| n.membership.keys.clone()),
        });
        let known = known.collect();
        let task = JoinTask {
            reach: self.reach.clone(),
            key,
            options,
            boot: self.boot,
            state: self.state.clone(),
            known,
            requester,
            interface: self.free_interface(),
        };
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let outcome = join::run(task).await;
            // Only fails while the agent stops.
            let _ = inputs.send(Input::Joined(Box::new(outcome), Origin(reply)));
        });
    }

    pub(super) async fn handle_joined(&mut self, outcome: JoinOutcome, Origin(reply): Origin) {
        match outcome {
            JoinOutcome::Member(membership) => {
                let id = membership.identity.network;
                if self.networks.get(&id).is_some_and(|n| {
                    n.membership.identity.node == membership.identity.node && n.state != NetworkState::Refused
                }) {
                    // Somebody else has joined with the same key meanwhile; what was stored then is stored again.
                    self.save_all(id);
                    return self.answer_when_up(id, true, reply);
                }
                self.adopt(*membership).await;
                self.answer_when_up(id, false, reply);
            }
            JoinOutcome::Waiting(waiting, keys, held) => self.handle_waiting(*waiting, keys, held, reply),
            JoinOutcome::Already(id) => {
                // The coordinator has just taken it for a member, so nothing keeps it out any more.
                self.resume(id);
                self.answer_when_up(id, true, reply);
            }
            JoinOutcome::Failed(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Begins with a new membership, stored already. A node that was put out before comes back as another one.
    pub(super) async fn adopt(&mut self, membership: Membership) {
        let id = membership.identity.network;
        self.pending.remove(&id);
        self.take_down(id, NetworkState::Joining).await;
        self.forget_storage_of(id);
        self.insert(membership);
        self.bring_up(id).await;
    }

    fn save_all(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        self.saver.put(id, Part::Identity, &network.membership.identity, 0);
        self.saver.put(id, Part::Contact, &network.membership.contact, 0);
        if let Some(map) = &network.membership.map {
            self.saver.put(id, Part::Map, map, map.revision.0);
        }
        network.live_unsaved.get_or_insert(Instant::now());
    }

    fn insert(&mut self, mut membership: Membership) {
        // Two joins at the same time were promised the same one.
        let (id, wanted) = (membership.identity.network, membership.identity.interface);
        if self.networks.values().any(|n| n.id() != id && n.membership.identity.interface == wanted) {
            membership.identity.interface = self.free_interface();
            self.saver.put(id, Part::Identity, &membership.identity, 0);
        }
        let network = Network::new(membership);
        tracing::info!(
            network = %network.membership.identity.network_name,
            name = %network.membership.identity.name,
            "joined"
        );
        self.networks.insert(network.id(), network);
        self.changed = true;
    }

    /// Answers a join when the interface is there, or can't be made, or takes too long.
    fn answer_when_up(&mut self, id: NetworkId, already: bool, reply: Reply<Joined>) {
        let Some(network) = self.networks.get_mut(&id) else {
            let _ = reply.send(Err(no_such_network(id)));
            return;
        };
        let identity = &network.membership.identity;
        if let Some(reason) = &identity.suspended {
            let _ = reply.send(Err(ApiError::Refused(format!("disabled: {reason}"))));
            return;
        }
        let joined = Joined {
            network_id: id.to_string(),
            network: identity.network_name.to_string(),
            name: identity.name.to_string(),
            path: network_path(id),
            already,
            ..Joined::default()
        };
        let deadline = Instant::now() + UP_TIMEOUT;
        network.waiting.push(Waiting { reply, joined, deadline });
        match network.state {
            NetworkState::Up | NetworkState::Disabled => network.answer_waiting(Ok(())),
            NetworkState::Failed => {
                network.answer_waiting(Err(format!("joined, but {}", network.conditions.in_words())));
            }
            NetworkState::Joining | NetworkState::Waiting | NetworkState::Refused | NetworkState::Unknown => {
            }
        }
    }

    pub(super) fn expire_waiting(&mut self, id: NetworkId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        for waiting in network.waiting.extract_if(.., |waiting| waiting.deadline <= now) {
            let text = "joined, but the coordinator has not sent the network's map yet; see ria status";
            let _ = waiting.reply.send(Err(ApiError::TimedOut(text.into())));
        }
    }

    /// Stored before anything else, so that it holds over restarts whatever happens next.
    async fn set_enabled(&mut self, id: NetworkId, enabled: bool, by: Requester) -> Result<(), ApiError> {
        if self.pending.contains_key(&id) {
            let text = "this machine waits for an administrator's approval; see ria status, or give up: ria leave --yes";
            return Err(ApiError::Failed(text.into()));
        }
        let network = self.networks.get_mut(&id).ok_or_else(|| no_such_network(id))?;
        if let Some(reason) = &network.membership.identity.refused {
            return Err(ApiError::Refused(format!("not-a-member: {reason}")));
        }
        let changes = network.membership.identity.enabled != enabled;
        if changes {
            network.membership.identity.enabled = enabled;
            self.saver.put(id, Part::Identity, &network.membership.identity, 0);
        }
        if changes {
            self.note(id, if enabled { LocalDeed::SwitchedOn } else { LocalDeed::SwitchedOff }, by);
        }
        if !enabled {
            self.switch_off(id).await;
            return Ok(());
        }
        self.bring_up(id).await;
        match self.networks.get(&id) {
            Some(network) if network.state == NetworkState::Failed => {
                Err(ApiError::Failed(network.conditions.in_words()))
            }
            _ => Ok(()),
        }
    }

    /// Interface, peers and relay go at once. The coordinator hears who did it on the way, and sees the node go
    /// offline.
    async fn switch_off(&mut self, id: NetworkId) {
        let session = self.networks.get_mut(&id).and_then(|network| network.session.take());
        self.take_down(id, NetworkState::Disabled).await;
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.conditions.clear_all();
        if let Some(session) = session {
            tokio::spawn(session.retire());
        }
    }

    fn leave(&mut self, id: NetworkId, by: Requester, reply: Reply<()>) {
        let Err(reply) = self.withdraw(id, reply) else { return };
        let Some(network) = self.networks.get(&id) else {
            let _ = reply.send(Err(no_such_network(id)));
            return;
        };
        // A node that was put out has nobody to tell, and a copy must not take the other machine's membership away.
        let put_out = network.membership.identity.refused.is_some() || network.kept_out;
        let (answer, heard) = oneshot::channel();
        let inputs = self.inputs.clone();
        if network.session.is_none() && !put_out {
            // It is switched off: this is the one thing left to say.
            let farewell = network.farewell(by.clone(), &self.reach);
            tokio::spawn(async move {
                let _ = answer.send(farewell.say().await);
            });
        } else if !put_out {
            network.order(Order::Leave(by.clone(), answer));
        }
        tokio::spawn(async move {
            let heard = put_out || matches!(timeout(LEAVE_PATIENCE, heard).await, Ok(Ok(true)));
            let _ = inputs.send(Input::Left { network: id, untold: (!heard).then_some(by), reply });
        });
    }

    /// A network has said good-bye; `untold` is who wanted that, where the coordinator did not hear.
    pub(super) async fn handle_left(&mut self, id: NetworkId, untold: Option<Requester>, reply: Reply<()>) {
        self.take_down(id, NetworkState::Disabled).await;
        let Some(network) = self.networks.remove(&id) else {
            let _ = reply.send(Err(no_such_network(id)));
            return;
        };
        self.changed = true;
        let identity = &network.membership.identity;
        let heard = untold.is_none();
        if let Some(by) = untold {
            let farewell = StoredFarewell::of(&network.membership, by, network.time(&Look::now()));
            if let Err(error) = self.state.put_farewell(&farewell) {
                tracing::warn!(%error, "a farewell can't be stored; it is told in this run only");
            }
            self.start_farewell(farewell);
        }
        self.remember_left(identity.key_id);
        tracing::info!(network = %identity.network_name, heard, "left");
        let erased = self.state.erase(id).map_err(|error| {
            ApiError::Failed(format!(
                "left, but the stored keys can't be erased: {error}; remove {}/networks/{id} by hand",
                self.state.path().display()
            ))
        });
        self.state.forget_pending(identity.key_id);
        self.forget_storage_of(id);
        let _ = reply.send(erased);
    }

    /// The smallest N for which no network of this agent has `riaN`.
    pub(super) fn free_interface(&self) -> u16 {
        let taken: Vec<u16> = self.networks.values().map(|n| n.membership.identity.interface).collect();
        (0..u16::MAX).find(|n| !taken.contains(n)).unwrap_or_default()
    }
}

pub(super) fn no_such_network(id: NetworkId) -> ApiError {
    ApiError::NoSuchNetwork(format!("this machine is in no network {id}; see ria status"))
}
