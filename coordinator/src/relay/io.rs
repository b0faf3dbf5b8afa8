//! The relay's sockets: batches in (recvmmsg, GRO), through the [`Server`], batches out (GSO). One task owns it all.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rand_core::OsRng;
use ria_protocol::id::NodeId;
use ria_protocol::time::UnixTime;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::RelayConfig;
use super::counters::{Counters, DropReason, RelayCounters};
use super::outbox::Outbox;
use super::server::{Action, Alternates, Clock, Server, ServerConfig, Tuple};

/// Room for what GRO puts together: up to 64 datagrams, less than 64 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Of the sockets that only answer a question now and then.
const SMALL_BUFFER: usize = 64 * 1024;

/// Batches that one socket may have handled before the others and the commands get their turn.
const BATCHES_IN_A_ROW: usize = 16;

/// Pause after an error of a socket that is no lack of data, so that a broken one does not take a whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// A bound relay that is not running yet.
pub struct Relay {
    listeners: Vec<Listener>,
    server: Server,
    handle: RelayHandle,
    orders: mpsc::UnboundedReceiver<Order>,
    credentials: Duration,
}

/// What a running relay is told.
#[derive(Debug, Clone, Copy)]
enum Order {
    Revoke(NodeId),
    Readmit(NodeId),
}

/// Speaks to a running relay.
#[derive(Debug, Clone)]
pub struct RelayHandle {
    orders: mpsc::UnboundedSender<Order>,
    counters: Arc<Counters>,
}

impl RelayHandle {
    /// Ends a node's allocations and refuses its credentials, all that were ever issued.
    pub fn revoke(&self, node: NodeId) {
        // A relay that has ended relays nothing for this node either.
        let _ = self.orders.send(Order::Revoke(node));
    }

    /// Takes a node's credentials again after [`Self::revoke`].
    pub fn readmit(&self, node: NodeId) {
        let _ = self.orders.send(Order::Readmit(node));
    }

    /// What the relay has done since it was bound.
    pub fn counters(&self) -> RelayCounters {
        self.counters.read()
    }
}

impl Relay {
    /// Binds the sockets. The error names the address and what to do.
    pub fn bind(config: RelayConfig) -> io::Result<Self> {
        let bind = |address: &SocketAddr| Listener::bind(*address, config.limits.socket_buffer);
        let mut listeners = config.listen.iter().map(bind).collect::<io::Result<Vec<_>>>()?;
        if listeners.is_empty() {
            let advice = "the relay has no address to listen on; set relay.listen, or relay.enabled = false";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, advice));
        }
        let settings =
            ServerConfig { secret: config.secret, external: config.external, limits: config.limits };
        let mut server = Server::new(settings, Box::new(OsRng), Instant::now());
        server.set_alternates(add_alternates(&mut listeners));
        let (sender, orders) = mpsc::unbounded_channel();
        let handle = RelayHandle { orders: sender, counters: server.counters() };
        Ok(Self { listeners, server, handle, orders, credentials: config.credentials })
    }

    /// The port to publish: that of the first address.
    pub fn local_port(&self) -> u16 {
        self.listeners.first().map_or(0, |listener| listener.local.port())
    }

    /// Speaks to it while it runs.
    pub fn handle(&self) -> RelayHandle {
        self.handle.clone()
    }

    /// Relays until it is cancelled.
    pub async fn run(self, cancelled: CancellationToken) {
        let Self { listeners, server, handle, mut orders, credentials } = self;
        let counters = Arc::clone(&handle.counters);
        let mut traffic = Traffic { listeners, server, counters, credentials, outbox: Outbox::default() };
        let mut buffers = ReceiveBuffers::new();
        let mut first = 0;
        loop {
            let wake = traffic.server.poll_timeout();
            tokio::select! {
                () = cancelled.cancelled() => return,
                Some(order) = orders.recv() => traffic.obey(order),
                () = sleep_until(wake) => traffic.server.handle_timeout(clock()),
                index = readable(&traffic.listeners, first) => {
                    if let Err(error) = traffic.drain(index, &mut buffers) {
                        warn!(%error, "the relay's socket failed to receive; trying on");
                        tokio::time::sleep(ERROR_PAUSE).await;
                    }
                    first = index + 1;
                }
            }
        }
    }
}

/// Binds another port at each address, to answer from: see [`Alternates`]. Without them everything else works.
fn add_alternates(listeners: &mut Vec<Listener>) -> Alternates {
    let bind = |listener: &Listener| Listener::bind(SocketAddr::new(listener.local.ip(), 0), SMALL_BUFFER);
    match listeners.iter().map(bind).collect::<io::Result<Vec<_>>>() {
        Ok(others) => listeners.extend(others),
        Err(error) => {
            debug!(%error, "no other port; nodes learn less about their NATs");
            return Alternates::default();
        }
    }
    Alternates::new(listeners.iter().map(|listener| listener.local).collect())
}

fn clock() -> Clock {
    Clock { now: Instant::now(), unix: UnixTime::from(SystemTime::now()) }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits for one of the sockets, beginning with `first`, so that each gets its turn.
async fn readable(listeners: &[Listener], first: usize) -> usize {
    poll_fn(|context| {
        for offset in 0..listeners.len() {
            let index = (first + offset) % listeners.len();
            let ready = listeners.get(index).map(|listener| listener.socket.poll_recv_ready(context));
            if ready.is_some_and(|ready| ready.is_ready()) {
                return Poll::Ready(index);
            }
        }
        Poll::Pending
    })
    .await
}

struct ReceiveBuffers {
    bytes: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
}

impl ReceiveBuffers {
    fn new() -> Self {
        Self { bytes: vec![0; RECEIVE_BUFFER * BATCH_SIZE], metas: [RecvMeta::default(); BATCH_SIZE] }
    }
}

struct Listener {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl Listener {
    fn bind(address: SocketAddr, buffer: usize) -> io::Result<Self> {
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
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        set_buffers(&socket, &state, buffer);
        let socket = UdpSocket::from_std(socket.into())?;
        let local = socket.local_addr()?;
        Ok(Self { socket, state, local })
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
    fn send(&self, to: &Tuple, bytes: &[u8], segment: usize) -> Option<(DropReason, u64)> {
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
            src_ip: Some(to.local),
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

/// A burst of a whole second must fit, or the kernel drops what nobody counts.
fn set_buffers(socket: &Socket, state: &UdpSocketState, asked: usize) {
    let set_receive = state.set_recv_buffer_size(UdpSockRef::from(socket), asked);
    let set_send = state.set_send_buffer_size(UdpSockRef::from(socket), asked);
    let receive = state.recv_buffer_size(UdpSockRef::from(socket)).unwrap_or(0);
    let send = state.send_buffer_size(UdpSockRef::from(socket)).unwrap_or(0);
    if set_receive.is_err() || set_send.is_err() || receive < asked || send < asked {
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

struct Traffic {
    listeners: Vec<Listener>,
    server: Server,
    counters: Arc<Counters>,
    credentials: Duration,
    outbox: Outbox,
}

impl Traffic {
    fn obey(&mut self, order: Order) {
        match order {
            Order::Revoke(node) => {
                self.server.revoke(node, clock().unix.plus(self.credentials));
                info!("a node was revoked; the relay serves it no more");
            }
            Order::Readmit(node) => self.server.readmit(node),
        }
    }

    /// Handles what one socket has.
    fn drain(&mut self, index: usize, buffers: &mut ReceiveBuffers) -> io::Result<()> {
        for _ in 0..BATCHES_IN_A_ROW {
            let Some(listener) = self.listeners.get(index) else { return Ok(()) };
            let local = listener.local.ip();
            let mut chunks = buffers.bytes.chunks_mut(RECEIVE_BUFFER);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let received = listener.socket.try_io(Interest::READABLE, || {
                listener.state.recv(UdpSockRef::from(&listener.socket), &mut slices, &mut buffers.metas)
            });
            let count = match received {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let clock = clock();
            for (meta, slice) in buffers.metas.iter().zip(slices.iter_mut()).take(count) {
                let from = Tuple {
                    listener: index,
                    local: meta.dst_ip.unwrap_or(local).to_canonical(),
                    remote: SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port()),
                };
                let bytes = slice.get_mut(..meta.len).unwrap_or_default();
                self.handle_received(from, bytes, meta.stride, clock);
            }
            self.flush();
        }
        Ok(())
    }

    /// Handles datagrams of one sender, back to back. Those in a row that go to one destination stay together.
    fn handle_received(&mut self, from: Tuple, bytes: &mut [u8], stride: usize, clock: Clock) {
        let stride = stride.max(1);
        let mut run: Option<(Tuple, Range<usize>)> = None;
        let mut start = 0;
        while start < bytes.len() {
            let end = bytes.len().min(start + stride);
            let datagram = bytes.get_mut(start..end).unwrap_or_default();
            let action = self.server.handle(from, datagram, clock);
            run = match (run, action) {
                (Some((to, range)), Action::Forward(next)) if to == next => Some((to, range.start..end)),
                (before, action) => {
                    self.emit(before, bytes, stride);
                    match action {
                        Action::Forward(to) => Some((to, start..end)),
                        Action::Send(to) => {
                            self.push_output(to);
                            None
                        }
                        Action::Drop => None,
                    }
                }
            };
            start = end;
        }
        self.emit(run, bytes, stride);
    }

    fn emit(&mut self, run: Option<(Tuple, Range<usize>)>, bytes: &[u8], stride: usize) {
        let Some((to, range)) = run else { return };
        let datagrams = bytes.get(range).unwrap_or_default();
        if datagrams.len() > stride {
            // Put together by the kernel already: goes on as it is, behind what waits.
            self.flush();
            self.send(&to, datagrams, stride);
        } else if !self.outbox.push(to, datagrams) {
            self.flush();
            self.outbox.push(to, datagrams);
        }
    }

    fn push_output(&mut self, to: Tuple) {
        if !self.outbox.push(to, self.server.output()) {
            self.flush();
            self.outbox.push(to, self.server.output());
        }
    }

    fn send(&self, to: &Tuple, bytes: &[u8], segment: usize) {
        let Some(listener) = self.listeners.get(to.listener) else { return };
        if let Some((reason, count)) = listener.send(to, bytes, segment) {
            self.counters.dropped(reason, count);
        }
    }

    fn flush(&mut self) {
        for run in self.outbox.runs() {
            self.send(&run.to, &run.bytes, run.segment);
        }
        self.outbox.clear();
    }
}

#[cfg(test)]
mod tests;
