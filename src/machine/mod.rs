//! What the machine's own services tell over the system bus: NetworkManager of the network below, logind of sleep.
//!
//! Nothing depends on them. Where the bus, or one of them, is not there, nothing is told; each may come, go and come back.
//! Nothing is changed through them either, but for logind's delay of a sleep.

pub mod logind;
pub mod network_manager;
mod reading;

use std::time::Duration;

use ria_api::state::Uplink;
use tokio::sync::oneshot;
use zbus::Connection;
use zbus::connection::Builder;

/// Between two attempts to reach the bus.
const RETRY: Duration = Duration::from_secs(5);

/// How long a service may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is told.
#[derive(Debug)]
pub enum News {
    /// The network below is this; `None`: nobody tells.
    Uplink(Option<Box<Uplink>>),
    /// The machine goes to sleep when this is answered or dropped, and soon in any case.
    GoesToSleep(oneshot::Sender<()>),
    /// It is awake again, or does not go to sleep after all.
    IsAwake,
}

/// Starts following both.
pub fn start(tell: impl Fn(News) + Clone + Send + Sync + 'static) {
    tokio::spawn(network_manager::follow(tell.clone()));
    tokio::spawn(logind::follow(tell));
}

/// A connection of its own to the system bus, or to the one that `DBUS_SYSTEM_BUS_ADDRESS` names.
async fn connect() -> zbus::Result<Connection> {
    let silent = |_| zbus::Error::Failure("the system bus does not answer".into());
    let building = Builder::system().method_timeout(PATIENCE).build();
    tokio::time::timeout(PATIENCE, building).await.map_err(silent)?
}
