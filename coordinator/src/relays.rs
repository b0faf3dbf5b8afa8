//! Which relays nodes are told of, with credentials of their own.

use std::fmt;

use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::map::Relay;
use ria_protocol::time::UnixTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::RelaySettings;

/// The relay can't be started.
#[derive(Debug, thiserror::Error)]
#[error("the relay can't be started: {0}")]
pub struct RelayStartError(String);

/// The relays of this coordinator.
#[derive(Debug)]
pub struct Relays {}

impl Relays {
    /// Starts the relay within the coordinator, unless it is switched off.
    pub fn start(
        _: &RelaySettings,
        _: Zeroizing<[u8; 32]>,
        _: CancellationToken,
    ) -> Result<(Self, Option<JoinHandle<()>>), RelayStartError> {
        Ok((Self {}, None))
    }

    /// Fresh credentials of a node for each relay.
    pub fn issue(&self, _: NetworkId, _: NodeId, _: UnixTime) -> Vec<Relay> {
        Vec::new()
    }

    /// A node is no member any more.
    pub fn revoke(&self, _: NetworkId, _: NodeId) {}
}

impl fmt::Display for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("off")
    }
}
