//! The engine: the control part, its data shards, and the door between them and the caller.
//!
//! ```text
//!            commands            events, status
//!               |                      ^
//!               v                      |
//!            +-------------------------------+        ShardCommand         +----------------+
//!            | control: map, relays, paths   | --------------------------> | shard 0..N     |
//!            | probes, link states           | <-------------------------- | sessions,      |
//!            +-------------------------------+         ShardEvent          | routes, filter |
//!               ^                      |                                   +----------------+
//!               |   STUN, TURN, probes |                                     ^            |
//!               |                      v            WireGuard                |            v
//!  handle_udp --+--------------------------------- messages ----------------+        datagrams
//!  handle_tun ----------------------------------- IP packets ----------------^        IP packets
//! ```
//!
//! The caller's loop: hand in what arrived with `handle_*`, then drain [`Engine::poll_transmit`] and
//! [`Engine::poll_event`], and call [`Engine::handle_timeout`] when [`Engine::poll_timeout`] says so.

pub mod command;
pub mod event;
pub mod status;

use std::time::Instant;

use ria_protocol::id::NetworkId;

pub use command::{AddNetwork, Command, CommandError, PingId, RelayServer};
pub use event::{Event, PingOutcome, Warning};
pub use status::{EngineStatus, LinkState, NetworkStatus, OwnStatus, PathKind, PeerStatus, RelayStatus};

use crate::packet::{DatagramBatch, PacketBatch, Received};

/// What an engine is made with.
pub struct EngineConfig {
    /// Seed of all randomness outside WireGuard's handshake; must come from the operating system's generator, since
    /// nonces of probes depend on it.
    pub seed: [u8; 32],
}

/// The engine. One per process and UDP port; serves several networks.
pub struct Engine {
    _config: EngineConfig,
}

impl Engine {
    /// An engine without networks.
    pub fn new(config: EngineConfig, _now: Instant) -> Self {
        Self { _config: config }
    }

    /// Applies a command.
    pub fn handle_command(&mut self, _command: Command, _now: Instant) -> Result<(), CommandError> {
        Ok(())
    }

    /// IP packets that a network's interface sent. Encrypted ones are appended to `udp`.
    pub fn handle_tun<'a>(
        &mut self,
        _network: NetworkId,
        _packets: impl IntoIterator<Item = &'a [u8]>,
        _now: Instant,
        _udp: &mut DatagramBatch,
    ) {
    }

    /// Datagrams that arrived at the UDP port. Decrypted packets are appended to `tun`, answers to `udp`.
    pub fn handle_udp<'a>(
        &mut self,
        _datagrams: impl IntoIterator<Item = Received<'a>>,
        _now: Instant,
        _tun: &mut PacketBatch,
        _udp: &mut DatagramBatch,
    ) {
    }

    /// When to call [`Self::handle_timeout`] at the latest; `None` means not before something else happens. May change
    /// with any other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Appends all waiting control datagrams (probes, handshakes, STUN, TURN) to `udp`. Call it after each other call.
    pub fn poll_transmit(&mut self, _now: Instant, _udp: &mut DatagramBatch) {}

    /// The next event; call until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// The state of everything.
    pub fn status(&self, _now: Instant) -> EngineStatus {
        EngineStatus::default()
    }
}
