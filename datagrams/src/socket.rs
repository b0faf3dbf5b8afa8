//! A socket that takes and gives many datagrams at a time.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::marked::{self, Message};
use crate::open::Granted;

/// Room for what GRO puts together: up to 64 datagrams, less than 64 KiB.
const BUFFER_LEN: usize = 65_535;

/// The bits of a traffic class that are ECN's.
const ECN_BITS: u8 = 3;

/// Memory for a batch of up to `N` runs. The kernel provides what is touched.
pub struct Buffers<const N: usize> {
    bytes: Vec<u8>,
    metas: [RecvMeta; N],
}

/// Datagrams of one sender, one behind the other.
#[derive(Debug)]
pub struct Run<'a> {
    /// Who sent them, IPv4 addresses in their own form.
    pub from: SocketAddr,
    /// To which of this host's addresses, where the kernel told.
    pub local: Option<IpAddr>,
    /// Their mark of congestion (RFC 3168).
    pub ecn: u8,
    /// Length of each but the last.
    pub stride: usize,
    /// All of them.
    pub bytes: &'a mut [u8],
}

impl<const N: usize> Default for Buffers<N> {
    fn default() -> Self {
        Self { bytes: vec![0; BUFFER_LEN * N], metas: [RecvMeta::default(); N] }
    }
}

impl<const N: usize> Buffers<N> {
    /// The first `count` runs, as many as [`Socket::receive`] has told.
    pub fn runs(&mut self, count: usize) -> impl Iterator<Item = Run<'_>> {
        let runs = self.metas.iter().zip(self.bytes.chunks_exact_mut(BUFFER_LEN)).take(count);
        runs.map(|(meta, buffer)| Run {
            from: canonical(meta.addr),
            local: meta.dst_ip.map(|ip| ip.to_canonical()),
            ecn: meta.ecn.map_or(0, |mark| mark as u8),
            stride: meta.stride.max(1),
            bytes: buffer.get_mut(..meta.len).unwrap_or_default(),
        })
    }

    /// How much the first `count` runs hold.
    pub fn len_of(&self, count: usize) -> usize {
        self.metas.iter().take(count).map(|meta| meta.len).sum()
    }
}

/// A bound socket.
pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Socket {
    /// Must be called within the runtime that is to wait for it.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let socket = UdpSocket::from_std(socket)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // It asks for time stamps, which nobody here reads and each datagram would pay for.
        let _ = setsockopt(&socket, sockopt::ReceiveTimestampns, &false);
        let local = socket.local_addr()?;
        Ok(Self { socket, state, local })
    }

    /// Where it is bound.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The buffers that it has.
    pub fn granted(&self) -> Granted {
        Granted::of(&self.socket)
    }

    /// Waits until something is there.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv_ready(context)
    }

    /// Takes what is there; how many runs that are.
    pub fn receive<const N: usize>(&self, buffers: &mut Buffers<N>) -> io::Result<usize> {
        let mut chunks = buffers.bytes.chunks_exact_mut(BUFFER_LEN);
        let mut slices: [IoSliceMut<'_>; N] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        self.socket.try_io(Interest::READABLE, || {
            self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut buffers.metas)
        })
    }

    /// Most datagrams of one [`Self::send`].
    pub fn most_at_once(&self) -> usize {
        self.state.max_gso_segments().max(1)
    }

    /// Sends datagrams that lie one behind the other, [`Self::most_at_once`] at most. An error that is not "would block" may
    /// come of a card or a route that takes no runs, which is remembered: see [`Self::send_singly`].
    pub fn send(&self, message: &Message, datagrams: &[u8]) -> io::Result<()> {
        let message = Message { to: self.wire_form(message.to), ..*message };
        let Message { to, from, traffic_class, segment_size } = message;
        if traffic_class & !ECN_BITS != 0 {
            return marked::send(&self.socket, &message, datagrams);
        }
        let transmit = Transmit {
            destination: to,
            ecn: EcnCodepoint::from_bits(traffic_class),
            contents: datagrams,
            segment_size: (datagrams.len() > segment_size).then_some(segment_size),
            src_ip: from,
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    /// Gives each datagram an attempt of its own; how many failed.
    pub fn send_singly(&self, message: &Message, datagrams: &[u8]) -> u64 {
        let each = datagrams.chunks(message.segment_size.max(1));
        each.filter(|datagram| self.send(message, datagram).is_err()).count() as u64
    }

    /// Sends with a traffic class, also none, that is told to the kernel each time.
    pub fn send_marked(&self, message: &Message, datagrams: &[u8]) -> io::Result<()> {
        marked::send(&self.socket, &Message { to: self.wire_form(message.to), ..*message }, datagrams)
    }

    /// Sends datagrams that may be cut into fragments on the way: by this host to what each IPv6 path carries, by routers of
    /// IPv4 to what they must.
    pub fn send_in_fragments(&self, message: &Message, datagrams: &[u8]) -> io::Result<()> {
        marked::in_fragments(&self.socket, self.local.is_ipv6(), || {
            let mut each = datagrams.chunks(message.segment_size.max(1));
            each.try_for_each(|datagram| self.send_marked(message, datagram))
        })
    }

    /// An IPv6 socket takes IPv4 addresses in their mapped form (RFC 4291 section 2.5.5.2).
    fn wire_form(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.local.is_ipv6() => {
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
    use super::*;

    #[tokio::test]
    async fn runs_come_and_go_whole_with_their_marks_and_from_the_address_that_is_named() {
        let bind = |address: &str| Socket::new(crate::open(address.parse().unwrap(), true, 1 << 20).unwrap());
        // One of both families, which knows IPv4 addresses in their own form only.
        let (a, b) = (bind("[::]:0").unwrap(), bind("127.0.0.1:0").unwrap());
        let from = Some("127.0.0.7".parse().unwrap());
        let message = Message { to: b.local(), from, traffic_class: 2, segment_size: 100 };
        a.send(&message, &[7; 250]).unwrap();
        assert_eq!(a.send_singly(&Message { traffic_class: 0xb9, ..message }, &[8; 200]), 0);
        a.send_in_fragments(&message, &[9; 150]).unwrap();
        let (mut buffers, mut seen) = (Buffers::<4>::default(), Vec::new());
        while seen.len() < 7 {
            std::future::poll_fn(|context| b.poll_readable(context)).await.unwrap();
            let Ok(count) = b.receive(&mut buffers) else { continue };
            assert!(buffers.len_of(count) > 0);
            for run in buffers.runs(count) {
                assert_eq!(run.from.ip().to_string(), "127.0.0.7");
                seen.extend(run.bytes.chunks(run.stride).map(|one| (one[0], one.len(), run.ecn)));
            }
        }
        let sizes = [(7, 100, 2), (7, 100, 2), (7, 50, 2), (8, 100, 1), (8, 100, 1), (9, 100, 2), (9, 50, 2)];
        assert_eq!(seen, sizes);
    }
}
