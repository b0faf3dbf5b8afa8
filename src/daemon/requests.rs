//! What the local API asks of the loop.

use std::sync::Arc;
use std::time::Duration;

use ria_api::error::ApiError;
use ria_api::network_path;
use ria_api::state::{JoinOptions, Joined, NetworkState, Severity};
use ria_protocol::id::NetworkId;
use ria_protocol::join_key::JoinKey;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::control::{Control, Input};
use super::handle::{Command, Reply};
use super::join::{self, JoinOutcome, JoinTask, Origin};
use super::network::{Network, Waiting};
use super::pings;
use crate::coordinator::session::Order;
use crate::state::Part;
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
            Command::Join { key, options, reply } => self.join(key, options, reply),
            Command::Leave { network, reply } => self.leave(network, reply),
            Command::SetEnabled { network, enabled, reply } => {
                let _ = reply.send(self.set_enabled(network, enabled).await);
            }
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

    fn join(&mut self, key: JoinKey, options: JoinOptions, reply: Reply<Joined>) {
        let member = |n: &&Network| {
            n.membership.identity.key_id == key.key_id && n.membership.identity.refused.is_none()
        };
        if let Some(id) = self.networks.values().find(member).map(Network::id) {
            return self.answer_when_up(id, true, reply);
        }
        let members = self.networks.values().filter(|n| n.membership.identity.refused.is_none());
        let task = JoinTask {
            key,
            options,
            boot: self.boot,
            state: self.state.clone(),
            known: members.map(Network::id).collect(),
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
                // A node that was put out before comes back as another one.
                self.take_down(id, NetworkState::Joining).await;
                self.forget_storage_of(id);
                self.insert(*membership);
                self.bring_up(id).await;
                self.answer_when_up(id, false, reply);
            }
            JoinOutcome::Already(id) => self.answer_when_up(id, true, reply),
            JoinOutcome::Failed(error) => {
                let _ = reply.send(Err(error));
            }
        }
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

    fn insert(&mut self, membership: Membership) {
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
        };
        let deadline = Instant::now() + UP_TIMEOUT;
        network.waiting.push(Waiting { reply, joined, deadline });
        match network.state {
            NetworkState::Up | NetworkState::Disabled => network.answer_waiting(Ok(())),
            NetworkState::Failed => {
                network.answer_waiting(Err(format!("joined, but {}", network.conditions.in_words())));
            }
            NetworkState::Joining | NetworkState::Refused | NetworkState::Unknown => {}
        }
    }

    pub(super) fn expire_waiting(&mut self, id: NetworkId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        for waiting in network.waiting.extract_if(.., |waiting| waiting.deadline <= now) {
            let text = "joined, but the coordinator has not sent the network's map yet; see ria status";
            let _ = waiting.reply.send(Err(ApiError::TimedOut(text.into())));
        }
    }

    async fn set_enabled(&mut self, id: NetworkId, enabled: bool) -> Result<(), ApiError> {
        let network = self.networks.get_mut(&id).ok_or_else(|| no_such_network(id))?;
        if let Some(reason) = network.membership.identity.refused.as_ref().filter(|_| enabled) {
            return Err(ApiError::Refused(format!("not-a-member: {reason}")));
        }
        if network.membership.identity.enabled != enabled {
            network.membership.identity.enabled = enabled;
            self.saver.put(id, Part::Identity, &network.membership.identity, 0);
        }
        if !enabled {
            self.take_down(id, NetworkState::Disabled).await;
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

    fn leave(&mut self, id: NetworkId, reply: Reply<()>) {
        let Some(network) = self.networks.get(&id) else {
            let _ = reply.send(Err(no_such_network(id)));
            return;
        };
        let (answer, heard) = oneshot::channel();
        // A node that was put out has nobody to tell.
        let put_out = network.membership.identity.refused.is_some();
        network.order(Order::Leave(answer));
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let heard = put_out || matches!(timeout(LEAVE_PATIENCE, heard).await, Ok(Ok(true)));
            let _ = inputs.send(Input::Left { network: id, heard, reply });
        });
    }

    pub(super) async fn handle_left(&mut self, id: NetworkId, heard: bool, reply: Reply<()>) {
        self.take_down(id, NetworkState::Disabled).await;
        let Some(network) = self.networks.remove(&id) else {
            let _ = reply.send(Err(no_such_network(id)));
            return;
        };
        self.changed = true;
        let identity = &network.membership.identity;
        if !heard {
            let text = format!(
                "network {} was left while its coordinator could not be told; ask the administrator to remove {} \
                 (ria-coordinator node remove {})",
                identity.network_name, identity.name, identity.name
            );
            self.conditions.set("left-untold", Severity::Warning, text);
        }
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
    fn free_interface(&self) -> u16 {
        let taken: Vec<u16> = self.networks.values().map(|n| n.membership.identity.interface).collect();
        (0..u16::MAX).find(|n| !taken.contains(n)).unwrap_or_default()
    }
}

fn no_such_network(id: NetworkId) -> ApiError {
    ApiError::NoSuchNetwork(format!("this machine is in no network {id}; see ria status"))
}
