//! Has the router lost its mappings? Its answers tell how long it has kept them; that has to grow as time does
//! (RFC 6887, section 8.5; NAT-PMP counts in the same way).

use std::time::Duration;

use tokio::time::Instant;

/// What a server said last, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    told: u32,
    at: Instant,
}

impl Epoch {
    /// The first word of a server.
    pub fn new(told: u32, at: Instant) -> Self {
        Self { told, at }
    }

    /// Takes a later word; returns whether the server has begun anew in between.
    pub fn advance(&mut self, told: u32, now: Instant) -> bool {
        let before = std::mem::replace(self, Self::new(told, now));
        let client = now.saturating_duration_since(before.at);
        if told.saturating_add(1) < before.told {
            return true;
        }
        let server = Duration::from_secs(told.saturating_sub(before.told).into());
        let slack = Duration::from_secs(2);
        client + slack < server - server / 16 || server + slack < client - client / 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_counts_as_time_goes_has_kept_its_mappings() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        for (told, at, reset) in [
            (1000, 0, false),
            (999, 0, false),
            (2000, 1000, false),
            (1950, 1000, false),
            (3, 1000, true),
            (1000, 1000, true),
            (9000, 1000, true),
        ] {
            let mut epoch = Epoch::new(1000, start);
            assert_eq!(epoch.advance(told, after(at)), reset, "{told} after {at} s");
        }
    }
}
