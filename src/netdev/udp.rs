//! The agent's UDP sockets: batches in (recvmmsg, GRO), runs of equal datagrams out (GSO).
//!
//! One has the agent's port and carries nearly everything; others exist only while several networks use one relay.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::task::{Context, Poll};
use std::time::Instant;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use ria_core::{Class, Ecn, Received, Transmit};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::room::Room;
use super::{marked, urgent};

/// Asked for in both directions: a burst of a few milliseconds at 1 Gbit/s.
const SOCKET_BUFFER: usize = 4 << 20;

/// Receive buffers. Each takes a whole GRO run, and memory is only touched when one comes.
const BUFFERS: usize = 8;
const BUFFER_LEN: usize = 65_535;

/// The bits of a traffic class that are ECN's.
const ECN_BITS: u8 = 3;

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
}

/// Binds to all addresses, IPv6 and IPv4, or IPv4 alone where there is no IPv6; to any port when `port` is taken.
pub fn bind(port: u16) -> Result<BoundUdp, BindError> {
    let (socket, displaced) = match bind_to(port) {
        Ok(socket) => (socket, false),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && port != 0 => (bind_to(0)?, true),
        Err(error) => return Err(error.into()),
    };
    let port = socket.local_addr()?.port();
    Ok(BoundUdp { socket, port, displaced })
}

fn bind_to(port: u16) -> io::Result<std::net::UdpSocket> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    open(Domain::IPV6, v6).or_else(|error| {
        if error.kind() == io::ErrorKind::AddrInUse { Err(error) } else { open(Domain::IPV4, v4) }
    })
}

fn open(domain: Domain, address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    enlarge_buffers(&socket);
    socket.bind(&SockAddr::from(address))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn enlarge_buffers(socket: &Socket) {
    // The forcing form needs CAP_NET_ADMIN and ignores the system's limit; without it, as much as the limit allows.
    if setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    }
    if setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    }
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
    socket: UdpSocket,
    state: UdpSocketState,
    v6: bool,
    /// All receive buffers in one piece, of which the kernel provides what is touched.
    memory: Vec<u8>,
    meta: [RecvMeta; BUFFERS],
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
        let socket = UdpSocket::from_std(bound.socket)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // It asks for time stamps, which nobody here reads and each datagram would pay for.
        let _ = setsockopt(&socket, sockopt::ReceiveTimestampns, &false);
        let v6 = socket.local_addr()?.is_ipv6();
        let memory = vec![0; BUFFERS * BUFFER_LEN];
        let room = Room::new(getsockopt(&socket, sockopt::SndBuf).unwrap_or(SOCKET_BUFFER));
        let meta = [RecvMeta::default(); BUFFERS];
        Ok(Self { socket, state, v6, memory, meta, room, unasked: 0, refused: 0 })
    }

    /// Waits until something is there.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv_ready(context)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.socket.local_addr().map_or(0, |address| address.port())
    }

    /// Datagrams that the kernel dropped since it had no room for them.
    pub fn overflowed(&self) -> u64 {
        urgent::overflowed(&self.socket)
    }

    /// Takes what is there; returns how many buffers were filled, 0 when none.
    pub fn receive(&mut self) -> usize {
        let mut slices = [const { None::<IoSliceMut<'_>> }; BUFFERS];
        for (slot, buffer) in slices.iter_mut().zip(self.memory.chunks_exact_mut(BUFFER_LEN)) {
            *slot = Some(IoSliceMut::new(buffer));
        }
        let mut slices = slices.map(|slot| slot.unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let (socket, state, meta) = (&self.socket, &self.state, &mut self.meta);
        let received =
            socket.try_io(Interest::READABLE, || state.recv(UdpSockRef::from(socket), &mut slices, meta));
        // Errors here are either "nothing there" or an ICMP message about an earlier datagram.
        received.unwrap_or(0)
    }

    /// The datagrams of the first `count` buffers.
    pub fn received(&self, count: usize) -> impl Iterator<Item = Received<'_>> {
        self.meta.iter().zip(self.memory.chunks_exact(BUFFER_LEN)).take(count).flat_map(|(meta, buffer)| {
            let from = canonical(meta.addr);
            let local = meta.dst_ip.map(|ip| ip.to_canonical());
            let ecn = meta.ecn.map_or(Ecn::NotEct, |mark| Ecn::from_bits(mark as u8));
            let data = buffer.get(..meta.len).unwrap_or_default();
            data.chunks(meta.stride.max(1)).map(move |data| Received { from, local, ecn, data })
        })
    }

    /// How much the first `count` buffers hold.
    pub fn received_bytes(&self, count: usize) -> usize {
        self.meta.iter().take(count).map(|meta| meta.len).sum()
    }

    /// Sends datagrams before what waits.
    pub fn send_urgent(&mut self, transmit: &Transmit<'_>) {
        let (to, from) = (self.outer(transmit.to), transmit.from.filter(|ip| !ip.is_unspecified()));
        for datagram in transmit.datagrams() {
            if urgent::is_astray(transmit.to, from, datagram) {
                continue;
            }
            let message =
                marked::Message { to, from, traffic_class: urgent::CLASS, segment_size: datagram.len() };
            let sent = marked::send(&self.socket, &message, datagram);
            // A source address may be gone.
            let again = |_| marked::send(&self.socket, &marked::Message { from: None, ..message }, datagram);
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
        let most = self.state.max_gso_segments().max(1) * segment;
        let mut left = allowed;
        while !transmit.contents.is_empty() {
            // What is prompt is little, and would wait for nothing but this socket's own packets.
            let bounded = transmit.class == Class::Bulk && self.unasked >= ASK_AFTER;
            if left == 0 || bounded && !self.room.admits(urgent::held(&self.socket), now) {
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
                    self.retry_singly(transmit, run);
                }
            }
            transmit.contents = rest;
        }
        Sent::Done
    }

    fn send_run(&self, transmit: &Transmit<'_>, run: &[u8]) -> io::Result<()> {
        let (traffic_class, segment_size) = (transmit.treatment.traffic_class, transmit.segment_size);
        if transmit.treatment.fragments {
            return self.send_in_fragments(transmit, run);
        }
        if traffic_class & !ECN_BITS != 0 {
            let from = transmit.from.filter(|ip| !ip.is_unspecified());
            let message = marked::Message { to: self.outer(transmit.to), from, traffic_class, segment_size };
            return marked::send(&self.socket, &message, run);
        }
        let message = quinn_udp::Transmit {
            destination: self.outer(transmit.to),
            ecn: EcnCodepoint::from_bits(traffic_class),
            contents: run,
            segment_size: (run.len() > segment_size).then_some(segment_size),
            src_ip: transmit.from.filter(|ip| !ip.is_unspecified()),
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &message)
    }

    /// The path does not carry these whole. The kernel cuts what the first link does not take, routers of IPv4 the rest.
    fn send_in_fragments(&self, transmit: &Transmit<'_>, run: &[u8]) -> io::Result<()> {
        let (to, from) = (self.outer(transmit.to), transmit.from.filter(|ip| !ip.is_unspecified()));
        let (traffic_class, segment_size) = (transmit.treatment.traffic_class, transmit.segment_size);
        let message = marked::Message { to, from, traffic_class, segment_size };
        marked::in_fragments(&self.socket, self.v6, || {
            run.chunks(segment_size.max(1))
                .try_for_each(|datagram| marked::send(&self.socket, &message, datagram))
        })
    }

    /// A driver may refuse segmented sends, and a source address may be gone: each datagram gets one plain attempt.
    fn retry_singly(&mut self, transmit: &Transmit<'_>, run: &[u8]) {
        let plain = Transmit { from: None, ..*transmit };
        for datagram in run.chunks(transmit.segment_size.max(1)) {
            if self.send_run(&plain, datagram).is_err() {
                self.refused = self.refused.saturating_add(1);
            }
        }
    }

    /// An IPv6 socket takes IPv4 addresses in their mapped form (RFC 4291 section 2.5.5.2).
    fn outer(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.v6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            SocketAddr::V4(_) | SocketAddr::V6(_) => to,
        }
    }
}

/// An IPv4 address in its own form; an IPv6 one with the link that it belongs to.
pub fn canonical(from: SocketAddr) -> SocketAddr {
    match from {
        SocketAddr::V6(v6) => match v6.ip().to_canonical() {
            IpAddr::V4(v4) => SocketAddr::from((v4, v6.port())),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into(),
        },
        SocketAddr::V4(_) => from,
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
