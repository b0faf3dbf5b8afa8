//! The packet thread: owns the engine, the UDP sockets and the overlay interfaces, and moves packets between them.
//!
//! ```text
//!   riaN --read--> engine.handle_tun --> datagrams --> UDP
//!   riaN <-write-- engine.handle_udp <-- datagrams <-- UDP, streams to relays
//! ```
//!
//! It is a thread of its own with a runtime of its own, because packets must not wait for what the agent's loop does:
//! TLS handshakes, map folding, D-Bus calls, fsync. The two exchange messages; nothing is shared. All buffers are made
//! once; per packet there is no allocation. Where there are cores for it, other threads ([`crew`]) seal and open the packets of
//! some peers; all input and output stays here. Each turn takes a bounded batch from every source in turn, so that neither
//! direction, no network and no order starves another.

mod crew;

use std::io;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ria_core::offload::Coalescer;
use ria_core::relay::framing;
use ria_core::{
    Class, Command, CommandError, DatagramBatch, Engine, EngineConfig, EngineStatus, Event, PacketBatch,
    Received, Sinks, SocketIndex, StreamNews, Transmit,
};
use ria_protocol::id::NetworkId;
use tokio::sync::{mpsc, oneshot};
use tun_rs::SyncDevice;

use crate::beacon::{self, Heard};
use crate::netdev::backlog::Backlog;
use crate::netdev::clock;
use crate::netdev::frames::{Frames, PacketDevice};
use crate::netdev::keep;
use crate::netdev::udp::{self, BoundUdp, Sent, Udp};
use crate::relay::queue::{Queue, StreamQueues};
use crate::relay::{self, FromStream, StreamEvent};
use crew::{Crew, Done};

/// UDP batches taken per turn; each is up to 8 receive runs, ...
const UDP_ROUNDS: usize = 4;

/// ... and no more bytes than this, so that what the interfaces have does not wait: a third of a millisecond's work.
const UDP_TURN_BYTES: usize = 256 << 10;

/// How soon it is tried again to send what the kernel had no room for.
const SEND_AGAIN: Duration = Duration::from_millis(2);

/// What the thread is started with.
pub struct Settings {
    /// Seed of the engine's randomness.
    pub seed: [u8; 32],
    /// Whether datagrams bear the DSCP of the packets in them.
    pub copies_dscp: bool,
    /// How many threads packets pass through, this one included.
    pub threads: usize,
}

/// From the agent's loop.
pub enum Order {
    /// For the engine.
    Engine(Command, oneshot::Sender<Result<(), CommandError>>),
    /// This interface carries a network's packets.
    Attach(NetworkId, SyncDevice),
    /// Remove a network's interface.
    Detach(NetworkId, oneshot::Sender<()>),
    /// Datagrams for this stream to a relay go here.
    Stream(SocketIndex, Queue),
    /// The stream is no more.
    EndStream(SocketIndex),
    /// Tell the state.
    Status(oneshot::Sender<PacketStatus>),
}

/// State of engine and socket.
#[derive(Debug, Clone, Default)]
pub struct PacketStatus {
    /// The engine's.
    pub engine: EngineStatus,
    /// Datagrams that the kernel did not take.
    pub send_refused: u64,
    /// Packets that were too old when there was room for them.
    pub send_stale: u64,
    /// Packets for which there was no room.
    pub send_full: u64,
    /// Packets that an interface did not take.
    pub interface_refused: u64,
    /// Packets that the kernel dropped before they were read from an interface.
    pub interface_full: u64,
    /// Datagrams that the kernel dropped before they were received.
    pub receive_full: u64,
    /// Datagrams that were too old when a stream to a relay could take them.
    pub stream_stale: u64,
    /// Datagrams for which a stream to a relay had no room.
    pub stream_full: u64,
}

/// The door to the thread. Dropping it ends the thread and closes the interfaces, which stay for the next run.
pub struct Packets {
    orders: Option<mpsc::UnboundedSender<Order>>,
    from_streams: mpsc::Sender<FromStream>,
    heard: mpsc::Sender<Heard>,
    thread: Option<JoinHandle<()>>,
}

/// The packet thread has ended.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the packet thread has ended")]
pub struct Ended;

impl Packets {
    /// Starts the thread; what the engine tells goes to `events`.
    pub fn start(
        udp: BoundUdp,
        settings: &Settings,
        events: mpsc::UnboundedSender<Event>,
    ) -> io::Result<Self> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (from_streams, streams) = mpsc::channel(relay::BACKLOG);
        let (heard, beacons) = mpsc::channel(beacon::BACKLOG);
        let (returns, done) = mpsc::unbounded_channel();
        let inboxes = Inboxes { orders: inbox, streams, beacons, done };
        let mut engine = Engine::new(EngineConfig { seed: settings.seed });
        engine.set_copies_dscp(settings.copies_dscp);
        engine.set_shards(settings.threads);
        let crew = Crew::start(engine.take_workers(), &returns)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let thread = std::thread::Builder::new().name("ria-packets".into()).spawn(move || {
            runtime.block_on(async move {
                match Mover::new(udp, (engine, crew), inboxes, events) {
                    Ok(mover) => mover.run().await,
                    Err(error) => tracing::error!(%error, "the UDP socket can't be used"),
                }
            });
        })?;
        Ok(Self { orders: Some(orders), from_streams, heard, thread: Some(thread) })
    }

    /// Has the engine do something.
    pub async fn engine(&self, command: Command) -> Result<Result<(), CommandError>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Engine(command, reply))?;
        answer.await.map_err(|_| Ended)
    }

    /// Gives a network its interface.
    pub fn attach(&self, network: NetworkId, device: SyncDevice) -> Result<(), Ended> {
        self.send(Order::Attach(network, device))
    }

    /// Takes a network's interface away; it is gone when this returns.
    pub async fn detach(&self, network: NetworkId) {
        let (reply, answer) = oneshot::channel();
        if self.send(Order::Detach(network, reply)).is_ok() {
            let _ = answer.await;
        }
    }

    /// For a stream to a relay, to tell what arrives on it.
    pub fn stream_door(&self) -> mpsc::Sender<FromStream> {
        self.from_streams.clone()
    }

    /// For whoever hears beacons.
    pub fn beacon_door(&self) -> mpsc::Sender<Heard> {
        self.heard.clone()
    }

    /// What goes out over a stream to a relay is put into this queue from now on.
    pub fn attach_stream(&self, socket: SocketIndex, queue: Queue) -> Result<(), Ended> {
        self.send(Order::Stream(socket, queue))
    }

    /// Nothing goes out over a stream any more.
    pub fn end_stream(&self, socket: SocketIndex) {
        // Without the thread there is no stream either.
        let _ = self.send(Order::EndStream(socket));
    }

    /// Reads the state.
    pub async fn status(&self) -> Result<PacketStatus, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Status(reply))?;
        answer.await.map_err(|_| Ended)
    }

    fn send(&self, order: Order) -> Result<(), Ended> {
        self.orders.as_ref().and_then(|orders| orders.send(order).ok()).ok_or(Ended)
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Interface {
    network: NetworkId,
    device: PacketDevice,
}

/// What the thread is told.
struct Inboxes {
    orders: mpsc::UnboundedReceiver<Order>,
    streams: mpsc::Receiver<FromStream>,
    beacons: mpsc::Receiver<Heard>,
    done: mpsc::UnboundedReceiver<Done>,
}

struct Mover {
    engine: Engine,
    crew: Crew,
    /// Who waits for the state until the crew has told its part.
    asked: Vec<oneshot::Sender<PacketStatus>>,
    /// The main one, and others by their [`SocketIndex`] as the engine comes to use them.
    sockets: Vec<Udp>,
    /// Datagrams for a socket that could not be opened.
    socket_missing: u64,
    interfaces: Vec<Interface>,
    streams: StreamQueues,
    inboxes: Inboxes,
    events: mpsc::UnboundedSender<Event>,
    /// What was read from an interface.
    frames: Frames,
    coalescer: Coalescer,
    to_udp: DatagramBatch,
    /// What the sockets had no room for.
    backlog: Backlog,
    to_interfaces: PacketBatch,
    interface_refused: u64,
}

enum Wake {
    Order(Option<Order>),
    Stream(FromStream),
    Beacon(Heard),
    Done(Done),
    Packets,
    Timer,
    Room,
}

impl Mover {
    fn new(
        udp: BoundUdp,
        (engine, crew): (Engine, Crew),
        inboxes: Inboxes,
        events: mpsc::UnboundedSender<Event>,
    ) -> io::Result<Self> {
        Ok(Self {
            engine,
            crew,
            asked: Vec::new(),
            sockets: vec![Udp::new(udp)?],
            socket_missing: 0,
            interfaces: Vec::new(),
            streams: StreamQueues::default(),
            inboxes,
            events,
            frames: Frames::default(),
            coalescer: Coalescer::default(),
            to_udp: DatagramBatch::default(),
            backlog: Backlog::default(),
            to_interfaces: PacketBatch::default(),
            interface_refused: 0,
        })
    }

    async fn run(mut self) {
        self.read_clock();
        loop {
            let wake = self.wait().await;
            self.read_clock();
            match wake {
                Wake::Order(Some(order)) => self.obey(order),
                Wake::Order(None) => return,
                Wake::Stream(news) => {
                    self.take(news);
                    // One after the other, neither streams nor sockets have to wait for a pause of the others.
                    self.turn();
                }
                Wake::Beacon(Heard { from, datagram }) => {
                    self.engine.handle_beacon(from, &datagram, Instant::now());
                    self.turn();
                }
                Wake::Done(done) => {
                    self.settle(done);
                    self.turn();
                }
                Wake::Packets => self.turn(),
                Wake::Timer => self.engine.handle_timeout(Instant::now()),
                Wake::Room => {}
            }
            self.flush();
            if self.crew.has_ended() {
                tracing::error!("a thread that packets pass through has ended");
                return;
            }
            while let Some(event) = self.engine.poll_event() {
                // Nobody listens any more while the agent stops.
                let _ = self.events.send(event);
            }
        }
    }

    /// Peers compare their clocks with what this machine's shows now.
    fn read_clock(&mut self) {
        let (now, since_1970) = clock::read();
        self.engine.set_wall_clock(since_1970, now);
    }

    async fn wait(&mut self) -> Wake {
        let due = self.engine.poll_timeout();
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // Timers first: under load there are always packets, and rekeys must not wait for a pause.
            () = timer => Wake::Timer,
            order = self.inboxes.orders.recv() => Wake::Order(order),
            Some(news) = self.inboxes.streams.recv() => Wake::Stream(news),
            Some(heard) = self.inboxes.beacons.recv() => Wake::Beacon(heard),
            Some(done) = self.inboxes.done.recv(), if !self.crew.is_empty() => Wake::Done(done),
            () = any_socket_readable(&self.sockets) => Wake::Packets,
            () = any_readable(&self.interfaces) => Wake::Packets,
            () = tokio::time::sleep(SEND_AGAIN), if !self.backlog.is_empty() => Wake::Room,
        }
    }

    /// One bounded batch from every source.
    fn turn(&mut self) {
        for number in 0..self.sockets.len() {
            self.receive(number);
        }
        for index in 0..self.interfaces.len() {
            let Some(interface) = self.interfaces.get(index) else { continue };
            if self.frames.read(&interface.device) {
                let network = interface.network;
                self.engine.handle_tun(network, &mut self.frames, Instant::now(), &mut self.to_udp);
                self.flush();
            }
        }
    }

    fn receive(&mut self, number: usize) {
        let Ok(index) = u8::try_from(number).map(SocketIndex::new) else { return };
        let mut bytes = 0;
        for _ in 0..UDP_ROUNDS {
            let Some(socket) = self.sockets.get_mut(number).filter(|_| bytes < UDP_TURN_BYTES) else {
                return;
            };
            let count = socket.receive();
            if count == 0 {
                return;
            }
            bytes += socket.received_bytes(count);
            let sinks = Sinks { tun: &mut self.to_interfaces, udp: &mut self.to_udp };
            self.engine.handle_udp_at(index, socket.received(count), Instant::now(), sinks);
            self.write_interfaces();
            self.flush();
        }
    }

    /// A stream to a relay tells something.
    fn take(&mut self, news: FromStream) {
        let FromStream { network, socket, address, what } = news;
        let news = match what {
            StreamEvent::Opened => StreamNews::Opened,
            StreamEvent::Closed(reason) => StreamNews::Closed(reason),
            StreamEvent::Frames(frames) => {
                let mut rest = &frames[..];
                let next = || framing::take(&mut rest).ok().flatten();
                let received = std::iter::from_fn(next).map(|data| Received {
                    from: address,
                    local: None,
                    ecn: ria_core::Ecn::NotEct,
                    data,
                });
                let sinks = Sinks { tun: &mut self.to_interfaces, udp: &mut self.to_udp };
                self.engine.handle_udp_at(socket, received, Instant::now(), sinks);
                return self.write_interfaces();
            }
        };
        let command = Command::RelayStream { network, socket, news };
        if let Err(error) = self.engine.handle_command(command, Instant::now()) {
            tracing::debug!(%error, "a stream of a network that is gone");
        }
    }

    fn write_interfaces(&mut self) {
        for (network, packets) in self.to_interfaces.networks_mut() {
            let refused = match self.interfaces.iter().find(|i| i.network == network) {
                Some(interface) => interface.device.write(packets, &mut self.coalescer),
                None => packets.len() as u64,
            };
            self.interface_refused = self.interface_refused.saturating_add(refused);
        }
        self.to_interfaces.clear();
    }

    /// Sends what is waiting: what is urgent first, then what had to wait, then the rest.
    fn flush(&mut self) {
        let now = Instant::now();
        self.engine.poll_transmit(now, &mut self.to_udp);
        self.hand_over();
        if self.send_batch(now) {
            self.engine.poll_transmit(now, &mut self.to_udp);
            self.send_batch(now);
        }
        self.streams.flush();
    }

    /// Sends a batch; whether the engine has something to follow right behind.
    fn send_batch(&mut self, now: Instant) -> bool {
        let mut follows = false;
        let mut drained = self.backlog.is_empty();
        for mut transmit in self.to_udp.transmits() {
            if transmit.socket.is_stream() {
                self.streams.push(&transmit);
                continue;
            }
            if transmit.class != Class::Urgent && !std::mem::replace(&mut drained, true) {
                follows |= drain(&mut self.backlog, &mut self.sockets, &mut self.engine, now);
            }
            let Some(socket) = socket_for(&mut self.sockets, transmit.socket) else {
                let lost = transmit.datagrams().count() as u64;
                self.socket_missing = self.socket_missing.saturating_add(lost);
                continue;
            };
            if transmit.class == Class::Urgent {
                socket.send_urgent(&transmit);
                continue;
            }
            let has_to_wait = self.backlog.holds(&transmit)
                || send(&mut transmit, socket, &mut self.engine, &mut follows, now) == Sent::Busy;
            if has_to_wait {
                self.backlog.push(&transmit, now);
            }
            if transmit.class == Class::Bulk {
                self.engine.set_waiting(transmit.lane, has_to_wait);
            }
        }
        if !drained {
            follows |= drain(&mut self.backlog, &mut self.sockets, &mut self.engine, now);
        }
        self.to_udp.clear();
        follows
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Engine(command, reply) => {
                let gone = match &command {
                    Command::RemoveNetwork(network) => Some(*network),
                    Command::AddNetwork(_)
                    | Command::SetPrivateKey { .. }
                    | Command::SetMap { .. }
                    | Command::ApplyPatches { .. }
                    | Command::ApplyLive { .. }
                    | Command::SetRelays { .. }
                    | Command::SetAbsent { .. }
                    | Command::SetTime { .. }
                    | Command::SetCoordinatorReached { .. }
                    | Command::RelayStream { .. }
                    | Command::SetHostCandidates(_)
                    | Command::Rerouted { .. }
                    | Command::SetMappedAddress(_)
                    | Command::SetAvoided(_)
                    | Command::SetMulticast { .. }
                    | Command::SetLans { .. }
                    | Command::SetBeaconPlaces(_)
                    | Command::StartPing { .. } => None,
                };
                let result = self.engine.handle_command(command, Instant::now());
                if let Some(network) = gone {
                    self.to_interfaces.forget(network);
                }
                // The asker may have gone away meanwhile.
                let _ = reply.send(result);
            }
            Order::Attach(network, device) => match PacketDevice::new(device) {
                Ok(device) => self.interfaces.push(Interface { network, device }),
                Err(error) => tracing::error!(%error, "the overlay interface can't be waited for"),
            },
            Order::Detach(network, reply) => {
                for gone in self.interfaces.extract_if(.., |i| i.network == network) {
                    if let Err(error) = keep::release(gone.device.device()) {
                        tracing::warn!(%error, "the overlay interface stays");
                    }
                }
                let _ = reply.send(());
            }
            Order::Stream(socket, queue) => self.streams.add(socket, queue),
            Order::EndStream(socket) => self.streams.remove(socket),
            Order::Status(reply) => self.tell(reply),
        }
    }
}

/// Sends what may leave now of what waited; whether the engine has something to follow right behind.
fn drain(backlog: &mut Backlog, sockets: &mut [Udp], engine: &mut Engine, now: Instant) -> bool {
    let mut follows = false;
    backlog.drain(now, |transmit| match sockets.get_mut(transmit.socket.number()) {
        Some(socket) => send(transmit, socket, engine, &mut follows, now),
        None => Sent::Done,
    });
    follows
}

/// Sends as much as the peer's pace and the socket have room for.
fn send(
    transmit: &mut Transmit<'_>,
    socket: &mut Udp,
    engine: &mut Engine,
    follows: &mut bool,
    now: Instant,
) -> Sent {
    let (lane, before) = (transmit.lane, transmit.contents.len());
    let outcome = socket.send(transmit, engine.allowance(lane, transmit.class, now), now);
    let left = if outcome == Sent::Done { 0 } else { transmit.contents.len() };
    *follows |= engine.handle_sent(lane, before - left, now);
    outcome
}

/// The socket that a datagram is to leave from, opened with its first one. Its port follows the main one's where that
/// is free, so that an agent that starts again is known to the relay.
fn socket_for(sockets: &mut Vec<Udp>, index: SocketIndex) -> Option<&mut Udp> {
    let number = index.number();
    while sockets.len() <= number {
        let main = sockets.first().map_or(0, Udp::port);
        let wanted = u16::try_from(sockets.len()).ok().and_then(|n| main.checked_add(n)).unwrap_or_default();
        match udp::bind(wanted).map_err(io::Error::other).and_then(Udp::new) {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                tracing::debug!(%error, "no more UDP sockets");
                return None;
            }
        }
    }
    sockets.get_mut(number)
}

/// Waits until some socket has a datagram.
async fn any_socket_readable(sockets: &[Udp]) {
    std::future::poll_fn(|context| {
        // Each is asked, so that each wakes up.
        let ready = sockets.iter().filter(|socket| socket.poll_readable(context).is_ready()).count();
        if ready > 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Waits until some interface has a packet.
async fn any_readable(interfaces: &[Interface]) {
    std::future::poll_fn(|context| {
        let ready = interfaces.iter().any(|i| i.device.device().poll_readable(context).is_ready());
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
