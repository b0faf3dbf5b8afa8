//! Slows down whoever guesses: failed enrolments are counted per source address, successful ones are not, so that a
//! hundred robots behind one address may join at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::site::whole_site;

/// Failures that an address has before it must wait.
const BURST: u32 = 10;
/// One more is granted after each of these.
const REFILL: Duration = Duration::from_secs(6);
/// Addresses remembered; beyond that, those with nothing against them are forgotten.
const REMEMBERED: usize = 4096;

#[derive(Debug)]
struct Bucket {
    failures: u32,
    since: Instant,
}

/// Who failed how often.
#[derive(Debug, Default)]
pub(crate) struct FailureLimiter {
    buckets: BTreeMap<IpAddr, Bucket>,
}

impl FailureLimiter {
    /// After how long one more attempt is granted.
    pub const REFILL: Duration = REFILL;

    /// Whether this address may try.
    pub fn allows(&self, from: IpAddr, now: Instant) -> bool {
        self.buckets.get(&whole_site(from)).is_none_or(|bucket| failures_left(bucket, now) < BURST)
    }

    /// One failure less: it was none after all.
    pub fn forgive(&mut self, from: IpAddr, now: Instant) {
        if let Some(bucket) = self.buckets.get_mut(&whole_site(from)) {
            (bucket.failures, bucket.since) = (failures_left(bucket, now).saturating_sub(1), now);
        }
    }

    /// Counts a failure.
    pub fn handle_failure(&mut self, from: IpAddr, now: Instant) {
        if self.buckets.len() >= REMEMBERED {
            self.buckets.retain(|_, bucket| failures_left(bucket, now) > 0);
        }
        if self.buckets.len() >= REMEMBERED {
            return;
        }
        let bucket = self.buckets.entry(whole_site(from)).or_insert(Bucket { failures: 0, since: now });
        bucket.failures = failures_left(bucket, now).saturating_add(1).min(BURST);
        bucket.since = now;
    }
}

fn failures_left(bucket: &Bucket, now: Instant) -> u32 {
    let forgiven = now.saturating_duration_since(bucket.since).as_secs() / REFILL.as_secs();
    bucket.failures.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_is_slowed_down_per_source_and_forgiven_with_time() {
        let mut limiter = FailureLimiter::default();
        let now = Instant::now();
        let (a, same_net, b) = ("2001:db8::1", "2001:db8::2", "192.0.2.1");
        let ip = |t: &str| t.parse::<IpAddr>().unwrap();
        for _ in 0..BURST {
            assert!(limiter.allows(ip(a), now));
            limiter.handle_failure(ip(a), now);
        }
        assert!(!limiter.allows(ip(a), now));
        assert!(!limiter.allows(ip(same_net), now));
        assert!(limiter.allows(ip(b), now));
        assert!(limiter.allows(ip(a), now + REFILL));
    }

    #[test]
    fn memory_is_bounded() {
        let mut limiter = FailureLimiter::default();
        let now = Instant::now();
        for n in 0..2 * u32::try_from(REMEMBERED).unwrap() {
            limiter.handle_failure(std::net::Ipv4Addr::from(n).into(), now);
        }
        assert!(limiter.buckets.len() <= REMEMBERED);
    }
}
