//! Writes state in the background, in order, so that a slow disk delays neither packets nor the agent's loop.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use minicbor::Encode;
use ria_protocol::id::NetworkId;
use tokio::sync::mpsc::UnboundedSender;
use zeroize::Zeroizing;

use super::{Part, StateDir, file};

/// A write has ended.
#[derive(Debug)]
pub struct Saved {
    /// Which network.
    pub network: NetworkId,
    /// Which part of it.
    pub part: Part,
    /// The number that came with the order.
    pub ticket: u64,
    /// How it went.
    pub result: io::Result<()>,
}

struct Job {
    network: NetworkId,
    part: Part,
    ticket: u64,
    bytes: Zeroizing<Vec<u8>>,
}

/// The door to the thread that writes. Dropping it waits for what is under way.
#[derive(Debug)]
pub struct Saver {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Saver {
    /// Starts the thread; each write ends in one message to `done`.
    pub fn start(state: Arc<StateDir>, done: UnboundedSender<Saved>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name("ria-state".into()).spawn(move || {
            for job in queue {
                let result = state.put(job.network, job.part, &job.bytes);
                let saved = Saved { network: job.network, part: job.part, ticket: job.ticket, result };
                // Nobody listens any more while the agent stops; what is queued is still written.
                let _ = done.send(saved);
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Orders a write.
    pub fn put<T: Encode<()>>(&self, network: NetworkId, part: Part, value: &T, ticket: u64) {
        let job = Job { network, part, ticket, bytes: file::encode(value) };
        if self.jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
            tracing::error!("the thread that saves the state has ended");
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
