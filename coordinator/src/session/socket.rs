//! The WebSocket of a session: messages in and out, pings, and the time-outs that tell a dead peer.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use ria_protocol::message::{CoordinatorMessage, NodeMessage, from_bytes, to_bytes};
use ria_protocol::version::Protocol;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// A peer is pinged this often.
const PING_EVERY: Duration = Duration::from_secs(5);
/// A peer from which nothing came for this long after a ping is gone: 14 s after its last word at most.
const PATIENCE: Duration = Duration::from_secs(9);
/// A message that can't be handed to the kernel for this long shows that the peer does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// No more messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// Closed by the other side, or broken.
    Gone,
    /// Nothing came for too long, or nothing could be sent.
    Silent,
    /// What came is no message.
    Malformed,
}

/// A WebSocket that speaks messages.
#[derive(Debug)]
pub(super) struct Socket {
    inner: WebSocket,
    protocol: Protocol,
    /// The first ping since something was heard. Silence counts from it: while this side was busy with something else, the
    /// peer had nothing to answer.
    pinged: Option<Instant>,
    ping_at: Instant,
}

impl Socket {
    pub fn new(inner: WebSocket) -> Self {
        let ping_at = Instant::now() + PING_EVERY;
        Self { inner, protocol: Protocol::OLDEST, pinged: None, ping_at }
    }

    /// What this connection speaks; the oldest version until the greeting.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The greeting has settled what this connection speaks.
    pub fn agree_on(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// The next message before `deadline`.
    pub async fn next_before(&mut self, deadline: Instant) -> Result<NodeMessage, Closed> {
        timeout_at(deadline, self.next()).await.unwrap_or(Err(Closed::Silent))
    }

    /// The next message; pings meanwhile. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<NodeMessage, Closed> {
        self.next_as().await
    }

    /// The next message before `deadline`, of whatever kind is spoken here.
    pub async fn next_as_before<M>(&mut self, deadline: Instant) -> Result<M, Closed>
    where
        M: for<'b> minicbor::Decode<'b, ()>,
    {
        timeout_at(deadline, self.next_as()).await.unwrap_or(Err(Closed::Silent))
    }

    /// The same as [`Self::next`].
    pub async fn next_as<M>(&mut self) -> Result<M, Closed>
    where
        M: for<'b> minicbor::Decode<'b, ()>,
    {
        loop {
            let wake = self.pinged.map_or(self.ping_at, |pinged| self.ping_at.min(pinged + PATIENCE));
            let received = tokio::select! {
                // What has come already counts, however late it is looked at.
                biased;
                received = self.inner.recv() => received,
                () = sleep_until(wake) => {
                    self.handle_timeout().await?;
                    continue;
                }
            };
            let message = received.ok_or(Closed::Gone)?.map_err(|error| fault(&error))?;
            self.pinged = None;
            match message {
                Message::Binary(bytes) => {
                    return from_bytes(&bytes).map_err(|error| {
                        tracing::debug!(%error, "a message can't be read");
                        Closed::Malformed
                    });
                }
                Message::Text(_) => return Err(Closed::Malformed),
                Message::Close(_) => return Err(Closed::Gone),
                // Pongs are sent by the library.
                Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    }

    async fn handle_timeout(&mut self) -> Result<(), Closed> {
        let now = Instant::now();
        if self.pinged.is_some_and(|pinged| now >= pinged + PATIENCE) {
            return Err(Closed::Silent);
        }
        self.pinged.get_or_insert(now);
        self.ping_at = now + PING_EVERY;
        self.transmit(Message::Ping(Bytes::new())).await
    }

    /// Sends a message; one that the node is too old to read is left out.
    pub async fn send(&mut self, message: &CoordinatorMessage) -> Result<(), Closed> {
        if message.since() > self.protocol {
            tracing::trace!(protocol = %self.protocol, "a message is not for a node of this version");
            return Ok(());
        }
        self.send_encoded(to_bytes(message).into()).await
    }

    /// Sends a message that is encoded already; whoever encoded it has minded [`Self::protocol`].
    pub async fn send_encoded(&mut self, bytes: Bytes) -> Result<(), Closed> {
        self.transmit(Message::Binary(bytes)).await
    }

    async fn transmit(&mut self, message: Message) -> Result<(), Closed> {
        match timeout(SEND_TIMEOUT, self.inner.send(message)).await {
            Ok(sent) => sent.map_err(|_| Closed::Gone),
            Err(_) => Err(Closed::Silent),
        }
    }

    /// Sends a message after which nothing follows; whether it arrives makes no difference any more.
    pub async fn say_last(&mut self, message: CoordinatorMessage) {
        let _ = timeout(CLOSE_TIMEOUT, self.send(&message)).await;
    }

    /// Closes in good order: a connection that is cut off with unread data would take the last message with it.
    pub async fn close(mut self) {
        let closing = async {
            let _ = self.inner.send(Message::Close(None)).await;
            while let Some(Ok(_)) = self.inner.recv().await {}
        };
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// Frames that break the WebSocket protocol or are too long are the peer's fault; the rest is the network's.
fn fault(error: &axum::Error) -> Closed {
    use std::error::Error as _;
    let mut source = error.source();
    while let Some(inner) = source {
        if inner.is::<std::io::Error>() {
            return Closed::Gone;
        }
        source = inner.source();
    }
    Closed::Malformed
}
