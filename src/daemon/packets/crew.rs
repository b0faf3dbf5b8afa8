//! Threads that seal and open packets for the packet thread, where the machine has the cores for it.
//!
//! ```text
//!   packet thread --parcels--> ria-shard-1 --the same parcels--> packet thread
//! ```
//!
//! Each owns the sessions of its peers and does nothing else: interfaces, sockets and all decisions stay with the packet thread.
//! It waits for parcels, or for the time at which something of its own is due.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use ria_core::{Parcel, ShardWorker};
use tokio::sync::{mpsc, oneshot};

use super::{Mover, PacketStatus};
use crate::netdev::udp::Udp;

/// Parcels that are seen to before other things have their turn.
const TURN: usize = 16;

/// A parcel that comes back.
pub struct Done {
    /// From which worker.
    pub worker: usize,
    /// With what came of it.
    pub parcel: Box<Parcel>,
}

/// All workers. Dropping it ends them.
pub struct Crew {
    hands: Vec<Hand>,
    /// Whether one of them is gone.
    ended: bool,
}

struct Hand {
    inbox: Option<SyncSender<Box<Parcel>>>,
    thread: Option<JoinHandle<()>>,
}

impl Crew {
    /// Starts a thread for each; what they have done goes to `done`.
    pub fn start(workers: Vec<ShardWorker>, done: &mpsc::UnboundedSender<Done>) -> io::Result<Self> {
        let mut crew = Self { hands: Vec::with_capacity(workers.len()), ended: false };
        for (number, worker) in workers.into_iter().enumerate() {
            // There are no more parcels than this, so nobody ever waits to put one in.
            let (inbox, parcels) = sync_channel(Parcel::MAX);
            let done = done.clone();
            let thread = std::thread::Builder::new()
                .name(format!("ria-shard-{}", number + 1))
                .spawn(move || work(worker, number, &parcels, &done))?;
            crew.hands.push(Hand { inbox: Some(inbox), thread: Some(thread) });
        }
        Ok(crew)
    }

    /// Whether the packet thread is alone.
    pub fn is_empty(&self) -> bool {
        self.hands.is_empty()
    }

    /// Whether a worker is gone, which none should be while the packet thread is there.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Brings a parcel to a worker.
    fn carry(&mut self, worker: usize, parcel: Box<Parcel>) {
        let inbox = self.hands.get(worker).and_then(|hand| hand.inbox.as_ref());
        self.ended |= inbox.is_none_or(|inbox| inbox.send(parcel).is_err());
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.hands.iter_mut().for_each(|hand| hand.inbox = None);
        for thread in self.hands.iter_mut().filter_map(|hand| hand.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn work(
    mut worker: ShardWorker,
    number: usize,
    parcels: &Receiver<Box<Parcel>>,
    done: &mpsc::UnboundedSender<Done>,
) {
    loop {
        let next = match worker.poll_timeout() {
            Some(due) => parcels.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => parcels.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let parcel = match next {
            Ok(mut parcel) => {
                worker.handle(&mut parcel, Instant::now());
                Some(parcel)
            }
            Err(RecvTimeoutError::Timeout) => worker.handle_timeout(Instant::now()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let told = parcel.map_or(Ok(()), |parcel| done.send(Done { worker: number, parcel }));
        if told.is_err() {
            return;
        }
    }
}

impl Mover {
    /// Brings the crew what there is for it.
    pub(super) fn hand_over(&mut self) {
        while let Some((worker, parcel)) = self.engine.poll_parcel() {
            self.crew.carry(worker, parcel);
        }
    }

    /// Sends and writes what the crew has done, in the order in which it comes.
    pub(super) fn settle(&mut self, done: Done) {
        let mut next = Some(done);
        let mut left = TURN;
        while let Some(Done { worker, mut parcel }) = next {
            let now = Instant::now();
            self.engine.handle_parcel(worker, &mut parcel, now);
            std::mem::swap(&mut self.to_interfaces, &mut parcel.tun);
            self.write_interfaces();
            std::mem::swap(&mut self.to_interfaces, &mut parcel.tun);
            std::mem::swap(&mut self.to_udp, &mut parcel.udp);
            self.send_batch(now);
            std::mem::swap(&mut self.to_udp, &mut parcel.udp);
            self.engine.recycle(worker, parcel);
            // What is to go right behind it, and what there is for the crew now.
            self.flush();
            left -= 1;
            next = if left > 0 { self.inboxes.done.try_recv().ok() } else { None };
        }
        if !self.asked.is_empty() && self.engine.have_workers_told() {
            let status = self.status();
            // Who asked may have gone away meanwhile.
            self.asked.drain(..).for_each(|reply| drop(reply.send(status.clone())));
        }
    }

    /// Tells the state, as soon as the crew has told what only it knows.
    pub(super) fn tell(&mut self, reply: oneshot::Sender<PacketStatus>) {
        if self.crew.is_empty() {
            let _ = reply.send(self.status());
            return;
        }
        self.asked.push(reply);
        self.engine.ask_workers();
    }

    fn status(&self) -> PacketStatus {
        let (stream_stale, stream_full) = self.streams.dropped();
        PacketStatus {
            engine: self.engine.status(Instant::now()),
            send_refused: self.sockets.iter().map(|socket| socket.refused).sum::<u64>() + self.socket_missing,
            send_stale: self.backlog.stale,
            send_full: self.backlog.full,
            interface_refused: self.interface_refused,
            interface_full: self.interfaces.iter().map(|i| i.device.overflowed()).sum(),
            receive_full: self.sockets.iter().map(Udp::overflowed).sum(),
            stream_stale,
            stream_full,
        }
    }
}
