//! Packets that may not leave yet, or that the kernel has no room for: for each peer queues of their own, bounded in bytes
//! and in age, in which prompt packets go first.
//!
//! A slow way fills its own queue and nobody else's, and what comes out late is dropped instead: a robot's reading is
//! worth nothing after a quarter of a second, and all that follows would wait for it. Urgent datagrams never come here.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ria_core::{Class, Lane, SocketIndex, Transmit, Treatment};

use super::udp::Sent;

/// What is older is dropped: prompt packets, and others. A burst of a camera or a laser scanner is some hundred KiB, and a
/// TCP stream keeps a link busy with as much waiting.
pub const MAX_AGE: Duration = Duration::from_millis(100);
pub const MAX_AGE_BULK: Duration = Duration::from_millis(250);

/// Most bytes that wait for one peer in each class: at 20 Mbit/s about what goes out within the age above. The oldest make
/// room.
pub const MAX_BYTES: usize = 256 * 1024;
pub const MAX_BYTES_BULK: usize = 640 * 1024;

/// Most peers, or ways to them, for which something waits.
const MAX_LANES: usize = 64;

/// Buffers that are kept for reuse; each grows to 64 KiB in time.
const SPARE: usize = 16;

/// The queues of all peers.
#[derive(Debug, Default)]
pub struct Backlog {
    /// In the order of their turns.
    queues: VecDeque<Queues>,
    spare: Vec<Vec<u8>>,
    /// Datagrams that were too old when their turn came.
    pub stale: u64,
    /// Datagrams that had to make room.
    pub full: u64,
}

/// What waits for one peer on one way.
#[derive(Debug)]
struct Queues {
    to: SocketAddr,
    from: Option<IpAddr>,
    socket: SocketIndex,
    lane: Lane,
    prompt: Queue,
    bulk: Queue,
}

#[derive(Debug, Default)]
struct Queue {
    runs: VecDeque<Run>,
    bytes: usize,
}

/// Datagrams that are sent together.
#[derive(Debug)]
struct Run {
    contents: Vec<u8>,
    /// How much of it has gone out.
    sent: usize,
    segment_size: usize,
    treatment: Treatment,
    at: Instant,
}

impl Run {
    fn rest(&self) -> &[u8] {
        self.contents.get(self.sent..).unwrap_or_default()
    }

    fn count(&self) -> u64 {
        self.rest().len().div_ceil(self.segment_size.max(1)) as u64
    }
}

impl Queues {
    fn new(transmit: &Transmit<'_>) -> Self {
        let Transmit { to, from, socket, lane, .. } = *transmit;
        Self { to, from, socket, lane, prompt: Queue::default(), bulk: Queue::default() }
    }

    fn lead(&self, transmit: &Transmit<'_>) -> bool {
        (self.to, self.from, self.socket, self.lane)
            == (transmit.to, transmit.from, transmit.socket, transmit.lane)
    }

    fn queue(&self, class: Class) -> &Queue {
        if class == Class::Bulk { &self.bulk } else { &self.prompt }
    }

    fn queue_mut(&mut self, class: Class) -> &mut Queue {
        if class == Class::Bulk { &mut self.bulk } else { &mut self.prompt }
    }

    fn is_empty(&self) -> bool {
        self.prompt.runs.is_empty() && self.bulk.runs.is_empty()
    }

    /// Sends what it can of a class, up to one run. Busy when something of it has to wait.
    fn send(
        &mut self,
        class: Class,
        spare: &mut Vec<Vec<u8>>,
        send: &mut impl FnMut(&mut Transmit<'_>) -> Sent,
    ) -> Sent {
        let (to, from, socket, lane) = (self.to, self.from, self.socket, self.lane);
        let queue = self.queue_mut(class);
        let Some(run) = queue.runs.front_mut() else { return Sent::Done };
        let before = run.rest().len();
        let Run { segment_size, treatment, .. } = *run;
        let contents = run.rest();
        let mut transmit = Transmit { to, from, socket, class, lane, treatment, segment_size, contents };
        let outcome = send(&mut transmit);
        let left = if outcome == Sent::Done { 0 } else { transmit.contents.len() };
        run.sent += before - left;
        queue.bytes -= before - left;
        if outcome == Sent::Done {
            queue.runs.pop_front().into_iter().for_each(|run| recycle(spare, run));
        }
        outcome
    }
}

impl Queue {
    /// Drops what is too old; how many datagrams that were.
    fn expire(&mut self, age: Duration, now: Instant, spare: &mut Vec<Vec<u8>>) -> u64 {
        let mut count = 0;
        while let Some(run) = self.runs.pop_front_if(|run| now.saturating_duration_since(run.at) > age) {
            self.bytes -= run.rest().len();
            count += run.count();
            recycle(spare, run);
        }
        count
    }
}

impl Backlog {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Whether something waits that this has to wait behind.
    pub fn holds(&self, transmit: &Transmit<'_>) -> bool {
        let queues = self.queues.iter().find(|queues| queues.lead(transmit));
        queues.is_some_and(|queues| !queues.queue(transmit.class).runs.is_empty())
    }

    /// Takes a copy of what could not be sent.
    pub fn push(&mut self, transmit: &Transmit<'_>, now: Instant) {
        let mut contents = self.spare.pop().unwrap_or_default();
        contents.extend_from_slice(transmit.contents);
        let Transmit { segment_size, treatment, .. } = *transmit;
        let run = Run { contents, sent: 0, segment_size, treatment, at: now };
        let index = match self.queues.iter().position(|queues| queues.lead(transmit)) {
            Some(index) => index,
            None if self.queues.len() >= MAX_LANES => {
                self.full += run.count();
                return recycle(&mut self.spare, run);
            }
            None => {
                self.queues.push_back(Queues::new(transmit));
                self.queues.len() - 1
            }
        };
        let most = if transmit.class == Class::Bulk { MAX_BYTES_BULK } else { MAX_BYTES };
        let Some(queues) = self.queues.get_mut(index) else { return };
        let queue = queues.queue_mut(transmit.class);
        queue.bytes += run.rest().len();
        queue.runs.push_back(run);
        while queue.bytes > most {
            let Some(oldest) = queue.runs.pop_front() else { break };
            queue.bytes -= oldest.rest().len();
            self.full += oldest.count();
            recycle(&mut self.spare, oldest);
        }
    }

    /// Sends what it can, a run for each peer in turn and what is prompt first, until `send` is busy for each or nothing is
    /// left.
    pub fn drain(&mut self, now: Instant, mut send: impl FnMut(&mut Transmit<'_>) -> Sent) {
        let mut busy = 0;
        while busy < self.queues.len() {
            let Some(mut queues) = self.queues.pop_front() else { return };
            self.stale += queues.prompt.expire(MAX_AGE, now, &mut self.spare);
            self.stale += queues.bulk.expire(MAX_AGE_BULK, now, &mut self.spare);
            let mut outcome = Sent::Done;
            while outcome == Sent::Done && !queues.prompt.runs.is_empty() {
                outcome = queues.send(Class::Prompt, &mut self.spare, &mut send);
            }
            if outcome == Sent::Done {
                outcome = queues.send(Class::Bulk, &mut self.spare, &mut send);
            }
            busy = if outcome == Sent::Busy { busy + 1 } else { 0 };
            if !queues.is_empty() {
                self.queues.push_back(queues);
            }
        }
    }
}

fn recycle(spare: &mut Vec<Vec<u8>>, mut run: Run) {
    if spare.len() < SPARE {
        run.contents.clear();
        spare.push(run.contents);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmit(port: u16, class: Class, contents: &[u8]) -> Transmit<'_> {
        let (to, lane) = (SocketAddr::from(([192, 0, 2, 1], port)), Lane::default());
        let (socket, treatment) = (SocketIndex::MAIN, Treatment::default());
        Transmit { to, from: None, socket, class, lane, treatment, segment_size: 1000, contents }
    }

    fn bulk(port: u16, contents: &[u8]) -> Transmit<'_> {
        transmit(port, Class::Bulk, contents)
    }

    /// Drains at most `most` datagrams of each port; their ports and first bytes.
    fn drained(backlog: &mut Backlog, now: Instant, most: usize) -> Vec<(u16, u8)> {
        let mut sent: Vec<(u16, u8)> = Vec::new();
        backlog.drain(now, |transmit| {
            let port = transmit.to.port();
            while !transmit.contents.is_empty() {
                if sent.iter().filter(|(to, _)| *to == port).count() == most {
                    return Sent::Busy;
                }
                sent.push((port, transmit.contents[0]));
                transmit.contents = &transmit.contents[1000.min(transmit.contents.len())..];
            }
            Sent::Done
        });
        sent
    }

    #[test]
    fn peers_take_turns_and_a_run_goes_on_where_it_stopped() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let run = [[1; 1000], [2; 1000], [3; 1000]].concat();
        backlog.push(&bulk(1, &run), now);
        backlog.push(&bulk(1, &[4; 10]), now);
        backlog.push(&bulk(2, &[5; 10]), now);
        assert!(backlog.holds(&bulk(2, &[])) && !backlog.holds(&bulk(3, &[])));
        assert_eq!(drained(&mut backlog, now, 2), [(1, 1), (1, 2), (2, 5)], "a slow one holds up nobody");
        assert_eq!(drained(&mut backlog, now, 9), [(1, 3), (1, 4)]);
        assert!(backlog.is_empty() && (backlog.stale, backlog.full) == (0, 0));
    }

    #[test]
    fn prompt_packets_go_first_and_don_t_wait_behind_others() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        backlog.push(&bulk(1, &[1; 10]), now);
        assert!(!backlog.holds(&transmit(1, Class::Prompt, &[])));
        backlog.push(&transmit(1, Class::Prompt, &[2; 10]), now);
        backlog.push(&transmit(1, Class::Prompt, &[3; 10]), now);
        assert_eq!(drained(&mut backlog, now, 9), [(1, 2), (1, 3), (1, 1)]);
    }

    #[test]
    fn what_is_too_old_or_too_much_is_dropped_and_counted_for_its_peer_alone() {
        let (mut backlog, then) = (Backlog::default(), Instant::now());
        backlog.push(&bulk(2, &[9; 10]), then);
        let now = then + MAX_AGE_BULK;
        let fit = (MAX_BYTES_BULK / 1000) as u64;
        for n in 0..fit + 10 {
            backlog.push(&bulk(1, &[n as u8; 1000]), now);
        }
        assert_eq!(backlog.full, 10);
        assert_eq!(drained(&mut backlog, now, 1), [(2, 9), (1, 10)], "the oldest have made room");
        let late = now + MAX_AGE_BULK + Duration::from_millis(1);
        assert!(drained(&mut backlog, late, 9).is_empty());
        assert_eq!((backlog.stale, backlog.is_empty()), (fit - 1, true));
    }
}
