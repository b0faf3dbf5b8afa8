//! Multicast over an overlay that has none: packets of this host to groups that are carried become a copy to each peer.
//!
//! ```text
//!  riaN --> policy --> own source? --> budget of its sender --> damping --> for each peer: budget --> session
//!  riaN <-- policy <-- source is the peer's <-- session                  (a copy is never copied again)
//! ```
//!
//! What is carried by default is DDS discovery. Its announcements are repeated every few seconds by each participant to
//! each other one, which on a LAN costs nothing and on many links a lot: the module `damping` leaves out what nobody
//! needs. The module `heard` keeps whom each peer has announced, `graph` what robots must not have twice. All tables are bounded, and nothing is allocated per
//! packet. Owns the state of one network, and that of each peer which the shard keeps with it; sends nothing itself.

mod damping;
mod graph;
mod heard;
mod policy;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use graph::{Clash, Unique};
pub(crate) use policy::Class;
pub(crate) use policy::is_discovery;
pub use policy::{Domains, MulticastPolicy};

use ria_protocol::id::NodeId;

use crate::budget::{Bucket, Limit};
use crate::counters::DropReason;
use crate::ip::IpPacket;
use crate::rtps;
use damping::{Heartbeats, Participants, Repeats};
use graph::Graph;
use heard::Heard;

/// Copies to one peer. Twenty participants need three packets per second, and 200 that start at once 600.
const PEER_PACKETS: Limit = Limit { per_second: 100, at_once: 600 };
const PEER_BYTES: Limit = Limit { per_second: 64 * 1024, at_once: 512 * 1024 };

/// The same for groups that were named: a megabit per second.
const GROUP_PACKETS: Limit = Limit { per_second: 200, at_once: 400 };
const GROUP_BYTES: Limit = Limit { per_second: 128 * 1024, at_once: 256 * 1024 };

/// A peer that was away for less missed nothing that would not come again in time.
const AWAY: Duration = Duration::from_secs(3);

/// A peer that was heard by multicast within this time takes part in it: Cyclone 11 speaks every 30 s.
const SPEAKS: Duration = Duration::from_secs(40);

/// To whom an admitted packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// All peers.
    All,
    /// Those that are new since then, for the others have it.
    NewSince(Instant),
}

/// The multicast of one network.
#[derive(Debug, Default)]
pub(crate) struct Multicast {
    policy: MulticastPolicy,
    participants: Participants,
    /// All of this host's that were heard, by whatever way.
    own: Heard,
    graph: Graph,
    repeats: Repeats,
    heartbeats: Heartbeats,
    /// Numbers what peers have been through, so that a number never comes back.
    epoch: u64,
}

/// What a peer has to do with it.
#[derive(Debug, Default)]
pub(crate) struct PeerMulticast {
    heard: Heard,
    graph: Graph,
    packets: Bucket,
    bytes: Bucket,
    group_packets: Bucket,
    group_bytes: Bucket,
    /// Since when it has to be told everything again.
    new_since: Option<Instant>,
    epoch: u64,
    /// The address from which it was heard by multicast, and when last.
    speaks: Option<(IpAddr, Instant)>,
    /// Whether packets get to it, and since when not.
    is_reached: bool,
    away_since: Option<Instant>,
}

impl Multicast {
    pub(crate) fn set_policy(&mut self, policy: MulticastPolicy) {
        self.policy = policy;
    }

    /// How many DDS participants of this host speak to the group.
    pub(crate) fn own_participants(&self, now: Instant) -> u16 {
        u16::try_from(self.participants.count(now)).unwrap_or(u16::MAX)
    }

    /// A multicast packet of this host, which has these addresses: who is to get a copy.
    pub(crate) fn admit(
        &mut self,
        packet: &IpPacket<'_>,
        own: &[IpAddr],
        now: Instant,
    ) -> Result<(Audience, Class), DropReason> {
        let (udp, class) = self.policy.judge(packet)?;
        if !own.contains(&packet.source) {
            return Err(DropReason::MulticastSource);
        }
        if class == Class::Group {
            return Ok((Audience::All, class));
        }
        let announced = rtps::announcement(udp.payload);
        if let Some(announced) = &announced {
            self.participants.meet(announced, now);
            self.own.note(announced, now);
        }
        if !self.participants.take(rtps::sender(udp.payload), now) {
            return Err(DropReason::MulticastBudget);
        }
        let Some(announced) = announced else { return Ok((Audience::All, class)) };
        let round = self.participants.announce(&announced, packet.bytes, now);
        Ok((round.filter(|_| self.policy.damping).map_or(Audience::All, Audience::NewSince), class))
    }

    /// Looks at a unicast packet of this host: what its programs tell those of a peer.
    pub(crate) fn overhear(&mut self, packet: &IpPacket<'_>, now: Instant) {
        let Some(udp) = packet.udp() else { return };
        match rtps::announcement(udp.payload) {
            Some(announced) => {
                self.own.note(&announced, now);
            }
            None => self.graph.note(packet, &self.own, now),
        }
    }

    /// What this host and others have and only one should. Takes the peers with what the shard keeps of them.
    pub(crate) fn clashes<'a>(
        &'a self,
        peers: impl Iterator<Item = (NodeId, &'a PeerMulticast)>,
        now: Instant,
    ) -> Vec<Clash> {
        let others = peers.map(|(node, peer)| (node, &peer.graph, &peer.heard));
        graph::clashes((&self.graph, &self.own), others, now)
    }

    /// Whether a unicast packet to a peer says what the peer was told just now, or hears by multicast anyway. That one which
    /// is heard by multicast hears it as well: without it, or in another mode, it is told by unicast alone.
    pub(crate) fn is_repeat(&mut self, packet: &IpPacket<'_>, peer: &PeerMulticast, now: Instant) -> bool {
        let Some(udp) = packet.udp().filter(|_| self.policy.damping) else { return false };
        let to = (packet.destination, udp.destination_port);
        if let Some(heartbeat) = rtps::heartbeats::heartbeat(udp.payload) {
            return self.heartbeats.is_echo(&heartbeat, (packet.source, to), now);
        }
        let lately = |at: Instant| now.saturating_duration_since(at) < SPEAKS;
        let speaks = peer.speaks.is_some_and(|(from, at)| from == packet.destination && lately(at));
        if !(speaks && self.policy.replicate) {
            return false;
        }
        let Some(announced) = rtps::announcement(udp.payload).filter(|a| !a.is_farewell) else {
            return false;
        };
        let seen = self.repeats.note(&announced, to, peer.epoch, now);
        seen > damping::FIRST && self.participants.is_carried(&announced.participant, now)
    }

    /// A packet of this host, to a group or not, as peers are to get it.
    pub(crate) fn as_it_leaves<T>(
        &self,
        packet: &IpPacket<'_>,
        own: &[IpAddr],
        pass: impl FnOnce(&[u8]) -> T,
    ) -> T {
        if self.policy.hide_addresses {
            rtps::locators::with_own(packet, own, pass)
        } else {
            pass(packet.bytes)
        }
    }

    /// Whether a multicast packet from a peer may reach this host.
    pub(crate) fn accept(&self, packet: &IpPacket<'_>) -> Result<(), DropReason> {
        self.policy.judge(packet).map(|_| ())
    }

    /// Looks at a packet from a peer: who announces itself there. What this host says to one that is new is no repeat.
    pub(crate) fn listen(&mut self, packet: &IpPacket<'_>, peer: &mut PeerMulticast, now: Instant) {
        let Some(udp) = packet.udp() else { return };
        let Some(announced) = rtps::announcement(udp.payload) else {
            return peer.graph.note(packet, &peer.heard, now);
        };
        if packet.is_multicast() {
            peer.speaks = Some((packet.source, now));
        }
        if peer.heard.note(&announced, now) {
            self.renew(peer, now);
        }
    }

    /// Notes whether packets get to a peer. Tells whether it was out of reach for so long that it has to be told again
    /// who is here ([`Self::last_words`]).
    pub(crate) fn note_reached(&mut self, is_reached: bool, peer: &mut PeerMulticast, now: Instant) -> bool {
        if is_reached == std::mem::replace(&mut peer.is_reached, is_reached) {
            return false;
        }
        if !is_reached {
            peer.away_since = Some(now);
            return false;
        }
        let was_away = peer.away_since.is_none_or(|since| now.saturating_duration_since(since) >= AWAY);
        if was_away {
            self.renew(peer, now);
        }
        was_away
    }

    fn renew(&mut self, peer: &mut PeerMulticast, now: Instant) {
        self.epoch += 1;
        (peer.epoch, peer.new_since) = (self.epoch, Some(now));
    }

    /// The last announcement of each participant of this host, for a peer that comes into reach: the next one by itself
    /// may take half a minute.
    pub(crate) fn last_words(&self, now: Instant) -> impl Iterator<Item = &[u8]> {
        self.participants.last_words(now).filter(|_| self.policy.replicate)
    }
}

impl PeerMulticast {
    /// Whether a packet for this audience is for the peer, and there is a budget for it.
    pub(crate) fn admit(
        &mut self,
        audience: Audience,
        class: Class,
        len: usize,
        now: Instant,
    ) -> Result<bool, DropReason> {
        let is_for_it = match audience {
            Audience::All => true,
            Audience::NewSince(round) => self.new_since.is_some_and(|at| at > round),
        };
        if !is_for_it {
            return Ok(false);
        }
        let (packets, bytes) = match class {
            Class::Discovery => ((&mut self.packets, PEER_PACKETS), (&mut self.bytes, PEER_BYTES)),
            Class::Group => ((&mut self.group_packets, GROUP_PACKETS), (&mut self.group_bytes, GROUP_BYTES)),
        };
        // Only what fits both budgets is taken from either.
        if !bytes.0.has(len, bytes.1, now) || !packets.0.take(1, packets.1, now) {
            return Err(DropReason::MulticastBudget);
        }
        Ok(bytes.0.take(len, bytes.1, now))
    }

    /// How many of the peer's participants are alive, as far as they were heard.
    pub(crate) fn participants(&self, now: Instant) -> usize {
        self.heard.count(now)
    }
}
