//! A connection below TLS that reads and writes much at a time, once it is told that it carries traffic.
//!
//! rustls asks for 4 KiB at a time and hands out record by record. Where thousands of records a second pass, as through
//! the relay, that would be a system call for each of them. Until [`Wide::widen`] it costs nothing: thousands of nodes
//! that are merely connected have no buffers here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Read at once: four records of the largest kind, and a bit.
const AHEAD: usize = 68 * 1024;

/// Small records are put together up to this length; what is longer goes out as it is.
const TOGETHER: usize = 16 * 1024;

/// The connection.
#[derive(Debug)]
pub struct Wide<S> {
    stream: S,
    /// Room for what was read ahead; none until it is widened.
    ahead: Box<[u8]>,
    /// Where in it what is not taken yet begins and ends.
    from: usize,
    to: usize,
    /// Records that wait for others.
    behind: Vec<u8>,
    /// How much of them the stream has taken.
    sent: usize,
}

impl<S> Wide<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, ahead: Box::default(), from: 0, to: 0, behind: Vec::new(), sent: 0 }
    }

    /// What is below.
    pub const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// From now on much is read and written at a time. Whoever writes has to flush.
    pub fn widen(&mut self) {
        if !self.is_wide() {
            self.ahead = vec![0; AHEAD].into();
        }
    }

    fn is_wide(&self) -> bool {
        !self.ahead.is_empty()
    }
}

impl<S: AsyncWrite + Unpin> Wide<S> {
    fn poll_send_behind(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.behind.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.behind.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wide<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.from == this.to {
            if buffer.remaining() >= this.ahead.len() {
                return Pin::new(&mut this.stream).poll_read(context, buffer);
            }
            let mut room = ReadBuf::new(&mut this.ahead);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut room))?;
            (this.from, this.to) = (0, room.filled().len());
        }
        let held = this.ahead.get(this.from..this.to).unwrap_or_default();
        let taken = held.get(..buffer.remaining()).unwrap_or(held);
        buffer.put_slice(taken);
        this.from += taken.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wide<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.is_wide() {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        if self.behind.len() + bytes.len() > TOGETHER {
            ready!(self.poll_send_behind(context))?;
        }
        if bytes.len() > TOGETHER / 2 && self.behind.is_empty() {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        self.behind.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_behind(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send_behind(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 7 % 251) as u8).collect()
    }

    #[tokio::test]
    async fn small_writes_wait_for_the_flush_and_large_ones_do_not() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut wide = Wide::new(ours);
        let mut seen = vec![0; 10];
        wide.write_all(&text(10)).await.unwrap();
        theirs.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, text(10), "nothing waits before it is widened");
        wide.widen();
        wide.write_all(&text(1000)).await.unwrap();
        wide.write_all(&text(1000)).await.unwrap();
        let nothing = tokio::time::timeout(std::time::Duration::from_millis(1), theirs.read_u8());
        assert!(nothing.await.is_err());
        wide.flush().await.unwrap();
        let mut seen = vec![0; 2000];
        theirs.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, [text(1000), text(1000)].concat());
        wide.write_all(&text(TOGETHER)).await.unwrap();
        let mut seen = vec![0; TOGETHER];
        theirs.read_exact(&mut seen).await.unwrap();
        wide.write_all(&text(7)).await.unwrap();
        wide.shutdown().await.unwrap();
        seen.clear();
        theirs.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, text(7), "the end takes along what waits");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn bytes_pass_whole_and_in_order_however_they_are_cut(
            writes in proptest::collection::vec(1usize..40_000, 1..12),
            read in 1usize..100_000,
            pipe in 1usize..70_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let all = text(writes.iter().sum());
            let seen = runtime.block_on(async {
                let (ours, theirs) = tokio::io::duplex(pipe);
                let (mut ours, mut theirs) = (Wide::new(ours), Wide::new(theirs));
                ours.widen();
                theirs.widen();
                let writing = async {
                    let mut rest = &all[..];
                    for len in writes {
                        let (now, later) = rest.split_at(len);
                        ours.write_all(now).await.unwrap();
                        rest = later;
                    }
                    ours.shutdown().await.unwrap();
                };
                let reading = async {
                    let (mut seen, mut room) = (Vec::new(), vec![0; read]);
                    loop {
                        match theirs.read(&mut room).await.unwrap() {
                            0 => return seen,
                            count => seen.extend_from_slice(&room[..count]),
                        }
                    }
                };
                tokio::join!(writing, reading).1
            });
            prop_assert!(seen == all);
        }
    }
}
