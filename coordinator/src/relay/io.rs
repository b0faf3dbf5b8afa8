//! The relay as it runs: its sockets and streams, and orders. One task owns it all; [`Traffic`] moves what comes.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use rand_core::OsRng;
use ria_protocol::id::NodeId;
use ria_protocol::time::UnixTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::counters::{Counters, RelayCounters};
use super::outside::OutsideSockets;
use super::server::{Alternates, Clock, Server, ServerConfig};
use super::socket::{Listener, ReceiveBuffers};
use super::streams::{BACKLOG, StreamDoor, StreamNews};
use super::traffic::Traffic;
use super::{RelayConfig, Terms};

/// Of the sockets that only answer a question now and then.
const SMALL_BUFFER: usize = 64 * 1024;

/// Messages of streams that are handled before sockets and orders get their turn.
const NEWS_IN_A_ROW: usize = 16;

/// Pause after an error of a socket that is no lack of data, so that a broken one does not take a whole core.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// A bound relay that is not running yet.
pub struct Relay {
    listeners: Vec<Listener>,
    outside: OutsideSockets,
    server: Server,
    handle: RelayHandle,
    orders: mpsc::UnboundedReceiver<Order>,
    news: mpsc::Receiver<StreamNews>,
}

/// What a running relay is told.
#[derive(Debug)]
pub(super) enum Order {
    Revoke(NodeId, UnixTime),
    Readmit(NodeId),
    Terms(Box<Terms>),
}

/// Speaks to a running relay.
#[derive(Debug, Clone)]
pub struct RelayHandle {
    orders: mpsc::UnboundedSender<Order>,
    door: StreamDoor,
    counters: Arc<Counters>,
}

impl RelayHandle {
    /// Ends a node's allocations and refuses its credentials, all that were ever issued and end before `until`.
    pub fn revoke(&self, node: NodeId, until: UnixTime) {
        // A relay that has ended relays nothing for this node either.
        let _ = self.orders.send(Order::Revoke(node, until));
    }

    /// Serves others from now on, or otherwise.
    pub fn set_terms(&self, terms: Terms) {
        let _ = self.orders.send(Order::Terms(Box::new(terms)));
    }

    /// Takes a node's credentials again after [`Self::revoke`].
    pub fn readmit(&self, node: NodeId) {
        let _ = self.orders.send(Order::Readmit(node));
    }

    /// Where clients come in that speak to it over streams.
    pub fn door(&self) -> &StreamDoor {
        &self.door
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
        let outside = OutsideSockets::new(config.outside.as_ref());
        let settings = ServerConfig {
            terms: config.terms,
            external: config.external,
            outside: config.outside,
            limits: config.limits,
        };
        let mut server = Server::new(settings, Box::new(OsRng), Instant::now());
        server.set_alternates(add_alternates(&mut listeners));
        let (sender, orders) = mpsc::unbounded_channel();
        let (news_sender, news) = mpsc::channel(BACKLOG);
        let counters = server.counters();
        let door = StreamDoor::new(news_sender, counters.clone());
        let handle = RelayHandle { orders: sender, door, counters };
        Ok(Self { listeners, outside, server, handle, orders, news })
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
        // A relay of which nobody keeps the handle runs on.
        let Self { listeners, outside, server, mut orders, mut news, handle: _handle } = self;
        let mut traffic = Traffic::new(listeners, outside, server);
        let mut buffers = ReceiveBuffers::default();
        let mut heard = Vec::with_capacity(NEWS_IN_A_ROW);
        let mut first = 0;
        loop {
            let wake = traffic.poll_timeout();
            tokio::select! {
                () = cancelled.cancelled() => return,
                Some(order) = orders.recv() => traffic.obey(order, clock()),
                () = sleep_until(wake) => traffic.handle_timeout(clock()),
                _ = news.recv_many(&mut heard, NEWS_IN_A_ROW) => {
                    heard.drain(..).for_each(|news| traffic.handle_news(news, clock()));
                    traffic.flush();
                }
                index = readable(traffic.sockets(), first) => {
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

pub(super) fn clock() -> Clock {
    Clock { now: Instant::now(), unix: UnixTime::from(SystemTime::now()) }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits for one of the sockets, beginning with `first`, so that each gets its turn.
async fn readable((listeners, outside): (&[Listener], &OutsideSockets), first: usize) -> usize {
    poll_fn(|context| {
        let mut before = None;
        for (index, socket) in listeners.iter().chain(outside.all()).enumerate() {
            if (index < first && before.is_some()) || socket.poll_readable(context).is_pending() {
                continue;
            }
            if index >= first {
                return Poll::Ready(index);
            }
            before = Some(index);
        }
        before.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

#[cfg(test)]
pub(super) mod tests;
