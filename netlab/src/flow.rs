//! Traffic: small datagrams from host to host at a steady pace, and when which of them arrived.
//!
//! One thread sends for all flows, one per host receives. All share the clock of this process, so times of sending in
//! one host and of arriving in another compare.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::host::Host;

/// Port that all receivers listen on.
const PORT: u16 = 40_404;

/// How soon a thread notices that it is to end.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// One end of a flow.
#[derive(Debug, Clone)]
pub struct FlowEnd {
    /// The host.
    pub host: Host,
    /// Its address for this traffic.
    pub address: IpAddr,
}

#[derive(Debug, Default)]
struct Lane {
    sent: AtomicU64,
    received: AtomicU64,
    last: Mutex<Option<Instant>>,
}

/// Running flows; they end when this is dropped.
#[derive(Debug)]
pub struct Flows {
    lanes: Arc<Vec<Lane>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flows {
    /// Starts a flow for each pair of ends, from the first to the second, a datagram every `pace`.
    pub fn start(pairs: &[(FlowEnd, FlowEnd)], pace: Duration) -> io::Result<Self> {
        let lanes: Arc<Vec<Lane>> = Arc::new(pairs.iter().map(|_| Lane::default()).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let mut flows = Self { lanes: lanes.clone(), stop: stop.clone(), threads: Vec::new() };
        let mut listening: Vec<&str> = Vec::new();
        for (_, to) in pairs {
            if listening.contains(&to.host.name()) {
                continue;
            }
            listening.push(to.host.name());
            // To any address, so that it outlives the interface that datagrams come by.
            let socket = to.host.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
            socket.set_read_timeout(Some(STOP_CHECK))?;
            let (lanes, stop) = (lanes.clone(), stop.clone());
            flows.threads.push(std::thread::spawn(move || receive(&socket, &lanes, &stop)));
        }
        let mut senders = Vec::new();
        for (from, to) in pairs {
            let socket = from.host.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
            socket.set_nonblocking(true)?;
            senders.push((socket, SocketAddr::new(to.address, PORT)));
        }
        flows.threads.push(std::thread::spawn(move || send(&senders, &lanes, pace, &stop)));
        Ok(flows)
    }

    /// How many datagrams of a flow have arrived.
    pub fn received(&self, flow: usize) -> u64 {
        self.lanes.get(flow).map_or(0, |lane| lane.received.load(Ordering::Relaxed))
    }

    /// How many datagrams of a flow the kernel took.
    pub fn sent(&self, flow: usize) -> u64 {
        self.lanes.get(flow).map_or(0, |lane| lane.sent.load(Ordering::Relaxed))
    }

    /// When the last datagram of a flow arrived.
    pub fn last_arrival(&self, flow: usize) -> Option<Instant> {
        self.lanes.get(flow).and_then(|lane| *lane.last.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn send(senders: &[(UdpSocket, SocketAddr)], lanes: &[Lane], pace: Duration, stop: &AtomicBool) {
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for (flow, ((socket, to), lane)) in senders.iter().zip(lanes).enumerate() {
            // Refused where the interface is away: then nothing flows, which is what is looked at.
            if socket.send_to(&(flow as u32).to_be_bytes(), to).is_ok() {
                lane.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        due += pace;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn receive(socket: &UdpSocket, lanes: &[Lane], stop: &AtomicBool) {
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        let Ok(len) = socket.recv(&mut buffer) else { continue };
        let flow = buffer.get(..len).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        if let Some(lane) = flow.and_then(|flow| lanes.get(flow as usize)) {
            lane.received.fetch_add(1, Ordering::Relaxed);
            *lane.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }
}
