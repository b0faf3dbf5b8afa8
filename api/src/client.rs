//! Connecting to the agent, for the command line and the ROS 2 node.
//!
//! Calls and signals have a connection each: a program that does not read its signals for a while would otherwise
//! hold up the answers behind them. The connection for signals is opened when the first are asked for.

use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use zbus::Connection;
use zbus::proxy::CacheProperties;

use crate::error::ApiError;
use crate::proxy::{AgentProxy, ChangedStream, HappenedStream, NetworkProxy, NetworksChangedStream};
use crate::state::NetworkSummary;
use crate::{RUN_DIR_ENV, SOCKET, SOCKET_ENV, SOCKET_NAME};

/// How long an agent may take to greet.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Why there is no connection to the agent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error("the Ria agent is not running ({} {reason}); start it with: {hint}", .path.display())]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
        /// What starts an agent.
        hint: &'static str,
    },
    /// The socket may not be used.
    #[error("this user may not open {}; ask for the file's permissions to be put right (0666)", .0.display())]
    Denied(PathBuf),
    /// Somebody listens and does not greet.
    #[error("the Ria agent at {} does not answer; look at its log (journalctl -u ria) and restart it", .0.display())]
    Silent(PathBuf),
    /// Something else.
    #[error("can't talk to the Ria agent at {}: {source}", .path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: zbus::Error,
    },
}

/// A connection to the agent.
#[derive(Debug, Clone)]
pub struct Agent {
    connection: Connection,
    methods: AgentClient,
}

/// The agent's methods, and its signals.
#[derive(Debug, Clone)]
pub struct AgentClient {
    calls: AgentProxy<'static>,
    signals: Arc<Signals>,
}

/// A network's methods, and its signals.
#[derive(Debug, Clone)]
pub struct NetworkClient {
    calls: NetworkProxy<'static>,
    signals: Arc<Signals>,
}

/// A network of the agent, chosen.
#[derive(Debug, Clone)]
pub struct Network {
    /// As the agent listed it.
    pub summary: NetworkSummary,
    /// Its methods and signals.
    pub proxy: NetworkClient,
}

/// The connection for signals.
#[derive(Debug)]
struct Signals {
    path: PathBuf,
    connection: OnceCell<Connection>,
}

impl Signals {
    async fn connection(&self) -> zbus::Result<&Connection> {
        let open = async || open(&self.path).await.map_err(|error| zbus::Error::Failure(error.to_string()));
        self.connection.get_or_try_init(open).await
    }
}

impl Deref for AgentClient {
    type Target = AgentProxy<'static>;

    fn deref(&self) -> &Self::Target {
        &self.calls
    }
}

impl AgentClient {
    /// A network came, went or got another interface.
    pub async fn receive_networks_changed(&self) -> zbus::Result<NetworksChangedStream> {
        agent_proxy(self.signals.connection().await?).await?.receive_networks_changed().await
    }
}

impl Deref for NetworkClient {
    type Target = NetworkProxy<'static>;

    fn deref(&self) -> &Self::Target {
        &self.calls
    }
}

impl NetworkClient {
    /// Status or peers have changed.
    pub async fn receive_changed(&self) -> zbus::Result<ChangedStream> {
        self.for_signals().await?.receive_changed().await
    }

    /// Something happened.
    pub async fn receive_happened(&self) -> zbus::Result<HappenedStream> {
        self.for_signals().await?.receive_happened().await
    }

    async fn for_signals(&self) -> zbus::Result<NetworkProxy<'static>> {
        let path = self.calls.inner().path().to_string();
        network_proxy(self.signals.connection().await?, path).await
    }
}

/// The socket to use: what was asked for, else `RIA_SOCKET`, else the one in `RIA_RUN_DIR`, else the usual one.
pub fn socket_path(asked: Option<&Path>) -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    asked
        .map(Path::to_owned)
        .or_else(|| variable(SOCKET_ENV))
        .or_else(|| variable(RUN_DIR_ENV).map(|directory| directory.join(SOCKET_NAME)))
        .unwrap_or_else(|| SOCKET.into())
}

impl Agent {
    /// Connects. An agent that was restarted needs a new connection: see [`Agent::closed`].
    pub async fn connect(socket: Option<&Path>) -> Result<Self, ConnectError> {
        let path = socket_path(socket);
        let connection = open(&path).await?;
        let calls = agent_proxy(&connection)
            .await
            .map_err(|source| ConnectError::Failed { path: path.clone(), source })?;
        let signals = Arc::new(Signals { path, connection: OnceCell::new() });
        Ok(Self { connection, methods: AgentClient { calls, signals } })
    }

    /// The agent's methods and signals.
    pub fn proxy(&self) -> &AgentClient {
        &self.methods
    }

    /// A network by name or id; without one, the only network there is.
    pub async fn network(&self, wanted: Option<&str>) -> Result<Network, ApiError> {
        let networks = self.methods.status().await?.networks;
        let summary = select(networks, wanted)?;
        Ok(Network { proxy: self.network_at(&summary.path).await?, summary })
    }

    /// The network of an object path.
    pub async fn network_at(&self, path: &str) -> Result<NetworkClient, ApiError> {
        let calls = network_proxy(&self.connection, path.to_owned()).await?;
        Ok(NetworkClient { calls, signals: Arc::clone(&self.methods.signals) })
    }

    /// Returns when the agent has gone. Streams of signals end then, too.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Whether the agent has gone.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }
}

async fn open(path: &Path) -> Result<Connection, ConnectError> {
    let failed = |source: zbus::Error| ConnectError::Failed { path: path.to_owned(), source };
    let stream = tokio::net::UnixStream::connect(path).await.map_err(|error| unreachable(path, error))?;
    let stream = stream.into_std().map_err(|error| failed(error.into()))?;
    let building = zbus::connection::Builder::unix_stream(stream).p2p().build();
    match tokio::time::timeout(HANDSHAKE, building).await {
        Ok(Err(zbus::Error::InputOutput(error))) if is_hang_up(&error) => {
            let text = "it closed the connection: it is ending, or too many programs use it; try again, or look at its \
                        log (journalctl -u ria)";
            Err(failed(zbus::Error::Failure(text.into())))
        }
        Ok(built) => built.map_err(failed),
        Err(_) => Err(ConnectError::Silent(path.to_owned())),
    }
}

async fn agent_proxy(connection: &Connection) -> zbus::Result<AgentProxy<'static>> {
    AgentProxy::builder(connection).cache_properties(CacheProperties::No).build().await
}

async fn network_proxy(connection: &Connection, path: String) -> zbus::Result<NetworkProxy<'static>> {
    NetworkProxy::builder(connection).path(path).cache_properties(CacheProperties::No).build().await
}

fn select(networks: Vec<NetworkSummary>, wanted: Option<&str>) -> Result<NetworkSummary, ApiError> {
    if networks.is_empty() {
        return Err(ApiError::NotJoined(
            "this machine is in no network; join one with a key from its administrator: ria join -".into(),
        ));
    }
    let choices = choices(&networks);
    let Some(wanted) = wanted else {
        if networks.len() > 1 {
            return Err(ApiError::InvalidArgument(format!(
                "this machine is in several networks; choose one with --network: {choices}"
            )));
        }
        return networks.into_iter().next().ok_or_else(|| ApiError::NotJoined(String::new()));
    };
    // Coordinators know nothing of each other, so two networks may have one name; an id is never in doubt.
    let mut found: Vec<NetworkSummary> =
        networks.into_iter().filter(|n| n.id == wanted || n.name == wanted).collect();
    if let Some(at) = found.iter().position(|n| n.id == wanted) {
        return Ok(found.swap_remove(at));
    }
    match found.len() {
        0 => Err(ApiError::NoSuchNetwork(format!(
            "this machine is in no network \"{wanted}\", but in: {choices}"
        ))),
        1 => Ok(found.swap_remove(0)),
        _ => Err(ApiError::InvalidArgument(format!(
            "several networks of this machine are named \"{wanted}\"; choose one by its id: {choices}"
        ))),
    }
}

/// The names of networks, with the id where a name alone is not enough.
fn choices(networks: &[NetworkSummary]) -> String {
    let choice = |network: &NetworkSummary| {
        let unique = networks.iter().filter(|n| n.name == network.name).count() == 1;
        if unique { network.name.clone() } else { format!("{} ({})", network.id, network.name) }
    };
    networks.iter().map(choice).collect::<Vec<_>>().join(", ")
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
    )
}

fn unreachable(path: &Path, error: io::Error) -> ConnectError {
    let no_daemon = |reason| ConnectError::NoDaemon {
        path: path.to_owned(),
        reason,
        hint: "sudo systemctl start ria, or in a terminal: sudo ria daemon",
    };
    let kind = error.kind();
    if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
        no_daemon("does not exist")
    } else if kind == io::ErrorKind::ConnectionRefused {
        no_daemon("is a leftover that nobody serves")
    } else if kind == io::ErrorKind::PermissionDenied {
        ConnectError::Denied(path.to_owned())
    } else {
        ConnectError::Failed { path: path.to_owned(), source: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(names: &[&str]) -> Vec<NetworkSummary> {
        names.iter().map(|n| NetworkSummary { name: (*n).into(), ..NetworkSummary::default() }).collect()
    }

    #[test]
    fn the_only_network_needs_no_name() {
        assert_eq!(select(networks(&["lab"]), None).unwrap().name, "lab");
        assert_eq!(select(networks(&["lab", "field"]), Some("field")).unwrap().name, "field");
    }

    #[test]
    fn a_wrong_or_missing_choice_names_the_networks_there_are() {
        let ambiguous = select(networks(&["lab", "field"]), None).unwrap_err();
        assert_eq!(ambiguous.exit_code(), 2);
        assert!(ambiguous.text().contains("lab, field"));
        assert!(select(networks(&["lab"]), Some("lob")).unwrap_err().text().contains("lab"));
        assert_eq!(select(networks(&[]), Some("lab")).unwrap_err().exit_code(), 4);
    }

    #[test]
    fn one_name_of_two_networks_is_no_choice_but_an_id_is() {
        let mut two = networks(&["lab", "lab"]);
        two[0].id = "aaa".into();
        two[1].id = "bbb".into();
        for wanted in [None, Some("lab")] {
            let error = select(two.clone(), wanted).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.text().contains("aaa (lab), bbb (lab)"), "{}", error.text());
        }
        assert_eq!(select(two, Some("bbb")).unwrap().id, "bbb");
    }
}
