//! What waits for one client's stream, bounded in bytes and in age.
//!
//! TCP delivers everything, however late. What is relayed is worth nothing after a fifth of a second, and what is sent
//! behind it would wait for it; so what is too old when its turn comes is dropped, and what does not fit is not let in.
//! Answers to the client's own requests are not dropped for their age: over a stream it asks only once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::framing;
use crate::relay::counters::{Counters, DropReason};

/// What is older is dropped.
const MAX_AGE: Duration = Duration::from_millis(200);

/// Most bytes that wait for one client.
const MAX_BYTES: usize = 512 * 1024;

/// A batch is about one TLS record: what is taken is sent whole.
const BATCH: usize = 16 * 1024;

/// Frames that were put in together.
#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    datagrams: u64,
    at: Instant,
    /// It has answers in it.
    lasting: bool,
}

/// What both ends see.
#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    has_allocation: AtomicBool,
}

/// The relay's end.
#[derive(Debug)]
pub(super) struct Queue {
    batches: mpsc::UnboundedSender<Batch>,
    shared: Arc<Shared>,
    open: Option<Batch>,
}

/// The stream's end.
#[derive(Debug)]
pub(super) struct QueueEnd {
    batches: mpsc::UnboundedReceiver<Batch>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
}

/// An empty queue.
pub(super) fn new(counters: Arc<Counters>) -> (Queue, QueueEnd) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::default());
    let queue = Queue { batches: sender, shared: shared.clone(), open: None };
    (queue, QueueEnd { batches: receiver, shared, counters })
}

impl Queue {
    /// Puts a datagram in; `false` when there is no room. It waits with others for [`Self::flush`].
    pub(super) fn push(&mut self, datagram: &[u8], lasting: bool, now: Instant) -> bool {
        let begun = self.open.as_ref().map_or(0, |batch| batch.bytes.len());
        let waiting = self.shared.waiting.load(Ordering::Relaxed) + begun;
        if waiting + datagram.len() > MAX_BYTES {
            return false;
        }
        if begun > 0 && begun + datagram.len() > BATCH {
            self.flush();
        }
        let empty = || Batch { bytes: Vec::with_capacity(BATCH), datagrams: 0, at: now, lasting: false };
        let batch = self.open.get_or_insert_with(empty);
        framing::push(datagram, &mut batch.bytes);
        batch.datagrams += 1;
        batch.lasting |= lasting;
        true
    }

    /// Hands over what was put in.
    pub(super) fn flush(&mut self) {
        let Some(batch) = self.open.take() else { return };
        self.shared.waiting.fetch_add(batch.bytes.len(), Ordering::Relaxed);
        // A stream that has ended takes nothing any more.
        let _ = self.batches.send(batch);
    }

    /// The client has an allocation now: it may send long messages.
    pub(super) fn set_allocated(&self) {
        self.shared.has_allocation.store(true, Ordering::Relaxed);
    }
}

impl QueueEnd {
    /// The next batch that is young enough; `None` when the relay wants the stream ended.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let batch = self.batches.recv().await?;
            self.shared.waiting.fetch_sub(batch.bytes.len(), Ordering::Relaxed);
            if batch.lasting || batch.at.elapsed() <= MAX_AGE {
                return Some(batch.bytes);
            }
            self.counters.dropped(DropReason::StreamStale, batch.datagrams);
        }
    }

    /// Tells whether the client has an allocation.
    pub(super) fn allocated(&self) -> Allocated {
        Allocated(self.shared.clone())
    }
}

/// Whether a client has an allocation, for who reads what it sends.
#[derive(Debug)]
pub(super) struct Allocated(Arc<Shared>);

impl Allocated {
    pub(super) fn get(&self) -> bool {
        self.0.has_allocation.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAM: [u8; 104] = [0x55; 104];

    #[tokio::test]
    async fn what_is_old_is_dropped_and_counted_but_answers_are_not() {
        let counters = Arc::new(Counters::default());
        let (mut queue, mut end) = new(counters.clone());
        let now = Instant::now();
        let long_ago = now.checked_sub(MAX_AGE * 2).unwrap();
        assert!(queue.push(&DATAGRAM, false, long_ago) && queue.push(&DATAGRAM, false, now));
        queue.flush();
        assert!(queue.push(&DATAGRAM, true, long_ago));
        queue.flush();
        assert!(queue.push(&DATAGRAM, false, now));
        queue.flush();
        assert_eq!((end.next().await.unwrap().len(), end.next().await.unwrap().len()), (104, 104));
        assert_eq!(counters.read().dropped(DropReason::StreamStale), 2);
        drop(queue);
        assert_eq!(end.next().await, None);
    }

    #[tokio::test]
    async fn no_more_waits_than_fits() {
        let (mut queue, mut end) = new(Arc::default());
        let now = Instant::now();
        let fit = (0..100_000).filter(|_| queue.push(&DATAGRAM, false, now)).count();
        queue.flush();
        assert_eq!(fit, MAX_BYTES / 104);
        let first = end.next().await.unwrap();
        assert!(first.len() <= BATCH && first.len() > BATCH - 104);
        assert!(queue.push(&DATAGRAM, false, now), "there is room again");
    }
}
