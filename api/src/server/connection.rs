//! One client: its object server and its signals. Everything of it ends with the connection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ria_protocol::id::NetworkId;
use tokio::net::UnixStream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Guid};

use super::caller::{Access, Caller};
use super::objects::{AgentObject, NetworkObject, serve_networks};
use super::{Backend, Notice};
use crate::{AGENT_PATH, network_path};

/// How long a client may take to introduce itself.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves a client until it goes.
pub(super) async fn serve(stream: UnixStream, caller: Caller, backend: Arc<dyn Backend>) -> zbus::Result<()> {
    // Before the first look at the networks, so that no change falls in between.
    let mut notices = backend.notices();
    let access = Access::Peer(caller);
    let building = zbus::connection::Builder::unix_stream(stream.into_std()?)
        .server(Guid::generate())
        .p2p()
        .serve_at(AGENT_PATH, AgentObject { backend: Arc::clone(&backend), access: access.clone() })
        .build();
    let connection = tokio::time::timeout(HANDSHAKE, building)
        .await
        .map_err(|_| zbus::Error::Handshake("the client did not introduce itself".into()))??;
    let mut client = Client { connection, access, backend, networks: BTreeSet::new() };
    match client.inform(&mut notices).await {
        // It went while something was written to it.
        Err(zbus::Error::InputOutput(_)) => Ok(()),
        ended => ended,
    }
}

struct Client {
    connection: Connection,
    access: Access,
    backend: Arc<dyn Backend>,
    /// Networks that have an object on this connection.
    networks: BTreeSet<NetworkId>,
}

impl Client {
    /// Keeps it informed until it goes.
    async fn inform(&mut self, notices: &mut Receiver<Notice>) -> zbus::Result<()> {
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
                self.sync().await?;
                AgentObject::networks_changed(&self.emitter(AGENT_PATH.into())?).await
            }
            Notice::Changed(id) if self.networks.contains(&id) => {
                NetworkObject::changed(&self.emitter(network_path(id))?).await
            }
            Notice::Changed(_) => Ok(()),
            Notice::Happened(event) => match event.network_id.parse() {
                Ok(id) if self.networks.contains(&id) => {
                    NetworkObject::happened(&self.emitter(network_path(id))?, event).await
                }
                _ => Ok(()),
            },
        }
    }

    async fn tell_all_changed(&mut self) -> zbus::Result<()> {
        self.tell(Notice::NetworksChanged).await?;
        for id in self.networks.clone() {
            self.tell(Notice::Changed(id)).await?;
        }
        Ok(())
    }

    /// Makes the objects match the networks.
    async fn sync(&mut self) -> zbus::Result<()> {
        let Ok(status) = self.backend.agent_status().await else { return Ok(()) };
        let wanted: BTreeSet<NetworkId> = status.networks.iter().filter_map(|n| n.id.parse().ok()).collect();
        let objects = self.connection.object_server();
        for id in self.networks.difference(&wanted) {
            objects.remove::<NetworkObject, _>(network_path(*id)).await?;
        }
        let added: Vec<NetworkId> = wanted.difference(&self.networks).copied().collect();
        serve_networks(&self.connection, &self.backend, &self.access, &added).await?;
        self.networks = wanted;
        Ok(())
    }

    fn emitter(&self, path: String) -> zbus::Result<SignalEmitter<'static>> {
        SignalEmitter::new(&self.connection, path)
    }
}
