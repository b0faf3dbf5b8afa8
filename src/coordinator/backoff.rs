//! Waiting times between attempts: doubling, with jitter, so that a fleet does not return in one instant.
//!
//! A coordinator that restarts is back within the first minute, and until then members that move lose each other; so
//! the wait stays short for that minute. Who is away for longer is waited for with patience.

use std::time::Duration;

use rand_core::{OsRng, RngCore};

/// The first wait: long enough not to hammer a coordinator that restarts, short enough not to be noticed.
const FIRST: Duration = Duration::from_millis(500);

/// The longest wait of the first minute.
const LONGEST_AT_FIRST: Duration = Duration::from_secs(4);

/// Failures after which that minute is over (0.5 + 1 + 2 + 14 × 4 s).
const AT_FIRST: u32 = 17;

/// The longest wait: a robot that comes back into coverage should not sit out minutes.
const LONGEST: Duration = Duration::from_secs(30);

/// Grows with each failure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after one more failure.
    pub fn next(&mut self) -> Duration {
        self.next_with(random_share())
    }

    /// It worked: begin anew.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// `share` (0 to 1) places the wait within its upper half.
    fn next_with(&mut self, share: f64) -> Duration {
        let full = if self.failures < AT_FIRST {
            FIRST.saturating_mul(1 << self.failures).min(LONGEST_AT_FIRST)
        } else {
            LONGEST_AT_FIRST.saturating_mul(2 << (self.failures - AT_FIRST).min(8)).min(LONGEST)
        };
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(0.5 + share / 2.0)
    }
}

/// A random part of `most`.
pub fn jitter(most: Duration) -> Duration {
    most.mul_f64(random_share())
}

fn random_share() -> f64 {
    f64::from(OsRng.next_u32()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_short_for_a_minute_then_double_up_to_half_of_one_and_begin_anew_after_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..22).map(|_| backoff.next_with(1.0).as_millis()).collect();
        assert_eq!(waits[..5], [500, 1000, 2000, 4000, 4000]);
        assert_eq!(waits[..17].iter().sum::<u128>(), 59_500);
        assert_eq!(waits[16..], [4000, 8000, 16000, 30000, 30000, 30000]);
        backoff.reset();
        assert_eq!(backoff.next_with(0.0), Duration::from_millis(250));
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.next_with(1.0), LONGEST);
        for _ in 0..100 {
            let wait = backoff.next();
            assert!((LONGEST / 2..=LONGEST).contains(&wait), "{wait:?}");
        }
    }
}
