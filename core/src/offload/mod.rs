//! Segmentation and coalescing of inner packets: many packets per system call of a TUN device.
//!
//! With offloads on, Linux hands out TCP and UDP in *super-packets* of up to 64 KiB, and takes such ones, each behind a
//! virtio-net header ([`virtio`]). What leaves towards the overlay must be packets of its MTU: [`segment()`] cuts them, in
//! place. What came from the overlay is put together again: [`coalesce`] groups packets of one flow, without moving a
//! byte of their payload. Either way the tunnel carries plain IP packets, so the other end need not know.
//!
//! Works on bytes only; reading and writing the device is the caller's.

mod checksum;
mod coalesce;
mod headers;
mod segment;
#[cfg(test)]
mod tests;
mod virtio;

pub use coalesce::{Coalescer, Group, MAX_PARTS};
pub use segment::{SegmentError, segment};
pub use virtio::VIRTIO_HEADER;
