//! Ria's local API: how programs on a robot talk to its agent, as a D-Bus interface.
//!
//! ```text
//! /org/ria/Overlay1                      org.ria.Overlay1          the agent: status, join, list of networks
//! /org/ria/Overlay1/networks/<id>        org.ria.Overlay1.Network  one network: status, peers, ping, leave
//! ```
//!
//! The same objects are served on a private peer-to-peer socket ([`SOCKET`]) and, where there is one, on the system
//! bus. Reading is for everybody; methods that change something check the caller. Secrets travel as file descriptors.
//! Structures are dictionaries (`a{sv}`), so that either side may be newer: unknown entries are passed over, missing
//! ones read as their default. Times are seconds; sizes are bytes.
#![warn(missing_docs)]

pub mod client;
pub mod dict;
pub mod environment;
pub mod error;
pub mod fake;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod proxy;
pub mod server;
pub mod state;

/// The private socket of the agent.
pub const SOCKET: &str = "/run/ria/bus";

/// Its name in the run directory.
pub const SOCKET_NAME: &str = "bus";

/// Environment variable that names another socket.
pub const SOCKET_ENV: &str = "RIA_SOCKET";

/// Environment variable that names another run directory, for the agent and for its clients.
pub const RUN_DIR_ENV: &str = "RIA_RUN_DIR";

/// Members of this group may join, leave and switch networks; everybody may read.
pub const CONTROL_GROUP: &str = "ria";

/// Bus name, where a bus is there.
pub const BUS_NAME: &str = "org.ria.Overlay1";

/// Object of the agent.
pub const AGENT_PATH: &str = "/org/ria/Overlay1";

/// The object of one network.
pub fn network_path(id: ria_protocol::id::NetworkId) -> String {
    format!("{AGENT_PATH}/networks/{id}")
}
