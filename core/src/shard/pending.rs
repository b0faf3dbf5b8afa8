//! Packets that wait for a path or a session: few, and not for long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most bytes that wait for one peer: some 25 full packets, enough for the first packets of many flows.
const MAX_BYTES: usize = 32 * 1024;

/// After this time the sender has repeated itself or has given up; old packets would only displace new ones.
const MAX_AGE: Duration = Duration::from_secs(3);

/// The queue of one peer.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    packets: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Pending {
    /// Adds a packet; the oldest make room. Returns how many were dropped for it, or because they were too old.
    pub(crate) fn push(&mut self, packet: &[u8], now: Instant) -> usize {
        let mut dropped = self.expire(now);
        if packet.len() > MAX_BYTES {
            return dropped + 1;
        }
        while self.bytes + packet.len() > MAX_BYTES && self.pop().is_some() {
            dropped += 1;
        }
        self.bytes += packet.len();
        self.packets.push_back((now, packet.to_vec()));
        dropped
    }

    /// How much waits.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Takes the oldest packet.
    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let (_, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    /// Drops what is too old; returns how many.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        let before = self.packets.len();
        while self.packets.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) > MAX_AGE) {
            self.pop();
        }
        before - self.packets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any starting point will do")]
    fn it_is_bounded_in_bytes_and_age() {
        let start = Instant::now();
        let mut pending = Pending::default();
        let dropped: usize = (0..40).map(|n| pending.push(&[n; 1280], start)).sum();
        assert_eq!(dropped, 15);
        assert_eq!(pending.pop().unwrap()[0], 15);
        assert_eq!(pending.push(&[1], start + Duration::from_secs(4)), 24);
        assert_eq!(pending.pop(), Some(vec![1]));
        assert_eq!(pending.pop(), None);
    }
}
