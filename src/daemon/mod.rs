//! The agent as a running program.
//!
//! ```text
//!   local API --commands--> +--------------------+ <--events-- coordinator session (a task per network)
//!                           |    agent's loop    | <--events-- netlink watcher
//!   D-Bus signals <-events- |  (control: owns    | <--done---- saver thread (files)
//!                           |  everything slow)  |
//!                           +--------------------+
//!                              | orders    ^ engine events
//!                              v           |
//!                           +--------------------+
//!                           |   packet thread    |   riaN <-> engine <-> UDP
//!                           +--------------------+
//! ```
//!
//! Two owners, by latency: the packet thread owns what packets need, the loop owns everything else, and tasks around
//! them only do input and output. So a TLS handshake or a slow disk never delays a packet, and there is no lock.

mod clashes;
mod conditions;
mod control;
pub mod demand;
mod events;
mod farewell;
pub mod handle;
mod join;
mod links;
mod machine;
mod naming;
mod netchecks;
mod network;
mod overlay;
mod packets;
mod pending;
mod pings;
mod port_mapping;
pub use join::suggested_name;
pub mod provision;
mod relays;
mod requests;
mod roaming;
mod rotation;
mod routes;
mod status;
mod storage;
mod suspension;
mod telling;
mod times;
mod trim;
mod untold;
mod uplink;
mod whereabouts;

use std::sync::Arc;

use rand_core::{OsRng, RngCore};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::netdev::netlink::{self, Netlink, NetlinkError};
use crate::netdev::udp;
use crate::state::machine::MachineId;
use crate::state::{OpenError, StateDir};
use control::{Control, Ending};
use handle::DaemonHandle;
use provision::Places;

/// The agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] OpenError),
    /// The UDP socket.
    #[error(transparent)]
    Udp(#[from] udp::BindError),
    /// The kernel's network configuration.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A thread or a signal handler.
    #[error("the agent can't start: {0}")]
    Io(#[from] std::io::Error),
}

/// An agent that is ready to run.
pub struct Daemon {
    control: Control,
    handle: DaemonHandle,
    places: Places,
}

impl Daemon {
    /// Opens and locks the state, binds the port, starts the threads. Networks come up when it runs.
    pub async fn start(config: Config, places: Places) -> Result<Self, StartError> {
        let state = Arc::new(StateDir::open_on(&config.state_dir, MachineId::of_this_machine().as_ref())?);
        let udp = udp::bind(config.udp_port)?;
        let netlink = Netlink::open(config.paths.clone())?;
        let host = netlink.host().await?;
        let host_changes = netlink::watch_changes()?;
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        let (control, handle) =
            Control::new(control::Parts { config, state, udp, netlink, host, host_changes, seed })?;
        Ok(Self { control, handle, places })
    }

    /// The door for the local API.
    pub fn handle(&self) -> DaemonHandle {
        self.handle.clone()
    }

    /// Runs until SIGTERM or SIGINT, then stores what is not stored yet. SIGTERM is what service managers send, also
    /// before an update, so the interfaces stay; after SIGINT, a person's Ctrl-C, they go.
    pub async fn run(self) -> Result<(), StartError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => Ending::ForTheNext,
                _ = interrupt.recv() => Ending::ForGood,
            }
        };
        tokio::spawn(trim::run());
        tokio::spawn(provision::run(self.places, self.handle.clone(), self.control.inputs()));
        drop(self.handle);
        self.control.run(stop).await;
        tracing::info!("stopped");
        Ok(())
    }
}
