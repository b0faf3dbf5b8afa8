//! Packets that the kernel has no room for: for each destination a queue of its own, bounded in bytes and in age.
//!
//! A slow way fills its own queue and nobody else's, and what comes out late is dropped instead: a robot's reading is
//! worth nothing after a tenth of a second, and all that follows would wait for it. Urgent datagrams never come here.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ria_core::{SocketIndex, Transmit};

use super::udp::Sent;

/// What is older is dropped.
pub const MAX_AGE: Duration = Duration::from_millis(100);

/// Most bytes that wait for one destination: at 20 Mbit/s what goes out within the age above. The oldest make room.
pub const MAX_BYTES: usize = 256 * 1024;

/// Most destinations for which something waits.
const MAX_LANES: usize = 64;

/// Buffers that are kept for reuse.
const SPARE: usize = 64;

/// The queues of all destinations.
#[derive(Debug, Default)]
pub struct Backlog {
    /// In the order of their turns.
    lanes: VecDeque<Lane>,
    spare: Vec<Vec<u8>>,
    /// Datagrams that were too old when their turn came.
    pub stale: u64,
    /// Datagrams that had to make room.
    pub full: u64,
}

/// What waits for one destination.
#[derive(Debug)]
struct Lane {
    to: SocketAddr,
    from: Option<IpAddr>,
    socket: SocketIndex,
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

impl Lane {
    fn leads(&self, transmit: &Transmit<'_>) -> bool {
        (self.to, self.from, self.socket) == (transmit.to, transmit.from, transmit.socket)
    }
}

impl Backlog {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether something waits for the same destination, so that this has to wait behind it.
    pub fn holds(&self, transmit: &Transmit<'_>) -> bool {
        self.lanes.iter().any(|lane| lane.leads(transmit))
    }

    /// Takes a copy of what could not be sent.
    pub fn push(&mut self, transmit: &Transmit<'_>, now: Instant) {
        let mut contents = self.spare.pop().unwrap_or_default();
        contents.extend_from_slice(transmit.contents);
        let run = Run { contents, sent: 0, segment_size: transmit.segment_size, at: now };
        let index = match self.lanes.iter().position(|lane| lane.leads(transmit)) {
            Some(index) => index,
            None if self.lanes.len() >= MAX_LANES => {
                self.full += run.count();
                return recycle(&mut self.spare, run);
            }
            None => {
                let Transmit { to, from, socket, .. } = *transmit;
                self.lanes.push_back(Lane { to, from, socket, runs: VecDeque::new(), bytes: 0 });
                self.lanes.len() - 1
            }
        };
        let Some(lane) = self.lanes.get_mut(index) else { return };
        lane.bytes += run.rest().len();
        lane.runs.push_back(run);
        while lane.bytes > MAX_BYTES {
            let Some(oldest) = lane.runs.pop_front() else { break };
            lane.bytes -= oldest.rest().len();
            self.full += oldest.count();
            recycle(&mut self.spare, oldest);
        }
    }

    /// Sends what it can, a run for each destination in turn, until `send` is busy or nothing is left.
    pub fn drain(&mut self, now: Instant, mut send: impl FnMut(&mut Transmit<'_>) -> Sent) {
        while let Some(mut lane) = self.lanes.pop_front() {
            while let Some(run) =
                lane.runs.pop_front_if(|run| now.saturating_duration_since(run.at) > MAX_AGE)
            {
                lane.bytes -= run.rest().len();
                self.stale += run.count();
                recycle(&mut self.spare, run);
            }
            let Some(run) = lane.runs.front_mut() else { continue };
            let (to, from, socket) = (lane.to, lane.from, lane.socket);
            let before = run.rest().len();
            let (segment_size, contents) = (run.segment_size, run.rest());
            let mut transmit = Transmit { to, from, socket, urgent: false, segment_size, contents };
            let outcome = send(&mut transmit);
            let left = if outcome == Sent::Done { 0 } else { transmit.contents.len() };
            run.sent += before - left;
            lane.bytes -= before - left;
            if outcome == Sent::Busy {
                return self.lanes.push_front(lane);
            }
            lane.runs.pop_front().into_iter().for_each(|run| recycle(&mut self.spare, run));
            if !lane.runs.is_empty() {
                self.lanes.push_back(lane);
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

    fn transmit(port: u16, contents: &[u8]) -> Transmit<'_> {
        let to = SocketAddr::from(([192, 0, 2, 1], port));
        Transmit { to, from: None, socket: SocketIndex::MAIN, urgent: false, segment_size: 1000, contents }
    }

    /// Drains at most `most` datagrams; their ports and first bytes.
    fn drained(backlog: &mut Backlog, now: Instant, most: usize) -> Vec<(u16, u8)> {
        let mut sent = Vec::new();
        backlog.drain(now, |transmit| {
            while !transmit.contents.is_empty() {
                if sent.len() == most {
                    return Sent::Busy;
                }
                sent.push((transmit.to.port(), transmit.contents[0]));
                transmit.contents = &transmit.contents[1000.min(transmit.contents.len())..];
            }
            Sent::Done
        });
        sent
    }

    #[test]
    fn destinations_take_turns_and_a_run_goes_on_where_it_stopped() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let run = [[1; 1000], [2; 1000], [3; 1000]].concat();
        backlog.push(&transmit(1, &run), now);
        backlog.push(&transmit(1, &[4; 10]), now);
        backlog.push(&transmit(2, &[5; 10]), now);
        assert!(backlog.holds(&transmit(2, &[])) && !backlog.holds(&transmit(3, &[])));
        assert_eq!(drained(&mut backlog, now, 2), [(1, 1), (1, 2)]);
        assert_eq!(drained(&mut backlog, now, 9), [(1, 3), (2, 5), (1, 4)]);
        assert!(backlog.is_empty() && (backlog.stale, backlog.full) == (0, 0));
    }

    #[test]
    fn what_is_too_old_or_too_much_is_dropped_and_counted_for_its_destination_alone() {
        let (mut backlog, then) = (Backlog::default(), Instant::now());
        backlog.push(&transmit(2, &[9; 10]), then);
        let now = then + MAX_AGE;
        let fit = (MAX_BYTES / 1000) as u64;
        for n in 0..fit + 10 {
            backlog.push(&transmit(1, &[n as u8; 1000]), now);
        }
        assert_eq!(backlog.full, 10);
        assert_eq!(drained(&mut backlog, now, 2), [(2, 9), (1, 10)], "the oldest have made room");
        assert!(drained(&mut backlog, now + MAX_AGE + Duration::from_millis(1), 9).is_empty());
        assert_eq!((backlog.stale, backlog.is_empty()), (fit - 1, true));
    }
}
