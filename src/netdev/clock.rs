//! Reads the clock that people set, and the one that timers go by, at the same moment.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longer between two readings means that something came in between; then it is tried again.
const NARROW: Duration = Duration::from_micros(50);

const TRIES: usize = 3;

/// A moment, and how long after 1970 it is by this machine's clock; zero before that.
pub fn read() -> (Instant, Duration) {
    let mut best = once();
    for _ in 1..TRIES {
        if best.2 <= NARROW {
            break;
        }
        let next = once();
        if next.2 < best.2 {
            best = next;
        }
    }
    (best.0, best.1)
}

/// The same with the time that reading took.
fn once() -> (Instant, Duration, Duration) {
    let before = Instant::now();
    let shown = SystemTime::now();
    let took = before.elapsed();
    (before + took / 2, shown.duration_since(UNIX_EPOCH).unwrap_or_default(), took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_are_read_at_one_moment() {
        let before = Instant::now();
        let (at, shown) = read();
        assert!(at >= before && at <= Instant::now());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(now.abs_diff(shown) < Duration::from_secs(60));
    }
}
