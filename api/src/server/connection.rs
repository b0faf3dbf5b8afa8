//! One client: its object server and its signals. Everything of it ends with the connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ria_protocol::id::NetworkId;
use tokio::net::UnixStream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use zbus::fdo::ObjectManager;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Guid};

use super::caller::{Access, Caller};
use super::gate::Gated;
use super::objects::{AgentObject, NetworkObject, serve_networks};
use super::properties::{self, Properties};
use super::{Backend, Notice};
use crate::{AGENT_PATH, network_path};

/// How long a client may take to introduce itself.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves a client until it goes.
pub(super) async fn serve(stream: UnixStream, caller: Caller, backend: Arc<dyn Backend>) -> zbus::Result<()> {
    // Before the first look at the networks, so that no change falls in between.
    let mut notices = backend.notices();
    let access = Access::Peer(caller.clone());
    let building = zbus::connection::Builder::socket(Gated { stream, caller })
        .server(Guid::generate())
        .p2p()
        .serve_at(AGENT_PATH, AgentObject { backend: Arc::clone(&backend), access: access.clone() })
        .serve_at(AGENT_PATH, ObjectManager)
        .build();
    let connection = tokio::time::timeout(HANDSHAKE, building)
        .await
        .map_err(|_| zbus::Error::Handshake("the client did not introduce itself".into()))??;
    let mut client = Client::new(connection, access, backend);
    match client.inform(&mut notices).await {
        // It went while something was written to it.
        Err(zbus::Error::InputOutput(_)) => Ok(()),
        ended => ended,
    }
}

/// A connection that is kept informed: of one client, or of the bus and all its clients.
pub(super) struct Client {
    connection: Connection,
    access: Access,
    backend: Arc<dyn Backend>,
    /// Networks that have an object on this connection, each with the properties that were told of last.
    networks: BTreeMap<NetworkId, Properties>,
}

impl Client {
    /// Before anybody was told anything.
    pub(super) fn new(connection: Connection, access: Access, backend: Arc<dyn Backend>) -> Self {
        Self { connection, access, backend, networks: BTreeMap::new() }
    }

    /// Keeps it informed until it goes.
    pub(super) async fn inform(&mut self, notices: &mut Receiver<Notice>) -> zbus::Result<()> {
        self.sync().await?;
        loop {
            let notice = tokio::select! {
                notice = notices.recv() => notice,
                () = self.connection.closed() => return Ok(()),
            };
            match notice {
                Ok(notice) => self.tell(notice).await?,
                // It reads too slowly. What it missed it learns by asking again, so it is told to.
                Err(RecvError::Lagged(_)) => self.tell_all_changed().await?,
                Err(RecvError::Closed) => return Ok(()),
            }
        }
    }

    async fn tell(&mut self, notice: Notice) -> zbus::Result<()> {
        match notice {
            Notice::NetworksChanged => {
                if self.sync().await? {
                    properties::tell_networks(&self.emitter(AGENT_PATH.into())?, self.networks.keys())
                        .await?;
                }
                AgentObject::told_networks_changed(&self.emitter(AGENT_PATH.into())?).await
            }
            Notice::Changed(id, status) => {
                let emitter = self.emitter(network_path(id))?;
                let Some(told) = self.networks.get_mut(&id) else { return Ok(()) };
                let now = Properties::of(&status);
                let before = std::mem::replace(told, now.clone());
                now.tell_changes(&emitter, &before).await?;
                NetworkObject::changed(&emitter).await
            }
            Notice::Happened(event) => match event.network_id.parse() {
                Ok(id) if self.networks.contains_key(&id) => {
                    NetworkObject::happened(&self.emitter(network_path(id))?, event).await
                }
                _ => Ok(()),
            },
        }
    }

    async fn tell_all_changed(&mut self) -> zbus::Result<()> {
        self.tell(Notice::NetworksChanged).await?;
        let ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        for id in ids {
            // Gone meanwhile: another notice tells of it.
            let Ok(status) = self.backend.network_status(id).await else { continue };
            self.tell(Notice::Changed(id, Arc::new(status))).await?;
        }
        Ok(())
    }

    /// Makes the objects match the networks; whether that changed anything.
    pub(super) async fn sync(&mut self) -> zbus::Result<bool> {
        let Ok(status) = self.backend.agent_status().await else { return Ok(false) };
        let wanted: BTreeSet<NetworkId> = status.networks.iter().filter_map(|n| n.id.parse().ok()).collect();
        let objects = self.connection.object_server();
        let removed: Vec<NetworkId> =
            self.networks.keys().filter(|id| !wanted.contains(id)).copied().collect();
        for id in &removed {
            objects.remove::<NetworkObject, _>(network_path(*id)).await?;
            self.networks.remove(id);
        }
        let added: Vec<NetworkId> = wanted.into_iter().filter(|id| !self.networks.contains_key(id)).collect();
        serve_networks(&self.connection, &self.backend, &self.access, &added).await?;
        for id in &added {
            let known = self.backend.network_status(*id).await.map(|status| Properties::of(&status));
            self.networks.insert(*id, known.unwrap_or_default());
        }
        Ok(!removed.is_empty() || !added.is_empty())
    }

    fn emitter(&self, path: String) -> zbus::Result<SignalEmitter<'static>> {
        SignalEmitter::new(&self.connection, path)
    }
}
