//! A box with two ports: one thread that moves frames between two interfaces as its work says. The work itself knows
//! neither sockets nor clocks.
//!
//! The thread is the one owner of the work; whoever wants something of it sends a question. It ends with its handle.

pub mod port;
pub mod router;
pub mod wire;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use port::{Frame, Port};

/// What a box does with frames.
pub trait Work: Send + 'static {
    /// A frame came in by a port, 0 or 1.
    fn handle_frame(&mut self, port: usize, frame: Frame, now: Instant);

    /// Hands out what is to leave by either port now.
    fn poll_frames(&mut self, now: Instant, out: &mut [Vec<Frame>; 2]);

    /// When there is something to do without a frame that comes in.
    fn next_due(&self) -> Option<Instant>;
}

type Job<W> = Box<dyn FnOnce(&mut W, Instant) + Send>;

/// A handle on a box that runs; dropping it stops the box.
#[derive(Debug)]
pub struct Emulator<W> {
    jobs: Sender<Job<W>>,
    /// A byte wakes the thread; its end ends the thread.
    wake: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl<W: Work> Emulator<W> {
    /// Starts a box between two ports.
    pub fn start(name: &str, ports: [Port; 2], work: W) -> io::Result<Self> {
        let (jobs, inbox) = channel();
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let run = move || Running { ports, work, inbox, woken }.run();
        // The kernel shows the first 15 letters.
        let thread = std::thread::Builder::new().name(name.chars().take(15).collect()).spawn(run)?;
        Ok(Self { jobs, wake: Some(wake), thread: Some(thread) })
    }

    /// Has the box's thread do something with the work, and waits for what it gives.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut W, Instant) -> T + Send + 'static,
    ) -> io::Result<T> {
        let ended = || io::Error::other("the emulator has ended");
        let (reply, answer) = channel();
        let job: Job<W> = Box::new(move |work, now| {
            let _ = reply.send(question(work, now));
        });
        self.jobs.send(job).map_err(|_| ended())?;
        if let Some(mut wake) = self.wake.as_ref() {
            // When it is full, the thread is being woken already.
            let _ = io::Write::write(&mut wake, &[0]);
        }
        answer.recv().map_err(|_| ended())
    }
}

impl<W> Drop for Emulator<W> {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Running<W> {
    ports: [Port; 2],
    work: W,
    inbox: Receiver<Job<W>>,
    woken: UnixStream,
}

impl<W: Work> Running<W> {
    fn run(mut self) {
        let mut out = [Vec::new(), Vec::new()];
        let mut arrived = Vec::new();
        loop {
            let now = Instant::now();
            if !self.do_jobs(now) {
                return;
            }
            self.work.poll_frames(now, &mut out);
            for (port, frames) in self.ports.iter_mut().zip(&mut out) {
                port.send(frames);
            }
            let patience = self.work.next_due().map(|due| due.saturating_duration_since(Instant::now()));
            let ready = match self.wait(patience) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
            };
            for (number, port) in self.ports.iter_mut().enumerate() {
                if !ready[number] {
                    continue;
                }
                // An error here says that the interface is down or gone; then nothing comes in until it is up again.
                let _ = port.receive(&mut arrived);
                let now = Instant::now();
                arrived.drain(..).for_each(|frame| self.work.handle_frame(number, frame, now));
            }
        }
    }

    /// False when the handle is gone.
    fn do_jobs(&mut self, now: Instant) -> bool {
        let mut bytes = [0; 64];
        match io::Read::read(&mut self.woken, &mut bytes) {
            Ok(0) => return false,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return false,
            Ok(_) | Err(_) => {}
        }
        loop {
            match self.inbox.try_recv() {
                Ok(job) => job(&mut self.work, now),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Which ports have something, after they do, or the time is over, or somebody asks.
    fn wait(&self, patience: Option<Duration>) -> Result<[bool; 2], nix::errno::Errno> {
        let [first, second] = &self.ports;
        let mut ends = [first.as_fd(), second.as_fd(), self.woken.as_fd()]
            .map(|end| PollFd::new(end, PollFlags::POLLIN));
        ppoll(&mut ends, patience.map(TimeSpec::from_duration), None)?;
        let is_ready = |end: &PollFd<'_>| end.any().unwrap_or(true);
        Ok([is_ready(&ends[0]), is_ready(&ends[1])])
    }
}
