//! When to publish: on change, but not more often than a limit; and at least once in a period.

use std::time::{Duration, Instant};

/// The shortest time between two messages.
pub const SHORTEST: Duration = Duration::from_millis(500);

/// Decides for one topic.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<Instant>,
    changed: bool,
}

impl Pace {
    /// What the topic shows has changed.
    pub fn handle_change(&mut self) {
        self.changed = true;
    }

    /// Whether to publish now; if so, it counts as done.
    pub fn poll(&mut self, now: Instant, period: Duration) -> bool {
        let due = self.due(period).is_none_or(|due| due <= now);
        if due {
            self.last = Some(now);
            self.changed = false;
        }
        due
    }

    /// When to ask again; `None` means at once.
    pub fn due(&self, period: Duration) -> Option<Instant> {
        let wait = if self.changed { SHORTEST } else { period.max(SHORTEST) };
        self.last.map(|last| last + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    fn published(changes_ms: &[u64], until_ms: u64) -> Vec<u64> {
        let began = Instant::now();
        let mut pace = Pace::default();
        let mut times = Vec::new();
        for ms in 0..=until_ms {
            if changes_ms.contains(&ms) {
                pace.handle_change();
            }
            if pace.poll(began + Duration::from_millis(ms), PERIOD) {
                times.push(ms);
            }
        }
        times
    }

    #[test]
    fn without_changes_once_in_a_period() {
        assert_eq!(published(&[], 3000), [0, 1000, 2000, 3000]);
    }

    #[test]
    fn a_change_goes_out_at_once_when_the_last_message_is_old_enough() {
        assert_eq!(published(&[700], 1600), [0, 700]);
    }

    #[test]
    fn many_changes_give_two_messages_a_second_and_the_last_change_is_never_lost() {
        let changes: Vec<u64> = (1..=1200).collect();
        assert_eq!(published(&changes, 2500), [0, 500, 1000, 1500, 2500]);
    }
}
