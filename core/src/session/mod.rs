//! WireGuard sessions behind a trait, so that a simulation in virtual time can put others in their place.
//!
//! The shard decides *when* a handshake begins and where datagrams go; a session only turns packets into datagrams and
//! back. [`wireguard`] is the one implementation that the product uses.

mod flood;
pub(crate) mod handover;
pub mod wireguard;

use std::net::IpAddr;
use std::time::Instant;

use ria_protocol::keys::{PresharedKey, WgPublicKey};

use crate::counters::DropReason;

/// Bytes that a data message is longer than its packet.
pub const OVERHEAD: usize = 32;

/// Room that each call which may write a handshake message needs.
pub const HANDSHAKE_ROOM: usize = 148;

/// Makes what a network needs of WireGuard.
pub trait SessionFactory: Send {
    /// For a network in which this node has this private key.
    fn network(&self, private_key: &[u8; 32]) -> Box<dyn NetworkSessions>;
}

/// Whose handshake initiation a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initiator {
    /// Of the holder of this key, most likely: the session will verify it.
    Peer(WgPublicKey),
    /// It is meant for another key than this network's.
    NotForUs,
    /// Too many at this time: a reply of this length was written, that asks for proof of the sender's address.
    Cookie(usize),
    /// It is to be dropped.
    Drop(DropReason),
}

/// One network's part of WireGuard: what depends on its own key only.
pub trait NetworkSessions: Send {
    /// The public key of this node in the network.
    fn public_key(&self) -> WgPublicKey;

    /// Finds out who began a handshake. `reply` has at least [`HANDSHAKE_ROOM`] bytes.
    fn identify(&mut self, datagram: &[u8], source: IpAddr, now: Instant, reply: &mut [u8]) -> Initiator;

    /// A session with a peer; `index` (24 bits) comes back in the receiver index of its messages.
    fn session(&self, peer: &WgPublicKey, psk: Option<&PresharedKey>, index: u32) -> Box<dyn Session>;
}

/// The session with one peer: the keys in use, those before, and a handshake that may be under way.
pub trait Session: Send {
    /// Whether packets can be sealed.
    fn is_ready(&self) -> bool;

    /// Encrypts a packet (an empty one is a keepalive) to a datagram of `packet.len() + OVERHEAD` bytes. `None` when the
    /// session is not ready.
    fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize>;

    /// Decrypts a data message. `out` has at least the datagram's length. Returns the packet's length, 0 for a keepalive.
    fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, DropReason>;

    /// Takes a handshake message and may write a reply, whose length is returned. `out` has [`HANDSHAKE_ROOM`] bytes.
    fn handle_handshake(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Option<usize>, DropReason>;

    /// Begins a handshake, or begins it again, and writes its first message.
    fn initiate(&mut self, out: &mut [u8]) -> Option<usize>;

    /// Lets the session look at its own clock; a message that became due is written.
    fn tick(&mut self, out: &mut [u8]) -> Option<usize>;

    /// A session that stood for another one gives that back when it has no more part in it.
    fn take_settled(&mut self) -> Option<Box<dyn Session>> {
        None
    }
}
