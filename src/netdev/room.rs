//! How much may lie in the kernel's queues for one socket: about as much as leaves them within the twentieth part of a
//! second, whatever the rate of the network card or the Wi-Fi below.
//!
//! The kernel tells how much it holds (`SIOCOUTQ`), down to the driver. How quickly it gets rid of it is seen while
//! nothing is added. Above the limit packets wait where their age is seen, and urgent datagrams still find a place.

use std::time::{Duration, Instant};

/// What the kernel holds is to be gone within this time.
const TIME: Duration = Duration::from_millis(50);

/// Limit at the start, and the least one: a full run of datagrams with the kernel's own bookkeeping.
const FIRST: usize = 512 * 1024;
const LEAST: usize = 96 * 1024;

/// Time after which a rate is worth something, and after which what was seen counts half.
const ENOUGH: Duration = Duration::from_millis(5);
const HALVED_AFTER: Duration = Duration::from_millis(100);

/// The limit of one socket.
#[derive(Debug)]
pub struct Room {
    limit: usize,
    most: usize,
    /// When the kernel was seen to hold too much, and how much.
    over: Option<(Instant, usize)>,
    /// What has left it while nothing was added, and in which time.
    drained: usize,
    within: Duration,
}

impl Room {
    /// For a socket whose buffer takes so many bytes: a quarter is left to what is urgent.
    pub fn new(buffer: usize) -> Self {
        let most = buffer / 4 * 3;
        Self { limit: FIRST.min(most), most, over: None, drained: 0, within: Duration::ZERO }
    }

    /// Whether the kernel, which holds `held` bytes, is to be given more packets.
    pub fn admits(&mut self, held: usize, now: Instant) -> bool {
        if let Some((at, before)) = self.over {
            self.learn(before.saturating_sub(held), now.saturating_duration_since(at), held == 0);
        }
        let admits = held < self.limit;
        self.over = (!admits).then_some((now, held));
        admits
    }

    fn learn(&mut self, drained: usize, within: Duration, emptied: bool) {
        if self.within > HALVED_AFTER {
            (self.drained, self.within) = (self.drained / 2, self.within / 2);
        }
        self.drained += drained;
        self.within += within;
        if emptied {
            // It could have sent more.
            self.limit = (self.limit * 2).min(self.most);
        } else if self.within >= ENOUGH {
            let rate = self.drained as f64 / self.within.as_secs_f64();
            let limit = (rate * TIME.as_secs_f64()) as usize;
            self.limit = limit.clamp(LEAST.min(self.most), self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue that is drained at a rate and filled whenever it may be; the longest that anything waits after a second.
    fn longest_wait(bytes_per_s: usize) -> Duration {
        let (mut room, start) = (Room::new(8 << 20), Instant::now());
        let (mut held, mut longest) = (0, 0);
        for ms in 0..3000 {
            held -= held.min(bytes_per_s / 1000);
            let now = start + Duration::from_millis(ms);
            while room.admits(held, now) {
                held += 64 * 1024;
            }
            if ms > 1000 {
                longest = longest.max(held);
            }
        }
        Duration::from_secs_f64(longest as f64 / bytes_per_s as f64)
    }

    #[test]
    fn the_kernel_holds_what_leaves_it_soon_at_any_rate() {
        for mbit in [20, 50, 100, 500] {
            let wait = longest_wait(mbit * 125_000);
            assert!(wait >= TIME / 3, "never idle at {mbit} Mbit/s: {wait:?}");
            assert!(wait <= TIME * 2, "at {mbit} Mbit/s: {wait:?}");
        }
    }

    #[test]
    fn a_kernel_that_sends_at_once_is_given_all() {
        let mut room = Room::new(8 << 20);
        let now = Instant::now();
        assert!((0..100).all(|ms| room.admits(64 * 1024, now + Duration::from_millis(ms))));
        // It fills up in an instant, and is empty a moment later.
        for ms in 0..10 {
            assert!(!room.admits(6 << 20, now + Duration::from_millis(ms * 10)));
            assert!(room.admits(0, now + Duration::from_millis(ms * 10 + 2)));
        }
        assert!(room.admits(5 << 20, now + Duration::from_millis(200)));
    }

    #[test]
    fn a_small_buffer_keeps_a_place_for_what_is_urgent() {
        let mut room = Room::new(400 * 1024);
        assert!(room.admits(299 * 1024, Instant::now()));
        assert!(!room.admits(301 * 1024, Instant::now()));
    }
}
