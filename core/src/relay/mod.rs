//! TURN client (RFC 8656): one UDP allocation on one server, over the agent's one UDP socket, or over a stream where UDP
//! does not get through.
//!
//! ```text
//!  Allocating ──ok──> Allocated ──refresh refused, no answer──> Allocating
//!      │  ▲               │ one channel per peer, bound again before its permission lapses
//!      ▼  │               ▼
//!   Waiting (back-off with jitter)      payload <-> 4-byte header + payload, in the caller's buffer
//! ```
//!
//! [`RelayClient`] owns the allocation, its credentials, its channels and their refreshing, and recovers from every
//! failure by itself. It does not own the socket, the choice between relay and direct path, or what is relayed.
//! Only ChannelBind is used to admit a peer, since it installs the permission too (RFC 8656, section 12).
//!
//! A refresh every [`client::KEEPALIVE`] also holds the NAT's binding open. A server that restarted has forgotten the
//! allocation and says nothing to relayed data, therefore a refresh is sent at once when data went out and nothing
//! came back for [`client::SILENCE`].
//!
//! Randomness (transaction ids, jitter) and time are handed in. The codec is `stun-types` and `turn-types`; the state
//! machine is Ria's own, because that of `turn-client-proto` draws its own randomness, keeps channel numbers, error
//! codes and the mapped address to itself, and can't take over an allocation after a restart of the agent.

mod channels;
mod client;
pub(crate) mod fallback;
pub mod framing;
mod message;

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use zeroize::Zeroize;

pub use client::{KEEPALIVE, RelayClient, SILENCE};

use crate::stun::CHANNEL_HEADER;

/// Most relays of a network that are used at a time: each costs an allocation, and each peer a channel on it.
pub const MAX_RELAYS: usize = 4;

/// User name and password for a TURN server (RFC 8489, section 9.2).
#[derive(Clone, PartialEq, Eq)]
pub struct RelayCredentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for RelayCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayCredentials({})", self.username)
    }
}

impl Drop for RelayCredentials {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

/// How a relay is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// By datagrams, from the agent's own socket.
    #[default]
    Udp,
    /// By a stream that is TLS on the wire; who opens it sees to that.
    Tls,
}

/// What a datagram from the server's address was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayInput<'a> {
    /// Neither from this server nor STUN or TURN.
    NotOurs,
    /// Handled; nothing more to do.
    Consumed,
    /// A peer's payload, still in the caller's buffer.
    FromPeer {
        /// The peer's relayed address.
        peer: SocketAddr,
        /// What it sent.
        payload: &'a [u8],
    },
}

/// Why the relay does not work, or does no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelayFailure {
    /// Nothing came back.
    #[error("the relay does not answer; check that UDP to its port is let through")]
    NoAnswer,
    /// The credentials are wrong, expired or revoked.
    #[error("the relay refused the credentials; new ones come with the next map from the coordinator")]
    Unauthorized,
    /// The server has no such allocation, as after its restart, or one of another user.
    #[error("the relay has forgotten this node's allocation, or holds it for another user")]
    Mismatch,
    /// Too many allocations of this user.
    #[error("this node has too many allocations on the relay; old ones lapse within ten minutes")]
    QuotaReached,
    /// The server is full.
    #[error("the relay is full; its operator can raise its limits")]
    NoCapacity,
    /// The server does not relay to that address.
    #[error("the relay does not relay to this address")]
    Forbidden,
    /// Any other STUN error code, or 0 when the answer made no sense.
    #[error("the relay answered with STUN error {0}")]
    Refused(u16),
    /// User name, realm or nonce don't fit a STUN message.
    #[error("the relay's credentials are not usable in STUN")]
    Unusable,
}

/// What happened to the allocation or a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayEvent {
    /// There is an allocation now.
    Allocated {
        /// The address at which others reach this node through the relay.
        relayed: SocketAddr,
        /// The address at which the server sees this node: its reflexive candidate.
        mapped: Option<SocketAddr>,
    },
    /// The allocation is gone; a new one is being asked for.
    Lost(RelayFailure),
    /// No allocation could be had.
    Failed {
        /// Why.
        reason: RelayFailure,
        /// When it is tried again.
        retry_at: Instant,
    },
    /// Payload to and from this peer now takes the short form.
    ChannelBound {
        /// The peer's relayed address.
        peer: SocketAddr,
    },
    /// The server did not bind a channel to this peer; it is tried again.
    ChannelFailed {
        /// The peer's relayed address.
        peer: SocketAddr,
        /// Why.
        reason: RelayFailure,
    },
}

/// No channel number is free: 4096 peers at a time, counting those that left within the last quarter of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no free channel on the relay: it carries at most 4096 peers")]
pub struct TooManyPeers;

/// The header that makes `payload_len` bytes behind it a ChannelData message. `None` when they are too many.
pub fn channel_header(channel: u16, payload_len: usize) -> Option<[u8; CHANNEL_HEADER]> {
    let [a, b] = channel.to_be_bytes();
    let [c, d] = u16::try_from(payload_len).ok()?.to_be_bytes();
    Some([a, b, c, d])
}

#[cfg(test)]
mod tests;
