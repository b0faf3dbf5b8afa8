//! A steady stream from one robot to another, and the longest time in which nothing of it arrived.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use netlab::Host;

use crate::support::LIMIT;

const PORT: u16 = 9100;

/// Time between two messages, which is the resolution.
const INTERVAL: Duration = Duration::from_millis(2);

/// How soon threads notice that they are to end.
const STOP_CHECK: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
struct Arrivals {
    last: Instant,
    longest: Duration,
}

/// A running stream; it ends when this is dropped.
pub struct Meter {
    arrivals: Arc<Mutex<Arrivals>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Meter {
    /// 500 datagrams a second.
    pub fn udp(from: &Host, to: &Host, address: &str) -> Result<Self> {
        let target = SocketAddr::new(address.parse()?, PORT);
        let receiver = to.enter(|| UdpSocket::bind(("0.0.0.0", PORT)))?;
        receiver.set_read_timeout(Some(STOP_CHECK))?;
        let sender = from.enter(|| UdpSocket::bind(("0.0.0.0", 0)))?;
        let send = move || {
            // Refused while there is no way: then nothing arrives, which is what is measured.
            let _ = sender.send_to(&[7; 200], target);
            true
        };
        Ok(Self::start(send, move || receiver.recv(&mut [0; 256]).is_ok()))
    }

    /// One TCP stream, 500 writes a second.
    pub fn tcp(from: &Host, to: &Host, address: &str) -> Result<Self> {
        let target = SocketAddr::new(address.parse()?, PORT);
        let listener = to.enter(|| TcpListener::bind(target))?;
        let mut sender = from.enter(|| TcpStream::connect_timeout(&target, LIMIT))?;
        sender.set_nodelay(true)?;
        sender.set_write_timeout(Some(LIMIT))?;
        let (mut receiver, _) = listener.accept()?;
        receiver.set_read_timeout(Some(STOP_CHECK))?;
        let send = move || sender.write_all(&[7; 1000]).is_ok();
        Ok(Self::start(send, move || receiver.read(&mut [0; 65_536]).is_ok_and(|count| count > 0)))
    }

    fn start(
        mut send: impl FnMut() -> bool + Send + 'static,
        mut arrives: impl FnMut() -> bool + Send + 'static,
    ) -> Self {
        let now = Arrivals { last: Instant::now(), longest: Duration::ZERO };
        let (arrivals, stop) = (Arc::new(Mutex::new(now)), Arc::new(AtomicBool::new(false)));
        let (told, ended) = (arrivals.clone(), stop.clone());
        let receiver = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if arrives() {
                    let mut arrivals = told.lock().unwrap_or_else(PoisonError::into_inner);
                    arrivals.longest = arrivals.longest.max(arrivals.last.elapsed());
                    arrivals.last = Instant::now();
                }
            }
        });
        let ended = stop.clone();
        let sender = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) && send() {
                std::thread::sleep(INTERVAL);
            }
        });
        Self { arrivals, stop, threads: vec![receiver, sender] }
    }

    fn look(&self) -> std::sync::MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets pauses of before.
    pub fn reset(&self) {
        self.look().longest = Duration::ZERO;
    }

    /// The longest pause since then, the present one included.
    pub fn longest(&self) -> Duration {
        let arrivals = self.look();
        arrivals.longest.max(arrivals.last.elapsed())
    }

    /// When something arrived last.
    pub fn last(&self) -> Instant {
        self.look().last
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
