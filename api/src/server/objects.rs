//! The D-Bus objects: they check who calls and pass on to the [`Backend`]. The same objects serve on a bus.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ria_protocol::id::NetworkId;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Fd, interface};

use super::caller::{Access, Caller};
use super::secret::read_join_key;
use super::{Backend, Probe};
use crate::error::ApiError;
use crate::network_path;
use crate::state::{AgentStatus, Event, JoinOptions, Joined, NetworkStatus, PeerStatus, PingReply};

/// The agent.
pub(super) struct AgentObject {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) access: Access,
}

#[interface(name = "org.ria.Overlay1")]
impl AgentObject {
    async fn status(&self, #[zbus(connection)] connection: &Connection) -> Result<AgentStatus, ApiError> {
        let status = self.backend.agent_status().await?;
        let networks: Vec<NetworkId> = status.networks.iter().filter_map(|n| n.id.parse().ok()).collect();
        serve_networks(connection, &self.backend, &self.access, &networks).await?;
        Ok(status)
    }

    async fn join(
        &self,
        key: Fd<'_>,
        options: JoinOptions,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Joined, ApiError> {
        let caller = permitted(&self.access, connection, &header).await?;
        let fd = OwnedFd::try_from(key)
            .map_err(|error| ApiError::InvalidArgument(format!("the key's descriptor is no use: {error}")))?;
        let key = blocking(move || read_join_key(fd)).await?;
        let joined = self.backend.join(key, options, caller).await?;
        if let Ok(id) = joined.network_id.parse() {
            serve_networks(connection, &self.backend, &self.access, &[id]).await?;
        }
        Ok(joined)
    }

    #[zbus(signal)]
    pub(super) async fn networks_changed(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;
}

/// One network of the agent.
pub(super) struct NetworkObject {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) access: Access,
    pub(super) id: NetworkId,
}

#[interface(name = "org.ria.Overlay1.Network")]
impl NetworkObject {
    async fn status(&self) -> Result<NetworkStatus, ApiError> {
        self.backend.network_status(self.id).await
    }

    async fn peers(&self) -> Result<Vec<PeerStatus>, ApiError> {
        self.backend.peers(self.id).await
    }

    async fn ping(
        &self,
        peer: String,
        count: u32,
        interval: f64,
        timeout: f64,
    ) -> Result<Vec<PingReply>, ApiError> {
        self.backend.ping(self.id, &peer, Probe { count, interval, timeout }).await
    }

    async fn environment(&self) -> Result<BTreeMap<String, String>, ApiError> {
        self.backend.environment(self.id).await
    }

    async fn leave(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), ApiError> {
        let caller = permitted(&self.access, connection, &header).await?;
        self.backend.leave(self.id, caller).await
    }

    async fn set_enabled(
        &self,
        enabled: bool,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), ApiError> {
        let caller = permitted(&self.access, connection, &header).await?;
        self.backend.set_enabled(self.id, enabled, caller).await
    }

    #[zbus(signal)]
    pub(super) async fn changed(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(super) async fn happened(emitter: &SignalEmitter<'_>, event: Event) -> zbus::Result<()>;
}

/// Makes sure that networks have their objects on a connection: a client may use each as soon as it was told of it.
pub(super) async fn serve_networks(
    connection: &Connection,
    backend: &Arc<dyn Backend>,
    access: &Access,
    networks: &[NetworkId],
) -> zbus::Result<()> {
    for id in networks {
        let object = NetworkObject { backend: Arc::clone(backend), access: access.clone(), id: *id };
        connection.object_server().at(network_path(*id), object).await?;
    }
    Ok(())
}

async fn permitted(
    access: &Access,
    connection: &Connection,
    header: &Header<'_>,
) -> Result<Caller, ApiError> {
    let caller = access.caller(connection, header).await?;
    blocking(move || caller.may_change().map(|()| caller)).await
}

/// Runs something that may wait for the disk, a directory service or another process.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ApiError::Failed(error.to_string())))
}
