//! When beacons are due: a burst where there is reason to think that somebody is to be found, then rarely.

use std::time::{Duration, Instant};

/// Time after each beacon of a burst. One that is lost costs little, and Wi-Fi loses many: access points send what is for
/// all without acknowledgement.
const BURST: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Least time between two beacons, whatever happens.
const GAP: Duration = Duration::from_millis(200);

/// Time between beacons after a burst, and by how much it varies, so that robots do not stay in step.
const EVERY: Duration = Duration::from_secs(30);
pub(crate) const JITTER: Duration = Duration::from_secs(10);

/// When the next beacon is due. Nothing is until the first reason.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    sent: usize,
    last: Option<Instant>,
    next: Option<Instant>,
}

impl Schedule {
    /// This may be another place: a burst begins.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.sent = 0;
        self.next = Some(self.last.map_or(now, |last| now.max(last + GAP)));
    }

    /// Somebody may be to be found: a burst begins, unless one runs.
    pub(crate) fn begin(&mut self, now: Instant) {
        if self.next.is_none() || self.sent >= BURST.len() {
            self.restart(now);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// A beacon goes, or would; `jitter` is drawn between nothing and [`JITTER`].
    pub(crate) fn advance(&mut self, jitter: Duration, now: Instant) {
        let pause = BURST.get(self.sent).copied().unwrap_or(EVERY + jitter);
        (self.sent, self.last, self.next) = (self.sent + 1, Some(now), Some(now + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When beacons go, in milliseconds, until so many seconds have passed.
    fn times(schedule: &mut Schedule, from: Instant, seconds: u64) -> Vec<u128> {
        let mut times = Vec::new();
        while let Some(at) = schedule.deadline().filter(|at| *at < from + Duration::from_secs(seconds)) {
            times.push(at.saturating_duration_since(from).as_millis());
            schedule.advance(Duration::ZERO, at);
        }
        times
    }

    #[test]
    fn a_burst_and_then_one_every_half_minute() {
        #[allow(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
        let start = Instant::now();
        let mut schedule = Schedule::default();
        assert_eq!(schedule.deadline(), None);
        schedule.begin(start);
        assert_eq!(times(&mut schedule, start, 3), [0, 200, 500, 1000, 2000]);
        // A burst that runs is not begun anew by whoever else gets lost, ...
        schedule.begin(start + Duration::from_millis(2100));
        assert_eq!(times(&mut schedule, start, 70), [3000, 5000, 35_000, 65_000]);
        // ... but by another place, and never faster than so.
        let later = start + Duration::from_millis(65_100);
        schedule.restart(later);
        assert_eq!(times(&mut schedule, later, 1), [100, 300, 600]);
    }
}
