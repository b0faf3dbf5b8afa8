//! Moves the bytes of one client's stream until something ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::queue::{self, Allocated, QueueEnd};
use super::{Ends, NewStream, StreamNews, framing};
use crate::accept_gate::AnonymousSlot;
use crate::relay::counters::{Counters, DropReason};

/// Read at once, as a rule; a longer message gets the room that it needs.
const READ: usize = 16 * 1024;

/// A client that takes nothing for so long is gone, or might as well be.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Through which streams come to a running relay.
#[derive(Debug, Clone)]
pub struct StreamDoor {
    news: mpsc::Sender<StreamNews>,
    numbers: Arc<AtomicU64>,
    counters: Arc<Counters>,
}

impl StreamDoor {
    pub(in crate::relay) fn new(news: mpsc::Sender<StreamNews>, counters: Arc<Counters>) -> Self {
        Self { news, numbers: Arc::default(), counters }
    }

    /// Serves a client over its stream until one of the two, or the relay, ends it. While it has shown no credentials,
    /// it keeps `slot`.
    pub async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite,
        ends: Ends,
        slot: Option<AnonymousSlot>,
    ) -> io::Result<()> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (queue, end) = queue::new(self.counters.clone());
        let new = NewStream { number, ends, queue, slot };
        self.tell(StreamNews::Opened(Box::new(new))).await?;
        let (reader, writer) = tokio::io::split(stream);
        let allocated = end.allocated();
        let served = tokio::select! {
            served = self.receive(reader, number, allocated) => served,
            served = send(writer, end, ends.one_by_one) => served,
        };
        self.tell(StreamNews::Closed(number)).await?;
        served
    }

    async fn tell(&self, news: StreamNews) -> io::Result<()> {
        self.news.send(news).await.map_err(|_| io::Error::other("the relay has stopped"))
    }

    async fn receive(
        &self,
        mut reader: impl AsyncRead + Unpin,
        number: u64,
        allocated: Allocated,
    ) -> io::Result<()> {
        let mut held = BytesMut::new();
        loop {
            held.reserve(READ);
            if reader.read_buf(&mut held).await? == 0 {
                return Ok(());
            }
            let whole = framing::whole(&held, allocated.get()).map_err(|error| {
                self.counters.dropped(DropReason::Malformed, 1);
                io::Error::new(io::ErrorKind::InvalidData, error)
            })?;
            if whole > 0 {
                self.tell(StreamNews::Frames(number, held.split_to(whole))).await?;
            }
        }
    }
}

async fn send(mut writer: impl AsyncWrite + Unpin, mut queue: QueueEnd, one_by_one: bool) -> io::Result<()> {
    while let Some(batch) = queue.next().await {
        let written = timeout(WRITE_PATIENCE, async {
            let mut rest = &batch[..];
            while !rest.is_empty() {
                let first = framing::head(rest).ok().flatten().map_or(rest.len(), |frame| frame.padded);
                let len = if one_by_one { first.min(rest.len()) } else { rest.len() };
                let (now, later) = rest.split_at(len);
                writer.write_all(now).await?;
                rest = later;
            }
            writer.flush().await
        });
        written.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    }
    // A proper end, for clients that tell it from a broken connection.
    timeout(WRITE_PATIENCE, writer.shutdown()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
