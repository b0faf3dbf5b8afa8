//! Which relays nodes are told of besides the coordinator's own.

use std::sync::Arc;

use ria_protocol::keys::SpkiHash;
use ria_protocol::name::Name;
use serde_json::json;

use super::writer::Writer;
use super::{Reply, Unavailable};
use crate::audit::{Actor, Event};
use crate::state::relay::{Place, RelayEntry, RelayKind};
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

/// What a stand-alone relay says when it connects.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub name: Name,
    /// The key that it has proved.
    pub tls_key: SpkiHash,
    pub place: Place,
}

/// A change of the list.
#[derive(Debug)]
pub(super) enum Edit {
    Add(Box<RelayEntry>),
    Remove(String),
    Arrived(Arrived),
}

impl Writer {
    pub(super) async fn handle_relays(&mut self, edit: Edit, actor: Actor, reply: Reply<(), RelayError>) {
        let done = match edit {
            Edit::Add(relay) => self.add_relay(*relay, actor).await,
            Edit::Remove(name) => self.remove_relay(name, actor).await,
            Edit::Arrived(arrived) => self.place_relay(arrived, actor).await,
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
            detail: detail(&relay.kind),
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
            detail: detail(&gone.kind),
        };
        let made = self.change(async move |draft| {
            draft.write().relay_removed(&name).await?;
            draft.world.relays = relays;
            draft.audit(&event).await
        });
        Ok(made.await?)
    }

    /// A stand-alone relay is known by its TLS key from now on, and is where it says.
    async fn place_relay(&mut self, arrived: Arrived, actor: Actor) -> Result<(), RelayError> {
        let mut relays = self.world().relays.clone();
        let found = relays.iter_mut().find(|relay| relay.name == arrived.name);
        let unknown = || RelayError::Unknown(arrived.name.to_string());
        let relay = found.ok_or_else(unknown)?;
        let RelayKind::Standalone(own) = &relay.kind else { return Err(unknown()) };
        if own.tls_key.is_some_and(|key| key != arrived.tls_key) {
            return Err(unknown());
        }
        if own.tls_key.is_some() && own.place.as_ref() == Some(&arrived.place) {
            return Ok(());
        }
        let mut own = own.clone();
        (own.tls_key, own.place) = (Some(arrived.tls_key), Some(arrived.place));
        let kind = RelayKind::Standalone(own.clone());
        let event = Event {
            time: super::urls::now(),
            actor,
            action: "relay.placed",
            network: None,
            subject: arrived.name.to_string(),
            detail: detail(&kind),
        };
        *relay = Arc::new(RelayEntry { kind, ..RelayEntry::clone(relay) });
        let made = self.change(async move |draft| {
            draft.write().relay_placed(arrived.name.as_str(), &own).await?;
            draft.world.relays = relays;
            draft.audit(&event).await
        });
        Ok(made.await?)
    }
}

/// What the audit log says of it.
fn detail(kind: &RelayKind) -> serde_json::Value {
    match kind {
        RelayKind::Turn(server) => {
            let tls_port = server.tls.as_ref().map(|tls| tls.port);
            json!({ "kind": "turn", "host": server.host, "udp_port": server.udp_port, "tls_port": tls_port })
        }
        RelayKind::Standalone(own) => json!({
            "kind": "standalone",
            "networks": own.networks,
            "host": own.place.as_ref().map(|place| &place.host),
            "udp_port": own.place.as_ref().map(|place| place.udp_port),
            "tls_port": own.place.as_ref().and_then(|place| place.tls_port),
            "tls_key": own.tls_key.map(|key| key.to_string()),
        }),
    }
}
