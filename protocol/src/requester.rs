//! Who had a node's agent change something, as the agent saw it: for the coordinator's audit log.
//!
//! A node says this of itself. It helps people to find out who did what; it proves nothing, and decides nothing.

use minicbor::{Decode, Encode};

/// Who asked an agent for something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Requester {
    /// The way that the request came: `socket`, `bus`, or `join-file` for the agent itself.
    #[n(0)]
    pub via: String,
    /// User id of the process that asked.
    #[n(1)]
    pub uid: Option<u32>,
    /// That user's name.
    #[n(2)]
    pub user: Option<String>,
    /// Name of the user who logged in; with `sudo` it is another one.
    #[n(3)]
    pub login: Option<String>,
    /// Name of the program that asked, such as `ria` or `ria_node`; each program chooses its own.
    #[n(4)]
    pub program: Option<String>,
}

/// What was changed on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum LocalDeed {
    /// The network was switched off: the node goes away and stays a member.
    #[n(0)]
    SwitchedOff,
    /// The network was switched on again.
    #[n(1)]
    SwitchedOn,
    /// The node leaves for good; [`Leave`](crate::message::NodeMessage::Leave) follows.
    #[n(2)]
    Left,
    /// Another WireGuard key was asked for; it is in use once the node has proved it.
    #[n(3)]
    AskedForKey,
    /// The coordinator's address was set by hand.
    #[n(4)]
    SetUrl,
}

/// A change that was made on the node itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LocalChange {
    /// What.
    #[n(0)]
    pub deed: LocalDeed,
    /// By whom.
    #[n(1)]
    pub by: Requester,
    /// How many seconds ago: the coordinator may not have been there.
    #[n(2)]
    pub ago: u32,
}
