//! A path with a deep queue in virtual time: what passes, and how long it waits in a queue that is not ours.
#![allow(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Pacer;
use crate::packet::Class;

const MTU: usize = 1300;

/// Packets of ours, of others, and pings.
enum Kind {
    Packet,
    Other,
    Ping(u64),
}

/// A queue that is emptied at a rate, 5 ms there and 5 ms back.
struct Line {
    bytes_per_s: f64,
    queue: VecDeque<(Kind, usize)>,
    queued: usize,
    credit: f64,
    answers: VecDeque<(Instant, u64)>,
    delivered: usize,
}

struct Run {
    pacer: Pacer,
    line: Line,
    now: Instant,
    /// Bytes per second that we would send.
    offered: f64,
    /// Those of others in the same queue, who send whatever happens.
    others: f64,
    wanted: f64,
    owed: f64,
    echo: u64,
    /// The queue at each millisecond.
    waits: Vec<Duration>,
}

impl Run {
    fn new(mbit: f64, offered_mbit: f64) -> Self {
        let line = Line {
            bytes_per_s: mbit * 125e3,
            queue: VecDeque::new(),
            queued: 0,
            credit: 0.0,
            answers: VecDeque::new(),
            delivered: 0,
        };
        Self {
            pacer: Pacer::default(),
            line,
            now: Instant::now(),
            offered: offered_mbit * 125e3,
            others: 0.0,
            wanted: 0.0,
            owed: 0.0,
            echo: 0,
            waits: Vec::new(),
        }
    }

    /// Lets time pass; Mbit/s of ours that arrived meanwhile.
    fn pass(&mut self, seconds: f64) -> f64 {
        self.waits.clear();
        let before = self.line.delivered;
        for _ in 0..(seconds * 1000.0) as u32 {
            self.millisecond();
        }
        (self.line.delivered - before) as f64 / 125e3 / seconds
    }

    fn millisecond(&mut self) {
        self.now += Duration::from_millis(1);
        // A tenth of a second may wait with us.
        self.wanted = (self.wanted + self.offered / 1000.0).min(self.offered / 10.0);
        while self.wanted >= MTU as f64 && self.pacer.allowance(Class::Bulk, self.now) > 0 {
            self.wanted -= MTU as f64;
            self.line.push(Kind::Packet, MTU);
            self.pacer.handle_sent(MTU, self.now);
        }
        if self.pacer.asks(self.now) {
            self.echo += 1;
            self.pacer.handle_asked(self.echo, self.now);
            self.line.push(Kind::Ping(self.echo), 111);
        }
        self.owed += self.others / 1000.0;
        while self.owed >= MTU as f64 {
            self.owed -= MTU as f64;
            self.line.push(Kind::Other, MTU);
        }
        self.line.carry(self.now);
        while let Some((_, echo)) = self.line.answers.pop_front_if(|(at, _)| *at <= self.now) {
            assert!(self.pacer.handle_answer(echo, self.now).is_some());
        }
        self.waits.push(Duration::from_secs_f64(self.line.queued as f64 / self.line.bytes_per_s));
    }

    fn p99(&mut self) -> Duration {
        self.waits.sort_unstable();
        self.waits[self.waits.len() * 99 / 100]
    }

    fn is_paced(&self) -> bool {
        self.pacer.limit.is_some()
    }
}

impl Line {
    fn push(&mut self, kind: Kind, bytes: usize) {
        self.queued += bytes;
        self.queue.push_back((kind, bytes));
    }

    fn carry(&mut self, now: Instant) {
        self.credit += self.bytes_per_s / 1000.0;
        while let Some((kind, bytes)) = self.queue.pop_front_if(|(_, bytes)| *bytes as f64 <= self.credit) {
            self.credit -= bytes as f64;
            self.queued -= bytes;
            match kind {
                Kind::Packet => self.delivered += bytes,
                Kind::Other => {}
                Kind::Ping(echo) => self.answers.push_back((now + Duration::from_millis(10), echo)),
            }
        }
        if self.queue.is_empty() {
            self.credit = 0.0;
        }
    }
}

#[test]
fn at_any_rate_the_queue_is_short_and_the_line_is_full() {
    for mbit in [2.0, 8.0, 20.0, 100.0, 250.0] {
        let mut run = Run::new(mbit, 2.0 * mbit);
        run.pass(3.0);
        let (carried, wait) = (run.pass(20.0), run.p99());
        assert!(carried >= 0.93 * mbit, "{carried:.2} of {mbit} Mbit/s");
        assert!(wait <= Duration::from_millis(40), "{wait:?} at {mbit} Mbit/s");
    }
}

#[test]
fn a_queue_that_has_filled_up_is_gone_within_a_second() {
    let mut run = Run::new(20.0, 40.0);
    run.pass(1.0);
    assert!(run.waits.iter().max().unwrap() < &Duration::from_millis(250));
    let long = run.waits.iter().filter(|wait| **wait > Duration::from_millis(50)).count();
    assert!(long < 350, "{long} ms with a long queue");
}

#[test]
fn a_sudden_flood_does_not_fill_the_queue_before_its_rate_is_known() {
    for factor in [2.0, 4.0, 8.0] {
        let mut run = Run::new(20.0, 20.0 * factor);
        run.pacer = Pacer::of_path(Some(Duration::from_millis(10)));
        run.pass(2.0);
        let longest = *run.waits.iter().max().unwrap();
        assert!(longest < Duration::from_millis(600), "{longest:?} at {factor} times what the line carries");
        let (carried, wait) = (run.pass(5.0), run.p99());
        assert!(carried > 18.5 && wait < Duration::from_millis(40), "{carried:.1} Mbit/s, {wait:?}");
    }
}

#[test]
fn a_path_whose_queue_was_full_before_is_known_by_its_quickest_answer() {
    let mut run = Run::new(20.0, 80.0);
    run.line.push(Kind::Other, 2_000_000);
    run.line.queue = (0..1600).map(|_| (Kind::Other, 1250)).collect();
    run.pacer = Pacer::of_path(Some(Duration::from_millis(10)));
    run.pass(3.0);
    let (carried, wait) = (run.pass(5.0), run.p99());
    assert!(carried > 18.5 && wait < Duration::from_millis(40), "{carried:.1} Mbit/s, {wait:?}");
}

#[test]
fn the_rate_follows_the_line() {
    let mut run = Run::new(100.0, 200.0);
    run.pass(3.0);
    run.line.bytes_per_s /= 5.0;
    run.pass(1.5);
    let (carried, wait) = (run.pass(5.0), run.p99());
    assert!(carried > 18.0 && wait < Duration::from_millis(40), "{carried:.1} Mbit/s, {wait:?}");
    run.line.bytes_per_s *= 5.0;
    run.pass(3.0);
    let carried = run.pass(5.0);
    assert!(carried > 90.0, "{carried:.1} Mbit/s are taken again");
}

#[test]
fn where_there_is_no_queue_nothing_is_paced() {
    for (mbit, offered) in [(1000.0, 900.0), (20.0, 18.0)] {
        let mut run = Run::new(mbit, offered);
        run.pass(10.0);
        assert!(!run.is_paced(), "{offered} of {mbit} Mbit/s");
    }
    let mut fast = Run::new(1000.0, 2000.0);
    fast.pass(5.0);
    assert!(!fast.is_paced(), "at such a rate it is no use");
}

#[test]
fn the_queue_of_others_is_left_to_them_and_our_share_taken() {
    let mut run = Run::new(20.0, 15.0);
    run.others = 20.0 * 125e3;
    // As deep a queue as a second: who comes finds it full, and the two share what leaves it.
    run.pass(3.0);
    let mut paced = 0;
    for _ in 0..60 {
        run.pass(1.0);
        // Others' queue is kept at a second's worth.
        while run.line.queued as f64 > run.line.bytes_per_s {
            run.line.queued -= run.line.queue.pop_back().map_or(0, |(_, bytes)| bytes);
        }
        paced += u32::from(run.is_paced());
    }
    assert!(paced <= 20, "paced in {paced} of 60 s, to no avail");
}

#[test]
fn pings_that_are_lost_and_answers_to_others_change_nothing() {
    let (mut pacer, mut now) = (Pacer::default(), Instant::now());
    for echo in 0..100 {
        pacer.handle_sent(100_000, now);
        now += Duration::from_millis(100);
        if pacer.asks(now) {
            pacer.handle_asked(echo, now);
        }
        assert_eq!(pacer.handle_answer(echo + 1000, now), None);
        assert_eq!(pacer.allowance(Class::Bulk, now), usize::MAX);
    }
    assert!(pacer.asked.len() <= super::MAX_ASKED);
}
