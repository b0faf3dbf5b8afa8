//! The filter: a verdict on each inner packet, in both directions. Until there is policy, everything is allowed.

use ria_protocol::id::NodeId;

use crate::ip::IpPacket;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Allow,
    /// It is dropped and counted.
    Deny,
}

/// Decides on packets of one network. Called once per packet, so it must be quick and must not allocate.
pub trait Filter: Send {
    /// A packet for a peer.
    fn outbound(&mut self, packet: &IpPacket<'_>, peer: NodeId) -> Verdict;
    /// A packet from a peer; its source has been checked already.
    fn inbound(&mut self, packet: &IpPacket<'_>, peer: NodeId) -> Verdict;
}

/// Allows everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Filter for AllowAll {
    fn outbound(&mut self, _packet: &IpPacket<'_>, _peer: NodeId) -> Verdict {
        Verdict::Allow
    }

    fn inbound(&mut self, _packet: &IpPacket<'_>, _peer: NodeId) -> Verdict {
        Verdict::Allow
    }
}
