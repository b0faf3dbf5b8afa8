//! A UDP socket of the relay: batches in (recvmmsg, GRO), runs of equal datagrams out (GSO).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::{debug, info, warn};

use super::counters::DropReason;
use super::server::Tuple;

/// Room for what GRO puts together: up to 64 datagrams, less than 64 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Memory for a batch.
pub(super) struct ReceiveBuffers {
    bytes: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
}

impl ReceiveBuffers {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; RECEIVE_BUFFER * BATCH_SIZE], metas: [RecvMeta::default(); BATCH_SIZE] }
    }

    /// The runs of datagrams received, each with what is known of it.
    pub(super) fn runs(&mut self, count: usize) -> impl Iterator<Item = (RecvMeta, &mut [u8])> {
        let chunks = self.bytes.chunks_mut(RECEIVE_BUFFER);
        let runs = self.metas.iter().zip(chunks).take(count);
        runs.map(|(meta, chunk)| (*meta, chunk.get_mut(..meta.len).unwrap_or_default()))
    }
}

/// A bound UDP socket.
pub(super) struct Listener {
    socket: UdpSocket,
    state: UdpSocketState,
    pub(super) local: SocketAddr,
}

impl Listener {
    /// Binds it. The error names the address and what to do.
    pub(super) fn bind(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let bound = Self::open(address).or_else(|error| {
            // A host without IPv6: everything is then IPv4.
            let no_v6 = error.raw_os_error() == Some(libc::EAFNOSUPPORT);
            if no_v6 && address.is_ipv6() && address.ip().is_unspecified() {
                Self::open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
            } else {
                Err(error)
            }
        });
        let socket = bound.map_err(|error| explain(&error, address))?;
        let listener = Self::prepare(socket, buffer)?;
        listener.check_buffers(buffer);
        Ok(listener)
    }

    /// Binds to this address and no other.
    pub(super) fn open_exactly(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Self::prepare(socket, buffer)
    }

    fn prepare(socket: Socket, buffer: usize) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // As much as the system's limits allow.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), buffer);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), buffer);
        let socket = UdpSocket::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, state, local })
    }

    /// A burst of a whole second must fit, or the kernel drops what nobody counts.
    fn check_buffers(&self, asked: usize) {
        let receive = self.state.recv_buffer_size(UdpSockRef::from(&self.socket)).unwrap_or(0);
        let send = self.state.send_buffer_size(UdpSockRef::from(&self.socket)).unwrap_or(0);
        if receive < asked || send < asked {
            warn!(
                asked,
                receive,
                send,
                "small socket buffers; for a busy relay raise net.core.rmem_max and net.core.wmem_max"
            );
        } else {
            info!(receive, send, "relay socket buffers");
        }
    }

    /// Whether something is there to be received.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv_ready(context)
    }

    /// Receives a batch; how many runs of datagrams it has.
    pub(super) fn receive(&self, buffers: &mut ReceiveBuffers) -> io::Result<usize> {
        let mut chunks = buffers.bytes.chunks_mut(RECEIVE_BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        self.socket.try_io(Interest::READABLE, || {
            self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut buffers.metas)
        })
    }

    fn open(address: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    }

    /// Sends a run; returns how many datagrams were not sent, and why.
    pub(super) fn send(&self, to: &Tuple, bytes: &[u8], segment: usize) -> Option<(DropReason, u64)> {
        let most = self.state.max_gso_segments().max(1);
        let mut failed = None;
        for part in bytes.chunks(segment.max(1).saturating_mul(most)) {
            let Err(error) = self.send_once(to, part, segment) else { continue };
            let count = part.len().div_ceil(segment.max(1)) as u64;
            let reason = if error.kind() == io::ErrorKind::WouldBlock {
                DropReason::SocketFull
            } else if count > 1 && part.chunks(segment).all(|one| self.send_once(to, one, segment).is_ok()) {
                // The network card or the route does not take segmented sends; the socket has noted it.
                continue;
            } else {
                debug!(%error, "a datagram could not be sent");
                DropReason::SendFailed
            };
            let before = failed.map_or(0, |(_, count)| count);
            failed = Some((reason, before + count));
        }
        failed
    }

    fn send_once(&self, to: &Tuple, bytes: &[u8], segment: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.wire_form(to.remote),
            ecn: None,
            contents: bytes,
            segment_size: (bytes.len() > segment).then_some(segment),
            src_ip: (!to.local.is_unspecified()).then_some(to.local),
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    /// A socket of IPv6 wants IPv4 mapped into it.
    fn wire_form(&self, address: SocketAddr) -> SocketAddr {
        match (self.local, address.ip()) {
            (SocketAddr::V6(_), IpAddr::V4(v4)) => {
                SocketAddr::new(v4.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        }
    }
}

fn explain(error: &io::Error, address: SocketAddr) -> io::Error {
    let causes = [
        (
            io::ErrorKind::AddrInUse,
            "; another STUN or TURN server may be running: stop it or set relay.listen",
        ),
        (io::ErrorKind::PermissionDenied, "; use a port above 1023 or grant CAP_NET_BIND_SERVICE"),
        (io::ErrorKind::AddrNotAvailable, "; this host has no such address: correct relay.listen"),
    ];
    let advice = causes.iter().find(|(kind, _)| *kind == error.kind()).map_or("", |(_, advice)| *advice);
    io::Error::new(error.kind(), format!("the relay can't listen on UDP {address}: {error}{advice}"))
}
