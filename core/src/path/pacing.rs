//! How quickly packets may leave on a path, so that what waits, waits here: where it is bounded and where small flows go
//! first, and not in the queue of a Wi-Fi driver, an access point or a modem, which may hold seconds of it.
//!
//! ```text
//!                  the queue stands above ENGAGE
//!   Free ────────────────────────────────────────> Paced { rate }
//!     ^   nothing had to wait for FORGET; or it                │ emptied: rate grows, quicker and quicker
//!     └── did not help: somebody else fills the queue ─────────┘ stands above TARGET: rate falls, what is too much is paid off
//! ```
//!
//! It is measured by pings that are sent right behind packets, without the mark of what is urgent, while packets are sent:
//! what an answer takes longer than the quickest one of late is the queue. The bytes that went before two such pings, over
//! the time between their answers, are what the path carries. Nothing new is on the wire, so any agent answers.
//!
//! What it must not do is cost speed where there is no such queue. So nothing is paced until the queue has stood for
//! several answers; not at rates at which a queue is a matter of microseconds; and when several reductions have not made
//! the queue shorter, it is others' (a download at the same access point), who would only take what is left to them: pacing
//! then ends and is not tried again for a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::packet::Class;

/// Bytes after which, and time after which at the earliest, the queue is asked for again.
const ASK_BYTES: u64 = 8 * 1024;
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Most pings that wait for an answer: the peer's replay window takes 64 numbers, other probes among them.
const MAX_ASKED: usize = 8;

/// A ping that is not answered by then is lost.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// Answers that are looked at.
const MAX_ANSWERS: usize = 16;

/// A queue that stands for so long, in so many answers, is one.
const ENGAGE: Duration = Duration::from_millis(25);
const ENGAGE_ANSWERS: usize = 3;

/// What is left of it: enough that the path never runs dry.
const TARGET: Duration = Duration::from_millis(12);

/// Below this the rate grows.
const EMPTY: Duration = Duration::from_millis(4);

/// A rate is worth something when measured over this time.
const MEASURED: Duration = Duration::from_millis(30);

/// Where more passes, nothing is paced (bytes/s): 400 Mbit/s.
const FASTEST: f64 = 50e6;

/// The least rate.
const SLOWEST: f64 = 32e3;

/// Of what the path carries, what is sent while its queue is too long.
const BACK_OFF: f64 = 0.95;

/// Growth of the rate from one look to the next: the first, the largest, and by which factor it grows itself.
const GROWTH: f64 = 0.02;
const MOST_GROWTH: f64 = 0.25;
const GROWING: f64 = 1.5;

/// Longest pause that pays off what is too much.
const LONGEST_PAUSE: f64 = 0.4;

/// What may leave at once: this time's worth, and two packets.
const AT_ONCE: f64 = 0.004;
const AT_ONCE_BYTES: f64 = 3000.0;

/// Bytes that may be under way beyond what the path holds without a queue: this time's worth, and what goes between two
/// pings. It stops what goes out when a path becomes slower, and its answers late.
const UNDER_WAY: f64 = 0.06;
const UNDER_WAY_BYTES: f64 = 16384.0;

/// Before a rate is known: with so many bytes under way, packets wait for an answer that is later than the quickest one by
/// so much. So a sudden flood does not fill a second's queue before its rate has been measured.
const LATE_BYTES: u64 = 64 * 1024;
const LATE: Duration = Duration::from_millis(50);

/// Later than this it is taken for lost, if another ping of later was answered (which may have gone ahead of a queue).
const LATER: Duration = Duration::from_millis(250);

/// Later than this, it is lost in any case.
const LATEST: Duration = Duration::from_secs(1);

/// Without any answer for so long (or four times the quickest one), what is under way is taken for lost.
const NO_ANSWER: Duration = Duration::from_millis(500);

/// How far prompt packets may be ahead of the pace.
const AHEAD: f64 = 0.05;

/// A reduction that leaves more than this share of the queue has not helped, when this share of the rate comes through; so
/// many in a row, and pacing is given up, for this long at first, and twice as long each time.
const HELPED: f64 = 0.7;
const KEPT_UP: f64 = 0.85;
const FUTILE: u32 = 3;
const GIVEN_UP: Duration = Duration::from_secs(20);
const GIVEN_UP_LONGEST: Duration = Duration::from_secs(320);

/// A rate at which nothing had to wait for so long is forgotten.
const FORGET: Duration = Duration::from_secs(30);

/// The quickest answer within one to two of these is what the path takes without a queue.
const WINDOW: Duration = Duration::from_secs(10);

/// The pace of one path.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    /// Bytes of packets that have gone out.
    sent: u64,
    asked: VecDeque<Asked>,
    last_asked: Option<(Instant, u64)>,
    /// When the last ping of another kind went out that was answered.
    probed: Option<Instant>,
    /// Bytes that went before the last ping that was answered.
    arrived: u64,
    /// Since the rate was changed last.
    answers: VecDeque<Answer>,
    quickest: Quickest,
    limit: Option<Limit>,
    given_up_until: Option<Instant>,
    given_up_for: Duration,
}

/// A ping on its way.
#[derive(Debug, Clone, Copy)]
struct Asked {
    echo: u64,
    at: Instant,
    /// Bytes that went before it.
    sent: u64,
}

/// An answered ping.
#[derive(Debug, Clone, Copy)]
struct Answer {
    back: Instant,
    sent: u64,
    queue: Duration,
}

/// A rate that is kept.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// Bytes per second.
    rate: f64,
    /// Bytes that may go out; below zero, what went out too much.
    tokens: f64,
    at: Instant,
    /// When the rate was changed last.
    changed: Instant,
    /// When packets had to wait last.
    held_back: Instant,
    growth: f64,
    /// The queue at the last reduction, and how many have not helped.
    reduced_at: Duration,
    futile: u32,
}

/// The quickest answer of late, in two windows.
#[derive(Debug, Clone, Copy, Default)]
struct Quickest {
    began: Option<Instant>,
    now: Option<Duration>,
    before: Option<Duration>,
}

impl Pacer {
    /// That of a path whose quickest answer took so long when nothing filled it.
    pub(crate) fn of_path(quickest: Option<Duration>) -> Self {
        Self { quickest: Quickest { before: quickest, ..Quickest::default() }, ..Self::default() }
    }

    /// How many bytes of a class may go out.
    pub(crate) fn allowance(&mut self, class: Class, now: Instant) -> usize {
        self.forget_lost(now);
        let Some(limit) = &mut self.limit else {
            return if class == Class::Bulk && self.awaits_answer(now) { 0 } else { usize::MAX };
        };
        limit.refill(now);
        let ahead = if class == Class::Bulk { 0.0 } else { limit.rate * AHEAD };
        let holds = limit.rate * (self.quickest.get().as_secs_f64() + UNDER_WAY) + UNDER_WAY_BYTES;
        let under_way = (self.sent - self.arrived) as f64;
        let allowed = limit.tokens.min(holds - under_way) + ahead;
        if allowed < 1.0 {
            limit.held_back = now;
            return 0;
        }
        allowed as usize
    }

    /// Whether so late an answer, with so much under way, can only mean that a queue is filling up.
    fn awaits_answer(&self, now: Instant) -> bool {
        let given_up = self.given_up_until.is_some_and(|until| now < until);
        let (Some(asked), Some(quickest)) = (self.asked.front(), self.quickest.known()) else { return false };
        let late = since(asked.at, now).saturating_sub(quickest);
        let overtaken = self.probed.is_some_and(|at| at > asked.at);
        let latest = if overtaken { LATER } else { LATEST };
        // Where answers take long, they vary more.
        !given_up && self.sent - self.arrived >= LATE_BYTES && late >= LATE.max(quickest / 2) && late < latest
    }

    /// Packets have gone out.
    pub(crate) fn handle_sent(&mut self, bytes: usize, now: Instant) {
        self.sent += bytes as u64;
        if let Some(limit) = &mut self.limit {
            limit.refill(now);
            limit.tokens -= bytes as f64;
        }
    }

    /// Whether a ping is to follow what has just gone out.
    pub(crate) fn asks(&mut self, now: Instant) -> bool {
        self.forget_lost(now);
        let every = ASK_EVERY.max(self.quickest.get() / 4);
        let due = |(at, sent)| self.sent - sent >= ASK_BYTES && since(at, now) >= every;
        self.asked.len() < MAX_ASKED && self.last_asked.map_or(self.sent >= ASK_BYTES, due)
    }

    fn forget_lost(&mut self, now: Instant) {
        while self.asked.front().is_some_and(|asked| since(asked.at, now) > LOST_AFTER) {
            self.asked.pop_front();
        }
        let patience = NO_ANSWER.max(4 * self.quickest.get());
        if self.last_asked.is_none_or(|(at, _)| since(at, now) > patience) {
            self.arrived = self.sent;
        }
    }

    /// A ping follows what has gone out until now.
    pub(crate) fn handle_asked(&mut self, echo: u64, now: Instant) {
        self.asked.push_back(Asked { echo, at: now, sent: self.sent });
        self.last_asked = Some((now, self.sent));
    }

    /// A ping that did not wait behind packets took so long, there and back.
    pub(crate) fn note_rtt(&mut self, rtt: Duration, now: Instant) {
        self.quickest.note(rtt, now);
        self.probed = self.probed.max(now.checked_sub(rtt));
    }

    /// An answer came; when the ping went out, if it was one of these.
    pub(crate) fn handle_answer(&mut self, echo: u64, now: Instant) -> Option<Instant> {
        let index = self.asked.iter().position(|asked| asked.echo == echo)?;
        // Queues keep the order: what went before and has no answer is lost.
        let asked = self.asked.drain(..=index).next_back()?;
        let rtt = since(asked.at, now);
        self.quickest.note(rtt, now);
        self.arrived = self.arrived.max(asked.sent);
        if self.limit.is_some_and(|limit| asked.at < limit.changed) {
            return Some(asked.at);
        }
        if self.answers.len() >= MAX_ANSWERS {
            self.answers.pop_front();
        }
        let queue = rtt.saturating_sub(self.quickest.get());
        self.answers.push_back(Answer { back: now, sent: asked.sent, queue });
        match self.limit {
            None => self.consider(now),
            Some(limit) if since(limit.held_back, now) > FORGET => self.limit = None,
            Some(limit) => self.adjust(limit, now),
        }
        Some(asked.at)
    }

    /// Free: does a queue stand?
    fn consider(&mut self, now: Instant) {
        let Some(queue) = self.standing(ENGAGE_ANSWERS) else { return };
        // Where answers take long, they vary more.
        let engage = ENGAGE.max(self.quickest.get() / 2);
        let Some(rate) = self.carried().filter(|_| queue >= engage) else { return };
        if rate > FASTEST || self.given_up_until.is_some_and(|until| now < until) {
            return;
        }
        let limit = Limit {
            rate,
            tokens: 0.0,
            at: now,
            changed: now,
            held_back: now,
            growth: GROWTH,
            reduced_at: Duration::MAX,
            futile: 0,
        };
        self.reduce(limit, rate, queue, now);
    }

    /// Paced: is the queue too long, or empty?
    fn adjust(&mut self, limit: Limit, now: Instant) {
        let (Some(queue), Some(carried)) = (self.standing(2), self.carried()) else { return };
        let target = TARGET.max(self.quickest.get() / 8);
        if queue > target {
            self.reduce(limit, carried, queue, now);
        } else if queue < EMPTY.max(target / 3) && limit.held_back >= limit.changed {
            let rate = limit.rate * (1.0 + limit.growth);
            if rate > FASTEST {
                self.limit = None;
                return;
            }
            let growth = (limit.growth * GROWING).min(MOST_GROWTH);
            self.change(Limit { rate, growth, futile: 0, ..limit }, now);
        }
    }

    fn reduce(&mut self, limit: Limit, carried: f64, queue: Duration, now: Instant) {
        let helped = limit.reduced_at == Duration::MAX || queue < limit.reduced_at.mul_f64(HELPED);
        let futile = match helped {
            true => 0,
            // The path itself has become slower.
            false if carried < limit.rate * KEPT_UP => limit.futile,
            false => limit.futile + 1,
        };
        if futile >= FUTILE {
            self.limit = None;
            self.answers.clear();
            self.given_up_for = (self.given_up_for * 2).clamp(GIVEN_UP, GIVEN_UP_LONGEST);
            self.given_up_until = Some(now + self.given_up_for);
            return;
        }
        let rate = (limit.rate.min(carried) * BACK_OFF).max(SLOWEST);
        // Of what is under way, the path without a queue and half the target may stay.
        let under_way = (self.sent - self.arrived) as f64;
        let fits = carried * (self.quickest.get() + TARGET / 2).as_secs_f64();
        let debt = (under_way - fits).clamp(0.0, carried * LONGEST_PAUSE);
        let tokens = limit.tokens.min(0.0) - debt;
        self.change(Limit { rate, tokens, growth: GROWTH, reduced_at: queue, futile, ..limit }, now);
    }

    fn change(&mut self, limit: Limit, now: Instant) {
        self.limit = Some(Limit { changed: now, ..limit });
        self.answers.clear();
    }

    /// The shortest queue that the last answers saw.
    fn standing(&self, answers: usize) -> Option<Duration> {
        let skip = self.answers.len().checked_sub(answers)?;
        self.answers.iter().skip(skip).map(|answer| answer.queue).min()
    }

    /// Bytes per second that came through lately.
    fn carried(&self) -> Option<f64> {
        let last = self.answers.back()?;
        let recent = |answer: &&Answer| since(answer.back, last.back) <= 8 * MEASURED;
        let first = self.answers.iter().find(recent)?;
        let took = since(first.back, last.back);
        (took >= MEASURED).then(|| (last.sent - first.sent) as f64 / took.as_secs_f64())
    }
}

impl Limit {
    fn refill(&mut self, now: Instant) {
        let most = self.rate * AT_ONCE + AT_ONCE_BYTES;
        self.tokens = (self.tokens + self.rate * since(self.at, now).as_secs_f64()).min(most);
        self.at = now;
    }
}

impl Quickest {
    fn note(&mut self, rtt: Duration, now: Instant) {
        if self.began.is_some_and(|began| since(began, now) >= WINDOW) {
            (self.before, self.now, self.began) = (self.now, None, None);
        }
        self.began = self.began.or(Some(now));
        self.now = Some(self.now.map_or(rtt, |quickest| quickest.min(rtt)));
    }

    fn get(&self) -> Duration {
        self.known().unwrap_or_default()
    }

    fn known(&self) -> Option<Duration> {
        self.now.into_iter().chain(self.before).min()
    }
}

fn since(at: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(at)
}

#[cfg(test)]
mod tests;
