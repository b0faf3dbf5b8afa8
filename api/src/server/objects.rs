//! The D-Bus objects: they check who calls and pass on to the [`Backend`]. The same objects serve on a bus.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ria_protocol::id::NetworkId;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Fd, OwnedObjectPath, interface};

use super::caller::{Access, Caller, CallerNames};
use super::properties::Properties;
use super::secret::read_join_key;
use super::{Backend, Probe};
use crate::error::ApiError;
use crate::network_path;
use crate::state::{
    AgentStatus, Event, JoinOptions, Joined, NetworkReport, NetworkStatus, PeerStatus, PingReply,
};

/// The agent.
pub(super) struct AgentObject {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) access: Access,
}

#[interface(name = "org.ria.Overlay1")]
impl AgentObject {
    /// The agent and its networks: `AgentStatus`, a dictionary.
    #[zbus(out_args("status"))]
    async fn status(&self, #[zbus(connection)] connection: &Connection) -> Result<AgentStatus, ApiError> {
        let status = self.backend.agent_status().await?;
        let networks: Vec<NetworkId> = status.networks.iter().filter_map(|n| n.id.parse().ok()).collect();
        serve_networks(connection, &self.backend, &self.access, &networks).await?;
        Ok(status)
    }

    /// Joins the network of a join key, which is read from the descriptor. Returns `Joined` when the interface is up.
    /// For root and the group `ria` only.
    #[zbus(out_args("joined"))]
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

    /// Version of the agent.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn version(&self) -> zbus::fdo::Result<String> {
        Ok(self.backend.agent_status().await.map_err(read_failed)?.version)
    }

    /// This run of the agent.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn boot_id(&self) -> zbus::fdo::Result<String> {
        Ok(self.backend.agent_status().await.map_err(read_failed)?.boot_id)
    }

    /// Objects of the networks that this machine is in.
    #[zbus(property, name = "Networks")]
    async fn network_paths(&self) -> zbus::fdo::Result<Vec<OwnedObjectPath>> {
        let networks = self.backend.agent_status().await.map_err(read_failed)?.networks;
        Ok(networks.into_iter().filter_map(|network| network.path.try_into().ok()).collect())
    }

    /// A network came, went, or has another state or interface: ask `Status`.
    #[zbus(signal, name = "NetworksChanged")]
    pub(super) async fn told_networks_changed(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;
}

/// One network of the agent.
pub(super) struct NetworkObject {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) access: Access,
    pub(super) id: NetworkId,
}

#[interface(name = "org.ria.Overlay1.Network")]
impl NetworkObject {
    /// The network on this machine: `NetworkStatus`, a dictionary.
    #[zbus(out_args("status"))]
    async fn status(&self) -> Result<NetworkStatus, ApiError> {
        self.backend.network_status(self.id).await
    }

    /// All other members by name: `PeerStatus` each.
    #[zbus(out_args("peers"))]
    async fn peers(&self) -> Result<Vec<PeerStatus>, ApiError> {
        self.backend.peers(self.id).await
    }

    /// Probes a peer (name, ROS name, host name, id or overlay address) `count` times, `interval` seconds apart,
    /// waiting `timeout` seconds for each answer: `PingReply` each.
    #[zbus(out_args("replies"))]
    async fn ping(
        &self,
        peer: String,
        count: u32,
        interval: f64,
        timeout: f64,
    ) -> Result<Vec<PingReply>, ApiError> {
        self.backend.ping(self.id, &peer, Probe { count, interval, timeout }).await
    }

    /// Measures the network that this machine is in, which takes some seconds: `NetworkReport`, a dictionary. Calls while
    /// that goes on get the same report.
    #[zbus(out_args("report"))]
    async fn netcheck(&self) -> Result<NetworkReport, ApiError> {
        self.backend.netcheck(self.id).await
    }

    /// Variables for ROS 2 processes.
    #[zbus(out_args("variables"))]
    async fn environment(&self) -> Result<BTreeMap<String, String>, ApiError> {
        self.backend.environment(self.id).await
    }

    /// Leaves for good. For root and the group `ria` only.
    async fn leave(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), ApiError> {
        let caller = permitted(&self.access, connection, &header).await?;
        self.backend.leave(self.id, caller).await
    }

    /// Switches the network off, keeping the membership, or on again. For root and the group `ria` only.
    async fn set_enabled(
        &self,
        enabled: bool,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), ApiError> {
        let caller = permitted(&self.access, connection, &header).await?;
        self.backend.set_enabled(self.id, enabled, caller).await
    }

    /// Changes this machine's WireGuard key, keeping addresses and links. For root and the group `ria` only.
    async fn rotate_key(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), ApiError> {
        let caller = permitted(&self.access, connection, &header).await?;
        self.backend.rotate_key(self.id, caller).await
    }

    /// Tells where the coordinator is: it has to answer there. For root and the group `ria` only.
    async fn set_url(
        &self,
        url: String,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), ApiError> {
        let caller = permitted(&self.access, connection, &header).await?;
        self.backend.set_url(self.id, &url, caller).await
    }

    /// Name of the network.
    #[zbus(property)]
    async fn name(&self) -> zbus::fdo::Result<String> {
        Ok(self.properties().await?.name)
    }

    /// `joining`, `up`, `disabled`, `refused` or `failed`.
    #[zbus(property)]
    async fn state(&self) -> zbus::fdo::Result<String> {
        Ok(self.properties().await?.state)
    }

    /// Interface, such as `ria0`; empty without one.
    #[zbus(property)]
    async fn interface(&self) -> zbus::fdo::Result<String> {
        Ok(self.properties().await?.interface)
    }

    /// Own addresses with prefix length, IPv4 first.
    #[zbus(property)]
    async fn addresses(&self) -> zbus::fdo::Result<Vec<String>> {
        Ok(self.properties().await?.addresses)
    }

    /// `connecting`, `connected`, `unreachable` or `refused`.
    #[zbus(property)]
    async fn coordinator_state(&self) -> zbus::fdo::Result<String> {
        Ok(self.properties().await?.coordinator_state)
    }

    /// Members of the network beside this one.
    #[zbus(property)]
    async fn peers_total(&self) -> zbus::fdo::Result<u32> {
        Ok(self.properties().await?.peers_total)
    }

    /// Those whose link works.
    #[zbus(property)]
    async fn peers_up(&self) -> zbus::fdo::Result<u32> {
        Ok(self.properties().await?.peers_up)
    }

    /// Status or peers have changed; at most some times a second.
    #[zbus(signal)]
    pub(super) async fn changed(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;

    /// Something happened: `Event`, a dictionary.
    #[zbus(signal)]
    pub(super) async fn happened(emitter: &SignalEmitter<'_>, event: Event) -> zbus::Result<()>;
}

impl NetworkObject {
    async fn properties(&self) -> zbus::fdo::Result<Properties> {
        let status = self.backend.network_status(self.id).await.map_err(read_failed)?;
        Ok(Properties::of(&status))
    }
}

/// Reading a property has only the errors of all properties.
fn read_failed(error: ApiError) -> zbus::fdo::Error {
    zbus::fdo::Error::Failed(error.text())
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
    let mut caller = access.caller(connection, header).await?;
    blocking(move || {
        caller.may_change()?;
        caller.names = CallerNames::look_up(caller.uid, caller.pid);
        Ok(caller)
    })
    .await
}

/// Runs something that may wait for the disk, a directory service or another process.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ApiError::Failed(error.to_string())))
}
