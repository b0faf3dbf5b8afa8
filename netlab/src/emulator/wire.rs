//! The work of a box that is a link: a lane for each direction. Port 0 is the node's end, port 1 the network's.

use std::time::{Duration, Instant};

use super::Work;
use super::port::Frame;
use crate::link::lane::{Counters, Lane};
use crate::link::{Direction, Link};

/// An emulated link.
#[derive(Debug)]
pub struct Wire {
    up: Lane<Frame>,
    down: Lane<Frame>,
}

impl Wire {
    /// A link of this quality.
    pub fn new(link: &Link) -> Self {
        // Two unlike streams of random numbers from one seed.
        let [up, down] = [link.seed.wrapping_mul(2), link.seed.wrapping_mul(2).wrapping_add(1)];
        Self { up: Lane::new(link.up, up), down: Lane::new(link.down, down) }
    }

    /// Changes the quality.
    pub fn set(&mut self, link: &Link) {
        self.up.set(link.up);
        self.down.set(link.down);
    }

    /// Lets nothing pass for a while, both ways or one.
    pub fn black_out(&mut self, direction: Option<Direction>, time: Duration, now: Instant) {
        for (lane, way) in [(&mut self.up, Direction::Up), (&mut self.down, Direction::Down)] {
            if direction.is_none_or(|direction| direction == way) {
                lane.black_out(Some(now + time));
            }
        }
    }

    /// What became of frames, up and down.
    pub fn counters(&self) -> (Counters, Counters) {
        (self.up.counters(), self.down.counters())
    }
}

impl Work for Wire {
    fn handle_frame(&mut self, port: usize, frame: Frame, now: Instant) {
        let lane = if port == 0 { &mut self.up } else { &mut self.down };
        let bytes = frame.bytes.len();
        lane.push(frame, bytes, now);
    }

    fn poll_frames(&mut self, now: Instant, out: &mut [Vec<Frame>; 2]) {
        let [to_node, to_network] = out;
        to_network.extend(std::iter::from_fn(|| self.up.poll(now)));
        to_node.extend(std::iter::from_fn(|| self.down.poll(now)));
    }

    fn next_due(&self) -> Option<Instant> {
        [self.up.next_due(), self.down.next_due()].into_iter().flatten().min()
    }
}
