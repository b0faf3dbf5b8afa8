//! The work of a box that is a router: its [`Gateway`] between ports 0 (inside) and 1 (outside).

use std::time::Instant;

use super::Work;
use super::port::Frame;
use crate::gateway::Gateway;
use crate::nat::{Dropped, Side};
use crate::packet::checksum;

/// Flag of `struct virtio_net_hdr`: the checksum has yet to be completed.
const NEEDS_CHECKSUM: u8 = 1;

/// A router that runs.
#[derive(Debug)]
pub struct Router {
    gateway: Gateway,
}

impl Router {
    /// Around a router's rules.
    pub fn new(gateway: Gateway) -> Self {
        Self { gateway }
    }

    /// The rules.
    pub fn gateway(&mut self) -> &mut Gateway {
        &mut self.gateway
    }
}

impl Work for Router {
    fn handle_frame(&mut self, port: usize, mut frame: Frame, now: Instant) {
        if complete(&mut frame) {
            let from = if port == 0 { Side::Inside } else { Side::Outside };
            self.gateway.handle_frame(from, frame.bytes, now);
        } else {
            self.gateway.nat().count(Dropped::Malformed);
        }
    }

    fn poll_frames(&mut self, now: Instant, out: &mut [Vec<Frame>; 2]) {
        if self.gateway.next_due().is_some_and(|due| due <= now) {
            self.gateway.handle_time(now);
        }
        for (side, out) in [Side::Inside, Side::Outside].into_iter().zip(out) {
            out.extend(self.gateway.poll_frames(side).map(|bytes| Frame { bytes, ..Frame::default() }));
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.gateway.next_due()
    }
}

/// Completes the checksum that the sender's kernel left to the hardware. False for what is no single, whole frame.
fn complete(frame: &mut Frame) -> bool {
    let [flags, segments, _, _, _, _, start @ .., offset_low, offset_high] = frame.offload;
    if segments != 0 {
        return false;
    }
    if flags & NEEDS_CHECKSUM == 0 {
        return true;
    }
    let start = usize::from(u16::from_ne_bytes(start));
    let offset = usize::from(u16::from_ne_bytes([offset_low, offset_high]));
    let Some(part) = frame.bytes.get_mut(start..) else { return false };
    // The field holds the sum of the addresses, which is why it is summed up, too. Zero would mean "none" to UDP.
    let sum = match checksum::of(part) {
        0 => 0xffff,
        sum => sum,
    };
    let Some(field) = part.get_mut(offset..).and_then(|rest| rest.first_chunk_mut::<2>()) else {
        return false;
    };
    *field = sum.to_be_bytes();
    frame.offload = Default::default();
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::build;

    #[test]
    fn a_checksum_that_was_left_to_the_hardware_is_completed() {
        let whole = build::udp("10.0.0.1:7".parse().unwrap(), "10.0.0.2:9".parse().unwrap(), b"hello");
        let mut bytes = vec![0; 14];
        bytes.extend(&whole);
        // As a kernel leaves it: the sum of addresses, protocol and length, not complemented.
        let pseudo = !checksum::finish(checksum::add(17 + 13, &whole[12..20]));
        bytes[40..42].copy_from_slice(&pseudo.to_be_bytes());
        let mut offload = [0; 10];
        offload[0] = NEEDS_CHECKSUM;
        offload[6..8].copy_from_slice(&34_u16.to_ne_bytes());
        offload[8..].copy_from_slice(&6_u16.to_ne_bytes());
        let mut frame = Frame { offload, bytes };
        assert!(complete(&mut frame));
        assert_eq!((&frame.bytes[14..], frame.offload), (&whole[..], [0; 10]));

        for (at, value) in [(1, 1), (6, 0xff), (8, 0xff)] {
            let mut wrong = Frame { offload, bytes: whole.clone() };
            wrong.offload[at] = value;
            assert!(!complete(&mut wrong), "batches, and places outside of the frame");
        }
    }
}
