//! Streams to relays, for where UDP does not get through: TURN over TLS, moved by bytes only.
//!
//! ```text
//!   packet thread ── datagrams ──► queue ──► task of the stream ──► TLS ──► relay
//!        ▲                                          │
//!        └───────── frames, opened, closed ─────────┘
//! ```
//!
//! The engine decides when a stream is wanted and speaks TURN over it; the agent's loop starts and ends it here. What
//! waits here is bounded in bytes and in age ([`queue`]): a stream that can't keep up loses packets as a socket does, and
//! delivers none late. The tasks have a thread of their own, because encrypting for a stream must delay neither packets
//! that go over UDP nor the loop.

pub mod queue;
mod stream;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ria_core::SocketIndex;
use ria_protocol::id::NetworkId;
use rustls::ClientConfig;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use queue::Queue;

use crate::coordinator::reach::Reach;

/// Messages that streams may be ahead of the packet thread; then they read no more, and the relay drops what is old.
pub const BACKLOG: usize = 64;

/// Where a stream leads.
#[derive(Debug, Clone)]
pub struct StreamPlan {
    /// Whose.
    pub network: NetworkId,
    /// The engine's number for it.
    pub socket: SocketIndex,
    /// The engine's address for its other end.
    pub address: SocketAddr,
    /// Name or address to connect to.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    /// How to get there.
    pub reach: Reach,
    /// Whom to believe.
    pub tls: Arc<ClientConfig>,
    /// Whether the server has to say that it speaks TURN (ALPN), as Ria's own do; others may know nothing of that.
    pub must_name: bool,
}

/// From a stream to the packet thread.
#[derive(Debug)]
pub struct FromStream {
    /// Whose.
    pub network: NetworkId,
    /// Which.
    pub socket: SocketIndex,
    /// Its other end, by which the engine knows it.
    pub address: SocketAddr,
    /// What.
    pub what: StreamEvent,
}

/// What happened on a stream.
#[derive(Debug)]
pub enum StreamEvent {
    /// It is open.
    Opened,
    /// Whole frames came.
    Frames(Vec<u8>),
    /// It broke, or could not be opened; it is tried again.
    Closed(String),
}

/// All streams of the agent.
#[derive(Default)]
pub struct RelayStreams {
    runtime: Option<Runtime>,
    running: BTreeMap<(NetworkId, SocketIndex), AbortHandle>,
}

impl RelayStreams {
    /// Starts a stream. What is put into the queue that this returns goes out over it.
    pub fn start(&mut self, plan: StreamPlan, out: mpsc::Sender<FromStream>) -> io::Result<Queue> {
        let key = (plan.network, plan.socket);
        let (queue, end) = queue::new();
        let task = self.runtime()?.spawn(stream::run(plan, end, out)).abort_handle();
        if let Some(before) = self.running.insert(key, task) {
            before.abort();
        }
        Ok(queue)
    }

    fn runtime(&mut self) -> io::Result<&Runtime> {
        let runtime = match self.runtime.take() {
            Some(runtime) => runtime,
            None => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("ria-relay")
                .enable_io()
                .enable_time()
                .build()?,
        };
        Ok(self.runtime.insert(runtime))
    }

    /// Ends a stream.
    pub fn end(&mut self, network: NetworkId, socket: SocketIndex) {
        if let Some(task) = self.running.remove(&(network, socket)) {
            task.abort();
        }
    }
}

impl Drop for RelayStreams {
    fn drop(&mut self) {
        // Plainly dropped, it would wait for its thread, which asynchronous code must not.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
