//! The relay: STUN (RFC 8489) and TURN (RFC 8656) over UDP, TCP and TLS for the members of this coordinator's networks.
//!
//! ```text
//!  robot A ──ChannelData 0x4003──┐                       ┌──ChannelData 0x4000──> robot B
//!                                │   io: batches in      │   io: batches out
//!                                └─> server: (A, 0x4003) ─> B's allocation, same network ─┘
//! ```
//!
//! Relayed addresses are *virtual*: an allocation has an address, by which others name it, but no socket. Data for
//! another allocation of the same network is handed over in here; everything else is refused and counted. So one port
//! is all that needs publishing, the relay can't be used to reach into the lab's own networks, and networks stay apart.
//!
//! Where the operator gives a range of ports, allocations have addresses of that range as long as there are any, and may
//! have peers outside, which [`server::PeerPolicy`] admits or not; a socket is opened for the first of them.
//!
//! [`server`] is the protocol, without sockets and clock. [`io`] runs it, [`traffic`] moves datagrams, and [`streams`] are
//! the clients that come over TCP. [`credentials`] are issued with the map. What is relayed is encrypted between the
//! nodes; the relay could not read it.
//!
//! The state machine is Ria's own on the codecs `stun-types` and `turn-types`: `turn-server-proto` can't end an
//! allocation (revocation), can't let a restarted agent take over its own, and searches its clients linearly.

mod counters;
mod credentials;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod io;
mod outbox;
mod outside;
mod server;
mod socket;
mod streams;
mod traffic;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ria_protocol::id::NetworkId;
use zeroize::Zeroizing;

pub use counters::{Counters, DropReason, RelayCounters};
pub use credentials::RelayCredentials;
pub use io::{Relay, RelayHandle};
pub use server::{Outside, PeerPolicy};
pub use streams::{Ends, StreamDoor, begins_turn, tune};

/// How long credentials live unless it is set. They are renewed daily, so a node that is cut off from its coordinator
/// keeps its relay for a day at least.
pub const DEFAULT_CREDENTIALS: Duration = Duration::from_secs(48 * 3600);

/// What a relay needs to know.
#[derive(Clone)]
pub struct RelayConfig {
    /// UDP addresses to listen on. `[::]` takes IPv4 too.
    pub listen: Vec<SocketAddr>,
    /// Whom it serves, and how much.
    pub terms: Terms,
    /// Addresses (at most one of each family) that relayed addresses show instead of the one at which a request
    /// arrived. They need not be reachable: nobody outside of the relay sends to them.
    pub external: Vec<IpAddr>,
    /// How allocations reach, and are reached from, addresses outside of the relay; usually not at all.
    pub outside: Option<Outside>,
    /// Bounds.
    pub limits: Limits,
}

impl RelayConfig {
    /// With the usual bounds.
    pub fn new(listen: Vec<SocketAddr>, terms: Terms) -> Self {
        Self { listen, terms, external: Vec::new(), outside: None, limits: Limits::default() }
    }
}

impl std::fmt::Debug for RelayConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayConfig")
            .field("listen", &self.listen)
            .field("external", &self.external)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Whom a relay serves, and how much; may change while it runs.
#[derive(Clone, PartialEq, Eq)]
pub struct Terms {
    /// Key of the credentials.
    pub secret: Zeroizing<[u8; 32]>,
    /// The networks that it serves; `None` for all that it is shown credentials for.
    pub networks: Option<BTreeSet<NetworkId>>,
    /// Bytes per second that one node may have relayed, in all its allocations together; none unless it is set.
    pub bytes_per_second_of_node: Option<u64>,
    /// Allocations of one node; the one that was idle longest makes room for a new one. A robot that roams leaves one
    /// behind at each access point for ten minutes. Default 16.
    pub allocations_per_node: usize,
}

impl Terms {
    /// With the usual bounds.
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            secret: Zeroizing::new(secret),
            networks: None,
            bytes_per_second_of_node: None,
            allocations_per_node: 16,
        }
    }
}

impl std::fmt::Debug for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms").field("networks", &self.networks).finish_non_exhaustive()
    }
}

/// Bounds of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Allocations in all. One takes about 1 KiB, and 100 B for each of its peers. Default 16 384.
    pub allocations: usize,
    /// Answers per second to one IP address (IPv6: /64) as long as it has not shown credentials. Many robots may share
    /// one address behind a NAT. Default 200.
    pub strangers_per_second: u32,
    /// Bytes that the sockets may hold in each direction, as asked of the kernel. Default 4 MiB.
    pub socket_buffer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { allocations: 16_384, strangers_per_second: 200, socket_buffer: 4 << 20 }
    }
}
