//! Reading from and writing to an overlay interface in frames: packets, or super-packets where the kernel has offloads.
//!
//! Owns the buffers, made once and shared by all interfaces of a thread. What a frame looks like is `ria_core::offload`'s.

use std::io::{self, IoSlice};

use ria_core::offload::{Coalescer, MAX_PARTS, VIRTIO_HEADER, segment};
use ria_core::{Frame, NetworkPackets, PacketSource};
use tun_rs::{AsyncDevice, SyncDevice};

/// Frames taken from one interface per turn. Plain packets: 64 of them are 80 KiB at the usual MTU and encrypt in 0.1 ms.
const FRAMES: usize = 64;

/// Bytes taken from one interface per turn, so that super-packets don't keep the other direction waiting: a millisecond
/// at 2 Gbit/s.
const TURN_BYTES: usize = 256 << 10;

/// The longest frame: a super-packet of 64 KiB behind its header.
const FRAME_LEN: usize = VIRTIO_HEADER + 65_535;

/// An overlay interface with what its kernel can do.
pub struct PacketDevice {
    device: AsyncDevice,
    /// Frames carry virtio-net headers, so TCP comes and goes in super-packets.
    offload: bool,
    /// UDP too (Linux 6.2 and later).
    udp: bool,
    /// Where the kernel counts what its queue for the interface had no room for.
    counter: String,
}

impl PacketDevice {
    /// Must be called within the runtime that is to wait for it.
    pub fn new(device: SyncDevice) -> io::Result<Self> {
        let (offload, udp) = (device.tcp_gso(), device.udp_gso());
        let counter = format!("/sys/class/net/{}/statistics/tx_dropped", device.name()?);
        Ok(Self { device: AsyncDevice::new(device)?, offload, udp, counter })
    }

    /// Packets that the kernel dropped before they were read.
    pub fn overflowed(&self) -> u64 {
        std::fs::read_to_string(&self.counter).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// The device, to wait for.
    pub fn device(&self) -> &AsyncDevice {
        &self.device
    }

    /// Writes packets; returns how many the interface did not take.
    pub fn write(&self, packets: &mut NetworkPackets, coalescer: &mut Coalescer) -> u64 {
        if !self.offload {
            return packets.iter().filter(|packet| self.device.try_send(packet).is_err()).count() as u64;
        }
        let buffers = packets.buffers_mut();
        coalescer.plan(buffers, self.udp);
        let mut refused = 0;
        for group in coalescer.groups() {
            let mut slices = [IoSlice::new(&[]); MAX_PARTS];
            let mut count = 0;
            for (slice, part) in slices.iter_mut().zip(coalescer.parts(group, buffers)) {
                *slice = IoSlice::new(part);
                count += 1;
            }
            if self.device.try_send_vectored(slices.get(..count).unwrap_or_default()).is_err() {
                refused += count as u64;
            }
        }
        refused
    }
}

/// Frames that were read, and the memory for them.
pub struct Frames {
    /// One piece, in which a turn's frames lie one behind the other: with a place of its own for each, every place would
    /// have held a super-packet in the end.
    memory: Vec<u8>,
    lengths: [usize; FRAMES],
    count: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { memory: vec![0; TURN_BYTES + FRAME_LEN], lengths: [0; FRAMES], count: 0 }
    }
}

impl Frames {
    /// Reads what is there, up to a turn's worth. Returns whether there was anything.
    pub fn read(&mut self, from: &PacketDevice) -> bool {
        self.count = 0;
        let mut bytes = 0;
        for length in &mut self.lengths {
            let Some(buffer) = self.memory.get_mut(bytes..bytes + FRAME_LEN) else { break };
            let read = if from.offload {
                from.device.try_recv(buffer)
            } else {
                // An empty header says that a plain packet follows.
                let (header, packet) = buffer.split_at_mut(VIRTIO_HEADER);
                header.fill(0);
                from.device.try_recv(packet).map(|read| VIRTIO_HEADER + read)
            };
            match read {
                Ok(read) => *length = read,
                // Nothing there; or the interface was taken away, which the agent's loop notices by netlink.
                Err(_) => break,
            }
            self.count += 1;
            bytes += *length;
            if bytes >= TURN_BYTES {
                break;
            }
        }
        self.count > 0
    }
}

impl PacketSource for &mut Frames {
    fn drain_but(self, mut elsewhere: impl FnMut(Frame<'_>) -> bool, mut each: impl FnMut(&[u8])) -> usize {
        let mut rest = &mut self.memory[..];
        let mut unreadable = 0;
        for length in self.lengths.iter().take(self.count) {
            let Some((frame, behind)) = rest.split_at_mut_checked(*length) else { break };
            rest = behind;
            if !elsewhere(Frame::Virtio(frame)) {
                unreadable += usize::from(segment(frame, &mut each).is_err());
            }
        }
        unreadable
    }
}
