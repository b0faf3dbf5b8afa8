//! Why packets die, and how many did: one reason for each place on the packet path that drops.

use std::fmt;

ria_protocol::drop_reasons! {
    /// Why a packet was dropped.
    pub enum DropReason {
        /// A datagram of no protocol that this port speaks.
        Unknown => "unknown",
        /// Too short, too long or wrong inside.
        Malformed => "malformed",
        /// A handshake or probe by a key that no network of this node knows. It gets no answer.
        Stranger => "stranger",
        /// A WireGuard message for a session that is not (or no longer) there.
        NoSuchSession => "no-such-session",
        /// A message whose authentication failed.
        Unauthentic => "unauthentic",
        /// A message that had arrived before.
        Replayed => "replayed",
        /// A handshake message that came too late or was not asked for.
        Unexpected => "unexpected",
        /// More handshakes than this node answers in a second.
        RateLimited => "rate-limited",
        /// An inner packet whose source the peer may not use.
        WrongSource => "wrong-source",
        /// No peer has the inner packet's destination.
        NoRoute => "no-route",
        /// A multicast or broadcast packet for a group that is not carried.
        Multicast => "multicast",
        /// Multicast that ends at its link: IGMP, MLD, and other groups of that scope.
        MulticastLinkLocal => "multicast-link-local",
        /// Multicast DNS.
        MulticastMdns => "multicast-mdns",
        /// Discovery of a ROS domain that is not carried.
        MulticastDomain => "multicast-domain",
        /// User data of DDS by multicast; a Cyclone DDS whose `AllowMulticast` is not `spdp` sends it.
        MulticastData => "multicast-data",
        /// Multicast with a source that is none of this node's addresses.
        MulticastSource => "multicast-source",
        /// A fragment, or something other than RTPS, for a group of discovery.
        MulticastMalformed => "multicast-malformed",
        /// More multicast than its sender, or one peer, is allowed.
        MulticastBudget => "multicast-budget",
        /// An announcement that its receivers have and keep without this repetition.
        Damped => "damped",
        /// The filter said no to a packet for a peer.
        FilteredOut => "filtered-out",
        /// The filter said no to a packet from a peer.
        FilteredIn => "filtered-in",
        /// An inner packet that is larger than the network's MTU.
        TooLarge => "too-large",
        /// No working path to the peer, and its queue was full or the packet too old in it.
        NoPath => "no-path",
        /// The caller's buffer had no room left.
        BatchFull => "batch-full",
        /// A packet for a peer that came from this very peer.
        Hairpin => "hairpin",
        /// A packet to be passed on whose hop limit was used up.
        HopLimit => "hop-limit",
        /// A datagram that a queue on the way marked although the packet in it can't bear a mark (RFC 6040): as lost.
        Congested => "congested",
        /// A packet for a peer whose thread had more to do than it has room for.
        ThreadBusy => "thread-busy",
        /// The network or interface that the packet came for is not there.
        NoSuchNetwork => "no-such-network",
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Number of dropped packets by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl DropCounters {
    /// Counts one packet.
    pub fn count(&mut self, reason: DropReason) {
        if let Some(counter) = self.0.get_mut(reason as usize) {
            *counter = counter.saturating_add(1);
        }
    }

    /// How many packets were dropped for this reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// All counters, zero ones too.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().copied().zip(self.0.iter().copied())
    }

    /// Adds another set of counters.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_name() {
        let mut counters = DropCounters::default();
        counters.count(DropReason::WrongSource);
        counters.count(DropReason::WrongSource);
        assert_eq!(counters.get(DropReason::WrongSource), 2);
        assert_eq!(counters.iter().map(|(_, n)| n).sum::<u64>(), 2);
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        names.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
