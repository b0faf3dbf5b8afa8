//! A world of engines in virtual time: hosts, NATs, a relay, latency, loss, and a coordinator that passes on what the
//! engines report. One seed gives one run.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod asked;
mod coordination;
pub mod fake;
pub mod rtps;
pub mod stock;
pub mod streams;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ria_core::{
    AddNetwork, Command, DatagramBatch, Engine, EngineConfig, Event, PacketBatch, Received, Sinks,
    SocketIndex,
};
use ria_protocol::id::{BootId, NetworkId, NodeId};
use ria_protocol::keys::WgPublicKey;
use ria_protocol::map::{Candidate, Live};
use ria_protocol::message::LiveUpdate;
pub use ria_sim::{nat, turn};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use nat::{Filtering, Mapping, Nat};
use turn::TurnServer;

pub const RELAY: &str = "198.51.100.1:3478";
pub const PORT: u16 = 41_820;

/// Milliseconds.
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub fn network_id(number: u8) -> NetworkId {
    NetworkId::from_bytes([number; 10])
}

/// The one network of most tests.
pub fn network() -> NetworkId {
    network_id(1)
}

pub fn node(host: usize) -> NodeId {
    NodeId::from_bytes([u8::try_from(host + 1).unwrap(); 10])
}

/// A host's overlay address.
pub fn overlay(host: usize) -> [u8; 4] {
    [10, 213, 0, u8::try_from(host + 1).unwrap()]
}

/// An IPv4 packet between two hosts of the overlay, with a number in it.
pub fn packet(from: usize, to: usize, number: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.max(24)];
    bytes[0] = 0x45;
    let total = u16::try_from(bytes.len()).unwrap();
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes[9] = 17;
    bytes[12..16].copy_from_slice(&overlay(from));
    bytes[16..20].copy_from_slice(&overlay(to));
    bytes[20..24].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Whether a datagram, perhaps in a channel, is a check or the answer to one.
pub fn is_ice(bytes: &[u8]) -> bool {
    let inner = if (0x40..0x50).contains(&bytes[0]) { &bytes[4..] } else { bytes };
    ria_core::ice::Message::parse(inner).is_some()
}

/// One host.
pub struct Host {
    pub engine: Engine,
    pub address: SocketAddr,
    /// Index of its NAT; without one it is on the public network.
    pub nat: Option<usize>,
    pub key: [u8; 32],
    pub boot: BootId,
    pub received: Vec<(Instant, Vec<u8>)>,
    pub events: Vec<(Instant, Event)>,
    candidates: Vec<Candidate>,
    seed: u64,
    /// How far its clock is behind the world's: timers of a machine that was suspended have stood still.
    lag: Duration,
    asleep_since: Option<Instant>,
}

impl Host {
    /// When its engine wants to be woken, by the world's clock.
    fn due(&self) -> Option<Instant> {
        if self.asleep_since.is_some() { None } else { self.engine.poll_timeout().map(|due| due + self.lag) }
    }

    pub fn public_key(&self) -> WgPublicKey {
        WgPublicKey(PublicKey::from(&StaticSecret::from(self.key)).to_bytes())
    }
}

struct InFlight {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

type Cut = Box<dyn Fn(SocketAddr, SocketAddr) -> bool>;

/// The world.
pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub hosts: Vec<Host>,
    pub nats: Vec<Nat>,
    /// Devices with stock WireGuard, on the public network.
    pub devices: Vec<stock::Device>,
    pub turn: TurnServer,
    /// Relays besides that one, behind it in the list.
    pub other_turns: Vec<TurnServer>,
    /// What goes to this address or comes from it takes so much longer.
    pub slow: Option<(SocketAddr, Duration)>,
    /// Port of TURN over streams at the relay, where there is one.
    pub tls_port: Option<u16>,
    pub streams: streams::Streams,
    /// One-way delay of each hop, and up to how much is added at random.
    pub latency: Duration,
    pub jitter: Duration,
    /// Share of datagrams that get lost, in 1/1000.
    pub loss: u64,
    /// Which datagrams (source and destination as on the public network) don't get through.
    pub cut: Option<Cut>,
    /// Addresses of hosts whose interfaces are up and lead nowhere.
    pub dead: Vec<IpAddr>,
    /// Datagrams from this address that begin with this byte get lost, as if they were refused.
    pub refused: Option<(SocketAddr, u8)>,
    /// Every datagram that was sent: number by first byte, without those of ICE's.
    pub sent: BTreeMap<u8, u64>,
    /// Bytes of all that was sent, as IPv4 carries them.
    pub sent_bytes: u64,
    /// Those of ICE's: checks and their answers.
    pub checks: u64,
    /// Whether hosts throw away what is ICE's, as if they had agents from before it.
    pub without_ice: Vec<usize>,
    /// How often engines woke up by their timers.
    pub wakes: u64,
    /// Whether to keep every datagram, and those kept: source, destination, content.
    pub record: bool,
    pub recorded: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Whether the coordinator passes nothing on.
    pub coordinator_away: bool,
    /// Delay of the coordinator's news.
    pub signalling: Duration,
    /// The overlay's MTU.
    pub mtu: u16,
    /// Over how many shards each host spreads its peers.
    pub shards: usize,
    queue: BTreeMap<(Instant, u64), InFlight>,
    news: BTreeMap<(Instant, u64), (usize, Live)>,
    order: u64,
    random: u64,
    pub revision: u64,
    pings: u64,
    members: Vec<usize>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        #[allow(clippy::disallowed_methods, reason = "virtual time has to begin somewhere")]
        let start = Instant::now();
        Self {
            now: start,
            start,
            hosts: Vec::new(),
            nats: Vec::new(),
            devices: Vec::new(),
            turn: TurnServer::new(RELAY.parse().unwrap()),
            other_turns: Vec::new(),
            slow: None,
            tls_port: None,
            streams: streams::Streams::default(),
            latency: ms(5),
            jitter: ms(0),
            loss: 0,
            cut: None,
            refused: None,
            dead: Vec::new(),
            sent: BTreeMap::new(),
            sent_bytes: 0,
            checks: 0,
            without_ice: Vec::new(),
            wakes: 0,
            record: false,
            recorded: Vec::new(),
            coordinator_away: false,
            signalling: ms(20),
            mtu: 1280,
            shards: std::env::var("RIA_TEST_SHARDS").map_or(1, |shards| shards.parse().unwrap()),
            queue: BTreeMap::new(),
            news: BTreeMap::new(),
            order: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            revision: 1,
            pings: 0,
            members: Vec::new(),
        }
    }

    pub fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below.max(1)
    }

    /// A NAT, port-preserving or symmetric.
    pub fn nat(&mut self, mapping: Mapping, filtering: Filtering) -> usize {
        let public = IpAddr::from([203, 0, 113, u8::try_from(self.nats.len() + 1).unwrap()]);
        self.nats.push(Nat::new(public, mapping, filtering));
        self.nats.len() - 1
    }

    /// A host that knows its network, but nobody yet.
    pub fn host(&mut self, nat: Option<usize>) -> usize {
        let index = self.hosts.len();
        let number = u8::try_from(index + 1).unwrap();
        let ip = match nat {
            Some(nat) => [192, 168, u8::try_from(nat + 1).unwrap(), number],
            None => [198, 51, 100, 100 + number],
        };
        let mut key = [0; 32];
        for byte in &mut key {
            *byte = u8::try_from(self.random(256)).unwrap();
        }
        let boot = BootId::from_bytes([number; 10]);
        let mut engine = Engine::new(EngineConfig { seed: [number; 32] });
        engine.set_shards(self.shards);
        let host = Host {
            engine,
            address: SocketAddr::from((ip, PORT)),
            nat,
            key,
            boot,
            received: Vec::new(),
            events: Vec::new(),
            candidates: Vec::new(),
            seed: u64::from(number),
            lag: Duration::ZERO,
            asleep_since: None,
        };
        self.hosts.push(host);
        self.begin(index);
        index
    }

    fn begin(&mut self, host: usize) {
        let (private_key, boot) = (Zeroizing::new(self.hosts[host].key), self.hosts[host].boot);
        let address = self.hosts[host].address;
        let add = AddNetwork { id: network(), private_key, node: node(host), boot, mtu: self.mtu };
        self.command(host, Command::AddNetwork(add));
        self.command(host, Command::SetHostCandidates(vec![address]));
    }

    /// The agent of a host dies and starts anew, with the map that it had on disk.
    pub fn restart(&mut self, host: usize) {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(self.hosts[host].seed + 100).to_le_bytes());
        self.replace(host, Engine::new(EngineConfig { seed }));
        self.rejoin(host);
    }

    /// Puts another engine in the place of a host's, as a member that knows nobody.
    pub fn replace(&mut self, host: usize, engine: Engine) {
        if self.now > self.start {
            self.hosts[host].seed += 100;
            let number = u8::try_from(self.hosts[host].seed % 251).unwrap();
            self.hosts[host].boot = BootId::from_bytes([number; 10]);
        }
        self.hosts[host].engine = engine;
        self.hosts[host].engine.set_shards(self.shards);
        self.hosts[host].candidates.clear();
        self.begin(host);
    }

    /// Gives a new engine what the agent has on disk and the coordinator tells.
    pub fn rejoin(&mut self, host: usize) {
        self.give_map(host);
        self.give_relay(host);
        self.introduce_to(host);
    }

    /// A host is in another place now, with another address, behind another NAT.
    pub fn roam(&mut self, host: usize, nat: usize) {
        let number = u8::try_from(host + 1).unwrap();
        let address = SocketAddr::from(([192, 168, u8::try_from(nat + 1).unwrap(), number], PORT));
        self.hosts[host].nat = Some(nat);
        self.hosts[host].address = address;
        self.command(host, Command::SetHostCandidates(vec![address]));
    }

    pub fn command(&mut self, host: usize, command: Command) {
        let now = self.clock(host);
        self.hosts[host].engine.handle_command(command, now).unwrap();
        self.flush(host);
    }

    /// The time by a host's own clock.
    pub fn clock(&self, host: usize) -> Instant {
        self.now - self.hosts[host].lag
    }

    /// Suspends a host: what arrives is lost, and its clock stands still.
    pub fn suspend(&mut self, host: usize) {
        self.hosts[host].asleep_since = Some(self.now);
    }

    /// Lets a suspended host go on where it was.
    pub fn resume(&mut self, host: usize) {
        if let Some(since) = self.hosts[host].asleep_since.take() {
            self.hosts[host].lag += self.now - since;
        }
    }

    /// A host's interface sends a packet.
    pub fn send(&mut self, host: usize, packet: &[u8]) {
        let mut udp = DatagramBatch::default();
        let now = self.clock(host);
        self.hosts[host].engine.handle_tun(network(), [packet], now, &mut udp);
        self.transmit(host, &udp);
        self.flush(host);
    }

    /// A datagram arrives at a host as it is.
    pub fn inject(&mut self, host: usize, from: SocketAddr, bytes: &[u8]) {
        self.inject_at(host, SocketIndex::MAIN, from, bytes);
    }

    /// The same at another of its sockets, or by a stream.
    pub fn inject_at(&mut self, host: usize, socket: SocketIndex, from: SocketAddr, bytes: &[u8]) {
        let (mut tun, mut udp) = (PacketBatch::default(), DatagramBatch::default());
        if self.hosts[host].asleep_since.is_some() {
            return;
        }
        let now = self.now;
        let received = Received { from, local: None, ecn: ria_core::Ecn::NotEct, data: bytes };
        let clock = self.clock(host);
        let sinks = Sinks { tun: &mut tun, udp: &mut udp };
        self.hosts[host].engine.handle_udp_at(socket, [received], clock, sinks);
        for (_, packets) in tun.networks_mut() {
            for packet in packets.iter() {
                self.hosts[host].received.push((now, packet.to_vec()));
            }
        }
        self.transmit(host, &udp);
        self.flush(host);
    }

    /// Sends what an engine wants sent, and notes what it tells.
    pub fn flush(&mut self, host: usize) {
        let mut udp = DatagramBatch::default();
        let (now, clock) = (self.now, self.clock(host));
        self.hosts[host].engine.poll_transmit(clock, &mut udp);
        self.transmit(host, &udp);
        while let Some(event) = self.hosts[host].engine.poll_event() {
            self.follow_streams(host, &event);
            if let Event::CandidatesChanged { candidates, .. } = &event {
                self.hosts[host].candidates.clone_from(candidates);
                self.pass_on(host);
            }
            if let Event::BeaconDue { from, datagram, .. } = &event {
                self.hear_beacon(host, *from, datagram);
            }
            self.hosts[host].events.push((now, event));
        }
    }

    /// A beacon reaches everybody behind the same NAT.
    fn hear_beacon(&mut self, host: usize, from: SocketAddr, datagram: &[u8]) {
        let neighbours = |other: &usize| *other != host && self.hosts[*other].nat == self.hosts[host].nat;
        for other in (0..self.hosts.len()).filter(neighbours).collect::<Vec<_>>() {
            if self.cut.as_ref().is_none_or(|cut| !cut(from, self.hosts[other].address)) {
                self.inject_beacon(other, from, datagram);
            }
        }
    }

    /// A datagram arrives at a host's port for beacons.
    pub fn inject_beacon(&mut self, host: usize, from: SocketAddr, datagram: &[u8]) {
        let clock = self.clock(host);
        self.hosts[host].engine.handle_beacon(from, datagram, clock);
        self.flush(host);
    }

    /// Sends what an engine has handed out.
    pub fn transmit(&mut self, host: usize, udp: &DatagramBatch) {
        let from = self.hosts[host].address;
        let leads = |local: Option<IpAddr>| local.is_none_or(|ip| !self.dead.contains(&ip));
        let sends: Vec<(SocketAddr, SocketIndex, Vec<u8>)> = udp
            .transmits()
            .filter(|t| leads(t.from))
            .flat_map(|t| t.datagrams().map(move |d| (t.to, t.socket, d.to_vec())))
            .collect();
        for (to, socket, bytes) in sends {
            if socket.is_stream() {
                self.send_on_stream(host, socket, &bytes);
                continue;
            }
            self.sent_bytes += 28 + bytes.len() as u64;
            if is_ice(&bytes) {
                self.checks += 1;
                if self.without_ice.contains(&host) {
                    continue;
                }
            } else {
                *self.sent.entry(bytes[0]).or_default() += 1;
            }
            let neighbour = self.hosts.iter().any(|h| h.address == to && h.nat == self.hosts[host].nat);
            let public = match self.hosts[host].nat {
                Some(nat) if !neighbour => self.nats[nat].outbound(from, to),
                _ => from,
            };
            self.launch(public, to, bytes);
        }
    }

    pub fn launch(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if self.streams.is_end(to) {
            return self.launch_surely(from, to, bytes);
        }
        if self.record {
            self.recorded.push((from, to, bytes.clone()));
        }
        let lost = self.loss > 0 && self.random(1000) < self.loss;
        let refused = self.refused.is_some() && self.refused == bytes.first().map(|first| (from, *first));
        if lost || refused || self.cut.as_ref().is_some_and(|cut| cut(from, to)) {
            return;
        }
        let jitter = self.jitter.as_micros();
        let jitter = Duration::from_micros(self.random(u64::try_from(jitter).unwrap()));
        self.order += 1;
        let slow = self.slow.filter(|(address, _)| [from, to].contains(address));
        let at = self.now + self.latency + jitter + slow.map_or(Duration::ZERO, |(_, more)| more);
        self.queue.insert((at, self.order), InFlight { from, to, bytes });
    }

    /// On a stream nothing gets lost.
    fn launch_surely(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.order += 1;
        self.queue.insert((self.now + self.latency, self.order), InFlight { from, to, bytes });
    }

    fn deliver(&mut self, flight: InFlight) {
        let InFlight { from, to, bytes } = flight;
        if let Some((host, socket, relay)) = self.streams.host_at(to) {
            return self.inject_at(host, socket, relay, &bytes);
        }
        if to == self.turn.address || self.streams.is_relay(to) {
            if let Some((to, bytes)) = self.turn.handle(from, &bytes) {
                self.launch(self.turn.address, to, bytes);
            }
            return;
        }
        if let Some(turn) = self.other_turns.iter_mut().find(|turn| turn.address == to) {
            let (relay, answer) = (turn.address, turn.handle(from, &bytes));
            answer.into_iter().for_each(|(to, bytes)| self.launch(relay, to, bytes));
            return;
        }
        if let Some(device) = self.devices.iter().position(|device| device.address == to) {
            return self.deliver_to_device(device, from, &bytes);
        }
        let inside = match self.nats.iter().find(|nat| nat.public() == to.ip()) {
            Some(nat) => nat.inbound(from, to),
            None => Some(to),
        };
        let private = |ip: IpAddr| matches!(ip, IpAddr::V4(v4) if v4.is_private());
        let target = inside.and_then(|address| self.hosts.iter().position(|h| h.address == address));
        if let Some(host) = target {
            // Private addresses lead nowhere from outside.
            let direct = to.ip() == self.hosts[host].address.ip();
            if !direct || !private(to.ip()) || private(from.ip()) {
                self.inject(host, from, &bytes);
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        self.run_until(until, |_| false);
    }

    /// Lets time pass until something holds; panics when it does not within `limit`. Returns how long it took.
    pub fn run_till(&mut self, what: &str, limit: Duration, done: impl Fn(&Self) -> bool) -> Duration {
        let begin = self.now;
        assert!(self.run_until(begin + limit, done), "not within {limit:?}: {what}");
        self.now - begin
    }

    fn run_until(&mut self, until: Instant, done: impl Fn(&Self) -> bool) -> bool {
        let (mut woken, mut at_once) = (self.start, 0);
        loop {
            if done(self) {
                return true;
            }
            let flight = self.queue.first_key_value().map(|((at, _), _)| *at);
            let news = self.news.first_key_value().map(|((at, _), _)| *at);
            let timers: Vec<_> = self.hosts.iter().map(Host::due).collect();
            let timer = timers.iter().flatten().min().copied();
            let stream = self.streams.due();
            let Some(next) =
                [flight, news, stream, timer].into_iter().flatten().min().filter(|at| *at <= until)
            else {
                self.now = until;
                return done(self);
            };
            self.now = self.now.max(next);
            if flight == Some(next) {
                if let Some((_, flight)) = self.queue.pop_first() {
                    self.deliver(flight);
                }
            } else if news == Some(next) {
                if let Some((_, (host, live))) = self.news.pop_first() {
                    let update = LiveUpdate { whole: false, members: vec![live] };
                    self.command(host, Command::ApplyLive { network: network(), update });
                }
            } else if stream == Some(next) {
                self.open_stream();
            } else if let Some(host) = timers.iter().position(|timer| *timer == Some(next)) {
                let (now, clock) = (self.now, self.clock(host));
                self.wakes += 1;
                self.hosts[host].engine.handle_timeout(clock);
                self.flush(host);
                at_once = if now == woken { at_once + 1 } else { 0 };
                woken = now;
                assert!(
                    at_once < 20.max(4 * self.hosts.len()),
                    "host {host} wakes up again and again without time passing"
                );
            }
        }
    }
}

/// Two hosts, each behind a NAT of its own, that know each other.
pub fn two_behind(seed: u64, mapping: Mapping, filtering: Filtering) -> World {
    two_in(World::new(seed), mapping, filtering)
}

/// The same in a world that has nobody yet.
pub fn two_in(mut world: World, mapping: Mapping, filtering: Filtering) -> World {
    for _ in 0..2 {
        let nat = world.nat(mapping, filtering);
        world.host(Some(nat));
    }
    world.introduce_all();
    world
}
