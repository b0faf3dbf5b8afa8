//! How many handshakes are looked at while there are too many (WireGuard's whitepaper, section 5.3).
//!
//! The first few hundred initiations of a second are looked at, whoever sends them. Of those beyond, only the ones that
//! prove by a cookie that they come from where they say, and of these so many per source: an address that is real
//! can flood as well as a forged one. Holds counts only; cookies are boringtun's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What one source may begin while there are too many, and how many at once: WireGuard's own figures for Linux.
const PER_SECOND: u32 = 20;
const AT_ONCE: u32 = 5;

/// Sources that are told apart at a time; more are only seen when that many addresses are proved within a second.
const MAX_SOURCES: usize = 4096;

const WINDOW: Duration = Duration::from_secs(1);

/// Counts initiations that are meant for this node's key.
#[derive(Debug)]
pub(super) struct FloodGuard {
    limit: u64,
    window: Option<Instant>,
    count: u64,
    sources: BTreeMap<IpAddr, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In thousandths.
    tokens: u32,
    filled: Instant,
}

impl FloodGuard {
    /// More than `limit` a second are too many.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, window: None, count: 0, sources: BTreeMap::new() }
    }

    /// Whether an initiation is looked at that was not challenged.
    pub(super) fn admits(&mut self, source: IpAddr, now: Instant) -> bool {
        if !self.is_too_many(now) {
            return true;
        }
        let source = network_of(source);
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&source) {
            self.sources.retain(|_, bucket| !bucket.is_full(now));
            if self.sources.len() >= MAX_SOURCES {
                return false;
            }
        }
        let full = Bucket { tokens: AT_ONCE * 1000, filled: now };
        self.sources.entry(source).or_insert(full).take(now)
    }

    /// An initiation was answered by a cookie.
    pub(super) fn note_challenged(&mut self, now: Instant) {
        self.is_too_many(now);
    }

    /// Counts one, and says whether it is beyond the limit.
    fn is_too_many(&mut self, now: Instant) -> bool {
        if self.window.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            self.window = Some(now);
            self.count = 0;
        }
        self.count += 1;
        self.count > self.limit
    }
}

impl Bucket {
    fn refilled(self, now: Instant) -> Self {
        let age = now.saturating_duration_since(self.filled);
        let gained = u32::try_from(age.as_millis()).unwrap_or(u32::MAX).saturating_mul(PER_SECOND);
        Self { tokens: self.tokens.saturating_add(gained).min(AT_ONCE * 1000), filled: now }
    }

    fn is_full(self, now: Instant) -> bool {
        self.refilled(now).tokens == AT_ONCE * 1000
    }

    fn take(&mut self, now: Instant) -> bool {
        *self = self.refilled(now);
        let enough = self.tokens >= 1000;
        if enough {
            self.tokens -= 1000;
        }
        enough
    }
}

/// Who has one IPv6 address has the other 2^64 of its network.
fn network_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "any starting point will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn below_the_limit_nobody_is_held_up() {
        let (mut guard, now) = (FloodGuard::new(100), start());
        assert!((0..100).all(|_| guard.admits(ip(1), now)));
        // A second later all begins anew.
        assert!((0..100).all(|_| guard.admits(ip(1), now + WINDOW)));
    }

    #[test]
    fn beyond_it_each_source_has_its_share_and_the_others_keep_theirs() {
        let (mut guard, now) = (FloodGuard::new(10), start());
        (0..10).for_each(|_| guard.note_challenged(now));
        let admitted = (0..1000).filter(|_| guard.admits(ip(1), now)).count();
        assert_eq!(admitted, AT_ONCE as usize);
        assert!(guard.admits(ip(2), now), "another source is not held up");
        let later = now + Duration::from_millis(500);
        assert_eq!((0..1000).filter(|_| guard.admits(ip(1), later)).count(), AT_ONCE as usize);
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_and_the_table_is_bounded() {
        let (mut guard, now) = (FloodGuard::new(0), start());
        let host = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, n]);
        assert_eq!((0..100).filter(|n| guard.admits(host(*n), now)).count(), AT_ONCE as usize);
        for n in 0..10_000_u32 {
            guard.admits(IpAddr::from((0x0a00_0000 + n).to_be_bytes()), now);
        }
        assert_eq!(guard.sources.len(), MAX_SOURCES);
        assert!(guard.admits(ip(9), now + WINDOW), "room comes back");
    }
}
