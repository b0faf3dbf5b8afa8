//! How large datagrams the path in use carries: Datagram Packetization Layer Path MTU Discovery (RFC 8899), by pings that are
//! filled up to a size.
//!
//! ```text
//!            answered                                      unanswered MAX_PROBES times
//!  Full <─────────────── asked for the full size ──────────────────────────────────────> Less { carries }
//!    │                            ^     ^                                                  │ halves what is
//!    └── CONFIRM_EVERY: a black ──┘     └──────────────── RAISE_EVERY: it may be ──────────┘ between, until known
//!        hole may have opened                             more by now
//! ```
//!
//! Only one thing depends on it: whether datagrams of full packets get through whole. Where they don't, they are sent in a way
//! that lets the network cut them into fragments, and the size is told to people. The overlay's own MTU never changes.
//! Sizes are those of the UDP payload.

use std::time::{Duration, Instant};

/// Times that a size is asked for (RFC 8899, MAX_PROBES).
const MAX_PROBES: u32 = 3;

/// Least time that an answer is waited for, and how many round-trip times. Other pings are answered meanwhile, or the path
/// is no more in use.
const PATIENCE: Duration = Duration::from_millis(300);
const PATIENCE_RTTS: u32 = 3;

/// What is full is asked for again after this time: a route may have changed (RFC 8899, section 4.3).
const CONFIRM_EVERY: Duration = Duration::from_secs(60);

/// Where it did not pass, first and later (PMTU_RAISE_TIMER); the first soon, since losses look the same.
const RAISE_FIRST: Duration = Duration::from_secs(10);
const RAISE_EVERY: Duration = Duration::from_secs(600);

/// Every IPv6 path carries so much (RFC 8200), and so does nearly every IPv4 one: 1280 less the headers.
const BASE: u16 = 1232;

/// The search ends when it is known to so many bytes.
const NEAR: u16 = 16;

/// The search on one path.
#[derive(Debug, Default)]
pub(crate) struct MtuSearch {
    /// What full packets need; 0 as long as nothing is asked.
    full: u16,
    /// The largest size that has passed, and the least that has not.
    passed: u16,
    failed: Option<u16>,
    asked: Option<Asked>,
    next: Option<Instant>,
    /// Searches that ended below the full size, in a row.
    less: u32,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    size: u16,
    echo: u64,
    at: Instant,
    until: Instant,
    times: u32,
}

impl MtuSearch {
    /// Begins to ask whether datagrams of this size pass.
    pub(crate) fn begin(&mut self, full: u16, now: Instant) {
        *self = Self { full, next: Some(now), ..Self::default() };
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.full > 0
    }

    /// Whether full datagrams don't pass whole.
    pub(crate) fn is_small(&self) -> bool {
        self.failed.is_some_and(|failed| failed <= self.full)
    }

    /// The largest UDP payload that is known to pass, once something is known.
    pub(crate) fn carries(&self) -> Option<u16> {
        (self.passed > 0).then_some(self.passed)
    }

    /// When [`Self::poll`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.asked.map(|asked| asked.until).or(self.next)
    }

    /// The size of a ping that is to be sent now.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<u16> {
        let mut times = 0;
        if let Some(asked) = self.asked.filter(|asked| asked.until <= now) {
            self.asked = None;
            times = asked.times;
            if times >= MAX_PROBES {
                times = 0;
                self.fail(asked.size, now);
            } else {
                self.next = Some(now);
            }
        }
        if self.asked.is_some() || self.next.is_none_or(|at| at > now) {
            return None;
        }
        let size = self.candidate();
        self.asked = Some(Asked { size, echo: 0, at: now, until: now, times });
        Some(size)
    }

    /// The ping has gone.
    pub(crate) fn handle_sent(&mut self, echo: u64, rtt: Duration, now: Instant) {
        self.next = None;
        if let Some(asked) = &mut self.asked {
            let until = now + PATIENCE.max(PATIENCE_RTTS * rtt);
            *asked = Asked { echo, at: now, until, times: asked.times + 1, ..*asked };
        }
    }

    /// An answer came; when the ping went out, if it was one of these.
    pub(crate) fn handle_answer(&mut self, echo: u64, now: Instant) -> Option<Instant> {
        let asked = self.asked.filter(|asked| asked.echo == echo)?;
        self.asked = None;
        self.passed = self.passed.max(asked.size);
        if self.failed.is_some_and(|failed| failed <= asked.size) {
            self.failed = None;
        }
        self.plan(now);
        Some(asked.at)
    }

    /// What to ask for next: the full size; between what passes and what does not, the middle.
    fn candidate(&self) -> u16 {
        match self.failed {
            Some(failed) if self.searches() => {
                let low = self.passed.max(BASE.min(failed.saturating_sub(1)));
                // The base first, so that something is known.
                if self.passed == 0 { low } else { low + (failed - low) / 2 }
            }
            Some(_) | None => self.full,
        }
    }

    fn searches(&self) -> bool {
        self.failed.is_some_and(|failed| failed > BASE && failed.saturating_sub(self.passed.max(1)) > NEAR)
    }

    fn fail(&mut self, size: u16, now: Instant) {
        self.failed = Some(self.failed.map_or(size, |failed| failed.min(size)));
        if self.passed >= size {
            // It did pass before: what is smaller has to be found out anew.
            self.passed = 0;
        }
        self.plan(now);
    }

    fn plan(&mut self, now: Instant) {
        self.next = Some(if self.failed.is_none() {
            self.less = 0;
            now + CONFIRM_EVERY
        } else if self.searches() {
            now
        } else {
            self.less += 1;
            now + if self.less > 1 { RAISE_EVERY } else { RAISE_FIRST }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]

    use super::*;

    const FULL: u16 = 1312;

    /// Runs a search for a time over a path that carries so much; how many pings it took, and how long until something
    /// was known.
    fn run(search: &mut MtuSearch, carries: u16, now: &mut Instant, seconds: u64) -> (u32, Option<Duration>) {
        let (begin, end) = (*now, *now + Duration::from_secs(seconds));
        let (mut pings, mut known) = (0, None);
        while let Some(at) = search.deadline().filter(|at| *at <= end) {
            *now = at.max(*now);
            while let Some(size) = search.poll(*now) {
                pings += 1;
                assert!(pings < 1000);
                search.handle_sent(u64::from(pings), Duration::from_millis(20), *now);
                if size <= carries {
                    *now += Duration::from_millis(20);
                    assert!(search.handle_answer(u64::from(pings), *now).is_some());
                }
            }
            if known.is_none() && (search.is_small() || search.carries().is_some()) {
                known = Some(*now - begin);
            }
        }
        *now = end;
        (pings, known)
    }

    fn begun() -> (MtuSearch, Instant) {
        let (mut search, now) = (MtuSearch::default(), Instant::now());
        assert!(!search.has_begun() && search.deadline().is_none());
        search.begin(FULL, now);
        (search, now)
    }

    #[test]
    fn a_path_that_carries_all_costs_a_ping_a_minute() {
        let (mut search, mut now) = begun();
        let (pings, known) = run(&mut search, 1400, &mut now, 605);
        assert_eq!((pings, known), (11, Some(Duration::from_millis(20))));
        assert!(!search.is_small() && search.carries() == Some(FULL));
    }

    #[test]
    fn a_smaller_one_is_known_within_a_second_and_its_size_soon() {
        for carries in [1232, 1240, 1280, 1300, 1311] {
            let (mut search, mut now) = begun();
            let (_, known) = run(&mut search, carries, &mut now, 8);
            assert!(known.unwrap() <= Duration::from_secs(1), "{known:?}");
            let found = search.carries().unwrap();
            assert!(search.is_small() && found <= carries && carries - found <= NEAR, "{found} of {carries}");
            let (pings, _) = run(&mut search, carries, &mut now, 3600);
            assert!(pings < 120, "{pings} in an hour");
            assert!(search.is_small());
        }
    }

    #[test]
    fn one_that_carries_not_even_the_least_is_small_and_left_alone() {
        let (mut search, mut now) = begun();
        let (pings, _) = run(&mut search, 500, &mut now, 3600);
        assert!(search.is_small() && search.carries().is_none());
        assert!(pings < 150, "{pings} in an hour");
    }

    #[test]
    fn a_black_hole_is_found_and_its_end_too() {
        let (mut search, mut now) = begun();
        run(&mut search, 1400, &mut now, 30);
        run(&mut search, 1250, &mut now, 62);
        assert!(search.is_small());
        run(&mut search, 1400, &mut now, 660);
        assert!(!search.is_small() && search.carries() == Some(FULL));
    }

    #[test]
    fn losses_are_no_small_path_for_long() {
        let (mut search, mut now) = begun();
        run(&mut search, 0, &mut now, 1);
        assert!(search.is_small());
        run(&mut search, 1400, &mut now, 15);
        assert!(!search.is_small());
    }
}
