//! Which relays nodes are told of besides the coordinator's own.

use std::sync::Arc;

use serde_json::json;

use super::writer::Writer;
use super::{Reply, Unavailable};
use crate::audit::{Actor, Event};
use crate::state::relay::RelayEntry;
use crate::store::StoreError;

/// Agents keep themselves reachable through each relay, so there are few: with the coordinator's own, four.
pub const MOST_RELAYS: usize = 3;

/// The list of relays can't be changed so.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("there is a relay named {0} already; choose another name, or remove that one first")]
    Known(String),
    #[error("there is no relay named {0}; `ria-coordinator relay list` shows all")]
    Unknown(String),
    #[error(
        "nodes keep themselves reachable through each relay, so there can be {MOST_RELAYS} besides the coordinator's own; remove one first"
    )]
    TooMany,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<StoreError> for RelayError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.into())
    }
}

/// A change of the list.
#[derive(Debug)]
pub(super) enum Edit {
    Add(Box<RelayEntry>),
    Remove(String),
}

impl Writer {
    pub(super) async fn handle_relays(&mut self, edit: Edit, actor: Actor, reply: Reply<(), RelayError>) {
        let done = match edit {
            Edit::Add(relay) => self.add_relay(*relay, actor).await,
            Edit::Remove(name) => self.remove_relay(name, actor).await,
        };
        // Whoever asked may have gone away; what was done stays done.
        let _ = reply.send(done);
    }

    async fn add_relay(&mut self, relay: RelayEntry, actor: Actor) -> Result<(), RelayError> {
        let mut relays = self.world().relays.clone();
        if relays.iter().any(|known| known.name == relay.name) {
            return Err(RelayError::Known(relay.name.to_string()));
        }
        if relays.len() >= MOST_RELAYS {
            return Err(RelayError::TooMany);
        }
        let event = Event {
            time: relay.added,
            actor,
            action: "relay.added",
            network: None,
            subject: relay.name.to_string(),
            detail: json!({ "host": relay.host, "udp_port": relay.udp_port }),
        };
        relays.push(Arc::new(relay.clone()));
        relays.sort_by(|a, b| a.name.cmp(&b.name));
        let made = self.change(async move |draft| {
            draft.write().relay_added(&relay).await?;
            draft.world.relays = relays;
            draft.audit(&event).await
        });
        Ok(made.await?)
    }

    async fn remove_relay(&mut self, name: String, actor: Actor) -> Result<(), RelayError> {
        let mut relays = self.world().relays.clone();
        let Some(index) = relays.iter().position(|relay| relay.name.as_str() == name) else {
            return Err(RelayError::Unknown(name));
        };
        let gone = relays.remove(index);
        let event = Event {
            time: super::urls::now(),
            actor,
            action: "relay.removed",
            network: None,
            subject: name.clone(),
            detail: json!({ "host": gone.host, "udp_port": gone.udp_port }),
        };
        let made = self.change(async move |draft| {
            draft.write().relay_removed(&name).await?;
            draft.world.relays = relays;
            draft.audit(&event).await
        });
        Ok(made.await?)
    }
}
