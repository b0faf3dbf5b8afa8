//! Clients that speak to the relay over TCP, with TLS or without: the relay's list of them, and what moves their bytes.
//!
//! ```text
//!   stream ── task: frames in ──► news ──► relay's loop ──► queue ──► task: frames out ──► stream
//! ```
//!
//! An allocation ends with its stream (RFC 8656, section 3.1), and a stream with its allocation. Whoever has none holds a
//! slot of the accept gate, and loses the stream after [`UNBOUND`].

pub(in crate::relay) mod framing;
mod queue;
mod serve;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use super::counters::{Counters, DropReason};
use super::server::{Tuple, Via};
use crate::accept_gate::AnonymousSlot;
use queue::Queue;

pub use serve::StreamDoor;

/// How long a client may be without an allocation.
const UNBOUND: Duration = Duration::from_secs(20);

/// How often streams are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Messages that streams may be ahead of the relay; then they read no more.
pub(super) const BACKLOG: usize = 64;

/// What was sent and is not acknowledged for so long ends the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// A connection in which nothing is said is asked for a sign of life this often.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How much the kernel takes beyond what is under way. More would only wait there, where its age is not seen.
const UNSENT: u32 = 64 * 1024;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The relay's address.
    pub local: IpAddr,
    /// The client's.
    pub remote: SocketAddr,
    /// Whether each message must have a TLS record to itself: there are clients, those of coturn among them, that take the
    /// first message of a record and lose the others.
    pub one_by_one: bool,
}

/// What streams tell the relay.
#[derive(Debug)]
pub(super) enum StreamNews {
    /// There is another one.
    Opened(Box<NewStream>),
    /// Whole frames came on the one of this number.
    Frames(u64, BytesMut),
    /// It has ended.
    Closed(u64),
}

/// A client that has just come.
#[derive(Debug)]
pub(super) struct NewStream {
    number: u64,
    ends: Ends,
    queue: Queue,
    slot: Option<AnonymousSlot>,
}

#[derive(Debug)]
struct Stream {
    tuple: Tuple,
    queue: Queue,
    /// Given back when the client has shown who it is.
    slot: Option<AnonymousSlot>,
    since: Instant,
    has_allocation: bool,
}

/// The relay's streams.
#[derive(Debug)]
pub(super) struct Streams {
    open: HashMap<u64, Stream>,
    /// Those into which something was put since the last flush.
    touched: Vec<u64>,
    look_at: Option<Instant>,
    counters: Arc<Counters>,
}

impl Streams {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { open: HashMap::new(), touched: Vec::new(), look_at: None, counters }
    }

    pub(super) fn add(&mut self, new: NewStream, now: Instant) {
        let NewStream { number, ends, queue, slot } = new;
        let tuple = Tuple { via: Via::Stream(number), local: ends.local, remote: ends.remote };
        self.open.insert(number, Stream { tuple, queue, slot, since: now, has_allocation: false });
        self.look_at.get_or_insert(now + LOOK_EVERY);
        self.counters.set_streams(self.open.len());
    }

    /// Forgets a stream; whose it was.
    pub(super) fn remove(&mut self, number: u64) -> Option<Tuple> {
        let stream = self.open.remove(&number)?;
        self.counters.set_streams(self.open.len());
        Some(stream.tuple)
    }

    pub(super) fn tuple(&self, number: u64) -> Option<Tuple> {
        self.open.get(&number).map(|stream| stream.tuple)
    }

    /// Whether its client is known to have an allocation.
    pub(super) fn has_allocation(&self, number: u64) -> bool {
        self.open.get(&number).is_some_and(|stream| stream.has_allocation)
    }

    /// Its client has an allocation: it is no stranger any more.
    pub(super) fn set_allocated(&mut self, number: u64) {
        if let Some(stream) = self.open.get_mut(&number) {
            stream.has_allocation = true;
            stream.slot = None;
            stream.queue.set_allocated();
        }
    }

    /// Puts a datagram in for a client. One that is an answer to its own request lasts.
    pub(super) fn push(&mut self, number: u64, datagram: &[u8], lasting: bool, now: Instant) {
        let Some(stream) = self.open.get_mut(&number) else {
            return self.counters.dropped(DropReason::PeerGone, 1);
        };
        if !stream.queue.push(datagram, lasting, now) {
            self.counters.dropped(DropReason::StreamFull, 1);
        } else if !self.touched.contains(&number) {
            self.touched.push(number);
        }
    }

    /// Hands over what was put in.
    pub(super) fn flush(&mut self) {
        for number in self.touched.drain(..) {
            if let Some(stream) = self.open.get_mut(&number) {
                stream.queue.flush();
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }

    /// Ends streams whose allocation is gone, and those that have been without one for long.
    pub(super) fn end_unbound(&mut self, has_allocation: impl Fn(&Tuple) -> bool, now: Instant) {
        self.open.retain(|_, stream| {
            let fresh = !stream.has_allocation && now < stream.since + UNBOUND;
            fresh || has_allocation(&stream.tuple)
        });
        self.look_at = (!self.open.is_empty()).then(|| now + LOOK_EVERY);
        self.counters.set_streams(self.open.len());
    }
}

/// Whether a stream that begins with this byte is TURN: the first message of a client is a request.
pub fn begins_turn(first: u8) -> bool {
    first < 0x04
}

/// Nothing waits in the kernel, and a dead connection is noticed.
pub fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}

#[cfg(test)]
mod tests;
