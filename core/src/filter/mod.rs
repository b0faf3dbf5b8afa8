//! The filter: a verdict on each inner packet, in both directions, at both of its ends.
//!
//! ```text
//! map (core::map): policy + members + time --> Rules: who may begin what with whom, by address
//!                                                |
//! packet --> flow known? --> yes: on             v
//!                        --> no: may its sender begin this? --> yes: a new flow; on
//!                                                           --> no: dropped, counted
//! ```
//!
//! Without a policy everything passes, at no cost. With one, a packet of a known flow costs one look into a table of fixed
//! size ([`flows`]), and only the first packet of a flow is held against the rules. The rules say who may *begin*; what
//! answers belongs to the flow. When they change, each flow is held against the new ones at its next packet.

mod flows;
mod headers;
mod policy;
mod rules;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use ria_protocol::id::NodeId;

use crate::ip::IpPacket;
use headers::{Carried, carried};
use policy::PolicyFilter;
pub(crate) use rules::Rules;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Allow,
    /// It is dropped and counted.
    Deny,
}

/// Decides on packets of one network in place of its policy. Called once per packet, so it must be quick and must not
/// allocate.
pub trait Filter: Send {
    /// A packet for a peer.
    fn outbound(&mut self, packet: &IpPacket<'_>, peer: NodeId) -> Verdict;
    /// A packet from a peer; its source has been checked already.
    fn inbound(&mut self, packet: &IpPacket<'_>, peer: NodeId) -> Verdict;
}

/// What stands in a network's way.
#[derive(Default)]
pub(crate) enum Gate {
    /// Nothing: there is no policy.
    #[default]
    Open,
    /// The policy.
    Policy(Box<PolicyFilter>),
    /// Something that the engine's caller has put there.
    Custom(Box<dyn Filter>),
}

impl Gate {
    /// The network's policy allows this from now on; absent: everything. `seed` is for the table of flows, when there is none
    /// yet.
    pub(crate) fn set_rules(&mut self, rules: Option<Arc<Rules>>, seed: [u64; 2], now: Instant) {
        match (&mut *self, rules) {
            (Self::Policy(filter), Some(rules)) => filter.set_rules(rules),
            (_, Some(rules)) => *self = Self::Policy(Box::new(PolicyFilter::new(rules, seed, now))),
            (_, None) => *self = Self::Open,
        }
    }

    /// A packet for a peer.
    pub(crate) fn outbound(&mut self, packet: &IpPacket<'_>, peer: NodeId, now: Instant) -> Verdict {
        match self {
            Self::Open => Verdict::Allow,
            Self::Policy(filter) => filter.judge(packet, Some(peer), now),
            Self::Custom(filter) => filter.outbound(packet, peer),
        }
    }

    /// A packet from a peer; its source has been checked already.
    pub(crate) fn inbound(&mut self, packet: &IpPacket<'_>, peer: NodeId, now: Instant) -> Verdict {
        match self {
            Self::Open => Verdict::Allow,
            Self::Policy(filter) => filter.judge(packet, None, now),
            Self::Custom(filter) => filter.inbound(packet, peer),
        }
    }
}

/// The protocol of a packet and the port that it is for, for people.
pub(crate) fn destination_port(packet: &IpPacket<'_>) -> (u8, Option<u16>) {
    match carried(packet) {
        Carried::Packet(ends, _) if ends.has_ports() => (ends.protocol, Some(ends.destination.1)),
        Carried::Packet(ends, _) => (ends.protocol, None),
        Carried::Error(_) | Carried::LaterFragment | Carried::Malformed => (packet.protocol, None),
    }
}
