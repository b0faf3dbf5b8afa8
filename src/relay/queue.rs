//! What waits for a stream: frames in batches, bounded in bytes and in age.
//!
//! TCP delivers everything, however late; a robot's sensor readings are worth nothing after a fifth of a second, and
//! what is sent behind them would wait for them. So what is too old when its turn comes is dropped, and what does not
//! fit is not let in. Probes and all else that is urgent have a lane of their own, before that of packets. Batches, not single frames, pass from thread to thread, and their memory goes back and forth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ria_core::relay::framing;
use ria_core::{Class, SocketIndex, Transmit};
use tokio::sync::mpsc;

/// What is older is dropped.
pub const MAX_AGE: Duration = Duration::from_millis(200);

/// Most bytes that wait: at 10 Mbit/s as much as goes out within the age above.
const MAX_BYTES: usize = 256 * 1024;

/// The same for what is urgent.
const MAX_URGENT: usize = 32 * 1024;

/// A batch is about one TLS record: what is taken is sent whole, so this is also what may go out late.
const BATCH: usize = 16 * 1024;

/// Buffers that are kept for reuse.
const SPARE: usize = 32;

/// Frames that were put in together.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    datagrams: u64,
    at: Option<Instant>,
}

/// What both ends see.
#[derive(Debug, Default)]
struct Shared {
    /// Bytes in the lane of what is urgent, and in the other one.
    waiting: [AtomicUsize; 2],
    stale: AtomicU64,
}

/// The numbers of the two lanes.
const URGENT: usize = 0;
const PACKETS: usize = 1;

/// The end of the packet thread.
#[derive(Debug)]
pub struct Queue {
    batches: [mpsc::UnboundedSender<Batch>; 2],
    spare: mpsc::Receiver<Vec<u8>>,
    shared: Arc<Shared>,
    open: [Batch; 2],
    full: u64,
}

/// The stream's end.
#[derive(Debug)]
pub struct QueueEnd {
    urgent: mpsc::UnboundedReceiver<Batch>,
    packets: mpsc::UnboundedReceiver<Batch>,
    spare: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
}

/// The queues of all streams, by their numbers.
#[derive(Debug, Default)]
pub struct StreamQueues {
    queues: BTreeMap<SocketIndex, Queue>,
    /// What was dropped for streams that are no more, or not there: stale, and full.
    past: (u64, u64),
}

impl StreamQueues {
    /// A stream is there.
    pub fn add(&mut self, socket: SocketIndex, queue: Queue) {
        self.remove(socket);
        self.queues.insert(socket, queue);
    }

    /// It is gone.
    pub fn remove(&mut self, socket: SocketIndex) {
        if let Some(queue) = self.queues.remove(&socket) {
            self.past = (self.past.0 + queue.stale(), self.past.1 + queue.full());
        }
    }

    /// Takes datagrams for one of them.
    pub fn push(&mut self, transmit: &Transmit<'_>) {
        let now = Instant::now();
        match self.queues.get_mut(&transmit.socket) {
            Some(queue) => {
                let urgent = transmit.class == Class::Urgent;
                transmit.datagrams().for_each(|datagram| queue.push(datagram, urgent, now));
            }
            None => self.past.0 += transmit.datagrams().count() as u64,
        }
    }

    /// Hands over what was put in.
    pub fn flush(&mut self) {
        self.queues.values_mut().for_each(Queue::flush);
    }

    /// Datagrams dropped since the start: because they were too old, and for want of room.
    pub fn dropped(&self) -> (u64, u64) {
        let add = |(stale, full), queue: &Queue| (stale + queue.stale(), full + queue.full());
        self.queues.values().fold(self.past, add)
    }
}

/// An empty queue.
pub fn new() -> (Queue, QueueEnd) {
    let (to_urgent, urgent) = mpsc::unbounded_channel();
    let (to_packets, packets) = mpsc::unbounded_channel();
    let (back, spare) = mpsc::channel(SPARE);
    let shared = Arc::new(Shared::default());
    let batches = [to_urgent, to_packets];
    let queue = Queue { batches, spare, shared: shared.clone(), open: <[Batch; 2]>::default(), full: 0 };
    (queue, QueueEnd { urgent, packets, spare: back, shared })
}

impl Queue {
    /// Puts a datagram in, as long as there is room. It waits with others for [`Self::flush`].
    pub fn push(&mut self, datagram: &[u8], urgent: bool, now: Instant) {
        let (lane, most) = if urgent { (URGENT, MAX_URGENT) } else { (PACKETS, MAX_BYTES) };
        let len = datagram.len() + framing::padding(datagram.len());
        let waiting = self.shared.waiting[lane].load(Ordering::Relaxed) + self.open[lane].bytes.len();
        if waiting + len > most {
            self.full += 1;
            return;
        }
        if self.open[lane].bytes.len() + len > BATCH {
            self.hand_over(lane);
        }
        let open = &mut self.open[lane];
        if open.bytes.capacity() == 0 {
            open.bytes = self.spare.try_recv().unwrap_or_default();
        }
        framing::push(datagram, &mut open.bytes);
        open.datagrams += 1;
        open.at.get_or_insert(now);
    }

    /// Hands over what was put in.
    pub fn flush(&mut self) {
        self.hand_over(URGENT);
        self.hand_over(PACKETS);
    }

    fn hand_over(&mut self, lane: usize) {
        if self.open[lane].datagrams == 0 {
            return;
        }
        let batch = std::mem::take(&mut self.open[lane]);
        self.shared.waiting[lane].fetch_add(batch.bytes.len(), Ordering::Relaxed);
        // A stream that is being ended takes nothing any more.
        let _ = self.batches[lane].send(batch);
    }

    /// Datagrams that were too old when their turn came.
    pub fn stale(&self) -> u64 {
        self.shared.stale.load(Ordering::Relaxed)
    }

    /// Datagrams for which there was no room.
    pub fn full(&self) -> u64 {
        self.full
    }
}

impl QueueEnd {
    /// The next batch that is young enough; `None` when the other end is gone. Give its memory back with
    /// [`Self::recycle`].
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let (lane, batch) = tokio::select! {
                biased;
                Some(batch) = self.urgent.recv() => (URGENT, batch),
                Some(batch) = self.packets.recv() => (PACKETS, batch),
                else => return None,
            };
            self.shared.waiting[lane].fetch_sub(batch.bytes.len(), Ordering::Relaxed);
            if batch.at.is_none_or(|at| at.elapsed() <= MAX_AGE) {
                return Some(batch.bytes);
            }
            self.drop_stale(batch);
        }
    }

    /// Drops all that waits: it was for a connection that is gone.
    pub fn clear(&mut self) {
        for lane in [URGENT, PACKETS] {
            while let Ok(batch) = if lane == URGENT { &mut self.urgent } else { &mut self.packets }.try_recv()
            {
                self.shared.waiting[lane].fetch_sub(batch.bytes.len(), Ordering::Relaxed);
                self.drop_stale(batch);
            }
        }
    }

    fn drop_stale(&self, batch: Batch) {
        self.shared.stale.fetch_add(batch.datagrams, Ordering::Relaxed);
        self.recycle(batch.bytes);
    }

    /// Takes memory back.
    pub fn recycle(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        // There is enough of it.
        let _ = self.spare.try_send(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATAGRAM: [u8; 101] = [0x40; 101];

    #[tokio::test]
    async fn what_is_old_when_its_turn_comes_is_dropped_and_counted() {
        let (mut queue, mut end) = new();
        let now = Instant::now();
        let long_ago = now.checked_sub(MAX_AGE * 2).unwrap();
        queue.push(&DATAGRAM, false, long_ago);
        queue.push(&DATAGRAM, false, now);
        queue.flush();
        queue.push(&DATAGRAM, false, now);
        queue.flush();
        let young = end.next().await.unwrap();
        assert_eq!((young.len(), queue.stale()), (104, 2), "a batch is as old as the first in it");
        assert_eq!(young[101..], [0; 3]);
    }

    #[tokio::test]
    async fn no_more_waits_than_fits_and_memory_goes_back_and_forth() {
        let (mut queue, mut end) = new();
        let now = Instant::now();
        for _ in 0..10_000 {
            queue.push(&DATAGRAM, false, now);
        }
        queue.flush();
        let fit = (MAX_BYTES / 104) as u64;
        assert_eq!(queue.full(), 10_000 - fit);
        let mut taken = 0;
        while queue.shared.waiting[PACKETS].load(Ordering::Relaxed) > 0 {
            let batch = end.next().await.unwrap();
            assert!(batch.len() <= BATCH);
            taken += batch.len() / 104;
            end.recycle(batch);
        }
        assert_eq!(taken as u64, fit);
        queue.push(&DATAGRAM, false, now);
        assert!(queue.open[PACKETS].bytes.capacity() > 1000, "a used buffer");
    }

    #[tokio::test]
    async fn what_is_urgent_goes_before_all_packets_and_fits_when_they_do_not() {
        let (mut queue, mut end) = new();
        let now = Instant::now();
        for _ in 0..10_000 {
            queue.push(&DATAGRAM, false, now);
        }
        queue.push(&[0x41; 20], true, now);
        queue.flush();
        assert_eq!(end.next().await.unwrap(), [0x41; 20]);
        assert!(end.next().await.unwrap().len() > 1000);
        let many = MAX_URGENT / 20 + 7;
        let full = queue.full();
        (0..many).for_each(|_| queue.push(&[0x41; 20], true, now));
        assert!(queue.full() - full >= 7, "it has its bounds too");
    }

    #[tokio::test]
    async fn the_end_of_one_side_is_noticed_by_the_other() {
        let (mut queue, end) = new();
        drop(end);
        queue.push(&DATAGRAM, false, Instant::now());
        queue.flush();
        let (queue, mut end) = new();
        drop(queue);
        assert_eq!(end.next().await, None);
    }
}
