//! A relay and its clients in virtual time, with latency and loss.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_core::{Error, RngCore};
use ria_core::relay::{RelayClient, RelayCredentials as ClientCredentials, RelayEvent, RelayInput};
use ria_core::stun::Randomness;
use ria_protocol::id::{NetworkId, NodeId};
use ria_protocol::time::UnixTime;

use super::super::*;
use crate::relay::{DEFAULT_CREDENTIALS, Limits, RelayCounters, RelayCredentials, Terms};

pub(super) const SECRET: [u8; 32] = [7; 32];
pub(super) const START: UnixTime = UnixTime(1_800_000_000);
const LATENCY: Duration = Duration::from_millis(10);

/// SplitMix64: small, seeded, good enough to lose packets and to fill nonces in tests.
#[derive(Clone)]
pub(super) struct Seeded(pub(super) u64);

impl RngCore for Seeded {
    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        b ^ (b >> 31)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = self.next_u64() as u8);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

pub(super) fn network(n: u8) -> NetworkId {
    NetworkId::from_bytes([n; 10])
}

pub(super) fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 10])
}

pub(super) fn credentials(network_number: u8, node_number: u8, issued: UnixTime) -> ClientCredentials {
    let issued = RelayCredentials::issue(
        &SECRET,
        network(network_number),
        node(node_number),
        issued.plus(DEFAULT_CREDENTIALS),
    );
    ClientCredentials { username: issued.username.clone(), password: issued.password.clone() }
}

pub(super) fn config() -> ServerConfig {
    ServerConfig { terms: Terms::new(SECRET), external: Vec::new(), outside: None, limits: Limits::default() }
}

pub(super) struct Robot {
    pub(super) address: SocketAddr,
    pub(super) client: RelayClient,
    pub(super) received: Vec<(SocketAddr, Vec<u8>)>,
    pub(super) events: Vec<(Duration, RelayEvent)>,
}

enum Flight {
    ToServer { from: SocketAddr, bytes: Vec<u8> },
    ToClient { to: SocketAddr, bytes: Vec<u8> },
}

pub(super) struct World {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) server: Server,
    pub(super) up: bool,
    pub(super) loss_percent: u64,
    pub(super) robots: Vec<Robot>,
    pub(super) to_server: u64,
    flights: BTreeMap<(Instant, u64), Flight>,
    sequence: u64,
    random: Seeded,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self::with_config(seed, config())
    }

    pub(super) fn with_config(seed: u64, config: ServerConfig) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            now,
            server: Server::new(config, Box::new(Seeded(seed)), now),
            up: true,
            loss_percent: 0,
            robots: Vec::new(),
            to_server: 0,
            flights: BTreeMap::new(),
            sequence: 0,
            random: Seeded(!seed),
        }
    }

    pub(super) fn clock(&self) -> Clock {
        Clock { now: self.now, unix: START.plus(self.now - self.start) }
    }

    /// The server is killed and started again: it knows the secret and nothing else.
    pub(super) fn restart_server(&mut self) {
        let seed = self.random.next_u64();
        self.server = Server::new(config(), Box::new(Seeded(seed)), self.now);
    }

    /// A robot of a network; returns its index.
    pub(super) fn robot(&mut self, network: u8, node: u8) -> usize {
        let address = format!("10.0.0.{node}:41820").parse().unwrap();
        self.robot_at(address, credentials(network, node, self.clock().unix))
    }

    pub(super) fn robot_at(&mut self, address: SocketAddr, credentials: ClientCredentials) -> usize {
        let client = self.client(address, credentials);
        self.robots.push(Robot { address, client, received: Vec::new(), events: Vec::new() });
        self.robots.len() - 1
    }

    /// A client at this address, as an agent makes when it starts.
    pub(super) fn client(&mut self, address: SocketAddr, credentials: ClientCredentials) -> RelayClient {
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        RelayClient::new(server_address(address), credentials, Randomness::new(seed), self.now)
    }

    pub(super) fn counters(&self) -> RelayCounters {
        self.server.counters().read()
    }

    pub(super) fn relayed(&self, robot: usize) -> SocketAddr {
        self.robots[robot].client.relayed_address().expect("an allocation")
    }

    /// Both want to talk to each other, at their present relayed addresses.
    pub(super) fn join(&mut self, a: usize, b: usize) {
        let (at_a, at_b) = (self.relayed(a), self.relayed(b));
        self.robots[a].client.connect_peer(at_b, self.now).unwrap();
        self.robots[b].client.connect_peer(at_a, self.now).unwrap();
    }

    /// Sends over the bound channel; `false` without one.
    pub(super) fn say(&mut self, from: usize, to: SocketAddr, payload: &[u8]) -> bool {
        let robot = &mut self.robots[from];
        let Some(header) = robot.client.wrap(to, payload.len(), self.now) else { return false };
        let from = robot.address;
        self.fly(Flight::ToServer { from, bytes: [&header, payload].concat() });
        true
    }

    fn fly(&mut self, flight: Flight) {
        if self.random.next_u64() % 100 < self.loss_percent {
            return;
        }
        self.sequence += 1;
        self.flights.insert((self.now + LATENCY, self.sequence), flight);
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.collect();
            let timers = self.robots.iter().filter_map(|robot| robot.client.poll_timeout());
            let timers = timers.chain(self.server.poll_timeout());
            let next = timers.chain(self.flights.keys().next().map(|(at, _)| *at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            assert!(next >= self.now || next + Duration::from_secs(1) > self.now, "a timer stands still");
            self.now = self.now.max(next);
            self.deliver();
            let clock = self.clock();
            self.server.handle_timeout(clock);
            for robot in &mut self.robots {
                robot.client.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn collect(&mut self) {
        let mut out = VecDeque::new();
        for robot in &mut self.robots {
            while let Some(outgoing) = robot.client.poll_transmit() {
                out.push_back(Flight::ToServer { from: robot.address, bytes: outgoing.payload });
            }
            while let Some(event) = robot.client.poll_event() {
                robot.events.push((self.now - self.start, event));
            }
        }
        out.into_iter().for_each(|flight| self.fly(flight));
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.flights.first_entry().filter(|entry| entry.key().0 <= self.now) {
            match entry.remove() {
                Flight::ToServer { from, bytes } => self.deliver_to_server(from, bytes),
                Flight::ToClient { to, bytes } => self.deliver_to_client(to, &bytes),
            }
        }
    }

    fn deliver_to_server(&mut self, from: SocketAddr, mut bytes: Vec<u8>) {
        self.to_server += 1;
        if !self.up {
            return;
        }
        let clock = self.clock();
        match self.server.handle(tuple(from), &mut bytes, clock) {
            Action::Drop => {}
            Action::Wrap(..) | Action::Unwrap(_) => unreachable!("nothing is outside here"),
            Action::Forward(to) => self.fly(Flight::ToClient { to: to.remote, bytes }),
            Action::Send(to) => {
                let bytes = self.server.output().to_vec();
                self.fly(Flight::ToClient { to: to.remote, bytes });
            }
        }
    }

    fn deliver_to_client(&mut self, to: SocketAddr, bytes: &[u8]) {
        for robot in self.robots.iter_mut().filter(|robot| robot.address == to) {
            let input = robot.client.handle_datagram(server_address(to), bytes, self.now);
            if let RelayInput::FromPeer { peer, payload } = input {
                robot.received.push((peer, payload.to_vec()));
            }
        }
    }
}

pub(super) fn server_address(client: SocketAddr) -> SocketAddr {
    let text = if client.is_ipv4() { "198.51.100.1:3478" } else { "[2001:db8::1]:3478" };
    text.parse().unwrap()
}

pub(super) fn tuple(client: SocketAddr) -> Tuple {
    Tuple { via: Via::Socket(0), local: server_address(client).ip(), remote: client }
}
