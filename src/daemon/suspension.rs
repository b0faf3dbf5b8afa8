//! Notices that the machine was suspended: the clock that timers go by stood still, and the world did not.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A shorter one costs nobody a session, and two readings are never quite at the same time.
const SHORTEST: Duration = Duration::from_secs(2);

/// How long this machine has been suspended since it was started.
#[derive(Debug)]
pub struct Suspension(Duration);

impl Suspension {
    /// From now on.
    pub fn new() -> Self {
        Self(suspended())
    }

    /// How long the machine was suspended since the last question, if it was.
    pub fn take(&mut self) -> Option<Duration> {
        self.grown_to(suspended())
    }

    fn grown_to(&mut self, now: Duration) -> Option<Duration> {
        let before = std::mem::replace(&mut self.0, now);
        Some(now.saturating_sub(before)).filter(|slept| *slept >= SHORTEST)
    }
}

/// The one clock counts suspension, the other does not.
fn suspended() -> Duration {
    let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(read(ClockId::CLOCK_MONOTONIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_jump_is_a_suspension_and_it_is_told_once() {
        let seconds = Duration::from_secs;
        let mut suspension = Suspension(seconds(100));
        assert_eq!(suspension.grown_to(seconds(101)), None);
        assert_eq!(suspension.grown_to(seconds(3701)), Some(seconds(3600)));
        assert_eq!(suspension.grown_to(seconds(3701)), None);
        assert_eq!(suspension.grown_to(seconds(3700)), None);
        assert_eq!(Suspension::new().take(), None, "nobody slept meanwhile");
    }
}
