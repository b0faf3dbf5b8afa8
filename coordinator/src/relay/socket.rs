//! A UDP socket of the relay. How datagrams come and go in batches is `ria-datagrams`'.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use ria_datagrams::{Buffers, Message, Socket, kernel};
use tracing::{debug, info, warn};

use super::counters::DropReason;
use super::server::Tuple;

/// Runs of datagrams that are taken at a time.
pub(super) const BATCH: usize = 32;

/// Memory for a batch.
pub(super) type ReceiveBuffers = Buffers<BATCH>;

/// A bound UDP socket.
pub(super) struct Listener {
    socket: Socket,
    pub(super) local: SocketAddr,
    /// What the kernel had dropped when it was asked last.
    overflowed: AtomicU64,
}

impl Listener {
    /// Binds it. The error names the address and what to do.
    pub(super) fn bind(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let bound = ria_datagrams::open(address, true, buffer).or_else(|error| {
            // A host without IPv6: everything is then IPv4.
            let no_v6 = error.raw_os_error() == Some(libc::EAFNOSUPPORT);
            if no_v6 && address.is_ipv6() && address.ip().is_unspecified() {
                let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                ria_datagrams::open(any, false, buffer)
            } else {
                Err(error)
            }
        });
        let listener = Self::prepare(bound.map_err(|error| explain(&error, address))?)?;
        listener.check_buffers(buffer);
        Ok(listener)
    }

    /// Binds to this address and no other.
    pub(super) fn open_exactly(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        Self::prepare(ria_datagrams::open(address, false, buffer)?)
    }

    fn prepare(socket: std::net::UdpSocket) -> io::Result<Self> {
        let socket = Socket::new(socket)?;
        let local = socket.local();
        Ok(Self { socket, local, overflowed: AtomicU64::default() })
    }

    /// A burst of a whole second must fit, or the kernel drops it.
    fn check_buffers(&self, asked: usize) {
        let granted = self.socket.granted();
        let (receive, send) = (granted.receive, granted.send);
        if granted.covers(asked) {
            info!(receive, send, "relay socket buffers");
        } else {
            warn!(
                asked,
                receive,
                send,
                "small socket buffers; for a busy relay raise net.core.rmem_max and net.core.wmem_max"
            );
        }
    }

    /// Whether something is there to be received.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(context)
    }

    /// Receives a batch; how many runs of datagrams it has.
    pub(super) fn receive(&self, buffers: &mut ReceiveBuffers) -> io::Result<usize> {
        self.socket.receive(buffers)
    }

    /// Datagrams that the kernel dropped for want of room, since this was asked last.
    pub(super) fn newly_overflowed(&self) -> u64 {
        let now = kernel::overflowed(&self.socket);
        now.saturating_sub(self.overflowed.swap(now, Ordering::Relaxed))
    }

    /// Sends a run; returns how many datagrams were not sent, and why.
    pub(super) fn send(&self, to: &Tuple, bytes: &[u8], segment: usize) -> Option<(DropReason, u64)> {
        let from = (!to.local.is_unspecified()).then_some(to.local);
        let message = Message { to: to.remote, from, traffic_class: 0, segment_size: segment.max(1) };
        let mut failed = None;
        for part in bytes.chunks(message.segment_size.saturating_mul(self.socket.most_at_once())) {
            let Err(error) = self.socket.send(&message, part) else { continue };
            let mut count = part.len().div_ceil(message.segment_size) as u64;
            let reason = if error.kind() == io::ErrorKind::WouldBlock {
                DropReason::SocketFull
            } else {
                // The network card or the route may not take runs.
                count = if count > 1 { self.socket.send_singly(&message, part) } else { count };
                debug!(%error, count, "a datagram could not be sent");
                DropReason::SendFailed
            };
            let before = failed.map_or(0, |(_, count)| count);
            failed = (count + before > 0).then_some((reason, before + count));
        }
        failed
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
