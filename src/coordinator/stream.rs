//! Typed messages over an open connection, and the notice when it is dead.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use ria_protocol::error::Refusal;
use ria_protocol::message::{CoordinatorMessage, Hello, NodeMessage, Welcome, from_bytes, to_bytes};
use ria_protocol::version::Protocol;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

/// How often the coordinator is pinged.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Silence after which the stream is dead: three pings unanswered.
const SILENCE: Duration = Duration::from_secs(15);

/// How long an answer to a request of ours may take; the coordinator may have to wait for its disk.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The stream has ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other side closed it.
    #[error("the coordinator closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Silence.
    #[error("the coordinator is silent")]
    Silent,
    /// It said something that makes no sense.
    #[error(
        "the coordinator sent something that this agent does not understand ({0}); update the older of the two"
    )]
    Malformed(String),
    /// It said no.
    #[error("{0}")]
    Refused(Refusal),
}

/// A node stream.
pub struct Stream {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    protocol: Protocol,
    heard: Instant,
    next_ping: Instant,
}

impl Stream {
    /// Begins with Hello and Welcome.
    pub async fn open(socket: WebSocketStream<TlsStream<TcpStream>>) -> Result<(Self, Welcome), StreamError> {
        let now = Instant::now();
        let mut stream =
            Self { socket, protocol: Protocol::OLDEST, heard: now, next_ping: now + PING_INTERVAL };
        stream.send(&NodeMessage::Hello(Hello::ours(env!("CARGO_PKG_VERSION")))).await?;
        let CoordinatorMessage::Welcome(welcome) = stream.answer().await? else {
            return Err(unexpected("a greeting"));
        };
        stream.protocol = Protocol::known(welcome.protocol)
            .ok_or_else(|| unexpected("a protocol version that this agent speaks"))?;
        Ok((stream, welcome))
    }

    /// What this connection speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Sends a message; one that the coordinator is too old to read is left out.
    pub async fn send(&mut self, message: &NodeMessage) -> Result<(), StreamError> {
        if message.since() > self.protocol {
            tracing::trace!(protocol = %self.protocol, "a message is not for a coordinator of this version");
            return Ok(());
        }
        self.send_raw(Message::Binary(to_bytes(message).into())).await
    }

    /// The next message, when it is the answer to a request: a refusal is an error, and it must come soon.
    pub async fn answer(&mut self) -> Result<CoordinatorMessage, StreamError> {
        let message = timeout(ANSWER_TIMEOUT, self.receive()).await.map_err(|_| StreamError::Silent)??;
        if let CoordinatorMessage::Refused(refusal) = message {
            return Err(StreamError::Refused(refusal));
        }
        Ok(message)
    }

    /// The next message. Pings the coordinator meanwhile and ends when it is silent. May be dropped at any time.
    pub async fn receive(&mut self) -> Result<CoordinatorMessage, StreamError> {
        loop {
            let deadline = self.next_ping.min(self.heard + SILENCE);
            let message = match timeout_at(deadline, self.socket.next()).await {
                Ok(None) => return Err(StreamError::Closed),
                Ok(Some(Err(error))) => return Err(broken(&error)),
                Ok(Some(Ok(message))) => message,
                Err(_) => {
                    self.keep_alive().await?;
                    continue;
                }
            };
            self.heard = Instant::now();
            match message {
                Message::Binary(bytes) => {
                    return from_bytes(&bytes).map_err(|error| StreamError::Malformed(error.to_string()));
                }
                Message::Text(_) => return Err(StreamError::Malformed("text instead of CBOR".into())),
                Message::Close(_) => return Err(StreamError::Closed),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Says good-bye; the coordinator marks the node offline at once.
    pub async fn close(mut self) {
        let _ = timeout(Duration::from_millis(300), self.socket.close(None)).await;
    }

    async fn keep_alive(&mut self) -> Result<(), StreamError> {
        let now = Instant::now();
        if now >= self.heard + SILENCE {
            return Err(StreamError::Silent);
        }
        if now >= self.next_ping {
            self.next_ping = now + PING_INTERVAL;
            self.send_raw(Message::Ping(Bytes::new())).await?;
        }
        Ok(())
    }

    async fn send_raw(&mut self, message: Message) -> Result<(), StreamError> {
        let sent = timeout(SILENCE, self.socket.send(message)).await.map_err(|_| StreamError::Silent)?;
        sent.map_err(|error| broken(&error))
    }
}

/// A coordinator that was killed ends its connections without a farewell.
fn broken(error: &Error) -> StreamError {
    if let Error::Io(error) = error
        && error.kind() == std::io::ErrorKind::UnexpectedEof
    {
        return StreamError::Closed;
    }
    StreamError::Broken(error.to_string())
}

/// A message that does not belong here.
pub fn unexpected(expected: &str) -> StreamError {
    StreamError::Malformed(format!("something else than {expected}"))
}
