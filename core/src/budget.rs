//! A token bucket: so much per second, and so much at once.

use std::time::{Duration, Instant};

/// What a bucket lets through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) per_second: u32,
    pub(crate) at_once: u32,
}

/// What is left of a limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    /// In thousandths.
    spent: u64,
    filled: Option<Instant>,
}

impl Bucket {
    /// Takes so much, if it is there.
    pub(crate) fn take(&mut self, cost: usize, limit: Limit, now: Instant) -> bool {
        let has = self.has(cost, limit, now);
        if has {
            self.spent += cost as u64 * 1000;
        }
        has
    }

    /// Whether so much is there.
    pub(crate) fn has(&mut self, cost: usize, limit: Limit, now: Instant) -> bool {
        let age = self.filled.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let gained = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        if gained > 0 || self.filled.is_none() {
            self.filled = Some(now);
            self.spent = self.spent.saturating_sub(gained.saturating_mul(limit.per_second.into()));
        }
        self.spent + cost as u64 * 1000 <= u64::from(limit.at_once) * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any starting point will do")]
    fn a_burst_passes_and_then_the_rate() {
        let limit = Limit { per_second: 10, at_once: 30 };
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        assert_eq!((0..100).filter(|_| bucket.take(1, limit, start)).count(), 30);
        let later = start + Duration::from_millis(250);
        assert_eq!((0..100).filter(|_| bucket.take(1, limit, later)).count(), 2);
        let much_later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| bucket.take(1, limit, much_later)).count(), 30);
        assert!(!bucket.take(31, limit, much_later + Duration::from_secs(3600)));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any starting point will do")]
    fn small_steps_of_time_add_up() {
        let limit = Limit { per_second: 10, at_once: 1 };
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let passed =
            (0..10_000u64).filter(|us| bucket.take(1, limit, start + Duration::from_micros(us * 100)));
        assert_eq!(passed.count(), 10);
    }
}
