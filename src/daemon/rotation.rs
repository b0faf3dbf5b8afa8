//! Rotation of this node's WireGuard key, in an order in which a kill at any point locks nobody out:
//!
//! 1. The new key is stored beside the old one.
//! 2. The coordinator is asked, with proof of the new key.
//! 3. The map says that the new key is this node's. Only now it is used, and the old one erased.
//!
//! The map alone decides which key is in use, at the start as well; so whichever step was the last one that was heard of,
//! the next contact with the coordinator brings both sides together. Where the map lists a key that this node does not
//! have (a coordinator that was restored from a backup), the node asks for its own.

use std::time::Duration;

use ria_api::error::ApiError;
use ria_api::state::{NetworkState, Severity};
use ria_core::{Command, PrivateKey};
use ria_protocol::id::NetworkId;
use ria_protocol::requester::{LocalDeed, Requester};
use ria_protocol::version::Protocol;
use tokio::time::Instant;

use super::control::Control;
use super::events::Draft;
use super::handle::Reply;
use super::network::Network;
use crate::coordinator::session::Order;
use crate::state::membership::Membership;
use crate::state::{Part, map};

/// How long somebody who asked for a rotation waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Somebody who waits for a rotation.
#[derive(Debug)]
pub struct Rotating {
    reply: Reply<()>,
    until: Instant,
}

impl Membership {
    /// Takes the new key into use if the map says that it is this node's; tells whether it did.
    pub fn adopt_key(&mut self) -> bool {
        let own = self.map.as_ref().and_then(|map| map::member(map, self.identity.node));
        own.is_some_and(|(_, record)| self.keys.adopt(&record.wg_key))
    }
}

impl Network {
    /// Asks the coordinator for the key that this node wants, if the map says another.
    fn ask_for_key(&self) {
        if self.key_unstored {
            return;
        }
        let membership = &self.membership;
        let own = membership.map.as_ref().and_then(|map| map::member(map, membership.identity.node));
        let Some((_, record)) = own else { return };
        let wanted = membership.keys.wanted();
        if record.wg_key != wanted.public() {
            self.order(Order::Rotate(wanted));
        }
    }
}

impl Control {
    /// The local API asks for another key.
    pub(super) fn rotate_key(&mut self, id: NetworkId, by: Requester, reply: Reply<()>) {
        let problem = match self.networks.get(&id) {
            None => {
                Some(ApiError::NoSuchNetwork(format!("this machine is in no network {id}; see ria status")))
            }
            Some(network) if network.coordinator.protocol == Some(Protocol::V1) => Some(ApiError::Failed(
                "the coordinator is too old to change keys; ask its administrator to update it".into(),
            )),
            Some(network) if network.state == NetworkState::Refused => {
                Some(ApiError::Refused("the coordinator has put this machine out; see ria status".into()))
            }
            Some(_) => None,
        };
        if let Some(error) = problem {
            let _ = reply.send(Err(error));
            return;
        }
        self.note(id, LocalDeed::AskedForKey, by);
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.key_unstored |= network.membership.keys.prepare_next();
        network.rotating.push(Rotating { reply, until: Instant::now() + PATIENCE });
        let keys = &network.membership.keys;
        self.saver.put(id, Part::Keys, keys, keys.ticket());
    }

    /// The keys are stored: a new one among them may be shown to the coordinator.
    pub(super) fn handle_keys_saved(&mut self, id: NetworkId, ticket: u64) {
        if let Some(network) = self.networks.get_mut(&id) {
            network.key_unstored &= ticket == 0;
            network.ask_for_key();
        }
    }

    /// The map has changed: it may say that a new key is in use, or still wait for one. Before the engine is told.
    pub(super) async fn follow_key(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        if !network.membership.adopt_key() {
            return network.ask_for_key();
        }
        self.saver.put(id, Part::Keys, &network.membership.keys, 0);
        for waiting in network.rotating.drain(..) {
            // The caller may have gone away.
            let _ = waiting.reply.send(Ok(()));
        }
        tracing::info!(network = %network.membership.identity.network_name, "the WireGuard key was changed");
        let private_key = PrivateKey(network.membership.keys.wg());
        let in_engine = network.in_engine;
        self.changed = true;
        let text = "this machine's WireGuard key was changed".to_owned();
        self.events.tell(id, Draft { severity: Severity::Info, kind: "key", text, ..Draft::default() });
        if in_engine {
            self.engine(Command::SetPrivateKey { network: id, private_key }).await;
        }
    }

    /// The coordinator does not want the new key: the next attempt makes another one.
    pub(super) fn drop_next_key(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        if network.membership.keys.drop_next() {
            self.saver.put(id, Part::Keys, &network.membership.keys, 0);
        }
    }

    /// Nobody waits for ever; the rotation itself goes on.
    pub(super) fn expire_rotating(&mut self, id: NetworkId, now: Instant) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        for waiting in network.rotating.extract_if(.., |waiting| waiting.until <= now) {
            let text =
                "the new key is made, and is used as soon as the coordinator can be reached; see ria status";
            let _ = waiting.reply.send(Err(ApiError::TimedOut(text.into())));
        }
    }
}
