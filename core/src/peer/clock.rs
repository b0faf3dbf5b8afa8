//! How far a peer's clock is from this node's, by four moments as in NTP (RFC 5905): a ping leaves here, arrives there,
//! its pong leaves there, and arrives here. Those there are one, for a pong goes at once.
//!
//! What is kept of an exchange is what the peer's clock showed at the engine's beginning, reckoned back by this machine's
//! monotonic clock; so this machine's own clock may be adjusted meanwhile. The truth is within half the round-trip time of
//! it, whatever the way was like. The exchange with the narrowest bound counts, which widens with age as crystals drift.
//! Two that exclude each other mean that the peer's clock was set: then only the later one counts.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::engine::status::ClockOffset;
use crate::path::probe::Clock;

/// Exchanges that are kept.
const KEPT: usize = 8;

/// As many are asked for one after the other, until the narrowest of them says something, ...
const EAGER: usize = 4;

/// ... then one so often at most.
const EVERY: Duration = Duration::from_secs(15);

/// By how much two crystals go apart, in parts per million (two of 50 each).
const DRIFT_PPM: u32 = 100;

/// After so long without one the peer is pinged for it, where its own pings do for both ends else.
const STALE: Duration = Duration::from_secs(200);

/// A ping is hardly ever longer under way.
const ON_ITS_WAY: Duration = Duration::from_millis(250);

/// Readings of two clocks are never quite at the same time.
const READING: Duration = Duration::from_micros(100);

/// A clock that differs by more from what it was expected to show was set, or the machine slept; below, it is only adjusted.
const JUMP: Duration = Duration::from_millis(10);

/// Nanoseconds since 1970, or a difference of such.
type Nanos = i128;

/// A wall clock, as it was read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WallClock {
    at: Instant,
    shown: Nanos,
}

impl WallClock {
    pub(crate) fn read(at: Instant, since_1970: Duration) -> Self {
        Self { at, shown: nanos(since_1970) }
    }

    /// What it shows at another moment, by the monotonic clock.
    fn shows(&self, now: Instant) -> Nanos {
        self.shown + signed(self.at, now)
    }

    /// The same as probes carry it.
    pub(crate) fn told(&self, now: Instant) -> u64 {
        u64::try_from(self.shows(now)).unwrap_or(0)
    }

    /// Whether it was set since another reading.
    pub(crate) fn jumped(&self, before: &Self) -> bool {
        let elapsed = self.at.saturating_duration_since(before.at);
        (self.shown - before.shows(self.at)).unsigned_abs() > nanos(JUMP + elapsed / 1000).unsigned_abs()
    }
}

#[derive(Debug, Clone, Copy)]
struct Exchange {
    at: Instant,
    /// What the peer's clock showed at `at`, in the middle of what it may have shown.
    shown: Nanos,
    bound: Duration,
}

impl Exchange {
    fn shows(&self, now: Instant) -> Nanos {
        self.shown + signed(self.at, now)
    }

    fn bound(&self, now: Instant) -> Duration {
        self.bound + now.saturating_duration_since(self.at) / 1_000_000 * DRIFT_PPM
    }
}

/// What is known of a peer's clock.
#[derive(Debug, Default)]
pub(crate) struct PeerClock {
    exchanges: VecDeque<Exchange>,
    asked: Option<Instant>,
}

impl PeerClock {
    /// Whether the next ping shall ask for the time.
    pub(crate) fn wants(&self, now: Instant) -> bool {
        self.exchanges.len() < EAGER || self.asked.is_none_or(|at| now.saturating_duration_since(at) >= EVERY)
    }

    /// A ping of the peer's came; whether it is high time for one of this node's that asks. It is where the peer's clock shows
    /// what can't be, at the time that pings need: it was set since.
    pub(crate) fn handle_ping(&mut self, clock: Clock, now: Instant) -> bool {
        if let (Clock::Asked(told), Some(best)) = (clock, self.best(now)) {
            let (ahead, bound) = (Nanos::from(told) - best.shows(now), nanos(best.bound(now) + READING));
            if ahead > bound || ahead < -(bound + nanos(ON_ITS_WAY)) {
                self.asked = None;
            }
        }
        self.asked.is_none_or(|at| now.saturating_duration_since(at) >= STALE)
    }

    fn best(&self, now: Instant) -> Option<&Exchange> {
        self.exchanges.iter().min_by_key(|exchange| exchange.bound(now))
    }

    /// A ping asks for it.
    pub(crate) fn handle_asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// A pong that came `rtt` after its ping bears the time.
    pub(crate) fn handle_told(&mut self, told: u64, rtt: Duration, now: Instant) {
        let middle = now.checked_sub(rtt / 2).unwrap_or(now);
        let new = Exchange { at: middle, shown: Nanos::from(told), bound: rtt / 2 + READING };
        if self.exchanges.iter().any(|old| excludes(old, &new)) {
            self.exchanges.clear();
        }
        if self.exchanges.len() >= KEPT {
            self.exchanges.pop_front();
        }
        self.exchanges.push_back(new);
    }

    /// Nothing is known any more: the peer is a new run, or this machine's own clock was set or stood still.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// By how much the peer's clock is ahead of this machine's.
    pub(crate) fn offset(&self, own: &WallClock, now: Instant) -> Option<ClockOffset> {
        let best = self.best(now)?;
        let seconds = (best.shows(now) - own.shows(now)) as f64 / 1e9;
        Some(ClockOffset { seconds, error: best.bound(now).as_secs_f64() })
    }
}

/// Whether a clock that nobody set can't have shown both.
fn excludes(old: &Exchange, new: &Exchange) -> bool {
    let apart = (new.shown - old.shows(new.at)).unsigned_abs();
    apart > nanos(old.bound(new.at) + new.bound).unsigned_abs()
}

fn nanos(duration: Duration) -> Nanos {
    // A duration has at most 2^64 seconds.
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

fn signed(from: Instant, to: Instant) -> Nanos {
    nanos(to.saturating_duration_since(from)) - nanos(from.saturating_duration_since(to))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEAR_2026: Duration = Duration::from_secs(1_770_000_000);

    #[allow(clippy::disallowed_methods, reason = "time has to begin somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// An exchange with a clock that is `ahead`, over a way of so long there and back, that ends at `at`.
    fn exchange(
        clock: &mut PeerClock,
        own: &WallClock,
        at: Instant,
        ahead: f64,
        (there, back): (Duration, Duration),
    ) {
        let read = at - back;
        let told = own.shows(read) + (ahead * 1e9) as Nanos;
        clock.handle_asked(at - back - there);
        clock.handle_told(u64::try_from(told).unwrap(), there + back, at);
    }

    proptest! {
        #[test]
        fn the_truth_is_within_the_bound_whatever_the_way(
            ways in proptest::collection::vec((0..300u64, 0..300u64), 1..30), ahead in -1e6..1e6f64,
        ) {
            let start = start();
            let (own, mut clock) = (WallClock::read(start, YEAR_2026), PeerClock::default());
            let mut now = start + ms(1000);
            for (there, back) in &ways {
                now += ms(1000);
                exchange(&mut clock, &own, now, ahead, (ms(*there), ms(*back)));
            }
            let offset = clock.offset(&own, now).unwrap();
            prop_assert!((offset.seconds - ahead).abs() <= offset.error, "{offset:?}");
            let shortest = ways.iter().rev().take(KEPT).map(|(there, back)| there + back).min().unwrap();
            prop_assert!(offset.error <= shortest as f64 / 2000.0 + 0.005);
        }
    }

    #[test]
    fn a_peer_whose_clock_is_set_is_believed_at_once() {
        let start = start();
        let (own, mut clock) = (WallClock::read(start, YEAR_2026), PeerClock::default());
        for second in 1..10 {
            exchange(&mut clock, &own, start + ms(second * 1000), 0.0, (ms(1), ms(1)));
        }
        let now = start + ms(11_000);
        exchange(&mut clock, &own, now, 3.0, (ms(40), ms(40)));
        let offset = clock.offset(&own, now).unwrap();
        assert!((offset.seconds - 3.0).abs() < 0.041 && offset.error > 0.03, "{offset:?}");
        assert!(clock.wants(now), "more is to be learned of a clock that was set");
    }

    #[test]
    fn an_own_clock_that_is_adjusted_moves_the_offset_and_one_that_is_set_is_noticed() {
        let start = start();
        let (own, mut clock) = (WallClock::read(start, YEAR_2026), PeerClock::default());
        exchange(&mut clock, &own, start + ms(1000), 0.0, (ms(1), ms(1)));
        let later = start + ms(2000);
        let adjusted = WallClock::read(later, YEAR_2026 + ms(2005));
        assert!(!adjusted.jumped(&own));
        assert!((clock.offset(&adjusted, later).unwrap().seconds + 0.005).abs() < 1e-4);
        for set in [YEAR_2026 + ms(2020), YEAR_2026 - ms(2000), Duration::ZERO] {
            assert!(WallClock::read(later, set).jumped(&own), "{set:?}");
        }
    }

    #[test]
    fn what_is_old_is_worth_less_and_questions_become_rare() {
        let start = start();
        let (own, mut clock) = (WallClock::read(start, YEAR_2026), PeerClock::default());
        assert!(clock.offset(&own, start).is_none() && clock.wants(start));
        for second in 1..=4 {
            exchange(&mut clock, &own, start + ms(second * 1000), 0.0, (ms(1), ms(1)));
        }
        assert!(!clock.wants(start + ms(5000)) && clock.wants(start + ms(20_000)));
        let error = |at: u64| clock.offset(&own, start + ms(at)).unwrap().error;
        assert!(error(5000) < 0.0016 && (error(1_004_000) - error(4000) - 0.1).abs() < 0.001);
        clock.forget();
        assert!(clock.offset(&own, start).is_none() && clock.wants(start));
    }

    #[test]
    fn a_ping_with_a_time_that_can_t_be_is_asked_about_at_once() {
        let start = start();
        let (own, mut clock) = (WallClock::read(start, YEAR_2026), PeerClock::default());
        for second in 1..=4 {
            exchange(&mut clock, &own, start + ms(second * 1000), 0.0, (ms(1), ms(1)));
        }
        let now = start + ms(5000);
        let mut asks = |behind: i64| {
            let told = u64::try_from(own.shows(now) - Nanos::from(behind) * 1_000_000).unwrap();
            clock.handle_asked(start + ms(4000));
            clock.handle_ping(Clock::Asked(told), now)
        };
        assert!(!asks(1) && !asks(200), "under way for so long");
        assert!(asks(300) && asks(-5) && asks(1_000_000_000));
        clock.handle_asked(start + ms(4000));
        assert!(!clock.handle_ping(Clock::Silent, start + ms(100_000)));
        assert!(clock.handle_ping(Clock::Silent, start + ms(300_000)));
    }

    #[test]
    fn a_clock_before_1970_or_after_what_fits_is_no_trouble() {
        let start = start();
        let own = WallClock::read(start + ms(1000), Duration::ZERO);
        assert_eq!(own.told(start), 0);
        let mut clock = PeerClock::default();
        clock.handle_told(u64::MAX, ms(2), start + ms(1000));
        assert!(clock.offset(&own, start + ms(1000)).unwrap().seconds > 1e10);
        assert_eq!(WallClock::read(start, Duration::MAX).told(start), 0);
    }
}
