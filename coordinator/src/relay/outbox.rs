//! Datagrams that wait for the end of a batch: those of one length for one destination leave in one system call.

use super::server::Tuple;

/// Most segments of one segmented send on Linux (UDP_MAX_SEGMENTS).
const MAX_SEGMENTS: usize = 64;

/// Most bytes in one segmented send: the largest UDP payload over IPv4.
const MAX_BYTES: usize = 65_507;

/// Destinations that are collected for at a time.
const MAX_RUNS: usize = 32;

/// Datagrams of equal length (the last may be shorter) for one destination, back to back.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) to: Tuple,
    pub(super) segment: usize,
    pub(super) bytes: Vec<u8>,
    open: bool,
}

/// Collects runs, and keeps their memory.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    runs: Vec<Run>,
    used: usize,
}

impl Outbox {
    /// Appends a copy of a datagram; `false` when the outbox must be sent first. Datagrams for one destination stay in
    /// order.
    pub(super) fn push(&mut self, to: Tuple, datagram: &[u8]) -> bool {
        let mut runs = self.runs.iter_mut().take(self.used);
        if let Some(run) = runs.find(|run| run.open && run.to == to) {
            let fits = datagram.len() <= run.segment
                && run.bytes.len() + datagram.len() <= MAX_BYTES
                && run.bytes.len() < run.segment * MAX_SEGMENTS;
            // A shorter datagram can only be the last one.
            run.open = fits && datagram.len() == run.segment;
            if fits {
                run.bytes.extend_from_slice(datagram);
                return true;
            }
        }
        self.open(to, datagram)
    }

    fn open(&mut self, to: Tuple, datagram: &[u8]) -> bool {
        if self.used == MAX_RUNS {
            return false;
        }
        if self.used == self.runs.len() {
            self.runs.push(Run { to, segment: 0, bytes: Vec::new(), open: false });
        }
        if let Some(run) = self.runs.get_mut(self.used) {
            run.to = to;
            run.segment = datagram.len();
            run.open = !datagram.is_empty();
            run.bytes.clear();
            run.bytes.extend_from_slice(datagram);
            self.used += 1;
        }
        true
    }

    /// What waits, in order.
    pub(super) fn runs(&self) -> &[Run] {
        self.runs.get(..self.used).unwrap_or_default()
    }

    /// Forgets what waits and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::server::Via;

    fn to(port: u16) -> Tuple {
        let local = [127, 0, 0, 1].into();
        Tuple { via: Via::Socket(0), local, remote: (local, port).into() }
    }

    fn runs(outbox: &Outbox) -> Vec<(u16, usize, usize)> {
        outbox.runs().iter().map(|run| (run.to.remote.port(), run.segment, run.bytes.len())).collect()
    }

    #[test]
    fn interleaved_destinations_are_collected_apart_and_in_order() {
        let mut outbox = Outbox::default();
        for (port, len) in [(1, 100), (2, 50), (1, 100), (2, 50), (1, 40), (1, 100)] {
            assert!(outbox.push(to(port), &vec![0; len]));
        }
        assert_eq!(runs(&outbox), [(1, 100, 240), (2, 50, 100), (1, 100, 100)]);
        outbox.clear();
        assert!(outbox.push(to(3), &[0; 9]));
        assert_eq!(runs(&outbox), [(3, 9, 9)]);
    }

    #[test]
    fn a_longer_datagram_opens_a_run_and_limits_hold() {
        let mut outbox = Outbox::default();
        for len in [50, 100, 100] {
            assert!(outbox.push(to(1), &vec![0; len]));
        }
        assert_eq!(runs(&outbox), [(1, 50, 50), (1, 100, 200)]);
        outbox.clear();
        for _ in 0..130 {
            assert!(outbox.push(to(1), &[0; 1000]));
        }
        assert_eq!(runs(&outbox), [(1, 1000, 64_000), (1, 1000, 64_000), (1, 1000, 2_000)]);
        outbox.clear();
        for port in 0..32 {
            assert!(outbox.push(to(port), &[0; 10]));
        }
        assert!(!outbox.push(to(99), &[0; 10]), "full: must be sent first");
        assert!(outbox.push(to(5), &[0; 10]));
    }
}
