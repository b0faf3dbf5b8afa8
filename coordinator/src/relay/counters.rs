//! What the relay did, and why it dropped what it dropped.

use std::sync::atomic::{AtomicU64, Ordering};

ria_protocol::drop_reasons! {
    /// Why a datagram went no further.
    pub enum DropReason {
        /// Neither STUN nor ChannelData, or broken inside.
        Malformed => "malformed",
        /// A message of a kind that a TURN server does not take.
        Unexpected => "unexpected",
        /// An address asked more, without credentials, than it gets answers.
        RateLimited => "rate-limited",
        /// Data from an address without an allocation.
        NoAllocation => "no-allocation",
        /// Data on a channel that is not bound.
        NoChannel => "no-channel",
        /// Data to or from an address that has not been admitted.
        NoPermission => "no-permission",
        /// Data for an address outside of this relay.
        OutsidePeer => "outside-peer",
        /// More of one node than it may have relayed.
        NodeRate => "node-rate",
        /// Data for an allocation that is not there (any more).
        PeerGone => "peer-gone",
        /// Data for another network's allocation.
        ForeignNetwork => "foreign-network",
        /// More arrived than the socket's buffer took while the relay was busy.
        ReceiveFull => "receive-full",
        /// The socket took no more.
        SocketFull => "socket-full",
        /// The kernel refused to send.
        SendFailed => "send-failed",
        /// A client takes less over its stream than it is sent.
        StreamFull => "stream-full",
        /// What waited for a client's stream had grown too old.
        StreamStale => "stream-stale",
    }
}

/// Counters that the relay's loop writes and anybody may read.
#[derive(Debug, Default)]
pub struct Counters {
    drops: [AtomicU64; DropReason::ALL.len()],
    relayed_packets: AtomicU64,
    relayed_bytes: AtomicU64,
    requests: AtomicU64,
    refusals: AtomicU64,
    allocations: AtomicU64,
    streams: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayCounters {
    /// Datagrams that went nowhere, by reason; all reasons, zero ones too.
    pub drops: Vec<(DropReason, u64)>,
    /// Datagrams handed from one allocation to another.
    pub relayed_packets: u64,
    /// Their payload.
    pub relayed_bytes: u64,
    /// STUN and TURN requests.
    pub requests: u64,
    /// Requests answered with an error other than the usual challenge.
    pub refusals: u64,
    /// Allocations now.
    pub allocations: u64,
    /// Clients over streams now.
    pub streams: u64,
}

impl RelayCounters {
    /// How many datagrams were dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| *count)
    }
}

impl Counters {
    pub(super) fn dropped(&self, reason: DropReason, packets: u64) {
        if let Some(counter) = self.drops.get(reason as usize) {
            counter.fetch_add(packets, Ordering::Relaxed);
        }
    }

    pub(super) fn relayed(&self, packets: u64, bytes: u64) {
        self.relayed_packets.fetch_add(packets, Ordering::Relaxed);
        self.relayed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_allocations(&self, count: usize) {
        self.allocations.store(count as u64, Ordering::Relaxed);
    }

    pub(super) fn set_streams(&self, count: usize) {
        self.streams.store(count as u64, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn read(&self) -> RelayCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RelayCounters {
            drops: DropReason::ALL.iter().copied().zip(self.drops.iter().map(load)).collect(),
            relayed_packets: load(&self.relayed_packets),
            relayed_bytes: load(&self.relayed_bytes),
            requests: load(&self.requests),
            refusals: load(&self.refusals),
            allocations: load(&self.allocations),
            streams: load(&self.streams),
        }
    }
}
