//! The agent's UDP sockets: what arrives as the engine takes it, and what may leave of a run now.
//!
//! One has the agent's port and carries nearly everything; others exist only while several networks use one relay. How
//! datagrams come and go in batches is `ria-datagrams`'.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Instant;

use ria_core::{Class, Ecn, Received, Transmit};
use ria_datagrams::{Buffers, Granted, Message, Socket, kernel};

use super::room::Room;
use super::urgent;

/// Asked for in both directions: a burst of a few milliseconds at 1 Gbit/s.
pub const SOCKET_BUFFER: usize = 4 << 20;

/// Receive buffers. Each takes a whole GRO run, and memory is only touched when one comes.
const BUFFERS: usize = 8;

/// The kernel is asked how much it holds when so much was sent since.
const ASK_AFTER: usize = 64 * 1024;

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no UDP port can be opened: {0}")]
pub struct BindError(#[from] io::Error);

/// A bound socket, before it is given to the thread that moves packets.
pub struct BoundUdp {
    socket: std::net::UdpSocket,
    /// Its port.
    pub port: u16,
    /// Whether another port than the wanted one had to be taken.
    pub displaced: bool,
    /// The buffers that it has.
    pub granted: Granted,
}

/// Binds to all addresses, IPv6 and IPv4, or IPv4 alone where there is no IPv6; to any port when `port` is taken.
pub fn bind(port: u16) -> Result<BoundUdp, BindError> {
    let (socket, displaced) = match bind_to(port) {
        Ok(socket) => (socket, false),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && port != 0 => (bind_to(0)?, true),
        Err(error) => return Err(error.into()),
    };
    let (port, granted) = (socket.local_addr()?.port(), Granted::of(&socket));
    Ok(BoundUdp { socket, port, displaced, granted })
}

fn bind_to(port: u16) -> io::Result<std::net::UdpSocket> {
    let open = |address| ria_datagrams::open(address, true, SOCKET_BUFFER);
    open(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).or_else(|error| {
        let is_taken = error.kind() == io::ErrorKind::AddrInUse;
        if is_taken { Err(error) } else { open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))) }
    })
}

/// What to tell of a socket that got smaller buffers than were asked for.
pub fn shortage(granted: Granted) -> Option<String> {
    let kib = |bytes: usize| bytes / 1024;
    (!granted.covers(SOCKET_BUFFER)).then(|| {
        format!(
            "the tunnel's socket has room for {} KiB that arrive and {} KiB that are sent, of {} KiB that were asked for, so bursts \
             get lost (allow more on the host: sysctl -w net.core.rmem_max={SOCKET_BUFFER} net.core.wmem_max={SOCKET_BUFFER}; \
             then restart the agent)",
            kib(granted.receive),
            kib(granted.send),
            kib(SOCKET_BUFFER)
        )
    })
}

/// How sending ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The kernel has it, or never will (no route, too large): nothing more to do.
    Done,
    /// The kernel's queue is as full as it may be; try again a moment later.
    Busy,
}

/// The socket in the thread that moves packets.
pub struct Udp {
    socket: Socket,
    buffers: Buffers<BUFFERS>,
    /// How much may wait in the kernel.
    room: Room,
    /// Bytes that were sent since the kernel was asked how much waits.
    unasked: usize,
    /// Datagrams that the kernel refused.
    pub refused: u64,
}

impl Udp {
    /// Must be called within the runtime that is to wait for it.
    pub fn new(bound: BoundUdp) -> io::Result<Self> {
        let socket = Socket::new(bound.socket)?;
        // The kernel counts its own bookkeeping in, and gives twice the room for it.
        let room = Room::new(2 * bound.granted.send);
        Ok(Self { socket, buffers: Buffers::default(), room, unasked: 0, refused: 0 })
    }

    /// Waits until something is there.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(context)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.socket.local().port()
    }

    /// Datagrams that the kernel dropped since it had no room for them.
    pub fn overflowed(&self) -> u64 {
        kernel::overflowed(&self.socket)
    }

    /// Takes what is there; returns how many buffers were filled, 0 when none.
    pub fn receive(&mut self) -> usize {
        // Errors here are either "nothing there" or an ICMP message about an earlier datagram.
        self.socket.receive(&mut self.buffers).unwrap_or(0)
    }

    /// The datagrams of the first `count` buffers.
    pub fn received(&mut self, count: usize) -> impl Iterator<Item = Received<'_>> {
        self.buffers.runs(count).flat_map(|run| {
            let (from, local, ecn) = (run.from, run.local, Ecn::from_bits(run.ecn));
            let bytes: &[u8] = run.bytes;
            bytes.chunks(run.stride).map(move |data| Received { from, local, ecn, data })
        })
    }

    /// How much the first `count` buffers hold.
    pub fn received_bytes(&self, count: usize) -> usize {
        self.buffers.len_of(count)
    }

    /// Sends datagrams before what waits.
    pub fn send_urgent(&mut self, transmit: &Transmit<'_>) {
        let mut message = message(transmit);
        message.traffic_class = urgent::CLASS;
        for datagram in transmit.datagrams() {
            if urgent::is_astray(transmit.to, message.from, datagram) {
                continue;
            }
            message.segment_size = datagram.len();
            let sent = self.socket.send(&message, datagram);
            // A source address may be gone.
            let again = |_| self.socket.send(&Message { from: None, ..message }, datagram);
            if let Err(error) = sent.or_else(again) {
                tracing::trace!(to = %transmit.to, %error, "datagram refused");
                self.refused = self.refused.saturating_add(1);
            }
        }
    }

    /// Sends a run of datagrams, about as many bytes as are allowed and as long as not too many wait; what has been sent is
    /// taken off it.
    pub fn send(&mut self, transmit: &mut Transmit<'_>, allowed: usize, now: Instant) -> Sent {
        let segment = transmit.segment_size.max(1);
        let most = self.socket.most_at_once() * segment;
        let mut left = allowed;
        while !transmit.contents.is_empty() {
            // What is prompt is little, and would wait for nothing but this socket's own packets.
            let bounded = transmit.class == Class::Bulk && self.unasked >= ASK_AFTER;
            if left == 0 || bounded && !self.room.admits(kernel::held(&self.socket), now) {
                return Sent::Busy;
            }
            let most = most.min(left.div_ceil(segment).saturating_mul(segment));
            let (run, rest) = transmit.contents.split_at(most.min(transmit.contents.len()));
            left = left.saturating_sub(run.len());
            self.unasked = if self.unasked >= ASK_AFTER { run.len() } else { self.unasked + run.len() };
            match self.send_run(transmit, run) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sent::Busy,
                Err(error) => {
                    tracing::trace!(to = %transmit.to, %error, "datagram refused");
                    // Runs may be refused, and a source address may be gone.
                    let plain = Message { from: None, ..message(transmit) };
                    self.refused = self.refused.saturating_add(self.send_singly(transmit, &plain, run));
                }
            }
            transmit.contents = rest;
        }
        Sent::Done
    }

    fn send_run(&self, transmit: &Transmit<'_>, run: &[u8]) -> io::Result<()> {
        // Where the path does not carry them whole, the kernel cuts what the first link does not take, routers of IPv4 the rest.
        match transmit.treatment.fragments {
            true => self.socket.send_in_fragments(&message(transmit), run),
            false => self.socket.send(&message(transmit), run),
        }
    }

    /// How many of them failed.
    fn send_singly(&self, transmit: &Transmit<'_>, message: &Message, run: &[u8]) -> u64 {
        if !transmit.treatment.fragments {
            return self.socket.send_singly(message, run);
        }
        let each = run.chunks(message.segment_size.max(1));
        each.filter(|one| self.socket.send_in_fragments(message, one).is_err()).count() as u64
    }
}

fn message(transmit: &Transmit<'_>) -> Message {
    Message {
        to: transmit.to,
        from: transmit.from.filter(|ip| !ip.is_unspecified()),
        traffic_class: transmit.treatment.traffic_class,
        segment_size: transmit.segment_size,
    }
}

#[cfg(test)]
mod tests {
    use ria_core::DatagramBatch;

    use super::*;

    #[test]
    fn a_taken_port_is_replaced_and_said_so() {
        let first = bind(0).unwrap();
        assert!(!first.displaced);
        let second = bind(first.port).unwrap();
        assert!(second.displaced && second.port != first.port);
    }

    #[test]
    fn small_buffers_are_told_with_what_to_do() {
        let asked = Granted { receive: SOCKET_BUFFER, send: SOCKET_BUFFER };
        assert_eq!(shortage(asked), None);
        let told = shortage(Granted { receive: 212_992, ..asked }).unwrap();
        assert!(told.contains("208 KiB that arrive") && told.contains("net.core.rmem_max=4194304"), "{told}");
    }

    #[tokio::test]
    async fn runs_of_datagrams_arrive_whole_and_apart() {
        let (a, b) = (bind(0).unwrap(), bind(0).unwrap());
        let (port_a, port_b) = (a.port, b.port);
        let (mut a, mut b) = (Udp::new(a).unwrap(), Udp::new(b).unwrap());
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port_b));
        let mut batch = DatagramBatch::default();
        for n in 0..10u8 {
            assert!(batch.push(to, None, &[n; 300]));
        }
        assert!(batch.push(to, None, &[99; 20]));
        for mut transmit in batch.transmits() {
            assert_eq!(a.send(&mut transmit, usize::MAX, Instant::now()), Sent::Done);
        }
        let mut seen = Vec::new();
        while seen.len() < 11 {
            std::future::poll_fn(|context| b.poll_readable(context)).await.unwrap();
            let count = b.receive();
            seen.extend(b.received(count).map(|d| {
                assert_eq!((d.from.port(), d.local), (port_a, Some(Ipv4Addr::LOCALHOST.into())));
                (d.data[0], d.data.len())
            }));
        }
        let expected: Vec<_> = (0..10).map(|n| (n, 300)).chain([(99, 20)]).collect();
        assert_eq!((seen, a.refused), (expected, 0));
    }
}
