//! Versions of the node protocol. Each connection speaks the newest that both sides know; two are served, so that
//! coordinator and nodes may be updated in any order.
//!
//! | version | what is new |
//! |---|---|
//! | 1 | the first |
//! | 2 | optional fields in many messages; message and patch variants that say so in their `since` |
//!
//! New fields of a structure are optional and may be sent to anybody, for readers pass over fields that they don't
//! know. New variants of a message are not: an older reader gives up on them, so they are sent only where the
//! connection speaks the version that brought them.

use std::fmt;

use crate::error::ErrorCode;
use crate::message::{CoordinatorMessage, Hello, NodeMessage};

/// What a connection speaks. Newer versions are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(u16);

impl Protocol {
    /// The first.
    pub const V1: Self = Self(1);
    /// The second.
    pub const V2: Self = Self(2);
    /// Newest that this build speaks.
    pub const NEWEST: Self = Self::V2;
    /// Oldest that this build still speaks.
    pub const OLDEST: Self = Self::V1;

    /// The version of this number, if this build speaks it.
    pub fn known(number: u16) -> Option<Self> {
        (Self::OLDEST.0..=Self::NEWEST.0).contains(&number).then_some(Self(number))
    }

    /// The newest version that this build and the sender of `hello` speak.
    pub fn common(hello: &Hello) -> Option<Self> {
        let newest = hello.protocol_max.min(Self::NEWEST.0);
        Self::known(newest).filter(|_| newest >= hello.protocol_min)
    }

    /// Its number on the wire.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Hello {
    /// The first words of this build.
    pub fn ours(agent_version: &str) -> Self {
        Self {
            protocol_min: Protocol::OLDEST.number(),
            protocol_max: Protocol::NEWEST.number(),
            agent_version: agent_version.to_owned(),
        }
    }
}

impl NodeMessage {
    /// The version that brought this message.
    pub const fn since(&self) -> Protocol {
        match self {
            Self::Hello(_)
            | Self::Enrol(_)
            | Self::Resume(_)
            | Self::Ack(_)
            | Self::Report(_)
            | Self::Renew(_)
            | Self::Leave => Protocol::V1,
            Self::Changed(_)
            | Self::Testify(_)
            | Self::Rotate(_)
            | Self::Links(_)
            | Self::Seek(_)
            | Self::Release(_)
            | Self::Hold(_) => Protocol::V2,
        }
    }
}

impl CoordinatorMessage {
    /// The version that brought this message.
    pub const fn since(&self) -> Protocol {
        match self {
            Self::Welcome(_)
            | Self::Refused(_)
            | Self::Enrolled(_)
            | Self::Snapshot(_)
            | Self::Patches(_)
            | Self::Live(_)
            | Self::Relays(_)
            | Self::Renewed(_)
            | Self::Drain(_)
            | Self::Left => Protocol::V1,
            Self::Membership(_) | Self::Keep(_) | Self::Authorities(_) | Self::Absent(_) => Protocol::V2,
        }
    }
}

impl ErrorCode {
    /// This code for somebody who speaks `protocol`: where that is older than the code, the nearest that it knows.
    pub const fn for_version(self, protocol: Protocol) -> Self {
        if protocol.0 >= Protocol::V2.0 {
            self
        } else if matches!(self, Self::Rejected | Self::MembershipEnded) {
            Self::NotAMember
        } else if matches!(self, Self::Cloned | Self::Disabled | Self::LoginDue) {
            Self::Unavailable
        } else if matches!(self, Self::KeyTaken) {
            Self::BadMessage
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        let common = |protocol_min, protocol_max| {
            Protocol::common(&Hello { protocol_min, protocol_max, agent_version: String::new() })
        };
        assert_eq!(common(1, 1), Some(Protocol::V1));
        assert_eq!(common(1, 2), Some(Protocol::V2));
        assert_eq!(common(2, 9), Some(Protocol::V2));
        assert_eq!(common(3, 9), None);
        assert_eq!(common(0, 0), None);
        assert_eq!(common(2, 1), None);
        assert_eq!((Protocol::known(0), Protocol::known(3)), (None, None));
    }
}
