//! On-demand mode: in a large network a node holds only those members that it has to do with.
//!
//! ```text
//! node                                   coordinator
//!  Seek(address | name | node) ---------->
//!  <------------------------------------- Patches{MemberSet}, Live    (the member sought is told of this node likewise)
//!                                         | Absent: nobody that this node may have to do with
//!  Release[nodes] ----------------------->
//!  <------------------------------------- Patches{MemberRemoved}      (once the other end has let go, too)
//! ```

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::name::Name;

/// Which members a node of a network is told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum PeerMode {
    /// All of them, before there is anything to say to them.
    #[n(0)]
    #[default]
    Push,
    /// Those that it asks for, or that ask for it.
    #[n(1)]
    OnDemand,
}

impl PeerMode {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::OnDemand => "on-demand",
        }
    }
}

impl fmt::Display for PeerMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no way to tell members of each other; there are push and on-demand")]
pub struct ParsePeerModeError(String);

impl FromStr for PeerMode {
    type Err = ParsePeerModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Push, Self::OnDemand]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| ParsePeerModeError(text.to_owned()))
    }
}

/// Whom a node looks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Sought {
    /// The member of this identity.
    #[n(0)]
    Node(#[n(0)] NodeId),
    /// The one of this name.
    #[n(1)]
    Name(#[n(0)] Name),
    /// The one that has this overlay address.
    #[n(2)]
    Address(#[n(0)] IpAddr),
}

impl fmt::Display for Sought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => node.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{CoordinatorMessage, NodeMessage, from_bytes, to_bytes};

    #[test]
    fn a_mode_is_read_as_it_is_written() {
        for mode in [PeerMode::Push, PeerMode::OnDemand] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        let error = "pull".parse::<PeerMode>().unwrap_err().to_string();
        assert!(error.contains("push and on-demand"), "{error}");
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let node = NodeId::from_bytes([7; 10]);
        let sought = [
            Sought::Node(node),
            Sought::Name("robot-7".parse().unwrap()),
            Sought::Address([10, 213, 0, 7].into()),
            Sought::Address("fd00::7".parse().unwrap()),
        ];
        for sought in sought {
            let message = NodeMessage::Seek(sought.clone());
            assert_eq!(from_bytes(&to_bytes(&message)), Ok(message));
            let message = CoordinatorMessage::Absent(sought);
            assert_eq!(from_bytes(&to_bytes(&message)), Ok(message));
        }
        let message = NodeMessage::Release(vec![node]);
        assert_eq!(from_bytes(&to_bytes(&message)), Ok(message));
    }
}
