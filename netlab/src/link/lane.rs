//! One direction of an emulated link without sockets and clocks: frames in with the time, frames out when they are due.
//!
//! A frame waits for its turn at the rate (or finds the queue full), may be lost on the way, travels for its delay, and
//! may arrive twice or late. What it is made of, the lane does not look at.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Percent, Quality};
use crate::random::Random;

/// Bytes under way at most, whatever the delay: more would only fill the memory.
const UNDER_WAY_MAX: u64 = 64 << 20;

/// How long frames wait at most for their turn when no queue was set.
const QUEUE_TIME: Duration = Duration::from_millis(100);

/// A queue holds at least this: two large frames, and a few small ones.
const QUEUE_MIN: u64 = 4096;

/// By how much reordered frames are late when nothing was set.
const LATE: Duration = Duration::from_millis(5);

/// What became of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counters {
    /// Came in.
    pub taken: u64,
    /// Went out, duplicates among them.
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Found the queue full.
    pub overflowed: u64,
    /// Came in during a black-out.
    pub blacked_out: u64,
    /// Were held back.
    pub reordered: u64,
    /// Went out a second time.
    pub duplicated: u64,
}

/// A frame under way.
#[derive(Debug)]
struct UnderWay<F> {
    due: Instant,
    number: u64,
    bytes: u64,
    frame: F,
}

impl<F> Ord for UnderWay<F> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

impl<F> PartialOrd for UnderWay<F> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<F> PartialEq for UnderWay<F> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<F> Eq for UnderWay<F> {}

/// One direction.
#[derive(Debug)]
pub struct Lane<F> {
    quality: Quality,
    random: Random,
    in_burst: bool,
    /// When the last bit of what waits has been sent.
    busy_until: Option<Instant>,
    /// No frame that keeps its order is due before this.
    last_due: Option<Instant>,
    black_until: Option<Instant>,
    under_way: BinaryHeap<Reverse<UnderWay<F>>>,
    bytes_under_way: u64,
    numbers: u64,
    counters: Counters,
}

impl<F: Clone> Lane<F> {
    /// An empty lane.
    pub fn new(quality: Quality, seed: u64) -> Self {
        Self {
            quality,
            random: Random::new(seed),
            in_burst: false,
            busy_until: None,
            last_due: None,
            black_until: None,
            under_way: BinaryHeap::new(),
            bytes_under_way: 0,
            numbers: 0,
            counters: Counters::default(),
        }
    }

    /// Changes the quality from the next frame on. What is under way keeps its time, and may be overtaken.
    pub fn set(&mut self, quality: Quality) {
        self.quality = quality;
        self.last_due = None;
        self.in_burst &= quality.burst.is_some();
    }

    /// Lets nothing in until then, or ends a black-out.
    pub fn black_out(&mut self, until: Option<Instant>) {
        self.black_until = until;
    }

    /// What became of frames so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes a frame.
    pub fn push(&mut self, frame: F, bytes: usize, now: Instant) {
        self.counters.taken += 1;
        if self.black_until.is_some_and(|until| now < until) {
            self.counters.blacked_out += 1;
            return;
        }
        let bytes = bytes as u64;
        let Some(sent) = self.send(bytes, now) else {
            self.counters.overflowed += 1;
            return;
        };
        if self.is_lost() {
            self.counters.lost += 1;
            return;
        }
        let due = sent + self.travel_time();
        let is_late = self.random.chance(self.quality.reorder.share());
        let due = if is_late {
            self.counters.reordered += 1;
            due + self.quality.reorder_by.map_or(LATE, super::Span::get)
        } else {
            let due = self.last_due.map_or(due, |last| last.max(due));
            self.last_due = Some(due);
            due
        };
        if self.random.chance(self.quality.duplicate.share()) {
            self.counters.duplicated += 1;
            self.hold(frame.clone(), bytes, due);
        }
        self.hold(frame, bytes, due);
    }

    /// The next frame that is due.
    pub fn poll(&mut self, now: Instant) -> Option<F> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(arrived) = self.under_way.pop()?;
        self.bytes_under_way = self.bytes_under_way.saturating_sub(arrived.bytes);
        self.counters.delivered += 1;
        Some(arrived.frame)
    }

    /// When the next frame is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(next)| next.due)
    }

    /// When the frame has left at the link's rate; none when the queue is full.
    fn send(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        if self.bytes_under_way + bytes > UNDER_WAY_MAX {
            return None;
        }
        let Some(rate) = self.quality.rate else { return Some(now) };
        let begins = self.busy_until.map_or(now, |until| until.max(now));
        let waiting = rate.bytes_in(begins.saturating_duration_since(now));
        let queue = self.quality.queue.map_or_else(|| rate.bytes_in(QUEUE_TIME), super::Size::bytes);
        if waiting + bytes > queue.max(QUEUE_MIN) {
            return None;
        }
        let sent = begins + rate.time_of(bytes);
        self.busy_until = Some(sent);
        Some(sent)
    }

    /// Whether chance takes a frame: alone, or in bursts by the model of Gilbert and Elliott. There, the link changes
    /// between a good state without loss and a bad one in which the share `burst_loss` is lost; bad ones are `burst`
    /// frames long on average, and as frequent as the total loss asks for.
    fn is_lost(&mut self) -> bool {
        let loss = self.quality.loss.share();
        let Some(burst) = self.quality.burst else { return self.random.chance(loss) };
        let within = self.quality.burst_loss.unwrap_or(Percent::ALL).share();
        let bad = if within > loss { loss / within } else { 1.0 };
        let leave = 1.0 / f64::from(burst);
        let enter = if bad < 1.0 { leave * bad / (1.0 - bad) } else { 1.0 };
        self.in_burst =
            if self.in_burst { bad >= 1.0 || !self.random.chance(leave) } else { self.random.chance(enter) };
        self.in_burst && self.random.chance(if bad < 1.0 { within } else { loss })
    }

    fn travel_time(&mut self) -> Duration {
        let (delay, jitter) = (self.quality.delay.get(), self.quality.jitter.get());
        if jitter.is_zero() {
            return delay;
        }
        (delay + jitter.mul_f64(2.0 * self.random.fraction())).saturating_sub(jitter)
    }

    fn hold(&mut self, frame: F, bytes: u64, due: Instant) {
        self.numbers += 1;
        self.bytes_under_way += bytes;
        self.under_way.push(Reverse(UnderWay { due, number: self.numbers, bytes, frame }));
    }
}
