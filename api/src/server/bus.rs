//! The agent on the system bus, as far as there is one. Nothing depends on it: that the bus is away, comes later, is
//! restarted, does not let the agent have its name or has given it to somebody else is told, and tried again.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;
use zbus::Connection;
use zbus::connection::Builder;
use zbus::fdo::{ObjectManager, RequestNameFlags, RequestNameReply};

use super::Backend;
use super::caller::Access;
use super::connection::Client;
use super::objects::AgentObject;
use crate::{AGENT_PATH, BUS_NAME};

/// Between two attempts.
const RETRY: Duration = Duration::from_secs(2);

/// How long the bus may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the agent fares on the system bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusState {
    /// It has its name.
    Serving,
    /// There is no bus that it could connect to, or it was lost.
    Absent(String),
    /// Somebody else has the name.
    NameTaken,
    /// The bus does not let it have the name.
    NameRefused(String),
}

impl fmt::Display for BusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serving => write!(f, "the system bus knows this agent as {BUS_NAME}"),
            Self::Absent(why) => write!(f, "there is no system bus ({why})"),
            Self::NameTaken => write!(
                f,
                "another program has the name {BUS_NAME} on the system bus; programs that use the bus talk to that one \
                 (busctl status {BUS_NAME} tells which it is)"
            ),
            Self::NameRefused(why) => write!(
                f,
                "the system bus does not let this agent have the name {BUS_NAME} ({why}); install the policy file \
                 {BUS_NAME}.conf in /usr/share/dbus-1/system.d/ and run: systemctl reload dbus"
            ),
        }
    }
}

/// Serves on the system bus (or on the bus at `address`) as well as it goes, for ever, and tells how it goes.
pub async fn serve_on_bus(
    address: Option<&str>,
    backend: Arc<dyn Backend>,
    tell: impl Fn(BusState) + Send + Sync,
) {
    loop {
        let Err(error) = serve(address, Arc::clone(&backend), &tell).await;
        debug!(%error, "the system bus is tried again later");
        tell(BusState::Absent(error.to_string()));
        tokio::time::sleep(RETRY).await;
    }
}

/// One connection from its beginning to its end.
async fn serve(
    address: Option<&str>,
    backend: Arc<dyn Backend>,
    tell: &(impl Fn(BusState) + Send + Sync),
) -> zbus::Result<Infallible> {
    // Before the first look at the networks, so that no change falls in between.
    let mut notices = backend.notices();
    let access = Access::Bus;
    let builder = address.map_or_else(Builder::system, Builder::address);
    let building = builder
        .method_timeout(PATIENCE)
        .serve_at(AGENT_PATH, AgentObject { backend: Arc::clone(&backend), access: access.clone() })
        .serve_at(AGENT_PATH, ObjectManager)
        .build();
    let silent = |_| zbus::Error::Failure("it does not answer".into());
    let connection = tokio::time::timeout(PATIENCE, building).await.map_err(silent)??;
    let mut client = Client::new(connection.clone(), access, backend);
    // Whoever sees the name finds the networks.
    client.sync().await?;
    tokio::select! {
        ended = client.inform(&mut notices) => {
            ended?;
            Err(zbus::Error::Failure("the connection was closed".into()))
        }
        never = take_name(&connection, tell) => match never {},
    }
}

/// Has the name sooner or later.
async fn take_name(connection: &Connection, tell: &(impl Fn(BusState) + Send + Sync)) -> Infallible {
    loop {
        let asked = connection.request_name_with_flags(BUS_NAME, RequestNameFlags::DO_NOT_QUEUE).await;
        match asked {
            Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => {
                tell(BusState::Serving);
                // It is kept: nobody may replace its owner.
                std::future::pending::<()>().await;
            }
            Ok(RequestNameReply::Exists | RequestNameReply::InQueue) | Err(zbus::Error::NameTaken) => {
                tell(BusState::NameTaken);
            }
            Err(error) => tell(BusState::NameRefused(error.to_string())),
        }
        tokio::time::sleep(RETRY).await;
    }
}
