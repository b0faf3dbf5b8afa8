//! A stream of which one byte has been read already, and streams as the relay takes them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::wide::Wide;

/// Gives the first byte before the rest.
#[derive(Debug)]
pub struct Begun<S> {
    stream: S,
    first: Option<u8>,
}

impl<S> Begun<S> {
    pub fn new(stream: S, first: u8) -> Self {
        Self { stream, first: Some(first) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What TURN may be spoken over.
pub trait TurnStream: AsyncRead + AsyncWrite {
    /// Whether it is TLS of a client that did not say what it speaks.
    const IS_UNNAMED: bool = false;

    /// The connection below.
    fn tcp(&self) -> &TcpStream;

    /// Much is going to pass.
    fn widen(&mut self);
}

impl TurnStream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }

    fn widen(&mut self) {}
}

impl TurnStream for TlsStream<Wide<TcpStream>> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0.get_ref()
    }

    fn widen(&mut self) {
        self.get_mut().0.widen();
    }
}

impl<S: TurnStream + Unpin> TurnStream for Begun<S> {
    const IS_UNNAMED: bool = true;

    fn tcp(&self) -> &TcpStream {
        self.stream.tcp()
    }

    fn widen(&mut self) {
        self.stream.widen();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn nothing_is_lost_or_moved() {
        let mut text = Vec::new();
        Begun::new(&b"urn"[..], b't').read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"turn");
        let mut none = [0; 0];
        let mut begun = Begun::new(&b"b"[..], b'a');
        assert_eq!(begun.read(&mut none).await.unwrap(), 0);
        assert_eq!((begun.read_u8().await.unwrap(), begun.read_u8().await.unwrap()), (b'a', b'b'));
    }
}
